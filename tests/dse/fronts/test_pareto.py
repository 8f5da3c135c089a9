"""Fronts: what counts as equal, and the canonical order."""

from random import Random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.fronts.pareto import Front, dominated_by, hypervolume, reached, rounded


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=30),
    st.randoms(use_true_random=False),
    st.sampled_from([1e-12, 1.0, 1e20]),
)
def test_a_last_bit_neither_dominates_nor_orders(cells: list[tuple[int, int]], random: Random, scale: float) -> None:
    """Values off by a few units in the last place are the same values: the front is that of the exact ones."""
    exact = np.array(cells, dtype=np.float64) * 0.1 * scale
    noisy = exact * (1 + np.array([[random.randint(-4, 4) for _ in row] for row in cells]) * 2.0**-52)
    index = np.arange(len(cells), dtype=np.int64)
    assert np.array_equal(Front.of(index, index, noisy).models, Front.of(index, index, exact).models)


def test_rounding_keeps_what_differs() -> None:
    values = np.array([0.0, np.inf, -np.inf, 1.0, 1.0 + 1e-7, -3.5e-30, 4e30, 123456789.4])
    found = rounded(values)
    assert found[3] != found[4]
    np.testing.assert_allclose(found[3:], values[3:], rtol=5e-9)
    assert found[:3].tolist() == [0.0, np.inf, -np.inf]
    assert np.array_equal(rounded(found), found)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_domination_by_hand(count: int, others: int, dimensions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    a, b = (random.integers(0, 4, (n, dimensions)).astype(float) for n in (count, others))
    found = dominated_by(a, b)
    for row, by in zip(a, found.tolist(), strict=True):
        beats = [i for i, other in enumerate(b) if all(other <= row) and any(other < row)]
        assert by == (beats[0] if beats else -1)
    covered = [any(all(other <= row) for other in b) for row in a]
    assert reached(b, a).tolist() == covered
    assert not reached(b[:0], a).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 12), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_hypervolume_counts_unit_cells(count: int, dimensions: int, seed: int) -> None:
    """On whole coordinates the volume is the number of unit cells whose lower corner some point reaches."""
    side = 4
    points = np.random.default_rng(seed).integers(0, side + 1, (count, dimensions)).astype(float)
    corners = np.stack(np.meshgrid(*[np.arange(side)] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)
    cells = sum(any(all(p <= corner) for p in points) for corner in corners)
    assert hypervolume(points, np.full(dimensions, float(side))) == cells
