"""Metrics of many designs at once: every model of a problem on every hardware point, block by block.

Costs add over operations, so a model is its repeat counts over distinct shapes and the cost of a block is one sparse
product with the unit costs. What depends on the hardware alone (area, embodied carbon) or on the model alone (quality,
parameters) is computed once and broadcast.

The operations of a request run one after the other (no overlap between operations; within one, data movement overlaps
computation). What stays on chip between them is the problem's `residency`; with none, every operation reads its operands from
DRAM and writes its result there.
"""

from __future__ import annotations

import functools
import hashlib
import operator
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from dse_kernels.sums import weighted_sums

import carbon.operational.service
import hw_models.costs.evaluate
from dse.errors import UsageError
from dse.evaluation import on_chip, space_file
from dse.evaluation.hardware_points import make_points
from dse.problem.deployment import VARIABLE, Deployment
from dse.problem.metrics import METRICS, metric
from dse.problem.problem import Problem, check_knob_names, fix_knobs
from dse.quality import surrogate as quality
from dse.spaces import hardware
from hw_models.accelerator.fields import Execution
from hw_models.costs import pipeline
from hw_models.costs.kernels import format_rates
from hw_models.costs.unit_costs import ADDITIVE, Criterion, UnitCosts, peak_dynamic_w
from workloads import library
from workloads.errors import WorkloadError
from workloads.family import Family
from workloads.ops import concatenate
from workloads.records import Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Space:
    """The joint space: models and hardware points, each a table of knob columns; every model meets every point."""

    models: dict[str, IntArray]
    hardware: dict[str, npt.NDArray[Any]]
    models_left_out: int  # models of the grid that nothing published supports
    settings: dict[str, int]  # knobs of the workload that are set for every model (sequence, batch, bits)
    models_invalid: str = ""  # how many combinations of a space file are no model, and why the first is none

    @property
    def model_count(self) -> int:
        """Number of models; a workload without knobs is one model."""
        return len(next(iter(self.models.values()), (0,)))

    @property
    def hardware_count(self) -> int:
        """Number of hardware points; a single design has no knob and is one point."""
        return len(next(iter(self.hardware.values()), (0,)))

    @property
    def size(self) -> int:
        """Number of designs."""
        return self.model_count * self.hardware_count

    def position(self, knobs: Mapping[str, Any]) -> tuple[int, int]:
        """Model and hardware point of a design of the space, given by its knobs: the inverse of :meth:`design`."""
        found = []
        for columns in (self.models, self.hardware):
            same = [column == knobs[name] for name, column in columns.items()]
            found.append(int(np.argmax(np.logical_and.reduce(same))) if same else 0)
        return found[0], found[1]

    def design(self, model: int, hardware: int) -> dict[str, Any]:
        """Knob values of one design."""
        chosen = {name: values[model].item() for name, values in self.models.items()}
        chosen.update({name: as_listed(name, values[hardware].item()) for name, values in self.hardware.items()})
        return chosen


def as_listed(name: str, value: Any) -> Any:
    """A size as its list has it: 4 MiB of a list with parts of one MiB, all of whose numbers are floats, is 4 and not 4.0."""
    return int(value) if name.endswith("_mib") and isinstance(value, float) and value.is_integer() else value


def _check_kind(problem: Problem) -> None:
    if problem.kind:
        raise UsageError(
            f"workload {problem.workload} was searched as a {problem.kind}, whose designs are configurations and no accelerators; "
            "`dse resume`, `report` and `compare` are for it"
        )


def load_family(problem: Problem) -> Family:
    """The workload of a problem; a file that is no longer what the study was begun with is an error."""
    _check_kind(problem)
    if problem.workload_sha256 is not None and file_sha256(problem.workload) != problem.workload_sha256:
        raise UsageError(f"workload {problem.workload} has changed since the study was begun; search again")
    try:
        return library.load(problem.workload, bind=problem.bind or None, strict=problem.strict)
    except WorkloadError as error:
        if library.is_path(problem.workload) or library.is_known(problem.workload):
            raise
        raise UsageError(
            f"workload {problem.workload!r} was given as an object of another process, and a study keeps its name alone; give it again "
            "from Python, `dse.api.make_problem(MODULE, example=INPUTS)` for a torch module, and go on there: "
            '`dse.exporters.export(dse.load("RUN"), 1, "TOOL")` does what `dse export` does'
        ) from error


