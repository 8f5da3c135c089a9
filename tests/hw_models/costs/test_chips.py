"""Chips that share a request: shares against dealing by hand, collectives against their closed forms, and laws."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workloads
from hw_models import spaces as templates
from hw_models.accelerator.design import Accelerator, AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.costs import chips as parallel
from hw_models.costs import evaluate as cost
from hw_models.costs.collectives import Link, all_gather, all_reduce
from hw_models.costs.unit_costs import ADDITIVE
from hw_models.devices import library as devices
from hw_models.errors import HardwareError
from workloads.ops import Kind, Operation, OperationTable, Parallel

# As arrays that mappings are searched for: the closed forms of chips and links belong to those.
MAPPED = {"execution": Execution.MAPPED, "tdp_w": 0.0, "link_fixed_s": 4e-5, "link_pj_per_bit": 10.0}
A100 = replace(devices.load("a100").accelerator, **MAPPED, link_bytes_per_s=168e9, link_latency_s=8e-7)
LINK = Link(8e-7, 168e9, 10.0, 4e-5)
# Links that cost nothing show what the shares alone do.
FREE: dict[str, float] = {"link_bytes_per_s": 1e14, "link_latency_s": 0.0, "link_fixed_s": 0.0, "link_pj_per_bit": 0.0}


def on(chips: int, **changes: Any) -> Accelerator:
    return replace(A100, chips=chips, **changes)


def one(**values: Any) -> OperationTable:
    return OperationTable.from_rows([Operation("row", **values)])


def weights(how: Parallel, m: int, n: int, k: int) -> OperationTable:
    return one(kind=Kind.GEMM, m=m, n=n, k=k, second_is_weight=True, parallel=how)


def dealt_by_hand(size: int, chips: int) -> list[int]:
    """Pieces of ceil(size / chips) until nothing is left."""
    piece = -(-size // chips)
    pieces = []
    while size:
        pieces.append(min(piece, size))
        size -= pieces[-1]
    return pieces


# ---- shares ----


@given(st.integers(1, 300), st.integers(1, 40))
@settings(max_examples=200, deadline=None)
def test_a_weight_is_dealt_as_by_hand(size: int, chips: int) -> None:
    pieces = dealt_by_hand(size, chips)
    for how, dimension in ((Parallel.COLUMN, "n"), (Parallel.GATHERED, "n"), (Parallel.ROW, "k"), (Parallel.PARTIAL, "k")):
        table = weights(how, 7, *((size, 9) if dimension == "n" else (9, size)))
        found = parallel.shares(table, chips)
        assert int(getattr(found.table, dimension)[0]) == max(pieces)
        assert int(found.at_work[0]) == len(pieces)


@given(st.integers(1, 12), st.integers(1, 8), st.integers(1, 50), st.integers(1, 32))
@settings(max_examples=300, deadline=None)
def test_heads_are_dealt_before_queries(heads: int, share: int, queries: int, chips: int) -> None:
    """Unfused and fused attention give the busiest chip the same heads, and nobody more than a fair share rounded up."""
    unfused = parallel.shares(one(kind=Kind.GEMM, m=share * queries, n=64, k=32, batch=heads, parallel=Parallel.COLUMN), chips)
    fused = parallel.shares(
        one(kind=Kind.ATTENTION_PREFILL, m=queries, n=64, k=32, v_dim=32, batch=heads * share, kv_share=share, parallel=Parallel.COLUMN),
        chips,
    )
    groups = max(dealt_by_hand(heads, chips))
    assert int(unfused.table.batch[0]) == groups
    assert int(fused.table.batch[0]) // int(fused.table.kv_share[0]) == groups
    for found, whole in ((unfused, heads * share * queries), (fused, heads * share)):
        local = int(found.table.batch[0]) * (int(found.table.m[0]) if found is unfused else 1)
        assert local * int(found.at_work[0]) >= whole
        assert 1 <= int(found.at_work[0]) <= chips
    if heads >= chips or chips % heads == 0:
        # Then every chip works, unless there are more chips than rows.
        assert int(unfused.at_work[0]) == len(dealt_by_hand(heads, chips)) * (
            len(dealt_by_hand(share * queries, chips // heads)) if chips > heads else 1
        )


def test_groups_and_feature_maps_are_dealt_together() -> None:
    depthwise = one(kind=Kind.CONV, m=196, n=1, k=9, groups=96, second_is_weight=True, input_elements=96 * 256, parallel=Parallel.COLUMN)
    found = parallel.shares(depthwise, 8).table
    assert (int(found.groups[0]), int(found.input_elements[0]), int(found.m[0])) == (12, 12 * 256, 196)


@pytest.mark.parametrize("chips", [3, 4, 8, 16])
def test_fewer_groups_than_chips_leave_some_without_one(chips: int) -> None:
    """No group is dealt again by its columns, and the feature map follows the groups, not the chips."""
    table = one(kind=Kind.CONV, m=49, n=12, k=27, groups=8, second_is_weight=True, input_elements=8 * 3 * 64, parallel=Parallel.COLUMN)
    found = parallel.shares(table, chips)
    pieces = dealt_by_hand(8, chips)
    assert (int(found.table.groups[0]), int(found.table.n[0]), int(found.at_work[0])) == (max(pieces), 12, len(pieces))
    assert int(found.table.input_elements[0]) == max(pieces) * 3 * 64


@pytest.mark.parametrize("chips", [4, 32])
def test_a_feature_map_is_dealt_with_its_channels(chips: int) -> None:
    """1 x 1 convolution of 20 channels along k: a chip reads the channels of its rows of the weight."""
    table = one(kind=Kind.CONV, m=64, n=12, k=20, second_is_weight=True, input_elements=20 * 64, parallel=Parallel.ROW)
    assert int(parallel.shares(table, chips).table.input_elements[0]) == max(dealt_by_hand(20, chips)) * 64


def test_vector_operations_keep_whole_rows_where_they_need_them() -> None:
    for kind, expected in ((Kind.SOFTMAX, (16, 100)), (Kind.NORM, (16, 100)), (Kind.ACTIVATION, (64, 25)), (Kind.ELEMENTWISE, (64, 25))):
        found = parallel.shares(one(kind=kind, m=64, n=100, function="gelu", parallel=Parallel.COLUMN), 4).table
        assert (int(found.m[0]), int(found.n[0])) == expected
    whole = parallel.shares(one(kind=Kind.NORM, m=64, n=100, function="layernorm"), 4)
    assert (int(whole.table.m[0]), int(whole.table.n[0]), int(whole.at_work[0])) == (64, 100, 4)


def test_what_says_nothing_is_gathered_or_replicated() -> None:
    table = OperationTable.from_rows([Operation("p", Kind.GEMM, 4, 4, 4), Operation("v", Kind.NORM, 4, 4)])
    assert table.parallel.tolist() == [Parallel.GATHERED, Parallel.REPLICATED]


# ---- whole models ----


@pytest.mark.parametrize("name", ["bert", "llama3-8b", "gpt2", "mixtral-8x7b", "deepseek-v3", "whisper-base", "t5-base"])
@pytest.mark.parametrize("chips", [2, 4, 8])
def test_shares_of_models_add_up(name: str, chips: int) -> None:
    """Products of all chips together are the model's, but for what rounding up adds: heads and experts of these divide."""
    workload = workloads.load(name).build()
    for phase in workload.phases:
        products = np.isin(phase.table.kind, (Kind.GEMM, Kind.ATTENTION_PREFILL, Kind.ATTENTION_DECODE))
        found = parallel.shares(phase.table, chips)
        together = (found.table.row_macs() * found.at_work)[products]
        whole = phase.table.row_macs()[products]
        assert (together >= whole).all()
        # Vocabularies, and whisper's six heads on four chips, do not divide evenly.
        assert together.sum() <= 1.35 * whole.sum()


