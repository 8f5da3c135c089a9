"""The two views of a problem of :mod:`dse.evaluation.evaluation`: models with their exact hardware fronts, and whole designs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.evaluation.evaluation import Evaluation
from dse.evaluation.feasibility import feasible
from dse.fronts.pareto import Front, rounded
from dse.problem.metrics import of_hardware
from dse.quality.measured import Evaluator, Measured, design_key
from dse.spaces import parameters as spaces
from dse.spaces.parameters import Columns, Space, Value
from dse.storage.trial import Trial
from dse.strategies.task import Inner, Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_BLOCK_POINTS = 1 << 18


def model_columns(evaluation: Evaluation) -> Mapping[str, npt.NDArray[Any]]:
    """The knobs of the models that exist, a column each; a workload without knobs is one model, told apart by its name."""
    return evaluation.space.models or {"model": np.array([evaluation.family.name])}


def model_space(evaluation: Evaluation) -> tuple[Space, IntArray]:
    """The space of the model knobs, and the index rows of the models that exist, in the evaluation's order."""
    columns = model_columns(evaluation)
    space = spaces.from_columns(evaluation.problem.workload, plain(columns), "model")
    return space, index_rows(space, columns)


def plain(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, list[Value]]:
    """Columns as lists of plain values."""
    return {name: values.tolist() for name, values in columns.items()}


def index_rows(space: Space, columns: Mapping[str, npt.NDArray[Any]]) -> IntArray:
    """The index rows (n, d) of designs given as columns of values."""
    found = []
    for parameter in space.parameters:
        if parameter.numeric:
            found.append(np.searchsorted(parameter.column, columns[parameter.name]))
        else:  # strings stand in the order in which they were given
            found.append(np.array([parameter.values.index(value) for value in columns[parameter.name].tolist()]))
    return np.stack(found, axis=1).astype(np.int64)


