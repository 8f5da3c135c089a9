"""What a strategy is given: a space, what is known of its designs exactly, and what only an evaluation tells.

Two views of one problem have this form. In the *nested* view a trial is a model, and ``inner`` knows its exact hardware
front; in the *flat* view a trial is a whole design. Every ask/tell strategy works on either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, UsageError
from dse.evaluation.feasibility import meets
from dse.fronts.pareto import hypervolume
from dse.moved import warn_renamed
from dse.problem.objectives import Constraint, Objective
from dse.quality.measured import Evaluator, Measured
from dse.spaces.parameters import Columns, Space, Value
from dse.storage.trial import Trial

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Spaces up to this size are listed, so that what is left of them is known exactly.
LIST_LIMIT = 250_000


@dataclass(frozen=True)
class Inner:
    """The exact hardware fronts of every listed design of a nested task, solved once.

    ``fronts[i]`` (k, c) holds the non-dominated cost objectives (minimised) of row i of ``Task.rows``; ``choices[i]`` (k,)
    the hardware point of each. A row without feasible hardware has k = 0.
    """

    objectives: tuple[str, ...]
    fronts: list[FloatArray]
    choices: list[IntArray]


@dataclass(frozen=True, eq=False)
class Task:
    """One view of a search problem.

    Attributes:
        space: what a trial's parameters are drawn from.
        objectives: what is optimised; each metric is known, inner or measured.
        evaluator: gives the measured metrics; None where everything is known.
        known: columns of values -> exactly known metrics, vectorised.
        constraints: bounds on metrics. On known ones they are exact filters; on measured ones they show in the outcome.
        table: (n, d) index rows to which the space is limited (models that exist), or None for all.
        inner: exact hardware fronts (nested view), one a row of the listed space.
        reference: point (objectives,) that bounds the hypervolume, minimised; None: strategies infer one from what they find, and
            :meth:`hypervolume` has to be given one, as two figures compare by the same alone.
        relaxed: ``known`` as a differentiable function of continuous values (torch tensors in and out), for amoo.
    """

    name: str
    space: Space
    objectives: tuple[Objective, ...]
    evaluator: Evaluator | None = None
    known: Callable[[Columns], dict[str, FloatArray]] | None = None
    known_metrics: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    table: IntArray | None = None
    inner: Inner | None = None
    reference: FloatArray | None = None
    relaxed: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        given = set(self.known_metrics) | set(self.measured) | set(self.inner.objectives if self.inner else ())
        for objective in self.objectives:
            if objective.metric not in given:
                raise UsageError(
                    f"objective {objective} of task {self.name} is neither known nor measured; there are {', '.join(sorted(given))}"
                )
        if self.inner is not None and len(self.inner.fronts) != len(self._listed):
            raise DseError(f"task {self.name} has {len(self.inner.fronts)} inner fronts for {len(self._listed)} listed designs")

    @property
    def measured(self) -> tuple[str, ...]:
        """Metrics that only the evaluator gives."""
        return self.evaluator.metrics if self.evaluator else ()

    @property
    def measured_objectives(self) -> tuple[Objective, ...]:
        """Objectives that only the evaluator gives."""
        return tuple(o for o in self.objectives if o.metric in self.measured)

    @property
    def learnt(self) -> tuple[str, ...]:
        """The old name of :attr:`measured`."""
        warn_renamed("Task.learnt", "Task.measured")
        return self.measured

    @property
    def learnt_objectives(self) -> tuple[Objective, ...]:
        """The old name of :attr:`measured_objectives`."""
        warn_renamed("Task.learnt_objectives", "Task.measured_objectives")
        return self.measured_objectives

    @property
    def listable(self) -> bool:
        """Whether all designs can be listed."""
        return self.table is not None or self.space.size <= LIST_LIMIT

    @cached_property
    def _listed(self) -> IntArray:
        if self.table is not None:
            return np.asarray(self.table, dtype=np.int64)
        if not self.listable:
            raise UsageError(f"space {self.space.name} of {self.space.size:,} designs is too large to list")
        return self.space.unrank(np.arange(self.space.size))

    @cached_property
    def rows(self) -> IntArray:
        """All designs of a listable space that may be proposed, (n, d), in canonical order."""
        return self._listed[self._listed_allowed]

    @cached_property
    def row_numbers(self) -> IntArray:
        """For each of ``rows`` its position in the listed space: the index into ``inner``."""
        return np.flatnonzero(self._listed_allowed).astype(np.int64)

    @cached_property
    def _listed_allowed(self) -> BoolArray:
        keep = self.space.feasible(self._listed) & self._meets_known(self._listed)
        if self.inner is not None:
            keep &= np.array([len(front) > 0 for front in self.inner.fronts], dtype=bool)
        return keep

    @cached_property
    def _positions(self) -> dict[tuple[int, ...], int]:
        return {tuple(row): i for i, row in enumerate(self._listed.tolist())}

    @cached_property
    def _row_memory(self) -> dict[tuple[tuple[str, Value], ...], tuple[int, ...]]:
        return {}

    def row(self, parameters: Mapping[str, Value]) -> tuple[int, ...]:
        """Index row of a design; remembered, for a strategy asks for those of all trials again and again."""
        key = tuple(parameters.items())
        if key not in self._row_memory:
            self._row_memory[key] = tuple(self.space.index(parameters).tolist())
        return self._row_memory[key]

    @cached_property
    def _taken(self) -> tuple[list[Mapping[str, Value]], set[tuple[int, ...]]]:
        return [], set()

    def taken(self, history: Sequence[Trial]) -> set[tuple[int, ...]]:
        """Index rows of the trials' designs; what the last call has seen is not computed again. The caller must not change the set."""
        seen, rows = self._taken
        same = len(history) >= len(seen) and all(
            before is trial.parameters or before == trial.parameters for before, trial in zip(seen, history, strict=False)
        )
        if not same:
            seen.clear()
            rows.clear()
        for trial in history[len(seen) :]:
            rows.add(self.row(trial.parameters))
        seen[:] = [trial.parameters for trial in history]
        return rows

    @cached_property
    def row_set(self) -> dict[tuple[int, ...], int]:
        """Position in ``rows`` of each of them."""
        return {tuple(row): i for i, row in enumerate(self.rows.tolist())}

    def position(self, parameters: Mapping[str, Value]) -> int:
        """Position of a design in the listed space."""
        found = self._positions.get(tuple(self.space.index(parameters).tolist()))
        if found is None:
            raise UsageError(f"design {dict(parameters)} is not in space {self.space.name}")
        return found

    def allowed(self, indices: IntArray) -> BoolArray:
        """Which designs may be proposed: everything that is known beforehand holds."""
        indices = np.atleast_2d(indices)
        if self.table is not None or self.inner is not None:
            positions = [self._positions.get(tuple(row), -1) for row in indices.tolist()]
            return np.array([p >= 0 and bool(self._listed_allowed[p]) for p in positions], dtype=bool)
        keep = self.space.feasible(indices)
        if keep.any():
            keep[keep] = self._meets_known(indices[keep])
        return keep

    def _meets_known(self, indices: IntArray) -> BoolArray:
        keep = np.ones(len(indices), dtype=bool)
        wanted = [c for c in self.constraints if c.metric in self.known_metrics]
        if wanted and self.known is not None:
            metrics = self.known(self.space.columns(indices))
            for constraint in wanted:
                keep &= meets(constraint, metrics[constraint.metric])
        return keep

    def measure_known(self, parameters: Mapping[str, Value]) -> dict[str, Measured]:
        """The exactly known metrics of one design."""
        if self.known is None:
            return {}
        metrics = self.known(self.space.columns(self.space.index(parameters)[None, :]))
        return {name: Measured(float(np.asarray(metrics[name]).reshape(-1)[0])) for name in self.known_metrics}

    def feasible(self, trial: Trial) -> bool:
        """Whether a completed trial meets the constraints on its measured metrics."""
        return all(bool(meets(c, np.float64(trial.metrics[c.metric].mean))) for c in self.constraints if c.metric in trial.metrics)

    def points(self, trials: Sequence[Trial]) -> tuple[FloatArray, IntArray, IntArray]:
        """Objective values (n, m), minimised, of the completed feasible trials; the trial of each; its hardware or -1.

        In the nested view a trial gives one point a member of its inner front.
        """
        values: list[FloatArray] = []
        owners: list[int] = []
        choices: list[int] = []
        for i, trial in enumerate(trials):
            if not trial.done or not self.feasible(trial):
                continue
            if self.inner is None:
                values.append(np.array([[o.sign * trial.metrics[o.metric].mean for o in self.objectives]]))
                owners.append(i)
                choices.append(-1)
                continue
            position = self.position(trial.parameters)
            front, chosen = self.inner.fronts[position], self.inner.choices[position]
            columns = [
                front[:, self.inner.objectives.index(o.metric)]
                if o.metric in self.inner.objectives
                else np.full(len(front), o.sign * trial.metrics[o.metric].mean)
                for o in self.objectives
            ]
            values.append(np.stack(columns, axis=1))
            owners += [i] * len(front)
            choices += chosen.tolist()
        stacked = np.concatenate(values) if values else np.zeros((0, len(self.objectives)))
        return stacked, np.array(owners, dtype=np.int64), np.array(choices, dtype=np.int64)

    def hypervolume(self, trials: Sequence[Trial], reference: FloatArray | None = None) -> float:
        """Hypervolume of the completed feasible trials; ``reference`` (objectives,), minimised, where the task has none."""
        point = reference if reference is not None else self.reference
        if point is None:
            raise UsageError(f"task {self.name} has no reference point; give one")
        return hypervolume(self.points(trials)[0], point)
