"""Model spaces too large to list: parts of a model whose costs add are looked at one by one, and few models are left to sweep.

The towers of a CLIP are such parts: no operation, parameter or byte of one depends on a knob of the other. Costs of a model on a hardware
point are then sums over its parts (of peak memory: the largest), and every metric of `DRIVERS` grows with each of its drivers. So

1. on one point, a choice of a part that is nowhere less and somewhere more than another choice in what drives the objectives and
   the constraints is in no design of the front, whatever the other parts are (what an objective wants large counts the other way
   round);
2. of the choices that are left all combinations are costed from the sums, on one point after the other, and merged into one front.

Models of that front are swept as any others, by the same code, so that what a run shows is computed exactly as without the
decomposition. Sums taken in another order differ by rounding (1e-16): drivers are compared to 12 digits, a design within 1e-9
of a bound is kept whatever it is.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from dse_kernels.pareto import pareto_mask, unbeaten

import carbon.operational.service
from dse.errors import UsageError
from dse.evaluation import space_file
from dse.evaluation.evaluation import Evaluation, Space, build_space, load_family, load_hardware
from dse.evaluation.feasibility import meets
from dse.fronts.pareto import CLEARLY, rounded
from dse.problem.metrics import METRICS, of_hardware
from dse.problem.objectives import Constraint
from dse.problem.problem import Problem
from dse.quality import surrogate
from dse.spaces import parameters
from dse.spaces.constraints import meet
from dse.spaces.sizes import SECONDS_LIMIT
from workloads.errors import WorkloadError
from workloads.family import Family
from workloads.ops import OperationTable, concatenate

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

DRIVERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(of_hardware(), ()),
    **dict.fromkeys(("latency_s", "service_utilisation"), ("latency_s",)),
    **dict.fromkeys(("energy_j", "power_w", "operational_kgco2e", "total_kgco2e", "kgco2e_per_request"), ("latency_s", "dynamic_j")),
    "parameters": ("parameters",),
    "macs": ("macs",),
    "dram_fill": ("shared_bytes", "activation_bytes"),
}
"""What each metric grows with, of what adds over the parts of a model (activation bytes: their largest); others are not decomposed."""

_LARGEST = ("activation_bytes",)
_CHOICES = 5_000  # of one part
_SAMPLE, _SAMPLE_POINTS = 32, 16  # models and points on which the sums are checked
_SLACK = 1e-9
_MERGE = 4096  # designs that are collected before they are merged
_ARCHIVE = 128  # of the front so far, those that every design is held against
_PATIENCE_S = 10.0  # before anything is said of how long the whole will take


@dataclass(frozen=True)
class Part:
    """Knobs that only operations of this part depend on, and their combinations (choices,) in canonical order."""

    columns: dict[str, IntArray]

    @property
    def size(self) -> int:
        """Number of choices."""
        return len(next(iter(self.columns.values())))


def reduced(problem: Problem, *, threads: int | None = None) -> Problem:
    """The same problem with the models that its front can hold, where its space file has too many models to list them.

    Raises UsageError where the models do not fall into parts, or a metric is no sum over them.
    """
    if problem.space_toml is None or problem.models or problem.fixed_model:
        return problem
    found = parameters.parse(problem.space_toml, where=problem.space)
    choices = {p.name: [int(value) for value in p.values] for p in found.parameters if p.role in space_file.MODEL_ROLES}
    for name, value in problem.fixed.items():
        if name in choices:
            choices[name] = [v for v in choices[name] if v == value] or choices[name]  # one that is not there is told elsewhere
    size = int(np.prod([len(values) for values in choices.values()], dtype=np.float64))
    if size <= space_file.MODEL_LIMIT:
        return problem
    if problem.prefetch:
        raise UsageError(f"prefetch is of spaces whose models can be listed, and this one has {size:,}; leave it out")
    problem = replace(problem, residency="none")  # parts of a model add up only where every operation stands alone
    family = load_family(problem)
    _check_metrics(problem, family, size)
    parts = parts_of(problem, family, choices, found)
    models = _models_of_front(problem, parts, threads)
    order = np.lexsort([np.searchsorted(choices[name], models[name], sorter=np.argsort(choices[name])) for name in reversed(choices)])
    kept = {name: tuple(models[name][order].tolist()) for name in choices}
    whole = int(np.prod([part.size for part in parts], dtype=np.float64))
    return replace(problem, models=kept, models_dominated=whole - len(order))


def _check_metrics(problem: Problem, family: Family, size: int) -> None:
    start = (
        f"space {problem.space} has {size:,} combinations of model knobs, more than the {space_file.MODEL_LIMIT:,} that are listed, and "
    )
    if surrogate.for_workload(family.name) is not None:
        raise UsageError(f"{start}the quality of {family.name} is no sum over parts of a model; leave some values out")
    for name in dict.fromkeys([o.metric for o in problem.objectives] + [c.metric for c in problem.constraints]):
        if name not in DRIVERS:
            raise UsageError(f"{start}metric {name} is no sum over parts of a model; leave some values or the metric out")


def parts_of(problem: Problem, family: Family, choices: dict[str, list[int]], found: parameters.Space) -> list[Part]:
    """The parts of a family's models under these choices: knobs that touch the same operation or stand in one constraint are one part."""
    base = _some_model(problem, family, choices)
    settings = {name: value for name, value in problem.fixed.items() if name in family.knobs and name not in choices}
    touched = {name: _rows_touched(family, {**settings, **base}, name, values) for name, values in choices.items()}
    groups = [{name} for name in choices]

    def join(names: set[str]) -> None:
        together = [group for group in groups if group & names]
        for group in together:
            groups.remove(group)
        groups.append(set().union(*together))

    for a, b in itertools.combinations(choices, 2):
        if touched[a] & touched[b]:
            join({a, b})
    for constraint in found.constraints:
        if set(constraint.names) <= set(choices):
            join(set(constraint.names))
    if len(groups) < 2:
        raise UsageError(
            f"space {problem.space} has more than {space_file.MODEL_LIMIT:,} combinations of model knobs, and all of them act on the "
            "same operations; leave some values out"
        )
    parts = []
    for group in groups:
        own = {name: values for name, values in choices.items() if name in group}
        size = int(np.prod([len(values) for values in own.values()]))
        if size > 20 * _CHOICES:
            raise UsageError(f"space {problem.space}: {', '.join(own)} have {size:,} combinations; at most {20 * _CHOICES:,} are taken")
        rest = {name: [value] for name, value in base.items() if name not in group}
        grid = family.model_grid("default", **{name: own.get(name) or rest[name] for name in choices})
        keep = meet(found.constraints, {name: grid[name] for name in own})
        if not keep.any():
            raise UsageError(f"space {problem.space}: no values of {', '.join(own)} meet its constraints")
        if (count := int(np.count_nonzero(keep))) > _CHOICES:
            raise UsageError(f"space {problem.space}: {', '.join(own)} have {count:,} combinations; at most {_CHOICES:,} are taken")
        parts.append(Part({name: grid[name][keep] for name in own}))
    return parts


