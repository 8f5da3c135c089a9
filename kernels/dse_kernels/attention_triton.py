"""Decode attention in Triton: plain, paged and shared-prefix decode for a GPU, any head map; one kernel and one merge.

A *group* is a set of queries that read the same KV head of the same cache row: the query heads of one KV head of a row, or, for a shared
prefix, those of all rows. A program takes one group and one part of its tokens and writes (acc / l, log2-sum) of them; a second kernel
merges the parts, and the prefix and the rest, by their log-sums. On Hopper and later the second kernel is on the device before the first
has ended (programmatic dependent launch), and so is a row's own cache beside the prefix.

``decode``, ``decode_paged`` and ``decode_shared`` check what they are given, which waits for the device. A `Plan` is made once for a head
map and a number of rows; the functions that take one (`run`, `run_paged`, `run_shared`) read no tensor on the host, so that a CUDA graph
can hold them and lengths may change on the device; a length beyond the plan's longest, and a page that there is not, are cut to what is.

With ``TRITON_INTERPRET=1`` in the environment before this module is imported it runs on CPU tensors, slowly: that is how it is tested
without a GPU. Definitions: :mod:`dse_kernels.attention_reference`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import torch
import triton
import triton.language as tl

Tensor = torch.Tensor
PREFIX_QUERIES: Final = 64
MOST_PARTS: Final = 64
BLOCK_BYTES: Final = 2**15  # of keys: four to six such blocks are under way, and a multiprocessor's shared memory is some 200 KB
_NEVER: Final = tl.constexpr(-1.0e30)


@dataclass(frozen=True)
class Tuning:
    """How a group is worked on.

    Attributes:
        block: tokens a step. warps: of 32 threads a program. stages: steps whose loads are under way.
        parts: programs that share the tokens of a group.
    """

    block: int = 64
    warps: int = 4
    stages: int = 3
    parts: int = 1


# Numbers that decide no width of access: one compiled kernel serves them all.
@triton.jit(do_not_specialize=["total", "parts", "longest", "pages", "table_row"])  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    q_pointer,
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
    parts,
    longest,
    pages,
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
    OVERLAP: tl.constexpr,
    WIDEN: tl.constexpr,
):
    if OVERLAP:
        tl.extra.cuda.gdc_launch_dependents()
    group, part = tl.program_id(0), tl.program_id(1)
    row, head = tl.load(row_pointer + group), tl.load(head_pointer + group)
    length = tl.minimum(tl.load(length_pointer + row).to(tl.int32), longest)
    dims = tl.arange(0, DIMS)
    query = tl.load(queries_pointer + group * QUERIES + tl.arange(0, QUERIES))
    inside = (query >= 0)[:, None] & (dims < D)[None, :]
    q = tl.load(q_pointer + query[:, None] * D + dims[None, :], mask=inside, other=0.0)
    if WIDEN:
        q = q.to(tl.float32)
    each = tl.cdiv(tl.cdiv(length, parts), BLOCK) * BLOCK
    begin = part * each
    end = tl.minimum(begin + each, length)
    high = tl.full((QUERIES,), _NEVER, tl.float32)
    whole = tl.zeros((QUERIES,), tl.float32)
    acc = tl.zeros((QUERIES, DIMS), tl.float32)
    step = tl.arange(0, BLOCK)
    for start in range(begin, end, BLOCK):
        there = start + step < end
        if PAGE > 0:
            token = start + step
            page = tl.load(table_pointer + row * table_row + token // PAGE, mask=there, other=0).to(tl.int64)
            page = tl.minimum(tl.maximum(page, 0), pages - 1)
            k_at = page * k_row + (token % PAGE) * k_token + head * k_head
            v_at = page * v_row + (token % PAGE) * v_token + head * v_head
        else:  # what may pass 2^31 is a number of the block, so that the offsets of its elements stay narrow
            k_at = row * k_row + head * k_head + tl.cast(start, tl.int64) * k_token + step * k_token
            v_at = row * v_row + head * v_head + tl.cast(start, tl.int64) * v_token + step * v_token
        keep = there[:, None] & (dims < D)[None, :]
        k = tl.load(k_pointer + k_at[:, None] + dims[None, :], mask=keep, other=0.0)
        v = tl.load(v_pointer + v_at[:, None] + dims[None, :], mask=keep, other=0.0)
        if WIDEN:
            k = k.to(tl.float32)
            v = v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(there[None, :], scores, _NEVER)
        top = tl.maximum(high, tl.max(scores, 1))
        p = tl.exp2(scores - top[:, None])
        p = tl.where(there[None, :], p, 0.0)
        fade = tl.exp2(high - top)
        whole = whole * fade + tl.sum(p, 1)
        acc = acc * fade[:, None] + tl.dot(p.to(v.dtype), v, input_precision="ieee")
        high = top
    some = tl.where(whole > 0.0, whole, 1.0)
    result = acc / some[:, None]
    log_sum = tl.where(whole > 0.0, high + tl.log2(some), _NEVER)
    mine = (part * total + query)[:, None] * D + dims[None, :]
    tl.store(value_pointer + mine, result, mask=inside)
    tl.store(log_sum_pointer + part * total + query, log_sum, mask=query >= 0)
    if OVERLAP:  # it ends after the kernel before it, so that who waits for this one waits for both
        tl.extra.cuda.gdc_wait()


@triton.jit(do_not_specialize=["total", "parts"])  # type: ignore[untyped-decorator]
def _merge(  # type: ignore[no-untyped-def]
    value_pointer,
    log_sum_pointer,
    out_pointer,
    total,
    parts,
    D: tl.constexpr,
    DIMS: tl.constexpr,
    PARTS: tl.constexpr,
    OVERLAP: tl.constexpr,
):
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
    query = tl.program_id(0).to(tl.int64)
    part, dims = tl.arange(0, PARTS), tl.arange(0, DIMS)
    log_sum = tl.load(log_sum_pointer + part * total + query, mask=part < parts, other=_NEVER)
    weight = tl.where(part < parts, tl.exp2(log_sum - tl.max(log_sum, 0)), 0.0)
    keep = (part < parts)[:, None] & (dims < D)[None, :]
    value = tl.load(value_pointer + (part * total + query)[:, None] * D + dims[None, :], mask=keep, other=0.0)
    tl.store(out_pointer + query * D + dims, tl.sum(weight[:, None] * value, 0) / tl.sum(weight, 0), mask=dims < D)


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


@dataclass(frozen=True, eq=False)
class _Pass:
    """One cache under a plan: its groups, and how they are worked on."""

    groups: tuple[Tensor, Tensor, Tensor]
    longest: int
    tuning: Tuning


@dataclass(frozen=True, eq=False)
class Plan:
    """What calls with one head map and number of rows share.

    Attributes:
        rows, kv_heads: of the cache. owners: the KV head of each query head.
        own, prefix: passes over each row's own cache and over the shared one (None: there is none), ``prefix_lengths`` its length.
        overlap: the device starts a kernel before the one before it has ended where that is said to be safe.
    """

    rows: int
    kv_heads: int
    owners: tuple[int, ...]
    own: _Pass
    prefix: _Pass | None
    prefix_lengths: Tensor
    overlap: bool


def plan(
    kv_of_head: Tensor,
    rows: int,
    longest: int,
    *,
    device: torch.device | str,
    prefix: int = 0,
    tuning: Tuning | None = None,
    prefix_tuning: Tuning | None = None,
) -> Plan:
    """A plan for ``rows`` rows of at most ``longest`` tokens each, after a ``prefix`` of so many that all share.

    Raises ValueError where ``kv_of_head`` leaves a KV head out, or a number is below 1 (of ``prefix``: below 0).
    """
    owners = tuple(int(x) for x in kv_of_head.tolist())
    if not owners or sorted(set(owners)) != list(range(max(owners) + 1)):
        raise ValueError(f"kv_of_head {list(owners)} must name every KV head from 0 at least once")
    if rows < 1 or longest < 1 or prefix < 0:
        raise ValueError(f"rows {rows} and longest {longest} must be at least 1, prefix {prefix} at least 0")
    on = torch.empty(0, device=device).device
    return Plan(
        rows,
        max(owners) + 1,
        owners,
        _pass(owners, rows, longest, False, on, tuning),
        _pass(owners, rows, prefix, True, on, prefix_tuning) if prefix else None,
        torch.full((1,), prefix, dtype=torch.int32, device=on),
        overlap=on.type == "cuda" and torch.cuda.get_device_capability(on) >= (9, 0),
    )


def _pass(owners: tuple[int, ...], rows: int, longest: int, together: bool, device: torch.device, tuning: Tuning | None) -> _Pass:
    groups = _groups(owners, rows, max(owners) + 1, together, device)
    return _Pass(groups, longest, tuning or _usual(len(groups[1]), longest, together, device))


def _usual(groups: int, longest: int, together: bool, device: torch.device) -> Tuning:
    """Parts that give every multiprocessor two programs, of at least 128 tokens each (of a prefix, whose queries make more work: 64), and
    blocks that are smaller the more of them a part has: near what tuning on an H100 finds (docs/models/attention.md).
    """
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
    parts = max(1, min(2 * processors // groups, longest // (64 if together else 128), MOST_PARTS))
    each = triton.cdiv(longest, parts)
    block = 64 if together or 128 < each <= 512 else 128 if each <= 128 else 32
    return Tuning(min(block, max(16, triton.next_power_of_2(each))), parts=parts)


def run(plan: Plan, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, scale: float | None = None) -> Tensor:
    """As `decode` under a plan; ``lengths`` (rows,) whole numbers on its device."""
    _fits(plan, q, k, v, k.shape[2])
    return _single(plan, q, k, v, lengths, scale)


def run_paged(
    plan: Plan, q: Tensor, k_pages: Tensor, v_pages: Tensor, block_table: Tensor, lengths: Tensor, *, scale: float | None = None
) -> Tensor:
    """As `decode_paged` under a plan; ``block_table`` and ``lengths`` on its device."""
    _fits(plan, q, k_pages, v_pages, k_pages.shape[2])
    if k_pages.shape[1] * block_table.shape[1] < plan.own.longest:
        raise ValueError(f"block_table {tuple(block_table.shape)} holds fewer tokens than the plan's longest, {plan.own.longest}")
    return _single(plan, q, k_pages, v_pages, lengths, scale, table=block_table.contiguous())


def run_shared(
    plan: Plan, q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, lengths: Tensor, *, scale: float | None = None
) -> Tensor:
    """As `decode_shared` under a plan made with ``prefix``."""
    _fits(plan, q, k, v, k.shape[2])
    _fits(plan, q, prefix_k, prefix_v, prefix_k.shape[1])
    if plan.prefix is None or prefix_k.shape[0] < plan.prefix.longest:
        raise ValueError(f"prefix_k {tuple(prefix_k.shape)} must hold the prefix that the plan was made for")
    parts = plan.prefix.tuning.parts
    values, sums, out = _room(q, parts + plan.own.tuning.parts)
    factor = _scale(scale, q)
    _launch(plan, plan.prefix, q, prefix_k[None], prefix_v[None], plan.prefix_lengths, factor, values, sums)
    _launch(plan, plan.own, q, k, v, lengths, factor, values[parts:], sums[parts:], after=True)
    _merged(plan, values, sums, out)
    return out


def _single(plan: Plan, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scale: float | None, table: Tensor | None = None) -> Tensor:
    parts = plan.own.tuning.parts
    values, sums, out = _room(q, parts)
    target = out.view(values.shape) if parts == 1 else values
    _launch(plan, plan.own, q, k, v, lengths, _scale(scale, q), target, sums, table=table)
    if parts > 1:
        _merged(plan, values, sums, out)
    return out


def _room(q: Tensor, parts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values (parts, queries, d), log2-sums (parts, queries) and the result, none of them filled: every element is written."""
    total, d = q.shape[0] * q.shape[1], q.shape[2]
    made = functools.partial(torch.empty, dtype=torch.float32, device=q.device)
    return made((parts, total, d)), made((parts, total)), made(q.shape)


