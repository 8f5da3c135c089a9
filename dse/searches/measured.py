"""Searches whose quality is dear: an evaluator measures it trial by trial, hardware and carbon stay exact.

The settings go into the study beside the problem, so that a resumed search goes on with the same strategy, budget and
evaluator. The package's own engine needs torch only for the strategy ``ax``.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dse import __version__
from dse.errors import UsageError
from dse.evaluation.evaluation import Evaluation
from dse.fronts.pareto import Front
from dse.quality.surrogate import MEASURED, Quality
from dse.searches.sweep import SweepSummary
from dse.storage.study import Study

if TYPE_CHECKING:
    from dse.problem.problem import Problem
    from dse.searches.measured_search import SearchResult
    from dse.storage.trials import TrialStore

Say = Callable[[str, int, int, str], None]

DEFAULT_BUDGET = 50
DEFAULT_PROXY_TOP = 10  # designs that a proxy search measures on the target


@dataclass(frozen=True)
class LearntSettings:
    """How quality is measured and searched.

    ``quality`` is an evaluator's word (``surrogate``, ``table:FILE.csv``, ``python:module:function``, ``command:...``); ``confirm``
    how often the designs of the final front are measured again; ``stop_early`` whether a stalled search ends before its budget;
    ``warm_start`` run folders whose trials are known beforehand. With ``proxy``, an evaluator's word too, ``budget`` is spent on
    it and its ``proxy_top`` best designs are measured by ``quality``. ``storage`` is the SQLAlchemy URL of a database that
    holds the trials in place of the run folder, so that several drivers share them; ``study`` their name in it (default: one
    that follows from the problem and these settings, the same for every driver of the same search).
    """

    quality: str = "surrogate"
    strategy: str = "auto"
    budget: int = DEFAULT_BUDGET
    workers: int = 1
    executor: str | None = None
    address: str | None = None
    timeout_s: float | None = None
    retries: int = 1
    confirm: int = 0
    stop_early: bool = True
    warm_start: tuple[str, ...] = ()
    proxy: str | None = None
    proxy_top: int = DEFAULT_PROXY_TOP
    storage: str | None = None
    study: str | None = None

    def __post_init__(self) -> None:
        for name in ("budget", "workers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; a whole number of at least 1 is needed")
        for name in ("confirm", "retries"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; 0 or more is needed")
        if self.proxy is not None and not 1 <= self.proxy_top <= self.budget:
            raise UsageError(f"proxy-top is {self.proxy_top}; between 1 and the budget of {self.budget} trials on the proxy is needed")
        if self.study is not None and self.storage is None:
            raise UsageError(f"study {self.study!r} names trials in a shared database; give the database with --storage URL")
        if self.storage is not None:
            _check_storage(self.storage)

    @property
    def of_trials(self) -> str | None:
        """The first setting, in the command line's word, that only trials of a measured quality can have; None if there is none."""
        given = {
            "storage": self.storage,
            "confirm": self.confirm,
            "from": self.warm_start,
            "executor": self.executor,
            "address": self.address,
            "trial-timeout": self.timeout_s,
        }
        return next((name for name, value in given.items() if value), None)

    @property
    def in_words(self) -> str:
        """What is evaluated how often."""
        if self.proxy is None:
            return f"at most {self.budget} evaluations of {self.quality}"
        return (
            f"at most {self.budget} evaluations of the proxy {self.proxy}, then {self.proxy_top} of {self.quality}, which alone make "
            "the front"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LearntSettings:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, "warm_start": tuple(values["warm_start"])})


def check(settings: LearntSettings, workload: str) -> None:
    """Tell a wrong strategy or evaluator before anything is written."""
    from dse.quality import evaluators
    from dse.strategies.choose import check as check_strategy

    check_strategy(settings.strategy)
    evaluators.parse(settings.quality, workload=workload)
    if settings.proxy is not None:
        try:
            evaluators.parse(settings.proxy, workload=workload)
        except UsageError as error:
            raise UsageError(str(error).replace("quality ", "proxy ", 1)) from error


def run(
    study: Study, evaluation: Evaluation, settings: LearntSettings, *, seed: int, say: Say | None
) -> tuple[Front, SweepSummary, dict[str, Any]]:
    """Search, and leave the measured quality in ``evaluation``: the front, the counts, and what a report says of the search."""
    from dse.quality import evaluators
    from dse.searches.measured_search import search
    from dse.strategies import executors as execution
    from dse.strategies.stopping import SmallImprovement, Stalled
    from dse.strategies.transfer import Prior

    workload = evaluation.family.name
    priors = [_trials_of(Path(folder)) for folder in settings.warm_start]
    notes: list[str] = []
    done, expected = 0, settings.budget + (settings.proxy_top if settings.proxy else 0)

    def on_trial(_: Any) -> None:
        nonlocal done
        done += 1
        if say:
            say("trials", min(done, expected), expected, "")

    with (
        _trials(study, evaluation.problem, settings, seed) as store,
        execution.workers(settings.executor, settings.workers, settings.address) as pool,
    ):
        found = search(
            evaluation,
            store,
            evaluators.parse(settings.quality, workload=workload),
            strategy=settings.strategy,
            budget=settings.budget,
            seed=seed,
            pool=pool,
            retries=settings.retries,
            timeout_s=settings.timeout_s,
            stopping=[Stalled(), SmallImprovement()] if settings.stop_early else [],
            prior=Prior.of(priors, "quality") if priors else None,
            proxy=evaluators.parse(settings.proxy, workload=workload) if settings.proxy else None,
            proxy_top=settings.proxy_top,
            confirmations=settings.confirm,
            say=notes.append,
            on_trial=on_trial,
        )
        shared = {"study": store.study} if settings.storage else {}
    _take_measured(evaluation, found.quality)
    return found.front, _summary(evaluation, found), _context(evaluation, settings, found, notes, shared)


