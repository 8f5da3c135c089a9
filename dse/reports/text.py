"""The sentences of a report: what was searched, what came out, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.problem.metrics import METRICS
from dse.problem.objectives import Constraint, parse_constraint
from dse.problem.wording import error_text, finite, joined, lowered, number_text, plural, share
from dse.reports.units import DisplayUnit, display_unit, measures, quality_label

CRITERIA = {"edp": "energy-delay product", "latency": "latency", "energy": "energy"}


def title(run: Any) -> str:
    """Workload and hardware, the name of the page; of the user's own files the names alone."""
    return f"{_name(run.problem.workload)} on {', '.join(map(_name, run.problem.hardware.split(',')))}"


def _name(written: str) -> str:
    return written.replace("\\", "/").rsplit("/", 1)[-1]


def headline(run: Any, units: Mapping[str, DisplayUnit]) -> str:
    """The objectives as a phrase: ``accuracy (surrogate) against total carbon``."""
    labels = [_objective_label(run, o.metric, units) for o in run.problem.objectives]
    phrase = labels[0] if len(labels) == 1 else f"{labels[0]} against {joined([lowered(label) for label in labels[1:]])}"
    return f"{title(run)}: {lowered(phrase)}"


def _objective_label(run: Any, name: str, units: Mapping[str, DisplayUnit]) -> str:
    if name == "quality":
        return quality_label(run.context).replace(", surrogate", " (surrogate)")
    return units[name].label if name in units else name


def metric_label(name: str) -> str:
    """What a metric is called."""
    return METRICS[name].label if name in METRICS else name


def summary_sentences(run: Any) -> list[str]:
    """What was searched and what is left of it: designs, feasible ones, the front."""
    counts, context = run.summary, run.context
    models, hardware = context.get("models"), context.get("hardware_points")
    size = models * hardware if isinstance(models, int) and isinstance(hardware, int) else None
    made_of = f" ({plural(models, 'model')} × {plural(hardware, 'hardware point')})" if size is not None else ""
    part = context.get("sampled") or context.get("quality_evaluator")
    sampled = bool(part) and size is not None and size != counts.points
    sentences = [f"The search evaluated {plural(counts.points, 'design')}{made_of}."]
    if sampled:
        exactly = ", each exactly" if context.get("sampled") else ""
        sentences = [f"The search evaluated {counts.points:,} of {size:,} designs{made_of}{exactly}."]
    meet = "meets" if counts.feasible == 1 else "meet"
    front = len(run.designs)
    counted = f" ({told})" if (told := ties(run)) else ""
    among = "other evaluated design" if sampled else "feasible design"
    sentences.append(
        f"{counts.feasible:,} ({share(counts.feasible, counts.points)}) {meet} every constraint, and {front:,} of them "
        f"{'forms' if front == 1 else 'form'} the Pareto front{counted}: no {among} is at least as good in every objective and better "
        "in one."
    )
    if context.get("strategy", "exhaustive") == "exhaustive":
        sentences.append(f"The whole space was enumerated, so the front is exact{_mapped_by(run, ' for mappings chosen by ')}.")
    if proxy := proxy_sentences(run):
        sentences.append(proxy[0])
    return sentences


def ties(run: Any) -> str:
    """What the number of designs of a front counts where some tie: ``29 that differ in an objective, 11 that tie with one of these``."""
    tied = sum(design.get("equal_to") is not None for design in run.designs)
    if not tied:
        return ""
    own = len(run.designs) - tied
    differ, tie = ("differs" if own == 1 else "differ"), ("ties" if tied == 1 else "tie")
    return f"{own:,} that {differ} in an objective, {tied:,} that {tie} with {'it' if own == 1 else 'one of these'}"


_SHAPE = ("sequence", "new_tokens", "resolution", "batch")
"""Settings of a workload that decide how much a request is."""


def purpose(run: Any) -> str:
    """What a design is asked to do, in one sentence: the deployment, and the bounds that it keeps."""
    values = dict(run.context.get("deployment") or run.problem.deployment.to_dict())
    told = []
    if (rate := finite(values.get("rate_per_s"))) is not None and (years := finite(values.get("lifetime_years"))) is not None:
        told.append(f"{_so_many(rate, 'request')} a second for {_so_many(years, 'year')}")
    told += [f"{name} {value}" for name, value in (run.context.get("run_with") or {}).items() if name in _SHAPE]
    told += [f"{values[name]} {word}" for name, word in (("grid", "electricity"), ("fab_grid", "fab")) if values.get(name)]
    # Bounds that every deployment has (the model fits, the device keeps up) say nothing of this one.
    own = [c for c in run.problem.constraints if not METRICS.get(c.metric) or not METRICS[c.metric].share]
    told += [lowered(constraint_text(c, run.context)) for c in own]
    return "; ".join(told) or "no deployment and no bound was named"


