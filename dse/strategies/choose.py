"""``auto``: which strategy fits a problem, and why."""

from __future__ import annotations

from dataclasses import dataclass

from dse.errors import UsageError, unknown_name

NAMES = ("auto", "exhaustive", "nested", "flat", "ax", "amoo", "nsga2", "random", "sobol")
# Largest joint space that is swept whole without asking, and largest hardware space that is solved exactly a model.
SWEEP_LIMIT = 500_000_000
# Most mapping searches (shapes x hardware points) of a sweep: each takes about 200 bytes and some microseconds.
MAPPING_LIMIT = 20_000_000
INNER_LIMIT = 100_000
MODEL_LIMIT = 250_000


@dataclass(frozen=True)
class Sizes:
    """Models, hardware points and distinct operations of all models of a problem: whether a sweep is too much, and why."""

    models: int
    hardware: int
    shapes: int

    @property
    def designs(self) -> int:
        """Number of designs."""
        return self.models * self.hardware

    @property
    def sweepable(self) -> bool:
        """Whether every model meets every hardware point in minutes and in memory."""
        return self.designs <= SWEEP_LIMIT and self.shapes * self.hardware <= MAPPING_LIMIT

    def refusal(self, *, measured: bool = False) -> str:
        """Why listing all designs is too much, in a sentence; ``measured``: quality is no surrogate's, and all strategies list them."""
        way_out = "fix some knobs with --set" + ("" if measured else ", or search it with --strategy auto")
        if self.designs > SWEEP_LIMIT:
            return f"space of {self.designs:,} designs is more than the {SWEEP_LIMIT:,} that can be listed whole; {way_out}"
        return (
            f"space needs {self.shapes:,} shapes x {self.hardware:,} hardware points = {self.shapes * self.hardware:,} mapping searches, "
            f"more than the {MAPPING_LIMIT:,} that fit a few minutes and gigabytes; sweep it in shards with --workers N, {way_out}"
        )


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
