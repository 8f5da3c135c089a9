"""Operations that a file writes out as several nodes, as the one operation that they are.

* A batch norm with constant statistics behind a product of a weight, which is linear: exporters fold it into the weight, and so do engines.
* A bias: an addition of one parameter a column behind a product of a weight (engines add it where the sums are drained).
* GELU by erf or by tanh, SiLU and quick GELU: everything between the tensor that is activated and the product with it, where nothing else
  reads what lies between and no other tensor enters.
* Layer norm and RMS norm: mean, deviation, square, mean, epsilon, root, quotient, and the scale and shift behind them.

What another node reads in between, or what runs another number of times, stays as it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from workloads.importers.fusing import S
from workloads.ops import Kind, Operation

_GATED = {"erf": "gelu", "tanh": "gelu_tanh", "sigmoid": "silu"}
_SIMPLE = ("add", "sub", "mul", "div", "scale")
# Nodes of the longest activation (GELU by tanh with its cube as two products) and a few more.
_MOST = 14
# A gate by tanh is a GELU only with its cubic inside: at least product, sum and scale before the tanh, sum and product behind it.
_LEAST_OF_TANH = 6


def fuse_patterns(events: Sequence[S], sizes: Mapping[str, int]) -> tuple[list[S], Counter[str]]:
    """Return the events with what is written out as one event each, and how many of each kind were found.

    Args:
        sizes: elements of each parameter of the model.
    """
    return _fused(events, sizes, (_folded_norm, _bias, _activation, _norm))


def fold_batch_norms(events: Sequence[S], sizes: Mapping[str, int]) -> tuple[list[S], Counter[str]]:
    """As `fuse_patterns`, of batch norms behind products alone (a graph whose modules say what else is one operation)."""
    return _fused(events, sizes, (_folded_norm,))


def _fused(events: Sequence[S], sizes: Mapping[str, int], finders: Sequence[_Finder]) -> tuple[list[S], Counter[str]]:
    found: Counter[str] = Counter()
    for finder in finders:
        graph = _Graph(events, sizes)
        for at in range(len(events)):
            made = finder(graph, at)
            if made is not None:
                graph.put(*made)
                found[made[2]] += made[1].times
        events = graph.events()
    return list(events), found


@dataclass
class _Graph:
    """Events (the collector's, see :class:`workloads.importers.fusing.Step`), and who reads and writes each storage."""

    steps: Sequence[Any]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        self.readers: dict[int, list[int]] = {}
        writers: dict[int, list[int]] = {}
        for at, step in enumerate(self.steps):
            for root in {root for root, _ in step.reads}:
                self.readers.setdefault(root, []).append(at)
            for root in {root for root, _ in step.writes}:
                writers.setdefault(root, []).append(at)
        self.writer = {root: places[0] for root, places in writers.items() if len(places) == 1}
        self.gone: set[int] = set()
        self.made: dict[int, Any] = {}

    def put(self, members: Iterable[int], step: Any, _: str) -> None:
        """One event in place of members, where the last of them stood."""
        self.gone.update(members)
        self.made[max(members)] = step

    def events(self) -> list[Any]:
        """All events in order."""
        return [self.made.get(at, step) for at, step in enumerate(self.steps) if at in self.made or at not in self.gone]

    def row(self, at: int | None, functions: Iterable[str] | None = None, kind: Kind = Kind.ELEMENTWISE) -> Operation | None:
        """The one row of an event that is still there, of a kind and of one of some functions; None for any other."""
        if at is None or at in self.gone:
            return None
        step = self.steps[at]
        if step.left_out is not None or len(step.rows) != 1 or len(step.writes) != 1:
            return None
        row = step.rows[0][0]
        return row if row.kind is kind and (functions is None or row.function in functions) else None

    def out(self, at: int) -> int:
        """The storage that an event writes."""
        return int(self.steps[at].writes[0][0])

    def made_by(self, root: int) -> int | None:
        """The one event that writes a storage."""
        return self.writer.get(root)

    def only_reader(self, root: int) -> int | None:
        """The one event that reads a storage."""
        found = self.readers.get(root, [])
        return found[0] if len(found) == 1 else None

    def held(self, at: int) -> int:
        """Elements of the parameters that an event reads."""
        return sum(self.sizes.get(name, 0) for name in self.steps[at].rows[0][1])


_Made = tuple[set[int], Any, str]
_Finder = Callable[[_Graph, int], "_Made | None"]


def _product_before(graph: _Graph, at: int) -> tuple[int, Operation] | None:
    """The event and the row of the product with weights whose result the event ``at`` alone reads, all of it, as often, into as much."""
    step = graph.steps[at]
    if len(step.reads) != 1:
        return None
    root, elements = step.reads[0]
    before = graph.made_by(root)
    product = graph.row(before, kind=Kind.CONV) or graph.row(before, kind=Kind.GEMM)
    if before is None or product is None or not product.second_is_weight or graph.only_reader(root) != at:
        return None
    first = graph.steps[before]
    alike = first.times == step.times and elements == first.writes[0][1] == step.writes[0][1]
    return (before, product) if alike else None


def _folded_norm(graph: _Graph, at: int) -> _Made | None:
    """The product and the batch norm at ``at`` of its result, which nothing else reads."""
    if graph.row(at, ("batchnorm",), Kind.NORM) is None or (found := _product_before(graph, at)) is None:
        return None
    before, product = found
    first, step = graph.steps[before], graph.steps[at]
    names = tuple(dict.fromkeys((*first.rows[0][1], *step.rows[0][1])))
    return {before, at}, replace(first, rows=[(product, names)], writes=step.writes), "batch norm"


def _bias(graph: _Graph, at: int) -> _Made | None:
    """The product and the addition at ``at`` of a parameter to each of its columns."""
    if graph.row(at, ("add",)) is None or (found := _product_before(graph, at)) is None:
        return None
    before, product = found
    first, step = graph.steps[before], graph.steps[at]
    if graph.held(at) != int(product.n * product.groups):
        return None
    adding, names = step.rows[0]
    titled = replace(product, name=adding.name, component=adding.component) if not _has_path(first.rows[0][1]) else product
    return {before, at}, replace(first, rows=[(titled, (*first.rows[0][1], *names))], writes=step.writes), "bias"


def _has_path(names: Iterable[str]) -> bool:
    """Whether the names of parameters say where in the model a product stands."""
    return any("." in name and not name.startswith("onnx::") for name in names)


def _activation(graph: _Graph, at: int) -> _Made | None:
    """The closed group of nodes around the erf, tanh or sigmoid at ``at`` that makes one tensor of one other, element by element."""
    core = graph.row(at, _GATED, Kind.ACTIVATION)
    if core is None:
        return None
    size, times = graph.steps[at].writes[0][1], graph.steps[at].times

    def plain(place: int | None) -> bool:
        if place is None or graph.row(place, _SIMPLE) is None:
            return False
        step = graph.steps[place]
        whole = all(elements == size for _, elements in (*step.reads, *step.writes))
        return whole and step.times == times and graph.held(place) <= 1

    group, end, gated = {at}, at, False
    while len(group) < _MOST:
        inside = {graph.out(place) for place in group}
        entering = {root for place in group for root, _ in graph.steps[place].reads} - inside
        if gated and len(entering) == 1:
            break
        pulled = [graph.made_by(root) for root in entering if set(graph.readers[root]) <= group]
        more = {place for place in pulled if place is not None and plain(place)}
        if more:
            group |= more
            continue
        following = graph.only_reader(graph.out(end))
        if gated or following is None or not plain(following):
            return None
        group.add(following)
        end = following
        row = graph.row(end)
        gated = row is not None and row.function == "mul" and len(graph.steps[end].reads) == 2
    else:
        return None
    if core.function == "tanh" and len(group) < _LEAST_OF_TANH:
        return None
    inner = len(group)
    following = graph.only_reader(graph.out(end))
    if following is not None and plain(following) and len(graph.steps[following].reads) == 1 and core.function != "sigmoid":
        row = graph.row(following, ("mul", "div"))
        if row is not None:  # the half of a GELU, where it stands last
            group.add(following)
            end = following
    function = "quick_gelu" if core.function == "sigmoid" and inner > 2 else _GATED[core.function]
    source = next(iter(entering))
    row = replace(core, name=_within(core.name, function), function=function, operands=1)
    step = replace(graph.steps[end], rows=[(row, ())], reads=((source, size),))
    return group, step, function


def _norm(graph: _Graph, at: int) -> _Made | None:
    """Layer norm or RMS norm around the root at ``at``."""
    root_row = graph.row(at, ("sqrt",))
    if root_row is None:
        return None
    times, lines = graph.steps[at].times, graph.steps[at].writes[0][1]

    def before(place: int | None, functions: Sequence[str]) -> int | None:
        """The one maker of the only tensor that an event reads, nothing else reading it."""
        if place is None or len(graph.steps[place].reads) != 1:
            return None
        root = graph.steps[place].reads[0][0]
        found = graph.made_by(root)
        return found if graph.row(found, functions) is not None and graph.only_reader(root) == place else None

    epsilon = before(at, ("add",))
    mean = before(epsilon, ("mean",))
    square = before(mean, ("mul",))
    if epsilon is None or mean is None or square is None:
        return None
    squared = {root for root, _ in graph.steps[square].reads}
    size = graph.steps[square].writes[0][1]
    if len(squared) != 1 or graph.steps[epsilon].writes[0][1] != lines or size <= lines:
        return None
    (deviation,) = squared
    group = {at, epsilon, mean, square}
    inverse = graph.only_reader(graph.out(at))
    end = inverse
    if inverse is not None and graph.steps[inverse].writes[0][1] == lines and graph.row(inverse, ("div",)) is not None:
        group.add(inverse)
        end = graph.only_reader(graph.out(inverse))
    scaled = graph.row(end, ("div", "mul"))
    denominator = graph.out(inverse if inverse is not None and inverse in group else at)
    if end is None or scaled is None or {root for root, _ in graph.steps[end].reads} != {deviation, denominator}:
        return None
    group.add(end)
    source, function = deviation, "rmsnorm"
    centred = graph.made_by(deviation)
    if graph.row(centred, ("sub",)) is not None and centred is not None and set(graph.readers[deviation]) <= group:
        entering = [root for root, _ in graph.steps[centred].reads]
        means = [place for root in entering if (place := graph.made_by(root)) is not None and graph.row(place, ("mean",)) is not None]
        others = [root for root in entering if root not in {graph.out(place) for place in means}]
        if len(means) == 1 and len(others) == 1 and {root for root, _ in graph.steps[means[0]].reads} == set(others):
            if graph.only_reader(graph.out(means[0])) != centred:
                return None
            group |= {centred, means[0]}
            source, function = others[0], "layernorm"
    names: tuple[str, ...] = ()
    title = _within(root_row.name, function)
    width = size // lines
    for wanted in ("mul", "add"):
        following = graph.only_reader(graph.out(end))
        if following is None or graph.row(following, (wanted,)) is None:
            break
        step = graph.steps[following]
        if len(step.reads) != 1 or graph.held(following) != width or step.writes[0][1] != size:
            break
        names, title, end = (*names, *step.rows[0][1]), step.rows[0][0].name, following
        group.add(following)
    if any(graph.steps[place].times != times for place in group):
        return None
    row = replace(scaled, name=title, kind=Kind.NORM, function=function, m=lines, n=width, operands=1, component="norm")
    step = replace(graph.steps[end], rows=[(row, names)], reads=((source, size),))
    return group, step, function


def _within(name: str, function: str) -> str:
    """The path of a row with the function in place of its own last word."""
    path, dot, _ = name.rpartition(".")
    return f"{path}{dot}{function}"
