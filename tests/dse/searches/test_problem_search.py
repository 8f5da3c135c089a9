"""Search of a real problem: BERT on edge22 through dse.evaluation.evaluation, its result, refinement."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dse import api
from dse.evaluation.evaluation import Evaluation
from dse.quality.evaluators import FunctionEvaluator, SurrogateEvaluator
from dse.quality.noise import ScaledEvaluator
from dse.searches.measured_search import search
from dse.searches.refine import levels, refine
from dse.searches.sweep import sweep_block
from dse.storage.trials import TrialStore
from dse.strategies.views import nested_task

# 121 models on 3 x 2 x 3 = 18 designs: the joint space is small enough to sweep in the test.
_FIXED = {"l2_words_per_cycle": 128, "glb_mib": 4, "l2_kib": 256, "depth": 16}


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """BERT's default models on a part of edge22."""
    return Evaluation(api.make_problem("bert", "carbon", fixed=_FIXED), threads=1)


def _swept(evaluation: Evaluation) -> Any:
    problem = evaluation.problem
    return sweep_block(evaluation, problem.objectives, problem.constraints, 0, 0, evaluation.space.model_count)


def test_inner_fronts_are_the_sweeps(evaluation: Evaluation) -> None:
    task = nested_task(evaluation, SurrogateEvaluator("bert"))
    assert task.inner is not None
    block = evaluation.block(0, evaluation.space.model_count)
    carbon = np.broadcast_to(block.metric("total_kgco2e"), block.shape)
    for i in range(0, evaluation.space.model_count, 17):
        front, chosen = task.inner.fronts[i], task.inner.choices[i]
        assert front[:, 0] == pytest.approx(carbon[i, chosen])


def test_searching_all_models_gives_the_sweeps_front(evaluation: Evaluation, tmp_path: Path) -> None:
    found = search(evaluation, TrialStore.open(tmp_path / "s.db"), SurrogateEvaluator("bert"), strategy="exhaustive", budget=500)
    expected = _swept(evaluation)
    assert found.reason == "the space is exhausted"
    assert np.array_equal(found.front.models, expected.front_models)
    assert np.array_equal(found.front.hardware, expected.front_hardware)
    assert found.front.values == pytest.approx(expected.front_values, rel=1e-12)


def test_auto_is_nested_and_finds_most_of_the_front(evaluation: Evaluation, tmp_path: Path) -> None:
    from dse.fronts.pareto import hypervolume

    said: list[str] = []
    found = search(evaluation, TrialStore.open(tmp_path / "s.db"), SurrogateEvaluator("bert"), budget=25, say=said.append)
    assert found.strategy == "nested"
    assert said[0].startswith("strategy nested: quality is evaluated")
    assert len(found.quality) == 25
    expected = _swept(evaluation).front_values
    reference = expected.max(0) + 0.1 * np.ptp(expected, axis=0)
    # 25 of 121 models; the exact front has fewer.
    assert hypervolume(found.front.values, reference) > 0.97 * hypervolume(expected, reference)


def test_confirmed_front_carries_the_new_measurements(evaluation: Evaluation, tmp_path: Path) -> None:
    noisy = ScaledEvaluator(SurrogateEvaluator("bert"), 2.0)
    store = TrialStore.open(tmp_path / "s.db")
    found = search(evaluation, store, noisy, strategy="random", budget=15, confirmations=4, seed=1)
    assert found.confirmation is not None
    assert found.confirmation.curse.mean > 0
    again = search(evaluation, store, noisy, strategy="random", budget=15, confirmations=4, seed=1)
    assert np.array_equal(again.front.values, found.front.values)
    confirmed = {round(m.mean, 9) for m in found.confirmation.quality.values()}
    assert {round(-v, 9) for v in found.front.values[:, 0]} <= confirmed


def test_flat_view_of_a_full_product(tmp_path: Path) -> None:
    problem = api.make_problem("bert", "carbon", space="catransformers", fixed={**_FIXED, "layers": 6, "heads": 12})
    whole = Evaluation(problem, threads=1)
    found = search(whole, TrialStore.open(tmp_path / "s.db"), SurrogateEvaluator("bert"), strategy="flat", budget=16)
    assert len(found.trials) == 16
    assert len(found.front)
    model, hardware = int(found.front.models[0]), int(found.front.hardware[0])
    block = whole.block(model, model + 1)
    carbon = np.broadcast_to(block.metric("total_kgco2e"), block.shape)[0, hardware]
    assert found.front.values[0, 1] == pytest.approx(carbon)