def file_sha256(name: str) -> str | None:
    """The hash of a workload file, None for a name or a folder."""
    path = Path(name)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def load_hardware(problem: Problem) -> hardware.HardwareSpace:
    """The hardware of a problem: a built-in template or device, or the user's own file as the study keeps it."""
    _check_kind(problem)
    if problem.hardware_toml is not None:
        space = hardware.from_text(problem.hardware_toml, name=problem.hardware, profile=problem.hardware_profile)
    else:
        space = hardware.load(problem.hardware, profile=problem.hardware_profile)
    space = space.for_models(problem.space)
    space = space.with_settings({name: value for name, value in problem.fixed.items() if name in space.settings})
    return space.with_knobs({name: chosen for name, chosen in problem.vary.items() if name not in VARIABLE})


def _predict(family: Family, models: dict[str, IntArray]) -> quality.Quality | None:
    surrogate = quality.for_workload(family.name)
    return surrogate.predict(**{name: models[name] for name in surrogate.knobs}) if surrogate else None


def run_settings(family: Family, given: Mapping[str, Any]) -> dict[str, Any]:
    """How a workload is run, by setting: sequence length, batch, bits and whatever else its family has; ``given`` ones, else its own."""
    values = family.values(**{name: value for name, value in given.items() if name in family.knobs})
    named = {name: values.get(name) for name, knob in family.knobs.items() if knob.setting}
    return {name: value for name, value in named.items() if isinstance(value, (int, float, str))}


def settings_on(family: Family, settings: Mapping[str, Any], *, kernels: bool) -> dict[str, Any]:
    """Settings of a workload on hardware of a kind: engines of GPUs and CPUs have no attention but the fused one."""
    engines = {"fused_attention": True} if kernels and "fused_attention" in family.knobs else {}
    return {**engines, **settings}


