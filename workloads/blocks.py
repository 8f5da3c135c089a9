"""The building blocks that the families share: projections, attention, feed-forward networks, norms, embeddings.

Every function returns rows of one layer with ``repeat`` = the number of layers. ``held_elements`` of a row are the
activations that wait for later rows of the layer: the residual stream and the operands that are ready. Sizes are numbers
or arrays of shape (models,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workloads.ops import IntLike, Kind, Operation, Parallel

Parts = Sequence[tuple[IntLike, IntLike]]
"""Lengths of the key range and in how many of the steps each occurs."""


@dataclass(frozen=True)
class Bits:
    """Precision in bits: parameters, activations, KV cache."""

    weights: IntLike = 8
    activations: IntLike = 8
    kv: IntLike = 8


def bits_of(d: Mapping[str, Any]) -> Bits:
    """The precision that a set of dimensions and settings asks for."""
    return Bits(d["weight_bits"], d["activation_bits"], d["kv_bits"])


def times(rows: Sequence[Operation], steps: IntLike) -> list[Operation]:
    """The rows run ``steps`` times with the same weights."""
    if isinstance(steps, int) and steps == 1:
        return list(rows)
    return [replace(row, repeat=row.repeat * steps, copies=row.copies if _has(row.copies) else row.repeat) for row in rows]


def linear(
    name: str,
    m: IntLike,
    n: IntLike,
    k: IntLike,
    *,
    bits: Bits,
    repeat: IntLike = 1,
    bias: bool = True,
    component: str,
    weight_id: str = "",
    held: IntLike = 0,
    copies: IntLike = 0,
    writes_cache: bool = False,
    parallel: Parallel = Parallel.AUTO,
    reads: str = "",
) -> Operation:
    """``m`` vectors of ``k`` times a weight (k, n), with n biases."""
    return Operation(
        name,
        Kind.GEMM,
        m,
        n,
        k,
        repeat=repeat,
        component=component,
        second_is_weight=True,
        input_bits=bits.activations,
        weight_bits=bits.weights,
        output_bits=bits.kv if writes_cache else bits.activations,
        parameters=n * k + (n if bias else 0),
        weight_id=weight_id or name,
        copies=copies,
        held_elements=held,
        writes_cache=writes_cache,
        parallel=parallel,
        reads=reads,
    )


def vector(
    name: str,
    kind: Kind,
    function: str,
    m: IntLike,
    n: IntLike,
    *,
    bits: Bits,
    repeat: IntLike = 1,
    component: str,
    operands: IntLike = 1,
    parameters: IntLike = 0,
    weight_id: str = "",
    held: IntLike = 0,
    parallel: Parallel = Parallel.AUTO,
    reads: str = "",
) -> Operation:
    """A vector operation on ``m`` rows of ``n`` elements."""
    return Operation(
        name,
        kind,
        m,
        n,
        repeat=repeat,
        component=component,
        function=function,
        input_bits=bits.activations,
        weight_bits=bits.weights,
        output_bits=bits.activations,
        operands=operands,
        parameters=parameters,
        weight_id=weight_id or (name if _has(parameters) else ""),
        held_elements=held,
        parallel=parallel,
        reads=reads,
    )


def norm(
    name: str,
    m: IntLike,
    n: IntLike,
    *,
    function: str,
    bits: Bits,
    repeat: IntLike = 1,
    held: IntLike = 0,
    component: str = "norm",
    parallel: Parallel = Parallel.AUTO,
    reads: str = "",
) -> Operation:
    """``layernorm`` (scale and shift) or ``rmsnorm`` (scale) over ``n`` elements."""
    parameters = 2 * n if function == "layernorm" else n
    return vector(
        name,
        Kind.NORM,
        function,
        m,
        n,
        bits=bits,
        repeat=repeat,
        component=component,
        parameters=parameters,
        held=held,
        parallel=parallel,
        reads=reads,
    )


def residual(name: str, m: IntLike, n: IntLike, *, bits: Bits, repeat: IntLike, component: str, reads: str = "") -> Operation:
    """The addition of a block's output to the residual stream; ``reads``: the rows of both."""
    return vector(name, Kind.ELEMENTWISE, "add", m, n, bits=bits, repeat=repeat, component=component, operands=2, reads=reads)


def embedding(name: str, m: IntLike, n: IntLike, entries: IntLike, *, bits: Bits, weight_id: str = "", held: IntLike = 0) -> Operation:
    """``m`` rows of ``n`` elements read from a table of ``entries`` rows (read at the precision of the weights)."""
    return Operation(
        name,
        Kind.EMBEDDING,
        m,
        n,
        component="embedding",
        function="gather",
        input_bits=bits.weights,
        weight_bits=bits.weights,
        output_bits=bits.activations,
        parameters=entries * n,
        weight_id=weight_id or name,
        held_elements=held,
    )


