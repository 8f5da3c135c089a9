"""What the graph importers share: rows from graph nodes, parameters attached once, liveness, merging of equal layers."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workloads.blocks import Bits, attention_core
from workloads.errors import shorten
from workloads.functions import canonical, is_vector_kind
from workloads.importers.einsum import contractions
from workloads.importers.fusing import fuse_attention
from workloads.importers.loops import loops
from workloads.importers.patterns import fold_batch_norms, fuse_patterns
from workloads.moe import expert_loads
from workloads.ops import ATTENTION, Kind, Operation, OperationTable
from workloads.records import LeftOut

_COMPONENTS = (
    ("embedding", re.compile(r"embed|patch|wte|wpe|position", re.I)),
    ("norm", re.compile(r"(^|[._/])(.*norm_?\d*|ln_?\w*|.*layer_?norm.*)$", re.I)),
    ("head", re.compile(r"head|classifier|pooler|score|logit|projection$", re.I)),
    ("attention", re.compile(r"attn|attention|scores|qkv|[qkv]_proj|o_proj|in_proj|out_proj|softmax", re.I)),
    (
        "ffn",
        re.compile(
            r"mlp|ffn|feed_?forward|intermediate|output|fc\d|linear\d|up_proj|down_proj|dense|expert|moe|router|gate|gelu|silu", re.I
        ),
    ),
)
_COUNTED = (Kind.GEMM, Kind.CONV, Kind.SCAN, *ATTENTION)


@dataclass
class Value:
    """A tensor of the graph.

    Attributes:
        shape: its sizes; root: identity of its storage (a view shares that of its base).
        constant: depends on no input of the request; parameters: names of the parameters it is made from.
        bits: precision where the graph quantises it, else 0.
        shared: how many entries of its batch axes are copies of one (KV heads that are expanded to the query heads).
    """

    shape: tuple[int, ...]
    root: int
    constant: bool = False
    parameters: tuple[str, ...] = ()
    bits: int = 0
    shared: int = 1

    @property
    def elements(self) -> int:
        """The number of elements."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass
class Event:
    """A node in execution order: rows it adds, storages it reads and writes, what of it was left out and why.

    ``shared``: how many entries of a product's batch were stacked, since they multiply the same matrix.
    """

    rows: list[tuple[Operation, tuple[str, ...]]]
    reads: tuple[tuple[int, int], ...]
    writes: tuple[tuple[int, int], ...]
    times: int
    left_out: tuple[str, str] | None = None
    shared: int = 1

    def same_as(self, other: Event) -> bool:
        """Whether both add the same rows."""
        mine, others = ([(_signature(row), names) for row, names in event.rows] for event in (self, other))
        return mine == others and (self.times, self.left_out) == (other.times, other.left_out)

    def macs(self) -> int:
        """Multiply-accumulates of its rows (elements of the others count nothing)."""
        return self.times * sum(
            int(row.batch * row.groups * row.m * row.n * (row.k + row.v_dim) * row.repeat) for row, _ in self.rows if row.kind in _COUNTED
        )

    def elements(self) -> int:
        """Elements that its rows make."""
        return self.times * sum(int(row.batch * row.groups * row.m * row.n * row.repeat) for row, _ in self.rows)


@dataclass(frozen=True)
class _Row:
    """A row before layers that are alike are merged: its name with numbers left open, the tensors that it owns, how often it runs."""

    row: Operation
    title: str
    tensors: Mapping[tuple[str, ...], int]
    times: int


