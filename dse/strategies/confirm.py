"""Confirmation: the designs of a noisy front measured again, and what selection had flattered.

A front of noisy measurements holds the lucky ones: the best of many noisy values is above its true value on average (the
winner's curse). The designs of the front are therefore measured again with fresh seeds; their quality is reported from the
new measurements alone, which selection has not touched, and the difference from the old ones is reported as the curse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dse.quality.measured import Measured
from dse.storage.trial import Proposal, Trial
from dse.storage.trials import TrialStore
from dse.strategies.driver import run
from dse.strategies.executors import Workers
from dse.strategies.protocol import Wait
from dse.strategies.task import Task


@dataclass(frozen=True)
class Confirmation:
    """What a confirmation found.

    ``quality``: trial number -> mean and standard error of the new measurements. ``curse``: mean of old minus new, in the
    direction that flatters, with its standard error.
    """

    quality: dict[int, Measured]
    curse: Measured

    def __str__(self) -> str:
        return (
            f"{len(self.quality)} designs of the front measured again: selection had flattered them by "
            f"{self.curse.mean:.3g} +- {self.curse.se:.2g} on average"
        )


class _Again:
    """Measures given trials ``times`` times more; what it proposes depends on the recorded search alone."""

    name = "confirmation"

    def __init__(self, chosen: Sequence[Trial], first: int, times: int, fidelity: float) -> None:
        self.chosen, self.first, self.times, self.fidelity = list(chosen), first, times, fidelity

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | Wait | None:
        place = number - self.first
        if place >= len(self.chosen) * self.times:
            return None
        trial = self.chosen[place % len(self.chosen)]
        # Replicate 0 at another fidelity than the trial's own is a measurement not yet made.
        return Proposal(trial.parameters, self.fidelity, {"origin": "confirmation", "of": trial.number},
                        replicate=1 + place // len(self.chosen))  # fmt: skip


def confirm(
    task: Task,
    store: TrialStore,
    chosen: Sequence[int],
    *,
    times: int,
    seed: int,
    fidelity: float = 1.0,
    pool: Workers | None = None,
    retries: int = 1,
    say: Callable[[str], None] | None = None,
) -> Confirmation:
    """Measure the trials numbered ``chosen`` again, ``times`` times each at ``fidelity``; resumable like any search."""
    trials = {trial.number: trial for trial in store.trials()}
    own = [t for t in trials.values() if t.info.get("origin") != "confirmation"]
    first = max((t.number for t in own), default=-1) + 1
    strategy = _Again([trials[number] for number in chosen], first, times, fidelity)
    run(task, store, strategy, budget=None, seed=seed, pool=pool, retries=retries)
    found = gather(task, store.trials(), chosen)
    if say:
        say(str(found))
    return found


def gather(task: Task, trials: Sequence[Trial], chosen: Sequence[int]) -> Confirmation:
    """Pool the confirmations among ``trials`` of the trials numbered ``chosen``."""
    objective = task.measured_objectives[0]
    by_number = {trial.number: trial for trial in trials}
    quality: dict[int, Measured] = {}
    flattery = []
    for number in chosen:
        again = [t.metrics[objective.metric] for t in trials if t.done and t.info.get("of") == number]
        if not again:
            continue
        means = np.array([m.mean for m in again])
        stated = float(np.sqrt(sum(m.se**2 for m in again)) / len(again))
        seen = float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0
        quality[number] = Measured(float(means.mean()), max(stated, seen))
        old = by_number[number].metrics.get(objective.metric)
        if old is not None:
            flattery.append(-objective.sign * (old.mean - quality[number].mean))
    spread = float(np.std(flattery, ddof=1) / np.sqrt(len(flattery))) if len(flattery) > 1 else 0.0
    return Confirmation(quality, Measured(float(np.mean(flattery)) if flattery else 0.0, spread))
