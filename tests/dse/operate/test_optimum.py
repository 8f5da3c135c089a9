"""Exact bounds: integer programming against dynamic programming, the linear program against a plain program and a planner that sees all."""

import itertools
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from carbon.factors.grid import GridKind
from carbon.factors.traces import Trace
from dse.operate import device, optimum, policies, scenario, simulation, weeks
from dse.operate.traces import Load

START = datetime(2022, 1, 3, tzinfo=UTC)


def small_weeks(rng: np.random.Generator, *, hours: int, deadlines: tuple[int, ...], sites: int = 1, vertices: int = 3, leads: int = 0):
    """Whole-number work and widths, so that the linear program (a network) has whole-number optima."""
    built = []
    arrivals = rng.integers(0, 4, hours).astype(float)
    for _ in range(sites):
        width = rng.integers(3, 7, vertices - 1).astype(float)
        slope = np.cumsum(rng.uniform(0.2, 1.0, vertices - 1))
        work = np.concatenate([[0.0], np.cumsum(width)])
        kwh = np.concatenate([[0.0], np.cumsum(width * slope)])
        zeros = np.zeros(vertices)
        curve = device.Curve(work, kwh, 0.5, zeros, zeros, zeros, 1)
        trace = Trace("x", START, rng.uniform(50, 500, hours), GridKind("average", "unstated"), "drawn", "none")
        load = Load(START, arrivals, arrivals, arrivals, "drawn")
        built.append(weeks.Site("x", trace, load, curve))
    firm = rng.integers(0, 2, (sites, hours)).astype(float)
    flexible = weeks.Flexible.of(dict.fromkeys(deadlines, 1.0 / len(deadlines)) if len(deadlines) > 1 else {deadlines[0]: 1.0})
    ahead = np.zeros((hours, max(leads, 1)))
    at = np.minimum(np.arange(hours)[:, None] + np.arange(1, max(leads, 1) + 1), hours - 1)
    forecasts = [site.trace.gco2e_per_kwh[at] if leads else ahead for site in built]
    made = weeks.make_weeks(built, flexible, [0], hours, forecasts)
    arriving = rng.integers(0, 3, (1, hours, len(deadlines))).astype(float)
    return type(made)(**{**vars(made), "firm": firm[None], "firm_bound": firm[None], "firm_expected": firm[None], "arrivals": arriving,
                         "arrival_bound": arriving, "arrival_expected": arriving})  # fmt: skip


def plain_optimum(w: weeks.Weeks) -> float:
    """Least grams over whole-number work, by dynamic programming over the queue of each class by its deadlines; one site."""
    hours, reach = w.hours, w.horizon
    curve, intensity = w.curves[0], w.intensity[0, 0]
    states = {(0,) * (reach + 1): 0.0}
    for t in range(hours):
        after: dict[tuple[int, ...], float] = {}
        for due, grams in states.items():
            queue = list(due)
            for c, deadline in enumerate(w.deadlines):
                queue[min(deadline, hours - 1 - t)] += int(w.arrivals[0, t, c])
            for run in itertools.product(*(range(n + 1) for n in queue)):  # any order of the queue, not only by deadline
                if run[0] < queue[0] or sum(run) + w.firm[0, 0, t] > curve.capacity:
                    continue
                left = [n - r for n, r in zip(queue, run, strict=True)]
                key = (*left[1:], 0)
                cost = grams + float(curve.energy(sum(run) + w.firm[0, 0, t])) * intensity[t]
                if cost < after.get(key, np.inf):
                    after[key] = cost
        states = after
    return min(states.values(), default=np.inf)


