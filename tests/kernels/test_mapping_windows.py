"""What convolutions move, against a literal walk over the windows of real filters.

The walk knows no formula: it lists the positions of the map that each tile of outputs and taps names, steps through the nest, and
counts what comes in when everything that a later tile of the same sweep names stays until then. The model charges at least that and
makes room for at least that (whole reaches of the filter at every cut).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
from dse_kernels import mapping_reference as reference
from dse_kernels.mapping import NO_WINDOW, MappingHardware, prepare, search

from workloads.filters import filter_fields

Region = tuple[tuple[int, int], ...]
Elements = frozenset[tuple[int, int]]


@dataclass(frozen=True)
class Convolution:
    """A convolution of one channel group over a map of rows x columns, padded alike on all sides."""

    rows: int
    columns: int
    channels: int
    high: int
    wide: int
    stride: int = 1
    pad: int = 0
    dilation: int = 1

    @property
    def outputs(self) -> tuple[int, int]:
        reach = [(taps - 1) * self.dilation + 1 for taps in (self.high, self.wide)]
        return tuple((size + 2 * self.pad - r) // self.stride + 1 for size, r in zip((self.rows, self.columns), reach, strict=True))  # type: ignore[return-value]

    @property
    def m(self) -> int:
        return self.outputs[0] * self.outputs[1]

    @property
    def k(self) -> int:
        return self.channels * self.high * self.wide

    @property
    def window(self) -> reference.Map:
        found = filter_fields([self.rows, self.columns], [self.high, self.wide], [self.stride] * 2, [self.dilation] * 2)
        taps = found["filter_taps"]
        pixels = min(self.rows * self.columns, self.m * taps)
        return reference.Map(pixels, self.channels, taps, min(found["filter_overlap"], pixels), min(found["filter_step"], taps))

    def under(self, outputs: tuple[int, int], taps: tuple[int, int]) -> Elements:
        """Stored (channel, position) that a run of outputs reads with a range of k."""
        found = set()
        for at in range(*outputs):
            y, x = divmod(at, self.outputs[1])
            for tap in range(*taps):
                channel, inside = divmod(tap, self.high * self.wide)
                down, right = divmod(inside, self.wide)
                row = y * self.stride + down * self.dilation - self.pad
                column = x * self.stride + right * self.dilation - self.pad
                if 0 <= row < self.rows and 0 <= column < self.columns:
                    found.add((channel, row * self.columns + column))
        return frozenset(found)


CONVOLUTIONS = [
    Convolution(7, 6, 2, 3, 3, pad=1),
    Convolution(7, 6, 2, 3, 3),
    Convolution(9, 8, 1, 3, 3, stride=2, pad=1),
    Convolution(8, 7, 2, 2, 3),
    Convolution(11, 9, 1, 5, 3, stride=2),
    Convolution(10, 5, 3, 1, 3, pad=1),
    Convolution(9, 9, 1, 3, 3, dilation=2),
    Convolution(6, 6, 2, 2, 2, stride=2),
    Convolution(12, 1, 4, 4, 1),
]


def children(region: Region, tile: tuple[int, ...], innermost: int) -> list[tuple[bool, Region]]:
    """Tiles of a region in order, and whether a tile follows the one before along the innermost loop."""
    order = [d for d in range(3) if d != innermost] + [innermost]
    steps = [range(region[d][0], region[d][1], tile[d]) for d in order]
    found = []
    for starts in itertools.product(*steps):
        start = dict(zip(order, starts, strict=True))
        follows = start[innermost] != region[innermost][0]
        found.append((follows, tuple((start[d], min(start[d] + tile[d], region[d][1])) for d in range(3))))
    return found


def walk(conv: Convolution, n: int, tiles: list[tuple[int, ...]], stationary: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Input elements that come into each level below the last, and the most that one tile of it holds."""
    levels = len(stationary)
    moved, held = [0] * levels, [0] * levels

    def block(level: int, region: Region) -> None:
        steps = children(region, tiles[level], stationary[level])
        starts = [i for i, (follows, _) in enumerate(steps) if not follows] + [len(steps)]
        for first, last in itertools.pairwise(starts):
            parts = [conv.under(child[0], child[2]) for _, child in steps[first:last]]
            came: set[tuple[int, int]] = set()
            for i, here in enumerate(parts):
                moved[level] += len(here - came)
                came |= here
                held[level] = max(held[level], len(here | (came & frozenset().union(*parts[i + 1 :]))))
                if level > 1:
                    block(level - 1, steps[first + i][1])

    block(levels - 1, ((0, conv.m), (0, n), (0, conv.k)))
    return moved, held


def one_core(levels: int) -> MappingHardware:
    return MappingHardware(
        cores=np.array([1]),
        array_rows=np.array([1]),
        array_columns=np.array([1]),
        mac_pj=np.array([0.0]),
        level_words=np.full((1, levels), 1e9),
        level_read_words_per_cycle=np.ones((1, levels)),
        level_write_words_per_cycle=np.ones((1, levels)),
        level_read_pj_per_word=np.zeros((1, levels)),
        level_write_pj_per_word=np.zeros((1, levels)),
        level_shared=np.ones(levels, dtype=bool),
        level_per_core=np.zeros(levels, dtype=bool),
    )


