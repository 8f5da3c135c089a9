"""Whole devices that exist: what their data sheets say, how their operators are timed, and where each number comes from.

    a100 = load("a100")
    a100.accelerator                                   # the same record as any design, for hw_models.costs.evaluate
    a100.gemm_latency_s(512, 12288, 4096)              # tiles and waves on a GPU, with fitted overheads
    a100.row_latency_s("softmax", rows=4096, columns=1024)

GPUs carry two sets of overheads: ``kernel`` (time of a kernel on the device, as a serving stack sees it when launches are
hidden) and ``eager`` (time of one call from a framework, host included). `hw_models/data/overheads.toml` says what each was
fitted on; `dse calibrate` fits another set to a user's own measurements.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.toml import load_toml
from hw_models.costs.collectives import Link
from hw_models.costs.gpu import (
    ELEMENT_KERNELS,
    ROW_KERNELS,
    GemmOverheads,
    GpuHardware,
    VectorOverheads,
    element_latency_s,
    gemm_latency_s,
    row_latency_s,
)
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.spaces.files import read_document

_MOST = 1e30  # of an overhead in a file: far beyond any time, and a float

FloatArray = npt.NDArray[np.float64]
Overhead = GemmOverheads | VectorOverheads

OVERHEAD_SETS: Final = ("kernel", "eager")
DEFAULT_SET: Final = "kernel"


@dataclass(frozen=True)
class OverheadSet:
    """Overheads of a device's operators under one way of measuring.

    Attributes:
        operators: by operator name (`gemm`, `softmax`, ...).
        fitted_on: for each operator, the rows behind it, or why it stands without any.
    """

    name: str
    operators: dict[str, Overhead]
    fitted_on: dict[str, str]

    def of(self, operator: str, device: str) -> Overhead:
        """The overheads of ``operator``; HardwareError naming those that exist."""
        if operator not in self.operators:
            raise unknown_name(f"operator with {self.name} overheads on device {device}", operator, self.operators)
        return self.operators[operator]


@dataclass(frozen=True)
class Device:
    """A device that exists.

    Attributes:
        accelerator: the design, as every other model takes it.
        gpu: what the operator model needs, None for devices that are no GPUs.
        overheads: sets of overheads by name, empty for devices that are no GPUs.
        link: connection to other devices of the node, fitted where ``link_fitted_on`` says so, else the peak; None if unknown.
        die_mm2, tdp_w, built_node: facts of the part; None where not published.
        sources: origin of every number of the file, by field.
        vintage: year of the part. capital_usd: price of one board, published_kgco2e: its maker's or a study's footprint; None if none.
        embodied: inputs of the carbon model beside area, node and memory (dies, package, system, harvest, chiplets, node_nm).
    """

    name: str
    title: str
    accelerator: Accelerator
    sources: dict[str, str]
    built_node: str
    die_mm2: float
    tdp_w: float | None = None
    gpu: GpuHardware | None = None
    overheads: dict[str, OverheadSet] = field(default_factory=dict)
    link: Link | None = None
    vintage: str = ""
    capital_usd: float | None = None
    published_kgco2e: float | None = None
    embodied: dict[str, Any] = field(default_factory=dict)

    def overhead_set(self, name: str = DEFAULT_SET) -> OverheadSet:
        """The set called ``name``; HardwareError for devices without an operator model and for unknown names."""
        if self.gpu is None:
            raise HardwareError(
                f"device {self.name} has no operator model with overheads: it is costed like any accelerator (hw_models.costs.evaluate)"
            )
        if name not in self.overheads:
            raise unknown_name(f"overheads of device {self.name}", name, self.overheads)
        return self.overheads[name]

    def with_overheads(self, overheads: OverheadSet) -> Device:
        """The same device with one more set (or another of the same name)."""
        self.gpu_hardware()
        return replace(self, overheads={**self.overheads, overheads.name: overheads})

    def gpu_hardware(self) -> GpuHardware:
        """What the operator model needs; HardwareError for devices that are no GPUs."""
        if self.gpu is None:
            gpus = ", ".join(n for n in names() if _shipped(n).gpu is not None)
            raise HardwareError(f"device {self.name} has no operator model to calibrate; devices with one are {gpus}")
        return self.gpu

    def gemm_latency_s(
        self,
        m: npt.ArrayLike,
        n: npt.ArrayLike,
        k: npt.ArrayLike,
        *,
        batch: npt.ArrayLike = 1,
        dtype: str = "fp16",
        overheads: str = DEFAULT_SET,
    ) -> FloatArray:
        """Latency of ``batch`` products ``out[m, n] = in[m, k] x second[k, n]`` [s]; arguments broadcast."""
        fitted = self.overhead_set(overheads).of("gemm", self.name)
        assert isinstance(fitted, GemmOverheads)
        return gemm_latency_s(self.gpu_hardware(), fitted, m, n, k, batch=batch, dtype=dtype)

    def row_latency_s(
        self, operator: str, *, rows: npt.ArrayLike, columns: npt.ArrayLike, dtype: str = "fp16", overheads: str = DEFAULT_SET
    ) -> FloatArray:
        """Latency of softmax, layernorm or rmsnorm over ``rows`` x ``columns`` [s]; arguments broadcast."""
        if operator not in ROW_KERNELS:
            raise unknown_name("row-wise operator", operator, ROW_KERNELS)
        fitted = self.overhead_set(overheads).of(operator, self.name)
        assert isinstance(fitted, VectorOverheads)
        return row_latency_s(self.gpu_hardware(), fitted, operator, rows, columns, dtype=dtype)

    def element_latency_s(self, operator: str, *, elements: npt.ArrayLike, dtype: str = "fp16", overheads: str = DEFAULT_SET) -> FloatArray:
        """Latency of gelu, add, ... over ``elements`` outputs [s]."""
        if operator not in ELEMENT_KERNELS:
            raise unknown_name("elementwise operator", operator, ELEMENT_KERNELS)
        fitted = self.overhead_set(overheads).of(operator, self.name)
        assert isinstance(fitted, VectorOverheads)
        return element_latency_s(self.gpu_hardware(), fitted, operator, elements, dtype=dtype)


def names() -> tuple[str, ...]:
    """Names of the devices that come with the package."""
    folder = files("hw_models") / "data" / "devices"
    return tuple(sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml")))


def load(name: str, *, profile: str | None = None) -> Device:
    """The device called ``name`` under a technology profile (None: that of its file); an unknown name is an error naming the nearest."""
    device = _shipped(name)
    if profile is None or profile == device.accelerator.profile:
        return device
    return replace(device, accelerator=device.accelerator.with_profile(profile))


@cache
def _shipped(name: str) -> Device:
    known = names()
    if name not in known:
        raise unknown_name("device", name, known)
    text = (files("hw_models") / "data" / "devices" / f"{name}.toml").read_text(encoding="utf-8")
    document = tomllib.loads(text)
    shipped = tomllib.loads((files("hw_models") / "data" / "overheads.toml").read_text(encoding="utf-8"))
    return device_from(document, shipped.get(name, {}), name=name)


def device_from(document: Mapping[str, Any], overheads: Mapping[str, Any], *, name: str) -> Device:
    """A device from parsed TOML of the shipped form, with the tables of its overhead sets."""
    where = f"device {name}"
    accelerator = read_document(document["accelerator"], where=where)
    if not isinstance(accelerator, Accelerator):
        raise HardwareError(f"{where}: the accelerator table describes a space, a device is one design")
    link = document.get("link")
    fitted = overheads.get("link", {})
    return Device(
        name=name,
        title=str(document["title"]),
        accelerator=accelerator,
        sources=dict(document["sources"]),
        built_node=str(document["built_node"]),
        die_mm2=float(document["die_mm2"]),
        tdp_w=accelerator.tdp_w or (float(document["tdp_w"]) if "tdp_w" in document else None),
        vintage=str(document.get("vintage", "")),
        capital_usd=float(document["capital_usd"]) if "capital_usd" in document else None,
        published_kgco2e=float(document["published_kgco2e"]) if "published_kgco2e" in document else None,
        embodied=dict(document.get("embodied", {})),
        gpu=_gpu_of(name, accelerator, document["gpu"]) if "gpu" in document else None,
        overheads={key: overhead_set_from(key, table, where=where) for key, table in overheads.items() if key != "link"},
        link=None
        if link is None
        else Link(
            latency_s=float(fitted.get("latency_s", 0.0)),
            bandwidth_bytes_per_s=float(fitted.get("bandwidth_bytes_per_s", link["peak_bytes_per_s"])),
            pj_per_bit=float(link["pj_per_bit"]),
            fixed_s=float(fitted.get("fixed_s", 0.0)),
            name=str(link["name"]),
            source=str(fitted.get("fitted_on", "peak rate, no latency: not fitted")),
        ),
    )


def _gpu_of(name: str, accelerator: Accelerator, table: Mapping[str, Any]) -> GpuHardware:
    """The operator model's view of an accelerator whose last two levels are the L2 and the DRAM."""
    word_bytes = accelerator.word_bits / 8
    l2, dram = accelerator.levels[-2:]
    return GpuHardware(
        name=name,
        multiprocessors=accelerator.cores,
        macs_per_cycle=accelerator.array_rows * accelerator.array_columns,
        frequency_hz=accelerator.frequency_hz,
        l2_bytes=l2.bytes,
        l2_bytes_per_s=l2.read_words_per_cycle * word_bytes * accelerator.frequency_hz,
        dram_bytes_per_s=dram.read_words_per_cycle * word_bytes * accelerator.frequency_hz,
        threads=int(table["threads"]),
        memory_latency_s=float(table["memory_latency_cycles"]) / accelerator.frequency_hz,
        dtype_rates={k: float(v) for k, v in table["dtype_rates"].items()},
        dtype_bytes={k: int(v) for k, v in table["dtype_bytes"].items()},
    )


