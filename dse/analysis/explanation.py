"""Which design for which deployment: segments x Pareto designs, exact costs, and a small tree of questions that assigns them.

A segment is a grid of use, a lifetime, a request rate and a latency budget. For every segment and every design of a run's front the
total carbon over the lifetime at equal service is computed exactly (embodied carbon, energy, latency and idle power of a design do not
depend on the segment); a design that misses the budget or cannot keep up with the rate cannot serve. The best assignment of segments
to designs (the oracle) is then compared with one design for all of them and with trees of a few questions, which are fitted on that
cost itself and exactly (`dse.analysis.policy_tree`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from carbon.factors.grid import lookup
from carbon.operational.service import equal_service
from dse.analysis import policy_tree
from dse.analysis.policy_tree import Leaf, Split, Tree
from dse.errors import DseError, UsageError, unknown_name
from dse.evaluation.robustness import points_of

if TYPE_CHECKING:
    from dse.storage.run_folder import RunRecord

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

DEFAULT_REGIONS = ("iceland", "france", "usa", "world", "india")
DEFAULT_LIFETIMES_YEARS = (1.0, 2.0, 3.0, 5.0, 8.0)
# Shares of the time that the fastest design is busy; the rates follow from its latency.
DEFAULT_LOADS = (0.001, 0.01, 0.1, 0.4, 0.9)
# Designs are compared at like quality: those within this many standard errors of the best.
DEFAULT_QUALITY_ERRORS = 2.0
MAX_CELLS = 200_000
WEIGHTS = ("kg", "share")
FEATURES = ("grid [gCO2e/kWh]", "lifetime [years]", "rate [1/s]", "latency budget [s]")


@dataclass(frozen=True)
class Segments:
    """A product grid of deployments, every axis ascending.

    ``regions`` name the grids of ``gco2e_per_kwh``; the last latency budget may be infinite (none).
    """

    regions: tuple[str, ...]
    gco2e_per_kwh: tuple[float, ...]
    lifetime_years: tuple[float, ...]
    rate_per_s: tuple[float, ...]
    latency_budget_s: tuple[float, ...]

    @property
    def axes(self) -> tuple[tuple[float, ...], ...]:
        """Values along each feature."""
        return (self.gco2e_per_kwh, self.lifetime_years, self.rate_per_s, self.latency_budget_s)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along each feature."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of segments."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Candidates:
    """Designs that may be assigned, as columns (designs,): rank in the front, costs, quality (NaN without), and the requests that each
    works on at a time (None: one)."""

    design: npt.NDArray[np.int64]
    embodied_kgco2e: FloatArray
    energy_j: FloatArray
    latency_s: FloatArray
    idle_w: FloatArray
    quality: FloatArray
    in_flight: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.design)


WORTH_ASKING = 1e-3
"""Share of the single design's carbon below which the oracle saves nothing worth a question: far inside the range of any factor."""


@dataclass(frozen=True)
class Policy:
    """A tree and what it costs over the segments that any design can serve.

    Attributes:
        unserved: segments whose design cannot serve them although another could.
        mean_kgco2e: mean total carbon of the segments that it serves. mean_excess: mean of their carbon over the oracle's, less 1.
        recovered: share of the oracle's saving over the best single design; NaN where that is less than `WORTH_ASKING` of its carbon.
    """

    tree: Tree
    unserved: int
    mean_kgco2e: float
    mean_excess: float
    recovered: float


@dataclass(frozen=True)
class Explanation:
    """Costs, assignments and trees of a run's designs over segments.

    Attributes:
        segments, candidates: rows and columns. quality_floor: designs below it were left out (None: none were).
        total_kgco2e: (grid, lifetime, rate, budget, designs); infinite where the design cannot serve.
        weigh: what the trees minimise: the sum of ``kg``, or of the ``share`` of each segment's least carbon, so that all count alike.
        impossible: segments that no design can serve; they count nowhere.
        oracle: index of the cheapest design of each segment, -1 where impossible. oracle_mean_kgco2e: mean of its costs.
        only_best: no standard error of the best quality is known, so that without a floor of the user's nothing but it was kept.
        single: index of the best single design. policies: best tree of each depth, 0 (the single design) first.
    """

    segments: Segments
    candidates: Candidates
    quality_floor: float | None
    total_kgco2e: FloatArray
    impossible: int
    oracle: npt.NDArray[np.int64]
    oracle_mean_kgco2e: float
    single: int
    policies: tuple[Policy, ...]
    weigh: str = "kg"
    only_best: bool = False

    @property
    def possible(self) -> BoolArray:
        """Segments that some design can serve."""
        return np.asarray(self.oracle >= 0)


