"""The road end to end on a reduced space: the front is exact, and nothing but the problem decides its bytes."""

import csv
import itertools
import json
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import carbon.device.profiles
import carbon.factors.grid
import hw_models.costs.evaluate
import hw_models.spaces
from dse import api
from dse.problem.deployment import Deployment
from dse.problem.problem import Problem
from dse.quality.surrogate import EXTRAPOLATED, bert_mnli
from workloads import library

# REDUCED is 60 accelerators, SMALL 20 of them; both meet the 38 supported BERT models.
REDUCED = {"cores": 2, "depth": 16, "l2_words_per_cycle": 64}
SMALL = {**REDUCED, "glb_mib": 4}


def small_problem(objective: str | list[str] = "carbon", **options) -> Problem:
    return api.make_problem("bert", objective, fixed=options.pop("fixed", SMALL), **options)


@pytest.fixture(scope="module")
def reference_run(tmp_path_factory: pytest.TempPathFactory) -> api.Run:
    return api.search(small_problem(), out=tmp_path_factory.mktemp("reference") / "run", threads=1)


def _plain_designs(problem: Problem) -> list[dict]:
    """Every design of the space, costed one at a time with scalar calls and plain arithmetic."""
    family = library.load("bert")
    template = hw_models.spaces.load("edge22")
    intensity = carbon.factors.grid.lookup(problem.deployment.grid).gco2e_per_kwh
    knobs = {name: [problem.fixed[name]] if name in problem.fixed else list(values) for name, values in template.knobs.items()}
    designs = []
    for layers, hidden in itertools.product(range(2, 13), range(128, 769, 64)):
        model = {"layers": layers, "hidden": hidden, "ffn": 4 * hidden, "heads": hidden // 64}
        quality = bert_mnli().predict(**{name: np.array([value]) for name, value in model.items()})
        if quality.support[0] == EXTRAPOLATED:
            continue
        (phase,) = family.build(**model).phases
        for values in itertools.product(*knobs.values()):
            hardware = dict(zip(knobs, (int(v) for v in values), strict=True))
            accelerator = template.accelerator(**hardware)
            cost = hw_models.costs.evaluate.evaluate(accelerator, phase.table)
            requests = problem.deployment.rate_per_s * problem.deployment.lifetime_years * 365.25 * 86400
            busy = float(cost.latency_s) * problem.deployment.rate_per_s
            batch = accelerator.batch()
            idle_w = float(batch.leakage_w[0])
            seconds = problem.deployment.lifetime_years * 365.25 * 86400
            joules = float(cost.energy_j) * requests + idle_w * (1 - busy) * seconds
            operational = joules * problem.deployment.pue / 3.6e6 * intensity / 1000
            embodied = carbon.device.profiles.device_embodied(
                problem.deployment.carbon_profile,
                area_mm2=float(batch.area_mm2[0]),
                node_nm=22.0,
                memory_type="lpddr4",
                memory_gb=1.0,
                fab_grid=problem.deployment.fab_grid,
            )
            metrics = {
                "quality": float(quality.mean[0]),
                "latency_s": float(cost.latency_s),
                "energy_j": float(cost.energy_j),
                "total_kgco2e": float(embodied.embodied_kgco2e) + operational,
            }
            tops = hardware["cores"] * hardware["width"] * hardware["depth"] * 2 * 625e6 / 1e12
            feasible = metrics["latency_s"] <= 0.05 and float(batch.area_mm2[0]) <= 31.990347 and tops <= 20.48 and busy <= 1
            designs.append({"knobs": {**model, **hardware}, "metrics": metrics, "feasible": feasible})
    return designs


@pytest.fixture(scope="module")
def plain_designs() -> list[dict]:
    """Those of the small problem, whose space and deployment no objective or constraint changes."""
    return _plain_designs(small_problem())


def _dominated(point: tuple, others: list[tuple]) -> bool:
    return any(all(o <= p for o, p in zip(other, point, strict=True)) and other != point for other in others)


@pytest.mark.parametrize("objective", ["carbon", "all"])
def test_front_equals_an_independent_brute_force(objective: str, tmp_path: Path, plain_designs: list[dict]) -> None:
    problem = small_problem(objective, residency="none")  # the plain arithmetic costs every operation by itself
    run = api.search(problem, out=tmp_path / "run")
    feasible = [design for design in plain_designs if design["feasible"]]
    assert run.summary.feasible == len(feasible)

    # The batched sums may differ from the plain ones in the last bits, so values are rounded before they are compared.
    def vector(design: dict) -> tuple:
        return tuple(float(f"{o.sign * design['metrics'][o.metric]:.9e}") for o in problem.objectives)

    vectors = [vector(design) for design in feasible]
    expected = {
        json.dumps(design["knobs"], sort_keys=True)
        for design, point in zip(feasible, vectors, strict=True)
        if not _dominated(point, vectors)
    }
    assert {json.dumps(design["knobs"], sort_keys=True) for design in run.designs} == expected


@pytest.mark.parametrize(("threads", "block_points"), [(1, 1), (2, 40), (2, 1 << 18), (3, 100)])
def test_chunks_and_threads_do_not_change_a_byte(reference_run: api.Run, tmp_path: Path, threads: int, block_points: int) -> None:
    run = api.search(small_problem(), out=tmp_path / "run", threads=threads, block_points=block_points)
    assert (run.path / "pareto.csv").read_bytes() == (reference_run.path / "pareto.csv").read_bytes()
    assert run.summary == reference_run.summary


def test_blocks_in_any_order_give_the_same_front(reference_run: api.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dse.searches import prepared, sweep

    bounds = sweep.block_bounds
    monkeypatch.setattr(prepared, "block_bounds", lambda m, h, p: random.Random(3).sample(bounds(m, h, 40), len(bounds(m, h, 40))))
    run = api.search(small_problem(), out=tmp_path / "run")
    assert (run.path / "pareto.csv").read_bytes() == (reference_run.path / "pareto.csv").read_bytes()


def test_run_folder_is_complete_and_can_be_read_again(reference_run: api.Run) -> None:
    path = reference_run.path
    assert {"study.db", "pareto.csv", "report.html", "designs"} <= {item.name for item in path.iterdir()}
    again = api.load(path)
    assert again.designs == reference_run.designs
    assert again.problem == reference_run.problem
    frame = again.pareto()
    assert len(frame) == len(reference_run)
    assert (frame["quality"].diff().dropna() <= 0).all()  # canonical order: the best quality first
    assert len(list((path / "designs").glob("*.toml"))) == len(reference_run)


def test_a_design_file_is_an_accelerator_again(reference_run: api.Run) -> None:
    first = reference_run.designs[0]
    model = {name: first["knobs"][name] for name in ("layers", "hidden", "ffn", "heads")}
    answer = api.evaluate("bert", str(reference_run.path / "designs" / "design-0001.toml"), fixed=model)
    for name, value in first["metrics"].items():
        if not name.startswith("quality"):
            assert answer[name] == pytest.approx(value, rel=1e-12), name
    # One chip, one operation after the other: each unit is busy for a part of the time, and the links never.
    busy = answer["busy_s"]
    assert 0 < busy["dram"] < busy["array"] < answer["latency_s"] and 0 < busy["vector"] < answer["latency_s"] and busy["link"] == 0.0


def test_evaluate_equals_the_sweep(reference_run: api.Run) -> None:
    for design in reference_run.designs[:: max(1, len(reference_run) // 5)]:
        answer = api.evaluate("bert", "edge22", fixed=design["knobs"])
        for name, value in design["metrics"].items():
            assert answer[name] == value, name
        assert math.fsum(c["latency_s"] for c in answer["components"]) == pytest.approx(answer["latency_s"], rel=1e-12)
        assert sum(c["macs"] for c in answer["components"]) == answer["macs"]
        assert sum(answer["embodied_parts_kgco2e"].values()) == pytest.approx(answer["embodied_kgco2e"], rel=1e-12)


def test_constraints_hold_and_are_counted(tmp_path: Path, plain_designs: list[dict]) -> None:
    run = api.search(small_problem(constraints=["latency_s<=0.004", "quality>=76"], residency="none"), out=tmp_path / "run")
    assert all(d["metrics"]["latency_s"] <= 0.004 and d["metrics"]["quality"] >= 76 for d in run.designs)
    assert run.summary.reasons["latency_s<=0.004"] > 0
    assert run.summary.reasons["quality>=76.0"] > 0
    plain = [d for d in plain_designs if d["metrics"]["latency_s"] > 0.004]
    assert run.summary.reasons["latency_s<=0.004"] == len(plain)


def _search_command(out: Path) -> list[str]:
    sets = [word for name, value in REDUCED.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "dse", "search", "--workload", "bert", "--objective", "carbon", "--out", str(out)]
    return [*command, *sets, "--block-points", "60", "--threads", "1"]


def test_killed_at_any_moment_nothing_is_lost_and_resume_finishes(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    subprocess.run(_search_command(whole), check=True, capture_output=True, timeout=300)
    reference = (whole / "pareto.csv").read_bytes()
    interrupted = 0
    for attempt, blocks in enumerate((0, 3, 12, 30)):
        out = tmp_path / f"killed-{attempt}"
        process = subprocess.Popen(_search_command(out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while process.poll() is None and _blocks(out) < blocks and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if not (out / "study.db").exists():
            continue  # killed before there was a study: nothing was committed
        kept = _blocks(out)
        interrupted += not (out / "pareto.csv").exists()
        command = [sys.executable, "-m", "dse", "resume", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            # Killed while the empty file was being made: there is no study yet, and the answer says so.
            assert kept == 0
            assert "Traceback" not in done.stderr
            continue
        assert _blocks(out) >= kept
        assert (out / "pareto.csv").read_bytes() == reference
    assert interrupted >= 2, "no attempt was killed in mid-sweep: the test did not test"


def _blocks(out: Path) -> int:
    import sqlite3

    if not (out / "study.db").exists():
        return 0
    connection = sqlite3.connect(f"file:{out / 'study.db'}?mode=ro", uri=True)
    try:
        return int(connection.execute("select count(*) from blocks").fetchone()[0])
    except sqlite3.DatabaseError:
        return 0
    finally:
        connection.close()


def test_varied_deployments_equal_searches_of_each(tmp_path: Path) -> None:
    """A search over grids and nodes holds, for each, exactly the designs that a search with that one finds."""
    both = api.search(
        small_problem(["min:total_kgco2e", "max:quality"], vary={"node_nm": (22, 14), "grid": ("france", "india")}), out=tmp_path / "both"
    )
    assert both.summary.points == 4 * 38 * 20
    merged = []
    for node in (22, 14):
        for grid in ("france", "india"):
            deployment = Deployment(grid=grid)
            problem = small_problem(["min:total_kgco2e", "max:quality"], vary={"node_nm": (node,)}, deployment=deployment)
            run = api.search(problem, out=tmp_path / f"{node}-{grid}")
            merged += [(d["metrics"]["total_kgco2e"], -d["metrics"]["quality"], node, grid) for d in run.designs]
    expected = sorted({p for p in merged if not any(q[0] <= p[0] and q[1] <= p[1] and q[:2] != p[:2] for q in merged)})
    found = sorted(
        {(d["metrics"]["total_kgco2e"], -d["metrics"]["quality"], int(d["knobs"]["node_nm"]), d["knobs"]["grid"]) for d in both.designs}
    )
    assert found == expected


def test_list_of_designs_equals_evaluate(tmp_path: Path, reference_run: api.Run) -> None:
    from dse.evaluation.design_list import evaluate_designs

    out = tmp_path / "out.csv"
    problem = api.make_problem("bert", "hardware", allow_unsupported=True)
    assert evaluate_designs(problem, str(reference_run.path / "pareto.csv"), str(out), allow_unsupported=False) == len(reference_run)
    written = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    for name in ("latency_s", "energy_j", "total_kgco2e", "quality"):
        assert [float(row[name]) for row in written] == [design["metrics"][name] for design in reference_run.designs]


def test_a_design_file_evaluated_with_another_model_says_so(reference_run: api.Run) -> None:
    """The model that the file was found for is taken; where another is set, what the file has is told."""
    chosen = next(design for design in reference_run.designs if design["knobs"]["layers"] != 12)
    file = reference_run.path / "designs" / f"design-{chosen['design']:04d}.toml"
    told = [line for line in api.evaluate("bert", hw=str(file), fixed={"layers": 12})["cautions"] if "another model" in line]
    assert told and f"layers={chosen['knobs']['layers']}" in told[0]
    same = api.evaluate("bert", hw=str(file))
    assert not [line for line in same["cautions"] if "another model" in line]
    assert same["model_from"]["knobs"]["layers"] == chosen["knobs"]["layers"]
    other = api.evaluate("gpt2", hw=str(file))
    assert [line for line in other["cautions"] if "found for workload bert" in line]
    assert same["total_kgco2e"] == pytest.approx(chosen["metrics"]["total_kgco2e"], rel=1e-9)
