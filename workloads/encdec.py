"""Encoder-decoders from dimensions: T5 (relative positions, RMS norms) and Whisper (audio front end, learnt positions).

Phases: ``forward`` (encoder, then the decoder over ``target`` tokens at once, as in training and scoring), ``generate``
(``encode`` with the keys and values of the cross-attention, then ``generation`` of ``new_tokens`` steps, summed exactly),
``decode`` (one step at ``context`` tokens), ``train``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.blocks import (
    Bits,
    Parts,
    bits_of,
    cross_attention,
    cross_source,
    embedding,
    feed_forward,
    linear,
    norm,
    residual,
    self_attention,
    times,
    vector,
)
from workloads.filters import filter_fields
from workloads.generation import step_parts
from workloads.ops import IntLike, Kind, Operation, OperationTable
from workloads.records import Phase
from workloads.training import training_phase


def encdec_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases that ``d["phase"]`` asks for, from completed dimensions and settings."""
    source = d["sequence"]
    prompt, new = d["target"], d["new_tokens"]
    encoder = encoder_side_rows(d)
    parallel = decoder_side_rows(d, q_len=prompt, parts=[(prompt, 1)], steps=1, cached=False, logits=prompt)
    if d["phase"] == "train":
        return (training_phase([*encoder, *parallel], d),)
    if d["phase"] == "forward":
        rows = [Phase("encode", OperationTable.from_rows(encoder))]
        return (*rows, Phase("decode_forward", OperationTable.from_rows(parallel), after=("encode",)))
    cross = 2 * d["decoder_layers"] * d["heads"] * d["head_dim"] * source
    per_token = 2 * d["decoder_layers"] * d["heads"] * d["head_dim"]

    def cached(tokens: IntLike) -> Any:
        return d["batch"] * (cross + per_token * tokens) * d["kv_bits"] / 8.0

    if d["phase"] == "decode":
        context = d["context"] if _has(d["context"]) else prompt
        rows_decode = decoder_side_rows(d, q_len=1, parts=[(context, 1)], steps=1, cached=True, logits=1)
        return (Phase("decode", OperationTable.from_rows(rows_decode), kv_cache_bytes=cached(context)),)
    encode = [*encoder, *_cross_source(d)]
    parts = step_parts(0, new, 0, d["kv_growth"])
    steps = decoder_side_rows(d, q_len=1, parts=parts, steps=new, cached=True, logits=1)
    return (
        Phase("encode", OperationTable.from_rows(encode), kv_cache_bytes=cached(0)),
        Phase("generation", OperationTable.from_rows(steps), after=("encode",), kv_cache_bytes=cached(new)),
    )


