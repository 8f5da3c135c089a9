"""What an exporter is given: one design of a run as records, its matrix products counted once each, and its other operations.

Every target takes matrix products. A product here is a distinct shape; operations that share it (the projections of queries,
keys and values, all layers) are listed once with how often a request runs them, so that a simulator is asked once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from dse_kernels import mapping

from dse.errors import DseError, UsageError
from dse.evaluation.evaluation import build_space, load_family, load_hardware, settings_on
from dse.exporters.names import quoted, safe_name
from hw_models.costs import chips as parallel
from hw_models.costs import evaluate as cost
from hw_models.costs import precision
from hw_models.costs.mapping import loop_nest, mapping_hardware
from hw_models.costs.residency.models import report
from hw_models.costs.residency.solve import check_level
from workloads.ops import Kind

if TYPE_CHECKING:
    from dse.storage.run_folder import RunRecord
    from hw_models.accelerator.design import Accelerator, AcceleratorBatch
    from hw_models.costs.mapping import LoopNest
    from hw_models.costs.unit_costs import Criterion
    from workloads.records import Workload


@dataclass(frozen=True)
class Product:
    """A distinct product ``out[batch, m, n] = in[batch, m, k] x second[(batch), k, n]``.

    Attributes:
        name: the first operation that it is, made safe for any file format: letters, digits, underscores.
        operations: the names of all of them.
        batch: entries with a second operand of their own (heads of attention, groups); where the second operand is a weight,
            the batch is part of ``m`` and this is 1.
        second_is_weight: the second operand is a parameter.
        runs: how often one request runs it.
        latency_s, bound: what it costs once on the design, and what limits it.
    """

    name: str
    operations: tuple[str, ...]
    batch: int
    m: int
    n: int
    k: int
    second_is_weight: bool
    input_bits: int
    weight_bits: int
    output_bits: int
    runs: float
    latency_s: float
    bound: str

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one run."""
        return self.batch * self.m * self.n * self.k


@dataclass(frozen=True)
class Other:
    """Operations that are no matrix product, by function: what no product-only target sees."""

    function: str
    count: float
    latency_s: float


@dataclass(frozen=True)
class ExportDesign:
    """One design of a run, ready for an exporter."""

    number: int
    workload_name: str
    accelerator: Accelerator
    workload: Workload
    knobs: Mapping[str, Any]
    metrics: Mapping[str, float]
    criterion: str
    command: str
    version: str
    products: tuple[Product, ...]
    others: tuple[Other, ...]
    notes: tuple[str, ...] = ()
    residency: str = "none"
    prefetch: bool = False
    checkpoint: Path | None = None
    """The folder of the model that was measured for this design, where the run keeps one (`config.json`, `model.safetensors`)."""
    rows: Mapping[int, str] = field(default_factory=dict)
    """The product that a row is, by the row's number over all phases; fused attention is two and has none."""
    other_rows: frozenset[int] = frozenset()
    """The rows that are no product."""

    @cached_property
    def batch(self) -> AcceleratorBatch:
        """The accelerator with what the technology tables say of it."""
        return self.accelerator.batch()

    @property
    def label(self) -> str:
        """A name for it that is safe in every format and as a file name."""
        return f"dse_design_{self.number:04d}"

    @cached_property
    def on_chip(self) -> dict[str, Any] | None:
        """What stays on chip between its operations (`hw_models.costs.residency.models.report`); None where nothing does."""
        if self.residency == "none":
            return None
        rules: Any = {"level": check_level(self.residency), "criterion": self.criterion, "prefetch": self.prefetch}
        found = report(self.workload, self.batch, point=0, **rules)
        return found if "steps" in found else None

    @cached_property
    def others_share(self) -> float:
        """Share of a request's time that its operations without a matrix product take, with what this design keeps on chip."""
        if self.on_chip is None:
            rest = sum(other.latency_s for other in self.others)
            return rest / (sum(p.runs * p.latency_s for p in self.products) + rest)
        seconds = [(step["row"] in self.other_rows, step["latency_s"]) for step in self.on_chip["steps"]]
        return float(sum(s for other, s in seconds if other) / sum(s for _, s in seconds))

    @cached_property
    def _mapped(self) -> tuple[dict[str, LoopNest], dict[str, float]]:
        return product_mappings(self)

    @property
    def mappings(self) -> dict[str, LoopNest]:
        """The mapping that the cost of each product stands for, by its name."""
        return self._mapped[0]

    @property
    def mapped_cycles(self) -> dict[str, float]:
        """Cycles of each product in that mapping, by its name."""
        return self._mapped[1]


