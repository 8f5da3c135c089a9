"""YAML text of plain values: what the exporters write, without a YAML library and with every text that could be misread quoted.

Only what the targets' readers need: mappings, lists, numbers, booleans, texts, and a tag (``!Memory``) before a mapping.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Words that stand for themselves in every YAML version: identifiers that no reader takes for a number, a boolean or null.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan"}


@dataclass(frozen=True)
class Tagged:
    """A mapping with a tag before it."""

    tag: str
    value: Mapping[str, Any]


@dataclass(frozen=True)
class Plain:
    """Text that a target reads as an expression and that we made: written as it is."""

    text: str


@dataclass(frozen=True)
class Flow:
    """A mapping or list written on one line."""

    value: Any


def dump(value: Any) -> str:
    """``value`` as a YAML document."""
    return "\n".join(_block(value, 0)) + "\n"


def scalar(value: Any) -> str:
    """A scalar: numbers so that they read back to the same bits, texts quoted unless they are plain words."""
    if isinstance(value, Plain):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a number of an export is {value}")
        text = repr(value)
        # YAML 1.1 reads 1e-05 as a text: a float needs a point and a signed exponent.
        if "e" in text:
            mantissa, exponent = text.split("e")
            text = f"{mantissa if '.' in mantissa else mantissa + '.0'}e{int(exponent):+03d}"
        return text
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return json.dumps(text)


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Flow):
        return flow(value.value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def _block(value: Any, indent: int) -> list[str]:
    pad = " " * indent
    if isinstance(value, Mapping):
        lines = []
        for key, item in value.items():
            if _inline(item):
                lines.append(f"{pad}{scalar(key)}: {flow(item)}")
            else:
                lines.append(f"{pad}{scalar(key)}:")
                lines += _block(item, indent if isinstance(item, list) else indent + 2)
        return lines
    if isinstance(value, Sequence) and not isinstance(value, str):
        lines = []
        for item in value:
            if isinstance(item, Tagged):
                lines += [f"{pad}- !{item.tag}", *_block(item.value, indent + 2)]
            elif _inline(item):
                lines.append(f"{pad}- {flow(item)}")
            else:
                inner = _block(item, indent + 2)
                lines += [f"{pad}- {inner[0].lstrip()}", *inner[1:]]
        return lines
    return [pad + flow(value)]


def _inline(value: Any) -> bool:
    if isinstance(value, Flow):
        return True
    if isinstance(value, (Mapping, list, tuple)):
        return not value
    return True
