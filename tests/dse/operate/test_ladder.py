"""The ladder on measured weeks that nothing was fitted on, and the command that prints it."""

import json
from pathlib import Path

import pytest

import dse
from dse.cli import main
from dse.operate import device, ladder, scenario

GRIDS = ("CISO", "ERCO", "BPAT", "NYIS")


@pytest.fixture(scope="module")
def ladders() -> dict[str, ladder.Ladder]:
    return {name: ladder.build(scenario.Scenario(device.example(), (name,)).prepared()) for name in GRIDS}


def test_no_deadline_is_missed_and_nothing_beats_foresight(ladders: dict[str, ladder.Ladder]) -> None:
    for found in ladders.values():
        assert found.promised and found.weeks == 13
        best = found.row("optimum").grams
        for row in found.rows:
            assert row.missed == 0.0 and row.grams >= best * (1 - 1e-9)
        # sleep and clocks need no forecast: each step saves on the one before
        steps = [found.row(name).grams for name in ("always-on", "best-clock", "now", "optimum")]
        assert steps == sorted(steps, reverse=True)
        assert found.row("sleep").grams < found.row("always-on").grams
        assert found.row("now").share == 0.0 and found.row("optimum").share == 1.0


def test_shares_of_planning(ladders: dict[str, ladder.Ladder]) -> None:
    for name, found in ladders.items():
        assert found.row("mpc-true").share >= 0.93, name
        assert found.row("mpc").share >= (0.9 if name == "CISO" else 0.55), name
        assert found.row("mpc").share > found.row("timetable").share, name


def test_a_longer_wait_never_saves_less() -> None:
    saved = []
    for deadline in (3, 6, 24):
        flexible = scenario.Flexible.of({deadline: 0.3})
        prepared = scenario.Scenario(device.example(), ("ERCO",), flexible=flexible).prepared()
        saved.append(ladder.build(prepared, most=3, steps=[]).saving)
    assert saved == sorted(saved) and saved[0] > 0


def test_sites_share_what_may_wait() -> None:
    prepared = scenario.Scenario(device.example(), ("CISO", "ERCO")).prepared()
    found = ladder.build(prepared, most=3, steps=["mpc", "mpc-true"])
    assert found.row("optimum").grams < found.row("mpc-true").grams < found.row("mpc").grams < found.row("now").grams
    assert found.row("mpc-true").share > 0.93
    assert found.outcomes["mpc"].missed.max() == 0.0


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    dse.search("bert", "hardware", hw="h100", fixed={"layers": 2, "hidden": 128, "ffn": 512, "heads": 2}, out=folder)
    assert main(["operate", folder, "--design", "1", "--site", "CISO", "--policy", "rule", "--weeks", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    names = [row["name"] for row in told["ladder"]]
    assert names == [step.name for step in ladder.STEPS] and told["policy"] == "rule" and told["weeks"] == 2
    assert told["missed_requests"] == 0 and len(told["timeline"]["hour"]) == 168
    site = told["timeline"]["sites"][0]
    assert sum(site["grams"]) == pytest.approx(sum(k * g for k, g in zip(site["kwh"], site["gco2e_per_kwh"], strict=True)))
    assert main(["operate", "design", folder, "--site", "france", "--weeks", "1", "--policy", "optimum"]) == 0
    text = capsys.readouterr().out
    assert "not measured" in text and all(step.name in text for step in ladder.STEPS)
    words = ["--policy", "dqn", "--weeks", "1", "--chips", "66", "--temperature"]
    assert main(["operate", folder, *words, "25:80:0.9:3", "--json"]) == 0
    limited = json.loads(capsys.readouterr().out)
    assert limited["temperature"]["sustained_kw"] == pytest.approx(55 / 0.9) and limited["missed_requests"] == 0
    assert max(limited["timeline"]["sites"][0]["temperature_c"]) <= 80 + 1e-9
    assert main(["operate", folder, *words, "25:26:0.9:3"]) == 2
    assert "kW to run the declared load as it comes" in capsys.readouterr().err
    assert main(["operate", "compare", folder, "--site", "CISO,NYIS", "--weeks", "1", "--json"]) == 0
    assert [one["sites"][0]["site"] for one in json.loads(capsys.readouterr().out)] == ["CISO", "NYIS"]
    for words, said in (
        (["--policy", "mcp"], "policy 'mcp' is unknown"),
        (["--site", "CISX"], "nearest known"),
        (["--flexible", "24"], "flexible is '24'"),
        (["--flexible", "24:1.5"], "flexible share is 1.5"),
        (["--chips", "2"], "chips is 2, must be at least"),
        (["--period", "tests"], "period 'tests' is unknown"),
        (["--design", "77"], "design is 77"),
        (["--rate", "-1"], "rate is -1"),
        (["--pue", "0.5"], "pue is 0.5"),
    ):
        assert main(["operate", folder, *words]) == 2, words
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
