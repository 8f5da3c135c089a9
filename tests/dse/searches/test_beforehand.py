"""Infeasibility that no mapping is needed for is told before any, and leaves no folder."""

from __future__ import annotations

from pathlib import Path

import pytest

import dse
from dse.errors import DseError
from hw_models.costs import evaluate


def _refuse(*_: object, **__: object) -> None:
    raise AssertionError("a mapping was searched")


def test_a_model_that_fits_no_memory_is_told_without_mappings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "unit_costs", _refuse)
    with pytest.raises(DseError, match=r"no design of 5,832 is feasible: dram_fill<=1.0 fails at 100.0% of them \(nearest 7\.\d+\)"):
        dse.search("llama3-8b", "hardware", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bounds_that_exclude_each_other_on_hardware_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "unit_costs", _refuse)
    with pytest.raises(DseError, match=r"area_mm2<=5.0 fails at .*tops>=20.0 fails at|tops>=20.0 fails at .*area_mm2<=5.0 fails at"):
        dse.search("bert", "hardware", constraints=["area_mm2<=5", "tops>=20"], out=tmp_path / "run")
