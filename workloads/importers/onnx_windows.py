"""Shapes of convolutions, poolings and resizings: the operators that slide a window over space."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workloads.importers.onnx_shapes import Info, Inputs, Rule, UnknownShapeError, ints, need, sound
from workloads.importers.onnx_wire import Node, NodeError


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
    if "output_shape" in node.attributes:
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
    first = need(inputs, 0)
    x = first.known()
    if len(inputs) > 3 and inputs[3] is not None:
        return [Info(sound(ints(inputs, 3)), first.data_type)]
    scales = need(inputs, 1 if node.op_type == "Upsample" else 2).value
    if scales is None or scales.size != len(x):
        raise UnknownShapeError
    return [Info(sound([math.floor(size * float(scale)) for size, scale in zip(x, scales, strict=True)]), first.data_type)]


def _depth_space(node: Node, inputs: Inputs) -> list[Info]:
    first = need(inputs, 0)
    n, c, h, w = first.known()
    b = int(node.attributes.get("blocksize", 1))
    shape = (n, c // (b * b), h * b, w * b) if node.op_type == "DepthToSpace" else (n, c * b * b, h // b, w // b)
    return [Info(shape, first.data_type)]


WINDOW_RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "ConvInteger", "QLinearConv", "FusedConv"), _conv),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _global_pool),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _depth_space),
    "ConvTranspose": _conv_transpose,
}
