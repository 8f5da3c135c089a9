"""Plain values as TOML text: hardware that a user gives as a dictionary is kept in the study as the file that it stands for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from dse.errors import UsageError


def toml_text(document: Mapping[str, Any], *, where: str = "hw") -> str:
    """The text of a TOML document with these values, which reads back equal; what TOML cannot hold is an error that names its field."""
    return "\n".join(_table(document, (), where)) + "\n"


def _table(values: Mapping[str, Any], path: tuple[str, ...], where: str) -> list[str]:
    lines, later = [], []
    for key, value in values.items():
        name = (*path, str(key))
        if isinstance(value, Mapping):
            later += ["", f"[{_dotted(name)}]", *_table(value, name, where)]
        elif _is_tables(value):
            for row in value:
                later += ["", f"[[{_dotted(name)}]]", *_table(row, name, where)]
        else:
            lines.append(f"{_key(name[-1])} = {_value(value, '.'.join(name), where)}")
    return lines + later


def _is_tables(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else json.dumps(name)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(map(_key, path))


def _value(value: Any, field: str, where: str) -> str:
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value  # numpy's scalars
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, Sequence) or hasattr(value, "tolist"):
        return f"[{', '.join(_value(one, field, where) for one in value)}]"
    raise UsageError(f"{where} has {field} = {value!r}; numbers, text, lists and dictionaries are allowed")
