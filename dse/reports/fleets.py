"""The page of a search for fleets that serve a log: the front, the rule of thumb beside it, and the fleet of least grams hour by hour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dse.reports.kept import of_run
from dse.reports.markup import tag
from dse.reports.plain_page import plain_page
from dse.reports.recommended import plain_header
from dse.reports.sections import section, table

_NAMES = ("hw", "tp", "weight_bits", "max_sequences", "replicas", "goodput_per_s", "goodput_share", "gco2e_per_request",
          "energy_j_per_request", "ttft_p95_ms", "tpot_p95_ms", "chips", "utilisation")  # fmt: skip
_HOURS = ("hour", "requests", "needed", "with_spares", "energy_j", "gco2e_per_kwh", "operational_gco2e", "embodied_gco2e")


def page_of_run(run: Any) -> str:
    """The page of a run of `dse.served`."""
    answer, asked = run.context["answer"], run.problem.request
    where = f", region {asked['region']}" if asked["region"] else ""
    title = f"Fleets for {run.problem.workload}{where}: {asked['model']} on {run.problem.hardware}"
    found = of_run(run)
    bounds = [*(f"{name} <= {1e3 * value:g} ms" for name, value in asked["limits"].items()), *map(str, run.problem.constraints)]
    fronts = [{"design": d["design"], **d["knobs"], **d["metrics"]} for d in run.designs]
    names = ["design", *(name for name in _NAMES if name in fronts[0] or name == "utilisation")]
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


def _breakable(names: Iterable[str]) -> list[str]:
    """Names of columns that may be broken behind their underscores: many stand side by side."""
    return [name.replace("_", "_\u200b") for name in names]


def _cells(row: Mapping[str, Any], names: Any) -> list[str]:
    values = (row.get(name, row.get("service_utilisation") if name == "utilisation" else None) for name in names)
    return ["" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in values]
