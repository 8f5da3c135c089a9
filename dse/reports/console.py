"""What the commands print: the problem before a search, the front after it, one design."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dse.analysis.bounds import bounds_of
from dse.evaluation import space_file
from dse.evaluation.careful import models_searched
from dse.evaluation.evaluation import load_family, load_hardware, run_settings, told_settings
from dse.evaluation.requests import batch_in_words, request_in_words, settings_in_words
from dse.evaluation.robustness import AREA_FACTOR, area_note
from dse.evaluation.words import deadline, many_memories
from dse.problem.metrics import METRICS
from dse.problem.objectives import SERVICE_CONSTRAINT
from dse.problem.problem import LOOP, Problem
from dse.problem.wording import joined, plural
from dse.quality import surrogate as quality
from dse.reports import recommendation_text, terminal, text
from dse.reports.kept import of_run
from workloads import library
from workloads.errors import WorkloadError

if TYPE_CHECKING:
    from dse.searches.plan import LargeSettings, MeasuredSettings, ShardSettings
    from dse.spaces.hardware import HardwareSpace
    from dse.storage.run_folder import RunRecord


def dominated(problem: Problem) -> str:
    """How many models are searched of how many, where the space has been decomposed."""
    kept = len(next(iter((problem.models or {}).values()), ()))
    whole = kept + problem.models_dominated
    return f"{kept:,} of {whole:,} models can be on the front; the others are dominated part by part (docs/large-spaces.md)"


def _asked(problem: Problem) -> list[tuple[str, list[Any]]]:
    """What is varied, by the names and in the units that were asked for."""
    return [
        (problem.asked_as.get(name, name), [problem.shown({name: value})[problem.asked_as.get(name, name)] for value in chosen])
        for name, chosen in problem.vary.items()
    ]


def say_problem(
    problem: Problem, measured: MeasuredSettings | None = None, large: LargeSettings | None = None, sharded: ShardSettings | None = None
) -> None:
    """Tell on stderr what will be searched, with every default that bears on the result."""
    deployment, hardware = problem.deployment, load_hardware(problem)
    known = (*hardware.default_constraints, *deadline(load_family(problem), problem.fixed))
    defaults = [str(constraint) for constraint in problem.constraints if constraint in known]
    own = [c for c in problem.constraints if c not in (*known, SERVICE_CONSTRAINT)]
    lines = [
        f"workload    {problem.workload} (models: {problem.space})",
        *_models_text(problem),
        *([f"models      {told}"] if (told := models_searched(problem)) else []),
        *([f"run with    {told}"] if (told := _settings_text(problem)) else []),
        f"hardware    {problem.hardware}",
        f"objectives  {', '.join(map(str, problem.objectives))}",
        "constraints " + ", ".join(map(str, problem.constraints)),
        f"deployment  {_deployment_text(deployment.to_dict(), problem.act_lacks, request_in_words(problem))}",
        *(f"{'varied' if len(chosen) > 1 else 'set':<12}{name}: {_values(chosen)}" for name, chosen in _asked(problem)),
        f"strategy    {large.strategy}, at most {large.budget:,} exact evaluations of designs in place of a sweep"
        if large
        else f"strategy    {measured.strategy}, {measured.in_words}" + _exact_hardware(measured.strategy)
        if measured
        else "strategy    exhaustive: every metric is cheap, so all designs are evaluated"
        + ("" if "device" in hardware.knobs else f"; exact for mappings chosen by {problem.criterion}"),
        *([f"            {dominated(problem)}"] if problem.models_dominated else []),
        f"residency   {_residency_text(problem, hardware, large=large is not None)}",
        *([f"            in shards of the hardware, executor {sharded.executor}, {sharded.workers} at a time"] if sharded else []),
    ]
    if defaults:
        at = next(i for i, line in enumerate(lines) if line.startswith("constraints"))
        which = f"{joined(defaults)} by default" if own else "defaults"
        lines.insert(at + 1, f"            ({which}; --no-constraint METRIC or --no-default-constraints removes them)")
    surrogate = quality.for_workload(_full_name(problem.workload))
    of_surrogate = measured is None or large is not None
    if of_surrogate and surrogate is not None and any(objective.metric == "quality" for objective in problem.objectives):
        lines.append(
            f"quality     {surrogate.label}, standard error {surrogate.standard_error:.1f} points ({surrogate.standard_error_kind})"
        )
        if problem.allow_unsupported:
            knobs = " and ".join(surrogate.unsupported_knobs)
            lines.append(
                f"            unsupported models are allowed: no published figure supports {knobs} as free knobs, nor models "
                "outside the hull; the surrogate does not see them, so the search takes them for nothing"
            )
    print("\n".join(lines), file=sys.stderr)


def _models_text(problem: Problem) -> list[str]:
    """What a space file searches of the model, and what stays as the workload's own model has it: a table of figures may mean others."""
    searched = space_file.model_knobs(problem.space_toml, problem.space)
    if not searched:
        return []
    own = space_file.held(library.load(problem.workload, bind=problem.bind or None), searched, problem.fixed)
    alike = f"; the same in every model: {', '.join(f'{name}={value}' for name, value in own.items())}" if own else ""
    return [f"models      {', '.join(searched)}{alike}"]


