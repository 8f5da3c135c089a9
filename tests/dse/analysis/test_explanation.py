"""Segments, costs and assignments of a run's designs, and the neighbours of a design."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import carbon.factors.grid
from dse import api
from dse.analysis import neighbours, policy_tree
from dse.analysis.explanation import Candidates, Segments, assign, candidates_of, explain, make_segments, question, total_costs
from dse.errors import DseError, UsageError
from dse.problem.deployment import Deployment
from dse.reports import explanation_text
from dse.run import Run

MODEL = {"layers": 12, "hidden": 768}
HARDWARE = ["min:latency_s", "min:energy_j", "min:embodied_kgco2e"]


@pytest.fixture(scope="module")
def hardware_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The trade-off of accelerators for one model: the front that deployments choose from."""
    # As the first row of docs/explain.md; with data on chip fewer designs stand on the front, and a tree recovers less.
    problem = api.make_problem("bert", HARDWARE, fixed=MODEL, residency="none")
    return api.search(problem, out=tmp_path_factory.mktemp("explain") / "run", threads=2)


def designs(*rows: tuple[float, float, float, float]) -> Candidates:
    """Candidates from (embodied kg, energy J, latency s, idle W)."""
    table = np.array(rows)
    return Candidates(np.arange(1, len(rows) + 1), *(table[:, i] for i in range(4)), np.full(len(rows), math.nan))


def test_costs_are_those_of_the_run_for_its_own_deployment(hardware_run: Run) -> None:
    deployment = hardware_run.problem.deployment
    candidates, _ = candidates_of(hardware_run)
    segments = make_segments(
        candidates, regions=[deployment.grid], lifetimes=[deployment.lifetime_years], rates=[deployment.rate_per_s], budgets_s=[math.inf]
    )
    total = total_costs(candidates, segments, pue=deployment.pue)[0, 0, 0, 0]
    every = (*hardware_run.designs, *hardware_run.contenders)
    by_rank = {design["design"]: design["metrics"]["total_kgco2e"] for design in every}
    assert total.tolist() == [by_rank[rank] for rank in candidates.design.tolist()]


def test_a_segment_is_counted_as_by_hand() -> None:
    # 2 kg embodied, 0.5 J a request, 10 ms, 0.1 W idle; 3 a second for 2 years at 400 g/kWh, PUE 1.2.
    candidates = designs((2.0, 0.5, 0.01, 0.1))
    total = total_costs(candidates, Segments(("x",), (400.0,), (2.0,), (3.0,), (math.inf,)), pue=1.2)
    seconds = 2 * 365.25 * 86400
    joules = 0.5 * 3 * seconds + 0.1 * (1 - 0.03) * seconds
    assert total.item() == pytest.approx(2.0 + joules * 1.2 / 3.6e6 * 0.4, rel=1e-14)


def test_who_misses_the_budget_or_cannot_keep_up_does_not_serve() -> None:
    candidates = designs((1.0, 1.0, 0.5, 0.0), (2.0, 1.0, 0.1, 0.0))
    segments = Segments(("x",), (100.0,), (1.0,), (1.0, 4.0), (0.05, 0.2, math.inf))
    total = total_costs(candidates, segments, pue=1.0)
    served = np.isfinite(total)[0, 0]
    assert served[0].tolist() == [[False, False], [False, True], [True, True]]
    assert served[1].tolist() == [[False, False], [False, True], [False, True]]
    found = assign(candidates, segments)
    assert found.impossible == 2
    assert found.oracle[0, 0].tolist() == [[-1, 1, 0], [-1, 1, 1]]
    # Serving comes before carbon: the design that serves all that can be served is the best single one.
    assert found.single == 1
    assert found.policies[0].unserved == 0


