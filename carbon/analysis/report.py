"""An estimate, a validation and the factor tables as text and as plain data for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from carbon.analysis.estimate import Estimate, grid_range
from carbon.analysis.uncertainty import Range, Spread
from carbon.analysis.validation import Check, Product
from carbon.embodied import memory
from carbon.errors import CarbonError
from carbon.factors import grid
from carbon.factors import tables as factors
from carbon.factors.grid import GridFactor
from carbon.factors.tables import Factor
from carbon.operational.water import water_factors


def estimate_data(answer: Estimate) -> dict[str, Any]:
    """Return an estimate as plain values; every number finite."""
    data: dict[str, Any] = {
        "name": answer.name,
        "profile": answer.profile,
        "basis": answer.basis,
        "embodied_kgco2e": answer.embodied_kgco2e,
        "embodied_parts_kgco2e": dict(answer.embodied_parts),
        "operational_kgco2e": answer.operational_kgco2e,
        "total_kgco2e": answer.total_kgco2e,
        "range": {
            "embodied_parts_kgco2e": {name: _percentiles(one) for name, one in answer.part_spreads.items()},
            "embodied_components_kgco2e": {name: _percentiles(one) for name, one in answer.component_spreads.items()},
            "embodied_kgco2e": _percentiles(answer.embodied),
            "operational_kgco2e": _percentiles(answer.operational),
            "total_kgco2e": _percentiles(answer.total),
        },
        "tornado_total_kgco2e": [
            {"key": bar.key, "low": bar.low, "high": bar.high, "at_low": bar.at_low, "at_high": bar.at_high}
            for bar in answer.tornado
            if bar.swing > 0.0
        ],
        "metrics": [{"name": one.name, "value": float(one.value), "unit": one.unit, "basis": one.basis} for one in answer.metrics],
        "warnings": answer.warnings,
        "assumed": answer.assumed,
        "sources": {key: factor_data(factor) for key, factor in answer.sources.items()},
    }
    if answer.operation is not None:
        used = answer.operation
        data["operation"] = {
            "active_kgco2e": float(used.active_kgco2e),
            "idle_kgco2e": float(used.idle_kgco2e),
            "energy_kwh": float(used.energy_kwh),
            "machines_kwh": answer.machines_kwh,
            "pue": answer.pue,
            "utilisation": float(used.utilisation),
            "feasible": bool(used.feasible),
        }
    return data


def _percentiles(one: Spread) -> dict[str, float]:
    return {"p5": float(one.p5), "p50": float(one.p50), "p95": float(one.p95)}


def factor_data(factor: Factor | GridFactor) -> dict[str, Any]:
    """Return a factor with its provenance as plain values."""
    if isinstance(factor, GridFactor):
        return {
            "value": factor.gco2e_per_kwh,
            "unit": "gCO2e/kWh",
            "kind": str(factor.kind),
            "code": factor.code,
            "source": factor.source,
            "vintage": "" if factor.year is None else str(factor.year),
            "licence": factor.licence,
            "status": factor.status,
            "note": factor.note,
        }
    return {
        "value": factor.value,
        "low": factor.low,
        "high": factor.high,
        "unit": factor.unit,
        "source": factor.source,
        "vintage": factor.vintage,
        "licence": factor.licence,
        "note": factor.note,
    }


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a plain text table, columns as wide as they need."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    shown = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    shown.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(shown)


def number(value: float) -> str:
    """Return four significant digits; from ten thousand to a billion in whole numbers, not in powers of ten."""
    if value == 0.0 or not math.isfinite(value):
        return f"{value:g}"
    short = float(f"{value:.4g}")
    return f"{short:,.0f}" if 1e4 <= abs(short) < 1e9 else f"{value:.4g}"


def estimate_text(answer: Estimate) -> str:
    """Return an estimate for a terminal."""
    lines = [f"{answer.name}", f"basis: {answer.basis}", ""]
    rows = [[name, number(kg), *_ends(answer.part_spreads[name])] for name, kg in answer.embodied_parts.items()]
    lines.append(table(["embodied part", "kgCO2e", "p5", "p95"], rows))
    lines += ["", table(["component", "kgCO2e", "p5", "p95", "share of embodied"], _by_component(answer))]
    lines.append("")
    spreads = [("embodied", answer.embodied_kgco2e, answer.embodied)]
    if answer.operation is not None:
        spreads.append(("operational", answer.operational_kgco2e, answer.operational))
        spreads.append(("total", answer.total_kgco2e, answer.total))
    lines.append(
        table(
            ["kgCO2e", "estimate", "p5", "p50", "p95"],
            [[name, number(kg), *(number(float(value)) for value in (one.p5, one.p50, one.p95))] for name, kg, one in spreads],
        )
    )
    if answer.operation is not None and answer.total_kgco2e > 0.0:
        share = answer.embodied_kgco2e / answer.total_kgco2e
        lines.append(f"embodied {share:.1%}, operational {1.0 - share:.1%} of the total")
        lines.append(
            f"energy: {number(answer.machines_kwh)} kWh of the machines, {number(float(answer.operation.energy_kwh))} kWh at the meter "
            f"(PUE {answer.pue:g})"
        )
    shifted = [f"{name} {float(one.p50) / kg - 1.0:+.0%}" for name, kg, one in spreads if kg > 0.0 and float(one.p50) > 1.05 * kg]
    if shifted:
        lines.append(
            "The estimate takes every factor at its point value; p50 is the middle of the draws. Ranges are not symmetric about the point "
            f"value, most reach further up, so that p50 lies above the estimate: {', '.join(shifted)}."
        )
    lines.append(
        "To report: the estimate, to which the parts add, with its p5 and p95 (those of parts do not add: they are not all low at once)."
    )
    bars = [bar for bar in answer.tornado if bar.swing > 0.0][:8]
    if bars:
        lines += ["", "what moves the total most (others at their estimate): the factor's range, and kgCO2e in total at either end"]
        cells = [[bar.key, *(number(each) for each in (bar.low, bar.high, bar.at_low, bar.at_high))] for bar in bars]
        lines.append(table(["factor", "low", "high", "total at low", "total at high"], cells))
    if answer.metrics:
        lines += [""]
        lines.append(
            table(
                ["metric", "value", "unit", "basis"],
                [[one.name, number(float(one.value)), one.unit, one.basis] for one in answer.metrics],
            )
        )
    lines += [f"warning: {warning}" for warning in answer.warnings]
    lines += [f"assumed: {sentence}" for sentence in answer.assumed]
    return "\n".join(lines)


def _by_component(answer: Estimate) -> list[list[str]]:
    """Embodied carbon of each component, all of its kind together, with its share."""
    rows = []
    for name, count in answer.counts.items():
        kg = sum(part for key, part in answer.embodied_parts.items() if len(answer.counts) == 1 or key.startswith(f"{name}."))
        share = kg / answer.embodied_kgco2e if answer.embodied_kgco2e > 0.0 else 0.0
        ends = _ends(answer.component_spreads[name])
        rows.append([name if count == 1 else f"{name} x {count:g}", number(kg), *ends, f"{share:.1%}"])
    return rows


def _ends(one: Spread) -> list[str]:
    return [number(float(one.p5)), number(float(one.p95))]


def drawn(key: str, factor: Factor | GridFactor, ranges: Mapping[str, Range] | None) -> dict[str, Any]:
    """The range that an estimate draws a grid from, and why: ``low``, ``high``, ``drawn``. Nothing for other factors or without ranges."""
    if ranges is None or not isinstance(factor, GridFactor):
        return {}
    if key not in ranges:
        return {"drawn": "not drawn: [uncertainty] has factors = false"}
    one, fab = ranges[key], key.startswith("fab.")
    if one != grid_range(factor, fab=fab):
        why = "the specification gives this range"
    elif fab:
        why = "contracts and coal around a fab's grid: 0.515 to 1.407 of the figure (300-583-820 g/kWh in Taiwan), assumed"
    else:
        others = ", ".join(f"{each.code} {number(each.gco2e_per_kwh)}" for each in grid.same_place(factor))
        why = f"at least 15 % to either side (assumed), and the figures of other sources of its kind ({others or 'none'})"
    return {"low": one.low, "high": one.high, "drawn": why}


def place_called(text: str) -> str | None:
    """The word of ``dse carbon grids --code`` for a text that is, or is part of, a place's code or name; None where there is none."""
    try:
        if not grid.lookup(text).code.startswith("custom"):
            return text
    except CarbonError:
        pass
    listed = grids(text) if len(text.strip()) >= 3 else []
    return listed[0].code if listed else None


