"""Nested search: quality is measured model by model, hardware is solved exactly.

A trial is one dear evaluation of a model. For every model the exact hardware front is known (``Task.inner``), so nothing is
spent on learning what can be computed: a Gaussian process stands for quality alone, and the expected hypervolume
improvement of a model takes its costs as they are. All models are scored; there is no inner optimiser to tune.

The first four trials (d + 1 where fewer than three parameters vary) spread over the models: one from each of as many bands of
equal count in cost (the front runs through all of them, whatever quality turns out to be), large for that cost, far from the ones
before it in the space's coding. Large is the sum of the coded parameters, each in the direction in which costs rise: what costs
something is there because it helps quality, so that the front is sought where much is had for the cost. This decides the first
trials alone.

After a search on a proxy the same rule chooses what is measured (:class:`TargetSearch`): the target is what the proxy's process predicts,
scaled by least squares, plus a process of the differences (recursive co-kriging, Le Gratiet and Garnier, *Int. J. Uncertainty
Quantification* 4, 2014). So a model that the proxy has not seen can be measured too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.fronts.pareto import Front, hypervolume
from dse.quality.measured import standard_errors
from dse.storage.trial import RUNNING, Proposal, Trial
from dse.strategies.drawing import left_over
from dse.strategies.protocol import proposal_of, rng_of, taken_rows
from dse.strategies.proxy import choose_top
from dse.strategies.surrogates import gp
from dse.strategies.surrogates.improvement import CostCells, ehvi_one_cost, expected_excess
from dse.strategies.task import Inner, Task
from dse.strategies.transfer import Prior

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# The reference point of a task that gives none: the nadir of the front as now predicted, moved out by a tenth of its range.
_MARGIN = 0.1
# The most models of an initial design without a prior; the trend has a prior of its own and needs no d + 1.
_MOST_INITIAL = 4
# Of the designs of an initial band the largest three tenths are kept, and of these one is drawn that is among the farthest tenth from
# what was chosen before.
_LARGE_SHARE = 0.7
_FAR_SHARE = 0.9


@dataclass(frozen=True)
class Prediction:
    """Quality of all models as the process sees it, to be maximised: posterior (n,) and the observed ones."""

    mean: FloatArray
    sd: FloatArray
    observed: IntArray  # positions in task.rows
    level: FloatArray  # their quality: posterior mean where noisy, the figure where exact


class NestedSearch:
    """Gaussian process on quality, exact costs, exact expected hypervolume improvement."""

    name = "nested"

    def __init__(self, *, initial: int | None = None, prior: Prior | None = None) -> None:
        self.initial, self.prior = initial, prior
        self._cells: tuple[int, CostCells, FloatArray] | None = None

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.protocol.Strategy`."""
        objective = _check(task)
        taken = taken_rows(task, history)
        free = left_over(task, taken)
        if not len(free):
            return None
        inner = task.inner
        assert inner is not None
        count = self.initial if self.initial is not None else self.default_initial(task)
        done = [trial for trial in history if trial.done and objective in trial.metrics]
        if number < count or not (done or self.prior):
            return proposal_of(task, task.rows[self._spread(task, inner, taken, free, number, count, seed)], origin="initial")
        return self._best(task, inner, free, self.predict(task, history))

    def _best(self, task: Task, inner: Inner, free: IntArray, prediction: Prediction) -> Proposal:
        """The model of ``free`` with the largest expected gain; where none is expected to gain, the one that is known least."""
        gain, volume = self._gain(task, inner, prediction)
        gain[np.setdiff1d(np.arange(len(task.rows)), free)] = -1.0
        best = int(np.argmax(gain))
        info = {"origin": "model", "gain": max(float(gain[best]), 0.0), "hypervolume": volume}
        if gain[best] <= 0:  # nothing is expected to improve: the most uncertain model says most
            spread = prediction.sd.copy()
            spread[np.setdiff1d(np.arange(len(task.rows)), free)] = -1.0
            best = int(np.argmax(spread))
        return proposal_of(task, task.rows[best], **info)

    def on_target(self, seen: Sequence[Trial], top: int) -> TargetSearch:
        """Who chooses what a proxy search measures; see :class:`TargetSearch`."""
        return TargetSearch(seen, top)

    def default_initial(self, task: Task) -> int:
        """Size of the initial design: one more than the parameters that vary, at most four; two with a warm start."""
        varying = sum(len(parameter.values) > 1 for parameter in task.space.parameters)
        return 2 if self.prior is not None else min(varying + 1, _MOST_INITIAL)

    def predict(self, task: Task, history: Sequence[Trial]) -> Prediction:
        """Posterior of quality at all models, in the direction to be maximised; running trials count as their mean."""
        objective = task.measured_objectives[0]
        sign = -objective.sign
        done = [t for t in history if t.done and objective.metric in t.metrics]
        pending = [t for t in history if t.state == RUNNING]
        coded = task.space.coded(task.rows)
        at = _positions(task, [*done, *pending])
        value = np.array([sign * t.metrics[objective.metric].mean for t in done])
        noise = standard_errors([t.metrics[objective.metric] for t in done]) ** 2
        process = self._fit(task, coded[at[: len(done)]], value, noise, sign)
        mean, sd = process.predict(coded)
        level = np.where(noise > 0, mean[at[: len(done)]], value)
        if pending:
            # What is being evaluated is taken to come out as expected: its neighbours lose their uncertainty, and it is
            # part of the front that others must improve on.
            believed = mean[at[len(done) :]]
            value, noise = np.concatenate([value, believed]), np.concatenate([noise, np.zeros(len(pending))])
            level = np.concatenate([level, believed])
            mean, sd = self._fit(task, coded[at], value, noise, sign).predict(coded)
        return Prediction(mean, sd, at, level)

    def _fit(self, task: Task, inputs: FloatArray, value: FloatArray, noise: FloatArray, sign: float) -> gp.GaussianProcess:
        if self.prior is None:
            return gp.fit(inputs, value, noise)
        more, theirs, their_noise, groups = self.prior.observations(task.space, sign)
        return gp.fit(
            np.concatenate([inputs.reshape(len(value), more.shape[1]), more]),
            np.concatenate([value, theirs]),
            np.concatenate([noise, their_noise]),
            np.concatenate([np.zeros(len(value), dtype=np.int64), groups]),
        )

    def _spread(self, task: Task, inner: Inner, taken: set[tuple[int, ...]], free: IntArray, number: int, count: int, seed: int) -> int:
        """Position of the initial design's next model."""
        rng = rng_of(seed, number)
        fronts = [inner.fronts[i] for i in task.row_numbers]
        costs = np.array([front[:, 0].min() if inner.objectives else 0.0 for front in fronts])
        order = np.argsort(costs, kind="stable")
        # The bands are visited in an order drawn once a study, so that a study stopped early still covers the range.
        bands = np.array_split(order, max(1, min(count, len(order))))
        band = bands[rng_of(seed, 0, stream=1).permutation(len(bands))[number % len(bands)]]
        band = np.intersect1d(band, free)
        if not len(band):
            band = free
        size = _size(task, costs)[band]
        band = band[size >= np.quantile(size, _LARGE_SHARE)]
        if not taken:
            return int(rng.choice(band))
        coded = task.space.coded(task.rows[band])
        others = task.space.coded(np.array(sorted(taken), dtype=np.int64))
        distance = ((coded[:, None, :] - others[None, :, :]) ** 2).sum(2).min(1)
        return int(rng.choice(band[distance >= np.quantile(distance, _FAR_SHARE)]))

    def _gain(self, task: Task, inner: Inner, seen: Prediction) -> tuple[FloatArray, float]:
        """Expected hypervolume improvement (n,) of all models, and the hypervolume of what is observed."""
        fronts = [inner.fronts[i] for i in task.row_numbers]
        floor = _quality_floor(task)
        if not inner.objectives:
            best = float(seen.level.max(initial=-np.inf)) if len(seen.level) else float(seen.mean.min())
            return expected_excess(seen.mean, seen.sd, max(best, floor)), abs(best)
        reference = task.reference if task.reference is not None else self._reference(task, fronts, seen)
        measured = [o.metric in task.measured for o in task.objectives].index(True)
        lowest = max(-float(reference[measured]), floor)
        costs = np.delete(reference, measured)
        if len(inner.objectives) == 1:
            cost = np.array([front[:, 0].min() for front in fronts])
            pair = (lowest, float(costs[0]))
            gain = ehvi_one_cost(seen.mean, seen.sd, cost, seen.level, cost[seen.observed], pair)
            return gain, _area(seen.level, cost[seen.observed], pair)
        cells = self._cells_of(task, fronts, costs)
        levels = cells.levels(seen.level, seen.observed, lowest)
        return cells.ehvi(seen.mean, seen.sd, levels), float(cells.volume * np.sum(levels - lowest))

    def _cells_of(self, task: Task, fronts: list[FloatArray], reference: FloatArray) -> CostCells:
        if self._cells is None or self._cells[0] != id(task) or not np.array_equal(self._cells[2], reference):
            low = np.minimum(np.min([front.min(0) for front in fronts], axis=0), reference * (1 - 1e-9))
            self._cells = (id(task), CostCells(fronts, low, reference), reference)
        return self._cells[1]

    def _reference(self, task: Task, fronts: list[FloatArray], seen: Prediction) -> FloatArray:
        """Nadir of the front of the posterior mean, moved out by a share of its range."""
        sizes = [len(front) for front in fronts]
        quality = np.repeat(-seen.mean, sizes)
        points = np.concatenate([quality[:, None], np.concatenate(fronts)], axis=1)
        index = np.arange(len(points), dtype=np.int64)
        front = Front.of(index, index, points).values
        low, high = front.min(0), front.max(0)
        reach = np.where(high > low, high - low, np.maximum(np.abs(high), 1e-9))
        return _in_order(task, high + _MARGIN * reach)


