"""The page of one simulated serving run: its figures, and batch, queue and cache over time. No script, no outside file."""

from __future__ import annotations

import csv
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.reports.markup import Markup, tag
from dse.reports.plain_page import plain_page
from dse.reports.sections import section, table
from dse.serving.simulation import Served

WIDTH, HEIGHT, POINTS = 900, 180, 600
_FIGURES = (
    ("first token [ms]", "ttft_ms"),
    ("each further token [ms]", "tpot_ms"),
    ("whole request [ms]", "latency_ms"),
    ("output tokens a second", "tokens_per_s"),
    ("energy of a request [J]", "energy_j_per_request"),
    ("carbon of a request [gCO2e]", "gco2e_per_request"),
)
_OTHERS = (
    *("requests", "requests_per_s", "goodput_per_s", "utilisation", "makespan_s", "chips", "engine_steps", "prefill_tokens"),
    *("cached_tokens", "preemptions", "energy_j_per_token", "gco2e_per_token", "operational_share", "gco2e_per_kwh", "grid"),
)


def write_report(served: Served, answer: dict[str, Any], folder: str | Path) -> Path:
    """Write report.html and requests.csv (a line a request) into ``folder``; returns the page."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with (place / "requests.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ("arrival_s", "prompt_tokens", "output_tokens", "ttft_ms", "tpot_ms", "latency_ms", "energy_j", "cached_tokens", "worker")
        )
        o = served.outcome
        columns = (o.arrival_s, served.prompt, served.output, served.ttft_s * 1e3, served.tpot_s * 1e3, served.latency_s * 1e3)
        for row in zip(*(c.tolist() for c in (*columns, served.energy_j, o.cached_tokens, o.worker)), strict=True):
            writer.writerow(["" if isinstance(value, float) and isnan(value) else value for value in row])
    page = place / "report.html"
    page.write_text(_page(served, answer), encoding="utf-8")
    return page


def _page(served: Served, answer: dict[str, Any]) -> str:
    s = served.setup
    title = f"{s.model} on {s.chips} x {s.hw}, {s.engine}"
    figures = [(name, *(f"{answer[key][p]:.4g}" for p in ("mean", "p50", "p95", "p99"))) for name, key in _FIGURES]
    others = [(name.replace("_", " "), f"{v:.4g}" if isinstance(v := answer[name], float) else str(v)) for name in _OTHERS]
    t = served.outcome.timeline
    charts = [
        ("Sequences that decode, all workers", 2),
        ("Requests that wait, all workers", 3),
        ("Blocks of the cache in use, all workers", 4),
        ("Tokens of prompts in a step", 5),
    ]
    body = tag(
        "main",
        tag("h1", title),
        tag("p", "A simulation: step times are modelled and carry the errors that docs/models/serving.md shows."),
        section("figures", "What clients saw", table(("", "mean", "p50", "p95", "p99"), figures, caption="Figures", numeric=(1, 2, 3, 4))),
        _problems(answer["loop"]) if "loop" in answer else None,
        section("timeline", "Batch and queue over time", [_chart(name, t, column) for name, column in charts]),
        section("totals", "Totals", table(("", "value"), others, caption="Totals", numeric=(1,))),
        section("sources", "Sources", table(("what", "where"), sorted(answer["sources"].items()), caption="Sources")),
    )
    return plain_page(title, "simulate", body)


def _problems(loop: dict[str, Any]) -> Markup:
    """The figures of a reasoning loop: what a problem and a solved problem take."""
    latency = loop["problem_latency_s"]
    rows = [(name.replace("_", " "), "none" if v is None else f"{v:.4g}") for name, v in loop.items() if not isinstance(v, (dict, str))]
    rows += [(f"latency of a problem, {name} [s]", f"{value:.4g}") for name, value in latency.items()]
    rows += [(f"knob {name}", str(value)) for name, value in loop["knobs"].items()]
    return section(
        "loop",
        f"Problems of {loop['workload']}",
        tag("p", "The loop ran on a scripted model with stated rates: what is solved is no measurement of a language model."),
        table(("", "value"), rows, caption="Problems", numeric=(1,)),
    )


def over_time(
    timeline: npt.NDArray[np.float64], column: int, points: int = POINTS
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Times and the sum over workers of a column at evenly spaced moments; each worker holds its value until its next event."""
    if not len(timeline):
        return np.zeros(1), np.zeros(1)
    moments = np.linspace(timeline[0, 0], timeline[-1, 0], points)
    total = np.zeros(points)
    for worker in np.unique(timeline[:, 1]):
        own = timeline[timeline[:, 1] == worker]
        at = np.searchsorted(own[:, 0], moments, side="right") - 1
        total += np.where(at >= 0, own[np.maximum(at, 0), column], 0.0)
    return moments, total


def _chart(name: str, timeline: npt.NDArray[np.float64], column: int) -> Markup:
    moments, values = over_time(timeline, column)
    top, span = max(float(values.max()), 1.0), max(float(moments[-1] - moments[0]), 1e-12)
    xs = 60 + (moments - moments[0]) / span * (WIDTH - 80)
    ys = HEIGHT - 30 - values / top * (HEIGHT - 50)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    return tag(
        "figure",
        tag("figcaption", name),
        tag(
            "svg",
            tag("polyline", points=line, fill="none", stroke="currentColor", stroke_width="1.2"),
            tag("text", f"{top:.4g}", x=4, y=24, fill="currentColor", font_size="12"),
            tag("text", "0", x=4, y=HEIGHT - 28, fill="currentColor", font_size="12"),
            tag("text", f"{span:.4g} s", x=WIDTH - 70, y=HEIGHT - 8, fill="currentColor", font_size="12"),
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=name,
        ),
    )
