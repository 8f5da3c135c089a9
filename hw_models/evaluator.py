"""One workload, one design at a time: the numbers of `hw_models.cost.evaluate` without its overheads.

    evaluator = Evaluator(workload, template.batch(**template.grid()))
    evaluator(1234).latency_s

What depends on the workload alone is prepared once, and so are the designs (energies, areas, packed arrays). A call
then searches the mappings of its products, costs the vector operations and adds up: bit for bit what `evaluate` gives
for that design.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from hw_models import precision
from hw_models.cost import Criterion, check_criterion, required_bytes, unit_costs
from hw_models.errors import HardwareError
from hw_models.profiles import profile as find_profile
from workloads.ops import ATTENTION, PRODUCTS, OperationTable

if TYPE_CHECKING:
    from dse_kernels.mapping import MappingHardware

    from hw_models.accelerator import AcceleratorBatch
    from hw_models.formulas import LevelRates, VectorWork
    from workloads.records import Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class DesignCost(NamedTuple):
    """Cost of one request on one design; see `hw_models.cost.Cost`."""

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

    def __len__(self) -> int:
        return len(self.integers)

    @property
    def levels(self) -> int:
        return int(self.level_columns.shape[1])

    def packed(self) -> tuple[IntArray, FloatArray, FloatArray]:
        return self.integers, self.reals, self.level_columns

    def point(self, at: int) -> _Packed:
        one = slice(at, at + 1)
        return _Packed(self.integers[one], self.reals[one], self.level_columns[one])


@dataclass(frozen=True, eq=False)
class _Phase:
    """A phase of the model at one precision: its distinct shapes split by unit, and how often each runs, row by row."""

    runs: float
    rows: tuple[tuple[int, float], ...]
    """For each row of the table its shape, numbered products first, then vector operations, then the others; its
    repeat.
    """
    sizes: IntArray
    shared: npt.NDArray[np.bool_]
    bits: FloatArray
    expansion: FloatArray
    work: VectorWork | None
    others: OperationTable | None


class Evaluator:
    """Costs of one model (``operations``) on any of the designs of ``hardware``, one call a design."""

    def __init__(self, operations: OperationTable | Workload, hardware: AcceleratorBatch, *, criterion: Criterion = "edp") -> None:
        from hw_models.memory import mapping_hardware

        check_criterion(criterion)
        if operations.models is not None:
            raise HardwareError("an Evaluator costs one model: give it the table of one, or use evaluate for many")
        self.hardware = hardware
        self.criterion: Criterion = criterion
        self._packed = _Packed(*mapping_hardware(hardware).packed())
        self._levels = _level_columns(hardware)
        self._fits: list[bool] = (required_bytes(operations, hardware)[0] <= hardware.dram_bytes).tolist()
        self._phases: dict[precision.Widths, list[_Phase]] = {}
        self._widths: list[precision.Widths] = [(0, 0, 0)] * len(hardware)
        for widths, points in precision.groups(hardware):
            self._phases[widths] = _phases(operations, widths, hardware)
            for point in points.tolist():
                self._widths[point] = widths
        from hw_models.vector import lane_pj

        columns = {
            "lanes": hardware.vector_lanes,
            "lane_bits": hardware.mac_bits,
            "lane_pj": lane_pj(hardware),
            "word_bits": hardware.word_bits,
            "frequency_hz": hardware.frequency_hz,
        }
        self._vector = {name: column.astype(np.float64).tolist() for name, column in columns.items()}
        self._design = {name: getattr(hardware, name).tolist() for name in ("area_mm2", "tops", "leakage_w")}

    def __len__(self) -> int:
        return len(self.hardware)

    def __call__(self, point: int) -> DesignCost:
        """The cost of design ``point``."""
        latency = dynamic = traffic = power = 0.0
        for phase in self._phases[self._widths[point]]:
            times, joules, moved = self._units(phase, point)
            seconds = energy = words = 0.0
            for shape, repeat in phase.rows:
                time = times[shape]
                seconds += repeat * time
                energy += repeat * joules[shape]
                words += repeat * moved[shape]
                if repeat > 0.0 and time > 0.0:
                    power = max(power, joules[shape] / time)
            latency += seconds * phase.runs
            dynamic += energy * phase.runs
            traffic += words * phase.runs
        leakage = self._design["leakage_w"][point]
        return DesignCost(
            latency,
            dynamic + leakage * latency,
            dynamic,
            traffic,
            power + leakage,
            self._design["area_mm2"][point],
            self._design["tops"][point],
            leakage,
            self._fits[point],
        )

    def _units(self, phase: _Phase, point: int) -> tuple[list[float], list[float], list[float]]:
        """Latency [s], dynamic energy [J] and DRAM traffic [bytes] of each shape of a phase."""
        times: list[float] = []
        joules: list[float] = []
        moved: list[float] = []
        if len(phase.sizes):
            for target, values in zip((times, joules, moved), self._products(phase, point), strict=True):
                target += values.tolist()
        if phase.work is not None:
            for target, values in zip((times, joules, moved), self._vectors(phase.work, point), strict=True):
                target += values.tolist()
        if phase.others is not None:
            unit = unit_costs(phase.others, self.hardware.take([point]), criterion=self.criterion, threads=1)
            times += unit.latency_s[:, 0].tolist()
            joules += unit.energy_j[:, 0].tolist()
            moved += unit.dram_bytes[:, 0].tolist()
        return times, joules, moved

    def _products(self, phase: _Phase, point: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        from dse_kernels import mapping

        found = mapping.search(
            phase.sizes,
            phase.shared,
            cast("MappingHardware", self._packed.point(point)),
            operand_bits=phase.bits,
            input_expansion=phase.expansion,
            criterion=self.criterion,
            threads=1,
            return_words=True,
        )
        if not found.feasible.all():
            # The evaluator for many designs knows how to say which operation fits nowhere.
            from hw_models.gemm import search_products

            search_products(phase.sizes, phase.shared, self.hardware.take([point]), bits=phase.bits, criterion=self.criterion)
        assert found.read_words is not None
        assert found.write_words is not None
        words = found.read_words[:, 0, -1] + found.write_words[:, 0, -1]
        frequency = self._vector["frequency_hz"][point]
        word_bytes = self._vector["word_bits"][point] / 8.0
        return found.cycles[:, 0] / frequency, found.energy_pj[:, 0] * 1e-12, words * word_bytes

    def _vectors(self, work: VectorWork, point: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        from hw_models.formulas import NUMPY, vector_unit

        found = vector_unit(NUMPY, work, levels=self._levels[point], **{name: column[point] for name, column in self._vector.items()})
        longest = found.lanes_s
        for time in found.level_s:
            longest = np.maximum(longest, time)
        return longest, found.energy_j, found.dram_bytes


def _level_columns(hardware: AcceleratorBatch) -> list[list[LevelRates]]:
    """The levels of each design as numbers."""
    from hw_models.formulas import LevelRates
    from hw_models.vector import level_rates

    columns = [{name: column[0].tolist() for name, column in vars(level).items()} for level in level_rates(hardware)]
    return [[LevelRates(**{name: values[point] for name, values in level.items()}) for level in columns] for point in range(len(hardware))]


def _phases(operations: OperationTable | Workload, widths: precision.Widths, hardware: AcceleratorBatch) -> list[_Phase]:
    tables = [(operations, 1.0)] if isinstance(operations, OperationTable) else [(phase.table, phase.runs) for phase in operations.phases]
    return [_prepared(precision.at_widths(table, widths), float(runs), hardware) for table, runs in tables]


def _prepared(table: OperationTable, runs: float, hardware: AcceleratorBatch) -> _Phase:
    from hw_models import vector
    from hw_models.formulas import VectorWork
    from hw_models.gemm import product_shapes
    from hw_models.memory import is_sunstone
    from hw_models.technology import dram

    shapes, index = table.distinct()
    precision.check_macs(shapes, hardware)
    products = np.isin(shapes.kind, PRODUCTS)
    others = np.isin(shapes.kind, ATTENTION)
    if find_profile(hardware.profile).vector_model != "physical":
        others = ~products
    vectors = ~products & ~others
    order = np.concatenate([np.flatnonzero(part) for part in (products, vectors, others)])
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    rows = tuple(zip(place[index].tolist(), table.column("repeat").astype(np.float64).tolist(), strict=True))
    sizes, shared, bits, expansion = product_shapes(shapes.take(np.flatnonzero(products)))
    if is_sunstone(hardware):  # as in `gemm.search_products`
        shared = np.ones(len(sizes), dtype=np.bool_)
    work = None
    if vectors.any():
        listed = shapes.take(np.flatnonzero(vectors))
        vector.check_kinds(listed)
        columns = vars(vector.vector_work(listed, dram(hardware.level_kinds[-1]).burst_bytes))
        work = VectorWork(**{name: column[:, 0] for name, column in columns.items()})
    rest = shapes.take(np.flatnonzero(others)) if others.any() else None
    return _Phase(runs, rows, sizes, shared, bits, expansion, work, rest)
