"""Stages, replicas, experts over ranks, nodes and launches: closed forms against events that are played through, and what must hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.accelerator.design import Accelerator, check_experts
from hw_models.accelerator.fields import Launch
from hw_models.costs import pipeline
from hw_models.costs.chips import Links, _between, shares
from hw_models.costs.collectives import Link, all_to_all
from hw_models.costs.evaluate import evaluate, required_bytes
from hw_models.devices import library
from hw_models.errors import HardwareError
from workloads import library as workloads

H100 = library.load("h100").accelerator
NODE = {"node_chips": 8, "node_bytes_per_s": 50e9, "node_latency_s": 5e-6}


def played(stage_s: list[float], hop_s: float, batches: int, passes: int) -> float:
    """Mean time of a pass of a batch in a pipeline that is played through event by event, after the pipeline has filled.

    A stage serves one batch at a time, first come, first served, and is busy until it has sent its result on; after the last stage the
    batch comes back to the first for its next pass.
    """
    free = [0.0] * len(stage_s)
    # (time at which a batch is ready for its next stage, number) of all batches; the earliest moves next.
    waiting = [(0.0, batch, 0, 0) for batch in range(batches)]
    done: list[list[float]] = [[] for _ in range(batches)]
    while waiting:
        waiting.sort()
        ready, batch, stage, turn = waiting.pop(0)
        start = max(ready, free[stage])
        last = stage == len(stage_s) - 1
        end = start + stage_s[stage] + (0.0 if last else hop_s)
        free[stage] = end
        if not last:
            waiting.append((end, batch, stage + 1, turn))
        else:
            done[batch].append(end)
            if turn + 1 < passes:
                waiting.append((end, batch, 0, turn + 1))
    half = passes // 2
    return float(np.mean([(times[-1] - times[half - 1]) / (passes - half) for times in done]))


def design(stages: int, batches: int, **fields: float) -> Accelerator:
    return replace(H100, pipeline_stages=stages, microbatches=batches, **fields)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 24), st.sampled_from([0.0, 0.05, 0.4]))
def test_a_pass_takes_what_events_say(stages: int, batches: int, layers: int, hop: float) -> None:
    layer_s = 1.0
    counts = [layers // stages + (stage < layers % stages) for stage in range(stages)]  # the first stages have one layer more
    found = played([count * layer_s for count in counts], hop, batches, 60)
    passes = pipeline.Passes(np.array([float(layers)]), np.array([1.0]), np.array([hop * 1e9]))
    batch = design(stages, batches, link_bytes_per_s=1e9, link_latency_s=0.0).batch()
    closed = float(pipeline.latency_s(np.array([[layers * layer_s]]), passes, batch)[0, 0])
    assert closed == pytest.approx(found, rel=1e-9)
    bubble = float(pipeline.bubble_share(np.array([[layers * layer_s]]), np.array([[closed]]), batch)[0, 0])
    assert 0 <= bubble < 1
    if hop == 0:  # what stages do not wait, they work: batches x layers in each round
        assert (1 - bubble) * stages * closed == pytest.approx(batches * layers)


def test_one_round_of_a_full_pipeline_has_no_bubble_but_uneven_layers() -> None:
    passes = pipeline.Passes(np.array([32.0]), np.array([1.0]), np.array([0.0]))
    for stages, bubble in ((1, 0.0), (2, 0.0), (4, 0.0), (5, 1 - 32 / (5 * 7))):
        batch = design(stages, 0, link_latency_s=0.0).batch()
        whole = pipeline.latency_s(np.ones((1, 1)), passes, batch)
        assert float(pipeline.bubble_share(np.ones((1, 1)), whole, batch)[0, 0]) == pytest.approx(bubble, abs=1e-12)
    # One batch alone leaves all stages but one waiting.
    alone = design(4, 1, link_latency_s=0.0).batch()
    assert float(pipeline.bubble_share(np.ones((1, 1)), pipeline.latency_s(np.ones((1, 1)), passes, alone), alone)[0, 0]) == 0.75


@pytest.mark.parametrize("name", ["llama3-8b", "bert-base", "qwen3-30b-a3b", "t5-small", "mamba-130m"])
def test_passes_are_those_of_the_workload(name: str) -> None:
    """A prompt passes once, each generated token once; layers are the model's."""
    family = workloads.load(name)
    knobs = {"new_tokens": 7} if "new_tokens" in family.knobs else {}
    workload = family.build(**knobs)
    found = [pipeline.passes_of(phase.table, float(phase.runs)) for phase in workload.phases]
    if name in ("llama3-8b", "qwen3-30b-a3b"):
        assert [float(f.passes[0]) for f in found] == [1.0, 7.0 - (len(found) > 1 and found[1].passes[0] == 6)]
        assert float(found[0].layers[0]) == family.values()["layers"]
        assert float(found[0].hop_bytes[0]) > float(found[-1].hop_bytes[0]) > 0
    for f in found:
        assert (f.passes >= 1).all() and (f.layers >= 1).all() and (f.hop_bytes > 0).all()


