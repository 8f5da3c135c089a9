"""Files to start from (``dse init``): an accelerator, a space or a carbon specification, each field with what it may hold.

Accelerator and space are written from the records and templates themselves, so that they cannot fall behind them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from fractions import Fraction
from importlib import resources

from dse.errors import UsageError
from dse.problem.wording import joined
from dse.spaces.hardware import load_path_or_name
from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import Choice, Rule, choices, required, rules
from hw_models.accelerator.levels import MemoryLevel
from hw_models.accelerator.toml import DRAM_GB_PER_S, quote
from hw_models.technology.tables import dram_types
from workloads import library
from workloads.family import Family

KINDS = ("accelerator", "space", "carbon")
_COMMENT_COLUMN = 40


def accelerator(hw: str = "edge22") -> str:
    """A whole accelerator as TOML with a comment on every field: a device, or a template at its default knobs."""
    hardware = load_path_or_name(hw, profile=None)
    record = hardware.accelerator(hardware.defaults)
    profile = "" if hardware.default_carbon_profile == "act2" else f" --carbon-profile {hardware.default_carbon_profile}"
    head = [
        f"# An accelerator to start from: {hw} as dse has it. Change what differs in yours, then:",
        f"#   dse evaluate --workload bert --hw THIS_FILE{profile}",
        "# A list in place of a number makes it a knob, as in cores = [1, 2, 4], for `dse search --workload bert --hw THIS_FILE`; so does",
        "# --vary cores=1,2,4, and --set cores=4 takes another value without an edit (those of a level with its name before: l2_kib=512).",
        "# Energy, area and leakage come from the technology tables at node_nm unless mac_pj, area_mm2, leakage_w or the pJ of a level say",
        "# them. Levels go from the innermost to the DRAM. What is not marked as needed may be left out.",
        "",
    ]
    words = f"{DRAM_GB_PER_S} = {record.batch().dram_bytes_per_s[0] / 1e9:g}"
    rate = f"{'# ' + words:<{_COMMENT_COLUMN}}# the DRAM's bandwidth as data sheets have it [GB/s], in place of both words_per_cycle above"
    return "\n".join([*head, *_commented(record.to_toml()), rate]) + "\n"


def space(workload: str = "bert", hw: str = "edge22") -> str:
    """A search space as TOML: every knob of the template with its values, and models up to the workload's own size, in its proportions."""
    hardware = load_path_or_name(hw, profile=None)
    if not hardware.knobs and hardware.shipped:
        raise UsageError(
            f"hw {hw!r} is one device and has no knobs to list; nearest is --from edge22, or `dse init accelerator --from {hw}`"
        )
    family = library.load(workload)
    record = hardware.source_record
    notes = {} if isinstance(record, Accelerator) else record.notes
    lines = [
        f"# A space to start from: {hw}'s grid around {workload}'s own model. Change the lists, then:",
        f"#   dse search --workload {workload} --hw {hw} --space THIS_FILE --objective carbon --allow-unsupported",
        "# With figures of your own --quality table:FILE.csv (docs/measured-quality.md) stands in place of --allow-unsupported.",
        "# In place of values a range may stand: from, to, steps, with coding linear, log, power_of_two or ordered.",
        "# role: model (a knob of the workload), hardware (of the template, where nothing is said) or deployment (rate_per_s, ...).",
        "",
        'name = "my-space"',
        "# Sums of products or divisibility, between knobs of the model or between those of the hardware, as in",
        '# constraints = ["hidden % heads == 0", "hidden >= 64 * heads"]',
        "# A knob that is not listed stays at the model's own value in every model, unless an equation gives it.",
    ]
    sizes, ties = _model(family)
    if ties:
        lines += [
            f"# The equations give every width the proportions of {family.name} ({joined(list(ties))}); a width for which one of them is",
            "# no whole number is left out. To search one by itself take its equation away and list its values: [parameters.heads].",
        ]
    lines.append(f"constraints = [{', '.join(map(quote, ties.values()))}]")
    for name, sized in sizes.items():
        lines += [
            "",
            f"[parameters.{name}]  # {family.knobs[name].description}",
            'role = "model"',
            f"values = [{', '.join(map(str, sized))}]",
        ]
    for name, values in hardware.knobs.items():
        lines += ["", f"[parameters.{name}]{_note(notes, name)}", f"values = [{', '.join(map(quote, values))}]"]
    if not hardware.knobs:
        lines += [
            "",
            f"# {hw} is one design: --vary cores=1,2 or [parameters.cores] searches a field of it, by the names of `dse init accelerator`.",
        ]
        return "\n".join(lines) + "\n"
    lines += ["", f"# Settings of {hw}: take the # away and list values to search them too."]
    for name, value in hardware.settings.items():
        lines += ["", f"# [parameters.{name}]{_note(notes, name)}", f"# values = [{quote(value)}]"]
    return "\n".join(lines) + "\n"


