"""CSV files in and out: matrix products on designs (`evaluate_gemms`).

Every column of the input is kept; the results are added after them. A row names its hardware by the knobs and
settings of the template; what a row does not name comes from ``defaults``. Errors name the file, the line and the
column.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hw_models import spaces as templates
from hw_models.accelerator.design import Accelerator, AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.costs.kernels import kernel_costs, times_of
from hw_models.costs.products import search_products
from hw_models.costs.unit_costs import Criterion, check_criterion, empty_costs
from hw_models.errors import HardwareError, nearest
from hw_models.technology.closed_forms import energy_j
from workloads.ops import Kind, Operation, OperationTable

if TYPE_CHECKING:
    from dse_kernels.mapping import MappingColumns

GEMM_COLUMNS = ("batch", "m", "n", "k")
SHARED_COLUMN = "shared_weights"
BITS_COLUMNS = ("weight_bits", "activation_bits")
RESULT_BITS = 16  # what kernels of GPUs and processors write, whatever they read
GEMM_RESULTS = ("cycles", "latency_s", "energy_j", "utilisation", "bound", "mapping")
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """A CSV file: its path, its column names, its rows of text."""

    path: str
    columns: tuple[str, ...]
    rows: list[list[str]]

    def number(self, row: int, column: str) -> int | float:
        """The cell as a number, or an error naming it."""
        text = self.rows[row][self.columns.index(column)].strip()
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise HardwareError(f"{self.path}, line {row + 2}: {column} = {text!r} is not a number")
        return int(value) if value == int(value) else value


def read_csv(path: str | Path) -> Table:
    """Read a CSV file with one header line; blank lines are passed over."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except FileNotFoundError:
        raise HardwareError(f"input file {str(path)!r} does not exist") from None
    except OSError as error:
        raise HardwareError(f"input file {str(path)!r} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise HardwareError(f"input file {str(path)!r} is not a CSV file: {error}") from None
    if len(lines) < 2:
        raise HardwareError(f"input file {str(path)!r} needs a header line and at least one row, got {len(lines)} lines")
    columns = tuple(cell.strip() for cell in lines[0])
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise HardwareError(f"input file {str(path)!r} has column {twice[0]!r} twice")
    for i, line in enumerate(lines[1:]):
        if len(line) != len(columns):
            raise HardwareError(f"{path}, line {i + 2}: {len(line)} cells under {len(columns)} columns")
    return Table(str(path), columns, lines[1:])


def write_csv(path: str | Path, table: Table, added: Mapping[str, Sequence[object]]) -> None:
    """Write the rows of ``table`` with the columns of ``added`` after them; an existing column of that name is
    replaced.
    """
    kept = [i for i, name in enumerate(table.columns) if name not in added]
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*(table.columns[i] for i in kept), *added])
            for r, row in enumerate(table.rows):
                writer.writerow([*(row[i] for i in kept), *(_cell(values[r]) for values in added.values())])
    except OSError as error:
        raise HardwareError(f"output file {str(path)!r} cannot be written: {error.strerror}") from None


def _cell(value: object) -> object:
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return "" if value is None else value


def load_hardware(hw: str | Path | templates.Template | Accelerator, profile: str | None) -> templates.Template | Accelerator:
    """A template by name, or a user's file where ``hw`` ends in .toml; a template or a design itself as it is."""
    if isinstance(hw, (templates.Template, Accelerator)):
        return hw
    if str(hw).endswith(".toml"):
        return templates.load_file(hw, profile=profile)
    return templates.load(str(hw), profile=profile or "default")


