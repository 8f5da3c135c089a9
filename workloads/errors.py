"""The one exception of this room: a message that names the field, its value, what is allowed and the nearest choice."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from dse_kernels.errors import DseError


class WorkloadError(DseError):
    """A workload, dimension, file or operation that cannot be used; the message is one sentence for the user."""


def is_number(value: Any) -> bool:
    """Whether a value of a file is a finite number (no truth value, no whole number beyond what a float holds)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**1000


def nearest_name(value: str, known: Iterable[str]) -> str:
    """Return the known name nearest to ``value``, or the first one in order if none is similar."""
    names = sorted(known)
    close = difflib.get_close_matches(value, names, n=1, cutoff=0.0)
    return close[0] if close else (names[0] if names else "")


def unknown_name(field: str, value: object, known: Iterable[str]) -> WorkloadError:
    """Build the error for a name that is not one of ``known``."""
    names = sorted(set(known))
    shown = ", ".join(names) if len(names) <= 12 else ", ".join(names[:12]) + f", ... ({len(names)} in all)"
    return WorkloadError(f"{field} is {shorten(value)!r}, must be one of {shown}; nearest is {nearest_name(str(value), names)!r}")


def shorten(value: Any, limit: int = 80) -> Any:
    """Return ``value``, or the start of its text where that is longer than ``limit``.

    Error messages stay one line, and what a file says never steers the terminal: control characters are spelled out.
    """
    text = str(value)
    flat = " ".join(text.split())
    if not flat.isprintable():
        flat = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in flat[: 2 * limit])
    if flat == text and len(text) <= limit:
        return value
    return flat if len(flat) <= limit else flat[: limit - 3] + "..."


def require_field(record: Mapping[str, Any], name: str, kind: type, where: str, *, optional: bool = False) -> None:
    """Raise WorkloadError unless a field of a record is there (or may be missing) and of that type; ``where`` names the file."""
    if name not in record and optional:
        return
    value = record.get(name)
    if isinstance(value, str) and not value.replace("\n", " ").isprintable():
        raise WorkloadError(f"{where}: field {name!r} is {shorten(value)!r}, must be a text without control characters")
    if not isinstance(value, kind) or (isinstance(value, list) and not all(isinstance(item, str) for item in value)):
        named = {"str": "text", "dict": "table", "list": "list of texts"}[kind.__name__]
        raise WorkloadError(f"{where}: field {name!r} is {shorten(value)!r}, must be a {named}")
