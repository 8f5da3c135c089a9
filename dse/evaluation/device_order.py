"""How sure the order of several devices by carbon is, under what is stated to be uncertain: factors, models, measurements.

Every device stands with the number of it that serves the requests at the least carbon. The carbon factors are drawn from their ranges
once for all devices; latency, power and idle power of each device are off by errors of its own, and energy by one of all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from carbon.analysis.uncertainty import Range, draws
from carbon.operational.service import equal_service
from dse.errors import DseError
from dse.evaluation import robustness
from dse.evaluation.evaluation import Evaluation, load_family, load_hardware
from dse.problem.deployment import VARIABLE
from dse.problem.problem import Problem
from hw_models.devices.accuracy import mean_error

FloatArray = npt.NDArray[np.float64]

SETTLED: Final = 0.95  # share of the draws in which a pair must keep its order to be called settled
ENERGY_ERROR: Final = 0.25
"""Mean error of the power rule that all devices share: an H100's joules a token are 1 to 26 % below published (docs/models/gpu.md)."""
POWER_ERROR: Final = 0.15
"""Mean error of a device's own power: A100 and H100 stand by about so much differently to what is published."""
IDLE: Final = Range(0.7, 1.0, 1.3)  # idle power: the sheets' own +- 30 %


SHOWN: Final = 4  # devices that a short form names


@dataclass(frozen=True)
class Pair:
    """Two devices that follow each other: the share of draws in which ``first`` has less, and whether that settles it."""

    first: str
    second: str
    share: float
    settled: bool


@dataclass(frozen=True)
class DeviceOrder:
    """Devices by total carbon at equal service.

    Attributes:
        devices, chips, total_kgco2e: from the least, with the number that serves at the least carbon; p5, p95: of the draws.
        least: share of draws in which a device has the least of all.
        pairs: neighbours in that order. whole: share of draws that keep all of it.
        cannot: devices that cannot serve the requests, with the reason.
    """

    devices: tuple[str, ...]
    chips: tuple[int, ...]
    total_kgco2e: tuple[float, ...]
    p5: tuple[float, ...]
    p95: tuple[float, ...]
    least: tuple[float, ...]
    pairs: tuple[Pair, ...]
    whole: float
    cannot: dict[str, str]
    draws: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def sentences(self) -> list[str]:
        """The order and how sure it is."""
        said = []
        if self.devices:
            shown = [f"{n} x {d} ({t:,.0f} kg)" for d, n, t in zip(self.devices, self.chips, self.total_kgco2e, strict=True)]
            said.append("Devices by total carbon at equal service, least first: " + ", ".join(shown) + ".")
        for pair in self.pairs:
            verdict = "settled" if pair.settled else "not settled under the stated uncertainty"
            said.append(f"{pair.first} has less than {pair.second} in {pair.share:.0%} of {self.draws:,} draws: {verdict}.")
        return said + [f"{device} is not in the order: {reason}." for device, reason in self.cannot.items()]

    def in_short(self) -> list[str]:
        """The same for a page that has little room: of a long list the least, and how sure their order is."""
        if len(self.devices) + len(self.cannot) <= SHOWN:
            return self.sentences()
        shown = [f"{n} x {d} ({t:,.0f} kg)" for d, n, t in zip(self.devices, self.chips, self.total_kgco2e, strict=True)]
        more = f"; {len(shown) - SHOWN} more, up to {shown[-1]}" if len(shown) > SHOWN else ""
        said = [f"Least total carbon at equal service: {', '.join(shown[:SHOWN])}{more}."] if shown else []
        for told, settled in (("Settled", True), ("Not settled", False)):
            pairs = [f"{p.first} before {p.second} ({p.share:.0%})" for p in self.pairs[: SHOWN - 1] if p.settled is settled]
            if pairs:
                said.append(f"{told}, by {self.draws:,} draws: {', '.join(pairs)}.")
        return said + ([f"Not in the order: {', '.join(self.cannot)}."] if self.cannot else [])


def device_order(
    problem: Problem, model: Mapping[str, Any] | None = None, *, count: int = robustness.DRAWS, seed: int = 0
) -> DeviceOrder | None:
    """The order of the devices of a problem for one model (``model``: its knobs; else the workload's own), None for fewer than two.

    Errors of the kernel models are those of rows that no fit has seen (`hw_models.devices.accuracy.mean_error`).
    """
    hardware = load_hardware(problem)
    if len(hardware.shipped) < 2 or "device" in problem.fixed:
        return None
    knobs = {**problem.fixed, **{name: value for name, value in (model or {}).items() if name not in (*hardware.knobs, *VARIABLE)}}
    known = set(load_family(problem).values())
    fixed = {name: value for name, value in knobs.items() if name in known or name in problem.fixed}
    vary = {name: values for name, values in problem.vary.items() if name not in VARIABLE}
    one = replace(problem, fixed=fixed, fixed_model=True, allow_unsupported=True, vary=vary, space="default", space_toml=None)
    evaluation = Evaluation(one, threads=1)
    designs, cannot = _best_of_each(evaluation)
    if len(designs) < 2:
        return DeviceOrder((), (), (), (), (), (), (), 0.0, cannot, count, seed) if cannot else None
    total = _drawn_total(one, designs, count, seed)
    devices = tuple(str(d["knobs"]["device"]) for d in designs)
    ordered = total[:, :-1] < total[:, 1:]
    pairs = [
        Pair(first, second, float(share), bool(share >= SETTLED))
        for (first, second), share in zip(pairwise(devices), ordered.mean(axis=0), strict=True)
    ]
    p5, p95 = np.percentile(total, (5, 95), axis=0)
    least = np.bincount(total.argmin(axis=1), minlength=len(devices)) / count
    return DeviceOrder(
        devices,
        tuple(int(d["knobs"]["chips"]) for d in designs),
        tuple(float(d["metrics"]["total_kgco2e"]) for d in designs),
        tuple(p5.tolist()),
        tuple(p95.tolist()),
        tuple(least.tolist()),
        tuple(pairs),
        float(ordered.all(axis=1).mean()),
        cannot,
        count,
        seed,
    )


