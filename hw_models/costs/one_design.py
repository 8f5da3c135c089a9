"""One workload, one design at a time: the numbers of `hw_models.costs.evaluate.evaluate` without its overheads.

    evaluator = Evaluator(workload, template.batch(**template.grid()))
    evaluator(1234).latency_s

What depends on the workload alone is prepared once, and so are the designs (energies, areas, packed arrays). A call
then searches the mappings of its products, costs the vector operations and adds up: bit for bit what `evaluate` gives
for that design.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from dse_kernels import design, mapping

from hw_models.accelerator.fields import Execution
from hw_models.costs import precision, vector
from hw_models.costs.evaluate import evaluate, required_bytes, unit_costs
from hw_models.costs.mapping import is_sunstone, mapping_hardware
from hw_models.costs.products import map_windows, product_shapes, search_products
from hw_models.costs.unit_costs import Criterion, check_criterion
from hw_models.costs.vector import lane_pj, level_rates
from hw_models.errors import HardwareError
from hw_models.technology.closed_forms import energy_j
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.tables import dram
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable

if TYPE_CHECKING:
    from hw_models.accelerator.design import AcceleratorBatch
    from workloads.records import Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


_NONE = np.empty((0, 3))


class DesignCost(NamedTuple):
    """Cost of one request on one design; see `hw_models.costs.evaluate.Cost`."""

    latency_s: float
    energy_j: float
    dynamic_j: float
    dram_bytes: float
    peak_power_w: float
    area_mm2: float
    tops: float
    leakage_w: float
    feasible: bool


@dataclass(frozen=True, eq=False)
class _Packed:
    """Designs packed for the mapping search once, and sliced for each of them (see `MappingHardware.packed`)."""

    integers: IntArray
    reals: FloatArray
    level_columns: FloatArray

    def point(self, at: int) -> tuple[IntArray, FloatArray, FloatArray]:
        one = slice(at, at + 1)
        return self.integers[one], self.reals[one], self.level_columns[one]


@dataclass(frozen=True, eq=False)
class _Phase:
    """A phase of the model at one precision: its distinct shapes split by unit, and how often each runs, row by row."""

    runs: float
    index: IntArray
    """For each row of the table its shape, numbered products first, then vector operations, then the others."""
    repeat: FloatArray
    sizes: IntArray
    shared: npt.NDArray[np.bool_]
    bits: FloatArray
    products: tuple[IntArray, FloatArray]
    """The shapes of the products as `dse_kernels.mapping.prepare` gives them."""
    work: FloatArray
    """The vector operations, columns `dse_kernels.design.WORK`."""
    others: OperationTable | None


class Evaluator:
    """Costs of one model (``operations``) on any of the designs of ``hardware``, one call a design."""

    def __init__(self, operations: OperationTable | Workload, hardware: AcceleratorBatch, *, criterion: Criterion = "edp") -> None:
        check_criterion(criterion)
        if operations.models is not None:
            raise HardwareError("an Evaluator costs one model: give it the table of one, or use evaluate for many")
        self.hardware = hardware
        self.criterion: Criterion = criterion
        self._operations = operations
        self._boards: list[bool] = (
            (hardware.execution != Execution.MAPPED) | (hardware.tdp_w > 0) | (hardware.all_chips > hardware.chips)
        ).tolist()
        self._packed = _Packed(*mapping_hardware(hardware).packed())
        self._levels = _level_columns(hardware)
        self._fits: list[bool] = (required_bytes(operations, hardware)[0] <= hardware.dram_bytes).tolist()
        self._phases: dict[precision.Widths, list[_Phase]] = {}
        self._widths: list[precision.Widths] = [(0, 0, 0)] * len(hardware)
        for widths, points in precision.groups(hardware):
            self._phases[widths] = _phases(operations, widths, hardware)
            for point in points.tolist():
                self._widths[point] = widths

        columns = {
            "lanes": hardware.vector_lanes,
            "lane_bits": hardware.mac_bits,
            "lane_pj": lane_pj(hardware.mac_pj),
            "word_bits": hardware.word_bits,
            "frequency_hz": hardware.frequency_hz,
        }
        self._points = np.column_stack([columns[name].astype(np.float64) for name in design.POINT])
        self._design = {name: getattr(hardware, name).tolist() for name in ("area_mm2", "tops", "leakage_w")}

    def __len__(self) -> int:
        return len(self.hardware)

    def __call__(self, point: int) -> DesignCost:
        """The cost of design ``point``."""
        if self._boards[point]:
            return self._whole(point)
        latency = dynamic = traffic = power = 0.0
        for phase in self._phases[self._widths[point]]:
            seconds, energy, moved, most = self._sums(phase, point)
            latency += seconds * phase.runs
            dynamic += energy * phase.runs
            traffic += moved * phase.runs
            power = max(power, most)
        leakage = self._design["leakage_w"][point]
        return DesignCost(
            latency,
            energy_j(dynamic, leakage, latency),
            dynamic,
            traffic,
            power + leakage,
            self._design["area_mm2"][point],
            self._design["tops"][point],
            leakage,
            self._fits[point],
        )

    def _whole(self, point: int) -> DesignCost:
        """The cost of a design that kernels run on, whose energy is a board's, or of several groups of chips: nothing to prepare."""
        found = evaluate(self.hardware.take([point]), self._operations, criterion=self.criterion)
        names = DesignCost._fields[:-1]
        numbers = {name: float(np.ravel(getattr(found, name))[0]) for name in names}
        return DesignCost(**numbers, feasible=bool(np.ravel(found.feasible)[0]))

    def _sums(self, phase: _Phase, point: int) -> tuple[float, float, float, float]:
        """Time [s], dynamic energy [J] and DRAM traffic [bytes] of a phase, and its largest power [W]."""
        results, words = mapping.search_prepared(phase.products, self._packed.point(point), self.criterion)
        others = _NONE
        if phase.others is not None:
            unit = unit_costs(phase.others, self.hardware.take([point]), criterion=self.criterion, threads=1)
            others = np.column_stack([unit.latency_s[:, 0], unit.energy_j[:, 0], unit.dram_bytes[:, 0]])
        sums = design.phase_sums(results, words, phase.work, others, self._points[point], self._levels[point], phase.index, phase.repeat)
        if not sums[0] < inf:
            # The evaluator for many designs knows how to say which operation fits nowhere.

            search_products(phase.sizes, phase.shared, self.hardware.take([point]), bits=phase.bits, criterion=self.criterion)
        return sums


