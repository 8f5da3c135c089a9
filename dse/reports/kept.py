"""What the search kept of its recommendation, for everything that shows it."""

from __future__ import annotations

from typing import Any

from dse.analysis.recommendation import Recommendation, recommend


def of_run(run: Any) -> Recommendation:
    """The recommendation that terminal, report and JSON show: the one that the search kept, else the one of the designs alone."""
    try:
        return Recommendation.from_dict(run.context["recommendation"])
    except (KeyError, TypeError, AttributeError):  # a study of an earlier version
        return recommend(run)
