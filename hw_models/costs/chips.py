"""Chips that share a request: what of each operation one of them does, and what they then tell each other.

Tensor parallelism as in Megatron-LM (Shoeybi et al., arXiv:1909.08053): the weights of a product are dealt over the
chips by columns or by rows, attention by heads, and `workloads.ops.Parallel` says for each operation how. The chips are
equal and work at the same time, so an operation takes as long as the largest share; then the collective behind it runs
over the links (`hw_models.costs.collectives`), not overlapped with computing. Shares are rounded up, and chips that are left
without one rest.

Not modelled: pipeline, data and expert parallelism, and overlap of collectives with products.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import LINKS
from hw_models.accelerator.fields import Execution
from hw_models.costs.collectives import Collective, Link, all_gather, all_reduce, all_to_all, reduce_scatter
from hw_models.costs.kernels import collective_s
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.technology.namespace import NUMPY, Array, Namespace
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
# Vector operations that need a whole row take their share of rows, the others of columns.
BY_ROWS = (Kind.NORM, Kind.SOFTMAX, Kind.TOPK)


@dataclass(frozen=True, eq=False)
class Shares:
    """What one chip does of each shape: its table (rows,), and how many chips have a share (rows,)."""

    table: OperationTable
    at_work: IntArray


def groups(chips: IntArray) -> list[tuple[int, IntArray]]:
    """Designs by their number of ``chips`` (points,): (chips, indices of the points)."""
    return [(int(count), np.flatnonzero(chips == count)) for count in np.unique(chips)]


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


def shares(shapes: OperationTable, chips: int) -> Shares:
    """The shapes (rows,) as the chip with the largest share runs them."""
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

    deal(dealt.k, k)
    deal(dealt.groups, group)
    deal(dealt.n, n)
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
    return Shares(replace(shapes, m=m, n=n, k=k, batch=batch, groups=group, kv_share=share, input_elements=fed), at_work)


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


def exchange(shapes: OperationTable, hardware: AcceleratorBatch, chips: int) -> Exchange:
    """Collectives behind whole shapes (rows,) on designs (points,) of ``chips`` chips each, over their links."""
    latency, energy = (np.zeros((len(shapes), len(hardware))) for _ in range(2))
    if chips == 1:
        return Exchange(latency, energy)
    size = -(-(shapes.row_output_elements() * shapes.output_bits) // 8)
    names = np.where(shapes.kind == Kind.COLLECTIVE, shapes.function, _behind(shapes.parallel))
    columns = np.column_stack([getattr(hardware, name) for name in LINKS])
    on_kernels = hardware.execution == Execution.GPU
    for point in np.flatnonzero(on_kernels).tolist():
        for name, cost in COLLECTIVES.items():
            rows = np.flatnonzero(names == name)
            if len(rows):
                latency[rows, point] = collective_s(hardware, point, name, size[rows], chips)
                link = _link(*columns[point].tolist(), chips=chips)
                energy[rows, point] = cost(size[rows], chips, link).energy_j
    for values in np.unique(columns[~on_kernels], axis=0):
        here = np.flatnonzero((columns == values).all(axis=1) & ~on_kernels)
        link = _link(*values.tolist(), chips=chips)
        for name, cost in COLLECTIVES.items():
            rows = np.flatnonzero(names == name)
            if len(rows):
                found = cost(size[rows], chips, link)
                latency[np.ix_(rows, here)] = found.latency_s[:, None]
                energy[np.ix_(rows, here)] = found.energy_j[:, None]
    return Exchange(latency, energy)


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
