"""Exact costs of single designs of a large space, and what of such a space can be told without listing it.

A design is a model of the workload (parameter ``model``, the models in the order of their multiply-accumulates) on a hardware point.
Only the designs that are asked for are costed, grouped by hardware point and model, and each once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.evaluation.evaluation import Evaluation, build_space, load_family, load_hardware
from dse.evaluation.evaluation import Space as JointSpace
from dse.evaluation.feasibility import UNMAPPABLE
from dse.evaluation.hardware_points import make_points
from dse.evaluation.on_chip import on_chip
from dse.fronts.pareto import Front
from dse.problem.deployment import VARIABLE
from dse.problem.metrics import known_before_mapping
from dse.problem.problem import Problem, fix_knobs
from dse.quality.measured import Measured
from dse.spaces import parameters as spaces
from dse.spaces.parameters import Columns, Parameter, Space, Value
from dse.spaces.sizes import Sizes
from hw_models.costs import evaluate as cost
from hw_models.costs.unit_costs import ADDITIVE

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

MODEL = "model"
MAKEABLE = "makeable"
# Models x points of a block that is computed whole although few of its designs are asked for.
_DENSE = 200_000
# Hardware points that are listed whole to find the neighbours of a design.
_LISTED = 1_000_000


def hardware_values(problem: Problem) -> dict[str, tuple[Value, ...]]:
    """The values of every hardware and deployment knob that the problem leaves open, fixed ones with one value."""
    hardware = load_hardware(problem)
    values: dict[str, tuple[Value, ...]] = dict(hardware.knobs)
    values |= {name: tuple(VARIABLE[name](v) for v in chosen) for name, chosen in problem.vary.items() if name in VARIABLE}
    for name, value in problem.fixed.items():
        if name in values:
            fix_knobs({name: np.array(values[name])}, {name: value})  # a value that is not there is an error
            values[name] = (value,)
    return values


def one_point(problem: Problem) -> tuple[JointSpace, dict[str, tuple[Value, ...]]]:
    """The joint space with the largest value of every hardware knob alone, and all values: a large grid is never listed."""
    values = hardware_values(problem)
    largest: dict[str, Any] = {name: v[-1] if isinstance(v[0], str) else max(v) for name, v in values.items()}
    hardware = load_hardware(problem)
    hardware = hardware.with_knobs({name: [value] for name, value in largest.items() if name in hardware.knobs})
    one = replace(problem, vary={name: chosen for name, chosen in problem.vary.items() if name not in VARIABLE})
    space = build_space(one, load_family(problem), hardware)
    return replace(space, hardware={name: np.array([value]) for name, value in largest.items()}), values


def around(problem: Problem, knobs: Mapping[str, Value]) -> JointSpace:
    """The joint space of a problem for steps of one knob from a design: all of it, or of a large one the lines through the design."""
    space, values = one_point(problem)
    if math.prod(len(v) for v in values.values()) <= _LISTED:
        return build_space(problem, load_family(problem), load_hardware(problem))
    own = {name: knobs.get(name, column[0].item()) for name, column in space.hardware.items()}
    points = [own] + [{**own, name: value} for name, column in values.items() for value in column if value != own[name]]
    return replace(space, hardware={name: np.array([point[name] for point in points]) for name in own})


def sizes(problem: Problem) -> Sizes:
    """Numbers of models, of hardware points and of distinct operations of a problem."""
    space, values = one_point(problem)
    built = load_family(problem).build(**space.models, **space.settings)
    several = max(values.get("chips", (1,))) != 1
    shapes = sum(len(phase.table.distinct(parallel=several).table) for phase in built.phases)
    points = math.prod(len(v) for v in values.values())
    distinct = math.prod(len(v) for name, v in values.items() if name not in VARIABLE)
    return Sizes(space.model_count, points, shapes, distinct)


class DesignCosts:
    """Exact metrics of single designs of a problem; every design is costed once."""

    def __init__(self, problem: Problem, *, threads: int | None = None) -> None:
        self.problem, self.threads = problem, threads
        # The largest point prepares the models: several chips tell shapes apart that are one on one chip.
        space, values = one_point(problem)
        base = Evaluation(problem, space=space, threads=threads)
        for name in self.known_names:
            base.block(0, 1).metric(name)  # one that the workload lacks is told before a search begins
        order = np.argsort(base.macs, kind="stable")
        self.order: IntArray = order
        self.base = base
        model = Parameter(MODEL, tuple(range(len(order))), "model", "linear")
        roles = {name: "deployment" if name in VARIABLE else "hardware" for name in values}
        knobs = spaces.from_columns(problem.hardware, values, roles).parameters if values else ()
        self.space = Space(f"{problem.workload} x {problem.hardware}", (model, *knobs))
        self.evaluations = 0
        self._shapes = [np.unique(row) for row in base.index]
        self._seen: dict[tuple[int, ...], tuple[float, ...]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Every metric that the problem's objectives and constraints read."""
        wanted = [o.metric for o in self.problem.objectives] + [c.metric for c in self.problem.constraints]
        return tuple(dict.fromkeys(wanted))

    @property
    def known_names(self) -> tuple[str, ...]:
        """Those that are known without a mapping."""
        return tuple(name for name in self.names if name in known_before_mapping())

    @property
    def metrics(self) -> tuple[str, ...]:
        """Those that an evaluation tells."""
        return tuple(name for name in self.names if name not in known_before_mapping())

    def _hardware(self, columns: Columns) -> dict[str, npt.NDArray[Any]]:
        return {name: np.asarray(column) for name, column in columns.items() if name != MODEL}

    def _view(self, columns: Columns) -> Evaluation:
        """The base evaluation on other hardware points, without unit costs."""
        view = copy.copy(self.base)
        view.space = replace(self.base.space, hardware=self._hardware(columns))
        view.points = make_points(self.base.hardware_space, view.space.hardware, self.problem.deployment)
        return view

    def known(self, columns: Columns) -> dict[str, FloatArray]:
        """Metrics that need no mapping, and whether the device can be made (1 or 0), of designs given as columns (n,)."""
        models = self.order[np.asarray(columns[MODEL])]
        step = max(64, _DENSE * 10 // len(self.order))
        parts = []
        for first in range(0, len(models), step):
            here = slice(first, first + step)
            parts.append(self._known({name: np.asarray(column)[here] for name, column in columns.items()}, models[here]))
        return {name: np.concatenate([part[name] for part in parts]) for name in (*self.known_names, MAKEABLE)}

    def _known(self, columns: Columns, models: IntArray) -> dict[str, FloatArray]:
        view = self._view(columns)
        block, at = view.block(0, len(self.order)), np.arange(len(models))
        found = {name: np.broadcast_to(block.metric(name), block.shape)[models, at] for name in self.known_names}
        found[MAKEABLE] = view.points.makeable.astype(np.float64)
        return found

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        """The mapping-dependent metrics of one design."""
        row = self.space.index(parameters)
        values = self.cost(row[None, :])[0]
        if not np.isfinite(values).all():
            raise UsageError(UNMAPPABLE)
        return {name: Measured(float(value)) for name, value in zip(self.metrics, values, strict=True)}

    def cost(self, rows: IntArray) -> FloatArray:
        """Exact ``metrics`` of designs given by their index rows: (n, metrics); not finite where an operation has no mapping."""
        keys = [tuple(row) for row in rows.tolist()]
        new = list(dict.fromkeys(key for key in keys if key not in self._seen))
        if new:
            for key, values in zip(new, self._cost(np.array(new, dtype=np.int64)).tolist(), strict=True):
                self._seen[key] = tuple(values)
            self.evaluations += len(new)
        return np.array([self._seen[key] for key in keys]).reshape(len(keys), len(self.metrics))

    def _cost(self, rows: IntArray) -> FloatArray:
        points, at = np.unique(rows[:, 1:], axis=0, return_inverse=True)
        at = at.reshape(-1)
        columns = self.space.columns(np.column_stack([np.zeros(len(points), dtype=np.int64), points]))
        view = self._view(columns)
        models = self.order[rows[:, 0]]
        view.unit = self._unit_costs(view, models, at)
        view.on_chip = on_chip(
            self.problem, view.workload, view.points.batches, self.threads or 1, None
        )  # nothing in large spaces, where operations stand alone
        with np.errstate(invalid="ignore"):  # what nobody asked for is infinite, and a ratio of two such is not a number
            return self._metrics(view, models, at)

    def _metrics(self, view: Evaluation, models: IntArray, at: IntArray) -> FloatArray:
        """``metrics`` of models on the points of a view, (n, metrics)."""
        if len(self.order) * view.space.hardware_count <= _DENSE:
            block = view.block(0, len(self.order))
            found = [np.broadcast_to(block.metric(name), block.shape)[models, at] for name in self.metrics]
            return np.stack(found, axis=1) if found else np.zeros((len(models), 0))
        result = np.empty((len(models), len(self.metrics)))
        for model in np.unique(models):
            here = models == model
            block = view.block(int(model), int(model) + 1)
            for j, name in enumerate(self.metrics):
                result[here, j] = np.broadcast_to(block.metric(name), block.shape)[0, at[here]]
        return result

    def _unit_costs(self, view: Evaluation, models: IntArray, at: IntArray) -> Any:
        """Unit costs of the shapes of each model on its own points; infinite elsewhere."""
        designs = view.points.design[at]
        unit: Any = None
        criterion: Any = self.problem.criterion
        offset = 0
        for batch in view.points.batches:
            inside = (designs >= offset) & (designs < offset + len(batch))
            for model in np.unique(models[inside]):
                here = np.unique(designs[inside & (models == model)])
                shapes = self._shapes[model]
                found = cost.unit_costs(
                    self.base.shapes.take(shapes), batch.take(here - offset), criterion=criterion, threads=self.threads, unmapped="infinite"
                )
                if unit is None:
                    unit = self._unknown(found, sum(map(len, view.points.batches)))
                for name in (*ADDITIVE, "bound"):
                    getattr(unit, name)[np.ix_(shapes, here)] = getattr(found, name)
            offset += len(batch)
        return unit

    def _unknown(self, like: Any, designs: int) -> Any:
        """Unit costs of every shape on every design, none of them known yet."""

        shape = (len(self.base.shapes), designs)
        arrays: dict[str, Any] = {name: np.full(shape, np.inf) for name in ADDITIVE}
        return replace(like, **arrays, bound=np.zeros(shape, dtype=np.int8))

    def evaluation_of(self, front: Front) -> tuple[Evaluation, Front]:
        """An evaluation of the hardware points of a front alone, and the front in its indices.

        ``front`` holds positions of models in the space's order and ranks of hardware points.
        """
        hardware = Space(self.space.name, self.space.parameters[1:]) if len(self.space.parameters) > 1 else None
        used, at = np.unique(front.hardware, return_inverse=True)
        columns = {} if hardware is None else hardware.columns(hardware.unrank(used))
        space = replace(self.base.space, hardware=columns)
        evaluation = Evaluation(self.problem, space=space, threads=self.threads)
        return evaluation, Front.of(self.order[front.models], at.reshape(-1).astype(np.int64), front.values)
