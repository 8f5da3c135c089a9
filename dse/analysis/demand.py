"""Fleets that serve a log: what they serve is asked for, and no more of it is worth carbon. docs/recommendation.md states the rule.

Requests come as the log says. A fleet that keeps the share of good requests that was asked for has served it; what a faster one adds to
goodput is an earlier end of the last requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.problem.objectives import Objective
from dse.problem.problem import FLEET, Problem

BoolArray = npt.NDArray[np.bool_]

GOODPUT = ("goodput_per_s", "goodput_share")
NEAR = 0.01
"""Where no goodput is asked for: how far below the most it counts as the same."""
ASKED, MOST = "serves what was asked", "within one per cent of the most goodput"


@dataclass(frozen=True)
class Demand:
    """Which designs serve the demand, and by what word of the rule.

    Attributes:
        rule: `ASKED` or `MOST`. serves: (designs,). asked: the bounds that say what is asked, as words; empty under `MOST`.
        costs: indices of the objectives that are weighed among these.
    """

    rule: str
    serves: BoolArray
    asked: tuple[str, ...]
    costs: tuple[int, ...]

    def reason(self, best: str) -> str:
        """Why a design is named; ``best``: what it is the best of among those that serve."""
        if self.rule == ASKED:
            return f"serves what was asked ({', '.join(self.asked)}) with {best}"
        return f"{MOST}, and of these with {best}"


def demand(problem: Problem, designs: Sequence[Mapping[str, Any]]) -> Demand | None:
    """The demand of a search for fleets with a goodput to raise and a cost to lower; None for every other search."""
    goods = [o for o in problem.objectives if _raises(o)]
    costs = tuple(i for i, o in enumerate(problem.objectives) if not _raises(o))
    if problem.kind != FLEET or not goods or not costs or not designs:
        return None
    bounds = [str(c) for c in problem.constraints if c.metric in GOODPUT and c.relation == ">="]
    if bounds:
        return Demand(ASKED, np.ones(len(designs), dtype=bool), (*limits_of(problem), *bounds), costs)
    serves = np.ones(len(designs), dtype=bool)
    for objective in goods:
        values = np.array([design["metrics"][objective.metric] for design in designs], dtype=np.float64)
        serves &= values >= (1.0 - NEAR) * values.max()
    # Nothing near the most of both: then the front is weighed as any other.
    return Demand(MOST, serves, (), costs) if serves.any() else None


def limits_of(problem: Problem) -> tuple[str, ...]:
    """Limits of a good request, ``ttft_ms<=500``."""
    limits = problem.request.get("limits") or {}
    return tuple(f"{name.removesuffix('_s')}_ms<={1e3 * float(value):g}" for name, value in limits.items())


def standing(problem: Problem, design: Mapping[str, Any]) -> str:
    """What of a fleet works and what stands by, ``2 chips stand, 1 of them an idle spare``; empty for every other design."""
    knobs, chips = design["knobs"], design["metrics"].get("chips")
    if problem.kind != FLEET or chips is None or not {"tp", "replicas"} <= knobs.keys():
        return ""
    spare = round(float(chips)) - knobs["tp"] * knobs["replicas"]
    told = f"{chips:g} chip{'' if chips == 1 else 's'} stand{'s' if chips == 1 else ''}"
    return f"{told}, {spare} of them {'an idle spare' if spare == 1 else 'idle spares'}" if spare else told


def _raises(objective: Objective) -> bool:
    return objective.direction == "max" and objective.metric in GOODPUT
