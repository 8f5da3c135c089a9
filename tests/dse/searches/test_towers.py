"""Model spaces that are searched part by part: the same front as the sweep of all models, byte by byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dse
from dse import cli
from dse.evaluation import space_file
from dse.evaluation.evaluation import load_family
from dse.evaluation.words import make_problem
from dse.searches import towers

CLIP = """
name = "clip-small"
constraints = [{constraints}]
[parameters.layers]
role = "model"
values = [2, 4]
[parameters.hidden]
role = "model"
values = [256, 512]
[parameters.heads]
role = "model"
values = [4, 8]
[parameters.vision_layers]
role = "model"
values = [2, 3]
[parameters.vision_hidden]
role = "model"
values = [384, 576, 768]
[parameters.vision_heads]
role = "model"
values = [6, 8, 9]
"""
HARDWARE = {"cores": [1, 2], "width": [64, 128], "depth": [8, 16], "l2_kib": [64, 256], "l2_words_per_cycle": [32, 128], "glb_mib": [2, 4]}
OBJECTIVES = (
    ("min:latency_s min:total_kgco2e", ()),
    ("max:macs min:total_kgco2e", ()),
    ("max:parameters min:latency_s min:energy_j", ("--constraint", "macs>=3e9", "--constraint", "dram_fill<=0.1")),
    ("max:macs min:embodied_kgco2e min:kgco2e_per_request", ("--vary", "lifetime_years=1,4")),
)


def space_of(folder: Path, *constraints: str) -> str:
    """A space of 4 x 2 text towers and 12 image towers that exist."""
    file = folder / "clip.toml"
    hardware = "".join(f"[parameters.{name}]\nvalues = {values}\n" for name, values in HARDWARE.items())
    file.write_text(CLIP.format(constraints=", ".join(f'"{c}"' for c in constraints)) + hardware)
    return str(file)


def search(space: str, objectives: str, out: Path, *more: str) -> int:
    """Exit code of the command."""
    words = [word for objective in objectives.split() for word in ("--objective", objective)]
    return cli.main(["search", "--workload", "clip-vit-b16", "--space", space, *words, "--threads", "1", "--out", str(out), *more])


@pytest.mark.parametrize(("objectives", "options"), OBJECTIVES)
def test_same_front_as_the_sweep_of_all_models(
    objectives: str, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = space_of(tmp_path, "hidden >= 64 * heads")
    # Parts of a model add up where every operation stands alone, which is how models too many to list are searched.
    assert search(space, objectives, tmp_path / "whole", *options, "--residency", "none") == 0
    monkeypatch.setattr(space_file, "MODEL_LIMIT", 10)
    assert search(space, objectives, tmp_path / "part", *options) == 0
    whole, part = dse.load(tmp_path / "whole"), dse.load(tmp_path / "part")
    assert whole.problem.models is None
    assert part.problem.models_dominated + part.context["models"] == whole.context["models"]
    assert (tmp_path / "part" / "pareto.csv").read_bytes() == (tmp_path / "whole" / "pareto.csv").read_bytes()


def test_fewer_models_are_swept_and_a_study_keeps_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_file, "MODEL_LIMIT", 10)
    assert search(space_of(tmp_path), OBJECTIVES[0][0], tmp_path / "run") == 0
    run = dse.load(tmp_path / "run")
    # Least of everything is best by both objectives: the smallest of each tower's knobs but heads, which cost either way.
    assert run.problem.models is not None
    assert run.context["models"] < 10
    assert (np.array(run.problem.models["layers"]) == 2).all()


def test_what_is_no_sum_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(space_file, "MODEL_LIMIT", 10)
    assert search(space_of(tmp_path), "max:array_utilisation", tmp_path / "a") == 2
    assert "array_utilisation is no sum over parts" in capsys.readouterr().err
    assert search(space_of(tmp_path, "layers <= vision_layers"), "min:latency_s", tmp_path / "b") == 2
    assert "all of them act on the same operations" in capsys.readouterr().err


def test_a_front_that_takes_too_long_is_refused_with_the_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(space_file, "MODEL_LIMIT", 10)
    monkeypatch.setattr(towers, "_PATIENCE_S", 0.0)
    monkeypatch.setattr(towers, "SECONDS_LIMIT", 1e-3)
    assert search(space_of(tmp_path), OBJECTIVES[0][0], tmp_path / "run") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "the front over its 64 hardware points would take about" in said
    assert "(measured on 4 of them), more than" in said


def test_parts_are_the_towers(tmp_path: Path) -> None:
    text, found = space_file.read(space_of(tmp_path))
    problem = replace(make_problem("clip-vit-b16", "min:latency_s"), space="x", space_toml=text)
    choices = {p.name: [int(v) for v in p.values] for p in found.parameters if p.role == "model"}
    parts = towers.parts_of(problem, load_family(problem), choices, found)
    assert [set(part.columns) for part in parts] == [{"layers", "hidden", "heads"}, {"vision_layers", "vision_hidden", "vision_heads"}]
