"""Operations on a processor with many cores: products in blocks dealt to cores, everything else by its traffic.

Three numbers are not in a data sheet: the time to hand work to the cores, the share of the peak rate of blocked products, the
share of the DRAM's rate of streams. The defaults are typical; `dse calibrate --this-machine` scales the times to those where it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels.operations import FUSED, KernelTimes
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable

FloatArray = npt.NDArray[np.float64]

BLOCK: Final = 32  # rows and columns of a block of results that one core works on


@dataclass(frozen=True)
class CpuKernels:
    """What a data sheet does not say.

    Attributes:
        launch_s: handing work to the cores and waiting for them.
        product_efficiency: share of the peak rate that blocked products reach.
        dram_efficiency: share of the peak DRAM rate that streams reach.
    """

    launch_s: float = 4e-6
    product_efficiency: float = 0.7
    dram_efficiency: float = 0.75


def cpu_times(table: OperationTable, sheet: GpuSheet, kernels: CpuKernels | None = None) -> KernelTimes:
    """Times of each row of a table (rows,) on one processor; ``multiprocessors`` of the sheet are its cores.

    A product is dealt in blocks of 32 x 32 results to the cores; an operand narrower than the narrowest format is widened. Weights
    and other operands beyond the last cache come from the DRAM. Functions that follow a product run in it.
    """
    kernels = kernels or CpuKernels()
    kind, product = table.kind, np.isin(table.kind, (*PRODUCTS, *ATTENTION))
    macs = np.asarray(table.row_macs() / np.maximum(table.repeat, 1), dtype=np.float64)
    rate = np.ones(len(table))
    for bits in np.unique(np.maximum(table.input_bits, table.weight_bits)[product]):
        at = product & (np.maximum(table.input_bits, table.weight_bits) == bits)
        rate[at] = sheet.rate(sheet.product_format(int(bits), int(bits)))
    blocks = np.ceil(table.m / BLOCK) * np.ceil(table.n / BLOCK) * table.batch * table.groups
    share = np.ceil(blocks / sheet.multiprocessors) * sheet.multiprocessors / blocks
    padded = np.where(product, np.maximum(share, 1.0), 0.0) * macs
    compute = padded / (sheet.peak_macs_per_s * rate * kernels.product_efficiency)
    moved = np.asarray(table.row_bytes() / np.maximum(table.repeat, 1), dtype=np.float64)
    weights = np.asarray(table.row_second_elements() * table.weight_bits / 8.0, dtype=np.float64)
    missed = np.clip(moved / sheet.l2_bytes - 0.5, 0.0, 1.0)
    dram_bytes = np.where(product & table.second_is_weight, weights + (moved - weights) * missed, moved * missed)
    dram_bytes = np.where(kind == Kind.COLLECTIVE, 0.0, dram_bytes)
    dram = dram_bytes / (sheet.dram_bytes_per_s * kernels.dram_efficiency)
    fused = np.isin(kind, FUSED)
    launch = np.where(fused | (kind == Kind.COLLECTIVE), 0.0, kernels.launch_s)
    work = np.maximum(compute, dram)
    bound = np.where(launch > work, 2, np.where(compute >= dram, 0, 1))
    return KernelTimes(launch + work, compute, dram, dram_bytes, macs, rate, bound)
