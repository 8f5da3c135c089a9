"""Costs beside the mapping search, one operation on one design at a time in plain numbers: what a page of the documentation says, at uneven
sizes, on two designs at once so that no column is taken for another."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import workloads
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Launch
from hw_models.costs import board_power, chips, gpu, kernels, pipeline, precision, products, vector
from hw_models.costs.attention import attention_parts
from hw_models.costs.collectives import Link, all_gather, all_reduce, all_to_all, hierarchical_all_reduce, reduce_scatter, ring_all_reduce
from hw_models.costs.cpu import cpu_times
from hw_models.costs.evaluate import evaluate, expert_bytes, held_bytes, required_bytes, unit_costs
from hw_models.costs.gpu_kernels import attention as gpu_attention
from hw_models.costs.gpu_kernels import mixtures
from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.operations import KernelTimes, kernel_times
from hw_models.costs.gpu_kernels.parameters import family
from hw_models.costs.gpu_kernels.sheet import sheet_of
from hw_models.costs.mapping import loop_nest
from hw_models.costs.one_design import Evaluator
from hw_models.costs.sparse import COUNTED_LINE_BYTES, home_level, level_latency_s, score_cycles, sparse_costs
from hw_models.costs.unit_costs import empty_costs, peak_dynamic_w, slowest
from hw_models.costs.vector import lane_pj
from hw_models.devices import library
from hw_models.spaces import load, template
from hw_models.technology.tables import dram
from workloads.blocks import Bits
from workloads.moe import active_experts, moe_rows
from workloads.ops import Kind, Operation, OperationTable, Parallel

EDGE = load("edge22")
H100 = library.load("h100").accelerator


def near(value: Any, rel: float = 1e-12) -> Any:
    return pytest.approx(value, rel=rel)


def edge(**settings: Any) -> AcceleratorBatch:
    """Two designs that differ in every size."""
    knobs = {"cores": [2, 4], "width": [32, 64], "depth": [16, 8], "l2_kib": [64, 256], "l2_words_per_cycle": [32, 64], "glb_mib": [2, 4]}
    return EDGE.batch(**{name: np.array(values) for name, values in knobs.items()}, **settings)


def rows(*operations: Operation) -> OperationTable:
    return OperationTable.from_rows(list(operations))


# ---- the record ----


def test_the_slowest_of_several_is_the_first_of_equals() -> None:
    latency, which = slowest([np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 2.0]), np.array([0.5, 5.0, 7.0])])
    assert latency.tolist() == [1.0, 5.0, 7.0] and which.tolist() == [0, 1, 2]


def test_power_of_what_runs() -> None:
    """Energy over time of each operation that a model runs; one without time has none, one that never runs counts for nothing."""
    unit = replace(
        empty_costs(3, edge()),
        latency_s=np.array([[2.0, 1.0], [0.0, 4.0], [1.0, 1.0]]),
        energy_j=np.array([[3.0, 7.0], [9.0, 2.0], [50.0, 60.0]]),
    )
    index, runs = np.array([[0, 1, 2], [2, 0, 1]]), np.array([[True, True, False], [True, False, False]])
    assert peak_dynamic_w(index, runs, unit).tolist() == [[1.5, 7.0], [50.0, 60.0]]


# ---- boards ----


@pytest.mark.parametrize("clock", [1.0, 0.83])
def test_the_energy_of_a_board_written_out(clock: float) -> None:
    batch = library.load("h100").accelerator.batch()
    two = library.load("l4").accelerator.batch()
    for one in (batch, two):
        board, limit = board_power.board_energy(one, clock), float(one.tdp_w[0])
        memory = dram(one.level_kinds[-1]).pj_per_byte * 1e-12
        left = limit * 0.85 - float(one.leakage_w[0]) - 0.3 * float(one.dram_bytes_per_s[0]) * (memory + 60e-12)
        mac = max(left, 0.1 * limit) / (float(one.tops[0]) * 0.5e12 * 0.9 * clock) / clock**2
        wanted = (float(one.leakage_w[0]), limit, limit * 0.15 / clock**3, memory + 60e-12 / clock**2, mac)
        assert tuple(float(x[0]) for x in (board.idle_w, board.limit_w, board.active_w, board.byte_j, board.mac_j)) == near(wanted)
        work = np.array([[0.0], [1e9], [1e15]])
        spent = board_power.dynamic_j(one, np.full((3, 1), 0.37), work, np.full((3, 1), 1.7e8), clock)[:, 0]
        parts = [0.37 * wanted[2] + macs * mac + 1.7e8 * wanted[3] for macs in work[:, 0]]
        assert spent.tolist() == [near(min(part, (limit - wanted[0]) * 0.37)) for part in parts]
    several = replace(library.load("h100").accelerator, chips=4).batch()
    alone, shared = board_power.board_energy(batch), board_power.board_energy(several)
    assert all(float(getattr(shared, n)[0]) == near(float(getattr(alone, n)[0])) for n in ("idle_w", "active_w", "byte_j", "mac_j"))


# ---- kernels ----


def times(latency: list[float], bound: list[int]) -> KernelTimes:
    column = np.array(latency)
    return KernelTimes(column, column / 2, column / 3, column * 1e9, column, np.ones(len(latency)), np.array(bound))


LISTED = rows(
    Operation("p", Kind.GEMM, 8, 8, 8, second_is_weight=True),
    Operation("gelu", Kind.ACTIVATION, 8, 8, function="gelu"),
    Operation("gate", Kind.ELEMENTWISE, 8, 8, function="mul", operands=2),
    Operation("norm", Kind.NORM, 8, 8, function="layernorm"),
    Operation("sum", Kind.COLLECTIVE, 8, 8, function="all_reduce"),
    Operation("expert", Kind.GEMM, 8, 8, 8, second_is_weight=True, moe_experts=8, moe_chosen=2, moe_tokens=8, moe_active=4, moe_joined=2),
)


def test_launches_of_the_host_and_times_of_ones_own_machine() -> None:
    """A call takes 13.2 us to issue, that of an expert a share of it; a function inside a kernel and an exchange are no calls."""
    found = kernels._issued(times([1e-6, 1e-6, 2e-5, 0.0, 1e-6, 1e-6], [0, 1, 1, 0, 1, 0]), LISTED)
    assert found.latency_s.tolist() == near([1.32e-5, 1e-6, 2e-5, 0.0, 1e-6, 1.32e-5 / 4])
    assert found.bound.tolist() == [2, 1, 1, 0, 1, 2]
    launched = kernels._launched(times([1e-6, 1e-6, 2e-5, 0.0, 1e-6, 1e-6], [0] * 6), LISTED)
    assert launched.tolist() == [True, False, True, False, False, True]
    base = times([1e-6, 3e-6, 2e-5, 0.0, 5e-6, 7e-6], [0] * 6)
    measured = replace(H100, product_scale=1.7, vector_scale=0.6, product_fixed_s=3e-6, vector_fixed_s=5e-6).batch()
    own = kernels._calibrated(base, LISTED, measured, 0)
    assert own.latency_s.tolist() == near([1.7e-6 + 3e-6, 1.8e-6, 1.2e-5 + 5e-6, 0.0, 3e-6, 1.19e-5 + 3e-6])
    assert own.compute_s.tolist() == near((base.compute_s * np.array([1.7, 0.6, 0.6, 0.6, 0.6, 1.7])).tolist())
    assert own.dram_s.tolist() == near((base.dram_s * np.array([1.7, 0.6, 0.6, 0.6, 0.6, 1.7])).tolist())
    assert kernels._calibrated(base, LISTED, H100.batch(), 0) is base
    for name, value in (("product_scale", 1.1), ("vector_scale", 1.1), ("product_fixed_s", 1e-6), ("vector_fixed_s", 1e-6)):
        assert kernels._calibrated(base, LISTED, replace(H100, **{name: value}).batch(), 0) is not base


def test_kernels_as_unit_costs() -> None:
    """Columns of the record from the times of the kernels, the second of two designs among others; energy by the board's rule."""
    batch = replace(H100, launch=Launch.EAGER).batch()
    found, costs = kernels.times_of(LISTED, batch, 0), empty_costs(6, batch)
    kernels.kernel_costs(LISTED, batch, np.array([0]), costs)
    assert (found.latency_s[[0, 2, 3]] >= 1.32e-5).all()
    tensor = np.array([True, False, False, False, False, True])
    assert costs.latency_s[:, 0].tolist() == found.latency_s.tolist() and costs.dram_bytes[:, 0].tolist() == found.dram_bytes.tolist()
    assert costs.array_s[:, 0].tolist() == np.where(tensor, found.compute_s, 0.0).tolist()
    assert costs.vector_s[:, 0].tolist() == np.where(tensor, 0.0, np.maximum(found.compute_s, found.dram_s)).tolist()
    names = [("compute", batch.level_names[-1], "launch")[b] for b in found.bound]
    assert [costs.bound_names[b] for b in costs.bound[:, 0]] == names and "launch" in names
    energy = board_power.dynamic_j(
        batch, found.latency_s[:, None], (found.macs / found.rate)[:, None], found.dram_bytes[:, None], kernels._clock(batch, 0)
    )
    assert costs.energy_j[:, 0].tolist() == near(energy[:, 0].tolist())
    server = library.load("server-cpu").accelerator.batch()
    assert kernels._clock(server, 0) == 1.0
    assert kernels.times_of(LISTED.take([0, 1]), server, 0).latency_s.tolist() == near(
        cpu_times(LISTED.take([0, 1]), sheet_of(server, 0)).latency_s.tolist()
    )


