"""Why the recommended design costs what it does, in one line: which parts its costs are made of, and what it saves against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dse.problem.metrics import METRICS
from dse.problem.objectives import Objective
from dse.problem.wording import finite, joined, lowered, number_text, whole_percents

_CARBON = ("total_kgco2e", "kgco2e_per_request", "embodied_kgco2e")
_OPERATION = "operation"
# Parts that are told by name; the others are told together.
_MOST = 3


def why(design: Mapping[str, Any], objectives: Sequence[Objective], against: Mapping[str, Any] | None = None, role: str = "") -> str:
    """``operation is 63 % of its total carbon, packaging 23 % and the die 11 %; ...``: of its costs, largest parts first.

    Args:
        design: entry of a front (`dse.storage.run_folder.describe_front`).
        objectives: of the search; quality has no parts.
        against: another design, with which the parts of the first carbon cost are compared. role: what that one is, after a comma.

    Returns:
        The line, empty where no cost has parts that are known: fleets, reasoning loops, area.
    """
    told: list[str] = []
    compared = ""
    for objective in objectives:
        parts = _parts(design, objective.metric)
        if len(parts) < 2:
            continue
        told.append(_shares(parts, objective.metric))
        if against is not None and not compared and objective.metric in _CARBON:
            compared = _saved(parts, _parts(against, objective.metric), against["design"], role)
    return "; ".join([*told, *([compared] if compared else [])])


def _parts(design: Mapping[str, Any], metric: str) -> dict[str, float]:
    """What a cost is the sum of, by name: kilograms of carbon, seconds by what bounds them, joules by component."""
    if metric in _CARBON:
        made = {str(name): float(value) for name, value in (design.get("embodied_parts_kgco2e") or {}).items() if value}
        used = finite(design["metrics"].get("operational_kgco2e"))
        return made if metric == "embodied_kgco2e" or used is None or not made else {_OPERATION: used, **made}
    found: dict[str, float] = {}
    for component in design.get("components") or ():
        if metric == "latency_s":
            for bound, seconds in component["latency_by_bound_s"].items():
                found[bound] = found.get(bound, 0.0) + seconds
        elif metric == "energy_j":
            found[component["component"]] = component["energy_j"]
    return found


def _shares(parts: Mapping[str, float], metric: str) -> str:
    """``operation is 63 % of its total carbon, packaging 23 %, die 11 % and memory 3 %``"""
    whole = sum(parts.values())
    if not whole > 0:
        return f"its {_label(metric)} is nothing"
    rows = sorted(((value / whole, name) for name, value in parts.items()), key=lambda row: (-row[0], row[1]))
    if len(rows) > _MOST + 1:
        rows = [*rows[:_MOST], (sum(share for share, _ in rows[_MOST:]), f"the other {len(rows) - _MOST} parts")]
    percents = whole_percents([share for share, _ in rows])
    named = [f"{name} {percent} %" for (_, name), percent in zip(rows, percents, strict=True)][1:]
    verb = "bounds" if metric == "latency_s" else "is"
    return joined([f"{rows[0][1]} {verb} {percents[0]} % of its {_label(metric)}", *[text for text in named if not text.endswith(" 0 %")]])


def _saved(parts: Mapping[str, float], other: Mapping[str, float], number: int, role: str) -> str:
    """``against design 1, the best in quality: 0.48 kg less operation``: parts that differ, the largest difference first."""
    apart = {name: parts.get(name, 0.0) - other.get(name, 0.0) for name in {*parts, *other}}
    largest = max(map(abs, apart.values()))
    rows = sorted(((-abs(value), name) for name, value in apart.items() if abs(value) >= 0.05 * largest > 0))
    if not rows or not other:
        return ""
    told = [f"{_mass(abs(apart[name]))} {'less' if apart[name] < 0 else 'more'} for {name}" for _, name in rows[:_MOST]]
    return f"against design {number}{f', {role}' if role else ''}: {joined(told)}"


def _mass(kilograms: float) -> str:
    return f"{number_text(float(f'{kilograms:.2g}'))} kg" if kilograms >= 0.1 else f"{number_text(float(f'{1e3 * kilograms:.2g}'))} g"


def _label(metric: str) -> str:
    return lowered(METRICS[metric].label)