class _Designs:
    """The distinct designs that the rows of a table name, and the design of each row."""

    def __init__(self, table: Table, hardware: templates.Template | Accelerator, defaults: Mapping[str, Any], other: Sequence[str]) -> None:
        own = () if isinstance(hardware, Accelerator) else (*hardware.knobs, *hardware.settings)
        for name in table.columns:
            if name not in own and name not in other:
                close = nearest(name, (*own, *other))
                hint = f"; did you mean {close!r}?" if close else ""
                raise HardwareError(f"{table.path}: unknown column {name!r}: allowed are {', '.join((*other, *own))}{hint}")
        if isinstance(hardware, Accelerator):
            self.batch: AcceleratorBatch = hardware.batch()
            self.of_row: IntArray = np.zeros(len(table.rows), dtype=np.int64)
            return
        given = [name for name in own if name in table.columns]
        missing = [name for name in hardware.knobs if name not in given and name not in defaults]
        if missing:
            raise HardwareError(
                f"{table.path}: template {hardware.name} needs a column for {', '.join(missing)} "
                f"(or a value for all rows); columns are {', '.join(table.columns)}"
            )
        fixed = {name: value for name, value in defaults.items() if name not in given}
        keys: dict[tuple[Any, ...], int] = {}
        of_row = []
        for i in range(len(table.rows)):
            key = tuple(self._value(table, i, name, hardware) for name in given)
            if key not in keys:
                self._check(table, i, hardware, {**fixed, **dict(zip(given, key, strict=True))})
            of_row.append(keys.setdefault(key, len(keys)))
        values = {name: np.array([key[j] for key in keys]) for j, name in enumerate(given)}
        self.batch = hardware.batch(**{**fixed, **values})
        self.of_row = np.array(of_row, dtype=np.int64)

    @staticmethod
    def _value(table: Table, row: int, name: str, hardware: templates.Template) -> Any:
        default = hardware.knobs[name][0] if name in hardware.knobs else hardware.settings[name]
        if isinstance(default, str):
            return table.rows[row][table.columns.index(name)].strip()
        return table.number(row, name)

    @staticmethod
    def _check(table: Table, row: int, hardware: templates.Template, knobs: Mapping[str, Any]) -> None:
        try:
            hardware.check(**knobs)
        except HardwareError as error:
            raise HardwareError(f"{table.path}, line {row + 2}: {error}") from None


def mapping_text(mapping: MappingColumns, shape: int, point: int, levels: Sequence[str]) -> str:
    """One mapping as a line of text: cores, array, and from the innermost level the tile of each with its innermost
    loop.
    """

    def sizes(values: Sequence[int]) -> str:
        return " ".join(f"{name}{int(v)}" for name, v in zip(("m", "n", "k", "b"), values, strict=False))

    at = (shape, point)
    parts = [f"cores {sizes(mapping.split[at])}", f"array {sizes(mapping.unroll[at])}"]
    if (mapping.register_tile[at] != 1).any():
        parts.append(f"registers {sizes(mapping.register_tile[at])}")
    for i, level in enumerate(levels[:-1]):
        parts.append(f"{level} tile {sizes(mapping.tile[at][i])} inner {'mnk'[int(mapping.stationary[at][i])]}")
    parts.append(f"{levels[-1]} inner {'mnk'[int(mapping.stationary[at][len(levels) - 1])]}")
    return "; ".join(parts)


def evaluate_gemms(
    path_in: str | Path,
    hw: str | Path | templates.Template | Accelerator,
    profile: str | None,
    path_out: str | Path,
    *,
    defaults: Mapping[str, Any] | None = None,
    criterion: Criterion = "edp",
    threads: int | None = None,
    as_read: Table | None = None,
) -> int:
    """Cost the matrix products of a CSV file; returns the number of rows written.

    Columns in: m, n, k, and where given batch (1) (``out[b, m, n] = in[b, m, k] x second[b, k, n]``), weight_bits and
        activation_bits of the second and the first operand (8 on arrays that mappings are searched for, 16 where kernels run),
        ``shared_weights`` (1: the batch shares the second operand), and any knob or setting of the hardware. Columns added: cycles,
        latency_s, energy_j (dynamic and idle), utilisation (of the peak at that format), bound, mapping (empty for kernels). A
        product runs on one chip, whatever ``chips`` says: how chips share it depends on the model around it. Kernels are costed
        as benchmarks run them: one kernel again and again on a few copies of its operands, which caches may hold.
        ``as_read``: the same rows with the columns of the hardware named as its knobs are, where the file names them otherwise.
    """
    check_criterion(criterion)
    table = read_csv(path_in)
    hardware = load_hardware(hw, profile)
    for name in ("m", "n", "k"):
        if name not in table.columns:
            raise HardwareError(f"{table.path}: column {name!r} is missing; columns are {', '.join(table.columns)}")
    other = [*GEMM_COLUMNS, *BITS_COLUMNS, SHARED_COLUMN, *GEMM_RESULTS]
    own = () if isinstance(hardware, Accelerator) else (*hardware.knobs, *hardware.settings)
    designs = _Designs(as_read or table, hardware, defaults or {}, [name for name in other if name not in own or name in GEMM_COLUMNS])
    given = [[_dimension(table, i, n) if n in table.columns else 1 for n in GEMM_COLUMNS] for i in range(len(table.rows))]
    shapes = np.array(given, dtype=np.int64)
    shared = np.zeros(len(shapes), dtype=bool)
    if SHARED_COLUMN in table.columns:
        shared = np.array([table.number(i, SHARED_COLUMN) == 1 for i in range(len(shapes))])
    kernels = bool((designs.batch.execution != Execution.MAPPED).any())
    usual = 16 if kernels else 8
    bits = np.full((len(shapes), 3), usual, dtype=np.int64)
    for column, name in ((1, "weight_bits"), (0, "activation_bits")):
        if name in table.columns:
            bits[:, column] = [_dimension(table, i, name) for i in range(len(shapes))]
    bits[:, 2] = RESULT_BITS if kernels else bits[:, 0]
    added: dict[str, list[Any]] = {name: [None] * len(shapes) for name in GEMM_RESULTS}
    keys, of_key = np.unique(np.column_stack([shapes, shared, bits]), axis=0, return_inverse=True)
    cost = _by_kernels if kernels else _by_mappings
    cost(keys, of_key.reshape(-1), designs, added, criterion, threads if threads is not None else (os.cpu_count() or 1))
    write_csv(path_out, table, added)
    return len(table.rows)


