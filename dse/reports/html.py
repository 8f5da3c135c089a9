"""The report: one HTML file that holds its styles, its script, its data and Plotly, and asks the network for nothing.

A content security policy in the page forbids every request and every script but the ones that it was built with, so
that a hostile name has no way to do harm even if it got past the escaping.
"""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from dse.reports import measured_section, on_chip_section, recommended, sections, sharing_section, text
from dse.reports.data import MAX_BREAKDOWNS, MAX_DESIGNS, report_data, thinned
from dse.reports.markup import Markup, raw_element, tag
from dse.reports.plotly_script import packed_plotly
from dse.reports.sections import plot, section
from dse.reports.units import DisplayUnit, as_asked, design_units

MAX_BYTES = 3_000_000
# In the order in which they are joined: each may use what stands before it.
_SCRIPTS = (
    "core.js",
    "format.js",
    "theme.js",
    "front.js",
    "pinned.js",
    "costs.js",
    "roofline.js",
    "parallel.js",
    "table.js",
    "extras.js",
    "main.js",
)
# Fewer designs or breakdowns where the page would pass MAX_BYTES, tried in this order.
_BUDGETS = ((1.0, 1.0), (1.0, 0.5), (0.8, 0.25), (0.6, 0.2), (0.4, 0.1), (0.2, 0.05), (0.1, 0.02))


def report_html(run: Any) -> str:
    """The report of a run as the text of one HTML file of at most 3 MB, the same bytes for the same run.

    A front of more than 5,000 designs is thinned for the page (evenly in canonical order; the best of each objective
    stays), and the page says so.
    """
    run = as_asked(run)
    units = design_units(run)
    page = ""
    for designs, breakdowns in _BUDGETS:
        page = _page(run, units, int(MAX_DESIGNS * designs), int(MAX_BREAKDOWNS * breakdowns))
        if len(page.encode()) <= MAX_BYTES:
            break
    return page


def asset(name: str) -> str:
    """The text of a file of the package's assets."""
    return resources.files("dse.reports").joinpath("assets", name).read_text(encoding="utf-8")


