"""The mapping model in plain Python and numpy, and its search by brute force: the reference of `dse_kernels.mapping`.

Nothing here is shared with the kernel. `cost` evaluates one mapping by the formulas of docs/models/mapping.md; `search`
tries every integer register tile, every integer tile of every level, every loop order and every split of a product, with
no pruning, so it is for products of a few units a side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dse_kernels.mapping import MappingHardware

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
M, N, K = 0, 1, 2
# The two dimensions of each operand; the third is the one along which it can be reused.
OPERANDS = {"in": (M, K), "w": (K, N), "out": (M, N)}
REUSE = {"in": N, "w": M, "out": K}
KEEP_BIT = {"in": 1, "w": 2, "out": 4}
DATAFLOW_OF = {K: 0, M: 1, N: 2}  # resting operand's reuse dimension -> code of the dataflow


@dataclass(frozen=True)
class Point:
    """One hardware point with scalar fields; per-level fields are lists, innermost first."""

    values: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self.values[name]

    @staticmethod
    def of(hardware: MappingHardware, index: int) -> Point:
        """Point ``index`` of a batch."""
        points, levels = len(hardware), hardware.levels
        values: dict[str, Any] = {"levels": levels}
        for f in fields(hardware):
            array = np.asarray(getattr(hardware, f.name), dtype=np.float64)
            if f.name.startswith("level_"):
                values[f.name] = np.broadcast_to(array, (points, levels))[index].tolist()
            else:
                values[f.name] = float(np.broadcast_to(array, (points,))[index])
        values["level_words"][-1] = np.inf
        return Point(values)


@dataclass(frozen=True)
class Nest:
    """A mapping, or many mappings that differ in their tiles: ``tiles[level][dimension]`` is a number or an array.

    ``spread``: array units along the batch. Levels from ``map_from`` outwards hold the map of a convolution, those inside (and
    all below the DRAM where it is None) tiles of its im2col matrix.
    """

    split: tuple[int, int, int, int]
    unroll: tuple[int, int, int]
    registers: tuple[int, int, int]
    stationary: tuple[int, ...]
    tiles: tuple[tuple[Any, Any, Any], ...]
    spread: int = 1
    map_from: int | None = None


@dataclass(frozen=True)
class Map:
    """The feature map behind the inputs of a convolution; see ``windows`` of `dse_kernels.mapping.search`."""

    pixels: int
    channels: int
    taps: int
    overlap: int
    step: int

    def held(self, outputs: Any, taps: Any, runs: int, strands: int, whole: int) -> Any:
        """Room for the map under ``outputs`` of ``whole`` outputs, in ``runs`` runs, and ``taps`` taps in ``strands`` strands."""
        each = np.maximum(self.pixels, self.step * whole)
        pixels = np.minimum(self.pixels, _ceil(outputs * each, whole) + runs * self.overlap)
        return pixels * np.minimum(self.channels, _ceil(taps - 1, self.taps) + strands)

    def moved(self, outputs: int, taps: int, cuts: Any, breaks: Any, whole: int) -> Any:
        """Elements of one pass over ``outputs`` x ``taps``: an overlap for each of the cuts, a channel for each of the breaks."""
        pixels = min(self.pixels, _ceil(outputs * max(self.pixels, self.step * whole), whole) + self.overlap)
        channels = min(self.channels, _ceil(taps - 1, self.taps) + 1)
        return np.minimum(outputs * taps, (pixels + cuts * self.overlap) * (channels + breaks))


def _ceil(a: Any, b: Any) -> Any:
    return -(-a // b)


def cost(
    shape: tuple[int, int, int, int],
    hw: Point,
    nest: Nest,
    *,
    operand_bits: tuple[float, float, float] = (8, 8, 8),
    window: Map | None = None,
    resident: int = 0,
    held_bits: float = 0.0,
) -> dict[str, Any]:
    """Cost of ``nest`` for the product (batch, m, n, k): cycles, compute_cycles, energy_pj, read_words, write_words, fits.

    The batch must already be folded into m where the second operand is shared. Arrays of tiles give arrays. ``resident`` operands
    (KEEP_* bits) lie whole in the last level below the DRAM, of which ``held_bits`` are taken.
    """
    batch, *dims = shape
    share = [_ceil(dims[d], nest.split[d]) for d in (M, N, K)]
    active = [_ceil(dims[d], share[d]) for d in (M, N, K)]
    batch_share = _ceil(batch, nest.split[3])
    bits = dict(zip(("in", "w", "out"), operand_bits, strict=True))
    words = {x: batch * dims[a] * dims[b] * bits[x] / hw.word_bits for x, (a, b) in OPERANDS.items()}
    core_words = {x: batch_share * share[a] * share[b] * bits[x] / hw.word_bits for x, (a, b) in OPERANDS.items()}
    copies = {x: active[REUSE[x]] for x in OPERANDS}  # cores that hold the same words
    maps = [window is not None and nest.map_from is not None and level >= nest.map_from for level in range(hw.levels)]
    keep = {x: int(hw.register_keeps) & KEEP_BIT[x] > 0 for x in OPERANDS}
    stays = {x: int(resident) & KEEP_BIT[x] > 0 for x in OPERANDS}

    # Tiles of each storage, from the array (0) outwards, and how many of them cover the share of a core.
    array_tile = tuple(nest.unroll[d] * nest.registers[d] for d in (M, N, K))
    tiles = [array_tile, *nest.tiles]
    counts = [[_ceil(share[d], tile[d]) for d in (M, N, K)] for tile in tiles]

    fits: Any = True
    for level, tile in enumerate(nest.tiles):
        size = []
        for d in (M, N, K):
            extent = np.minimum(tile[d], share[d])
            size.append(extent if hw.level_per_core[level] else np.minimum(extent * nest.split[d], dims[d]))
        side_by_side = min(nest.spread, batch_share)
        runs, strands = 1, 1
        if not hw.level_per_core[level]:
            side_by_side = min(min(nest.split[3], batch) * side_by_side, batch)
            runs, strands = nest.split[M], nest.split[K]
        held = {x: side_by_side * size[a] * size[b] * bits[x] / hw.word_bits for x, (a, b) in OPERANDS.items()}
        if window is not None and maps[level]:
            held["in"] = side_by_side * window.held(size[M], size[K], runs, strands, dims[M]) * bits["in"] / hw.word_bits
        capacity = hw.level_words[level]
        if level == hw.levels - 2:
            held = {x: 0.0 if stays[x] else size for x, size in held.items()}
            capacity = max(0.0, np.floor(capacity - held_bits / hw.word_bits / (2.0 if hw.level_double_buffered[level] else 1.0)))
        if hw.level_shared[level]:
            fits = fits & (held["in"] + held["w"] + held["out"] <= capacity)
        else:
            fits = fits & (held["in"] <= capacity) & (held["w"] <= capacity) & (held["out"] <= capacity)

    # How often each operand crosses the boundary into memory `level` from inside: once for every tile inside along its reuse
    # dimension, or once for every tile of this memory if that dimension runs innermost here.
    fetches: list[dict[str, Any]] = []
    for level in range(hw.levels):
        inside = counts[level]
        here = counts[level + 1] if level + 1 < hw.levels else [1, 1, 1]
        fetches.append({x: (here if nest.stationary[level] == REUSE[x] else inside)[REUSE[x]] for x in OPERANDS})

    macs = batch * dims[M] * dims[N] * dims[K]
    passes = [_ceil(share[d], nest.unroll[d]) for d in (M, N, K)]
    lanes = {x: min(nest.unroll[REUSE[x]], _ceil(share[REUSE[x]], nest.registers[REUSE[x]])) for x in OPERANDS}
    kind = int(hw.array_kind)
    if kind == 2:
        compute: Any = _ceil(batch_share, nest.spread) * passes[M] * passes[N] * passes[K]
    else:
        stream = nest.stationary[0]
        folds = _ceil(batch_share, nest.spread) * np.prod([passes[d] for d in (M, N, K) if d != stream])
        fill = (hw.array_rows if stream == K else 2 * hw.array_rows) + hw.array_columns - 2
        length = share[stream]
        piece = nest.tiles[0][stream] if nest.tiles else length
        pieces = _ceil(length, piece)
        if kind == 0:
            compute = folds * (length + pieces * fill)
        else:
            rest = length - (pieces - 1) * piece
            last = np.maximum(rest, hw.array_rows)
            compute = folds * ((pieces - 1) * np.maximum(piece, hw.array_rows) + last) - (last - rest) + fill

    def at(level: int, x: str) -> Any:  # words that leave a level for one fetch
        return words[x] * (copies[x] if hw.level_per_core[level] else 1)

    def map_cuts(level: int) -> tuple[Any, Any]:
        """Cuts of a core's outputs across the boundary into ``level``, and of its taps: pieces that nothing is kept between."""
        pieces = counts[level + 1] if level + 1 < hw.levels else [1, 1, 1]
        outputs, taps = ((pieces if nest.stationary[level] == d else counts[level])[d] - 1 for d in (M, K))
        return outputs, taps

    def everywhere_in(level: int, boundary: int) -> Any:  # words of the inputs that pass a boundary once, at one of its levels
        if window is None or boundary == 0 or not maps[boundary - 1]:
            return at(level, "in")
        cuts, breaks = map_cuts(boundary)
        between = active[M] * (cuts + 1) - 1  # neighbouring cores need the same outputs' surroundings
        if not hw.level_per_core[boundary - 1] and nest.stationary[boundary] != M:
            between = np.where(cuts == 0, 0, between)  # the level holds the whole shares, side by side
        moved = window.moved(dims[M], dims[K], between, active[K] * (breaks + 1) - 1, dims[M])
        return batch * moved * bits["in"] / hw.word_bits * (copies["in"] if hw.level_per_core[level] else 1)

    def busy_in(level: int, boundary: int) -> Any:
        if not hw.level_per_core[level] or hw.pooled_bandwidth:
            return everywhere_in(level, boundary)
        if window is None or boundary == 0 or not maps[boundary - 1]:
            return core_words["in"]
        moved = window.moved(share[M], share[K], *map_cuts(boundary), dims[M])
        return batch_share * moved * bits["in"] / hw.word_bits

    energy: Any = macs * hw.mac_pj
    for x in OPERANDS:
        here, array = at(0, x), words[x] * copies[x]
        again = fetches[0][x] - (x == "out")  # outputs start as zeros
        if keep[x]:
            energy = energy + macs * hw.register_read_pj_per_word
            energy = energy + again * (here * hw.level_read_pj_per_word[0] + array * lanes[x] * hw.register_write_pj_per_word)
            if x == "out":
                energy = energy + macs * hw.register_write_pj_per_word
                energy = energy + fetches[0][x] * here * hw.level_write_pj_per_word[0]
                energy = energy + fetches[0][x] * array * hw.register_read_pj_per_word * bool(hw.count_refills)
        elif x == "out":
            energy = energy + here * (passes[K] * hw.level_write_pj_per_word[0] + (passes[K] - 1) * hw.level_read_pj_per_word[0])
        else:
            energy = energy + here * passes[REUSE[x]] * hw.level_read_pj_per_word[0]

    cycles: Any = compute
    read_words, write_words = [], []
    for level in range(hw.levels):
        reads: Any = 0.0
        writes: Any = 0.0
        all_reads: Any = 0.0
        all_writes: Any = 0.0
        pooled = bool(hw.level_per_core[level]) and not hw.pooled_bandwidth
        for x in OPERANDS:

            def moved(boundary: int, x: str = x, level: int = level, pooled: bool = pooled) -> tuple[Any, Any]:
                if boundary == hw.levels - 1 and stays[x]:
                    return 0.0, 0.0
                if x == "in":
                    return busy_in(level, boundary), everywhere_in(level, boundary)
                return core_words[x] if pooled else at(level, x), at(level, x)

            busy, everywhere = moved(level)
            count = fetches[level][x]
            out, back = (count - 1, count) if x == "out" else (count, 0)
            reads, writes = reads + busy * out, writes + busy * back
            all_reads, all_writes = all_reads + everywhere * out, all_writes + everywhere * back
            if level > 0:
                energy = energy + everywhere * (out * hw.level_read_pj_per_word[level] + back * hw.level_write_pj_per_word[level])
            if level + 1 < hw.levels:  # traffic with the level outside
                busy, everywhere = moved(level + 1)
                outside = fetches[level + 1][x]
                fill, drain = (outside - 1, outside) if x == "out" else (outside, 0)
                energy = energy + everywhere * fill * hw.level_write_pj_per_word[level]
                all_reads, all_writes = all_reads + everywhere * drain, all_writes + everywhere * fill
                if hw.count_refills:
                    energy = energy + everywhere * drain * hw.level_read_pj_per_word[level]
                    reads, writes = reads + busy * drain, writes + busy * fill
        reading, writing = reads / hw.level_read_words_per_cycle[level], writes / hw.level_write_words_per_cycle[level]
        cycles = np.maximum(cycles, reading + writing if hw.level_shared_bus[level] else np.maximum(reading, writing))
        read_words.append(all_reads)
        write_words.append(all_writes)
    return {
        "cycles": cycles,
        "compute_cycles": compute,
        "energy_pj": energy,
        "read_words": read_words,
        "write_words": write_words,
        "fits": fits,
    }


