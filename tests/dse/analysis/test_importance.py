"""Growth of the front and importance of knobs, against plain computations on a small space."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dse import api
from dse.analysis.importance import importance
from dse.evaluation.evaluation import Evaluation

SMALL = {"cores": 2, "depth": 16, "l2_words_per_cycle": 64}


def test_the_front_grows_to_all_of_its_volume(tmp_path: Path) -> None:
    problem = api.make_problem("bert", "carbon", fixed=SMALL)
    run = api.search(problem, out=tmp_path / "run", block_points=200)
    growth = run.context["convergence"]
    shares = growth["hypervolume"]
    assert growth["evaluations"][-1] == run.summary.points
    assert shares[-1] == pytest.approx(1.0, rel=1e-12)
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(shares))
    assert 0.0 <= shares[0] < 1.0


def test_one_block_has_no_growth(tmp_path: Path) -> None:
    run = api.search(api.make_problem("bert", "carbon", fixed=SMALL), out=tmp_path / "run")
    assert run.context["convergence"] is None


def test_importance_equals_a_group_by_over_the_whole_space() -> None:
    problem = api.make_problem("bert", ["min:energy_j", "min:area_mm2"], fixed=SMALL)
    evaluation = Evaluation(problem, threads=1)
    found = {(row["knob"], row["metric"]): row["share"] for row in importance(evaluation, problem.objectives, few=10**6)}
    block = evaluation.block(0, evaluation.space.model_count)
    rows = []
    for model in range(block.shape[0]):
        for point in range(block.shape[1]):
            design = evaluation.space.design(model, point)
            values = {n: float(np.broadcast_to(block.metric(n), block.shape)[model, point]) for n in ("energy_j", "area_mm2")}
            rows.append({**design, **{name: np.log(value) for name, value in values.items()}})
    frame = pd.DataFrame(rows)
    for (knob, metric), share in found.items():
        means = frame.groupby(knob)[metric].transform("mean")
        assert share == pytest.approx(means.var(ddof=0) / frame[metric].var(ddof=0), abs=1e-12), (knob, metric)
    assert found["layers", "area_mm2"] == pytest.approx(0.0, abs=1e-12)  # the die does not know the model
    assert ("cores", "area_mm2") not in found  # fixed knobs explain nothing and are not listed


def test_a_knob_without_effect_is_never_charged_with_another_ones() -> None:
    # The surrogate does not see ffn and heads; in this space they move on their own, so their share is nothing.
    problem = api.make_problem("bert", "carbon", space="catransformers", fixed={**SMALL, "glb_mib": 4})
    evaluation = Evaluation(problem, threads=1)
    found = {(row["knob"], row["metric"]): row["share"] for row in importance(evaluation, problem.objectives)}
    assert found["ffn", "quality"] == pytest.approx(0.0, abs=1e-12)
    assert found["heads", "quality"] == pytest.approx(0.0, abs=1e-12)
    assert found["width", "quality"] == pytest.approx(0.0, abs=1e-12)
    assert found["hidden", "quality"] + found["layers", "quality"] == pytest.approx(1.0, abs=1e-9)
