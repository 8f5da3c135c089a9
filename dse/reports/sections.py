"""Parts of the report that need no script: infeasible reasons, setting, surrogate, sources, limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from dse.problem.wording import finite, joined, number_text, plural, share
from dse.reports import text
from dse.reports.markup import Markup, tag
from dse.reports.units import display_unit


def section(name: str, title: str, *children: Any, **attributes: Any) -> Markup:
    """A section with its heading; ``name`` is its anchor."""
    return tag("section", tag("h2", title, id=f"{name}-title"), *children, id=name, aria_labelledby=f"{name}-title", **attributes)


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]], *, caption: str, numeric: Iterable[int] = ()) -> Markup:
    """A table that scrolls sideways where the screen is narrow; ``numeric`` columns are set to the right."""
    right = frozenset(numeric)

    def cells(element: str, row: Iterable[Any], **attributes: Any) -> list[Markup]:
        return [tag(element, cell, class_="num" if i in right else None, **attributes) for i, cell in enumerate(row)]

    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption, class_="sr-only"),
            tag("thead", tag("tr", cells("th", head, scope="col"))),
            tag("tbody", [tag("tr", cells("td", row)) for row in rows]),
        ),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def infeasible(run: Any) -> Markup:
    """Counts of why designs were infeasible."""
    points = run.summary.points
    reasons = sorted(((count, reason) for reason, count in run.summary.reasons.items()), key=lambda pair: (-pair[0], pair[1]))
    left = points - run.summary.feasible
    if not reasons:
        return section("infeasible", "Why designs fell out", tag("p", text.no_reasons(run)))
    rows = [
        (
            tag("span", text.reason_text(reason, run.context), title=reason),
            f"{count:,}",
            share(count, points),
            tag(
                "span",
                tag("span", style=f"width:{100 * count / points if points else 0:.4g}%"),
                class_="bar",
                aria_hidden="true",
            ),
        )
        for count, reason in reasons
    ]
    return section(
        "infeasible",
        "Why designs fell out",
        tag(
            "p",
            f"{left:,} of {plural(points, 'design')} ({share(left, points)}) break at least one bound. "
            "A design may break several, so the counts do not add up to that."
            + (" Designs known beforehand to break one were passed over and are not counted." if run.context.get("sampled") else ""),
        ),
        table(("Reason", "Designs", "Of all", ""), rows, caption="Counts of infeasible designs by reason", numeric=(1, 2)),
    )


def setting(run: Any) -> Markup:
    """Objectives, constraints and the deployment that they are judged in."""
    objectives = [tag("li", "Maximise " if o.direction == "max" else "Minimise ", tag("code", o.metric)) for o in run.problem.objectives]
    constraints = [tag("li", text.constraint_text(c, run.context), " ", tag("code", str(c))) for c in run.problem.constraints] or [
        tag("li", "none")
    ]
    rows = [tag("div", tag("dt", label), tag("dd", value, title=name)) for name, label, value in text.deployment_rows(run)]
    return section(
        "setting",
        "Objectives, constraints, deployment",
        tag(
            "div",
            tag("div", tag("h3", "Objectives"), tag("ul", objectives), tag("h3", "Constraints"), tag("ul", constraints)),
            tag(
                "div",
                tag("h3", "Deployment"),
                tag("dl", rows, class_="facts"),
                tag(
                    "p",
                    "Designs are compared at equal service: each serves the same requests over its lifetime and idles in between.",
                    class_="note",
                ),
            ),
            class_="columns",
        ),
    )


def alignment(run: Any) -> Markup | None:
    """Cosines of the costs' gradients as a heat map, their groups, and how far the gradients can be trusted."""
    known = run.context.get("alignment")
    if not isinstance(known, Mapping) or len(known.get("objectives") or ()) < 2:
        return None
    names = [str(name) for name in known["objectives"]]
    labels = [display_unit(name, ()).label for name in names]
    cosine, conflict = known["cosine"], known["conflict_share"]
    rows: list[list[Any]] = []
    for i, label in enumerate(labels):
        cells = [
            _heat(cosine[i][j], f"{label}, {labels[j]}: gradients oppose at {conflict[i][j]:.0%} of the designs") for j in range(len(names))
        ]
        rows.append([tag("strong", label), *cells])
    groups = [joined([labels[names.index(str(name))] for name in group]) for group in known["groups"]]
    model = known.get("model")
    of_model = f" for the model {text.knobs_text(model)} (design {known.get('design')})" if isinstance(model, Mapping) else ""
    return section(
        "alignment",
        "Which costs pull the same way",
        tag(
            "p",
            f"Mean cosine of the gradients of each two costs over the hardware knobs{of_model}. At 1 one falls wherever the other "
            "does; below 0 what lowers one raises the other, and only there is a trade-off to choose.",
        ),
        table(["", *labels], rows, caption="Cosines of the gradients of the costs", numeric=range(1, len(names) + 1)),
        tag("p", "Aligned groups: " + "; ".join(groups) + "."),
        tag("p", text.alignment_trust(known), class_="note"),
    )


