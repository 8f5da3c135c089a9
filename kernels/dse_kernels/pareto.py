"""Pareto filter: which points of a set are dominated by no other point of it (all objectives minimised, ties kept)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


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


def unbeaten(columns: FloatArray, alive: BoolArray, archive: FloatArray, *, margin: float) -> IntArray:
    """Return the indices of the points ``columns`` (d, n) that are ``alive`` (n,) and that no row of ``archive`` (m, d) clearly beats.

    A row beats a point that it is nowhere above, and below by more than ``margin`` of the larger of the two values in some column:
    what is equal but for rounding stays. All values are minimised; a point with NaN is never beaten.
    """
    held = np.ascontiguousarray(columns, dtype=np.float64)
    rows = np.ascontiguousarray(archive, dtype=np.float64)
    if held.ndim != 2 or rows.ndim != 2 or rows.shape[1] != held.shape[0] or np.shape(alive) != (held.shape[1],):
        raise ValueError(f"columns (d, n), alive (n,), archive (m, d) have shapes {held.shape}, {np.shape(alive)}, {rows.shape}")
    return np.asarray(_kernels.unbeaten(held, np.ascontiguousarray(alive, dtype=np.bool_), rows, margin))


def unbeaten_reference(columns: FloatArray, alive: BoolArray, archive: FloatArray, *, margin: float) -> IntArray:
    """The definition of `unbeaten`, every point against every row of the archive."""
    stays = np.array(alive, dtype=bool)
    for row in np.asarray(archive, dtype=np.float64):
        with np.errstate(invalid="ignore"):
            gap = columns - row[:, None]
            clear = gap > margin * np.maximum(np.abs(columns), np.abs(row[:, None]))
        stays &= ~((gap >= 0.0).all(axis=0) & clear.any(axis=0))
    return np.flatnonzero(stays)
