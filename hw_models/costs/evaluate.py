"""What operations cost on accelerators: `unit_costs` of shapes on points, and `evaluate` of whole models.

Costs add over operations (docs/architecture.md): an operation's unit cost depends on its shape and the hardware
alone, and the cost of a model is the sum of unit costs times how often it runs each shape. Operations run one after
the other; within one operation the array or the vector unit and the levels of memory work at the same time, and the
slowest is its bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from dse_kernels.sums import weighted_sums

from hw_models.accelerator.design import Accelerator, AcceleratorBatch, check_experts
from hw_models.accelerator.fields import Execution
from hw_models.costs import pipeline, precision, vector
from hw_models.costs.attention import attention_costs
from hw_models.costs.board_power import dynamic_j
from hw_models.costs.chips import check_collectives, exchange, shares
from hw_models.costs.chips import groups as groups_by_chips
from hw_models.costs.kernels import format_rates, kernel_costs
from hw_models.costs.products import product_costs
from hw_models.costs.sparse import sparse_costs
from hw_models.costs.unit_costs import (
    ADDITIVE,
    Criterion,
    Progress,
    UnitCosts,
    Unmapped,
    check_criterion,
    empty_costs,
    fill,
    peak_dynamic_w,
    slowest,
)
from hw_models.costs.vector_catransformers import catransformers
from hw_models.errors import HardwareError
from hw_models.technology.closed_forms import energy_j
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.tables import FLASH
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable, of_kinds

if TYPE_CHECKING:
    from workloads.records import Workload

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def unit_costs(
    shapes: OperationTable,
    hardware: AcceleratorBatch,
    *,
    criterion: Criterion = "edp",
    threads: int | None = None,
    progress: Progress | None = None,
    unmapped: Unmapped = "error",
) -> UnitCosts:
    """Cost of one run of each shape on each design.

    Args:
        shapes: operations with columns (shapes,): one model's, or the table of `OperationTable.distinct`.
            ``repeat`` is not used. Where a design has several chips, the shapes of `OperationTable.distinct(parallel=True)`.
        hardware: designs (points,).
        criterion: what the mapping of a product minimises: energy-delay product, latency or energy.
        threads: threads of the mapping search (None: one a core of the machine); the result does not depend on it.
        progress: called with (shapes done, shapes) while the search runs.
        unmapped: what a product is that fits no buffer of a design: an error, or infinite latency and energy there (a
            sweep goes on and counts the design as infeasible).

    Raises:
        HardwareError: unknown criterion, an operation that no model costs, or a product that no mapping fits.
    """
    check_criterion(criterion)
    if shapes.models is not None:
        raise HardwareError(
            f"unit_costs needs columns of shape (shapes,), got {shapes.shape}: give table.distinct().table for a table of models"
        )
    if len(hardware) == 0:
        raise HardwareError("unit_costs needs at least one design, got none")
    parts = [
        (widths, (chips, experts), points[here])
        for widths, points in precision.groups(hardware)
        for chips, experts, here in groups_by_chips(hardware.chips[points], hardware.expert_parallel[points])
    ]
    if len(parts) == 1:
        return _shared(shapes, hardware, *parts[0][:2], criterion, threads, progress, unmapped)
    costs = empty_costs(len(shapes), hardware)
    for widths, sharing, points in parts:
        found = _shared(shapes, hardware.take(points), widths, sharing, criterion, threads, progress, unmapped)
        fill(costs, points, found)
    return costs


def _shared(
    shapes: OperationTable,
    hardware: AcceleratorBatch,
    widths: precision.Widths,
    sharing: tuple[int, int],
    criterion: Criterion,
    threads: int | None,
    progress: Progress | None,
    unmapped: Unmapped,
) -> UnitCosts:
    """`unit_costs` of designs with the same precision, number of chips and ranks of experts: the largest share, then the collective."""
    chips, experts = sharing
    shapes = precision.at_widths(shapes, widths)
    precision.check_macs(shapes, hardware.take(hardware.execution == Execution.MAPPED))
    check_collectives(shapes)
    if chips == 1 and experts == 1:
        return _on_one_chip(shapes, hardware, criterion, threads, progress, unmapped)
    dealt = shares(shapes, chips, experts)
    told = exchange(shapes, hardware, chips, experts)
    costs = _on_one_chip(dealt.table, hardware, criterion, threads, progress, unmapped)
    at_work = np.broadcast_to(dealt.at_work[:, None].astype(np.float64), costs.latency_s.shape)
    if experts > 1:
        for data in np.unique(hardware.data_parallel):
            check_experts(experts, chips, int(data))
        # Kernels of grouped products are told of the ranks themselves, and each chip of the group runs one; a search of mappings costs
        # a product, of which the busiest rank runs its share.
        kernels = hardware.execution != Execution.MAPPED
        at_work = np.where(kernels & (dealt.table.moe_joined > 0)[:, None], chips, at_work)
        costs = _scaled(costs, np.where(kernels, 1.0, dealt.time_share[:, None]))
    bound = np.where(told.latency_s > costs.latency_s, costs.bound_names.index("link"), costs.bound).astype(np.int8)
    return replace(
        costs,
        latency_s=costs.latency_s + told.latency_s,
        energy_j=costs.energy_j * at_work + told.energy_j,
        link_s=told.latency_s,
        dram_bytes=costs.dram_bytes * at_work,
        bound=bound,
    )


def _scaled(costs: UnitCosts, share: FloatArray) -> UnitCosts:
    """Times of a share (shapes, points) of the runs; energy and bytes are those of all."""
    return replace(costs, **{name: getattr(costs, name) * share for name in ("latency_s", "array_s", "vector_s", "dram_s")})


def _on_one_chip(
    shapes: OperationTable,
    hardware: AcceleratorBatch,
    criterion: Criterion,
    threads: int | None,
    progress: Progress | None,
    unmapped: Unmapped,
) -> UnitCosts:
    """`unit_costs` of what one chip does; collectives between chips are no work of its own."""
    kernels = np.flatnonzero(hardware.execution != Execution.MAPPED)
    if len(kernels):
        costs = empty_costs(len(shapes), hardware)
        kernel_costs(shapes, hardware, kernels, costs)
        mapped = np.flatnonzero(hardware.execution == Execution.MAPPED)
        if len(mapped):
            found = _on_one_chip(shapes, hardware.take(mapped), criterion, threads, progress, unmapped)
            fill(costs, mapped, found)
        return costs
    costs = empty_costs(len(shapes), hardware)
    kind = shapes.kind
    products, attention = of_kinds(kind, PRODUCTS), of_kinds(kind, ATTENTION)
    sparse = kind == Kind.SPARSE_BEAM
    vector = ~products & ~attention & ~sparse & (kind != Kind.COLLECTIVE)
    if hardware.level_kinds[-1] in FLASH and not sparse.all():
        raise HardwareError(
            f"dram_type {hardware.level_kinds[-1]!r} is flash, which holds what is only read (a tree's catalogue, workload xmc); "
            "this workload writes to its memory and needs a DRAM, such as 'lpddr4'"
        )
    if vector.any():
        _vector_costs(shapes, hardware, np.flatnonzero(vector), costs)
    if products.any():
        product_costs(shapes, hardware, np.flatnonzero(products), costs, criterion, threads, progress, unmapped)
    if sparse.any():
        sparse_costs(shapes, hardware, np.flatnonzero(sparse), costs)
    if attention.any():
        attention_costs(shapes, hardware, np.flatnonzero(attention), costs, criterion, threads)
    return _with_board_power(shapes, hardware, costs)


def _with_board_power(shapes: OperationTable, hardware: AcceleratorBatch, costs: UnitCosts) -> UnitCosts:
    """The same costs with the energy of boards where a design has a power limit."""
    boards = np.flatnonzero(hardware.tdp_w > 0)
    if not len(boards):
        return costs
    macs = np.asarray(shapes.row_macs() / np.maximum(shapes.repeat, 1), dtype=np.float64)[:, None]
    latency, moved = costs.latency_s[:, boards], costs.dram_bytes[:, boards]
    mapped = np.isfinite(latency)
    spent = dynamic_j(hardware.take(boards), np.where(mapped, latency, 0.0), macs, np.where(mapped, moved, 0.0))
    energy = costs.energy_j.copy()
    energy[:, boards] = np.where(mapped, spent, costs.energy_j[:, boards])
    return replace(costs, energy_j=energy)


def _vector_costs(shapes: OperationTable, hardware: AcceleratorBatch, rows: IntArray, costs: UnitCosts) -> None:
    """Fill the rows of vector operations."""
    table = shapes.take(rows)
    vector.check_kinds(table)
    if find_profile(hardware.profile).vector_model == "catransformers":
        found = catransformers(table, hardware)
    else:
        found = vector.physical(table, hardware)
    latency, bound = slowest([found.lanes_s, *found.level_s])
    # Candidate 0 is the vector unit; the levels keep their place.
    costs.bound[rows] = np.where(bound == 0, costs.bound_names.index("vector"), bound)
    costs.latency_s[rows], costs.energy_j[rows] = latency, found.energy_j
    costs.vector_s[rows], costs.dram_s[rows], costs.dram_bytes[rows] = found.lanes_s, found.level_s[-1], found.dram_bytes


def table_sums(table: OperationTable, index: IntArray, unit: UnitCosts, names: Sequence[str] = ADDITIVE) -> dict[str, FloatArray]:
    """Additive costs of each model of a table on each design: {name: (models, points)}; one model counts as one.

    ``index`` (rows,) or (models, rows) says which shape of ``unit`` each row is.
    """
    rows = len(table)
    index = np.ascontiguousarray(index.reshape(-1, rows))
    weight = np.ascontiguousarray(table.column("repeat").reshape(-1, rows), dtype=np.float64)
    return {name: weighted_sums(index, weight, getattr(unit, name)) for name in names}


@dataclass(frozen=True, eq=False)
class RowCosts:
    """What each row of a model costs on each design, repeats and runs of its phase included: arrays (rows, points).

    ``phase``, ``name``, ``component``, ``kind`` (rows,) say what the row is; ``macs`` and ``runs`` (rows,) what it
    does and how often.
    """

    phase: tuple[str, ...]
    name: tuple[str, ...]
    component: tuple[str, ...]
    kind: tuple[str, ...]
    runs: FloatArray
    macs: FloatArray
    latency_s: FloatArray
    energy_j: FloatArray
    dram_bytes: FloatArray
    bound: npt.NDArray[np.int8]
    bound_names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Cost:
    """Cost of a workload on designs; arrays (points,), or (models, points) where the workload holds several models.

    Of a single `Accelerator` the last dimension is left out: one model on one design has numbers of shape ().

    Attributes:
        latency_s: of one request, phases and operations one after the other.
        energy_j: dynamic energy plus leakage times latency.
        dynamic_j, leakage_j: its two parts.
        array_s, vector_s, dram_s, link_s, dram_bytes: busy times and traffic (see `UnitCosts`).
        peak_power_w: largest mean power of any operation, leakage included.
        average_power_w: energy over latency.
        macs: multiply-accumulates, () or (models,).
        array_utilisation: MACs over what the arrays could do in that time, each at the peak of the format that it runs in.
        area_mm2, tops, leakage_w: of the designs.
        required_bytes: weights, peak activations and KV cache at the design's precision.
        dram_capacity_bytes: of the designs.
        feasible: whether these fit the DRAM.
        rows: the breakdown, where one model was costed.
    """

    latency_s: FloatArray
    energy_j: FloatArray
    dynamic_j: FloatArray
    leakage_j: FloatArray
    array_s: FloatArray
    vector_s: FloatArray
    dram_s: FloatArray
    link_s: FloatArray
    dram_bytes: FloatArray
    peak_power_w: FloatArray
    average_power_w: FloatArray
    macs: FloatArray
    array_utilisation: FloatArray
    area_mm2: FloatArray
    tops: FloatArray
    leakage_w: FloatArray
    required_bytes: FloatArray
    dram_capacity_bytes: IntArray
    feasible: npt.NDArray[np.bool_]
    rows: RowCosts | None

    @property
    def utilisation(self) -> FloatArray:
        """The earlier name of `array_utilisation`; that of a service (rate x latency) is another quantity."""
        return self.array_utilisation

    def reason(self, *index: int) -> str | None:
        """Why the design at ``index`` cannot run the workload, or None."""
        if bool(self.feasible[index]):
            return None
        needed = float(self.required_bytes[index])
        held = float(np.broadcast_to(self.dram_capacity_bytes, self.feasible.shape)[index])
        return f"weights and activations need {needed / 2**20:.1f} MiB of DRAM, the design has {held / 2**20:.1f} MiB"

    def components(self, point: int | None = None) -> dict[str, dict[str, float | str]]:
        """Breakdown by component of one model on one design: {component: latency_s, energy_j, macs, dram_bytes, bound}.

        The bound of a component is that of the operations that take most of its time. ``energy_j`` is dynamic.
        """
        rows = self.row_records(point)
        result: dict[str, dict[str, float | str]] = {}
        share: dict[str, dict[str, float]] = {}
        for row in rows:
            name = str(row["component"])
            into = result.setdefault(name, {"latency_s": 0.0, "energy_j": 0.0, "macs": 0.0, "dram_bytes": 0.0})
            for key in ("latency_s", "energy_j", "macs", "dram_bytes"):
                into[key] = float(into[key]) + float(row[key])
            bounds = share.setdefault(name, {})
            bounds[str(row["bound"])] = bounds.get(str(row["bound"]), 0.0) + float(row["latency_s"])
        for name, bounds in share.items():
            result[name]["bound"] = max(bounds, key=lambda b: bounds[b])
        return result

    def row_records(self, point: int | None = None) -> list[dict[str, float | str]]:
        """One record a row: phase, name, component, kind, runs, latency_s, energy_j (dynamic), macs, dram_bytes,
        bound.
        """
        rows = self.rows
        if rows is None:
            raise HardwareError("a breakdown is kept for one model at a time: evaluate the model by itself (table.model(i))")
        if point is None:
            if rows.latency_s.shape[1] != 1:
                raise HardwareError(f"a breakdown needs the number of a design from 0 to {rows.latency_s.shape[1] - 1}, got none")
            point = 0
        return [
            {
                "phase": rows.phase[i],
                "name": rows.name[i],
                "component": rows.component[i],
                "kind": rows.kind[i],
                "runs": float(rows.runs[i]),
                "latency_s": float(rows.latency_s[i, point]),
                "energy_j": float(rows.energy_j[i, point]),
                "macs": float(rows.macs[i]),
                "dram_bytes": float(rows.dram_bytes[i, point]),
                "bound": rows.bound_names[int(rows.bound[i, point])],
            }
            for i in range(len(rows.name))
        ]


def evaluate(
    accelerators: Accelerator | AcceleratorBatch,
    operations: OperationTable | Workload,
    *,
    criterion: Criterion = "edp",
    threads: int | None = None,
) -> Cost:
    """Cost a workload (or the table of one phase) on one design or many, for one model or many.

    Raises HardwareError as `unit_costs` does. A workload that does not fit the DRAM is costed all the same;
    `Cost.feasible` says so.
    """
    batch = accelerators if isinstance(accelerators, AcceleratorBatch) else accelerators.batch()
    one_design = isinstance(accelerators, Accelerator)
    phases = [("", operations, 1.0)] if isinstance(operations, OperationTable) else [(p.name, p.table, p.runs) for p in operations.phases]
    one_model = operations.models is None
    required = required_bytes(operations, batch)
    macs = np.asarray(operations.macs(), dtype=np.float64)
    sums: dict[str, FloatArray] = {}
    kernels = bool((batch.execution != Execution.MAPPED).any())
    at_rate: FloatArray = np.zeros((1, len(batch))) if kernels else macs.reshape(-1, 1)
    peak: FloatArray | None = None
    row_costs: list[RowCosts] = []
    passes: pipeline.Passes | None = None
    for phase, table, runs in phases:
        shapes, index = table.distinct(parallel=not batch.one_chip)
        unit = unit_costs(shapes, batch, criterion=criterion, threads=threads)
        for name, value in table_sums(table, index, unit).items():
            sums[name] = sums.get(name, 0.0) + value * runs
        if kernels:
            times = 1.0 / format_rates(shapes, batch)
            done = np.broadcast_to(np.asarray(table.row_macs() * runs, dtype=np.float64), index.shape).reshape(-1, len(table))
            at_rate = at_rate + weighted_sums(index.reshape(-1, len(table)), np.ascontiguousarray(done), times)
        mine = pipeline.passes_of(table, runs)
        passes = mine if passes is None else passes + mine
        power = peak_dynamic_w(index.reshape(-1, len(table)), _run(table, index), unit)
        peak = power if peak is None else np.maximum(peak, power)
        if one_model:
            row_costs.append(_row_costs(phase, table, index, unit, runs))
    assert peak is not None and passes is not None
    sums["energy_j"] = sums["energy_j"] + pipeline.hops_j(batch, passes)
    sums["latency_s"] = pipeline.latency_s(sums["latency_s"], passes, batch)
    peak = peak * (batch.all_chips / batch.chips)
    return _cost(batch, sums, peak, macs, at_rate, required, _joined(row_costs), one_model=one_model, one_design=one_design)


def required_bytes(operations: OperationTable | Workload, hardware: AcceleratorBatch) -> FloatArray:
    """Bytes of weights, peak activations and KV cache that the DRAM of each design must hold (models, points).

    Chips and stages share weights and cache, each chip holds activations whole; replicas have weights of their own but for experts that are
    dealt over them, and every batch in flight a cache.
    """
    parts: list[tuple[FloatArray, IntArray]] = []
    for widths, points in precision.groups(hardware):
        if isinstance(operations, OperationTable):
            table = precision.at_widths(operations, widths)
            weights, cache, held, routed = table.weight_bytes(), 0, table.activation_bytes(), expert_bytes([table])
        else:
            workload = precision.workload_at_widths(operations, widths)
            weights, cache, held = workload.weight_bytes(), workload.kv_cache_bytes(), workload.activation_bytes()
            routed = expert_bytes([phase.table for phase in workload.phases])
        once, dealt, kept, each = (np.asarray(part, dtype=np.float64).reshape(-1, 1) for part in (weights, routed, cache, held))
        parts.append((held_bytes(once, dealt, kept, each, hardware.take(points)), points))
    result = np.empty((len(parts[0][0]), len(hardware)))
    for amounts, points in parts:
        result[:, points] = amounts
    return result


def expert_bytes(tables: Sequence[OperationTable]) -> Any:
    """Bytes of routed experts (models,): the most of any phase, whose tensors are the same."""
    found = [np.asarray(t.take(np.flatnonzero(t.moe_joined > 0)).weight_bytes()) for t in tables if (t.moe_joined > 0).any()]
    return np.max(np.broadcast_arrays(*found), axis=0) if found else np.zeros(())


def held_bytes(weights: FloatArray, experts: FloatArray, cache: FloatArray, held: FloatArray, hardware: AcceleratorBatch) -> FloatArray:
    """What the DRAM of designs must hold, from bytes of models (models, 1): see `required_bytes`."""
    spanned = np.maximum(hardware.expert_parallel // hardware.chips, 1)
    own = (weights - experts) * hardware.data_parallel + experts * hardware.data_parallel / spanned
    return np.asarray(own + cache * hardware.in_flight + held * hardware.all_chips)


def _run(table: OperationTable, index: IntArray) -> npt.NDArray[np.bool_]:
    """Which rows a model runs at all (models, rows)."""
    return np.asarray(table.column("repeat").reshape(-1, len(table)) > 0) & np.ones(index.reshape(-1, len(table)).shape, dtype=bool)


def _row_costs(phase: str, table: OperationTable, index: IntArray, unit: UnitCosts, runs: float) -> RowCosts:
    times = table.column("repeat").astype(np.float64) * runs
    scale = times[:, None]
    return RowCosts(
        phase=(phase,) * len(table),
        name=tuple(map(str, table.name)),
        component=tuple(map(str, table.component)),
        kind=tuple(Kind(int(k)).name.lower() for k in table.kind),
        runs=times,
        macs=table.row_macs().astype(np.float64) * runs,
        latency_s=unit.latency_s[index] * scale,
        energy_j=unit.energy_j[index] * scale,
        dram_bytes=unit.dram_bytes[index] * scale,
        bound=unit.bound[index],
        bound_names=unit.bound_names,
    )


def _joined(parts: list[RowCosts]) -> RowCosts | None:
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]
    values: dict[str, Any] = {"bound_names": parts[0].bound_names}
    for f in fields(RowCosts):
        if f.name != "bound_names":
            columns = [getattr(p, f.name) for p in parts]
            values[f.name] = sum(columns, ()) if isinstance(columns[0], tuple) else np.concatenate(columns)
    return RowCosts(**values)


def _cost(
    batch: AcceleratorBatch,
    sums: dict[str, FloatArray],
    peak: FloatArray,
    macs: FloatArray,
    at_rate: FloatArray,
    required: FloatArray,
    rows: RowCosts | None,
    *,
    one_model: bool,
    one_design: bool,
) -> Cost:
    """Assemble a Cost from additive sums, MACs over the rates of their formats and peak dynamic power (models, points)."""

    def squeeze(value: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        value = value[0] if one_model and value.ndim == 2 else value
        return np.asarray(value[..., 0]) if one_design else value

    latency, dynamic = sums["latency_s"], sums["energy_j"]
    # Batches in flight share the idle power of all chips.
    leakage_w = batch.leakage_w[None, :] / batch.in_flight
    leakage = leakage_w * latency
    energy = energy_j(dynamic, leakage_w, latency)
    busy = latency > 0
    average = np.divide(energy * batch.in_flight, latency, out=np.zeros_like(energy), where=busy)
    rate = batch.tops[None, :] * 1e12 / 2 / batch.in_flight
    possible = rate * latency
    used = np.divide(np.broadcast_to(at_rate, latency.shape), possible, out=np.zeros_like(latency), where=busy)
    fits = required <= batch.dram_bytes[None, :]
    arrays = {
        **{name: sums[name] for name in ("latency_s", "array_s", "vector_s", "dram_s", "link_s", "dram_bytes")},
        "energy_j": energy,
        "dynamic_j": dynamic,
        "leakage_j": leakage,
        "peak_power_w": peak + batch.leakage_w[None, :],
        "average_power_w": average,
        "array_utilisation": used,
        "feasible": fits,
        "required_bytes": required,
        "area_mm2": batch.area_mm2,
        "tops": batch.tops,
        "leakage_w": batch.leakage_w,
        "dram_capacity_bytes": batch.dram_bytes,
    }
    squeezed: dict[str, Any] = {name: squeeze(value) for name, value in arrays.items()}
    return Cost(macs=macs, rows=rows, **squeezed)
