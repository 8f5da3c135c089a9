"""The filter of a convolution as three numbers: what its im2col product does not say about the feature map behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from workloads.operation import IntLike


def filter_fields(
    extents: Sequence[IntLike], taps: Sequence[int], strides: Sequence[int] | None = None, dilations: Sequence[int] | None = None
) -> dict[str, Any]:
    """``filter_taps``, ``filter_overlap`` and ``filter_step`` of an `Operation` for a filter over a map of these extents.

    Outputs run in raster order, the last axis fastest. Where a run of outputs ends, the positions of the map that the next one
    reads again are, axis by axis, the reach of the filter beyond its stride, times the whole axes behind it, times the stride
    (or the filter, if that is less) of the axes before it: for rows and columns ``(r - s) w + s (q - s)``. That is exact inside
    a map and at most that at its borders (tests/workloads/test_filters.py walks them).

    Args:
        extents: of the map as it is stored, without padding.
        taps: of the filter along each axis.
        strides, dilations: along each axis; 1 where not given.
    """
    steps = list(strides or [1] * len(taps))
    spacing = list(dilations or [1] * len(taps))
    reach = [(count - 1) * gap + 1 for count, gap in zip(taps, spacing, strict=True)]
    overlap: IntLike = 0
    for axis, (span, step) in enumerate(zip(reach, steps, strict=True)):
        again: IntLike = max(span - step, 0)
        for behind in extents[axis + 1 :]:
            again = again * behind
        for before in range(axis):
            again = again * min(reach[before], steps[before])
        overlap = overlap + again
    return {"filter_taps": math.prod(taps), "filter_overlap": overlap, "filter_step": math.prod(steps)}
