"""Training steps: three times the forward products, less what a frozen base saves; optimizer and activations."""

from __future__ import annotations

import numpy as np
import pytest

import workloads
from workloads.ops import Kind


@pytest.mark.parametrize("name", ["bert-base", "gpt2", "llama3.2-1b", "t5-small", "deepseek-v2-lite", "qwen3-30b-a3b"])
def test_a_step_is_three_forward_passes(name: str) -> None:
    family = workloads.load(name)
    small = {"encoder_layers": 2, "decoder_layers": 2} if name == "t5-small" else {"layers": 2}
    step = family.build(phase="train", sequence=64, batch=2, **small)
    forward = {"decoder": {"phase": "prefill", "all_logits": True}, "encoder-decoder": {"phase": "forward"}}.get(family.family, {})
    once = family.build(sequence=64, batch=2, **small, **forward)
    assert step.macs() == 3 * once.macs()
    assert step.parameter_count() == once.parameter_count()
    update = step.phases[0].table.take(np.flatnonzero(step.phases[0].table.kind == Kind.OPTIMIZER_STEP))
    assert update.n.tolist() == [once.parameter_count()]
    # AdamW: reads parameter, gradient and two moments, writes parameter and two moments, in 32 bits.
    assert update.minimum_bytes() == 7 * 4 * once.parameter_count()


def test_pictures_need_no_gradient() -> None:
    family = workloads.load("vit-b16")
    step, once = family.build(phase="train"), family.build()
    first = 196 * 768 * 3 * 16 * 16
    assert step.macs() == 3 * once.macs() - first


def test_low_rank_adapters_on_a_frozen_base() -> None:
    family = workloads.load("llama3.2-1b")
    L, H, KV, r, T = 16, 2048, 512, 8, 64
    step = family.build(phase="train", sequence=T, lora_rank=r)
    once = family.build(phase="prefill", sequence=T, all_logits=True)
    attention = L * 2 * T * T * H
    weights = once.macs() - attention
    adapters = L * r * ((H + H) + (H + KV) + (H + KV) + (H + H))
    # Frozen weights: forward and the gradient of the input. Attention has no weights: all its gradients are needed.
    assert step.macs() == 2 * weights + 3 * attention + 3 * T * adapters
    assert step.parameter_count() == once.parameter_count() + adapters
    table = step.phases[0].table
    assert table.n[table.kind == Kind.OPTIMIZER_STEP].tolist() == [adapters]


def test_fused_attention_recomputes_its_scores() -> None:
    family = workloads.load("bert")
    L, S, H = 12, 128, 768
    plain = family.build(phase="train", sequence=S)
    fused = family.build(phase="train", sequence=S, fused_attention=True)
    assert fused.macs() - plain.macs() == L * S * S * H  # one more product of the key size
    assert fused.activation_bytes() < plain.activation_bytes()


def test_many_models_at_once_and_saved_activations() -> None:
    family = workloads.load("bert")
    layers = np.array([2, 4])
    both = family.build(phase="train", layers=layers, sequence=32)
    for i, count in enumerate(layers):
        alone = family.build(phase="train", layers=int(count), sequence=32)
        assert both.macs()[i] == alone.macs()
        assert both.activation_bytes()[i] == alone.activation_bytes()
    saved = [family.build(phase="train", layers=count, sequence=32).phases[0].saved_bytes for count in (2, 4, 6)]
    assert saved[2] - saved[1] == saved[1] - saved[0] > 0


def test_optimizers() -> None:
    family = workloads.load("bert")
    sizes = {name: family.build(phase="train", optimizer=name).minimum_bytes() for name in ("sgd", "sgd_momentum", "adamw")}
    n = family.build().parameter_count()
    assert sizes["sgd_momentum"] - sizes["sgd"] == 2 * 4 * n
    assert sizes["adamw"] - sizes["sgd_momentum"] == 2 * 4 * n
    with pytest.raises(workloads.WorkloadError, match="nearest is 'adamw'"):
        family.build(phase="train", optimizer="adam")
