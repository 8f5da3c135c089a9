"""The record of unit costs: additive quantities of shapes on designs, and the bound max(compute, memory)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.errors import unknown_name

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Criterion = Literal["edp", "latency", "energy"]
CRITERIA: tuple[Criterion, ...] = ("edp", "latency", "energy")
Progress = Callable[[int, int], None]
Unmapped = Literal["error", "infinite"]
ADDITIVE = ("latency_s", "energy_j", "array_s", "vector_s", "dram_s", "link_s", "dram_bytes")
"""Quantities of `UnitCosts` that add over operations."""


@dataclass(frozen=True, eq=False)
class UnitCosts:
    """Costs of running each shape once on each design: arrays (shapes, points).

    Attributes:
        latency_s: time from start to end.
        energy_j: dynamic energy; leakage is a property of the design and the time (`AcceleratorBatch.leakage_w`).
        array_s, vector_s, dram_s: busy time of the arrays, of the vector unit, and of the DRAM of the chip with the
            largest share.
        link_s: time of the collective that several chips run behind it (0 on one chip).
        dram_bytes: bytes read from and written to the DRAM of all chips.
        bound: what limits the latency, as an index of ``bound_names``.
        bound_names: compute, the levels of memory from the innermost, vector, link where a design has several chips, and
            launch where kernels run (`hw_models.costs.kernels`).
    """

    latency_s: FloatArray
    energy_j: FloatArray
    array_s: FloatArray
    vector_s: FloatArray
    dram_s: FloatArray
    link_s: FloatArray
    dram_bytes: FloatArray
    bound: npt.NDArray[np.int8]
    bound_names: tuple[str, ...]

    def take(self, shapes: npt.ArrayLike) -> UnitCosts:
        """The rows of the shapes at an index (any order)."""
        chosen = np.asarray(shapes)
        arrays: dict[str, Any] = {f.name: getattr(self, f.name)[chosen] for f in fields(self) if f.name != "bound_names"}
        return UnitCosts(**arrays, bound_names=self.bound_names)


def bounds_among(found: UnitCosts, names: Sequence[str]) -> npt.NDArray[np.int8]:
    """The bounds of ``found`` as indices of ``names``: one chip has no link and a mapped array launches no kernels, so lists differ."""
    return np.array([names.index(name) for name in found.bound_names], dtype=np.int8)[found.bound]


def fill(costs: UnitCosts, points: npt.NDArray[np.int64], found: UnitCosts) -> None:
    """Put what was found for some designs into the columns ``points`` of the costs of all."""
    for name in ADDITIVE:
        getattr(costs, name)[:, points] = getattr(found, name)
    costs.bound[:, points] = bounds_among(found, costs.bound_names)


def empty_costs(shapes: int, hardware: AcceleratorBatch) -> UnitCosts:
    """Zero costs (shapes, points), to be filled."""
    arrays: dict[str, Any] = {name: np.zeros((shapes, len(hardware))) for name in ADDITIVE}
    names = ("compute", *hardware.level_names, "vector", *(() if hardware.one_chip else ("link",)))
    if (hardware.execution != Execution.MAPPED).any():
        names = (*names, "launch")
    return UnitCosts(**arrays, bound=np.zeros((shapes, len(hardware)), dtype=np.int8), bound_names=names)


def check_criterion(criterion: str) -> None:
    """Raise HardwareError unless ``criterion`` is one that the mapping search knows."""
    if criterion not in CRITERIA:
        raise unknown_name("mapping criterion", criterion, CRITERIA)


def slowest(times: Sequence[FloatArray]) -> tuple[FloatArray, npt.NDArray[np.int8]]:
    """The largest of several times, elementwise, and which it is (the first of equals)."""
    latency = np.array(times[0])
    which = np.zeros(latency.shape, dtype=np.int8)
    for i, time in enumerate(times[1:], start=1):
        later = time > latency
        which[later] = i
        np.maximum(latency, time, out=latency)
    return latency, which


def peak_dynamic_w(index: IntArray, runs: npt.NDArray[np.bool_], unit: UnitCosts) -> FloatArray:
    """Largest dynamic power of any operation that a model runs [W], (models, points).

    Args:
        index: shape of each row of each model, (models, rows).
        runs: whether the model runs the row at all, (models, rows); a row that never runs draws no power.
        unit: costs of the shapes on each point. Operations that take no time (the compatibility profile has some) have no power.
    """
    busy = unit.latency_s > 0
    power = np.divide(unit.energy_j, unit.latency_s, out=np.zeros_like(unit.energy_j), where=busy)
    peak = np.zeros((len(index), power.shape[1]))
    for row in range(index.shape[1]):
        np.maximum(peak, np.where(runs[:, row, None], power[index[:, row]], 0.0), out=peak)
    return peak