def told_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that say something: what is off says nothing, nor does the optimizer of a model that is not trained, nor experts alike."""
    idle = set() if "train" in str(settings.get("phase")) else {"optimizer"}
    idle |= {"imbalance"} if settings.get("imbalance") == 1.0 else set()
    return {name: value for name, value in settings.items() if value and name not in idle}


class Evaluation:
    """A problem made ready: its space, the unit costs of its distinct shapes, and the metrics of any block of it.

    ``space`` replaces the problem's own (a list of designs, say); ``progress(done, total)`` is told of the unit costs, the dear
    part of the preparation. Without them (``mapped`` false) only metrics that need no mapping are known.
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
        self.problem = problem
        self.deployment: Deployment = problem.deployment
        self.family = load_family(problem)
        self.hardware_space = load_hardware(problem)
        self.space = space or build_space(problem, self.family, self.hardware_space)
        self.surrogate = quality.for_workload(self.family.name)
        self.points = make_points(self.hardware_space, self.space.hardware, problem.deployment)
        kernels = self.hardware_space.kernels_run(self.space.hardware, self.space.hardware_count)
        self.settings = settings_on(self.family, self.space.settings, kernels=bool(kernels.all()))
        named = {o.metric for o in problem.objectives} | {c.metric for c in problem.constraints}
        if named & {"capital_usd", "usd_per_request"} and not np.isfinite(self.points.capital_usd).all():
            raise UsageError(f"hw {problem.hardware} has designs without a public price; metrics capital_usd and usd_per_request need one")
        self._prepare_models()
        self._threads, self._progress = threads, progress
        self.on_chip: on_chip.OnChip | None = None
        self._apart: list[tuple[Evaluation, IntArray]] = []
        if kernels.any() and not kernels.all() and "fused_attention" in self.family.knobs and "fused_attention" not in self.settings:
            self._apart = [self._alone(kernels == kind, mapped=mapped) for kind in (False, True)]
            return
        if not mapped:
            return
        self.on_chip = on_chip.on_chip(problem, self.workload, self.points.batches, threads or os.cpu_count() or 1, progress)
        if self.on_chip is None or not self.on_chip.able.all():
            self.unit  # noqa: B018  (prepared now, while progress is shown)

    def _alone(self, here: BoolArray, *, mapped: bool) -> tuple[Evaluation, IntArray]:
        """The designs of the points ``here`` as they are by themselves, and which of all designs each of its points is."""
        designs, first = np.unique(self.points.design, return_index=True)
        keep = here[first]
        space = replace(self.space, hardware={name: column[first[keep]] for name, column in self.space.hardware.items()})
        return Evaluation(self.problem, space=space, threads=self._threads, progress=self._progress, mapped=mapped), designs[keep]

    def at(self, hardware: int) -> tuple[Evaluation, int]:
        """The evaluation that costs a hardware point, and its number there: in a list of devices of two kinds each kind has its own."""
        design = int(self.points.design[hardware])
        for evaluation, designs in self._apart:
            if len(found := np.flatnonzero(designs == design)):
                return evaluation, int(found[0])
        return self, hardware

    @property
    def run_with(self) -> dict[str, Any]:
        """Settings of the workload that say something and are alike in every design."""
        return self._told_of(self.settings)

    def run_with_on(self, *, kernels: bool) -> dict[str, Any]:
        """The same on hardware of one kind."""
        return self._told_of(settings_on(self.family, self.space.settings, kernels=kernels))

    def _told_of(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        told = told_settings(run_settings(self.family, settings))
        return {name: value for name, value in told.items() if name not in self.space.models}

    @property
    def shape_count(self) -> int:
        """Number of distinct operations."""
        return sum(part.shape_count for part, _ in self._apart) or len(self.shapes)

    @cached_property
    def unit(self) -> UnitCosts:
        """Unit costs of the shapes (shapes, designs), every operation by itself."""
        return self.points.unit_costs(
            self.shapes,
            criterion=cast(Criterion, self.problem.criterion),
            threads=self._threads,
            progress=self._progress,
        )

    def _prepare_models(self) -> None:
        workload = self.family.build(**self.space.models, **self.settings)
        self.workload = workload
        # Phases of a request run one after the other, so their rows are one table whose rows run `runs` times as often.
        table = concatenate([phase.table for phase in workload.phases])
        runs = np.concatenate([np.full(len(phase.table), float(phase.runs)) for phase in workload.phases])
        self.table = table
        self.shapes, index = table.distinct(parallel=not self.points.one_chip)
        count = self.space.model_count
        self.index: IntArray = np.ascontiguousarray(np.broadcast_to(index, (count, len(table))))
        self.weight: FloatArray = np.ascontiguousarray(np.broadcast_to(table.repeat * runs, (count, len(table))))
        self.row_macs: FloatArray = np.broadcast_to(table.row_macs() * runs, (count, len(table)))
        self.parameters = self._per_model(workload.parameter_count())
        self.macs = self._per_model(workload.macs())
        # Chips share weights and cache; each holds the activations whole.
        self.shared_bytes = self._per_model(workload.weight_bytes() + workload.kv_cache_bytes())
        self.cache_bytes = self._per_model(workload.kv_cache_bytes())
        self.expert_bytes = self._per_model(hw_models.costs.evaluate.expert_bytes([phase.table for phase in workload.phases]))
        self.passes = functools.reduce(operator.add, [pipeline.passes_of(phase.table, float(phase.runs)) for phase in workload.phases])
        self.activation_bytes = self._per_model(workload.activation_bytes())
        self.quality = _predict(self.family, self.space.models)
        self._told: dict[tuple[int, int], dict[str, Any]] = {}

    def _per_model(self, value: Any) -> FloatArray:
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (self.space.model_count,))

    def block(self, first: int, last: int) -> Block:
        """Models first..last-1 on every hardware point."""
        return Block(self, first, last)

    def breakdown(self, model: int, hardware: int) -> list[dict[str, Any]]:
        """One entry a component of one design: latency, dynamic energy, MACs, DRAM traffic, and the bound that takes most."""
        if self._apart:
            own, hardware = self.at(hardware)
            return own.breakdown(model, hardware)
        hardware = int(self.points.design[hardware])
        if self.on_chip is not None and self.on_chip.able[hardware]:
            return on_chip.breakdown(self.residency(model, hardware), self.row_macs[model], self.weight[model])
        latency = self.weight[model] * self.unit.latency_s[self.index[model], hardware]
        energy = self.weight[model] * self.unit.energy_j[self.index[model], hardware]
        dram_bytes = self.weight[model] * self.unit.dram_bytes[self.index[model], hardware]
        bounds = self.unit.bound[self.index[model], hardware]
        macs = self.row_macs[model]
        entries = []
        for component in dict.fromkeys(self.table.component.tolist()):
            rows = np.flatnonzero(self.table.component == component)
            by_bound: dict[str, float] = {}
            for row in rows:
                name = self.unit.bound_names[int(bounds[row])]
                by_bound[name] = by_bound.get(name, 0.0) + float(latency[row])
            entries.append(
                {
                    "component": component,
                    "latency_s": float(latency[rows].sum()),
                    "energy_j": float(energy[rows].sum()),
                    "macs": float(macs[rows].sum()),
                    "dram_bytes": float(dram_bytes[rows].sum()),
                    "bound": max(by_bound, key=lambda name: by_bound[name]),
                    "latency_by_bound_s": by_bound,
                    "operations": [
                        {
                            "name": str(self.table.name[row]),
                            "repeat": float(self.weight[model, row]),
                            "latency_s": float(latency[row]),
                            "energy_j": float(energy[row]),
                            "macs": float(macs[row]),
                            "dram_bytes": float(dram_bytes[row]),
                            "bound": self.unit.bound_names[int(bounds[row])],
                        }
                        for row in rows
                    ],
                }
            )
        return entries

    def residency(self, model: int, hardware: int) -> dict[str, Any]:
        """Where the tensors of one model live on one hardware point, what that saves, and why each byte passes the DRAM; see
        `hw_models.costs.residency.models.report`.
        """
        if self._apart:
            own, hardware = self.at(hardware)
            return own.residency(model, hardware)
        design = int(self.points.design[hardware])
        if (model, design) not in self._told:
            if self.on_chip is None:
                found = on_chip.nothing_told(self.problem, self.workload, self.points.batches, design)
            else:
                found = self.on_chip.told(model, design)
            if "steps" in found:
                found["saved"] = on_chip.saved(found, self.alone(model, design))
            self._told[model, design] = found
        return self._told[model, design]

    def kept_on_chip(self, model: int, hardware: int) -> dict[str, Any] | None:
        """The short form of `residency` for files and reports; None where nothing is kept."""
        if self._apart:
            own, hardware = self.at(hardware)
            return own.kept_on_chip(model, hardware)
        if self.on_chip is None or not self.on_chip.able[int(self.points.design[hardware])]:
            return None
        return on_chip.in_short(self.residency(model, hardware))

    def busy_s(self, model: int, hardware: int) -> dict[str, float]:
        """Busy times of the units of one design: array, vector, dram, link."""
        if self._apart:
            own, hardware = self.at(hardware)
            return own.busy_s(model, hardware)
        design = int(self.points.design[hardware])
        if self.on_chip is not None and self.on_chip.able[design]:
            steps = self.residency(model, hardware)["steps"]
            return {unit: sum(step[f"{unit}_s"] for step in steps) for unit in ("array", "vector", "dram")} | {"link": 0.0}
        return {unit: self.alone(model, design)[f"{unit}_s"] for unit in ("array", "vector", "dram", "link")}

    def alone(self, model: int, design: int) -> dict[str, float]:
        """Sums of one model on one design with every operation by itself: all additive quantities of `UnitCosts`."""
        weight, index = self.weight[model], self.index[model]
        unit, at = self.__dict__.get("unit"), design
        if unit is None:  # the whole space is not needed for one of its designs
            rows, index = np.unique(index, return_inverse=True)
            unit, at = self.points.unit_costs_of(design, self.shapes.take(rows), cast(Criterion, self.problem.criterion)), 0
        return {name: float(weight @ getattr(unit, name)[index, at]) for name in ADDITIVE}

    def workload_of(self, model: int) -> Workload:
        """The workload with one of its models."""
        knobs = {name: int(values[model]) for name, values in self.space.models.items()}
        return self.family.build(**knobs, **self.settings)

    @property
    def metric_names(self) -> list[str]:
        """The metrics that its designs have: quality where there is a surrogate, prices where all are public."""
        priced = bool(np.isfinite(self.points.capital_usd).all())
        return [
            name
            for name in METRICS
            if (self.quality is not None or not name.startswith("quality")) and (priced or not name.startswith(("capital_usd", "usd_")))
        ]

    def carbon_parts(self, hardware: int) -> dict[str, float]:
        """Embodied carbon of one hardware point by part."""
        return {name: float(part[hardware]) for name, part in self.points.parts.items()}


