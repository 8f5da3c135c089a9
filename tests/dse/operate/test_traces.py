"""Files of hours and requests: what is refused, in one sentence with the line; periods kept apart; the synthetic week's own rules."""

from pathlib import Path

import numpy as np
import pytest

from carbon.factors import traces as grids
from dse.operate import forecasts, traces

HOURS = [f"2022-03-13T{h:02d}:00Z" for h in range(5)]


def write(folder: Path, rows: list[str], header: str = "timestamp_utc,gco2e_per_kwh") -> Path:
    path = folder / "hours.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_a_file_of_hours_is_read(tmp_path: Path) -> None:
    trace = traces.read_grid(write(tmp_path, [f"{hour},{100 + i}" for i, hour in enumerate(HOURS)]))
    assert trace.gco2e_per_kwh.tolist() == [100, 101, 102, 103, 104]
    # an offset makes local hours unambiguous
    local = ["2022-03-13T01:00-08:00,1", "2022-03-13T03:00-07:00,2"]
    assert len(traces.read_grid(write(tmp_path, local))) == 2


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        ([f"{HOURS[0]},1", f"{HOURS[2]},2"], None, r"line 3: 1 hours missing after line 2 .*daylight"),
        ([f"{HOURS[0]},1", f"{HOURS[4]},2"], None, r"line 3: 3 hours missing after line 2"),
        ([f"{HOURS[0]},1", f"{HOURS[1]},2", f"{HOURS[1]},3"], None, r"line 4: .* is the same hour as line 3 .*daylight"),
        ([f"{HOURS[1]},1", f"{HOURS[0]},2"], None, r"line 3: .* is before line 2"),
        ([f"{HOURS[0]},1", "2022-03-13T01:30Z,2"], None, r"line 3: .*1:30:00 after line 2, must be one hour"),
        (["2022-03-13T00:30Z,1", "2022-03-13T01:30Z,2"], None, r"line 2: .* is no full hour"),
        ([f"{HOURS[0]},1", f"{HOURS[1]},-5"], None, r"line 3: gco2e_per_kwh is -5, must be finite and at least 0"),
        ([f"{HOURS[0]},1", f"{HOURS[1]},"], None, r"line 3: gco2e_per_kwh is missing"),
        ([f"{HOURS[0]},1", f"{HOURS[1]},nan"], None, r"line 3: gco2e_per_kwh is nan"),
        ([f"{HOURS[0]},1", f"{HOURS[1]},x"], None, r"line 3: gco2e_per_kwh is 'x', must be a number"),
        ([f"{HOURS[0]},1", f"{HOURS[1]},2,3"], None, r"line 3: 3 values, must be 2"),
        ([f"{HOURS[0]},1", "noon,2"], None, r"line 3: timestamp_utc is 'noon'"),
        ([f"{HOURS[0]},1"], "timestamp_utc,kgco2_per_mwh", r"line 1: column 'kgco2_per_mwh' is in another unit, must be gco2e_per_kwh"),
        ([f"{HOURS[0]},1"], "timestamp_utc,lb_per_mwh", r"line 1: column 'lb_per_mwh' is in another unit"),
        ([f"{HOURS[0]},1", f"{HOURS[1]},450000"], None, r"line 3: gco2e_per_kwh is 450000, must be at most 5000: is it another unit"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, rows: list[str], header: str | None, said: str) -> None:
    path = write(tmp_path, rows, *([header] if header else []))
    with pytest.raises(ValueError, match=said) as caught:
        traces.read_grid(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_trace_that_may_be_in_kilograms_is_told(tmp_path: Path) -> None:
    assert traces.read_grid(write(tmp_path, [f"{hour},0.4" for hour in HOURS])).note.startswith("careful: no hour is above 0.4 g")
    assert traces.read_grid(write(tmp_path, [f"{hour},40" for hour in HOURS])).note == "as given"


def test_rows_of_other_formats_are_told_as_lines(tmp_path: Path) -> None:
    header = "Datetime (UTC),Zone id,Carbon Intensity gCO₂eq/kWh (LCA)"
    rows = ["2022-01-01 00:00:00,FR,50", "", "2022-01-01 01:00:00,FR,-3"]
    with pytest.raises(ValueError, match=r"line 4.*negative"):
        traces.read_grid(write(tmp_path, rows, header))


def test_hourly_requests_and_logs(tmp_path: Path) -> None:
    start = grids.eia2022_hourly("CISO").start
    hours = [str(np.datetime64("2022-01-01T00") + h) for h in range(72)]
    path = write(tmp_path, [f"{hour},{100 + h % 24}" for h, hour in enumerate(hours)], "timestamp_utc,requests")
    load = traces.load_of_file(path, start, 168)
    assert load.requests[:24].tolist() == [100 + h for h in range(24)] and load.kept and len(load.requests) == 168
    with pytest.raises(ValueError, match="line 1: column 'requests_per_s' is in another unit, must be requests"):
        traces.load_of_file(write(tmp_path, [f"{hours[0]},1"], "timestamp_utc,requests_per_s"), start, 168)
    with pytest.raises(ValueError, match="line 3: requests is -1"):
        traces.load_of_file(write(tmp_path, [f"{hours[0]},1", f"{hours[1]},-1"], "timestamp_utc,requests"), start, 168)
    log = write(tmp_path, [f"{i * 10},5,5" for i in range(361)], "arrival_s,prompt_tokens,output_tokens")
    short = traces.load_of_file(log, start, 168)
    assert "hours of the synthetic week" in short.source
    assert short.expected.mean() == pytest.approx(360, rel=1e-9)
    with pytest.raises(ValueError, match=r"line 4: .*sorted by time"):
        traces.load_of_file(write(tmp_path, ["0,5,5", "9,5,5", "8,5,5"], "arrival_s,prompt_tokens,output_tokens"), start, 168)


def test_periods_share_no_hour_and_fits_see_training_hours_only() -> None:
    trace = grids.eia2022_hourly("ERCO")
    weeks = {period: set(traces.weeks_of(trace.start, len(trace), period).tolist()) for period in ("train", "validation", "test")}
    assert not weeks["train"] & weeks["test"] and not weeks["validation"] & weeks["test"] and not weeks["train"] & weeks["validation"]
    assert len(weeks["test"]) == 13
    # hours of judged weeks may be seen when they have passed, but what is fitted does not change with them
    changed = trace.gco2e_per_kwh.copy()
    for first in weeks["test"]:
        changed[first : first + traces.WEEK_H] *= 0.5
    other = type(trace)(trace.name, trace.start, changed, trace.kind, trace.source, trace.licence)
    assert np.array_equal(forecasts.timetable(trace, 24), forecasts.timetable(other, 24))


def test_forecasts_have_skill_and_look_at_no_later_hour() -> None:
    for name in ("CISO", "ERCO", "BPAT", "NYIS"):
        trace = grids.eia2022_hourly(name)
        first = traces.weeks_of(trace.start, len(trace), "test")
        made = forecasts.ridge(trace, 24)
        found = forecasts.skill(trace, made, first)
        assert found.over_timetable > 0.25 and found.rank > 0.5 and found.mape < 0.13, name
        assert forecasts.skill(trace, forecasts.truth(trace, 24), first).mape == 0.0
    # the future of an hour does not change what that hour expects
    cut = trace.gco2e_per_kwh.copy()
    at = int(first[-1]) + 50
    cut[at + 1 :] = 999.0
    later = type(trace)(trace.name, trace.start, cut, trace.kind, trace.source, trace.licence)
    assert np.array_equal(forecasts.yesterday(trace, 24)[at], forecasts.yesterday(later, 24)[at])


def test_the_synthetic_week_keeps_its_envelope_and_its_mean() -> None:
    start = grids.eia2022_hourly("CISO").start
    for seed in range(5):
        load = traces.synthetic_load(start, 52 * 168, mean_per_h=1000.0, utc_offset_h=-8, seed=seed)
        assert load.kept
        assert load.expected.mean() == pytest.approx(1000.0, rel=1e-12)
        assert load.requests.mean() == pytest.approx(1000.0, rel=0.05)  # noise of standard deviation 0.09, correlated over ten hours
    again = traces.synthetic_load(start, 168, mean_per_h=1.0, seed=3)
    assert np.array_equal(again.requests, traces.synthetic_load(start, 168, mean_per_h=1.0, seed=3).requests)
    assert not np.array_equal(again.requests, traces.synthetic_load(start, 168, mean_per_h=1.0, seed=4).requests)
    # local afternoon is the peak: 15:00 at -8 is 23:00 UTC
    assert int(np.argmax(load.expected[48:72])) == 23


def test_places(tmp_path: Path) -> None:
    assert len(traces.grid_trace("ciso")) == 8760
    france = traces.grid_trace("france")
    assert "not measured" in france.source and france.mean() == pytest.approx(56.039, abs=0.001)
    with pytest.raises(ValueError, match="nearest known"):
        traces.grid_trace("frnce")
    with pytest.raises(ValueError, match="cannot be read"):
        traces.grid_trace(str(tmp_path / "none.csv"))
