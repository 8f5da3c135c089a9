"""HTML that cannot be injected: elements are built by a function, and every string in them is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

_VOID = frozenset({"br", "hr", "meta", "input", "col"})


class Markup(str):
    """Text that is HTML already; anything else that reaches :func:`tag` is escaped."""

    __slots__ = ()


def render(child: Any) -> Markup:
    """A child as HTML: None is nothing, lists are joined, everything but Markup is escaped."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if not isinstance(child, str) and isinstance(child, Iterable):
        return Markup("".join(render(part) for part in child))
    return Markup(html.escape(str(child), quote=False))


def tag(element: str, *children: Any, **attributes: Any) -> Markup:
    """The element with its children; ``class_`` gives class, ``data_x`` gives data-x; None and False leave one out."""
    given = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if element in _VOID:
        return Markup(f"<{element}{given}>")
    return Markup(f"<{element}{given}>{''.join(render(child) for child in children)}</{element}>")


def raw_element(element: str, text: str, **attributes: Any) -> Markup:
    """A script or style element with its text as it is; text that would close the element early is an error."""
    if f"</{element}" in text.lower():
        raise ValueError(f"text of a {element} element holds </{element}, which would end it early")
    opened = tag(element, **attributes).removesuffix(f"</{element}>")
    return Markup(f"{opened}{text}</{element}>")
