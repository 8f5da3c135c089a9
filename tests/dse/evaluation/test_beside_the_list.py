"""``--set`` of a quantity that a built-in template does not list: what ``--vary`` of it means, where the template can be built with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dse
from dse.analysis.neighbours import why
from dse.errors import DseError
from dse.evaluation.evaluation import Evaluation, load_hardware
from dse.evaluation.hardware_points import make_points
from dse.evaluation.words import make_problem
from dse.problem.problem import Problem
from hw_models import spaces

KNOBS = {"cores": 2, "width": 128, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64}


def test_a_buffer_beside_the_list_is_the_design_of_that_buffer() -> None:
    answer = dse.evaluate("bert-tiny", "edge22", fixed={**KNOBS, "glb_mib": 0.3125})
    own = spaces.load("edge22").with_knobs(glb_mib=[0.3125]).accelerator(**KNOBS, glb_mib=0.3125)  # the template itself, by its own door
    assert answer["design"]["glb_mib"] == 0.3125
    assert dse.evaluate("bert-tiny", own)["area_mm2"] == answer["area_mm2"]
    assert dse.evaluate("bert-tiny", own)["energy_j"] == answer["energy_j"]


def test_it_means_what_vary_means(tmp_path: Path) -> None:
    by_set = make_problem("bert-tiny", "hardware", hw="edge22", fixed={**KNOBS, "glb_mib": 0.75})
    by_vary = make_problem("bert-tiny", "hardware", hw="edge22", fixed=KNOBS, vary={"glb_mib": [0.75]})
    assert by_set == by_vary
    listed = make_problem("bert-tiny", "hardware", hw="edge22", fixed={**KNOBS, "glb_mib": 4})
    assert listed.fixed["glb_mib"] == 4 and not listed.vary


@pytest.mark.parametrize(
    ("hw", "fixed", "told"),
    [
        ("edge22", {"cores": 3}, "set cores=3 is not in the space; allowed are 1, 2, 4; nearest is 2"),
        ("edge22", {"glb_mib": -1}, "glb_mib = -1 is not valid: it must be a number from"),
        ("datacenter", {"voltage_v": -0.7}, "voltage_v = -0.7 is not valid"),
        ("edge22", {"glb_mib": 0.25, "l2_kib": 512}, "must be no more than level glb outside it holds"),
        ("edge22", {"glb_mib": "much"}, "set glb_mib=much is not in the space"),
        ("lookup", {"cores": 7}, "set cores=7 is not in the space; allowed are 1, 2, 4; nearest is 4"),  # a table has what it has
    ],
)
def test_what_cannot_be_built_says_why(hw: str, fixed: dict[str, object], told: str) -> None:
    with pytest.raises(DseError, match=told):
        dse.evaluate("bert-tiny", hw, fixed=fixed)


def test_a_study_costs_a_design_with_such_a_knob_too(tmp_path: Path) -> None:
    study = dse.search("bert-tiny", hw="edge22", objective="hardware", fixed={**KNOBS, "glb_mib": 2}, out=tmp_path / "run")
    row = study.best()
    row["glb_mib"] = 0.75
    answer = study.evaluate(row)
    assert answer["design"]["glb_mib"] == 0.75
    assert answer["energy_j"] == dse.evaluate("bert-tiny", "edge22", fixed={**KNOBS, "glb_mib": 0.75})["energy_j"]
    other = dse.search("bert-tiny", hw="edge22", objective="hardware", fixed=KNOBS, vary={"glb_mib": [0.25, 0.5]}, out=tmp_path / "other")
    # What one of them has is told by its name, and no empty table of settings beside it.
    assert set(study.compare(other).settings) == {"fixed.glb_mib", "vary.glb_mib"}


def test_the_published_grid_is_that_of_its_models_and_its_profile() -> None:
    """CATransformers searches 2, 4 and 8 MiB, and its closed forms are of whole ones; ours has smaller buffers, for what stays on chip."""

    def buffers(**options: Any) -> list[float]:
        problem = make_problem("bert", "carbon", hw="edge22", **options)
        return np.unique(load_hardware(problem).narrowed(problem.fixed).grid()["glb_mib"]).tolist()

    assert buffers() == [0.25, 0.5, 1, 2, 4, 8]
    assert buffers(space="catransformers") == buffers(hardware_profile="catransformers22") == [2, 4, 8]
    assert buffers(space="catransformers", fixed={"glb_mib": 1}) == [1]
    assert buffers(space="catransformers", vary={"glb_mib": [0.5, 2]}) == [0.5, 2]


@pytest.mark.parametrize("objective", ["hardware", "carbon"])
def test_designs_whose_memories_do_not_grow_outwards_are_none(tmp_path: Path, objective: str) -> None:
    """They stand in the grid of two memories, and no search ends in a design that cannot be described."""
    options: Any = {"hw": "edge22", "objective": objective, "fixed": {**KNOBS, "l2_kib": 512}, "residency": "none"}
    study = dse.search("bert-tiny", out=tmp_path / "run", **options)
    assert study.summary.points == 5
    assert {design["knobs"]["glb_mib"] for design in study.designs} == {0.5}
    smaller = [n for n in why(study, 1).neighbours if n.knob == "glb_mib" and n.value == 0.25]
    assert [n.moved for n in smaller] == [{"l2_kib": 256}]
    shards = dse.search("bert-tiny", out=tmp_path / "shards", sharded=dse.api.ShardSettings("inline", 2), **options)
    assert shards.summary == study.summary and shards.designs == study.designs


def test_one_that_was_asked_for_says_why() -> None:
    with pytest.raises(DseError, match="must be no more than level glb outside it holds"):
        make_problem("bert-tiny", "hardware", hw="edge22", fixed={**KNOBS, "l2_kib": 512, "glb_mib": 0.25})
    some = make_problem("bert-tiny", "hardware", fixed={**KNOBS, "l2_kib": 1024}, vary={"glb_mib": [0.25, 0.5, 1]}, residency="none")
    assert Evaluation(some).space.hardware_count == 1
    # Where points are not listed, of a large space or between listed values, they are known as such before any mapping.
    columns = {name: np.array([value] * 2) for name, value in KNOBS.items()} | {
        "l2_kib": np.array([256, 512]),
        "glb_mib": np.array([0.25] * 2),
    }
    assert make_points(load_hardware(some), columns, some.deployment).makeable.tolist() == [True, False]


def test_a_front_is_refined_between_the_sizes(tmp_path: Path) -> None:
    """In sixteenths of a MiB, which is what a buffer can have, and only to memories that grow outwards."""
    study = dse.search("bert-tiny", hw="edge22", objective="hardware", fixed=KNOBS, residency="none", out=tmp_path / "run")
    finer = dse.api.refine(study.path, out=tmp_path / "finer", resolution=1, rounds=2)
    sizes = {design["knobs"]["glb_mib"] for design in finer.designs}
    assert all(16 * size == int(16 * size) for size in sizes) and min(sizes) >= 0.25


def test_a_study_from_before_the_smaller_buffers_keeps_its_designs() -> None:
    problem = make_problem("bert", "carbon", hw="edge22")
    earlier = {name: value for name, value in problem.to_dict().items() if name != "lists"}
    assert Problem.from_dict(problem.to_dict()) == problem
    assert load_hardware(Problem.from_dict(earlier)).template.size == 3240
    assert Problem.from_dict(Problem.from_dict(earlier).to_dict()) == Problem.from_dict(earlier)
    own = {**earlier, "vary": {"glb_mib": [1, 2]}}
    assert load_hardware(Problem.from_dict(own)).template.knobs["glb_mib"] == (1, 2)
    assert Problem.from_dict({**earlier, "fixed": {"glb_mib": 2}}).vary == {}
    file = {**earlier, "hardware": "npu.toml", "hardware_toml": 'template = "edge22"\n[knobs]\ncores = [1, 2]\n'}
    assert load_hardware(Problem.from_dict(file)).template.size == 2 * 4 * 6 * 5 * 3 * 3
    listed = {**file, "hardware_toml": file["hardware_toml"] + "glb_mib = [1, 2]\n"}
    assert load_hardware(Problem.from_dict(listed)).template.size == 2 * 4 * 6 * 5 * 3 * 2
    assert Problem.from_dict({**earlier, "hardware": "datacenter"}).vary == {}