def spatial_choices(shape: tuple[int, int, int, int], hw: Point, spread: bool = False) -> Iterator[tuple[Any, Any, int, Any, int]]:
    """Every (split, unroll, units along the batch, register tile, resting dimension): all factorisations, all integer register
    tiles that fit. ``spread``: entries of the batch may lie side by side on the array.
    """
    batch, *dims = shape
    cores, rows, columns = int(hw.cores), int(hw.array_rows), int(hw.array_columns)

    def factors(size: int, parts: int) -> list[tuple[int, ...]]:
        return [t for t in itertools.product(range(1, size + 1), repeat=parts) if np.prod(t) == size]

    def along(size: int) -> list[tuple[int, ...]]:
        every = [t for t in factors(size, 4) if spread or t[3] == 1]
        return every if hw.split_axes else [t for t in every if sum(v > 1 for v in t) <= 1]

    for split in factors(cores, 4):
        if (split[K] > 1 and not hw.split_k_over_cores) or (split[3] > 1 and batch == 1):
            continue
        share = [_ceil(dims[d], split[d]) for d in (M, N, K)]
        for resting in (M, N, K):
            if int(hw.array_kind) != 2:
                if int(hw.dataflow) not in (3, DATAFLOW_OF[resting]):
                    continue
                for units in range(1, (min(rows, columns, _ceil(batch, split[3])) if spread else 1) + 1):
                    high, wide = rows // units, columns // units
                    array = {K: (high, wide, 1), M: (1, wide, high), N: (wide, 1, high)}[resting]
                    yield split, array, units, (1, 1, 1), resting
                continue
            unrolls = {tuple(a[d] * b[d] for d in range(4)) for a in along(rows) for b in along(columns)}
            for *unroll, units in sorted(unrolls):
                limit = [range(1, _ceil(share[d], unroll[d]) + 1) for d in (M, N, K)]
                for r in itertools.product(*limit):
                    if r == (1, 1, 1) or r[M] * r[K] + r[K] * r[N] + r[M] * r[N] <= hw.register_words:
                        yield split, tuple(unroll), units, r, resting