def _settings_text(problem: Problem) -> str:
    """Sequence length, batch and what else is the same whenever the model runs; what the search varies is told with its values."""
    family = load_family(problem)
    given = {name: value for name, value in problem.fixed.items() if name in family.knobs}
    grid = {} if problem.space_toml is not None or problem.fixed_model else family.model_grid(problem.space)
    searched = {*space_file.model_knobs(problem.space_toml, problem.space), *grid, *(problem.models or ())}
    try:
        told = told_settings(run_settings(family, given))
    except WorkloadError:  # of a free dimension that no setting fits yet: the search itself says so, or leaves such models out
        return ""
    words = settings_in_words(told)
    return ", ".join(words[name] for name in told if name not in searched or name in problem.fixed)


def _residency_text(problem: Problem, hardware: HardwareSpace, *, large: bool) -> str:
    kernels, mapped = (hardware.of_kind(kind, problem.fixed) for kind in (True, False))
    if kernels:
        own = "of kernels, whose caches are in their own model"
        return own if not mapped else f"{joined(kernels)}: {own}; {joined(mapped)}: {_mapped_residency(problem, hardware, large=large)}"
    return _mapped_residency(problem, hardware, large=large)


def _mapped_residency(problem: Problem, hardware: HardwareSpace, *, large: bool) -> str:
    """What stays on chip on hardware that mappings run on."""
    if problem.residency != "none":
        ahead = "; weights of the next operation are read ahead" if problem.prefetch else ""
        return f"{problem.residency}: what stays on chip between operations is the best{ahead}"
    if many_memories(hardware):
        return "none: with more than two memories below the DRAM, finding what is best takes minutes (--residency weights does it)"
    return "none" + (": in a space too large to sweep every operation stands alone" if large or problem.models_dominated else "")


def _deployment_text(deployment: Mapping[str, Any], memory_act_lacks: str = "", request: str = "") -> str:
    """Where and how a device serves (``request``: what one is, where that must be said), and why its carbon profile is our own where
    ACT's does not know the memory."""
    reason = f" (act2 knows no {memory_act_lacks})" if memory_act_lacks else ""
    of = f" ({request})" if request else ""
    return (
        f"{deployment['rate_per_s']:g} requests/s{of} for {deployment['lifetime_years']:g} years, grid {deployment['grid']}, "
        f"fab grid {deployment['fab_grid'] or 'fixed by the profile'}, PUE {deployment['pue']:g}, "
        f"carbon profile {deployment['carbon_profile']}{reason}"
    )


def _values(chosen: Sequence[Any]) -> str:
    """Values of a knob, of many the ends and their number."""
    if len(chosen) <= 12:
        return ", ".join(map(str, chosen))
    return f"{chosen[0]}, {chosen[1]}, ... {chosen[-1]} ({len(chosen):,} values)"


def _exact_hardware(strategy: str) -> str:
    """What is said of the hardware of a measured search; ``auto`` says its choice when it is made."""
    # Start-up: `dse evaluate` prints one design and waits for nothing of a search.
    from dse.strategies import registry

    whole = strategy != registry.AUTO and registry.find(strategy).trial == "design"
    return "" if whole else "; the hardware of a model is exact"


def _full_name(workload: str) -> str:
    return library.load(workload).name


