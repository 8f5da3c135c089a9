"""Two runs side by side: what was asked differently, how much each front dominates, and which design dominates which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.evaluation.evaluation import load_hardware
from dse.fronts.pareto import dominated_by, hypervolume
from dse.problem.objectives import Objective
from dse.problem.problem import Problem
from dse.problem.wording import finite, joined, plural
from dse.storage.run_folder import distinct
from workloads import library

if TYPE_CHECKING:
    from dse.storage.run_folder import RunRecord

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# The reference point lies this share of the range beyond the worst value of either front, so that no end of a front counts nothing.
REFERENCE_MARGIN = 0.1
# Slicing takes about n^(d-1) steps; beyond this a hypervolume would keep a user waiting.
MAX_HYPERVOLUME_STEPS = 3_000_000


@dataclass(frozen=True)
class Side:
    """One of the two runs.

    Attributes:
        path, designs: the run and how many designs its front has; of designs that are equal in its objectives one counts.
        hypervolume: dominated volume over that of both fronts together; None where it was not computed.
        dominated: {design: design of the other front that dominates it (the first)}. on_merged_front: designs that no other dominates.
        best: for each objective the best value.
    """

    path: str
    designs: int
    hypervolume: float | None
    dominated: Mapping[int, int]
    on_merged_front: int
    best: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """The answer of :func:`compare`.

    Attributes:
        objectives: what the fronts are compared by. notes: what to know about that.
        not_comparable: objectives that the runs count on different grounds, {metric: why}; no verdict is made of them.
        settings: settings that differ, {name: (first, second)}.
        first, second: the two runs. reference: the common reference point, in the units of the metrics.
        shared: designs with the same knobs in both fronts, {(first, second)}; changes: their largest relative change a metric.
    """

    objectives: tuple[Objective, ...]
    notes: tuple[str, ...]
    settings: Mapping[str, tuple[Any, ...]]
    first: Side
    second: Side
    reference: Mapping[str, float]
    shared: tuple[tuple[int, int], ...]
    changes: Mapping[str, float]
    not_comparable: Mapping[str, str]


def compare(first: RunRecord, second: RunRecord) -> Comparison:
    """Compare the fronts of two runs by the objectives that both have.

    Raises UsageError if they have no objective in common that can be compared.
    """
    objectives, notes, left_out = common_objectives([first, second])
    a, b = objective_rows(first, objectives), objective_rows(second, objectives)
    beaten_a, beaten_b = dominated_by(a, b), dominated_by(b, a)
    worst, _, span = _ends(np.concatenate([a, b]))
    reference = worst + REFERENCE_MARGIN * span
    mine, theirs = volumes([a, b], notes)
    shared, changes = _shared(first, second)
    return Comparison(
        objectives=objectives,
        notes=tuple(notes),
        settings=setting_differences([first, second]),
        first=_side(first, second, objectives, a, beaten_a, mine),
        second=_side(second, first, objectives, b, beaten_b, theirs),
        reference={o.metric: float(o.sign * r) for o, r in zip(objectives, reference, strict=True)},
        shared=shared,
        changes=changes,
        not_comparable=left_out,
    )


def common_objectives(runs: Sequence[RunRecord]) -> tuple[tuple[Objective, ...], list[str], dict[str, str]]:
    """What runs can be compared by (:func:`_asked_of_all`), notes on that, and what they count on different grounds, {metric: why}.

    Raises UsageError if nothing is left.
    """
    objectives, notes = _asked_of_all(runs)
    left_out = {o.metric: why for o in objectives if (why := _other_grounds(o.metric, runs))}
    kept = tuple(o for o in objectives if o.metric not in left_out)
    if not kept:
        raise UsageError(not_comparable_text(left_out))
    return kept, notes, left_out


def not_comparable_text(left_out: Mapping[str, str]) -> str:
    """What is not compared, why, and how it could be."""
    whys = "; ".join(dict.fromkeys(left_out.values()))
    return f"not comparable: {joined(list(left_out))}, for {whys}"


_SERVED = {"rate_per_s": "rate", "lifetime_years": "lifetime-years", "pue": "pue"}
# By a part of the metric's name, the first that is in it: what a figure is counted for, and the option that sets it.
_GROUNDS: dict[str, dict[str, str]] = {
    "embodied_kgco2e": {"carbon_profile": "carbon-profile"},
    "operational_kgco2e": {"grid": "grid", **_SERVED},
    "kgco2e": {"carbon_profile": "carbon-profile", "grid": "grid", **_SERVED},
    "usd_per_request": {"electricity_usd_per_kwh": "electricity-usd", **_SERVED},
}


def _other_grounds(metric: str, runs: Sequence[RunRecord]) -> str:
    """Why one metric of runs is counted on different grounds; empty where it is not.

    A field that a run varies is a choice of its designs, as the package and the fab's grid are, and no ground.
    """
    grounds = next((_GROUNDS[part] for part in _GROUNDS if part in metric), {})
    for name, option in grounds.items():
        values = list(dict.fromkeys(getattr(run.problem.deployment, name) for run in runs))
        if len(values) > 1 and not any(name in run.problem.vary for run in runs):
            what = name.replace("_", " ") if name == "carbon_profile" else name
            return f"the runs differ in {what} ({joined([str(value) for value in values])}); name one --{option} for all of them"
    return ""


def _asked_of_all(runs: Sequence[RunRecord]) -> tuple[tuple[Objective, ...], list[str]]:
    """The objectives that all runs ask for, or else all that some ask for and all know; and notes on that."""
    for run in runs:
        if not run.designs:
            raise UsageError(f"run {run.path} has an empty front; there is nothing to compare")
    asked = [run.problem.objectives for run in runs]
    notes = [*_quality_notes(runs), *ground_notes([run.problem for run in runs]), *_equal_notes(runs), *_claim_notes(runs)]
    if all(set(own) == set(asked[0]) for own in asked):
        return asked[0], notes
    named = joined([str(run.path) for run in runs])
    known = set.intersection(*(set(run.designs[0]["metrics"]) for run in runs))
    together: dict[str, Objective] = {}
    for objective in dict.fromkeys(o for own in asked for o in own):
        if together.setdefault(objective.metric, objective) != objective:
            raise UsageError(f"runs {named} ask for opposite directions of {objective.metric}; they cannot be compared")
    objectives = tuple(o for o in together.values() if o.metric in known)
    if not objectives:
        raise UsageError(f"runs {named} have no metric in common that one of them asks for")
    texts = " | ".join(", ".join(map(str, own)) for own in asked)
    know = "both" if len(runs) == 2 else "all"
    return objectives, [f"the runs ask for different objectives ({texts}); they are compared by all that {know} know", *notes]


def _quality_notes(runs: Sequence[RunRecord]) -> list[str]:
    workloads = list(dict.fromkeys(run.problem.workload for run in runs))
    if len({_model(run) for run in runs}) > 1:
        return [f"the workloads differ ({joined(workloads)}): costs and qualities are of different tasks"]
    if any(run.problem.deployment != runs[0].problem.deployment for run in runs):
        return ["the deployments differ: carbon was counted for each run's own"]
    return []


def ground_notes(problems: Sequence[Problem]) -> list[str]:
    """Where a device with figures of its data sheet stands beside a template or a file whose figures are sums of the technology tables."""
    hardware = [load_hardware(problem) for problem in problems if not problem.kind]
    found: dict[tuple[str, str], list[str]] = {}
    for figure, words in (("leakage_w", "idle power"), ("area_mm2", "area")):
        tables = joined(list(dict.fromkeys(h.name for h in hardware if h.ground(figure) == "tables")))
        sheets = joined(list(dict.fromkeys(h.name for h in hardware if h.ground(figure) == "data sheet")))
        if tables and sheets:
            found.setdefault((tables, sheets), []).append(words)
    told = []
    for (tables, sheets), figures in found.items():
        idle = " (idle power: the SRAM's leakage alone)" if "idle power" in figures else ""
        told.append(
            f"{joined(figures)} {'rest' if len(figures) > 1 else 'rests'} on different grounds: of {tables} the sum of the technology "
            f"tables{idle}, of {sheets} the data sheet"
        )
    return told


def _equal_notes(runs: Sequence[RunRecord]) -> list[str]:
    """Fronts on which designs are equal in every objective: each is counted once, so that sizes differ from those of pareto.csv."""
    counts = [(len(run.designs), len(distinct(run.designs)), run.path) for run in runs]
    told = [f"{path} has {plural(every, 'design')} in pareto.csv and {once:,} that differ" for every, once, path in counts if once < every]
    return [f"designs that are equal in every objective count once: {joined(told)}"] if told else []


def _claim_notes(runs: Sequence[RunRecord]) -> list[str]:
    """Where fronts hold the best of measurements that err: the lucky ones stand there, so that each claims more than is true."""
    own = [run for run in runs if isinstance(run.context.get("quality_evaluator"), Mapping)
           and any(o.metric == "quality" for o in run.problem.objectives) and "confirmation" not in run.context]  # fmt: skip
    erring = [run for run in own if any(finite(d["metrics"].get("quality_se")) for d in run.designs)]
    words = {str(run.context["quality_evaluator"]["evaluator"]) for run in own}
    told = []
    if erring:
        told.append(
            f"of {joined([str(run.path) for run in erring])} the front holds the best of noisy measurements, which flatters it (winner's "
            "curse): what it claims is above the truth; confirm= (--confirm N) measures a front again"
        )
    if len(words) > 1 and len(erring) < len(own):
        told.append(
            f"quality was measured by {joined(sorted(words))}, and not of every run is its standard error known: as far as a measurement "
            "is noisy, its front claims more than is true; confirm= (--confirm N) measures a front again"
        )
    return told


def _model(run: RunRecord) -> str:
    """What a workload's name stands for (``bert`` and ``bert-base`` are one); the name itself where it is a file."""
    return library.ALIASES.get(run.problem.workload, run.problem.workload)


