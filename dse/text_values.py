"""Values of knobs and fields as text gives them, on a command line or in a cell of a file. Light: the command line starts with it."""

from __future__ import annotations

import sys

TRUTH = {"true": True, "false": False}


def number_or_name(text: str) -> int | float | str:
    """A whole number, else a number, else the text itself. An integer beyond the largest float is infinite, like 1e400."""
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        # Beyond the largest float an integer cannot be computed with; like 1e400 it is infinite, which no knob takes.
        return number if abs(number) <= sys.float_info.max else float(text)
    return text


def value_of(text: str) -> bool | int | float | str:
    """True or false as they are spelled in TOML, else `number_or_name`."""
    return TRUTH.get(text, number_or_name(text))
