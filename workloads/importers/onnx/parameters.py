"""Which stored tensors of an ONNX file are parameters: decided by what reads them, not by where or under what name they stand.

An initializer and the tensor of a Constant node are the same thing. Tensors that configure an operator (scales of a resizing,
zero points, limits of a clip, tables of sines) are no parameters, and neither are single numbers, unless they are a weight or a
bias by their place: a convolution with one output channel has a bias of one element.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from workloads.importers.collector import words
from workloads.importers.onnx.wire import BITS, FLOATING, INTEGER_WEIGHTS, Graph, Model, Node, Tensor

_REST = tuple(range(1, 32))
# Inputs that configure an operator.
_SETTINGS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Resize", "Upsample", "Pad", "Clip", "Reshape", "Expand", "Tile", "Slice", "Split", "TopK"), _REST),
    **dict.fromkeys(("OneHot", "QuantizeLinear", "DequantizeLinear", "Dropout", "NonMaxSuppression", "Pow", "CumSum", "Trilu"), _REST),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "CropAndResize", "CenterCropPad", "Compress", "ReverseSequence"), _REST),
    **dict.fromkeys(("Range", "ConstantOfShape", "EyeLike"), (0, *_REST)),
    **dict.fromkeys(("QLinearMatMul", "QLinearConv"), (1, 2, 4, 5, 6, 7)),
    **dict.fromkeys(("MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul"), (2, 3)),
    **dict.fromkeys(("QLinearAdd", "QLinearMul"), (1, 2, 4, 5, 6, 7)),
    **dict.fromkeys(("QLinearSigmoid", "QLinearLeakyRelu", "QLinearGlobalAveragePool", "QLinearAveragePool", "QLinearSoftmax"), _REST),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "MatMulNBits": (2, 3, 4),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QAttention": (3, 4, 5, 6, 7),
    "DynamicQuantizeLSTM": (4, 5, 6, 8, 9, 10, 11),
    "RotaryEmbedding": _REST,
    "GroupQueryAttention": (5, 6, 7, 8),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (4, 5, 6)),
    "Where": (0,),
    "Loop": (0, 1),
}
# Inputs that are weights or biases whatever their size and type.
_WEIGHTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv", "NhwcConv", "NhwcFusedConv"), (1, 2)),
    **dict.fromkeys(("ConvInteger", "MatMulNBits"), (1,)),
    **dict.fromkeys(("Gemm", "FusedGemm"), (0, 1, 2)),
    **dict.fromkeys(("MatMul", "MatMulInteger", "FusedMatMul", "TransposeMatMul", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"), (0, 1)),
    "QLinearMatMul": (0, 3),
    "QLinearConv": (3, 8),
    "QGemm": (0, 3, 6),
    "DeformConv": (1, 3),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), (1, 2, 3, 7)),
    "BatchNormalization": (1, 2, 3, 4),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"), (1, 2)),
    **dict.fromkeys(("InstanceNormalization", "GroupNormalization", "GroupNorm"), (1, 2)),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), (2, 3, 4)),
    "EmbedLayerNormalization": (2, 3, 4, 5, 6),
    **dict.fromkeys(("PRelu", "BiasGelu", "FastGelu", "BiasAdd", "BiasSplitGelu"), (1,)),
    "QAttention": (1, 2),
}
_PRODUCTS = words("Conv ConvTranspose ConvInteger MatMul MatMulInteger FusedMatMul Gemm Einsum DynamicQuantizeMatMul MatMulNBits")
_VIEWS = words(
    "Identity Cast CastLike Transpose Reshape Squeeze Unsqueeze Flatten Slice Split DequantizeLinear QuantizeLinear Expand Dropout"
)
_STORED_INTEGERS = INTEGER_WEIGHTS | {4, 5, 6}  # int16 and int32 hold the biases of quantised convolutions

Uses = dict[str, set[str]]


class Parameters:
    """The parameters of a model.

    Attributes:
        sizes: {name: elements}; a name that another graph of the file uses too is prefixed with its graph.
        names: {id of the Tensor record: its name in ``sizes``}.
    """

    def __init__(self, model: Model) -> None:
        self.sizes: dict[str, int] = {}
        self.names: dict[int, str] = {}
        self._model = model
        self._function_uses: dict[tuple[str, str], Uses] = {}
        self._count(model.graph, self._uses(model.graph.nodes, {}), "")
        for key, function in model.functions.items():
            self._count_nodes(function.nodes, self._uses(function.nodes, {}), f"{key[1]}/")

    # ---- what reads a tensor ----

    def _uses(self, nodes: Iterable[Node], outside: Mapping[str, set[str]]) -> Uses:
        """{tensor: roles in which the nodes read it}, a view's reader counting as a reader of what it views."""
        listed = list(nodes)
        made_by = {name: node.op_type for node in listed for name in node.outputs}
        uses: Uses = defaultdict(set, {name: set(roles) for name, roles in outside.items()})
        for node in reversed(listed):
            for graph in _graphs(node):
                for name, roles in self._uses(graph.nodes, {}).items():
                    uses[name] |= roles
            called = (node.domain, node.op_type) in self._model.functions
            inside = self._inside(node) if called else []
            for index, name in enumerate(node.inputs):
                if not name:
                    continue
                if called:
                    uses[name] |= inside[index] if index < len(inside) else set()
                elif index in _SETTINGS.get(node.op_type, ()):
                    uses[name].add("setting")
                elif index in _WEIGHTS.get(node.op_type, ()):
                    uses[name].add("weight")
                elif index == 0 and node.op_type in _VIEWS:
                    uses[name] |= set().union(*(uses[output] for output in node.outputs)) or {"data"}
                elif node.op_type == "Add" and any(made_by.get(other) in _PRODUCTS for other in node.inputs if other != name):
                    uses[name].add("bias")
                else:
                    uses[name].add("data")
        return uses

    def _inside(self, node: Node) -> list[set[str]]:
        """Roles of the formal inputs of the function that a node calls."""
        key = (node.domain, node.op_type)
        function = self._model.functions[key]
        if key not in self._function_uses:
            self._function_uses[key] = {}  # a function that calls itself gets no further
            self._function_uses[key] = self._uses(function.nodes, {})
        uses = self._function_uses[key]
        return [set(uses.get(name, ())) for name in function.inputs]

    # ---- what is counted ----

    def _count(self, graph: Graph, uses: Uses, prefix: str) -> None:
        for tensor in graph.initializers:
            self._take(tensor, tensor.name, uses.get(tensor.name, set()), prefix)
        self._count_nodes(graph.nodes, uses, prefix)

    def _count_nodes(self, nodes: Iterable[Node], uses: Uses, prefix: str) -> None:
        for node in nodes:
            value = node.attributes.get("value")
            if node.op_type == "Constant" and isinstance(value, Tensor) and node.outputs:
                name = node.outputs[0]
                if uses.get(name):
                    self._take(value, name, uses[name], prefix)
            elif node.op_type == "MatMulNBits" and len(node.inputs) > 1:
                packed = int(_number(node.attributes.get("N"))) * int(_number(node.attributes.get("K")))
                if 0 < packed < 2**48 and node.inputs[1] in self.sizes:
                    self.sizes[node.inputs[1]] = packed
            for graph in _graphs(node):
                self._count(graph, self._uses(graph.nodes, {}), f"{prefix}{node.name or node.op_type}/")

    def _take(self, tensor: Tensor, name: str, roles: set[str], prefix: str) -> None:
        floating = tensor.data_type in FLOATING
        if "weight" in roles:
            counted = floating or tensor.data_type in _STORED_INTEGERS
        elif "bias" in roles:
            counted = floating and (tensor.elements > 1 or len(tensor.dims) > 0)
        elif "data" in roles or not roles:
            counted = tensor.elements > 1 and (floating or (tensor.data_type in INTEGER_WEIGHTS and len(tensor.dims) >= 2))
        else:
            counted = False
        if counted and tensor.elements:
            key = name if name not in self.sizes else f"{prefix}{name}"
            self.sizes[key] = tensor.elements
            self.names[id(tensor)] = key


def stored_bits(tensor: Tensor) -> int:
    """Precision of a stored tensor that the file quantises, else 0."""
    return BITS.get(tensor.data_type, 0) if tensor.data_type in INTEGER_WEIGHTS else 0


def _graphs(node: Node) -> list[Graph]:
    return [value for value in node.attributes.values() if isinstance(value, Graph)]


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) and abs(value) < 2**48 else 0
