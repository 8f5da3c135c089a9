"""A chain of steps on many designs: costs of its variants, known or bounded from below, and the best paths through it.

A mapping is searched only where it stands on a best path. A variant of a product that has not been searched has a lower bound: that
of the product with everything resident and the whole level for its tiles, which no mapping of the variant beats by the criterion,
plus what the words cost that the variant moves in any case. A path whose variants are all known and whose sum no bound
undercuts is best; so searching the unknown variants along best paths, again and again, ends with the exact optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from dse_kernels import residency

from hw_models.costs.residency.states import BOTH, ONLY, Edges, Variant, edges_of
from hw_models.costs.residency.steps import Chain, Step
from hw_models.costs.residency.units import Condition, Machine, StepCosts, step_costs
from hw_models.costs.unit_costs import Criterion
from workloads.ops import PRODUCTS, OperationTable

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Known = dict[tuple[object, ...], tuple[FloatArray, FloatArray]]
"""Latency and energy (points,) of steps in conditions, not a number where they are not known; shared by chains."""

EXITS = 3
"""How a tensor leaves a chain: in memory alone, on chip alone, on both."""
_MARGIN = 1.0 - 1e-9  # bounds sum their terms in another order than costs


def value(criterion: Criterion, energy_j: FloatArray, latency_s: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What a path's sum is made of, first and among equals: energy, latency, or the root of their product.

    The energy-delay product of a whole is no sum over its steps. The root of a step's is taken: it grows with the criterion of the
    step's mapping, and by Cauchy and Schwarz the square of the sum never exceeds the product of the whole, which it equals where all
    steps draw the same power.
    """
    if criterion == "energy":
        return energy_j, latency_s
    if criterion == "latency":
        return latency_s, energy_j
    return np.sqrt(energy_j * latency_s), energy_j


