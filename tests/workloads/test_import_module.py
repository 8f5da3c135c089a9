"""Importing through torch.export: built-in tables equal the exported graphs of transformers, product by product."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import workloads
from workloads.compare import differences
from workloads.ops import Kind, concatenate

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'dse-toolkit[hf]'")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'dse-toolkit[hf]'")
# Warnings of the exporters themselves (deprecated calls inside torch and transformers) are not ours to fix.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::FutureWarning")]

PREFILL = {"phase": "prefill", "sequence": 128, "all_logits": True}
# name of the built-in model, its knobs, config.json: full width and few layers (a layer more adds nothing new).
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "bert-base": (
        {"layers": 2, "sequence": 128},
        {"model_type": "bert", "architectures": ["BertModel"], "num_hidden_layers": 2},
    ),
    "roberta-base": (
        {"layers": 2, "sequence": 128},
        {
            "model_type": "roberta",
            "architectures": ["RobertaModel"],
            "num_hidden_layers": 2,
            "vocab_size": 50265,
            "max_position_embeddings": 514,
            "type_vocab_size": 1,
        },
    ),
    "distilbert": (
        {"layers": 2, "sequence": 128},
        {"model_type": "distilbert", "architectures": ["DistilBertModel"], "n_layers": 2},
    ),
    "vit-b16": (
        {"layers": 2},
        {
            "model_type": "vit",
            "architectures": ["ViTForImageClassification"],
            "num_hidden_layers": 2,
            "id2label": {str(i): str(i) for i in range(1000)},
        },
    ),
    "clip-vit-b32": (
        {"layers": 2, "vision_layers": 2, "sequence": 77},
        {
            "model_type": "clip",
            "architectures": ["CLIPModel"],
            "text_config": {"num_hidden_layers": 2},
            "vision_config": {"num_hidden_layers": 2},
        },
    ),
    "siglip-so400m": (
        {"layers": 2, "vision_layers": 2, "sequence": 64},
        {
            "model_type": "siglip",
            "architectures": ["SiglipModel"],
            "text_config": {"num_hidden_layers": 2, "hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16},
            "vision_config": {
                "num_hidden_layers": 2,
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_attention_heads": 16,
                "image_size": 384,
                "patch_size": 14,
            },
        },
    ),
    "gpt2": ({"layers": 2, **PREFILL}, {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 2}),
    "opt-125m": ({"layers": 2, **PREFILL}, {"model_type": "opt", "architectures": ["OPTForCausalLM"], "num_hidden_layers": 2}),
    "opt-350m": (
        {"layers": 2, **PREFILL},
        {
            "model_type": "opt",
            "architectures": ["OPTForCausalLM"],
            "num_hidden_layers": 2,
            "hidden_size": 1024,
            "ffn_dim": 4096,
            "num_attention_heads": 16,
            "word_embed_proj_dim": 512,
            "do_layer_norm_before": False,
        },
    ),
    "pythia-160m": (
        {"layers": 2, **PREFILL},
        {
            "model_type": "gpt_neox",
            "architectures": ["GPTNeoXForCausalLM"],
            "num_hidden_layers": 2,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "vocab_size": 50304,
        },
    ),
    "llama3-8b": (
        {"layers": 2, **PREFILL},
        {
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "num_hidden_layers": 2,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 128256,
        },
    ),
    "mistral-7b": (
        {"layers": 2, **PREFILL},
        {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "num_hidden_layers": 2},
    ),
    "mixtral-8x7b": (
        {"layers": 2, **PREFILL},
        {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_hidden_layers": 2},
    ),
    "qwen2.5-7b": (
        {"layers": 2, **PREFILL},
        {
            "model_type": "qwen2",
            "architectures": ["Qwen2ForCausalLM"],
            "num_hidden_layers": 2,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
        },
    ),
    "qwen3-4b": (
        {"layers": 2, **PREFILL},
        {
            "model_type": "qwen3",
            "architectures": ["Qwen3ForCausalLM"],
            "num_hidden_layers": 2,
            "hidden_size": 2560,
            "intermediate_size": 9728,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3-30b-a3b": (
        {"layers": 2, **PREFILL},
        {
            "model_type": "qwen3_moe",
            "architectures": ["Qwen3MoeForCausalLM"],
            "num_hidden_layers": 2,
            "hidden_size": 2048,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 151936,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
    ),
    "deepseek-v3": (
        {"layers": 5, **PREFILL},
        {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"], "num_hidden_layers": 5},
    ),
    "deepseek-v2-lite": (
        {"layers": 3, **PREFILL},
        {
            "model_type": "deepseek_v2",
            "architectures": ["DeepseekV2ForCausalLM"],
            "num_hidden_layers": 3,
            "hidden_size": 2048,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "intermediate_size": 10944,
            "moe_intermediate_size": 1408,
            "n_routed_experts": 64,
            "num_experts_per_tok": 6,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "q_lora_rank": None,
            "kv_lora_rank": 512,
            "vocab_size": 102400,
        },
    ),
    "gemma-2-2b": (
        {"layers": 2, **PREFILL},
        {"model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "num_hidden_layers": 2},
    ),
    "gpt-oss-20b": (
        {"layers": 2, **PREFILL},
        {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "num_hidden_layers": 2, "num_local_experts": 32},
    ),
    "t5-small": (
        {"encoder_layers": 2, "decoder_layers": 2, "phase": "forward", "sequence": 128, "target": 16},
        {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "num_layers": 2},
    ),
    "whisper-tiny": (
        {"encoder_layers": 2, "decoder_layers": 2, "phase": "forward", "target": 16},
        {
            "model_type": "whisper",
            "architectures": ["WhisperForConditionalGeneration"],
            "encoder_layers": 2,
            "decoder_layers": 2,
        },
    ),
}
# The families that the room promises; the others are checked by `make test-all`.
PROMISED = (
    *("bert-base", "roberta-base", "vit-b16", "clip-vit-b32", "gpt2", "opt-125m", "llama3-8b", "mistral-7b", "mixtral-8x7b"),
    *("qwen2.5-7b", "qwen3-4b", "deepseek-v3", "t5-small", "whisper-tiny"),
)
# Buffers of transformers that published counts include: the router's correction terms, one per expert and mixture layer.
BUFFERS = {"deepseek-v3": 256 * 2}


def write_config(folder: Path, config: dict[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("name", [name if name in PROMISED else pytest.param(name, marks=pytest.mark.slow) for name in CASES])
def test_built_in_equals_exported(name: str, tmp_path: Path) -> None:
    knobs, config = CASES[name]
    sequence = int(knobs.get("sequence", 128))
    family = workloads.load(str(write_config(tmp_path, config)))
    every = {"all_logits": True} if "all_logits" in family.knobs else {}
    imported = family.build(sequence=sequence, **every)
    built = workloads.load(name).build(**knobs)
    table = concatenate([phase.table for phase in built.phases])
    assert imported.not_understood == {}
    found = differences(table, imported.phases[0].table)
    assert not found, "\n".join(found)
    assert imported.macs() == built.macs()
    assert imported.parameter_count() == built.parameter_count() - BUFFERS.get(name, 0)


LANGUAGE = ("gpt2", "llama3-8b", "mistral-7b", "qwen3-4b", "gpt-oss-20b", "gemma-2-2b", "mixtral-8x7b", "opt-125m", "pythia-160m")
RUNS: dict[str, dict[str, Any]] = {
    "prefill": {"phase": "prefill", "sequence": 96},
    "prefill fused": {"phase": "prefill", "sequence": 96, "fused_attention": True, "kv_bits": 4},
    "decode": {"phase": "decode", "sequence": 96, "context": 700, "kv_bits": 16},
    "decode fused": {"phase": "decode", "sequence": 96, "batch": 3, "fused_attention": True},
    "generate": {"phase": "generate", "sequence": 90, "new_tokens": 50, "kv_bits": 4, "batch": 2},
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(
    "name", [name if name in ("llama3-8b", "gpt-oss-20b") else pytest.param(name, marks=pytest.mark.slow) for name in LANGUAGE]
)
def test_phases_of_a_configuration_are_those_of_the_named_model(name: str, run: str, tmp_path: Path) -> None:
    """Causal masks, windows, shared KV heads and the cache: as the built-in tables, which are counted from dimensions."""
    config = CASES[name][1]
    layers = {"layers": CASES[name][0]["layers"]} if "layers" in CASES[name][0] else {}
    imported = workloads.load(str(write_config(tmp_path, config))).build(**RUNS[run])
    built = workloads.load(name).build(**layers, **RUNS[run])
    assert imported.complete
    assert [phase.name for phase in imported.phases] == [phase.name for phase in built.phases]
    for mine, theirs in zip(imported.phases, built.phases, strict=True):
        found = differences(theirs.table, mine.table)
        assert not found, "\n".join(found)
        assert mine.kv_cache_bytes == theirs.kv_cache_bytes
        assert mine.table.kv_read_bytes() == theirs.table.kv_read_bytes()
        assert mine.table.kv_write_bytes() == theirs.table.kv_write_bytes()
        assert mine.after == theirs.after
    assert imported.macs() == built.macs()
    assert imported.parameter_count() == built.parameter_count()


@pytest.mark.parametrize(
    ("kind", "architecture", "gmacs", "parameters"),
    [
        ("resnet", "ResNetForImageClassification", 4.09, 25_557_032),
        ("convnext", "ConvNextForImageClassification", 4.46, 28_589_128),
        pytest.param("swin", "SwinForImageClassification", 4.49, 28_288_354, marks=pytest.mark.slow),
    ],
)
def test_published_products_of_image_models(kind: str, architecture: str, gmacs: float, parameters: int, tmp_path: Path) -> None:
    """torchvision's documentation prints GMAC (as GFLOPS, two decimals) and parameters of the same three models."""
    labels = {str(i): str(i) for i in range(1000)}
    config = {"model_type": kind, "architectures": [architecture], "id2label": labels}
    imported = workloads.load(str(write_config(tmp_path, config))).build()
    assert imported.not_understood == {}
    assert abs(imported.macs() / 1e9 - gmacs) < 0.011  # the printed digits, and counters differ in pooling
    assert imported.parameter_count() == parameters