def overhead_set_from(name: str, table: Mapping[str, Any], *, where: str) -> OverheadSet:
    """A set of overheads from parsed TOML: one table an operator with the fields of its record and ``fitted_on``."""
    operators: dict[str, Overhead] = {}
    fitted_on: dict[str, str] = {}
    for operator, values in table.items():
        if operator != "gemm" and operator not in ROW_KERNELS and operator not in ELEMENT_KERNELS:
            raise unknown_name("operator", operator, ("gemm", *ROW_KERNELS, *ELEMENT_KERNELS), where=f"{where}, {name}")
        record: type[GemmOverheads] | type[VectorOverheads] = GemmOverheads if operator == "gemm" else VectorOverheads
        numbers = {}
        for f in fields(record):
            value = values.get(f.name)
            label = f"{name}.{operator}.{f.name}"
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MOST:
                raise bad_value(label, value, f"a number from 0 to {_MOST:g}", where=where)
            if f.name.endswith("_efficiency") and not 0 < value <= 1:
                raise bad_value(label, value, "above 0 and at most 1", closest=1, where=where)
            numbers[f.name] = float(value)
        operators[operator] = record(**numbers)
        fitted_on[operator] = str(values.get("fitted_on", "not stated"))
    return OverheadSet(name, operators, fitted_on)


def read_overheads(path: str | Path, *, name: str = "calibrated") -> OverheadSet:
    """The set that `dse calibrate --out FILE.toml` wrote, without what it says of the device's kernels."""
    tables = {key: table for key, table in load_toml(Path(path)).items() if key not in ("device", "calibration")}
    return overhead_set_from(name, tables, where=str(path))


def overheads_toml(overheads: OverheadSet) -> str:
    """TOML text of a set that `read_overheads` reads back equal."""
    lines = []
    for operator, values in overheads.operators.items():
        note = overheads.fitted_on.get(operator, "not stated").replace("\\", "\\\\").replace('"', '\\"')
        lines += [f"[{operator}]", *(f"{k} = {v!r}" for k, v in asdict(values).items()), f'fitted_on = "{note}"', ""]
    return "\n".join(lines)
