"""What a finished search counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SweepSummary:
    """What a finished sweep counted."""

    points: int
    feasible: int
    reasons: dict[str, int]
