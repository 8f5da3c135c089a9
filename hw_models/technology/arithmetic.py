"""Arithmetic by format, flip-flops, clock network and what a die has beside units and SRAM: the logic of profile `silicon`.

    from hw_models.technology import arithmetic
    arithmetic.mac_pj(8.0, 16.0, 0.8)               # a multiplication and an addition [pJ]
    arithmetic.register_bit_pj(16.0, 0.8)           # a flip-flop's cycle [pJ]

An integer multiplier of b bits and an adder of 32 bits (of 2 b, where that is wider) are Horowitz's at 45 nm and 0.9 V, with the
power law between his 8 and 32 bits (a multiplier goes with b^1.98); a flip-flop is Aladdin's at 40 nm. Other nodes and supplies
follow the polynomials of Stillmaker and Baas at the design's own supply (`hw_models.technology.tables`). docs/models/hardware.md has
the formulas, arithmetic.csv the sources. None of these is one of the chips that `dse validate chips` judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.technology.tables import logic_area, logic_energy, read_table

FloatArray = npt.NDArray[np.float64]
SUM_BITS: Final = 32.0
"""Width of a partial sum of up to 16 bits a product."""
PIPELINE_WORDS: Final = 8
"""Up to so many words a unit has flip-flops in its path (two weights, an activation, a sum); beyond them a register file that is read."""
LANE_REGISTER_BITS: Final = 96.0
"""Register of a lane, as logic.csv has it."""
CLOCK_OVER_LOGIC: Final = 0.75
"""Power of the clock network over that of the logic and registers that it drives: 27.2 % over 18.4 + 17.8 % of DianNao (Chen et al., ASPLOS
2014, table 6, recalled)."""
LOGIC_AREA_FACTOR: Final = 3.92
"""Area of a core over that of its arithmetic and pipeline registers, and
SRAM_AREA_FACTOR: of its memories over CACTI's: least squares of logarithms over DianNao, ShiDianNao, Envision, SCNN and Thinker
(reference_dies.csv), which it finds at 0.65 to 1.61 of their areas, each from the other four at 0.49 to 2.50."""
SRAM_AREA_FACTOR: Final = 3.10


@dataclass(frozen=True)
class _Row:
    """A row of arithmetic.csv: energy of a use [pJ], area [um2], and the node and supply that they hold at."""

    node_nm: float
    supply_v: float
    energy_pj: float
    area_um2: float


@cache
def _rows() -> dict[tuple[str, int], _Row]:
    names = ("node_nm", "supply_v", "energy_pj", "area_um2")
    return {(r["component"], int(r["bits"])): _Row(*(float(r[name]) for name in names)) for r in read_table("arithmetic.csv")}


def _law(component: str, what: str, bits: npt.ArrayLike) -> FloatArray:
    """Energy or area of a unit of ``bits`` at the table's node: the power law through its 8 and 32 bits."""
    narrow, wide = (float(getattr(_rows()[component, width], what)) for width in (8, 32))
    exponent = np.log(wide / narrow) / np.log(32 / 8)
    return np.asarray(narrow * (np.asarray(bits, dtype=np.float64) / 8.0) ** exponent)


def sum_bits(bits: npt.ArrayLike) -> FloatArray:
    """Width of the sum of products of ``bits`` [bits]."""
    return np.maximum(SUM_BITS, 2.0 * np.asarray(bits, dtype=np.float64))


def _energy_scale(row: _Row, node_nm: npt.ArrayLike, supply_v: npt.ArrayLike) -> FloatArray:
    return np.asarray(logic_energy(node_nm, supply_v) / logic_energy(row.node_nm, row.supply_v))


def mac_pj(bits: npt.ArrayLike, node_nm: npt.ArrayLike, supply_v: npt.ArrayLike) -> FloatArray:
    """Energy of an integer multiply-accumulate of ``bits`` without its registers [pJ] (broadcast)."""
    total = _law("multiplier", "energy_pj", bits) + _law("adder", "energy_pj", sum_bits(bits))
    return np.asarray(total * _energy_scale(_rows()["multiplier", 8], node_nm, supply_v))


