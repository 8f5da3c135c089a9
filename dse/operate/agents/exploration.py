"""How a learner tries what it does not know yet: parts that choose an action from values.

Each takes values (n, actions), which of them are valid, how far exploration has come down (1 at the beginning, to 0) and a generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dse.errors import unknown_name

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]


class Exploration(Protocol):
    """A way to explore."""

    def choose(self, values: FloatArray, valid: BoolArray, level: float, rng: np.random.Generator) -> IntArray:
        """An action each (n,)."""
        ...


def _drawn(chances: FloatArray, rng: np.random.Generator) -> IntArray:
    """An action each with these chances (n, actions), which sum to 1."""
    at = (np.cumsum(chances, axis=1) < rng.random((len(chances), 1))).sum(axis=1)
    return np.asarray(np.minimum(at, chances.shape[1] - 1), dtype=np.int64)


def _masked(values: FloatArray, valid: BoolArray) -> FloatArray:
    return np.where(valid, values, -np.inf)


@dataclass(frozen=True)
class Epsilon:
    """The best one, but with chance ``level`` any valid one."""

    def choose(self, values: FloatArray, valid: BoolArray, level: float, rng: np.random.Generator) -> IntArray:
        """An action each (n,)."""
        best = np.argmax(_masked(values, valid), axis=1)
        any_one = _drawn(valid / valid.sum(axis=1, keepdims=True), rng)
        return np.where(rng.random(len(best)) < level, any_one, best)


@dataclass(frozen=True)
class Boltzmann:
    """Chances that go as exp(value / temperature), the temperature falling with ``level``."""

    temperature: float = 0.3

    def choose(self, values: FloatArray, valid: BoolArray, level: float, rng: np.random.Generator) -> IntArray:
        """An action each (n,)."""
        scaled = _masked(values, valid) / max(self.temperature * level, 1e-9)
        chances = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return _drawn(chances / chances.sum(axis=1, keepdims=True), rng)


@dataclass(frozen=True)
class Thompson:
    """The best one after a draw around each value, of standard deviation ``spread`` x ``level`` (LinTS draws from its posterior)."""

    spread: float = 0.3

    def choose(self, values: FloatArray, valid: BoolArray, level: float, rng: np.random.Generator) -> IntArray:
        """An action each (n,)."""
        drawn = values + self.spread * level * rng.standard_normal(values.shape)
        return np.asarray(np.argmax(_masked(drawn, valid), axis=1))


@dataclass(frozen=True)
class SquareCB:
    """Chances 1 / (k + gamma (best - value)) for all but the best, which has the rest (Foster and Rakhlin, ICML 2020)."""

    gamma: float = 20.0

    def choose(self, values: FloatArray, valid: BoolArray, level: float, rng: np.random.Generator) -> IntArray:
        """An action each (n,)."""
        known = _masked(values, valid)
        best = np.argmax(known, axis=1)
        rows = np.arange(len(best))
        count = valid.sum(axis=1, keepdims=True)
        gap = known[rows, best][:, None] - np.where(valid, values, 0.0)
        chances = np.where(valid, 1.0 / (count + self.gamma / max(level, 1e-9) * gap), 0.0)
        chances[rows, best] = 0.0
        chances[rows, best] = 1.0 - chances.sum(axis=1)
        return _drawn(chances, rng)


_KNOWN = {"epsilon": Epsilon, "boltzmann": Boltzmann, "thompson": Thompson, "squarecb": SquareCB}
NAMES = tuple(_KNOWN)


def make(name: str) -> Exploration:
    """A way to explore by its name; UsageError for an unknown one."""
    if name not in _KNOWN:
        raise unknown_name("exploration", name, _KNOWN)
    made: Exploration = _KNOWN[name]()
    return made
