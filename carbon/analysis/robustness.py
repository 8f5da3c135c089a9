"""How a study's Pareto front stands up to uncertain carbon factors: over arrays, knowing nothing of studies.

Factors are shared by all designs (one fab, one memory, one grid), so each draw moves all designs together: what does not
change the order cancels, which is what makes the question fair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.analysis import estimate, uncertainty
from carbon.analysis.uncertainty import Range, Spread, Stability
from carbon.device import device, recipes
from carbon.errors import CarbonError
from carbon.factors.grid import GridFactor
from carbon.factors.values import Values

FloatArray = npt.NDArray[np.float64]
#: Metrics that the draws move; everything else of a design stays.
CARBON_METRICS = ("total_kgco2e", "embodied_kgco2e", "operational_kgco2e", "kgco2e_per_request")
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, repr=False)
class Robustness:
    """The answer: stability of the front, the spread of each design's total, and what was varied.

    ``numbers``: what the designs are called where they were chosen from more (equal designs are left out); empty: 1, 2, ...
    """

    stability: Stability
    total: Spread
    ranges: Mapping[str, Range]
    objective: str
    numbers: tuple[int, ...] = ()

    def __repr__(self) -> str:
        draws, designs = self.total.values.shape
        lines = [
            f"{designs} {'distinct designs' if self.numbers else 'designs'} under {draws:,} draws of {len(self.ranges)} carbon factors "
            "(quality, latency and energy held)",
            f"  two designs keep their order by {self.objective} in {self.stability.pairs:.1%} of the draws, "
            f"no design leaves the front in {self.stability.whole_front:.1%}",
            f"  stays: draws in which the design stays on the front; least: draws in which no other has less {self.objective}",
            f"  {'design':>6}{'stays':>9}{'least':>9}{'p5':>12}{'p50':>12}{'p95':>12}  total kgCO2e",
        ]
        shown = range(min(designs, _MOST_SHOWN))
        numbers = self.numbers or range(1, designs + 1)
        lines += [
            f"  {numbers[i]:>6}{self.stability.stays[i]:>9.1%}{self.stability.best[i]:>9.1%}"
            f"{self.total.p5[i]:>12.4g}{self.total.p50[i]:>12.4g}{self.total.p95[i]:>12.4g}"
            for i in shown
        ]
        if designs > len(shown):
            lines.append(f"  and {designs - len(shown)} more; .stability.stays and .total hold all")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}</pre>"


@dataclass(frozen=True, slots=True)
class Group:
    """Designs that one call of the carbon model costs: their indices, inputs of :class:`carbon.device.device.Device` (one value a
    design of the group, or shared), the grid of operation, whose range scales operational carbon, and how many such devices a
    design has (one value, or one a design)."""

    members: npt.NDArray[np.int64]
    devices: Mapping[str, Any]
    use_grid: GridFactor
    count: npt.NDArray[np.int64] | int = 1


def front(
    profile: str,
    devices: Mapping[str, Any],
    metrics: Mapping[str, Any],
    objectives: Sequence[tuple[str, float]],
    *,
    use_grid: GridFactor,
    draws: int = 1000,
    seed: int = 0,
) -> Robustness:
    """Return how the order of designs holds when factors are drawn; all designs in one group, see :func:`front_of_groups`."""
    count = len(np.atleast_1d(np.asarray(next(iter(metrics.values()), ()))))
    group = Group(np.arange(count), devices, use_grid)
    return front_of_groups(profile, [group], metrics, objectives, draws=draws, seed=seed)


def front_of_groups(
    profile: str,
    groups: Sequence[Group],
    metrics: Mapping[str, Any],
    objectives: Sequence[tuple[str, float]],
    *,
    draws: int = 1000,
    seed: int = 0,
) -> Robustness:
    """Return how the order of designs holds when factors are drawn from their ranges.

    Args:
        profile: carbon profile of the study. groups: the designs, each in one group.
        metrics: name -> one value a design; needs ``embodied_kgco2e`` and ``operational_kgco2e``, and the objectives.
        objectives: (metric, sign), sign -1 for those to maximise; at least one of :data:`CARBON_METRICS`.

    A factor that several groups share is drawn once: the draws depend on its name and the seed alone.

    Raises:
        CarbonError: no carbon objective, missing metrics, or embodied carbon that these devices do not have.
    """
    listed = [name for name, _ in objectives]
    if not set(listed) & set(CARBON_METRICS):
        raise CarbonError(f"objectives are {', '.join(listed)}, but robustness needs one of {', '.join(CARBON_METRICS)}")
    needed = {"embodied_kgco2e", "operational_kgco2e", *(name for name, _ in objectives if name not in CARBON_METRICS)}
    given = _columns(metrics, needed)
    moved, ranges = drawn_metrics(profile, groups, metrics, draws=draws, seed=seed)
    embodied, operation = given["embodied_kgco2e"], given["operational_kgco2e"]
    base = _carbon(embodied, operation, _requests(metrics, embodied, operation))
    ordered = sorted(objectives, key=lambda item: item[0] not in CARBON_METRICS)  # stable: the carbon objective first
    first = [sign * (base[name] if name in base else given[name]) for name, sign in ordered]
    sample = [sign * (moved[name] if name in moved else given[name]) for name, sign in ordered]
    shape = (draws, embodied.size)
    stability = uncertainty.stability(np.stack(first, axis=-1), np.stack([np.broadcast_to(each, shape) for each in sample], axis=-1))
    return Robustness(stability, uncertainty.spread(moved["total_kgco2e"]), ranges, ordered[0][0])


def drawn_metrics(
    profile: str, groups: Sequence[Group], metrics: Mapping[str, Any], *, draws: int = 1000, seed: int = 0
) -> tuple[dict[str, FloatArray], dict[str, Range]]:
    """:data:`CARBON_METRICS` of designs under each draw of the uncertain factors, (draws, designs) each, and the ranges they come from.

    Arguments and errors are those of :func:`front_of_groups`; the same seed gives the same draws, whichever designs are asked about.
    """
    given = _columns(metrics, {"embodied_kgco2e", "operational_kgco2e"})
    embodied, operation = given["embodied_kgco2e"], given["operational_kgco2e"]
    made, used = np.full((draws, embodied.size), np.nan), np.full((draws, embodied.size), np.nan)
    ranges: dict[str, Range] = {}
    for group in groups:
        here = group.members
        found, made[:, here], scale = _drawn(profile, group, embodied[here], draws, seed)
        used[:, here] = operation[here] * scale
        ranges |= found
    if np.isnan(made).any():
        raise CarbonError(f"{int(np.isnan(made).any(axis=0).sum())} of {embodied.size} designs are in no group of devices")
    return _carbon(made, used, _requests(metrics, embodied, operation)), ranges


def _columns(metrics: Mapping[str, Any], needed: set[str]) -> dict[str, FloatArray]:
    for name in sorted(needed):
        if name not in metrics:
            raise CarbonError(f"metric {name!r} is missing, but robustness needs it for every design")
    return {name: np.asarray(value, dtype=np.float64) for name, value in metrics.items() if name in needed}


def _drawn(profile: str, group: Group, embodied: FloatArray, draws: int, seed: int) -> tuple[dict[str, Range], FloatArray, FloatArray]:
    """Ranges of a group's factors, its embodied carbon (draws, designs), and the factor on its operation (draws, 1)."""
    recipe, inputs = recipes.get(profile), device.Device(**group.devices)
    values = Values()
    ours = np.asarray(device.evaluate(recipe, inputs, values).embodied_kgco2e, dtype=np.float64) * group.count
    # the study's figure and ours come from the same formulas; a difference means another device or another version
    if np.abs(ours - embodied).max() > 1e-6 * np.abs(embodied).max():
        raise CarbonError("embodied carbon of the study differs from that of its devices; it was made by another version")
    ranges = dict(estimate.default_ranges(values.keyed(), values.inputs()))
    ranges["use.grid"] = estimate.grid_range(group.use_grid, fab=False)
    drawn = {key: column[:, None] for key, column in uncertainty.draws(ranges, draws, seed).items()}
    used = drawn.pop("use.grid")
    # Of electricity without carbon nothing is drawn: its operation is 0 whatever the factor.
    intensity = used / group.use_grid.gco2e_per_kwh if group.use_grid.gco2e_per_kwh > 0 else np.ones_like(used)
    made = device.evaluate(recipe, inputs, Values(drawn)).embodied_kgco2e
    return ranges, np.broadcast_to(np.asarray(made, dtype=np.float64) * group.count, (draws, embodied.size)), intensity


def _requests(metrics: Mapping[str, Any], embodied: FloatArray, operation: FloatArray) -> FloatArray:
    """Requests over the lifetime, from the study's own figure per request (1 where it has none)."""
    if "kgco2e_per_request" not in metrics:
        return np.ones_like(embodied)
    return (embodied + operation) / np.asarray(metrics["kgco2e_per_request"], dtype=np.float64)


def _carbon(embodied: FloatArray, operation: FloatArray, requests: FloatArray) -> dict[str, FloatArray]:
    total = embodied + operation
    return {
        "embodied_kgco2e": embodied,
        "operational_kgco2e": operation,
        "total_kgco2e": total,
        "kgco2e_per_request": total / requests,
    }
