"""Nested and flat search: what they reach, noise, stopping, warm start, confirmation, proxy, choice."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dse.errors import UsageError
from dse.problem.objectives import Objective
from dse.quality.evaluators import FunctionEvaluator
from dse.quality.measured import Measured, design_key
from dse.quality.noise import NoisyEvaluator, ScaledEvaluator
from dse.searches.plan import MeasuredSettings, screened
from dse.spaces.parameters import Parameter, Space
from dse.storage.trial import FAILED, RUNNING, Trial
from dse.storage.trials import TrialStore
from dse.strategies import choose, make, views
from dse.strategies.confirm import confirm
from dse.strategies.driver import run
from dse.strategies.nested import NestedSearch, TargetSearch
from dse.strategies.protocol import simulate
from dse.strategies.proxy import choose_top, proxy_search
from dse.strategies.rungs import rung_sizes
from dse.strategies.stopping import SmallImprovement, Stalled
from dse.strategies.task import Inner, Task
from dse.strategies.transfer import Prior


def _share(tasks: ModuleType, task: object, name: str, budget: int, seed: int, at: tuple[int, ...]) -> list[float]:
    trials = simulate(task, make(name), budget=budget, seed=seed)  # type: ignore[arg-type]
    true = tasks.standin_module().TRUE_HYPERVOLUME
    return [task.hypervolume(trials[:k], tasks.reference_point()) / true for k in at]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_nested_reaches_its_goal_on_the_standin(tasks: ModuleType) -> None:
    task = tasks.standin_nested()
    shares = np.array([_share(tasks, task, "nested", 50, seed, (25, 50)) for seed in range(9)])
    random = np.array([_share(tasks, task, "random", 50, seed, (25, 50)) for seed in range(9)])
    median = np.median(shares, axis=0)
    assert median[0] >= 0.975
    assert median[1] >= 0.99
    assert (median > np.median(random, axis=0) + 0.03).all()


@pytest.mark.slow
def test_flat_is_ahead_of_the_baselines_on_the_standin(tasks: ModuleType) -> None:
    shares = {
        name: np.median([_share(tasks, tasks.standin_flat(), name, 50, seed, (25, 50)) for seed in range(5)], axis=0)
        for name in ("flat", "nsga2", "random")
    }
    assert shares["flat"][1] >= 0.94
    for name in ("nsga2", "random"):
        assert (shares["flat"] > shares[name]).all()


def test_nested_finds_the_tiny_front_sooner_than_random(tasks: ModuleType) -> None:
    task = replace(tasks.tiny_nested(), reference=np.array([0.0, 40.0]))
    full = task.hypervolume(simulate(task, make("exhaustive"), budget=99, seed=0))
    nested = [task.hypervolume(simulate(task, make("nested"), budget=7, seed=s)) / full for s in range(9)]
    random = [task.hypervolume(simulate(task, make("random"), budget=7, seed=s)) / full for s in range(9)]
    assert np.median(nested) > np.median(random)


@pytest.mark.parametrize("falling", [False, True])
def test_first_models_are_large_for_their_cost(falling: bool) -> None:
    # 12 x 12 x 3 models; cost rises with a and with b (or falls with b) and knows nothing of c.
    space = Space("grid", tuple(Parameter(n, tuple(range(1, k + 1)), "model", "linear") for n, k in (("a", 12), ("b", 12), ("c", 3))))
    rows = space.unrank(np.arange(space.size))
    a, b = rows[:, 0] + 1.0, rows[:, 1] + 1.0
    cost = a * a * (13.0 - b if falling else b)
    inner = Inner(("cost",), [np.array([[c]]) for c in cost], [np.zeros(1, dtype=np.int64) for _ in cost])
    evaluator = FunctionEvaluator(lambda p, fidelity, seed: float(p["a"]), ("quality",))
    task = Task("grid", space, (Objective("max", "quality"), Objective("min", "cost")), evaluator, inner=inner)
    size = a - b if falling else a + b
    bands = np.array_split(np.argsort(cost, kind="stable"), 4)
    for seed in range(5):
        trials = simulate(task, make("nested"), budget=5, seed=seed)
        assert [t.info["origin"] for t in trials] == ["initial"] * 4 + ["model"]
        at = [int(space.rank(space.index(t.parameters)[None, :])[0]) for t in trials[:4]]
        visited = [next(k for k, band in enumerate(bands) if i in band) for i in at]
        assert sorted(visited) == [0, 1, 2, 3]
        for i, k in zip(at, visited, strict=True):
            # At most three tenths of the band are larger.
            assert np.mean(size[bands[k]] > size[i] + 1e-9) <= 0.3


def test_noise_is_told_to_the_model_and_the_front_uses_the_posterior(tasks: ModuleType) -> None:
    task = tasks.tiny_nested(se=2.0)
    trials = simulate(task, make("nested"), budget=10, seed=0)
    seen = NestedSearch().predict(task, trials)
    raw = np.array([t.metrics["quality"].mean for t in trials])
    true = np.array([tasks.TinyQuality()(t.parameters, fidelity=1, seed=0)["quality"].mean for t in trials])
    assert np.abs(seen.level - true).mean() < np.abs(raw - true).mean()


def test_constraint_on_quality_keeps_what_is_below_off_the_front(tasks: ModuleType) -> None:
    from dse.problem.objectives import Constraint

    task = replace(tasks.tiny_nested(), constraints=(Constraint("quality", ">=", 20.0),))
    trials = simulate(task, make("nested"), budget=15, seed=0)
    values, _, _ = task.points(trials)
    assert len(values)
    assert (values[:, 0] <= -20.0).all()


def test_nested_refuses_what_it_cannot_take(tasks: ModuleType) -> None:
    with pytest.raises(UsageError, match="use ax"):
        make("nested").propose(tasks.tiny_flat(), [], 0, 0)
    with pytest.raises(UsageError, match="use nested"):
        make("ax").propose(tasks.tiny_nested(), [], 0, 0)


def test_stopping_rules_speak_and_resume_the_same(tasks: ModuleType, tmp_path: Path) -> None:
    task = tasks.tiny_nested()
    said: list[str] = []
    store = TrialStore.open(tmp_path / "a.db")
    rules = [Stalled(share=0.01, window=4), SmallImprovement(share=1e-3, times=2)]
    outcome = run(task, store, make("nested"), budget=50, seed=0, stopping=rules, say=said.append)
    assert "hypervolume" in outcome.reason
    assert said == [f"search ended: {outcome.reason}"]
    assert len(outcome.trials) < 14
    again = run(task, store, make("nested"), budget=50, seed=0, stopping=rules)
    assert again.reason == outcome.reason
    assert len(again.trials) == len(outcome.trials)
    assert "budget" in run(task, TrialStore.open(tmp_path / "b.db"), make("nested"), budget=3, seed=0).reason
    assert "exhausted" in run(task, TrialStore.open(tmp_path / "c.db"), make("random"), budget=None, seed=0).reason


def test_warm_start_needs_fewer_evaluations(tasks: ModuleType) -> None:
    task = replace(tasks.tiny_nested(), reference=np.array([0.0, 40.0]))
    other = simulate(task, make("random"), budget=14, seed=50)
    prior = Prior.of([other], "quality")
    full = task.hypervolume(simulate(task, make("exhaustive"), budget=99, seed=0))
    cold = [task.hypervolume(simulate(task, NestedSearch(), budget=5, seed=s)) / full for s in range(7)]
    warm = [task.hypervolume(simulate(task, NestedSearch(prior=prior), budget=5, seed=s)) / full for s in range(7)]
    assert np.mean(warm) > np.mean(cold)
    with pytest.raises(UsageError, match="no completed trial"):
        Prior.of([[]], "quality")


def test_confirmation_shows_the_winners_curse(tasks: ModuleType, tmp_path: Path) -> None:
    task = replace(tasks.tiny_nested(), evaluator=ScaledEvaluator(tasks.TinyQuality(), 4.0))
    curses = []
    for seed in range(6):
        store = TrialStore.open(tmp_path / f"{seed}.db")
        trials = run(task, store, make("random"), budget=12, seed=seed).trials
        values, owners, _ = task.points(trials)
        best = trials[owners[values[:, 0].argmin()]]
        found = confirm(task, store, [best.number], times=3, seed=seed)
        curses.append(found.curse.mean)
        assert len(store.trials()) == 15
        assert found.quality[best.number].se == pytest.approx(4.0 / np.sqrt(3), rel=0.9)
        assert confirm(task, store, [best.number], times=3, seed=seed) == found, "a resumed confirmation measures nothing anew"
    assert np.mean(curses) > 0


def test_proxy_search_reports_the_targets_figures_alone(tasks: ModuleType, tmp_path: Path) -> None:
    task = replace(tasks.tiny_nested(), evaluator=ScaledEvaluator(tasks.TinyQuality(), 0.5))
    store = TrialStore.open(tmp_path / "p.db")
    found = proxy_search(task, tasks.TinyQuality(), store, make("random"), budget=14, top=5, seed=0)
    assert len(found.proxy) == 14
    assert len(found.target) == 5
    assert all(t.metrics["quality"].se == 0.5 for t in found.target)
    assert found.spearman is not None
    assert found.spearman > 0.5
    again = proxy_search(task, tasks.TinyQuality(), store, make("random"), budget=14, top=5, seed=0)
    assert [t.number for t in again.target] == [t.number for t in found.target]


@dataclass(frozen=True)
class Related:
    """A proxy of TinyQuality: a multiple of it and a constant, so that the process of the differences has nothing to learn."""

    inner: Any
    metrics: tuple[str, ...] = ("quality",)

    def __call__(self, parameters: Any, *, fidelity: float, seed: int) -> dict[str, Measured]:
        return {"quality": Measured(3.0 + 0.1 * self.inner(parameters, fidelity=1.0, seed=seed)["quality"].mean)}


def test_nested_chooses_what_a_proxy_search_measures_from_both(tasks: ModuleType, tmp_path: Path) -> None:
    """Of all models, seen by the proxy or not: at equal measurements more of the front than the proxy's best; resumed it is the same."""
    reference = np.array([0.0, 40.0])
    whole, listed, unseen = [], [], 0
    for seed in range(5):
        task = replace(tasks.tiny_nested(), reference=reference)
        options: dict[str, Any] = {"budget": 7, "top": 5, "seed": seed}
        proxy = Related(tasks.TinyQuality())
        found = proxy_search(task, proxy, TrialStore.open(tmp_path / f"n{seed}.db"), make("nested"), **options)
        assert len(found.target) == 5
        assert [t.info["origin"] for t in found.target] == ["target"] * 5
        seen = {design_key(t.parameters) for t in found.proxy}
        unseen += sum(design_key(t.parameters) not in seen for t in found.target)
        assert len({design_key(t.parameters) for t in found.target}) == 5
        whole.append(task.hypervolume(found.target))
        best = choose_top(task, found.proxy, 5)
        exact = [t.finish(tasks.TinyQuality()(t.parameters, fidelity=1.0, seed=0)) for t in best]
        listed.append(task.hypervolume(exact))
        if seed < 2:
            broken = TrialStore.open(tmp_path / f"b{seed}.db")
            calls: list[tuple[float, str]] = []
            stop = replace(task, evaluator=Coarse(tasks.TinyQuality(), calls, breaks_after=2))
            with pytest.raises(KeyboardInterrupt):
                proxy_search(stop, proxy, broken, make("nested"), **options)
            again = proxy_search(task, proxy, broken, make("nested"), **options)
            assert [(t.number, t.parameters, t.metrics) for t in again.target] == [
                (t.number, t.parameters, t.metrics) for t in found.target
            ]
    assert unseen > 0
    assert np.mean(whole) > np.mean(listed)


