"""One-shot proxy search: search where evaluation is clean and cheap, confirm the best few where it counts.

The search runs wholly on a proxy (public data, fewer steps, a surrogate); its best ``top`` designs, spread over the front, are
then evaluated by the target's evaluator. What is reported comes from the target alone; how far the proxy could be trusted is
Spearman's correlation over the confirmed designs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dse.execution import Workers
from dse.pareto import Front
from dse.strategies.base import Strategy, Wait
from dse.strategies.driver import run
from dse.strategies.task import Evaluator, Task
from dse.trials import Proposal, Trial, TrialStore

# The proxy's trials carry this fidelity, so that the target's trials of the same designs are trials of their own.
PROXY_FIDELITY = 0.0


@dataclass(frozen=True)
class ProxyResult:
    """The proxy's trials, the target's, and how the two agree over the designs that both evaluated."""

    proxy: list[Trial]
    target: list[Trial]
    spearman: float | None


class _AtFidelity:
    """A strategy whose proposals carry another fidelity."""

    def __init__(self, strategy: Strategy, fidelity: float) -> None:
        self.name, self.strategy, self.fidelity = strategy.name, strategy, fidelity

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | Wait | None:
        found = self.strategy.propose(task, [t for t in history if t.fidelity == self.fidelity], number, seed)
        return replace(found, fidelity=self.fidelity) if isinstance(found, Proposal) else found


class _Listed:
    """Proposes given designs in order."""

    name = "confirm"

    def __init__(self, chosen: Sequence[Trial], first: int) -> None:
        self.chosen, self.first = list(chosen), first

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | None:
        place = number - self.first
        if place >= len(self.chosen):
            return None
        return Proposal(self.chosen[place].parameters, 1.0, {"origin": "target", "of": self.chosen[place].number})


def choose_top(task: Task, trials: Sequence[Trial], top: int) -> list[Trial]:
    """The best ``top`` trials: fronts peeled one after the other, the least crowded first within one."""
    from dse.strategies.amoo.search import crowding

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
    proxy: Evaluator,
    store: TrialStore,
    strategy: Strategy,
    *,
    budget: int,
    top: int,
    seed: int,
    pool: Workers | None = None,
    say: Callable[[str], None] | None = None,
) -> ProxyResult:
    """Search ``task`` with ``proxy`` in its evaluator's place for ``budget`` trials, then evaluate the ``top`` with its own."""
    run(replace(task, evaluator=proxy), store, _AtFidelity(strategy, PROXY_FIDELITY), budget=budget, seed=seed, pool=pool)
    seen = [t for t in store.trials() if t.fidelity == PROXY_FIDELITY]
    chosen = choose_top(task, seen, top)
    run(task, store, _Listed(chosen, len(seen)), budget=None, seed=seed, pool=pool)
    target = [t for t in store.trials() if t.fidelity == 1.0 and t.done]
    metric = task.learnt_objectives[0].metric
    by_number = {t.number: t for t in seen}
    pairs = np.array([(by_number[t.info["of"]].metrics[metric].mean, t.metrics[metric].mean) for t in target])
    agreement: float | None = None
    if len(pairs) > 2 and np.ptp(pairs, axis=0).min() > 0:
        from scipy.stats import spearmanr

        agreement = float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
    if say:
        said = "too few to tell" if agreement is None else f"{agreement:.2f}"
        say(f"{len(target)} designs of the proxy confirmed; rank correlation of proxy and target over them: {said}")
    return ProxyResult(seen, target, agreement)
