"""The physical vector unit over any array namespace: lane time, time of each level of memory, energy and DRAM traffic.

`hw_models.costs.vector` makes its arguments of operation tables and designs; the twins call it with tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hw_models.technology.namespace import Array, Namespace


@dataclass(frozen=True)
class VectorWork:
    """Vector operations as arrays that broadcast to (shapes, points).

    ``element_cycles`` and ``row_cycles`` of a lane for one element and one row; ``passes`` over a row; widths in
    bits: ``width`` of the widest operand, ``bits_in`` and ``bits_out`` of all that goes in and comes out,
    ``row_bits`` of a row.
    """

    elements: Array
    rows: Array
    element_cycles: Array
    row_cycles: Array
    passes: Array
    width: Array
    bits_in: Array
    bits_out: Array
    row_bits: Array


@dataclass(frozen=True)
class LevelRates:
    """One level of memory as arrays that broadcast to (shapes, points): capacity [bits], words a cycle of all copies,
    pJ a word; ``shared_bus`` 1 where reads and writes take turns.
    """

    bits: Array
    read_words_per_cycle: Array
    write_words_per_cycle: Array
    read_pj: Array
    write_pj: Array
    shared_bus: Array | None = None


def transfer_cycles(xp: Namespace, reading: Array, writing: Array, shared_bus: Array | None) -> Array:
    """Cycles of a level that reads and writes for so many: the longer of both, or both where they share a bus (None: nowhere)."""
    longer = xp.maximum(reading, writing)
    return longer if shared_bus is None else xp.where(shared_bus != 0.0, reading + writing, longer)


@dataclass(frozen=True)
class VectorResult:
    """Arrays (shapes, points): lane time, time of each level, dynamic energy, DRAM traffic."""

    lanes_s: Array
    level_s: list[Array]
    energy_j: Array
    dram_bytes: Array


def vector_unit(
    xp: Namespace,
    work: VectorWork,
    *,
    lanes: Array,
    lane_bits: Array,
    lane_pj: Array,
    word_bits: Array,
    frequency_hz: Array,
    levels: Sequence[LevelRates],
) -> VectorResult:
    """The physical vector unit (see `hw_models.costs.vector`), exactly or relaxed as the namespace has it.

    ``lane_pj`` is the energy of one cycle of a lane; ``levels`` from the innermost to the DRAM.
    """
    # A lane has the width of a MAC: wider numbers take it several times.
    wide = xp.ceil(work.width / lane_bits)
    steps = xp.ceil(work.elements / lanes) * work.element_cycles + xp.ceil(work.rows / lanes) * work.row_cycles
    words_in, words_out = work.bits_in / word_bits, work.bits_out / word_bits
    level_s = []
    move_pj: Array = 0.0
    refills: Array = work.passes
    last = len(levels) - 1
    reads = writes = words_in
    for i, level in enumerate(levels):
        reads = words_in * refills
        # From here on outwards a level is read once for each time that the levels inside it miss the row.
        refills = xp.where(level.bits >= work.row_bits, 1.0, refills)
        writes = words_out
        if i < last:
            reads, writes = reads + words_out, writes + words_in * refills
        cycles = transfer_cycles(xp, reads / level.read_words_per_cycle, writes / level.write_words_per_cycle, level.shared_bus)
        level_s.append(cycles / frequency_hz)
        move_pj = move_pj + (reads * level.read_pj + writes * level.write_pj)
    lane_cycles = (work.elements * work.element_cycles + work.rows * work.row_cycles) * wide
    energy_j = (lane_cycles * lane_pj + move_pj) * 1e-12
    return VectorResult(steps * wide / frequency_hz, level_s, energy_j, (reads + writes) * word_bits / 8.0)
