"""Systolic arrays in closed form: cycles, SRAM accesses and operand DRAM reads of a matrix product.

``out[m, n] = in[m, k] x filter[k, n]`` on an array of ``rows`` x ``columns`` multiply-accumulators, one word an element.
The three dataflows lay two dimensions of the product over the array and stream the third:

======== ============ =============== ========= ==================
dataflow over rows    over columns    streamed  loaded beforehand
======== ============ =============== ========= ==================
``os``   m            n               k         nothing
``ws``   k            n               m         ``rows`` cycles
``is``   k            m               n         ``rows`` cycles
======== ============ =============== ========= ==================

A *fold* is one tile of the two spatial dimensions. The counts of a fold-after-fold array equal those of SCALE-Sim 3.0.0
(MIT licence, https://github.com/scalesim-project/SCALE-Sim) in its stall-free mode, from whose documented behaviour the
forms are derived; where that simulator's counters differ from the physical count, both are given (``*_scalesim``).
Everything here is elementwise over broadcast arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.errors import HardwareError, unknown_name

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

DATAFLOWS: Final = ("os", "ws", "is")
ARRAY_KINDS: Final = ("systolic", "systolic_pipelined", "dot_product")

# The read buffer of the simulator is double-buffered and managed in hundredths: half of them hold the active data.
_SETS: Final = 100
_ACTIVE_SETS: Final = 50
# Products of dimensions are formed in int64; beyond this they could wrap around.
_LARGEST_WORK: Final = 2.0**61


@dataclass(frozen=True)
class SystolicCounts:
    """Counts of one product on one array, or of many (every field then has the broadcast shape of the arguments).

    Words are elements (one byte in SCALE-Sim). ``utilisation`` and ``mapping_efficiency`` are percentages.
    """

    cycles: IntArray
    """Cycles from the first to the last, of the array kind asked for."""
    cycles_scalesim: IntArray
    """SCALE-Sim's "Total Cycles": the index of the last cycle of the fold-after-fold array, one less than its cycles."""
    ifmap_sram_reads: IntArray
    filter_sram_reads: IntArray
    ofmap_sram_writes: IntArray
    """Words written: every output once (os), or every partial sum (ws, is)."""
    ofmap_sram_writes_scalesim: IntArray
    """As SCALE-Sim counts them: its os model adds rows + columns to the counter in every fold."""
    ifmap_dram_reads: IntArray
    filter_dram_reads: IntArray
    ofmap_dram_writes: IntArray
    """Words that leave the array towards DRAM: m n (os), folds over k times m n (ws, is; partial sums are not
    accumulated on chip). SCALE-Sim adds up to one line of its own padding when they exceed half the output buffer."""
    utilisation: FloatArray
    """Percent of the multiply-accumulate slots used over the run: 100 m n k / (cycles rows columns). For the kind
    ``systolic`` the divisor holds ``cycles_scalesim``, so that the figure equals the simulator's."""
    mapping_efficiency: FloatArray
    """Percent of the array's elements that hold work, averaged over the folds."""


