"""Where a fleet stands: the grid hour by hour, facility power, lifetime, spare replicas for headroom and failures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.factors import grid as grids
from carbon.factors import grid_files
from dse.errors import DseError, UsageError, unknown_name

FloatArray = npt.NDArray[np.float64]
HOUR_S = 3600.0
DAY_HOURS = 24


@dataclass(frozen=True)
class Place:
    """Carbon intensity, PUE, lifetime, and spares.

    Attributes:
        gco2e_per_kwh: mean intensity. hourly: intensity hour by hour, empty for none; 24 values stand for every day.
        start_hour: hour of ``hourly`` (UTC) at which the log begins.
        headroom: spare replicas (idle) as a share of the working ones.
        mtbf_hours, repair_hours: of a chip. Meta counted 419 unexpected interruptions in 54 days of 16,384 H100 while Llama 3 was trained
            (arXiv 2407.21783, as reported by Data Center Dynamics, July 2024): 50,700 hours; the time of repair is an estimate.
        service_level: chance that at least the working replicas are up; spares are added until it holds.
    """

    gco2e_per_kwh: float
    pue: float = 1.2
    lifetime_years: float = 5.0
    headroom: float = 0.1
    hourly: tuple[float, ...] = ()
    start_hour: int = 0
    mtbf_hours: float = 50_000.0
    repair_hours: float = 24.0
    service_level: float = 0.999

    def __post_init__(self) -> None:
        for name, low, high in (("headroom", 0.0, 10.0), ("repair_hours", 0.0, 1e5)):
            if not low <= getattr(self, name) <= high:
                raise UsageError(f"{name} is {getattr(self, name)}, must be from {low:g} to {high:g}")
        if not 1.0 <= self.mtbf_hours <= 1e9:
            raise UsageError(f"mtbf_hours is {self.mtbf_hours}, must be from 1 to 1e9")
        if not 0.0 <= self.service_level < 1.0:
            raise UsageError(f"service_level is {self.service_level}, must be from 0 to below 1")
        if self.start_hour < 0 or self.start_hour != int(self.start_hour):
            raise UsageError(f"start_hour is {self.start_hour}, must be a whole number from 0")

    def availability(self, chips: int) -> float:
        """Share of the time in which a replica of so many chips is up: all of them must be."""
        return (self.mtbf_hours / (self.mtbf_hours + self.repair_hours)) ** chips

    def spares(self, replicas: int, chips: int) -> int:
        """Idle replicas beside the working ones: for headroom, or so many that failures leave enough, whichever is more."""
        wanted = math.ceil(replicas * self.headroom - 1e-9)
        up = self.availability(chips)
        spare = 0
        while at_least(replicas + spare, replicas, up) < self.service_level:
            spare += 1
            if spare > 10 * replicas + 100:
                raise DseError(
                    f"{replicas} replicas of {chips} chips that are up {100 * up:.3g} % of the time cannot keep a service level of "
                    f"{self.service_level:g}; nearest is a higher mtbf_hours or a lower service_level"
                )
        return max(wanted, spare)

    def intensity(self, hours: int) -> FloatArray:
        """Carbon intensity of the log's hours (hours,) [g/kWh]."""
        if not self.hourly:
            return np.full(hours, self.gco2e_per_kwh)
        values = np.array(self.hourly)
        at = self.start_hour + np.arange(hours)
        if len(values) == DAY_HOURS:
            return values[at % DAY_HOURS]
        if at[-1] >= len(values):
            raise DseError(
                f"the log ends in hour {int(at[-1])} of the grid's hours, must be below the {len(values)} that the file holds; "
                "nearest is a file of 24 hours, which stand for every day"
            )
        return values[at]


def at_least(count: int, needed: int, chance: float) -> float:
    """P(at least ``needed`` of ``count`` are up), each with ``chance`` and independently."""
    return math.fsum(math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(needed, count + 1))


def with_grid(place: Place, grid: str) -> Place:
    """The place with the grid of a name, or of an hourly file (Electricity Maps, WattTime, EIA-930) hour by hour."""
    if Path(grid).suffix.lower() in (".csv", ".json"):
        hours = grid_files.read(grid).trace.gco2e_per_kwh
        return replace(place, gco2e_per_kwh=float(np.mean(hours)), hourly=tuple(hours.tolist()))
    return replace(place, gco2e_per_kwh=float(grids.lookup(grid).gco2e_per_kwh), hourly=())


def with_settings(place: Place, settings: Mapping[str, Any]) -> Place:
    """The place with settings by name (headroom, start_hour, mtbf_hours, repair_hours, service_level)."""
    known = [f.name for f in fields(Place) if f.name not in ("gco2e_per_kwh", "pue", "lifetime_years", "hourly")]
    for name, value in settings.items():
        if name not in known:
            raise unknown_name("set of a fleet", name, known)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise UsageError(f"{name} is {value!r}, must be a number")
    return replace(place, **settings)
