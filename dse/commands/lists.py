"""Lists on the command line: words with commas between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dse.errors import UsageError

Number = TypeVar("Number", int, float)


def names(option: str, text: str) -> list[str]:
    """The words of ``text``, blanks about them and empty ones left out; at least one."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise UsageError(f"{option} is {text!r}, must be names with commas between; name at least one")
    return found


def numbers(option: str, text: str, kind: Callable[[str], Number], example: str) -> list[Number]:
    """The same as numbers of a ``kind`` (int, float); ``example`` shows what would do."""
    try:
        return [kind(word) for word in names(option, text)]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UsageError(f"{option} is {text!r}, must be {what} with commas between, like {example}") from None
