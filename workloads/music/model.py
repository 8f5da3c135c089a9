"""A small decoder whose head map is free: pre-norm, rotary positions, tied embeddings, one or several vocabularies a step.

Weights of different head maps are made equal in number by the width of the feed-forward network, so that a difference in
likelihood is one of sharing, not of size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from workloads.errors import WorkloadError
from workloads.music.groupings import EVERYTHING, Grouping
from workloads.music.tokens import ATTRIBUTES


@dataclass(frozen=True)
class DecoderOptions:
    """Dimensions of the decoder.

    Attributes:
        vocabularies: size of each vocabulary of a step; layers, width, head_dim: as usual (width = heads x head_dim).
        grouping: head map; ffn: inner width of the feed-forward networks.
    """

    vocabularies: tuple[int, ...]
    grouping: Grouping
    layers: int
    width: int
    ffn: int

    def __post_init__(self) -> None:
        if self.width % (2 * self.grouping.map.heads):
            raise WorkloadError(f"width is {self.width}, must be a multiple of twice the heads = {2 * self.grouping.map.heads}")

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.width // self.grouping.map.heads


def equal_parameter_ffn(width: int, heads: int, kv_heads: int, ratio: int = 4) -> int:
    """Inner width that gives a map with ``kv_heads`` the parameters of multi-head attention with ``ratio * width``.

    A layer has 2 width x ffn in its feed-forward network and 2 width x kv_heads x head_dim in its keys and values.
    """
    return ratio * width + (heads - kv_heads) * (width // heads)


class Attention(nn.Module):
    """Self-attention through a head map; ``forward`` over whole sequences, ``step`` with a cache (see workloads.music.decoding)."""

    kv_of_head: Tensor

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__()
        self.options = options
        heads, kv_heads, dim = options.grouping.map.heads, options.grouping.map.kv_heads, options.head_dim
        self.q = nn.Linear(options.width, heads * dim, bias=False)
        self.k = nn.Linear(options.width, kv_heads * dim, bias=False)
        self.v = nn.Linear(options.width, kv_heads * dim, bias=False)
        self.o = nn.Linear(heads * dim, options.width, bias=False)
        self.register_buffer("kv_of_head", torch.tensor(options.grouping.map.kv_of_head), persistent=False)

    def heads_of(self, x: Tensor, angles: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (batch, heads, tokens, dim), keys and values (batch, kv_heads, tokens, dim), rotated to their positions."""
        batch, tokens, _ = x.shape
        dim = self.options.head_dim
        q, k, v = (linear(x).view(batch, tokens, -1, dim).transpose(1, 2) for linear in (self.q, self.k, self.v))
        return rotate(q, angles), rotate(k, angles), v

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, tokens, width) -> same; ``mask`` (batch, heads, tokens, tokens) is added to the scores (0 or -inf), None: causal."""
        q, k, v = self.heads_of(x, angles)
        if self.options.grouping.map.kv_heads != self.options.grouping.map.heads:
            k, v = k[:, self.kv_of_head], v[:, self.kv_of_head]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        result: Tensor = self.o(out.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))
        return result


def rotary_angles(positions: Tensor, dim: int) -> Tensor:
    """(..., tokens, dim / 2): rotary angles (Su et al., arXiv:2104.09864), base 10,000."""
    rates = torch.exp(torch.arange(0, dim, 2, dtype=torch.float32) * (-math.log(10000.0) / dim))
    return positions.to(torch.float32)[..., None] * rates


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Rotate pairs (first half, second half) of the last axis of x (batch, heads, tokens, dim) by ``angles`` (tokens, dim / 2)."""
    cos, sin = torch.cos(angles), torch.sin(angles)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Layer(nn.Module):
    """Attention and a GELU feed-forward network, each behind a norm."""

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.LayerNorm(options.width), nn.LayerNorm(options.width)
        self.attention = Attention(options)
        self.up, self.down = nn.Linear(options.width, options.ffn), nn.Linear(options.ffn, options.width)

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, tokens, width) -> same."""
        x = x + self.attention(self.attention_norm(x), angles, mask)
        return self.feed(x)

    def feed(self, x: Tensor) -> Tensor:
        """The feed-forward half."""
        result: Tensor = x + self.down(functional.gelu(self.up(self.ffn_norm(x))))
        return result


class MusicDecoder(nn.Module):
    """Ids (batch, tokens, vocabularies) to logits (batch, tokens, all ids).

    ``attribute_of_id`` (ids,): the attribute of every id, needed where the grouping is masked (ValueError where an id has none).
    """

    offsets: Tensor
    seen: Tensor

    def __init__(self, options: DecoderOptions, attribute_of_id: np.ndarray[Any, Any] | None = None) -> None:
        super().__init__()
        self.options = options
        size = sum(options.vocabularies)
        self.embedding = nn.Embedding(size, options.width)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.layers = nn.ModuleList(Layer(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.width)
        offsets = np.concatenate([[0], np.cumsum(options.vocabularies)[:-1]])
        self.register_buffer("offsets", torch.as_tensor(offsets, dtype=torch.int64), persistent=False)
        for name, weight in self.named_parameters():
            if name.endswith(("attention.o.weight", "down.weight")):
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * options.layers))
        # seen[id, head]: whether a head of that group stores and sees tokens of that id.
        seen = torch.ones(size, options.grouping.map.heads, dtype=torch.bool)
        if options.grouping.masked:
            if attribute_of_id is None or (attribute_of_id < 0).any():
                raise WorkloadError(
                    f"grouping {options.grouping.name} is masked by attribute, which tokens with merges or several vocabularies do not have"
                )
            for head, group in enumerate(options.grouping.map.group_of_head):
                name = options.grouping.map.groups[group].name
                if name != EVERYTHING:
                    seen[:, head] = torch.as_tensor(attribute_of_id == ATTRIBUTES.index(name))
        self.register_buffer("seen", seen, persistent=False)

    def embed(self, ids: Tensor) -> Tensor:
        """(..., vocabularies) -> (..., width): the sum of the embeddings of a step's sub-tokens."""
        result: Tensor = self.embedding(ids + self.offsets).sum(-2) if ids.shape[-1] > 1 else self.embedding(ids[..., 0])
        return result

    def logits(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., all ids), through the tied embedding."""
        return functional.linear(self.norm(x), self.embedding.weight)

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens, vocabularies) -> logits (batch, tokens, all ids)."""
        tokens = ids.shape[1]
        mask = None
        if self.options.grouping.masked:
            visible = self.seen[ids[..., 0]].transpose(1, 2)[:, :, None, :]
            causal = torch.ones(tokens, tokens, dtype=torch.bool).tril()
            hidden = ~((visible & causal) | torch.eye(tokens, dtype=torch.bool))
            mask = torch.zeros(hidden.shape).masked_fill_(
                hidden, -math.inf
            )  # once a pass: a mask of truth values is converted in every layer
        angles = rotary_angles(torch.arange(tokens), self.options.head_dim)
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x, angles, mask)
        return self.logits(x)

    def parameter_count(self) -> int:
        """Trained parameters."""
        return sum(p.numel() for p in self.parameters())


