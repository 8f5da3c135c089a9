"""How sure a recommendation is: in how many draws of the carbon factors it stays, and which deployment would change it.

Quality, latency and energy are held. Compared are the front and the contenders beside it, which are all designs of the space that could be
the best elsewhere (`dse.analysis.contenders`); where a search kept none, the front alone.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

import carbon
import carbon.factors.grid
from carbon.analysis.robustness import CARBON_METRICS
from carbon.operational.service import equal_service
from dse.analysis.choice import choose, like_floor
from dse.analysis.explanation import DEFAULT_REGIONS
from dse.analysis.recommendation import ONE_ERROR, Change, Front, Recommendation, recommend
from dse.analysis.ties import no_worse
from dse.analysis.words import Words
from dse.errors import DseError
from dse.evaluation import robustness
from dse.evaluation.device_order import SETTLED
from dse.evaluation.feasibility import meets
from dse.evaluation.hardware_points import Points
from dse.fronts.pareto import rounded
from dse.problem.deployment import Deployment
from dse.problem.wording import number_text
from dse.storage.run_folder import RunRecord

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# (factor, unit, least, most) that are looked at: the cleanest and the dirtiest grids, lifetimes of devices, three decades of rates.
_GRID = ("grid", "gCO2e/kWh", 10.0, 1200.0)
_LIFETIME = ("lifetime", "years", 0.5, 15.0)
_RATE_DECADES = 3.0
_STEPS = 400  # along each factor, on a logarithmic scale; a change is then found to a relative 1e-6 by halving
_HALVINGS = 40
_MOST_PAIRED = 200  # contenders that are held against each other in every draw
_ONE = 1e-9  # relative difference of every cost up to which two designs are one, as designs of a front that agree to nine digits are
_PAIRS = 1 << 22  # comparisons that are held at a time


def recommend_surely(run: RunRecord, *, seed: int | None = None) -> Recommendation:
    """The recommendation of a run with its share of draws and what would change it; where no objective is carbon it needs neither.

    The rule is asked about the front and the contenders beside it (`dse.analysis.contenders`). Where a search kept none, the answers are of
    the front alone, which a warning says; where the rule could then name one design only, nothing but that is said.
    """
    found = recommend(run)
    if found.design is None or not {o.metric for o in run.problem.objectives} & set(CARBON_METRICS):
        return found
    front = Front.of(run)
    rule, allowed, costs = front.rule()
    if not np.isfinite(costs).all():
        return found
    pool = _pool(run, front, rule, costs.shape[1])
    of = str(run.context["contenders"]["of"]) if pool is not None else ""
    # Only designs that the rule may name: their number is small where quality has narrowed them down.
    keep = np.flatnonzero(allowed)
    if len(keep) + len(pool or ()) < 2:
        return replace(found, compared_with=of, alone=True, contenders_kept=pool is not None)
    case = _Case(run, front, [front.designs[i] for i in keep], pool or [], weighed=costs.shape[1] > 1 and pool is not None)
    own = next(i for i, index in enumerate(keep) if front.designs[index]["design"] == found.design)
    drawn, factors = robustness.drawn(run.problem, case.designs, case.points, seed=run.provenance["seed"] if seed is None else seed)
    names = case.choose(drawn, np.broadcast_to(case.serves_now(), drawn["total_kgco2e"].shape), own=own)
    changes, unchanged = _changes(case, own, beside={d["design"] for d in pool or ()})
    tied = case.tied(own, names, drawn)
    apart = [case.designs[i]["knobs"] for i in names[tied & (names != own)]]
    counts = np.bincount(names[names >= 0], minlength=len(case.designs))
    ahead = int(np.argmax(counts)) if counts.size and counts.max() > counts[own] else None
    profile = run.problem.deployment.carbon_profile
    other, other_design = _by_other_profile(run, front, case)
    return replace(
        found,
        kept_share=float(np.mean(names == own)),
        tied_share=float(np.mean(tied)),
        model_share=_same(case, own, names, run.context.get("model_knobs"), model=True),
        hardware_share=_same(case, own, names, run.context.get("model_knobs"), model=False),
        ties_differ_in=tuple(dict.fromkeys([*case.words.apart(case.designs[own]["knobs"], apart), *found.ties_differ_in])),
        draws=robustness.DRAWS,
        factors=factors,
        changes=tuple(changes),
        unchanged=tuple(unchanged),
        compared_with=of,
        contenders_kept=pool is not None,
        warnings=found.warnings if pool is not None else (*found.warnings, _front_alone(run, rule)),
        ahead=None if ahead is None else case.designs[ahead]["design"],
        ahead_share=None if ahead is None else float(np.mean(names == ahead)),
        carbon_profile=profile,
        other_profile=other,
        other_profile_design=other_design,
        **_of_device(run, found),
    )


def _front_alone(run: RunRecord, rule: str) -> str:
    """That nothing beside the front could be named."""
    why = "are too many to be compared" if "contenders" in run.context else "were not kept"
    beside = "Designs of equal quality beside this front" if rule == ONE_ERROR else "Designs beside this front"
    return f"{beside} {why}, so how sure and what would change speak of this front alone; search again with the other deployment."


def _of_device(run: RunRecord, found: Recommendation) -> dict[str, Any]:
    """The recommended device, where devices are chosen among by total carbon alone, and how often it has the least of them."""
    order = (run.context.get("uncertainty") or {}).get("device_order") or {}
    device = found.knobs.get("device")
    if [str(o) for o in run.problem.objectives] != ["min:total_kgco2e"] or device not in order.get("devices", ()):
        return {}
    share = float(order["least"][list(order["devices"]).index(device)])
    return {"device": str(device), "device_share": share, "device_settled": share >= SETTLED}


def _by_other_profile(run: RunRecord, front: Front, case: _Case) -> tuple[str, int | None]:
    """The other of the two shipped profiles that count any hardware, and the design that the rule names by it; empty, None where that
    does not know the hardware, the recipe of the fab was chosen, or no design could serve.
    """
    problem, deployment = run.problem, run.problem.deployment
    other = {"act2": "default", "default": "act2"}.get(deployment.carbon_profile)
    if other is None or "fab_grid" in problem.vary or "package" in problem.vary or deployment.package:
        return "", None
    try:
        changed = replace(problem, deployment=replace(deployment, carbon_profile=other))
        counted = _Case(replace(run, problem=changed), front, case.designs, [], weighed=case.weighed)
        named = int(counted.name(lifetime_years=np.array([deployment.lifetime_years]))[0])
    except (DseError, carbon.CarbonError):
        return "", None  # of a memory that it lacks
    return (other, case.designs[named]["design"]) if named >= 0 else ("", None)


def _same(case: _Case, own: int, names: npt.NDArray[np.int64], model_knobs: list[str] | None, *, model: bool) -> float | None:
    """Share of the draws that name a design with the same model, or the same hardware; None where the designs are alike in it."""
    if model_knobs is None:  # of an earlier version
        return None
    knobs = [{name: value for name, value in design["knobs"].items() if (name in model_knobs) == model} for design in case.designs]
    same = np.array([chosen == knobs[own] for chosen in knobs])
    return None if same.all() else float(np.mean(same[names] & (names >= 0)))


def _pool(run: RunRecord, front: Front, rule: str, costs: int) -> list[dict[str, Any]] | None:
    """The contenders that the rule may name elsewhere; None where the search kept none, or too many to compare every pair of them."""
    if "contenders" not in run.context or (costs > 1 and len(run.contenders) > _MOST_PAIRED):
        return None
    floor = -math.inf
    if rule == ONE_ERROR and front.quality is not None:
        assert front.error is not None  # the rule needs it
        found = like_floor(front.quality, front.error, front.allowed)
        floor = floor if found is None else found
    known = [o.metric for o in run.problem.objectives]
    supported = any(d.get("quality_support") != "extrapolated" for d in front.designs)
    return [
        d for d in run.contenders
        if all(name in d["metrics"] and math.isfinite(d["metrics"][name]) for name in known)
        and d["metrics"].get("quality", math.inf) >= floor
        and not (supported and d.get("quality_support") == "extrapolated")
    ]  # fmt: skip


class _Case:
    """The designs that the rule may name, and their costs where carbon is another.

    ``weighed``: the rule weighs several costs, each scaled to its range over a front, so in every deployment only the designs of its own
    front are scaled and named.
    """

    def __init__(self, run: RunRecord, front: Front, own: list[dict[str, Any]], pool: list[dict[str, Any]], *, weighed: bool) -> None:
        self.designs = [*own, *pool]
        self.points: Points = robustness.points_of(run.problem, self.designs)
        self.problem = run.problem
        self.weighed = weighed
        self._objectives = front.objectives
        quality = front.quality is not None
        # Quality may stand before the costs, where it is chosen by like one; among those alike it bears on the front alone.
        self._first = 1 if quality and front.rule()[0] != ONE_ERROR and front.objectives else 0
        costs = [o.sign * self.column(o.metric) for o in front.objectives]
        self._costs = np.stack([-self.column("quality"), *costs] if self._first else costs or [-self.column("quality")], axis=1)
        self._quality = -self.column("quality") if quality else None
        self.words = Words.of(run, self.designs)

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

    def choose(self, carbon_metrics: dict[str, FloatArray], serves: BoolArray, own: int | None = None) -> npt.NDArray[np.int64]:
        """What the rule names (...,) of the designs that can serve (..., designs), with these carbon metrics; -1 where none can.

        Design ``own`` is named in place of one that has its costs but for their last digits.
        """
        costs = self.costs_with(carbon_metrics)
        possible: BoolArray = np.asarray(serves.any(axis=-1))
        allowed = serves | ~possible[..., None]
        if self.weighed:
            held = [] if self._quality is None or self._first else [np.broadcast_to(self._quality, costs.shape[:-1])]
            allowed = _on_front(np.stack([*np.moveaxis(costs, -1, 0), *held], axis=-1), allowed)
        named = np.where(possible, choose(costs, allowed), -1)
        if own is None:
            return named
        mine, theirs = costs[..., own, :], np.take_along_axis(costs, named[..., None, None], axis=-2)[..., 0, :]
        one = possible & allowed[..., own] & (np.abs(mine - theirs) <= _ONE * np.abs(theirs)).all(axis=-1)
        return np.where(one, own, named)

    def tied(self, own: int, names: npt.NDArray[np.int64], carbon_metrics: dict[str, FloatArray]) -> BoolArray:
        """Whether design ``own`` is what was named (draws,) or nowhere more than a near tie worse, in each draw."""
        costs = self.costs_with(carbon_metrics)
        return (names >= 0) & no_worse(costs[:, own], np.take_along_axis(costs, names[:, None, None], axis=1)[:, 0])

    def serves_now(self) -> BoolArray:
        """Which designs keep up with the search's own rate and meet its bounds on carbon (designs,)."""
        known = {name: self.column(name) for name in CARBON_METRICS if name in self.designs[0]["metrics"]}
        return self._serves(self.points.rate_per_s, known)

    def _serves(self, rate_per_s: Any, carbon_metrics: dict[str, FloatArray]) -> BoolArray:
        """Where designs keep up with a rate and meet the bounds that a deployment decides."""
        metrics = {**carbon_metrics, "service_utilisation": rate_per_s * self.column("latency_s") / self.points.in_flight}
        serves = np.asarray(metrics["service_utilisation"] <= 1.0)
        for bound in self.problem.constraints:
            if bound.metric in metrics:
                serves = serves & meets(bound, metrics[bound.metric])
        return serves

    def name(self, own: int | None = None, **changed: Any) -> npt.NDArray[np.int64]:
        """What the rule names (values,) where grid, lifetime_years or rate_per_s has each of the given values; -1: none can serve.

        ``own``: as in :meth:`choose`.
        """
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
        return self.choose(metrics, np.broadcast_to(self._serves(setting.get("rate_per_s", p.rate_per_s), metrics), shape), own)