def test_a_model_of_pictures_and_text_says_what_it_was_given(tmp_path: Path) -> None:
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": {
            "model_type": "llama",
            "num_hidden_layers": 1,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_attention_heads": 4,
        },
        "vision_config": {"model_type": "clip_vision_model", "num_hidden_layers": 1},
    }
    family = workloads.load(str(write_config(tmp_path, config)))
    alone = family.build(sequence=8, images=0)
    assert alone.dimensions["input.input_ids"] == [1, 8]
    assert "input.pixel_values" not in alone.dimensions
    unused = [row.name for row in alone.phases[0].table.rows() if row.repeat == 0]
    assert unused == ["unused_parameters"]  # the tower, which text alone does not run
    both = family.build(sequence=8, images=2, batch=3)
    assert both.dimensions["input.pixel_values"] == [6, 3, 224, 224]
    assert both.dimensions["input.input_ids"] == [3, 8 + 2 * 49]  # 224 / 32 patches a side
    assert both.parameter_count() == alone.parameter_count()


def test_a_difference_is_named() -> None:
    family = workloads.load("bert")
    one, other = family.build(sequence=128).phases[0].table, family.build(sequence=128, ffn=3000).phases[0].table
    lines = differences(one, other)
    # Query, key, value and output have the same input as the up projection: 12 x (4 x 768 + 3072) columns.
    assert any("ffn_up" in line and "73728 expected, 72864 found" in line for line in lines)
    assert any("ffn_down" in line for line in lines)
    assert differences(one, one) == []


