"""A Hugging Face ``config.json``: built on the meta device by transformers, exported, walked. Nothing is downloaded.

Layers that are alike are exported once and counted as often as they occur, so that a model of 80 layers costs little more
than one of two; the total of parameters is checked against the full model.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workloads.errors import WorkloadError, shorten, unknown_name
from workloads.family import Builder, Family
from workloads.importers.collector import words
from workloads.importers.module import import_module, quiet
from workloads.knobs import Knob
from workloads.records import Workload

MAX_CONFIG_BYTES = 4 * 2**20
MAX_LAYERS = 1024
MAX_SIZE = 2**28
# Attributes of a layer that say where it stands, not what it is.
_PLACE = words("layer_idx layer_id layer_index idx index block_idx layer_number i training")


def family_from_config(path: str | os.PathLike[str], *, strict: bool = False) -> Family:
    """Return the family of a ``config.json`` (or the folder that holds it); it is exported when it is built.

    Knobs: sequence, target (decoder tokens of an encoder-decoder), batch, bits, fused_attention. Raises WorkloadError that
    names the file and the field.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    config = read_config(file)
    title = _title(config, file)

    @functools.lru_cache(maxsize=8)
    def imported(*key: Any) -> Workload:
        return import_config(config, str(file), strict=strict, **dict(key))

    def phases(values: Mapping[str, Any]) -> Workload:
        return imported(*sorted(values.items()))

    return Family(
        name=title,
        builder=Builder(name="imported", knobs=KNOBS, defaults=_DEFAULTS, check=_no_check, phases=phases),
        dimensions={},
        defaults=_DEFAULTS,
        sources={"dimensions": str(file)},
    )


KNOBS = {
    knob.name: knob
    for knob in (
        Knob("sequence", "tokens of the input", 1, 2**17, setting=True),
        Knob("target", "decoder tokens of an encoder-decoder", 1, 2**17, setting=True),
        Knob("batch", "requests that are computed together", 1, 2**16, setting=True),
        Knob("weight_bits", "bits of a parameter", choices=(1, 2, 3, 4, 6, 8, 16, 32), setting=True),
        Knob("activation_bits", "bits of an activation", choices=(4, 8, 16, 32), setting=True),
        Knob("fused_attention", "attention as one operation", choices=(True, False), setting=True),
    )
}
_DEFAULTS: dict[str, Any] = {
    "sequence": 128,
    "target": 16,
    "batch": 1,
    "weight_bits": 8,
    "activation_bits": 8,
    "fused_attention": False,
}


def _no_check(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    """An imported model has no combinations of its own."""


def read_config(file: Path) -> dict[str, Any]:
    """Return the JSON object of a configuration file, its numbers checked; raise WorkloadError naming file and field."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise WorkloadError(f"{file} cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_CONFIG_BYTES:
        raise WorkloadError(f"{file} is larger than {MAX_CONFIG_BYTES} bytes, which no config.json is")
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise WorkloadError(f"{file} is not a JSON file: {shorten(str(error))}") from error
    if not isinstance(config, dict):
        raise WorkloadError(f"{file} holds a {type(config).__name__}, must hold a JSON object with the field 'model_type'")
    _check_numbers(config, str(file), "", 0)
    return config


def _check_numbers(value: Any, file: str, field: str, depth: int) -> None:
    """Refuse what would take for ever to build: sizes and layer counts that no model has."""
    if depth > 16:
        raise WorkloadError(f"{file}: field {field!r} is nested deeper than 16 levels, which no config.json is")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, file, f"{field}.{key}" if field else str(key), depth + 1)
    elif isinstance(value, list):
        if len(value) > 10000 and "label" not in field:
            raise WorkloadError(f"{file}: field {field!r} is a list of {len(value)} entries, must have at most 10000")
        for item in value[:10000]:
            _check_numbers(item, file, field, depth + 1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        name = field.rsplit(".", 1)[-1]
        counts = "layer" in name or name in ("depth", "n_layer", "num_blocks")
        limit = MAX_LAYERS if counts and isinstance(value, int) else MAX_SIZE
        sized = counts or any(part in name for part in ("size", "dim", "heads", "experts", "vocab", "position", "n_embd"))
        if math.isnan(value) or (sized and not -1 <= value <= limit) or abs(value) > 2**63:
            raise WorkloadError(f"{file}: field {field!r} is {value}, must be a number from 0 to {limit}")


def _title(config: Mapping[str, Any], file: Path) -> str:
    named = config.get("_name_or_path")
    if isinstance(named, str) and named and len(named) < 100:
        return named
    return file.parent.name if file.name == "config.json" and file.parent.name else file.stem


def import_config(
    config: Mapping[str, Any],
    file: str,
    *,
    sequence: int = 128,
    target: int = 16,
    batch: int = 1,
    weight_bits: int = 8,
    activation_bits: int = 8,
    fused_attention: bool = False,
    strict: bool = False,
    whole: bool = False,
) -> Workload:
    """Return the forward pass of the model that a configuration describes (``whole``: without leaving out equal layers)."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise WorkloadError(
            f"{file} needs torch and transformers to be imported, which are not installed: pip install 'dse-toolkit[hf]'"
        ) from error
    del torch, transformers
    options: dict[str, Any] = {
        "name": file,
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "fused_attention": fused_attention,
        "strict": strict,
    }
    model, settings = build_model(config, file)
    try:
        inputs = example_inputs(model, settings, file, sequence=sequence, target=target, batch=batch)
    except (RuntimeError, TypeError, ValueError) as error:  # sizes of pictures or spectra that no tensor has
        if isinstance(error, WorkloadError):
            raise
        raise WorkloadError(f"{file} describes inputs that cannot be made: {shorten(str(error), 200)}") from error
    if not whole:
        total = sum(value.numel() for value in model.parameters())
        times, copies = leave_out_equal_layers(model, settings)
        if times:
            try:
                result = import_module(model, (), inputs, layer_times=times, copies=copies, **options)
            except WorkloadError:
                if strict:
                    raise
                result = None
            if result is not None and result.parameter_count() == total:
                return _with_inputs(result, inputs)
            model, settings = build_model(config, file)
    return _with_inputs(import_module(model, (), inputs, **options), inputs)


