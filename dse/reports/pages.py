"""The page of a run, whatever was searched."""

from __future__ import annotations

from typing import Any

from dse.reports import fleets, loops
from dse.reports.html import report_html


def page_of_run(run: Any) -> str:
    """The HTML of ``report.html``."""
    if run.problem.kind:
        return {"loop": loops.page_of_run, "fleet": fleets.page_of_run}[run.problem.kind](run)
    return report_html(run)
