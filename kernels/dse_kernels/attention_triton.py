"""Decode attention in Triton: plain, paged and shared-prefix decode for a GPU, any head map; one kernel and one merge.

A *group* is a set of queries that read the same KV head of the same cache row: the query heads of one KV head of a row, or, for a shared
prefix, those of all rows. A program takes one group and one split of its tokens and writes (acc / l, log2-sum) of them; the splits, and the
prefix and the rest, are merged by their log-sums. With ``TRITON_INTERPRET=1`` in the environment before this module is
imported it runs on CPU tensors, slowly: that is how it is tested without a GPU. Definitions: :mod:`dse_kernels.attention_reference`.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor
BLOCK_TOKENS = 64
PREFIX_QUERIES = 64


@triton.jit  # type: ignore[untyped-decorator]
def _attend(
    q_pointer,  # type: ignore[no-untyped-def]
    k_pointer,
    v_pointer,
    table_pointer,
    queries_pointer,
    row_pointer,
    head_pointer,
    length_pointer,
    value_pointer,
    log_sum_pointer,
    scale,
    total,
    splits,
    k_row,
    k_token,
    k_head,
    v_row,
    v_token,
    v_head,
    table_row,
    D: tl.constexpr,
    DIMS: tl.constexpr,
    QUERIES: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDEN: tl.constexpr,
):
    group, split = tl.program_id(0), tl.program_id(1)
    row, head, length = tl.load(row_pointer + group), tl.load(head_pointer + group), tl.load(length_pointer + group)
    dims = tl.arange(0, DIMS)
    query = tl.load(queries_pointer + group * QUERIES + tl.arange(0, QUERIES))
    inside = (query >= 0)[:, None] & (dims < D)[None, :]
    q = tl.load(q_pointer + query[:, None] * D + dims[None, :], mask=inside, other=0.0)
    if WIDEN:
        q = q.to(tl.float32)
    each = tl.cdiv(tl.cdiv(length, splits), BLOCK) * BLOCK
    begin = split * each
    end = tl.minimum(begin + each, length)
    high = tl.full((QUERIES,), -1.0e30, tl.float32)
    whole = tl.zeros((QUERIES,), tl.float32)
    acc = tl.zeros((QUERIES, DIMS), tl.float32)
    for start in range(begin, end, BLOCK):
        token = start + tl.arange(0, BLOCK)
        there = token < end
        block, place = row, token
        if PAGE > 0:
            block = tl.load(table_pointer + row * table_row + token // PAGE, mask=there, other=0).to(tl.int64)
            place = token % PAGE
        keep = there[:, None] & (dims < D)[None, :]
        k = tl.load(k_pointer + (block * k_row + place * k_token + head * k_head)[:, None] + dims[None, :], mask=keep, other=0.0)
        v = tl.load(v_pointer + (block * v_row + place * v_token + head * v_head)[:, None] + dims[None, :], mask=keep, other=0.0)
        if WIDEN:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(there[None, :], scores, -1.0e30)
        top = tl.maximum(high, tl.max(scores, 1))
        p = tl.exp2(scores - top[:, None])
        p = tl.where(there[None, :], p, 0.0)
        fade = tl.exp2(high - top)
        whole = whole * fade + tl.sum(p, 1)
        acc = acc * fade[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        high = top
    at = split * total + query
    result = acc / tl.where(whole > 0.0, whole, 1.0)[:, None]
    tl.store(value_pointer + at[:, None] * D + dims[None, :], result, mask=inside)
    tl.store(log_sum_pointer + at, tl.where(whole > 0.0, high + tl.log2(tl.where(whole > 0.0, whole, 1.0)), -1.0e30), mask=query >= 0)


def _check(q: Tensor, k: Tensor, v: Tensor, kv_of_head: Tensor, kv_heads: int) -> None:
    if q.ndim != 3 or k.shape != v.shape or k.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} must be (rows, heads, d) and two caches with that d"
        )
    if not q.dtype == k.dtype == v.dtype or q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"q, k and v have dtypes {q.dtype}, {k.dtype}, {v.dtype}, must have one of float32, bfloat16, float16")
    if k.stride(-1) != 1 or v.stride(-1) != 1:
        raise ValueError("k and v must have stride 1 in their last axis")
    owners = kv_of_head.tolist()
    if len(owners) != q.shape[1] or sorted(set(owners)) != list(range(kv_heads)):
        raise ValueError(f"kv_of_head {owners} must have {q.shape[1]} entries that name every one of {kv_heads} KV heads")


@functools.lru_cache(maxsize=64)
def _groups(owners: tuple[int, ...], rows: int, kv_heads: int, together: bool, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(queries (groups, width) as indices row * heads + head, -1 where none; cache row and KV head of each group)."""
    heads = len(owners)
    found: list[tuple[int, int, list[int]]] = []
    for kv in range(kv_heads):
        own = [h for h in range(heads) if owners[h] == kv]
        if together:
            queries = [b * heads + h for b in range(rows) for h in own]
            found += [(0, kv, queries[i : i + PREFIX_QUERIES]) for i in range(0, len(queries), PREFIX_QUERIES)]
        else:
            found += [(b, kv, [b * heads + h for h in own]) for b in range(rows)]
    width = max(16, triton.next_power_of_2(max(len(queries) for _, _, queries in found)))
    table = torch.tensor([queries + [-1] * (width - len(queries)) for _, _, queries in found], dtype=torch.int64)
    made = (table, torch.tensor([row for row, _, _ in found]), torch.tensor([kv for _, kv, _ in found]))
    return made[0].to(device), made[1].to(device), made[2].to(device)


