"""Attention that a graph writes as product, softmax and product: one operation, where fused attention is asked for.

Between the two products the scores may be scaled, masked, capped and quantised; what makes or reads them elsewhere keeps them
apart. A mask that is a tensor of the graph hides nothing: its values are not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from workloads.ops import Kind, Operation, Parallel

Storage = tuple[int, int]
"""A tensor's storage and its elements."""


class Step(Protocol):
    """A node in execution order, as the collector records it (a dataclass)."""

    rows: list[tuple[Operation, tuple[str, ...]]]
    reads: tuple[Storage, ...]
    writes: tuple[Storage, ...]
    times: int
    left_out: tuple[str, str] | None
    shared: int


S = TypeVar("S", bound=Step)
_BETWEEN = (Kind.ELEMENTWISE, Kind.ACTIVATION, Kind.SOFTMAX)


def fuse_attention(events: Sequence[S]) -> list[S]:
    """Return the events with every attention that is written out as one event; the others as they are."""
    readers: dict[int, list[int]] = {}
    writers: Counter[int] = Counter()
    for at, event in enumerate(events):
        for root in {root for root, _ in event.reads}:
            readers.setdefault(root, []).append(at)
        writers.update({root for root, _ in event.writes})
    gone: set[int] = set()
    fused: dict[int, S] = {}
    for at, event in enumerate(events):
        chain = _chain(events, readers, writers, at) if at not in gone and _product(event) is not None else []
        if chain:
            gone.update(chain)
            fused[chain[-1]] = _one(event, [events[index] for index in chain])
    return [fused.get(at, event) for at, event in enumerate(events) if at in fused or at not in gone]


def _product(event: Step) -> Operation | None:
    """The row of a product of two activations, if the event is one."""
    if event.left_out is not None or len(event.rows) != 1:
        return None
    row = event.rows[0][0]
    return row if row.kind is Kind.GEMM and not row.second_is_weight and row.groups == 1 and len(event.reads) >= 2 else None


def _chain(events: Sequence[Step], readers: dict[int, list[int]], writers: Counter[int], start: int) -> list[int]:
    """Indices from the scores' product to the context's, or none."""
    scores = events[start]
    size, times = scores.writes[0][1], scores.times
    chain, normed = [start], False
    while len(chain) < 16:
        (root, elements), *rest = events[chain[-1]].writes or ((0, 0),)
        following = [at for at in readers.get(root, []) if at > chain[-1]]
        if rest or elements != size or writers[root] != 1 or len(following) != 1:
            return []
        at = following[0]
        event = events[at]
        if event.times != times or event.left_out is not None:
            return []
        row = _product(event)
        if row is not None:
            first = scores.rows[0][0]
            fits = (row.batch, row.m, row.k) == (first.batch, first.m, first.n) and event.reads[0][0] == root
            return [*chain, at] if normed and fits else []
        if not event.rows or any(item.kind not in _BETWEEN for item, _ in event.rows):
            return []
        normed = normed or any(item.kind is Kind.SOFTMAX for item, _ in event.rows)
        chain.append(at)
    return []


def _one(scores: S, chain: Sequence[S]) -> S:
    """The event that stands for a chain."""
    first, last = scores.rows[0][0], chain[-1].rows[0][0]
    share = scores.shared if first.m % scores.shared == 0 else 1
    row = Operation(
        f"{first.name}.attention", Kind.ATTENTION_PREFILL, first.m // share, first.n, first.k, batch=first.batch * share,
        repeat=first.repeat, component="attention", function="softmax", input_bits=first.input_bits, weight_bits=first.weight_bits,
        output_bits=last.output_bits, v_dim=last.n, kv_share=share, parallel=Parallel.COLUMN,
    )  # fmt: skip
    names = tuple(dict.fromkeys(name for event in chain for _, mine in event.rows for name in mine))
    inside = {root for event in chain[:-1] for root, _ in event.writes}
    reads = tuple(dict.fromkeys(item for event in chain for item in event.reads if item[0] not in inside))
    return replace(chain[-1], rows=[(row, names)], reads=reads)  # type: ignore[type-var]