def pool_heads(source: MusicDecoder, grouping: Grouping, attribute_of_id: np.ndarray[Any, Any] | None = None) -> MusicDecoder:
    """The decoder with another head map from a multi-head one: keys and values of the heads that now share are averaged.

    Uptraining (Ainslie et al., arXiv:2305.13245, section 2.1) then trains it a little further. The feed-forward networks
    are taken as they are, so that it has fewer parameters than its source. WorkloadError unless the source is multi-head.
    """
    old = source.options
    if old.grouping.map.kv_heads != old.grouping.map.heads or old.grouping.masked:
        raise WorkloadError(f"heads are pooled from a multi-head decoder, {old.grouping.name} has {old.grouping.map.kv_heads} KV heads")
    if grouping.map.heads != old.grouping.map.heads:
        raise WorkloadError(
            f"grouping {grouping.name} has {grouping.map.heads} query heads, must have the source's {old.grouping.map.heads}"
        )
    made = MusicDecoder(DecoderOptions(old.vocabularies, grouping, old.layers, old.width, old.ffn), attribute_of_id)
    weights = dict(source.state_dict())
    owners = torch.tensor(grouping.map.kv_of_head)
    for name in [n for n in weights if n.endswith(("attention.k.weight", "attention.v.weight"))]:
        per_head = weights[name].view(grouping.map.heads, old.head_dim, old.width)
        weights[name] = torch.stack([per_head[owners == kv].mean(0) for kv in range(grouping.map.kv_heads)]).flatten(0, 1)
    made.load_state_dict(weights)
    return made
