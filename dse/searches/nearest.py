"""How near the nearest design comes where none is feasible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.evaluation.evaluation import Evaluation
from dse.problem.objectives import Constraint
from dse.searches.sweep import block_bounds
from dse.storage.trial import Trial

# Designs that are looked at: seconds of a sweep. Of a larger space, models spread evenly over it.
_MOST_DESIGNS = 20_000_000


def excess(constraint: Constraint, values: Any) -> npt.NDArray[np.float64]:
    """By what share of its bound each value misses a constraint, 0 where it is met; a bound of 0 is missed by the value itself."""
    found = np.asarray(values, dtype=np.float64)
    over = found - constraint.bound if constraint.relation == "<=" else constraint.bound - found
    share = over / (abs(constraint.bound) or 1.0)
    return np.where(np.isnan(share), np.inf, np.maximum(share, 0.0))


def in_words(constraints: Sequence[Constraint], metrics: Mapping[str, float]) -> str:
    """Which bounds a design misses, and by how much."""
    missed = []
    for constraint in constraints:
        value = metrics[constraint.metric]
        share = float(excess(constraint, value))
        if share > 0:
            by = (
                f"{share:.2g} of {abs(constraint.bound) or 1.0:g}"
                if share < 0.1
                else f"{share:.1%}"
                if share < 10
                else f"{share:.3g} times"
            )
            missed.append(f"{constraint.metric} {value:.4g} ({constraint.relation}{constraint.bound:g} missed by {by})")
    return ", ".join(missed)


def nearest_trial(constraints: Sequence[Constraint], trials: Sequence[Trial]) -> str:
    """As :func:`nearest_design`, of completed trials and the constraints on what they measured."""
    done = [trial for trial in trials if trial.done]
    told = [c for c in constraints if done and all(c.metric in trial.metrics for trial in done)]
    if not told:
        return ""
    best = min(done, key=lambda trial: max(float(excess(c, trial.metrics[c.metric].mean)) for c in told))
    missed = in_words(told, {c.metric: best.metrics[c.metric].mean for c in told})
    return f"; the nearest, {', '.join(f'{name}={value}' for name, value in best.parameters.items())}, has {missed}" if missed else ""


def nearest_design(evaluation: Evaluation, constraints: Sequence[Constraint]) -> str:
    """The design whose worst miss is the smallest, and its misses, as the end of a sentence; empty where none can be told.

    A miss is a share of the bound, so that seconds and square millimetres compare.
    """
    space = evaluation.space
    bounds = block_bounds(space.model_count, space.hardware_count)
    most = max(1, _MOST_DESIGNS * len(bounds) // max(1, space.size))
    if most < len(bounds):
        bounds = [bounds[i] for i in np.unique(np.linspace(0, len(bounds) - 1, most).round().astype(int))]
    best, where = np.inf, None
    for first, last in bounds:
        block = evaluation.block(first, last)
        worst = np.where(np.broadcast_to(block.mappable(), block.shape) & np.broadcast_to(block.makeable(), block.shape), 0.0, np.inf)
        for constraint in constraints:
            worst = np.maximum(worst, np.broadcast_to(excess(constraint, block.metric(constraint.metric)), block.shape))
        at = int(np.argmin(worst))
        if worst.reshape(-1)[at] < best:
            model, hardware = divmod(at, block.shape[1])
            best, where = float(worst.reshape(-1)[at]), (first + model, hardware)
    if where is None or best <= 0.0:
        return ""
    model, hardware = where
    block = evaluation.block(model, model + 1)
    metrics = {c.metric: float(np.broadcast_to(block.metric(c.metric), block.shape)[0, hardware]) for c in constraints}
    knobs = space.design(model, hardware)
    varied = {name: value for name, value in knobs.items() if len(set((space.models | space.hardware)[name].tolist())) > 1} or knobs
    return f"; the nearest, {', '.join(f'{name}={value}' for name, value in varied.items())}, has " + in_words(constraints, metrics)
