"""Searches whose quality is dear: an evaluator measures it trial by trial, hardware and carbon stay exact.

The settings go into the study beside the problem, so that a resumed search goes on with the same strategy, budget and
evaluator. The package's own engine needs torch only for the strategy ``ax``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dse.errors import UsageError
from dse.evaluation.evaluation import Evaluation
from dse.fronts.pareto import Front
from dse.problem.metrics import current_name
from dse.problem.objectives import Objective
from dse.problem.problem import Problem
from dse.problem.wording import plural
from dse.quality import evaluators
from dse.quality.measured import Evaluator
from dse.quality.model_evaluator import MeasuredEvaluator
from dse.quality.surrogate import MEASURED, Quality
from dse.quality.trained.quality import TrainedEvaluator
from dse.quality.travelling import check_travels
from dse.searches import measured_models, table_rows
from dse.searches.measured_search import search
from dse.searches.plan import MeasuredSettings
from dse.searches.sweep import sweep_block
from dse.storage.study import FILE_NAME, Study
from dse.storage.summary import SweepSummary
from dse.storage.trial import FAILED, TIMED_OUT, Trial
from dse.storage.trials import TrialStore
from dse.strategies import executors as execution
from dse.strategies.driver import EXHAUSTED
from dse.strategies.proxy import is_first, is_whole
from dse.strategies.registry import AUTO, choose, find
from dse.strategies.registry import check as check_strategy
from dse.strategies.stopping import SmallImprovement, Stalled
from dse.strategies.transfer import Prior
from dse.strategies.views import model_columns
from dse.version import __version__
from workloads import library

if TYPE_CHECKING:
    from dse.searches.measured_search import SearchResult

Say = Callable[[str, int, int, str], None]
# Evaluators that run nobody else's code in the process that calls them: theirs may crash it.
_OF_OUR_OWN = ("surrogate", "table", "trained", "measured", "command")


def check_problem(settings: MeasuredSettings, problem: Problem) -> None:
    """`check` of the search that a problem is: by its workload's own name and its objectives."""
    check(settings, library.load(problem.workload, bind=problem.bind or None).name, problem.objectives)


def check(settings: MeasuredSettings, workload: str, objectives: Sequence[Objective] = ()) -> None:
    """Tell a wrong strategy or evaluator, or objectives that nothing measured bears on, before anything is written."""
    check_strategy(settings.strategy)
    evaluator = evaluators.parse(settings.quality, workload=workload)
    _checked(evaluator)
    kind = execution.kind_of(_executor(settings), settings.workers, settings.address)
    if kind != "inline":
        check_travels(evaluator)
    if objectives and not any(objective.metric in evaluator.metrics for objective in objectives):
        told = ", ".join(evaluator.metrics)
        raise UsageError(
            f"objectives {', '.join(map(str, objectives))} hold nothing that {settings.quality} tells; add max:{told} or leave the "
            f"{'strategy' if settings.quality == 'surrogate' else 'evaluator'} out"
        )
    if settings.proxy is not None:
        try:
            _checked(evaluators.parse(settings.proxy, workload=workload))
        except UsageError as error:
            raise UsageError(str(error).replace("quality ", "proxy ", 1)) from error


def _checked(evaluator: Evaluator, models: Mapping[str, Any] | None = None) -> None:
    if isinstance(evaluator, (MeasuredEvaluator, TrainedEvaluator)):
        evaluator.check(models)


