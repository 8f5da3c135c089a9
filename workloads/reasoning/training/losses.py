"""Losses of policies over chains of thoughts: GRPO and its resets (RRPO, SRPO), and MACA's four (SFT, DPO, KTO, GRPO).

Arguments are log-probabilities of the written tokens, (chains, tokens); a mask says which tokens get a gradient. Formulas and sources are
in docs/models/reasoning.md.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def group_advantages(rewards: Tensor, *, scale: bool = True) -> Tensor:
    """(reward - mean of its group) / standard deviation, (groups, members); zeros where all are equal. ``scale`` False: not divided."""
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    if not scale:
        return centred
    spread = rewards.std(dim=1, keepdim=True, correction=0)
    return torch.where(spread > 0, centred / spread.clamp_min(1e-12), torch.zeros_like(centred))


def suffix_mask(at: Tensor, tokens: int, per_thought: int = 1) -> Tensor:
    """1.0 for tokens from thought ``at`` (from 1) on, 0.0 for the shared prefix before it; (chains, tokens)."""
    place = torch.arange(tokens, device=at.device) // per_thought + 1
    return (place[None, :] >= at[:, None]).to(torch.get_default_dtype())


def policy_loss(log_p: Tensor, advantages: Tensor, mask: Tensor, *, old: Tensor | None = None, clip: float | None = None) -> Tensor:
    """-sum over tokens of ratio x advantage / number of tokens in the mask.

    Args:
        log_p, mask: (chains, tokens). advantages: (chains,). old: log-probabilities under the policy that wrote the chains (None: this
            one, so that the gradient is REINFORCE's). clip: the ratio is clipped to 1 -+ clip where that lowers the objective (PPO).
    """
    ratio = torch.exp(log_p - (log_p.detach() if old is None else old))
    gained = ratio * advantages[:, None]
    if clip is not None:
        gained = torch.minimum(gained, ratio.clamp(1 - clip, 1 + clip) * advantages[:, None])
    return -(gained * mask).sum() / mask.sum().clamp_min(1.0)


def reset_loss(base: Tensor, base_advantages: Tensor, suffixes: Tensor, suffix_advantages: Tensor, at: Tensor) -> Tensor:
    """RRPO's and SRPO's: base chains whole, suffixes from thought ``at`` on. Each group's advantages are normalised by itself; the sum
    is over all tokens that were made, so that a token counts the same in both."""
    log_p = torch.cat([base, suffixes])
    mask = torch.cat([torch.ones_like(base), suffix_mask(at, suffixes.shape[1]).to(suffixes)])
    return policy_loss(log_p, torch.cat([base_advantages, suffix_advantages]), mask)


def sft_loss(log_p: Tensor, mask: Tensor) -> Tensor:
    """-mean log-probability of the tokens in the mask: imitation of the chains that agree with the majority."""
    return -(log_p * mask).sum() / mask.sum().clamp_min(1.0)


def dpo_loss(chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, *, beta: float = 0.1) -> Tensor:
    """-log sigmoid(beta x (log-ratio of chosen - of rejected)), mean over pairs; arguments are sums over tokens, (pairs,)."""
    return -functional.logsigmoid(beta * ((chosen - chosen_reference) - (rejected - rejected_reference))).mean()


def kto_loss(log_p: Tensor, reference: Tensor, desirable: Tensor, *, beta: float = 0.1) -> Tensor:
    """1 - sigmoid(+-beta (log-ratio - z)), + where ``desirable``, mean over chains (chains,); z = mean log-ratio of the batch, at least 0,
    no gradient, stands for the divergence from the reference."""
    ratio = log_p - reference
    centre = ratio.detach().mean().clamp_min(0.0)
    side = torch.where(desirable, 1.0, -1.0).to(ratio)
    return (1 - torch.sigmoid(beta * side * (ratio - centre))).mean()