def candidates_of(run: RunRecord, quality_floor: float | None = None) -> tuple[Candidates, float | None]:
    """The designs of a front, and the contenders beside it, that have at least ``quality_floor``, and the floor that was used.

    Without a floor, designs within two standard errors of the best quality count as like; without a quality metric all do.
    """
    designs = [*run.designs, *run.contenders]
    points = points_of(run.problem, designs)
    rows = []
    for at, design in enumerate(designs):
        metrics = design["metrics"]
        rows.append(
            (
                design["design"],
                metrics["embodied_kgco2e"],
                metrics["energy_j"],
                metrics["latency_s"],
                float(points.leakage_w[at]),
                metrics.get("quality", math.nan),
                float(points.in_flight[at]),
                metrics.get("quality_se", math.nan),
            )
        )
    table = np.array(rows, dtype=np.float64)
    quality, error = table[:, 5], table[:, 7]
    keep = np.ones(len(table), dtype=bool)
    floor = quality_floor
    if np.isfinite(quality).all():
        best = int(np.argmax(quality))
        if floor is None:
            floor = float(quality[best] - DEFAULT_QUALITY_ERRORS * (error[best] if np.isfinite(error[best]) else 0.0))
        keep = quality >= floor
        if not keep.any():
            raise UsageError(f"min-quality is {floor:g}; the best design of run {run.path} has {quality.max():.4g}")
    elif floor is not None:
        raise UsageError(f"min-quality is {floor:g}, but the designs of run {run.path} have no quality")
    kept = table[keep]
    return Candidates(kept[:, 0].astype(np.int64), *(np.ascontiguousarray(kept[:, i]) for i in range(1, 7))), floor


def make_segments(
    candidates: Candidates,
    *,
    regions: str | Sequence[str] = DEFAULT_REGIONS,
    lifetimes: Sequence[float] = DEFAULT_LIFETIMES_YEARS,
    rates: Sequence[float] | None = None,
    budgets_s: Sequence[float] | None = None,
) -> Segments:
    """Segments from the given axes. Rates default to those that keep the fastest design busy for 0.1 to 90 % of the time; budgets to
    the quartiles of the designs' latencies and none.
    """
    if isinstance(regions, str):  # a name, or names as the command line takes them; iterated, it would be its letters
        regions = [name.strip() for name in regions.split(",") if name.strip()]
    grids = sorted({(lookup(name).gco2e_per_kwh, name) for name in regions})
    if rates is None:
        fastest = float(candidates.latency_s.min())
        rates = sorted({_rounded_down(load / fastest) for load in DEFAULT_LOADS})
    if budgets_s is None:
        # The budget that a design just meets is rounded up, so that it does meet it.
        quartiles = np.quantile(candidates.latency_s, (0.0, 0.25, 0.5), method="lower")
        budgets_s = [*sorted({_rounded_up(float(q)) for q in quartiles}), math.inf]
    axes = {"lifetimes": lifetimes, "rates": rates, "latency budgets": budgets_s}
    for name, axis in axes.items():
        if not axis:
            raise UsageError(f"{name} is empty; give at least one value")
        for value in axis:
            if not value > 0:
                raise UsageError(f"{name} holds {value}; positive numbers are needed")
    segments = Segments(
        tuple(name for _, name in grids),
        tuple(float(value) for value, _ in grids),
        *(tuple(sorted(set(map(float, axis)))) for axis in axes.values()),
    )
    if segments.size * len(candidates) > MAX_CELLS * 500:
        raise UsageError(f"{segments.size:,} segments x {len(candidates):,} designs are more than are compared here; give fewer values")
    return segments


