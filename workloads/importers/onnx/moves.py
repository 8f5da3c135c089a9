"""Shapes and values of operators that make, cut, join and rearrange tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workloads.importers.onnx.info import (
    Info,
    Inputs,
    Rule,
    UnknownShapeError,
    axes_of,
    axis_of,
    broadcast,
    ints,
    need,
    sound,
)
from workloads.importers.onnx.wire import SMALL, Node, NodeError, Tensor


def _shape(node: Node, inputs: Inputs) -> list[Info]:
    shape = need(inputs, 0).known()
    start, end = int(node.attributes.get("start", 0)), node.attributes.get("end")
    part = shape[start : int(end) if end is not None else None]
    return [Info((len(part),), 7, np.array(part, dtype=np.int64))]


def _size(node: Node, inputs: Inputs) -> list[Info]:
    return [Info((), 7, np.array(math.prod(need(inputs, 0).known()), dtype=np.int64))]


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
    shape = tuple(ints(inputs, 0))
    fill = node.attributes.get("value")
    data_type = fill.data_type if isinstance(fill, Tensor) else 1
    value = None
    if math.prod(shape) <= SMALL and min(shape, default=1) >= 0:
        content = fill.value.reshape(-1)[0] if isinstance(fill, Tensor) and fill.value is not None and fill.value.size else 0.0
        value = np.full(shape, content)
    return [Info(sound(shape), data_type, value)]


def _reshape(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    wanted = [int(item) for item in node.attributes["shape"]] if "shape" in node.attributes else ints(inputs, 1)
    old = first.known()
    total = math.prod(old)
    if not node.attributes.get("allowzero"):
        wanted = [old[index] if size == 0 else size for index, size in enumerate(wanted)]
    if wanted.count(-1) > 1:
        raise NodeError(f"shape {wanted} has more than one -1")
    if -1 in wanted:
        rest = math.prod(size for size in wanted if size != -1)
        if rest == 0 or total % rest:
            raise NodeError(f"{total} elements do not fit shape {wanted}")
        wanted[wanted.index(-1)] = total // rest
    if math.prod(wanted) != total:
        raise NodeError(f"{total} elements do not fit shape {wanted}")
    shape = sound(wanted)
    return [Info(shape, first.data_type, first.value.reshape(shape) if first.value is not None else None)]


def _flatten(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    shape = first.known()
    axis = int(node.attributes.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    return [Info((math.prod(shape[:axis]), math.prod(shape[axis:])), first.data_type)]


def _squeeze(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    shape = first.known()
    axes = axes_of(node, inputs)
    dropped = {axis_of(axis, len(shape)) for axis in axes} if axes is not None else {i for i, s in enumerate(shape) if s == 1}
    if any(shape[axis] != 1 for axis in dropped):
        raise NodeError(f"axes {sorted(dropped)} of {shape} cannot be squeezed")
    result = tuple(size for index, size in enumerate(shape) if index not in dropped)
    return [Info(result, first.data_type, first.value.reshape(result) if first.value is not None else None)]


def _unsqueeze(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    axes = axes_of(node, inputs)
    if axes is None:
        raise UnknownShapeError
    rank = len(first.known()) + len(axes)
    places = {axis_of(axis, rank) for axis in axes}
    if len(places) != len(axes):
        raise NodeError(f"axes {axes} are not distinct")
    rest = iter(first.known())
    result = tuple(1 if index in places else next(rest) for index in range(rank))
    return [Info(result, first.data_type, first.value.reshape(result) if first.value is not None else None)]


def _transpose(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    shape = first.known()
    order = [int(item) for item in node.attributes.get("perm", range(len(shape))[::-1])]
    if sorted(order) != list(range(len(shape))):
        raise NodeError(f"perm {order} is no order of {len(shape)} axes")
    value = first.value.transpose(order) if first.value is not None else None
    return [Info(tuple(shape[axis] for axis in order), first.data_type, value)]


def _concat(node: Node, inputs: Inputs) -> list[Info]:
    present = [item for item in inputs if item is not None]
    shapes = [item.known() for item in present]
    axis = axis_of(int(node.attributes.get("axis", 0)), len(shapes[0]))
    total = sum(shape[axis] for shape in shapes)
    result = (*shapes[0][:axis], total, *shapes[0][axis + 1 :])
    value = None
    if all(item.value is not None for item in present) and math.prod(result) <= SMALL:
        value = np.concatenate([item.value for item in present if item.value is not None], axis=axis)
    return [Info(result, present[0].data_type, value)]


def _split(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    shape = first.known()
    axis = axis_of(int(node.attributes.get("axis", 0)), len(shape))
    count = max(1, len(node.outputs))
    if "split" in node.attributes:
        sizes = [int(item) for item in node.attributes["split"]]
    elif len(inputs) > 1 and inputs[1] is not None:
        sizes = ints(inputs, 1)
    else:
        part = -(-shape[axis] // count)
        sizes = [part] * (count - 1) + [shape[axis] - part * (count - 1)]
    if sum(sizes) != shape[axis]:
        raise NodeError(f"parts {sizes} do not add up to {shape[axis]}")
    values: list[Any] = [None] * len(sizes)
    if first.value is not None:
        values = np.split(first.value, np.cumsum(sizes)[:-1], axis=axis)
    return [
        Info(sound((*shape[:axis], size, *shape[axis + 1 :])), first.data_type, value) for size, value in zip(sizes, values, strict=True)
    ]


def _slice(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    shape = list(first.known())
    if "starts" in node.attributes:
        starts, ends = list(node.attributes["starts"]), list(node.attributes["ends"])
        axes, steps = list(node.attributes.get("axes", range(len(starts)))), [1] * len(starts)
    else:
        starts, ends = ints(inputs, 1), ints(inputs, 2)
        axes = ints(inputs, 3) if len(inputs) > 3 and inputs[3] is not None else list(range(len(starts)))
        steps = ints(inputs, 4) if len(inputs) > 4 and inputs[4] is not None else [1] * len(starts)
    cuts = [slice(None)] * len(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = axis_of(axis, len(shape))
        cuts[place] = slice(start, end if end > -(2**62) else None, step)
        shape[place] = len(range(*cuts[place].indices(shape[place])))
    value = first.value[tuple(cuts)] if first.value is not None else None
    return [Info(tuple(shape), first.data_type, value)]


def _gather(node: Node, inputs: Inputs) -> list[Info]:
    data, indices = need(inputs, 0), need(inputs, 1)
    shape = data.known()
    axis = axis_of(int(node.attributes.get("axis", 0)), len(shape))
    result = (*shape[:axis], *indices.known(), *shape[axis + 1 :])
    value = None
    if data.value is not None and indices.value is not None and math.prod(result) <= SMALL:
        value = np.take(data.value, indices.value.astype(np.int64), axis=axis)
    return [Info(result, data.data_type, value)]


def _gather_nd(node: Node, inputs: Inputs) -> list[Info]:
    data, indices = need(inputs, 0).known(), need(inputs, 1).known()
    batch = int(node.attributes.get("batch_dims", 0))
    return [Info((*indices[:-1], *data[batch + indices[-1] :]), need(inputs, 0).data_type)]


def _like_second(node: Node, inputs: Inputs) -> list[Info]:
    return [Info(need(inputs, 1).known(), need(inputs, 0).data_type)]


def _expand(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    shape = broadcast([first.known(), sound(ints(inputs, 1))])
    value = np.broadcast_to(first.value, shape) if first.value is not None and math.prod(shape) <= SMALL else None
    return [Info(shape, first.data_type, value)]


def _tile(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    repeats = ints(inputs, 1)
    shape = sound([size * times for size, times in zip(first.known(), repeats, strict=True)])
    value = np.tile(first.value, repeats) if first.value is not None and math.prod(shape) <= SMALL else None
    return [Info(shape, first.data_type, value)]


def _pad(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    shape = list(first.known())
    pads = [int(item) for item in node.attributes["pads"]] if "pads" in node.attributes else ints(inputs, 1)
    axes = ints(inputs, 3) if len(inputs) > 3 and inputs[3] is not None else list(range(len(shape)))
    for index, axis in enumerate(axes):
        shape[axis_of(axis, len(shape))] += pads[index] + pads[index + len(axes)]
    return [Info(sound(shape), first.data_type)]


def _range(node: Node, inputs: Inputs) -> list[Info]:
    start, limit, delta = (need(inputs, index) for index in range(3))
    if start.value is None or limit.value is None or delta.value is None:
        raise UnknownShapeError
    a, b, c = (item.value.reshape(-1)[0] for item in (start, limit, delta) if item.value is not None)
    if c == 0:
        raise NodeError("delta is 0")
    count = max(0, math.ceil((float(b) - float(a)) / float(c)))
    value = a + np.arange(count, dtype=start.value.dtype) * c if count <= SMALL else None
    return [Info((count,), start.data_type, value)]


def _one_hot(node: Node, inputs: Inputs) -> list[Info]:
    shape = list(need(inputs, 0).known())
    axis = int(node.attributes.get("axis", -1))
    shape.insert(axis if axis >= 0 else len(shape) + 1 + axis, ints(inputs, 1)[0])
    return [Info(sound(shape), need(inputs, 2).data_type)]


MOVE_RULES: dict[str, Rule] = {
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
    "OneHot": _one_hot,
}
