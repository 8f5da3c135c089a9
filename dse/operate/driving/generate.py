"""Drives that are drawn: a road, a plaza, a school run; synthetic, by rules that stand here, and no record of any place.

Stretches of a kind follow one another, each with a legal limit and a length in seconds. People appear as a Poisson process with the
stretch's rate, at a uniform distance ahead, and come nearer at a uniform share of the limit until they are passed or, after a uniform
time, gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dse.errors import DseError, unknown_name
from dse.operate.driving.trace import DriveTrace

ROW_S = 0.1
_PASSED_M = 2.5  # a person this near beside the vehicle is passed
_CLOSING = (0.1, 0.7)  # of the legal limit
_STAYS_S = (2.0, 12.0)


@dataclass(frozen=True)
class Stretch:
    """A kind of place: legal limit [m/s], its length [s], people a second, and how far ahead they appear [m]."""

    limit_mps: float
    length_s: tuple[float, float]
    people_per_s: float
    appear_m: tuple[float, float]


# Limits of 70, 50, 30 and 20 km/h.
KINDS: dict[str, tuple[Stretch, ...]] = {
    "road": (
        Stretch(70 / 3.6, (30, 90), 0.005, (45, 100)),
        Stretch(50 / 3.6, (30, 90), 0.02, (28, 100)),
    ),
    "plaza": (
        Stretch(20 / 3.6, (30, 90), 0.6, (6, 60)),
        Stretch(20 / 3.6, (20, 60), 0.2, (6, 60)),
    ),
    "school": (
        Stretch(50 / 3.6, (30, 60), 0.02, (28, 100)),
        Stretch(30 / 3.6, (30, 90), 0.25, (12, 80)),
    ),
}


def generate(kind: str, *, seed: int = 0, duration_s: float = 600.0) -> DriveTrace:
    """A drive of a kind, rows of 0.1 s; the same seed gives the same drive. Raises DseError for an unknown kind or a bad duration."""
    if kind not in KINDS:
        raise unknown_name("drive", kind, KINDS)
    if not 1.0 <= duration_s <= 24 * 3600.0:
        raise DseError(f"duration_s is {duration_s:g}, must be from 1 to 86400")
    if seed < 0:
        raise DseError(f"seed is {seed}, must be at least 0")
    rng = np.random.default_rng((seed, sorted(KINDS).index(kind)))
    rows = round(duration_s / ROW_S)
    limit, near, distance = np.zeros(rows), np.zeros(rows, np.int64), np.full(rows, np.inf)
    at, turn = 0, int(rng.integers(len(KINDS[kind])))
    while at < rows:
        stretch = KINDS[kind][turn % len(KINDS[kind])]
        end = min(rows, at + round(rng.uniform(*stretch.length_s) / ROW_S))
        limit[at:end] = stretch.limit_mps
        arrivals = np.flatnonzero(rng.random(end - at) < stretch.people_per_s * ROW_S) + at
        for first in arrivals.tolist():
            ahead = rng.uniform(*stretch.appear_m)
            speed = stretch.limit_mps * rng.uniform(*_CLOSING)
            stays = rng.uniform(*_STAYS_S)
            last = min(rows, first + round(min(stays, (ahead - _PASSED_M) / speed) / ROW_S))
            path = ahead - speed * ROW_S * np.arange(last - first)
            near[first:last] += 1
            distance[first:last] = np.minimum(distance[first:last], path)
        at, turn = end, turn + 1
    return DriveTrace(ROW_S * np.arange(rows, dtype=np.float64), limit, near, distance, f"{kind} drive, seed {seed}")
