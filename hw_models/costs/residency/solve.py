"""Which tensors and weights of whole models stay on chip on many designs, and what the models then cost.

    solver = Solver(workload, hardware, level="weights")
    totals = solver.totals(models)          # latency and energy of every model on every design

Exact under the rules of docs/models/residency.md: the least sum of step values over every choice, phases one after the other, loops
unrolled by repeated squaring, and with all weights on chip or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.costs.residency.chains import EXITS, ChainCosts, Known
from hw_models.costs.residency.steps import chain_of
from hw_models.costs.residency.units import Machine, pinned_bits
from hw_models.errors import unknown_name
from hw_models.technology.profiles import profile as find_profile
from workloads.ops import OperationTable
from workloads.tensors import Segment, segments

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Level = Literal["none", "activations", "epilogue", "weights"]
LEVELS: tuple[Level, ...] = ("none", "activations", "epilogue", "weights")
"""What may stay on chip; each includes those before it."""


def check_level(name: str) -> Level:
    """The level of that name."""
    for level in LEVELS:
        if level == name:
            return level
    raise unknown_name("residency", name, LEVELS)


def eligible(hardware: AcceleratorBatch) -> tuple[BoolArray, str]:
    """Which designs keep something on chip between operations (points,), and why others of their kind do not (empty: all do)."""
    count, nobody = len(hardware), np.zeros(len(hardware), dtype=bool)
    profile = find_profile(hardware.profile)
    if profile.mapper == "sunstone" or profile.vector_model == "catransformers":
        return nobody, f"profile {hardware.profile} answers as CATransformers does, where every operation reads from and writes to the DRAM"
    if hardware.levels < 2 or not hardware.level_shared[-2] or (hardware.level_per_core[-2] and (hardware.cores > 1).any()):
        return nobody, "there is no level below the DRAM that all cores and operands share"
    kernels = hardware.execution != Execution.MAPPED
    several, boards = hardware.all_chips > 1, hardware.tdp_w > 0
    reasons = (
        (kernels, "kernels have a cache model of their own"),
        (several, "operations of several chips exchange their results through memory"),
        (boards, "the energy of a board is not told by its words"),
    )
    able = ~(kernels | several | boards) & np.ones(count, dtype=bool)
    return able, "; ".join(why for where, why in reasons if np.any(where))


class Phase(NamedTuple):
    """The table of a phase at the designs' precision (columns of one model or of many), and how often it runs."""

    table: OperationTable
    shapes: IntArray
    runs: float


@dataclass(frozen=True, eq=False)
class Totals:
    """Costs of models on designs, arrays (models, points): time, dynamic energy, largest dynamic power of a step; whether weights
    stay on chip.
    """

    latency_s: FloatArray
    energy_j: FloatArray
    peak_w: FloatArray
    pinned: BoolArray


class _Part(NamedTuple):
    """A segment of a model's phase: the chain's costs, the segment, the number of the phase and how often that runs."""

    costs: ChainCosts
    segment: Segment
    phase: int
    runs: float


