"""The trial store: claims, take-overs, two processes, PostgreSQL."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from dse.errors import DseError
from dse.quality.measured import Measured
from dse.storage.trial import COMPLETE, FAILED, RUNNING, Proposal
from dse.storage.trials import Claimed, TrialStore
from dse.strategies import make
from dse.strategies.driver import run


def _store(path: Path, owner: str | None = None) -> TrialStore:
    return TrialStore.open(path / "study.db", owner=owner)


def test_claim_tell_and_read_back(tmp_path: Path) -> None:
    store = _store(tmp_path)
    [trial] = store.claim([Proposal({"a": 1, "b": "x"}, info={"origin": "initial"})], 0, seed=7)
    assert trial.state == RUNNING
    assert store.tell(trial.finish({"quality": Measured(81.25, 0.5)}))
    [back] = _store(tmp_path).trials()
    assert (back.state, back.parameters, back.metrics) == (COMPLETE, {"a": 1, "b": "x"}, {"quality": Measured(81.25, 0.5)})
    assert back.seed == trial.seed
    assert back.info == {"origin": "initial"}


def test_number_and_design_are_claimed_once_and_all_or_nothing(tmp_path: Path) -> None:
    one, other = _store(tmp_path, "one:1:-"), _store(tmp_path, "other:2:-")
    one.claim([Proposal({"a": 1})], 0, seed=0)
    with pytest.raises(Claimed):
        other.claim([Proposal({"a": 2})], 0, seed=0)
    with pytest.raises(Claimed):
        other.claim([Proposal({"a": 3}), Proposal({"a": 1})], 1, seed=0)
    assert [t.parameters for t in one.trials()] == [{"a": 1}]
    other.claim([Proposal({"a": 1}, replicate=1)], 1, seed=0)  # measuring a design again is a wish of its own


def test_nothing_that_is_not_finite_is_stored(tmp_path: Path) -> None:
    [trial] = _store(tmp_path).claim([Proposal({"a": 1})], 0, seed=0)
    for bad in (Measured(float("nan")), Measured(1.0, float("inf")), Measured(1.0, -1.0)):
        with pytest.raises(DseError, match="finite"):
            trial.finish({"quality": bad})


def test_a_living_claim_is_kept_and_a_dead_one_taken_over(tmp_path: Path) -> None:
    import socket

    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    gone = _store(tmp_path, f"{socket.gethostname()}:{dead.stdout.strip()}:1")
    gone.claim([Proposal({"a": 1}), Proposal({"a": 2})], 0, seed=3)
    alive = _store(tmp_path)
    alive.claim([Proposal({"a": 3})], 2, seed=3)
    far = _store(tmp_path, "another-host:1:1")
    far.claim([Proposal({"a": 4})], 3, seed=3)
    third = _store(tmp_path, "third:9:-")
    taken = third.take_over(limit=10)
    assert [t.number for t in taken] == [0, 1]
    assert [t.attempts for t in taken] == [1, 1]
    assert not gone.tell(taken[0].finish({"quality": Measured(1.0)})), "a lost claim must not be told"
    assert third.tell(taken[0].finish({"quality": Measured(2.0)}))
    assert third.trials()[0].metrics["quality"].mean == 2.0


def test_released_claims_are_free_at_once_and_failures_are_retried(tmp_path: Path) -> None:
    store = _store(tmp_path)
    trials = store.claim([Proposal({"a": 1}), Proposal({"a": 2})], 0, seed=3)
    store.tell(trials[0].fail(FAILED, "out of memory"))
    store.release()
    assert [t.number for t in store.take_over(limit=10, retries=0)] == [1]
    again = store.take_over(limit=10, retries=1)
    assert [(t.number, t.attempts) for t in again] == [(0, 2)]
    store.tell(again[0].fail(FAILED, "again"))
    assert store.take_over(limit=10, retries=1) == []


_DRIVER = """
import sys, importlib.util
sys.path.insert(0, {root!r})
spec = importlib.util.spec_from_file_location("dse_strategy_tasks", {tasks!r})
module = importlib.util.module_from_spec(spec); sys.modules["dse_strategy_tasks"] = module; spec.loader.exec_module(module)
import time
from dataclasses import dataclass, replace
from dse.strategies import make
from dse.strategies.driver import run
from dse.storage.trials import TrialStore

class Slow:
    metrics = ("quality",)
    def __call__(self, parameters, *, fidelity, seed):
        time.sleep({delay})
        return module.TinyQuality()(parameters, fidelity=fidelity, seed=seed)

