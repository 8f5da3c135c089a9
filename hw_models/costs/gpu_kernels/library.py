"""Sheets of the GPUs that ship with the package."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from hw_models.costs.gpu_kernels.sheet import GpuSheet, TensorCore
from hw_models.errors import unknown_name

_FOLDER = ("data", "device_library")


@cache
def documents() -> dict[str, dict[str, Any]]:
    """The parsed files of the library by device."""
    folder = files("hw_models").joinpath(*_FOLDER)
    found = sorted((p for p in folder.iterdir() if p.name.endswith(".toml")), key=lambda p: p.name)
    return {p.name.removesuffix(".toml"): tomllib.loads(p.read_text(encoding="utf-8")) for p in found}


def gpu_names() -> tuple[str, ...]:
    """Devices whose kernels are GPU kernels."""
    return tuple(name for name, d in documents().items() if d["accelerator"]["execution"] == "gpu")


@cache
def gpu_sheet(name: str) -> GpuSheet:
    """The sheet of the GPU called ``name``; an unknown name is an error that names the nearest."""
    if name not in gpu_names():
        raise unknown_name("gpu", name, gpu_names())
    return sheet_from(documents()[name]["accelerator"], name=name)


def sheet_from(a: Mapping[str, Any], *, name: str) -> GpuSheet:
    """A sheet from the accelerator table of a device file."""
    gpu, dram = a["gpu"], a["levels"][-1]
    return GpuSheet(
        name=name,
        tensor_core=TensorCore(gpu["tensor_core"]),
        multiprocessors=a["cores"],
        frequency_hz=a["frequency_hz"],
        macs_per_cycle=a["array"]["rows"] * a["array"]["columns"],
        l2_bytes=a["levels"][-2]["mib"] * 2**20,
        dram_bytes_per_s=dram["words_per_cycle"] * a["frequency_hz"] * a["word_bits"] / 8,
        tdp_w=a["tdp_w"],
        idle_w=a["leakage_w"],
        l2_partitions=gpu["l2_partitions"],
        l2_bytes_per_s=gpu.get("l2_bytes_per_s"),
        link_bytes_per_s=a.get("link_bytes_per_s", 0.0),
        link=gpu["link"],
        rates=dict(a["rates"]),
    )
