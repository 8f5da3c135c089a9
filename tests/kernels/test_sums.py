"""The sparse product against its reference, to the last bit."""

import numpy as np
import pytest
from dse_kernels.sums import weighted_sums, weighted_sums_reference


@pytest.mark.parametrize("seed", range(5))
def test_kernel_equals_reference_bit_for_bit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models, rows, shapes, points = rng.integers(1, 40, 4)
    index = rng.integers(0, shapes, (models, rows))
    weight = rng.integers(0, 13, (models, rows)).astype(float)
    unit = rng.random((shapes, points)) * 10.0 ** rng.integers(-9, 3, (shapes, points))
    assert np.array_equal(weighted_sums(index, weight, unit), weighted_sums_reference(index, weight, unit))


def test_a_model_does_not_depend_on_its_block() -> None:
    rng = np.random.default_rng(0)
    index, weight, unit = rng.integers(0, 20, (30, 9)), rng.random((30, 9)), rng.random((20, 17))
    whole = weighted_sums(index, weight, unit)
    for i in range(30):
        assert np.array_equal(weighted_sums(index[i : i + 1], weight[i : i + 1], unit)[0], whole[i])


def test_index_out_of_range_is_an_error() -> None:
    with pytest.raises(ValueError, match="index holds"):
        weighted_sums(np.array([[3]]), np.ones((1, 1)), np.ones((2, 4)))
