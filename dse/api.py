"""The functions of the toolkit: search, evaluate, resume, load. ``import dse`` offers them lazily.

study = dse.search("bert", objective="carbon")
study.pareto()          # a pandas frame
study.plot()            # a Plotly figure
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from carbon.factors import grid as grids
from carbon.operational.computing import Meter, Spent, emissions
from dse.analysis import importance as analysis
from dse.analysis.contenders import contenders
from dse.analysis.recommendation import recommend
from dse.analysis.sureness import recommend_surely
from dse.errors import DseError, InfeasibleError, StrategyError, UsageError, all_ours
from dse.evaluation import careful, device_order, space_file
from dse.evaluation.evaluation import Evaluation
from dse.evaluation.one_design import context, describe_design, evaluate, idle_of_sram, nothing_kept, profile_fell_back, sources
from dse.evaluation.requests import one_after_the_other
from dse.evaluation.robustness import points_of
from dse.evaluation.words import ProblemOptions, make_problem
from dse.fronts.pareto import Front
from dse.problem.call_text import call_text
from dse.problem.objectives import SERVICE_CONSTRAINT
from dse.problem.problem import Problem
from dse.quality import evaluators
from dse.reports.notebook import told
from dse.reports.run_files import write_files
from dse.run import Run, load
from dse.searches.nearest import nearest_design
from dse.searches.plan import LargeSettings, MeasuredSettings, ShardSettings, check_count
from dse.searches.prepared import Prepared, prepared
from dse.searches.sweep import DEFAULT_BLOCK_POINTS, Progress, front_of, sweep_block
from dse.searches.sweep import run as run_sweep
from dse.storage.run_folder import describe_front, take_back
from dse.storage.study import FILE_NAME, Study
from dse.storage.summary import SweepSummary
from dse.strategies.registry import name_of
from dse.strategies.registry import names as strategy_names
from dse.version import __version__

__all__ = ["describe_design", "evaluate", "load", "make_problem", "refine", "resume", "search"]

# `say(stage, done, total, note)`: stages are "mappings" (unit costs) and "designs" (the sweep).
Say = Callable[[str, int, int, str], None]


@all_ours
def search(
    workload: Any,
    objective: str | Iterable[str] | None = None,
    *,
    quality: str | Callable[..., Any] | None = None,
    strategy: str | Any = "auto",
    budget: int | None = None,
    workers: int = 1,
    whole_budget: bool = False,
    confirm: int = 0,
    measured: MeasuredSettings | None = None,
    sharded: ShardSettings | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    threads: int | None = None,
    block_points: int = DEFAULT_BLOCK_POINTS,
    command: str | None = None,
    say: Say | None = None,
    progress: bool | None = None,
    **options: Unpack[ProblemOptions],
) -> Run:
    """Find the exact Pareto front of a workload's models and a hardware space, write a run folder, and recommend a design.

    Args:
        workload: a name, a path, a :class:`workloads.family.Family`, a ``torch.nn.Module`` (with ``example=`` its inputs), or a Problem.
        objective: a preset (carbon, latency, energy, all, hardware; default carbon) or free forms: ``["max:quality", "min:latency_s"]``.
        quality: measures a model: a word (``table:FILE.csv``, ``measured:minilm``, ``command:...``), an evaluator, or a function of the
            model's parameters that returns a number or (number, standard error). By default the workload's surrogate, where it has one.
        strategy: a name of ``dse list strategies`` or a strategy object.
        budget: evaluations of the measured quality (default 50), or of designs where the space is too large to sweep (default 2,000).
        whole_budget: spend all of the budget; by default a search of trials ends where it has stalled, and says so.
        confirm: how often the designs of the final front of a measured quality are measured again, beside the budget.
        workers: evaluations, or shards of a sweep, at a time, in processes of their own; a function of a notebook travels to them.
        measured, sharded: all settings of either, in place of quality, budget and workers (:mod:`dse.searches.plan`).
        out: the run folder (default ``runs/WORKLOAD-OBJECTIVE``, numbered if taken): study.db, pareto.csv, report.html, designs/.
        say, progress: ``say(stage, done, total, note)`` is told how it goes; or a bar (default: in notebooks).
        options: of the problem: ``hw`` (name, path, Template, Accelerator or dictionary), ``constraints`` (``"latency_s<=0.02"``),
            ``fixed`` and ``vary`` (knob -> value, values), ``grid`` (name, GridFactor or gCO2e/kWh), ``rate_per_s``, ``lifetime_years``,
            ``deployment``, ``residency`` (what may stay on chip between operations) and what else
            :class:`dse.evaluation.words.ProblemOptions` lists.

    Raises DseError (one sentence) for unknown names, values out of range, arguments that would not be used, contradictory constraints,
    or if no design is feasible. A search that ends without a result frees its folder.
    """
    found = prepared(
        workload, objective, quality=quality, strategy=strategy, budget=budget, workers=workers, whole_budget=whole_budget,
        confirm=confirm, measured=measured, sharded=sharded, seed=seed, threads=threads, block_points=block_points, **options,
    )  # fmt: skip
    if command is None:
        of_search = {
            "budget": budget,
            "workers": workers if workers != 1 else None,
            "whole_budget": whole_budget or None,
            "confirm": confirm or None,
            "seed": seed or None,
        }
        given = {"objective": objective, "quality": quality, "strategy": None if strategy == "auto" else strategy, "measured": measured,
                 "sharded": sharded, **options, **of_search, "out": out}  # fmt: skip
        command = call_text("dse.search", found.problem.workload if isinstance(workload, Problem) else workload, **given)
    return search_prepared(found, out=out, command=command, say=say, progress=progress)


def search_prepared(
    found: Prepared,
    *,
    out: str | Path | None = None,
    command: str | None = None,
    say: Say | None = None,
    progress: bool | None = None,
) -> Run:
    """Run a search whose arguments are found good (:func:`dse.searches.prepared.prepared`) and write its run folder, as :func:`search`."""
    problem = found.problem
    folder, made = _new_folder(out, problem)
    description = {
        "measured": found.measured.to_dict() if found.measured else None,
        "quality_code": evaluators.code_of(found.measured.quality) if found.measured else "",
        "large": found.large.to_dict() if found.large else None,
        "problem": problem.to_dict(),
        "shards": found.sharded.to_dict() if found.sharded else None,
        "apart": found.apart,  # designs and deployments: the bounds follow from the problem
        "bounds": found.bounds,  # of models, or of hardware points where the sweep is sharded
        "provenance": _provenance(command or f"dse.search({problem.workload!r}, objective={_objective_text(problem)!r})", found.seed),
    }
    with told(say, progress) as listener, Study.create(folder / FILE_NAME, description) as study:
        try:
            return _finish(study, problem, folder, threads=found.threads, say=listener)
        except ValueError as error:
            if isinstance(error, (UsageError, InfeasibleError, StrategyError)) or not _recorded(study):
                _take_back(study, error, made=made)
            raise


def search_served(
    problem: Problem, *, out: str | Path | None = None, seed: int = 0, command: str | None = None, say: Say | None = None
) -> Run:
    """Search a problem of `dse.served` (a reasoning loop, fleets for a log) and write its run folder.

    Raises DseError if no configuration is feasible; the folder is freed then.
    """
    from dse import served

    folder, made = _new_folder(out, problem)
    description: dict[str, Any] = {
        "measured": None,
        "large": None,
        "problem": problem.to_dict(),
        "shards": None,
        "bounds": [],
        "provenance": _provenance(command or f"dse.api.search_served({problem.workload!r})", seed),
    }
    with Study.create(folder / FILE_NAME, description) as study:
        try:
            return served.finish(study, problem, say)
        except ValueError:
            take_back(study, keep=False, made=made)
            raise


@all_ours
def resume(
    path: str | Path,
    *,
    quality: Callable[..., Any] | None = None,
    strategy: Any = None,
    threads: int | None = None,
    say: Say | None = None,
) -> Run:
    """Finish an interrupted search from its run folder; a finished one gets its files written again.

    ``quality`` and ``strategy``: the objects that the search was given, where another process began it; a study keeps their names alone.
    """
    folder = Path(path)
    file = folder if folder.is_file() else folder / FILE_NAME
    if threads is not None:
        check_count("threads", threads)
    with Study.open(file) as study:
        description = study.description()
        problem = Problem.from_dict(description["problem"])
        _given_again(description, path, quality=quality, strategy=strategy)
        if study.result() is None:  # one that is finished measures nothing any more
            _same_code(description, path)
        if "refined_from" in description["provenance"]:
            # A refinement has no blocks and no trials of its own: it is finished when it exists.
            return load(file.parent)
        if problem.kind:
            from dse import served

            _check_same_version(description["provenance"], file.parent)
            return served.finish(study, problem, say)
        try:
            return _finish(study, problem, file.parent, threads=threads, say=say)
        except InfeasibleError as error:  # what else is wrong may be mended
            _take_back(study, error, made=False)
            raise


def _given_again(description: Mapping[str, Any], path: str | Path, *, quality: Any, strategy: Any) -> None:
    """Make the objects of a study known in this process; one that is not the study's, or is missing, is an error."""
    settings = description["measured"] or description.get("large") or {}
    own = {"quality": settings.get("quality"), "strategy": settings.get("strategy")}
    for field, given, word_of in (("quality", quality, evaluators.name_of), ("strategy", strategy, name_of)):
        if given is not None and (word := word_of(given)) != own[field]:
            raise UsageError(f"{field} is {word} and the study {path} has {own[field] or 'none of its own'}; give the object of that name")
    measured_by, chosen = own["quality"], own["strategy"]
    if measured_by is not None and measured_by.startswith("object:") and not evaluators.is_known(measured_by):
        raise UsageError(
            f"quality {measured_by!r} was given as an object of another process; give it again: dse.resume({str(path)!r}, quality=OBJECT)"
        )
    if chosen is not None and ":" not in chosen and chosen not in strategy_names():
        raise UsageError(
            f"strategy {chosen!r} was given as an object of another process; give it again: dse.resume({str(path)!r}, strategy=OBJECT)"
        )


