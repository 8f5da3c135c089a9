"""Designs of the `edge` family with gradients: latency, energy and area of a model as smooth functions of the knobs
(torch).

The vector unit, the floor plan and the power laws of the tables are the formulas of `hw_models.formulas`, the same
lines that cost a design exactly, run with the named relaxations. Matrix products, whose mapping is searched and has
no gradient, take closed-form bounds (`formulas.product_bounds`). The result is a guide for gradient descent, not a
cost: round and cost the design exactly afterwards. Measured on BERT-base and the 3,240 designs of `edge22`:
docs/models/hardware.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_models.errors import HardwareError, unknown_name
from hw_models.formulas import (
    LevelRates,
    Namespace,
    ProductWork,
    floorplan_mm2,
    power_law,
    product_bounds,
    torch_namespace,
    vector_unit,
)
from hw_models.technology import ADDRESS_READ_PJ, ADDRESS_WRITE_PJ, Quantity, dram, logic, sram_curve
from hw_models.vector import vector_work
from workloads.ops import ATTENTION, PRODUCTS, OperationTable

if TYPE_CHECKING:
    import torch

KNOBS = ("cores", "width", "depth", "l2_kib", "l2_words_per_cycle", "glb_mib")
Tensor = Any


@dataclass(frozen=True)
class RelaxedCost:
    """Tensors (points,): latency [s], energy [J] with leakage, area [mm2], leakage [W], peak rate [10^12
    operations/s].
    """

    latency_s: torch.Tensor
    energy_j: torch.Tensor
    area_mm2: torch.Tensor
    leakage_w: torch.Tensor
    tops: torch.Tensor


def _sram(xp: Namespace, quantity: Quantity, size_bytes: Tensor) -> Tensor:
    """SRAM at 22 nm with a 4-byte port, as `technology.sram`."""
    held = sram_curve(quantity, 22, 4)
    value = xp.exp(power_law(xp, xp.asarray(held.log_bytes), xp.asarray(held.log_value), xp.log(size_bytes)))
    if quantity == "read_pj":
        return value / 2 + ADDRESS_READ_PJ
    if quantity == "write_pj":
        return value / 2 + ADDRESS_WRITE_PJ
    return value


def edge_cost(
    table: OperationTable,
    knobs: Mapping[str, Tensor],
    *,
    frequency_hz: float = 625e6,
    glb_words_per_cycle: float = 512.0,
    dram_words_per_cycle: float = 128.0,
    dram_type: str = "lpddr4",
    relaxed: bool = True,
) -> RelaxedCost:
    """Cost of one run of a model's table (rows,) on designs whose knobs are tensors (points,) of real numbers.

    The knobs are those of `edge22`; the settings those of its default profile at 22 nm and 8-bit words. Raises
    HardwareError for a missing knob, a table of several models, or rows that the model does not cost.
    """
    for name in KNOBS:
        if name not in knobs:
            raise HardwareError(f"knob {name} is missing: edge_cost takes {', '.join(KNOBS)}")
    for name in knobs:
        if name not in KNOBS:
            raise unknown_name("knob", name, KNOBS)
    if table.models is not None:
        raise HardwareError("edge_cost takes the table of one model: give table.model(i)")
    if np.isin(table.kind, ATTENTION).any():
        raise HardwareError("edge_cost has no fused attention: build the workload with fused_attention=False")
    xp = torch_namespace(relaxed=relaxed)
    k = {name: xp.asarray(value)[None, :] for name, value in knobs.items()}
    cores, width, depth = k["cores"], k["width"], k["depth"]
    l2, glb = k["l2_kib"] * 1024.0, k["glb_mib"] * 1024.0**2
    array_l2 = xp.maximum(l2, width * depth * 16.0)
    mac, unit, lane = logic("mac"), logic("array_register"), logic("vector_register")
    area = floorplan_mm2(
        cores=cores,
        macs_per_core=width * depth,
        lanes=cores * width,
        mac_um2=mac.area_um2 + unit.area_um2,
        lane_um2=mac.area_um2 + lane.area_um2,
        core_sram_um2=_sram(xp, "area_um2", array_l2) + _sram(xp, "area_um2", l2),
        shared_sram_um2=_sram(xp, "area_um2", glb),
    )
    leakage = cores * (_sram(xp, "leakage_w", array_l2) + _sram(xp, "leakage_w", l2)) + _sram(xp, "leakage_w", glb)
    dram_pj = xp.asarray(dram(dram_type).pj_per_byte)
    levels = [
        LevelRates(
            l2 * 8,
            k["l2_words_per_cycle"] * cores,
            k["l2_words_per_cycle"] * cores,
            _sram(xp, "read_pj", l2) / 4,
            _sram(xp, "write_pj", l2) / 4,
        ),
        LevelRates(glb * 8, glb_words_per_cycle, glb_words_per_cycle, _sram(xp, "read_pj", glb) / 4, _sram(xp, "write_pj", glb) / 4),
        LevelRates(xp.asarray(np.inf), dram_words_per_cycle, dram_words_per_cycle, dram_pj, dram_pj),
    ]
    latency, energy = xp.asarray(0.0), xp.asarray(0.0)
    products = np.isin(table.kind, PRODUCTS)
    repeat = xp.asarray(table.repeat.astype(np.float64))[:, None]
    if products.any():
        time, joule = _products(xp, table.take(products), levels, width * depth, cores, l2, glb, mac.energy_pj, unit.energy_pj)
        latency = latency + (time / frequency_hz * repeat[products]).sum(dim=0)
        energy = energy + (joule * repeat[products]).sum(dim=0)
    if (~products).any():
        work = vector_work(table.take(~products), dram(dram_type).burst_bytes)
        tensors = type(work)(**{name: xp.asarray(value) for name, value in vars(work).items()})
        found = vector_unit(
            xp,
            tensors,
            lanes=cores * width,
            lane_bits=8.0,
            lane_pj=mac.energy_pj + lane.energy_pj + lane.write_energy_pj,
            word_bits=8.0,
            frequency_hz=frequency_hz,
            levels=levels,
        )
        longest = found.lanes_s
        for time in found.level_s:
            longest = xp.maximum(longest, time)
        latency = latency + (longest * repeat[~products]).sum(dim=0)
        energy = energy + (found.energy_j * repeat[~products]).sum(dim=0)
    tops = cores * width * depth * 2 * frequency_hz / 1e12
    return RelaxedCost(latency, energy + (leakage[0] * latency), area[0], leakage[0], tops[0])


def _products(
    xp: Namespace,
    table: OperationTable,
    levels: list[LevelRates],
    units: Tensor,
    cores: Tensor,
    l2: Tensor,
    glb: Tensor,
    mac_pj: float,
    register_pj: float,
) -> tuple[Tensor, Tensor]:
    """Cycles and energy [J] of products (rows, points) by the closed-form bounds; half of every memory holds tiles."""
    columns = {
        "batch": table.batch * table.groups,
        "m": table.m,
        "n": table.n,
        "k": table.k,
        "input_words": table.row_input_elements() * table.input_bits / 8.0,
        "second_words": table.row_second_elements() * table.weight_bits / 8.0,
        "output_words": table.row_output_elements() * table.output_bits / 8.0,
    }
    work = ProductWork(**{name: xp.asarray(np.asarray(c, dtype=np.float64))[:, None] for name, c in columns.items()})
    # The registers of an array hold 32 words a unit; the L2 of the cores works on shares of the same product.
    cycles, crossing = product_bounds(xp, work, units=units, cores=cores, held_words=[units * 32.0, l2 / 2, glb / 2])
    time = cycles
    macs = work.batch * work.m * work.n * work.k
    energy = macs * (mac_pj + register_pj)
    for inside, level in enumerate(levels):
        out = crossing[inside]
        filled = crossing[inside + 1] if inside + 1 < len(levels) else 0.0
        read = out - work.output_words
        write = work.output_words + filled
        time = xp.maximum(time, xp.maximum(read / level.read_words_per_cycle, write / level.write_words_per_cycle))
        energy = energy + read * level.read_pj + write * level.write_pj
    return time, energy * 1e-12