class Block:
    """Metrics of a range of models on every hardware point, computed when asked for; arrays broadcast to ``shape``."""

    def __init__(self, evaluation: Evaluation, first: int, last: int) -> None:
        self._evaluation = evaluation
        self._models = slice(first, last)
        self.shape = (last - first, evaluation.space.hardware_count)
        self._known: dict[str, Any] = {}

    def mappable(self) -> BoolArray:
        """Whether every operation of the model has a mapping on the point."""
        return np.isfinite(self.metric("latency_s"))

    def makeable(self) -> BoolArray:
        """Whether the device of the point can be made (its die fits a reticle and a wafer)."""
        return self._evaluation.points.makeable[None, :]

    def metric(self, name: str) -> FloatArray:
        """One metric, with a shape that broadcasts to (models, points)."""
        if name not in self._known:
            self._known[name] = np.asarray(metric("metric", name).compute(self))
        return self._known[name]  # type: ignore[no-any-return]

    def piece(self, name: str) -> FloatArray:
        """What metrics are computed from (`dse.problem.metrics`), with a shape that broadcasts to (models, points)."""
        if self._evaluation._apart and name in _BY_KIND:
            return self._of_kinds(name)
        return _PIECES[name](self)

    def _of_kinds(self, name: str) -> FloatArray:
        """A piece that the kind of the hardware decides, each kind's designs as they are by themselves."""
        e = self._evaluation
        whole = np.empty((self.shape[0], sum(map(len, e.points.batches))))
        for part, designs in e._apart:
            whole[:, designs] = part.block(self._models.start, self._models.stop).piece(name)
        return whole if e.points.one_deployment else whole[:, e.points.design]

    def _sum(self, name: str) -> FloatArray:
        e = self._evaluation
        kept = getattr(e.on_chip, name)[self._models] if e.on_chip is not None and name in on_chip.SUMS else None
        if kept is None or not e.on_chip.able.all():  # type: ignore[union-attr]
            alone = weighted_sums(e.index[self._models], e.weight[self._models], getattr(e.unit, name))
            kept = alone if kept is None else np.where(e.on_chip.able, kept, alone)  # type: ignore[union-attr]
        if not e.points.one_group and name in ("latency_s", "energy_j"):
            passes = e.passes.take(self._models)
            if name == "latency_s":
                kept = e.points.of_designs_columns(kept, lambda batch, own: pipeline.latency_s(own, passes, batch))
            else:
                kept = kept + e.points.of_designs(lambda batch: pipeline.hops_j(batch, passes))
        return kept if e.points.one_deployment else kept[:, e.points.design]

    def _array_macs(self) -> FloatArray:
        """Multiply-accumulates, each over the rate of the format that it runs in: what `tops`, the peak of one, is held against."""
        e = self._evaluation
        if all((batch.execution == Execution.MAPPED).all() for batch in e.points.batches):
            return np.asarray(e.macs[self._models, None])
        times = np.concatenate([1.0 / format_rates(e.shapes, batch) for batch in e.points.batches], axis=1)
        found = weighted_sums(e.index[self._models], np.ascontiguousarray(e.row_macs[self._models], dtype=np.float64), times)
        return np.asarray(found if e.points.one_deployment else found[:, e.points.design])

    def _operation(self) -> carbon.operational.service.Operation:
        if "operation" not in self._known:
            e = self._evaluation
            latency = self.metric("latency_s")
            known = np.isfinite(latency)
            self._known["operation"] = carbon.operational.service.equal_service(
                np.where(known, self.metric("energy_j"), 0.0),
                np.where(known, latency, 0.0),
                idle_w=e.points.leakage_w,
                rate_per_s=e.points.rate_per_s,
                lifetime_years=e.points.lifetime_years,
                pue=e.points.pue,
                gco2e_per_kwh=e.points.gco2e_per_kwh,
                concurrency=e.points.in_flight,
            )
        return self._known["operation"]  # type: ignore[no-any-return]

    def _held_bytes(self) -> FloatArray:
        e = self._evaluation
        if not e.points.one_group or any((batch.expert_parallel > 1).any() for batch in e.points.batches):
            shared, experts, cache, held = (
                column[self._models, None] for column in (e.shared_bytes, e.expert_bytes, e.cache_bytes, e.activation_bytes)
            )
            of = e.points.of_designs(lambda batch: hw_models.costs.evaluate.held_bytes(shared - cache, experts, cache, held, batch))
            return of[:, e.points.design]
        return np.asarray(e.shared_bytes[self._models, None] + e.activation_bytes[self._models, None] * e.points.chips[None, :])

    def _peak_dynamic_w(self) -> FloatArray:
        e = self._evaluation
        if e.on_chip is not None and e.on_chip.able.all():
            return e.on_chip.peak_w[self._models][:, e.points.design]
        alone = peak_dynamic_w(e.index[self._models], e.weight[self._models] > 0, e.unit)
        if e.on_chip is not None:
            alone = np.where(e.on_chip.able, e.on_chip.peak_w[self._models], alone)
        # Stages and replicas may all be at their hungriest operation.
        alone = alone * e.points.of_designs(lambda batch: (batch.all_chips / batch.chips)[None, :])
        return alone[:, e.points.design]

    def _usd_per_w(self) -> FloatArray:
        """Price of the electricity of a watt over the lifetime."""
        p, deployment = self._evaluation.points, self._evaluation.deployment
        kwh = p.lifetime_years * carbon.operational.service.DAYS_PER_YEAR * 24.0 / 1e3
        return np.asarray(kwh * p.pue * deployment.electricity_usd_per_kwh)

    def _quality(self, part: str) -> FloatArray:
        e = self._evaluation
        if e.quality is None:
            raise UsageError(f"workload {e.problem.workload!r} has no quality surrogate; metrics quality and quality_se need one")
        return np.asarray(getattr(e.quality, part)[self._models, None])


