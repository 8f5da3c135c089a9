"""Sweeps over many deployments: a design is costed once, and what a deployment makes of it is computed as the designs stream past.

Request rate, lifetime, grids and package change neither the mapping nor the latency nor the energy of a request. So the designs (models x
hardware) are prepared without them, and the deployments are a table of their own: no list of all hardware points in all deployments is
ever made, which a plain sweep does. Metrics are computed by the same formulas in the same order (`dse.problem.metrics`), so that values
have the same bits, on pieces of designs x deployments that stay in the cache; most of a piece falls to the front so far before its
values are rounded for comparison.

A hardware point is ``design * deployments + deployment``: its place in the list that a plain sweep makes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from dse_kernels.pareto import unbeaten

import carbon.factors.grid
import carbon.operational.service
from dse.errors import DseError, UsageError
from dse.evaluation.design_costs import hardware_values
from dse.evaluation.evaluation import Block, Evaluation, Space
from dse.evaluation.feasibility import feasible
from dse.evaluation.hardware_points import make_points
from dse.fronts.pareto import CLEARLY, Front, merge
from dse.problem.deployment import VARIABLE
from dse.problem.metrics import metric
from dse.problem.objectives import Objective
from dse.problem.problem import Problem
from dse.spaces import parameters
from dse.spaces.constraints import meet
from dse.spaces.sizes import Sizes
from dse.storage.study import BlockResult

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Designs x deployments of a piece: the dozen arrays of a formula stay in a core's cache.
_PIECE = 1 << 14
# Designs whose sums are held at a time, by a thread; and how many of all designs are kept between blocks of deployments.
_HELD, _KEPT = 1 << 18, 1 << 21
# Of the front so far, those that the points are held against one by one.
_ARCHIVE = 128
# Designs that are collected at least before they are merged into it.
_WAITING = 256
# A piece of work: enough that its transaction costs nothing, few enough that a killed search loses seconds.
_WORK = 1 << 26
# Values of an axis that a sample of the deployments has: its ends and what lies between.
_SAMPLED = 3

MAKING = ("fab_grid", "package")
"""Axes that change the carbon of making a device; the others that of using it."""


def axes_of(problem: Problem) -> dict[str, tuple[Any, ...]]:
    """Values of each axis of the deployment that a problem varies, in its order."""
    varied = [name for name in problem.vary if name in VARIABLE]
    values = hardware_values(problem) if varied else {}
    return {name: values[name] for name in varied}


def apply(problem: Problem, sizes: Sizes) -> bool:
    """Whether a sweep goes by designs and deployments apart: where there are deployments to tell apart, in a space that takes a while."""
    if sizes.distinct in (None, sizes.hardware) or sizes.easy:
        return False
    return not _tied(problem)


def _tied(problem: Problem) -> bool:
    """Whether a space file ties a knob of the hardware to one of the deployment, so that the two cannot be listed apart."""
    if problem.space_toml is None:
        return False
    found = parameters.parse(problem.space_toml, where=problem.space)
    return any(0 < sum(name in VARIABLE for name in c.names) < len(c.names) for c in found.constraints)


def _without(problem: Problem) -> Problem:
    """The problem in one deployment."""
    return replace(
        problem,
        vary={name: chosen for name, chosen in problem.vary.items() if name not in VARIABLE},
        fixed={name: value for name, value in problem.fixed.items() if name not in problem.vary or name not in VARIABLE},
    )


class Deployed:
    """A problem whose designs and deployments are held apart.

    ``space`` replaces the problem's own designs (a sample, say); ``progress`` and ``mapped`` are those of `Evaluation`.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        space: Space | None = None,
        threads: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        mapped: bool = True,
    ) -> None:
        self.problem, self._threads = problem, threads
        self.designs = Evaluation(_without(problem), space=space, threads=threads, progress=progress, mapped=mapped)
        self.axes = axes_of(problem)
        self.table = self._table()

    def _table(self) -> dict[str, npt.NDArray[Any]]:
        """Columns of the deployments (deployments,), the last axis fastest, less those that a space file rules out."""
        columns: dict[str, npt.NDArray[Any]] = {}
        sizes = [len(values) for values in self.axes.values()]
        for at, (name, values) in enumerate(self.axes.items()):
            own = np.array([VARIABLE[name](value) for value in values])
            columns[name] = np.tile(np.repeat(own, math.prod(sizes[at + 1 :])), math.prod(sizes[:at]))
        if self.problem.space_toml is not None:
            found = parameters.parse(self.problem.space_toml, where=self.problem.space)
            keep = meet(found.constraints, columns)
            if not keep.any():
                texts = ", ".join(repr(c.text) for c in found.constraints if set(c.names) <= set(columns))
                raise UsageError(f"space {self.problem.space}: no deployment meets the constraints {texts}")
            columns = {name: column[keep] for name, column in columns.items()}
        return columns

    @property
    def deployments(self) -> int:
        """Number of deployments."""
        return len(next(iter(self.table.values())))

    @property
    def hardware_count(self) -> int:
        """Number of hardware points: designs of the hardware in their deployments."""
        return self.designs.space.hardware_count * self.deployments

    @property
    def size(self) -> int:
        """Number of designs in deployments."""
        return self.designs.space.model_count * self.hardware_count

    @cached_property
    def use(self) -> dict[str, FloatArray]:
        """Request rate, lifetime and carbon intensity of the deployments (deployments,)."""
        deployment, count = self.problem.deployment, self.deployments
        grids = self.table.get("grid", np.array([str(deployment.grid)]))
        names, at = np.unique(grids, return_inverse=True)
        intensity = np.array([carbon.factors.grid.lookup(str(name)).gco2e_per_kwh for name in names])[at.reshape(-1)]
        return {
            "rate_per_s": np.asarray(self.table.get("rate_per_s", np.full(count, deployment.rate_per_s)), dtype=np.float64),
            "lifetime_years": np.asarray(self.table.get("lifetime_years", np.full(count, deployment.lifetime_years)), dtype=np.float64),
            "gco2e_per_kwh": np.broadcast_to(intensity, (count,)),
        }

    @cached_property
    def made(self) -> tuple[IntArray, FloatArray, BoolArray]:
        """The making of each deployment (deployments,); embodied carbon and whether it can be made, (makings, hardware designs)."""
        varied = {name: self.table[name] for name in MAKING if name in self.table}
        hardware, points = self.designs.space.hardware, self.designs.points
        if not varied:
            return np.zeros(self.deployments, dtype=np.int64), points.embodied_kgco2e[None, :], points.makeable[None, :]
        keys, making = np.unique(np.column_stack([column.astype(str) for column in varied.values()]), axis=0, return_inverse=True)
        found = [
            make_points(
                self.designs.hardware_space,
                {**hardware, **{name: np.full(len(points), value) for name, value in zip(varied, key, strict=True)}},
                self.problem.deployment,
                count=len(points),
            )
            for key in keys
        ]
        return making.reshape(-1), np.stack([f.embodied_kgco2e for f in found]), np.stack([f.makeable for f in found])

    # ---- blocks ----

    def bounds(self) -> list[tuple[int, int]]:
        """First and one-past-last model of every block, or deployment where few models stand in many."""
        of_one = self.designs.space.hardware_count * (self.deployments if self.by_models else self.designs.space.model_count)
        count = self.designs.space.model_count if self.by_models else self.deployments
        step = max(1, min(_WORK // max(1, of_one), -(-count // 16)))
        return [(first, min(first + step, count)) for first in range(0, count, step)]

    @property
    def by_models(self) -> bool:
        """Whether blocks are ranges of models; else of deployments, and the designs' sums are kept from one to the next."""
        return self.designs.space.size > _KEPT

    def block(self, number: int, first: int, last: int) -> BlockResult:
        """The local front and the counts of a block of :meth:`bounds`."""
        models = (first, last) if self.by_models else (0, self.designs.space.model_count)
        deployments = (0, self.deployments) if self.by_models else (first, last)
        pieces = (piece for chunk in self._chunks(*models) for piece in self._pieces(chunk, *deployments))
        front, points, found, reasons = self.swept(pieces)
        return BlockResult(
            number=number,
            first_model=models[0],
            last_model=models[1],
            points=points,
            feasible=found,
            reasons=reasons,
            front_models=front.models,
            front_hardware=front.hardware,
            front_values=front.values,
        )

    def swept(self, pieces: Iterable[Piece]) -> tuple[Front, int, int, dict[str, int]]:
        """The front of these pieces, their designs, how many are feasible, and how many break each rule."""
        objectives = self.problem.objectives
        front, waiting = merge([], len(objectives)), list[Front]()
        points, feasible_points, collected, reasons = 0, 0, 0, dict[str, int]()
        for piece in pieces:
            found, broken = feasible(piece, self.problem.constraints)
            points += found.size
            for reason, count in broken.items():
                reasons[reason] = reasons.get(reason, 0) + count
            if not (count := int(np.count_nonzero(found))):
                continue
            feasible_points += count
            new = piece.unbeaten(found, objectives, front.values)
            if not len(new):
                continue
            waiting.append(new)
            collected += len(new)
            # Merged when there is something to gain: after the first, and then when as many more have come together.
            if not len(front) or collected > max(_WAITING, len(front)):
                front, waiting, collected = merge([front, *waiting], len(objectives)), [], 0
        return merge([front, *waiting], len(objectives)), points, feasible_points, reasons

    def points_of(self, first: int, last: int) -> int:
        """Designs in deployments of a block."""
        return (last - first) * (self.hardware_count if self.by_models else self.size // self.deployments)

    def _chunks(self, first: int, last: int) -> Iterator[_Chunk]:
        step = max(1, _HELD // max(1, self.designs.space.hardware_count))
        for low in range(first, last, step):
            yield self._chunk(low, min(low + step, last))

    def _chunk(self, first: int, last: int) -> _Chunk:
        if self.by_models:
            return _Chunk(self, first, last)
        kept = self.__dict__.setdefault("_kept", {})
        if (first, last) not in kept:
            kept[first, last] = _Chunk(self, first, last)
        return kept[first, last]  # type: ignore[no-any-return]

    def _pieces(self, chunk: _Chunk, first: int, last: int) -> Iterator[Piece]:
        wide = min(_PIECE, chunk.size)
        high = max(1, _PIECE // wide)
        for left in range(0, chunk.size, wide):
            columns = chunk.columns(left, min(left + wide, chunk.size))
            for low in range(first, last, high):
                yield Piece(chunk, columns, low, min(low + high, last))

    def every_piece(self) -> Iterator[Piece]:
        """All designs in all deployments, piece by piece."""
        for chunk in self._chunks(0, self.designs.space.model_count):
            yield from self._pieces(chunk, 0, self.deployments)

    # ---- some of its points as any other evaluation has them ----

    def _columns_at(self, points: IntArray) -> dict[str, npt.NDArray[Any]]:
        """Knob columns of hardware points."""
        design, deployment = np.divmod(points, self.deployments)
        own = {name: column[design] for name, column in self.designs.space.hardware.items()}
        return own | {name: column[deployment] for name, column in self.table.items()}

    def evaluation_of(self, front: Front) -> tuple[Evaluation, Front]:
        """An evaluation of a front's own hardware points, and the front in its indices.

        Raises DseError where a study holds what this space has not.
        """
        for held, count in ((front.models, self.designs.space.model_count), (front.hardware, self.hardware_count)):
            if len(held) and not (held.min() >= 0 and held.max() < count):
                raise DseError("the study holds designs that its space has not: it was changed since it was written")
        used, place = np.unique(front.hardware, return_inverse=True)
        space = replace(self.designs.space, hardware=self._columns_at(used))
        evaluation = Evaluation(self.problem, space=space, threads=self._threads)
        return evaluation, Front.of(front.models, place.reshape(-1).astype(np.int64), front.values)

    def sample(self) -> Evaluation:
        """All designs in a few deployments, as any other evaluation has them: of every axis its ends and what lies midway."""
        keep = np.ones(self.deployments, dtype=bool)
        for column in self.table.values():
            values = np.unique(column)
            keep &= np.isin(column, values[np.unique(np.linspace(0, len(values) - 1, _SAMPLED).round().astype(int))])
        points = np.arange(self.designs.space.hardware_count)[:, None] * self.deployments + np.flatnonzero(keep)
        columns = self._columns_at(points.reshape(-1))
        view = copy.copy(self.designs)  # with its unit costs: all designs are there, in their order
        view.problem, view.space = self.problem, replace(self.designs.space, hardware=columns)
        view.points = make_points(view.hardware_space, columns, self.problem.deployment, count=points.size)
        return view

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Values of every knob: of the models, of the hardware designs, of the deployments."""
        return {**self.designs.space.models, **self.designs.space.hardware, **self.table}


class _Chunk:
    """Pieces of metrics of a range of models on every hardware design, flat (designs,): computed once, for all deployments."""

    def __init__(self, deployed: Deployed, first: int, last: int) -> None:
        self.deployed = deployed
        self.first_model = first
        self.block: Block = deployed.designs.block(first, last)
        self.size = self.block.shape[0] * self.block.shape[1]
        self._flat: dict[str, FloatArray] = {}

    def flat(self, name: str) -> FloatArray:
        """A piece (designs,) or, of one value for all of them, (1,)."""
        if name not in self._flat:
            value = np.asarray(self.block.piece(name), dtype=np.float64)
            self._flat[name] = value.reshape(1) if value.size == 1 else np.broadcast_to(value, self.block.shape).reshape(-1)
        return self._flat[name]

    def columns(self, left: int, right: int) -> _Columns:
        """The designs left..right-1 of it."""
        return _Columns(self, left, right, {})


@dataclass(frozen=True)
class _Columns:
    """Some designs of a chunk, and what of them needs no deployment: computed once for all deployments."""

    chunk: _Chunk
    left: int
    right: int
    known: dict[str, Any]

    def piece(self, name: str) -> FloatArray:
        """(1, designs) or (1, 1)"""
        if name not in self.known:
            flat = self.chunk.flat(name)
            self.known[name] = flat[None, :] if len(flat) == 1 else flat[None, self.left : self.right]
        return np.asarray(self.known[name])

    @property
    def hardware(self) -> IntArray:
        """The hardware design of each of them."""
        return np.arange(self.left, self.right) % self.chunk.block.shape[1]

    def mappable(self) -> BoolArray:
        """(1, designs)"""
        if "mappable" not in self.known:
            self.known["mappable"] = np.isfinite(self.piece("latency_s"))
        return np.asarray(self.known["mappable"])


_OF_DESIGNS = (
    *("quality_mean", "quality_standard_error", "latency_s", "array_s", "vector_s", "dram_s", "link_s", "dynamic_j", "peak_dynamic_w"),
    *("leakage_w", "request_leakage_w", "in_flight", "slot_s", "area_mm2", "tops", "dram_bytes", "capital_usd", "parameters", "macs"),
    *("array_macs", "held_bytes"),
)


class Piece:
    """Some designs in some deployments: metrics with shapes that broadcast to (deployments, designs)."""

    def __init__(self, chunk: _Chunk, columns: _Columns, first: int, last: int) -> None:
        self._deployed, self._columns = chunk.deployed, columns
        self._first, self._rows = first, slice(first, last)
        self.shape = (last - first, columns.right - columns.left)
        self._known: dict[str, Any] = {}

    def mappable(self) -> BoolArray:
        """Whether every operation of the model has a mapping on the design."""
        return self._columns.mappable()

    def makeable(self) -> BoolArray:
        """Whether the device can be made."""
        return np.asarray(self._of_making(2), dtype=bool)

    def _of_making(self, which: int) -> FloatArray:
        making, columns = self._deployed.made[0][self._rows], self._columns
        table = self._deployed.made[which]
        alike = len(table) == 1
        key = f"making {which}" if alike else f"making {which} {making[0]}"
        if alike or (making == making[0]).all():
            if key not in columns.known:
                columns.known[key] = table[0 if alike else making[0]][columns.hardware][None, :]
            return np.asarray(columns.known[key])
        return np.asarray(table[making[:, None], columns.hardware[None, :]])

    def metric(self, name: str) -> FloatArray:
        """One metric; what no deployment changes is kept for the next piece of the same designs."""
        if name not in self._known:
            found = metric("metric", name)
            own = "deployment" not in found.depends
            kept = self._columns.known if own else self._known
            key = f"metric {name}" if own else name
            if key not in kept:
                kept[key] = np.asarray(found.compute(self))
            self._known[name] = kept[key]
        return self._known[name]  # type: ignore[no-any-return]

    def piece(self, name: str) -> Any:
        """What metrics are computed from (`dse.problem.metrics`)."""
        use = self._deployed.use
        if name in _OF_DESIGNS:
            return self._columns.piece(name)
        if name == "embodied_kgco2e":
            return self._of_making(1)
        if name == "rate_per_s":
            return use[name][self._rows, None]
        if name == "idle_share":
            return np.maximum(1.0 - self.metric("service_utilisation"), 0.0)
        if name == "usd_per_w":
            kwh = use["lifetime_years"][self._rows, None] * carbon.operational.service.DAYS_PER_YEAR * 24.0 / 1e3
            return kwh * self._deployed.designs.points.pue * self._deployed.problem.deployment.electricity_usd_per_kwh
        if name in ("operational_kgco2e", "requests"):
            return getattr(self._operation(), name)
        raise UsageError(f"a sweep of designs and deployments apart has no {name}, which a metric asks for; `Piece.piece` must give it")

    def _operation(self) -> carbon.operational.service.Operation:
        if "operation" not in self._known:
            use, columns = self._deployed.use, self._columns
            if "served" not in columns.known:
                mapped = self.mappable()
                columns.known["served"] = np.where(mapped, self.metric("energy_j"), 0.0)
                columns.known["busy"] = np.where(mapped, self.metric("latency_s"), 0.0)
            self._known["operation"] = carbon.operational.service.equal_service(
                columns.known["served"],
                columns.known["busy"],
                idle_w=columns.piece("leakage_w"),
                rate_per_s=use["rate_per_s"][self._rows, None],
                lifetime_years=use["lifetime_years"][self._rows, None],
                pue=self._deployed.designs.points.pue,
                gco2e_per_kwh=use["gco2e_per_kwh"][self._rows, None],
                concurrency=columns.piece("in_flight"),
            )
        return self._known["operation"]  # type: ignore[no-any-return]

    def unbeaten(self, found: BoolArray, objectives: tuple[Objective, ...], so_far: FloatArray) -> Front:
        """Of the designs ``found`` those that none of ``so_far`` clearly beats: what can be on the front, not yet told from each other."""
        values = np.empty((len(objectives), found.size))
        for row, objective in zip(values, objectives, strict=True):
            np.multiply(objective.sign, self.metric(objective.metric), out=row.reshape(self.shape))
        step = max(1, len(so_far) // _ARCHIVE)
        left = unbeaten(values, found.reshape(-1), so_far[::step], margin=CLEARLY)
        row, column = np.divmod(left, self.shape[1])
        place, columns = column + self._columns.left, self._columns
        model, hardware = np.divmod(place, columns.chunk.block.shape[1])
        points = np.asarray(hardware * self._deployed.deployments + row + self._first, dtype=np.int64)
        return Front(model + columns.chunk.first_model, points, np.ascontiguousarray(values[:, left].T))
