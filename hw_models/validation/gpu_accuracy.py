"""How far the kernel models are from measured rows that no parameter has seen, by kind, device and framework."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.parameters import CollectiveKernel, DirectKernel, family
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.devices.kernel_fits import errors
from hw_models.validation import gpu_rows as m

FloatArray = npt.NDArray[np.float64]
DEVICES: Final = ("a100", "h100", "h200", "l40s", "rtx-pro-6000", "b200", "gb200")


@dataclass(frozen=True)
class Accuracy:
    """Errors of one kind of kernel on one device.

    Attributes:
        kind, number_format, device, framework: what was measured.
        rows: rows that judge; mean, p90: |predicted / measured - 1|; median: predicted / measured.
        seen: whether other shapes of the device were fitted (A100, H100).
    """

    kind: str
    number_format: str
    device: str
    framework: str
    rows: int
    mean: float
    median: float
    p90: float
    seen: bool


@cache
def accuracies() -> tuple[Accuracy, ...]:
    """All of them, in the order of `measured.KINDS` and `DEVICES`."""
    return tuple(_all())


def _all() -> Iterator[Accuracy]:
    for kind in m.KINDS:
        every = m.rows(kind)
        judged = every.where(~every.fitted())
        for device in DEVICES:
            sheet = _sheet(device)
            for framework, number_format, r in _groups(judged.where(device=device)):
                predicted = _predict(kind, sheet, framework, number_format, r)
                if predicted is not None:
                    yield Accuracy(
                        kind, number_format, device, framework, len(r), *errors(predicted, r.latency_s), seen=device in m.FIT_DEVICES
                    )


def _sheet(device: str) -> GpuSheet:
    from hw_models.devices.gpus import gpu_sheet

    return gpu_sheet(device)


def _groups(r: m.Rows) -> Iterator[tuple[str, str, m.Rows]]:
    """Rows by framework and format; decode by the format of the cache; collectives by kernel."""
    by = {"products": ("framework", "format"), "mixtures": ("framework", "format"), "collectives": ("kernel",)}
    columns = by.get(r.kind, ("framework", "kv_format") if r.kind == "decode" else ("framework", "format", "kv_format"))
    keys = list(dict.fromkeys(zip(*(r[c].tolist() for c in columns), strict=True)))
    for key in sorted(keys):
        part = r.where(**dict(zip(columns, key, strict=True)))
        yield str(key[0]), "" if len(key) == 1 else "/".join(key[1:]), part


def _predict(kind: str, sheet: GpuSheet, framework: str, number_format: str, r: m.Rows) -> FloatArray | None:
    chosen: Any = choice(sheet, "nccl" if framework == "nccl" else framework)
    product = family(chosen.product, kind="product")
    if kind == "products":
        name = chosen.low_precision(number_format)
        return m.product_latency_s(sheet, product, r, family(name, kind="low_precision") if name else None)
    if kind == "decode":
        return m.decode_latency_s(sheet, family(chosen.decode(number_format), kind="decode"), r)
    if kind == "prefill":
        return m.prefill_latency_s(sheet, family(chosen.prefill(number_format.split("/", maxsplit=1)[0]), kind="prefill"), r)
    if kind == "mixtures":
        return m.mixture_latency_s(sheet, product, family(chosen.mixture(number_format), kind="mixture"), r)
    kernel: CollectiveKernel | DirectKernel
    if framework == "nccl":
        kernel = family(chosen.collective, kind="collective")
    else:
        kernel = family(chosen.direct, kind="direct")
    return m.collective_latency_s(sheet, kernel, r)


def table() -> str:
    """The errors as a Markdown table: mean / median of predicted over measured / 90th percentile (rows)."""
    lines = ["| kernel | " + " | ".join(DEVICES) + " |", "| --- |" + " --- |" * len(DEVICES)]
    names = list(dict.fromkeys((a.kind, a.number_format, a.framework) for a in accuracies()))
    known = {(a.kind, a.number_format, a.framework, a.device): a for a in accuracies()}
    for name in names:
        cells = []
        for device in DEVICES:
            a = known.get((*name, device))
            cells.append("-" if a is None else f"{100 * a.mean:.1f} / {a.median:.2f} / {100 * a.p90:.0f} ({a.rows})")
        lines.append(f"| {name[0]} {name[1]} {name[2]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def csv_text() -> str:
    """The errors as data/gpu_accuracy.csv holds them."""
    lines = ["kind,format,engine,device,rows,mean,median,p90"]
    for a in accuracies():
        lines.append(f"{a.kind},{a.number_format},{a.framework},{a.device},{a.rows},{a.mean:.3f},{a.median:.3f},{a.p90:.3f}")
    return "\n".join(lines) + "\n"