def _with_inputs(workload: Workload, inputs: Mapping[str, Any]) -> Workload:
    """Say what the graph was given: a model of pictures and text that got text alone ran without its tower."""
    shapes = {f"input.{name}": list(value.shape) for name, value in inputs.items() if hasattr(value, "shape")}
    return replace(workload, dimensions=MappingProxyType({**workload.dimensions, **shapes}))


def build_model(config: Mapping[str, Any], file: str) -> tuple[Any, Any]:
    """Return (model on the meta device, its configuration object)."""
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


def example_inputs(model: Any, settings: Any, file: str, *, sequence: int, target: int, batch: int) -> dict[str, Any]:
    """Inputs on the meta device that the model's forward pass takes."""
    import inspect

    import torch

    accepted = inspect.signature(model.forward).parameters
    vision = getattr(settings, "vision_config", None) or settings
    inputs: dict[str, Any] = {}

    def tokens(length: int) -> Any:
        return torch.zeros(batch, length, dtype=torch.long, device="meta")

    main = getattr(model, "main_input_name", "input_ids")
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
        longest = getattr(text, "max_position_embeddings", None)
        offset = 2 if getattr(settings, "model_type", "") in ("roberta", "xlm-roberta", "camembert") else 0
        if isinstance(longest, int) and sequence > longest - offset:
            if not pair:
                raise WorkloadError(
                    f"sequence of {file} is {sequence}, must be at most {longest - offset} (max_position_embeddings); "
                    f"nearest is {longest - offset}"
                )
            sequence = longest
        inputs["input_ids"] = tokens(sequence)
    if getattr(settings, "is_encoder_decoder", False) and "decoder_input_ids" in accepted:
        inputs["decoder_input_ids"] = tokens(target)
    if not inputs:
        raise WorkloadError(f"{file}: the model takes {main!r}, for which no example input is known; import it as a module")
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs


def leave_out_equal_layers(model: Any, settings: Any) -> tuple[dict[str, int], dict[str, int]]:
    """Keep one layer of each kind in every stack of layers; return how many each stands for, by path and by parameter."""
    import torch

    times: dict[str, int] = {}
    stacks = [(path, module) for path, module in model.named_modules() if isinstance(module, torch.nn.ModuleList) and len(module) > 2]
    done: list[str] = []
    for path, stack in stacks:
        if any(path.startswith(f"{other}.") for other in done):
            continue
        done.append(path)
        kinds: dict[Any, list[int]] = {}
        for index, layer in enumerate(stack):
            kinds.setdefault(_layer_kind(layer), []).append(index)
        if len(kinds) == len(stack):
            continue
        kept = sorted(indices[0] for indices in kinds.values())
        parent_path, _, attribute = path.rpartition(".")
        parent = model.get_submodule(parent_path) if parent_path else model
        setattr(parent, attribute, torch.nn.ModuleList([stack[index] for index in kept]))
        for place, index in enumerate(kept):
            times[f"{path}.{place}"] = next(len(indices) for indices in kinds.values() if indices[0] == index)
        _keep_layer_types(parent, len(stack), kept)
    copies = {name: times[prefix] for name, _ in model.named_parameters() for prefix in times if name.startswith(f"{prefix}.")}
    return times, copies


def _layer_kind(layer: Any) -> tuple[Any, ...]:
    """What a layer is: classes, parameter shapes and plain attributes of all its modules, less its place in the stack."""
    parts: list[Any] = []
    for path, module in layer.named_modules():
        plain = tuple(
            sorted(
                (key, repr(value))
                for key, value in vars(module).items()
                if key not in _PLACE and not key.startswith("_") and isinstance(value, (int, float, str, bool, type(None)))
            )
        )
        parts.append((path, type(module).__name__, plain))
    parts.extend((name, tuple(value.shape)) for name, value in layer.named_parameters())
    return tuple(parts)


def _keep_layer_types(parent: Any, count: int, kept: list[int]) -> None:
    """Shorten per-layer lists of the configuration that the forward pass walks beside the layers."""
    config = getattr(parent, "config", None)
    for key, value in list(vars(config).items()) if config is not None else []:
        if isinstance(value, list) and len(value) == count and count > 2:
            setattr(config, key, [value[index] for index in kept])
