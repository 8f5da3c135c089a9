"""What newcomers looked for and did not find, each where they looked: one design's range, the model of a search, two runs, a budget."""

import json
from pathlib import Path
from typing import Any

import pytest

import carbon
import dse
from carbon.analysis import estimate
from dse import api
from dse.cli import main
from dse.errors import UsageError
from dse.evaluation.careful import models_searched
from dse.reports.console import show_run
from dse.run import load

SMALL: dict[str, Any] = {"cores": 1, "l2_words_per_cycle": 64, "glb_mib": 2, "l2_kib": 64}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("newcomers")
    fixed = {**SMALL, "hidden": 512}
    return [
        api.search("bert", quality="surrogate", strategy=strategy, budget=4, fixed=fixed, out=folder / strategy, whole_budget=True)
        for strategy in ("random", "nested")
    ]


def test_one_design_tells_the_range_of_its_carbon(capsys: pytest.CaptureFixture[str]) -> None:
    found = api.evaluate("bert-base", fixed=SMALL)
    bands = found["ranges"]["metrics"]
    for name in ("embodied_kgco2e", "operational_kgco2e", "total_kgco2e"):
        assert bands[name]["p5"] < found[name] < bands[name]["p95"]
    # Electricity without carbon has no range; what is left is the range of making the device.
    clean = api.evaluate("bert-base", fixed=SMALL, grid=0.0)["ranges"]["metrics"]
    assert clean["operational_kgco2e"] == {"p5": 0.0, "p50": 0.0, "p95": 0.0}
    assert clean["total_kgco2e"] == clean["embodied_kgco2e"] == bands["embodied_kgco2e"]
    assert main(["evaluate", "--workload", "bert-base", *(f"--set={name}={value}" for name, value in SMALL.items())]) == 0
    told = capsys.readouterr().out
    line = next(line for line in told.splitlines() if line.strip().startswith("embodied_kgco2e"))
    assert (
        ", ".join(f"{name} {bands['embodied_kgco2e'][key]:.4g}" for name, key in (("p5", "p5"), ("median", "p50"), ("p95", "p95"))) in line
    )
    assert "TOPS" in told and "1e12" not in told


def test_a_search_says_what_becomes_of_the_model() -> None:
    told = models_searched(api.make_problem("bert-base", "carbon"))
    assert "layers, hidden, ffn and heads are searched too" in told
    words = [word.split("=") for word in told.split("; ")[1].split() if "=" in word]
    kept = api.make_problem("bert-base", "carbon", fixed={name: int(value) for name, value in words})
    assert models_searched(kept) == "bert-base itself, the same in every design"  # what it advises does what it says
    assert models_searched(api.make_problem("bert-base", "hardware")) == models_searched(kept)
    assert models_searched(api.make_problem("resnet-50", "carbon")) == "resnet-50 itself, the same in every design"


def test_runs_compare_by_their_strategies(runs: list[Any]) -> None:
    found = runs[0].compare(runs[1])
    assert found.settings["strategy"] == ("random", "nested")
    assert "strategy: random | nested" in repr(found)
    assert max(found.first.hypervolume, found.second.hypervolume) <= 1.0
    assert runs[0].evaluate({"width": 64, "layers": 6, "heads": 8})["by_default"].keys() == {"ffn", "depth"}


def test_a_budget_is_spent_where_that_is_asked_for(runs: list[Any], tmp_path: Path) -> None:
    assert [len(run.trials()) for run in runs] == [4, 4]
    assert "4 of 4 trials of random" in repr(runs[0])
    with pytest.raises(UsageError, match="whole_budget is not used"):
        api.search("bert", fixed=SMALL, whole_budget=True, out=tmp_path / "sweep")


def test_a_space_file_is_a_space_in_python_too(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('name = "own"\n[parameters.layers]\nrole = "model"\nvalues = [4, 6]\n[parameters.width]\nvalues = [32, 64]\n')
    problem = api.make_problem("bert", "carbon", space=file, allow_unsupported=True)
    assert problem.space == "own" and problem.vary["width"] == (32, 64) and problem.space_toml == file.read_text()
    with pytest.raises(UsageError, match="vary width is in space own too"):
        api.make_problem("bert", "carbon", space=str(file), vary={"width": [32]})


def test_a_file_of_another_kind_is_told_as_what_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.toml"
    assert main(["init", "accelerator", str(file)]) == 0
    with pytest.raises(carbon.CarbonError, match=r"of an accelerator's file.*dse evaluate"):
        estimate.estimate(estimate.load(file))
    capsys.readouterr()
    assert main(["init", "carbon", str(tmp_path / "c.toml"), "--from", str(file)]) == 2
    assert "a carbon file names a device" in capsys.readouterr().err
    assert main(["init", "accelerator", str(tmp_path / "d.toml"), "--workload", "bert"]) == 2
    assert not (tmp_path / "c.toml").exists()


def test_a_design_of_ones_own_is_filled_with_what_the_search_would_have(runs: list[Any]) -> None:
    # bert's models have one ffn and one number of heads for each width: 4 x hidden, hidden / 64; layers vary and are the base model's.
    answer = runs[0].evaluate({"hidden": 576})
    assert {name: answer["design"][name] for name in ("layers", "hidden", "ffn", "heads")} == {
        "layers": 12, "hidden": 576, "ffn": 2304, "heads": 9,
    }  # fmt: skip
    assert {"ffn", "heads", "layers"} <= answer["by_default"].keys()
    with pytest.raises(dse.DseError, match="hidden of bert-base is 500, must be a multiple of heads = 12; nearest is hidden = 504"):
        runs[0].evaluate({"hidden": 500})
    with pytest.raises(UsageError, match=r"layers=2.5 is no whole number.*nearest is 2"):
        runs[0].evaluate({"layers": 2.5})


def test_a_bound_that_decides_nothing_is_called_slack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--workload", "bert", "--constraint", "latency_s<=0.1", "--constraint", "area_mm2<=500", "--out", str(tmp_path / "run")]
    assert main(["search", *words, "--json", *(f"--set={name}={value}" for name, value in SMALL.items())]) == 0
    bounds = {row["bound"]: row for row in json.loads(capsys.readouterr().out)["bounds"]}
    assert bounds["area_mm2<=500.0"]["slack"] and bounds["area_mm2<=500.0"]["broken_by"] == 0
    held = bounds["latency_s<=0.1"]
    assert not held["slack"] and held["broken_by"] > 0
    assert held["slack_share"] == pytest.approx(1 - held["value"] / 0.1) and held["slack_share"] > 0
    show_run(load(tmp_path / "run"), as_json=False)
    told = capsys.readouterr().out
    assert "area_mm2<=500.0" in next(line for line in told.splitlines() if line.strip().startswith("slack:"))
    assert f"latency_s<=0.1 (design {load(tmp_path / 'run').recommend().design}:" in told
