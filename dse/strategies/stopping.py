"""When to stop before the budget is spent. Every rule reads the trials alone, so a resumed study stops where it would have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dse.storage.trial import Trial
from dse.strategies.task import Task


class StoppingRule(Protocol):
    """Says why to stop, or None."""

    def reason(self, task: Task, trials: Sequence[Trial]) -> str | None: ...


@dataclass(frozen=True)
class Stalled:
    """The hypervolume of the last ``window`` completed trials has grown by less than ``share`` of itself.

    The default window is max(10, twice the parameters that vary).
    """

    share: float = 1e-3
    window: int | None = None

    def reason(self, task: Task, trials: Sequence[Trial]) -> str | None:
        """See :class:`StoppingRule`."""
        varying = sum(len(p.values) > 1 for p in task.space.parameters)
        window = self.window or max(10, 2 * varying)
        done = [trial for trial in trials if trial.done]
        if len(done) <= window:
            return None
        values = task.points(done)[0]
        if not len(values):
            return None
        reference = task.reference
        if reference is None:
            low, high = values.min(0), values.max(0)
            reference = high + 0.1 * np.where(high > low, high - low, np.maximum(np.abs(high), 1e-9))
        now, then = task.hypervolume(done, reference), task.hypervolume(done[:-window], reference)
        if now > 0 and now - then < self.share * now:
            return f"the hypervolume grew by {(now - then) / now:.2%} over the last {window} trials, less than {self.share:.2%}"
        return None


@dataclass(frozen=True)
class SmallImprovement:
    """The best expected improvement of each of the last ``times`` proposals is below ``share`` of the hypervolume.

    Strategies that expect (nested, flat) note both with a trial; others never stop by this rule.
    """

    share: float = 1e-3
    times: int = 3

    def reason(self, task: Task, trials: Sequence[Trial]) -> str | None:
        """See :class:`StoppingRule`."""
        expecting = [trial for trial in trials if "gain" in trial.info and trial.done]
        if len(expecting) < self.times:
            return None
        last = expecting[-self.times :]
        if all(t.info["hypervolume"] > 0 and t.info["gain"] < self.share * t.info["hypervolume"] for t in last):
            worst = max(t.info["gain"] / t.info["hypervolume"] for t in last)
            return f"the last {self.times} proposals expected {worst:.3%} of the hypervolume at most, less than {self.share:.2%}"
        return None
