"""Convolutions on systolic arrays through their im2col product, with the reuse that overlapping windows give in DRAM.

The product of a convolution is ``m = output height x output width``, ``k = filter height x filter width x channels``,
``n = filters``. Cycles and SRAM accesses are those of the product; DRAM reads of the input are not, because neighbouring
windows name the same words. They are the distinct words where those fit the active half of the buffer, and otherwise a
replay of the array's request order through the flush-when-full buffer, exact but as long as the stream itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hw_models.errors import HardwareError
from hw_models.systolic.gemm import (
    BoolArray,
    IntArray,
    SystolicCounts,
    buffer_kib,
    ceil_div,
    dataflow_masks,
    gemm_counts,
    positive_integers,
    read_buffer_words,
)


@dataclass(frozen=True)
class ConvolutionShape:
    """The im2col product of a convolution. All fields are int64 arrays of one broadcast shape."""

    m: IntArray
    """Output height x output width."""
    n: IntArray
    """Filters."""
    k: IntArray
    """Filter height x filter width x channels."""
    output_height: IntArray
    output_width: IntArray
    distinct_input_words: IntArray
    """Input words that any window names (strides beyond the filter skip some)."""


def im2col(
    height: npt.ArrayLike,
    width: npt.ArrayLike,
    channels: npt.ArrayLike,
    filters: npt.ArrayLike,
    filter_height: npt.ArrayLike,
    filter_width: npt.ArrayLike,
    *,
    stride: npt.ArrayLike = 1,
    padding: int = 0,
    ceil_mode: bool = False,
) -> ConvolutionShape:
    """Product dimensions of a convolution over ``height x width x channels`` (channels innermost), vectorised.

    ``padding`` is added on all four sides and counted as stored words. ``ceil_mode`` keeps a last window that reaches
    beyond the input, as SCALE-Sim does; without it the output size is the usual floor((h + 2 p - r) / stride) + 1.
    Raises HardwareError if a dimension is no positive integer or the filter is larger than the padded input.
    """
    if padding != int(padding) or padding < 0:
        raise HardwareError(f"padding must be an integer from 0, got {padding!r}")
    h = positive_integers("height", height) + 2 * int(padding)
    w = positive_integers("width", width) + 2 * int(padding)
    c = positive_integers("channels", channels)
    f = positive_integers("filters", filters)
    r, s = positive_integers("filter_height", filter_height), positive_integers("filter_width", filter_width)
    step = positive_integers("stride", stride)
    h, w, c, f, r, s, step = np.broadcast_arrays(h, w, c, f, r, s, step)
    if (r > h).any() or (s > w).any():
        raise HardwareError(
            f"filter_height x filter_width is {r.max()} x {s.max()} and exceeds the padded input of {h.min()} x {w.min()}; "
            "reduce the filter or raise padding"
        )
    slack = step - 1 if ceil_mode else np.zeros_like(step)
    eh, ew = (h - r + slack) // step + 1, (w - s + slack) // step + 1
    distinct = _covered(h, r, eh, step) * _covered(w, s, ew, step) * c
    return ConvolutionShape(eh * ew, f, r * s * c, eh, ew, distinct)


def _covered(extent: IntArray, window: IntArray, windows: IntArray, step: IntArray) -> IntArray:
    """Positions of one axis that at least one window covers, windows cut at the end of the input."""
    last = np.clip(extent - (windows - 1) * step, 0, window)  # a kept last window may even start beyond the input
    return np.asarray((windows - 1) * np.minimum(step, window) + last, dtype=np.int64)


def conv_counts(
    height: npt.ArrayLike,
    width: npt.ArrayLike,
    channels: npt.ArrayLike,
    filters: npt.ArrayLike,
    filter_height: npt.ArrayLike,
    filter_width: npt.ArrayLike,
    *,
    stride: npt.ArrayLike = 1,
    padding: int = 0,
    ceil_mode: bool = False,
    rows: npt.ArrayLike,
    columns: npt.ArrayLike,
    dataflow: str | npt.ArrayLike,
    ifmap_kib: npt.ArrayLike,
    filter_kib: npt.ArrayLike,
    ofmap_kib: npt.ArrayLike,
    kind: str = "systolic",
) -> SystolicCounts:
    """Counts of a convolution (arguments of :func:`im2col` and :func:`hw_models.systolic.gemm.gemm_counts`), vectorised.

    All but ``ifmap_dram_reads`` are those of the product. Where the distinct input words do not fit the active half of
    the input buffer, each such case is replayed request by request (time and memory in proportion to its SRAM reads).
    """
    shape = im2col(
        height,
        width,
        channels,
        filters,
        filter_height,
        filter_width,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
    )
    counts = gemm_counts(
        shape.m, shape.n, shape.k,
        rows=rows, columns=columns, dataflow=dataflow,
        ifmap_kib=ifmap_kib, filter_kib=filter_kib, ofmap_kib=ofmap_kib, kind=kind,
    )  # fmt: skip
    names = np.asarray(dataflow)
    cap = read_buffer_words(buffer_kib("ifmap_kib", ifmap_kib))
    fields = np.broadcast_arrays(
        shape.distinct_input_words, cap,
        positive_integers("height", height) + 2 * padding, positive_integers("width", width) + 2 * padding,
        positive_integers("channels", channels), positive_integers("filter_height", filter_height),
        positive_integers("filter_width", filter_width), positive_integers("stride", stride),
        shape.output_height, shape.output_width, shape.n,
        positive_integers("rows", rows), positive_integers("columns", columns), names, np.asarray(counts.cycles),
    )  # fmt: skip
    distinct, cap = fields[0], fields[1]
    reads = np.array(distinct, dtype=np.int64)
    for index in np.argwhere(distinct >= cap):  # one empty index for scalars
        at = tuple(int(i) for i in index)
        h, w, c, r, s, step, eh, ew, n, R, C = (int(field[at]) for field in fields[2:13])
        addresses = _input_addresses(h, w, c, r, s, step, eh, ew)
        stream = _request_order(addresses, n, R, C, str(fields[13][at]))
        reads[at] = replay_flush_cache(stream, int(cap[at]))
    return replace(counts, ifmap_dram_reads=reads[()])


def _input_addresses(h: int, w: int, c: int, r: int, s: int, step: int, eh: int, ew: int) -> IntArray:
    """Word addresses (m, k) of the im2col matrix, -1 where a window reaches beyond the input."""
    i, j = np.divmod(np.arange(eh * ew), ew)
    a, rest = np.divmod(np.arange(r * s * c), s * c)
    b, channel = np.divmod(rest, c)
    y, x = i[:, None] * step + a, j[:, None] * step + b
    return np.where((y < h) & (x < w), (y * w + x) * c + channel, -1).astype(np.int64)


def _request_order(matrix: IntArray, n: int, rows: int, columns: int, dataflow: str) -> IntArray:
    """The words of the input matrix (m, k) in the order in which the array asks for them, cycle by cycle, lane by lane."""
    is_os, is_ws, _ = dataflow_masks(dataflow)
    m, k = matrix.shape
    if is_os:
        one_pass = [_skewed(matrix[f : f + rows].T) for f in range(0, m, rows)]
        passes = int(ceil_div(n, columns))
    elif is_ws:
        one_pass = [_skewed(matrix[:, f : f + rows]) for f in range(0, k, rows)]
        passes = int(ceil_div(n, columns))
    else:  # stationary: loaded row by row, the last row of the fold first
        one_pass = [matrix[g : g + columns, f : f + rows].T[::-1].ravel() for g in range(0, m, columns) for f in range(0, k, rows)]
        passes = 1
    stream = np.concatenate(one_pass * passes)
    return stream[stream >= 0]


def _skewed(block: IntArray) -> IntArray:
    """(time, lane) words in the order of a wavefront: lane j starts j cycles late."""
    time, lane = np.indices(block.shape)
    return block.ravel()[np.lexsort((lane.ravel(), (time + lane).ravel()))]


def replay_flush_cache(stream: IntArray, cap: int) -> int:
    """Words fetched when ``stream`` (addresses) passes a cache of ``cap`` words that drops everything once it is full.

    A word is fetched if it did not occur since the last flush; the previous occurrence of every position tells that
    without replaying hits. Time O(length log length).
    """
    order = np.argsort(stream, kind="stable")
    previous = np.full(stream.size, -1, dtype=np.int64)
    same: BoolArray = stream[order[1:]] == stream[order[:-1]]
    previous[order[1:][same]] = order[:-1][same]
    start = misses = 0
    while start < stream.size:
        end, fetched = start, 0
        while end < stream.size and fetched < cap:
            # A window of distinct words as long as what is still missing can at best fill the cache.
            chunk = min(stream.size - end, max(cap - fetched, 1024))
            new = np.flatnonzero(previous[end : end + chunk] < start)
            if fetched + new.size >= cap:
                end += int(new[cap - fetched - 1]) + 1
                fetched = cap
            else:
                end += chunk
                fetched += int(new.size)
        misses += fetched
        start = end
    return misses