# Targets that are spread over the proxy's front before a line through them means something.
_FIRST_TARGETS = 3


class TargetSearch(NestedSearch):
    """Chooses the ``top`` models that a proxy search measures on its target; ``seen`` are the proxy's trials.

    target(x) = a + b proxy(x) + difference(x): a and b by least squares over the measured models, proxy and difference a process each, the
    difference with the target's noise. The first three are spread over the proxy's front, the others those with the largest expected
    hypervolume improvement of all that are not measured.
    """

    def __init__(self, seen: Sequence[Trial], top: int) -> None:
        super().__init__()
        self.seen, self.top = [trial for trial in seen if trial.done], top
        self._proxy: tuple[FloatArray, FloatArray] | None = None

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        """See :class:`dse.strategies.protocol.Strategy`; None once ``top`` models were proposed."""
        objective = _check(task)
        own = [t for t in history if t.fidelity == 1.0 and t.info.get("origin") != "confirmation"]
        if len(own) >= self.top:
            return None
        origin = {"origin": "target"}
        first = choose_top(task, self.seen, min(_FIRST_TARGETS, self.top))
        if not first:
            return None
        if len(own) < len(first):
            return Proposal(first[len(own)].parameters, info={**origin, "of": first[len(own)].number})
        free = left_over(task, taken_rows(task, own))
        if not len(free):
            return None
        inner = task.inner
        assert inner is not None
        if not any(t.done and objective in t.metrics for t in own):
            return proposal_of(task, task.rows[free[int(np.argmax(self._of_proxy(task)[0][free]))]], **origin)
        found = self._best(task, inner, free, self.predict(task, own))
        return Proposal(found.parameters, info={**found.info, **origin})

    def predict(self, task: Task, history: Sequence[Trial]) -> Prediction:
        """Posterior of the target at all models; running trials count as their mean."""
        objective = task.measured_objectives[0]
        sign = -objective.sign
        done = [t for t in history if t.done and objective.metric in t.metrics]
        pending = [t for t in history if t.state == RUNNING]
        at = _positions(task, [*done, *pending])
        value = np.array([sign * t.metrics[objective.metric].mean for t in done])
        noise = standard_errors([t.metrics[objective.metric] for t in done]) ** 2
        mean, sd = self._of_proxy(task)
        there = mean[at[: len(done)]]
        line = np.linalg.lstsq(np.stack([np.ones(len(done)), there], axis=1), value, rcond=None)[0]
        coded = task.space.coded(task.rows)
        differences, spread = gp.fit(coded[at[: len(done)]], value - line[0] - line[1] * there, noise).predict(coded)
        target = line[0] + line[1] * mean + differences
        error = np.hypot(line[1] * sd, spread)
        error[at[len(done) :]] = 0.0
        level = np.where(noise > 0, target[at[: len(done)]], value)
        return Prediction(target, error, at, np.concatenate([level, target[at[len(done) :]]]))

    def _of_proxy(self, task: Task) -> tuple[FloatArray, FloatArray]:
        """The proxy's posterior mean and deviation at all models, in the direction to be maximised."""
        if self._proxy is None:
            found = NestedSearch().predict(task, self.seen)
            self._proxy = (found.mean, found.sd)
        return self._proxy


