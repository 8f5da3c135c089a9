"""``amoo``: descent on the relaxed cost model, rounding, and an exact Pareto polish, for spaces too large to enumerate.

A round: random starts, each with a leading group of aligned objectives and its own bounds on the others; descent; rounding to
the space; then neighbours of the exact front are evaluated with the exact model until none improves it or the round's share
of evaluations is spent. Only exact values are ever reported. A round depends on (seed, its number) alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.pareto import Front
from dse.strategies.amoo.alignment import Alignment, alignment
from dse.strategies.amoo.descent import descend
from dse.strategies.amoo.relaxed import Relaxed
from dse.strategies.base import draw, draw_many, left_over, proposal_of, rng_of, taken_rows
from dse.strategies.task import Task, meets
from dse.trials import Proposal, Trial

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_STARTS = 24
_STEPS = 40
_POLISH = 40_000
_EXPAND = 64
_ROUNDS_WITHOUT_NEWS = 3


@dataclass(frozen=True)
class ExactFront:
    """Designs (n, d) and their exact objective values (n, m), minimised, none dominated."""

    rows: IntArray
    values: FloatArray

    def merged(self, rows: IntArray, values: FloatArray) -> ExactFront:
        """The front of the union; of equal designs one stays."""
        rows, values = np.concatenate([self.rows, rows]), np.concatenate([self.values, values])
        _, first = np.unique(rows, axis=0, return_index=True)
        rows, values = rows[np.sort(first)], values[np.sort(first)]
        index = np.arange(len(rows), dtype=np.int64)
        front = Front.of(index, index, values)
        return ExactFront(rows[front.models], front.values)


def evaluate(task: Task, rows: IntArray) -> tuple[IntArray, FloatArray]:
    """Exact objectives of the feasible ones among ``rows``: rows (k, d), values (k, m)."""
    assert task.known is not None
    if len(rows):
        rows = rows[task.space.feasible(rows)]
    if not len(rows):
        return rows, np.zeros((0, len(task.objectives)))
    metrics = task.known(task.space.columns(rows))
    keep = np.ones(len(rows), dtype=bool)
    for constraint in task.constraints:
        keep &= meets(constraint, metrics[constraint.metric])
    values = np.stack([o.sign * metrics[o.metric] for o in task.objectives], axis=1)
    keep &= np.isfinite(values).all(1)
    return rows[keep], values[keep]


def polish(task: Task, front: ExactFront, *, evaluations: int, expand: int = _EXPAND) -> tuple[ExactFront, int]:
    """Evaluate the neighbours of the front until none improves it or the evaluations are spent; the front and the count.

    Neighbours are one value away in one parameter; in parameters with many values also 4 and 16 away, so that a front in a
    fine space moves fast.
    """
    expanded: set[tuple[int, ...]] = set()
    spent = 0
    shape = np.array(task.space.shape)
    identity = np.eye(len(shape), dtype=np.int64)
    steps = np.concatenate([sign * width * identity[shape > 2 * width] for width in (1, 4, 16) for sign in (1, -1)])
    while spent < evaluations:
        fresh = [i for i, row in enumerate(front.rows.tolist()) if tuple(row) not in expanded]
        if not fresh:
            break
        # Spread over the front (it is sorted): the first of many would be one corner.
        chosen = [fresh[i] for i in np.unique(np.linspace(0, len(fresh) - 1, min(expand, len(fresh))).astype(int))]
        expanded.update(tuple(row) for row in front.rows[chosen].tolist())
        near = (front.rows[chosen][:, None, :] + steps[None, :, :]).reshape(-1, len(shape))
        near = np.unique(near[((near >= 0) & (near < shape)).all(1)], axis=0)
        spent += len(near)
        front = front.merged(*evaluate(task, near))
    return front, spent


class AmooSearch:
    """Aligned multi-objective descent and exact polish."""

    name = "amoo"

    def __init__(
        self, *, rule: str = "pamoo", starts: int = _STARTS, steps: int = _STEPS, polish_evaluations: int = _POLISH
    ) -> None:
        if starts < 1:
            raise UsageError(f"amoo starts is {starts}; at least 1 is needed")
        self.rule, self.starts, self.steps, self.polish_evaluations = rule, starts, steps, polish_evaluations
        self._rounds: dict[tuple[int, int, int], ExactFront] = {}
        self._prepared: tuple[tuple[int, int], Relaxed, Alignment] | None = None

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.base.Strategy`: the designs of the rounds' fronts, spread first."""
        if task.learnt:
            raise UsageError(f"strategy amoo needs every metric known and task {task.name} learns {', '.join(task.learnt)}")
        taken = taken_rows(task, history)
        if task.listable and not len(left_over(task, taken)):
            return None
        number_of_round, idle = 0, 0
        while idle < _ROUNDS_WITHOUT_NEWS:
            front = self.round(task, number_of_round, seed)
            new = [i for i, row in enumerate(front.rows.tolist()) if tuple(row) not in taken]
            if new:
                # From the ends inwards by halves, so that a few proposals already span the front.
                best = min(new, key=lambda i: _halving(i, len(front.rows)))
                return proposal_of(task, front.rows[best], round=number_of_round)
            idle = idle + 1 if not len(front.rows) else 0
            number_of_round += 1
            if number_of_round > number + _ROUNDS_WITHOUT_NEWS:
                break
        row = draw(task, rng_of(seed, number), taken)
        return None if row is None else proposal_of(task, row, origin="random")

    def prepare(self, task: Task, seed: int) -> tuple[Relaxed, Alignment]:
        """Relaxation and alignment of a task."""
        key = (id(task), seed)
        if self._prepared is None or self._prepared[0] != key:
            relaxed = Relaxed.of(task, seed)
            self._prepared = (key, relaxed, alignment(task, seed=seed, relaxed=relaxed))
        return self._prepared[1], self._prepared[2]

    def round(self, task: Task, number: int, seed: int) -> ExactFront:
        """The exact front of one round."""
        key = (id(task), number, seed)
        if key not in self._rounds:
            self._rounds[key] = self._round(task, number, seed)
        return self._rounds[key]

    def _round(self, task: Task, number: int, seed: int) -> ExactFront:
        relaxed, found = self.prepare(task, seed)
        rng = rng_of(seed, number, stream=3)
        rows = draw_many(task, rng, 16 * self.starts)
        rows, values = evaluate(task, rows)
        if not len(rows):
            return ExactFront(rows, values)
        front = ExactFront(rows[:0], values[:0]).merged(rows, values)
        starts = rows[rng.permutation(len(rows))[: self.starts]]
        lead, bounds = self._bounds(relaxed, found, front, len(starts), number)
        x = task.space.coded(starts)
        ends = descend(relaxed, x, lead, found.groups, bounds, rule=self.rule, steps=self.steps)
        rounded = np.unique(np.concatenate([task.space.nearest(ends), starts]), axis=0)
        front = front.merged(*evaluate(task, rounded))
        return polish(task, front, evaluations=self.polish_evaluations)[0]

    def _bounds(
        self, relaxed: Relaxed, found: Alignment, front: ExactFront, count: int, number: int
    ) -> tuple[IntArray, FloatArray]:
        """Leading group of each start, and its bounds on the other groups' objectives, spread between the front's ends."""
        values = relaxed.transform(front.values)
        low, high = values.min(0), values.max(0)
        lead = np.arange(count, dtype=np.int64) % len(found.groups)
        bounds = np.full((count, values.shape[1]), np.inf)
        for i in range(count):
            # A van der Corput sequence over all starts of all rounds; the ends lie beyond what random designs reached.
            share = _van_der_corput(number * count + i + 1) * 1.5 - 0.5
            for g, group in enumerate(found.groups):
                if g != lead[i]:
                    for j in group:
                        bounds[i, j] = low[j] + share * (high[j] - low[j])
        return lead, bounds


def _van_der_corput(n: int) -> float:
    value, base = 0.0, 0.5
    while n:
        value += base * (n & 1)
        n >>= 1
        base *= 0.5
    return value


def _halving(i: int, count: int) -> tuple[int, int]:
    """Order of visit: ends first, then by powers of two."""
    if i in (0, count - 1):
        return (0, i)
    return (64 - (i & -i).bit_length(), i)
