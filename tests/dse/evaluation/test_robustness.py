"""How sure a front is, for hardware of one design: every design of the front has its own draws."""

from pathlib import Path

import numpy as np
import pytest

from carbon.device.device import device_embodied
from carbon.factors.tables import item
from dse import api
from dse.evaluation import robustness
from hw_models import spaces
from hw_models.validation import chips
from hw_models.validation.registry import reference_rows


def test_a_front_on_one_design_has_ranges_of_its_own(tmp_path: Path) -> None:
    design = spaces.load("edge22").accelerator(cores=2, width=64, depth=16, l2_kib=256, l2_words_per_cycle=64, glb_mib=4)
    file = tmp_path / "one.toml"
    file.write_text(design.to_toml(), encoding="utf-8")
    run = api.search("bert", hw=str(file), out=tmp_path / "run")
    assert len(run) > 1
    again = robustness.analyse(run.problem, run.designs, draws=200)
    total = np.array([d["metrics"]["total_kgco2e"] for d in run.designs])
    for name in ("p5", "p50", "p95"):
        share = np.asarray(getattr(again.total, name)) / total
        assert ((share > 0.3) & (share < 3.0)).all()
    # One device: what is drawn of its making is the same for every model.
    assert (np.asarray(again.total.p5) < np.asarray(again.total.p95)).all()


def test_large_fronts_are_drawn_in_parts_with_the_same_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each design meets the same draws however the front is cut; the order is told only of fronts that are drawn whole."""
    design = spaces.load("edge22").accelerator(cores=2, width=64, depth=16, l2_kib=256, l2_words_per_cycle=64, glb_mib=4)
    file = tmp_path / "one.toml"
    file.write_text(design.to_toml(), encoding="utf-8")
    run = api.search("bert", hw=str(file), out=tmp_path / "run")
    monkeypatch.setattr(robustness, "DRAWS", 100)
    whole = robustness.report_context(run.problem, run.designs)
    distinct = sum(d.get("equal_to") is None for d in run.designs)
    for most in (distinct, distinct - 1, 2):
        monkeypatch.setattr(robustness, "MAX_ORDERED", most)
        told = robustness.report_context(run.problem, run.designs)
        assert told["metrics"] == whole["metrics"]
        assert ("keep their order" in " ".join(told["notes"])) == (most >= distinct)
    bands = whole["metrics"]["total_kgco2e"]
    assert all(len(bands[name]) == len(run.designs) for name in ("p5", "p50", "p95"))
    assert all(a < b < c for a, b, c in zip(bands["p5"], bands["p50"], bands["p95"], strict=True))


def test_an_area_of_tables_is_drawn_up_to_what_published_dies_are_over_such_sums() -> None:
    """The value stays the sum; the range is that of the five published chips (their NVDLA by the mean of its sizes)."""
    by_chip: dict[str, list[float]] = {}
    for row in reference_rows(chips.FILE):
        if row["quantity"] == "area":
            summed = chips.bottom_up_mm2(chips.chip(row).with_profile("default"))
            by_chip.setdefault(row["chip"].split()[0], []).append(float(row["published"]) / summed)
    over = [float(np.exp(np.mean(np.log(values)))) for values in by_chip.values()]
    factor = item("area_over_tables")
    assert (factor.value, factor.low) == (1.0, 1.0)
    assert factor.high == pytest.approx(max(over), abs=0.05)  # the table has one digit behind the point
    given = {"area_mm2": 10.0, "node_nm": 22, "fab_yield": 0.9}
    summed, known = (device_embodied("act2", **given, bottom_up_area=flag).embodied_kgco2e for flag in (True, False))
    assert summed == known
    doubled = device_embodied("act2", **given, bottom_up_area=True, overrides={robustness.AREA_FACTOR: 2.0})
    assert doubled.parts["die"] == pytest.approx(2.0 * device_embodied("act2", **given).parts["die"])


@pytest.mark.parametrize(("hardware", "drawn"), [("edge22", True), ("datacenter", False), ("nvdla", False)])
def test_only_areas_of_tables_are_drawn(hardware: str, drawn: bool) -> None:
    """A template with a die model of its own and a chip with a published die have no such range."""
    answer = api.evaluate("bert-base", hw=hardware)
    assert (robustness.AREA_FACTOR in answer["ranges"]["factors"]) == drawn
