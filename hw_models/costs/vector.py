"""The vector unit: softmax, norms, activations, elementwise work and gathers, in closed form over (shapes, points).

Physical model. A function is a list of steps (vector_functions.csv), a step a number of cycles of a lane
(vector_steps.csv):

    compute cycles = ceil(elements / lanes) * element cycles + ceil(rows / lanes) * row cycles
    time           = max(compute, words / bandwidth of every level) / frequency
    energy         = lane cycles * (MAC + register read + write) + words moved * energy of a word, level by level

A softmax is max, add, exp, add, mul an element (1 + 1 + 15 + 1 + 1 = 19 cycles), a division a row (10), and three passes over the
row; a layer norm, a GELU and the others are rows of the same table.

Every operation stands alone: its inputs come from the DRAM and its output goes there, through every level between
(`hw_models.costs.residency` keeps tensors on chip). A level reads and writes at the same time. A reduction passes over its rows
several times: out of the innermost level that holds a row. Gathers read whole DRAM bursts and compute nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_models.costs.vector_unit import LevelRates, VectorResult, VectorWork, vector_unit
from hw_models.errors import HardwareError, unknown_name
from hw_models.technology.namespace import NUMPY, Array
from hw_models.technology.tables import dram, logic, read_table
from workloads.ops import Kind, of_kinds

if TYPE_CHECKING:
    from hw_models.accelerator.design import AcceleratorBatch
    from workloads.ops import OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GATHERS = (Kind.EMBEDDING, Kind.GATHER)
VECTOR_KINDS = (Kind.NORM, Kind.SOFTMAX, Kind.ACTIVATION, Kind.ELEMENTWISE, Kind.TOPK, Kind.SCAN, Kind.OPTIMIZER_STEP, *GATHERS)


@dataclass(frozen=True)
class VectorFunction:
    """Cycles of a lane for one element and for one row, passes over a row, cycles in CATransformers' model (None:
    unknown to it).
    """

    name: str
    element_cycles: int
    row_cycles: int
    passes: int
    compat_cycles: int | None


@cache
def functions() -> dict[str, VectorFunction]:
    """All functions that a vector unit evaluates, by name."""
    step = {r["step"]: int(r["cycles"]) for r in read_table("vector_steps.csv")}
    return {
        r["function"]: VectorFunction(
            r["function"],
            sum(step[s] for s in r["element_steps"].split()),
            sum(step[s] for s in r["row_steps"].split()),
            int(r["passes"]),
            int(r["compat_cycles"]) if r["compat_cycles"] else None,
        )
        for r in read_table("vector_functions.csv")
    }


def function(name: str) -> VectorFunction:
    """The vector function called ``name``."""
    known = functions()
    if name not in known:
        raise unknown_name("vector function", name, known)
    return known[name]


def cycles_of(table: OperationTable) -> tuple[IntArray, IntArray, IntArray]:
    """Lane cycles an element, lane cycles a row, and passes over a row, of each row of ``table`` (rows,)."""
    element, row, passes = (np.zeros(len(table), dtype=np.int64) for _ in range(3))
    for i, kind in enumerate(table.kind):
        passes[i] = 1
        if kind in GATHERS:
            continue
        if kind == Kind.TOPK:  # a compare an element, and the k survivors of a row are kept in order
            element[i] = function("max").element_cycles
            row[i] = int(table.k[i]) * function("max").element_cycles
        elif kind == Kind.SCAN:  # decay and input of a state, and its share of the output: three multiply-adds a state
            element[i] = 3 * int(table.k[i]) * function("mul").element_cycles
        else:
            f = function(str(table.function[i]))
            # Further operands of a sum or product are further steps of the same function; those of an optimizer are its states.
            times = 1 if kind == Kind.OPTIMIZER_STEP else max(1, int(table.operands[i]) - 1)
            element[i] = f.element_cycles * times
            row[i], passes[i] = f.row_cycles, f.passes
    return element, row, passes


def vector_work(table: OperationTable, burst_bytes: int) -> VectorWork:
    """The rows of ``table`` (shapes,) as columns (shapes, 1); gathers read whole bursts of ``burst_bytes``."""
    element_cycles, row_cycles, passes = cycles_of(table)
    rows = (table.batch * table.m).astype(np.float64)
    gathers = of_kinds(table.kind, GATHERS)
    row_bits = table.n * table.input_bits.astype(np.float64)
    burst = burst_bytes * 8.0
    read = np.where(gathers, rows * np.ceil(row_bits / burst) * burst, table.row_input_elements() * table.input_bits)
    columns = {
        "elements": rows * table.n,
        "rows": rows,
        "element_cycles": element_cycles,
        "row_cycles": row_cycles,
        "passes": passes,
        "width": np.maximum(table.input_bits, table.output_bits),
        "bits_in": read + table.row_second_elements() * table.weight_bits,
        "bits_out": table.row_output_elements() * table.output_bits,
        "row_bits": row_bits,
    }
    return VectorWork(**{name: column.astype(np.float64)[:, None] for name, column in columns.items()})


def level_rates(hardware: AcceleratorBatch) -> list[LevelRates]:
    """The levels of the designs as rows (1, points)."""
    result = []
    for i in range(hardware.levels):
        copies = hardware.cores if hardware.level_per_core[i] else np.ones_like(hardware.cores)
        columns = {
            "bits": hardware.level_bytes[:, i] * 8.0,
            "read_words_per_cycle": hardware.level_read_words_per_cycle[:, i] * copies,
            "write_words_per_cycle": hardware.level_write_words_per_cycle[:, i] * copies,
            "read_pj": hardware.level_read_pj_per_word[:, i],
            "write_pj": hardware.level_write_pj_per_word[:, i],
            "shared_bus": np.full(len(hardware), float(hardware.level_shared_bus[i])),
        }
        result.append(LevelRates(**{name: column[None, :] for name, column in columns.items()}))
    return result


def physical(table: OperationTable, hardware: AcceleratorBatch) -> VectorResult:
    """Cost of each vector operation of ``table`` (shapes,) on each design (points,); see the module."""
    return vector_unit(
        NUMPY,
        vector_work(table, dram(hardware.level_kinds[-1]).burst_bytes),
        lanes=hardware.vector_lanes[None, :].astype(np.float64),
        lane_bits=hardware.mac_bits[None, :].astype(np.float64),
        lane_pj=lane_pj(hardware.mac_pj)[None, :],
        word_bits=hardware.word_bits[None, :].astype(np.float64),
        frequency_hz=hardware.frequency_hz[None, :],
        levels=level_rates(hardware),
    )


def lane_pj(mac_pj: Array) -> Array:
    """Energy of one cycle of a lane [pJ], from that of an array's MAC (any namespace): a MAC, a read and a write of the lane's register.

    The register goes with the array's MAC, whose energy already knows node, voltage and width.
    """
    mac, register = logic("mac"), logic("vector_register")
    share = (mac.energy_pj + register.energy_pj + register.write_energy_pj) / mac.energy_pj
    return mac_pj * share


def check_kinds(table: OperationTable) -> None:
    """Raise HardwareError for a row that the vector unit does not cost."""
    bad = ~of_kinds(table.kind, VECTOR_KINDS)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise HardwareError(
            f"operation {str(table.name[i])!r} of kind {Kind(int(table.kind[i])).name} is not a vector operation: "
            f"those are {', '.join(k.name for k in VECTOR_KINDS)}"
        )