def _some_model(problem: Problem, family: Family, choices: dict[str, list[int]]) -> dict[str, int]:
    """The first model that exists, small values first."""
    for values in itertools.islice(itertools.product(*(sorted(v) for v in choices.values())), _CHOICES):
        model = dict(zip(choices, values, strict=True))
        try:
            family.values(**model)
        except WorkloadError:
            continue
        return model
    raise UsageError(f"space {problem.space}: the smallest combinations of its model knobs are no models of {family.name}")


def _rows_touched(family: Family, base: dict[str, int], knob: str, values: Sequence[int]) -> set[int]:
    """Operations that change with a knob, the others as in ``base``."""

    def table(value: int) -> OperationTable:
        return concatenate([phase.table for phase in family.build(**{**base, knob: value}).phases])

    before = table(base[knob])
    touched: set[int] = set()
    for value in values:
        try:
            after = table(value)
        except WorkloadError:  # this value needs others beside it
            continue
        if len(after) != len(before):
            return set(range(max(len(after), len(before))))
        for field in fields(before):
            a, b = np.asarray(getattr(before, field.name)), np.asarray(getattr(after, field.name))
            if a.ndim == 1 and a.shape == b.shape:
                touched |= set(np.flatnonzero(a != b).tolist())
    if not touched and len(set(values)) > 1:
        raise UsageError(
            f"knob {knob} changes no operation by itself, and a space of so many models is searched part by part; give it one value"
        )
    return touched