@pytest.mark.parametrize("seed", range(90))
def test_inputs_moved_and_held_bound_a_walk_over_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    conv = CONVOLUTIONS[seed % len(CONVOLUTIONS)]
    n, levels = int(rng.integers(1, 4)), int(rng.integers(2, 4))
    tile = (int(rng.integers(1, 4)), 1, int(rng.integers(1, 4)))
    tiles: list[tuple[int, ...]] = [tile]
    for _ in range(levels - 1):
        tile = (tile[0] * int(rng.integers(1, 6)), tile[1] * int(rng.integers(1, 3)), tile[2] * int(rng.integers(1, 5)))
        tiles.append(tile)
    stationary = tuple(int(v) for v in rng.integers(0, 3, size=levels))
    nest = reference.Nest((1, 1, 1, 1), (1, 1, 1), tiles[0], stationary, tuple(tiles[1:]), map_from=0)
    point = reference.Point.of(one_core(levels), 0)
    shape = (1, conv.m, n, conv.k)
    model = reference.cost(shape, point, nest, window=conv.window)
    # The same with weights and outputs of no width: what is left are the inputs.
    alone = reference.cost(shape, point, nest, operand_bits=(8, 1e-300, 1e-300), window=conv.window)
    counted, most = walk(conv, n, tiles, stationary)
    product = reference.cost(shape, point, nest)
    for level in range(1, levels):
        assert counted[level] <= alone["read_words"][level]
        assert most[level] <= conv.window.held(min(tiles[level][0], conv.m), min(tiles[level][2], conv.k), 1, 1, conv.m)
    for level in range(levels):
        assert model["read_words"][level] <= product["read_words"][level]
        assert model["write_words"][level] <= product["write_words"][level]


