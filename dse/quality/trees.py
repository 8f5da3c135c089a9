"""Quality of extreme multi-label trees: Recall@100 that was measured on held-out documents, tree by tree; nothing is predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.quality.records import MEASURED, Quality
from workloads.errors import WorkloadError
from workloads.xmc.workload import KNOBS, measured

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MeasuredRecall:
    """Recall@100 of the measured trees of a workload [%]; see `workloads.xmc.workload`."""

    workload: str
    name = "xmc-measured"
    label = "Recall@100 [%], measured on held-out documents"
    unit = "%"
    knobs = KNOBS
    unsupported_knobs: tuple[str, ...] = ()
    standard_error_kind = "of the mean over documents"

    @property
    def standard_error(self) -> float:
        """The largest standard error of a tree's mean."""
        return float(measured(self.workload).recall_sem.max())

    def predict(self, **knobs: IntArray) -> Quality:
        """Recall of trees given by their knobs (n,)."""
        trees = measured(self.workload)
        at = trees.index(knobs)
        return Quality(trees.recall[at], trees.recall_sem[at], np.full(at.shape, MEASURED, np.int64))

    def describe_refusal(self, **knobs: int) -> str:
        """Why a tree has no measured quality, in one sentence."""
        try:
            measured(self.workload).index(knobs)
        except WorkloadError as error:
            return str(error)
        return "the tree was measured"

    def provenance(self) -> dict[str, object]:
        """What a report says of it."""
        return {
            "name": self.name,
            "label": self.label,
            "measured": True,
            "form": "the mean over 5,000 documents that the training did not see, of each tree",
            "standard_error_percent": self.standard_error,
            "standard_error_kind": self.standard_error_kind,
        }
