"""`dse search --proxy`: search on a stand-in, measure the best few on the target; killed at any time, resumed the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dse import api, cli
from dse.errors import DseError, UsageError
from dse.searches.plan import MeasuredSettings
from dse.storage.run_folder import load
from dse.storage.study import FILE_NAME, Study
from dse.storage.trials import TrialStore

SMALL = ["--set", "cores=2", "--set", "depth=16", "--set", "l2_words_per_cycle=64", "--set", "glb_mib=4"]
# The proxy is off by a function of the width, so that it ranks like the target but never gives its figure.
MODULE = """
import os, time
from pathlib import Path
LOG = Path({log!r})

def note(kind, parameters):
    with LOG.open("a") as file:
        file.write(f"{{kind}} {{parameters['layers']}} {{parameters['hidden']}}\\n")

def proxy(parameters, fidelity, seed):
    assert fidelity == 1.0  # a whole evaluation of its own
    note("proxy", parameters)
    return 40.0 + parameters["layers"] + parameters["hidden"] / 128

def target(parameters, fidelity, seed):
    time.sleep(float(os.environ.get("TARGET_SECONDS", "0")))
    note("target", parameters)
    return 60.0 + parameters["layers"] + parameters["hidden"] / 64, 0.1

def opposite(parameters, fidelity, seed):
    return 100.0 - proxy(parameters, fidelity, seed)

