"""Fused attention: never more traffic than the three operations it replaces, bound by memory where it should be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workloads
from hw_models import spaces as templates
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs.attention import query_tile
from hw_models.costs.evaluate import evaluate, unit_costs
from hw_models.errors import HardwareError
from workloads.ops import Kind, Operation, OperationTable

KNOBS = {"cores": 4, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}


def design(**change: object) -> AcceleratorBatch:
    return templates.load("edge22").batch(**(KNOBS | change))  # type: ignore[arg-type]


def attention(m: int, n: int, head: int, heads: int, *, share: int = 1, decode: bool = False, **more: object) -> OperationTable:
    kind = Kind.ATTENTION_DECODE if decode else Kind.ATTENTION_PREFILL
    fields = {"batch": heads, "v_dim": head, "kv_share": share, "function": "softmax", "second_is_cache": decode} | more
    return OperationTable.from_rows([Operation("attention", kind, m, n, head, **fields)])  # type: ignore[arg-type]


def unfused(m: int, n: int, head: int, heads: int, *, share: int = 1) -> OperationTable:
    kv = heads // share
    return OperationTable.from_rows(
        [
            Operation("scores", Kind.GEMM, m * share, n, head, batch=kv),
            Operation("softmax", Kind.SOFTMAX, heads * m, n, function="softmax"),
            Operation("context", Kind.GEMM, m * share, head, n, batch=kv),
        ]
    )


def test_query_tile_by_brute_force() -> None:
    for rows in (1, 7, 64):
        for head, block, capacity in ((16, 8, 500), (128, 64, 20_000), (128, 64, 100)):
            found = query_tile(np.array([rows]), np.array([float(head)]), np.array([float(block)]), np.array([float(capacity)]))
            fitting = [t for t in range(1, rows + 1) if t * (head + block) + block * head <= capacity]
            assert found[0] == max(fitting, default=1)


def test_traffic_of_a_tile_that_holds_everything() -> None:
    # Keys and values of one head fit the chip many times: every operand crosses the DRAM once.
    unit = unit_costs(attention(512, 512, 64, 12), design())
    assert unit.dram_bytes[0, 0] == 4 * 12 * 512 * 64


def test_traffic_of_long_sequences_by_hand() -> None:
    batch = design(glb_mib=2, cores=1, l2_kib=64)
    m = n = 65536
    unit = unit_costs(attention(m, n, 64, 1), batch)
    capacity = 2 * 2**20 / 2  # half of the buffer, the other half being filled
    tile = np.floor((capacity - 64 * 128) / (128 + 64))
    passes = np.ceil(m / tile)
    assert passes > 10
    assert unit.dram_bytes[0, 0] == m * 64 * 2 + 2 * n * 64 * passes


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 300),
    n=st.integers(1, 300),
    head=st.sampled_from([16, 64, 128]),
    kv=st.integers(1, 4),
    share=st.sampled_from([1, 2, 4]),
)
def test_fused_moves_no_more_than_unfused(m: int, n: int, head: int, kv: int, share: int) -> None:
    batch = design()
    fused = unit_costs(attention(m, n, head, kv * share, share=share), batch)
    parts = unit_costs(unfused(m, n, head, kv * share, share=share), batch)
    assert fused.dram_bytes[0, 0] <= parts.dram_bytes[:, 0].sum() * (1 + 1e-12)
    assert fused.latency_s[0, 0] <= parts.latency_s[:, 0].sum() * (1 + 1e-12)
    # The array does the same work; rescaling the output is what fusing costs, in the vector unit.
    assert fused.array_s[0, 0] == pytest.approx(float(parts.array_s[:, 0].sum()), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(2, 400), head=st.sampled_from([32, 64]), heads=st.integers(1, 8))
def test_causal_work_is_that_of_the_visible_pairs(m: int, head: int, heads: int) -> None:
    full, causal = (attention(m, m, head, heads, causal=flag) for flag in (False, True))
    all_pairs, seen = (unit_costs(t, design()) for t in (full, causal))
    share = float(causal.attention_pairs()[0]) / (m * m)
    assert seen.array_s[0, 0] == pytest.approx(float(all_pairs.array_s[0, 0]) * share, rel=1e-12)
    assert seen.latency_s[0, 0] <= all_pairs.latency_s[0, 0]
    assert seen.energy_j[0, 0] <= all_pairs.energy_j[0, 0]


def test_decode_reads_the_cache_and_waits_for_memory() -> None:
    table = attention(1, 4096, 128, 32, share=4, decode=True)
    unit = unit_costs(table, design(width=256, depth=64))
    cache = 32 // 4 * 4096 * 2 * 128
    assert unit.dram_bytes[0, 0] == cache + 2 * 32 * 128
    assert unit.latency_s[0, 0] >= cache / 80e9
    narrow = unit_costs(table, design(width=256, depth=64, kv_bits=4))
    assert narrow.dram_bytes[0, 0] == cache / 2 + 2 * 32 * 128


@settings(max_examples=25, deadline=None)
@given(m=st.integers(1, 2000), knob=st.sampled_from(["l2_kib", "glb_mib", "dram_bytes_per_s", "glb_words_per_cycle"]))
def test_more_memory_or_bandwidth_is_never_slower(m: int, knob: str) -> None:
    base = {"l2_kib": 64, "glb_mib": 2, "dram_bytes_per_s": 20e9, "glb_words_per_cycle": 128}
    less, more = (design(**(base | {knob: base[knob] * f})) for f in (1, 2))
    table = attention(m, m, 64, 4)
    slow, fast = unit_costs(table, less, criterion="latency"), unit_costs(table, more, criterion="latency")
    assert fast.latency_s[0, 0] <= slow.latency_s[0, 0] * (1 + 1e-12)
    assert fast.dram_bytes[0, 0] <= slow.dram_bytes[0, 0]


def test_bert_gains_by_fusing() -> None:
    family = workloads.load("bert")
    plain, fused = (evaluate(design(), family.build(fused_attention=flag)) for flag in (False, True))
    assert fused.latency_s < plain.latency_s
    assert fused.dram_bytes < plain.dram_bytes
    assert fused.energy_j < plain.energy_j
    assert fused.macs == plain.macs


def test_the_compatibility_profile_has_no_fused_attention() -> None:
    batch = templates.load("edge22", profile="catransformers22").batch(**KNOBS)
    with pytest.raises(HardwareError, match="fused_attention=False"):
        unit_costs(attention(8, 8, 8, 1), batch)
