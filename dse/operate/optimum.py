"""Exact bounds: perfect foresight by linear programming, and whole chips with a wake cost by integer and by dynamic programming.

The linear program of a week, per hour t, site s, segment j of the site's curve and class c:

    least  sum I_ts PUE_s slope_sj x_tsj
    with   sum_j x_tsj >= firm_ts,   sum_sj x_tsj = sum_s firm_ts + sum_c r_tc,   0 <= x_tsj <= width_sj,
           B_tc = B_t-1,c + arrivals_tc - r_tc,   0 <= B_tc <= what of class c has arrived and is due later than t.

Where a temperature is limited (`dse.operate.thermal`), its rise over the ambient h_ts is a variable too, 0 <= h_ts <= limit - ambient and

    h_ts = k h_t-1,s + (1 - k) R (base_s + sum_j slope_sj x_tsj).

Curves are convex, so segments fill in order; within a class first come is first due, so the bounds on B are the deadlines. Solved by HiGHS.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from dse.errors import DseError
from dse.operate.simulation import Outcome, outcome
from dse.operate.weeks import Weeks

FloatArray = npt.NDArray[np.float64]


def foresight(weeks: Weeks) -> Outcome:
    """The least grams with perfect knowledge of grid and load, an episode a linear program.

    Raises DseError where an episode's work does not fit its deadlines.
    """
    found = [_week(weeks, e) for e in range(weeks.episodes)]
    work = np.stack([f[0] for f in found])
    flexible = np.stack([f[1] for f in found])
    waiting = np.stack([f[2] for f in found])
    return outcome("optimum", weeks, work, flexible, np.zeros(weeks.episodes), waiting)


def _week(weeks: Weeks, e: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(work, flexible (s, t), waiting (t,)) of one episode."""
    hours, sites, classes = weeks.hours, weeks.sites, len(weeks.deadlines)
    segments = [len(curve.slopes) for curve in weeks.curves]
    heat = weeks.thermal
    warm = sites if heat is not None else 0
    per_hour = sum(segments) + 2 * classes + warm
    width = np.concatenate([curve.widths for curve in weeks.curves])
    slope = np.concatenate([curve.slopes for curve in weeks.curves])
    of_site = np.repeat(np.arange(sites), segments)
    price = weeks.intensity[e] * np.array(weeks.pue)[:, None]  # (s, t)
    x = sum(segments)
    scale = float(weeks.capacity.sum())  # work in units of the capacity, grams in units of the mean: HiGHS has absolute tolerances
    money = float(np.mean(price)) * float(slope[0]) or 1.0
    cost = np.zeros((hours, per_hour))
    cost[:, :x] = price[of_site].T * slope / money
    upper = np.full((hours, per_hour), np.inf)
    upper[:, :x] = width / scale
    arrivals = weeks.arrivals[e] / scale
    for c, deadline in enumerate(weeks.deadlines):
        come = np.concatenate([[0.0], np.cumsum(arrivals[:, c])])
        t = np.arange(hours)
        # what has arrived after t - deadline is due later than t
        upper[:, x + classes + c] = np.where(t == hours - 1, 0.0, come[t + 1] - come[np.maximum(t - deadline + 1, 0)])
    if heat is not None:
        upper[:, per_hour - warm :] = 1.0  # in units of what the limit is above the ambient
    base = np.arange(hours) * per_hour
    rows: list[npt.NDArray[Any]] = []
    columns: list[npt.NDArray[Any]] = []
    values: list[npt.NDArray[Any]] = []
    right: list[FloatArray] = []

    def put(row: Any, column: Any, value: Any) -> None:
        r, k, v = np.broadcast_arrays(row, column, np.asarray(value, dtype=np.float64))
        for into, what in ((rows, r), (columns, k), (values, v)):
            into.append(what.ravel())

    put(np.arange(hours)[:, None], base[:, None] + np.arange(x), 1.0)
    put(np.arange(hours)[:, None], base[:, None] + x + np.arange(classes), -1.0)
    right.append(weeks.firm[e].sum(axis=0) / scale)
    for c in range(classes):
        row = hours * (1 + c) + np.arange(hours)
        put(row, base + x + classes + c, 1.0)
        put(row, base + x + c, 1.0)
        put(row[1:], base[:-1] + x + classes + c, -1.0)
        right.append(arrivals[:, c])
    if heat is not None:
        unit = (1.0 - heat.keeps) / heat.sustained_kw
        row = hours * (1 + classes) + np.arange(hours)[:, None] * sites + np.arange(sites)
        rise = base[:, None] + per_hour - warm + np.arange(sites)
        put(row, rise, 1.0)
        put(row[1:], rise[:-1], -heat.keeps)
        put(row[:, of_site], base[:, None] + np.arange(x), -unit * scale * slope)
        drawn = np.tile(unit * np.array([curve.base_kwh for curve in weeks.curves]), (hours, 1))
        drawn[0] += heat.keeps  # a week begins at the limit
        right.append(drawn.ravel())
    count = hours * (1 + classes + warm)
    equal = sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(count, hours * per_hour))
    least, most = None, None
    if sites > 1:
        at = base[:, None] + np.arange(x)
        row = np.arange(hours)[:, None] * sites + of_site
        least = sparse.csr_matrix((np.full(at.size, -1.0), (row.ravel(), at.ravel())), shape=(hours * sites, hours * per_hour))
        most = -(weeks.firm[e].T / scale).ravel()
    answer = linprog(
        cost.ravel(),
        A_ub=least,
        b_ub=most,
        A_eq=equal,
        b_eq=np.concatenate(right),
        bounds=np.column_stack([np.zeros(upper.size), upper.ravel()]),
        method="highs",
    )
    if answer.status != 0:
        what = "deadlines" if heat is None else "deadlines and the temperature"
        raise DseError(f"no plan keeps the {what} of the week that begins at hour {int(weeks.first[e])}: {answer.message}")
    plan = answer.x.reshape(hours, per_hour) * scale
    work = np.stack([plan[:, :x][:, of_site == s].sum(axis=1) for s in range(sites)])
    waiting = plan[:, x + classes : x + 2 * classes].sum(axis=1)
    return work, np.maximum(work - weeks.firm[e], 0.0), waiting


