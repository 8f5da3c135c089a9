"""Levels of memory of an accelerator: the record of one, and what must hold of all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hw_models.accelerator.fields import number, rules, whole
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.technology.tables import dram_types


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """One level of memory.

    Attributes:
        name: `l2`, `glb`, `dram`, ...
        bytes: capacity; of one core's copy where ``per_core``, of one operand's buffer where not ``shared``.
        read_words_per_cycle, write_words_per_cycle: bandwidth in words of ``Accelerator.word_bits`` a cycle, of
            one copy.
        area_bytes: capacity that area and leakage are charged for, where it is not ``bytes``.
        read_pj_per_word, write_pj_per_word: energies that replace those of the technology tables.
        kind: `sram`, or the type of a DRAM (`lpddr4`, ...; dram.csv).
        per_core: every core has its own copy.
        shared: one capacity for all three operands; False: ``bytes`` for each of them.
        double_buffered: half of the capacity is filled while the other half is used, so that moving and computing
            overlap.
        shared_bus: reads and writes take turns on one bus, so that their times add (a DRAM's pins are such a bus); False: each at its
            own rate at once.
        access_bytes: width of an SRAM access, 4 or 32: wide ports cost less a byte and more area.
    """

    name: str
    bytes: int = field(metadata=whole(1, 2**50, "bytes"))
    read_words_per_cycle: float = field(metadata=number(1e-6, 1e9, "words a cycle"))
    write_words_per_cycle: float = field(metadata=number(1e-6, 1e9, "words a cycle"))
    kind: str = "sram"
    per_core: bool = False
    shared: bool = True
    double_buffered: bool = True
    shared_bus: bool = False
    access_bytes: int = 4
    area_bytes: int | None = field(default=None, metadata=whole(0, 2**50, "bytes"))
    read_pj_per_word: float | None = field(default=None, metadata=number(0.0, 1e6, "pJ"))
    write_pj_per_word: float | None = field(default=None, metadata=number(0.0, 1e6, "pJ"))


def check_fields(levels: Sequence[MemoryLevel], where: str) -> None:
    """Raise HardwareError unless there is a level and every field of each is in range; ``where`` names the accelerator in errors."""
    if not levels:
        raise HardwareError(f"{where}: levels is empty: give at least the DRAM, as the last level")
    for level in levels:
        for name, rule in rules(MemoryLevel).items():
            value = getattr(level, name)
            if value is not None:
                rule.check(f"levels.{level.name}.{name}", value, where)
        if level.kind != "sram" and level.kind not in dram_types():
            raise unknown_name(f"levels.{level.name}.kind", level.kind, ("sram", *dram_types()), where=where)


def check_order(levels: Sequence[MemoryLevel], where: str) -> None:
    """Raise HardwareError unless levels have different names, grow outwards and end with the one DRAM."""
    names = [level.name for level in levels]
    if len(set(names)) != len(names):
        raise HardwareError(f"{where}: levels must have different names, got {', '.join(names)}")
    last = levels[-1]
    if last.kind == "sram":
        raise bad_value(
            f"levels.{last.name}.kind",
            "sram",
            f"a DRAM ({', '.join(dram_types())}): the last level is the DRAM",
            where=where,
        )
    for inner in levels[:-1]:
        if inner.kind != "sram":
            raise bad_value(f"levels.{inner.name}.kind", inner.kind, "sram: only the last level is a DRAM", where=where)
    for inner, outer in pairwise(levels):
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
