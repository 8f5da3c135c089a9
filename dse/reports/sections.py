"""Parts of the report that need no script: infeasible reasons, setting, surrogate, sources, limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from dse.analysis.bounds import bounds_of
from dse.problem.wording import finite, joined, number_text, plural, share
from dse.reports import text
from dse.reports.kept import of_run
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


def plot(name: str, label: str, **attributes: Any) -> Markup:
    """The place of a chart that the page's script draws."""
    return tag("div", id=name, class_="plot", role="img", aria_label=label, **attributes)


def asked(run: Any) -> Markup:
    """What was asked for: objectives, the bounds with how many designs break each, and the deployment."""
    objectives = [tag("li", "Maximise " if o.direction == "max" else "Minimise ", tag("code", o.metric)) for o in run.problem.objectives]
    rows = [tag("div", tag("dt", label), tag("dd", value, title=name)) for name, label, value in text.deployment_rows(run)]
    return section(
        "asked",
        "What was asked, and what fell out",
        tag(
            "div",
            tag("div", tag("h3", "Objectives"), tag("ul", objectives), tag("h3", "Bounds"), *_bounds(run)),
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


def _bounds(run: Any) -> list[Markup]:
    """The constraints with the designs that break each, and further reasons why designs fell out."""
    points, counts = run.summary.points, dict(run.summary.reasons)
    known = [(str(c), text.constraint_text(c, run.context)) for c in run.problem.constraints]
    others = [(reason, text.reason_text(reason, run.context)) for reason in counts if reason not in dict(known)]
    # A reason is written as the search wrote it, which may differ from the constraint in spaces or digits.
    spoken = {words for _, words in known}
    chosen = of_run(run).design
    bounds = {str(bound.constraint): bound for bound in bounds_of(run, chosen)}
    rows = [
        (
            tag("span", words, " ", tag("code", written) if written in dict(known) else None, title=written),
            "–" if (count := _count(counts, written, words, run.context)) is None else f"{count:,}",
            "" if not count else share(count, points),
            "" if (bound := bounds.get(written)) is None or bound.slack_share is None else bound.room,
        )
        for written, words in [*known, *(o for o in others if o[1] not in spoken)]
    ]
    left = points - run.summary.feasible
    passed = " Designs known beforehand to break one were passed over and are not counted." if run.context.get("sampled") else ""
    told = (
        f"{left:,} of {plural(points, 'design')} ({share(left, points)}) break at least one bound. "
        "A design may break several, so the counts do not add up to that."
        if left and any(counts.values())
        else text.no_reasons(run)
    )
    said = tag("p", told + passed, class_="note")
    if slack := [words for written, words in known if bounds[written].slack]:
        said = tag("div", said, tag("p", f"No evaluated design breaks {joined(slack)}: slack, which decides nothing.", class_="note"))
    heads = ("Bound", "Designs that break it", "Of all", f"Design {chosen}")
    return [table(heads, rows, caption="Bounds", numeric=(1, 2, 3)), said] if rows else [said]


def _count(counts: Mapping[str, int], written: str, words: str, context: Mapping[str, Any]) -> int | None:
    """How many designs a bound ruled out; None where that was not counted."""
    if written in counts:
        return counts[written]
    return next((count for reason, count in counts.items() if text.reason_text(reason, context) == words), None)


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


def quality_search(run: Any, convergence: bool) -> Markup | None:
    """How a measured quality, or a space too large to sweep, was searched; ``convergence``: whether the page's script draws it."""
    lines = text.search_sentences(run)
    title = "How quality was searched" if run.context.get("quality_evaluator") else "How designs were searched"
    if not lines and not convergence:
        return None
    return section(
        "search",
        title,
        tag("ul", [tag("li", line) for line in lines]) if lines else None,
        tag("div", plot("convergence-plot", "Hypervolume over evaluations"), id="convergence") if convergence else None,
    )


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
    """Where quality comes from: a surrogate's form, its error and the published points behind it, or what was measured."""
    known = run.context.get("quality_surrogate")
    if not isinstance(known, Mapping):
        return None
    facts: list[tuple[str, Any]] = [
        ("Name", known.get("name")),
        ("Measured" if known.get("measured") else "Predicts", known.get("label")),
        ("Form", known.get("form")),
    ]
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
        "The measured quality" if known.get("measured") else "The quality surrogate",
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


def basis(run: Any) -> Markup:
    """What the figures rest on: what is left out, how the run was made, and the source of every factor."""
    lines = [str(line) for line in run.context.get("not_modelled") or ()]
    return section(
        "basis",
        "What the figures rest on",
        tag(
            "div",
            tag("h3", "Not modelled"),
            tag("ul", [tag("li", line) for line in lines]) if lines else tag("p", "This run states no omissions."),
            id="limits",
        ),
        tag("div", tag("h3", "How this was made"), *_provenance(run), id="provenance"),
        tag("div", *_sources(run), id="sources", class_="fine"),
    )


def _sources(run: Any) -> list[Markup]:
    """Where every factor comes from, with its vintage and licence; folded, and left to the screen: a GPU alone has some thirty."""
    known = run.context.get("sources") or []
    rows = [_source_row(source) for source in known]
    if not rows:
        return [tag("h3", "Sources of the factors"), tag("p", "This run names no sources.")]
    shown = table([head for head, _ in _SOURCE_COLUMNS], rows, caption="Sources of the factors")
    return [tag("details", tag("summary", f"Sources of the {plural(len(rows), 'factor')}"), shown)]


def _provenance(run: Any) -> list[Markup | None]:
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
    spent = run.context.get("computation")
    shown = {"command", "version", "versions", "seed", "python", "started"}
    facts += [(str(name), str(value)) for name, value in (known.get("versions") or {}).items()]
    facts += [(str(name), _cell(value)) for name, value in known.items() if name not in shown]
    return [
        tag("pre", tag("code", str(known.get("command", "–"))), class_="command"),
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in facts], class_="facts"),
        tag("p", f"This search took {computation_text(spent)}.", class_="note") if isinstance(spent, Mapping) else None,
        tag(
            "p",
            "The page shows four to seven significant digits; ",
            tag("code", "pareto.csv"),
            " beside it has all of them.",
            class_="note",
        ),
    ]


def computation_text(spent: Mapping[str, Any]) -> str:
    """What a search itself took, as a sentence of figures."""
    return (
        f"{spent['wall_s']:.3g} s, {spent['cpu_s']:.3g} CPU s, {spent['energy_j']:.3g} J and {1e3 * spent['gco2e']:.2g} mg CO2e at "
        f"{spent['gco2e_per_kwh']:.0f} g/kWh, the world's average ({spent['basis']})"
    )


def order_robustness(run: Any, data: Mapping[str, Any]) -> Markup | None:
    """Sentences about how robust the order of designs is, where an uncertainty analysis has said so; ``data`` are the page's."""
    uncertainty = run.context.get("uncertainty")
    if not isinstance(uncertainty, Mapping):
        return None
    said = text.devices_said(run)  # stands in the head
    lines = [str(line) for line in uncertainty.get("notes") or () if line not in said]
    if data["distinct"] == 1:  # nothing to put in order, and no chart
        lines = [line for line in lines if not line.startswith("Two designs of the front")]
        for name, band in data["extras"]["uncertainty"].items():
            unit = display_unit(name, band["p95"][:1], run.context)
            ends = (unit.text(band[q][0]) for q in ("p5", "p95", "p50"))
            lines.insert(0, "{} lies from {} to {} in nine draws of ten, median {}.".format(unit.label, *ends))
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
