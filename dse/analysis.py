"""What a sweep says beyond its front: how the front grew block by block, and which knobs move which metric."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.evaluation import Evaluation
from dse.objectives import Objective
from dse.pareto import Front, hypervolume, merge
from dse.study import BlockResult

FloatArray = npt.NDArray[np.float64]

# The reference point of a growing front: its final worst values, moved out by a tenth of its range.
_MARGIN = 0.1
# Slicing three and more objectives takes n^(d-1) steps; beyond this the growth is not worth its time.
_MOST_FOR_MANY = 300
# Models that the importance of knobs is estimated from, evenly spaced over the space; every one meets all hardware points.
_SAMPLED_MODELS = 48


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


def importance(evaluation: Evaluation, objectives: Iterable[Objective]) -> list[dict[str, Any]]:
    """Share of a metric's variance that each knob explains by itself (first-order index), for each objective.

    Estimated as the variance of the knob's conditional means over the variance of the metric's logarithm (quality: of the
    metric), on all hardware points of evenly spaced models, infeasible ones included. Shares need not add up to one:
    what is missing is interaction, and knobs of the model that move together (ffn with hidden) share what they explain.
    """
    count = evaluation.space.model_count
    models = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_MODELS)).round().astype(np.int64))
    shape = (len(models), evaluation.space.hardware_count)
    values: dict[str, FloatArray] = {objective.metric: np.empty(shape) for objective in objectives}
    for row, model in enumerate(models.tolist()):
        block = evaluation.block(model, model + 1)
        for name, into in values.items():
            into[row] = np.broadcast_to(block.metric(name), block.shape)[0]
    found = []
    for name, metric in values.items():
        usable = np.isfinite(metric)
        scaled = metric if name.startswith("quality") else np.log(np.where(usable & (metric > 0), metric, 1.0))
        usable &= (metric > 0) | name.startswith("quality")
        total = float(scaled[usable].var()) if usable.any() else 0.0
        if total <= 0:
            continue
        for axis, columns in ((0, {k: v[models] for k, v in evaluation.space.models.items()}), (1, evaluation.space.hardware)):
            for knob, column in columns.items():
                share = _first_order(scaled, usable, column, axis, total)
                if share is not None:
                    found.append({"knob": knob, "metric": name, "share": share})
    return found


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
