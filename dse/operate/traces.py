"""Weeks of grid and load: measured hours, files of users, a documented synthetic week, and the periods that are kept apart.

Hours are UTC and half-open. Of every eight weeks of a trace two are judged (the 4th and the 8th), one is for validation (the 2nd), five
are to learn from; nothing that is fitted sees an hour of a judged week.

The synthetic week (not measured): in local standard time

    load(h) = mean x day(h) x week(d) x noise(t),  day(h) = 1 + 0.45 cos(2 pi (h - 15) / 24),  week = 1, Saturday and Sunday 0.75,
    noise(t) = clip(exp(x(t)), 0.7, 1.3),  x(t) = 0.9 x(t - 1) + e(t),  e of standard deviation 0.04

divided so that the mean of day x week is 1, so the declared envelope, 1.3 x mean x day x week, is never left. A place without measured
hours has a synthetic intensity: its yearly mean times a solar dip of a quarter (`carbon.factors.traces.synthetic_duck`) times such a noise.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt

from carbon.errors import CarbonError
from carbon.factors import grid, grid_files, traces
from carbon.factors.grid import GridKind
from carbon.factors.traces import Trace
from dse.errors import DseError, UsageError
from dse.serving.requests import AZURE_COLUMNS, BURST_COLUMNS, OWN_COLUMNS, read_requests

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

WEEK_H = 168
PERIODS = ("train", "validation", "test", "all")
_PERIOD_OF_WEEK = ("train", "validation", "train", "test", "train", "train", "train", "test")
SYNTHETIC_WEEKS = 52
NOISE_PERSISTENCE, NOISE_DEVIATION, NOISE_LIMITS = 0.9, 0.04, (0.7, 1.3)
DAY_SWING, DAY_PEAK_H, WEEKEND = 0.45, 15.0, 0.75
SYNTHETIC_SOLAR = 0.25
#: Standard time of balancing authorities with measured hours; no daylight saving, for people's load shifts by an hour that no grid knows
#: of.
UTC_OFFSETS_H = {"AZPS": -7, "BPAT": -8, "CISO": -8, "ERCO": -6, "MISO": -6, "NYIS": -5, "PJM": -5, "SOCO": -6}
_TIMES = ("timestamp_utc", "hour_utc", "time_utc", "datetime_utc", "timestamp", "hour", "time", "datetime")
_INTENSITY = ("gco2e_per_kwh", "gco2_per_kwh", "gco2eq_per_kwh")
_OTHER_UNIT = re.compile(r"(co2|carbon).*(per|/)|(lbs?|kg|g|t)_?(co2\w*)?(_per_|/)(mwh|kwh|gj|mj)")
_LOG_SHORTEST_H = 48
# Of a file: far above what any plant emits (coal is near 1,000 g a kWh), and below what any grid does over its plants' lives.
_HIGHEST_G, _LOWEST_G = 5000.0, 2.0


def grid_trace(word: str, *, weeks: int = SYNTHETIC_WEEKS, seed: int = 0) -> Trace:
    """The hours of a place: measured (``CISO``, ``eia2022:CISO``), a file, or a synthetic year of a place of `dse carbon grids`.

    Raises UsageError for an unknown place with the nearest known one; DseError, with the line, for a file that is refused.
    """
    path = Path(word)
    if path.suffix.lower() in (".csv", ".json"):
        return read_grid(path)
    name = word.removeprefix("eia2022:").upper()
    if word.startswith("eia2022:") or name in traces.balancing_authorities():
        return traces.eia2022_hourly(name)
    try:
        factor = grid.lookup(word)
    except CarbonError as error:
        measured = ", ".join(traces.balancing_authorities())
        raise UsageError(f"{error}; measured hours exist of {measured}, or name a file") from None
    hours = weeks * WEEK_H
    shape = traces.synthetic_duck(1.0, SYNTHETIC_SOLAR, hours=hours).gco2e_per_kwh
    values = shape * _noise(hours, seed)
    return Trace(
        f"synthetic hours of {factor.name}",
        datetime(2022, 1, 3, tzinfo=UTC),
        values * (factor.gco2e_per_kwh / values.mean()),
        factor.kind,
        f"mean: {factor.source}; hours: synthetic, seed {seed}, not measured",
        factor.licence,
        "synthetic: a solar dip of a quarter and noise around the yearly mean",
    )


def read_grid(path: str | Path) -> Trace:
    """Hours of a file: ``timestamp_utc, gco2e_per_kwh``, or an export of Electricity Maps, WattTime or EIA-930.

    Times without a zone are UTC. A gap, an hour twice or out of order, a negative or missing value, or another unit is one sentence with
    the line.
    """
    file = Path(path)
    lines, header = _lines(file)
    column = next((name for name in _INTENSITY if name in header), None)
    when = next((name for name in _TIMES if name in header), None)
    if file.suffix.lower() == ".csv" and column is None and when is not None:
        for name in header:
            if _OTHER_UNIT.search(name) and "carbon intensity" not in name:
                raise DseError(f"{file}, line 1: column {name!r} is in another unit, must be gco2e_per_kwh")
    if column is None or when is None or file.suffix.lower() == ".json":
        return _foreign(file, lines)
    rows = _rows(lines, header, file)
    times = [_moment(row[when], when, line, file) for line, row in rows]
    values = np.array([_value(row[column], column, line, file) for line, row in rows])
    _check_hours(times, [line for line, _ in rows], file)
    most = int(np.argmax(values))
    if values[most] > _HIGHEST_G:
        told = f"{column} is {values[most]:g}, must be at most {_HIGHEST_G:g}: is it another unit?"
        raise DseError(f"{file}, line {rows[most][0]}: {told}")
    place = file.stem
    kind = GridKind("average", "unstated")
    note = "as given" if values[most] >= _LOWEST_G else f"careful: no hour is above {values[most]:g} g a kWh; is it kg a kWh?"
    return Trace(place, times[0], values, kind, f"{file.name}", "yours", note)


def read_load(path: str | Path) -> tuple[datetime, FloatArray]:
    """Requests an hour of a file with ``timestamp_utc, requests``: the first hour and one value an hour; refused as `read_grid` says."""
    file = Path(path)
    lines, header = _lines(file)
    when = next((name for name in _TIMES if name in header), None)
    if when is None or "requests" not in header:
        raise DseError(f"{file}, line 1: columns must hold timestamp_utc and requests (an hour), or those of a request log")
    rows = _rows(lines, header, file)
    times = [_moment(row[when], when, line, file) for line, row in rows]
    values = np.array([_value(row["requests"], "requests", line, file) for line, row in rows])
    _check_hours(times, [line for line, _ in rows], file)
    return times[0], values


def _lines(file: Path) -> tuple[list[tuple[int, str]], list[str]]:
    """Lines that hold something, with their numbers, and the names of the first one in lower case."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DseError(f"trace {str(file)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DseError(f"{file} is not a text file: byte {error.start} is no UTF-8") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip(" ,\t")]
    if len(lines) < 2:
        raise DseError(f"{file} holds no hours, must have a line of columns and hours below it")
    return lines, [name.strip().lower() for name in next(csv.reader(io.StringIO(lines[0][1])))]