def register_bit_pj(node_nm: npt.ArrayLike, supply_v: npt.ArrayLike) -> FloatArray:
    """Energy of a flip-flop that takes a new bit [pJ]; one that keeps its bit is not clocked and costs nothing."""
    row = _rows()["register", 1]
    return np.asarray(row.energy_pj * _energy_scale(row, node_nm, supply_v))


def mac_um2(bits: npt.ArrayLike, node_nm: npt.ArrayLike) -> FloatArray:
    """Cells of an integer multiply-accumulate of ``bits`` [um2] (broadcast)."""
    total = _law("multiplier", "area_um2", bits) + _law("adder", "area_um2", sum_bits(bits))
    return np.asarray(total * logic_area(node_nm) / logic_area(_rows()["multiplier", 8].node_nm))


def register_bit_um2(node_nm: npt.ArrayLike) -> FloatArray:
    """Cells of a flip-flop [um2]."""
    row = _rows()["register", 1]
    return np.asarray(row.area_um2 * logic_area(node_nm) / logic_area(row.node_nm))


def is_file(register_bytes: npt.ArrayLike, word_bits: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether a unit's registers are a file that is read word by word."""
    return np.asarray(np.asarray(register_bytes) * 8.0 > PIPELINE_WORDS * np.asarray(word_bits, dtype=np.float64))


def lane_um2(bits: FloatArray, node_nm: FloatArray) -> FloatArray:
    """Area of a lane of the vector unit with its register of 12 bytes (points,) [um2]."""
    return np.asarray(LOGIC_AREA_FACTOR * (mac_um2(bits, node_nm) + LANE_REGISTER_BITS * register_bit_um2(node_nm)))


@dataclass(frozen=True)
class UnitEnergy:
    """What a unit of an array costs (points,) [pJ]: a multiply-accumulate, and a read and a write of a word of its registers."""

    mac_pj: FloatArray
    read_pj: FloatArray
    write_pj: FloatArray


def unit_energy(
    *,
    bits: FloatArray,
    word_bits: FloatArray,
    register_bytes: FloatArray,
    adder_tree: FloatArray,
    outputs_rest: npt.NDArray[np.bool_],
    node_nm: FloatArray,
    supply_v: FloatArray,
    file_read_pj: FloatArray,
    file_write_pj: FloatArray,
) -> UnitEnergy:
    """Energy of a unit whose every multiply-accumulate reads three words of its registers and writes one (docs/models/mapping.md).

    Flip-flops: in a cycle the operand that moves (both, where outputs rest) and 1 / ``adder_tree`` of a sum take new bits, the resting one
    keeps its own, and reading costs nothing; so the reads are 0 and what the one write of a word leaves out is part of ``mac_pj``. A
    register file costs ``file_read_pj``, ``file_write_pj`` a word. Both with the clock network's share, which follows what it drives.
    """
    clocked = 1.0 + CLOCK_OVER_LOGIC
    bit = register_bit_pj(node_nm, supply_v) * clocked
    moving = np.where(outputs_rest, 2.0, 1.0) * bits + sum_bits(bits) / adder_tree
    arithmetic = mac_pj(bits, node_nm, supply_v) * clocked
    in_file = is_file(register_bytes, word_bits)
    return UnitEnergy(
        mac_pj=np.where(in_file, arithmetic, arithmetic + (moving - word_bits) * bit),
        read_pj=np.where(in_file, file_read_pj, 0.0),
        write_pj=np.where(in_file, file_write_pj, word_bits * bit),
    )


def unit_um2(*, bits: FloatArray, word_bits: FloatArray, register_bytes: FloatArray, node_nm: FloatArray) -> FloatArray:
    """Area of a unit with its registers (points,) [um2]: arithmetic and flip-flops of its path with what stands around them
    (`LOGIC_AREA_FACTOR`); a register file at its cells alone."""
    cells = register_bytes * 8.0 * register_bit_um2(node_nm)
    unit = LOGIC_AREA_FACTOR * mac_um2(bits, node_nm)
    return np.asarray(unit + np.where(is_file(register_bytes, word_bits), cells, LOGIC_AREA_FACTOR * cells))
