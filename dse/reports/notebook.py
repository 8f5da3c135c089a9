"""What a notebook shows: the progress of a search, and a study as a small card."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from dse.problem.wording import plural
from dse.reports.kept import of_run
from dse.reports.markup import Markup, tag
from dse.reports.terminal import ProgressReporter
from dse.reports.units import design_units

Say = Callable[[str, int, int, str], None]
_INTERVAL_S = 0.2
_STAGES = {"mappings": "Mappings", "designs": "Designs", "trials": "Trials"}


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this process; IPython is never imported for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def told(say: Say | None, progress: bool | None) -> Iterator[Say | None]:
    """Whom a search tells how it goes: ``say``, or a bar where ``progress`` asks for one (None: in notebooks)."""
    if say is not None:
        yield say
    elif progress or (progress is None and in_notebook()):
        with NotebookProgress() if in_notebook() else ProgressReporter() as reporter:
            yield reporter.update
    else:
        with nullcontext():
            yield None


class NotebookProgress:
    """A bar below the cell, taken away when the search ends; its text stands in the notebook only while it runs."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last = 0.0

    def __enter__(self) -> NotebookProgress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._handle is not None:
            self._handle.update(_Html(Markup("")))

    def update(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Stage ``stage`` stands at ``done`` of ``total``."""
        now = time.monotonic()
        if self._handle is not None and now - self._last < _INTERVAL_S and done < total:
            return
        self._last = now
        bar = tag("progress", value=done, max=max(total, 1), style="width:16em;vertical-align:middle")
        shown = _Html(tag("div", f"{_STAGES.get(stage, stage)} {done:,} of {total:,} ", bar, f" {note}"))
        if self._handle is None:
            from IPython.display import display

            self._handle = display(shown, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(shown)


class _Html:
    """Something that a notebook shows as HTML."""

    def __init__(self, markup: Markup) -> None:
        self._markup = markup

    def _repr_html_(self) -> str:
        return str(self._markup)


def card_text(run: Any) -> str:
    """A study in a few lines of text."""
    lines = [
        f"{run.problem.workload} on {run.problem.hardware}: {plural(len(run.designs), 'design')} on the front of {run.summary.points:,}"
    ]
    lines[0] += "".join(f", {line}" for line in _residency(run))
    lines.append(f"  {of_run(run).sentence}")
    lines += [f"  {line}" for line in _trials(run)]
    lines.append(f"  {run.path}/: study.db, pareto.csv, report.html, designs/")
    return "\n".join(lines)


def _trials(run: Any) -> list[str]:
    """How many trials a search of trials made of how many, and why it ended."""
    strategy = run.context.get("strategy")
    if not isinstance(strategy, Mapping) or "trials" not in strategy:
        return []
    of = f" of {strategy['asked']:,}" if "asked" in strategy else ""
    further = f" + {plural(strategy['confirmations'], 'confirmation')}" if strategy.get("confirmations") else ""
    return [f"{strategy['trials']:,}{of} trials{further} of {strategy['name']}, ended because {str(strategy['stopped']).rstrip('.')}"]


def _residency(run: Any) -> list[str]:
    """What its designs keep on chip, where a search is of designs of an accelerator."""
    return [] if run.problem.kind else [f"residency {run.problem.residency}"]


def card_html(run: Any) -> Markup:
    """A study as a card: what to build, the best of each objective, where the files are."""
    found, units = of_run(run), design_units(run)
    numbers = {design["design"]: design for design in run.designs}
    rows = [("recommended", found.design, found.phrase)] if found.design is not None else []
    rows += [(f"{'highest' if e.direction == 'max' else 'lowest'} {units[e.metric].label}", e.design, e.phrase) for e in found.extremes]
    objectives = [o.metric for o in run.problem.objectives if o.metric in units]
    body = [
        tag("tr", tag("td", label), tag("td", str(number)), tag("td", phrase),
            [tag("td", units[name].text(numbers[number]["metrics"].get(name))) for name in objectives])
        for label, number, phrase in rows
    ]  # fmt: skip
    return tag(
        "div",
        tag("div", tag("strong", found.sentence)),
        tag(
            "table",
            tag("thead", tag("tr", [tag("th", head) for head in ("", "design", "", *(units[name].label for name in objectives))])),
            tag("tbody", body),
        ),
        tag("div", f"{run.problem.workload} on {run.problem.hardware}: {plural(len(run.designs), 'design')} on the front of "
            f"{run.summary.points:,}, {run.summary.feasible:,} feasible. ", *(f"{line}. " for line in (*_trials(run), *_residency(run))),
            tag("code", f"{run.path}/report.html")),
        style="border:1px solid #8884;border-radius:8px;padding:10px 14px;max-width:60em",
    )  # fmt: skip