# What depends on how the model runs on a design.
_BY_KIND = frozenset(
    {"latency_s", "array_s", "vector_s", "dram_s", "link_s", "dynamic_j", "peak_dynamic_w", "macs", "array_macs", "held_bytes"}
)
_PIECES: dict[str, Callable[[Block], FloatArray]] = {
    "quality_mean": lambda b: b._quality("mean"),
    "quality_standard_error": lambda b: b._quality("standard_error"),
    "latency_s": lambda b: b._sum("latency_s"),
    "array_s": lambda b: b._sum("array_s"),
    "vector_s": lambda b: b._sum("vector_s"),
    "dram_s": lambda b: b._sum("dram_s"),
    "link_s": lambda b: b._sum("link_s"),
    "dynamic_j": lambda b: b._sum("energy_j"),
    "peak_dynamic_w": lambda b: b._peak_dynamic_w(),
    "idle_share": lambda b: np.maximum(1.0 - b.metric("service_utilisation"), 0.0),
    "leakage_w": lambda b: b._evaluation.points.leakage_w[None, :],
    "request_leakage_w": lambda b: b._evaluation.points.request_leakage_w[None, :],
    "in_flight": lambda b: b._evaluation.points.in_flight[None, :],
    "slot_s": lambda b: b.metric("latency_s") / b._evaluation.points.in_flight[None, :],  # of the whole, where several are in flight
    "rate_per_s": lambda b: np.asarray(b._evaluation.points.rate_per_s),
    "area_mm2": lambda b: b._evaluation.points.area_mm2[None, :],
    "tops": lambda b: b._evaluation.points.tops[None, :],
    "dram_bytes": lambda b: b._evaluation.points.dram_bytes[None, :],
    "embodied_kgco2e": lambda b: b._evaluation.points.embodied_kgco2e[None, :],
    "operational_kgco2e": lambda b: np.asarray(b._operation().operational_kgco2e),
    "requests": lambda b: np.asarray(b._operation().requests),
    "capital_usd": lambda b: b._evaluation.points.capital_usd[None, :],
    "usd_per_w": lambda b: b._usd_per_w(),
    "parameters": lambda b: b._evaluation.parameters[b._models, None],
    "macs": lambda b: b._evaluation.macs[b._models, None],
    "array_macs": lambda b: b._array_macs(),
    "held_bytes": lambda b: b._held_bytes(),
}


