"""Shapes (and small values) of ONNX nodes, forward through a graph whose inputs have known sizes.

Shape arithmetic (Shape, Gather, Concat, ... , Reshape) is evaluated with numpy, so that graphs with computed shapes
come out exactly. A function here takes the inputs of a node and gives its outputs; it does not know rows or costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.importers.collector import words
from workloads.importers.einsum import einsum_result
from workloads.importers.onnx_wire import SMALL, Node, Tensor

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
    return RULES[node.op_type](node, inputs)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The shape that numpy broadcasting gives."""
    rank = max((len(shape) for shape in shapes), default=0)
    result = []
    for axis in range(-rank, 0):
        sizes = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(sizes) > 1:
            raise ValueError(f"shapes {list(shapes)} do not broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)


def _need(inputs: Inputs, index: int) -> Info:
    if index >= len(inputs) or inputs[index] is None:
        raise ValueError(f"input {index} is missing")
    item = inputs[index]
    assert item is not None
    return item


def _ints(inputs: Inputs, index: int) -> list[int]:
    """Value of an input that must be known integers."""
    value = _need(inputs, index).value
    if value is None:
        raise UnknownShapeError
    return [int(item) for item in value.reshape(-1)]


def _axes(node: Node, inputs: Inputs, index: int = 1) -> list[int] | None:
    """Axes given as an attribute (older opsets) or as an input."""
    if "axes" in node.attributes:
        return [int(item) for item in node.attributes["axes"]]
    if index < len(inputs) and inputs[index] is not None:
        return _ints(inputs, index)
    return None


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < max(rank, 1):
        raise ValueError(f"axis {axis} does not exist in {rank} axes")
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
    first = _need(inputs, 0)
    return [Info(first.known(), first.data_type)] * max(1, len(node.outputs))


def _elementwise(node: Node, inputs: Inputs) -> list[Info]:
    present = [item for item in inputs if item is not None]
    return [Info(broadcast([item.known() for item in present]), present[0].data_type)]


def _pass(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    result = [Info(first.known(), first.data_type, first.value)]
    return result + [Info(first.known(), 9)] * (len(node.outputs) - 1)


def _cast(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    to = int(node.attributes.get("to", _need(inputs, 1).data_type if node.op_type == "CastLike" else 1))
    value = first.value
    if value is not None:
        kind = {7: np.int64, 6: np.int32, 9: np.bool_, 11: np.float64}.get(to, np.float32)
        with np.errstate(all="ignore"):
            value = value.astype(kind)
    return [Info(first.known(), to, value)]


def _shape(node: Node, inputs: Inputs) -> list[Info]:
    shape = _need(inputs, 0).known()
    start, end = int(node.attributes.get("start", 0)), node.attributes.get("end")
    part = shape[start : int(end) if end is not None else None]
    return [Info((len(part),), 7, np.array(part, dtype=np.int64))]


def _size(node: Node, inputs: Inputs) -> list[Info]:
    return [Info((), 7, np.array(math.prod(_need(inputs, 0).known()), dtype=np.int64))]


def _constant(node: Node, inputs: Inputs) -> list[Info]:
    for key, value in node.attributes.items():
        if isinstance(value, Tensor):
            return [Info(value.dims, value.data_type, value.value)]
        if key in ("value_int", "value_ints"):
            array = np.array(value, dtype=np.int64)
            return [Info(array.shape, 7, array)]
        if key in ("value_float", "value_floats"):
            array = np.array(value, dtype=np.float32)
            return [Info(array.shape, 1, array)]
    raise UnknownShapeError


def _constant_of_shape(node: Node, inputs: Inputs) -> list[Info]:
    shape = tuple(_ints(inputs, 0))
    fill = node.attributes.get("value")
    data_type = fill.data_type if isinstance(fill, Tensor) else 1
    value = None
    if math.prod(shape) <= SMALL and min(shape, default=1) >= 0:
        content = fill.value.reshape(-1)[0] if isinstance(fill, Tensor) and fill.value is not None and fill.value.size else 0.0
        value = np.full(shape, content)
    return [Info(_sound(shape), data_type, value)]


def _sound(shape: Sequence[int]) -> Shape:
    if any(size < 0 for size in shape):
        raise ValueError(f"shape {tuple(shape)} has a negative size")
    return tuple(int(size) for size in shape)


def _reshape(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    wanted = [int(item) for item in node.attributes["shape"]] if "shape" in node.attributes else _ints(inputs, 1)
    old = first.known()
    total = math.prod(old)
    if not node.attributes.get("allowzero"):
        wanted = [old[index] if size == 0 else size for index, size in enumerate(wanted)]
    if wanted.count(-1) > 1:
        raise ValueError(f"shape {wanted} has more than one -1")
    if -1 in wanted:
        rest = math.prod(size for size in wanted if size != -1)
        if rest == 0 or total % rest:
            raise ValueError(f"{total} elements do not fit shape {wanted}")
        wanted[wanted.index(-1)] = total // rest
    if math.prod(wanted) != total:
        raise ValueError(f"{total} elements do not fit shape {wanted}")
    shape = _sound(wanted)
    return [Info(shape, first.data_type, first.value.reshape(shape) if first.value is not None else None)]


def _flatten(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    shape = first.known()
    axis = int(node.attributes.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    return [Info((math.prod(shape[:axis]), math.prod(shape[axis:])), first.data_type)]


def _squeeze(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    shape = first.known()
    axes = _axes(node, inputs)
    dropped = {_axis(axis, len(shape)) for axis in axes} if axes is not None else {i for i, s in enumerate(shape) if s == 1}
    if any(shape[axis] != 1 for axis in dropped):
        raise ValueError(f"axes {sorted(dropped)} of {shape} cannot be squeezed")
    result = tuple(size for index, size in enumerate(shape) if index not in dropped)
    return [Info(result, first.data_type, first.value.reshape(result) if first.value is not None else None)]


def _unsqueeze(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    axes = _axes(node, inputs)
    if axes is None:
        raise UnknownShapeError
    rank = len(first.known()) + len(axes)
    places = {_axis(axis, rank) for axis in axes}
    rest = iter(first.known())
    result = tuple(1 if index in places else next(rest) for index in range(rank))
    return [Info(result, first.data_type, first.value.reshape(result) if first.value is not None else None)]


def _transpose(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    shape = first.known()
    order = [int(item) for item in node.attributes.get("perm", range(len(shape))[::-1])]
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"perm {order} is no order of {len(shape)} axes")
    value = first.value.transpose(order) if first.value is not None else None
    return [Info(tuple(shape[axis] for axis in order), first.data_type, value)]


def _concat(node: Node, inputs: Inputs) -> list[Info]:
    present = [item for item in inputs if item is not None]
    shapes = [item.known() for item in present]
    axis = _axis(int(node.attributes.get("axis", 0)), len(shapes[0]))
    total = sum(shape[axis] for shape in shapes)
    result = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
    value = None
    if all(item.value is not None for item in present) and math.prod(result) <= SMALL:
        value = np.concatenate([item.value for item in present if item.value is not None], axis=axis)
    return [Info(result, present[0].data_type, value)]


def _split(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    shape = first.known()
    axis = _axis(int(node.attributes.get("axis", 0)), len(shape))
    count = max(1, len(node.outputs))
    if "split" in node.attributes:
        sizes = [int(item) for item in node.attributes["split"]]
    elif len(inputs) > 1 and inputs[1] is not None:
        sizes = _ints(inputs, 1)
    else:
        part = -(-shape[axis] // count)
        sizes = [part] * (count - 1) + [shape[axis] - part * (count - 1)]
    if sum(sizes) != shape[axis]:
        raise ValueError(f"parts {sizes} do not add up to {shape[axis]}")
    values: list[Any] = [None] * len(sizes)
    if first.value is not None:
        values = np.split(first.value, np.cumsum(sizes)[:-1], axis=axis)
    return [
        Info(_sound((*shape[:axis], size, *shape[axis + 1 :])), first.data_type, value)
        for size, value in zip(sizes, values, strict=True)
    ]


def _slice(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    shape = list(first.known())
    if "starts" in node.attributes:
        starts, ends = list(node.attributes["starts"]), list(node.attributes["ends"])
        axes, steps = list(node.attributes.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = _ints(inputs, 1), _ints(inputs, 2)
        axes = _ints(inputs, 3) if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
        steps = _ints(inputs, 4) if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    cuts = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = _axis(axis, len(shape))
        cuts[place] = slice(start, end if end > -(2**62) else None, step)
        shape[place] = len(range(*cuts[place].indices(shape[place])))
    value = first.value[tuple(cuts)] if first.value is not None else None
    return [Info(tuple(shape), first.data_type, value)]


def _gather(node: Node, inputs: Inputs) -> list[Info]:
    data, indices = _need(inputs, 0), _need(inputs, 1)
    shape = data.known()
    axis = _axis(int(node.attributes.get("axis", 0)), len(shape))
    result = (*shape[:axis], *indices.known(), *shape[axis + 1 :])
    value = None
    if data.value is not None and indices.value is not None and math.prod(result) <= SMALL:
        value = np.take(data.value, indices.value.astype(np.int64), axis=axis)
    return [Info(result, data.data_type, value)]


def _gather_nd(node: Node, inputs: Inputs) -> list[Info]:
    data, indices = _need(inputs, 0).known(), _need(inputs, 1).known()
    batch = int(node.attributes.get("batch_dims", 0))
    return [Info((*indices[:-1], *data[batch + indices[-1] :]), _need(inputs, 0).data_type)]


def _like_second(node: Node, inputs: Inputs) -> list[Info]:
    return [Info(_need(inputs, 1).known(), _need(inputs, 0).data_type)]


def _expand(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    shape = broadcast([first.known(), _sound(_ints(inputs, 1))])
    value = np.broadcast_to(first.value, shape) if first.value is not None and math.prod(shape) <= SMALL else None
    return [Info(shape, first.data_type, value)]


def _tile(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    repeats = _ints(inputs, 1)
    shape = _sound([size * times for size, times in zip(first.known(), repeats, strict=True)])
    value = np.tile(first.value, repeats) if first.value is not None and math.prod(shape) <= SMALL else None
    return [Info(shape, first.data_type, value)]


def _pad(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    shape = list(first.known())
    pads = [int(item) for item in node.attributes["pads"]] if "pads" in node.attributes else _ints(inputs, 1)
    axes = _ints(inputs, 3) if len(inputs) > 3 and inputs[3] is not None else list(range(len(shape)))
    for index, axis in enumerate(axes):
        shape[_axis(axis, len(shape))] += pads[index] + pads[index + len(axes)]
    return [Info(_sound(shape), first.data_type)]


def _range(node: Node, inputs: Inputs) -> list[Info]:
    start, limit, delta = (_need(inputs, index) for index in range(3))
    if start.value is None or limit.value is None or delta.value is None:
        raise UnknownShapeError
    a, b, c = (item.value.reshape(-1)[0] for item in (start, limit, delta) if item.value is not None)
    if c == 0:
        raise ValueError("delta is 0")
    count = max(0, math.ceil((float(b) - float(a)) / float(c)))
    value = a + np.arange(count, dtype=start.value.dtype) * c if count <= SMALL else None
    return [Info((count,), start.data_type, value)]


def _reduce(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    shape = first.known()
    axes = _axes(node, inputs)
    if not axes and not (axes is None or not node.attributes.get("noop_with_empty_axes")):
        return [first]
    gone = {_axis(axis, len(shape)) for axis in axes} if axes else set(range(len(shape)))
    keep = int(node.attributes.get("keepdims", 1))
    result = tuple(1 if i in gone else size for i, size in enumerate(shape) if keep or i not in gone)
    value = None
    function: Any = {"ReduceProd": np.prod, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min}.get(node.op_type)
    if first.value is not None and function is not None and first.value.size:
        value = np.asarray(function(first.value, axis=tuple(sorted(gone)), keepdims=bool(keep)))
    return [Info(result, first.data_type, value)]


def _arg(node: Node, inputs: Inputs) -> list[Info]:
    shape = _need(inputs, 0).known()
    axis = _axis(int(node.attributes.get("axis", 0)), len(shape))
    keep = int(node.attributes.get("keepdims", 1))
    return [Info(tuple(1 if i == axis else size for i, size in enumerate(shape) if keep or i != axis), 7)]


def _top_k(node: Node, inputs: Inputs) -> list[Info]:
    shape = list(_need(inputs, 0).known())
    count = int(node.attributes["k"]) if "k" in node.attributes else _ints(inputs, 1)[0]
    shape[_axis(int(node.attributes.get("axis", -1)), len(shape))] = count
    return [Info(_sound(shape), _need(inputs, 0).data_type), Info(_sound(shape), 7)]


def _one_hot(node: Node, inputs: Inputs) -> list[Info]:
    shape = list(_need(inputs, 0).known())
    axis = int(node.attributes.get("axis", -1))
    shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, _ints(inputs, 1)[0])
    return [Info(_sound(shape), _need(inputs, 2).data_type)]


def _where(node: Node, inputs: Inputs) -> list[Info]:
    chosen = _evaluated(np.where)(node, inputs)
    return [Info(chosen[0].shape, _need(inputs, 1).data_type, chosen[0].value)]


def matmul_shape(a: Shape, b: Shape) -> Shape:
    """The shape of numpy.matmul."""
    if not a or not b:
        raise ValueError("a matrix product needs at least one axis")
    left = (1, *a) if len(a) == 1 else a
    right = (*b, 1) if len(b) == 1 else b
    if left[-1] != right[-2]:
        raise ValueError(f"shapes {a} and {b} do not multiply")
    batch = broadcast([left[:-2], right[:-2]])
    tail = ([] if len(a) == 1 else [left[-2]]) + ([] if len(b) == 1 else [right[-1]])
    return (*batch, *tail)


def _matmul(node: Node, inputs: Inputs) -> list[Info]:
    second = 3 if node.op_type == "QLinearMatMul" else 1
    a, b = _need(inputs, 0), _need(inputs, second)
    data_type = 6 if node.op_type == "MatMulInteger" else a.data_type
    return [Info(matmul_shape(a.known(), b.known()), data_type)]


def _gemm(node: Node, inputs: Inputs) -> list[Info]:
    a, b = _need(inputs, 0).known(), _need(inputs, 1).known()
    if len(a) != 2 or len(b) != 2:
        raise ValueError(f"Gemm takes matrices, got shapes {a} and {b}")
    m, k = (a[1], a[0]) if node.attributes.get("transA") else a
    k2, n = (b[1], b[0]) if node.attributes.get("transB") else b
    if k != k2:
        raise ValueError(f"shapes {a} and {b} do not multiply")
    return [Info((m, n), _need(inputs, 0).data_type)]


def _einsum(node: Node, inputs: Inputs) -> list[Info]:
    shapes = [item.known() for item in inputs if item is not None]
    result = einsum_result(str(node.attributes.get("equation", "")), shapes)
    if result is None:
        raise UnknownShapeError
    return [Info(result, _need(inputs, 0).data_type)]


def _window(node: Node, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Output sizes of a convolution or pooling over ``size``."""
    rank = len(size)
    strides = [int(item) for item in node.attributes.get("strides") or [1] * rank]
    dilations = [int(item) for item in node.attributes.get("dilations") or [1] * rank]
    pads = [int(item) for item in node.attributes.get("pads") or [0] * (2 * rank)]
    if min(strides) < 1 or len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank or len(kernel) != rank:
        raise ValueError(f"strides {strides}, dilations {dilations}, pads {pads} do not fit {rank} axes")
    result = []
    for i in range(rank):
        reach = dilations[i] * (kernel[i] - 1) + 1
        if str(node.attributes.get("auto_pad", "NOTSET")).startswith("SAME"):
            result.append(-(-size[i] // strides[i]))
            continue
        room = size[i] + pads[i] + pads[i + rank] - reach
        steps = -(-room // strides[i]) if node.attributes.get("ceil_mode") else room // strides[i]
        result.append(steps + 1)
    return result


def _conv(node: Node, inputs: Inputs) -> list[Info]:
    weight = _need(inputs, 3 if node.op_type == "QLinearConv" else 1).known()
    x = _need(inputs, 0).known()
    if len(x) != len(weight) or len(x) < 3:
        raise ValueError(f"input {x} and weight {weight} do not fit")
    shape = (x[0], weight[0], *_window(node, x[2:], weight[2:]))
    return [Info(_sound(shape), 6 if node.op_type == "ConvInteger" else _need(inputs, 0).data_type)]


def _conv_transpose(node: Node, inputs: Inputs) -> list[Info]:
    x, weight = _need(inputs, 0).known(), _need(inputs, 1).known()
    rank = len(x) - 2
    if "output_shape" in node.attributes:
        spatial = [int(item) for item in node.attributes["output_shape"]][-rank:]
    else:
        strides = [int(item) for item in node.attributes.get("strides") or [1] * rank]
        dilations = [int(item) for item in node.attributes.get("dilations") or [1] * rank]
        pads = [int(item) for item in node.attributes.get("pads") or [0] * (2 * rank)]
        extra = [int(item) for item in node.attributes.get("output_padding") or [0] * rank]
        spatial = [
            strides[i] * (x[2 + i] - 1) + extra[i] + dilations[i] * (weight[2 + i] - 1) + 1 - pads[i] - pads[i + rank]
            for i in range(rank)
        ]
    groups = int(node.attributes.get("group", 1))
    return [Info(_sound((x[0], weight[1] * groups, *spatial)), _need(inputs, 0).data_type)]


def _pool(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    x = first.known()
    spatial = _window(node, x[2:], [int(item) for item in node.attributes.get("kernel_shape", ())])
    result = Info(_sound((*x[:2], *spatial)), first.data_type)
    return [result] * max(1, len(node.outputs))


def _global_pool(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    x = first.known()
    return [Info((*x[:2], *([1] * (len(x) - 2))), first.data_type)]


def _resize(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    x = first.known()
    if len(inputs) > 3 and inputs[3] is not None:
        return [Info(_sound(_ints(inputs, 3)), first.data_type)]
    scales = _need(inputs, 1 if node.op_type == "Upsample" else 2).value
    if scales is None or scales.size != len(x):
        raise UnknownShapeError
    return [Info(_sound([math.floor(size * float(scale)) for size, scale in zip(x, scales, strict=True)]), first.data_type)]


def _dequantize(node: Node, inputs: Inputs) -> list[Info]:
    return [Info(_need(inputs, 0).known(), 1)]


def _quantize(node: Node, inputs: Inputs) -> list[Info]:
    zero = inputs[2] if len(inputs) > 2 else None
    shape = _need(inputs, 0).known()
    result = [Info(shape, zero.data_type if zero is not None else 2)]
    return [*result, Info((), 1), Info((), 2)] if node.op_type == "DynamicQuantizeLinear" else result


def _depth_space(node: Node, inputs: Inputs) -> list[Info]:
    first = _need(inputs, 0)
    n, c, h, w = first.known()
    b = int(node.attributes.get("blocksize", 1))
    shape = (n, c // (b * b), h * b, w * b) if node.op_type == "DepthToSpace" else (n, c * b * b, h // b, w // b)
    return [Info(shape, first.data_type)]


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

_REDUCTIONS = words(
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare"
)


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
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "FusedConv"), _conv),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(("QuantizeLinear", "DynamicQuantizeLinear"), _quantize),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth_space),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "BatchNormalization"), same),
    "Shape": _shape,
    "Size": _size,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _like_second,
    "GatherND": _gather_nd,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "Range": _range,
    "Where": _where,
    "TopK": _top_k,
    "OneHot": _one_hot,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantize,
}
