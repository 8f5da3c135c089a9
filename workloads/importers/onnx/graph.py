"""ONNX models as workloads: dynamic axes bound, shapes inferred, every node a row, a constant, or reported."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from workloads.errors import WorkloadError, shorten, unknown_name
from workloads.importers.collector import Collector, Value, copies_made, words
from workloads.importers.module import check_understood
from workloads.importers.onnx.control import walk_control
from workloads.importers.onnx.fused import FUSED
from workloads.importers.onnx.info import Info, UnknownShapeError
from workloads.importers.onnx.parameters import Parameters, stored_bits
from workloads.importers.onnx.rows import PRODUCTS, STANDARD, Entry, OnnxRows, Rows, title_of
from workloads.importers.onnx.shapes import infer, knows
from workloads.importers.onnx.wire import (
    BITS,
    MAX_DEPTH,
    Graph,
    Model,
    Node,
    NodeError,
    Tensor,
    ValueInfo,
    read_model,
)
from workloads.records import Phase, Workload

MAX_STEPS = 200_000
_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml")
# What exporters write where an axis has no name: two such axes need not be equal.
_UNNAMED = frozenset(("", "?", "*", "-1", "None"))
_VIEWS = words("Identity Reshape Transpose Squeeze Unsqueeze Flatten Expand Cast CastLike Slice Split Dropout StopGradient")
_SHAPE_ONLY = frozenset(("Shape", "Size", "Constant", "ConstantOfShape", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Range"))


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

    ``bind``: {name of a dynamic axis: size}; an axis without a name (or with "?" for one) is ``input.index``. Parameters are
    as :mod:`workloads.importers.onnx.parameters` says. Operators that are not understood, or whose shapes cannot be inferred,
    are listed in ``Workload.left_out`` with counts and reasons; ``strict`` makes them an error. External data is
    never read, and refused if it lies outside the file's folder. Raises WorkloadError naming the file.
    """
    file = Path(path)
    model = read_model(file)
    walk = _Walk(model, file, bind or {}, weight_bits, activation_bits, fused_attention)
    collector = walk.run()
    check_understood(collector.left_out(), str(file), strict)
    try:
        table = collector.table()
    except WorkloadError as error:
        raise WorkloadError(f"{file}: {error}") from error
    return Workload(
        name=file.stem,
        family="imported",
        phases=(Phase("forward", table),),
        dimensions=MappingProxyType({**walk.bound, "weight_bits": weight_bits, "activation_bits": activation_bits}),
        left_out=collector.left_out(),
        assumptions=tuple(collector.assumptions),
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
    return size if isinstance(size, str) and size not in _UNNAMED else f"{info.name}.{axis}"


def _selects_one(node: Node, entries: Sequence[Entry | None]) -> bool:
    """Whether a node takes one known place along an axis of an activation (``x[:, 0]``), which is a view as a slice is."""
    if node.op_type != "Gather" or len(entries) < 2 or entries[0] is None or entries[1] is None:
        return False
    value = entries[1].info.value
    return not entries[0].value.constant and entries[1].value.constant and value is not None and value.size == 1


class _Walk:
    """Walks the nodes of a model in order and fills a collector."""

    def __init__(self, model: Model, file: Path, bind: Mapping[str, int], weight_bits: int, activation_bits: int, fused: bool) -> None:
        self.model, self.file = model, file
        self.bound = self._bindings(bind)
        self._check_locations(model.graph)
        self.parameters = Parameters(model)
        self.collector = Collector(self.parameters.sizes, weight_bits, activation_bits, fused, patterns=True)
        self.rows = OnnxRows(self.collector)
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

    def _check_locations(self, graph: Graph) -> None:
        for tensor in graph.initializers:
            self._check_location(tensor)
        for node in graph.nodes:
            for value in node.attributes.values():
                if isinstance(value, Graph):
                    self._check_locations(value)
                elif isinstance(value, Tensor):
                    self._check_location(value)

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

    def new_root(self) -> int:
        self.roots += 1
        return self.roots

    def run(self) -> Collector:
        """Walk the graph and return the collector."""
        scope: dict[str, Entry] = {}
        graph = self.model.graph
        for info in _graph_inputs(graph):
            dims = None if info.dims is None else tuple(self._dimension(info, axis) for axis in range(len(info.dims)))
            if dims is not None and math.prod(dims) > 2**48:
                raise WorkloadError(f"{self.file}: input {info.name!r} has shape {dims}, which is more than 2^48 elements")
            scope[info.name] = Entry(Info(dims, info.data_type), Value(dims or (), self.new_root()))
        self.walk(graph, scope, 0)
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

    def walk(self, graph: Graph, scope: dict[str, Entry], depth: int) -> None:
        if depth > MAX_DEPTH:
            raise WorkloadError(f"{self.file} nests graphs and functions deeper than {MAX_DEPTH}")
        for tensor in graph.initializers:
            scope[tensor.name] = self._stored(tensor)
        known = self._annotated([*graph.values, *graph.outputs])
        for node in graph.nodes:
            self._node(node, scope, known, depth)

    def _stored(self, tensor: Tensor) -> Entry:
        name = self.parameters.names.get(id(tensor))
        value = Value(tensor.dims, self.new_root(), True, () if name is None else (name,), stored_bits(tensor))
        return Entry(Info(tensor.dims, tensor.data_type, tensor.value), value)

    def _node(self, node: Node, scope: dict[str, Entry], known: Mapping[str, Info], depth: int) -> None:
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
            elif node.op_type in ("If", "Loop", "Scan") and node.domain in STANDARD:
                self._control(node, entries, scope, known, depth)
            elif node.op_type == "Constant" and isinstance(stored := node.attributes.get("value"), Tensor) and node.outputs:
                scope[node.outputs[0]] = self._stored(stored)
            else:
                self._plain(node, entries, scope, known)
        except WorkloadError:
            raise
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            what = shorten(str(error)) if isinstance(error, NodeError) else "its inputs or attributes do not fit the operator"
            raise WorkloadError(
                f"{self.file}: node {shorten(node.name or node.op_type)!r} ({shorten(node.op_type)}) is malformed: {what}"
            ) from error

    def _function(self, node: Node, entries: Sequence[Entry | None], scope: dict[str, Entry], depth: int) -> None:
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
                raise WorkloadError(f"{self.file}: function {function.name!r} reads tensor {shorten(missing[0])!r}, which nothing makes")
            self._node(replace(step, name=title, inputs=inputs, attributes=attributes), inner, {}, depth + 1)
        for outside, inside in zip(node.outputs, function.outputs, strict=False):
            scope[outside] = inner[inside]

    def _control(self, node: Node, entries: Sequence[Entry | None], scope: dict[str, Entry], known: Mapping[str, Info], depth: int) -> None:
        start = self.collector.mark()
        try:
            walk_control(self, node, entries, scope, known, depth)
        except UnknownShapeError:
            self.collector.cut(start)
            self.leave_out(node, "its shapes depend on data", entries, scope, known)

    def _plain(self, node: Node, entries: Sequence[Entry | None], scope: dict[str, Entry], known: Mapping[str, Info]) -> None:
        present = [entry for entry in entries if entry is not None]
        names = tuple(dict.fromkeys(name for entry in present for name in entry.value.parameters))
        constant = all(entry.value.constant for entry in present)
        infos = [entry.info if entry is not None else None for entry in entries]
        special = FUSED.get(node.op_type) if node.domain in _KNOWN_DOMAINS else None
        try:
            if special is not None:
                rows, outputs = special(self.rows, node, entries)
                self._finish(node, entries, outputs, rows, scope)
                return
            if node.domain not in _KNOWN_DOMAINS or not knows(node.op_type):
                self.leave_out(node, "no rule for the operator", entries, scope, known)
                return
            outputs = infer(node, infos)
        except UnknownShapeError:
            if constant:
                self._bind_constant(node, [known.get(name, Info(None)) for name in node.outputs], names, scope)
                return
            self.leave_out(node, "its shape depends on data or on an operator that is left out", entries, scope, known)
            return
        for info in outputs:
            if info.shape is not None and math.prod(info.shape) > 2**48:
                raise NodeError(f"its result has shape {info.shape}, more than 2^48 elements")
        if present and (node.op_type in _VIEWS or _selects_one(node, entries)):
            source = present[0].value
            shared = source.shared * (copies_made(source.shape, outputs[0].known()) if node.op_type == "Expand" else 1)
            for name, info in zip(node.outputs, outputs, strict=False):
                value = Value(info.known(), source.root, constant, names, source.bits, shared)
                scope[name] = Entry(info, value)
            return
        if node.op_type in ("DequantizeLinear", "QuantizeLinear") and present:
            self._quantisation(node, present[0], outputs, constant, names, scope)
            return
        executed = bool(names) and node.op_type in PRODUCTS
        if (constant and not executed) or node.op_type in _SHAPE_ONLY:
            self._bind_constant(node, outputs, names, scope)
            return
        self._finish(node, entries, outputs, self.rows.of(node, entries, outputs, names), scope)

    def _bind_constant(self, node: Node, outputs: Sequence[Info], names: tuple[str, ...], scope: dict[str, Entry]) -> None:
        for name, info in zip(node.outputs, outputs, strict=False):
            scope[name] = Entry(info, Value(info.shape or (), self.new_root(), True, names))

    def _finish(self, node: Node, entries: Sequence[Entry | None], outputs: Sequence[Info], rows: Rows, scope: dict[str, Entry]) -> None:
        root = self.new_root()
        results = [Value(info.shape or (), root) for info in outputs]
        for name, info, value in zip(node.outputs, outputs, results, strict=False):
            scope[name] = Entry(info, value)
        self.collector.add(rows, [entry.value for entry in entries if entry is not None], results[:1])

    def _quantisation(
        self,
        node: Node,
        first: Entry,
        outputs: Sequence[Info],
        constant: bool,
        names: tuple[str, ...],
        scope: dict[str, Entry],
    ) -> None:
        """A step of quantisation: the values keep their bits, an activation costs an elementwise operation."""
        bits = BITS.get(first.info.data_type if node.op_type == "DequantizeLinear" else outputs[0].data_type, 8)
        value = Value(outputs[0].known(), self.new_root(), constant, names, bits)
        scope[node.outputs[0]] = Entry(outputs[0], value)
        if not constant:
            function = "dequantize" if node.op_type == "DequantizeLinear" else "quantize"
            row = self.collector.elementwise(title_of(node, names), function, value.shape, 1)
            self.collector.add([(row, names)], [first.value], [value])

    def leave_out(
        self, node: Node, reason: str, entries: Sequence[Entry | None], scope: dict[str, Entry], known: Mapping[str, Info]
    ) -> None:
        """Note a node that gets no row; its results are what the file says of them."""
        domain = f"{node.domain}." if node.domain not in STANDARD else ""
        self.collector.leave_out(f"{domain}{node.op_type}", reason)
        self._finish(node, entries, [known.get(name, Info(None)) for name in node.outputs], [], scope)
