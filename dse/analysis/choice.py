"""The rule by which one design of a front is recommended, over arrays; docs/recommendation.md states it and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def like_floor(quality: FloatArray, error: FloatArray, allowed: BoolArray, errors: float = 1.0) -> float | None:
    """Least quality that counts as the best one's equal: the best of the ``allowed`` designs less ``errors`` of its own standard errors.

    None where that error is not known (0): nobody can say then what is alike.
    """
    if not len(quality):
        return None
    best = int(np.argmax(np.where(allowed, quality, -np.inf)))
    return float(quality[best] - errors * error[best]) if error[best] > 0 else None


def alike(quality: FloatArray, error: FloatArray, allowed: BoolArray) -> BoolArray | None:
    """Which designs are as good as the best, as far as anyone can tell: within one standard error of the best design's quality.

    Args:
        quality, error: (designs,), higher is better; the error is the best design's own.
        allowed: designs that may be recommended at all.

    Returns:
        (designs,), or None where the best design's error is not known: nobody can say then what is alike.
    """
    floor = like_floor(quality, error, allowed)
    return None if floor is None else np.asarray(allowed & (quality >= floor))


def choose(costs: Any, allowed: BoolArray) -> npt.NDArray[np.int64]:
    """The allowed design nearest to the best of every cost, each cost scaled to its range over the allowed ones; the first of equals.

    Positive costs are scaled by their logarithms: twice the carbon weighs like twice the latency, and one dear design does not make all
    others look cheap.

    Args:
        costs: (..., designs, costs), all minimised; with one cost the choice is the cheapest.
        allowed: (designs,) or (..., designs); at least one.

    Returns:
        indices (...,).
    """
    values = np.asarray(costs, dtype=np.float64)
    mask = np.broadcast_to(allowed, values.shape[:-1])[..., None]
    low = np.min(np.where(mask, values, np.inf), axis=-2, keepdims=True)
    high = np.max(np.where(mask, values, -np.inf), axis=-2, keepdims=True)
    ratio = low > 0
    at, low, high = (np.where(ratio, np.log(np.where(ratio & (part > 0), part, 1.0)), part) for part in (values, low, high))
    span = np.where(high > low, high - low, 1.0)
    distance = np.sum(np.square((at - low) / span), axis=-1)
    return np.asarray(np.argmin(np.where(mask[..., 0], distance, np.inf), axis=-1))
