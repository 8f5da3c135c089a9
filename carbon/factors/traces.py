"""Carbon intensity over time: hourly traces, 12x24 profiles, and the least that a flexible job can be charged.

For a device that runs all the time a trace reduces to its mean; it matters for duty cycles below one and for jobs that can
wait. Hours are UTC and half-open: hour h is [h, h + 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.errors import CarbonError, unknown
from carbon.factors.grid import GridFactor, GridKind
from carbon.factors.tables import table

FloatArray = npt.NDArray[np.float64]
_SHORT_DAY = 24


@dataclass(frozen=True, slots=True)
class Trace:
    """Hourly carbon intensity of one place.

    Attributes:
        name: place. start: first hour, timezone-aware UTC. gco2e_per_kwh: one value an hour, finite and not negative.
        kind, source, licence: as for :class:`carbon.factors.grid.GridFactor`. note: how it was made, what is estimated.
    """

    name: str
    start: datetime
    gco2e_per_kwh: FloatArray
    kind: GridKind
    source: str
    licence: str
    note: str = ""

    def __post_init__(self) -> None:
        if self.start.tzinfo is None:
            raise CarbonError(f"start of trace {self.name!r} has no time zone, but UTC is needed")
        values = np.asarray(self.gco2e_per_kwh, dtype=np.float64)
        if values.ndim != 1 or values.size == 0:
            raise CarbonError(f"trace {self.name!r} has shape {values.shape}, but it needs one value an hour")
        wrong = ~np.isfinite(values) | (values < 0.0)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise CarbonError(f"trace {self.name!r} has {values[at]:g} g/kWh at hour {at}, but intensities are finite and >= 0")
        object.__setattr__(self, "gco2e_per_kwh", values)

    def __len__(self) -> int:
        return int(self.gco2e_per_kwh.size)

    def mean(self) -> float:
        """Return the time-weighted mean, g/kWh."""
        return float(self.gco2e_per_kwh.mean())

    def factor(self) -> GridFactor:
        """Return the mean as a grid factor."""
        years = {self.start.year, (self.start + timedelta(hours=len(self) - 1)).year}
        year = years.pop() if len(years) == 1 else None
        return GridFactor(
            f"trace:{self.name}", self.name, self.mean(), self.kind, year, self.source, self.licence, "trace", "ok", self.note
        )

    def profile(self) -> FloatArray:
        """Return the 12x24 means, (month, UTC hour); months without data are refused.

        Raises:
            CarbonError: the trace does not reach every month and hour.
        """
        at = np.datetime64(self.start.astimezone(UTC).replace(tzinfo=None), "h") + np.arange(len(self))
        month = at.astype("datetime64[M]").astype(np.int64) % 12
        hour = at.astype(np.int64) % _SHORT_DAY
        cell = month * _SHORT_DAY + hour
        counts = np.bincount(cell, minlength=288)
        if (counts == 0).any():
            missing = int(np.flatnonzero(counts == 0)[0])
            raise CarbonError(
                f"trace {self.name!r} has nothing in month {missing // 24 + 1} at {missing % 24}:00 UTC, but a 12x24 profile needs all"
            )
        sums = np.bincount(cell, weights=self.gco2e_per_kwh, minlength=288)
        return (sums / counts).reshape(12, _SHORT_DAY)

    def over(self, begin: datetime, end: datetime) -> float:
        """Return the time-weighted mean over [begin, end), parts of hours counted as such.

        Raises:
            CarbonError: the interval is empty or leaves the trace.
        """
        first = (begin - self.start).total_seconds() / 3600.0
        last = (end - self.start).total_seconds() / 3600.0
        if not 0.0 <= first < last <= len(self):
            raise CarbonError(f"interval {begin:%Y-%m-%dT%H:%M} to {end:%Y-%m-%dT%H:%M} is empty or outside trace {self.name!r}")
        edges = np.arange(math.floor(first), math.ceil(last) + 1, dtype=np.float64)
        edges[0], edges[-1] = first, last
        weights = np.diff(edges)
        begin_hour = math.floor(first)
        return float(weights @ self.gco2e_per_kwh[begin_hour : begin_hour + weights.size] / weights.sum())

    def charge(self, energy_kwh: Any) -> float:
        """Return kgCO2e of an hourly energy profile (kWh per hour of the trace, or a shorter one repeated, such as a day).

        Raises:
            CarbonError: the profile's length does not divide the trace's, or energies are negative or not finite.
        """
        energy = np.asarray(energy_kwh, dtype=np.float64).ravel()
        if energy.size == 0 or len(self) % energy.size:
            raise CarbonError(f"energy profile has {energy.size} hours, but it must divide the {len(self)} hours of the trace")
        if not np.isfinite(energy).all() or (energy < 0.0).any():
            raise CarbonError("energy profile has a negative or infinite hour, but energies are finite and not negative")
        return float(np.tile(energy, len(self) // energy.size) @ self.gco2e_per_kwh) / 1000.0


@dataclass(frozen=True, slots=True)
class BestHours:
    """The least intensity a flexible job can reach, knowing the day ahead perfectly: a bound, not a forecast.

    Attributes:
        flat_gco2e_per_kwh: mean of all hours. best_gco2e_per_kwh: mean of the chosen hours.
        saving: 1 - best / flat (0 where flat is 0).
    """

    flat_gco2e_per_kwh: float
    best_gco2e_per_kwh: float
    saving: float


def best_hours(trace: Trace, hours: int, *, window_h: int = 24, contiguous: bool = True) -> BestHours:
    """Return the bound for a job of ``hours`` in every window of ``window_h`` hours.

    Args:
        contiguous: the job runs without a break; otherwise the cheapest hours of each window are taken.

    Raises:
        CarbonError: hours outside 1..window, or a trace shorter than one window. An incomplete last window is left out.
    """
    if not 1 <= hours <= window_h:
        raise CarbonError(f"hours is {hours}, but a job takes 1 to {window_h} hours of its window")
    windows = len(trace) // window_h
    if windows == 0:
        raise CarbonError(f"trace {trace.name!r} has {len(trace)} hours, but one window of {window_h} is needed")
    table_ = trace.gco2e_per_kwh[: windows * window_h].reshape(windows, window_h)
    if contiguous:
        sums = np.cumsum(np.concatenate([np.zeros((windows, 1)), table_], axis=1), axis=1)
        best = (sums[:, hours:] - sums[:, :-hours]).min(axis=1) / hours
    else:
        best = np.sort(table_, axis=1)[:, :hours].mean(axis=1)
    flat, least = float(table_.mean()), float(best.mean())
    return BestHours(flat, least, 1.0 - least / flat if flat > 0.0 else 0.0)


@cache
def _eia() -> dict[str, FloatArray]:
    found: dict[str, FloatArray] = {}
    for row in table("profile_12x24_eia2022"):
        cells = found.setdefault(row["ba"], np.full((12, 24), np.nan))
        cells[int(row["month"]) - 1, int(row["hour_utc"])] = float(row["gco2e_per_kwh"])
    return found


def balancing_authorities() -> list[str]:
    """Return the US balancing authorities with a packaged 12x24 profile (EIA-930, 2022)."""
    return sorted(_eia())


def eia2022(authority: str) -> Trace:
    """Return 2022 as a trace whose every day is its month's mean day, from EIA-930 generation by fuel and IPCC medians.

    Raises:
        CarbonError: unknown balancing authority, names the nearest.
    """
    profiles = _eia()
    if authority.upper() not in profiles:
        raise unknown("balancing authority", authority, profiles)
    start = datetime(2022, 1, 1, tzinfo=UTC)
    at = np.datetime64("2022-01-01T00", "h") + np.arange(365 * 24)
    month = at.astype("datetime64[M]").astype(np.int64) % 12
    values = profiles[authority.upper()][month, at.astype(np.int64) % 24]
    return Trace(
        f"eia2022:{authority.upper()}",
        start,
        values,
        GridKind("average", "lifecycle"),
        "EIA-930 hourly generation by fuel 2022 via HewlettPackard/dc-rl, IPCC AR5 medians",
        "US public domain; MIT compilation",
        "mean day of each month; generation-based (no imports)",
    )


@cache
def _hours() -> dict[str, FloatArray]:
    days: dict[str, list[list[float]]] = {}
    for row in table("hourly_eia2022"):
        days.setdefault(row["ba"], []).append([float(row[f"h{hour:02d}"]) for hour in range(_SHORT_DAY)])
    return {authority: np.array(found).ravel() for authority, found in days.items()}


def eia2022_hourly(authority: str) -> Trace:
    """Return the 8,760 hours of 2022 as they were, from EIA-930 generation by fuel and IPCC medians, whole grams.

    Raises:
        CarbonError: unknown balancing authority, names the nearest.
    """
    hours = _hours()
    if authority.upper() not in hours:
        raise unknown("balancing authority", authority, hours)
    return Trace(
        f"eia2022:{authority.upper()}",
        datetime(2022, 1, 1, tzinfo=UTC),
        hours[authority.upper()],
        GridKind("average", "lifecycle"),
        "EIA-930 hourly generation by fuel 2022 via HewlettPackard/dc-rl, IPCC AR5 medians",
        "US public domain; MIT compilation",
        "measured hours; generation-based (no imports); hours without any generation interpolated (CISO 3, MISO 3, PJM 23)",
    )


def synthetic_duck(mean_gco2e_per_kwh: float, solar_share: float, *, hours: int = 8760) -> Trace:
    """Return a made-up trace: a flat grid with a solar dip around noon; for tests and teaching, and labelled so everywhere.

    Args:
        mean_gco2e_per_kwh: mean of the trace, exactly. solar_share: depth of the dip, in [0, 0.6].
    """
    if not (math.isfinite(mean_gco2e_per_kwh) and mean_gco2e_per_kwh >= 0.0):
        raise CarbonError(f"mean_gco2e_per_kwh is {mean_gco2e_per_kwh:g}, but it is finite and not negative")
    if not 0.0 <= solar_share <= 0.6:
        raise CarbonError(f"solar_share is {solar_share:g}, but it lies between 0 and 0.6")
    hour = np.arange(hours) % 24
    dip = np.where((hour >= 6) & (hour < 18), np.sin(np.pi * (hour + 0.5 - 6.0) / 12.0), 0.0)
    shape = 1.0 - solar_share * dip
    return Trace(
        "synthetic duck",
        datetime(2022, 1, 1, tzinfo=UTC),
        mean_gco2e_per_kwh * shape / shape.mean(),
        GridKind("average", "unstated"),
        f"synthetic (mean {mean_gco2e_per_kwh:g} g/kWh, solar share {solar_share:g}): not measured",
        "none",
        "synthetic",
    )
