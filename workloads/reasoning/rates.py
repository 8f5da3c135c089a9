"""The scripted model: stated rates of errors, verdicts and votes, and how often loops are right by them.

A stand-in for a language model, with numbers that a user states, not a claim about any model. Chains, votes and agents are independent
except where a rate says otherwise; docs/models/reasoning.md derives every formula, tests hold them to simulation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError
from workloads.reasoning.closed_forms import first_error, named_places, repair_matrix, repaired

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """Rates of the scripted model; each from 0 to 1, ``wrong_answers`` a count.

    Attributes:
        error, resample_error: chance that a thought is wrong given a right chain; of the first wrong thought made anew.
        true_positive, false_positive: chance that one verdict flags a wrong and a right chain.
        localisation: chance that one localiser names the first wrong thought, else any thought evenly.
        vote_correlation: chance that all votes of a judgement are the same draw; else they are independent.
        accuracy: chance that an agent's first answer is right. persuasion: chance that it takes over its peers' most frequent answer.
        wrong_answers: wrong answers are spread evenly over so many.
    """

    error: float = 0.1
    resample_error: float = 0.2
    true_positive: float = 0.8
    false_positive: float = 0.1
    localisation: float = 0.7
    vote_correlation: float = 0.5
    accuracy: float = 0.6
    persuasion: float = 0.5
    wrong_answers: int = 4

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "wrong_answers":
                if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1000:
                    raise WorkloadError(f"wrong_answers is {value!r}, must be a whole number from 1 to 1000")
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise WorkloadError(f"{item.name} is {value!r}, must be a number from 0 to 1")


def plurality(votes: int, right: float, others: int) -> float:
    """P(the right value is named most often) of independent votes; the others are spread evenly over ``others`` wrong values.

    Of equally frequent values the first that was said wins, each with the same chance. Exact: votes for the wrong values by
    their exponential generating function.
    """
    total = 0.0
    for mine in range(1, votes + 1):
        rest = votes - mine
        chance = math.comb(votes, mine) * right**mine * (1 - right) ** rest
        total += chance * _most(mine, rest, others)
    return total


@lru_cache(maxsize=4096)
def _most(mine: int, rest: int, others: int) -> float:
    """P(a value with ``mine`` votes wins against ``rest`` votes spread evenly over ``others`` values)."""
    below = np.array([1 / math.factorial(j) for j in range(min(mine, rest + 1))])
    won = 0.0
    for tied in range(min(others, rest // mine) + 1):
        left = rest - tied * mine
        # Coefficient of x^left in (sum over j < mine of x^j / j!)^(others - tied).
        series = np.array([1.0])
        for _ in range(others - tied):
            series = np.convolve(series, below)[: left + 1]
        ways = series[left] if left < len(series) else 0.0
        chance = math.comb(others, tied) * ways * math.factorial(rest) / math.factorial(mine) ** tied / others**rest
        won += chance / (tied + 1)
    return won


def verdict(votes: int, single: float, correlation: float) -> float:
    """P(more than half of the votes flag a chain)."""
    most = sum(math.comb(votes, j) * single**j * (1 - single) ** (votes - j) for j in range(votes // 2 + 1, votes + 1))
    return correlation * single + (1 - correlation) * most


def localised(votes: int, rates: Rates, thoughts: int) -> float:
    """The localisation rate of the most frequent of several votes, in the words of one (else any thought evenly)."""
    if thoughts == 1:
        return 1.0
    single = rates.localisation + (1 - rates.localisation) / thoughts
    won = rates.vote_correlation * single + (1 - rates.vote_correlation) * plurality(votes, single, thoughts - 1)
    return min(max((won - 1 / thoughts) / (1 - 1 / thoughts), 0.0), 1.0)


@dataclass(frozen=True)
class Correction:
    """Chains of a loop with corrections, by state (0: right, k: first wrong thought k).

    Attributes:
        alive: P(not yet accepted, state) before each correction, (corrections, thoughts + 1). flagged: of them, found wrong.
        reset: P(flagged and reset at or before thought k), (corrections, thoughts). right: P(right) after 0.. corrections.
    """

    alive: FloatArray
    flagged: FloatArray
    reset: FloatArray
    right: FloatArray


def correction(rates: Rates, *, thoughts: int, corrections: int, votes: int, oracle: bool) -> Correction:
    """The Markov chain of a thought-ICS loop: verdict (an oracle's, or a majority), place (most frequent), chain made anew."""
    errors, again = np.full(thoughts, rates.error), np.full(thoughts, rates.resample_error)
    positive = 1.0 if oracle else verdict(votes, rates.true_positive, rates.vote_correlation)
    false = 0.0 if oracle else verdict(votes, rates.false_positive, rates.vote_correlation)
    hit = localised(votes, rates, thoughts)
    flag = np.concatenate([[false], np.full(thoughts, positive)])
    matrix = repair_matrix(errors, again, hit)
    places = np.array([named_places(k, thoughts, hit) for k in range(thoughts + 1)])
    state = first_error(errors)
    alive, flagged, reset = [], [], []
    for _ in range(corrections):
        found = state * flag
        alive.append(state)
        flagged.append(found)
        reset.append(np.cumsum(found @ places))
        state = found @ matrix
    shape = (corrections, thoughts + 1)
    right = repaired(errors, again, localisation=hit, corrections=corrections, true_positive=positive, false_positive=false)
    return Correction(np.reshape(alive, shape), np.reshape(flagged, shape), np.reshape(reset, (corrections, thoughts)), right)


def ics_quality(rates: Rates, *, thoughts: int, corrections: int, votes: int, samples: int, oracle: bool) -> float:
    """P(solved): with an oracle any of the samples right, else the most frequent answer of them."""
    right = float(correction(rates, thoughts=thoughts, corrections=corrections, votes=votes, oracle=oracle).right[-1])
    return 1 - (1 - right) ** samples if oracle else plurality(samples, right, rates.wrong_answers)


def maca_quality(rates: Rates, *, agents: int, rounds: int) -> float:
    """P(the most frequent last answer is right). In each round after the first an agent takes over, with ``persuasion``, the answer that
    more of its peers gave than any other, its own included; where several lead it keeps its own."""
    states = _first_answers(agents, rates.accuracy, rates.wrong_answers)
    for _ in range(rounds - 1):
        after: dict[tuple[int, ...], float] = {}
        for state, chance in states.items():
            for key, p in _debated(state, rates.persuasion).items():
                after[key] = after.get(key, 0.0) + chance * p
        states = after
    won = 0.0
    for (mine, *others), chance in states.items():
        if mine and mine >= max(others, default=0):
            won += chance / (1 + others.count(mine))
    return won


def _first_answers(agents: int, accuracy: float, wrong: int) -> dict[tuple[int, ...], float]:
    """P(agents by answer): the right one first, then how many gave each wrong one, largest first."""
    states: dict[tuple[int, ...], float] = {(0,): 1.0}
    for _ in range(agents):
        after: dict[tuple[int, ...], float] = {}
        for (mine, *others), chance in states.items():
            moves = [((mine + 1, *others), accuracy)]
            share = (1 - accuracy) / wrong
            moves += [((mine, *sorted([*others[:i], n + 1, *others[i + 1 :]], reverse=True)), share) for i, n in enumerate(others)]
            if wrong > len(others):
                moves.append(((mine, *others, 1), share * (wrong - len(others))))
            for key, p in moves:
                after[key] = after.get(key, 0.0) + chance * p
        states = after
    return states


def _debated(state: tuple[int, ...], persuasion: float) -> dict[tuple[int, ...], float]:
    """P(agents by answer) after every agent has seen its peers."""
    found: dict[tuple[int, ...], float] = {tuple([0] * len(state)): 1.0}
    for own, members in enumerate(state):
        if not members:
            continue
        peers = [n - (i == own) for i, n in enumerate(state)]
        top = max(peers)
        leads = peers.count(top) == 1 and peers.index(top) != own
        target = peers.index(top) if leads else own
        after: dict[tuple[int, ...], float] = {}
        for counts, chance in found.items():
            for moved in range(members + 1) if leads else (0,):
                p = math.comb(members, moved) * persuasion**moved * (1 - persuasion) ** (members - moved) if leads else 1.0
                made = list(counts)
                made[target] += moved
                made[own] += members - moved
                after[tuple(made)] = after.get(tuple(made), 0.0) + chance * p
        found = after
    tidy: dict[tuple[int, ...], float] = {}
    for (mine, *others), chance in found.items():
        key = (mine, *sorted((n for n in others if n), reverse=True))
        tidy[key] = tidy.get(key, 0.0) + chance
    return tidy


@dataclass(frozen=True)
class Reset:
    """Rollouts with a reset.

    Attributes:
        failed: P(some base rollout fails). reset: P(that and the reset at or before thought k), (thoughts,).
        solved: P(any rollout is right). signal: P(rewards differ in the base group or among the suffixes).
    """

    failed: float
    reset: FloatArray
    solved: float
    signal: float


def reset(rates: Rates, *, thoughts: int, base: int, suffixes: int) -> Reset:
    """Base rollouts, then suffixes of the first failed one from where the localiser says."""
    errors = np.full(thoughts, rates.error)
    start = first_error(errors)
    right = float(start[0])
    failed = 1 - right**base
    chain = start[1:] / max(1 - right, 1e-300)
    places = np.array([named_places(k, thoughts, localised(1, rates, thoughts)) for k in range(1, thoughts + 1)])
    missed = mixed = 0.0
    for k in range(1, thoughts + 1):
        again = errors.copy()
        again[k - 1] = rates.resample_error
        for place in range(1, thoughts + 1):
            chance = chain[k - 1] * places[k - 1, place - 1]
            success = float(np.prod(1 - again[place - 1 :])) if place <= k else 0.0
            missed += chance * (1 - success) ** suffixes
            mixed += chance * (1 - success**suffixes - (1 - success) ** suffixes) if suffixes else 0.0
    return Reset(
        failed,
        failed * np.cumsum(chain @ places),
        1 - (1 - right) ** base * missed,
        1 - right**base - (1 - right) ** base * (1 - mixed),
    )
