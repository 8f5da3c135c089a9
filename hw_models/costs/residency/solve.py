"""Which tensors and weights of whole models stay on chip on many designs, and what the models then cost.

    solver = Solver(phases, Machine(hardware, "edp", threads), "weights")
    totals = solver.totals(models)          # latency and energy of every model on every design

Exact under the rules of docs/models/residency.md: the least sum of step values over every choice, phases one after the other, loops
unrolled by repeated squaring, and with all weights on chip or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from dse_kernels import residency

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.accelerator.fields import Execution
from hw_models.costs.residency import stored
from hw_models.costs.residency.packing import Packer, Part, Phase
from hw_models.costs.residency.states import WITHIN, Variant
from hw_models.costs.residency.tiles import Group, Piece
from hw_models.costs.residency.units import Condition, Machine
from hw_models.errors import HardwareError, unknown_name
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.tables import dram
from workloads.ops import Kind
from workloads.records import Workload

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Level = Literal["none", "activations", "epilogue", "weights", "tiles"]
LEVELS: tuple[Level, ...] = ("none", "activations", "epilogue", "weights", "tiles")
"""What may stay on chip; each includes those before it."""


def check_level(name: str) -> Level:
    """The level of that name."""
    for level in LEVELS:
        if level == name:
            return level
    raise unknown_name("residency", name, LEVELS)


def keeps(workload: Workload) -> str:
    """Why a workload keeps nothing on chip between its operations; empty: it may."""
    alone = {Kind.SPARSE_BEAM: "a walk of a tree", Kind.COLLECTIVE: "an exchange between chips"}
    kinds = {Kind(int(kind)) for phase in workload.phases for kind in np.unique(phase.table.kind)}
    found = [what for kind, what in alone.items() if kind in kinds]
    return f"what stays on chip beside {found[0]} is not modelled" if found else ""


def alone_by_profile(profile: str) -> str:
    """Why designs of a profile keep nothing on chip between their operations; empty: they may."""
    told = find_profile(profile)
    if told.mapper == "sunstone" or told.vector_model == "catransformers":
        return f"profile {profile} answers as CATransformers does, where every operation reads from and writes to the DRAM"
    return ""


def eligible(hardware: AcceleratorBatch) -> tuple[BoolArray, str]:
    """Which designs keep something on chip between operations (points,), and why others of their kind do not (empty: all do)."""
    count, nobody = len(hardware), np.zeros(len(hardware), dtype=bool)
    if why := alone_by_profile(hardware.profile):
        return nobody, why
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


# Designs solved together: enough that what they share is found once, few enough that the threads have equal work.
_FEW, _MANY = 48, 128


@dataclass(frozen=True, eq=False)
class Totals:
    """Costs of models on designs, arrays (models, points): time, dynamic energy, largest dynamic power of a step; whether weights
    stay on chip.
    """

    latency_s: FloatArray
    energy_j: FloatArray
    peak_w: FloatArray
    pinned: BoolArray


class Tiled(NamedTuple):
    """Steps that run tile by tile, told where the last of them stands: whether the result stays and is stored, all that is held
    meanwhile [bits], and each piece with the condition that it runs in.
    """

    group: Group
    keeps: bool
    stores: bool
    held_bits: int
    pieces: tuple[tuple[Piece, Condition], ...]


@dataclass(frozen=True)
class Run:
    """A segment of a model, the ``number``-th, as it best runs on a design ``times`` over: for each step the condition that it runs in,
    and with prefetch its slack. A step within a group that ends with a later one has None.
    """

    part: Part
    number: int
    pinned: bool
    times: float
    conditions: tuple[Condition | Tiled | None, ...]
    slack: tuple[residency.Slack, ...] = ()


@dataclass(eq=False)
class Solver:
    """Models and designs made ready; see the module. ``phases``: tables at one precision; ``prefetch``: parameters of a step are read
    during the step before where that shortens it.
    """

    phases: Sequence[Phase]
    machine: Machine
    level: Level
    prefetch: bool = False

    @cached_property
    def packer(self) -> Packer:
        """The models as arrays."""
        if self.prefetch and self.level == "tiles":
            raise HardwareError("nothing is read ahead where steps run tile by tile: leave prefetch out, or ask for residency weights")
        burst = dram(self.machine.hardware.level_kinds[-1]).burst_bytes
        return Packer(self.phases, self.level != "activations", int(self.machine.capacity_bits.max()), burst, self.level == "tiles")

    @property
    def _weights(self) -> bool:
        """Whether all weights of a model may stay."""
        return self.level in ("weights", "tiles")

    @cached_property
    def problem(self) -> tuple[residency.Problem, residency.Arrays]:
        """The models as the kernel keeps them."""
        models = next((p.table.models for p in self.phases if p.table.models is not None), None) or 1
        arrays = self.packer.pack(models)
        return residency.Problem(arrays), arrays

    def totals(self, progress: Callable[[int, int], None] | None = None) -> Totals:
        """Costs of every model on every design, found or known from another time (`stored`); ``progress`` is told the designs that are
        done, and all of them.
        """
        _, arrays = self.problem
        every = len(self.machine)
        if not stored.worth_it(arrays, every):
            return self._found(progress)
        points = self.machine.points(np.arange(every), self.packer.attention)
        name = stored.key(arrays, points, self.machine.criterion, self._weights, self.prefetch)
        known = stored.read(name, (len(arrays.weight_bits), every))
        if known is not None:
            if progress is not None:
                progress(every, every)
            return Totals(**known)
        found = self._found(progress)
        stored.write(name, {column: getattr(found, column) for column in stored.COLUMNS})
        return found

    def _found(self, progress: Callable[[int, int], None] | None) -> Totals:
        problem, arrays = self.problem
        shape = (len(arrays.weight_bits), len(self.machine))
        found = Totals(np.empty(shape), np.empty(shape), np.empty(shape), np.zeros(shape, dtype=bool))
        weights, done = self._weights, 0

        def solve(at: IntArray) -> IntArray:
            given = self.machine.points(at, self.packer.attention)
            own = problem.solve(given, self.machine.criterion, weights=weights, prefetch=self.prefetch)
            found.latency_s[:, at], found.energy_j[:, at], found.peak_w[:, at] = np.moveaxis(own.sums, -1, 0)
            found.pinned[:, at] = own.pinned
            return at

        groups = list(self._groups())[::-1]  # the largest arrays, which take longest, first
        if self.machine.threads == 1 or len(groups) == 1:
            solved: Iterator[IntArray] = map(solve, groups)
            done = self._tell(solved, progress)
        else:
            with ThreadPoolExecutor(max_workers=self.machine.threads) as pool:
                done = self._tell(pool.map(solve, groups), progress)
        assert done == len(self.machine)
        return found

    def _tell(self, solved: Iterator[IntArray], progress: Callable[[int, int], None] | None) -> int:
        done = 0
        for at in solved:
            done += len(at)
            if progress is not None:
                progress(done, len(self.machine))
        return done

    def _groups(self) -> Iterator[IntArray]:
        """Designs in groups that share the choices inside the innermost level, or small ones together."""
        integers, _, levels = self.machine.target.packed()
        keys = np.column_stack([integers, levels[:, 0]])
        order = np.lexsort(keys.T[::-1])
        _, core = np.unique(integers[order], axis=0, return_inverse=True)
        ends = np.flatnonzero(np.diff(core.reshape(-1))) + 1
        begin = 0
        for end in [*ends.tolist(), len(order)]:
            if end - begin < _FEW and end < len(order):
                continue
            pieces = -(-(end - begin) // _MANY)
            yield from np.array_split(order[begin:end], pieces)
            begin = end

    def runs(self, model: int = 0, point: int = 0) -> list[Run]:
        """How a model best runs on a design."""
        _, arrays = self.problem
        own = self.packer.one(arrays, model)
        points = self.machine.points(np.array([point]), self.packer.attention)
        rules = {"weights": self._weights, "prefetch": self.prefetch}
        found = residency.Problem(own).solve(points, self.machine.criterion, **rules, want_ways=True)
        pinned = bool(found.pinned[0, 0])
        held = int(own.weight_bits[0]) if pinned else 0
        runs = []
        for way in found.ways:
            part = self.packer.parts[model][way.part]
            conditions = tuple(condition_of(part, part.edges.variants[v], held if pinned else None) for v in way.variants)
            runs.append(Run(part, way.part, pinned, way.times * part.runs, conditions, tuple(way.slack)))
        return runs


def condition_of(part: Part, variant: Variant, pinned_bits: int | None) -> Condition | Tiled | None:
    """The condition of a step of a part as a variant runs it; ``pinned_bits``: of the weights that stay (None: they do not)."""
    bits, pinned = part.chain.bits, pinned_bits is not None
    if variant.group == WITHIN:
        return None
    if variant.group < 0:
        held = sum(bits[t] for t in variant.held) + (pinned_bits or 0)
        return Condition(variant.resident, variant.keeps, variant.stores, held, sum(bits[t] for t in variant.loaded), pinned)
    group, keeps, stores = part.edges.groups[variant.group], variant.keeps, variant.stores
    held = group.room_bits(bits, variant.held, keeps=keeps) + (group.own_bits if pinned_bits is None else pinned_bits)
    pieces = [(p, group.condition(p, variant.held, keeps=keeps, stores=stores, held_bits=held, pinned=pinned)) for p in group.pieces]
    return Tiled(group, keeps, stores, held, tuple(pieces))
