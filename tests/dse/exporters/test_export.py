"""Exports: what the files say, what they must never do, and the counts and golden files that they are held against."""

import csv
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from dse import api, cli, exporters
from dse.errors import DseError, UsageError
from dse.exporters import accelforge, base, gemmini, genz, llmcompass, scalesim, stream, timeloop, yaml_text, zigzag
from dse.exporters.design import axis_dimensions, describe
from dse.exporters.names import safe_name
from dse.spaces.hardware import load as load_hardware
from hw_models.accelerator.fields import Dataflow
from hw_models.costs import evaluate as cost
from hw_models.systolic.gemm import gemm_counts
from workloads import library
from workloads.ops import Kind, Operation


def _beside(name: str) -> ModuleType:
    """A module of this folder, loaded by path: tests are no package under import mode importlib."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1].joinpath(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


shared = _beside("export_designs")
SMALL, accelerator, bert_design, gemm = shared.SMALL, shared.accelerator, shared.bert_design, shared.gemm
products, small_design, systolic = shared.products, shared.small_design, shared.systolic

GOLDEN = Path(__file__).parents[2] / "reference" / "exports"
FILE_TARGETS = tuple(name for name in exporters.TARGETS if name != "onnx")
MODULES = {
    "scalesim": scalesim,
    "zigzag": zigzag,
    "accelforge": accelforge,
    "genz": genz,
    "timeloop": timeloop,
    "stream": stream,
    "llmcompass": llmcompass,
    "gemmini": gemmini,
}


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def load(text: str) -> object:
    """YAML with the tags of these formats as plain mappings."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: {"!": suffix, **loader.construct_mapping(node, deep=True)})
    return yaml.load(text, Loader=Loader)  # noqa: S506


# What a design is taken apart into


def test_products_are_counted_once_and_nothing_is_lost() -> None:
    design = small_design()
    assert [(p.name, p.batch, p.m, p.n, p.k, p.runs) for p in design.products] == [
        ("up", 1, 60, 96, 40, 4.0),
        ("scores", 4, 33, 31, 16, 2.0),
        ("row", 1, 1, 70, 130, 1.0),
    ]
    assert design.products[0].operations == ("up", "up_again")
    assert [(o.function, o.count) for o in design.others] == [("softmax", 1.0)]


def test_products_of_a_model_add_up_to_its_macs_and_its_latency() -> None:
    workload = library.load("bert").build(layers=4, hidden=256, ffn=1024, heads=4)
    design = describe(accelerator(), workload)
    assert sum(p.macs * p.runs for p in design.products) == workload.macs()
    whole = cost.evaluate(accelerator(), workload)
    told = sum(p.latency_s * p.runs for p in design.products) + sum(o.latency_s for o in design.others)
    assert told == pytest.approx(float(whole.latency_s), rel=1e-12)  # the same terms in another order


def test_fused_attention_is_two_products() -> None:
    family = library.load("bert")
    fused = describe(accelerator(), family.build(layers=2, fused_attention=True))
    unfused = describe(accelerator(), family.build(layers=2))
    sizes = [{(p.batch, p.m, p.n, p.k, p.runs) for p in design.products if p.batch > 1} for design in (fused, unfused)]
    assert sizes[0] == sizes[1]
    assert any("without causal mask" in note for note in fused.notes)


def test_the_mapping_is_the_one_that_the_cost_stands_for() -> None:
    design = small_design()
    a = design.accelerator
    for p in design.products:
        mapping = design.mappings[p.name]
        assert design.mapped_cycles[p.name] == pytest.approx(p.latency_s * a.frequency_hz, rel=1e-12)
        (column, units), (row, more) = axis_dimensions(mapping, a.array_rows, a.array_columns)
        assert units <= a.array_columns
        assert more <= a.array_rows
        product = {"m": 1, "n": 1, "k": 1}
        product[column] *= units
        product[row] *= more
        assert tuple(product.values()) == mapping.unroll


