"""Accelerator files of other tools: what is read, what is noted, and what hostile or broken files do."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

import hw_models.spaces
from dse.errors import DseError, UsageError
from dse.exporters import scalesim as scalesim_export
from dse.exporters import timeloop as timeloop_export
from dse.exporters import zigzag as zigzag_export
from dse.importers import read
from dse.importers.base import Options
from dse.importers.scalesim import read_topology
from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import ArrayKind, Dataflow


def _beside(name: str) -> ModuleType:
    """A module of this folder, loaded by path: tests are no package under import mode importlib."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1].joinpath(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _beside("export_designs")

CONFIG = """\
[general]
run_name = x
[architecture_presets]
ArrayHeight:    32
ArrayWidth:     16
IfmapSramSzkB:   64
FilterSramSzkB:  64
OfmapSramSzkB:   64
Bandwidth : 10
Dataflow : ws
"""

# The form of Accelergy-Project/timeloop-accelergy-exercises@09545d3f eyeriss_like/arch.yaml (format 0.4): an array of 14 columns of 12
# processing elements under one global buffer, with three scratchpads an element.
TIMELOOP_4 = """\
architecture:
  version: 0.4
  nodes:
  - !Container
    name: system
  - !Component
    name: DRAM
    class: DRAM
    attributes: {type: "LPDDR4", width: 64, datawidth: 8}
  - !Container
    name: chip
    attributes: {technology: "32nm"}
  - !Component
    name: shared_glb
    class: smartbuffer_SRAM
    attributes: {depth: 16384, width: 64, n_banks: 32, datawidth: 8, read_bandwidth: 16, write_bandwidth: 16}
  - !Container
    name: PE_column
    spatial: {meshX: 14}
  - !Container
    name: PE
    spatial: {meshY: 12}
  - !Parallel
    nodes:
    - !Component
      name: ifmap_spad
      class: smartbuffer_RF
      attributes: {depth: 12, width: 16, datawidth: 8, read_bandwidth: 2, write_bandwidth: 2}
    - !Component
      name: weights_spad
      class: smartbuffer_RF
      attributes: {depth: 192, width: 16, datawidth: 8, read_bandwidth: 2, write_bandwidth: 2}
  - !Component
    name: mac
    class: intmac
    attributes: {multiplier_width: 8, adder_width: 16}
"""

# The form of the same project's format 0.3 files (baseline_designs/.../eyeriss_like.yaml@9baa0b4).
TIMELOOP_3 = """\
architecture:
  version: 0.3
  subtree:
  - name: system
    local:
    - {name: DRAM, class: DRAM, attributes: {type: LPDDR4, width: 64, word-bits: 16}}
    subtree:
    - name: chip
      attributes: {technology: 45nm}
      local:
      - name: shared_glb
        class: smartbuffer_SRAM
        attributes: {memory_depth: 16384, memory_width: 64, word-bits: 16, read_bandwidth: 16, write_bandwidth: 16}
      subtree:
      - name: PE[0..167]
        local:
        - {name: spad, class: smartbuffer_RF, attributes: {memory_depth: 224, memory_width: 16, word-bits: 16, meshX: 14}}
        - {name: mac, class: intmac, attributes: {datawidth: 16, meshX: 14}}
"""


