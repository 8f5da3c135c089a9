"""Best mapping of matrix products on accelerators: arrays of shapes and of hardware points in, arrays of costs out.

``out[b, m, n] = in[b, m, k] x w[(b), k, n]`` is tiled over the array of a core, the cores and the levels of memory; the search
returns the mapping that is best by latency, energy or their product, exactly, in the space that docs/models/mapping.md states
together with every formula. `dse_kernels.mapping_reference` is the same model in plain Python, searched by brute force.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Criterion = Literal["edp", "latency", "energy"]

CRITERIA: dict[str, int] = {"latency": 0, "energy": 1, "edp": 2}
SYSTOLIC, SYSTOLIC_PIPELINED, DOT_PRODUCT = 0, 1, 2
OUTPUT_STATIONARY, WEIGHT_STATIONARY, INPUT_STATIONARY, ANY_DATAFLOW = 0, 1, 2, 3
KEEP_INPUTS, KEEP_WEIGHTS, KEEP_OUTPUTS = 1, 2, 4
KEEP_ALL = KEEP_INPUTS | KEEP_WEIGHTS | KEEP_OUTPUTS
MAX_LEVELS = 6
DIMENSIONS = ("m", "n", "k")
# The operand that stays put while the loop over a dimension runs innermost: the one that does not have this dimension.
STATIONARY_OPERAND = {"m": "weights", "n": "inputs", "k": "outputs"}


@dataclass(frozen=True, eq=False)
class MappingHardware:
    """Hardware points for `search`: arrays of shape (points,), per level of memory (points, levels).

    Levels run from the innermost to the DRAM. Sizes are in words; a word is what one access of a memory moves for one
    element of an operand (8 bits in the templates). Fields with a default may be left out; every field may be given as a
    scalar or in any shape that broadcasts.

    Attributes:
        cores: cores, each with one array of ``array_rows`` x ``array_columns`` multiply-accumulate units.
        array_kind: 0 systolic (fill and drain at every fold), 1 systolic_pipelined (the next fold loads during this
            one), 2 dot_product (no fill or drain).
        dataflow: what rests in a systolic array: 0 outputs, 1 weights, 2 inputs, 3 whatever is best. Not used by
            dot_product.
        mac_pj: energy of a multiply-accumulate [pJ].
        level_words: usable capacity [words] of one instance of each level: already halved where it is double buffered.
            That of the DRAM is not used.
        level_shared: one capacity for the three operands together (True), or ``level_words`` for each of them (False).
        level_per_core: every core has its own instance; such levels come first.
        level_double_buffered: ``level_words`` is half of the level: what is resident takes half its words from it.
        level_read_words_per_cycle, level_write_words_per_cycle: bandwidth of one instance.
        level_read_pj_per_word, level_write_pj_per_word: energy of moving a word [pJ].
        register_words: words that one array unit holds; 0: no tile in the registers, only the operand that rests there.
        register_read_pj_per_word, register_write_pj_per_word: energy of the registers [pJ].
        register_keeps: bit mask (KEEP_*) of the operands that live in the registers. The others are read from the first
            level at every multiply-accumulate, shared by the units that multicast, and cost energy there.
        word_bits: bits of a word; an operand of b bits takes b / word_bits words an element.
        split_axes: dot_product: an axis of the array may carry several dimensions at once (factors of its size).
        split_k_over_cores: cores may share one reduction; partial sums are added on their way out.
        factors_first: imitate the order in which Sunstone searches (docs/models/mapping.md, section 7); where such a
            search finds nothing, the whole space is searched.
        pooled_bandwidth: the bandwidth of per-core levels is that of all cores together.
        level_shared_bus: reads and writes of the level take turns: its time is that of both together.
        count_refills: what a level exchanges with the level outside it takes its bandwidth too, and drains cost energy.
    """

    cores: IntArray
    array_rows: IntArray
    array_columns: IntArray
    mac_pj: FloatArray
    level_words: FloatArray
    level_read_words_per_cycle: FloatArray
    level_write_words_per_cycle: FloatArray
    level_read_pj_per_word: FloatArray
    level_write_pj_per_word: FloatArray
    level_shared: BoolArray
    level_per_core: BoolArray
    level_double_buffered: BoolArray | bool = False
    array_kind: IntArray | int = DOT_PRODUCT
    dataflow: IntArray | int = ANY_DATAFLOW
    register_words: IntArray | int = 0
    register_read_pj_per_word: FloatArray | float = 0.0
    register_write_pj_per_word: FloatArray | float = 0.0
    register_keeps: IntArray | int = KEEP_ALL
    word_bits: IntArray | int = 8
    split_axes: BoolArray | bool = False
    split_k_over_cores: BoolArray | bool = False
    factors_first: BoolArray | bool = False
    pooled_bandwidth: BoolArray | bool = False
    count_refills: BoolArray | bool = True
    level_shared_bus: BoolArray | bool = False

    def __len__(self) -> int:
        return int(np.shape(self.cores)[0])

    @property
    def levels(self) -> int:
        """Levels of memory, DRAM included."""
        return int(np.shape(self.level_words)[-1])

    def packed(self) -> tuple[IntArray, FloatArray, FloatArray]:
        """The kernel's integer (points, .), real (points, .) and level columns (points, levels, .); checked, made once."""
        return self._packed

    @cached_property
    def _packed(self) -> tuple[IntArray, FloatArray, FloatArray]:
        points, levels = len(self), self.levels
        if not 1 <= levels <= MAX_LEVELS:
            raise ValueError(f"level_words has {levels} levels: allowed are 1 to {MAX_LEVELS}, DRAM included")

        def point(name: str) -> FloatArray:
            return np.broadcast_to(np.asarray(getattr(self, name), dtype=np.float64), (points,))

        def level(name: str) -> FloatArray:
            return np.broadcast_to(np.asarray(getattr(self, name), dtype=np.float64), (points, levels))

        for f in fields(self):
            values = np.asarray(getattr(self, f.name), dtype=np.float64)
            if np.isnan(values).any() or (values < 0).any():
                raise ValueError(f"{f.name} must hold numbers that are not negative, got {values[~(values >= 0)].flat[0]}")
        for name in ("cores", "array_rows", "array_columns", "word_bits"):
            if (point(name) <= 0).any():
                raise ValueError(f"{name} must be positive, got {point(name).min()}")
        for name in ("level_read_words_per_cycle", "level_write_words_per_cycle"):
            if (level(name) <= 0).any():
                raise ValueError(f"{name} must be positive, got {level(name).min()}")
        if (np.diff(level("level_per_core"), axis=1) > 0).any():
            raise ValueError("level_per_core must be true for the innermost levels only: a shared level feeds the cores")
        shared = level("level_shared") != 0
        words = level("level_words").copy()
        words[:, -1] = np.inf  # DRAM holds every operand; whether it does is checked where the model is known
        each = np.where(shared, np.inf, words)
        together = np.where(shared, words, np.inf)
        per_core = level("level_per_core")
        pooled = per_core * point("pooled_bandwidth")[:, None]
        integers = np.column_stack(
            [
                point(name)
                for name in (
                    "cores",
                    "array_rows",
                    "array_columns",
                    "array_kind",
                    "dataflow",
                    "register_words",
                    "register_keeps",
                    "split_axes",
                    "split_k_over_cores",
                    "factors_first",
                    "count_refills",
                )
            ]
        ).astype(np.int64)
        reals = np.column_stack(
            [
                point(name)
                for name in (
                    "mac_pj",
                    "register_read_pj_per_word",
                    "register_write_pj_per_word",
                    "word_bits",
                )
            ]
        )
        columns = [
            each,
            each,
            each,
            together,
            level("level_read_words_per_cycle"),
            level("level_write_words_per_cycle"),
            level("level_read_pj_per_word"),
            level("level_write_pj_per_word"),
            per_core,
            pooled,
            np.where(level("level_double_buffered"), 2.0, 1.0),
            np.where(level("level_shared_bus"), 1.0, 0.0),
        ]
        return np.ascontiguousarray(integers), np.ascontiguousarray(reals), np.ascontiguousarray(np.stack(columns, axis=-1))


