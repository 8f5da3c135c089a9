"""Loops of reasoning on any back end: thoughts with correction by backtracking, debate, and rollouts with resets.

What a model returns is text from a stranger: parsing never fails, it finds nothing. A loop ends with its budget, and
`Recorder.budget.why` (the last line of the trace) says which.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError
from workloads.reasoning.backends import LOCALISE, SOLVE, VERIFY, Completion
from workloads.reasoning.closed_forms import group_advantages
from workloads.reasoning.traces import Recorder

FloatArray = npt.NDArray[np.float64]
BOXED = re.compile(r"\\boxed\{([^{}]{1,200})\}")
LEVELS = ("oracle", "autonomous")
STALLED = 3  # empty or failed completions in a row that end a chain


def parse_answer(text: str) -> str | None:
    """The last boxed answer of a text, None if there is none."""
    found = BOXED.findall(text)
    return found[-1].strip() if found else None


def parse_place(text: str, thoughts: int) -> int | None:
    """The boxed number of a thought, 0 for none of them; None where nothing usable stands."""
    answer = parse_answer(text)
    digits = re.fullmatch(r"\D{0,20}(\d{1,6})\D{0,20}", answer or "")
    place = int(digits[1]) if digits else -1
    return place if 0 <= place <= thoughts else None


def parse_verdict(text: str) -> bool | None:
    """Whether the last verdict of a text is ``correct``; None where none stands."""
    found = re.findall(r"\b(incorrect|correct)\b", text.lower())
    return found[-1] == "correct" if found else None


def majority(values: Sequence[str | None]) -> str | None:
    """The most frequent value, the first of equals; None where no value stands."""
    counts = Counter(value for value in values if value is not None)
    return counts.most_common(1)[0][0] if counts else None


@dataclass(frozen=True)
class IcsLimits:
    """Limits of Thought-ICS (defaults of its public package): thoughts, tokens of one, corrections, votes."""

    thoughts: int = 100
    thought_tokens: int = 150
    corrections: int = 10
    verify_votes: int = 1
    localise_votes: int = 1
    judge_tokens: int = 512


@dataclass(frozen=True)
class IcsResult:
    """``answers``: after 0, 1, ... corrections, the last the loop's; ``places``: what was named as the first wrong thought."""

    chain: tuple[str, ...]
    answers: tuple[str | None, ...]
    places: tuple[int, ...]
    ended: str


def thought_ics(
    problem: str, recorder: Recorder, *, level: str, correct: Callable[[str | None], bool] | None = None, limits: IcsLimits | None = None
) -> IcsResult:
    """Solve thought by thought; while the verdict is against the chain, cut it before the first wrong thought and go on from there.

    Args:
        level: ``oracle``: ``correct`` judges the answer; ``autonomous``: the model's own verdicts, by majority (unanimity against).
        correct: whether an answer is right (oracle).
    """
    if level not in LEVELS:
        raise WorkloadError(f"level is {level!r}, must be one of {', '.join(LEVELS)}; nearest is 'oracle'")
    if level == "oracle" and correct is None:
        raise WorkloadError("correct is missing, must be a function of the answer where level is 'oracle'")
    own = limits or IcsLimits()
    chain: list[str] = []
    last = _grow(problem, recorder, chain, own, (), 1.0)
    answers, places = [parse_answer(chain[-1]) if chain else None], []
    ended = "corrections"
    for _ in range(own.corrections):
        if recorder.budget.over or not chain:
            ended = recorder.budget.why or "no thought"
            break
        if level == "oracle":
            assert correct is not None
            if correct(answers[-1]):
                ended = "correct"
                break
        else:
            prompt = f"{VERIFY} {problem} {' '.join(chain)}"
            votes, last = recorder.ask("verify", [prompt] * own.verify_votes, parents=last, max_tokens=own.judge_tokens, temperature=0.3)
            verdicts = [parse_verdict(vote.text) for vote in votes]
            # Without a usable vote against it the chain stands.
            if verdicts.count(False) * 2 <= len(verdicts):
                ended = "accepted"
                break
        prompt = f"{LOCALISE} {problem} {' '.join(chain)}"
        votes, last = recorder.ask("localise", [prompt] * own.localise_votes, parents=last, max_tokens=own.judge_tokens, temperature=0.5)
        found = [parse_place(vote.text, len(chain)) for vote in votes]
        named = majority([str(place) for place in found if place is not None])
        if named is None or named == "0":
            ended = "no place"
            break
        place = int(named)
        places.append(place)
        del chain[place - 1 :]
        last = _grow(problem, recorder, chain, own, last, 0.7)
        answers.append(parse_answer(chain[-1]) if chain else None)
    return IcsResult(tuple(chain), tuple(answers), tuple(places), recorder.budget.why or ended)