@dataclass(frozen=True)
class WholeChips:
    """A small problem in whole numbers: chips that are woken at a cost, jobs of one unit, clock steps.

    Attributes:
        intensity (t,) [g/kWh]. arrivals (t,): jobs that arrive. deadline_h: hours that a job may wait. chips: how many there are.
        jobs_per_chip, kwh_per_chip: of a chip that is awake for an hour at each clock step (k,). wake_kwh: of a chip that sleeps.
    """

    intensity: FloatArray
    arrivals: npt.NDArray[np.int64]
    deadline_h: int
    chips: int
    jobs_per_chip: npt.NDArray[np.int64]
    kwh_per_chip: FloatArray
    wake_kwh: float

    def hour_kwh(self, awake: int, jobs: int) -> float:
        """Least energy of ``awake`` chips, each at one clock, that run ``jobs`` (infinite where they cannot)."""
        best = np.inf
        for steps in itertools.combinations_with_replacement(range(len(self.kwh_per_chip)), awake):
            if sum(int(self.jobs_per_chip[k]) for k in steps) >= jobs:
                best = min(best, float(sum(self.kwh_per_chip[k] for k in steps)))
        return best


def whole_chips_milp(problem: WholeChips) -> float:
    """Least grams by HiGHS: variables a hour are chips at each clock, chips woken and jobs run (infinite where nothing fits)."""
    hours, steps = len(problem.intensity), len(problem.kwh_per_chip)
    width = steps + 2
    cost = np.zeros((hours, width))
    cost[:, :steps] = problem.intensity[:, None] * problem.kwh_per_chip
    cost[:, steps] = problem.intensity * problem.wake_kwh
    size = hours * width
    rows: list[FloatArray] = []
    low: list[float] = []
    high: list[float] = []

    def bound(row: FloatArray, least: float, most: float) -> None:
        rows.append(row)
        low.append(least)
        high.append(most)

    come = np.cumsum(problem.arrivals)
    for t in range(hours):
        awake = np.zeros(size)
        awake[t * width : t * width + steps] = 1.0
        bound(awake, 0.0, problem.chips)
        served = np.zeros(size)
        served[t * width : t * width + steps] = problem.jobs_per_chip
        served[t * width + steps + 1] = -1.0
        bound(served, 0.0, np.inf)
        woken = -awake
        woken[t * width + steps] = 1.0
        if t:
            woken[(t - 1) * width : (t - 1) * width + steps] = 1.0
        bound(woken, 0.0, np.inf)
        run = np.zeros(size)
        run[steps + 1 : (t + 1) * width : width] = 1.0
        due = come[-1] if t == hours - 1 else come[t - problem.deadline_h] if t >= problem.deadline_h else 0
        bound(run, float(due), float(come[t]))
    answer = milp(
        cost.ravel(),
        constraints=LinearConstraint(np.array(rows), low, high),
        bounds=Bounds(0.0, np.inf),
        integrality=np.ones(size),
        options={"mip_rel_gap": 0.0},
    )
    return float(answer.fun) if answer.status == 0 else float("inf")


def whole_chips_dp(problem: WholeChips) -> float:
    """The same by dynamic programming over (jobs run so far, chips awake before): slow, and plain enough to be believed."""
    hours = len(problem.intensity)
    come = np.cumsum(problem.arrivals)
    most = int(problem.jobs_per_chip.max()) * problem.chips
    hour = {(n, j): problem.hour_kwh(n, j) for n in range(problem.chips + 1) for j in range(most + 1)}
    states: dict[tuple[int, int], float] = {(0, 0): 0.0}
    for t in range(hours):
        due = int(come[-1] if t == hours - 1 else come[t - problem.deadline_h] if t >= problem.deadline_h else 0)
        after: dict[tuple[int, int], float] = {}
        for (run, before), grams in states.items():
            for awake in range(problem.chips + 1):
                wake = max(awake - before, 0) * problem.wake_kwh
                for jobs in range(max(due - run, 0), min(int(come[t]) - run, most) + 1):
                    total = grams + float(problem.intensity[t]) * (hour[awake, jobs] + wake)
                    key = (run + jobs, awake)
                    if total < after.get(key, np.inf):
                        after[key] = total
        states = after
    return min(states.values(), default=float("inf"))
