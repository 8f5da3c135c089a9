"""How sure a recommendation is: in how many draws of the carbon factors it stays, and which deployment would change it.

Quality, latency and energy are held; so is the front: another deployment may have designs on its front that this one has not, which a
search of its own would show.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import carbon.factors.grid
from carbon.analysis.robustness import CARBON_METRICS
from carbon.operational.service import equal_service
from dse.analysis.choice import choose
from dse.analysis.explanation import DEFAULT_REGIONS
from dse.analysis.recommendation import Change, Front, Recommendation, recommend
from dse.evaluation import robustness
from dse.evaluation.hardware_points import Points
from dse.problem.deployment import Deployment
from dse.problem.wording import design_phrase, number_text
from dse.storage.run_folder import RunRecord

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# (factor, unit, least, most) that are looked at: the cleanest and the dirtiest grids, lifetimes of devices, three decades of rates.
_GRID = ("grid", "gCO2e/kWh", 10.0, 1200.0)
_LIFETIME = ("lifetime", "years", 0.5, 15.0)
_RATE_DECADES = 3.0
_STEPS = 400  # along each factor, on a logarithmic scale; a change is then found to a relative 1e-6 by halving
_HALVINGS = 40


def recommend_surely(run: RunRecord, *, seed: int | None = None) -> Recommendation:
    """The recommendation of a run with its share of draws and what would change it; where no objective is carbon it needs neither."""
    found = recommend(run)
    if found.design is None or not {o.metric for o in run.problem.objectives} & set(CARBON_METRICS):
        return found
    front = Front.of(run)
    _, allowed, costs = front.rule()
    if not np.isfinite(costs).all():
        return found
    # Only designs that the rule may name: their number is small where quality has narrowed them down.
    keep = np.flatnonzero(allowed)
    case = _Case(run, front, keep, costs[keep])
    own = next(i for i, index in enumerate(keep) if front.designs[index]["design"] == found.design)
    drawn, factors = robustness.drawn(run.problem, case.designs, case.points, seed=run.provenance["seed"] if seed is None else seed)
    names = choose(case.costs_with(drawn), np.ones(len(keep), dtype=bool))
    changes, unchanged = _changes(case, own)
    return replace(
        found,
        kept_share=float(np.mean(names == own)),
        draws=robustness.DRAWS,
        factors=factors,
        changes=tuple(changes),
        unchanged=tuple(unchanged),
    )


class _Case:
    """The designs that the rule may name, and their costs where carbon is another."""

    def __init__(self, run: RunRecord, front: Front, keep: npt.NDArray[np.int64], costs: FloatArray) -> None:
        self.designs = [front.designs[i] for i in keep]
        self.points: Points = robustness.points_of(run.problem, self.designs)
        self.problem = run.problem
        self._costs = costs
        # Quality may stand before the costs, where it is chosen by like one.
        self._first = costs.shape[1] - len(front.objectives)
        self._objectives = front.objectives
        varying = run.context.get("knob_ranges") or {}
        self.varying = [
            name for name in self.designs[0]["knobs"] if name in varying or len({d["knobs"].get(name) for d in self.designs}) > 1
        ]

    def column(self, name: str) -> FloatArray:
        """A metric of the designs."""
        return np.array([design["metrics"][name] for design in self.designs], dtype=np.float64)

    def costs_with(self, carbon_metrics: dict[str, FloatArray]) -> FloatArray:
        """The costs by which the rule chooses, (..., designs, costs), with these carbon metrics (..., designs) in place of the run's."""
        shape = next(iter(carbon_metrics.values())).shape
        costs = np.broadcast_to(self._costs, (*shape, self._costs.shape[1])).copy()
        for i, objective in enumerate(self._objectives):
            if objective.metric in carbon_metrics:
                costs[..., self._first + i] = objective.sign * carbon_metrics[objective.metric]
        return costs

    def name(self, **changed: Any) -> npt.NDArray[np.int64]:
        """What the rule names (values,) where grid, lifetime_years or rate_per_s has each of the given values; -1: none can serve."""
        values = next(iter(changed.values()))[:, None]
        p, setting = self.points, {name: column[:, None] for name, column in changed.items()}
        energy, latency = self.column("energy_j"), self.column("latency_s")
        operation = equal_service(
            energy,
            latency,
            idle_w=p.leakage_w,
            rate_per_s=setting.get("rate_per_s", p.rate_per_s),
            lifetime_years=setting.get("lifetime_years", p.lifetime_years),
            pue=p.pue,
            gco2e_per_kwh=setting.get("grid", p.gco2e_per_kwh),
            concurrency=p.in_flight,
        )
        shape = np.broadcast_shapes(values.shape, latency.shape)
        used = np.broadcast_to(np.asarray(operation.operational_kgco2e), shape)
        made = np.broadcast_to(p.embodied_kgco2e, shape)
        requests = np.broadcast_to(np.asarray(operation.requests), shape)
        total = made + used
        metrics = {"embodied_kgco2e": made, "operational_kgco2e": used, "total_kgco2e": total, "kgco2e_per_request": total / requests}
        serves: BoolArray = np.broadcast_to(np.asarray(operation.feasible), shape)
        possible: BoolArray = np.asarray(serves.any(axis=-1))
        named = choose(self.costs_with(metrics), serves | ~possible[:, None])
        return np.where(possible, named, -1)


