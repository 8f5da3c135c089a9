"""Shapes of convolutions, poolings and resizings: the operators that slide a window over space."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workloads.importers.onnx.info import Info, Inputs, Rule, UnknownShapeError, axis_of, ints, need, sound
from workloads.importers.onnx.wire import Node, NodeError


def _window(node: Node, size: Sequence[int], kernel: Sequence[int]) -> list[int]:
    """Output sizes of a convolution or pooling over ``size``."""
    rank = len(size)
    strides = [int(item) for item in node.attributes.get("strides") or [1] * rank]
    dilations = [int(item) for item in node.attributes.get("dilations") or [1] * rank]
    pads = [int(item) for item in node.attributes.get("pads") or [0] * (2 * rank)]
    if min(strides) < 1 or len(strides) != rank or len(dilations) != rank or len(pads) != 2 * rank or len(kernel) != rank:
        raise NodeError(f"strides {strides}, dilations {dilations}, pads {pads} do not fit {rank} axes")
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
    weight = need(inputs, 3 if node.op_type == "QLinearConv" else 1).known()
    x = need(inputs, 0).known()
    if len(x) != len(weight) or len(x) < 3:
        raise NodeError(f"input {x} and weight {weight} do not fit")
    shape = (x[0], weight[0], *_window(node, x[2:], weight[2:]))
    return [Info(sound(shape), 6 if node.op_type == "ConvInteger" else need(inputs, 0).data_type)]


def _conv_transpose(node: Node, inputs: Inputs) -> list[Info]:
    x, weight = need(inputs, 0).known(), need(inputs, 1).known()
    rank = len(x) - 2
    same = str(node.attributes.get("auto_pad", "NOTSET")).startswith("SAME")
    if same and "output_shape" not in node.attributes:
        strides = [int(item) for item in node.attributes.get("strides") or [1] * rank]
        spatial = [size * stride for size, stride in zip(x[2:], strides, strict=True)]
    elif "output_shape" in node.attributes:
        spatial = [int(item) for item in node.attributes["output_shape"]][-rank:]
    else:
        strides = [int(item) for item in node.attributes.get("strides") or [1] * rank]
        dilations = [int(item) for item in node.attributes.get("dilations") or [1] * rank]
        pads = [int(item) for item in node.attributes.get("pads") or [0] * (2 * rank)]
        extra = [int(item) for item in node.attributes.get("output_padding") or [0] * rank]
        spatial = [
            strides[i] * (x[2 + i] - 1) + extra[i] + dilations[i] * (weight[2 + i] - 1) + 1 - pads[i] - pads[i + rank] for i in range(rank)
        ]
    groups = int(node.attributes.get("group", 1))
    return [Info(sound((x[0], weight[1] * groups, *spatial)), need(inputs, 0).data_type)]


def _pool(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    x = first.known()
    spatial = _window(node, x[2:], [int(item) for item in node.attributes.get("kernel_shape", ())])
    result = Info(sound((*x[:2], *spatial)), first.data_type)
    return [result] * max(1, len(node.outputs))


def _global_pool(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    x = first.known()
    return [Info((*x[:2], *([1] * (len(x) - 2))), first.data_type)]


def _resize(node: Node, inputs: Inputs) -> list[Info]:
    """Upsample of opsets 1 (height_scale), 7 (scales attribute) and 9 (input); Resize of opset 10 (X, scales) and 11 on."""
    first = need(inputs, 0)
    x = first.known()
    axes = [axis_of(int(item), len(x)) for item in node.attributes.get("axes") or range(len(x))]
    if len(inputs) > 3 and inputs[3] is not None:
        sizes = dict(zip(axes, ints(inputs, 3), strict=True))
        return [Info(sound([sizes.get(axis, size) for axis, size in enumerate(x)]), first.data_type)]
    if "height_scale" in node.attributes and len(x) == 4:
        listed = [1.0, 1.0, float(node.attributes["height_scale"]), float(node.attributes.get("width_scale", 1.0))]
    elif "scales" in node.attributes:
        listed = [float(item) for item in node.attributes["scales"]]
    else:
        value = need(inputs, 1 if node.op_type == "Upsample" or len(inputs) < 3 else 2).value
        if value is None:
            raise UnknownShapeError
        listed = [float(item) for item in value.reshape(-1)]
    if len(listed) != len(axes):
        raise NodeError(f"{len(listed)} scales do not fit {len(axes)} axes")
    scales = dict(zip(axes, listed, strict=True))
    return [Info(sound([math.floor(size * scales.get(axis, 1.0)) for axis, size in enumerate(x)]), first.data_type)]


def _max_unpool(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    x = first.known()
    if len(inputs) > 2 and inputs[2] is not None:
        return [Info(sound(ints(inputs, 2)), first.data_type)]
    kernel = [int(item) for item in node.attributes["kernel_shape"]]
    strides = [int(item) for item in node.attributes.get("strides") or [1] * len(kernel)]
    pads = [int(item) for item in node.attributes.get("pads") or [0] * (2 * len(kernel))]
    spatial = [
        (size - 1) * stride + wide - before - after
        for size, stride, wide, before, after in zip(x[2:], strides, kernel, pads, pads[len(kernel) :], strict=False)
    ]
    return [Info(sound((*x[:2], *spatial)), first.data_type)]


def _regions(node: Node, inputs: Inputs) -> list[Info]:
    """RoiAlign and MaxRoiPool: one picture of a fixed size for every region."""
    x, regions = need(inputs, 0).known(), need(inputs, 1).known()
    if node.op_type == "MaxRoiPool":
        high, wide = (int(item) for item in node.attributes["pooled_shape"])
    else:
        high, wide = (int(node.attributes.get(name, 1)) for name in ("output_height", "output_width"))
    return [Info(sound((regions[0], x[1], high, wide)), need(inputs, 0).data_type)]


def _grid_sample(node: Node, inputs: Inputs) -> list[Info]:
    x, grid = need(inputs, 0).known(), need(inputs, 1).known()
    return [Info((*x[:2], *grid[1:-1]), need(inputs, 0).data_type)]


def _col_to_image(node: Node, inputs: Inputs) -> list[Info]:
    x, size, block = need(inputs, 0).known(), ints(inputs, 1), ints(inputs, 2)
    return [Info(sound((x[0], x[1] // max(1, math.prod(block)), *size)), need(inputs, 0).data_type)]


def _depth_space(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    n, c, h, w = first.known()
    b = int(node.attributes.get("blocksize", 1))
    shape = (n, c // (b * b), h * b, w * b) if node.op_type == "DepthToSpace" else (n, c * b * b, h // b, w // b)
    return [Info(shape, first.data_type)]


WINDOW_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "FusedConv", "DeformConv"), _conv),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "QLinearGlobalAveragePool"), _global_pool),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), _regions),
    "MaxUnpool": _max_unpool,
    "GridSample": _grid_sample,
    "Col2Im": _col_to_image,
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth_space),
    "ConvTranspose": _conv_transpose,
}
