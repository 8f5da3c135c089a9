"""Hourly grid files of others: Electricity Maps and WattTime CSV, EIA-930 generation by fuel.

A file is refused, with the row, when it has gaps, duplicate or unordered times, negative or missing values, more than one
zone or signal, or a unit that is not the format's. Row numbers count data rows from 1, those of the chosen zone where a file
has several. The data of Electricity Maps and WattTime are theirs: read them here, do not ship them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from carbon.errors import CarbonError, unknown
from carbon.factors.grid import GridKind
from carbon.factors.tables import table
from carbon.factors.traces import Trace

GRAMS_PER_POUND = 453.59237
FORMATS = ("electricitymaps", "watttime", "eia930")


@dataclass(frozen=True, slots=True)
class Imported:
    """A trace and what the reader should know about the file."""

    trace: Trace
    warnings: tuple[str, ...]


def read(path: str | Path, *, format: str | None = None, zone: str | None = None) -> Imported:
    """Read an hourly grid file.

    Args:
        path: CSV (Electricity Maps, WattTime, EIA-930) or WattTime JSON.
        format: one of :data:`FORMATS`; None recognises it by its columns.
        zone: which zone or balancing authority, where a file has several.

    Raises:
        CarbonError: the file cannot be read, is of no known format, or is refused (see the module), with the row.
    """
    if format is not None and format not in FORMATS:
        raise unknown("format", format, FORMATS)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise CarbonError(f"grid file {str(path)!r} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise CarbonError(f"grid file {str(path)!r} is not UTF-8 text (byte {problem.start})") from None
    if text.lstrip().startswith("{"):
        return _watttime_json(text, str(path), zone)
    rows = list(csv.reader(io.StringIO(text)))
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if len(rows) < 2:
        raise CarbonError(f"grid file {str(path)!r} has no data rows")
    header = [cell.strip() for cell in rows[0]]
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise CarbonError(f"grid file row {number} has {len(row)} cells, but the header has {len(header)}")
    found = format or _recognise(header)
    readers: dict[str, Callable[[list[str], list[list[str]], str | None], Imported]] = {
        "electricitymaps": _electricity_maps,
        "watttime": _watttime,
        "eia930": _eia930,
    }
    return readers[found](header, rows[1:], zone)


def as_grid(word: str) -> str:
    """A grid as `carbon.factors.grid.lookup` takes it: the mean of an hourly file in place of the file's name, other words as they are."""
    path = Path(word)
    if path.suffix.lower() not in (".csv", ".json"):
        return word
    trace = read(path).trace
    return f"{float(np.mean(trace.gco2e_per_kwh)):.6g} (mean of {path.name}, {len(trace.gco2e_per_kwh)} h)"


def _recognise(header: Sequence[str]) -> str:
    low = [name.lower() for name in header]
    if "point_time" in low:
        return "watttime"
    if any("carbon intensity" in name for name in low) and any("datetime" in name for name in low):
        return "electricitymaps"
    if len(_fuel_columns(header)) >= 2 and _time_column(header) is not None:
        return "eia930"
    raise CarbonError(
        "grid file is of no known format: it needs 'Datetime (UTC)' and 'Carbon Intensity' (Electricity Maps), "
        "'point_time' and 'value' (WattTime), or a UTC time and fuel columns (EIA-930)"
    )


def _time(text: str, row: int, column: str) -> datetime:
    cleaned = text.strip().replace("Z", "+00:00")
    for attempt in (cleaned, cleaned.replace(" ", "T", 1)):
        try:
            moment = datetime.fromisoformat(attempt)
            break
        except ValueError:
            moment = None
    if moment is None:
        for pattern in ("%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S"):
            try:
                moment = datetime.strptime(cleaned, pattern)
                break
            except ValueError:
                continue
    if moment is None:
        raise CarbonError(f"grid file row {row}, column {column!r}: {text!r} is not a time")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _value(text: str, row: int, column: str) -> float:
    try:
        value = float(text.replace(",", "")) if text.strip() else float("nan")
    except ValueError:
        raise CarbonError(f"grid file row {row}, column {column!r}: {text!r} is not a number") from None
    if not np.isfinite(value):
        raise CarbonError(f"grid file row {row}, column {column!r}: the value is missing")
    if value < 0.0:
        raise CarbonError(f"grid file row {row}, column {column!r}: {value:g} is negative")
    return value


