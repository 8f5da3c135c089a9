"""Pareto filter: which points of a set are dominated by no other point of it (all objectives minimised, ties kept)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def pareto_mask(points: FloatArray) -> BoolArray:
    """Return the mask (n,) of non-dominated rows of ``points`` (n, d), every column minimised.

    A row is dominated if another row is no worse everywhere and better somewhere. Equal rows are kept together.
    Raises ValueError on NaN, which has no place in an order.
    """
    array = np.ascontiguousarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] == 0:
        raise ValueError(f"points must be a two-dimensional array with at least one column, got shape {array.shape}")
    if np.isnan(array).any():
        raise ValueError("points must not hold NaN: an objective of a feasible design is a number")
    return np.asarray(_kernels.pareto_mask(array))


def pareto_mask_reference(points: FloatArray) -> BoolArray:
    """The definition itself, every row against every other (n^2 d): the reference that the kernel is tested against."""
    array = np.asarray(points, dtype=np.float64)
    keep = np.ones(len(array), dtype=bool)
    for i, point in enumerate(array):
        no_worse = np.all(array <= point, axis=1)
        better = np.any(array < point, axis=1)
        keep[i] = not np.any(no_worse & better)
    return keep
