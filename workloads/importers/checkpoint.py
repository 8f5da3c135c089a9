"""A Hugging Face checkpoint's ``config.json`` as a model of the library, so that its dimensions are knobs.

``family_from_config`` walks whatever graph a configuration gives and turns none of its dimensions; here the model types are those whose
rows the library's own builders make, exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, unknown_name
from workloads.family import Family
from workloads.importers.huggingface import read_config


def record_of(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The model record (as in ``workloads/models``) of a configuration; a model type that has none is an error that names those that
    have.
    """
    kind = config.get("model_type")
    if kind not in _RECORDS:
        raise unknown_name(f"{where}: model type whose dimensions are knobs", str(kind), _RECORDS)
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        value = config.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WorkloadError(f"{where}: field {name!r} is {value!r}, must be a whole number of at least 1")
    heads = config["num_attention_heads"]
    shared = {
        "layers": config["num_hidden_layers"],
        "hidden": config["hidden_size"],
        "heads": heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "ffn": config["intermediate_size"],
    }
    return _RECORDS[kind](config, shared)


def family_from_checkpoint(folder: str | Path, make: Any) -> Family:
    """The family of a checkpoint folder (or its config.json); ``make(record, where)`` builds it from a record."""
    path = Path(folder)
    file = path / "config.json" if path.is_dir() else path
    record = record_of(read_config(file), str(file))
    return make({"name": path.name if path.is_dir() else path.parent.name, **record}, str(file))  # type: ignore[no-any-return]


def _encoder(config: Mapping[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    roberta = config["model_type"] != "bert"
    offset = 2 if roberta else 0  # its first two positions are never used
    dimensions = {
        **shared,
        "vocabulary": config.get("vocab_size", 30522),
        "positions": config.get("max_position_embeddings", 512) - offset,
        "position_offset": offset,
        "token_types": config.get("type_vocab_size", 2),
        "pooler": False,  # what is measured are mean-pooled vectors, or a classifier of its own
        "activation": config.get("hidden_act", "gelu"),
    }
    return {"family": "encoder", "dimensions": dimensions, "defaults": _sequence(dimensions), "model_spaces": ["pruned"]}


def _decoder(config: Mapping[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    kind = config["model_type"]
    dimensions = {
        **shared,
        "kv_heads": config.get("num_key_value_heads") or shared["heads"],
        "vocabulary": config.get("vocab_size", 32000),
        "positions": config.get("max_position_embeddings", 2048),
        "qkv_bias": kind == "qwen2" or bool(config.get("attention_bias")),
        "out_bias": kind != "qwen2" and bool(config.get("attention_bias")),
        "qk_norm": kind == "qwen3",
        "tied": bool(config.get("tie_word_embeddings", False)),
        "activation": config.get("hidden_act", "silu"),
    }
    defaults = {**_sequence(dimensions), "phase": "prefill"}
    return {"family": "decoder", "dimensions": dimensions, "defaults": defaults, "model_spaces": ["pruned"]}


def _vit(config: Mapping[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    labels = config.get("id2label")
    dimensions = {
        **shared,
        "image": config.get("image_size", 224),
        "patch": config.get("patch_size", 16),
        "channels": config.get("num_channels", 3),
        "classes": len(labels) if isinstance(labels, dict) else 2,
        "activation": config.get("hidden_act", "gelu"),
    }
    return {"family": "vit", "dimensions": dimensions, "model_spaces": ["pruned"]}


def _sequence(dimensions: Mapping[str, Any]) -> dict[str, Any]:
    return {"sequence": min(128, int(dimensions["positions"]))}


_RECORDS = {
    "bert": _encoder,
    "roberta": _encoder,
    "xlm-roberta": _encoder,
    "llama": _decoder,
    "mistral": _decoder,
    "qwen2": _decoder,
    "qwen3": _decoder,
    "vit": _vit,
}
