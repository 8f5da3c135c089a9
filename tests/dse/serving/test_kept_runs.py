"""Searches over loops and fleets as runs: their folder, going on after an interruption, reports, comparison and what is refused."""

import csv
import dataclasses
import json
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import dse
from dse import api, served
from dse.analysis.comparison import compare
from dse.cli import main
from dse.errors import DseError
from dse.problem.deployment import Deployment
from dse.serving import fleet
from dse.serving.loops import search_loops
from dse.storage.study import Study
from dse.storage.trials import TrialStore

SMALL = {"samples": 2, "votes": 3, "problems": 8, "thoughts": 3}
VARY = {"kv": ["none", "prefix"], "corrections": [0, 1], "chips": [1, 2]}


def log_file(path: Path, regions: tuple[str, ...] = ()) -> Path:
    rng = np.random.default_rng(3)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["arrival_s", "prompt_tokens", "output_tokens", *(["region"] if regions else [])])
        for i, at in enumerate(np.cumsum(rng.exponential(0.05, 60)).tolist()):
            row = [f"{at:.3f}", int(rng.integers(100, 900)), int(rng.integers(10, 200))]
            writer.writerow([*row, *([regions[i % len(regions)]] if regions else [])])
    return path


def fleets(log: Path) -> served.Problem:
    return served.fleet_problem(
        str(log),
        "llama3-8b",
        ["l40s"],
        objectives=[("goodput_per_s", True), ("gco2e_per_request", False)],
        bounds=[("goodput_share", ">=", 0.9)],
        limits={"ttft_s": 0.5},
        knobs={"tp": (1, 2), "replicas": (1, 2, 3), "max_sequences": (16,), "weight_bits": (16, 8)},
        deployment=Deployment(grid="france", pue=1.2, carbon_profile="default"),
    )


