"""Hourly traces, 12x24 profiles and the best-hours bound, against the measured year 2022."""

import csv
import math
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon import CarbonError
from carbon.factors import grid, tables, traces

REFERENCE = Path(__file__).parent.parent / "reference" / "carbon"
KIND = grid.GridKind("average", "lifecycle")


def trace(values, start=datetime(2022, 1, 1, tzinfo=UTC)):
    return traces.Trace("t", start, np.asarray(values, dtype=float), KIND, "test", "none")


@pytest.fixture(scope="module")
def measured():
    with (REFERENCE / "hourly_ci_eia2022.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    return {name: trace([float(row[name]) for row in rows]) for name in rows[0] if name != "timestamp_utc"}


# mean, best contiguous four hours of each UTC day against flat (percent): an independent evaluation of the same file
EXPECTED = {
    "CISO": (256.16, -32.09), "ERCO": (347.2, -13.9), "AZPS": (575.04, -11.28), "BPAT": (54.71, -11.4),
    "MISO": (440.57, -6.87), "NYIS": (272.77, -6.9), "SOCO": (423.2, -5.3), "PJM": (362.6, -5.06),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPECTED)
def test_the_year(measured, name):
    mean, saving = EXPECTED[name]
    assert measured[name].mean() == pytest.approx(mean, abs=0.011)  # interpolated hours are whole grams in the file
    # the file holds whole grams, of which one is 2 % of BPAT's mean
    assert -100.0 * traces.best_hours(measured[name], 4).saving == pytest.approx(saving, abs=0.02)


@pytest.mark.parametrize("name", traces.balancing_authorities())
def test_the_packaged_profile_is_the_mean_of_the_hours(measured, name):
    # the packaged file is rounded to four decimals
    assert np.abs(measured[name].profile() - traces.eia2022(name).profile()).max() <= 5.1e-5
    assert traces.eia2022(name).mean() == pytest.approx(measured[name].mean(), abs=1e-3)


def test_best_hours_by_going_through_all():
    generator = np.random.default_rng(3)
    values = generator.uniform(0, 500, 24 * 3 + 5)
    for hours in (1, 3, 24):
        days = values[:72].reshape(3, 24)
        runs = [min(day[first : first + hours].mean() for first in range(25 - hours)) for day in days]
        found = traces.best_hours(trace(values), hours)
        assert found.best_gco2e_per_kwh == pytest.approx(np.mean(runs), rel=1e-12)
        free = [np.sort(day)[:hours].mean() for day in days]
        assert traces.best_hours(trace(values), hours, contiguous=False).best_gco2e_per_kwh == pytest.approx(np.mean(free))


@given(st.lists(st.floats(0, 1000), min_size=48, max_size=48), st.integers(1, 24))
def test_the_bound_is_a_bound(values, hours):
    whole = traces.best_hours(trace(values), hours)
    free = traces.best_hours(trace(values), hours, contiguous=False)
    slack = 1e-9 * (1.0 + whole.flat_gco2e_per_kwh)  # sums of 24 numbers in another order
    assert free.best_gco2e_per_kwh <= whole.best_gco2e_per_kwh + slack
    # a contiguous run may have to take a dirty hour in the middle of the day, free hours never do
    assert free.best_gco2e_per_kwh <= free.flat_gco2e_per_kwh + slack
    assert traces.best_hours(trace(values), 24).saving == pytest.approx(0.0, abs=1e-12)


def test_intervals_are_half_open_and_weigh_parts_of_hours():
    one = trace([100.0, 200.0, 400.0])
    start = one.start
    assert one.over(start, start + timedelta(hours=1)) == 100.0
    assert one.over(start, start + timedelta(hours=3)) == pytest.approx(700.0 / 3)
    assert one.over(start + timedelta(minutes=30), start + timedelta(minutes=90)) == pytest.approx(150.0)
    assert one.over(start + timedelta(minutes=15), start + timedelta(minutes=45)) == pytest.approx(100.0)
    for begin, end in ((0, 0), (2, 1), (0, 4), (-1, 1)):
        with pytest.raises(CarbonError, match="interval"):
            one.over(start + timedelta(hours=begin), start + timedelta(hours=end))


def test_charge():
    one = trace([100.0, 200.0] * 24)
    assert one.charge([1.0]) == pytest.approx(48 * 150.0 / 1000.0)
    assert one.charge([2.0, 0.0]) == pytest.approx(48 * 100.0 / 1000.0)
    with pytest.raises(CarbonError, match="divide"):
        one.charge([1.0] * 7)
    with pytest.raises(CarbonError, match="negative"):
        one.charge([-1.0])


def test_factor_of_a_trace():
    found = traces.eia2022("ciso").factor()
    assert found.year == 2022
    assert found.kind == KIND
    assert found.gco2e_per_kwh == pytest.approx(256.16, abs=0.02)


@pytest.mark.parametrize("values", [[], [1.0, -1.0], [float("nan")], [[1.0]]])
def test_bad_traces_are_refused(values):
    with pytest.raises(CarbonError):
        trace(values)


def test_other_refusals():
    with pytest.raises(CarbonError, match="time zone"):
        trace([1.0], datetime(2022, 1, 1))
    with pytest.raises(CarbonError, match="CISO"):
        traces.eia2022("CIS0")
    with pytest.raises(CarbonError, match="12x24"):
        trace([1.0] * 48).profile()
    with pytest.raises(CarbonError, match="1 to 24"):
        traces.best_hours(trace([1.0] * 48), 25)
    with pytest.raises(CarbonError, match="one window"):
        traces.best_hours(trace([1.0] * 5), 2)


def test_the_synthetic_duck_is_labelled_and_keeps_its_mean():
    duck = traces.synthetic_duck(300.0, 0.5)
    assert duck.mean() == pytest.approx(300.0)
    assert "synthetic" in duck.source
    assert duck.gco2e_per_kwh[12] < duck.gco2e_per_kwh[0]
    with pytest.raises(CarbonError, match="solar_share"):
        traces.synthetic_duck(300.0, 0.9)


def test_the_synthetic_duck_dips_by_day_as_a_half_sine():
    """Symmetric about noon, deepest there, nothing by night; the depth of the dip is its share of the night's level."""
    day = traces.synthetic_duck(300.0, 0.5, hours=48).gco2e_per_kwh
    assert day[:24] == pytest.approx(day[24:])
    assert day[6:18] == pytest.approx(day[6:18][::-1])
    night = day[0]
    assert day[[1, 5, 18, 23]] == pytest.approx([night] * 4)
    hours = np.arange(6, 18)
    assert day[6:18] == pytest.approx(night * (1 - 0.5 * np.sin(np.pi * (hours - 5.5) / 12)))
    assert traces.synthetic_duck(300.0, 0.0, hours=24).gco2e_per_kwh == pytest.approx(np.full(24, 300.0))


def test_months_and_hours_of_any_trace_by_the_calendar():
    """A year and a half from a summer evening, told in another time zone: each cell is the mean of its hours in UTC."""
    zone = timezone(timedelta(hours=-7))
    start, hours = datetime(2021, 6, 11, 17, tzinfo=zone), 13_001
    values = np.random.default_rng(1).uniform(0.0, 500.0, hours)
    cells: dict[tuple[int, int], list[float]] = {}
    for at, value in enumerate(values.tolist()):
        moment = start.astimezone(UTC) + timedelta(hours=at)
        cells.setdefault((moment.month - 1, moment.hour), []).append(value)
    found = trace(values, start).profile()
    assert found.shape == (12, 24)
    assert all(found[cell] == pytest.approx(np.mean(members), rel=1e-12) for cell, members in cells.items())


@pytest.mark.parametrize("moment", [(1, 1, 0), (1, 31, 23), (2, 28, 5), (7, 1, 12), (12, 31, 23)])
def test_the_packaged_year_stands_in_its_months_and_hours(moment):
    month, day, hour = moment
    rows = {(r["ba"], int(r["month"]), int(r["hour_utc"])): float(r["gco2e_per_kwh"]) for r in tables.table("profile_12x24_eia2022")}
    at = int((datetime(2022, month, day, hour) - datetime(2022, 1, 1)).total_seconds() // 3600)
    for name in ("CISO", "pjm"):
        found = traces.eia2022(name)
        assert len(found) == 8760 and found.start == datetime(2022, 1, 1, tzinfo=UTC)
        assert found.gco2e_per_kwh[at] == rows[name.upper(), month, hour]
    hourly = traces.eia2022_hourly("ciso")
    days = [r for r in tables.table("hourly_eia2022") if r["ba"] == "CISO"]
    assert len(hourly) == 24 * len(days) == 8760
    assert hourly.gco2e_per_kwh[at] == float(days[at // 24][f"h{hour:02d}"])


@pytest.mark.parametrize(("begin", "end"), [(0, 7), (13, 14), (59, 61), (60, 120), (61, 179), (7, 233), (0, 240), (121, 122)])
def test_parts_of_hours_minute_by_minute(begin, end):
    one = trace([100.0, 17.0, 411.0, 3.0])
    found = one.over(one.start + timedelta(minutes=begin), one.start + timedelta(minutes=end))
    assert found == pytest.approx(np.mean([one.gco2e_per_kwh[minute // 60] for minute in range(begin, end)]), rel=1e-12)


@pytest.mark.parametrize("window", [5, 7, 24])
@pytest.mark.parametrize("hours", [1, 2, 5])
def test_best_hours_of_any_window(window, hours):
    """Whole windows alone; what is over at the end is neither chosen from nor counted in the mean."""
    values = np.random.default_rng(window).uniform(0.0, 500.0, 3 * window + window - 1)
    whole = [values[window * i : window * (i + 1)] for i in range(3)]
    flat = np.mean(np.concatenate(whole))
    runs = np.mean([min(part[at : at + hours].mean() for at in range(window - hours + 1)) for part in whole])
    free = np.mean([np.mean(sorted(part)[:hours]) for part in whole])
    for contiguous, best in ((True, runs), (False, free)):
        found = traces.best_hours(trace(values), hours, window_h=window, contiguous=contiguous)
        assert (found.flat_gco2e_per_kwh, found.best_gco2e_per_kwh) == (pytest.approx(flat), pytest.approx(best))
        assert found.saving == pytest.approx(1 - best / flat)
    assert traces.best_hours(trace(values[:window]), hours, window_h=window).flat_gco2e_per_kwh == pytest.approx(values[:window].mean())


def test_best_hours_at_the_ends():
    assert traces.best_hours(trace([0.0] * 24), 3) == traces.BestHours(0.0, 0.0, 0.0)
    assert traces.best_hours(trace([0.5, *[0.0] * 23]), 1).saving == 1.0
    for hours in (0, 25):
        with pytest.raises(CarbonError, match="1 to 24"):
            traces.best_hours(trace([1.0] * 24), hours)
    with pytest.raises(CarbonError, match="one window"):
        traces.best_hours(trace([1.0] * 23), 2)


def test_energy_hour_by_hour():
    one = trace([100.0, 17.0, 411.0, 3.0, 5.0, 7.0])
    assert one.charge([0.3, 0.7]) == pytest.approx((0.3 * (100 + 411 + 5) + 0.7 * (17 + 3 + 7)) / 1000.0)
    assert one.charge([0.3, 0.0, 0.1]) == pytest.approx((0.3 * (100 + 3) + 0.1 * (411 + 7)) / 1000.0)
    for wrong in ([], [1.0] * 4, [1.0] * 12):
        with pytest.raises(CarbonError, match="divide"):
            one.charge(wrong)
    for wrong in ([0.5, -0.5], [0.5, np.inf], [0.5, np.nan]):
        with pytest.raises(CarbonError, match="negative or infinite"):
            one.charge(wrong)


@pytest.mark.parametrize(("hours", "year"), [(1, 2022), (8760, 2022), (8761, None)])
def test_a_trace_has_a_year_if_all_its_hours_do(hours, year):
    found = trace([7.0] * hours).factor()
    assert (found.year, found.gco2e_per_kwh, found.code, found.level) == (year, 7.0, "trace:t", "trace")


def test_intensities_from_zero_on():
    assert trace([0.0, 0.5]).mean() == 0.25
    with pytest.raises(CarbonError, match="hour 1"):
        trace([0.0, -0.5])


@pytest.mark.parametrize("share", [0.0, 0.37, 0.6])
def test_the_duck_hour_by_hour(share):
    dip = [math.sin(math.pi * (h + 0.5 - 6) / 12) if 6 <= h < 18 else 0.0 for h in range(24)]
    shape = [1 - share * depth for depth in dip]
    found = traces.synthetic_duck(0.5, share, hours=48)
    assert found.gco2e_per_kwh.tolist() == [pytest.approx(0.5 * part / np.mean(shape)) for part in shape * 2]
    assert len(traces.synthetic_duck(0.5, share)) == 8760
    for mean, depth, word in ((-0.5, 0.1, "mean_gco2e"), (math.inf, 0.1, "mean_gco2e"), (1.0, -0.01, "solar"), (1.0, 0.61, "solar")):
        with pytest.raises(CarbonError, match=word):
            traces.synthetic_duck(mean, depth)