def _hourly(times: Sequence[datetime], values: Sequence[float], step: timedelta) -> tuple[datetime, np.ndarray]:
    """Check that times rise by ``step`` and return the start and hourly means."""
    for row in range(1, len(times)):
        gap = times[row] - times[row - 1]
        if gap == timedelta(0):
            raise CarbonError(f"grid file row {row + 1}: time {times[row]:%Y-%m-%dT%H:%MZ} is a duplicate of row {row}")
        if gap < timedelta(0):
            raise CarbonError(f"grid file row {row + 1}: time {times[row]:%Y-%m-%dT%H:%MZ} goes back before row {row}")
        if gap != step:
            raise CarbonError(
                f"grid file row {row + 1}: time {times[row]:%Y-%m-%dT%H:%MZ} leaves a gap after "
                f"{times[row - 1]:%Y-%m-%dT%H:%MZ} (steps are {int(step.total_seconds() // 60)} minutes)"
            )
    if times[0].minute or times[0].second:
        raise CarbonError(f"grid file row 1: time {times[0]:%Y-%m-%dT%H:%MZ} does not begin at a full hour")
    per_hour = int(timedelta(hours=1) / step)
    if len(values) % per_hour:
        raise CarbonError(f"grid file row {len(values)}: the last hour is incomplete ({per_hour} values an hour are needed)")
    return times[0], np.asarray(values, dtype=np.float64).reshape(-1, per_hour).mean(axis=1)


def _step(times: Sequence[datetime]) -> timedelta:
    """The step of the file, from its first two rows: 5, 15, 30 or 60 minutes."""
    if len(times) < 2:
        return timedelta(hours=1)
    step = times[1] - times[0]
    if step == timedelta(0):
        raise CarbonError(f"grid file row 2: time {times[1]:%Y-%m-%dT%H:%MZ} is a duplicate of row 1")
    if step > timedelta(hours=1):
        raise CarbonError(
            f"grid file row 2: time {times[1]:%Y-%m-%dT%H:%MZ} leaves a gap after {times[0]:%Y-%m-%dT%H:%MZ} (hours are needed)"
        )
    if step not in [timedelta(minutes=minutes) for minutes in (5, 15, 30, 60)]:
        raise CarbonError(f"grid file row 2: steps are {step}, but 5, 15, 30 or 60 minutes are needed")
    return step


def _one(rows: Sequence[Sequence[str]], column: int, name: str) -> str:
    """The single value of a column that must not change, such as the zone."""
    first = rows[0][column].strip()
    for number, row in enumerate(rows, 1):
        if row[column].strip() != first:
            raise CarbonError(
                f"grid file row {number}, column {name!r}: {row[column].strip()!r} after {first!r}, but a trace has one {name}"
            )
    return first


def _select(rows: list[list[str]], column: int | None, zone: str | None, name: str) -> list[list[str]]:
    if zone is None or column is None:
        return rows
    chosen = [row for row in rows if row[column].strip().lower() == zone.lower()]
    if not chosen:
        raise unknown(name, zone, dict.fromkeys(row[column].strip() for row in rows))
    return chosen


def _electricity_maps(header: list[str], rows: list[list[str]], zone: str | None) -> Imported:
    low = [name.lower() for name in header]
    when = next((i for i, name in enumerate(low) if "datetime" in name), None)
    intensity = [i for i, name in enumerate(low) if "carbon intensity" in name]
    if when is None or not intensity:
        raise CarbonError("grid file lacks 'Datetime (UTC)' or 'Carbon Intensity', which an Electricity Maps export has")
    if "utc" not in low[when]:
        raise CarbonError(f"grid file column {header[when]!r} is not said to be UTC, which an Electricity Maps export is")
    cycle = [i for i in intensity if "lca" in low[i] or "life cycle" in low[i] or "life-cycle" in low[i] or "lifecycle" in low[i]]
    column = (cycle or intensity)[0]
    unit = low[column].replace("₂", "2").replace(" ", "")
    if "gco2eq/kwh" not in unit or "kgco2" in unit:
        raise CarbonError(f"grid file column {header[column]!r} is not in gCO2eq/kWh, which an Electricity Maps export is")
    warnings = []
    if not cycle:
        warnings.append(f"column {header[column]!r} is direct (combustion) intensity: no life-cycle column was found")
    zone_at = next((i for i, name in enumerate(low) if name in ("zone id", "zone key", "zone")), None)
    rows = _select(rows, zone_at, zone, "zone")
    name = _one(rows, zone_at, "zone") if zone_at is not None else "zone not named"
    times = [_time(row[when], number, header[when]) for number, row in enumerate(rows, 1)]
    values = [_value(row[column], number, header[column]) for number, row in enumerate(rows, 1)]
    start, hours = _hourly(times, values, _step(times))
    estimated = next((i for i, label in enumerate(low) if label == "data estimated"), None)
    if estimated is not None:
        count = sum(row[estimated].strip().lower() in ("true", "1", "yes") for row in rows)
        if count:
            warnings.append(f"{count} of {len(rows)} values are marked as estimated")
    kind = GridKind("average", "lifecycle" if cycle else "combustion")
    trace = Trace(f"electricitymaps:{name}", start, hours, kind, "Electricity Maps export", "proprietary: do not redistribute")
    return Imported(trace, tuple(warnings))