@dataclass(frozen=True)
class _Sums:
    """Drivers of the choices of each part, the others at their smallest: (choices, points), or (choices, 1)."""

    evaluation: Evaluation
    parts: list[dict[str, FloatArray]]
    base: dict[str, FloatArray]  # (1, points): every part at its smallest

    def at(self, point: int, chosen: Sequence[IntArray]) -> _PointSums:
        """Drivers of models on a point, each when it is asked for; ``chosen``: the choices of each part, whose shapes broadcast."""
        return _PointSums(self, point, chosen)


@dataclass(frozen=True)
class _PointSums:
    """Drivers of models on one point, flat (models,)."""

    sums: _Sums
    point: int
    chosen: Sequence[IntArray]

    def __contains__(self, name: str) -> bool:
        return name in self.sums.base

    def __getitem__(self, name: str) -> FloatArray:
        own = [part[name][index, self._column(part[name])] for part, index in zip(self.sums.parts, self.chosen, strict=True)]
        if name in _LARGEST:
            found = functools.reduce(np.maximum, own)
        else:
            base = self.sums.base
            found = sum(own) - (len(own) - 1) * base[name][0, self._column(base[name])]
        return np.asarray(found, dtype=np.float64).reshape(-1)

    def _column(self, values: FloatArray) -> int:
        """Where the point's values are: what the hardware does not change has one column."""
        return self.point if values.shape[1] > 1 else 0


def _drivers(evaluation: Evaluation) -> dict[str, FloatArray]:
    block = evaluation.block(0, evaluation.space.model_count)
    return {
        "latency_s": block.piece("latency_s"),
        "dynamic_j": block.piece("dynamic_j"),
        "array_macs": block.piece("array_macs"),
        **{name: getattr(evaluation, name)[:, None] for name in ("parameters", "macs", "shared_bytes", "activation_bytes")},
    }


class _Designs:
    """Metrics of models on one point from their sums (`dse.problem.metrics.Pieces`)."""

    def __init__(self, evaluation: Evaluation, point: int, sums: _PointSums) -> None:
        self.evaluation, self.point, self.sums = evaluation, point, sums
        self.known: dict[str, Any] = {}
        self.drivers: dict[str, FloatArray] = {}

    def metric(self, name: str) -> Any:
        """A metric (models,)."""
        if name not in self.known:
            self.known[name] = METRICS[name].compute(self)
        return self.known[name]

    def piece(self, name: str) -> Any:
        """What metrics are computed from."""
        points, at = self.evaluation.points, self.point
        if name in self.sums:
            if name not in self.drivers:
                self.drivers[name] = self.sums[name]
            return self.drivers[name]
        if name == "held_bytes":
            return self.sums["shared_bytes"] + self.sums["activation_bytes"] * points.chips[at]
        if name == "slot_s":
            return self.metric("latency_s") / points.in_flight[at]
        if name == "idle_share":
            return np.maximum(1.0 - self.metric("service_utilisation"), 0.0)
        if name in ("operational_kgco2e", "requests"):
            served = carbon.operational.service.equal_service(
                self.metric("energy_j"),
                self.metric("latency_s"),
                idle_w=points.leakage_w[at],
                rate_per_s=points.rate_per_s[at],
                lifetime_years=points.lifetime_years[at],
                pue=points.pue,
                gco2e_per_kwh=points.gco2e_per_kwh[at],
                concurrency=points.in_flight[at],
            )
            return getattr(served, name)
        return getattr(points, name)[at]


