"""What an evaluation does to its surroundings: output without end, crashes, memory, children, with one worker as with more."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dse.errors import DseError
from dse.quality import programs
from dse.quality.evaluators import CommandEvaluator

ROOT = Path(__file__).resolve().parents[3]
SMALL = ["--workload", "bert", "--set", "heads=8", "--set", "hidden=512", "--set", "cores=1", "--set", "glb_mib=2", "--threads", "1"]

EVALUATOR = """
import ctypes, subprocess, sys, time


def crashes(parameters, fidelity, seed):
    if parameters["layers"] % 2:
        ctypes.string_at(0)
    return 70.0 + parameters["layers"]


def eats(parameters, fidelity, seed):
    held = [bytearray(64 << 20) for _ in range(64)] if parameters["layers"] % 2 else []
    return 70.0 + parameters["layers"] + len(held)


def waits(parameters, fidelity, seed):
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    open("started", "w").close()
    time.sleep(600)
"""


def _search(folder: Path, function: str, *words: str, start: bool = False) -> "subprocess.Popen[str]":
    (folder / "odd_evaluator.py").write_text(EVALUATOR)
    command = [sys.executable, "-m", "dse", "search", *SMALL, "--quality", f"python:odd_evaluator:{function}", "--strategy", "random"]
    command += [*words, "--retries", "0", "--whole-budget", "--json", "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DSE_TEST_MARK": str(folder)}
    # What this process has searched is another search: what it starts is marked by it, and by a mark of its own.
    environment.setdefault("DSE_SEARCH", "1-0")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment)


@pytest.mark.parametrize(
    ("function", "words", "reason"),
    [("crashes", (), "a worker died"), ("eats", ("--trial-memory", "1.5"), "MemoryError")],
)
def test_an_evaluation_that_crashes_or_eats_memory_fails_alone(tmp_path: Path, function: str, words: tuple[str, ...], reason: str) -> None:
    out, err = _search(tmp_path, function, "--budget", "4", *words).communicate(timeout=300)
    told = json.loads(out)["evaluations"]
    assert told["trials"] == 4, err
    assert 0 < told["failed"] < 4
    assert all(reason in text for text in told["reasons"]), told


def _running(mark: str, words: bytes) -> list[int]:
    found = []
    for pid in _bearing(mark):
        with contextlib.suppress(OSError):
            if words in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def _bearing(mark: str) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DSE_TEST_MARK={mark}".encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_killed_search(tmp_path: Path, how: signal.Signals) -> None:
    search = _search(tmp_path, "waits", "--budget", "2")
    until = time.monotonic() + 120
    while not (tmp_path / "started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert len(_bearing(str(tmp_path))) >= 4
    search.send_signal(how)
    search.communicate(timeout=60)
    until = time.monotonic() + 20
    while (left := _bearing(str(tmp_path))) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_a_search_inside_a_search_ends_with_either(tmp_path: Path) -> None:
    """An outer process that has marked itself starts an inner one that does too; whichever is killed, all below it ends."""
    inner = "import time; from dse.quality import containment as c, programs; c.mark(); programs.run(['sleep', '300'], '', 600.0)"
    outer = f"import subprocess, sys; from dse.quality import containment as c; c.mark(); subprocess.run([sys.executable, '-c', {inner!r}])"
    for which in ("outer", "inner"):
        mark = str(tmp_path / which)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DSE_TEST_MARK": mark}
        with subprocess.Popen([sys.executable, "-c", outer], env=environment) as process:
            until = time.monotonic() + 60
            while not _running(mark, b"sleep\x00300") and time.monotonic() < until:
                time.sleep(0.05)
            [child] = [pid for pid in _running(mark, b"c.mark(); programs.run") if pid != process.pid]
            os.kill(process.pid if which == "outer" else child, signal.SIGKILL)
            process.wait(60)
        until = time.monotonic() + 20
        while (left := _bearing(mark)) and time.monotonic() < until:
            time.sleep(0.05)
        assert not left, which


def test_output_without_end_is_read_in_bounded_memory() -> None:
    """200 MB of talk and an answer: the answer is found, and this process has not held the talk."""
    talk = "import sys\nfor i in range(200): sys.stdout.write('x' * 999999 + '\\n'); sys.stderr.write('y' * 100000)\nprint(71.5)"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert CommandEvaluator((sys.executable, "-c", talk))({}, fidelity=1.0, seed=0)["quality"].mean == 71.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


def test_a_program_that_reads_nothing_or_leaves_a_child_is_not_waited_for() -> None:
    start = time.monotonic()
    assert programs.run(["sh", "-c", "sleep 30 & echo 5"], "x" * 300_000, 20.0)[1].strip() == "5"
    assert time.monotonic() - start < 10


def test_a_program_that_was_ended_by_a_signal_says_which() -> None:
    with pytest.raises(DseError, match="was ended by SIGSEGV"):
        CommandEvaluator(("sh", "-c", "kill -SEGV $$"))({}, fidelity=1.0, seed=0)
