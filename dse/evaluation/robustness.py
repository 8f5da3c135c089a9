"""How sure a front is: its carbon under uncertain factors, and how often its order holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import carbon.analysis.robustness
from carbon.analysis.uncertainty import Range, spread
from dse.errors import DseError
from dse.evaluation.evaluation import load_hardware
from dse.evaluation.hardware_points import Points, make_points
from dse.problem.deployment import VARIABLE
from dse.problem.problem import Problem

FloatArray = npt.NDArray[np.float64]

DRAWS = 1000
# The order of every pair is compared in every draw: beyond this many designs only the ranges are worth their time.
MAX_ORDERED = 500
AREA_FACTOR = "packaging.area_over_tables"


def area_note(drawn: Sequence[float]) -> str:
    """What the range of an area that is a sum of tables means for the carbon of making it."""
    low, _, high = drawn
    return (
        f"Area is a sum of multipliers, registers and SRAM; published dies are up to {high:g} times such sums (control, network, IO): "
        f"carbon of making the chip is drawn with {low:g} to {high:g} times it. "
        "The point is the chip as its tables sum up, at the low end: it may lie below p5."
    )


def analyse(
    problem: Problem, designs: Sequence[dict[str, Any]], *, draws: int = DRAWS, seed: int = 0
) -> carbon.analysis.robustness.Robustness:
    """Draw the carbon factors of designs of a front from their ranges; see :func:`carbon.analysis.robustness.front_of_groups`.

    Designs are entries of ``Run.designs``. Where no objective is carbon, designs are ordered by total carbon alone.
    """
    if not designs:
        raise DseError("a front without designs has no order to test")
    points = points_of(problem, designs)
    objectives = [(objective.metric, objective.sign) for objective in problem.objectives]
    if not any(name in carbon.analysis.robustness.CARBON_METRICS for name, _ in objectives):
        objectives = [("total_kgco2e", 1.0)]
    found = carbon.analysis.robustness.front_of_groups(
        problem.deployment.carbon_profile,
        points.groups,
        _metrics(designs),
        objectives,
        draws=draws,
        seed=seed,
    )
    return replace(found, numbers=tuple(int(design.get("design", at)) for at, design in enumerate(designs, 1)))


def points_of(problem: Problem, designs: Sequence[dict[str, Any]]) -> Points:
    """The hardware points of entries of ``Run.designs``, in their order."""
    space = load_hardware(problem)
    names = [*space.knobs, *(name for name in problem.vary if name in VARIABLE)]
    columns = {name: np.array([d["knobs"][name] for d in designs]) for name in names}
    return make_points(space, columns, problem.deployment, count=len(designs))


def drawn(
    problem: Problem, designs: Sequence[dict[str, Any]], points: Points, *, draws: int = DRAWS, seed: int = 0
) -> tuple[dict[str, FloatArray], int]:
    """Carbon metrics of designs under each draw, (draws, designs) each, and how many factors were drawn."""
    groups, profile = points.groups, problem.deployment.carbon_profile
    moved, ranges = carbon.analysis.robustness.drawn_metrics(profile, groups, _metrics(designs), draws=draws, seed=seed)
    return moved, len(ranges)


def ranges(problem: Problem, points: Points, metrics: Mapping[str, float], *, draws: int = DRAWS, seed: int = 0) -> dict[str, Any]:
    """How far the uncertain factors move the carbon of one design, as plain values.

    ``metrics``: p5, p50 and p95 of each metric of carbon. ``factors``: low, mode and high of what was drawn. ``draws``, ``seed``.
    """
    one = {name: np.array([value]) for name, value in metrics.items()}
    moved, known = carbon.analysis.robustness.drawn_metrics(problem.deployment.carbon_profile, points.groups, one, draws=draws, seed=seed)
    bands = {name: spread(column) for name, column in moved.items()}
    return {
        "metrics": {name: {"p5": float(b.p5[0]), "p50": float(b.p50[0]), "p95": float(b.p95[0])} for name, b in bands.items()},
        "factors": {name: [one.low, one.mode, one.high] for name, one in known.items()},
        "draws": draws,
        "seed": seed,
    }


def _metrics(designs: Sequence[dict[str, Any]]) -> dict[str, FloatArray]:
    return {name: np.array([d["metrics"][name] for d in designs]) for name in designs[0]["metrics"]}


def report_context(problem: Problem, designs: Sequence[dict[str, Any]], *, seed: int = 0) -> dict[str, Any]:
    """The ``uncertainty`` entry of a run's context: p5, p50, p95 of total carbon of each design, and what the order does."""
    bands: dict[str, list[float]] = {"p5": [], "p50": [], "p95": []}
    known: dict[str, Range] = {}
    once = [design for design in designs if design.get("equal_to") is None]
    for start in range(0, len(designs), MAX_ORDERED):
        part = designs[start : start + MAX_ORDERED]
        groups = points_of(problem, part).groups
        # One seed for all parts: every design meets the same draws.
        moved, known = carbon.analysis.robustness.drawn_metrics(
            problem.deployment.carbon_profile, groups, _metrics(part), draws=DRAWS, seed=seed
        )
        for name, column in bands.items():
            column.extend(float(value) for value in getattr(spread(moved["total_kgco2e"]), name))
    ranges = {name: [one.low, one.mode, one.high] for name, one in known.items()}
    # 0.25, 0.5, 0.75 after some arithmetic reach as far up as down.
    upward = sum(high - mode > (mode - low) * (1 + 1e-9) for low, mode, high in ranges.values())
    notes = [
        f"Total carbon was drawn {DRAWS} times from the ranges of {len(ranges)} factors (seed {seed}); "
        "quality, latency and energy were held.",
        f"The median is not the point value: ranges are not symmetric about it, and {upward} of {len(ranges)} reach further up than down.",
    ]
    if AREA_FACTOR in ranges:
        notes.append(area_note(ranges[AREA_FACTOR]))
    ordered = 1 < len(once) <= MAX_ORDERED and any(o.metric in carbon.analysis.robustness.CARBON_METRICS for o in problem.objectives)
    if ordered:
        # Equal designs have no order to keep: they would change places in every draw.
        answer = analyse(problem, once, seed=seed)
        notes.append(
            f"Two designs of the front keep their order in {answer.stability.pairs:.1%} of the draws, and in "
            f"{answer.stability.whole_front:.1%} none of its {len(once)} designs leaves the front, which asks of all of them at once."
        )
    return {"metrics": {"total_kgco2e": bands}, "notes": notes, "ranges": ranges, "draws": DRAWS, "seed": seed}