def _rows(lines: Sequence[tuple[int, str]], header: Sequence[str], file: Path) -> list[tuple[int, Mapping[str, str]]]:
    found: list[tuple[int, Mapping[str, str]]] = []
    for number, line in lines[1:]:
        cells = [cell.strip() for cell in next(csv.reader(io.StringIO(line)))]
        if len(cells) != len(header):
            raise DseError(f"{file}, line {number}: {len(cells)} values, must be {len(header)} as line {lines[0][0]} names")
        found.append((number, dict(zip(header, cells, strict=True))))
    return found


def _moment(text: str, column: str, line: int, file: Path) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise DseError(f"{file}, line {line}: {column} is {text[:40]!r}, must be a time like 2022-01-01T00:00Z") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _value(text: str, column: str, line: int, file: Path) -> float:
    try:
        value = float(text) if text else float("nan")
    except ValueError:
        raise DseError(f"{file}, line {line}: {column} is {text[:40]!r}, must be a number") from None
    if not np.isfinite(value) or value < 0:
        shown = text[:40] if text else "missing"
        raise DseError(f"{file}, line {line}: {column} is {shown}, must be finite and at least 0")
    return value


def _check_hours(times: Sequence[datetime], lines: Sequence[int], file: Path) -> None:
    hour = timedelta(hours=1)
    if times[0].minute or times[0].second or times[0].microsecond:
        raise DseError(f"{file}, line {lines[0]}: {times[0]:%Y-%m-%dT%H:%M:%SZ} is no full hour, hours must begin at :00")
    for before, now, line_before, line in zip(times, times[1:], lines, lines[1:], strict=False):
        step = now - before
        if step == hour:
            continue
        local = " (local time that jumps with daylight saving? give UTC or an offset)"
        if step == timedelta(0):
            what = f"the same hour as line {line_before}{local}"
        elif step < timedelta(0):
            what = f"before line {line_before}{local}"
        elif step % hour:
            what = f"{step} after line {line_before}, must be one hour"
        else:
            what = f"{step // hour - 1} hours missing after line {line_before}{local if step == 2 * hour else ''}"
        raise DseError(f"{file}, line {line}: {now:%Y-%m-%dT%H:%MZ} is {what}" if "missing" not in what else
                       f"{file}, line {line}: {what}, before {now:%Y-%m-%dT%H:%MZ}")  # fmt: skip


