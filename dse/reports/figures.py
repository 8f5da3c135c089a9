"""Figures for notebooks: the Pareto front of a run as an interactive Plotly figure."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from dse.problem.metrics import METRICS
from dse.problem.wording import error_text, finite
from dse.reports.data import thinned
from dse.reports.units import DisplayUnit, design_units

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from dse.storage.run_folder import RunRecord

# What supports a quality is told by shape, as in the report; colour is free for a third objective.
_MARKS = {"published": "diamond", "interpolated": "circle", "extrapolated": "x-thin-open"}
_POINT = "#2f6ba3"
# SVG points beyond this make a notebook slow; a WebGL figure would not show on every machine.
MAX_POINTS = 5000
# Error bars of more designs than this hide the points.
_ERROR_BAR_LIMIT = 60


def front_figure(run: RunRecord) -> go.Figure:
    """The front of a run: the two first objectives, quality upright, a third one as colour, the whole design on hover.

    The step line is the bound of what is attained. Quality is called a surrogate; its standard error is drawn as bars
    where they do not hide the points. Fronts of more than ``MAX_POINTS`` designs are thinned and the title says so.
    """
    import plotly.graph_objects as go

    units = design_units(run)
    shown = [run.designs[index] for index in thinned(run, MAX_POINTS)]
    x, y, color = _axes(run, units)
    figure = go.Figure()
    if x is None or y is None:
        figure.update_layout(title={"text": "The front is empty"})
        return figure
    figure.add_trace(_steps(run, shown, units, x, y))
    scale = _color_scale(shown, units, color)
    for support in dict.fromkeys(design.get("quality_support") for design in shown):
        designs = [design for design in shown if design.get("quality_support") == support]
        figure.add_trace(_points(run, designs, units, (x, y, color), support, scale))
    thinning = f"{len(shown):,} of {len(run.designs):,} designs, evenly thinned" if len(shown) < len(run.designs) else None
    figure.update_layout(
        template="plotly_white",
        hovermode="closest",
        title={"text": thinning, "font": {"size": 13}} if thinning else None,
        xaxis={"title": {"text": _plain(units[x].axis)}},
        yaxis={"title": {"text": _plain(units[y].axis)}},
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        coloraxis=scale,
    )
    return figure


def _plain(text: Any) -> str:
    """Text that Plotly cannot take for the little HTML that it reads."""
    return html.escape(str(text), quote=False)


def _axes(run: RunRecord, units: dict[str, DisplayUnit]) -> tuple[str | None, str | None, str | None]:
    """Metrics across, up and as colour."""
    objectives = [objective.metric for objective in run.problem.objectives if objective.metric in units]
    costs = [name for name in objectives if name != "quality"]
    order = [*costs[:1], "quality", *costs[1:]] if "quality" in objectives and costs else objectives
    order += [name for name in units if name not in order][: max(0, 2 - len(order))]
    x, y, *rest = [*order, None, None]
    color = next((name for name in rest if name in objectives), None)
    return x, y, color


def _values(designs: list[dict[str, Any]], units: dict[str, DisplayUnit], name: str) -> list[float | None]:
    found = [finite(design["metrics"].get(name)) for design in designs]
    return [None if value is None else value * units[name].factor for value in found]


def _steps(run: RunRecord, designs: list[dict[str, Any]], units: dict[str, DisplayUnit], x: str, y: str) -> go.Scatter:
    """The front of the pair that is shown, as steps from the best in x to the worst."""
    import plotly.graph_objects as go

    points = [
        (_sign(run, x) * a, _sign(run, y) * b, a, b)
        for a, b in zip(_values(designs, units, x), _values(designs, units, y), strict=True)
        if a is not None and b is not None
    ]
    kept: list[tuple[float, float]] = []
    best = float("inf")
    for _, cost, a, b in sorted(points):
        if cost < best:
            kept.append((a, b))
            best = cost
    return go.Scatter(
        x=[a for a, _ in kept],
        y=[b for _, b in kept],
        mode="lines",
        line={"shape": "hv", "color": "#8a94a1", "width": 1.2},
        hoverinfo="skip",
        showlegend=False,
    )


def _sign(run: RunRecord, name: str) -> float:
    for objective in run.problem.objectives:
        if objective.metric == name:
            return objective.sign
    return -1.0 if name in METRICS and METRICS[name].better == "max" else 1.0


def _color_scale(designs: list[dict[str, Any]], units: dict[str, DisplayUnit], color: str | None) -> dict[str, Any] | None:
    if color is None:
        return None
    return {"colorscale": "Cividis", "colorbar": {"title": {"text": _plain(units[color].axis), "side": "right"}}}


def _points(
    run: RunRecord,
    designs: list[dict[str, Any]],
    units: dict[str, DisplayUnit],
    axes: tuple[str, str, str | None],
    support: str | None,
    scale: dict[str, Any] | None,
) -> go.Scatter:
    import plotly.graph_objects as go

    x, y, color = axes
    marker: dict[str, Any] = {"symbol": _MARKS.get(str(support), "circle"), "size": 9}
    if color is None or scale is None:
        marker |= {"color": _POINT, "line": {"width": 2 if support == "extrapolated" else 0, "color": _POINT}}
    else:
        marker |= {"color": _values(designs, units, color), "coloraxis": "coloraxis"}
    errors = [finite(design["metrics"].get("quality_se")) for design in designs]
    bars = y == "quality" and len(run.designs) <= _ERROR_BAR_LIMIT and None not in errors
    return go.Scatter(
        x=_values(designs, units, x),
        y=_values(designs, units, y),
        mode="markers",
        name=_support_label(support),
        showlegend=support is not None,
        marker=marker,
        error_y={"type": "data", "array": errors, "width": 0, "thickness": 1, "color": "#c3ccd6"} if bars else None,
        hovertext=[_hover(design, units) for design in designs],
        hoverinfo="text",
    )


def _hover(design: dict[str, Any], units: dict[str, DisplayUnit]) -> str:
    """The whole design, one figure a line."""
    lines = [f"<b>Design {_plain(design['design'])}</b>"]
    lines += [f"{_plain(name)} {_plain(value)}" for name, value in design["knobs"].items()]
    error = finite(design["metrics"].get("quality_se"))
    for name, unit in units.items():
        if name == "quality_se":
            continue
        shown = unit.text(design["metrics"].get(name))
        if name == "quality" and error:  # 0: nothing was said of it, which is not certainty
            shown += f" ± {error_text(error)}, {design.get('quality_support')}"
        lines.append(f"{_plain(unit.label)}: {_plain(shown)}")
    return "<br>".join(lines)


def _support_label(support: str | None) -> str:
    """The legend of the designs of one support."""
    if not support:
        return "designs"
    return "quality measured" if support == "measured" else f"quality {support} (surrogate)"
