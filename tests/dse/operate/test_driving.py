"""Speed among people: the properties that it promises, for drives of every shape, and what it asks of perception."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.errors import DseError
from dse.operate.driving.comparison import WAYS, Perception, compare
from dse.operate.driving.generate import KINDS, generate
from dse.operate.driving.perception import contextual_rate_hz, foreseen_budget_s, lateness, scene_budget_s, seconds, usable_rates
from dse.operate.driving.requirement import requirement_of
from dse.operate.driving.speed import drive, previewed_limit_mps
from dse.operate.driving.trace import DriveTrace
from dse.operate.driving.vehicle import load_vehicle

SHUTTLE = load_vehicle()
SLACK = 1e-9  # rounding of sums of some hundred speeds


@st.composite
def drives(draw: st.DrawFn) -> DriveTrace:
    """Rows of uneven length: limits that drop by any amount (to zero too), people who appear anywhere."""
    rows = draw(st.integers(1, 16))
    gaps = draw(st.lists(st.floats(0.03, 5.0), min_size=rows, max_size=rows))
    limit = draw(st.lists(st.sampled_from([0.0, 1.5, 5.56, 8.33, 13.89, 19.4, 36.0]) | st.floats(0, 45), min_size=rows, max_size=rows))
    near = draw(st.lists(st.integers(0, 30), min_size=rows, max_size=rows))
    distance = draw(st.lists(st.floats(0, 150) | st.just(float("inf")), min_size=rows, max_size=rows))
    return DriveTrace(np.cumsum(gaps), np.array(limit), np.array(near, np.int64), np.array(distance), "a drawn drive")


def _limit_between(trace: DriveTrace, at: np.ndarray) -> np.ndarray:
    return trace.legal_limit_mps[np.maximum(np.searchsorted(trace.time_s, at + 1e-7, side="right") - 1, 0)]


@settings(max_examples=60, deadline=None)
@given(drives())
def test_never_above_the_legal_limit(trace: DriveTrace) -> None:
    """At no time, between the samples neither, whatever drops."""
    profile = drive(trace, SHUTTLE)
    boundaries = np.concatenate([trace.time_s - 1e-5, trace.time_s + 1e-5])  # a boundary itself belongs to either side
    at = np.concatenate([profile.context.time_s[:-1] + 0.037, boundaries])
    at = at[(at >= profile.context.time_s[0]) & (at <= profile.context.time_s[-1])]
    at = at[np.abs(at[:, None] - trace.time_s[None, :]).min(axis=1) > 1e-6]
    speed = np.interp(at, profile.context.time_s, profile.speed_mps)
    assert np.all(speed <= _limit_between(trace, at) + SLACK)
    assert np.all(profile.speed_mps >= 0)


@settings(max_examples=60, deadline=None)
@given(drives(), st.data())
def test_more_people_or_less_distance_is_never_faster(trace: DriveTrace, data: st.DataObject) -> None:
    """At every time of the drive, emergencies included; a lower legal limit too."""
    rows = len(trace)
    more = np.array(data.draw(st.lists(st.integers(0, 10), min_size=rows, max_size=rows)))
    share = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), min_size=rows, max_size=rows)))
    nearer = np.where(share == 1, trace.distance_m, share * np.minimum(trace.distance_m, 100))
    slower = np.array(data.draw(st.lists(st.sampled_from([0.5, 1.0]), min_size=rows, max_size=rows)))
    worse = replace(trace, pedestrians=trace.pedestrians + more, distance_m=nearer, legal_limit_mps=trace.legal_limit_mps * slower)
    before, after = drive(trace, SHUTTLE), drive(worse, SHUTTLE)
    assert np.all(after.target_mps <= before.target_mps + SLACK)
    assert np.all(after.speed_mps <= before.speed_mps + SLACK)


@settings(max_examples=60, deadline=None)
@given(drives(), st.sampled_from([0.05, 0.1, 0.25]))
def test_jerk_and_acceleration_are_bounded_but_for_emergencies(trace: DriveTrace, step_s: float) -> None:
    profile = drive(trace, SHUTTLE, step_s=step_s)
    calm = ~profile.emergency
    room = 1e-9 / step_s**2  # rounding of speeds, twice divided by the step
    assert np.all(np.abs(profile.jerk_mps3[calm]) <= SHUTTLE.jerk_mps3 + room)
    a = profile.acceleration_mps2
    assert np.all(a[calm] <= SHUTTLE.acceleration_mps2 + room)
    assert np.all(a[calm] >= -SHUTTLE.deceleration_mps2 - room)
    # Full braking is a bound too, in the worst emergency.
    assert np.all(a >= -SHUTTLE.emergency_mps2 - room)
    assert np.all(a <= SHUTTLE.acceleration_mps2 + room)


@settings(max_examples=60, deadline=None)
@given(drives())
def test_speed_leaves_perception_its_floor_unless_it_brakes_fully(trace: DriveTrace) -> None:
    profile = drive(trace, SHUTTLE)
    budget = SHUTTLE.latency_budget_s(profile.speed_mps, profile.context.distance_m)
    short = budget < SHUTTLE.latency_floor_s - 1e-9
    full = np.isclose(profile.acceleration_mps2, -SHUTTLE.emergency_mps2, atol=1e-6)
    assert np.all(full[1:][short[1:]])
    assert not short[0]


def test_without_people_the_speed_is_the_limit_as_far_as_the_tables_let_it() -> None:
    """A steady limit is driven exactly, a drop is reached in time and not before braking needs it, a rise is followed."""
    time = np.arange(0.0, 90.0)
    limit = np.where((time >= 30) & (time < 60), 5.0, 12.0)
    trace = DriveTrace(time, limit, np.zeros(90, np.int64), np.full(90, np.inf), "steps")
    profile = drive(trace, SHUTTLE)
    speed = dict(zip(np.round(profile.context.time_s, 3).tolist(), profile.speed_mps.tolist(), strict=True))
    assert speed[0.0] == speed[20.0] == pytest.approx(12.0)
    assert speed[30.0] == pytest.approx(5.0)
    # 7 m/s at 2 m/s2 take 3.5 s, and the mean over 3.2 s begins that much earlier.
    assert speed[23.0] == pytest.approx(12.0)
    assert speed[45.0] == pytest.approx(5.0)
    assert speed[80.0] == pytest.approx(12.0)
    assert not profile.emergency.any()


def test_preview_against_its_definition() -> None:
    rng = np.random.default_rng(3)
    for window, fall in itertools.product((1, 4, 32), (0.0, 0.2, 5.0)):
        limit = rng.uniform(0, 20, 70)
        eroded = [limit[k : k + window].min() for k in range(70)]
        brute = [min(eroded[s] + fall * (s - t) for s in range(t, 70)) for t in range(70)]
        assert np.allclose(previewed_limit_mps(limit, window, fall), brute, atol=1e-12)


def test_stopping() -> None:
    """At its latency budget a vehicle stops exactly the margin before the person; the safe speed leaves exactly the floor."""
    speed, distance = np.array([2.0, 8.0, 14.0]), np.array([12.0, 30.0, 60.0])
    budget = SHUTTLE.latency_budget_s(speed, distance)
    assert np.allclose(SHUTTLE.stopping_distance_m(speed, budget), distance - SHUTTLE.margin_m)
    safe = SHUTTLE.safe_speed_mps(distance)
    assert np.allclose(SHUTTLE.latency_budget_s(safe, distance), SHUTTLE.latency_floor_s)
    assert SHUTTLE.safe_speed_mps(SHUTTLE.margin_m) == 0.0


LOOKS = Perception("a device", latency_s=0.03, energy_j=0.35, idle_w=4.0, gco2e_per_kwh=400.0)


@pytest.mark.parametrize("kind", list(KINDS))
def test_contextual_rate(kind: str) -> None:
    """No miss where nobody breaks the declared appearances; each rate is the lowest that is in time for what is foreseen."""
    profile = drive(generate(kind, seed=1, duration_s=200), SHUTTLE)
    rate = contextual_rate_hz(profile, SHUTTLE, LOOKS.latency_s)
    budget = foreseen_budget_s(profile, SHUTTLE)
    rates = usable_rates(SHUTTLE, LOOKS.latency_s)
    for chosen, available in zip(rate[::37].tolist(), budget[::37].tolist(), strict=True):
        fit = [f for f in rates.tolist() if LOOKS.latency_s + 1 / f <= available]
        assert chosen == (min(fit) if fit else rates[-1])
    assert lateness(profile, SHUTTLE, LOOKS.latency_s, rate).misses == 0


def test_misses_by_hand() -> None:
    """Someone is 8 m away at 5 m/s: L = 7/5 - 5/12 - 0.1 = 0.883 s. With 0.1 s a frame, 2 frames/s are in time, 1 would not be."""
    trace = DriveTrace(np.array([0.0, 1.0]), np.array([5.0, 5.0]), np.array([0, 0]), np.array([np.inf, 8.0]), "one person")
    # A vehicle that may go 5 m/s anywhere, so that the speed stays what it is.
    vehicle = replace(
        SHUTTLE, rates_hz=(1.0, 2.0, 5.0), latency_floor_s=0.3, proximity=replace(SHUTTLE.proximity, points=(1.0, 8.0), values=(0.0, 5.0))
    )
    profile = drive(trace, vehicle)
    assert np.allclose(profile.speed_mps, 5.0)
    at = int(np.argmin(profile.context.distance_m))
    assert scene_budget_s(profile, vehicle)[at] == pytest.approx(7 / 5 - 5 / 12 - 0.1)
    samples = int(np.count_nonzero(profile.context.distance_m == 8.0))
    assert lateness(profile, vehicle, 0.1, 2.0).misses == 0
    late = lateness(profile, vehicle, 0.1, 1.0)
    assert (late.misses, late.unavoidable) == (samples, 0)
    assert late.worst_overrun_m == pytest.approx(5.0 * (1.1 - (7 / 5 - 5 / 12 - 0.1)))
    # A rate that rises only when the person is there is late once: the interval in force is the one before.
    rate = np.where(profile.context.distance_m == 8.0, 2.0, 1.0)
    assert lateness(profile, vehicle, 0.1, rate).misses == 1


@pytest.mark.parametrize("kind", list(KINDS))
def test_seconds_hold_for_any_design_that_meets_them(kind: str) -> None:
    """Deadline and rate of each second: whatever meets the deadline misses nothing at that rate and never overlaps its frames."""
    profile = drive(generate(kind, seed=2, duration_s=200), SHUTTLE)
    asked = seconds(profile, SHUTTLE)
    assert np.all(np.diff(asked.time_s) == 1.0)
    ok = asked.attainable
    assert np.all(asked.deadline_s[ok] > 0)
    assert np.all(asked.deadline_s * asked.rate_hz <= 1 + 1e-9)
    in_second = np.floor(profile.context.time_s - profile.context.time_s[0] + 1e-9).astype(int)
    rate = asked.rate_hz[in_second]
    latency = float(asked.deadline_s[ok].min())
    assert lateness(profile, SHUTTLE, latency, rate).misses == 0


def test_comparison() -> None:
    """Joules by hand, totals by kilometres, and the fixed rates are the lowest with no more misses than the contextual one has."""
    traces = [generate(kind, seed=seed, duration_s=150) for kind in KINDS for seed in (0, 1)]
    found = compare(traces, SHUTTLE, LOOKS)
    profiles = [drive(trace, SHUTTLE) for trace in traces]
    for i, profile in enumerate(profiles):
        ways = {way.way: way for way in found.ways[4 * i : 4 * i + 4]}
        seconds_driven = 150.0
        assert ways["highest"].joules_per_km == pytest.approx((30 * 0.35 + (1 - 30 * 0.03) * 4.0) * seconds_driven / profile.distance_km)
        assert ways["highest"].gco2e_per_km == pytest.approx(ways["highest"].joules_per_km / 3.6e6 * 400)
        misses = {f: lateness(profile, SHUTTLE, 0.03, f).misses for f in SHUTTLE.rates_hz}
        own = ways["contextual"]
        assert ways["best fixed"].rate_hz == min(f for f in misses if misses[f] <= own.misses)
        # Where one low rate happens to do for a drive, foresight costs a little: the contextual rate cannot know.
        assert own.joules_per_km <= 1.2 * ways["best fixed"].joules_per_km
        assert ways["best fixed"].joules_per_km <= ways["fixed for all"].joules_per_km <= ways["highest"].joules_per_km
    whole = found.total("contextual")
    km = [p.distance_km for p in profiles]
    assert whole.joules_per_km == pytest.approx(np.average([w.joules_per_km for w in found.ways if w.way == WAYS[0]], weights=km))
    assert found.fixed_for_all_hz == max(w.rate_hz for w in found.ways if w.way == "best fixed")
    assert all(c.above_legal_limit_mps <= 0 and c.jerk_max_mps3 <= SHUTTLE.jerk_mps3 + 1e-6 for c in found.comfort)
    assert found.to_dict()["saved_against_fixed_for_all"] == pytest.approx(found.saved("fixed for all"))


def test_where_nothing_changes_nothing_is_saved() -> None:
    """On an empty steady road the contextual rate is one number, and the best fixed rate is it."""
    trace = DriveTrace(np.arange(60.0), np.full(60, 10.0), np.zeros(60, np.int64), np.full(60, np.inf), "empty")
    found = compare([trace], SHUTTLE, LOOKS)
    # What may step out is foreseen by the contextual rate; the fixed one is judged by who did.
    assert found.total("best fixed").rate_hz == SHUTTLE.rates_hz[0]
    assert found.saved("best fixed") <= 0.0


def test_requirement() -> None:
    traces = [generate("school", seed=seed, duration_s=120) for seed in (4, 5)]
    both = requirement_of(traces, SHUTTLE)
    each = [requirement_of([trace], SHUTTLE) for trace in traces]
    assert both.deadline_s == min(one.deadline_s for one in each)
    assert both.rate_per_s == pytest.approx(np.average([one.rate_per_s for one in each], weights=[one.seconds for one in each]))
    assert both.highest_rate_hz * both.deadline_s <= 1 + 1e-9
    wall = DriveTrace(np.array([0.0, 1.0]), np.array([9.0, 9.0]), np.array([0, 0]), np.array([0.0, 0.0]), "a wall")
    standing = requirement_of([wall], SHUTTLE)  # it never moves, and has all the time there is
    assert standing.rate_per_s == SHUTTLE.rates_hz[-1] or standing.deadline_s > 0


@pytest.mark.parametrize("kind", list(KINDS))
def test_drawn_drives(kind: str) -> None:
    """The same seed, the same drive; another seed or kind, another; nobody appears nearer than its stretches say."""
    one, again, other = generate(kind, seed=7), generate(kind, seed=7), generate(kind, seed=8)
    assert all(np.array_equal(getattr(one, name), getattr(again, name)) for name in ("legal_limit_mps", "pedestrians", "distance_m"))
    assert not np.array_equal(one.distance_m, other.distance_m)
    assert np.all((one.pedestrians > 0) == np.isfinite(one.distance_m))
    appeared = np.diff(one.pedestrians) > 0
    least = min(stretch.appear_m[0] for stretch in KINDS[kind])
    alone = appeared & (one.pedestrians[:-1] == 0)
    assert np.all(one.distance_m[1:][alone] >= least - 1e-9)
    assert set(np.round(one.legal_limit_mps, 6)) <= {round(s.limit_mps, 6) for s in KINDS[kind]}


def test_limits_of_arguments() -> None:
    with pytest.raises(DseError, match="unknown; known are plaza, road, school; did you mean 'road'"):
        generate("raod")
    with pytest.raises(DseError, match="duration_s is 0"):
        generate("road", duration_s=0)
    with pytest.raises(DseError, match=r"lowest frame rate, 2 a second; it must be at most 0\.5 s"):
        usable_rates(SHUTTLE, 0.6)
    with pytest.raises(DseError, match="step_s is nan"):
        drive(generate("road", duration_s=10), SHUTTLE, step_s=float("nan"))
    still = DriveTrace(np.arange(5.0), np.zeros(5), np.zeros(5, np.int64), np.full(5, np.inf), "parked")
    with pytest.raises(DseError, match="never moves"):
        compare([still], SHUTTLE, LOOKS)
