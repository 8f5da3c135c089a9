"""Tables in, tables out: ``dse carbon batch`` for dies, memory, operation, boards and language-model requests.

The columns of the peers' reference tables are taken as they stand; what they hold as results is passed through untouched, and
``total_kgco2e`` with its parts is added. A bad cell is refused in one sentence with its row (data rows from 1) and column.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from carbon.analysis.batch_columns import COLUMNS, REQUIRED, RESULTS
from carbon.device import device, recipes
from carbon.device.recipes import Profile
from carbon.embodied import act as embodied
from carbon.embodied import memory
from carbon.errors import CarbonError, unknown
from carbon.factors import grid
from carbon.factors import tables as factors
from carbon.factors.values import Values
from carbon.operational import llm, water
from carbon.operational import service as operational

FloatArray = npt.NDArray[np.float64]
KINDS = ("die", "memory", "operation", "pcb", "llm")


@dataclass(frozen=True, slots=True)
class Table:
    """A table with the computed columns appended; ``passed_through`` names columns that were not used."""

    header: list[str]
    rows: list[list[str]]
    added: dict[str, list[str]]
    passed_through: list[str]

    def text(self) -> str:
        """Return the table as CSV."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*self.header, *self.added])
        columns = list(self.added.values())
        for index, row in enumerate(self.rows):
            writer.writerow([*row, *(column[index] for column in columns)])
        return out.getvalue()


def run(path: str | Path, kind: str, profile: str) -> Table:
    """Read a CSV file, compute, and return it with its results.

    Raises:
        CarbonError: unknown kind or profile, an unreadable file, missing columns, or the first bad cell by row and column.
    """
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    recipe = recipes.get(profile)
    header, rows = _read(path)
    used = _match(header, kind)
    cells = {name: _Cells(kind, name, header[at], [row[at] for row in rows]) for name, at in used.items()}
    added = _COMPUTE[kind](cells, recipe, len(rows))
    for name in added:
        if name in header:
            raise CarbonError(f"column {name!r} is in {str(path)!r} already, but it would be added")
    inputs = {header[at] for at in used.values()}
    left = [name for name in header if name not in inputs and name not in RESULTS]
    return Table(header, rows, {name: [_shown(value) for value in values] for name, values in added.items()}, left)


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, (bool, np.bool_)) else repr(float(value))


