"""What a reader must know before trusting a front: sentences, the gravest first; none where nothing speaks against it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from dse.problem.objectives import asks_for_quality
from dse.problem.wording import error_text, finite, joined, number_text, plural

# Below this a proxy's order says little about the target's.
WEAK_RANK_CORRELATION = 0.5
# A fit that is nearer than this to a published figure says the same to two digits of a per cent.
_SAME_POINTS = 0.05
# From this share of the latency on, what stays as it is decides what more cores are worth.
_HELD_SHARE = 0.25


def cautions(run: Any, design: Mapping[str, Any] | None = None) -> list[str]:
    """Cautions of a run; ``design`` is the entry that is recommended, whose own place in the space is told of."""
    found = []
    if run.context.get("left_out"):
        found.append(f"This is a front of an incomplete model: {run.context['left_out']}.")
    found += [str(line) for line in run.context.get("cautions") or ()]
    found += _failed(run)
    found += _stopped(run)
    found += _edge(run, design)
    found += _array_alone(run, design)
    found += _surrogate(run)
    found += _without_error(run)
    found += _devices(run, design)
    rank = finite((run.context.get("proxy") or {}).get("rank_correlation"))
    if rank is not None and rank < WEAK_RANK_CORRELATION:
        found.append(
            f"The proxy ranks the designs that were measured on the target poorly (rank correlation {rank:.2f}): models that it "
            "passed over may be better than the front."
        )
    if others := run.context.get("models_dominated"):
        found.append(f"Counts are of the models that can be on the front; {plural(others, 'further model')} of the space cannot.")
    if run.context.get("models_invalid"):
        found.append(str(run.context["models_invalid"]))
    left_out = run.context.get("models_left_out")
    if left_out:
        verb = "was" if left_out == 1 else "were"
        found.append(f"{plural(left_out, 'model')} of the grid {verb} left out: nothing published supports their quality.")
    return found


def _failed(run: Any) -> list[str]:
    known = run.context.get("evaluations")
    if not isinstance(known, Mapping) or not known.get("failed"):
        return []
    return [f"{known['failed']:,} of {plural(known['trials'], 'trial')} failed, so the front is of the others alone."]


def _stopped(run: Any) -> list[str]:
    """Where fewer trials were made than the budget allows: the reason, and how to have them all."""
    strategy = run.context.get("strategy")
    if not isinstance(strategy, Mapping) or not strategy.get("early"):
        return []
    return [
        f"The search stopped after {strategy['trials']:,} of {plural(strategy['asked'], 'trial')} because "
        f"{str(strategy['stopped']).rstrip('.')}; whole_budget=True (--whole-budget) spends them all."
    ]


def _edge(run: Any, design: Mapping[str, Any] | None) -> list[str]:
    """Where the recommended design stands at the end of a knob's range, beyond which nobody looked."""
    ranges = run.context.get("knob_ranges")
    if design is None or not isinstance(ranges, Mapping):
        return []
    told = []
    for name, ends in ranges.items():
        value = finite(design["knobs"].get(name))
        low, high = ends
        # Nothing is below one core or one chip.
        if value is not None and (value == high or (value == low and value > 1)):
            name, shown = next(iter(run.problem.shown({name: design["knobs"][name]}).items()))
            told.append(f"{name} {shown} ({'most' if value == high else 'least'})")
    if not told:
        return []
    return [f"Design {design['design']} stands at the edge of what was searched: {joined(told)}; a wider space may hold a better one."]


def _array_alone(run: Any, design: Mapping[str, Any] | None) -> list[str]:
    """Where cores or the array of a user's file vary, and the lanes or words a cycle that the recommended design waits for do not."""
    text, ranges = run.problem.hardware_toml, run.context.get("knob_ranges")
    if design is None or text is None or not isinstance(ranges, Mapping):
        return []
    varied = [name for name, (low, high) in ranges.items() if low < high]
    grown = [name for name in ("cores", "array_rows", "array_columns") if name in varied]
    levels = tomllib.loads(text).get("levels") or []  # a file of a template has none: there both grow with the cores
    if not grown or not levels:
        return []
    held = {} if "vector_lanes" in varied else {"vector": "vector_lanes"}
    for level in levels[:-1]:
        alone = grown == ["cores"] and level.get("per_core") is True  # a memory of each core grows with them
        if not alone and not any(name.startswith(f"{level['name']}_") and name.endswith("words_per_cycle") for name in varied):
            held[level["name"]] = f"{level['name']}_words_per_cycle"
    seconds: dict[str, float] = {}
    for component in design.get("components") or ():
        for bound, value in (component.get("latency_by_bound_s") or {}).items():
            seconds[bound] = seconds.get(bound, 0.0) + float(value)
    total = sum(seconds.values())
    waits = [name for name in held if seconds.get(name, 0.0) >= _HELD_SHARE * total > 0]
    if not waits:
        return []
    told = joined([f"{held[name]} ({100 * seconds[name] / total:.0f} % of the latency)" for name in waits])
    return [
        f"{joined(grown)} vary, and design {design['design']} waits for what stays as it is: {told}; "
        f"where yours grow with {joined(grown)}, vary them too, or more looks worth less than it is."
    ]