def file(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def zigzag_file(tmp_path: Path, change: str = "", by: str = "") -> Path:
    text = zigzag_export.hardware_yaml(shared.small_design())
    assert change in text
    return file(tmp_path, "hw.yaml", text.replace(change, by, 1) if change else text)


# Round trips


def test_zigzag_files_read_back_as_they_were_written(tmp_path: Path) -> None:
    a = shared.accelerator()
    found = read(zigzag_file(tmp_path), "zigzag", Options(frequency_hz=a.frequency_hz, word_bits=8)).accelerator
    assert (found.cores, found.array_rows, found.array_columns) == (a.cores, a.array_rows, a.array_columns)
    assert found.register_bytes == a.register_bytes
    batch = a.batch()
    assert found.mac_pj == pytest.approx(float(batch.mac_pj[0]))
    for i, (mine, theirs) in enumerate(zip(found.levels, a.levels, strict=True)):
        for name in ("name", "bytes", "read_words_per_cycle", "write_words_per_cycle", "per_core", "shared", "double_buffered"):
            assert getattr(mine, name) == getattr(theirs, name), name
        assert mine.read_pj_per_word == pytest.approx(float(batch.level_read_pj_per_word[0, i]))
    assert found.levels[-1].kind == "lpddr4"


def test_timeloop_files_read_back_as_they_were_written(tmp_path: Path) -> None:
    a = shared.accelerator()
    path = file(tmp_path, "arch.yaml", timeloop_export.export(shared.small_design()).files["arch.yaml"])
    found = read(path, "timeloop").accelerator
    for name in ("cores", "array_rows", "array_columns", "register_bytes", "frequency_hz", "node_nm", "word_bits"):
        assert getattr(found, name) == getattr(a, name), name
    for mine, theirs in zip(found.levels, a.levels, strict=True):
        for name in ("name", "kind", "bytes", "read_words_per_cycle", "write_words_per_cycle", "per_core", "double_buffered"):
            assert getattr(mine, name) == getattr(theirs, name), name


def test_scalesim_files_read_back_as_they_were_written(tmp_path: Path) -> None:
    design = scalesim_export.export(shared.small_design())
    settings = scalesim_export.settings_of(shared.small_design())
    found = read(file(tmp_path, "design.cfg", design.files["design.cfg"]), "scalesim").accelerator
    assert (found.array_rows, found.array_columns) == (settings.rows, settings.columns)
    assert found.dataflow == Dataflow[settings.dataflow.upper()]
    assert found.array_kind == ArrayKind.SYSTOLIC
    assert found.levels[0].bytes == 2 * 2**20


# Files as others write them


def test_scalesim_configuration(tmp_path: Path) -> None:
    imported = read(file(tmp_path, "google.cfg", CONFIG), "scalesim", Options(frequency_hz=7e8, dram_gib=4))
    a = imported.accelerator
    assert (a.name, a.cores, a.array_rows, a.array_columns, a.dataflow) == ("google", 1, 32, 16, Dataflow.WS)
    sram, dram = a.levels
    assert (sram.bytes, sram.shared, sram.double_buffered) == (64 * 1024, False, True)
    assert (dram.read_words_per_cycle, dram.bytes, a.frequency_hz) == (10.0, 4 * 2**30, 7e8)
    assert not any("frequency" in note for note in imported.notes)
    assert any("lpddr4" in note for note in imported.notes)
    dram = imported.accelerator.levels[-1]
    gb_per_s = dram.read_words_per_cycle * imported.accelerator.word_bits / 8 * imported.accelerator.frequency_hz / 1e9
    assert any("words a cycle" in note and f"{gb_per_s:.4g} GB/s" in note for note in imported.notes)
    unequal = read(file(tmp_path, "b.cfg", CONFIG.replace("OfmapSramSzkB:   64", "OfmapSramSzkB: 32")), "scalesim")
    assert unequal.accelerator.levels[0].bytes == 160 * 1024
    assert unequal.accelerator.levels[0].shared
    assert any("differ in size" in note for note in unequal.notes)


def test_timeloop_format_4(tmp_path: Path) -> None:
    a = read(file(tmp_path, "eyeriss.yaml", TIMELOOP_4), "timeloop").accelerator
    assert (a.cores, a.array_rows, a.array_columns) == (1, 12, 14)
    assert a.register_bytes == (12 + 192) * 16 // 8
    assert (a.node_nm, a.word_bits) == (32.0, 8)
    glb, dram = a.levels
    assert (glb.name, glb.bytes, glb.read_words_per_cycle) == ("shared_glb", 16384 * 8, 16.0)
    assert (dram.kind, dram.read_words_per_cycle) == ("lpddr4", 8.0)  # a row of 64 bits a cycle


def test_timeloop_format_3(tmp_path: Path) -> None:
    a = read(file(tmp_path, "eyeriss.yaml", TIMELOOP_3), "timeloop").accelerator
    assert (a.cores, a.array_rows, a.array_columns) == (1, 12, 14)
    assert (a.node_nm, a.word_bits, a.register_bytes) == (45.0, 16, 448)


def test_zigzag_memories_that_hold_few_operands(tmp_path: Path) -> None:
    """ZigZag's own tpu_like form: weights pass the buffer by; an accumulator for every column; four dimensions."""
    text = """\
name: tpu
memories:
  rf: {size: 1024, r_cost: 0.1, w_cost: 0.1, area: 0, latency: 1, operands: [I2], served_dimensions: [],
       ports: [{name: r_port_1, type: read, bandwidth_min: 8, bandwidth_max: 8, allocation: ["I2, tl"]},
               {name: w_port_1, type: write, bandwidth_min: 8, bandwidth_max: 8, allocation: ["I2, fh"]}]}
  acc: {size: 512, r_cost: 0.1, w_cost: 0.1, area: 0, latency: 1, operands: [O], served_dimensions: [D2],
        ports: [{name: rw_port_1, type: read_write, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, tl"]}]}
  tiny: {size: 4096, r_cost: 1, w_cost: 1, area: 0, latency: 1, operands: [O], served_dimensions: [D1, D2],
         ports: [{name: rw_port_1, type: read_write, bandwidth_min: 16, bandwidth_max: 16, allocation: ["O, tl"]}]}
  sram: {size: 8388608, r_cost: 64, w_cost: 32, area: 0, latency: 1, operands: [I1, O], served_dimensions: [D1, D2, D3],
         ports: [{name: r_port_1, type: read, bandwidth_min: 64, bandwidth_max: 256, allocation: ["I1, tl"]},
                 {name: w_port_1, type: write, bandwidth_min: 64, bandwidth_max: 128, allocation: ["I1, fh"]}]}
  dram: {size: 8000000000, r_cost: 700, w_cost: 750, area: 0, latency: 1, operands: [I1, I2, O], served_dimensions: [D1, D2, D3],
         ports: [{name: rw_port_1, type: read_write, bandwidth_min: 64, bandwidth_max: 64, allocation: ["O, tl"]}]}
operational_array: {unit_energy: 0.04, unit_area: 1, dimensions: [D1, D2, D3], sizes: [32, 8, 3]}
"""
    imported = read(file(tmp_path, "tpu.yaml", text), "zigzag")
    a = imported.accelerator
    assert (a.cores, a.array_rows, a.array_columns, a.mac_pj) == (3, 8, 32, 0.04)
    # 128 bytes of its own and an eighth of the column's 64.
    assert a.register_bytes == 128 + 8
    sram, dram = a.levels
    assert (sram.name, sram.bytes, sram.per_core) == ("sram", 2**20, False)
    assert (sram.read_words_per_cycle, sram.write_words_per_cycle) == (32.0, 16.0)
    assert (sram.read_pj_per_word, sram.write_pj_per_word) == (64 / 256 * 8, 32 / 128 * 8)
    assert dram.read_pj_per_word == 700 / 64 * 8
    notes = " ".join(imported.notes)
    assert "left out: tiny" in notes
    assert "sram holds I1, O only" in notes


def test_what_was_read_is_a_hardware_file(tmp_path: Path) -> None:
    imported = read(file(tmp_path, "google.cfg", CONFIG), "scalesim")
    written = file(tmp_path, "google.toml", imported.to_toml())
    again = hw_models.spaces.load_file(written)
    assert isinstance(again, Accelerator)
    assert again == imported.accelerator
    assert all(f"# {note}" in written.read_text() for note in imported.notes)


CONV_TITLES = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"


@pytest.mark.parametrize(
    "text",
    [
        f"{CONV_TITLES}\n\nAlphaGoZero,\nConv1, 19, 19, 3, 3, 17, 256, 1,\n",
        f"{CONV_TITLES},,Eh,Ew,e2\n,,,,,,,,,,,,\nConv1,19,19,3,3,17,256,1,,,110,110,12100\n",
        f"{CONV_TITLES}\nConv1, 19, 19, 3, 3, 17, 256, 1,#dw\n",
        f"{CONV_TITLES}\nConv1, 19, 19, 3, 3, 17, 256, 1, 1:1,\n",
        f"{CONV_TITLES}\nConv1, 19, 19, 3, 3, 17, 256, 1, \n",
        CONV_TITLES.replace(",", "\t") + "\nConv1\t19\t19\t3\t3\t17\t256\t1\t\n",
        f"{CONV_TITLES}\nConv1, 19, 19, 3, 3, 17, 256, 1, 1,\n",
    ],
)
def test_topologies_as_scale_sim_ships_them(text: str, tmp_path: Path) -> None:
    """Headings, remarks, empty columns, tabs, sparsity of all: 17 x 17 outputs of 256 filters of 3 x 3 x 17."""
    workload = read_topology(file(tmp_path, "t.csv", text))
    assert workload.macs() == 17 * 17 * 256 * 9 * 17
    assert workload.parameter_count() == 256 * 9 * 17
    assert workload.assumptions == ()


def test_a_depthwise_and_a_sparse_layer_of_a_topology(tmp_path: Path) -> None:
    text = f"{CONV_TITLES}\nDP1, 19, 19, 3, 3, 17, 1, 2,\nConv, 19, 19, 3, 3, 17, 8, 1, 2:4,\n"
    workload = read_topology(file(tmp_path, "t.csv", text))
    first, second = workload.phases[0].table.rows()
    assert (first.groups, first.m, first.n, first.k, first.parameters) == (17, 81, 1, 9, 153)
    assert (second.groups, second.k) == (1, 153)
    assert workload.assumptions == ("the sparsity of 1 layers of t.csv is not modelled: they are counted as dense",)


def test_a_template_of_a_topology_names_the_letter(tmp_path: Path) -> None:
    with pytest.raises(DseError, match=r"line 2, ifmap width is 'B'; it must be a whole number above 0"):
        read_topology(file(tmp_path, "t.csv", f"{CONV_TITLES}\nLSTM_igate_h, 1, B, 1, 1, H, H, 1,\n"))


def test_topologies_are_workloads(tmp_path: Path) -> None:
    path = file(tmp_path, "net.csv", "Layer,M,N,K,\nG0,512,768,64,\nG1,1,10,20,\n")
    table = read_topology(path).phases[0].table
    assert table.macs() == 512 * 768 * 64 + 200
    assert table.parameter_count() == 768 * 64 + 200
    # AlexNet's first layer as SCALE-Sim lists it: 227 x 227 x 3, 96 filters of 11 x 11, stride 4.
    conv = read_topology(file(tmp_path, "conv.csv", "Layer name,a,b,c,d,e,f,g,\nConv1,227,227,11,11,3,96,4,\n")).phases[0].table
    assert conv.macs() == 55 * 55 * 96 * 11 * 11 * 3
    with pytest.raises(DseError, match="is a workload and not an accelerator"):
        read(path, "scalesim")
    for text, says in [
        ("Layer,M,N,K,\n", "holds no layer"),
        ("Layer,M,N,K,\nG0,1,2,\n", "line 2 has 3 fields"),
        ("Layer,M,N,K,\nG0,1,x,3,\n", "line 2, N is 'x'"),
        ("Layer,M,N,K,\nG0,1,0,3,\n", "line 2, N is 0"),
        ("L,a,b,c,d,e,f,g,\nC,5,5,7,7,1,1,1,\n", "must fit"),
    ]:
        with pytest.raises(DseError, match=says):
            read_topology(file(tmp_path, "bad.csv", text))


# Errors name the file and the field


@pytest.mark.parametrize(
    ("change", "by", "says"),
    [
        ("ArrayHeight:    32", "ArrayHeight: many", "architecture_presets.ArrayHeight is 'many'"),
        ("ArrayHeight:    32", "ArrayHeight: 0", "ArrayHeight is 0"),
        ("ArrayHeight:    32", "ArrayHeight: 3.5", "whole number"),
        ("ArrayHeight:    32\n", "ArrayHight: 32\n", "ArrayHeight is missing"),
        ("Dataflow : ws", "Dataflow : wss", "did you mean 'ws'"),
        ("[architecture_presets]", "[architecture]", "section"),
        ("[general]", "general", "not a SCALE-Sim configuration"),
        ("Bandwidth : 10", "Bandwidth : nan", "Bandwidth is"),
        ("Bandwidth : 10", "Bandwidth : 1e99", "read_words_per_cycle"),
    ],
)
def test_broken_configurations(tmp_path: Path, change: str, by: str, says: str) -> None:
    path = file(tmp_path, "x.cfg", CONFIG.replace(change, by))
    with pytest.raises(DseError, match=says) as caught:
        read(path, "scalesim")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "by", "says"),
    [
        ("memories:", "memory:", "memories is missing"),
        ("sizes: [64, 16, 2]", "sizes: [64, 16]", "operational_array.sizes"),
        ("sizes: [64, 16, 2]", "sizes: [64, 16, two]", "'two'"),
        ("    size: 1048576", "    siz: 1048576", "memories.l2.size is missing"),
        ("operands: [I1, I2, O]", "operands: [I1, I2, P]", "one of I1, I2, O"),
        ("served_dimensions: [D1, D2]", "served_dimensions: [D1, D9]", "D9"),
        ("type: read,", "type: reed,", "did you mean 'read'"),
        ("unit_energy: 0.469035", "unit_energy: lots", "unit_energy is 'lots'"),
        ("bandwidth_max: 512", "bandwidth_max: -1", "bandwidth_max is -1"),
    ],
)
def test_broken_zigzag_files(tmp_path: Path, change: str, by: str, says: str) -> None:
    path = zigzag_file(tmp_path, change, by)
    with pytest.raises(DseError, match=says) as caught:
        read(path, "zigzag")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "by", "says"),
    [
        ("architecture:", "architectur:", "architecture is missing"),
        ("depth: 16384, ", "", "shared_glb.attributes.depth is missing"),
        ("class: intmac", "class: nothing", "no compute component"),
        ('type: "LPDDR4"', 'type: "LPDDR44"', "did you mean 'lpddr4'"),
        ("meshX: 14", "meshX: many", "meshX is 'many'"),
        ("class: DRAM", "class: SRAMM", "class DRAM"),
        ("width: 64, n_banks", "width: none, n_banks", "width is 'none'"),
    ],
)
def test_broken_timeloop_files(tmp_path: Path, change: str, by: str, says: str) -> None:
    assert change in TIMELOOP_4
    path = file(tmp_path, "x.yaml", TIMELOOP_4.replace(change, by))
    with pytest.raises(DseError, match=says) as caught:
        read(path, "timeloop")
    assert "\n" not in str(caught.value)


