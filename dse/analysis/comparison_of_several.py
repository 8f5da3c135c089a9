"""Three runs and more on one front: what was asked differently, how much of the front of all is each one's, and who dominates whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.analysis.comparison import common_objectives, objective_rows, setting_differences, volumes
from dse.errors import UsageError
from dse.fronts.pareto import dominated_by
from dse.problem.objectives import Objective
from dse.storage.run_folder import distinct

if TYPE_CHECKING:
    from dse.storage.run_folder import RunRecord

MOST = 26
"""Runs that are compared at a time: each has a letter."""


@dataclass(frozen=True)
class OneOf:
    """One of the runs.

    Attributes:
        path, designs: the run and how many designs its front has; of designs that are equal in its objectives one counts.
        hypervolume: dominated volume over that of all fronts together; None where it was not computed.
        on_merged_front: designs (their numbers) that no design of any run dominates.
        dominated_by: for each run, in their order, how many designs of this one a design of that run dominates.
        best: for each objective the best value.
    """

    path: str
    designs: int
    hypervolume: float | None
    on_merged_front: tuple[int, ...]
    dominated_by: tuple[int, ...]
    best: Mapping[str, float]


@dataclass(frozen=True)
class ComparisonOfSeveral:
    """The answer of :func:`compare_several`: ``settings`` that differ, {name: one value a run}, and the runs in the order given.

    ``not_comparable``: objectives that the runs count on different grounds, {metric: why}; no verdict is made of them.
    """

    objectives: tuple[Objective, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, tuple[Any, ...]]
    runs: tuple[OneOf, ...]
    not_comparable: Mapping[str, str]


def compare_several(runs: Sequence[RunRecord]) -> ComparisonOfSeveral:
    """Compare the fronts of runs by the objectives that all have.

    Raises UsageError where they have no comparable objective in common, ask for opposite directions of one, or are more than `MOST`.
    """
    if not 2 <= len(runs) <= MOST:
        raise UsageError(f"runs to compare are {len(runs)}; from 2 to {MOST} are compared at a time")
    objectives, notes, left_out = common_objectives(runs)
    values = [objective_rows(run, objectives) for run in runs]
    shares = volumes(values, notes)
    beaten = [[dominated_by(mine, theirs) >= 0 for theirs in values] for mine in values]
    found = []
    for run, rows, share, by in zip(runs, values, shares, beaten, strict=True):
        numbers = [int(design["design"]) for design in distinct(run.designs)]
        free = ~np.logical_or.reduce(by)
        found.append(
            OneOf(
                path=str(run.path),
                designs=len(numbers),
                hypervolume=share,
                on_merged_front=tuple(number for number, stays in zip(numbers, free.tolist(), strict=True) if stays),
                dominated_by=tuple(int(np.count_nonzero(of)) for of in by),
                best={o.metric: float(o.sign * rows[:, i].min()) for i, o in enumerate(objectives)},
            )
        )
    return ComparisonOfSeveral(objectives, tuple(notes), setting_differences(runs), tuple(found), left_out)