def _summary(evaluation: Evaluation, found: SearchResult) -> SweepSummary:
    """What was evaluated: whole designs, or every measured model on all hardware."""
    from dse.searches.measured_search import MODEL_STRATEGIES
    from dse.searches.sweep import sweep_block
    from dse.strategies.proxy import is_first

    if found.strategy not in MODEL_STRATEGIES:
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
    evaluation: Evaluation, settings: LearntSettings, found: SearchResult, notes: list[str], shared: dict[str, Any]
) -> dict[str, Any]:
    """What a report says of the search."""
    completed = found.proxy.target if found.proxy else [trial for trial in found.trials if trial.done]
    context: dict[str, Any] = {
        "strategy": {
            "name": found.strategy,
            "why": found.why,
            "stopped": found.reason,
            "notes": notes,
            "trials": len(found.trials),
            **shared,
        },
        "quality_surrogate": None,
        "quality_evaluator": {
            "evaluator": settings.quality,
            "parameters": list(evaluation.space.models),
            "evaluations": len(completed),
            "confirmed": found.confirmation is not None,
        },
    }
    if found.confirmation is not None:
        context["confirmation"] = _plain(asdict(found.confirmation))
    if found.proxy is not None:
        context["proxy"] = {
            "evaluator": settings.proxy,
            "target": settings.quality,
            "trials": sum(trial.done for trial in found.proxy.proxy),
            "asked": settings.proxy_top,
            "measured": len(found.proxy.target),
            "rank_correlation": found.proxy.spearman,
        }
    return context


@contextmanager
def _trials(study: Study, problem: Problem, settings: LearntSettings, seed: int) -> Iterator[TrialStore]:
    """The trials of a search: in its own study file, or in a database that several drivers share."""
    from dse.storage.trials import TrialStore

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


def _fingerprint(problem: Problem, settings: LearntSettings, seed: int) -> str:
    """What drivers must have in common to share trials: everything that decides which trial comes next and what it measures.

    Workers and time limits may differ, and the budget too where nothing is measured again afterwards.
    """
    same = {name: getattr(settings, name) for name in ("quality", "strategy", "proxy", "warm_start")}
    if settings.proxy or settings.confirm:
        same |= {"budget": settings.budget, "proxy_top": settings.proxy_top, "confirm": settings.confirm}
    text = json.dumps({"problem": problem.to_dict(), "seed": seed, "version": __version__, **same}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_storage(url: str) -> None:
    import sqlalchemy as sa

    try:
        parsed = sa.engine.make_url(url)
    except sa.exc.ArgumentError:
        raise UsageError("storage is no URL of a database; sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE is meant") from None
    try:
        parsed.get_dialect()
    except sa.exc.NoSuchModuleError:
        raise UsageError(
            f"storage {parsed.drivername} is no kind of database; sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE is meant"
        ) from None
    except ModuleNotFoundError:
        pass  # a driver that is not installed is told where the database is opened
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError("storage sqlite:// names no file, and what is kept in memory is lost and shared with nobody; give sqlite:///FILE")
    if parsed.password is not None:
        raise UsageError(
            "storage holds a password, which would be written into the study and the report; leave it to PGPASSWORD or ~/.pgpass"
        )


def _take_measured(evaluation: Evaluation, quality: Mapping[int, Any]) -> None:
    """Measured figures in place of a surrogate's; a model that was not measured has none."""
    count = evaluation.space.model_count
    mean, error = np.full(count, np.nan), np.full(count, np.nan)
    for model, figure in quality.items():
        mean[model], error[model] = figure.mean, figure.se
    evaluation.quality = Quality(mean, error, np.full(count, MEASURED, dtype=np.int64))


def _trials_of(folder: Path) -> list[Any]:
    from dse.problem.problem import Problem
    from dse.storage.study import FILE_NAME
    from dse.strategies.proxy import is_proxy

    with Study.open(folder if folder.is_file() else folder / FILE_NAME) as study:
        known = study.description()
        settings = LearntSettings.from_dict(known["learnt"] or LearntSettings().to_dict())
        with _trials(study, Problem.from_dict(known["problem"]), settings, known["provenance"]["seed"]) as store:
            # A proxy's figures are of another scale than those that this search will measure.
            return [trial for trial in store.trials() if not is_proxy(trial)]


def _plain(value: Any) -> Any:
    """Dataclass contents as JSON values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.floating, np.integer)):
        return value.item()
    return value
