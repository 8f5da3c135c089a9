"""Workload files: model records, mixes, and what is wrong with them; the command that shows a workload."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workloads
from dse import cli
from workloads import library, summary

RECORD = """
name = "mine"
family = "decoder"
[dimensions]
layers = 2
hidden = 64
heads = 4
kv_heads = 2
head_dim = 16
ffn = 128
vocabulary = 100
positions = 512
[defaults]
sequence = 32
new_tokens = 4
"""
MIX = """
name = "service"
[requests]
rate_per_s = 2.5
deadline_s = 3
duty = 0.25
[[part]]
name = "chat"
workload = "mine.toml"
weight = 7
[part.set]
sequence = 100
new_tokens = 10
[[part]]
name = "agents"
workload = "mine.toml"
weight = 3
[part.set]
sequence = 20
new_tokens = 50
[[part]]
name = "embed"
workload = "bert-tiny"
weight = 10
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(RECORD)
    (tmp_path / "mix.toml").write_text(MIX)
    return tmp_path


def test_a_model_of_ones_own(folder: Path) -> None:
    family = workloads.load(str(folder / "mine.toml"))
    workload = family.build()
    assert workload.parameter_count() == 2 * 100 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64
    assert [phase.name for phase in workload.phases] == ["prefill", "generation"]
    with pytest.raises(workloads.WorkloadError, match="heads of mine is 4, must be a multiple of kv_heads = 3"):
        family.build(kv_heads=3)


def test_a_mix_is_the_weighted_sum_of_its_parts(folder: Path) -> None:
    mix = workloads.load(str(folder / "mix.toml"))
    workload = mix.build()
    own, bert = workloads.load(str(folder / "mine.toml")), workloads.load("bert-tiny")
    chat, agents = own.build(sequence=100, new_tokens=10), own.build(sequence=20, new_tokens=50)
    expected = 0.35 * chat.macs() + 0.15 * agents.macs() + 0.5 * bert.build().macs()
    assert workload.macs() == pytest.approx(expected, rel=1e-12)  # sums of floats in another order
    # The two parts of one model hold its weights once.
    assert workload.parameter_count() == own.build().parameter_count() + bert.build().parameter_count()
    assert workload.kv_cache_bytes() == max(chat.kv_cache_bytes(), agents.kv_cache_bytes())
    assert dict(workload.requests) == {"rate_per_s": 2.5, "deadline_s": 3.0, "duty": 0.25}
    assert [phase.name for phase in workload.phases] == [
        "chat.prefill",
        "chat.generation",
        "agents.prefill",
        "agents.generation",
        "embed.forward",
    ]
    assert workload.phase("chat.generation").after == ("chat.prefill",)
    assert mix.build(weight_bits=4).weight_bytes() < 0.6 * workload.weight_bytes()
    assert mix.build(batch=3).macs() == pytest.approx(3 * workload.macs(), rel=1e-12)


def test_parts_of_different_models_do_not_share_weights(folder: Path) -> None:
    text = MIX.replace("[part.set]\nsequence = 20", "[part.set]\nlayers = 1\nsequence = 20")
    (folder / "mix.toml").write_text(text)
    workload = workloads.load(str(folder / "mix.toml")).build()
    own = workloads.load(str(folder / "mine.toml"))
    expected = own.build().parameter_count() + own.build(layers=1).parameter_count()
    assert workload.parameter_count() == expected + workloads.load("bert-tiny").build().parameter_count()


