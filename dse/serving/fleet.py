"""How many chips for a log of requests: every fleet of a grid is simulated, and the front of the chosen objectives is exact on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from dse_kernels.pareto import pareto_mask

from dse.errors import DseError, UsageError, unknown_name
from dse.serving.fleet_place import HOUR_S, Place
from dse.serving.model import served_model
from dse.serving.requests import RequestLog
from dse.serving.sheet import sheet
from dse.serving.simulation import BLOCK_TOKENS, JOULES_PER_KWH, SECONDS_PER_YEAR, Served, Setup, run
from dse.serving.steps import Parallelism
from hw_models.errors import HardwareError
from workloads.errors import WorkloadError

METRICS = (
    "goodput_per_s",
    "goodput_share",
    "gco2e_per_request",
    "energy_j_per_request",
    "ttft_p95_ms",
    "tpot_p95_ms",
    "chips",
    "service_utilisation",
)
KNOBS: dict[str, tuple[int, ...]] = {
    "tp": (1, 2, 4, 8),
    "replicas": (1, 2, 3, 4, 6, 8, 12, 16),
    "max_sequences": (16, 64, 256),
    "weight_bits": (16, 8),
}


def figures(served: Served, place: Place, ttft_s: float, tpot_s: float) -> dict[str, float]:
    """Metrics of one fleet. Spare replicas draw idle power and carry their embodied carbon; energy is charged at its hour's grid."""
    chips = served.setup.chips + _spare_chips(served.setup, place)
    hours = by_hour(served, place)
    joules = math.fsum(hour["energy_j"] for hour in hours)
    grams = math.fsum(hour["operational_gco2e"] + hour["embodied_gco2e"] for hour in hours)
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
        "service_utilisation": served.utilisation,
    }


def _spare_chips(setup: Setup, place: Place) -> int:
    return place.spares(setup.replicas, setup.parallel.chips) * setup.parallel.chips


