"""``config.json`` as data: read, bounded, its numbers checked before anything is built from them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from workloads.errors import WorkloadError, shorten

MAX_CONFIG_BYTES = 4 * 2**20
MAX_LAYERS = 1024
MAX_SIZE = 2**28


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
        _check_number(value, file, field)


_SIZES = ("size", "dim", "heads", "experts", "vocab", "position", "n_embd")
_LAYERS = re.compile(r"(^|_)layers?$|^depth$|^num_blocks$")
_LAYER = re.compile(r"(^|_)layer$")


def _check_number(value: float, file: str, field: str) -> None:
    name = field.rsplit(".", 1)[-1]
    layers = isinstance(value, int) and _LAYERS.search(name) is not None
    # "vision_feature_layer": -2 is a layer from the end; a number of layers is not negative.
    index = layers and (_LAYER.search(name) is not None or "feature" in name) and not name.startswith(("num_", "n_"))
    limit = MAX_LAYERS if layers else MAX_SIZE
    low = -limit if index else -1
    sized = layers or any(part in name for part in _SIZES)
    # An infinity is a limit that does not bind (the step size of a Mamba), a whole number beyond 64 bits is a mistake.
    wrong = math.isnan(value) if isinstance(value, float) else abs(value) > 2**63
    if wrong or (sized and not low <= value <= limit):
        raise WorkloadError(f"{file}: field {field!r} is {shorten(value)}, must be a number from {low if index else 0} to {limit}")
