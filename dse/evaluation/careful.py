"""What a search was not asked and a reader may take for granted: that the model stays, that a bound holds for each part of a mix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dse.evaluation.evaluation import Evaluation, load_family
from dse.evaluation.one_design import evaluation_of
from dse.problem.objectives import asks_for_quality
from dse.problem.problem import Problem, fix_knobs
from dse.problem.wording import joined, number_text
from workloads.family import Family

# The parts' latencies add to the request's but for rounding; where they do not (chips in a pipeline), no part has a latency of its own.
_ROUNDING = 1e-9


def models_unasked(evaluation: Evaluation) -> list[str]:
    """A sentence where models are searched and neither an objective nor a bound asks for their quality: the least model then wins."""
    problem, space = evaluation.problem, evaluation.space
    if space.model_count < 2 or asks_for_quality(problem.objectives, problem.constraints):
        return []
    words = _own_model(evaluation.family, space.models)
    ways = " or ".join(["--objective hardware", *([words] if words else [])])
    return [f"Models are searched too and nothing asks for quality, so the least tends to win; {ways} keeps {evaluation.family.name}."]


def models_searched(problem: Problem) -> str:
    """What becomes of the model of a problem, as its search begins; empty where a file or a decomposition says which are searched."""
    if problem.kind or problem.space_toml is not None or problem.models is not None:
        return ""
    family = load_family(problem)
    grid = {} if problem.fixed_model else family.model_grid(problem.space)
    grid = fix_knobs(grid, problem.fixed) if grid else {}
    free = [name for name, column in grid.items() if len(np.unique(column)) > 1]
    if not free:
        return f"{family.name} itself, the same in every design"
    words = _own_model(family, grid)
    kept = f"; {words} keeps {family.name} itself" if words else ""
    return f"variants of {family.name}: its {joined(free)} are searched too{kept}"


def _own_model(family: Family, models: Mapping[str, Any]) -> str:
    """The fewest options that leave the model itself of these; empty where it is not among them."""
    own = family.values()
    left = np.ones(len(next(iter(models.values()))), dtype=bool)
    words = []
    for name, column in models.items():
        here = left & (column == own.get(name))
        if not here.any():
            return ""
        if here.sum() < left.sum():
            words.append(f"--set {name}={own[name]}")
            left = here
    return " ".join(words)


def parts_beyond_bound(problem: Problem, knobs: Mapping[str, Any]) -> list[str]:
    """A sentence where a design meets a bound on a mix's latency, which is the mean of its parts, and a part takes longer."""
    bounds = [c.bound for c in problem.constraints if c.metric == "latency_s" and c.relation == "<="]
    if not bounds or problem.kind:
        return []
    evaluation = evaluation_of(problem, knobs) if is_mix(problem) else None
    parts = {} if evaluation is None else part_latency_s(evaluation)
    if all(latency <= min(bounds) for latency in parts.values()):
        return []
    told = joined([f"{name} takes {number_text(1e3 * latency)} ms" for name, latency in parts.items()])
    return [f"latency_s<={min(bounds)!r} holds for the mean request of the mix, not for each part: {told}."]


def is_mix(problem: Problem) -> bool:
    """Whether the workload of a problem is a mix of several models or phases."""
    return load_family(problem).family == "mix"


def part_latency_s(evaluation: Evaluation) -> dict[str, float]:
    """Latency [s] of one request of each part of a mix, for an evaluation of one design; empty where parts have none of their own."""
    whole = float(evaluation.block(0, 1).metric("latency_s").reshape(-1)[0])
    return {name: costs["latency_s"] for name, costs in part_costs(evaluation, 0, 0, whole).items()}


def part_costs(evaluation: Evaluation, model: int, hardware: int, latency_s: float) -> dict[str, dict[str, float]]:
    """What one request of each part of a mix takes: part -> share of the requests, latency [s], dynamic energy [J].

    ``latency_s`` is the whole request's. Empty where the workload has no parts, or they have no costs of their own.
    """
    evaluation, hardware = evaluation.at(hardware)
    workload = evaluation.workload
    dimensions = {name.removesuffix(".weight"): w for name, w in workload.dimensions.items() if name.endswith(".weight")}
    weights = {name: float(np.broadcast_to(w, (evaluation.space.model_count,))[model]) for name, w in dimensions.items()}
    design = int(evaluation.points.design[hardware])
    if evaluation.on_chip is not None and evaluation.on_chip.able[design]:
        rows = {name: np.zeros(len(evaluation.table)) for name in ("latency_s", "energy_j")}
        for step in evaluation.residency(model, hardware)["steps"]:
            for name, column in rows.items():
                column[step["row"]] += step[name]
    else:
        weight, index = evaluation.weight[model], evaluation.index[model]
        rows = {name: weight * getattr(evaluation.unit, name)[index, design] for name in ("latency_s", "energy_j")}
    if not weights or abs(rows["latency_s"].sum() - latency_s) > _ROUNDING * latency_s:
        return {}
    found = {name: {"share": share / sum(weights.values()), **dict.fromkeys(rows, 0.0)} for name, share in weights.items()}
    first = 0
    for phase in workload.phases:
        # A part's name may hold a dot, so the longest that fits is the part.
        part = max((name for name in weights if phase.name.startswith(f"{name}.")), key=len)
        for name, column in rows.items():
            found[part][name] += float(column[first : first + len(phase.table)].sum()) / weights[part]
        first += len(phase.table)
    return found
