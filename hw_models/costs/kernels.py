"""Execution models whose operations are kernels of software (GPU, CPU) as unit costs: the same record that a mapping search fills."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Execution, Launch
from hw_models.costs import board_power
from hw_models.costs.cpu import cpu_times
from hw_models.costs.gpu_kernels import collectives
from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.operations import FUSED, KernelTimes, kernel_times
from hw_models.costs.gpu_kernels.parameters import family
from hw_models.costs.gpu_kernels.products import sustained_clock
from hw_models.costs.gpu_kernels.sheet import sheet_of
from hw_models.costs.unit_costs import UnitCosts
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def times_of(shapes: OperationTable, hardware: AcceleratorBatch, point: int, *, warm: bool = False) -> KernelTimes:
    """Times of shapes (shapes,) on one chip of a design that a GPU's or a processor's kernels run on.

    ``warm``: operands as a benchmark of single kernels leaves them in the caches, not as a model does.
    """
    sheet = sheet_of(hardware, point)
    if int(hardware.execution[point]) == Execution.CPU:
        return _calibrated(cpu_times(shapes, sheet), shapes, hardware, point)
    experts = int(hardware.expert_parallel[point])
    found = kernel_times(shapes, sheet, warm=warm, expert_ranks=experts, replicas=max(experts // int(hardware.chips[point]), 1))
    if int(hardware.launch[point]) == Launch.EAGER:
        found = _issued(found, shapes)
    return _calibrated(found, shapes, hardware, point)


ISSUE_S: Final = 1.32e-5
"""Time in which the host issues one framework call, fitted to softmax calls of PyTorch on an A100 (LLMCompass@2e015fd, data/overheads.toml,
a100.eager.softmax): an eagerly launched kernel takes no less."""


def _issued(found: KernelTimes, shapes: OperationTable) -> KernelTimes:
    """Kernels that wait for the host; those of a layer of experts are a call for each of its products."""
    calls = np.where(_launched(found, shapes), 1.0, 0.0) / np.where(shapes.moe_joined > 0, np.maximum(shapes.moe_active, 1), 1)
    late = calls * ISSUE_S > found.latency_s
    return replace(found, latency_s=np.where(late, calls * ISSUE_S, found.latency_s), bound=np.where(late, 2, found.bound))


def _launched(found: KernelTimes, shapes: OperationTable) -> npt.NDArray[np.bool_]:
    """What runs inside the kernel before it is not launched; collectives are the links' and not the chip's."""
    inside = np.isin(shapes.kind, FUSED) & (shapes.function != "mul")
    return np.asarray((found.latency_s > 0) & ~inside & (shapes.kind != Kind.COLLECTIVE))


def _calibrated(found: KernelTimes, shapes: OperationTable, hardware: AcceleratorBatch, point: int) -> KernelTimes:
    """Times as the user's own measurements have them: scaled, and a fixed time for each kernel that is launched."""
    columns = ("product_scale", "vector_scale", "product_fixed_s", "vector_fixed_s")
    product, vector, product_s, vector_s = (float(getattr(hardware, name)[point]) for name in columns)
    if (product, vector, product_s, vector_s) == (1.0, 1.0, 0.0, 0.0):
        return found
    tensor = np.isin(shapes.kind, (*PRODUCTS, *ATTENTION))
    scale = np.where(tensor, product, vector)
    fixed = np.where(_launched(found, shapes), np.where(tensor, product_s, vector_s), 0.0)
    return replace(found, latency_s=found.latency_s * scale + fixed, compute_s=found.compute_s * scale, dram_s=found.dram_s * scale)


def format_rates(shapes: OperationTable, hardware: AcceleratorBatch) -> FloatArray:
    """Peak rate of the format that multiplies each shape over the rate that ``tops`` states (shapes, designs): 1 without kernels."""
    rates = np.ones((len(shapes), len(hardware)))
    tensor = np.flatnonzero(np.isin(shapes.kind, (*PRODUCTS, *ATTENTION)))
    # Attention of a GPU multiplies in the format of its queries; all else takes that of the wider operand.
    first, second = shapes.input_bits[tensor], shapes.weight_bits[tensor]
    queries = np.where(np.isin(shapes.kind[tensor], ATTENTION), first, second)
    for point in np.flatnonzero(hardware.execution != Execution.MAPPED).tolist():
        sheet = sheet_of(hardware, point)
        second_bits = queries if int(hardware.execution[point]) == Execution.GPU else second
        pairs, which = np.unique(np.column_stack([first, second_bits]), axis=0, return_inverse=True)
        of_pair = np.array([sheet.rate(sheet.product_format(int(a), int(b))) for a, b in pairs], dtype=np.float64)
        rates[tensor, point] = of_pair[which.reshape(-1)]
    return rates


def kernel_costs(shapes: OperationTable, hardware: AcceleratorBatch, points: IntArray, costs: UnitCosts, *, warm: bool = False) -> None:
    """Fill the columns ``points`` of ``costs`` for designs that kernels run on, each on one chip; ``warm`` as in `times_of`."""
    tensor = np.isin(shapes.kind, (*PRODUCTS, *ATTENTION))
    names = costs.bound_names
    dram = names.index(hardware.level_names[-1])
    codes = np.array([names.index("compute"), dram, names.index("launch")], dtype=np.int8)
    for point in points.tolist():
        found = times_of(shapes, hardware, point, warm=warm)
        one = hardware.take([point])
        macs = (found.macs / found.rate)[:, None]
        energy = board_power.dynamic_j(one, found.latency_s[:, None], macs, found.dram_bytes[:, None], _clock(hardware, point))
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


def board_of(hardware: AcceleratorBatch, point: int) -> board_power.BoardEnergy:
    """The rule of energy of one chip of a design, arrays of one number."""
    return board_power.board_energy(hardware.take([point]), _clock(hardware, point))


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
