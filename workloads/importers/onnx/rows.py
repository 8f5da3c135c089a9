"""Rows of ONNX nodes: products, fused attention and quantised operators, vector operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from workloads.errors import shorten
from workloads.filters import filter_fields
from workloads.importers.collector import Collector, Value, words
from workloads.importers.onnx.info import Info, fused_matmul_shapes
from workloads.importers.onnx.wire import BITS, Node, NodeError
from workloads.ops import Kind, Operation

STANDARD = ("", "ai.onnx")
MATMULS = (
    *("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "TransposeMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
)
_INTEGER = words("MatMulInteger QLinearMatMul ConvInteger QLinearConv QGemm DynamicQuantizeMatMul MatMulIntegerToFloat QAttention")
_FUNCTIONS = {"Gelu": "gelu", "FastGelu": "gelu_tanh", "BiasGelu": "gelu", "QuickGelu": "quick_gelu", "Swish": "silu"}
_FUNCTIONS |= {"QLinearSigmoid": "sigmoid", "QLinearLeakyRelu": "relu"}
_ACTIVATIONS = words(
    "Relu Gelu FastGelu BiasGelu QuickGelu Tanh Sigmoid LeakyRelu HardSigmoid HardSwish Softplus Softsign Elu "
    "Selu Celu PRelu Mish ThresholdedRelu Swish Erf QLinearSigmoid QLinearLeakyRelu"
)
NORMS = {
    "LayerNormalization": "layernorm",
    "RMSNormalization": "rmsnorm",
    "SimplifiedLayerNormalization": "rmsnorm",
    "SkipLayerNormalization": "layernorm",
    "SkipSimplifiedLayerNormalization": "rmsnorm",
    "GroupNormalization": "groupnorm",
    "GroupNorm": "groupnorm",
    "InstanceNormalization": "instancenorm",
    "BatchNormalization": "batchnorm",
    "LpNormalization": "l2norm",
    "MeanVarianceNormalization": "layernorm",
    "LRN": "groupnorm",
}
_REDUCTIONS = words(
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp "
    "ReduceSumSquare ArgMax ArgMin CumSum MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool "
    "QLinearGlobalAveragePool MaxRoiPool RoiAlign"
)
_GATHERS = frozenset(("Gather", "GatherElements", "GatherND"))
_COPIES = words(
    "Concat Tile Pad ScatterND ScatterElements Scatter DepthToSpace SpaceToDepth Resize Upsample OneHot ReverseSequence MaxUnpool "
    "GridSample Col2Im"
)

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
        handler = PRODUCTS.get(op)
        if handler is not None:
            return [(row, names) for row in handler(self, node, title, entries, outputs)]
        present = [entry for entry in entries if entry is not None]
        first, result = present[0].info.known(), outputs[0].known()
        make = self.collector.elementwise
        operands = sum(1 for entry in present if not entry.value.constant or entry.value.elements > 1)
        if op in NORMS:
            row = make(title, NORMS[op], first, 1, Kind.NORM)
        elif op in ("Softmax", "LogSoftmax", "BiasSoftmax", "QLinearSoftmax"):
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
        a, b = self.operand(node, entries, 0), self.operand(node, entries, second)
        left, right = fused_matmul_shapes(node, a.shape, b.shape)
        return self.collector.matmul(title, replace(a, shape=left), replace(b, shape=right))

    def operand(self, node: Node, entries: Sequence[Entry | None], index: int) -> Value:
        entry = entries[index]
        if entry is None:
            raise NodeError(f"input {index} is missing")
        bits = entry.value.bits
        if not bits and node.op_type in _INTEGER:
            bits = BITS.get(entry.info.data_type, 8)
        return replace(entry.value, shape=entry.info.known(), bits=bits)

    def _gemm(self, node: Node, title: str, entries: Sequence[Entry | None], outputs: Sequence[Info]) -> list[Operation]:
        a, b = self.operand(node, entries, 0), self.operand(node, entries, 3 if node.op_type == "QGemm" else 1)
        m, n = outputs[0].known()
        k = a.shape[0] if node.attributes.get("transA") else a.shape[1]
        return self.collector.matrix(title, m, n, k, a, b)

    def _convolution(self, node: Node, title: str, entries: Sequence[Entry | None], outputs: Sequence[Info]) -> list[Operation]:
        x = self.operand(node, entries, 0)
        weight = self.operand(node, entries, 3 if node.op_type == "QLinearConv" else 1)
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
        operands = [self.operand(node, entries, index) for index in range(len(entries))]
        equation = str(node.attributes.get("equation", ""))
        if len(operands) == 1:
            return [self.collector.elementwise(title, "sum", operands[0].shape, 1)]
        rows = self.collector.einsum(title, equation, operands)
        if rows is None:
            raise NodeError(f"equation {shorten(equation)!r} does not fit its operands")
        return rows


def _function(node: Node) -> str:
    if node.op_type == "Gelu" and node.attributes.get("approximate") == "tanh":
        return "gelu_tanh"
    return _FUNCTIONS.get(node.op_type, node.op_type.lower())


_ELEMENTWISE = {
    **{"DynamicQuantizeLinear": "quantize", "Sum": "add", "Mean": "add", "Min": "minimum", "Max": "maximum"},
    **{"QLinearAdd": "add", "QLinearMul": "mul", "BiasAdd": "add", "BiasDropout": "add", "ImageScaler": "mul"},
}


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
    """A name for a row: the path of its weight, or of the module it was exported from, where one says more than the node's name."""
    for name in names:
        if "." in name and not name.startswith("onnx::"):
            return name.removesuffix(".weight").removesuffix(".bias")
    if node.scope:
        return node.scope
    return (node.name or (node.outputs[0] if node.outputs else "") or node.op_type).strip("/").replace("/", ".")


_Product = Callable[[OnnxRows, Node, str, Sequence["Entry | None"], Sequence[Info]], list[Operation]]
PRODUCTS: dict[str, _Product] = {
    **dict.fromkeys(MATMULS, OnnxRows._matmul),
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "FusedConv", "DeformConv"), OnnxRows._convolution),
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm"), OnnxRows._gemm),
    "Einsum": OnnxRows._einsum,
}
