"""How far the kernel models are from measured rows that no parameter has seen, by kind, device and framework."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.parameters import CollectiveKernel, DirectKernel, family
from hw_models.costs.gpu_kernels.sheet import GpuSheet
from hw_models.devices.gpus import gpu_sheet
from hw_models.devices.kernel_fits import errors
from hw_models.validation import gpu_rows as m
from hw_models.validation.registry import Outcome, Spec

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
        return m.prefill_latency_s(sheet, family(chosen.prefill(*number_format.split("/")), kind="prefill"), r)
    if kind == "mixtures":
        return m.mixture_latency_s(sheet, product, family(chosen.mixture(number_format), kind="mixture"), r)
    kernel: CollectiveKernel | DirectKernel
    if framework == "nccl":
        kernel = family(chosen.collective, kind="collective")
    else:
        kernel = family(chosen.direct, kind="direct")
    return m.collective_latency_s(sheet, kernel, r)


def table(chosen: Sequence[Accuracy] | None = None) -> str:
    """Errors (None: all) as a Markdown table: mean / median of predicted over measured / 90th percentile (rows)."""
    shown = accuracies() if chosen is None else chosen
    lines = ["| kernel | " + " | ".join(DEVICES) + " |", "| --- |" + " --- |" * len(DEVICES)]
    names = list(dict.fromkeys((a.kind, a.number_format, a.framework) for a in shown))
    known = {(a.kind, a.number_format, a.framework, a.device): a for a in shown}
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


def _outcome(kind: str, number_format: str, framework: str, devices: tuple[str, ...]) -> Outcome:
    """Mean error over the rows of some devices [%]."""
    found = [a for a in accuracies() if (a.kind, a.number_format, a.framework) == (kind, number_format, framework) and a.device in devices]
    count = sum(a.rows for a in found)
    return Outcome(count, 100 * sum(a.mean * a.rows for a in found) / count)


_SOURCE: Final = "aiconfigurator 0.12.0, collectors under vLLM and TensorRT-LLM"
_OWN: Final = "the other half of the shapes of A100 and H100"
_NONE: Final = "A100 and H100, none of these devices"
_NAMES: Final = {"vllm": "vLLM", "trtllm": "TensorRT-LLM", "nccl": "NCCL"}


def _spec(name: str, key: tuple[str, str, str], devices: tuple[str, ...], bound: float, goal: float | None, fitted_on: str = _OWN) -> Spec:
    kind, number_format, framework = key
    shown = f"{name}, {_NAMES[framework]}"
    return Spec(shown, _SOURCE, "%", bound, goal, "", fitted_on, lambda: _outcome(kind, number_format, framework, devices))


def _products(device: str, title: str, bounds: tuple[float, float], goal: float, fitted_on: str) -> tuple[Spec, Spec]:
    name = f"{title} bf16 products"
    return (
        _spec(name, ("products", "bf16", "vllm"), (device,), bounds[0], goal, fitted_on),
        _spec(name, ("products", "bf16", "trtllm"), (device,), bounds[1], goal, fitted_on),
    )


def _decode(device: str, title: str, bounds: tuple[float, float]) -> tuple[Spec, Spec]:
    name = f"{title} decode, bf16 cache"
    return (
        _spec(name, ("decode", "bf16", "vllm"), (device,), bounds[0], 24.0, _NONE),
        _spec(name, ("decode", "bf16", "trtllm"), (device,), bounds[1], 24.0, _NONE),
    )


_OTHERS: Final = ("l40s", "rtx-pro-6000", "b200", "gb200")
SPECS: Final = (
    *_products("a100", "A100", (9.0, 7.5), 9.0, _OWN),
    *_products("h100", "H100", (8.2, 8.1), 9.0, _OWN),
    *_products("h200", "H200", (9.1, 8.2), 9.0, _NONE),
    *_products("l40s", "L40S", (12.8, 14.8), 15.0, _NONE),
    *_products("rtx-pro-6000", "RTX PRO 6000", (11.8, 11.7), 15.0, _NONE),
    *_products("b200", "B200", (15.0, 14.2), 15.0, _NONE),
    *_products("gb200", "GB200", (14.1, 12.6), 15.0, _NONE),
    _spec("H100 fp8 products", ("products", "fp8", "trtllm"), ("h100",), 8.4, 12.0),
    _spec("H100 fp8 products", ("products", "fp8", "vllm"), ("h100",), 10.6, 12.0),
    _spec("A100, H100 decode, bf16 cache", ("decode", "bf16", "vllm"), ("a100", "h100"), 13.5, 16.0),
    _spec("A100, H100 decode, bf16 cache", ("decode", "bf16", "trtllm"), ("a100", "h100"), 15.1, 16.0),
    _spec("L40S, RTX, B200, GB200 decode", ("decode", "bf16", "vllm"), _OTHERS, 15.8, 24.0, _NONE),
    _spec("L40S, RTX, B200, GB200 decode", ("decode", "bf16", "trtllm"), _OTHERS, 19.1, 24.0, _NONE),
    *_decode("l40s", "L40S", (15.9, 20.8)),
    *_decode("rtx-pro-6000", "RTX PRO 6000", (14.8, 24.4)),
    *_decode("b200", "B200", (14.0, 14.8)),
    *_decode("gb200", "GB200", (18.3, 14.6)),
    _spec("A100, H100 prefill, bf16", ("prefill", "bf16/bf16", "vllm"), ("a100", "h100"), 9.9, 12.0),
    _spec("A100, H100 prefill, bf16", ("prefill", "bf16/bf16", "trtllm"), ("a100", "h100"), 6.2, 12.0),
    _spec("L40S, RTX, B200, GB200 prefill", ("prefill", "bf16/bf16", "vllm"), _OTHERS, 18.5, 25.0, _NONE),
    _spec("L40S, RTX, B200, GB200 prefill", ("prefill", "bf16/bf16", "trtllm"), _OTHERS, 20.4, 25.0, _NONE),
    _spec("A100, H100 mixtures, bf16", ("mixtures", "bf16", "vllm"), ("a100", "h100"), 17.8, 18.0),
    _spec("A100, H100 mixtures, bf16", ("mixtures", "bf16", "trtllm"), ("a100", "h100"), 8.0, 18.0),
    _spec("L40S, RTX, B200, GB200 mixtures", ("mixtures", "bf16", "vllm"), _OTHERS, 24.9, 30.0, _NONE),
    _spec("L40S, RTX, B200, GB200 mixtures", ("mixtures", "bf16", "trtllm"), _OTHERS, 27.1, 30.0, _NONE),
    _spec("A100, H100 collectives", ("collectives", "", "nccl"), ("a100", "h100"), 10.1, 11.0),
    _spec("B200, GB200 collectives", ("collectives", "", "nccl"), ("b200", "gb200"), 12.3, 11.0, _NONE),
    _spec("L40S, RTX collectives over PCIe", ("collectives", "", "nccl"), ("l40s", "rtx-pro-6000"), 47.5, None, _NONE),
)  # fmt: skip
