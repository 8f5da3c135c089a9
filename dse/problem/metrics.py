"""The metrics of a design: what each is called, in what unit, what it depends on and how it is computed.

Objectives, constraints, JSON and reports use these names. A new metric is one entry here: whatever it is computed from is a *piece* (a
figure that the evaluation knows: a sum over operations, a column of the hardware or of the models) or another metric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from dse.errors import unknown_name
from hw_models.technology.closed_forms import energy_j

MODEL, HARDWARE, DEPLOYMENT, MAPPING = "model", "hardware", "deployment", "mapping"


class Pieces(Protocol):
    """Designs whose metrics are computed; arrays broadcast to (models, hardware points)."""

    def metric(self, name: str) -> Any:
        """Another metric of the same designs."""
        ...

    def piece(self, name: str) -> Any:
        """A figure that metrics are computed from."""
        ...


@dataclass(frozen=True)
class Metric:
    """One figure of a design.

    Attributes:
        name, label: in files and on the command line; in reports.
        unit: of the name's last part, as `dse list metrics` shows it.
        better: the direction a user would expect, ``min`` or ``max``, None where there is none.
        meaning: one line.
        depends: what must be known for it, of ``model``, ``hardware``, ``deployment``, ``mapping``. What does not need ``mapping`` is known
            of any design before the mapping search; what needs hardware and deployment alone, before a model is chosen.
        compute: from pieces and other metrics.
        share: whether it is a share of one, shown in per cent.
    """

    name: str
    label: str
    unit: str
    better: str | None
    meaning: str
    depends: tuple[str, ...]
    compute: Callable[[Pieces], Any]
    share: bool = False


def average_power_w(rate_per_s: Any, energy_j: Any, idle_share: Any, leakage_w: Any) -> Any:
    """Energy of the requests of a second, and idle power in the share of time that no request takes [W]."""
    return rate_per_s * energy_j + idle_share * leakage_w


_METRICS = (
    Metric("quality", "Quality", "%", "max", "task quality of the model from the workload's surrogate or evaluator", (MODEL,),
           lambda p: p.piece("quality_mean")),
    Metric("quality_se", "Standard error of quality", "%", "min", "standard error of quality", (MODEL,),
           lambda p: p.piece("quality_standard_error")),
    Metric("latency_s", "Latency", "s", "min", "time of one request", (MODEL, HARDWARE, MAPPING), lambda p: p.piece("latency_s")),
    Metric("energy_j", "Energy per request", "J", "min", "energy of one request: dynamic plus leakage while it runs",
           (MODEL, HARDWARE, MAPPING), lambda p: energy_j(p.piece("dynamic_j"), p.piece("request_leakage_w"), p.metric("latency_s"))),
    Metric("area_mm2", "Die area", "mm2", "min", "silicon area of the accelerator's dies", (HARDWARE,), lambda p: p.piece("area_mm2")),
    Metric("tops", "Peak throughput", "1e12 op/s", "max", "peak throughput of the arrays, two operations a MAC", (HARDWARE,),
           lambda p: p.piece("tops")),
    Metric("power_w", "Average power", "W", "min", "average power over the lifetime at the request rate, idle time at idle power",
           (MODEL, HARDWARE, DEPLOYMENT, MAPPING),
           lambda p: average_power_w(p.piece("rate_per_s"), p.metric("energy_j"), p.piece("idle_share"), p.piece("leakage_w"))),
    Metric("peak_power_w", "Peak power", "W", "min", "power of the hungriest operation, leakage included", (MODEL, HARDWARE, MAPPING),
           lambda p: p.piece("peak_dynamic_w") + p.piece("leakage_w")),
    Metric("service_utilisation", "Service utilisation", "1", None, "share of time in which the device serves: request rate x latency",
           (MODEL, HARDWARE, DEPLOYMENT, MAPPING), lambda p: p.piece("rate_per_s") * p.piece("slot_s"), share=True),
    Metric("array_utilisation", "Array utilisation", "1", "max",
           "share of the arrays' peak that a request uses: MACs over their format's peak x latency",
           (MODEL, HARDWARE, MAPPING), lambda p: 2.0 * p.piece("array_macs") / (1e12 * p.metric("tops") * p.piece("slot_s")), share=True),
    Metric("embodied_kgco2e", "Embodied carbon", "kgCO2e", "min", "carbon of making the device", (HARDWARE, DEPLOYMENT),
           lambda p: p.piece("embodied_kgco2e")),
    Metric("operational_kgco2e", "Operational carbon", "kgCO2e", "min", "carbon of its electricity over the lifetime at the request rate",
           (MODEL, HARDWARE, DEPLOYMENT, MAPPING), lambda p: p.piece("operational_kgco2e")),
    Metric("total_kgco2e", "Total carbon", "kgCO2e", "min", "embodied plus operational carbon over the lifetime",
           (MODEL, HARDWARE, DEPLOYMENT, MAPPING), lambda p: p.metric("embodied_kgco2e") + p.metric("operational_kgco2e")),
    Metric("kgco2e_per_request", "Carbon per request", "kgCO2e", "min", "total carbon divided by the requests served over the lifetime",
           (MODEL, HARDWARE, DEPLOYMENT, MAPPING), lambda p: p.metric("total_kgco2e") / p.piece("requests")),
    Metric("capital_usd", "Price of boards", "USD", "min", "price of the boards, where one is public", (HARDWARE,),
           lambda p: p.piece("capital_usd")),
    Metric("usd_per_request", "Cost per request", "USD", "min", "price of boards and electricity over the requests served in the lifetime",
           (MODEL, HARDWARE, DEPLOYMENT, MAPPING),
           lambda p: (p.metric("capital_usd") + p.piece("usd_per_w") * p.metric("power_w")) / p.piece("requests")),
    Metric("parameters", "Parameters", "1", "min", "parameters of the model", (MODEL,), lambda p: p.piece("parameters")),
    Metric("macs", "MACs per request", "1", "min", "multiply-accumulates of one request", (MODEL,), lambda p: p.piece("macs")),
    Metric("dram_fill", "DRAM fill", "1", "min", "weights and activations as a share of the DRAM", (MODEL, HARDWARE),
           lambda p: p.piece("held_bytes") / p.piece("dram_bytes"), share=True),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}

RENAMED = {"utilisation": "service_utilisation"}
"""Names of earlier versions, which users may still type and old studies hold; arrays have a utilisation of their own."""


def current_name(name: str) -> str:
    """The name of today for one of an earlier version."""
    return RENAMED.get(name, name)


def metric(field: str, name: str) -> Metric:
    """The metric called ``name`` (or so called once), or an error that names ``field`` and the nearest known one."""
    if current_name(name) not in METRICS:
        raise unknown_name(field, name, METRICS)
    return METRICS[current_name(name)]


def known_before_mapping(names: tuple[str, ...] = tuple(METRICS)) -> tuple[str, ...]:
    """Those of ``names`` that no mapping search is needed for."""
    return tuple(name for name in names if MAPPING not in METRICS[name].depends)


def of_hardware(names: tuple[str, ...] = tuple(METRICS)) -> tuple[str, ...]:
    """Those of ``names`` that the hardware and its deployment decide, whatever the model."""
    return tuple(name for name in names if not {MODEL, MAPPING} & set(METRICS[name].depends))
