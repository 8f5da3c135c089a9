"""What stays on chip where nobody says: the best, and the same through every door; elsewhere it is said why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import dse
from dse import api
from dse.cli import main
from dse.exporters.design import load_design
from hw_models import spaces

FIXED = {"layers": 2, "hidden": 128, "cores": 1, "width": 64, "depth": 16, "l2_kib": 64, "l2_words_per_cycle": 64}


def allowed(**options: Any) -> str:
    return api.make_problem(options.pop("workload", "bert"), "carbon", **options).residency


def test_the_best_but_for_what_imitates_another_tool() -> None:
    assert allowed() == allowed(hw="datacenter") == allowed(workload="vit-b16", hw="eyeriss") == allowed(hw="h100") == "weights"
    assert allowed(hw="edge22", hardware_profile="catransformers22") == allowed(space="catransformers") == "none"
    for level in ("none", "activations", "epilogue", "weights"):
        assert allowed(residency=level) == level
        assert allowed(residency=level, hw="edge22", hardware_profile="catransformers22", space="catransformers") == level
    with pytest.raises(dse.errors.DseError, match="residency"):
        allowed(residency="")


def test_several_memories_below_the_dram_keep_nothing_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    """One product on the template `cpu` took 19 s to be mapped to a part of its last cache: nobody waits for it who has not asked."""
    assert allowed(hw="cpu") == "none" and allowed(hw="cpu", residency="weights") == "weights"
    assert main(["evaluate", "--workload", "llama3-8b", "--hw", "cpu", "--set", "sequence=512", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cautions"] == []


def test_every_door_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A search, its files, its export, `evaluate` in Python and on the command line, of a design and of its file."""
    run = dse.search("bert", out=tmp_path / "run", fixed=FIXED)
    first = run.designs[0]
    assert run.problem.residency == "weights" and first["on_chip"]["saved"]["energy_j"] > 0
    by_knobs = dse.evaluate("bert", fixed=first["knobs"])
    sets = [word for name, value in first["knobs"].items() for word in ("--set", f"{name}={value}")]
    file = run.path / "designs" / "design-0001.toml"
    model = [word for name in ("layers", "hidden", "ffn", "heads") for word in ("--set", f"{name}={first['knobs'][name]}")]
    told = []
    for words in (["--hw", "edge22", *sets], ["--hw", str(file), *model]):
        assert main(["evaluate", "--workload", "bert", *words, "--json"]) == 0
        told.append(json.loads(capsys.readouterr().out))
    for answer in (by_knobs, *told):
        assert answer["residency"]["level"] == "weights"
        for name in ("latency_s", "energy_j", "total_kgco2e"):
            assert answer[name] == pytest.approx(first["metrics"][name], rel=1e-12)
    exported = load_design(run, 1)
    assert exported.residency == "weights" and exported.on_chip is not None
    steps = exported.on_chip["steps"]
    assert sum(step["latency_s"] for step in steps) == pytest.approx(first["metrics"]["latency_s"], rel=1e-12)


def test_a_design_searched_with_none_is_costed_so(tmp_path: Path) -> None:
    """Its file costs what the search said, and says what it would save; `residency` overrules it."""
    run = dse.search("bert", out=tmp_path / "run", fixed=FIXED, residency="none")
    first, file = run.designs[0], str(run.path / "designs" / "design-0001.toml")
    written = (run.path / "designs" / "design-0001.toml").read_text(encoding="utf-8").splitlines()
    assert not any("residency" in line for line in written if not line.startswith("#"))  # comments have the command
    model = {name: first["knobs"][name] for name in ("layers", "hidden", "ffn", "heads")}
    again = dse.evaluate("bert", file, fixed=model)
    assert again["residency"] == {"level": "none", "reason": "it is not asked for"}
    assert again["energy_j"] == pytest.approx(first["metrics"]["energy_j"], rel=1e-12)
    assert any("--residency weights" in line for line in again["cautions"])
    kept = dse.evaluate("bert", file, fixed=model, residency="weights")
    assert kept["energy_j"] < again["energy_j"] and kept["residency"]["level"] == "weights"
    # A file of one's own, which no search has written, is a design like any other.
    own = tmp_path / "own.toml"
    own.write_text(spaces.load("edge22").accelerator(**{name: first["knobs"][name] for name in spaces.load("edge22").knobs}).to_toml())
    assert dse.evaluate("bert", str(own), fixed=model)["energy_j"] == kept["energy_j"]


def test_the_imitation_of_another_tool_keeps_its_bytes(tmp_path: Path) -> None:
    given: dict[str, Any] = {"fixed": FIXED, "hardware_profile": "catransformers22"}
    csv = [
        (dse.search("bert", out=tmp_path / str(i), **given, **more).path / "pareto.csv").read_bytes()
        for i, more in enumerate(({}, {"residency": "none"}, {"residency": "weights"}))
    ]
    assert csv[0] == csv[1] == csv[2]
    told = dse.evaluate("bert", hardware_profile="catransformers22")["residency"]
    assert told["level"] == "none" and "CATransformers" in told["reason"]


def test_what_a_large_space_leaves_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from dse.reports import console
    from dse.searches.prepared import prepared

    found = prepared("bert", "carbon", hw="datacenter", budget=50)
    assert found.large is not None and found.problem.residency == "none"
    console.say_problem(found.problem, large=found.large)
    assert "residency   none: in a space too large to sweep every operation stands alone" in "".join(capsys.readouterr())
