"""A small picture without a plotting library: lines over one axis, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_COLOURS = ("#1f5fa8", "#c8551b", "#3d8b4a", "#7a4fa3")
_WIDTH, _HEIGHT = 640, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 40, 56


def lines_svg(
    title: str,
    x_label: str,
    y_label: str,
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    mark_x: float | None = None,
) -> str:
    """Return an SVG of ``series`` over ``x`` (both linear, y from 0); ``mark_x`` draws a vertical line."""
    top = max(max(values) for values in series.values()) * 1.05
    low, high = min(x), max(x)

    def at_x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def at_y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_WIDTH / 2}" y="20" text-anchor="middle" font-size="14">{escape(title)}</text>',
    ]
    for step in range(6):
        value = top * step / 5
        y = at_y(value)
        out.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.0f}</text>')
        place = low + (high - low) * step / 5
        out.append(f'<text x="{at_x(place):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{place:.2f}</text>')
    out.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(x_label)}</text>')
    middle = _HEIGHT / 2
    out.append(f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">{escape(y_label)}</text>')
    for index, (name, values) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        points = " ".join(f"{at_x(a):.1f},{at_y(b):.1f}" for a, b in zip(x, values, strict=True))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{_LEFT + 12}" y="{_TOP + 14 + 16 * index}" fill="{colour}">{escape(name)}</text>')
    if mark_x is not None:
        place = at_x(mark_x)
        line = f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"'
        out.append(line + ' stroke="#888" stroke-dasharray="4 3"/>')
        out.append(f'<text x="{place + 4:.1f}" y="{_HEIGHT - _BOTTOM - 6}" fill="#555">{mark_x:.3f}</text>')
    out.append("</svg>")
    return "\n".join(out) + "\n"
