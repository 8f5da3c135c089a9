"""Multi-start projected descent on the relaxed objectives, group by group, then rounding.

Inside a group of aligned objectives the weights of every step come from CAMOO, PAMOO or are equal. What the other groups may
cost is a bound (epsilon constraint) that differs from start to start, so that the starts spread over the front. A step moves
no parameter by more than ``_LONGEST`` of its range: Polyak steps are long where the gap is a loose bound, and the objectives
are convex only locally.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError, unknown_name
from dse.strategies.amoo.relaxed import Point, Relaxed
from dse.strategies.amoo.weights import camoo_weights, equal_weights, pamoo_weights

FloatArray = npt.NDArray[np.float64]

RULES = ("pamoo", "camoo", "equal")
_LONGEST = 0.08
_PENALTY = 10.0
_HESSIAN_PROBES = 4


def descend(
    relaxed: Relaxed,
    starts: FloatArray,
    lead: npt.NDArray[np.int64],
    groups: tuple[tuple[int, ...], ...],
    bounds: FloatArray,
    *,
    rule: str = "pamoo",
    steps: int = 40,
) -> FloatArray:
    """Descend from ``starts`` (n, d) in [0, 1]; start i minimises group ``lead[i]`` with objectives below ``bounds[i]``.

    ``bounds`` (n, m) in transformed units, infinite inside the start's own group. Returns the end points (n, d).
    """
    if rule not in RULES:
        raise unknown_name("amoo rule", rule, RULES)
    if steps < 1:
        raise UsageError(f"amoo steps is {steps}; at least 1 is needed")
    x = np.array(starts)
    lowest = np.full(bounds.shape[1], np.inf)
    for step in range(steps):
        point = relaxed.evaluate(x, _HESSIAN_PROBES if rule == "camoo" else 0)
        # The best seen by any start stands for the unknown minimum; a small margin keeps the last start moving.
        lowest = np.minimum(lowest, point.values.min(0))
        reach = _LONGEST * (1.0 - step / steps)
        for i in range(len(x)):
            own = np.array(groups[lead[i]])
            move = _step(point, i, own, lowest, rule, reach)
            over = np.maximum(point.values[i] - bounds[i], 0.0)
            push = point.gradients[i] @ over + point.push[i] * (1.0 if point.excess[i] > 0 else 0.0)
            move = move + _PENALTY * push * reach
            x[i] = np.clip(x[i] - _capped(move, reach), 0.0, 1.0)
    return x


def _step(point: Point, i: int, own: npt.NDArray[np.int64], lowest: FloatArray, rule: str, reach: float) -> FloatArray:
    gradients = point.gradients[i][:, own]
    if rule == "pamoo":
        gaps = point.values[i, own] - lowest[own] + 0.01
        return np.asarray(gradients @ pamoo_weights(gradients, gaps))
    curvature = point.curvature[i][:, own].T if point.curvature is not None else None
    weights = equal_weights(len(own)) if curvature is None else camoo_weights(curvature)
    move = gradients @ weights
    return np.asarray(move * reach / max(float(np.abs(move).max()), 1e-12))


def _capped(move: FloatArray, longest: float) -> FloatArray:
    return move * min(1.0, longest / max(float(np.abs(move).max()), 1e-300))
