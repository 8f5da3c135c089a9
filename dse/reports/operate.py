"""The page of `dse operate`: the ladder, and one week's grid, load, chips, waiting work and grams. No script, no outside file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dse.reports.html import asset
from dse.reports.markup import Markup, raw_element, tag
from dse.reports.sections import section, table
from dse.storage.run_folder import write_text
from dse.version import __version__

WIDTH, HEIGHT = 900, 150


def write_report(found: dict[str, Any], path: str | Path) -> Path:
    """Write the page of an answer of `dse.operate.answer.answer`; returns its path."""
    return write_text(Path(path), page(found))


def page(found: dict[str, Any]) -> str:
    """The page as text."""
    title = f"{found['device']}, {found['chips']} chips at {', '.join(site['site'] for site in found['sites'])}: {found['policy']}"
    rows = [
        (row["name"], f"{row['grams']:.5g}", "-" if row["share"] is None else f"{row['share']:.3f}", f"{row['missed']:.4g}", row["meaning"])
        for row in found["ladder"]
    ]
    skills = [
        (site, f"{100 * skill['mape']:.3g} %", f"{100 * skill['over_timetable']:.3g} %", f"{skill['rank']:.2f}")
        for site, skill in found["forecast_skill"].items()
    ]
    sources = [(site["site"], site["grid"], site["grid_source"], site["grid_licence"], site["load"]) for site in found["sites"]]
    promise = (
        "Load and arrivals kept their declared envelopes, so no deadline may be missed."
        if found["deadlines_promised"]
        else "Load or arrivals left their declared envelope: deadlines are not promised."
    )
    skill = table(("site", "error", "less than the timetable's", "rank correlation"), skills, caption="Skill", numeric=(1, 2, 3))
    body = tag(
        "main",
        tag("h1", title),
        tag("p", f"{found['weeks']} weeks of the {found['period']} period: {found['grams']:.5g} gCO2e. Foresight saves "
            f"{100 * found['foresight_saving']:.3g} % over running now. {promise}"),
        section("timeline", f"A week from {found['timeline']['start']} UTC", _timeline(found["timeline"])),
        section("ladder", "Every way to run it", [
            tag("p", "Shares are of what foresight saves over running now with sleep and clock."),
            table(("policy", "gCO2e", "of foresight", "late", "what it does"), rows, caption="The ladder", numeric=(1, 2, 3)),
        ]),
        *([section("forecast", "Forecast", skill)] if skills else []),
        section("sources", "Sources", [
            table(("site", "grid", "source", "licence", "load"), sources, caption="Sources"),
            tag("ul", [tag("li", note) for note in found["device_notes"]]),
        ]),
    )  # fmt: skip
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} · dse operate"),
        raw_element("style", asset("report.css")),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body, tag("footer", tag("p", f"dse {__version__}"))), lang="en") + "\n"


def _timeline(week: dict[str, Any]) -> list[Markup]:
    charts = []
    for site in week["sites"]:
        name = site["site"]
        charts += [
            _chart(f"Grid of {name} [gCO2e/kWh]", [site["gco2e_per_kwh"]]),
            _chart(
                f"Requests run at {name} an hour, and of these what could not wait",
                [site["run_requests_per_h"], site["firm_requests_per_h"]],
            ),
            _chart(f"Chips awake at {name}", [site["chips_awake"]]),
            _chart(f"Mean clock of these at {name}", [site["clock"]]),
            _chart(f"gCO2e an hour at {name}", [site["grams"]]),
            *([_chart(f"Temperature of {name} at the end of an hour [C]", [site["temperature_c"]])] if "temperature_c" in site else []),
        ]
    return [*charts, _chart("Requests that wait", [week["waiting_requests"]])]


def _chart(name: str, lines: Sequence[Sequence[float]]) -> Markup:
    top = max(1e-12, *(max(line) for line in lines))
    step = (WIDTH - 80) / max(len(lines[0]) - 1, 1)
    drawn = []
    for number, line in enumerate(lines):
        points = " ".join(f"{60 + i * step:.1f},{HEIGHT - 30 - value / top * (HEIGHT - 50):.1f}" for i, value in enumerate(line))
        dashes = "4 3" if number else None
        drawn.append(tag("polyline", points=points, fill="none", stroke="currentColor", stroke_width="1.2", stroke_dasharray=dashes))
    days = [tag("text", str(day), x=f"{60 + 24 * day * step:.1f}", y=HEIGHT - 8, fill="currentColor", font_size="12") for day in range(7)]
    return tag(
        "figure",
        tag("figcaption", name),
        tag(
            "svg",
            *drawn,
            *days,
            tag("text", f"{top:.4g}", x=4, y=24, fill="currentColor", font_size="12"),
            tag("text", "0", x=4, y=HEIGHT - 28, fill="currentColor", font_size="12"),
            tag("text", "days", x=WIDTH - 40, y=HEIGHT - 8, fill="currentColor", font_size="12"),
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=name,
        ),
    )
