"""Exported designs in the real tools. Slow: each tool gets an environment of its own (see environments.py)."""

import csv
import importlib.util
import io
import json
import subprocess
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import hw_models.spaces
from dse.exporters import accelforge, base, genz, scalesim, stream, zigzag
from dse.exporters.design import ExportDesign, describe
from dse.exporters.on_chip import placements
from hw_models.accelerator.fields import Dataflow
from workloads import library

pytestmark = pytest.mark.slow
RUN_TIMEOUT_S = 1500


def _module(path: Path) -> ModuleType:
    """A module by its path: tests are no package under import mode importlib."""
    import sys

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


environments = _module(Path(__file__).with_name("environments.py"))
shared = _module(Path(__file__).parents[1] / "dse" / "export_designs.py")


def run(tool: str, target: ModuleType, design: ExportDesign, folder: Path, *layers: str) -> list[dict]:
    """Export a design, run the script that goes with it in the tool's environment, and read what it prints."""
    python = environments.python_of(tool)
    base.write(target.export(design), design, folder)
    done = subprocess.run(
        [str(python), str(folder / f"run_{tool}.py"), *layers], capture_output=True, text=True, check=False, cwd=folder,
        timeout=RUN_TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def cycles_of(design: ExportDesign) -> dict[str, float]:
    """Our own cycles of each product."""
    return {p.name: p.latency_s * design.accelerator.frequency_hz for p in design.products}


@pytest.mark.parametrize("flow", ["os", "ws", "is"])
def test_scalesim_counts_equal_ours_exactly(flow: str, tmp_path: Path) -> None:
    """Every count of the real simulator for every exported product, in all dataflows: cycles, SRAM accesses, operand DRAM reads."""
    design = describe(shared.systolic(Dataflow[flow.upper()]), shared.SMALL)
    found = run("scalesim", scalesim, design, tmp_path)
    expected = list(csv.DictReader(io.StringIO((tmp_path / scalesim.COUNTS_FILE).read_text())))
    assert [row["layer"] for row in found] == [p.name for p in design.products]
    for row, counts in zip(found, expected, strict=True):
        for name in ("cycles", "ifmap_sram_reads", "filter_sram_reads", "ofmap_sram_writes", "ifmap_dram_reads", "filter_dram_reads"):
            assert row[name] == int(counts[name]), (row["layer"], name)


def test_scalesim_on_products_of_bert(tmp_path: Path) -> None:
    design = shared.documented_design()
    found = run("scalesim", scalesim, design, tmp_path, "scores", "pooler")
    expected = {row["layer"]: row for row in csv.DictReader(io.StringIO((tmp_path / scalesim.COUNTS_FILE).read_text()))}
    assert {row["layer"] for row in found} == {"scores", "pooler"}
    for row in found:
        assert row == {"layer": row["layer"], **{name: int(expected[row["layer"]][name]) for name in row if name != "layer"}}


def test_zigzag_agrees_on_bert(tmp_path: Path) -> None:
    """Where the array is the bound, ZigZag's cycles for the exported spatial mapping are ours; its loading and storing adds up to 1 %."""
    design = shared.documented_design()
    found = {row["layer"]: row for row in run("zigzag", zigzag, design, tmp_path)}
    assert set(found) == {p.name for p in design.products}
    ours = cycles_of(design)
    for p in design.products:
        row = found[p.name]
        if p.bound == "compute":
            assert row["ideal_cycles"] == ours[p.name]
            assert row["cycles_without_load_and_store"] == ours[p.name]
            # The first tile in and the last one out are not hidden there: 0.3 to 0.7 % of these products.
            assert ours[p.name] <= row["cycles"] <= 1.01 * ours[p.name]
        else:
            # One row: both read every weight once through the local buffers; ours counts the row and its result beside.
            assert row["cycles_without_load_and_store"] == pytest.approx(ours[p.name], rel=0.01)


def test_zigzag_saves_what_stays_on_chip(tmp_path: Path) -> None:
    """The real tool takes accelerators whose DRAM lacks what stays, is as fast on them, and saves energy; ours is as low as its own."""
    edge = hw_models.spaces.load("edge22").with_knobs(glb_mib=(1.0,)).accelerator(**{**shared.KNOBS, "glb_mib": 1.0})
    design = describe(edge, library.load("bert-tiny").build(), residency="epilogue")
    layers = ("q_proj", "scores", "ffn_down")
    off = {row["layer"]: row for row in run("zigzag", zigzag, design, tmp_path, *layers)}
    on = {row["layer"]: row for row in run("zigzag", zigzag, design, tmp_path, "--on-chip", *layers)}
    placed = {p.name: p for p in placements(design) if p.product.name in layers}
    assert set(on) == set(placed)
    for name, p in placed.items():
        assert on[name]["ideal_cycles"] == off[p.product.name]["ideal_cycles"]
        assert on[name]["cycles"] <= off[p.product.name]["cycles"]
        words = 1.0 if p.on_chip == ("inputs",) else 0.8  # at least a fifth where the result stays too
        assert on[name]["energy_pj"] < words * off[p.product.name]["energy_pj"]
        # Ours has the work of the epilogue beside; ZigZag's registers belong to one operand each.
        assert 0.75 < p.energy_j * 1e12 / on[name]["energy_pj"] < 1.15


def test_genz_is_the_roofline_of_what_it_was_told(tmp_path: Path) -> None:
    design = shared.documented_design()
    found = run("genz", genz, design, tmp_path)
    b = design.batch
    ours = cycles_of(design)
    layers = {row["layer"]: row for row in found if "layer" in row}
    for p in design.products:
        seconds = p.macs / (float(b.tops[0]) * 1e12 / 2)
        second_operand = p.n * p.k * p.batch
        moved = (p.batch * p.m * p.k + second_operand + p.batch * p.m * p.n) / float(b.dram_bytes_per_s[0])
        assert layers[p.name]["latency_s"] == pytest.approx(max(seconds, moved), rel=1e-9)
        # A product that fills the array takes the same time here; no product is faster here than on that roofline, but for reads and
        # writes that overlap.
        if p.bound == "compute":
            assert layers[p.name]["cycles"] == pytest.approx(ours[p.name], rel=1e-9)
        else:
            assert layers[p.name]["cycles"] == pytest.approx(ours[p.name], rel=0.01)
    model = next(row for row in found if row.get("model") == "prefill")
    total = sum(p.runs * p.latency_s for p in design.products)
    # The same layers; but it looks tokens up and predicts them by products with the vocabulary, and has no pooler (below 0.1 %).
    vocabulary = 512 * 768 * 30522 / (float(b.tops[0]) * 1e12 / 2)
    assert model["latency_s"] == pytest.approx(total + 2 * vocabulary, rel=1e-3)


def test_accelforge_finds_our_cycles_where_sizes_divide(tmp_path: Path) -> None:
    design = shared.tiny_design()
    found = {row["layer"]: row for row in run("accelforge", accelforge, design, tmp_path)}
    ours = cycles_of(design)
    cycles = {name: row["latency_s"] * design.accelerator.frequency_hz for name, row in found.items()}
    # Single precision inside the tool.
    assert cycles["smooth"] == pytest.approx(ours["smooth"], rel=1e-6)
    # 13 x 27 x 11 has no factors that fill 8 x 8: exact factors leave most of the array idle, padded tiles do not.
    assert cycles["odd"] > 2 * ours["odd"]


def test_stream_reads_the_export(tmp_path: Path) -> None:
    python = environments.python_of("stream")
    design = shared.small_design()
    base.write(stream.export(design), design, tmp_path)
    code = (
        "import sys, yaml\n"
        "from stream.parser.accelerator_validator import AcceleratorValidator\n"
        "from stream.parser.accelerator_factory import AcceleratorFactory\n"
        "from stream.parser.mapping_validator import MappingValidator\n"
        "path = sys.argv[1] + '/hardware.yaml'\n"
        "validator = AcceleratorValidator(yaml.safe_load(open(path)), path)\n"
        "assert validator.validate(), validator.errors\n"
        "accelerator = AcceleratorFactory(validator.normalized_data).create()\n"
        "mapping = MappingValidator(yaml.safe_load(open(sys.argv[1] + '/mapping.yaml')))\n"
        "assert mapping.validate(), mapping.errors\n"
        "print(len(accelerator.core_list))\n"
    )
    done = subprocess.run([str(python), "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == design.accelerator.cores + 1


def test_onnx_holds_the_pruned_model(tmp_path: Path) -> None:
    """The graph of a pruned design: its parameters are the workload's, its products have the workload's sizes."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    from dse.exporters import onnx as target

    design = shared.bert_design(layers=2, hidden=128, ffn=256, heads=2, sequence=32)
    base.write(target.export(design), design, tmp_path)
    graph = onnx.load(str(tmp_path / "model.onnx"))
    onnx.checker.check_model(graph)
    floats = [t for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) >= 1]
    stored = sum(int(np.prod(t.dims)) for t in floats)
    assert stored == pytest.approx(design.workload.parameter_count(), rel=0.01)
    products = [node for node in graph.graph.node if node.op_type in ("MatMul", "Gemm")]
    assert len(products) == int(sum(p.runs for p in design.products))
