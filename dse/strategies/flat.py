"""Flat Bayesian search over whole designs, for problems whose quality and hardware cannot be taken apart.

One Gaussian process a measured metric: costs by their logarithm, everything else as it is; what is known is taken as known.
A metric of quality is modelled over the parameters that enter it (roles model and shared) where the roles say so. The first
d + 1 trials are the middle of the space and a Sobol sequence. The acquisition is the exact expected hypervolume improvement
of independent beliefs times the probability that the measured constraints hold; it is maximised over a pool of designs that
may be proposed (random ones, neighbours and perturbations of the front), followed by local search from the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.evaluation.feasibility import meets
from dse.fronts.pareto import Front, hypervolume
from dse.quality.measured import standard_errors
from dse.storage.trial import RUNNING, Proposal, Trial
from dse.strategies.drawing import draw, draw_many, left_over
from dse.strategies.protocol import proposal_of, rng_of, taken_rows
from dse.strategies.sampling import SobolSearch
from dse.strategies.surrogates import gp
from dse.strategies.surrogates.marginals import Exact, LogNormal, Marginal, Normal, ehvi
from dse.strategies.task import Task

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_POOL = 1024
_PERTURBED = 20
_CLIMBERS = 8
_ROUNDS = 30
_LISTED_POOL = 10_000


@dataclass(frozen=True)
class Model:
    """A measured metric: its process, the parameters it is modelled over, and whether by its logarithm."""

    process: gp.GaussianProcess
    columns: IntArray
    log: bool

    def belief(self, coded: FloatArray, sign: float) -> Marginal:
        """Belief about sign x metric at designs (n, d)."""
        mean, sd = self.process.predict(coded[:, self.columns])
        if self.log and sign > 0:
            return LogNormal(mean, sd)
        return Normal(sign * mean, sd)


class FlatSearch:
    """Gaussian processes on all measured metrics, exact expected hypervolume improvement."""

    name = "flat"

    def __init__(self, *, initial: int | None = None) -> None:
        self.initial = initial
        self._first = SobolSearch()

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        varying = sum(len(parameter.values) > 1 for parameter in task.space.parameters)
        count = varying + 1 if self.initial is None else self.initial
        done = [trial for trial in history if trial.done]
        if task.inner is not None:
            raise UsageError(f"strategy {self.name} takes whole designs and task {task.name} has models; use nested")
        if number < count or len(done) < 2:
            first = self._centre(task, seed) if not number else self._first.propose(task, history, number, seed)
            return None if first is None else Proposal(first.parameters, info={"origin": "initial"})
        taken = taken_rows(task, history)
        if task.listable and not len(left_over(task, taken)):
            return None
        acquisition = self.acquisition(task, history)
        best, gain = self._maximise(task, acquisition, rng_of(seed, number), taken)
        if best is None:
            best = draw(task, rng_of(seed, number, 1), taken)
        if best is None:
            return None
        return proposal_of(task, best, origin="model", gain=gain, hypervolume=acquisition.volume)

    def _centre(self, task: Task, seed: int) -> Proposal | None:
        """The first trial: the design nearest to the middle of the coding (among a sample, where the middle is not allowed)."""
        row = task.space.nearest(np.full((1, len(task.space.names)), 0.5))
        if not task.allowed(row)[0]:
            row = task.rows if task.listable else draw_many(task, rng_of(seed, 0, 2), _LISTED_POOL)
        if not len(row):
            return None
        return proposal_of(task, row[((task.space.coded(row) - 0.5) ** 2).sum(1).argmin()])

    def acquisition(self, task: Task, history: Sequence[Trial]) -> Acquisition:
        """The acquisition function after these trials."""
        return Acquisition(task, history, self.fit)

    def fit(self, task: Task, metric: str, inputs: FloatArray, values: FloatArray, noise: FloatArray, log: bool) -> Model:
        """The model of one metric; ``values`` and ``noise`` (variance) are already logarithms where ``log``."""
        columns = modelled_over(task, metric)
        return Model(gp.fit(inputs[:, columns], values, noise), columns, log)

    def _maximise(
        self, task: Task, acquisition: Acquisition, rng: np.random.Generator, taken: set[tuple[int, ...]]
    ) -> tuple[IntArray | None, float]:
        if task.listable and len(task.rows) <= _LISTED_POOL:
            pool = task.rows[left_over(task, taken)]
            value = acquisition(pool)
            best = int(np.argmax(value))
            return pool[best], float(value[best])
        front = acquisition.front_rows
        pool = fresh(task, np.concatenate([draw_many(task, rng, _POOL), *(neighbours(task, row) for row in front),
                                           *(perturbed(task, row, rng, _PERTURBED) for row in front)]), taken)  # fmt: skip
        if not len(pool):
            return None, 0.0
        value = acquisition(pool)
        for _ in range(_ROUNDS):
            best_now = float(value.max())
            climbers = pool[np.argsort(-value, kind="stable")[:_CLIMBERS]]
            near = fresh(task, np.concatenate([neighbours(task, row) for row in climbers]), taken)
            known = {tuple(row) for row in pool.tolist()}
            near = near[[tuple(row) not in known for row in near.tolist()]] if len(near) else near
            if not len(near):
                break
            pool, value = np.concatenate([pool, near]), np.concatenate([value, acquisition(near)])
            if float(value.max()) <= best_now * (1 + 1e-6):
                break
        best = int(np.argmax(value))
        return pool[best], float(value[best])


class Acquisition:
    """Expected hypervolume improvement times the probability of meeting the measured constraints."""

    def __init__(self, task: Task, history: Sequence[Trial], fit: object) -> None:
        assert callable(fit)
        self.task = task
        done = [t for t in history if t.done]
        rows = np.array([task.space.index(t.parameters) for t in done])
        coded = task.space.coded(rows)
        wanted = dict.fromkeys([o.metric for o in task.objectives] + [c.metric for c in task.constraints])
        self.models: dict[str, Model] = {}
        for metric in wanted:
            if metric not in task.measured:
                continue
            value = np.array([t.metrics[metric].mean for t in done])
            se = standard_errors([t.metrics[metric] for t in done])
            log = bool((value > 0).all()) and not _is_gain(task, metric)
            noise = (se / value) ** 2 if log else se**2
            self.models[metric] = fit(task, metric, coded, np.log(value) if log else value, noise, log)
        self.points, owners, _ = task.points(done)
        self.reference = _reference(task, self.points)
        front = Front.of(owners, owners, self.points) if len(self.points) else None
        self.front_rows: IntArray = rows[np.unique(front.models)] if front is not None else rows[:0]
        pending = [t for t in history if t.state == RUNNING]
        self.pending = np.array([task.space.index(t.parameters) for t in pending]).reshape(len(pending), len(task.space.names))
        if len(self.pending):
            self.points = np.concatenate([self.points, self._expected(self.pending)])
        self.volume = 0.0
        if len(self.points):
            self.volume = hypervolume(self.points, self.reference)

    def __call__(self, rows: IntArray) -> FloatArray:
        """Value of designs (n, d), larger is better."""
        coded = self.task.space.coded(rows)
        known = self._known(rows)
        gain = ehvi([self._belief(o.metric, o.sign, coded, known) for o in self.task.objectives], self.points, self.reference)
        for constraint in self.task.constraints:
            if constraint.metric in self.models:
                sign = 1.0 if constraint.relation == "<=" else -1.0
                belief = self.models[constraint.metric].belief(coded, 1.0)
                below = belief.below(constraint.bound)
                gain = gain * (below if sign > 0 else 1.0 - below)
        return gain

    def _known(self, rows: IntArray) -> dict[str, FloatArray]:
        if self.task.known is None or not any(o.metric in self.task.known_metrics for o in self.task.objectives):
            return {}
        return self.task.known(self.task.space.columns(rows))

    def _belief(self, metric: str, sign: float, coded: FloatArray, known: dict[str, FloatArray]) -> Marginal:
        if metric in self.models:
            return self.models[metric].belief(coded, sign)
        return Exact(sign * np.broadcast_to(known[metric], len(coded)))

    def _expected(self, rows: IntArray) -> FloatArray:
        """Where running trials are expected to come out."""
        coded, known = self.task.space.coded(rows), self._known(rows)
        columns = []
        for objective in self.task.objectives:
            belief = self._belief(objective.metric, objective.sign, coded, known)
            if isinstance(belief, LogNormal):
                columns.append(np.exp(belief.mean))
            elif isinstance(belief, Normal):
                columns.append(belief.mean)
            else:
                assert isinstance(belief, Exact)
                columns.append(belief.value)
        return np.stack(columns, axis=1)


def modelled_over(task: Task, metric: str) -> IntArray:
    """Columns of the parameters that a metric depends on: all, or those of the model where it is quality and roles say so."""
    names = task.space.names
    roles = {p.role for p in task.space.parameters}
    if _is_gain(task, metric) and roles & {"model", "shared"} and roles & {"hardware", "deployment"}:
        chosen = set(task.space.with_role("model", "shared"))
        return np.array([i for i, name in enumerate(names) if name in chosen], dtype=np.int64)
    return np.arange(len(names), dtype=np.int64)


def _is_gain(task: Task, metric: str) -> bool:
    """Whether a metric is to be maximised: quality, by the design of the objectives, and never modelled by logarithm."""
    return any(o.metric == metric and o.direction == "max" for o in task.objectives)


def _reference(task: Task, points: FloatArray) -> FloatArray:
    if task.reference is not None:
        return task.reference
    if not len(points):
        return np.full(len(task.objectives), np.inf)
    front = Front.of(np.arange(len(points)), np.arange(len(points)), points).values
    low, high = front.min(0), front.max(0)
    return np.asarray(high + 0.1 * np.where(high > low, high - low, np.maximum(np.abs(high), 1e-9)))


def neighbours(task: Task, row: IntArray) -> IntArray:
    """All designs one value away in one parameter, (k, d)."""
    shape = np.array(task.space.shape)
    steps = np.concatenate([np.eye(len(row), dtype=np.int64), -np.eye(len(row), dtype=np.int64)])
    moved = row[None, :] + steps
    return np.asarray(moved[((moved >= 0) & (moved < shape)).all(1)])


def perturbed(task: Task, row: IntArray, rng: np.random.Generator, count: int) -> IntArray:
    """Designs with about two parameters redrawn, (count, d)."""
    shape = np.array(task.space.shape)
    fresh_rows = rng.integers(0, shape, size=(count, len(row)))
    change = rng.random((count, len(row))) < 2.0 / len(row)
    change[np.arange(count), rng.integers(0, len(row), count)] = True
    return np.asarray(np.where(change, fresh_rows, row[None, :]))


def fresh(task: Task, rows: IntArray, taken: set[tuple[int, ...]]) -> IntArray:
    """The distinct designs among ``rows`` that may be proposed and have not been, in order of appearance."""
    distinct = list(dict.fromkeys(tuple(row) for row in rows.tolist()))
    new = np.array([row for row in distinct if row not in taken], dtype=np.int64).reshape(-1, rows.shape[1])
    return new[task.allowed(new)] if len(new) else new


__all__ = ["Acquisition", "FlatSearch", "Model", "meets"]
