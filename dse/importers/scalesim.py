"""SCALE-Sim: configurations (.cfg) as accelerators, topologies (.csv) as workloads."""

from __future__ import annotations

import configparser
import csv
import re
from pathlib import Path

from dse.errors import DseError, nearest
from dse.importers.base import Imported, Notes, Options, dram_kind, error, finish, missing, number, option, read_text
from hw_models.accelerator.fields import ArrayKind, Dataflow
from hw_models.accelerator.levels import MemoryLevel
from workloads.filters import filter_fields
from workloads.ops import Kind, Operation, OperationTable
from workloads.records import Phase, Workload

SECTION = "architecture_presets"
# Names of a field in SCALE-Sim 2 and 3.
_FIELDS = {
    "rows": ("arrayheight",),
    "columns": ("arraywidth",),
    "ifmap": ("ifmapsramszkb", "ifmapsramsz"),
    "filter": ("filtersramszkb", "filtersramsz"),
    "ofmap": ("ofmapsramszkb", "ofmapsramsz"),
    "dataflow": ("dataflow",),
    "bandwidth": ("bandwidth",),
}
_SHOWN = {"rows": "ArrayHeight", "columns": "ArrayWidth", "ifmap": "IfmapSramSzkB", "filter": "FilterSramSzkB",
          "ofmap": "OfmapSramSzkB", "dataflow": "Dataflow", "bandwidth": "Bandwidth"}  # fmt: skip
_GEMM_COLUMNS = 4  # layer, M, N, K
_CONV_COLUMNS = 8  # layer, ifmap height and width, filter height and width, channels, filters, strides


def read(path: Path, options: Options) -> Imported:
    """A .cfg file as an accelerator: one systolic array with a buffer for each operand."""
    if path.suffix.lower() == ".csv":
        raise DseError(
            f"{path} is a SCALE-Sim topology, which is a workload and not an accelerator; dse.importers.scalesim.read_topology reads it"
        )
    notes = Notes()
    values = _section(path)
    rows, columns = (int(_number(path, values, name, whole=True)) for name in ("rows", "columns"))
    sizes = {name: int(_number(path, values, name) * 1024) for name in ("ifmap", "filter", "ofmap")}
    flows = {"os": Dataflow.OS, "ws": Dataflow.WS, "is": Dataflow.IS}
    text = _text(path, values, "dataflow").strip().lower()
    if text not in flows:
        raise error(path, f"{SECTION}.Dataflow", text, f"one of {', '.join(flows)}", nearest(text, flows))
    bandwidth = _bandwidth(path, values)
    word_bits = options.word_bits or 8
    notes.add("a SCALE-Sim word is one byte")
    equal = len(set(sizes.values())) == 1
    if not equal:
        notes.add(
            "the three buffers differ in size "
            f"({', '.join(f'{name} {size // 1024} KiB' for name, size in sizes.items())}); here they are one memory of their total"
        )
    notes.add("assumed: the buffers deliver a word to every row and column in each cycle (SCALE-Sim's stall-free mode)")
    levels = [
        MemoryLevel(
            name="sram",
            bytes=sizes["ifmap"] if equal else sum(sizes.values()),
            read_words_per_cycle=rows + columns,
            write_words_per_cycle=rows + columns,
            shared=not equal,
            double_buffered=True,
        ),
        MemoryLevel(
            name="dram",
            bytes=int(option(options, "dram_gib", notes, what=" GiB of DRAM") * 2**30),
            read_words_per_cycle=bandwidth,
            write_words_per_cycle=bandwidth,
            kind=dram_kind(options, notes, path),
            double_buffered=False,
        ),
    ]
    return finish(
        path, "SCALE-Sim", options, notes, name=path.stem, cores=1, rows=rows, columns=columns, levels=levels, word_bits=word_bits,
        kind=ArrayKind.SYSTOLIC, dataflow=flows[text], register_bytes=max(1, word_bits // 8),
    )  # fmt: skip


def _section(path: Path) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read_text(path))
    except configparser.Error as failure:
        raise DseError(f"{path} is not a SCALE-Sim configuration: {' '.join(str(failure).split())[:160]}") from failure
    if not parser.has_section(SECTION):
        raise missing(path, f"section [{SECTION}]", "there", parser.sections())
    return dict(parser.items(SECTION))


def _text(path: Path, values: dict[str, str], name: str) -> str:
    for field in _FIELDS[name]:
        if field in values:
            return values[field]
    raise missing(path, f"{SECTION}.{_SHOWN[name]}", "given", values)


