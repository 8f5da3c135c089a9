"""Multi-head latent attention (DeepSeek-V2, -V3): expanded for prefill, absorbed for decode.

Keys and values come from one latent vector of ``mla_kv_lora`` elements per token, and one rotary key of ``mla_rope``
elements is shared by all heads; only these are cached. Prefill expands them into keys and values per head. Decode multiplies
the queries by the key expansion instead, attends to the latent vectors themselves (one KV head, values = the latent part
of the keys) and expands the result (arXiv 2405.04434, section 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.blocks import Parts, attention_core, bits_of, linear, norm, times, vector
from workloads.ops import IntLike, Kind, Operation, Parallel


def mla_rows(
    d: Mapping[str, Any],
    *,
    q_len: IntLike,
    parts: Parts,
    repeat: IntLike,
    steps: IntLike,
    cached: bool,
) -> list[Operation]:
    """Rows of attention in ``repeat`` layers, run ``steps`` times; ``parts`` are (keys, how many of the steps)."""
    bits = bits_of(d)
    hidden, heads, batch = d["hidden"], d["heads"], d["batch"]
    latent, rotary, plain, value = d["mla_kv_lora"], d["mla_rope"], d["mla_nope"], d["mla_v"]
    q_lora = d["mla_q_lora"]
    tokens = batch * q_len
    stream = tokens * hidden
    common: dict[str, Any] = {"bits": bits, "repeat": repeat}
    weights: dict[str, Any] = {**common, "bias": False, "component": "attention"}
    # Several chips: the latent vectors are small and gathered everywhere, each chip has some of the heads.
    heads_of: dict[str, Any] = {**weights, "parallel": Parallel.COLUMN}
    q_wide = heads * (plain + rotary)
    front: list[Operation] = []
    if q_lora:
        front.append(linear("q_a_proj", tokens, q_lora, hidden, held=stream, **weights))
        front.append(norm("q_a_norm", tokens, q_lora, function="rmsnorm", held=2 * stream, **common))
        front.append(linear("q_b_proj", tokens, q_wide, q_lora, held=2 * stream, **heads_of))
    else:
        front.append(linear("q_proj", tokens, q_wide, hidden, held=stream, **heads_of))
    held = stream + tokens * q_wide
    front.append(linear("kv_a_proj", tokens, latent + rotary, hidden, held=held, writes_cache=True, **weights))
    front.append(norm("kv_a_norm", tokens, latent, function="rmsnorm", held=held, **common))
    turned: dict[str, Any] = {**common, "held": held, "component": "attention", "parallel": Parallel.COLUMN}
    front.append(vector("rope", Kind.ELEMENTWISE, "rope", tokens, (heads + 1) * rotary, **turned))
    back: list[Operation] = []
    if cached:
        # One product per head with that head's slice of the expansion: groups = heads.
        front.append(_per_head(d, "absorb_k", "k_b_proj", tokens, latent, plain, held))
        back.append(_per_head(d, "absorb_v", "v_b_proj", tokens, value, latent, stream))
        qk, v, kv_heads = latent + rotary, latent, 1
    else:
        front.append(linear("k_b_proj", tokens, heads * plain, latent, held=held, **heads_of))
        front.append(linear("v_b_proj", tokens, heads * value, latent, held=held + tokens * heads * plain, **heads_of))
        qk, v, kv_heads = plain + rotary, value, heads
    back.append(linear("o_proj", tokens, hidden, heads * value, held=stream, parallel=Parallel.ROW, **weights))
    core: list[Operation] = []
    for index, (keys, count) in enumerate(parts):
        core += attention_core(
            f"part{index}." if len(parts) > 1 else "",
            batch=batch,
            heads=heads,
            kv_heads=kv_heads,
            q_len=q_len,
            kv_len=keys,
            qk_dim=qk,
            v_dim=v,
            bits=bits,
            repeat=repeat * count,
            held=stream,
            causal=True,
            cached=cached,
            fused=d["fused_attention"],
            values_in_keys=cached,
        )
    return [*times(front, steps), *core, *times(back, steps)]


def _per_head(d: Mapping[str, Any], name: str, weight: str, m: IntLike, n: IntLike, k: IntLike, held: IntLike) -> Operation:
    bits = bits_of(d)
    return Operation(
        name,
        Kind.GEMM,
        m,
        n,
        k,
        groups=d["heads"],
        repeat=d["layers"],
        component="attention",
        second_is_weight=True,
        input_bits=bits.activations,
        weight_bits=bits.weights,
        output_bits=bits.activations,
        parameters=d["heads"] * n * k,
        weight_id=weight,
        held_elements=held,
        parallel=Parallel.COLUMN,
    )