def json_text(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can end the element or begin a comment."""
    dumped = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        dumped = dumped.replace(character, f"\\u{ord(character):04x}")
    return dumped


def _page(run: Any, units: dict[str, DisplayUnit], max_designs: int, max_breakdowns: int) -> str:
    keep = thinned(run, max_designs)
    data = report_data(run, units, keep, max_breakdowns=max_breakdowns)
    # The page's own script stands first: tables need no Plotly, and it is this script that unpacks and runs Plotly's.
    script, plotly = _joined_script(), packed_plotly()
    policy = (
        "default-src 'none'; "
        f"script-src {_hash(script)} 'sha256-{plotly.sha256}'; "
        # Plotly sets style attributes and rules of its own; pictures of charts that a reader saves are data or blobs.
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    body = [
        tag("a", "Skip to the designs", href="#designs", class_="skip"),
        tag(
            "main",
            recommended.header(run, units, {index: position for position, index in enumerate(keep)}),
            _contents(data, run),
            tag(
                "noscript",
                tag(
                    "p",
                    "The charts and the table of designs need JavaScript; pareto.csv holds the same figures.",
                    class_="caution",
                ),
            ),
            _charts(run, data, len(keep)),
            on_chip_section.on_chip(run),
            sharing_section.section(run),
            sections.alignment(run),
            sections.asked(run),
            sections.quality_search(run, "convergence" in data["extras"]),
            measured_section.measured(run),
            sections.surrogate(run),
            sections.basis(run),
        ),
        tag("footer", tag("p", f"dse {run.provenance.get('version', '')} · {text.title(run)}")),
        tag("div", id="tip", role="status", aria_live="off", hidden=True),
        raw_element("script", json_text(data), type="application/json", id="data"),
        raw_element("script", plotly.base64, type="application/octet-stream", id="plotly"),
        raw_element("script", script),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{text.title(run)} · dse report"),
        raw_element("style", asset("report.css")),
    ]
    page = "<!doctype html>\n" + tag("html", tag("head", head), tag("body", body), lang="en") + "\n"
    # A command line with bytes that are no UTF-8 reaches here as lone surrogates, which no file can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def _joined_script() -> str:
    return '(function () {\n"use strict";\n' + "\n".join(asset(name) for name in _SCRIPTS) + "})();\n"


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _contents(data: dict[str, Any], run: Any) -> Markup:
    """Links to the sections."""
    several = data["distinct"] > 1
    entries = [
        ("front", "Front") if several else None,
        ("pinned", "Pinned designs"),
        ("carbon", "Carbon"),
        ("parallel", "Trade-offs") if several else None,
        ("designs", "All designs") if len(run.designs) != 1 else None,
        ("importance", "What matters") if "importance" in data["extras"] else None,
        ("sharing", "Sharing") if sharing_section.shown(run) else None,
        ("on-chip", "On chip") if on_chip_section.shown(run) else None,
        ("alignment", "Alignment") if run.context.get("alignment") else None,
        ("asked", "What was asked"),
        ("search", "Search") if text.search_sentences(run) or "convergence" in data["extras"] else None,
        ("measured", "Measured") if (run.context.get("measured") or {}).get("measurements") else None,
        ("surrogate", "Quality") if run.context.get("quality_surrogate") else None,
        ("basis", "Basis"),
    ]
    links = [tag("li", tag("a", label, href=f"#{name}")) for name, label in filter(None, entries)]
    return tag("nav", tag("ul", links), aria_label="Contents")


def _front(run: Any, thinning: Markup | None) -> Markup:
    return section(
        "front",
        "Pareto front",
        thinning,
        tag("div", id="front-controls", class_="controls"),
        plot("front-plot", "Scatter plot of the Pareto front"),
        tag("p", id="front-note", class_="note"),
        sections.hypervolume(run),
    )


def _charts(run: Any, data: dict[str, Any], shown: int) -> list[Markup | None]:
    """Sections that the page's script fills."""
    total = len(run.designs)
    thinning = (
        tag(
            "p",
            f"{shown:,} of the {total:,} designs of the front are drawn, evenly thinned; pareto.csv has all.",
            class_="note",
            id="thinned",
        )
        if shown < total
        else None
    )
    extras = data["extras"]
    return [
        _front(run, thinning) if data["distinct"] > 1 else None,  # one point is no front to draw
        section(
            "pinned",
            "Pinned designs",
            tag("p", id="pinned-note", class_="note"),
            tag(
                "div",
                tag("div", id="pinned-table"),
                tag(
                    "div",
                    tag("div", id="pinned-controls", class_="controls"),
                    tag("div", id="pinned-plots", class_="pair"),
                    tag("div", id="pinned-operations"),
                    tag(
                        "div",
                        tag("h3", "Roofline"),
                        plot("roofline-plot", "Roofline of the pinned designs"),
                        id="roofline",
                        hidden=True,
                    ),
                ),
                class_="beside",
            ),
        ),
        section(
            "carbon",
            "Carbon",
            tag("div", id="carbon-controls", class_="controls"),
            plot("carbon-plot", "Stacked bars of carbon by part along the front"),
            tag("p", id="carbon-note", class_="note"),
            tag(
                "div",
                tag("h3", "How sure it is"),
                sections.order_robustness(run, data),
                [
                    tag("div", id="uncertainty-controls", class_="controls"),
                    plot("uncertainty-plot", "Ranges of a metric along the front"),
                ]
                if data["distinct"] > 1
                else None,
                id="uncertainty",
            )
            if "uncertainty" in extras
            else None,
        ),
        None
        if data["distinct"] < 2
        else section(
            "parallel",
            "Trade-offs across the front",
            tag(
                "p",
                "Drag along an axis to keep a range; the front above and the table below follow. Click a line to pin its design.",
                class_="note screen",
            ),
            tag("div", id="parallel-controls", class_="controls"),
            tag(
                "div",
                id="parallel-plot",
                class_="scroll",
                tabindex="0",
                role="group",
                aria_label="Parallel coordinates of the front",
            ),
        ),
        None
        if len(run.designs) == 1  # it stands among the pinned designs, whole
        else section(
            "designs",
            "All designs of the front",
            tag("p", id="table-note", class_="note"),
            tag("div", id="table", class_="scroll", tabindex="0", role="region", aria_label="Designs of the front"),
            tag("div", id="table-more", class_="controls screen"),
        ),
        section("importance", "What matters", plot("importance-plot", "Share of the variation that each knob explains"))
        if "importance" in extras
        else None,
    ]
