"""The loops as plans: knobs of a search, stages with the expected number of sequences, and seeded draws of the ways through them.

Problems in step (``problems``) and their samples, agents or votes run as one batch. A stochastic loop's stages hold the chance that a
chain takes part, so that expectations are sums over binomials; `draw` gives joint counts for percentiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError, unknown_name
from workloads.reasoning.closed_forms import first_error
from workloads.reasoning.phases import Stage, Work
from workloads.reasoning.rates import Rates, correction, ics_quality, localised, maca_quality, reset, verdict

IntArray = npt.NDArray[np.int64]

KV = ("none", "prefix", "tree")
LEVELS = ("oracle", "autonomous")
LORA_RANK = 64


@dataclass(frozen=True)
class Lengths:
    """Tokens: a prompt, thoughts of a chain and tokens of one, a verdict and the words around what is judged, an answer of a debate and
    the words between its rounds."""

    prompt: int = 450
    thoughts: int = 8
    thought: int = 60
    judge: int = 200
    judge_prompt: int = 0
    answer: int = 200
    wrapper: int = 40

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            low = 0 if item.name in ("judge_prompt", "wrapper") else 1
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= 2**20:
                raise WorkloadError(f"{item.name} is {value!r}, must be a whole number from {low} to {2**20}")
        if self.thoughts > 256:
            raise WorkloadError(f"thoughts is {self.thoughts}, must be at most 256")


@dataclass(frozen=True)
class Plan:
    """One loop with the knobs chosen: stages in order, what decides quality, and how to draw a way through it.

    Attributes:
        quality: P(a problem is solved) by the scripted rates; signal: P(a group has rewards that differ; training only, else 0).
        draw: (rng, draws) -> active trials of every stage, (draws, stages).
    """

    knobs: Mapping[str, Any]
    stages: tuple[Stage, ...]
    quality: float
    draw: Callable[[np.random.Generator, int], IntArray]
    signal: float = 0.0


@dataclass(frozen=True)
class Loop:
    """A loop that can be searched.

    Attributes:
        knobs: name -> values that a search takes by default. lengths: those of the loop. unit: what a problem is.
        plan: (lengths, rates, knobs) -> Plan.
    """

    name: str
    title: str
    knobs: Mapping[str, tuple[Any, ...]]
    lengths: Lengths
    used: tuple[str, ...]
    plan: Callable[[Lengths, Rates, Mapping[str, Any]], Plan]
    sources: tuple[str, ...] = field(default=())


@dataclass
class _Stages:
    """Stages one after the other."""

    made: list[Stage] = field(default_factory=list)

    def add(self, phase: str, work: Work, trials: int, multiple: int = 1, probability: float = 1.0, prefix: str = "") -> int:
        after = (len(self.made) - 1,) if self.made else ()
        self.made.append(Stage(phase, work, trials, multiple, min(max(probability, 0.0), 1.0), after, prefix))
        return len(self.made) - 1


def _think(s: _Stages, own: Lengths, kv: str, k: int, trials: int, multiple: int, chance: float, shared: int, sharers: int) -> list[int]:
    """Thought ``k`` of some chains, a request each."""
    context = own.prompt + (k - 1) * own.thought
    found = []
    if kv == "none":
        found.append(s.add("think", Work("prefill", context), trials, multiple, chance))
    together = min(shared, context) if kv == "tree" and sharers > 1 else 0
    work = Work("decode", own.thought, context, together, sharers if together else 1)
    found.append(s.add("think", work, trials, multiple, chance, prefix=f"prompt + {k - 1} thoughts"))
    return found


def _judge(s: _Stages, own: Lengths, kv: str, phase: str, trials: int, votes: int, chance: float) -> list[int]:
    """Votes about whole chains; the judge's words come first, so that nothing of the chain's cache fits."""
    read = own.judge_prompt + own.prompt + own.thoughts * own.thought
    found = [s.add(phase, Work("prefill", read), trials, votes if kv == "none" else 1, chance)]
    tree = kv == "tree" and votes > 1
    found.append(
        s.add(phase, Work("decode", own.judge, read, read if tree else 0, votes if tree else 1), trials, votes, chance, "judged chain")
    )
    if votes > 1:
        found.append(s.add("vote", Work("host", 0), trials, 1, chance))
    return found


def plan_ics(own: Lengths, rates: Rates, knobs: Mapping[str, Any]) -> Plan:
    """Thought-ICS: chains thought by thought; verdict, place and a chain made anew from there, some times."""
    kv, samples, votes, rounds, problems = (knobs[name] for name in ("kv", "samples", "votes", "corrections", "problems"))
    oracle = knobs["level"] == "oracle"
    n, chains = own.thoughts, knobs["problems"] * knobs["samples"]
    found = correction(rates, thoughts=n, corrections=rounds, votes=votes, oracle=oracle)
    s = _Stages()
    if kv != "none":
        s.add("prompt", Work("prefill", own.prompt), problems, prefix="prompt")
    for k in range(1, n + 1):
        _think(s, own, kv, k, chains, 1, 1.0, own.prompt, samples)
    kinds: list[tuple[str, int, int]] = [("all", 0, 0)] * len(s.made)  # who takes part: (whom, correction, thought)
    for i in range(rounds):
        if not oracle:
            kinds += [("alive", i, 0)] * len(_judge(s, own, kv, "verify", chains, votes, float(found.alive[i].sum())))
        kinds += [("flagged", i, 0)] * len(_judge(s, own, kv, "localise", chains, votes, float(found.flagged[i].sum())))
        s.add("backtrack", Work("host", 0), chains, 1, float(found.flagged[i].sum()))
        kinds.append(("flagged", i, 0))
        for k in range(1, n + 1):
            made = _think(s, own, kv, k, chains, 1, float(found.reset[i, k - 1]), own.prompt, samples)
            kinds += [("reset", i, k)] * len(made)
    if samples > 1:
        s.add("vote", Work("host", 0), problems)
        kinds.append(("all", 0, 0))
    stages = tuple(s.made)
    positive = 1.0 if oracle else verdict(votes, rates.true_positive, rates.vote_correlation)
    false = 0.0 if oracle else verdict(votes, rates.false_positive, rates.vote_correlation)
    hit = localised(votes, rates, n)

    def draw(rng: np.random.Generator, draws: int) -> IntArray:
        errors = np.full(n, rates.error)
        state = _drawn(rng, first_error(errors), (draws, chains))
        alive = np.ones_like(state, dtype=bool)
        seen: dict[tuple[str, int, int], IntArray] = {}
        for i in range(rounds):
            seen["alive", i, 0] = alive.sum(axis=1)
            alive &= rng.random(state.shape) < np.where(state == 0, false, positive)
            seen["flagged", i, 0] = alive.sum(axis=1)
            place = _places(rng, state, n, hit)
            for k in range(1, n + 1):
                seen["reset", i, k] = (alive & (place <= k)).sum(axis=1)
            state = np.where(alive, _made_anew(rng, state, place, n, rates), state)
        whole = np.array([stage.trials for stage in stages])
        columns = [np.full(draws, whole[j]) if kind[0] == "all" else seen[kind] for j, kind in enumerate(kinds)]
        return np.stack(columns, axis=1)

    quality = ics_quality(rates, thoughts=n, corrections=rounds, votes=votes, samples=samples, oracle=oracle)
    return Plan(knobs, stages, quality, draw)


def plan_maca(own: Lengths, rates: Rates, knobs: Mapping[str, Any]) -> Plan:
    """MACA's debate: agents answer, then answer again with their peers' last answers before them; the most frequent is taken."""
    kv, agents, rounds, problems = (knobs[name] for name in ("kv", "agents", "rounds", "problems"))
    s, context = _Stages(), own.prompt
    grown = (agents - 1) * own.answer + own.wrapper + own.prompt
    for turn in range(rounds):
        if kv == "none":
            s.add("prompt", Work("prefill", context), problems, agents)
        elif turn == 0:
            s.add("prompt", Work("prefill", own.prompt), problems, prefix="question")
        else:
            tree = kv == "tree" and agents > 1
            work = Work("prefill", grown, context - grown, own.prompt if tree else 0, agents if tree else 1)
            s.add("prompt", work, problems, agents, prefix="question")
        together = own.prompt if kv == "tree" and agents > 1 else 0
        s.add("answer", Work("decode", own.answer, context, together, agents if together else 1), problems, agents, prefix="question")
        context += own.answer + grown
    s.add("vote", Work("host", 0), problems)
    stages = tuple(s.made)
    counts = np.array([stage.trials for stage in stages])
    quality = maca_quality(rates, agents=agents, rounds=rounds)
    return Plan(knobs, stages, quality, lambda _, draws: np.tile(counts, (draws, 1)))


def plan_srpo(own: Lengths, rates: Rates, knobs: Mapping[str, Any]) -> Plan:
    """SRPO: base rollouts, a judge that names the first wrong thought of a failed one, suffixes from there, and a step of training.

    With ``tree`` training covers a shared beginning once (packed), else each rollout whole; the loss is the same.
    """
    kv, base, suffixes, problems = (knobs[name] for name in ("kv", "samples", "suffixes", "problems"))
    n, t = own.thoughts, own.thought
    found = reset(rates, thoughts=n, base=base, suffixes=suffixes)
    s = _Stages()
    kinds: list[tuple[str, int]] = []
    if kv != "none":
        s.add("prompt", Work("prefill", own.prompt), problems, prefix="prompt")
    for k in range(1, n + 1):
        _think(s, own, kv, k, problems, base, 1.0, own.prompt, base)
    kinds += [("all", 0)] * len(s.made)
    starts = np.diff(found.reset, prepend=0.0)  # P(failed and reset at thought k)
    mean = float((starts * np.arange(n)).sum() / max(found.failed, 1e-300))
    kept = round(mean) if found.failed else 0  # thoughts before a reset, on average
    if suffixes:
        kinds += [("failed", 0)] * len(_judge(s, own, kv, "localise", problems, 1, found.failed))
        s.add("backtrack", Work("host", 0), problems, 1, found.failed)
        kinds.append(("failed", 0))
        for k in range(1, n + 1):
            reached = starts[:k].sum()
            before = int((starts[:k] * np.arange(k)).sum() / reached) if reached > 0 else 0
            made = _think(s, own, kv, k, problems, suffixes, float(found.reset[k - 1]), own.prompt + before * t, suffixes)
            kinds += [("reset", k)] * len(made)
    if knobs["train"]:
        whole = own.prompt + n * t
        for kind in ("train_forward", "train_backward"):
            if kv == "tree":
                s.add("train", Work(kind, own.prompt), problems, prefix="prompt")
                s.add("train", Work(kind, n * t, own.prompt), problems, base, prefix="prompt")
                kinds += [("all", 0)] * 2
                if suffixes:
                    work = Work(kind, (n - kept) * t, own.prompt + kept * t)
                    s.add("train", work, problems, suffixes, found.failed, prefix="prompt + thoughts kept")
                    kinds.append(("failed", 0))
            else:
                s.add("train", Work(kind, whole), problems, base)
                kinds.append(("all", 0))
                if suffixes:
                    s.add("train", Work(kind, whole), problems, suffixes, found.failed)
                    kinds.append(("failed", 0))
        s.add("train", Work("optimiser", 0), 1)
        kinds.append(("all", 0))
    stages = tuple(s.made)
    hit = localised(1, rates, n)

    def draw(rng: np.random.Generator, draws: int) -> IntArray:
        state = _drawn(rng, first_error(np.full(n, rates.error)), (draws, problems, base))
        failed = (state > 0).any(axis=2)
        first = np.argmax(state > 0, axis=2)
        chosen = np.take_along_axis(state, first[..., None], axis=2)[..., 0]
        place = _places(rng, chosen, n, hit)
        seen = {("failed", 0): failed.sum(axis=1)} | {("reset", k): (failed & (place <= k)).sum(axis=1) for k in range(1, n + 1)}
        columns = [np.full(draws, stage.trials) if kind[0] == "all" else seen[kind] for stage, kind in zip(stages, kinds, strict=True)]
        return np.stack(columns, axis=1)

    return Plan(knobs, stages, found.solved, draw, found.signal)


def _drawn(rng: np.random.Generator, chances: npt.NDArray[np.float64], shape: tuple[int, ...]) -> IntArray:
    return np.searchsorted(np.cumsum(chances)[:-1], rng.random(shape), side="right").astype(np.int64)


def _places(rng: np.random.Generator, state: IntArray, thoughts: int, hit: float) -> IntArray:
    """Thoughts that the localiser names for chains in these states."""
    anywhere = rng.integers(1, thoughts + 1, state.shape)
    return np.where((state > 0) & (rng.random(state.shape) < hit), state, anywhere)


def _made_anew(rng: np.random.Generator, state: IntArray, place: IntArray, n: int, rates: Rates) -> IntArray:
    """States of chains whose thoughts from ``place`` on are made anew; an error before it stays."""
    steps = np.arange(1, n + 1)
    chance = np.where(steps == state[..., None], rates.resample_error, rates.error)
    wrong = (rng.random((*state.shape, n)) < chance) & (steps >= place[..., None])
    first = np.where(wrong.any(axis=-1), np.argmax(wrong, axis=-1) + 1, 0)
    return np.where((state > 0) & (place > state), state, first)


_CHAIN = ("prompt", "thoughts", "thought", "judge", "judge_prompt")
LOOPS: dict[str, Loop] = {
    "thought-ics": Loop(
        "thought-ics",
        "structured thoughts with correction by backtracking (public package of Thought-ICS)",
        {
            "kv": KV,
            "samples": (1, 2, 4),
            "votes": (1, 3, 5),
            "corrections": (0, 1, 2, 4),
            "level": ("autonomous",),
            "problems": (1, 8, 32),
        },
        Lengths(),
        _CHAIN,
        plan_ics,
    ),
    "maca": Loop(
        "maca",
        "debate of agents (facebookresearch/maca)",
        {"kv": KV, "agents": (1, 3, 5, 7), "rounds": (1, 2, 3), "problems": (1, 8, 32)},
        Lengths(prompt=150, answer=200),
        ("prompt", "answer", "wrapper"),
        plan_maca,
    ),
    "srpo": Loop(
        "srpo",
        "rollouts with resets at a localised thought, and a step of training (arXiv 2605.25507)",
        {"kv": KV, "samples": (1, 2, 4, 8), "suffixes": (0, 2, 4, 8), "train": (1,), "problems": (1, 8, 32)},
        Lengths(),
        _CHAIN,
        plan_srpo,
    ),
}
WHOLE = {"samples": 64, "votes": 33, "corrections": 64, "agents": 16, "rounds": 16, "suffixes": 64, "problems": 256}  # largest values
LEAST = {"corrections": 0, "suffixes": 0}


def loop(name: str) -> Loop:
    """The loop called ``name``; an unknown name is an error that names the nearest."""
    if name not in LOOPS:
        raise unknown_name("workload", name, LOOPS)
    return LOOPS[name]


def check_knob(of: Loop, name: str, value: Any) -> Any:
    """A knob's value, or a WorkloadError that names what is allowed."""
    if name not in of.knobs:
        raise unknown_name(f"knob of {of.name}", name, of.knobs)
    words = {"kv": KV, "level": LEVELS}.get(name)
    if words:
        if value not in words:
            raise unknown_name(name, value, words)
        return value
    low, high = (0, 1) if name == "train" else (LEAST.get(name, 1), WHOLE[name])
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise WorkloadError(f"{name} is {value!r}, must be a whole number from {low} to {high}")
    return value
