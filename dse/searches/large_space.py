"""Spaces too large to enumerate whose costs are exact but not free: whole designs as trials, costed a batch at a time.

A trial is a model of the workload (parameter ``model``, the models in the order of their multiply-accumulates) on a hardware
point. What the hardware or the model tells alone (area, embodied carbon, quality, memory) is known of any design; what needs the
mapping search (latency, energy, operational carbon) is the trial's outcome, exact, and a trial is one such evaluation. Only the
designs that are asked for are costed, grouped by hardware point and model, and each once.

Where the hardware is of the `datacenter` family its closed forms (`hw_models.twins.datacenter`) with the carbon model on top are
the *twin*: the same metrics of any design in microseconds, and their gradients, for `amoo`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dse.errors import InfeasibleError, UsageError
from dse.evaluation import space_file
from dse.evaluation.design_costs import MAKEABLE, DesignCosts, sizes
from dse.evaluation.evaluation import Evaluation
from dse.evaluation.feasibility import UNMAPPABLE, meets
from dse.fronts.pareto import Front
from dse.problem.objectives import Constraint
from dse.problem.problem import Problem
from dse.quality.measured import Measured
from dse.searches.nearest import nearest_trial
from dse.searches.plan import LargeSettings
from dse.spaces.parameters import Space
from dse.storage.study import Study
from dse.storage.summary import SweepSummary
from dse.storage.trial import FAILED, Trial
from dse.storage.trials import TrialStore
from dse.strategies.amoo.screened import ScreenedAmoo
from dse.strategies.protocol import AskTell, Strategy
from dse.strategies.registry import AUTO, find, large_names
from dse.strategies.stopping import StoppingRule
from dse.strategies.task import Task
from dse.twins.datacenter import Twin, refusal

if TYPE_CHECKING:
    from dse.twins.datacenter import Twin

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

Say = Callable[[str, int, int, str], None]

_BATCH = 128
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class LargeView:
    """A problem as a task over whole designs, with the exact costs behind it and its twin where the hardware has one."""

    task: Task
    costs: DesignCosts
    twin: Twin | None
    no_twin: str


def large_view(problem: Problem, *, reference: FloatArray | None = None, threads: int | None = None) -> LargeView:
    """The view of a problem; its twin, or why it has none."""
    costs = DesignCosts(problem, threads=threads)
    task = Task(
        name=costs.space.name,
        space=costs.space,
        objectives=problem.objectives,
        evaluator=costs,
        known=costs.known,
        known_metrics=(*costs.known_names, MAKEABLE),
        constraints=(*problem.constraints, Constraint(MAKEABLE, ">=", 1.0)),
        reference=reference,
    )
    reason = refusal(costs)
    return LargeView(task, costs, None if reason else Twin(costs, task), reason or "")


def strategy_of(view: LargeView, name: str) -> tuple[Strategy, str]:
    """The strategy, ``auto`` decided, and why."""
    why = "asked for"
    if name == AUTO:
        name, why = _auto(view)
    if name == "amoo":
        if view.twin is None:
            raise UsageError(f"strategy amoo needs a differentiable cost model, and {view.no_twin}; use nsga2")

        return ScreenedAmoo(view.twin.task), why
    record = find(name)
    if not record.large:
        raise UsageError(f"strategy {name} does not fit a space too large to enumerate; use one of {', '.join(large_names())}")
    return record.factory(**record.large_options), why


def check(problem: Problem, settings: LargeSettings) -> None:
    """Tell what the problem cannot have (a strategy, a metric, a carbon profile, a space file) before anything is written."""
    if texts := space_file.point_constraints(problem.space_toml, problem.space):
        raise UsageError(
            f"space {problem.space} is too large to list its hardware points, so {', '.join(map(repr, texts))} cannot be applied; fix some "
            "knobs with --set"
        )
    strategy_of(large_view(problem, threads=1), settings.strategy)


def _auto(view: LargeView) -> tuple[str, str]:
    """amoo where there is a twin and torch for it, else what is installed of the others; and why."""
    count = f"{view.task.space.size:,} designs are too many to sweep"
    amoo = find("amoo")
    if view.twin is not None and not amoo.missing:
        return "amoo", f"{count}: descent and screening on the closed forms of the hardware, exact costs of what they find"
    lacking = view.no_twin or "amoo needs the package torch (dse-toolkit[search])"
    return "random" if find("nsga2").missing else "nsga2", f"{count}, and {lacking}"


@dataclass(frozen=True)
class LargeResult:
    """What a search found: the front by an evaluation of its own hardware points, the trials, and why it ended."""

    evaluation: Evaluation
    front: Front
    trials: list[Trial]
    feasible: int
    reasons: dict[str, int]
    strategy: str
    why: str
    reason: str


def search(
    problem: Problem,
    store: TrialStore,
    settings: LargeSettings,
    *,
    seed: int = 0,
    threads: int | None = None,
    stopping: Sequence[StoppingRule] = (),
    on_trials: Callable[[int], None] | None = None,
) -> LargeResult:
    """Search, or continue what the store holds; every trial is an exact evaluation of a design.

    Raises InfeasibleError if no evaluated design is feasible.
    """
    view = large_view(problem, threads=threads)
    strategy, why = strategy_of(view, settings.strategy)
    reason = run(view, store, strategy, budget=settings.budget, seed=seed, stopping=stopping, on_trials=on_trials)
    trials = store.trials()
    found = front_of(view, trials)
    reasons = _reasons(view, trials)
    if not len(found):
        told = "; ".join(f"{name} fails at {count / len(trials):.1%} of them" for name, count in reasons.items() if count)
        near = nearest_trial(problem.constraints, trials)
        raise InfeasibleError(
            f"none of the {len(trials):,} evaluated designs is feasible: {told}{near}; search with a larger budget or loosen a constraint"
        )
    evaluation, front = view.costs.evaluation_of(found)
    feasible = sum(trial.done and view.task.feasible(trial) for trial in trials)
    return LargeResult(evaluation, front, trials, feasible, reasons, strategy.name, why, reason)


def _reasons(view: LargeView, trials: Sequence[Trial]) -> dict[str, int]:
    """How many of the evaluated designs break each bound (those known beforehand none does), and how many have no mapping."""
    done = [trial for trial in trials if trial.done]
    unmapped = len(trials) - len(done)
    reasons = {UNMAPPABLE: unmapped} if unmapped else {}
    for constraint in view.costs.problem.constraints:
        values = np.array([trial.metrics[constraint.metric].mean for trial in done])
        reasons[str(constraint)] = int(np.count_nonzero(~meets(constraint, values)))
    return reasons


def run_study(
    study: Study, problem: Problem, settings: LargeSettings, *, seed: int, threads: int | None, say: Say | None
) -> tuple[Evaluation, Front, SweepSummary, dict[str, Any]]:
    """The search of a run folder: the evaluation of the front's hardware, the front, the counts, what a report says of it."""
    store = TrialStore.of_study(study)
    done = len(store.trials())

    def told(count: int) -> None:
        nonlocal done
        done += count
        if say:
            say("trials", min(done, settings.budget), settings.budget, "")

    found = search(problem, store, settings, seed=seed, threads=threads, on_trials=told)
    size = sizes(problem)
    context = {
        "strategy": {
            "name": found.strategy,
            "why": found.why,
            "stopped": found.reason,
            "notes": [f"a trial is an exact evaluation of one design; the space has {size.designs:,}"],
            "trials": len(found.trials),
        },
        "sampled": True,
        "models": size.models,
        "hardware_points": size.hardware,
        "shapes": size.shapes,
    }
    return found.evaluation, found.front, SweepSummary(len(found.trials), found.feasible, found.reasons), context


