"""A finished search as users meet it: the run of a folder, its front as a frame, its picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dse.analysis.recommendation import Recommendation
from dse.analysis.sureness import recommend_surely
from dse.storage import run_folder
from dse.storage.run_folder import RunRecord

if TYPE_CHECKING:
    import plotly.graph_objects as go


class Run(RunRecord):
    """A finished search."""

    @staticmethod
    def of(record: RunRecord) -> Run:
        """The run of a record."""
        return Run(**vars(record))

    def recommend(self) -> Recommendation:
        """What to build, the runner-up, how sure that is and what would change it; printed, it reads as sentences."""
        known = self.context.get("recommendation")
        return Recommendation.from_dict(known) if isinstance(known, Mapping) else recommend_surely(self)

    def plot(self) -> go.Figure:
        """An interactive picture of the front."""
        from dse.reports.figures import front_figure

        return front_figure(self)


def load(path: str | Path) -> Run:
    """Read a finished run from its folder (or its study file); an unfinished one is an error that says how to go on."""
    return Run.of(run_folder.load(path))
