"""What others give to this package without editing it: objects of installed packages (entry points) and of modules of one's own."""

from __future__ import annotations

import importlib
import os
import sys
from functools import cache
from typing import Any

from dse.errors import UsageError, nearest


@cache
def _entry_points(group: str) -> dict[str, Any]:
    from importlib.metadata import entry_points  # 20 ms, for a name that the package does not know

    return {point.name: point for point in entry_points(group=group)}


def installed_names(group: str) -> tuple[str, ...]:
    """Names of the entry points of a group, in order."""
    return tuple(sorted(_entry_points(group)))


def installed(group: str, name: str) -> Any | None:
    """The object behind an entry point; None where no installed package has one of that name. One that cannot be loaded is an error."""
    point = _entry_points(group).get(name)
    if point is None:
        return None
    try:
        return point.load()
    except Exception as error:  # whatever a foreign module raises
        raise UsageError(f"{group} {name!r} of an installed package cannot be loaded: {type(error).__name__}: {error}") from error


def from_module(field: str, text: str) -> Any:
    """The object that ``python:module:NAME`` means; modules of the working folder count. Errors name ``field`` and the nearest name."""
    _, _, rest = text.partition(":")
    module_name, separator, name = rest.partition(":")
    if not separator or not module_name or not name:
        raise UsageError(f"{field} {text!r} is not of the form python:module:NAME")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # a user's module lies where the user works
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(f"{field} {text} cannot be imported: {error}") from error
    found = getattr(module, name, None)
    if found is None:
        close = nearest(name, [known for known in dir(module) if not known.startswith("_")])
        raise UsageError(f"{field} {text}: the module has no {name!r}" + (f"; did you mean {close!r}?" if close else ""))
    return found