def test_the_target_is_predicted_by_a_line_through_the_proxy_and_a_process_of_the_differences(tasks: ModuleType) -> None:
    task = tasks.tiny_nested()
    proxy = Related(tasks.TinyQuality())
    rows = [task.space.values(row) for row in task.rows]
    true = np.array([tasks.TinyQuality()(p, fidelity=1.0, seed=0)["quality"].mean for p in rows])
    seen = [Trial(i, dict(p), 0, fidelity=0.0).finish(proxy(p, fidelity=1.0, seed=0)) for i, p in enumerate(rows)]
    own = [Trial(20 + i, dict(rows[i]), 0).finish({"quality": Measured(float(true[i]))}) for i in (0, 5, 9)]
    running = Trial(30, dict(rows[7]), 0, state=RUNNING)
    chooser = TargetSearch(seen, 6)
    found = chooser.predict(task, [*own, running])
    np.testing.assert_allclose(found.mean, true, atol=1e-2)  # three points and all of the proxy give every model
    assert found.sd[7] == 0.0, "what is being measured is taken to come out as expected"
    assert chooser.propose(task, own, 40, 0) is not None
    assert TargetSearch(seen, 3).propose(task, own, 40, 0) is None, "no more than it was told"
    assert TargetSearch([], 3).propose(task, [], 40, 0) is None, "a proxy that measured nothing says nothing"
    failed = [t.fail(FAILED, "no") for t in (Trial(20 + i, dict(p), 0) for i, p in enumerate(rows[:3]))]
    best = chooser.propose(task, failed, 40, 0)
    assert best is not None
    assert best.parameters == rows[3 + int(np.argmax(true[3:]))], "where all measurements failed the proxy's best is next"