def _devices(run: Any, design: Mapping[str, Any] | None) -> list[str]:
    """How far the kernels of the recommended device were off where somebody has measured them."""
    named = None if design is None else design["knobs"].get("device")
    known = [str(line) for line in run.context.get("expected_error") or ()]
    return [f"Times are modelled, not measured: {line}." for line in known if named is None or line.startswith(f"{named}:")]


def _without_error(run: Any) -> list[str]:
    """Where the best measured quality has no standard error, the rule cannot say which designs are as good, and is another one."""
    if run.problem.kind or not isinstance(run.context.get("quality_evaluator"), Mapping) or len(run.problem.objectives) < 2:
        return []
    if not any(o.metric == "quality" and o.direction == "max" for o in run.problem.objectives):
        return []
    known = [(mean, finite(design["metrics"].get("quality_se"))) for design in run.designs
             if (mean := finite(design["metrics"].get("quality"))) is not None]  # fmt: skip
    if len(set(known)) < 2 or (max(known, key=lambda pair: pair[0])[1] or 0.0) > 0:
        return []
    return [
        "The best quality has no standard error, so nobody can say which designs are as good: recommended is the design nearest to the "
        "best of every objective, in place of the least costly within one standard error. Measurements with their error (quality_se) "
        "change that."
    ]


def _surrogate(run: Any) -> list[str]:
    """How far a surrogate's quality can be trusted."""
    if run.problem.kind or "quality_evaluator" in run.context or not any("quality" in design["metrics"] for design in run.designs):
        return []
    if not asks_for_quality(run.problem.objectives, run.problem.constraints):
        return []
    surrogate = run.context.get("quality_surrogate") or {}
    errors = sorted({e for e in (finite(design["metrics"].get("quality_se")) for design in run.designs) if e is not None})
    size = f"; its standard error is {joined([error_text(e) for e in errors])} points" if 0 < len(errors) < 3 else ""
    if surrogate.get("measured"):
        return [f"Quality was measured, model by model{size}; it is a property of the data that it was measured on."]
    found = [f"Quality is a surrogate's prediction, not a measurement{size}. It cannot tell apart designs that differ by less."]
    found += _fitted(run, surrogate)
    extrapolated = sum(design.get("quality_support") == "extrapolated" for design in run.designs)
    if extrapolated:
        found.append(
            f"For {extrapolated:,} of {plural(len(run.designs), 'design')} quality is extrapolated: nothing published supports it."
        )
    free = [str(name) for name in surrogate.get("unsupported_knobs") or ()]
    varied = [name for name in free if len({design["knobs"].get(name) for design in run.designs}) > 1]
    if run.problem.allow_unsupported and varied:
        verb = "does" if len(varied) == 1 else "do"
        found.append(f"{joined(varied)} {verb} not enter the surrogate, so the search takes a saving there for nothing.")
    return found


def _fitted(run: Any, surrogate: Mapping[str, Any]) -> list[str]:
    """Published models are shown with the fit's figure; the one that is farthest from what was published is named."""
    worst: tuple[float, str] | None = None
    models = set()
    for point in surrogate.get("points") or ():
        published = finite(point.get("accuracy_percent"))
        knobs = {name: value for name, value in point.items() if name in ("layers", "hidden", "heads", "ffn")}
        if published is None or not knobs:
            continue
        for design in run.designs:
            fitted = finite(design["metrics"].get("quality"))
            if fitted is None or any(design["knobs"].get(name) != value for name, value in knobs.items()):
                continue
            models.add(str(point.get("model")))
            if abs(fitted - published) > _SAME_POINTS and (worst is None or abs(fitted - published) > worst[0]):
                told = f"{point.get('model')} (design {design['design']}) has {number_text(published)}, shown as {number_text(fitted)}"
                worst = (abs(fitted - published), told)
    if worst is None:
        return []
    of = f"{plural(len(models), 'published model')} on the front {'carries' if len(models) == 1 else 'carry'}"
    return [f"{of} the fit's quality, not the published one; farthest off: {worst[1]}."]
