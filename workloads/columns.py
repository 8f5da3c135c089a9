"""How columns of numbers are stacked and made into keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workloads.errors import WorkloadError, shorten
from workloads.operation import IntArray, IntLike


def append_digit(key: IntArray, size: int, column: IntArray, rows: IntArray) -> tuple[IntArray, int]:
    """Append ``column`` to a mixed-radix key, giving the key and the number of values it can take.

    A plain mixed radix is far cheaper than sorting rows of a matrix; where the radix would overflow, the key is first
    replaced by its rank.
    """
    low, high = int(column.min()), int(column.max())
    if low == high:
        return key, size
    span = high - low + 1
    if size * span >= 2**62:
        values, key = np.unique(key, return_inverse=True)
        key, size = np.asarray(key, dtype=np.int64), len(values)
    if size * span >= 2**62:
        values, column = np.unique(column, return_inverse=True)
        column, span, low = np.asarray(column, dtype=np.int64), len(values), 0
    return key * span + (column - low), size * span


def stack(name: str, values: Sequence[IntLike]) -> IntArray:
    """Stack scalars and (models,) arrays into (rows,) or (models, rows) of int64."""
    for value in values:
        if type(value) is int:
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "iu" or array.ndim > 1:
            raise WorkloadError(f"{name} must be a whole number or a one-dimensional array of them, got {shorten(value)!r} ({array.dtype})")
    for value in values:
        if type(value) is int and not -(2**62) < value < 2**62:
            raise WorkloadError(f"{name} of an operation is {value}, must be below 2^62 to be counted exactly")
    lengths = {len(value) for value in values if isinstance(value, np.ndarray) and value.ndim == 1}
    if not lengths:
        return np.array([int(value) for value in values], dtype=np.int64)
    if len(lengths) > 1:
        raise WorkloadError(f"arrays of {name} must have one length, got lengths {sorted(lengths)}")
    stacked = np.empty((lengths.pop(), len(values)), dtype=np.int64)
    for i, value in enumerate(values):
        stacked[:, i] = value
    return stacked