def run(
    study: Study, evaluation: Evaluation, settings: MeasuredSettings, *, seed: int, say: Say | None
) -> tuple[Front, SweepSummary, dict[str, Any]]:
    """Search, and leave the measured quality in ``evaluation``: the front, the counts, and what a report says of the search."""
    workload = evaluation.family.name
    target, proxy = (
        None if word is None else measured_models.kept_in(evaluators.parse(word, workload=workload), study.path.parent)
        for word in (settings.quality, settings.proxy)
    )
    assert target is not None  # quality is always named
    _checked(target, evaluation.space.models)
    _check_columns(target, evaluation, settings)
    priors = [_trials_of(Path(folder)) for folder in settings.warm_start]
    notes: list[str] = []
    done, expected = 0, min(sum(settings.sizes), _most_trials(evaluation, settings, target))

    def on_trial(_: Any) -> None:
        nonlocal done
        done += 1
        if say:
            say("trials", min(done, expected), expected, "")

    with (
        _trials(study, evaluation.problem, settings, seed) as store,
        execution.workers(_executor(settings), settings.workers, settings.address, memory_bytes=_memory_bytes(settings)) as pool,
    ):
        found = search(
            evaluation,
            store,
            target,
            strategy=settings.strategy,
            budget=settings.budget,
            seed=seed,
            pool=pool,
            retries=settings.retries,
            timeout_s=settings.timeout_s,
            stopping=[Stalled(), SmallImprovement()] if settings.stops_early else [],
            prior=Prior.of(priors, "quality") if priors else None,
            proxy=proxy,
            proxy_top=settings.proxy_top,
            fidelities=settings.fidelities,
            confirmations=settings.confirm,
            say=notes.append,
            on_trial=on_trial,
        )
        shared = {"study": store.study} if settings.storage else {}
    _take_measured(evaluation, found.quality, target)
    context = _context(evaluation, settings, found, notes, shared, expected)
    tables = [given for given in (target, proxy) if isinstance(given, evaluators.TableEvaluator)]
    own_space, columns = evaluation.problem.space_toml is not None, model_columns(evaluation)
    context["cautions"] = [line for table in tables for line in table_rows.cautions(table, columns, own_space=own_space)]
    if isinstance(target, MeasuredEvaluator):
        context["measured"] = measured_models.summary(target, study.path.parent)
    if isinstance(target, evaluators.TableEvaluator) and target.repeated:
        context["quality_evaluator"]["errors"] = f"pooled over {plural(target.repeated, 'repeated model')}"
    return found.front, _summary(evaluation, found), context


def _check_columns(target: Evaluator, evaluation: Evaluation, settings: MeasuredSettings) -> None:
    """A table's columns are knobs of the models, where a trial is a model."""
    if not isinstance(target, evaluators.TableEvaluator):
        return
    strategy, space = settings.strategy, evaluation.space
    if strategy == AUTO:
        strategy, _ = choose(measured=len(target.metrics), models=space.model_count, hardware=space.hardware_count)
    if find(strategy).trial == "design":
        return
    knobs = list(model_columns(evaluation))
    missing = [name for name in target.parameters if name not in knobs]
    if missing:
        name = evaluation.family.name
        known = f"known are {', '.join(knobs)}" if space.models else "it is one model without knobs of its size"
        raise UsageError(f"table {target.path} has the column {missing[0]!r}, and {name} has no such model knob; {known}")


def _most_trials(evaluation: Evaluation, settings: MeasuredSettings, target: Evaluator) -> int:
    """More trials than this no budget buys: each model once, of a table those it has a row for."""
    if len(settings.sizes) > 1 or settings.confirm or (settings.strategy != AUTO and find(settings.strategy).trial == "design"):
        return sum(settings.sizes)
    columns = model_columns(evaluation)
    if not isinstance(target, evaluators.TableEvaluator) or not set(target.parameters) <= set(columns):
        return evaluation.space.model_count
    rows = zip(*(columns[name].tolist() for name in target.parameters), strict=True)
    return sum(target.has(dict(zip(target.parameters, row, strict=True))) for row in rows)


def _executor(settings: MeasuredSettings) -> str | None:
    """Where evaluations run. Only a process of its own can be ended when its time is up, or may end without the search ending."""
    words = [word for word in (settings.quality, settings.proxy) if word is not None]
    alone = settings.workers == 1 and settings.address is None and not any(word.startswith("object:") for word in words)
    foreign = any(word.partition(":")[0] not in _OF_OUR_OWN for word in words)
    bounded = settings.timeout_s is not None or settings.memory_gib is not None
    return settings.executor or ("processes" if alone and (bounded or foreign) else None)


