"""Ranges, Monte Carlo, tornado, and how robust a Pareto order is: all over arrays.

A model is a function from overrides (factor key -> value or draws) to carbon. Inputs are drawn independently, each from a
stream of its own (seed and key), so adding a factor leaves the draws of the others as they were.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.errors import CarbonError, unknown
from carbon.factors.tables import Factor

FloatArray = npt.NDArray[np.float64]
Model = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Range:
    """A quantity known to lie between ``low`` and ``high``, most likely at ``mode``.

    Attributes:
        kind: ``triangular`` (default) or ``uniform`` (the mode is then only the point estimate).
    """

    low: float
    mode: float
    high: float
    kind: str = "triangular"

    def __post_init__(self) -> None:
        if self.kind not in ("triangular", "uniform"):
            raise unknown("range kind", self.kind, ("triangular", "uniform"))
        if not all(math.isfinite(value) for value in (self.low, self.mode, self.high)):
            raise CarbonError(f"range [{self.low:g}, {self.mode:g}, {self.high:g}] is not finite")
        if not self.low <= self.mode <= self.high:
            raise CarbonError(f"range [{self.low:g}, {self.mode:g}, {self.high:g}] is not in the order low, mode, high")

    def quantile(self, share: FloatArray) -> FloatArray:
        """Return the inverse distribution function at ``share`` in [0, 1]."""
        width = self.high - self.low
        if width == 0.0:
            return np.full_like(share, self.mode)
        if self.kind == "uniform":
            return self.low + width * share
        peak = (self.mode - self.low) / width
        rising = self.low + np.sqrt(share * width * (self.mode - self.low))
        falling = self.high - np.sqrt((1.0 - share) * width * (self.high - self.mode))
        return np.where(share < peak, rising, falling)


def draws(ranges: Mapping[str, Range], count: int, seed: int) -> dict[str, FloatArray]:
    """Return ``count`` draws for every range, by key, each from its own stream; the same for the same seed anywhere."""
    if count < 1:
        raise CarbonError(f"draws is {count}, but at least 1 is needed")
    found = {}
    for key, one in ranges.items():
        stream = np.random.default_rng(np.random.SeedSequence([seed, zlib.crc32(key.encode())]))
        found[key] = one.quantile(stream.random(count))
    return found


def ranges_of(factors: Iterable[object]) -> dict[str, Range]:
    """Return the ranges of those factors that have one, by key."""
    found = {}
    for factor in factors:
        if isinstance(factor, Factor) and factor.low is not None and factor.high is not None:
            found[factor.key] = Range(factor.low, factor.value, factor.high)
    return found


@dataclass(frozen=True, slots=True)
class Spread:
    """Distribution of a result: percentiles (of each design, for arrays), mean, and the draws themselves (draws first)."""

    p5: Any
    p50: Any
    p95: Any
    mean: Any
    values: FloatArray

    def ratio(self) -> Any:
        """Return p95 / p5."""
        return self.p95 / self.p5


def spread(values: Any) -> Spread:
    """Return the distribution of draws (first axis)."""
    array = np.asarray(values, dtype=np.float64)
    p5, p50, p95 = np.percentile(array, (5.0, 50.0, 95.0), axis=0)
    return Spread(p5, p50, p95, array.mean(axis=0), array)


def monte_carlo(model: Model, ranges: Mapping[str, Range], *, count: int = 20000, seed: int = 0) -> Spread:
    """Return the distribution of ``model`` when its factors vary over ``ranges``.

    Args:
        model: takes overrides of shape (count,) and returns an array with the draws first.
    """
    result = np.asarray(model(draws(ranges, count, seed)), dtype=np.float64)
    if result.ndim == 0:  # nothing varies
        result = np.full(count, float(result))
    return spread(result)


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a tornado: the result with one factor at its ``low`` and ``high`` end, the others at their modes."""

    key: str
    at_low: float
    at_high: float
    low: float = math.nan
    high: float = math.nan

    @property
    def swing(self) -> float:
        """Width of the bar."""
        return abs(self.at_high - self.at_low)


