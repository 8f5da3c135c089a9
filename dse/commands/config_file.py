"""Options of ``dse search`` from a TOML file: the same names, the command line wins."""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Any

from dse.errors import DseError, UsageError, unknown_name

LISTS = ("objective", "constraint", "no_constraint", "knobs", "vary", "bind")


def apply_config(args: argparse.Namespace) -> None:
    """Fill options that the command line left at their defaults from the file that ``--config`` names."""
    path = Path(args.config)
    known = {a.dest: a for a in args.parser._actions if a.option_strings and a.dest not in ("help", "config")}
    given = _given(args)
    for key, value in _read(path).items():
        name = "knobs" if key == "set" else key.replace("-", "_")
        if name not in known:
            raise unknown_name(f"config {path}: option", key, ["set", *(n.replace("_", "-") for n in known if n != "knobs")])
        if name not in given:
            setattr(args, name, _value(f"config {path}: {key}", name, known[name], value))


def _given(args: argparse.Namespace) -> set[str]:
    """Options that the command line names: what is left when every default is withheld."""
    defaults = [(action, action.default) for action in args.parser._actions]
    try:
        for action, _ in defaults:
            action.default = argparse.SUPPRESS
        return set(vars(args.parser.parse_known_args(args.words)[0]))
    finally:
        for action, default in defaults:
            action.default = default


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DseError(f"config {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # TOML and UTF-8 errors are ValueErrors, and so is an integer of 5,000 digits
        raise UsageError(f"config {path} is not valid TOML: {error}") from error


def _value(where: str, name: str, option: argparse.Action, value: Any) -> Any:
    """The value of an option, checked against what the command line would take."""
    if name in LISTS:
        if name == "knobs" and isinstance(value, dict):
            value = [f"{knob}={number}" for knob, number in value.items()]
        texts = [value] if isinstance(value, str) else value
        if not (isinstance(texts, list) and all(isinstance(item, str) for item in texts)):
            raise UsageError(f"{where} is {value!r}; a list of texts is needed")
        return texts
    if option.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{where} is {value!r}; true or false is needed")
        return value
    if option.type in (int, float):
        # The range first: neither infinity nor an integer of hundreds of digits can be converted.
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if not number or (option.type is int and value != int(value)):
            shown = "an integer of many digits" if isinstance(value, int) and value.bit_length() > 128 else repr(value)
            raise UsageError(f"{where} is {shown}; a {'whole ' if option.type is int else ''}number is needed")
        return int(value) if option.type is int else float(value)
    if not isinstance(value, str):
        raise UsageError(f"{where} is {value!r}; a text is needed")
    return value
