"""A measured-quality search of a problem, from evaluation to front: what ``dse search --strategy`` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import InfeasibleError
from dse.evaluation.evaluation import Evaluation
from dse.fronts.pareto import Front
from dse.quality.measured import Evaluator, Measured
from dse.searches.nearest import nearest_design, nearest_trial
from dse.searches.plan import DEFAULT_BUDGET, DEFAULT_PROXY_TOP
from dse.storage.trial import Trial
from dse.storage.trials import TrialStore
from dse.strategies.confirm import Confirmation, confirm
from dse.strategies.driver import run
from dse.strategies.executors import Workers
from dse.strategies.proxy import ByFidelity, ProxyResult, is_first, proxy_search
from dse.strategies.registry import AUTO, check_budget, choose, find
from dse.strategies.stopping import StoppingRule
from dse.strategies.task import Task
from dse.strategies.transfer import Prior
from dse.strategies.views import flat_task, model_columns, nested_front, nested_task

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    ``front`` has the evaluation's indices; ``quality`` the measured quality of every evaluated model (index -> figure);
    ``confirmation`` is there where the front was measured again, and then the front's quality comes from it. ``proxy`` is
    there where the search ran on one; front and quality then come from the target's measurements alone. ``feasible``
    counts the measured trials that meet every bound on what they measured.
    """

    front: Front
    quality: dict[int, Measured]
    trials: list[Trial]
    strategy: str
    why: str
    reason: str
    confirmation: Confirmation | None
    proxy: ProxyResult | None = None
    feasible: int = 0


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
    proxy: Evaluator | None = None,
    proxy_top: int = DEFAULT_PROXY_TOP,
    fidelities: Sequence[float] = (),
    confirmations: int = 0,
    reference: FloatArray | None = None,
    say: Callable[[str], None] | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Search models with ``evaluator`` as the dear part; hardware is solved exactly by every strategy but flat and ax.

    Trials are kept in ``store``; called again with the same store and seed it continues. ``confirmations``: how often the
    designs of the found front are measured again. With ``proxy`` the search spends its budget on that evaluator and its best
    ``proxy_top`` designs are then measured by ``evaluator``, by way of the ``fidelities`` between; without a proxy the budget is spent
    at the first of these (see :mod:`dse.strategies.proxy`). Raises InfeasibleError if no evaluated model has a feasible design.
    """
    check_budget(budget)
    why = "asked for"
    if strategy == AUTO:
        strategy, why = choose(
            measured=len(evaluator.metrics), models=evaluation.space.model_count, hardware=evaluation.space.hardware_count
        )
    if say:
        say(f"strategy {strategy}: {why}")
    record = find(strategy)
    options: dict[str, Any] = {"prior": prior} if prior is not None and record.warm_start else {}
    make_task = nested_task if record.trial == "model" else flat_task
    task = make_task(evaluation, evaluator if proxy is None else ByFidelity(proxy, evaluator), reference=reference)
    if task.inner is not None and not len(task.rows):
        raise InfeasibleError(_no_hardware(evaluation, evaluator))
    chosen = record.factory(**options)
    on_proxy: ProxyResult | None = None
    if proxy is not None or fidelities:
        on_proxy = proxy_search(task, None, store, chosen, budget=budget, top=proxy_top, seed=seed, pool=pool, retries=retries,
                                timeout_s=timeout_s, stopping=stopping, fidelities=fidelities, screened=proxy is not None, say=say,
                                on_trial=on_trial)  # fmt: skip
        trials, reason = on_proxy.target, on_proxy.reason
    else:
        outcome = run(task, store, chosen, budget=budget, seed=seed, pool=pool, retries=retries, timeout_s=timeout_s,
                      stopping=stopping, phase=is_first, say=say, on_trial=on_trial)  # fmt: skip
        trials, reason = [t for t in outcome.trials if is_first(t)], outcome.reason
    confirmation, levels = None, None
    if confirmations and task.inner is not None:
        confirmation = confirm(task, store, _on_front(task, trials), times=confirmations, seed=seed, pool=pool, retries=retries, say=say)
        levels = {number: m.mean for number, m in confirmation.quality.items()}
    front = nested_front(task, trials, levels=levels) if task.inner is not None else _flat_front(evaluation, task, trials)
    if not len(front):
        raise InfeasibleError(_no_front(task, store.trials(), trials, on_proxy))
    return SearchResult(front, _quality(evaluation, task, trials, confirmation), store.trials(), strategy, why, reason,
                        confirmation, on_proxy, sum(trial.done and task.feasible(trial) for trial in trials))  # fmt: skip


def _no_hardware(evaluation: Evaluation, evaluator: Evaluator) -> str:
    """Why no model can be evaluated at all, in a sentence: nothing is spent on models that no hardware serves."""
    if hasattr(evaluator, "has"):
        return "none of the models that the table has rows for has a feasible hardware point; loosen a constraint or add rows"
    bounds = [c for c in evaluation.problem.constraints if c.metric not in evaluator.metrics]
    return f"no model has a feasible hardware point{nearest_design(evaluation, bounds)}; loosen a constraint"


def _no_front(task: Task, every: list[Trial], own: list[Trial], proxy: ProxyResult | None) -> str:
    """Why there is no front, in a sentence."""
    if not any(trial.done for trial in own):
        last = next((trial.error for trial in reversed(every) if trial.error), "")
        whose = "evaluations on the target" if proxy and proxy.proxy and any(t.done for t in proxy.proxy) else "evaluations"
        return f"none of the {whose} succeeded" + (f"; the last failure said: {last}" if last else "")
    more = "--proxy-top" if proxy else "the budget"
    return (
        f"none of the {len(own)} evaluated designs is feasible{nearest_trial(task.constraints, own)}; raise {more} or loosen a constraint"
    )


def _on_front(task: Task, trials: list[Trial]) -> list[int]:
    """Numbers of the trials with a design on the front, in order."""
    values, owners, _ = task.points(trials)
    kept = Front.of(owners, np.arange(len(owners), dtype=np.int64), values)
    return sorted({trials[i].number for i in kept.models.tolist()})


def _quality(evaluation: Evaluation, task: Task, trials: list[Trial], confirmation: Confirmation | None) -> dict[int, Measured]:
    metric = task.measured_objectives[0].metric
    columns = model_columns(evaluation)
    position = {tuple(key): i for i, key in enumerate(zip(*(v.tolist() for v in columns.values()), strict=True))}
    found = {}
    for trial in trials:
        if trial.done:
            model = position[tuple(trial.parameters[name] for name in columns)]
            again = confirmation.quality.get(trial.number) if confirmation else None
            found[model] = again or trial.metrics[metric]
    return found


def _flat_front(evaluation: Evaluation, task: Task, trials: list[Trial]) -> Front:
    values, owners, _ = task.points(trials)
    models: list[int] = []
    hardware: list[int] = []
    for owner in owners.tolist():
        parameters = trials[owner].parameters
        for columns, found in ((model_columns(evaluation), models), (evaluation.space.hardware, hardware)):
            mask = np.ones(len(next(iter(columns.values()))), dtype=bool)
            for name, column in columns.items():
                mask &= column == parameters[name]
            found.append(int(np.flatnonzero(mask)[0]))
    return Front.of(np.array(models, dtype=np.int64), np.array(hardware, dtype=np.int64), values)