@dataclass(eq=False)
class Solver:
    """Models and designs made ready; see the module. ``phases``: tables at one precision, with the shape of each row."""

    phases: Sequence[Phase]
    machine: Machine
    level: Level

    def __post_init__(self) -> None:
        self._known: Known = {}

    def totals(self, models: Sequence[int]) -> Totals:
        """Costs of some models (0 for a table of one), whose rows all have the same shapes: only repeats differ."""
        free, first, second = self._best(models, pinned=False)
        if self.level != "weights":
            return free
        bits = self._weight_bits(models)
        fits = (bits[:, None] < self.machine.capacity_bits[None, :]) & (bits > 0)[:, None]
        some, here = np.flatnonzero(fits.any(axis=1)), np.flatnonzero(fits.any(axis=0))
        if not len(some):
            return free
        within = Solver(self.phases, self.machine.take(here), self.level)
        kept, kept_first, kept_second = within._best([models[i] for i in some.tolist()], pinned=True)
        at = np.ix_(some, here)
        first, second = first[at], second[at]
        better = fits[at] & ((kept_first < first) | ((kept_first == first) & (kept_second < second)))
        for name in ("latency_s", "energy_j", "peak_w"):
            getattr(free, name)[at] = np.where(better, getattr(kept, name), getattr(free, name)[at])
        free.pinned[at] = better
        return free

    def _weight_bits(self, models: Sequence[int]) -> IntArray:
        """Bits of the weights of each model that would stay (models,), shared tensors once."""
        result = np.zeros(len(models), dtype=np.int64)
        for at, model in enumerate(models):
            largest: dict[str, int] = {}
            for phase in self.phases:
                table = _model(phase.table, model)
                each = pinned_bits(table) * np.where(table.copies > 0, table.copies, table.repeat) * (table.repeat > 0)
                for i in np.flatnonzero(each):
                    name = str(table.weight_id[i]) or f"row {i} {table.name[i]}"
                    largest[name] = max(largest.get(name, 0), int(each[i]))
            result[at] = sum(largest.values())
        return result

    def _parts(self, models: Sequence[int], *, pinned: bool) -> list[list[_Part]]:
        """The segments of each model; models that share a chain share its costs."""
        made: dict[tuple[object, ...], ChainCosts] = {}
        held = self._weight_bits(models) if pinned else np.zeros(len(models), dtype=np.int64)
        found: list[list[_Part]] = []
        for at, model in enumerate(models):
            parts = []
            for number, phase in enumerate(self.phases):
                table = _model(phase.table, model)
                index = (phase.shapes[model] if phase.shapes.ndim == 2 else phase.shapes).tolist()
                for segment in segments(table):
                    form = (segment.enters, segment.leaves, segment.loops, segment.carried_bits, int(held[at]))
                    links = tuple((row.at, row.uses, row.stored) for row in segment.rows)
                    key = (number, *form, links, tuple(index[row.at] for row in segment.rows))
                    if key not in made:
                        chain = chain_of(table, segment, epilogues=self.level != "activations")
                        made[key] = ChainCosts(table, chain, self.machine, index, self._known, int(held[at]))
                    parts.append(_Part(made[key], segment, number, phase.runs))
            found.append(parts)
        return found

    def _best(self, models: Sequence[int], *, pinned: bool) -> tuple[Totals, FloatArray, FloatArray]:
        """Totals of the best choice, and the values (models, points) it was chosen by."""
        parts = self._parts(models, pinned=pinned)
        points = np.arange(len(self.machine))
        shape = (len(models), len(points))
        first, second = np.empty(shape), np.empty(shape)
        used: list[list[IntArray]] = [[] for _ in models]
        whole = [[np.zeros((len(points), p.costs.best.shape[1], EXITS), dtype=np.int64) for p in mine] for mine in parts]
        while len(points):
            wanted: dict[int, tuple[ChainCosts, BoolArray]] = {}
            for at, mine in enumerate(parts):
                first[at, points], second[at, points], used[at] = _combine(mine, points)
                for number, (part, counts) in enumerate(zip(mine, used[at], strict=True)):
                    whole[at][number][points] = counts
                    missing = part.costs.unknown(counts > 0, points)
                    if missing.any():
                        held = wanted.get(id(part.costs))
                        wanted[id(part.costs)] = (part.costs, missing if held is None else held[1] | missing)
            open_points = np.zeros(len(points), dtype=bool)
            for costs, missing in wanted.values():
                open_points |= missing.any(axis=1)
                costs.search(missing, points)
            points = points[open_points]
        return self._totals(parts, whole), first, second

    def _totals(self, parts: list[list[_Part]], whole: list[list[IntArray]]) -> Totals:
        points = np.arange(len(self.machine))
        shape = (len(parts), len(points))
        latency, energy, peak = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        for at, mine in enumerate(parts):
            for part, counts in zip(mine, whole[at], strict=True):
                with np.errstate(invalid="ignore", divide="ignore"):
                    power = np.where(part.costs.latency_s > 0, part.costs.energy_j / part.costs.latency_s, 0.0)
                for entry in range(counts.shape[1]):
                    for out in range(EXITS):
                        here = np.flatnonzero(counts[:, entry, out] > 0)
                        if not len(here):
                            continue
                        times = counts[here, entry, out] * part.runs
                        latency[at, here] += times * part.costs.sums(part.costs.latency_s, here, entry, out)
                        energy[at, here] += times * part.costs.sums(part.costs.energy_j, here, entry, out)
                        top = part.costs.sums(power, here, entry, out, largest=True)
                        peak[at, here] = np.maximum(peak[at, here], top)
                lost = ~(counts.reshape(len(points), -1).sum(axis=1) > 0)
                latency[at, lost] = energy[at, lost] = np.inf
        return Totals(latency, energy, peak, np.zeros(shape, dtype=bool))

    def choice(self, model: int, point: int) -> list[tuple[_Part, int, tuple[int, ...]]]:
        """The best way of one model on one design: (part, how often, the variants along a path)."""
        only = replace(self, machine=self.machine.take(np.array([point])))
        pinned = bool(only.totals([model]).pinned[0, 0])
        [parts] = only._parts([model], pinned=pinned)
        found = []
        _, _, used = only._solved(parts)
        for part, counts in zip(parts, used, strict=True):
            for entry, out in zip(*np.nonzero(counts[0]), strict=True):
                way = tuple(int(v) for v in part.costs.path[0, entry, out])
                found.append((part, int(counts[0, entry, out]), way))
        return found

    def _solved(self, parts: list[_Part]) -> tuple[FloatArray, FloatArray, list[IntArray]]:
        """`_combine` once everything along the best paths of one design is known."""
        points = np.arange(len(self.machine))
        while True:
            first, second, used = _combine(parts, points)
            missing = [part.costs.unknown(counts > 0, points) for part, counts in zip(parts, used, strict=True)]
            if not any(m.any() for m in missing):
                return first, second, used
            for part, wanted in zip(parts, missing, strict=True):
                if wanted.any():
                    part.costs.search(wanted, points)