def _positions(task: Task, trials: Sequence[Trial]) -> IntArray:
    """Positions in ``task.rows`` of the trials' models."""
    return np.array([task.row_set[task.row(t.parameters)] for t in trials], dtype=np.int64)


def _size(task: Task, costs: FloatArray) -> FloatArray:
    """How large each model (n,) is: its coded numeric parameters, summed in the directions in which the rank of ``costs`` (n,) rises.

    The directions are the signs of a least-squares plane; a parameter that costs nothing counts for nothing.
    """
    numeric = [j for j, parameter in enumerate(task.space.parameters) if parameter.numeric]
    coded = task.space.coded(task.rows)[:, numeric]
    centred = coded - coded.mean(0)
    rank = np.unique(costs, return_inverse=True)[1].astype(np.float64)
    slope = np.linalg.lstsq(centred, rank - rank.mean(), rcond=None)[0]
    # Slopes below the rounding errors of ranks have no sign.
    direction = np.where(np.abs(slope) > 1e-9 * len(costs), np.sign(slope), 0.0)
    return np.asarray(np.round(coded @ direction, 12))


def _in_order(task: Task, quality_first: FloatArray) -> FloatArray:
    """A point with quality first and the inner objectives after it, in the order of the task's objectives."""
    assert task.inner is not None
    return np.array(
        [
            quality_first[1 + task.inner.objectives.index(o.metric)] if o.metric in task.inner.objectives else quality_first[0]
            for o in task.objectives
        ]
    )


def _area(quality: FloatArray, cost: FloatArray, reference: tuple[float, float]) -> float:
    return hypervolume(np.stack([-quality, cost], axis=1), np.array([-reference[0], reference[1]]))


def _quality_floor(task: Task) -> float:
    """The least useful quality, in the direction to be maximised, that the constraints on it leave."""
    objective = task.measured_objectives[0]
    wanted = ">=" if objective.direction == "max" else "<="
    bounds = [-objective.sign * c.bound for c in task.constraints if c.metric == objective.metric and c.relation == wanted]
    return max(bounds, default=-np.inf)


def _check(task: Task) -> str:
    """The measured objective; a task that nested search cannot take is an error that says what can."""
    if task.inner is None or not task.listable:
        raise UsageError(f"strategy nested needs the exact hardware front of every model and task {task.name} has none; use ax")
    measured = task.measured_objectives
    if len(measured) != 1:
        raise UsageError(
            f"strategy nested learns one objective and task {task.name} has {len(measured)} measured ones; "
            + ("use exhaustive" if not measured else "use ax")
        )
    return measured[0].metric
