"""Formulas of GPU kernels one at a time, by hand: what errors over thousands of measured rows would hide."""

from __future__ import annotations

import numpy as np
import pytest

from hw_models.costs.gpu_kernels import collectives
from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.operations import low_precision
from hw_models.costs.gpu_kernels.parameters import CollectiveKernel, DirectKernel
from hw_models.devices import gpus

H100 = gpus.gpu_sheet("h100")
LIBRARY = CollectiveKernel(
    start_s=10e-6, step_s=1e-6, rate=0.8, all_reduce_rate=0.5, pair_loss=0.4, low_latency_rate=0.1, simple_s=20e-6, all_to_all_steps=3.0
)


@pytest.mark.parametrize("devices", [2, 4, 8])
@pytest.mark.parametrize(
    ("operation", "messages", "rounds", "rate"),
    [("all_reduce", 2, 2, lambda p: 0.5), ("all_gather", 1, 1, lambda p: 0.8 * (1 - 0.4 / p**2)), ("all_to_all", 3, 1, None)],
)
def test_a_library_collective_is_the_better_of_two_protocols(
    operation: str, messages: int, rounds: int, rate: object, devices: int
) -> None:
    """(p - 1) messages a round, each device sends (p - 1) / p of its buffer a round; the low-latency protocol has a tenth of the link at
    once, the simple one its share of it 20 us later.
    """
    link = H100.link_bytes_per_s
    share = rate(devices) if callable(rate) else 0.8 * (1 - 0.4 / devices**2)
    for size in (1e3, 1e6, 1e9):
        fixed = 10e-6 + 1e-6 * messages * (devices - 1)
        sent = rounds * size * (devices - 1) / devices
        expected = min(fixed + sent / (0.1 * link), fixed + 20e-6 + sent / (share * link))
        assert float(collectives.library_s(H100, LIBRARY, operation, size, devices)) == pytest.approx(expected, rel=1e-12)
    assert float(collectives.library_s(H100, LIBRARY, operation, 1e6, 1)) == 0.0


def test_a_direct_all_reduce_is_one_shot_or_two() -> None:
    """One shot reads every peer's whole buffer; two shots move 2 (p - 1) / p of it and begin later."""
    kernel, link, p = (
        DirectKernel(start_s=3e-6, step_s=0.5e-6, one_shot_rate=0.4, two_shot_s=4e-6, two_shot_rate=0.7),
        H100.link_bytes_per_s,
        8,
    )
    for size in (1e4, 1e7):
        fixed = 3e-6 + 0.5e-6 * (p - 1)
        one, two = fixed + (p - 1) * size / (0.4 * link), fixed + 4e-6 + 2 * (p - 1) / p * size / (0.7 * link)
        assert float(collectives.direct_all_reduce_s(H100, kernel, size, p)) == pytest.approx(min(one, two), rel=1e-12)


def test_what_a_narrow_format_adds_to_a_product() -> None:
    """Nothing where weights are as wide as the format; widening for narrower ones; quantising for narrow formats, int8 once."""
    chosen = choice(H100)
    assert low_precision(chosen, "bf16", 16, alone=True) is None
    narrow = {bits: low_precision(chosen, "bf16", bits, alone=True) for bits in (4, 5, 8)}
    assert narrow[4] != narrow[8] and narrow[5] == narrow[8]
    alone, within = (low_precision(chosen, "int8", 8, alone=alone) for alone in (True, False))
    assert alone is not None and within is not None
    assert alone.extra_s > 0 and (within.extra_s, within.row_cycles) == (0.0, 0.0)
    assert low_precision(chosen, "int4", 4, alone=True) == alone
    assert low_precision(chosen, "fp8", 8, alone=False) == low_precision(chosen, "fp8", 8, alone=True) is not None


def test_equal_shares_are_what_arrays_of_sizes_give() -> None:
    sizes, devices = np.array([[1e3], [1e8]]), np.array([[1, 2, 8]])
    found = collectives.library_s(H100, LIBRARY, "all_gather", sizes, devices)
    assert found.shape == (2, 3)
    assert float(found[1, 2]) == float(collectives.library_s(H100, LIBRARY, "all_gather", 1e8, 8))