def test_the_best_tree_closes_the_gap_that_one_design_leaves() -> None:
    candidates = designs((1.0, 10.0, 0.1, 0.0), (3.0, 1.0, 0.1, 0.0))
    segments = Segments(("a", "b"), (20.0, 700.0), (1.0, 8.0), (0.001, 5.0), (math.inf,))
    found = assign(candidates, segments, depth=3)
    deepest = found.policies[-1]
    assert deepest.recovered == pytest.approx(1.0)
    assert deepest.mean_kgco2e == pytest.approx(found.oracle_mean_kgco2e, rel=1e-12)
    assert found.policies[0].recovered == 0.0
    assert deepest.mean_excess == pytest.approx(0.0, abs=1e-12)
    # The oracle itself, by a plain loop.
    total = total_costs(candidates, segments, pue=1.0)
    assert found.oracle_mean_kgco2e == pytest.approx(np.mean([total[cell].min() for cell in np.ndindex(segments.shape)]))


@pytest.mark.parametrize(("saved", "asks"), [(2e-4, False), (0.2, True)])
def test_a_saving_far_inside_every_range_is_none(saved: float, asks: bool) -> None:
    """Two designs that trade embodied for operation: by a ten-thousandth nothing is asked, by a fifth something is."""
    candidates = designs((10.0, 1.0, 0.01, 0.0), (10.0 * (1 + saved), 1.0 / (1 + 10 * saved), 0.01, 0.0))
    found = assign(candidates, Segments(("a",), (400.0,), (1.0,), (0.001, 10.0), (math.inf,)), depth=1)
    assert math.isnan(found.policies[1].recovered) is not asks


def test_depth_three_recovers_ninety_percent_on_500_segments(hardware_run: Run) -> None:
    found = explain(hardware_run)
    assert found.segments.size == 500
    assert found.impossible == 0
    assert [policy.unserved for policy in found.policies] == [0, 0, 0, 0]
    assert found.policies[3].recovered >= 0.9
    assert [policy.mean_kgco2e for policy in found.policies] == sorted((p.mean_kgco2e for p in found.policies), reverse=True)
    assert len(np.unique(found.oracle)) > 3  # there is something to choose