def _launch(
    plan: Plan, of: _Pass, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor, scale: float, values: Tensor, sums: Tensor,
    *, table: Tensor | None = None, after: bool = False,
) -> None:  # fmt: skip
    """Values and log2-sums of one cache with axes (row or page, token, KV head, d); ``after``: it may start beside the kernel before it."""
    queries, row, head = of.groups
    d, tuning = q.shape[2], of.tuning
    dims = max(16, triton.next_power_of_2(d))
    block = max(16, min(tuning.block, BLOCK_BYTES // (dims * q.element_size())))
    _attend[(len(row), tuning.parts)](
        q.contiguous(),
        k,
        v,
        row if table is None else table,
        queries,
        row,
        head,
        lengths,
        values,
        sums,
        scale * 1.4426950408889634,
        q.shape[0] * q.shape[1],
        tuning.parts,
        of.longest,
        k.shape[0],
        *k.stride()[:3],
        *v.stride()[:3],
        0 if table is None else table.stride(0),
        D=d,
        DIMS=dims,
        QUERIES=queries.shape[1],
        PAGE=0 if table is None else k.shape[1],
        BLOCK=block,
        OVERLAP=plan.overlap,
        WIDEN=q.device.type == "cpu",  # the interpreter's products know no bfloat16
        num_warps=tuning.warps,
        num_stages=tuning.stages,
        **({"launch_pdl": True} if plan.overlap and after else {}),
    )


def _merged(plan: Plan, values: Tensor, sums: Tensor, out: Tensor) -> None:
    parts, total, d = values.shape
    _merge[(total,)](
        values, sums, out, total, parts, D=d, DIMS=triton.next_power_of_2(d), PARTS=triton.next_power_of_2(parts), OVERLAP=plan.overlap,
        num_warps=4, **({"launch_pdl": True} if plan.overlap else {}),
    )  # fmt: skip


def _fits(plan: Plan, q: Tensor, k: Tensor, v: Tensor, kv_heads: int) -> None:
    """Shapes, formats and strides, none of which waits for the device."""
    if q.ndim != 3 or k.shape != v.shape or k.shape[-1] != q.shape[-1]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} must be (rows, heads, d) and two caches with that d"
        )
    if not q.dtype == k.dtype == v.dtype or q.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"q, k and v have dtypes {q.dtype}, {k.dtype}, {v.dtype}, must have one of float32, bfloat16, float16")
    if k.stride(-1) != 1 or v.stride(-1) != 1:
        raise ValueError("k and v must have stride 1 in their last axis")
    if q.shape[:2] != (plan.rows, len(plan.owners)) or kv_heads != plan.kv_heads:
        raise ValueError(
            f"q {tuple(q.shape)} and {kv_heads} KV heads must be of the {plan.rows} rows, {len(plan.owners)} heads and {plan.kv_heads} KV "
            "heads of the head map kv_of_head"
        )