def _tile_products(first: list[int], levels: int) -> list[list[IntArray]]:
    """Whole numbers of inner tiles at each level, every combination: per level and dimension an array (combinations,)."""
    rows: list[tuple[tuple[int, ...], ...]] = [()]
    counts = [tuple(first)]
    out: list[tuple[tuple[int, ...], ...]] = []

    def extend(prefix: tuple[tuple[int, ...], ...], count: tuple[int, ...]) -> None:
        if len(prefix) == levels:
            out.append(prefix)
            return
        for g in itertools.product(*(range(1, c + 1) for c in count)):
            extend((*prefix, g), tuple(_ceil(c, v) for c, v in zip(count, g, strict=True)))

    extend(rows[0], counts[0])
    array = np.array(out, dtype=np.int64).reshape(len(out), levels, 3)
    return [[array[:, level, d] for d in (M, N, K)] for level in range(levels)]


def search(
    shape: tuple[int, int, int, int],
    hw: Point,
    criterion: str,
    *,
    operand_bits: tuple[float, float, float] = (8, 8, 8),
    window: Map | None = None,
    spread: bool = False,
    resident: int = 0,
    held_bits: float = 0.0,
) -> tuple[float, float]:
    """Least criterion over every mapping, and least tie-break value among those that reach it; inf if none fits."""
    best = (np.inf, np.inf)
    inner_levels = hw.levels - 1
    memo: dict[tuple[int, ...], list[list[IntArray]]] = {}
    for split, unroll, units, registers, resting in spatial_choices(shape, hw, spread and shape[0] > 1):
        share = [_ceil(shape[1 + d], split[d]) for d in (M, N, K)]
        unit = [unroll[d] * registers[d] for d in (M, N, K)]
        first = tuple(_ceil(share[d], unit[d]) for d in (M, N, K))
        if first not in memo:
            memo[first] = _tile_products(list(first), inner_levels)
        tiles: list[list[Any]] = []
        size: list[Any] = list(unit)
        for level in range(inner_levels):
            size = [size[d] * memo[first][level][d] for d in (M, N, K)]
            tiles.append(size)
        maps: list[int | None] = list(range(hw.levels)) if window is not None else [None]
        for outer, map_from in itertools.product(itertools.product((M, N, K), repeat=hw.levels - 1), maps):
            nest = Nest(split, unroll, registers, (resting, *outer), tuple(tuple(t) for t in tiles), units, map_from)
            got = cost(shape, hw, nest, operand_bits=operand_bits, window=window, resident=resident, held_bits=held_bits)
            fits = np.broadcast_to(got["fits"], np.shape(got["energy_pj"]))
            cycles = np.where(fits, got["cycles"], np.inf)
            energy = np.where(fits, got["energy_pj"], np.inf)
            if not np.isfinite(cycles).any():
                continue
            value = {"latency": cycles, "energy": energy, "edp": cycles * energy}[criterion]
            tie = energy if criterion == "latency" else cycles
            least = float(np.min(value))
            best = min(best, (least, float(np.min(np.where(value == least, tie, np.inf)))))
    return best
