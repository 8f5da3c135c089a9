"""Shapes (and small values) of ONNX nodes, forward through a graph whose inputs have known sizes.

Shape arithmetic (Shape, Gather, Concat, ... , Reshape) is evaluated with numpy, so that graphs with computed shapes
come out exactly. A function here takes the inputs of a node and gives its outputs; it does not know rows or costs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.importers.collector import words
from workloads.importers.einsum import einsum_result
from workloads.importers.onnx_wire import SMALL, Node, NodeError

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


def infer(node: Node, inputs: Inputs) -> list[Info]:
    """Return the outputs of a node. Raises KeyError for an unknown operator, UnknownShapeError where shapes cannot be known."""
    # Values of a hostile file may be infinite or too large for their type; what comes out of them is checked as a shape.
    with np.errstate(all="ignore"):
        return _all_rules()[node.op_type](node, inputs)


def knows(op_type: str) -> bool:
    """Whether there is a rule for an operator."""
    return op_type in _all_rules()


@functools.cache
def _all_rules() -> dict[str, Rule]:
    from workloads.importers.onnx_moves import MOVE_RULES
    from workloads.importers.onnx_windows import WINDOW_RULES

    return {**RULES, **MOVE_RULES, **WINDOW_RULES}


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


def _keep(value: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
    return value if value is not None and value.size <= SMALL else None


def _evaluated(function: Callable[..., Any]) -> Rule:
    """Elementwise operator: broadcast shape, value where all inputs have one."""

    def rule(node: Node, inputs: Inputs) -> list[Info]:
        present = [item for item in inputs if item is not None]
        shape = broadcast([item.known() for item in present])
        value = None
        if all(item.value is not None for item in present) and math.prod(shape) <= SMALL:
            with np.errstate(all="ignore"):
                value = np.asarray(function(*[item.value for item in present]))
        return [Info(shape, present[0].data_type, value)]

    return rule


def _integer_division(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if a.dtype.kind in "iu" and b.dtype.kind in "iu":
        if np.any(b == 0):
            raise UnknownShapeError
        return np.asarray(np.trunc(a / b)).astype(a.dtype)
    return np.asarray(a / b)


def _compared(function: Callable[..., Any]) -> Rule:
    inner = _evaluated(function)

    def rule(node: Node, inputs: Inputs) -> list[Info]:
        return [Info(item.shape, 9, item.value) for item in inner(node, inputs)]

    return rule


def same(node: Node, inputs: Inputs) -> list[Info]:
    """Outputs shaped as the first input."""
    first = need(inputs, 0)
    return [Info(first.known(), first.data_type)] * max(1, len(node.outputs))


def _elementwise(node: Node, inputs: Inputs) -> list[Info]:
    present = [item for item in inputs if item is not None]
    return [Info(broadcast([item.known() for item in present]), present[0].data_type)]


def _pass(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    result = [Info(first.known(), first.data_type, first.value)]
    return result + [Info(first.known(), 9)] * (len(node.outputs) - 1)


def _cast(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    to = int(node.attributes.get("to", need(inputs, 1).data_type if node.op_type == "CastLike" else 1))
    value = first.value
    if value is not None:
        kind = {7: np.int64, 6: np.int32, 9: np.bool_, 11: np.float64}.get(to, np.float32)
        with np.errstate(all="ignore"):
            value = value.astype(kind)
    return [Info(first.known(), to, value)]


def sound(shape: Sequence[int]) -> Shape:
    if any(size < 0 for size in shape):
        raise NodeError(f"shape {tuple(shape)} has a negative size")
    return tuple(int(size) for size in shape)


def _reduce(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    shape = first.known()
    axes = axes_of(node, inputs)
    if not axes and not (axes is None or not node.attributes.get("noop_with_empty_axes")):
        return [first]
    gone = {axis_of(axis, len(shape)) for axis in axes} if axes else set(range(len(shape)))
    keep = int(node.attributes.get("keepdims", 1))
    result = tuple(1 if i in gone else size for i, size in enumerate(shape) if keep or i not in gone)
    value = None
    function: Any = {"ReduceProd": np.prod, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min}.get(node.op_type)
    if first.value is not None and function is not None and first.value.size:
        value = np.asarray(function(first.value, axis=tuple(sorted(gone)), keepdims=bool(keep)))
    return [Info(result, first.data_type, value)]


def _arg(node: Node, inputs: Inputs) -> list[Info]:
    shape = need(inputs, 0).known()
    axis = axis_of(int(node.attributes.get("axis", 0)), len(shape))
    keep = int(node.attributes.get("keepdims", 1))
    return [Info(tuple(1 if i == axis else size for i, size in enumerate(shape) if keep or i != axis), 7)]


def _top_k(node: Node, inputs: Inputs) -> list[Info]:
    shape = list(need(inputs, 0).known())
    count = int(node.attributes["k"]) if "k" in node.attributes else ints(inputs, 1)[0]
    shape[axis_of(int(node.attributes.get("axis", -1)), len(shape))] = count
    return [Info(sound(shape), need(inputs, 0).data_type), Info(sound(shape), 7)]


def _where(node: Node, inputs: Inputs) -> list[Info]:
    chosen = _evaluated(np.where)(node, inputs)
    return [Info(chosen[0].shape, need(inputs, 1).data_type, chosen[0].value)]


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """The shape of numpy.matmul."""
    if not a or not b:
        raise NodeError("a matrix product needs at least one axis")
    left = (1, *a) if len(a) == 1 else a
    right = (*b, 1) if len(b) == 1 else b
    if left[-1] != right[-2]:
        raise NodeError(f"shapes {a} and {b} do not multiply")
    batch = broadcast([left[:-2], right[:-2]])
    tail = ([] if len(a) == 1 else [left[-2]]) + ([] if len(b) == 1 else [right[-1]])
    return (*batch, *tail)


def _matmul(node: Node, inputs: Inputs) -> list[Info]:
    second = 3 if node.op_type == "QLinearMatMul" else 1
    a, b = need(inputs, 0), need(inputs, second)
    data_type = 6 if node.op_type == "MatMulInteger" else a.data_type
    return [Info(matmul_shape(a.known(), b.known()), data_type)]


def _gemm(node: Node, inputs: Inputs) -> list[Info]:
    a, b = need(inputs, 0).known(), need(inputs, 1).known()
    if len(a) != 2 or len(b) != 2:
        raise NodeError(f"Gemm takes matrices, got shapes {a} and {b}")
    m, k = (a[1], a[0]) if node.attributes.get("transA") else a
    k2, n = (b[1], b[0]) if node.attributes.get("transB") else b
    if k != k2:
        raise NodeError(f"shapes {a} and {b} do not multiply")
    return [Info((m, n), need(inputs, 0).data_type)]


def _einsum(node: Node, inputs: Inputs) -> list[Info]:
    shapes = [item.known() for item in inputs if item is not None]
    result = einsum_result(str(node.attributes.get("equation", "")), shapes)
    if result is None:
        raise UnknownShapeError
    return [Info(result, need(inputs, 0).data_type)]


def _dequantize(node: Node, inputs: Inputs) -> list[Info]:
    return [Info(need(inputs, 0).known(), 1)]


def _quantize(node: Node, inputs: Inputs) -> list[Info]:
    zero = inputs[2] if len(inputs) > 2 else None
    shape = need(inputs, 0).known()
    result = [Info(shape, zero.data_type if zero is not None else 2)]
    return [*result, Info((), 1), Info((), 2)] if node.op_type == "DynamicQuantizeLinear" else result


_BINARY: dict[str, Callable[..., Any]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _integer_division, "Pow": np.power, "Mod": np.fmod,
    "Min": lambda *items: _fold(np.minimum, items), "Max": lambda *items: _fold(np.maximum, items),
    "Neg": np.negative, "Abs": np.abs, "Sqrt": np.sqrt, "Floor": np.floor, "Ceil": np.ceil, "Round": np.round,
    "Not": np.logical_not, "Exp": np.exp, "Log": np.log, "Sign": np.sign, "Reciprocal": lambda x: 1.0 / x,
}  # fmt: skip
_COMPARISONS: dict[str, Callable[..., Any]] = {
    "Equal": np.equal, "Less": np.less, "LessOrEqual": np.less_equal, "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal, "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor,
}  # fmt: skip
_PLAIN_ELEMENTWISE = words(
    "Sum Mean Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh Tanh Sigmoid Relu Gelu LeakyRelu "
    "HardSigmoid HardSwish Softplus Softsign Elu Selu Celu PRelu Mish ThresholdedRelu Swish IsNaN IsInf BitShift "
    "BitwiseAnd BitwiseOr BitwiseXor BitwiseNot FastGelu BiasGelu QuickGelu Shrink"
)
_SAME = words(
    "Softmax LogSoftmax Hardmax InstanceNormalization GroupNormalization LpNormalization LRN "
    "MeanVarianceNormalization CumSum Trilu ScatterND ScatterElements Scatter RotaryEmbedding Clip EyeLike "
    "RandomNormalLike RandomUniformLike ReverseSequence Bernoulli"
)

_REDUCTIONS = words("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare")


def _fold(function: Callable[..., Any], items: Sequence[Any]) -> Any:
    result = items[0]
    for item in items[1:]:
        result = function(result, item)
    return result


RULES: dict[str, Rule] = {
    **{name: _evaluated(function) for name, function in _BINARY.items()},
    **{name: _compared(function) for name, function in _COMPARISONS.items()},
    **dict.fromkeys(_PLAIN_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(("Identity", "Dropout", "StopGradient"), _pass),
    **dict.fromkeys(("Cast", "CastLike"), _cast),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"), _matmul),
    **dict.fromkeys(("QuantizeLinear", "DynamicQuantizeLinear"), _quantize),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "BatchNormalization"), same),
    "Where": _where,
    "TopK": _top_k,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "DequantizeLinear": _dequantize,
}
