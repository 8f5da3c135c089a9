"""The vector unit: softmax, norms, activations, elementwise work and gathers, in closed form over (shapes, points).

Physical model. A function is a list of steps (vector_functions.csv), a step a number of cycles of a lane
(vector_steps.csv):

    compute cycles = ceil(elements / lanes) * element cycles + ceil(rows / lanes) * row cycles
    time           = max(compute, words / bandwidth of every level) / frequency
    energy         = lane cycles * (MAC + register read + write) + words moved * energy of a word, level by level

Every operation stands alone: its inputs come from the DRAM and its output goes there, through every level between
    (what fusing operations would save is not taken). A level reads and writes at the same time. A reduction passes
    over its rows several times: out of the innermost level that holds a row. Gathers read whole DRAM bursts and
    compute nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_models.errors import HardwareError, unknown_name
from hw_models.technology import dram, logic, read_table
from workloads.ops import Kind

if TYPE_CHECKING:
    from hw_models.accelerator import AcceleratorBatch
    from workloads.ops import OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

GATHERS = (Kind.EMBEDDING, Kind.GATHER)
VECTOR_KINDS = (Kind.NORM, Kind.SOFTMAX, Kind.ACTIVATION, Kind.ELEMENTWISE, Kind.TOPK, Kind.SCAN, *GATHERS)


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


@dataclass(frozen=True)
class VectorCosts:
    """Arrays (shapes, points): time of the lanes, time of each level, dynamic energy, DRAM traffic."""

    lanes_s: FloatArray
    level_s: list[FloatArray]
    energy_j: FloatArray
    dram_bytes: FloatArray


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
        elif (
            kind == Kind.SCAN
        ):  # decay and input of a state, and the contraction with the output matrix: three multiply-adds a state
            element[i] = 3 * int(table.k[i]) * function("mul").element_cycles
        else:
            f = function(str(table.function[i]))
            # Further operands of a sum or product are further steps of the same function.
            element[i] = f.element_cycles * max(1, int(table.operands[i]) - 1)
            row[i], passes[i] = f.row_cycles, f.passes
    return element, row, passes


def physical(table: OperationTable, hardware: AcceleratorBatch) -> VectorCosts:
    """Cost of each vector operation of ``table`` (shapes,) on each design (points,); see the module."""
    element_cycles, row_cycles, passes = (c[:, None] for c in cycles_of(table))
    lanes, word_bits = hardware.vector_lanes[None, :], hardware.word_bits[None, :].astype(np.float64)
    elements = (table.batch * table.m * table.n)[:, None]
    rows = (table.batch * table.m)[:, None]
    input_bits, output_bits = table.input_bits[:, None], table.output_bits[:, None]
    gathers = np.isin(table.kind, GATHERS)[:, None]

    # A lane is as wide as a MAC: wider numbers take it several times.
    wide = -(-np.maximum(input_bits, output_bits) // hardware.mac_bits[None, :])
    lane_steps = -(-elements // lanes) * element_cycles + -(-rows // lanes) * row_cycles
    lanes_s = lane_steps * wide / hardware.frequency_hz[None, :]

    row_bytes = table.n[:, None] * input_bits / 8.0
    burst = dram(hardware.level_kinds[-1]).burst_bytes
    gathered = rows * np.ceil(row_bytes / burst) * burst
    bytes_in = np.where(gathers, gathered, (table.row_input_elements() * table.input_bits / 8.0)[:, None])
    bytes_in = bytes_in + (table.row_second_elements() * table.weight_bits / 8.0)[:, None]
    bytes_out = (table.row_output_elements() * table.output_bits / 8.0)[:, None]
    words_in, words_out = bytes_in * 8.0 / word_bits, bytes_out * 8.0 / word_bits

    level_s: list[FloatArray] = []
    move_pj = np.zeros(np.broadcast_shapes(words_in.shape, lanes.shape))
    held = np.zeros(move_pj.shape, dtype=bool)  # a level further in already holds a whole row
    last = hardware.levels - 1
    for i in range(hardware.levels):
        copies = hardware.cores[None, :] if hardware.level_per_core[i] else 1
        refills = np.where(held, 1, passes)
        reads = words_in * refills + (words_out if i < last else 0.0)
        held = held | (hardware.level_bytes[None, :, i] >= row_bytes)
        writes = words_out + (words_in * np.where(held, 1, passes) if i < last else 0.0)
        read_rate = hardware.level_read_words_per_cycle[None, :, i] * copies
        write_rate = hardware.level_write_words_per_cycle[None, :, i] * copies
        cycles = np.maximum(reads / read_rate, writes / write_rate)
        level_s.append(cycles / hardware.frequency_hz[None, :])
        move_pj += reads * hardware.level_read_pj_per_word[None, :, i] + writes * hardware.level_write_pj_per_word[None, :, i]
        if i == last:
            dram_bytes = (reads + writes) * word_bits / 8.0
    step_pj = lane_pj(hardware)
    work = (elements * element_cycles + rows * row_cycles) * wide
    energy_j = (work * step_pj[None, :] + move_pj) * 1e-12
    return VectorCosts(np.asarray(lanes_s), level_s, np.asarray(energy_j), np.asarray(dram_bytes))


def lane_pj(hardware: AcceleratorBatch) -> FloatArray:
    """Energy of one cycle of a lane (points,) [pJ]: a MAC, a read and a write of the lane's register.

    The register goes with the array's MAC, whose energy already knows node, voltage and width.
    """
    mac, register = logic("mac"), logic("vector_register")
    share = (mac.energy_pj + register.energy_pj + register.write_energy_pj) / mac.energy_pj
    return np.asarray(hardware.mac_pj * share)


def check_kinds(table: OperationTable) -> None:
    """Raise HardwareError for a row that the vector unit does not cost."""
    bad = ~np.isin(table.kind, VECTOR_KINDS)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise HardwareError(
            f"operation {str(table.name[i])!r} of kind {Kind(int(table.kind[i])).name} is not a vector operation: "
            f"those are {', '.join(k.name for k in VECTOR_KINDS)}"
        )
