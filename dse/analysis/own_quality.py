"""The quality that a study measured itself, design by design.

A study whose quality an evaluator told knows it of the designs that it measured and of no other: the surrogate of its workload is of
another task, and never stands in for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dse.quality.measured import Measured
from dse.searches.measured import trials_of_study
from dse.storage.run_folder import RunRecord

NOT_MEASURED = "not measured in this study"


@dataclass(frozen=True)
class OwnQuality:
    """Measurements of a study.

    Attributes:
        evaluator: the word of what measured. front: (knobs of the measured side, figure) of designs of the front, confirmed ones included.
        trials: (knobs, figure) of completed trials at full fidelity, in their order.
    """

    evaluator: str
    front: Sequence[tuple[Mapping[str, Any], Measured]]
    trials: Sequence[tuple[Mapping[str, Any], Measured]]

    def of(self, knobs: Mapping[str, Any]) -> Measured | None:
        """The figure of a design given by its knobs, every one of the model named; None where it was not measured."""
        # The front's figures come first: they are those that the study goes by, measured again where it confirmed them.
        for known in (self.front, self.trials):
            for own, figure in known:
                if all(knobs.get(name) == value for name, value in own.items()):
                    return figure
        return None

    def answer(self, knobs: Mapping[str, Any]) -> dict[str, Any]:
        """The entries on quality of an answer of :func:`dse.evaluation.one_design.evaluate` about a design."""
        found = self.of(knobs)
        return {
            "quality": None if found is None else found.mean,
            "quality_se": None if found is None else found.se,
            "quality_support": None if found is None else "measured",
            "quality_reason": NOT_MEASURED if found is None else None,
            "quality_label": f"quality measured by {self.evaluator}",
            "quality_surrogate": None,
        }


def own_quality(run: RunRecord) -> OwnQuality | None:
    """What a run measured; None where its quality is the surrogate's of its workload, or it has none."""
    told = run.context.get("quality_evaluator")
    if not isinstance(told, Mapping) or told["evaluator"] == "surrogate":
        return None
    names = list(told["parameters"])
    rows = [row for row in trials_of_study(run.path) if row["state"] == "complete" and row["fidelity"] >= 1.0 and "quality" in row]
    front = [
        (
            {name: d["knobs"][name] for name in names if name in d["knobs"]},
            Measured(d["metrics"]["quality"], d["metrics"].get("quality_se") or 0.0),
        )
        for d in run.designs
        if d["metrics"].get("quality") is not None
    ]
    every = {name for design in run.designs for name in design["knobs"]}
    trials = [({k: v for k, v in row.items() if k in every}, Measured(row["quality"], row.get("quality_se") or 0.0)) for row in rows]
    return OwnQuality(str(told["evaluator"]), front, trials)
