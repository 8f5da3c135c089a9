"""Labels and display units of metrics: one unit a metric for a whole page, chosen so that its largest value reads well.

The data keep the units of :mod:`dse.problem.metrics`; only what is shown is scaled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dse.problem.metrics import METRICS
from dse.problem.wording import finite, number_text

# For each base unit the units it may be shown in, largest first, as (factor from the base unit, name).
_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e3, "ms"), (1e6, "µs"), (1e9, "ns")),
    "J": ((1.0, "J"), (1e3, "mJ"), (1e6, "µJ"), (1e9, "nJ")),
    "W": ((1.0, "W"), (1e3, "mW"), (1e6, "µW")),
    "kgCO2e": ((1e-3, "tCO₂e"), (1.0, "kgCO₂e"), (1e3, "gCO₂e"), (1e6, "mgCO₂e"), (1e9, "µgCO₂e"), (1e12, "ngCO₂e")),
    "1": ((1e-12, "T"), (1e-9, "G"), (1e-6, "M"), (1.0, "")),
}
_PLAIN = {"mm2": "mm²", "1e12 op/s": "TOPS"}


@dataclass(frozen=True)
class DisplayUnit:
    """How a metric is shown: its label, the factor that turns its own unit into the shown one, and that unit's name."""

    label: str
    factor: float
    unit: str

    @property
    def axis(self) -> str:
        """Label and unit, as an axis or a table head carries them."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label

    def text(self, value: Any) -> str:
        """A value of the metric with its unit, to four significant digits; a dash where there is none."""
        shown = number_text(value, self.factor)
        return f"{shown} {self.unit}" if self.unit and shown != "–" else shown


def column_texts(values: Iterable[Any], factor: float = 1.0) -> list[str]:
    """Numbers of one column, times ``factor``, all with the same decimals; a dash where there is none.

    Four digits for the largest, and more where the smallest would lose its second digit, up to four decimals.
    """
    numbers = [None if number is None else number * factor for number in map(finite, values)]
    sizes = [abs(number) for number in numbers if number]
    if not sizes or all(number is None or number.is_integer() for number in numbers):
        decimals = 0
    else:
        wanted = max(3 - math.floor(math.log10(max(sizes))), 1 - math.floor(math.log10(min(sizes))))
        decimals = min(max(wanted, 0), 4)
    return ["–" if number is None else f"{number:,.{decimals}f}" for number in numbers]


def quality_label(context: Mapping[str, Any]) -> str:
    """What quality is called in this run: measured, or else it carries the word surrogate."""
    if context.get("kind") == "loop":
        return f"Share of problems solved, {context['answer']['quality']}"
    if isinstance(evaluator := context.get("quality_evaluator"), Mapping):
        name = str(evaluator.get("evaluator"))
        return f"Quality measured by {name}" if measures(name) else f"Quality by {name}"
    surrogate = context.get("quality_surrogate")
    label = str(surrogate.get("label") or "") if isinstance(surrogate, Mapping) else ""
    label = " ".join(label.replace("[%]", "").split()).replace(" ,", ",") or "Quality"
    return label if "surrogate" in label.lower() or "measured" in label.lower() else f"{label}, surrogate"


def measures(evaluator: str) -> bool:
    """Whether an evaluator measures; a table of trained models is a surrogate between its rows, and the support of a design says which."""
    return not evaluator.startswith(("trained:", "surrogate"))


def _own_scale(context: Mapping[str, Any]) -> bool:
    """Whether quality is on the scale of an evaluator (a share of one, a mean reciprocal rank, points, a loss) and not per cent."""
    evaluator = context.get("quality_evaluator")
    word = str(evaluator.get("evaluator")) if isinstance(evaluator, Mapping) else "surrogate"
    return word.partition(":")[0] != "surrogate"


def display_unit(name: str, values: Iterable[Any], context: Mapping[str, Any] | None = None) -> DisplayUnit:
    """The display unit of the metric ``name`` for these ``values`` (in the metric's own unit; None and NaN are passed over)."""
    unit = METRICS[name].unit if name in METRICS else ""
    label = METRICS[name].label if name in METRICS else name
    if context is not None and name == "quality":
        label = quality_label(context)
    if context is not None and name in ("quality", "quality_se") and _own_scale(context):
        return DisplayUnit(label, 1.0, "")
    if name in METRICS and METRICS[name].share:
        return DisplayUnit(label, 100.0, "%")
    if unit not in _SCALES:
        return DisplayUnit(label, 1.0, _PLAIN.get(unit, unit))
    largest = max((abs(number) for number in map(finite, values) if number is not None), default=0.0)
    scales = _SCALES[unit]
    default = next(scale for scale in scales if scale[0] == 1.0)
    # Below 1 the next smaller unit reads better; a value that rounds up to 1 may keep the larger one.
    factor, shown = next((scale for scale in scales if largest * scale[0] >= 0.9995), scales[-1]) if largest else default
    return DisplayUnit(label, factor, shown)


def design_units(run: Any) -> dict[str, DisplayUnit]:
    """Display units of every metric that the designs of a run carry, in the order of :mod:`dse.problem.metrics`."""
    names = metric_names(run.designs)
    return {name: display_unit(name, (design["metrics"].get(name) for design in run.designs), run.context) for name in names}


def metric_names(designs: list[dict[str, Any]]) -> list[str]:
    """Metrics that any design carries: known ones in their order, then others by name."""
    found = {name for design in designs for name in design["metrics"]}
    known = [name for name in METRICS if name in found]
    return known + sorted(found.difference(known))


def knob_names(designs: list[dict[str, Any]]) -> list[str]:
    """Knobs of the designs in the order in which they first appear."""
    return list(dict.fromkeys(name for design in designs for name in design["knobs"]))


def as_asked(run: Any) -> Any:
    """The run with its knobs by the names, and in the units, in which they were asked for: for pages and tables that people read."""
    asked = run.problem.asked_as
    if not asked:
        return run
    ranges = run.context.get("knob_ranges")
    told: dict[str, Any] = {"knob_ranges": {asked.get(name, name): ends for name, ends in ranges.items()}} if ranges else {}
    if rows := run.context.get("importance"):
        told["importance"] = [{**row, "knob": " + ".join(asked.get(part, part) for part in str(row["knob"]).split(" + "))} for row in rows]
    designs = [{**design, "knobs": run.problem.shown(design["knobs"])} for design in run.designs]
    return replace(run, designs=designs, context={**run.context, **told})
