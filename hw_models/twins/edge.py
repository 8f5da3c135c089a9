"""Designs of the `edge` family with gradients: latency, energy and area of a model as smooth functions of the knobs
(torch).

The vector unit, the floor plan and the power laws of the tables are the formulas of `hw_models.technology.namespace`, the same
lines that cost a design exactly, run with the named relaxations. Matrix products, whose mapping is searched and has
no gradient, take the bounds of `hw_models.twins.product_bounds`. The result is a guide for gradient descent, not a
cost: round and cost the design exactly afterwards. Measured on BERT-base and the 3,240 designs of `edge22` with 2 MiB and more:
docs/models/hardware.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hw_models.costs.products import product_shapes
from hw_models.costs.vector import lane_pj, vector_work
from hw_models.costs.vector_unit import LevelRates, vector_unit
from hw_models.errors import HardwareError, unknown_name
from hw_models.spaces.template import load
from hw_models.technology.closed_forms import energy_j, peak_tops, sram_leakage_w, words_per_cycle
from hw_models.technology.floorplan import floorplan_mm2
from hw_models.technology.namespace import Namespace, torch_namespace
from hw_models.technology.tables import Quantity, dram, logic
from hw_models.twins.product_bounds import ArrayRates, ProductWork, product_costs
from hw_models.twins.technology import sram
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
    """SRAM at 22 nm with a 4-byte port."""
    return sram(xp, quantity, size_bytes, np.full(1, 22.0))


def edge_cost(
    table: OperationTable,
    knobs: Mapping[str, Tensor],
    *,
    settings: Mapping[str, Any] | None = None,
    relaxed: bool = True,
) -> RelaxedCost:
    """Cost of one run of a model's table (rows,) on designs whose knobs are tensors (points,) of real numbers.

    The knobs are those of `edge22`; ``settings`` replaces some of its own (frequency, bandwidths, DRAM, registers). Raises
    HardwareError for a missing knob, settings that these forms do not know (another node, supply or word), a table of several models, or
    rows that the model does not cost.
    """
    held = _settings(settings or {})
    frequency_hz, dram_type = float(held["frequency_hz"]), str(held["dram_type"])
    glb_words_per_cycle = float(held["glb_words_per_cycle"])
    dram_words = words_per_cycle(float(held["dram_bytes_per_s"]), 8.0, frequency_hz)
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
    of_core = _sram(xp, "leakage_w", array_l2) + _sram(xp, "leakage_w", l2)
    leakage = sram_leakage_w(cores, of_core, _sram(xp, "leakage_w", glb), 1.0)
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
        LevelRates(xp.asarray(np.inf), dram_words, dram_words, dram_pj, dram_pj),
    ]
    latency, energy = xp.asarray(0.0), xp.asarray(0.0)
    products = np.isin(table.kind, PRODUCTS)
    repeat = xp.asarray(table.repeat.astype(np.float64))[:, None]
    if products.any():
        array = ArrayRates(
            cores, width * depth, float(held["register_bytes"]) + 0.0 * cores, mac.energy_pj, unit.energy_pj, unit.write_energy_pj
        )
        work = _work(xp, table.take(products))
        cycles, picojoule = product_costs(xp, work, array, core=levels[0], shared=levels[1], main=levels[2], word_bits=8.0)
        latency = latency + (cycles / frequency_hz * repeat[products]).sum(dim=0)
        energy = energy + (picojoule * 1e-12 * repeat[products]).sum(dim=0)
    if (~products).any():
        vectors = vector_work(table.take(~products), dram(dram_type).burst_bytes)
        tensors = type(vectors)(**{name: xp.asarray(value) for name, value in vars(vectors).items()})
        found = vector_unit(
            xp,
            tensors,
            lanes=cores * width,
            lane_bits=8.0,
            lane_pj=lane_pj(mac.energy_pj),
            word_bits=8.0,
            frequency_hz=frequency_hz,
            levels=levels,
        )
        longest = found.lanes_s
        for time in found.level_s:
            longest = xp.maximum(longest, time)
        latency = latency + (longest * repeat[~products]).sum(dim=0)
        energy = energy + (found.energy_j * repeat[~products]).sum(dim=0)
    tops = peak_tops(cores * width * depth, frequency_hz)
    return RelaxedCost(latency, energy_j(energy, leakage[0], latency), area[0], leakage[0], tops[0])


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The template's settings with those of ``given`` in their place; the forms hold at its node, supply and words alone."""
    own = load("edge22").settings
    for name in given:
        if name not in own:
            raise unknown_name("setting", name, own)
    free = ("frequency_hz", "glb_words_per_cycle", "dram_bytes_per_s", "dram_type", "dram_gib", "register_bytes")
    for name, value in given.items():
        if name not in free and value != own[name]:
            raise HardwareError(f"the closed forms of edge22 hold at {name} = {own[name]}, got {value}: only {', '.join(free)} may differ")
    return {**own, **given}


def _work(xp: Namespace, table: OperationTable) -> ProductWork:
    """Products of a table (rows,) as columns (rows, 1)."""
    sizes, shared, bits, expansion = product_shapes(table)
    batch, m, n, k = (sizes[:, i].astype(np.float64) for i in range(4))
    m, batch = np.where(shared, batch * m, m), np.where(shared, 1.0, batch)
    words = bits / 8.0
    columns = (batch, m, n, k, batch * m * k * words[:, 0] / expansion, batch * k * n * words[:, 1], batch * m * n * words[:, 2])
    return ProductWork(*(xp.asarray(column[:, None]) for column in columns))
