"""What is operated: a device, how many, where, under which load, and the weeks of a period."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.factors.grid import GridKind
from carbon.factors.traces import Trace
from dse.errors import UsageError, unknown_name
from dse.operate import forecasts
from dse.operate.device import UTILISATION_CAP, Curve, Device, OperatingPoint, always_on, hull
from dse.operate.thermal import Thermal
from dse.operate.traces import PERIODS, WEEK_H, Load, grid_trace, load_of_file, offset_of, synthetic_load, weeks_of
from dse.operate.weeks import Flexible, Site, Weeks, make_weeks

FloatArray = npt.NDArray[np.float64]

FLEXIBLE_SHARE, DEADLINE_H = 0.3, 24
MEAN_BUSY_CHIPS = 10.0
"""Mean load of a site where nobody says it: so many chips, busy at full clock."""
SPARE = 1.25
"""Chips over the fewest that the declared load needs, where nobody says how many there are."""
MODES = ("sleep+clock", "sleep", "always-on", "best-clock")


@dataclass(frozen=True)
class Scenario:
    """A device on sites under a load.

    Attributes:
        device: what runs. places: words of `dse.operate.traces.grid_trace`.
        chips: at each site (0: ``SPARE`` times the fewest that the declared load needs). rate_per_s: mean requests a second of each site
            (0: what ``MEAN_BUSY_CHIPS`` chips serve). flexible: what may wait. trace_file: a load of the user's.
        pue, utilisation_cap: see :mod:`dse.operate.device`. seed: of everything synthetic. thermal: the temperature budget of each site.
    """

    device: Device
    places: tuple[str, ...]
    chips: int = 0
    rate_per_s: float = 0.0
    flexible: Flexible = field(default_factory=lambda: Flexible.of({DEADLINE_H: FLEXIBLE_SHARE}))
    trace_file: str | None = None
    pue: float = 1.0
    utilisation_cap: float = UTILISATION_CAP
    seed: int = 0
    thermal: Thermal | None = None

    def __post_init__(self) -> None:
        if not self.places:
            raise UsageError("site is missing, name at least one")
        if not (math.isfinite(self.rate_per_s) and self.rate_per_s >= 0):
            raise UsageError(f"rate is {self.rate_per_s:g} requests/s, must be at least 0 (0: that of {MEAN_BUSY_CHIPS:g} busy chips)")
        if self.chips < 0:
            raise UsageError(f"chips is {self.chips}, must be at least 1 (or 0: chosen from the load)")
        if not (math.isfinite(self.pue) and self.pue >= 1):
            raise UsageError(f"pue is {self.pue:g}; facility power over device power is at least 1")

    def prepared(self) -> Prepared:
        """Traces and loads read, chips counted.

        Raises DseError where a file is refused or the chips cannot serve the declared load.
        """
        grids = [grid_trace(word, seed=self.seed) for word in self.places]
        hours = min(len(trace) for trace in grids)
        begins = {trace.start for trace in grids}
        if len(begins) > 1:
            told = ", ".join(f"{trace.name} at {trace.start:%Y-%m-%dT%H:%MZ}" for trace in grids)
            raise UsageError(f"the hours of the sites begin at different times ({told}), must begin together")
        mean_h = self.rate_per_s * 3600.0 or MEAN_BUSY_CHIPS * self.device.fastest.requests_per_h
        loads = []
        for number, (word, trace) in enumerate(zip(self.places, grids, strict=True)):
            seed, offset = self.seed + 101 * number, offset_of(word)
            if self.trace_file:
                loads.append(load_of_file(self.trace_file, trace.start, hours, utc_offset_h=offset, seed=seed))
            else:
                loads.append(synthetic_load(trace.start, hours, mean_per_h=mean_h, utc_offset_h=offset, seed=seed))
        fewest = max(self.fewest_chips(load) for load in loads)
        chips = self.chips or math.ceil(SPARE * fewest - 1e-9)
        if chips < fewest:
            raise UsageError(f"chips is {chips}, must be at least {fewest} to run the declared load as it comes (see --resize for fewer)")
        prepared = Prepared(self, tuple(grids), tuple(loads), chips, hours)
        if self.thermal is not None:
            self._check_temperature(prepared, self.thermal)
        return prepared

    def _check_temperature(self, prepared: Prepared, thermal: Thermal) -> None:
        sustained = float(prepared.curve().work_of(thermal.sustained_kw))
        peak = max(float(load.envelope.max()) for load in prepared.loads)
        if sustained < peak * (1 - 1e-9):
            curve = prepared.curve()
            needs = float(curve.energy(min(peak, curve.capacity)))
            raise UsageError(
                f"temperature limit of {thermal.limit_c:g} C lets {thermal.sustained_kw:.4g} kW be drawn for good, must be at least "
                f"{needs:.4g} kW to run the declared load as it comes: a higher limit, fewer K a kW, more chips or less load"
            )

    def fewest_chips(self, load: Load) -> int:
        """Chips that run the declared load in the hour in which it comes, at full clock."""
        one = self.utilisation_cap * self.device.fastest.requests_per_h
        return max(1, math.ceil(float(load.envelope.max()) / one - 1e-9))


@dataclass(frozen=True)
class Prepared:
    """A scenario with its hours."""

    scenario: Scenario
    grids: tuple[Trace, ...]
    loads: tuple[Load, ...]
    chips: int
    hours: int

    def curve(self, mode: str = "sleep+clock") -> Curve:
        """The curve of a site's chips by how they may be run: one of ``MODES``."""
        s = self.scenario
        if mode == "sleep+clock":
            return hull(s.device, self.chips, cap=s.utilisation_cap)
        if mode == "sleep":
            return hull(s.device, self.chips, cap=s.utilisation_cap, points=[s.device.fastest])
        if mode == "always-on":
            return always_on(s.device, self.chips, s.device.fastest, cap=s.utilisation_cap)
        if mode == "best-clock":
            return always_on(s.device, self.chips, self.best_static(), cap=s.utilisation_cap)
        raise unknown_name("mode", mode, MODES)

    def best_static(self) -> OperatingPoint:
        """The one operating point at which all chips, always awake, serve the declared load with the least energy."""
        peak = max(float(load.envelope.max()) for load in self.loads)
        one = self.chips * self.scenario.utilisation_cap
        able = [p for p in self.scenario.device.points if one * p.requests_per_h >= peak * (1 - 1e-12)]
        return min(able, key=lambda p: ((p.busy_kw - self.scenario.device.idle_kw) / p.requests_per_h, -p.clock))

    def sites(self, mode: str = "sleep+clock") -> tuple[Site, ...]:
        """The sites with the curve of a mode."""
        curve = self.curve(mode)
        parts = zip(self.scenario.places, self.grids, self.loads, strict=True)
        return tuple(Site(word, trace, load, curve, self.scenario.pue) for word, trace, load in parts)

    def first_hours(self, period: str, most: int | None = None) -> npt.NDArray[np.int64]:
        """Where the weeks of a period begin; at most ``most`` of them, evenly spread.

        Raises UsageError for a period without a week.
        """
        if period not in PERIODS:
            raise unknown_name("period", period, PERIODS)
        found = weeks_of(self.grids[0].start, self.hours, period)
        if not len(found):
            raise UsageError(
                f"the trace of {self.hours} h has no whole week for {period}, needs {WEEK_H} h to run and 8 weeks to learn from"
            )
        if most is not None and 0 < most < len(found):
            found = found[np.linspace(0, len(found) - 1, most).round().astype(int)]
        return found

    def weeks(self, period: str, forecast: str = "ridge", mode: str = "sleep+clock", most: int | None = None) -> Weeks:
        """The weeks of a period as episodes."""
        tables = [forecast_of(trace, forecast) for trace in self.grids]
        offset = offset_of(self.scenario.places[0])
        first, s = self.first_hours(period, most), self.scenario
        return make_weeks(self.sites(mode), s.flexible, first, WEEK_H, tables, utc_offset_h=offset, thermal=s.thermal)


