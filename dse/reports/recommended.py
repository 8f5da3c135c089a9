"""The head of the report: what to build, why, how sure that is, what would change it, and what to be careful about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.analysis.recommendation import Extreme, Recommendation
from dse.problem.wording import error_text, finite, lowered, whole_percents
from dse.reports import text
from dse.reports.kept import of_run
from dse.reports.markup import Markup, tag
from dse.reports.units import DisplayUnit, knob_names

# What a design review asks for beside the objectives.
_FIGURES = ("latency_s", "energy_j", "area_mm2", "peak_power_w", "embodied_kgco2e", "operational_kgco2e")


def header(run: Any, units: Mapping[str, DisplayUnit], positions: Mapping[int, int]) -> Markup:
    """The recommendation, then what was searched. ``positions``: where designs (by index) stand among those that the page shows."""
    found = of_run(run)
    return tag(
        "header",
        tag("p", text.headline(run, units), class_="eyebrow"),
        tag("h1", found.sentence.rstrip(".") if found.design is None else f"Build design {found.design}: {found.phrase}"),
        tag("p", f"{found.reason[:1].upper()}{found.reason[1:]}.", class_="lead") if found.reason else None,
        tag(
            "div",
            tag("div", _answers(run, found), class_="answers"),
            tag("div", _cautions(found), _matters(found)),
            class_="answer",
        ),
        tag("ul", _cards(run, found, units, positions), class_="cards"),
        tag("p", " ".join(text.summary_sentences(run)), class_="searched"),
    )  # fmt: skip


def plain_header(found: Recommendation, title: str, searched: str) -> Markup:
    """The same for a page without script: the recommendation first, what stands beside it, and what was searched."""
    rows = [line.split(": ", 1) for line in found.lines]
    facts = [tag("div", tag("dt", f"{name[:1].upper()}{name[1:]}"), tag("dd", told)) for name, told in rows]
    return tag(
        "header",
        tag("p", title, class_="eyebrow"),
        tag("h1", found.sentence.rstrip(".") if found.design is None else f"Build design {found.design}: {found.phrase}"),
        tag("p", f"{found.reason[:1].upper()}{found.reason[1:]}.", class_="lead") if found.reason else None,
        tag("div", tag("div", tag("dl", facts, class_="facts") if facts else None, class_="answers"), tag("div", _cautions(found)),
            class_="answer"),
        tag("p", "Its file: ", tag("a", found.toml, href=found.toml), class_="searched") if found.toml else None,
        tag("p", searched, class_="searched"),
    )  # fmt: skip


def _cautions(found: Recommendation) -> Markup | None:
    if not found.warnings:
        return None
    lines = tag("ul", [tag("li", line) for line in found.warnings])
    return tag("aside", tag("h2", "Before you build"), lines, class_="caution", aria_label="Cautions")


def _answers(run: Any, found: Recommendation) -> Markup | None:
    """What it is for, the order of devices, runner-up, how sure and what would change it, each under its own word."""
    rows: list[tuple[str, Any]] = [("What for", text.purpose(run))]
    if found.why:
        rows.append(("Why", found.why))
    if found.near_ties:
        rows.append(("Near ties", found.ties_text))
    if said := text.devices_said(run):
        rows.append(("Devices", tag("ul", [tag("li", line) for line in said])))
    if found.not_drawn:
        rows.append(("How sure", found.not_drawn))
    if found.kept_share is not None or found.changes or found.unchanged:
        if found.kept_share is not None:
            rows.append(("How sure", found.sure_text))
        if found.changes:
            rows.append(("What would change it", tag("ul", [tag("li", change) for change in found.changes_by_design])))
        if found.unchanged:
            rows.append(("What would not", "; ".join(found.unchanged)))
    if found.quality_order:
        rows.append(("Order of quality", found.order_text))
    if found.runner_up is not None:
        rows.append(("Runner-up", f"design {found.runner_up}, {found.runner_up_phrase}: {found.runner_up_reason}"))
    return tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows], class_="facts") if rows else None


def _matters(found: Recommendation) -> Markup | None:
    """The knobs that matter, as bars that add to 100 %."""
    if not found.matters:
        return None
    percents = whole_percents([row.share for row in found.matters])
    bars = [
        tag("div", tag("dt", row.knob), tag("dd", tag("span", tag("span", style=f"width:{percent}%"), class_="bar", aria_hidden="true")),
            tag("dd", f"{percent} %", class_="num"))
        for row, percent in zip(found.matters, percents, strict=True)
    ]  # fmt: skip
    label = lowered(text.metric_label(found.matters[0].metric))
    return tag("div", tag("h2", f"What moves {label} over the space"), tag("dl", bars, class_="facts"), class_="matters")


def _cards(run: Any, found: Recommendation, units: Mapping[str, DisplayUnit], positions: Mapping[int, int]) -> list[Markup]:
    """The recommended design whole, and the best design of each objective."""
    places = {design["design"]: index for index, design in enumerate(run.designs)}
    cards = []
    if found.design is not None:
        design = run.designs[places[found.design]]
        names = [o.metric for o in run.problem.objectives]
        names = [name for name in dict.fromkeys((*names, *_FIGURES)) if name in units and finite(design["metrics"].get(name)) is not None]
        figures = [tag("div", tag("dt", units[name].label), tag("dd", _value(design, name, units))) for name in names]
        figures += [
            tag("div", tag("dt", f"Latency, {part}"), tag("dd", units["latency_s"].text(own["latency_s"])))
            for part, own in (design.get("parts") or {}).items()
        ]
        cards.append(
            tag(
                "li",
                tag("p", "Recommended", class_="card-label"),
                tag("p", tag("strong", f"Design {found.design}"), class_="card-value"),
                tag("dl", figures, class_="facts"),
                tag("p", text.knobs_text(design["knobs"]), class_="card-note"),
                tag("p", tag("a", found.toml, href=found.toml), class_="card-note"),
                _pin(positions, places[found.design]),
                class_="card recommended",
            )
        )
    # What the recommended design is the best of is said above its card.
    others = [extreme for extreme in found.extremes if extreme.design != found.design]
    cards += [_extreme(run, extreme, places[extreme.design], units, positions) for extreme in others]
    return cards


def _extreme(
    run: Any, extreme: Extreme, index: int, units: Mapping[str, DisplayUnit], positions: Mapping[int, int]
) -> Markup:  # fmt: skip
    design = run.designs[index]
    names = [name for name in knob_names(run.designs) if name in design["knobs"]]
    return tag(
        "li",
        tag(
            "p",
            ("Highest " if extreme.direction == "max" else "Lowest ") + lowered(units[extreme.metric].label),
            class_="card-label",
        ),
        tag("p", _value(design, extreme.metric, units), class_="card-value"),
        tag(
            "p",
            tag("strong", f"Design {extreme.design}"),
            " · ",
            text.knobs_text({name: design["knobs"][name] for name in names}),
            class_="card-note",
        ),
        _pin(positions, index),
        class_="card",
    )


def _pin(positions: Mapping[int, int], index: int) -> Markup | None:
    return tag("button", "Pin this design", type="button", class_="quiet screen", data_pin=positions[index]) if index in positions else None


def _value(design: Mapping[str, Any], name: str, units: Mapping[str, DisplayUnit]) -> str:
    """A figure with its unit; quality with its standard error."""
    value = units[name].text(design["metrics"].get(name))
    error = finite(design["metrics"].get("quality_se"))
    # 0: nothing was said of it, which is not certainty
    return f"{value} ± {error_text(error)}" if name == "quality" and error else value
