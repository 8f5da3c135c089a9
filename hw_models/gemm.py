"""Matrix products and convolutions: the mapping search called for the rows of an operation table."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_models.errors import HardwareError
from hw_models.profiles import profile as find_profile
from workloads.ops import Kind

if TYPE_CHECKING:
    from dse_kernels.mapping import MappingHardware

    from hw_models.accelerator import AcceleratorBatch
    from hw_models.cost import Criterion, Progress, UnitCosts
    from workloads.ops import OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
# Shapes given to the search at once: enough to keep the threads busy, few enough that the words of every level stay
# small
# and that progress is seen.
_CHUNK = 64


def mapping_hardware(batch: AcceleratorBatch) -> MappingHardware:
    """The designs as the mapping search wants them, by the rules of their profile."""
    from dse_kernels import mapping

    sunstone = find_profile(batch.profile).mapper == "sunstone"
    words = np.floor(batch.level_bytes * 8.0 / batch.word_bits[:, None])
    usable = np.floor(words / np.where(batch.level_double_buffered, 2.0, 1.0))
    return mapping.MappingHardware(
        cores=batch.cores,
        array_rows=batch.array_rows,
        array_columns=batch.array_columns,
        array_kind=batch.array_kind,
        dataflow=batch.dataflow,
        mac_pj=batch.mac_pj,
        level_words=usable,
        level_read_words_per_cycle=batch.level_read_words_per_cycle,
        level_write_words_per_cycle=batch.level_write_words_per_cycle,
        level_read_pj_per_word=batch.level_read_pj_per_word,
        level_write_pj_per_word=batch.level_write_pj_per_word,
        level_shared=np.array(batch.level_shared),
        level_per_core=np.array(batch.level_per_core),
        register_words=batch.register_bytes * 8 // batch.word_bits,
        register_read_pj_per_word=batch.register_read_pj_per_word,
        register_write_pj_per_word=batch.register_write_pj_per_word,
        register_keeps=mapping.KEEP_WEIGHTS if sunstone else mapping.KEEP_ALL,
        split_axes=sunstone,
        split_k_over_cores=sunstone,
        pooled_bandwidth=sunstone,
        count_refills=not sunstone,
        word_bits=batch.word_bits,
    )


def product_shapes(table: OperationTable) -> tuple[IntArray, npt.NDArray[np.bool_], FloatArray, FloatArray]:
    """Shapes (rows, 4) as batch, m, n, k; whether the batch shares the second operand; operand bits (rows, 3); input
    expansion (rows,).

    Products side by side in groups become a batch with second operands of their own. Where the second operand is a
    weight, the batch of the table shares it and counts as rows.
    """
    weight = table.second_is_weight
    grouped = table.groups > 1
    m = np.where(weight, table.batch * table.m, table.m)
    batch = np.where(weight, table.groups, table.batch * table.groups)
    shared = weight & ~grouped
    shapes = np.column_stack([batch, m, table.n, table.k]).astype(np.int64)
    bits = np.column_stack([table.input_bits, table.weight_bits, table.output_bits]).astype(np.float64)
    streamed = (table.batch * table.groups * table.m * table.k).astype(np.float64)
    stored = np.where(table.input_elements > 0, table.input_elements, streamed)
    expansion = np.where(table.kind == Kind.CONV, np.maximum(streamed / stored, 1.0), 1.0)
    return shapes, shared, bits, expansion


def product_costs(
    shapes: OperationTable,
    hardware: AcceleratorBatch,
    rows: IntArray,
    costs: UnitCosts,
    criterion: Criterion,
    threads: int | None,
    progress: Progress | None,
) -> None:
    """Fill ``costs`` for the rows of matrix products (GEMM, CONV); the rows of one shape are searched once."""
    from dse_kernels import mapping

    table = shapes.take(rows)
    sizes, shared, bits, expansion = product_shapes(table)
    key = np.column_stack([sizes, shared, bits, expansion])
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    target = mapping_hardware(hardware)
    workers = threads if threads is not None else (os.cpu_count() or 1)
    for start in range(0, len(first), _CHUNK):
        part = first[start : start + _CHUNK]
        found = mapping.search(
            sizes[part],
            shared[part],
            target,
            operand_bits=bits[part],
            input_expansion=expansion[part],
            criterion=criterion,
            threads=workers,
            return_words=True,
        )
        if not found.feasible.all():
            raise _no_mapping(table, hardware, part, found.feasible)
        assert found.read_words is not None
        assert found.write_words is not None
        for i in range(len(part)):
            where = rows[inverse == start + i]
            _fill(
                costs,
                where,
                hardware,
                found.cycles[i],
                found.compute_cycles[i],
                found.energy_pj[i],
                found.read_words[i],
                found.write_words[i],
            )
        if progress is not None:
            progress(min(start + _CHUNK, len(first)), len(first))


def _fill(
    costs: UnitCosts,
    rows: IntArray,
    hardware: AcceleratorBatch,
    cycles: FloatArray,
    compute: FloatArray,
    energy_pj: FloatArray,
    reads: FloatArray,
    writes: FloatArray,
) -> None:
    """Costs (points,) of one shape into all its rows; ``reads`` and ``writes`` are words of each level (points,
    levels).
    """
    per_cycle = 1.0 / hardware.frequency_hz
    copies = np.where(np.array(hardware.level_per_core)[None, :], hardware.cores[:, None], 1)
    busy = np.maximum(reads / hardware.level_read_words_per_cycle, writes / hardware.level_write_words_per_cycle) / copies
    costs.latency_s[rows] = cycles * per_cycle
    costs.energy_j[rows] = energy_pj * 1e-12
    costs.array_s[rows] = compute * per_cycle
    costs.dram_s[rows] = busy[:, -1] * per_cycle
    costs.dram_bytes[rows] = (reads[:, -1] + writes[:, -1]) * (hardware.word_bits / 8.0)
    costs.bound[rows] = np.where(compute >= cycles, 0, 1 + np.argmax(busy, axis=1))


def _no_mapping(
    table: OperationTable, hardware: AcceleratorBatch, part: IntArray, feasible: npt.NDArray[np.bool_]
) -> HardwareError:
    shape, point = (int(v) for v in np.argwhere(~feasible)[0])
    row = int(part[shape])
    label = hardware.names[point] if hardware.names else f"design {point}"
    held = ", ".join(
        f"{name} {int(size)} bytes" for name, size in zip(hardware.level_names[:-1], hardware.level_bytes[point], strict=False)
    )
    return HardwareError(
        f"no tile of operation {str(table.name[row])!r} "
        f"(batch {table.batch[row]}, m {table.m[row]}, n {table.n[row]}, k {table.k[row]}) "
        f"fits the memories of {label} ({held}): enlarge the innermost level or take a smaller array"
    )