def build_space(problem: Problem, family: Family, hardware_space: hardware.HardwareSpace) -> Space:
    """The joint space of a problem; models without support are left out unless the problem allows them."""
    invalid = ""
    if problem.models is not None:
        grid = {name: np.array(column, dtype=np.int64) for name, column in problem.models.items()}
    else:
        grid, invalid = space_file.model_grid(problem.space_toml, problem.space, family, problem.fixed)
    points = _with_deployments(hardware_space.narrowed(problem.fixed).grid(), problem)
    points = space_file.allowed_points(problem.space_toml, problem.space, points)
    check_knob_names(problem.fixed, [*grid, *points], [*family.knobs, *family.dimensions, *hardware_space.settings])
    settings = {name: value for name, value in problem.fixed.items() if name in family.knobs and name not in (*grid, *points)}
    if problem.fixed_model:
        own = {**family.values(), **{name: value for name, value in problem.fixed.items() if name in family.knobs}}
        for name in grid:
            if isinstance(own[name], str):
                raise UsageError(f"set {name}={own[name]} is not a number, which this knob of {family.name} needs")
            if isinstance(own[name], float) and own[name] != round(own[name]):
                raise UsageError(f"set {name}={own[name]} is no whole number, which this knob of {family.name} needs; nearest is "
                                 f"{round(own[name])}")  # fmt: skip
        models = {name: np.array([own[name]], dtype=np.int64) for name in grid}
        left_out = 0
    else:
        models = fix_knobs(grid, problem.fixed) if grid else {}
        models, left_out = _keep_supported(problem, family, models)
    return Space(models, fix_knobs(points, problem.fixed) if points else {}, left_out, settings, invalid)