def _same_code(description: Mapping[str, Any], path: str | Path) -> None:
    """An object of the study's name with other code would go on with figures of another quality among those that are there."""
    code = description.get("quality_code", "")
    if not code:  # of an earlier version, or nothing to be seen
        return
    word = description["measured"]["quality"]
    own = evaluators.code_of(word)
    if own.partition(" ")[0] == code.partition(" ")[0] and own != code:  # instructions of another Python tell nothing
        name = word.partition(":")[2]
        raise UsageError(
            f"quality {name} has other code than the {name} with which {path} was begun, and one front cannot hold figures of both; give "
            f"that one, or begin a new search"
        )


def refine(path: str | Path, **options: Any) -> Run:
    """Refine the front of a finished run and write it as a run folder of its own; options: `dse.searches.refine.refine_run`."""
    from dse.searches.refine import refine_run

    record, evaluation = refine_run(path, **options)
    write_files(record, evaluation)
    return Run.of(record)


def _finish(study: Study, problem: Problem, folder: Path, *, threads: int | None, say: Say | None) -> Run:
    meter = Meter()
    description = study.description()
    _check_same_version(description["provenance"], folder)
    workers, objectives = threads or min(8, os.cpu_count() or 1), len(problem.objectives)

    def mapped(done: int, total: int) -> None:
        if say:
            say("mappings", done, total, "")

    def swept(progress: Progress) -> None:
        if say:
            say("designs", progress.points_done, progress.points, _so_far(progress, problem))

    seed = description["provenance"]["seed"]
    bounds = [(first, last) for first, last in description["bounds"]]
    if description.get("large") is not None:
        from dse.searches import large_space

        large = LargeSettings(**description["large"])
        evaluation, front, summary, found = large_space.run_study(study, problem, large, seed=seed, threads=workers, say=say)
    elif description.get("shards") is not None:
        from dse.searches import shards

        shards.run_study(study, problem, bounds, ShardSettings(**description["shards"]), threads=workers, on_progress=swept)
        whole, summary = _swept_front(study, problem, lambda: shards.sample(problem, bounds, threads=workers))
        evaluation, front = shards.evaluation_of(problem, whole, threads=workers)
        found = {"convergence": analysis.convergence(study.blocks(), whole), **shards.counts(problem, bounds)}
    elif description.get("apart"):
        from dse.searches import deployments

        deployed = deployments.Deployed(problem, threads=workers, progress=mapped)
        run_sweep(study, deployed.bounds(), deployed.block, deployed.points_of, objectives=objectives, threads=workers, on_progress=swept)
        whole, summary = _swept_front(study, problem, deployed.sample)
        evaluation, front = deployed.evaluation_of(whole)
        found = {
            "convergence": analysis.convergence(study.blocks(), whole),
            "importance": analysis.importance(deployed.sample(), problem.objectives),
            "hardware_points": deployed.hardware_count,
            "shapes": len(deployed.designs.shapes),
            "knob_ranges": _knob_ranges(deployed.columns),
        }
    elif description["measured"] is not None:
        from dse.searches.measured import run as run_measured

        evaluation = Evaluation(problem, threads=workers, progress=mapped)
        settings = MeasuredSettings.from_dict(description["measured"])
        front, summary, found = run_measured(study, evaluation, settings, seed=seed, say=say)
        # Quality is known of the measured models alone; what moves the costs is known of the whole space.
        found["importance"] = analysis.importance(evaluation, [o for o in problem.objectives if o.metric != "quality"])
    else:
        evaluation = Evaluation(problem, threads=workers, progress=mapped)
        run_sweep(
            study,
            bounds,
            partial(sweep_block, evaluation, problem.objectives, problem.constraints),
            lambda first, last: (last - first) * evaluation.space.hardware_count,
            objectives=objectives,
            threads=workers,
            on_progress=swept,
        )
        front, summary = _swept_front(study, problem, lambda: evaluation)
        found = {
            "convergence": analysis.convergence(study.blocks(), front),
            "importance": analysis.importance(evaluation, problem.objectives),
        }
    return _written(study, problem, folder, description, evaluation, front, summary, found, meter)


