"""Measured kernels that ship with the package, and what the model says of them.

The rows (hw_models/data/reference/gpu_*.csv) were measured by the collectors of aiconfigurator 0.12.0 (Apache-2.0) under vLLM and
TensorRT-LLM; samples, except that those of A100, H100 and L40S are larger. Half of the A100 and H100 shapes, chosen by a hash of
the shape, are what parameters are fitted to (`fitted`); all other rows judge.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels import attention, collectives, mixtures, products
from hw_models.costs.gpu_kernels.parameters import (
    CollectiveKernel,
    DecodeKernel,
    DirectKernel,
    LowPrecision,
    MixtureKernel,
    PrefillKernel,
    ProductKernel,
)
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.validation.routed_loads import Dealer, experts_in_turn, routed_loads

FloatArray = npt.NDArray[np.float64]

KINDS: Final = ("products", "prefill", "decode", "mixtures", "collectives")
FIT_DEVICES: Final = ("a100", "h100")
OLDER_COLLECTORS: Final = {"a100": Dealer.HEAVIEST_FIRST}
"""Devices whose layers of experts were measured by older collectors (under TensorRT-LLM 1.0.0 and vLLM 0.14.0)."""
_TEXTS: Final = ("device", "framework", "format", "kv_format", "kernel", "operation")
_NOT_SHAPE: Final = ("device", "framework", "latency_us", "format", "kv_format", "kernel")
FORMATS: Final = {
    # name in the rows: (format of the multiplication, bytes of an activation, bytes of a weight with its scales)
    "bf16": ("bf16", 2.0, 2.0),
    "fp8": ("fp8", 1.0, 1.0),
    "fp8_block": ("fp8", 1.0, 1.0),
    "int8": ("int8", 1.0, 1.0),
    "int8_wo": ("bf16", 2.0, 1.0),
    "int4_wo": ("bf16", 2.0, 0.5),
    "nvfp4": ("fp4", 0.5625, 0.5625),
}


@dataclass(frozen=True, eq=False)
class Rows:
    """Measured rows of one kind: columns by name (rows,); ``latency_s`` is what was measured."""

    kind: str
    columns: Mapping[str, npt.NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["latency_us"])

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]

    @property
    def latency_s(self) -> FloatArray:
        """Measured latency (rows,) [s]."""
        return np.asarray(self.columns["latency_us"] * 1e-6)

    def where(self, mask: npt.NDArray[np.bool_] | None = None, **equal: str | float) -> Rows:
        """The rows at a mask whose columns equal some values."""
        keep = np.ones(len(self), dtype=bool) if mask is None else mask.copy()
        for name, value in equal.items():
            keep &= self.columns[name] == value
        return Rows(self.kind, {name: column[keep] for name, column in self.columns.items()})

    def fitted(self) -> npt.NDArray[np.bool_]:
        """Whether a row is of the half of A100 and H100 shapes that parameters are fitted to (rows,)."""
        # The window of decode rows came later than the halves, which stay as they were.
        names = [n for n in self.columns if n not in _NOT_SHAPE and (self.kind, n) != ("decode", "window")]
        shapes = zip(*(self.columns[n].tolist() for n in names), strict=True)
        even = np.array([hashlib.sha256(repr(s).encode()).digest()[0] % 2 == 0 for s in shapes])
        return np.asarray(even & np.isin(self.columns["device"], FIT_DEVICES))


@cache
def rows(kind: str) -> Rows:
    """The shipped rows of a kind of `KINDS`."""
    text = (files("hw_models") / "data" / "reference" / f"gpu_{kind}.csv").read_text(encoding="utf-8")
    records = list(csv.DictReader(text.splitlines()))
    return Rows(kind, {n: np.array([r[n] for r in records], dtype=np.str_ if n in _TEXTS else np.float64) for n in records[0]})


def product_latency_s(sheet: GpuSheet, kernel: ProductKernel, r: Rows, low: LowPrecision | None = None) -> FloatArray:
    """What the model says of measured products of one format."""
    number_format, first, second = FORMATS[str(r["format"][0])]
    packed = r["n"] * r["k"] * (0.5 if number_format == "fp4" else second)  # without scales of blocks, as the collector counts
    copies = np.where(r["framework"] == "trtllm", *(products.benchmark_copies(e, sheet, packed) for e in ("trtllm", "vllm")))
    if number_format == "fp4":  # of which vLLM's collector has one
        copies = np.where(r["framework"] == "vllm", 1.0, copies)
    return products.product_times(
        sheet, kernel, r["m"], r["n"], r["k"], number_format=number_format, activation_bytes=first, weight_bytes=second, low=low,
        copies=copies,
    ).latency_s  # fmt: skip


def decode_latency_s(sheet: GpuSheet, kernel: DecodeKernel, r: Rows) -> FloatArray:
    """What the model says of measured decode attention, its cache warm as the collectors repeat one kernel."""
    size = np.where(r["kv_format"] == "fp8", 1.0, 2.0)
    return attention.decode_times(
        sheet, kernel, r["batch"], r["heads"], r["kv_heads"], r["keys"], r["head_elements"], kv_bytes=size, window=r["window"], cold=False
    ).latency_s


def prefill_latency_s(sheet: GpuSheet, kernel: PrefillKernel, r: Rows) -> FloatArray:
    """What the model says of measured prefill attention of one format of the queries."""
    number_format = str(r["format"][0])
    return attention.prefill_times(
        sheet, kernel, r["batch"], r["heads"], r["kv_heads"], r["queries"], r["head_elements"], window=r["window"],
        number_format=number_format if number_format in sheet.rates else "bf16",
        query_bytes=1.0 if number_format == "fp8" else 2.0, kv_bytes=np.where(r["kv_format"] == "fp8", 1.0, 2.0),
    ).latency_s  # fmt: skip


def mixture_latency_s(sheet: GpuSheet, of_products: ProductKernel, kernel: MixtureKernel, r: Rows) -> FloatArray:
    """What the model says of measured layers of experts of one format, in the mean of the draws of what their experts get."""
    number_format, first, second = FORMATS[str(r["format"][0])]
    shapes = zip(*(r[n].astype(np.int64).tolist() for n in ("tokens", "experts", "chosen", "ranks")), r["exponent"].tolist(), strict=True)
    dealers = [OLDER_COLLECTORS.get(device, Dealer.RANK_BY_RANK) for device in r["device"].tolist()]
    draws = [routed_loads(*shape, dealer) for shape, dealer in zip(shapes, dealers, strict=True)]
    of = np.repeat(np.arange(len(r)), [len(d) for d in draws])
    latency = mixtures.mixture_times(
        sheet, of_products, kernel, [load for each in draws for load in each],
        *(r[n][of] for n in ("tokens", "hidden", "inner", "experts", "chosen")), gated=r["gated"][of] > 0, number_format=number_format,
        activation_bytes=first, weight_bytes=second, in_turn=np.array([experts_in_turn(d) for d in draws])[of],
    ).latency_s  # fmt: skip
    return np.asarray(np.bincount(of, latency) / np.bincount(of))


def collective_latency_s(sheet: GpuSheet, kernel: CollectiveKernel | DirectKernel, r: Rows) -> FloatArray:
    """What the model says of measured collectives, of one operation or all."""
    if isinstance(kernel, DirectKernel):
        return collectives.direct_all_reduce_s(sheet, kernel, r["size_bytes"], r["devices"])
    result = np.empty(len(r))
    for operation in np.unique(r["operation"]):
        at = r["operation"] == operation
        result[at] = collectives.library_s(sheet, kernel, str(operation), r["size_bytes"][at], r["devices"][at])
    return result
