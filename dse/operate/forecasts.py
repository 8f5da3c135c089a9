"""Forecasts of carbon intensity for the next hours, and how good they are.

Each forecast is an array (hours of the trace, leads): row t, column h - 1 is what hour t expects of hour t + h. What is fitted is fitted on
training weeks alone; at hour t only hours up to t are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from carbon.factors.traces import Trace
from dse.errors import unknown_name
from dse.operate.traces import WEEK_H, weeks_of

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEADS = 24
TRUE_LEADS = 36
"""Of the true forecast: what a plan gains from beyond a day. Fitted forecasts gain nothing there."""
NAMES = ("truth", "ridge", "timetable", "yesterday")
_RIDGE = 1e-2  # of the variance of a standardised feature: the features of an hour are much alike


def truth(trace: Trace, leads: int) -> FloatArray:
    """What will be; beyond the trace its last hour."""
    at = np.arange(len(trace))[:, None] + np.arange(1, leads + 1)
    return np.asarray(trace.gco2e_per_kwh[np.minimum(at, len(trace) - 1)])


def yesterday(trace: Trace, leads: int) -> FloatArray:
    """The same hour of the last day that is known; in the first day the hour itself."""
    t = np.arange(len(trace))[:, None]
    h = np.arange(1, leads + 1)
    back = t + h - 24 * np.ceil(h / 24).astype(np.int64)
    return np.asarray(trace.gco2e_per_kwh[np.where(back >= 0, back, t)])


def training_hours(trace: Trace) -> BoolArray:
    """Hours of the training weeks (hours,); of a trace too short to set weeks apart, none."""
    found = np.zeros(len(trace), dtype=bool)
    for first in weeks_of(trace.start, len(trace), "train"):
        found[first : first + WEEK_H] = True
    return found


def timetable(trace: Trace, leads: int) -> FloatArray:
    """The 12x24 means of the training weeks, by month and hour; a month without training hours takes its hour's mean of all months.

    Without training weeks it is `yesterday`: a mean over the judged hours would know what is judged.
    """
    known = training_hours(trace)
    if not known.any():
        return yesterday(trace, leads)
    cell = _cells(trace)
    sums = np.bincount(cell[known], weights=trace.gco2e_per_kwh[known], minlength=288)
    counts = np.bincount(cell[known], minlength=288)
    by_hour = sums.reshape(12, 24).sum(axis=0) / np.maximum(counts.reshape(12, 24).sum(axis=0), 1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), np.tile(by_hour, 12))
    at = np.arange(len(trace))[:, None] + np.arange(1, leads + 1)
    return np.asarray(means[cell[np.minimum(at, len(trace) - 1)]])


def _cells(trace: Trace) -> npt.NDArray[np.int64]:
    at = np.datetime64(trace.start.replace(tzinfo=None), "h") + np.arange(len(trace))
    return np.asarray((at.astype("datetime64[M]").astype(np.int64) % 12) * 24 + at.astype(np.int64) % 24)


def ridge(trace: Trace, leads: int) -> FloatArray:
    """A ridge regression a lead, on the last 24 hours, their change in a day, the mean of the last week, and of the hour to be told its
    value a day, two days and a week before and its timetable; the level and what now and yesterday deviate from the timetable also hour
    by hour of the day. Fitted on training weeks; without them it is `yesterday`.
    """
    known = training_hours(trace)
    if not known.any():
        return yesterday(trace, leads)
    values, hours = trace.gco2e_per_kwh, len(trace)
    table = timetable(trace, leads)
    t = np.arange(hours)

    def back(lag: npt.ArrayLike) -> FloatArray:
        return np.asarray(values[np.maximum(t - np.asarray(lag), 0)])

    sums = np.cumsum(np.concatenate([np.full(WEEK_H, values[0]), values]))
    week = (sums[WEEK_H:] - sums[:-WEEK_H]) / WEEK_H
    deviates = values - np.concatenate([table[:1, 0], table[:-1, 0]])
    common = [*(back(lag) for lag in range(24)), deviates, back(24) - values, week]
    of_day = np.eye(24)[(t + trace.start.hour) % 24]
    result = np.empty((hours, leads))
    for h in range(1, leads + 1):
        day_before = back(24 * int(np.ceil(h / 24)) - h)
        own = [day_before, back(24 * int(np.ceil(h / 24)) - h + 24), back(WEEK_H - h), table[:, h - 1]]
        hourly = [of_day, of_day * deviates[:, None], of_day * (day_before - table[:, h - 1])[:, None]]
        features = np.column_stack([*common, *own, *hourly])
        target = values[np.minimum(t + h, hours - 1)]
        rows = np.flatnonzero(known[:-h] & known[h:])
        mean, spread = features[rows].mean(axis=0), features[rows].std(axis=0) + 1e-9
        scaled = (features - mean) / spread
        level = target[rows].mean()
        gram = scaled[rows].T @ scaled[rows] / len(rows) + _RIDGE * np.eye(features.shape[1])
        weights = np.linalg.solve(gram, scaled[rows].T @ (target[rows] - level) / len(rows))
        result[:, h - 1] = np.maximum(level + scaled @ weights, 0.0)
    return result


def make(name: str, trace: Trace, leads: int | None = None) -> FloatArray:
    """A forecast by its name, for ``leads`` hours (default: ``TRUE_LEADS`` of the truth, ``LEADS`` of the others).

    Raises UsageError for an unknown name.
    """
    known = {"truth": truth, "ridge": ridge, "timetable": timetable, "yesterday": yesterday}
    if name not in known:
        raise unknown_name("forecast", name, known)
    return known[name](trace, leads or (TRUE_LEADS if name == "truth" else LEADS))


@dataclass(frozen=True)
class Skill:
    """How good a forecast was over some hours.

    Attributes:
        mape: mean absolute error over the mean intensity. over_timetable: 1 - error / error of the timetable (above 0: better).
        rank: mean over hours of the rank correlation of the next hours, as expected and as they were: what deferring needs.
    """

    mape: float
    over_timetable: float
    rank: float


def skill(trace: Trace, forecast: FloatArray, first: npt.ArrayLike, hours: int = WEEK_H) -> Skill:
    """The skill over the weeks that begin at hours ``first``."""
    leads = forecast.shape[1]
    at = (np.atleast_1d(np.asarray(first, dtype=np.int64))[:, None] + np.arange(hours)).ravel()
    at = at[at + leads < len(trace)]
    was, expected, table = (array[at] for array in (truth(trace, leads), forecast, timetable(trace, leads)))
    error = float(np.abs(expected - was).mean())
    reference = float(np.abs(table - was).mean())
    ranks = [np.argsort(np.argsort(array, axis=1, kind="stable"), axis=1, kind="stable") for array in (was, expected)]
    a, b = (array - array.mean(axis=1, keepdims=True) for array in ranks)
    spread = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    rank = float(np.divide((a * b).sum(axis=1), spread, out=np.zeros(len(at)), where=spread > 0).mean())
    return Skill(error / float(was.mean()), 1.0 - error / reference if reference > 0 else 0.0, rank)
