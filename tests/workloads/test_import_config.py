"""config.json files that are wrong, in every way that a fuzzer finds: one sentence with file and field, never a crash."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import workloads
from workloads.importers.huggingface import read_config

BERT: dict[str, Any] = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "num_hidden_layers": 1,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 40,
    "max_position_embeddings": 32,
}


def build(folder: Path, config: Any, **knobs: int) -> workloads.Workload:
    path = folder / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    return workloads.load(str(path)).build(**{"sequence": 8, **knobs})


# ---- what needs no torch ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a JSON file"),
        ("{", "is not a JSON file"),
        ("[1]", "holds a list, must hold a JSON object"),
        ("[" * 100000, "is not a JSON file"),
        ('{"hidden_size": 1e999}', "'hidden_size' is inf"),
        ('{"hidden_size": NaN}', "'hidden_size' is nan"),
        ('{"num_hidden_layers": 1000000}', "'num_hidden_layers' is 1000000, must be a number from 0 to 1024"),
        ('{"text_config": {"vocab_size": 1e12}}', "'text_config.vocab_size' is 1000000000000.0"),
        ('{"hidden_size": -7}', "'hidden_size' is -7"),
        ('{"x": ' * 30 + "1" + "}" * 30, "nested deeper than 16"),
    ],
)
def test_files_that_are_no_configuration(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(workloads.WorkloadError) as caught:
        workloads.load(str(path))
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


@given(st.binary(max_size=300))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(data)
    message = None
    try:
        read_config(path)
    except workloads.WorkloadError as error:
        message = str(error)
    assert message is None or str(path) in message


def test_missing_and_large_files(tmp_path: Path) -> None:
    with pytest.raises(workloads.WorkloadError, match="does not exist"):
        workloads.load(str(tmp_path / "config.json"))
    (tmp_path / "config.json").write_text(" " * (5 * 2**20))
    with pytest.raises(workloads.WorkloadError, match="larger than 4194304 bytes"):
        workloads.load(str(tmp_path))


# ---- what transformers sees ----


@pytest.fixture
def libraries() -> None:
    for name in ("torch", "transformers"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install 'dse-toolkit[hf]'")


third_party = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@third_party
@pytest.mark.usefixtures("libraries")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "bertt"}, "field 'model_type' is 'bertt', must be one of"),
        ({"model_type": 3}, "field 'model_type' is 3, must be the name"),
        ({"model_type": "mine", "auto_map": {"AutoModel": "evil.py"}}, "code shipped with a model is never run"),
        ({"architectures": ["BertMode"]}, "field 'architectures' is 'BertMode', which is no model class"),
        ({"architectures": ["__class__"]}, "field 'architectures' is '__class__'"),
        ({"hidden_size": 17}, "config.json"),
        ({"hidden_size": "wide"}, "config.json"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"hidden_act": "gelüü"}, "config.json"),
        ({"vocab_size": None}, "config.json"),
    ],
)
def test_fields_that_no_model_has(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(workloads.WorkloadError) as caught:
        build(tmp_path, {**BERT, **change})
    assert words in str(caught.value)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@third_party
@pytest.mark.usefixtures("libraries")
def test_nothing_is_printed_beside_the_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """4 query heads on 3 KV heads fail deep inside PyTorch, which logs a traceback of its own."""
    llama = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 3,
        "num_hidden_layers": 2,
        "vocab_size": 50,
        "pad_token_id": 99,
    }
    with pytest.raises(workloads.WorkloadError, match=r"cannot be exported|describes no model"):
        build(tmp_path, llama)
    assert capfd.readouterr() == ("", "")


@third_party
@pytest.mark.usefixtures("libraries")
def test_knobs_of_an_imported_configuration(tmp_path: Path) -> None:
    one = build(tmp_path, BERT)
    assert build(tmp_path, BERT, batch=3).macs() == 3 * one.macs()
    assert build(tmp_path, BERT, weight_bits=4).weight_bytes() < one.weight_bytes()
    with pytest.raises(workloads.WorkloadError, match=r"sequence of .* is 33, must be at most 32"):
        build(tmp_path, BERT, sequence=33)
    with pytest.raises(workloads.WorkloadError, match="nearest is 'sequence'"):
        build(tmp_path, BERT, sequense=4)


VALUES = st.one_of(st.none(), st.booleans(), st.integers(-5, 40), st.floats(), st.text(max_size=4), st.lists(st.integers(0, 3), max_size=3))


@third_party
@pytest.mark.usefixtures("libraries")
@given(st.dictionaries(st.sampled_from([*BERT, "hidden_act", "type_vocab_size", "layer_norm_eps", "is_decoder"]), VALUES, max_size=3))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fuzzed_fields(tmp_path: Path, change: dict[str, Any]) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    workload, message = None, ""
    try:
        workload = build(tmp_path, {**BERT, **change})
    except workloads.WorkloadError as error:
        message = str(error)
    assert "\n" not in message
    assert workload is None or min(workload.macs(), workload.parameter_count()) >= 0
    assert {path.name for path in tmp_path.iterdir()} <= before | {"config.json"}
