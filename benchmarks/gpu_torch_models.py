"""The models that gpu_models.py measures, in plain torch with random weights: a Llama-3-8B-shaped decoder and a BERT-large-shaped encoder.

With ``--rehearse`` on the command line they are tiny and on the CPU.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

REHEARSE = "--rehearse" in sys.argv
DEVICE = "cpu" if REHEARSE else "cuda"


@dataclass(frozen=True)
class Decoder:
    """Sizes of Llama-3-8B (its config.json)."""

    layers: int = 32
    hidden: int = 4096
    ffn: int = 14336
    heads: int = 32
    kv_heads: int = 8
    head: int = 128
    words: int = 128256


@dataclass(frozen=True)
class Encoder:
    """Sizes of BERT-large (Devlin et al., arXiv:1810.04805)."""

    layers: int = 24
    hidden: int = 1024
    ffn: int = 4096
    heads: int = 16
    words: int = 30522


DECODER = Decoder(2, 64, 128, 4, 2, 16, 500) if REHEARSE else Decoder()
ENCODER = Encoder(2, 64, 128, 4, 500) if REHEARSE else Encoder()


def normal(*shape: int) -> torch.Tensor:
    """Random bfloat16."""
    return torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)


# The two fused kernels that engines have and torch has not.
try:
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def _gate(x_pointer, out_pointer, ffn, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        row, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        a = tl.load(x_pointer + row * 2 * ffn + at, mask=at < ffn, other=0.0).to(tl.float32)
        b = tl.load(x_pointer + row * 2 * ffn + ffn + at, mask=at < ffn, other=0.0).to(tl.float32)
        tl.store(out_pointer + row * ffn + at, (a / (1.0 + tl.exp(-a)) * b).to(tl.bfloat16), mask=at < ffn)

    @triton.jit  # type: ignore[untyped-decorator]
    def _rotate(x_pointer, cos_pointer, sin_pointer, width, places, HALF: tl.constexpr):  # type: ignore[no-untyped-def]
        row, head, at = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.arange(0, HALF)
        x = x_pointer + row * width + head * 2 * HALF
        angle = (row % places) * HALF + at
        cos, sin = tl.load(cos_pointer + angle), tl.load(sin_pointer + angle)
        a, b = tl.load(x + at).to(tl.float32), tl.load(x + HALF + at).to(tl.float32)
        tl.store(x + at, (a * cos - b * sin).to(tl.bfloat16))
        tl.store(x + HALF + at, (b * cos + a * sin).to(tl.bfloat16))
except ImportError:
    triton = None


class Llama:
    """The decoder: fused qkv and gate-up products, its cache (layer, batch, token, KV head, d) written in place."""

    def __init__(self, size: Decoder) -> None:
        self.size = s = size
        width = (s.heads + 2 * s.kv_heads) * s.head
        shapes = {"qkv": (width, s.hidden), "out": (s.hidden, s.heads * s.head), "up": (2 * s.ffn, s.hidden), "down": (s.hidden, s.ffn)}
        self.layers = [{name: normal(*of) * of[1] ** -0.5 for name, of in shapes.items()} for _ in range(s.layers)]
        self.embedding, self.head = normal(s.words, s.hidden), normal(s.words, s.hidden) * s.hidden**-0.5
        self.ones = torch.ones(s.hidden, device=DEVICE, dtype=torch.bfloat16)
        self.fused = False
        self.attend: Any = None

    def rotation(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines (tokens, d / 2)."""
        half = self.size.head // 2
        angles = positions[:, None].float() * 5e5 ** (-torch.arange(half, device=DEVICE).float() / half)
        return angles.cos(), angles.sin()

    def layer(self, x: torch.Tensor, weights: dict[str, torch.Tensor], cos: torch.Tensor, sin: torch.Tensor, place: Any) -> torch.Tensor:
        """x (batch, tokens, hidden); ``place``: (keys, values, None for a prompt or the place of the new token)."""
        s = self.size
        batch, tokens = x.shape[:2]
        qkv = functional.linear(functional.rms_norm(x, (s.hidden,), self.ones, 1e-5), weights["qkv"])
        heads = qkv.view(batch, tokens, s.heads + 2 * s.kv_heads, s.head)
        q, k, v = heads.split((s.heads, s.kv_heads, s.kv_heads), dim=2)
        if self.fused:
            _rotate[(batch * tokens, s.heads + s.kv_heads)](qkv, cos, sin, qkv.shape[-1], tokens, HALF=s.head // 2, num_warps=1)
        else:
            c, d = cos[:, None], sin[:, None]
            for part in (q, k):
                a, b = part.chunk(2, dim=-1)
                part.copy_(torch.cat((a * c - b * d, b * c + a * d), dim=-1).to(torch.bfloat16))
        keys, values, at = place
        if at is None:
            keys.copy_(k)
            values.copy_(v)
            o = functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True, enable_gqa=True).transpose(
                1, 2
            )
        else:
            keys[:, at] = k[:, 0]
            values[:, at] = v[:, 0]
            if self.attend is not None:
                o = self.attend(q[:, 0].contiguous(), keys, values).to(torch.bfloat16)
            else:  # query heads of one KV head as queries: FlashAttention then divides the keys
                group = q.view(batch, s.kv_heads, -1, s.head)
                o = functional.scaled_dot_product_attention(group, keys.transpose(1, 2), values.transpose(1, 2))
        x = x + functional.linear(o.reshape(batch, tokens, -1), weights["out"])
        gated = functional.linear(functional.rms_norm(x, (s.hidden,), self.ones, 1e-5), weights["up"])
        if self.fused:
            inner = torch.empty(batch, tokens, s.ffn, device=DEVICE, dtype=torch.bfloat16)
            _gate[(batch * tokens, triton.cdiv(s.ffn, 1024))](gated, inner, s.ffn, BLOCK=1024)
        else:
            a, b = gated.chunk(2, dim=-1)
            inner = functional.silu(a) * b
        return x + functional.linear(inner, weights["down"])

    def forward(self, words: torch.Tensor, cache: Any, rotation: Any, at: int | None) -> torch.Tensor:
        """Logits (batch, words) of the last token."""
        x = functional.embedding(words, self.embedding)
        for layer, weights in enumerate(self.layers):
            x = self.layer(x, weights, *rotation, (cache[0][layer], cache[1][layer], at))
        return functional.linear(functional.rms_norm(x[:, -1], (self.size.hidden,), self.ones, 1e-5), self.head)

    def cache(self, batch: int, tokens: int) -> Any:
        """Keys and values."""
        s = self.size
        return [[normal(batch, tokens, s.kv_heads, s.head) for _ in range(s.layers)] for _ in range(2)]


