"""Residency of whole workloads on whole batches of designs: what `dse` calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs import precision
from hw_models.costs.residency.solve import Level, Phase, Solver, Totals, eligible
from hw_models.costs.residency.units import CAUSES, Machine
from hw_models.costs.unit_costs import Criterion
from workloads.records import Workload

IntArray = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]


def model_totals(
    workload: Workload,
    hardware: AcceleratorBatch,
    *,
    level: Level,
    criterion: Criterion = "edp",
    threads: int = 1,
    progress: Progress | None = None,
) -> Totals:
    """Costs of every model of a workload on every design with what is best kept on chip; not a number where nothing is kept.

    ``progress``: told the models that are done, and all of them.
    """
    models = next((p.table.models for p in workload.phases if p.table.models is not None), None) or 1
    shape = (models, len(hardware))
    latency, energy, peak = (np.full(shape, np.nan) for _ in range(3))
    pinned = np.zeros(shape, dtype=bool)
    able, _ = eligible(hardware)
    done = 0
    parts = [(w, p[able[p]]) for w, p in precision.groups(hardware)]
    parts = [(w, p) for w, p in parts if len(p)]
    for widths, points in parts:
        solver = _solver(workload, hardware.take(points), widths, level, criterion, threads)
        for group in _alike(solver, models):
            found = solver.totals(group)
            at = np.ix_(np.array(group), points)
            latency[at], energy[at], peak[at], pinned[at] = found.latency_s, found.energy_j, found.peak_w, found.pinned
            done += len(group)
            if progress is not None:
                progress(done, models * len(parts))
    return Totals(latency, energy, peak, pinned)


def _solver(workload: Workload, hardware: AcceleratorBatch, widths: Any, level: Level, criterion: Criterion, threads: int) -> Solver:
    phases = []
    for phase in workload.phases:
        table = precision.at_widths(phase.table, widths)
        phases.append(Phase(table, table.distinct().index, float(phase.runs)))
    return Solver(phases, Machine(hardware, criterion, threads), level)


def _alike(solver: Solver, models: int) -> list[list[int]]:
    """Models whose running rows have the same shapes, together."""
    groups: dict[bytes, list[int]] = {}
    keys = []
    for phase in solver.phases:
        count = len(phase.table)
        index = np.broadcast_to(phase.shapes.reshape(-1, count), (models, count))
        runs = np.broadcast_to(phase.table.column("repeat").reshape(-1, count) > 0, (models, count))
        keys.append(np.where(runs, index, -1))
    every = np.ascontiguousarray(np.concatenate(keys, axis=1))
    for model in range(models):
        groups.setdefault(every[model].tobytes(), []).append(model)
    return list(groups.values())


def report(
    workload: Workload, hardware: AcceleratorBatch, *, model: int, point: int, level: Level, criterion: Criterion = "edp"
) -> dict[str, Any]:
    """Where each tensor of one model lives on one design, what each step costs, and why every byte passes the DRAM.

    Returns ``level``, ``weights_on_chip``, ``capacity_bytes``, ``dram_bytes``, ``dram_bytes_by_cause`` (their sum), ``steps`` and
    ``tensors``, repeats included. Empty where designs of this kind keep nothing.
    """
    able, reason = eligible(hardware)
    if not able[point]:
        return {"level": "none", "reason": reason}
    one = hardware.take(np.array([point]))
    widths, _ = precision.groups(one)[0]
    solver = _solver(workload, one, widths, level, criterion, 1)
    word_bytes = float(one.word_bits[0]) / 8.0
    names = ("compute", *one.level_names, "vector")
    causes = dict.fromkeys(CAUSES, 0.0)
    steps: list[dict[str, Any]] = []
    tensors: dict[tuple[int, int], dict[str, Any]] = {}
    chosen = solver.choice(model, 0)
    before = np.concatenate([[0], np.cumsum([len(p.table) for p in solver.phases])]).tolist()
    for part, times, way in chosen:
        table, runs = part.costs.table, times * part.runs
        for i, (step, condition, found) in enumerate(part.costs.costs_of(way, 0)):
            moved = {cause: float(found.words[0, 0, c]) * word_bytes * runs for c, cause in enumerate(CAUSES)}
            for cause, amount in moved.items():
                causes[cause] += amount
            place = "chip and DRAM" if condition.keeps and condition.stores else "chip" if condition.keeps else "DRAM"
            key = (id(part.costs), i)
            entry = tensors.setdefault(key, {"made_by": str(table.name[step.rows[-1]]), "bytes": step.bits / 8.0, "places": {}})
            entry["places"][place] = entry["places"].get(place, 0.0) + runs
            steps.append(
                {
                    "name": str(table.name[step.row]),
                    "component": str(table.component[step.row]),
                    "row": before[part.phase] + int(step.row),
                    "epilogue": [str(table.name[r]) for r in step.epilogue],
                    "runs": runs,
                    "on_chip": list(condition.resident),
                    "result": place,
                    "held_bytes": condition.held_bits / 8.0,
                    "latency_s": float(found.latency_s[0, 0]) * runs,
                    "energy_j": float(found.energy_j[0, 0]) * runs,
                    "dram_bytes": sum(moved.values()),
                    **{f"{unit}_s": float(getattr(found, f"{unit}_s")[0, 0]) * runs for unit in ("array", "vector", "dram")},
                    "bound": names[int(found.bound[0, 0])],
                }
            )
    return {
        "level": level,
        "weights_on_chip": any(part.costs.pinned_bits > 0 for part, _, _ in chosen),
        "capacity_bytes": float(one.level_bytes[0, -2]),
        "dram_bytes": sum(causes.values()),
        "dram_bytes_by_cause": causes,
        "steps": steps,
        "tensors": list(tensors.values()),
    }
