"""Fewer chips for the same deadlines: what deferring saves before anything is built.

Work that may wait lets peaks be filled into valleys. The least number of chips on which all work of a trace can run in time is

    least C  with  firm_t + y_t <= C w,   0 <= B_t = B_{t-1} + a_t - y_t <= what is due later than t,

w the most work of a chip in an hour. By Hall's condition for one queue it is the largest mean, over intervals of hours, of the firm load
of the interval and of the arrivals that come and are due in it, so no program is solved. Of the *declared* load the answer is a promise:
the filter keeps every deadline with that many. Of the load as it came it is what foresight could do.

Grams of a number of chips: its running over the weeks, plus its making spread over its life. What an answer gives to the next search is the
requests a second that one device then serves.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.operate.policies import Plan
from dse.operate.scenario import SPARE, Prepared, Scenario, forecast_of
from dse.operate.simulation import simulate
from dse.operate.traces import WEEK_H, offset_of
from dse.operate.weeks import Flexible, make_weeks

FloatArray = npt.NDArray[np.float64]

NIGHT_H = 3
SIZES = 6


def least_capacity(firm: FloatArray, arrivals: FloatArray, deadlines: tuple[int, ...]) -> float:
    """Least capacity an hour at which firm load (t,) and arrivals (t, c) run in time, those that are due by the last hour.

    The largest mean over intervals [s, e] of firm load in s..e plus arrivals from s on that are due by e.
    """
    hours = len(firm)
    load = np.concatenate([[0.0], np.cumsum(firm)])
    come = np.concatenate([np.zeros((1, arrivals.shape[1])), np.cumsum(arrivals, axis=0)])
    best = 0.0
    lengths = np.arange(1, hours + 1)
    for s in range(hours):
        work = load[s + 1 :] - load[s]
        for c, deadline in enumerate(deadlines):
            if deadline < hours - s:
                work[deadline:] += come[s + 1 : hours + 1 - deadline, c] - come[s, c]
        best = max(best, float((work / lengths[: hours - s]).max()))
    return best


def fewest_chips(prepared: Prepared, flexible: Flexible, *, declared: bool) -> int:
    """Chips of the one site that keep all deadlines of the whole trace: of the declared load, or of the load as it came."""
    load, s = prepared.loads[0], prepared.scenario
    values = (load.envelope if declared else load.requests)[: prepared.hours]
    arrivals = np.stack([share * values for _, share in flexible.classes], axis=1) if flexible.classes else np.zeros((len(values), 0))
    needed = least_capacity((1.0 - flexible.share) * values, arrivals, tuple(d for d, _ in flexible.classes))
    return max(1, math.ceil(needed / (s.utilisation_cap * s.device.fastest.requests_per_h) - 1e-9))


def resize(scenario: Scenario, *, period: str = "test", most: int | None = None) -> dict[str, Any]:
    """Chips with and without waiting for the same load and deadlines, their grams, and what a search should be told.

    Raises UsageError for several sites, and where a temperature is limited.
    """
    if len(scenario.places) != 1:
        raise UsageError(f"re-sizing is of one site, got {len(scenario.places)}; name one")
    if scenario.thermal is not None:
        raise UsageError("re-sizing knows no temperature limit: how many chips there are is asked before a site is; leave one of them out")
    prepared = scenario.prepared()
    waiting, none = scenario.flexible, Flexible(())
    fewest = fewest_chips(prepared, waiting, declared=True)
    run_now = fewest_chips(prepared, none, declared=True)
    most_chips = max(math.ceil(SPARE * run_now), run_now + 1)
    rows = []
    for chips in sorted({*np.linspace(fewest, most_chips, SIZES).round().astype(int).tolist(), run_now}):
        rows.append({"chips": chips, "waits": True, **_grams(prepared, chips, waiting, period, most)})
        if chips >= run_now:
            rows.append({"chips": chips, "waits": False, **_grams(prepared, chips, none, period, most)})
    mean = float(prepared.loads[0].requests.mean()) / 3600.0
    best, best_now = (min((row for row in rows if row["waits"] is waits), key=lambda row: row["total_grams"]) for waits in (True, False))
    return {
        "rows": rows,
        "chips": fewest,
        "chips_run_now": run_now,
        "chips_foresight": fewest_chips(prepared, waiting, declared=False),
        "chips_saved_share": 1.0 - fewest / run_now,
        "chips_least_carbon": best["chips"],
        "chips_least_carbon_run_now": best_now["chips"],
        "grams_saved_share": 1.0 - best["total_grams"] / best_now["total_grams"],
        "requests_per_s_per_device": mean / best["chips"],
        "requests_per_s_per_device_run_now": mean / best_now["chips"],
        "search": f"dse search ... --rate {mean / best['chips']:.6g} --grid {prepared.grids[0].mean():.6g}",
    }


def _grams(prepared: Prepared, chips: int, flexible: Flexible, period: str, most: int | None) -> dict[str, float]:
    """Grams of running (by planning) and of making, over the weeks; what was late.

    The weeks begin and end at ``NIGHT_H`` local time, where little is left to run: every week ends without a debt, and an end in the
    busiest hour would ask for more chips than the deadlines do.
    """
    s = prepared.scenario
    sized = replace(prepared, chips=chips, scenario=replace(s, flexible=flexible))
    offset = offset_of(s.places[0])
    trace = prepared.grids[0]
    shift = (NIGHT_H - trace.start.hour - offset) % 24
    first = prepared.first_hours(period, most) + shift
    first = first[first + WEEK_H <= prepared.hours]
    if not len(first):
        first = prepared.first_hours(period, most)
    weeks = make_weeks(sized.sites(), flexible, first, WEEK_H, [forecast_of(trace, "ridge")], utc_offset_h=offset)
    planned = simulate(weeks, Plan())
    made = chips * s.device.embodied_kgco2e * 1000.0 * weeks.episodes * weeks.hours / s.device.lifetime_h
    return {
        "operation_grams": planned.total_grams,
        "embodied_grams": made,
        "total_grams": planned.total_grams + made,
        "missed_requests": float(planned.missed.sum()),
    }