def _by_mappings(
    keys: IntArray, of_key: IntArray, designs: _Designs, added: dict[str, list[Any]], criterion: Criterion, workers: int
) -> None:
    """Fill the results of products that a mapping search costs."""
    batch = designs.batch
    # Search by the side with fewer members: each of its members with exactly the partners that the file asks for.
    by_shape = len(keys) <= len(batch)
    sides = (of_key, designs.of_row) if by_shape else (designs.of_row, of_key)
    for member in range(int(sides[0].max()) + 1):
        rows = np.flatnonzero(sides[0] == member)
        partners, place = np.unique(sides[1][rows], return_inverse=True)
        chosen = keys[[member]] if by_shape else keys[partners]
        points = batch.take(partners) if by_shape else batch.take([member])
        found = search_products(
            chosen[:, :4], chosen[:, 4] == 1, points, bits=chosen[:, 5:8].astype(np.float64), criterion=criterion, threads=workers
        )
        for row, at in zip(rows, place.reshape(-1), strict=True):
            s, p = (0, int(at)) if by_shape else (int(at), 0)
            latency = float(found.cycles[s, p] / points.frequency_hz[p])
            macs = float(np.prod(chosen[s, :4], dtype=np.float64))
            peak = float(points.cores[p] * points.array_rows[p] * points.array_columns[p])
            assert found.mapping is not None
            added["cycles"][row] = float(found.cycles[s, p])
            added["latency_s"][row] = latency
            added["energy_j"][row] = float(energy_j(found.energy_pj[s, p] * 1e-12, points.leakage_w[p] / points.all_chips[p], latency))
            added["utilisation"][row] = macs / (float(found.cycles[s, p]) * peak)
            added["bound"][row] = found.bound(s, p)
            added["mapping"][row] = mapping_text(found.mapping, s, p, points.level_names)


def _by_kernels(
    keys: IntArray, of_key: IntArray, designs: _Designs, added: dict[str, list[Any]], criterion: Criterion, workers: int
) -> None:
    """Fill the results of products that kernels run."""
    batch = designs.batch
    table = OperationTable.from_rows(
        [
            Operation(
                f"row {i}", Kind.GEMM, int(m), int(n), int(k), batch=int(b), second_is_weight=bool(shared) or b == 1, input_bits=int(first),
                weight_bits=int(second), output_bits=int(out),
            )
            for i, (b, m, n, k, shared, first, second, out) in enumerate(keys)
        ]
    )  # fmt: skip
    costs = empty_costs(len(keys), batch)
    kernel_costs(table, batch, np.arange(len(batch)), costs, warm=True)
    macs = keys[:, :4].prod(axis=1, dtype=np.float64)
    rate = [times_of(table, batch, p, warm=True).rate for p in range(len(batch))]
    for row, (s, p) in enumerate(zip(of_key.tolist(), designs.of_row.tolist(), strict=True)):
        latency = float(costs.latency_s[s, p])
        added["cycles"][row] = latency * float(batch.frequency_hz[p])
        added["latency_s"][row] = latency
        added["energy_j"][row] = float(energy_j(costs.energy_j[s, p], batch.leakage_w[p] / batch.all_chips[p], latency))
        added["utilisation"][row] = macs[s] / (float(batch.tops[p] / batch.all_chips[p]) * 0.5e12 * float(rate[p][s]) * latency)
        added["bound"][row] = costs.bound_names[int(costs.bound[s, p])]
        added["mapping"][row] = ""


def _dimension(table: Table, row: int, name: str) -> int:
    value = table.number(row, name)
    if not isinstance(value, int) or not 1 <= value < 2**62:
        shown = f"{value}" if not isinstance(value, int) or abs(value) < 2**62 else f"a number of {value.bit_length()} bits"
        raise HardwareError(f"{table.path}, line {row + 2}: {name} = {shown} is not valid: a dimension is a whole number from 1 to 2^62")
    return value