@dataclass(eq=False)
class ChainCosts:
    """A chain with the costs of its variants on the designs of a machine.

    ``names``: what each row of the table is to the shared store of known costs (its shape). ``pinned_bits`` of the level are taken
    by parameters that stay (0: they do not).
    """

    table: OperationTable
    chain: Chain
    machine: Machine
    names: Sequence[int]
    known: Known
    pinned_bits: int
    edges: Edges = field(init=False)
    conditions: list[Condition] = field(init=False)
    latency_s: FloatArray = field(init=False)
    energy_j: FloatArray = field(init=False)
    first: FloatArray = field(init=False)
    second: FloatArray = field(init=False)
    best: FloatArray = field(init=False)
    path: npt.NDArray[np.int32] = field(init=False)

    def __post_init__(self) -> None:
        points = len(self.machine)
        most = int(self.machine.capacity_bits.max()) - self.pinned_bits
        self.edges = edges_of(self.chain, most_bits=most)
        self.conditions = [self._condition(v) for v in self.edges.variants]
        count = len(self.conditions)
        self.latency_s, self.energy_j = np.full((points, count), np.nan), np.full((points, count), np.nan)
        self.first, self.second = np.empty((points, count)), np.empty((points, count))
        self.best = np.full((points, len(self.edges.states[0]), EXITS, 2), np.inf)
        self.path = np.full((points, len(self.edges.states[0]), EXITS, len(self.chain.steps)), -1, dtype=np.int32)
        by_step: dict[int, list[int]] = {}
        for number, variant in enumerate(self.edges.variants):
            by_step.setdefault(variant.step, []).append(number)
        for i, numbers in by_step.items():
            self._prepare(self.chain.steps[i], numbers)
        self._refresh(np.arange(points))

    def _condition(self, v: Variant) -> Condition:
        return Condition(v.resident, v.keeps, v.stores, v.held_bits + self.pinned_bits, v.loaded_bits, self.pinned_bits > 0)

    def _key(self, step: Step, condition: Condition) -> tuple[object, ...]:
        return (tuple(self.names[r] for r in step.rows), tuple(o.bits for o in step.operands), condition)

    def _searched(self, step: Step) -> bool:
        return int(self.table.kind[step.row]) in PRODUCTS

    def _prepare(self, step: Step, numbers: list[int]) -> None:
        """Costs of the variants of a step where they are closed forms or known, and bounds where they are not."""
        conditions = [self.conditions[n] for n in numbers]
        room = np.array([c.held_bits for c in conditions])[None, :] <= self.machine.capacity_bits[:, None]
        if not self._searched(step):
            found = step_costs(self.table, step, conditions, self.machine)
            self.latency_s[:, numbers] = np.where(room, found.latency_s.T, np.inf)
            self.energy_j[:, numbers] = np.where(room, found.energy_j.T, np.inf)
            return
        for n, condition in zip(numbers, conditions, strict=True):
            held = self.known.get(self._key(step, condition))
            if held is not None:
                self.latency_s[:, n], self.energy_j[:, n] = held
        low_first, low_second = self._bounds(step, conditions)
        self.first[:, numbers], self.second[:, numbers] = low_first, low_second
        self.latency_s[:, numbers] = np.where(room, self.latency_s[:, numbers], np.inf)
        self.energy_j[:, numbers] = np.where(room, self.energy_j[:, numbers], np.inf)

    def _bounds(self, step: Step, conditions: list[Condition]) -> tuple[FloatArray, FloatArray]:
        """Lower bounds of the values of a product's variants (points, variants)."""
        ideal = Condition(tuple(o.tensor is not None for o in step.operands), True, False, 0, 0, self.pinned_bits > 0)
        key = ("bound", *self._key(step, ideal))
        hw, criterion = self.machine.hardware, self.machine.criterion
        if key not in self.known:
            found = step_costs(self.table, step, [ideal], self.machine)
            beside = found.energy_j[0] - found.mapped_j[0]
            macs = float(self.table.take([step.row]).row_macs()[0]) / max(1, int(self.table.repeat[step.row]))
            units = hw.cores * hw.array_rows * hw.array_columns * hw.frequency_hz
            least_s = np.maximum(macs / units, found.vector_s[0])
            self.known[key] = (
                np.stack([found.mapped_s[0], least_s]),
                np.stack([found.mapped_j[0], np.where(np.isfinite(beside), beside, 0)]),
            )
        (mapped_s, least_s), (mapped_j, beside) = self.known[key]
        word, last = hw.word_bits, self.machine.last
        read_j = (hw.level_read_pj_per_word[:, last] + hw.level_write_pj_per_word[:, last - 1]) / word * 1e-12
        write_j = (hw.level_write_pj_per_word[:, last] + hw.level_read_pj_per_word[:, last - 1]) / word * 1e-12
        streamed = np.array([self._streamed_bits(step, c) + c.loaded_bits for c in conditions], dtype=np.float64)
        stored = np.array([step.bits if c.stores else 0 for c in conditions], dtype=np.float64)
        more = beside[:, None] + read_j[:, None] * streamed + write_j[:, None] * stored
        if criterion == "energy":
            return (mapped_j[:, None] + more) * _MARGIN, np.zeros((len(hw), len(conditions)))
        if criterion == "latency":
            low = np.maximum(mapped_s, least_s)[:, None] * _MARGIN
            return np.broadcast_to(low, (len(hw), len(conditions))).copy(), np.zeros((len(hw), len(conditions)))
        product = (mapped_j * mapped_s)[:, None] + more * least_s[:, None]
        return np.sqrt(product) * _MARGIN, np.zeros((len(hw), len(conditions)))

    def _streamed_bits(self, step: Step, condition: Condition) -> int:
        """Bits of operands that a variant reads from the DRAM at least once."""
        row = self.table.take([step.row])
        whole = int((row.batch * row.groups * row.m * row.k * row.input_bits)[0])
        bits = 0
        for i, (operand, there) in enumerate(zip(step.operands, condition.resident, strict=True)):
            if not there and operand.tensor is not None:
                bits += min(operand.bits, whole) if i == 0 else operand.bits
        return bits

    def _refresh(self, points: IntArray) -> None:
        """Values of what is known, and the best paths, on some points."""
        latency, energy = self.latency_s[points], self.energy_j[points]
        known = ~np.isnan(latency)
        with np.errstate(invalid="ignore"):
            first, second = value(self.machine.criterion, energy, latency)
        self.first[points] = np.where(known, first, self.first[points])
        self.second[points] = np.where(known, second, self.second[points])
        ends = [0 if not state else {ONLY: 1, BOTH: 2}[state[0][1]] for state in self.edges.states[-1]]
        counts = [len(layer) for layer in self.edges.states]
        best, path = residency.paths(
            self.edges.layers, counts, ends, EXITS, self.first[points], self.second[points], threads=self.machine.threads
        )
        self.best[points], self.path[points] = best, path

    def unknown(self, used: BoolArray, points: IntArray) -> BoolArray:
        """Which variants (points, variants) stand on the used paths (points, entries, exits) and are not known yet."""
        path = self.path[points]
        wanted = np.zeros((len(points), len(self.conditions)), dtype=bool)
        at, entry, out = np.nonzero(used)
        ways = path[at, entry, out]
        wanted[np.repeat(at, ways.shape[1]), ways.reshape(-1)] = True
        return wanted & np.isnan(self.latency_s[points])

    def search(self, wanted: BoolArray, points: IntArray) -> None:
        """Search the wanted variants (points, variants) of some points, and find the best paths again."""
        some = np.flatnonzero(wanted.any(axis=1))
        wanted, points = wanted[some], points[some]
        part = self.machine if len(points) == len(self.machine) else self.machine.take(points)
        for i, step in enumerate(self.chain.steps):
            numbers = [n for n in np.flatnonzero(wanted.any(axis=0)) if self.edges.variants[n].step == i]
            if not numbers:
                continue
            asked = wanted[:, numbers]
            found = step_costs(self.table, step, [self.conditions[n] for n in numbers], part, asked.T)
            for column, n in enumerate(numbers):
                here = asked[:, column]
                self.latency_s[points[here], n] = found.latency_s[column, here]
                self.energy_j[points[here], n] = found.energy_j[column, here]
                self.known[self._key(step, self.conditions[n])] = (self.latency_s[:, n], self.energy_j[:, n])
        self._refresh(points)

    def sums(self, column: FloatArray, points: IntArray, entry: int, out: int, *, largest: bool = False) -> FloatArray:
        """Sum (or maximum) of a column (points, variants) along the best paths of an entry and an exit."""
        path = self.path[points, entry, out]
        picked = np.take_along_axis(column[points], np.maximum(path, 0).astype(np.int64), axis=1)
        result = picked.max(axis=1) if largest else picked.sum(axis=1)
        return np.where(path[:, 0] >= 0, result, np.inf)

    def costs_of(self, way: Sequence[int], point: int) -> list[tuple[Step, Condition, StepCosts]]:
        """The steps along a path on one design, each with its condition and costs (1, 1)."""
        one = self.machine.take(np.array([point]))
        found = []
        for step, number in zip(self.chain.steps, way, strict=True):
            condition = self.conditions[int(number)]
            found.append((step, condition, step_costs(self.table, step, [condition], one)))
        return found