def context(problem: Problem, designs: Sequence[dict[str, Any]], *, seed: int = 0) -> dict[str, Any]:
    """The ``uncertainty`` entry of a run's context, with the order of devices where the search chose among several."""
    found = robustness.report_context(problem, designs, seed=seed)
    try:
        order = device_order(problem, designs[0]["knobs"] if designs else None, seed=seed)
    except DseError as error:  # a space whose devices cannot all be costed has no order; the search itself has told why
        return {**found, "notes": [*found["notes"], f"No order of devices: {error}."]}
    if order is None:
        return found
    return {
        **found,
        "notes": [*found["notes"], *order.sentences()],
        "device_order": order.to_dict(),
        "device_order_said": order.sentences(),
        "device_order_short": order.in_short(),
    }


def _best_of_each(evaluation: Evaluation) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The design of each device with the least carbon among those that serve, least first; and why a device has none."""
    block = evaluation.block(0, 1)
    names = ("latency_s", "energy_j", "total_kgco2e", "embodied_kgco2e", "operational_kgco2e", "kgco2e_per_request", "dram_fill",
             "service_utilisation")  # fmt: skip
    columns = {name: np.broadcast_to(block.metric(name), block.shape)[0] for name in names}
    serves = block.mappable()[0] & (columns["dram_fill"] <= 1) & (columns["service_utilisation"] <= 1)
    device = evaluation.space.hardware["device"]
    designs, cannot = [], {}
    for name in dict.fromkeys(device.tolist()):
        mine = np.flatnonzero(device == name)
        able = mine[serves[mine]]
        if not len(able):
            most = float(columns["dram_fill"][mine].min())
            cannot[str(name)] = (
                f"weights and activations take {most:.3g} times the memory of the most chips"
                if most > 1
                else "no group of its chips serves the rate"
            )
            continue
        best = int(able[columns["total_kgco2e"][able].argmin()])
        designs.append({"knobs": evaluation.space.design(0, best), "metrics": {n: float(c[best]) for n, c in columns.items()}})
    return sorted(designs, key=lambda d: d["metrics"]["total_kgco2e"]), cannot


def _drawn_total(problem: Problem, designs: Sequence[dict[str, Any]], count: int, seed: int) -> FloatArray:
    """Total carbon of designs under each draw, (draws, designs): a draw of factors is the same for all."""
    points = robustness.points_of(problem, designs)
    moved, _ = robustness.drawn(problem, designs, points, draws=count, seed=seed)
    given = {name: np.array([d["metrics"][name] for d in designs]) for name in ("latency_s", "energy_j", "operational_kgco2e")}
    intensity = np.divide(moved["operational_kgco2e"], given["operational_kgco2e"], where=given["operational_kgco2e"] > 0,
                          out=np.ones_like(moved["operational_kgco2e"]))  # fmt: skip
    devices = [str(d["knobs"]["device"]) for d in designs]
    streams = {f"idle.{d}": IDLE for d in devices} | {f"{what}.{d}": _UNIFORM for what in ("time", "power") for d in devices}
    share = draws({**streams, "energy": _UNIFORM}, count, seed)
    time = np.stack([_lognormal(share[f"time.{d}"], mean_error(d)) for d in devices], axis=1)
    power = np.stack([_lognormal(share[f"power.{d}"], POWER_ERROR) for d in devices], axis=1)
    idle = np.stack([share[f"idle.{d}"] for d in devices], axis=1)
    energy = time * power * _lognormal(share["energy"], ENERGY_ERROR)[:, None]
    service = equal_service(
        given["energy_j"] * energy,
        given["latency_s"] * time,
        idle_w=points.leakage_w * idle,
        rate_per_s=points.rate_per_s,
        lifetime_years=points.lifetime_years,
        pue=points.pue,
        gco2e_per_kwh=points.gco2e_per_kwh,
        concurrency=points.in_flight,
    )
    return np.asarray(moved["embodied_kgco2e"] + np.asarray(service.operational_kgco2e) * intensity)


_UNIFORM: Final = Range(0.0, 0.5, 1.0, "uniform")


def _lognormal(share: FloatArray, mean_error_share: float) -> FloatArray:
    """Factors around 1 whose mean distance in logarithms is ``mean_error_share``, from uniform shares."""
    sigma = mean_error_share * math.sqrt(math.pi / 2)
    normal = NormalDist()
    return np.exp(sigma * np.array([normal.inv_cdf(min(max(float(s), 1e-9), 1 - 1e-9)) for s in share]))
