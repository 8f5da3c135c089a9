"""A learning agent as a strategy: a linear bandit whose arms are designs, explored by Thompson sampling or epsilon-greedily.

The question of ArchGym (Krishnan et al., ISCA 2023): what does an agent find at the same number of evaluations? Its parts are those of the
one-step learners of `dse operate`: a policy learner (Bayesian linear regression on features of a design), exploration (a draw from its
posterior, or a random design with probability epsilon), and a replay of every trial, so that it is rebuilt from the trials alone. Each
proposal draws weights of the objectives; the reward of a trial is minus the least weighted sum, objectives scaled to what has been found,
over its points (the hardware front of its model, where trials are models). A failed or infeasible trial has the reward of the worst one.

Linear Thompson sampling: Agrawal and Goyal, "Thompson Sampling for Contextual Bandits with Linear Payoffs", ICML 2013.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dse.errors import unknown_name
from dse.storage.trial import Proposal, Trial
from dse.strategies.drawing import draw, left_over, neighbours_of, sample
from dse.strategies.protocol import WAIT, Wait, proposal_of, rng_of, taken_rows
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

EXPLORATIONS = ("thompson", "epsilon")
_CANDIDATES = 2048
_ONE_HOT = 16  # values of a parameter up to which each gets a feature of its own
_PRIOR = 1.0  # precision of a weight, rewards being of order one
_EPSILON = 0.1


class BanditSearch:
    """Thompson sampling (or epsilon-greedy) on a linear model of the reward.

    Args:
        exploration: thompson or epsilon. initial: random designs to begin with.
    """

    name = "bandit"

    def __init__(self, *, exploration: str = "thompson", initial: int = 8) -> None:
        if exploration not in EXPLORATIONS:
            raise unknown_name("exploration", exploration, EXPLORATIONS)
        self.exploration, self.initial = exploration, initial

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | Wait | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        taken = taken_rows(task, history)
        rng = rng_of(seed, number)
        done = [trial for trial in history if trial.state != "running"]
        if number >= self.initial and len(done) < len(history):
            return WAIT  # it learns from every trial before: what it proposes must not depend on how many run at once
        chance = rng.random()
        points, owners, _ = task.points(done)
        random = number < self.initial or not len(points) or (self.exploration == "epsilon" and chance < _EPSILON)
        row = draw(task, rng, taken) if random else self._best(task, done, points, owners, taken, rng)
        return None if row is None else proposal_of(task, row, random=random)

    def _best(
        self, task: Task, done: Sequence[Trial], points: FloatArray, owners: IntArray, taken: set[tuple[int, ...]], rng: np.random.Generator
    ) -> IntArray | None:
        rewards = _rewards(points, owners, len(done), rng.dirichlet(np.ones(points.shape[1])))
        rows = np.array([task.row(trial.parameters) for trial in done])
        candidates = _candidates(task, rows[np.argsort(-rewards)[:4]], taken, rng)
        if not len(candidates):
            return draw(task, rng, taken)
        seen = _features(task, rows)
        precision = seen.T @ seen + _PRIOR * np.eye(seen.shape[1])
        mean = np.linalg.solve(precision, seen.T @ rewards)
        if self.exploration == "thompson":
            # A draw of N(mean, s^2 precision^-1), s the spread of what the mean leaves.
            spread = float(np.std(rewards - seen @ mean)) + 1e-9
            mean = mean + spread * np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal(len(mean)))
        return np.asarray(candidates[int(np.argmax(_features(task, candidates) @ mean))])


def _rewards(points: FloatArray, owners: IntArray, trials: int, weights: FloatArray) -> FloatArray:
    """Rewards (trials,), standardised."""
    low, high = points.min(axis=0), points.max(axis=0)
    cost = (points - low) / np.where(high > low, high - low, 1.0) @ weights
    least = np.full(trials, np.inf)
    np.minimum.at(least, owners, cost)
    least[~np.isfinite(least)] = cost.max()
    spread = float(least.std())
    return np.asarray((least.mean() - least) / (spread if spread > 0 else 1.0))


def _features(task: Task, rows: IntArray) -> FloatArray:
    """One, the place of each value among its parameter's in [-1, 1] and its square, and each value of a short list (n, features)."""
    columns = [np.ones(len(rows))]
    for i, count in enumerate(task.space.shape):
        place = 2.0 * rows[:, i] / max(count - 1, 1) - 1.0
        columns += [place, place**2]
        if 2 < count <= _ONE_HOT:
            columns += [(rows[:, i] == value).astype(np.float64) for value in range(count)]
    return np.stack(columns, axis=1)


def _candidates(task: Task, best: IntArray, taken: set[tuple[int, ...]], rng: np.random.Generator) -> IntArray:
    """Designs that may be proposed: of a listed space up to so many that are left, else a sample and what is near the best."""
    if task.listable:
        free = left_over(task, taken)
        chosen = free if len(free) <= _CANDIDATES else rng.choice(free, _CANDIDATES, replace=False)
        return np.asarray(task.rows[chosen])
    near = neighbours_of(task, best, rng)
    rows = np.unique(np.concatenate([sample(task, rng, _CANDIDATES // 4), near[task.allowed(near)]]), axis=0)
    return np.array([row for row in rows if tuple(row.tolist()) not in taken], dtype=np.int64).reshape(-1, len(task.space.shape))