def _number(path: Path, values: dict[str, str], name: str, *, whole: bool = False) -> float:
    return number(path, f"{SECTION}.{_SHOWN[name]}", _text(path, values, name).strip(), whole=whole)


def _bandwidth(path: Path, values: dict[str, str]) -> float:
    """Words a cycle: one number, or the least of a list."""
    parts = [part for part in _text(path, values, "bandwidth").replace(";", ",").split(",") if part.strip()]
    if not parts:
        raise error(path, f"{SECTION}.Bandwidth", "", "a number above 0")
    return min(number(path, f"{SECTION}.Bandwidth", part.strip()) for part in parts)


def read_topology(path: str | Path) -> Workload:
    """A topology .csv as a workload: lines of ``name, M, N, K,`` or of convolutions; a convolution becomes its im2col product.

    As SCALE-Sim's own topologies are written: the first line holds titles, lines of one cell are headings, what follows a ``#`` or an
    empty cell is a remark, tabs may stand for commas, a layer with ``DP`` in its name runs once a channel (depthwise), and a
    last column ``N:M`` is a sparsity, which is counted as dense and said in ``assumptions``. Raises DseError with file, line
    and field. Layers run once each; every weight is a parameter.
    """
    place = Path(path)
    lines = read_text(place).splitlines()
    tabs = bool(lines) and "\t" in lines[0] and "," not in lines[0]
    rows = [(line, _cells(row)) for line, row in enumerate(csv.reader(lines, delimiter="\t" if tabs else ","), 1)]
    layers = [(line, row) for line, row in rows[1:] if len(row) > 1]
    if not layers:
        raise DseError(f"{place} holds no layer; a topology has a line of titles and one line a layer")
    operations, sparse = [], 0
    for line, row in layers:
        dense = row[:-1] if _SPARSITY.fullmatch(row[-1]) else row
        sparse += dense is not row and row[-1].replace(" ", "") not in ("1:1", "")
        operations.append(_layer(place, line, dense))
    table = OperationTable.from_rows(operations)
    said = (f"the sparsity of {sparse} layers of {place.name} is not modelled: they are counted as dense",) if sparse else ()
    return Workload(name=place.stem, family="imported", phases=(Phase("forward", table),), assumptions=said)


_SPARSITY = re.compile(r"\d{1,6}\s*:\s*\d{1,6}")


def _cells(row: list[str]) -> list[str]:
    """The cells of a line without remarks: up to the first that is empty or begins with ``#``."""
    cells = [cell.strip() for cell in row]
    end = next((i for i, cell in enumerate(cells) if not cell or cell.startswith("#")), len(cells))
    return cells[:end]


def _layer(path: Path, line: int, row: list[str]) -> Operation:
    def value(place: int, title: str) -> int:
        return int(number(path, f"line {line}, {title}", row[place], whole=True))

    if len(row) == _GEMM_COLUMNS:
        m, n, k = (value(i, title) for i, title in ((1, "M"), (2, "N"), (3, "K")))
        return Operation(row[0], Kind.GEMM, m, n, k, component="layer", second_is_weight=True, parameters=n * k, weight_id=f"{line}")
    if len(row) not in (_CONV_COLUMNS, _CONV_COLUMNS + 1):
        raise DseError(
            f"{path}: line {line} has {len(row)} fields; a product has 4 (name, M, N, K), a convolution 8 (name, ifmap height and width, "
            "filter height and width, channels, filters, stride)"
        )
    titles = ("ifmap height", "ifmap width", "filter height", "filter width", "channels", "filters", "stride height")
    high, wide, tall, broad, channels, filters, stride = (value(i, title) for i, title in enumerate(titles, 1))
    across = value(8, "stride width") if len(row) > _CONV_COLUMNS else stride
    if tall > high or broad > wide:
        raise DseError(f"{path}: line {line} has a filter of {tall} x {broad} on a map of {high} x {wide}; it must fit")
    m = ((high - tall) // stride + 1) * ((wide - broad) // across + 1)
    groups = channels if "DP" in row[0] else 1
    k = tall * broad * channels // groups
    return Operation(
        row[0], Kind.CONV, m, filters, k, groups=groups, component="layer", second_is_weight=True, parameters=groups * filters * k,
        weight_id=f"{line}",
        input_elements=high * wide * channels, **filter_fields([high, wide], [tall, broad], [stride, across]),
    )  # fmt: skip
