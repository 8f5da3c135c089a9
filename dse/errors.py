"""Errors of the toolkit: one sentence that names the field, the value, what is allowed and the nearest valid choice."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

from dse_kernels.errors import DseError

from carbon.errors import CarbonError

__all__ = ["DseError", "InfeasibleError", "StrategyError", "UsageError", "all_ours", "nearest", "shown", "unknown_name"]

_P = ParamSpec("_P")
_R = TypeVar("_R")


class DeploymentError(DseError, CarbonError):
    """What the carbon model refuses (a grid, a carbon profile, a memory), told by this package: `carbon` knows none of ours."""


class UsageError(DseError):
    """A request that is wrong as written: unknown name, bad value, contradictory options."""

    exit_code = 2


class StrategyError(DseError):
    """A strategy that failed, or that proposed what is no design."""


class InfeasibleError(DseError):
    """A search that ended and found no design that meets its constraints."""


def all_ours(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """A public function whose every sentence is a DseError, those of the carbon model too (`WorkloadError` and `HardwareError` are)."""

    @wraps(function)
    def told(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except CarbonError as error:
            if isinstance(error, DseError):
                raise
            raise DeploymentError(str(error)) from error

    return told


def shown(text: str) -> str:
    """A message as one printable line: a word of hundreds of letters, which only a damaged file has, is cut, and control characters go."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"\S{300,}", lambda word: f"{word[0][:100]}... ({len(word[0])} letters)", line)[:2000]


def nearest(value: str, choices: Iterable[str]) -> str | None:
    """The choice that ``value`` most likely meant, or None where nothing is close."""
    names = list(choices)
    folded = {name.lower(): name for name in names}
    found = difflib.get_close_matches(value.lower(), list(folded), n=1, cutoff=0.5)
    return folded[found[0]] if found else None


def unknown_name(field: str, value: str, choices: Iterable[str]) -> UsageError:
    """The error for a name that is none of ``choices``."""
    names = sorted(set(choices))
    close = nearest(value, names)
    hint = f"; did you mean {close!r}?" if close else ""
    given = value if len(value) <= 120 else value[:117] + "..."
    if field == "argument" and len(names) > 24:  # a list cut off helps nobody
        near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
        told = f"; nearest are {', '.join(near)}" if len(near) > 1 else ""
        return UsageError(f"{field} {given!r} is unknown{told}{hint}")
    shown = ", ".join(names) if len(names) <= 24 else ", ".join(names[:24]) + f", ... ({len(names)} in all)"
    return UsageError(f"{field} {given!r} is unknown; known are {shown}{hint}")