task = replace(module.tiny_nested(), evaluator=Slow())
store = TrialStore.open(sys.argv[1])
print("ready", flush=True)
run(task, store, make("nested"), budget={budget}, seed=5)
"""


def _driver(tmp_path: Path, target: str, delay: float, budget: int) -> subprocess.Popen[str]:
    script = tmp_path / "driver.py"
    root = Path(__file__).resolve().parents[3]
    tasks = Path(__file__).parents[1].joinpath("tasks.py")
    script.write_text(_DRIVER.format(root=str(root), tasks=str(tasks), delay=delay, budget=budget), encoding="utf-8")
    return subprocess.Popen([sys.executable, str(script), target], stdout=subprocess.PIPE, text=True)


def test_a_killed_driver_is_resumed_as_if_nothing_had_been(tmp_path: Path, tasks: ModuleType) -> None:
    process = _driver(tmp_path, str(tmp_path / "study.db"), 0.15, 12)
    assert process.stdout is not None
    process.stdout.readline()
    while len(TrialStore.open(tmp_path / "study.db").trials()) < 4:
        time.sleep(0.02)
    process.kill()
    process.wait()
    process.stdout.close()
    store = _store(tmp_path)
    assert any(t.state == RUNNING for t in store.trials())
    run(tasks.tiny_nested(), store, make("nested"), budget=12, seed=5)
    whole = TrialStore.open(tmp_path / "whole.db")
    run(tasks.tiny_nested(), whole, make("nested"), budget=12, seed=5)
    assert [(t.parameters, t.metrics) for t in store.trials()] == [(t.parameters, t.metrics) for t in whole.trials()]


def _two_drivers(tmp_path: Path, target: str, store: TrialStore) -> None:
    drivers = [_driver(tmp_path, target, 0.02, 13) for _ in range(2)]
    for driver in drivers:
        driver.communicate(timeout=60)
        assert driver.returncode == 0
    trials = store.trials()
    assert [t.number for t in trials] == list(range(13)), "lost or doubled"
    assert all(t.done for t in trials)
    assert len({t.key for t in trials}) == 13


def test_two_drivers_on_one_study_lose_and_double_nothing(tmp_path: Path) -> None:
    store = _store(tmp_path)
    _two_drivers(tmp_path, str(tmp_path / "study.db"), store)


def test_bad_storage_url_is_one_sentence() -> None:
    with pytest.raises(DseError, match="storage"):
        TrialStore.open("nosuchdb://host/x")
    with pytest.raises(DseError, match="cannot be"):
        TrialStore.open("sqlite:////nonexistent-folder/x.db")


@pytest.mark.slow
def test_two_drivers_on_a_postgresql_study(tmp_path: Path, postgresql_url: str) -> None:
    store = TrialStore.open(postgresql_url, study="main")
    _two_drivers(tmp_path, postgresql_url, store)
    store.close()


@pytest.mark.parametrize("column", ["parameters", "metrics", "info"])
@pytest.mark.parametrize("value", ['{"a": ', "9" * 5000, "[1]", "3", "[" * 100_000])
def test_damaged_trial_is_one_sentence(tmp_path: Path, column: str, value: str) -> None:
    store = _store(tmp_path)
    store.claim([Proposal({"a": 1})], 0, seed=0)
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute(f"UPDATE trials SET {column} = ?", (value,))
    connection.commit()
    connection.close()
    with pytest.raises(DseError, match="trial 0 of the study is damaged"):
        _store(tmp_path).trials()


def test_a_metric_that_a_complete_trial_has_lost_is_one_sentence(tmp_path: Path) -> None:
    store = _store(tmp_path)
    (trial,) = store.claim([Proposal({"a": 1})], 0, seed=0)
    store.tell(trial.finish({"quality": Measured(1.0)}))
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute("UPDATE trials SET metrics = '{}'")
    connection.commit()
    connection.close()
    (read,) = _store(tmp_path).trials()
    assert read.metrics.get("quality") is None
    with pytest.raises(DseError, match="trial 0 of the study is damaged: it is complete but has no quality"):
        read.metrics["quality"]


def test_damaged_setting_is_one_sentence(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.set_meta("budget", 3)
    connection = sqlite3.connect(tmp_path / "study.db")
    connection.execute("UPDATE trial_meta SET value = '{'")
    connection.commit()
    connection.close()
    with pytest.raises(DseError, match="settings of the study are damaged"):
        store.meta()
