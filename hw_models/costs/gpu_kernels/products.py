"""Matrix products in tiles and waves: what a GPU library reaches, from the sheet and eight parameters.

    out[batch, m, n] = in[batch, m, k] x second[(batch), k, n]

For every tile of the usual kernels and every division of k: a multiprocessor works on its tiles wave after wave, each bound by
its tensor cores or by the L2 port that feeds them, and then writes its results; meanwhile the DRAM delivers what the L2 does not
hold. The fastest tile wins, as in a library that knows its kernels. docs/models/gpu.md has the formula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.fields import TensorCore
from hw_models.costs.gpu_kernels.parameters import LAUNCH_HZ, LowPrecision, ProductKernel
from hw_models.costs.gpu_kernels.sheet import GpuSheet

FloatArray = npt.NDArray[np.float64]

TILE_M: Final = (256, 128, 64, 32, 16)
TILE_N: Final = (256, 128, 64)
SPLITS: Final = (1, 2, 3, 4, 6, 8, 12, 16)
DEPTHS: Final = {TensorCore.SYNCHRONOUS: 32.0}  # k of one staged slice, to which k is padded, as libraries' kernels have it; others: 64
MIN_SPLIT_K: Final = 128  # a shorter part of k never pays
FLOP_J: Final = 1e-12
"""Energy of one floating-point operation of bf16 products at 1.83 GHz [J]: the power of H100's largest measured products over
their rate; the clock that a power limit sustains follows from it and the cube law of dynamic power."""
REFERENCE_HZ: Final = 1.83e9
CHUNK: Final = 4096  # products costed at a time: bounds memory to some 50 MB

_m, _n, _s = (a.ravel() for a in np.meshgrid(TILE_M, TILE_N, SPLITS, indexing="ij"))
_usual = ~((_m == 256) & (_n == 256))  # no library has a kernel of that tile on synchronous tensor cores; others do not need it
TILES: Final = (_m[_usual].astype(np.float64), _n[_usual].astype(np.float64), _s[_usual].astype(np.float64))


@dataclass(frozen=True)
class ProductTimes:
    """Times of products (products,) [s]: whole, of the busiest multiprocessor and of the DRAM, and DRAM bytes."""

    latency_s: FloatArray
    compute_s: FloatArray
    dram_s: FloatArray
    dram_bytes: FloatArray


def sustained_clock(sheet: GpuSheet) -> float:
    """Share of the sheet's clock that its power limit sustains in large products."""
    power = FLOP_J * 2 * sheet.peak_macs_per_s * (sheet.frequency_hz / REFERENCE_HZ) ** 2
    return float(min(1.0, (sheet.tdp_w / power) ** (1 / 3)))


def staged_depth(sheet: GpuSheet) -> float:
    """k of one slice of operands that a kernel stages."""
    return DEPTHS.get(sheet.tensor_core, 64.0)


def benchmark_copies(engine: str, sheet: GpuSheet, weight_bytes: npt.ArrayLike) -> FloatArray:
    """Copies of the weights (products,) that the collectors of measured rows rotate through, by the engine that they measure.

    vLLM's has 6, TensorRT-LLM's as many as fill the L2, at most 5 (``outside_loop_count`` in collector/vllm/collect_gemm.py and
    collector/trtllm/collect_gemm.py of ai-dynamo/aiconfigurator; before 2dfdd3c of March 2026, as A100's rows, the latter always had 5:
    the same where the L2 has two sides, since what fills it all stays in neither).
    """
    size = np.asarray(weight_bytes, dtype=np.float64)
    return np.clip(np.ceil(sheet.l2_bytes / size), 1.0, 5.0) if engine == "trtllm" else np.full(size.shape, 6.0)


def product_times(
    sheet: GpuSheet,
    kernel: ProductKernel,
    m: npt.ArrayLike,
    n: npt.ArrayLike,
    k: npt.ArrayLike,
    *,
    batch: npt.ArrayLike = 1,
    number_format: str = "bf16",
    activation_bytes: npt.ArrayLike = 2.0,
    weight_bytes: npt.ArrayLike = 2.0,
    out_bytes: npt.ArrayLike = 2.0,
    low: LowPrecision | None = None,
    copies: npt.ArrayLike = 0.0,
    second_is_weight: npt.ArrayLike = True,
    one_operand: npt.ArrayLike = False,
) -> ProductTimes:
    """Times of products; all sizes and bytes of an element broadcast to (products,).

    Args:
        number_format: that of the multiplication; the bytes of an element may be less (weight-only) where ``low`` says how.
        copies: 0: the second operand comes from the DRAM whatever the L2 could hold (weights of a model that runs layer after
            layer). Else copies of it (products,) that a benchmark rotates through, which stay in an L2 that holds all of them.
        second_is_weight: False: an operand that an earlier kernel has just written, in the L2 where it fits.
        one_operand: the whole batch multiplies one second operand: rows of one product.
    """
    merged = np.asarray(one_operand, dtype=bool)
    m, batch = np.where(merged, np.asarray(m) * np.asarray(batch), m), np.where(merged, 1, batch)
    given = (m, n, k, batch, activation_bytes, weight_bytes, out_bytes, second_is_weight, copies)
    columns = [np.asarray(a, dtype=np.float64) for a in given]
    shape = np.broadcast_shapes(*(c.shape for c in columns))
    flat = [np.ascontiguousarray(np.broadcast_to(c, shape)).reshape(-1) for c in columns]
    parts = [_chunk(sheet, kernel, [c[i : i + CHUNK] for c in flat], number_format, low) for i in range(0, max(len(flat[0]), 1), CHUNK)]
    joined = [np.concatenate([p[i] for p in parts]).reshape(shape) for i in range(4)]
    return ProductTimes(*joined)