def test_bundled_mixes() -> None:
    assert {"naturalbench", "camerabench", "chat-and-agents"} <= set(library.mixes())
    for name in library.mixes():
        family = workloads.load(name)
        assert family.note
        assert family.build().macs() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("weight = 7", "weight = -1"), "part 1: field 'weight' is -1, must be a number above 0"),
        (lambda t: t.replace("weight = 7", "weight = nan"), "field 'weight' is nan"),
        (lambda t: t.replace("sequence = 100", "sequense = 100"), "knob of mine is 'sequense'"),
        (lambda t: t.replace("sequence = 100", "sequence = 1000"), "must be at most positions = 512"),
        (lambda t: t.replace('"bert-tiny"', '"bert-tinny"'), "nearest is 'bert-tiny'"),
        (lambda t: t.replace('workload = "bert-tiny"', "workload = 3"), "part 3: field 'workload' is 3"),
        (lambda t: t.replace('"mine.toml"', '"mix.toml"', 1), "is the file itself"),
        (lambda t: t.replace('"bert-tiny"', '"naturalbench"'), "which is a mix itself"),
        (lambda t: t.replace('"mine.toml"', '"gone.toml"', 1), "does not exist"),
        (lambda t: t.replace("duty = 0.25", "duty = 2"), "field 'duty' of requests is 2, must be above 0 and at most 1"),
        (lambda t: t.replace("rate_per_s", "rate"), "field of requests is 'rate', must be one of deadline_s, duty, rate_per_s"),
        (lambda t: t.replace('name = "agents"', 'name = "chat"'), "part name 'chat' occurs twice"),
        (lambda t: t.replace("[requests]", "[request]"), "field is 'request'"),
        (lambda t: t + "\n[[part]]\nweigth = 2\nworkload = 'bert'", "nearest is 'weight'"),
        (lambda t: t + "=", "is not a TOML file"),
    ],
)
def test_mixes_that_are_wrong(change: Callable[[str], str], words: str, folder: Path) -> None:
    path = folder / "mix.toml"
    path.write_text(change(MIX))
    with pytest.raises(workloads.WorkloadError) as caught:
        workloads.load(str(path)).build()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace('family = "decoder"', 'family = "decode"'), "family is 'decode', must be one of"),
        (lambda t: t.replace('family = "decoder"', ""), "field 'family' is None, must be a text"),
        (lambda t: t.replace("hidden = 64\n", ""), "field 'hidden' of dimensions is missing (width of the residual stream)"),
        (lambda t: t.replace("hidden = 64", "hiden = 64"), "field of dimensions is 'hiden'"),
        (lambda t: t.replace("hidden = 64", "hidden = 6.4"), "field 'hidden' is 6.4"),
        (lambda t: t.replace("hidden = 64", "hidden = 0"), "hidden of"),
        (lambda t: t.replace("hidden = 64", "hidden = true"), "field 'hidden' is True"),
        (lambda t: t.replace("hidden = 64", "hidden = 64\ntied = 1"), "field 'tied' is 1, must be a true or false"),
        (lambda t: t.replace("sequence = 32", "layers = 32"), "field of defaults is 'layers'"),
        (lambda t: t.replace("[dimensions]", "[dimension]"), "field 'dimensions' is None"),
        (lambda t: t.replace("[defaults]", "[settings]"), "field is 'settings', must be one of"),
        (lambda t: t.replace("[defaults]", "[settings]"), "nearest is 'defaults'"),
        (lambda t: t.replace("[defaults]", "[default]"), "nearest is 'defaults'"),
        (lambda t: "sequence = 32\n" + t, "field 'sequence' stands outside of the tables, must be in [defaults]"),
        (lambda t: "rotary_dim = 8\n" + t, "field 'rotary_dim' stands outside of the tables, must be in [dimensions]"),
    ],
)
def test_records_that_are_wrong(change: Callable[[str], str], words: str, folder: Path) -> None:
    path = folder / "mine.toml"
    path.write_text(change(RECORD))
    with pytest.raises(workloads.WorkloadError) as caught:
        workloads.load(str(path)).build()
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("positions", "stated", "sequence", "new_tokens"),
    [(1024, "", 512, 128), (256, "", 128, 128), (100, "", 50, 50), (256, "new_tokens = 6", 250, 6), (256, "sequence = 200", 200, 56)],
)
def test_lengths_that_a_record_leaves_out_fit_its_positions(
    positions: int, stated: str, sequence: int, new_tokens: int, folder: Path
) -> None:
    path = folder / "mine.toml"
    path.write_text(RECORD.partition("[defaults]")[0].replace("positions = 512", f"positions = {positions}") + f"[defaults]\n{stated}\n")
    values = workloads.load(str(path)).values()
    assert (values["sequence"], values["new_tokens"]) == (sequence, new_tokens)
    assert workloads.load(str(path)).build().macs() > 0


def test_an_encoder_with_few_positions_is_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = RECORD.partition("[defaults]")[0].replace("decoder", "encoder").replace("kv_heads = 2\n", "").replace("= 512", "= 256")
    (folder / "enc.toml").write_text(text)
    assert workloads.load(str(folder / "enc.toml")).values()["sequence"] == 256
    assert cli.main(["workload", "show", str(folder / "enc.toml")]) == 0
    assert cli.main(["workload", "show", str(folder / "enc.toml"), "--set", "sequence=257"]) != 0


LINES = [line for line in (RECORD + MIX).splitlines() if line]


