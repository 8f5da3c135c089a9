"""Timeloop architectures, format 0.4 (nodes) and 0.3 (subtrees): storage and compute with their spatial fan-out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.errors import DseError
from dse.exporters.names import safe_name
from dse.importers.base import Imported, Notes, Options, dram_kind, error, finish, missing, number, option, read_yaml
from hw_models.accelerator.fields import ArrayKind, Dataflow
from hw_models.accelerator.levels import MemoryLevel

_NESTED = ("Parallel", "Hierarchical", "Pipelined", "Sequential")
_COUNT = re.compile(r"^(?P<name>.*?)\s*\[(?P<first>\d+)\.\.(?P<last>\d+)\]$")
_COMPUTE = re.compile(r"mac|compute|multiplier|alu", re.IGNORECASE)
_STORAGE = re.compile(r"dram|sram|storage|buffer|regfile|register|_rf$", re.IGNORECASE)
_UNIT_NM = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(?:nm)?\s*$")


@dataclass(frozen=True)
class _Part:
    """A component, with the fan-outs (x, y) of everything that it lies in, outermost first."""

    name: str
    kind: str
    attributes: Mapping[str, Any]
    fanouts: tuple[tuple[int, int], ...]

    @property
    def instances(self) -> int:
        return math.prod(x * y for x, y in self.fanouts)


def read(path: Path, options: Options) -> Imported:
    """A Timeloop architecture as ours: the innermost fan-out below the last buffer is the array, what lies above it are cores."""
    notes = Notes()
    document = read_yaml(path)
    if not isinstance(document, Mapping) or not isinstance(document.get("architecture"), Mapping):
        raise missing(
            path, "architecture", "a mapping with nodes (0.4) or subtree (0.3)", map(str, document) if isinstance(document, Mapping) else ()
        )
    architecture = document["architecture"]
    if isinstance(architecture.get("nodes"), list):
        parts = list(_nodes(path, architecture["nodes"], (), {}))
    elif isinstance(architecture.get("subtree"), list):
        parts = list(_subtree(path, architecture["subtree"], 1, {}))
    else:
        raise missing(path, "architecture.nodes", "a list of nodes (or architecture.subtree in format 0.3)", map(str, architecture))
    return _accelerator(path, parts, options, notes)


def _fanout(path: Path, where: str, spatial: Any) -> tuple[int, int]:
    if spatial is None:
        return (1, 1)
    if not isinstance(spatial, Mapping):
        raise error(path, f"{where}.spatial", spatial, "a mapping with meshX or meshY")
    return tuple(int(number(path, f"{where}.spatial.{axis}", spatial.get(axis, 1), whole=True)) for axis in ("meshX", "meshY"))  # type: ignore[return-value]


def _nodes(path: Path, nodes: list[Any], fanouts: tuple[tuple[int, int], ...], inherited: Mapping[str, Any]) -> Iterator[_Part]:
    """Parts of format 0.4: a node lies inside everything that precedes it; a container's attributes hold for what follows."""
    for i, node in enumerate(nodes):
        if not isinstance(node, Mapping):
            raise error(path, f"architecture.nodes[{i}]", node, "a mapping (!Container, !Component or a group of nodes)")
        tag, name = str(node.get("!", "")), str(node.get("name", f"nodes[{i}]"))
        if tag in _NESTED or ("nodes" in node and "name" not in node):
            inner = node.get("nodes")
            if not isinstance(inner, list):
                raise missing(path, f"architecture.{name}.nodes", "a list", map(str, node))
            yield from _nodes(path, inner, fanouts, inherited)
            continue
        own = _fanout(path, f"architecture.{name}", node.get("spatial"))
        if own != (1, 1):
            fanouts = (*fanouts, own)
        attributes = {**inherited, **_attributes(path, name, node)}
        if tag == "Container" or "class" not in node:
            inherited = {**inherited, **{k: v for k, v in attributes.items() if k in ("technology", "global_cycle_seconds")}}
            continue
        yield _Part(name, str(node["class"]), attributes, fanouts)


def _attributes(path: Path, name: str, node: Mapping[str, Any]) -> dict[str, Any]:
    attributes = node.get("attributes") or {}
    if not isinstance(attributes, Mapping):
        raise error(path, f"architecture.{name}.attributes", attributes, "a mapping")
    return {str(k): v for k, v in attributes.items()}


