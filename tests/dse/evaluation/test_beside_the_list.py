"""``--set`` of a quantity that a built-in template does not list: what ``--vary`` of it means, where the template can be built with it."""

from pathlib import Path

import pytest

import dse
from dse.errors import DseError
from dse.evaluation.words import make_problem
from hw_models import spaces

KNOBS = {"cores": 2, "width": 128, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64}


def test_a_buffer_below_the_list_is_the_design_of_that_buffer() -> None:
    answer = dse.evaluate("bert-tiny", "edge22", fixed={**KNOBS, "glb_mib": 0.25})
    own = spaces.load("edge22").with_knobs(glb_mib=[0.25]).accelerator(**KNOBS, glb_mib=0.25)  # the template itself, by its own door
    assert answer["design"]["glb_mib"] == 0.25
    assert dse.evaluate("bert-tiny", own)["area_mm2"] == answer["area_mm2"]
    assert dse.evaluate("bert-tiny", own)["energy_j"] == answer["energy_j"]


def test_it_means_what_vary_means(tmp_path: Path) -> None:
    by_set = make_problem("bert-tiny", "hardware", hw="edge22", fixed={**KNOBS, "glb_mib": 0.25})
    by_vary = make_problem("bert-tiny", "hardware", hw="edge22", fixed=KNOBS, vary={"glb_mib": [0.25]})
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
    row["glb_mib"] = 0.5
    answer = study.evaluate(row)
    assert answer["design"]["glb_mib"] == 0.5
    assert answer["energy_j"] == dse.evaluate("bert-tiny", "edge22", fixed={**KNOBS, "glb_mib": 0.5})["energy_j"]
    other = dse.search("bert-tiny", hw="edge22", objective="hardware", fixed=KNOBS, vary={"glb_mib": [0.25, 0.5]}, out=tmp_path / "other")
    # What one of them has is told by its name, and no empty table of settings beside it.
    assert set(study.compare(other).settings) == {"fixed.glb_mib", "vary.glb_mib"}
