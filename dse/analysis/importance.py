"""What a sweep says beyond its front: how the front grew block by block, and which knobs move which metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.evaluation.evaluation import Evaluation
from dse.fronts.pareto import Front, hypervolume, merge
from dse.problem.objectives import Objective
from dse.storage.study import BlockResult

FloatArray = npt.NDArray[np.float64]

# The reference point of a growing front: its final worst values, moved out by a tenth of its range.
_MARGIN = 0.1
# Slicing three and more objectives takes n^(d-1) steps; beyond this the growth is not worth its time.
_MOST_FOR_MANY = 300
# Importance of the model's knobs: all models (at most so many) on a few hardware points; of the hardware's: all points under a few
# models. Each is a full product, so that no knob is charged with what another one does.
_MOST = 20_000
_FEW = 32


def convergence(blocks: Iterable[BlockResult], front: Front) -> dict[str, Any] | None:
    """Hypervolume of the merged front after each block, as a share of the final one: how early a sweep had seen it.

    The reference point is the nadir of the final front moved out by a tenth of its range. None where there is one block, where the front
    is a single point in some objective, or too large for three and more objectives.
    """
    objectives = front.values.shape[1] if len(front) else 0
    if objectives < 2 or (objectives > 2 and len(front) > _MOST_FOR_MANY):
        return None
    low, high = front.values.min(axis=0), front.values.max(axis=0)
    if (high <= low).any():
        return None
    reference = high + _MARGIN * (high - low)
    final = hypervolume(front.values, reference)
    evaluations, shares, seen, merged = [], [], 0, merge([], objectives)
    for block in blocks:
        seen += block.points
        merged = merge([merged, Front(block.front_models, block.front_hardware, block.front_values)], objectives)
        if len(merged) > _MOST_FOR_MANY and objectives > 2:
            return None
        evaluations.append(seen)
        shares.append(hypervolume(merged.values, reference) / final if len(merged) else 0.0)
    if len(evaluations) < 2:
        return None
    return {"evaluations": evaluations, "hypervolume": shares, "unit": "share of the final hypervolume"}


def importance(evaluation: Evaluation, objectives: Sequence[Objective], *, most: int = _MOST, few: int = _FEW) -> list[dict[str, Any]]:
    """Share of a metric's variance that each knob explains by itself (first-order index), for each objective.

    The variance of the knob's conditional means over the variance of the metric's logarithm (quality: of the metric),
    infeasible designs included. Knobs of the model are judged on up to ``most`` models under ``few`` random hardware points,
    knobs of the hardware the other way round. Shares need not add up to one: what is missing is interaction, and knobs that
    the space moves together (ffn with hidden) share what they explain.
    """
    random = np.random.default_rng(0)
    space = evaluation.space
    models = {"many": _some(random, space.model_count, most), "few": _some(random, space.model_count, few)}
    points = {"many": _some(random, space.hardware_count, most), "few": _some(random, space.hardware_count, few)}
    # Few models are ranges of the evaluation itself, whose mappings are known; few points are a small evaluation of their own,
    # as a range of points under all models would be the whole sweep again.
    part = replace(
        space,
        models={name: column[models["many"]] for name, column in space.models.items()},
        hardware={name: column[points["few"]] for name, column in space.hardware.items()},
    )
    whole = Evaluation(evaluation.problem, space=part).block(0, part.model_count)
    single = [evaluation.block(model, model + 1) for model in models["few"].tolist()]
    points_knobs = {name: column[points["many"]] for name, column in space.hardware.items()}
    found = []
    for name in (objective.metric for objective in objectives):
        under_all = np.broadcast_to(whole.metric(name), whole.shape)
        under_few = np.concatenate([np.broadcast_to(b.metric(name), b.shape)[:, points["many"]] for b in single])
        found += [*_shares(name, under_all, part.models, 0), *_shares(name, under_few, points_knobs, 1)]
    return found


def _shares(name: str, metric: FloatArray, knobs: Mapping[str, npt.NDArray[Any]], axis: int) -> list[dict[str, Any]]:
    """The share of each knob along one axis of a metric (models, points)."""
    usable = np.isfinite(metric) & ((metric > 0) | name.startswith("quality"))
    scaled = metric if name.startswith("quality") else np.log(np.where(usable, metric, 1.0))
    total = float(scaled[usable].var()) if usable.any() else 0.0
    if total <= 0:
        return []
    shares = {knob: _first_order(scaled, usable, column, axis, total) for knob, column in knobs.items()}
    return [{"knob": knob, "metric": name, "share": share} for knob, share in shares.items() if share is not None]


def _some(random: np.random.Generator, count: int, most: int) -> npt.NDArray[np.int64]:
    """At most so many of ``count`` indices, in order."""
    return np.sort(random.permutation(count)[:most]).astype(np.int64)


def _first_order(values: FloatArray, usable: npt.NDArray[np.bool_], column: npt.NDArray[Any], axis: int, total: float) -> float | None:
    """Variance of the means over the groups of one knob, weighted by size, over the total; None for a knob that is fixed."""
    levels, codes = np.unique(column, return_inverse=True)
    if len(levels) < 2:
        return None
    codes = np.broadcast_to(codes.reshape((-1, 1) if axis == 0 else (1, -1)), values.shape)[usable]
    chosen = values[usable]
    sizes = np.bincount(codes, minlength=len(levels))
    means = np.bincount(codes, weights=chosen, minlength=len(levels)) / np.maximum(sizes, 1)
    return float(np.sum(sizes * (means - chosen.mean()) ** 2) / sizes.sum() / total)
