"""Decoders from dimensions: GPT-2, OPT, Pythia, Llama, Mistral, Qwen, Gemma, Mixtral, gpt-oss, DeepSeek.

One builder: the record says which norms, positions, biases, windows, experts and kind of attention the model has.
Phases: ``prefill`` (the prompt), ``decode`` (one token at a context length), ``generate`` (prefill and ``new_tokens``
steps, summed exactly), ``train`` (one step, see :mod:`workloads.training`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.blocks import (
    HeadSharing,
    Parts,
    bits_of,
    embedding,
    feed_forward,
    linear,
    norm,
    residual,
    self_attention,
    times,
    vector,
)
from workloads.generation import step_parts
from workloads.head_map import parse_head_map
from workloads.mla import mla_rows
from workloads.moe import moe_rows
from workloads.ops import IntLike, Kind, Operation, OperationTable
from workloads.records import Phase
from workloads.training import training_phase


@dataclass(frozen=True)
class Pass:
    """One way through the layers.

    Attributes:
        q_len: new tokens per request and step; steps: how many steps the table holds.
        prompt: tokens in the cache before the first step (0 for a prefill).
        cached: keys and values come from the cache; logits: tokens per request whose logits are computed.
        context: keys that a single step attends to, where it is given (a decode at a context length).
    """

    q_len: IntLike
    logits: IntLike
    cached: bool = False
    steps: IntLike = 1
    prompt: IntLike = 0
    context: IntLike | None = None


def decoder_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """The phases that ``d["phase"]`` asks for, from completed dimensions and settings."""
    prompt, new = d["sequence"], d["new_tokens"]
    if d["phase"] == "train":
        return (training_phase(decoder_rows(d, Pass(prompt, prompt)), d),)
    prefill = Pass(prompt, prompt if d["all_logits"] else 1)
    if d["phase"] == "prefill":
        return (_phase("prefill", d, prefill, prompt),)
    if d["phase"] == "decode":
        context = d["context"] if _has(d["context"]) else prompt
        return (_phase("decode", d, Pass(1, 1, cached=True, context=context), context),)
    generation = Pass(1, 1, cached=True, steps=new, prompt=prompt)
    return (
        _phase("prefill", d, prefill, prompt),
        _phase("generation", d, generation, prompt + new, after=("prefill",)),
    )


def _phase(name: str, d: Mapping[str, Any], way: Pass, context: IntLike, after: tuple[str, ...] = ()) -> Phase:
    table = OperationTable.from_rows(decoder_rows(d, way))
    return Phase(name, table, after=after, kv_cache_bytes=d["batch"] * kv_cache_bytes(d, context))


def local_layers(d: Mapping[str, Any]) -> IntLike:
    """How many layers attend within the window: ``local_per_period`` of every ``window_period`` layers, the others last."""
    if not _has(d["window"]):
        return 0
    period, local = d["window_period"], d["local_per_period"]
    layers = d["layers"]
    rest = layers % period
    result = layers // period * local + np.minimum(rest, local)
    return int(result) if np.ndim(result) == 0 else result


def kv_cache_bytes(d: Mapping[str, Any], context: IntLike) -> Any:
    """Bytes of cached keys and values of one request at ``context`` tokens, layers with a window keep no more than that."""
    per_layer = d["mla_kv_lora"] + d["mla_rope"] if _has(d["mla_kv_lora"]) else 2 * _stored_heads(d) * d["head_dim"]
    near = local_layers(d)
    tokens = (d["layers"] - near) * context + near * np.minimum(context, _window_or(d, context))
    result = tokens * per_layer * d["kv_bits"] / 8.0
    return float(result) if np.ndim(result) == 0 else result


def head_sharing(d: Mapping[str, Any]) -> tuple[HeadSharing, ...]:
    """Kinds of KV heads of the model's head map; none where all groups are equal."""
    if d.get("sharing"):
        return tuple(d["sharing"])
    if not d["head_map"]:
        return ()
    return tuple(HeadSharing(readers, count, share) for readers, count, share in parse_head_map(d["head_map"]).sharing())


def _stored_heads(d: Mapping[str, Any]) -> Any:
    """KV heads in which a token is stored (on average, where groups store a share of the tokens)."""
    kinds = head_sharing(d)
    return sum(kind.kv_heads * kind.share * kind.present for kind in kinds) if kinds else d["kv_heads"]