@pytest.mark.parametrize("conv", [CONVOLUTIONS[i] for i in (1, 3, 4, 6, 7)])
def test_a_cut_inside_the_map_costs_exactly_the_overlap(conv: Convolution) -> None:
    """Away from the borders and for runs longer than the filter's reach the bound is what two runs both read."""
    high, wide = conv.outputs
    at = (high // 2) * wide + wide // 2
    taps = (0, conv.high * conv.wide)
    both = conv.under((0, at), taps) & conv.under((at, conv.m), taps)
    if conv.dilation == 1:
        assert len(both) == conv.window.overlap
    else:  # rows that no tap of the cut names lie between: less
        assert len(both) <= conv.window.overlap


@pytest.mark.parametrize("criterion", ["edp", "latency", "energy"])
def test_no_convolution_costs_more_than_its_product(criterion: str) -> None:
    rng = np.random.default_rng(7)
    points = 40
    l2, glb = rng.integers(30, 400, size=points).astype(float), rng.integers(400, 4000, size=points).astype(float)
    hardware = MappingHardware(
        cores=rng.choice([1, 2, 4], size=points),
        array_rows=rng.choice([2, 4, 8], size=points),
        array_columns=rng.choice([4, 8], size=points),
        mac_pj=np.full(points, 0.5),
        level_words=np.column_stack([l2, glb, np.full(points, np.inf)]),
        level_read_words_per_cycle=rng.choice([1.0, 4.0, 16.0], size=(points, 3)),
        level_write_words_per_cycle=rng.choice([1.0, 4.0, 16.0], size=(points, 3)),
        level_read_pj_per_word=np.array([[1.0, 6.0, 64.0]]),
        level_write_pj_per_word=np.array([[1.0, 5.0, 64.0]]),
        level_shared=np.array([True, True, True]),
        level_per_core=np.array([True, False, False]),
        register_words=16,
    )
    shapes = [(1, c.m, 6, c.k) for c in CONVOLUTIONS]
    windows = [(c.window.pixels, c.window.channels, c.window.taps, c.window.overlap, c.window.step) for c in CONVOLUTIONS]
    conv = search(shapes, False, hardware, windows=windows, criterion=criterion)  # type: ignore[arg-type]
    product = search(shapes, False, hardware, windows=NO_WINDOW, criterion=criterion)  # type: ignore[arg-type]
    value = {"edp": lambda r: r.cycles * r.energy_pj, "latency": lambda r: r.cycles, "energy": lambda r: r.energy_pj}[criterion]
    assert (conv.feasible >= product.feasible).all()
    fits = product.feasible
    assert (value(conv)[fits] <= value(product)[fits] * (1 + 1e-12)).all()
    assert (value(conv)[fits] < value(product)[fits] * 0.99).any()


def test_a_map_that_fits_enters_once() -> None:
    """3 x 3 over 56 x 56 x 64, 64 filters: 200,704 words in and out, 36,864 weights, whatever the array does with them."""
    hardware = MappingHardware(
        cores=np.array([1, 2, 4]),
        array_rows=np.array([16, 16, 16]),
        array_columns=np.array([128, 128, 128]),
        mac_pj=np.full(3, 0.5),
        level_words=np.array([[131072.0, 2.0**21, np.inf]] * 3),
        level_read_words_per_cycle=np.array([[64.0, 512.0, 16.0]]),
        level_write_words_per_cycle=np.array([[64.0, 512.0, 16.0]]),
        level_read_pj_per_word=np.array([[1.4, 8.0, 64.0]]),
        level_write_pj_per_word=np.array([[1.3, 7.0, 64.0]]),
        level_shared=np.array([True, True, True]),
        level_per_core=np.array([True, False, False]),
        register_words=32,
    )
    window = (56 * 56, 64, 9, 2 * 56 + 2, 1)
    found = search([(1, 56 * 56, 64, 576)], True, hardware, windows=window, return_words=True)
    assert found.read_words is not None
    assert found.write_words is not None
    assert (found.read_words[0, :, 2] + found.write_words[0, :, 2] == 200_704 * 2 + 36_864).all()


def test_groups_fill_the_array() -> None:
    """Depthwise 3 x 3 over 64 groups on 64 x 4 units: one group at a time leaves all but 4 or 64 of the units idle."""
    hardware = one_core(2)
    wide = MappingHardware(**{**vars(hardware), "array_rows": np.array([4]), "array_columns": np.array([64])})
    shape, window = (64, 196, 1, 9), (196, 1, 9, 2 * 14 + 2, 1)
    options = {"windows": window, "criterion": "latency"}
    fast = MappingHardware(
        **{**vars(wide), "level_read_words_per_cycle": np.full((1, 2), 1e6), "level_write_words_per_cycle": np.full((1, 2), 1e6)}
    )
    together = search([shape], False, fast, spread=True, **options)  # type: ignore[arg-type]
    alone = search([shape], False, fast, **options)  # type: ignore[arg-type]
    assert together.compute_cycles[0, 0] == 196 * 9 / 4
    assert alone.compute_cycles[0, 0] == 64 * 9  # 196 outputs on the 256 units, one tap and one group at a time
    systolic = replace(fast, array_kind=1, dataflow=1, array_rows=np.array([64]))
    diagonal = search([shape], False, systolic, spread=True, return_mapping=True, **options)  # type: ignore[arg-type]
    assert diagonal.mapping is not None
    # One tap of each group along the diagonal: nine folds of 196 outputs, and the fill of 2 x 64 + 64 - 2 cycles.
    assert int(diagonal.mapping.spread[0, 0]) == 64
    assert diagonal.compute_cycles[0, 0] == 9 * 196 + 190


@pytest.mark.parametrize(
    ("shape", "window", "message"),
    [
        ((1, 2**40, 2**20, 2**10), NO_WINDOW, "below 2\\^62"),
        ((2**62, 2**62, 1, 1), NO_WINDOW, "below 2\\^62"),
        ((1, 4, 4, 4), (0, 1, 1, 0, 0), "at least 1"),
        ((1, 4, 4, 4), (16, 1, 4, -1, 0), "at least 0"),
        ((1, 4, 4, 4), (16, 1, 9, 4, 1), "lie in its map"),
    ],
)
def test_sizes_that_cannot_be_counted_are_named(shape: tuple[int, ...], window: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search([shape], True, one_core(2), windows=window)


def test_the_kernel_checks_its_own_arguments() -> None:
    from dse_kernels import _kernels

    rows, operands = prepare([(1, 4, 4, 4)], [True], 8)
    integers, reals, levels = one_core(2).packed()
    results, words, mappings = np.empty((1, 1, 3)), np.empty((1, 1, 2, 2)), np.empty((0, 1, 19), dtype=np.int64)
    nothing = (np.empty((0, 1, 1)), np.empty((0, 1), dtype=np.uint8))  # no words by operand asked for, every pair wanted

    def call(**change: np.ndarray) -> None:
        arrays = {"shapes": rows, "operands": operands, "integers": integers, "reals": reals, "levels": levels} | change
        given = [np.ascontiguousarray(a) for a in arrays.values()]
        _kernels.mapping_search(*given, change.get("criterion", 2), 1, results, words, mappings, *nothing)

    call()
    overflow = rows.copy()
    overflow[0, :4] = (1, 2**61, 2**61, 2)
    zero = integers.copy()
    zero[0, 1] = 0
    still = levels.copy()
    still[0, 0, 4] = 0.0
    for change in (
        {"shapes": overflow},
        {"shapes": rows[:, :4]},
        {"shapes": rows * 0},
        {"operands": operands * np.nan},
        {"integers": zero},
        {"integers": integers[:, :5]},
        {"levels": still},
        {"reals": reals * 0},
    ):
        with pytest.raises(ValueError):
            call(**change)