@dataclass
class Collector:
    """Collects rows in execution order and makes the table.

    Alternatives and loops are walked, cut out and put back as often as they run.

    Attributes:
        parameters: {name: elements} of every parameter of the model.
        copies: {name: instances} where a parameter stands for several (layers that were left out of the graph).
        weight_bits, activation_bits: precision of what the graph does not quantise.
        patterns: whether operations that are written out as several nodes are found (:mod:`workloads.importers.patterns`).
    """

    parameters: Mapping[str, int]
    weight_bits: int = 8
    activation_bits: int = 8
    fused_attention: bool = False
    copies: Mapping[str, int] = field(default_factory=dict)
    patterns: bool = False
    assumptions: dict[str, None] = field(default_factory=dict)
    times: int = 1
    _events: list[Event] = field(default_factory=list)

    def add(self, rows: Iterable[tuple[Operation, Sequence[str]]], inputs: Iterable[Value], outputs: Iterable[Value]) -> None:
        """Record the rows of one node, each with the names of the parameters that it uses."""
        kept = [(row, tuple(dict.fromkeys(names))) for row, names in rows]
        inputs = list(inputs)
        reads = tuple((value.root, value.elements) for value in inputs if not value.constant)
        writes = tuple((value.root, value.elements) for value in outputs)
        shared = max((value.shared for value in inputs[1:2] if not value.constant), default=1)
        self._events.append(Event(kept, reads, writes, self.times, shared=shared))

    def mark(self) -> int:
        """A place in the record, for :meth:`cut`."""
        return len(self._events)

    def since(self, mark: int) -> list[Event]:
        """What was recorded since a mark."""
        return self._events[mark:]

    def cut(self, mark: int) -> list[Event]:
        """Take out what was recorded since a mark."""
        events = self._events[mark:]
        del self._events[mark:]
        return events

    def put(self, events: Iterable[Event], times: int = 1) -> None:
        """Record events that were cut, ``times`` as often."""
        self._events += [replace(event, times=event.times * times) for event in events]

    def leave_out(self, operation: str, reason: str) -> None:
        """Note an operation that gets no row, with the reason."""
        self._events.append(Event([], (), (), self.times, (shorten(operation), reason)))

    def left_out(self) -> tuple[LeftOut, ...]:
        """What got no row, in the order of the names."""
        counts: Counter[tuple[str, str]] = Counter()
        for event in self._events:
            if event.left_out is not None:
                counts[event.left_out] += event.times
        return tuple(LeftOut(operation, count, reason) for (operation, reason), count in sorted(counts.items()))

    def used(self) -> frozenset[str]:
        """Names of the parameters that an operation reads."""
        return frozenset(name for event in self._events for _, names in event.rows for name in names)

    def table(self, *, unused: bool = True) -> OperationTable:
        """Return the table: parameters counted once, activations that wait held, layers that repeat one another as a loop.

        ``unused``: whether the parameters that no operation reads get a row that never runs.
        """
        self._events, found = (fuse_patterns if self.patterns else fold_batch_norms)(self._events, self.parameters)
        if folded := found.pop("batch norm", 0):
            self.assumptions[f"folded into the product before it, as an engine does: {folded:,} batch norm"] = None
        if found:
            listed = ", ".join(f"{count:,} {name}" for name, count in sorted(found.items()))
            self.assumptions[f"written out as several nodes and counted as one operation each: {listed}"] = None
        if self.fused_attention:
            self._events = fuse_attention(self._events)
        self._name_functions()
        rows = self._attached(self._with_liveness(), unused)
        return OperationTable.from_rows(rows)

    def _name_functions(self) -> None:
        """Give a function whose name says no component that of the operation that makes what it reads."""
        made: dict[int, str] = {}
        for event in self._events:
            if len(event.rows) == 1 and event.rows[0][0].kind is Kind.ACTIVATION and event.rows[0][0].component == "other" and event.reads:
                row, names = event.rows[0]
                event.rows = [(replace(row, component=made.get(event.reads[0][0], "other")), names)]
            if event.rows:
                made.update((root, event.rows[-1][0].component) for root, _ in event.writes)

    def _with_liveness(self) -> list[tuple[Operation, tuple[str, ...], int, int]]:
        last: dict[int, int] = {}
        for at, event in enumerate(self._events):
            for root, _ in (*event.reads, *event.writes):
                last[root] = at
        ends: dict[int, list[int]] = {}
        for root, at in last.items():
            ends.setdefault(at, []).append(root)
        live: dict[int, int] = {}
        total = 0
        result = []
        for at, event in enumerate(self._events):
            own = {root for root, _ in (*event.reads, *event.writes)}
            waiting = total - sum(live.get(root, 0) for root in own)
            for row, names in event.rows:
                result.append((replace(row, held_elements=waiting + int(row.held_elements)), names, event.times, at))
            for root, size in event.writes:
                total += max(0, size - live.get(root, 0))
                live[root] = max(size, live.get(root, 0))
            for root in ends.get(at, ()):
                total -= live.pop(root, 0)
        return result

    def _attached(self, rows: list[tuple[Operation, tuple[str, ...], int, int]], unused: bool) -> list[Operation]:
        """Give each parameter to the first row (or set of rows with the same parameters) that uses it."""
        owner: dict[str, tuple[str, ...]] = {}
        users = Counter(name for name, _ in {(name, at) for _, names, _, at in rows for name in names})
        members: list[_Row] = []
        keys: list[Any] = []
        for row, names, times, _ in rows:
            mine = tuple(name for name in names if owner.setdefault(name, names) == names)
            shared = any(users[name] > 1 for name in mine)
            amount = sum(self.parameters[name] for name in mine)
            if row.kind is Kind.GEMM and row.copies:  # experts: parameters of one instance
                amount //= int(row.copies)
            # Rows of different layers merge, unless their weights are used elsewhere too.
            title = row.name if shared else _general(row.name)
            identity = mine if shared else tuple(_general(name) for name in mine)
            fields = _signature(replace(row, name=title, repeat=1, held_elements=0, parameters=amount))
            keys.append((fields, identity, int(row.repeat) * times))
            tensors = {mine: max(self.copies.get(name, 1) for name in mine)} if mine else {}
            members.append(_Row(replace(row, parameters=amount), title, tensors, int(row.repeat) * times))
        result = []
        for places, runs in loops(keys, [one.row.kind in (Kind.ACTIVATION, Kind.ELEMENTWISE) for one in members]):
            alike = [members[place] for place in places]
            first = alike[0]
            # Each set of tensors that the merged rows own is one instance, whatever its tensors are called.
            tensors = {mine: copies for one in alike for mine, copies in one.tensors.items()}
            instances = sum(tensors.values()) * max(1, int(first.row.copies))
            result.append(
                replace(
                    first.row, name=first.title if len(alike) > 1 else first.row.name, repeat=first.times * runs, copies=instances,
                    held_elements=max(int(one.row.held_elements) for one in alike), weight_id=next(iter(tensors))[0] if tensors else "",
                )
            )  # fmt: skip
        rest = {name: size for name, size in self.parameters.items() if name not in owner}
        if (rest and unused) or not result:
            result.append(self.unused(rest if unused else {}))
        return result

    def unused(self, rest: Mapping[str, int]) -> Operation:
        """A row that never runs, for the parameters that no operation reads (and for a graph without any operation)."""
        total = sum(size * self.copies.get(name, 1) for name, size in rest.items())
        return Operation(
            "unused_parameters", Kind.ELEMENTWISE, 1, 1, repeat=0, copies=1, parameters=total, component="other",
            function="scale", weight_id="unused parameters", input_bits=self.activation_bits, weight_bits=self.weight_bits,
            output_bits=self.activation_bits,
        )  # fmt: skip

    # ---- rows ----

    def product(
        self, name: str, m: int, n: int, k: int, first: Value, second: Value, *, batch: int = 1, groups: int = 1,
        kind: Kind = Kind.GEMM, repeat: int = 1, copies: int = 0, **fields: Any,
    ) -> Operation:  # fmt: skip
        """A product row; the second operand is a weight if it depends on no input. ``fields``: further ones of `Operation`."""
        component = component_of(name)
        return Operation(
            name, kind, m, n, k, batch=batch, groups=groups, repeat=repeat, second_is_weight=second.constant,
            component="convolutions" if kind is Kind.CONV and component == "other" else component,
            input_bits=first.bits or self.activation_bits,
            weight_bits=second.bits or (self.weight_bits if second.constant else self.activation_bits),
            output_bits=self.activation_bits, copies=copies, **fields,
        )  # fmt: skip

    def matrix(self, name: str, m: int, n: int, k: int, first: Value, second: Value, batch: int = 1) -> list[Operation]:
        """A product row, or none where a size is 0."""
        return [self.product(name, m, n, k, first, second, batch=batch)] if m * n * k * batch else []

    def matmul(self, name: str, first: Value, second: Value) -> list[Operation]:
        """The matrix product of two tensors with broadcasting, as numpy.matmul defines it."""
        a, b = first.shape, second.shape
        if first.constant and not second.constant and len(b) >= 2:
            # A weight on the left: the transposed product has the weight on the right.
            first, second = second, first
            a, b = (*b[:-2], b[-1], b[-2]), (*a[:-2], a[-1], a[-2]) if len(a) > 1 else a
        a = (1, *a) if len(a) == 1 else a
        b = (*b, 1) if len(b) == 1 else b
        m, k, n = a[-2], a[-1], b[-1]
        batch_b = math.prod(b[:-2])
        if batch_b == 1:
            return self.matrix(name, m * math.prod(a[:-2]), n, k, first, second)
        batch = math.prod(broadcast(a[:-2], b[:-2]))
        if second.constant and not second.parameters:
            second = Value(second.shape, second.root)
        if second.constant and batch * m * n * k:
            return [self.product(name, m, n, k, first, second, batch=batch // batch_b, groups=batch_b)]
        if second.shared > 1 and not second.constant and batch % second.shared == 0:
            # Entries that multiply the same matrix are stacked, so that it is read once.
            m, batch = m * second.shared, batch // second.shared
        return self.matrix(name, m, n, k, first, second, batch)

    def einsum(self, name: str, equation: str, operands: Sequence[Value]) -> list[Operation] | None:
        """The products of an einsum from left to right, or None where the equation does not fit."""
        made = contractions(equation, [value.shape for value in operands])
        if made is None:
            return None
        rows: list[Operation] = []
        left = operands[0]
        for index, (step, right) in enumerate(zip(made, operands[1:], strict=True)):
            first, second, m, n = left, right, step.m, step.n
            if first.constant and not second.constant:
                first, second, m, n = second, first, n, m
            title = name if len(made) == 1 else f"{name}.{index + 1}"
            if m * n * step.k * step.batch:
                # A weight has the indices of the batch too, so that each entry has weights of its own.
                batch, groups = (1, step.batch) if second.constant else (step.batch, 1)
                rows.append(self.product(title, m, n, step.k, first, second, batch=batch, groups=groups))
            left = Value(step.shape, -1, left.constant and right.constant)
        return rows

    def recurrent(
        self, name: str, cell: str, *, steps: int, batch: int, size: int, hidden: int, weight: Value, state_weight: Value, source: Value,
        projected: int = 0,
    ) -> list[Operation]:  # fmt: skip
        """One direction of a recurrent layer: one product over all steps for the inputs, one per step for the state.

        ``cell``: ``lstm``, ``gru`` or ``rnn``; ``projected``: size of an LSTM's projected state (0: none). The gates are those of
        the ONNX operators: LSTM c' = f c + i g, h = o tanh(c'); GRU h' = (1 - z) n + z h; RNN h = tanh(a).
        """
        gates = GATES[cell]
        state = projected or hidden
        if not steps * batch * size * hidden:
            return []
        inner = self.product(f"{name}.input", steps * batch, gates * hidden, size, source, weight)
        own = Value((batch, state), -1)
        rows = [inner, self.product(f"{name}.state", batch, gates * hidden, state, own, state_weight, repeat=steps, copies=1)]
        vectors: dict[str, list[tuple[str, int, int]]] = {
            "lstm": [("sigmoid", 3, 1), ("tanh", 2, 1), ("mul", 3, 2), ("add", 1, 2)],
            "gru": [("sigmoid", 2, 1), ("tanh", 1, 1), ("mul", 3, 2), ("add", 2, 2)],
            "rnn": [("tanh", 1, 1)],
        }
        for function, times, operands in vectors[cell]:
            kind = Kind.ELEMENTWISE if function in ("mul", "add") else Kind.ACTIVATION
            row = self.vector(f"{name}.{function}", kind, function, batch, times * hidden, operands=operands)
            rows.append(replace(row, repeat=steps))
        if projected:
            rows.append(self.product(f"{name}.project", batch, projected, hidden, own, state_weight, repeat=steps, copies=1))
        return rows

    def vector(self, name: str, kind: Kind, function: str, m: int, n: int, *, operands: int = 1, k: int = 0, bits: int = 0) -> Operation:
        """A vector row of ``m`` rows of ``n`` elements; what only copies them is a gather."""
        if function == "copy":
            kind, function = Kind.GATHER, "gather"
        elif is_vector_kind(kind):
            function = canonical(function)
        return Operation(
            name, kind, max(m, 1), max(n, 1), k, repeat=0 if m * n == 0 else 1, component=component_of(name),
            function=function, input_bits=bits or self.activation_bits, weight_bits=self.weight_bits,
            output_bits=self.activation_bits, operands=operands,
        )  # fmt: skip

    def elementwise(self, name: str, function: str, shape: Sequence[int], operands: int, kind: Kind = Kind.ELEMENTWISE) -> Operation:
        """A vector row over all elements of a tensor."""
        n = shape[-1] if shape else 1
        total = 1
        for size in shape:
            total *= size
        return self.vector(name, kind, function, total // n if n else 0, n, operands=max(operands, 1))

    def attention(
        self, name: str, *, batch: int, heads: int, kv_heads: int, q_len: int, kv_len: int, qk_dim: int, v_dim: int,
        causal: bool, window: int = 0, repeat: int = 1, cached: bool = False, kv_bits: int = 0, softcap: bool = False,
    ) -> list[Operation]:  # fmt: skip
        """The rows of a fused attention node: three, or one where ``fused_attention`` is set (as the built-in models).

        ``cached``: keys and values come from a cache of ``kv_bits``; ``softcap``: the scores pass through a tanh.
        """
        rows = attention_core(
            f"{name}.", batch=batch, heads=heads, kv_heads=kv_heads, q_len=q_len, kv_len=kv_len, qk_dim=qk_dim,
            v_dim=v_dim, bits=Bits(self.weight_bits, self.activation_bits, kv_bits or self.activation_bits), repeat=repeat,
            causal=causal, window=window, cached=cached, fused=self.fused_attention,
        )  # fmt: skip
        if softcap and not self.fused_attention:
            cap = self.vector(f"{name}.softcap", Kind.ACTIVATION, "tanh", batch * heads * q_len, kv_len)
            rows.insert(1, replace(cap, repeat=repeat))
        # Rows of a graph do not name what they read: equal rows of several layers become one, under a name of its own.
        return [replace(row, reads="") for row in rows]

    def experts(self, name: str, rows: int, experts: int, top_k: int, n: int, k: int, first: Value, second: Value) -> list[Operation]:
        """Products of ``rows`` = tokens x top_k vectors with ``experts`` weights at their expected load."""
        fuller, many, emptier, few = expert_loads(rows // top_k, experts, top_k)
        result = []
        for suffix, load, count in (("", fuller, many), ("_light", emptier, few)):
            if count:
                row = self.product(f"{name}{suffix}", load, n, k, first, second, repeat=count, copies=experts)
                result.append(replace(row, second_is_weight=True))
        return result


GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def words(text: str) -> frozenset[str]:
    """The set of the words of a text (long lists of operator names read better so)."""
    return frozenset(text.split())


def component_of(name: str) -> str:
    """The group of a row by its path in the model."""
    for component, pattern in _COMPONENTS:
        if pattern.search(name):
            return component
    return "other"


def broadcast(a: Iterable[int], b: Iterable[int]) -> tuple[int, ...]:
    """The shape that two shapes broadcast to."""
    left, right = tuple(a), tuple(b)
    size = max(len(left), len(right))
    left, right = (1,) * (size - len(left)) + left, (1,) * (size - len(right)) + right
    return tuple(max(x, y) for x, y in zip(left, right, strict=True))


def copies_made(source: Sequence[int], result: Sequence[int]) -> int:
    """How many copies of each matrix an expansion of ``source`` to ``result`` makes (1: none, or inside the matrices)."""
    padded = (1,) * (len(result) - len(source)) + tuple(source)
    if len(result) < 3 or padded[-2:] != tuple(result[-2:]):
        return 1
    return math.prod(new // old for new, old in zip(result, padded, strict=True) if old and new != old)


def _general(name: str) -> str:
    """The name with the numbers of layers left open."""
    return re.sub(r"(?<=[._/])\d+(?=[._/]|$)", "*", name)


def _signature(row: Operation) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in row.__dataclass_fields__)
