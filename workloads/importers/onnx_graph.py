"""ONNX models as workloads: dynamic axes bound, shapes inferred, every node a row, a constant, or reported."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from workloads.errors import WorkloadError, shorten, unknown_name
from workloads.importers import onnx_shapes
from workloads.importers.collector import Collector, Value, words
from workloads.importers.einsum import einsum_product
from workloads.importers.module import check_understood
from workloads.importers.onnx_shapes import Info, UnknownShapeError
from workloads.importers.onnx_wire import (
    BITS,
    FLOATING,
    INTEGER_WEIGHTS,
    MAX_DEPTH,
    Graph,
    Model,
    Node,
    Tensor,
    ValueInfo,
    read_model,
)
from workloads.ops import Kind, Operation
from workloads.records import Phase, Workload

MAX_STEPS = 1_000_000
_STANDARD = ("", "ai.onnx")
_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
_VIEWS = words("Identity Reshape Transpose Squeeze Unsqueeze Flatten Expand Cast CastLike Slice Split Dropout StopGradient")
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
_COPIES = words(
    "Concat Tile Pad ScatterND ScatterElements Scatter DepthToSpace SpaceToDepth Resize Upsample OneHot ReverseSequence"
)
_SHAPE_ONLY = frozenset(
    ("Shape", "Size", "Constant", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Range")
)

Rows = list[tuple[Operation, Sequence[str]]]


class _Entry:
    """A tensor while the graph is walked: what shape inference knows and what the collector needs."""

    __slots__ = ("info", "value")

    def __init__(self, info: Info, value: Value) -> None:
        self.info = info
        self.value = value


def import_onnx(
    path: str | os.PathLike[str],
    bind: Mapping[str, int] | None = None,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    fused_attention: bool = False,
    strict: bool = False,
) -> Workload:
    """Return the workload of an ONNX file.

    ``bind``: {name of a dynamic axis: size}; an axis without a name is ``input.index``. Parameters are the floating-point
    initializers with more than one element, and quantised ones. Operators that are not understood, or whose shapes cannot be
    inferred, are listed in ``Workload.not_understood`` with their counts; ``strict`` makes them an error. External data is
    never read, and refused if it lies outside the file's folder. Raises WorkloadError naming the file.
    """
    file = Path(path)
    model = read_model(file)
    walk = _Walk(model, file, bind or {}, weight_bits, activation_bits, fused_attention)
    collector = walk.run()
    check_understood(collector.not_understood, str(file), strict)
    return Workload(
        name=file.stem,
        family="imported",
        phases=(Phase("forward", collector.table()),),
        dimensions=MappingProxyType({**walk.bound, "weight_bits": weight_bits, "activation_bits": activation_bits}),
        not_understood=MappingProxyType(dict(collector.not_understood)),
    )


def dynamic_axes(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the axes of an ONNX file that must be bound."""
    model = read_model(Path(path))
    return tuple(_dynamic(model.graph))


def _graph_inputs(graph: Graph) -> list[ValueInfo]:
    stored = {tensor.name for tensor in graph.initializers}
    return [info for info in graph.inputs if info.name not in stored]


def _dynamic(graph: Graph) -> dict[str, None]:
    return {_axis_name(info, axis): None for info in _graph_inputs(graph) for axis in _open_axes(info)}


def _open_axes(info: ValueInfo) -> list[int]:
    return [axis for axis, size in enumerate(info.dims or []) if not isinstance(size, int) or size < 1]


def _axis_name(info: ValueInfo, axis: int) -> str:
    size = (info.dims or [])[axis]
    return size if isinstance(size, str) else f"{info.name}.{axis}"