@given(
    st.lists(st.sampled_from([*LINES, "x = [1, 2]", "part = 3", "heads = -4", "norm = 7", "phase = 'decode'", "[part.bind]"]), max_size=30)
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mixture_of_lines(folder: Path, lines: list[str]) -> None:
    path = folder / "fuzz.toml"
    path.write_text("\n".join(lines))
    message = ""
    try:
        workloads.load(str(path)).build()
    except workloads.WorkloadError as error:
        message = str(error)
    assert "\n" not in message
    assert {item.name for item in folder.iterdir()} == {"fuzz.toml", "mine.toml", "mix.toml"}


def test_paths_that_are_no_workload(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    for path, words in ((tmp_path / "a.bin", "must be .onnx, .json or .toml"), (tmp_path / "b.onnx", "does not exist")):
        with pytest.raises(workloads.WorkloadError, match=words):
            workloads.load(str(path))
    with pytest.raises(workloads.WorkloadError, match="bind is given"):
        workloads.load("bert", bind={"n": 1})


# ---- dse workload show ----


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line with the room's commands in it."""

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = cli.main(list(words))
        except SystemExit as stop:
            code = int(stop.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_show_text(show: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = show("workload", "show", "bert", "--set", "sequence=128")
    assert (code, err) == (0, "")
    assert "11.17 GMAC a request, 109,482,240 parameters" in out
    assert "roofline at 20.48 TOPS and 80 GB/s (ridge at 128.0 MAC/byte)" in out
    assert "ffn_up" in out


def test_show_json(show: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = show("workload", "show", "llama3.2-1b", "--json", "--set", "phase=decode", "--set", "weight_bits=4")
    record = json.loads(out)
    workload = workloads.load("llama3.2-1b").build(phase="decode", weight_bits=4)
    assert code == 0
    assert record["macs"] == workload.macs() == sum(row["macs"] for row in record["operations"])
    assert record["parameters"] == 1_235_814_400
    assert record["phases"][0]["kv_read_bytes"] == workload.phases[0].table.kv_read_bytes()
    assert record["published"]["parameters"] == 1_235_814_400
    total = sum(row["input_bytes"] + row["second_bytes"] + row["output_bytes"] for row in record["operations"])
    assert total == pytest.approx(record["minimum_bytes"], rel=1e-12)  # the same sums in another order
    assert record["phases"][0]["components"]["ffn"]["macs_per_byte"] < 3


def test_show_csv(show: Callable[..., tuple[int, str, str]], folder: Path) -> None:
    code, out, _ = show("workload", "show", str(folder / "mix.toml"), "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert list(rows[0]) == list(summary.ROW_FIELDS)
    total = sum(int(row["macs"]) * float(row["runs"]) for row in rows)
    assert total == pytest.approx(workloads.load(str(folder / "mix.toml")).build().macs(), rel=1e-12)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["workload", "show", "berd"], 1, "nearest is 'bert'"),
        (["workload", "show", "bert", "--set", "sequence"], 1, "--set is 'sequence', must be NAME=VALUE"),
        (["workload", "show", "bert", "--set", "sequence=wide"], 1, "sequence of bert-base is 'wide'"),
        (["workload", "show", "bert", "--peak-tops", "0"], 1, "--peak-tops is 0.0, must be a number above 0"),
        (["workload", "show", "bert", "--bind", "n=x"], 1, "--bind n is 'x', must be a whole number"),
        (["workload", "show", "bert", "--json", "--csv"], 2, "not allowed with argument"),
        (["workload", "sho", "bert"], 2, "sho"),
        (["workload"], 2, "ACTION"),
    ],
)
def test_show_says_what_is_wrong(show: Callable[..., tuple[int, str, str]], words: list[str], code: int, message: str) -> None:
    found, _, err = show(*words)
    assert found == code
    assert message in err
    assert "Traceback" not in err


def test_roofline_of_a_workload_without_products() -> None:
    from workloads.ops import Kind, Operation, OperationTable

    table = OperationTable.from_rows([Operation("n", Kind.NORM, 2, 2, component="norm", function="layernorm")])
    workload = workloads.Workload("w", "test", (workloads.Phase("p", table),))
    assert "nothing to draw" in summary.as_text(workload, peak_tops=1, bandwidth_gb_s=1)


def test_a_listing_says_what_was_not_understood(tmp_path: Path, show: Callable[..., tuple[int, str, str]]) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'dse-toolkit[onnx]'")
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Mystery", ["x"], ["y"], domain="vendor"), helper.make_node("Relu", ["x"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ["n", 3])],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph), path)
    code, out, _ = show("workload", "show", str(path), "--bind", "n=4")
    assert code == 0
    assert "not understood and not counted: vendor.Mystery (1; no rule for the operator)" in out
    code, _, err = show("workload", "show", str(path), "--bind", "n=4", "--strict")
    assert code == 1
    assert "vendor.Mystery (1; no rule for the operator)" in err
