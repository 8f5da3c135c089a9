"""The report's section on a real model that was measured: how, how dear, with what noise, and what quality answered to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dse.reports.markup import Markup, tag
from dse.reports.sections import section, table

_SHOWN = 40  # models in the table
_WIDTH, _HEIGHT = 120, 28  # of a learning curve, in pixels


def measured(run: Any) -> Markup | None:
    """The section; None where no real model was measured."""
    found = run.context.get("measured")
    if not isinstance(found, Mapping) or not found.get("measurements"):
        return None
    models = found["models"][:_SHOWN]
    rows = [_row(m) for m in models]
    head = ["layers", "hidden", "heads", "ffn", "weight bits", "figure", "items", "steps", "seed", "CPU s", "healing loss"]
    effects = found.get("effects") or []
    return section(
        "measured",
        "How quality was measured",
        tag("ul", [tag("li", line) for line in sentences(found)]),
        table(head, rows, caption=f"Measured models, the best first{_more(found)}", numeric=range(10)),
        table(
            ["knob", "effect of doubling it", "standard error", "beyond noise (2 errors)"],
            [[e["knob"], f"{e['effect']:+.4f}", f"{e['se']:.4f}", "yes" if abs(e["effect"]) > 2 * e["se"] else "no"] for e in effects],
            caption="Which knobs quality answered to: least squares on the logarithms of the knobs over the models looked at",
            numeric=range(1, 3),
        )
        if effects
        else None,
    )


def _row(m: Mapping[str, Any]) -> list[Any]:
    told = f"{m['figure']:.4f} ± {m['figure_se']:.4f}"
    return [*_shape(m), told, m["items"], m["steps"], m["seed"], f"{m['cpu_s']:.0f}", curve(m["curve"])]


def sentences(found: Mapping[str, Any]) -> list[str]:
    """What is said before the tables."""
    lines = [
        f"Weights: {found['source']}. Figure: {found['metric']}; the unpruned model has {found['unpruned']:.4f}.",
        f"± is the standard error of the difference from the unpruned model on the same {found['items']} items (bootstrap). "
        "The figure itself has a "
        f"sampling error of {found['sampling_se']:.4f}, which all models share.",
        f"{found['measurements']} models were pruned, healed and measured in {found['measurement_cpu_s']:.0f} CPU s.",
    ]
    if found["looks"]:
        lines.append(
            f"{found['looks']} models were first looked at without healing (agreement with the unpruned model) in "
            f"{found['look_cpu_s']:.0f} CPU s."
        )
    if found.get("partial"):
        lines.append(
            f"{found['partial']} were measured on fewer items and healing steps on the way, in {found['partial_cpu_s']:.0f} CPU s."
        )
    if found["saved_cpu_s"]:
        lines.append(f"Measuring every model of the first step wholly would have taken about {found['saved_cpu_s']:.0f} CPU s more.")
    return lines


def _shape(model: Mapping[str, Any]) -> list[Any]:
    shape = model["shape"]
    return [shape["layers"], shape["hidden"], shape["heads"], shape["ffn"], model["weight_bits"]]


def _more(found: Mapping[str, Any]) -> str:
    return f" ({_SHOWN} of {found['measurements']})" if found["measurements"] > _SHOWN else ""


def curve(points: Sequence[Sequence[Any]]) -> Markup | str:
    """A learning curve as a small drawing: the mean of the losses, each over its first value, from 1 down to 0."""
    values = [sum(losses.values()) / len(losses) for _, losses, _ in points]
    if len(values) < 2:
        return "–"
    top = max(1.0, *values)
    step = _WIDTH / (len(values) - 1)
    drawn = " ".join(f"{i * step:.1f},{_HEIGHT * (1 - v / top):.1f}" for i, v in enumerate(values))
    line = tag("polyline", points=drawn, fill="none", stroke="currentColor", stroke_width="1.5")
    label = f"from {values[0]:.2f} to {values[-1]:.2f}"
    return tag(
        "svg", tag("title", label), line, width=_WIDTH, height=_HEIGHT, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label
    )
