"""Searches whose quality is dear: an evaluator measures it trial by trial, hardware and carbon stay exact.

The settings go into the study beside the problem, so that a resumed search goes on with the same strategy, budget and
evaluator. The package's own engine needs torch only for the strategy ``ax``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dse.errors import UsageError
from dse.evaluation import Evaluation
from dse.pareto import Front
from dse.quality import MEASURED, Quality
from dse.study import Study
from dse.sweep import SweepSummary

Say = Callable[[str, int, int, str], None]

DEFAULT_BUDGET = 50


@dataclass(frozen=True)
class LearntSettings:
    """How quality is measured and searched.

    ``quality`` is an evaluator's word (``surrogate``, ``table:FILE.csv``, ``python:module:function``, ``command:...``); ``confirm``
    how often the designs of the final front are measured again; ``stop_early`` whether a stalled search ends before its budget;
    ``warm_start`` run folders whose trials are known beforehand.
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

    def __post_init__(self) -> None:
        for name in ("budget", "workers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; a whole number of at least 1 is needed")
        for name in ("confirm", "retries"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name)}; 0 or more is needed")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> LearntSettings:
        """The inverse of :meth:`to_dict`."""
        return cls(**{**values, "warm_start": tuple(values["warm_start"])})


def check(settings: LearntSettings, workload: str) -> None:
    """Tell a wrong strategy or evaluator before anything is written."""
    from dse import evaluators
    from dse.strategies.choose import check as check_strategy

    check_strategy(settings.strategy)
    evaluators.parse(settings.quality, workload=workload)


def run(
    study: Study, evaluation: Evaluation, settings: LearntSettings, *, seed: int, say: Say | None
) -> tuple[Front, SweepSummary, dict[str, Any]]:
    """Search, and leave the measured quality in ``evaluation``: the front, the counts, and what a report says of the search."""
    from dse import evaluators, execution
    from dse.strategies.search import search
    from dse.strategies.stopping import SmallImprovement, Stalled
    from dse.strategies.transfer import Prior
    from dse.trials import TrialStore

    evaluator = evaluators.parse(settings.quality, workload=evaluation.family.name)
    store = TrialStore.of_study(study)
    priors = [_trials_of(Path(folder)) for folder in settings.warm_start]
    notes: list[str] = []
    done = 0

    def on_trial(_: Any) -> None:
        nonlocal done
        done += 1
        if say:
            say("trials", min(done, settings.budget), settings.budget, "")

    with execution.workers(settings.executor, settings.workers, settings.address) as pool:
        found = search(
            evaluation,
            store,
            evaluator,
            strategy=settings.strategy,
            budget=settings.budget,
            seed=seed,
            pool=pool,
            retries=settings.retries,
            timeout_s=settings.timeout_s,
            stopping=[Stalled(), SmallImprovement()] if settings.stop_early else [],
            prior=Prior.of(priors, "quality") if priors else None,
            confirmations=settings.confirm,
            say=notes.append,
            on_trial=on_trial,
        )
    _take_measured(evaluation, found.quality)
    completed = [trial for trial in found.trials if trial.done]
    context = {
        "strategy": {"name": found.strategy, "why": found.why, "stopped": found.reason, "notes": notes, "trials": len(found.trials)},
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
    points = len(found.quality) * evaluation.space.hardware_count
    return found.front, SweepSummary(points, points, {}), context


def _take_measured(evaluation: Evaluation, quality: Mapping[int, Any]) -> None:
    """Measured figures in place of a surrogate's; a model that was not measured has none."""
    count = evaluation.space.model_count
    mean, error = np.full(count, np.nan), np.full(count, np.nan)
    for model, figure in quality.items():
        mean[model], error[model] = figure.mean, figure.se
    evaluation.quality = Quality(mean, error, np.full(count, MEASURED, dtype=np.int64))


def _trials_of(folder: Path) -> list[Any]:
    from dse.study import FILE_NAME
    from dse.trials import TrialStore

    with Study.open(folder if folder.is_file() else folder / FILE_NAME) as study:
        return list(TrialStore.of_study(study).trials())


def _plain(value: Any) -> Any:
    """Dataclass contents as JSON values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.floating, np.integer)):
        return value.item()
    return value
