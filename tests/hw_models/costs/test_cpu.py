"""Costs on a processor, by hand: blocks dealt to cores, formats, caches, fused functions, launches."""

from __future__ import annotations

import math
import random

import pytest

from hw_models.accelerator.fields import TensorCore
from hw_models.costs.cpu import BLOCK, CpuKernels, cpu_times
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.errors import HardwareError
from workloads.ops import Kind, Operation, OperationTable

SHEET = GpuSheet(
    name="processor", tensor_core=TensorCore.SYNCHRONOUS, multiprocessors=24, frequency_hz=2.5e9, macs_per_cycle=64, l2_bytes=30e6,
    dram_bytes_per_s=2e11, tdp_w=200, rates={"bf16": 1.0, "fp32": 0.5, "int8": 2.0},
)  # fmt: skip


def product_s(
    m: int, n: int, k: int, batch: int, a_bits: int, w_bits: int, o_bits: int, weight: bool, kernels: CpuKernels
) -> tuple[float, float]:
    """Latency and DRAM bytes: blocks of 32 x 32 go round the cores, and the slowest core has one more than its share."""
    blocks = math.ceil(m / 32) * math.ceil(n / 32) * batch
    most = math.ceil(blocks / 24)
    macs = batch * m * n * k
    wide = max(a_bits, w_bits)
    rate = 2.0 if wide <= 8 else 1.0 if wide <= 16 else 0.5
    compute = macs * (most * 24 / blocks) / (24 * 64 * 2.5e9 * rate * kernels.product_efficiency)
    second = n * k * (1 if weight else batch) * w_bits / 8
    moved = batch * m * k * a_bits / 8 + second + batch * m * n * o_bits / 8
    missed = min(max(moved / 30e6 - 0.5, 0), 1)
    dram_bytes = second + (moved - second) * missed if weight else moved * missed
    dram = dram_bytes / (2e11 * kernels.dram_efficiency)
    return kernels.launch_s + max(compute, dram), dram_bytes


@pytest.mark.parametrize("seed", range(20))
def test_products_on_cores(seed: int) -> None:
    rng = random.Random(seed)
    kernels = CpuKernels(launch_s=rng.uniform(1e-6, 9e-6), product_efficiency=rng.uniform(0.4, 0.9), dram_efficiency=rng.uniform(0.5, 0.9))
    shapes = [
        (
            *(rng.randint(1, 900), rng.randint(1, 4000), rng.randint(1, 4000), rng.choice([1, 1, 7])),
            *(rng.choice([8, 16, 32]) for _ in range(3)),
            rng.random() < 0.5,
        )
        for _ in range(12)
    ]
    table = OperationTable.from_rows(
        [
            Operation(f"p{i}", Kind.GEMM, m=m, n=n, k=k, batch=b, input_bits=a, weight_bits=w, output_bits=o, second_is_weight=weight)
            for i, (m, n, k, b, a, w, o, weight) in enumerate(shapes)
        ]
    )
    found = cpu_times(table, SHEET, kernels)
    expected = [product_s(*shape, kernels) for shape in shapes]
    assert BLOCK == 32
    assert found.latency_s == pytest.approx([t for t, _ in expected], rel=1e-12)
    assert found.dram_bytes == pytest.approx([b for _, b in expected], rel=1e-12)
    wide = [max(a, w) for _, _, _, _, a, w, _, _ in shapes]
    assert found.rate.tolist() == [2.0 if bits <= 8 else 1.0 if bits <= 16 else 0.5 for bits in wide]


def test_functions_and_exchanges_beside_products() -> None:
    """A function runs in the product before it and pays traffic alone; an exchange between chips is not the processor's; what bounds."""
    big = {"m": 4000, "n": 5000, "input_bits": 16, "output_bits": 16}
    table = OperationTable.from_rows(
        [
            Operation("gelu", Kind.ACTIVATION, function="gelu", operands=1, **big),
            Operation("norm", Kind.NORM, function="layernorm", operands=1, **big),
            Operation("tiny", Kind.NORM, function="layernorm", operands=1, m=1, n=8, input_bits=16, output_bits=16),
            Operation("sum", Kind.COLLECTIVE, function="all_reduce", **big),
        ]
    )
    kernels = CpuKernels(launch_s=5e-6)
    found = cpu_times(table, SHEET, kernels)
    stream = 2 * 4000 * 5000 * 2 / (2e11 * kernels.dram_efficiency)  # 80 MB: all beyond a cache of 30
    assert found.latency_s == pytest.approx([stream, 5e-6 + stream, 5e-6, 0.0], rel=1e-12)
    assert found.dram_bytes.tolist() == [80e6, 80e6, 0.0, 0.0]
    assert found.bound[:3].tolist() == [1, 1, 2]
    assert found.macs.tolist() == [0.0] * 4


def test_a_width_that_it_cannot_multiply() -> None:
    table = OperationTable.from_rows([Operation("p", Kind.GEMM, m=8, n=8, k=8, input_bits=64, weight_bits=16, second_is_weight=True)])
    with pytest.raises(HardwareError, match="at most 32 bits"):
        cpu_times(table, SHEET)
