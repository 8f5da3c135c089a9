"""A design's file alone gives the numbers of its search: the deployment, the criterion and a measured quality are in it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from dse import api
from dse.cli import main
from dse.errors import UsageError
from dse.run import Run

ELSEWHERE: Any = {"grid": "france", "lifetime_years": 5.0, "rate_per_s": 3.0, "pue": 1.2, "fab_grid": "usa", "electricity_usd_per_kwh": 0.2}


def _measured(layers: int, hidden: int) -> float:
    return 60.0 + layers + hidden / 64


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return api.search("bert", quality=_measured, strategy="random", budget=3, fixed={"cores": 1, "width": 64}, criterion="energy",
                      out=tmp_path_factory.mktemp("alone") / "run", **ELSEWHERE)  # fmt: skip


def _file(study: Run) -> Path:
    return study.path / study.recommend().toml


def test_the_file_gives_every_metric_again(study: Run) -> None:
    best, answer = study.best(), api.evaluate("bert", hw=_file(study))
    names = study.entry(best["design"])["metrics"]  # type: ignore[index]
    assert {name: answer[name] for name in names} == {name: best[name] for name in names}
    assert answer["quality_support"] == "measured" and answer["quality_label"] == f"of the file {_file(study).name}"
    assert answer["deployment_from"]["given"] == [] and answer["deployment"] == study.problem.deployment.to_dict()


def test_what_the_caller_says_wins(study: Run) -> None:
    answer = api.evaluate("bert", hw=_file(study), grid="india")
    assert answer["deployment"] == {**study.problem.deployment.to_dict(), "grid": "india"}
    assert answer["deployment_from"]["given"] == ["grid"]
    assert api.evaluate("bert", hw=_file(study), criterion="latency")["criterion"] == "latency"


def test_the_header_tells_whose_deployment(study: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(study.recommend().again)
    assert words == ["dse", "evaluate", "--workload", "bert", "--hw", str(_file(study))]
    assert main(words[1:]) == 0
    assert "deployment of its search: 3 requests/s for 5 years, grid france, fab grid usa, PUE 1.2" in capsys.readouterr().out
    assert main([*words[1:], "--grid", "india", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deployment"]["grid"] == "india"
    assert main([*words[1:], "--grid", "india"]) == 0
    assert "deployment of its search but for grid: " in capsys.readouterr().out


def test_the_recommendation_tells_file_and_command(study: Run) -> None:
    found = study.recommend()
    assert found.file == str(_file(study)) and found.file in str(found) and found.again in str(found)
    assert found.file in found._repr_html_()
    assert found.to_dict()["file"] == found.file and found.to_dict()["again"] == found.again


def test_a_file_of_an_earlier_version_says_that_its_numbers_are_others(study: Run, tmp_path: Path) -> None:
    text = _file(study).read_text(encoding="utf-8")
    old = tmp_path / "design-0001.toml"
    old.write_text(re.sub(r"\[design\.deployment\].*?\n\n", "", text, flags=re.S), encoding="utf-8")
    told = [line for line in api.evaluate("bert", hw=old)["cautions"] if "keeps no deployment" in line]
    assert len(told) == 1 and f"{study.best()['total_kgco2e']:.6g} kgCO2e" in told[0]
    assert not [line for line in api.evaluate("bert", hw=_file(study))["cautions"] if "keeps no deployment" in line]
    assert not [line for line in api.evaluate("bert", hw=old, **ELSEWHERE)["cautions"] if "keeps no deployment" in line]


@pytest.mark.parametrize(("old", "new", "told"), [
    ("rate_per_s = 3.0", 'rate_per_s = "3"', "design.deployment.rate_per_s of design.toml is '3'; a number is needed"),
    ('grid = "france"', "grid = 52", "design.deployment.grid of design.toml is 52; a text is needed"),
])  # fmt: skip
def test_a_deployment_of_the_wrong_kind_is_named(study: Run, tmp_path: Path, old: str, new: str, told: str) -> None:
    path = tmp_path / "design.toml"
    text = _file(study).read_text(encoding="utf-8")
    assert f"\n{old}\n" in text
    path.write_text(text.replace(f"\n{old}\n", f"\n{new}\n"), encoding="utf-8")
    with pytest.raises(UsageError, match=re.escape(told)):
        api.evaluate("bert", hw=path)


def test_the_file_names_its_workload_and_what_it_was_costed_with(study: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "design.toml"
    file.write_text(_file(study).read_text(encoding="utf-8").replace('workload = "bert"', 'workload = "bert-base"'), encoding="utf-8")
    answer = api.evaluate(hw=file)
    assert answer["workload"] == "bert-base" and answer["total_kgco2e"] == study.best()["total_kgco2e"]
    assert answer["hardware_profile"] == "default"
    with pytest.raises(UsageError, match="workload is missing"):
        api.evaluate(hw="edge22")
    careful = "careful: embodied carbon by act2; devices of the library use default: name --carbon-profile to compare."
    shown = []
    for words in (["--hw", "edge22"], ["--hw", "edge22", "--carbon-profile", "act2"], ["--hw", "jetson-orin"], ["--hw", str(_file(study))]):
        assert main(["evaluate", "--workload", "bert", *words]) == 0
        shown.append(careful in " ".join(capsys.readouterr().out.split()))
    assert shown == [True, False, False, False]


def test_bounds_of_the_best_are_taken_as_a_list(study: Run) -> None:
    bounds = [f"total_kgco2e<={study.best()['total_kgco2e']!r}", "latency_s<=10"]
    assert study.best("quality", bounds) == study.best("quality", *bounds)