def _read(path: str | Path) -> tuple[list[str], list[list[str]]]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise CarbonError(f"table {str(path)!r} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError as problem:
        raise CarbonError(f"table {str(path)!r} is not UTF-8 text (byte {problem.start})") from None
    try:
        rows = [row for row in csv.reader(io.StringIO(text), strict=True) if row]
    except csv.Error as problem:
        raise CarbonError(f"table {str(path)!r} is not CSV: {problem}") from None
    if not rows:
        raise CarbonError(f"table {str(path)!r} is empty")
    header = [name.strip() for name in rows[0]]
    for name in header:
        if header.count(name) > 1:
            raise CarbonError(f"column {name!r} occurs twice in table {str(path)!r}")
    if len(rows) == 1:
        raise CarbonError(f"table {str(path)!r} has a header and no rows")
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise CarbonError(f"row {number} of table {str(path)!r} has {len(row)} cells, but the header has {len(header)}")
    return header, rows[1:]


def _match(header: Sequence[str], kind: str) -> dict[str, int]:
    """Input name -> column index; refuses two spellings of one input, missing inputs, and near misses."""
    columns = COLUMNS[kind]
    found: dict[str, int] = {}
    for name, column in columns.items():
        present = [spelling for spelling in column.names if spelling in header]
        if len(present) > 1:
            raise CarbonError(f"columns {present[0]!r} and {present[1]!r} mean the same, but only one may be given")
        if present:
            found[name] = header.index(present[0])
    spellings = [spelling for column in columns.values() for spelling in column.names]
    used = {header[at] for at in found.values()}
    for name in header:
        if name in used or name in RESULTS:
            continue
        near = difflib.get_close_matches(name.lower(), spellings, n=1, cutoff=0.8)
        if near and near[0] not in used:
            raise CarbonError(f"column {name!r} is unknown; nearest known: {near[0]}")
    for name in REQUIRED[kind]:
        if name not in found:
            spare = [each for each in header if each not in used and each not in RESULTS]
            close = difflib.get_close_matches(columns[name].names[0], spare, n=1, cutoff=0.5)
            hint = f"; nearest in the table: {close[0]!r}" if close else ""
            raise CarbonError(f"column {columns[name].names[0]!r} is missing, but kind {kind!r} needs it{hint}")
    return found


class _Cells:
    """One column: text or checked numbers, with errors that name row and column."""

    def __init__(self, kind: str, name: str, spelling: str, texts: list[str]) -> None:
        self.column = COLUMNS[kind][name]
        self.spelling = spelling
        self.texts = [text.strip() for text in texts]
        for row, text in enumerate(self.texts, 1):
            if not text:
                raise self.error(row, "the cell is empty")
        self.numbers: FloatArray = np.empty(0) if self.column.text else self._parse()

    def error(self, row: int, sentence: str) -> CarbonError:
        """Build the error for a row (from 1)."""
        return CarbonError(f"row {row}, column {self.spelling!r}: {sentence}")

    def _parse(self) -> FloatArray:
        column = self.column
        values = np.empty(len(self.texts))
        for row, text in enumerate(self.texts, 1):
            try:
                value = float(text)
            except ValueError:
                raise self.error(row, f"{text!r} is not a number") from None
            low_broken = column.low is not None and (value <= column.low if column.open_low else value < column.low)
            if not np.isfinite(value) or low_broken or (column.high is not None and value > column.high):
                raise self.error(row, f"{text} is out of range ({self._allowed()})")
            if column.whole and value != round(value):
                raise self.error(row, f"{text} is not a whole number")
            values[row - 1] = value
        return values * (column.scale or {}).get(self.spelling, 1.0)

    def _allowed(self) -> str:
        column = self.column
        parts = ["finite"]
        if column.low is not None:
            parts.append(f"{'above' if column.open_low else 'at least'} {column.low:g}")
        if column.high is not None:
            parts.append(f"at most {column.high:g}")
        return ", ".join(parts)


Cells = Mapping[str, _Cells]
Columns = dict[str, Any]  # name -> one value a row


def _intensity(cells: Cells, names: str, numbers: str, recipe: Profile, role: str, count: int) -> FloatArray | None:
    """Grid intensities from names, numbers or both; where both are given they must agree."""
    named = None
    if names in cells:
        column = cells[names]
        known: dict[str, float] = {}
        named = np.empty(count)
        for row, text in enumerate(column.texts, 1):
            if text not in known:
                try:
                    known[text] = grid.lookup(text, role=role, order=recipe.grid_order).gco2e_per_kwh
                except CarbonError as problem:
                    raise column.error(row, str(problem)) from None
            named[row - 1] = known[text]
    if numbers not in cells:
        return named
    given = cells[numbers].numbers
    if named is not None:
        # both come from the same tables where they agree; 1e-6 is far above any rounding and far below any real difference
        apart = np.flatnonzero(np.abs(given - named) > 1e-6 * np.maximum(named, 1.0))
        if apart.size:
            at = int(apart[0])
            place = cells[names].texts[at]
            raise cells[numbers].error(
                at + 1, f"{given[at]:g} g/kWh contradicts {place!r}, which is {named[at]:g} in profile {recipe.name!r}"
            )
    return given


def _groups(keys: Sequence[tuple[Any, ...]]) -> dict[tuple[Any, ...], npt.NDArray[np.int64]]:
    found: dict[tuple[Any, ...], list[int]] = {}
    for index, key in enumerate(keys):
        found.setdefault(key, []).append(index)
    return {key: np.asarray(rows, dtype=np.int64) for key, rows in found.items()}


def _die(cells: Cells, recipe: Profile, count: int) -> Columns:
    intensity = _intensity(cells, "fab_grid", "ci_g_per_kwh", recipe, "fab", count) if recipe.fab_grid else None
    if recipe.fab_grid is None:
        for name in ("fab_grid", "ci_g_per_kwh", "abatement_pct"):
            if name in cells:
                raise cells[name].error(1, f"profile {recipe.name!r} has its carbon per area fixed by node")
    node = cells["node"]
    nodes = []
    for row, text in enumerate(node.texts, 1):
        try:
            nodes.append(factors.parse_node(text))
        except CarbonError as problem:
            raise node.error(row, str(problem)) from None
    texts = [cells[name].texts if name in cells else [None] * count for name in ("package", "yield_model")]
    levels: list[Any] = cells["abatement_pct"].numbers.tolist() if "abatement_pct" in cells else [None] * count
    arrays = [name for name in ("area_mm2", "fab_yield", "n_ics", "wafer_mm", "d0_per_cm2", "alpha", "dies") if name in cells]
    parts: dict[str, FloatArray] = {}
    total, good, feasible = np.zeros(count), np.zeros(count), np.ones(count, dtype=bool)
    for key, rows in _groups(list(zip(nodes, levels, *texts, strict=True))).items():
        at, level, package, model = key
        inputs: dict[str, Any] = {name: cells[name].numbers[rows] for name in arrays}
        inputs.update(node_nm=at, abatement_pct=level, package=package, yield_model=model)
        if recipe.package == "ic" and "n_ics" not in cells:
            inputs["n_ics"] = 0.0  # ACT's own default: packages are counted where a table counts them
        if intensity is not None:
            inputs["ci_g_per_kwh"] = intensity[rows]
        try:
            built = device.device_embodied(recipe, **{name: value for name, value in inputs.items() if value is not None})
        except CarbonError as problem:
            raise _blame(cells, int(rows[0]) + 1, str(problem)) from None
        for name, part in built.parts.items():
            parts.setdefault(f"{name}_kgco2e", np.zeros(count))[rows] = part
        total[rows], good[rows], feasible[rows] = built.embodied_kgco2e, built.fab_yield, built.feasible
    lost = np.flatnonzero(~np.isfinite(total))
    if lost.size:
        row = int(lost[0])
        raise cells["area_mm2"].error(row + 1, f"a die of {cells['area_mm2'].texts[row]} mm2 does not fit the wafer")
    return {**parts, "yield": good, "feasible": feasible.tolist(), "total_kgco2e": total}


#: Words of an error -> the column to blame for it.
_BLAME = {
    "node_nm": "node",
    "abatement": "abatement_pct",
    "gas tables": "abatement_pct",
    "d0_per_cm2": "d0_per_cm2",
    "alpha": "alpha",
    "yield_model": "yield_model",
    "package": "package",
    "fab_yield": "fab_yield",
    "wafer": "wafer_mm",
    "dies": "dies",
    "memory_type": "process",
    "memory year": "year",
    "memory_modules": "modules",
    " type ": "process",
    "storage kind": "kind",
}


def _blame(cells: Cells, row: int, sentence: str) -> CarbonError:
    for word, name in _BLAME.items():
        if word in sentence and name in cells:
            return cells[name].error(row, sentence)
    return CarbonError(f"row {row}: {sentence}")


def _memory(cells: Cells, recipe: Profile, count: int) -> Columns:
    if recipe.memory == "none":
        raise CarbonError(f"profile {recipe.name!r} models silicon dies only, but kind 'memory' needs a memory model")
    gb = cells["capacity_gb"].numbers
    held, packed = np.zeros(count), np.zeros(count)
    if recipe.memory == "own":
        for name in ("fab_yield", "n_ics"):
            if name in cells:
                raise cells[name].error(1, f"profile {recipe.name!r} takes memory by die density of its year, not by {name}")
    for name in ("modules", "year"):
        if name in cells and recipe.memory == "act":
            raise cells[name].error(1, f"profile {recipe.name!r} has no such input")
    kinds = cells["kind"].texts if "kind" in cells else ["dram"] * count
    keys = list(zip(kinds, cells["process"].texts, strict=True))
    for (of, process), rows in _groups(keys).items():
        row = int(rows[0]) + 1
        try:
            if recipe.memory == "act":
                held[rows] = _act_memory(cells, recipe, of, process, rows)
            else:
                held[rows] = _own_memory(cells, of, process, gb, rows)
        except CarbonError as problem:
            raise _blame(cells, row, str(problem)) from None
    if recipe.package == "ic" and "n_ics" in cells:
        packed = embodied.ic_packaging(cells["n_ics"].numbers)
    return {"memory_kgco2e": held, "packaging_kgco2e": packed, "total_kgco2e": held + packed}


def _act_memory(cells: Cells, recipe: Profile, of: str, process: str, rows: npt.NDArray[np.int64]) -> FloatArray:
    kind = factors.memory(process, source_id="act") if of == "dram" else factors.storage(of, process)
    good = cells["fab_yield"].numbers[rows] if "fab_yield" in cells else recipe.memory_yield
    return np.asarray(embodied.capacity(cells["capacity_gb"].numbers[rows], kind.per_gb.value, good), dtype=np.float64)


def _own_memory(cells: Cells, of: str, process: str, gb: FloatArray, rows: npt.NDArray[np.int64]) -> FloatArray:
    values = Values()
    found = np.zeros(rows.size)
    modules = cells["modules"].numbers if "modules" in cells else np.zeros(gb.size)
    for position, row in enumerate(rows.tolist()):
        year = int(cells["year"].numbers[row]) if "year" in cells else None
        if of == "dram":
            found[position] = memory.embodied(values, process, float(gb[row]), modules=float(modules[row]), year=year)
        elif of == "ssd":
            found[position] = memory.flash(values, float(gb[row]), drives=float(modules[row]), year=year)
        else:
            raise unknown("storage kind", of, ("dram", "ssd"))
    return found


def _operation(cells: Cells, recipe: Profile, count: int) -> Columns:
    if "kind" in cells:
        for row, text in enumerate(cells["kind"].texts, 1):
            if text not in ("op", "operation"):
                raise cells["kind"].error(row, f"{text!r} is not an operation; allowed: op")
    intensity = _intensity(cells, "grid", "ci_g_per_kwh", recipe, "use", count)
    if intensity is None:
        raise CarbonError("column 'op_ci' is missing, but operation needs op_ci (a place) or ci_g_per_kwh (a number)")

    def numbers(name: str, default: float) -> Any:
        return cells[name].numbers if name in cells else default

    shared = {
        "lifetime_years": cells["lifetime_years"].numbers,
        "gco2e_per_kwh": intensity,
        "pue": numbers("pue", 1.0),
        "days_per_year": recipe.days_per_year,
    }
    duty = numbers("duty_cycle", 1.0)
    active = operational.power_hours(cells["power_w"].numbers, duty_cycle=duty, **shared)
    idle = operational.power_hours(numbers("idle_w", 0.0), duty_cycle=1.0 - duty, **shared) + np.zeros(count)
    return {"active_kgco2e": active, "idle_kgco2e": idle, "total_kgco2e": active + idle}


def _pcb(cells: Cells, recipe: Profile, count: int) -> Columns:
    if "kind" in cells:
        for row, text in enumerate(cells["kind"].texts, 1):
            if text != "pcb":
                raise cells["kind"].error(row, f"{text!r} is not a board; allowed: pcb")
    area = cells["area_cm2"].numbers
    if recipe.name == "act2":
        return {"total_kgco2e": np.asarray(embodied.pcb_act(area, cells["layers"].numbers), dtype=np.float64) + np.zeros(count)}
    if not recipe.blocks:
        raise CarbonError(f"profile {recipe.name!r} has no boards; profiles 'act2' and 'default' have")
    return {"total_kgco2e": area * factors.item("pcb_kgco2e_cm2").value}


def _llm(cells: Cells, recipe: Profile, count: int) -> Columns:
    def numbers(name: str, default: float) -> Any:
        return cells[name].numbers if name in cells else default

    if "mix_gwp_kg_kwh" in cells:
        intensity = cells["mix_gwp_kg_kwh"].numbers * 1000.0
    elif "zone" in cells:
        intensity = np.empty(count)
        for row, text in enumerate(cells["zone"].texts, 1):
            try:
                intensity[row - 1] = grid.lookup(f"ecologits:{text}").gco2e_per_kwh
            except CarbonError as problem:
                raise cells["zone"].error(row, str(problem)) from None
    else:
        raise CarbonError("column 'mix_gwp_kg_kwh' is missing, but requests need it or zone")
    mix: Any = numbers("mix_wue", 0.0)
    if "mix_wue" not in cells and "zone" in cells and "dc_wue" in cells:
        mix = np.array([water.mix_litres_per_kwh(zone) for zone in cells["zone"].texts])
    answer = llm.request(
        cells["active_b"].numbers,
        cells["total_b"].numbers,
        cells["out_tokens"].numbers,
        gco2e_per_kwh=intensity,
        pue=numbers("pue", 1.2),
        batch=numbers("batch", 64.0),
        bits=numbers("bits", 16.0),
        water_mix_l_per_kwh=mix,
        wue_l_per_kwh=numbers("dc_wue", 0.0),
    )
    return {
        "use_kgco2e": answer.use_kgco2e,
        "embodied_kgco2e": answer.embodied_kgco2e,
        "total_kgco2e": answer.total_kgco2e,
        "energy_kwh_used": answer.energy_kwh,
        "water_litres": answer.water_l + np.zeros(count),
    }


_COMPUTE: dict[str, Callable[[Cells, Profile, int], Columns]] = {
    "die": _die,
    "memory": _memory,
    "operation": _operation,
    "pcb": _pcb,
    "llm": _llm,
}
