"""Accelerator files: TOML in and out, every field checked, every error naming file, field and remedy.

A file describes one design (fields with one value each), a space (some number fields hold lists: they become knobs),
or a space of a shipped template (`template = "edge22"` with `[knobs]` and `[settings]`). See docs/models/hardware.md
for the fields.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hw_models.accelerator import LINKS, Accelerator, AcceleratorBatch, ArrayKind, Dataflow, MemoryLevel
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.profiles import profiles
from hw_models.technology import ACCESS_BYTES, NODE_RANGE_NM, dram_types

if TYPE_CHECKING:
    from hw_models.templates import Template


@dataclass(frozen=True)
class Rule:
    """What a number field accepts."""

    whole: bool
    low: float
    high: float
    unit: str

    def __str__(self) -> str:
        number = "a whole number" if self.whole else "a number"
        return f"{number} from {self.low:g} to {self.high:g} {self.unit}".rstrip()

    def check(self, field: str, value: object, where: str) -> int | float:
        """``value`` as a number, or the error that says what would do."""
        allowed = str(self)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise bad_value(field, value, allowed, where=where)
        if self.whole and (not math.isfinite(value) or value != int(value)):
            raise bad_value(field, value, allowed, where=where)
        if not self.low <= value <= self.high:
            closest = min(max(value, self.low), self.high) if not math.isnan(value) else self.low
            raise bad_value(field, value, allowed, closest=f"{closest:g}", where=where)
        return int(value) if self.whole else value


# The upper ends are far beyond anything built (a wafer holds under 10^6 cores, SRAM under 10^11 bytes): a value above
# is a slip of units.
NUMBERS: dict[str, Rule] = {
    "cores": Rule(True, 1, 1_000_000, ""),
    "array_rows": Rule(True, 1, 65_536, ""),
    "array_columns": Rule(True, 1, 65_536, ""),
    "register_bytes": Rule(True, 0, 2**20, "bytes"),
    "vector_lanes": Rule(True, 1, 2**30, "lanes over all cores"),
    "vector_buffer_bytes": Rule(True, 0, 2**30, "bytes a core"),
    "frequency_hz": Rule(False, 1e4, 2e10, "Hz"),
    "voltage_v": Rule(False, 0.2, 5.0, "V"),
    "nominal_v": Rule(False, 0.2, 5.0, "V"),
    "node_nm": Rule(False, *NODE_RANGE_NM, "nm"),
    "word_bits": Rule(True, 1, 64, "bits"),
    "mac_bits": Rule(True, 1, 64, "bits"),
    "weight_bits": Rule(True, 0, 64, "bits (0: the workload's own)"),
    "activation_bits": Rule(True, 0, 64, "bits (0: the workload's own)"),
    "kv_bits": Rule(True, 0, 64, "bits (0: the workload's own)"),
    "mac_pj": Rule(False, 1e-6, 1e6, "pJ"),
    "area_mm2": Rule(False, 1e-6, 1e6, "mm2"),
    "leakage_w": Rule(False, 0.0, 1e5, "W"),
    "chips": Rule(True, 1, 65_536, ""),
    "link_bytes_per_s": Rule(False, 0.0, 1e14, "bytes/s"),
    "link_latency_s": Rule(False, 0.0, 1.0, "s"),
    "link_fixed_s": Rule(False, 0.0, 1.0, "s"),
    "link_pj_per_bit": Rule(False, 0.0, 1e4, "pJ/bit"),
}
LEVEL_NUMBERS: dict[str, Rule] = {
    "bytes": Rule(True, 1, 2**50, "bytes"),
    "read_words_per_cycle": Rule(False, 1e-6, 1e9, "words a cycle"),
    "write_words_per_cycle": Rule(False, 1e-6, 1e9, "words a cycle"),
    "area_bytes": Rule(True, 0, 2**50, "bytes"),
    "read_pj_per_word": Rule(False, 0.0, 1e6, "pJ"),
    "write_pj_per_word": Rule(False, 0.0, 1e6, "pJ"),
}
OPTIONAL = (
    "mac_bits",
    "weight_bits",
    "activation_bits",
    "kv_bits",
    "register_bytes",
    "vector_buffer_bytes",
    "nominal_v",
    "word_bits",
    "mac_pj",
    "area_mm2",
    "leakage_w",
    "chips",
    *LINKS,
)
SINGLE_CHIP: dict[str, float] = {"chips": 1, **dict.fromkeys(LINKS, 0.0)}
LEVEL_OPTIONAL = ("area_bytes", "read_pj_per_word", "write_pj_per_word")
TEXTS = ("name", "array_kind", "dataflow", "profile", "source")
LEVEL_FIELDS = (
    "name",
    "kind",
    "per_core",
    "shared",
    "double_buffered",
    "access_bytes",
    "words_per_cycle",
    "kib",
    "mib",
    "gib",
    *LEVEL_NUMBERS,
)


def check(a: Accelerator, where: str = "") -> None:
    """Raise HardwareError unless every field of ``a`` is in range and the levels make sense."""
    where = where or f"accelerator {a.name!r}"
    for name, rule in NUMBERS.items():
        value = getattr(a, name)
        if value is not None:
            rule.check(name, value, where)
    if a.profile not in profiles():
        raise unknown_name("profile", a.profile, profiles(), where=where)
    if not a.levels:
        raise HardwareError(f"{where}: levels is empty: give at least the DRAM, as the last level")
    for level in a.levels:
        for name, rule in LEVEL_NUMBERS.items():
            value = getattr(level, name)
            if value is not None:
                rule.check(f"levels.{level.name}.{name}", value, where)
        if level.kind != "sram" and level.kind not in dram_types():
            raise unknown_name(f"levels.{level.name}.kind", level.kind, ("sram", *dram_types()), where=where)
    if a.chips > 1 and a.link_bytes_per_s <= 0:
        allowed = f"a positive number of bytes/s where chips is {a.chips}"
        raise bad_value("link_bytes_per_s", a.link_bytes_per_s, allowed, where=where)
    names = [level.name for level in a.levels]
    if len(set(names)) != len(names):
        raise HardwareError(f"{where}: levels must have different names, got {', '.join(names)}")
    last = a.levels[-1]
    if last.kind == "sram":
        raise bad_value(
            f"levels.{last.name}.kind",
            "sram",
            f"a DRAM ({', '.join(dram_types())}): the last level is the DRAM",
            where=where,
        )
    for inner in a.levels[:-1]:
        if inner.kind != "sram":
            raise bad_value(f"levels.{inner.name}.kind", inner.kind, "sram: only the last level is a DRAM", where=where)
    for inner, outer in zip(a.levels, a.levels[1:], strict=False):
        if outer.per_core and not inner.per_core:
            raise HardwareError(f"{where}: level {outer.name} is per core but lies outside level {inner.name}, which all cores share")
        if inner.bytes > outer.bytes:
            raise bad_value(
                f"levels.{inner.name}.bytes",
                inner.bytes,
                f"no more than level {outer.name} outside it holds",
                closest=outer.bytes,
                where=where,
            )


def load_toml(path: Path) -> dict[str, Any]:
    """The parsed TOML of ``path``, or an error naming the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = f"; TOML files beside it: {', '.join(sorted(beside)[:5])}" if beside else ""
        raise HardwareError(f"accelerator file {str(path)!r} does not exist{hint}") from None
    except OSError as error:
        raise HardwareError(f"accelerator file {str(path)!r} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HardwareError(f"accelerator file {str(path)!r} is not valid TOML: {error}") from None


def read_accelerator(path: Path) -> Accelerator:
    """One design from a file; a file that describes a space is an error that says so."""
    result = read_hardware(path)
    if not isinstance(result, Accelerator):
        raise HardwareError(
            f"{path}: this file describes a space of {result.size} designs (knobs {', '.join(result.knobs)}), not one design"
        )
    return result


def read_hardware(path: Path, *, profile: str | None = None) -> Accelerator | Template:
    """One design or a space, as the file says; ``profile`` replaces the profile that it names."""
    return read_document(load_toml(path), where=str(path), profile=profile)


def read_document(document: Mapping[str, Any], *, where: str, profile: str | None = None) -> Accelerator | Template:
    """One design or a space from a parsed TOML document; ``where`` names it in errors.

    A table ``design`` is passed over: design files of a search keep the model and the metrics there, beside the
    accelerator.
    """
    document = {key: value for key, value in document.items() if key != "design"}
    if "template" in document:
        return _template_space(document, where, profile)
    flat, levels = _flatten(document, where)
    if profile is not None:
        flat["profile"] = profile
    knobs = {name: value for name, value in flat.items() if isinstance(value, list)}
    for i, level in enumerate(levels):
        knobs |= {f"{level.get('name', f'level{i}')}_{key}": value for key, value in level.items() if isinstance(value, list)}
    if not knobs:
        return _design(flat, levels, where)
    return _list_space(flat, levels, knobs, where)


def _template_space(document: Mapping[str, Any], where: str, profile: str | None) -> Template:
    from hw_models.templates import load

    for key in document:
        if key not in ("template", "name", "profile", "knobs", "settings"):
            raise unknown_name("field", key, ("template", "name", "profile", "knobs", "settings"), where=where)
    template = load(document["template"], profile=profile or document.get("profile", "default"))
    knobs, settings = dict(document.get("knobs", {})), dict(document.get("settings", {}))
    try:
        settings_only = {k: v for k, v in settings.items() if not isinstance(v, list)}
        lists = {k: v if isinstance(v, list) else [v] for k, v in knobs.items()}
        lists |= {k: v for k, v in settings.items() if isinstance(v, list)}
        if settings_only:
            template = template.with_settings(**settings_only)
        return template.with_knobs(**lists) if lists else template
    except HardwareError as error:
        raise HardwareError(f"{where}: {error}") from None


def _flatten(document: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Fields of the file by their flat names; levels with one name for capacity and two for bandwidth."""
    sections = {
        "array": {
            "rows": "array_rows",
            "columns": "array_columns",
            "kind": "array_kind",
            "dataflow": "dataflow",
            "register_bytes": "register_bytes",
        }
    }
    sections["vector"] = {"lanes": "vector_lanes", "buffer_bytes": "vector_buffer_bytes"}
    allowed = [*TEXTS, *NUMBERS]
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if key == "levels":
            continue
        if key in sections:
            if not isinstance(value, Mapping):
                raise bad_value(key, value, f"a table with {', '.join(sections[key])}", where=where)
            for inner, item in value.items():
                if inner not in sections[key]:
                    raise unknown_name(f"field of [{key}]", inner, sections[key], where=where)
                flat[sections[key][inner]] = item
        elif key in allowed:
            flat[key] = value
        else:
            raise unknown_name("field", key, (*allowed, *sections, "levels"), where=where)
    levels = document.get("levels")
    if not isinstance(levels, list) or not levels:
        raise HardwareError(f"{where}: levels is missing: give one [[levels]] table a memory level, innermost first, the DRAM last")
    return flat, [_level_fields(i, level, where) for i, level in enumerate(levels)]


def _level_fields(i: int, level: Mapping[str, Any], where: str) -> dict[str, Any]:
    fields = dict(level)
    label = f"levels.{fields.get('name', i)}"
    for key in fields:
        if key not in LEVEL_FIELDS:
            raise unknown_name(f"field of {label}", key, LEVEL_FIELDS, where=where)
    if not isinstance(fields.get("name"), str) or not fields["name"]:
        raise HardwareError(f"{where}: levels[{i}].name is missing: give each level a name such as l2, glb or dram")
    given = [key for key in ("bytes", "kib", "mib", "gib") if key in fields]
    if len(given) != 1:
        raise HardwareError(f"{where}: {label} needs exactly one of bytes, kib, mib, gib, got {', '.join(given) or 'none'}")
    factor = {"bytes": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}[given[0]]
    if factor != 1:
        raw = fields.pop(given[0])
        number = Rule(False, 0, 2**50 / factor, given[0])
        sizes = [number.check(f"{label}.{given[0]}", v, where) * factor for v in (raw if isinstance(raw, list) else [raw])]
        fields["bytes"] = sizes if isinstance(raw, list) else sizes[0]
    if "words_per_cycle" in fields:
        if "read_words_per_cycle" in fields or "write_words_per_cycle" in fields:
            raise HardwareError(f"{where}: {label} gives words_per_cycle and also a read or write bandwidth: give one or the other")
        if not isinstance(fields["words_per_cycle"], list):
            both = fields.pop("words_per_cycle")
            fields["read_words_per_cycle"] = fields["write_words_per_cycle"] = both
    return fields


def _design(flat: Mapping[str, Any], levels: list[dict[str, Any]], where: str) -> Accelerator:
    values: dict[str, Any] = {}
    for name, rule in NUMBERS.items():
        if name in flat:
            values[name] = rule.check(name, flat[name], where)
        elif name not in OPTIONAL:
            raise HardwareError(f"{where}: {name} is missing: give {rule}")
    values.setdefault("nominal_v", values["voltage_v"])
    kinds = {member.name.lower(): member for member in ArrayKind}
    flows = {member.name.lower(): member for member in Dataflow}
    for name, known, default in (("array_kind", kinds, None), ("dataflow", flows, "any")):
        text = flat.get(name, default)
        if text is None:
            raise HardwareError(f"{where}: array.kind is missing: give one of {', '.join(kinds)}")
        if text not in known:
            raise unknown_name(name, text, known, where=where)
        values[name] = known[text]
    profile = flat.get("profile", "default")
    if profile not in profiles():
        raise unknown_name("profile", profile, profiles(), where=where)
    try:
        return Accelerator(
            name=str(flat.get("name", Path(where).stem)),
            levels=tuple(_level(level, where) for level in levels),
            profile=profile,
            source=str(flat.get("source", "")),
            **values,
        )
    except HardwareError as error:
        raise error if str(error).startswith(where) else HardwareError(f"{where}: {error}") from None


def _level(fields: Mapping[str, Any], where: str) -> MemoryLevel:
    label = f"levels.{fields['name']}"
    values: dict[str, Any] = {}
    for name, rule in LEVEL_NUMBERS.items():
        if name in fields:
            values[name] = rule.check(f"{label}.{name}", fields[name], where)
        elif name not in LEVEL_OPTIONAL:
            raise HardwareError(f"{where}: {label}.{name} is missing: give {rule}")
    for name, default in (("per_core", False), ("shared", True), ("double_buffered", True)):
        value = fields.get(name, default)
        if not isinstance(value, bool):
            raise bad_value(f"{label}.{name}", value, "true or false", where=where)
        values[name] = value
    access = fields.get("access_bytes", 4)
    if access not in ACCESS_BYTES:
        raise bad_value(f"{label}.access_bytes", access, f"one of {', '.join(map(str, ACCESS_BYTES))}", closest=4, where=where)
    values["access_bytes"] = access
    kind = fields.get("kind", "sram")
    if kind != "sram" and kind not in dram_types():
        raise unknown_name(f"{label}.kind", kind, ("sram", *dram_types()), where=where)
    return MemoryLevel(name=fields["name"], kind=kind, **values)


def _list_space(flat: dict[str, Any], levels: list[dict[str, Any]], knobs: dict[str, list[Any]], where: str) -> Template:
    """A space whose knobs are the list fields; each combination is built and checked as one design would be."""
    from hw_models.templates import Columns, Template

    for name, values in knobs.items():
        if not values:
            raise HardwareError(f"{where}: {name} is an empty list: give at least one value")

    def one(chosen: Mapping[str, Any], template: Template) -> Accelerator:
        top = {k: chosen.get(k, v) for k, v in flat.items()} | {"profile": template.profile}
        inner = []
        for level in levels:
            fields = {k: chosen.get(f"{level['name']}_{k}", v) for k, v in level.items()}
            if "words_per_cycle" in fields:
                fields["read_words_per_cycle"] = fields["write_words_per_cycle"] = fields.pop("words_per_cycle")
            inner.append(fields)
        return _design(top, inner, where)

    def build(template: Template, columns: Columns, count: int) -> AcceleratorBatch:
        rows = [{name: column[i].item() for name, column in columns.items()} for i in range(count)]
        return AcceleratorBatch.of([one(row, template) for row in rows])

    template = Template(
        name=str(flat.get("name", Path(where).stem)),
        title=str(flat.get("name", Path(where).stem)),
        source=str(flat.get("source", where)),
        knobs={name: tuple(dict.fromkeys(values)) for name, values in knobs.items()},
        settings={},
        builder=build,
        profile=str(flat.get("profile", "default")),
    )
    # Every value once, the other knobs at their first: a bad value is found now, with its file, and not in the middle
    # of a search.
    first = {name: values[0] for name, values in template.knobs.items()}
    for name, choices in template.knobs.items():
        for value in choices:
            one({**first, name: value}, template)
    return template


def _quote(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def accelerator_toml(a: Accelerator) -> str:
    """TOML text of ``a`` that `read_accelerator` reads back equal."""
    lines = [f"name = {_quote(a.name)}", f"profile = {_quote(a.profile)}"]
    if a.source:
        lines.append(f"source = {_quote(a.source)}")
    skip = {"register_bytes", "array_rows", "array_columns", "vector_lanes", "vector_buffer_bytes"}
    # A single chip without links is the usual case and says nothing of them.
    skip |= {name for name, alone in SINGLE_CHIP.items() if getattr(a, name) == alone}
    for name in NUMBERS:
        value = getattr(a, name)
        if name not in skip and value is not None:
            lines.append(f"{name} = {_quote(value)}")
    lines += ["", "[array]", f"rows = {a.array_rows}", f"columns = {a.array_columns}"]
    lines += [
        f"kind = {_quote(ArrayKind(a.array_kind).name.lower())}",
        f"dataflow = {_quote(Dataflow(a.dataflow).name.lower())}",
    ]
    lines.append(f"register_bytes = {a.register_bytes}")
    lines += ["", "[vector]", f"lanes = {a.vector_lanes}", f"buffer_bytes = {a.vector_buffer_bytes}"]
    for level in a.levels:
        lines += ["", "[[levels]]", f"name = {_quote(level.name)}", f"kind = {_quote(level.kind)}"]
        for name in LEVEL_NUMBERS:
            value = getattr(level, name)
            if value is not None:
                lines.append(f"{name} = {_quote(value)}")
        lines += [f"per_core = {_quote(level.per_core)}", f"shared = {_quote(level.shared)}"]
        lines += [f"double_buffered = {_quote(level.double_buffered)}", f"access_bytes = {level.access_bytes}"]
    return "\n".join(lines) + "\n"
