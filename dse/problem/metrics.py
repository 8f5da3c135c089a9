"""The metrics of a design: names, units, meaning. Objectives, constraints, JSON and reports use these names."""

from __future__ import annotations

from dataclasses import dataclass

from dse.errors import unknown_name


@dataclass(frozen=True)
class Metric:
    """One figure of a design; ``better`` is the direction a user would expect, None where there is none."""

    name: str
    unit: str
    better: str | None
    meaning: str


_METRICS = (
    Metric("quality", "%", "max", "task quality of the model from the workload's surrogate or evaluator"),
    Metric("quality_se", "%", "min", "standard error of quality"),
    Metric("latency_s", "s", "min", "time of one request"),
    Metric("energy_j", "J", "min", "energy of one request: dynamic plus leakage while it runs"),
    Metric("area_mm2", "mm2", "min", "silicon area of the accelerator's dies"),
    Metric("tops", "1e12 op/s", "max", "peak throughput of the arrays, two operations a MAC"),
    Metric("power_w", "W", "min", "average power over the lifetime at the request rate, idle time at idle power"),
    Metric("peak_power_w", "W", "min", "power of the hungriest operation, leakage included"),
    Metric("utilisation", "1", None, "share of time in which the device serves: request rate x latency"),
    Metric("embodied_kgco2e", "kgCO2e", "min", "carbon of making the device"),
    Metric("operational_kgco2e", "kgCO2e", "min", "carbon of its electricity over the lifetime at the request rate"),
    Metric("total_kgco2e", "kgCO2e", "min", "embodied plus operational carbon over the lifetime"),
    Metric("kgco2e_per_request", "kgCO2e", "min", "total carbon divided by the requests served over the lifetime"),
    Metric("capital_usd", "USD", "min", "price of the boards, where one is public"),
    Metric("usd_per_request", "USD", "min", "price of boards and electricity over the requests served in the lifetime"),
    Metric("parameters", "1", "min", "parameters of the model"),
    Metric("macs", "1", "min", "multiply-accumulates of one request"),
    Metric("dram_fill", "1", "min", "weights and activations as a share of the DRAM"),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


def metric(field: str, name: str) -> Metric:
    """The metric called ``name``, or an error that names ``field`` and the nearest known one."""
    if name not in METRICS:
        raise unknown_name(field, name, METRICS)
    return METRICS[name]
