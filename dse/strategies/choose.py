"""``auto``: which strategy fits a problem, and why."""

from __future__ import annotations

from dse.errors import UsageError, unknown_name
from dse.spaces.sizes import SWEEP_LIMIT

NAMES = ("auto", "exhaustive", "nested", "flat", "ax", "amoo", "nsga2", "random", "sobol")
INNER_LIMIT = 100_000
MODEL_LIMIT = 250_000


def choose(*, learnt: int, models: int, hardware: int, separable: bool = True) -> tuple[str, str]:
    """Name of the strategy and the reason in a sentence.

    ``learnt`` is the number of metrics that only an evaluation gives; ``models`` and ``hardware`` the sizes of the two
    spaces; ``separable`` whether quality depends on the model's parameters alone.
    """
    total = models * hardware
    if not learnt and total <= SWEEP_LIMIT:
        return "exhaustive", f"nothing is learnt and {total:,} designs can be swept whole, which is exact"
    if not learnt:
        return (
            "amoo",
            f"nothing is learnt and {total:,} designs are too many to sweep: descent on the cost model, then exact polish",
        )
    if learnt == 1 and separable and hardware <= INNER_LIMIT and models <= MODEL_LIMIT:
        return "nested", (
            f"quality is evaluated and the {hardware:,} hardware points of each of {models:,} models are solved exactly, so "
            "that evaluations are spent on quality alone"
        )
    why = (
        "more than one metric is learnt"
        if learnt > 1
        else "quality depends on hardware parameters"
        if not separable
        else f"{hardware:,} hardware points a model are too many to solve exactly"
    )
    return "flat", f"{why}, so whole designs are searched with a model of every learnt metric"


def check(name: str) -> str:
    """The name of a strategy, or an error with the nearest."""
    if name not in NAMES:
        raise unknown_name("strategy", name, NAMES)
    return name


def check_budget(budget: int | None) -> None:
    """A budget is at least one trial."""
    if budget is not None and budget < 1:
        raise UsageError(f"budget is {budget}; at least one evaluation is needed")
