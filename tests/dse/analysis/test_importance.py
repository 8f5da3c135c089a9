"""Growth of the front and importance of knobs, against plain computations on a small space."""

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dse import api
from dse.analysis.importance import importance, shapley_effects
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


def _by_permutations(frame: pd.DataFrame, groups: list[str], metric: str) -> dict[str, float]:
    """Shapley effects by their definition: the variance that a knob adds, averaged over all orders."""
    total = frame[metric].var(ddof=0)

    @cache
    def explained(known: frozenset[str]) -> float:
        return float(frame.groupby(sorted(known))[metric].transform("mean").var(ddof=0)) if known else 0.0

    shares = dict.fromkeys(groups, 0.0)
    orders = list(itertools.permutations(groups))
    for order in orders:
        for place, knob in enumerate(order):
            shares[knob] += explained(frozenset(order[: place + 1])) - explained(frozenset(order[:place]))
    return {knob: share / len(orders) / total for knob, share in shares.items()}


def test_importance_equals_shapley_effects_by_their_definition_over_the_whole_space() -> None:
    problem = api.make_problem("bert", ["min:energy_j", "min:area_mm2"], fixed=SMALL)
    evaluation = Evaluation(problem, threads=1)
    found = {(row["knob"], row["metric"]): row["share"] for row in importance(evaluation, problem.objectives, most_cells=10**9)}
    block = evaluation.block(0, evaluation.space.model_count)
    rows = []
    for model in range(block.shape[0]):
        for point in range(block.shape[1]):
            design = evaluation.space.design(model, point)
            values = {n: float(np.broadcast_to(block.metric(n), block.shape)[model, point]) for n in ("energy_j", "area_mm2")}
            rows.append({**design, **{name: np.log(value) for name, value in values.items()}})
    frame = pd.DataFrame(rows)
    groups = ["layers", "hidden", "width", "l2_kib", "glb_mib"]  # ffn and heads follow hidden in this space
    for metric in ("energy_j", "area_mm2"):
        wanted = _by_permutations(frame, groups, metric)
        assert sum(wanted.values()) == pytest.approx(1.0, abs=1e-9)
        for knob in groups:
            name = "hidden + ffn + heads" if knob == "hidden" else knob
            assert found[name, metric] == pytest.approx(wanted[knob], abs=1e-9), (knob, metric)
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


def test_shares_of_dependent_knobs_add_to_one() -> None:
    """Two knobs of which one decides the other half of the time: by hand from the definition."""
    a = np.array([0, 0, 1, 1])
    b = np.array([0, 1, 1, 1])
    values = np.array([0.0, 2.0, 2.0, 4.0])
    # V(a) = var of (1, 1, 3, 3) = 1; V(b) = var of (0, 8/3, 8/3, 8/3) = 4/3; V(ab) = var of (0, 2, 3, 3) = 1.5.
    both = 1.5
    wanted = {"a": (1.0 + both - 4 / 3) / 2 / both, "b": (4 / 3 + both - 1.0) / 2 / both}
    found = shapley_effects(values, {"a": a, "b": b})
    assert found == pytest.approx(wanted, rel=1e-12)
    assert sum(found.values()) == pytest.approx(1.0, rel=1e-12)


def test_many_knobs_are_charged_together_and_still_add_to_one() -> None:
    random = np.random.default_rng(0)
    columns = {f"k{i}": random.integers(0, 2, 4096) for i in range(13)}
    values = 5.0 * columns["k3"] + 3.0 * columns["k7"] + sum(0.1 * column for column in columns.values())
    found = shapley_effects(values, columns)
    assert len(found) == 10 and "other knobs" in found
    assert sum(found.values()) == pytest.approx(1.0, rel=1e-9)
    assert found["k3"] > found["k7"] > 0.1 > found["other knobs"]