def _swept_front(study: Study, problem: Problem, evaluation: Callable[[], Evaluation]) -> tuple[Front, SweepSummary]:
    """The front of all blocks; ``evaluation`` makes what tells, where no design is feasible, how near the nearest comes."""
    front, summary = front_of(study.blocks(), len(problem.objectives))
    if not len(front):
        near = nearest_design(evaluation(), problem.constraints)
        slow = one_after_the_other(problem) if summary.reasons.get(str(SERVICE_CONSTRAINT)) else ""
        raise InfeasibleError(_no_feasible(summary.reasons, summary.points) + near + slow)
    return front, summary


def _recorded(study: Study) -> bool:
    """Whether anything was found yet."""
    from dse.storage.trials import trials_of

    return bool(study.finished()) or any(trial.done for trial in trials_of(study))


def _take_back(study: Study, error: ValueError, *, made: bool) -> None:
    """Free the folder of a search that has no result; trials of a measured quality are dear and are kept for a warm start."""
    from dse.storage.trials import trials_of
    from dse.strategies.proxy import is_whole

    keep = study.description()["measured"] is not None and any(trial.done and is_whole(trial) for trial in trials_of(study))
    kept = take_back(study, keep=keep, made=made)
    if kept is not None:
        error.args = (f"{error}; its trials are kept, --from {kept} takes them",)


