"""``amoo``: descent on the relaxed cost model, rounding, and an exact Pareto polish, for spaces too large to enumerate.

A round: starts, each with a leading group of aligned objectives and its own bounds on the others; descent; rounding to the
space; then neighbours of the exact front are evaluated with the exact model until none improves it or the round's share of
evaluations is spent. The first round starts from random designs with bounds spread over the range; later ones from the least
crowded designs of the front, improving one group while the others stay as good as they are. Only exact values are reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.evaluation.feasibility import meets
from dse.fronts.pareto import Front
from dse.storage.trial import Proposal, Trial
from dse.strategies.amoo.alignment import Alignment, alignment
from dse.strategies.amoo.descent import descend
from dse.strategies.amoo.relaxed import Relaxed
from dse.strategies.drawing import draw, left_over, neighbours_of, sample
from dse.strategies.protocol import proposal_of, rng_of, taken_rows
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_STARTS = 24
_STEPS = 20
_DRAWS = 16
_POLISH = 20_000
_EXPAND = 32
_WORKING = 400
_SLACK = 0.01
_ROUNDS_WITHOUT_NEWS = 4


@dataclass(frozen=True)
class ExactFront:
    """Designs (n, d) and their exact objective values (n, m), minimised, none dominated."""

    rows: IntArray
    values: FloatArray

    @classmethod
    def empty(cls, task: Task) -> ExactFront:
        """No design."""
        return cls(np.zeros((0, len(task.space.names)), dtype=np.int64), np.zeros((0, len(task.objectives))))

    def merged(self, rows: IntArray, values: FloatArray) -> ExactFront:
        """The front of the union; of equal designs one stays."""
        rows, values = np.concatenate([self.rows, rows]), np.concatenate([self.values, values])
        index = np.arange(len(rows), dtype=np.int64)
        front = Front.of(index, index, values)
        kept = front.models
        _, first = np.unique(rows[kept], axis=0, return_index=True)
        first = np.sort(first)
        return ExactFront(rows[kept][first], front.values[first])

    def take(self, chosen: IntArray) -> ExactFront:
        """Some of the designs."""
        return ExactFront(self.rows[chosen], self.values[chosen])


def crowding(values: FloatArray) -> FloatArray:
    """Crowding distance (n,) of Deb and others (NSGA-II, 2002), on logarithms where all values are positive; ends infinite."""
    values = np.log(values) if len(values) and (values > 0).all() else values
    total = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        spread = max(float(np.ptp(column)), 1e-300)
        gaps = np.full(len(values), np.inf)
        gaps[1:-1] = (column[order][2:] - column[order][:-2]) / spread
        total[order] += gaps
    return total


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


def polish(
    task: Task, front: ExactFront, *, evaluations: int, rng: np.random.Generator, expand: int = _EXPAND, working: int = _WORKING
) -> ExactFront:
    """Evaluate neighbours of the front until none improves it or the evaluations are spent: a Pareto local search.

    Neighbours are 1, 4 and 16 values away in one parameter (as far as it has so many), and as many again a random step away
    in two: a clock that needs its voltage moves along with it. The least crowded designs go first. Of a front of more than
    ``working`` designs the least crowded are worked on; the rest is kept and rejoins at the end.
    """
    expanded: set[tuple[int, ...]] = set()
    aside: list[ExactFront] = []
    current, spent = front, 0
    while spent < evaluations:
        if len(current.rows) > 2 * working:
            aside.append(current)
            current = current.take(np.sort(np.argsort(-crowding(current.values), kind="stable")[:working]))
        fresh = np.array([i for i, row in enumerate(current.rows.tolist()) if tuple(row) not in expanded], dtype=np.int64)
        if not len(fresh):
            break
        chosen = fresh[np.argsort(-crowding(current.values)[fresh], kind="stable")[:expand]]
        expanded.update(tuple(row) for row in current.rows[chosen].tolist())
        near = neighbours_of(task, current.rows[chosen], rng)
        spent += len(near)
        current = current.merged(*evaluate(task, near))
    for part in aside:
        current = current.merged(part.rows, part.values)
    return current


class AmooSearch:
    """Aligned multi-objective descent and exact polish."""

    name = "amoo"

    def __init__(
        self,
        *,
        rule: str = "pamoo",
        starts: int = _STARTS,
        steps: int = _STEPS,
        polish_evaluations: int = _POLISH,
        draws: int = _DRAWS,
    ) -> None:
        """``rule``: pamoo, camoo or equal; a round evaluates ``draws`` random designs a start and descends ``steps`` steps."""
        if starts < 1 or draws < 1:
            raise UsageError(f"amoo starts is {starts} and draws is {draws}; at least 1 is needed")
        self.rule, self.starts, self.steps, self.polish_evaluations = rule, starts, steps, polish_evaluations
        self.draws = draws
        self._rounds: dict[tuple[int, int], list[ExactFront]] = {}
        self._prepared: tuple[tuple[int, int], Relaxed, Alignment] | None = None

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.protocol.Strategy`: the designs of the front after round 0, 1, ..., spread first."""
        _check(task)
        taken = taken_rows(task, history)
        if task.listable and not len(left_over(task, taken)):
            return None
        for rounds in range(1, number + _ROUNDS_WITHOUT_NEWS):
            front = self.front(task, seed, rounds)
            new = np.array([i for i, row in enumerate(front.rows.tolist()) if tuple(row) not in taken], dtype=np.int64)
            if len(new):
                best = int(new[np.argmax(crowding(front.values)[new])])
                return proposal_of(task, front.rows[best], round=rounds - 1)
        row = draw(task, rng_of(seed, number), taken)
        return None if row is None else proposal_of(task, row, origin="random")

    def prepare(self, task: Task, seed: int) -> tuple[Relaxed, Alignment]:
        """Relaxation and alignment of a task."""
        key = (id(task), seed)
        if self._prepared is None or self._prepared[0] != key:
            relaxed = Relaxed.of(task, seed)
            self._prepared = (key, relaxed, alignment(task, seed=seed, relaxed=relaxed))
        return self._prepared[1], self._prepared[2]

    def front(self, task: Task, seed: int, rounds: int, start: ExactFront | None = None) -> ExactFront:
        """The exact front after a number of rounds, continued from ``start`` where one is given.

        A round depends on the seed, its number and the front before it, so the same call gives the same front; rounds that
        were computed are remembered.
        """
        key = (id(task), seed)
        known = self._rounds.setdefault(key, [])
        for number in range(len(known), rounds):
            before = known[-1] if known else (start or ExactFront.empty(task))
            known.append(self._round(task, before, number, seed))
        return known[rounds - 1]

    def _round(self, task: Task, front: ExactFront, number: int, seed: int) -> ExactFront:
        relaxed, found = self.prepare(task, seed)
        rng = rng_of(seed, number, stream=3)
        rows, values = evaluate(task, sample(task, rng, self.draws * self.starts))
        fresh = len(front.rows) < self.starts
        front = front.merged(rows, values)
        if not len(front.rows):
            return front
        chosen = np.argsort(-crowding(front.values), kind="stable")[: self.starts]
        movable = self._movable(found)
        if not len(movable):
            return polish(task, front, evaluations=self.polish_evaluations, rng=rng)
        if fresh:
            starts = rows[: self.starts] if len(rows) else front.rows[chosen]
            lead, bounds = self._spread_bounds(relaxed, found, front, len(starts), number, movable)
        else:
            # Improve one group of each front design while the others stay as good as they are.
            starts = front.rows[chosen]
            own = relaxed.transform(front.values[chosen])
            lead = movable[(np.arange(len(chosen), dtype=np.int64) + number) % len(movable)]
            bounds = np.where(self._leading(found, lead, own.shape[1]), np.inf, own + _SLACK)
        ends = descend(relaxed, task.space.coded(starts), lead, found.groups, bounds, rule=self.rule, steps=self.steps)
        front = front.merged(*evaluate(task, task.space.nearest(ends)))
        return polish(task, front, evaluations=self.polish_evaluations, rng=rng)

    @staticmethod
    def _movable(found: Alignment) -> IntArray:
        """Groups that descent can move: an objective of discrete parameters alone has no gradient (its cosine with itself is 0)."""
        return np.array([g for g, group in enumerate(found.groups) if found.cosine[group[0], group[0]] > 0], dtype=np.int64)

    @staticmethod
    def _leading(found: Alignment, lead: IntArray, count: int) -> npt.NDArray[np.bool_]:
        return np.array([[j in found.groups[g] for j in range(count)] for g in lead.tolist()], dtype=bool)

    @staticmethod
    def _spread_bounds(
        relaxed: Relaxed, found: Alignment, front: ExactFront, count: int, number: int, movable: IntArray
    ) -> tuple[IntArray, FloatArray]:
        """Leading group of each start, and its bounds on the other groups' objectives, spread between the front's ends."""
        values = relaxed.transform(front.values)
        low, high = values.min(0), values.max(0)
        lead = movable[np.arange(count, dtype=np.int64) % len(movable)]
        bounds = np.full((count, values.shape[1]), np.inf)
        for i in range(count):
            # A van der Corput sequence over all starts of all rounds; the ends lie beyond what random designs reached.
            share = _van_der_corput(number * count + i + 1) * 1.5 - 0.5
            for g, group in enumerate(found.groups):
                if g != lead[i]:
                    bounds[i, list(group)] = (low + share * (high - low))[list(group)]
        return lead, bounds


def _check(task: Task) -> None:
    if task.measured:
        raise UsageError(f"strategy amoo needs every metric known and task {task.name} learns {', '.join(task.measured)}")


def _van_der_corput(n: int) -> float:
    value, base = 0.0, 0.5
    while n:
        value += base * (n & 1)
        n >>= 1
        base *= 0.5
    return value
