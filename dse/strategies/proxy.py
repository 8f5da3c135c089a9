"""One-shot proxy search: search where evaluation is clean and cheap, confirm the best few where it counts.

The search runs wholly on a proxy (public data, fewer steps, a surrogate); its best ``top`` designs, spread over the front, are
then evaluated by the target's evaluator. A strategy that has ``on_target`` (:mod:`dse.strategies.nested`) chooses all but the first few
of them itself, one after the other, from what proxy and target have shown. What is reported comes from the target alone; how far the
proxy could be trusted is Spearman's correlation over the designs that both evaluated.

Successive halving over ``fidelity`` is the same with further rungs between, or with the evaluator's own low fidelity in the proxy's
place: every rung measures the best of the rung before at a higher fidelity, sizes falling by equal factors, and only whole measurements
are reported (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943).

After Kuo and others, *On Noisy Evaluation in Federated Hyperparameter Tuning* (MLSys 2023, arXiv 2212.08930).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dse.errors import UsageError
from dse.fronts.pareto import Front
from dse.quality.measured import Evaluator, Measured, design_key
from dse.spaces.parameters import Value
from dse.storage.trial import Proposal, Trial
from dse.storage.trials import TrialStore
from dse.strategies.amoo.search import crowding
from dse.strategies.driver import run
from dse.strategies.executors import Workers
from dse.strategies.protocol import Strategy, Wait
from dse.strategies.rungs import rung_sizes
from dse.strategies.stopping import StoppingRule
from dse.strategies.task import Task

# The proxy's trials carry this fidelity, so that the target's trials of the same designs are trials of their own.
PROXY_FIDELITY = 0.0


@dataclass(frozen=True)
class ByFidelity:
    """The proxy at the proxy's fidelity, the target at any other.

    One evaluator for both halves of a proxy search: whoever takes over a trial of a killed driver evaluates it by the half
    that it belongs to. The proxy itself is asked at full fidelity: it is a whole evaluation of its own.
    """

    proxy: Evaluator
    target: Evaluator

    def __post_init__(self) -> None:
        if set(self.proxy.metrics) != set(self.target.metrics):
            raise UsageError(
                f"proxy gives {', '.join(self.proxy.metrics)} and the target {', '.join(self.target.metrics)}; both must give the same"
            )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The target's."""
        return self.target.metrics

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        if fidelity == PROXY_FIDELITY:
            return self.proxy(parameters, fidelity=1.0, seed=seed)
        return self.target(parameters, fidelity=fidelity, seed=seed)


@dataclass(frozen=True)
class ProxyResult:
    """The proxy's trials, the target's, and how the two agree over the designs that both evaluated.

    ``proxy`` is the first rung, ``rungs`` those between. ``target`` holds completed trials only; ``spearman`` is None for fewer than
    three of them or where one side is constant. ``reason`` says why the search on the first rung ended.
    """

    proxy: list[Trial]
    target: list[Trial]
    spearman: float | None
    reason: str
    rungs: list[list[Trial]]

    @property
    def saved_s(self) -> float:
        """Seconds of evaluation that measuring every design of the first rung wholly would have taken beyond what was spent."""
        spent = [_seconds(rung) for rung in (self.proxy, *self.rungs, self.target)]
        whole = spent[-1] / len(self.target) if self.target else 0.0
        return max(0.0, whole * len(self.proxy) - sum(spent))


def _seconds(trials: Sequence[Trial]) -> float:
    return sum(t.finished - t.started for t in trials if t.done and t.finished is not None)


class _AtFidelity:
    """A strategy whose proposals are of the first rung, and which sees that rung alone."""

    def __init__(self, strategy: Strategy, fidelity: float) -> None:
        self.name, self.strategy, self.fidelity = strategy.name, strategy, fidelity

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | Wait | None:
        found = self.strategy.propose(task, [t for t in history if t.fidelity == self.fidelity], number, seed)
        return replace(found, fidelity=self.fidelity) if isinstance(found, Proposal) else found


class _Listed:
    """Proposes given designs in order."""

    name = "confirm"

    def __init__(self, chosen: Sequence[Trial], first: int, fidelity: float) -> None:
        self.chosen, self.first, self.fidelity = list(chosen), first, fidelity

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        place = number - self.first
        if place >= len(self.chosen):
            return None
        origin = "target" if self.fidelity == 1.0 else "rung"
        return Proposal(self.chosen[place].parameters, self.fidelity, {"origin": origin, "of": self.chosen[place].number})


