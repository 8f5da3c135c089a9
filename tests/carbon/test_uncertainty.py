"""Ranges, draws, tornado and the stability of an order: against closed forms and brute force."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon import CarbonError
from carbon.analysis import estimate, robustness, uncertainty
from carbon.analysis.uncertainty import Range
from carbon.device import device
from carbon.factors import grid
from carbon.factors import tables as factors


@given(st.tuples(st.floats(0, 1), st.floats(1, 2), st.floats(2, 5)))
def test_quantiles_of_the_triangle(ends):
    low, mode, high = ends
    one = Range(low, mode, high)
    if high == low:
        return
    share = np.linspace(0.0, 1.0, 101)
    values = one.quantile(share)
    assert (np.diff(values) >= -1e-12).all()
    assert values[0] == pytest.approx(low)
    assert values[-1] == pytest.approx(high)
    # distribution function of the triangle at the quantile gives the share back
    rising = (values - low) ** 2 / ((high - low) * max(mode - low, 1e-300))
    falling = 1.0 - (high - values) ** 2 / ((high - low) * max(high - mode, 1e-300))
    assert np.where(values < mode, rising, falling) == pytest.approx(share, abs=1e-9)


def test_moments():
    drawn = uncertainty.draws({"a": Range(1.0, 2.0, 6.0), "b": Range(0.0, 1.0, 2.0, "uniform")}, 200_000, 1)
    # means (low + mode + high) / 3 = 3 and 1; standard errors 1.08 / sqrt(2e5) = 0.0024 and 0.0013: five of them
    assert drawn["a"].mean() == pytest.approx(3.0, abs=0.012)
    assert drawn["b"].mean() == pytest.approx(1.0, abs=0.007)
    assert abs(np.corrcoef(drawn["a"], drawn["b"])[0, 1]) < 0.012


def test_draws_are_repeatable_and_independent_of_the_others():
    one = uncertainty.draws({"a": Range(0, 1, 2)}, 100, 7)["a"]
    both = uncertainty.draws({"b": Range(0, 1, 2), "a": Range(0, 1, 2)}, 100, 7)
    assert (one == both["a"]).all()
    assert not (both["a"] == both["b"]).any()
    assert not (uncertainty.draws({"a": Range(0, 1, 2)}, 100, 8)["a"] == one).any()


@pytest.mark.parametrize("ends", [(2, 1, 3), (1, 4, 3), (math.nan, 1, 2), (0, 1, math.inf)])
def test_bad_ranges(ends):
    with pytest.raises(CarbonError, match="range"):
        Range(*ends)


def test_unknown_kind_of_range():
    with pytest.raises(CarbonError, match="'normal' is unknown"):
        Range(0, 1, 2, "normal")


def test_a_sum_of_two_ranges():
    """p5 and p95 of a uniform sum: known in closed form (triangle over 0..2)."""
    ranges = {key: Range(0.0, 0.5, 1.0, "uniform") for key in "ab"}
    found = uncertainty.monte_carlo(lambda over: over["a"] + over["b"], ranges, count=400_000, seed=3)
    # F(x) = x^2 / 2 below 1: 5 % at sqrt(0.1); standard error of a quantile here is below 0.001
    assert found.p5 == pytest.approx(math.sqrt(0.1), abs=0.004)
    assert found.p95 == pytest.approx(2.0 - math.sqrt(0.1), abs=0.004)
    assert found.ratio() == pytest.approx(found.p95 / found.p5)


def test_nothing_varies():
    found = uncertainty.monte_carlo(lambda over: 3.0, {}, count=10)
    assert (found.p5, found.p50, found.p95) == (3.0, 3.0, 3.0)


def test_tornado_of_a_product():
    ranges = {"a": Range(1, 2, 3), "b": Range(9, 10, 11), "still": Range(5, 5, 5)}
    bars = uncertainty.tornado(lambda over: over["a"] * over["b"] + 0.0 * over["still"], ranges)
    assert [bar.key for bar in bars] == ["a", "b", "still"]
    assert (bars[0].at_low, bars[0].at_high) == (10.0, 30.0)
    assert (bars[1].at_low, bars[1].at_high) == (18.0, 22.0)
    assert bars[2].swing == 0.0


def beats(other, one):
    pairs = list(zip(other, one, strict=True))
    return all(b <= a for b, a in pairs) and any(b < a for b, a in pairs)


def slow_dominated(points):
    return [any(beats(other, one) for other in points) for one in points]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_dominance_is_that_of_the_definition(points):
    assert uncertainty.dominated(np.array(points, dtype=float)).tolist() == slow_dominated(points)


def test_stability_by_brute_force():
    generator = np.random.default_rng(11)
    base = generator.uniform(0, 1, (6, 2))
    drawn = base + generator.normal(0, 0.2, (137, 6, 2))
    found = uncertainty.stability(base, drawn, cells=200)
    front = [not each for each in slow_dominated(base.tolist())]
    stays, whole, pairs = np.zeros(6), 0, []
    for draw in drawn:
        free = [not each for each in slow_dominated(draw.tolist())]
        stays += free
        whole += all(keep for keep, on_front in zip(free, front, strict=True) if on_front)
        pairs.append(np.mean([(draw[i, 0] < draw[j, 0]) == (base[i, 0] < base[j, 0]) for i, j in itertools.combinations(range(6), 2)]))
    assert found.stays == pytest.approx(stays / 137)
    assert found.whole_front == pytest.approx(whole / 137)
    assert found.pairs == pytest.approx(np.mean(pairs))
    assert found.best.sum() == pytest.approx(1.0)
    assert found.best[0] == pytest.approx(np.mean(drawn[:, :, 0].argmin(axis=1) == 0))


def test_a_common_factor_changes_no_order():
    base = np.array([[1.0, 3.0], [2.0, 1.0]])
    drawn = base * np.array([0.5, 1.0, 4.0])[:, None, None]
    found = uncertainty.stability(base, drawn)
    assert found.whole_front == found.pairs == 1.0
    alone = uncertainty.stability(base[:1], drawn[:, :1])
    assert alone.pairs == alone.whole_front == 1.0


@pytest.mark.parametrize(
    ("point", "drawn"),
    [(np.ones((2, 2)), np.ones((3, 2, 1))), (np.ones(2), np.ones((3, 2))), (np.full((1, 1), np.nan), np.ones((1, 1, 1)))],
)
def test_stability_refuses(point, drawn):
    with pytest.raises(CarbonError, match="objectives"):
        uncertainty.stability(point, drawn)


AREAS = np.array([5.0, 20.0, 80.0])
DEVICES = {"area_mm2": AREAS, "node_nm": 22, "memory_type": "lpddr4", "memory_gb": 1.0, "fab_grid": "taiwan"}


def study(operational=(9.0, 3.0, 1.0)):
    made = np.asarray(device.device_embodied("act2", **DEVICES).embodied_kgco2e)
    used = np.array(operational)
    return {
        "embodied_kgco2e": made,
        "operational_kgco2e": used,
        "latency_s": np.array([3.0, 2.0, 1.0]),
        "kgco2e_per_request": (made + used) / 1e6,
    }


def test_robustness_of_a_front():
    world = grid.lookup("world")
    found = robustness.front("act2", DEVICES, study(), [("latency_s", 1.0), ("total_kgco2e", 1.0)], use_grid=world, draws=500)
    assert found.objective == "total_kgco2e"
    assert found.total.values.shape == (500, 3)
    assert (found.total.p5 < found.total.p50).all()
    assert (found.total.p50 < found.total.p95).all()
    assert {"use.grid", "fab.yield", "fab.22nm.epa_kwh_cm2", "fab.grid.act2022:taiwan"} <= set(found.ranges)
    # latency alone keeps the fastest on the front whatever carbon does
    assert found.stability.stays[2] == 1.0
    again = robustness.front("act2", DEVICES, study(), [("latency_s", 1.0), ("total_kgco2e", 1.0)], use_grid=world, draws=500)
    assert (again.total.values == found.total.values).all()
    per_request = robustness.front("act2", DEVICES, study(), [("kgco2e_per_request", 1.0)], use_grid=world, draws=500)
    assert per_request.stability.pairs == found.stability.pairs


@pytest.mark.parametrize(("designs", "more"), [(3, None), (20, None), (22, "and 2 more")])
def test_robustness_is_shown_design_by_design(designs, more):
    """A line a design, the first twenty, and how many are not shown."""
    devices = {**DEVICES, "area_mm2": np.linspace(5.0, 80.0, designs)}
    made = np.asarray(device.device_embodied("act2", **devices).embodied_kgco2e)
    metrics = {"embodied_kgco2e": made, "operational_kgco2e": np.ones(designs)}
    lines = repr(robustness.front("act2", devices, metrics, [("total_kgco2e", 1.0)], use_grid=grid.lookup("world"), draws=20)).splitlines()
    assert [line.split()[0] for line in lines[4 : 4 + min(designs, 20)]] == [str(i + 1) for i in range(min(designs, 20))]
    assert len(lines) == 4 + min(designs, 20) + (more is not None)
    assert more is None or more in lines[-1]


def test_robustness_of_an_obvious_order_is_certain():
    world = grid.lookup("world")
    found = robustness.front("act2", DEVICES, study((1000.0, 100.0, 1.0)), [("total_kgco2e", 1.0)], use_grid=world, draws=200)
    assert found.stability.whole_front == found.stability.pairs == 1.0


def test_robustness_refuses():
    world = grid.lookup("world")
    with pytest.raises(CarbonError, match="total_kgco2e"):
        robustness.front("act2", DEVICES, study(), [("latency_s", 1.0)], use_grid=world)
    with pytest.raises(CarbonError, match="'quality'"):
        robustness.front("act2", DEVICES, study(), [("total_kgco2e", 1.0), ("quality", -1.0)], use_grid=world)
    wrong = {**study(), "embodied_kgco2e": study()["embodied_kgco2e"] * 1.1}
    with pytest.raises(CarbonError, match="another version"):
        robustness.front("act2", DEVICES, wrong, [("total_kgco2e", 1.0)], use_grid=world)


def test_ranges_of_grids():
    france = estimate.grid_range(grid.lookup("FRA"), fab=False)
    # OWID 56.039 and ecologits 41.44 are of one kind: the range holds both
    assert france.low == 41.44
    assert france.high == pytest.approx(56.039 * 1.15)
    fab = estimate.grid_range(grid.lookup("taiwan", role="fab"), fab=True)
    assert (fab.low, fab.mode, fab.high) == pytest.approx((300.0, 583.0, 820.0), abs=0.5)


def test_ranges_of_factors():
    found = uncertainty.ranges_of([factors.item("hbm_kgco2e_per_gb"), factors.item("eco_tsv_pitch_mm"), grid.lookup("FRA")])
    assert list(found) == ["packaging.hbm_kgco2e_per_gb"]
    assert found["packaging.hbm_kgco2e_per_gb"].mode == 0.861