def _with_deployments(grid: dict[str, npt.NDArray[Any]], problem: Problem) -> dict[str, npt.NDArray[Any]]:
    """Every hardware point in every deployment that the problem varies; deployments vary fastest."""
    columns = dict(grid)
    for name, chosen in problem.vary.items():
        if name not in VARIABLE:
            continue
        count = len(next(iter(columns.values()), (0,)))
        columns = {known: np.repeat(column, len(chosen)) for known, column in columns.items()}
        columns[name] = np.tile(np.array([VARIABLE[name](value) for value in chosen]), count)
    return columns


def _keep_supported(problem: Problem, family: Family, models: dict[str, IntArray]) -> tuple[dict[str, IntArray], int]:
    predicted = _predict(family, models)
    if problem.allow_unsupported or predicted is None:
        return models, 0
    keep = predicted.support != quality.EXTRAPOLATED
    if not keep.any():
        surrogate = quality.for_workload(family.name)
        assert surrogate is not None  # a prediction came from it
        first = {name: int(models[name][0]) for name in surrogate.knobs}
        raise UsageError(
            "no model of the space has published support for its quality: "
            + surrogate.describe_refusal(**first)
            + "; --allow-unsupported searches it all the same"
        )
    return {name: values[keep] for name, values in models.items()}, int(np.count_nonzero(~keep))