@pytest.mark.parametrize("seed", range(25))
def test_whole_chips_by_integer_programming_equal_dynamic_programming(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hours = int(rng.integers(8, 25))
    problem = optimum.WholeChips(
        intensity=rng.uniform(20, 600, hours), arrivals=rng.integers(0, 4, hours), deadline_h=int(rng.integers(1, 7)), chips=3,
        jobs_per_chip=np.array([1, 2]), kwh_per_chip=np.sort(rng.uniform(0.2, 1.0, 2)), wake_kwh=float(rng.uniform(0.0, 0.5)),
    )  # fmt: skip
    assert optimum.whole_chips_milp(problem) == pytest.approx(optimum.whole_chips_dp(problem), rel=1e-6)


@pytest.mark.parametrize(("seed", "deadlines"), [(s, d) for s in range(6) for d in ((2,), (3,), (1, 3))])
def test_foresight_equals_a_plain_program_over_the_queue(seed: int, deadlines: tuple[int, ...]) -> None:
    w = small_weeks(np.random.default_rng(seed), hours=6, deadlines=deadlines)
    expected = plain_optimum(w)
    if not np.isfinite(expected):
        with pytest.raises(ValueError, match="no plan keeps the deadlines"):
            optimum.foresight(w)
    else:
        assert optimum.foresight(w).total_grams == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_a_plan_that_sees_all_is_the_optimum(seed: int) -> None:
    """The planner merges lists of prices, foresight is a linear program: with one class and all hours known they agree."""
    rng = np.random.default_rng(seed)
    w = small_weeks(rng, hours=30, deadlines=(int(rng.integers(1, 9)),), sites=1 + seed % 2, vertices=4, leads=30)
    plan = simulation.simulate(w, policies.Plan(sees_load=True))
    best = optimum.foresight(w)
    assert plan.missed.sum() == 0
    assert best.total_grams <= plan.total_grams * (1 + 1e-9)
    if w.sites == 1:
        assert plan.total_grams == pytest.approx(best.total_grams, rel=1e-6)
    else:  # at several sites work that comes later is not bound to what is left after the firm load of each hour
        assert plan.total_grams == pytest.approx(best.total_grams, rel=1e-2)


class ByLists(policies.Plan):
    """Chooses by the whole list of prices and amounts of later hours, slot after slot."""

    def work(self, queue: weeks.Queue, room: np.ndarray) -> np.ndarray:
        price, amount = self.later(queue)
        now, space = policies.slots_now(self._weeks, queue.hour, room)
        of_site = np.repeat(np.arange(room.shape[1]), [len(curve.slopes) for curve in self._weeks.curves])
        chosen = np.zeros_like(room)
        for e in range(len(room)):
            for slot in np.argsort(now[e], kind="stable"):
                later = amount[e, price[e] < now[e, slot]].sum()
                chosen[e, of_site[slot]] += np.clip(queue.total[e] - later - chosen[e].sum(), 0.0, space[e, slot])
        return chosen


@pytest.mark.parametrize("seed", range(24))
def test_a_plan_by_prepared_sums_runs_what_the_lists_of_prices_run(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The closed form of `cheaper_later` against the merged lists, hour by hour: deadlines, sites, horizons, expected and known load,
    blocks of one hour and of all."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(policies, "_BLOCK", int(rng.choice([1, 100, 2**20])))
    deadlines = ((3,), (1, 5), (8,), (2, 4, 30))[seed % 4]
    w = small_weeks(rng, hours=30, deadlines=deadlines, sites=1 + seed % 3, vertices=4, leads=int(rng.integers(1, 40)))
    expected = {"firm_expected": w.firm * rng.uniform(0.5, 1.5, w.firm.shape), "arrival_expected": rng.uniform(0, 3, w.arrivals.shape)}
    w = type(w)(**{**vars(w), **expected, "forecast": w.forecast * rng.uniform(0.8, 1.2, w.forecast.shape)})
    quick, lists = policies.Plan(sees_load=bool(seed % 5 == 0)), ByLists(sees_load=bool(seed % 5 == 0))
    quick.begin(w)
    lists.begin(w)
    queue, some = weeks.Queue(w), 0.0
    while not queue.done:
        room = np.maximum(w.capacity - np.minimum(w.firm[:, :, queue.hour], w.capacity), 0.0)
        runs = quick.work(queue, room)
        np.testing.assert_allclose(runs, lists.work(queue, room), atol=1e-12 * w.capacity.sum())
        some += runs.sum()
        queue.run(runs * rng.uniform(0.5, 1.0))
    assert some > 0


def test_a_year_by_the_hour_is_fast() -> None:
    """One episode of 8,760 hours, run by the planning rule and by foresight."""
    prepared = scenario.Scenario(device.example(), ("CISO",)).prepared()
    table = scenario.forecast_of(prepared.grids[0], "yesterday")
    year = weeks.make_weeks(prepared.sites(), prepared.scenario.flexible, [0], 8760, [table])
    begin = time.process_time()
    rule = simulation.simulate(year, policies.Plan())
    assert time.process_time() - begin < 1.0
    begin = time.process_time()
    best = optimum.foresight(year)
    assert time.process_time() - begin < 5.0
    now = simulation.simulate(year, policies.Now())
    assert best.total_grams < rule.total_grams < now.total_grams
    assert rule.missed.sum() == 0
