"""`dse search --storage URL`: several drivers share the trials of one search; SQLite files and PostgreSQL alike."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dse import cli
from dse.errors import UsageError
from dse.searches.plan import MeasuredSettings
from dse.storage.run_folder import load
from dse.storage.trials import TrialStore

SMALL = ["--set", "cores=2", "--set", "depth=16", "--set", "l2_words_per_cycle=64", "--set", "glb_mib=4"]
MODULE = """
import os, time
from pathlib import Path
LOG = Path({log!r})

def measure(parameters, fidelity, seed):
    time.sleep(0.1)
    with LOG.open("a") as file:
        file.write(f"{{os.getpid()}} {{parameters['layers']}} {{parameters['hidden']}}\\n")
    return 60.0 + parameters["layers"] + parameters["hidden"] / 64, 0.1
"""


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An evaluator that writes down who called it for what."""
    (tmp_path / "shared_quality.py").write_text(MODULE.format(log=str(tmp_path / "calls.txt")))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("shared_quality", None)
    return tmp_path / "calls.txt"


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A shared database of each kind."""
    return f"sqlite:///{tmp_path / 'shared.db'}" if request.param == "sqlite" else request.getfixturevalue("postgresql_url")


def _words(url: str, out: Path, *more: str) -> list[str]:
    return ["search", "--workload", "bert", *SMALL, "--quality", "python:shared_quality:measure", "--strategy", "nested", "--whole-budget",
            "--threads", "1", "--storage", url, "--out", str(out), *more]  # fmt: skip


def test_two_drivers_share_one_search_and_find_one_front(tmp_path: Path, log: Path, url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    drivers = [
        subprocess.Popen([sys.executable, "-m", "dse", *_words(url, tmp_path / name, "--budget", "16", "--study", f"ours-{tmp_path.name}",
                          "--confirm", "1")], env=environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]  # fmt: skip
    for driver in drivers:
        _, said = driver.communicate(timeout=120)
        assert driver.returncode == 0, said
    calls = [line.split(" ", 1) for line in log.read_text().splitlines()]
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    again = len(one.context["confirmation"]["quality"])
    assert len(calls) == 16 + again, "lost or doubled"
    assert len({design for _, design in calls}) == 16
    assert len({who for who, _ in calls}) == 2, "one of the drivers did nothing"
    assert one.designs == two.designs
    assert one.context["strategy"]["study"] == f"ours-{tmp_path.name}"
    store = TrialStore.open(url, study=f"ours-{tmp_path.name}")
    assert [t.number for t in store.trials()] == list(range(16 + again))
    store.close()
    assert (tmp_path / "one" / "report.html").read_text().count(f"under the name ours-{tmp_path.name}") == 1


def test_the_name_follows_from_the_search_and_a_resumed_run_measures_nothing_again(
    tmp_path: Path, log: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = str(len(str(tmp_path)) * 1000 + int.from_bytes(tmp_path.name.encode()[-4:], "little") % 997)
    options = ("--budget", "6", "--seed", seed)
    assert cli.main(_words(url, tmp_path / "one", *options)) == 0
    assert len(log.read_text().splitlines()) == 6
    # Another driver of the same search, later: everything is there already.
    assert cli.main(_words(url, tmp_path / "two", *options)) == 0
    assert len(log.read_text().splitlines()) == 6
    assert load(tmp_path / "one").designs == load(tmp_path / "two").designs
    assert cli.main(["resume", str(tmp_path / "one")]) == 0
    # Another seed is another search, and goes by another name.
    assert cli.main(_words(url, tmp_path / "three", "--budget", "6", "--seed", str(int(seed) + 1))) == 0
    assert len(log.read_text().splitlines()) == 12
    names = {load(tmp_path / run).context["strategy"]["study"] for run in ("one", "two", "three")}
    assert len(names) == 2
    assert all(name.startswith("bert-carbon-") for name in names)
    # Unless it is told to go by the same: then it is refused.
    capsys.readouterr()
    assert cli.main(_words(url, tmp_path / "four", "--budget", "6", "--seed", str(int(seed) + 2), "--study", min(names))) == 2
    assert "holds the trials of another problem, evaluator, strategy, seed or version" in capsys.readouterr().err
    # A warm start finds the trials of a run that keeps them elsewhere.
    assert cli.main([*_words(url, tmp_path / "five", "--budget", "3", "--seed", seed), "--from", str(tmp_path / "three")]) == 0


def test_a_relative_sqlite_file_is_the_same_file_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import argparse

    from dse.commands.search import _settings

    monkeypatch.chdir(tmp_path)
    parser = cli.build_parser()
    args: argparse.Namespace = parser.parse_all(["search", "--workload", "bert", "--quality", "surrogate", "--storage", "sqlite:///a.db"])
    settings = _settings(args)
    assert settings is not None
    assert settings.storage == f"sqlite:///{tmp_path / 'a.db'}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"storage": "not a url"}, "storage is no URL of a database"),
        ({"storage": "postgresql+psycopg://me:secret@host/db"}, "storage holds a password.*PGPASSWORD"),
        ({"study": "mine"}, "give the database with --storage URL"),
        ({"storage": "sqlit:///a.db"}, "storage sqlit is no kind of database"),
        ({"storage": "sqlite://"}, "names no file"),
        ({"storage": "sqlite:///:memory:"}, "names no file"),
    ],
)
def test_settings_are_checked(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        MeasuredSettings(**options)
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_reached_is_one_sentence(tmp_path: Path, log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(_words("sqlite:////nonexistent-folder/x.db", tmp_path / "run")) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("dse: ")
    assert "cannot be" in said


def test_a_sqlite_url_is_set_up_as_its_path(tmp_path: Path) -> None:
    store = TrialStore.open(f"sqlite:///{tmp_path / 'a.db'}")
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert TrialStore.open(tmp_path / "a.db").meta() == store.meta()


def test_a_sweep_has_no_trials_to_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["search", "--workload", "bert", "--storage", f"sqlite:///{tmp_path / 'a.db'}", "--out", str(tmp_path / "run")]) == 2
    assert "name an evaluator with --quality" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--storage", "sqlite:///a.db"], ["--confirm", "2"], ["--from", "other"], ["--trial-timeout", "3"]])
def test_what_only_trials_of_a_quality_have_is_never_left_out_silently(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert cli.main(["search", "--workload", "bert", *words, *out]) == 2
    assert f"{words[0].removeprefix('--')} is for trials of a measured quality" in capsys.readouterr().err
    assert cli.main(["search", "--workload", "bert", "--hw", "datacenter", "--strategy", "random", *words, *out]) == 2
    assert f"{words[0].removeprefix('--')} is for trials of a measured quality" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
