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
from hw_models.costs.residency.solve import Level, Run, Solver, Tiled, Totals, eligible, keeps
from hw_models.costs.residency.steps import Step
from hw_models.costs.residency.units import CAUSES, Condition, Machine, product_mask, step_costs
from hw_models.costs.unit_costs import Criterion
from workloads.ops import PRODUCTS, OperationTable
from workloads.records import Workload

IntArray = npt.NDArray[np.int64]
OPERANDS = {"inputs": mapping.KEEP_INPUTS, "weights": mapping.KEEP_WEIGHTS, "outputs": mapping.KEEP_OUTPUTS}
"""Operands of a product and their bits in the mapping search's mask; ``weights`` is the second operand."""
BY_TILES = "chip, by tiles"
"""Where a result lives of which there is never more than a tile."""
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
        ``tensors``, repeats included; with prefetch also ``prefetch``, and each step's part in it. A step that runs tile by tile has
        ``tiles``: the ``form``, its ``size`` (rows of the last result, or columns of what passes), how many, and the ``steps`` of the
        group. Empty where designs of this kind keep nothing.
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
        known: dict[tuple[int, int, Condition | Tiled], dict[str, Any]] = {}  # the same step in the same condition, on other ways
        before = np.concatenate([[0], np.cumsum([len(p.table) for p in solver.phases])]).tolist()
        ahead = saved_s(chosen, machine) if self.prefetch else None
        dram_bits_per_s, _ = bits_per_s(machine)
        for number, run in enumerate(chosen):
            table, runs = run.part.table, run.times
            for i, step in enumerate(run.part.chain.steps):
                condition = _condition(run, i)
                key = (id(run.part), i)
                found = known.get((*key, condition))
                if found is None:
                    found = known[(*key, condition)] = _told(run, i, condition, machine)
                moved = {cause: words * word_bytes * runs for cause, words in found["words"].items()}
                for cause, amount in moved.items():
                    causes[cause] += amount
                entry = tensors.setdefault(key, {"made_by": str(table.name[step.rows[-1]]), "bytes": step.bits / 8.0, "places": {}})
                entry["places"][found["place"]] = entry["places"].get(found["place"], 0.0) + runs
                less = ahead[number][i] if ahead else 0.0
                steps.append(
                    {
                        "name": str(table.name[step.row]),
                        "component": str(table.component[step.row]),
                        "row": before[run.part.phase] + int(step.row),
                        "epilogue": [str(table.name[r]) for r in step.epilogue],
                        "runs": runs,
                        "on_chip": found["on_chip"],
                        "operands_on_chip": found["operands_on_chip"],
                        "result": found["place"],
                        "held_bytes": condition.held_bits / 8.0,
                        "latency_s": found["latency_s"] * runs - less,
                        "energy_j": found["energy_j"] * runs,
                        "dram_bytes": sum(moved.values()),
                        **{f"{unit}_s": found[f"{unit}_s"] * runs for unit in ("array", "vector", "dram")},
                        "bound": names[found["bound"]],
                        **({"tiles": found["tiles"]} if "tiles" in found else {}),
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


_SUMS = ("latency_s", "energy_j", "array_s", "vector_s", "dram_s")


def _condition(run: Run, i: int) -> Condition | Tiled:
    """The condition of a step of a run: where it runs tile by tile, its group's."""
    for condition in run.conditions[i:]:
        if condition is not None:
            return condition
    raise AssertionError("a group ends within its chain")


def _told(run: Run, i: int, condition: Condition | Tiled, machine: Machine) -> dict[str, Any]:
    """What one run of a step costs on one design, and where its operands and result are; of tiles the sum, with the bound of most time."""
    step, table = run.part.chain.steps[i], run.part.table
    if isinstance(condition, Condition):
        pieces = [(1, step, condition, step_costs(table, step, [condition], machine))]
        keeps, stores = condition.keeps, condition.stores
    else:
        assert run.part.tiles is not None  # what the group's pieces are rows of
        own = [(p, c) for p, c in condition.pieces if p.member == i]
        pieces = [(p.times, p.step, c, step_costs(run.part.tiles, p.step, [c], machine)) for p, c in own]
        keeps, stores = (condition.keeps, condition.stores) if i == condition.group.last else (True, False)
    sums = {name: sum(times * float(getattr(cost, name)[0, 0]) for times, _, _, cost in pieces) for name in _SUMS}
    words = {cause: sum(times * float(cost.words[0, 0, c]) for times, _, _, cost in pieces) for c, cause in enumerate(CAUSES)}
    longest: dict[int, float] = {}
    for times, _, _, cost in pieces:
        bound = int(cost.bound[0, 0])
        longest[bound] = longest.get(bound, 0.0) + times * float(cost.latency_s[0, 0])
    told: dict[str, Any] = {**sums, "words": words, "bound": max(longest, key=lambda b: longest[b])}
    told["place"] = "chip and DRAM" if keeps and stores else "chip" if keeps else "DRAM"
    _, first, how, _ = pieces[0]
    told["on_chip"] = list(how.resident[: len(step.operands)])
    told["operands_on_chip"] = _operands_on_chip(table, step, first, how)
    if not isinstance(condition, Condition):
        group, every = condition.group, run.part.chain.steps
        names = [str(table.name[every[s].row]) for s in range(group.first, group.last + 1)]
        told["tiles"] = {"form": group.form, "size": group.size, "count": group.count, "steps": names}
        if i < group.last:
            told["place"] = BY_TILES
    return told


def _operands_on_chip(table: OperationTable, step: Step, run: Step, condition: Condition) -> list[str]:
    """Which operands of a product do not pass the DRAM: inputs, weights (the second operand), outputs; none of what is no product.
    ``run``: the step itself, or its first tile.
    """
    if int(table.kind[step.row]) not in PRODUCTS:
        return []
    mask = product_mask(run, condition)
    return [name for name, bit in OPERANDS.items() if mask & bit]
