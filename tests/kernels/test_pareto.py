"""The Pareto kernel against its definition."""

import numpy as np
import pytest
from dse_kernels.pareto import pareto_mask, pareto_mask_reference, unbeaten, unbeaten_reference
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dse.fronts.pareto import Front, hypervolume, merge

# Few distinct values, so that ties and duplicates are common; sizes on both sides of the kernel's pre-filter (64).
POINTS = st.integers(1, 4).flatmap(
    lambda d: st.integers(1, 150).flatmap(
        lambda n: arrays(np.float64, (n, d), elements=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0, np.inf]))
    )
)


@given(POINTS)
def test_kernel_equals_reference(points: np.ndarray) -> None:
    assert np.array_equal(pareto_mask(points), pareto_mask_reference(points))


@pytest.mark.parametrize("d", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_kernel_equals_reference_on_continuous_points(d: int, seed: int) -> None:
    points = np.random.default_rng(seed).random((700, d))
    assert np.array_equal(pareto_mask(points), pareto_mask_reference(points))


@given(st.integers(1, 4), st.integers(0, 80), st.integers(0, 7), st.integers(0, 2**31))
def test_unbeaten_equals_its_definition(d: int, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.array([-2.0, -1.0, 0.0, 1.0, 3.0, np.inf, np.nan])
    columns = values[rng.integers(0, 7, (d, n))] * (1 + 1e-9 * rng.integers(0, 40, (d, n)))  # on both sides of the margin
    archive, alive = values[rng.integers(0, 5, (m, d))], rng.random(n) < 0.8
    found = unbeaten(columns, alive, archive, margin=2e-8)
    assert np.array_equal(found, unbeaten_reference(columns, alive, archive, margin=2e-8))


def test_what_is_equal_but_for_rounding_is_not_beaten() -> None:
    columns = np.array([[1.0, 1.0 + 1e-8, 1.0 + 3e-8, 0.5], [2.0, 2.0, 2.0, 9.0]])
    assert unbeaten(columns, np.ones(4, bool), np.array([[1.0, 2.0]]), margin=2e-8).tolist() == [0, 1, 3]
    with pytest.raises(ValueError, match="shapes"):
        unbeaten(columns, np.ones(3, bool), np.array([[1.0, 2.0]]), margin=2e-8)
    with pytest.raises(ValueError, match="shapes"):
        unbeaten(columns, np.ones(4, bool), np.array([[1.0, 2.0, 3.0]]), margin=2e-8)


def test_ties_are_kept_together() -> None:
    points = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 3.0]])
    assert pareto_mask(points).tolist() == [True, True, True, False, False]


def test_empty_and_bad_input() -> None:
    assert pareto_mask(np.zeros((0, 2))).shape == (0,)
    with pytest.raises(ValueError, match="NaN"):
        pareto_mask(np.array([[np.nan, 1.0]]))
    with pytest.raises(ValueError, match="two-dimensional"):
        pareto_mask(np.zeros(3))


@given(POINTS, st.integers(1, 9), st.integers(0, 2**31))
def test_front_does_not_depend_on_parts_or_order(points: np.ndarray, parts: int, seed: int) -> None:
    n = len(points)
    models, hardware = np.arange(n) // 7, np.arange(n) % 7
    whole = Front.of(models, hardware, points)
    shuffled = np.random.default_rng(seed).permutation(n)
    pieces = [Front.of(models[p], hardware[p], points[p]) for p in np.array_split(shuffled, parts)]
    merged = merge(pieces, points.shape[1])
    assert np.array_equal(whole.models, merged.models)
    assert np.array_equal(whole.hardware, merged.hardware)
    assert np.array_equal(whole.values, merged.values)


@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_hypervolume_against_a_grid_count(d: int) -> None:
    # Points on an integer grid: the dominated volume is the number of unit cells below the reference that a point dominates.
    rng = np.random.default_rng(d)
    for _ in range(20):
        points = rng.integers(0, 6, (rng.integers(1, 12), d)).astype(float)
        reference = np.full(d, 5.0)
        cells = np.stack(np.meshgrid(*[np.arange(5)] * d, indexing="ij"), -1).reshape(-1, d)
        counted = sum(any(np.all(p <= cell) for p in points) for cell in cells)
        assert hypervolume(points, reference) == counted