def _run(
    q: Tensor, k: Tensor, v: Tensor, groups: tuple[Tensor, Tensor, Tensor], lengths: Tensor, scale: float, splits: int, **paged: Any
) -> tuple[Tensor, Tensor]:
    """Values (splits, queries, d) and log2-sums (splits, queries) of one cache with axes (row, token, KV head, d)."""
    total, d = q.shape[0] * q.shape[1], q.shape[2]
    values = torch.zeros(splits, total, d, dtype=torch.float32, device=q.device)
    sums = torch.full((splits, total), -1.0e30, dtype=torch.float32, device=q.device)
    queries, row, head = groups
    table = paged.get("table", row)
    _attend[(len(row), splits)](
        q.contiguous(),
        k,
        v,
        table,
        queries,
        row,
        head,
        lengths.to(torch.int64).to(q.device)[row],
        values,
        sums,
        scale * 1.4426950408889634,
        total,
        splits,
        *k.stride()[:3],
        *v.stride()[:3],
        table.stride(0),
        D=d,
        DIMS=max(16, triton.next_power_of_2(d)),
        QUERIES=queries.shape[1],
        PAGE=paged.get("page", 0),
        BLOCK=BLOCK_TOKENS,
        WIDEN=q.device.type == "cpu",  # the interpreter's products know no bfloat16
    )
    return values, sums


def merge(values: Tensor, sums: Tensor) -> Tensor:
    """(parts, queries, d) and their log2-sums to the attention over all parts."""
    weights = torch.exp2(sums - sums.max(dim=0).values)
    return (values * weights[..., None]).sum(0) / weights.sum(0)[..., None]


def _splits(groups: int, longest: int, device: torch.device) -> int:
    """Splits that fill the device's multiprocessors twice over, of at least two blocks each."""
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
    return int(max(1, min(2 * processors // max(1, groups), longest // (2 * BLOCK_TOKENS))))


def _scale(scale: float | None, q: Tensor) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _lengths(lengths: Tensor, rows: int, least: int, most: int) -> Tensor:
    low, high = int(lengths.min()), int(lengths.max())
    if lengths.shape != (rows,) or low < least or high > most:
        raise ValueError(f"lengths hold {low} to {high} in shape {tuple(lengths.shape)}, must be {least} to {most} for each of {rows} rows")
    return lengths


def decode(
    q: Tensor, k: Tensor, v: Tensor, kv_of_head: Tensor, lengths: Tensor, *, scale: float | None = None, splits: int | None = None
) -> Tensor:
    """As :func:`dse_kernels.attention.decode`, float32 result: q (rows, heads, d), k and v (rows, tokens, KV heads, d)."""
    _check(q, k, v, kv_of_head, k.shape[2])
    _lengths(lengths, q.shape[0], 1, k.shape[1])
    groups = _groups(tuple(kv_of_head.tolist()), q.shape[0], k.shape[2], False, q.device)
    parts = splits or _splits(len(groups[1]), int(lengths.max()), q.device)
    return merge(*_run(q, k, v, groups, lengths, _scale(scale, q), parts)).view(q.shape)


def decode_paged(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    block_table: Tensor,
    lengths: Tensor,
    kv_of_head: Tensor,
    *,
    scale: float | None = None,
    splits: int | None = None,
) -> Tensor:
    """As :func:`dse_kernels.attention.decode_paged`, float32 result."""
    _check(q, k_pages, v_pages, kv_of_head, k_pages.shape[2])
    page = k_pages.shape[1]
    _lengths(lengths, q.shape[0], 1, page * block_table.shape[1])
    needed = torch.arange(block_table.shape[1], device=block_table.device) < ((lengths.to(block_table.device) + page - 1) // page)[:, None]
    named = block_table[needed]
    if int(named.min()) < 0 or int(named.max()) >= len(k_pages):
        raise ValueError(f"block_table names pages {int(named.min())} to {int(named.max())}, must be 0 to {len(k_pages) - 1}")
    groups = _groups(tuple(kv_of_head.tolist()), q.shape[0], k_pages.shape[2], False, q.device)
    parts = splits or _splits(len(groups[1]), int(lengths.max()), q.device)
    found = _run(q, k_pages, v_pages, groups, lengths, _scale(scale, q), parts, table=block_table.contiguous(), page=page)
    return merge(*found).view(q.shape)


def decode_shared(
    q: Tensor,
    prefix_k: Tensor,
    prefix_v: Tensor,
    k: Tensor,
    v: Tensor,
    kv_of_head: Tensor,
    lengths: Tensor,
    *,
    scale: float | None = None,
    splits: int | None = None,
) -> Tensor:
    """As :func:`dse_kernels.attention.decode_shared`, float32 result: the prefix (tokens, KV heads, d) is read once for 64 queries."""
    _check(q, k, v, kv_of_head, k.shape[2])
    _check(q, prefix_k, prefix_v, kv_of_head, prefix_k.shape[1])
    _lengths(lengths, q.shape[0], 0, k.shape[1])
    factor = _scale(scale, q)
    own_groups = _groups(tuple(kv_of_head.tolist()), q.shape[0], k.shape[2], False, q.device)
    own = _run(q, k, v, own_groups, lengths, factor, splits or _splits(len(own_groups[1]), max(1, int(lengths.max())), q.device))
    groups = _groups(tuple(kv_of_head.tolist()), q.shape[0], prefix_k.shape[1], True, q.device)
    tokens = torch.full((1,), len(prefix_k))
    parts = splits or _splits(len(groups[1]), len(prefix_k), q.device)
    first = _run(q, prefix_k[None], prefix_v[None], groups, tokens, factor, parts)
    return merge(torch.cat([first[0], own[0]]), torch.cat([first[1], own[1]])).view(q.shape)