class Bert:
    """The encoder, biases and post-norms included."""

    def __init__(self, size: Encoder) -> None:
        self.size = s = size
        shapes = {"qkv": (3 * s.hidden, s.hidden), "out": (s.hidden, s.hidden), "up": (s.ffn, s.hidden), "down": (s.hidden, s.ffn)}
        self.layers = [{name: (normal(*of) * of[1] ** -0.5, normal(of[0])) for name, of in shapes.items()} for _ in range(s.layers)]
        self.words, self.places = normal(s.words, s.hidden), normal(512, s.hidden)
        self.one, self.zero = torch.ones_like(self.places[0]), torch.zeros_like(self.places[0])

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (self.size.hidden,), self.one, self.zero, 1e-12)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """Hidden states of the last layer."""
        s = self.size
        batch, tokens = words.shape
        x = self.norm(functional.embedding(words, self.words) + self.places[:tokens])
        for w in self.layers:
            q, k, v = functional.linear(x, *w["qkv"]).view(batch, tokens, 3, s.heads, -1).permute(2, 0, 3, 1, 4)
            o = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, s.hidden)
            x = self.norm(x + functional.linear(o, *w["out"]))
            x = self.norm(x + functional.linear(functional.gelu(functional.linear(x, *w["up"])), *w["down"]))
        return x
