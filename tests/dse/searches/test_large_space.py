"""Whole designs as trials on spaces too large to enumerate: exact costs of the asked designs alone, strategies, runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import dse.api
from dse import api
from dse.errors import DseError, UsageError
from dse.evaluation import design_costs as costs
from dse.evaluation.evaluation import Evaluation
from dse.evaluation.evaluation import Space as JointSpace
from dse.fronts.pareto import Front
from dse.problem.deployment import Deployment
from dse.problem.objectives import Constraint
from dse.problem.problem import Problem
from dse.quality.measured import design_key
from dse.searches import large_space as large
from dse.searches.effort import sizes_of
from dse.searches.plan import LARGE_BUDGET, LargeSettings, large_settings
from dse.storage.run_folder import load
from dse.storage.study import FILE_NAME, Study
from dse.storage.trial import Trial
from dse.storage.trials import TrialStore
from dse.strategies import make, registry
from dse.strategies.amoo.screened import Correction, ScreenedAmoo, spread
from dse.strategies.protocol import Wait, simulate
from dse.strategies.registry import large_names
from dse.strategies.stopping import Stalled

OBJECTIVES = ("max:quality", "min:total_kgco2e", "min:latency_s")
# A cut of `datacenter` that can be enumerated: three models, 2 x 3 x 2 x 3 hardware points.
FIXED = {
    "layers": 9, "array_rows": 32, "array_columns": 32, "register_bytes": 64, "core_sram_kib": 256, "hbm_stacks": 2, "links": 8,
    "nominal_frequency_hz": 1_050_000_000,
}  # fmt: skip
CUT = {"chips": (1, 4), "cores": (8, 32, 128), "shared_sram_mib": (16, 64), "node_nm": (5, 7, 14), "voltage_v": (0.75,)}


def problem(objectives: tuple[str, ...] = OBJECTIVES, *, fixed: dict[str, Any] | None = None, **options: Any) -> Problem:
    deployment = Deployment(carbon_profile="default")
    # As a search of such a space makes it: its bounds are of operations by themselves.
    return api.make_problem("bert", list(objectives), hw="datacenter", fixed=fixed, deployment=deployment, residency="none", **options)


def cut(objectives: tuple[str, ...] = OBJECTIVES, **options: Any) -> Problem:
    return problem(objectives, fixed=FIXED, vary=CUT, **options)


@pytest.fixture(scope="module")
def view() -> large.LargeView:
    return large.large_view(cut(), threads=1)


@pytest.fixture(scope="module")
def exact() -> Evaluation:
    """Every design of the cut by the evaluation that sweeps use."""
    return Evaluation(cut(), threads=1)


def strategies(view: large.LargeView, name: str) -> Any:
    if name == "amoo":
        pytest.importorskip("torch")
        from dse.strategies.amoo.search import AmooSearch

        assert view.twin is not None
        inner = AmooSearch(starts=4, steps=3, draws=4, polish_evaluations=400)
        return ScreenedAmoo(view.twin.task, generation=8, searches=2, inner=inner)
    pytest.importorskip({"nsga2": "pymoo"}.get(name, "numpy"))
    return make(name, **({"population": 4} if name == "nsga2" else {}))


NAMES = pytest.mark.parametrize("name", large_names())


def test_sizes_are_counted_without_listing() -> None:
    found = costs.sizes(problem())
    assert (found.models, found.hardware, found.designs) == (38, 20_736_000, 787_968_000)
    assert found.shapes > 143, "several chips tell shapes apart"
    assert not found.sweepable
    assert costs.sizes(cut()).designs == 108


def test_costs_are_those_of_the_evaluation(view: large.LargeView, exact: Evaluation) -> None:
    space = view.task.space
    assert exact.space.size == space.size == 108
    block = exact.block(0, exact.space.model_count)
    rows = space.unrank(np.random.default_rng(0).permutation(space.size)[:60])
    values, known = view.costs.cost(rows), view.costs.known(space.columns(rows))
    columns = space.columns(rows)
    models = view.costs.order[columns["model"]]
    points = [
        int(np.flatnonzero(np.all([exact.space.hardware[name] == columns[name][i] for name in exact.space.hardware], axis=0))[0])
        for i in range(len(rows))
    ]
    for j, name in enumerate(view.costs.metrics):
        np.testing.assert_array_equal(values[:, j], np.broadcast_to(block.metric(name), block.shape)[models, points])
    for name in view.costs.known_names:
        np.testing.assert_array_equal(known[name], np.broadcast_to(block.metric(name), block.shape)[models, points])


def test_a_design_is_costed_once_and_alone_as_in_company(view: large.LargeView) -> None:
    many = large.large_view(cut(), threads=1).costs
    rows = view.task.space.unrank(np.arange(0, 108, 9))
    together = many.cost(rows)
    assert many.evaluations == len(rows)
    many.cost(rows[::-1])
    assert many.evaluations == len(rows)
    one = large.large_view(cut(), threads=1).costs
    np.testing.assert_array_equal(np.concatenate([one.cost(row[None, :]) for row in rows]), together)


def test_twin_knows_what_needs_no_mapping_and_follows_the_rest(view: large.LargeView) -> None:
    assert view.twin is not None
    rows = view.task.space.unrank(np.arange(108))
    columns = view.task.space.columns(rows)
    guess, known, values = view.twin.metrics(columns), view.costs.known(columns), view.costs.cost(rows)
    for name, column in known.items():
        np.testing.assert_allclose(guess[name], column, rtol=1e-9)
    for j, name in enumerate(view.costs.metrics):
        # Energy is within 15 %, and embodied carbon and leakage, most of total carbon here, are exact.
        np.testing.assert_allclose(guess[name], values[:, j], rtol=0.05)


@NAMES
def test_every_strategy_proposes_every_design_once_and_stops(view: large.LargeView, name: str) -> None:
    found = simulate(view.task, strategies(view, name), budget=120, seed=3)
    keys = [design_key(trial.parameters) for trial in found]
    assert len(set(keys)) == len(keys) == len(view.task.rows)
    assert all(view.task.allowed(view.task.space.index(trial.parameters))[0] for trial in found)


@NAMES
def test_every_strategy_is_resumed_from_the_study_alone(view: large.LargeView, tmp_path: Path, name: str) -> None:
    whole = [trial.parameters for trial in simulate(view.task, strategies(view, name), budget=30, seed=5)]
    store = TrialStore.open(tmp_path / "study.db")
    for budget, batch in ((3, 2), (11, 128), (12, 1), (30, 7)):  # a new strategy each time, in other company
        reason = large.run(view, store, strategies(view, name), budget=budget, seed=5, batch=batch)
        assert "exact evaluations is spent" in reason
    assert [trial.parameters for trial in store.trials()] == whole
    other = [trial.parameters for trial in simulate(view.task, strategies(view, name), budget=30, seed=6)]
    assert other != whole or name == "amoo", "the seed has no effect"


def _die_at_the_second_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = large.cost_trials, []

    def dies(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(large, "cost_trials", dies)


def test_a_killed_search_goes_on_with_the_same_trials(view: large.LargeView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [trial.parameters for trial in simulate(view.task, make("random"), budget=20, seed=1)]
    store = TrialStore.open(tmp_path / "study.db")
    _die_at_the_second_batch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        large.run(view, store, make("random"), budget=20, seed=1, batch=5)
    assert [trial.state for trial in store.trials()].count("running") == 5
    large.run(view, TrialStore.open(tmp_path / "study.db"), make("random"), budget=20, seed=1, batch=5)
    assert [trial.parameters for trial in store.trials()] == whole
    assert all(trial.done for trial in store.trials())


def test_the_space_is_exhausted_or_a_rule_ends_it(view: large.LargeView, tmp_path: Path) -> None:
    store = TrialStore.open(tmp_path / "study.db")
    assert large.run(view, store, make("random"), budget=None, seed=0) == "the space is exhausted"
    assert len(store.trials()) == len(view.task.rows)
    other = TrialStore.open(tmp_path / "other.db")
    reason = large.run(view, other, make("random"), budget=None, seed=0, batch=10, stopping=[Stalled()])
    assert len(other.trials()) < len(view.task.rows), reason


def test_all_designs_give_the_front_of_the_sweep(view: large.LargeView, exact: Evaluation) -> None:
    trials = simulate(view.task, make("random"), budget=120, seed=0)
    evaluation, front = view.costs.evaluation_of(large.front_of(view, trials))
    block = exact.block(0, 3)
    feasible = np.array(np.broadcast_to(block.makeable(), block.shape))
    for constraint in exact.problem.constraints:
        feasible &= np.broadcast_to(block.metric(constraint.metric) <= constraint.bound, block.shape)
    models, points = np.nonzero(feasible)
    values = np.stack([o.sign * np.broadcast_to(block.metric(o.metric), block.shape)[feasible] for o in exact.problem.objectives], axis=1)
    true = Front.of(models.astype(np.int64), points.astype(np.int64), values)
    np.testing.assert_array_equal(front.values, true.values)
    told = {tuple(sorted(evaluation.space.design(m, h).items())) for m, h in zip(front.models, front.hardware, strict=True)}
    assert told == {tuple(sorted(exact.space.design(m, h).items())) for m, h in zip(true.models, true.hardware, strict=True)}
    again = evaluation.block(0, 3)
    for j, objective in enumerate(exact.problem.objectives):
        metric = objective.sign * np.broadcast_to(again.metric(objective.metric), again.shape)
        np.testing.assert_array_equal(metric[front.models, front.hardware], front.values[:, j])


def test_a_design_without_a_mapping_has_failed(view: large.LargeView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view.costs, "cost", lambda rows: np.full((len(rows), len(view.costs.metrics)), np.inf))
    trial = Trial(0, view.task.space.values(np.zeros(len(view.task.space.names), dtype=np.int64)), 0)
    (outcome,) = large.cost_trials(view, [trial])
    assert outcome.state == "failed"
    assert "no mapping" in outcome.error
    with pytest.raises(UsageError, match="no mapping"):
        view.costs(trial.parameters, fidelity=1.0, seed=0)


def test_generations_wait_for_the_trials_before(view: large.LargeView) -> None:
    strategy = strategies(view, "amoo")
    history: list[Trial] = []
    for number in range(8):
        history.append(Trial(number, dict(strategy.propose(view.task, history, number, 0).parameters), 0))
    assert isinstance(strategy.propose(view.task, history, 8, 0), Wait)
    told = large.cost_trials(view, history)
    assert not isinstance(strategy.propose(view.task, told, 8, 0), Wait)
    # Failed trials are no reason to stop.
    failed = [trial.fail("failed", "no") for trial in history]
    assert strategies(view, "amoo").propose(view.task, failed, 8, 0) is not None


def test_correction_learns_what_the_twin_misses() -> None:
    rng = np.random.default_rng(0)
    coded, twin = rng.uniform(0, 1, (400, 3)), rng.uniform(1, 9, (400, 2))
    exact = np.column_stack([twin[:, 0] * np.exp(0.2 * coded[:, 1] - 0.1), twin[:, 1]])
    correction = Correction.fit(coded[:200], twin[:200], exact[:200])
    after = correction.apply(coded[200:], twin[200:])
    # The ridge leaves a little of the slope: a tenth of a gap of 10 %.
    np.testing.assert_allclose(after, exact[200:], rtol=0.015)
    assert np.abs(np.log(after[:, 0] / exact[200:, 0])).max() < 0.2 * np.abs(np.log(twin[200:, 0] / exact[200:, 0])).max()


def test_spread_takes_the_ends_and_then_what_is_far() -> None:
    values = np.column_stack([np.linspace(0, 1, 101), np.linspace(1, 0, 101)])
    chosen = spread(values, np.zeros((0, 2)), 3)
    assert set(chosen.tolist()) == {0, 100, 50}
    known = values[[0, 100]]
    assert spread(values, known, 4)[2] == 50
    assert len(set(spread(values, known, 500).tolist())) == 101


@pytest.mark.parametrize(
    ("make_problem", "why"),
    [
        (lambda: api.make_problem("bert", ["max:quality", "min:latency_s"], hw="edge22"), "datacenter family"),
        (lambda: cut(("max:quality", "min:peak_power_w")), "no peak_power_w"),
        (lambda: problem(fixed=FIXED, vary={**CUT, "lifetime_years": (1, 3)}), "lifetime_years varies"),
    ],
)
def test_where_there_is_no_twin_auto_is_nsga2_and_says_why(make_problem: Callable[[], Problem], why: str) -> None:
    found = large.large_view(make_problem(), threads=1)
    strategy, reason = large.strategy_of(found, "auto")
    assert strategy.name == "nsga2"
    assert why in reason
    with pytest.raises(UsageError, match="use nsga2"):
        large.strategy_of(found, "amoo")


@pytest.mark.parametrize(("missing", "chosen"), [(("torch",), "nsga2"), (("torch", "pymoo"), "random")])
def test_auto_takes_what_is_installed(
    view: large.LargeView, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...], chosen: str
) -> None:
    pytest.importorskip("pymoo")
    real = registry.find_spec
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name in missing else real(name))
    strategy, why = large.strategy_of(view, "auto")
    assert strategy.name == chosen
    assert "needs the package torch" in why


def _large(searched: Problem, strategy: str = "auto", budget: int | None = None) -> LargeSettings | None:
    return large_settings(sizes_of(searched), None, strategy, budget)


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="does not fit a space too large"):
        LargeSettings("nested")
    with pytest.raises(UsageError, match="budget is 0"):
        LargeSettings("amoo", 0)
    assert _large(problem()) == LargeSettings("auto", LARGE_BUDGET)
    assert _large(problem(), "nsga2", 70) == LargeSettings("nsga2", 70)
    assert _large(cut()) is None, "a space that can be swept is swept"
    assert _large(problem(), "exhaustive") is None
    with pytest.raises(UsageError, match="set cores=7 is not in the space"):
        _large(problem(fixed={"cores": 7}))


def test_a_sweep_of_it_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--strategy auto"):
        dse.api.search(problem(), out=tmp_path / "run", strategy="exhaustive")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UsageError, match="needs a differentiable cost model"):
        dse.api.search(
            replace(problem(), objectives=cut(("max:quality", "min:peak_power_w")).objectives), out=tmp_path / "run", strategy="amoo"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["amoo", "random"])
def test_a_run_of_the_whole_space(tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "run"
    found = dse.api.search(problem(), out=out, strategy=name, budget=40, seed=4, threads=1)
    assert found.summary.points == 40
    assert found.context["models"] == 38
    assert found.context["hardware_points"] == 20_736_000
    assert found.context["strategy"]["name"] == name
    assert (name == "amoo") == ("alignment" in found.context)
    assert 0 < len(found) <= 40
    with Study.open(out / FILE_NAME) as study:
        trials = TrialStore.of_study(study).trials()
    assert len(trials) == 40
    by_design = {tuple(trial.metrics[name].mean for name in ("total_kgco2e", "latency_s")) for trial in trials if trial.done}
    for design in found.designs:
        assert (design["metrics"]["total_kgco2e"], design["metrics"]["latency_s"]) in by_design
    text = (out / "report.html").read_text(encoding="utf-8")
    assert "evaluated 40 of 787,968,000 designs" in text
    assert "others that were not evaluated may be better" in text
    assert "How designs were searched" in text
    assert ("Which costs pull the same way" in text) == (name == "amoo")
    if name == "amoo":
        aligned = found.context["alignment"]
        assert aligned["exact"] is False, "nobody may take closed forms for exact costs"
        assert {"latency_s", "energy_j", "embodied_kgco2e"} <= set(aligned["objectives"])
    again = dse.api.resume(out, threads=1)
    assert again.designs == found.designs
    assert load(out).designs == found.designs


def test_an_interrupted_run_is_finished_to_the_same_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = dse.api.search(problem(), out=tmp_path / "whole", strategy="random", budget=140, seed=2, threads=1)
    _die_at_the_second_batch(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        dse.api.search(problem(), out=tmp_path / "cut", strategy="random", budget=140, seed=2, threads=1)
    with pytest.raises(DseError, match="is not finished"):
        load(tmp_path / "cut")
    assert dse.api.resume(tmp_path / "cut", threads=1).designs == whole.designs


def test_steps_around_a_design_of_a_large_space_list_no_grid() -> None:
    base = problem()
    knobs = {name: values[1] for name, values in costs.hardware_values(base).items()}
    space = costs.around(base, knobs)
    assert isinstance(space, JointSpace)
    assert space.hardware_count == 1 + sum(len(values) - 1 for values in costs.hardware_values(base).values())
    small = costs.around(cut(), {})
    assert small.hardware_count == 36


def test_designs_to_begin_with_are_reached_where_random_ones_miss(tasks: ModuleType) -> None:
    pytest.importorskip("torch")
    from dse.strategies.amoo.relaxed import Relaxed
    from dse.strategies.drawing import draw_many, reach, sample, why_none

    task = tasks.datacenter()
    rows = draw_many(task, np.random.default_rng(0), 4000)
    latency = task.known(task.space.columns(rows))["latency_s"]
    rare = replace(task, constraints=(*task.constraints, Constraint("latency_s", "<=", 0.77 * float(latency.min()))))
    found = reach(rare, np.random.default_rng(1))
    assert len(found) > 10 * len(draw_many(rare, np.random.default_rng(1), 100, blocks=4))
    assert rare.allowed(found).all()
    assert len(sample(rare, np.random.default_rng(1), 100)) > 0
    none = replace(task, constraints=(*task.constraints, Constraint("latency_s", "<=", 1e-9)))
    assert "latency_s<=1e-09 fails at 100.0%" in why_none(none, 0)
    with pytest.raises(UsageError, match=r"no feasible design .* fails at 100\.0%"):
        Relaxed.of(none)


def test_where_nothing_is_feasible_the_bounds_that_failed_are_told(tmp_path: Path) -> None:
    busy = replace(problem(), deployment=Deployment(carbon_profile="default", rate_per_s=1e6))
    for _ in range(2):  # the folder is free again
        with pytest.raises(
            DseError,
            match=r"none of the 6 evaluated designs is feasible: service_utilisation<=1.0 fails at 100.0% of them; the nearest, .* has "
            r"service_utilisation ",
        ):
            dse.api.search(busy, out=tmp_path / "run", strategy="random", budget=6, threads=1)
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["auto", "nsga2"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"workload": "gpt2", "objective": ["max:quality", "min:latency_s"]}, "has no quality surrogate"),
        ({"workload": "bert", "objective": "carbon", "deployment": Deployment(carbon_profile="act2")}, "carbon profile act2 cannot cost"),
    ],
)
def test_what_the_problem_lacks_is_told_before_anything_is_written(tmp_path: Path, name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dse.api.search(api.make_problem(hw="datacenter", **options), out=tmp_path / "run", strategy=name, budget=5, threads=1)
    assert not (tmp_path / "run").exists()


def test_draws_that_find_nothing_name_the_constraint(monkeypatch: pytest.MonkeyPatch) -> None:
    from dse.strategies import drawing as base

    monkeypatch.setattr(base, "_DRAW_BLOCKS", 2)
    found = large.large_view(replace(problem(), constraints=(Constraint("area_mm2", "<=", 1.0), Constraint("latency_s", "<=", 1.0))))
    with pytest.raises(DseError, match=r"loosen a constraint; area_mm2<=1.0 fails at 100.0% of .* random designs \(nearest "):
        base.draw(found.task, np.random.default_rng(0), set())


def test_bounds_that_designs_break_are_counted(tmp_path: Path) -> None:
    busy = replace(problem(), deployment=Deployment(carbon_profile="default", rate_per_s=2000.0))
    run = dse.api.search(busy, out=tmp_path / "run", strategy="random", budget=40, threads=1)
    assert 0 < run.summary.feasible < 40
    assert run.summary.reasons["service_utilisation<=1.0"] == 40 - run.summary.feasible
    assert "Nothing was asked" not in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_descent_takes_objectives_that_nothing_open_moves(tmp_path: Path) -> None:
    """With every knob fixed but node, clock and voltage, quality and area have no gradient at all."""
    pytest.importorskip("torch")
    fixed = {
        "chips": 1,
        "cores": 8,
        "shared_sram_mib": 16,
        **{k: v for k, v in FIXED.items() if k not in ("layers", "nominal_frequency_hz")},
    }
    run = dse.api.search(
        problem(("max:quality", "min:area_mm2", "min:latency_s"), fixed=fixed), out=tmp_path / "run", strategy="amoo", budget=20, threads=1
    )
    assert len(run) > 1
    assert run.summary.points == 20


def test_an_alignment_that_fails_leaves_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from dse.analysis import alignment

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no gradient")

    monkeypatch.setattr(alignment, "of_run", fails)
    run = dse.api.search(problem(), out=tmp_path / "run", strategy="amoo", budget=4, threads=1)
    assert "alignment" not in run.context
    assert len(run)


def test_metrics_that_are_ratios_are_costed_without_warnings() -> None:
    costs_of = large.large_view(cut(("max:quality", "min:peak_power_w")), threads=1).costs
    values = costs_of.cost(costs_of.space.unrank(np.array([0, 40, 107])))
    assert np.isfinite(values).all()