def load_design(run: RunRecord, number: int) -> ExportDesign:
    """Design ``number`` (1 is the first of the front) of a run; UsageError if the run has no such design."""
    entry = run.entry(number)
    if entry is None:
        raise UsageError(f"design {number} is not in run {run.path}; its front has designs 1 to {len(run.designs)}")
    problem = run.problem
    family, hardware = load_family(problem), load_hardware(problem)
    knobs = entry["knobs"]
    # Of the hardware only the design's own point is needed, and a large grid would take gigabytes.
    own = hardware.with_knobs({name: [knobs[name]] for name in hardware.knobs if name in knobs})
    left = {name: value for name, value in problem.fixed.items() if name not in hardware.knobs}
    space = build_space(replace(problem, fixed=left), family, own)
    missing = [name for name in (*space.models, *hardware.knobs) if name not in knobs]
    if missing:
        raise DseError(f"design {number} of run {run.path} has no value for {', '.join(missing)}; its study is not whole")
    kernels = bool(own.kernels_run({"device": np.array([knobs["device"]])} if "device" in own.knobs else {}, 1)[0])
    settings = settings_on(family, space.settings, kernels=kernels)
    workload = family.build(**{name: knobs[name] for name in space.models}, **settings)
    accelerator = hardware.accelerator({name: knobs[name] for name in hardware.knobs})
    kept = run.path / "designs" / str(number) / "model"
    found = describe(
        accelerator,
        workload,
        number=number,
        workload_name=problem.workload,
        knobs=knobs,
        metrics=entry["metrics"],
        criterion=problem.criterion,
        residency=problem.residency,
        prefetch=problem.prefetch,
        command=str(run.provenance.get("command", "")),
        version=str(run.provenance.get("version", "")),
    )
    return replace(found, checkpoint=kept) if (kept / "config.json").is_file() else found


def describe(
    accelerator: Accelerator,
    workload: Workload,
    *,
    number: int = 1,
    workload_name: str | None = None,
    knobs: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    criterion: str = "edp",
    residency: str = "none",
    prefetch: bool = False,
    command: str = "",
    version: str = "",
) -> ExportDesign:
    """One accelerator and one model (its tables must hold one model) as an :class:`ExportDesign`."""
    workload = precision.workload_at_widths(workload, (accelerator.weight_bits, accelerator.activation_bits, accelerator.kv_bits))
    if workload.models is not None:
        raise UsageError(f"workload {workload.name!r} describes {workload.models} models; an export takes one")
    chips = accelerator.chips
    if chips > 1:  # the targets know one chip: it gets its share of every operation
        phases = [replace(phase, table=parallel.shares(phase.table, chips).table) for phase in workload.phases]
        workload, accelerator = replace(workload, phases=tuple(phases)), replace(accelerator, chips=1)
    products, others, notes, rows, other_rows = _collect(accelerator, workload, criterion)
    if chips > 1:
        notes = (f"this is one of {chips} chips with its share of every operation; the collectives between chips are not here", *notes)
    if not products:
        raise DseError(f"workload {workload.name!r} has no matrix product; there is nothing that the targets could run")
    return ExportDesign(
        number=number,
        workload_name=workload_name or workload.name,
        accelerator=accelerator,
        workload=workload,
        knobs=dict(knobs or {}),
        metrics=dict(metrics or {}),
        criterion=criterion,
        command=command,
        version=version,
        products=products,
        others=others,
        notes=notes,
        residency=residency,
        prefetch=prefetch,
        rows=rows,
        other_rows=other_rows,
    )


def _collect(
    accelerator: Accelerator, workload: Workload, criterion: str
) -> tuple[tuple[Product, ...], tuple[Other, ...], tuple[str, ...], dict[int, str], frozenset[int]]:
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    other: dict[str, list[float]] = {}
    notes: list[str] = []
    convolutions: list[str] = []
    other_rows: set[int] = set()
    rows: dict[int, tuple[Any, ...]] = {}
    before = 0
    hardware = accelerator.batch()
    for phase in workload.phases:
        table = phase.table
        shapes, index = table.distinct()
        unit = cost.unit_costs(shapes, hardware, criterion=cast("Criterion", criterion))
        latency = unit.latency_s[index, 0]
        bound = [unit.bound_names[int(code)] for code in unit.bound[index, 0]]
        for row, operation in enumerate(table.rows()):
            runs = float(np.asarray(operation.repeat)) * float(phase.runs)
            if runs == 0:
                continue
            parts = _products_of(operation)
            if not parts:
                name = operation.function or Kind(int(operation.kind)).name.lower()
                entry = other.setdefault(name, [0.0, 0.0])
                entry[0] += runs
                entry[1] += runs * float(latency[row])
                other_rows.add(before + row)
                continue
            if len(parts) > 1:
                notes.append(
                    f"fused attention {quoted(operation.name)} is given as its two products (scores and context) without causal mask, "
                    "window or softmax; the latency beside them is that of both together"
                )
            if operation.kind == Kind.CONV:
                convolutions.append(operation.name)
            if len(parts) == 1:
                rows[before + row] = parts[0][1]
            for suffix, key in parts:
                entry_ = found.setdefault(key, {"names": [], "runs": 0.0, "latency": float(latency[row]), "bound": bound[row]})
                entry_["names"].append(f"{phase.name}.{operation.name}{suffix}" if len(workload.phases) > 1 else operation.name + suffix)
                entry_["runs"] += runs
        before += len(table)
    if convolutions := list(dict.fromkeys(convolutions)):
        many = len(convolutions) > 1
        named = f"{len(convolutions)} convolutions, {quoted(convolutions[0])} to {quoted(convolutions[-1])}, are" if many else (
            f"convolution {quoted(convolutions[0])} is"
        )  # fmt: skip
        notes.append(f"{named} given as {'their im2col products' if many else 'its im2col product'}; the reuse of windows is not")
    taken: set[str] = set()
    products = tuple(
        Product(
            name=safe_name(entry["names"][0], taken),
            operations=tuple(entry["names"]),
            **dict(zip(_SHAPE_FIELDS, key, strict=True)),
            runs=entry["runs"],
            latency_s=entry["latency"],
            bound=entry["bound"],
        )
        for key, entry in found.items()
    )
    names = {key: product.name for key, product in zip(found, products, strict=True)}
    others = tuple(Other(name, *values) for name, values in other.items())
    return products, others, tuple(dict.fromkeys(notes)), {row: names[key] for row, key in rows.items()}, frozenset(other_rows)