def _written(
    study: Study,
    problem: Problem,
    folder: Path,
    description: Mapping[str, Any],
    evaluation: Evaluation,
    front: Front,
    summary: SweepSummary,
    found: Mapping[str, Any],
    meter: Meter,
) -> Run:
    """The finished run, in its study and its files; ``found`` is what the search itself adds to the context."""
    designs = describe_front(evaluation, front)
    # Of a space that was never whole in one evaluation, what stands beside the front is not known.
    whole = not any(description.get(part) for part in ("shards", "apart", "large"))
    run = Run(
        path=folder,
        problem=problem,
        provenance=description["provenance"],
        summary=summary,
        designs=designs,
        context={
            **context(evaluation),
            "models": evaluation.space.model_count,
            "model_knobs": list(evaluation.space.models),
            "run_with": evaluation.run_with,
            "models_left_out": evaluation.space.models_left_out,
            "models_invalid": evaluation.space.models_invalid,
            "models_dominated": problem.models_dominated,
            "hardware_points": evaluation.space.hardware_count,
            "shapes": evaluation.shape_count,
            "knob_ranges": _knob_ranges({**evaluation.space.models, **evaluation.space.hardware}),
            "models_alike": _models_alike(evaluation),
            **found,
            "cautions": [
                *profile_fell_back(problem),
                *idle_of_sram(problem),
                *found.get("cautions", ()),
                *careful.models_unasked(evaluation),
            ],
            **(contenders(evaluation, front, designs) if whole else {}),
            "uncertainty": device_order.context(problem, designs, seed=description["provenance"]["seed"]),
        },
    )
    run = replace(run, context={**run.context, **_alignment(run)})
    run = replace(run, context={**run.context, **_recommended(run, evaluation)})
    run = replace(run, context={**run.context, "computation": _computation(meter.stop())})
    study.finish({"summary": vars(summary), "designs": run.designs, "context": run.context})
    write_files(run, evaluation)
    if description["measured"] is not None:
        from dse.searches import measured_models

        measured_models.keep_models(run)
    return Run.of(run)


