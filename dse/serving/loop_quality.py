"""Quality of a loop's configurations: by the scripted model's stated rates, from a table of measured accuracies, or from a trace.

``scripted``: `workloads.reasoning.rates`. ``table:FILE.csv``: columns ``accuracy`` (0 to 1; ``accuracy_se`` if known) and any knobs,
``model`` included; a knob without a column does not matter, and between two listed numbers of the last numeric knob that varies
accuracy is interpolated over the logarithm of one more than it. ``trace:FILE.jsonl``: a loop's trace with lines of results
(`workloads.reasoning.traces`).
"""

from __future__ import annotations

import csv
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.errors import DseError, UsageError, unknown_name
from workloads.reasoning.plans import Loop, Plan
from workloads.reasoning.traces import read_results

WORDS = ("model", "kv", "level")  # columns of a table that hold no numbers
FORMS = ("scripted", "table:FILE.csv", "trace:FILE.jsonl")


@dataclass(frozen=True)
class Quality:
    """Share of problems solved (0 to 1) and its standard error."""

    solved: float
    standard_error: float = 0.0


@dataclass(frozen=True)
class Scripted:
    """The stated rates."""

    words: str = "scripted"
    tells_models: bool = False

    def of(self, plan: Plan, model: str) -> Quality | None:
        """What the rates say."""
        return Quality(plan.quality)


@dataclass(frozen=True)
class Table:
    """Measured accuracies. ``rows``: knobs and (accuracy, standard error). ``over``: the knob that is interpolated, empty for none."""

    words: str
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[Any, ...], Quality], ...]
    over: str

    @property
    def tells_models(self) -> bool:
        """Whether a column names the model."""
        return "model" in self.columns

    def of(self, plan: Plan, model: str) -> Quality | None:
        """The row of a configuration, or between two rows; None where the table does not know it."""
        wanted = {**plan.knobs, "model": model}
        found: list[tuple[float, Quality]] = []
        for key, quality in self.rows:
            row = dict(zip(self.columns, key, strict=True))
            if all(row[name] == wanted[name] for name in self.columns if name != self.over):
                found.append((float(row[self.over]) if self.over else 0.0, quality))
        if not found:
            return None
        if not self.over:
            return found[0][1]
        at, found = float(wanted[self.over]), sorted(found, key=lambda pair: pair[0])
        for value, quality in found:
            if value == at:
                return quality
        for (low, first), (high, second) in itertools.pairwise(found):
            if low < at < high:
                # log(1 + x): a knob may start at 0.
                share = (math.log1p(at) - math.log1p(low)) / (math.log1p(high) - math.log1p(low))
                error = math.hypot((1 - share) * first.standard_error, share * second.standard_error)
                return Quality((1 - share) * first.solved + share * second.solved, error)
        return None


@dataclass(frozen=True)
class Trace:
    """Shares solved after 0, 1, ... corrections (or rounds) of the loops that a trace holds."""

    words: str
    knob: str
    first: int
    solved: tuple[Quality, ...]
    tells_models: bool = False

    def of(self, plan: Plan, model: str) -> Quality | None:
        """The share after so many corrections or rounds; None beyond those of the trace (samples, agents and votes are the trace's own)."""
        at = int(plan.knobs[self.knob]) - self.first if self.knob else len(self.solved) - 1
        return self.solved[at] if 0 <= at < len(self.solved) else None


QualitySource = Scripted | Table | Trace


def source_of(words: str, loop: Loop) -> QualitySource:
    """The source that ``words`` name; an error says what is allowed, with the line of a file."""
    kind, _, rest = words.partition(":")
    if words == "scripted":
        return Scripted()
    if kind == "table" and rest:
        return _table(words, Path(rest), loop)
    if kind == "trace" and rest:
        return _trace(words, Path(rest), loop)
    raise UsageError(f"quality is {words!r}, must be one of {', '.join(FORMS)} for a loop; nearest is 'scripted'")


def _table(words: str, path: Path, loop: Loop) -> Table:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DseError(f"table {path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    records = list(csv.reader(lines))
    columns = [name.strip() for name in records[0]] if records else []
    if "accuracy" not in columns:
        raise DseError(f"table {path} has no column 'accuracy'; it has {', '.join(columns) or 'none'}")
    known = {*loop.knobs, "model"}
    knobs = tuple(name for name in columns if name not in ("accuracy", "accuracy_se"))
    for name in knobs:
        if name not in known:
            raise unknown_name(f"column of table {path}", name, [*known, "accuracy", "accuracy_se"])
    rows: list[tuple[tuple[Any, ...], Quality]] = []
    for number, values in enumerate(records[1:], start=2):
        if not values:
            continue
        if len(values) != len(columns):
            raise DseError(f"table {path}, line {number}: {len(values)} values, must be {len(columns)} as line 1 names")
        row = dict(zip(columns, (value.strip() for value in values), strict=True))
        key = tuple(row[name] if name in WORDS else int(_number(row[name], path, number, name)) for name in knobs)
        accuracy = _number(row["accuracy"], path, number, "accuracy")
        spread = _number(row.get("accuracy_se") or "0", path, number, "accuracy_se")
        if not 0 <= accuracy <= 1 or spread < 0:
            raise DseError(
                f"table {path}, line {number}: accuracy is {accuracy:g} and its error {spread:g}, must be from 0 to 1 and from 0"
            )
        if any(key == other for other, _ in rows):
            raise DseError(f"table {path}, line {number}: the same configuration stands twice")
        rows.append((key, Quality(accuracy, spread)))
    if not rows:
        raise DseError(f"table {path} has no row")
    numeric = [name for name in knobs if name not in (*WORDS, "train", "problems")]
    varies = [name for name in numeric if len({key[knobs.index(name)] for key, _ in rows}) > 1]
    return Table(words, knobs, tuple(rows), varies[-1] if varies else "")


def _number(text: str, path: Path, line: int, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise DseError(f"table {path}, line {line}: {name} is {text[:40]!r}, must be a number") from None
    if not math.isfinite(value):
        raise DseError(f"table {path}, line {line}: {name} is {text[:40]!r}, must be a finite number")
    return value


def _trace(words: str, path: Path, loop: Loop) -> Trace:
    results = read_results(path)
    steps = max(len(result) for result in results)
    # A loop that ended early stays as it ended.
    found = []
    for step in range(steps):
        solved = [result[min(step, len(result) - 1)] for result in results]
        share = sum(solved) / len(solved)
        found.append(Quality(share, math.sqrt(share * (1 - share) / len(solved))))
    knob = {"thought-ics": "corrections", "maca": "rounds"}.get(loop.name, "")
    return Trace(words, knob, int(loop.name == "maca"), tuple(found))
