"""The walk over an exported PyTorch graph (torch.export): every node a row, a view, a constant, or reported.

What depends on no input of the request (rotary tables, masks of positions, relative biases) is computed once when a model is
loaded and counts nothing; its parameters are attached where the result is used. Fused attention stays one node and gives
scores, softmax and context (or one fused row). The counter of PyTorch is not used: it misses fused attention.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from workloads.filters import filter_fields
from workloads.importers import torch_nodes
from workloads.importers.collector import Collector, Value, copies_made
from workloads.importers.decoding import CachedLayers, Decoding
from workloads.importers.torch_names import (
    ACTIVATION_CLASSES,
    ACTIVATIONS,
    CHECKS,
    CONVOLUTIONS,
    COPIES,
    ELEMENTWISE,
    GATHERS,
    MAKERS,
    NORM_CLASS,
    NORMS,
    REDUCTIONS,
    SOFTMAXES,
    SORTS,
    VIEWS,
)
from workloads.importers.torch_recurrent import CELLS, LAYERS, recurrent_rows
from workloads.ops import Kind, Operation


class GraphWalk:
    """Walks the nodes of an exported program in order and fills a :class:`Collector`.

    ``layer_times``: {path prefix of a module: how many layers of the model it stands for}; ``aliases``: {name of a tied
    parameter: the name that it is counted under}; ``decoding``: how causal attention uses a cache (None: not at all).
    ``unknown_size``: what stands for a size that depends on data (0: the node is left out).
    ``cached`` lists the layers that keep keys and values, after :meth:`run`.
    """

    def __init__(
        self,
        collector: Collector,
        layer_times: Mapping[str, int] | None = None,
        aliases: Mapping[str, str] | None = None,
        decoding: Decoding | None = None,
        unknown_size: int = 0,
    ) -> None:
        self.collector = collector
        self.unknown_size = unknown_size
        self.decoding = decoding
        self.cached: list[CachedLayers] = []
        self.aliases = aliases or {}
        self.layer_times = sorted((layer_times or {}).items(), key=lambda item: -len(item[0]))
        self.top_k, self.experts = 1, 1
        self._dense: set[int] = set()
        self._values: dict[Any, Any] = {}
        self._next = 0
        self._blocks: set[str] = set()
        self._tensors: dict[str, Any] = {}
        self._writers: dict[Any, int] = {}

    def run(self, program: Any) -> None:
        """Walk an ``ExportedProgram``."""
        signature = program.graph_signature
        parameters = {place: self.aliases.get(name, name) for place, name in signature.inputs_to_parameters.items()}
        buffers = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        stored = {**program.state_dict, **program.constants}
        self._tensors = {place: stored[name] for place, name in buffers.items() if name in stored}
        if self.decoding is not None:
            for node in program.graph.nodes:
                if torch_nodes.is_ours(node, "attention"):
                    self._note_writers(node)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                known = node.name in parameters or node.name in buffers
                names = (parameters[node.name],) if node.name in parameters else ()
                self._bind(node, known, names)
            else:
                self._step(node, program.graph_module)

    # ---- bookkeeping ----

    def _bind(self, node: Any, constant: bool, names: tuple[str, ...], root: int | None = None, bits: int = 0, shared: int = 1) -> None:
        """Give a node its value (or, for several results, its values)."""
        meta = node.meta.get("val")
        if root is None:
            self._next += 1
            root = self._next
        try:
            shapes = [self._shape(item) for item in meta] if isinstance(meta, (list, tuple)) else [self._shape(meta)]
        except torch_nodes.UnknownSizeError:
            self.collector.leave_out(str(node.target), "its shape depends on data")
            shapes = [()] * (len(meta) if isinstance(meta, (list, tuple)) else 1)
        values = [Value(shape, root, constant, names, bits, shared) for shape in shapes]
        self._values[node] = values if isinstance(meta, (list, tuple)) else values[0]

    def _shape(self, meta: Any) -> tuple[int, ...]:
        return torch_nodes.shape_of(meta, self.unknown_size)

    def _value(self, item: Any) -> Value:
        value = self._values.get(item)
        if isinstance(value, list):
            first = value[0] if value else Value((), 0, True)
            return Value(first.shape, first.root, first.constant, first.parameters)
        return value if isinstance(value, Value) else Value((), 0, True)

    def _inputs(self, node: Any) -> list[Value]:
        return [self._value(item) for item in node.all_input_nodes if item in self._values]

    def _step(self, node: Any, owner: Any) -> None:
        if node.op == "get_attr":
            attribute = torch_nodes.attribute_of(owner, node.target)
            if hasattr(attribute, "graph"):
                self._values[node] = attribute
            else:
                self._bind(node, True, ())
            return
        if node.op == "output" or node.op != "call_function":
            return
        target = torch_nodes.name_of(node.target)
        if any(hasattr(self._values.get(item), "graph") for item in node.all_input_nodes):
            self._call(node)
            return
        inputs = self._inputs(node)
        names = tuple(dict.fromkeys(name for value in inputs for name in value.parameters))
        constant = all(value.constant for value in inputs)
        if target == "getitem":
            self._getitem(node)
            return
        if target in CHECKS:
            self._values[node] = Value((), 0, constant)
            return
        if torch_nodes.is_ours(node, "mask"):
            self._bind(node, True, ())
            return
        if target.rstrip("_") in VIEWS or target in VIEWS:
            source = inputs[0] if inputs else Value((), 0, True)
            self._bind(node, constant, names, source.root, source.bits, source.shared)
            made = self._values[node]
            if target in ("expand", "expand_as", "broadcast_to") and isinstance(made, Value):
                self._values[node] = replace(made, shared=source.shared * copies_made(source.shape, made.shape))
            return
        # Products of parameters alone run with every request in the graph, so they count; all else is done once at load.
        executed = target in _PRODUCTS and bool(names)
        if (constant and not executed) or target in MAKERS:
            self._bind(node, True, names)
            return
        self._bind(node, False, ())
        self._emit(node, target, inputs)

    def _getitem(self, node: Any) -> None:
        source = self._values.get(node.args[0])
        index = node.args[1]
        if isinstance(source, list) and isinstance(index, int) and index < len(source):
            self._values[node] = source[index]
        else:
            value = self._value(node.args[0])
            self._bind(node, value.constant, value.parameters, value.root)

    def _call(self, node: Any) -> None:
        """A higher-order operator that wraps a graph (autocast, set_grad): walk into it."""
        inner = next(item for item in node.all_input_nodes if hasattr(self._values.get(item), "graph"))
        module = self._values[inner]
        arguments = [item for item in node.args if hasattr(item, "op") and item is not inner]
        places = [item for item in module.graph.nodes if item.op == "placeholder"]
        for place, argument in zip(places, arguments, strict=False):
            self._values[place] = self._values[argument]
        result: Any = None
        for item in module.graph.nodes:
            if item.op == "output":
                result = item.args[0]
            elif item.op != "placeholder":
                self._step(item, module)
        if isinstance(result, (list, tuple)):
            self._values[node] = [self._value(item) for item in result]
        else:
            self._values[node] = self._value(result)

    # ---- rows ----

    def _emit(self, node: Any, target: str, inputs: list[Value]) -> None:
        path, block, block_class = torch_nodes.module_of(node)
        self.collector.times = self._times(path)
        if self.decoding is not None and self.decoding.steps and not torch_nodes.is_ours(node, "attention"):
            self.collector.times *= self.decoding.steps  # attention says itself how often each length occurs
        single = self._single_operation(node, block, block_class, path, inputs)
        try:
            rows = self._rows(node, target, path or node.name, inputs) if single is None else single
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            rows = None  # a form of the operator that the rules do not foresee: reported, like one that they do not know
        if rows is None:
            self.collector.leave_out(str(node.target), "no rule for the operation")
            rows = []
        outputs = self._values[node]
        listed = outputs if isinstance(outputs, list) else [outputs]
        rows = self._routed(node, target, rows, inputs, listed)
        self.collector.add(rows, inputs, listed)

    def _routed(
        self, node: Any, target: str, rows: list[tuple[Operation, Sequence[str]]], inputs: list[Value], outputs: list[Value]
    ) -> list[tuple[Operation, Sequence[str]]]:
        """The rows as a mixture of experts runs them that gives every token to every expert and masks all but ``top_k``.

        That is how such a model is written where each expert's tokens are not gathered (Llama 4); what counts is what its
        chosen experts compute. From the copies for all experts on, tensors are marked; operations on them cost their share.
        """
        if target == "repeat" and self.top_k < self.experts == node.args[1][0] and outputs[0].elements == self.experts * inputs[0].elements:
            self._dense.add(outputs[0].root)
        elif not any(value.root in self._dense for value in inputs):
            return rows
        elif outputs[0].elements * self.experts > max(value.elements for value in inputs if value.root in self._dense):
            self._dense.add(outputs[0].root)
        result: list[tuple[Operation, Sequence[str]]] = []
        for row, names in rows:
            first, second = (inputs[0], inputs[1]) if len(inputs) > 1 else (inputs[0], inputs[0])
            if row.kind is Kind.GEMM and row.groups == self.experts and second.parameters:
                chosen = first.elements // first.shape[-1] * self.top_k // self.experts
                made = self.collector.experts(row.name, chosen, self.experts, self.top_k, int(row.n), int(row.k), first, second)
                result += [(item, names) for item in made]
            elif row.kind is Kind.GEMM:
                result.append((row, names))
            else:
                result.append((replace(row, m=max(1, int(row.m) * self.top_k // self.experts)), names))
        return result

    def _times(self, path: str) -> int:
        for prefix, times in self.layer_times:
            if path == prefix or path.startswith(prefix + "."):
                return times
        return 1

    def _single_operation(
        self, node: Any, block: str, block_class: str, path: str, inputs: list[Value]
    ) -> list[tuple[Operation, Sequence[str]]] | None:
        """Rows of a norm or activation that is written as several nodes: one row at its first node, none at the others."""
        if not block or torch_nodes.name_of(node.target) in _PRODUCTS:
            return None
        norm = NORM_CLASS.search(block_class) and "Activation" not in block_class
        activation = ACTIVATION_CLASSES.get(block_class)
        if not norm and activation is None:
            return None
        names = [name for name in self.collector.parameters if name.rpartition(".")[0] == path]
        seen = block in self._blocks
        self._blocks.add(block)
        if seen:
            return []
        source = next((value for value in inputs if not value.constant), inputs[0])
        if activation is not None:
            return [(self.collector.elementwise(path, activation, source.shape, 1, Kind.ACTIVATION), names)]
        plain = torch_nodes.name_of(node.target)
        function = _norm_of(node) if plain in NORMS else ("batchnorm" if "batch" in block_class.lower() else "rmsnorm")
        return [(self.collector.elementwise(path, function, source.shape, 1, Kind.NORM), names)]

    def _rows(self, node: Any, target: str, name: str, inputs: list[Value]) -> list[tuple[Operation, Sequence[str]]] | None:
        """Rows of one node with the parameters that they use, or None if it is not understood."""
        names = [item for value in inputs for item in value.parameters]
        base = target.removesuffix("_") if not target.startswith("_") else re.sub("^__i(?=[a-z]+__$)", "__", target)
        handler = _PRODUCTS.get(base)
        if handler is not None:
            rows = handler(self, node, name)
            if rows and node in self._writers:
                rows = self._writing(rows, self._writers[node])
            return None if rows is None else [(row, names) for row in rows]
        if base in LAYERS or base in CELLS:
            return recurrent_rows(self.collector, node, base, name, self._value)
        output = self._value(node)
        first = next((value for value in inputs if not value.constant), output)
        live = sum(1 for value in inputs if not value.constant or value.elements > 1)
        make = self.collector.elementwise
        if base in NORMS:
            return [(make(name, _norm_of(node), first.shape, 1, Kind.NORM), names)]
        if base in SOFTMAXES:
            return [(make(name, "softmax", first.shape, 1, Kind.SOFTMAX), names)]
        if base in ACTIVATIONS:
            function = ACTIVATIONS[base]
            if base == "gelu" and node.kwargs.get("approximate") == "tanh":
                function = "gelu_tanh"
            return [(make(name, function, output.shape, 1, Kind.ACTIVATION), names)]
        if base in ("embedding",) or base in GATHERS:
            kind = Kind.EMBEDDING if base == "embedding" else Kind.GATHER
            return [(make(name, "gather", output.shape, 1, kind), names)]
        if base in ELEMENTWISE:
            return [(make(name, torch_nodes.power_name(node) if base == "pow" else base, output.shape, live), names)]
        if base in REDUCTIONS:
            return [(make(name, torch_nodes.reduction_name(base), torch_nodes.reduced(first.shape, output.shape), 1), names)]
        if base in COPIES:
            return [(make(name, "copy", output.shape, 1), names)]
        if base == "topk":
            self.top_k = int(node.args[1])
            self.experts = first.shape[-1] if first.shape else 1
            n = first.shape[-1] if first.shape else 1
            row = self.collector.vector(name, Kind.TOPK, "topk", first.elements // max(n, 1), n, k=self.top_k)
            return [(row, names)]
        if base in SORTS:
            n = first.shape[-1] if first.shape else 1
            return [(self.collector.vector(name, Kind.TOPK, "sort", first.elements // max(n, 1), n, k=n), names)]
        return None

    # ---- products ----

    def _linear(self, node: Any, name: str) -> list[Operation]:
        first, weight = self._value(node.args[0]), self._value(node.args[1])
        n, k = weight.shape[0], weight.shape[-1]
        if len(weight.shape) == 1:
            n = 1
        return self.collector.matrix(name, first.elements // max(k, 1), n, k, first, weight)

    def _addmm(self, node: Any, name: str) -> list[Operation]:
        return self.collector.matmul(name, self._value(node.args[1]), self._value(node.args[2]))

    def _matmul(self, node: Any, name: str) -> list[Operation]:
        return self.collector.matmul(name, self._value(node.args[0]), self._value(node.args[1]))

    def _einsum(self, node: Any, name: str) -> list[Operation] | None:
        operands = [self._value(item) for item in node.args[1]]
        if len(operands) == 1:
            return [self.collector.elementwise(name, "sum", operands[0].shape, 1)]
        return self.collector.einsum(name, str(node.args[0]), operands)

    def _attention(self, node: Any, name: str) -> list[Operation]:
        query, key, value = (self._value(item) for item in node.args[:3])
        heads = query.shape[-3] if len(query.shape) > 2 else 1
        kv_heads = key.shape[-3] if len(key.shape) > 2 else 1
        kv_heads //= key.shared if kv_heads % key.shared == 0 else 1
        causal = bool(node.args[5]) if len(node.args) > 5 else bool(node.kwargs.get("is_causal", False))
        mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
        causal, window, _ = torch_nodes.visible(mask, causal, 0)
        batch = math.prod(query.shape[:-3])
        return self.collector.attention(
            name, batch=batch, heads=heads, kv_heads=max(1, kv_heads), q_len=query.shape[-2], kv_len=key.shape[-2],
            qk_dim=query.shape[-1], v_dim=value.shape[-1], causal=causal, window=window,
        )  # fmt: skip

    def _recorded(self, node: Any, name: str) -> list[Operation]:
        """Attention as the models of transformers ask for it (:mod:`workloads.importers.huggingface.attention`)."""
        query, key, value = (self._value(item) for item in node.args[:3])
        batch, heads, q_len, qk_dim = query.shape
        _, kv_heads, kv_len, _ = key.shape
        causal, window, chunk = torch_nodes.visible(node.args[3], bool(node.args[6]), int(node.args[7]))
        common: dict[str, Any] = {
            **{"heads": heads, "kv_heads": kv_heads, "qk_dim": qk_dim, "v_dim": value.shape[3]},
            **{"causal": causal, "window": window, "softcap": bool(node.args[8])},
        }
        make, plan = self.collector.attention, self.decoding
        steps = plan.steps if plan is not None else 0
        if node.args[5] is not None:  # sequences one behind the other, each attending to itself
            rows: list[Operation] = []
            for length, count in sorted(self._lengths(node.args[5]).items()):
                rows += make(f"{name}.{length}", batch=batch * count, q_len=length, kv_len=length, **common)
            return rows
        if plan is not None and causal and q_len == kv_len:
            elements = batch * kv_heads * (qk_dim + value.shape[3])
            self.cached.append(CachedLayers(self.collector.times, elements, window, chunk))
            if steps:
                parts = plan.parts(window, chunk)
                rows = []
                for index, (keys, count) in enumerate(parts):
                    title = f"{name}.part{index}" if len(parts) > 1 else name
                    rows += make(
                        title, batch=batch, q_len=1, kv_len=keys, repeat=count, cached=True, kv_bits=plan.bits, **{**common, "window": 0}
                    )
                return rows
        if chunk and chunk < kv_len == q_len and self.collector.fused_attention:
            whole, rest = divmod(kv_len, chunk)
            rows = make(name, batch=batch * whole, q_len=chunk, kv_len=chunk, **common)
            return rows + (make(f"{name}.rest", batch=batch, q_len=rest, kv_len=rest, **common) if rest else [])
        return make(name, batch=batch, q_len=q_len, kv_len=kv_len, repeat=max(1, steps), **common)

    def _lengths(self, node: Any) -> Counter[int]:
        """Lengths of packed sequences from their stored boundaries, and how often each occurs."""
        while node.name not in self._tensors:
            (node,) = node.all_input_nodes  # a conversion of it
        ends = [int(item) for item in self._tensors[node.name].reshape(-1).tolist()]
        return Counter(b - a for a, b in itertools.pairwise(ends) if b > a)

    def _note_writers(self, node: Any) -> None:
        """Which products make the keys and values of an attention, and how many of their columns."""
        for argument in node.args[1:3]:
            shape = self._shape(argument.meta.get("val"))
            for product in torch_nodes.products_behind(argument):
                self._writers[product] = self._writers.get(product, 0) + shape[1] * shape[3]

    def _writing(self, rows: list[Operation], columns: int) -> list[Operation]:
        """The rows of a product whose last ``columns`` columns go to the cache."""
        assert self.decoding is not None
        cache: dict[str, Any] = {"writes_cache": True, "output_bits": self.decoding.bits}
        row = rows[0]
        if len(rows) > 1 or row.n <= columns:
            return [replace(item, **cache) for item in rows]
        return [replace(row, n=row.n - columns), replace(row, name=f"{row.name}.cached", n=columns, **cache)]

    def _convolution(self, node: Any, name: str) -> list[Operation]:
        first, weight = self._value(node.args[0]), self._value(node.args[1])
        output = self._value(node)
        groups = torch_nodes.argument_of(node, "groups")
        spatial = len(weight.shape) - 2
        batched = len(first.shape) == spatial + 2
        batch = first.shape[0] if batched else 1
        taps = math.prod(weight.shape[2:])
        window = {"filter_taps": 1}
        if torch_nodes.transposed(node):
            m, n, k = math.prod(first.shape[-spatial:]), weight.shape[1] * taps, weight.shape[0] // groups
        else:
            m, n, k = math.prod(output.shape[-spatial:]), weight.shape[0] // groups, weight.shape[1] * taps
            strides, dilations = (torch_nodes.per_axis(torch_nodes.given(node, name), spatial) for name in ("stride", "dilation"))
            window = filter_fields(first.shape[-spatial:], weight.shape[2:], strides, dilations)
        if 0 in (m, n, k, batch):
            return []
        row = self.collector.product(
            name, m, n, k, first, weight, batch=batch, groups=groups, kind=Kind.CONV, input_elements=first.elements, **window
        )
        return [row]

    def _grouped(self, node: Any, name: str) -> list[Operation]:
        first, weight = self._value(node.args[0]), self._value(node.args[1])
        experts, k, n = weight.shape[0], first.shape[-1], weight.shape[-1]
        return self.collector.experts(name, first.shape[0], experts, min(self.top_k, experts), n, k, first, weight)


def _norm_of(node: Any) -> str:
    """The vocabulary's name of a norm; a batch norm without running statistics makes those of its batch, as a layer norm does."""
    function = NORMS[torch_nodes.name_of(node.target).removesuffix("_")]
    with_own = function == "batchnorm" and torch_nodes.given(node, "running_mean") is None
    return "layernorm" if with_own else function


_Handler = Callable[[GraphWalk, Any, str], "list[Operation] | None"]
_PRODUCTS: dict[str, _Handler] = {
    "linear": GraphWalk._linear,
    "addmm": GraphWalk._addmm,
    "baddbmm": GraphWalk._addmm,
    "mm": GraphWalk._matmul,
    "bmm": GraphWalk._matmul,
    "mv": GraphWalk._matmul,
    "dot": GraphWalk._matmul,
    "matmul": GraphWalk._matmul,
    "einsum": GraphWalk._einsum,
    "attention": GraphWalk._recorded,
    "scaled_dot_product_attention": GraphWalk._attention,
    "_scaled_dot_product_flash_attention_for_cpu": GraphWalk._attention,
    "_scaled_dot_product_efficient_attention": GraphWalk._attention,
    **dict.fromkeys(CONVOLUTIONS, GraphWalk._convolution),
    "_grouped_mm": GraphWalk._grouped,
    "grouped_mm": GraphWalk._grouped,
    "grouped_mm_fallback": GraphWalk._grouped,
}
