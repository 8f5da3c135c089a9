"""Sources of the hardware's figures: of the user's file what it states, of a device's its data sheet, of the tables the rest."""

from pathlib import Path
from typing import Any

import pytest

from dse import evaluate
from dse.spaces import hardware
from hw_models.devices import library

OWN = """
{top}
name = "mine"
cores = {cores}
frequency_hz = 8e8
node_nm = 16
word_bits = 8
dram_gb_per_s = 25.6
[array]
rows = 32
columns = 32
kind = "systolic"
[vector]
lanes = 32
[[levels]]
name = "glb"
mib = 2
words_per_cycle = 128
{glb}
[[levels]]
name = "dram"
kind = "lpddr5"
gib = 2
{dram}
"""
TABLES = ("Accelergy", "CACTI", "makers", "accelergy")


def told(hw: Any) -> dict[str, dict[str, Any]]:
    """The sources of the hardware, by the last parts of their keys."""
    answer = evaluate("bert", hw=hw, fixed={"sequence": 32, "layers": 2}, allow_unsupported=True)
    return {s["key"].split(".", 2)[-1]: s for s in answer["sources"] if str(s.get("key")).startswith("hardware.")} | {
        "not_modelled": {"source": answer["not_modelled"]}
    }


@pytest.mark.parametrize("cores", ["1", "[1, 2]"])
@pytest.mark.parametrize(
    ("figure", "value", "place"),
    [("mac_pj", 0.2, "top"), ("area_mm2", 8.0, "top"), ("leakage_w", 0.05, "top"), ("glb.read_pj_per_word", 3.5, "glb"),
     ("dram.read_pj_per_word", 30.0, "dram"), ("dram.write_pj_per_word", 31.0, "dram")],
)  # fmt: skip
def test_a_figure_of_the_file_is_of_the_file_and_no_other(tmp_path: Path, figure: str, value: float, place: str, cores: str) -> None:
    lines = {"top": "", "glb": "", "dram": ""}
    lines[place] = f"{figure.rpartition('.')[2]} = {value}"
    file = tmp_path / "mine.toml"
    file.write_text(OWN.format(cores=cores, **lines))
    found = told(str(file))
    assert found[figure]["source"] == "given in mine.toml" and found[figure]["value"] == value
    assert "nm" not in found[figure]["note"] and found[figure]["vintage"] == "see source"
    of_tables = [key for key in found if key not in (figure, "not_modelled")]
    assert of_tables and all(any(word in found[key]["source"] for word in TABLES) for key in of_tables)
    assert ("leakage of logic" in found["not_modelled"]["source"]) == (figure != "leakage_w")  # an idle power that is stated is all of it
    file.write_text(OWN.format(cores=cores, **{**lines, "top": f'source = "our power sign-off"\n{lines["top"]}'}))
    assert told(str(file))[figure]["source"] == "given in mine.toml: our power sign-off"


@pytest.mark.parametrize("name", library.names())
def test_a_device_s_figures_are_its_data_sheet_s(name: str) -> None:
    device = library.load(name)
    found = hardware.load(name, profile=None)
    for figure in ("mac_pj", "area_mm2", "leakage_w"):
        assert (found.ground(figure) == "data sheet") == (getattr(device.accelerator, figure) is not None)


@pytest.mark.parametrize("name", ["edge-tpu", "nvdla"])
def test_sources_of_edge_chips(name: str) -> None:
    device, found = library.load(name), told(name)
    for figure in ("area_mm2", "leakage_w"):
        stated = getattr(device.accelerator, figure) is not None
        assert found[figure]["source"] == device.sources[figure] if stated else "CACTI" in found[figure]["source"]
    assert ("leakage of logic" in found["not_modelled"]["source"]) == (device.accelerator.leakage_w is None)


def test_energy_of_a_dram_does_not_go_with_the_chip_s_node(tmp_path: Path) -> None:
    for node in ("16", "28"):
        (tmp_path / "mine.toml").write_text(OWN.format(top="", cores=1, glb="", dram="").replace("node_nm = 16", f"node_nm = {node}"))
        found = told(str(tmp_path / "mine.toml"))
        assert found["dram.read_pj_per_word"]["value"] == 40.0 and found["dram.read_pj_per_word"]["note"] == ""  # 5 pJ a bit
        assert found["mac_pj"]["note"].startswith(f"at {node} nm")


def test_a_device_in_a_list_and_a_file_of_it_are_told_alike(tmp_path: Path) -> None:
    from dse.cli import main

    source = library.load("edge-tpu").sources["leakage_w"]
    answer = evaluate("bert", hw="nvdla,edge-tpu", fixed={"device": "edge-tpu", "sequence": 32, "layers": 2}, allow_unsupported=True)
    assert source in [s["source"] for s in answer["sources"] if str(s.get("key")).endswith("leakage_w")]
    file = tmp_path / "mine.toml"
    assert main(["init", "accelerator", str(file), "--from", "edge-tpu"]) == 0
    assert told(str(file))["leakage_w"]["source"].startswith("given in mine.toml")
