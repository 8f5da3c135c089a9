"""A front as a drawing that needs no script: marks over two metrics, told apart by shape."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dse.problem.wording import number_text
from dse.reports.markup import Markup, tag

WIDTH, HEIGHT = 640, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 40, 30, 40
_SHAPES = ("circle", "square", "triangle", "diamond")
_WIDE = 10.0
"""Ratio of the ends from which positive values are drawn by their logarithms."""


@dataclass(frozen=True)
class Mark:
    """A design: where it stands, what tells its kind, what a reader sees who points at it, and a label beside it (empty: none)."""

    x: float
    y: float
    kind: str
    tip: str
    label: str = ""


def scatter(marks: Sequence[Mark], x_name: str, y_name: str, kinds: Mapping[str, str]) -> Markup:
    """The drawing with its legend. ``kinds``: what stands in the legend for each kind of mark, at most four."""
    shape_of = dict(zip(kinds, _SHAPES, strict=False))
    (x_low, x_high), (y_low, y_high) = ((min(values), max(values)) for values in ([m.x for m in marks], [m.y for m in marks]))
    by_ratio = x_low > 0 and x_high / x_low >= _WIDE

    def across(value: float) -> float:
        low, high, at = (math.log(v) if by_ratio else v for v in (x_low, x_high, value))
        return _LEFT + (at - low) / ((high - low) or 1.0) * (WIDTH - _LEFT - _RIGHT)

    def up(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - y_low) / ((y_high - y_low) or 1.0) * (HEIGHT - _BOTTOM - _TOP)

    drawn = [_mark(shape_of[m.kind], across(m.x), up(m.y), m) for m in marks]
    style = {"fill": "currentColor", "font_size": "14"}
    labels = [
        tag("text", f"{x_name} {number_text(x_low)}", x=_LEFT, y=HEIGHT - 10, **style),
        tag("text", number_text(x_high), x=WIDTH - _RIGHT, y=HEIGHT - 10, text_anchor="end", **style),
        tag("text", f"{y_name} {number_text(y_high)}", x=4, y=14, **style),
        tag("text", number_text(y_low), x=4, y=HEIGHT - _BOTTOM, **style),
    ]
    ends = f"{_LEFT - 14},{_TOP - 8} {_LEFT - 14},{HEIGHT - _BOTTOM + 14} {WIDTH - 10},{HEIGHT - _BOTTOM + 14}"
    axes = tag("polyline", points=ends, fill="none", stroke="currentColor", stroke_opacity="0.35")
    drawing = tag("svg", axes, drawn, labels, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=f"front: {y_name} against {x_name}")
    legend = ", ".join(f"{shape_of[kind]}: {told}" for kind, told in kinds.items())
    return tag("figure", tag("figcaption", legend + (f"; {x_name} by ratio" if by_ratio else "")), drawing)


def _mark(shape: str, u: float, v: float, mark: Mark) -> list[Markup]:
    """The mark, and its label on the side that has room."""
    tip, look = tag("title", mark.tip), {"fill": "currentColor"}
    size = 8 if mark.label else 5
    if shape == "circle":
        found = tag("circle", tip, cx=f"{u:.1f}", cy=f"{v:.1f}", r=size, **look)
    elif shape == "square":
        found = tag("rect", tip, x=f"{u - size:.1f}", y=f"{v - size:.1f}", width=2 * size, height=2 * size, **look)
    else:
        corners = [(0, -size - 1), (size, size), (-size, size)] if shape == "triangle" else [(0, -size), (size, 0), (0, size), (-size, 0)]
        found = tag("polygon", tip, points=" ".join(f"{u + a:.1f},{v + b:.1f}" for a, b in corners), **look)
    if not mark.label:
        return [found]
    at, anchor = (u + 14, "start") if u < WIDTH / 2 else (u - 14, "end")
    return [found, tag("text", mark.label, x=f"{at:.1f}", y=f"{v + 4:.1f}", text_anchor=anchor, font_size="15", font_weight="600", **look)]
