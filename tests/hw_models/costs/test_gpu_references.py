"""The kernel models of GPUs against plain loops over tiles, parts and blocks, written from docs/models/gpu.md alone.

Sheets, kernels and shapes are drawn at random, so that no term hides behind a larger one; the loops know scalars and nothing of arrays.
Tolerance: both do the same handful of double operations in another order, so 1e-11 relative.
"""

from __future__ import annotations

import math
import random
from dataclasses import fields
from typing import Any

import numpy as np
import pytest

from hw_models.accelerator.fields import TensorCore
from hw_models.costs.gpu_kernels import attention, mixtures, products, rows
from hw_models.costs.gpu_kernels.parameters import DecodeKernel, LowPrecision, MixtureKernel, PrefillKernel, ProductKernel, RowKernel
from hw_models.costs.gpu_kernels.sheet import GpuSheet

EXACT = 1e-11
CASES = 40
RANGES = {
    "launch_s": (1e-6, 9e-6),
    "tensor_efficiency": (0.5, 0.95),
    "port_efficiency": (0.4, 1.0),
    "fixed_cycles": (500, 4000),
    "next_cycles": (10, 900),
    "dram_efficiency": (0.6, 0.95),
    "overlap": (1.2, 6.0),
    "split_cycles": (500, 4000),
    "out_bytes_per_cycle": (8, 64),
    "extra_s": (1e-6, 5e-6),
    "rate_factor": (0.5, 0.95),
    "row_cycles": (100, 900),
    "item_cycles": (300, 3000),
    "group_cycles": (50, 500),
    "port_bytes_per_cycle": (20, 64),
    "block_cycles": (50, 400),
    "combine_s": (1e-6, 4e-6),
    "exponential_cycles": (2, 16),
    "cache_cycles": (20, 200),
    "activation_factor": (0.5, 2),
    "cache_factor": (1.5, 5.0),
    "single_factor": (0.3, 1.0),
    "copy_s": (1e-6, 9e-6),
    "top_k_s": (1e-6, 3e-5),
    "top_k_cycles": (1e2, 1e4),
}


def drawn(record: type[Any], rng: random.Random) -> Any:
    flag = {"prepares_queries", "packs_groups", "packs_single", "splits_single_heads", "shared_memory_tiles", "triton", "tiles_by_tokens",
            "tiles_by_rows"}  # fmt: skip
    return record(**{f.name: rng.random() < 0.5 if f.name in flag else rng.uniform(*RANGES[f.name]) for f in fields(record)})


def sheet(rng: random.Random) -> GpuSheet:
    return GpuSheet(
        name="drawn", tensor_core=rng.choice(list(TensorCore)), multiprocessors=rng.randint(8, 160), frequency_hz=rng.uniform(1e9, 2.4e9),
        macs_per_cycle=rng.choice([512, 1024, 2048]), l2_bytes=rng.uniform(2e6, 9e7), dram_bytes_per_s=rng.uniform(2e11, 5e12),
        tdp_w=rng.uniform(60, 800), l1_bytes=rng.choice([0, 96, 128, 192, 256]) * 1024,
        l2_partitions=rng.choice([1, 2]), l2_bytes_per_s=rng.choice([None, rng.uniform(1e12, 9e12)]),
        link_bytes_per_s=1e11, rates={"bf16": 1.0, "fp8": 2.0},
    )  # fmt: skip


def up(a: float, b: float) -> int:
    """a divided by b, up to whole numbers."""
    return math.ceil(a / b)


def missed(data: float, cache: float) -> float:
    return min(max(data / cache - 0.5, 0.0), 1.0)


def missed_in_turn(data: float, cache: float) -> float:
    """All stay up to 0.9 of the cache, none from 1.1 on."""
    return min(max(5 * (data / cache - 0.9), 0.0), 1.0)


def port_bytes(s: GpuSheet, own: float) -> float:
    return min(own, 64.0 if s.l2_bytes_per_s is None else s.l2_bytes_per_s / s.multiprocessors / s.frequency_hz)


