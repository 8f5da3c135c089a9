"""The vector unit: the compatibility model against that tool's own operators, the physical one by its properties."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_models import templates, vector
from hw_models.accelerator import AcceleratorBatch
from hw_models.errors import HardwareError
from hw_models.vector_compat import catransformers
from workloads.ops import Kind, Operation, OperationTable

REFERENCE = Path(__file__).parent.parent / "reference" / "hardware"
# The names under which that tool lists the operators, and the function, kind and operands that we give them.
NAMES = {
    "Add": ("add", Kind.ELEMENTWISE, 2),
    "Softmax": ("softmax", Kind.SOFTMAX, 1),
    "NativeDropout": ("dropout", Kind.ELEMENTWISE, 1),
    "NativeLayerNorm": ("layernorm", Kind.NORM, 1),
    "MaskedFill": ("relu", Kind.ELEMENTWISE, 1),
}


def operators() -> list[tuple[str, list[int], dict[str, int], float, float]]:
    """Vector operators of the BERT runs: name, shape, knobs, latency [s], energy [J]; those whose shape is what was costed."""
    rows = []
    with (REFERENCE / "catransformers_ops_bertbase.csv").open() as file:
        for row in csv.DictReader(file):
            shape = json.loads(row["out"])[0]
            # Additions of a bias or a residual inside attention are costed on one row of the tensor that is listed, and the
            # sum of two scalars is a fixed cost: neither says what an addition costs.
            if row["kind"] != "VC" or row["op"] not in NAMES or (row["op"] == "Add" and row["component"] == "attention"):
                continue
            if math.prod(shape) == 1:
                continue
            knobs = {
                "cores": int(row["num"]),
                "width": int(row["width"]),
                "depth": int(row["depth"]),
                "l2_kib": int(row["L2_KB"]),
                "l2_words_per_cycle": int(row["L2_BW"]),
                "glb_mib": int(row["GLB_MB"]),
            }
            rows.append((row["op"], shape, knobs, float(row["latency_s"]), float(row["energy_J"])))
    return rows


def test_compatibility_with_every_operator_of_the_bert_runs() -> None:
    template = templates.load("edge22", profile="catransformers22")
    rows = operators()
    assert len(rows) == 54  # nine operators on six designs
    dropouts = {(str(k), math.prod(s)): (lat, en) for op, s, k, lat, en in rows if op == "NativeDropout"}
    for op, shape, knobs, latency, energy in rows:
        function, kind, operands = NAMES[op]
        m, n = math.prod(shape[:-1]), shape[-1]
        table = OperationTable.from_rows([Operation(op, kind, m, n, function=function, operands=operands)])
        cost = catransformers(table, template.batch(**knobs))
        if op == "Softmax":  # ours carries the dropout that follows it in that tool
            after = dropouts[str(knobs), math.prod(shape)]
            latency, energy = latency + after[0], energy + after[1]
        # Cycles are whole numbers there and here; energies are printed with their last digits rounded by that tool's own sums.
        assert cost.lanes_s[0, 0] == pytest.approx(latency, rel=1e-12)
        assert cost.energy_j[0, 0] == pytest.approx(energy, rel=3e-5)


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
        OperationTable.from_rows([Operation("a", Kind.ACTIVATION, 64, 64, function="gelu", input_bits=b, output_bits=b)])
        for b in (8, 16)
    )
    assert vector.physical(wide, batch()).lanes_s == 2 * vector.physical(narrow, batch()).lanes_s


@given(
    m=st.integers(1, 4096),
    n=st.integers(1, 70_000),
    function=st.sampled_from(["softmax", "layernorm", "rmsnorm", "gelu", "add", "tanh", "rope"]),
    knob=st.sampled_from(["width", "l2_words_per_cycle", "l2_kib", "glb_mib", "dram_words_per_cycle", "frequency_hz"]),
)
def test_more_hardware_is_never_slower_and_never_moves_more(m: int, n: int, function: str, knob: str) -> None:
    kind = {"softmax": Kind.SOFTMAX, "layernorm": Kind.NORM, "rmsnorm": Kind.NORM}.get(function, Kind.ACTIVATION)
    table = OperationTable.from_rows([Operation("x", kind, m, n, function=function)])
    base = {
        "width": 32,
        "l2_words_per_cycle": 32,
        "l2_kib": 64,
        "glb_mib": 2,
        "dram_words_per_cycle": 128,
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
