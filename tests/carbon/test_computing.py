"""What a computation took: meters read as their makers write them, estimates by the stated rule, tables in others' words."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from carbon.errors import CarbonError
from carbon.factors import grid
from carbon.operational import computing, water
from dse.cli import main
from dse.serving.sheet import sheet


def zone(root: Path, name: str, label: str, energy_uj: int, most_uj: int = 262_143_328_850) -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(f"{label}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{most_uj}\n")


def test_packages_and_memory_are_read_and_cores_are_not_counted_twice(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 4_000_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 1_000_000)
    found = computing.rapl_joules(tmp_path)
    assert {name: joules for name, (joules, _) in found.items()} == {"intel-rapl:0": 5.0, "intel-rapl:0:1": 1.0}


def test_meters_measure_where_there_are_counters_even_across_their_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 90_000_000, 100_000_000)
    monkeypatch.setattr(computing, "_POWERCAP", tmp_path)
    monkeypatch.setattr(computing, "_gpu_joules", lambda: None)
    meter = computing.Meter()
    zone(tmp_path, "intel-rapl:0", "package-0", 26_000_000, 100_000_000)  # 10 J to the end of the counter, and 26 more
    spent = meter.stop()
    assert spent.kwh == pytest.approx(36.0 / 3.6e6) and spent.least_kwh == spent.kwh
    assert "RAPL" in spent.basis


def test_without_counters_energy_is_cpu_time_and_memory_by_the_stated_powers() -> None:
    spent = computing.from_time(wall_s=3600.0, cpu_s=7200.0, memory_gb=10.0)
    assert spent.kwh == pytest.approx(2 * 0.012 + 10 * 0.3725e-3)  # two cores of 12 W for an hour; 10 GB
    assert spent.least_kwh == pytest.approx(2 * 0.004 + 10 * 0.3725e-3)


def test_a_command_is_measured_with_its_children_and_keeps_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "rapl_joules", dict)
    monkeypatch.setattr(computing, "_gpu_joules", lambda: None)
    busy = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nraise SystemExit(3)"
    spent = computing.Meter().command([sys.executable, "-c", busy])
    assert spent.exit_code == 3
    assert 0.2 <= spent.cpu_s < 5.0 and spent.processor_kwh == pytest.approx(spent.cpu_s * 12 / 3.6e6)


def test_gpus_add_to_either(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([100.0, 3700.0])
    monkeypatch.setattr(computing, "rapl_joules", dict)
    monkeypatch.setattr(computing, "_gpu_joules", lambda: next(readings))
    assert computing.Meter().stop().gpu_kwh == pytest.approx(1e-3)


def test_grams_are_energy_times_facility_times_grid() -> None:
    spent = computing.from_power(100.0, 500.0, basis="given")
    found = computing.emissions(spent, grid.lookup("250"), pue=1.2, embodied_kgco2e=3.0)
    assert found.operational_kgco2e == pytest.approx(50 * 1.2 * 0.25)
    assert found.total_kgco2e == pytest.approx(18.0)
    with pytest.raises(CarbonError, match=r"pue is 0\.9"):
        computing.emissions(spent, grid.lookup("250"), pue=0.9)


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> dict:  # type: ignore[type-arg]
    assert main(["carbon", "run", "--json", *words]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    return row  # type: ignore[no-any-return]


def test_hours_on_devices_take_board_power_and_a_share_of_their_making(capsys: pytest.CaptureFixture[str]) -> None:
    row = run_json(capsys, "--hw", "h100", "--count", "8", "--hours", "100", "--grid", "400", "--pue", "1.1", "--lifetime-years", "4")
    chip = sheet("h100")
    assert row["facility_kwh"] == pytest.approx(8 * 100 * chip.tdp_w / 1e3 * 1.1)
    assert row["embodied_kgco2e"] == pytest.approx(8 * chip.embodied_kgco2e * 100 / (4 * 365.25 * 24))
    idle = run_json(capsys, "--hw", "h100", "--count", "8", "--hours", "100", "--grid", "400", "--pue", "1.1", "--load", "0")
    assert idle["energy_kwh"] == pytest.approx(8 * 100 * chip.idle_w / 1e3)


def test_an_inventory_adds_up_and_names_scopes(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--hw", "l4", "--hours", "1000", "--grid", "france"]
    total = run_json(capsys, *words)["total_kgco2e"]
    for cloud, scopes in ((False, {"Scope 2", "Scope 3"}), (True, {"Scope 3"})):
        assert main(["carbon", "run", *words, "--format", "ghg", *(["--cloud"] if cloud else [])]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert sum(float(row["kgco2e"]) for row in rows) == pytest.approx(total)
        assert all(
            float(row["activity_data"]) * float(row["emission_factor_kgco2e_per_unit"]) == pytest.approx(float(row["kgco2e"]))
            for row in rows
        )
        assert {row["category"].split(",")[0] for row in rows} == scopes


def test_codecarbons_table_has_its_columns_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["carbon", "run", "--hw", "h100", "--hours", "2", "--grid", "france", "--format", "codecarbon"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {"timestamp", "project_name", "duration", "emissions", "emissions_rate", "gpu_energy", "energy_consumed", "pue"} <= set(row)
    assert float(row["duration"]) == 7200.0
    assert float(row["gpu_power"]) * 2 / 1e3 == pytest.approx(float(row["gpu_energy"]))  # W, h, kWh
    assert float(row["emissions"]) == pytest.approx(float(row["emissions_rate"]) * 7200)  # kg, kg/s
    assert row["country_iso_code"] == "FRA"


def test_a_run_command_prints_after_the_command_and_returns_its_code(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "cost.json"
    words = ["--json", "--out", str(target), "--", sys.executable, "-c", "print('trained'); raise SystemExit(4)"]
    assert main(["carbon", "run", *words]) == 4
    assert capfd.readouterr().out == "trained\n"
    (row,) = json.loads(target.read_text())
    assert row["cpu_seconds"] > 0 and row["operational_low_kgco2e"] <= row["operational_kgco2e"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "none is given"),
        (["--hours", "1", "--hw", "h100", "--", "true"], "both are given"),
        (["--hw", "h100", "--", "true"], "hw is given with a command"),
        (["--hours", "1"], "hw is missing"),
        (["--hours", "-1", "--hw", "h100"], "hours is -1"),
        (["--hours", "1", "--hw", "h10"], "did you mean 'h100'"),
        (["--hours", "1", "--hw", "h100", "--load", "1.5"], "load is 1.5"),
        (["--hours", "1", "--hw", "h100", "--count", "0"], "count is 0"),
        (["--format", "xml", "--", "true"], "format 'xml'"),
        (["--", "no-such-command-here"], "cannot be run"),
        (["--grid", "frnce", "--", "true"], "france"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["carbon", "run", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_water_is_that_of_the_centre_and_of_its_electricity() -> None:
    found = water.with_range(100.0, pue=1.5, zone="FRA", wue_l_per_kwh=0.2)
    mix = water.mix_litres_per_kwh("FRA")
    assert found.litres == pytest.approx(100 * (0.2 + 1.5 * mix))
    assert (found.low, found.high) == (pytest.approx(100 * (0.2 + 0.75 * mix)), pytest.approx(100 * (0.2 + 3.0 * mix)))
    unknown = water.with_range(100.0, pue=1.5, zone="FRA")
    assert unknown.low < unknown.litres < unknown.high and unknown.high - unknown.low > found.high - found.low
    named = water.with_range(100.0, zone="WOR", site_code="aws:us-east-1")
    assert named.wue_l_per_kwh[1] == water.site("aws:us-east-1")["wue_l_per_kwh"]
    assert [f.key for f in named.sources] == ["water.electricity.WOR", "water.site.aws:us-east-1"]
    assert all(f.vintage in named.basis for f in named.sources)


def test_every_figure_of_water_says_of_when_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["carbon", "explain", "--match", "water.", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"water.electricity.FRA", "water.site.aws:us-east-1"} <= told.keys()
    assert all(factor["vintage"].isdigit() and factor["licence"] and factor["source"] for factor in told.values())
    assert told["water.electricity.FRA"]["value"] == water.mix_litres_per_kwh("FRA")


def test_the_water_command_says_litres_with_their_range(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["carbon", "water", "--kwh", "10", "--zone", "USA", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["low"] < answer["litres"] < answer["high"]
    assert main(["carbon", "water", "--kwh", "10", "--zone", "narnia"]) == 1
    assert "armenia" in capsys.readouterr().err
    assert main(["carbon", "water", "--kwh", "10", "--zone", "350"]) == 1  # a number is no place
    assert "FRA" in capsys.readouterr().err
    assert main(["carbon", "water", "--kwh", "10", "--zone", "poland"]) == 0
    told = capsys.readouterr().out
    assert "assumed: no water figure for POL; the world's stands for it" in told
    assert main(["carbon", "water", "--kwh", "10"]) == 0
    assert told.startswith(capsys.readouterr().out)  # the world's figures, and nothing else


def test_an_estimate_as_an_inventory_adds_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec, target = tmp_path / "server.toml", tmp_path / "ghg.csv"
    assert main(["init", "carbon", str(spec)]) == 0
    assert main(["carbon", "estimate", str(spec), "--draws", "200", "--json", "--ghg", str(target)]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"))))
    by_scope = Counter[str]()
    for row in rows:
        by_scope[row["category"].split(",")[0]] += float(row["kgco2e"])
    assert by_scope == {"Scope 3": pytest.approx(answer["embodied_kgco2e"]), "Scope 2": pytest.approx(answer["operational_kgco2e"])}


def test_energy_of_stated_watts():
    """Half an hour at 0.5 W is a quarter of a watt-hour; nothing runs for less than no time."""
    spent = computing.from_power(0.5, 0.5, basis="stated")
    assert (spent.gpu_kwh, spent.wall_s, spent.least_kwh) == (0.25e-3, 1800.0, 0.25e-3)
    assert computing.from_power(0.0, 0.0, basis="stated").gpu_kwh == 0.0
    for hours, watts, word in ((-1.0, 5.0, "hours"), (1.0, -5.0, "watts"), (1.0, float("inf"), "watts")):
        with pytest.raises(CarbonError, match=word):
            computing.from_power(hours, watts, basis="stated")


@pytest.mark.parametrize(
    ("before", "after", "measured"), [({"a": 0.0}, {"a": 7.2}, True), ({"a": 0.0}, {}, False), ({}, {"a": 7.2}, False)]
)
def test_counters_of_the_processor_count_where_they_are_there_at_both_ends(
    before: dict[str, float], after: dict[str, float], measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = iter([{zone: (joules, 1e9) for zone, joules in each.items()} for each in (before, after)])
    monkeypatch.setattr(computing, "rapl_joules", lambda: next(read))
    monkeypatch.setattr(computing, "_gpu_joules", lambda: None)
    spent = computing.Meter().stop()
    assert ("RAPL" in spent.basis.split(":")[0]) is measured
    assert not measured or spent.processor_kwh == pytest.approx(7.2 / 3.6e6)
