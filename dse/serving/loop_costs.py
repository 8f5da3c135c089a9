"""What the stages of loops cost on devices: latency and energy of each at each number of sequences, through `unit_costs` of hw_models.

Counts between the knots of a grid (two an octave) are interpolated; what a table of operations costs is never a constant here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import comb

import numpy as np
import numpy.typing as npt

from dse.evaluation.hardware_points import Points
from hw_models.costs import precision
from hw_models.costs.evaluate import required_bytes
from workloads.family import Family
from workloads.ops import concatenate
from workloads.reasoning.phases import Stage, Work, cache_bytes, work_table
from workloads.reasoning.plans import LORA_RANK, Plan

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PlanCosts:
    """Expected costs of one pass of a plan (all its problems) on points (points,).

    Attributes:
        latency_s: stages one after the other. energy_j: with idle power while it runs. cache_bytes: most that any stage holds (points,).
        prefill_tokens, decode_tokens: expected.
    """

    latency_s: FloatArray
    energy_j: FloatArray
    cache_bytes: FloatArray
    prefill_tokens: float
    decode_tokens: float


def knots(most: int) -> list[int]:
    """Numbers of sequences that are costed: 1, 2, 3, 4, 6, 8, 12, ... and ``most``."""
    found = {most}
    power = 1
    while power <= most:
        found |= {power, power + power // 2}
        power *= 2
    return sorted(n for n in found if n <= most)


class StageCosts:
    """Costs of the stages of some plans of one model on points: a table over work and sequences, made at once."""

    def __init__(self, family: Family, settings: Mapping[str, int], points: Points, plans: Iterable[Plan]) -> None:
        self.family, self.points = _with(family, settings), points
        most: dict[Work, set[int]] = {}
        for plan in plans:
            for stage in plan.stages:
                if stage.work.kind != "host":
                    most.setdefault(stage.work, set()).update(n * stage.multiple for n in knots(stage.trials))
        wanted = [(work, n) for work, counts in most.items() for n in sorted(counts)]
        tables = [work_table(self.family, work, n, lora_rank=LORA_RANK) for work, n in wanted]
        joined = concatenate(tables)
        shapes, index = joined.distinct(parallel=not points.one_chip)
        unit = points.unit_costs(shapes, criterion="edp", threads=1, progress=None)
        starts = np.cumsum([0, *(len(table) for table in tables)])[:-1]
        repeat = joined.column("repeat").astype(np.float64)[:, None]
        latency = np.add.reduceat(unit.latency_s[index] * repeat, starts, axis=0)[:, points.design]
        energy = np.add.reduceat(unit.energy_j[index] * repeat, starts, axis=0)[:, points.design]
        self._place = {key: i for i, key in enumerate(wanted)}
        self._latency, self._energy = latency, energy + latency * points.leakage_w
        self._tables: dict[tuple[Work, int, int], tuple[FloatArray, FloatArray]] = {}
        self._held: dict[tuple[Work, int], float] = {}
        self.weight_bytes = self._weights()
        self._cache_share = self._cache_factor()

    def _weights(self) -> FloatArray:
        one = self.family.build(phase="decode", batch=1, context=1)
        parts = [required_bytes(one, batch)[0] for batch in self.points.batches]
        return np.concatenate(parts)[self.points.design]

    def _cache_factor(self) -> FloatArray:
        """Bytes of a cached element on each point over those that the workload names."""
        one = self.family.build(phase="decode", batch=1, context=1024)
        found = []
        for batch in self.points.batches:
            factor = np.ones(len(batch))
            for widths, here in precision.groups(batch):
                factor[here] = float(precision.workload_at_widths(one, widths).kv_cache_bytes()) / max(float(one.kv_cache_bytes()), 1.0)
            found.append(factor)
        return np.concatenate(found)[self.points.design]

    def at(self, stage: Stage) -> tuple[FloatArray, FloatArray]:
        """Latency [s] and energy [J] at 0 .. trials active trials, each (trials + 1, points)."""
        key = (stage.work, stage.trials, stage.multiple)
        if key not in self._tables:
            counts = knots(stage.trials)
            places = [self._place[stage.work, n * stage.multiple] for n in counts]
            grid = np.array([0, *counts], dtype=np.float64)
            wanted = np.arange(stage.trials + 1, dtype=np.float64)
            self._tables[key] = _between(grid, self._latency[places], wanted), _between(grid, self._energy[places], wanted)
        return self._tables[key]

    def _cached(self, work: Work, sequences: int) -> float:
        if (work, sequences) not in self._held:
            self._held[work, sequences] = cache_bytes(self.family, work, sequences)
        return self._held[work, sequences]

    def expected(self, plan: Plan) -> PlanCosts:
        """Expectation over the ways through a plan: each stage's number of sequences is binomial."""
        latency, energy, held = (np.zeros(len(self.points)) for _ in range(3))
        prefill = decode = 0.0
        for stage in plan.stages:
            if stage.work.kind == "host" or not stage.trials:
                continue
            chances = binomial(stage.trials, stage.probability)
            times, joules = self.at(stage)
            latency += chances @ times
            energy += chances @ joules
            prefill += stage.sequences * stage.work.new_tokens * (stage.work.kind == "prefill")
            decode += stage.sequences * stage.work.new_tokens * (stage.work.kind == "decode")
            if stage.work.kind in ("prefill", "decode"):
                held = np.maximum(held, self._cached(stage.work, stage.trials * stage.multiple) * self._cache_share)
        return PlanCosts(latency, energy, held, prefill, decode)

    def drawn(self, plan: Plan, counts: IntArray, point: int) -> tuple[FloatArray, FloatArray]:
        """Latency and energy (draws,) of drawn ways through a plan (draws, stages) on one point."""
        latency, energy = np.zeros(len(counts)), np.zeros(len(counts))
        for i, stage in enumerate(plan.stages):
            if stage.work.kind != "host" and stage.trials:
                times, joules = self.at(stage)
                latency += times[counts[:, i], point]
                energy += joules[counts[:, i], point]
        return latency, energy


@lru_cache(maxsize=65536)
def binomial(trials: int, probability: float) -> FloatArray:
    """P(0 .. trials successes)."""
    if trials == 1 or probability in (0.0, 1.0):
        found = np.zeros(trials + 1)
        found[0], found[-1] = 1 - probability, probability
        return found
    j = np.arange(trials + 1)
    ways = np.array([comb(trials, int(i)) for i in j], dtype=np.float64)
    return np.asarray(ways * probability**j * (1 - probability) ** (trials - j))


def _with(family: Family, settings: Mapping[str, int]) -> Family:
    family.values(**settings)  # checks them
    return replace(family, defaults={**family.defaults, **settings}) if settings else family


def _between(grid: FloatArray, values: FloatArray, wanted: FloatArray) -> FloatArray:
    """Values (knots, points) with 0 before them, linearly interpolated at ``wanted`` (counts, points)."""
    padded = np.concatenate([np.zeros((1, values.shape[1])), values])
    right = np.clip(np.searchsorted(grid, wanted), 1, len(grid) - 1)
    share = ((wanted - grid[right - 1]) / (grid[right] - grid[right - 1]))[:, None]
    return np.asarray(padded[right - 1] * (1 - share) + padded[right] * share)