def _watttime(header: list[str], rows: list[list[str]], zone: str | None) -> Imported:
    low = [name.lower() for name in header]
    for needed in ("point_time", "value"):
        if needed not in low:
            raise CarbonError(f"grid file lacks the column {needed!r}, which a WattTime export has")
    units, signal = "lbs_co2_per_mwh", "co2_moer"
    if "units" in low:
        units = _one(rows, low.index("units"), "units")
    if "signal_type" in low:
        signal = _one(rows, low.index("signal_type"), "signal_type")
    region_at = low.index("region") if "region" in low else None
    rows = _select(rows, region_at, zone, "region")
    name = _one(rows, region_at, "region") if region_at is not None else (zone or "region not named")
    if "version" in low:
        _one(rows, low.index("version"), "version")
    when, column = low.index("point_time"), low.index("value")
    points = [(_time(row[when], n, "point_time"), _value(row[column], n, "value")) for n, row in enumerate(rows, 1)]
    return _watttime_trace(points, units, signal, name, assumed_units="units" not in low)


def _watttime_json(text: str, path: str, zone: str | None) -> Imported:
    try:
        content = json.loads(text)
        data, meta = content["data"], dict(content.get("meta", {}))
        cells = [(str(item["point_time"]), str(item["value"])) for item in data]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise CarbonError(f"grid file {path!r} is not a WattTime answer (data, meta): {problem}") from None
    if not cells:
        raise CarbonError(f"grid file {path!r} has no data rows")
    points = [(_time(when, n, "point_time"), _value(value, n, "value")) for n, (when, value) in enumerate(cells, 1)]
    name = str(meta.get("region", zone or "region not named"))
    return _watttime_trace(
        points, str(meta.get("units", "lbs_co2_per_mwh")), str(meta.get("signal_type", "co2_moer")), name,
        assumed_units="units" not in meta,
    )  # fmt: skip


def _watttime_trace(points: list[tuple[datetime, float]], units: str, signal: str, name: str, *, assumed_units: bool) -> Imported:
    if units != "lbs_co2_per_mwh":
        raise CarbonError(f"units of the WattTime file is {units!r}, but lbs_co2_per_mwh is needed")
    kinds = {"co2_moer": GridKind("marginal", "combustion"), "co2_aoer": GridKind("average", "combustion")}
    if signal not in kinds:
        raise unknown("signal_type", signal, kinds)
    times = [when for when, _ in points]
    grams = [value * GRAMS_PER_POUND / 1000.0 for _, value in points]
    start, hours = _hourly(times, grams, _step(times))
    trace = Trace(f"watttime:{name}", start, hours, kinds[signal], f"WattTime {signal}", "proprietary: do not redistribute")
    return Imported(trace, ("the file names no unit: read as lbs_co2_per_mwh",) if assumed_units else ())


def _time_column(header: Sequence[str]) -> int | None:
    low = [name.lower() for name in header]
    for wanted in ("utc time at end of hour", "timestamp_utc", "utc time", "datetime (utc)", "timestamp"):
        if wanted in low:
            return low.index(wanted)
    return None


def _fuel_columns(header: Sequence[str]) -> dict[int, float]:
    """Column index -> emission factor in g/kWh, for the columns that are generation by fuel."""
    names = {row["column"].lower(): float(row["gco2e_per_kwh"]) for row in table("eia_fuels")}
    return {i: names[name.lower()] for i, name in enumerate(header) if name.lower() in names}


def _eia930(header: list[str], rows: list[list[str]], zone: str | None) -> Imported:
    when, fuels = _time_column(header), _fuel_columns(header)
    if when is None or not fuels:
        raise CarbonError("grid file lacks a UTC time or fuel columns, which an EIA-930 export has")
    low = [name.lower() for name in header]
    for name in low:
        if "net generation" in name and "(mw)" not in name:
            raise CarbonError(f"grid file column {header[low.index(name)]!r} is not in MW, which an EIA-930 export is")
    authority_at = low.index("balancing authority") if "balancing authority" in low else None
    rows = _select(rows, authority_at, zone, "balancing authority")
    name = _one(rows, authority_at, "balancing authority") if authority_at is not None else (zone or "authority not named")
    times, values = [], []
    for number, row in enumerate(rows, 1):
        moment = _time(row[when], number, header[when])
        times.append(moment - timedelta(hours=1) if "end of hour" in low[when] else moment)
        total = grams = 0.0
        for column, factor in fuels.items():
            if not row[column].strip():  # EIA leaves fuels that an authority has none of empty
                continue
            power = _value(row[column], number, header[column])
            total += power
            grams += power * factor
        if total <= 0.0:
            raise CarbonError(f"grid file row {number}: no generation at all, a gap in the EIA-930 data")
        values.append(grams / total)
    start, hours = _hourly(times, values, timedelta(hours=1))
    trace = Trace(
        f"eia930:{name}",
        start,
        hours,
        GridKind("average", "lifecycle"),
        "EIA-930 generation by fuel, IPCC AR5 medians",
        "US public domain",
        "generation-based (no imports)",
    )
    return Imported(trace, ())