def test_unknown_tools_types_and_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'zigzag'"):
        read(tmp_path / "x", "zigzak")
    with pytest.raises(DseError, match="cannot be read"):
        read(tmp_path / "nowhere.yaml", "zigzag")
    with pytest.raises(DseError, match="did you mean 'lpddr4'"):
        read(file(tmp_path, "x.cfg", CONFIG), "scalesim", Options(dram_type="lpdr4"))
    path = tmp_path / "b.cfg"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DseError, match="UTF-8"):
        read(path, "scalesim")


# Files that mean harm


@pytest.mark.parametrize("tool", ["zigzag", "timeloop"])
@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "architecture: !!python/object/new:subprocess.Popen [['touch', '{marker}']]",
        "memories: !!python/name:os.system ''",
        "a: &a [*a]",
        "[" * 5000,
        "x: 'unclosed",
        "- just\n- a\n- list",
        "",
        "42",
        "\tbad: indent",
        "? {complex: key}\n: value",
    ],
)
def test_hostile_yaml_constructs_nothing(tmp_path: Path, tool: str, text: str) -> None:
    marker = tmp_path / "marker"
    path = file(tmp_path, "x.yaml", text.replace("{marker}", str(marker)))
    with pytest.raises(DseError) as caught:
        read(path, tool)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_references_that_blow_up_are_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    path = file(tmp_path, "bomb.yaml", "\n".join(lines))
    start = time.process_time()
    with pytest.raises(DseError, match="too large or too deeply nested"):
        read(path, "zigzag")
    assert time.process_time() - start < 5.0  # 10^12 entries if they were followed


