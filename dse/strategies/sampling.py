"""Strategies that learn nothing: random, Sobol, and every design in order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.storage.trial import Proposal, Trial
from dse.strategies.drawing import draw, left_over
from dse.strategies.protocol import proposal_of, rng_of, taken_rows
from dse.strategies.task import Task

_SOBOL_LOG2_BLOCK = 10
_SOBOL_BLOCKS = 256
_SCAN = 1 << 16


class RandomSearch:
    """Uniform over the designs that may be proposed and have not been."""

    name = "random"

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        row = draw(task, rng_of(seed, number), taken_rows(task, history))
        return None if row is None else proposal_of(task, row)


class SobolSearch:
    """The first point of the scrambled Sobol sequence that may be proposed and has not been.

    A listable space whose feasible designs the sequence keeps missing is finished in a random order.
    """

    name = "sobol"

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        taken = taken_rows(task, history)
        if task.listable and len(taken) >= len(task.rows) and not len(left_over(task, taken)):
            return None
        shape = np.array(task.space.shape)
        for block in range(_SOBOL_BLOCKS):
            rows = np.minimum((_sobol(len(shape), seed, block) * shape).astype(np.int64), shape - 1)
            for row in rows[task.allowed(rows)]:
                if tuple(row.tolist()) not in taken:
                    return proposal_of(task, row)
            if task.listable and (block + 1) << _SOBOL_LOG2_BLOCK > 16 * len(task.rows):
                break
        found = draw(task, rng_of(seed, number), taken)
        return None if found is None else proposal_of(task, found)


@lru_cache(maxsize=64)
def _sobol(dims: int, seed: int, block: int) -> npt.NDArray[np.float64]:
    from scipy.stats import qmc

    sequence = qmc.Sobol(dims, scramble=True, rng=np.random.default_rng([seed, dims]))
    if block:
        sequence.fast_forward(block << _SOBOL_LOG2_BLOCK)
    return np.asarray(sequence.random_base2(_SOBOL_LOG2_BLOCK) if not block else sequence.random(1 << _SOBOL_LOG2_BLOCK))


class ExhaustiveSearch:
    """Every design in canonical order: for measured metrics over spaces that are small enough to evaluate whole.

    Without a measured metric the sweep of :mod:`dse.searches.sweep` does this by blocks, without a trial a design.
    """

    name = "exhaustive"

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        taken = taken_rows(task, history)
        if task.listable:
            free = left_over(task, taken)
            return proposal_of(task, task.rows[free[0]]) if len(free) else None
        if task.space.size >= 2**63:
            raise DseError(f"space {task.space.name} of {task.space.size:,} designs is too large to enumerate")
        last = task.space.rank(task.space.index(history[-1].parameters)[None, :])[0] if history else -1
        for first in range(int(last) + 1, task.space.size, _SCAN):
            rows = task.space.unrank(np.arange(first, min(first + _SCAN, task.space.size)))
            for row in rows[task.allowed(rows)]:
                if tuple(row.tolist()) not in taken:
                    return proposal_of(task, row)
        return None