def test_weighing_by_share_counts_every_segment_alike(hardware_run: Run) -> None:
    by_kg, by_share = explain(hardware_run, depth=2), explain(hardware_run, depth=2, weigh="share")
    assert by_share.policies[2].mean_excess <= by_kg.policies[2].mean_excess
    assert by_kg.policies[2].mean_kgco2e <= by_share.policies[2].mean_kgco2e
    with pytest.raises(UsageError, match="kg, share"):
        explain(hardware_run, weigh="kilo")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depth": 7}, "from 0 to 4"),
        ({"regions": ["atlantis"]}, "atlantis"),
        ({"lifetimes": []}, "lifetimes is empty"),
        ({"rates": [-1.0]}, "positive"),
        ({"budgets_s": [1e-9]}, "no design can serve"),
        ({"min_quality": 99.0}, "min-quality is 99"),
        ({"rates": np.linspace(1, 2, 3000).tolist(), "lifetimes": np.linspace(1, 9, 3000).tolist()}, "fewer values"),
    ],
)
def test_what_cannot_be_explained_says_why(hardware_run: Run, options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        explain(hardware_run, **options)
    assert "\n" not in str(caught.value)


def test_designs_of_lower_quality_are_left_out(tmp_path: Path) -> None:
    run = api.search(
        api.make_problem("bert", fixed={"cores": 2, "depth": 16, "l2_words_per_cycle": 64, "glb_mib": 2}), out=tmp_path / "run", threads=1
    )
    candidates, floor = candidates_of(run)
    best = max(run.designs, key=lambda d: d["metrics"]["quality"])["metrics"]
    assert floor == pytest.approx(best["quality"] - 2 * best["quality_se"])
    assert 0 < len(candidates) < len(run.designs) + len(run.contenders)
    assert candidates.quality.min() >= floor
    everything, _ = candidates_of(run, 0.0)
    assert len(everything) == len(run.designs) + len(run.contenders)


def test_text_json_and_picture(hardware_run: Run) -> None:
    found = explain(hardware_run)
    reason = neighbours.why(hardware_run, int(found.candidates.design[found.single]))
    told = explanation_text.text(hardware_run, found, reason)
    assert "tree of depth 3" in told
    assert "oracle (one a segment)" in told
    assert max(map(len, told.splitlines())) < 160
    plain = json.loads(json.dumps(explanation_text.as_json(hardware_run, found, reason), allow_nan=False))
    assert plain["policies"][3]["saving_recovered"] >= 0.9
    assert plain["segments"]["latency_budget_s"][-1] is None
    picture = explanation_text.svg(hardware_run, found)
    root = ET.fromstring(picture)  # noqa: S314 (our own picture)
    texts = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    leaves = list(policy_tree.leaves(found.policies[-1].tree))
    assert sum(text.startswith("design ") for text in texts) == len(leaves)
    assert "script" not in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def test_thresholds_lie_between_the_values_they_separate() -> None:
    segments = Segments(("a", "b"), (50.0, 450.0), (1.0, 4.0), (1.0,), (0.01, math.inf))
    assert question(policy_tree.Split(0, 1, None, None), segments) == "grid <= 150 gCO2e/kWh? (a)"  # type: ignore[arg-type]
    assert question(policy_tree.Split(1, 1, None, None), segments) == "lifetime <= 2 years?"  # type: ignore[arg-type]
    assert question(policy_tree.Split(3, 1, None, None), segments) == "is there a latency budget (of 10 ms or less)?"  # type: ignore[arg-type]


def test_regions_are_ordered_by_their_grid(hardware_run: Run) -> None:
    candidates, _ = candidates_of(hardware_run)
    segments = make_segments(candidates, regions=["world", "france", "iceland"])
    assert segments.gco2e_per_kwh == tuple(sorted(segments.gco2e_per_kwh))
    assert [carbon.factors.grid.lookup(name).gco2e_per_kwh for name in segments.regions] == list(segments.gco2e_per_kwh)


def test_neighbours_are_costed_as_evaluate_does(hardware_run: Run) -> None:
    reason = neighbours.why(hardware_run, 1)
    hardware = [n for n in reason.neighbours if n.knob in ("width", "l2_kib", "glb_mib")]
    assert hardware
    for n in hardware:
        assert not n.moved
        answer = api.evaluate("bert", fixed={**reason.knobs, n.knob: n.value}, residency="none")
        for name in ("latency_s", "energy_j", "area_mm2", "total_kgco2e"):
            assert n.metrics[name] == answer[name]


def test_no_neighbour_of_a_front_design_is_better_in_all_objectives(hardware_run: Run) -> None:
    """The front is exact: a step along a free knob is a trade-off, worse, the same, or breaks a constraint."""
    for number in (1, len(hardware_run.designs)):
        for n in neighbours.why(hardware_run, number).neighbours:
            if n.knob not in hardware_run.problem.fixed and not set(n.moved) & set(hardware_run.problem.fixed):
                assert n.verdict in ("trade", "worse", "same", "infeasible"), n
            if n.verdict == "infeasible":
                assert n.broken


def test_a_design_that_is_not_there(hardware_run: Run) -> None:
    with pytest.raises(DseError, match=r"design 9999 .* 1 to"):
        neighbours.why(hardware_run, 9999)


def test_names_and_varied_deployments_are_steps_too(tmp_path: Path) -> None:
    """A DRAM type has no order: every other one is a step; a lifetime that the search varied steps up and down."""
    problem = api.make_problem(
        "bert",
        "hardware",
        fixed={"cores": 2, "depth": 16, "l2_words_per_cycle": 64, "glb_mib": 2, "width": 128},
        vary={"dram_type": ["lpddr4", "hbm2"], "lifetime_years": [2.0, 4.0]},
        deployment=Deployment(carbon_profile="default"),
    )
    run = api.search(problem, out=tmp_path / "run", threads=1)
    reason = neighbours.why(run, 1)
    steps = {(n.knob, n.value) for n in reason.neighbours}
    other = "hbm2" if reason.knobs["dram_type"] == "lpddr4" else "lpddr4"
    assert ("dram_type", other) in steps
    assert ("lifetime_years", 4.0 if reason.knobs["lifetime_years"] == 2.0 else 2.0) in steps
    assert explain(run, depth=1).policies[0].unserved == 0