def _memory_bytes(settings: MeasuredSettings) -> int | None:
    return None if settings.memory_gib is None else int(settings.memory_gib * 2**30)


def _failures(trials: Sequence[Trial]) -> dict[str, Any]:
    """How many trials gave nothing, and why: the reasons by number, the most frequent first."""
    failed = [trial for trial in trials if trial.state in (FAILED, TIMED_OUT)]
    reasons = Counter(_first_line(trial.error) for trial in failed)
    return {"trials": len(trials), "failed": len(failed), "reasons": dict(reasons.most_common(5))}


def _first_line(text: str) -> str:
    """One printable line of whatever an evaluation said."""
    line = (text.strip().splitlines() or ["no reason given"])[0]
    return "".join(c if c.isprintable() else " " for c in line)[:200]


def _summary(evaluation: Evaluation, found: SearchResult) -> SweepSummary:
    """What was evaluated: whole designs, or every measured model on all hardware."""
    if find(found.strategy).trial == "design":
        measured = found.proxy.target if found.proxy else [trial for trial in found.trials if trial.done and is_first(trial)]
        return SweepSummary(len(measured), found.feasible, {})
    problem = evaluation.problem
    points, feasible, reasons = 0, 0, Counter[str]()
    for model in sorted(found.quality):
        block = sweep_block(evaluation, problem.objectives, problem.constraints, 0, model, model + 1)
        points, feasible = points + block.points, feasible + block.feasible
        reasons.update(block.reasons)
    return SweepSummary(points, feasible, dict(reasons))


def _context(
    evaluation: Evaluation, settings: MeasuredSettings, found: SearchResult, notes: list[str], shared: dict[str, Any], most: int
) -> dict[str, Any]:
    """What a report says of the search; ``most`` trials are all that can be made."""
    again = sum(trial.info.get("origin") == "confirmation" for trial in found.trials)
    whole = len(found.trials) - again >= most
    every = whole and most < sum(settings.sizes) and all(trial.done for trial in found.trials)
    completed = found.proxy.target if found.proxy else [trial for trial in found.trials if trial.done and is_first(trial)]
    context: dict[str, Any] = {
        "strategy": {
            "name": found.strategy,
            "why": found.why,
            "stopped": (f"all {most:,} models were measured" if most > 1 else "the one model was measured") if every else found.reason,
            "notes": notes,
            "trials": len(found.trials) - again,
            **({"confirmations": again} if again else {}),
            "asked": min(sum(settings.sizes), most),  # no budget buys more
            "early": settings.stops_early and not whole and found.reason != EXHAUSTED,
            **shared,
        },
        "quality_surrogate": None,
        "quality_evaluator": {
            "evaluator": settings.quality,
            "parameters": list(evaluation.space.models),
            "evaluations": len(completed),
            "confirmed": found.confirmation is not None,
        },
        "evaluations": _failures(found.trials),
    }
    if found.confirmation is not None:
        context["confirmation"] = _plain(asdict(found.confirmation))
    if found.proxy is not None:
        rungs = zip(settings.fidelities if settings.proxy else settings.fidelities[1:], found.proxy.rungs, strict=True)
        context["proxy"] = {
            "evaluator": settings.proxy or f"{settings.quality} at fidelity {settings.fidelities[0]:g}",
            "rungs": [{"fidelity": fidelity, "trials": sum(t.done for t in trials)} for fidelity, trials in rungs],
            "target": settings.quality,
            "trials": sum(trial.done for trial in found.proxy.proxy),
            "asked": settings.proxy_top,
            "measured": len(found.proxy.target),
            "rank_correlation": found.proxy.spearman,
        }
        context["evaluation_saved_s"] = found.proxy.saved_s
    return context