def _grow(problem: str, recorder: Recorder, chain: list[str], own: IcsLimits, parents: Sequence[int], temperature: float) -> list[int]:
    """Think until an answer, the limit or the end of the budget."""
    last, stalled = list(parents), 0
    while len(chain) < own.thoughts and stalled < STALLED and not recorder.budget.over:
        prompt = f"{SOLVE} {problem} {' '.join(chain)}"
        (made,), last = recorder.ask("think", [prompt], parents=last, max_tokens=own.thought_tokens, temperature=temperature)
        if made.status != "ok" or not made.text.strip() or (chain and made.text.strip() == chain[-1]):
            stalled += 1
            if stalled == STALLED:
                recorder.budget.why = recorder.budget.why or f"back end: {made.status if made.status != 'ok' else 'repeats'}"
            continue
        stalled = 0
        chain.append(made.text.strip())
        if parse_answer(made.text) is not None:
            break
    return last


@dataclass(frozen=True)
class DebateResult:
    """``answers`` [round][agent]; ``consensus``; ``agree``: whether an agent's last answer is the consensus.

    Training signals: ``preferences`` (chosen, rejected) pairs of last texts, ``rewards`` 1 or 0, ``advantages`` group-normalised.
    """

    answers: tuple[tuple[str | None, ...], ...]
    consensus: str | None
    agree: tuple[bool, ...]
    preferences: tuple[tuple[str, str], ...]
    rewards: FloatArray
    advantages: FloatArray


def maca(
    question: str, recorder: Recorder, *, agents: int = 3, rounds: int = 2, max_tokens: int = 256, wrapper: str = "Peers said:"
) -> DebateResult:
    """Multi-agent consensus: every agent answers, then sees its peers' last answers and answers again; the majority is the label."""
    if agents < 1 or rounds < 1:
        raise WorkloadError(f"agents is {agents} and rounds {rounds}, must be at least 1 each")
    contexts = [question] * agents
    texts: list[Completion] = []
    last: list[int] = []
    answers = []
    for turn in range(rounds):
        if turn:
            said = [text.text for text in texts]
            peers = [" ".join(said[:i] + said[i + 1 :]) for i in range(len(said))]
            contexts = [f"{c} {own} {wrapper} {peer} {question}" for c, own, peer in zip(contexts, said, peers, strict=False)]
        texts, last = recorder.ask("answer", contexts, parents=last, max_tokens=max_tokens, temperature=1.0)
        answers.append(tuple(parse_answer(text.text) for text in texts))
        if recorder.budget.over or len(texts) < agents:
            break
    final = answers[-1]
    consensus = majority(final)
    agree = tuple(answer is not None and answer == consensus for answer in final)
    good = [text.text for text, yes in zip(texts, agree, strict=True) if yes]
    bad = [text.text for text, yes in zip(texts, agree, strict=True) if not yes]
    rewards = np.array(agree, dtype=np.float64)
    return DebateResult(tuple(answers), consensus, agree, tuple((g, b) for g in good for b in bad), rewards, group_advantages(rewards))


@dataclass(frozen=True)
class ResetResult:
    """Rollouts of one prompt. ``masked`` [suffix]: leading thoughts that get no gradient (the shared prefix); base has none."""

    base: tuple[tuple[str, ...], ...]
    suffixes: tuple[tuple[str, ...], ...]
    base_advantages: FloatArray
    suffix_advantages: FloatArray
    at: int
    masked: int = field(default=0)


def reset_rollouts(
    problem: str,
    recorder: Recorder,
    *,
    correct: Callable[[str | None], bool],
    base: int = 4,
    suffixes: int = 4,
    localise: bool = True,
    limits: IcsLimits | None = None,
) -> ResetResult:
    """SRPO (``localise``: the model names the first wrong thought) or RRPO (a thought drawn evenly): base rollouts, then suffixes of a
    failed one from the reset on. Advantages are normalised in each group by itself; no failed rollout, no reset (``at`` 0)."""
    own = limits or IcsLimits()
    rng = np.random.default_rng([recorder.seed, recorder.sample])
    chains: list[list[str]] = [[] for _ in range(base)]
    ends = [_grow(problem, recorder, chain, own, (), 1.0) for chain in chains]
    rewards = np.array([float(correct(parse_answer(chain[-1]) if chain else None)) for chain in chains])
    nothing = np.zeros(0)
    failed = [i for i in range(base) if not rewards[i] and chains[i]]
    frozen = tuple(map(tuple, chains))
    if not failed or recorder.budget.over:
        return ResetResult(frozen, (), group_advantages(rewards), nothing, 0)
    chosen, parents = chains[failed[0]], ends[failed[0]]
    if localise:
        prompt = f"{LOCALISE} {problem} {' '.join(chosen)}"
        votes, parents = recorder.ask("localise", [prompt], parents=parents, max_tokens=own.judge_tokens, temperature=0.5)
        at = parse_place(votes[0].text, len(chosen)) if votes else None
        if not at:
            return ResetResult(frozen, (), group_advantages(rewards), nothing, 0)
    else:
        at = int(rng.integers(1, len(chosen) + 1))
    tails: list[list[str]] = [chosen[: at - 1] for _ in range(suffixes)]
    for tail in tails:
        _grow(problem, recorder, tail, own, parents, 1.0)
    scored = np.array([float(correct(parse_answer(tail[-1]) if tail else None)) for tail in tails])
    return ResetResult(frozen, tuple(map(tuple, tails)), group_advantages(rewards), group_advantages(scored), at, at - 1)
