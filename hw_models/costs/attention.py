"""Fused attention: scores, softmax and context of a tile of queries without the scores ever leaving the chip.

    prefill:  out[m, v] = softmax(q[m, k] x keys[n, k]^T) x values[n, v],  the queries of the heads that share a
        KV head stacked
    decode:   the same with few queries; keys and values stream from the KV cache

The unfused form is three rows of an operation table (product, softmax, product); this is the model of the single row.

* Arrays: both products as the mapping search tiles them, causal and windowed work skipped in proportion to the
visible pairs.
* Innermost level: words and energy of these mappings.
* Outer levels (global buffer, DRAM), after FlashAttention: a tile of queries with its output stays inside while keys
and values stream
  past, so that these are read once for every tile of queries:

      words = Q + O + (K + V) * ceil(m / tile),   tile * (k + v + block) + block * (k + v) <= capacity inside,   block
      = columns

* Vector unit: the softmax of the visible pairs, and one multiplication of every output element for each block of keys
(rescaling).
* Time: array, vector unit and levels work at the same time; the slowest is the bound.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_models.costs.products import search_products
from hw_models.costs.unit_costs import slowest
from hw_models.costs.vector import function, lane_pj
from hw_models.costs.vector_unit import transfer_cycles
from hw_models.errors import HardwareError
from hw_models.technology.namespace import NUMPY
from hw_models.technology.profiles import profile as find_profile

if TYPE_CHECKING:
    from hw_models.accelerator.design import AcceleratorBatch
    from hw_models.costs.unit_costs import Criterion, UnitCosts
    from workloads.ops import OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def query_tile(rows: IntArray, head: FloatArray, block: FloatArray, capacity_words: FloatArray) -> FloatArray:
    """Largest tile of queries that fits with its output, its scores and a block of keys and values; at least one, at
    most ``rows``.

    ``head`` is k + v_dim in words of the capacity. Shapes broadcast.
    """
    room = np.floor((capacity_words - block * head) / (head + block))
    return np.asarray(np.clip(room, 1.0, rows))


def attention_costs(
    shapes: OperationTable,
    hardware: AcceleratorBatch,
    rows: IntArray,
    costs: UnitCosts,
    criterion: Criterion,
    threads: int | None,
) -> None:
    """Fill ``costs`` for the rows of fused attention (ATTENTION_PREFILL, ATTENTION_DECODE)."""
    if find_profile(hardware.profile).mapper == "sunstone":
        raise HardwareError(
            f"profile {hardware.profile} has no fused attention (operation {str(shapes.name[rows[0]])!r}): "
            "build the workload with fused_attention=False or use the default profile"
        )
    table = shapes.take(rows)
    parts = attention_parts(table, hardware, criterion, threads)
    last = hardware.levels - 1
    word, per_cycle = hardware.word_bits[None, :].astype(np.float64), 1.0 / hardware.frequency_hz[None, :]
    in_words = (table.row_input_elements() * table.input_bits)[:, None] / word
    out_words = (table.row_output_elements() * table.output_bits)[:, None] / word
    second_words = (table.row_second_elements() * table.weight_bits)[:, None] / word
    energy_pj = parts.energy_pj
    times = list(parts.inner_times)
    dram_bytes = np.zeros(energy_pj.shape)
    for level in range(1, hardware.levels):
        read, write = in_words + second_words * parts.second_fetches(level), out_words
        if level < last:  # what the next level out sends in is written here first, and the output is read out again
            read, write = read + out_words, write + in_words + second_words
        cycles = transfer_cycles(
            NUMPY,
            read / hardware.level_read_words_per_cycle[None, :, level],
            write / hardware.level_write_words_per_cycle[None, :, level],
            hardware.level_shared_bus[level],
        )
        copies = hardware.cores[None, :] if hardware.level_per_core[level] else 1
        times.append(cycles / copies * per_cycle)
        energy_pj = (
            energy_pj + read * hardware.level_read_pj_per_word[None, :, level] + write * hardware.level_write_pj_per_word[None, :, level]
        )
        if level == last:
            dram_bytes = (read + write) * word / 8.0
    times.append(parts.vector_s)
    energy_pj = energy_pj + parts.vector_pj

    latency, bound = slowest([np.broadcast_to(t, energy_pj.shape) for t in times])
    costs.latency_s[rows], costs.bound[rows] = latency, bound
    costs.energy_j[rows] = energy_pj * 1e-12
    costs.array_s[rows], costs.vector_s[rows], costs.dram_s[rows] = times[0], times[-1], times[-2]
    costs.dram_bytes[rows] = dram_bytes


@dataclass(frozen=True, eq=False)
class AttentionParts:
    """What fused attention does inside, whatever the outer levels move: arrays that broadcast to (rows, points).

    ``inner_times``: of the arrays and the innermost level. ``energy_pj``: of both. ``vector_s``, ``vector_pj``: of the softmax and the
    rescaling.
    """

    hardware: AcceleratorBatch
    inner_times: tuple[FloatArray, FloatArray]
    energy_pj: FloatArray
    vector_s: FloatArray
    vector_pj: FloatArray
    queries: IntArray
    head_words: FloatArray
    kv_words: FloatArray
    block: FloatArray
    share: FloatArray

    def second_fetches(self, level: int, held_bits: FloatArray | float = 0.0) -> FloatArray:
        """How often keys and values pass the boundary of a level, ``held_bits`` of the level inside being taken."""
        hardware, inside = self.hardware, level - 1
        word = hardware.word_bits[None, :].astype(np.float64)
        held = (hardware.level_bytes[None, :, inside] * 8.0 - held_bits) / word / (2.0 if hardware.level_double_buffered[inside] else 1.0)
        # A level of each core holds the tile of one head at a time; a shared one is divided among the cores, which
        # work on a head each.
        capacity = held if hardware.level_per_core[inside] else held / hardware.cores[None, :]
        refetch = np.ceil(self.queries / query_tile(self.queries, self.head_words, self.block, capacity))
        # Keys and values that fit inside whole are read once, whatever the tile of queries.
        resident = self.kv_words + self.head_words <= capacity
        return np.asarray(np.where(resident, 1.0, refetch * np.maximum(self.share, 1.0 / refetch)))


def attention_parts(table: OperationTable, hardware: AcceleratorBatch, criterion: Criterion, threads: int | None) -> AttentionParts:
    """The inside of rows of fused attention on designs."""
    array = _products(table, hardware, criterion, threads)
    visible = table.attention_pairs().astype(np.float64) / (table.m * table.n)
    share = visible[:, None]
    pairs = (table.batch * table.attention_pairs()).astype(np.float64)[:, None]
    word = hardware.word_bits[None, :].astype(np.float64)
    kv_heads = (table.batch // table.kv_share)[:, None]
    head_words = (table.k * table.weight_bits + table.v_dim * table.weight_bits)[:, None] / word
    second_words = (table.row_second_elements() * table.weight_bits)[:, None] / word
    block = np.minimum(table.n[:, None], hardware.array_columns[None, :]).astype(np.float64)
    per_cycle = 1.0 / hardware.frequency_hz[None, :]
    inner_copies = hardware.cores[None, :] if hardware.level_per_core[0] else 1
    inner_cycles = transfer_cycles(
        NUMPY,
        array.inner_reads / hardware.level_read_words_per_cycle[None, :, 0],
        array.inner_writes / hardware.level_write_words_per_cycle[None, :, 0],
        hardware.level_shared_bus[0],
    )
    softmax, scale = function("softmax"), function("mul")
    blocks = np.ceil(table.n[:, None] / block)
    outputs = (table.batch * table.m * table.v_dim)[:, None].astype(np.float64)
    work = pairs * softmax.element_cycles + (table.batch * table.m)[:, None] * softmax.row_cycles
    work = work + outputs * blocks * scale.element_cycles
    return AttentionParts(
        hardware,
        (array.compute_cycles * share * per_cycle, inner_cycles * share / inner_copies * per_cycle),
        array.inner_pj * share,
        np.ceil(work / hardware.vector_lanes[None, :]) * per_cycle,
        work * lane_pj(hardware.mac_pj)[None, :],
        (table.m * table.kv_share)[:, None],
        head_words,
        second_words / kv_heads,
        block,
        share,
    )


class _Products:
    """Array cycles, and energy and words inside the innermost level, of the two products together: arrays (rows,
    points).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.compute_cycles = np.zeros(shape)
        self.inner_pj = np.zeros(shape)
        self.inner_reads = np.zeros(shape)
        self.inner_writes = np.zeros(shape)


