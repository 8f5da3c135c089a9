"""ZigZag accelerator files: memories with ports and served dimensions around an array."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.errors import DseError, nearest
from dse.exporters.names import safe_name
from dse.importers.base import Imported, Notes, Options, dram_kind, error, finish, missing, number, option, read_yaml
from hw_models.accelerator.fields import ArrayKind, Dataflow
from hw_models.accelerator.levels import MemoryLevel

_OPERANDS = ("I1", "I2", "O")
# Directions of a port: to and from the level above or below.
_READS, _WRITES = ("tl", "th"), ("fh", "fl")


@dataclass(frozen=True)
class _Memory:
    name: str
    bits: float
    operands: tuple[str, ...]
    read_bits: float
    write_bits: float
    read_pj_per_bit: float | None
    write_pj_per_bit: float | None
    served: frozenset[str]
    double_buffered: bool


def read(path: Path, options: Options) -> Imported:
    """A ZigZag accelerator as ours: D1 are the columns, D2 the rows, further dimensions are cores."""
    notes = Notes()
    document = read_yaml(path)
    if not isinstance(document, Mapping):
        raise error(path, "the document", type(document).__name__, "a mapping with memories and operational_array")
    for field in ("memories", "operational_array"):
        if not isinstance(document.get(field), Mapping):
            raise missing(path, field, "a mapping", map(str, document))
    array = document["operational_array"]
    dimensions, sizes = _array(path, array)
    columns = sizes[0]
    rows = sizes[1] if len(sizes) > 1 else 1
    cores = math.prod(sizes[2:])
    if len(sizes) > 2:
        notes.add(f"dimensions {', '.join(dimensions[2:])} of the array are {cores} cores")
    precision = array.get("input_precision")
    found_bits = None
    if isinstance(precision, list) and precision:
        found_bits = max(number(path, "operational_array.input_precision", p, whole=True) for p in precision)
    word_bits = int(option(options, "word_bits", notes, found_bits, " (the file names no precision)"))
    memories = [_memory(path, str(name), value, dimensions) for name, value in document["memories"].items()]
    if not memories:
        raise error(path, "memories", {}, "at least one memory")
    outer = [m for m in memories if _is_level(m, dimensions)]
    registers = [m for m in memories if not _is_level(m, dimensions)]
    levels = _levels(path, outer, dimensions, word_bits, cores, options, notes)
    unit = array.get("unit_energy")
    return finish(
        path, "ZigZag", options, notes, name=str(document.get("name") or path.stem), cores=cores, rows=rows, columns=columns,
        levels=levels, word_bits=word_bits, kind=ArrayKind.DOT_PRODUCT, dataflow=Dataflow.ANY,
        register_bytes=_register_bytes(registers, dimensions, sizes, word_bits, notes),
        mac_pj=number(path, "operational_array.unit_energy", unit, open_low=False) or None if unit is not None else None,
    )  # fmt: skip


def _array(path: Path, array: Mapping[str, Any]) -> tuple[list[str], list[int]]:
    dimensions, sizes = array.get("dimensions"), array.get("sizes")
    if not isinstance(dimensions, list) or not dimensions:
        raise missing(path, "operational_array.dimensions", "a list such as [D1, D2]", map(str, array))
    if not isinstance(sizes, list) or len(sizes) != len(dimensions):
        raise error(path, "operational_array.sizes", sizes, f"a list of {len(dimensions)} sizes")
    numbers = [int(number(path, "operational_array.sizes", size, whole=True)) for size in sizes]
    return [str(d) for d in dimensions], numbers


def _memory(path: Path, name: str, fields: Any, dimensions: list[str]) -> _Memory:
    where = f"memories.{name}"
    if not isinstance(fields, Mapping):
        raise error(path, where, fields, "a mapping")
    if "size" not in fields:
        raise missing(path, f"{where}.size", "a size in bits", map(str, fields))
    operands = fields.get("operands")
    if not isinstance(operands, list) or not operands:
        raise missing(path, f"{where}.operands", "a list of I1, I2, O", map(str, fields))
    for operand in operands:
        if operand not in _OPERANDS:
            raise error(path, f"{where}.operands", operand, "one of I1, I2, O", nearest(str(operand), _OPERANDS))
    served = fields.get("served_dimensions")
    if not isinstance(served, list):
        raise missing(path, f"{where}.served_dimensions", "a list of dimensions of the array", map(str, fields))
    for dimension in served:
        if dimension not in dimensions:
            raise error(
                path, f"{where}.served_dimensions", dimension, f"among {', '.join(dimensions)}", nearest(str(dimension), dimensions)
            )
    read, write = _bandwidths(path, where, fields)
    costs: list[float | None] = []
    for field, width in (("r_cost", read), ("w_cost", write)):
        value = fields.get(field)
        costs.append(None if value is None else number(path, f"{where}.{field}", value, open_low=False) / width)
    return _Memory(
        name, number(path, f"{where}.size", fields["size"]), tuple(operands), read, write, costs[0], costs[1],
        frozenset(map(str, served)), fields.get("force_double_buffering") is True,
    )  # fmt: skip


def _bandwidths(path: Path, where: str, fields: Mapping[str, Any]) -> tuple[float, float]:
    """Bits a cycle that a memory reads and writes: its ports together, or the r_bw and w_bw of older files."""
    if "r_bw" in fields and "w_bw" in fields:
        return number(path, f"{where}.r_bw", fields["r_bw"]), number(path, f"{where}.w_bw", fields["w_bw"])
    ports = fields.get("ports")
    if not isinstance(ports, list) or not ports:
        raise missing(path, f"{where}.ports", "a list of ports with bandwidth_max and allocation", map(str, fields))
    read = write = 0.0
    for i, port in enumerate(ports):
        here = f"{where}.ports[{i}]"
        if not isinstance(port, Mapping) or "bandwidth_max" not in port:
            raise missing(path, f"{here}.bandwidth_max", "bits a cycle", map(str, port) if isinstance(port, Mapping) else ())
        width = number(path, f"{here}.bandwidth_max", port["bandwidth_max"])
        kind = str(port.get("type", ""))
        if kind not in ("read", "write", "read_write"):
            raise error(path, f"{here}.type", kind, "read, write or read_write", nearest(kind, ("read", "write", "read_write")))
        read += width if kind != "write" else 0.0
        write += width if kind != "read" else 0.0
    if not read or not write:
        raise error(path, f"{where}.ports", "no port that reads or none that writes", "at least one of each, or a read_write port")
    return read, write


def _is_level(memory: _Memory, dimensions: list[str]) -> bool:
    """Whether a memory stands outside the array: it serves at least the first two dimensions (or the only one)."""
    return set(dimensions[:2]) <= memory.served


def _register_bytes(registers: list[_Memory], dimensions: list[str], sizes: list[int], word_bits: int, notes: Notes) -> int:
    """Bytes of registers a multiplier: its own, and its share of those that a row or a column has together."""
    total = 0.0
    size = dict(zip(dimensions, sizes, strict=True))
    for memory in registers:
        users = math.prod(size[d] for d in memory.served if d in dimensions[:2])
        total += memory.bits / users / 8
        if users > 1:
            notes.add(f"memory {memory.name} serves {users} multipliers together; each has its share of it as registers here")
    if len(registers) > 1:
        notes.add("registers of single operands are one capacity for all operands here")
    if not registers:
        notes.add("assumed: one word of registers a multiplier; the file describes none")
    return max(1, word_bits // 8, int(total))


def _levels(
    path: Path, outer: list[_Memory], dimensions: list[str], word_bits: int, cores: int, options: Options, notes: Notes
) -> list[MemoryLevel]:
    """Memories outside the array as levels: those at the same distance from the outermost memory are one level."""
    chains = {op: [m for m in outer if op in m.operands] for op in _OPERANDS}
    for op, chain in chains.items():
        if not chain:
            raise DseError(f"{path}: memories holds nothing outside the array for operand {op}; it must reach the DRAM")
    top = chains["I1"][-1]
    if any(chain[-1] is not top for chain in chains.values()):
        raise error(path, "memories", ", ".join(sorted({c[-1].name for c in chains.values()})), "one outermost memory for all operands")
    ranks: dict[int, list[_Memory]] = {}
    for memory in outer[:-1] if outer[-1] is top else [m for m in outer if m is not top]:
        distance = min(len(chain) - 1 - chain.index(memory) for chain in chains.values() if memory in chain)
        ranks.setdefault(distance, []).append(memory)
    levels: list[MemoryLevel] = []
    for distance in sorted(ranks, reverse=True):
        group = ranks[distance]
        held = {op for m in group for op in m.operands}
        names, operands = ", ".join(m.name for m in group), ", ".join(sorted(held))
        if len(held) == 1:
            notes.add(f"left out: {names} holds {operands} only; our levels pass every operand")
            continue
        if held != set(_OPERANDS):
            notes.add(f"{names} holds {operands} only; here every operand passes through it")
        levels.append(_level(group, dimensions, word_bits, cores, notes))
    bits = top.bits if options.dram_gib is None else options.dram_gib * 2**33
    levels.append(
        MemoryLevel(
            name=safe_name(top.name),
            bytes=int(bits // 8),
            read_words_per_cycle=top.read_bits / word_bits,
            write_words_per_cycle=top.write_bits / word_bits,
            kind=dram_kind(options, notes, path),
            double_buffered=False,
            read_pj_per_word=None if top.read_pj_per_bit is None else top.read_pj_per_bit * word_bits,
            write_pj_per_word=None if top.write_pj_per_bit is None else top.write_pj_per_bit * word_bits,
        )
    )
    notes.add(f"the outermost memory, {top.name}, is the DRAM; its energy is the file's")
    return levels


def _level(group: list[_Memory], dimensions: list[str], word_bits: int, cores: int, notes: Notes) -> MemoryLevel:
    each = len(group) == 3 and len({m.bits for m in group}) == 1 and all(len(m.operands) == 1 for m in group)
    if len(group) > 1:
        form = "one buffer for each operand" if each else "one memory of their total size and bandwidth"
        notes.add(f"{', '.join(m.name for m in group)} are one level here: {form}")
    total = sum(m.bits for m in group)

    def energy(values: list[tuple[float, float | None]]) -> float | None:
        # Weighted by bandwidth: what moves more often through a wider memory counts more.
        if any(value is None for _, value in values):
            return None
        weight = sum(width for width, _ in values)
        return sum(width * float(value or 0.0) for width, value in values) / weight * word_bits

    per_core = cores > 1 and not set(dimensions[2:]) <= frozenset.intersection(*(m.served for m in group))
    return MemoryLevel(
        name=safe_name("_".join(m.name for m in group)),
        bytes=int((group[0].bits if each else total) // 8),
        read_words_per_cycle=sum(m.read_bits for m in group) / word_bits,
        write_words_per_cycle=sum(m.write_bits for m in group) / word_bits,
        per_core=per_core,
        shared=not each,
        double_buffered=all(m.double_buffered for m in group),
        read_pj_per_word=energy([(m.read_bits, m.read_pj_per_bit) for m in group]),
        write_pj_per_word=energy([(m.write_bits, m.write_pj_per_bit) for m in group]),
    )