def _heat(value: float, title: str) -> Markup:
    """A cosine with a tint: blue where two agree, orange where they oppose, stronger the nearer to 1 (both read with any colour vision)."""
    colour = "0,114,178" if value >= 0 else "213,94,0"
    return tag(
        "span",
        f"{value:.2f}",
        title=title,
        style=f"background:rgba({colour},{0.6 * min(1.0, abs(value)):.2f});padding:4px 8px;border-radius:4px",
    )


def quality_search(run: Any) -> Markup | None:
    """How a measured quality, or a space too large to sweep, was searched."""
    lines = text.search_sentences(run)
    title = "How quality was searched" if run.context.get("quality_evaluator") else "How designs were searched"
    return section("search", title, tag("ul", [tag("li", line) for line in lines])) if lines else None


def _what_supports(known: Mapping[str, Any]) -> Markup:
    """What quality in a report is: measured model by model, or predicted."""
    if known.get("measured"):
        return tag("p", "Quality in this report was measured, model by model; nothing of it is predicted.")
    return tag(
        "p",
        "Quality in this report is predicted by a surrogate fitted to published results. ",
        tag("strong", "Published"),
        " marks a model that is one of its points, ",
        tag("strong", "interpolated"),
        " one inside their hull, ",
        tag("strong", "extrapolated"),
        " one that nothing published supports.",
    )


def surrogate(run: Any) -> Markup | None:
    """The quality surrogate: its form, its error, and the published points behind it."""
    known = run.context.get("quality_surrogate")
    if not isinstance(known, Mapping):
        return None
    facts: list[tuple[str, Any]] = [("Name", known.get("name")), ("Predicts", known.get("label")), ("Form", known.get("form"))]
    coefficients = known.get("coefficients")
    if coefficients:
        facts.append(("Coefficients", ", ".join(number_text(value) for value in coefficients)))
    error = finite(known.get("standard_error_percent"))
    if error is not None:
        kind = known.get("standard_error_kind")
        facts.append(("Standard error", f"{number_text(error)} points" + (f" ({kind})" if kind else "")))
    free = [str(name) for name in known.get("unsupported_knobs") or ()]
    if free:
        facts.append(("Knobs without effect on it", ", ".join(free)))
    points = [point for point in known.get("points") or () if isinstance(point, Mapping)]
    heads = list(dict.fromkeys(str(name) for point in points for name in point))
    numeric = [i for i, name in enumerate(heads) if all(finite(point.get(name)) is not None for point in points)]
    return section(
        "surrogate",
        "The quality surrogate",
        _what_supports(known),
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts if value], class_="facts"),
        table(
            [name.replace("_", " ") for name in heads],
            [[_cell(point.get(name)) for name in heads] for point in points],
            caption="Published points of the surrogate",
            numeric=numeric,
        )
        if points
        else None,
    )


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return number_text(value)
    if isinstance(value, Mapping):
        return ", ".join(str(part) for part in value.values())
    return str(value)


_SOURCE_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Factor", ("key", "code", "name", "factor", "quantity", "what", "field")),
    ("Value", ("value", "gco2e_per_kwh")),
    ("Source", ("source",)),
    ("Vintage", ("vintage", "year", "date")),
    ("Licence", ("licence", "license")),
    ("Note", ("note", "meaning", "kind")),
)