def clock_share(s: GpuSheet) -> float:
    """What of the clock a power limit leaves: 1 pJ a floating-point operation at 1.83 GHz, power as the cube of the clock."""
    full_w = 1e-12 * 2 * s.multiprocessors * s.macs_per_cycle * s.frequency_hz * (s.frequency_hz / 1.83e9) ** 2
    return min(1.0, (s.tdp_w / full_w) ** (1 / 3))


def product(
    s: GpuSheet, k: ProductKernel, b: int, m: int, n: int, depth: int, *, fmt: str, a_bytes: float, w_bytes: float, o_bytes: float,
    low: LowPrecision | None, copies: int, weight: bool, one: bool,
) -> float:  # fmt: skip
    if one:
        m, b = m * b, 1
    best = math.inf
    f, rate = s.frequency_hz, s.macs_per_cycle * s.rates[fmt] * k.tensor_efficiency * clock_share(s) * (low.rate_factor if low else 1.0)
    first, second, out = b * m * depth * a_bytes, b * depth * n * w_bytes, b * m * n * o_bytes
    if copies:
        held = s.l2_bytes / (1 if s.l2_partitions == 1 else 2)
        traffic = second * missed_in_turn(copies * second + first, held) + first * missed_in_turn(second + first, held)
    else:
        traffic = second * (1 if weight else missed(second + first, s.l2_bytes)) + first * missed(second + first, s.l2_bytes)
    traffic += out * missed(out, s.l2_bytes)
    for tm in (16, 32, 64, 128, 256):
        for tn in (64, 128, 256):
            for parts in (1, 2, 3, 4, 6, 8, 12, 16):
                slice_k = 32 if s.tensor_core is TensorCore.SYNCHRONOUS else 64
                part = slice_k * up(depth / parts, slice_k)
                if (tm, tn) == (256, 256) or (parts > 1 and part < 128):
                    continue
                by_rows = (64, 64) if m <= 64 else (64, 128) if m <= 128 else (128, 128)
                if low and low.tiles_by_rows and ((tm, tn) != by_rows or parts > 1):
                    continue
                height, width = min(tm, 8 * up(m, 8)), min(tn, 8 * up(n, 8))
                sides = sorted([height * a_bytes, width * w_bytes])
                if s.tensor_core is not TensorCore.SYNCHRONOUS:  # a cluster reads the larger operand once for two
                    sides[1] /= 2
                if s.tensor_core is TensorCore.TENSOR_MEMORY:
                    sides[0] /= 2
                inner = part * max(tm * tn / rate, sum(sides) / port_bytes(s, 64 * k.port_efficiency))
                write = height * width * o_bytes / k.out_bytes_per_cycle
                waves = up(b * up(m, tm) * up(n, tn) * parts, s.multiprocessors)
                cycles = 0.0
                if s.tensor_core is TensorCore.TENSOR_MEMORY:
                    cycles = waves * max(inner, write) + min(inner, write)
                else:
                    cycles = waves * (inner + write)
                busy = (cycles + k.fixed_cycles + (waves - 1) * k.next_cycles) / f
                dram = traffic / (s.dram_bytes_per_s * k.dram_efficiency)
                t = (busy**k.overlap + dram**k.overlap) ** (1 / k.overlap)
                if parts > 1:
                    t += k.split_cycles / f + 8 * parts * b * m * n / (2 * s.dram_bytes_per_s)
                best = min(best, t)
    t = best + k.launch_s * 1.6e9 / f
    if low:
        t += (
            low.extra_s
            + (3 * m * depth / s.dram_bytes_per_s if low.row_cycles else 0.0)
            + up(m, 2 * s.multiprocessors) * low.row_cycles / f
        )
    return t


