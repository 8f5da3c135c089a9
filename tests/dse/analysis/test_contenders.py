"""Contenders against all designs of a space, costed one deployment after the other by the service model itself."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carbon.operational.service import equal_service
from dse import api
from dse.analysis.explanation import explain
from dse.evaluation.evaluation import Evaluation
from dse.evaluation.feasibility import feasible


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return api.search("resnet-50", "carbon", out=tmp_path_factory.mktemp("contenders") / "run", fixed={"l2_words_per_cycle": 64})


def test_the_best_of_the_space_is_always_on_the_front_or_beside_it(run: Any) -> None:
    evaluation = Evaluation(run.problem, threads=1)
    block, p = evaluation.block(0, 1), evaluation.points
    held = [c for c in run.problem.constraints if c.metric != "service_utilisation"]
    found = feasible(block, held)[0][0]
    energy, latency = (np.broadcast_to(block.metric(name), block.shape)[0] for name in ("energy_j", "latency_s"))
    known = {tuple(d["knobs"].values()) for d in (*run.designs, *run.contenders)}
    assert len(known) == 1 + len(run.contenders) < found.sum() / 4, "they are a small part of what is feasible"
    generator = np.random.default_rng(0)
    winners = set()
    for _ in range(300):
        grid, years, rate = 10 ** generator.uniform(0, 3.1), 10 ** generator.uniform(-1, 1.5), 10 ** generator.uniform(-3, 2)
        used = equal_service(
            np.where(found, energy, 0.0), np.where(found, latency, 0.0), idle_w=p.leakage_w, rate_per_s=rate, lifetime_years=years,
            pue=p.pue, gco2e_per_kwh=grid, concurrency=p.in_flight,
        )  # fmt: skip
        # Another price of making a square millimetre is what other factors of carbon come to, memory and package held.
        made = p.embodied_kgco2e * generator.uniform(0.5, 2.0) + p.area_mm2 * generator.uniform(0.0, 0.1)
        total = np.where(found & np.asarray(used.feasible), made + np.asarray(used.operational_kgco2e), np.inf)
        if np.isfinite(total.min()):
            # Equal ones are one choice.
            best = np.flatnonzero(total <= total.min() * (1 + 1e-9))
            named = {tuple(evaluation.space.design(0, int(i)).values()) for i in best}
            assert named & known
            winners |= named & known
    assert len(winners) > 3, "deployments differ in what they want"


def test_explain_and_robustness_hold_a_single_design_against_the_contenders(run: Any) -> None:
    assert len(run) == 1
    explained = explain(run)
    assert len(explained.candidates) == 1 + len(run.contenders)
    assert len({int(i) for i in explained.oracle[explained.possible].tolist()}) > 1
    drawn = run.robustness(draws=50)
    assert drawn.total.values.shape[1] > 1 and "least" in repr(drawn)
    number = run.contenders[-1]["design"]
    assert run.evaluate(number)["design"].items() >= run.contenders[-1]["knobs"].items()
    assert not any("keep their order" in note for note in run.context["uncertainty"]["notes"])


def test_shards_keep_no_contenders_and_say_so(tmp_path: Path) -> None:
    options: Any = {"hw": "edge22", "fixed": {"l2_words_per_cycle": 64, "glb_mib": 2, "cores": 1}}
    found = api.search("resnet-50", "carbon", out=tmp_path / "run", sharded=api.ShardSettings("inline", 2), **options).recommend()
    assert found.kept_share is None and "search there too" in str(found)


def test_models_that_were_not_measured_are_no_contenders(tmp_path: Path) -> None:
    """Without a standard error quality is weighed as a cost, and a model without a quality has none to weigh."""
    run = api.search(
        "bert", "carbon", quality=lambda model: 60.0 + model["layers"], strategy="random", budget=3, out=tmp_path / "run", residency="none",
        vary={"glb_mib": [2, 4, 8]},
    )  # fmt: skip
    measured = {tuple(row) for row in run.trials()[["layers", "hidden"]].itertuples(index=False)}
    assert {(d["knobs"]["layers"], d["knobs"]["hidden"]) for d in run.contenders} <= measured
    assert run.recommend().compared_with