def _window_or(d: Mapping[str, Any], context: IntLike) -> IntLike:
    window: IntLike = d["window"]
    return window if _has(window) else context


def decoder_rows(d: Mapping[str, Any], way: Pass) -> list[Operation]:
    """Rows of one pass: embeddings, layers, final norm, language-model head."""
    bits = bits_of(d)
    hidden, batch = d["hidden"], d["batch"]
    tokens = batch * way.q_len
    stream = tokens * hidden
    narrow = d["embedding"] if _has(d["embedding"]) else hidden
    rows = [embedding("token_embedding", tokens, narrow, d["vocabulary"], bits=bits)]
    if _has(d["embedding"]):
        rows.append(linear("project_in", tokens, hidden, narrow, bits=bits, bias=False, component="embedding"))
    if d["scale_embeddings"]:
        rows.append(vector("embedding_scale", Kind.ELEMENTWISE, "scale", tokens, hidden, bits=bits, component="embedding"))
    if d["position"] == "learned":
        entries = d["positions"] + d["position_offset"]
        rows.append(embedding("position_embedding", tokens, hidden, entries, bits=bits, held=stream))
        rows.append(vector("embedding_add", Kind.ELEMENTWISE, "add", tokens, hidden, bits=bits, component="embedding", operands=2))
    layers = _layer_rows(d, way)
    final: list[Operation] = []
    if d["final_norm"]:
        final.append(norm("final_norm", tokens, hidden, function=d["norm"], bits=bits, component="head" if d["head"] else "norm"))
    return [*times(rows, way.steps), *layers, *times([*final, *_head_rows(d, way.logits)], way.steps)]


def _head_rows(d: Mapping[str, Any], logits: IntLike) -> list[Operation]:
    bits = bits_of(d)
    if not d["head"]:
        return []
    vectors = d["batch"] * logits
    hidden = d["hidden"]
    rows: list[Operation] = []
    if _has(d["embedding"]):
        rows.append(linear("project_out", vectors, d["embedding"], hidden, bits=bits, bias=False, component="head"))
        hidden = d["embedding"]
    tied = "token_embedding" if d["tied"] else "lm_head"
    rows.append(linear("lm_head", vectors, d["vocabulary"], hidden, bits=bits, bias=False, component="head", weight_id=tied))
    if d["logit_softcap"]:
        rows.append(vector("logit_softcap", Kind.ACTIVATION, "tanh", vectors, d["vocabulary"], bits=bits, component="head"))
    return rows


def _layer_rows(d: Mapping[str, Any], way: Pass) -> list[Operation]:
    """Attention (of local and global layers apart), norms, residuals and feed-forward (dense and mixture) of all layers."""
    bits = bits_of(d)
    hidden, layers = d["hidden"], d["layers"]
    tokens = d["batch"] * way.q_len
    function, post = d["norm"], d["post_norm"]
    common: dict[str, Any] = {"bits": bits, "repeat": layers}

    def normed(name: str, held: IntLike) -> Operation:
        return norm(name, tokens, hidden, function=function, held=held, **common)

    stream = tokens * hidden
    waiting = 0 if post else stream
    rows = [] if post else [normed("attention_norm", stream)]
    attention: list[Operation] = []
    if _has(d["mla_kv_lora"]):
        parts = _parts(d, way, 0)
        attention = mla_rows(d, q_len=way.q_len, parts=parts, repeat=layers, steps=way.steps, cached=way.cached)
    else:
        near = local_layers(d)
        groups: list[tuple[str, IntLike, IntLike]] = []
        if isinstance(near, int) and near == 0:
            groups = [("", layers, 0)]
        elif isinstance(near, int) and isinstance(layers, int) and near == layers:
            groups = [("", layers, d["window"])]
        else:
            groups = [("local.", near, d["window"]), ("global.", layers - near, 0)]
        for prefix, count, window in groups:
            attention += _attention(d, way, prefix, count, window)
    # What a block adds its result to: what the norm before it reads, or its first projections where norms come last.
    entry = "=q_proj" if post else "=attention_norm"
    before = ("=ffn_gate" if d["gated"] else "=ffn_up") if post else "=ffn_norm"
    ended, last = ("attention_post_norm", "ffn_post_norm") if d["sandwich_norms"] else ("o_proj", "ffn_down")
    after: list[Operation] = []
    if d["sandwich_norms"]:
        after.append(normed("attention_post_norm", stream))
    if not d["parallel_block"]:
        after.append(residual("attention_residual", tokens, hidden, component="attention", reads=f"{ended} {entry}", **common))
    after.append(normed("ffn_norm" if not post else "attention_norm", waiting))
    end: list[Operation] = []
    if d["sandwich_norms"]:
        end.append(normed("ffn_post_norm", stream))
    end.append(residual("ffn_residual", tokens, hidden, component="ffn", reads=f"{last} {before}", **common))
    if d["parallel_block"]:
        end.append(residual("parallel_residual", tokens, hidden, component="ffn", **common))
    if post:
        end.append(normed("ffn_norm", 0))
    return [*times(rows, way.steps), *attention, *times([*after, *_ffn_rows(d, tokens), *end], way.steps)]


