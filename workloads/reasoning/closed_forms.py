"""What loops of reasoning cost and reach, in closed form: tokens, success of chains, repair by resampling.

Every formula is derived in docs/models/reasoning.md and held to simulation in tests/workloads/reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tokens:
    """Tokens of prompts that are computed, and of outputs."""

    prefill: float
    decode: float


def maca_tokens(*, agents: int, rounds: int, prompt: int, answer: int, wrapper: int, reuse: bool) -> Tokens:
    """A debate about one question: each agent answers, then sees its peers' answers and answers again.

    Its context grows by (agents - 1) answers, ``wrapper`` tokens and the question. With reuse the question is computed once for
    all agents and an agent's own context stays; without, every call computes its whole context.
    """
    context = [prompt + r * (answer + (agents - 1) * answer + wrapper + prompt) for r in range(rounds)]
    if reuse:
        prefill = prompt + agents * (rounds - 1) * ((agents - 1) * answer + wrapper + prompt)
    else:
        prefill = agents * sum(context)
    return Tokens(prefill, agents * rounds * answer)


def chain_tokens(*, prompt: int, thoughts: int, thought: int, reuse: bool) -> Tokens:
    """A chain of thoughts, a request each: n P + n (n - 1) / 2 t tokens of prompts, or P where the cache is reused."""
    whole = thoughts * prompt + thoughts * (thoughts - 1) // 2 * thought
    return Tokens(prompt if reuse else whole, thoughts * thought)


def reset_tokens(*, base: int, suffixes: int, prompt: int, thoughts: int, thought: int, judge: int, at: int) -> Tokens:
    """Rollouts with one reset: ``base`` whole chains, a judge that reads one, ``suffixes`` from thought ``at`` on; prefixes shared."""
    prefill = prompt + prompt + thoughts * thought  # the judge's template shares nothing with the chain
    return Tokens(prefill, base * thoughts * thought + judge + suffixes * (thoughts - at + 1) * thought)


def first_error(errors: FloatArray) -> FloatArray:
    """P(first wrong thought = k), index 0: none; ``errors`` of shape (thoughts,)."""
    right = np.concatenate([[1.0], np.cumprod(1 - errors)])
    return np.concatenate([[right[-1]], right[:-1] * errors])


def named_places(first_wrong: int, thoughts: int, localisation: float) -> FloatArray:
    """P(the localiser names thought 1 .. ``thoughts``): the first wrong one with ``localisation``, else any; in a right chain (0) any."""
    named = np.full(thoughts, 1 / thoughts if first_wrong == 0 else (1 - localisation) / thoughts)
    if first_wrong:
        named[first_wrong - 1] += localisation
    return named


def repair_matrix(errors: FloatArray, resample: FloatArray, localisation: float) -> FloatArray:
    """Transition of the first wrong thought in one correction, shape (thoughts + 1, thoughts + 1); state 0 is a right chain.

    The localiser names k with chance ``localisation``, else (and for right chains always) any thought evenly. Naming l > k keeps
    the error; l <= k makes all from l on anew, thought k then failing with ``resample[k]``. Naming l in a right chain makes the rest anew.
    """
    n = len(errors)
    matrix = np.zeros((n + 1, n + 1))
    for k in range(n + 1):
        named = named_places(k, n, localisation)
        for place in range(1, n + 1):
            if k and place > k:
                matrix[k, k] += named[place - 1]
                continue
            rates = errors.copy()
            if k:
                rates[k - 1] = resample[k - 1]
            after = first_error(rates[place - 1 :])
            matrix[k, 0] += named[place - 1] * after[0]
            matrix[k, place:] += named[place - 1] * after[1:]
    return matrix


def repaired(
    errors: FloatArray,
    resample: FloatArray,
    *,
    localisation: float,
    corrections: int,
    true_positive: float = 1.0,
    false_positive: float = 0.0,
) -> FloatArray:
    """P(right) after 0 .. ``corrections`` corrections, shape (corrections + 1,). Acceptance is final.

    An oracle's verdict is ``true_positive`` 1 and ``false_positive`` 0.
    """
    state = first_error(errors)
    accepted = np.zeros_like(state)
    flag = np.concatenate([[false_positive], np.full(len(errors), true_positive)])
    matrix = repair_matrix(errors, resample, localisation)
    reached = [state[0]]
    for _ in range(corrections):
        accepted += state * (1 - flag)
        state = (state * flag) @ matrix
        reached.append(accepted[0] + state[0])
    return np.array(reached)


def suffix_success(errors: FloatArray, resample: FloatArray) -> tuple[float, float]:
    """P(right | a suffix from the first wrong thought), P(right | a suffix from a random thought), of failed chains."""
    start = first_error(errors)
    failed = start[1:] / (1 - start[0])
    n = len(errors)
    oracle = random = 0.0
    for k in range(1, n + 1):
        rates = errors.copy()
        rates[k - 1] = resample[k - 1]
        oracle += failed[k - 1] * float(np.prod(1 - rates[k - 1 :]))
        random += failed[k - 1] * sum(float(np.prod(1 - rates[place - 1 :])) for place in range(1, k + 1)) / n
    return oracle, random


def group_advantages(rewards: FloatArray) -> FloatArray:
    """(reward - mean) / standard deviation of a group; zeros where all are equal (no signal)."""
    spread = rewards.std()
    return np.zeros_like(rewards) if spread == 0 else np.asarray((rewards - rewards.mean()) / spread)