@dataclass(frozen=True)
class HeadSharing:
    """``kv_heads`` KV heads that ``readers`` query heads read each, in ``present`` of the layers' runs, over ``share`` of the keys."""

    readers: IntLike
    kv_heads: IntLike
    share: Any = 1.0
    present: IntLike = 1


def shared_core(sharing: Sequence[HeadSharing], prefix: str, *, kv_len: IntLike, repeat: IntLike, **common: Any) -> list[Operation]:
    """:func:`attention_core` of every kind of sharing in a layer: unequal groups are products of unequal shapes."""
    rows: list[Operation] = []
    for index, kind in enumerate(sharing):
        seen = np.maximum(1, np.ceil(np.asarray(kind.share) * np.asarray(kv_len))).astype(np.int64)
        rows += attention_core(
            f"{prefix}group{index}." if len(sharing) > 1 else prefix,
            heads=kind.readers * kind.kv_heads,
            kv_heads=kind.kv_heads,
            kv_len=int(seen) if seen.ndim == 0 else seen,
            repeat=repeat * kind.present,
            **common,
        )
    return rows


def attention_core(
    prefix: str,
    *,
    batch: IntLike,
    heads: IntLike,
    kv_heads: IntLike,
    q_len: IntLike,
    kv_len: IntLike,
    qk_dim: IntLike,
    v_dim: IntLike,
    bits: Bits,
    repeat: IntLike,
    held: IntLike = 0,
    causal: bool = False,
    window: IntLike = 0,
    cached: bool = False,
    fused: bool = False,
    values_in_keys: bool = False,
    sinks: bool = False,
    queries: str = "",
    keys: str = "",
    values: str = "",
) -> list[Operation]:
    """Scores, softmax and context of one layer.

    Unfused: two products and a softmax over the whole q_len x kv_len rectangle, what eager kernels and exported graphs
    compute; query heads that share a KV head are stacked, so that K and V are read once. Fused: one row that never writes
    the scores and skips what causality and the window hide. ``sinks``: one learnt score per head joins the softmax. On several
    chips each has some of the heads. ``queries``, ``keys``, ``values``: the rows that make them (a cache's come from memory).
    """
    first, *others = (name or "-" for name in (queries, *(("-", "-") if cached else (keys, values))))
    sink: dict[str, Any] = {"parameters": heads, "weight_id": f"{prefix}sinks"} if sinks else {}
    if fused:
        return [
            Operation(
                f"{prefix}attention",
                Kind.ATTENTION_DECODE if cached else Kind.ATTENTION_PREFILL,
                q_len,
                kv_len,
                qk_dim,
                batch=batch * heads,
                repeat=repeat,
                component="attention",
                function="softmax",
                input_bits=bits.activations,
                weight_bits=bits.kv if cached else bits.activations,
                output_bits=bits.activations,
                second_is_cache=cached,
                v_dim=v_dim,
                kv_share=heads // kv_heads,
                causal=causal,
                window=window,
                values_in_keys=values_in_keys,
                held_elements=held,
                parallel=Parallel.COLUMN,
                reads=" ".join((first, *others)),
                **sink,
            )
        ]
    stacked = heads // kv_heads * q_len
    value_elements = 0 if cached else batch * kv_heads * kv_len * v_dim
    second: dict[str, Any] = {"second_is_cache": cached, "weight_bits": bits.kv if cached else bits.activations}
    common: dict[str, Any] = {
        "input_bits": bits.activations,
        "output_bits": bits.activations,
        "component": "attention",
        "repeat": repeat,
        "parallel": Parallel.COLUMN,
    }
    return [
        Operation(
            f"{prefix}scores",
            Kind.GEMM,
            stacked,
            kv_len,
            qk_dim,
            batch=batch * kv_heads,
            held_elements=held + value_elements,
            reads=f"{first} {others[0]}",
            **common,
            **second,
        ),
        Operation(
            f"{prefix}softmax",
            Kind.SOFTMAX,
            batch * heads * q_len,
            kv_len,
            function="softmax",
            held_elements=held + value_elements,
            reads=f"{prefix}scores",
            **common,
            **sink,
        ),
        Operation(
            f"{prefix}context",
            Kind.GEMM,
            stacked,
            v_dim,
            kv_len,
            batch=batch * kv_heads,
            held_elements=held,
            reads=f"{prefix}softmax {others[1]}",
            **common,
            **second,
        ),
    ]


