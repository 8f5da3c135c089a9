"""What the importers share: options, checked fields, safe reading of text and YAML, and the accelerator with its notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dse.errors import DseError, nearest
from hw_models.accelerator.design import Accelerator
from hw_models.accelerator.fields import ArrayKind, Dataflow
from hw_models.accelerator.levels import MemoryLevel
from hw_models.errors import HardwareError
from hw_models.technology.tables import dram_types

# Accelerator descriptions are some kilobytes; what is larger is something else.
MAX_FILE_BYTES = 2**20
# What a description may hold once references between its parts are followed, and how deep: more is an attack, not hardware.
MAX_NODES = 50_000
# Largest number of a field: products of three stay finite; what no chip has is refused where the accelerator is made.
LARGEST = 1e100
MAX_DEPTH = 60


@dataclass(frozen=True)
class Options:
    """What a file may leave open. ``None``: what the file says, or the default that the notes name."""

    name: str | None = None
    frequency_hz: float | None = None
    node_nm: float | None = None
    voltage_v: float | None = None
    word_bits: int | None = None
    dram_type: str | None = None
    dram_gib: float | None = None


DEFAULTS = {"frequency_hz": 1e9, "node_nm": 22.0, "voltage_v": 0.8, "word_bits": 8, "dram_type": "lpddr4", "dram_gib": 1.0}


def _printable(text: str) -> str:
    """``text`` on one line, of printable characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@dataclass
