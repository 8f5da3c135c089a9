"""How sure the order of qualities is: the probability that one design's quality is at least another's, from their standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dse.problem.wording import finite


@dataclass(frozen=True)
class QualityOrder:
    """The recommended design beside another: ``probability`` that its quality is at least that of ``design``; ``best``: of all the best."""

    design: int
    probability: float
    best: bool


def at_least(mean: float, error: float, other: float, other_error: float) -> float:
    """Probability that a quality is at least another: Phi((mean - other) / sqrt(error^2 + other_error^2)), normal independent errors.

    Errors that two figures share (the same items, one fit) cancel in the difference, so the truth is then farther from a half.
    """
    return 0.5 * math.erfc((other - mean) / math.sqrt(2.0 * (error * error + other_error * other_error)))


def quality_order(run: Any, chosen: Mapping[str, Any], runner_up: Mapping[str, Any] | None, best: Mapping[str, Any]) -> list[QualityOrder]:
    """The chosen design beside the runner-up and the best in quality; one of the same model, or without an error, is left out."""
    told: list[QualityOrder] = []
    for other in (runner_up, best):
        if other is None or other["design"] in (chosen["design"], *(row.design for row in told)) or _same_model(run, chosen, other):
            continue
        figures = [finite(design["metrics"].get(name)) for design in (chosen, other) for name in ("quality", "quality_se")]
        mean, error, its_mean, its_error = (figure if figure is not None else math.nan for figure in figures)
        if error > 0 and its_error > 0:
            told.append(QualityOrder(other["design"], at_least(mean, error, its_mean, its_error), other is best))
    return told


def _same_model(run: Any, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two designs have one model, and so one quality: by the knobs that were measured, or by a surrogate's figure."""
    evaluator = run.context.get("quality_evaluator")
    if isinstance(evaluator, Mapping) and evaluator.get("parameters"):
        return all(one["knobs"].get(name) == other["knobs"].get(name) for name in evaluator["parameters"])
    return all(one["metrics"].get(name) == other["metrics"].get(name) for name in ("quality", "quality_se"))