def _products(table: OperationTable, hardware: AcceleratorBatch, criterion: Criterion, threads: int | None) -> _Products:

    kv_heads, queries = table.batch // table.kv_share, table.m * table.kv_share
    sizes = np.concatenate(
        [
            np.column_stack([kv_heads, queries, table.n, table.k]),
            np.column_stack([kv_heads, queries, table.v_dim, table.n]),
        ]
    )
    # The scores live on the chip at the width of the activations.
    bits = np.concatenate(
        [
            np.column_stack([table.input_bits, table.weight_bits, table.input_bits]),
            np.column_stack([table.input_bits, table.weight_bits, table.output_bits]),
        ]
    )
    found = search_products(
        sizes,
        np.zeros(len(sizes), dtype=bool),
        hardware,
        bits=bits,
        criterion=criterion,
        threads=threads if threads is not None else (os.cpu_count() or 1),
        labels=[str(name) for name in np.tile(table.name, 2)],
        with_mapping=False,
    )
    outer = slice(1, None)
    outer_pj = (found.read_words[..., outer] * hardware.level_read_pj_per_word[None, :, outer]).sum(axis=-1)
    outer_pj += (found.write_words[..., outer] * hardware.level_write_pj_per_word[None, :, outer]).sum(axis=-1)
    rows = len(table)
    result = _Products((rows, len(hardware)))
    for part in (slice(0, rows), slice(rows, 2 * rows)):
        result.compute_cycles += found.compute_cycles[part]
        result.inner_pj += np.maximum(found.energy_pj[part] - outer_pj[part], 0.0)
        result.inner_reads += found.read_words[part, :, 0]
        result.inner_writes += found.write_words[part, :, 0]
    return result