def nested_task(
    evaluation: Evaluation,
    evaluator: Evaluator,
    *,
    reference: FloatArray | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Task:
    """Models as trials. The exact hardware front of every model is solved here, once (``on_progress(models, all)``)."""
    problem = evaluation.problem
    space, table = model_space(evaluation)
    measured = set(evaluator.metrics)
    costs = [o for o in problem.objectives if o.metric not in measured]
    if not any(o.metric in measured for o in problem.objectives):
        raise UsageError(
            f"objectives {', '.join(map(str, problem.objectives))} hold nothing that an evaluation tells "
            f"({', '.join(measured)}); use exhaustive"
        )
    constraints = tuple(c for c in problem.constraints if c.metric not in measured)
    has: Callable[..., bool] | None = getattr(evaluator, "has", None)

    def measurable(model: int) -> bool:
        """Whether the evaluator can answer for a model: a table for those of its rows alone."""
        return has is None or has({name: values[model].item() for name, values in model_columns(evaluation).items()})

    fronts: list[FloatArray] = []
    choices: list[IntArray] = []
    models, hardware = evaluation.space.model_count, evaluation.space.hardware_count
    step = max(1, _BLOCK_POINTS // max(1, hardware))
    for first in range(0, models, step):
        block = evaluation.block(first, min(first + step, models))
        found, _ = feasible(block, constraints)
        values = [o.sign * np.broadcast_to(block.metric(o.metric), block.shape) for o in costs]
        for row in range(block.shape[0]):
            if not measurable(first + row):
                found[row] = False
            front, chosen = _front(np.flatnonzero(found[row]), [value[row] for value in values])
            fronts.append(front)
            choices.append(chosen)
        if on_progress:
            on_progress(min(first + step, models), models)
    return Task(
        name=f"{problem.workload} on {problem.hardware}",
        space=space,
        objectives=problem.objectives,
        evaluator=evaluator,
        constraints=tuple(c for c in problem.constraints if c.metric in measured),
        table=table,
        inner=Inner(tuple(o.metric for o in costs), fronts, choices),
        reference=reference,
    )


def _front(points: IntArray, values: list[FloatArray]) -> tuple[FloatArray, IntArray]:
    """Non-dominated hardware points and their costs (k, c); ties, which nine digits tell as on every front, are kept."""
    if not len(points) or not values:
        return np.zeros((min(len(points), 1), len(values))), points[:1].astype(np.int64)
    if len(values) == 1:
        cost = rounded(values[0][points])
        best = points[cost == cost.min()]
        return values[0][best][:, None], best.astype(np.int64)
    stacked = np.stack([value[points] for value in values], axis=1)
    front = Front.of(np.zeros(len(points), dtype=np.int64), points.astype(np.int64), stacked)
    return front.values, front.hardware


def nested_front(task: Task, trials: list[Trial], *, levels: Mapping[int, float] | None = None) -> Front:
    """The front of the evaluated models on their exact hardware, with the evaluation's indices of both.

    ``levels`` replaces the measured quality of a trial (by number), as a confirmation does.
    """
    if levels is not None:
        name = task.measured_objectives[0].metric
        trials = [
            Trial(t.number, t.parameters, t.seed, t.state, {**t.metrics, name: Measured(levels[t.number])}, t.fidelity)
            for t in trials
            if t.number in levels
        ]
    trials = _one_a_design(trials)
    values, owners, hardware = task.points(trials)
    models = np.array([task.position(trials[i].parameters) for i in owners], dtype=np.int64)
    return Front.of(models, hardware, values)


def _one_a_design(trials: list[Trial]) -> list[Trial]:
    """The last completed trial of every design at its highest fidelity."""
    kept: dict[str, Trial] = {}
    for trial in trials:
        if trial.done:
            key = design_key(trial.parameters)
            if key not in kept or trial.fidelity >= kept[key].fidelity:
                kept[key] = trial
    return list(kept.values())


@dataclass(frozen=True)
class DesignEvaluator:
    """Quality of the model from an evaluator, and every cost objective and constraint from the cost model, for one design.

    It holds the evaluation's arrays and therefore stays in its process.
    """

    evaluation: Evaluation
    inner: Evaluator
    costs: tuple[str, ...]
    positions: Mapping[tuple[Any, ...], int]
    hardware_space: Space | None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Measured metrics: the evaluator's and the costs that depend on the whole design."""
        return (*self.inner.metrics, *self.costs)

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        models = model_columns(self.evaluation)
        model = self.positions[tuple(parameters[name] for name in models)]
        hardware = self._hardware(parameters)
        block = self.evaluation.block(model, model + 1)
        if not block.mappable()[0, hardware]:
            raise UsageError(f"design {dict(parameters)} has an operation without a mapping")
        found = self.inner({name: parameters[name] for name in models}, fidelity=fidelity, seed=seed)
        for name in self.costs:
            found[name] = Measured(float(np.broadcast_to(block.metric(name), block.shape)[0, hardware]))
        return found

    def _hardware(self, parameters: Mapping[str, Value]) -> int:
        mask = np.ones(self.evaluation.space.hardware_count, dtype=bool)
        for name, values in self.evaluation.space.hardware.items():
            mask &= values == parameters[name]
        return int(np.flatnonzero(mask)[0])


def flat_task(evaluation: Evaluation, evaluator: Evaluator, *, reference: FloatArray | None = None) -> Task:
    """Whole designs as trials; costs of the whole design are measured, those of the hardware alone are known.

    This is how a tool without the structure would search. It takes full products of models only.
    """
    problem = evaluation.problem
    models, table = model_space(evaluation)
    if len(table) != models.size:
        raise UsageError(
            f"space {problem.space} holds {len(table):,} of {models.size:,} combinations of its model knobs; a flat search "
            "takes full products, use nested"
        )
    if not evaluation.space.hardware:
        raise UsageError(f"hardware {problem.hardware} is one design; use nested")
    listed = spaces.from_columns(problem.hardware, plain(evaluation.space.hardware), "hardware")
    hardware = Space(listed.name, listed.parameters, evaluation.hardware_space.constraints)
    if hardware.cardinality() != evaluation.space.hardware_count:
        raise UsageError(f"hardware {problem.hardware} is not a full product of its knobs; use nested")
    space = Space(f"{models.name} x {hardware.name}", (*models.parameters, *hardware.parameters), hardware.constraints)
    names = dict.fromkeys([o.metric for o in problem.objectives] + [c.metric for c in problem.constraints])
    measured = set(evaluator.metrics)
    known_names = of_hardware(tuple(names))  # known of any design without costing its model
    costs = tuple(name for name in names if name not in measured and name not in known_names)
    block = evaluation.block(0, 1)
    known_values = {name: np.broadcast_to(block.metric(name), block.shape)[0] for name in known_names}
    order = hardware.rank(index_rows(hardware, evaluation.space.hardware))
    by_rank = {name: np.full(hardware.size, np.nan) for name in known_values}  # of combinations that are no design nothing is known
    for name, values in known_values.items():
        by_rank[name][order] = values

    def known(columns: Columns) -> dict[str, FloatArray]:
        rank = hardware.rank(index_rows(hardware, columns))
        return {name: values[rank] for name, values in by_rank.items()}

    keys = zip(*(values.tolist() for values in model_columns(evaluation).values()), strict=True)
    positions = {tuple(key): i for i, key in enumerate(keys)}
    return Task(
        name=f"{problem.workload} x {problem.hardware}, flat",
        space=space,
        objectives=problem.objectives,
        evaluator=DesignEvaluator(evaluation, evaluator, costs, positions, hardware),
        known=known,
        known_metrics=known_names,
        constraints=problem.constraints,
        reference=reference,
    )