@pytest.mark.parametrize("seed", range(CASES))
def test_products(seed: int) -> None:
    rng = random.Random(seed)
    s, k = sheet(rng), drawn(ProductKernel, rng)
    low = rng.choice([None, drawn(LowPrecision, rng), LowPrecision(2e-6, 0.8, 0.0)])
    how = {
        "fmt": rng.choice(["bf16", "fp8"]), "a_bytes": rng.choice([1.0, 2.0]), "w_bytes": rng.choice([0.5, 1.0, 2.0]),
        "o_bytes": rng.choice([1.0, 2.0]), "low": low, "copies": rng.choice([0, 6]), "weight": rng.random() < 0.5,
        "one": rng.random() < 0.5,
    }  # fmt: skip
    for _ in range(6):
        b, m, n, d = rng.choice([1, 3, 12]), rng.randint(1, 3000), rng.randint(1, 5000), rng.randint(1, 6000)
        found = products.product_times(
            s, k, m, n, d, batch=b, number_format=how["fmt"], activation_bytes=how["a_bytes"], weight_bytes=how["w_bytes"],
            out_bytes=how["o_bytes"], low=low, copies=float(how["copies"]), second_is_weight=how["weight"], one_operand=how["one"],
        )  # fmt: skip
        assert float(found.latency_s) == pytest.approx(product(s, k, b, m, n, d, **how), rel=EXACT)


def parts_by_rule(items: int, blocks: int, slots: int) -> int:
    """FlashAttention-2's own division of keys, as docs/models/gpu.md states it."""
    if items >= 0.8 * slots:
        return 1
    full = {1: items / slots / up(items, slots)}
    for parts in range(2, min(128, slots, blocks) + 1):
        if up(blocks, parts) != up(blocks, parts - 1):
            full[parts] = items * parts / slots / up(items * parts, slots)
    return min(parts for parts, share in full.items() if share >= 0.85 * max(full.values()))


