"""A tiny causal transformer and how it writes chains: learned positions, pre-norm blocks, a cache of keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """Sizes of the transformer."""

    layers: int = 2
    width: int = 32
    heads: int = 2
    ffn: int = 128


class Block(nn.Module):
    """Attention and a GELU feed-forward, each behind a norm."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.heads = size.heads
        self.before, self.between = nn.LayerNorm(size.width), nn.LayerNorm(size.width)
        self.qkv, self.out = nn.Linear(size.width, 3 * size.width), nn.Linear(size.width, size.width)
        self.up, self.down = nn.Linear(size.width, size.ffn), nn.Linear(size.ffn, size.width)

    def forward(self, x: Tensor, cache: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The block's output and its keys and values, those of ``cache`` before them."""
        rows, length, width = x.shape
        q, k, v = (t.view(rows, length, self.heads, -1).transpose(1, 2) for t in self.qkv(self.before(x)).chunk(3, dim=-1))
        if cache is not None:
            k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
        seen = functional.scaled_dot_product_attention(q, k, v, is_causal=cache is None and length > 1)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, length, width))
        return x + self.down(functional.gelu(self.up(self.between(x)))), (k, v)


class Policy(nn.Module):
    """Logits of the next token, (rows, length, vocabulary)."""

    def __init__(self, vocabulary: int, positions: int, size: Size) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, size.width), nn.Embedding(positions, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm, self.head = nn.LayerNorm(size.width), nn.Linear(size.width, vocabulary, bias=False)

    def forward(self, tokens: Tensor, caches: list[tuple[Tensor, Tensor]] | None = None) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Logits and the caches after these tokens."""
        done = caches[0][0].shape[2] if caches else 0
        x = self.tokens(tokens) + self.positions(torch.arange(done, done + tokens.shape[1]))
        kept = []
        for i, block in enumerate(self.blocks):
            x, own = block(x, caches[i] if caches else None)
            kept.append(own)
        return self.head(self.norm(x)), kept


def log_probabilities(policy: Policy, prompts: Tensor, values: Tensor) -> Tensor:
    """Log-probability of every value of chains behind prompts, (chains, steps)."""
    logits, _ = policy(torch.cat([prompts, values[:, :-1]], dim=1))
    steps = functional.log_softmax(logits[:, prompts.shape[1] - 1 :], dim=-1)
    return steps.gather(2, values[..., None])[..., 0]


@torch.no_grad()
def write(
    policy: Policy,
    prompts: Tensor,
    steps: int,
    *,
    generator: torch.Generator,
    kept: Tensor | None = None,
    until: Tensor | None = None,
    greedy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Chains (rows, steps) drawn at temperature 1, and the log-probability of every value.

    ``kept`` (rows, steps) are values that stand for the first ``until`` (rows,) steps of each row: the prefix that a reset keeps.
    """
    values, told = [], []
    caches: list[tuple[Tensor, Tensor]] | None = None
    given = prompts
    for step in range(steps):
        logits, caches = policy(given, caches)
        chances = functional.log_softmax(logits[:, -1], dim=-1)
        value = chances.argmax(dim=1) if greedy else torch.multinomial(chances.exp(), 1, generator=generator)[:, 0]
        if kept is not None and until is not None:
            value = torch.where(step < until, kept[:, step], value)
        values.append(value)
        told.append(chances.gather(1, value[:, None])[:, 0])
        given = value[:, None]
    return torch.stack(values, dim=1), torch.stack(told, dim=1)