def self_attention(
    *,
    hidden: IntLike,
    heads: IntLike,
    head_dim: IntLike,
    batch: IntLike,
    q_len: IntLike,
    bits: Bits,
    repeat: IntLike,
    prefix: str = "",
    kv_heads: IntLike | None = None,
    parts: Parts = (),
    steps: IntLike = 1,
    bias_qkv: tuple[bool, bool, bool] = (True, True, True),
    bias_out: bool = True,
    qk_norm: str = "",
    rotary_dim: IntLike = 0,
    pre_norm: bool = False,
    causal: bool = False,
    window: IntLike = 0,
    cached: bool = False,
    writes_cache: bool = False,
    fused: bool = False,
    sinks: bool = False,
    softcap: bool = False,
    sharing: Sequence[HeadSharing] = (),
) -> list[Operation]:
    """Projections, (norms and rotary positions of queries and keys), attention and output projection of a layer.

    ``parts``: key lengths of the steps (default: one step, keys as long as the queries). ``pre_norm``: the input is a
    normed copy, and the residual stream waits beside it. ``softcap``: the scores pass through a tanh.
    ``sharing``: kinds of KV heads where groups are unequal (default: ``heads / kv_heads`` readers each).
    """
    kv_heads = heads if kv_heads is None else kv_heads
    tokens = batch * q_len
    stream = tokens * hidden
    held = stream if pre_norm else 0
    wide, narrow = heads * head_dim, kv_heads * head_dim
    # Several chips: each has some of the heads, from its columns of the first projections to its rows of the last.
    common: dict[str, Any] = {"bits": bits, "repeat": repeat, "component": "attention", "parallel": Parallel.COLUMN}
    cache: dict[str, Any] = {"writes_cache": writes_cache}
    same = f"={prefix}q_proj"
    made = {which: f"{prefix}{which}_proj" for which in "qkv"}
    front = [
        linear(f"{prefix}q_proj", tokens, wide, hidden, bias=bias_qkv[0], held=held, **common),
        linear(f"{prefix}k_proj", tokens, narrow, hidden, bias=bias_qkv[1], held=held + tokens * wide, reads=same, **cache, **common),
        linear(
            f"{prefix}v_proj", tokens, narrow, hidden, bias=bias_qkv[2], held=held + tokens * (wide + narrow), reads=same, **cache, **common
        ),
    ]
    if qk_norm:
        others = stream + tokens * (wide + 2 * narrow)
        for which, count in (("q", heads), ("k", kv_heads)):
            name, waiting = f"{prefix}{which}_norm", others - tokens * count * head_dim
            each: dict[str, Any] = {"bits": bits, "repeat": repeat, "held": waiting, "parallel": Parallel.COLUMN}
            front.append(norm(name, tokens * count, head_dim, function=qk_norm, reads=made[which], **each))
            made[which] = name
    if _has(rotary_dim):
        front.append(
            vector(
                f"{prefix}rope",
                Kind.ELEMENTWISE,
                "rope",
                tokens,
                (heads + kv_heads) * rotary_dim,
                held=stream + tokens * narrow,
                reads=f"{made['q']} {made['k']}",
                **common,
            )
        )
        made |= {"q": f"{prefix}rope", "k": f"{prefix}rope"}
    core: list[Operation] = []
    lengths = list(parts) or [(q_len, 1)]
    for index, (keys, count) in enumerate(lengths):
        name = f"{prefix}part{index}." if len(lengths) > 1 else prefix
        rows = shared_core(
            sharing or (HeadSharing(heads // kv_heads, kv_heads),),
            name,
            batch=batch,
            q_len=q_len,
            kv_len=keys,
            qk_dim=head_dim,
            v_dim=head_dim,
            bits=bits,
            repeat=repeat * count,
            held=stream,
            causal=causal,
            window=window,
            cached=cached,
            fused=fused,
            sinks=sinks,
            queries=made["q"],
            keys=made["k"],
            values=made["v"],
        )
        if sinks:
            rows = [replace(row, weight_id=f"{prefix}sinks", copies=repeat) if row.weight_id.endswith("sinks") else row for row in rows]
        if softcap and not fused:
            cap = vector(
                f"{name}softcap",
                Kind.ACTIVATION,
                "tanh",
                batch * heads * q_len,
                keys,
                bits=bits,
                repeat=repeat * count,
                component="attention",
                held=stream,
                parallel=Parallel.COLUMN,
                reads=rows[0].name,
            )
            rows[1] = replace(rows[1], reads=cap.name)
            rows.insert(1, cap)
        core += rows
    back = linear(f"{prefix}o_proj", tokens, hidden, wide, bias=bias_out, held=stream, **{**common, "parallel": Parallel.ROW})
    return [*times(front, steps), *core, *times([back], steps)]


def cross_attention(
    *,
    hidden: IntLike,
    heads: IntLike,
    head_dim: IntLike,
    batch: IntLike,
    q_len: IntLike,
    source_len: IntLike,
    bits: Bits,
    repeat: IntLike,
    prefix: str,
    bias_qkv: tuple[bool, bool, bool],
    bias_out: bool,
    project_source: bool,
    cached: bool,
    fused: bool,
) -> list[Operation]:
    """Attention of ``q_len`` target tokens to ``source_len`` encoded ones.

    ``project_source``: compute keys and values of the source (once per request); else they are read from the cache.
    """
    tokens, source = batch * q_len, batch * source_len
    stream, wide = tokens * hidden, heads * head_dim
    common: dict[str, Any] = {"bits": bits, "repeat": repeat, "component": "attention", "parallel": Parallel.COLUMN}
    rows = [linear(f"{prefix}q_proj", tokens, wide, hidden, bias=bias_qkv[0], held=stream, **common)]
    if project_source:
        rows += cross_source(
            hidden=hidden, wide=wide, source=source, bits=bits, repeat=repeat, prefix=prefix, bias_qkv=bias_qkv, held=2 * stream
        )
    rows += attention_core(
        prefix,
        batch=batch,
        heads=heads,
        kv_heads=heads,
        q_len=q_len,
        kv_len=source_len,
        qk_dim=head_dim,
        v_dim=head_dim,
        bits=bits,
        repeat=repeat,
        held=stream,
        cached=cached,
        fused=fused,
        queries=f"{prefix}q_proj",
        keys=f"{prefix}k_proj" if project_source else "",
        values=f"{prefix}v_proj" if project_source else "",
    )
    rows.append(linear(f"{prefix}o_proj", tokens, hidden, wide, bias=bias_out, held=stream, **{**common, "parallel": Parallel.ROW}))
    return rows


def cross_source(
    *,
    hidden: IntLike,
    wide: IntLike,
    source: IntLike,
    bits: Bits,
    repeat: IntLike,
    prefix: str,
    bias_qkv: tuple[bool, bool, bool],
    held: IntLike = 0,
    writes_cache: bool = False,
) -> list[Operation]:
    """Keys and values of ``source`` encoded tokens for the cross-attention of every layer."""
    common: dict[str, Any] = {
        **{"bits": bits, "repeat": repeat, "component": "attention", "writes_cache": writes_cache},
        "parallel": Parallel.COLUMN,
    }
    return [
        linear(f"{prefix}k_proj", source, wide, hidden, bias=bias_qkv[1], held=held, reads="-", **common),
        linear(f"{prefix}v_proj", source, wide, hidden, bias=bias_qkv[2], held=held + source * wide, reads=f"={prefix}k_proj", **common),
    ]


def feed_forward(
    *,
    hidden: IntLike,
    ffn: IntLike,
    tokens: IntLike,
    activation: str,
    bits: Bits,
    repeat: IntLike,
    gated: bool = False,
    bias: bool = True,
    pre_norm: bool = False,
    prefix: str = "",
    component: str = "ffn",
) -> list[Operation]:
    """Up (and gate) projection, activation, down projection of one layer."""
    stream = tokens * hidden
    held = stream if pre_norm else 0
    # Several chips: each has some of the inner columns.
    common: dict[str, Any] = {"bits": bits, "repeat": repeat, "component": component, "parallel": Parallel.COLUMN}
    rows: list[Operation] = []
    waiting: IntLike = stream
    if gated:
        rows.append(linear(f"{prefix}ffn_gate", tokens, ffn, hidden, bias=bias, held=held, **common))
        held, waiting = held + tokens * ffn, stream + tokens * ffn
    first, acted = (f"{prefix}ffn_gate" if gated else f"{prefix}ffn_up"), f"{prefix}ffn_{activation}"
    rows.append(linear(f"{prefix}ffn_up", tokens, ffn, hidden, bias=bias, held=held, reads=f"={first}" if gated else "", **common))
    rows.append(vector(acted, Kind.ACTIVATION, activation, tokens, ffn, held=waiting, reads=first, **common))
    if gated:
        both = f"{acted} {prefix}ffn_up"
        rows.append(vector(f"{prefix}ffn_mul", Kind.ELEMENTWISE, "mul", tokens, ffn, operands=2, held=stream, reads=both, **common))
    rows.append(linear(f"{prefix}ffn_down", tokens, hidden, ffn, bias=bias, held=stream, **{**common, "parallel": Parallel.ROW}))
    return rows


def _has(amount: IntLike) -> bool:
    return not isinstance(amount, int) or amount > 0
