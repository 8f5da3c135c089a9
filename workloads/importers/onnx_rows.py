"""Rows of ONNX nodes: products, fused attention and quantised operators, vector operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from workloads.errors import shorten
from workloads.filters import filter_fields
from workloads.importers.collector import Collector, Value, words
from workloads.importers.einsum import einsum_product
from workloads.importers.onnx_shapes import Info
from workloads.importers.onnx_wire import BITS, Node, NodeError
from workloads.ops import Kind, Operation

STANDARD = ("", "ai.onnx")
_FUNCTIONS = {"Gelu": "gelu", "FastGelu": "gelu_tanh", "BiasGelu": "gelu", "QuickGelu": "quick_gelu", "Swish": "silu"}
_ACTIVATIONS = words(
    "Relu Gelu FastGelu BiasGelu QuickGelu Tanh Sigmoid LeakyRelu HardSigmoid HardSwish Softplus Softsign Elu "
    "Selu Celu PRelu Mish ThresholdedRelu Swish Erf"
)
_NORMS = {
    "LayerNormalization": "layernorm",
    "RMSNormalization": "rmsnorm",
    "SimplifiedLayerNormalization": "rmsnorm",
    "SkipLayerNormalization": "layernorm",
    "SkipSimplifiedLayerNormalization": "rmsnorm",
    "GroupNormalization": "groupnorm",
    "InstanceNormalization": "instancenorm",
    "BatchNormalization": "batchnorm",
    "LpNormalization": "l2norm",
    "MeanVarianceNormalization": "layernorm",
    "LRN": "groupnorm",
}
_REDUCTIONS = words(
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceSumSquare ArgMax ArgMin CumSum MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool"
)
_GATHERS = frozenset(("Gather", "GatherElements", "GatherND"))
_COPIES = words("Concat Tile Pad ScatterND ScatterElements Scatter DepthToSpace SpaceToDepth Resize Upsample OneHot ReverseSequence")

Rows = list[tuple[Operation, Sequence[str]]]


class Entry:
    """A tensor while the graph is walked: what shape inference knows and what the collector needs."""

    __slots__ = ("info", "value")

    def __init__(self, info: Info, value: Value) -> None:
        self.info = info
        self.value = value


class OnnxRows:
    """Makes the rows of nodes whose inputs are known."""

    def __init__(self, collector: Collector) -> None:
        self.collector = collector

    def of(self, node: Node, entries: Sequence[Entry | None], outputs: Sequence[Info], names: tuple[str, ...]) -> Rows:
        title, op = title_of(node, names), node.op_type
        handler = _PRODUCTS.get(op)
        if handler is not None:
            return [(row, names) for row in handler(self, node, title, entries, outputs)]
        present = [entry for entry in entries if entry is not None]
        first, result = present[0].info.known(), outputs[0].known()
        make = self.collector.elementwise
        operands = sum(1 for entry in present if not entry.value.constant or entry.value.elements > 1)
        if op in _NORMS:
            row = make(title, _NORMS[op], first, 1, Kind.NORM)
        elif op in ("Softmax", "LogSoftmax"):
            row = make(title, "softmax", first, 1, Kind.SOFTMAX)
        elif op in _ACTIVATIONS:
            row = make(title, _function(node), result, 1, Kind.ACTIVATION)
        elif op in _GATHERS:
            row = make(title, "gather", result, 1, Kind.EMBEDDING if names else Kind.GATHER)
        elif op in _REDUCTIONS:
            rows = max(1, math.prod(result))
            row = make(title, _reduction(op), (rows, max(1, math.prod(first) // rows)), 1)
        elif op in _COPIES:
            row = make(title, "copy", result, 1)
        elif op == "TopK":
            n = first[-1] if first else 1
            row = self.collector.vector(title, Kind.TOPK, "topk", math.prod(first) // max(n, 1), n, k=result[-1] if result else 1)
        else:
            row = make(title, _power(present) if op == "Pow" else _ELEMENTWISE.get(op, op.lower()), result, operands)
        return [(row, names)]

    def _matmul(self, node: Node, title: str, entries: Sequence[Entry | None], outputs: Sequence[Info]) -> list[Operation]:
        second = 3 if node.op_type == "QLinearMatMul" else 1
        return self.collector.matmul(title, self._operand(node, entries, 0), self._operand(node, entries, second))

    def _operand(self, node: Node, entries: Sequence[Entry | None], index: int) -> Value:
        entry = entries[index]
        if entry is None:
            raise NodeError(f"input {index} is missing")
        bits = entry.value.bits
        if not bits and node.op_type in ("MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv"):
            bits = BITS.get(entry.info.data_type, 8)
        return Value(entry.info.known(), entry.value.root, entry.value.constant, entry.value.parameters, bits)

    def _gemm(self, node: Node, title: str, entries: Sequence[Entry | None], outputs: Sequence[Info]) -> list[Operation]:
        a, b = self._operand(node, entries, 0), self._operand(node, entries, 1)
        m, n = outputs[0].known()
        k = a.shape[0] if node.attributes.get("transA") else a.shape[1]
        return self.collector.matrix(title, m, n, k, a, b)

    def _convolution(self, node: Node, title: str, entries: Sequence[Entry | None], outputs: Sequence[Info]) -> list[Operation]:
        x = self._operand(node, entries, 0)
        weight = self._operand(node, entries, 3 if node.op_type == "QLinearConv" else 1)
        groups = int(node.attributes.get("group", 1))
        taps = math.prod(weight.shape[2:])
        window = {"filter_taps": 1}
        if node.op_type == "ConvTranspose":
            m, n, k = math.prod(x.shape[2:]), weight.shape[1] * taps, weight.shape[0] // groups
        else:
            m, n, k = math.prod(outputs[0].known()[2:]), weight.shape[0] // groups, weight.shape[1] * taps
            strides, dilations = ([int(v) for v in node.attributes.get(name) or ()] for name in ("strides", "dilations"))
            window = filter_fields(x.shape[2:], weight.shape[2:], strides, dilations)
        if not m * n * k * x.shape[0]:
            return []
        row = self.collector.product(
            title, m, n, k, x, weight, batch=x.shape[0], groups=groups, kind=Kind.CONV, input_elements=x.elements, **window
        )
        return [row]

    def _einsum(self, node: Node, title: str, entries: Sequence[Entry | None], outputs: Sequence[Info]) -> list[Operation]:
        operands = [self._operand(node, entries, index) for index in range(len(entries))]
        equation = str(node.attributes.get("equation", ""))
        if len(operands) == 1:
            return [self.collector.elementwise(title, "sum", operands[0].shape, 1)]
        sizes = einsum_product(equation, [value.shape for value in operands])
        if sizes is None:
            self.collector.not_understood[shorten(f"Einsum {equation}")] += 1
            return []
        batch, m, n, k = sizes
        first, second = operands
        if first.constant and not second.constant:
            first, second, m, n = second, first, n, m
        return self.collector.matrix(title, m, n, k, first, second, batch)

    # ---- operators that are several operations ----

    def _attention(self, node: Node, entries: Sequence[Entry | None]) -> tuple[Rows, list[Info]]:
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
        rows = self._core(node, batch, heads, kv_heads, q_len, kv_len, qk, width, causal)
        cache = (batch, kv_heads, kv_len)
        outputs = [Info(result), Info((*cache, qk)), Info((*cache, width)), Info((batch, heads, q_len, kv_len))]
        return rows, outputs[: max(1, len(node.outputs))]

    def _core(self, node: Node, batch: int, heads: int, kv_heads: int, q_len: int, kv_len: int, qk: int, width: int, causal: bool) -> Rows:
        if min(batch, heads, kv_heads, q_len, kv_len, qk, width) < 1 or heads % kv_heads:
            raise NodeError(f"{heads} query heads, {kv_heads} KV heads and lengths {q_len}, {kv_len} do not fit")
        rows = self.collector.attention(
            title_of(node, ()), batch=batch, heads=heads, kv_heads=kv_heads, q_len=q_len, kv_len=kv_len, qk_dim=qk, v_dim=width,
            causal=causal,
        )  # fmt: skip
        return [(row, ()) for row in rows]

    def _packed_attention(self, node: Node, entries: Sequence[Entry | None]) -> tuple[Rows, list[Info]]:
        """com.microsoft Attention and QAttention: a projection to queries, keys and values, then attention."""
        if node.domain in STANDARD:
            return self._attention(node, entries)
        x, weight = self._operand(node, entries, 0), self._operand(node, entries, 1)
        batch, length, hidden = x.shape
        heads = int(node.attributes["num_heads"])
        sizes = [int(item) for item in node.attributes.get("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3]
        title = title_of(node, weight.parameters)
        bias = entries[2].value.parameters if len(entries) > 2 and entries[2] is not None else ()
        rows: Rows = [
            (row, (*weight.parameters, *bias))
            for row in self.collector.matrix(f"{title}.qkv", batch * length, sum(sizes), hidden, x, weight)
        ]
        causal = bool(node.attributes.get("unidirectional", 0))
        rows += self._core(node, batch, heads, heads, length, length, sizes[0] // heads, sizes[2] // heads, causal)
        outputs = [Info((batch, length, sizes[2])), Info((2, batch, heads, length, sizes[0] // heads))]
        return rows, outputs[: max(1, len(node.outputs))]

    def _multi_head(self, node: Node, entries: Sequence[Entry | None]) -> tuple[Rows, list[Info]]:
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
        rows = self._core(node, batch, heads, kv_heads, q_len, kv_len, width, width, causal)
        cache = Info((batch, kv_heads, kv_len, width))
        return rows, [Info((batch, q_len, heads * width)), cache, cache][: max(1, len(node.outputs))]

    def _skip_norm(self, node: Node, entries: Sequence[Entry | None]) -> tuple[Rows, list[Info]]:
        shape = _shape_of(entries, 0)
        names = tuple(name for entry in entries if entry is not None for name in entry.value.parameters)
        title = title_of(node, names)
        rows: Rows = [
            (self.collector.elementwise(title, "add", shape, 2), ()),
            (self.collector.elementwise(title, _NORMS[node.op_type], shape, 1, Kind.NORM), names),
        ]
        return rows, [Info(shape)] * max(1, len(node.outputs))

    def _packed_bits(self, node: Node, entries: Sequence[Entry | None]) -> tuple[Rows, list[Info]]:
        """com.microsoft MatMulNBits: a weight of N x K packed in 2 to 8 bits."""
        x, weight = self._operand(node, entries, 0), self._operand(node, entries, 1)
        n, k = int(node.attributes["N"]), int(node.attributes["K"])
        if x.shape[-1] != k or n < 1:
            raise NodeError(f"input {x.shape} does not fit N = {n}, K = {k}")
        packed = Value((k, n), weight.root, True, weight.parameters, int(node.attributes.get("bits", 4)))
        title = title_of(node, weight.parameters)
        rows: Rows = [(row, weight.parameters) for row in self.collector.matrix(title, x.elements // k, n, k, x, packed)]
        return rows, [Info((*x.shape[:-1], n))]

    def _recurrent(self, node: Node, entries: Sequence[Entry | None]) -> tuple[Rows, list[Info]]:
        """LSTM, GRU, RNN: one product over all steps for the inputs, one per step for the state."""
        x, w, r = (self._operand(node, entries, index) for index in range(3))
        steps, batch, size = x.shape
        directions, wide, _ = w.shape
        hidden = r.shape[-1]
        names = (
            *w.parameters,
            *r.parameters,
            *(entries[3].value.parameters if len(entries) > 3 and entries[3] is not None else ()),
        )
        title = title_of(node, names)
        rows: Rows = []
        if steps * batch * size * wide * hidden * directions:
            inner = self.collector.product(f"{title}.input", steps * batch, wide, size, x, w, repeat=directions)
            state = Value((batch, hidden), -1)
            outer = self.collector.product(f"{title}.state", batch, wide, hidden, state, r, repeat=directions * steps)
            gates = self.collector.vector(f"{title}.gates", Kind.ACTIVATION, "sigmoid", steps * batch * directions, wide)
            rows = [(replace(inner, copies=0), names), (outer, ()), (gates, ())]
        last = Info((directions, batch, hidden))
        return rows, [Info((steps, directions, batch, hidden)), last, last][: max(1, len(node.outputs))]


def _shape_of(entries: Sequence[Entry | None], index: int) -> tuple[int, ...]:
    entry = entries[index] if index < len(entries) else None
    if entry is None:
        raise NodeError(f"input {index} is missing")
    return entry.info.known()


def _function(node: Node) -> str:
    if node.op_type == "Gelu" and node.attributes.get("approximate") == "tanh":
        return "gelu_tanh"
    return _FUNCTIONS.get(node.op_type, node.op_type.lower())


_ELEMENTWISE = {"DynamicQuantizeLinear": "quantize", "Sum": "add", "Mean": "add", "Min": "minimum", "Max": "maximum"}


def _reduction(op: str) -> str:
    """The vocabulary's name of a reduction."""
    if op == "CumSum":
        return "cumsum"
    if "Max" in op or "Min" in op:
        return "max"
    return "mean" if "Mean" in op or "Average" in op else "sum"


