"""Chains of arithmetic modulo a prime whose every step can be checked: the testbed of credit assignment by resets.

A prompt is x0 (op a)^n =, with op one of + - x and a not 0; a thought is the value after one more operation. All operations can be undone,
so that a wrong value is not repaired by chance but by a second error that happens to cancel it. A third of the (op, a) pairs are hard: a
warm start may be made to err more often on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

OPERATIONS = 3  # + - x


@dataclass(frozen=True)
class ChainTask:
    """The task. Tokens: 0 .. modulus - 1 the numbers, then + - x, then =."""

    modulus: int = 11
    steps: int = 6

    def __post_init__(self) -> None:
        m = self.modulus
        if not 3 <= m <= 97 or any(m % k == 0 for k in range(2, m)):
            raise WorkloadError(f"modulus is {m}, must be a prime from 3 to 97")
        if not 1 <= self.steps <= 64:
            raise WorkloadError(f"steps is {self.steps}, must be from 1 to 64")

    @property
    def vocabulary(self) -> int:
        """Distinct tokens."""
        return self.modulus + OPERATIONS + 1

    @property
    def prompt_tokens(self) -> int:
        """Tokens of a prompt."""
        return 2 * self.steps + 2

    def prompts(self, rng: np.random.Generator, count: int) -> IntArray:
        """Fresh prompts (count, prompt_tokens)."""
        found = np.empty((count, self.prompt_tokens), dtype=np.int64)
        found[:, 0] = rng.integers(0, self.modulus, count)
        found[:, 1:-1:2] = self.modulus + rng.integers(0, OPERATIONS, (count, self.steps))
        found[:, 2:-1:2] = rng.integers(1, self.modulus, (count, self.steps))
        found[:, -1] = self.vocabulary - 1
        return found

    def apply(self, prompts: IntArray, step: int, value: IntArray) -> IntArray:
        """The right value after operation ``step`` (from 0) on ``value``."""
        op, a = prompts[:, 1 + 2 * step] - self.modulus, prompts[:, 2 + 2 * step]
        return np.where(op == 0, value + a, np.where(op == 1, value - a, value * a)) % self.modulus

    def solutions(self, prompts: IntArray) -> IntArray:
        """Right values (count, steps)."""
        values = np.empty((len(prompts), self.steps), dtype=np.int64)
        value = prompts[:, 0]
        for step in range(self.steps):
            value = values[:, step] = self.apply(prompts, step, value)
        return values

    def hard(self, prompts: IntArray) -> BoolArray:
        """Steps (count, steps) of the hard third."""
        op, a = prompts[:, 1:-1:2] - self.modulus, prompts[:, 2:-1:2]
        return np.asarray((self.modulus * op + a) % 3 == 0)

    def noisy(self, rng: np.random.Generator, prompts: IntArray, hard: float, easy: float) -> IntArray:
        """Chains (count, steps) in which a step is one too large with these chances, and the next go on from there."""
        chance = np.where(self.hard(prompts), hard, easy)
        slips = rng.random(chance.shape) < chance
        values = np.empty((len(prompts), self.steps), dtype=np.int64)
        value = prompts[:, 0]
        for step in range(self.steps):
            value = values[:, step] = (self.apply(prompts, step, value) + slips[:, step]) % self.modulus
        return values

    def rewards(self, prompts: IntArray, values: IntArray) -> BoolArray:
        """Whether the last value is right (count,)."""
        return np.asarray(values[:, -1] == self.solutions(prompts)[:, -1])

    def first_wrong(self, prompts: IntArray, values: IntArray) -> IntArray:
        """Place (from 1) of the first step that is wrong given the value written before it, 0 where none is: the exact oracle."""
        before = np.concatenate([prompts[:, :1], values[:, :-1]], axis=1)
        wrong = np.stack([values[:, k] != self.apply(prompts, k, before[:, k]) for k in range(self.steps)], axis=1)
        return np.where(wrong.any(axis=1), np.argmax(wrong, axis=1) + 1, 0)
