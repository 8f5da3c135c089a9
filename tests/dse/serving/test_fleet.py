"""Fleets for a log of requests: exact on their grid, against a plain enumeration, and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dse.cli import main
from dse.errors import DseError, UsageError
from dse.serving import fleet
from dse.serving.fleet_place import Place, at_least, with_grid, with_settings
from dse.serving.requests import read_requests
from dse.serving.simulation import BLOCK_TOKENS, Setup, run

KNOBS = {"tp": (1, 2), "replicas": (1, 2, 4), "max_sequences": (8, 64), "weight_bits": (8,)}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    lines = ["arrival_s,prompt_tokens,output_tokens"]
    for t in np.cumsum(rng.exponential(0.05, 300)):
        lines.append(f"{t:.4f},{rng.integers(100, 2000)},{rng.integers(10, 200)}")
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_front_is_what_an_enumeration_gives(log: Path) -> None:
    requests = read_requests(log)
    place = Place(400.0)
    objectives = [("goodput_per_s", True), ("gco2e_per_request", False)]
    bounds = [("goodput_share", ">=", 0.5)]
    found = fleet.search(
        requests, "llama3-8b", ["h100", "l40s"], place, objectives=objectives, knobs=KNOBS, ttft_s=0.5, tpot_s=0.05, bounds=bounds
    )
    rows = []
    for setup in fleet.setups("llama3-8b", ["h100", "l40s"], KNOBS):
        rows.append((setup, fleet.figures(run(setup, requests.requests(BLOCK_TOKENS)), place, 0.5, 0.05)))
    kept = [(s, f) for s, f in rows if f["goodput_share"] >= 0.5]
    best = {
        (s.hw, s.parallel.tp, s.max_sequences, s.replicas)
        for s, f in kept
        if not any(
            g["goodput_per_s"] >= f["goodput_per_s"]
            and g["gco2e_per_request"] <= f["gco2e_per_request"]
            and (g["goodput_per_s"], g["gco2e_per_request"]) != (f["goodput_per_s"], f["gco2e_per_request"])
            for _, g in kept
        )
    }
    assert {(r["hw"], r["tp"], r["max_sequences"], r["replicas"]) for r in found["front"]} == best
    assert found["fleets"] == len(rows) == 24 and found["saved"] >= 0
    assert found["least_grams"]["gco2e_per_request"] <= found["rule_of_thumb"]["gco2e_per_request"]


def test_command(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "--workload", str(log), "--model", "llama3-8b", "--hw", "h100", "--json", "--vary", "tp=1", "--vary", "replicas=1,2"]
    words += ["--objective", "max:goodput_per_s", "--objective", "min:gco2e_per_request", "--constraint", "ttft_ms<=1000"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["front"] and all(row["goodput_share"] >= 0.95 for row in answer["front"])
    for wrong, message in (
        (["--objective", "min:gcoe"], "unknown"),
        (["--constraint", "ttft_ms"], "must be METRIC<=VALUE"),
        (["--vary", "tp=x"], "must be NAME=V,V"),
        (["--vary", "tq=1"], "did you mean 'tp'"),
    ):
        assert main([*words, *wrong]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["search", "--workload", str(log), "--hw", "h100"]) == 2
    assert "model is missing" in capsys.readouterr().err


# ---- hours, regions, failures ----


def test_spares_cover_headroom_and_failures() -> None:
    place = Place(400.0, headroom=0.25, mtbf_hours=1000.0, repair_hours=50.0, service_level=0.99)
    up = (1000 / 1050) ** 2
    assert place.availability(2) == pytest.approx(up)
    for replicas in (1, 4, 9):
        spare = place.spares(replicas, 2)
        assert spare >= np.ceil(0.25 * replicas)
        assert at_least(replicas + spare, replicas, up) >= 0.99
        if spare > np.ceil(0.25 * replicas):  # one fewer would not do
            assert at_least(replicas + spare - 1, replicas, up) < 0.99
    # P(at least 2 of 3), by listing.
    assert at_least(3, 2, 0.9) == pytest.approx(3 * 0.9**2 * 0.1 + 0.9**3)
    assert Place(400.0, headroom=0.0, service_level=0.0).spares(5, 8) == 0
    with pytest.raises(DseError, match="service level"):
        Place(400.0, mtbf_hours=1.0, repair_hours=1e5).spares(2, 8)


def test_energy_is_charged_at_its_hours_grid(tmp_path: Path) -> None:
    lines = ["arrival_s,prompt_tokens,output_tokens"]
    lines += [f"{t},500,50" for t in range(0, 3600, 60)] + [f"{t},500,50" for t in range(7200, 10800, 30)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    log = read_requests(tmp_path / "log.csv")
    served = run(Setup("llama3-8b", "h100"), log.requests(BLOCK_TOKENS))
    flat, day = Place(300.0), Place(300.0, hourly=tuple(float(100 + 10 * h) for h in range(24)), start_hour=22)
    hours = fleet.by_hour(served, day)
    assert [h["requests"] for h in hours[:3]] == [60.0, 0.0, 120.0]
    assert [h["gco2e_per_kwh"] for h in hours[:3]] == [320.0, 330.0, 100.0]
    chips = served.setup.chips + day.spares(1, 1)
    spare_idle = day.spares(1, 1) * fleet.sheet("h100").idle_w * served.makespan_s
    assert sum(h["energy_j"] for h in hours) == pytest.approx(served.energy_j.sum() + spare_idle)
    embodied = 1e3 * fleet.sheet("h100").embodied_kgco2e * chips * served.makespan_s / (5 * 365.25 * 86400)
    assert sum(h["embodied_gco2e"] for h in hours) == pytest.approx(embodied)
    assert hours[2]["embodied_gco2e"] / hours[0]["embodied_gco2e"] == pytest.approx(hours[2]["energy_j"] / hours[0]["energy_j"])
    for h in hours:
        assert h["operational_gco2e"] == pytest.approx(h["energy_j"] / 3.6e6 * 1.2 * h["gco2e_per_kwh"])
    # One intensity all the time is the plain product.
    figures = fleet.figures(served, flat, 1.0, 1.0)
    assert figures["gco2e_per_request"] * 180 == pytest.approx(figures["energy_j_per_request"] * 180 / 3.6e6 * 1.2 * 300 + embodied)
    with pytest.raises(DseError, match="hour"):
        fleet.by_hour(served, Place(300.0, hourly=(1.0, 2.0)))


def test_a_busy_hour_needs_more_replicas(tmp_path: Path) -> None:
    lines = ["arrival_s,prompt_tokens,output_tokens"]
    lines += [f"{i * 36:.1f},1500,100" for i in range(100)] + [f"{3600 + i * 0.02:.2f},1500,100" for i in range(600)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    setup = Setup("llama3-8b", "h100", max_sequences=64)
    needed = fleet.needed_by_hour(read_requests(tmp_path / "log.csv"), setup, Place(400.0), ttft_s=0.5, tpot_s=0.05, share=0.95, most=4)
    assert needed[0]["needed"] == 1 and needed[0]["with_spares"] == 2
    assert needed[1]["needed"] is None or needed[1]["needed"] > 1


def test_regions_and_hours_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(3)
    lines = ["arrival_s,prompt_tokens,output_tokens,region"]
    lines += [
        f"{t:.2f},{rng.integers(100, 900)},{rng.integers(10, 90)},{rng.choice(['north', 'south'])}" for t in np.sort(rng.random(80) * 5000)
    ]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(lines) + "\n")
    hourly = [
        "Datetime (UTC),Country,Zone Name,Zone Id,"
        "Carbon Intensity gCO₂eq/kWh (direct),Carbon Intensity gCO₂eq/kWh (LCA),Low Carbon Percentage"
    ]
    hourly += [f"2024-01-01 {h:02}:00:00,X,X,X,{50 + h},{60 + h},50" for h in range(24)]
    (tmp_path / "grid.csv").write_text("\n".join(hourly) + "\n")
    words = ["search", "--workload", str(log), "--model", "llama3-8b", "--hw", "h100", "--vary", "tp=1", "--vary", "replicas=1"]
    words += ["--vary", "max_sequences=16", "--vary", "weight_bits=8", "--set", "start_hour=3", "--set", "headroom=0"]
    assert main([*words, "--grid", f"north=france,south={tmp_path / 'grid.csv'}", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    south, north = answer["regions"]["south"], answer["regions"]["north"]
    assert [h["gco2e_per_kwh"] for h in south["hours"]] == [63.0, 64.0]
    assert len({h["gco2e_per_kwh"] for h in north["hours"]}) == 1
    assert sum(answer["requests"].values()) == 80
    assert main([*words, "--grid", "north=france,south=poland"]) == 0
    assert "hour 4" in capsys.readouterr().out
    for grid, told in (("north=france", "region of the log"), ("france", "REGION=GRID"), ("north=,south=x", "REGION=GRID")):
        assert main([*words, "--grid", grid]) != 0
        assert told in capsys.readouterr().err
    assert main([*words, "--grid", "north=france,south=poland", "--set", "spares=1"]) == 2
    assert "headroom" in capsys.readouterr().err


def test_place_is_checked() -> None:
    with pytest.raises(UsageError, match="service_level"):
        Place(400.0, service_level=1.0)
    with pytest.raises(UsageError, match="start_hour"):
        with_settings(Place(400.0), {"start_hour": 1.5})
    with pytest.raises(UsageError, match="must be a number"):
        with_settings(Place(400.0), {"headroom": "much"})
    assert with_grid(Place(0.0), "france").gco2e_per_kwh < with_grid(Place(0.0), "poland").gco2e_per_kwh
