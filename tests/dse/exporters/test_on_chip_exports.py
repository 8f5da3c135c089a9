"""Exports of designs whose tensors stay on chip: what the files say of residency, held against the report and the rules of the docs."""

import json
from pathlib import Path

import pytest
import yaml

import hw_models.spaces
from dse import api, exporters
from dse.exporters import base, scalesim, timeloop, zigzag
from dse.exporters.design import ExportDesign, describe
from dse.exporters.on_chip import placed_mappings, placements, room_bytes
from hw_models.costs.residency.models import report
from workloads import library

KNOBS = {"cores": 2, "width": 64, "depth": 16, "l2_kib": 128, "l2_words_per_cycle": 64}
WORDS = {"Inputs": "inputs", "Weights": "weights", "Outputs": "outputs"}


def design(residency: str = "epilogue", glb_mib: float = 1.0, **knobs: int) -> ExportDesign:
    """BERT-tiny, 128 tokens, on an edge accelerator with a buffer that does not hold everything."""
    edge = hw_models.spaces.load("edge22").with_knobs(glb_mib=(0.5, 1.0, 2.0))
    return describe(edge.accelerator(**KNOBS, glb_mib=glb_mib), library.load("bert-tiny").build(**knobs), residency=residency)


def load(text: str) -> dict:
    """YAML with the tags of Timeloop as plain mappings."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: {"!": suffix, **loader.construct_mapping(node, deep=True)})
    return yaml.load(text, Loader=Loader)  # noqa: S506


@pytest.mark.parametrize(("residency", "glb_mib"), [("activations", 0.5), ("epilogue", 1.0), ("weights", 2.0)])
def test_placements_are_the_steps_of_the_report(residency: str, glb_mib: float) -> None:
    one = design(residency, glb_mib)
    found = report(one.workload, one.batch, point=0, level=residency)  # type: ignore[arg-type]
    placed = placements(one)
    for product in one.products:  # every run of a product is in one of its placements
        assert sum(p.runs for p in placed if p.product is product) == pytest.approx(product.runs, rel=1e-12)
    own = [step for step in found["steps"] if step["row"] in one.rows]
    assert len(own) >= len(placed) > 0
    for name in ("latency_s", "energy_j", "dram_bytes"):
        assert sum(p.runs * getattr(p, name) for p in placed) == pytest.approx(sum(step[name] for step in own), rel=1e-12)
    for p in placed:
        assert p.resident_bytes <= p.held_bytes <= found["capacity_bytes"]
        # Weights stay for every product or for none.
        if p.product.second_is_weight:
            assert ("weights" in p.on_chip) == found["weights_on_chip"]


def test_what_does_not_stay_fits_the_room_that_is_left() -> None:
    one = design("epilogue", 0.5)
    placed = placements(one)
    found = placed_mappings(one, placed)
    narrow = 0
    for p in placed:
        level = found[p.name].levels[-2]
        m, n, k = level.tile
        cores = found[p.name].cores
        spans = [
            min(size * split, whole) for size, split, whole in zip((m, n, k), cores, (p.product.m, p.product.n, p.product.k), strict=False)
        ]
        words = {"inputs": spans[0] * spans[2], "weights": spans[2] * spans[1], "outputs": spans[0] * spans[1]}
        assert sum(size for name, size in words.items() if name not in p.on_chip) <= room_bytes(one, p)
        narrow += room_bytes(one, p) < one.accelerator.levels[-2].bytes / 2
    assert narrow == len(placed)  # something is held beside every product


@pytest.mark.parametrize("residency", ["epilogue", "weights"])
def test_timeloop_passes_the_dram_by(residency: str) -> None:
    one = design(residency, 2.0 if residency == "weights" else 1.0)
    files = timeloop.export(one).files
    level, dram = one.accelerator.levels[-2], one.accelerator.levels[-1]
    for p in placements(one):
        nodes = {node["name"]: node for node in load(str(files[f"on-chip/{p.name}.yaml"]))["architecture"]["nodes"]}
        spaces = nodes[dram.name].get("constraints", {"dataspace": {}})["dataspace"]
        assert {WORDS[word] for word in spaces.get("bypass", ())} == set(p.on_chip)
        assert {WORDS[word] for word in spaces.get("keep", ())} == (set(WORDS.values()) - set(p.on_chip) if p.on_chip else set())
        buffer = nodes[level.name]["attributes"]
        row = buffer["width"] // 8
        assert buffer["multiple_buffering"] == 1
        # One copy of what stays and, of a level that is double buffered, half of the rest; in whole rows.
        wanted = (level.bytes - p.held_bytes) / 2 + p.resident_bytes
        assert wanted - 1 <= buffer["depth"] * row < wanted + row
    assert set(files) - {f"on-chip/{p.name}.yaml" for p in placements(one)} == set(timeloop.export(design("none")).files)


def test_zigzag_has_no_dram_for_what_stays() -> None:
    one = design("weights", 2.0)
    files = zigzag.export(one).files
    operands = {"I1": "inputs", "I2": "weights", "O": "outputs"}
    level, dram = one.accelerator.levels[-2], one.accelerator.levels[-1]
    plain = yaml.safe_load(str(files["hardware.yaml"]))["memories"]
    for p in placements(one):
        memories = yaml.safe_load(str(files[f"on-chip/{p.name}.yaml"]))["memories"]
        far = {operands[op] for op in memories.get(dram.name, {"operands": ()})["operands"]}
        assert far == set(operands.values()) - set(p.on_chip)
        assert memories[level.name]["operands"] == ["I1", "I2", "O"]
        assert memories[level.name]["size"] == int((level.bytes - p.held_bytes) / 2 + p.resident_bytes) * 8
        assert not memories[level.name]["force_double_buffering"]
        assert memories["l2"] == plain["l2"]


def test_every_export_tells_it_and_only_where_something_stays(tmp_path: Path) -> None:
    one = design("weights", 2.0)
    for target in (timeloop, scalesim):
        folder = tmp_path / target.__name__
        base.write(target.export(one), one, folder)
        told = json.loads((folder / "on_chip.json").read_text())
        assert told["weights_on_chip"]
        assert told["dram_bytes"] == pytest.approx(sum(told["dram_bytes_by_cause"].values()))
        assert {step["layer"] for step in told["steps"]} - {None} == {p.name for p in one.products}
        notes = (folder / "EXPORT-NOTES.md").read_text()
        assert "## What stays on chip between operations" in notes
        assert ("The target's files do not say it" in notes) == (target is scalesim)
    for none in (design("none"), _profiled("catransformers22")):
        assert none.on_chip is None
        assert placements(none) == ()
        folder = tmp_path / str(id(none))
        written = base.write(zigzag.export(none), none, folder)
        assert not [path for path in written if "on" in path.stem and "chip" in path.stem]
        assert "What stays on chip" not in (folder / "EXPORT-NOTES.md").read_text()


def _profiled(profile: str) -> ExportDesign:
    edge = hw_models.spaces.load("edge22", profile=profile)
    return describe(edge.accelerator(**KNOBS, glb_mib=2), library.load("bert-tiny").build(), residency="weights")


def test_a_run_keeps_its_residency(tmp_path: Path) -> None:
    api.search(
        "bert-tiny", "hardware", residency="epilogue", out=tmp_path / "run", fixed={"cores": 2, "l2_kib": 128, "width": 64, "depth": 16}
    )
    run = api.load(tmp_path / "run")
    written = exporters.export(run, 1, "zigzag", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "on_chip.json").read_text())
    assert told["residency"] == "epilogue"
    assert {path.stem for path in written if path.parent.name == "on-chip"} == {p["name"] for p in told["placements"]}
    # The steps of the export cost what the run says that the design costs.
    metrics = run.entry(1)["metrics"]  # type: ignore[index]
    assert sum(step["latency_s"] for step in told["steps"]) == pytest.approx(metrics["latency_s"], rel=1e-9)
