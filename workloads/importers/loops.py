"""Layers that repeat one another in a row of operations, as loops.

Only what stands side by side is joined, so that the table runs in the order of the graph: which results pass from one operation to the
next on chip follows from it (`workloads.tensors`). A loop neither begins with a function, an addition or a product of elements
nor ends before one: it may run in the epilogue of the operation before it.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

Bools = npt.NDArray[np.bool_]


def loops(keys: Sequence[Hashable], follows: Sequence[bool]) -> list[tuple[list[int], int]]:
    """The rows of a sequence whose repetitions are loops: for each the places that it stands for, and how many runs of one it is.

    The shortest loops are found first, then those around them: ``a b b a b b`` is ``a`` twice, ``b`` four times. ``follows``: which rows
    stay with the row before them.
    """
    rows = [([place], 1) for place in range(len(keys))]
    number: dict[Hashable, int] = {}
    ids = np.array([number.setdefault((key, 1), len(number)) for key in keys], dtype=np.int64)
    known: dict[int, tuple[Hashable, int]] = {ids[place]: (key, 1) for place, key in enumerate(keys)}
    with_before = np.array(follows, dtype=bool)
    period = 1
    while 2 * period <= len(rows):
        found = _first(ids, with_before, period)
        if found is None:
            period += 1
            continue
        start, count = found
        body, heads = [], []
        for at in range(start, start + period):
            key, runs = known[ids[at]]
            heads.append(number.setdefault((key, runs * count), len(number)))
            known[heads[-1]] = (key, runs * count)
            body.append(([place for turn in range(count) for place in rows[at + turn * period][0]], runs * count))
        end = start + period * count
        rows[start:end] = body
        ids = np.concatenate((ids[:start], np.array(heads, dtype=np.int64), ids[end:]))
        with_before = np.concatenate((with_before[: start + period], with_before[end:]))
        period = 1
    return rows


def _first(ids: npt.NDArray[np.int64], follows: Bools, period: int) -> tuple[int, int] | None:
    """Where the first loop of that period begins, and how often it runs."""
    edges = np.concatenate(([-1], np.flatnonzero(ids[period:] != ids[:-period]), [len(ids) - period]))
    for run in np.flatnonzero(np.diff(edges) > period):
        begin, end = int(edges[run]) + 1, int(edges[run + 1]) + period
        for start in range(begin, min(begin + period, end - 2 * period + 1)):
            count = (end - start) // period
            if start and follows[start]:
                continue
            after = start + count * period
            if after < len(ids) and follows[after]:
                count -= 1
            if count > 1:
                return start, count
    return None