def _biases(d: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    return (d["bias"], d["bias"] and d["key_bias"], d["bias"])


def _cross_source(d: Mapping[str, Any]) -> list[Operation]:
    return cross_source(
        hidden=d["hidden"],
        wide=d["heads"] * d["head_dim"],
        source=d["batch"] * d["sequence"],
        bits=bits_of(d),
        repeat=d["decoder_layers"],
        prefix="decoder.cross.",
        bias_qkv=_biases(d),
        writes_cache=True,
    )


def encoder_side_rows(d: Mapping[str, Any]) -> list[Operation]:
    """The encoder over the source: tokens, or the spectrogram of an audio front end."""
    bits = bits_of(d)
    hidden, batch, source = d["hidden"], d["batch"], d["sequence"]
    tokens = batch * source
    rows = _audio_rows(d) if d["audio"] else [embedding("token_embedding", tokens, hidden, d["vocabulary"], bits=bits)]
    if d["relative_buckets"]:
        rows.append(_relative_bias(d, "encoder.", source, source))
    layers = d["encoder_layers"]
    rows += _self_block(d, "encoder.", layers, source, [(source, 1)], steps=1, cached=False, causal=False)
    rows += _ffn_block(d, "encoder.", layers, tokens)
    rows.append(norm("encoder.final_norm", tokens, hidden, function=d["norm"], bits=bits))
    return rows


def _audio_rows(d: Mapping[str, Any]) -> list[Operation]:
    """Two convolutions over the mel spectrogram, the second with stride 2, and fixed positions."""
    bits: Bits = bits_of(d)
    hidden, batch, source = d["hidden"], d["batch"], d["sequence"]
    frames = 2 * source
    common: dict[str, Any] = {
        "batch": batch,
        "component": "embedding",
        "second_is_weight": True,
        "input_bits": bits.activations,
        "weight_bits": bits.weights,
        "output_bits": bits.activations,
    }
    return [
        Operation(
            "encoder.conv1",
            Kind.CONV,
            frames,
            hidden,
            d["mels"] * 3,
            parameters=hidden * d["mels"] * 3 + hidden,
            weight_id="encoder.conv1",
            input_elements=batch * d["mels"] * frames,
            **filter_fields([frames], [3]),
            **common,
        ),
        vector("encoder.conv1_gelu", Kind.ACTIVATION, "gelu", batch * frames, hidden, bits=bits, component="embedding"),
        Operation(
            "encoder.conv2",
            Kind.CONV,
            source,
            hidden,
            hidden * 3,
            parameters=hidden * hidden * 3 + hidden,
            weight_id="encoder.conv2",
            input_elements=batch * hidden * frames,
            **filter_fields([frames], [3], [2]),
            **common,
        ),
        vector("encoder.conv2_gelu", Kind.ACTIVATION, "gelu", batch * source, hidden, bits=bits, component="embedding"),
        vector(
            "encoder.position_add",
            Kind.ELEMENTWISE,
            "add",
            batch * source,
            hidden,
            bits=bits,
            component="embedding",
            operands=2,
            parameters=d["source_positions"] * hidden,
        ),
    ]


def decoder_side_rows(
    d: Mapping[str, Any], *, q_len: IntLike, parts: Parts, steps: IntLike, cached: bool, logits: IntLike
) -> list[Operation]:
    """The decoder over ``q_len`` tokens in each of ``steps`` steps; ``parts`` are the key lengths of its self-attention."""
    bits = bits_of(d)
    hidden, batch, layers = d["hidden"], d["batch"], d["decoder_layers"]
    tokens = batch * q_len
    front = [embedding("token_embedding", tokens, hidden, d["vocabulary"], bits=bits)]
    if d["target_positions"]:
        front.append(embedding("decoder.position_embedding", tokens, hidden, d["target_positions"], bits=bits, held=tokens * hidden))
        front.append(
            vector(
                "decoder.embedding_add",
                Kind.ELEMENTWISE,
                "add",
                tokens,
                hidden,
                bits=bits,
                component="embedding",
                operands=2,
            )
        )
    if d["relative_buckets"]:
        longest, _ = parts[-1]
        front.append(_relative_bias(d, "decoder.", q_len, longest))
    self_rows = _self_block(d, "decoder.", layers, q_len, parts, steps=steps, cached=cached, causal=True)
    cross = [
        norm("decoder.cross_norm", tokens, hidden, function=d["norm"], bits=bits, repeat=layers, held=tokens * hidden),
        *cross_attention(
            hidden=hidden,
            heads=d["heads"],
            head_dim=d["head_dim"],
            batch=batch,
            q_len=q_len,
            source_len=d["sequence"],
            bits=bits,
            repeat=layers,
            prefix="decoder.cross.",
            bias_qkv=_biases(d),
            bias_out=d["bias"],
            project_source=not cached,
            cached=cached,
            fused=d["fused_attention"],
        ),
        residual(
            "decoder.cross_residual",
            tokens,
            hidden,
            bits=bits,
            repeat=layers,
            component="attention",
            reads="decoder.cross.o_proj =decoder.cross_norm",
        ),
    ]
    back = [*cross, *_ffn_block(d, "decoder.", layers, tokens)]
    back.append(norm("decoder.final_norm", tokens, hidden, function=d["norm"], bits=bits, component="head"))
    vectors = batch * logits
    if d["scale_logits"]:
        back.append(vector("logit_scale", Kind.ELEMENTWISE, "scale", vectors, hidden, bits=bits, component="head"))
    weight = "token_embedding" if d["tied"] else "lm_head"
    back.append(linear("lm_head", vectors, d["vocabulary"], hidden, bits=bits, bias=False, component="head", weight_id=weight))
    return [*times(front, steps), *self_rows, *times(back, steps)]


def _self_block(
    d: Mapping[str, Any],
    prefix: str,
    layers: IntLike,
    q_len: IntLike,
    parts: Parts,
    *,
    steps: IntLike,
    cached: bool,
    causal: bool,
) -> list[Operation]:
    """Norm, self-attention (with its position bias) and residual of all layers of a side."""
    bits = bits_of(d)
    hidden, batch, heads = d["hidden"], d["batch"], d["heads"]
    tokens = batch * q_len
    common: dict[str, Any] = {"bits": bits, "repeat": layers}
    before = norm(f"{prefix}attention_norm", tokens, hidden, function=d["norm"], held=tokens * hidden, **common)
    rows = self_attention(
        hidden=hidden,
        heads=heads,
        head_dim=d["head_dim"],
        batch=batch,
        q_len=q_len,
        parts=parts,
        steps=steps,
        prefix=prefix,
        bias_qkv=_biases(d),
        bias_out=d["bias"],
        pre_norm=True,
        causal=causal,
        cached=cached,
        writes_cache=causal,
        fused=d["fused_attention"],
        **common,
    )
    if d["relative_buckets"]:
        for keys, count in parts:
            rows.append(
                vector(
                    f"{prefix}bias_add",
                    Kind.ELEMENTWISE,
                    "add",
                    batch * heads * q_len,
                    keys,
                    bits=bits,
                    repeat=layers * count,
                    component="attention",
                    operands=2,
                )
            )
    both = f"{prefix}o_proj ={prefix}attention_norm"
    after = residual(f"{prefix}attention_residual", tokens, hidden, component="attention", reads=both, **common)
    return [*times([before], steps), *rows, *times([after], steps)]


def _ffn_block(d: Mapping[str, Any], prefix: str, layers: IntLike, tokens: IntLike) -> list[Operation]:
    bits = bits_of(d)
    hidden = d["hidden"]
    return [
        norm(f"{prefix}ffn_norm", tokens, hidden, function=d["norm"], bits=bits, repeat=layers, held=tokens * hidden),
        *feed_forward(
            hidden=hidden,
            ffn=d["ffn"],
            tokens=tokens,
            activation=d["activation"],
            bits=bits,
            repeat=layers,
            gated=d["gated"],
            bias=d["bias"],
            pre_norm=True,
            prefix=prefix,
        ),
        residual(
            f"{prefix}ffn_residual",
            tokens,
            hidden,
            bits=bits,
            repeat=layers,
            component="ffn",
            reads=f"{prefix}ffn_down ={prefix}ffn_norm",
        ),
    ]


def _relative_bias(d: Mapping[str, Any], prefix: str, q_len: IntLike, kv_len: IntLike) -> Operation:
    """The table of relative positions (buckets x heads), read once per pass and shared by the layers."""
    return embedding(f"{prefix}relative_bias", q_len * kv_len, d["heads"], d["relative_buckets"], bits=bits_of(d))


def _has(value: Any) -> bool:
    return not isinstance(value, int) or value > 0