def _foreign(file: Path, lines: Sequence[tuple[int, str]]) -> Trace:
    """A file that :mod:`carbon.factors.grid_files` reads; the rows of its errors as lines."""
    try:
        return grid_files.read(file).trace
    except CarbonError as error:

        def line(match: re.Match[str]) -> str:
            row = int(match[1])
            return f"line {lines[row][0]}" if row < len(lines) else match[0]

        told = re.sub(r"\brow (\d+)", line, str(error).replace("grid file row", "row"))
        raise DseError(told if str(file) in told else f"{file}, {told}") from None


def _noise(hours: int, seed: int) -> FloatArray:
    from scipy.signal import lfilter  # half a second, where synthetic hours are made

    rng = np.random.default_rng([seed, 7])
    steps = rng.normal(0.0, NOISE_DEVIATION, hours)

    return np.asarray(np.clip(np.exp(lfilter([1.0], [1.0, -NOISE_PERSISTENCE], steps)), *NOISE_LIMITS))


@dataclass(frozen=True)
class Load:
    """Requests an hour and what is declared of them.

    Attributes:
        start: first hour, UTC. requests: (hours,). envelope: most that an hour may bring (hours,). expected: what a planner expects
            (hours,).
        source: where they are from. kept: whether every hour lies below the envelope (no promise holds where not).
    """

    start: datetime
    requests: FloatArray
    envelope: FloatArray
    expected: FloatArray
    source: str

    @property
    def kept(self) -> bool:
        """Whether every hour lies below its envelope."""
        return bool((self.requests <= self.envelope * (1 + 1e-12)).all())


