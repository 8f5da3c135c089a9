"""Operators on a GPU: matrix products in tiles and waves, row-wise and elementwise kernels, each with a few fitted overheads.

The structure is physical and has no free numbers: tiles are whole, multiprocessors work in whole waves, every tile reads its
operands through the L2, compulsory traffic goes to the DRAM. What depends on software and silicon and cannot be read from a
data sheet is in `GemmOverheads` (five numbers) and `VectorOverheads` (three), fitted to measurements by
`hw_models.devices.calibration`. Not modelled: clock changes under power limits, operands left in the L2 by an earlier kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.errors import bad_value, unknown_name

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Thread-block tiles (m, n) of the tensor-core kernels that vendor libraries choose from (CUTLASS profiler, default GEMM set).
TILES: Final = (
    (256, 128), (128, 256), (128, 128), (256, 64), (64, 256), (128, 64), (64, 128), (64, 64), (32, 128), (128, 32), (32, 64),
)  # fmt: skip
SPLITS: Final = (1, 2, 3, 4, 6, 8, 16)
K_STEP: Final = 32  # depth of one staged operand slice; K is padded to it
MIN_SPLIT_K: Final = 128  # a split shorter than four slices never pays for its reduction
ACCUMULATOR_BYTES: Final = 4

BOUNDS: Final = ("compute", "dram", "l2")


@dataclass(frozen=True)
class GpuHardware:
    """What a data sheet says of a GPU.

    Attributes:
        multiprocessors: SMs that are enabled.
        macs_per_cycle: multiply-accumulates of one multiprocessor's tensor cores in a cycle at fp16, dense.
        l2_bytes_per_s, dram_bytes_per_s: peak rates [bytes/s].
        threads: resident threads of one multiprocessor.
        memory_latency_s: one dependent access to device memory [s].
        dtype_rates: rate of each number format relative to fp16.
        dtype_bytes: bytes of an element.
    """

    name: str
    multiprocessors: int
    macs_per_cycle: int
    frequency_hz: float
    l2_bytes: int
    l2_bytes_per_s: float
    dram_bytes_per_s: float
    threads: int
    memory_latency_s: float
    dtype_rates: dict[str, float]
    dtype_bytes: dict[str, int]

    def element_bytes(self, dtype: str) -> int:
        """Bytes of one element of ``dtype``; HardwareError for a format that the device does not have."""
        if dtype not in self.dtype_bytes:
            raise unknown_name(f"dtype of device {self.name}", dtype, self.dtype_bytes)
        return self.dtype_bytes[dtype]


@dataclass(frozen=True)
class GemmOverheads:
    """What is fitted for matrix products.

    Attributes:
        launch_s: time of a kernel that computes nothing (launch, and what a measurement adds) [s].
        tensor_efficiency: share of the peak rate that a tile's inner loop sustains.
        dram_efficiency, l2_efficiency: share of the peak rates that streams sustain.
        operand_load_macs: multiply-accumulate slots that staging one operand element costs; small tiles pay it more often.
    """

    launch_s: float
    tensor_efficiency: float
    dram_efficiency: float
    l2_efficiency: float
    operand_load_macs: float


@dataclass(frozen=True)
class VectorOverheads:
    """What is fitted for one row-wise or elementwise operator.

    Attributes:
        issue_s: time the host needs to issue the call; hides a shorter kernel [s].
        launch_s: time of a kernel that moves nothing [s].
        dram_efficiency: share of the peak DRAM rate that the kernel sustains.
    """

    issue_s: float
    launch_s: float
    dram_efficiency: float


@dataclass(frozen=True)
class VectorKernel:
    """How an operator walks over its data.

    Attributes:
        reads, writes: elements read and written for each output element.
        passes: times a row is read (maximum, sum, output: 3); only rows too long for the registers are read again.
        register_columns: longest row that one warp keeps in registers and reads once (0: none).
        threads: threads on a row, or 0 for the usual rule: half of columns / 8 rounded up to a power of two, 32 to 512.
    """

    reads: int
    writes: int
    passes: int = 1
    register_columns: int = 0
    threads: int = 0


# Passes and threads as in PyTorch's CUDA kernels (aten/src/ATen/native/cuda: SoftMax.cu, layer_norm_kernel.cu; read, BSD-3).
ROW_KERNELS: Final = {
    "softmax": VectorKernel(1, 1, passes=3, register_columns=1024),
    "layernorm": VectorKernel(1, 1, passes=3, threads=128),
    "rmsnorm": VectorKernel(1, 1, passes=2, threads=128),
}
ELEMENT_KERNELS: Final = {
    "gelu": VectorKernel(1, 1),
    "silu": VectorKernel(1, 1),
    "relu": VectorKernel(1, 1),
    "add": VectorKernel(2, 1),
    "mul": VectorKernel(2, 1),
    "silu_mul": VectorKernel(2, 1),
}
VECTOR_LOAD_BYTES: Final = 16  # the widest load of a thread


@dataclass(frozen=True)
class GemmCandidates:
    """Costs of every (tile, split) of a list of products, before any overhead; arrays of shape (candidates, products)."""

    mac_slots: FloatArray
    """Multiply-accumulate slots of the busiest multiprocessor."""
    load_elements: FloatArray
    """Operand elements that it stages."""
    l2_bytes: FloatArray
    dram_bytes: FloatArray
    allowed: npt.NDArray[np.bool_]


def gemm_candidates(
    hardware: GpuHardware, m: npt.ArrayLike, n: npt.ArrayLike, k: npt.ArrayLike, batch: npt.ArrayLike = 1, dtype: str = "fp16"
) -> GemmCandidates:
    """Tiles x splits of ``batch`` products ``out[m, n] = in[m, k] x second[k, n]``; the four broadcast to (products,)."""
    M, N, K, B = np.broadcast_arrays(*(_sizes(*f) for f in (("m", m), ("n", n), ("k", k), ("batch", batch))))
    size = hardware.element_bytes(dtype)
    operands = size * B * (M * K + K * N)
    outputs = B * M * N
    slots, loads, l2, dram, allowed = [], [], [], [], []
    for tile_m, tile_n in TILES:
        blocks = B * np.ceil(M / tile_m) * np.ceil(N / tile_n)
        for split in SPLITS:
            depth = np.ceil(K / (split * K_STEP)) * K_STEP
            # A split works on at least MIN_SPLIT_K, the last one padded: so a longer k never opens a way that a shorter one,
            # padded to it, would not have had.
            depth = np.maximum(depth, MIN_SPLIT_K) if split > 1 else depth
            tiles = blocks * split
            waves = np.ceil(tiles / hardware.multiprocessors)
            # Partial sums of a split are written and read once more; they stay in the L2 where they fit.
            partial = 2.0 * ACCUMULATOR_BYTES * split * outputs * (split > 1)
            slots.append(waves * tile_m * tile_n * depth)
            loads.append(waves * (tile_m + tile_n) * depth)
            l2.append(tiles * (tile_m + tile_n) * depth * size + outputs * size + partial)
            dram.append(operands + outputs * size + np.where(partial > hardware.l2_bytes, partial, 0.0))
            allowed.append(split <= np.maximum(np.ceil(K / MIN_SPLIT_K), 1))
    return GemmCandidates(np.array(slots), np.array(loads), np.array(l2), np.array(dram), np.array(allowed))


def gemm_times(
    hardware: GpuHardware, candidates: GemmCandidates, overheads: GemmOverheads, dtype: str = "fp16"
) -> tuple[FloatArray, IntArray]:
    """Latency of the fastest candidate of each product [s] and what bounds it (index into `BOUNDS`)."""
    rate = hardware.multiprocessors * hardware.macs_per_cycle * hardware.frequency_hz * hardware.dtype_rates[dtype]
    per_multiprocessor = rate / hardware.multiprocessors * overheads.tensor_efficiency
    compute = (candidates.mac_slots + overheads.operand_load_macs * candidates.load_elements) / per_multiprocessor
    dram = candidates.dram_bytes / (hardware.dram_bytes_per_s * overheads.dram_efficiency)
    l2 = candidates.l2_bytes / (hardware.l2_bytes_per_s * overheads.l2_efficiency)
    total = np.where(candidates.allowed, np.maximum(np.maximum(compute, dram), l2), np.inf)
    best = np.argmin(total, axis=0)
    at = (best, *np.indices(best.shape))
    bound = np.argmax(np.stack([compute[at], dram[at], l2[at]]), axis=0)
    return total[at] + overheads.launch_s, np.asarray(bound, dtype=np.int64)


def gemm_latency_s(
    hardware: GpuHardware,
    overheads: GemmOverheads,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    *,
    batch: npt.ArrayLike = 1,
    dtype: str = "fp16",
) -> FloatArray:
    """Latency of ``batch`` products ``out[m, n] = in[m, k] x second[k, n]`` in one kernel [s]; arguments broadcast."""
    return gemm_times(hardware, gemm_candidates(hardware, m, n, k, batch, dtype), overheads, dtype)[0][()]


def row_latency_s(
    hardware: GpuHardware,
    overheads: VectorOverheads,
    operator: str,
    rows: npt.ArrayLike,
    columns: npt.ArrayLike,
    *,
    dtype: str = "fp16",
) -> FloatArray:
    """Latency of a row-wise operator (softmax, layernorm, rmsnorm) over ``rows`` x ``columns`` [s].

    max(issue, launch + dependent loads of one row + traffic / (rate * efficiency)). Rows are dealt to multiprocessors whole.
    A row that does not fit in registers is read ``passes`` times; the repeats reach the DRAM in the share of the rows in
    flight that the L2 cannot hold, taken to rise linearly from 0 at half its capacity to 1 at one and a half.
    """
    if operator not in ROW_KERNELS:
        raise unknown_name("row-wise operator", operator, ROW_KERNELS)
    kernel = ROW_KERNELS[operator]
    r, c = np.broadcast_arrays(_sizes("rows", rows), _sizes("columns", columns))
    size = hardware.element_bytes(dtype)
    per_load = VECTOR_LOAD_BYTES // size
    in_registers = c <= kernel.register_columns
    if kernel.threads:
        threads = np.full(c.shape, float(kernel.threads))
    else:
        threads = np.exp2(np.clip(np.ceil(np.log2(np.maximum(c / per_load / 2, 1))), 5, 9))
    passes = np.where(in_registers, 1, kernel.passes)
    loads = np.where(in_registers, 1, passes * np.ceil(c / (threads * per_load)))

    in_flight = np.minimum(r, hardware.multiprocessors * np.floor(hardware.threads / threads))
    missed = np.clip(in_flight * c * size / hardware.l2_bytes - 0.5, 0.0, 1.0)
    touched = kernel.reads * (1 + (passes - 1) * missed) + kernel.writes
    dealt = np.ceil(r / hardware.multiprocessors) * hardware.multiprocessors
    traffic = touched * dealt * c * size
    return _vector_time(hardware, overheads, loads * hardware.memory_latency_s, traffic)[()]


def element_latency_s(
    hardware: GpuHardware, overheads: VectorOverheads, operator: str, elements: npt.ArrayLike, *, dtype: str = "fp16"
) -> FloatArray:
    """Latency of an elementwise operator over ``elements`` outputs [s]: max(issue, launch + one load + traffic / rate)."""
    if operator not in ELEMENT_KERNELS:
        raise unknown_name("elementwise operator", operator, ELEMENT_KERNELS)
    kernel = ELEMENT_KERNELS[operator]
    traffic = _sizes("elements", elements) * (kernel.reads + kernel.writes) * hardware.element_bytes(dtype)
    return _vector_time(hardware, overheads, hardware.memory_latency_s, traffic)[()]


def _vector_time(hardware: GpuHardware, overheads: VectorOverheads, dependent_s: FloatArray | float, traffic: FloatArray) -> FloatArray:
    stream = traffic / (hardware.dram_bytes_per_s * overheads.dram_efficiency)
    return np.asarray(np.maximum(overheads.issue_s, overheads.launch_s + dependent_s + stream))


def _sizes(field: str, value: npt.ArrayLike) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        wrong = ~((array >= 1) & np.isfinite(array) & (array == np.floor(array)))
    if wrong.any():
        raise bad_value(field, array[wrong].flat[0].item(), "an integer from 1", closest=1)
    return array
