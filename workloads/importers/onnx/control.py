"""ONNX operators that hold graphs: If, Loop and Scan, each walked as often as it takes to know what one run of the graph costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from workloads.errors import shorten
from workloads.importers.collector import Collector, Event, Value
from workloads.importers.onnx.info import Info, axis_of
from workloads.importers.onnx.rows import Entry
from workloads.importers.onnx.wire import Graph, Node, NodeError

# Nodes that a loop may walk trip by trip; a longer one is walked twice and must do the same in both.
MAX_UNROLLED = 20_000
# More trips than any model makes on purpose: "as long as the condition holds".
ENDLESS = 2**31
BOOL, INT64 = 9, 7

Scope = dict[str, Entry]
Entries = Sequence["Entry | None"]


class Walker(Protocol):
    """What these operators need of the walk over a graph."""

    collector: Collector
    steps: int

    def walk(self, graph: Graph, scope: Scope, depth: int) -> None:
        """Walk the nodes of a graph."""

    def new_root(self) -> int:
        """The identity of a new storage."""

    def leave_out(self, node: Node, reason: str, entries: Entries, scope: Scope, known: Mapping[str, Info]) -> None:
        """Note a node that gets no row; its results are what the file says of them."""


@dataclass
class _Run:
    """Where an operator stands: its node, its inputs, and the scope around it."""

    walker: Walker
    node: Node
    entries: Entries
    scope: Scope
    known: Mapping[str, Info]
    depth: int

    @property
    def title(self) -> str:
        """The node by name, for sentences."""
        return f"{self.node.op_type} {shorten(self.node.name or ', '.join(self.node.outputs))!r}"

    def leave_out(self, reason: str) -> None:
        """Count the operator as left out."""
        self.walker.leave_out(self.node, reason, self.entries, self.scope, self.known)

    def graph(self, attribute: str) -> Graph:
        """The graph that an attribute holds."""
        value = self.node.attributes.get(attribute)
        if not isinstance(value, Graph):
            raise NodeError(f"attribute {attribute!r} holds no graph")
        return value

    def inside(self, body: Graph, inputs: Sequence[Entry]) -> list[Entry]:
        """Walk a body on these inputs; its outputs."""
        if len(inputs) > len(body.inputs):
            raise NodeError(f"the body takes {len(body.inputs)} inputs, got {len(inputs)}")
        inner = dict(self.scope)
        inner.update((info.name, entry) for info, entry in zip(body.inputs, inputs, strict=False))
        self.walker.walk(body, inner, self.depth + 1)
        missing = [info.name for info in body.outputs if info.name not in inner]
        if missing:
            raise NodeError(f"the body does not make its output {shorten(missing[0])!r}")
        return [inner[info.name] for info in body.outputs]

    def give(self, outputs: Sequence[Entry]) -> None:
        """Bind the outputs of the node."""
        if len(outputs) < sum(1 for name in self.node.outputs if name):
            raise NodeError(f"it has {len(self.node.outputs)} outputs, its graph makes {len(outputs)}")
        self.scope.update((name, entry) for name, entry in zip(self.node.outputs, outputs, strict=False) if name)

    def stack(self, entry: Entry, trips: int, axis: int = 0) -> Entry:
        """A result of one trip, put together over all trips along an axis."""
        shape = entry.info.shape
        if shape is not None:
            place = axis_of(axis, len(shape) + 1)
            shape = (*shape[:place], trips, *shape[place:])
        return Entry(Info(shape, entry.info.data_type), Value(shape or (), self.walker.new_root()))


def walk_control(walker: Walker, node: Node, entries: Entries, scope: Scope, known: Mapping[str, Info], depth: int) -> None:
    """Walk an If, a Loop or a Scan."""
    run = _Run(walker, node, entries, scope, known, depth)
    {"If": _choice, "Loop": _loop, "Scan": _scan}[node.op_type](run)


def _choice(run: _Run) -> None:
    """The branch that a known condition takes; where it is decided at run time, both are walked and the dearer one counts."""
    first = run.entries[0] if run.entries else None
    condition = first.info.value if first is not None else None
    if condition is not None and condition.size:
        run.give(run.inside(run.graph("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"), ()))
        return
    collector = run.walker.collector
    start = collector.mark()
    walked = []
    for branch in ("then_branch", "else_branch"):
        outputs = run.inside(run.graph(branch), ())
        events = collector.cut(start)
        cost = sum(event.macs() for event in events), sum(event.elements() for event in events)
        walked.append((cost, branch, events, outputs))
    _, branch, events, outputs = max(walked, key=lambda item: item[0])
    collector.put(events)
    run.give(outputs)
    if walked[0][0] != walked[1][0]:
        collector.assumptions[f"{run.title} is decided at run time: its dearer branch, {branch}, is counted"] = None


def _loop(run: _Run) -> None:
    """A Loop of a known number of trips: walked trip by trip, or, where two trips do the same, once and multiplied."""
    body = run.graph("body")
    listed, wanted = _known(run, 0), _known(run, 1)
    if wanted == 0 or (listed is not None and listed <= 0):
        _no_trip(run, body)
        return
    trips = ENDLESS if listed is None else min(listed, ENDLESS)
    carried = [_opened(run, entry) for entry in run.entries[2:]]
    scans = len(body.outputs) - 1 - len(carried)
    if scans < 0:
        raise NodeError(f"its body has {len(body.outputs)} outputs, needs at least {1 + len(carried)}")
    trip, before = 0, None
    results: list[Entry] = []
    at_most = False
    collector, start, first_step = run.walker.collector, run.walker.collector.mark(), run.walker.steps
    while trip < trips:
        here = collector.mark()
        number = Entry(Info((), INT64, np.array(trip)), Value((), run.walker.new_root(), True))
        going = Entry(Info((), BOOL, np.array(True)), Value((), run.walker.new_root(), True))
        results = run.inside(body, [number, going, *carried])
        trip += 1
        value = results[0].info.value
        more = bool(value.reshape(-1)[0]) if value is not None and value.size else None
        at_most = at_most or more is None
        each = max(1, (run.walker.steps - first_step) // trip)
        if trips >= ENDLESS and (more is None or each * trip > MAX_UNROLLED):
            collector.cut(start)
            run.leave_out("its number of trips depends on data")
            return
        following = results[1 : 1 + len(carried)]
        same_shapes = [entry.info.shape for entry in following] == [entry.info.shape for entry in carried]
        carried = [_opened(run, entry) for entry in following]
        if more is False:
            break
        if trips < ENDLESS and each * trips > MAX_UNROLLED and trip > 1:
            events = collector.cut(here)
            if not (same_shapes and before is not None and len(events) == len(before) and all(map(Event.same_as, before, events))):
                collector.cut(start)
                run.leave_out(f"its {trips} trips differ, which is more than are walked one by one")
                return
            collector.put(events, trips - trip + 1)
            trip = trips
            break
        before = collector.since(here)
    if at_most:
        collector.assumptions[f"{run.title} may end early: its {trip} trips at most are counted"] = None
    run.give([*carried, *(run.stack(entry, trip) for entry in results[1 + len(carried) :])])


def _no_trip(run: _Run, body: Graph) -> None:
    carried = [_opened(run, entry) for entry in run.entries[2:]]
    empty = [
        Entry(Info((0, *(size if isinstance(size, int) and size > 0 else 0 for size in info.dims or [])), info.data_type), Value((0,), 0))
        for info in body.outputs[1 + len(carried) :]
    ]
    run.give([*carried, *empty])


def _opened(run: _Run, entry: Entry | None) -> Entry:
    """A loop-carried value as a trip sees it: of known shape; its value stays known where it is small."""
    if entry is None:
        raise NodeError("a loop-carried input is missing")
    return Entry(entry.info, Value(entry.value.shape, entry.value.root, False, (), entry.value.bits))


def _known(run: _Run, index: int) -> int | None:
    """The value of a scalar input, or None if it is not there or not known."""
    entry = run.entries[index] if index < len(run.entries) else None
    value = entry.info.value if entry is not None else None
    return int(value.reshape(-1)[0]) if value is not None and value.size else None


def _scan(run: _Run) -> None:
    """A Scan: its body runs once for every slice of its scanned inputs, always on the same shapes."""
    body, scanned = run.graph("body"), int(run.node.attributes.get("num_scan_inputs", 0))
    old = len(body.inputs) == len(run.entries) - 1  # opset 8: sequence lengths first, and a batch axis on all
    entries = list(run.entries[1:] if old else run.entries)
    states, slices = entries[: len(entries) - scanned], entries[len(entries) - scanned :]
    if not 1 <= scanned <= len(entries):
        raise NodeError(f"num_scan_inputs is {scanned}, must be from 1 to {len(entries)}")
    axes = [int(item) for item in run.node.attributes.get("scan_input_axes") or [0] * scanned]
    slices_seen: int | None = None
    batch = 1
    inside: list[Entry] = []
    for entry in states:
        opened = _opened(run, entry)
        shape = opened.info.known()
        if old:
            batch, shape = shape[0], shape[1:]
        inside.append(Entry(Info(shape, opened.info.data_type), Value(shape, opened.value.root)))
    for entry, axis in zip(slices, axes, strict=True):
        if entry is None:
            raise NodeError("a scanned input is missing")
        shape = entry.info.known()
        if old:
            batch, shape = shape[0], shape[1:]
        place = axis_of(axis, len(shape))
        if not shape or slices_seen not in (None, shape[place]):
            raise NodeError(f"its scanned inputs have {slices_seen} and {shape[place] if shape else 0} slices, must have the same number")
        slices_seen = shape[place]
        part = (*shape[:place], *shape[place + 1 :])
        inside.append(Entry(Info(part, entry.info.data_type), Value(part, entry.value.root)))
    trips = slices_seen or 0
    collector = run.walker.collector
    start = collector.mark()
    results = run.inside(body, inside)
    events = collector.cut(start)
    times = trips * batch
    if times:
        collector.put(events, times)
    out_axes = [int(item) for item in run.node.attributes.get("scan_output_axes") or [0] * (len(results) - len(states))]
    stacked = [run.stack(entry, trips, axis) for entry, axis in zip(results[len(states) :], out_axes, strict=True)]
    finals = results[: len(states)]
    if old:
        finals, stacked = [run.stack(entry, batch) for entry in finals], [run.stack(entry, batch) for entry in stacked]
    run.give([*finals, *stacked])
