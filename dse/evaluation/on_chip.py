"""What stays on chip between operations, for the models and hardware points of a problem (`hw_models.costs.residency`).

The costs of models are then no longer sums of unit costs that know nothing of each other: a step's cost depends on what is resident
around it, which is chosen for each model and design. The sums are made once, and metrics read them from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.problem.problem import Problem
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs.residency.models import BY_TILES, Models
from hw_models.costs.residency.solve import alone_by_profile, eligible, keeps
from workloads.records import Workload

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
SUMS = ("latency_s", "energy_j")


@dataclass(frozen=True, eq=False)
class OnChip:
    """Sums of models on designs (models, designs), not a number on designs that keep nothing; ``pinned``: weights stay too."""

    latency_s: FloatArray
    energy_j: FloatArray
    peak_w: FloatArray
    pinned: BoolArray
    able: BoolArray
    batches: Sequence[Models]

    def told(self, model: int, design: int) -> dict[str, Any]:
        """Where the tensors of a model live on a design; see `hw_models.costs.residency.models.Models.report`."""
        batch, at = _place(self.batches, design)
        return batch.report(model, at)


def on_chip(
    problem: Problem,
    workload: Workload,
    batches: Sequence[AcceleratorBatch],
    threads: int,
    progress: Callable[[int, int], None] | None,
) -> OnChip | None:
    """The sums of a problem's models on its designs, or None where it or all of them keep nothing on chip."""
    able = np.concatenate([eligible(batch)[0] for batch in batches])
    if problem.residency == "none" or not able.any() or keeps(workload):
        if problem.prefetch:
            raise UsageError(f"prefetch has nothing to do here: {keeps(workload) or eligible(batches[0])[1]}; leave it out")
        return None
    rules: Any = (problem.residency, problem.criterion, threads, problem.prefetch)
    made = [Models(workload, batch, *rules) for batch in batches]
    parts = [models.totals(progress) for models in made]
    latency, energy, peak = (np.concatenate([getattr(p, name) for p in parts], axis=1) for name in ("latency_s", "energy_j", "peak_w"))
    pinned = np.concatenate([p.pinned for p in parts], axis=1)
    return OnChip(latency, energy, peak, pinned, able, made)


def nothing_told(problem: Problem, workload: Workload, batches: Sequence[AcceleratorBatch], design: int) -> dict[str, Any]:
    """Why nothing stays on chip where `on_chip` is None."""
    if problem.residency == "none":
        return {"level": "none", "reason": alone_by_profile(batches[0].profile) or "it is not asked for"}
    batch, at = _place([Models(workload, batch, cast(Any, problem.residency)) for batch in batches], design)
    return batch.report(0, at)


def saved(found: dict[str, Any], alone: dict[str, float]) -> dict[str, float]:
    """What a report's design takes less than with every operation by itself."""
    return {name: alone[name] - sum(step[name] for step in found["steps"]) for name in ("latency_s", "energy_j", "dram_bytes")}


def in_short(found: dict[str, Any]) -> dict[str, Any]:
    """A report (`Evaluation.residency`) without its steps: what is kept, what that saves, and a row a tensor.

    ``tensors``: who makes it, its bytes, and how often it is made for the chip alone, for the chip and the DRAM, or the DRAM alone;
    with residency `tiles` also how often only tiles of it are made, for the chip alone.
    ``saved``: what a request takes less than with every operation by itself; ``alone`` what it takes then. ``prefetch``, if it was asked
    for: bytes that are read ahead, and the part of the saved time.
    """
    columns = {"chip": "chip", "chip and DRAM": "both", "DRAM": "dram"}
    if found["level"] == "tiles":
        columns[BY_TILES] = "tiles"
    tensors: dict[tuple[str, float], dict[str, Any]] = {}
    for tensor in found["tensors"]:
        named = {name: tensor[name] for name in ("made_by", "bytes")}
        row = tensors.setdefault((named["made_by"], named["bytes"]), {**named, **dict.fromkeys(columns.values(), 0.0)})
        for place, column in columns.items():
            row[column] += tensor["places"].get(place, 0.0)
    taken = {name: sum(step[name] for step in found["steps"]) for name in found["saved"]}
    return {
        "level": found["level"],
        "weights_on_chip": found["weights_on_chip"],
        "capacity_bytes": found["capacity_bytes"],
        "most_held_bytes": max((step["held_bytes"] for step in found["steps"]), default=0.0),
        "saved": found["saved"],
        "alone": {name: taken[name] + found["saved"][name] for name in taken},
        "tensors": list(tensors.values()),
        **({"prefetch": found["prefetch"]} if "prefetch" in found else {}),
    }


def breakdown(found: dict[str, Any], macs: FloatArray, runs: FloatArray) -> list[dict[str, Any]]:
    """The breakdown by component of a report: what `Evaluation.breakdown` gives where nothing is kept."""
    entries: dict[str, dict[str, Any]] = {}
    for step in found["steps"]:
        entry = entries.setdefault(
            step["component"],
            {"component": step["component"], **dict.fromkeys(("latency_s", "energy_j", "macs", "dram_bytes"), 0.0)}
            | {"bound": "", "latency_by_bound_s": {}, "operations": []},
        )
        share = step["runs"] / runs[step["row"]] if runs[step["row"]] else 0.0
        operation = {
            "name": "+".join([step["name"], *step["epilogue"]]),
            "repeat": step["runs"],
            **{name: step[name] for name in ("latency_s", "energy_j", "dram_bytes", "bound")},
            "macs": float(macs[step["row"]]) * share,
        }
        for name in ("latency_s", "energy_j", "macs", "dram_bytes"):
            entry[name] += operation[name]
        by_bound = entry["latency_by_bound_s"]
        by_bound[step["bound"]] = by_bound.get(step["bound"], 0.0) + step["latency_s"]
        entry["operations"].append(operation)
    for entry in entries.values():
        entry["bound"] = max(entry["latency_by_bound_s"], key=lambda name: entry["latency_by_bound_s"][name])
    return list(entries.values())


def _place(batches: Sequence[Models], design: int) -> tuple[Models, int]:
    """The batch of a design and its number there."""
    offset = 0
    for batch in batches:
        if design < offset + len(batch):
            return batch, design - offset
        offset += len(batch)
    raise IndexError(design)
