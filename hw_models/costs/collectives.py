"""Collectives over links: time and energy of all-reduce, all-gather, reduce-scatter and all-to-all between devices.

The alpha-beta model: a message of ``b`` bytes takes ``latency_s + b / bandwidth`` on a link, links are full duplex, and the
messages of one step run at once on links of their own (Hockney 1994; the algorithms and their costs as in Thakur,
Rabenseifner and Gropp, Int. J. HPC Applications 19(1), 2005). Reduction itself is free: it overlaps the transfer.

Sizes: ``size_bytes`` is what one device holds at the beginning (all-reduce, reduce-scatter, all-to-all) or at the end
(all-gather). Buffers are dealt in pieces of ``ceil(size / devices)`` bytes and the largest piece sets the pace of a step.
Every argument may be an array; they broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.technology.closed_forms import link_j, messages_s

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ALL_REDUCE_ALGORITHMS: Final = ("ring", "tree", "best")
TOPOLOGIES: Final = ("switch", "ring")


@dataclass(frozen=True)
class Link:
    """A point-to-point link of a device, one direction.

    Attributes:
        latency_s: time before the first byte of a message arrives, software included [s].
        bandwidth_bytes_per_s: rate of one direction, all lanes of the device together [bytes/s].
        pj_per_bit: energy of one bit that crosses the link [pJ]; 0 leaves energy out.
        fixed_s: time of starting a collective, once whatever its steps [s].
    """

    latency_s: float
    bandwidth_bytes_per_s: float
    pj_per_bit: float = 0.0
    fixed_s: float = 0.0
    name: str = "link"
    source: str = ""

    def __post_init__(self) -> None:
        for field in ("latency_s", "pj_per_bit", "fixed_s"):
            value = getattr(self, field)
            if not (np.isfinite(value) and value >= 0):
                raise bad_value(f"{self.name}.{field}", value, "a number from 0", closest=0)
        if not (np.isfinite(self.bandwidth_bytes_per_s) and self.bandwidth_bytes_per_s > 0):
            raise bad_value(f"{self.name}.bandwidth_bytes_per_s", self.bandwidth_bytes_per_s, "a positive number of bytes/s")


@dataclass(frozen=True)
class Collective:
    """What a collective costs; every field has the broadcast shape of the arguments."""

    latency_s: FloatArray
    energy_j: FloatArray
    link_bytes: IntArray
    """Bytes that cross links, summed over all devices (and hops)."""
    steps: IntArray
    """Messages one after the other."""


def ring_all_reduce(size_bytes: npt.ArrayLike, devices: npt.ArrayLike, link: Link) -> Collective:
    """Reduce-scatter then all-gather around a ring: 2 (p - 1) steps of one piece each."""
    n, p = _arguments(size_bytes, devices)
    steps = 2 * (p - 1)
    return _cost(steps, steps * _piece(n, p), 2 * (p - 1) * n, link)


def tree_all_reduce(size_bytes: npt.ArrayLike, devices: npt.ArrayLike, link: Link) -> Collective:
    """Reduce to one device along a binomial tree, broadcast back: 2 ceil(log2 p) steps of the whole buffer."""
    n, p = _arguments(size_bytes, devices)
    steps = 2 * _ceil_log2(p)
    return _cost(steps, steps * n, 2 * (p - 1) * n, link)


def all_reduce(size_bytes: npt.ArrayLike, devices: npt.ArrayLike, link: Link, *, algorithm: str = "best") -> Collective:
    """Sum of every device's buffer on every device, by the ring, the tree, or whichever is faster (``best``)."""
    if algorithm not in ALL_REDUCE_ALGORITHMS:
        raise unknown_name("all-reduce algorithm", algorithm, ALL_REDUCE_ALGORITHMS)
    ring, tree = ring_all_reduce(size_bytes, devices, link), tree_all_reduce(size_bytes, devices, link)
    if algorithm != "best":
        return ring if algorithm == "ring" else tree
    use_ring = ring.latency_s <= tree.latency_s
    return Collective(
        np.where(use_ring, ring.latency_s, tree.latency_s)[()],
        ring.energy_j,  # both move every byte the same number of times
        ring.link_bytes,
        np.where(use_ring, ring.steps, tree.steps)[()],
    )


def all_gather(size_bytes: npt.ArrayLike, devices: npt.ArrayLike, link: Link) -> Collective:
    """Every device ends with all pieces (``size_bytes`` together): p - 1 steps of one piece around a ring."""
    n, p = _arguments(size_bytes, devices)
    return _cost(p - 1, (p - 1) * _piece(n, p), (p - 1) * n, link)