def objective_rows(run: RunRecord, objectives: tuple[Objective, ...]) -> FloatArray:
    """Objective values (designs, objectives), to be minimised."""
    return np.array(
        [[o.sign * float(design["metrics"][o.metric]) for o in objectives] for design in distinct(run.designs)], dtype=np.float64
    )


def _ends(rows: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Worst and best value of each objective over rows (designs, objectives), and how far they lie apart (of equal ones their size)."""
    worst, best = rows.max(axis=0), rows.min(axis=0)
    return worst, best, np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1.0))


def volumes(fronts: Sequence[FloatArray], notes: list[str]) -> list[float | None]:
    """Hypervolumes of fronts (designs, objectives) as shares of that of all together, objectives scaled to their range over all."""
    together = np.concatenate(fronts)
    count, dimensions = together.shape
    if count ** max(1, dimensions - 1) > MAX_HYPERVOLUME_STEPS:
        notes.append(f"no hypervolume: {count} designs in {dimensions} objectives would take too long")
        return [None] * len(fronts)
    _, best, span = _ends(together)
    reference = np.full(dimensions, 1.0 + REFERENCE_MARGIN)
    whole, *each = (hypervolume((values - best) / span, reference) for values in (together, *fronts))
    return [volume / whole for volume in each]


def _side(
    run: RunRecord,
    other: RunRecord,
    objectives: tuple[Objective, ...],
    values: FloatArray,
    beaten: npt.NDArray[np.int64],
    volume: float | None,
) -> Side:
    numbers = [int(design["design"]) for design in distinct(run.designs)]
    theirs = [int(design["design"]) for design in distinct(other.designs)]
    dominated = {numbers[i]: theirs[int(by)] for i, by in enumerate(beaten.tolist()) if by >= 0}
    return Side(
        path=str(run.path),
        designs=len(numbers),
        hypervolume=volume,
        dominated=dominated,
        # Where the objectives differ from the run's own, its front may hold designs that another of it dominates.
        on_merged_front=int(np.count_nonzero((beaten < 0) & (dominated_by(values, values) < 0))),
        best={o.metric: float(o.sign * values[:, i].min()) for i, o in enumerate(objectives)},
    )


def _shared(first: RunRecord, second: RunRecord) -> tuple[tuple[tuple[int, int], ...], dict[str, float]]:
    """Designs with equal knobs, and how much each metric of them differs at most (relative to the first)."""
    places = {_key(design): design for design in second.designs}
    pairs = [(design, places[_key(design)]) for design in first.designs if _key(design) in places]
    changes: dict[str, float] = {}
    for mine, theirs in pairs:
        for name, value in mine["metrics"].items():
            other = theirs["metrics"].get(name)
            if other is not None and other != value and value:
                change = other / value - 1.0
                if abs(change) > abs(changes.get(name, 0.0)):
                    changes[name] = change
    return tuple((int(mine["design"]), int(theirs["design"])) for mine, theirs in pairs), changes


def _key(design: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in design["knobs"].items()))


def setting_differences(runs: Sequence[RunRecord]) -> dict[str, tuple[Any, ...]]:
    """Settings of the problems, strategies and versions that differ: {name: one value a run}; nested names joined by dots."""
    settings = [_flat_settings(run) for run in runs]
    rows = {name: tuple(one.get(name) for one in settings) for name in dict.fromkeys(name for one in settings for name in one)}
    return {name: row for name, row in rows.items() if any(value != row[0] for value in row)}


def _flat_settings(run: RunRecord) -> dict[str, Any]:
    """Settings of the problem, the strategy and the version by their names, nested ones joined by dots."""
    found: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else str(key), item)
        elif prefix == "hardware_toml":
            # The text of a user's file: that it differs is the news, not its hundred lines.
            found[prefix] = None if value is None else f"{len(str(value).splitlines())} lines, hash {_digest(str(value))}"
        else:
            found[prefix] = value

    walk("", run.problem.to_dict())
    strategy = run.context.get("strategy") or {}
    found["strategy"] = strategy.get("name", "exhaustive")
    found["trials"] = strategy.get("trials")
    found["quality measured by"] = (run.context.get("quality_evaluator") or {}).get("evaluator")
    found["dse version"] = run.provenance.get("version")
    found["seed"] = run.provenance.get("seed")
    return found


def _digest(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:10]