@dataclass(frozen=True, eq=False)
class MappingColumns:
    """The mappings found, arrays of shape (shapes, points, ...); -1 throughout where nothing fits.

    Attributes:
        split: cores along m, n, k and batch, (..., 4).
        unroll: array units along m, n, k, (..., 3).
        spread: array units along the batch, (...).
        register_tile: elements that one array unit holds along m, n, k, (..., 3).
        stationary: for every level the dimension (0 m, 1 n, 2 k) of its innermost loop, (..., levels).
        tile: elements along m, n, k of the tile that one core has in each level below the DRAM, before clipping,
            (..., levels - 1, 3).
        count: number of such tiles along m, n, k in the share of one core, (..., levels - 1, 3).
    """

    split: IntArray
    unroll: IntArray
    spread: IntArray
    register_tile: IntArray
    stationary: IntArray
    tile: IntArray
    count: IntArray


@dataclass(frozen=True, eq=False)
class MappingResult:
    """Costs of the best mappings, arrays of shape (shapes, points); inf where nothing fits.

    Attributes:
        cycles: cycles of the product.
        compute_cycles: cycles of the array alone.
        energy_pj: dynamic energy [pJ].
        feasible: some tile fits every level.
        read_words, write_words: words read from and written to each level, all instances together,
            (shapes, points, levels); None unless asked for.
        mapping: the mappings; None unless asked for.
        dram_words: words that pass the DRAM, (shapes, points, 4): inputs and weights read, outputs written, partial sums read
            again; given with the words of the levels.
    """

    cycles: FloatArray
    compute_cycles: FloatArray
    energy_pj: FloatArray
    feasible: BoolArray
    read_words: FloatArray | None
    write_words: FloatArray | None
    mapping: MappingColumns | None
    dram_words: FloatArray | None = None