def _scale(scale: float | None, q: Tensor) -> float:
    return q.shape[-1] ** -0.5 if scale is None else scale


def _lengths(lengths: Tensor, rows: int, least: int, most: int) -> int:
    """The longest, of lengths that are all in range."""
    low, high = int(lengths.min()), int(lengths.max())
    if lengths.shape != (rows,) or low < least or high > most:
        raise ValueError(f"lengths hold {low} to {high} in shape {tuple(lengths.shape)}, must be {least} to {most} for each of {rows} rows")
    return max(high, 1)


def decode(
    q: Tensor, k: Tensor, v: Tensor, kv_of_head: Tensor, lengths: Tensor, *, scale: float | None = None, tuning: Tuning | None = None
) -> Tensor:
    """As :func:`dse_kernels.attention.decode`, float32 result: q (rows, heads, d), k and v (rows, tokens, KV heads, d)."""
    longest = _lengths(lengths, q.shape[0], 1, k.shape[1])
    return run(plan(kv_of_head, q.shape[0], longest, device=q.device, tuning=tuning), q, k, v, lengths.to(q.device), scale=scale)


def decode_paged(
    q: Tensor,
    k_pages: Tensor,
    v_pages: Tensor,
    block_table: Tensor,
    lengths: Tensor,
    kv_of_head: Tensor,
    *,
    scale: float | None = None,
    tuning: Tuning | None = None,
) -> Tensor:
    """As :func:`dse_kernels.attention.decode_paged`, float32 result."""
    page = k_pages.shape[1]
    longest = _lengths(lengths, q.shape[0], 1, page * block_table.shape[1])
    needed = torch.arange(block_table.shape[1], device=block_table.device) < ((lengths.to(block_table.device) + page - 1) // page)[:, None]
    named = block_table[needed]
    if int(named.min()) < 0 or int(named.max()) >= len(k_pages):
        raise ValueError(f"block_table names pages {int(named.min())} to {int(named.max())}, must be 0 to {len(k_pages) - 1}")
    made = plan(kv_of_head, q.shape[0], longest, device=q.device, tuning=tuning)
    return run_paged(made, q, k_pages, v_pages, block_table, lengths.to(q.device), scale=scale)


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
    tuning: Tuning | None = None,
) -> Tensor:
    """As :func:`dse_kernels.attention.decode_shared`, float32 result: the prefix (tokens, KV heads, d) is read once for 64 queries."""
    longest = _lengths(lengths, q.shape[0], 0, k.shape[1])
    made = plan(kv_of_head, q.shape[0], longest, device=q.device, prefix=len(prefix_k), tuning=tuning, prefix_tuning=tuning)
    return run_shared(made, q, prefix_k, prefix_v, k, v, lengths.to(q.device), scale=scale)