def test_several_models_or_nothing_to_run_are_refused() -> None:
    with pytest.raises(UsageError, match="2 models"):
        describe(accelerator(), library.load("bert").build(layers=np.array([2, 4])))
    with pytest.raises(DseError, match="no matrix product"):
        describe(accelerator(), products(Operation("soft", Kind.SOFTMAX, 8, 8, function="softmax")))


# SCALE-Sim


@pytest.mark.parametrize("flow", ["os", "ws", "is"])
def test_scalesim_counts_are_the_closed_forms_of_what_is_exported(flow: str) -> None:
    design = describe(systolic(Dataflow[flow.upper()]), SMALL)
    export = scalesim.export(design)
    config = dict(line.split(":", 1) for line in export.files["design.cfg"].splitlines() if ":" in line)
    config = {key.strip(): value.strip() for key, value in config.items()}
    assert (config["ArrayHeight"], config["ArrayWidth"], config["Dataflow"]) == ("16", "64", flow)
    layers = [row.split(",")[:4] for row in export.files["workload.csv"].splitlines()[1:]]
    counts = {row["layer"]: row for row in table(export.files[scalesim.COUNTS_FILE])}
    assert len(layers) == len(counts) == 3
    for name, *sizes in layers:
        m, n, k = map(int, sizes)
        # Folds and their length from the table of docs/models (SCALE-Sim 3.0.0, stall-free), written out once more.
        rows, columns = 16, 64
        over_rows, over_columns, streamed = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[flow]
        folds = -(-over_rows // rows) * -(-over_columns // columns)
        cycles = folds * ((0 if flow == "os" else rows) + rows + columns + streamed - 2) - 1
        assert int(counts[name]["cycles"]) == cycles
        closed = gemm_counts(
            m, n, k, rows=rows, columns=columns, dataflow=flow, ifmap_kib=int(config["IfmapSramSzkB"]),
            filter_kib=int(config["FilterSramSzkB"]), ofmap_kib=int(config["OfmapSramSzkB"]),
        )  # fmt: skip
        assert int(counts[name]["ifmap_dram_reads"]) == closed.ifmap_dram_reads
        assert int(counts[name]["filter_dram_reads"]) == closed.filter_dram_reads


def test_scalesim_takes_the_dataflow_of_fewest_cycles_where_the_design_is_free() -> None:
    design = small_design()
    chosen = scalesim.settings_of(design)
    totals = {}
    for flow in ("os", "ws", "is"):
        totals[flow] = sum(
            p.runs
            * p.batch
            * int(gemm_counts(p.m, p.n, p.k, rows=16, columns=64, dataflow=flow, ifmap_kib=9, filter_kib=9, ofmap_kib=9).cycles)
            for p in design.products
        )
    assert chosen.dataflow == min(totals, key=lambda flow: totals[flow])


def test_scalesim_buffers_share_the_outermost_memory_of_the_chip() -> None:
    settings = scalesim.settings_of(small_design())
    assert settings.level == "glb"
    assert settings.ifmap_kib + settings.filter_kib + settings.ofmap_kib == 2 * 1024
    # A word of 16 bits takes two of the simulator's one-byte words' places.
    wide = scalesim.settings_of(small_design(word_bits=16))
    assert wide.ifmap_kib + wide.filter_kib + wide.ofmap_kib == 1024


# ZigZag


def test_zigzag_hardware_has_every_level_with_its_size_rate_and_energy() -> None:
    design = small_design()
    hardware = load(zigzag.hardware_yaml(design))
    memories = hardware["memories"]
    assert hardware["operational_array"]["sizes"] == [64, 16, 2]
    assert hardware["operational_array"]["unit_energy"] == float(design.batch.mac_pj[0])
    for i, level in enumerate(design.accelerator.levels):
        memory = memories[level.name]
        assert memory["size"] == level.bytes * 8
        read = next(port for port in memory["ports"] if port["type"] == "read")
        assert read["bandwidth_max"] == level.read_words_per_cycle * 8
        # Energy an access is energy a word times the words of an access.
        assert memory["r_cost"] == pytest.approx(float(design.batch.level_read_pj_per_word[0, i]) * level.read_words_per_cycle)
        assert memory["served_dimensions"] == (["D1", "D2"] if level.per_core else ["D1", "D2", "D3"])
    registers = [memory for name, memory in memories.items() if name.startswith("reg_")]
    assert sum(memory["size"] for memory in registers) == design.accelerator.register_bytes * 8


def test_zigzag_layers_and_their_spatial_mapping() -> None:
    design = small_design()
    layers = load(zigzag.workload_yaml(design))
    assert [(layer["name"], layer["loop_sizes"]) for layer in layers] == [
        ("up", [60, 96, 40]),
        ("scores", [4, 33, 31, 16]),
        ("row", [1, 70, 130]),
    ]
    assert layers[1]["equation"] == "O[g][d0][d1]+=I[g][d0][d2]*W[g][d2][d1]"
    mapping = {entry["name"]: entry for entry in load(zigzag.mapping_yaml(design))}
    assert set(mapping) == {"default", "up", "scores", "row"}
    limits = {"D1": 64, "D2": 16, "D3": 2}
    for layer in layers:
        sizes = dict(zip(layer["loop_dims"], layer["loop_sizes"], strict=True))
        for axis, entries in mapping[layer["name"]].get("spatial_mapping", {}).items():
            units = [(text.split(", ")[0], int(text.split(", ")[1])) for text in entries]
            assert np.prod([n for _, n in units]) <= limits[axis]
            assert all(n <= sizes[loop] for loop, n in units)


# GenZ, LLMCompass, Gemmini, Timeloop, Stream, accelforge


def test_genz_system_keeps_rate_and_bandwidth() -> None:
    design = bert_design()
    system = genz.system(design)
    b = design.batch
    # int8 runs twice as fast as the bf16 rate that it is told.
    assert system["flops"] / 0.5 == pytest.approx(float(b.tops[0]))
    assert system["offchip_mem_bw"] * 2**30 == pytest.approx(float(b.dram_bytes_per_s[0]))
    assert system["off_chip_mem_size"] * 2**20 == design.accelerator.levels[-1].bytes
    model = genz.model(design)
    assert model is not None
    assert model["config"]["num_decoder_layers"] == 12
    assert model["tokens"] == 512
    assert genz.model(small_design()) is None


def test_llmcompass_has_the_keys_of_its_own_template() -> None:
    """Every key that the tool's template has, and no other (its `_memory_protocol_list` is a remark)."""
    known = json.loads((GOLDEN / "llmcompass_template_keys.json").read_text())["keys"]

    def keys(value: object, prefix: str = "") -> list[str]:
        if not isinstance(value, dict):
            return [prefix]
        return [key for name, item in value.items() for key in keys(item, f"{prefix}.{name}".strip("."))]

    device = llmcompass.device(small_design())
    assert sorted(keys(device)) == sorted(known)
    io_ = device["device"]["io"]
    bandwidth = io_["memory_channel_active_count"] * io_["pin_count_per_channel"] * io_["bandwidth_per_pin_bit"] / 8
    assert bandwidth == pytest.approx(80e9)


def test_gemmini_keeps_the_rules_of_its_generator() -> None:
    for width, depth, l2_kib in [(32, 2, 64), (64, 16, 128), (128, 64, 512), (256, 64, 1024)]:
        a = accelerator(array_columns=width, array_rows=depth)
        level = a.levels[0]
        levels = (type(level)(**{**{f: getattr(level, f) for f in level.__slots__}, "bytes": l2_kib * 1024}), *a.levels[1:])
        found = gemmini.settings_of(describe(accelerator(array_columns=width, array_rows=depth, levels=levels), SMALL))
        assert found.broken_rules() == []
        assert found.dim**2 <= width * depth < (2 * found.dim) ** 2
        assert found.scratchpad_kib + found.accumulator_kib <= l2_kib


def test_gemmini_says_why_its_array_is_smaller() -> None:
    smaller = gemmini.export(describe(accelerator(array_columns=24, array_rows=24), SMALL))
    assert "square and its side a power of two, so 24 x 24 = 576 multipliers became 16 x 16 = 256" in smaller.lost[0]
    assert smaller.careful[0].startswith("the exported array has 16 x 16 = 256 multipliers, the design 24 x 24 = 576")
    assert not gemmini.export(describe(accelerator(array_columns=32, array_rows=8), SMALL)).careful  # 16 x 16 as well


def test_time_of_other_operations_is_told_with_what_stays_on_chip() -> None:
    edge = load_hardware("edge22", profile=None)
    model = library.load("resnet-50").build()
    plain, kept = (describe(edge.accelerator(edge.defaults), model, residency=level) for level in ("none", "weights"))
    alone = sum(o.latency_s for o in plain.others)
    assert plain.others_share == pytest.approx(alone / (alone + sum(p.runs * p.latency_s for p in plain.products)))
    assert kept.on_chip is not None
    steps, products = kept.on_chip["steps"], set(kept.rows)  # a network of convolutions and one dense layer: all else is no product
    spent = sum(s["latency_s"] for s in steps if s["row"] not in products)
    assert kept.others_share == pytest.approx(spent / sum(s["latency_s"] for s in steps)) and kept.others_share < 0.5 * plain.others_share
    assert sum("im2col" in note for note in kept.notes) == 1


def test_gemmini_says_which_rule_a_design_breaks() -> None:
    with pytest.raises(DseError, match="power of two from 2 on"):
        gemmini.export(describe(accelerator(array_columns=1, array_rows=1), SMALL))
    with pytest.raises(DseError, match="scratchpad bank"):
        gemmini.export(describe(accelerator(array_columns=256, array_rows=256), SMALL))


def test_timeloop_spreads_as_many_multipliers_as_there_are() -> None:
    design = small_design()
    nodes = load(timeloop.export(design).files["arch.yaml"])["architecture"]["nodes"]
    assert {node["!"] for node in nodes} == {"Container", "Component"}
    names = [node["name"] for node in nodes]
    assert len(set(names)) == len(names)
    spread = int(np.prod([n for node in nodes for n in node.get("spatial", {}).values()]))
    assert spread == 2 * 64 * 16
    storage = {node["name"]: node["attributes"] for node in nodes if node.get("class") == "SRAM"}
    for level in design.accelerator.levels[:-1]:
        attributes = storage[level.name]
        assert attributes["width"] * attributes["depth"] == level.bytes * 8
        assert attributes["read_bandwidth"] == level.read_words_per_cycle
    assert names.index("dram") < names.index("glb") < names.index("core") < names.index("l2") < names.index("pe") < names.index("mac")


def test_timeloop_problems_project_every_operand() -> None:
    files = timeloop.export(small_design()).files
    problem = load(files["problems/scores.yaml"])["problem"]
    assert problem["instance"] == {"B": 4, "M": 33, "N": 31, "K": 16}
    spaces = {
        space["name"]: {d for part in space["projection"] for term in part for d in term} for space in problem["shape"]["data_spaces"]
    }
    assert spaces == {"Inputs": {"B", "M", "K"}, "Weights": {"B", "K", "N"}, "Outputs": {"B", "M", "N"}}
    shared = load(files["problems/up.yaml"])["problem"]["shape"]["data_spaces"]
    assert next(space["projection"] for space in shared if space["name"] == "Weights") == [[["K"]], [["N"]]]


def test_stream_has_a_core_each_and_the_dram() -> None:
    files = stream.export(small_design()).files
    hardware = load(files["hardware.yaml"])
    assert hardware["cores"] == {0: "./cores/core.yaml", 1: "./cores/core.yaml", 2: "./cores/offchip.yaml"}
    assert hardware["offchip_core_id"] == 2
    core = load(files["cores/core.yaml"])
    assert "l2" in core["memories"]
    assert "glb" not in core["memories"]
    assert all("D3" not in memory["served_dimensions"] for memory in core["memories"].values())
    assert list(load(files["cores/offchip.yaml"])["memories"]) == ["dram"]


def test_accelforge_rates_and_energies() -> None:
    design = small_design()
    files = accelforge.export(design).files
    nodes = {node["name"]: node for node in load(files["arch.yaml"])["arch"]["nodes"]}
    for i, level in enumerate(design.accelerator.levels):
        read = nodes[level.name]["actions"][0]
        assert 1 / float(read["latency"].split("/")[1]) == pytest.approx(1 / (level.read_words_per_cycle * 8 * 625e6))
        assert read["energy"] * 1e12 * 8 == pytest.approx(float(design.batch.level_read_pj_per_word[0, i]))
    assert nodes["glb"]["size"] == 2 * 2**20 * 8 // 2  # half of a double-buffered memory
    assert nodes["glb"]["leak_power"] == float(design.batch.leakage_w[0])
    einsum = load(files["workloads/scores.yaml"])["workload"]
    assert einsum["iteration_space_shape"] == {"b": "0 <= b < 4", "m": "0 <= m < 33", "k": "0 <= k < 16", "n": "0 <= n < 31"}


@pytest.mark.parametrize(
    ("target", "name"),
    [("timeloop", "arch.yaml"), ("stream", "hardware.yaml"), ("llmcompass", "device.json"), ("gemmini", "DseDesign0007Config.scala")],
)
def test_golden_files(target: str, name: str) -> None:
    """The form of exports whose tool is not run here; the files were read against the tools' own examples."""
    assert MODULES[target].export(small_design()).files[name] == (GOLDEN / f"{target}_{name}").read_text()


# Whatever the target


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_every_export_says_what_it_cannot(target: str, tmp_path: Path) -> None:
    design = small_design()
    written = base.write(MODULES[target].export(design), design, tmp_path)
    notes = (tmp_path / base.NOTES_FILE).read_text()
    for title in ("What the files say", "What was assumed", "What this target cannot express"):
        assert f"## {title}" in notes
    assert "softmax" in notes
    assert {path.name for path in written} >= {base.NOTES_FILE, base.OPERATIONS_FILE}
    rows = table((tmp_path / base.OPERATIONS_FILE).read_text())
    assert [row["layer"] for row in rows] == ["up", "scores", "row"]
    for row, p in zip(rows, design.products, strict=True):
        assert float(row["dse_latency_s"]) == p.latency_s


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_files_do_not_depend_on_the_moment(target: str) -> None:
    first, second = (MODULES[target].export(small_design()) for _ in range(2))
    assert first.files == second.files


@pytest.mark.parametrize("target", [name for name in FILE_TARGETS if name != "gemmini"])
@pytest.mark.parametrize("dataflow", list(Dataflow))
def test_other_hardware_exports_too(target: str, dataflow: Dataflow) -> None:
    """Systolic arrays, a buffer for each operand (the comparison profile), wide words, one core."""
    for design in (
        describe(systolic(dataflow), SMALL),
        describe(accelerator(profile="catransformers22"), SMALL),
        describe(
            accelerator(word_bits=16, mac_bits=16, register_bytes=0),
            products(gemm("a", 7, 9, 11, input_bits=16, weight_bits=16, output_bits=16)),
        ),
    ):
        export = MODULES[target].export(design)
        for name, text in export.files.items():
            if name.endswith(".yaml"):
                assert load(text)


HOSTILE = [
    "../../evil",
    '"; rm -rf / #',
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "!!python/object:os.system",
    "a\nb: c",
    "n",
    "",
]


@pytest.mark.parametrize("target", FILE_TARGETS)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_text(target: str, name: str, tmp_path: Path) -> None:
    a = accelerator()
    level = type(a.levels[0])(**{**{f: getattr(a.levels[0], f) for f in a.levels[0].__slots__}, "name": name or "x"})
    hostile = accelerator(levels=(level, *a.levels[1:]), source=name)
    object.__setattr__(hostile, "name", name)
    workload = products(gemm(name, 12, 20, 30), gemm("other", 12, 20, 40), Operation("s", Kind.SOFTMAX, 4, 4, function="softmax"))
    design = describe(hostile, workload, workload_name=name, command=name, version=name)
    folder = tmp_path / "out"
    written = base.write(MODULES[target].export(design), design, folder)
    assert all(path.resolve().is_relative_to(folder) for path in written)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    for path in written:
        text = path.read_text()
        if path.suffix == ".yaml":
            assert load(text)
        if path.suffix == ".csv" and path.name != "workload.csv":
            for row in table(text):
                assert not any(str(cell)[:1] in ("=", "+", "@") for cell in row.values())
        if path.suffix == ".md":
            assert "<script>" not in text.replace("`<script>alert(1)</script>`", "")
            assert not any(line.startswith(("b: c", "=cmd")) for line in text.splitlines())
        if path.suffix == ".scala":
            assert "rm -rf" not in text


def test_names_become_identifiers() -> None:
    taken: set[str] = set()
    names = [safe_name(name, taken) for name in [*HOSTILE, "q_proj", "q_proj"]]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name.isascii() for name in names)


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "problems").symlink_to(outside)
    design = small_design()
    with pytest.raises(DseError, match="leads out of it"):
        base.write(timeloop.export(design), design, folder)
    assert not list(outside.iterdir())