def broken(parameters, fidelity, seed):
    raise RuntimeError("no GPU")
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of evaluators that write down every call."""
    (tmp_path / "two_qualities.py").write_text(MODULE.format(log=str(tmp_path / "calls.txt")))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("two_qualities", None)
    return tmp_path / "calls.txt"


def _words(out: Path, *more: str, proxy: str = "proxy", target: str = "target") -> list[str]:
    return ["search", "--workload", "bert", *SMALL, "--quality", f"python:two_qualities:{target}", "--proxy",
            f"python:two_qualities:{proxy}", "--threads", "1", "--out", str(out), *more]  # fmt: skip


def test_the_front_holds_the_targets_figures_alone(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(_words(tmp_path / "run", "--budget", "14", "--proxy-top", "6", "--whole-budget", "--strategy", "nested",
                           "--residency", "none")) == 0  # fmt: skip
    calls = log.read_text().splitlines()
    assert sum(line.startswith("proxy") for line in calls) == 14
    assert sum(line.startswith("target") for line in calls) == 6
    assert calls[14:] == [line for line in calls if line.startswith("target")]  # the target is asked when the proxy is done
    # The first three are the proxy's; a later one may be a model that the proxy has not seen.
    assert {line.split(" ", 1)[1] for line in calls[14:17]} <= {line.split(" ", 1)[1] for line in calls[:14]}
    run = load(tmp_path / "run")
    for design in run.designs:
        knobs = design["knobs"]
        assert design["metrics"]["quality"] == 60.0 + knobs["layers"] + knobs["hidden"] / 64
        assert design["metrics"]["quality_se"] == 0.1
    proxy = run.context["proxy"]
    assert proxy["evaluator"] == "python:two_qualities:proxy"
    assert proxy["target"] == "python:two_qualities:target"
    assert (proxy["trials"], proxy["asked"], proxy["measured"]) == (14, 6, 6)
    assert 0.5 < proxy["rank_correlation"] <= 1.0
    html = (run.path / "report.html").read_text()
    assert "the front holds the measurements of the target python:two_qualities:target alone" in html
    assert f"is {proxy['rank_correlation']:.2f}" in html
    assert "poorly" not in html
    printed = capsys.readouterr()
    assert "evaluations of the proxy python:two_qualities:proxy, then 6 of" in printed.err
    assert "Spearman" in printed.out


def test_a_proxy_that_ranks_the_other_way_is_told(tmp_path: Path, log: Path) -> None:
    words = _words(tmp_path / "run", "--budget", "12", "--proxy-top", "5", "--strategy", "random", proxy="opposite")
    assert cli.main(words) == 0
    run = load(tmp_path / "run")
    assert run.context["proxy"]["rank_correlation"] < 0
    assert "The proxy ranks the designs that were measured on the target poorly" in (run.path / "report.html").read_text()


def test_confirmation_of_a_proxys_front_measures_the_target_again(tmp_path: Path, log: Path) -> None:
    assert cli.main(_words(tmp_path / "run", "--budget", "8", "--proxy-top", "4", "--strategy", "random", "--confirm", "2")) == 0
    calls = log.read_text().splitlines()
    assert sum(line.startswith("proxy") for line in calls) == 8
    again = load(tmp_path / "run").context["confirmation"]["quality"]
    assert sum(line.startswith("target") for line in calls) == 4 + 2 * len(again)
    before = (tmp_path / "run" / "pareto.csv").read_bytes()
    assert cli.main(["resume", str(tmp_path / "run")]) == 0
    assert log.read_text().splitlines() == calls
    assert (tmp_path / "run" / "pareto.csv").read_bytes() == before


@pytest.mark.parametrize("kind", ["proxy", "target"])
def test_killed_in_either_half_it_resumes_to_the_same_run(tmp_path: Path, log: Path, kind: str) -> None:
    # Nested proposals depend on all figures before them: a trial evaluated by the wrong half would change what follows.
    options = ("--budget", "12", "--proxy-top", "6", "--whole-budget", "--strategy", "nested", "--seed", "4")
    assert cli.main(_words(tmp_path / "whole", *options)) == 0
    log.unlink()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]), "TARGET_SECONDS": "0.3"}
    process = subprocess.Popen([sys.executable, "-m", "dse", *_words(tmp_path / "run", *options)], env=environment,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)  # fmt: skip
    wanted = 3 if kind == "proxy" else 14
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) >= wanted):
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cli.main(["resume", str(tmp_path / "run"), "--threads", "1"]) == 0
    whole, resumed = load(tmp_path / "whole"), load(tmp_path / "run")
    assert resumed.designs == whole.designs
    assert resumed.context["proxy"] == whole.context["proxy"]
    calls = log.read_text().splitlines()
    assert len(set(calls)) == 18  # nothing lost
    assert len(calls) <= 19  # nothing but the trial that was running twice
    with Study.open(tmp_path / "run" / FILE_NAME) as study:
        assert [t.number for t in TrialStore.of_study(study).trials()] == list(range(18))


def test_warm_start_from_a_proxy_search_takes_the_targets_figures(tmp_path: Path, log: Path) -> None:
    from dse.searches.measured import _trials_of

    assert cli.main(_words(tmp_path / "run", "--budget", "8", "--proxy-top", "4", "--strategy", "random")) == 0
    known = _trials_of(tmp_path / "run")
    assert len(known) == 4
    assert all(t.metrics["quality"].mean > 60.0 for t in known)


def test_a_proxy_is_free_with_a_table_or_the_surrogate(tmp_path: Path, log: Path) -> None:
    problem = api.make_problem("bert", "carbon", fixed={"cores": 2, "depth": 16, "l2_words_per_cycle": 64, "glb_mib": 4, "width": 64})
    settings = MeasuredSettings(quality="python:two_qualities:target", proxy="surrogate", budget=10, proxy_top=3)
    run = api.search(problem, out=tmp_path / "run", measured=settings, threads=1)
    assert sum(line.startswith("target") for line in log.read_text().splitlines()) == 3
    assert run.context["proxy"]["evaluator"] == "surrogate"
    assert MeasuredSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_target_that_always_fails_is_one_sentence(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = _words(tmp_path / "run", "--budget", "5", "--proxy-top", "3", "--retries", "0", "--strategy", "random", target="broken")
    assert cli.main(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "dse: none of the evaluations on the target succeeded; the last failure said: RuntimeError: no GPU"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--proxy", "surrogate"], "proxy stands in for a dear evaluation"),
        (["--quality", "surrogate", "--proxy-top", "3"], "proxy-top is 3 and there is no proxy"),
        (["--quality", "surrogate", "--proxy", "surogate"], "proxy 'surogate' is not one of .* did you mean surrogate"),
        (["--quality", "surrogate", "--proxy", "surrogate", "--budget", "4", "--proxy-top", "5"], "between 1 and the budget of 4"),
        (["--quality", "surrogate", "--proxy", "surrogate", "--proxy-top", "0"], "proxy-top is 0"),
        (["--quality", "surrogate", "--proxy", "command:'rank.py"], "proxy .* is not a command line: no closing quotation"),
    ],
)
def test_errors_are_told_before_anything_is_written(tmp_path: Path, words: list[str], sentence: str) -> None:
    import argparse

    from dse.commands.search import _settings
    from dse.searches.measured import check

    parser = cli.build_parser()
    args: argparse.Namespace = parser.parse_all(["search", "--workload", "bert", *words])

    def told() -> None:
        settings = _settings(args)
        assert settings is not None
        check(settings, "bert")

    with pytest.raises(UsageError, match=sentence):
        told()


def test_proxy_and_target_must_give_the_same_metric() -> None:
    from dse.quality.evaluators import FunctionEvaluator
    from dse.strategies.proxy import ByFidelity

    with pytest.raises(DseError, match="both must give the same"):
        ByFidelity(FunctionEvaluator(len, ("loss",)), FunctionEvaluator(len, ("quality",)))
