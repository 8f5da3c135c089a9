"""CPU of a trial as trials become many: an instant evaluator, 10,000 trials, one SQLite study.

    python benchmarks/many_trials.py [--trials 10000] [--json FILE]

Every trial is asked for, claimed, told and committed as a search does it; what is counted is the process's CPU time, a thousand trials
a line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from dse.problem.objectives import Objective
from dse.quality.evaluators import FunctionEvaluator
from dse.spaces.parameters import Parameter, Space
from dse.storage.trials import TrialStore
from dse.strategies import make
from dse.strategies.driver import run
from dse.strategies.executors import Workers
from dse.strategies.proxy import is_first
from dse.strategies.task import Task

GOAL_MS = 40.0


def measure(count: int, folder: Path, strategy: str = "random") -> list[float]:
    """CPU milliseconds of each of ``count`` trials, in order."""
    space = Space("many", tuple(Parameter(f"p{i}", tuple(range(10)), "model", "linear") for i in range(8)))
    evaluator = FunctionEvaluator(lambda parameters, fidelity, seed: float(parameters["p0"]), metrics=("latency_s",))
    task = Task("many", space, (Objective("min", "latency_s"),), evaluator)
    marks = [time.process_time()]

    def on_trial(_: Any) -> None:
        marks.append(time.process_time())

    store = TrialStore.open(folder / "study.db")
    run(task, store, make(strategy), budget=count, seed=0, pool=Workers("inline"), phase=is_first, on_trial=on_trial)
    trials = store.trials()
    store.close()
    assert [t.number for t in trials] == list(range(count)) and all(t.done for t in trials)  # none lost, none doubled
    return [1e3 * (after - before) for before, after in pairwise(marks)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    count = args.trials
    with tempfile.TemporaryDirectory() as folder:
        each = measure(count, Path(folder))
    rows = [
        {"first": first, "last": min(first + 1000, count), "cpu_ms_a_trial": sum(part) / len(part), "dearest_cpu_ms": max(part)}
        for first in range(0, count, 1000)
        if (part := each[first : first + 1000])
    ]
    for row in rows:
        cpu, dearest = row["cpu_ms_a_trial"], row["dearest_cpu_ms"]
        print(f"trials {row['first']:6,} to {row['last']:6,}: {cpu:6.2f} ms CPU each, the dearest {dearest:.0f}")
    if args.json:
        args.json.write_text(json.dumps({"trials": count, "goal_ms": GOAL_MS, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
