"""Beam search over trees of sparse linear models: look-ups, not products. In closed form over (shapes, points).

One row is one level of a tree for one query (`workloads.operation`, SPARSE_BEAM). Its bytes lie in the innermost memory that holds the
tree from the root down to this level; what lies farther out is read where it is, line by line:

    chain   = dependent reads * latency of that memory
    fetches = lines * max(1, 64 / line bytes)
    fetch   = max(fetches * latency / outstanding, fetches * line bytes / bandwidth)
    compute = (probes / gather lanes + passes * (max(hits, multiply-adds / lanes) + labels * score cycles / lanes)) / frequency
    time    = chain + max(fetch, compute)
    energy  = fetches * line bytes * energy of a byte there + lane cycles * energy of a lane

In flash a fetch is a page (dram.csv): a level that lies there costs a page for every counted line, and at most all of its own pages.
That is an upper bound, since lines of one chunk share pages.

The latency of a memory is the access time of every SRAM on the way (CACTI), each at least a cycle, and, for a DRAM, that of a read that
finds another row open in its bank (dram_latency.csv). A score is l3-hinge: a difference, a maximum, two products, an exponential, the
product with the parent's score, and a compare of the selection; a lane narrower than a score takes several passes.
One query runs on one core. The look-ups are never priced as the dense product that they replace.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs.unit_costs import UnitCosts, slowest
from hw_models.costs.vector import function, lane_pj
from hw_models.technology.tables import FLASH, dram, dram_random_s, sram
from workloads.ops import OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
COUNTED_LINE_BYTES = 64
SCORE_STEPS = ("sub", "max", "mul", "mul", "exp", "mul", "max")


def score_cycles() -> int:
    """Lane cycles of the score of one label."""
    return sum(function(name).element_cycles for name in SCORE_STEPS)


def level_latency_s(hardware: AcceleratorBatch) -> FloatArray:
    """Time from asking for a line to having it, by the level that holds it (points, levels) [s]."""
    cycle = 1.0 / hardware.frequency_hz
    spent = np.zeros(len(hardware))
    found = []
    for i, kind in enumerate(hardware.level_kinds):
        if kind == "sram":
            access = sram("access_s", hardware.level_bytes[:, i], hardware.node_nm, hardware.level_access_bytes[i])
            spent = spent + np.ceil(np.maximum(access, cycle) / cycle) * cycle
            found.append(spent)
        else:
            found.append(spent + dram_random_s(kind))
    return np.column_stack(found)


def home_level(table_bytes: FloatArray, hardware: AcceleratorBatch) -> IntArray:
    """Number of the innermost level that holds ``table_bytes`` (shapes,) of a tree (shapes, points); the DRAM if no other does."""
    held = np.where(np.array(hardware.level_shared), 1.0, 3.0) * hardware.level_bytes  # operands' buffers serve as one
    fits = table_bytes[:, None, None] <= held[None, :, :]
    fits[:, :, -1] = True
    first: IntArray = np.argmax(fits, axis=2)
    return first


def sparse_costs(shapes: OperationTable, hardware: AcceleratorBatch, rows: IntArray, costs: UnitCosts) -> None:
    """Fill the rows of SPARSE_BEAM operations."""
    table = shapes.take(rows)

    def column(name: str) -> FloatArray:
        values: FloatArray = (table.column(name) * table.column("batch")).astype(np.float64)[:, None]
        return values

    points = np.arange(len(hardware))[None, :]
    home = home_level(table.column("table_bytes").astype(np.float64), hardware)
    latency = level_latency_s(hardware)[points, home]
    line = hardware.gather_line_bytes[None, :].astype(np.float64)
    in_dram = home == hardware.levels - 1
    fetches = column("unique_lines") * np.maximum(1.0, COUNTED_LINE_BYTES / line)
    moved = fetches * line
    outermost = hardware.level_kinds[-1]
    if outermost in FLASH:
        page = float(dram(outermost).burst_bytes)
        own = np.ceil(column("parameters") * table.column("weight_bits").astype(np.float64)[:, None] / 8.0 / page)
        fetches = np.where(in_dram, np.minimum(column("unique_lines"), own), fetches)
        moved = np.where(in_dram, fetches * page, moved)
    word_bytes = hardware.word_bits[None, :] / 8.0
    frequency = hardware.frequency_hz[None, :]
    rate = hardware.level_read_words_per_cycle[points, home] * word_bytes * frequency
    waiting = fetches * latency / hardware.gather_outstanding[None, :]
    lanes = np.maximum(1, hardware.vector_lanes // hardware.cores)[None, :].astype(np.float64)
    labels = column("m") * table.column("n").astype(np.float64)[:, None]
    macs, hits, probes = column("sparse_macs"), column("row_hits"), column("row_probes")
    lane_cycles = labels * score_cycles()
    wide = np.ceil(table.column("input_bits").astype(np.float64)[:, None] / hardware.mac_bits[None, :])
    compute = (probes / hardware.gather_lanes[None, :] + wide * (np.maximum(hits, macs / lanes) + lane_cycles / lanes)) / frequency
    fetch = np.maximum(waiting, moved / rate)
    overlapped, bound = slowest([fetch, compute])
    chain = column("dependent_depth") * latency
    costs.latency_s[rows] = chain + overlapped
    by_word = hardware.level_read_pj_per_word[points, home]
    lane = lane_pj(hardware.mac_pj)[None, :] * wide
    costs.energy_j[rows] = (moved / word_bytes * by_word + (macs + lane_cycles + probes) * lane) * 1e-12
    costs.vector_s[rows] = compute
    costs.dram_s[rows] = np.where(in_dram, moved / rate, 0.0)
    costs.dram_bytes[rows] = np.where(in_dram, moved, 0.0)
    costs.bound[rows] = np.where((bound == 1) & (compute > chain), costs.bound_names.index("vector"), home + 1)
