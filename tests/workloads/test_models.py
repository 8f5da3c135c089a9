"""The named models: parameter counts, heads, active parameters and KV caches against figures from outside, and speed."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import workloads
from workloads import library

REFERENCE = Path(__file__).parents[1] / "reference" / "workloads"
with (REFERENCE / "model_dims.csv").open(newline="") as _stream:
    ROWS = list(csv.DictReader(_stream))
with (REFERENCE / "kv_bytes_per_token.csv").open(newline="") as _stream:
    KV_ROWS = list(csv.DictReader(_stream))
STATUS = {"exact": "exact", "yes": "rounded", "formula": "unverified", "no": "unverified"}
# Position ids that the published file stores beside the parameters (note of the row).
EXTRA = {"minilm-l12": 512}


def test_the_library_holds_the_models_of_the_table() -> None:
    assert {row["name"] for row in ROWS} <= set(library.names())
    assert len(ROWS) == 91
    found = [workloads.load(row["name"]).published["status"] for row in ROWS]
    assert (found.count("exact"), found.count("rounded"), found.count("unverified")) == (56, 15, 20)


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_parameter_counts(row: dict[str, str]) -> None:
    family = workloads.load(row["name"])
    assert family.published["status"] == STATUS[row["verified"]]
    count = family.build().parameter_count()
    if row["verified"] == "exact":
        assert count == int(float(row["params_published"]))
    elif row["verified"] == "yes":
        published = float(row["params_published"]) - EXTRA.get(row["name"], 0)
        assert abs(count / published - 1) <= 0.005  # published with two or three digits
    # Not a check against a publication (unverified rows have none): the formula that is exact for their siblings.
    assert count == int(row["params_closed_form"])


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_dimensions_that_a_count_does_not_prove(row: dict[str, str]) -> None:
    """Heads, KV heads, head size, window, vocabulary, FFN: a parameter count would be the same with other heads."""
    family = workloads.load(row["name"])
    d = family.values()
    for ours, theirs in (("heads", "heads"), ("kv_heads", "kv_heads"), ("head_dim", "head_dim"), ("vocabulary", "vocab")):
        if row[theirs] and ours in d and row["family"] != "mamba":
            assert d[ours] == int(row[theirs]), ours
    if row["layers"].isdigit() and "layers" in d:
        assert d["layers"] == int(row["layers"])
    for ours, theirs in (
        ("experts", "moe_experts"),
        ("top_k", "moe_top_k"),
        ("expert_ffn", "moe_expert_ffn"),
        ("shared_experts", "moe_shared"),
    ):
        if row[theirs]:
            assert d[ours] == int(row[theirs]), ours
    table = family.build(**({"phase": "prefill"} if family.family in ("decoder", "vlm") else {})).phases[-1].table
    names = table.name.tolist()
    if row["name"] == "gpt-oss-20b" or family.family == "decoder":
        o_proj = next(i for i, name in enumerate(names) if name.endswith("o_proj"))
        value_width = int(row["mla_v"] or row["head_dim"]) * int(row["heads"])
        assert table.k[o_proj] == value_width
        k_proj = next((i for i, name in enumerate(names) if name.endswith("k_proj")), None)
        if k_proj is not None:
            assert table.n[k_proj] == int(row["kv_heads"]) * int(row["head_dim"])


def test_traps() -> None:
    """The traps of the sources, one by one: each would have put a wrong number into a named model."""
    values = {name: workloads.load(name).values() for name in library.names()}
    apart = {name for name, d in values.items() if "head_dim" in d and d.get("heads", 0) * d["head_dim"] != d.get("hidden")}
    assert {
        "qwen3-0.6b",
        "qwen3-4b",
        "qwen3-32b",
        "qwen3-30b-a3b",
        "gemma-2-2b",
        "gemma-2-9b",
        "gemma-3-4b",
        "gpt-oss-20b",
    } <= apart
    assert "qwen3-8b" not in apart
    assert values["llama3-8b"]["vocabulary"] == 128256  # padded
    assert values["qwen2.5-7b"]["vocabulary"] == 152064
    assert values["qwen3-0.6b"]["tied"] is True  # its hub total counts the head twice
    assert values["opt-125m"]["position_offset"] == 2
    assert values["opt-350m"]["embedding"] == 512
    assert values["distilbert"]["pooler"] is False
    norms = [name for name in workloads.load("gemma-2-2b").build(phase="prefill").phases[0].table.name if name.endswith("norm")]
    assert len(norms) == 5  # four in a layer, one at the end
    whisper = workloads.load("whisper-tiny").build(phase="forward").phases[1].table
    biases = {name: int(whisper.parameters[i] - whisper.n[i] * whisper.k[i]) for i, name in enumerate(whisper.name)}
    assert biases["decoder.k_proj"] == biases["decoder.cross.k_proj"] == 0
    assert biases["decoder.q_proj"] == biases["decoder.v_proj"] == 384
    qwen = workloads.load("qwen2.5-7b").build(phase="prefill").phases[0].table
    biases = {name: int(qwen.parameters[i] - qwen.n[i] * qwen.k[i]) for i, name in enumerate(qwen.name)}
    assert biases["q_proj"] == 3584
    assert biases["o_proj"] == biases["ffn_up"] == 0


@pytest.mark.parametrize("row", [row for row in ROWS if row["params_active_closed_form"]], ids=lambda row: row["name"])
def test_active_parameters_of_mixtures(row: dict[str, str]) -> None:
    """One decoded token reads the active parameters: all weights of its rows, the input embedding apart."""
    family = workloads.load(row["name"])
    table = family.build(phase="decode", sequence=64).phases[0].table
    read = int((table.parameters * table.repeat).sum())
    # Published and closed-form counts include the input embedding, of which a token reads one row only; a tied one is
    # counted there once and read by the head.
    assert read == int(row["params_active_closed_form"])


@pytest.mark.parametrize("row", KV_ROWS, ids=[row["name"] for row in KV_ROWS])
def test_kv_bytes_per_token(row: dict[str, str]) -> None:
    family = workloads.load(row["name"])
    bits = int(row["kv_bits"])
    prefill = family.build(phase="prefill", sequence=100, kv_bits=bits).phases[0]
    assert prefill.kv_cache_bytes == 100 * int(row["bytes_per_token"])
    assert prefill.table.kv_write_bytes() == 100 * int(row["bytes_per_token"])
    step = family.build(phase="decode", context=1000, sequence=1000, kv_bits=bits).phases[0]
    assert step.kv_cache_bytes == 1000 * int(row["bytes_per_token"])


@pytest.mark.parametrize("row", ROWS[1::3], ids=[row["name"] for row in ROWS[1::3]])
def test_a_model_as_an_array_of_one(row: dict[str, str]) -> None:
    """A search gives every knob as an array: the same quantities come out."""
    family = workloads.load(row["name"])
    alone, together = family.build(), family.build(**family.model_grid())
    for quantity in ("macs", "parameter_count", "weight_bytes", "activation_bytes", "kv_cache_bytes", "minimum_bytes"):
        assert np.asarray(getattr(together, quantity)()).reshape(-1).tolist() == [getattr(alone, quantity)()], quantity


def test_every_model_within_50_ms() -> None:
    slow = []
    for name in library.names():
        library._load_name.cache_clear()
        start = time.process_time()
        workloads.load(name).build()
        if time.process_time() - start > 0.05:
            slow.append(name)
    # CPU time, and one model in a hundred may meet a collection of garbage.
    assert len(slow) <= 1, slow


def test_named_models_need_no_torch() -> None:
    script = (
        "import sys, workloads\n"
        "for name in workloads.names(): workloads.load(name).build()\n"
        "heavy = {'torch', 'transformers', 'onnx', 'pandas', 'scipy', 'plotly'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_records_carry_their_sources() -> None:
    for name in library.names():
        family = workloads.load(name)
        assert family.sources["dimensions"]
        assert family.sources["licence"]
        assert family.sources["vintage"]
        assert family.published.get("source") or family.family == "xmc"  # measured here, of no published count


@pytest.mark.parametrize(
    ("name", "nearest"), [("bret-base", "bert-base"), ("llama3-8", "llama3-8b"), ("deepseek-v4", "deepseek-v3"), ("", "")]
)
def test_unknown_names(name: str, nearest: str) -> None:
    with pytest.raises(workloads.WorkloadError, match=f"nearest is '{nearest}"):
        workloads.load(name)