def _recommended(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    """What to build with all that is to be said of it, and the sources of the numbers of its hardware."""
    chosen = recommend(run)
    if chosen.design is None:
        return {"recommendation": chosen.to_dict()}
    design = next(design for design in run.designs if design["design"] == chosen.design)
    if "components" not in design:  # one of many that is told part by part all the same
        design["components"] = evaluation.breakdown(*evaluation.space.position(design["knobs"]))
    cautions = list(run.context["cautions"])
    if "strategy" not in run.context or "quality_evaluator" in run.context:  # others cannot be asked to keep data on chip
        told = nothing_kept(run.problem, chosen.knobs, design["metrics"])
        cautions += [f"{line} Another design may then be the best." for line in told]
    found = recommend_surely(replace(run, context={**run.context, "cautions": cautions}))
    found = replace(found, warnings=(*found.warnings, *careful.parts_beyond_bound(run.problem, found.knobs)))
    known = {"cautions": cautions, "recommendation": found.to_dict()}
    if evaluation.hardware_space.shipped:
        return known
    return {**known, "sources": sources(evaluation, points_of(run.problem, [design]), f"design {found.design}")}


def _computation(spent: Spent) -> dict[str, Any]:
    """What the search itself took on this machine, its carbon at the world's average grid, as nobody has said where the machine stands."""
    found = emissions(spent, grids.lookup("world"))
    return {
        "wall_s": spent.wall_s,
        "cpu_s": spent.cpu_s,
        "energy_j": spent.kwh * 3.6e6,
        "gco2e": 1e3 * found.total_kgco2e,
        "gco2e_per_kwh": found.place.gco2e_per_kwh,
        "basis": spent.basis,
    }


def _models_alike(evaluation: Evaluation) -> dict[str, Any]:
    """What every model of a user's own space has alike, the dimensions that it does not list: they are told beside the front."""
    if evaluation.problem.space_toml is None:
        return {}
    return space_file.held(evaluation.family, evaluation.space.models, evaluation.space.settings)


def _knob_ranges(columns: Mapping[str, Any]) -> dict[str, list[float]]:
    """Least and largest value that was searched, of each knob that is a number and varies."""
    numbers = {name: column for name, column in columns.items() if column.dtype.kind in "iuf" and len(column)}
    ends = {name: [column.min().item(), column.max().item()] for name, column in numbers.items()}
    return {name: [low, high] for name, (low, high) in ends.items() if low != high}


def _alignment(run: Run) -> dict[str, Any]:
    """Which costs pull the same way, where the search used the twin that tells it; nothing where that fails, for the front needs it not."""
    strategy = run.context.get("strategy")
    if strategy is None or strategy["name"] != "amoo" or len(run.problem.objectives) < 2:
        return {}
    from dse.analysis import alignment

    try:
        return {"alignment": alignment.of_run(run, seed=run.provenance["seed"]).to_dict()}
    except (ValueError, RuntimeError):  # ours, and torch's
        return {}


def _so_far(progress: Progress, problem: Problem) -> str:
    """How many designs the front has so far, and the best value of each objective."""
    if not len(progress.front):
        return f"{progress.feasible:,} feasible"
    best = progress.front.values.min(axis=0)
    told = (f"best {o.metric} {o.sign * value:.4g}" for o, value in zip(problem.objectives, best, strict=True))
    return f"front {len(progress.front)}, {', '.join(told)}"


def _no_feasible(reasons: dict[str, int], points: int) -> str:
    worst = sorted(((count, name) for name, count in reasons.items() if count), reverse=True)[:3]
    told = "; ".join(f"{name} fails at {count / points:.1%} of them" for count, name in worst)
    return f"no design of {points:,} is feasible: {told}"


def _check_same_version(provenance: Mapping[str, Any], folder: Path) -> None:
    # Blocks of two versions in one front would be a front of neither.
    if provenance["version"] != __version__:
        raise DseError(
            f"run {folder} was made by dse {provenance['version']} and this is {__version__}; finish it with that version or search again"
        )


def free_folder(name: str) -> Path:
    """runs/NAME, or NAME with the first number from 2 on that is free."""
    base = Path("runs") / name
    folder, number = base, 1
    while folder.exists():
        number += 1
        folder = base.with_name(f"{base.name}-{number}")
    return folder


def _new_folder(out: str | Path | None, problem: Problem) -> tuple[Path, bool]:
    """The folder of a search, and whether it is new."""
    if out is not None:
        folder = Path(out)
        if (folder / FILE_NAME).exists():
            raise DseError(f"out {folder} holds a study already; `dse resume {folder}` finishes it, or choose another")
    else:
        folder = free_folder(f"{Path(problem.workload).stem}-{problem.preset or 'custom'}")
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DseError(f"out {folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise DseError(f"out {folder} cannot be written: permission denied")
    return folder, made


def _objective_text(problem: Problem) -> str | list[str]:
    return problem.preset or [str(objective) for objective in problem.objectives]


def _provenance(command: str, seed: int) -> dict[str, Any]:
    """What made a study."""
    return {
        "command": command,
        "seed": seed,
        "version": __version__,
        "versions": _versions(),
        "python": platform.python_version(),
        "started": _now(),
    }


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("numpy", "scipy", "pandas", "plotly", "sqlalchemy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")