def _subtree(path: Path, nodes: list[Any], outside: int, inherited: Mapping[str, Any]) -> Iterator[_Part]:
    """Parts of format 0.3: counts stand behind names, ``PE[0..167]``, and the mesh in attributes."""
    for node in nodes:
        if not isinstance(node, Mapping) or "name" not in node:
            raise error(path, "architecture.subtree", node, "a mapping with a name")
        name, count = _counted(str(node["name"]))
        instances = outside * count
        passed = {**inherited, **{k: v for k, v in _attributes(path, name, node).items() if k in ("technology", "global_cycle_seconds")}}
        for local in node.get("local") or []:
            if not isinstance(local, Mapping) or "name" not in local or "class" not in local:
                raise error(path, f"architecture.{name}.local", local, "a mapping with name and class")
            inner, copies = _counted(str(local["name"]))
            attributes = {**passed, **_attributes(path, inner, local)}
            yield _Part(inner, str(local["class"]), attributes, _mesh(path, inner, instances * copies, attributes))
        inside = node.get("subtree") or []
        if not isinstance(inside, list):
            raise error(path, f"architecture.{name}.subtree", inside, "a list")
        yield from _subtree(path, inside, instances, passed)


def _counted(text: str) -> tuple[str, int]:
    match = _COUNT.match(text)
    if not match:
        return text, 1
    return match["name"], int(match["last"]) - int(match["first"]) + 1


