"""How fast the exhaustive sweep is: the whole joint BERT space, mapping search included, exact front, and its peak memory.

    python benchmarks/sweep.py [--space catransformers] [--threads 2] [--json FILE]

Times a fresh process from start to written files, so that imports, the mapping search, the sweep and the report all count. The peak
is the resident set of that process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def measure(space: str, objective: str, threads: int) -> dict[str, float | str]:
    """One search in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "dse", "search", "--workload", "bert", "--objective", objective, "--space", space]
        command += ["--out", str(Path(folder) / "run"), "--threads", str(threads), "--json"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wall = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            raise SystemExit(f"search failed: {done.stderr}")
        answer = json.loads(done.stdout)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "space": space,
        "objective": objective,
        "designs": answer["points"],
        "feasible": answer["feasible"],
        "front": len(answer["front"]),
        "threads": threads,
        "wall_s": wall,
        "cpu_s": cpu,
        "designs_per_s": answer["points"] / wall,
        "peak_mib": after.ru_maxrss / 1024,
    }


def main() -> int:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", action="append", choices=["default", "catransformers"])
    parser.add_argument("--objective", action="append")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [measure(s, o, args.threads) for s in args.space or ["default", "catransformers"] for o in args.objective or ["carbon"]]
    head = f"{'space':<16}{'objective':<10}{'designs':>12}{'front':>8}{'wall s':>9}{'cpu s':>9}{'designs/s':>13}{'peak MiB':>10}"
    print(head)
    for row in rows:
        print(
            f"{row['space']:<16}{row['objective']:<10}{row['designs']:>12,}{row['front']:>8,}{row['wall_s']:>9.1f}{row['cpu_s']:>9.1f}"
            f"{row['designs_per_s']:>13,.0f}{row['peak_mib']:>10.0f}"
        )
    print(f"{args.threads} threads; from process start to written files, one run each; processor: {processor()}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown"
    found = re.search(r"model name\s*:\s*(.*)", text)
    return found.group(1) if found else "unknown"


if __name__ == "__main__":
    sys.exit(main())
