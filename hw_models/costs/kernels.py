"""Execution models whose operations are kernels of software (GPU, CPU) as unit costs: the same record that a mapping search fills."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.costs import board_power
from hw_models.costs.cpu import cpu_times
from hw_models.costs.gpu_kernels import collectives
from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.operations import KernelTimes, kernel_times
from hw_models.costs.gpu_kernels.parameters import family
from hw_models.costs.gpu_kernels.products import sustained_clock
from hw_models.costs.gpu_kernels.sheet import sheet_of
from hw_models.costs.unit_costs import UnitCosts
from workloads.ops import ATTENTION, PRODUCTS, OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def times_of(shapes: OperationTable, hardware: AcceleratorBatch, point: int, *, warm: bool = False) -> KernelTimes:
    """Times of shapes (shapes,) on one chip of a design that a GPU's or a processor's kernels run on.

    ``warm``: operands as a benchmark of single kernels leaves them in the caches, not as a model does.
    """
    sheet = sheet_of(hardware, point)
    return cpu_times(shapes, sheet) if int(hardware.execution[point]) == Execution.CPU else kernel_times(shapes, sheet, warm=warm)


def kernel_costs(shapes: OperationTable, hardware: AcceleratorBatch, points: IntArray, costs: UnitCosts, *, warm: bool = False) -> None:
    """Fill the columns ``points`` of ``costs`` for designs that kernels run on, each on one chip; ``warm`` as in `times_of`."""
    tensor = np.isin(shapes.kind, (*PRODUCTS, *ATTENTION))
    names = costs.bound_names
    dram = names.index(hardware.level_names[-1])
    codes = np.array([names.index("compute"), dram, names.index("launch")], dtype=np.int8)
    for point in points.tolist():
        found = times_of(shapes, hardware, point, warm=warm)
        one = hardware.take([point])
        sustained = board_power.SUSTAINED * _clock(hardware, point)
        macs = (found.macs / found.rate)[:, None]
        energy = board_power.dynamic_j(one, found.latency_s[:, None], macs, found.dram_bytes[:, None], sustained)
        columns: dict[str, Any] = {
            "latency_s": found.latency_s,
            "energy_j": energy[:, 0],
            "array_s": np.where(tensor, found.compute_s, 0.0),
            "vector_s": np.where(tensor, 0.0, np.maximum(found.compute_s, found.dram_s)),
            "dram_s": found.dram_s,
            "dram_bytes": found.dram_bytes,
            "bound": codes[found.bound],
        }
        for name, column in columns.items():
            getattr(costs, name)[:, point] = column


def _clock(hardware: AcceleratorBatch, point: int) -> float:
    return sustained_clock(sheet_of(hardware, point)) if int(hardware.execution[point]) == Execution.GPU else 1.0


def collective_s(hardware: AcceleratorBatch, point: int, operation: str, size_bytes: IntArray, chips: int) -> FloatArray:
    """Latency of collectives between ``chips`` GPUs of a node (rows,) [s]: the engine's own all-reduce where it is faster."""
    sheet = sheet_of(hardware, point)
    chosen = choice(sheet)
    library = collectives.library_s(sheet, family(chosen.collective, kind="collective"), operation, size_bytes, chips)
    if operation != "all_reduce":
        return np.asarray(library)
    direct = collectives.direct_all_reduce_s(sheet, family(chosen.direct, kind="direct"), size_bytes, chips)
    return np.asarray(np.minimum(library, direct))
