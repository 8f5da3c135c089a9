"""The data of a report: what the page's script reads, as plain values in columns.

Columns with few distinct values are kept as those values and an index, numbers with seven significant digits: the page
stays small, and pareto.csv and the study hold every digit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dse.problem.metrics import METRICS
from dse.problem.wording import finite
from dse.quality.surrogate import SUPPORT
from dse.reports.kept import of_run
from dse.reports.units import DisplayUnit, knob_names, metric_names

# What a page embeds and draws at most; a larger front is thinned and the page says so.
MAX_DESIGNS = 5000
MAX_BREAKDOWNS = 200
_DIGITS = 7


def rounded(value: Any) -> Any:
    """Numbers to seven significant digits, NaN and infinities as None, other values as text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        number = finite(value)
        return None if number is None else float(f"{number:.{_DIGITS}g}")
    return str(value)


def thinned(run: Any, limit: int) -> list[int]:
    """Indices of the designs that a page shows, in canonical order.

    All, or ``limit`` evenly spaced ones with the recommended one, the best of each objective
    and, on a page of many, those with a breakdown.
    """
    count = len(run.designs)
    if count <= limit:
        return list(range(count))
    keep = set(np.linspace(0, count - 1, limit).round().astype(int).tolist())
    keep.update(index for index in (recommended_design(run), *best_designs(run).values()) if index is not None)
    if limit > MAX_BREAKDOWNS:
        keep.update([index for index, design in enumerate(run.designs) if design.get("components")][:MAX_BREAKDOWNS])
    return sorted(keep)


def recommended_design(run: Any) -> int | None:
    """Index of the recommended design; None where there is none."""
    number = of_run(run).design
    return next((index for index, design in enumerate(run.designs) if design["design"] == number), None)


def best_designs(run: Any) -> dict[str, int | None]:
    """For each objective the index of its best design, the first of equals; None where no design has a value."""
    best: dict[str, int | None] = {}
    for objective in run.problem.objectives:
        values = [finite(design["metrics"].get(objective.metric)) for design in run.designs]
        known = [(objective.sign * value, index) for index, value in enumerate(values) if value is not None]
        best[objective.metric] = min(known)[1] if known else None
    return best


def column(values: Sequence[Any]) -> Any:
    """A column as a list, or as its distinct values and an index where that is shorter."""
    shown = [rounded(value) for value in values]
    # 1 and True are equal to a dictionary and different to a reader, so the key carries the type.
    codes: dict[tuple[type, Any], int] = {}
    index = [codes.setdefault((type(value), value), len(codes)) for value in shown]
    if len(codes) * 4 > len(shown):
        return shown
    return {"values": [value for _, value in codes], "index": index}


def report_data(run: Any, units: Mapping[str, DisplayUnit], keep: list[int], *, max_breakdowns: int = MAX_BREAKDOWNS) -> dict[str, Any]:
    """Everything that the page's script needs of the designs ``keep``, JSON-ready and the same for the same run."""
    designs = [run.designs[index] for index in keep]
    place = {index: position for position, index in enumerate(keep)}
    recommended = recommended_design(run)
    parts = list(dict.fromkeys(name for design in designs for name in design.get("embodied_parts_kgco2e") or {}))
    supports = [design.get("quality_support") for design in designs]
    return {
        "total": len(run.designs),
        "distinct": len({tuple(str(d["metrics"].get(o.metric)) for o in run.problem.objectives) for d in designs}),
        "measured": set(supports) == {"measured"}
        or ("quality_evaluator" in run.context and not {"interpolated", "extrapolated"} & set(supports)),
        "suggested": None if recommended is None else place[recommended],
        "objectives": [{"metric": o.metric, "direction": o.direction} for o in run.problem.objectives],
        "constraints": [{"metric": c.metric, "relation": c.relation, "bound": rounded(c.bound)} for c in run.problem.constraints],
        "metrics": {
            name: {
                "label": units[name].label,
                "factor": units[name].factor,
                "unit": units[name].unit,
                "better": _direction(run, name),
            }
            for name in metric_names(designs)
        },
        "knobs": knob_names(designs),
        "support_names": list(SUPPORT),
        "columns": {
            "design": column([design["design"] for design in designs]),
            "support": column(supports),
            "metrics": {name: column([design["metrics"].get(name) for design in designs]) for name in metric_names(designs)},
            "knobs": {name: column([design["knobs"].get(name) for design in designs]) for name in knob_names(designs)},
            "parts": {name: column([(design.get("embodied_parts_kgco2e") or {}).get(name) for design in designs]) for name in parts},
            "mix": _mix(designs),
            "dram_bytes_per_s": column([design.get("dram_bytes_per_s") for design in designs]),
        },
        "breakdowns": _breakdowns(designs, max_breakdowns),
        "extras": _extras(run, keep),
    }


