"""A model of transformers from its configuration, on the meta device, and example inputs for it. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.errors import WorkloadError, shorten, unknown_name
from workloads.importers.huggingface.attention import register
from workloads.importers.module import quiet


def build_model(config: Mapping[str, Any], file: str, *, recorded: bool = True) -> tuple[Any, Any]:
    """Return (model on the meta device, its configuration object).

    ``recorded``: attention stays one operator (:mod:`workloads.importers.huggingface.attention`) in models that look it up.
    """
    import torch
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    if not isinstance(kind, str):
        raise WorkloadError(f"{file}: field 'model_type' is {shorten(kind)!r}, must be the name of a transformers model type")
    if kind not in CONFIG_MAPPING:
        extra = " (code shipped with a model is never run)" if "auto_map" in config else ""
        error = unknown_name(f"{file}: field 'model_type'", kind, CONFIG_MAPPING.keys())
        raise WorkloadError(f"{error}{extra}")
    known = {
        key: value
        for key, value in config.items()
        if key not in ("auto_map", "quantization_config", "torch_dtype", "dtype", "_name_or_path", "transformers_version")
    }
    try:
        with quiet():
            settings = CONFIG_MAPPING[kind].from_dict(known)
    except Exception as error:  # validation of transformers raises many kinds
        raise WorkloadError(f"{file} is not a valid configuration of model type {kind!r}: {shorten(str(error), 300)}") from error
    cls = _model_class(config, settings, file)
    problem: Exception | None = None
    for implementation in ("sdpa", "eager"):
        try:
            with quiet(), torch.device("meta"):
                model = cls._from_config(settings, attn_implementation=implementation)
                if recorded:
                    model.config._attn_implementation = register()
            for part in (model.config, getattr(model.config, "text_config", None)):
                if part is not None and getattr(part, "use_cache", False):
                    part.use_cache = False
            return model.eval(), model.config
        except Exception as error:  # noqa: BLE001  as above: sizes that do not fit, values of the wrong type
            problem = error
    raise WorkloadError(f"{file} describes no model that {cls.__name__} can build: {shorten(str(problem), 300)}") from problem


def _model_class(config: Mapping[str, Any], settings: Any, file: str) -> Any:
    import transformers
    from transformers import PreTrainedModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    listed = config.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], str) else None
    if name is not None:
        cls = getattr(transformers, name, None) if name.isidentifier() else None
        if isinstance(cls, type) and issubclass(cls, PreTrainedModel) and cls is not PreTrainedModel:
            return cls
        raise WorkloadError(f"{file}: field 'architectures' is {shorten(name)!r}, which is no model class of transformers")
    if type(settings) not in MODEL_MAPPING:
        raise WorkloadError(f"{file}: field 'architectures' is missing, and model type {settings.model_type!r} has no base model")
    cls = MODEL_MAPPING[type(settings)]
    return cls[0] if isinstance(cls, (list, tuple)) else cls


def example_inputs(
    model: Any,
    settings: Any,
    file: str,
    *,
    sequence: int,
    target: int,
    batch: int,
    longest: int = 0,
    text_alone: bool = False,
) -> dict[str, Any]:
    """Inputs on the meta device that the model's forward pass takes.

    ``longest``: positions that the model must have, where they are more than ``sequence``; ``text_alone``: of a model of
    pictures and text, the text.
    """
    import inspect

    import torch

    accepted = inspect.signature(model.forward).parameters
    vision = getattr(settings, "vision_config", None) or settings
    inputs: dict[str, Any] = {}

    def tokens(length: int) -> Any:
        return torch.zeros(batch, length, dtype=torch.long, device="meta")

    main = "input_ids" if text_alone else getattr(model, "main_input_name", "input_ids")
    both = "pixel_values" in accepted and "input_ids" in accepted and hasattr(settings, "text_config")
    pair = both and hasattr(model, "logit_scale")
    if main == "pixel_values" or pair:
        size = getattr(vision, "image_size", 224)
        height, width = (size[0], size[1]) if isinstance(size, (list, tuple)) else (size, size)
        channels = getattr(vision, "num_channels", 3)
        inputs["pixel_values"] = torch.zeros(batch, channels, height, width, device="meta")
    if main == "input_features":
        frames = 2 * int(getattr(settings, "max_source_positions", 1500))
        inputs["input_features"] = torch.zeros(batch, int(getattr(settings, "num_mel_bins", 80)), frames, device="meta")
    elif main == "input_values":
        inputs["input_values"] = torch.zeros(batch, 16000, device="meta")
    elif main == "input_ids" or pair or (both and main != "pixel_values"):
        text = getattr(settings, "text_config", settings) if pair else settings
        text = getattr(settings, "text_config", text) if text_alone else text
        positions = getattr(text, "max_position_embeddings", None)
        offset = 2 if getattr(settings, "model_type", "") in ("roberta", "xlm-roberta", "camembert") else 0
        if isinstance(positions, int) and max(sequence, longest) > positions - offset:
            if not pair:
                raise WorkloadError(
                    f"sequence of {file} is {max(sequence, longest)}, must be at most {positions - offset} (max_position_embeddings); "
                    f"nearest is {positions - offset}"
                )
            sequence = positions
        inputs["input_ids"] = tokens(sequence)
    if getattr(settings, "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        inputs["decoder_input_ids"] = tokens(target)
    if not inputs:
        raise WorkloadError(f"{file}: the model takes {main!r}, for which no example input is known; import it as a module")
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs
