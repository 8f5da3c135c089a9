"""Training a policy by rollouts: uniform credit (GRPO), resets at random (RRPO) and at the localised thought (SRPO).

The step's prompts are as many as make ``tokens_a_step`` values on average, whatever the method spends on a prompt, so that all methods
take the same number of steps from the same number of tokens. One on-policy step of Adam a batch, temperature 1, no divergence term.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from workloads.errors import WorkloadError, unknown_name
from workloads.reasoning.training.losses import group_advantages, policy_loss, suffix_mask
from workloads.reasoning.training.model import Policy, log_probabilities, write
from workloads.reasoning.training.task import ChainTask

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LOCALISERS = ("none", "random", "oracle", "self")
EVALUATION_SEED = 20_000
WARM_ROWS = 256  # chains of a step of imitation


@dataclass(frozen=True)
class Method:
    """How rollouts are made and credited.

    Attributes:
        base, suffixes: chains of a prompt, and continuations of its first failed one (0: none, GRPO).
        localiser: where the continuation begins: ``random``; the first wrong thought by the ``oracle``; the thought to which the policy
            itself gave the least probability (``self``). hit: chance that an oracle is right, else it names any thought.
    """

    base: int
    suffixes: int = 0
    localiser: str = "none"
    hit: float = 1.0

    def __post_init__(self) -> None:
        if self.localiser not in LOCALISERS:
            raise unknown_name("localiser", self.localiser, LOCALISERS)
        if self.base < 1 or self.suffixes < 0 or (self.suffixes > 0) == (self.localiser == "none") or not 0 <= self.hit <= 1:
            raise WorkloadError(
                f"base is {self.base}, suffixes {self.suffixes}, localiser {self.localiser!r}, hit {self.hit}: must be at least 1 base "
                "chain, a localiser where there are suffixes and none elsewhere, and a hit from 0 to 1"
            )


@dataclass(frozen=True)
class Settings:
    """Rate of Adam, values made a step, and how many in all; the gradient's norm is cut at ``clip_norm``."""

    rate: float = 1e-3
    tokens_a_step: int = 1536
    tokens: int = 92_160
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Learnt:
    """What a run reached: accuracy at the end and after as many rollouts as ``at_rollouts`` asks; tokens, rollouts and steps used.

    ``hit``: share of resets that were at the first wrong thought. ``curve``: accuracy at shares of the run, if asked for.
    """

    accuracy: float
    at_rollouts: float
    tokens: int
    rollouts: int
    steps: int
    hit: float


def accuracy(policy: Policy, task: ChainTask, *, count: int = 2000, seed: int = EVALUATION_SEED) -> float:
    """Share of fresh prompts whose chain, drawn at temperature 1, ends right."""
    prompts = task.prompts(np.random.default_rng(seed), count)
    values, _ = write(policy, torch.from_numpy(prompts), task.steps, generator=torch.Generator().manual_seed(seed))
    return float(task.rewards(prompts, values.numpy()).mean())


def train(policy: Policy, task: ChainTask, method: Method, settings: Settings, *, seed: int, at_rollouts: int = 0) -> Learnt:
    """Train ``policy`` in place until ``settings.tokens`` values have been made."""
    rng = np.random.default_rng([seed, 7])
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam(policy.parameters(), lr=settings.rate)
    tokens = rollouts = steps = 0
    resets = hits = 0
    each = method.base * task.steps + method.suffixes * (task.steps + 1) / 2  # tokens of a prompt, learnt as it goes
    early = -1.0
    while tokens < settings.tokens:
        count = max(round(settings.tokens_a_step / each), 1)
        batch = _rollouts(policy, task, method, rng, generator, count)
        each = 0.7 * each + 0.3 * batch.tokens / count
        log_p = log_probabilities(policy, batch.prompts, batch.values)
        loss = policy_loss(log_p, batch.advantages, batch.mask)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.clip_norm)
        adam.step()
        tokens, rollouts, steps = tokens + batch.tokens, rollouts + len(batch.values), steps + 1
        resets, hits = resets + batch.resets, hits + batch.hits
        if at_rollouts and early < 0 and rollouts >= at_rollouts:
            early = accuracy(policy, task)
    final = accuracy(policy, task)
    return Learnt(final, final if early < 0 else early, tokens, rollouts, steps, hits / max(resets, 1))


