"""Specifications of a server in the terminal: names of devices, calibrated figures, energy, shares, lines for the books."""

from __future__ import annotations

import csv
import io
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from carbon.analysis import estimate, report
from carbon.device import device_embodied
from carbon.errors import CarbonError
from dse.cli import main
from dse.evaluation.board_specification import with_devices
from dse.evaluation.boards import board_inputs
from dse.spaces import starters

USE = {"grid": "france", "power_w": 1000, "lifetime_years": 4, "pue": [1.05, 1.2, 1.4]}
FEW = {"draws": 500}


def found(spec: dict[str, Any]) -> estimate.Estimate:
    return estimate.estimate(with_devices({**spec, "uncertainty": FEW}))


@pytest.mark.parametrize("name", ["h100", "mi300x", "server-cpu", "l4", "edge-tpu"])
def test_a_named_device_is_the_librarys_without_its_host(name: str) -> None:
    inputs = {key: value for key, value in board_inputs(name).items() if key != "host_share"}
    alone = float(device_embodied("default", **inputs).embodied_kgco2e)
    assert found({"component": [{"name": "board", "count": 8, "device": name}]}).embodied_kgco2e == pytest.approx(8 * alone, rel=1e-12)


def test_fields_beside_the_name_override_it() -> None:
    assert found({"device": {"device": "h100", "memory_gb": 0}}).embodied_kgco2e < found({"device": {"device": "h100"}}).embodied_kgco2e


def test_the_template_of_a_server_has_the_published_board() -> None:
    spec = tomllib.loads(starters.carbon())
    board = spec["component"][0]
    count, published = board["count"], 164.0  # NVIDIA's footprint summary of the H100, a GPU
    answer = estimate.estimate({"component": [board], "uncertainty": FEW})
    assert answer.embodied_kgco2e / count == pytest.approx(published, rel=0.02)
    host = spec["component"][1]
    assert host["dies"] == host["cpu_packages"]
    assert not estimate.estimate({"component": [host], "uncertainty": FEW}).warnings


def test_an_unknown_device_and_one_that_carbon_cannot_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "server.toml"
    spec.write_text('[[component]]\ndevice = "h10"\n', encoding="utf-8")
    assert main(["carbon", "estimate", str(spec)]) == 1
    assert "h100" in capsys.readouterr().err
    with pytest.raises(CarbonError, match="area_mm2"):
        estimate.estimate({"device": {"device": "h100"}})


def test_the_text_tells_energy_shares_and_counts() -> None:
    answer = found({"component": [{"name": "accelerator", "count": 8, "device": "h100"}, {"name": "host", "system": "server"}], "use": USE})
    kwh = 1.0 * 4 * 365.25 * 24  # 1 kW
    assert answer.machines_kwh == pytest.approx(kwh)
    assert float(answer.operation.energy_kwh) == pytest.approx(1.2 * kwh)  # type: ignore[union-attr]
    text = report.estimate_text(answer)
    assert "accelerator x 8" in text
    assert f"energy: {kwh:.4g} kWh of the machines, {1.2 * kwh:.4g} kWh at the meter (PUE 1.2)" in text
    assert f"embodied {answer.embodied_kgco2e / answer.total_kgco2e:.1%}" in text


def test_a_median_above_the_estimate_is_told_of_a_part_of_a_total_too() -> None:
    answer = found({"device": {"device": "h100"}, "use": {**USE, "power_w": 5000}})
    assert float(answer.embodied.p50) > 1.05 * answer.embodied_kgco2e
    assert float(answer.total.p50) < 1.05 * answer.total_kgco2e
    assert f"embodied {float(answer.embodied.p50) / answer.embodied_kgco2e - 1:+.0%}" in report.estimate_text(answer)


def test_two_processors_on_one_die_warn() -> None:
    part = {"area_mm2": 700, "node_nm": 10, "cpu_packages": 2}
    assert any("cpu_packages is 2" in one for one in found({"device": part}).warnings)
    assert not any("cpu_packages" in one for one in found({"device": {**part, "dies": 2}}).warnings)


def test_lines_for_the_books_name_units_years_and_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "server.toml"
    spec.write_text(
        '[[component]]\nname = "board"\ncount = 8\ndevice = "h100"\n[use]\ngrid = "france"\npower_w = 5000\nlifetime_years = 4\n',
        encoding="utf-8",
    )
    assert main(["carbon", "estimate", str(spec), "--draws", "500", "--format", "ghg"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 2
    for row in rows:
        assert row["units"] == "8 x board"
        assert float(row["period_years"]) == 4
        assert float(row["p5_kgco2e"]) < float(row["kgco2e"]) < float(row["p95_kgco2e"])
    assert main(["carbon", "estimate", str(spec), "--format", "xml"]) == 2
    assert "ghg" in capsys.readouterr().err
    assert main(["carbon", "run", "--hw", "l4", "--count", "3", "--hours", "8766", "--format", "ghg"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {(row["units"], float(row["period_years"])) for row in rows} == {("3 x l4", 1.0)}


def test_a_request_is_its_output_tokens_share(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tokens", "--workload", "llama3-8b", "--hw", "l4", "--tp", "1", "--concurrency", "4", "--prompt", "64", "--output", "16"]
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["gco2e_per_request"] == pytest.approx(row["gco2e_per_million_tokens"] * 16 / 1e6, rel=1e-12)