def test_files_that_are_too_large_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    with open(path, "wb") as handle:
        handle.truncate(2**30)
    with pytest.raises(DseError, match="bytes"):
        read(path, "zigzag")


def test_hostile_names_become_text(tmp_path: Path) -> None:
    name = 'x"\\n[design]\\nevil = 1 # '
    path = zigzag_file(tmp_path, "name: dse_design_0007", f'name: "{name.replace(chr(34), chr(92) + chr(34))}\\x07"')
    text = path.read_text().replace("\n  l2:", '\n  "../../etc/passwd\\n":')
    path.write_text(text)
    imported = read(path, "zigzag")
    written = file(tmp_path, "out.toml", imported.to_toml())
    again = hw_models.spaces.load_file(written)
    assert isinstance(again, Accelerator)
    assert again.name.isprintable()
    assert again == imported.accelerator
    assert [level.name for level in again.levels] == ["etc_passwd", "glb", "dram"]
    assert all(line.startswith("# ") and line.isprintable() for line in written.read_text().splitlines()[: len(imported.notes)])


def test_the_command(tmp_path: Path) -> None:
    path = file(tmp_path, "google.cfg", CONFIG)
    out = tmp_path / "google.toml"
    code = "import sys; from dse import cli; sys.exit(cli.main())"
    words = [sys.executable, "-c", code, "import-hw", str(path), "--from", "scalesim", "--out", str(out), "--node-nm", "22"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "assumed: frequency_hz" in done.stderr
    assert hw_models.spaces.load_file(out).name == "google"
    # And it is what --hw takes.
    words = [sys.executable, "-m", "dse", "evaluate", "--workload", "bert", "--hw", str(out), "--set", "layers=2", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


HUGE = "1" + "0" * 400


@pytest.mark.parametrize("value", ["1e308", HUGE, "nan", "inf", "0x10"])
@pytest.mark.parametrize("field", ["FilterSramSzkB:  64", "ArrayHeight:    32", "Bandwidth : 10"])
def test_numbers_beyond_anything_built_are_refused(tmp_path: Path, field: str, value: str) -> None:
    path = tmp_path / "big.cfg"
    name = field.partition(":")[0].strip()
    path.write_text(CONFIG.replace(field, f"{name}: {value}"))
    with pytest.raises(DseError, match=name):
        read(path, "scalesim")


@pytest.mark.parametrize("value", [HUGE, ".inf", ".nan", "1e308"])
def test_yaml_numbers_beyond_anything_built_are_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "big.yaml"
    port = f"{{name: p, type: read_write, bandwidth_min: 8, bandwidth_max: {value}, allocation: [I1]}}"
    memory = f"{{size: 8, r_cost: 1, w_cost: 1, operands: [I1], served_dimensions: [D1], ports: [{port}]}}"
    path.write_text(f"name: x\noperational_array: {{dimensions: [D1], sizes: [4]}}\nmemories:\n  a: {memory}\n")
    with pytest.raises(DseError, match=r"bandwidth_max.* up to 1e\+100"):
        read(path, "zigzag")


@pytest.mark.parametrize("gib", [float("inf"), float("nan"), 1e308, 0.0, -1.0])
def test_options_beyond_anything_built_are_refused(tmp_path: Path, gib: float) -> None:
    path = tmp_path / "a.cfg"
    path.write_text(CONFIG)
    with pytest.raises(DseError, match="dram-gib"):
        read(path, "scalesim", Options(dram_gib=gib))
