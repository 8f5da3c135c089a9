"""Names of users as they may stand in files of any format."""

from __future__ import annotations

import re


def safe_name(text: str, taken: set[str] | None = None) -> str:
    """``text`` as an identifier that no format reads as anything else: letters, digits, underscores; a letter first; new."""
    name = re.sub(r"[^A-Za-z0-9_]+", "_", text)[:60].strip("_")
    if not name or not name[0].isalpha():
        name = f"op_{name}".rstrip("_")
    if taken is not None:
        base, number = name, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.add(name)
    return name


def quoted(text: str) -> str:
    """``text`` as it may stand in Markdown: one line, as code, whatever it holds."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    fence = "`" * (1 + _longest_run(line, "`"))
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def _longest_run(text: str, character: str) -> int:
    longest = current = 0
    for c in text:
        current = current + 1 if c == character else 0
        longest = max(longest, current)
    return longest