def _rounded_down(value: float) -> float:
    """Two significant digits, towards zero."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / scale) * scale:.2g}")


def _rounded_up(value: float) -> float:
    """Two significant digits, away from zero."""
    scale = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / scale - 1e-12) * scale:.2g}")


def total_costs(candidates: Candidates, segments: Segments, *, pue: float) -> FloatArray:
    """Total carbon over the lifetime (grid, lifetime, rate, budget, designs) [kgCO2e]; infinite where the design cannot serve."""
    grids, years, rates, budgets = (
        np.array(axis, dtype=np.float64).reshape([-1 if i == j else 1 for j in range(4)] + [1]) for i, axis in enumerate(segments.axes)
    )
    operation = equal_service(
        candidates.energy_j,
        candidates.latency_s,
        idle_w=candidates.idle_w,
        rate_per_s=rates,
        lifetime_years=years,
        pue=pue,
        gco2e_per_kwh=grids,
        concurrency=1.0 if candidates.in_flight is None else candidates.in_flight,
    )
    total = candidates.embodied_kgco2e + np.asarray(operation.operational_kgco2e)
    serves = np.asarray(operation.feasible) & (candidates.latency_s <= budgets)
    return np.where(serves, total, np.inf)


def explain(
    run: RunRecord,
    *,
    depth: int = 3,
    min_quality: float | None = None,
    weigh: str = "kg",
    segments: Segments | None = None,
    **axes: Any,
) -> Explanation:
    """Assign the designs of a run to deployment segments.

    Args:
        depth: most questions of a tree, 0 to 4.
        weigh: what trees minimise: ``kg`` or ``share`` (see :class:`Explanation`).
        min_quality: designs of lower quality are left out (default: within two standard errors of the best).
        segments: the segments, or ``axes`` of :func:`make_segments` (regions, lifetimes, rates, budgets_s).

    Raises DseError for values out of range, or if no design can serve any segment.
    """
    if not 0 <= depth <= policy_tree.MAX_DEPTH:
        raise UsageError(f"depth is {depth}; it must be from 0 to {policy_tree.MAX_DEPTH}")
    candidates, floor = candidates_of(run, min_quality)
    grid = segments if segments is not None else make_segments(candidates, **axes)
    found = assign(candidates, grid, pue=run.problem.deployment.pue, depth=depth, quality_floor=floor, weigh=weigh)
    return replace(found, only_best=bool(min_quality is None and floor is not None and floor == np.nanmax(candidates.quality)))


def assign(
    candidates: Candidates,
    segments: Segments,
    *,
    pue: float = 1.0,
    depth: int = 3,
    quality_floor: float | None = None,
    weigh: str = "kg",
) -> Explanation:
    """The oracle, the best single design and the best trees of designs over segments."""
    if weigh not in WEIGHTS:
        raise unknown_name("weigh", weigh, WEIGHTS)
    total = total_costs(candidates, segments, pue=pue)
    served = np.isfinite(total)
    possible: BoolArray = np.asarray(served.any(axis=-1))
    if not possible.any():
        raise DseError(
            f"no design can serve any of the {segments.size} segments; lower the rates or widen the latency budgets "
            f"(the fastest design takes {candidates.latency_s.min():.3g} s)"
        )
    oracle = np.where(possible, np.argmin(total, axis=-1), -1)
    best = np.where(possible, np.min(np.where(served, total, np.inf), axis=-1), 0.0)
    # Segments that nobody can serve cost nothing and ask nothing: they are no reason for a question.
    unit = np.where(possible, best, 1.0) if weigh == "share" else np.ones_like(best)
    cost = np.where(served, total, 0.0) / unit[..., None]
    answerable = served | ~possible[..., None]
    trees = [policy_tree.fit(cost, answerable, d) for d in range(depth + 1)]
    assert isinstance(trees[0], Leaf)
    single = trees[0].choice
    policies = tuple(_policy(tree, total, possible, best, unit, single) for tree in trees)
    return Explanation(
        segments=segments,
        candidates=candidates,
        quality_floor=quality_floor,
        total_kgco2e=total,
        impossible=int(np.count_nonzero(~possible)),
        oracle=oracle,
        oracle_mean_kgco2e=float(best[possible].mean()),
        single=single,
        policies=policies,
        weigh=weigh,
    )


def _policy(tree: Tree, total: FloatArray, possible: BoolArray, best: FloatArray, unit: FloatArray, single: int) -> Policy:
    chosen = policy_tree.assignment(tree, possible.shape)
    cost = np.take_along_axis(total, chosen[..., None], axis=-1)[..., 0]
    served = possible & np.isfinite(cost)
    alone = total[..., single]
    # Savings are compared where the single design serves too; segments that only the tree serves are its gain beside.
    both = served & np.isfinite(alone)
    room = float(((alone[both] - best[both]) / unit[both]).sum())
    saved = float(((alone[both] - cost[both]) / unit[both]).sum())
    return Policy(
        tree=tree,
        unserved=int(np.count_nonzero(possible & ~served)),
        mean_kgco2e=float(cost[served].mean()) if served.any() else math.nan,
        mean_excess=float((cost[served] / best[served]).mean() - 1.0) if served.any() else math.nan,
        recovered=saved / room if room > WORTH_ASKING * float((alone[both] / unit[both]).sum()) else math.nan,
    )


def tree_json(tree: Tree, explanation: Explanation) -> dict[str, Any]:
    """A tree as plain values; thresholds lie midway between the values they separate."""
    if isinstance(tree, Leaf):
        return {
            "design": int(explanation.candidates.design[tree.choice]),
            "segments": tree.cells,
            "unserved": tree.unserved,
        }
    return {
        "question": question(tree, explanation.segments),
        "feature": FEATURES[tree.feature],
        "threshold": threshold(tree, explanation.segments),
        "yes": tree_json(tree.left, explanation),
        "no": tree_json(tree.right, explanation),
    }


def threshold(split: Split, segments: Segments) -> float:
    """A value between the last value on the left and the first on the right: their geometric mean, or the left one before infinity."""
    axis = segments.axes[split.feature]
    low, high = axis[split.index - 1], axis[split.index]
    return low if math.isinf(high) else math.sqrt(low * high) if low > 0 else (low + high) / 2


def question(split: Split, segments: Segments) -> str:
    """The question that a split asks, with what is on the yes side."""
    name, _, unit = FEATURES[split.feature].partition(" [")
    unit = unit.rstrip("]")
    value = threshold(split, segments)
    if split.feature == 3 and math.isinf(segments.latency_budget_s[split.index]):
        return f"is there a latency budget (of {value * 1e3:.3g} ms or less)?"
    if split.feature == 3:
        return f"latency budget <= {value * 1e3:.3g} ms?"
    text = f"{name} <= {value:.3g}{' ' + unit if unit not in ('1/s',) else ' a second'}?"
    if split.feature == 0:
        text += f" ({', '.join(segments.regions[: split.index])})"
    return text
