"""Encoders from dimensions (BERT, RoBERTa, DistilBERT, MiniLM): one forward phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.blocks import bits_of, embedding, feed_forward, linear, norm, residual, self_attention, vector
from workloads.ops import Kind, Operation, OperationTable
from workloads.records import Phase
from workloads.training import training_phase


def encoder_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """A forward pass (or a training step) of a post-norm encoder: embeddings, ``layers`` of attention and feed-forward, pooler.

    Dimensions: layers, hidden, heads, head_dim, ffn, vocabulary, positions, token_types (0: none), pooler, token_classes (a classifier
    on every token; 0: none), activation; settings: sequence, batch, bits.
    """
    rows = encoder_rows(d)
    if d["phase"] == "train":
        return (training_phase(rows, d),)
    return (Phase("forward", OperationTable.from_rows(rows)),)


def encoder_rows(d: Mapping[str, Any]) -> list[Operation]:
    """Rows of one forward pass; see :func:`encoder_phases`."""
    bits = bits_of(d)
    hidden, layers, batch = d["hidden"], d["layers"], d["batch"]
    tokens = batch * d["sequence"]
    rows = [embedding("word_embedding", tokens, hidden, d["vocabulary"], bits=bits)]
    tables, added = 2, "word_embedding position_embedding"
    entries = d["positions"] + d["position_offset"]
    rows.append(embedding("position_embedding", tokens, hidden, entries, bits=bits, held=tokens * hidden))
    if d["token_types"]:
        tables, added = 3, f"{added} type_embedding"
        rows.append(embedding("type_embedding", tokens, hidden, d["token_types"], bits=bits, held=2 * tokens * hidden))
    total: dict[str, Any] = {"bits": bits, "component": "embedding", "operands": tables, "reads": added}
    rows.append(vector("embedding_add", Kind.ELEMENTWISE, "add", tokens, hidden, **total))
    rows.append(norm("embedding_norm", tokens, hidden, function="layernorm", bits=bits, component="embedding"))
    rows += self_attention(
        hidden=hidden,
        heads=d["heads"],
        head_dim=d["head_dim"],
        batch=batch,
        q_len=d["sequence"],
        bits=bits,
        repeat=layers,
        fused=d["fused_attention"],
    )
    rows.append(residual("attention_residual", tokens, hidden, bits=bits, repeat=layers, component="attention", reads="o_proj =q_proj"))
    rows.append(norm("attention_norm", tokens, hidden, function="layernorm", bits=bits, repeat=layers))
    rows += feed_forward(hidden=hidden, ffn=d["ffn"], tokens=tokens, activation=d["activation"], bits=bits, repeat=layers)
    rows.append(residual("ffn_residual", tokens, hidden, bits=bits, repeat=layers, component="ffn", reads="ffn_down =ffn_up"))
    rows.append(norm("ffn_norm", tokens, hidden, function="layernorm", bits=bits, repeat=layers))
    if d["pooler"]:
        rows.append(linear("pooler", batch, hidden, hidden, bits=bits, component="head", held=tokens * hidden, reads="ffn_norm"))
        rows.append(vector("pooler_tanh", Kind.ACTIVATION, "tanh", batch, hidden, bits=bits, component="head"))
    if d["token_classes"]:
        rows.append(linear("classifier", tokens, d["token_classes"], hidden, bits=bits, component="head", reads="ffn_norm"))
    return rows