def test_user_function_as_evaluator(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluator = FunctionEvaluator(lambda p, fidelity, seed: (60.0 + p["layers"], 0.1))
    found = search(evaluation, TrialStore.open(tmp_path / "s.db"), evaluator, budget=10)
    assert all(m.mean == 60.0 + evaluation.space.models["layers"][i] for i, m in found.quality.items())


def test_refine_levels_stay_whole_and_between() -> None:
    assert levels((32, 64), "width", 1).tolist() == [32, 45, 64]
    assert levels((1, 2, 4), "cores", 2).tolist() == [1, 2, 3, 4]
    assert levels((0.5, 0.7), "voltage_v", 1) == pytest.approx([0.5, 0.6, 0.7])
    assert levels((0.25, 0.5, 1.0, 2.0), "glb_mib", 1, 0.0625).tolist() == [0.25, 0.375, 0.5, 0.6875, 1.0, 1.4375, 2.0]
    assert levels(("a", "b"), "kind", 3).tolist() == ["a", "b"]


def test_refine_only_improves_and_costs_exactly(evaluation: Evaluation) -> None:
    problem = api.make_problem("bert", "carbon", fixed={"l2_words_per_cycle": 128, "glb_mib": 4})
    swept = _swept(evaluation)
    designs = [evaluation.space.design(m, h) for m, h in list(zip(swept.front_models, swept.front_hardware, strict=True))[::6]]
    found = refine(problem, designs, resolution=1, rounds=3, threads=1)
    assert found.growth >= 0
    assert found.gained > 0
    block = found.evaluation.block(0, found.evaluation.space.model_count)
    carbon = np.broadcast_to(block.metric("total_kgco2e"), block.shape)[found.front.models, found.front.hardware]
    assert found.front.values[:, 1] == pytest.approx(carbon)
    area = np.broadcast_to(block.metric("area_mm2"), block.shape)[found.front.models, found.front.hardware]
    assert (area <= 31.990347).all()


def test_refine_command_writes_a_run_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import argparse

    from dse.commands.refine import register
    from dse.storage.run_folder import load

    api.search("bert", "carbon", out=tmp_path / "run", fixed={**_FIXED, "layers": 12}, threads=1)
    parser = argparse.ArgumentParser()
    register(parser.add_subparsers())
    args = parser.parse_args(["refine", str(tmp_path / "run"), "--resolution", "1", "--rounds", "2", "--threads", "1", "--json"])
    args.words = []
    assert args.run(args) == 0
    start, refined = load(tmp_path / "run"), load(tmp_path / "run-refined")
    assert (tmp_path / "run-refined" / "pareto.csv").exists()
    best = min(design["metrics"]["total_kgco2e"] for design in start.designs)
    assert min(design["metrics"]["total_kgco2e"] for design in refined.designs) <= best
    assert refined.provenance["refined_from"] == str(tmp_path / "run")
    # What is told of the refinement is its own: its counts, and no claim of having enumerated a space.
    assert refined.summary.points == refined.context["models"] * refined.context["hardware_points"]
    assert len(refined.designs) < refined.summary.feasible <= refined.summary.points
    assert refined.context["strategy"]["name"] == "refine"
    assert "importance" not in refined.context
    text = (tmp_path / "run-refined" / "report.html").read_text(encoding="utf-8")
    assert "whole space was enumerated" not in text
    assert "others that were not evaluated may be better" in text
    assert '"refined_from"' in capsys.readouterr().out


def test_refine_keeps_measured_quality(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dse.api import refine as refine_run
    from dse.searches.plan import MeasuredSettings

    (tmp_path / "measure_it.py").write_text("def score(p, fidelity, seed):\n    return 50.0 + p['layers'], 0.25\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    settings = MeasuredSettings(quality="python:measure_it:score", budget=8)
    start = api.search("bert", "carbon", out=tmp_path / "run", fixed=_FIXED, measured=settings, threads=1)
    refined = refine_run(tmp_path / "run", resolution=1, rounds=1, threads=1)
    assert {d["quality_support"] for d in refined.designs} == {"measured"}
    assert {d["metrics"]["quality"] for d in refined.designs} <= {d["metrics"]["quality"] for d in start.designs}
    assert all(d["metrics"]["quality"] == 50.0 + d["knobs"]["layers"] for d in refined.designs)


def test_refine_keeps_to_the_constraints_of_the_space(tmp_path: Path) -> None:
    """Knobs tied by an equation stay, others move only where an inequality lets them, and memories hold whole KiB."""
    space = tmp_path / "tied.toml"
    lines = [
        f'[parameters.{name}]\nrole = "hardware"\nvalues = {values}\n'
        for name, values in (("cores", [1, 4]), ("width", [32, 128]), ("depth", [8, 16]), ("glb_mib", [2, 8]))
    ]
    space.write_text('name = "tied"\nconstraints = ["width == 32 * cores", "glb_mib <= 2 * cores"]\n' + "\n".join(lines))
    problem = api.make_problem("bert", "hardware", space=str(space), fixed={"layers": 12, "hidden": 768})
    designs = [d["knobs"] for d in api.search(problem, out=tmp_path / "run", threads=1).designs]
    found = refine(problem, designs, resolution=1, rounds=3, threads=1)
    hardware = found.evaluation.space.hardware
    assert (hardware["width"] == 32 * hardware["cores"]).all() and (hardware["glb_mib"] <= 2 * hardware["cores"]).all()
    assert levels((512 * 1024, 4096 * 1024), "sram_bytes", 2).tolist() == [x * 1024 for x in (512, 861, 1448, 2435, 4096)]