def ceil_div(numerator: Any, denominator: Any) -> Any:
    """Integers: the least integer not below numerator / denominator (any array namespace, exact)."""
    return -(-numerator // denominator)


def read_buffer_words(kib: npt.ArrayLike) -> IntArray:
    """Words that the active half of a read buffer of ``kib`` KiB holds: 50 floor(1024 kib / 100), one byte a word."""
    return np.asarray(_ACTIVE_SETS * (np.floor(np.asarray(kib, dtype=np.float64) * 1024 / _SETS)), dtype=np.int64)


def positive_integers(name: str, value: npt.ArrayLike) -> IntArray:
    """``value`` as int64, or a HardwareError that names the field: dimensions and array sizes are integers from 1."""
    array = np.asarray(value)
    if array.dtype == np.bool_ or not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise HardwareError(f"{name} must be a positive integer, got {value!r}")
    with np.errstate(invalid="ignore"):
        wrong = ~((array >= 1) & (array < _LARGEST_WORK) & (array == np.floor(array)))
    if wrong.any():
        raise HardwareError(f"{name} must be a positive integer, got {array[wrong].flat[0]!s}; the least valid value is 1")
    return array.astype(np.int64)


def buffer_kib(name: str, value: npt.ArrayLike) -> FloatArray:
    """``value`` in KiB as float64, or a HardwareError: a buffer must hold at least one set of the double buffer."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise HardwareError(f"{name} must be a size in KiB, got {value!r}") from None
    wrong = ~(np.isfinite(array) & (array * 1024 >= _SETS))
    if wrong.any():
        raise HardwareError(f"{name} is {array[wrong].flat[0]!s} KiB and holds no tile; it must be at least {_SETS / 1024:.4f} KiB")
    return array


def dataflow_masks(dataflow: str | npt.ArrayLike) -> tuple[BoolArray, BoolArray, BoolArray]:
    """Where the dataflow (a name or an array of names) is ``os``, ``ws`` and ``is``; HardwareError on any other."""
    names = np.asarray(dataflow)
    masks = tuple(np.asarray(names == name) for name in DATAFLOWS)
    unknown = ~(masks[0] | masks[1] | masks[2])
    if unknown.any():
        given = str(names[unknown].flat[0])
        raise unknown_name("dataflow", given, DATAFLOWS)
    return masks[0], masks[1], masks[2]


def fold_cycles(rows: Any, columns: Any, stream: Any, loads_operand: Any) -> Any:
    """Cycles of one fold of a fold-after-fold array: load (0 or ``rows``), then stream skewed through the array."""
    return loads_operand * rows + rows + columns + stream - 2


def array_cycles(kind: str, folds: Any, rows: Any, columns: Any, stream: Any, loads_operand: Any) -> Any:
    """Cycles of ``folds`` folds of ``stream`` steps on an array of the given kind; ``loads_operand`` is 0 or 1.

    * ``systolic``: fold after fold, each filled, streamed and drained: folds (loads rows + rows + columns + stream - 2).
    * ``systolic_pipelined``: while one fold streams, the next one's stationary operand is loaded (os: the finished
      outputs are shifted out), and its wavefront follows at once. A fold then costs max(stream, rows); load, fill and
      drain are paid once. A single fold costs what it costs on ``systolic``.
    * ``dot_product``: a broadcast-and-reduce array without fill or drain: folds * stream.
    """
    if kind == "systolic":
        return folds * fold_cycles(rows, columns, stream, loads_operand)
    if kind == "systolic_pipelined":
        interval = stream + (rows > stream) * (rows - stream)  # max(stream, rows), written for any array namespace
        return (folds - 1) * interval + fold_cycles(rows, columns, stream, loads_operand)
    if kind == "dot_product":
        return folds * stream
    raise unknown_name("array kind", kind, ARRAY_KINDS)


def flush_cache_misses(block_words: IntArray, blocks: IntArray, last_words: IntArray, passes: IntArray, cap: IntArray) -> IntArray:
    """Words fetched by a flush-when-full cache of ``cap`` words into which blocks are streamed, each ``passes`` times.

    ``blocks`` blocks of ``block_words`` words come first, then one of ``last_words`` <= ``block_words``. The cache drops
    everything at the moment it is full. Closed form of that recursion, block by block:

    * a block of at least ``cap`` words misses entirely in every pass and leaves (fill + passes words) mod cap;
    * a smaller one misses once if it fits beside what is there, or if there is a single pass;
    * otherwise the cache is emptied during the first pass; the second pass fetches again the ``cap - fill`` words that
      were dropped, and the block alone remains.

    With q = ceil(cap / words) - 1 whole small blocks in the cache before it overflows, every q-th block after the first
    overflows, always at fill q words: ``(blocks - 1) // q`` overflows.
    """
    once = passes == 1
    large = block_words >= cap

    # Whole small blocks that stay strictly below the capacity together (at least one, since block_words < cap).
    together = np.maximum(ceil_div(cap, block_words) - 1, 1)
    overflows = np.maximum(blocks - 1, 0) // together
    small_misses = blocks * block_words + overflows * (cap - together * block_words)
    small_fill = np.where(blocks > 0, (np.maximum(blocks - 1, 0) % together + 1) * block_words, 0)

    large_misses = blocks * passes * block_words
    fill = np.where(large, large_misses % cap, small_fill)
    last_refetch = np.where(fill + last_words < cap, 0, cap - fill)
    last_misses = np.where(last_words >= cap, passes * last_words, last_words + last_refetch)

    total = np.where(large, large_misses, small_misses) + last_misses
    return np.asarray(np.where(once, blocks * block_words + last_words, total), dtype=np.int64)


def gemm_counts(
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    *,
    rows: npt.ArrayLike,
    columns: npt.ArrayLike,
    dataflow: str | npt.ArrayLike,
    ifmap_kib: npt.ArrayLike,
    filter_kib: npt.ArrayLike,
    ofmap_kib: npt.ArrayLike,
    kind: str = "systolic",
) -> SystolicCounts:
    """Counts of ``out[m, n] = in[m, k] x filter[k, n]`` on a ``rows`` x ``columns`` array.

    Every argument but ``kind`` may be an array; they broadcast. ``dataflow`` is ``os``, ``ws`` or ``is``; the buffers
    are sizes in KiB of one-byte words, of which half is active. ``ofmap_kib`` enters no count (outputs leave through
    it once) but is checked. ``kind`` (see :func:`array_cycles`) changes ``cycles`` and ``utilisation`` only.

    Raises HardwareError on a dimension or array size that is no positive integer, a buffer that holds nothing, an
    unknown name, or a product of dimensions beyond 2**61.
    """
    M, N, K = positive_integers("m", m), positive_integers("n", n), positive_integers("k", k)
    R, C = positive_integers("rows", rows), positive_integers("columns", columns)
    ifmap_words = read_buffer_words(buffer_kib("ifmap_kib", ifmap_kib))
    filter_words = read_buffer_words(buffer_kib("filter_kib", filter_kib))
    buffer_kib("ofmap_kib", ofmap_kib)
    is_os, is_ws, is_is = dataflow_masks(dataflow)
    if kind not in ARRAY_KINDS:
        raise unknown_name("array kind", kind, ARRAY_KINDS)
    shape = np.broadcast_shapes(*(np.shape(a) for a in (M, N, K, R, C, ifmap_words, filter_words, np.asarray(ofmap_kib), is_os)))
    _check_work(M, N, K, R, C)

    row_extent = np.where(is_os, M, K)
    column_extent = np.where(is_is, M, N)
    stream = np.where(is_os, K, np.where(is_ws, M, N))
    loads_operand = np.where(is_os, 0, 1)
    row_folds = ceil_div(row_extent, R)
    column_folds = ceil_div(column_extent, C)
    folds = row_folds * column_folds

    fold_after_fold = array_cycles("systolic", folds, R, C, stream, loads_operand)
    cycles = array_cycles(kind, folds, R, C, stream, loads_operand)
    cycles_scalesim = fold_after_fold - 1

    MK, KN, MN = M * K, K * N, M * N
    ifmap_passes = np.where(is_is, 1, column_folds)
    filter_passes = np.where(is_ws, 1, np.where(is_os, row_folds, column_folds))
    ofmap_writes = np.where(is_os, MN, row_folds * MN)

    # ifmap: one stream of m k words, passed over as often as there are column folds (is: held in the array, once).
    ifmap_dram = np.where(ifmap_words > MK, MK, ifmap_passes * MK)
    # filter: os passes over one column block after the other; is over the whole operand; ws holds it in the array.
    last_columns = N - (column_folds - 1) * C
    block_passes = np.where(is_os, row_folds, 1)  # the other dataflows never reach the branch
    os_filter = flush_cache_misses(
        K * C, np.where(is_os, column_folds - 1, 0), K * np.where(is_os, last_columns, N), block_passes, filter_words
    )
    filter_dram = np.where(is_os, os_filter, np.where(filter_words > KN, KN, filter_passes * KN))

    reported = cycles_scalesim if kind == "systolic" else cycles
    # One multiply-accumulate on a 1 x 1 array ends in cycle 0 by the simulator's count; it keeps the array busy.
    utilisation = 100.0 * (MN * K) / (np.maximum(reported, 1) * R * C)
    efficiency = 100.0 * (row_extent * column_extent) / (folds * R * C)

    def ints(array: npt.ArrayLike) -> IntArray:
        return np.broadcast_to(np.asarray(array, dtype=np.int64), shape)[()]

    def floats(array: npt.ArrayLike) -> FloatArray:
        return np.broadcast_to(np.asarray(array, dtype=np.float64), shape)[()]

    return SystolicCounts(
        cycles=ints(cycles),
        cycles_scalesim=ints(cycles_scalesim),
        ifmap_sram_reads=ints(ifmap_passes * MK),
        filter_sram_reads=ints(filter_passes * KN),
        ofmap_sram_writes=ints(ofmap_writes),
        ofmap_sram_writes_scalesim=ints(np.where(is_os, ofmap_writes + folds * (R + C), ofmap_writes)),
        ifmap_dram_reads=ints(ifmap_dram),
        filter_dram_reads=ints(filter_dram),
        ofmap_dram_writes=ints(ofmap_writes),
        utilisation=floats(utilisation),
        mapping_efficiency=floats(efficiency),
    )


def _check_work(M: IntArray, N: IntArray, K: IntArray, R: IntArray, C: IntArray) -> None:
    """Refuse shapes whose counts could leave int64: folds never exceed (m + rows)(n + columns)(k + rows + columns)."""
    work = (M.astype(np.float64) + R + C) * (N.astype(np.float64) + C) * (K.astype(np.float64) + R + C)
    if (work > _LARGEST_WORK).any():
        raise HardwareError(f"m, n, k and the array give {work.max():.3g} multiply-accumulate slots; at most 2**61 can be counted")