def sources_text(sources: Mapping[str, Factor | GridFactor], ranges: Mapping[str, Range] | None = None) -> str:
    """Return every factor with value, range, source, vintage and licence, for a terminal; ``ranges``: those that an estimate draws."""
    lines = []
    for key, factor in sources.items():
        data = factor_data(factor) | drawn(key, factor, ranges)
        span = f" [{number(data['low'])} .. {number(data['high'])}]" if data.get("low") is not None else ""
        kind = f" ({data['kind']})" if "kind" in data else ""
        lines.append(f"{key} = {data['value']:g} {data['unit']}{span}{kind}")
        if "drawn" in data:
            lines.append(f"    range:   {data['drawn']}")
        lines.append(f"    source:  {data['source']}")
        lines.append(f"    vintage: {data['vintage'] or 'not stated'}; licence: {data['licence']}")
        if data["note"]:
            lines.append(f"    note:    {data['note']}")
    return "\n".join(lines)


def all_factors() -> dict[str, Factor]:
    """Return every shipped factor that is not a grid, by key."""
    found: dict[str, Factor] = {}
    for quantity in factors.fab_quantities():
        for factor in factors.fab_factors(quantity, factors.nodes(quantity)):
            found[factor.key] = factor
    for kind in (*factors.memories().values(), *factors.storages().values()):
        found[kind.per_gb.key] = kind.per_gb
    for factor in factors.items().values():
        found[factor.key] = factor
    for factor in memory.per_gb().values():
        found[factor.key] = factor
    for name in memory.types():
        if name not in memory.HBM:
            area = memory.cm2_per_gb("nand" if name == "nand" else "dram", memory.default_year(name))
            found[area.key] = area
    found |= water_factors()
    return dict(sorted(found.items()))


