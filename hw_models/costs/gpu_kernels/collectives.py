"""Collectives between GPUs of a node: a library's rings and trees, and all-reduces that read the peers' memory directly.

Sizes are those of `hw_models.interconnect`: what one device holds at the beginning (all-reduce, reduce-scatter, all-to-all) or
at the end (all-gather).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels.parameters import CollectiveKernel, DirectKernel
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.errors import HardwareError, unknown_name

FloatArray = npt.NDArray[np.float64]
OPERATIONS: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")


def library_s(sheet: GpuSheet, kernel: CollectiveKernel, operation: str, size_bytes: npt.ArrayLike, devices: npt.ArrayLike) -> FloatArray:
    """Latency of a library collective over the links of a node [s]: the better of its two protocols; arguments broadcast.

    Raises HardwareError for an unknown operation and for a device without links.
    """
    if operation not in OPERATIONS:
        raise unknown_name("collective", operation, OPERATIONS)
    size, p = _arguments(sheet, size_bytes, devices)
    reduce, exchange = operation == "all_reduce", operation == "all_to_all"
    steps = (p - 1) * (2.0 if reduce else kernel.all_to_all_steps if exchange else 1.0)
    volume = (p - 1) / p * size * (2.0 if reduce else 1.0)
    rate = kernel.all_reduce_rate if reduce else kernel.rate * (1 - kernel.pair_loss / p**2)
    fixed = kernel.start_s + kernel.step_s * steps
    quick = fixed + volume / (kernel.low_latency_rate * sheet.link_bytes_per_s)
    simple = fixed + kernel.simple_s + volume / (rate * sheet.link_bytes_per_s)
    return np.where(p > 1, np.minimum(quick, simple), 0.0)[()]


def direct_all_reduce_s(sheet: GpuSheet, kernel: DirectKernel, size_bytes: npt.ArrayLike, devices: npt.ArrayLike) -> FloatArray:
    """Latency of an all-reduce in one kernel of the serving engine [s]: the better of one shot and two."""
    size, p = _arguments(sheet, size_bytes, devices)
    fixed = kernel.start_s + kernel.step_s * (p - 1)
    one = fixed + (p - 1) * size / (kernel.one_shot_rate * sheet.link_bytes_per_s)
    two = fixed + kernel.two_shot_s + 2 * (p - 1) / p * size / (kernel.two_shot_rate * sheet.link_bytes_per_s)
    return np.where(p > 1, np.minimum(one, two), 0.0)[()]


def _arguments(sheet: GpuSheet, size_bytes: npt.ArrayLike, devices: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    size, p = np.broadcast_arrays(np.asarray(size_bytes, dtype=np.float64), np.asarray(devices, dtype=np.float64))
    if sheet.link_bytes_per_s <= 0 and bool((p > 1).any()):
        raise HardwareError(f"device {sheet.name} has no links: {int(p.max())} of it cannot share a request")
    return size, p