_SHAPE_FIELDS = ("batch", "m", "n", "k", "second_is_weight", "input_bits", "weight_bits", "output_bits")


def _products_of(operation: Any) -> list[tuple[str, tuple[Any, ...]]]:
    """The products of an operation: [(suffix of its name, (batch, m, n, k, second is weight, bits of the three operands))]."""
    number = {name: int(np.asarray(getattr(operation, name))) for name in (
        "m", "n", "k", "batch", "groups", "input_bits", "weight_bits", "output_bits", "v_dim", "kv_share",
    )}  # fmt: skip
    bits = (number["input_bits"], number["weight_bits"], number["output_bits"])
    if operation.kind in (Kind.GEMM, Kind.CONV):
        weight = bool(operation.second_is_weight)
        m = number["batch"] * number["m"] if weight else number["m"]
        batch = number["groups"] if weight else number["batch"] * number["groups"]
        return [("", (batch, m, number["n"], number["k"], weight, *bits))]
    if operation.kind in (Kind.ATTENTION_PREFILL, Kind.ATTENTION_DECODE):
        share = number["kv_share"]
        batch, m = number["batch"] // share, number["m"] * share
        return [
            (".scores", (batch, m, number["n"], number["k"], False, *bits)),
            (".context", (batch, m, number["v_dim"], number["n"], False, *bits)),
        ]
    return []


def product_mappings(design: ExportDesign) -> tuple[dict[str, LoopNest], dict[str, float]]:
    """The best mapping of each product on the accelerator by the design's criterion, and its cycles: ({name: mapping}, {name: cycles})."""
    products = design.products
    sizes = [(p.batch, p.m, p.n, p.k) for p in products]
    shared = [p.second_is_weight and p.batch == 1 for p in products]
    found = mapping.search(
        sizes,
        shared,
        mapping_hardware(design.batch),
        operand_bits=np.array([(p.input_bits, p.weight_bits, p.output_bits) for p in products], dtype=np.float64),
        criterion=design.criterion,  # type: ignore[arg-type]
        return_mapping=True,
    )
    assert found.mapping is not None  # asked for
    names = design.batch.level_names
    nests = {p.name: loop_nest(found.mapping, sizes[i], names, shape=i, weights_shared=shared[i]) for i, p in enumerate(products)}
    return nests, {p.name: float(found.cycles[i, 0]) for i, p in enumerate(products)}


def axis_dimensions(mapping: LoopNest, rows: int, columns: int) -> tuple[tuple[str, int], tuple[str, int]]:
    """Which dimension the columns and the rows of the array carry, and how many units of it: ((columns), (rows)).

    The mapping says how many units work along m, n and k; each axis of the array carries one dimension, or both the same.
    """
    names = ("m", "n", "k")
    for column in range(3):
        for row in range(3):
            rest = [mapping.unroll[d] for d in range(3) if d not in (column, row)]
            if any(units != 1 for units in rest):
                continue
            if column == row:
                units = mapping.unroll[column]
                if units <= columns:
                    return (names[column], units), (names[row], 1)
                if units <= rows * columns and units % columns == 0:
                    return (names[column], columns), (names[row], units // columns)
            elif mapping.unroll[column] <= columns and mapping.unroll[row] <= rows:
                return (names[column], mapping.unroll[column]), (names[row], mapping.unroll[row])
    # An axis that is split between dimensions (a rule of the comparison profile) has no simpler form; the largest two stand.
    order = sorted(range(3), key=lambda d: -mapping.unroll[d])
    return (
        (names[order[0]], min(mapping.unroll[order[0]], columns)),
        (names[order[1]], min(mapping.unroll[order[1]], rows)),
    )