def tornado(model: Model, ranges: Mapping[str, Range]) -> list[Bar]:
    """Return the bars, widest first (ties by key); two evaluations a factor, done as one vector."""
    modes = {key: one.mode for key, one in ranges.items()}
    bars = []
    for key, one in ranges.items():
        ends = np.asarray(model({**modes, key: np.array([one.low, one.high])}), dtype=np.float64)
        ends = np.broadcast_to(ends, (2,))
        bars.append(Bar(key, float(ends[0]), float(ends[1]), one.low, one.high))
    return sorted(bars, key=lambda bar: (-bar.swing, bar.key))


def dominated(objectives: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which designs are dominated: (..., designs, objectives) minimised -> (..., designs).

    A design is dominated where another is no worse in every objective and better in one; equal designs dominate none.
    """
    no_worse: Any = True
    better: Any = False
    for column in np.moveaxis(objectives, -1, 0):  # one objective after the other: a reduction over a short last axis is slow
        one, other = column[..., :, None], column[..., None, :]
        no_worse = no_worse & (other <= one)
        better = better | (other < one)
    return np.asarray((no_worse & better).any(axis=-1))


@dataclass(frozen=True, slots=True)
class Stability:
    """How a Pareto front stands up to the draws.

    Attributes:
        stays: for each design the share of draws in which it remains undominated among the given ones.
        whole_front: share of draws in which every design of the front does (the Pareto order holds).
        order: (designs, designs), share of draws in which a design's first-objective rank against another is that of
            the point estimate; ``pairs`` is their mean over pairs.
        best: for each design the share of draws in which it has the least of the first objective.
    """

    stays: FloatArray
    whole_front: float
    order: FloatArray
    pairs: float
    best: FloatArray


def stability(point: Any, drawn: Any, *, cells: int = 20_000_000) -> Stability:
    """Return the stability of a front.

    Args:
        point: objectives at the point estimate, (designs, objectives), all minimised; the first is the carbon quantity.
        drawn: the same under each draw, (draws, designs, objectives).
        cells: pairs of designs compared at once; bounds the memory (about ten bytes each).

    Raises:
        CarbonError: shapes that do not fit, NaN or infinite objectives.
    """
    base = np.asarray(point, dtype=np.float64)
    sample = np.asarray(drawn, dtype=np.float64)
    if base.ndim != 2 or sample.ndim != 3 or sample.shape[1:] != base.shape or base.shape[0] == 0:
        raise CarbonError(f"objectives have shapes {base.shape} and {sample.shape}, but (designs, objectives) are needed")
    if not (np.isfinite(base).all() and np.isfinite(sample).all()):
        raise CarbonError("objectives hold NaN or infinity, but a front's are finite")
    front = ~dominated(base)
    count, designs = sample.shape[:2]
    stays, best, agree, whole = np.zeros(designs), np.zeros(designs), np.zeros((designs, designs)), 0
    sign = np.sign(base[:, None, 0] - base[None, :, 0])
    block = max(1, cells // (designs * designs))
    for first in range(0, count, block):
        part = sample[first : first + block]
        free = ~dominated(part)
        stays += free.sum(axis=0)
        whole += int(free[:, front].all(axis=1).sum())
        agree += (np.sign(part[:, :, None, 0] - part[:, None, :, 0]) == sign).sum(axis=0)
        least = part[:, :, 0] == part[:, :, 0].min(axis=1, keepdims=True)
        best += (least / least.sum(axis=1, keepdims=True)).sum(axis=0)
    upper = np.triu_indices(designs, 1)
    order = agree / count
    pairs = float(order[upper].mean()) if designs > 1 else 1.0
    return Stability(stays / count, whole / count, order, pairs, best / count)
