"""Whole chips and whole networks beside published figures and other tools: bounds that hold whatever the model, and the pages."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dse import cli
from hw_models.costs.evaluate import evaluate
from hw_models.devices import library as devices
from hw_models.validation import chips, networks
from hw_models.validation.registry import reference_rows

DOCS = Path(__file__).resolve().parents[3] / "docs" / "models"
# Beyond 2x (area: 1.5x) today; docs/models/chips.md says why. A figure that leaves its place, either way, is looked at.
MISSED = {("TPU v1", "area"), ("NVDLA 512", "area"), ("Simba", "area"), ("Gemmini", "latency"), ("NVDLA 32", "chip energy")}


def test_figures_are_where_the_page_says() -> None:
    found = chips.figures()
    assert {(f.chip, f.quantity) for f in found if not f.within} == MISSED
    assert chips.markdown(found) in (DOCS / "chips.md").read_text(encoding="utf-8")
    assert all(f.source and f.status in ("read", "recalled") for f in found)
    assert all(f.reason for f in found if not f.within)


def test_no_chip_is_faster_than_its_units_and_its_memory() -> None:
    """By the papers' own numbers: MACs over units and clock, weights that do not fit over the bandwidth."""
    by_name = {(f.chip, f.workload): f.ours for f in chips.figures() if f.quantity == "latency"}
    macs = 4_089_184_256
    for size in (2048, 1024, 512, 256, 128, 64, 32):
        assert by_name[f"NVDLA {size}", "resnet-50"] >= macs / size / 1e9 * 1e3
    assert by_name["Gemmini", "resnet-50"] >= macs / 256 / 1e9 * 1e3
    assert by_name["Eyeriss", "alexnet convolutions"] >= 4 * 665.8e6 / 168 / 200e6 * 1e3 * 0.999
    assert by_name["Edge TPU", "vgg16"] >= (138.3e6 - 8 * 2**20) / 500e6 * 1e3
    rates = {f.workload: f.ours for f in chips.figures() if f.quantity == "rate"}
    for name, per_weight in {"mlp0": 200, "mlp1": 168, "lstm0": 64, "lstm1": 96}.items():
        assert rates[name] <= 2 * per_weight * 34e9 * 1e-12


def test_the_table_is_what_users_get() -> None:
    """The row without residency equals `evaluate` on the device as it is loaded."""
    row = next(r for r in reference_rows(chips.FILE) if r["workload"] == "mlp0" and r["quantity"] == "rate")
    cost = evaluate(chips.chip(row), chips.workload("mlp0", 200, 8))
    figure = next(f for f in chips.figures() if f.workload == "mlp0" and f.quantity == "rate")
    assert figure.ours == pytest.approx(2e-12 * 5 * 2000 * 2000 * 200 / float(cost.latency_s), rel=1e-12)
    simba = chips.chip({"chip": "Simba", "device": "simba", "units": "", "buffer_kib": "", "dram_gb_per_s": ""})
    one = replace(simba, chips=1, area_mm2=None, link_bytes_per_s=0.0)
    assert chips.bottom_up_mm2(simba) == pytest.approx(float(one.batch().area_mm2[0]), rel=1e-12)


def test_parts_of_tpu_v1_are_those_of_its_floor_plan_on_the_page() -> None:
    """What a memory takes is what the chip is smaller by without half of it, twice; the page has them beside the paper's shares."""
    whole = devices.load("tpu-v1").accelerator
    found = {}
    for number, level in enumerate(whole.levels[:-1]):
        levels = list(whole.levels)
        levels[number] = replace(level, bytes=level.bytes // 2)
        found[level.name] = 2.0 * (chips.bottom_up_mm2(whole) - chips.bottom_up_mm2(replace(whole, levels=tuple(levels))))
    rest = chips.bottom_up_mm2(whole) - sum(found.values())
    page = (DOCS / "chips.md").read_text(encoding="utf-8")
    rows = (
        ("unified buffer, 24 MiB | 29 %", 0.29, found["unified_buffer"]),
        ("accumulators, 4 MiB | 6 %", 0.06, found["accumulators"]),
        ("matrix unit and activation pipeline | 24 + 6 %", 0.30, rest),
        ("*these* | 65 %", 0.65, chips.bottom_up_mm2(whole)),
    )
    for text, share, ours in rows:
        assert f"| {text} | {331 * share:.0f} | {ours:.0f} |" in page
        assert 0.8 <= ours / (331 * share) <= 1.0


def test_commands_print_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "chips", "--only", "Edge TPU", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["workload"] for row in rows] == ["mobilenet-v2", "mobilenet-v1", "vgg16"]
    assert cli.main(["validate", "networks", "--markdown"]) == 0
    assert capsys.readouterr().out == networks.markdown()
    assert cli.main(["validate", "chips", "--only", "Eyeris"]) == 2
    assert "Eyeriss" in capsys.readouterr().err
    assert cli.main(["validate", "networks", "--only", "resnet-50"]) == 2


