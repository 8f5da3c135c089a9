"""Weeks of grid and load, and the queue of work that may wait. Many weeks at once.

Of an hour's requests a share must run in that hour (firm); the rest is flexible and waits at most its class's deadline: what arrives in
hour t with a deadline of d hours runs in hours t to t + d, and all of it by the end of the week, so that no plan leaves a debt. Firm
requests run where they arrive; flexible ones at any site. Work that has a deadline is run in the order of its deadlines, which is optimal
for one queue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.factors.traces import Trace
from dse.errors import UsageError
from dse.operate.device import Curve
from dse.operate.thermal import Thermal
from dse.operate.traces import Load

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Work below this share of an hour's capacity is rounding.
TINY = 1e-9
PAST_H = 168


@dataclass(frozen=True)
class Flexible:
    """Classes of work that may wait: {deadline in hours: share of all requests}."""

    classes: tuple[tuple[int, float], ...]

    def __post_init__(self) -> None:
        for deadline, share in self.classes:
            if not 1 <= deadline <= 168:
                raise UsageError(f"deadline is {deadline} h, must be from 1 to 168")
            if not 0 <= share <= 1:
                raise UsageError(f"flexible share is {share:g}, must be from 0 to 1")
        if self.share > 1:
            raise UsageError(f"flexible shares sum to {self.share:g}, must sum to at most 1")

    @staticmethod
    def of(shares: Mapping[int, float]) -> Flexible:
        """Classes in the order of their deadlines."""
        return Flexible(tuple(sorted(shares.items())))

    @property
    def share(self) -> float:
        """Of all requests."""
        return sum(share for _, share in self.classes)

    @property
    def longest_h(self) -> int:
        """The longest deadline (0 without a class)."""
        return max((deadline for deadline, _ in self.classes), default=0)


@dataclass(frozen=True)
class Site:
    """A place that runs chips: its hours of grid and load, the curve of its chips, and its facility overhead."""

    name: str
    trace: Trace
    load: Load
    curve: Curve
    pue: float = 1.0


@dataclass(frozen=True)
class Weeks:
    """Episodes of equal length: e episodes, s sites, t hours, c classes.

    Attributes:
        intensity (e, s, t) [g/kWh], firm, firm_bound, firm_expected (e, s, t): requests that cannot wait, the most that is declared, and
            what a planner expects. arrivals, arrival_bound, arrival_expected (e, t, c): the same of those that can.
        forecast (e, s, t, leads): what is expected at hour t of the intensity in hours t + 1, t + 2, ...
        deadlines: of the classes [h]. curves, pue: of the sites. first (e,): hours of the trace at which episodes begin.
        past (e, s, PAST_H): intensity of the hours before. hour_of_day, weekend (e, t): local.
        thermal: the temperature budget of each site (None: none is given).
    """

    intensity: FloatArray
    firm: FloatArray
    firm_bound: FloatArray
    firm_expected: FloatArray
    arrivals: FloatArray
    arrival_bound: FloatArray
    arrival_expected: FloatArray
    forecast: FloatArray
    deadlines: tuple[int, ...]
    curves: tuple[Curve, ...]
    pue: tuple[float, ...]
    first: IntArray
    past: FloatArray
    hour_of_day: IntArray
    weekend: FloatArray
    thermal: Thermal | None = None

    @property
    def episodes(self) -> int:
        """How many."""
        return int(self.intensity.shape[0])

    @property
    def sites(self) -> int:
        """How many."""
        return int(self.intensity.shape[1])

    @property
    def hours(self) -> int:
        """Of an episode."""
        return int(self.intensity.shape[2])

    @property
    def horizon(self) -> int:
        """Longest deadline, at least 1 h."""
        return max(self.deadlines, default=1)

    @cached_property
    def capacity(self) -> FloatArray:
        """Requests an hour (s,)."""
        return np.array([curve.capacity for curve in self.curves])

    @cached_property
    def sustained(self) -> FloatArray:
        """Requests an hour (s,) that can be run for good: the capacity, or what the temperature limit lets through."""
        if self.thermal is None:
            return self.capacity
        return np.array([float(curve.work_of(self.thermal.sustained_kw)) for curve in self.curves])

    @cached_property
    def promised(self) -> bool:
        """Whether load and arrivals keep their declared envelopes, without which no filter can promise deadlines."""
        near = 1 + 1e-9
        return bool((self.firm <= self.firm_bound * near + TINY).all() and (self.arrivals <= self.arrival_bound * near + TINY).all())

    def take(self, episodes: npt.ArrayLike) -> Weeks:
        """Some of the episodes."""
        at = np.atleast_1d(np.asarray(episodes))
        return replace(self, **{f.name: getattr(self, f.name)[at] for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)})


def alike(a: Weeks, b: Weeks) -> bool:
    """Whether two have the same hours, hours of forecast, chips, deadlines and facility overhead."""
    if (a.sites, a.hours, a.forecast.shape[3], a.deadlines, a.pue) != (b.sites, b.hours, b.forecast.shape[3], b.deadlines, b.pue):
        return False
    if a.thermal != b.thermal:
        return False
    chips = zip(a.curves, b.curves, strict=True)
    return all(x.base_kwh == y.base_kwh and np.array_equal(x.work, y.work) and np.array_equal(x.kwh, y.kwh) for x, y in chips)


def concatenate(parts: Sequence[Weeks]) -> Weeks:
    """Episodes of several places as one, to learn from all of them; they must be `alike`."""
    first = parts[0]
    if not all(alike(first, part) for part in parts[1:]):
        raise UsageError("weeks that are learnt from together must have the same chips, deadlines, facility overhead and hours of forecast")
    arrays: dict[str, Any] = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Weeks)}
    joined: dict[str, Any] = {name: np.concatenate(found) for name, found in arrays.items() if isinstance(found[0], np.ndarray)}
    return replace(first, **joined)


def make_weeks(
    sites: Sequence[Site],
    flexible: Flexible,
    first: npt.ArrayLike,
    hours: int,
    forecasts: Sequence[FloatArray],
    *,
    utc_offset_h: int = 0,
    thermal: Thermal | None = None,
) -> Weeks:
    """Episodes that begin at hours ``first`` of the sites' traces; ``forecasts`` are (trace hours, leads) a site.

    Raises UsageError where an episode leaves a trace.
    """
    begin = np.atleast_1d(np.asarray(first, dtype=np.int64))
    length = min(len(site.trace) for site in sites)
    if not len(begin) or begin.min() < 0 or begin.max() + hours > length:
        raise UsageError(f"weeks of {hours} h from hours {begin.tolist()[:4]} leave the trace of {length} h, must lie in it")
    at = begin[:, None] + np.arange(hours)
    firm_share = 1.0 - flexible.share

    def of(values: Sequence[FloatArray]) -> FloatArray:
        return np.stack([np.asarray(v, dtype=np.float64)[at] for v in values], axis=1)

    def by_class(values: FloatArray) -> FloatArray:
        total = values[at]
        return np.stack([share * total for _, share in flexible.classes], axis=2) if flexible.classes else np.zeros((*total.shape, 0))

    start = sites[0].trace.start
    clock = at + start.hour + 24 * start.weekday() + utc_offset_h
    return Weeks(
        intensity=of([site.trace.gco2e_per_kwh for site in sites]),
        firm=firm_share * of([site.load.requests for site in sites]),
        firm_bound=firm_share * of([site.load.envelope for site in sites]),
        firm_expected=firm_share * of([site.load.expected for site in sites]),
        arrivals=by_class(np.sum([site.load.requests[:length] for site in sites], axis=0)),
        arrival_bound=by_class(np.sum([site.load.envelope[:length] for site in sites], axis=0)),
        arrival_expected=by_class(np.sum([site.load.expected[:length] for site in sites], axis=0)),
        forecast=of(forecasts),
        deadlines=tuple(deadline for deadline, _ in flexible.classes),
        curves=tuple(site.curve for site in sites),
        pue=tuple(site.pue for site in sites),
        first=begin,
        past=np.stack([site.trace.gco2e_per_kwh[np.maximum(begin[:, None] + np.arange(-PAST_H, 0), 0)] for site in sites], axis=1),
        hour_of_day=clock % 24,
        weekend=((clock // 24) % 7 >= 5).astype(np.float64),
        thermal=thermal,
    )


class Queue:
    """Flexible work by the hours to its deadline, of all episodes: ``due[:, k]`` must run by the end of hour t + k.

    With a temperature budget it also holds ``temperature_c`` (e, s), at the beginning of the hour; a week begins at the limit.
    """

    def __init__(self, weeks: Weeks) -> None:
        self.weeks = weeks
        self.hour = 0
        self.due: FloatArray = np.zeros((weeks.episodes, weeks.horizon + 1))
        self.missed: FloatArray = np.zeros(weeks.episodes)
        self.temperature_c: FloatArray | None = None
        if weeks.thermal is not None:
            self.temperature_c = np.full((weeks.episodes, weeks.sites), weeks.thermal.limit_c)
        self._arrive()

    @property
    def done(self) -> bool:
        """Whether all hours have passed."""
        return self.hour >= self.weeks.hours

    @property
    def total(self) -> FloatArray:
        """Work that waits (e,)."""
        return np.asarray(self.due.sum(axis=1))

    @property
    def most(self) -> FloatArray:
        """Requests that each site can run in this hour: (s,), or (e, s) where a temperature says so."""
        weeks = self.weeks
        if weeks.thermal is None or self.temperature_c is None:
            return weeks.capacity
        allowed = weeks.thermal.allowed_kwh(self.temperature_c)
        return np.stack([curve.work_of(allowed[:, s]) for s, curve in enumerate(weeks.curves)], axis=1)

    @property
    def firm(self) -> FloatArray:
        """Firm requests that run in this hour (e, s)."""
        return np.asarray(np.minimum(self.weeks.firm[:, :, self.hour], self.most))

    @property
    def room(self) -> FloatArray:
        """Requests that fit beside the firm ones in this hour (e, s)."""
        return np.asarray(np.maximum(self.most - self.firm, 0.0))

    def begun(self, room: FloatArray) -> FloatArray:
        """Work of each site (e, s) above which flexible work begins, given the room beside the firm load."""
        return np.asarray(self.weeks.capacity - room) if self.weeks.thermal is None else self.firm

    def _arrive(self) -> None:
        left = self.weeks.hours - 1 - self.hour
        for c, deadline in enumerate(self.weeks.deadlines):
            self.due[:, min(deadline, left)] += self.weeks.arrivals[:, self.hour, c]

    def run(self, sites: FloatArray) -> FloatArray:
        """Run flexible work of each site (e, s), earliest deadline first, and go to the next hour; returns what was late (e,), which is
        lost."""
        work = sites.sum(axis=1)
        weeks = self.weeks
        if weeks.thermal is not None and self.temperature_c is not None:
            whole = self.firm + sites
            kwh = np.stack([curve.energy(whole[:, s]) for s, curve in enumerate(weeks.curves)], axis=1)
            self.temperature_c = weeks.thermal.after(self.temperature_c, kwh)
        before = np.cumsum(self.due, axis=1) - self.due
        served = np.minimum(np.maximum(work[:, None] - before, 0.0), self.due)
        left = self.due - served
        late: FloatArray = left[:, 0].copy()
        late[late <= TINY * float(self.weeks.capacity.sum())] = 0.0
        self.due[:, :-1] = left[:, 1:]
        self.due[:, -1] = 0.0
        self.hour += 1
        self.missed += late
        if not self.done:
            self._arrive()
        return late
