"""Shapes (and small values) of ONNX nodes, forward through a graph whose inputs have known sizes.

Shape arithmetic (Shape, Gather, Concat, ... , Reshape) is evaluated with numpy, so that graphs with computed shapes
come out exactly. A function here takes the inputs of a node and gives its outputs; it does not know rows or costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.importers.collector import words
from workloads.importers.einsum import einsum_result
from workloads.importers.onnx.info import (
    Info,
    Inputs,
    Rule,
    Shape,
    UnknownShapeError,
    axes_of,
    axis_of,
    broadcast,
    fused_matmul_shapes,
    ints,
    need,
    same,
    sound,
)
from workloads.importers.onnx.moves import MOVE_RULES
from workloads.importers.onnx.windows import WINDOW_RULES
from workloads.importers.onnx.wire import SMALL, Node, NodeError


def infer(node: Node, inputs: Inputs) -> list[Info]:
    """Return the outputs of a node. Raises KeyError for an unknown operator, UnknownShapeError where shapes cannot be known."""
    # Values of a hostile file may be infinite or too large for their type; what comes out of them is checked as a shape.
    with np.errstate(all="ignore"):
        return RULES[node.op_type](node, inputs)


def knows(op_type: str) -> bool:
    """Whether there is a rule for an operator."""
    return op_type in RULES


def _aligned(node: Node, present: list[Info]) -> list[Info]:
    """The operands as broadcasting before opset 7 lined them up: the second from axis ``axis`` on, or at the end."""
    if not node.attributes.get("broadcast") or len(present) != 2:
        return present
    first, second = present[0].known(), present[1].known()
    after = len(first) - int(node.attributes.get("axis", len(first) - len(second))) - len(second)
    if after <= 0:
        return present
    shape = (*second, *((1,) * after))
    value = present[1].value
    return [present[0], Info(shape, present[1].data_type, value.reshape(shape) if value is not None else None)]


def _evaluated(function: Callable[..., Any]) -> Rule:
    """Elementwise operator: broadcast shape, value where all inputs have one."""

    def rule(node: Node, inputs: Inputs) -> list[Info]:
        present = _aligned(node, [item for item in inputs if item is not None])
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


def _elementwise(node: Node, inputs: Inputs) -> list[Info]:
    present = _aligned(node, [item for item in inputs if item is not None])
    return [Info(broadcast([item.known() for item in present]), present[0].data_type)]


def _pass(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    result = [Info(first.known(), first.data_type, first.value)]
    return result + [Info(first.known(), 9)] * (len(node.outputs) - 1)


_TYPE_NAMES = {"FLOAT": 1, "INT32": 6, "INT64": 7, "BOOL": 9, "FLOAT16": 10, "DOUBLE": 11, "INT8": 3, "UINT8": 2}


def _cast(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    wanted = node.attributes.get("to", need(inputs, 1).data_type if node.op_type == "CastLike" else 1)
    to = _TYPE_NAMES.get(wanted, 1) if isinstance(wanted, str) else int(wanted)  # a name before opset 6
    value = first.value
    if value is not None:
        kind = {7: np.int64, 6: np.int32, 9: np.bool_, 11: np.float64}.get(to, np.float32)
        with np.errstate(all="ignore"):
            value = value.astype(kind)
    return [Info(first.known(), to, value)]


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
    data_type = {"MatMulInteger": 6, "MatMulIntegerToFloat": 1}.get(node.op_type, a.data_type)
    return [Info(matmul_shape(*fused_matmul_shapes(node, a.known(), b.known())), data_type)]


def _gemm(node: Node, inputs: Inputs) -> list[Info]:
    a, b = need(inputs, 0).known(), need(inputs, 3 if node.op_type == "QGemm" else 1).known()
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


def _quantised_binary(node: Node, inputs: Inputs) -> list[Info]:
    a, b = need(inputs, 0), need(inputs, 3)
    return [Info(broadcast([a.known(), b.known()]), a.data_type)]


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
    "BitwiseAnd BitwiseOr BitwiseXor BitwiseNot FastGelu BiasGelu QuickGelu Shrink BiasAdd ImageScaler"
)
_QUANTISED_BINARY = words("QLinearAdd QLinearMul")
_MATMULS = words("MatMul MatMulInteger QLinearMatMul FusedMatMul TransposeMatMul DynamicQuantizeMatMul MatMulIntegerToFloat")
_SAME = words(
    "Softmax LogSoftmax Hardmax InstanceNormalization GroupNormalization LpNormalization LRN "
    "MeanVarianceNormalization CumSum Trilu ScatterND ScatterElements Scatter RotaryEmbedding Clip EyeLike "
    "RandomNormalLike RandomUniformLike ReverseSequence Bernoulli QLinearSigmoid QLinearLeakyRelu QLinearSoftmax "
    "GroupNorm BiasDropout "
    "BiasSoftmax"
)

_REDUCTIONS = words("ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare")


def _fold(function: Callable[..., Any], items: Sequence[Any]) -> Any:
    result = items[0]
    for item in items[1:]:
        result = function(result, item)
    return result


RULES: dict[str, Rule] = {
    **MOVE_RULES,
    **WINDOW_RULES,
    **{name: _evaluated(function) for name, function in _BINARY.items()},
    **{name: _compared(function) for name, function in _COMPARISONS.items()},
    **dict.fromkeys(_PLAIN_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_SAME, same),
    **dict.fromkeys(("Identity", "Dropout", "StopGradient"), _pass),
    **dict.fromkeys(("Cast", "CastLike"), _cast),
    **dict.fromkeys(_REDUCTIONS, _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(_MATMULS, _matmul),
    **dict.fromkeys(("QuantizeLinear", "DynamicQuantizeLinear"), _quantize),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "BatchNormalization"), same),
    "Where": _where,
    "TopK": _top_k,
    **dict.fromkeys(("Gemm", "FusedGemm", "QGemm"), _gemm),
    "Einsum": _einsum,
    "DequantizeLinear": _dequantize,
    **dict.fromkeys(_QUANTISED_BINARY, _quantised_binary),
}