@dataclass(frozen=True)
class _Batch:
    """Chains of a step, base first, then suffixes; ``tokens`` that were made, prefixes not counted."""

    prompts: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor
    tokens: int
    resets: int
    hits: int


def _rollouts(policy: Policy, task: ChainTask, method: Method, rng: np.random.Generator, generator: torch.Generator, count: int) -> _Batch:
    n = task.steps
    prompts = task.prompts(rng, count)
    repeated = np.repeat(prompts, method.base, axis=0)
    values, told = write(policy, torch.from_numpy(repeated), n, generator=generator)
    rewards = task.rewards(repeated, values.numpy()).reshape(count, method.base)
    parts_p, parts_v = [torch.from_numpy(repeated)], [values]
    advantages = [group_advantages(torch.from_numpy(rewards).float()).reshape(-1)]
    masks = [torch.ones(values.shape)]
    failed = np.flatnonzero((~rewards).any(axis=1))
    if method.suffixes and len(failed):
        chosen = failed * method.base + np.argmax(~rewards[failed], axis=1)
        kept = values[torch.from_numpy(chosen)]
        truth = task.first_wrong(repeated[chosen], kept.numpy())
        at = localise(method, rng, truth, told[torch.from_numpy(chosen)].numpy())
        again = np.repeat(repeated[chosen], method.suffixes, axis=0)
        starts = torch.from_numpy(at).repeat_interleave(method.suffixes)
        suffixes, _ = write(
            policy,
            torch.from_numpy(again),
            n,
            generator=generator,
            kept=kept.repeat_interleave(method.suffixes, dim=0),
            until=starts - 1,
        )
        scored = task.rewards(again, suffixes.numpy()).reshape(len(failed), method.suffixes)
        parts_p.append(torch.from_numpy(again))
        parts_v.append(suffixes)
        advantages.append(group_advantages(torch.from_numpy(scored).float()).reshape(-1))
        masks.append(suffix_mask(starts, n))
        made, hits = int((n - at + 1).sum()) * method.suffixes, int((at == truth).sum())
    else:
        made = hits = 0
    return _Batch(
        torch.cat(parts_p),
        torch.cat(parts_v),
        torch.cat(advantages),
        torch.cat(masks),
        values.numel() + made,
        len(failed) if method.suffixes else 0,
        hits,
    )


def localise(method: Method, rng: np.random.Generator, truth: IntArray, told: FloatArray) -> IntArray:
    """Thoughts (from 1) at which failed chains are made anew; ``told`` (chains, steps) log-probabilities of what was written."""
    steps = told.shape[1]
    anywhere = rng.integers(1, steps + 1, len(truth))
    if method.localiser == "random":
        return anywhere
    if method.localiser == "self":
        return np.asarray(np.argmin(told, axis=1) + 1)
    # A failed chain has a wrong thought: errors that cancel end right.
    return np.where(rng.random(len(truth)) < method.hit, truth, anywhere)


def warm_start(policy: Policy, task: ChainTask, *, hard: float, easy: float, steps: int, seed: int, rate: float = 2e-3) -> None:
    """Imitation of chains whose steps err with chances ``hard`` and ``easy`` (and go on from the error), in place."""
    rng = np.random.default_rng([seed, 3])
    adam = torch.optim.AdamW(policy.parameters(), lr=rate, weight_decay=0.01)
    for _ in range(steps):
        prompts = task.prompts(rng, WARM_ROWS)
        values = torch.from_numpy(task.noisy(rng, prompts, hard, easy))
        loss = -log_probabilities(policy, torch.from_numpy(prompts), values).mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()


def paired_interval(first: Sequence[float], second: Sequence[float], *, level: float = 0.95) -> tuple[float, float, float]:
    """Mean difference of paired runs and its Student interval (mean, low, high)."""
    from scipy.stats import t

    if len(first) != len(second) or len(first) < 2:
        raise WorkloadError(f"pairs are {len(first)} and {len(second)}, must be equally many and at least 2")
    d = np.asarray(first) - np.asarray(second)
    half = float(t.ppf(0.5 + level / 2, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)))
    return float(d.mean()), float(d.mean() - half), float(d.mean() + half)
