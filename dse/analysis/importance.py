"""What a sweep says beyond its front: how the front grew block by block, and which knobs move which metric."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.evaluation.evaluation import Evaluation
from dse.fronts.pareto import Front, hypervolume, merge
from dse.problem.objectives import Objective
from dse.storage.study import BlockResult

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# The reference point of a growing front: its final worst values, moved out by a tenth of its range.
_MARGIN = 0.1
# Slicing three and more objectives takes n^(d-1) steps; beyond this the growth is not worth its time.
_MOST_FOR_MANY = 300
# Importance is judged on a product of models and points, so that no knob is charged with what another one does.
_MOST_CELLS = 60_000
_FEWEST_MODELS = 16
# Every set of knobs is looked at: 2^10 of them.
_MOST_GROUPS = 10


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


def importance(evaluation: Evaluation, objectives: Sequence[Objective], *, most_cells: int = _MOST_CELLS) -> list[dict[str, Any]]:
    """Share of a metric's variance that each knob is charged with, for each objective; the shares of a metric add to one.

    Shapley effects (Owen, SIAM/ASA J. Uncertainty Quantification 2, 2014; Song, Nelson and Staum, ibid. 4, 2016): a knob's share is the
    variance that knowing it explains, averaged over all orders in which the knobs could become known. Interactions are thus divided
    evenly, and no share is counted twice. The variance is of the metric's logarithm (quality: of the metric) over all designs that have a
    value, infeasible ones included. Knobs that the space moves together one to one (ffn with hidden) are one entry, ``hidden + ffn``.
    Where the space has more than ``most_cells`` designs, each knob keeps so many of its values, evenly spaced and the ends among them,
    that it has not.
    """
    space = evaluation.space
    models, points = _grouped(space.models, space.model_count), _grouped(space.hardware, space.hardware_count)
    # Every chosen model is evaluated on all points before points are chosen among, so few models where there are many points.
    chosen = _levels_kept(models, space.model_count, max(_FEWEST_MODELS, most_cells // max(1, space.hardware_count)))
    kept = _levels_kept(points, space.hardware_count, max(1, most_cells // max(1, len(chosen))))
    groups = {name: (codes[chosen], 0) for name, codes in models.items()} | {name: (codes[kept], 1) for name, codes in points.items()}
    groups = {name: (np.unique(codes, return_inverse=True)[1].reshape(-1), axis) for name, (codes, axis) in groups.items()}
    groups = {name: entry for name, entry in groups.items() if entry[0].max(initial=0) > 0}
    blocks = [evaluation.block(first, last) for first, last in _ranges(chosen)]
    found = []
    for name in (objective.metric for objective in objectives):
        metric = np.concatenate([np.broadcast_to(block.metric(name), block.shape)[:, kept] for block in blocks])
        usable = np.isfinite(metric) & ((metric > 0) | name.startswith("quality"))
        values = metric if name.startswith("quality") else np.log(np.where(usable, metric, 1.0))
        if (metric == metric[:, :1]).all():  # the same on all points, as quality is: their knobs have no share
            usable, values = usable[:, :1], values[:, :1]
        columns = {
            knob: np.broadcast_to(codes.reshape((-1, 1) if axis == 0 else (1, -1)), values.shape)[usable]
            for knob, (codes, axis) in groups.items()
            if axis == 0 or values.shape[1] > 1
        }
        shares = shapley_effects(values[usable], columns)
        if shares:
            shares |= {knob: 0.0 for knob in groups if knob not in columns}
        found += [{"knob": knob, "metric": name, "share": share} for knob, share in shares.items()]
    return found


def shapley_effects(values: FloatArray, columns: Mapping[str, IntArray]) -> dict[str, float]:
    """Shapley effects of ``columns`` (codes from 0, one an entry of ``values``) on the variance of ``values``; empty where it has none.

    Beyond ``_MOST_GROUPS`` columns those that explain least by themselves are charged together, as ``other knobs``.
    """
    if not len(values) or not values.var() > 1e-24 * max(1.0, float(np.square(values).mean())):
        return {}
    columns = _merged(values, columns)
    sizes = [int(column.max()) + 1 for column in columns.values()]
    cell = np.ravel_multi_index(tuple(columns.values()), tuple(sizes))
    centred = values - values.mean()
    sums = np.bincount(cell, weights=centred, minlength=math.prod(sizes)).reshape(sizes).astype(np.float64)
    counts = np.bincount(cell, minlength=math.prod(sizes)).reshape(sizes).astype(np.float64)
    explained = _explained(sums, counts)
    count, total = len(sizes), explained[(1 << len(sizes)) - 1]
    weight = [math.factorial(k) * math.factorial(count - k - 1) / math.factorial(count) for k in range(count)]
    shares = {}
    for i, name in enumerate(columns):
        gains = [(explained[s | 1 << i] - explained[s]) * weight[s.bit_count()] for s in range(1 << count) if not s >> i & 1]
        shares[name] = max(0.0, math.fsum(gains) / total)
    return shares


def _explained(sums: FloatArray, counts: FloatArray) -> list[float]:
    """For every set of axes (as bits) the sum of squares of the means given these axes; sums of centred values in cells."""
    explained = [0.0] * (1 << sums.ndim)

    def descend(sums: FloatArray, counts: FloatArray, known: int, lowest: int) -> None:
        # Each set is reached once: axes are summed out in ascending order. Dimensions stay, with length one.
        explained[known] = float(np.sum(np.divide(np.square(sums), counts, out=np.zeros_like(sums), where=counts > 0)))
        for axis in range(lowest, sums.ndim):
            descend(sums.sum(axis=axis, keepdims=True), counts.sum(axis=axis, keepdims=True), known & ~(1 << axis), axis + 1)

    descend(sums, counts, (1 << sums.ndim) - 1, 0)
    explained[0] = 0.0  # the mean of centred values; what rounding leaves of it is no variance
    return explained


def _merged(values: FloatArray, columns: Mapping[str, IntArray]) -> dict[str, IntArray]:
    """The columns, those beyond ``_MOST_GROUPS`` as one: a share of several knobs together is a Shapley effect too."""
    if len(columns) <= _MOST_GROUPS:
        return dict(columns)
    first = {name: shapley_effects(values, {name: column, "rest": np.arange(len(values))})[name] for name, column in columns.items()}
    order = sorted(columns, key=lambda name: -first[name])
    kept = [name for name in columns if name in order[: _MOST_GROUPS - 1]]
    rest = np.column_stack([column for name, column in columns.items() if name not in kept])
    return {**{name: columns[name] for name in kept}, "other knobs": np.unique(rest, axis=0, return_inverse=True)[1].reshape(-1)}


def _grouped(knobs: Mapping[str, npt.NDArray[Any]], count: int) -> dict[str, IntArray]:
    """Codes of the values of each knob that varies; knobs that determine each other are one entry."""
    found: dict[str, IntArray] = {}
    for name, column in knobs.items():
        codes = np.unique(column, return_inverse=True)[1].reshape(-1).astype(np.int64)
        if not count or codes.max(initial=0) == 0:
            continue
        for other, theirs in found.items():
            pairs = len(np.unique(codes * (int(theirs.max()) + 1) + theirs))
            if pairs == int(codes.max()) + 1 == int(theirs.max()) + 1:
                found[f"{other} + {name}"] = found.pop(other)
                break
        else:
            found[name] = codes
    return found


def _levels_kept(groups: Mapping[str, IntArray], count: int, most: int) -> IntArray:
    """Indices of the rows in which every knob has one of its kept values, at most ``most`` where two values a knob allow it."""
    everything = np.arange(count, dtype=np.int64)
    largest = max((int(codes.max()) + 1 for codes in groups.values()), default=1)
    for levels in range(largest, 1, -1):
        keep = np.ones(count, dtype=bool)
        for codes in groups.values():
            size = int(codes.max()) + 1
            keep &= np.isin(codes, np.unique(np.linspace(0, size - 1, min(levels, size)).round().astype(np.int64)))
        if 1 < keep.sum() <= most:
            return everything[keep]
    return everything if count <= most else np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def _ranges(indices: IntArray) -> list[tuple[int, int]]:
    """Ascending indices as ranges first..last-1."""
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    return [(int(part[0]), int(part[-1]) + 1) for part in np.split(indices, cuts)]