def test_loop_is_a_run_with_the_front_of_the_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--set={name}={value}" for name, value in SMALL.items()]
    words += [f"--vary={name}={','.join(map(str, values))}" for name, values in VARY.items()]
    out = tmp_path / "ics"
    assert main(["search", "--workload", "thought-ics", "--model", "llama3-8b", "--hw", "h100", *words, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    plain = search_loops("thought-ics", "llama3-8b", "h100", fixed=SMALL, vary=VARY)
    assert [{k: row[k] for k in one} for row, one in zip(told["front"], plain["front"], strict=True)] == plain["front"]
    run = dse.load(out)
    assert len(run) == len(plain["front"]) == len((out / "pareto.csv").read_text(encoding="utf-8").splitlines()) - 1
    assert run.summary.points == plain["configurations"]
    assert run.recommend().design == told["recommendation"]["design"]
    assert "scripted" in " ".join(run.recommend().warnings)
    assert run.best("gco2e_per_solved")["gco2e_per_solved"] == min(row["gco2e_per_solved"] for row in plain["front"])
    page = (out / "report.html").read_text(encoding="utf-8")
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").read_text(encoding="utf-8") == page
    assert f"<h1>Build design {told['recommendation']['design']}: " in page
    assert main(["resume", str(out)]) == 0
    capsys.readouterr()
    assert main(["explain", str(out)]) == 2
    assert "searched as a loop" in capsys.readouterr().err


def test_interrupted_fleets_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_file(tmp_path / "chat.csv")
    whole = api.search_served(fleets(log), out=tmp_path / "whole")
    count, once = 0, fleet.run

    def counted(*args, **options):
        nonlocal count
        count += 1
        if count == 6:
            raise KeyboardInterrupt
        return once(*args, **options)

    monkeypatch.setattr(fleet, "run", counted)
    with pytest.raises(KeyboardInterrupt):
        api.search_served(fleets(log), out=tmp_path / "part")
    with pytest.raises(DseError, match="is not finished; `dse resume"):
        dse.load(tmp_path / "part")
    with Study.open(tmp_path / "part" / "study.db", read_only=True) as study:
        assert sum(trial.state != "running" for trial in TrialStore.of_study(study).trials()) == 5
    count = 100
    again = dse.resume(tmp_path / "part")
    # 12 fleets of which 5 are kept; then the fleet of least grams hour by hour, and 1, 2, ... replicas until its hour has enough
    assert count - 100 == 12 - 5 + 1 + again.context["answer"]["hours"][0]["needed"]
    assert again.designs == whole.designs
    assert again.context["answer"] == whole.context["answer"]
    assert (tmp_path / "part" / "pareto.csv").read_bytes() == (tmp_path / "whole" / "pareto.csv").read_bytes()
    frame = whole.trials()
    assert len(frame) == 12 and "service_utilisation" in frame and "utilisation" not in frame  # as in pareto.csv
    assert "how sure: not told for fleets" in str(whole.recommend())
    kept = frame[(frame.state == "complete") & (frame.goodput_share >= 0.9)]
    least = kept.gco2e_per_request.min()
    assert least == whole.best("gco2e_per_request")["gco2e_per_request"] == whole.context["answer"]["least_grams"]["gco2e_per_request"]


def test_fleets_that_an_earlier_version_kept_have_the_name_of_today(tmp_path: Path) -> None:
    log = log_file(tmp_path / "chat.csv")
    problem = fleets(log)
    problem = dataclasses.replace(problem, request={**problem.request, "objectives": [["utilisation", True], ["gco2e_per_request", False]]})
    run = api.search_served(problem, out=tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "study.db") as base:
        changed = base.execute("UPDATE trials SET metrics = replace(metrics, 'service_utilisation', 'utilisation')").rowcount
    assert changed == 12 and "utilisation" not in set(dse.load(tmp_path / "run").trials())
    assert dse.load(tmp_path / "run").trials().service_utilisation.equals(run.trials().service_utilisation)


def test_file_of_a_fleet_serves_the_log_with_it_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = log_file(tmp_path / "chat.csv")
    run = api.search_served(fleets(log), out=tmp_path / "all")
    found = run.recommend()
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert f'<a href="{found.toml}">' in page and f"design {found.design}, recommended" in page
    assert main(["search", "--config", str(run.path / found.toml), "--out", str(tmp_path / "one")]) == 0
    assert f"its file: {tmp_path / 'one' / 'designs' / 'design-0001.toml'}" in capsys.readouterr().out.replace("\n    ", " ")
    again = dse.load(tmp_path / "one")
    # A grid of one: the same fleet, its figures to the last bit; design and equals are numbered anew.
    assert [d["metrics"] for d in again.designs] == [d["metrics"] for d in run.designs if d["design"] == found.design]
    assert again.problem.constraints == run.problem.constraints and again.problem.deployment.grid == "france"


def test_two_runs_of_fleets_compare_and_a_changed_log_is_told(tmp_path: Path) -> None:
    log = log_file(tmp_path / "chat.csv")
    first = api.search_served(fleets(log), out=tmp_path / "a")
    narrow = fleets(log)
    narrow.request["limits"]["ttft_s"] = 0.4
    found = compare(first, api.search_served(narrow, out=tmp_path / "b"))
    assert found.settings == {"request.limits.ttft_s": (0.5, 0.4)}
    assert found.second.best["goodput_per_s"] <= found.first.best["goodput_per_s"]
    log.write_text(log.read_text(encoding="utf-8") + "99.0,10,10\n", encoding="utf-8")
    with pytest.raises(DseError, match="is not the file that was searched with"):
        dse.resume(tmp_path / "a")


def test_region_is_a_run_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = log_file(tmp_path / "chat.csv", ("france", "poland"))
    words = ["--vary=tp=1", "--vary=replicas=1,2", "--vary=max_sequences=16", "--vary=weight_bits=8", "--out", str(tmp_path / "both")]
    assert main(["search", "--workload", str(log), "--model", "llama3-8b", "--hw", "l40s", *words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for name, grid in (("france", "france"), ("poland", "poland")):
        run = dse.load(tmp_path / "both" / name)
        assert run.problem.deployment.grid == grid
        assert run.designs[-1]["metrics"]["gco2e_per_request"] == told["regions"][name]["front"][-1]["gco2e_per_request"]
    clean, dirty = (told["regions"][name]["least_grams"]["gco2e_per_request"] for name in ("france", "poland"))
    assert clean < dirty


def test_nothing_feasible_frees_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "none"
    asked = ["search", "--workload", "maca", "--model", "llama3-8b", "--hw", "h100", "--set=problems=1", "--rate", "1e6", "--out", str(out)]
    assert main(asked) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not out.exists()