WINDOW = ("pixels", "channels", "taps", "overlap", "step")
NO_WINDOW = (1, 1, 1, 0, 0)
"""The window of a product that is no convolution."""
MOST_ELEMENTS = 2**62
"""What the counts of one product stay below."""


def check_shapes(shapes: npt.ArrayLike, weights_shared: npt.ArrayLike) -> IntArray:
    """Shapes (batch, m, n, k) as the kernel wants them: batch folded into m where all entries share the second operand."""
    try:
        rows = np.array(shapes, dtype=np.int64, ndmin=2)
    except OverflowError as error:
        raise ValueError(f"shapes must hold whole numbers below 2^62: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != 4:
        raise ValueError(f"shapes must have the columns batch, m, n, k, got an array of shape {rows.shape}")
    if (rows < 1).any():
        bad = np.argwhere(rows < 1)[0]
        name = ("batch", "m", "n", "k")[bad[1]]
        raise ValueError(f"shapes[{bad[0]}] has {name} = {rows[tuple(bad)]}: every dimension must be at least 1")
    counts = np.prod(rows, axis=1, dtype=np.float64)
    if (counts >= MOST_ELEMENTS).any():
        at = int(np.argmax(counts))
        sizes = " x ".join(str(v) for v in rows[at])
        raise ValueError(f"shapes[{at}] has batch x m x n x k = {sizes} = {counts[at]:.3g}, which must be below 2^62")
    shared = np.broadcast_to(np.asarray(weights_shared, dtype=bool), (len(rows),))
    rows[:, 1] = np.where(shared, rows[:, 0] * rows[:, 1], rows[:, 1])
    rows[:, 0] = np.where(shared, 1, rows[:, 0])
    return np.ascontiguousarray(rows)


def prepare(
    shapes: npt.ArrayLike,
    weights_shared: npt.ArrayLike,
    operand_bits: npt.ArrayLike,
    windows: npt.ArrayLike = NO_WINDOW,
    spread: npt.ArrayLike = False,
    resident: npt.ArrayLike = 0,
    held_bits: npt.ArrayLike = 0,
) -> tuple[IntArray, FloatArray]:
    """The kernel's arrays of shapes and of their operands, checked; see `search` for the arguments."""
    folded = check_shapes(shapes, weights_shared)
    rows = np.empty((len(folded), 7 + len(WINDOW)), dtype=np.int64)
    rows[:, :4] = folded
    rows[:, 4] = np.asarray(spread, dtype=bool)
    rows[:, 5:-2] = windows
    rows[:, -2] = resident
    rows[:, -1] = held_bits
    operands = np.empty((len(rows), 3))
    operands[:] = operand_bits
    if not (operands > 0).all():
        raise ValueError("operand_bits must be positive")
    pixels, channels, taps, overlap, step = rows[:, 5:-2].T
    if (np.minimum(np.minimum(pixels, channels), taps) < 1).any() or (np.minimum(overlap, step) < 0).any():
        raise ValueError("windows must have pixels, channels and taps of at least 1, overlap and step of at least 0")
    return rows, operands


_NO_MAPPINGS = np.empty((0, 0, 0), dtype=np.int64)
_NO_OPERANDS = np.empty((0, 0, 4))
_ALL_WANTED = np.empty((0, 0), dtype=np.uint8)


def search_prepared(
    prepared: tuple[IntArray, FloatArray], packed: tuple[IntArray, FloatArray, FloatArray], criterion: Criterion
) -> tuple[FloatArray, FloatArray]:
    """`search` without its checks, for shapes of `prepare` and points of `MappingHardware.packed`: (shapes, points, 3)
    cycles, array cycles and energy, infinite where nothing fits, and (shapes, points, levels, 2) words read and written.
    """
    rows, operands = prepared
    integers, reals, levels = packed
    count, (points, depth, _) = len(rows), levels.shape
    results = np.empty((count, points, 3))
    words = np.empty((count, points, depth, 2))
    if count and points:
        code = CRITERIA[criterion]
        _kernels.mapping_search(rows, operands, integers, reals, levels, code, 1, results, words, _NO_MAPPINGS, _NO_OPERANDS, _ALL_WANTED)
    return results, words


def search(
    shapes: npt.ArrayLike,
    weights_shared: npt.ArrayLike,
    hardware: MappingHardware,
    *,
    operand_bits: npt.ArrayLike = 8,
    windows: npt.ArrayLike = NO_WINDOW,
    spread: npt.ArrayLike = False,
    criterion: Criterion = "edp",
    threads: int = 1,
    resident: npt.ArrayLike = 0,
    held_bits: npt.ArrayLike = 0,
    wanted: npt.NDArray[np.bool_] | None = None,
    return_words: bool = False,
    return_mapping: bool = False,
) -> MappingResult:
    """Best mapping of every shape (batch, m, n, k) on every hardware point.

    Args:
        shapes: (shapes, 4) integers.
        weights_shared: (shapes,): the second operand is one matrix for all batch entries; the batch then counts as rows.
        hardware: the points.
        operand_bits: (shapes, 3) bits of inputs, weights and outputs.
        windows: (shapes, 5) the feature map behind the first operand of a convolution's im2col product, of one entry of
            the batch after folding: ``pixels`` positions stored, ``channels``, ``taps`` of the filter (k counts the taps of
            the first channel, then those of the second; 1: no convolution), ``overlap`` positions that two neighbouring
            runs of outputs share, and ``step`` positions from one output to the next (docs/models/mapping.md, section 3).
        spread: (shapes,) entries of the batch may lie side by side on an array.
        criterion: what the mapping minimises: energy-delay product, latency or energy. Ties go to fewer cycles (to less
            energy where the criterion is latency), further ties to the first mapping in the order of
            docs/models/mapping.md.
        threads: the result is the same to the last bit for any number, selection or order of shapes and points.
        resident: (shapes,) mask (KEEP_*) of the operands that lie whole in the last level below the DRAM: they do not pass its
            boundary and take no room of a tile there (docs/models/residency.md).
        held_bits: (shapes,) what that level holds beside the tiles, the resident operands included: the room for tiles is what
            is left.
        wanted: (shapes, points) pairs to search; the others are infinite, as where nothing fits.
        return_words, return_mapping: fill these fields of the result (``return_words`` also those of the DRAM by operand).

    Raises:
        ValueError: a dimension below 1, an absurd hardware field, or an unknown criterion.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"criterion {criterion!r} is unknown: allowed are {', '.join(CRITERIA)}")
    rows, operands = prepare(shapes, weights_shared, operand_bits, windows, spread, resident, held_bits)
    integers, reals, levels = hardware.packed()
    count, points, depth = len(rows), len(hardware), hardware.levels
    results = np.empty((count, points, 3))
    words = np.empty((count if return_words else 0, points, depth, 2))
    columns = 4 + 4 + 3 + depth + 6 * (depth - 1)
    found = np.empty((count if return_mapping else 0, points, columns), dtype=np.int64)
    by_operand = np.empty((count if return_words else 0, points, 4))
    pairs = _ALL_WANTED if wanted is None else np.ascontiguousarray(wanted, dtype=np.uint8)
    if wanted is not None and pairs.shape != (count, points):
        raise ValueError(f"wanted must have the shape (shapes, points) = ({count}, {points}), got {pairs.shape}")
    if count and points:
        code = CRITERIA[criterion]
        _kernels.mapping_search(rows, operands, integers, reals, levels, code, int(threads), results, words, found, by_operand, pairs)
    mapping = None
    if return_mapping:
        at = np.cumsum([4, 3, 1, 3, depth, 3 * (depth - 1)])
        split, unroll, spread_units, registers, stationary, tile, tiles = np.split(found, at, axis=-1)
        inner = (count, points, depth - 1, 3)
        mapping = MappingColumns(split, unroll, spread_units[..., 0], registers, stationary, tile.reshape(inner), tiles.reshape(inner))
    return MappingResult(
        cycles=results[..., 0],
        compute_cycles=results[..., 1],
        energy_pj=results[..., 2],
        feasible=np.isfinite(results[..., 0]),
        read_words=words[..., 0] if return_words else None,
        write_words=words[..., 1] if return_words else None,
        mapping=mapping,
        dram_words=by_operand if return_words else None,
    )
