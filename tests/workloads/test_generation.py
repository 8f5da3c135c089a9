"""Generation: exact sums over steps, whatever the window, the cache or the number of models at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import workloads
from workloads.generation import step_parts

QUANTITIES = ("macs", "minimum_bytes", "kv_read_bytes", "kv_write_bytes")


def brute(prompt: int, steps: int, window: int) -> list[int]:
    """Keys of every step."""
    return [min(prompt + t, window) if window else prompt + t for t in range(1, steps + 1)]


@given(st.integers(0, 300), st.integers(1, 200), st.one_of(st.just(0), st.integers(1, 400)))
def test_parts_add_up(prompt: int, steps: int, window: int) -> None:
    expected = brute(prompt, steps, window)
    for growth in ("summed", "stepwise"):
        parts = step_parts(prompt, steps, window, growth)
        assert sum(count for _, count in parts) == steps
        assert sum(keys * count for keys, count in parts) == sum(expected)
        assert all(keys >= 1 and count >= 1 for keys, count in parts)
    assert len(step_parts(prompt, steps, window, "summed")) <= 3
    exact = step_parts(prompt, steps, window, "stepwise")
    assert sorted(keys for keys, count in exact for _ in range(count)) == sorted(expected)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 40),
    st.sampled_from(["llama3-8b", "gemma-2-2b", "deepseek-v2-lite", "gpt-oss-20b", "gpt2"]),
)
def test_generation_equals_the_sum_of_its_steps(prompt: int, new: int, name: str) -> None:
    family = workloads.load(name)
    small: dict[str, object] = {"layers": 5, "window": 30} if name in ("gemma-2-2b", "gpt-oss-20b") else {"layers": 5}
    for fused in (False, True):
        common = {**small, "fused_attention": fused, "batch": 2}
        generation = family.build(phase="generate", sequence=prompt, new_tokens=new, **common).phase("generation")
        stepwise = family.build(phase="generate", sequence=prompt, new_tokens=new, kv_growth="stepwise", **common)
        steps = [family.build(phase="decode", context=prompt + t, sequence=1, **common).phases[0] for t in range(1, new + 1)]
        for quantity in QUANTITIES:
            total = sum(getattr(step.table, quantity)() for step in steps)
            assert getattr(generation.table, quantity)() == total, quantity
            assert getattr(stepwise.phase("generation").table, quantity)() == total, quantity
        assert generation.table.parameter_count() == steps[0].table.parameter_count()
        assert generation.kv_cache_bytes == steps[-1].kv_cache_bytes


def test_prefill_and_generation_equal_the_closed_form() -> None:
    """Llama-3-8B: weights for every token, attention over all earlier ones, logits after the prompt and at every step."""
    L, H, A, KV, F, V = 32, 4096, 4096, 1024, 14336, 128256
    for prompt, new in ((1, 1), (100, 7), (777, 256)):
        workload = workloads.load("llama3-8b").build(sequence=prompt, new_tokens=new, fused_attention=True)
        layer = 2 * H * A + 2 * H * KV + 3 * H * F
        total = prompt + new
        expected = total * L * layer + (new + 1) * H * V + L * 2 * A * total * (total + 1) // 2
        assert workload.macs() == expected
        # Unfused attention computes the whole rectangle of the prompt.
        plain = workloads.load("llama3-8b").build(sequence=prompt, new_tokens=new)
        assert plain.macs() - workload.macs() == L * 2 * A * (prompt * prompt - prompt * (prompt + 1) // 2)


def test_a_generation_of_many_models_at_once() -> None:
    family = workloads.load("gemma-2-2b")
    prompts, news = np.array([1, 50, 5000, 4000]), np.array([3, 1, 100, 200])
    together = family.build(layers=4, sequence=prompts, new_tokens=news)
    for i in range(len(prompts)):
        alone = family.build(layers=4, sequence=int(prompts[i]), new_tokens=int(news[i]))
        assert together.macs()[i] == alone.macs()
        assert together.kv_cache_bytes()[i] == alone.kv_cache_bytes()
        assert together.phase("generation").table.kv_read_bytes()[i] == alone.phase("generation").table.kv_read_bytes()
    with pytest.raises(workloads.WorkloadError, match="one model at a time"):
        family.build(sequence=prompts, kv_growth="stepwise")


def test_decode_reads_every_weight_and_the_cache_once() -> None:
    family = workloads.load("llama3-8b")
    table = family.build(phase="decode", context=2048, sequence=2048, kv_bits=16).phases[0].table
    weights = table.parameter_count() - 128256 * 4096  # all but the input embedding, of which one row is read
    assert int(table.row_second_elements()[table.second_is_weight] @ table.repeat[table.second_is_weight]) + 65 * 4096 == weights
    assert table.kv_read_bytes() == 2048 * 131072
    assert 0.9 < table.macs() / table.minimum_bytes() < 1.2  # memory-bound: about one MAC a byte


def test_windows_bound_the_cache_and_the_reads() -> None:
    family = workloads.load("mistral-7b")
    near = family.build(phase="decode", context=4096, sequence=4096)
    far = family.build(phase="decode", context=30000, sequence=30000)
    assert near.macs() == far.macs()
    assert near.kv_cache_bytes() == far.kv_cache_bytes()
    gemma = workloads.load("gemma-3-4b").values()
    from workloads.decoder import local_layers

    # transformers: sliding where (layer + 1) % 6 is not 0
    assert local_layers(gemma) == sum((layer + 1) % 6 != 0 for layer in range(34))
    assert local_layers(workloads.load("gemma-2-2b").values()) == 13
    assert np.array_equal(
        local_layers({**gemma, "layers": np.arange(1, 20)}), [sum((i + 1) % 6 != 0 for i in range(n)) for n in range(1, 20)]
    )


def test_grouped_queries_read_keys_once() -> None:
    """Query heads that share a KV head do the same products and fewer reads: MHA, GQA, MQA."""
    family = workloads.load("llama3-8b")
    reads = []
    for kv_heads in (32, 8, 1):
        table = family.build(phase="decode", context=512, sequence=512, kv_heads=kv_heads).phases[0].table
        attention = [i for i, name in enumerate(table.name) if name in ("scores", "context")]
        assert int(table.row_macs()[attention].sum()) == 32 * 2 * 4096 * 512
        reads.append(table.kv_read_bytes())
    assert reads[0] == 4 * reads[1] == 32 * reads[2]
    with pytest.raises(workloads.WorkloadError, match=r"heads of llama3-8b is 32, must be a multiple of kv_heads = 7"):
        family.build(kv_heads=7)


def test_latent_attention_absorbed_and_expanded_agree() -> None:
    """The score of a key is the same number either way; absorbed, the cache is 576 numbers and both products are wider."""
    family = workloads.load("deepseek-v3")
    step = family.build(phase="decode", context=1000, sequence=1000, layers=4).phases[0].table
    heads, latent, rope, nope, v = 128, 512, 64, 128, 128
    names = step.name.tolist()
    per = {name: int(step.row_macs()[names.index(name)]) for name in ("absorb_k", "absorb_v", "scores", "context")}
    assert per["absorb_k"] == 4 * heads * nope * latent
    assert per["absorb_v"] == 4 * heads * v * latent
    assert per["scores"] == 4 * heads * 1000 * (latent + rope)
    assert per["context"] == 4 * heads * 1000 * latent
    fused = family.build(phase="decode", context=1000, sequence=1000, layers=4, fused_attention=True).phases[0].table
    assert fused.macs() == step.macs()
    assert fused.kv_read_bytes() == 4 * 1000 * 576  # the latent vectors are read once for keys and values


def test_mamba_state_does_not_grow() -> None:
    family = workloads.load("mamba-130m")
    short, long = family.build(phase="decode", sequence=10), family.build(phase="decode", sequence=100000)
    assert short.macs() == long.macs()
    assert short.kv_cache_bytes() == long.kv_cache_bytes() == 24 * 1536 * (16 + 4)
    H, E, N, R, V = 768, 1536, 16, 48, 50280
    layer = H * 2 * E + 4 * E + E * (R + 2 * N) + R * E + E * N + E * H
    assert short.macs() == 24 * layer + H * V
    generated = family.build(sequence=10, new_tokens=5)
    assert generated.macs() == 24 * 15 * layer + 6 * H * V


def test_encoder_decoder_generation() -> None:
    family = workloads.load("t5-small")
    workload = family.build(sequence=100, new_tokens=20)
    steps = sum(family.build(phase="decode", sequence=100, context=t).macs() for t in range(1, 21))
    assert workload.phase("generation").table.macs() == steps
    L, H, F, S, V = 6, 512, 2048, 100, 32128
    encode = L * (4 * S * H * H + 2 * S * S * H + 2 * S * H * F) + L * 2 * S * H * H
    assert workload.phase("encode").table.macs() == encode
    step = [L * (4 * H * H + 2 * H * t + 2 * H * H + 2 * S * H + 2 * H * F) + H * V for t in range(1, 21)]
    assert steps == sum(step)
    forward = family.build(phase="forward", sequence=100, target=20)
    # At once the decoder computes the whole square of its own attention.
    assert forward.macs() == encode + sum(step) + L * 2 * H * (400 - 210)


def test_positions_bound_prompt_and_answer() -> None:
    with pytest.raises(workloads.WorkloadError, match=r"sequence \+ new_tokens of gpt2 is 1100, must be at most positions = 1024"):
        workloads.load("gpt2").build(sequence=1000, new_tokens=100)
    with pytest.raises(workloads.WorkloadError, match="at most 16384 where kv_growth is 'stepwise'"):
        workloads.load("llama3.2-1b").build(sequence=10, new_tokens=20000, kv_growth="stepwise")
    with pytest.raises(workloads.WorkloadError, match="new_tokens of whisper-tiny is 500, must be at most target_positions = 448"):
        workloads.load("whisper-tiny").build(new_tokens=500)
