"""Which designs count: every operation has a mapping, the device can be made, and every constraint holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from dse.problem.objectives import Constraint

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

UNMAPPABLE = "no mapping fits the buffers"
UNMAKEABLE = "the device cannot be made (a memory larger than the one outside it, die, reticle or wafer)"


class Designs(Protocol):
    """Designs as a block of models on hardware points (:class:`dse.evaluation.evaluation.Block`)."""

    shape: tuple[int, int]

    def mappable(self) -> BoolArray:
        """Whether every operation of the model has a mapping on the point."""
        ...

    def makeable(self) -> BoolArray:
        """Whether the device of the point can be made."""
        ...

    def metric(self, name: str) -> FloatArray:
        """One metric, with a shape that broadcasts to ``shape``."""
        ...


def meets(constraint: Constraint, values: FloatArray | np.float64) -> BoolArray:
    """Where a bound holds; nan never does."""
    return np.asarray(values <= constraint.bound if constraint.relation == "<=" else values >= constraint.bound)


def feasible(
    block: Designs, constraints: Sequence[Constraint], metric: Callable[[Any, str], FloatArray] | None = None
) -> tuple[BoolArray, dict[str, int]]:
    """Mask (models, points) of the designs that count, and how many break each rule.

    ``metric(block, name)`` stands in for the block's own where a search has measured some. A design is counted at every rule
    that it breaks, not at the first alone; one without a mapping has no metrics and breaks no bound.
    """
    mapped = np.array(np.broadcast_to(block.mappable(), block.shape))
    makeable = np.broadcast_to(block.makeable(), block.shape)
    reasons: dict[str, int] = {}
    for reason, holds in ((UNMAPPABLE, mapped), (UNMAKEABLE, makeable)):
        if broken := int(holds.size - np.count_nonzero(holds)):
            reasons[reason] = broken
    found = mapped & makeable
    for constraint in constraints:
        met = np.broadcast_to(
            meets(constraint, metric(block, constraint.metric) if metric else block.metric(constraint.metric)), block.shape
        )
        reasons[str(constraint)] = int(np.count_nonzero(mapped & ~met))
        found &= met
    return found, reasons
