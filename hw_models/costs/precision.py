"""Precision as a choice of the hardware: operation tables and workloads at other widths than they were built with.

A design may fix the bits of weights, of activations and of the KV cache (0: as the workload says). Widths change what
is moved and held; a product runs at full rate whatever its widths, as long as they do not exceed the width that the
MACs are built for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_models.errors import HardwareError
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable, of_kinds

if TYPE_CHECKING:
    from hw_models.accelerator.design import AcceleratorBatch
    from workloads.records import Workload

IntArray = npt.NDArray[np.int64]
Widths = tuple[int, int, int]
"""Bits of weights, activations and KV cache; 0 where the workload says."""

# Optimizer states keep the width that the training needs, whatever the datapath.
_FIXED = (Kind.OPTIMIZER_STEP,)


def groups(hardware: AcceleratorBatch) -> list[tuple[Widths, IntArray]]:
    """The designs by what they fix: (widths, indices of the points)."""
    table = np.column_stack([hardware.weight_bits, hardware.activation_bits, hardware.kv_bits])
    if not table.any():
        return [((0, 0, 0), np.arange(len(hardware)))]
    found, inverse = np.unique(table, axis=0, return_inverse=True)
    inverse = inverse.reshape(-1)
    return [((int(w), int(a), int(kv)), np.flatnonzero(inverse == i)) for i, (w, a, kv) in enumerate(found)]


def at_widths(table: OperationTable, widths: Widths) -> OperationTable:
    """The table with the widths that a design fixes."""
    weights, activations, kv = widths
    if not any(widths):
        return table
    free = ~of_kinds(table.kind, _FIXED)
    gathers = of_kinds(table.kind, (Kind.EMBEDDING,))
    products = of_kinds(table.kind, (*PRODUCTS, *ATTENTION))
    parameter = table.second_is_weight | gathers | ~products
    cache = table.second_is_cache & ~parameter
    passing = ~parameter & ~cache

    def put(column: IntArray, where: npt.NDArray[np.bool_], bits: int) -> IntArray:
        return np.where(where & free, bits, column) if bits else column

    second = put(table.weight_bits, parameter, weights)
    second = put(put(second, cache, kv), passing, activations)
    first = put(put(table.input_bits, ~gathers, activations), gathers, weights)
    output = put(put(table.output_bits, ~table.writes_cache, activations), table.writes_cache, kv)
    return replace(table, input_bits=first, weight_bits=second, output_bits=output)


def workload_at_widths(workload: Workload, widths: Widths) -> Workload:
    """The workload with the widths that a design fixes, its caches resized with them."""
    if not any(widths):
        return workload
    phases = []
    for phase in workload.phases:
        table = at_widths(phase.table, widths)
        saved = phase.saved_bytes
        if widths[1]:
            built = phase.table.column("output_bits").max()
            saved = saved * (widths[1] / built)
        cached = phase.kv_cache_bytes
        if widths[2] and (built := _cache_bits(phase.table)):
            cached = cached * (widths[2] / built)
        phases.append(replace(phase, table=table, kv_cache_bytes=cached, saved_bytes=saved))
    return replace(workload, phases=tuple(phases))


def _cache_bits(table: OperationTable) -> int:
    """Width of the cache that a phase reads, or that it fills; 0 where it does neither."""
    for columns, rows in ((table.weight_bits, table.second_is_cache), (table.output_bits, table.writes_cache)):
        if rows.any():
            return int(columns[..., rows].max())
    return 0


def check_macs(table: OperationTable, hardware: AcceleratorBatch) -> None:
    """Raise HardwareError where an operand of a product is wider than the MACs of a design."""
    products = np.flatnonzero(of_kinds(table.kind, (*PRODUCTS, *ATTENTION)))
    if not len(products) or not len(hardware):
        return
    wide = np.maximum(table.input_bits[products], table.weight_bits[products])
    least = int(hardware.mac_bits.min())
    if wide.max() <= least:
        return
    row = int(products[int(np.argmax(wide))])
    narrow = int(np.argmin(hardware.mac_bits))
    name = hardware.names[narrow] if hardware.names else "the hardware"
    raise HardwareError(
        f"operation {str(table.name[row])!r} has operands of {int(wide.max())} bits, but the multiply-accumulate units of {name} "
        f"take {least}: narrow the operands to {least} bits by weight_bits, activation_bits and kv_bits, or take hardware with "
        f"mac_bits = {int(wide.max())}"
    )