def _model(family: Family) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Values of the model's dimensions, half of its size and more, and the equations of those that follow its width.

    A dimension that has no fixed proportion to the width (heads of a size of their own) is listed at its own value.
    """
    own = {name: value for name in ("layers", "hidden", "heads", "kv_heads", "ffn")
           if name in family.knobs and isinstance(value := family.dimensions.get(name), int)}  # fmt: skip
    hidden, heads, ties = own.get("hidden", 0), own.get("heads", 0), {}
    if hidden and "ffn" in own:
        ties["ffn"] = _equation("ffn", own["ffn"], "hidden", hidden)
    if hidden and heads and hidden == heads * family.dimensions.get("head_dim", hidden // heads):
        ties["heads"] = f"hidden == {hidden // heads} * heads"
        if "kv_heads" in own:
            ties["kv_heads"] = _equation("kv_heads", own["kv_heads"], "heads", heads)
    sizes = {name: [value] for name, value in own.items() if name not in ties}
    if hidden:
        parts = heads if "heads" in ties else 4
        whole = [part for part in range(1, parts + 1) if all(own[name] * part % parts == 0 for name in ("hidden", *ties))]
        near = {min((abs(part - share * parts), part) for part in whole)[1] for share in (0.5, 0.75, 1.0)}
        sizes["hidden"] = [hidden * part // parts for part in sorted(near)]
    if "layers" in own:
        sizes["layers"] = sorted({-(-own["layers"] // 2), own["layers"]})
    return sizes, ties


def _equation(name: str, value: int, of: str, size: int) -> str:
    """``name`` as its share of ``of``, exactly: ``ffn == 4 * hidden``, ``3 * ffn == 8 * hidden``."""
    share = Fraction(value, size)
    left = name if share.denominator == 1 else f"{share.denominator} * {name}"
    return f"{left} == {of}" if share.numerator == 1 else f"{left} == {share.numerator} * {of}"


def carbon() -> str:
    """A specification for ``dse carbon estimate``: a server with two accelerators, every key explained."""
    return resources.files("dse").joinpath("data", "starter_carbon.toml").read_text(encoding="utf-8")


def _note(notes: Mapping[str, str], name: str) -> str:
    return f"  # {notes[name]}" if name in notes else ""


def _commented(text: str) -> Iterator[str]:
    """The lines of `Accelerator.to_toml` with the range or the choices of each field behind it."""
    known, table = _comments(), ""
    for line in text.splitlines():
        heading = re.match(r"\[+(\w+)\]+$", line)
        table = heading[1] if heading else table
        found = re.match(r"(\w+) = ", line)
        comment = known.get((table, found[1]), "") if found else ""
        yield f"{line:<{_COMMENT_COLUMN}}# {comment}" if comment else line
        if found and found[1] == "double_buffered" and "shared_bus = true" not in text:  # a design says it only where it is true
            yield f"{'shared_bus = false':<{_COMMENT_COLUMN}}# true: reads and writes take turns (the pins of a DRAM), or false"


def _comments() -> dict[tuple[str, str], str]:
    """What each field of a file may hold, by its table ("" for the top) and name."""
    found = {
        ("", "profile"): "default (physical), silicon (arithmetic by format) or catransformers22 (that tool's constants)",
        ("levels", "name"): "needed: a name of its own",
        ("levels", "kind"): f"sram; of the last level, the DRAM, needed: {', '.join(dram_types())}",
        ("levels", "access_bytes"): "width of an access: 4 or 32",
    }
    needed = (*required(Accelerator), *required(MemoryLevel))
    found |= {("levels", f.name): "true or false" for f in fields(MemoryLevel) if isinstance(f.default, bool)}
    for record, place in ((Accelerator, ""), (MemoryLevel, "levels")):
        everything: dict[str, Rule | Choice] = {**rules(record), **choices(record)}
        for name, what in everything.items():
            text = (
                ", ".join(what.names) if isinstance(what, Choice) else str(what).removeprefix("a whole number ").removeprefix("a number ")
            )
            must = what.needed if isinstance(what, Choice) else name in needed
            found[what.table or (place, name)] = f"needed: {text}" if must else text
    for field, hint in _HOW_TO_CHOOSE.items():
        found[field] = f"{found[field]}; {hint}"
    return found


# Of fields that are needed and that no data sheet has under that name (docs/models/hardware.md, a design).
_HOW_TO_CHOOSE = {
    ("array", "kind"): "waits for fill and drain at every tile, loads the next tile meanwhile (TPUs), or has adder trees (NVDLA)",
    ("vector", "lanes"): "elements a cycle of softmax, norms, activations; the columns of all arrays keep up",
    ("levels", "read_words_per_cycle"): "bits of the port / word_bits; rows + columns feed an array without waiting",
}