def _source_row(source: Any) -> list[Any]:
    if not isinstance(source, Mapping):
        return ["–", "–", str(source), "–", "–", ""]
    row: list[Any] = []
    for head, names in _SOURCE_COLUMNS:
        found = next((source[name] for name in names if source.get(name) not in (None, "")), None)
        shown = "" if found is None and head == "Note" else _cell(found)
        if head == "Value" and found is not None:
            unit = source.get("unit") or ("g CO₂e/kWh" if "gco2e_per_kwh" in source else "")
            shown = f"{shown} {unit}".strip()
        row.append(shown)
    return row


def sources(run: Any) -> Markup:
    """Where every factor comes from, with its vintage and licence."""
    known = run.context.get("sources") or []
    rows = [_source_row(source) for source in known]
    return section(
        "sources",
        "Sources of the factors",
        table([head for head, _ in _SOURCE_COLUMNS], rows, caption="Sources of the factors")
        if rows
        else tag("p", "This run names no sources."),
        class_="fine",
    )


def not_modelled(run: Any) -> Markup:
    """What the costs leave out."""
    lines = [str(line) for line in run.context.get("not_modelled") or ()]
    return section(
        "limits",
        "What is not modelled",
        tag("ul", [tag("li", line) for line in lines]) if lines else tag("p", "This run states no omissions."),
    )


def provenance(run: Any) -> Markup:
    """The exact command, versions and seed."""
    known = run.provenance
    facts: list[tuple[str, str]] = [
        ("dse", str(known.get("version", "–"))),
        ("Seed", str(known.get("seed", "–"))),
        ("Python", str(known.get("python", "–"))),
        ("Started", str(known.get("started", "–"))),
    ]
    factors = run.context.get("sources") or []
    if factors:
        digest = hashlib.sha256(json.dumps(factors, sort_keys=True, default=str).encode()).hexdigest()
        facts.append(("Data", f"{plural(len(factors), 'factor')}, SHA-256 {digest[:16]}"))
    facts.append(("Evaluated", plural(run.summary.points, "design")))
    if isinstance(spent := run.context.get("computation"), Mapping):
        facts.append(("This search took", computation_text(spent)))
    shown = {"command", "version", "versions", "seed", "python", "started"}
    facts += [(str(name), str(value)) for name, value in (known.get("versions") or {}).items()]
    facts += [(str(name), _cell(value)) for name, value in known.items() if name not in shown]
    return section(
        "provenance",
        "How this was made",
        tag("pre", tag("code", str(known.get("command", "–"))), class_="command"),
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts], class_="facts"),
        tag(
            "p",
            "The page shows four to seven significant digits; ",
            tag("code", "pareto.csv"),
            " beside it has all of them.",
            class_="note",
        ),
    )


def computation_text(spent: Mapping[str, Any]) -> str:
    """What a search itself took, as a sentence of figures."""
    return (
        f"{spent['wall_s']:.3g} s, {spent['cpu_s']:.3g} CPU s, {spent['energy_j']:.3g} J and {1e3 * spent['gco2e']:.2g} mg CO2e at "
        f"{spent['gco2e_per_kwh']:.0f} g/kWh, the world's average ({spent['basis']})"
    )


def order_robustness(run: Any) -> Markup | None:
    """Sentences about how robust the order of designs is, where an uncertainty analysis has said so."""
    uncertainty = run.context.get("uncertainty")
    if not isinstance(uncertainty, Mapping):
        return None
    lines = [str(line) for line in uncertainty.get("notes") or ()]
    samples = uncertainty.get("samples")
    order = uncertainty.get("order")
    if isinstance(order, Mapping):
        lines += [f"{str(name).replace('_', ' ')}: {_cell(value)}" for name, value in order.items()]
    if isinstance(samples, int):
        lines.append(f"From {samples:,} draws of the uncertain factors.")
    return tag("ul", [tag("li", line) for line in lines]) if lines else None


def hypervolume(run: Any) -> Markup | None:
    """The hypervolume of the front and the reference point that it is measured from."""
    known = run.context.get("hypervolume")
    value = finite(known.get("value") if isinstance(known, Mapping) else known)
    if value is None:
        return None
    reference = known.get("reference") if isinstance(known, Mapping) else None
    origin = f", measured from {text.knobs_text({k: _cell(v) for k, v in reference.items()})}" if isinstance(reference, Mapping) else ""
    return tag("p", f"Hypervolume of the front: {number_text(value)}{origin}.", class_="note")