def test_mamba_products_equal_but_for_padding(tmp_path: Path) -> None:
    """The exported convolution computes 3 outputs beyond the sequence (its padding), the scan is one product per step."""
    config = {"model_type": "mamba", "architectures": ["MambaForCausalLM"], "num_hidden_layers": 1, "vocab_size": 50280}
    imported = workloads.load(str(write_config(tmp_path, config))).build(sequence=8, all_logits=True)
    built = workloads.load("mamba-130m").build(layers=1, phase="prefill", sequence=8, all_logits=True)
    assert imported.macs() - built.macs() == 3 * 1536 * 4
    assert imported.parameter_count() == built.parameter_count()


# Layers that are alike are exported once: the totals must be those of the whole graph.
@pytest.mark.parametrize("name", ["bert-base", "t5-small", "gemma-2-2b", "deepseek-v2-lite", "whisper-tiny"])
@pytest.mark.slow
def test_leaving_out_equal_layers_changes_nothing(name: str) -> None:
    from workloads.importers.huggingface import import_config

    config = {key: value for key, value in CASES[name][1].items() if "layer" not in key}
    short, whole = (import_config(config, name, whole=value) for value in (False, True))
    assert differences(whole.phases[0].table, short.phases[0].table) == []
    assert short.macs() == whole.macs()
    assert short.parameter_count() == whole.parameter_count()
    assert short.minimum_bytes() == whole.minimum_bytes()


