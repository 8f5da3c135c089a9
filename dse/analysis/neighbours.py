"""Why a design is where it is: every design that differs from it in one knob, costed exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dse.analysis.own_quality import OwnQuality, own_quality
from dse.errors import DseError, UsageError
from dse.evaluation.design_costs import around
from dse.evaluation.evaluation import Evaluation, Space, as_listed
from dse.evaluation.feasibility import UNMAKEABLE
from hw_models.errors import HardwareError

if TYPE_CHECKING:
    from dse.evaluation.evaluation import Space
    from dse.problem.problem import Problem
    from dse.storage.run_folder import RunRecord

# What is told of a neighbour beside the objectives.
METRICS_SHOWN = ("latency_s", "energy_j", "area_mm2", "embodied_kgco2e", "operational_kgco2e", "total_kgco2e")


@dataclass(frozen=True)
class Neighbour:
    """A design one step away along a knob.

    Attributes:
        knob, value: what was changed, and to what. moved: other knobs that had to move with it (the space holds no design without).
        metrics: of the neighbour; empty where it cannot be costed. broken: constraints that it breaks.
        verdict: ``infeasible``, ``worse`` (in no objective better), ``better`` (in no objective worse), ``trade``, ``same`` or
            ``unmeasured`` (its quality is an objective, and this study has not measured it).
    """

    knob: str
    value: Any
    moved: Mapping[str, Any]
    metrics: Mapping[str, float]
    broken: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class Why:
    """A design, its metrics, and its neighbours."""

    design: int
    knobs: Mapping[str, Any]
    metrics: Mapping[str, float]
    neighbours: tuple[Neighbour, ...]


def why(run: RunRecord, number: int) -> Why:
    """The neighbours of design ``number`` of a run's front, evaluated exactly as the run evaluated its designs."""
    entry = run.entry(number)
    if entry is None:
        raise UsageError(f"design {number} is not in run {run.path}; its front has designs 1 to {len(run.designs)}")
    problem = run.problem
    knobs = dict(entry["knobs"])
    # Knobs that the user fixed for the search are free here: what they cost is part of the answer.
    open_problem = replace(problem, fixed={k: v for k, v in problem.fixed.items() if k not in knobs}, fixed_model=False)
    space = around(open_problem, knobs)
    own = {side: {name: knobs[name] for name in columns if name in knobs} for side, columns in _sides(space)}
    settings = space.settings
    measured = own_quality(run)
    metrics, _ = _metrics(problem, own["models"], own["hardware"], settings, measured)
    found: list[Neighbour] = []
    for side, columns in _sides(space):
        steps = _steps(columns, own[side])
        # Knobs that move together lead to the same design; it is told once, under the first of them.
        distinct = {tuple(point.values()): (knob, value, point) for knob, value, point in reversed(steps)}
        for knob, value, point in reversed(distinct.values()):
            moved = {name: other for name, other in point.items() if name != knob and own[side].get(name) != other}
            both = {**own, side: point}
            other, failure = _metrics(problem, both["models"], both["hardware"], settings, measured)
            found.append(_neighbour(problem, knob, value, moved, metrics, other, failure))
    return Why(number, knobs, metrics, tuple(found))


def _sides(space: Space) -> tuple[tuple[str, Mapping[str, npt.NDArray[Any]]], ...]:
    """The two sides of a joint space: a step stays on one of them."""
    return ("models", space.models), ("hardware", space.hardware)


def _steps(columns: Mapping[str, npt.NDArray[Any]], at: Mapping[str, Any]) -> list[tuple[str, Any, dict[str, Any]]]:
    """One step down and one up along each knob: (knob, its value, every knob of the point), in the order of the knobs.

    Names (a DRAM type) have no order; each other one is a step. Where the space has no point that differs in this knob alone, the one
    that is nearest in the others is taken (distance counted in steps of each knob's own values).
    """
    steps = []
    ranks = {name: np.unique(values, return_inverse=True) for name, values in columns.items()}
    for name, values in columns.items():
        if name not in at:
            continue
        levels = ranks[name][0]
        place = int(np.searchsorted(levels, at[name]))
        here = place < len(levels) and levels[place] == at[name]
        # A value that the space does not hold lies between two that it does.
        others = range(len(levels)) if levels.dtype.kind == "U" else (place - 1, place + 1 if here else place)
        for other in others:
            if not 0 <= other < len(levels) or levels[other] == at[name]:
                continue
            rows = np.flatnonzero(values == levels[other])
            distance = np.zeros(len(rows), dtype=np.int64)
            for second, (known, inverse) in ranks.items():
                if second != name and second in at:
                    distance += np.abs(inverse[rows] - int(np.searchsorted(known, at[second])))
            row = int(rows[np.argmin(distance)])
            steps.append(
                (name, as_listed(name, levels[other].item()), {key: as_listed(key, column[row].item()) for key, column in columns.items()})
            )
    return steps


def _metrics(
    problem: Problem, model: Mapping[str, Any], hardware: Mapping[str, Any], settings: Mapping[str, int], measured: OwnQuality | None
) -> tuple[dict[str, float], str]:
    """Every finite metric of one design, and why it has no latency where it has none."""

    def columns(point: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        return {name: np.array([value]) for name, value in point.items()}

    space = Space(columns(model), columns(hardware), 0, dict(settings))
    try:
        evaluation = Evaluation(problem, space=space, threads=1)
        block = evaluation.block(0, 1)
        if not block.makeable().all():
            return {}, UNMAKEABLE
        names = evaluation.metric_names
        values = {name: float(np.broadcast_to(block.metric(name), block.shape).reshape(-1)[0]) for name in names}
    except (HardwareError, DseError) as failure:
        return {}, str(failure)
    if measured is not None:
        figure = measured.of({**model, **hardware})
        values = {name: value for name, value in values.items() if not name.startswith("quality")}
        values |= {} if figure is None else {"quality": figure.mean, "quality_se": figure.se}
    return {name: value for name, value in values.items() if np.isfinite(value)}, "no mapping fits its memories"


def _neighbour(
    problem: Problem,
    knob: str,
    value: Any,
    moved: Mapping[str, Any],
    own: Mapping[str, float],
    metrics: Mapping[str, float],
    failure: str,
) -> Neighbour:
    broken = tuple(
        str(c)
        for c in problem.constraints
        if c.metric in metrics and not (metrics[c.metric] <= c.bound if c.relation == "<=" else metrics[c.metric] >= c.bound)
    )
    if broken or "latency_s" not in metrics:
        return Neighbour(knob, value, moved, metrics, broken or (failure,), "infeasible")
    if any(o.metric == "quality" and "quality" in own and "quality" not in metrics for o in problem.objectives):
        return Neighbour(knob, value, moved, metrics, (), "unmeasured")
    signs = {o.metric: o.sign for o in problem.objectives if o.metric in metrics and o.metric in own}
    change = [sign * (metrics[name] - own[name]) for name, sign in signs.items()]
    better, worse = any(c < 0 for c in change), any(c > 0 for c in change)
    verdict = "trade" if better and worse else "better" if better else "worse" if worse else "same"
    return Neighbour(knob, value, moved, metrics, (), verdict)
