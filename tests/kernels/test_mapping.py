"""The mapping search against brute force, against the model in plain Python at full size, and its own properties."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
from dse_kernels import mapping_reference as reference
from dse_kernels.mapping import NO_WINDOW, Criterion, MappingColumns, MappingHardware, MappingResult, check_shapes, search
from hypothesis import given, settings
from hypothesis import strategies as st

CRITERIA: tuple[Criterion, ...] = ("edp", "latency", "energy")


@dataclass(frozen=True)
class Case:
    """One product on a batch of hardware points of one kind."""

    shape: tuple[int, int, int, int]
    hardware: MappingHardware
    operand_bits: tuple[float, float, float]
    window: reference.Map | None = None
    spread: bool = False

    @property
    def search_options(self) -> dict[str, Any]:
        window = NO_WINDOW if self.window is None else astuple(self.window)
        return {"operand_bits": self.operand_bits, "windows": window, "spread": self.spread}

    @property
    def reference_options(self) -> dict[str, Any]:
        return {"operand_bits": self.operand_bits, "window": self.window}


def random_case(seed: int, points: int = 1, levels: int | None = None) -> Case:
    """A case of dot-product or systolic arrays, 1-3 levels, shared or separate buffers, batches, all switches."""
    rng = np.random.default_rng([2024, seed])
    depth = int(rng.integers(1, 4)) if levels is None else levels
    per_core = [False] * depth
    if depth > 1 and rng.random() < 0.7:
        per_core[0] = True
    if depth > 2 and rng.random() < 0.2:
        per_core[1] = per_core[0]
    words = rng.integers(4, 60, size=(points, 1)).astype(float)
    capacity = [words]
    for _ in range(depth - 1):
        words = words * rng.integers(1, 6, size=(points, 1)) + rng.integers(0, 30, size=(points, 1))
        capacity.append(words)
    hardware = MappingHardware(
        cores=np.full(points, int(rng.choice([1, 1, 2, 3, 4]))),
        array_rows=rng.choice([1, 2, 3, 4], size=points),
        array_columns=np.full(points, int(rng.choice([1, 2, 4]))),
        mac_pj=np.full(points, float(rng.choice([0.0, 0.5, 2.2]))),
        level_words=np.hstack(capacity),
        level_read_words_per_cycle=rng.choice([0.5, 1, 2, 3, 8], size=(points, depth)),
        level_write_words_per_cycle=rng.choice([0.5, 1, 2, 3, 8], size=(points, depth)),
        level_read_pj_per_word=np.sort(rng.uniform(0.2, 20, size=(points, depth)), axis=1),
        level_write_pj_per_word=np.sort(rng.uniform(0.2, 20, size=(points, depth)), axis=1),
        level_shared=rng.random(depth) < 0.6,
        level_per_core=np.array(per_core),
        level_shared_bus=np.random.default_rng([2031, seed]).random((points, depth)) < 0.3,
        array_kind=int(rng.choice([2, 2, 2, 0, 1])),
        dataflow=int(rng.choice([3, 3, 0, 1, 2])),
        register_words=int(rng.choice([0, 3, 5, 8])),
        register_read_pj_per_word=float(rng.choice([0, 0.2])),
        register_write_pj_per_word=float(rng.choice([0, 0.3])),
        register_keeps=int(rng.choice([7, 7, 2, 0, 5])),
        split_axes=bool(rng.random() < 0.25),
        split_k_over_cores=bool(rng.random() < 0.25),
        pooled_bandwidth=bool(rng.random() < 0.25),
        count_refills=bool(rng.random() < 0.75),
    )
    top = 7 if depth < 3 else 5
    m, n, k = (int(v) for v in rng.integers(1, top + 1, size=3))
    bits = rng.choice([8.0, 8.0, 8.0, 4.0, 16.0], size=3)
    return Case(
        (int(rng.choice([1, 1, 2, 3])), m, n, k),
        hardware,
        (float(bits[0]), float(bits[1]), float(bits[2])),
    )


def convolution_case(seed: int, points: int = 1) -> Case:
    """`random_case` with the map of a convolution behind its inputs, and groups that may lie side by side."""
    case = random_case(seed, points)
    rng = np.random.default_rng([2025, seed])
    batch, m, n, _ = case.shape
    taps, channels = ((2, 1), (3, 1), (2, 2), (4, 1), (1, 3))[int(rng.integers(5))]
    step = int(rng.integers(0, taps + 1))
    overlap = int(rng.integers(0, taps + 1))
    pixels = int(rng.integers(max(1, overlap), m * taps + 1)) if overlap <= m * taps else m * taps
    window = reference.Map(pixels, channels, taps, min(overlap, pixels), step) if taps > 1 else None
    return Case((batch, m, n, taps * channels), case.hardware, case.operand_bits, window, bool(rng.random() < 0.6))


def take(hardware: MappingHardware, index: np.ndarray) -> MappingHardware:
    """The points at ``index``; fields of one value for all points stay as they are."""
    points = len(hardware)
    values = {}
    for f in fields(hardware):
        value = getattr(hardware, f.name)
        own = np.ndim(value) >= 1 and np.shape(value)[0] == points and not f.name.endswith(("_shared", "_per_core"))
        values[f.name] = np.asarray(value)[index] if own else value
    return MappingHardware(**values)


def edge_grid(points: int | None = None, seed: int = 0) -> tuple[np.ndarray, MappingHardware]:
    """Points of the edge template's grid as (cores, width, depth, l2 KiB, l2 words/cycle, glb MiB) and as hardware.

    Energies only resemble the template's; these tests are about the search.
    """
    axes = ([1, 2, 4], [32, 64, 128, 256], [2, 4, 8, 16, 32, 64], [64, 128, 256, 512, 1024], [32, 64, 128], [2, 4, 8])
    grid = np.stack([g.ravel() for g in np.meshgrid(*axes, indexing="ij")], axis=1)
    if points is not None:
        grid = grid[np.sort(np.random.default_rng(seed).choice(len(grid), points, replace=False))]
    cores, width, depth, l2, bandwidth, glb = grid.T
    count = len(grid)
    pj = np.column_stack([1.36 * (l2 / 64) ** 0.42, 6.1 * (glb / 2) ** 0.5, np.full(count, 64.0)])
    rate = np.column_stack([bandwidth, np.full(count, 512), np.full(count, 128)]).astype(float)
    return grid, MappingHardware(
        cores=cores,
        array_rows=depth,
        array_columns=width,
        mac_pj=np.full(count, 0.469),
        level_words=np.column_stack([l2 * 512, glb * 524288, np.full(count, 2**30)]).astype(float),
        level_read_words_per_cycle=rate,
        level_write_words_per_cycle=rate,
        level_read_pj_per_word=pj,
        level_write_pj_per_word=0.9 * pj,
        level_shared=np.array([True, True, True]),
        level_per_core=np.array([True, False, False]),
        register_words=32,
        register_read_pj_per_word=0.19,
        register_write_pj_per_word=0.25,
    )


def nest_of(result: MappingResult, shape: int, point: int) -> reference.Nest:
    found = result.mapping
    assert found is not None
    return reference.Nest(
        tuple(found.split[shape, point].tolist()),
        tuple(found.unroll[shape, point].tolist()),
        tuple(found.register_tile[shape, point].tolist()),
        tuple(found.stationary[shape, point].tolist()),
        tuple(tuple(row) for row in found.tile[shape, point].tolist()),
        int(found.spread[shape, point]),
    )


def assert_same_cost(result: MappingResult, shape: int, point: int, cost: dict[str, Any]) -> None:
    """The kernel's figures are the model's for the mapping it returns.

    1e-12: the two sum the same terms in different orders (some ten terms of 2^-53 each).
    """
    assert result.read_words is not None
    assert result.write_words is not None
    assert np.all(cost["fits"])
    for name in ("cycles", "compute_cycles", "energy_pj"):
        assert cost[name] == pytest.approx(getattr(result, name)[shape, point], rel=1e-12, abs=0)
    assert np.allclose(cost["read_words"], result.read_words[shape, point], rtol=1e-12, atol=0)
    assert np.allclose(cost["write_words"], result.write_words[shape, point], rtol=1e-12, atol=0)


def check_against_brute_force(case: Case, criterion: Criterion) -> None:
    points = len(case.hardware)
    found = search([case.shape], [False], case.hardware, criterion=criterion, return_words=True, return_mapping=True, **case.search_options)
    for index in range(points):
        point = reference.Point.of(case.hardware, index)
        best, tie = reference.search(case.shape, point, criterion, spread=case.spread, **case.reference_options)
        assert found.feasible[0, index] == np.isfinite(best)
        if not found.feasible[0, index]:
            continue
        cycles, energy = found.cycles[0, index], found.energy_pj[0, index]
        value = {"edp": cycles * energy, "latency": cycles, "energy": energy}[criterion]
        assert value == pytest.approx(best, rel=1e-12, abs=0)
        if criterion == "latency":  # the tie-break; elsewhere costs that tie to the last bit are chance
            assert energy == pytest.approx(tie, rel=1e-12, abs=0)
        nests = [nest_of(found, 0, index)]
        if case.window is not None:  # which levels hold the map is not among what the search returns: one choice costs this much
            nests = [replace(nests[0], map_from=level) for level in range(case.hardware.levels)]
        costs = [reference.cost(case.shape, point, nest, **case.reference_options) for nest in nests]
        same = [c for c in costs if c["fits"] and c["energy_pj"] == pytest.approx(energy, rel=1e-12, abs=0)]
        assert_same_cost(found, 0, index, same[0])


# Cases whose mappings the plain reference walks for one to five seconds; the default tests have as many others.
LONG = {16, 17, 21, 1002, 1006}


@pytest.mark.parametrize("seed", range(45))
def test_optimum_equals_brute_force(seed: int) -> None:
    check_against_brute_force(random_case(seed), CRITERIA[seed % 3])


@pytest.mark.parametrize("seed", sorted({*range(1000, 1014)} - LONG))
def test_optimum_equals_brute_force_for_points_searched_together(seed: int) -> None:
    check_against_brute_force(random_case(seed, points=4), CRITERIA[seed % 3])


@pytest.mark.parametrize("seed", range(12))
def test_optimum_of_long_products_on_three_levels_equals_brute_force(seed: int) -> None:
    """One long dimension: its tiles in the second memory are whole numbers of many different tiles in the first."""
    case = random_case(seed, levels=3)
    rng = np.random.default_rng([2026, seed])
    hardware = replace(
        case.hardware,
        array_kind=2,
        register_words=0,
        cores=np.full(1, 1 + seed % 2),
        array_rows=np.ones(1, int),
        array_columns=np.full(1, 2),
    )
    sizes = [int(v) for v in rng.integers(1, 4, size=3)]
    sizes[seed % 3] = int(rng.integers(24, 61))
    check_against_brute_force(replace(case, shape=(1, *sizes), hardware=hardware), CRITERIA[seed // 3 % 3])


@pytest.mark.parametrize("seed", sorted({*range(43)} - LONG))
def test_optimum_of_convolutions_and_groups_equals_brute_force(seed: int) -> None:
    check_against_brute_force(convolution_case(seed, points=1 + 2 * (seed % 2)), CRITERIA[seed % 3])


@pytest.mark.slow
@pytest.mark.parametrize("seed", sorted(LONG))
def test_optimum_of_larger_cases_equals_brute_force(seed: int) -> None:
    if seed < 1000:
        test_optimum_of_convolutions_and_groups_equals_brute_force(seed)
    else:
        test_optimum_equals_brute_force_for_points_searched_together(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2400))
def test_optimum_equals_brute_force_many(seed: int) -> None:
    check_against_brute_force(random_case(seed), CRITERIA[seed % 3])
    check_against_brute_force(convolution_case(seed), CRITERIA[seed % 3])


SHAPES = [(1, 512, 768, 768), (1, 512, 3072, 768), (12, 512, 64, 512), (12, 197, 197, 64), (1, 1, 768, 3072), (3, 33, 65, 129)]
SHARED = [True, True, False, False, True, False]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_full_size_mappings_cost_what_the_model_says(criterion: str) -> None:
    _, hardware = edge_grid(25)
    found = search(SHAPES, SHARED, hardware, criterion=criterion, return_words=True, return_mapping=True)
    folded = check_shapes(SHAPES, SHARED)
    assert found.feasible.all()
    for s in range(len(SHAPES)):
        for p in range(len(hardware)):
            cost = reference.cost(tuple(folded[s].tolist()), reference.Point.of(hardware, p), nest_of(found, s, p))
            assert_same_cost(found, s, p, cost)


def equal_bytes(a: MappingResult, b: MappingResult, shapes: Any = slice(None), points: Any = slice(None)) -> None:
    def same(x: Any, y: Any) -> bool:
        return bool(np.array_equal(np.asarray(x)[shapes][:, points], y))

    for name in ("cycles", "compute_cycles", "energy_pj", "feasible", "read_words", "write_words"):
        assert same(getattr(a, name), getattr(b, name)), name
    for f in fields(MappingColumns):
        assert same(getattr(a.mapping, f.name), getattr(b.mapping, f.name)), f.name


@pytest.mark.parametrize("criterion", CRITERIA)
def test_same_bytes_for_any_threads_order_and_company(criterion: str) -> None:
    _, hardware = edge_grid(100, seed=3)
    options = {"criterion": criterion, "return_words": True, "return_mapping": True}
    whole = search(SHAPES, SHARED, hardware, threads=1, **options)
    equal_bytes(whole, search(SHAPES, SHARED, hardware, threads=2, **options))
    chosen = np.random.default_rng(1).permutation(100)[:31]
    back = np.arange(len(SHAPES))[::-1]
    part = search([SHAPES[i] for i in back], [SHARED[i] for i in back], take(hardware, chosen), threads=2, **options)
    equal_bytes(whole, part, back, chosen)


def test_one_point_alone_is_what_it_is_in_a_batch() -> None:
    _, hardware = edge_grid(12, seed=9)
    options = {"return_words": True, "return_mapping": True}
    whole = search(SHAPES, SHARED, hardware, **options)
    for p in range(12):
        equal_bytes(whole, search(SHAPES, SHARED, take(hardware, np.array([p])), **options), points=[p])


def test_shared_second_operand_folds_the_batch_into_rows() -> None:
    _, hardware = edge_grid(20)
    folded = search([(12, 512, 64, 512)], [True], hardware)
    rows = search([(1, 6144, 64, 512)], [False], hardware)
    assert np.array_equal(folded.cycles, rows.cycles)
    assert np.array_equal(folded.energy_pj, rows.energy_pj)
    apart = search([(12, 512, 64, 512)], [False], hardware)
    assert (apart.cycles * apart.energy_pj >= folded.cycles * folded.energy_pj).all()


def test_prime_attention_fills_most_of_the_array() -> None:
    """197 tokens on 128 columns: padded tiles; a mapper of exact factors reaches 0.3 % (facts of the reference, 2.2)."""
    grid, hardware = edge_grid()
    wide = np.flatnonzero((grid[:, 1] == 128) & (grid[:, 4] == 128) & (grid[:, 0] == 1) & (grid[:, 2] <= 16) & (grid[:, 3] >= 128))
    shapes = [(12, 197, 197, 64), (12, 197, 64, 197)]
    found = search(shapes, [False, False], take(hardware, wide), criterion="latency")
    macs = np.array([np.prod(s) for s in shapes])[:, None]
    utilisation = macs / (found.cycles * (grid[wide, 1] * grid[wide, 2])[None, :])
    assert utilisation.min() >= 0.5


@given(seed=st.integers(0, 10_000), level=st.integers(0, 2), factor=st.sampled_from([1.3, 2.0, 7.0]))
@settings(max_examples=60, deadline=None)
def test_more_bandwidth_or_room_is_never_worse(seed: int, level: int, factor: float) -> None:
    case = random_case(seed)
    level %= case.hardware.levels
    criterion = CRITERIA[seed % 3]

    def value(hardware: MappingHardware) -> float:
        found = search([case.shape], [False], hardware, criterion=criterion)
        cycles, energy = float(found.cycles[0, 0]), float(found.energy_pj[0, 0])
        return {"edp": cycles * energy, "latency": cycles, "energy": energy}[criterion]

    base = value(case.hardware)
    for name in ("level_read_words_per_cycle", "level_write_words_per_cycle", "level_words"):
        larger = np.array(getattr(case.hardware, name))
        larger[:, level] = np.ceil(larger[:, level] * factor) if name == "level_words" else larger[:, level] * factor
        # 1e-12: an inverse bandwidth is rounded; nothing else differs.
        assert value(replace(case.hardware, **{name: larger})) <= base * (1 + 1e-12)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_more_room_never_means_more_dram_traffic_when_only_that_costs(seed: int) -> None:
    case = random_case(seed, levels=2)
    only_dram = np.zeros((1, 2))
    only_dram[:, 1] = 1.0
    free = replace(
        case.hardware,
        mac_pj=np.zeros(1),
        level_read_pj_per_word=only_dram,
        level_write_pj_per_word=only_dram,
        register_read_pj_per_word=0.0,
        register_write_pj_per_word=0.0,
    )
    words = []
    for factor in (1, 2, 5):
        room = np.array(free.level_words) * factor
        found = search([case.shape], [False], replace(free, level_words=room), criterion="energy")
        words.append(found.energy_pj[0, 0])
    assert words[0] >= words[1] >= words[2]


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.5, 4.0]))
@settings(max_examples=30, deadline=None)
def test_energy_and_time_scale(seed: int, scale: float) -> None:
    """Powers of two change no rounding, so the scaled problem has the same mapping and exactly scaled costs."""
    case = random_case(seed)
    names = (
        "mac_pj",
        "level_read_pj_per_word",
        "level_write_pj_per_word",
        "register_read_pj_per_word",
        "register_write_pj_per_word",
    )
    scaled = replace(case.hardware, **{name: np.asarray(getattr(case.hardware, name)) * scale for name in names})
    a = search([case.shape], [False], case.hardware, criterion="energy")
    b = search([case.shape], [False], scaled, criterion="energy")
    assert np.array_equal(a.energy_pj * scale, b.energy_pj)
    assert np.array_equal(a.cycles, b.cycles)


def test_nothing_fits_is_said_so() -> None:
    _, hardware = edge_grid(3)
    tiny = replace(hardware, level_words=np.array([[1.0, 2.0, np.inf]]))
    found = search([(1, 4, 4, 4)], [True], tiny, return_words=True, return_mapping=True)
    assert not found.feasible.any()
    assert np.isinf(found.cycles).all()
    assert found.mapping is not None
    assert (found.mapping.split == -1).all()


def test_empty_batches() -> None:
    _, hardware = edge_grid(2)
    assert search(np.zeros((0, 4)), [], hardware).cycles.shape == (0, 2)
    assert search([(1, 2, 2, 2)], [True], take(hardware, np.array([], dtype=int))).cycles.shape == (1, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mac_pj": np.array([-1.0])}, "mac_pj must hold numbers that are not negative"),
        ({"cores": np.array([0])}, "cores must be positive"),
        ({"level_read_words_per_cycle": np.array([[0.0, 1.0, 1.0]])}, "level_read_words_per_cycle must be positive"),
        ({"level_per_core": np.array([False, True, False])}, "level_per_core must be true for the innermost levels only"),
        ({"level_words": np.full((1, 7), 9.0)}, "allowed are 1 to 6"),
        ({"register_read_pj_per_word": np.nan}, "register_read_pj_per_word must hold numbers"),
    ],
)
def test_bad_hardware_is_named(change: dict[str, Any], message: str) -> None:
    _, hardware = edge_grid(1)
    with pytest.raises(ValueError, match=message):
        search([(1, 4, 4, 4)], [True], replace(hardware, **change))


def test_bad_shapes_and_criteria_are_named() -> None:
    _, hardware = edge_grid(1)
    with pytest.raises(ValueError, match=r"shapes\[1\] has k = 0"):
        search([(1, 4, 4, 4), (1, 4, 4, 0)], [True, True], hardware)
    with pytest.raises(ValueError, match="columns batch, m, n, k"):
        search([(4, 4, 4)], [True], hardware)
    with pytest.raises(ValueError, match="criterion 'speed' is unknown"):
        search([(1, 4, 4, 4)], [True], hardware, criterion="speed")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="operand_bits must be positive"):
        search([(1, 4, 4, 4)], [True], hardware, operand_bits=0)


def test_more_room_never_costs_more_for_large_products() -> None:
    """A mapping fits wherever there is more room: of products too large to try all mappings of, none that the bounds pass over is best."""
    _, hw = edge_grid(40, seed=8)
    sizes = 2.0 ** np.arange(19, 22.1, 0.125)
    shapes = [(1, 1000, 3072, 14336), (1, 4097, 768, 11008), (1, 2048, 2048, 2048)]
    columns = {f.name: getattr(hw, f.name) for f in fields(hw)}
    per_point = {name: np.repeat(v, len(sizes), axis=0) for name, v in columns.items() if np.ndim(v) > 0 and len(v) == len(hw)}
    per_point["level_words"][:, 1] = np.tile(np.floor(sizes), len(hw))
    grown = replace(hw, **per_point)
    for criterion in CRITERIA:
        found = search(shapes, [True] * len(shapes), grown, criterion=criterion)
        value = found.cycles if criterion == "latency" else found.energy_pj * (found.cycles if criterion == "edp" else 1.0)
        by_size = value.reshape(len(shapes), len(hw), len(sizes))
        assert np.all(by_size[..., 1:] <= by_size[..., :-1] * (1.0 + 1e-12))  # the same mapping: terms summed in another order
