"""What a policy that learns sees of an hour, and what it may do: numbers without units, so that what was learnt on one device and grid
runs on another.

Observation (``FEATURES`` of one site; sites follow one another, then what is common):

* of a site: intensity now over the mean of now and the next 24 hours (as forecast); the same ratio of each of the next ``AHEAD_H`` hours;
  the share of these that are cheaper than now; room left below the cheapest segment's end, and all room, as shares of the capacity;
* common: sine and cosine of the local hour, weekend, work due within 0, 1, 3, 6 and 12 hours and all that waits, each as a share of the
  cheapest segment's room in an hour, and the share of what waits that must run now;
* ``urgent``: of the work that may run beyond what must, the share that the cheapest plan under the forecast runs now
  (`dse.operate.policies.Plan`), a site;
* ``temperature_budget``, where a temperature is limited: how far it is below the limit, of the way from the ambient's, a site.

Actions: the share ``LEVELS`` of what may be run beyond what must; at several sites one such share each (`levels`: coarser ones from four
sites on, so that there are at most ``MOST_ACTIONS``). At most runs what waits, up to the end of the last
segment of the curve whose price now is no higher than the mean price of the cheapest segment in the next day: more would be dearer than
waiting. An action is masked where it does the same as a smaller one.
"""

from __future__ import annotations

from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.operate.policies import Plan
from dse.operate.safety import Filter
from dse.operate.weeks import TINY, Queue, Weeks

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_ACTIONS = 125
AHEAD_H = 24
DUE_WITHIN_H = (0, 1, 3, 6, 12)
PER_SITE = 1 + AHEAD_H + 3
COMMON = 3 + len(DUE_WITHIN_H) + 2
_HIGHEST = 5.0


def levels(sites: int) -> tuple[float, ...]:
    """Shares that an action may choose at each of so many sites; UsageError where there would be too many actions."""
    for chosen in (LEVELS, LEVELS[::2], LEVELS[::4]):
        if len(chosen) ** sites <= MOST_ACTIONS:
            return chosen
    raise UsageError(f"{sites} sites have more than {MOST_ACTIONS} joint levels, must be at most 6; imitation and sac know no levels")


def size(sites: int, *, thermal: bool = False) -> int:
    """Numbers of an observation."""
    return sites * (PER_SITE + 1 + thermal) + COMMON


def size_of(weeks: Weeks) -> int:
    """Numbers of an observation of these weeks."""
    return size(weeks.sites, thermal=weeks.thermal is not None)


def names(sites: int = 1, *, thermal: bool = False) -> tuple[str, ...]:
    """What each number of an observation is."""
    own = [
        *("intensity_ratio", *(f"ratio_in_{h}_h" for h in range(1, AHEAD_H + 1))),
        *("share_of_cheaper_hours", "cheap_room", "room"),
    ]
    found = [name if sites == 1 else f"site{s}_{name}" for s in range(sites) for name in own]
    found += ["sin_hour", "cos_hour", "weekend", *(f"due_within_{h}_h" for h in DUE_WITHIN_H), "waiting", "must_run"]
    found += ["urgent" if sites == 1 else f"site{s}_urgent" for s in range(sites)]
    if thermal:
        found += ["temperature_budget" if sites == 1 else f"site{s}_temperature_budget" for s in range(sites)]
    return tuple(found)