def show_run(run: RunRecord, *, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """Print the front and where the files are; ``more`` is what the command itself adds to the JSON, of which a drive is told too."""
    if as_json:
        print(json.dumps({**run_json(run), **(more or {})}, indent=2, allow_nan=False))
        return
    summary = run.summary
    print(recommendation_text.recommendation_text(run))
    print()
    print(terminal.front_table(run))
    strategy = run.context.get("strategy")
    if strategy:
        print(f"{_counted(run)} on the front after {strategy['trials']} trials of {strategy['name']} ({strategy['why']})")
        print(f"stopped: {strategy['stopped']}")
        for sentence in (*text.failure_sentences(run), *text.proxy_sentences(run)):
            print(sentence)
        print(f"{run.path}/: pareto.csv, report.html, designs/, study.db")
        return
    mapped = f"exact for mappings chosen by {run.problem.criterion}" if run.context.get("mapped", True) else "exact"
    exact = "exact on the grid" if run.problem.kind else mapped
    print(f"{_counted(run)} on the front of {summary.points:,} ({summary.feasible:,} feasible), {exact}")
    for sentence in (run.context.get("uncertainty") or {}).get("device_order_said", ()):
        print(sentence)
    for line in _bounds_lines(run):
        print(line)
    for row in (more or {}).get("drive", {}).get("designs", ()):
        print(
            f"  design {row['design']:>3} driven: {row['joules_per_km']:.4g} J and {row['gco2e_per_km']:.4g} gCO2e a km at "
            f"{row['rate_hz']:.3g} frames/s by context ({row['misses']} late), {row['saved_against_fixed_for_all']:.1%} less energy than "
            f"{row['fixed_for_all_hz']:g} frames/s throughout"
        )
    print(f"{run.path}/: pareto.csv, report.html, {'' if run.problem.kind == LOOP else 'designs/, '}study.db")


def _bounds_lines(run: RunRecord) -> list[str]:
    """What ruled designs out, and which bounds decide nothing."""
    chosen = of_run(run).design
    bounds = {str(bound.constraint): bound for bound in bounds_of(run, chosen)}
    lines = []
    for reason, count in run.summary.reasons.items():
        if count:
            bound = bounds.get(reason)
            room = "" if bound is None or bound.slack_share is None else f" (design {chosen}: {bound.value:.4g}, {bound.room})"
            lines.append(f"  infeasible: {count:>12,} {reason}{room}")
    slack = [name for name, bound in bounds.items() if bound.slack]
    if slack:
        lines.append(f"  slack:      {joined(slack)}: no evaluated design breaks {'it' if len(slack) == 1 else 'them'}")
    return lines


def _counted(run: RunRecord) -> str:
    """How many designs a front has, and how many of them tie."""
    told = text.ties(run)
    return plural(len(run), "design") + (f" ({told})" if told else "")


def run_json(run: RunRecord) -> dict[str, Any]:
    """A run as plain values."""
    # Start-up: `dse evaluate` prints one design and waits for nothing of a search.
    from dse.storage.run_folder import flat_row

    return {
        "run": str(run.path),
        "problem": run.problem.to_dict(),
        "points": run.summary.points,
        "feasible": run.summary.feasible,
        "infeasible_reasons": run.summary.reasons,
        "recommendation": of_run(run).to_dict(),
        "bounds": [
            {"bound": str(b.constraint), "broken_by": b.broken_by, "value": b.value, "slack_share": b.slack_share, "slack": b.slack}
            for b in bounds_of(run, of_run(run).design)
        ],
        "front": [flat_row(design) for design in run.designs],
        "evaluations": run.context.get("evaluations"),
        "device_order": (run.context.get("uncertainty") or {}).get("device_order"),
        "left_out": run.context.get("left_out") or "",
        "provenance": run.provenance,
    }


# Sums of components in another order differ by less; a larger rest is idle power while the request runs.
_ROUNDING = 1e-9


def show_design(answer: dict[str, Any], *, as_json: bool) -> None:
    """Print one design."""
    if as_json:
        print(json.dumps(answer, indent=2, allow_nan=False))
        return
    print(
        f"{answer['workload']} on {answer['hardware']}: "
        + ", ".join(f"{k}={v}" for k, v in answer.get("design_as_asked", answer["design"]).items())
    )
    if told := list(settings_in_words(told_settings(answer["settings"])).values()):
        print("  settings: " + ", ".join(told))  # JSON has those that are off, too
    if taken := answer.get("model_from"):
        print(f"  model and settings as {taken['file']} has them; --set changes them")
    whose = ""
    if of_file := answer.get("deployment_from"):
        whose = " of its search" + (f" but for {joined(of_file['given'])}" if of_file["given"] else "")
    request = batch_in_words({**answer["settings"], **answer["design"]})
    print(f"  deployment{whose}: {_deployment_text(answer['deployment'], answer['memory_act_lacks'], request)}")
    for name, metric in METRICS.items():
        if name in ("quality", "quality_se") or name not in answer:
            continue
        band = answer["ranges"]["metrics"].get(name)
        # The point lies at the low end where areas are drawn upwards alone: with its median beside it nobody takes that for an error.
        spread = f" drawn: p5 {band['p5']:.4g}, median {band['p50']:.4g}, p95 {band['p95']:.4g}" if band else ""
        # A share has no unit, and a number before another is read as one.
        unit = {"1": "", "1e12 op/s": "TOPS"}.get(metric.unit, metric.unit)
        print(f"  {name:<20} {answer[name]:>14.6g} {unit}{spread}".rstrip())
    if answer["embodied_kgco2e"] and (parts := answer["embodied_parts_kgco2e"]):
        made = sorted(((kg / answer["embodied_kgco2e"], part) for part, kg in parts.items() if kg), reverse=True)
        print(f"  {'made of':<20} " + ", ".join(f"{part} {share:.1%}" for share, part in made) + " of embodied carbon")
    drawn = answer["ranges"]
    print(
        f"  {'ranges':<20} {drawn['draws']:,} draws of {len(drawn['factors'])} carbon factors, latency and energy held (--json lists them)"
    )
    if area := drawn["factors"].get(AREA_FACTOR):
        for line in textwrap.wrap(area_note(area), 100):
            print(f"  {'':<20} {line}")
    if answer["quality"] is None:
        print(f"  {'quality':<20} {'none':>14} ({answer['quality_reason']})")
    else:
        error = f"+- {answer['quality_se']:.2g} " if answer["quality_se"] else ""  # a measurement's may be unknown
        print(f"  {'quality':<20} {answer['quality']:>14.6g} {error}{answer['quality_label']}, {answer['quality_support']}")
    # A board's power at idle is all of it, a template's what its parts leak: what the latter lacks is named.
    for i, line in enumerate(textwrap.wrap(", ".join(answer["not_modelled"]), 100)):
        print(f"  {'' if i else 'not modelled':<20} {line}")
    if answer["left_out"]:
        print(f"  incomplete model: {answer['left_out']}")
    for reason in answer["infeasible_reasons"]:
        print(f"  infeasible: {reason}")
    for sentence in (answer.get("device_order") or {}).get("sentences", ()):
        print(f"  {sentence}")
    measured = [f"times are modelled, not measured: {line}" for line in answer.get("expected_error", ())]
    for line in (*measured, *answer.get("cautions", ())):
        print(textwrap.fill(f"careful: {line}", 100, initial_indent="  ", subsequent_indent="    "))
    if answer["latency_s"]:
        shares = ", ".join(f"{unit} {busy / answer['latency_s']:.1%}" for unit, busy in answer["busy_s"].items())
        print(f"  {'busy':<20} {shares} of the latency")
        bound = ", ".join(f"{name} {latency / answer['latency_s']:.1%}" for name, latency in answer["latency_by_bound_s"].items())
        print(f"  {'bound by':<20} {bound} of the latency")
        if ahead := answer["residency"].get("prefetch"):
            without = answer["latency_s"] + ahead["saved_s"]
            print(f"  {'read ahead':<20} {ahead['bytes']:,.0f} bytes of weights; the latency would be {without:.6g} s without")
    print(f"  {'component':<12} {'latency_s':>12} {'energy_j':>12} {'share':>7}  bound")
    for entry in answer["components"]:
        share = entry["latency_s"] / answer["latency_s"] if answer["latency_s"] else 0.0  # nothing of the model was understood
        print(
            f"  {entry['component'] or 'other':<12} {entry['latency_s']:>12.4g} {entry['energy_j']:>12.4g} {share:>7.1%}  {entry['bound']}"
        )
    rest = answer["energy_j"] - sum(entry["energy_j"] for entry in answer["components"])
    if rest > _ROUNDING * answer["energy_j"]:
        print(f"  {'idle power x latency':<25} {rest:>12.4g}")
