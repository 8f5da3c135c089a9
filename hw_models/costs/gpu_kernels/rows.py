"""Norms, softmax and elementwise kernels on a GPU: a launch and the traffic, from the L2 where an earlier kernel left the data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels.parameters import LAUNCH_HZ, RowKernel
from hw_models.costs.gpu_kernels.sheet import GpuSheet

FloatArray = npt.NDArray[np.float64]


def row_kernel_times(
    sheet: GpuSheet, kernel: RowKernel, moved_bytes: npt.ArrayLike, *, fused: bool = False
) -> tuple[FloatArray, FloatArray]:
    """Latency [s] and DRAM bytes of a kernel that reads and writes ``moved_bytes`` in all.

    Data that fit in half of the L2 are read and written there; a growing share goes to the DRAM up to one and a half times its
    size. ``fused``: part of the kernel before it (an epilogue): no launch, and only what lies beyond the L2 costs time.
    """
    moved = np.asarray(moved_bytes, dtype=np.float64)
    missed = np.clip(moved / sheet.l2_bytes - 0.5, 0.0, 1.0)
    rate = sheet.dram_bytes_per_s * kernel.dram_efficiency
    stream = moved * missed / rate
    if fused:
        return stream[()], (moved * missed)[()]
    near = moved * (1 - missed) / (rate * kernel.cache_factor)
    return (kernel.launch_s * LAUNCH_HZ / sheet.frequency_hz + stream + near)[()], (moved * missed)[()]
