"""A fixed frame rate against a contextual one: joules and grams a kilometre, frames that come too late, and comfort.

The speed does not depend on the rate, so comfort is that of the speed controller; it stands beside that of a vehicle which follows the same
target at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.operational import DAYS_PER_YEAR, JOULES_PER_KWH
from dse.errors import DseError
from dse.operate.driving.perception import Lateness, contextual_rate_hz, lateness, usable_rates
from dse.operate.driving.speed import STEP_S, SpeedProfile, drive
from dse.operate.driving.trace import DriveTrace
from dse.operate.driving.vehicle import Vehicle
from dse.problem.wording import error_text

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Perception:
    """A design that looks at frames.

    Attributes:
        name: of the design. latency_s, energy_j: of a frame, idle power within. idle_w: power between frames.
        embodied_kgco2e: of making it; lifetime_years: of driving. gco2e_per_kwh: of the electricity.
    """

    name: str
    latency_s: float
    energy_j: float
    idle_w: float
    embodied_kgco2e: float = 0.0
    lifetime_years: float = 3.0
    gco2e_per_kwh: float = 0.0

    def mean_power_w(self, rate_hz: FloatArray | float) -> float:
        """Mean over samples of f E + (1 - f tau) idle power."""
        rate = float(np.mean(rate_hz))
        return rate * self.energy_j + (1.0 - rate * self.latency_s) * self.idle_w


@dataclass(frozen=True)
class Way:
    """One way to run perception on one drive."""

    drive: str
    way: str
    rate_hz: float  # mean
    joules_per_km: float
    gco2e_per_km: float
    misses: int
    unavoidable: int
    samples: int
    worst_overrun_m: float


@dataclass(frozen=True)
class Comfort:
    """How a drive feels: largest and root-mean-square jerk outside emergencies, share of samples in one, and the same of a vehicle
    that follows the target at once."""

    drive: str
    kilometres: float
    mean_speed_mps: float
    jerk_max_mps3: float
    jerk_rms_mps3: float
    emergency_share: float
    target_jerk_max_mps3: float
    target_jerk_rms_mps3: float
    above_legal_limit_mps: float  # 0 or less


@dataclass(frozen=True)
class Comparison:
    """All drives: every way on each, comfort, and the fixed rate that is in time on all of them."""

    design: Perception
    ways: tuple[Way, ...]
    comfort: tuple[Comfort, ...]
    fixed_for_all_hz: float

    def total(self, way: str) -> Way:
        """A way over all drives: kilometres add, misses add."""
        own = [w for w in self.ways if w.way == way]
        km = np.array([c.kilometres for c in self.comfort])
        joules = float(np.dot([w.joules_per_km for w in own], km) / km.sum())
        grams = float(np.dot([w.gco2e_per_km for w in own], km) / km.sum())
        time = np.array([w.samples for w in own], dtype=np.float64)
        return Way(
            *("all", way, float(np.dot([w.rate_hz for w in own], time) / time.sum()), joules, grams),
            *(sum(w.misses for w in own), sum(w.unavoidable for w in own), sum(w.samples for w in own)),
            max(w.worst_overrun_m for w in own),
        )

    def saved(self, against: str) -> float:
        """Share of joules a kilometre that the contextual rate saves against another way, over all drives."""
        return 1.0 - self.total("contextual").joules_per_km / self.total(against).joules_per_km

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "design": asdict(self.design),
            "fixed_for_all_hz": self.fixed_for_all_hz,
            "drives": [asdict(way) for way in self.ways],
            "comfort": [asdict(c) for c in self.comfort],
            "all": [asdict(self.total(way)) for way in WAYS],
            "saved_against_fixed_for_all": self.saved("fixed for all"),
            "saved_against_best_fixed_a_drive": self.saved("best fixed"),
        }

    def of(self, places: Sequence[int]) -> Comparison:
        """Some of the drives alone, by their places; the rate that is fixed for all stays that of all."""
        count = len(self.ways) // len(self.comfort)
        ways = tuple(way for at in places for way in self.ways[count * at : count * (at + 1)])
        return replace(self, ways=ways, comfort=tuple(self.comfort[at] for at in places))

    def rows(self) -> list[dict[str, Any]]:
        """A row for every way on every drive, with the comfort of the drive beside it."""
        comfort = [asdict(c) for c in self.comfort for _ in range(len(self.ways) // len(self.comfort))]
        return [{**asdict(way), **of_drive} for way, of_drive in zip(self.ways, comfort, strict=True)]

    def lines(self, kinds: Sequence[str] = ()) -> list[str]:
        """A table for the terminal.

        Args:
            kinds: of each drive, what it is told under: several drives of one are a row with their mean (joules, grams: by the kilometre)
                and the standard deviation between drives; empty: every drive is told by itself.
        """
        d = self.design
        together: dict[str, list[int]] = {}
        for at, kind in enumerate(kinds or range(len(self.comfort))):
            together.setdefault(str(kind), []).append(at)
        parts = [(_name(kind, self, places), self.of(places)) for kind, places in together.items()]
        parts += [("all", self)] if len(parts) > 1 else []
        spread = " (+- between drives)" if any(len(part.comfort) > 1 for _, part in parts[: len(together)]) else ""
        lines = [
            f"{d.name}: {1e3 * d.latency_s:.4g} ms and {d.energy_j:.4g} J a frame, {d.idle_w:.3g} W between frames{spread}",
            f"{'drive':<24} {'frame rate':<14} {'mean Hz':>8} {'J/km':>15} {'gCO2e/km':>17}"
            f" {'misses':>7} {'unavoidable':>12} {'overrun m':>9}",
        ]
        for name, part in parts:
            for way in map(part.total, WAYS):
                own = [w for w in part.ways if w.way == way.way] if name != "all" else []
                joules, grams = (
                    f"{mean:.4g}" + (f" +- {error_text(float(np.std(values, ddof=1)))}" if len(values) > 1 else "")
                    for mean, values in (
                        (way.joules_per_km, [w.joules_per_km for w in own]),
                        (way.gco2e_per_km, [w.gco2e_per_km for w in own]),
                    )
                )
                lines.append(
                    f"{name[-24:]:<24} {way.way:<14} {way.rate_hz:>8.3g} {joules:>15} {grams:>17} {way.misses:>7} {way.unavoidable:>12} "
                    f"{way.worst_overrun_m:>9.3g}"
                )
        everywhere, each = (100 * self.saved(way) for way in ("fixed for all", "best fixed"))
        lines.append(
            f"by context saves {everywhere:.3g} % of the joules a kilometre against {self.fixed_for_all_hz:g} frames/s everywhere and "
            f"{each:.3g} % against the best fixed rate of each drive, at no more misses"
        )
        lines.append(
            f"{'drive':<24} {'km':>6} {'m/s':>6} {'jerk max':>9} {'rms':>6} {'emergency':>10} {'unsmoothed jerk max':>20} {'rms':>6}"
        )
        for name, part in parts[: len(together)]:
            c = part._comfort_of_all()
            lines.append(
                f"{name[-24:]:<24} {c.kilometres:>6.3g} {c.mean_speed_mps:>6.3g} {c.jerk_max_mps3:>9.3g} {c.jerk_rms_mps3:>6.2g} "
                f"{100 * c.emergency_share:>9.2g}% {c.target_jerk_max_mps3:>20.4g} {c.target_jerk_rms_mps3:>6.3g}"
            )
        return lines

    def _comfort_of_all(self) -> Comfort:
        """Of several drives: kilometres add, of what is largest the largest, else the mean over samples (root-mean-square of jerks)."""
        time = np.array([way.samples for way in self.ways if way.way == WAYS[0]], dtype=np.float64)

        def mean(name: str, power: int = 1) -> float:
            values = np.array([getattr(c, name) for c in self.comfort]) ** power
            return float((np.dot(values, time) / time.sum()) ** (1.0 / power))

        return Comfort(
            "all",
            sum(c.kilometres for c in self.comfort),
            mean("mean_speed_mps"),
            max(c.jerk_max_mps3 for c in self.comfort),
            mean("jerk_rms_mps3", 2),
            mean("emergency_share"),
            max(c.target_jerk_max_mps3 for c in self.comfort),
            mean("target_jerk_rms_mps3", 2),
            max(c.above_legal_limit_mps for c in self.comfort),
        )


def _name(kind: str, of: Comparison, places: Sequence[int]) -> str:
    return of.comfort[places[0]].drive if len(places) == 1 else f"{kind}, {len(places)} drives"


WAYS = ("contextual", "best fixed", "fixed for all", "highest")
"""Best fixed: the lowest rate of the drive with no more misses than the contextual one; fixed for all: the lowest that is that on every
drive; highest: the highest usable rate."""


def compare(traces: Sequence[DriveTrace], vehicle: Vehicle, design: Perception, *, step_s: float = STEP_S) -> Comparison:
    """Every way on every drive. Raises DseError if the design is too slow for the lowest rate, or nothing is driven."""
    if not traces:
        raise DseError("no drive is given, at least one is needed")
    rates = usable_rates(vehicle, design.latency_s)
    profiles = [drive(trace, vehicle, step_s=step_s) for trace in traces]
    contextual = [contextual_rate_hz(profile, vehicle, design.latency_s) for profile in profiles]
    late = [lateness(p, vehicle, design.latency_s, rate) for p, rate in zip(profiles, contextual, strict=True)]
    fixed = [{float(f): lateness(p, vehicle, design.latency_s, float(f)) for f in rates} for p in profiles]
    best = [_lowest(options, own.misses) for options, own in zip(fixed, late, strict=True)]
    for_all, highest = max(best), float(rates[-1])
    ways: list[Way] = []
    for trace, profile, rate, own, options, f in zip(traces, profiles, contextual, late, fixed, best, strict=True):
        if profile.distance_km <= 0.0:
            raise DseError(f"{trace.source}: the vehicle never moves, so that nothing can be told a kilometre")
        ways.append(_way(trace, profile, design, WAYS[0], rate, own))
        ways += [_way(trace, profile, design, name, f, options[f]) for name, f in zip(WAYS[1:], (f, for_all, highest), strict=True)]
    comfort = tuple(_comfort(trace, profile) for trace, profile in zip(traces, profiles, strict=True))
    return Comparison(design, tuple(ways), comfort, for_all)


def _lowest(options: dict[float, Lateness], misses: int) -> float:
    """The lowest rate with no more misses; the highest has none."""
    return min(f for f, late in options.items() if late.misses <= misses)


def _way(trace: DriveTrace, profile: SpeedProfile, design: Perception, name: str, rate: FloatArray | float, late: Lateness) -> Way:
    seconds = (len(profile.speed_mps) - 1) * profile.context.step_s
    joules = design.mean_power_w(rate) * seconds / profile.distance_km
    made = 1000.0 * design.embodied_kgco2e * seconds / (design.lifetime_years * DAYS_PER_YEAR * 86_400.0) / profile.distance_km
    grams = joules / JOULES_PER_KWH * design.gco2e_per_kwh + made
    return Way(
        *(trace.source, name, float(np.mean(rate)), joules, grams),
        *(late.misses, late.unavoidable, late.samples, late.worst_overrun_m),
    )


def _comfort(trace: DriveTrace, profile: SpeedProfile) -> Comfort:
    jerk = np.abs(profile.jerk_mps3)
    calm = jerk[~profile.emergency]
    at_once = np.abs(np.diff(profile.target_mps, n=2)) / profile.context.step_s**2
    return Comfort(
        trace.source,
        profile.distance_km,
        float(profile.speed_mps.mean()),
        float(calm.max(initial=0.0)),
        float(np.sqrt(np.mean(calm**2))) if len(calm) else 0.0,
        float(profile.emergency.mean()),
        float(at_once.max(initial=0.0)),
        float(np.sqrt(np.mean(at_once**2))) if len(at_once) else 0.0,
        float((profile.speed_mps - profile.context.legal_limit_mps).max()),
    )
