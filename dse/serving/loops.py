"""Search over a reasoning loop, the model in it and the devices below: every configuration of a grid, exact front, and what a cache of
prefixes moves.

answer = search_loops("thought-ics", "llama3-8b", "h100", objective="carbon")
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.operational.service import equal_service
from dse.errors import DseError, UsageError, unknown_name
from dse.evaluation.hardware_points import Points, make_points
from dse.fronts.pareto import Front, hypervolume
from dse.problem.deployment import Deployment
from dse.problem.objectives import PRESETS, Constraint, Objective
from dse.serving.loop_costs import StageCosts
from dse.serving.loop_quality import Quality, QualitySource, source_of
from dse.spaces.hardware import HardwareSpace, load_path_or_name
from hw_models.devices.sets import device_space
from workloads import library
from workloads.family import Family
from workloads.reasoning.phases import longest_context
from workloads.reasoning.plans import LOOPS, Lengths, Loop, Plan, check_knob, loop
from workloads.reasoning.rates import Rates

FloatArray = npt.NDArray[np.float64]

# Figures of a configuration, with units; what is better of each.
METRICS: dict[str, tuple[str, str]] = {
    "quality": ("%", "max"),
    "signal": ("%", "max"),
    "latency_s": ("s", "min"),
    "energy_j": ("J a problem", "min"),
    "energy_j_per_solved": ("J a solved problem", "min"),
    "gco2e_per_problem": ("gCO2e", "min"),
    "gco2e_per_solved": ("gCO2e a solved problem", "min"),
    "total_kgco2e": ("kgCO2e over the lifetime", "min"),
    "embodied_kgco2e": ("kgCO2e", "min"),
    "operational_kgco2e": ("kgCO2e over the lifetime", "min"),
    "prefill_tokens": ("tokens of prompts computed, a problem", "min"),
    "decode_tokens": ("tokens made, a problem", "min"),
    "service_utilisation": ("1", ""),
    "dram_fill": ("1", ""),
    "chips": ("1", "min"),
}
SETTINGS = ("weight_bits", "activation_bits", "kv_bits")
DRAWS = 2000
MAX_CONFIGURATIONS = 200_000
MAX_DRAWN = 200  # configurations of the front whose percentiles are drawn
MAX_DRAWN_STATES = 4_000_000  # thoughts of all draws at a time


@dataclass(frozen=True)
class LoopProblem:
    """What is searched: a loop, its lengths and rates, models, devices, knobs, deployment and what is asked for."""

    loop: Loop
    models: tuple[str, ...]
    hw: str
    lengths: Lengths
    rates: Rates
    knobs: Mapping[str, tuple[Any, ...]]
    chips: tuple[int, ...]
    settings: Mapping[str, int]
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    deployment: Deployment
    quality: QualitySource

    def plans(self) -> list[Plan]:
        """Distinct configurations of the loop, in order of the knobs; a policy or a knob that changes nothing is there once."""
        found: dict[Any, Plan] = {}
        for values in itertools.product(*self.knobs.values()):
            plan = self.loop.plan(self.lengths, self.rates, dict(zip(self.knobs, values, strict=True)))
            work = tuple((stage.work, stage.trials, stage.multiple, stage.probability) for stage in plan.stages)
            found.setdefault((work, plan.quality, plan.knobs["problems"], self._told(plan)), plan)
        return list(found.values())

    def _told(self, plan: Plan) -> Any:
        # What a table tells apart is told apart, whatever it costs.
        quality = [self.quality.of(plan, model) for model in self.models]
        return tuple((q.solved, q.standard_error) if q else None for q in quality)


def loop_problem(
    workload: str,
    model: str | Sequence[str],
    hw: str,
    *,
    objective: str | Iterable[str] = "carbon",
    constraints: Iterable[str] = (),
    vary: Mapping[str, Sequence[Any]] | None = None,
    fixed: Mapping[str, Any] | None = None,
    quality: str = "scripted",
    deployment: Deployment | None = None,
) -> LoopProblem:
    """A problem from words. ``fixed`` sets knobs, chips, lengths, rates (`Rates`) and widths of the model by name; ``vary`` lists values of
    knobs and of chips. Unknown names are errors that name the nearest."""
    of = loop(workload)
    names = tuple(model.split(",")) if isinstance(model, str) else tuple(model)
    if not all(name.strip() for name in names):
        raise UsageError("model is missing; name the model that reasons with --model (e.g. llama3-8b)")
    source = source_of(quality, of)
    if len(names) > 1 and not source.tells_models:
        raise UsageError(
            f"quality {quality} says nothing of how {len(names)} models differ; name one model, or a table with a column 'model'"
        )
    knobs = {name: tuple(values) for name, values in of.knobs.items()}
    own, rates, widths = dict(vary or {}), {}, {}
    lengths = {item.name: getattr(of.lengths, item.name) for item in fields(Lengths)}
    rate_names = {item.name for item in fields(Rates)}
    known = [*knobs, "chips", *of.used, *sorted(rate_names), *SETTINGS]
    for name, value in (fixed or {}).items():
        if name in knobs or name == "chips":
            if name in own:
                raise UsageError(f"{name} is fixed and varied; leave it to one of them")
            own[name] = (value,)
        elif name in of.used:
            lengths[name] = value
        elif name in rate_names:
            rates[name] = value
        elif name in SETTINGS:
            widths[name] = value
        else:
            raise unknown_name(f"set of {of.name}", name, known)
    chips: tuple[int, ...] = ()
    for name, values in own.items():
        if name == "chips":
            for value in values:
                if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1024:
                    raise UsageError(f"chips is {value!r}, must be a whole number from 1 to 1024")
            chips = tuple(values)
        elif name in knobs:
            knobs[name] = tuple(dict.fromkeys(check_knob(of, name, value) for value in values))
        else:
            raise unknown_name(f"vary of {of.name}", name, [*knobs, "chips"])
    size = len(names)
    for values in knobs.values():
        size *= len(values)
    if size > MAX_CONFIGURATIONS:
        raise UsageError(f"the knobs make {size} configurations, must be at most {MAX_CONFIGURATIONS}; list fewer values")
    profile = load_path_or_name(hw, profile=None).default_carbon_profile
    named = deployment.carbon_profile if deployment else ""
    return LoopProblem(
        of,
        names,
        hw,
        Lengths(**lengths),
        Rates(**rates),
        knobs,
        chips,
        widths,
        _objectives(objective),
        _constraints(constraints),
        replace(deployment or Deployment(carbon_profile=""), carbon_profile=named or profile),
        source,
    )


def _objectives(words: str | Iterable[str]) -> tuple[Objective, ...]:
    given = [words] if isinstance(words, str) else list(words)
    if len(given) == 1 and given[0] in PRESETS:
        chosen = PRESETS[given[0]].objectives
        for one in chosen:
            if one.metric not in METRICS:
                raise unknown_name("objective of a loop", given[0], [name for name in PRESETS if name != "hardware"])
        return chosen
    found = []
    for text in given:
        side, colon, name = text.partition(":")
        if not colon or side not in ("min", "max"):
            raise UsageError(f"objective is {text!r}, must be a preset ({', '.join(PRESETS)}), min:METRIC or max:METRIC")
        if name not in METRICS:
            raise unknown_name("objective of a loop", name, METRICS)
        found.append(Objective(side, name))
    if not found or len({o.metric for o in found}) < len(found):
        raise UsageError("objectives must name at least one metric, and each once")
    return tuple(found)


def _constraints(texts: Iterable[str]) -> tuple[Constraint, ...]:
    found = []
    for text in texts:
        for sign in ("<=", ">="):
            name, given, bound = text.partition(sign)
            if given:
                break
        try:
            value = float(bound)
        except ValueError:
            value = float("nan")
        if not given or not np.isfinite(value):
            raise UsageError(f"constraint is {text!r}, must be METRIC<=NUMBER or METRIC>=NUMBER")
        if name.strip() not in METRICS:
            raise unknown_name("constraint of a loop", name.strip(), METRICS)
        found.append(Constraint(name.strip(), sign, value))
    # Equal service and memory always hold.
    return (*found, Constraint("service_utilisation", "<=", 1.0), Constraint("dram_fill", "<=", 1.0))


def points_of(problem: LoopProblem) -> Points:
    """The devices and numbers of chips as points."""
    hardware = load_path_or_name(problem.hw, profile=None)
    if hardware.template is not None and not hardware.shipped:
        raise UsageError(f"hw is {problem.hw!r}, must be a device, a list of devices or a file with a design for a loop; nearest is 'h100'")
    columns: dict[str, npt.NDArray[Any]] = {}
    if hardware.shipped:
        hardware = _counted(hardware, problem.chips)
        columns = {name: np.asarray(values) for name, values in hardware.grid().items()}
    elif problem.chips not in ((), (1,)):
        raise UsageError(f"vary chips needs devices of the library; {problem.hw} is a design of its own")
    return make_points(hardware, columns, problem.deployment)


def _counted(hardware: HardwareSpace, chips: tuple[int, ...]) -> HardwareSpace:
    # One device is a set of one: a device without links has no counts but 1.
    several = hardware if hardware.template is not None else HardwareSpace(device_space(hardware.shipped), shipped=hardware.shipped)
    return several.with_knobs({"chips": chips}) if chips else several


@dataclass(frozen=True)
class _Costed:
    """Configurations on points: metrics {name: (plans, points)} of one model."""

    plans: list[Plan]
    points: Points
    metrics: dict[str, FloatArray]
    quality: list[Quality]
    stages: StageCosts


def _costed(problem: LoopProblem, model: str, plans: list[Plan], points: Points, counts: dict[str, int]) -> _Costed | None:
    family = _decoder(model)
    kept: list[Plan] = []
    known: list[Quality] = []
    positions = int(family.dimensions.get("positions", 0)) or 2**31
    for plan in plans:
        quality = problem.quality.of(plan, model)
        reason = "too long" if longest_context(plan.stages) > positions else "quality not known" if quality is None else ""
        if reason or quality is None:
            counts[reason] = counts.get(reason, 0) + len(points)
            continue
        kept.append(plan)
        known.append(quality)
    if not kept:
        return None
    stages = StageCosts(family, problem.settings, points, kept)
    found: dict[str, list[FloatArray]] = {name: [] for name in METRICS}
    for plan, quality in zip(kept, known, strict=True):
        for name, values in _figures(plan, quality, stages, points).items():
            found[name].append(values)
    return _Costed(kept, points, {name: np.array(values) for name, values in found.items()}, known, stages)


def _figures(plan: Plan, quality: Quality, stages: StageCosts, points: Points) -> dict[str, FloatArray]:
    cost = stages.expected(plan)
    problems = plan.knobs["problems"]
    finite = np.isfinite(cost.latency_s)
    latency, energy = np.where(finite, cost.latency_s, 0.0), np.where(finite, cost.energy_j, 0.0) / problems
    service = equal_service(
        energy,
        latency,
        idle_w=points.leakage_w,
        rate_per_s=points.rate_per_s,
        lifetime_years=points.lifetime_years,
        pue=points.pue,
        gco2e_per_kwh=points.gco2e_per_kwh,
        concurrency=float(problems),
    )
    total = points.embodied_kgco2e + service.operational_kgco2e
    grams = 1e3 * total / service.requests
    solved = max(quality.solved, 1e-12)
    whole = np.ones(len(points))
    return {
        "quality": 100 * quality.solved * whole,
        "signal": 100 * plan.signal * whole,
        "latency_s": np.where(finite, latency, np.inf),
        "energy_j": energy,
        "energy_j_per_solved": energy / solved,
        "gco2e_per_problem": grams,
        "gco2e_per_solved": grams / solved,
        "total_kgco2e": total,
        "embodied_kgco2e": points.embodied_kgco2e,
        "operational_kgco2e": np.asarray(service.operational_kgco2e) * whole,
        "prefill_tokens": cost.prefill_tokens / problems * whole,
        "decode_tokens": cost.decode_tokens / problems * whole,
        "service_utilisation": np.where(finite, np.asarray(service.utilisation), np.inf),
        "dram_fill": (stages.weight_bytes + cost.cache_bytes) / points.dram_bytes,
        "chips": points.chips.astype(np.float64),
    }


def _decoder(model: str) -> Family:
    family = library.load(model)
    if family.family != "decoder":
        raise UsageError(f"model is {model!r}, must be a decoder to reason in a loop; nearest is 'llama3-8b'")
    return family


def search_loops(
    workload: str,
    model: str | Sequence[str],
    hw: str,
    *,
    objective: str | Iterable[str] = "carbon",
    seed: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Cost every configuration of a loop on every device and return the front as plain values.

    Options are those of `loop_problem`. The answer holds ``front`` (knobs, device, metrics, drawn percentiles of latency and energy),
    ``prefix_cache`` (what reuse of prefixes moves), counts, assumptions and sources. Raises DseError where no configuration is feasible.
    """
    problem = loop_problem(workload, model, hw, objective=objective, **options)
    plans, points = problem.plans(), points_of(problem)
    counts: dict[str, int] = {}
    costed = {name: found for name in problem.models if (found := _costed(problem, name, plans, points, counts)) is not None}
    keys = [(name, i) for name, found in costed.items() for i in range(len(found.plans))]
    if not keys:
        raise DseError(f"no configuration of {workload} is left: {_reasons(counts)}")
    metrics = {name: np.concatenate([found.metrics[name] for found in costed.values()]) for name in METRICS}
    keep = np.ones((len(keys), len(points)), dtype=bool)
    for constraint in problem.constraints:
        value = metrics[constraint.metric]
        held = value <= constraint.bound if constraint.relation == "<=" else value >= constraint.bound
        counts[str(constraint)] = int((~held).sum())
        keep &= held
    if not keep.any():
        raise DseError(
            f"no configuration of {len(keys) * len(points)} is feasible: {_reasons(counts)}; nearest is a lower --rate or more chips"
        )
    values = np.stack([o.sign * metrics[o.metric] for o in problem.objectives], axis=-1)
    policies = np.array([costed[name].plans[i].knobs["kv"] for name, i in keys])
    front = _front(values, keep)
    rows = []
    for number, (which, point) in enumerate(zip(front.models.tolist(), front.hardware.tolist(), strict=True)):
        name, i = keys[which]
        rows.append(_row(problem, costed[name], name, i, point, metrics, which, seed if number < MAX_DRAWN else None))
    return {
        "workload": problem.loop.name,
        "title": problem.loop.title,
        "models": list(problem.models),
        "hw": problem.hw,
        "objectives": [str(o) for o in problem.objectives],
        "constraints": [str(c) for c in problem.constraints],
        "front": rows,
        "prefix_cache": _moved(problem, keys, costed, metrics, values, keep, policies),
        "configurations": len(keys) * len(points),
        "feasible": int(keep.sum()),
        "infeasible_reasons": counts,
        "lengths": {name: getattr(problem.lengths, name) for name in problem.loop.used},
        "rates": {item.name: getattr(problem.rates, item.name) for item in fields(Rates)} if problem.quality.words == "scripted" else {},
        "quality": problem.quality.words,
        "deployment": problem.deployment.to_dict(),
        "settings": dict(problem.settings),
        "sources": points.sources,
    }


