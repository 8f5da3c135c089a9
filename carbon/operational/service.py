"""Operational carbon: energy over a lifetime at an equal request rate, times PUE, times the grid.

Designs are compared at equal service: the same requests a second for the same years. A slow design then runs longer, not less;
one that cannot keep up (rate * latency > 1) is infeasible and is flagged rather than given free time.
"""

from __future__ import annotations

from dataclasses import dataclass

from carbon.arrays import Numeric, as_number, where

#: Julian year, as in ACT (8766 h); other conventions are stated by the profile that uses them (SCI's example: 365 d).
DAYS_PER_YEAR = 365.25
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True, slots=True)
class Operation:
    """Operational carbon over the lifetime; every field broadcasts to the shape of the designs.

    Attributes:
        active_kgco2e: energy spent on requests. idle_kgco2e: idle power during the rest of the time.
        operational_kgco2e: their sum. energy_kwh: electricity drawn from the grid (PUE included).
        utilisation: share of the time spent on requests (of all ``concurrency`` slots).
        requests: served over the lifetime. feasible: utilisation <= 1.
    """

    active_kgco2e: Numeric
    idle_kgco2e: Numeric
    operational_kgco2e: Numeric
    energy_kwh: Numeric
    utilisation: Numeric
    requests: Numeric
    feasible: Numeric


def equal_service(
    energy_j_per_request: Numeric,
    latency_s: Numeric,
    *,
    idle_w: Numeric,
    rate_per_s: Numeric,
    lifetime_years: Numeric,
    pue: Numeric = 1.0,
    gco2e_per_kwh: Numeric,
    concurrency: Numeric = 1.0,
    days_per_year: float = DAYS_PER_YEAR,
) -> Operation:
    """Return operational carbon of designs that all serve ``rate_per_s`` for ``lifetime_years``.

    active = energy * requests; idle = idle_w * (1 - utilisation) * lifetime; both times PUE and carbon intensity.

    Args:
        energy_j_per_request: J of one request, everything on while it runs. latency_s: time one request occupies a slot.
        idle_w: power while no request runs: the leakage of a design's SRAM (CACTI 7, times its supply), or the idle watts of a board's
            file (`leakage_w` of an accelerator either way). rate_per_s: mean requests a second. pue: facility energy / IT energy, >= 1.
        concurrency: requests in flight at once (a batch of B that takes latency_s has concurrency B).
        All arguments broadcast; tensors keep their gradients.

    Returns:
        :class:`Operation`. Where utilisation exceeds 1 ``feasible`` is False and the idle part is zero; the active part
        is still that of the full rate, so that no design gains by serving less.

    Raises:
        CarbonError: a negative, NaN or infinite argument; PUE below 1.
    """
    energy = as_number("energy_j_per_request", energy_j_per_request, low=0.0)
    latency = as_number("latency_s", latency_s, low=0.0)
    idle = as_number("idle_w", idle_w, low=0.0)
    rate = as_number("rate_per_s", rate_per_s, low=0.0)
    years = as_number("lifetime_years", lifetime_years, low=0.0, high=1000.0, open_low=True)
    overhead = as_number("pue", pue, low=1.0)
    intensity = as_number("gco2e_per_kwh", gco2e_per_kwh, low=0.0)
    slots = as_number("concurrency", concurrency, low=0.0, open_low=True)
    seconds = years * (days_per_year * 86400.0)
    requests = rate * seconds
    utilisation = rate * latency / slots
    feasible = utilisation <= 1.0
    idle_share = where(feasible, 1.0 - utilisation, 0.0 * utilisation)
    grid_kwh_per_j = overhead / JOULES_PER_KWH
    active_kwh = energy * requests * grid_kwh_per_j
    idle_kwh = idle * (idle_share * seconds) * grid_kwh_per_j
    kg_per_kwh = intensity / 1000.0
    active_kg, idle_kg = active_kwh * kg_per_kwh, idle_kwh * kg_per_kwh
    return Operation(active_kg, idle_kg, active_kg + idle_kg, active_kwh + idle_kwh, utilisation, requests, feasible)


def power_hours(
    power_w: Numeric,
    *,
    duty_cycle: Numeric = 1.0,
    lifetime_years: Numeric,
    gco2e_per_kwh: Numeric,
    pue: Numeric = 1.0,
    idle_w: Numeric = 0.0,
    days_per_year: float = DAYS_PER_YEAR,
) -> Numeric:
    """Return kgCO2e of a device at ``power_w`` for ``duty_cycle`` of its life: CI * P * duty * lifetime (ACT v2 OPModel).

    ``idle_w`` is drawn for the rest of the time (ACT: 0). One year is 8766 h unless ``days_per_year`` says otherwise.
    """
    power = as_number("power_w", power_w, low=0.0)
    duty = as_number("duty_cycle", duty_cycle, low=0.0, high=1.0)
    years = as_number("lifetime_years", lifetime_years, low=0.0, high=1000.0)
    intensity = as_number("gco2e_per_kwh", gco2e_per_kwh, low=0.0)
    overhead = as_number("pue", pue, low=1.0)
    hours = years * (days_per_year * 24.0)
    mean_w = power * duty + as_number("idle_w", idle_w, low=0.0) * (1.0 - duty)
    return mean_w * hours / 1000.0 * overhead * (intensity / 1000.0)


def fixed_requests(energy_j_per_request: Numeric, requests: Numeric, gco2e_per_kwh: Numeric, pue: Numeric = 1.0) -> Numeric:
    """Return kgCO2e of a fixed number of requests, however long they take (CATransformers: 30,000,000 inferences).

    It compares designs at unequal time: a slow one is given more calendar time for nothing. Use :func:`equal_service`.
    """
    energy = as_number("energy_j_per_request", energy_j_per_request, low=0.0)
    count = as_number("requests", requests, low=0.0)
    intensity = as_number("gco2e_per_kwh", gco2e_per_kwh, low=0.0)
    return energy * count / JOULES_PER_KWH * as_number("pue", pue, low=1.0) * (intensity / 1000.0)
