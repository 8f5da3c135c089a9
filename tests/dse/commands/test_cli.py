"""The command line as a user meets it: start-up, help, errors of one sentence, exit codes."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from dse import cli

BERT = ["--workload", "bert"]


def run(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "dse", *words], capture_output=True, text=True, timeout=300, check=False, cwd=cwd)


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from dse.cli import build_parser; build_parser().format_help();"
        "heavy = {'numpy', 'pandas', 'torch', 'ax', 'plotly', 'sqlalchemy', 'rich', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    # Processor time of the child, so that a busy machine does not fail the test; the best of three, as noise only adds.
    times = []
    for _ in range(3):
        before = os.times()
        assert run("--help").returncode == 0
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.3


def test_one_design_is_costed_without_what_it_does_not_need() -> None:
    """No study, no reader of files, no search: those are two thirds of the start of a whole search."""
    code = (
        "import io, sys; from contextlib import redirect_stdout; from dse import cli\n"
        "with redirect_stdout(io.StringIO()): assert cli.main(['evaluate', '--workload', 'bert']) == 0\n"
        "idle = ('pandas', 'torch', 'plotly', 'sqlalchemy', 'rich', 'scipy', 'workloads.importers', 'dse.storage', 'dse.searches',"
        " 'importlib.metadata')\n"
        "print(sorted(name for name in sys.modules if name.startswith(idle)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_sweep_is_written_without_what_other_searches_need(tmp_path: Path) -> None:
    """No SQLAlchemy, no strategies of trials, no measuring of models: those are half of its start."""
    code = (
        "import io, sys; from contextlib import redirect_stderr, redirect_stdout; from dse import cli\n"
        "with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):\n"
        "    assert cli.main(['search', '--workload', 'bert', '--hw', 'edge22', '--set', 'cores=1', '--out', sys.argv[1]]) == 0\n"
        "idle = ('pandas', 'torch', 'plotly', 'sqlalchemy', 'rich', 'scipy', 'workloads.importers', 'dse.storage.trials',"
        " 'dse.searches.large_space', 'dse.searches.measured', 'dse.strategies.amoo', 'dse.quality.model_evaluator', 'dse.commands.xmc')\n"
        "print(sorted(name for name in sys.modules if name.startswith(idle)))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["designs", "pareto.csv", "report.html", "study.db"]
    with sqlite3.connect(tmp_path / "run" / "study.db") as connection:
        spent = json.loads(connection.execute("SELECT value FROM result").fetchone()[0])["context"]["computation"]
    # 4 to 12 W a core: what the search took cannot be none, and not what a minute of a machine takes.
    assert 0 < spent["cpu_s"] < 60 and 4 * spent["cpu_s"] < spent["energy_j"] < 60 * 200
    assert spent["gco2e"] == pytest.approx(spent["energy_j"] / 3.6e6 * spent["gco2e_per_kwh"])
    assert "This search took" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["serch"], 2, "did you mean 'search'"),
        (["search"], 2, "workload is missing"),
        (["search", *BERT, "--objectiv", "carbon"], 2, "did you mean --objective"),
        (["search", "--workload", "brt"], 1, "bert"),
        (["search", *BERT, "--objective", "carbom"], 2, "did you mean 'carbon'"),
        (["search", *BERT, "--grid", "tawan"], 1, "taiwan"),
        (["search", *BERT, "--fab-grid", "nowhere-at-all"], 1, "nowhere-at-all"),
        (["search", *BERT, "--hw", "edge23"], 2, "did you mean 'edge22'"),
        (["search", *BERT, "--hw", "missing.toml"], 1, "missing.toml"),
        (["search", *BERT, "--set", "width=48"], 2, "nearest is 32"),
        (["search", *BERT, "--set", "widht=64"], 2, "did you mean 'width'"),
        (["search", *BERT, "--set", "width"], 2, "NAME=VALUE"),
        (["search", *BERT, "--set", "width=64", "--set", "width=32"], 2, "given twice"),
        (["search", *BERT, "--set", "width=nan"], 2, "a number is needed"),
        (["search", *BERT, "--constraint", "latency_s<=0.01", "--constraint", "latency_s>=0.02"], 2, "contradict"),
        (["search", *BERT, "--constraint", "latency<=0.01"], 2, "did you mean 'latency_s'"),
        (["search", *BERT, "--rate", "0"], 2, "positive number"),
        (["search", *BERT, "--rate", "nan"], 2, "positive number"),
        (["search", *BERT, "--pue", "0.5"], 2, "at least 1"),
        (["search", *BERT, "--space", "catransfromers"], 2, "catransformers"),
        (["search", *BERT, "--strategy", "exhaustve"], 2, "exhaustive"),
        (["search", *BERT, "--criterion", "epd"], 2, "did you mean 'edp'"),
        (["search", *BERT, "--carbon-profile", "act3"], 1, "act2"),
        (["search", *BERT, "--threads", "0"], 2, "at least 1"),
        (["search", *BERT, "--rate", "fast"], 2, "invalid float value"),
        (["evaluate", *BERT, "--set", "cores=3"], 2, "nearest is 2"),
        (["resume", "no-such-run"], 1, "does not exist"),
        (["report", "no-such-run"], 1, "does not exist"),
        (["list", "workload"], 2, "did you mean 'workloads'"),
    ],
)
def test_bad_input_is_one_sentence_and_the_right_code(words: list[str], code: int, says: str, capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        found = cli.main(words)
    except SystemExit as leave:
        found = int(leave.code or 0)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("dse")]
    assert len(lines) == 1, captured.err
    assert says in lines[0], lines[0]
    assert found == code, lines[0]
    assert "Traceback" not in captured.err


def test_no_feasible_point_says_why_and_how_near_and_frees_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fixed = ["--set", "cores=1", "--set", "depth=2", "--set", "glb_mib=2", "--set", "l2_words_per_cycle=32"]
    done = run("search", *BERT, "--out", str(out), *fixed, "--constraint", "latency_s<=1e-6")
    assert done.returncode == 1
    assert "no design of" in done.stderr
    assert "latency_s<=1e-06 fails at 100.0%" in done.stderr
    assert "the nearest, layers=" in done.stderr
    assert "latency_s " in done.stderr.partition("the nearest")[2]
    assert not out.exists()
    assert "Traceback" not in done.stderr
    out.mkdir()  # a folder of the user stays
    assert run("search", *BERT, "--out", str(out), *fixed, "--constraint", "latency_s<=1e-6").returncode == 1
    assert list(out.iterdir()) == []


def test_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    done = run("search", *BERT, "--out", str(blocked / "run"))
    assert done.returncode == 1
    assert "cannot be made" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_folder_is_not_overwritten(tmp_path: Path) -> None:
    from dse.storage.study import Study

    Study.create(tmp_path / "study.db", {}).close()
    before = (tmp_path / "study.db").read_bytes()
    done = run("search", *BERT, "--out", str(tmp_path))
    assert done.returncode == 1
    assert "holds a study already" in done.stderr
    assert (tmp_path / "study.db").read_bytes() == before


def test_evaluate_prints_json_alone_on_stdout() -> None:
    sets = ["--set", "cores=4", "--set", "width=64", "--set", "depth=16", "--set", "l2_kib=256", "--set", "layers=12"]
    done = run("evaluate", *BERT, "--hw", "edge22", *sets, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    for key in (
        "latency_s",
        "energy_j",
        "area_mm2",
        "tops",
        "embodied_kgco2e",
        "operational_kgco2e",
        "total_kgco2e",
        "quality",
    ):
        assert isinstance(answer[key], float), key
    assert answer["design"]["l2_kib"] == 256
    assert {"component", "latency_s", "energy_j", "bound"} <= set(answer["components"][0])


def test_quality_without_support_is_null_with_the_reason_and_costs_are_given() -> None:
    done = run("evaluate", *BERT, "--set", "heads=6", "--set", "hidden=480", "--set", "ffn=1920", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["quality"] is None
    assert "head dimension 80" in answer["quality_reason"]
    assert answer["latency_s"] > 0
    allowed = json.loads(
        run("evaluate", *BERT, "--set", "heads=6", "--set", "hidden=480", "--set", "ffn=1920", "--json", "--allow-unsupported").stdout
    )
    assert allowed["quality"] is not None
    assert allowed["quality_support"] == "extrapolated"


def test_evaluate_names_what_a_template_leaves_out_and_a_board_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Idle power of a board is all of it, that of a template what its parts leak."""
    told = {}
    for hardware in ("edge22", "h100"):
        assert cli.main(["evaluate", "--workload", "bert-tiny", "--hw", hardware]) == 0
        told[hardware] = " ".join(capsys.readouterr().out.split())
    assert "not modelled network on chip, controller, DRAM PHY and I/O, leakage of logic, DRAM standby and refresh" in told["edge22"]
    assert "not modelled" not in told["h100"]