@pytest.mark.parametrize("name", ["Edge TPU", "edge tpu", "edge-tpu", "EDGE-TPU"])
def test_chips_are_named_as_devices_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert chips.named()[name.casefold()] == ("Edge TPU",)
    assert len(chips.named()["nvdla"]) == 7 and chips.named()["nvdla 2048"] == ("NVDLA 2048",)
    assert cli.main(["validate", "chips", "--only", name, "--json"]) == 0
    assert {row["chip"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"Edge TPU"}


def test_networks_beside_both_tools() -> None:
    """DRAM and buffer words are ZigZag's, array cycles SCALE-Sim's, but for what the page gives a reason for."""
    assert networks.markdown() in (DOCS / "mapping.md").read_text(encoding="utf-8")
    held = {tuple(int(row[name]) for name in networks.SHAPE): row for row in reference_rows(networks.FILE)}
    assert {shape: {n: int(row[n]) for n in networks.NETWORKS} for shape, row in held.items()} == networks.layers()
    for layer in networks.compared():
        theirs = layer.peer("zigzag_dram_read_words")
        if theirs and layer.kind != "dense":
            # Every map and weight once; a whole port's accesses round there.
            assert layer.pipelined.dram_read_words == pytest.approx(theirs, rel=0.003)
            assert layer.pipelined.glb_words == pytest.approx(layer.peer("zigzag_glb_words"), rel=0.03)
        simulated = layer.peer("scalesim_total_cycles")
        if simulated and not layer.depthwise:
            fill = 2 * networks.ROWS + networks.COLUMNS - 2
            folds = -(-layer.shape[1] * layer.shape[3] ** 2 // networks.ROWS) * -(-layer.shape[2] // networks.COLUMNS)
            high, _, _, taps, stride, _ = layer.shape
            # It keeps a last window that reaches beyond the padded map; ours does not. A stream in pieces pays the fill once more a piece.
            theirs = -(-(high + 2 * ((taps - 1) // 2) - taps) // stride) + 1
            own = folds * (fill + networks.outputs(layer.shape) ** 2)
            assert simulated == folds * (fill + theirs**2)
            assert own <= layer.systolic.compute_cycles <= own * 1.05


def test_blocks_move_the_least_where_their_tensors_fit() -> None:
    """benchmarks/fusion.py: from 128 KiB (BERT-tiny's layer) and 512 KiB (MobileNetV2's block) on, input, weights and result once.

    By hand: 128 x 128 twice and 12 x 128 x 128 weights; 28 x 28 x 32 twice and 2 x 32 x 192 + 9 x 192 weights.
    """
    spec = importlib.util.spec_from_file_location("fusion", DOCS.parents[1] / "benchmarks" / "fusion.py")
    assert spec is not None
    assert spec.loader is not None
    fusion = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fusion)
    least = {"bert": 14 * 128 * 128, "inverted": 2 * 28 * 28 * 32 + 2 * 32 * 192 + 9 * 192}
    for name, kib in (("bert", 128), ("inverted", 512)):
        assert fusion.ours(name, kib, "activations") == least[name] == fusion.least_bytes(name)
        assert fusion.ours(name, kib // 4, "activations") > fusion.ours(name, kib // 4, "tiles") >= least[name]
    assert fusion.ours("inverted", 32, "tiles") == least["inverted"]  # with tiles from operation to operation
