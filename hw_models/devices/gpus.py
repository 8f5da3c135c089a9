"""Sheets of the GPUs that ship with the package."""

from __future__ import annotations

from functools import cache

from hw_models.accelerator.fields import Execution
from hw_models.costs.gpu_kernels.sheet import GpuSheet, sheet_of
from hw_models.devices import library
from hw_models.errors import unknown_name


@cache
def gpu_names() -> tuple[str, ...]:
    """Devices whose kernels are GPU kernels."""
    return tuple(name for name in library.names() if library.load(name).accelerator.execution == Execution.GPU)


@cache
def gpu_sheet(name: str) -> GpuSheet:
    """The sheet of the GPU called ``name``; an unknown name is an error that names the nearest."""
    if name not in gpu_names():
        raise unknown_name("gpu", name, gpu_names())
    return sheet_of(library.load(name).accelerator.batch(), 0)
