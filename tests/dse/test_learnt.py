"""Searches with a measured quality, through the same door as all others."""

import json
import sys
from pathlib import Path

import pytest

from dse import api
from dse.errors import DseError, UsageError
from dse.learnt import LearntSettings

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
    settings = LearntSettings(quality="python:my_quality:measure", strategy="nested", budget=9, stop_early=False)
    run = api.search(_problem(), out=tmp_path / "run", learnt=settings, seed=3)
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
    settings = LearntSettings(quality="python:my_quality:measure", strategy="random", budget=6, stop_early=False)
    run = api.search(_problem(), out=tmp_path / "run", learnt=settings)
    before = (run.path / "pareto.csv").read_bytes()
    again = api.resume(run.path)
    assert len(counted.read_text().splitlines()) == 6
    assert again.designs == run.designs
    assert (run.path / "pareto.csv").read_bytes() == before


def test_a_failing_evaluator_is_one_sentence_and_its_trials_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_quality.py").write_text("def measure(parameters, fidelity, seed):\n    raise RuntimeError('no GPU')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = LearntSettings(quality="python:broken_quality:measure", strategy="random", budget=3, retries=0)
    with pytest.raises(DseError):
        api.search(_problem(), out=tmp_path / "run", learnt=settings)
    assert (tmp_path / "run" / "study.db").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"budget": 0}, "budget is 0"), ({"workers": 0}, "workers is 0"), ({"confirm": -1}, "confirm is -1")],
)
def test_settings_are_checked(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        LearntSettings(**options)


@pytest.mark.parametrize(("quality", "words"), [("tabel:x.csv", "table"), ("python:nowhere_at_all:f", "nowhere_at_all")])
def test_unknown_evaluators_are_told_before_anything_is_written(tmp_path: Path, quality: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        api.search(_problem(), out=tmp_path / "run", learnt=LearntSettings(quality=quality))
    assert not (tmp_path / "run").exists()


def test_settings_survive_json() -> None:
    settings = LearntSettings(quality="surrogate", warm_start=("a", "b"), budget=7)
    assert LearntSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