def run(
    view: LargeView,
    store: TrialStore,
    strategy: Strategy,
    *,
    budget: int | None,
    seed: int,
    batch: int = _BATCH,
    stopping: Sequence[StoppingRule] = (),
    on_trials: Callable[[int], None] | None = None,
) -> str:
    """Ask, cost and tell batches until the budget is spent, the space is exhausted or a rule holds; the reason.

    Whoever dies leaves its trials to whoever comes next; several may work on one store.
    """
    asker = AskTell(view.task, strategy, store, seed=seed, budget=budget)
    try:
        while True:
            trials = store.take_over(limit=batch)
            if not trials and (reason := _why_stop(view, store, stopping)) is not None:
                return reason
            trials = trials or asker.ask(batch)
            if trials:
                for trial in cost_trials(view, trials):
                    store.tell(trial)
                if on_trials:
                    on_trials(len(trials))
            elif asker.exhausted and not any(t.state == "running" for t in store.trials()):
                spent = budget is not None and len(store.trials()) >= budget
                return f"the budget of {budget} exact evaluations is spent" if spent else "the space is exhausted"
            else:
                time.sleep(_POLL_SECONDS)
    except BaseException:
        store.release()
        raise


def _why_stop(view: LargeView, store: TrialStore, stopping: Sequence[StoppingRule]) -> str | None:
    if not stopping:
        return None
    trials = store.trials()
    return next((reason for rule in stopping if (reason := rule.reason(view.task, trials))), None)


def cost_trials(view: LargeView, trials: Sequence[Trial]) -> list[Trial]:
    """The outcomes of trials, costed together; one without a mapping has failed."""
    task, costs = view.task, view.costs
    rows = np.array([task.row(trial.parameters) for trial in trials])
    known = costs.known(task.space.columns(rows))
    values = costs.cost(rows)
    done = []
    for i, trial in enumerate(trials):
        metrics = {name: Measured(float(column[i])) for name, column in known.items()}
        metrics |= {name: Measured(float(value)) for name, value in zip(costs.metrics, values[i], strict=True)}
        if all(math.isfinite(m.mean) for m in metrics.values()):
            done.append(trial.finish(metrics))
        else:
            done.append(trial.fail(FAILED, UNMAPPABLE))
    return done


def front_of(view: LargeView, trials: Sequence[Trial]) -> Front:
    """The front of the completed feasible trials: positions of models, ranks of hardware points."""
    values, owners, _ = view.task.points(trials)
    parameters = view.task.space.parameters
    rows = np.array([view.task.row(trials[i].parameters) for i in owners.tolist()], dtype=np.int64).reshape(len(owners), len(parameters))
    if len(parameters) == 1 or not len(rows):
        ranks = np.zeros(len(rows), dtype=np.int64)
    else:
        ranks = Space("hardware", parameters[1:]).rank(rows[:, 1:])
    return Front.of(rows[:, 0], ranks, values)
