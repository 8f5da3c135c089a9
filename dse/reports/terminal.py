"""What a terminal shows of a search: its progress on stderr, and the front as a table that fits the width.

``NO_COLOR`` (https://no-color.org) is respected, names from files cannot send control characters to the terminal, and
what its encoding cannot show is written in ASCII. Nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from dse.storage.run_folder import RunRecord

LOG_INTERVAL_S = 5.0
# Where output goes to a file or a pipe there is no width to fit; this one fits a page.
_DEFAULT_WIDTH = 100
_GAP = "  "
# Metrics shown after objectives and knobs, as far as the width allows.
_EXTRA_METRICS = ("quality", "total_kgco2e", "latency_s", "energy_j", "area_mm2")
_ASCII = str.maketrans({"₂": "2", "µ": "u", "²": "2", "±": "+-", "–": "-", "─": "-", "×": "x", "…": "...", "≤": "<=", "≥": ">="})
_STAGES = {"mappings": "Mappings", "designs": "Designs"}


def front_table(run: RunRecord, limit: int = 20, *, width: int | None = None, color: bool | None = None) -> str:
    """The front as text: one design a line, objectives first, then knobs, then what else fits; of equal designs the first stands for all.

    More than ``limit`` designs are thinned evenly along the front (the best of each objective stays) and the last line
    says so. ``width`` and ``color`` default to what stdout can show. Knobs that all designs share stand below the table.
    """
    # Start-up: a table is of a run, whose modules are there by then; progress is shown before they are.
    from dse.problem.objectives import asks_for_quality
    from dse.reports.data import thinned
    from dse.reports.units import as_asked, design_units, knob_names
    from dse.storage.run_folder import distinct, equals

    if not run.designs:
        return "The front is empty."
    width, run = width or stdout_width(), as_asked(run)
    more = equals(run.designs)
    once = replace(run, designs=distinct(run.designs))
    shown = [once.designs[index] for index in thinned(once, max(1, limit))]
    units = design_units(run)
    varying = [name for name in knob_names(run.designs) if len({str(d["knobs"].get(name)) for d in run.designs}) > 1]
    objectives = [objective.metric for objective in run.problem.objectives]
    labels = [f"{d['design']} (+{more[d['design']]} equal)" if more.get(d["design"]) else str(d["design"]) for d in shown]
    columns = [_Column("design", "", labels, left=bool(more))]
    columns += [_metric_column(name, units[name], shown) for name in objectives if name in units]
    asked = run.problem.kind or asks_for_quality(run.problem.objectives, run.problem.constraints)
    if asked and any(design.get("quality_support") for design in shown):
        columns.append(_Column("support", "", [str(design.get("quality_support") or "–") for design in shown], left=True))
    needed = len(columns)
    columns += [_Column(name, "", [str(design["knobs"].get(name, "–")) for design in shown]) for name in varying]
    columns += [_metric_column(name, units[name], shown) for name in _EXTRA_METRICS if name in units and name not in objectives]
    kept = _fitting(columns, needed, width)
    lines = _table_lines(kept, _wants_color(sys.stdout) if color is None else color)
    if more:
        lines.append("(+N equal): N further designs with the same value of every objective; pareto.csv has them")
    lines += _footnotes(once, shown, [column.title for column in columns if column not in kept], varying, ties=bool(more))
    return for_stdout("\n".join(_wrapped(lines, width)))


class _Column:
    """A column: two lines of head and its cells, printable."""

    def __init__(self, title: str, unit: str, cells: list[str], *, left: bool = False) -> None:
        self.title, self.unit = printable(title), printable(unit)
        self.cells = [printable(cell) for cell in cells]
        self.width = max(map(len, [self.title, self.unit, *self.cells]))
        self.left = left

    def line(self, cell: str) -> str:
        return cell.ljust(self.width) if self.left else cell.rjust(self.width)


def _metric_column(name: str, unit: Any, designs: list[dict[str, Any]]) -> _Column:
    # Start-up: a table is of a run, whose modules are there by then; progress is shown before they are.
    from dse.reports.units import column_texts

    cells = column_texts((design["metrics"].get(name) for design in designs), unit.factor)
    label = unit.label
    if name == "quality":
        errors = [design["metrics"].get("quality_se") for design in designs]
        cells = [cell if not error else f"{cell} ± {error:.2g}" for cell, error in zip(cells, errors, strict=True)]
        # The whole label ("MNLI-matched accuracy, surrogate") would take a third of a narrow terminal.
        known = {design["quality_support"] for design in designs} & {"measured", "scripted", "table", "trace"}
        return _Column("quality", min(known, default="[%] surrogate"), cells)
    return _Column(label, f"[{unit.unit}]" if unit.unit else "", cells)


def _fitting(columns: list[_Column], needed: int, width: int) -> list[_Column]:
    """The first ``needed`` columns and as many of the others, in order, as fit."""
    kept, used = [], -len(_GAP)
    for place, column in enumerate(columns):
        used += len(_GAP) + column.width
        if place >= needed and used > width:
            break
        kept.append(column)
    return kept


def _table_lines(columns: list[_Column], color: bool) -> list[str]:
    bold, plain = ("\x1b[1m", "\x1b[0m") if color else ("", "")
    heads = [_GAP.join(column.line(column.title) for column in columns)]
    if any(column.unit for column in columns):
        heads.append(_GAP.join(column.line(column.unit) for column in columns))
    rule = _GAP.join("─" * column.width for column in columns)
    rows = [_GAP.join(column.line(column.cells[i]) for column in columns).rstrip() for i in range(len(columns[0].cells))]
    return [*(f"{bold}{head.rstrip()}{plain}" for head in heads), rule, *rows]


def _footnotes(run: RunRecord, shown: list[dict[str, Any]], left_out: list[str], varying: list[str], *, ties: bool) -> list[str]:
    # Start-up: a table is of a run, whose modules are there by then; progress is shown before they are.
    from dse.reports.units import knob_names, quality_label

    notes = []
    if any("quality" in design["metrics"] for design in shown):
        known = [bool(design["metrics"].get("quality_se")) for design in shown]
        pooled = (run.context.get("quality_evaluator") or {}).get("errors")
        error = "± its standard error" + ("" if all(known) else " where one is known") + (f", {pooled}" if pooled else "")
        notes.append(f"quality: {quality_label(run.context)}, " + (error if any(known) else "without a standard error"))
    same = [f"{name}={run.designs[0]['knobs'][name]}" for name in knob_names(run.designs) if name not in varying]
    same += [f"{name}={value}" for name, value in (run.context.get("models_alike") or {}).items()]
    if same:
        notes.append(f"the same for all: {', '.join(same)}")
    if left_out:
        notes.append(f"not shown: {', '.join(left_out)} (a wider terminal has room; pareto.csv has all)")
    if len(shown) < len(run.designs):
        of = f"{len(run.designs):,} designs{' that differ in an objective' if ties else ''}"
        notes.append(f"{len(shown)} of {of}, evenly thinned; pareto.csv has all")
    return [printable(note) for note in notes]


def _wrapped(lines: list[str], width: int) -> list[str]:
    """Footnotes are broken at words; lines of the table fit already or cannot."""
    wrapped = []
    for line in lines:
        is_note = ": " in line or "thinned" in line
        wrapped += textwrap.wrap(line, width, subsequent_indent="  ") if is_note and len(line) > width else [line]
    return wrapped


def printable(text: str) -> str:
    """``text`` with every character that is not printable written as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def for_stdout(text: str) -> str:
    """``text`` as it is, or in ASCII where stdout's encoding has no sign for it."""
    return text if _can_encode(sys.stdout, text) else text.translate(_ASCII).encode("ascii", "replace").decode()


