"""A ``config.json`` as a family: what may be changed about how it is run, and its phases."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workloads.family import Builder, Family
from workloads.importers.huggingface.config import read_config
from workloads.importers.huggingface.phases import import_config
from workloads.knobs import Knob
from workloads.records import Workload

_MODEL_KNOBS = (
    Knob("sequence", "tokens of the input (of the prompt of a language model)", 1, 2**17, setting=True),
    Knob("batch", "requests that are computed together", 1, 2**16, setting=True),
    Knob("weight_bits", "bits of a parameter", choices=(1, 2, 3, 4, 6, 8, 16, 32), setting=True),
    Knob("activation_bits", "bits of an activation", choices=(4, 8, 16, 32), setting=True),
    Knob("fused_attention", "attention as one operation that never writes its scores", choices=(True, False), setting=True),
)
_TARGET = Knob("target", "decoder tokens of an encoder-decoder", 1, 2**17, setting=True)
_LANGUAGE_KNOBS = (
    Knob("phase", "what is run", choices=("prefill", "decode", "generate"), setting=True),
    Knob("context", "keys that a decode step attends to (0: the sequence)", 0, 2**24, setting=True),
    Knob("new_tokens", "tokens that are generated", 1, 2**24, setting=True),
    Knob("kv_bits", "bits of an element of the KV cache", choices=(2, 3, 4, 8, 16, 32), setting=True),
    Knob("kv_growth", "how a generation is laid out", choices=("summed", "stepwise"), setting=True),
    Knob("all_logits", "logits of every prompt token, not of the last alone", choices=(True, False), setting=True),
)
_IMAGE_KNOBS = (
    Knob("images", "pictures of a request", 0, 2**10, setting=True),
    Knob("image_height", "pixels, where the tower takes pictures as they are", 1, 2**14, setting=True),
    Knob("image_width", "pixels, where the tower takes pictures as they are", 1, 2**14, setting=True),
)
_DEFAULTS: dict[str, Any] = {
    **{"sequence": 128, "batch": 1, "weight_bits": 8, "activation_bits": 8, "fused_attention": False, "target": 16},
    **{"phase": "prefill", "context": 0, "new_tokens": 128, "kv_bits": 8, "kv_growth": "summed", "all_logits": False},
    **{"images": 1, "image_height": 448, "image_width": 448},
}


def family_from_config(path: str | os.PathLike[str], *, strict: bool = False) -> Family:
    """Return the family of a ``config.json`` (or the folder that holds it); it is exported when it is built.

    Knobs: sequence, batch, bits, fused_attention; of a language model also phase, context, new_tokens, kv_bits, all_logits;
    of one that sees also images and their size; of an encoder-decoder also target. Raises WorkloadError that names the file
    and the field.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    config = read_config(file)
    knobs = {knob.name: knob for knob in _knobs(config)}
    defaults = {name: _DEFAULTS[name] for name in knobs}

    @functools.lru_cache(maxsize=8)
    def imported(*key: Any) -> Workload:
        return import_config(config, str(file), strict=strict, **dict(key))

    def phases(values: Mapping[str, Any]) -> Workload:
        return imported(*sorted(values.items()))

    return Family(
        name=_title(config, file),
        builder=Builder(name="imported", knobs=knobs, defaults=defaults, check=_no_check, phases=phases),
        dimensions={},
        defaults=defaults,
        sources={"dimensions": str(file)},
    )


def _knobs(config: Mapping[str, Any]) -> tuple[Knob, ...]:
    if not is_language_model(config):
        return (*_MODEL_KNOBS, _TARGET)
    return (*_MODEL_KNOBS, *_LANGUAGE_KNOBS, *(_IMAGE_KNOBS if "vision_config" in config else ()))


def is_language_model(config: Mapping[str, Any]) -> bool:
    """Whether a configuration is of a model that continues a text token by token (decoder alone, with or without pictures)."""
    listed = config.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], str) else ""
    kind = config.get("model_type")
    if config.get("is_encoder_decoder") is True or not isinstance(kind, str):
        return False
    if re.search(r"(ForCausalLM|LMHeadModel)$", name):
        return True
    sees = "vision_config" in config
    if name:
        generates = name.endswith("ForConditionalGeneration") and (sees or "text_config" in config)
        return generates or (_is_causal(kind) and not name.startswith(("Bert", "Roberta")) and name.endswith("Model"))
    return sees or _is_causal(kind) if kind not in _TWO_TOWERS else False


# Models of pictures and texts side by side, that continue no text.
_TWO_TOWERS = frozenset(("clip", "siglip", "siglip2", "altclip", "chinese_clip", "align", "blip", "groupvit", "owlvit", "owlv2", "flava"))


def _is_causal(kind: str) -> bool:
    """Whether transformers knows a causal language model of that type and no masked or encoder-decoder one."""
    try:
        from transformers.models.auto import modeling_auto as auto
    except ImportError:
        return False
    others = (
        auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    )
    return kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not any(kind in names for names in others)


def _no_check(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    """An imported model has no combinations of its own."""


def _title(config: Mapping[str, Any], file: Path) -> str:
    named = config.get("_name_or_path")
    if isinstance(named, str) and named and len(named) < 100 and named.isprintable():
        return named
    return file.parent.name if file.name == "config.json" and file.parent.name else file.stem
