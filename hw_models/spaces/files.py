"""Hardware files of users: one design, or a space.

A file describes one design (fields with one value each), a space (some number fields hold lists: they become knobs),
or a space of a shipped template (`template = "edge22"` with `[knobs]` and `[settings]`). See docs/models/hardware.md
for the fields.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from hw_models.accelerator.design import FORM, Accelerator, AcceleratorBatch
from hw_models.accelerator.fields import Choice, Rule
from hw_models.accelerator.toml import BANDWIDTHS, BOTH_BANDWIDTHS, CAPACITIES, DRAM_GB_PER_S, load_toml
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.spaces.template import Columns, Template, check_scalars, load, of_one_kind


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
    flat, levels = FORM.flatten(document, where)
    if profile is not None:
        flat["profile"] = profile
    knobs = FORM.lists(flat, levels)
    if not knobs:
        return Accelerator.of_fields(flat, levels, where)
    return _list_space(flat, levels, knobs, where)


Place = tuple[str, str | int, str]
"""(knob, table that holds it: its name, "" for the top, or the number of a level; name there)."""


def with_values(
    document: Mapping[str, Any], values: Mapping[str, Sequence[Any]]
) -> tuple[dict[str, Any], dict[str, tuple[str, list[Any]]]]:
    """A document that describes accelerators itself, with other values of some fields as lists, so that each is a knob.

    ``values``: by any name that :func:`settable` knows. Returns the document and, for each name, (knob, its values): a capacity in
    KiB is the knob of its bytes. A name that is none is passed over; values are checked where the document is read.
    """
    changed: dict[str, Any] = deepcopy(dict(document))
    found: dict[str, tuple[str, list[Any]]] = {}
    names = settable(document)
    for name, given in values.items():
        if name not in names:
            continue
        knob, place, key = names[name]
        chosen = list(given)
        if key in CAPACITIES:
            chosen = [_whole(value * CAPACITIES[key]) if isinstance(value, (int, float)) else value for value in chosen]
            key = "bytes"
        table = changed["levels"][place] if isinstance(place, int) else changed.setdefault(place, {}) if place else changed
        _make_room(changed, table, key)
        table[key] = chosen
        found[name] = (knob, chosen)
    return changed, found


def settable(document: Mapping[str, Any]) -> dict[str, Place]:
    """The names that `with_values` takes, each with its place; none where the document is of a template or of a device.

    A field has its own name (``array_rows``) and the one in its table where no other table has that, or none that the document writes
    (``rows``; ``lanes`` of ``[vector]`` where there is no ``[gather]``); one of a level has the level's name before it (``l2_kib``).
    """
    if "levels" not in document:
        return {}
    names: dict[str, Place] = {DRAM_GB_PER_S: (DRAM_GB_PER_S, "", DRAM_GB_PER_S)}
    everything: dict[str, Rule | Choice] = {**FORM.numbers, **FORM.named}
    inner = Counter(name for table in FORM.tables.values() for name in table)
    for name, what in everything.items():
        table, key = what.table or ("", name)
        names[name] = (name, table, key)
        here = [known for known in FORM.tables if isinstance(document.get(known), Mapping) and key in document[known]]
        if inner[key] == 1 or here == [table]:
            names.setdefault(key, names[name])
    for number, level in enumerate(document["levels"]):
        for key in FORM.level_fields:
            if key != "name":
                knob = "bytes" if key in CAPACITIES else key
                names[f"{level['name']}_{key}"] = (f"{level['name']}_{knob}", number, key)
    return names


def _make_room(document: dict[str, Any], table: dict[str, Any], key: str) -> None:
    """Take away what says the same as ``key`` of ``table``: another unit, both directions for one, the DRAM's rate for its words."""
    last = document["levels"][-1]
    if key == "bytes":
        for unit in CAPACITIES:
            table.pop(unit, None)
    elif key in BANDWIDTHS:
        both = table.pop(BOTH_BANDWIDTHS, None)
        for direction in BANDWIDTHS[1:]:
            if key == BOTH_BANDWIDTHS:
                table.pop(direction, None)
            elif both is not None:
                table[direction] = both
    if key == DRAM_GB_PER_S or (key in BANDWIDTHS and table is last):
        for same in (*BANDWIDTHS, DRAM_GB_PER_S) if key == DRAM_GB_PER_S else (DRAM_GB_PER_S,):
            last.pop(same, None)
        document.pop(DRAM_GB_PER_S, None)


# What the technology tables say of a chip, and of a level of its memory, where a file does not.
CHIP_FIGURES = ("mac_pj", "area_mm2", "leakage_w")
LEVEL_FIGURES = ("read_pj_per_word", "write_pj_per_word")


def stated_figures(chip: Mapping[str, Any], levels: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The figures that fields of a chip and of its levels by name state themselves: ``leakage_w``, ``dram.read_pj_per_word``."""
    of_levels = [f"{name}.{figure}" for name, level in levels.items() for figure in LEVEL_FIGURES if level.get(figure) is not None]
    return (*(figure for figure in CHIP_FIGURES if chip.get(figure) is not None), *of_levels)


def figures_of(design: Accelerator) -> tuple[str, ...]:
    """The figures that a design states itself (:func:`stated_figures`)."""
    levels = {level.name: {figure: getattr(level, figure) for figure in LEVEL_FIGURES} for level in design.levels}
    return stated_figures({figure: getattr(design, figure) for figure in CHIP_FIGURES}, levels)


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value


def _template_space(document: Mapping[str, Any], where: str, profile: str | None) -> Template:
    for key in document:
        if key not in ("template", "name", "profile", "knobs", "settings"):
            raise unknown_name("field", key, ("template", "name", "profile", "knobs", "settings"), where=where)
    for key in ("template", "profile", "knobs", "settings"):
        kind = dict if key in ("knobs", "settings") else str
        if not isinstance(document.get(key, kind()), kind):
            raise bad_value(key, document[key], "a table" if kind is dict else "a name", where=where)
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


def _list_space(flat: dict[str, Any], levels: list[dict[str, Any]], knobs: dict[str, list[Any]], where: str) -> Template:
    """A space whose knobs are the list fields; each combination is built and checked as one design would be."""
    for name, values in knobs.items():
        if not values:
            raise HardwareError(f"{where}: {name} is an empty list: give at least one value")
        check_scalars(name, values, where)
        knobs[name] = of_one_kind(values)

    def one(chosen: Mapping[str, Any], profile: str) -> Accelerator:
        top = {k: chosen.get(k, v) for k, v in flat.items()} | {"profile": profile}
        inner = []
        for level in levels:
            fields = {k: chosen.get(f"{level['name']}_{k}", v) for k, v in level.items()}
            if BOTH_BANDWIDTHS in fields:
                fields["read_words_per_cycle"] = fields["write_words_per_cycle"] = fields.pop(BOTH_BANDWIDTHS)
            inner.append(fields)
        return Accelerator.of_fields(top, inner, where)

    def build(profile: str, columns: Columns, count: int) -> AcceleratorBatch:
        rows = [{name: column[i].item() for name, column in columns.items()} for i in range(count)]
        return AcceleratorBatch.of([one(row, profile) for row in rows])

    template = Template(
        name=str(flat.get("name", Path(where).stem)),
        title=str(flat.get("name", Path(where).stem)),
        source=str(flat.get("source", where)),
        knobs={name: tuple(dict.fromkeys(values)) for name, values in knobs.items()},
        settings={},
        builder=build,
        profile=str(flat.get("profile", "default")),
        carbon_profile="default" if flat.get("tdp_w") else "act2",  # of a board, as of a single one
        figures=stated_figures(flat, {str(level["name"]): level for level in levels}),
    )
    # Every value once, the other knobs at their first: a bad value is found now, with its file, and not in the middle
    # of a search.
    first = {name: values[0] for name, values in template.knobs.items()}
    for name, choices in template.knobs.items():
        for value in choices:
            one({**first, name: value}, template.profile)
    return template
