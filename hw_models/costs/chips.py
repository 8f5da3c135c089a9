"""Chips that share a request: what of each operation one of them does, and what they then tell each other.

Tensor parallelism as in Megatron-LM (Shoeybi et al., arXiv:1909.08053): the weights of a product are dealt over the
chips by columns or by rows, attention by heads, and `workloads.ops.Parallel` says for each operation how. The chips are
equal and work at the same time, so an operation takes as long as the largest share; then the collective behind it runs
over the links (`hw_models.costs.collectives`), not overlapped with computing. Shares are rounded up, and chips that are left
without one rest.

Routed experts may be dealt whole (`expert_parallel`) in place of being cut: to ranks within a group of chips, which all hold all
tokens, or over the groups of several replicas (attention data parallelism), which then send every token to its experts and back by
all-to-all. The rank with most experts is costed. Groups wider than a node reduce inside nodes first, then between them.

Not modelled: overlap of collectives with products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import LINKS
from hw_models.accelerator.fields import Execution
from hw_models.costs.collectives import (
    Collective,
    Link,
    all_gather,
    all_reduce,
    all_to_all,
    hierarchical_all_reduce,
    reduce_scatter,
    ring_all_reduce,
)
from hw_models.costs.kernels import collective_s
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.technology.namespace import NUMPY, Array, Namespace
from workloads.moe import active_experts
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable, Parallel

if TYPE_CHECKING:
    from hw_models.accelerator.design import AcceleratorBatch

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

COLLECTIVES: dict[str, Callable[..., Collective]] = {
    "all_reduce": all_reduce,
    "all_gather": all_gather,
    "reduce_scatter": reduce_scatter,
    "all_to_all": all_to_all,
}
NODE = ("node_chips", "node_bytes_per_s", "node_latency_s")
# Vector operations that need a whole row take their share of rows, the others of columns.
BY_ROWS = (Kind.NORM, Kind.SOFTMAX, Kind.TOPK)


@dataclass(frozen=True, eq=False)
class Shares:
    """What one chip does of each shape: its table (rows,), how many chips have a share (rows,), and of how many of the runs that a table
    counts the busiest rank does one (rows,): below 1 for experts that are dealt over ranks."""

    table: OperationTable
    at_work: IntArray
    time_share: FloatArray


def groups(chips: IntArray, experts: IntArray) -> list[tuple[int, int, IntArray]]:
    """Designs by their number of ``chips`` and ranks of ``experts`` (points,): (chips, ranks, indices of the points)."""
    pairs = np.column_stack([chips, experts])
    return [(int(c), int(e), np.flatnonzero((pairs == (c, e)).all(axis=1))) for c, e in np.unique(pairs, axis=0)]


@dataclass(frozen=True, eq=False)
class Dealing:
    """Along which size each shape is dealt over chips; masks (rows,), at most one true a row.

    Weights go by ``k``, by columns ``n`` or by ``groups``; products of activations and fused attention by ``entries`` (batch and heads);
    vector operations by ``vector_rows`` where they need whole rows, else by ``vector_columns``.
    """

    k: BoolArray
    n: BoolArray
    groups: BoolArray
    entries: BoolArray
    vector_rows: BoolArray
    vector_columns: BoolArray


def dealing(shapes: OperationTable) -> Dealing:
    """How the shapes (rows,) are dealt, from what they are and what they say; where all is false, every chip does all of it."""
    kind, how = shapes.kind, shapes.parallel
    product, attention = np.isin(kind, PRODUCTS), np.isin(kind, ATTENTION)
    weights, grouped, by_rows = product & shapes.second_is_weight, shapes.groups > 1, np.isin(kind, BY_ROWS)
    by_columns = np.isin(how, (Parallel.COLUMN, Parallel.GATHERED))
    vector = ~product & ~attention & by_columns
    return Dealing(
        k=product & np.isin(how, (Parallel.ROW, Parallel.PARTIAL)),
        n=weights & by_columns & ~grouped,
        groups=weights & by_columns & grouped,
        entries=((product & ~shapes.second_is_weight) | attention) & by_columns,
        vector_rows=vector & by_rows,
        vector_columns=vector & ~by_rows,
    )


def largest_share(xp: Namespace, size: Array, chips: Array) -> tuple[Array, Array]:
    """The largest share of ``size`` dealt over ``chips``, and how many of them have one; exact for whole numbers below 2^53."""
    share = xp.ceil(size / chips)
    return share, xp.ceil(size / share)


def chips_an_entry(xp: Namespace, chips: Array, entries: Array) -> Array:
    """Chips that divide the rows of one entry among them: floor(chips / entries), one where there are more entries than chips.

    Relaxed (no rounding up) it is up to one fewer.
    """
    return xp.maximum(xp.ceil((chips + 1.0) / entries) - 1.0, 0.0 * entries + 1.0)


def shares(shapes: OperationTable, chips: int, experts: int = 1) -> Shares:
    """The shapes (rows,) as the chip with the largest share runs them; ``experts`` above 1: ranks that whole experts are dealt to."""
    _check_told(shapes, chips)
    product, attention = np.isin(shapes.kind, PRODUCTS), np.isin(shapes.kind, ATTENTION)
    dealt = dealing(shapes)
    m, n, k, batch, group, share = (getattr(shapes, name).copy() for name in ("m", "n", "k", "batch", "groups", "kv_share"))
    fed = shapes.input_elements.copy()
    at_work = np.full(len(shapes), chips, dtype=np.int64)

    def deal(where: BoolArray, sizes: IntArray, over: IntArray | int = chips) -> None:
        """Give ``sizes`` their largest share in place; ``at_work`` counts the chips that have one."""
        largest, sharers = largest_share(NUMPY, sizes[where], over[where] if isinstance(over, np.ndarray) else over)
        sizes[where], at_work[where] = largest, sharers

    # Experts dealt over ranks are cut over the chips of a rank alone; over replicas, a rank's experts have the tokens of all of them.
    routed = (shapes.moe_joined > 0) & (experts > 1)
    inside, replicas = max(chips // experts, 1), max(experts // chips, 1)
    sharers = np.where(routed, inside, chips)
    deal(dealt.k, k, sharers)
    deal(dealt.groups, group)
    deal(dealt.n, n, sharers)
    time_share = np.ones(len(shapes))
    if routed.any():
        of = (shapes.moe_tokens * replicas, np.maximum(shapes.moe_experts, 1), np.maximum(shapes.moe_chosen, 1),
              np.maximum(shapes.moe_imbalance_permille, 1000) / 1000)  # fmt: skip
        active = np.asarray(active_experts(*of))
        time_share = np.where(routed, np.ceil(active / experts) / np.maximum(shapes.moe_active, 1), 1.0)
        # The same rows over fewer experts: those of a rank are as much fuller as there are fewer of them for each replica's table.
        fuller = np.where(routed, replicas * np.maximum(shapes.moe_active, 1) / np.maximum(active, 1), 1.0)
        m = np.ceil(m * fuller - 1e-9).astype(np.int64)
    # Products of activations and fused attention: by batch entries and heads; where there are fewer than chips, by queries.
    heads = np.maximum(batch // np.where(attention, share, 1), 1)
    rest = chips_an_entry(NUMPY, chips, heads).astype(np.int64)
    within = np.where(attention, share, m)
    deal(dealt.entries, heads)
    busy = at_work.copy()
    again = dealt.entries & (rest > 1)
    deal(again, within, rest)
    at_work[again] *= busy[again]
    batch = np.where(dealt.entries, np.where(attention, heads * within, heads), batch)
    share = np.where(dealt.entries & attention, within, share)
    m = np.where(dealt.entries & product, within, m)
    deal(dealt.vector_rows, m)
    deal(dealt.vector_columns, n)
    # The feature map of a convolution is dealt with its channels, that is along k or by groups.
    fed = np.where(product, -(-fed * k * group // np.maximum(shapes.k * shapes.groups, 1)), fed)
    return Shares(replace(shapes, m=m, n=n, k=k, batch=batch, groups=group, kv_share=share, input_elements=fed), at_work, time_share)


def _check_told(shapes: OperationTable, chips: int) -> None:
    if chips > 1 and (shapes.parallel == Parallel.AUTO).any():
        raise HardwareError(
            f"the shapes do not say how {chips} chips divide them: take the distinct shapes with table.distinct(parallel=True)"
        )


@dataclass(frozen=True, eq=False)
class Exchange:
    """The collective behind each shape on each design: arrays (shapes, points), zero where there is none."""

    latency_s: FloatArray
    energy_j: FloatArray


def exchange(shapes: OperationTable, hardware: AcceleratorBatch, chips: int, experts: int = 1) -> Exchange:
    """Collectives behind whole shapes (rows,) on designs (points,) of ``chips`` chips each, over their links and between their nodes.

    Where ``experts`` ranks span replicas, tokens also go to their experts (behind the dispatch) and back (behind the scaled results).
    """
    latency, energy = (np.zeros((len(shapes), len(hardware))) for _ in range(2))
    size = -(-(shapes.row_output_elements() * shapes.output_bits) // 8)
    names = np.where(shapes.kind == Kind.COLLECTIVE, shapes.function, _behind(shapes.parallel))
    columns = np.column_stack([getattr(hardware, name) for name in (*LINKS, *NODE)])
    on_kernels = hardware.execution == Execution.GPU
    jobs = [(name, np.flatnonzero(names == name), size, chips) for name in COLLECTIVES] if chips > 1 else []
    if experts > chips:
        # Each chip of a group sends its part of the group's tokens.
        jobs.append(("all_to_all", np.flatnonzero(_sent(shapes)), -(-size // chips), experts))
    for name, rows, sizes, count in jobs:
        if not len(rows):
            continue
        for point in np.flatnonzero(on_kernels).tolist():
            links = Links.of(columns[point], count)
            latency[rows, point] += _kernel_s(hardware, point, name, sizes[rows], links)
            energy[rows, point] += _between(name, sizes[rows], links).energy_j
        for values in np.unique(columns[~on_kernels], axis=0):
            here = np.flatnonzero((columns == values).all(axis=1) & ~on_kernels)
            found = _between(name, sizes[rows], Links.of(values, count))
            latency[np.ix_(rows, here)] += found.latency_s[:, None]
            energy[np.ix_(rows, here)] += found.energy_j[:, None]
    return Exchange(latency, energy)


@dataclass(frozen=True)
class Links:
    """Links of one design for a collective of ``inside`` chips in each of ``nodes`` nodes."""

    inner: Link
    outer: Link | None
    inside: int
    nodes: int

    @staticmethod
    def of(values: npt.NDArray[np.float64], chips: int) -> Links:
        """From columns `LINKS` and `NODE` of a design; nodes are filled one after the other."""
        inner = _link(*values[:4].tolist(), chips=chips)
        node_chips, node_rate, node_latency = values[4:].tolist()
        if not 0 < node_chips < chips:
            return Links(inner, None, chips, 1)
        if node_rate <= 0:
            raise bad_value(
                "node_bytes_per_s", node_rate, f"a positive number of bytes/s where {chips} chips stand in nodes of {node_chips:g}"
            )
        return Links(inner, Link(node_latency, node_rate, inner.pj_per_bit), int(node_chips), -(-chips // int(node_chips)))


def _between(name: str, size: IntArray, links: Links) -> Collective:
    """A collective in the alpha-beta model, over nodes where there are several: (rows,)."""
    cost = COLLECTIVES[name]
    if links.outer is None:
        return cost(size, links.inside, links.inner)
    if name == "all_reduce":
        return hierarchical_all_reduce(size, links.inside, links.nodes, links.inner, links.outer)
    # Between nodes each chip exchanges with those of the same place what their nodes' chips will get; then the nodes deal it inside.
    within = cost(size, links.inside, links.inner)
    piece = size if name == "all_to_all" else -(-size // links.inside)
    across = cost(piece, links.nodes, links.outer)
    return Collective(
        within.latency_s + across.latency_s,
        links.nodes * within.energy_j + links.inside * across.energy_j,
        links.nodes * within.link_bytes + links.inside * across.link_bytes,
        within.steps + across.steps,
    )


def _kernel_s(hardware: AcceleratorBatch, point: int, name: str, size: IntArray, links: Links) -> FloatArray:
    """The same with the measured kernels of a GPU's library inside a node (rows,) [s]."""
    if links.outer is None:
        return collective_s(hardware, point, name, size, links.inside)
    if name == "all_reduce":
        piece = -(-size // links.inside)
        inside = collective_s(hardware, point, "reduce_scatter", size, links.inside) + collective_s(
            hardware, point, "all_gather", size, links.inside
        )
        return np.asarray(inside + ring_all_reduce(piece, links.nodes, links.outer).latency_s)
    piece = size if name == "all_to_all" else -(-size // links.inside)
    return np.asarray(
        collective_s(hardware, point, name, size, links.inside) + COLLECTIVES[name](piece, links.nodes, links.outer).latency_s
    )


def _sent(shapes: OperationTable) -> BoolArray:
    """Rows whose results go to other replicas' experts, or come back: the dispatch and the scaled results of a layer of experts."""
    scaled = (shapes.kind == Kind.ELEMENTWISE) & (shapes.function == "mul") & (shapes.parallel == Parallel.REPLICATED)
    return np.asarray((shapes.moe_experts > 0) & ((shapes.kind == Kind.GATHER) | scaled))


def check_collectives(shapes: OperationTable) -> None:
    """Raise HardwareError for a COLLECTIVE row whose function is no collective."""
    for row in np.flatnonzero(shapes.kind == Kind.COLLECTIVE):
        if str(shapes.function[row]) not in COLLECTIVES:
            raise unknown_name(f"collective of operation {str(shapes.name[row])!r}", str(shapes.function[row]), COLLECTIVES)


def _behind(how: IntArray) -> npt.NDArray[np.str_]:
    """Name of the collective that dealing an operation needs behind it, empty where it needs none."""
    return np.where(how == Parallel.ROW, "all_reduce", np.where(how == Parallel.GATHERED, "all_gather", ""))


def _link(latency_s: float, bytes_per_s: float, pj_per_bit: float, fixed_s: float, *, chips: int) -> Link:
    if bytes_per_s <= 0:
        raise bad_value("link_bytes_per_s", bytes_per_s, f"a positive number of bytes/s where chips is {chips}")
    return Link(latency_s, bytes_per_s, pj_per_bit, fixed_s)