def _chunk(
    sheet: GpuSheet, kernel: ProductKernel, columns: list[FloatArray], number_format: str, low: LowPrecision | None
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    m, n, k, batch, in_bytes, second_bytes, out_bytes, weight, copies = (c[:, None] for c in columns)
    tile_m, tile_n, split = TILES
    clock = sheet.frequency_hz
    tiles = batch * np.ceil(m / tile_m) * np.ceil(n / tile_n) * split
    waves = np.ceil(tiles / sheet.multiprocessors)
    slice_k = staged_depth(sheet)
    depth = np.ceil(k / split / slice_k) * slice_k
    rows, cols = np.minimum(tile_m, np.ceil(m / 8) * 8), np.minimum(tile_n, np.ceil(n / 8) * 8)

    rate = sheet.macs_per_cycle * sheet.rate(number_format) * kernel.tensor_efficiency * sustained_clock(sheet)
    rate = rate * (low.rate_factor if low else 1.0)
    staged = _staged(sheet, rows * in_bytes, cols * second_bytes)
    port = min(64.0 * kernel.port_efficiency, sheet.port_bytes_per_cycle)
    inner = depth * np.maximum(tile_m * tile_n / rate, staged / port)
    written = rows * cols * out_bytes / kernel.out_bytes_per_cycle
    if sheet.tensor_core is TensorCore.TENSOR_MEMORY:  # one tile is written while the next is multiplied
        work = waves * np.maximum(inner, written) + np.minimum(inner, written)
    else:
        work = waves * (inner + written)
    busy = (work + kernel.fixed_cycles + (waves - 1) * kernel.next_cycles) / clock

    first, second, out = batch * m * k * in_bytes, batch * n * k * second_bytes, batch * m * n * out_bytes
    held = sheet.near_l2_bytes
    once = _missed((second + first) / sheet.l2_bytes)
    warm = second * _missed_in_turn((copies * second + first) / held) + first * _missed_in_turn((second + first) / held)
    traffic = np.where(copies > 0, warm, second * np.where(weight > 0, 1.0, once) + first * once)
    traffic = traffic + out * _missed(out / sheet.l2_bytes)
    dram = traffic / (sheet.dram_bytes_per_s * kernel.dram_efficiency)

    p = kernel.overlap
    # Partial sums of a split are written and read once more; twice the DRAM's rate stands for the L2's.
    joined = kernel.split_cycles / clock + 8.0 * split * batch * m * n / (2.0 * sheet.dram_bytes_per_s)
    total = (busy**p + dram**p) ** (1 / p) + np.where(split > 1, joined, 0.0)
    total = np.where((split == 1) | (depth >= MIN_SPLIT_K), total, np.inf)
    if low and low.tiles_by_rows:
        named = (tile_m == np.where(m <= 128, 64, 128)) & (tile_n == np.where(m <= 64, 64, 128))
        total = np.where(named & (split == 1), total, np.inf)
    best = np.argmin(total, axis=1)
    at = (np.arange(len(best)), best)
    latency = total[at] + kernel.launch_s * LAUNCH_HZ / clock
    if low:
        latency = latency + low.extra_s + (3.0 * m * k)[:, 0] / sheet.dram_bytes_per_s * (low.row_cycles > 0)
        latency = latency + np.ceil(m[:, 0] / (2 * sheet.multiprocessors)) * low.row_cycles / clock
    return latency, busy[at], np.broadcast_to(dram, total.shape)[at], np.broadcast_to(traffic, total.shape)[at]


def _staged(sheet: GpuSheet, first: FloatArray, second: FloatArray) -> FloatArray:
    """Bytes that a multiprocessor reads for one step of k; neighbours that multicast share the larger operand, or both."""
    if sheet.tensor_core is TensorCore.SYNCHRONOUS:
        return first + second
    larger, smaller = np.maximum(first, second) / 2, np.minimum(first, second)
    return np.asarray(larger + (smaller / 2 if sheet.tensor_core is TensorCore.TENSOR_MEMORY else smaller))


def _missed(fill: FloatArray) -> FloatArray:
    """Share of accesses that a cache misses when data fill it ``fill`` times: none below a half, all above one and a half."""
    return np.asarray(np.clip(fill - 0.5, 0.0, 1.0))


def _missed_in_turn(fill: FloatArray) -> FloatArray:
    """The same of data that are read in turn, over and over: what was read longest ago goes first, so that all stay or none."""
    return np.asarray(np.clip((fill - 0.9) / 0.2, 0.0, 1.0))
