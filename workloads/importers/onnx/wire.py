"""Reads ONNX files: the protobuf wire format by hand, weights skipped, so that a file of any size takes little memory.

Only what a count of operations needs is kept: nodes, attributes, shapes, and the values of small constant tensors. Field
numbers are those of onnx.proto (ONNX 1.23, Apache-2.0). Malformed bytes raise WorkloadError, never anything else.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError, shorten

SMALL = 65536  # elements of a constant whose value is kept
MAX_NODES = 200_000
MAX_DEPTH = 12
_SCOPES = "pkg.torch.onnx.name_scopes"
_TYPES: dict[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64",
}  # fmt: skip
BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8,
    21: 4, 22: 4, 23: 4, 24: 8,
}  # fmt: skip
FLOATING = frozenset((1, 10, 11, 16, 17, 18, 19, 20, 23, 24))
INTEGER_WEIGHTS = frozenset((2, 3, 21, 22))


class NodeError(ValueError):
    """A node whose inputs or attributes do not fit its operator; the message says how."""


@dataclass
class Tensor:
    """An initializer or constant: shape, type and, where it is small, its value."""

    name: str
    dims: tuple[int, ...]
    data_type: int
    value: npt.NDArray[Any] | None = None
    location: str | None = None

    @property
    def elements(self) -> int:
        """The number of elements."""
        count = 1
        for size in self.dims:
            count *= size
        return count


@dataclass
class Node:
    """One node: operator, domain, names of inputs and outputs, attributes."""

    op_type: str = ""
    domain: str = ""
    name: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    scope: str = ""  # path of the module that it was exported from, where the exporter says it


@dataclass
class ValueInfo:
    """A typed name: dimensions are numbers, names of dynamic axes, or None."""

    name: str = ""
    data_type: int = 0
    dims: list[int | str | None] | None = None


@dataclass
class Graph:
    """A graph: nodes in order, initializers, inputs, outputs and annotated values."""

    name: str = ""
    nodes: list[Node] = field(default_factory=list)
    initializers: list[Tensor] = field(default_factory=list)
    inputs: list[ValueInfo] = field(default_factory=list)
    outputs: list[ValueInfo] = field(default_factory=list)
    values: list[ValueInfo] = field(default_factory=list)


@dataclass
class Function:
    """A function of the model: its nodes take the place of a node that calls it."""

    name: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    defaults: dict[str, Any] = field(default_factory=dict)


@dataclass
class Model:
    """A parsed file."""

    graph: Graph
    opsets: dict[str, int]
    functions: dict[tuple[str, str], Function]


class _MalformedError(Exception):
    """Bytes that are not the format; becomes a WorkloadError with the file's name."""


def read_model(path: Path) -> Model:
    """Parse an ONNX file. Raises WorkloadError naming the file (and field) for anything that is not a sound one."""
    try:
        with path.open("rb") as stream:
            stream.seek(0, 2)
            size = stream.tell()
            if size == 0:
                raise WorkloadError(f"{path} is empty, must be an ONNX file")
            # Not closed by hand: parts of it may still be held by an error on its way out.
            return _parse(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)), path)
    except OSError as error:
        raise WorkloadError(f"{path} cannot be read: {error.strerror or error}") from error