def test_stages_hold_larger_models_and_serve_more_at_no_less_time() -> None:
    workload = workloads.load("llama3-8b").build(batch=4, sequence=256, new_tokens=8, weight_bits=16, activation_bits=16, kv_bits=16)
    one, four = evaluate(H100, workload), evaluate(design(4, 0), workload)
    assert float(four.latency_s) >= float(one.latency_s)
    assert float(four.latency_s) == pytest.approx(float(one.latency_s), rel=0.01)  # a hop is small beside a stage
    assert float(four.dram_capacity_bytes) == 4 * float(one.dram_capacity_bytes)
    weights, cache, held = workload.weight_bytes(), workload.kv_cache_bytes(), workload.activation_bytes()
    assert float(four.required_bytes) == pytest.approx(weights + 4 * cache + 4 * held)
    # Four batches in flight share the idle power of four boards; each costs a batch's operations.
    assert float(four.dynamic_j) == pytest.approx(float(one.dynamic_j), rel=0.01)
    assert float(four.leakage_j) == pytest.approx(float(one.leakage_j), rel=0.02)


def test_replicas_do_not_change_a_request_but_all_else() -> None:
    workload = workloads.load("llama3-8b").build(batch=4, sequence=256, new_tokens=8, weight_bits=16, activation_bits=16, kv_bits=16)
    one, three = evaluate(H100, workload), evaluate(replace(H100, data_parallel=3), workload)
    for name in ("latency_s", "dynamic_j", "dram_bytes"):
        assert float(getattr(three, name)) == float(getattr(one, name))
    assert float(three.energy_j) == pytest.approx(float(one.energy_j))
    assert float(three.area_mm2) == pytest.approx(3 * float(one.area_mm2))
    assert float(three.required_bytes) == pytest.approx(3 * float(one.required_bytes))
    assert float(three.average_power_w) == pytest.approx(3 * float(one.average_power_w))


@pytest.mark.parametrize("batch", [1, 64])
def test_experts_over_ranks(batch: int) -> None:
    """Whole experts on ranks: the same products, less of every weight on a chip, and never more time than one rank with all experts."""
    workload = workloads.load("qwen3-30b-a3b").build(
        batch=batch, sequence=256, new_tokens=4, weight_bits=16, activation_bits=16, kv_bits=16
    )
    cut, dealt = (evaluate(replace(H100, chips=8, expert_parallel=ranks), workload) for ranks in (1, 8))
    alone = evaluate(H100, workload)
    assert 0 < float(dealt.latency_s) < float(alone.latency_s)
    assert float(dealt.required_bytes) == float(cut.required_bytes)
    # Arithmetic is the same but for the rank with most experts, which sets the pace.
    assert 0.3 < float(dealt.dynamic_j) / float(cut.dynamic_j) < 3


def test_experts_over_replicas_are_stored_once_and_tokens_travel() -> None:
    workload = workloads.load("qwen3-30b-a3b").build(batch=16, sequence=256, new_tokens=4, weight_bits=16, activation_bits=16, kv_bits=16)
    own = replace(H100, data_parallel=4, **NODE)
    spread = replace(own, expert_parallel=4)
    weights = required_bytes(workload, own.batch()) - required_bytes(workload, spread.batch())
    experts = 48 * 128 * 3 * 2048 * 768 * 2.0
    assert float(weights[0, 0]) == pytest.approx(3 * experts)
    told = evaluate(spread, workload)
    rows = {str(r["name"]): r for r in told.row_records()}
    assert float(told.link_s) > 0 and float(evaluate(own, workload).link_s) == 0
    assert rows["dispatch"]["bound"] == "link" and rows["combine_scale"]["bound"] == "link"


