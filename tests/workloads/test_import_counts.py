"""Configurations whose right counts come from elsewhere: by hand from the dimensions, or PyTorch's counter on the whole model."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import workloads
from workloads.importers.decoding import CachedLayers, Decoding
from workloads.ops import Kind

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'dse-toolkit[hf]'")
pytest.importorskip("transformers", reason="transformers is not installed: pip install 'dse-toolkit[hf]'")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def load(folder: Path, config: dict[str, Any]) -> workloads.Family:
    path = folder / "config.json"
    path.write_text(json.dumps(config))
    return workloads.load(str(path))


def counted_by_torch(config: dict[str, Any], **inputs: int) -> tuple[int, int]:
    """(MACs, parameters) of the whole model, no layer left out, eager attention, by torch.utils.flop_counter."""
    from torch.utils.flop_counter import FlopCounterMode

    from workloads.importers.huggingface.building import build_model, example_inputs

    model, settings = build_model(config, "test", recorded=False)
    model.config._attn_implementation = "eager"
    given = example_inputs(model, settings, "test", **{"sequence": 32, "target": 16, "batch": 1, **inputs})
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**given)
    return counter.get_total_flops() // 2, sum(value.numel() for value in model.parameters())


SPEECH: dict[str, Any] = {
    **{"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128, "vocab_size": 32},
    **{"conv_dim": [32] * 7, "num_feat_extract_layers": 7, "num_conv_pos_embedding_groups": 4, "num_conv_pos_embeddings": 16},
}
TEXT: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 120}
# Stacks whose layers have equal attributes and work at different resolutions, and stacks inside stacks.
ALIKE: dict[str, dict[str, Any]] = {
    "mobilenet_v1": {"architectures": ["MobileNetV1ForImageClassification"], "depth_multiplier": 0.5, "image_size": 96},
    "mobilenet_v2": {"architectures": ["MobileNetV2ForImageClassification"], "image_size": 96},
    "wav2vec2": {"architectures": ["Wav2Vec2ForCTC"], **SPEECH},
    "hubert": {"architectures": ["HubertForCTC"], **SPEECH},
    "wavlm": {"architectures": ["WavLMForCTC"], **SPEECH},
    "data2vec-audio": {"architectures": ["Data2VecAudioForCTC"], **SPEECH, "conv_pos_kernel_size": 5},
    "efficientnet": {
        "architectures": ["EfficientNetForImageClassification"],
        "image_size": 96,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
    },
    "levit": {"architectures": ["LevitForImageClassification"]},
    "segformer": {"architectures": ["SegformerForSemanticSegmentation"], "image_size": 128},
    "pvt": {"architectures": ["PvtForImageClassification"]},
    "focalnet": {"architectures": ["FocalNetForImageClassification"]},
    "cvt": {"architectures": ["CvtForImageClassification"]},
    "mobilevit": {"architectures": ["MobileViTForImageClassification"]},
    "hiera": {"architectures": ["HieraForImageClassification"]},
    "roberta-prelayernorm": {"architectures": ["RobertaPreLayerNormForMaskedLM"], **TEXT},
    "swin": {"architectures": ["SwinForImageClassification"]},
    "bit": {"architectures": ["BitForImageClassification"]},
    "convnextv2": {"architectures": ["ConvNextV2ForImageClassification"]},
    "hgnet_v2": {"architectures": ["HGNetV2ForImageClassification"]},
    "vit": {"architectures": ["ViTForImageClassification"]},
}
QUICK = ("mobilenet_v1", "wav2vec2", "wavlm", "levit", "roberta-prelayernorm")


@pytest.mark.parametrize("kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in ALIKE])
def test_layers_that_look_alike_are_counted_as_they_run(kind: str, tmp_path: Path) -> None:
    config = {"model_type": kind, **ALIKE[kind]}
    family = load(tmp_path, config)
    imported = family.build(**({"sequence": 32} if "sequence" in family.knobs else {}))
    assert imported.complete
    assert (imported.macs(), imported.parameter_count()) == counted_by_torch(config)


def test_mobilenet_v1_has_the_published_products(tmp_path: Path) -> None:
    """Table 4 of arXiv:1704.04861: 569 million mult-adds, 4.2 million parameters with the 1000 classes that this head has not.

    567,718,400 by hand: 13 depthwise and pointwise convolutions and the first one at 224 pixels (padding as TensorFlow's).
    """
    config = {"model_type": "mobilenet_v1", "architectures": ["MobileNetV1ForImageClassification"], "image_size": 224, "tf_padding": True}
    side, total, inputs = 112, 112 * 112 * 32 * 27, 32
    for outputs, stride in zip(
        (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024), (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1), strict=True
    ):
        side //= stride
        total += side * side * (9 * inputs + inputs * outputs)
        inputs = outputs
    imported = load(tmp_path, config).build()
    assert imported.macs() == total + 1024 * 2 == 567_718_400
    assert imported.parameter_count() == 3_209_026


def test_wav2vec2_by_hand(tmp_path: Path) -> None:
    """Seven convolutions over 16,000 samples (49 frames), a grouped positional one, two layers, a head of 32 letters."""
    config = {"model_type": "wav2vec2", "architectures": ["Wav2Vec2ForCTC"], **SPEECH, "num_hidden_layers": 2}
    length, total, channels = 16000, 0, 1
    for taps, stride in zip((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), strict=True):
        length = (length - taps) // stride + 1
        total += length * 32 * channels * taps
        channels = 32
    assert length == 49
    total += 49 * 32 * 64 + 50 * 64 * (64 // 4) * 16  # projection; the positional convolution makes one frame more
    total += 2 * (49 * (4 * 64 * 64 + 2 * 64 * 128) + 2 * 49 * 49 * 64) + 49 * 64 * 32
    assert load(tmp_path, config).build().macs() == total == 15_376_320


# ---- language models ----


LLAMA4: dict[str, Any] = {
    **{"model_type": "llama4_text", "architectures": ["Llama4ForCausalLM"], "hidden_size": 64, "intermediate_size": 96},
    **{"intermediate_size_mlp": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    **{"vocab_size": 200, "num_local_experts": 8, "num_experts_per_tok": 1, "interleave_moe_layer_step": 2},
    **{"attention_chunk_size": 32, "max_position_embeddings": 512},
}


def test_experts_that_every_token_is_given_to_count_their_share(tmp_path: Path) -> None:
    """Llama 4 multiplies every token with every expert and masks all but one; one is what it needs."""
    tokens = 100
    attention = 4 * (tokens * (2 * 64 * 64 + 2 * 64 * 32) + 2 * tokens * tokens * 64)
    feed_forward = 2 * 3 * tokens * 64 * 128 + 2 * tokens * (64 * 8 + 3 * 64 * 96 + 3 * 64 * 96)
    imported = load(tmp_path, LLAMA4).build(sequence=tokens)
    assert imported.macs() == attention + feed_forward + 64 * 200
    assert imported.parameter_count() == sum(
        (2 * 200 * 64 + 64, 4 * (2 * 64 * 64 + 2 * 64 * 32 + 2 * 64), 2 * 3 * 64 * 128, 2 * (64 * 8 + 9 * 3 * 64 * 96))
    )


def test_attention_within_chunks(tmp_path: Path) -> None:
    """Three of four layers see their chunk of 32 alone: 3 whole chunks and 4 tokens of 100; the fourth sees all before it."""
    family = load(tmp_path, LLAMA4)
    fused = [row for row in family.build(sequence=100, fused_attention=True).phases[0].table.rows() if row.kind is Kind.ATTENTION_PREFILL]
    runs: Counter[tuple[int, int, int]] = Counter()
    for row in fused:
        runs[(int(row.batch), int(row.m), int(row.n))] += int(row.repeat)
    assert runs == {(4, 4, 4): 3, (4, 100, 100): 1, (12, 32, 32): 3} and all(row.causal for row in fused)
    decode = family.build(phase="decode", context=70).phases[0]
    keys: Counter[int] = Counter()
    for row in decode.table.rows():
        if row.name.endswith("scores"):
            keys[int(row.n)] += int(row.repeat)
    assert keys == {70 - 64: 3, 70: 1}
    assert decode.kv_cache_bytes == (3 * 32 + 70) * 2 * 2 * 16


@pytest.mark.parametrize(("prompt", "steps", "chunk"), [(0, 7, 3), (5, 100, 32), (31, 1, 32), (64, 64, 32)])
def test_keys_of_chunks_add_up(prompt: int, steps: int, chunk: int) -> None:
    parts = Decoding(steps=steps, prompt=prompt).parts(0, chunk)
    assert sum(count for _, count in parts) == steps
    assert sum(keys * count for keys, count in parts) == sum((prompt + t - 1) % chunk + 1 for t in range(1, steps + 1))
    assert CachedLayers(3, 10, 0, chunk).bytes_at(100, 4) == 3 * 10 * min(100, chunk) / 2


def test_a_window_hides_keys_of_a_fused_attention(tmp_path: Path) -> None:
    config = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], **TEXT, "num_key_value_heads": 2, "sliding_window": 10}
    family = load(tmp_path, config)
    plain, fused = (family.build(sequence=40, fused_attention=value) for value in (False, True))
    pairs = sum(min(position, 10) for position in range(1, 41))
    assert plain.macs() - fused.macs() == 4 * 4 * 2 * 16 * (40 * 40 - pairs)
    row = next(row for row in fused.phases[0].table.rows() if row.kind is Kind.ATTENTION_PREFILL)
    assert (row.causal, row.window, row.kv_share) == (True, 10, 2)


def test_a_gpt_oss_reads_its_kv_heads_once(tmp_path: Path) -> None:
    """Eager attention would copy 2 KV heads for 8 query heads; keys and values are read as they are stored."""
    config = {
        **{"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "hidden_size": 64, "intermediate_size": 32, "vocab_size": 99},
        **{"num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 4},
        **{"num_experts_per_tok": 2, "sliding_window": 8},
    }
    scores = [row for row in load(tmp_path, config).build(sequence=24).phases[0].table.rows() if row.name.endswith("scores")]
    assert {(row.batch, row.m, row.n, row.k) for row in scores} == {(2, 4 * 24, 24, 16)}


# ---- models that see ----


LLAVA: dict[str, Any] = {
    **{"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "image_token_index": 499, "vision_feature_layer": -2},
    "text_config": {
        **{"model_type": "llama", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
        **{"intermediate_size": 256, "vocab_size": 500, "max_position_embeddings": 512},
    },
    "vision_config": {
        **{"model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3},
        **{"num_attention_heads": 4, "image_size": 56, "patch_size": 14, "projection_dim": 64},
    },
}
QWEN: dict[str, Any] = {
    **{"architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl", "hidden_size": 128, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 256, "vocab_size": 500, "max_position_embeddings": 4096},
    "vision_config": {
        **{"model_type": "qwen2_5_vl", "depth": 2, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 128},
        **{"patch_size": 14, "fullatt_block_indexes": [1]},
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
}


def text_macs(tokens: int) -> int:
    """The language model of both: 4 layers of 128, 4 heads on 2 KV heads, and the logits of the last token."""
    return 4 * (tokens * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 256) + 2 * tokens * tokens * 128) + 128 * 500


@pytest.mark.parametrize("images", [0, 1, 3])
def test_a_llava_counts_tower_projector_and_image_tokens(images: int, tmp_path: Path) -> None:
    """16 patches and a class token through 3 layers of 64 (all run, the second-to-last is taken), two projections of 16 patches."""
    built = load(tmp_path, LLAVA).build(sequence=20, images=images)
    assert built.complete
    layer = 17 * (4 * 64 * 64 + 2 * 64 * 128) + 2 * 17 * 17 * 64
    tower = 16 * 588 * 64 + 3 * layer + 16 * (64 * 128 + 128 * 128)
    phases = {phase.name: phase.table.macs() for phase in built.phases}
    assert phases.pop("vision", 0) == images * tower
    assert phases == {"prefill": text_macs(20 + 16 * images)}
    assert built.parameter_count() == 883_264


def test_a_qwen_vl_sees_pictures_of_any_size(tmp_path: Path) -> None:
    """112 x 224 pixels: 8 x 16 patches, two windows of 64; one layer attends within them, the other to all 128."""
    family = load(tmp_path, QWEN)
    built = family.build(sequence=20, images=2, image_height=112, image_width=224)
    assert built.complete
    linear = 128 * (64 * 192 + 64 * 64 + 3 * 64 * 128)
    one = 128 * 1176 * 64 + 2 * linear + 2 * 128 * 128 * 64 + 2 * 2 * 64 * 64 * 64 + 32 * (256 * 256 + 256 * 128)
    phases = {phase.name: phase.table.macs() for phase in built.phases}
    assert phases == {"vision": 2 * one, "prefill": text_macs(20 + 2 * 32)}
    decode = family.build(phase="decode", sequence=20, images=1, image_height=112, image_width=224)
    assert [(phase.name, phase.runs) for phase in decode.phases] == [("vision", 0.0), ("decode", 1.0)]
    assert decode.phases[1].kv_cache_bytes == (20 + 32) * 4 * 2 * 2 * 32
    assert decode.parameter_count() == built.parameter_count() == family.build(images=0).parameter_count()


OTHERS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {**QWEN, "model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]},
    "internvl": {
        **LLAVA,
        **{"model_type": "internvl", "architectures": ["InternVLForConditionalGeneration"], "vision_feature_layer": -1},
        "vision_config": {
            **{"model_type": "internvl_vision", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
            **{"num_attention_heads": 4, "image_size": [56, 56], "patch_size": [14, 14]},
        },
    },
}
_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 112,
    "patch_size": 14,
}
_CLIP, _SIGLIP = ({"model_type": f"{name}_vision_model", **_SMALL} for name in ("clip", "siglip"))
_PINPOINTS = [[112, 224], [224, 112], [224, 224]]
OTHERS |= {
    "smolvlm": {
        **{"model_type": "smolvlm", "architectures": ["SmolVLMForConditionalGeneration"], "scale_factor": 4},
        **{"text_config": {**LLAVA["text_config"], "pad_token_id": 0}, "vision_config": _SMALL},
    },
    "idefics3": {
        **{"model_type": "idefics3", "architectures": ["Idefics3ForConditionalGeneration"], "scale_factor": 2},
        **{"text_config": {**LLAVA["text_config"], "pad_token_id": 0}, "vision_config": _SMALL},
    },
    "llava_next": {
        **LLAVA,
        **{"model_type": "llava_next", "architectures": ["LlavaNextForConditionalGeneration"], "image_grid_pinpoints": _PINPOINTS},
        "vision_config": _CLIP,
    },
    "vipllava": {
        **LLAVA,
        **{"model_type": "vipllava", "architectures": ["VipLlavaForConditionalGeneration"], "vision_feature_layers": [-2, -1]},
        "vision_config": _CLIP,
    },
    "qwen3_vl": {
        **{"model_type": "qwen3_vl", "architectures": ["Qwen3VLForConditionalGeneration"]},
        "text_config": {
            **{**LLAVA["text_config"], "model_type": "qwen3_vl_text", "head_dim": 32},
            "rope_scaling": {"rope_type": "default", "mrope_section": [8, 4, 4]},
        },
        "vision_config": {
            **{"depth": 4, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4, "out_hidden_size": 128, "patch_size": 14},
            **{"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 256},
        },
    },
}
OTHERS["qwen2_vl"]["vision_config"] = {"depth": 2, "embed_dim": 64, "hidden_size": 128, "num_heads": 4, "mlp_ratio": 2, "patch_size": 14}
# Qwen: 112 / 28 pixels a side. InternVL: 4 x 4 patches shuffled two by two; Idefics and SmolVLM: 8 x 8, by scale_factor squared.
# LLaVA-NeXT: 112 x 112 pixels fit 112 x 224 best, of which the crops' padding is cut off: 64, and 64 of the overview, and a new line a row.
TOKENS = {"qwen2_vl": 16, "qwen3_vl": 16, "internvl": 4, "idefics3": 16, "smolvlm": 4, "vipllava": 64, "llava_next": 64 + 64 + 8}


@pytest.mark.parametrize(
    "kind", [kind if kind in ("qwen2_vl", "smolvlm") else pytest.param(kind, marks=pytest.mark.slow) for kind in TOKENS]
)
def test_other_models_that_see(kind: str, tmp_path: Path) -> None:
    built = load(tmp_path, OTHERS[kind]).build(sequence=20, images=2, image_height=112, image_width=112)
    assert built.complete
    assert built.dimensions["image_tokens"] == TOKENS[kind]
    assert built.phases[1].table.macs() == text_macs(20 + 2 * TOKENS[kind])


# ---- fields that are numbers, but odd ones ----


def test_an_infinite_limit_is_no_size(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        '{"model_type": "mamba2", "architectures": ["Mamba2ForCausalLM"], "hidden_size": 32, "num_hidden_layers": 1, "head_dim": 8, '
        '"num_heads": 8, "expand": 2, "n_groups": 1, "state_size": 8, "vocab_size": 50, "time_step_limit": [0.0, Infinity]}'
    )
    assert workloads.load(str(path)).build(sequence=8).macs() > 0
    path.write_text('{"model_type": "bert", "hidden_size": Infinity}')
    with pytest.raises(workloads.WorkloadError, match="'hidden_size' is inf, must be a number from 0 to 268435456"):
        workloads.load(str(path))
    for text in ('"vision_feature_layer": -2000', '"num_hidden_layers": -2', '"hidden_size": 1' + "0" * 400):
        path.write_text('{"model_type": "bert", ' + text + "}")
        with pytest.raises(workloads.WorkloadError, match="must be a number from"):
            workloads.load(str(path))
