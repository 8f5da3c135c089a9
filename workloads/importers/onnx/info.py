"""What is known of a tensor, and what the rules of shapes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from workloads.importers.onnx.wire import Node, NodeError

Shape = tuple[int, ...]


class UnknownShapeError(Exception):
    """The shape of an output depends on data, or on a tensor whose shape is unknown."""


@dataclass
class Info:
    """What is known of a tensor: shape (None: unknown), element type, value if it is small and constant."""

    shape: Shape | None
    data_type: int = 1
    value: npt.NDArray[Any] | None = None

    def known(self) -> Shape:
        """The shape, or UnknownShapeError."""
        if self.shape is None:
            raise UnknownShapeError
        return self.shape


Inputs = Sequence["Info | None"]
Rule = Callable[[Node, Inputs], list[Info]]


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape that numpy broadcasting gives."""
    rank = max((len(shape) for shape in shapes), default=0)
    result = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            raise NodeError(f"shapes {list(shapes)} do not broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def need(inputs: Inputs, index: int) -> Info:
    if index >= len(inputs) or inputs[index] is None:
        raise NodeError(f"input {index} is missing")
    item = inputs[index]
    assert item is not None
    return item


def ints(inputs: Inputs, index: int) -> list[int]:
    """Value of an input that must be known integers."""
    value = need(inputs, index).value
    if value is None:
        raise UnknownShapeError
    return [int(item) for item in value.reshape(-1)]


def axes_of(node: Node, inputs: Inputs, index: int = 1) -> list[int] | None:
    """Axes given as an attribute (older opsets) or as an input."""
    if "axes" in node.attributes:
        return [int(item) for item in node.attributes["axes"]]
    if index < len(inputs) and inputs[index] is not None:
        return ints(inputs, index)
    return None


def axis_of(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise NodeError(f"axis {axis} does not exist in {rank} axes")
    return axis + rank if axis < 0 else axis


def sound(shape: Sequence[int]) -> Shape:
    if any(size < 0 for size in shape):
        raise NodeError(f"shape {tuple(shape)} has a negative size")
    return tuple(int(size) for size in shape)


def same(node: Node, inputs: Inputs) -> list[Info]:
    """Outputs shaped as the first input."""
    first = need(inputs, 0)
    return [Info(first.known(), first.data_type)] * max(1, len(node.outputs))


def fused_matmul_shapes(node: Node, a: Shape, b: Shape) -> tuple[Shape, Shape]:
    """The operands of a matrix product as its attributes transpose them (com.microsoft FusedMatMul, TransposeMatMul)."""

    def turned(shape: Shape, which: str) -> Shape:
        if len(shape) > 2 and node.attributes.get(f"transBatch{which}"):
            shape = (*shape[1:-1], shape[0], shape[-1])  # (rows, batch ..., columns) -> (batch ..., rows, columns)
        if len(shape) > 1 and node.attributes.get(f"trans{which}"):
            shape = (*shape[:-2], shape[-1], shape[-2])
        return shape

    return turned(a, "A"), turned(b, "B")
