"""The vector unit of CATransformers@ad8c859, artefacts included: profile `catransformers22` only.

Formulas found by running that tool (docs/models/hardware.md). They are not physical: a bigger on-chip buffer gives
more DRAM energy, because a tile of elements is charged as one DRAM access; GELU costs what ReLU does; an attention
softmax is followed by a dropout at inference; gathers are free. With t = ceil(bytes / (L2 bytes * cores)), or
ceil(bytes / L2 bytes) for a sum of two tensors:

    cycles = ceil(elements / lanes) * c                      (softmax: rows * ceil(n / lanes) + 10 + 10 *
    ceil(elements / lanes)) energy = ceil(elements / t) * (DRAM read + write + L2 read + write) / 4 + elements * (c
    MACs and register reads, c + 1 writes)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_models.costs.vector import GATHERS, function
from hw_models.costs.vector_unit import VectorResult
from hw_models.errors import HardwareError
from hw_models.technology.tables import logic, sram
from workloads.ops import Kind

if TYPE_CHECKING:
    from hw_models.accelerator.design import AcceleratorBatch
    from workloads.ops import OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_WORDS_PER_ACCESS = 4.0
_SOFTMAX_DIVIDE = 10


def catransformers(table: OperationTable, hardware: AcceleratorBatch) -> VectorResult:
    """Cost of each vector operation of ``table`` (shapes,) on each design (points,) as that tool counts it."""
    shape = (len(table), len(hardware))
    cycles, energy_pj, dram = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for i in range(len(table)):
        if table.kind[i] in GATHERS:
            continue
        elements, n, m = int(table.batch[i] * table.m[i] * table.n[i]), int(table.n[i]), int(table.batch[i] * table.m[i])
        name = str(table.function[i])
        if table.kind[i] in (Kind.TOPK, Kind.SCAN, Kind.OPTIMIZER_STEP) or function(name).compat_cycles is None:
            raise HardwareError(
                f"profile catransformers22 has no cost for {name or Kind(int(table.kind[i])).name!r}: "
                "that tool does not know it; use the default profile"
            )
        size = elements * int(table.output_bits[i]) / 8.0
        if name == "softmax":
            parts = [_softmax(elements, n, m, size, hardware), _elementwise("dropout", elements, n, m, size, hardware)]
        else:
            times = max(1, int(table.operands[i]) - 1)
            parts = [_elementwise(name, elements, n, m, size, hardware)] * times
        for part_cycles, part_pj, part_dram in parts:
            cycles[i] += part_cycles
            energy_pj[i] += part_pj
            dram[i] += part_dram
    return VectorResult(
        cycles / hardware.frequency_hz[None, :],
        [np.zeros(shape) for _ in range(hardware.levels)],
        energy_pj * 1e-12,
        dram * hardware.word_bits[None, :] / 8.0,
    )


def _ceil(a: float | IntArray, b: IntArray) -> IntArray:
    return np.asarray(np.ceil(a / b), dtype=np.int64)


def _tile_pj(hardware: AcceleratorBatch) -> FloatArray:
    """One DRAM and one L2 access in each direction, shared by the words of an access (points,) [pJ]."""
    # That tool's vector unit has the L2 of the knob, not the array's enlarged one.

    l2 = hardware.vector_buffer_bytes
    access = sram("read_pj", l2, hardware.node_nm) + sram("write_pj", l2, hardware.node_nm)
    dram = hardware.level_read_pj_per_word[:, -1] + hardware.level_write_pj_per_word[:, -1]
    return np.asarray((dram + access) / _WORDS_PER_ACCESS)


def _elementwise(
    name: str, elements: int, n: int, m: int, size: float, hardware: AcceleratorBatch
) -> tuple[FloatArray, FloatArray, FloatArray]:
    c = function(name).compat_cycles or 0
    lanes = hardware.vector_lanes
    mac, register = logic("mac").energy_pj, logic("vector_register")
    spread = hardware.vector_buffer_bytes if name in ("add", "sub", "mul") else hardware.vector_buffer_bytes * hardware.cores
    tiles = np.ceil(elements / _ceil(size, spread))
    padded = _ceil(elements, lanes) * lanes
    reads, writes = (2, 3) if name in ("add", "sub", "mul") else (c, c + 1)
    energy = tiles * _tile_pj(hardware) + padded * (c * mac + reads * register.energy_pj + writes * register.write_energy_pj)
    if name == "layernorm":
        energy = energy + (1.5 * elements + 2.0 * lanes * elements / m) * register.write_energy_pj
    return (_ceil(elements, lanes) * c).astype(np.float64), energy, 2.0 * tiles


def _softmax(elements: int, n: int, m: int, size: float, hardware: AcceleratorBatch) -> tuple[FloatArray, FloatArray, FloatArray]:
    lanes = hardware.vector_lanes
    mac, register, table = logic("mac").energy_pj, logic("vector_register"), logic("lookup_table").energy_pj
    per_tile = _ceil(size, hardware.vector_buffer_bytes * hardware.cores)
    tiles = np.ceil(elements / per_tile)
    c = _SOFTMAX_DIVIDE
    padded = m * _ceil(n, lanes) * lanes
    l2_lanes = tiles * np.ceil(per_tile / lanes) * lanes
    energy = (
        2.0 * tiles * _tile_pj(hardware)
        + elements * (table + c * (mac + register.energy_pj))
        + padded * (mac + register.energy_pj)
        + l2_lanes * (c * register.energy_pj + 2.0 * register.write_energy_pj)
        + (m * 2.0 * c * np.minimum(lanes, n) + m * 2.0 * lanes) * register.write_energy_pj
    )
    cycles = m * _ceil(n, lanes) + c + c * _ceil(elements, lanes)
    return cycles.astype(np.float64), energy, 4.0 * tiles
