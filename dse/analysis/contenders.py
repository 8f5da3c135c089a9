"""Designs beside a front that could be the best in another deployment, or under other factors of carbon.

A front under total carbon holds what is best at one grid, one lifetime and one rate. At equal service a design's total carbon is

    embodied + grid x PUE x lifetime x (rate x (energy - idle power x latency / in flight) + idle power),

so it grows with every one of: what its making depends on (die area, memory, chips, of like node, memory type, package and fab), the bracket
that the rate multiplies, and the idle power; latency decides whether it can serve. A design that another of the same kind beats in none of
these and loses to in one is the best nowhere, whatever grid, lifetime, rate or factor; the others are the contenders. They are few (61 of
the 1,317 designs of `edge22` that a BERT-Base fits), so that answers about other deployments are about the whole space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from dse_kernels.pareto import pareto_mask

from carbon.analysis.robustness import CARBON_METRICS
from dse.analysis.choice import like_floor
from dse.analysis.explanation import DEFAULT_QUALITY_ERRORS
from dse.analysis.recommendation import Front as Choice
from dse.analysis.recommendation import beside
from dse.evaluation.evaluation import Block, Evaluation
from dse.evaluation.feasibility import feasible
from dse.fronts.pareto import CLEARLY, Front, rounded
from dse.problem.objectives import asks_for_quality
from dse.problem.problem import Problem
from dse.storage.run_folder import RunRecord, describe_front, distinct

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Designs that are looked at beside a search: what a sweep of a million costs is not spent twice on spaces that took minutes.
_MOST_LOOKED_AT = 4_000_000
_BLOCK_POINTS = 1 << 18
# More than these make the answers slow (every pair is compared in every draw) and the study large.
_MOST_KEPT = 400
SPACE, MODELS = "all designs of the space", "all hardware of the space for the models on the front"


def contenders(evaluation: Evaluation, front: Front, designs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The ``contenders`` entry of a run's context, for an evaluation of its whole space; empty where no objective is carbon.

    ``designs``: as those of the front (`describe_front`), numbered after them, and the next best of the one objective where the front is
    a single design. ``of``: what they are the contenders of, in words.
    """
    problem = evaluation.problem
    if not len(front) or not {o.metric for o in problem.objectives} & set(CARBON_METRICS):
        return {}
    found = _looked_at(evaluation, front, _floors(evaluation, designs))
    if found is None:
        return {}
    models, hardware, told = found
    own = set(zip(front.models.tolist(), front.hardware.tolist(), strict=True))
    pairs = zip(models.tolist(), hardware.tolist(), strict=True)
    fresh = np.array([pair not in own for pair in pairs], dtype=bool)
    models, hardware = models[fresh], hardware[fresh]
    if len(models) > _MOST_KEPT:
        return {}
    entries = describe_front(evaluation, Front(models, hardware, np.zeros((len(models), 1))), breakdowns=0)
    first = problem.objectives[[o.metric in CARBON_METRICS for o in problem.objectives].index(True)]
    entries.sort(key=lambda entry: first.sign * float(entry["metrics"][first.metric]))
    return {"contenders": {"of": told, "designs": [
        {**entry, "design": len(front) + number, "equal_to": None} for number, entry in enumerate(entries, 1)
    ]}}  # fmt: skip


def compared(run: RunRecord) -> list[dict[str, Any]]:
    """The distinct designs of a front, and where it is a single one the contenders beside it: one design has no order to keep."""
    own = distinct(run.designs)
    return own if len(own) > 1 else [*own, *beside(run)]


def of_deployment(problem: Problem) -> list[str]:
    """Metrics of bounds that a deployment decides and that are told anew for every other one."""
    return [c.metric for c in problem.constraints if c.metric in (*CARBON_METRICS, "service_utilisation")]


def _floors(evaluation: Evaluation, designs: Sequence[dict[str, Any]]) -> list[float]:
    """Least qualities of models that count as alike: one standard error below the best (the rule's), and two (those of explain)."""
    own = Choice.of_designs(evaluation.problem.objectives, designs)
    if own.quality is None or own.error is None:
        return [-np.inf]
    floors = [like_floor(own.quality, own.error, own.allowed, errors) for errors in (1.0, DEFAULT_QUALITY_ERRORS)]
    return [floor for floor in floors if floor is not None] or [-np.inf]


def _looked_at(evaluation: Evaluation, front: Front, floors: Sequence[float]) -> tuple[IntArray, IntArray, str] | None:
    """Models and hardware points of the contenders at each floor, and of what; None where there are too many designs to look."""
    problem, space = evaluation.problem, evaluation.space
    asked = asks_for_quality(problem.objectives, problem.constraints)
    quality = np.asarray(evaluation.quality.mean) if evaluation.quality is not None and asked else np.zeros(space.model_count)
    pairs: set[tuple[int, int]] = set()
    told = SPACE
    for floor in floors:
        models = np.flatnonzero(quality >= floor)  # a model that was not measured is not a number, which never is
        if len(models) * space.hardware_count > _MOST_LOOKED_AT:
            models, told = np.unique(front.models), MODELS
            if len(models) * space.hardware_count > _MOST_LOOKED_AT:
                return None
        pairs |= _unbeaten(evaluation, models, weighed=_weighed(problem, floor), alone=len(front) == 1)
    ordered = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)
    return ordered[:, 0], ordered[:, 1], told


