"""Where heads, feed-forward units, layers, hidden channels and tokens lie in the tensors of a model type.

A layout is data: for every parameter the axis that each of its dimensions runs along. What is pruned is then an index selection per axis,
the same for every model type, and a parameter that no pattern knows is an error, never a guess.

Axes: ``heads`` (query heads x head dimension), ``kv`` (key/value heads x head dimension), ``ffn``, ``vocabulary``, ``in`` (hidden channels
that are read), ``out`` (hidden channels that are written to the residual stream), ``norm`` (hidden channels of a norm), ``pool`` (units
of a pooler, as many as the hidden width), ``-`` (never pruned).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dse.errors import UsageError, unknown_name

Axes = tuple[str, ...]
Model = Any
"""A model of transformers: a module whose parts and configuration are not typed."""


@dataclass(frozen=True)
class Layout:
    """The parts of a model type.

    ``layers`` is the path of the list of layers inside the base model; the paths below a layer: ``attention`` (the module that knows the
    number of heads), ``query``, ``key``, ``value``, ``attention_out``, ``ffn_in`` (one, or gate and up), ``ffn_out``. ``norms`` are
    (path, reads what) of a layer in order of use. ``patterns`` (regular expression on the parameter's name without the base model's
    prefix -> axes; a layer's name begins with ``L.``). ``post_norm``: the residual stream passes through the norms (BERT); else they
    stand before each block.
    """

    layers: str
    attention: str
    query: str
    key: str
    value: str
    attention_out: str
    ffn_in: tuple[str, ...]
    ffn_out: str
    norms: tuple[str, ...]
    final_norm: str | None
    embedding_norm: str | None
    patterns: tuple[tuple[str, Axes], ...]
    post_norm: bool
    rms: bool
    mapped: Mapping[str, str]  # our knob -> field of the configuration


_BERT_FIELDS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "vocabulary": "vocab_size",
}

_BERT = Layout(
    layers="encoder.layer",
    attention="attention.self",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_out="attention.output.dense",
    ffn_in=("intermediate.dense",),
    ffn_out="output.dense",
    norms=("attention.output.LayerNorm", "output.LayerNorm"),
    final_norm=None,
    embedding_norm="embeddings.LayerNorm",
    patterns=(
        (r"embeddings\.word_embeddings\.weight", ("vocabulary", "out")),
        (r"embeddings\.(position|token_type)_embeddings\.weight", ("-", "out")),
        (r"embeddings\.LayerNorm\.(weight|bias)", ("norm",)),
        (r"L\.attention\.self\.query\.weight", ("heads", "in")),
        (r"L\.attention\.self\.query\.bias", ("heads",)),
        (r"L\.attention\.self\.(key|value)\.weight", ("kv", "in")),
        (r"L\.attention\.self\.(key|value)\.bias", ("kv",)),
        (r"L\.attention\.output\.dense\.weight", ("out", "heads")),
        (r"L\.(attention\.)?output\.dense\.bias", ("out",)),
        (r"L\.(attention\.)?output\.LayerNorm\.(weight|bias)", ("norm",)),
        (r"L\.intermediate\.dense\.weight", ("ffn", "in")),
        (r"L\.intermediate\.dense\.bias", ("ffn",)),
        (r"L\.output\.dense\.weight", ("out", "ffn")),
        (r"pooler\.dense\.weight", ("pool", "in")),
        (r"pooler\.dense\.bias", ("pool",)),
        (r"classifier\.dense\.weight", ("pool", "in")),
        (r"classifier\.dense\.bias", ("pool",)),
        (r"classifier\.(out_proj\.)?weight", ("-", "pool")),
        (r"classifier\.(out_proj\.)?bias", ("-",)),
    ),
    post_norm=True,
    rms=False,
    mapped=_BERT_FIELDS,
)

_LLAMA = Layout(
    layers="layers",
    attention="self_attn",
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_out="self_attn.o_proj",
    ffn_in=("mlp.gate_proj", "mlp.up_proj"),
    ffn_out="mlp.down_proj",
    norms=("input_layernorm", "post_attention_layernorm"),
    final_norm="norm",
    embedding_norm=None,
    patterns=(
        (r"embed_tokens\.weight", ("vocabulary", "out")),
        (r"L\.self_attn\.q_proj\.weight", ("heads", "in")),
        (r"L\.self_attn\.q_proj\.bias", ("heads",)),
        (r"L\.self_attn\.[kv]_proj\.weight", ("kv", "in")),
        (r"L\.self_attn\.[kv]_proj\.bias", ("kv",)),
        (r"L\.self_attn\.o_proj\.weight", ("out", "heads")),
        (r"L\.(self_attn\.o_proj|mlp\.down_proj)\.bias", ("out",)),
        (r"L\.self_attn\.[qk]_norm\.weight", ("-",)),
        (r"L\.mlp\.(gate|up)_proj\.weight", ("ffn", "in")),
        (r"L\.mlp\.(gate|up)_proj\.bias", ("ffn",)),
        (r"L\.mlp\.down_proj\.weight", ("out", "ffn")),
        (r"L\.(input|post_attention)_layernorm\.weight", ("norm",)),
        (r"norm\.weight", ("norm",)),
        (r"lm_head\.weight", ("vocabulary", "in")),
        (r"score\.weight", ("-", "in")),
    ),
    post_norm=False,
    rms=True,
    mapped={**_BERT_FIELDS, "kv_heads": "num_key_value_heads"},
)

_VIT = Layout(
    layers="layers",
    attention="attention",
    query="attention.q_proj",
    key="attention.k_proj",
    value="attention.v_proj",
    attention_out="attention.o_proj",
    ffn_in=("mlp.fc1",),
    ffn_out="mlp.fc2",
    norms=("layernorm_before", "layernorm_after"),
    final_norm="layernorm",
    embedding_norm=None,
    patterns=(
        (r"embeddings\.(cls_token|position_embeddings|mask_token)", ("-", "-", "out")),
        (r"embeddings\.patch_embeddings\.projection\.weight", ("out", "-", "-", "-")),
        (r"embeddings\.patch_embeddings\.projection\.bias", ("out",)),
        (r"L\.attention\.q_proj\.weight", ("heads", "in")),
        (r"L\.attention\.q_proj\.bias", ("heads",)),
        (r"L\.attention\.[kv]_proj\.weight", ("kv", "in")),
        (r"L\.attention\.[kv]_proj\.bias", ("kv",)),
        (r"L\.attention\.o_proj\.weight", ("out", "heads")),
        (r"L\.(attention\.o_proj|mlp\.fc2)\.bias", ("out",)),
        (r"L\.layernorm_(before|after)\.(weight|bias)", ("norm",)),
        (r"L\.mlp\.fc1\.weight", ("ffn", "in")),
        (r"L\.mlp\.fc1\.bias", ("ffn",)),
        (r"L\.mlp\.fc2\.weight", ("out", "ffn")),
        (r"layernorm\.(weight|bias)", ("norm",)),
        (r"pooler\.dense\.weight", ("pool", "in")),
        (r"pooler\.dense\.bias", ("pool",)),
        (r"classifier\.weight", ("-", "in")),
        (r"classifier\.bias", ("-",)),
    ),
    post_norm=False,
    rms=False,
    mapped={k: v for k, v in _BERT_FIELDS.items() if k != "vocabulary"},
)

LAYOUTS: dict[str, Layout] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "vit": _VIT,
}


def layout_of(model_type: str) -> Layout:
    """The layout of a model type; an unknown one is an error that names those that can be pruned."""
    if model_type not in LAYOUTS:
        raise unknown_name("model type that can be pruned", model_type, LAYOUTS)
    return LAYOUTS[model_type]


def layout_with_head(model_type: str, names: Iterable[str]) -> Layout:
    """The layout of a model with these parameters: a classifier without a pooler before it (a class for every token) reads the hidden
    channels themselves."""
    layout = layout_of(model_type)
    if any(name.endswith(("pooler.dense.weight", "classifier.dense.weight")) for name in names):
        return layout
    patterns = tuple((pattern, tuple("in" if axis == "pool" else axis for axis in axes)) for pattern, axes in layout.patterns)
    return replace(layout, patterns=patterns)


def axes_of(layout: Layout, name: str, prefix: str, dimensions: int) -> tuple[Axes, int | None]:
    """The axes of a parameter, and its layer (None outside the layers); ``prefix`` is the base model's, with its dot, or empty."""
    short = name.removeprefix(prefix)
    layer = None
    if (found := re.match(re.escape(layout.layers) + r"\.(\d+)\.", short)) is not None:
        layer = int(found.group(1))
        short = "L." + short[found.end() :]
    for pattern, axes in layout.patterns:
        if re.fullmatch(pattern, short):
            if len(axes) != dimensions:
                break
            return axes, layer
    raise UsageError(f"parameter {name!r} of {dimensions} dimensions is none that pruning knows for this model type")