def _so_many(value: float, noun: str) -> str:
    return f"{number_text(value)} {noun}{'' if value == 1 else 's'}"


def _mapped_by(run: Any, words: str) -> str:
    """What mappings are chosen by, after ``words``; nothing where every operation runs by kernels, which nobody maps."""
    criterion = str(run.context.get("criterion") or run.problem.criterion)
    return f"{words}{CRITERIA.get(criterion, criterion)}" if run.context.get("mapped", True) else ""


def no_reasons(run: Any) -> str:
    """What is told where no count of broken bounds is there."""
    left = run.summary.points - run.summary.feasible
    if left:
        of_all = f"{plural(run.summary.points, 'design')} ({share(left, run.summary.points)})"
        return f"{left:,} of {of_all} broke a bound; which one was not counted."
    return "Every evaluated design meets every bound." if run.problem.constraints else "Nothing was asked that a design could fail."


def failure_sentences(run: Any) -> list[str]:
    """How many evaluations failed and why, and what that does to the front; empty where none did."""
    known = run.context.get("evaluations")
    if not isinstance(known, Mapping) or not known.get("failed"):
        return []
    reasons = [f"{plural(count, 'trial')}: {reason}" for reason, count in known.get("reasons", {}).items()]
    return [
        f"{known['failed']:,} of {known['trials']:,} trials failed, so the front is of the others alone, biased towards designs whose "
        "evaluation succeeds.",
        f"Why they failed: {'; '.join(reasons)}.",
    ]


def proxy_sentences(run: Any) -> list[str]:
    """How a proxy was used and how far it could be trusted; empty where there was none."""
    known = run.context.get("proxy")
    if not isinstance(known, Mapping):
        return []
    measured = known.get("measured", 0)
    rank = finite(known.get("rank_correlation"))
    agreement = (
        f"Spearman's rank correlation of proxy and target over {plural(measured, 'design')} that both measured is {rank:.2f}."
        if rank is not None
        else f"Proxy and target cannot be compared by rank: {plural(measured, 'design')} measured by both are too few or too alike."
    )
    sentences = [
        f"Models were searched on the proxy {known.get('evaluator')} ({plural(known.get('trials', 0), 'trial')}); the front holds the "
        f"measurements of the target {known.get('target')} alone.",
        f"Of the proxy's designs {measured:,} of the {known.get('asked', 0):,} asked for were measured on the target.",
        agreement,
    ]
    rungs = known.get("rungs") or ()
    if rungs:
        told = ", then ".join(f"{plural(rung['trials'], 'design')} at fidelity {rung['fidelity']:g}" for rung in rungs)
        sentences.insert(1, f"The best of them went on in rungs: {told}.")
    if saved := finite(run.context.get("evaluation_saved_s")):
        sentences.append(f"Measuring every design of the first rung wholly would have taken about {saved:.0f} s more.")
    if rank is not None:
        # The confirmed designs are the proxy's best: over a range cut off at one end a correlation is smaller than over all.
        sentences.append("These are the proxy's best designs, so their correlation is lower than it would be over the whole space.")
    return sentences


def alignment_trust(known: Mapping[str, Any]) -> str:
    """How far the gradients of an alignment can be trusted: they are a smooth twin's, and the exact model may disagree."""
    names, cosine, rank = known["objectives"], known["cosine"], known["rank_correlation"]
    trust = known["relaxation_rank_correlation"]
    if not known.get("exact", True):
        return (
            "The gradients are those of closed forms of the cost model, smoothed; smoothing keeps their order of designs at a rank "
            f"correlation of {min(trust):.3f} or more. How closely closed forms follow exact costs is measured in the documentation."
        )
    sentence = (
        "The gradients are those of a smooth twin of the cost model, which orders designs as the exact model does by a rank correlation "
        f"of {min(trust):.2f} (for {names[trust.index(min(trust))]}) to {max(trust):.2f}."
    )
    pairs = [(i, j) for i in range(len(names)) for j in range(i) if cosine[i][j] * rank[i][j] < 0]
    if not pairs:
        return sentence + " Rank correlations of the exact costs over the same designs have the same signs throughout."
    against = "; ".join(f"{names[j]} and {names[i]} ({rank[i][j]:.2f})" for i, j in pairs)
    return sentence + f" Rank correlations of the exact costs over the same designs have the other sign for {against}."


