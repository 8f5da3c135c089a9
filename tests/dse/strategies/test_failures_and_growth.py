"""Evaluations that fail, exit, hang or are many: what a search does with them."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import dse
from dse.errors import DseError
from dse.quality.evaluators import FunctionEvaluator, TableEvaluator
from dse.quality.measured import Measured
from dse.reports.console import run_json, show_run
from dse.searches.plan import MeasuredSettings
from dse.storage.trial import CANCELLED, COMPLETE, FAILED, Proposal
from dse.storage.trials import TrialStore
from dse.strategies import make
from dse.strategies.driver import evaluate_one, run
from dse.strategies.executors import Workers
from dse.strategies.protocol import proposal_of

ROOT = Path(__file__).resolve().parents[3]


def _search(tmp_path: Path, quality: Any, budget: int = 6, **options: Any) -> Any:
    settings = MeasuredSettings(quality=quality, strategy="random", budget=budget, retries=0, stop_early=False, **options)
    fixed = {"hidden": 512, "heads": 8}
    return dse.search("bert", fixed=fixed, measured=settings, out=tmp_path / "run", threads=1, allow_unsupported=True)


def test_failed_trials_are_told_in_terminal_json_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls = []

    def odd(parameters: Any, fidelity: float, seed: int) -> float:
        calls.append(1)
        if len(calls) % 2:
            raise ValueError("out of memory\x1b[31m")
        return 70.0 + float(parameters["layers"])

    found = _search(tmp_path, odd)
    told = run_json(found)["evaluations"]
    assert told == {"trials": 6, "failed": 3, "reasons": {"ValueError: out of memory [31m": 3}}
    show_run(found, as_json=False)
    shown = capsys.readouterr().out
    assert "3 of 6 trials failed" in shown
    assert "out of memory" in shown
    assert "\x1b" not in shown.replace("\x1b[0m", "").replace("\x1b[1m", "")
    assert "3 of 6 trials failed" in (found.path / "report.html").read_text()


def test_a_table_proposes_what_it_has_rows_for(tmp_path: Path) -> None:
    rows = "\n".join(f"{layers},{ffn},{70 + layers}" for layers, ffn in ((4, 2048), (12, 2048), (8, 512)))
    (tmp_path / "figures.csv").write_text(f"layers,ffn,quality\n{rows}\n")
    found = _search(tmp_path, f"table:{tmp_path / 'figures.csv'}", budget=50)
    assert run_json(found)["evaluations"]["failed"] == 0
    with TrialStoreOf(found.path) as store:
        tried = {(trial.parameters["layers"], trial.parameters["ffn"]) for trial in store.trials()}
    assert tried
    assert tried <= {(4, 2048), (12, 2048), (8, 512)}


class TrialStoreOf:
    """The trials of a run folder."""

    def __init__(self, folder: Path) -> None:
        self.store = TrialStore.open(folder / "study.db")

    def __enter__(self) -> TrialStore:
        return self.store

    def __exit__(self, *_: object) -> None:
        self.store.close()


def test_an_evaluation_that_exits_or_moves_has_failed_and_moved_nobody(tmp_path: Path) -> None:
    def leaves(parameters: Any, fidelity: float, seed: int) -> float:
        os.chdir(tmp_path)
        raise SystemExit(3)

    here = Path.cwd()
    with pytest.raises(DseError, match="exit code 3"):
        evaluate_one(FunctionEvaluator(leaves), {}, 1.0, 0)
    assert Path.cwd() == here


def test_what_a_store_has_read_follows_the_database(tmp_path: Path) -> None:
    """Two stores on one file: what one tells, retries or adds, the other sees, whatever it had read before."""
    one, two = TrialStore.open(tmp_path / "t.db", owner="one"), TrialStore.open(tmp_path / "t.db", owner="two")
    claimed = one.claim([Proposal({"x": i}) for i in range(4)], 0, seed=1)
    assert [trial.state for trial in two.trials()] == ["running"] * 4
    one.tell(claimed[2].finish({"q": Measured(1.0)}))
    one.tell(claimed[0].fail(FAILED, "no"))
    one.tell(claimed[1].fail(CANCELLED, "cancelled"))
    assert [trial.state for trial in two.trials()] == [FAILED, CANCELLED, COMPLETE, "running"]
    again = one.take_over(limit=9, retries=1)
    assert [trial.number for trial in again] == [0, 1], "failed with an attempt left, and cancelled"
    assert [trial.attempts for trial in again] == [2, 1]
    one.tell(again[0].finish({"q": Measured(2.0)}))
    one.claim([Proposal({"x": 9})], 4, seed=1)
    fresh = TrialStore.open(tmp_path / "t.db", owner="three")
    assert two.trials() == fresh.trials()
    assert two.trials()[0].metrics["q"].mean == 2.0
    for store in (one, two, fresh):
        store.close()


def test_the_cost_of_a_trial_does_not_grow_with_their_number(tmp_path: Path, tasks: ModuleType) -> None:
    """CPU of 40 further trials behind 5,000: 403 ms each behind 10,000 once; 40 ms is the goal."""
    task = tasks.large_known(parameters=8) if hasattr(tasks, "large_known") else _large_task()
    store = TrialStore.open(tmp_path / "t.db")
    count, strategy = 5000, make("random")
    rows = task.space.unrank(__import__("numpy").arange(count) * 7)
    store.claim([proposal_of(task, row) for row in rows], 0, seed=0)
    for trial in store.trials():
        store.tell(trial.finish({"q": Measured(float(trial.number))})) if trial.number % 500 == 0 else None
    with store._engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET state='complete', metrics='{\"q\": [1.0, 0.0]}', finished=1.0 WHERE state='running'")
    store.trials()
    begun = time.process_time()
    run(task, store, strategy, budget=count + 40, seed=0, pool=Workers("inline"))
    each = (time.process_time() - begun) / 40
    store.close()
    assert each < 0.04, f"{1e3 * each:.1f} ms of CPU a trial"


def _large_task() -> Any:
    from dse.problem.objectives import Objective
    from dse.spaces.parameters import Parameter, Space
    from dse.strategies.task import Task

    space = Space("large", tuple(Parameter(f"p{i}", tuple(range(10)), "model", "linear") for i in range(8)))
    evaluator = FunctionEvaluator(lambda parameters, fidelity, seed: float(parameters["p0"]), metrics=("latency_s",))
    return Task("large", space, (Objective("min", "latency_s"),), evaluator)


HANGS = """
import os, signal, subprocess, sys, time


def hangs(parameters, fidelity, seed):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(os.environ["PIDS"], "a").write(f"{os.getpid()} {child.pid}\\n")
    time.sleep(600)
"""


def test_a_trial_that_ignores_its_end_is_killed_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(HANGS)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "PIDS": str(tmp_path / "pids")}
    command = [sys.executable, "-m", "dse", "search", "--workload", "bert", "--set", "heads=8", "--set", "hidden=512", "--budget", "1"]
    command += ["--quality", "python:hanging:hangs", "--strategy", "random", "--trial-timeout", "12", "--retries", "0", "--out", "run"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=120)
    assert done.returncode == 1
    assert "no result after 12 s" in done.stderr
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 2
    until = time.monotonic() + 10
    while any(_runs(pid) for pid in pids) and time.monotonic() < until:
        time.sleep(0.1)
    assert not [pid for pid in pids if _runs(pid)]


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_table_of_unknown_columns_is_told_before_the_search(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("depth,quality\n4,70\n")
    with pytest.raises(DseError, match="'depth'"):
        TableEvaluator.read(tmp_path / "t.csv").has({"layers": 4})