def _on_front(values: FloatArray, allowed: BoolArray) -> BoolArray:
    """Which of the allowed designs no other allowed one beats (..., designs), by values (..., designs, columns) that are minimised."""
    flat, mask = rounded(values.reshape(-1, *values.shape[-2:])), allowed.reshape(-1, allowed.shape[-1])
    kept = mask.copy()
    rows = max(1, _PAIRS // mask.shape[1] ** 2)
    for start in range(0, len(flat), rows):
        part, here = flat[start : start + rows], mask[start : start + rows]
        nowhere_worse = np.ones((*here.shape, here.shape[1]), dtype=bool)  # [i, j]: j is nowhere worse than i
        better = np.zeros_like(nowhere_worse)
        for column in np.moveaxis(part, -1, 0):
            nowhere_worse &= column[:, None, :] <= column[:, :, None]
            better |= column[:, None, :] < column[:, :, None]
        kept[start : start + rows] &= ~(nowhere_worse & better & here[:, None, :]).any(axis=-1)
    return kept.reshape(allowed.shape)


def _changes(case: _Case, own: int, beside: set[int]) -> tuple[list[Change], list[str]]:
    """The nearest value below and above the deployment's own, of each factor, at which the rule names another design."""
    deployment, vary = case.problem.deployment, case.problem.vary
    found: list[Change] = []
    unchanged: list[str] = []
    for knob, (factor, unit, low, high), here in _factors(deployment):
        if knob in vary:
            continue  # the search has answered that already
        low, high = min(low, here), max(high, here)
        if not here > 0 or case.name(own, **{knob: np.array([here])})[0] != own:
            continue  # figures of an earlier version or of another grid's table
        mine = []
        for relation, end in (("<", low), (">", high)):
            change = _nearest(case, knob, own, here, end)
            if change is not None:
                value, index = change
                design = case.designs[index]
                phrase = case.words.beside(design["knobs"], case.designs[own]["knobs"])
                examples = _regions(relation, value) if knob == "grid" else ()
                number = design["design"]
                mine.append(Change(factor, relation, value, unit, number, phrase, examples, on_front=number not in beside))
        found += mine
        if not mine:
            named = case.name(own, **{knob: (values := np.geomspace(low, high, _STEPS))})
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
    named = case.name(own, **{knob: values})

    def at(value: float) -> int:
        return int(case.name(own, **{knob: np.array([value])})[0])

    # Of two designs that are equal up to rounding another may be named at one value and nowhere beside it: that changes nothing.
    other = next((i for i in np.flatnonzero(named != own).tolist() if at(math.exp(math.log(values[i]))) != own), 0)
    if not other or named[other] < 0:
        return None
    inside, outside = math.log(values[other - 1]), math.log(values[other])
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if at(math.exp(middle)) == own else (inside, middle)
    index = at(math.exp(outside))
    return (math.exp(outside), index) if index >= 0 else None


def _regions(relation: str, value: float) -> tuple[str, ...]:
    """Well-known grids on that side."""
    grids = [(carbon.factors.grid.lookup(name).gco2e_per_kwh, name) for name in DEFAULT_REGIONS]
    return tuple(name for intensity, name in sorted(grids) if (intensity < value if relation == "<" else intensity > value))
