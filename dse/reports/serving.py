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
from dse.reports.units import display_unit
from dse.serving.simulation import Served

WIDTH, HEIGHT, POINTS = 900, 100, 600
_FIGURES = (
    ("first token [ms]", "ttft_ms"),
    ("each further token [ms]", "tpot_ms"),
    ("whole request [ms]", "latency_ms"),
    ("output tokens a second", "tokens_per_s"),
    ("energy of a request at the chips, without PUE [J]", "energy_j_per_request"),
    ("carbon of a request [gCO2e]", "gco2e_per_request"),
)
_OTHERS = (
    *("requests", "requests_per_s", "goodput_per_s", "utilisation", "makespan_s", "chips", "engine_steps", "prefill_tokens"),
    *("cached_tokens", "preemptions", "energy_j_per_token", "gco2e_per_token", "operational_share", "pue", "gco2e_per_kwh", "grid"),
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
        tag(
            "header",
            tag("p", title, class_="eyebrow"),
            tag("h1", f"{answer['requests_per_s']:.3g} requests a second, first token after {answer['ttft_ms']['p50']:.3g} ms"),
            tag("p", _lead(answer), class_="lead"),
            tag("p", "A simulation: step times are modelled and carry the errors that docs/models/serving.md shows.", class_="caution"),
        ),
        section(
            "setup", "What was simulated", tag("dl", [tag("div", tag("dt", n), tag("dd", v)) for n, v in _setup(served)], class_="facts")
        ),
        section("figures", "What clients saw", table(("", "mean", "p50", "p95", "p99"), figures, caption="Figures", numeric=(1, 2, 3, 4))),
        _problems(answer["loop"]) if "loop" in answer else None,
        section("timeline", "Batch and queue over time", [_chart(name, t, column) for name, column in charts]),
        section("totals", "Totals", table(("", "value"), others, caption="Totals", numeric=(1,))),
        section("sources", "Sources", table(("what", "where"), sorted(answer["sources"].items()), caption="Sources")),
    )
    return plain_page(title, "simulate", body)


def _lead(answer: dict[str, Any]) -> str:
    """What a request takes, in one sentence."""
    grams = answer["gco2e_per_request"]["mean"]
    carbon = display_unit("kgco2e_per_request", [grams / 1e3]).text(grams / 1e3)
    return (
        f"Each further token takes {answer['tpot_ms']['p50']:.3g} ms (medians of {answer['requests']:,} requests). A request takes "
        f"{answer['energy_j_per_request']['mean']:.3g} J and {carbon}; chips are busy {100 * answer['utilisation']:.0f} % of the time, and "
        f"{answer['goodput_per_s']:.3g} requests a second keep the limits."
    )


def _setup(served: Served) -> list[tuple[str, str]]:
    """The engine and its requests."""
    s = served.setup
    rows = [("model", s.model), ("chips", f"{s.chips} x {s.hw}"), ("engine", s.engine), ("weights", f"{s.weight_bits} bits")]
    rows += [("requests", f"{len(served.prompt):,}")]
    for name, tokens in (("prompt tokens", served.prompt), ("output tokens", served.output)):
        least, most = int(min(tokens)), int(max(tokens))
        rows.append((name, f"{least:,}" if least == most else f"{least:,} to {most:,}, mean {float(np.mean(tokens)):,.0f}"))
    rows.append(("sequences at a time", f"at most {s.max_sequences:,}"))
    return [*rows, ("prefix cache", "yes" if s.prefix_cache else "no")]


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
    """A column over time. Its text stands beside the drawing, not in it, so that it keeps its size on a phone."""
    moments, values = over_time(timeline, column)
    top, span = max(float(values.max()), 1.0), max(float(moments[-1] - moments[0]), 1e-12)
    xs = (moments - moments[0]) / span * WIDTH
    ys = HEIGHT - 1 - values / top * (HEIGHT - 2)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
    drawing = tag(
        "svg",
        tag("polyline", points=line, fill="none", stroke="var(--point)", stroke_width="1.5", vector_effect="non-scaling-stroke"),
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{name}, from 0 to {top:.4g} over {span:.4g} s",
    )
    return tag(
        "figure",
        tag("figcaption", tag("strong", name)),
        tag("span", f"{top:,.4g}", class_="top"),
        tag("span", "0", class_="zero"),
        drawing,
        tag("span", "0 s", class_="first"),
        tag("span", f"{span:,.4g} s", class_="last"),
        class_="timeline",
    )
