"""The page of a search for fleets that serve a log: the front, the rule of thumb beside it, and the fleet of least grams hour by hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dse.analysis.demand import limits_of
from dse.problem.wording import design_phrase, plural
from dse.reports.kept import of_run
from dse.reports.markup import Markup, tag
from dse.reports.plain_page import plain_page
from dse.reports.recommended import plain_header
from dse.reports.scatter import Mark, scatter
from dse.reports.sections import section, table

_NAMES = ("hw", "tp", "weight_bits", "max_sequences", "replicas", "goodput_per_s", "goodput_share", "gco2e_per_request",
          "energy_j_per_request", "ttft_p95_ms", "tpot_p95_ms", "chips", "service_utilisation")  # fmt: skip
_TOLD_APART = 4  # chips that shapes can tell apart
_HOURS = ("hour", "requests", "needed", "with_spares", "energy_j", "gco2e_per_kwh", "operational_gco2e", "embodied_gco2e")


def page_of_run(run: Any) -> str:
    """The page of a run of `dse.served`."""
    answer, asked = run.context["answer"], run.problem.request
    where = f", region {asked['region']}" if asked["region"] else ""
    title = f"Fleets for {run.problem.workload}{where}: {asked['model']} on {run.problem.hardware}"
    found = of_run(run)
    bounds = [*limits_of(run.problem), *map(str, run.problem.constraints)]
    once = [design for design in run.designs if design.get("equal_to") is None]
    fronts = [{"design": d["design"], **d["knobs"], **d["metrics"]} for d in once]
    equal = len(run.designs) - len(once)
    names = ["design", *(name for name in _NAMES if name in fronts[0])]
    beside = [("rule of thumb", answer["rule_of_thumb"]), ("least grams", answer["least_grams"])]
    body = tag(
        "main",
        plain_header(
            found,
            title,
            f"{answer['fleets']} fleets, {answer['do_not_fit']} do not hold the model or a request, {answer['keep_bounds']} keep the "
            f"bounds ({', '.join(bounds) or 'none'}); the front is exact on this grid.",
        ),
        section(
            "front",
            f"Front: {', '.join(map(str, run.problem.objectives))}",
            _drawing(run, once, found.design),
            tag(
                "p",
                f"{plural(equal, 'fleet')} with the same objectives as one of these {'is' if equal == 1 else 'are'} left out; "
                "pareto.csv has all.",
                class_="note",
            )
            if equal
            else None,
            table(_breakable(names), [_cells(row, names) for row in fronts], caption="Front", numeric=(0, *range(2, len(names)))),
            class_="wide",
        ),
        section(
            "rule",
            "Rule of thumb",
            tag("p", f"Least carbon under the same bounds saves {100 * answer['saved']:.3g} % against fewest chips and largest batch."),
            table(
                ("", *_breakable(_NAMES)),
                [(word, *_cells(row, _NAMES)) for word, row in beside],
                caption="Two fleets",
                numeric=range(2, 1 + len(_NAMES)),
            ),
            class_="wide",
        ),
        section(
            "hours",
            "The fleet of least grams hour by hour",
            table(_breakable(_HOURS), [_cells(row, _HOURS) for row in answer["hours"]], caption="Hours", numeric=range(len(_HOURS))),
            class_="wide",
        ),
        section(
            "provenance",
            "Provenance",
            table(("what", "value"), sorted((k, str(v)) for k, v in run.provenance.items()), caption="Provenance"),
        ),
    )
    return plain_page(title, "search", body)


def _drawing(run: Any, designs: Sequence[Mapping[str, Any]], recommended: int | None) -> Markup | None:
    """The front over its first two objectives, a mark a fleet, its shape by the chip."""
    names = [objective.metric for objective in run.problem.objectives][:2]
    if len(names) < 2 or len(designs) < 2:
        return None
    y, x = names
    chips = list(dict.fromkeys(str(design["knobs"]["hw"]) for design in designs))
    kinds = {chip: chip for chip in chips} if len(chips) <= _TOLD_APART else {chip: chip for chip in chips[: _TOLD_APART - 1]}
    kinds |= {"": "others"} if len(kinds) < len(chips) else {}
    marks = []
    for design in designs:
        knobs, metrics, own = design["knobs"], design["metrics"], design["design"] == recommended
        tip = f"design {design['design']}: {design_phrase(knobs, ('weight_bits',))}: {y} {metrics[y]:.4g}, {x} {metrics[x]:.4g}"
        kind = str(knobs["hw"]) if str(knobs["hw"]) in kinds else ""
        marks.append(Mark(float(metrics[x]), float(metrics[y]), kind, tip, f"design {design['design']}, recommended" if own else ""))
    return scatter(marks, x, y, kinds)


def _breakable(names: Iterable[str]) -> list[str]:
    """Names of columns that may be broken behind their underscores: many stand side by side."""
    return [name.replace("_", "_\u200b") for name in names]


def _cells(row: Mapping[str, Any], names: Any) -> list[str]:
    values = (row.get(name, row.get("utilisation") if name == "service_utilisation" else None) for name in names)  # rows of earlier runs
    return ["" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]
