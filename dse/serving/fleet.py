"""How many chips for a log of requests: every fleet of a grid is simulated, and the front of the chosen objectives is exact on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from dse_kernels.pareto import pareto_mask

from carbon.factors import grid as grids
from dse.errors import DseError, UsageError, unknown_name
from dse.serving.model import served_model
from dse.serving.requests import RequestLog
from dse.serving.sheet import sheet
from dse.serving.simulation import BLOCK_TOKENS, JOULES_PER_KWH, SECONDS_PER_YEAR, Served, Setup, run
from dse.serving.steps import Parallelism

METRICS = (
    "goodput_per_s",
    "goodput_share",
    "gco2e_per_request",
    "energy_j_per_request",
    "ttft_p95_ms",
    "tpot_p95_ms",
    "chips",
    "utilisation",
)
KNOBS: dict[str, tuple[int, ...]] = {
    "tp": (1, 2, 4, 8),
    "replicas": (1, 2, 3, 4, 6, 8, 12, 16),
    "max_sequences": (16, 64, 256),
    "weight_bits": (16, 8),
}


@dataclass(frozen=True)
class Place:
    """Where and how a fleet stands: carbon intensity, PUE, lifetime, and spare replicas (idle) as a share of the working ones."""

    gco2e_per_kwh: float
    pue: float = 1.2
    lifetime_years: float = 5.0
    headroom: float = 0.1


def figures(served: Served, place: Place, ttft_s: float, tpot_s: float) -> dict[str, float]:
    """Metrics of one fleet. Spare replicas draw idle power and carry their embodied carbon."""
    setup = served.setup
    spare = math.ceil(setup.replicas * place.headroom) * setup.parallel.chips
    chip = sheet(setup.hw)
    joules = float(served.energy_j.sum()) + spare * chip.idle_w * served.makespan_s
    chips = setup.chips + spare
    embodied = 1e3 * chip.embodied_kgco2e * chips * served.makespan_s / (place.lifetime_years * SECONDS_PER_YEAR)
    grams = joules / JOULES_PER_KWH * place.pue * place.gco2e_per_kwh + embodied
    count = len(served.output)
    good = served.goodput_per_s(ttft_s, tpot_s)
    tpot = served.tpot_s[np.isfinite(served.tpot_s)]
    return {
        "goodput_per_s": good,
        "goodput_share": good * served.makespan_s / count,
        "gco2e_per_request": grams / count,
        "energy_j_per_request": joules / count,
        "ttft_p95_ms": float(np.percentile(served.ttft_s, 95)) * 1e3,
        "tpot_p95_ms": float(np.percentile(tpot, 95)) * 1e3 if len(tpot) else 0.0,
        "chips": float(chips),
        "utilisation": served.utilisation,
    }


def setups(model: str, hardware: Sequence[str], knobs: Mapping[str, Sequence[int]]) -> Iterator[Setup]:
    """Every configuration of the grid, in order; tp beyond the heads of the model is left out."""
    heads = max(a.heads for a in served_model(model).attention)
    mixture = served_model(model).mixture is not None
    for hw, tp, bits, batch, replicas in itertools.product(
        hardware, knobs["tp"], knobs["weight_bits"], knobs["max_sequences"], knobs["replicas"]
    ):
        if tp <= heads:
            parallel = Parallelism(tp, moe_tp=tp if mixture else 1)
            yield Setup(model, hw, parallel=parallel, replicas=replicas, max_sequences=batch, weight_bits=bits, prefix_cache=True)


def search(
    log: RequestLog,
    model: str,
    hardware: Sequence[str],
    place: Place,
    *,
    objectives: Sequence[tuple[str, bool]],
    knobs: Mapping[str, Sequence[int]] | None = None,
    ttft_s: float = math.inf,
    tpot_s: float = math.inf,
    bounds: Sequence[tuple[str, str, float]] = (),
) -> dict[str, Any]:
    """Simulate every fleet of the grid; returns the front, the rule of thumb beside it, and counts.

    Args:
        objectives: (metric, whether it is maximised). bounds: (metric, ``<=`` or ``>=``, value). ttft_s, tpot_s: limits of a good request.

    The rule of thumb is the largest batch limit on the fewest chips that keeps the bounds; ``saved`` says what the least grams under
    the same bounds save against it. Raises DseError where nothing fits or keeps the bounds.
    """
    for name in (*(name for name, _ in objectives), *(name for name, _, _ in bounds)):
        if name not in METRICS:
            raise unknown_name("metric of a fleet", name, METRICS)
    if not objectives:
        raise UsageError("objectives are empty; name at least one of " + ", ".join(METRICS))
    grid = {**KNOBS, **(knobs or {})}
    for name in knobs or {}:
        if name not in KNOBS:
            raise unknown_name("knob of a fleet", name, KNOBS)
    log.check_context(served_model(model).positions, model)
    requests = log.requests(BLOCK_TOKENS)
    rows: list[dict[str, Any]] = []
    refused = 0
    for setup in setups(model, hardware, grid):
        try:
            served = run(setup, requests)
        except UsageError:
            raise
        except DseError:
            refused += 1
            continue
        design = {"hw": setup.hw, "tp": setup.parallel.tp, "weight_bits": setup.weight_bits, "max_sequences": setup.max_sequences}
        rows.append({**design, "replicas": setup.replicas, **figures(served, place, ttft_s, tpot_s)})
    kept = [row for row in rows if all(row[name] <= value if sign == "<=" else row[name] >= value for name, sign, value in bounds)]
    if not kept:
        raise DseError(
            f"of {len(rows) + refused} fleets {refused} do not hold {model} or a request, and none of the others keeps the bounds; "
            "nearest is more replicas or a looser bound"
        )
    values = np.array([[-row[name] if up else row[name] for name, up in objectives] for row in kept])
    front = [row for row, on in zip(kept, pareto_mask(values).tolist(), strict=True) if on]
    thumb = min(kept, key=lambda row: (row["chips"], -row["max_sequences"]))
    least = min(kept, key=lambda row: row["gco2e_per_request"])
    return {
        "front": sorted(front, key=lambda row: tuple(-row[name] if up else row[name] for name, up in objectives)),
        "rule_of_thumb": thumb,
        "least_grams": least,
        "saved": 1 - least["gco2e_per_request"] / thumb["gco2e_per_request"],
        "fleets": len(rows) + refused,
        "do_not_fit": refused,
        "keep_bounds": len(kept),
    }


def with_grid(place: Place, grid: str) -> Place:
    """The place with the carbon intensity of a grid's name."""
    return replace(place, gco2e_per_kwh=float(grids.lookup(grid).gco2e_per_kwh))
