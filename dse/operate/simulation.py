"""A policy runs through weeks, hour by hour, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dse.operate.safety import Filter
from dse.operate.weeks import Queue, Weeks

FloatArray = npt.NDArray[np.float64]


class Decides(Protocol):
    """Who says how much flexible work each site runs."""

    name: str

    def begin(self, weeks: Weeks) -> None:
        """Told before the first hour."""
        ...

    def work(self, queue: Queue, room: FloatArray) -> FloatArray:
        """Requests to run this hour (e, s), given what fits beside the firm load (e, s); the filter has the last word."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What happened: e episodes, s sites, t hours.

    Attributes:
        work (e, s, t): requests run. flexible (e, s, t): of these, flexible ones. kwh (e, s, t): of chips. grams (e,): PUE included.
        missed (e,): flexible work after its deadline, and firm work beyond the capacity. waiting (e, t): after each hour.
    """

    name: str
    work: FloatArray
    flexible: FloatArray
    kwh: FloatArray
    grams: FloatArray
    missed: FloatArray
    waiting: FloatArray

    @property
    def total_grams(self) -> float:
        """Of all episodes."""
        return float(self.grams.sum())


def simulate(weeks: Weeks, policy: Decides, *, safe: bool = True) -> Outcome:
    """Run a policy through all episodes; ``safe`` puts the deadline filter of :mod:`dse.operate.safety` behind it."""
    shape = weeks.intensity.shape
    flexible = np.zeros(shape)
    waiting = np.zeros((shape[0], shape[2]))
    queue, guard = Queue(weeks), Filter(weeks)
    firm = np.empty(shape)
    policy.begin(weeks)
    while not queue.done:
        t, room = queue.hour, queue.room
        firm[:, :, t] = queue.firm
        wanted = np.clip(policy.work(queue, room), 0.0, room)
        chosen = guard.correct(queue, wanted, room) if safe else limited(wanted, queue.total)
        flexible[:, :, t] = chosen
        queue.run(chosen)
        waiting[:, t] = queue.total if not queue.done else 0.0
    late = queue.missed + (weeks.firm - firm).sum(axis=(1, 2))
    return outcome(policy.name, weeks, firm + flexible, flexible, late, waiting)


def limited(work: FloatArray, most: FloatArray) -> FloatArray:
    """``work`` (e, s) scaled down where its sum is above ``most`` (e,)."""
    total = work.sum(axis=1)
    return np.asarray(work * np.minimum(1.0, np.divide(most, total, out=np.ones_like(total), where=total > 0))[:, None])


def outcome(name: str, weeks: Weeks, work: FloatArray, flexible: FloatArray, missed: FloatArray, waiting: FloatArray) -> Outcome:
    """Energy and grams of work (e, s, t)."""
    kwh = np.stack([curve.energy(work[:, s]) for s, curve in enumerate(weeks.curves)], axis=1)
    grams = (kwh * weeks.intensity * np.array(weeks.pue)[:, None]).sum(axis=(1, 2))
    return Outcome(name, work, flexible, kwh, grams, missed, waiting)
