"""MACA's training on a tiny ensemble: agents answer, the most frequent answer is the label, and the policy is trained to agree with it.

Agents are chains of one policy drawn at temperature 1; rounds of debate are not part of it. Nothing here reads the truth but ``truth``,
which shows what a verifier's label would give, and the figures.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from workloads.errors import WorkloadError, unknown_name
from workloads.reasoning.training.losses import dpo_loss, group_advantages, kto_loss, policy_loss, sft_loss
from workloads.reasoning.training.model import Policy, log_probabilities, write
from workloads.reasoning.training.resets import EVALUATION_SEED, Settings
from workloads.reasoning.training.task import ChainTask

IntArray = npt.NDArray[np.int64]

SIGNALS = ("sft", "dpo", "kto", "grpo", "truth")
PAIRS = 4  # (chosen, rejected) pairs of a prompt


@dataclass(frozen=True)
class Agreement:
    """Shares: right answers of single agents, right majorities, and agents that agree with their majority."""

    single: float
    majority: float
    consistency: float


def majorities(answers: IntArray) -> IntArray:
    """Most frequent answer of each row (rows, agents), of equals the first that was given."""
    counts = (answers[:, :, None] == answers[:, None, :]).sum(axis=2)
    return np.take_along_axis(answers, np.argmax(counts, axis=1)[:, None], axis=1)[:, 0]


def agreement(policy: Policy, task: ChainTask, *, agents: int = 8, count: int = 500, seed: int = EVALUATION_SEED) -> Agreement:
    """Figures of an ensemble on fresh prompts."""
    prompts = task.prompts(np.random.default_rng(seed), count)
    repeated = torch.from_numpy(np.repeat(prompts, agents, axis=0))
    values, _ = write(policy, repeated, task.steps, generator=torch.Generator().manual_seed(seed))
    answers = values[:, -1].numpy().reshape(count, agents)
    truth, label = task.solutions(prompts)[:, -1], majorities(answers)
    return Agreement(float((answers == truth[:, None]).mean()), float((label == truth).mean()), float((answers == label[:, None]).mean()))


def train_consensus(policy: Policy, task: ChainTask, signal: str, settings: Settings, *, seed: int, agents: int = 8) -> None:
    """Train ``policy`` in place with one of `SIGNALS` until ``settings.tokens`` values have been made."""
    if signal not in SIGNALS:
        raise unknown_name("signal", signal, SIGNALS)
    if agents < 2:
        raise WorkloadError(f"agents is {agents}, must be at least 2 to agree")
    rng = np.random.default_rng([seed, 11])
    generator = torch.Generator().manual_seed(seed)
    reference = copy.deepcopy(policy).requires_grad_(False)
    adam = torch.optim.Adam(policy.parameters(), lr=settings.rate)
    count = max(round(settings.tokens_a_step / (agents * task.steps)), 1)
    for _ in range(max(settings.tokens // (count * agents * task.steps), 1)):
        prompts = np.repeat(task.prompts(rng, count), agents, axis=0)
        texts = torch.from_numpy(prompts)
        values, _ = write(policy, texts, task.steps, generator=generator)
        answers = values[:, -1].numpy().reshape(count, agents)
        agree = (
            task.rewards(prompts, values.numpy()).reshape(count, agents) if signal == "truth" else answers == majorities(answers)[:, None]
        )
        loss = _loss(signal, policy, reference, texts, values, torch.from_numpy(agree), rng)
        if loss is None:
            continue
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), settings.clip_norm)
        adam.step()


def _loss(
    signal: str, policy: Policy, reference: Policy, texts: torch.Tensor, values: torch.Tensor, agree: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor | None:
    """The loss of a batch; None where no prompt has both sides of a pair."""
    if signal == "dpo":
        chosen, rejected = pairs(agree.numpy(), rng)
        if not len(chosen):
            return None
        both = torch.from_numpy(np.concatenate([chosen, rejected]))
        log_p = log_probabilities(policy, texts[both], values[both]).sum(dim=1)
        fixed = log_probabilities(reference, texts[both], values[both]).sum(dim=1)
        k = len(chosen)
        return dpo_loss(log_p[:k], log_p[k:], fixed[:k], fixed[k:])
    log_p = log_probabilities(policy, texts, values)
    if signal == "sft":
        return sft_loss(log_p, agree.reshape(-1, 1).float().expand_as(log_p))
    if signal == "kto":
        fixed = log_probabilities(reference, texts, values).sum(dim=1)
        return kto_loss(log_p.sum(dim=1), fixed, agree.reshape(-1))
    return policy_loss(log_p, group_advantages(agree.float()).reshape(-1), torch.ones_like(log_p))


def pairs(agree: npt.NDArray[np.bool_], rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Up to `PAIRS` drawn pairs a prompt of a chain that agrees and one that does not, as indices into prompts x agents."""
    chosen: list[int] = []
    rejected: list[int] = []
    agents = agree.shape[1]
    for row, sides in enumerate(agree):
        good, bad = np.flatnonzero(sides), np.flatnonzero(~sides)
        for _ in range(PAIRS if len(good) and len(bad) else 0):
            chosen.append(row * agents + int(rng.choice(good)))
            rejected.append(row * agents + int(rng.choice(bad)))
    return np.array(chosen, dtype=np.int64), np.array(rejected, dtype=np.int64)