def test_equal_layers_are_counted_as_often_as_they_occur(tmp_path: Path) -> None:
    """7 layers of Gemma 2: local and global by turns, four kept in mind by two."""
    config = {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "num_hidden_layers": 7,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 128,
    }
    from workloads.importers.huggingface import import_config

    short, whole = (import_config(config, "gemma", sequence=16, whole=value) for value in (False, True))
    assert short.macs() == whole.macs()
    assert short.parameter_count() == whole.parameter_count()
    assert sum(short.phases[0].table.repeat) == sum(whole.phases[0].table.repeat)


def test_llama_3_8b_within_20_s_and_2_gib(tmp_path: Path) -> None:
    """Cold, in a process of its own: imports of torch and transformers included."""
    config = write_config(tmp_path, {**CASES["llama3-8b"][1], "num_hidden_layers": 32, "max_position_embeddings": 8192})
    script = (
        "import resource, sys, time, workloads\n"
        "workload = workloads.load(sys.argv[1]).build(sequence=128, all_logits=True)\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(workload.macs(), workload.parameter_count(), time.process_time(), peak)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(config)], check=True, timeout=300, capture_output=True, text=True)
    macs, parameters, seconds, kib = done.stdout.split()[-4:]
    built = workloads.load("llama3-8b").build(**PREFILL)
    assert int(macs) == built.macs()
    assert int(parameters) == 8_030_261_248
    assert float(seconds) < 20  # CPU time: wall time depends on who else uses the machine
    assert int(kib) < 2 * 2**20


class Odd(torch.nn.Module):
    """Products written in every way that PyTorch knows, some of them without weights."""

    def __init__(self) -> None:
        super().__init__()
        self.left = torch.nn.Parameter(torch.zeros(6, 8))
        self.stack = torch.nn.Parameter(torch.zeros(3, 8, 5))
        self.conv = torch.nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2)
        self.up = torch.nn.ConvTranspose1d(4, 6, 4, stride=2)
        self.unused = torch.nn.Parameter(torch.zeros(11))
        self.register_buffer("table", torch.zeros(10, 10))

    def forward(self, x: Any, picture: Any) -> tuple[Any, ...]:
        a = self.left @ x.transpose(1, 2)  # (6, 8) x (2, 8, 10)
        b = torch.einsum("bsd,hde->bhse", x, self.stack)
        c = torch.einsum("bhse,bhte->bhst", b, b)
        d = torch.baddbmm(c[:, 0], x, x.transpose(1, 2))
        e = torch.matmul(c, self.table @ self.table)  # a constant, made at load
        f = torch.nn.functional.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None], is_causal=True)
        g = self.conv(picture)
        h = self.up(picture[:, :, 0])
        return a, b, c, d, e, f, g, h, torch.addmm(d[0], x[0], x[1].T)