def test_config_file_fills_what_the_command_line_leaves(tmp_path: Path) -> None:
    config = tmp_path / "search.toml"
    config.write_text('workload = "bert"\nobjective = ["carbon"]\nrate = 2.5\n[set]\ncores = 1\ndepth = 16\nglb_mib = 2\nl2_kib = 64\n')
    done = run("search", "--config", str(config), "--rate", "1.5", "--json", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["problem"]["deployment"]["rate_per_s"] == 1.5
    assert answer["problem"]["fixed"] == {"cores": 1, "depth": 16, "glb_mib": 2, "l2_kib": 64}
    config.write_text("wrkload = 'bert'\n")
    done = run("search", "--config", str(config))
    assert done.returncode == 2
    assert "did you mean 'workload'" in done.stderr


def test_list_shows_every_topic() -> None:
    done = run("list", "--json")
    assert done.returncode == 0
    known = json.loads(done.stdout)
    assert "bert" in known["workloads"]
    assert "edge22" in known["templates"]
    assert "carbon" in known["presets"]
    assert "exhaustive" in known["strategies"]
    assert len(known["regions"]) > 200


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("workers = inf", "workers is inf"),
        ("threads = nan", "threads is nan"),
        ("budget = 1.5", "budget is 1.5"),
        ("rate = 1" + "0" * 400, "rate is an integer of many digits"),
        ("seed = " + "9" * 5000, "not valid TOML"),
        ("set = {depth = 1" + "0" * 400 + "}", "set depth has the value"),
    ],
)
def test_config_file_with_numbers_that_nothing_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    config = tmp_path / "search.toml"
    config.write_text(f'workload = "bert"\n{line}\n')
    assert cli.main(["search", "--config", str(config), "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
