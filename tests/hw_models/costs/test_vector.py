"""The vector unit: the compatibility model against that tool's own operators, the physical one by its properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_models import spaces as templates
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs import vector
from hw_models.costs.vector import cycles_of, function
from hw_models.costs.vector_catransformers import catransformers
from hw_models.errors import HardwareError
from hw_models.validation.costs import OPERATORS, vector_operators
from workloads.ops import Kind, Operation, OperationTable


def test_compatibility_with_every_operator_of_the_bert_runs() -> None:
    found = list(vector_operators())
    assert len(found) == 54  # nine operators on six designs
    assert {o.name for o in found} == set(OPERATORS)
    for operator in found:
        # Cycles are whole numbers there and here.
        assert operator.our_latency_s == pytest.approx(operator.latency_s, rel=1e-12)
        # Energies: all but softmax agree to rounding; there the rows that a wide unit pads are counted a little differently.
        tolerance = 3e-5 if operator.name == "Softmax" else 2e-8
        assert operator.our_energy_j == pytest.approx(operator.energy_j, rel=tolerance)


def test_compatibility_knows_no_other_functions() -> None:
    template = templates.load("edge22", profile="catransformers22")
    batch = template.batch(cores=1, width=32, depth=2, l2_kib=64, l2_words_per_cycle=32, glb_mib=2)
    table = OperationTable.from_rows([Operation("x", Kind.ACTIVATION, 4, 4, function="softplus")])
    with pytest.raises(HardwareError, match="'softplus'"):
        catransformers(table, batch)


def test_steps_of_a_function_add_up() -> None:
    # By hand from the table of cycles: max 1, add 1, exp 15, add 1, mul 1 an element; div 10 a row.
    softmax = vector.function("softmax")
    assert (softmax.element_cycles, softmax.row_cycles, softmax.passes) == (19, 10, 3)
    norm = vector.function("layernorm")
    assert (norm.element_cycles, norm.row_cycles) == (7, 35)
    with pytest.raises(HardwareError, match="did you mean 'softmax'"):
        vector.function("sofmax")


def batch(**change: object) -> AcceleratorBatch:
    knobs: dict[str, object] = {"cores": 4, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}
    return templates.load("edge22").batch(**(knobs | change))  # type: ignore[arg-type]


def test_softmax_by_hand() -> None:
    table = OperationTable.from_rows([Operation("s", Kind.SOFTMAX, 6144, 512, function="softmax")])
    cost = vector.physical(table, batch())
    elements, lanes, f = 6144 * 512, 256, 625e6
    assert cost.lanes_s[0, 0] == pytest.approx((elements / lanes * 19 + 6144 / lanes * 10) / f, rel=1e-12)
    assert cost.dram_bytes[0, 0] == 2 * elements
    assert cost.level_s[2][0, 0] == pytest.approx(elements / 128 / f, rel=1e-12)
    # global buffer: both tensors pass it once in and once out, 512 words a cycle each way
    assert cost.level_s[1][0, 0] == pytest.approx(2 * elements / 512 / f, rel=1e-12)
    # L2: three passes of the input and one read of the output, over four cores
    assert cost.level_s[0][0, 0] == pytest.approx(4 * elements / (4 * 64) / f, rel=1e-12)


def test_a_gather_reads_whole_bursts_and_computes_nothing() -> None:
    table = OperationTable.from_rows([Operation("g", Kind.EMBEDDING, 10, 100, function="gather", parameters=5000)])
    cost = vector.physical(table, batch())
    assert cost.lanes_s[0, 0] == 0.0
    assert cost.dram_bytes[0, 0] == 10 * 128 + 10 * 100


def test_a_row_that_fits_no_buffer_is_read_again() -> None:
    wide = OperationTable.from_rows([Operation("s", Kind.SOFTMAX, 4, 200_000, function="softmax")])
    small = vector.physical(wide, batch(l2_kib=64))
    large = vector.physical(wide, batch(l2_kib=256))
    assert small.dram_bytes[0, 0] == large.dram_bytes[0, 0]  # the global buffer holds the row
    assert small.level_s[1][0, 0] > large.level_s[1][0, 0]


def test_wider_numbers_take_more_passes_of_a_lane() -> None:
    narrow, wide = (
        OperationTable.from_rows([Operation("a", Kind.ACTIVATION, 64, 64, function="gelu", input_bits=b, output_bits=b)]) for b in (8, 16)
    )
    assert vector.physical(wide, batch()).lanes_s == 2 * vector.physical(narrow, batch()).lanes_s


@given(
    m=st.integers(1, 4096),
    n=st.integers(1, 70_000),
    function=st.sampled_from(["softmax", "layernorm", "rmsnorm", "gelu", "add", "tanh", "rope"]),
    knob=st.sampled_from(["width", "l2_words_per_cycle", "l2_kib", "glb_mib", "dram_bytes_per_s", "frequency_hz"]),
)
def test_more_hardware_is_never_slower_and_never_moves_more(m: int, n: int, function: str, knob: str) -> None:
    kind = {"softmax": Kind.SOFTMAX, "layernorm": Kind.NORM, "rmsnorm": Kind.NORM}.get(function, Kind.ACTIVATION)
    table = OperationTable.from_rows([Operation("x", kind, m, n, function=function)])
    base = {
        "width": 32,
        "l2_words_per_cycle": 32,
        "l2_kib": 64,
        "glb_mib": 2,
        "dram_bytes_per_s": 80e9,
        "frequency_hz": 625e6,
    }
    less = vector.physical(table, batch(**{knob: base[knob]}))
    more = vector.physical(table, batch(**{knob: base[knob] * 2}))
    slower = [less.lanes_s, *less.level_s]
    faster = [more.lanes_s, *more.level_s]
    assert np.max(faster) <= np.max(slower)
    assert more.dram_bytes <= less.dram_bytes


def test_kinds_that_are_not_vector_work_are_refused() -> None:
    table = OperationTable.from_rows([Operation("g", Kind.GEMM, 4, 4, 4)])
    with pytest.raises(HardwareError, match="'g' of kind GEMM"):
        vector.check_kinds(table)


def test_further_operands_are_further_steps() -> None:
    """A sum of three tensors is two additions an element; the state that an optimizer reads is part of its one step."""
    names = {"two": (Kind.ELEMENTWISE, "add", 2), "three": (Kind.ELEMENTWISE, "add", 3)}
    table = OperationTable.from_rows(
        [Operation(name, kind, m=4, n=8, function=f, operands=count) for name, (kind, f, count) in names.items()]
    )
    assert vector.cycles_of(table)[0].tolist() == [vector.function("add").element_cycles * times for times in (1, 2)]
    steps = [Operation("step", Kind.OPTIMIZER_STEP, m=1, n=8, function="adamw", operands=count) for count in (2, 4)]
    assert vector.cycles_of(OperationTable.from_rows(steps))[0].tolist() == [vector.function("adamw").element_cycles] * 2


def test_cycles_of_scans_and_selections() -> None:
    """A scan is three multiply-adds a state of an element; a selection compares each element and keeps the k best of a row in order."""
    multiply, compare = function("mul").element_cycles, function("max").element_cycles
    table = OperationTable.from_rows(
        [
            Operation("scan", Kind.SCAN, m=8, n=64, k=16),
            Operation("best", Kind.TOPK, m=8, n=64, k=5),
            Operation("sum", Kind.ELEMENTWISE, function="add", m=8, n=64, operands=4),
            Operation("look_up", Kind.GATHER, m=8, n=64),
        ]
    )
    element, row, passes = cycles_of(table)
    assert element.tolist() == [3 * 16 * multiply, compare, 3 * function("add").element_cycles, 0]
    assert row.tolist() == [0, 5 * compare, 0, 0]
    assert passes.tolist() == [1, 1, 1, 1]


def test_a_softmax_as_its_page_says() -> None:
    """Five steps an element, 19 cycles of a lane with the exponential's 15; a division of 10 a row; three passes."""
    f = function("softmax")
    assert (f.element_cycles, f.row_cycles, f.passes) == (1 + 1 + 15 + 1 + 1, 10, 3)
