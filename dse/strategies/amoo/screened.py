"""``amoo`` where exact costs are scarce: search on a twin of the cost model, exact evaluations for what it finds.

The twin is a task over the same space with everything known in closed form and differentiable. :class:`AmooSearch` works on it:
descent of aligned groups, rounding, Pareto local search, without one exact evaluation. Trials come in generations. Candidates
of a generation are the twin's front so far and the neighbours of the exact front; what the twin says of them is corrected by
what the completed trials showed (a linear model of the logarithm of exact over twin in the coding of the space); those that
would not be dominated are proposed, farthest from what is known first, then the layers behind them. A generation depends on the
seed and on the trials of the generations before, so a study is rebuilt from its trials alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from dse_kernels.pareto import pareto_mask

from dse.errors import UsageError
from dse.evaluation.feasibility import meets
from dse.storage.trial import RUNNING, Proposal, Trial
from dse.strategies.amoo.search import AmooSearch
from dse.strategies.drawing import draw, neighbours_of, sample
from dse.strategies.protocol import WAIT, Wait, proposal_of, rng_of
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_GENERATION = 128
_SEARCHES = 3
_RIDGE = 1e-2
_EXPAND = 128


@dataclass(frozen=True)
class Correction:
    """What exact values are more than the twin's, as a linear function of the coding: (d + 1, m), by logarithm where ``logs``."""

    weights: FloatArray
    logs: tuple[bool, ...]

    @classmethod
    def fit(cls, coded: FloatArray, twin: FloatArray, exact: FloatArray) -> Correction:
        """From designs with both values (n, m), minimised; ridge regression, the intercept free."""
        logs = tuple(bool((twin[:, j] > 0).all() and (exact[:, j] > 0).all()) for j in range(twin.shape[1]))
        x = np.column_stack([coded - 0.5, np.ones(len(coded))])
        gap = np.stack([np.log(exact[:, j] / twin[:, j]) if log else exact[:, j] - twin[:, j] for j, log in enumerate(logs)], axis=1)
        penalty = _RIDGE * len(coded) * np.eye(x.shape[1])
        penalty[-1, -1] = 0.0
        return cls(np.linalg.solve(x.T @ x + penalty, x.T @ gap), logs)

    def apply(self, coded: FloatArray, twin: FloatArray) -> FloatArray:
        """The twin's values (n, m), corrected."""
        gap = np.column_stack([coded - 0.5, np.ones(len(coded))]) @ self.weights
        return np.stack([twin[:, j] * np.exp(gap[:, j]) if log else twin[:, j] + gap[:, j] for j, log in enumerate(self.logs)], axis=1)


