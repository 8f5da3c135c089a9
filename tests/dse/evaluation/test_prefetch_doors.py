"""Weights that are read ahead, through the doors that users take: one design, a sweep, its files, and where it is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dse import api
from dse.errors import UsageError
from dse.exporters.design import load_design
from dse.problem.problem import Problem
from dse.storage.run_folder import load

MODEL = {"layers": 2, "hidden": 256, "heads": 4, "ffn": 1024, "sequence": 32}
DESIGN = {"cores": 4, "width": 128, "depth": 32, "l2_kib": 64, "l2_words_per_cycle": 128, "glb_mib": 2}
"""Where many pairs are of a product that the arrays bound and one that waits for its weights."""


def test_a_sweep_a_single_design_and_a_design_file_have_the_same_latency(tmp_path: Path) -> None:
    fixed = {name: value for name, value in (MODEL | DESIGN).items() if name not in ("cores", "depth")}
    run = api.search(
        "bert", ["min:latency_s", "min:area_mm2"], fixed=fixed, prefetch=True, residency="activations", out=tmp_path / "run", threads=1,
        default_constraints=False, allow_unsupported=True,
    )  # fmt: skip
    plain = api.search(
        "bert", ["min:latency_s", "min:area_mm2"], fixed=fixed, residency="activations", out=tmp_path / "plain", threads=1,
        default_constraints=False, allow_unsupported=True,
    )  # fmt: skip
    shorter = 0
    for number, design in enumerate(run.designs, 1):
        file = tmp_path / "run" / "designs" / f"design-{number:04d}.toml"
        told = tomllib.loads(file.read_text())["design"]
        assert told["prefetch"] is True
        again = api.evaluate("bert", file, fixed=MODEL)  # the file says how it was costed
        assert again["prefetch"] is True
        assert again["latency_s"] == pytest.approx(design["metrics"]["latency_s"], rel=1e-12)
        assert again["residency"]["prefetch"]["saved_s"] == pytest.approx(told["on_chip"]["prefetch"]["saved_s"], abs=1e-15)
        without = api.evaluate("bert", file, fixed=MODEL, prefetch=False)
        assert "prefetch" not in without["residency"]
        assert without["latency_s"] - again["latency_s"] == pytest.approx(again["residency"]["prefetch"]["saved_s"], abs=1e-12)
        assert sum(part["latency_s"] for part in again["components"]) == pytest.approx(again["latency_s"], rel=1e-12)
        assert again["energy_j"] <= without["energy_j"]  # dynamic energy stays, leakage has less time
        assert "prefetch" not in api.evaluate("bert", file, fixed=MODEL, residency="none")
        shorter += again["latency_s"] < without["latency_s"]
        exported = load_design(load(tmp_path / "run"), number).on_chip
        assert exported is not None
        assert exported["prefetch"] == pytest.approx(again["residency"]["prefetch"])
    assert shorter > 0
    assert Problem.from_dict(run.problem.to_dict()) == run.problem
    assert "prefetch" not in plain.problem.to_dict()
    assert "prefetch" not in (tmp_path / "plain" / "designs" / "design-0001.toml").read_text().replace(str(tmp_path), "")


@pytest.mark.parametrize(
    ("hw", "options", "why"),
    [
        ("edge22", {"residency": "none"}, "residency is none"),
        ("edge22", {"hardware_profile": "catransformers22"}, "residency is none"),
        ("h100", {}, "kernels have a cache model of their own"),
    ],
)
def test_where_nothing_is_kept_it_is_refused(hw: str, options: dict[str, str], why: str) -> None:
    with pytest.raises(UsageError, match=why) as told:
        api.evaluate("bert-tiny", hw, prefetch=True, **options)
    assert "leave" in str(told.value)
    assert "\n" not in str(told.value)


def test_a_space_too_large_to_sweep_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="prefetch is of spaces that are swept"):
        api.search("bert", "carbon", space="catransformers", residency="weights", prefetch=True, strategy="amoo", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