def _model(table: OperationTable, model: int) -> OperationTable:
    return table if table.models is None else table.model(model)


class _Matrix(NamedTuple):
    """Sums from entry to exit (points, EXITS, EXITS) of some runs of a loop, and how often each single run is among them
    (points, EXITS, EXITS, EXITS, EXITS).
    """

    first: FloatArray
    second: FloatArray
    counts: IntArray


def _combine(parts: Sequence[_Part], points: IntArray) -> tuple[FloatArray, FloatArray, list[IntArray]]:
    """Least sums (points,) over the segments of a model, and how often each entry and exit of each is used (points, entries, exits)."""
    count = len(points)
    first, second = np.zeros(count), np.zeros(count)
    total_first, total_second = np.full((count, EXITS), np.inf), np.full((count, EXITS), np.inf)
    total_first[:, 0] = total_second[:, 0] = 0.0
    history: list[tuple[IntArray, IntArray]] = []  # of each part: from which state each state came, and the counts of the way
    for part in parts:
        if not part.segment.enters:
            total_first, total_second, origin = _in_memory(total_first, total_second)
        else:
            origin = np.broadcast_to(np.arange(EXITS), (count, EXITS))
        best = part.costs.best[points] * part.runs
        matrix_first, matrix_second = np.full((count, EXITS, EXITS), np.inf), np.full((count, EXITS, EXITS), np.inf)
        entries = best.shape[1]
        matrix_first[:, :entries], matrix_second[:, :entries] = best[..., 0], best[..., 1]
        single = np.zeros((EXITS, EXITS, EXITS, EXITS), dtype=np.int64)
        for a in range(EXITS):
            for b in range(EXITS):
                single[a, b, a, b] = 1
        matrix = _Matrix(matrix_first, matrix_second, np.broadcast_to(single, (count, *single.shape)))
        ways = np.broadcast_to(np.zeros(1, dtype=np.int64), (count, EXITS, EXITS, EXITS))
        runs = part.segment.repeat if part.segment.loops else 1
        if part.segment.repeat > runs:  # every run begins and ends in memory
            matrix = matrix._replace(
                first=matrix.first * part.segment.repeat,
                second=matrix.second * part.segment.repeat,
                counts=matrix.counts * part.segment.repeat,
            )
        came = origin
        while runs:
            if runs & 1:
                total_first, total_second, chosen = _times(total_first, total_second, matrix)
                rows = np.arange(count)[:, None]
                ways = ways[rows, chosen] + matrix.counts[rows, chosen, np.arange(EXITS)[None, :]]
                came = came[rows, chosen]
            runs >>= 1
            if runs:
                matrix = _squared(matrix)
        history.append((came, ways))
    total_first, total_second, state = _in_memory(total_first, total_second)
    first, second, at = total_first[:, 0], total_second[:, 0], state[:, 0]
    used: list[IntArray] = []
    rows = np.arange(count)
    for (came, ways), part in zip(reversed(history), reversed(parts), strict=True):
        counts = ways[rows, at].copy()
        counts[~np.isfinite(first)] = 0
        used.append(counts[:, : part.costs.best.shape[1]])
        at = came[rows, at]
    return first, second, used[::-1]


