"""Fused attention on a GPU: one new token against its cache (decode), and a prompt against itself (prefill).

Both deal work items (a head and a part of the keys, or a head and a block of queries) to multiprocessors, as FlashAttention and
its kin do; docs/models/gpu.md has the formulas. Every argument may be an array; they broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels.parameters import LAUNCH_HZ, DecodeKernel, PrefillKernel
from hw_models.costs.gpu_kernels.products import sustained_clock
from hw_models.costs.gpu_kernels.sheet import GpuSheet

FloatArray = npt.NDArray[np.float64]

SPLITS: Final = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128], dtype=np.float64)
KEY_BLOCK: Final = 64
QUERY_BLOCKS: Final = (64.0, 128.0)
GROUP: Final = 16  # rows of the smallest matrix instruction: query heads of one KV head that are multiplied at once
TILE_QUERIES: Final = 64  # of FlashAttention-2's thread block in decoding
MOST_PARTS: Final = 128
L1_SHARE_BYTES: Final = 28 * 1024
"""What shared memory leaves of the memory that it shares with the L1, from Ampere to Blackwell (recalled of the CUDA programming guide)."""


@dataclass(frozen=True)
class AttentionTimes:
    """Times of fused attention [s] and the bytes that reach the DRAM, of the broadcast shape."""

    latency_s: FloatArray
    compute_s: FloatArray
    dram_s: FloatArray
    dram_bytes: FloatArray


def decode_times(
    sheet: GpuSheet,
    kernel: DecodeKernel,
    batch: npt.ArrayLike,
    heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike,
    keys: npt.ArrayLike,
    head_elements: npt.ArrayLike = 128,
    *,
    kv_bytes: npt.ArrayLike = 2.0,
    value_elements: npt.ArrayLike | None = None,
    values_in_keys: npt.ArrayLike = False,
    window: npt.ArrayLike = 0,
    cold: bool = True,
) -> AttentionTimes:
    """One query of each of ``heads`` heads and ``batch`` requests against ``keys`` cached positions.

    Args:
        window: keys that the query sees at most (0: all).
        head_elements, value_elements: of a key and of a value (None: equal).
        values_in_keys: the values are part of the keys, as in latent attention: read once.
        kv_bytes: bytes of a cached element.
        cold: the cache comes from the DRAM; False: from the L2 where it fits, as in a benchmark that repeats one kernel.
    """
    b, h, hk, length, d, size, win = _columns(batch, heads, kv_heads, keys, head_elements, kv_bytes, window)
    values = d if value_elements is None else _columns(value_elements)[0]
    stored = d + np.where(_columns(values_in_keys)[0] > 0, 0.0, values)
    shape = np.broadcast_shapes(*(x.shape[:-1] for x in (b, h, hk, length, d, size, values, stored, win)))
    length = np.where(win > 0, np.minimum(length, win), length)
    cache = b * hk * length * stored * size
    passing = b * h * (d + np.maximum(values, d)) * 2.0
    held = sheet.near_l2_bytes
    traffic = cache * (1.0 if cold else np.clip(cache / held - 0.5, 0.0, 1.0)) + passing
    dram = traffic / (sheet.dram_bytes_per_s * kernel.dram_efficiency)
    if kernel.shared_memory_tiles:
        busy, split, others = _tiled_decode(sheet, kernel, b * hk, h / hk, length, d, stored, size, win > 0)
        launch = kernel.launch_s * LAUNCH_HZ / sheet.frequency_hz
        combine = kernel.combine_s * LAUNCH_HZ / sheet.frequency_hz
    else:
        busy, split = _common_decode(sheet, kernel, b * hk, h / hk, length, d, stored, size)
        launch, combine, others = kernel.launch_s, kernel.combine_s, np.zeros(1)
    joining = combine + 8.0 * b * h * np.maximum(values, d) * split / sheet.dram_bytes_per_s
    p = kernel.overlap
    total = (busy**p + dram**p) ** (1 / p) + np.where(split > 1, joining, 0.0) + others
    best = np.argmin(total, axis=-1)[..., None]

    def at(x: FloatArray) -> FloatArray:
        return np.take_along_axis(np.broadcast_to(x, total.shape), best, axis=-1)[..., 0].reshape(shape)

    return AttentionTimes(at(total) + launch, at(busy), at(dram), at(traffic))


def _common_decode(
    sheet: GpuSheet, kernel: DecodeKernel, heads: FloatArray, group: FloatArray, keys: FloatArray, d: FloatArray, stored: FloatArray,
    size: FloatArray,
) -> tuple[FloatArray, FloatArray]:  # fmt: skip
    """Seconds of the busiest multiprocessor for each division of the keys of ``heads`` KV heads, and the parts of each."""
    blocks = np.ceil(keys / KEY_BLOCK)
    split = np.minimum(SPLITS, blocks)
    waves = np.ceil(heads * split / sheet.multiprocessors)
    port = np.minimum(kernel.port_bytes_per_cycle, sheet.port_bytes_per_cycle)
    block = np.maximum(KEY_BLOCK * stored * size / port, kernel.block_cycles * np.ceil(group / GROUP) * d / 128)
    fixed = (kernel.item_cycles + kernel.group_cycles * group * d / 1024) * np.where(group == 1, kernel.single_factor, 1.0)
    busy = waves * (fixed + np.ceil(blocks / split) * block) / sheet.frequency_hz
    return np.where((group == 1) & (split > 1) & (not kernel.splits_single_heads), np.inf, busy), split


def _tiled_decode(
    sheet: GpuSheet, kernel: DecodeKernel, heads: FloatArray, group: FloatArray, keys: FloatArray, d: FloatArray, stored: FloatArray,
    size: FloatArray, windowed: npt.NDArray[np.bool_],
) -> tuple[FloatArray, FloatArray, FloatArray]:  # fmt: skip
    """FlashAttention-2: seconds of the busiest multiprocessor, parts that the keys are divided into, seconds of further kernels.

    A thread block has a tile of 64 queries and one of 256, 128 or 64 keys and values in shared memory, multiplies all of it however few
    are there, and as many thread blocks run on a multiprocessor as have room. The query heads of a KV head share a tile unless there is
    a window; only where they do are keys divided, by the kernel's own rule, and queries and results copied into another order.
    """
    tile = np.where(d <= 64, 256.0, np.where(d <= 128, 128.0, 64.0))
    shared = np.maximum(sheet.l1_bytes - L1_SHARE_BYTES, 0.0)
    resident = np.maximum(np.floor(shared / ((TILE_QUERIES * d + tile * stored) * 2.0)), 1.0)
    together = (group > 1) & ~windowed
    rows = np.where(together, group, 1.0)
    items = heads * group / rows * np.ceil(rows / TILE_QUERIES)
    blocks = np.ceil(keys / tile)
    split = np.where(together, _parts(items, blocks, 2.0 * sheet.multiprocessors), 1.0)
    mine = np.ceil(blocks / split)
    port = np.minimum(kernel.port_bytes_per_cycle, sheet.port_bytes_per_cycle)
    chain = kernel.item_cycles + kernel.group_cycles * rows * d / 1024 + mine * kernel.block_cycles * tile * d / (KEY_BLOCK * 128)
    reading = np.minimum(keys, mine * tile) * stored * size / port
    waves, turns = (np.ceil(items * split / (sheet.multiprocessors * each)) for each in (resident, 1.0))
    copies = np.where(together & (heads > 1), kernel.copy_s * LAUNCH_HZ / sheet.frequency_hz, 0.0)
    return (waves * chain + turns * reading) / sheet.frequency_hz, split, copies


def _parts(items: FloatArray, blocks: FloatArray, slots: float) -> FloatArray:
    """Parts that FlashAttention-2 divides keys into: the fewest whose last wave is 85 % as full as the best of all would be.

    One where items fill 80 % of the slots; at most 128, the slots and the blocks; and none that only leaves thread blocks without keys.
    """
    parts = np.arange(1.0, MOST_PARTS + 1)
    some = (parts <= np.minimum(blocks, slots)) & ((parts == 1) | (np.ceil(blocks / parts) != np.ceil(blocks / np.maximum(parts - 1, 1))))
    waves = items * parts / slots
    full = np.where(some, waves / np.ceil(waves), 0.0)
    chosen = np.argmax(full >= 0.85 * full.max(axis=-1, keepdims=True), axis=-1)[..., None] + 1.0
    return np.where(items >= 0.8 * slots, 1.0, chosen)


def prefill_times(
    sheet: GpuSheet,
    kernel: PrefillKernel,
    batch: npt.ArrayLike,
    heads: npt.ArrayLike,
    kv_heads: npt.ArrayLike,
    queries: npt.ArrayLike,
    head_elements: npt.ArrayLike = 128,
    *,
    keys: npt.ArrayLike | None = None,
    value_elements: npt.ArrayLike | None = None,
    window: npt.ArrayLike = 0,
    causal: npt.ArrayLike = True,
    number_format: str = "bf16",
    query_bytes: npt.ArrayLike = 2.0,
    kv_bytes: npt.ArrayLike = 2.0,
    writes_cache: bool = True,
) -> AttentionTimes:
    """``queries`` positions of a prompt, the last of ``keys`` (None: as many), in ``batch`` requests of ``heads`` heads.

    Args:
        window: keys that a query sees at most (0: all before it). causal: queries see no later key.
        number_format: that of its two products. query_bytes, kv_bytes: bytes of an element.
        writes_cache: keys and values of the queries are written into a paged cache by a kernel of its own.
    """
    b, h, hk, q, d, qb, kb, win, before = _columns(
        batch, heads, kv_heads, queries, head_elements, query_bytes, kv_bytes, window, np.asarray(causal, dtype=np.float64)
    )
    length = q if keys is None else _columns(keys)[0]
    values = d if value_elements is None else _columns(value_elements)[0]
    block = np.array(QUERY_BLOCKS)
    clock = sheet.frequency_hz
    group = h / hk
    rows = np.where((q == 1) | kernel.packs_groups, group, 1.0) if kernel.packs_single or kernel.packs_groups else np.ones_like(group)
    mean, longest = _keys_of_blocks(q, length, win, before, block / rows)
    rate = sheet.macs_per_cycle * sheet.rate(number_format) * kernel.tensor_efficiency * sustained_clock(sheet)
    mac, exponential = (d + values) / rate, kernel.exponential_cycles / KEY_BLOCK
    pair = np.sqrt(mac**2 + exponential**2)  # tensor cores and exponentials take turns on neighbouring blocks
    item, last = (block * k * pair + kernel.item_cycles for k in (mean, longest))
    work = b * (h / rows) * np.ceil(q * rows / block) / sheet.multiprocessors
    busy = np.where(work <= 1, last, np.maximum(last, (work + 0.5) * item)) / clock  # half an item of unequal ends

    passing, cache = b * q * h * (d * qb + values * 2.0), b * length * hk * (d + values) * kb
    held = sheet.near_l2_bytes
    traffic = (passing + cache) * np.clip((passing + cache) / held - 0.5, 0.0, 1.0)
    dram = traffic / (sheet.dram_bytes_per_s * kernel.dram_efficiency)
    handled = hk + h * kernel.prepares_queries
    written = b * q * handled * (d + values) / 256 * kernel.cache_cycles / (sheet.multiprocessors * clock)
    p = kernel.overlap
    total = (busy**p + dram**p) ** (1 / p) + written * writes_cache
    best = np.argmin(total, axis=-1)[..., None]

    def at(x: FloatArray) -> FloatArray:
        return np.asarray(np.take_along_axis(np.broadcast_to(x, total.shape), best, axis=-1)[..., 0])

    return AttentionTimes(at(total) + kernel.launch_s, at(busy), at(dram), at(traffic))


def _keys_of_blocks(
    queries: FloatArray, keys: FloatArray, window: FloatArray, causal: FloatArray, block: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Keys that a block of queries multiplies: the mean over the blocks of a prompt, and the most of any, whole key blocks."""
    first = keys - queries  # keys before the first query
    sees = np.where(window > 0, np.minimum(window, keys), keys)
    blocks = np.ceil(queries / block)
    # Block i (from 1) ends at query i x block: it sees first + i x block keys until the window or the last key.
    most = np.minimum(keys, sees + block - 1)
    growing = np.clip(np.floor((sees - first) / block), 0, blocks)
    total = growing * first + block * growing * (growing + 1) / 2 + (blocks - growing) * np.minimum(most, sees + block)
    half = KEY_BLOCK / 2  # the diagonal block is multiplied whole
    mean = np.where(causal > 0, total / blocks + half, keys + half)
    longest = np.where(causal > 0, np.minimum(most + half, sees + block), keys + half)
    return np.asarray(mean), np.asarray(longest)


def _columns(*values: npt.ArrayLike) -> tuple[FloatArray, ...]:
    """Arrays with one axis more, along which kernels are chosen."""
    return tuple(np.asarray(v, dtype=np.float64)[..., None] for v in values)