class View:
    """The observation, the bounds and the masks of every hour of some weeks, all episodes at once."""

    def __init__(self, weeks: Weeks) -> None:
        self.weeks = weeks
        self.guard = Filter(weeks)
        self.plan = Plan()
        self.plan.begin(weeks)
        ahead = min(AHEAD_H, weeks.forecast.shape[3])
        now = weeks.intensity[..., None]
        expected = weeks.forecast[..., :ahead]
        mean = (now[..., 0] + expected.sum(axis=3)) / (1 + ahead)
        safe = np.maximum(mean, 1e-9)
        ratios = np.full((*weeks.intensity.shape, AHEAD_H), 1.0)
        ratios[..., :ahead] = expected / safe[..., None]
        self.mean_ahead = mean  # of now and the next day (e, s, t)
        self._ratio = weeks.intensity / safe
        cheaper = (expected < now).mean(axis=3)
        self._series = np.concatenate([self._ratio[..., None], ratios, cheaper[..., None]], axis=3)
        self._cheap = np.array([curve.work[1] for curve in weeks.curves])
        angle = 2 * np.pi * weeks.hour_of_day / 24.0
        self._time = np.stack([np.sin(angle), np.cos(angle), weeks.weekend], axis=2)  # (e, t, 3)

    def room(self, queue: Queue) -> FloatArray:
        """What fits beside the firm load (e, s)."""
        return queue.room

    def bounds(self, queue: Queue, room: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(least (e,), most (e, s)) of flexible work in this hour: what the filter demands, and what is worth running."""
        weeks, t = self.weeks, queue.hour
        least = np.minimum(np.minimum(self.guard.least(queue), queue.total), room.sum(axis=1))
        most, begun = np.empty_like(room), queue.begun(room)
        for s, curve in enumerate(weeks.curves):
            worth = curve.slopes[None, :] * self._ratio[:, s, t, None] <= curve.slopes[0]
            ends = np.where(worth, curve.work[1:], 0.0).max(axis=1)
            most[:, s] = np.maximum(ends, curve.work[1]) - begun[:, s]
        return np.asarray(least), np.asarray(np.minimum(np.clip(most, 0.0, room), queue.total[:, None]))

    def observe(self, queue: Queue) -> FloatArray:
        """The observation (e, numbers)."""
        weeks, t = self.weeks, queue.hour
        room = self.room(queue)
        waits = queue.total
        unit = float(self._cheap.sum())
        due = np.cumsum(queue.due, axis=1)
        within = due[:, [min(h, weeks.horizon) for h in DUE_WITHIN_H]]
        least, most = self.bounds(queue, room)
        must = np.divide(least, waits, out=np.zeros_like(waits), where=waits > TINY * unit)
        low = np.minimum(least[:, None], most)
        beyond = most - low
        plan = np.clip(self.plan.work(queue, room) - low, 0.0, beyond)
        urgent = np.divide(plan, beyond, out=np.zeros_like(plan), where=beyond > TINY * unit)
        parts, begun = [], queue.begun(room)
        for s in range(weeks.sites):
            free = np.maximum(self._cheap[s] - begun[:, s], 0.0) / weeks.capacity[s]
            parts += [self._series[:, s, t], free[:, None], (room[:, s] / weeks.capacity[s])[:, None]]
        common = [self._time[:, t], within / unit, (waits / unit)[:, None], must[:, None], urgent]
        if weeks.thermal is not None and queue.temperature_c is not None:
            budget = weeks.thermal
            common.append((budget.limit_c - queue.temperature_c) / (budget.limit_c - budget.ambient_c))
        return np.asarray(np.clip(np.concatenate([*parts, *common], axis=1), -_HIGHEST, _HIGHEST))

    @property
    def actions(self) -> int:
        """How many there are: a level at each site."""
        return len(self.choices)

    @cached_property
    def choices(self) -> FloatArray:
        """The level at each site that each action is (actions, s); the first one is to wait."""
        return np.array(list(product(levels(self.weeks.sites), repeat=self.weeks.sites)))

    def masks(self, queue: Queue) -> BoolArray:
        """Which actions differ from a smaller one (e, actions); waiting always may be chosen."""
        room = self.room(queue)
        _, most = self.bounds(queue, room)
        some = most > TINY * self.weeks.capacity
        return np.asarray(((self.choices == 0.0) | some[:, None]).all(axis=2))

    def work(self, queue: Queue, action: npt.ArrayLike) -> FloatArray:
        """What an action (e,) runs (e, s), before the filter."""
        low, beyond = self.between(queue, queue.room)
        return np.asarray(low + self.choices[np.asarray(action, dtype=np.int64)] * beyond)

    def works(self, queue: Queue, room: FloatArray) -> FloatArray:
        """What every action runs (e, actions, s), cut to what waits; at one site what must run is left to the filter."""
        low, beyond = self.between(queue, room)
        works = low[:, None] + self.choices * beyond[:, None]
        if self.weeks.sites == 1:
            return np.asarray(works)
        total = works.sum(axis=2, keepdims=True)
        return np.asarray(works * np.minimum(1.0, queue.total[:, None, None] / np.maximum(total, 1e-300)))

    def between(self, queue: Queue, room: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(low, beyond) (e, s): what must run and where, and what may run beyond it at each site; a share of ``beyond`` is an action.

        At one site ``low`` is no more than what is worth running. At several what must run goes to the sites of least intensity first, as
        the filter has it, and what may run beyond it at one of them does not know of the others: `Filter.correct` cuts to what waits.
        """
        least, most = self.bounds(queue, room)
        if self.weeks.sites == 1:
            low = np.minimum(least[:, None], most)
            return low, most - low
        low = self.guard.correct(queue, np.zeros_like(room), room)
        return low, np.maximum(np.minimum(most, low + (queue.total - low.sum(axis=1))[:, None]) - low, 0.0)

    def levels_of(self, queue: Queue, work: FloatArray) -> npt.NDArray[np.int64]:
        """The action (e,) nearest to what someone runs (e, s)."""
        low, beyond = self.between(queue, queue.room)
        share = np.divide(work - low, beyond, out=np.zeros_like(work), where=beyond > TINY * float(self._cheap.sum()))
        return np.asarray(np.argmin(np.abs(share[:, None] - self.choices).sum(axis=2), axis=1))