def _in_memory(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray, IntArray]:
    """Sums where nothing passes on chip: what is also in memory is given up, what is on chip alone cannot be."""
    better = (first[:, 2] < first[:, 0]) | ((first[:, 2] == first[:, 0]) & (second[:, 2] < second[:, 0]))
    out_first, out_second = np.full_like(first, np.inf), np.full_like(second, np.inf)
    out_first[:, 0] = np.where(better, first[:, 2], first[:, 0])
    out_second[:, 0] = np.where(better, second[:, 2], second[:, 0])
    origin = np.broadcast_to(np.arange(EXITS), first.shape).copy()
    origin[:, 0] = np.where(better, 2, 0)
    return out_first, out_second, origin


def _times(first: FloatArray, second: FloatArray, matrix: _Matrix) -> tuple[FloatArray, FloatArray, IntArray]:
    """Sums (points, EXITS) after a matrix, and the entry that each came by."""
    best_first, best_second = np.full_like(first, np.inf), np.full_like(second, np.inf)
    chosen = np.zeros(first.shape, dtype=np.int64)
    for entry in range(EXITS):
        a, b = first[:, entry, None] + matrix.first[:, entry], second[:, entry, None] + matrix.second[:, entry]
        better = (a < best_first) | ((a == best_first) & (b < best_second))
        best_first, best_second = np.where(better, a, best_first), np.where(better, b, best_second)
        chosen[better] = entry
    return best_first, best_second, chosen


def _squared(m: _Matrix) -> _Matrix:
    """The matrix of twice as many runs."""
    best_first, best_second = np.full_like(m.first, np.inf), np.full_like(m.second, np.inf)
    chosen = np.zeros(m.first.shape, dtype=np.int64)
    for middle in range(EXITS):
        a = m.first[:, :, middle, None] + m.first[:, None, middle]
        b = m.second[:, :, middle, None] + m.second[:, None, middle]
        better = (a < best_first) | ((a == best_first) & (b < best_second))
        best_first, best_second = np.where(better, a, best_first), np.where(better, b, best_second)
        chosen[better] = middle
    rows = np.arange(len(chosen))[:, None, None]
    entry, out = np.arange(EXITS)[None, :, None], np.arange(EXITS)[None, None, :]
    counts = m.counts[rows, entry, chosen] + m.counts[rows, chosen, out]
    return _Matrix(best_first, best_second, counts)