def _mix(designs: list[dict[str, Any]]) -> dict[str, Any]:
    """What one request of each part of a mix takes: part -> share of the requests, latency [s] and dynamic energy [J] of each design."""
    shares = {str(name): part["share"] for design in designs for name, part in (design.get("parts") or {}).items()}

    def known(part: str, metric: str) -> Any:
        return column([(design.get("parts") or {}).get(part, {}).get(metric) for design in designs])

    return {
        part: {"share": rounded(share), **{metric: known(part, metric) for metric in ("latency_s", "energy_j")}}
        for part, share in shares.items()
    }


def _direction(run: Any, name: str) -> str | None:
    for objective in run.problem.objectives:
        if objective.metric == name:
            return str(objective.direction)
    return METRICS[name].better if name in METRICS else None


def _breakdowns(designs: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Component breakdowns as rows of numbers with shared tables of names.

    ``designs[position]`` holds ``components`` rows [component, latency_s, energy_j, macs, dram_bytes, {bound: s}] and
    ``operations`` rows [component, operation, repeat, latency_s, energy_j, bound, macs, dram_bytes].
    """
    have = [position for position, design in enumerate(designs) if design.get("components")]
    if len(have) > limit:
        have = [have[i] for i in np.unique(np.linspace(0, len(have) - 1, limit).round().astype(int)).tolist()]
    components: dict[str, int] = {}
    operations: dict[str, int] = {}
    bounds: dict[str, int] = {}

    def code(table: dict[str, int], name: Any) -> int:
        return table.setdefault(str(name), len(table))

    found = {}
    for position in have:
        rows, details = [], []
        for part in designs[position]["components"]:
            component = code(components, part.get("component"))
            by_bound = part.get("latency_by_bound_s") or {part.get("bound"): part.get("latency_s")}
            rows.append(
                [
                    component,
                    *(rounded(part.get(name)) for name in ("latency_s", "energy_j", "macs", "dram_bytes")),
                    {str(code(bounds, name)): rounded(seconds) for name, seconds in by_bound.items()},
                ]
            )
            details += [
                [
                    component,
                    code(operations, row.get("name")),
                    *(rounded(row.get(name)) for name in ("repeat", "latency_s", "energy_j")),
                    code(bounds, row.get("bound")),
                    *(rounded(row.get(name)) for name in ("macs", "dram_bytes")),
                ]
                for row in part.get("operations") or ()
            ]
        found[str(position)] = {"components": rows, "operations": details}
    return {
        "components": list(components),
        "operations": list(operations),
        "bounds": list(bounds),
        "designs": found,
    }


def _extras(run: Any, keep: list[int]) -> dict[str, Any]:
    """What later stages of a search may have put into the context; docs/report.md gives the forms."""
    extras: dict[str, Any] = {}
    uncertainty = run.context.get("uncertainty")
    if isinstance(uncertainty, Mapping) and isinstance(uncertainty.get("metrics"), Mapping):
        bands = {}
        for name, band in uncertainty["metrics"].items():
            columns = {q: band.get(q) for q in ("p5", "p50", "p95")}
            if all(isinstance(c, Sequence) and len(c) == len(run.designs) for c in columns.values()):
                bands[str(name)] = {q: [rounded(c[index]) for index in keep] for q, c in columns.items() if c}
        if bands:
            extras["uncertainty"] = bands
    convergence = run.context.get("convergence")
    if isinstance(convergence, Mapping) and convergence.get("evaluations"):
        evaluations, volume = convergence["evaluations"], convergence.get("hypervolume") or ()
        if len(evaluations) == len(volume):
            extras["convergence"] = {
                "evaluations": [rounded(value) for value in evaluations],
                "hypervolume": [rounded(value) for value in volume],
            }
    importance = run.context.get("importance")
    if isinstance(importance, Sequence) and not isinstance(importance, str):
        rows = [row for row in importance if isinstance(row, Mapping) and finite(row.get("share")) is not None]
        head = {(row.knob, row.metric) for row in of_run(run).matters}
        if any((str(row.get("knob")), str(row.get("metric"))) not in head for row in rows):  # else the head has said it
            extras["importance"] = [
                {"knob": str(row.get("knob")), "metric": str(row.get("metric")), "share": rounded(float(row["share"]))} for row in rows
            ]
    return extras
