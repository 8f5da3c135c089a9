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

from collections.abc import Callable
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