def by_hour(served: Served, place: Place) -> list[dict[str, float]]:
    """Hours of the log: requests that arrive, energy of all chips, grid, operational carbon, and the hour's share of embodied carbon.

    A request's busy energy is spread evenly from its arrival to its last token, idle energy evenly over the time the fleet stands; embodied
    carbon of all chips (spares too) for that time is dealt to hours by energy.
    """
    o, chip = served.outcome, sheet(served.setup.hw)
    begin, end = float(o.arrival_s.min()), float(o.arrival_s.min()) + served.makespan_s
    count = max(math.ceil(end / HOUR_S), 1)
    spare = _spare_chips(served.setup, place)
    idle = served.energy_idle_j + spare * chip.idle_w * served.makespan_s
    busy = served.energy_j - served.energy_idle_j / len(served.output)
    edges = np.arange(count + 1) * HOUR_S
    last = np.maximum(o.last_s, o.arrival_s + 1e-9)
    done = np.clip((edges[:, None] - o.arrival_s) / (last - o.arrival_s), 0.0, 1.0) @ busy
    stood = np.clip((edges - begin) / (end - begin), 0.0, 1.0)
    joules = np.diff(done) + np.diff(stood) * idle
    intensity = place.intensity(count)
    embodied = 1e3 * chip.embodied_kgco2e * (served.setup.chips + spare) * served.makespan_s / (place.lifetime_years * SECONDS_PER_YEAR)
    arrivals = np.bincount(np.minimum(o.arrival_s // HOUR_S, count - 1).astype(np.int64), minlength=count)
    return [
        {
            "hour": float(place.start_hour + h),
            "requests": float(arrivals[h]),
            "energy_j": float(joules[h]),
            "gco2e_per_kwh": float(intensity[h]),
            "operational_gco2e": float(joules[h] / JOULES_PER_KWH * place.pue * intensity[h]),
            "embodied_gco2e": float(embodied * joules[h] / joules.sum()),
        }
        for h in range(count)
    ]


def needed_by_hour(
    log: RequestLog, setup: Setup, place: Place, *, ttft_s: float, tpot_s: float, share: float, most: int
) -> list[dict[str, float | None]]:
    """Replicas that each hour's requests alone need for ``share`` of them to be good, and with spares; None beyond ``most`` replicas."""
    told: list[dict[str, float | None]] = []
    hour = (log.arrival_s // HOUR_S).astype(np.int64)
    for h in range(int(hour.max()) + 1):
        own = log.where(hour == h)
        needed: int | None = 0 if len(own) == 0 else None
        for replicas in range(1, most + 1) if len(own) else ():
            served = run(replace(setup, replicas=replicas), own.requests(BLOCK_TOKENS))
            if served.goodput_per_s(ttft_s, tpot_s) * served.makespan_s / len(own) >= share:
                needed = replicas
                break
        spares = place.spares(needed, setup.parallel.chips) if needed else 0
        with_spares = None if needed is None else float(needed + spares)
        told.append({"hour": float(place.start_hour + h), "needed": None if needed is None else float(needed), "with_spares": with_spares})
    return told


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
    remember: Callable[[int, int, Mapping[str, Any], Callable[[], dict[str, float] | None]], dict[str, float] | None] | None = None,
) -> dict[str, Any]:
    """Simulate every fleet of the grid; returns the front, the rule of thumb beside it, and counts.

    Args:
        objectives: (metric, whether it is maximised). bounds: (metric, ``<=`` or ``>=``, value). ttft_s, tpot_s: limits of a good request.
        remember: called with the place of a fleet in the grid, how many there are, its knobs, and what simulates it (None where it does
            not fit); returns its figures, from there or from what it has kept.

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
    every = list(setups(model, hardware, grid))
    for number, setup in enumerate(every):
        design = {"hw": setup.hw, "tp": setup.parallel.tp, "weight_bits": setup.weight_bits, "max_sequences": setup.max_sequences}
        design["replicas"] = setup.replicas

        def simulated(setup: Setup = setup) -> dict[str, float] | None:
            try:
                return figures(run(setup, requests), place, ttft_s, tpot_s)
            except (HardwareError, UsageError, WorkloadError):
                raise
            except DseError:
                return None

        found = simulated() if remember is None else remember(number, len(every), design, simulated)
        if found is None:
            refused += 1
        else:
            rows.append({**design, **found})

    def keeps(row: Mapping[str, Any], bound: tuple[str, str, float]) -> bool:
        name, sign, value = bound
        return bool(row[name] <= value if sign == "<=" else row[name] >= value)

    kept = [row for row in rows if all(keeps(row, bound) for bound in bounds)]
    if not kept:
        raise DseError(
            f"of {len(rows) + refused} fleets {refused} do not hold {model} or a request, and none of the others keeps the bounds; "
            "nearest is more replicas or a looser bound"
        )
    values = np.array([[-row[name] if up else row[name] for name, up in objectives] for row in kept])
    front = [row for row, on in zip(kept, pareto_mask(values).tolist(), strict=True) if on]
    thumb = min(kept, key=lambda row: (row["chips"], -row["max_sequences"]))
    least = min(kept, key=lambda row: row["gco2e_per_request"])
    share = next((value for name, sign, value in bounds if name == "goodput_share" and sign == ">="), 1.0)
    return {
        "hours": _hours(log, model, least, place, ttft_s=ttft_s, tpot_s=tpot_s, share=share),
        "front": sorted(front, key=lambda row: tuple(-row[name] if up else row[name] for name, up in objectives)),
        "rule_of_thumb": thumb,
        "least_grams": least,
        "saved": 1 - least["gco2e_per_request"] / thumb["gco2e_per_request"],
        "fleets": len(rows) + refused,
        "do_not_fit": refused,
        "break_bounds": {f"{b[0]}{b[1]}{b[2]:g}": sum(not keeps(row, b) for row in rows) for b in bounds},
        "keep_bounds": len(kept),
    }


def _hours(
    log: RequestLog, model: str, row: Mapping[str, Any], place: Place, *, ttft_s: float, tpot_s: float, share: float
) -> list[dict[str, Any]]:
    """The fleet of least grams hour by hour, and the replicas that each hour alone would need."""
    (setup,) = setups(model, [row["hw"]], {name: (row[name],) for name in KNOBS})
    hours = by_hour(run(setup, log.requests(BLOCK_TOKENS)), place)
    needed = needed_by_hour(log, setup, place, ttft_s=ttft_s, tpot_s=tpot_s, share=share, most=setup.replicas)
    nothing = {"needed": 0.0, "with_spares": 0.0}  # the last requests may end after the hour of the last arrival
    return [{**hour, **(needed[h] if h < len(needed) else nothing), "hour": hour["hour"]} for h, hour in enumerate(hours)]


def search_regions(log: RequestLog, model: str, hardware: Sequence[str], places: Mapping[str, Place], **options: Any) -> dict[str, Any]:
    """A fleet for each region of a log, each at its own place: {region: answer of `search`}, and grams of a request over all of them."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(log.region):
        if name not in places:
            raise unknown_name("region of the log", name, places)
        found[name] = search(log.where(np.array(log.region) == name), model, hardware, places[name], **options)
    return of_all_regions(log, found)


def of_all_regions(log: RequestLog, found: Mapping[str, Any]) -> dict[str, Any]:
    """The answers of `search` for the regions of a log, and grams of a request over all of them."""
    count = {name: log.region.count(name) for name in found}
    grams = {key: sum(count[name] * found[name][key]["gco2e_per_request"] for name in found) for key in ("least_grams", "rule_of_thumb")}
    return {
        "regions": dict(found),
        "requests": count,
        "gco2e_per_request": grams["least_grams"] / len(log),
        "saved": 1 - grams["least_grams"] / grams["rule_of_thumb"],
    }