@pytest.mark.parametrize(("window", "share", "values"), [(0, 1, 0), (0, 4, 64), (100, 2, 0), (999, 8, 0)])
@pytest.mark.parametrize("warm", [False, True])
def test_attention_rows_are_kernels_of_their_heads(window: int, share: int, values: int, warm: bool) -> None:
    """Queries times batch and heads, heads over their share, keys up to the window."""
    sheet, v = sheet_of(H100.batch(), 0), values or 128
    chosen = choice(sheet)
    common: dict[str, Any] = {"batch": 24, "kv_share": share, "v_dim": v, "window": window, "function": "softmax", "second_is_cache": True,
                              "input_bits": 16, "weight_bits": 16, "output_bits": 16}  # fmt: skip
    found = kernel_times(rows(Operation("d", Kind.ATTENTION_DECODE, 3, 517, 128, **common)), sheet, warm=warm)
    wanted = gpu_attention.decode_times(
        sheet, family(chosen.decode("bf16"), kind="decode"), 1, 72, 24 // share, min(window, 517) if window else 517, 128, value_elements=v,
        cold=not warm,
    )  # fmt: skip
    for name in ("latency_s", "compute_s", "dram_s", "dram_bytes"):
        assert float(getattr(found, name)[0]) == near(float(getattr(wanted, name)))
    row = Operation("f", Kind.ATTENTION_PREFILL, 211, 517, 128, causal=True, **common)
    found = kernel_times(rows(row), sheet)
    wanted = gpu_attention.prefill_times(
        sheet, family(chosen.prefill("bf16"), kind="prefill"), 1, 24, 24 // share, 211, 128, keys=517, value_elements=v, window=window,
        causal=True, number_format="bf16", writes_cache=True,
    )  # fmt: skip
    assert float(found.latency_s[0]) == near(float(wanted.latency_s))


@pytest.mark.parametrize("imbalance", [1.0, 2.7])
@pytest.mark.parametrize(("ranks", "replicas"), [(1, 1), (4, 1), (4, 2)])
def test_products_of_experts_share_out_the_layer(imbalance: float, ranks: int, replicas: int) -> None:
    """Gate and up half of the first product each, down the second; fixed time and activations in thirds; all over experts with work."""
    sheet = sheet_of(H100.batch(), 0)
    listed = moe_rows(
        hidden=1024, expert_ffn=384, experts=16, top_k=2, tokens=37, bits=Bits(16, 16, 16), repeat=1, activation="silu", imbalance=imbalance
    )
    table = OperationTable.from_rows(listed)
    at = np.flatnonzero(table.moe_joined > 0)
    found = kernel_times(table, sheet, expert_ranks=ranks, replicas=replicas)
    active = int(table.moe_active[at[0]])
    work = active if replicas == 1 else active_experts(37 * replicas, 16, 2, imbalance)
    loads = mixtures.layer_loads(37 * replicas, 16, 2, work, ranks, imbalance)
    layer = mixtures.mixture_times(
        sheet, family(choice(sheet).product, kind="product"), family(choice(sheet).mixture("bf16"), kind="mixture"), [loads], 37 * replicas,
        1024, 384, 16, 2, cold=True,
    )  # fmt: skip
    third = (float(layer.fixed_s[0]) + float(layer.passing_s[0])) / 3
    for row in at.tolist():
        down = table.moe_joined[row] == 1
        part = layer.second if down else layer.first
        share = (1.0 if down else 0.5) / active
        assert found.latency_s[row] == near(float(part.latency_s[0]) * share + third / active)
        assert found.compute_s[row] == near(float(part.compute_s[0]) * share)
        assert found.dram_s[row] == near(float(part.dram_s[0]) * share + float(layer.passing_s[0]) / 3 / active)
        assert found.dram_bytes[row] == near(float(part.dram_bytes[0]) * share + float(layer.passing_bytes[0]) / 3 / active)
        assert found.macs[row] == near(sum(loads) * 1024 * 384 / active)