def _power(present: Sequence[Entry]) -> str:
    """A square or cube is products, a root a root; other powers cost what an exponential does."""
    exponent = present[1].info.value if len(present) > 1 else None
    if exponent is None or exponent.size != 1:
        return "exp"
    return {2.0: "mul", 3.0: "mul", 0.5: "sqrt", -0.5: "sqrt"}.get(float(exponent.reshape(-1)[0]), "exp")


def title_of(node: Node, names: Sequence[str]) -> str:
    """A name for a row: the path of its weight where that says more than the name of the node."""
    for name in names:
        if "." in name and not name.startswith("onnx::"):
            return name.removesuffix(".weight").removesuffix(".bias")
    return (node.name or (node.outputs[0] if node.outputs else "") or node.op_type).strip("/").replace("/", ".")


_Product = Callable[[OnnxRows, Node, str, Sequence["Entry | None"], Sequence[Info]], list[Operation]]
_PRODUCTS: dict[str, _Product] = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"), OnnxRows._matmul),
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "FusedConv"), OnnxRows._convolution),
    "Gemm": OnnxRows._gemm,
    "Einsum": OnnxRows._einsum,
}
SPECIAL: dict[str, Callable[[OnnxRows, Node, Sequence[Entry | None]], tuple[Rows, list[Info]]]] = {
    "Attention": OnnxRows._packed_attention,
    "MultiHeadAttention": OnnxRows._multi_head,
    "GroupQueryAttention": OnnxRows._multi_head,
    "SkipLayerNormalization": OnnxRows._skip_norm,
    "SkipSimplifiedLayerNormalization": OnnxRows._skip_norm,
    "MatMulNBits": OnnxRows._packed_bits,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), OnnxRows._recurrent),
}