def _weighed(problem: Problem, floor: float) -> bool:
    """Whether the rule weighs several objectives against each other, all of which then decide who stands on a front."""
    costs = sum(o.metric != "quality" for o in problem.objectives)
    return costs > 1 or (costs < len(problem.objectives) and floor == -np.inf)


def _unbeaten(evaluation: Evaluation, models: IntArray, *, weighed: bool, alone: bool) -> set[tuple[int, int]]:
    """(model, hardware point) of the contenders among these models, and of the next best of a front that stands alone."""
    problem = evaluation.problem
    held = [c for c in problem.constraints if c.metric not in of_deployment(problem)]
    kinds = _kinds(evaluation)
    parts: list[tuple[IntArray, IntArray, FloatArray]] = []
    nearest: list[tuple[float, int, int]] = []
    most = max(1, _BLOCK_POINTS // max(1, evaluation.space.hardware_count))
    for start, end in _runs(models, most):
        block = evaluation.block(start, end)
        found, _ = feasible(block, held)
        rows, points = np.nonzero(found)
        if not len(rows):
            continue
        columns = _columns(evaluation, block, rows, points, weighed=weighed)
        keep = _mask(kinds[points], columns)
        parts.append((rows[keep] + start, points[keep], columns[keep]))
        if alone and len(problem.objectives) == 1:
            nearest += _two_best(problem, block, start)
    if not parts:
        return set()
    model, point, columns = (np.concatenate(part) for part in zip(*parts, strict=True))
    keep = _mask(kinds[point], columns)
    pairs = set(zip(model[keep].tolist(), point[keep].tolist(), strict=True))
    if nearest:
        best = min(nearest)[0]
        behind = [entry for entry in nearest if entry[0] > best + CLEARLY * abs(best)]
        pairs |= {(m, h) for _, m, h in sorted(behind)[:1]}
    return pairs


def _runs(models: IntArray, most: int) -> Iterator[tuple[int, int]]:
    for run in np.split(models, np.flatnonzero(np.diff(models) != 1) + 1):
        for first in range(0, len(run), most):
            yield int(run[first]), int(run[min(first + most, len(run)) - 1]) + 1


def _kinds(evaluation: Evaluation) -> IntArray:
    """Of every hardware point, which kind it is (points,): designs of one kind share node, memory type, package, fab and deployment."""
    p = evaluation.points
    named = np.zeros(len(p), dtype=np.int64)
    node = np.zeros(len(p))
    for number, group in enumerate(p.groups):
        named[group.members] = number
        node[group.members] = group.devices["node_nm"]
    return np.unique(np.column_stack([named, node, p.rate_per_s, p.lifetime_years]), axis=0, return_inverse=True)[1].reshape(-1)


def _columns(evaluation: Evaluation, block: Block, rows: IntArray, points: IntArray, *, weighed: bool) -> FloatArray:
    """What total carbon grows with, whatever the deployment and the factors (designs, columns); ``weighed``: and every other objective."""
    p = evaluation.points
    area, memory = np.zeros(len(p)), np.zeros(len(p))
    for group in p.groups:
        area[group.members], memory[group.members] = group.devices["area_mm2"], group.devices["memory_gb"]

    def of(name: str) -> FloatArray:
        return np.asarray(np.broadcast_to(block.metric(name), block.shape)[rows, points], dtype=np.float64)

    idle, slot_s = p.leakage_w[points], of("latency_s") / p.in_flight[points]
    # Only what differs to nine digits differs: the bracket is a difference, whose last bits are noise.
    told = [area[points], memory[points], p.chips[points].astype(np.float64), of("energy_j") - idle * slot_s, of("latency_s"), slot_s, idle]
    told += [o.sign * of(o.metric) for o in evaluation.problem.objectives if weighed and o.metric not in CARBON_METRICS]
    return rounded(np.stack(told, axis=1))


def _mask(kinds: IntArray, columns: FloatArray) -> BoolArray:
    """Which designs no other of their kind beats."""
    keep = np.zeros(len(kinds), dtype=bool)
    for kind in np.unique(kinds):
        here = np.flatnonzero(kinds == kind)
        keep[here] = pareto_mask(np.ascontiguousarray(columns[here]))
    return keep


def _two_best(problem: Problem, block: Block, start: int) -> list[tuple[float, int, int]]:
    """The two least values of the one objective that clearly differ, among the feasible designs of a block: (value, model, point)."""
    found, _ = feasible(block, problem.constraints)
    objective = problem.objectives[0]
    values = np.where(found, objective.sign * np.broadcast_to(block.metric(objective.metric), block.shape), np.inf)
    told: list[tuple[float, int, int]] = []
    for _ in range(2):
        row, point = np.unravel_index(int(np.argmin(values)), values.shape)
        best = float(values[row, point])
        if not np.isfinite(best):
            break
        told.append((best, int(row) + start, int(point)))
        values = np.where(values <= best + CLEARLY * abs(best), np.inf, values)
    return told