def _models_of_front(problem: Problem, parts: list[Part], threads: int | None) -> dict[str, IntArray]:
    """Knob columns of the models that are on the front, or too close to a bound to tell."""
    sums = _sums_of(problem, parts, threads)
    signs = _directions(problem)
    index, values = np.zeros((0, len(parts)), dtype=np.int64), np.zeros((0, len(problem.objectives)))
    unsure = set[tuple[int, ...]]()
    waiting: list[tuple[IntArray, FloatArray]] = []

    def merged() -> None:
        nonlocal index, values
        index, values = np.concatenate([index, *(i for i, _ in waiting)]), np.concatenate([values, *(v for _, v in waiting)])
        keep = pareto_mask(values) if len(values) else np.zeros(0, dtype=bool)
        index, values = index[keep], values[keep]
        waiting.clear()

    # In an order that tells nothing, so that what some points took is what the others will take.
    points = np.random.default_rng(0).permutation(np.flatnonzero(sums.evaluation.points.makeable)).tolist()
    start, workers = time.monotonic(), threads or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(points), 4 * workers):
            _check_time(problem, time.monotonic() - start, first, len(points))
            strong = values[:: max(1, len(values) // _ARCHIVE)]
            for found in pool.map(functools.partial(_on_point, problem, sums, signs, strong), points[first : first + 4 * workers]):
                unsure |= found[2]
                waiting.append(found[:2])
            if not len(values) or sum(len(v) for _, v in waiting) > _MERGE:
                merged()
    merged()
    models = sorted(set(map(tuple, index.tolist())) | unsure)
    if not models:
        models = [tuple(0 for _ in parts)]  # the sweep of one says what no design meets
    of_front = np.array(models, dtype=np.int64)
    return {name: column[of_front[:, i]] for i, part in enumerate(parts) for name, column in part.columns.items()}


def _check_time(problem: Problem, spent_s: float, done: int, points: int) -> None:
    """Raise UsageError where the points so far say that all of them take too long."""
    if spent_s < _PATIENCE_S or not done:
        return
    whole = spent_s * points / done
    if whole > SECONDS_LIMIT:
        raise UsageError(
            f"space {problem.space}: the front over its {points:,} hardware points would take about {whole:,.0f} s (measured on {done:,} "
            f"of them), more than {SECONDS_LIMIT:,.0f} s; leave some values or an objective out"
        )


def _on_point(
    problem: Problem, sums: _Sums, signs: dict[str, set[float]], strong: FloatArray, point: int
) -> tuple[IntArray, FloatArray, set[tuple[int, ...]]]:
    """Models that can be on the front of one hardware point, their objectives as they are compared, and those too close to a bound.

    ``strong``: objectives of models that are known (k, objectives); what they clearly beat is left out.
    """
    none = np.zeros((0, len(sums.parts)), dtype=np.int64), np.zeros((0, len(problem.objectives))), set[tuple[int, ...]]()
    kept = [_undominated(part, point, signs) for part in sums.parts]
    if not all(map(len, kept)):
        return none
    shape = tuple(map(len, kept))
    designs, count = _Designs(sums.evaluation, point, sums.at(point, np.ix_(*kept))), math.prod(shape)

    def models(flat: IntArray) -> IntArray:
        return np.column_stack([choices[at] for choices, at in zip(kept, np.unravel_index(flat, shape), strict=True)])

    sure, possible = _within(designs, problem.constraints, count)
    unsure = set(map(tuple, models(np.flatnonzero(possible & ~sure)).tolist()))
    values = np.empty((len(problem.objectives), count))
    for row, objective in zip(values, problem.objectives, strict=True):
        row[:] = objective.sign * np.asarray(designs.metric(objective.metric))
    left = unbeaten(values, sure, strong, margin=CLEARLY)
    compared = rounded(values[:, left].T)
    keep = pareto_mask(compared) if len(compared) else np.zeros(0, dtype=bool)
    return models(left[keep]), compared[keep], unsure


def _directions(problem: Problem) -> dict[str, set[float]]:
    """Each driver with 1 where less of it is better, -1 where more is."""
    signs: dict[str, set[float]] = {}
    wanted = [(o.metric, o.sign) for o in problem.objectives] + [
        (c.metric, 1.0 if c.relation == "<=" else -1.0) for c in problem.constraints
    ]
    for name, sign in wanted:
        for driver in DRIVERS[name]:
            signs.setdefault(driver, set()).add(sign)
    return signs


def _undominated(part: dict[str, FloatArray], point: int, signs: dict[str, set[float]]) -> IntArray:
    """Choices of a part that can be in a design of the front on a point."""
    latency = part["latency_s"][:, point]
    mapped = np.flatnonzero(np.isfinite(latency))
    columns = []
    for driver, directions in signs.items():
        values = part[driver][mapped, point if part[driver].shape[1] > 1 else 0]
        scale = float(np.max(np.abs(values), initial=0.0)) or 1.0
        columns += [sign * np.rint(values / scale * 1e12) for sign in directions]
    if not columns or not len(mapped):
        return mapped
    return np.asarray(mapped[pareto_mask(np.column_stack(columns))])


def _within(designs: _Designs, constraints: Sequence[Constraint], count: int) -> tuple[BoolArray, BoolArray]:
    """Which models meet every bound, with room to spare for rounding; and which may."""
    sure, possible = np.ones(count, dtype=bool), np.ones(count, dtype=bool)
    for constraint in constraints:
        values = np.broadcast_to(np.asarray(designs.metric(constraint.metric), dtype=np.float64), (count,))
        room = _SLACK * max(abs(constraint.bound), 1e-300) * (1.0 if constraint.relation == "<=" else -1.0)
        if DRIVERS[constraint.metric]:
            sure &= meets(replace(constraint, bound=constraint.bound - room), values)
            possible &= meets(replace(constraint, bound=constraint.bound + room), values)
        else:  # no sum, and so the very number that the sweep has
            met = meets(constraint, values)
            sure, possible = sure & met, possible & met
    return sure, possible


def _sums_of(problem: Problem, parts: list[Part], threads: int | None) -> _Sums:
    """Drivers of every choice, checked on a sample of whole models."""
    smallest = [int(np.argmin(np.prod(np.column_stack(list(part.columns.values())).astype(np.float64), axis=1))) for part in parts]
    least = {name: int(column[at]) for part, at in zip(parts, smallest, strict=True) for name, column in part.columns.items()}
    hardware = load_hardware(problem)

    def prepared(columns: dict[str, IntArray], points: dict[str, Any] | None = None) -> Evaluation:
        count = len(next(iter(columns.values())))
        models = {name: columns.get(name, np.full(count, value, dtype=np.int64)) for name, value in least.items()}
        listed = replace(problem, models={name: tuple(column.tolist()) for name, column in models.items()})
        space = build_space(listed, load_family(listed), hardware)
        return Evaluation(listed, space=space if points is None else Space(space.models, points, 0, space.settings), threads=threads)

    base = prepared({name: np.array([value]) for name, value in least.items()})
    sums = _Sums(base, [_drivers(prepared(part.columns)) for part in parts], _drivers(base))
    rng = np.random.default_rng(0)
    chosen = [rng.integers(0, part.size, _SAMPLE) for part in parts]
    some = np.unique(rng.integers(0, base.space.hardware_count, _SAMPLE_POINTS))
    columns = {name: column[index] for part, index in zip(parts, chosen, strict=True) for name, column in part.columns.items()}
    whole = prepared(columns, {name: column[some] for name, column in base.space.hardware.items()} or None)
    for at, point in enumerate(some.tolist()):
        for name in sums.base:
            values = sums.at(point, chosen)[name]
            exact = _drivers(whole)[name]
            own = exact[:, at if exact.shape[1] > 1 else 0]
            known = np.isfinite(own)
            if not np.allclose(values[known], own[known], rtol=1e-12, atol=0.0):
                raise UsageError(
                    f"space {problem.space} has more than {space_file.MODEL_LIMIT:,} combinations of model knobs, and {name} is no "
                    "sum over parts of these models; leave some values out"
                )
    return sums
