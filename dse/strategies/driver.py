"""The loop that runs an ask/tell strategy: ask, evaluate somewhere, commit, until there is a reason to stop.

Every outcome is committed before the next trial is asked for. Killed at any instant, the study continues where it was: the
trials that were running are taken over with their numbers, parameters and seeds.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from dse.errors import DseError
from dse.quality.measured import Evaluator, Measured
from dse.quality.travelling import carried
from dse.spaces.parameters import Value
from dse.storage.trial import CANCELLED, FAILED, TIMED_OUT, Trial
from dse.storage.trials import LEASE_SECONDS, TrialStore
from dse.strategies.executors import Workers, workers
from dse.strategies.protocol import AskTell, Strategy
from dse.strategies.stopping import StoppingRule
from dse.strategies.task import Task

# How long a driver that has nothing to do waits before it looks at what another driver did.
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """How a search ended."""

    trials: list[Trial]
    reason: str


class EvaluationError(DseError):
    """An evaluation that gave no usable result."""


def evaluate_one(evaluator: Evaluator, parameters: Mapping[str, Value], fidelity: float, seed: int) -> dict[str, Any]:
    """What runs on a worker: plain values in, plain values out.

    An evaluation that exits or interrupts its process has failed, and one that changes the working folder changes nobody else's.
    """
    here = os.getcwd()
    try:
        return {name: (m.mean, m.se) for name, m in evaluator(parameters, fidelity=fidelity, seed=seed).items()}
    except SystemExit as error:
        raise EvaluationError(f"the evaluation ended its process (exit code {error.code})") from None
    except KeyboardInterrupt:
        if multiprocessing.parent_process() is None:
            raise  # in this process it is the user's
        raise EvaluationError("the evaluation was interrupted") from None
    finally:
        os.chdir(here)


def run(
    task: Task,
    store: TrialStore,
    strategy: Strategy,
    *,
    budget: int | None,
    seed: int,
    pool: Workers | None = None,
    retries: int = 1,
    timeout_s: float | None = None,
    stopping: Sequence[StoppingRule] = (),
    phase: Callable[[Trial], bool] | None = None,
    say: Callable[[str], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
    tolerated_failures: int = 10,
) -> Outcome:
    """Search until the budget of trials is spent, the space is exhausted or a rule of ``stopping`` holds.

    ``phase`` tells the trials of this search from those of a later one on the same study (a confirmation, a proxy's target):
    rules see its own alone, and once a later one has begun nothing more is proposed. A search ends only when no other driver
    of the study is still evaluating, so that every driver sees the same outcome.

    A failed, timed-out or lost evaluation is recorded and retried up to ``retries`` times with the same seed; after
    ``tolerated_failures`` trials that failed for good in a row the search ends with an error, for something is wrong with
    the evaluation. ``timeout_s`` bounds one evaluation's time (with one worker in this process the evaluator itself must
    bound it, as ``command:`` does).
    """
    if pool is None:
        with workers() as own:
            return run(task, store, strategy, budget=budget, seed=seed, pool=own, retries=retries, timeout_s=timeout_s,
                       stopping=stopping, phase=phase, say=say, on_trial=on_trial, tolerated_failures=tolerated_failures)  # fmt: skip
    loop = _Loop(task, store, strategy, budget, seed, pool, retries, timeout_s, phase, on_trial)
    try:
        while (reason := loop.step(stopping, tolerated_failures)) is None:
            pass
    except BaseException:
        # Interrupted or failing: whoever resumes need not wait until our claims run out.
        store.release()
        raise
    if say:
        say(f"search ended: {reason}")
    return Outcome(store.trials(), reason)


EXHAUSTED = "the space is exhausted"


@dataclass(frozen=True)
class _Running:
    trial: Trial
    started: float
    generation: int
    alone: bool


class _Loop:
    """The state of a driver. A dying process breaks the whole pool and does not say whose call it was: the calls that were in
    it become suspects and run again one at a time, uncounted; who breaks the pool alone has failed.
    """

    def __init__(
        self,
        task: Task,
        store: TrialStore,
        strategy: Strategy,
        budget: int | None,
        seed: int,
        pool: Workers,
        retries: int,
        timeout_s: float | None,
        phase: Callable[[Trial], bool] | None,
        on_trial: Callable[[Trial], None] | None,
    ) -> None:
        self.task, self.store, self.pool, self.retries, self.timeout_s = task, store, pool, retries, timeout_s
        self.asker = AskTell(task, strategy, store, seed=seed, budget=budget)
        self.phase, self.on_trial = phase, on_trial
        self.running: dict[Future[Any], _Running] = {}
        self.suspects: list[Trial] = []
        self.renewed = time.monotonic()

    def step(self, stopping: Sequence[StoppingRule], tolerated: int) -> str | None:
        """Hand out work and take in results; the reason to stop, or None to go on."""
        self._check_failures(tolerated)
        ending = self._why_stop(stopping)
        quarantined = bool(self.suspects) or any(item.alone for item in self.running.values())
        room = 0 if quarantined else self.pool.count - len(self.running)
        if self.suspects and not self.running:
            self._submit(self.suspects.pop(0), alone=True)
        new: list[Trial] = []
        if room:
            new = self.store.take_over(limit=room, retries=self.retries)
            if ending is None and len(new) < room:
                new += self.asker.ask(room - len(new))
        for trial in new:
            self._submit(trial)
        if not self.running and not self.suspects:
            if (ending is not None or self.asker.exhausted) and not self._others_running():
                return ending or self._end(self.store.trials())
            time.sleep(_POLL_SECONDS)
            return None
        self._collect()
        return None

    def _submit(self, trial: Trial, *, alone: bool = False) -> None:
        if self.task.evaluator is None:
            self._tell(trial.finish(self.task.measure_known(trial.parameters)))
            # Nothing to wait for; a future that is done keeps the loop going.
            future: Future[Any] = Future()
            future.set_result(None)
        else:
            evaluator = self.task.evaluator if self.pool.kind == "inline" else carried(self.task.evaluator)
            arguments = (evaluator, trial.parameters, trial.fidelity, trial.seed)
            try:
                future = self.pool.submit(evaluate_one, *arguments)
            except BrokenProcessPool:
                self.pool.renew()
                future = self.pool.submit(evaluate_one, *arguments)
        self.running[future] = _Running(trial, time.monotonic(), self.pool.generation, alone or self.pool.count == 1)

    def _collect(self) -> None:
        done, _ = wait(list(self.running), timeout=self._patience(), return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda f: self.running[f].trial.number):
            self._finish(self.running.pop(future), future)
        self._expire()
        if time.monotonic() - self.renewed > LEASE_SECONDS / 3:
            self.store.renew()
            self.renewed = time.monotonic()

    def _patience(self) -> float:
        if self.timeout_s is None:
            return LEASE_SECONDS / 3
        oldest = min(item.started for item in self.running.values())
        return min(LEASE_SECONDS / 3, max(0.0, oldest + self.timeout_s - time.monotonic()))

    def _finish(self, item: _Running, future: Future[Any]) -> None:
        trial = item.trial
        try:
            found = future.result()
            if found is None:
                return
            measured = {name: Measured(*pair) for name, pair in found.items()}
            missing = [name for name in self.task.measured if name not in measured]
            if missing:
                raise EvaluationError(f"the evaluation returned {', '.join(measured) or 'nothing'} and not {missing[0]}")
            outcome = trial.finish({**self.task.measure_known(trial.parameters), **measured})
        except CancelledError:
            outcome = trial.fail(CANCELLED, "cancelled")
        except BrokenProcessPool as error:
            if item.generation == self.pool.generation:  # else another call of the same pool has seen to it
                self.pool.renew()
            if not item.alone:
                self.suspects.append(trial)
                return
            outcome = trial.fail(FAILED, f"a worker died: {error}")
        except TimeoutError as error:
            outcome = trial.fail(TIMED_OUT, str(error) or "timed out")
        except Exception as error:  # noqa: BLE001 - whatever a user's evaluation raises is the trial's outcome
            outcome = trial.fail(FAILED, f"{type(error).__name__}: {error}")
        self._tell(outcome)

    def _expire(self) -> None:
        if self.timeout_s is None:
            return
        now = time.monotonic()
        late = [f for f, item in self.running.items() if now - item.started > self.timeout_s and not f.done()]
        if not late:
            return
        for future in late:
            trial = self.running.pop(future).trial
            future.cancel()
            self._tell(trial.fail(TIMED_OUT, f"no result after {self.timeout_s:g} s"))
        if not self.pool.cancels_one:
            # Ending one call means ending the pool; the calls beside it start again, uncounted.
            beside = [item.trial for item in self.running.values()]
            self.running.clear()
            self.pool.renew()
            for trial in beside:
                self._submit(trial)

    def _tell(self, trial: Trial) -> None:
        if self.store.tell(trial) and self.on_trial:
            self.on_trial(trial)

    def _why_stop(self, stopping: Sequence[StoppingRule]) -> str | None:
        if not stopping and self.phase is None:
            return None
        trials = self.store.trials()
        own = [trial for trial in trials if self.phase is None or self.phase(trial)]
        reason = next((reason for rule in stopping if (reason := rule.reason(self.task, own))), None)
        return reason or (self._end(own) if len(own) < len(trials) else None)

    def _end(self, trials: Sequence[Trial]) -> str:
        """Why a search ended that no rule ended."""
        spent = self.asker.budget is not None and len(trials) >= self.asker.budget
        return f"the budget of {self.asker.budget} trials is spent" if spent else EXHAUSTED

    def _others_running(self) -> bool:
        return any(trial.state == "running" for trial in self.store.trials())

    def _check_failures(self, tolerated: int) -> None:
        last = [t for t in self.store.trials() if t.finished is not None][-tolerated:]
        if len(last) == tolerated and all(t.state in (FAILED, TIMED_OUT) and t.attempts > self.retries for t in last):
            raise DseError(f"the last {tolerated} evaluations failed; the last one said: {last[-1].error}")