def _pattern(start: datetime, hours: int, utc_offset_h: int) -> FloatArray:
    """day x week of the synthetic load, of mean 1 over whole weeks."""
    local = np.arange(hours) + start.hour + 24 * start.weekday() + utc_offset_h
    hour, day = local % 24, (local // 24) % 7
    shape = (1.0 + DAY_SWING * np.cos(2 * np.pi * (hour - DAY_PEAK_H) / 24)) * np.where(day >= 5, WEEKEND, 1.0)
    return np.asarray(shape / ((5 + 2 * WEEKEND) / 7))


def synthetic_load(start: datetime, hours: int, *, mean_per_h: float, utc_offset_h: int = 0, seed: int = 0) -> Load:
    """The documented synthetic load of the module."""
    if not (np.isfinite(mean_per_h) and mean_per_h > 0):
        raise UsageError(f"mean load is {mean_per_h:g} requests an hour, must be above 0")
    expected = mean_per_h * _pattern(start, hours, utc_offset_h)
    noise = _noise(hours, seed + 1)
    return Load(start, expected * noise, expected * NOISE_LIMITS[1], expected, f"synthetic week, seed {seed}: not measured")


ENVELOPE_MARGIN = 1.25
_LOG_LONGEST_H = 100 * 8766  # a hundred years of hours are counted one by one


def load_of_file(path: str | Path, start: datetime, hours: int, *, utc_offset_h: int = 0, seed: int = 0) -> Load:
    """The load of a user's file: hourly requests, or a request log in a format of :mod:`dse.serving.requests`.

    A log or an hourly file of at least two days is used as it is, repeated from its own beginning to fill ``hours``; a shorter log knows no
    day, so it gives the mean and the week is the synthetic one. The envelope is 1.25 times the largest of the same hour of the day.
    """
    file = Path(path)
    is_log = file.suffix.lower() in (".jsonl", ".ndjson")
    if not is_log:
        lines, header = _lines(file)
        names = set(next(csv.reader(io.StringIO(lines[0][1]))))
        is_log = any(set(wanted) <= {name.strip() for name in names} for wanted in (OWN_COLUMNS, AZURE_COLUMNS, BURST_COLUMNS))
        other = next((name for name in header if "request" in name), None)
        if not is_log and "requests" not in header and other is not None and any(name in header for name in _TIMES):
            raise DseError(f"{file}, line 1: column {other!r} is in another unit, must be requests (of the hour)")
        is_log = is_log or "requests" not in header
    if is_log:
        log = read_requests(file)
        span_h = float(log.arrival_s[-1]) / 3600.0
        if span_h < _LOG_SHORTEST_H:
            mean = log.rate_per_s * 3600.0 or float(len(log))
            load = synthetic_load(start, hours, mean_per_h=mean, utc_offset_h=utc_offset_h, seed=seed)
            what = f"mean of {file.name} ({len(log)} requests in {span_h:.3g} h), hours of the synthetic week, seed {seed}"
            return replace(load, source=what)
        if log.arrival_s[0] < 0 or span_h > _LOG_LONGEST_H:
            raise DseError(
                f"{file} has arrivals from {log.arrival_s[0]:g} to {log.arrival_s[-1]:g} s, must be from 0 to {_LOG_LONGEST_H * 3600:g} s"
            )
        counts = np.bincount((log.arrival_s // 3600).astype(np.int64)).astype(np.float64)[: int(span_h)]
    else:
        _, counts = read_load(file)
        if len(counts) < _LOG_SHORTEST_H:
            raise DseError(f"{file} holds {len(counts)} hours, must hold at least {_LOG_SHORTEST_H}")
    if counts.sum() <= 0:
        raise DseError(f"{file} holds no request, must hold at least one")
    whole = counts[: len(counts) // 24 * 24]
    by_hour = whole.reshape(-1, 24)
    full = np.resize(whole, hours)
    top = ENVELOPE_MARGIN * np.maximum(by_hour.max(axis=0), whole.mean() * 0.05)
    expected = by_hour.mean(axis=0)
    repeated = f", {len(whole)} h repeated" if len(whole) < hours else ""
    return Load(start, full, np.resize(top, hours), np.resize(expected, hours), f"{file.name}{repeated}")


def weeks_of(start: datetime, hours: int, period: str) -> IntArray:
    """First hours of the whole weeks of a period, counted from the start of the trace; ``all`` knows no periods.

    A trace of less than eight weeks is judged whole: there is nothing to learn from.
    """
    count = hours // WEEK_H
    if period == "all":
        return np.arange(count, dtype=np.int64) * WEEK_H
    if count < len(_PERIOD_OF_WEEK):
        return np.arange(count, dtype=np.int64) * WEEK_H if period == "test" else np.zeros(0, dtype=np.int64)
    chosen = [week for week in range(count) if _PERIOD_OF_WEEK[week % len(_PERIOD_OF_WEEK)] == period]
    return np.array(chosen, dtype=np.int64) * WEEK_H


def offset_of(word: str) -> int:
    """Hours from UTC of a place with measured hours; 0 for others, whose synthetic hours are in UTC anyway."""
    return UTC_OFFSETS_H.get(word.removeprefix("eia2022:").upper(), 0)
