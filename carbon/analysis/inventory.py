"""Carbon in the words of other people's books: lines of a GHG-protocol inventory, and codecarbon's table of runs."""

from __future__ import annotations

import datetime
import platform
import sys
from collections.abc import Mapping
from typing import Any

from carbon.analysis.uncertainty import Spread
from carbon.factors.grid import GridFactor
from carbon.operational.computing import Emissions

CAPITAL_GOODS = "Scope 3, category 2: capital goods"
ELECTRICITY = "Scope 2, location-based: purchased electricity"
SERVICES = "Scope 3, category 1: purchased goods and services"


def ghg_rows(
    name: str,
    *,
    embodied_kgco2e: float,
    kwh: float,
    place: GridFactor | None,
    basis: str,
    cloud: bool = False,
    machines: str = "",
    period_years: float | None = None,
    spreads: tuple[Spread, Spread] | None = None,
    parts: Mapping[str, tuple[float, Spread | None]] | None = None,
    made_source: str = "this estimate",
) -> list[dict[str, Any]]:
    """Lines of an inventory (Corporate Standard; Corporate Value Chain Standard for scope 3).

    Args:
        kwh: purchased electricity, the facility's share included; 0 for none. cloud: machines that another company owns: everything is
            then a purchased service.
        machines: what the lines are of ("8 x h100"). period_years: the time that the lines cover. spreads: embodied and operational, where
            factors were drawn. parts: kgCO2e and range of each embodied part, a line each in place of one line of the whole; their ends do
            not add to those of the whole. made_source: what the carbon of making was computed by.

    A life-cycle intensity also holds what scope 3, category 3 (fuel- and energy-related activities) asks for; the line says which it is.
    """
    rows: list[dict[str, Any]] = []
    of = {"machines": machines, "period_years": period_years}
    made, used = spreads or (None, None)
    if embodied_kgco2e:
        category = SERVICES if cloud else CAPITAL_GOODS
        lines: Mapping[str, tuple[float, Spread | None]] = parts or {"": (embodied_kgco2e, made)}
        for part, (kg, span) in lines.items():
            activity = f"making of the hardware{': ' if part else ''}{part}"
            rows.append(_row(name, category, activity, 1.0, "unit", kg, made_source, basis) | of | _span(span))
    if kwh and place is not None:
        factor = place.gco2e_per_kwh / 1e3
        category = SERVICES if cloud else ELECTRICITY
        row = _row(name, category, f"electricity, {place.name}", kwh, "kWh", factor, place.source, f"{place.kind}; {basis}")
        rows.append(row | of | _span(used))
    return rows


def _span(spread: Spread | None) -> dict[str, float | None]:
    return {"p5_kgco2e": None if spread is None else float(spread.p5), "p95_kgco2e": None if spread is None else float(spread.p95)}


def _row(name: str, category: str, activity: str, amount: float, unit: str, factor: float, source: str, note: str) -> dict[str, Any]:
    return {
        "reporting_item": name,
        "category": category,
        "activity": activity,
        "activity_data": amount,
        "unit": unit,
        "emission_factor_kgco2e_per_unit": factor,
        "emission_factor_source": source,
        "kgco2e": amount * factor,
        "method": note,
    }


def codecarbon_row(name: str, found: Emissions, *, when: datetime.datetime) -> Mapping[str, Any]:
    """One line of codecarbon's ``emissions.csv`` (columns of version 3.3): kWh, kg, seconds, watts; embodied carbon has no place there."""
    spent = found.spent
    hours = spent.wall_s / 3600
    watts = [1e3 * kwh / hours if hours else 0.0 for kwh in (spent.processor_kwh, spent.gpu_kwh, spent.memory_kwh)]
    return {
        "timestamp": when.isoformat(timespec="seconds"),
        "project_name": name,
        "run_id": "",
        "experiment_id": "",
        "duration": spent.wall_s,
        "emissions": found.operational_kgco2e,
        "emissions_rate": found.operational_kgco2e / spent.wall_s if spent.wall_s else 0.0,
        "cpu_power": watts[0],
        "gpu_power": watts[1],
        "ram_power": watts[2],
        "cpu_energy": spent.processor_kwh,
        "gpu_energy": spent.gpu_kwh,
        "ram_energy": spent.memory_kwh,
        "energy_consumed": found.facility_kwh,
        "country_name": found.place.name,
        "country_iso_code": found.place.code.partition(":")[2],
        "os": platform.platform(),
        "python_version": sys.version.split()[0],
        "tracking_mode": "machine" if "whole machine" in spent.basis else "process",
        "on_cloud": "N",
        "pue": found.pue,
    }