@contextmanager
def _trials(study: Study, problem: Problem, settings: MeasuredSettings, seed: int) -> Iterator[TrialStore]:
    """The trials of a search: in its own study file, or in a database that several drivers share."""
    if settings.storage is None:
        yield TrialStore.of_study(study)
        return
    search = _fingerprint(problem, settings, seed)
    name = settings.study or f"{Path(problem.workload).stem}-{problem.preset or 'custom'}-{search[:12]}"
    store = TrialStore.open(settings.storage, study=name)
    try:
        theirs = store.meta().get("search")
        if theirs is None:
            store.set_meta("search", search)
        elif theirs != search:
            raise UsageError(
                f"study {name!r} of the database holds the trials of another problem, evaluator, strategy, seed or version; "
                "choose another --study, or leave it out for a name that follows from the search"
            )
        yield store
    finally:
        store.close()


def _fingerprint(problem: Problem, settings: MeasuredSettings, seed: int) -> str:
    """What drivers must have in common to share trials: everything that decides which trial comes next and what it measures.

    Workers and time limits may differ, and the budget too where nothing is measured again afterwards.
    """
    same = {name: getattr(settings, name) for name in ("quality", "strategy", "proxy", "warm_start")}
    if settings.fidelities:
        same |= {"fidelities": settings.fidelities}
    if settings.proxy or settings.confirm or settings.fidelities:
        same |= {"budget": settings.budget, "proxy_top": settings.proxy_top, "confirm": settings.confirm}
    text = json.dumps({"problem": problem.to_dict(), "seed": seed, "version": __version__, **same}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _take_measured(evaluation: Evaluation, quality: Mapping[int, Any], target: Evaluator) -> None:
    """Measured figures in place of a surrogate's; a model that was not measured has none."""
    count = evaluation.space.model_count
    mean, error = np.full(count, np.nan), np.full(count, np.nan)
    for model, figure in quality.items():
        mean[model], error[model] = figure.mean, figure.se
    support = np.full(count, MEASURED, dtype=np.int64)
    if isinstance(target, TrainedEvaluator):  # what its table does not hold, its surrogate said
        support = target.support(evaluation.space.models)
    evaluation.quality = Quality(mean, error, support)


def trials_of_study(folder: Path) -> list[dict[str, Any]]:
    """The trials of a run as rows: number, state, parameters, each metric with its standard error, fidelity, error; none of a sweep.

    Where a search confirmed its front, ``confirms`` is the trial that a row measured again.
    """
    with Study.open(folder if folder.is_file() else folder / FILE_NAME, read_only=True) as study:
        known = study.description()
        if known["problem"].get("kind"):  # a configuration that was simulated is a trial; it has no error
            rows = map(_row, TrialStore.of_study(study).trials())
            return [{current_name(name): value for name, value in row.items() if not name.endswith("_se")} for row in rows]
        if known["measured"] is None and known.get("large") is None:
            return []
        settings = MeasuredSettings.from_dict(known["measured"]) if known["measured"] else MeasuredSettings()
        with _trials(study, Problem.from_dict(known["problem"]), settings, known["provenance"]["seed"]) as store:
            confirmed = {"confirms": None} if settings.confirm else {}
            return [{**_row(trial), **{name: trial.info.get("of") for name in confirmed}} for trial in store.trials()]


def _row(trial: Trial) -> dict[str, Any]:
    figures = {name: value for metric, m in trial.metrics.items() for name, value in ((metric, m.mean), (f"{metric}_se", m.se))}
    return {"trial": trial.number, "state": trial.state, **trial.parameters, **figures, "fidelity": trial.fidelity, "error": trial.error}


def _trials_of(folder: Path) -> list[Any]:
    with Study.open(folder if folder.is_file() else folder / FILE_NAME, read_only=True) as study:
        known = study.description()
        settings = MeasuredSettings.from_dict(known["measured"] or MeasuredSettings().to_dict())
        with _trials(study, Problem.from_dict(known["problem"]), settings, known["provenance"]["seed"]) as store:
            # Figures of a proxy or a lower fidelity are of another scale than those that this search will measure.
            return [trial for trial in store.trials() if is_whole(trial)]


def _plain(value: Any) -> Any:
    """Dataclass contents as JSON values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.floating, np.integer)):
        return value.item()
    return value