def test_run_scripts_are_python() -> None:
    for target in ("scalesim", "zigzag", "accelforge", "genz"):
        compile(base.script(f"run_{target}.py"), target, "exec")


@pytest.mark.parametrize(
    "value",
    [
        0,
        -3,
        1.5,
        1e-7,
        1e22,
        8192.0,
        True,
        None,
        "yes",
        "n",
        "1e3",
        "0x1",
        "a b",
        "",
        "ü",
        "x: y",
        "- z",
        "#c",
        "'",
        '"',
        "\\n",
        "null",
        "~",
    ],
)
def test_yaml_scalars_read_back_as_they_were(value: object) -> None:
    found = yaml.safe_load(yaml_text.dump({"key": value, "list": [value], "flow": yaml_text.Flow({"inner": [value]})}))
    assert found == {"key": value, "list": [value], "flow": {"inner": [value]}}
    assert type(found["key"]) is type(value)


def test_yaml_refuses_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="nan"):
        yaml_text.dump({"x": float("nan")})


# The command


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    problem = api.make_problem("bert", fixed={"cores": 2, "depth": 16, "l2_words_per_cycle": 64, "glb_mib": 2})
    return api.search(problem, out=tmp_path_factory.mktemp("export") / "run", threads=1).path


@pytest.mark.parametrize("target", FILE_TARGETS)
def test_a_design_of_a_run(run_folder: Path, target: str, tmp_path: Path) -> None:
    run = api.load(run_folder)
    written = exporters.export(run, 2, target, tmp_path / "out")
    assert all(path.is_file() for path in written)
    rows = table((tmp_path / "out" / base.OPERATIONS_FILE).read_text())
    knobs = run.designs[1]["knobs"]
    workload = library.load("bert").build(**{name: knobs[name] for name in ("layers", "hidden", "ffn", "heads")})
    macs = sum(float(r["runs_per_request"]) * int(r["batch"]) * int(r["m"]) * int(r["n"]) * int(r["k"]) for r in rows)
    assert macs == workload.macs()


def test_the_command_and_its_errors(run_folder: Path, tmp_path: Path) -> None:
    def dse(*words: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from dse.commands import export; from dse import cli; sys.exit(cli.main())"
        return subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, timeout=120)

    done = dse("export", str(run_folder), "--to", "genz", "--out", str(tmp_path / "x"), "--json")
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "x" / "system.json") in json.loads(done.stdout)
    for words, code, says in [
        (["--to", "zigzaq"], 2, "did you mean 'zigzag'"),
        (["--to", "genz", "--design", "99999"], 2, "design 99999 is not in run"),
        (["--to", "genz", "--design", "0"], 2, "1 to"),
    ]:
        failed = dse("export", str(run_folder), *words)
        assert failed.returncode == code
        assert says in failed.stderr
        assert failed.stderr.count("\n") == 1
    assert exporters.export(api.load(run_folder), 1, "genz")[0].parent == run_folder / "exports" / "genz-0001"


def test_the_help_names_every_target(capsys: pytest.CaptureFixture[str]) -> None:
    """The command starts without loading exporters, so its text repeats their names."""
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    told = capsys.readouterr().out.partition("Targets:")[2].partition(".")[0]
    assert sorted(name.strip() for name in told.split(",")) == sorted(exporters.TARGETS)
