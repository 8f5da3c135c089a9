"""Search strategies: random, sobol, exhaustive, nested, flat, ax, nsga2, amoo; ``auto`` picks one and says why.

    task = nested_task(evaluation, evaluator)         # dse.strategies.views
    store = TrialStore.of_study(study)                # dse.storage.trials
    outcome = run(task, store, make("nested"), budget=50, seed=0)

`dse.searches.measured_search.search` does all of it for a problem. Importing this module is light; torch, Ax, pymoo and Dask are imported
by the strategies that need them when they propose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dse.strategies.choose import NAMES, check, choose

if TYPE_CHECKING:
    from dse.strategies.protocol import Strategy

__all__ = ["NAMES", "check", "choose", "make", "run"]


def make(name: str, **options: Any) -> Strategy:
    """The strategy called ``name`` (not ``auto``, which needs a problem: see :func:`choose`)."""
    check(name)
    if name == "nested":
        from dse.strategies.nested import NestedSearch

        return NestedSearch(**options)
    if name == "flat":
        from dse.strategies.flat import FlatSearch

        return FlatSearch(**options)
    if name == "ax":
        from dse.strategies.ax import AxSearch

        return AxSearch(**options)
    if name == "nsga2":
        from dse.strategies.nsga2 import Nsga2Search

        return Nsga2Search(**options)
    if name == "amoo":
        from dse.strategies.amoo.search import AmooSearch

        return AmooSearch(**options)
    from dse.strategies import sampling

    simple: dict[str, type[Any]] = {
        "random": sampling.RandomSearch,
        "sobol": sampling.SobolSearch,
        "exhaustive": sampling.ExhaustiveSearch,
    }
    if name not in simple:
        from dse.errors import UsageError

        raise UsageError(f"strategy {name!r} stands for a choice; choose() makes it for a problem")
    found: Strategy = simple[name](**options)
    return found


def __getattr__(name: str) -> Any:
    if name == "run":
        from dse.strategies.driver import run

        return run
    raise AttributeError(f"module 'dse.strategies' has no attribute {name!r}")
