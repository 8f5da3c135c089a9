"""The section of the report that says where sharing keys and values pays, and where it does not."""

from __future__ import annotations

from typing import Any

from dse.analysis.sharing import Shared, sharing
from dse.problem.wording import error_text, joined, number_text
from dse.reports import sections
from dse.reports.kept import of_run
from dse.reports.markup import Markup, tag

_LABELS = {"latency_s": "latency", "energy_j": "energy", "total_kgco2e": "total carbon"}
_VERDICTS = ("pays", "costs quality", "saves nothing")
_MEANT = (
    "It pays where it saves 1 % or more of an objective and what it loses of quality lies within two standard errors, costs quality "
    "where more is lost, and saves nothing below 1 %."
)


def shown(run: Any) -> tuple[Shared, ...]:
    """The groupings on the hardware of the recommended design."""
    number = of_run(run).design
    return () if number is None else sharing(run, number)


def section(run: Any) -> Markup | None:
    """A sentence and a table; None where no grouping was measured."""
    rows = shown(run)
    if not rows:
        return None
    number = of_run(run).design
    said = f"On the hardware of design {number}, against multi-head attention with the same merges, sharing {sentence(rows)}. {_MEANT}"
    costs = [name for name in _LABELS if all(name in row.saved for row in rows)]
    body = [
        (
            row.grouping + (f", {row.merges:,} merged tokens" if row.merges else ""),
            f"{number_text(round(row.quality, 1))} ± {error_text(row.quality_se)}",
            *(_percent(row.saved[name]) for name in costs),
            row.verdict,
        )
        for row in rows
    ]
    head = ("Grouping", "Quality [%]", *(f"Saved {_LABELS[name]}" for name in costs), "Sharing")
    numeric = tuple(range(1, 2 + len(costs)))
    return sections.section(
        "sharing", "Where sharing pays", tag("p", said), sections.table(head, body, caption="Groupings", numeric=numeric)
    )


def sentence(rows: tuple[Shared, ...]) -> str:
    """With which groupings sharing pays, costs quality or saves nothing."""
    by_verdict = {verdict: [row for row in rows if row.verdict == verdict] for verdict in _VERDICTS}
    parts = []
    for verdict, own in by_verdict.items():
        if own:
            names = joined([row.grouping + (f" of {row.merges:,} merged tokens" if row.merges else "") for row in own])
            parts.append(f"{verdict} with {names}")
    return "; ".join(parts)


def _percent(share: float) -> str:
    return f"{number_text(round(100 * share, 1))} %"
