"""Named models: one TOML record each in workloads/models, read when asked for."""

from __future__ import annotations

import functools
import tomllib
from importlib import resources
from types import MappingProxyType
from typing import Any

from workloads.errors import WorkloadError, unknown_name
from workloads.families import builder
from workloads.family import Family

# Short names that people type, and the record each stands for.
ALIASES = {"bert": "bert-base"}


def names() -> tuple[str, ...]:
    """Names of all models of the library, in order."""
    folder = resources.files("workloads") / "models"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


@functools.cache
def load(name: str) -> Family:
    """Return the family of a named model (``bert`` is ``bert-base``).

    Raises WorkloadError, naming the nearest model, if there is none of that name.
    """
    known = names()
    record_name = ALIASES.get(name, name)
    if record_name not in known:
        raise unknown_name("workload", name, (*known, *ALIASES))
    text = (resources.files("workloads") / "models" / f"{record_name}.toml").read_text(encoding="utf-8")
    return family_from_record(tomllib.loads(text), f"{record_name}.toml")


def family_from_record(record: dict[str, Any], where: str) -> Family:
    """Build a family from a parsed record; ``where`` names it in errors."""
    for field in ("name", "family", "dimensions"):
        if field not in record:
            raise WorkloadError(f"{where} has no field {field!r}, which every model record must have")
    chosen = builder(record["family"])
    dimensions = record["dimensions"]
    for field in dimensions:
        if field not in chosen.knobs and field not in chosen.defaults:
            raise unknown_name(f"{where}: field of dimensions", field, {**chosen.knobs, **chosen.defaults})
    settings = record.get("defaults", {})
    for field in settings:
        if field not in chosen.knobs or not chosen.knobs[field].setting:
            raise unknown_name(
                f"{where}: field of defaults", field, [knob.name for knob in chosen.knobs.values() if knob.setting]
            )
    return Family(
        name=record["name"],
        builder=chosen,
        dimensions=MappingProxyType(dimensions),
        defaults=MappingProxyType({**{k: chosen.defaults[k] for k in chosen.knobs if chosen.knobs[k].setting}, **settings}),
        published=MappingProxyType(record.get("published", {})),
        sources=MappingProxyType(record.get("sources", {})),
        quality_metrics=tuple(record.get("quality_metrics", ())),
        note=record.get("note", ""),
    )
