"""Words of single steps by their cause, counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hw_models.costs.residency.steps import chain_of
from hw_models.costs.residency.units import CAUSES, Condition, Machine, pinned_bits, step_costs
from hw_models.spaces import template
from workloads.operation import Operation
from workloads.ops import Kind, OperationTable
from workloads.tensors import segments

EDGE = template.load("edge22")
BITS = {"input_bits": 8, "weight_bits": 8, "output_bits": 8}


def machine() -> Machine:
    """One core with words of 8 bits."""
    return Machine(EDGE.batch(cores=1, width=32, depth=16, l2_kib=128, l2_words_per_cycle=32, glb_mib=2), "edp", 1)


def words(
    rows: list[Operation], *, epilogues: bool, keeps: bool = False, stores: bool = True, pinned: bool = False
) -> list[dict[str, float]]:
    """Of each step with no operand on chip: words of the DRAM by cause."""
    table, target = OperationTable.from_rows(rows), machine()
    found = []
    for segment in segments(table):
        for step in chain_of(table, segment, epilogues=epilogues).steps:
            condition = Condition((False,) * len(step.operands), keeps, stores, 0, 0, pinned)
            moved = step_costs(table, step, [condition], target).words[0, 0]
            found.append({cause: float(w) for cause, w in zip(CAUSES, moved, strict=True) if w})
    return found


PRODUCT = Operation("p", Kind.GEMM, 3, 5, 7, component="x", parameters=35, second_is_weight=True, reads="-", **BITS)
SCALE = Operation(
    "s", Kind.ELEMENTWISE, 3, 5, function="mul", component="x", operands=1, parameters=5, reads="p", **BITS | {"weight_bits": 4}
)


def test_what_an_epilogue_reads_passes_the_dram_with_its_cause() -> None:
    """3 x 7 inputs, 35 weights and 3 x 5 results of a byte, a word each; the epilogue's 5 factors of 4 bits are 2.5 words of weights."""
    (alone,), (both,) = words([PRODUCT], epilogues=True), words([PRODUCT, SCALE], epilogues=True)
    assert alone == {"inputs": 21.0, "weights": 35.0, "outputs": 15.0}
    assert both == {**alone, "weights": 37.5}


def test_pinned_parameters_stay_and_a_result_that_stays_may_be_stored() -> None:
    assert words([PRODUCT, SCALE], epilogues=True, pinned=True) == [{"inputs": 21.0, "outputs": 15.0}]
    assert words([PRODUCT, SCALE], epilogues=True, keeps=True) == [{"inputs": 21.0, "weights": 37.5, "stores": 15.0}]


def test_vector_work_alone_reads_its_operand_and_its_parameters() -> None:
    assert words([PRODUCT, SCALE], epilogues=False)[1] == {"inputs": 15.0, "weights": 2.5, "outputs": 15.0}
    assert words([PRODUCT, SCALE], epilogues=False, keeps=True, stores=False)[1] == {"inputs": 15.0, "weights": 2.5}


@pytest.mark.parametrize(("keeps", "stores", "moved"), [(False, True, 4096), (True, True, 4096), (True, False, 128)])
def test_the_dram_is_busy_for_what_passes_it_one_way(keeps: bool, stores: bool, moved: int) -> None:
    """An outer product of 64 x 64: 128 bytes in, 4,096 out, both ways at once; what the wider way takes at the DRAM's rate."""
    rows = OperationTable.from_rows([replace(PRODUCT, m=64, n=64, k=1, parameters=64)])
    (step,) = chain_of(rows, segments(rows)[0], epilogues=True).steps
    target = machine()
    found = step_costs(rows, step, [Condition((False,) * len(step.operands), keeps, stores, 0, 0)], target)
    assert found.dram_s[0, 0] == pytest.approx(moved / float(target.hardware.dram_bytes_per_s[0]), rel=1e-12)


@pytest.mark.parametrize(("resident", "inputs"), [((), 3 * 128), ((1,), 2 * 128), ((2,), 2 * 128), ((1, 2), 128), ((0, 1, 2), 0)])
def test_attention_reads_what_is_not_on_chip(resident: tuple[int, ...], inputs: int) -> None:
    """One head of 16 queries and keys of 8 bytes: 128 bytes each of queries, keys and values, and as many of results."""
    row = Operation(
        "a", Kind.ATTENTION_PREFILL, 16, 16, 8, component="x", batch=1, v_dim=8, kv_share=1, function="softmax", reads="-", **BITS
    )
    rows = OperationTable.from_rows([row])
    (step,) = chain_of(rows, segments(rows)[0], epilogues=True).steps
    assert step.own_operands == 3 == len(step.operands)
    condition = Condition(tuple(i in resident for i in range(3)), False, True, 0, 0)
    moved = step_costs(rows, step, [condition], machine()).words[0, 0]
    found = {cause: float(w) for cause, w in zip(CAUSES, moved, strict=True) if w}
    assert found == {"outputs": 128.0} | ({"inputs": float(inputs)} if inputs else {})


def test_tables_behind_gathers_are_not_kept_with_the_weights() -> None:
    gather = Operation("g", Kind.GATHER, 4, 8, component="x", parameters=800, **BITS)
    assert pinned_bits(OperationTable.from_rows([PRODUCT, gather, SCALE])).tolist() == [35 * 8, 0, 5 * 4]