def search_sentences(run: Any) -> list[str]:
    """How a measured quality was searched: strategy, evaluations, why it ended, proxy, repeated measurements."""
    strategy, evaluator = run.context.get("strategy"), run.context.get("quality_evaluator")
    if not isinstance(strategy, Mapping):
        return []
    sentences = [
        f"Strategy {strategy.get('name')}: {str(strategy.get('why', '')).rstrip('.')}.",
        f"The search ended because {str(strategy.get('stopped', '')).rstrip('.')}.",
    ]
    if not isinstance(evaluator, Mapping):
        return [*sentences, "The front is that of the evaluated designs; others that were not evaluated may be better."]
    sentences += [
        f"{evaluator.get('evaluator')} {'measured' if measures(str(evaluator.get('evaluator'))) else 'gave the quality of'} "
        f"{plural(evaluator.get('evaluations', 0), 'model')}.",
        *failure_sentences(run),
        *proxy_sentences(run),
    ]
    if strategy.get("study"):
        sentences.append(f"The trials are in a shared database, under the name {strategy['study']}.")
    again = run.context.get("confirmation")
    if isinstance(again, Mapping):
        curse = again.get("curse") or {}
        mean, error = finite(curse.get("mean")), finite(curse.get("se"))
        if mean is not None and error is not None:
            sentences.append(
                f"The front was measured again and holds the new figures: selection had flattered its designs by {number_text(mean)} "
                f"± {error_text(error)} on average (the winner's curse)."
            )
    return sentences


def constraint_text(constraint: Constraint, context: Mapping[str, Any] | None = None) -> str:
    """A constraint in words and display units; ``context`` is the run's, for quality on a scale of its own."""
    unit = display_unit(constraint.metric, [constraint.bound], context)
    relation = {"<=": "≤", ">=": "≥"}[constraint.relation]
    return f"{unit.label} {relation} {unit.text(constraint.bound)}"


def reason_text(reason: str, context: Mapping[str, Any] | None = None) -> str:
    """A reason of infeasibility in words: a constraint is named with its units, other reasons stand as they are."""
    try:
        return constraint_text(parse_constraint(reason), context)
    except ValueError:
        return reason


def knobs_text(knobs: Mapping[str, Any]) -> str:
    """Knobs on one line."""
    return " · ".join(f"{name} {value}" for name, value in knobs.items())


_DEPLOYMENT = {
    "rate_per_s": ("Request rate", "a second"),
    "lifetime_years": ("Lifetime", "years"),
    "grid": ("Electricity in use", ""),
    "fab_grid": ("Electricity of the fab", ""),
    "pue": ("PUE", ""),
    "carbon_profile": ("Carbon profile", ""),
}


def deployment_rows(run: Any) -> list[tuple[str, str, str]]:
    """Rows (name in the JSON, label, value) of the deployment and the models behind the costs."""
    values = dict(run.context.get("deployment") or run.problem.deployment.to_dict())
    rows = []
    for name, value in values.items():
        if value is None or value == "":
            continue
        label, unit = _DEPLOYMENT.get(name, (name, ""))
        number = number_text(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
        rows.append((name, label, f"{number} {unit}".strip()))
    profile = run.context.get("hardware_profile") or run.problem.hardware_profile
    rows += [
        ("space", "Model space", str(run.problem.space)),
        ("hardware_profile", "Hardware profile", str(profile or "that of the template")),
        *([("criterion", "Mappings chosen by", by)] if (by := _mapped_by(run, "")) else []),
    ]
    rows += [("set", f"Fixed: {name}", str(value)) for name, value in run.problem.fixed.items()]
    return rows


def devices_said(run: Any) -> list[str]:
    """The order of several devices as the head tells it, in short where they are many; the section on carbon has the rest."""
    uncertainty = run.context.get("uncertainty") or {}
    return list(uncertainty.get("device_order_short") or uncertainty.get("device_order_said") or ())
