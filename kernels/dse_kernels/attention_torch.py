"""Decode attention inside a model of torch: a custom operator that compiles and exports, and a module with a free head map.

The operator calls :func:`dse_kernels.attention.decode` (forward only, CPU): training goes through ``forward`` of the module, decoding
through ``step`` with its cache.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from dse_kernels import attention


@torch.library.custom_op("dse::decode", mutates_args=(), device_types="cpu")  # type: ignore[untyped-decorator]
def decode(q: Tensor, k: Tensor, v: Tensor, kv_of_head: Tensor, lengths: Tensor, scale: float | None = None) -> Tensor:
    """``torch.ops.dse.decode``: see :func:`dse_kernels.attention.decode`; lengths (rows,) or (rows, KV heads)."""
    result: Tensor = attention.decode(q, k, v, kv_of_head, lengths, scale=scale)
    return result


@decode.register_fake  # type: ignore[untyped-decorator]
def _(q: Tensor, k: Tensor, v: Tensor, kv_of_head: Tensor, lengths: Tensor, scale: float | None = None) -> Tensor:
    return q.new_empty(q.shape)


class SharedHeadAttention(nn.Module):
    """Causal self-attention whose query heads read KV heads through ``kv_of_head``; no positions, no biases.

    ``forward`` (rows, tokens, width) -> same, over whole sequences, by torch's own attention with heads repeated. ``step`` (rows, width)
    -> same: one token a row with the cache of :meth:`empty_cache`,
    by the decode kernel. ValueError for a map that names no head for a KV head.
    """

    def __init__(self, width: int, head_dim: int, kv_of_head: Sequence[int]) -> None:
        super().__init__()
        owners = [int(kv) for kv in kv_of_head]
        if not owners or sorted(set(owners)) != list(range(max(owners) + 1)):
            raise ValueError(f"kv_of_head is {owners}, must name every KV head from 0 at least once")
        self.head_dim, self.kv_heads = head_dim, max(owners) + 1
        self.q = nn.Linear(width, len(owners) * head_dim, bias=False)
        self.k, self.v = (nn.Linear(width, self.kv_heads * head_dim, bias=False) for _ in range(2))
        self.o = nn.Linear(len(owners) * head_dim, width, bias=False)
        self.register_buffer("kv_of_head", torch.tensor(owners))

    def forward(self, x: Tensor) -> Tensor:
        """Whole sequences."""
        rows, tokens, _ = x.shape
        q, k, v = (linear(x).view(rows, tokens, -1, self.head_dim).transpose(1, 2) for linear in (self.q, self.k, self.v))
        k, v = k[:, self.kv_of_head], v[:, self.kv_of_head]
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        result: Tensor = self.o(out.transpose(1, 2).reshape(rows, tokens, -1))
        return result

    def empty_cache(self, rows: int, capacity: int) -> tuple[Tensor, Tensor, Tensor]:
        """Keys, values (rows, capacity, KV heads, d) and lengths (rows,) of rows that hold nothing."""
        weight = self.k.weight
        shape = (rows, capacity, self.kv_heads, self.head_dim)
        return weight.new_zeros(shape), weight.new_zeros(shape), torch.zeros(rows, dtype=torch.int64)

    @torch.no_grad()
    def step(self, x: Tensor, cache: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """One token a row, which enters the cache. ValueError where a row is full."""
        keys, values, lengths = cache
        if int(lengths.max()) >= keys.shape[1]:
            raise ValueError(f"cache holds {int(lengths.max())} tokens, which is its capacity")
        at = torch.arange(len(x))
        keys[at, lengths] = self.k(x).view(len(x), -1, self.head_dim)
        values[at, lengths] = self.v(x).view(len(x), -1, self.head_dim)
        lengths += 1
        out = torch.ops.dse.decode(self.q(x).view(len(x), -1, self.head_dim), keys, values, self.kv_of_head, lengths)
        result: Tensor = self.o(out.flatten(1))
        return result
