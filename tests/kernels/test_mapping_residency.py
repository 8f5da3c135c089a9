"""Operands that lie in the last level below the DRAM: the search against brute force, and what must not change without them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dse_kernels import mapping_reference as reference
from dse_kernels.mapping import MappingHardware, search

from tests.kernels.test_mapping import Case, convolution_case, edge_grid, random_case


def resident_case(seed: int, points: int = 1) -> tuple[Case, int, int]:
    """A random case whose last level below the DRAM all cores and operands share, a mask of operands and bits that are held."""
    rng = np.random.default_rng([2027, seed])
    case = convolution_case(seed, points) if seed % 3 == 0 else random_case(seed, points, levels=int(rng.integers(2, 4)))
    hw = case.hardware
    if hw.levels < 2:
        case = random_case(seed, points, levels=2)
        hw = case.hardware
    last = hw.levels - 2
    shared, per_core = np.array(hw.level_shared), np.array(hw.level_per_core)
    shared[last], per_core[last] = True, False
    words = np.array(hw.level_words)
    words[:, last] = rng.integers(3, 120, size=points)
    doubled = np.zeros(hw.levels, dtype=bool)
    doubled[last] = rng.random() < 0.5
    kind = 0 if hw.array_kind == 1 else hw.array_kind  # the search leaves out a choice of pipelined ones (docs/models/mapping.md, 6.1)
    hw = replace(hw, array_kind=kind, level_shared=shared, level_per_core=per_core, level_words=words, level_double_buffered=doubled)
    held = int(rng.integers(0, int(words.min()) + 4)) * 8
    return replace(case, hardware=hw), int(rng.integers(0, 8)), held


def check(seed: int, points: int = 1) -> int:
    case, mask, held = resident_case(seed, points)
    criterion = ("edp", "latency", "energy")[seed % 3]
    found = search([case.shape], [False], case.hardware, criterion=criterion, resident=mask, held_bits=held, **case.search_options)
    for index in range(points):
        point = reference.Point.of(case.hardware, index)
        best, tie = reference.search(
            case.shape, point, criterion, spread=case.spread, resident=mask, held_bits=held, **case.reference_options
        )
        assert found.feasible[0, index] == np.isfinite(best), seed
        if np.isfinite(best):
            cycles, energy = found.cycles[0, index], found.energy_pj[0, index]
            value = {"edp": cycles * energy, "latency": cycles, "energy": energy}[criterion]
            # 1e-12: the same terms summed in another order
            assert value == pytest.approx(best, rel=1e-12, abs=0), seed
            if criterion == "latency":
                # Where reads and writes take turns their sum rounds, and of two mappings of one latency the plain reference may see one
                # as slower by the last bit, that with less energy.
                bus = bool(np.any(case.hardware.level_shared_bus))
                assert energy == pytest.approx(tie, rel=1e-12, abs=0) or (bus and energy < tie), seed
    return int(found.feasible.sum())


# Cases whose mappings the plain reference walks for a second; the default tests have as many others.
LONG = {11, 18, 21, 29, 44}


def test_optimum_with_resident_operands_equals_brute_force() -> None:
    assert sum(check(seed) for seed in sorted({*range(50)} - LONG)) > 25  # enough of them fit


def test_points_searched_together_with_resident_operands_equal_brute_force() -> None:
    assert sum(check(seed, points=4) for seed in range(500, 508)) > 16


@pytest.mark.slow
def test_optimum_with_resident_operands_equals_brute_force_on_many_machines() -> None:
    assert sum(check(seed) for seed in sorted({*range(1000, 1710)} | LONG)) > 400


def grid_search(hw: MappingHardware, **options: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    shapes = [(1, 128, 768, 768), (12, 128, 128, 64), (1, 128, 3072, 768)]
    found = search(shapes, [True, False, True], hw, return_words=True, **options)  # type: ignore[arg-type]
    assert found.dram_words is not None
    assert found.read_words is not None
    assert found.write_words is not None
    # Every word of the DRAM is one of an operand's: exact sums of whole numbers, but for the order.
    moved = (found.read_words + found.write_words)[..., -1]
    assert np.allclose(found.dram_words.sum(axis=-1), np.where(found.feasible, moved, np.inf), rtol=1e-12)
    return found.cycles, found.energy_pj, found.dram_words


def test_nothing_resident_is_the_same_bytes_and_pairs_left_out_are_infinite() -> None:
    _, hw = edge_grid(40)
    plain = grid_search(hw)
    wanted = np.random.default_rng(1).random((3, len(hw))) < 0.5
    some = grid_search(hw, resident=0, held_bits=0, wanted=wanted)
    for a, b in zip(plain, some, strict=True):
        assert np.array_equal(a[wanted], b[wanted])
        assert np.isinf(b[~wanted]).all()


def test_more_room_and_more_residents_never_cost_more() -> None:
    _, hw = edge_grid(60, seed=3)
    hw = replace(hw, level_double_buffered=np.array([True, True, False]))
    edp = {}
    for mask in range(8):
        for held in (0, 2**21, 2**23):
            cycles, energy, words = grid_search(hw, resident=mask, held_bits=held)
            edp[mask, held] = cycles * energy
            for bit, operands in ((1, (0,)), (2, (1,)), (4, (2, 3))):
                if mask & bit:
                    assert (words[..., list(operands)] == 0).all()
    for (mask, held), value in edp.items():
        for (less, more), other in edp.items():
            if less & mask == less and more >= held:  # fewer residents, less room
                assert (value <= other * (1 + 1e-12)).all()


def test_residents_need_a_level_that_all_share() -> None:
    _, hw = edge_grid(2)
    for bad in (
        replace(hw, level_shared=np.array([True, False, True])),
        replace(hw, level_per_core=np.array([True, True, False]), cores=np.array([2, 2])),
    ):
        with pytest.raises(ValueError, match="all cores and operands share"):
            search([(1, 4, 4, 4)], [True], bad, resident=1)
    with pytest.raises(ValueError, match="mask"):
        search([(1, 4, 4, 4)], [True], hw, resident=9)