def reduce_scatter(size_bytes: npt.ArrayLike, devices: npt.ArrayLike, link: Link) -> Collective:
    """Every device ends with the sum of its piece of the buffers: p - 1 steps of one piece around a ring."""
    return all_gather(size_bytes, devices, link)  # the same messages in the opposite order


def all_to_all(size_bytes: npt.ArrayLike, devices: npt.ArrayLike, link: Link, *, topology: str = "switch") -> Collective:
    """Every device sends a piece of its buffer to every other.

    * ``switch``: every pair has a path of its own; p - 1 exchanges of one piece.
    * ``ring``: neighbours only, both directions at once; a piece for distance d is handed on d times, so that step s moves
      the pieces of all distances from s on. With an even number of devices the piece for the opposite device is halved
      between the directions.
    """
    if topology not in TOPOLOGIES:
        raise unknown_name("topology", topology, TOPOLOGIES)
    n, p = _arguments(size_bytes, devices)
    piece = _piece(n, p)
    if topology == "switch":
        return _cost(p - 1, (p - 1) * piece, p * (p - 1) * piece, link)
    far = (p - 1) // 2  # distances reached whole in one direction
    half = np.where(p % 2 == 0, -(-piece // 2), 0)  # the larger half of the opposite device's piece
    steps = np.where(p % 2 == 0, p // 2, far)
    longest = far * (far + 1) // 2 * piece + (p // 2) * half
    total = p * (far * (far + 1) * piece + np.where(p % 2 == 0, (p // 2) * piece, 0))
    return _cost(steps, longest, total, link)


def hierarchical_all_reduce(
    size_bytes: npt.ArrayLike, devices_per_node: npt.ArrayLike, nodes: npt.ArrayLike, inner: Link, outer: Link
) -> Collective:
    """Reduce-scatter inside each node, all-reduce of the pieces between nodes (one ring a device), all-gather inside.

    ``outer`` is the link that one device has to the other nodes.
    """
    n, inside = _arguments(size_bytes, devices_per_node)
    scatter = reduce_scatter(n, inside, inner)
    between = ring_all_reduce(_piece(n, inside), nodes, outer)
    gather = all_gather(n, inside, inner)
    count = np.asarray(nodes)
    return Collective(
        scatter.latency_s + between.latency_s + gather.latency_s,
        count * (scatter.energy_j + gather.energy_j) + inside * between.energy_j,
        (count * (scatter.link_bytes + gather.link_bytes) + inside * between.link_bytes)[()],
        scatter.steps + between.steps + gather.steps,
    )


def _cost(steps: IntArray, bytes_in_sequence: IntArray, link_bytes: IntArray, link: Link) -> Collective:
    busy = steps > 0
    latency = messages_s(steps, bytes_in_sequence, link.latency_s, link.bandwidth_bytes_per_s) + np.where(busy, link.fixed_s, 0.0)
    energy = link_j(link_bytes, link.pj_per_bit)
    shape = np.broadcast_shapes(np.shape(latency), np.shape(link_bytes), np.shape(steps))
    return Collective(
        np.broadcast_to(latency, shape)[()],
        np.broadcast_to(energy, shape)[()],
        np.broadcast_to(link_bytes, shape)[()],
        np.broadcast_to(steps, shape)[()],
    )


def _piece(n: IntArray, p: IntArray) -> IntArray:
    return np.asarray(-(-n // p))


def _ceil_log2(p: IntArray) -> IntArray:
    """Smallest d with 2**d >= p, exact for every int64 (no floating point)."""
    depth = np.zeros(np.shape(p), dtype=np.int64)
    reach = np.ones(np.shape(p), dtype=np.int64)
    while (reach < p).any():
        depth = depth + (reach < p)
        reach = np.where(reach < p, reach * 2, reach)
    return depth


def _arguments(size_bytes: npt.ArrayLike, devices: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    size, count = np.asarray(size_bytes), np.asarray(devices)
    for field, array, low in (("size_bytes", size, 0), ("devices", count, 1)):
        if array.dtype.kind not in "iuf":
            raise bad_value(field, array.ravel()[:1].tolist(), f"an integer from {low}", closest=low)
        with np.errstate(invalid="ignore"):
            wrong = ~((array >= low) & (array < 2**40) & (array == np.floor(array)))
        if wrong.any():
            raise bad_value(field, array[wrong].flat[0].item(), f"an integer from {low} to 2**40", closest=low)
    n, p = size.astype(np.int64), count.astype(np.int64)
    if p.size and n.size and float(p.max()) ** 2 * float(n.max(initial=0)) > 2.0**61:
        raise HardwareError(f"devices = {int(p.max())} with size_bytes = {int(n.max())} move more bytes than can be counted")
    return n, p
