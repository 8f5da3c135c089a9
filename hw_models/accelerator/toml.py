"""Accelerator files: TOML in and out, every field checked, every error naming file, field and remedy.

This module knows the form of a file and takes the fields from the records themselves. `hw_models.spaces.files` reads files that
describe spaces.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hw_models.accelerator.fields import Choice, Rule, choices, required, rules
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.technology.profiles import profiles
from hw_models.technology.tables import ACCESS_BYTES, dram_types

CAPACITIES = {"bytes": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
BOTH_BANDWIDTHS = "words_per_cycle"
BANDWIDTHS = (BOTH_BANDWIDTHS, "read_words_per_cycle", "write_words_per_cycle")
DRAM_GB_PER_S = "dram_gb_per_s"
"""Bandwidth of the DRAM as its data sheet has it (1e9 bytes a second, either way), in place of the last level's words a cycle."""
DRAM_RULE = Rule(False, 1e-3, 1e6, "GB/s")


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
    except (ValueError, RecursionError) as error:  # TOML and UTF-8 errors are ValueErrors, and so is an integer of 5,000 digits
        raise HardwareError(f"accelerator file {str(path)!r} is not valid TOML: {error}") from None


@dataclass(frozen=True)
class Form:
    """The form of a file that holds one accelerator: made once, of the record and of its levels.

    Attributes:
        record, level: the dataclasses; their fields carry the rules.
    """

    record: type
    level: type
    numbers: dict[str, Rule] = field(init=False)
    level_numbers: dict[str, Rule] = field(init=False)
    named: dict[str, Choice] = field(init=False)
    level_fields: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", rules(self.record))
        object.__setattr__(self, "level_numbers", rules(self.level))
        object.__setattr__(self, "named", choices(self.record))
        known = [f.name for f in fields(self.level)]
        object.__setattr__(self, "level_fields", tuple(dict.fromkeys([*known, BOTH_BANDWIDTHS, *CAPACITIES])))

    @property
    def texts(self) -> tuple[str, ...]:
        """Fields that hold text, enumerated ones included."""
        plain = [f.name for f in fields(self.record) if "rule" not in f.metadata and f.name not in (*self.named, "levels")]
        return (*plain, *self.named)

    @property
    def tables(self) -> dict[str, dict[str, str]]:
        """{table of the file: {name there: field}}."""
        found: dict[str, dict[str, str]] = {}
        both: dict[str, Rule | Choice] = {**self.named, **self.numbers}
        for name, what in both.items():
            if what.table is not None:
                found.setdefault(what.table[0], {})[what.table[1]] = name
        return found

    def flatten(self, document: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Fields of the file by their flat names; levels with one name for capacity and two for bandwidth."""
        tables, allowed = self.tables, [*self.texts, *self.numbers, DRAM_GB_PER_S]
        flat: dict[str, Any] = {}
        for key, value in document.items():
            if key == "levels":
                continue
            if key in tables:
                if not isinstance(value, Mapping):
                    raise bad_value(key, value, f"a table with {', '.join(tables[key])}", where=where)
                for inner, item in value.items():
                    if inner not in tables[key]:
                        raise unknown_name(f"field of [{key}]", inner, tables[key], where=where)
                    flat[tables[key][inner]] = item
            elif key in allowed:
                flat[key] = value
            else:
                raise unknown_name("field", key, (*allowed, *tables, "levels"), where=where)
        levels = document.get("levels")
        if not isinstance(levels, list) or not levels or not all(isinstance(level, Mapping) for level in levels):
            raise HardwareError(f"{where}: levels is missing: give one [[levels]] table a memory level, innermost first, the DRAM last")
        last = levels[-1]
        if DRAM_GB_PER_S in last:  # in the DRAM's own table it says the same
            if DRAM_GB_PER_S in flat:
                raise HardwareError(f"{where}: {DRAM_GB_PER_S} is given twice, at the top and in the last level: give one of them")
            flat[DRAM_GB_PER_S] = last[DRAM_GB_PER_S]
            levels = [*levels[:-1], {name: value for name, value in last.items() if name != DRAM_GB_PER_S}]
        both = [name for name in BANDWIDTHS if name in last]
        if DRAM_GB_PER_S in flat and both:
            raise HardwareError(f"{where}: {DRAM_GB_PER_S} and {both[0]} of the last level are both given: give one of them")
        return flat, [self._flat_level(i, level, where) for i, level in enumerate(levels)]

    @staticmethod
    def lists(flat: Mapping[str, Any], levels: list[dict[str, Any]]) -> dict[str, list[Any]]:
        """Fields that hold lists, those of a level with its name before them: the knobs of a space."""
        found = {name: value for name, value in flat.items() if isinstance(value, list)}
        for level in levels:
            found |= {f"{level['name']}_{key}": value for key, value in level.items() if isinstance(value, list)}
        return found

    def _flat_level(self, i: int, level: Mapping[str, Any], where: str) -> dict[str, Any]:
        found = dict(level)
        label = f"levels.{found.get('name', i)}"
        for key in found:
            if key not in self.level_fields:
                raise unknown_name(f"field of {label}", key, self.level_fields, where=where)
        if not isinstance(found.get("name"), str) or not found["name"]:
            raise HardwareError(f"{where}: levels[{i}].name is missing: give each level a name such as l2, glb or dram")
        given = [key for key in CAPACITIES if key in found]
        if len(given) != 1:
            raise HardwareError(f"{where}: {label} needs exactly one of {', '.join(CAPACITIES)}, got {', '.join(given) or 'none'}")
        factor = CAPACITIES[given[0]]
        if factor != 1:
            raw = found.pop(given[0])
            rule = Rule(False, 0, 2**50 / factor, given[0])
            sizes = [rule.check(f"{label}.{given[0]}", v, where) * factor for v in (raw if isinstance(raw, list) else [raw])]
            sizes = [int(size) if size == int(size) else size for size in sizes]  # a knob of whole bytes is told as such
            found["bytes"] = sizes if isinstance(raw, list) else sizes[0]
        if BOTH_BANDWIDTHS in found:
            if "read_words_per_cycle" in found or "write_words_per_cycle" in found:
                raise HardwareError(f"{where}: {label} gives words_per_cycle and also a read or write bandwidth: give one or the other")
            if not isinstance(found[BOTH_BANDWIDTHS], list):
                both = found.pop(BOTH_BANDWIDTHS)
                found["read_words_per_cycle"] = found["write_words_per_cycle"] = both
        return found

    def values(self, flat: Mapping[str, Any], levels: list[dict[str, Any]], where: str) -> dict[str, Any]:
        """Arguments of the record from the flat fields of one design, each checked."""
        values: dict[str, Any] = {}
        needed = required(self.record)
        levels = self._with_dram_words(flat, levels, where)
        for name, rule in self.numbers.items():
            if name in flat:
                values[name] = rule.check(name, flat[name], where)
            elif name in needed:
                raise HardwareError(f"{where}: {'.'.join(rule.table) if rule.table else name} is missing: give {rule}")
        for name, rule in self.numbers.items():
            if rule.like and name not in values:
                values[name] = values.get(rule.like, rule.otherwise)
        defaults = {f.name: f.default for f in fields(self.record)}
        for name, what in self.named.items():
            if name not in flat and what.needed:
                raise HardwareError(f"{where}: {'.'.join(what.table)} is missing: give one of {', '.join(what.names)}")
            text = flat.get(name)
            if text is None:
                values[name] = defaults[name]
                continue
            if not isinstance(text, str) or text not in what.names:
                raise unknown_name(name, text, what.names, where=where)
            values[name] = what.names[text]
        profile = flat.get("profile", "default")
        if not isinstance(profile, str) or profile not in profiles():
            raise unknown_name("profile", profile, profiles(), where=where)
        name = str(flat.get("name", Path(where).stem))
        return values | {
            "name": name,
            "profile": profile,
            "source": str(flat.get("source", "")),
            "levels": tuple(self.level(**self._level_values(level, where)) for level in levels),
        }

    def _with_dram_words(self, flat: Mapping[str, Any], levels: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
        """The levels with the DRAM's gigabytes a second as words a cycle, which depend on the clock and the width of a word."""
        if DRAM_GB_PER_S not in flat or "frequency_hz" not in flat:  # a missing clock is told with the other fields
            return levels
        rate = DRAM_RULE.check(DRAM_GB_PER_S, flat[DRAM_GB_PER_S], where)
        word = {f.name: f.default for f in fields(self.record)}["word_bits"]
        clock, bits = (self.numbers[name].check(name, flat.get(name, word), where) for name in ("frequency_hz", "word_bits"))
        words = rate * 1e9 * 8 / bits / clock
        return [*levels[:-1], {**levels[-1], "read_words_per_cycle": words, "write_words_per_cycle": words}]

    def _level_values(self, found: Mapping[str, Any], where: str) -> dict[str, Any]:
        label = f"levels.{found['name']}"
        values: dict[str, Any] = {"name": found["name"]}
        needed = required(self.level)
        for name, rule in self.level_numbers.items():
            if name in found:
                values[name] = rule.check(f"{label}.{name}", found[name], where)
            elif name in needed:
                instead = f", or {DRAM_GB_PER_S} where it is the DRAM" if name in BANDWIDTHS else ""
                raise HardwareError(f"{where}: {label}.{name} is missing: give {rule}{instead}")
        for f in fields(self.level):
            if isinstance(f.default, bool):
                value = found.get(f.name, f.default)
                if not isinstance(value, bool):
                    raise bad_value(f"{label}.{f.name}", value, "true or false", where=where)
                values[f.name] = value
        access = found.get("access_bytes", 4)
        if access not in ACCESS_BYTES:
            raise bad_value(f"{label}.access_bytes", access, f"one of {', '.join(map(str, ACCESS_BYTES))}", closest=4, where=where)
        values["access_bytes"] = access
        kind = found.get("kind", "sram")
        if not isinstance(kind, str) or (kind != "sram" and kind not in dram_types()):
            raise unknown_name(f"{label}.kind", kind, ("sram", *dram_types()), where=where)
        values["kind"] = kind
        return values

    def text(self, a: Any) -> str:
        """TOML text of a design that reads back equal; fields at their default of None or of a single chip are left out."""
        lines = [f"name = {quote(a.name)}", f"profile = {quote(a.profile)}"]
        if a.source:
            lines.append(f"source = {quote(a.source)}")
        defaults = {f.name: f.default for f in fields(self.record)}
        # A single chip without links is the usual case and says nothing of them.
        shared = (
            "link_",
            "chips",
            "node_chips",
            "node_bytes",
            "node_latency",
            "pipeline_",
            "data_parallel",
            "microbatches",
            "expert_parallel",
        )
        silent = {name for name in self.numbers if name.startswith(shared) and getattr(a, name) == defaults[name]}
        lines += [
            f"{name} = {quote(getattr(a, name))}"
            for name, rule in self.numbers.items()
            if rule.table is None and name not in silent and getattr(a, name) is not None
        ]
        for table, inside in self.tables.items():
            if table in ("execution", "calibration") and all(getattr(a, name) == defaults[name] for name in inside.values()):
                continue  # a mapped design, costed by the tables, or one without measurements: the usual case says nothing of it
            lines += ["", f"[{table}]"]
            for name in sorted(inside, key=lambda n: _ORDER.get(inside[n], 0)):
                value = getattr(a, inside[name])
                if inside[name] in _QUIET and value == defaults[inside[name]]:
                    continue
                lines.append(f"{name} = {quote(value.name.lower() if inside[name] in self.named else value)}")
        for level in a.levels:
            lines += ["", "[[levels]]", f"name = {quote(level.name)}", f"kind = {quote(level.kind)}"]
            lines += [f"{name} = {quote(getattr(level, name))}" for name in self.level_numbers if getattr(level, name) is not None]
            flags = [f.name for f in fields(self.level) if isinstance(f.default, bool)]
            lines += [
                f"{name} = {quote(getattr(level, name))}" for name in (*flags, "access_bytes") if name not in _QUIET or getattr(level, name)
            ]
        return "\n".join(lines) + "\n"


# The order in which the fields of [array] stand in a file that is written: the size of the array, then what it does.
_ORDER = {"array_rows": 0, "array_columns": 1, "array_kind": 2, "dataflow": 3, "register_bytes": 4, "adder_tree": 5}
# Fields of a table that are written only where they are not at their default.
_QUIET = ("adder_tree", "shared_bus")


def quote(value: object) -> str:
    """``value`` as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
