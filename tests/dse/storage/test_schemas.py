"""Studies of every schema so far: newer code opens them, finishes them to the same bytes, or refuses them in one sentence."""

import csv
import shutil
import sqlite3
from pathlib import Path

import pytest

import dse
from dse import cli
from dse.errors import DseError

RUNS = Path(__file__).parents[2] / "reference" / "runs"
SCHEMAS = sorted(p.name for p in RUNS.iterdir() if p.is_dir())


@pytest.fixture
def runs(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    shutil.copytree(RUNS / request.param, tmp_path / "runs")
    return tmp_path / "runs"


def _objectives(path: Path, names: list[str]) -> list[tuple[str, ...]]:
    with path.open(encoding="utf-8") as file:
        return [tuple(row[name] for name in names) for row in csv.DictReader(file)]


@pytest.mark.parametrize("runs", SCHEMAS, indirect=True)
@pytest.mark.parametrize("name", ["finished", "measured"])
def test_a_finished_run_opens_with_what_it_found(runs: Path, name: str) -> None:
    run = dse.load(runs / name)
    names = [objective.metric for objective in run.problem.objectives]
    kept = [tuple(repr(design["metrics"][metric]) for metric in names) for design in run.designs]
    assert kept == _objectives(runs / name / "pareto.csv", names)


@pytest.mark.parametrize("runs", SCHEMAS, indirect=True)
def test_an_interrupted_run_is_finished_or_refused_in_a_sentence(runs: Path) -> None:
    """Only the version that began a study may finish it: a refusal names that version."""
    begun = dse.load(runs / "finished").provenance["version"]
    if begun != dse.__version__:
        with pytest.raises(DseError, match=f"was made by dse {begun} and this is {dse.__version__}"):
            dse.resume(runs / "interrupted")
        return
    run = dse.resume(runs / "interrupted")
    names = ["quality", "total_kgco2e"]
    assert [o.metric for o in run.problem.objectives] == names
    assert _objectives(runs / "interrupted" / "pareto.csv", names) == _objectives(runs / "finished" / "pareto.csv", names)


def test_a_schema_from_the_future_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(RUNS / SCHEMAS[-1] / "finished", tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "study.db") as base:
        base.execute("update meta set value = '99' where key = 'schema_version'")
    base.close()
    for command in (["report", str(tmp_path / "run")], ["resume", str(tmp_path / "run")]):
        assert cli.main(command) == 1
        told = capsys.readouterr().err
        assert "schema version 99" in told.replace("'", "")
        assert told.count("\n") == 1