def test_a_layer_reduces_twice() -> None:
    """Megatron-LM: one all-reduce of tokens x hidden behind attention and one behind the feed-forward network."""
    table = workloads.load("llama3-8b").build().phases[0].table
    rows = np.flatnonzero(table.parallel == Parallel.ROW)
    assert [str(table.name[row]) for row in rows] == ["o_proj", "ffn_down"]
    gathered = np.flatnonzero(table.parallel == Parallel.GATHERED)
    assert [str(table.name[row]) for row in gathered] == ["lm_head"]


def test_experts_are_reduced_once_after_they_are_combined() -> None:
    table = workloads.load("mixtral-8x7b").build().phases[0].table
    rows = [str(table.name[row]) for row in np.flatnonzero(table.parallel == Parallel.ROW)]
    assert rows == ["o_proj", "combine_add"]


def test_the_latency_of_a_model_is_that_of_shares_and_collectives() -> None:
    """Written out again over the rows: nothing is lost between the table and `evaluate`."""
    table = workloads.load("bert").build().phases[0].table
    found = cost.evaluate(on(4), table)
    shares = parallel.shares(table, 4)
    alone = cost.evaluate(on(1), replace(shares.table, parallel=table.parallel))
    exchanged = energy = 0.0
    for row, operation in enumerate(table.rows()):
        size = int(-(-int(table.row_output_elements()[row]) * int(table.output_bits[row]) // 8))
        collective = {Parallel.ROW: all_reduce, Parallel.GATHERED: all_gather}.get(operation.parallel)
        if collective:
            took = collective(size, 4, LINK)
            exchanged += float(took.latency_s) * int(table.repeat[row])
            energy += float(took.energy_j) * int(table.repeat[row])
    assert float(found.link_s) == pytest.approx(exchanged, rel=1e-12)
    assert float(found.latency_s) == pytest.approx(float(alone.latency_s) + exchanged, rel=1e-12)
    assert alone.rows is not None
    joules = float((alone.rows.energy_j[:, 0] * shares.at_work).sum())
    assert float(found.dynamic_j) == pytest.approx(joules + energy, rel=1e-12)


def test_one_chip_is_what_it_was() -> None:
    """Telling the shapes apart by how chips would divide them changes nothing on one chip, to the last bit."""
    table = workloads.load("bert").build().phases[0].table
    batch = templates.load("edge22").batch(**{name: values[:2] for name, values in templates.load("edge22").grid().items()})
    plain, index = table.distinct()
    told, other = table.distinct(parallel=True)
    assert len(told) > len(plain)
    first, second = cost.unit_costs(plain, batch), cost.unit_costs(told, batch)
    for name in ADDITIVE:
        assert np.array_equal(getattr(first, name)[index], getattr(second, name)[other]), name
    assert "link" not in first.bound_names and (first.link_s == 0).all()


# ---- laws ----


@pytest.mark.parametrize("workload", ["llama3-8b", "bert"])
def test_more_chips_are_never_slower_where_links_are_free(workload: str) -> None:
    built = workloads.load(workload).build()
    found = [cost.evaluate(on(chips, **FREE), built, criterion="latency") for chips in (1, 2, 4, 8)]
    times = np.array([float(each.latency_s) for each in found])
    assert (np.diff(times) < 0).all()
    # Never more than ideal: replicated norms and residuals are not dealt.
    assert (times[0] / times <= np.array([1, 2, 4, 8]) * (1 + 1e-9)).all()


def test_links_cost_time_and_energy_and_are_told_as_the_bound() -> None:
    built = workloads.load("bert").build()
    slow, fast = (cost.evaluate(on(8, link_bytes_per_s=rate), built) for rate in (1e9, 168e9))
    assert float(slow.latency_s) > float(fast.latency_s)
    assert float(slow.link_s) > float(fast.link_s) > 0
    assert float(slow.dynamic_j) == float(fast.dynamic_j)  # the bytes are the same
    assert "link" in {str(row["bound"]) for row in slow.row_records()}


def test_memory_is_shared_but_activations_are_not() -> None:
    built = workloads.load("llama3-70b").build(weight_bits=16)
    alone, eight = cost.evaluate(on(1), built), cost.evaluate(on(8), built)
    assert not bool(alone.feasible) and bool(eight.feasible)
    activations = float(built.activation_bytes())
    assert float(eight.required_bytes) == pytest.approx(float(alone.required_bytes) + 7 * activations, rel=1e-12)


def test_batches_of_mixed_chips_equal_single_designs() -> None:
    grid = {name: [values[0], values[-1]] for name, values in templates.load("datacenter").knobs.items()}
    rng = np.random.default_rng(3)
    knobs = {name: rng.choice(np.array(values), 12) for name, values in grid.items()}
    batch = templates.load("datacenter").batch(**knobs)
    table = workloads.load("bert").build().phases[0].table
    together = cost.evaluate(batch, table)
    for at in range(12):
        single = cost.evaluate(batch.take([at]), table)
        assert float(single.latency_s[0]) == float(together.latency_s[at])
        assert float(single.energy_j[0]) == float(together.energy_j[at])


# ---- collectives as rows, and errors ----


def test_a_collective_row_takes_no_time_on_one_chip_and_its_closed_form_on_more() -> None:
    row = one(kind=Kind.COLLECTIVE, m=512, n=1024, function="all_reduce", output_bits=16)
    assert float(cost.evaluate(on(1), row).latency_s) == 0.0
    found = cost.evaluate(on(8), row)
    expected = all_reduce(512 * 1024 * 2, 8, LINK)
    assert float(found.latency_s) == float(expected.latency_s)
    assert float(found.dynamic_j) == float(expected.energy_j)


def test_errors_say_what_would_do() -> None:
    shapes = workloads.load("bert").build().phases[0].table.distinct().table
    with pytest.raises(HardwareError, match=r"distinct\(parallel=True\)"):
        cost.unit_costs(shapes, on(2).batch())
    with pytest.raises(HardwareError, match=r"link_bytes_per_s.*positive number of bytes/s where chips is 4"):
        on(4, link_bytes_per_s=0.0)
    with pytest.raises(HardwareError, match="chips"):
        on(0)


def test_a_design_of_several_chips_is_its_file() -> None:
    import tomllib

    from hw_models.spaces.files import read_document

    design = on(8, link_bytes_per_s=3e11)
    assert read_document(tomllib.loads(design.to_toml()), where="text") == design
    assert "chips" not in A100.to_toml()


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_two_groups_are_groups(groups: int) -> None:
    """A convolution of two groups is dealt by groups like one of three; one of one group by its columns."""
    table = OperationTable.from_rows(
        [Operation("c", Kind.CONV, m=49, n=64, k=576, groups=groups, second_is_weight=True, parallel=Parallel.COLUMN)]
    )
    dealt = parallel.dealing(table)
    assert (bool(dealt.groups[0]), bool(dealt.n[0])) == (groups > 1, groups == 1)


def test_what_limits_a_design_is_named_alike_alone_and_among_others() -> None:
    """One chip has no link, so its list of bounds is shorter than that of several; a batch of both names each by its own."""
    board = devices.load("l40s").accelerator
    shapes, _ = workloads.load("bert-tiny").build().phases[0].table.distinct(parallel=True)
    both, alone = (cost.unit_costs(shapes, AcceleratorBatch.of(boards)) for boards in ([board, replace(board, chips=2)], [board]))
    named = [[costs.bound_names[code] for code in costs.bound[:, 0].tolist()] for costs in (both, alone)]
    assert named[0] == named[1] and "launch" in named[1] and "link" not in named[0]
