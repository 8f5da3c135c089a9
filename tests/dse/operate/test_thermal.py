"""The temperature budget: its closed form against the differential equation, deadlines and limit kept together, foresight against a program
that is written another way, and nothing changed where no limit is near."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.optimize import linprog

from dse.errors import DseError, UsageError
from dse.operate import device, environment, features, ladder, optimum, policies, resize, scenario, simulation, weeks
from dse.operate.agents import library
from dse.operate.thermal import Thermal

EPISODES, HOURS = 500, 48
CHIPS = 66
TIGHT = Thermal(
    25.0, 37.6, 1.5, 3.0
)  # 8.4 kW for good; the declared load of the example needs 7.9 on so many chips, all at half clock 12.7


class Lazy:
    name = "lazy"

    def begin(self, weeks: weeks.Weeks) -> None:
        self._rng = np.random.default_rng(5)

    def work(self, queue: weeks.Queue, room: np.ndarray) -> np.ndarray:
        return np.zeros_like(room)


class Random(Lazy):
    name = "random"

    def work(self, queue: weeks.Queue, room: np.ndarray) -> np.ndarray:
        draw = self._rng.random(room.shape)
        return room * np.where(draw < 0.6, 0.0, draw)


class Greedy(Lazy):
    name = "greedy"

    def work(self, queue: weeks.Queue, room: np.ndarray) -> np.ndarray:
        return room


def drawn(seed: int, deadlines: tuple[int, ...], thermal: Thermal, *, episodes: int = EPISODES, hours: int = HOURS) -> weeks.Weeks:
    """Episodes on a curve of two segments whose declared work just fits into what may be drawn for good."""
    rng = np.random.default_rng(seed)
    work, kwh = np.array([0.0, 6.0, 10.0]), np.array([0.0, 3.0, 8.0])
    curve = device.Curve(work, kwh, 1.0, work, work, work, 1)
    fits = float(curve.work_of(thermal.sustained_kw))
    arrive = 0.98 * fits * rng.random((episodes, hours)) ** 0.3
    share = rng.random((episodes, hours, len(deadlines)))
    arrival_bound = 0.7 * arrive[..., None] * share / share.sum(axis=2, keepdims=True)
    firm_bound = (arrive - arrival_bound.sum(axis=2))[:, None]
    arrivals = arrival_bound * np.where(rng.random(arrival_bound.shape) < 0.7, 1.0, rng.random(arrival_bound.shape))
    firm = firm_bound * np.where(rng.random(firm_bound.shape) < 0.7, 1.0, rng.random(firm_bound.shape))
    return weeks.Weeks(
        intensity=rng.uniform(10, 500, (episodes, 1, hours)), firm=firm, firm_bound=firm_bound, firm_expected=firm_bound,
        arrivals=arrivals, arrival_bound=arrival_bound, arrival_expected=arrival_bound,
        forecast=np.full((episodes, 1, hours, 1), 100.0), deadlines=deadlines, curves=(curve,), pue=(1.0,),
        first=np.arange(episodes), past=np.full((episodes, 1, weeks.PAST_H), 100.0),
        hour_of_day=np.zeros((episodes, hours), dtype=np.int64), weekend=np.zeros((episodes, hours)), thermal=thermal,
    )  # fmt: skip


@pytest.mark.parametrize("hours", [0.4, 3.0, 40.0])
def test_an_hour_is_the_differential_equation(hours: float) -> None:
    heat = Thermal(20.0, 50.0, 2.0, hours)
    temperature, power, steps = 44.0, 3.7, 20_000
    for _ in range(steps):
        temperature += (heat.ambient_c + heat.k_per_kw * power - temperature) / hours / steps
    assert heat.after(44.0, power) == pytest.approx(temperature, abs=2e-3)  # steps of Euler
    assert heat.after(44.0, heat.allowed_kwh(44.0)) == pytest.approx(50.0, abs=1e-9)
    assert heat.allowed_kwh(50.0) == pytest.approx(heat.sustained_kw)
    assert heat.allowed_kwh(30.0) > heat.allowed_kwh(40.0) > heat.sustained_kw
    assert heat.path(np.full((2, 200), heat.sustained_kw)) == pytest.approx(50.0)


def test_without_a_time_constant_it_is_a_limit_of_power() -> None:
    heat = Thermal(20.0, 50.0, 2.0, 0.0)
    assert heat.allowed_kwh(np.array([20.0, 50.0])) == pytest.approx(15.0)
    assert heat.after(50.0, 4.0) == pytest.approx(28.0)


def test_deadlines_and_temperature_are_kept_together() -> None:
    """A thousand random episodes and three policies; the greedy one meets the limit, so that it does something."""
    for seed, deadlines in enumerate([(6,), (2, 5, 24)]):
        w = drawn(seed, deadlines, Thermal(20.0, 30.0, 2.0, 2.0))
        assert w.promised
        for policy in (Lazy(), Random(), Greedy()):
            found = simulation.simulate(w, policy)
            assert found.missed.max() == 0.0
            hottest = w.thermal.path(found.kwh[:, 0]).max()
            assert hottest <= 30.0 + 1e-9
        unlimited = simulation.simulate(replace(w, thermal=None), Lazy())
        assert w.thermal.path(unlimited.kwh[:, 0]).max() > 30.5


def other_program(w: weeks.Weeks, e: int) -> float:
    """Least grams of one episode of one site, with energies as the maximum of lines and temperatures as sums over hours."""
    heat, curve, hours = w.thermal, w.curves[0], w.hours
    rows, right = [], []
    for t in range(hours):
        for j, slope in enumerate(curve.slopes):  # kwh_t >= base + line j at firm + y_t
            row = np.zeros(2 * hours)
            row[t], row[hours + t] = slope, -1.0
            rows.append(row)
            right.append(slope * (curve.work[j] - w.firm[e, 0, t]) - curve.kwh[j] - curve.base_kwh)
        warm = np.zeros(2 * hours)
        for i in range(t + 1):
            warm[hours + i] = (1 - heat.keeps) * heat.k_per_kw * heat.keeps ** (t - i)
        rows.append(warm)
        right.append((heat.limit_c - heat.ambient_c) * (1 - heat.keeps ** (t + 1)))
        for s in range(t + 1):  # what comes in s..t and is due by t runs in s..t or was not there before: Hall, and no work before it comes
            due = sum(w.arrivals[e, s : max(t + 1 - d, s) if t < hours - 1 else hours, c].sum() for c, d in enumerate(w.deadlines))
            row = np.zeros(2 * hours)
            row[s : t + 1] = -1.0
            rows.append(row)
            right.append(-due)
        row = np.zeros(2 * hours)
        row[: t + 1] = 1.0
        rows.append(row)
        right.append(w.arrivals[e, : t + 1].sum())
    bounds = [(0.0, curve.capacity - firm) for firm in w.firm[e, 0]] + [(0.0, None)] * hours
    cost = np.concatenate([np.zeros(hours), w.intensity[e, 0]])
    answer = linprog(cost, A_ub=np.array(rows), b_ub=right, bounds=bounds, method="highs")
    assert answer.status == 0
    return float(answer.fun)


@pytest.mark.parametrize("seed", range(7))
def test_foresight_is_another_programs_optimum(seed: int) -> None:
    w = drawn(seed, (4,) if seed % 2 else (2, 7), Thermal(20.0, 28.6, 2.0, 0.5 + 0.4 * seed), episodes=1, hours=20)
    best = optimum.foresight(w)
    assert best.grams[0] == pytest.approx(other_program(w, 0), rel=1e-6)
    assert w.thermal.path(best.kwh[:, 0]).max() <= w.thermal.limit_c + 1e-6
    assert best.grams[0] > optimum.foresight(replace(w, thermal=None)).grams[0] * (1 + 1e-6)
    for policy in (policies.Now(), policies.Plan(), Random()):
        assert simulation.simulate(w, policy).grams[0] >= best.grams[0] * (1 - 1e-9)


@pytest.fixture(scope="module")
def prepared() -> scenario.Prepared:
    return scenario.Scenario(device.example(), ("CISO",), chips=CHIPS, thermal=TIGHT).prepared()


def test_a_limit_that_is_far_changes_nothing(prepared: scenario.Prepared) -> None:
    far = Thermal(25.0, 149.0, 1e-3, 3.0)
    free, limited = (replace(prepared, scenario=replace(prepared.scenario, thermal=thermal)) for thermal in (None, far))
    one, other = (ladder.build(p, most=2, steps=["mpc", "threshold", "sleep"], learnt=[library.find("dqn")]) for p in (free, limited))
    for a, b in zip(one.rows, other.rows, strict=True):
        assert b.grams == pytest.approx(a.grams, rel=1e-9)
        assert "hottest_c" not in a.to_dict() and "hottest_c" in b.to_dict()


def test_the_ladder_keeps_the_limit_and_shipped_policies_run_under_it(prepared: scenario.Prepared) -> None:
    found = ladder.build(
        prepared, most=2, steps=["sleep", "threshold", "mpc"], learnt=[library.find(name) for name in ("imitation", "dqn", "ppo")]
    )
    for row in found.rows:
        if row.name != "sleep":  # which does not know how to draw less
            assert row.missed == 0.0 and row.hottest_c is not None and row.hottest_c <= TIGHT.limit_c + 1e-6
    assert min(found.row(name).share for name in ("mpc", "imitation", "dqn", "ppo")) > 0.75
    free = ladder.build(replace(prepared, scenario=replace(prepared.scenario, thermal=None)), most=2, steps=[])
    assert found.row("optimum").grams > free.row("optimum").grams
    week = ladder.week_of(prepared, found.outcomes["mpc"], most=2)["sites"][0]
    assert max(week["temperature_c"]) <= TIGHT.limit_c + 1e-9


@pytest.mark.parametrize("control", environment.CONTROLS)
def test_the_environment_shows_the_budget_and_keeps_it(prepared: scenario.Prepared, control: str) -> None:
    w = prepared.weeks("train", most=3)
    check_env(environment.OperateEnv(w, control=control), skip_render_check=True)
    batch, rng = environment.Batch(w, control=control), np.random.default_rng(1)
    assert features.names(thermal=True)[-1] == "temperature_budget"
    spent = 0.0
    while not batch.queue.done:
        seen, valid = batch.observe(), batch.masks()
        assert seen.shape[1] == features.size_of(w) == len(features.names(thermal=True))
        budget = (TIGHT.limit_c - batch.queue.temperature_c[:, 0]) / (TIGHT.limit_c - TIGHT.ambient_c)
        assert seen[:, -1] == pytest.approx(budget)
        assert budget.min() >= -1e-9
        spent = max(spent, budget.max())
        batch.run(batch.wanted(np.array([rng.choice(np.flatnonzero(row)) for row in valid])))
    assert batch.queue.missed.max() == 0.0 and spent > 0.1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("25:45", "AMBIENT:LIMIT:K_PER_KW:HOURS"),
        ("25:20:1:3", "limit_c of a temperature limit is 20, must be above ambient_c, 25"),
        ("25:45:0:3", "k_per_kw of a temperature limit is 0, must be above 0"),
        ("25:45:1:-3", "time_constant_h of a temperature limit is -3"),
        ("25:nan:1:3", "limit_c of a temperature limit is nan, must be finite"),
    ],
)
def test_words_that_are_no_limit(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Thermal.of(text)


def test_a_limit_below_the_declared_load_is_refused() -> None:
    low = scenario.Scenario(device.example(), ("CISO",), chips=CHIPS, thermal=Thermal(25.0, 35.0, 1.5, 3.0))
    with pytest.raises(DseError, match=r"lets 6\.667 kW be drawn for good, must be at least 7\.903 kW"):
        low.prepared()
    with pytest.raises(UsageError, match="re-sizing knows no temperature limit"):
        resize.resize(replace(low, thermal=TIGHT))
