"""The one exception of this package and the sentences it is made of."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from dse_kernels.errors import DseError


class HardwareError(DseError):
    """A hardware description, table or operation that cannot be costed; the message is one sentence a user can act
    on.
    """


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name closest in spelling to ``name``, or None where nothing resembles it."""
    matches = difflib.get_close_matches(str(name).lower(), {str(a).lower(): a for a in allowed}, n=1, cutoff=0.4)
    if not matches:
        return None
    return next(str(a) for a in allowed if str(a).lower() == matches[0])


def unknown_name(field: str, value: object, allowed: Iterable[str], *, where: str = "") -> HardwareError:
    """The error for a name outside a list: the field, the value, the list and the nearest entry."""
    names = [str(a) for a in allowed]
    close = nearest(str(value), names)
    hint = f"; did you mean {close!r}?" if close else ""
    prefix = f"{where}: " if where else ""
    return HardwareError(f"{prefix}unknown {field} {_shown(value)}: allowed are {', '.join(names)}{hint}")


def bad_value(field: str, value: object, allowed: str, *, closest: object = None, where: str = "") -> HardwareError:
    """The error for a value outside a range: the field, the value, what is allowed and the closest valid value."""
    prefix = f"{where}: " if where else ""
    hint = "" if closest is None else f" (nearest valid: {closest})"
    return HardwareError(f"{prefix}{field} = {_shown(value)} is not valid: it must be {allowed}{hint}")


def _shown(value: object) -> str:
    """A value short enough for a sentence; integers of thousands of digits have no text at all in Python."""
    if isinstance(value, int) and value.bit_length() > 128:
        return "an integer of many digits"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
