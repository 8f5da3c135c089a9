"""Search over reasoning loops: exact fronts, what reuse moves, qualities from rates, tables and traces, and loops on the engine."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from dse.cli import main
from dse.errors import DseError, UsageError
from dse.problem.deployment import Deployment
from dse.serving.loop_costs import StageCosts, binomial, knots
from dse.serving.loop_quality import source_of
from dse.serving.loop_runs import chosen, run_loops
from dse.serving.loops import METRICS, loop_problem, points_of, search_loops
from workloads import load
from workloads.reasoning.phases import Stage, Work
from workloads.reasoning.plans import LOOPS, Plan


def test_front_is_what_no_configuration_beats() -> None:
    vary = {"kv": ["none", "prefix", "tree"], "corrections": [0, 1], "chips": [1, 2]}
    small = {"samples": 2, "votes": 3, "problems": 8, "thoughts": 3}
    answer = search_loops("thought-ics", "llama3-8b", "h100", fixed=small, vary=vary)
    # Every configuration by itself, from the same door.
    rows = []
    for kv in vary["kv"]:
        for corrections in vary["corrections"]:
            for chips in vary["chips"]:
                fixed = {**small, "kv": kv, "corrections": corrections, "chips": chips}
                try:
                    rows += search_loops("thought-ics", "llama3-8b", "h100", fixed=fixed)["front"]
                except DseError:
                    continue

    def beaten(row):
        return any(
            o["quality"] >= row["quality"] and o["total_kgco2e"] <= row["total_kgco2e"]
            and (o["quality"] > row["quality"] or o["total_kgco2e"] < row["total_kgco2e"]) for o in rows
        )  # fmt: skip

    wanted = sorted((row["quality"], row["total_kgco2e"]) for row in rows if not beaten(row))
    found = sorted((row["quality"], row["total_kgco2e"]) for row in answer["front"])
    assert np.array(found) == pytest.approx(np.array(wanted))
    moved = answer["prefix_cache"]
    assert moved["prefix"]["saved_at_equal_quality"]["total_kgco2e"]["median"] > 0
    assert moved["prefix"]["prefill_tokens_ratio"]["median"] > 1
    assert moved["tree"]["hypervolume"] >= moved["prefix"]["hypervolume"] >= 1


def test_figures_agree_with_each_other() -> None:
    answer = search_loops("srpo", "llama3-8b", "h100", fixed={"samples": 4, "suffixes": 4, "problems": 8}, objective="min:gco2e_per_solved")
    for row in answer["front"]:
        assert set(row) >= set(METRICS)
        assert row["energy_j_per_solved"] == pytest.approx(row["energy_j"] / row["quality"] * 100)
        assert row["total_kgco2e"] == pytest.approx(row["embodied_kgco2e"] + row["operational_kgco2e"])
        seconds = answer["deployment"]["lifetime_years"] * 365.25 * 86400
        assert row["gco2e_per_problem"] == pytest.approx(1e3 * row["total_kgco2e"] / seconds)
        assert row["service_utilisation"] == pytest.approx(row["latency_s"] / 8)
        assert row["latency_p50_s"] <= row["latency_p95_s"] <= row["latency_p99_s"]
        assert row["latency_p50_s"] == pytest.approx(row["latency_s"], rel=0.1)


def test_more_of_anything_never_costs_less() -> None:
    def cost(workload: str, **fixed):
        problem = loop_problem(workload, "llama3-8b", "h100", fixed={**fixed, "problems": 2, "chips": 1})
        (plan,) = problem.plans()
        points = points_of(problem)
        found = StageCosts(load("llama3-8b"), {}, points, [plan]).expected(plan)
        return float(found.latency_s[0]), float(found.energy_j[0])

    base = {"kv": "prefix", "samples": 1, "votes": 1, "corrections": 1, "thoughts": 3}
    for more in ({"samples": 2}, {"votes": 3}, {"corrections": 2}, {"kv": "none"}, {"thoughts": 4}, {"thought": 70}, {"judge": 300}):
        assert all(a > b for a, b in zip(cost("thought-ics", **{**base, **more}), cost("thought-ics", **base), strict=True)), more
    debate = {"kv": "prefix", "agents": 3, "rounds": 2}
    for more in ({"agents": 4}, {"rounds": 3}, {"kv": "none"}, {"answer": 250}, {"wrapper": 100}):
        assert all(a > b for a, b in zip(cost("maca", **{**debate, **more}), cost("maca", **debate), strict=True)), more


def test_counts_between_knots_are_close_to_their_own_tables() -> None:
    problem = loop_problem("maca", "llama3-8b", "h100", fixed={"chips": 1})
    points = points_of(problem)
    for work in (Work("decode", 60, 500), Work("prefill", 200, 100)):
        every = [Stage("think", work, 1, n) for n in range(1, 33)]
        between = Stage("think", work, 32)
        plan = Plan({"problems": 1}, (*every, between), 1.0, lambda rng, draws: np.zeros((draws, 0), dtype=np.int64))
        costs = StageCosts(load("llama3-8b"), {}, points, [plan])
        exact = np.array([costs.at(stage)[0][1, 0] for stage in every])
        # Tiles and waves make steps between the knots: docs/models/reasoning.md states this bound.
        assert np.abs(costs.at(between)[0][1:, 0] / exact - 1).max() < 0.12
        assert costs.at(between)[0][0, 0] == 0


def test_binomial_and_knots() -> None:
    assert binomial(3, 0.25) == pytest.approx([0.421875, 0.421875, 0.140625, 0.015625])
    assert binomial(4, 0.0).tolist() == [1, 0, 0, 0, 0]
    assert binomial(1, 0.3) == pytest.approx([0.7, 0.3])
    assert knots(10) == [1, 2, 3, 4, 6, 8, 10]
    assert binomial(640, 0.4).sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("workload", "fixed"),
    [
        ("thought-ics", {"samples": 2, "votes": 3, "corrections": 2, "judge": 20, "error": 0.15}),
        ("thought-ics", {"level": "oracle", "corrections": 3, "judge": 20, "localisation": 0.5}),
        ("maca", {"agents": 4, "rounds": 3, "answer": 30}),
        ("srpo", {"samples": 2, "suffixes": 3, "judge": 20, "error": 0.2}),
    ],
)
def test_loops_that_run_have_the_plans_tokens_and_quality(workload: str, fixed: dict) -> None:
    small = {"thoughts": 4, "thought": 8, "prompt": 40} if workload != "maca" else {"prompt": 40, "wrapper": 10}
    of, knobs, lengths, rates = chosen(workload, {**small, **fixed, "kv": "none"})
    problems = 800
    recorder = run_loops(of, knobs, lengths, rates, problems=problems, seed=3)
    plan = of.plan(lengths, rates, {**knobs, "problems": 1, "train": 0})
    sample = np.array([call.sample for call in recorder.calls])
    for kind, counted in (("prefill", "prompt_tokens"), ("decode", "output_tokens")):
        each = np.bincount(sample, [getattr(call, counted) for call in recorder.calls], problems)
        expected = sum(stage.sequences * stage.work.new_tokens for stage in plan.stages if stage.work.kind == kind)
        assert abs(each.mean() - expected) <= 3 * each.std() / np.sqrt(problems) + 1e-9, kind
    solved = np.mean([result[-1] for _, result in recorder.results])
    assert abs(solved - plan.quality) < 3 * np.sqrt(plan.quality * (1 - plan.quality) / problems)


def test_quality_of_a_table_and_of_a_trace(tmp_path: Path) -> None:
    of = LOOPS["thought-ics"]
    table = tmp_path / "acc.csv"
    table.write_text("model,samples,accuracy,accuracy_se\nllama3-8b,1,0.5,0.01\nllama3-8b,4,0.8,0.03\nllama3-70b,1,0.7,0.01\n")
    source = source_of(f"table:{table}", of)
    knobs = {"kv": "prefix", "samples": 1, "votes": 1, "corrections": 0, "level": "oracle", "problems": 1}

    def of_samples(n: int, model: str = "llama3-8b"):
        return source.of(Plan({**knobs, "samples": n}, (), 0.0, lambda rng, draws: np.zeros((0, 0), dtype=np.int64)), model)

    assert of_samples(1).solved == 0.5
    share = np.log(3 / 2) / np.log(5 / 2)  # between 1 and 4 over log(1 + samples)
    assert of_samples(2).solved == pytest.approx(0.5 + share * 0.3)
    assert of_samples(8) is None
    assert of_samples(4, "llama3-70b") is None
    answer = search_loops(
        "thought-ics", "llama3-8b,llama3-70b", "h200", quality=f"table:{table}", fixed={"problems": 8, "corrections": 0, "votes": 1}
    )
    assert {row["model"] for row in answer["front"]} <= {"llama3-8b", "llama3-70b"}
    assert answer["infeasible_reasons"]["quality not known"] > 0

    of, chosen_knobs, lengths, rates = chosen("thought-ics", {"corrections": 2, "thoughts": 3, "prompt": 20, "thought": 6})
    recorder = run_loops(of, chosen_knobs, lengths, rates, problems=40, seed=0)
    recorder.write(tmp_path / "t.jsonl")
    trace = source_of(f"trace:{tmp_path / 't.jsonl'}", of)
    shares = np.array([result for _, result in recorder.results]).mean(axis=0)
    for corrections in (0, 1, 2):
        plan = Plan({**knobs, "corrections": corrections}, (), 0.0, lambda rng, draws: np.zeros((0, 0), dtype=np.int64))
        assert trace.of(plan, "llama3-8b").solved == pytest.approx(shares[corrections])
    assert trace.of(Plan({**knobs, "corrections": 3}, (), 0.0, lambda rng, draws: np.zeros((0, 0), dtype=np.int64)), "") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("samples\n1\n", "no column 'accuracy'"),
        ("samples,accuracy\n1,1.5\n", "line 2"),
        ("samples,accuracy\n1,0.5\n1,0.6\n", "line 3.*twice"),
        ("sample,accuracy\n1,0.5\n", "samples"),
        ("samples,accuracy\nx,0.5\n", "line 2.*number"),
        ("samples,accuracy\n1\n", "line 2"),
        ("samples,accuracy\n", "no row"),
    ],
)
def test_a_table_that_says_nothing_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DseError, match=told):
        source_of(f"table:{tmp_path / 't.csv'}", LOOPS["thought-ics"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"model": "bert"}, "decoder"),
        ({"hw": "edge22"}, "device"),
        ({"hw": "h10"}, "h100"),
        ({"fixed": {"agents": 3}}, "unknown"),
        ({"vary": {"smaples": [1]}}, "samples"),
        ({"objective": "min:latency"}, "latency_s"),
        ({"constraints": ["latency_s<fast"]}, "must be"),
        ({"quality": "tabel:x"}, "scripted"),
        ({"fixed": {"samples": 1}, "vary": {"samples": [1]}}, "one of them"),
        ({"model": "llama3-8b,llama3-70b"}, "column 'model'"),
        ({"fixed": {"prompt": 9000}}, "too long"),
        ({"fixed": {"problems": 1}, "constraints": ["latency_s<=0.001"]}, "latency_s<=0.001 fails"),
        ({"vary": {"samples": list(range(1, 65)), "votes": list(range(1, 34)), "corrections": list(range(65))}}, "at most"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(words: dict, told: str) -> None:
    given = {"model": "llama3-8b", "hw": "h100", **words}
    with pytest.raises((DseError, ValueError), match=told):
        search_loops("thought-ics", given.pop("model"), given.pop("hw"), **given)


def test_command_line_search_and_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = "search --workload maca --model llama3-8b --hw h100,l40s --objective carbon --vary agents=1,3 --set problems=8 --json --out"
    assert main([*words.split(), str(out)]) == 0
    answer = json.loads(capsys.readouterr().out)
    rows = list(csv.DictReader((out / "pareto.csv").read_text().splitlines()))
    assert len(rows) == len(answer["front"]) > 0
    page = (out / "report.html").read_text()
    assert "The front moves with a prefix cache" in page and "<script" not in page
    assert main(["search", "--workload", "maca", "--model", "llama3-8b", "--hw", "h100", "--space", "x"]) == 2
    assert "space is not for a loop" in capsys.readouterr().err
    run = tmp_path / "sim"
    words = "simulate --workload thought-ics --model llama3-8b --hw h100 --requests 10 --set corrections=1 --set thoughts=4 --json --out"
    assert main([*words.split(), str(run)]) == 0
    told = json.loads(capsys.readouterr().out)["loop"]
    assert told["problems"] == 10 and told["energy_j_per_solved"] >= told["energy_j_per_problem"]
    page = (run / "report.html").read_text()
    assert "Batch and queue over time" in page and "Problems of thought-ics" in page
    # The trace that it wrote is a load and a source of quality.
    assert main(["simulate", "--workload", "llama3-8b", "--hw", "h100", "--trace", str(run / "trace.jsonl"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] == told["calls"]
    assert main(["simulate", "--workload", "maca", "--model", "llama3-8b", "--hw", "h100", "--set", "kv=tree"]) == 2
    assert "nearest is 'prefix'" in capsys.readouterr().err
    assert main(["simulate", "--workload", "llama3-8b", "--hw", "h100", "--concurrency", "1", "--set", "kv=none"]) == 2


def test_prefix_cache_saves_on_the_engine_too() -> None:
    from dse.serving.reasoning import requests_of
    from dse.serving.simulation import Setup, run

    found = {}
    for kv in ("none", "prefix"):
        of, knobs, lengths, rates = chosen("thought-ics", {"corrections": 1, "kv": kv})
        recorder = run_loops(of, knobs, lengths, rates, problems=20, seed=1)
        found[kv] = run(Setup("llama3-8b", "h100", prefix_cache=kv == "prefix"), requests_of(recorder.calls))
    assert found["prefix"].outcome.prefill_tokens * 3 < found["none"].outcome.prefill_tokens
    assert found["prefix"].energy_j.sum() < found["none"].energy_j.sum()


@pytest.mark.parametrize("hw", ["jetson-orin", "server-cpu", "tpu-v5e"])
def test_any_device_serves(hw: str) -> None:
    fixed = {"problems": 2, "agents": 3, "rounds": 2, "prompt": 60, "answer": 40}
    deployment = Deployment(rate_per_s=1e-4, carbon_profile="default")
    answer = search_loops("maca", "llama3.2-1b", hw, fixed=fixed, deployment=deployment)
    assert answer["front"] and {row["device"] for row in answer["front"]} == {hw}
    assert answer["prefix_cache"]["prefix"]["prefill_tokens_ratio"]["median"] > 1


def test_no_chips_is_an_error() -> None:
    with pytest.raises(UsageError, match="chips is 0"):
        search_loops("maca", "llama3-8b", "h100", fixed={"chips": 0})