def _mesh(path: Path, name: str, instances: int, attributes: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    if instances == 1:
        return ()
    given = attributes.get("meshX")
    if given is None:
        return ((instances, 1),)
    across = int(number(path, f"architecture.{name}.attributes.meshX", given, whole=True))
    if instances % across:
        raise error(path, f"architecture.{name}.attributes.meshX", across, f"a divisor of its {instances} instances")
    return ((across, instances // across),)


def _accelerator(path: Path, parts: list[_Part], options: Options, notes: Notes) -> Imported:
    computes = [p for p in parts if _COMPUTE.search(p.kind) and not _is_storage(p)]
    if not computes:
        raise DseError(f"{path}: architecture has no compute component; one with a class such as intmac is needed")
    mac = computes[-1]
    storage = [p for p in parts if _is_storage(p)]
    if not storage or storage[0].kind != "DRAM":
        first = storage[0].name if storage else "none"
        raise error(path, "architecture: the outermost storage", first, "a component of the class DRAM")
    buffers = [p for p in storage[1:] if p.instances < mac.instances or mac.instances == 1]
    registers = [p for p in storage[1:] if p not in buffers]
    inner = buffers[-1].instances if buffers else 1
    rows, columns = _array(path, mac, inner, notes)
    word_bits = _word_bits(path, storage, mac, options, notes)
    levels = []
    for p in reversed(buffers):
        if p.instances not in (1, inner):
            notes.add(f"left out: {p.name} has {p.instances} instances, which is neither one nor one a core ({inner})")
            continue
        levels.append(_level(path, p, word_bits, notes, per_core=p.instances > 1))
    levels.append(_dram(path, storage[0], word_bits, options, notes))
    total = sum(_bits(path, p) for p in registers)
    if not registers:
        notes.add("assumed: one word of registers a multiplier; the file describes none")
    elif len(registers) > 1:
        notes.add("registers of single operands are one capacity for all operands here")
    notes.add("energies are those of our tables; a Timeloop architecture has none (Accelergy estimates them)")
    technology = mac.attributes.get("technology")
    match = _UNIT_NM.match(str(technology)) if technology is not None else None
    cycle = mac.attributes.get("global_cycle_seconds")
    return finish(
        path, "Timeloop", options, notes, name=path.stem, cores=inner, rows=rows, columns=columns, levels=levels, word_bits=word_bits,
        kind=ArrayKind.DOT_PRODUCT, dataflow=Dataflow.ANY, register_bytes=max(1, word_bits // 8, int(total // 8)),
        node_nm=float(match[1]) if match else None,
        frequency_hz=1 / number(path, "architecture: global_cycle_seconds", cycle) if cycle is not None else None,
    )  # fmt: skip


def _is_storage(part: _Part) -> bool:
    a = part.attributes
    return _STORAGE.search(part.kind) is not None or any(key in a for key in ("depth", "memory_depth", "entries", "sizeKB", "size"))


def _array(path: Path, mac: _Part, cores: int, notes: Notes) -> tuple[int, int]:
    """Rows and columns of the array: the fan-outs between the innermost buffer and the multiplier."""
    inside = list(mac.fanouts)
    while inside and math.prod(x * y for x, y in inside) > mac.instances // cores:
        inside.pop(0)
    x, y = math.prod(f[0] for f in inside), math.prod(f[1] for f in inside)
    if x * y * cores != mac.instances:
        x, y = mac.instances // cores, 1
        notes.add(f"the fan-out of {mac.name} below its buffers is taken as one row of {x} multipliers")
    if x > 1 and y == 1 and len(inside) > 1:
        # Several fan-outs along one axis: the innermost is the row's.
        y = inside[-1][0]
        x //= y
    return y, x


def _word_bits(path: Path, storage: list[_Part], mac: _Part, options: Options, notes: Notes) -> int:
    found = None
    for p in (*storage[1:], storage[0], mac):
        for key in ("datawidth", "word-bits", "multiplier_width", "word_bits"):
            if found is None and key in p.attributes:
                found = number(path, f"architecture.{p.name}.attributes.{key}", p.attributes[key], whole=True)
    return int(option(options, "word_bits", notes, found, " (the file names no data width)"))


def _bits(path: Path, part: _Part) -> float:
    """Capacity of a storage component in bits."""
    a, where = part.attributes, f"architecture.{part.name}.attributes"
    if "sizeKB" in a:
        return number(path, f"{where}.sizeKB", a["sizeKB"]) * 8192
    depth = next((key for key in ("depth", "memory_depth", "entries") if key in a), None)
    if depth is None:
        raise missing(path, f"{where}.depth", "a number of rows (or sizeKB)", a)
    width = next((key for key in ("width", "memory_width", "word-bits", "datawidth") if key in a), None)
    if width is None:
        raise missing(path, f"{where}.width", "the bits of a row", a)
    return number(path, f"{where}.{depth}", a[depth]) * number(path, f"{where}.{width}", a[width])


def _rates(path: Path, part: _Part, word_bits: int, notes: Notes) -> tuple[float, float]:
    """Words a cycle that a storage reads and writes."""
    a, where = part.attributes, f"architecture.{part.name}.attributes"
    rates = []
    for key in ("read_bandwidth", "write_bandwidth"):
        value = a.get(key, a.get("shared_bandwidth"))
        if value is None:
            width = next((a[k] for k in ("width", "memory_width") if k in a), None)
            if width is None:
                raise missing(path, f"{where}.{key}", "words a cycle (or give width)", a)
            notes.add(f"assumed: {part.name} moves one row of {width} bits a cycle; the file sets no bandwidth")
            value = max(1.0, number(path, f"{where}.width", width) / word_bits)
        rates.append(number(path, f"{where}.{key}", value))
    return rates[0], rates[1]


def _level(path: Path, part: _Part, word_bits: int, notes: Notes, *, per_core: bool) -> MemoryLevel:
    read, write = _rates(path, part, word_bits, notes)
    doubled = number(path, f"architecture.{part.name}.attributes.multiple_buffering", part.attributes.get("multiple_buffering", 1)) >= 2
    return MemoryLevel(
        name=safe_name(part.name),
        bytes=max(1, int(_bits(path, part) // 8)),
        read_words_per_cycle=read,
        write_words_per_cycle=write,
        per_core=per_core,
        double_buffered=doubled,
    )


def _dram(path: Path, part: _Part, word_bits: int, options: Options, notes: Notes) -> MemoryLevel:
    found = part.attributes.get("type")
    where = f"architecture.{part.name}.attributes.type"
    kind = dram_kind(options, notes, path, where, None if found is None else str(found))
    read, write = _rates(path, part, word_bits, notes)
    return MemoryLevel(
        name=safe_name(part.name),
        bytes=int(option(options, "dram_gib", notes, what=" GiB of DRAM") * 2**30),
        read_words_per_cycle=read,
        write_words_per_cycle=write,
        kind=kind,
        double_buffered=False,
    )