def test_every_way_to_write_a_product() -> None:
    from workloads.importers.module import import_module

    with torch.device("meta"):
        module, x, picture = Odd(), torch.zeros(2, 10, 8), torch.zeros(2, 4, 9, 9)
    workload = import_module(module, (x, picture))
    expected = {
        "a": 2 * 6 * 8 * 10,
        "b": 2 * 10 * 3 * 8 * 5,
        "c": 2 * 3 * 10 * 10 * 5,
        "d": 2 * 10 * 10 * 8,
        "e": 2 * 3 * 10 * 10 * 10,
        "f": 2 * 2 * 10 * 10 * 8,
        "g": 2 * 8 * (4 // 2) * 9 * 5 * 5,
        "h": 2 * 4 * 6 * 4 * 9,
        "i": 10 * 10 * 8,
    }
    assert workload.not_understood == {}
    assert workload.macs() == sum(expected.values())
    assert workload.parameter_count() == sum(value.numel() for value in module.parameters())
    table = workload.phases[0].table
    depth = [row for row in table.rows() if row.kind is Kind.CONV]
    assert {(row.groups, row.n, row.k) for row in depth} == {(2, 4, 18), (1, 24, 4)}
    fused = import_module(module, (x, picture), fused_attention=True)
    causal = [row for row in fused.phases[0].table.rows() if row.kind is Kind.ATTENTION_PREFILL]
    assert [row.causal for row in causal] == [True]
    assert workload.macs() - fused.macs() == 2 * 2 * 8 * (100 - 55)


RECURRENT = {
    "lstm": (lambda: torch.nn.LSTM(8, 16), 4, 1, 1),
    "two layers, both directions": (lambda: torch.nn.LSTM(8, 16, num_layers=2, bidirectional=True, batch_first=True), 4, 2, 2),
    "gru without biases": (lambda: torch.nn.GRU(8, 16, bias=False), 3, 1, 1),
    "rnn with relu": (lambda: torch.nn.RNN(8, 16, nonlinearity="relu", num_layers=3), 1, 3, 1),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_modules(name: str) -> None:
    """Every layer and direction: steps x batch x gates x hidden x (inputs + hidden); a layer's inputs are both directions below it."""
    from workloads.importers.module import import_module

    make, gates, layers, directions = RECURRENT[name]
    with torch.device("meta"):
        module = make()
        x = torch.zeros((3, 5, 8) if module.batch_first else (5, 3, 8))
    workload = import_module(module, (x,))
    inputs = [8] + [16 * directions] * (layers - 1)
    assert workload.complete
    assert workload.macs() == sum(directions * 5 * 3 * gates * 16 * (size + 16) for size in inputs)
    assert workload.parameter_count() == sum(value.numel() for value in module.parameters())
    state = [row for row in workload.phases[0].table.rows() if row.name.endswith(".state")]
    assert sum(int(row.repeat) for row in state) == layers * directions * 5
    assert {(row.m, row.n, row.k) for row in state} == {(3, gates * 16, 16)}


class Cells(torch.nn.Module):
    """Cells stepped by hand, a projected LSTM, and operations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru, self.rnn = torch.nn.LSTMCell(8, 16), torch.nn.GRUCell(16, 16), torch.nn.RNNCell(16, 4)
        self.projected = torch.nn.LSTM(8, 16, proj_size=6)

    def forward(self, x: Any) -> tuple[Any, ...]:
        state = self.lstm(x[0])
        for step in range(1, 5):
            state = self.lstm(x[step], state)
        wide = self.rnn(self.gru(state[0]))
        dropped = torch.nn.functional.dropout(x * 2, inplace=True)
        return wide, self.projected(x)[0], torch.relu_(dropped).reshape_as(x.transpose(0, 1)), dropped.view_as(x)


def test_cells_and_operations_in_place() -> None:
    from workloads.importers.module import import_module

    with torch.device("meta"):
        module, x = Cells(), torch.zeros(5, 3, 8)
    workload = import_module(module, (x,))
    assert workload.complete
    cells = 5 * 3 * 64 * (8 + 16) + 3 * 48 * (16 + 16) + 3 * 4 * (16 + 4)
    projected = 5 * 3 * (64 * (8 + 6) + 16 * 6)
    assert workload.macs() == cells + projected
    assert workload.parameter_count() == sum(value.numel() for value in module.parameters())


class Strange(torch.nn.Module):
    def forward(self, x: Any) -> Any:
        return torch.fft.fft(x).real + torch.linalg.inv(x @ x)


def test_operations_that_are_not_understood_are_listed() -> None:
    from workloads.importers.module import import_module

    x = torch.zeros(8, 8, device="meta")
    workload = import_module(Strange(), (x,))
    assert workload.macs() == 512
    assert sum(workload.not_understood.values()) >= 2
    assert any("fft" in name for name in workload.not_understood)
    with pytest.raises(workloads.WorkloadError, match=r"not understood: .*fft.*\(1; no rule for the operation\)"):
        import_module(Strange(), (x,), strict=True)


def _sequential() -> Any:
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.GELU(), torch.nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("make", "shape", "macs"),
    [
        (_sequential, (3, 4), 3 * (32 + 16)),
        (lambda: torch.nn.MultiheadAttention(16, 4, batch_first=True), None, 10 * 16 * 16 * 4 + 2 * 10 * 10 * 16),
        (
            lambda: torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
            (1, 10, 16),
            10 * (16 * 16 * 4 + 2 * 16 * 32) + 2 * 10 * 10 * 16,
        ),
    ],
)
def test_modules_of_torch(make: Callable[[], Any], shape: tuple[int, ...] | None, macs: int) -> None:
    from workloads.importers.module import import_module

    with torch.device("meta"):
        module = make()
        args = (torch.zeros(shape),) if shape else (torch.zeros(1, 10, 16),) * 3
    workload = import_module(module, args, strict=True)
    assert workload.macs() == macs
    assert workload.parameter_count() == sum(value.numel() for value in module.parameters())
    assert module.training


def test_a_module_that_cannot_be_exported() -> None:
    from workloads.importers.module import import_module

    class Asks(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(workloads.WorkloadError, match=r"Asks cannot be exported by torch\.export") as caught:
        import_module(Asks(), (torch.zeros(3, device="meta"),))
    assert "\n" not in str(caught.value)


def test_every_operator_has_a_function_that_hardware_knows() -> None:
    from workloads.functions import VOCABULARY, canonical
    from workloads.importers import torch_names, torch_nodes

    for name in torch_names.ELEMENTWISE - {"pow"}:
        assert canonical(name) in VOCABULARY
    for name in (*torch_names.NORMS.values(), *torch_names.ACTIVATIONS.values(), *torch_names.ACTIVATION_CLASSES.values()):
        assert canonical(name) in VOCABULARY
    assert {canonical(torch_nodes.reduction_name(name)) for name in torch_names.REDUCTIONS} == {"max", "mean", "sum", "add"}


def test_peak_activations_follow_the_graph() -> None:
    """Three branches that wait for one another: liveness is that of the graph."""
    from workloads.importers.module import import_module

    class Branches(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            a, b, c = torch.sin(x), torch.cos(x), torch.exp(x)
            return a + b + c

    x = torch.zeros(10, 10, device="meta")
    workload = import_module(Branches(), (x,))
    # At exp: x, its result, and the two results that wait.
    assert workload.activation_bytes() == 400
