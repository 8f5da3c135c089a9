"""Workloads by name or by file: a named model, a bundled mix, config.json, ONNX, or a TOML record of one's own."""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workloads.errors import WorkloadError, require_field, shorten, unknown_name
from workloads.families import builder
from workloads.family import Builder, Family
from workloads.mix import family_from_mix

# Short names that people type, and the record each stands for.
ALIASES = {"bert": "bert-base", "minilm": "minilm-l6", "xmc": "xmc-wordnet"}
MAX_TOML_BYTES = 2**20
CHECKPOINT = "knobs:"
"""Before a folder whose dimensions are knobs."""


def names() -> tuple[str, ...]:
    """Names of all models of the library, in order."""
    return _folder("models")


def mixes() -> tuple[str, ...]:
    """Names of the bundled mixes (several models or phases in one workload), in order."""
    return _folder("mixes")


def _folder(name: str) -> tuple[str, ...]:
    folder = resources.files("workloads") / name
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def load(name: str, *, bind: Mapping[str, int] | None = None, strict: bool = False) -> Family:
    """Return the family of a named model (``bert`` is ``bert-base``), a bundled mix, or a file.

    Files: ``.onnx`` (``bind`` gives sizes to its dynamic axes), ``config.json`` of a Hugging Face model or the folder that
    holds one, ``.toml`` with a model record or a mix. ``knobs:FOLDER`` is a checkpoint whose dimensions are knobs. ``strict``: operations
    of an imported graph that are not understood are an error. Raises WorkloadError, naming the nearest name, or the file and its field.
    """
    if name.startswith(CHECKPOINT):
        # Start-up: readers of files walk graphs, and a model of the library needs none of them.
        from workloads.importers.checkpoint import family_from_checkpoint

        return family_from_checkpoint(name.removeprefix(CHECKPOINT), family_from_record)
    if is_path(name):
        return _load_file(Path(name), bind or {}, strict)
    if name in _given:
        return _given[name]
    if bind:
        raise WorkloadError(f"bind is given for workload {shorten(name)!r}, must be left out except for an ONNX file")
    return _load_name(name)


_given: dict[str, Family] = {}


def register(family: Family) -> str:
    """Make a workload of your own known in this process by its name, which is returned; a name of the library cannot be taken over."""
    if family.name in (*names(), *mixes(), *ALIASES):
        raise WorkloadError(f"workload {family.name!r} is one of the library; give yours another name")
    _given[family.name] = family
    return family.name


def is_known(name: str) -> bool:
    """Whether a name is of the library, or was made known in this process."""
    return name in _given or name in (*names(), *mixes(), *ALIASES)


@functools.cache
def _load_name(name: str) -> Family:
    record_name = ALIASES.get(name, name)
    for folder, known in (("models", names()), ("mixes", mixes())):
        if record_name in known:
            text = (resources.files("workloads") / folder / f"{record_name}.toml").read_text(encoding="utf-8")
            return _from_toml(tomllib.loads(text), f"{record_name}.toml", None)
    raise unknown_name("workload", name, (*names(), *mixes(), *ALIASES))


def is_path(name: str) -> bool:
    """Whether ``load`` takes a word for a file or folder, not for a known name."""
    if name.startswith(CHECKPOINT):
        return False
    return name.endswith((".onnx", ".json", ".toml")) or os.sep in name or "/" in name


def _load_file(path: Path, bind: Mapping[str, int], strict: bool) -> Family:
    try:
        state = path.stat()
    except OSError:
        raise WorkloadError(f"workload file {str(path)!r} does not exist; a workload is a name, an .onnx, .json or .toml file") from None
    return _load_file_once(path, state.st_mtime_ns, state.st_size, tuple(sorted(bind.items())), strict)


@functools.lru_cache(maxsize=16)
def _load_file_once(path: Path, changed: int, size: int, bind: tuple[tuple[str, int], ...], strict: bool) -> Family:
    """Load a file; the same file, unchanged, is loaded (and, as a graph, walked) once."""
    if path.suffix == ".onnx":
        # Start-up: as in `load`.
        from workloads.importers.onnx.family import family_from_onnx

        return family_from_onnx(path, dict(bind), strict=strict)
    if bind:
        raise WorkloadError(f"bind is given for {str(path)!r}, must be left out except for an ONNX file")
    if path.suffix == ".toml":
        return _from_toml(_read_toml(path), str(path), path.parent)
    if path.suffix == ".json" or path.is_dir():
        # Start-up: as in `load`.
        from workloads.importers.huggingface import family_from_config

        return family_from_config(path, strict=strict)
    raise WorkloadError(f"workload file {str(path)!r} has the suffix {path.suffix!r}, must be .onnx, .json or .toml")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_TOML_BYTES + 1)
        if len(raw) > MAX_TOML_BYTES:
            raise WorkloadError(f"{path} is larger than {MAX_TOML_BYTES} bytes, which no workload file is")
        return tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        raise WorkloadError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # also bytes that are no text, and numbers of thousands of digits
        raise WorkloadError(f"{path} is not a TOML file: {shorten(str(error))}") from error


def _from_toml(record: dict[str, Any], where: str, folder: Path | None) -> Family:
    if "part" in record:
        return family_from_mix(record, where, folder, load)
    return family_from_record(record, where)


