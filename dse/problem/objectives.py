"""Objectives and constraints: presets, the free forms of the command line, and the checks that they make sense."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dse.errors import UsageError, nearest, unknown_name
from dse.problem.bound_units import scaled
from dse.problem.metrics import current_name, metric

# Digits are taken once and for all: thousands of them with something odd behind are told in no time.
_NUMBER = r"[-+]?(?:\d++\.?\d*+|\.\d++)(?:[eE][-+]?\d++)?"
_CONSTRAINT = re.compile(rf"^\s*([A-Za-z_][A-Za-z0-9_]*)\s*(<=|>=)\s*({_NUMBER})\s*([A-Za-zµ%$²0-9]*)\s*$")


@dataclass(frozen=True)
class Objective:
    """A metric to minimise or maximise."""

    direction: str  # "min" or "max"
    metric: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric", current_name(self.metric))

    def __str__(self) -> str:
        return f"{self.direction}:{self.metric}"

    @property
    def sign(self) -> float:
        """Factor that turns the metric into something to minimise."""
        return 1.0 if self.direction == "min" else -1.0


@dataclass(frozen=True)
class Constraint:
    """A bound on a metric."""

    metric: str
    relation: str  # "<=" or ">="
    bound: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric", current_name(self.metric))

    def __str__(self) -> str:
        return f"{self.metric}{self.relation}{self.bound!r}"


@dataclass(frozen=True)
class Preset:
    """A named set of objectives; ``fixed_model`` keeps the model at the workload's own dimensions."""

    name: str
    objectives: tuple[Objective, ...]
    fixed_model: bool
    meaning: str


def _preset(name: str, objectives: str, meaning: str, fixed_model: bool = False) -> Preset:
    return Preset(name, tuple(parse_objective(text) for text in objectives.split()), fixed_model, meaning)


def parse_objective(text: str) -> Objective:
    """Parse ``min:METRIC`` or ``max:METRIC``."""
    direction, separator, name = text.partition(":")
    if not separator:
        raise UsageError(
            f"objective {text!r} is neither a preset ({', '.join(PRESETS)}) nor of the form min:METRIC or max:METRIC" + _hint(text)
        )
    if direction not in ("min", "max"):
        raise UsageError(f"objective {text!r} has direction {direction!r}; allowed are min and max")
    metric("objective", name)
    return Objective(direction, name)


def _hint(text: str) -> str:
    close = nearest(text, PRESETS)
    return f"; did you mean {close!r}?" if close else ""


def parse_objectives(texts: Iterable[str]) -> tuple[tuple[Objective, ...], Preset | None]:
    """Objectives of a command line: one preset, or any number of free ones, not both."""
    given = list(texts)
    presets = [text for text in given if text in PRESETS]
    if presets and len(given) > 1:
        raise UsageError(f"objective {presets[0]!r} is a preset and stands alone; got {', '.join(given)}")
    if presets:
        preset = PRESETS[presets[0]]
        return preset.objectives, preset
    objectives = tuple(parse_objective(text) for text in given)
    names = [objective.metric for objective in objectives]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"objective metric {name!r} is given {names.count(name)} times; give it once")
    return objectives, None


def parse_constraint(text: str) -> Constraint:
    """Parse ``METRIC<=NUMBER`` or ``METRIC>=NUMBER``; a unit may follow the number (``latency_s<=20ms``)."""
    match = _CONSTRAINT.match(text)
    if not match:
        raise UsageError(f"constraint {text!r} is not of the form METRIC<=NUMBER or METRIC>=NUMBER, with or without a unit (20ms)")
    name, relation = match.group(1), match.group(2)
    bound = scaled(float(match.group(3)), match.group(4), name, metric("constraint", name).unit)
    if not math.isfinite(bound):
        raise UsageError(f"constraint {text!r} has the bound {bound}; a finite number is needed")
    return Constraint(name, relation, bound)


def asks_for_quality(objectives: Iterable[Objective], constraints: Iterable[Constraint]) -> bool:
    """Whether an objective or a bound is on quality."""
    return any(name.startswith("quality") for name in (*(o.metric for o in objectives), *(c.metric for c in constraints)))


def read_constraint(text: str) -> Constraint:
    """The inverse of ``str(constraint)``, for metrics that no list knows; ValueError for another text."""
    name, relation, bound = re.split(r"(<=|>=)", text, maxsplit=1)
    return Constraint(name, relation, float(bound))


# A device that is asked for more than it can serve serves less; comparing it at equal service would flatter it.
SERVICE_CONSTRAINT = Constraint("service_utilisation", "<=", 1.0)


def merge_constraints(given: Iterable[Constraint], *, defaults: Sequence[Constraint], removed: Iterable[str]) -> tuple[Constraint, ...]:
    """Defaults, less those of ``removed`` metrics and those that a given bound of the same side replaces, plus given.

    The service constraint (service_utilisation <= 1) always holds. Contradictory bounds are an error.
    """
    given = tuple(given)
    removed = set(removed)
    for name in removed:
        if name not in {constraint.metric for constraint in defaults}:
            raise unknown_name("no-constraint", name, [constraint.metric for constraint in defaults])
    replaced = {(constraint.metric, constraint.relation) for constraint in given}
    kept = [c for c in defaults if c.metric not in removed and (c.metric, c.relation) not in replaced]
    merged = [*kept, *given]
    if (SERVICE_CONSTRAINT.metric, SERVICE_CONSTRAINT.relation) not in replaced:
        merged.append(SERVICE_CONSTRAINT)
    for upper in merged:
        for lower in merged:
            opposed = upper.metric == lower.metric and upper.relation == "<=" and lower.relation == ">="
            if opposed and upper.bound < lower.bound:
                raise UsageError(f"constraints {upper} and {lower} contradict each other: no design meets both")
    for constraint in given:
        if constraint.metric == SERVICE_CONSTRAINT.metric and constraint.relation == "<=" and constraint.bound > 1.0:
            raise UsageError(
                f"constraint {constraint} allows more than one request at a time; designs are compared at equal "
                "service, so the bound is at most 1"
            )
    return tuple(dict.fromkeys(merged))


PRESETS: dict[str, Preset] = {}
PRESETS.update(
    {
        preset.name: preset
        for preset in (
            _preset("carbon", "max:quality min:total_kgco2e", "quality against total carbon"),
            _preset("latency", "max:quality min:latency_s", "quality against latency"),
            _preset("energy", "max:quality min:energy_j", "quality against energy a request"),
            _preset(
                "all",
                "max:quality min:total_kgco2e min:latency_s min:energy_j",
                "quality against carbon, latency and energy",
            ),
            _preset(
                "hardware",
                "min:total_kgco2e min:latency_s",
                "carbon against latency of the accelerator for the workload's own model",
                fixed_model=True,
            ),
        )
    }
)
