"""Sparse product of repeat counts and unit costs: the cost of every model of a block on every hardware point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def weighted_sums(index: IntArray, weight: FloatArray, unit: FloatArray) -> FloatArray:
    """Return ``sum_r weight[i, r] * unit[index[i, r], h]`` with shape (models, points).

    ``index`` and ``weight`` have shape (models, rows), ``unit`` (shapes, points). Summed in row order, so that the bits
    of a result depend on its model alone. Raises ValueError where shapes disagree or an index is out of range.
    """
    index = np.ascontiguousarray(index, dtype=np.int64)
    weight = np.ascontiguousarray(weight, dtype=np.float64)
    unit = np.ascontiguousarray(unit, dtype=np.float64)
    if index.shape != weight.shape or index.ndim != 2 or unit.ndim != 2:
        raise ValueError(f"index {index.shape} and weight {weight.shape} must agree and unit {unit.shape} must be 2-D")
    if index.size and (index.min() < 0 or index.max() >= unit.shape[0]):
        raise ValueError(f"index holds {index.min()}..{index.max()}, unit has {unit.shape[0]} rows")
    return np.asarray(_kernels.weighted_sums(index, weight, unit))


def weighted_sums_reference(index: IntArray, weight: FloatArray, unit: FloatArray) -> FloatArray:
    """The same sums in the same order with numpy, one row at a time; agrees with the kernel to the last bit."""
    total = np.zeros((index.shape[0], unit.shape[1]))
    for r in range(index.shape[1]):
        total += weight[:, r : r + 1] * unit[index[:, r]]
    return total