def family_from_record(record: Mapping[str, Any], where: str) -> Family:
    """Build a family from a parsed model record; ``where`` names it in errors."""
    required: tuple[tuple[str, type], ...] = (("name", str), ("family", str), ("dimensions", dict))
    for name, kind in required:
        require_field(record, name, kind, where)
    optional: tuple[tuple[str, type], ...] = (
        *(("defaults", dict), ("published", dict), ("sources", dict)),
        *(("quality_metrics", list), ("model_spaces", list), ("note", str)),
    )
    for name, kind in optional:
        require_field(record, name, kind, where, optional=True)
    chosen = builder(record["family"])
    settings = [name for name, knob in chosen.knobs.items() if knob.setting]
    _check_fields(record, [*(name for name, _ in required), *(name for name, _ in optional)], chosen, settings, where)
    dimensions = {
        name: _checked(value, name, chosen.defaults, where)
        for name, value in record["dimensions"].items()
        if _known(name, [*chosen.knobs, *chosen.defaults], f"{where}: field of dimensions")
    }
    given = {name: value for name, value in record.get("defaults", {}).items() if _known(name, settings, f"{where}: field of defaults")}
    for name, value in given.items():
        if isinstance(value, (list, dict)):
            raise WorkloadError(f"{where}: field {name!r} of defaults is {shorten(value)!r}, must be one value")
    for name in (*dimensions, *given):
        if name in chosen.knobs and not _absent(value := {**dimensions, **given}[name], name, chosen.defaults):
            chosen.knobs[name].check(value, where)
    for name, knob in chosen.knobs.items():
        if not knob.setting and name not in dimensions and name not in chosen.defaults:
            raise WorkloadError(f"{where}: field {name!r} of dimensions is missing ({knob.description})")
    return Family(
        name=record["name"],
        builder=chosen,
        dimensions=MappingProxyType(dimensions),
        defaults=MappingProxyType({**{name: chosen.defaults[name] for name in settings}, **_fitting(chosen, dimensions, given), **given}),
        published=MappingProxyType(record.get("published", {})),
        sources=MappingProxyType(record.get("sources", {})),
        quality_metrics=tuple(record.get("quality_metrics", ())),
        note=record.get("note", ""),
        model_spaces=tuple(
            space for space in record.get("model_spaces", ()) if _known(space, list(chosen.grids), f"{where}: entry of model_spaces")
        ),
    )


def _check_fields(record: Mapping[str, Any], fields: list[str], chosen: Builder, settings: list[str], where: str) -> None:
    """What a record says beyond its fields would be passed over: an error, with the table that it belongs into where there is one."""
    for name in record:
        if name in fields:
            continue
        table = "defaults" if name in settings else "dimensions" if name in (*chosen.knobs, *chosen.defaults) else ""
        if table:
            raise WorkloadError(f"{where}: field {name!r} stands outside of the tables, must be in [{table}]")
        if name == "settings":  # what hardware files call it, and too far from its name here to be found by spelling
            raise WorkloadError(f"{where}: field is 'settings', must be one of {', '.join(sorted(fields))}; nearest is 'defaults'")
        raise unknown_name(f"{where}: field", name, fields)


def _fitting(chosen: Builder, dimensions: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, int]:
    """Lengths that a record does not state, where the builder's own are longer than the model's positions."""
    positions, own = dimensions.get("positions"), {**chosen.defaults, **given}
    if not isinstance(positions, int) or "positions" not in chosen.knobs or not isinstance(own.get("sequence"), int):
        return {}
    found: dict[str, int] = {}
    tokens = 0
    if own.get("phase") == "generate" and isinstance(own.get("new_tokens"), int):
        tokens = own["new_tokens"]
        if "new_tokens" not in given and own["sequence"] + tokens > positions:
            room = positions - own["sequence"] if "sequence" in given else positions // 2
            found["new_tokens"] = tokens = min(tokens, max(1, room))
    if "sequence" not in given:
        found["sequence"] = min(own["sequence"], max(1, positions - tokens))
    return found


def _known(name: str, allowed: list[str], what: str) -> bool:
    if name not in allowed:
        raise unknown_name(what, name, allowed)
    return True


def _absent(value: Any, name: str, defaults: Mapping[str, Any]) -> bool:
    """Whether a dimension has the value that means that the model has no such thing."""
    return isinstance(value, int) and value == 0 and defaults.get(name) == 0


def _checked(value: Any, name: str, defaults: Mapping[str, Any], where: str) -> Any:
    """A dimension of the type that the builder's default has."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        expected = bool if isinstance(defaults.get(name), bool) else int
        if not (isinstance(value, bool) and expected is bool):
            raise WorkloadError(f"{where}: field {name!r} is {shorten(value)!r}, must be a {_kind_name(expected)}")
        return value
    default = defaults.get(name, 0)
    if isinstance(default, (bool, str)) and not isinstance(value, type(default)):
        raise WorkloadError(f"{where}: field {name!r} is {shorten(value)!r}, must be a {_kind_name(type(default))}")
    if isinstance(default, int) and not isinstance(default, bool) and (isinstance(value, str) or not 0 <= value <= 2**40):
        raise WorkloadError(f"{where}: field {name!r} is {shorten(value)!r}, must be a whole number from 0 to {2**40}")
    return value


def _kind_name(kind: type) -> str:
    return {str: "text", dict: "table", list: "list", bool: "true or false", int: "whole number"}.get(kind, kind.__name__)
