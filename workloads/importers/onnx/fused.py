"""ONNX operators that are several operations: attention, recurrent layers, fused embeddings and norms, packed weights, experts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from workloads.importers.collector import GATES, Value
from workloads.importers.onnx.info import Info
from workloads.importers.onnx.rows import NORMS, STANDARD, Entry, OnnxRows, Rows, title_of
from workloads.importers.onnx.wire import Node, NodeError
from workloads.ops import Kind

Entries = Sequence["Entry | None"]
Made = tuple[Rows, list[Info]]


def _attention(make: OnnxRows, node: Node, entries: Entries) -> Made:
    """ONNX Attention (opset 23): (batch, heads, length, width) or (batch, length, heads x width) with head counts."""
    q, k, v = (_shape_of(entries, index) for index in range(3))
    if len(q) == 4:
        batch, heads, q_len, qk = q
        kv_heads, kv_len, width = k[1], k[2], v[3]
        result: tuple[int, ...] = (batch, heads, q_len, width)
    else:
        heads, kv_heads = int(node.attributes["q_num_heads"]), int(node.attributes["kv_num_heads"])
        batch, q_len, qk = q[0], q[1], q[2] // heads
        kv_len, width = k[1], v[2] // kv_heads
        result = (batch, q_len, heads * width)
    past = _shape_of(entries, 4) if len(entries) > 4 and entries[4] is not None else None
    kv_len += past[2] if past else 0
    causal = bool(node.attributes.get("is_causal", 0))
    rows = _core(make, node, batch, heads, kv_heads, q_len, kv_len, qk, width, causal)
    cache = (batch, kv_heads, kv_len)
    outputs = [Info(result), Info((*cache, qk)), Info((*cache, width)), Info((batch, heads, q_len, kv_len))]
    return rows, outputs[: max(1, len(node.outputs))]


def _core(
    make: OnnxRows, node: Node, batch: int, heads: int, kv_heads: int, q_len: int, kv_len: int, qk: int, width: int, causal: bool,
    window: int = 0,
) -> Rows:  # fmt: skip
    if min(batch, heads, kv_heads, q_len, kv_len, qk, width) < 1 or heads % kv_heads:
        raise NodeError(f"{heads} query heads, {kv_heads} KV heads and lengths {q_len}, {kv_len} do not fit")
    rows = make.collector.attention(
        title_of(node, ()), batch=batch, heads=heads, kv_heads=kv_heads, q_len=q_len, kv_len=kv_len, qk_dim=qk, v_dim=width,
        causal=causal, window=window,
    )  # fmt: skip
    return [(row, ()) for row in rows]


def _packed_attention(make: OnnxRows, node: Node, entries: Entries) -> Made:
    """com.microsoft Attention and QAttention: a projection to queries, keys and values, then attention."""
    if node.domain in STANDARD:
        return _attention(make, node, entries)
    x, weight = make.operand(node, entries, 0), make.operand(node, entries, 1)
    batch, length, hidden = x.shape
    heads = int(node.attributes["num_heads"])
    sizes = [int(item) for item in node.attributes.get("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3]
    title = title_of(node, weight.parameters)
    bias = entries[2].value.parameters if len(entries) > 2 and entries[2] is not None else ()
    rows: Rows = [
        (row, (*weight.parameters, *bias)) for row in make.collector.matrix(f"{title}.qkv", batch * length, sum(sizes), hidden, x, weight)
    ]
    causal = bool(node.attributes.get("unidirectional", 0))
    rows += _core(make, node, batch, heads, heads, length, length, sizes[0] // heads, sizes[2] // heads, causal)
    outputs = [Info((batch, length, sizes[2])), Info((2, batch, heads, length, sizes[0] // heads))]
    return rows, outputs[: max(1, len(node.outputs))]


def _multi_head(make: OnnxRows, node: Node, entries: Entries) -> Made:
    """com.microsoft MultiHeadAttention and GroupQueryAttention on projected queries, keys and values."""
    q = _shape_of(entries, 0)
    heads = int(node.attributes["num_heads"])
    kv_heads = int(node.attributes.get("kv_num_heads", heads))
    grouped = node.op_type == "GroupQueryAttention"
    key = _shape_of(entries, 1) if len(entries) > 1 and entries[1] is not None else None
    batch, q_len = q[0], q[1]
    if key is None:
        width = q[2] // (heads + 2 * kv_heads) if len(q) == 3 else q[-1]
        kv_len = q_len
    else:
        width = q[2] // heads
        kv_len = key[2] if len(key) == 4 else key[1]
    at = 3 if grouped else 6
    past = _shape_of(entries, at) if len(entries) > at and entries[at] is not None else None
    kv_len += past[2] if past else 0
    causal = grouped or bool(node.attributes.get("unidirectional", 0))
    window = max(0, int(node.attributes.get("local_window_size", 0))) if grouped else 0
    rows = _core(make, node, batch, heads, kv_heads, q_len, kv_len, width, width, causal, window)
    cache = Info((batch, kv_heads, kv_len, width))
    return rows, [Info((batch, q_len, heads * width)), cache, cache][: max(1, len(node.outputs))]


def _skip_norm(make: OnnxRows, node: Node, entries: Entries) -> Made:
    shape = _shape_of(entries, 0)
    names = _parameters(entries)
    title = title_of(node, names)
    rows: Rows = [
        (make.collector.elementwise(title, "add", shape, 2), ()),
        (make.collector.elementwise(title, NORMS[node.op_type], shape, 1, Kind.NORM), names),
    ]
    return rows, [Info(shape)] * max(1, len(node.outputs))


def _packed_bits(make: OnnxRows, node: Node, entries: Entries) -> Made:
    """com.microsoft MatMulNBits: a weight of N x K packed in 2 to 8 bits."""
    x, weight = make.operand(node, entries, 0), make.operand(node, entries, 1)
    n, k = int(node.attributes["N"]), int(node.attributes["K"])
    if x.shape[-1] != k or n < 1:
        raise NodeError(f"input {x.shape} does not fit N = {n}, K = {k}")
    packed = Value((k, n), weight.root, True, weight.parameters, int(node.attributes.get("bits", 4)))
    title = title_of(node, weight.parameters)
    rows: Rows = [(row, weight.parameters) for row in make.collector.matrix(title, x.elements // k, n, k, x, packed)]
    return rows, [Info((*x.shape[:-1], n))]


def _recurrent(make: OnnxRows, node: Node, entries: Entries) -> Made:
    """LSTM, GRU, RNN and DynamicQuantizeLSTM (whose weights are stored transposed): every direction, all steps."""
    x, w, r = (make.operand(node, entries, index) for index in range(3))
    cell = next(name for name in GATES if name in node.op_type.lower())
    batch_first = bool(node.attributes.get("layout", 0))
    batch, steps = x.shape[:2] if batch_first else x.shape[1::-1]
    directions, size = w.shape[0], x.shape[2]
    hidden = r.shape[1] if node.op_type == "DynamicQuantizeLSTM" else r.shape[2]
    if sorted(w.shape[1:]) != sorted((GATES[cell] * hidden, size)):
        raise NodeError(f"weight {w.shape} does not fit input {x.shape} and {hidden} hidden units")
    extra = [entries[index] for index in (3, 7) if index < len(entries)]
    names = (*w.parameters, *r.parameters, *(name for entry in extra if entry is not None for name in entry.value.parameters))
    title = title_of(node, names)
    rows: Rows = []
    for _ in range(directions):
        made = make.collector.recurrent(title, cell, steps=steps, batch=batch, size=size, hidden=hidden, weight=w, state_weight=r, source=x)
        rows += [(row, names if index == 0 else ()) for index, row in enumerate(made)]
    last = Info((batch, directions, hidden) if batch_first else (directions, batch, hidden))
    every = (batch, steps, directions, hidden) if batch_first else (steps, directions, batch, hidden)
    return rows, [Info(every), last, last][: max(1, len(node.outputs))]


def _embed_norm(make: OnnxRows, node: Node, entries: Entries) -> Made:
    """com.microsoft EmbedLayerNormalization: rows of two or three tables (words, positions, segments), added and normed."""
    ids, hidden = _shape_of(entries, 0), _shape_of(entries, 2)[-1]
    shape = (*ids, hidden)
    tables = [entries[index] for index in (2, 3, 4) if index < len(entries)]
    rows: Rows = []
    for entry in tables:
        if entry is not None:
            names = entry.value.parameters
            rows.append((make.collector.elementwise(title_of(node, names), "gather", shape, 1, Kind.EMBEDDING), names))
    title = title_of(node, ())
    rows += [(make.collector.elementwise(f"{title}.add", "add", shape, 2), ())] * (len(rows) - 1)
    scale = _parameters(entries[5:7])
    rows.append((make.collector.elementwise(title_of(node, scale), "layernorm", shape, 1, Kind.NORM), scale))
    return rows, [Info(shape), Info(ids[:1], 6), Info(shape)][: max(1, len(node.outputs))]


def _experts(make: OnnxRows, node: Node, entries: Entries) -> Made:
    """com.microsoft MoE and QMoE: every token through ``k`` experts at their expected load; weights (experts, ., .)."""
    x, scores = make.operand(node, entries, 0), _shape_of(entries, 1)
    hidden, experts, top_k = x.shape[-1], scores[-1], int(node.attributes.get("k", 1))
    if not 1 <= top_k <= experts:
        raise NodeError(f"k is {top_k}, must be from 1 to the {experts} experts")
    packing = 8 // int(node.attributes.get("expert_weight_bits", 4)) if node.op_type == "QMoE" else 1
    places = (2, 5, 8) if node.op_type == "QMoE" else (2, 4, 6)
    rows: Rows = [(make.collector.vector(f"{title_of(node, ())}.top_k", Kind.TOPK, "topk", x.elements // hidden, experts, k=top_k), ())]
    inner = 0
    for index, place in enumerate(places):
        if place >= len(entries) or entries[place] is None:
            continue
        weight = make.operand(node, entries, place)
        wide = weight.elements * packing // (experts * hidden)
        # The second layer goes back to the hidden size; the first (and third) start from it.
        n, k = (hidden, wide) if index == 1 else (wide, hidden)
        bias = entries[place + 1] if place + 1 < len(entries) else None
        names = (*weight.parameters, *(bias.value.parameters if bias is not None and node.op_type == "MoE" else ()))
        made = make.collector.experts(
            title_of(node, names), x.elements // hidden * top_k, experts, top_k, n, k, x, replace(weight, parameters=names)
        )
        rows += [(row, names) for row in made]
        inner = wide if index == 0 else inner
    activation = str(node.attributes.get("activation_type", "relu"))
    function = {"swiglu": "silu", "identity": "copy"}.get(activation, activation)
    if function in ("relu", "gelu", "silu"):
        shape = (x.elements // hidden * top_k, inner)
        rows.append((make.collector.elementwise(title_of(node, ()), function, shape, 1, Kind.ACTIVATION), ()))
    return rows, [Info(x.shape)]


def _shape_of(entries: Entries, index: int) -> tuple[int, ...]:
    entry = entries[index] if index < len(entries) else None
    if entry is None:
        raise NodeError(f"input {index} is missing")
    return entry.info.known()


def _parameters(entries: Entries) -> tuple[str, ...]:
    return tuple(name for entry in entries if entry is not None for name in entry.value.parameters)


FUSED: dict[str, Callable[[OnnxRows, Node, Entries], Made]] = {
    **dict.fromkeys(("Attention", "QAttention"), _packed_attention),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention"), _multi_head),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), _skip_norm),
    "EmbedLayerNormalization": _embed_norm,
    "MatMulNBits": _packed_bits,
    **dict.fromkeys(("MoE", "QMoE"), _experts),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _recurrent),
}
