"""What newcomers looked for and did not find, each where they looked: one design's range, the model of a search, two runs, a budget."""

from pathlib import Path
from typing import Any

import pytest

import carbon
from carbon.analysis import estimate
from dse import api
from dse.cli import main
from dse.errors import UsageError
from dse.evaluation.careful import models_searched

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
    assert f"p5 {bands['embodied_kgco2e']['p5']:.4g}, p95 {bands['embodied_kgco2e']['p95']:.4g}" in line
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
