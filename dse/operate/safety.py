"""The filter that keeps deadlines: the least flexible work that an hour must run so that all later deadlines can still be kept.

Declared are envelopes: the most firm load and the most arrivals of each class that an hour may bring. Let c_j be the capacity of hour j
less its declared firm load, and A_j(e) the declared arrivals of hour j that are due by the end of hour e. Work that waits and work that
may come can be run in time if and only if (Hall's condition for one queue, fluid work) for every e

    D(e) - y + sum_{j = t+1..e} A_j(e) <= sum_{j = t+1..e} c_j,          D(e): waiting work due by e,

so the filter runs y >= max over e >= t of D(e) + A(t+1..e; e) - C(t+1..e), and at least D(t). By induction no deadline is missed where the
envelopes are kept and the declared work alone fits: what the filter leaves satisfies the condition, and the real load is no larger.
Beyond the longest deadline D(e) is the whole queue and the largest of the other terms is a running maximum, so an hour costs a few
additions.

Where a temperature is limited, c_j is what can be run for good (`dse.operate.thermal`), which every hour has, whatever was run before.

Without an envelope of the arrivals the promise cannot be given: work may come that fills every later hour.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.operate.weeks import Queue, Weeks

FloatArray = npt.NDArray[np.float64]


class Filter:
    """The least work of every hour of some weeks; `correct` applies it to what a policy wants."""

    def __init__(self, weeks: Weeks) -> None:
        self._weeks = weeks
        hours, reach = weeks.hours, weeks.horizon
        spare = np.maximum(weeks.sustained[:, None] - weeks.firm_bound, 0.0).sum(axis=1)  # (e, t)
        room = np.concatenate([np.zeros((weeks.episodes, 1)), np.cumsum(spare, axis=1)], axis=1)  # room[:, i]: of hours below i
        come = np.concatenate([np.zeros((weeks.episodes, 1, len(weeks.deadlines))), np.cumsum(weeks.arrival_bound, axis=1)], axis=1)
        last = hours - 1
        # need[:, t, k]: declared arrivals of t+1 ... t+k due by t+k, less the room of these hours; all work is due by the last hour.
        t = np.arange(hours)[:, None]
        end = np.minimum(t + np.arange(reach + 1)[None, :], last)  # (t, k)
        need = np.zeros((weeks.episodes, hours, reach + 1))
        for c, deadline in enumerate(weeks.deadlines):
            latest = np.where(end == last, last, end - deadline)  # arrivals up to this hour are due by `end`
            upto = np.maximum(np.minimum(latest, end), t)
            need += come[:, upto + 1, c] - come[:, t + 1, c]
        need -= room[:, end + 1] - room[:, t + 1]
        self._need = need
        # Beyond the longest deadline: F(e) - R(e) with F the declared arrivals due by e, as a running maximum from the end.
        e = np.arange(hours)
        due_by = np.zeros((weeks.episodes, hours))
        for c, deadline in enumerate(weeks.deadlines):
            due_by += come[:, np.where(e == last, hours, np.maximum(e - deadline + 1, 0)), c]
        slack = due_by - room[:, 1:]
        later = np.maximum.accumulate(slack[:, ::-1], axis=1)[:, ::-1]  # max over e' >= e
        beyond = np.minimum(e + reach, last)
        # arrivals up to t are the queue itself or done: what is counted in `due_by` of them is taken off again
        self._beyond = later[:, beyond] - (come[:, 1:].sum(axis=2) - room[:, 1:])

    def least(self, queue: Queue) -> FloatArray:
        """Flexible work that must run in this hour (e,)."""
        t = queue.hour
        due = np.cumsum(queue.due, axis=1)
        first = (due + self._need[:, t]).max(axis=1)
        return np.asarray(np.maximum(np.maximum(first, queue.total + self._beyond[:, t]), 0.0))

    def correct(self, queue: Queue, wanted: FloatArray, room: FloatArray) -> FloatArray:
        """What a policy wants (e, s), raised to the least that must run and lowered to what waits, within ``room`` (e, s).

        What is added goes to the sites of least intensity first.
        """
        most = queue.total
        total = wanted.sum(axis=1)
        over = total > most
        chosen = wanted
        if over.any():
            chosen = wanted * np.where(over, most / np.maximum(total, 1e-300), 1.0)[:, None]
        short = np.minimum(np.minimum(self.least(queue), most) - chosen.sum(axis=1), (room - chosen).sum(axis=1))
        if (short > 0).any():
            chosen = chosen.copy()
            if self._weeks.sites == 1:
                chosen[:, 0] += np.maximum(short, 0.0)
            else:
                order = np.argsort(self._weeks.intensity[:, :, queue.hour], axis=1, kind="stable")
                rows = np.arange(len(chosen))
                for place in range(self._weeks.sites):
                    site = order[:, place]
                    more = np.clip(short, 0.0, room[rows, site] - chosen[rows, site])
                    chosen[rows, site] += more
                    short = short - more
        return np.asarray(np.minimum(chosen, room))