@lru_cache(maxsize=32)
def _forecast(name: str, place: str, start: datetime, hours: bytes) -> FloatArray:
    trace = Trace(place, start, np.frombuffer(hours), GridKind("average", "unstated"), "", "")
    return forecasts.make(name, trace)


def forecast_of(trace: Trace, name: str) -> FloatArray:
    """A forecast of a trace (hours, leads), kept: the fit of a year takes a second."""
    return _forecast(name, trace.name, trace.start, trace.gco2e_per_kwh.tobytes())


def describe(prepared: Prepared) -> dict[str, Any]:
    """The scenario as plain values."""
    s = prepared.scenario
    return {
        "device": s.device.name,
        "device_notes": list(s.device.notes),
        "chips": prepared.chips,
        "utilisation_cap": s.utilisation_cap,
        "pue": s.pue,
        "flexible": [{"deadline_h": d, "share": share} for d, share in s.flexible.classes],
        "seed": s.seed,
        **({"temperature": s.thermal.to_dict()} if s.thermal is not None else {}),
        "sites": [
            {
                "site": word,
                "grid": trace.name,
                "grid_source": trace.source,
                "grid_licence": trace.licence,
                "grid_note": trace.note,
                "mean_gco2e_per_kwh": trace.mean(),
                "load": load.source,
                "mean_requests_per_s": float(load.requests.mean()) / 3600.0,
                "envelope_kept": load.kept,
            }
            for word, trace, load in zip(s.places, prepared.grids, prepared.loads, strict=True)
        ],
    }
