"""Rows of plain values as a table that a person, a spreadsheet, a program or a page can read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dse.errors import unknown_name

FORMATS = ("text", "csv", "json", "markdown")
Rows = Sequence[Mapping[str, Any]]


def check_format(form: str, known: Sequence[str] = FORMATS) -> None:
    """Raise UsageError unless ``form`` is one of ``known``: before the work whose result it is for."""
    if form not in known:
        raise unknown_name("format", form, known)


def table(rows: Rows, form: str = "text") -> str:
    """The rows, which share their keys, in one of :data:`FORMATS`, without a line end; numbers of text and markdown have four digits.

    Raises UsageError for another format.
    """
    check_format(form)
    if form == "json":
        return json.dumps([dict(row) for row in rows], indent=2, allow_nan=False)
    header = list(rows[0]) if rows else []
    if form == "csv":
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
        return stream.getvalue().rstrip("\n")
    numeric = [all(row[key] is None or isinstance(row[key], int | float) for row in rows) for key in header]
    cells = [[_cell(row[key], form) for key in header] for row in rows]
    if form == "markdown":
        rule = ["---:" if right else "---" for right in numeric]
        return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *cells))
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    lines = [
        "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(line, widths, numeric, strict=True))
        for line in (header, *cells)
    ]
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any, form: str) -> str:
    if value is None:
        return "-"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|") if form == "markdown" else text