class ScreenedAmoo:
    """Aligned multi-objective descent on a twin, exact evaluations in generations."""

    name = "amoo"

    def __init__(
        self, twin: Task, *, rule: str = "pamoo", generation: int = _GENERATION, searches: int = _SEARCHES, inner: AmooSearch | None = None
    ) -> None:
        """``generation``: trials proposed together; ``searches``: the twin is searched one round a generation up to so many.

        ``inner`` replaces the search on the twin (default: :class:`AmooSearch` with ``rule``).
        """
        if generation < 1 or searches < 1:
            raise UsageError(f"amoo generation is {generation} and searches is {searches}; at least 1 is needed")
        self.twin, self.generation, self.searches = twin, generation, searches
        self.inner = inner or AmooSearch(rule=rule)
        self._memory: tuple[tuple[int, int, int], IntArray] | None = None

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | Wait | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        generation, place = divmod(number, self.generation)
        past = history[: generation * self.generation]
        if any(trial.state == RUNNING for trial in past):
            return WAIT
        key = (id(task), seed, generation)
        if self._memory is None or self._memory[0] != key:
            self._memory = (key, self._propose(task, past, generation, seed))
        rows = self._memory[1]
        return proposal_of(task, rows[place], generation=generation) if place < len(rows) else None

    def _propose(self, task: Task, past: Sequence[Trial], generation: int, seed: int) -> IntArray:
        """The designs (n, d) of a generation; fewer than its size where the space has no more."""
        rng = rng_of(seed, generation, stream=5)
        found = self.inner.front(self.twin, seed, min(generation + 1, self.searches)).rows
        rows = np.array([task.row(trial.parameters) for trial in past], dtype=np.int64).reshape(len(past), len(task.space.names))
        taken = {tuple(row) for row in rows.tolist()}
        done = np.array([i for i, trial in enumerate(past) if trial.done], dtype=np.int64)
        exact = np.array([[o.sign * past[i].metrics[o.metric].mean for o in task.objectives] for i in done])
        correction = None
        if len(done) > len(task.space.names) + 1:
            correction = Correction.fit(task.space.coded(rows[done]), self._twin(rows[done])[0], exact)
        feasible = np.array([task.feasible(past[i]) for i in done], dtype=bool)
        front_rows, front = np.zeros((0, rows.shape[1]), dtype=np.int64), np.zeros((0, len(task.objectives)))
        if feasible.any():
            front_rows, front = rows[done][feasible], exact[feasible]
            keep = pareto_mask(front)
            front_rows, front = front_rows[keep], front[keep]
        parents = front_rows[rng.permutation(len(front_rows))[:_EXPAND]]
        candidates = np.concatenate([found, neighbours_of(task, parents, rng)]) if len(parents) else found
        candidates = _fresh(task, candidates, taken)
        chosen = self._choose(task, candidates, front, correction)
        taken |= {tuple(row) for row in chosen.tolist()}
        more = list(chosen)
        if len(more) < self.generation and not task.listable:
            others = _fresh(task, sample(self.twin, rng, 4 * self.generation), taken)
            more += list(others[rng.permutation(len(others))][: self.generation - len(more)])
            taken |= {tuple(row.tolist()) for row in more}
        while len(more) < self.generation and (row := draw(task, rng, taken)) is not None:
            more.append(row)
            taken.add(tuple(row.tolist()))
        return np.array(more, dtype=np.int64).reshape(len(more), len(task.space.names))

    def _twin(self, rows: IntArray) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """The twin's objectives (n, m), minimised, and whether its constraints hold."""
        assert self.twin.known is not None
        metrics = self.twin.known(self.twin.space.columns(rows))
        keep = np.ones(len(rows), dtype=bool)
        for constraint in self.twin.constraints:
            keep &= meets(constraint, metrics[constraint.metric])
        return np.stack([o.sign * metrics[o.metric] for o in self.twin.objectives], axis=1), keep

    def _choose(self, task: Task, candidates: IntArray, front: FloatArray, correction: Correction | None) -> IntArray:
        """Up to a generation of candidates: those that would not be dominated, then layer by layer, each spread."""
        if not len(candidates):
            return candidates
        values, keep = self._twin(candidates)
        candidates, values = candidates[keep], values[keep]
        if correction is not None:
            values = correction.apply(task.space.coded(candidates), values)
        chosen = np.zeros((0, candidates.shape[1]), dtype=np.int64)
        # Where too few would not be dominated, the next layers follow: the twin may be wrong about them.
        while len(candidates) and len(chosen) < self.generation:
            alive = pareto_mask(np.concatenate([front, values]))[len(front) :]
            if not alive.any():
                alive, front = pareto_mask(values), front[:0]
            layer = candidates[alive]
            chosen = np.concatenate([chosen, layer[spread(values[alive], front, self.generation - len(chosen))]])
            candidates, values = candidates[~alive], values[~alive]
        return chosen


def _fresh(task: Task, rows: IntArray, taken: set[tuple[int, ...]]) -> IntArray:
    """Distinct rows that may be proposed and have not been."""
    rows = np.unique(rows, axis=0)
    rows = rows[[tuple(row) not in taken for row in rows.tolist()]]
    return rows[task.allowed(rows)] if len(rows) else rows


def spread(values: FloatArray, known: FloatArray, count: int) -> IntArray:
    """Up to ``count`` positions of ``values`` (n, m): the ends of every objective, then each farthest from those before and ``known``.

    Distances are Euclidean in the objectives scaled to their ranges, by logarithm where all values are positive.
    """
    together = np.concatenate([known, values])
    scaled = np.empty_like(together)
    for j, column in enumerate(together.T):
        column = np.log(column) if (column > 0).all() else column
        scaled[:, j] = (column - column.min()) / max(float(np.ptp(column)), 1e-300)
    known, own = scaled[: len(known)], scaled[len(known) :]
    distance = np.full(len(own), np.inf)
    for row in known:
        np.minimum(distance, ((own - row) ** 2).sum(1), out=distance)
    chosen: list[int] = []
    ends = list(dict.fromkeys(int(i) for i in own.argmin(0)))
    for _ in range(min(count, len(own))):
        best = ends.pop(0) if ends else int(np.argmax(distance))
        chosen.append(best)
        np.minimum(distance, ((own - own[best]) ** 2).sum(1), out=distance)
        distance[chosen] = -1.0
    return np.array(chosen, dtype=np.int64)
