"""Why a design is where it is: every design that differs from it in one knob, costed exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError

if TYPE_CHECKING:
    from dse.problem import Problem
    from dse.run import Run

IntArray = npt.NDArray[np.int64]
# What is told of a neighbour beside the objectives.
METRICS_SHOWN = ("latency_s", "energy_j", "area_mm2", "embodied_kgco2e", "operational_kgco2e", "total_kgco2e")


@dataclass(frozen=True)
class Neighbour:
    """A design one step away along a knob.

    Attributes:
        knob, value: what was changed, and to what. moved: other knobs that had to move with it (the space holds no design without).
        metrics: of the neighbour; empty where it cannot be costed. broken: constraints that it breaks.
        verdict: ``infeasible``, ``worse`` (in no objective better), ``better`` (in no objective worse), ``trade`` or ``same``.
    """

    knob: str
    value: int
    moved: Mapping[str, int]
    metrics: Mapping[str, float]
    broken: tuple[str, ...]
    verdict: str


@dataclass(frozen=True)
class Why:
    """A design, its metrics, and its neighbours."""

    design: int
    knobs: Mapping[str, int]
    metrics: Mapping[str, float]
    neighbours: tuple[Neighbour, ...]


def why(run: Run, number: int) -> Why:
    """The neighbours of design ``number`` of a run's front, evaluated exactly as the run evaluated its designs."""
    from dse.evaluation import build_space, load_family, load_hardware

    entry = next((design for design in run.designs if design["design"] == number), None)
    if entry is None:
        raise UsageError(f"design {number} is not in run {run.path}; its front has designs 1 to {len(run.designs)}")
    problem = run.problem
    # Knobs that the user fixed for the search are free here: what they cost is part of the answer.
    open_problem = replace(problem, fixed={k: v for k, v in problem.fixed.items() if k not in entry["knobs"]}, fixed_model=False)
    space = build_space(open_problem, load_family(problem), load_hardware(problem))
    knobs = {name: int(value) for name, value in entry["knobs"].items()}
    steps: list[tuple[str, int, dict[str, int]]] = []
    for columns in (space.models, space.hardware):
        steps += _steps(columns, {name: knobs[name] for name in columns if name in knobs})
    own = _metrics(problem, knobs)
    # Knobs that move together lead to the same design; it is told once, under the first of them.
    distinct = {tuple(sorted(point.items())): (knob, value, point) for knob, value, point in reversed(steps)}
    found = tuple(_neighbour(problem, knobs, own, *step) for step in reversed(distinct.values()))
    return Why(number, knobs, own, found)


def _steps(columns: Mapping[str, IntArray], at: Mapping[str, int]) -> list[tuple[str, int, dict[str, int]]]:
    """One step down and one up along each knob: (knob, its value, every knob of the point), in the order of the knobs.

    Where the space has no point that differs in this knob alone, the one that is nearest in the others is taken (distance counted in
    steps of each knob's own values).
    """
    steps = []
    ranks = {name: np.unique(values, return_inverse=True) for name, values in columns.items()}
    for name, values in columns.items():
        if name not in at:
            continue
        levels = ranks[name][0]
        place = int(np.searchsorted(levels, at[name]))
        for other in (place - 1, place + 1):
            if not 0 <= other < len(levels) or (other == place + 1 and levels[place] != at[name]):
                continue
            rows = np.flatnonzero(values == levels[other])
            distance = np.zeros(len(rows), dtype=np.int64)
            for second, (known, inverse) in ranks.items():
                if second != name and second in at:
                    distance += np.abs(inverse[rows] - int(np.searchsorted(known, at[second])))
            row = int(rows[np.argmin(distance)])
            steps.append((name, int(levels[other]), {key: int(column[row]) for key, column in columns.items()}))
    return steps


def _metrics(problem: Problem, knobs: Mapping[str, int]) -> dict[str, float]:
    from dse.evaluation import Evaluation
    from dse.metrics import METRICS

    fixed = {**problem.fixed, **knobs}
    evaluation = Evaluation(replace(problem, fixed=fixed, fixed_model=False, allow_unsupported=True), threads=1)
    block = evaluation.block(0, 1)
    names = [name for name in METRICS if evaluation.quality is not None or not name.startswith("quality")]
    values = {name: float(np.broadcast_to(block.metric(name), block.shape).reshape(-1)[0]) for name in names}
    return {name: value for name, value in values.items() if np.isfinite(value)}


def _neighbour(
    problem: Problem, knobs: Mapping[str, int], own: Mapping[str, float], knob: str, value: int, point: Mapping[str, int]
) -> Neighbour:
    from hw_models.errors import HardwareError

    moved = {name: other for name, other in point.items() if name != knob and knobs.get(name) != other}
    try:
        metrics = _metrics(problem, {**knobs, **point})
    except HardwareError as failure:
        return Neighbour(knob, value, moved, {}, (str(failure),), "infeasible")
    broken = tuple(
        str(c)
        for c in problem.constraints
        if c.metric in metrics and not (metrics[c.metric] <= c.bound if c.relation == "<=" else metrics[c.metric] >= c.bound)
    )
    if broken or "latency_s" not in metrics:
        return Neighbour(knob, value, moved, metrics, broken or ("no mapping fits its memories",), "infeasible")
    signs = {o.metric: o.sign for o in problem.objectives if o.metric in metrics and o.metric in own}
    change = [sign * (metrics[name] - own[name]) for name, sign in signs.items()]
    better, worse = any(c < 0 for c in change), any(c > 0 for c in change)
    verdict = "trade" if better and worse else "better" if better else "worse" if worse else "same"
    return Neighbour(knob, value, moved, metrics, (), verdict)
