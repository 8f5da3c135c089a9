"""Evaluators: tables, functions, programs; and the executors that run them."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from dse.errors import DseError, UsageError
from dse.quality import evaluators
from dse.quality.evaluators import TableEvaluator
from dse.quality.measured import Measured, standard_errors
from dse.storage.trial import COMPLETE, FAILED, TIMED_OUT
from dse.storage.trials import TrialStore
from dse.strategies import make
from dse.strategies.driver import run
from dse.strategies.executors import workers

ECHO = """
import json, sys
request = json.load(sys.stdin)
print("training ...")
print(json.dumps({"quality": request["parameters"]["a"] * 10 + request["seed"] % 1, "quality_se": 0.25}))
"""


def _command(tmp_path: Path, text: str, **options: object) -> evaluators.CommandEvaluator:
    script = tmp_path / "evaluate.py"
    script.write_text(text, encoding="utf-8")
    return evaluators.CommandEvaluator((sys.executable, str(script)), **options)  # type: ignore[arg-type]


def test_command_speaks_json_and_no_shell(tmp_path: Path) -> None:
    found = _command(tmp_path, ECHO)({"a": 3, "b": "$(touch x); `id`"}, fidelity=1.0, seed=4)
    assert found == {"quality": Measured(30.0, 0.25)}
    parsed = evaluators.parse("command:python -c 'print(1)' $HOME", workload="bert")
    assert isinstance(parsed, evaluators.CommandEvaluator)
    assert parsed.command == ("python", "-c", "print(1)", "$HOME")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import sys; sys.exit('no GPU left')", "ended with code 1: no GPU left"),
        ("print('accuracy 81.2')", "one line of JSON"),
        ("print('{\"accuracy\": 1}')", "quality is needed"),
        ("print('NaN')", "finite"),
        ("print('[1, -2]')", "finite"),
        ("pass", "one line of JSON"),
    ],
)
def test_command_failures_are_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DseError, match=re.escape(says)):
        _command(tmp_path, text)({"a": 1}, fidelity=1.0, seed=0)


def test_command_that_runs_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    text = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(pid)!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"gave no answer in 1\.5 s"):
        _command(tmp_path, text, time_limit_s=1.5)({"a": 1}, fidelity=1.0, seed=0)
    assert time.monotonic() - start < 20
    for _ in range(50):
        try:
            stat = Path(f"/proc/{pid.read_text()}/stat").read_text(encoding="utf-8")
        except (FileNotFoundError, ProcessLookupError):
            break
        if stat.rpartition(")")[2].split()[0] == "Z":  # dead, not yet collected by init
            break
        time.sleep(0.1)
    else:
        pytest.fail("the program's child is alive")


def test_table(tmp_path: Path) -> None:
    file = tmp_path / "quality.csv"
    file.write_text("# measured\nlayers,heads,seed,quality,quality_se\n4,2,0,70.5,0.3\n4,2,1,71.5,0.3\n6.0,2,0,80,0\n", encoding="utf-8")
    table = evaluators.parse(f"table:{file}", workload="bert")
    assert isinstance(table, evaluators.TableEvaluator)
    found = table({"layers": 4, "heads": 2, "cores": 1}, fidelity=1.0, seed=0)["quality"]
    assert found.mean == 71.0
    assert found.se == pytest.approx(0.3 / 2**0.5)
    assert table.has({"layers": 6, "heads": 2})
    with pytest.raises(DseError, match="no row for layers=7"):
        table({"layers": 7, "heads": 2}, fidelity=1.0, seed=0)
    file.write_text("# measured\nlayers,quality\n4,70\n\n6,80\n4.0,71\n", encoding="utf-8")
    with pytest.raises(DseError, match=r"lines 3 and 6 are both of layers=4.0, with quality 70 and 71; .* column seed"):
        evaluators.parse(f"table:{file}", workload="bert")
    file.write_text("layers,qualty\n4,1\n", encoding="utf-8")
    with pytest.raises(UsageError, match="did you mean 'qualty'"):
        evaluators.parse(f"table:{file}", workload="bert")
    file.write_text("layers,quality\n4,x\n", encoding="utf-8")
    with pytest.raises(DseError, match="line 2: quality is 'x'"):
        evaluators.parse(f"table:{file}", workload="bert")


def test_python_function_and_surrogate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_scores.py").write_text("def score(parameters, fidelity, seed):\n    return parameters['a'], 0.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = evaluators.parse("python:my_scores:score", workload="bert")({"a": 3}, fidelity=1.0, seed=0)
    assert found == {"quality": Measured(3.0, 0.5)}
    with pytest.raises(UsageError, match="did you mean 'score'"):
        evaluators.parse("python:my_scores:scor", workload="bert")
    with pytest.raises(UsageError, match="cannot be imported"):
        evaluators.parse("python:no_such_module:score", workload="bert")
    design = {"layers": 12, "hidden": 768, "ffn": 3072, "heads": 12}
    assert 80 < evaluators.parse("surrogate", workload="bert")(design, fidelity=1.0, seed=0)["quality"].mean < 90
    with pytest.raises(UsageError, match="did you mean table"):
        evaluators.parse("tabel:x.csv", workload="bert")


def test_process_pool_survives_a_dying_worker_without_blaming_its_neighbour(
    tmp_path: Path, tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The evaluation of a = 4 kills its worker the first time and works the second.
    mark = tmp_path / "died"
    (tmp_path / "dying.py").write_text(
        "import os\n"
        "def score(parameters, fidelity, seed):\n"
        f"    if parameters['a'] == 4 and not os.path.exists({str(mark)!r}):\n"
        f"        open({str(mark)!r}, 'w').close(); os._exit(3)\n"
        "    return parameters['a'] * 2.0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))  # spawned processes start with this process's path
    task = replace(tasks.tiny_nested(), evaluator=evaluators.PythonEvaluator("dying", "score"))
    store = TrialStore.open(tmp_path / "s.db")
    with workers("processes", 2) as pool:
        outcome = run(task, store, make("random"), budget=15, seed=0, pool=pool, retries=0)
    assert mark.exists()
    assert [t.number for t in outcome.trials] == list(range(len(outcome.trials)))
    assert all(t.state == COMPLETE for t in outcome.trials)
    assert all(t.metrics["quality"].mean == 2.0 * float(t.parameters["a"]) for t in outcome.trials)


def test_failures_and_time_outs_are_recorded_and_end_a_hopeless_search(tmp_path: Path, tasks: ModuleType) -> None:
    task = replace(tasks.tiny_nested(), evaluator=_command(tmp_path, "raise SystemExit('broken')"))
    store = TrialStore.open(tmp_path / "s.db")
    with pytest.raises(DseError, match=r"the last 2 evaluations failed.*broken"):
        run(task, store, make("random"), budget=15, seed=0, retries=1, tolerated_failures=2)
    assert [(t.state, t.attempts) for t in store.trials()] == [(FAILED, 2), (FAILED, 2)]
    slow = replace(task, evaluator=_command(tmp_path, "import time; time.sleep(30)", time_limit_s=0.3))
    late = TrialStore.open(tmp_path / "late.db")
    assert run(slow, late, make("random"), budget=1, seed=0, retries=0).trials[0].state == TIMED_OUT
    stuck = replace(task, evaluator=_command(tmp_path, "import time; time.sleep(30)"))
    store = TrialStore.open(tmp_path / "stuck.db")
    with workers("processes", 1) as pool:
        start = time.monotonic()
        found = run(stuck, store, make("random"), budget=1, seed=0, retries=0, pool=pool, timeout_s=1.0).trials
        assert found[0].state == TIMED_OUT
        assert time.monotonic() - start < 25


@pytest.mark.slow
def test_dask_cluster_loses_a_worker_and_no_trial(tmp_path: Path, tasks: ModuleType) -> None:
    pytest.importorskip("distributed")
    environment = {**os.environ, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "5"}
    processes: list[subprocess.Popen[str]] = []

    def start(module: str, *args: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-m", module, *args], cwd=tmp_path, env=environment, text=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        processes.append(process)
        return process

    file = tmp_path / "scheduler.json"
    try:
        start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
              "--scheduler-file", str(file))  # fmt: skip
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        nanny = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path))
        first = start("distributed.cli.dask_worker", address, *nanny)
        start("distributed.cli.dask_worker", address, *nanny)
        task = replace(tasks.tiny_nested(), evaluator=_command(tmp_path, "import time; time.sleep(0.4)\n" + ECHO))
        store = TrialStore.open(tmp_path / "s.db")
        told: list[int] = []

        def on_trial(trial: object) -> None:
            told.append(1)
            if len(told) == 3:
                first.kill()

        with workers("dask", 2, address) as pool:
            outcome = run(task, store, make("random"), budget=12, seed=0, pool=pool, retries=3, on_trial=on_trial)
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()
    assert [t.number for t in outcome.trials] == list(range(12))
    assert all(t.state == COMPLETE for t in outcome.trials)


def test_executors_are_named_and_addresses_checked() -> None:
    with pytest.raises(UsageError, match="did you mean 'processes'"), workers("process", 2):
        pass
    with pytest.raises(UsageError, match="address"), workers("dask", 2) as pool:
        pool.submit(print)


def test_a_standard_error_that_is_not_given_is_not_known(tmp_path: Path) -> None:
    file = tmp_path / "acc.csv"
    file.write_text("layers,seed,quality,quality_se\n2,0,70,0.4\n4,0,74.6,\n6,0,75\n8,0,76,nan\n10,0,80,0.3\n10,1,82,\n")
    table = TableEvaluator.read(file)
    found = {layers: table({"layers": layers}, fidelity=1.0, seed=0)["quality"] for layers in (2, 4, 6, 8, 10)}
    assert [found[layers].se for layers in (2, 4, 6, 8)] == [0.4, 0.0, 0.0, 0.0]
    assert found[10].se == pytest.approx(1.0)  # one row states none: the spread of 80 and 82
    # The model of quality takes those that are not known to be as noisy as the middle of the others, and no others in their place.
    assert standard_errors(list(found.values())).tolist() == pytest.approx([0.4, 0.7, 0.7, 0.7, 1.0])
    assert standard_errors([found[4], found[6]]).tolist() == [0.0, 0.0]


def test_the_spread_of_repeats_is_pooled_over_models_where_no_row_states_an_error(tmp_path: Path) -> None:
    """By hand: deviations of 1, 1 and 2, 2 about two means: 10 / 2 = 5 a measurement; a pair has sqrt(5 / 2), a single row sqrt(5)."""
    file = tmp_path / "t.csv"
    file.write_text("layers,seed,quality\n2,0,70\n2,1,72\n4,0,80\n4,1,84\n6,0,90\n")
    table = TableEvaluator.read(file)
    found = {layers: table({"layers": layers}, fidelity=1.0, seed=0)["quality"] for layers in (2, 4, 6)}
    assert [found[layers].mean for layers in (2, 4, 6)] == [71.0, 82.0, 90.0] and table.repeated == 2
    assert [found[layers].se for layers in (2, 4, 6)] == pytest.approx([2.5**0.5, 2.5**0.5, 5.0**0.5])
    file.write_text("layers,seed,quality\n2,0,70\n4,0,80\n")
    table = TableEvaluator.read(file)
    assert table.repeated == 0 and table({"layers": 2}, fidelity=1.0, seed=0)["quality"].se == 0.0
    file.write_text("layers,fidelity,seed,quality\n2,0.5,0,60\n2,0.5,1,66\n2,1,0,70\n2,1,1,72\n")
    table = TableEvaluator.read(file)  # a short training scatters by itself
    assert [table({"layers": 2}, fidelity=f, seed=0)["quality"].se for f in (0.5, 1.0)] == pytest.approx([3.0, 1.0])