def _changes(case: _Case, own: int) -> tuple[list[Change], list[str]]:
    """The nearest value below and above the deployment's own, of each factor, at which the rule names another design."""
    deployment, vary = case.problem.deployment, case.problem.vary
    found: list[Change] = []
    unchanged: list[str] = []
    for knob, (factor, unit, low, high), here in _factors(deployment):
        if knob in vary:
            continue  # the search has answered that already
        low, high = min(low, here), max(high, here)
        if not here > 0 or case.name(**{knob: np.array([here])})[0] != own:
            continue  # figures of an earlier version or of another grid's table
        mine = []
        for relation, end in (("<", low), (">", high)):
            change = _nearest(case, knob, own, here, end)
            if change is not None:
                value, index = change
                design = case.designs[index]
                phrase = design_phrase(design["knobs"], case.varying)
                examples = _regions(relation, value) if knob == "grid" else ()
                mine.append(Change(factor, relation, value, unit, design["design"], phrase, examples))
        found += mine
        if not mine:
            named = case.name(**{knob: (values := np.geomspace(low, high, _STEPS))})
            low, high = (float(f"{end:.3g}") for end in (values[named >= 0].min(), values[named >= 0].max()))
            unable = ", beyond which no design can serve" if (named < 0).any() else ""
            unchanged.append(f"{factor} from {number_text(low)} to {number_text(high)} {unit}{unable}")
    return found, unchanged


def _factors(deployment: Deployment) -> list[tuple[str, tuple[str, str, float, float], float]]:
    grid = carbon.factors.grid.lookup(str(deployment.grid)).gco2e_per_kwh
    scale = 10.0**_RATE_DECADES
    rate = ("rate", "requests a second", deployment.rate_per_s / scale, deployment.rate_per_s * scale)
    return [("grid", _GRID, grid), ("lifetime_years", _LIFETIME, deployment.lifetime_years), ("rate_per_s", rate, deployment.rate_per_s)]


def _nearest(case: _Case, knob: str, own: int, here: float, end: float) -> tuple[float, int] | None:
    """Where, going from ``here`` to ``end``, the rule first names another design, and which; None where it never does.

    Rates at which no design can serve change nothing: there is nothing to choose.
    """
    values = np.geomspace(here, end, _STEPS)
    named = case.name(**{knob: values})
    other = np.flatnonzero(named != own)
    if not len(other) or named[other[0]] < 0 or other[0] == 0:
        return None

    def at(value: float) -> int:
        return int(case.name(**{knob: np.array([value])})[0])

    inside, outside = math.log(values[other[0] - 1]), math.log(values[other[0]])
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if at(math.exp(middle)) == own else (inside, middle)
    index = at(math.exp(outside))
    return (math.exp(outside), index) if index >= 0 else None


def _regions(relation: str, value: float) -> tuple[str, ...]:
    """Well-known grids on that side."""
    grids = [(carbon.factors.grid.lookup(name).gco2e_per_kwh, name) for name in DEFAULT_REGIONS]
    return tuple(name for intensity, name in sorted(grids) if (intensity < value if relation == "<" else intensity > value))