def tiled_decode(
    s: GpuSheet, k: DecodeKernel, heads: int, group: int, keys: int, d: int, stored: int, size: float, windowed: bool
) -> tuple[float, int, float]:
    """Busy seconds, parts of the keys and seconds of copies of FlashAttention-2."""
    tile = 256 if d <= 64 else 128 if d <= 128 else 64
    resident = max(int((s.l1_bytes - 28 * 1024) // ((64 * d + tile * stored) * 2)), 1)
    together = group > 1 and not windowed
    rows = group if together else 1
    items, blocks = heads * (group // rows) * up(rows, 64), up(keys, tile)
    parts = parts_by_rule(items, blocks, 2 * s.multiprocessors) if together else 1
    mine = up(blocks, parts)
    chain = k.item_cycles + k.group_cycles * rows * d / 1024 + mine * k.block_cycles * (tile / 64) * (d / 128)
    reading = min(keys, mine * tile) * stored * size / port_bytes(s, k.port_bytes_per_cycle)
    cycles = up(items * parts, s.multiprocessors * resident) * chain + up(items * parts, s.multiprocessors) * reading
    copies = k.copy_s * 1.6e9 / s.frequency_hz if together and heads > 1 else 0.0
    return cycles / s.frequency_hz, parts, copies


@pytest.mark.parametrize("seed", range(CASES))
def test_decode_attention(seed: int) -> None:
    rng = random.Random(seed)
    s, k = sheet(rng), drawn(DecodeKernel, rng)
    clock = 1.6e9 / s.frequency_hz if k.shared_memory_tiles else 1.0
    for _ in range(8):
        b, hk, group = rng.choice([1, 2, 33]), rng.choice([1, 2, 8, 40]), rng.choice([1, 4, 17, 65])
        h, d, dv, size = hk * group, rng.choice([64, 128, 576]), rng.choice([64, 128, 512]), rng.choice([1.0, 2.0])
        length, inside, cold = rng.choice([1, 63, 64, 65, 700, 9000]), rng.random() < 0.5, rng.random() < 0.5
        window = rng.choice([0, 0, 50, 1000])
        seen = min(length, window) if window else length
        stored = d if inside else d + dv
        cache = b * hk * seen * stored * size
        held = s.l2_bytes / (1 if s.l2_partitions == 1 else 2)
        dram_bytes = cache * (1 if cold else missed(cache, held)) + b * h * (d + max(d, dv)) * 2
        dram = dram_bytes / (s.dram_bytes_per_s * k.dram_efficiency)

        def joined(busy: float, parts: int, dram: float = dram, sizes: tuple[int, int, int, int] = (b, h, d, dv)) -> float:
            t = (busy**k.overlap + dram**k.overlap) ** (1 / k.overlap)
            if parts > 1:
                t += k.combine_s * clock + 8 * sizes[0] * sizes[1] * max(sizes[2:]) * parts / s.dram_bytes_per_s
            return float(t)

        blocks, best = up(seen, 64), math.inf
        if k.shared_memory_tiles:
            busy, parts, copies = tiled_decode(s, k, b * hk, group, seen, d, stored, size, window > 0)
            best = joined(busy, parts) + copies
        else:
            for parts in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128):
                parts = min(parts, blocks)
                if parts > 1 and group == 1 and not k.splits_single_heads:
                    continue
                block = max(64 * stored * size / port_bytes(s, k.port_bytes_per_cycle), k.block_cycles * up(group, 16) * d / 128)
                fixed = (k.item_cycles + k.group_cycles * group * d / 1024) * (k.single_factor if group == 1 else 1.0)
                item = fixed + up(blocks, parts) * block
                best = min(best, joined(up(b * hk * parts, s.multiprocessors) * item / s.frequency_hz, parts))
        found = attention.decode_times(
            s, k, b, h, hk, length, d, kv_bytes=size, value_elements=dv, values_in_keys=inside, window=window, cold=cold
        )
        assert float(found.latency_s) == pytest.approx(best + k.launch_s * clock, rel=EXACT)
        assert (float(found.dram_bytes), float(found.dram_s)) == pytest.approx((dram_bytes, dram), rel=EXACT)
    same = attention.decode_times(s, k, 2, 8, 4, 300, 128)
    assert float(same.latency_s) == float(attention.decode_times(s, k, 2, 8, 4, 300, 128, value_elements=128).latency_s)


def keys_of_blocks(queries: int, keys: int, window: int, causal: bool, block: int) -> tuple[float, float]:
    """Mean and most keys of a block of queries: a block ends at a query that sees the keys up to itself, until the window (and
    the block's other queries, which see older keys) or the last key ends that; half a block of keys more on the diagonal.
    """
    if not causal:
        return keys + 32.0, keys + 32.0
    seen = []
    widest = min(window, keys) if window else keys
    for number in range(1, up(queries, block) + 1):
        last = keys - queries + number * block
        seen.append(last if last <= widest else min(keys, widest + block - 1))
    return sum(seen) / len(seen) + 32.0, min(min(keys, widest + block - 1) + 32.0, widest + block)


@pytest.mark.parametrize("seed", range(CASES))
def test_prefill_attention(seed: int) -> None:
    rng = random.Random(seed)
    s, k = sheet(rng), drawn(PrefillKernel, rng)
    for _ in range(8):
        b, hk, group, fmt = rng.choice([1, 2, 9]), rng.choice([1, 2, 8]), rng.choice([1, 4]), rng.choice(["bf16", "fp8"])
        h, d, dv = hk * group, rng.choice([64, 128, 192]), rng.choice([64, 128])
        q = rng.choice([1, 64, 100, 128, 1000, 4096])
        length, window, causal = q + rng.choice([0, 0, 77, 5000]), rng.choice([0, 0, 50, 512]), rng.random() < 0.7
        qb, kb, writes = rng.choice([1.0, 2.0]), rng.choice([1.0, 2.0]), rng.random() < 0.5
        moved = b * q * h * (d * qb + dv * 2) + b * length * hk * (d + dv) * kb
        traffic = moved * missed(moved, s.l2_bytes / (1 if s.l2_partitions == 1 else 2))
        dram = traffic / (s.dram_bytes_per_s * k.dram_efficiency)
        best = math.inf
        rate = s.macs_per_cycle * s.rates[fmt] * k.tensor_efficiency * clock_share(s)
        pair = math.hypot((d + dv) / rate, k.exponential_cycles / 64)
        packed = group if k.packs_groups or (k.packs_single and q == 1) else 1  # query heads of a KV head in one block
        for block in (64, 128):
            mean, most = keys_of_blocks(q, length, window, causal, block / packed)
            items = b * h / packed * up(q * packed, block) / s.multiprocessors
            item, longest = (block * keys * pair + k.item_cycles for keys in (mean, most))
            busy = longest if items <= 1 else max(longest, (items + 0.5) * item)
            best = min(best, ((busy / s.frequency_hz) ** k.overlap + dram**k.overlap) ** (1 / k.overlap))
        handled = hk + (h if k.prepares_queries else 0)
        stored = b * q * handled * (d + dv) / 256 * k.cache_cycles / s.multiprocessors / s.frequency_hz
        stored = stored if writes else 0.0
        found = attention.prefill_times(
            s, k, b, h, hk, q, d, keys=length, value_elements=dv, window=window, causal=causal, number_format=fmt, query_bytes=qb,
            kv_bytes=kb, writes_cache=writes,
        )  # fmt: skip
        assert float(found.latency_s) == pytest.approx(best + stored + k.launch_s, rel=EXACT)
        assert (float(found.dram_bytes), float(found.dram_s)) == pytest.approx((traffic, dram), rel=EXACT)


@pytest.mark.parametrize("seed", range(CASES))
def test_mixtures(seed: int) -> None:
    """Two grouped products over the tokens of each expert, with one tile for all; what the experts get is tested beside this."""
    rng = random.Random(seed)
    s, p, k = sheet(rng), drawn(ProductKernel, rng), drawn(MixtureKernel, rng)
    for _ in range(4):
        tokens, hidden, inner = rng.choice([1, 7, 64, 90, 300, 3000]), rng.choice([512, 2048, 5000]), rng.choice([256, 1408])
        experts, ranks = rng.choice([8, 60, 160]), rng.choice([1, 4])
        in_turn = rng.choice([None, 3.5])
        chosen, gated, exponent, fmt = rng.choice([1, 2, 6]), rng.random() < 0.5, rng.choice([0.0, 1.0, 1.2]), rng.choice(["bf16", "fp8"])
        a_bytes, w_bytes = rng.choice([1.0, 2.0]), rng.choice([0.5, 1.0, 2.0])
        load = mixtures.expert_tokens(tokens, experts, chosen, ranks, exponent)
        active, local = sum(x > 0 for x in load), sum(load)
        held = s.l2_bytes / (1 if s.l2_partitions == 1 else 2)
        slice_k = 32 if s.tensor_core is TensorCore.SYNCHRONOUS else 64
        total = k.launch_s
        if experts > 128:
            total += k.top_k_s + tokens * k.top_k_cycles / s.multiprocessors / s.frequency_hz
        resident = (active if in_turn is None else in_turn) * (3 if gated else 2) * inner * hidden * w_bytes
        for n, depth in (((2 if gated else 1) * inner, hidden), (hidden, inner)):
            weights, passing = active * n * depth * w_bytes, local * depth * a_bytes
            traffic = weights * missed(resident + passing, held) + passing * missed(weights + passing, held)
            dram = traffic / (s.dram_bytes_per_s * k.dram_efficiency)
            rate = s.macs_per_cycle * s.rates[fmt] * p.tensor_efficiency * clock_share(s) * k.rate_factor
            best = math.inf
            for tm in (16, 32, 64, 128, 256):
                for tn in (32, 64, 128, 256):
                    older = (16, 32) if tokens <= len(load) else (64, 64)
                    newer = (16 if tokens <= 32 else 32 if tokens <= 96 else 64 if tokens <= 512 else 128, 64 if tokens <= 64 else 128)
                    if (tm, tn) != (newer if k.tiles_by_tokens else older) if k.triton else tn < 64:
                        continue
                    waves = up(sum(up(x, tm) for x in load) * up(n, tn), s.multiprocessors)
                    staged = (tm * a_bytes + tn * w_bytes) / port_bytes(s, 64 * p.port_efficiency)
                    write = min(tm, local / max(active, 1)) * tn * 2 / p.out_bytes_per_cycle
                    busy = waves * (k.item_cycles + slice_k * up(depth, slice_k) * max(tm * tn / rate, staged) + write) / s.frequency_hz
                    best = min(best, (busy**p.overlap + dram**p.overlap) ** (1 / p.overlap))
            total += best
        carried = tokens * chosen if k.triton else local
        total += k.activation_factor * carried * (2 * hidden + 6 * inner) / s.dram_bytes_per_s
        found = mixtures.mixture_times(
            s, p, k, [load], tokens, hidden, inner, experts, chosen, gated=gated, number_format=fmt, activation_bytes=a_bytes,
            weight_bytes=w_bytes, in_turn=in_turn,
        )  # fmt: skip
        assert float(found.latency_s[0]) == pytest.approx(total, rel=EXACT)


SHARES = [(1, 8, 2, 1), (64, 60, 6, 4), (1000, 8, 2, 8), (37, 7, 7, 2), (500, 128, 8, 1)]


@pytest.mark.parametrize("exponent", [0.0, 0.9, 1.0, 1.2])
@pytest.mark.parametrize(
    ("tokens", "experts", "chosen", "ranks"), [(1, 8, 2, 1), (64, 60, 6, 4), (1000, 8, 2, 8), (37, 7, 7, 2), (500, 128, 8, 1)]
)
def test_tokens_of_experts(tokens: int, experts: int, chosen: int, ranks: int, exponent: float) -> None:
    """All ranks together get tokens x chosen, no expert more than there are tokens; the rank is the one with most."""
    every = mixtures.expert_tokens(tokens, experts, chosen, 1, exponent)
    assert sum(every) == tokens * chosen and max(every) <= tokens and all(x == int(x) >= 0 for x in every)
    one = mixtures.expert_tokens(tokens, experts, chosen, ranks, exponent)
    each = experts // ranks
    by_rank = [every[i * each : (i + 1) * each] for i in range(ranks)]
    assert len(one) == each and sum(one) == max(map(sum, by_rank)) and one in by_rank
    if exponent == 0:
        assert max(every) - min(every) <= 1
        return
    # Unequal: the quantiles of the power law x^-exponent on [1, 0.8 x tokens] where no cap binds.
    if chosen * 0.8 < 0.9 and tokens > 100:
        assert max(every) > 2 * sorted(every)[len(every) // 2]


def test_quantiles_of_the_power_law() -> None:
    """Numerically: the share of mass below a quantile of x^-a on [1, h] is that quantile's own number."""
    for exponent in (0.5, 1.0, 1.2, 2.0):
        found = mixtures._power_law(9, 50.0, exponent)
        x = np.linspace(1, 50, 2_000_001)
        mass = np.cumsum(x**-exponent)
        share = np.interp(found, x, mass / mass[-1])
        assert share == pytest.approx((np.arange(9) + 0.5) / 9, abs=1e-4)  # the trapezoids of the numeric integral


@pytest.mark.parametrize("seed", range(CASES))
def test_row_kernels(seed: int) -> None:
    rng = random.Random(seed)
    s, k = sheet(rng), drawn(RowKernel, rng)
    for moved in (0.0, 0.3 * s.l2_bytes, s.l2_bytes, 1.2 * s.l2_bytes, 3 * s.l2_bytes):
        far = moved * missed(moved, s.l2_bytes)
        rate = s.dram_bytes_per_s * k.dram_efficiency
        alone = k.launch_s * 1.6e9 / s.frequency_hz + far / rate + (moved - far) / (rate * k.cache_factor)
        assert [float(x) for x in rows.row_kernel_times(s, k, moved)] == pytest.approx([alone, far], rel=EXACT, abs=1e-20)
        assert [float(x) for x in rows.row_kernel_times(s, k, moved, fused=True)] == pytest.approx([far / rate, far], rel=EXACT, abs=1e-20)