def _attention(d: Mapping[str, Any], way: Pass, prefix: str, count: IntLike, window: IntLike) -> list[Operation]:
    return self_attention(
        hidden=d["hidden"],
        heads=d["heads"],
        head_dim=d["head_dim"],
        kv_heads=d["kv_heads"],
        batch=d["batch"],
        q_len=way.q_len,
        parts=_parts(d, way, window),
        steps=way.steps,
        bits=bits_of(d),
        repeat=count,
        prefix=prefix,
        bias_qkv=(d["qkv_bias"],) * 3,
        bias_out=d["out_bias"],
        qk_norm=d["norm"] if d["qk_norm"] else "",
        rotary_dim=(d["rotary_dim"] or d["head_dim"]) if d["position"] == "rope" else 0,
        pre_norm=not d["post_norm"],
        causal=True,
        window=0 if way.cached else window,
        cached=way.cached,
        writes_cache=True,
        fused=d["fused_attention"],
        sinks=d["sinks"],
        softcap=d["attention_softcap"],
        sharing=head_sharing(d),
    )


def _parts(d: Mapping[str, Any], way: Pass, window: IntLike) -> Parts:
    """Key lengths of the steps of a pass in layers of that window (0: none)."""
    if not way.cached:
        return [(way.q_len, 1)]
    if way.context is not None:
        keys = np.minimum(way.context, window) if _has(window) else way.context
        return [(int(keys) if np.ndim(keys) == 0 else np.asarray(keys), 1)]
    return step_parts(way.prompt, way.steps, window, d["kv_growth"])


def _ffn_rows(d: Mapping[str, Any], tokens: IntLike) -> list[Operation]:
    bits = bits_of(d)
    hidden, layers = d["hidden"], d["layers"]
    held = not d["post_norm"]
    rows: list[Operation] = []
    mixture = _has(d["experts"])
    dense = d["dense_layers"] if mixture else layers
    if not (isinstance(dense, int) and dense == 0):
        rows += feed_forward(
            hidden=hidden,
            ffn=d["ffn"],
            tokens=tokens,
            activation=d["activation"],
            bits=bits,
            repeat=dense,
            gated=d["gated"],
            bias=d["ffn_bias"],
            pre_norm=held,
        )
    if mixture:
        rows += moe_rows(
            hidden=hidden,
            expert_ffn=d["expert_ffn"],
            experts=d["experts"],
            top_k=d["top_k"],
            tokens=tokens,
            bits=bits,
            repeat=layers - dense,
            activation=d["activation"],
            scoring=d["router_scoring"],
            bias=d["expert_bias"],
            router_bias=d["router_bias"],
            correction_bias=d["router_correction"],
            imbalance=d["imbalance"],
            held=tokens * hidden,
        )
        if _has(d["shared_experts"]):
            rows += feed_forward(
                hidden=hidden,
                ffn=d["shared_experts"] * d["expert_ffn"],
                tokens=tokens,
                activation=d["activation"],
                bits=bits,
                repeat=layers - dense,
                gated=True,
                bias=False,
                pre_norm=held,
                prefix="shared_",
            )
            rows.append(residual("shared_add", tokens, hidden, bits=bits, repeat=layers - dense, component="ffn"))
    return rows


def _has(value: Any) -> bool:
    """Whether a dimension is there: an array, or a number above 0."""
    return not isinstance(value, int) or value > 0