class Notes:
    """What was read, assumed and left out, in the order in which it was met."""

    lines: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Add a note once; it is made one printable line."""
        line = _printable(text)
        if line not in self.lines:
            self.lines.append(line)


@dataclass(frozen=True)
class Imported:
    """An accelerator that was read, and the notes of how."""

    accelerator: Accelerator
    notes: tuple[str, ...]

    def to_toml(self) -> str:
        """The accelerator as a ``--hw`` file, the notes as comments before it."""
        return "\n".join([*(f"# {note}" for note in self.notes), self.accelerator.to_toml()])


def error(path: Path, where: str, value: object, needs: str, near: str | None = None) -> DseError:
    """The error for a field of a file: the file, the field, its value, what is needed and the nearest valid choice."""
    shown = "an integer of many digits" if isinstance(value, int) and value.bit_length() > 128 else repr(value)
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    hint = f"; did you mean {near!r}?" if near else ""
    return DseError(f"{path}: {where} is {shown}; it must be {needs}{hint}")


def missing(path: Path, where: str, needs: str, known: Iterable[str] = ()) -> DseError:
    """The error for a field that is not there; ``known`` are the fields that are, to find a slip of the pen."""
    near = nearest(where.rsplit(".", 1)[-1], known)
    hint = f" (there is {near!r})" if near else ""
    return DseError(f"{path}: {where} is missing{hint}; it must be {needs}")


def read_text(path: Path) -> str:
    """The text of a file of reasonable size."""
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise DseError(f"{path} has {size:,} bytes; an accelerator file has at most {MAX_FILE_BYTES:,}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as failure:
        raise DseError(f"{path} is not a text file in UTF-8") from failure
    except OSError as failure:
        raise DseError(f"{path} cannot be read: {failure.strerror}") from failure


def read_yaml(path: Path) -> Any:
    """A YAML file as plain values; a tagged mapping (``!Component``) gets its tag under the key ``!``. Nothing is constructed."""
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError as failure:
        raise DseError("reading YAML needs pyyaml, which is not installed; pip install 'dse-toolkit[export]' brings it") from failure

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """The safe loader, with tags as plain keys."""

    def tagged(loader: Any, suffix: str, node: Any) -> Any:
        if isinstance(node, yaml.MappingNode):
            return {"!": suffix, **loader.construct_mapping(node, deep=True)}
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Loader.add_multi_constructor("!", tagged)
    text = read_text(path)
    try:
        # The class derives from SafeLoader: it makes mappings, lists and scalars, nothing else.
        document = yaml.load(text, Loader=Loader)  # noqa: S506
        _check_size(document, path)
    except (yaml.YAMLError, RecursionError, ValueError) as failure:
        if isinstance(failure, DseError):
            raise
        problem = " ".join(str(failure).split())[:160]
        raise DseError(f"{path} is not valid YAML: {problem}") from failure
    return document


def _check_size(document: Any, path: Path) -> None:
    """Refuse documents that references blow up or that are nested without end."""
    count = 0
    stack: list[tuple[Any, int]] = [(document, 0)]
    while stack:
        value, depth = stack.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise DseError(f"{path} is too large or too deeply nested for an accelerator file")
        if isinstance(value, Mapping):
            stack += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list):
            stack += [(item, depth + 1) for item in value]


def number(path: Path, where: str, value: Any, *, low: float = 0.0, whole: bool = False, open_low: bool = True) -> float:
    """``value`` as a number above ``low`` (or from it on), or the error that says what is needed."""
    kind = "a whole number" if whole else "a number"
    needs = f"{kind} {'above' if open_low else 'from'} {low:g}{' and' if open_low else ''} up to {LARGEST:g}"
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise error(path, where, value, needs) from None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LARGEST:
        raise error(path, where, value, needs)
    if value < low or (open_low and value == low) or (whole and value != int(value)):
        raise error(path, where, value, needs)
    return float(value)


def option(options: Options, name: str, notes: Notes, found: float | None = None, what: str = "") -> float:
    """The value of an option: given, or found in the file, or the default, which is noted."""
    given = getattr(options, name)
    if given is not None:
        if not 0 < given <= LARGEST:
            raise DseError(f"{name.replace('_', '-')} is {given}; it must be a number above 0 and up to {LARGEST:g}")
        return float(given)
    if found is not None:
        return found
    value = float(DEFAULTS[name])  # type: ignore[arg-type]
    notes.add(f"assumed: {name} = {value:g}{what}")
    return value


def dram_kind(options: Options, notes: Notes, path: Path, where: str = "", found: str | None = None) -> str:
    """The type of the DRAM: given, or what the file says, or the default, which is noted."""
    if options.dram_type is not None:
        kind = options.dram_type.lower()
        if kind not in dram_types():
            raise DseError(
                f"dram-type {options.dram_type!r} is unknown; known are {', '.join(dram_types())}"
                + (f"; did you mean {nearest(kind, dram_types())!r}?" if nearest(kind, dram_types()) else "")
            )
        return kind
    if found is not None:
        kind = found.lower()
        if kind not in dram_types():
            raise error(path, where, found, f"one of {', '.join(dram_types())}, or say --dram-type", nearest(kind, dram_types()))
        return kind
    kind = str(DEFAULTS["dram_type"])
    notes.add(f"assumed: DRAM of type {kind} (energies of another type: --dram-type)")
    return kind


def finish(
    path: Path,
    tool: str,
    options: Options,
    notes: Notes,
    *,
    name: str,
    cores: int,
    rows: int,
    columns: int,
    levels: Iterable[MemoryLevel],
    word_bits: int,
    kind: ArrayKind,
    dataflow: Dataflow,
    register_bytes: int,
    mac_pj: float | None = None,
    frequency_hz: float | None = None,
    node_nm: float | None = None,
) -> Imported:
    """The accelerator from what an importer found; what no such file says is assumed and noted."""
    voltage = option(options, "voltage_v", notes, what=" V, also the nominal voltage")
    notes.add("assumed: a vector unit with one lane a column of the array in every core; these files describe none")
    try:
        accelerator = Accelerator(
            name=_printable(options.name or name) or "imported",
            cores=cores,
            array_rows=rows,
            array_columns=columns,
            vector_lanes=cores * columns,
            levels=tuple(levels),
            frequency_hz=option(options, "frequency_hz", notes, frequency_hz, " Hz"),
            node_nm=option(options, "node_nm", notes, node_nm, " nm (energies and area by our tables)"),
            voltage_v=voltage,
            nominal_v=voltage,
            word_bits=word_bits,
            array_kind=kind,
            dataflow=dataflow,
            register_bytes=register_bytes,
            mac_pj=mac_pj,
            source=_printable(f"imported from {tool}: {path.name}"),
        )
    except HardwareError as failure:
        raise DseError(f"{path}: {failure}") from failure
    dram = accelerator.levels[-1]
    rate = dram.read_words_per_cycle * word_bits / 8 * accelerator.frequency_hz
    notes.add(
        f"the DRAM's bandwidth is {dram.read_words_per_cycle:g} words a cycle, as {tool} files have it: {rate / 1e9:.4g} GB/s at this "
        "clock, and more at a faster one"
    )
    return Imported(accelerator, tuple(notes.lines))
