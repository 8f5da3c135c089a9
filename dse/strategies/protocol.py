"""The ask/tell protocol, and what every strategy needs.

A strategy is a rule from (task, trials so far, number of the next trial, seed) to a design; it keeps no state that it
could not rebuild from these, so resuming a study is replaying it. What it draws comes from (seed, number).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, StrategyError
from dse.storage.trial import RUNNING, Proposal, Trial, trial_seed
from dse.storage.trials import Claimed, TrialStore
from dse.strategies.task import Task

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Wait:
    """Nothing to propose until a running trial is told (a generation is not complete)."""


WAIT = Wait()


class Strategy(Protocol):
    """A search strategy.

    One that also has ``on_target(seen, top)`` says by it which strategy chooses the ``top`` designs that a search on a proxy measures, from
    the proxy's trials ``seen``; without it they are the proxy's best, spread over its front.
    """

    name: str

    def propose(self, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | Wait | None:
        """The design of trial ``number`` given all earlier trials; None when the space is exhausted."""
        ...


def proposed(strategy: Strategy, task: Task, history: Sequence[Trial], number: int, seed: int) -> Proposal | Wait | None:
    """What a strategy proposes; StrategyError, one sentence, where it raises an error or gives something else."""
    name = getattr(strategy, "name", type(strategy).__name__)
    try:
        found = strategy.propose(task, history, number, seed)
    except DseError:
        raise  # a sentence already
    except Exception as error:  # whatever a user's strategy raises
        hint = ""
        if any(not trial.done for trial in history) and isinstance(error, (KeyError, AttributeError, IndexError, TypeError)):
            hint = "; trials that failed or are running have no metrics, so look at trial.done first"
        raise StrategyError(f"strategy {name!r} failed at trial {number}: {type(error).__name__}: {error}{hint}") from error
    if found is not None and not isinstance(found, (Proposal, Wait)):
        raise StrategyError(
            f"strategy {name!r} proposed a {type(found).__name__} at trial {number}; a Proposal (proposal_of(task, row)), WAIT or None "
            "is needed"
        )
    if isinstance(found, Proposal) and set(found.parameters) != set(task.space.names):
        raise StrategyError(
            f"strategy {name!r} proposed {', '.join(map(str, found.parameters)) or 'nothing'} at trial {number}; a design has "
            f"{', '.join(task.space.names)}"
        )
    return found


def rng_of(seed: int, number: int, stream: int = 0) -> np.random.Generator:
    """The random numbers of one trial: they depend on the study's seed and the trial's number alone."""
    return np.random.default_rng([seed, number, stream])


def taken_rows(task: Task, history: Sequence[Trial]) -> set[tuple[int, ...]]:
    """Index rows of the designs that have been proposed, whatever became of them."""
    return set(task.taken(history))


def proposal_of(task: Task, row: IntArray, **info: object) -> Proposal:
    """A proposal of the design of an index row."""
    return Proposal(task.space.values(row), info=info)


_TRIED_AGAIN = 100
"""So often a strategy may propose a design that was tried before it is told so."""


class AskTell:
    """Ask and tell over a store: asking claims its rows in the transaction that numbers them."""

    def __init__(self, task: Task, strategy: Strategy, store: TrialStore, *, seed: int, budget: int | None = None) -> None:
        self.task, self.strategy, self.store, self.seed, self.budget = task, strategy, store, seed, budget
        self.exhausted = False

    def ask(self, count: int = 1) -> list[Trial]:
        """Claim up to ``count`` new trials.

        Empty with ``exhausted`` set: there is nothing more to propose, or the budget is spent. Empty without it: a
        running trial must be told first.
        """
        refused, last = 0, -1
        while True:
            history = self.store.trials()
            first = history[-1].number + 1 if history else 0
            # A number that nobody took and that cannot be claimed either: its design has been tried. One that draws may draw another.
            refused, last = (refused + 1 if first == last else 0), first
            if refused > _TRIED_AGAIN:
                raise StrategyError(
                    f"strategy {self.strategy.name!r} proposes nothing but designs that were tried before at trial {first}; "
                    "task.rows less those of the history are left, and None ends the search"
                )
            room = count if self.budget is None else min(count, self.budget - first)
            proposals: list[Proposal] = []
            imagined = list(history)
            ended = room <= 0
            for number in range(first, first + max(room, 0)):
                proposal = proposed(self.strategy, self.task, imagined, number, self.seed)
                if proposal is None:
                    ended = True
                    break
                if isinstance(proposal, Wait):
                    break
                proposals.append(proposal)
                imagined.append(Trial(number, dict(proposal.parameters), 0, state=RUNNING, fidelity=proposal.fidelity))
            try:
                claimed = self.store.claim(proposals, first, self.seed)
            except Claimed:
                continue  # another process was first: see what it took, propose anew
            self.exhausted = ended and not claimed
            return claimed

    def tell(self, trials: Sequence[Trial]) -> None:
        """Commit outcomes; one whose claim was lost is dropped (whoever took it over tells it)."""
        for trial in trials:
            self.store.tell(trial)


def simulate(task: Task, strategy: Strategy, *, budget: int, seed: int, on_trial: Callable[[Trial], None] | None = None) -> list[Trial]:
    """Run a strategy in memory, one trial after the other: for benchmarks and tests."""
    history: list[Trial] = []
    for number in range(budget):
        proposal = proposed(strategy, task, history, number, seed)
        if proposal is None:
            break
        assert not isinstance(proposal, Wait), "nothing is running, so there is nothing to wait for"
        trial = Trial(number, dict(proposal.parameters), trial_seed(seed, number), info=dict(proposal.info))
        metrics = dict(task.measure_known(trial.parameters))
        if task.evaluator is not None:
            metrics |= task.evaluator(trial.parameters, fidelity=proposal.fidelity, seed=trial.seed)
        history.append(trial.finish(metrics))
        if on_trial:
            on_trial(history[-1])
    return history