def stdout_width() -> int:
    """Columns of the terminal; those of a page where there is none."""
    return shutil.get_terminal_size((_DEFAULT_WIDTH, 24)).columns


def _wants_color(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


class ProgressReporter:
    """Tells on stderr how a search goes: a bar with the time left on a terminal, else a line every few seconds.

    Use it as a context manager and give :meth:`update` as the ``say`` of :func:`dse.api.search`. Threads may call it.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        interval_s: float = LOG_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stderr
        self._interval_s = interval_s
        self._clock = clock
        self._lock = threading.Lock()
        self._stages: dict[str, _Stage] = {}
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last_log = 0.0

    def __enter__(self) -> ProgressReporter:
        self._last_log = self._clock()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Stage ``stage`` stands at ``done`` of ``total``; ``note`` says what is best so far."""
        with self._lock:
            now = self._clock()
            known = self._stages.setdefault(stage, _Stage(now, done))
            if self._stream.isatty():
                self._show(stage, done, total, note)
                return
            finished = total > 0 and done >= total
            # A stage that ends before its first line was due needs none; one that was told of gets its end told.
            if now - self._last_log < self._interval_s and not (finished and known.told and not known.ended):
                return
            if known.ended:
                return
            known.told, known.ended = True, finished
            self._last_log = now
            print(_log_line(stage, done, total, note, known.time_left(now, done, total)), file=self._stream, flush=True)

    __call__ = update

    def _show(self, stage: str, done: int, total: int, note: str) -> None:
        if self._bar is None:
            self._bar = _rich_progress(self._stream)
            self._bar.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(_STAGES.get(stage, printable(stage)), total=None, note="")
        self._bar.update(self._tasks[stage], completed=done, total=total or None, note=printable(note))


class _Stage:
    """When a stage was first told of and how far it was then (a resumed search does not begin at 0)."""

    def __init__(self, started: float, done: int) -> None:
        self.started, self.first = started, done
        self.told = self.ended = False

    def time_left(self, now: float, done: int, total: int) -> float | None:
        """Seconds to go at the mean speed so far, or None while there is none."""
        passed, progressed = now - self.started, done - self.first
        if passed <= 0 or progressed <= 0 or total <= 0:
            return None
        return max(0, total - done) * passed / progressed


def _log_line(stage: str, done: int, total: int, note: str, left: float | None) -> str:
    parts = [f"{_STAGES.get(stage, printable(stage))}: {done:,}" + (f" of {total:,} ({done / total:.0%})" if total else "")]
    if left is not None and done < total:
        parts.append(f"{duration_text(left)} left")
    if note:
        parts.append(printable(note))
    return ", ".join(parts)


def duration_text(seconds: float) -> str:
    """``8 s``, ``2 min 05 s``, ``3 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _rich_progress(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description:<9}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(separator=" of "),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        # A note is data, and square brackets in it are no markup.
        TextColumn("{task.fields[note]}", markup=False),
        console=Console(file=stream),
        expand=True,
    )