def _level_columns(hardware: AcceleratorBatch) -> FloatArray:
    """The levels of each design as the kernel wants them, (points, levels, 5)."""
    shape = (len(hardware),)
    levels = [[np.broadcast_to(getattr(level, name)[0], shape) for name in design.LEVEL] for level in level_rates(hardware)]
    return np.ascontiguousarray(np.moveaxis(np.asarray(levels, dtype=np.float64), 2, 0))


def _phases(operations: OperationTable | Workload, widths: precision.Widths, hardware: AcceleratorBatch) -> list[_Phase]:
    tables = [(operations, 1.0)] if isinstance(operations, OperationTable) else [(phase.table, phase.runs) for phase in operations.phases]
    return [_prepared(precision.at_widths(table, widths), float(runs), hardware) for table, runs in tables]


def _prepared(table: OperationTable, runs: float, hardware: AcceleratorBatch) -> _Phase:
    shapes, index = table.distinct(parallel=not hardware.one_chip)
    precision.check_macs(shapes, hardware)
    products = np.isin(shapes.kind, PRODUCTS)
    others = np.isin(shapes.kind, (*ATTENTION, Kind.COLLECTIVE))
    if find_profile(hardware.profile).vector_model != "physical":
        others = ~products
    if not hardware.one_chip:  # shares differ from design to design: nothing to prepare
        products, others = np.zeros(len(shapes), dtype=np.bool_), np.ones(len(shapes), dtype=np.bool_)
    vectors = ~products & ~others
    order = np.concatenate([np.flatnonzero(part) for part in (products, vectors, others)])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    repeat = table.column("repeat").astype(np.float64)
    searched = shapes.take(np.flatnonzero(products))
    sizes, shared, bits, _ = product_shapes(searched)
    windows, spread = map_windows(searched, sizes, shared)
    if is_sunstone(hardware):  # as in `gemm.search_products`
        shared = np.ones(len(sizes), dtype=np.bool_)
        windows, spread = np.array([mapping.NO_WINDOW] * len(sizes)).reshape(-1, 5), np.zeros(len(sizes), dtype=np.bool_)
    work = np.empty((0, len(design.WORK)))
    if vectors.any():
        listed = shapes.take(np.flatnonzero(vectors))
        vector.check_kinds(listed)
        columns = vars(vector.vector_work(listed, dram(hardware.level_kinds[-1]).burst_bytes))
        work = np.ascontiguousarray(np.column_stack([columns[name][:, 0] for name in design.WORK]), dtype=np.float64)
    rest = shapes.take(np.flatnonzero(others)) if others.any() else None
    prepared = mapping.prepare(sizes, shared, bits, windows, spread)
    return _Phase(runs, place[index], repeat, sizes, shared, bits, prepared, work, rest)
