"""Cost formulas over any array namespace: numpy for costs, torch for gradients; the relaxations are functions with
names.

The formulas here take a `Namespace` as their first argument and use nothing of arrays but arithmetic and the
functions in it. `NUMPY` gives the numbers that the evaluator reports. `torch_namespace()` runs the same lines
exactly; `torch_namespace(relaxed=True)` replaces the two operations that have no useful gradient:

* `relaxed_ceil`: x for x >= 1, 1 below: the number of passes without rounding up (a lower bound that differs by less
than one pass);
* `smooth_maximum`: the p-norm of both (p = 12): at most 6 % above the larger one, so that time depends on every unit
near its limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

Array = Any
"""A numpy array or a torch tensor."""
SHARPNESS = 12.0


@dataclass(frozen=True)
class Namespace:
    """The functions that a formula may call on its arrays."""

    name: str
    maximum: Callable[[Array, Array], Array]
    minimum: Callable[[Array, Array], Array]
    ceil: Callable[[Array], Array]
    where: Callable[[Array, Array, Array], Array]
    log: Callable[[Array], Array]
    exp: Callable[[Array], Array]
    asarray: Callable[[Array], Array]
    searchsorted: Callable[[Array, Array], Array]
    """Index of the first of the sorted values that exceeds each entry."""


NUMPY = Namespace(
    "numpy",
    np.maximum,
    np.minimum,
    np.ceil,
    np.where,
    np.log,
    np.exp,
    np.asarray,
    lambda values, x: np.searchsorted(values, x, side="right"),
)


def relaxed_ceil(x: Array) -> Array:
    """x where it is at least 1, else 1: passes without rounding up, with a gradient (torch)."""
    return x.clamp(min=1.0)


def smooth_maximum(a: Array, b: Array) -> Array:
    """The p-norm of two non-negative tensors: differentiable, at least the larger, at most 2^(1/p) times it."""
    import torch

    together: Any = torch.broadcast_tensors
    a, b = together(torch.as_tensor(a), torch.as_tensor(b))
    larger = torch.maximum(a, b).detach().clamp(min=1e-300)
    return larger * ((a / larger) ** SHARPNESS + (b / larger) ** SHARPNESS) ** (1.0 / SHARPNESS)


@cache
def torch_namespace(*, relaxed: bool = False) -> Namespace:
    """The namespace of torch: the same numbers, or with the named relaxations."""
    import torch

    together: Any = torch.broadcast_tensors

    def pair(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
        return lambda a, b: function(*together(torch.as_tensor(a), torch.as_tensor(b)))

    def where(condition: Array, a: Array, b: Array) -> Array:
        return torch.where(torch.as_tensor(condition), torch.as_tensor(a), torch.as_tensor(b))

    return Namespace(
        "torch, relaxed" if relaxed else "torch",
        smooth_maximum if relaxed else pair(torch.maximum),
        pair(torch.minimum),
        relaxed_ceil if relaxed else torch.ceil,
        where,
        torch.log,
        torch.exp,
        lambda x: torch.as_tensor(x, dtype=torch.float64),
        lambda values, x: torch.searchsorted(torch.as_tensor(values), x.detach(), right=True),
    )


def power_law(xp: Namespace, knots: Array, values: Array, x: Array) -> Array:
    """Logarithm of a quantity at logarithm ``x``: linear between the knots (ascending), the end segments going on."""
    at = xp.searchsorted(knots, x) - 1
    at = at.clip(0, len(knots) - 2)
    return values[at] + (values[at + 1] - values[at]) / (knots[at + 1] - knots[at]) * (x - knots[at])


@dataclass(frozen=True)
class VectorWork:
    """Vector operations as arrays that broadcast to (shapes, points).

    ``element_cycles`` and ``row_cycles`` of a lane for one element and one row; ``passes`` over a row; widths in
    bits: ``width`` of the widest operand, ``bits_in`` and ``bits_out`` of all that goes in and comes out,
    ``row_bits`` of a row.
    """

    elements: Array
    rows: Array
    element_cycles: Array
    row_cycles: Array
    passes: Array
    width: Array
    bits_in: Array
    bits_out: Array
    row_bits: Array


@dataclass(frozen=True)
class LevelRates:
    """One level of memory as arrays that broadcast to (shapes, points): capacity [bits], words a cycle of all copies,
    pJ a word.
    """

    bits: Array
    read_words_per_cycle: Array
    write_words_per_cycle: Array
    read_pj: Array
    write_pj: Array


@dataclass(frozen=True)
class VectorResult:
    """Arrays (shapes, points): lane time, time of each level, dynamic energy, DRAM traffic."""

    lanes_s: Array
    level_s: list[Array]
    energy_j: Array
    dram_bytes: Array


def vector_unit(
    xp: Namespace,
    work: VectorWork,
    *,
    lanes: Array,
    lane_bits: Array,
    lane_pj: Array,
    word_bits: Array,
    frequency_hz: Array,
    levels: Sequence[LevelRates],
) -> VectorResult:
    """The physical vector unit (see `hw_models.vector`), exactly or relaxed as the namespace has it.

    ``lane_pj`` is the energy of one cycle of a lane; ``levels`` from the innermost to the DRAM.
    """
    # A lane has the width of a MAC: wider numbers take it several times.
    wide = xp.ceil(work.width / lane_bits)
    steps = xp.ceil(work.elements / lanes) * work.element_cycles + xp.ceil(work.rows / lanes) * work.row_cycles
    words_in, words_out = work.bits_in / word_bits, work.bits_out / word_bits
    level_s = []
    move_pj: Array = 0.0
    refills: Array = work.passes
    last = len(levels) - 1
    reads = writes = words_in
    for i, level in enumerate(levels):
        reads = words_in * refills
        # From here on outwards a level is read once for each time that the levels inside it miss the row.
        refills = xp.where(level.bits >= work.row_bits, 1.0, refills)
        writes = words_out
        if i < last:
            reads, writes = reads + words_out, writes + words_in * refills
        cycles = xp.maximum(reads / level.read_words_per_cycle, writes / level.write_words_per_cycle)
        level_s.append(cycles / frequency_hz)
        move_pj = move_pj + (reads * level.read_pj + writes * level.write_pj)
    lane_cycles = (work.elements * work.element_cycles + work.rows * work.row_cycles) * wide
    energy_j = (lane_cycles * lane_pj + move_pj) * 1e-12
    return VectorResult(steps * wide / frequency_hz, level_s, energy_j, (reads + writes) * word_bits / 8.0)


def floorplan_mm2(
    *,
    cores: Array,
    macs_per_core: Array,
    lanes: Array,
    mac_um2: Array,
    lane_um2: Array,
    core_sram_um2: Array,
    shared_sram_um2: Array,
) -> Array:
    """Area of a design from that of its parts [mm2]; see `hw_models.area`."""
    total = mac_um2 * (cores * macs_per_core) + lane_um2 * lanes
    return (total + cores * core_sram_um2 + shared_sram_um2) * 1e-6
