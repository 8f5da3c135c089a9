"""Search strategies: who proposes the next trial. :mod:`dse.strategies.registry` lists them; ``auto`` picks one and says why.

    task = nested_task(evaluation, evaluator)         # dse.strategies.views
    store = TrialStore.of_study(study)                # dse.storage.trials
    outcome = run(task, store, make("nested"), budget=50, seed=0)

`dse.searches.measured_search.search` does all of it for a problem. Importing this module is light; torch, Ax, pymoo and Dask are imported
by the strategies that need them when they propose.
"""

from __future__ import annotations

from typing import Any

from dse.strategies.registry import StrategyRecord, check, choose, find, make, names, records, register

__all__ = ["StrategyRecord", "check", "choose", "find", "make", "names", "records", "register", "run"]


def __getattr__(name: str) -> Any:
    if name == "run":
        # Start-up: the list of strategies is light, and the driver brings the study with its database.
        from dse.strategies.driver import run

        return run
    raise AttributeError(f"module 'dse.strategies' has no attribute {name!r}")