def _front(values: FloatArray, keep: npt.NDArray[np.bool_]) -> Front:
    models, hardware = np.nonzero(keep)
    return Front.of(models, hardware, values[models, hardware])


def _reasons(counts: Mapping[str, int]) -> str:
    told = [
        f"{name} fails at {count} of them" if "=" in name else f"{count} are left out: {name}" for name, count in counts.items() if count
    ]
    return "; ".join(told) or "the loop has none"


def _row(
    problem: LoopProblem, found: _Costed, model: str, plan: int, point: int, metrics: Mapping[str, FloatArray], which: int, seed: int | None
) -> dict[str, Any]:
    chosen, points = found.plans[plan], found.points
    design = points.design[point]
    names = [name for batch in points.batches for name in (batch.names or (problem.hw,) * len(batch))]
    row = {"model": model, "device": str(names[design]) or problem.hw, **chosen.knobs}
    row |= {name: float(metrics[name][which, point]) for name in METRICS if name != "signal" or chosen.signal}
    row["chips"] = int(points.chips[point])
    row["quality_se"] = 100 * found.quality[plan].standard_error
    if seed is not None:
        size = max(stage.trials * stage.multiple for stage in chosen.stages) * problem.lengths.thoughts
        counts = chosen.draw(np.random.default_rng(seed), max(min(DRAWS, MAX_DRAWN_STATES // size), 100))
        latency, energy = found.stages.drawn(chosen, counts, point)
        for share in (50, 95, 99):
            row[f"latency_p{share}_s"] = float(np.percentile(latency, share))
            row[f"energy_p{share}_j"] = float(np.percentile(energy / chosen.knobs["problems"], share))
    return row


def _moved(
    problem: LoopProblem,
    keys: list[tuple[str, int]],
    costed: Mapping[str, _Costed],
    metrics: Mapping[str, FloatArray],
    values: FloatArray,
    keep: npt.NDArray[np.bool_],
    policies: npt.NDArray[np.str_],
) -> dict[str, Any]:
    """What each policy of reuse saves against none: along the front at no less quality, and in tokens of the same configurations."""
    none = keep & (policies == "none")[:, None]
    if not none.any():
        return {}
    base = _front(values, none)
    answer: dict[str, Any] = {"front_without": len(base)}
    corner = values[keep].max(axis=0) + 1e-9 * np.abs(values[keep]).max(axis=0) + 1e-12
    volume = hypervolume(base.values, corner) if len(problem.objectives) <= 4 else 0.0
    twins = {_key(keys[i], costed): i for i in range(len(keys)) if policies[i] == "none"}
    for policy in ("prefix", "tree"):
        # Without the stages of a tree a policy equals the one before it and is costed once.
        allowed = keep & np.isin(policies, ("none", "prefix", "tree")[: 3 if policy == "tree" else 2])[:, None]
        if not (keep & (policies == policy)[:, None]).any():
            continue
        told: dict[str, Any] = {}
        for k, objective in enumerate(problem.objectives):
            if objective.metric == "quality" or objective.sign < 0:
                continue
            saved = []
            for which, point in zip(base.models, base.hardware, strict=True):
                enough = allowed & (metrics["quality"] >= metrics["quality"][which, point] - 1e-9)
                saved.append(1 - float(values[..., k][enough].min() / values[which, point, k]))
            told[objective.metric] = {"median": float(np.median(saved)), "least": min(saved), "most": max(saved)}
        answer[policy] = {"saved_at_equal_quality": told}
        if volume > 0:
            answer[policy]["hypervolume"] = hypervolume(_front(values, allowed).values, corner) / volume
        pairs = [(twins[key], i) for i in range(len(keys)) if policies[i] == policy and (key := _key(keys[i], costed)) in twins]
        for name in ("prefill_tokens", "energy_j", "latency_s"):
            ratio = [metrics[name][a] / metrics[name][b] for a, b in pairs]
            finite = np.concatenate(ratio)[np.isfinite(np.concatenate(ratio))] if ratio else np.zeros(0)
            if len(finite):
                answer[policy][f"{name}_ratio"] = {"median": float(np.median(finite)), "most": float(finite.max())}
    return answer


def _key(key: tuple[str, int], costed: Mapping[str, _Costed]) -> Any:
    """A configuration but for its policy."""
    model, plan = key
    return model, tuple((name, value) for name, value in costed[model].plans[plan].knobs.items() if name != "kv")


def is_loop(workload: str | None) -> bool:
    """Whether a workload's name is a loop's."""
    return workload in LOOPS
