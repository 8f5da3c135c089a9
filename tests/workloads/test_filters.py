"""The three numbers of a filter against a walk over its windows."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from workloads.filters import filter_fields


def positions(extents: tuple[int, ...], taps: tuple[int, ...], strides: tuple[int, ...], outputs: range) -> set[tuple[int, ...]]:
    """Positions of an unpadded map that a run of outputs reads."""
    counts = [(size - t) // s + 1 for size, t, s in zip(extents, taps, strides, strict=True)]
    found = set()
    for at in outputs:
        place = np.unravel_index(at, counts)
        for tap in itertools.product(*map(range, taps)):
            found.add(tuple(int(p) * s + t for p, s, t in zip(place, strides, tap, strict=True)))
    return found


@pytest.mark.parametrize(
    ("extents", "taps", "strides"),
    [
        ((12, 9), (3, 3), (1, 1)),
        ((13, 9), (3, 3), (2, 2)),
        ((14, 10), (5, 3), (2, 1)),
        ((12, 9), (2, 2), (2, 2)),
        ((12, 9), (1, 3), (1, 1)),
        ((12, 9), (3, 1), (1, 1)),
        ((20,), (4,), (1,)),
        ((21,), (3,), (2,)),
        ((8, 6, 6), (3, 3, 3), (1, 1, 1)),
        ((9, 7, 7), (3, 3, 3), (2, 2, 2)),
        ((12, 9), (2, 2), (3, 3)),
    ],
)
def test_overlap_of_runs_is_what_both_read(extents: tuple[int, ...], taps: tuple[int, ...], strides: tuple[int, ...]) -> None:
    counts = [(size - t) // s + 1 for size, t, s in zip(extents, taps, strides, strict=True)]
    whole = int(np.prod(counts))
    # A cut in the middle of every axis, with more outputs on either side than the filter reaches over.
    at = int(np.ravel_multi_index([c // 2 for c in counts], counts))
    both = positions(extents, taps, strides, range(at)) & positions(extents, taps, strides, range(at, whole))
    found = filter_fields(extents, taps, strides)
    assert found["filter_overlap"] == len(both)
    assert found["filter_taps"] == np.prod(taps)
    assert found["filter_step"] == np.prod(strides)
    for cut in range(1, whole):  # nowhere more
        both = positions(extents, taps, strides, range(cut)) & positions(extents, taps, strides, range(cut, whole))
        assert len(both) <= found["filter_overlap"]


def test_dilation_reaches_further() -> None:
    assert filter_fields([10, 8], [3, 3], None, [2, 2])["filter_overlap"] == 4 * 8 + 4


def test_one_tap_shares_nothing() -> None:
    assert filter_fields([10, 8], [1, 1], [2, 2]) == {"filter_taps": 1, "filter_overlap": 0, "filter_step": 4}