def test_a_search_of_mappings_deals_experts_too() -> None:
    array = library.load("tpu-v5p").accelerator
    workload = workloads.load("mixtral-8x7b").build(batch=8, sequence=128, new_tokens=2, weight_bits=16, activation_bits=16, kv_bits=16)
    one, dealt = (evaluate(replace(array, chips=8, expert_parallel=ranks), workload) for ranks in (1, 8))
    table = next(iter(workload.phases)).table
    products = shares(table, 8, 8)
    routed = table.moe_joined > 0
    assert (products.time_share[routed] < 1).all() and (products.time_share[~routed] == 1).all()
    assert (products.table.n[routed] == table.n[routed]).all() and (products.table.k[routed] == table.k[routed]).all()
    assert 0.2 < float(dealt.latency_s) / float(one.latency_s) < 5


def test_all_to_all_between_nodes_is_what_messages_add_up_to() -> None:
    """Each chip sends a piece to every other; pieces for other nodes go over the outer link to the chip of the same place there."""
    inner, outer = Link(1e-6, 400e9), Link(5e-6, 50e9)
    inside, nodes, size = 4, 3, 12 * 1200
    piece = size // (inside * nodes)
    # One step after the other, as closed forms count: to each other node all that its chips will get, then inside the nodes.
    across = (nodes - 1) * (5e-6 + inside * piece / 50e9)
    within = (inside - 1) * (1e-6 + nodes * piece / 400e9)
    found = _between("all_to_all", np.array([size]), Links(inner, outer, inside, nodes))
    assert float(found.latency_s[0]) == pytest.approx(across + within, rel=1e-9)
    flat = all_to_all(np.array([size]), inside * nodes, inner)
    assert float(found.latency_s[0]) > float(flat.latency_s[0])


def test_wider_groups_than_a_node_pay_for_the_way_between() -> None:
    workload = workloads.load("llama3-8b").build(batch=1, sequence=128, new_tokens=4, weight_bits=16, activation_bits=16, kv_bits=16)
    near = evaluate(replace(H100, chips=16, **{**NODE, "node_chips": 16}), workload)
    far = evaluate(replace(H100, chips=16, **NODE), workload)
    slow = evaluate(replace(H100, chips=16, **{**NODE, "node_bytes_per_s": 5e9}), workload)
    assert float(near.latency_s) < float(far.latency_s) < float(slow.latency_s)
    assert float(evaluate(replace(H100, chips=8, **NODE), workload).latency_s) == float(
        evaluate(replace(H100, chips=8), workload).latency_s
    )


def test_eager_launches_wait_for_the_host() -> None:
    small = workloads.load("llama3-8b").build(batch=1, sequence=128, new_tokens=4, weight_bits=16, activation_bits=16, kv_bits=16)
    eager = replace(H100, launch=Launch.EAGER)
    assert float(evaluate(eager, small).latency_s) > 1.1 * float(evaluate(H100, small).latency_s)
    rows = evaluate(eager, small).row_records()
    launched = [r for r in rows if float(r["latency_s"]) > 0 and r["kind"] in ("gemm", "norm")]
    assert all(float(r["latency_s"]) >= 1.32e-5 * float(r["runs"]) - 1e-12 for r in launched)
    large = workloads.load("llama3-8b").build(batch=64, sequence=4096, new_tokens=1, weight_bits=16, activation_bits=16, kv_bits=16)
    ratio = float(evaluate(eager, large.phases[0].table).latency_s) / float(evaluate(H100, large.phases[0].table).latency_s)
    assert ratio == pytest.approx(1, abs=0.02)


def test_errors_say_what_would_do() -> None:
    with pytest.raises(
        HardwareError, match="expert_parallel = 3 is not valid: it must be one of 1, 2, 4, 8 where chips is 4 and data_parallel is 2"
    ):
        check_experts(3, 4, 2)
    with pytest.raises(HardwareError, match="link_bytes_per_s"):
        replace(library.load("l4").accelerator, pipeline_stages=2, link_bytes_per_s=0.0)
    with pytest.raises(HardwareError, match="node_bytes_per_s"):
        replace(H100, chips=16, node_chips=8)


def test_a_design_of_several_groups_is_its_file(tmp_path) -> None:
    many = replace(H100, chips=4, pipeline_stages=2, data_parallel=2, microbatches=3, expert_parallel=8, launch=Launch.EAGER, **NODE)
    (tmp_path / "x.toml").write_text(many.to_toml())
    assert Accelerator.from_toml(tmp_path / "x.toml") == many
    batch, again = many.batch(), many.batch().accelerator(0, name="h100").batch()
    for name in ("all_chips", "in_flight", "area_mm2", "dram_bytes", "tops", "launch", "expert_parallel"):
        assert getattr(batch, name).tolist() == getattr(again, name).tolist()
    assert batch.all_chips.tolist() == [16] and batch.in_flight.tolist() == [6]
