"""Run every benchmark of this folder; each prints its table and writes JSON to build/benchmarks/."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What a default `make bench` runs, with what it is told: minutes in all. Run by name (they take longer, or need extras):
# search.py flat cost amoo amoo-evaluations bert transfer stock-ax, and noise.py with its 30 seeds.
SCRIPTS: tuple[tuple[str, ...], ...] = (
    ("sweep.py",),
    ("evaluation.py",),
    ("attention.py",),
    ("peers.py",),
    ("search.py", "nested"),
    ("noise.py", "--seeds", "5"),
)


def main() -> int:
    """Run them in turn; the exit code is the number that failed."""
    results = HERE.parent / "build" / "benchmarks"
    results.mkdir(parents=True, exist_ok=True)
    failed = 0
    for script, *options in SCRIPTS:
        print(f"== {' '.join((script, *options))}", flush=True)
        if script == "noise.py" and find_spec("optuna") is None:
            print("left out: it compares with Optuna, which the extra [search] brings", flush=True)
            continue
        file = results / ("-".join((script.removesuffix(".py"), *(o.strip("-") for o in options))) + ".json")
        command = [sys.executable, str(HERE / script), *options, "--json", str(file)]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
