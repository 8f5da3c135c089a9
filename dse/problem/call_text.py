"""A call of a function of the toolkit as it was written, for the record of what made a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def call_text(function: str, first: Any, **arguments: Any) -> str:
    """``dse.search('bert', hw='edge22', constraints=['latency_s<=20ms'])``, without what is None; an object stands as its name."""
    given = [f"{name}={_value(value)}" for name, value in arguments.items() if value is not None]
    return f"{function}({', '.join([_value(first), *given])})"


def _value(value: Any) -> str:
    if value is None or isinstance(value, (str, int, float)):
        return repr(value)
    if isinstance(value, PurePath):
        return repr(str(value))
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_value(held)}" for key, held in value.items()) + "}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return "[" + ", ".join(map(_value, value)) + "]"
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple):  # a tensor: its sizes, not its numbers
        return f"{type(value).__name__}{tuple(shape)}"
    # A class or a function, an object that says its name (a family, a template), or one of a class.
    name = getattr(value, "__name__", None) or getattr(value, "name", None)
    return name if isinstance(name, str) and name else f"{type(value).__name__}(...)"
