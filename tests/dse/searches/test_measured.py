"""Searches with a measured quality, through the same door as all others."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from dse import api
from dse.errors import DseError, UsageError
from dse.evaluation.evaluation import Evaluation
from dse.searches.plan import MeasuredSettings
from dse.storage.study import Study
from dse.storage.trial import Trial
from dse.storage.trials import TrialStore

SMALL = {"cores": 2, "depth": 16, "l2_words_per_cycle": 64, "glb_mib": 4}


def _problem():
    return api.make_problem("bert", "carbon", fixed=SMALL)


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with an evaluator that writes down every call."""
    (tmp_path / "my_quality.py").write_text(
        "from pathlib import Path\n"
        f"LOG = Path({str(tmp_path / 'calls.txt')!r})\n"
        "def measure(parameters, fidelity, seed):\n"
        "    with LOG.open('a') as file:\n"
        "        file.write(f\"{parameters['layers']} {parameters['hidden']}\\n\")\n"
        "    return {'quality': (60.0 + parameters['layers'] + parameters['hidden'] / 64, 0.1)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_quality", None)
    return tmp_path / "calls.txt"


def test_nested_spends_the_budget_and_reports_measured_quality(tmp_path: Path, counted: Path) -> None:
    settings = MeasuredSettings(quality="python:my_quality:measure", strategy="nested", budget=9, stop_early=False)
    run = api.search(_problem(), out=tmp_path / "run", measured=settings, seed=3)
    calls = counted.read_text().splitlines()
    assert len(calls) == 9
    assert len(set(calls)) == 9  # no model is measured twice
    for design in run.designs:
        knobs = design["knobs"]
        assert design["metrics"]["quality"] == 60.0 + knobs["layers"] + knobs["hidden"] / 64
        assert design["quality_support"] == "measured"
    assert run.context["strategy"]["name"] == "nested"
    html = (run.path / "report.html").read_text()
    assert "Quality measured by python:my_quality:measure" in html
    assert '"measured":true' in html.replace(" ", "")


def test_resume_measures_nothing_again(tmp_path: Path, counted: Path) -> None:
    settings = MeasuredSettings(quality="python:my_quality:measure", strategy="random", budget=6, stop_early=False)
    run = api.search(_problem(), out=tmp_path / "run", measured=settings)
    before = (run.path / "pareto.csv").read_bytes()
    again = api.resume(run.path)
    assert len(counted.read_text().splitlines()) == 6
    assert again.designs == run.designs
    assert (run.path / "pareto.csv").read_bytes() == before


def test_a_failing_evaluator_is_one_sentence_and_frees_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_quality.py").write_text("def measure(parameters, fidelity, seed):\n    raise RuntimeError('no GPU')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = MeasuredSettings(quality="python:broken_quality:measure", strategy="random", budget=3, retries=0)
    with pytest.raises(DseError, match="no GPU"):
        api.search(_problem(), out=tmp_path / "run", measured=settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"budget": 0}, "budget is 0"), ({"workers": 0}, "workers is 0"), ({"confirm": -1}, "confirm is -1")],
)
def test_settings_are_checked(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        MeasuredSettings(**options)


@pytest.mark.parametrize(("quality", "words"), [("tabel:x.csv", "table"), ("python:nowhere_at_all:f", "nowhere_at_all")])
def test_unknown_evaluators_are_told_before_anything_is_written(tmp_path: Path, quality: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        api.search(_problem(), out=tmp_path / "run", measured=MeasuredSettings(quality=quality))
    assert not (tmp_path / "run").exists()


def test_settings_survive_json() -> None:
    settings = MeasuredSettings(quality="surrogate", warm_start=("a", "b"), budget=7)
    assert MeasuredSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_space_that_was_measured_whole_did_not_stop_early(tmp_path: Path, counted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that would stop the search at its last model has nothing left to stop."""
    fixed = {**SMALL, "layers": 4}
    problem = api.make_problem("bert", "carbon", fixed=fixed, allow_unsupported=True, keep_quality=True)
    models = Evaluation(problem, threads=1, mapped=False).space.model_count

    class AtTheLast:
        def reason(self, _: object, trials: list[Trial]) -> str | None:
            return "nothing more is expected" if sum(trial.done for trial in trials) >= models else None

    monkeypatch.setattr("dse.searches.measured.Stalled", AtTheLast)
    settings = MeasuredSettings(quality="python:my_quality:measure", strategy="random", budget=50)
    run = api.search(problem, out=tmp_path / "run", measured=settings, threads=1)
    assert run.context["strategy"]["trials"] == models < 50
    assert not run.context["strategy"]["early"] and run.context["strategy"]["stopped"] == f"all {models} models were measured"
    assert not any("stopped" in line for line in run.recommend().warnings)


def test_counts_of_a_report_are_those_of_the_measured_models(tmp_path: Path) -> None:
    """Every measured model met all hardware, and what breaks a bound there is no feasible design."""
    problem = api.make_problem("bert", "carbon", fixed={"depth": 16, "l2_words_per_cycle": 64})
    run = api.search(problem, out=tmp_path / "run", measured=MeasuredSettings(quality="surrogate", strategy="random", budget=5), threads=1)
    evaluation = Evaluation(problem, threads=1)
    measured = {tuple(trial.parameters.values()) for trial in _trials(tmp_path / "run")}
    feasible = points = 0
    for model in range(evaluation.space.model_count):
        if tuple(int(column[model]) for column in evaluation.space.models.values()) not in measured:
            continue
        block = evaluation.block(model, model + 1)
        keep = np.array(np.broadcast_to(block.mappable() & block.makeable(), block.shape))
        for c in problem.constraints:
            keep &= np.broadcast_to(block.metric(c.metric) <= c.bound, block.shape)
        points, feasible = points + keep.size, feasible + int(keep.sum())
    assert (run.summary.points, run.summary.feasible) == (points, feasible)
    assert 0 < feasible < points
    assert set(run.summary.reasons) >= {str(c) for c in problem.constraints}
    every = evaluation.space.model_count * evaluation.space.hardware_count
    assert f"evaluated {points:,} of {every:,} designs" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def _trials(folder: Path) -> list[Trial]:
    with Study.open(folder / "study.db") as study:
        return TrialStore.of_study(study).trials()


def test_a_quality_that_is_measured_gets_no_advice_that_does_not_help(tmp_path: Path) -> None:
    problem = api.make_problem("bert", "carbon", hw="datacenter", allow_unsupported=True)
    with pytest.raises(DseError, match=r"fix some knobs with --set$"):
        api.search(problem, out=tmp_path / "run", measured=MeasuredSettings(quality="command:measure"))


def test_a_table_is_read_whole_where_the_budget_has_room() -> None:
    """Its figures are there and cost nothing; what has to be measured stops where it has stalled, unless all of the budget is asked for."""
    assert [MeasuredSettings(quality=word).stops_early for word in ("table:acc.csv", "measured:minilm")] == [False, True]
    assert not MeasuredSettings(quality="measured:minilm", stop_early=False).stops_early