# ---- chips ----


@pytest.mark.parametrize(("ranks", "replicas"), [(8, 1), (4, 1), (2, 1), (16, 4)])
@pytest.mark.parametrize("imbalance", [1.0, 2.7])
def test_experts_dealt_over_ranks(ranks: int, replicas: int, imbalance: float) -> None:
    """Whole experts to ranks, cut over the chips of a rank alone; of several replicas a rank's experts have all tokens."""
    count = ranks // replicas if replicas > 1 else 8
    listed = moe_rows(
        hidden=1024, expert_ffn=384, experts=16, top_k=2, tokens=37, bits=Bits(16, 16, 16), repeat=1, activation="silu", imbalance=imbalance
    )
    table = OperationTable.from_rows(listed).distinct(parallel=True).table
    dealt = chips.shares(table, count, ranks)
    inside = max(count // ranks, 1)
    for row in np.flatnonzero(table.moe_joined > 0).tolist():
        active = active_experts(37 * max(ranks // count, 1), 16, 2, max(round(1000 * imbalance), 1000) / 1000)
        here = int(table.moe_active[row])
        fuller = max(ranks // count, 1) * here / active
        assert dealt.time_share[row] == near(math.ceil(active / ranks) / here)
        assert dealt.table.m[row] == math.ceil(int(table.m[row]) * fuller - 1e-9)
        assert dealt.table.k[row] * dealt.table.n[row] <= math.ceil(int(table.k[row]) * int(table.n[row]) / inside) + max(
            int(table.k[row]), int(table.n[row])
        )
    others = table.moe_joined == 0
    assert (dealt.time_share[others] == 1.0).all() and (dealt.table.m[others] <= table.m[others]).all()


INNER, OUTER = Link(1.1e-6, 3.7e11, 7.0, 3e-6), Link(5.3e-6, 4.1e10, 7.0)
SIZES = np.array([10_007, 3_000_001])


@pytest.mark.parametrize(
    ("name", "closed"),
    [("all_gather", all_gather), ("reduce_scatter", reduce_scatter), ("all_to_all", all_to_all), ("all_reduce", all_reduce)],
)
def test_collectives_inside_and_between_nodes(name: str, closed: Any) -> None:
    one = chips._between(name, SIZES, chips.Links(INNER, None, 6, 1))
    assert (
        one.latency_s.tolist() == closed(SIZES, 6, INNER).latency_s.tolist()
        and one.energy_j.tolist() == closed(SIZES, 6, INNER).energy_j.tolist()
    )
    found = chips._between(name, SIZES, chips.Links(INNER, OUTER, 4, 3))
    if name == "all_reduce":
        wanted = hierarchical_all_reduce(SIZES, 4, 3, INNER, OUTER)
        assert found.latency_s.tolist() == wanted.latency_s.tolist() and found.energy_j.tolist() == wanted.energy_j.tolist()
        return
    within, piece = closed(SIZES, 4, INNER), SIZES if name == "all_to_all" else -(-SIZES // 4)
    across = closed(piece, 3, OUTER)
    assert found.latency_s.tolist() == near((within.latency_s + across.latency_s).tolist())
    assert found.energy_j.tolist() == near((3 * within.energy_j + 4 * across.energy_j).tolist())
    assert found.link_bytes.tolist() == (3 * within.link_bytes + 4 * across.link_bytes).tolist()
    assert np.broadcast_to(found.steps, 2).tolist() == np.broadcast_to(within.steps + across.steps, 2).tolist()


def test_links_of_a_design_and_of_its_nodes() -> None:
    """Nodes are filled one after the other; within one node there is no way between."""
    values = np.array([1.1e-6, 3.7e11, 7.0, 3e-6, 4.0, 4.1e10, 5.3e-6])
    names = [*chips.LINKS, *chips.NODE]
    assert len(names) == len(values)
    for count, inside, nodes in ((3, 3, 1), (4, 4, 1), (5, 4, 2), (12, 4, 3), (13, 4, 4)):
        found = chips.Links.of(values, count)
        assert (found.inside, found.nodes, found.outer is None) == (inside, nodes, nodes == 1)
        assert found.inner.bandwidth_bytes_per_s == 3.7e11 and (
            nodes == 1 or (found.outer.latency_s, found.outer.bandwidth_bytes_per_s) == (5.3e-6, 4.1e10)
        )
    assert chips.Links.of(np.array([*values[:4], 0.0, 0.0, 0.0]), 12).outer is None
    for at in (1, 5):
        bad = values.copy()
        bad[at] = 0.0
        with pytest.raises(Exception, match="bytes_per_s"):
            chips.Links.of(bad, 12)


@pytest.mark.parametrize("name", ["all_gather", "reduce_scatter", "all_to_all", "all_reduce"])
def test_kernels_of_collectives_inside_and_ways_between(name: str) -> None:
    batch = replace(H100, chips=8).batch()
    links = chips.Links(INNER, OUTER, 4, 3)
    alone = kernels.collective_s(batch, 0, name, SIZES, 4)
    assert chips._kernel_s(batch, 0, name, SIZES, chips.Links(INNER, None, 4, 1)).tolist() == alone.tolist()
    piece = -(-SIZES // 4)
    if name == "all_reduce":
        inside = kernels.collective_s(batch, 0, "reduce_scatter", SIZES, 4) + kernels.collective_s(batch, 0, "all_gather", SIZES, 4)
        wanted = inside + ring_all_reduce(piece, 3, OUTER).latency_s
    else:
        wanted = alone + chips.COLLECTIVES[name](SIZES if name == "all_to_all" else piece, 3, OUTER).latency_s
    assert chips._kernel_s(batch, 0, name, SIZES, links).tolist() == near(wanted.tolist())


def test_what_is_sent_to_experts_of_other_replicas() -> None:
    """The dispatch and the scaled results of routed experts, and nothing else."""
    moe = {"moe_experts": 8, "moe_chosen": 2, "moe_tokens": 8, "moe_active": 4}
    listed = [
        Operation("dispatch", Kind.GATHER, 8, 8, **moe), Operation("gather", Kind.GATHER, 8, 8),
        Operation("scale", Kind.ELEMENTWISE, 8, 8, function="mul", parallel=Parallel.REPLICATED, **moe),
        Operation("add", Kind.ELEMENTWISE, 8, 8, function="add", parallel=Parallel.REPLICATED, **moe),
        Operation("inside", Kind.ELEMENTWISE, 8, 8, function="mul", parallel=Parallel.COLUMN, **moe),
        Operation("topk", Kind.TOPK, 8, 8, 2, **moe), Operation("silu", Kind.ACTIVATION, 8, 8, function="silu", **moe),
        Operation("scan", Kind.SCAN, 8, 8, 8, **moe), Operation("norm", Kind.NORM, 8, 8, function="layernorm", **moe),
    ]  # fmt: skip
    assert chips._sent(rows(*listed)).tolist() == [True, False, True] + [False] * 6


def test_designs_by_chips_and_ranks() -> None:
    found = chips.groups(np.array([2, 1, 2, 2, 1]), np.array([1, 1, 2, 1, 1]))
    assert [(c, e, at.tolist()) for c, e, at in found] == [(1, 1, [1, 4]), (2, 1, [0, 3]), (2, 2, [2])]


# ---- pipelines ----


def test_a_pipeline_written_out() -> None:
    """Two designs, one of three stages that spans nodes, one of a single stage; two models of 7 and 10 layers."""
    space = load("datacenter")
    knobs = {name: values[0] for name, values in space.knobs.items()}
    several = space.batch(
        **{**knobs, "chips": 4},
        pipeline_stages=3,
        data_parallel=2,
        microbatches=2,
        node_chips=8,
        node_bytes_per_s=3.1e10,
        node_latency_s=5.3e-6,
    )
    near_by = space.batch(**{**knobs, "chips": 4}, pipeline_stages=2, node_chips=8, node_bytes_per_s=3.1e10, node_latency_s=5.3e-6)
    alone = space.batch(**{**knobs, "chips": 1})
    passes = pipeline.Passes(np.array([7.0, 10.0]), np.array([5.0, 1.0]), np.array([10_007.0, 3_000_001.0]))
    time = np.array([[0.37], [1.9]])
    for hardware, stages, rate, wait in (
        (several, 3, 3.1e10, 5.3e-6),
        (near_by, 2, float(near_by.link_bytes_per_s[0]), float(near_by.link_latency_s[0])),
        (alone, 1, 1.0, 0.0),
    ):
        chips_of = int(hardware.chips[0])
        hop = [wait + math.ceil(size / chips_of) / rate if stages > 1 else 0.0 for size in passes.hop_bytes.tolist()]
        assert pipeline.hop_s(hardware, passes.hop_bytes)[:, 0].tolist() == near(hop)
        sent = [
            p * s * 8e-12 * (stages - 1) * float(hardware.link_pj_per_bit[0]) for p, s in zip(passes.passes, passes.hop_bytes, strict=True)
        ]
        assert pipeline.hops_j(hardware, passes)[:, 0].tolist() == near(sent)
        batches = float(hardware.in_flight[0] / hardware.data_parallel[0])
        for i, layers in enumerate((7, 10)):
            whole, way = float(time[i, 0]), hop[i] * float(passes.passes[i])
            turn = batches * (whole * math.ceil(layers / stages) / layers + (way if stages > 1 else 0.0))
            latency = float(pipeline.latency_s(time, passes, hardware)[i, 0])
            assert latency == near(max(whole + (stages - 1) * way, turn))
            waits = float(pipeline.bubble_share(time, np.full((2, 1), latency), hardware)[i, 0])
            assert waits == near(1 - whole * batches / (stages * latency), 1e-9)
    both = passes + pipeline.Passes(np.array([9.0, 3.0]), np.array([2.0, 0.0]), np.array([7.0, 5.0]))
    assert both.layers.tolist() == [9.0, 10.0] and both.passes.tolist() == [7.0, 1.0]
    assert both.hop_bytes.tolist() == near([(5 * 10_007 + 2 * 7) / 7, 3_000_001.0])
    some = passes.take(slice(1, 2))
    assert (some.layers.tolist(), some.passes.tolist(), some.hop_bytes.tolist()) == ([10.0], [1.0], [3_000_001.0])


def test_passes_of_a_table_without_layers_and_with() -> None:
    plain = rows(
        Operation("p", Kind.GEMM, 7, 11, 13, second_is_weight=True, output_bits=12),
        Operation("q", Kind.GEMM, 3, 5, 2, second_is_weight=True, output_bits=8),
    )
    found = pipeline.passes_of(plain, 3.0)
    assert (found.layers.tolist(), found.passes.tolist(), found.hop_bytes.tolist()) == ([1.0], [3.0], [7 * 11 * 1.5])
    assert pipeline.passes_of(plain).passes.tolist() == [1.0]
    row = {"second_is_weight": True, "parallel": Parallel.ROW, "output_bits": 16}
    layered = rows(
        Operation("o", Kind.GEMM, 7, 11, 13, repeat=24, copies=6, **row),
        Operation("mlp", Kind.GEMM, 7, 99, 13, repeat=24, copies=6, **row),
        Operation("o", Kind.GEMM, 1, 11, 13, repeat=6, copies=6, **row),
        Operation("o", Kind.GEMM, 500, 11, 13, repeat=6, second_is_weight=True),
    )  # fmt: skip
    found = pipeline.passes_of(layered, 2.0)
    assert (found.layers.tolist(), found.passes.tolist()) == ([6.0], [10.0])
    assert found.hop_bytes.tolist() == near([(4 * 7 * 11 * 2 + 1 * 11 * 2) / 5])
    single = rows(Operation("o", Kind.GEMM, 7, 11, 13, repeat=5, **row))
    assert pipeline.passes_of(single).layers.tolist() == [5.0] and pipeline.passes_of(single).passes.tolist() == [1.0]


# ---- widths ----


def test_designs_by_their_widths() -> None:
    batch = edge(weight_bits=np.array([4, 0]), kv_bits=np.array([0, 8]))
    assert [(widths, at.tolist()) for widths, at in precision.groups(batch)] == [((0, 0, 8), [1]), ((4, 0, 0), [0])]
    assert [(widths, at.tolist()) for widths, at in precision.groups(edge())] == [((0, 0, 0), [0, 1])]
    assert [(widths, at.tolist()) for widths, at in precision.groups(edge(activation_bits=8))] == [((0, 8, 0), [0, 1])]


def test_every_column_at_every_width() -> None:
    """Weights, activations and cache at 3, 5 and 7 bits: parameters, tables behind gathers, scores, what is written into a cache."""
    listed = rows(
        Operation("weight", Kind.GEMM, 8, 8, 8, second_is_weight=True),
        Operation("scores", Kind.GEMM, 8, 8, 8, second_is_weight=False),
        Operation("cached", Kind.GEMM, 8, 8, 8, second_is_weight=False, second_is_cache=True),
        Operation("fused", Kind.ATTENTION_DECODE, 1, 8, 8, v_dim=8, function="softmax", second_is_cache=True),
        Operation("keys", Kind.GEMM, 8, 8, 8, second_is_weight=True, writes_cache=True),
        Operation("table", Kind.EMBEDDING, 8, 8, parameters=64),
        Operation("norm", Kind.NORM, 8, 8, function="layernorm", parameters=8),
        Operation("adam", Kind.OPTIMIZER_STEP, 8, 8, function="adamw"),
    )
    found = precision.at_widths(listed, (3, 5, 7))
    columns = list(zip(found.input_bits.tolist(), found.weight_bits.tolist(), found.output_bits.tolist(), strict=True))
    same = (int(listed.input_bits[7]), int(listed.weight_bits[7]), int(listed.output_bits[7]))
    assert columns == [(5, 3, 5), (5, 5, 5), (5, 7, 5), (5, 7, 5), (5, 3, 7), (3, 3, 5), (5, 3, 5), same]
    assert precision.at_widths(listed, (0, 0, 0)) is listed
    assert (
        precision._cache_bits(found) == 7
        and precision._cache_bits(found.take([4, 5])) == 7
        and precision._cache_bits(found.take([0, 1])) == 0
    )


# ---- whole models ----


def test_rows_of_phases_that_run_several_times_add_up() -> None:
    workload = workloads.load("gpt2").build(layers=2, sequence=32, new_tokens=5)
    assert any(phase.runs != 1 for phase in workload.phases) or len(workload.phases) > 1
    workload = replace(workload, phases=tuple(replace(phase, runs=3) for phase in workload.phases))
    accelerator = EDGE.accelerator(cores=2, width=32, depth=16, l2_kib=64, l2_words_per_cycle=32, glb_mib=2)
    found, batch = evaluate(accelerator, workload), accelerator.batch()
    records = found.row_records()
    for name, whole in (
        ("latency_s", found.latency_s),
        ("energy_j", found.dynamic_j),
        ("dram_bytes", found.dram_bytes),
        ("macs", found.macs),
    ):
        assert sum(float(record[name]) for record in records) == near(float(whole), 1e-9)
    parts = found.components()
    for name in ("latency_s", "energy_j", "macs", "dram_bytes"):
        assert sum(float(part[name]) for part in parts.values()) == near(sum(float(record[name]) for record in records), 1e-9)
    for component, part in parts.items():
        by: dict[str, float] = {}
        for record in records:
            if record["component"] == component:
                by[str(record["bound"])] = by.get(str(record["bound"]), 0.0) + float(record["latency_s"])
        assert part["bound"] == max(by, key=lambda bound: by[bound])
    latency, idle = float(found.latency_s), float(batch.leakage_w[0])
    assert float(found.leakage_j) == near(idle * latency) and float(found.energy_j) == near(float(found.dynamic_j) + idle * latency)
    assert float(found.average_power_w) == near(float(found.energy_j) / latency)
    assert float(found.array_utilisation) == near(float(found.macs) / (float(batch.tops[0]) * 0.5e12 * latency))
    powers = [float(r["energy_j"]) / float(r["latency_s"]) for r in records if float(r["runs"]) > 0 and float(r["latency_s"]) > 0]
    assert float(found.peak_power_w) == near(max(powers) + idle)
    assert {str(r["phase"]) for r in records} == {phase.name for phase in workload.phases}
    assert float(found.required_bytes) == near(float(workload.weight_bytes() + workload.kv_cache_bytes() + workload.activation_bytes()))


def test_stages_and_replicas_work_at_once() -> None:
    """Peak power of all stages at their hungriest, a request's share of idle power, and rates of all chips."""
    table = rows(Operation("o", Kind.GEMM, 64, 64, 64, second_is_weight=True, parallel=Parallel.ROW, repeat=6, copies=6))
    space = load("datacenter")
    knobs = {name: values[0] for name, values in space.knobs.items()}
    one, six = (space.batch(**knobs, pipeline_stages=s, data_parallel=d) for s, d in ((1, 1), (3, 2)))
    alone, found = evaluate(one, table), evaluate(six, table)
    idle, flight = float(six.leakage_w[0]), float(six.in_flight[0])
    assert float(six.all_chips[0]) == 6 * float(one.all_chips[0]) and flight > 1
    assert float(found.peak_power_w[0]) == near(6 * (float(alone.peak_power_w[0]) - float(one.leakage_w[0])) + idle)
    latency = float(found.latency_s[0])
    assert float(found.leakage_j[0]) == near(idle / flight * latency)
    assert float(found.average_power_w[0]) == near(float(found.energy_j[0]) * flight / latency)
    assert float(found.array_utilisation[0]) == near(float(found.macs) / (float(six.tops[0]) * 0.5e12 / flight * latency))


def test_what_memory_holds() -> None:
    """Weights of each replica, experts once over those that they are dealt to, a cache a batch in flight, activations on each chip."""
    space = load("datacenter")
    knobs = {name: values[0] for name, values in space.knobs.items()} | {"chips": 2}
    hardware = space.batch(**knobs, pipeline_stages=2, data_parallel=3, expert_parallel=6)
    weights, experts, cache, held = (np.array([[value]]) for value in (1000.0, 700.0, 37.0, 11.0))
    found = float(held_bytes(weights, experts, cache, held, hardware)[0, 0])
    assert found == near(300.0 * 3 + 700.0 * 3 / 3 + 37.0 * float(hardware.in_flight[0]) + 11.0 * 12)
    near_by = space.batch(**knobs, data_parallel=3)
    assert float(held_bytes(weights, experts, cache, held, near_by)[0, 0]) == near(3000.0 + 37.0 * float(near_by.in_flight[0]) + 11.0 * 6)
    moe = {"moe_experts": 8, "moe_chosen": 2, "moe_tokens": 8, "moe_active": 4, "moe_joined": 2, "parameters": 64}
    dense, routed = (
        Operation("d", Kind.GEMM, 8, 8, 8, second_is_weight=True, parameters=64),
        Operation("e", Kind.GEMM, 8, 8, 8, second_is_weight=True, repeat=4, **moe),
    )
    assert float(expert_bytes([rows(dense)])) == 0.0
    assert float(expert_bytes([rows(dense, routed), rows(dense)])) == float(rows(routed).weight_bytes()) > 0
    table = rows(dense, routed)
    assert float(required_bytes(table, edge())[0, 0]) == near(float(table.weight_bytes() + table.activation_bytes()))


# ---- products ----


def test_shapes_of_products_and_windows_of_maps() -> None:
    """A weight's batch counts as rows, groups become a batch, an unknown filter's map is read whole."""
    listed = rows(
        Operation("weight", Kind.GEMM, 7, 11, 13, batch=3, second_is_weight=True),
        Operation("scores", Kind.GEMM, 7, 11, 13, batch=3, second_is_weight=False),
        Operation(
            "groups",
            Kind.CONV,
            49,
            11,
            9,
            batch=3,
            groups=5,
            second_is_weight=True,
            input_elements=3 * 5 * 81,
            filter_taps=9,
            filter_overlap=6,
            filter_step=3,
        ),
        Operation(
            "conv",
            Kind.CONV,
            49,
            11,
            27,
            batch=2,
            second_is_weight=True,
            input_elements=2 * 3 * 81,
            filter_taps=9,
            filter_overlap=6,
            filter_step=3,
        ),
        Operation("unknown", Kind.CONV, 49, 11, 27, batch=2, second_is_weight=True, input_elements=2 * 3 * 81),
        Operation("pointwise", Kind.CONV, 49, 11, 27, batch=2, second_is_weight=True, input_elements=2 * 27 * 49, filter_taps=1),
    )
    sizes, shared, bits, expansion = products.product_shapes(listed)
    assert sizes.tolist() == [[1, 21, 11, 13], [3, 7, 11, 13], [5, 147, 11, 9], [1, 98, 11, 27], [1, 98, 11, 27], [1, 98, 11, 27]]
    assert shared.tolist() == [True, False, False, True, True, True] and bits.shape == (6, 3)
    assert expansion.tolist() == near([1.0, 1.0, 49 * 9 / 81, 49 * 27 / 243, 49 * 27 / 243, 1.0])
    windows, spread = products.map_windows(listed, sizes, shared)
    assert spread.tolist() == [False, False, True, False, False, False]
    assert windows.tolist() == [
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [243, 1, 9, 6, 3],
        [162, 3, 9, 6, 3],
        [486, 1, 27, 486, 0],
        [1, 1, 1, 0, 0],
    ]


def test_searched_products_as_unit_costs() -> None:
    """Busy times, bytes and the bound of each level from the words that the search counts, copies of a level sharing them."""
    batch = edge()
    sizes = np.array([[1, 64, 96, 128], [3, 17, 33, 65]])
    found = products.search_products(sizes, np.array([True, False]), batch)
    for s in range(2):
        cycles = found.level_cycles(s)
        for p in range(2):
            for level in range(batch.levels):
                copies = int(batch.cores[p]) if batch.level_per_core[level] else 1
                read = found.read_words[s, p, level] / batch.level_read_words_per_cycle[p, level]
                write = found.write_words[s, p, level] / batch.level_write_words_per_cycle[p, level]
                assert cycles[p, level] == near(max(read, write) / copies)
            slow = int(np.argmax(cycles[p]))
            wanted = "compute" if found.compute_cycles[s, p] >= found.cycles[s, p] else batch.level_names[slow]
            assert found.bound(s, p) == wanted
    table = rows(
        Operation("a", Kind.GEMM, 17, 33, 65, batch=3, second_is_weight=False),
        Operation("b", Kind.GEMM, 64, 96, 128, second_is_weight=True),
        Operation("again", Kind.GEMM, 17, 33, 65, batch=3, second_is_weight=False),
    )  # fmt: skip
    costs, told = empty_costs(3, batch), []
    products.product_costs(table, batch, np.array([0, 1, 2]), costs, "edp", 1, lambda done, every: told.append((done, every)))
    assert told == [(2, 2)]
    for row, s in ((0, 1), (1, 0), (2, 1)):
        rate = batch.frequency_hz
        assert costs.latency_s[row].tolist() == near((found.cycles[s] / rate).tolist())
        assert costs.energy_j[row].tolist() == near((found.energy_pj[s] * 1e-12).tolist())
        assert costs.array_s[row].tolist() == near((found.compute_cycles[s] / rate).tolist())
        assert costs.dram_s[row].tolist() == near((found.level_cycles(s)[:, -1] / rate).tolist())
        moved = (found.read_words[s, :, -1] + found.write_words[s, :, -1]) * batch.word_bits / 8.0
        assert costs.dram_bytes[row].tolist() == near(moved.tolist())
        assert [costs.bound_names[b] for b in costs.bound[row]] == [found.bound(s, p) for p in range(2)]


# ---- fused attention ----


@pytest.mark.parametrize(("causal", "share", "decode"), [(False, 1, False), (True, 2, False), (False, 4, True)])
def test_fused_attention_level_by_level(causal: bool, share: int, decode: bool) -> None:
    """From the arrays and the innermost level outwards: a tile of queries stays inside, keys and values pass it; two designs."""
    m, n, k, v, heads = (1 if decode else 700), 1300, 48, 64, 8
    kind = Kind.ATTENTION_DECODE if decode else Kind.ATTENTION_PREFILL
    table = rows(Operation("a", kind, m, n, k, batch=heads, v_dim=v, kv_share=share, function="softmax", causal=causal,
                           second_is_cache=decode, input_bits=8, weight_bits=8, output_bits=8))  # fmt: skip
    batch = edge()
    unit, parts = unit_costs(table, batch), attention_parts(table, batch, "edp", 1)
    pairs = int(table.attention_pairs()[0])
    for p in range(2):
        word, hz, cores = float(batch.word_bits[p]), float(batch.frequency_hz[p]), int(batch.cores[p])
        softmax, scale = vector.function("softmax"), vector.function("mul")
        block = min(n, int(batch.array_columns[p]))
        work = (
            heads * pairs * softmax.element_cycles
            + heads * m * softmax.row_cycles
            + heads * m * v * math.ceil(n / block) * scale.element_cycles
        )
        lanes = math.ceil(work / int(batch.vector_lanes[p])) / hz
        energy = float(parts.energy_pj[0, p]) + work * float(lane_pj(batch.mac_pj)[p])
        spent = [float(t[0, p]) for t in parts.inner_times]
        queries, keys, out = heads * m * k * 8 / word, heads // share * n * (k + v) * 8 / word, heads * m * v * 8 / word
        seen = pairs / (m * n)
        for level in range(1, batch.levels):
            inside = level - 1
            held = float(batch.level_bytes[p, inside]) * 8 / word / (2 if batch.level_double_buffered[inside] else 1)
            room = held if batch.level_per_core[inside] else held / cores
            head = (k + v) * 8 / word
            tile = min(max(math.floor((room - block * head) / (head + block)), 1), m * share)
            passes = math.ceil(m * share / tile)
            fetched = 1.0 if keys / (heads // share) + head <= room else passes * max(seen, 1 / passes)
            read, write = queries + keys * fetched, out
            if level < batch.levels - 1:
                read, write = read + out, write + queries + keys
            busy = max(read / batch.level_read_words_per_cycle[p, level], write / batch.level_write_words_per_cycle[p, level])
            spent.append(busy / (cores if batch.level_per_core[level] else 1) / hz)
            energy += read * batch.level_read_pj_per_word[p, level] + write * batch.level_write_pj_per_word[p, level]
        spent.append(lanes)
        assert unit.latency_s[0, p] == near(max(spent)) and unit.energy_j[0, p] == near(energy * 1e-12)
        assert unit.dram_bytes[0, p] == near((read + write) * word / 8)
        assert (unit.array_s[0, p], unit.vector_s[0, p], unit.dram_s[0, p]) == (near(spent[0]), near(lanes), near(spent[-2]))
        assert unit.bound_names[unit.bound[0, p]] == ("compute", *batch.level_names, "vector")[int(np.argmax(spent))]


# ---- trees ----


@pytest.mark.parametrize(
    ("table_bytes", "lines", "probes", "macs"),
    [(30_000_000, 400, 180, 1200), (200_000, 37, 9_000, 11), (20_000, 3, 5, 90_001), (200_000, 4000, 5, 7)],
)
def test_a_level_of_a_tree_written_out(table_bytes: int, lines: int, probes: int, macs: int) -> None:
    """Look-ups of one level on two designs: waits, bytes, lanes and energy, wherever the level lies."""
    space = template.load("lookup")
    knobs = {name: values[0] for name, values in space.knobs.items()}
    batch = space.batch(**{**knobs, "gather_line_bytes": np.array([32, 128]), "lanes": np.array([4, 8])})
    row = Operation("l", Kind.SPARSE_BEAM, 10, 80, 10, batch=3, input_bits=32, output_bits=32, weight_bits=60, parameters=3_000_000,
                    row_probes=probes, row_hits=90, sparse_macs=macs, unique_lines=lines, dependent_depth=4,
                    table_bytes=table_bytes)  # fmt: skip
    table, costs = rows(row), empty_costs(1, batch)
    sparse_costs(table, batch, np.array([0]), costs)
    for p in range(2):
        home = int(home_level(np.array([float(table_bytes)]), batch)[0, p])
        wait, line = float(level_latency_s(batch)[p, home]), float(batch.gather_line_bytes[p])
        fetches = 3 * lines * max(1.0, COUNTED_LINE_BYTES / line)
        word, hz, lanes = float(batch.word_bits[p]) / 8, float(batch.frequency_hz[p]), max(1, int(batch.vector_lanes[p] // batch.cores[p]))
        moving = fetches * line / (float(batch.level_read_words_per_cycle[p, home]) * word * hz)
        wide, scores = math.ceil(32 / int(batch.mac_bits[p])), 3 * 10 * 80 * score_cycles()
        compute = (3 * probes / int(batch.gather_lanes[p]) + wide * (max(3 * 90, 3 * macs / lanes) + scores / lanes)) / hz
        fetch, chain = max(fetches * wait / int(batch.gather_outstanding[p]), moving), 3 * 4 * wait
        assert costs.latency_s[0, p] == near(chain + max(fetch, compute))
        energy = fetches * line / word * float(batch.level_read_pj_per_word[p, home])
        energy += 3 * (macs + probes) * float(lane_pj(batch.mac_pj)[p]) * wide + scores * float(lane_pj(batch.mac_pj)[p]) * wide
        assert costs.energy_j[0, p] == near(energy * 1e-12) and costs.vector_s[0, p] == near(compute)
        far = home == batch.levels - 1
        assert (costs.dram_s[0, p], costs.dram_bytes[0, p]) == (near(moving if far else 0.0), near(fetches * line if far else 0.0))
        bound = "vector" if compute > fetch and compute > chain else batch.level_names[home]
        assert costs.bound_names[costs.bound[0, p]] == bound


def test_buffers_of_operands_hold_a_level_together() -> None:
    """The innermost memory that holds the bytes, three buffers of operands serving as one; the DRAM whatever it has."""
    batch = edge()
    for size in (1.0, 3 * 64 * 1024.0, 3 * 64 * 1024.0 + 1, 2 * 2**20 * 1.0, 2 * 2**20 + 1.0, 1e15):
        for p in range(2):
            held = [float(batch.level_bytes[p, i]) * (1 if batch.level_shared[i] else 3) for i in range(batch.levels)]
            wanted = next((i for i in range(batch.levels - 1) if size <= held[i]), batch.levels - 1)
            assert int(home_level(np.array([size]), batch)[0, p]) == wanted


@pytest.mark.parametrize("limit", [0.5, 3.0, 300.0])
def test_mapped_arrays_with_a_power_limit_spend_by_the_rule_of_boards(limit: float) -> None:
    """Whatever the limit, above none: idle, active, arithmetic and bytes, alone and among many; latency is that of the mapping."""
    accelerator = EDGE.accelerator(cores=2, width=32, depth=16, l2_kib=64, l2_words_per_cycle=32, glb_mib=2)
    board = replace(accelerator, tdp_w=limit)
    table = rows(
        Operation("p", Kind.GEMM, 64, 96, 128, second_is_weight=True, repeat=3), Operation("n", Kind.NORM, 64, 96, function="layernorm")
    )
    plain, found = unit_costs(table, accelerator.batch()), unit_costs(table, board.batch())
    assert found.latency_s.tolist() == plain.latency_s.tolist() and found.dram_bytes.tolist() == plain.dram_bytes.tolist()
    macs = np.array([[64.0 * 96 * 128], [0.0]])
    spent = board_power.dynamic_j(board.batch(), plain.latency_s, macs, plain.dram_bytes)
    assert found.energy_j[:, 0].tolist() == near(spent[:, 0].tolist())
    alone, whole = Evaluator(table, board.batch())(0), evaluate(board, table)
    assert (alone.energy_j, alone.latency_s, alone.peak_power_w) == (
        near(float(whole.energy_j)),
        near(float(whole.latency_s)),
        near(float(whole.peak_power_w)),
    )


def test_designs_that_no_mapping_fits_take_for_ever_among_boards() -> None:
    """A buffer that holds no tile: an error, or infinite where it is asked for, on boards too."""
    batch = edge()
    small = replace(batch, level_bytes=np.array([[1.0, *batch.level_bytes[0, 1:]], batch.level_bytes[1]]), tdp_w=np.array([5.0, 5.0]))
    table = rows(Operation("p", Kind.GEMM, 64, 96, 128, second_is_weight=True))
    found = unit_costs(table, small, unmapped="infinite")
    assert np.isinf(found.latency_s[0, 0]) and np.isinf(found.energy_j[0, 0]) and np.isfinite(found.energy_j[0, 1])
    assert found.energy_j[0, 1] == near(float(unit_costs(table, small.take([1])).energy_j[0, 0]))


# ---- experts ----


@pytest.mark.parametrize(
    ("tokens", "experts", "chosen", "imbalance"), [(1000, 128, 8, 1.3), (1000, 128, 8, 4.0), (64, 16, 2, 2.0), (5000, 8, 2, 1.9)]
)
def test_the_exponent_of_a_stated_imbalance(tokens: int, experts: int, chosen: int, imbalance: float) -> None:
    """The least exponent, to a twenty-thousandth, whose busiest expert has that many times the mean."""
    found = mixtures.exponent_of(tokens, experts, chosen, imbalance)
    heaviest = [max(mixtures.expert_tokens(tokens, experts, chosen, 1, e)) for e in (found - 54.0 / 2**20, found)]
    wanted = imbalance * tokens * chosen / experts
    assert heaviest[0] < wanted <= heaviest[1]
    assert mixtures.exponent_of(tokens, experts, chosen, 1e9) == 4.0


@pytest.mark.parametrize(("tokens", "chosen", "active", "ranks"), [(37, 2, 14, 4), (37, 2, 14, 1), (8, 2, 16, 3), (1, 2, 2, 4)])
def test_equal_shares_of_the_experts_with_work(tokens: int, chosen: int, active: int, ranks: int) -> None:
    found = mixtures.layer_loads(tokens, 16, chosen, active, ranks)
    assert len(found) == math.ceil(active / ranks)
    whole = mixtures.layer_loads(tokens, 16, chosen, active)
    assert sum(whole) == tokens * chosen and max(whole) - min(whole) <= 1 and list(whole) == sorted(whole, reverse=True)
    assert found == whole[: len(found)]


def test_loads_never_pass_what_an_expert_can_have() -> None:
    """What is cut off goes to the others in proportion; whole loads keep their sum and their cap."""
    cut = mixtures._capped(np.array([10.0, 3.0, 1.0]), 6.0)
    assert cut.tolist() == near([6.0, 6.0, 2.0]) and cut.sum() == near(14.0)
    assert mixtures._capped(np.array([1.0, 2.0]), 5.0).tolist() == [1.0, 2.0]
    assert mixtures._capped(np.array([9.0, 9.0]), 5.0).tolist() == [5.0, 5.0]
    whole = mixtures._whole(np.array([1.4, 2.6, 3.7, 0.3]), 8, 4)
    assert whole.tolist() == [1.0, 3.0, 4.0, 0.0]
    assert mixtures._whole(np.array([3.9, 3.9, 0.2]), 8, 3).tolist() == [3.0, 3.0, 1.0]
    assert mixtures._whole(np.array([1.5, 1.5, 1.0]), 4, 9).tolist() == [2.0, 1.0, 1.0]


def test_phases_that_run_several_times_on_one_design_at_a_time() -> None:
    workload = workloads.load("gpt2").build(layers=2, sequence=32, new_tokens=5)
    workload = replace(workload, phases=tuple(replace(phase, runs=3 + i) for i, phase in enumerate(workload.phases)))
    board = EDGE.accelerator(cores=2, width=32, depth=16, l2_kib=64, l2_words_per_cycle=32, glb_mib=2)
    alone, whole = Evaluator(workload, board.batch())(0), evaluate(board, workload)
    for name in ("latency_s", "energy_j", "dynamic_j", "dram_bytes", "peak_power_w"):
        assert getattr(alone, name) == near(float(getattr(whole, name))), name


def test_a_written_mapping_has_the_cores_and_units_of_the_search() -> None:
    """Cores along m, n, k and the batch are those that were found, for products that use them differently."""
    batch = edge()
    for size in ((8, 4, 16, 32), (1, 512, 16, 32), (1, 4, 512, 32), (1, 4, 8, 4096)):
        found = products.search_products(np.array([size]), np.array([False]), batch)
        assert found.mapping is not None
        for p in range(2):
            nest = loop_nest(found.mapping, size, batch.level_names, point=p)
            assert list(nest.cores) == found.mapping.split[0, p].tolist() and nest.spread == int(found.mapping.spread[0, p])
            assert list(nest.unroll) == found.mapping.unroll[0, p].tolist()
            assert math.prod(nest.cores) <= int(batch.cores[p])


@pytest.mark.parametrize(("rows_", "columns"), [(100_003, 1024), (100_003, 1025), (37, 1024), (100_003, 7)])
def test_rows_that_fit_registers_are_read_once_however_small_the_cache(rows_: int, columns: int) -> None:
    """Up to 1,024 columns a softmax keeps its row in registers; a longer one reads it three times, beyond the L2 from the DRAM."""
    a100 = library.load("a100").gpu_hardware()
    small = replace(a100, l2_bytes=1_000_000)
    overheads = gpu.VectorOverheads(0.0, 1e-6, 0.83)
    found = float(gpu.row_latency_s(small, overheads, "softmax", rows_, columns))
    per_load, held = 8, columns <= 1024
    threads = 2 ** min(max(math.ceil(math.log2(max(columns / per_load / 2, 1))), 5), 9)
    loads = 1 if held else 3 * math.ceil(columns / (threads * per_load))
    flying = min(rows_, small.multiprocessors * math.floor(small.threads / threads)) * columns * 2
    beyond = min(max(flying / 1e6 - 0.5, 0.0), 1.0)
    touched = 2 if held else 1 + 2 * beyond + 1
    moved = touched * math.ceil(rows_ / small.multiprocessors) * small.multiprocessors * columns * 2
    assert found == near(1e-6 + loads * small.memory_latency_s + moved / (small.dram_bytes_per_s * 0.83))