def grids_text(listed: Sequence[GridFactor]) -> str:
    """Return grid factors as a table."""
    rows = [
        [
            one.code,
            one.name,
            number(one.gco2e_per_kwh),
            str(one.kind),
            "" if one.year is None else str(one.year),
            one.status,
            one.licence,
            one.source,
        ]
        for one in listed
    ]
    return table(["code", "name", "g/kWh", "kind", "year", "status", "licence", "source"], rows)


def grids(pattern: str | None) -> list[GridFactor]:
    """Return the grid factors whose code, name or level contains ``pattern``."""
    listed = grid.everything()
    if not pattern:
        return listed
    wanted = pattern.lower()
    return [one for one in listed if wanted in one.code.lower() or wanted in one.name.lower() or wanted in one.level]


def checks_text(checks: Sequence[Check], products: Sequence[Product]) -> str:
    """Return the validation table and the products behind it."""
    verdict = {True: "yes", False: "NO", None: "-"}
    rows = [[one.name, str(one.rows), one.measured, one.goal, verdict[one.passed]] for one in checks]
    lines = [table(["what", "rows", "measured", "goal", "holds"], rows), ""]
    lines.append(
        table(
            ["published product (kgCO2e)", "published", "estimate", "p5", "p95", "inside", "remark; what the published figure includes"],
            [
                [
                    one.name,
                    number(one.published_kgco2e),
                    number(one.estimate_kgco2e),
                    number(one.p5),
                    number(one.p95),
                    "yes" if one.inside else "no",
                    f"{'calibration' if one.calibration else one.status}; {one.boundary}",
                ]
                for one in products
            ],
        )
    )
    return "\n".join(lines)
