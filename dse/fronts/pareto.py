"""Pareto fronts with a canonical order, and their hypervolume. All objectives are minimised here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from dse_kernels.pareto import pareto_mask

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


DIGITS = 9
"""Significant decimal digits at which objective values are compared: designs that differ by less (5e-10 to 5e-9 of the value, a thousand
times finer than any model here and a million times coarser than rounding) are equal."""

CLEARLY = 2e-8
"""Values that differ by more than this share of the larger one differ as `rounded` too, whose steps are at most 1e-8 of a value."""


def rounded(values: FloatArray) -> FloatArray:
    """Values to ``DIGITS`` significant digits: what dominance and order are told by. Equality of these is transitive."""
    array = np.asarray(values, dtype=np.float64)
    # What lies near the ends of doubles is no quantity of ours, and its scale would overflow: left as it is.
    known = (np.abs(array) > 1e-280) & (np.abs(array) < 1e280)
    exponent = np.floor(np.log10(np.abs(array, where=known, out=np.ones_like(array)))) - (DIGITS - 1)
    # Powers of ten up to 10^22 are exact, so that the quotient is rounded once.
    scale = 10.0 ** np.abs(exponent)
    digits = np.rint(np.where(exponent < 0, array * scale, array / scale))
    return np.where(known, np.where(exponent < 0, digits / scale, digits * scale), array)


@dataclass(frozen=True)
class Front:
    """Non-dominated designs: indices of model and hardware (n,), objective values (n, d) to be minimised.

    Values are compared as `rounded` has them. Ties are kept, and the order is canonical: by objective values, then by model and by
    hardware index. Merging is therefore associative and commutative, and equal fronts are equal arrays.
    """

    models: IntArray
    hardware: IntArray
    values: FloatArray

    def __len__(self) -> int:
        return len(self.models)

    @classmethod
    def of(cls, models: IntArray, hardware: IntArray, values: FloatArray) -> Front:
        """The front of a set of designs, which must hold no design twice."""
        compared = rounded(values)
        keep = pareto_mask(compared) if len(values) else np.zeros(0, dtype=bool)
        models, hardware, values, compared = models[keep], hardware[keep], values[keep], compared[keep]
        columns = [hardware, models, *reversed(compared.T)] if len(values) else [hardware, models]
        order = np.lexsort(columns)
        return cls(models[order], hardware[order], values[order])


def merge(fronts: Iterable[Front], objectives: int) -> Front:
    """The front of the union of fronts of disjoint sets."""
    parts = [front for front in fronts if len(front)]
    if not parts:
        empty = np.zeros(0, dtype=np.int64)
        return Front(empty, empty, np.zeros((0, objectives)))
    return Front.of(
        np.concatenate([front.models for front in parts]),
        np.concatenate([front.hardware for front in parts]),
        np.concatenate([front.values for front in parts]),
    )


def dominated_by(values: FloatArray, others: FloatArray) -> IntArray:
    """The first row of ``others`` (k, d) that dominates each row (n, d), -1 where none does: no worse in any column, better in one."""
    found = np.full(len(values), -1, dtype=np.int64)
    for i, row in enumerate(values):
        beats = np.all(others <= row, axis=1) & np.any(others < row, axis=1)
        if beats.any():
            found[i] = int(np.argmax(beats))
    return found


def reached(front: FloatArray, points: FloatArray) -> BoolArray:
    """Which ``points`` (n, d) lie in the volume that ``front`` (k, d) dominates: some member is nowhere worse, equal ones included."""
    if not len(front):
        return np.zeros(len(points), dtype=bool)
    return np.asarray((front[:, None, :] <= points[None, :, :]).all(2).any(0))


def hypervolume(values: FloatArray, reference: FloatArray) -> float:
    """Volume dominated by the points ``values`` (n, d) and bounded by ``reference`` (d,), all minimised.

    Exact: a sweep for one and two objectives, from three on moocore (Fonseca, Paquete and Lopez-Ibanez 2006 and later). Points that do
    not improve on the reference in every objective add nothing.
    """
    values = np.asarray(values, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    inside = values[np.all(values < reference, axis=1)] if len(values) else values
    if not len(inside):
        return 0.0
    # Distinct points of the front alone: equal fronts have the same volume to the last bit, whatever came with them.
    inside = np.unique(inside[pareto_mask(inside)], axis=0)
    if inside.shape[1] == 1:
        return float(reference[0] - inside[:, 0].min())
    if inside.shape[1] == 2:
        # Along the first objective, each point adds the strip down from the best second objective so far.
        best = np.minimum.accumulate(np.concatenate([[reference[1]], inside[:, 1]]))
        return float(np.sum((reference[0] - inside[:, 0]) * (best[:-1] - best[1:])))
    import moocore  # 0.1 s, for what a search with two objectives never asks

    return float(moocore.hypervolume(inside, ref=reference))
