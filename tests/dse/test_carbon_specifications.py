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
from carbon.embodied import memory
from carbon.errors import CarbonError
from carbon.factors import grid
from carbon.operational import water
from dse.cli import main
from dse.evaluation.board_specification import whole_servers, with_devices
from dse.evaluation.boards import board_inputs
from dse.spaces import starters

USE = {"grid": "france", "power_w": 1000, "lifetime_years": 4, "pue": [1.05, 1.2, 1.4]}
FEW = {"draws": 4000}


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
    assert "energy: 35,060 kWh of the machines, 42,080 kWh at the meter (PUE 1.2)" in text
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
    made, (used,) = rows[:-1], rows[-1:]
    assert [row["activity"] for row in made] == [f"making of the hardware: {part}" for part in ("die", "memory", "packaging", "system")]
    assert "electricity" in used["activity"]
    for row in rows:
        assert row["machines"] == "8 x board"
        assert float(row["period_years"]) == 4
        assert float(row["p5_kgco2e"]) < float(row["kgco2e"]) < float(row["p95_kgco2e"])
    assert main(["carbon", "estimate", str(spec), "--draws", "500", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert sum(float(row["kgco2e"]) for row in made) == pytest.approx(answer["embodied_kgco2e"], rel=1e-12)
    assert {row["activity"].split(": ")[1]: float(row["p95_kgco2e"]) for row in made} == {
        part: pytest.approx(ends["p95"], rel=1e-12) for part, ends in answer["range"]["embodied_parts_kgco2e"].items()
    }
    assert main(["carbon", "estimate", str(spec), "--format", "xml"]) == 2
    assert "ghg" in capsys.readouterr().err
    assert main(["carbon", "run", "--hw", "l4", "--count", "3", "--hours", "8766", "--format", "ghg"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {(row["machines"], float(row["period_years"])) for row in rows} == {("3 x l4", 1.0)}


def test_a_request_is_its_output_tokens_share(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["tokens", "--workload", "llama3-8b", "--hw", "l4", "--tp", "1", "--concurrency", "4", "--prompt", "64", "--output", "16"]
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["gco2e_per_request"] == pytest.approx(row["gco2e_per_million_tokens"] * 16 / 1e6, rel=1e-12)


HOST = {"name": "host", "area_mm2": 350, "node_nm": 10, "memory_type": "ddr5", "memory_gb": 512, "storage_gb": 7680, "system": "server"}
SERVER = [{"name": "board", "count": 2, "device": "h100"}, HOST]


def test_every_part_and_component_has_its_range() -> None:
    """A part that one factor moves has that factor's percentiles; components and the whole are the sums, draw by draw."""
    answer = found({"component": SERVER, "use": USE})
    whole = sum(one.values for one in answer.part_spreads.values())
    assert whole == pytest.approx(answer.embodied.values, rel=1e-12)
    parts = answer.part_spreads
    assert parts["board.die"].values + parts["board.memory"].values + parts["board.packaging"].values + parts["board.system"].values == (
        pytest.approx(answer.component_spreads["board"].values, rel=1e-12)
    )
    base = answer.sources["packaging.server_base_kgco2e"]
    # The 5 % quantile of a triangle (low, mode, high): low + sqrt(0.05 (high - low) (mode - low)).
    expected = base.low + (0.05 * (base.high - base.low) * (base.value - base.low)) ** 0.5
    assert float(parts["host.system"].p5) == pytest.approx(expected, rel=0.03)  # 4,000 draws
    text = report.estimate_text(answer)
    line = next(line for line in text.splitlines() if line.startswith("host.system"))
    assert line.split()[1:] == ["607", *(f"{float(end):.4g}" for end in (parts["host.system"].p5, parts["host.system"].p95))]
    assert "component  " in text
    data = report.estimate_data(answer)["range"]
    assert data["embodied_parts_kgco2e"].keys() == answer.embodied_parts.keys()
    assert data["embodied_components_kgco2e"]["host"]["p95"] == float(answer.component_spreads["host"].p95)


def test_what_is_left_open_is_told() -> None:
    told = "\n".join(found({"component": SERVER}).assumed)
    for words in ("host: storage_year is not given, flash of 2019", "storage_drives is not given", "memory_modules is not given",
                  "cpu_packages is not given", "memory_year is not given, ddr5 of 2022", "harvest is not given"):  # fmt: skip
        assert words in told
    assert "board" not in told  # the library's board says all of it
    host = {**HOST, "storage_year": 2020, "storage_drives": 2, "memory_modules": 16, "memory_year": 2020, "cpu_packages": 2, "dies": 2,
            "harvest": {"units": 28, "needed": 24, "fraction": 0.5}}  # fmt: skip
    assert found({"component": [host]}).assumed == []
    assert "assumed: host: storage_year" in report.estimate_text(found({"component": SERVER}))
    assert found({"profile": "act2", "device": {"area_mm2": 400, "node_nm": 7}}).assumed == []  # that recipe has none of these


@pytest.mark.parametrize(("unit", "count"), [("hour", 8766.0), ("day", 365.25), ("year", 1.0)])
def test_a_unit_of_time_follows_the_lifetime(unit: str, count: float) -> None:
    spec = {"device": {"device": "h100"}, "functional_unit": {"name": unit}}
    for years in (4, 6):
        answer = found({**spec, "use": {**USE, "lifetime_years": years}})
        (metric,) = [one for one in answer.metrics if one.name == "per functional unit"]
        assert metric.value == pytest.approx(1000 * answer.total_kgco2e / (count * years), rel=1e-12)
    stated = {**spec, "functional_unit": {"name": "hour", "total": 35064}}
    assert not any("functional_unit" in one for one in found({**stated, "use": {**USE, "lifetime_years": 4}}).warnings)
    assert any("lifetime_years = 6 has 52596" in one for one in found({**stated, "use": {**USE, "lifetime_years": 6}}).warnings)
    with pytest.raises(CarbonError, match="a unit of time"):
        found({**spec, "functional_unit": {"name": "token"}, "use": USE})


def test_place_and_years_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "board.toml"
    use = '[use]\ngco2e_per_kwh = 50\nkind = "average, lifecycle"\nsource = "a contract"\npower_w = 500\nlifetime_years = 4\n'
    spec.write_text('[device]\ndevice = "h100"\n' + use, encoding="utf-8")

    def used(*words: str) -> float:
        assert main(["carbon", "estimate", str(spec), "--draws", "100", "--json", *words]) == 0
        return float(json.loads(capsys.readouterr().out)["operational_kgco2e"])

    kwh = 0.5 * 8766
    assert used() == pytest.approx(kwh * 4 * 0.05)
    assert used("--lifetime-years", "6") == pytest.approx(kwh * 6 * 0.05)
    assert used("--grid", "FRA") == pytest.approx(kwh * 4 * grid.lookup("FRA").gco2e_per_kwh / 1000)
    spec.write_text('[device]\ndevice = "h100"\n', encoding="utf-8")
    assert main(["carbon", "estimate", str(spec), "--grid", "FRA"]) == 1
    assert "has no [use]" in capsys.readouterr().err


def test_memory_types_are_listed_where_they_are_looked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "memories", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["memories"]
    assert main(["carbon", "explain", "--match", "memory_type", "--json"]) == 0
    factors = json.loads(capsys.readouterr().out)
    for name in memory.types():
        assert f"memory_type.{name}" in factors
        if name == "nand":
            continue
        assert name in listed
        kg = found({"device": {"memory_type": name, "memory_gb": 10}}).embodied_kgco2e
        assert factors[f"memory_type.{name}"]["value"] == pytest.approx(kg / 10, rel=1e-12)
    assert main(["carbon", "explain", "--match", "memory.dram.2022"]) == 0


def test_numbers_are_no_powers_of_ten() -> None:
    assert [report.number(value) for value in (18346.2, 1834.6, 0.0123456, 123456789.0, 4.5e-6)] == [
        "18,350", "1835", "0.01235", "123,500,000", "4.5e-06",
    ]  # fmt: skip


def test_water_says_whose_figure_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    undisclosed = next(code for code in water.sites() if water.site(code)["wue_l_per_kwh"] is None)
    assert main(["carbon", "water", "--kwh", "10", "--site", undisclosed]) == 0
    told = capsys.readouterr().out
    assert "water of the world's electricity" in told
    assert f"{undisclosed} does not disclose its own water" in told


def test_a_device_that_is_a_server_does_not_bring_a_second_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = {"name": "host", "memory_type": "ddr4", "memory_gb": 512, "system": "server"}
    cpu = {"name": "cpu", "count": 2, "device": "server-cpu"}
    parts = found({"component": [cpu, host]}).embodied_parts
    assert [name for name in parts if name.endswith((".system", ".memory"))] == ["host.memory", "host.system"]
    alone = found({"component": [cpu]}).embodied_parts
    assert parts["cpu.die"] == alone["die"]  # what is left out is nothing of the processor
    assert alone["system"] == pytest.approx(2 * parts["host.system"])  # without a host it stays a server each
    bare = found({"component": [cpu, {"name": "host", "system": "server"}]}).embodied_parts
    assert bare["cpu.memory"] == alone["memory"]  # no host's memory to take its place
    again = found({"component": [{**cpu, "system": "server", "memory_gb": 64}, host]}).embodied_parts
    assert again["cpu.system"] == alone["system"]
    assert 0 < again["cpu.memory"] < alone["memory"]
    packages = "cpu: cpu_packages is not given, no processor's own 9.14 kg are counted (cpu_packages of host)"
    assert whole_servers({"component": [cpu, host]}) == [
        "cpu: of device server-cpu the rest of a server (system) and its 384 GB of ddr5 left out, because host is the host",
        packages,
    ]
    assert whole_servers({"component": [{**cpu, "system": "none"}, host]}) == [
        "cpu: of device server-cpu its 384 GB of ddr5 left out, because host is the host",
        packages,
    ]
    assert packages not in whole_servers({"component": [cpu, {**host, "cpu_packages": 2}]})
    assert whole_servers({"component": [{"device": "h100"}, host]}) == []
    own = {**host, "area_mm2": 700, "node_nm": 10, "dies": 2}
    *_, twice = whole_servers({"component": [cpu, own]})
    assert twice.startswith("cpu: the processors of device server-cpu are counted beside those of host, which lists dies of its own")
    assert found({"component": [cpu, own]}).embodied_parts["host.die"] > 0 < parts["cpu.die"]  # both, as the file says
    assert whole_servers({"component": [{"device": "h100"}, own]}) == []  # an accelerator is no processor of the host
    spec = tmp_path / "cpu.toml"
    spec.write_text('[device]\ndevice = "server-cpu"\n', encoding="utf-8")
    assert main(["carbon", "estimate", str(spec), "--draws", "100"]) == 0
    assert "assumed: server-cpu: device server-cpu is a whole server" in capsys.readouterr().out


def test_a_system_of_none_leaves_the_part_out() -> None:
    parts = found({"device": {"device": "h100", "system": "none"}}).embodied_parts
    assert parts == {name: kg for name, kg in found({"device": {"device": "h100"}}).embodied_parts.items() if name != "system"}
    with pytest.raises(CarbonError, match="card, server, none"):
        found({"device": {"device": "h100", "system": ""}})


@pytest.mark.parametrize("text", ["SWE", "sweden", "US-CA", "Swed"])
def test_a_place_is_no_factor_and_its_table_is_named(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["carbon", "explain", "--match", text]) == 1
    word = capsys.readouterr().err.split("dse carbon grids --code '")[1].split("'")[0]
    assert main(["carbon", "grids", "--code", word]) == 0
    assert main(["carbon", "explain", "--match", "wafr"]) == 1
    assert "nearest known" in capsys.readouterr().err


def test_grids_are_explained_with_the_range_that_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "board.toml"
    text = '[device]\ndevice = "h100"\n[use]\ngrid = "SWE"\npower_w = 500\nlifetime_years = 4\n'

    def explained(more: str) -> dict[str, Any]:
        spec.write_text(text + more, encoding="utf-8")
        assert main(["carbon", "explain", str(spec), "--match", "grid", "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    shown = explained("")
    use, fab = shown["use.grid"], shown["fab.grid.act2022:taiwan"]
    assert (use["low"], use["high"]) == (pytest.approx(0.85 * use["value"]), pytest.approx(1.15 * use["value"]))
    assert "15 %" in use["drawn"]
    assert "ecologits:SWE" in use["drawn"]
    assert (fab["low"], fab["high"]) == (pytest.approx(300, rel=2e-3), pytest.approx(820, rel=2e-3))
    own = explained('[ranges]\n"use.grid" = [10, 40, 90]\n')["use.grid"]
    assert (own["low"], own["high"], own["drawn"]) == (10, 90, "the specification gives this range")
    assert "not drawn" in explained("[uncertainty]\nfactors = false\n")["use.grid"]["drawn"]
    assert main(["carbon", "explain", str(spec)]) == 0
    assert "range:   not drawn" in capsys.readouterr().out


def test_a_missing_energy_names_power_too() -> None:
    with pytest.raises(CarbonError, match=r"energy_j_per_request is missing.*power_w"):
        found({"device": {"device": "h100"}, "use": {"grid": "france", "lifetime_years": 4}})


def test_explain_takes_the_place_of_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "carbon", str(tmp_path / "server.toml")]) == 0
    capsys.readouterr()
    words = ["carbon", "explain", str(tmp_path / "server.toml"), "--match", "use.grid", "--json"]
    assert main([*words, "--grid", "france"]) == 0
    told = json.loads(capsys.readouterr().out)["use.grid"]
    assert main(["carbon", "grids", "--code", "france", "--json"]) == 0
    assert told["value"] == json.loads(capsys.readouterr().out)[0]["value"]
    assert main(["carbon", "grids", "--code", "france"]) == 0
    assert told["source"] in capsys.readouterr().out  # the table names the source
    assert main(["carbon", "explain", "--grid", "france"]) == 2
    assert "grid is given without a specification" in capsys.readouterr().err
