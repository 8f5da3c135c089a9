"""Residency of whole workloads on whole batches of designs: what `dse` calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from dse_kernels import mapping

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs import precision
from hw_models.costs.residency.packing import Phase
from hw_models.costs.residency.prefetch import bits_per_s, saved_s
from hw_models.costs.residency.solve import Level, Solver, Totals, eligible, keeps
from hw_models.costs.residency.steps import Step
from hw_models.costs.residency.units import CAUSES, Condition, Machine, StepCosts, mask_of, step_costs
from hw_models.costs.unit_costs import Criterion
from workloads.ops import PRODUCTS, OperationTable
from workloads.records import Workload

IntArray = npt.NDArray[np.int64]
OPERANDS = {"inputs": mapping.KEEP_INPUTS, "weights": mapping.KEEP_WEIGHTS, "outputs": mapping.KEEP_OUTPUTS}
"""Operands of a product and their bits in the mapping search's mask; ``weights`` is the second operand."""
Progress = Callable[[int, int], None]


@dataclass(eq=False)
class Models:
    """Models of a workload and a batch of designs made ready, for `totals` of all and `report` of one on one."""

    workload: Workload
    hardware: AcceleratorBatch
    level: Level
    criterion: Criterion = "edp"
    threads: int = 1
    prefetch: bool = False

    def __len__(self) -> int:
        return len(self.hardware)

    @cached_property
    def _solvers(self) -> list[tuple[IntArray, Solver]]:
        """For every precision the designs that keep something, by number, and what solves them."""
        able, _ = eligible(self.hardware)
        parts = [(widths, points[able[points]]) for widths, points in precision.groups(self.hardware)]
        return [(points, self._solver(widths, points)) for widths, points in parts if len(points)]

    def _solver(self, widths: Any, points: IntArray) -> Solver:
        phases = [Phase.of(precision.at_widths(phase.table, widths), float(phase.runs)) for phase in self.workload.phases]
        return Solver(phases, Machine(self.hardware.take(points), self.criterion, self.threads), self.level, self.prefetch)

    def totals(self, progress: Progress | None = None) -> Totals:
        """Costs of every model on every design with what is best kept on chip; not a number where nothing is kept.

        ``progress``: told the designs that are done, and all of them.
        """
        models = next((p.table.models for p in self.workload.phases if p.table.models is not None), None) or 1
        shape = (models, len(self.hardware))
        latency, energy, peak = (np.full(shape, np.nan) for _ in range(3))
        pinned = np.zeros(shape, dtype=bool)
        done, every = 0, sum(len(points) for points, _ in self._solvers)
        for points, solver in self._solvers:
            tell = None if progress is None else lambda here, _, done=done: progress(done + here, every)
            found = solver.totals(tell)
            latency[:, points], energy[:, points], peak[:, points] = found.latency_s, found.energy_j, found.peak_w
            pinned[:, points] = found.pinned
            done += len(points)
        return Totals(latency, energy, peak, pinned)

    def report(self, model: int, point: int) -> dict[str, Any]:
        """Where each tensor of one model lives on one design, what each step costs, and why every byte passes the DRAM.

        Returns ``level``, ``weights_on_chip``, ``capacity_bytes``, ``dram_bytes``, ``dram_bytes_by_cause`` (their sum), ``steps`` and
        ``tensors``, repeats included; with prefetch also ``prefetch``, and each step's part in it. Empty where designs of this kind
        keep nothing.
        """
        able, reason = eligible(self.hardware)
        if not able[point] or keeps(self.workload):
            return {"level": "none", "reason": keeps(self.workload) or reason}
        points, solver = next(entry for entry in self._solvers if point in entry[0])
        one = self.hardware.take(np.array([point]))
        machine = Machine(one, self.criterion, 1)
        word_bytes = float(one.word_bits[0]) / 8.0
        names = ("compute", *one.level_names, "vector")
        causes = dict.fromkeys(CAUSES, 0.0)
        steps: list[dict[str, Any]] = []
        tensors: dict[tuple[int, int], dict[str, Any]] = {}
        chosen = solver.runs(model, int(np.searchsorted(points, point)))
        known: dict[tuple[int, int, Condition], StepCosts] = {}  # the same step in the same condition, on other ways
        before = np.concatenate([[0], np.cumsum([len(p.table) for p in solver.phases])]).tolist()
        ahead = saved_s(chosen, machine) if self.prefetch else None
        dram_bits_per_s, _ = bits_per_s(machine)
        for number, run in enumerate(chosen):
            table, runs = run.part.table, run.times
            for i, (step, condition) in enumerate(zip(run.part.chain.steps, run.conditions, strict=True)):
                key = (id(run.part), i)
                found = known.get((*key, condition))
                if found is None:
                    found = known[(*key, condition)] = step_costs(table, step, [condition], machine)
                moved = {cause: float(found.words[0, 0, c]) * word_bytes * runs for c, cause in enumerate(CAUSES)}
                for cause, amount in moved.items():
                    causes[cause] += amount
                place = "chip and DRAM" if condition.keeps and condition.stores else "chip" if condition.keeps else "DRAM"
                entry = tensors.setdefault(key, {"made_by": str(table.name[step.rows[-1]]), "bytes": step.bits / 8.0, "places": {}})
                entry["places"][place] = entry["places"].get(place, 0.0) + runs
                less = ahead[number][i] if ahead else 0.0
                steps.append(
                    {
                        "name": str(table.name[step.row]),
                        "component": str(table.component[step.row]),
                        "row": before[run.part.phase] + int(step.row),
                        "epilogue": [str(table.name[r]) for r in step.epilogue],
                        "runs": runs,
                        "on_chip": list(condition.resident),
                        "operands_on_chip": _operands_on_chip(table, step, condition),
                        "result": place,
                        "held_bytes": condition.held_bits / 8.0,
                        "latency_s": float(found.latency_s[0, 0]) * runs - less,
                        "energy_j": float(found.energy_j[0, 0]) * runs,
                        "dram_bytes": sum(moved.values()),
                        **{f"{unit}_s": float(getattr(found, f"{unit}_s")[0, 0]) * runs for unit in ("array", "vector", "dram")},
                        "bound": names[int(found.bound[0, 0])],
                        **({"prefetched_bytes": less * dram_bits_per_s / 8.0, "prefetch_saved_s": less} if ahead else {}),
                    }
                )
        read_ahead = {
            "bytes": sum(step.get("prefetched_bytes", 0.0) for step in steps),
            "saved_s": sum(step.get("prefetch_saved_s", 0.0) for step in steps),
        }
        return {
            "level": self.level,
            "weights_on_chip": any(run.pinned for run in chosen),
            "capacity_bytes": float(one.level_bytes[0, -2]),
            "dram_bytes": sum(causes.values()),
            "dram_bytes_by_cause": causes,
            "steps": steps,
            "tensors": list(tensors.values()),
            **({"prefetch": read_ahead} if ahead else {}),
        }


def model_totals(
    workload: Workload,
    hardware: AcceleratorBatch,
    *,
    level: Level,
    criterion: Criterion = "edp",
    threads: int = 1,
    prefetch: bool = False,
    progress: Progress | None = None,
) -> Totals:
    """`Models.totals` of all models of a workload on a batch of designs."""
    return Models(workload, hardware, level, criterion, threads, prefetch).totals(progress)


def report(
    workload: Workload, hardware: AcceleratorBatch, *, point: int, level: Level, criterion: Criterion = "edp", prefetch: bool = False
) -> dict[str, Any]:
    """`Models.report` of a workload of one model on one of the designs."""
    return Models(workload, hardware.take(np.array([point])), level, criterion, prefetch=prefetch).report(0, 0)


def _operands_on_chip(table: OperationTable, step: Step, condition: Condition) -> list[str]:
    """Which operands of a product do not pass the DRAM: inputs, weights (the second operand), outputs; none of what is no product."""
    if int(table.kind[step.row]) not in PRODUCTS:
        return []
    mask = mask_of(step, condition.resident, condition.keeps) | (mapping.KEEP_WEIGHTS if condition.pinned and step.pins else 0)
    return [name for name, bit in OPERANDS.items() if mask & bit]
