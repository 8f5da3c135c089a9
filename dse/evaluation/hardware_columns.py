"""Columns of a list of designs that are fields of a hardware file: the file with their values as knobs, the table by those knobs."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from dse.errors import UsageError
from dse.spaces.hardware import fields_of, with_fields
from dse.text_values import value_of
from hw_models.costs.products_csv import Table


def as_knobs(text: str, table: Table, known: Container[str]) -> tuple[str, Table]:
    """Columns that --set takes of the file ``text`` (``cores``, ``sram_mib``) and that are none of ``known``.

    Returns the text in which each is a knob with the values of its column, and the table with the column named and counted as that knob
    is (``sram_bytes``); both as they were where there is no such column. Raises UsageError where two columns are of one knob.
    """
    fields = fields_of(text)
    at = {name: place for place, name in enumerate(table.columns) if name not in known and name in fields}
    if not at:
        return text, table
    cells = {name: [_value(row[place].strip()) for row in table.rows] for name, place in at.items()}
    distinct = {name: list(dict.fromkeys(values)) for name, values in cells.items()}
    changed, found = with_fields(text, distinct)
    columns, rows = list(table.columns), [list(row) for row in table.rows]
    for name, place in at.items():
        knob, values = found[name]
        if knob in columns and columns.index(knob) != place:
            raise UsageError(f"{table.path}: columns {name} and {table.columns[columns.index(knob)]} are of one knob; keep one of them")
        columns[place] = knob
        counted = dict(zip(distinct[name], values, strict=True))
        for row, value in zip(rows, cells[name], strict=True):
            row[place] = _cell(counted[value])
    return changed, replace(table, columns=tuple(columns), rows=rows)


def _value(cell: str) -> int | float | str:
    """A cell as `value_of` reads it, whole numbers whole (pandas writes 4.0)."""
    value = value_of(cell)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _cell(value: int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
