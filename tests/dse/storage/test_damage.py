"""Damaged run folders: a sentence or a result of every command, and readers change nothing (see tests/dse/damage.py)."""

import importlib.util
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dse
from dse.errors import DseError
from dse.quality.measured import Measured
from dse.storage.study import Study
from dse.storage.trial import Proposal
from dse.storage.trials import TrialStore

ROOT = Path(__file__).resolve().parents[3]
SMALL: dict[str, Any] = {"fixed": {"hidden": 512, "heads": 8, "cores": 1, "glb_mib": 2}, "threads": 1}


def _harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dse_damage", Path(__file__).parents[1] / "damage.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_runs_are_a_sentence(tmp_path: Path) -> None:
    assert _harness().campaign(5, 1, tmp_path) == []


@pytest.mark.slow
def test_hundreds_of_damaged_runs_are_a_sentence(tmp_path: Path) -> None:
    assert _harness().campaign(int(os.environ.get("DSE_DAMAGES", "400")), 2, tmp_path) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dse.search("bert", out=tmp_path_factory.mktemp("runs") / "run", **SMALL).path


def test_a_value_that_was_not_written_is_found(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    connection = sqlite3.connect(tmp_path / "run" / "study.db")
    connection.execute("UPDATE result SET value = replace(value, '\"design\": 1,', '\"design\": 7,')")
    connection.commit()
    connection.close()
    with pytest.raises(DseError, match="is damaged: what it holds is not what was written"):
        dse.load(tmp_path / "run")


@pytest.mark.parametrize(
    "words", [["report", "RUN", "--out", "OUT"], ["compare", "RUN", "RUN"], ["explain", "RUN", "--no-why", "--out", "OUT"]]
)
def test_readers_need_no_right_to_write(finished: Path, tmp_path: Path, words: list[str]) -> None:
    """Files that cannot be written in a folder that cannot be written: a user without rights where this is root."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    for path in (*run.rglob("*"), run):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        given = [{"RUN": str(run), "OUT": str(tmp_path / "out")}.get(word, word) for word in words]
        from dse.cli import main

        assert main(given) == 0
        assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    finally:
        for path in (run, *run.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IWUSR)


def _foreign(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE trials (trial_id INTEGER, state VARCHAR(8))")
    connection.commit()
    connection.close()
    return path.read_bytes()


def test_a_database_of_another_tool_stays_as_it_is(tmp_path: Path) -> None:
    """Read, resumed or named as storage: not a byte changes, the journal mode neither."""
    file = tmp_path / "study.db"
    before = _foreign(file)
    for attempt in (lambda: dse.load(tmp_path), lambda: dse.resume(tmp_path), lambda: Study.open(file), lambda: TrialStore.open(file)):
        with pytest.raises(DseError):
            attempt()
    with pytest.raises(DseError, match="table named trials of another tool"):
        TrialStore.open(f"sqlite:///{file}")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["study.db"]


def test_a_study_that_is_removed_while_it_is_written_is_told(tmp_path: Path) -> None:
    with Study.create(tmp_path / "study.db", {"measured": None}) as study:
        store = TrialStore.of_study(study)
        [trial] = store.claim([Proposal({"a": 1})], 0, seed=0)
        for path in tmp_path.iterdir():
            path.unlink()
        with pytest.raises(DseError, match="was removed or replaced"):
            store.tell(trial.finish({"q": Measured(1.0)}))
        with pytest.raises(DseError, match="was removed or replaced"):
            study.finish({})


def test_a_search_whose_study_is_removed_fails(tmp_path: Path) -> None:
    (tmp_path / "removing.py").write_text(
        "import os, pathlib\n"
        "def quality(parameters, fidelity, seed):\n"
        "    for path in pathlib.Path(os.environ['RUN']).glob('study.db*'):\n"
        "        path.unlink()\n"
        "    return 70.0\n"
    )
    words = ["search", "--workload", "bert", "--set", "heads=8", "--set", "hidden=512", "--set", "cores=1", "--set", "glb_mib=2"]
    words += ["--quality", "python:removing:quality", "--budget", "2", "--executor", "inline", "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RUN": str(tmp_path / "run")}
    done = subprocess.run([sys.executable, "-m", "dse", *words], check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert "was removed or replaced while it was being written" in done.stderr


def test_what_a_kill_at_birth_leaves_is_cleared(tmp_path: Path) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    ).stdout.strip()
    for end in ("", "-wal", "-shm"):
        (tmp_path / f".study.db.{dead}{end}").write_bytes(b"half")
    mine = tmp_path / f".study.db.{os.getppid()}"
    mine.write_bytes(b"another one's")
    Study.create(tmp_path / "study.db", {}).close()
    assert {path.name for path in tmp_path.iterdir()} == {"study.db", mine.name}
