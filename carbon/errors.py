"""The one exception of this package, and the sentences it speaks in."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class CarbonError(ValueError):
    """A carbon input that cannot be used; the message is one sentence naming field, value and what is allowed."""


def nearest(value: object, choices: Iterable[object], count: int = 3) -> list[str]:
    """Return up to ``count`` of ``choices`` that are closest to ``value``, the best first.

    Numbers are compared by distance, everything else by spelling (difflib). Something is always named when there is a
    choice at all, because a reader who mistyped a key is helped more by a poor hint than by none.
    """
    known = list(choices)
    try:
        target = float(str(value))
        numbers = sorted(known, key=lambda choice: abs(float(str(choice)) - target))
        return [str(choice) for choice in numbers[:count]]
    except ValueError:
        pass
    spelt = {str(choice).lower(): str(choice) for choice in known}
    hits = difflib.get_close_matches(str(value).lower(), list(spelt), n=count, cutoff=0.45)
    if not hits:
        hits = difflib.get_close_matches(str(value).lower(), list(spelt), n=1, cutoff=0.0)
    return [spelt[hit] for hit in hits]


def unknown(field: str, value: object, choices: Iterable[object], where: str = "") -> CarbonError:
    """Build the error for a name that is not in a table: it names the nearest known names."""
    names = nearest(value, choices)
    hint = f"; nearest known: {', '.join(names)}" if names else ""
    text = repr(value)
    return CarbonError(f"{where}{field} {text if len(text) <= 120 else text[:117] + '...'} is unknown{hint}")


def out_of_range(field: str, value: object, allowed: str, where: str = "") -> CarbonError:
    """Build the error for a number outside its range."""
    return CarbonError(f"{where}{field} is {_show(value)}, but {allowed}")


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    try:
        return f"{float(value):.6g}"
    except (TypeError, ValueError):
        return repr(value)
