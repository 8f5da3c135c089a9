"""The trace of a drive: when, how fast the law allows, how many pedestrians are near, how far the nearest is; checked line by line.

| column | unit |
|---|---|
| time_s | s since any origin, rising |
| legal_limit_mps or legal_limit_kmh | m/s or km/h |
| pedestrians | number near |
| distance_m | m to the nearest; empty or inf where nobody is in sight |

A row holds from its time to the next row's; the last row holds as long as the one before it.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, nearest
from dse.operate.driving.vehicle import MAX_SPEED_MPS

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

COLUMNS = ("time_s", "legal_limit_mps", "pedestrians", "distance_m")
LIMITS = {"legal_limit_mps": 1.0, "legal_limit_kmh": 1.0 / 3.6}
MAX_BYTES = 2**28
MAX_GAP_S = 10.0
MAX_DURATION_S = 48 * 3600.0
MAX_PEDESTRIANS = 100_000
_DEFAULT_ROW_S = 1.0  # how long the only row of a trace holds


@dataclass(frozen=True)
class DriveTrace:
    """Rows of a drive; arrays of shape (rows,).

    Attributes:
        time_s: rising. legal_limit_mps, pedestrians. distance_m: inf where nobody is in sight.
        source: the file, or what generated it.
    """

    time_s: FloatArray
    legal_limit_mps: FloatArray
    pedestrians: IntArray
    distance_m: FloatArray
    source: str

    def __post_init__(self) -> None:
        sizes = {len(getattr(self, name)) for name in COLUMNS}
        if len(sizes) != 1 or not len(self.time_s):
            raise DseError(f"{self.source}: the columns of a drive need one length of at least 1, got {sorted(sizes)}")
        _check((self.time_s, self.legal_limit_mps, self.pedestrians, self.distance_m), self.source, None)

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def end_s(self) -> float:
        """When the last row ends."""
        t = self.time_s
        return float(t[-1] + (t[-1] - t[-2] if len(t) > 1 else _DEFAULT_ROW_S))

    @property
    def duration_s(self) -> float:
        """From the first row to the end of the last."""
        return self.end_s - float(self.time_s[0])


def read_trace(path: str | Path) -> DriveTrace:
    """Read a drive. Raises DseError, one sentence with the file and the line, for whatever is not one."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_BYTES:
            raise DseError(f"{file} is larger than {MAX_BYTES} bytes, which no drive may be")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DseError(f"drive {str(file)!r} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DseError(f"{file} is not a text file: byte {error.start} is no UTF-8") from error
    rows = csv.reader(text.splitlines(), strict=True)
    where = str(file)
    try:
        names, lines, values = _parse(rows, where)
    except csv.Error as error:
        raise DseError(f"{where}, line {rows.line_num}: is no CSV: {error}") from error
    scale = LIMITS[names[1]]
    columns = np.array(values).T
    time, limit, near, distance = columns[0], columns[1] * scale, columns[2], columns[3]
    _check((time, limit, near, distance), where, lines)
    return DriveTrace(time, limit, near.astype(np.int64), distance, where)


def write_trace(trace: DriveTrace, path: str | Path) -> None:
    """Write a drive as a CSV file that :func:`read_trace` reads."""
    with Path(path).open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for t, limit, near, distance in zip(*(getattr(trace, name).tolist() for name in COLUMNS), strict=True):
            writer.writerow((repr(t), repr(limit), near, "" if distance == float("inf") else repr(distance)))


def _parse(rows: Any, where: str) -> tuple[list[str], list[int], list[list[float]]]:
    header = next(rows, None)
    if not header:
        raise DseError(f"{where} is empty, must have a line of columns ({', '.join(COLUMNS)}) and rows below it")
    columns = [name.strip() for name in header]
    names = _names(columns, where)
    at = [columns.index(name) for name in names]
    lines: list[int] = []
    values: list[list[float]] = []
    for fields in rows:
        if not fields:
            continue
        line = rows.line_num
        if len(fields) != len(columns):
            raise DseError(f"{where}, line {line}: {len(fields)} values, must be {len(columns)} as line 1 names")
        values.append([_number(fields[i].strip(), names[j], where, line) for j, i in enumerate(at)])
        lines.append(line)
    if not lines:
        raise DseError(f"{where} holds no row, must hold at least one")
    return names, lines, values


def _names(columns: list[str], where: str) -> list[str]:
    """The names of the four columns as the file has them."""
    for name in columns:
        if columns.count(name) > 1 and (name in COLUMNS or name in LIMITS):
            raise DseError(f"{where}, line 1: column {name!r} stands there twice")
    limits = [name for name in LIMITS if name in columns]
    if len(limits) > 1:
        raise DseError(f"{where}, line 1: columns {limits[0]} and {limits[1]} both stand there; keep one")
    wanted = [COLUMNS[0], limits[0] if limits else COLUMNS[1], *COLUMNS[2:]]
    for name in wanted:
        if name not in columns:
            others = [c for c in columns if c not in wanted]
            close = nearest(name, others)
            also = " or 'legal_limit_kmh'" if name == COLUMNS[1] else ""
            hint = f"; {close[:40]!r} is not it: names carry their unit" if close else ""
            raise DseError(f"{where}, line 1: column {name!r}{also} is missing, columns must hold {', '.join(COLUMNS)}{hint}")
    return wanted


def _number(text: str, field: str, where: str, line: int) -> float:
    if field == COLUMNS[3] and not text:
        return float("inf")
    try:
        return float(text)
    except ValueError:
        raise DseError(f"{where}, line {line}: {field} is {text[:40]!r}, must be a number") from None


def _check(columns: Sequence[npt.NDArray[Any]], where: str, lines: Sequence[int] | None) -> None:
    """Raise for the first value that no drive has; ``lines`` of the file, or rows are counted."""

    def fail(i: int, sentence: str) -> DseError:
        place = f"line {lines[i]}" if lines is not None else f"row {i + 1}"
        return DseError(f"{where}, {place}: {sentence}")

    t, limit, near, distance = (np.asarray(column, np.float64) for column in columns)
    for i in np.flatnonzero(~np.isfinite(t))[:1]:
        raise fail(i, f"time_s is {t[i]}, must be a finite number")
    for i in np.flatnonzero(np.diff(t) <= 0)[:1]:
        word = "the same as" if t[i + 1] == t[i] else "before"
        raise fail(i + 1, f"time_s {t[i + 1]:.10g} is {word} that of the row above ({t[i]:.10g}), must rise")
    for i in np.flatnonzero(np.diff(t) > MAX_GAP_S)[:1]:
        gap = t[i + 1] - t[i]
        raise fail(i + 1, f"a gap of {gap:.6g} s to the row above, must be at most {MAX_GAP_S:g} s; is time_s in seconds?")
    if t[-1] - t[0] > MAX_DURATION_S:
        raise fail(len(t) - 1, f"the drive lasts {t[-1] - t[0]:.6g} s, must be at most {MAX_DURATION_S:g}")
    for i in np.flatnonzero(~((limit >= 0) & (limit <= MAX_SPEED_MPS)))[:1]:
        raise fail(
            i,
            f"the legal limit is {limit[i]:.6g} m/s, must be from 0 to {MAX_SPEED_MPS:g}; a column in km/h is named legal_limit_kmh",
        )
    for i in np.flatnonzero(~((near >= 0) & (near <= MAX_PEDESTRIANS) & (near == np.floor(near))))[:1]:
        raise fail(i, f"pedestrians is {near[i]:.10g}, must be a whole number from 0 to {MAX_PEDESTRIANS}")
    for i in np.flatnonzero(~(distance >= 0))[:1]:
        raise fail(i, f"distance_m is {distance[i]:.6g}, must be at least 0, or empty where nobody is in sight")