@dataclass(frozen=True)
class Coarse:
    """Exact at full fidelity; below, off by up to 1 / fidelity in the fourth digit, and counted."""

    inner: Any
    calls: list[tuple[float, str]]
    breaks_after: int | None = None
    metrics: tuple[str, ...] = ("quality",)

    def __call__(self, parameters: Any, *, fidelity: float, seed: int) -> dict[str, Measured]:
        if self.breaks_after is not None and len(self.calls) >= self.breaks_after:
            raise KeyboardInterrupt
        self.calls.append((fidelity, design_key(parameters)))
        exact = self.inner(parameters, fidelity=1.0, seed=seed)["quality"].mean
        return {"quality": Measured(exact + (1.0 - fidelity) * 1e-4 * (seed % 7))}


def test_halving_measures_the_best_of_each_rung_higher_and_resumes(tasks: ModuleType, tmp_path: Path) -> None:
    options: dict[str, Any] = {"budget": 12, "top": 3, "seed": 3, "fidelities": (0.25, 0.5), "screened": False}
    calls: list[tuple[float, str]] = []
    task = replace(tasks.tiny_nested(), evaluator=Coarse(tasks.TinyQuality(), calls))
    found = proxy_search(task, None, TrialStore.open(tmp_path / "whole.db"), make("nested"), **options)
    by_rung = {f: [key for at, key in calls if at == f] for f in (0.25, 0.5, 1.0)}
    assert [len(rung) for rung in by_rung.values()] == [12, 6, 3]
    assert set(by_rung[1.0]) <= set(by_rung[0.5]) <= set(by_rung[0.25])
    assert [len(found.proxy), [len(rung) for rung in found.rungs], len(found.target)] == [12, [6], 3]
    assert all(t.fidelity == 1.0 for t in found.target)
    # The rung's front goes on: by hand, the designs of the first rung that no other beats in both quality and cost.
    values, owners, _ = task.points(found.proxy)
    best = {o for o, v in zip(owners.tolist(), values, strict=True) if not any((w <= v).all() and (w < v).any() for w in values)}
    kept = {design_key(found.proxy[o].parameters) for o in best}
    assert kept <= set(by_rung[0.5]) or set(by_rung[0.5]) <= kept
    for stop in (5, 14, 19):  # broken off in each rung: the same trials, none twice
        again: list[tuple[float, str]] = []
        broken = replace(task, evaluator=Coarse(tasks.TinyQuality(), again, stop))
        with pytest.raises(KeyboardInterrupt):
            proxy_search(broken, None, TrialStore.open(tmp_path / f"{stop}.db"), make("nested"), **options)
        whole = replace(task, evaluator=Coarse(tasks.TinyQuality(), again))
        resumed = proxy_search(whole, None, TrialStore.open(tmp_path / f"{stop}.db"), make("nested"), **options)
        assert again == calls
        assert [(t.number, t.parameters, t.metrics) for t in resumed.target] == [(t.number, t.parameters, t.metrics) for t in found.target]


