"""Every reference comparison of the hardware models, with the error now, the recorded bound and what peers report.

`dse validate hardware` prints the table, docs/validation.md holds it, and a test fails when a figure exceeds its bound. The
reference rows ship with the package (hw_models/data/reference), so that an installed copy can show its errors too.

A module of comparisons offers ``SPECS``; `MODULES` names them.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final, Literal

from hw_models.errors import unknown_name

MODULES: Final = (
    "hw_models.validation.arrays",
    "hw_models.validation.costs",
    "hw_models.validation.devices",
    "hw_models.validation.gpu_accuracy",
    "hw_models.validation.whole_models",
    "hw_models.validation.measured_gpu",
    "hw_models.validation.networks",
    "hw_models.validation.chips",
)


@dataclass(frozen=True)
class Outcome:
    """What a comparison found: the number of reference rows and the figure, in the unit of its `Spec`."""

    rows: int
    value: float


@dataclass(frozen=True)
class Spec:
    """One comparison.

    Attributes:
        name, reference: what is compared and with what.
        unit: `rows` (rows that differ) or `%` (mean of |ours / reference - 1|, unless the name says otherwise).
        bound: the recorded figure with a margin for the platform's arithmetic; a test fails above it.
        goal: what the project set out to reach, None where nothing was set.
        peer: error that others report or show on the same rows.
        fitted_on: what our parameters were fitted on; `nothing` for closed forms and data sheets.
    """

    name: str
    reference: str
    unit: Literal["rows", "%"]
    bound: float
    goal: float | None
    peer: str
    fitted_on: str
    run: Callable[[], Outcome]


@dataclass(frozen=True)
class Comparison:
    """A `Spec` with its outcome."""

    name: str
    reference: str
    rows: int
    value: float
    unit: Literal["rows", "%"]
    bound: float
    goal: float | None
    peer: str
    fitted_on: str

    @property
    def within_bound(self) -> bool:
        """The figure is no worse than recorded."""
        return self.value <= self.bound

    @property
    def meets_goal(self) -> bool | None:
        """The goal is met; None where there is none."""
        return None if self.goal is None else self.value <= self.goal


def specs() -> tuple[Spec, ...]:
    """All comparisons, in the order of the table."""
    return tuple(spec for module in MODULES for spec in importlib.import_module(module).SPECS)


def run(names: Sequence[str] | None = None) -> list[Comparison]:
    """Run all comparisons or those called ``names``; an unknown name is an error naming the nearest."""
    known = {spec.name: spec for spec in specs()}
    for name in names or ():
        if name not in known:
            raise unknown_name("comparison", name, known)
    chosen = [known[name] for name in names] if names is not None else list(known.values())
    return [_compare(spec) for spec in chosen]


def _compare(spec: Spec) -> Comparison:
    outcome = spec.run()
    return Comparison(spec.name, spec.reference, outcome.rows, outcome.value, spec.unit, spec.bound, spec.goal, spec.peer, spec.fitted_on)


@cache
def reference_rows(name: str) -> tuple[dict[str, str], ...]:
    """Rows of ``hw_models/data/reference/<name>`` as dictionaries of strings."""
    text = (files("hw_models") / "data" / "reference" / name).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


HEADER: Final = ("comparison", "reference", "rows", "error now", "goal", "peers' own error", "fitted on")


def cells(comparison: Comparison) -> tuple[str, ...]:
    """A comparison as the texts of one line of the table."""
    goal = "" if comparison.goal is None else _figure(comparison.goal, comparison.unit)
    if comparison.meets_goal is False:
        goal += " (missed)"
    return (
        comparison.name,
        comparison.reference,
        f"{comparison.rows:,}",
        _figure(comparison.value, comparison.unit),
        goal,
        comparison.peer,
        comparison.fitted_on,
    )


PREAMBLE: Final = """\
# Validation of the hardware models

Written by `dse validate hardware --markdown`; a test holds this page to the code, and another fails when a figure gets worse
than recorded. An error is the mean of |ours / reference - 1| over the rows, unless the name says otherwise; *fitted on* says
which rows our few overheads have seen, and those rows are never part of the error beside it. Peers' errors are quoted from
their papers or come from running their tools; *in sample* marks figures on the rows that the peer was fitted to.

"""


def page(comparisons: Sequence[Comparison]) -> str:
    """The page docs/validation.md."""
    return PREAMBLE + markdown(comparisons)


def _figure(value: float, unit: str) -> str:
    if unit == "rows":
        return "exact" if value == 0 else f"{value:.0f} rows differ"
    return f"{value:.1f} %"


def markdown(comparisons: Sequence[Comparison]) -> str:
    """The table in Markdown."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    lines += ["| " + " | ".join(cells(c)) + " |" for c in comparisons]
    return "\n".join(lines) + "\n"
