"""Why a design is named, near ties, and draws that tell the model from the hardware: by hand, on fronts made for it."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from dse import api
from dse.analysis.reasons import why
from dse.analysis.recommendation import Recommendation, recommend
from dse.analysis.ties import differ_in, near_ties, no_worse
from dse.evaluation import robustness
from dse.problem.objectives import parse_objective

CARBON = (parse_objective("min:total_kgco2e"),)


def _design(number: int, operation: float, parts: dict[str, float], **more: Any) -> dict[str, Any]:
    total = operation + sum(parts.values())
    return {"design": number, "metrics": {"operational_kgco2e": operation, "total_kgco2e": total}, "embodied_parts_kgco2e": parts, **more}


def test_the_parts_of_a_cost_are_told_largest_first_and_add_to_a_hundred() -> None:
    # 6.2 of 10 kg, 2, 1, 0.5 and 0.3: the last two together.
    design = _design(3, 1.0, {"memory": 6.2, "die": 2.0, "packaging": 0.5, "board": 0.3})
    assert why(design, CARBON) == "memory is 62 % of its total carbon, die 20 %, operation 10 % and the other 2 parts 8 %"
    assert why(_design(3, 1.0, {}), CARBON) == ""  # nothing to divide
    assert why({**design, "embodied_parts_kgco2e": None}, CARBON) == ""  # of a fleet


def test_what_is_saved_against_another_is_told_part_by_part() -> None:
    # 3 kg less operation, 0.04 kg more die; packaging is equal, and what is under a twentieth of the largest difference is left out.
    one, other = (_design(n, used, {"die": die, "packaging": 1.0}) for n, used, die in ((2, 2.0, 0.54), (1, 5.0, 0.3)))
    assert why(one, CARBON, other, "the best in quality").endswith(
        "; against design 1, the best in quality: 3 kg less for operation and 0.24 kg more for die"
    )
    assert "die" not in why(_design(2, 2.0, {"die": 0.34, "packaging": 1.0}), CARBON, other).split("against")[1]
    assert why(_design(2, 5.0, {"die": 0.29, "packaging": 1.0}), CARBON, other).endswith("against design 1: 10 g less for die")


def test_latency_is_told_by_what_bounds_it_and_energy_by_its_components() -> None:
    components = [
        {"component": "attention", "energy_j": 3.0, "latency_by_bound_s": {"compute": 2.0, "dram": 1.0}},
        {"component": "ffn", "energy_j": 1.0, "latency_by_bound_s": {"compute": 1.0}},
    ]
    objectives = tuple(map(parse_objective, ("min:latency_s", "min:energy_j", "min:area_mm2")))
    told = why({"design": 1, "metrics": {}, "components": components}, objectives)
    assert told == "compute bounds 75 % of its latency and dram 25 %; attention is 75 % of its energy per request and ffn 25 %"


def test_near_ties_are_within_one_per_cent_either_way_in_every_objective() -> None:
    objectives = (*CARBON, parse_objective("min:latency_s"))
    rows = [(1, 100.0, 1.0), (2, 100.9, 1.0), (3, 99.1, 1.009), (4, 101.1, 1.0), (5, 100.0, 0.98)]
    designs = [{"design": n, "metrics": {"total_kgco2e": kg, "latency_s": s}} for n, kg, s in rows]
    assert [tied["design"] for tied in near_ties(designs[0], designs, objectives)] == [2, 3]
    own = np.array([[100.0, 1.0]])
    # Better counts as no worse; a cost that is minimised may be negative (of something that is maximised).
    assert no_worse(own, np.array([[99.1, 1.0]])).all() and not no_worse(own, np.array([[98.9, 1.0]])).any()
    assert no_worse(np.array([[-80.0]]), np.array([[-80.7]])).all() and not no_worse(np.array([[-80.0]]), np.array([[-81.0]])).any()
    knobs = {"width": 64, "depth": 8, "cores": 1}
    assert differ_in(knobs, [{**knobs, "depth": 4}, {**knobs, "depth": 16, "width": 32}]) == ("depth", "width")


def test_a_recommendation_says_which_designs_are_as_good(factories: ModuleType) -> None:
    run = factories.make_run(3, objectives=CARBON)
    for design, kilograms in zip(run.designs, (10.0, 10.05, 12.0), strict=True):
        design["metrics"]["total_kgco2e"] = kilograms
    found = recommend(run)
    assert (found.design, found.near_ties) == (1, (2,))
    assert "near ties: design 2 is within 1 % of it in every objective" in str(found)
    assert Recommendation.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    old = {k: v for k, v in found.to_dict().items() if k not in ("why", "near_ties", "ties_differ_in", "tied_share", "model_share")}
    assert Recommendation.from_dict(old).near_ties == ()  # a study of an earlier version


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """BERT-Base and smaller ones on arrays whose depths all but tie."""
    hw = {
        "template": "edge22",
        "knobs": {"cores": [1, 2], "width": [64, 128], "depth": [8, 16, 32], "l2_words_per_cycle": [64], "glb_mib": [2]},
    }
    return api.search("bert", hw=hw, out=tmp_path_factory.mktemp("sure") / "run")


def test_draws_tell_the_model_from_the_hardware_and_a_tie_from_a_doubt(study: Any) -> None:
    """Each share counted anew, draw by draw, from the figures that the draws give: of those alike in quality the least carbon is named."""
    found = study.recommend()
    entries = [d for d in study.designs if d["equal_to"] is None]
    best = max(entries, key=lambda d: d["metrics"]["quality"])
    floor = best["metrics"]["quality"] - best["metrics"]["quality_se"]
    alike = [d for d in [*entries, *study.contenders] if d["metrics"]["quality"] >= floor]
    drawn, _ = robustness.drawn(study.problem, alike, robustness.points_of(study.problem, alike), seed=study.provenance["seed"])
    own = next(i for i, d in enumerate(alike) if d["design"] == found.design)
    models = {"layers", "hidden", "ffn", "heads"}
    kept = tied = model = hardware = 0
    for carbon in drawn["total_kgco2e"]:
        named = int(np.argmin(carbon))
        pair = [{k: (v if k in models else None) for k, v in alike[i]["knobs"].items()} for i in (own, named)]
        other = [{k: (None if k in models else v) for k, v in alike[i]["knobs"].items()} for i in (own, named)]
        kept, tied = kept + (named == own), tied + (carbon[own] <= 1.01 * carbon[named])
        model, hardware = model + (pair[0] == pair[1]), hardware + (other[0] == other[1])
    draws = len(drawn["total_kgco2e"])
    assert (found.kept_share, found.tied_share) == (kept / draws, tied / draws)
    assert (found.model_share, found.hardware_share) == (model / draws, hardware / draws)
    assert found.kept_share <= min(found.tied_share, found.model_share, found.hardware_share)
    assert found.why and found.why in str(found) and found.why in (Path(study.path) / "report.html").read_text(encoding="utf-8")


def test_the_sentence_begins_with_the_tie_where_ties_are_named() -> None:
    plain = Recommendation(1, "p", {}, "", "best", "r", kept_share=0.08, draws=1000, factors=9, compared_with="all designs of the space")
    assert plain.sure_text.startswith("8 % of 1,000 draws of 9 carbon factors name the same design of all designs of the space")
    told = {"kept_share": 0.08, "tied_share": 0.97, "model_share": 1.0, "hardware_share": 0.08, "ties_differ_in": ("depth",)}
    tied = Recommendation.from_dict({**plain.to_dict(), **told})
    assert tied.sure_text == (
        "97 % of 1,000 draws of 9 carbon factors name it or a near tie of all designs of the space (within 1 %; they differ in depth); "
        "the design itself 8 %, the same model 100 % and the same hardware 8 % (quality, latency and energy held)"
    )
