"""A fleet's replica as a device: what the engine says of clocks and batches, and the command on a run over a log."""

import csv
import json
from pathlib import Path

import pytest

from dse import api, served
from dse.cli import main
from dse.operate.serving_device import of_fleet
from dse.run import Run


def fleet_of(folder: Path, prompt: int, output: int) -> Run:
    log = folder / "log.csv"
    with log.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["arrival_s", "prompt_tokens", "output_tokens"])
        writer.writerows([f"{0.1 * i:.1f}", prompt, output] for i in range(40))
    knobs = {"tp": (1,), "replicas": (1, 2), "max_sequences": (8,), "weight_bits": (16,)}
    asked = [("goodput_per_s", True), ("gco2e_per_request", False)]
    return api.search_served(served.fleet_problem(str(log), "llama3-8b", ["h100"], objectives=asked, knobs=knobs), out=folder / "run")


def test_clock_slows_prompts_and_hardly_decoding(tmp_path: Path) -> None:
    rates = {}
    for name, prompt, output in (("prompts", 4000, 2), ("decoding", 32, 400)):
        folder = tmp_path / name
        folder.mkdir()
        device = of_fleet(fleet_of(folder, prompt, output), 1, clocks=(0.5, 0.75), batches=(8,))
        low, middle, full = sorted(device.points, key=lambda point: point.clock)
        assert low.requests_per_h < middle.requests_per_h < full.requests_per_h
        assert low.busy_kw < middle.busy_kw < full.busy_kw
        assert low.latency_s > middle.latency_s > full.latency_s
        assert low.supply < middle.supply < full.supply == 1.0
        assert device.idle_kw < low.busy_kw and device.sleep_kw == pytest.approx(0.2 * device.idle_kw)
        rates[name] = low.requests_per_h / full.requests_per_h
    # Prompts are bound by the tensor cores, whose rate halves; decoding by the memory, whose rate stays.
    assert 0.5 <= rates["prompts"] < 0.6
    assert 0.95 < rates["decoding"] < 1.0


def test_larger_batches_serve_more_for_less_and_limits_hold(tmp_path: Path) -> None:
    run = fleet_of(tmp_path, 200, 50)
    device = of_fleet(run, 1, clocks=(1.0,), batches=(2, 8, 32))
    small, middle, large = device.points
    assert small.requests_per_h < middle.requests_per_h < large.requests_per_h
    energy = [point.busy_kw / point.requests_per_h for point in device.points]
    assert energy == sorted(energy, reverse=True)
    kept = of_fleet(run, 1, batches=(2, 8, 32), latency_limit_s=middle.latency_s)
    assert {point.batch for point in kept.points} == {2, 8}
    for options, said in (
        ({"latency_limit_s": 1e-6}, "no operating point"),
        ({"clocks": (0.01,)}, "clock is 0.01, must be from 0.1"),
        ({"batches": (0,)}, "batch is 0, must be at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            of_fleet(run, 1, **options)
    with pytest.raises(ValueError, match="design is 9, must be from 1 to"):
        of_fleet(run, 9)


def test_command_operates_a_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fleet_of(tmp_path, 200, 50)
    assert main(["operate", str(run.path), "--site", "CISO", "--weeks", "1", "--policy", "mpc", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    grams = {row["name"]: row["grams"] for row in told["ladder"]}
    assert grams["optimum"] <= grams["mpc"] <= grams["now"] < grams["sleep"] < grams["always-on"]
    assert any("engine model" in note for note in told["device_notes"])
