"""A learnt-quality search of a problem, from evaluation to front: what ``dse search --strategy`` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.evaluation import Evaluation
from dse.execution import Workers
from dse.learnt import DEFAULT_BUDGET
from dse.pareto import Front
from dse.strategies import make
from dse.strategies.choose import check, check_budget, choose
from dse.strategies.confirm import Confirmation, confirm
from dse.strategies.driver import run
from dse.strategies.problem_view import flat_task, nested_front, nested_task
from dse.strategies.stopping import StoppingRule
from dse.strategies.task import Evaluator, Task
from dse.strategies.transfer import Prior
from dse.trials import Measured, Trial, TrialStore

FloatArray = npt.NDArray[np.float64]

# Strategies whose trials are models with their exact hardware; the others propose whole designs.
MODEL_STRATEGIES = ("nested", "random", "sobol", "exhaustive", "nsga2")


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    ``front`` has the evaluation's indices; ``quality`` the measured quality of every evaluated model (index -> figure);
    ``confirmation`` is there where the front was measured again, and then the front's quality comes from it.
    """

    front: Front
    quality: dict[int, Measured]
    trials: list[Trial]
    strategy: str
    why: str
    reason: str
    confirmation: Confirmation | None


def search(
    evaluation: Evaluation,
    store: TrialStore,
    evaluator: Evaluator,
    *,
    strategy: str = "auto",
    budget: int = DEFAULT_BUDGET,
    seed: int = 0,
    pool: Workers | None = None,
    retries: int = 1,
    timeout_s: float | None = None,
    stopping: Sequence[StoppingRule] = (),
    prior: Prior | None = None,
    confirmations: int = 0,
    reference: FloatArray | None = None,
    say: Callable[[str], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Search models with ``evaluator`` as the dear part; hardware is solved exactly by every strategy but flat and ax.

    Trials are kept in ``store``; called again with the same store and seed it continues. ``confirmations``: how often the
    designs of the found front are measured again. Raises DseError if no evaluated model has a feasible design.
    """
    check(strategy)
    check_budget(budget)
    why = "asked for"
    if strategy == "auto":
        strategy, why = choose(learnt=len(evaluator.metrics), models=evaluation.space.model_count, hardware=evaluation.space.hardware_count)
    if say:
        say(f"strategy {strategy}: {why}")
    options: dict[str, Any] = {"prior": prior} if prior is not None and strategy == "nested" else {}
    if strategy in MODEL_STRATEGIES:
        task = nested_task(evaluation, evaluator, reference=reference)
    else:
        task = flat_task(evaluation, evaluator, reference=reference)
    outcome = run(task, store, make(strategy, **options), budget=budget, seed=seed, pool=pool, retries=retries,
                  timeout_s=timeout_s, stopping=stopping, say=say, on_trial=on_trial)  # fmt: skip
    trials = [t for t in outcome.trials if t.info.get("origin") != "confirmation"]
    confirmation, levels = None, None
    if confirmations and task.inner is not None:
        chosen = _on_front(task, trials)
        confirmation = confirm(task, store, chosen, times=confirmations, seed=seed, pool=pool, retries=retries, say=say)
        levels = {number: m.mean for number, m in confirmation.quality.items()}
    front = nested_front(task, trials, levels=levels) if task.inner is not None else _flat_front(evaluation, task, trials)
    if not len(front):
        raise DseError(f"none of the {len(trials)} evaluated designs is feasible; the study keeps them, raise the budget")
    return SearchResult(front, _quality(evaluation, task, trials, confirmation), store.trials(), strategy, why, outcome.reason,
                        confirmation)  # fmt: skip


def _on_front(task: Task, trials: list[Trial]) -> list[int]:
    """Numbers of the trials with a design on the front, in order."""
    values, owners, _ = task.points(trials)
    kept = Front.of(owners, np.arange(len(owners), dtype=np.int64), values)
    return sorted({trials[i].number for i in kept.models.tolist()})


def _quality(evaluation: Evaluation, task: Task, trials: list[Trial], confirmation: Confirmation | None) -> dict[int, Measured]:
    metric = task.learnt_objectives[0].metric
    position = {tuple(key): i for i, key in enumerate(zip(*(v.tolist() for v in evaluation.space.models.values()), strict=True))}
    found = {}
    for trial in trials:
        if trial.done:
            model = position[tuple(trial.parameters[name] for name in evaluation.space.models)]
            again = confirmation.quality.get(trial.number) if confirmation else None
            found[model] = again or trial.metrics[metric]
    return found


def _flat_front(evaluation: Evaluation, task: Task, trials: list[Trial]) -> Front:
    values, owners, _ = task.points(trials)
    models: list[int] = []
    hardware: list[int] = []
    for owner in owners.tolist():
        parameters = trials[owner].parameters
        for columns, found in ((evaluation.space.models, models), (evaluation.space.hardware, hardware)):
            mask = np.ones(len(next(iter(columns.values()))), dtype=bool)
            for name, column in columns.items():
                mask &= column == parameters[name]
            found.append(int(np.flatnonzero(mask)[0]))
    return Front.of(np.array(models, dtype=np.int64), np.array(hardware, dtype=np.int64), values)