def choose_top(task: Task, trials: Sequence[Trial], top: int) -> list[Trial]:
    """The best ``top`` trials: fronts peeled one after the other, the least crowded first within one."""
    done = [t for t in trials if t.done]
    chosen: list[Trial] = []
    left = done
    while left and len(chosen) < top:
        values, owners, _ = task.points(left)
        if not len(values):
            break
        front = Front.of(owners, np.arange(len(owners), dtype=np.int64), values)
        order = np.argsort(-crowding(front.values), kind="stable")
        best = list(dict.fromkeys(front.models[order].tolist()))
        chosen += [left[i] for i in best][: top - len(chosen)]
        left = [t for i, t in enumerate(left) if i not in set(best)]
    return sorted(chosen, key=lambda t: t.number)


def proxy_search(
    task: Task,
    proxy: Evaluator | None,
    store: TrialStore,
    strategy: Strategy,
    *,
    budget: int,
    top: int,
    seed: int,
    pool: Workers | None = None,
    retries: int = 1,
    timeout_s: float | None = None,
    stopping: Sequence[StoppingRule] = (),
    fidelities: Sequence[float] = (),
    screened: bool = True,
    say: Callable[[str], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> ProxyResult:
    """Search ``task`` with ``proxy`` in its evaluator's place for ``budget`` trials, then evaluate the ``top`` with its own.

    ``proxy`` None: the task's evaluator tells the two apart itself (:class:`ByFidelity`). ``fidelities``: rungs between, at which the
    task's evaluator measures the best of the rung before; with ``screened`` false the first of them stands in the proxy's place.
    Resumable like any search.
    """
    if top < 1:
        raise UsageError(f"proxy-top is {top}; at least one design must be confirmed on the target")
    if proxy is not None:
        assert task.evaluator is not None  # a proxy of nothing
        task = replace(task, evaluator=ByFidelity(proxy, task.evaluator))
    lowest, *between = (PROXY_FIDELITY, *fidelities) if screened else tuple(fidelities)
    outcome = run(task, store, _AtFidelity(strategy, lowest), budget=budget, seed=seed, pool=pool, retries=retries, timeout_s=timeout_s,
                  stopping=stopping, phase=lambda t: t.fidelity == lowest, say=say, on_trial=on_trial)  # fmt: skip
    seen = [t for t in outcome.trials if t.fidelity == lowest]
    rungs = [seen]
    known = len(seen)
    for fidelity, size in zip((*between, 1.0), rung_sizes(max(budget, top), top, len(between))[1:], strict=True):
        follow = getattr(strategy, "on_target", None) if screened and not between else None
        chooser = follow(seen, size) if follow else _Listed(choose_top(task, rungs[-1], size), known, fidelity)
        done = run(task, store, chooser, budget=None, seed=seed, pool=pool, retries=retries, timeout_s=timeout_s,
                   phase=partial(_up_to, fidelity), on_trial=on_trial)  # fmt: skip
        rungs.append([t for t in done.trials if t.fidelity == fidelity and is_first(t)])
        known += len(rungs[-1])
    target = [t for t in rungs[-1] if t.done]
    agreement = _agreement(task, seen, target)
    if say:
        said = "too few to tell" if agreement is None else f"{agreement:.2f}"
        say(f"{len(target)} designs of the proxy measured on the target; rank correlation of the two over them: {said}")
    return ProxyResult(seen, target, agreement, outcome.reason, rungs[1:-1])


def _up_to(fidelity: float, trial: Trial) -> bool:
    """Whether a trial is of a rung up to this one."""
    return trial.fidelity <= fidelity and is_first(trial)


def is_whole(trial: Trial) -> bool:
    """Whether a trial is a measurement at full fidelity: neither the proxy's nor of a lower rung."""
    return trial.fidelity >= 1.0


def is_first(trial: Trial) -> bool:
    """Whether a trial is not a repeated measurement of a front."""
    return trial.info.get("origin") != "confirmation"


def _agreement(task: Task, seen: Sequence[Trial], target: Sequence[Trial]) -> float | None:
    """Spearman's correlation of proxy and target over the designs that both have measured."""
    metric = task.measured_objectives[0].metric
    by_design = {design_key(t.parameters): t for t in seen}
    both = [(by_design[key], t) for t in target if (key := design_key(t.parameters)) in by_design]
    pairs = np.array([(looked.metrics[metric].mean, t.metrics[metric].mean) for looked, t in both if looked.done])
    if len(pairs) < 3 or np.ptp(pairs, axis=0).min() <= 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
