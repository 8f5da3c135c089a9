"""Mixes: a TOML file that puts several models, or several kinds of request, together with weights.

    name = "assistant"
    [requests]
    rate_per_s = 2.0                # arrivals
    deadline_s = 5.0                # a request must end by then
    duty = 0.5                      # share of the time in which requests arrive
    [[part]]
    name = "chat"
    workload = "llama3-8b"          # a named model, or a file beside this one
    weight = 0.7                    # share of the requests
    [part.set]                      # knobs of the model
    sequence = 2048
    new_tokens = 128

One request of the mix is the average over its parts: phase runs are weighted, parameters of a model that several parts use
count once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from workloads.errors import WorkloadError, is_number, require_field, shorten, unknown_name
from workloads.family import Builder, Family
from workloads.knobs import Knob
from workloads.ops import OperationTable
from workloads.records import LeftOut, Phase, Workload

_FIELDS = ("name", "note", "sources", "requests", "part", "quality_metrics")
_PART_FIELDS = ("name", "workload", "weight", "set", "bind")
REQUEST_FIELDS = {
    "rate_per_s": (0.0, 1e9, "requests that arrive in a second"),
    "deadline_s": (0.0, 1e9, "seconds until a request must have ended"),
    "duty": (0.0, 1.0, "share of the time in which requests arrive"),
}
MAX_PARTS = 64
# Settings that a mix passes on to every part that has them.
_SHARED = ("batch", "weight_bits", "activation_bits", "kv_bits", "fused_attention")


Load = Callable[..., Family]
"""``load(name, bind=...)`` of the library, handed in: the library reads mixes, so that a mix cannot import it."""


@dataclass(frozen=True)
class Part:
    """One share of a mix: a family, the knobs that are set, its share of the requests."""

    name: str
    family: Family
    weight: float
    knobs: Mapping[str, Any]


def family_from_mix(record: Mapping[str, Any], where: str, folder: Path | None, load: Load) -> Family:
    """Return the family of a mix; ``load`` gives the family of a part. Its knobs are settings for every part that has them.

    Raises WorkloadError that names ``where`` and the field.
    """
    for name in record:
        if name not in _FIELDS:
            raise unknown_name(f"{where}: field", name, _FIELDS)
    title = record.get("name", Path(where).stem)
    if not isinstance(title, str) or not title or not title.isprintable():
        raise WorkloadError(f"{where}: field 'name' is {shorten(title)!r}, must be a text")
    for name, kind in (("quality_metrics", list), ("sources", dict), ("note", str)):
        require_field(record, name, kind, where, optional=True)
    requests = _requests(record.get("requests", {}), where)
    parts = _parts(record["part"], where, folder, load)

    knobs: dict[str, Knob] = {}
    for part in parts:
        knobs |= {name: part.family.knobs[name] for name in _SHARED if name in part.family.knobs}

    def phases(values: Mapping[str, Any]) -> Workload:
        given = {name: values[name] for name in knobs if values.get(name) is not None}
        return build_mix(title, parts, requests, given)

    def check(values: dict[str, Any], given: frozenset[str], model: str) -> None:
        """The parts check their own values when they are built."""

    def ends(values: Mapping[str, Any]) -> float:
        return requests["deadline_s"]

    return Family(
        name=title,
        builder=Builder(
            name="mix",
            knobs=knobs,
            defaults=dict.fromkeys(knobs),
            check=check,
            phases=phases,
            rate_per_s=requests.get("rate_per_s"),
            deadline_s=ends if "deadline_s" in requests else None,
        ),
        dimensions={},
        defaults={},
        quality_metrics=tuple(record.get("quality_metrics", ())),
        sources=MappingProxyType(dict(record.get("sources", {}))),
        note=record.get("note", ""),
    )


def build_mix(title: str, parts: tuple[Part, ...], requests: Mapping[str, float], given: Mapping[str, Any]) -> Workload:
    """Return the workload of a mix, the settings ``given`` passed to all parts that have them."""
    phases: list[Phase] = []
    left_out: list[LeftOut] = []
    assumptions: dict[str, None] = {}
    models: dict[Any, str] = {}
    dimensions: dict[str, Any] = {}
    for part in parts:
        passed = {name: value for name, value in given.items() if name in part.family.knobs and name not in part.knobs}
        workload = part.family.build(**part.knobs, **passed)
        owner = models.setdefault(_identity(part.family, workload), f"{part.family.name}#{len(models)}")
        phases += [_as_part(phase, part, owner) for phase in workload.phases]
        left_out += [replace(item, operation=f"{part.name}.{item.operation}") for item in workload.left_out]
        assumptions |= dict.fromkeys(f"{part.name}: {sentence}" for sentence in workload.assumptions)
        dimensions |= {f"{part.name}.{name}": value for name, value in workload.dimensions.items()}
        dimensions[f"{part.name}.weight"] = part.weight
    return Workload(
        name=title,
        family="mix",
        phases=tuple(phases),
        dimensions=MappingProxyType(dimensions),
        requests=requests,
        left_out=tuple(left_out),
        assumptions=tuple(assumptions),
    )


def _identity(family: Family, workload: Workload) -> tuple[Any, ...]:
    """What makes two parts the same model: its name and dimensions, not how it is run."""
    fixed = sorted(
        (name, repr(value))
        for name, value in workload.dimensions.items()
        if name == "weight_bits" or name not in family.knobs or not family.knobs[name].setting
    )
    return (family.name, *fixed)


def _as_part(phase: Phase, part: Part, owner: str) -> Phase:
    prefixed = np.array([f"{owner}:{name}" if name else "" for name in phase.table.weight_id])
    columns = {item: getattr(phase.table, item) for item in phase.table.__dataclass_fields__}
    return replace(
        phase,
        name=f"{part.name}.{phase.name}",
        table=OperationTable(**{**columns, "weight_id": prefixed}),
        runs=phase.runs * part.weight,
        after=tuple(f"{part.name}.{name}" for name in phase.after),
    )


def _requests(record: Any, where: str) -> Mapping[str, float]:
    if not isinstance(record, dict):
        raise WorkloadError(f"{where}: field 'requests' is {shorten(record)!r}, must be a table")
    for name, value in record.items():
        if name not in REQUEST_FIELDS:
            raise unknown_name(f"{where}: field of requests", name, REQUEST_FIELDS)
        low, high, meaning = REQUEST_FIELDS[name]
        if not is_number(value) or not low < value <= high:
            raise WorkloadError(
                f"{where}: field {name!r} of requests is {shorten(value)!r}, must be above 0 and at most {high:g} ({meaning})"
            )
    return MappingProxyType({name: float(value) for name, value in record.items()})


def _parts(records: Any, where: str, folder: Path | None, load: Load) -> tuple[Part, ...]:
    if not isinstance(records, list) or not 1 <= len(records) <= MAX_PARTS:
        raise WorkloadError(f"{where}: field 'part' must be a list of 1 to {MAX_PARTS} tables, written [[part]]")
    parts = [_part(record, index, where, folder, load) for index, record in enumerate(records)]
    seen: set[str] = set()
    for part in parts:
        if part.name in seen:
            raise WorkloadError(f"{where}: part name {part.name!r} occurs twice, must be unique")
        seen.add(part.name)
    total = sum(part.weight for part in parts)
    return tuple(replace(part, weight=part.weight / total) for part in parts)


def _part(record: Any, index: int, where: str, folder: Path | None, load: Load) -> Part:
    place = f"{where}: part {index + 1}"
    if not isinstance(record, dict):
        raise WorkloadError(f"{place} is {shorten(record)!r}, must be a table")
    for name in record:
        if name not in _PART_FIELDS:
            raise unknown_name(f"{place}: field", name, _PART_FIELDS)
    workload, weight = record.get("workload"), record.get("weight", 1.0)
    if not isinstance(workload, str):
        raise WorkloadError(f"{place}: field 'workload' is {shorten(workload)!r}, must be the name of a workload")
    if not is_number(weight) or not 0 < weight <= 1e9:
        raise WorkloadError(f"{place}: field 'weight' is {shorten(weight)!r}, must be a number above 0")
    knobs, bind = record.get("set", {}), record.get("bind", {})
    if not isinstance(knobs, dict) or not isinstance(bind, dict):
        raise WorkloadError(f"{place}: fields 'set' and 'bind' must be tables")
    for key, value in (*knobs.items(), *bind.items()):
        if isinstance(value, (list, dict)):
            raise WorkloadError(f"{place}: {key!r} is {shorten(value)!r}, must be one value")
    name = record.get("name", f"part{index + 1}")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise WorkloadError(f"{place}: field 'name' is {shorten(name)!r}, must be a text")
    target = workload
    if workload.endswith((".onnx", ".json", ".toml")):
        if workload.endswith(".toml") and folder is not None and (folder / workload).resolve() == Path(where).resolve():
            raise WorkloadError(f"{place}: field 'workload' is the file itself, must be another workload")
        target = str((folder / workload) if folder is not None else workload)
    family = load(target, bind=bind or None)
    if family.family == "mix":
        raise WorkloadError(f"{place}: field 'workload' is {shorten(workload)!r}, which is a mix itself; must be a model")
    family.values(**knobs)
    return Part(name, family, float(weight), MappingProxyType(knobs))