def test_rungs_shrink_by_equal_factors_and_share_the_budget() -> None:
    assert rung_sizes(27, 1, 2) == [27, 9, 3, 1]
    assert rung_sizes(30, 10, 0) == [30, 10]
    plan = screened(MeasuredSettings(quality="python:a:b", budget=28, fidelities=(0.1, 0.3)))
    assert (plan.sizes, plan.proxy) == ([16, 8, 4], None)
    plan = screened(MeasuredSettings(quality="measured:minilm", budget=35, fidelities=(0.25,)))
    assert (plan.sizes, plan.proxy) == ([20, 10, 5], "measured:minilm?screen=1")
    for wrong in ((0.5, 0.5), (0.5, 0.2), (1.0,), (0.0,)):
        with pytest.raises(UsageError, match="above 0 and below 1"):
            MeasuredSettings(fidelities=wrong)
    assert MeasuredSettings.from_dict(plan.to_dict()) == plan
    old = {name: value for name, value in plan.to_dict().items() if name != "fidelities"}  # a study from before
    assert MeasuredSettings.from_dict(old).fidelities == ()


def test_noisy_evaluator_is_unbiased_and_its_error_is_true(tasks: ModuleType) -> None:
    exact = tasks.TinyQuality()
    design = {"a": 2, "b": 1}
    true = exact(design, fidelity=1, seed=0)["quality"].mean
    noisy = NoisyEvaluator(exact, clients_asked=5, heterogeneity=3.0, epsilon=50.0, span=10.0)
    views = noisy.views(design, true)
    found = [noisy(design, fidelity=1.0, seed=s)["quality"] for s in range(4000)]
    means = np.array([m.mean for m in found])
    spread = np.sqrt(9.0 * np.var(views) / 9.0 / 5 * (1 - 5 / 100) + 2 * (10.0 / (50.0 * 5)) ** 2)
    assert means.mean() == pytest.approx(views.mean(), abs=4 * spread / np.sqrt(4000))
    assert means.std() == pytest.approx(spread, rel=0.06)  # 4,000 draws: 1.1 % standard error of a standard deviation
    assert np.sqrt(np.mean([m.se**2 for m in found])) == pytest.approx(spread, rel=0.06)
    assert noisy(design, fidelity=1.0, seed=3) == noisy(design, fidelity=1.0, seed=3)
    everybody = NoisyEvaluator(exact, heterogeneity=3.0)(design, fidelity=1.0, seed=0)["quality"]
    assert everybody.mean == pytest.approx(views.mean())
    assert everybody.se == pytest.approx(0.0, abs=1e-12)
    biased = NoisyEvaluator(exact, clients_asked=20, heterogeneity=3.0, bias=2.0)
    assert np.mean([biased(design, fidelity=1.0, seed=s)["quality"].mean for s in range(200)]) > views.mean() + 1.0
    with pytest.raises(UsageError, match="clients_asked is 0"):
        NoisyEvaluator(exact, clients_asked=0)


def test_choice_says_why() -> None:
    assert choose(measured=0, models=7168, hardware=3240)[0] == "exhaustive"
    assert choose(measured=0, models=1, hardware=10**13)[0] == "amoo"
    assert choose(measured=1, models=7168, hardware=3240)[0] == "nested"
    assert choose(measured=2, models=7168, hardware=3240)[0] == "flat"
    name, why = choose(measured=1, models=10, hardware=10, separable=False)
    assert name == "flat"
    assert "quality depends on hardware" in why
    with pytest.raises(UsageError, match="did you mean 'nested'"):
        make("nestd")


def test_hardware_that_costs_the_same_to_nine_digits_is_all_kept() -> None:
    """Of one cost: the two differ in their last bit, and which was kept alone switched with the deployment; a millionth more is dearer."""
    cost = np.array([1.5118150670635515, 1.5118150670635513, 1.5118150670635513 * (1 + 1e-6)])
    values, kept = views._front(np.arange(3), [cost])
    assert kept.tolist() == [0, 1] and values[:, 0].tolist() == cost[:2].tolist()
