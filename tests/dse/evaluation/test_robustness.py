"""How sure a front is, for hardware of one design: every design of the front has its own draws."""

from pathlib import Path

import numpy as np
import pytest

from dse import api
from dse.evaluation import robustness
from hw_models import spaces


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
