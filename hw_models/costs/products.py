"""Matrix products and convolutions: the mapping search called for the rows of an operation table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from dse_kernels import mapping

from hw_models.costs.mapping import is_sunstone, mapping_hardware
from hw_models.costs.vector_unit import transfer_cycles
from hw_models.errors import HardwareError
from hw_models.technology.namespace import NUMPY
from workloads.ops import Kind

if TYPE_CHECKING:
    from dse_kernels.mapping import MappingColumns, MappingHardware

    from hw_models.accelerator.design import AcceleratorBatch
    from hw_models.costs.unit_costs import Criterion, Progress, UnitCosts, Unmapped
    from workloads.ops import OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
# Shapes given to the search at once: enough to keep the threads busy, few enough that the words of every level stay small and
# that progress is seen.
_CHUNK = 64


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


def map_windows(table: OperationTable, sizes: IntArray, shared: npt.NDArray[np.bool_]) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """What the search is told of feature maps (rows, 5), as `dse_kernels.mapping.WINDOW` has it, and of which products the
    entries of the batch may lie side by side on an array (rows,): groups do.

    ``sizes`` and ``shared`` are those of `product_shapes`. Where the filter of a convolution is not known, its map is read whole
    for every cut, but never more than its im2col matrix.
    """
    entries = np.where(shared, 1, sizes[:, 0])
    m = np.where(shared, sizes[:, 0] * sizes[:, 1], sizes[:, 1])
    known = table.filter_taps > 0
    taps = np.minimum(np.where(known, table.filter_taps, table.k), table.k)
    channels = -(-table.k // taps)
    pixels = np.minimum(-(-table.input_elements // (entries * channels)), m * taps)
    overlap = np.minimum(np.where(known, table.filter_overlap, pixels), pixels)
    step = np.where(known, np.minimum(table.filter_step, taps), 0)
    mapped = (table.kind == Kind.CONV) & (table.input_elements > 0) & (pixels * channels < m * table.k)
    windows = np.where(mapped[:, None], np.column_stack([pixels, channels, taps, overlap, step]), (1, 1, 1, 0, 0))
    return windows.astype(np.int64), table.groups > 1


@dataclass(frozen=True, eq=False)
class Products:
    """Searched products on designs: arrays (shapes, points), words (shapes, points, levels); see
    `dse_kernels.mapping`.
    """

    hardware: AcceleratorBatch
    cycles: FloatArray
    compute_cycles: FloatArray
    energy_pj: FloatArray
    read_words: FloatArray
    write_words: FloatArray
    mapping: MappingColumns | None

    def level_cycles(self, shape: int) -> FloatArray:
        """Cycles that each level is busy with a shape (points, levels), all its copies sharing the work."""
        hw = self.hardware
        copies = np.where(np.array(hw.level_per_core)[None, :], hw.cores[:, None], 1)
        reads, writes = self.read_words[shape] / hw.level_read_words_per_cycle, self.write_words[shape] / hw.level_write_words_per_cycle
        return np.asarray(transfer_cycles(NUMPY, reads, writes, np.array(hw.level_shared_bus)[None, :]) / copies)

    def bounds(self, shape: int) -> npt.NDArray[np.int64]:
        """What limits a shape on each design (points,): 0 the array, else 1 + the level."""
        return np.where(self.compute_cycles[shape] >= self.cycles[shape], 0, 1 + np.argmax(self.level_cycles(shape), axis=1))

    def bound(self, shape: int, point: int) -> str:
        """The name of what limits a shape on a design: compute, or the level."""
        return ("compute", *self.hardware.level_names)[int(self.bounds(shape)[point])]


def search_products(
    sizes: IntArray,
    shared: npt.NDArray[np.bool_],
    hardware: AcceleratorBatch,
    *,
    bits: npt.ArrayLike = 8,
    windows: npt.ArrayLike = (1, 1, 1, 0, 0),
    spread: npt.ArrayLike = False,
    criterion: Criterion = "edp",
    threads: int = 1,
    labels: Sequence[str] = (),
    target: MappingHardware | None = None,
    with_mapping: bool = True,
    unmapped: Unmapped = "error",
) -> Products:
    """Best mappings of products (shapes, 4) as batch, m, n, k; a product that fits nowhere is an error, or takes for ever.

    ``shared`` (shapes,): the batch shares the second operand. ``bits`` (shapes, 3) of both operands and the result. ``windows``
    (shapes, 5), ``spread`` (shapes,): see `map_windows`.
    ``labels`` name the shapes in errors. ``target``: `mapping_hardware` of the designs, where a caller has it
    already.
    """
    counts = np.prod(sizes, axis=1, dtype=np.float64)
    if (counts >= mapping.MOST_ELEMENTS).any():
        at = int(np.argmax(counts))
        raise HardwareError(
            f"{_named(sizes, labels, at)} is too large to count: batch x m x n x k = {counts[at]:.3g} must be below 2^62, {2.0**62:.3g}"
        )
    if is_sunstone(hardware):  # the tool counts a batch as rows, whatever the second operand
        shared, windows, spread = np.ones(len(sizes), dtype=np.bool_), mapping.NO_WINDOW, False
    found = mapping.search(
        sizes,
        shared,
        target if target is not None else mapping_hardware(hardware),
        operand_bits=bits,
        windows=windows,
        spread=spread,
        criterion=criterion,
        threads=threads,
        return_words=True,
        return_mapping=with_mapping,
    )
    if not found.feasible.all() and unmapped == "error":
        raise _no_mapping(sizes, labels, hardware, found.feasible)
    assert found.read_words is not None
    assert found.write_words is not None
    fits = found.feasible
    return Products(
        hardware,
        np.where(fits, found.cycles, np.inf),
        np.where(fits, found.compute_cycles, np.inf),
        np.where(fits, found.energy_pj, np.inf),
        np.where(fits[..., None], found.read_words, 0.0),
        np.where(fits[..., None], found.write_words, 0.0),
        found.mapping,
    )


def product_costs(
    shapes: OperationTable,
    hardware: AcceleratorBatch,
    rows: IntArray,
    costs: UnitCosts,
    criterion: Criterion,
    threads: int | None,
    progress: Progress | None,
    unmapped: Unmapped = "error",
) -> None:
    """Fill ``costs`` for the rows of matrix products (GEMM, CONV); the rows of one shape are searched once."""
    table = shapes.take(rows)
    sizes, shared, bits, _ = product_shapes(table)
    windows, spread = map_windows(table, sizes, shared)
    key = np.column_stack([sizes, shared, bits, windows, spread])
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    target = mapping_hardware(hardware)
    workers = threads if threads is not None else (os.cpu_count() or 1)
    for start in range(0, len(first), _CHUNK):
        part = first[start : start + _CHUNK]
        found = search_products(
            sizes[part],
            shared[part],
            hardware,
            bits=bits[part],
            windows=windows[part],
            spread=spread[part],
            criterion=criterion,
            threads=workers,
            labels=[str(table.name[i]) for i in part],
            target=target,
            with_mapping=False,
            unmapped=unmapped,
        )
        for i in range(len(part)):
            _fill(costs, rows[inverse == start + i], found, i)
        if progress is not None:
            progress(min(start + _CHUNK, len(first)), len(first))


def _fill(costs: UnitCosts, rows: IntArray, found: Products, shape: int) -> None:
    """Costs (points,) of one searched shape into all its rows."""
    hardware = found.hardware
    rate = hardware.frequency_hz
    costs.latency_s[rows] = found.cycles[shape] / rate
    costs.energy_j[rows] = found.energy_pj[shape] * 1e-12
    costs.array_s[rows] = found.compute_cycles[shape] / rate
    costs.dram_s[rows] = found.level_cycles(shape)[:, -1] / rate
    words = found.read_words[shape, :, -1] + found.write_words[shape, :, -1]
    costs.dram_bytes[rows] = words * (hardware.word_bits / 8.0)
    costs.bound[rows] = found.bounds(shape)


def _named(sizes: IntArray, labels: Sequence[str], shape: int) -> str:
    """A product as errors call it."""
    batch, m, n, k = (int(v) for v in sizes[shape])
    return f"{f'operation {labels[shape]!r}' if labels else 'the product'} (batch {batch}, m {m}, n {n}, k {k})"


def _no_mapping(sizes: IntArray, labels: Sequence[str], hardware: AcceleratorBatch, feasible: npt.NDArray[np.bool_]) -> HardwareError:
    shape, point = (int(v) for v in np.argwhere(~feasible)[0])
    label = hardware.names[point] if hardware.names else f"design {point}"
    held = ", ".join(
        f"{level} {int(size)} bytes" for level, size in zip(hardware.level_names[:-1], hardware.level_bytes[point], strict=False)
    )
    return HardwareError(
        f"no tile of {_named(sizes, labels, shape)} fits the memories of {label} ({held}): "
        "enlarge the innermost level or take a smaller array"
    )