def _parse(view: memoryview, path: Path) -> Model:
    try:
        model = _Reader(path).model(view)
    except (_MalformedError, struct.error, IndexError, UnicodeDecodeError, OverflowError, ValueError) as error:
        if isinstance(error, WorkloadError):
            raise
        raise WorkloadError(f"{path} is not a sound ONNX file: {shorten(str(error)) or type(error).__name__}") from None
    if not model.graph.nodes and not model.graph.outputs:
        raise WorkloadError(f"{path} is not a sound ONNX file: it holds no graph")
    return model


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(view):
            raise _MalformedError("a number is cut short")
        byte = view[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise _MalformedError("a number has more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _fields(view: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Yield (field number, wire type, payload) of a message."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise _MalformedError("a field has the number 0")
        if wire == 0:
            value, at = _varint(view, at)
            yield number, wire, value
            continue
        if wire == 2:
            size, at = _varint(view, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _MalformedError(f"field {number} has wire type {wire}")
        if size > len(view) - at:
            raise _MalformedError(f"field {number} is cut short")
        yield number, wire, view[at : at + size]
        at += size


def _text(payload: Any) -> str:
    if isinstance(payload, int):
        raise _MalformedError("a name is a number")
    return bytes(payload).decode("utf-8", errors="replace")


def _scope(view: memoryview) -> str:
    """The module's path and the operator in it (``layers.0.fc1.linear``) of an entry of a node's metadata, as torch.onnx writes it; of any
    other entry nothing."""
    entry = {number: _text(payload) for number, wire, payload in _fields(view) if number in (1, 2) and wire == 2}
    if entry.get(1) != _SCOPES:
        return ""
    path = [part for part in re.findall(r"'([^']*)'", entry.get(2, "")) if part]
    return f"{path[-2]}.{re.sub(r'_[0-9]+$', '', path[-1])}" if len(path) > 1 else ""


def _message(payload: Any) -> memoryview:
    if not isinstance(payload, memoryview):
        raise _MalformedError("a number stands where a message belongs")
    return payload


def _numbers(payload: Any, wire: int) -> list[int]:
    """A repeated integer field, packed or not."""
    if wire == 0:
        return [_signed(payload)]
    at, result = 0, []
    view = _message(payload)
    while at < len(view):
        value, at = _varint(view, at)
        result.append(_signed(value))
    return result


def _floats(payload: Any, wire: int, size: int = 4) -> list[float]:
    data = bytes(_message(payload))
    if len(data) % size:
        raise _MalformedError("a list of numbers is cut short")
    return [float(item) for item in np.frombuffer(data, "<f4" if size == 4 else "<f8")]


class _Reader:
    """Turns messages into records; counts nodes so that a hostile file cannot grow without end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nodes = 0

    def model(self, view: memoryview) -> Model:
        graph, opsets = Graph(), {}
        functions: dict[tuple[str, str], Function] = {}
        for number, _, payload in _fields(view):
            if number == 7:
                graph = self.graph(_message(payload), 0)
            elif number == 8:
                domain, version = "", 0
                for inner, _, value in _fields(_message(payload)):
                    if inner == 1:
                        domain = _text(value)
                    elif inner == 2 and isinstance(value, int):
                        version = value
                opsets[domain] = version
            elif number == 25:
                function = self.function(_message(payload))
                functions[(function.domain, function.name)] = function
        return Model(graph, opsets, functions)

    def graph(self, view: memoryview, depth: int) -> Graph:
        if depth > MAX_DEPTH:
            raise _MalformedError(f"graphs are nested deeper than {MAX_DEPTH}")
        graph = Graph()
        for number, _, payload in _fields(view):
            if number == 1:
                graph.nodes.append(self.node(_message(payload), depth))
            elif number == 2:
                graph.name = _text(payload)
            elif number == 5:
                graph.initializers.append(self.tensor(_message(payload)))
            elif number == 11:
                graph.inputs.append(self.value_info(_message(payload)))
            elif number == 12:
                graph.outputs.append(self.value_info(_message(payload)))
            elif number == 13:
                graph.values.append(self.value_info(_message(payload)))
        return graph

    def function(self, view: memoryview) -> Function:
        function = Function()
        for number, _, payload in _fields(view):
            if number == 1:
                function.name = _text(payload)
            elif number == 4:
                function.inputs.append(_text(payload))
            elif number == 5:
                function.outputs.append(_text(payload))
            elif number == 7:
                function.nodes.append(self.node(_message(payload), 0))
            elif number == 10:
                function.domain = _text(payload)
            elif number == 11:
                name, value, _ = self.attribute(_message(payload), 0)
                function.defaults[name] = value
        return function

    def node(self, view: memoryview, depth: int) -> Node:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise _MalformedError(f"it has more than {MAX_NODES} nodes")
        node = Node()
        for number, _, payload in _fields(view):
            if number == 1:
                node.inputs.append(_text(payload))
            elif number == 2:
                node.outputs.append(_text(payload))
            elif number == 3:
                node.name = _text(payload)
            elif number == 4:
                node.op_type = _text(payload)
            elif number == 7:
                node.domain = _text(payload)
            elif number == 5:
                name, value, reference = self.attribute(_message(payload), depth)
                if reference:
                    node.references[name] = reference
                else:
                    node.attributes[name] = value
            elif number == 9:
                node.scope = _scope(_message(payload)) or node.scope
        return node

    def attribute(self, view: memoryview, depth: int) -> tuple[str, Any, str]:
        name, reference = "", ""
        value: Any = None
        lists: dict[int, list[Any]] = {7: [], 8: [], 9: []}
        kind = 0
        for number, wire, payload in _fields(view):
            if number == 1:
                name = _text(payload)
            elif number == 2:
                value = struct.unpack("<f", bytes(_message(payload)))[0]
            elif number == 3:
                value = _signed(payload) if isinstance(payload, int) else None
            elif number == 4:
                value = _text(payload)
            elif number == 5:
                value = self.tensor(_message(payload))
            elif number == 6:
                value = self.graph(_message(payload), depth + 1)
            elif number == 7:
                lists[7] += _floats(payload, wire)
            elif number == 8:
                lists[8] += _numbers(payload, wire)
            elif number == 9:
                lists[9].append(_text(payload))
            elif number == 20:
                kind = payload if isinstance(payload, int) else 0
            elif number == 21:
                reference = _text(payload)
        for values in lists.values():
            if values:
                value = values
        if value is None:
            # proto3 leaves out zeros and empty lists.
            value = {1: 0.0, 2: 0, 3: "", 6: [], 7: [], 8: []}.get(kind)
        return name, value, reference

    def value_info(self, view: memoryview) -> ValueInfo:
        info = ValueInfo()
        for number, _, payload in _fields(view):
            if number == 1:
                info.name = _text(payload)
            elif number == 2:
                for inner, _, kind in _fields(_message(payload)):
                    if inner == 1:
                        self._tensor_type(_message(kind), info)
        return info

    def _tensor_type(self, view: memoryview, info: ValueInfo) -> None:
        for number, _, payload in _fields(view):
            if number == 1 and isinstance(payload, int):
                info.data_type = payload
            elif number == 2:
                info.dims = []
                for inner, _, dim in _fields(_message(payload)):
                    if inner == 1:
                        info.dims.append(self._dimension(_message(dim)))

    def _dimension(self, view: memoryview) -> int | str | None:
        result: int | str | None = None
        for number, _, payload in _fields(view):
            if number == 1 and isinstance(payload, int):
                result = _signed(payload)
            elif number == 2:
                result = _text(payload) or None
        return result

    def tensor(self, view: memoryview) -> Tensor:
        dims: list[int] = []
        data_type, name = 0, ""
        raw: memoryview | None = None
        typed: list[Any] = []
        external: dict[str, str] = {}
        outside = False
        pending: list[tuple[int, int, Any]] = []
        for number, wire, payload in _fields(view):
            if number == 1:
                dims += _numbers(payload, wire)
            elif number == 2 and isinstance(payload, int):
                data_type = payload
            elif number == 8:
                name = _text(payload)
            elif number == 9:
                raw = _message(payload)
            elif number in (4, 5, 7, 10, 11):
                pending.append((number, wire, payload))
            elif number == 13:
                entry = {inner: _text(value) for inner, _, value in _fields(_message(payload)) if inner in (1, 2)}
                external[entry.get(1, "")] = entry.get(2, "")
            elif number == 14:
                outside = payload == 1
        if any(size < 0 or size > 2**40 for size in dims):
            raise _MalformedError(f"tensor {shorten(name)!r} has the sizes {shorten(dims)}")
        tensor = Tensor(name, tuple(dims), data_type, location=external.get("location", "") if outside else None)
        if tensor.elements > 2**48:
            raise _MalformedError(f"tensor {shorten(name)!r} has {tensor.elements} elements")
        if tensor.elements <= SMALL and data_type in _TYPES and not outside:
            for number, wire, payload in pending:
                typed += _floats(payload, wire, 8 if number == 10 else 4) if number in (4, 10) else _numbers(payload, wire)
            tensor.value = _value(tensor, raw, typed)
        return tensor


def _value(tensor: Tensor, raw: memoryview | None, typed: list[Any]) -> npt.NDArray[Any] | None:
    dtype = np.dtype(_TYPES[tensor.data_type])
    count = tensor.elements
    if raw is not None:
        if len(raw) != count * dtype.itemsize:
            raise _MalformedError(f"tensor {shorten(tensor.name)!r} has {len(raw)} bytes for {count} elements")
        return np.frombuffer(bytes(raw), dtype.newbyteorder("<")).reshape(tensor.dims).astype(dtype)
    if len(typed) == count:
        if tensor.data_type == 10:
            return np.array(typed, dtype=np.uint16).view(np.float16).reshape(tensor.dims)
        return np.array(typed).astype(dtype).reshape(tensor.dims)
    return np.zeros(tensor.dims, dtype=dtype) if count == 0 else None
