"""An evaluator that raises, hangs, returns NaN, prints junk or dies: that trial has failed with its reason, the search goes on.

Memory and what outlives a killed search are in test_containment.py.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dse.searches.measured import trials_of_study

ROOT = Path(__file__).resolve().parents[3]
MODES = {3: "raises", 5: "nan", 7: "junk", 9: "dies", 11: "hangs"}
EVALUATOR = """
import os, subprocess, sys, time


def odd(parameters, fidelity, seed):
    print("talk of the evaluator", parameters, flush=True)
    mode = {modes}.get(parameters["layers"])
    if mode == "raises":
        raise ValueError("no more disk")
    if mode == "hangs":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)
    if mode == "nan":
        return float("nan")
    if mode == "junk":
        return "87 % I think"
    if mode == "dies":
        os._exit(7)
    return 70.0 + parameters["layers"]
"""
REASONS = {
    "raises": ("failed", "ValueError: no more disk"),
    "hangs": ("timed_out", "no result after 10 s"),
    "nan": ("failed", "finite numbers are needed"),
    "junk": ("failed", "a number or [mean, standard error] is needed"),
    "dies": ("failed", "a worker died"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One search over eleven models of which five fail, each in its way; its folder and what it wrote on stdout."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "odd_quality.py").write_text(EVALUATOR.format(modes=MODES))
    command = [sys.executable, "-m", "dse", "search", "--workload", "bert", "--set", "hidden=512", "--set", "cores=1", "--set", "glb_mib=2"]
    command += ["--quality", "python:odd_quality:odd", "--strategy", "random", "--budget", "11", "--retries", "0", "--trial-timeout", "10"]
    command += ["--whole-budget", "--threads", "1", "--json", "--out", "run"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "DSE_TEST_MARK": str(folder)}
    environment.setdefault("DSE_SEARCH", "1-0")
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.parametrize("mode", ["good", *REASONS])
def test_each_failure_is_told_and_the_search_goes_on(finished: tuple[Path, str], mode: str) -> None:
    trials = trials_of_study(finished[0] / "run")
    assert len(trials) == 11  # every model of the space: layers 2 to 12
    own = [t for t in trials if MODES.get(int(t["layers"]), "good") == mode]
    assert own
    for trial in own:
        if mode == "good":
            assert (trial["state"], trial["quality"]) == ("complete", 70.0 + int(trial["layers"]))
        else:
            state, reason = REASONS[mode]
            assert trial["state"] == state and reason in trial["error"], trial


def test_talk_is_kept_out_of_the_answer_and_nothing_stays_behind(finished: tuple[Path, str]) -> None:
    folder, out = finished
    told = json.loads(out)["evaluations"]  # one document, whatever the evaluator printed
    assert (told["trials"], told["failed"]) == (11, 5)
    assert len(told["reasons"]) == 5
    if sys.platform == "linux":
        left = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"DSE_TEST_MARK={folder}".encode() in entry.read_bytes().split(b"\0"):
                    left.append(entry.parent.name)
            except OSError:
                continue
        assert not left
