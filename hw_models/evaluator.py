"""One workload, one design at a time: the numbers of `hw_models.cost.evaluate`, without its overheads.

    evaluator = Evaluator(workload, template.batch(**template.grid()))
    evaluator(1234).latency_s

What depends on the workload alone is prepared once, and so are the designs (their energies, areas, packed arrays). A call then searches the
mappings of its products, costs the vector operations and adds up: bit for bit what `evaluate` gives for that design.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hw_models import precision
from hw_models.cost import Criterion, check_criterion, required_bytes, unit_costs
from workloads.ops import OperationTable

if TYPE_CHECKING:
    from hw_models.accelerator import AcceleratorBatch
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
class _Phase:
    """A phase of one model: its distinct shapes, and for each row its shape and how often it runs."""

    shapes: OperationTable
    rows: tuple[tuple[int, float], ...]
    runs: float


class Evaluator:
    """Costs of one model (``operations``) on any of the designs of ``hardware``, one call a design."""

    def __init__(
        self, operations: OperationTable | Workload, hardware: AcceleratorBatch, *, criterion: Criterion = "edp"
    ) -> None:
        check_criterion(criterion)
        if operations.models is not None:
            from hw_models.errors import HardwareError

            raise HardwareError("an Evaluator costs one model: give workload.phases[...].table.model(i), or use evaluate")
        self.hardware = hardware
        self.criterion: Criterion = criterion
        tables = (
            [(operations, 1.0)]
            if isinstance(operations, OperationTable)
            else [(phase.table, phase.runs) for phase in operations.phases]
        )
        self._phases = [_prepared(table, runs) for table, runs in tables]
        self._fits = required_bytes(operations, hardware)[0] <= hardware.dram_bytes
        self._designs = [hardware.take([i]) for i in range(0)]
        self._widths = precision.groups(hardware)

    def __len__(self) -> int:
        return len(self.hardware)

    def __call__(self, point: int) -> DesignCost:
        """The cost of design ``point``."""
        hardware = self.hardware
        design = hardware.take([point])
        latency = dynamic = traffic = power = 0.0
        for phase in self._phases:
            unit = unit_costs(phase.shapes, design, criterion=self.criterion, threads=1)
            times, joules, moved = (getattr(unit, name)[:, 0].tolist() for name in ("latency_s", "energy_j", "dram_bytes"))
            sums = [0.0, 0.0, 0.0]
            for shape, repeat in phase.rows:
                sums[0] += repeat * times[shape]
                sums[1] += repeat * joules[shape]
                sums[2] += repeat * moved[shape]
                if repeat > 0 and times[shape] > 0:
                    power = max(power, joules[shape] / times[shape])
            latency += sums[0] * phase.runs
            dynamic += sums[1] * phase.runs
            traffic += sums[2] * phase.runs
        leakage = float(hardware.leakage_w[point])
        return DesignCost(
            latency,
            dynamic + leakage * latency,
            dynamic,
            traffic,
            power + leakage,
            float(hardware.area_mm2[point]),
            float(hardware.tops[point]),
            leakage,
            bool(self._fits[point]),
        )


def _prepared(table: OperationTable, runs: float) -> _Phase:
    shapes, index = table.distinct()
    rows = tuple((int(shape), float(repeat)) for shape, repeat in zip(index, table.column("repeat"), strict=True))
    return _Phase(shapes, rows, float(runs))
