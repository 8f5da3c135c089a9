"""One suite that every ask/tell strategy passes, on both views of a problem."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dse.quality.measured import design_key
from dse.storage.trials import TrialStore
from dse.strategies import make, registry
from dse.strategies.driver import run
from dse.strategies.protocol import AskTell, Wait, simulate

CASES = [
    ("random", "nested"),
    ("random", "flat"),
    ("sobol", "nested"),
    ("sobol", "flat"),
    ("exhaustive", "nested"),
    ("exhaustive", "flat"),
    ("nested", "nested"),
    ("nested", "nested2"),
    ("flat", "flat"),
    ("ax", "flat"),
    ("nsga2", "nested"),
    ("nsga2", "flat"),
    ("bandit", "nested"),
    ("bandit", "nested2"),
    ("bandit", "flat"),
    ("amoo", "known"),
]


def test_every_strategy_is_covered() -> None:
    assert {name for name, _ in CASES} == {record.name for record in registry.records()}


def _task(tasks: ModuleType, view: str) -> Any:
    return {
        "nested": tasks.tiny_nested,
        "nested2": lambda: tasks.tiny_nested(costs=2),
        "flat": tasks.tiny_flat,
        "known": tasks.tiny_known,
    }[view]()


def _make(name: str, initial: int = 8) -> Any:
    pytest.importorskip({"ax": "botorch", "nsga2": "pymoo", "amoo": "torch"}.get(name, "numpy"))
    # Small settings, so that the slow engines meet their model and end a round within the tiny spaces.
    options: dict[str, dict[str, Any]] = {"ax": {"initial": initial}, "nsga2": {"population": 4}, "amoo": {"starts": 4, "steps": 3}}
    return make(name, **options.get(name, {}))


@pytest.mark.parametrize(("name", "view"), CASES)
def test_proposes_every_feasible_design_once_and_stops(tasks: ModuleType, name: str, view: str) -> None:
    task = _task(tasks, view)
    found = simulate(task, _make(name, len(task.rows) - 4), budget=len(task.rows) + 5, seed=3)
    keys = [design_key(trial.parameters) for trial in found]
    assert len(set(keys)) == len(keys) == len(task.rows), "repeated, or stopped early, or went on"
    assert set(keys) == {design_key(task.space.values(row)) for row in task.rows}


@pytest.mark.parametrize(("name", "view"), CASES)
def test_deterministic_by_seed_and_resumed_from_the_study_alone(tasks: ModuleType, tmp_path: Path, name: str, view: str) -> None:
    task = _task(tasks, view)
    whole = [t.parameters for t in simulate(task, _make(name), budget=11, seed=5)]
    store = TrialStore.open(tmp_path / "study.db")
    for budget in (1, 4, 5, 11):  # a new strategy object each time: nothing is remembered but the study
        run(_task(tasks, view), store, _make(name), budget=budget, seed=5)
    assert [t.parameters for t in store.trials()] == whole
    if name not in ("exhaustive", "amoo"):  # amoo finds the whole exact front of so small a space, whatever the seed
        other = [t.parameters for t in simulate(task, _make(name), budget=11, seed=6)]
        assert other != whole, "the seed has no effect"


@pytest.mark.parametrize(("name", "view"), CASES)
def test_parallel_asks_never_repeat(tasks: ModuleType, tmp_path: Path, name: str, view: str) -> None:
    task = _task(tasks, view)
    store = TrialStore.open(tmp_path / "study.db")
    asker = AskTell(task, _make(name), store, seed=1, budget=12)
    waiting: list[Any] = []
    for _ in range(40):
        new = asker.ask(3)
        waiting += new
        if not new and not waiting:
            break
        if len(waiting) >= 5 or not new:  # told out of order and late
            trial = waiting.pop()
            metrics = task.measure_known(trial.parameters)
            if task.evaluator is not None:
                metrics |= task.evaluator(trial.parameters, fidelity=1.0, seed=trial.seed)
            asker.tell([trial.finish(metrics)])
    trials = store.trials()
    assert len(trials) == 12
    assert all(t.done for t in trials)
    assert len({design_key(t.parameters) for t in trials}) == 12
    assert all(task.allowed(task.space.index(t.parameters))[0] for t in trials)


@pytest.mark.parametrize(("name", "view"), CASES)
def test_failed_trials_do_not_stop_it(tasks: ModuleType, name: str, view: str) -> None:
    task = _task(tasks, view)
    strategy = _make(name)
    history: list[Any] = []
    for number in range(10):
        proposal = strategy.propose(task, history, number, 2)
        assert proposal is not None
        assert not isinstance(proposal, Wait)
        trial = simulate(task, _Fixed(proposal), budget=1, seed=0)[0]
        trial = type(trial)(number, trial.parameters, trial.seed, trial.state, trial.metrics, key=trial.key)
        history.append(trial.fail("failed", "no") if number % 3 == 1 else trial)
    assert len({design_key(t.parameters) for t in history}) == 10


class _Fixed:
    name = "fixed"

    def __init__(self, proposal: Any) -> None:
        self.proposal = proposal

    def propose(self, *_: Any) -> Any:
        return self.proposal


def test_draw_of_a_trial_depends_on_seed_and_number_alone(tasks: ModuleType) -> None:
    task = tasks.standin_flat()
    history = simulate(task, make("random"), budget=6, seed=9)
    again = make("random").propose(task, history[:5], 5, 9)
    assert again.parameters == history[5].parameters
    assert history[5].seed == simulate(task, make("sobol"), budget=6, seed=9)[5].seed


def test_large_space_without_a_feasible_design_says_so(tasks: ModuleType) -> None:
    from dataclasses import replace

    from dse.errors import DseError
    from dse.problem.objectives import Constraint

    task = tasks.standin_flat()
    task = replace(task, constraints=(Constraint("area", "<=", 0.1),))
    with pytest.raises(DseError, match="loosen a constraint"):
        make("random").propose(task, [], 0, 0)
    assert not np.any(task.allowed(task.space.unrank(np.arange(100))))