class _Walk:
    """Walks the nodes of a model in order and fills a collector."""

    def __init__(
        self, model: Model, file: Path, bind: Mapping[str, int], weight_bits: int, activation_bits: int, fused: bool
    ) -> None:
        self.model, self.file = model, file
        self.bound = self._bindings(bind)
        self.sizes: dict[str, int] = {}
        self._collect_parameters(model.graph)
        self.collector = Collector(self.sizes, weight_bits, activation_bits, fused)
        self.steps = 0
        self.roots = 0

    # ---- inputs and initializers ----

    def _bindings(self, bind: Mapping[str, int]) -> dict[str, int]:
        wanted = _dynamic(self.model.graph)
        for name, size in bind.items():
            if name not in wanted:
                if not wanted:
                    raise WorkloadError(f"{self.file} has no dynamic axis, so that {shorten(name)!r} cannot be bound")
                raise unknown_name(f"{self.file}: axis to bind", name, wanted)
            if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= 2**31:
                raise WorkloadError(
                    f"{self.file}: axis {name!r} is bound to {shorten(size)!r}, must be a whole number from 1 to 2147483648"
                )
        open_axes = [name for name in wanted if name not in bind]
        if open_axes:
            listed = ", ".join(open_axes[:12])
            raise WorkloadError(f"{self.file} has dynamic axes that are not bound: {listed}; bind each with --bind NAME=VALUE")
        return {name: int(size) for name, size in bind.items()}

    def _collect_parameters(self, graph: Graph) -> None:
        helpers = {
            name for node in graph.nodes if node.op_type in ("QuantizeLinear", "DequantizeLinear") for name in node.inputs[1:]
        }
        for tensor in graph.initializers:
            self._check_location(tensor)
            floating = tensor.data_type in FLOATING and tensor.elements > 1 and tensor.name not in helpers
            quantised = tensor.data_type in INTEGER_WEIGHTS and len(tensor.dims) >= 2
            if floating or quantised:
                self.sizes[tensor.name] = tensor.elements
        for node in graph.nodes:
            if node.op_type == "MatMulNBits" and len(node.inputs) > 1 and node.inputs[1] in self.sizes:
                self.sizes[node.inputs[1]] = int(node.attributes.get("N", 0)) * int(node.attributes.get("K", 0))
                for name in node.inputs[2:4]:
                    self.sizes.pop(name, None)

    def _check_location(self, tensor: Tensor) -> None:
        """External data is not needed, but a file that points out of its folder is not to be trusted."""
        if tensor.location is None:
            return
        folder = self.file.parent.resolve()
        try:
            target = (folder / tensor.location).resolve()
            inside = bool(tensor.location) and not Path(tensor.location).is_absolute() and target.is_relative_to(folder)
        except (OSError, ValueError, RuntimeError):
            inside = False
        if not inside:
            raise WorkloadError(
                f"{self.file}: external data of tensor {shorten(tensor.name)!r} is at {shorten(tensor.location)!r}, must be a "
                f"path inside the folder of the file"
            )

    def _new_root(self) -> int:
        self.roots += 1
        return self.roots

    def run(self) -> Collector:
        """Walk the graph and return the collector."""
        scope: dict[str, _Entry] = {}
        graph = self.model.graph
        for info in _graph_inputs(graph):
            dims = None if info.dims is None else tuple(self._dimension(info, axis) for axis in range(len(info.dims)))
            if dims is not None and math.prod(dims) > 2**48:
                raise WorkloadError(f"{self.file}: input {info.name!r} has shape {dims}, which is more than 2^48 elements")
            scope[info.name] = _Entry(Info(dims, info.data_type), Value(dims or (), self._new_root()))
        self._walk(graph, scope, 0)
        return self.collector

    def _dimension(self, info: ValueInfo, axis: int) -> int:
        size = (info.dims or [])[axis]
        return size if isinstance(size, int) and size > 0 else self.bound[_axis_name(info, axis)]

    def _annotated(self, values: Iterable[ValueInfo]) -> dict[str, Info]:
        """Shapes that the file itself states, where all their axes are known."""
        result = {}
        for info in values:
            if info.dims is None:
                continue
            dims = [size if isinstance(size, int) else self.bound.get(size or "", -1) for size in info.dims]
            if all(0 <= size <= 2**40 for size in dims):
                result[info.name] = Info(tuple(dims), info.data_type)
        return result

    # ---- nodes ----

    def _walk(self, graph: Graph, scope: dict[str, _Entry], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise WorkloadError(f"{self.file} nests graphs and functions deeper than {MAX_DEPTH}")
        for tensor in graph.initializers:
            scope[tensor.name] = self._stored(tensor)
        known = self._annotated([*graph.values, *graph.outputs])
        for node in graph.nodes:
            self._node(node, scope, known, depth)

    def _stored(self, tensor: Tensor) -> _Entry:
        names = (tensor.name,) if tensor.name in self.sizes else ()
        bits = BITS.get(tensor.data_type, 0) if tensor.data_type in INTEGER_WEIGHTS else 0
        value = Value(tensor.dims, self._new_root(), True, names, bits)
        return _Entry(Info(tensor.dims, tensor.data_type, tensor.value), value)

    def _node(self, node: Node, scope: dict[str, _Entry], known: Mapping[str, Info], depth: int) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise WorkloadError(f"{self.file} runs more than {MAX_STEPS} nodes, functions unfolded")
        for name in node.inputs:
            if name and name not in scope:
                raise WorkloadError(
                    f"{self.file}: node {shorten(node.name or node.op_type)!r} ({shorten(node.op_type)}) reads tensor "
                    f"{shorten(name)!r}, which no node before it makes"
                )
        entries = [scope[name] if name else None for name in node.inputs]
        try:
            if (node.domain, node.op_type) in self.model.functions:
                self._function(node, entries, scope, depth)
            elif node.op_type == "If" and node.domain in _STANDARD:
                self._if(node, entries, scope, known, depth)
            else:
                self._plain(node, entries, scope, known)
        except WorkloadError:
            raise
        except (
            ValueError,
            IndexError,
            KeyError,
            TypeError,
            ZeroDivisionError,
            OverflowError,
            AttributeError,
            MemoryError,
        ) as error:
            raise WorkloadError(
                f"{self.file}: node {shorten(node.name or node.op_type)!r} ({shorten(node.op_type)}) is malformed: "
                f"{shorten(str(error)) or type(error).__name__}"
            ) from error

    def _function(self, node: Node, entries: Sequence[_Entry | None], scope: dict[str, _Entry], depth: int) -> None:
        """Walk the body of a model function in a scope of its own."""
        if depth >= MAX_DEPTH:
            raise WorkloadError(f"{self.file} nests graphs and functions deeper than {MAX_DEPTH}")
        function = self.model.functions[(node.domain, node.op_type)]
        inner = {name: entry for name, entry in zip(function.inputs, entries, strict=False) if entry is not None}
        given = {**function.defaults, **node.attributes}
        for step in function.nodes:
            attributes = {**step.attributes, **{key: given[name] for key, name in step.references.items() if name in given}}
            title = f"{node.name}/{step.name}" if node.name else step.name
            inputs = [name if name in inner else "" for name in step.inputs]
            missing = [name for name in step.inputs if name and name not in inner and name not in function.inputs]
            if missing:
                raise WorkloadError(
                    f"{self.file}: function {function.name!r} reads tensor {shorten(missing[0])!r}, which nothing makes"
                )
            self._node(replace(step, name=title, inputs=inputs, attributes=attributes), inner, {}, depth + 1)
        for outside, inside in zip(node.outputs, function.outputs, strict=False):
            scope[outside] = inner[inside]

    def _if(
        self, node: Node, entries: Sequence[_Entry | None], scope: dict[str, _Entry], known: Mapping[str, Info], depth: int
    ) -> None:
        condition = entries[0].info.value if entries and entries[0] is not None else None
        if condition is None:
            self._unknown(node, "If", entries, scope, known)
            return
        branch = node.attributes.get("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
        if not isinstance(branch, Graph):
            raise ValueError("a branch is missing")
        inner = dict(scope)
        self._walk(branch, inner, depth + 1)
        for outside, info in zip(node.outputs, branch.outputs, strict=False):
            scope[outside] = inner[info.name]

    def _plain(self, node: Node, entries: Sequence[_Entry | None], scope: dict[str, _Entry], known: Mapping[str, Info]) -> None:
        present = [entry for entry in entries if entry is not None]
        names = tuple(dict.fromkeys(name for entry in present for name in entry.value.parameters))
        constant = all(entry.value.constant for entry in present)
        infos = [entry.info if entry is not None else None for entry in entries]
        special = _SPECIAL.get(node.op_type) if node.domain in _KNOWN_DOMAINS else None
        try:
            if special is not None:
                rows, outputs = special(self, node, entries)
                self._finish(node, entries, outputs, rows, scope)
                return
            if node.domain not in _KNOWN_DOMAINS or node.op_type not in onnx_shapes.RULES:
                self._unknown(node, node.op_type, entries, scope, known)
                return
            outputs = onnx_shapes.infer(node, infos)
        except UnknownShapeError:
            if constant:
                self._bind_constant(node, [known.get(name, Info(None)) for name in node.outputs], names, scope)
                return
            self._unknown(node, f"{node.op_type} (shape unknown)", entries, scope, known)
            return
        for info in outputs:
            if info.shape is not None and math.prod(info.shape) > 2**48:
                raise ValueError(f"its result has shape {info.shape}, more than 2^48 elements")
        if node.op_type in _VIEWS and present:
            source = present[0].value
            for name, info in zip(node.outputs, outputs, strict=False):
                value = Value(info.known(), source.root, constant, names, source.bits)
                scope[name] = _Entry(info, value)
            return
        if node.op_type in ("DequantizeLinear", "QuantizeLinear") and present:
            self._quantisation(node, present[0], outputs, constant, names, scope)
            return
        executed = bool(names) and node.op_type in ("MatMul", "Gemm", "Conv", "Einsum")
        if (constant and not executed) or node.op_type in _SHAPE_ONLY:
            self._bind_constant(node, outputs, names, scope)
            return
        self._finish(node, entries, outputs, self._rows(node, entries, outputs, names), scope)

    def _bind_constant(self, node: Node, outputs: Sequence[Info], names: tuple[str, ...], scope: dict[str, _Entry]) -> None:
        for name, info in zip(node.outputs, outputs, strict=False):
            scope[name] = _Entry(info, Value(info.shape or (), self._new_root(), True, names))

    def _finish(
        self, node: Node, entries: Sequence[_Entry | None], outputs: Sequence[Info], rows: Rows, scope: dict[str, _Entry]
    ) -> None:
        root = self._new_root()
        results = [Value(info.shape or (), root) for info in outputs]
        for name, info, value in zip(node.outputs, outputs, results, strict=False):
            scope[name] = _Entry(info, value)
        self.collector.add(rows, [entry.value for entry in entries if entry is not None], results[:1])

    def _quantisation(
        self,
        node: Node,
        first: _Entry,
        outputs: Sequence[Info],
        constant: bool,
        names: tuple[str, ...],
        scope: dict[str, _Entry],
    ) -> None:
        """A step of quantisation: the values keep their bits, an activation costs an elementwise operation."""
        bits = BITS.get(first.info.data_type if node.op_type == "DequantizeLinear" else outputs[0].data_type, 8)
        value = Value(outputs[0].known(), self._new_root(), constant, names, bits)
        scope[node.outputs[0]] = _Entry(outputs[0], value)
        if not constant:
            function = "dequantize" if node.op_type == "DequantizeLinear" else "quantize"
            row = self.collector.elementwise(_title(node, names), function, value.shape, 1)
            self.collector.add([(row, names)], [first.value], [value])

    def _unknown(
        self, node: Node, label: str, entries: Sequence[_Entry | None], scope: dict[str, _Entry], known: Mapping[str, Info]
    ) -> None:
        domain = f"{node.domain}." if node.domain not in _STANDARD else ""
        self.collector.not_understood[shorten(f"{domain}{label}")] += 1
        self._finish(node, entries, [known.get(name, Info(None)) for name in node.outputs], [], scope)

    # ---- rows ----

    def _rows(self, node: Node, entries: Sequence[_Entry | None], outputs: Sequence[Info], names: tuple[str, ...]) -> Rows:
        title, op = _title(node, names), node.op_type
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
            row = self.collector.vector(
                title, Kind.TOPK, "topk", math.prod(first) // max(n, 1), n, k=result[-1] if result else 1
            )
        else:
            row = make(title, _power(present) if op == "Pow" else _ELEMENTWISE.get(op, op.lower()), result, operands)
        return [(row, names)]

    def _matmul(self, node: Node, title: str, entries: Sequence[_Entry | None], outputs: Sequence[Info]) -> list[Operation]:
        second = 3 if node.op_type == "QLinearMatMul" else 1
        return self.collector.matmul(title, self._operand(node, entries, 0), self._operand(node, entries, second))

    def _operand(self, node: Node, entries: Sequence[_Entry | None], index: int) -> Value:
        entry = entries[index]
        if entry is None:
            raise ValueError(f"input {index} is missing")
        bits = entry.value.bits
        if not bits and node.op_type in ("MatMulInteger", "QLinearMatMul", "ConvInteger", "QLinearConv"):
            bits = BITS.get(entry.info.data_type, 8)
        return Value(entry.info.known(), entry.value.root, entry.value.constant, entry.value.parameters, bits)

    def _gemm(self, node: Node, title: str, entries: Sequence[_Entry | None], outputs: Sequence[Info]) -> list[Operation]:
        a, b = self._operand(node, entries, 0), self._operand(node, entries, 1)
        m, n = outputs[0].known()
        k = a.shape[0] if node.attributes.get("transA") else a.shape[1]
        return self.collector.matrix(title, m, n, k, a, b)

    def _convolution(
        self, node: Node, title: str, entries: Sequence[_Entry | None], outputs: Sequence[Info]
    ) -> list[Operation]:
        x = self._operand(node, entries, 0)
        weight = self._operand(node, entries, 3 if node.op_type == "QLinearConv" else 1)
        groups = int(node.attributes.get("group", 1))
        taps = math.prod(weight.shape[2:])
        if node.op_type == "ConvTranspose":
            m, n, k = math.prod(x.shape[2:]), weight.shape[1] * taps, weight.shape[0] // groups
        else:
            m, n, k = math.prod(outputs[0].known()[2:]), weight.shape[0] // groups, weight.shape[1] * taps
        if not m * n * k * x.shape[0]:
            return []
        row = self.collector.product(
            title, m, n, k, x, weight, batch=x.shape[0], groups=groups, kind=Kind.CONV, input_elements=x.elements
        )
        return [row]

    def _einsum(self, node: Node, title: str, entries: Sequence[_Entry | None], outputs: Sequence[Info]) -> list[Operation]:
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

    def _attention(self, node: Node, entries: Sequence[_Entry | None]) -> tuple[Rows, list[Info]]:
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

    def _core(
        self, node: Node, batch: int, heads: int, kv_heads: int, q_len: int, kv_len: int, qk: int, width: int, causal: bool
    ) -> Rows:
        if min(batch, heads, kv_heads, q_len, kv_len, qk, width) < 1 or heads % kv_heads:
            raise ValueError(f"{heads} query heads, {kv_heads} KV heads and lengths {q_len}, {kv_len} do not fit")
        rows = self.collector.attention(
            _title(node, ()), batch=batch, heads=heads, kv_heads=kv_heads, q_len=q_len, kv_len=kv_len, qk_dim=qk, v_dim=width,
            causal=causal,
        )  # fmt: skip
        return [(row, ()) for row in rows]

    def _packed_attention(self, node: Node, entries: Sequence[_Entry | None]) -> tuple[Rows, list[Info]]:
        """com.microsoft Attention and QAttention: a projection to queries, keys and values, then attention."""
        if node.domain in _STANDARD:
            return self._attention(node, entries)
        x, weight = self._operand(node, entries, 0), self._operand(node, entries, 1)
        batch, length, hidden = x.shape
        heads = int(node.attributes["num_heads"])
        sizes = [int(item) for item in node.attributes.get("qkv_hidden_sizes") or [weight.shape[1] // 3] * 3]
        title = _title(node, weight.parameters)
        bias = entries[2].value.parameters if len(entries) > 2 and entries[2] is not None else ()
        rows: Rows = [
            (row, (*weight.parameters, *bias))
            for row in self.collector.matrix(f"{title}.qkv", batch * length, sum(sizes), hidden, x, weight)
        ]
        causal = bool(node.attributes.get("unidirectional", 0))
        rows += self._core(node, batch, heads, heads, length, length, sizes[0] // heads, sizes[2] // heads, causal)
        outputs = [Info((batch, length, sizes[2])), Info((2, batch, heads, length, sizes[0] // heads))]
        return rows, outputs[: max(1, len(node.outputs))]

    def _multi_head(self, node: Node, entries: Sequence[_Entry | None]) -> tuple[Rows, list[Info]]:
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

    def _skip_norm(self, node: Node, entries: Sequence[_Entry | None]) -> tuple[Rows, list[Info]]:
        shape = _shape_of(entries, 0)
        names = tuple(name for entry in entries if entry is not None for name in entry.value.parameters)
        title = _title(node, names)
        rows: Rows = [
            (self.collector.elementwise(title, "add", shape, 2), ()),
            (self.collector.elementwise(title, _NORMS[node.op_type], shape, 1, Kind.NORM), names),
        ]
        return rows, [Info(shape)] * max(1, len(node.outputs))

    def _packed_bits(self, node: Node, entries: Sequence[_Entry | None]) -> tuple[Rows, list[Info]]:
        """com.microsoft MatMulNBits: a weight of N x K packed in 2 to 8 bits."""
        x, weight = self._operand(node, entries, 0), self._operand(node, entries, 1)
        n, k = int(node.attributes["N"]), int(node.attributes["K"])
        if x.shape[-1] != k or n < 1:
            raise ValueError(f"input {x.shape} does not fit N = {n}, K = {k}")
        packed = Value((k, n), weight.root, True, weight.parameters, int(node.attributes.get("bits", 4)))
        title = _title(node, weight.parameters)
        rows: Rows = [(row, weight.parameters) for row in self.collector.matrix(title, x.elements // k, n, k, x, packed)]
        return rows, [Info((*x.shape[:-1], n))]

    def _recurrent(self, node: Node, entries: Sequence[_Entry | None]) -> tuple[Rows, list[Info]]:
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
        title = _title(node, names)
        rows: Rows = []
        if steps * batch * size * wide * hidden * directions:
            inner = self.collector.product(f"{title}.input", steps * batch, wide, size, x, w, repeat=directions)
            state = Value((batch, hidden), self._new_root())
            outer = self.collector.product(f"{title}.state", batch, wide, hidden, state, r, repeat=directions * steps)
            gates = self.collector.vector(f"{title}.gates", Kind.ACTIVATION, "sigmoid", steps * batch * directions, wide)
            rows = [(replace(inner, copies=0), names), (outer, ()), (gates, ())]
        last = Info((directions, batch, hidden))
        return rows, [Info((steps, directions, batch, hidden)), last, last][: max(1, len(node.outputs))]


def _shape_of(entries: Sequence[_Entry | None], index: int) -> tuple[int, ...]:
    entry = entries[index] if index < len(entries) else None
    if entry is None:
        raise ValueError(f"input {index} is missing")
    return entry.info.known()


def _function(node: Node) -> str:
    if node.op_type == "Gelu" and node.attributes.get("approximate") == "tanh":
        return "gelu_tanh"
    return _FUNCTIONS.get(node.op_type, node.op_type.lower())


_ELEMENTWISE = {"Sum": "add", "Mean": "add", "Min": "minimum", "Max": "maximum"}


def _reduction(op: str) -> str:
    """The vocabulary's name of a reduction."""
    if op == "CumSum":
        return "cumsum"
    if "Max" in op or "Min" in op:
        return "max"
    return "mean" if "Mean" in op or "Average" in op else "sum"


def _power(present: Sequence[_Entry]) -> str:
    """A square or cube is products, a root a root; other powers cost what an exponential does."""
    exponent = present[1].info.value if len(present) > 1 else None
    if exponent is None or exponent.size != 1:
        return "exp"
    return {2.0: "mul", 3.0: "mul", 0.5: "sqrt", -0.5: "sqrt"}.get(float(exponent.reshape(-1)[0]), "exp")


def _title(node: Node, names: Sequence[str]) -> str:
    """A name for a row: the path of its weight where that says more than the name of the node."""
    for name in names:
        if "." in name and not name.startswith("onnx::"):
            return name.removesuffix(".weight").removesuffix(".bias")
    return (node.name or (node.outputs[0] if node.outputs else "") or node.op_type).strip("/").replace("/", ".")


_Product = Callable[[_Walk, Node, str, Sequence["_Entry | None"], Sequence[Info]], list[Operation]]
_PRODUCTS: dict[str, _Product] = {
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"), _Walk._matmul),
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "ConvTranspose", "FusedConv"), _Walk._convolution),
    "Gemm": _Walk._gemm,
    "Einsum": _Walk._einsum,
}
_SPECIAL: dict[str, Callable[[_Walk, Node, Sequence[_Entry | None]], tuple[Rows, list[Info]]]] = {
    "Attention": _Walk._packed_attention,
    "MultiHeadAttention": _Walk._multi_head,
    "GroupQueryAttention": _Walk._multi_head,
    "SkipLayerNormalization": _Walk._skip_norm,
    "SkipSimplifiedLayerNormalization": _Walk._skip_norm,
    "MatMulNBits": _Walk._packed_bits,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _Walk._recurrent),
}
