"""Run every benchmark of this folder; each prints its table and writes JSON to build/benchmarks/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What a default `make bench` runs; benchmarks of learnt strategies and of peer tools need their extras and are run by name.
SCRIPTS = ("sweep.py", "evaluation.py", "peers.py")


def main() -> int:
    """Run them in turn; the exit code is the number that failed."""
    results = HERE.parent / "build" / "benchmarks"
    results.mkdir(parents=True, exist_ok=True)
    failed = 0
    for script in SCRIPTS:
        print(f"== {script}", flush=True)
        command = [sys.executable, str(HERE / script), "--json", str(results / script.replace(".py", ".json"))]
        failed += subprocess.run(command, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
