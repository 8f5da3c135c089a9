"""Designs in words: what was asked for is told, by the name in which it was asked."""

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import pytest

import dse
from dse.analysis.words import Words
from dse.cli import main
from dse.problem.problem import Problem
from dse.problem.wording import design_phrase

MODEL = ("--set", "layers=2", "--set", "hidden=128", "--set", "heads=2", "--set", "ffn=512", "--set", "sequence=64")


def test_what_was_varied_is_named_beside_the_array() -> None:
    edge = {"layers": 12, "hidden": 576, "width": 64, "depth": 32, "cores": 1, "glb_mib": 1}
    assert design_phrase(edge, ["glb_mib"], ["glb_mib", "depth"]) == "64 x 32 with glb_mib 1"
    assert design_phrase(edge, ["layers", "glb_mib"], ["glb_mib"]) == "12 layers x 576 on 64 x 32 with glb_mib 1"
    assert design_phrase({"grid": "france"}, [], ["grid"]) == "grid france"


def test_knobs_by_the_name_and_unit_that_were_asked_for(factories: ModuleType) -> None:
    run = factories.make_run(2)
    problem = dataclasses.replace(
        run.problem, asked_as={"glb_bytes": "glb_mib", "array_rows": "rows"}, vary={"glb_bytes": (262144, 1048576)}
    )
    assert problem.shown({"glb_bytes": 262144, "array_rows": 8, "cores": 2}) == {"glb_mib": 0.25, "rows": 8, "cores": 2}
    assert problem.shown({"glb_bytes": 1048576}) == {"glb_mib": 1}
    assert Problem.from_dict(json.loads(json.dumps(problem.to_dict()))).asked_as == problem.asked_as
    for design, size in zip(run.designs, (262144, 1048576), strict=True):
        design["knobs"] = {"glb_bytes": size}
    words = Words.of(dataclasses.replace(run, problem=problem))
    assert words.phrase({"glb_bytes": 262144}) == "glb_mib 0.25"
    assert words.apart({"glb_bytes": 262144}, [{"glb_bytes": 1048576}]) == ("glb_mib",)
    plain = dataclasses.replace(
        run, problem=dataclasses.replace(run.problem, hardware="npu.toml", fixed={"node_nm": 22, "layers": 2, "sequence": 64}, vary={})
    )
    plain.designs[1]["knobs"] = plain.designs[0]["knobs"]
    plain = dataclasses.replace(plain, context={"model_knobs": ["layers"], "run_with": {"sequence": 64}})
    assert Words.of(plain).phrase(plain.designs[0]["knobs"]) == "npu.toml with node_nm 22"


def test_a_search_of_ones_own_file_says_what_was_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "accelerator", "npu.toml"]) == 0
    asked = ["search", "--workload", "bert", "--hw", "npu.toml", *MODEL, "--objective", "hardware", "--vary", "glb_mib=0.25,0.5"]
    assert main([*asked, "--out", "run"]) == 0
    told = capsys.readouterr()
    assert "run with    sequence=64, phase=forward, batch=1" in told.err
    assert "varied      glb_mib: 0.25, 0.5" in told.err
    assert "glb_bytes" not in told.err + told.out and "glb_mib 0." in told.out
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "glb_mib" in page and "sequence 64" in page
    design = next(Path("run/designs").glob("design-*.toml")).read_text(encoding="utf-8")
    assert "[design.run_with]" in design and "sequence = 64" in design and "batch = 1" in design
    run = dse.load("run")
    assert set(run.pareto()["glb_bytes"]) <= {262144, 524288}  # columns for programs keep their names
    assert main(["evaluate", "--workload", "bert", "--hw", "run/designs/design-0001.toml", *MODEL, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["latency_s"] == run.designs[0]["metrics"]["latency_s"]
