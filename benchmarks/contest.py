"""What benchmarks of searches share: the tasks, one thread, CPU seconds, curves over trials, a line a method with every seed kept."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np  # noqa: E402 - after the thread settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
MARKS = (10, 15, 25, 50)
SEEDS = range(9)


def tasks() -> ModuleType:
    """The tasks that the tests use."""
    name = "dse_strategy_tasks"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "dse" / "tasks.py")
        assert spec and spec.loader
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def cpu() -> float:
    """Process CPU seconds."""
    return time.process_time()


def curve(task: Any, trials: list[Any], reference: Any, true: float) -> list[float]:
    """Share of the true hypervolume after 1, 2, ... trials."""
    return [task.hypervolume(trials[: k + 1], reference) / true for k in range(len(trials))]


def row(name: str, curves: list[list[float]], seconds: float, **more: Any) -> dict[str, Any]:
    """One line of a table, printed and returned."""
    array = 100 * np.array(curves)
    found = {
        "method": name,
        "seeds": len(curves),
        "cpu_s_per_proposal": seconds,
        **{f"@{k}": [float(x) for x in array[:, k - 1]] for k in MARKS if k <= array.shape[1]},
        **more,
    }
    shown = "  ".join(
        f"@{k} {np.median(array[:, k - 1]):5.1f} [{array[:, k - 1].min():.1f}, {array[:, k - 1].max():.1f}]"
        for k in MARKS
        if k <= array.shape[1]
    )
    print(f"  {name:<34} {len(curves)} seeds  {shown}  {seconds:.3f} CPU s a proposal", flush=True)
    return found


def strategy_row(name: str, make_task: Callable[[], Any], make: Callable[[], Any], budget: int, seeds: Any, reference: Any,
                 true: float) -> dict[str, Any]:  # fmt: skip
    """Run one of our strategies over the seeds."""
    from dse.strategies.protocol import simulate

    curves, start = [], cpu()
    for seed in seeds:
        task = make_task()
        curves.append(curve(task, simulate(task, make(), budget=budget, seed=seed), reference, true))
    return row(name, curves, (cpu() - start) / (len(curves) * budget))
