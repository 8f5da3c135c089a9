"""Accelerators: one design (`Accelerator`) and many designs as arrays (`AcceleratorBatch`).

Both describe cores with an array of multiply-accumulate units each, a vector unit, and levels of memory from the
innermost to the DRAM. What a level costs in energy, area and leakage comes from the technology tables and the profile
unless the description says it.

`Accelerator` and `MemoryLevel` (levels.py) are the one table of fields: type, default and, as metadata, range, unit and place in a
file. Checks, files, batches, templates and the documentation loop over them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.fields import ArrayKind, Dataflow, Engine, Execution, Launch, TensorCore, choice, choices, number, rules, whole
from hw_models.accelerator.levels import MemoryLevel, check_fields, check_order
from hw_models.accelerator.resolve import Levels, resolved_columns
from hw_models.accelerator.toml import Form, load_toml
from hw_models.errors import HardwareError, bad_value, unknown_name
from hw_models.technology.closed_forms import peak_tops
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.profiles import profiles
from hw_models.technology.tables import NODE_RANGE_NM, REFERENCE_V

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator design; ``levels`` from the innermost to the DRAM.

    Everything but ``chips`` describes one chip with its DRAM.

    Attributes:
        cores: cores, each with one array and its share of the vector lanes.
        array_rows, array_columns: multiply-accumulate units of one core's array.
        register_bytes: registers of one multiply-accumulate unit.
        adder_tree: products that are added before their sum is registered (1: every unit has a register for its sum); bears on energy
            under profile `silicon` alone.
        vector_lanes: lanes of the vector units of all cores together.
        vector_buffer_bytes: SRAM that each core's vector unit has of its own (area and leakage only).
        word_bits: width of a word, in which bandwidths are counted.
        mac_bits: width of the operands that a multiply-accumulate unit and a lane take (None: a word).
        weight_bits, activation_bits, kv_bits: precision that the design imposes on weights, activations and KV cache (0: the
            workload's own).
        voltage_v, nominal_v: supply, and the one at which the tables hold. Their ratio alone bears on a figure: dynamic energy goes with
            its square, leakage with the ratio. In a file each is the other where one is left out, so that the tables hold as they are.
        area_mm2, leakage_w, mac_pj: values that replace those of the technology tables (None: the tables).
        profile: technology profile (`hw_models.technology.profiles`).
        gather_lanes: features that the gather unit looks up in a cycle; gather_outstanding: lines it can wait for at once;
            gather_line_bytes: bytes of a line it fetches (`hw_models.costs.sparse`).
        chips: equal chips that share each operation (tensor parallelism, `hw_models.costs.chips`).
        pipeline_stages, data_parallel: groups of ``chips`` that have a part of the layers each (`hw_models.costs.pipeline`), and such
            pipelines side by side: chips x pipeline_stages x data_parallel chips in all.
        microbatches: batches in flight in a pipeline (0: as many as it has stages).
        expert_parallel: chips of a stage, over replicas, that routed experts are dealt to (1: every expert is cut over ``chips``).
        node_chips: chips of a node (0: all); node_bytes_per_s, node_latency_s: one direction of a chip's link to other nodes.
        link_bytes_per_s: rate of a chip's links in one direction, all together; needed from two chips on.
        link_latency_s, link_fixed_s: time of a message before its first byte, and of starting a collective.
        link_pj_per_bit: energy of a bit that crosses a link.
        tdp_w: board power limit; where it is given, energy follows the power of boards (`hw_models.costs.board_power`) and
            ``leakage_w`` is what the idle board takes (0: energy from the technology tables).
        execution: what decides how operations run. The fields from here on belong to GPU and CPU:
        tensor_core, engine: how tensor cores are fed, and whose kernels run. launch: recorded as a graph, or each from the host.
        l2_partitions: parts of the last-level cache between which data cross.
        l2_bytes_per_s: measured read rate of the whole last-level cache (0: 64 bytes a cycle and core).
        rate_fp16 ... rate_int4: rate of a number format relative to bf16 (0: not in hardware).
        product_scale, product_fixed_s, vector_scale, vector_fixed_s: what `dse calibrate` found on the user's own device: kernels of
            products (attention included), and all others, take scale x the model's time + fixed.
    """

    name: str
    cores: int = field(metadata=whole(1, 1_000_000))
    array_rows: int = field(metadata=whole(1, 65_536, table=("array", "rows")))
    array_columns: int = field(metadata=whole(1, 65_536, table=("array", "columns")))
    vector_lanes: int = field(metadata=whole(1, 2**30, "lanes over all cores", table=("vector", "lanes")))
    levels: tuple[MemoryLevel, ...]
    frequency_hz: float = field(metadata=number(1e4, 2e10, "Hz"))
    voltage_v: float = field(metadata=number(0.2, 5.0, "V", like="nominal_v", otherwise=REFERENCE_V))
    nominal_v: float = field(metadata=number(0.2, 5.0, "V", like="voltage_v", otherwise=REFERENCE_V))
    node_nm: float = field(metadata=number(*NODE_RANGE_NM, "nm"))
    word_bits: int = field(default=8, metadata=whole(1, 64, "bits"))
    array_kind: ArrayKind = field(default=ArrayKind.DOT_PRODUCT, metadata=choice(ArrayKind, ("array", "kind"), needed=True))
    dataflow: Dataflow = field(default=Dataflow.ANY, metadata=choice(Dataflow, ("array", "dataflow")))
    mac_bits: int | None = field(default=None, metadata=whole(1, 64, "bits"))
    weight_bits: int = field(default=0, metadata=whole(0, 64, "bits (0: the workload's own)"))
    activation_bits: int = field(default=0, metadata=whole(0, 64, "bits (0: the workload's own)"))
    kv_bits: int = field(default=0, metadata=whole(0, 64, "bits (0: the workload's own)"))
    register_bytes: int = field(default=32, metadata=whole(0, 2**20, "bytes", table=("array", "register_bytes")))
    adder_tree: int = field(default=1, metadata=whole(1, 65_536, "products a sum", table=("array", "adder_tree")))
    vector_buffer_bytes: int = field(default=0, metadata=whole(0, 2**30, "bytes a core", table=("vector", "buffer_bytes")))
    mac_pj: float | None = field(default=None, metadata=number(1e-6, 1e6, "pJ"))
    area_mm2: float | None = field(default=None, metadata=number(1e-6, 1e6, "mm2"))
    leakage_w: float | None = field(default=None, metadata=number(0.0, 1e5, "W"))
    profile: str = "default"
    gather_lanes: int = field(default=1, metadata=whole(1, 65_536, "features a cycle", table=("gather", "lanes")))
    gather_outstanding: int = field(default=16, metadata=whole(1, 65_536, "lines", table=("gather", "outstanding")))
    gather_line_bytes: int = field(default=64, metadata=whole(4, 65_536, "bytes", table=("gather", "line_bytes")))
    chips: int = field(default=1, metadata=whole(1, 65_536))
    link_bytes_per_s: float = field(default=0.0, metadata=number(0.0, 1e14, "bytes/s"))
    link_latency_s: float = field(default=0.0, metadata=number(0.0, 1.0, "s"))
    link_fixed_s: float = field(default=0.0, metadata=number(0.0, 1.0, "s"))
    link_pj_per_bit: float = field(default=0.0, metadata=number(0.0, 1e4, "pJ/bit"))
    pipeline_stages: int = field(default=1, metadata=whole(1, 4096))
    data_parallel: int = field(default=1, metadata=whole(1, 4096))
    microbatches: int = field(default=0, metadata=whole(0, 4096))
    expert_parallel: int = field(default=1, metadata=whole(1, 65_536))
    node_chips: int = field(default=0, metadata=whole(0, 65_536))
    node_bytes_per_s: float = field(default=0.0, metadata=number(0.0, 1e14, "bytes/s"))
    node_latency_s: float = field(default=0.0, metadata=number(0.0, 1.0, "s"))
    tdp_w: float = field(default=0.0, metadata=number(0.0, 1e6, "W", table=("execution", "tdp_w")))
    execution: Execution = field(default=Execution.MAPPED, metadata=choice(Execution, ("execution", "model")))
    tensor_core: TensorCore = field(default=TensorCore.SYNCHRONOUS, metadata=choice(TensorCore, ("execution", "tensor_core")))
    engine: Engine = field(default=Engine.VLLM, metadata=choice(Engine, ("execution", "engine")))
    launch: Launch = field(default=Launch.GRAPH, metadata=choice(Launch, ("execution", "launch")))
    l2_partitions: int = field(default=1, metadata=whole(1, 64, table=("execution", "l2_partitions")))
    l2_bytes_per_s: float = field(default=0.0, metadata=number(0.0, 1e15, "bytes/s", table=("execution", "l2_bytes_per_s")))
    rate_fp16: float = field(default=1.0, metadata=number(0.0, 64.0, "of bf16", table=("execution", "fp16")))
    rate_tf32: float = field(default=0.0, metadata=number(0.0, 64.0, "of bf16", table=("execution", "tf32")))
    rate_fp32: float = field(default=0.0, metadata=number(0.0, 64.0, "of bf16", table=("execution", "fp32")))
    rate_fp8: float = field(default=0.0, metadata=number(0.0, 64.0, "of bf16", table=("execution", "fp8")))
    rate_int8: float = field(default=0.0, metadata=number(0.0, 64.0, "of bf16", table=("execution", "int8")))
    rate_fp4: float = field(default=0.0, metadata=number(0.0, 64.0, "of bf16", table=("execution", "fp4")))
    rate_int4: float = field(default=0.0, metadata=number(0.0, 64.0, "of bf16", table=("execution", "int4")))
    product_scale: float = field(default=1.0, metadata=number(1e-3, 1e3, "of the model's time", table=("calibration", "product_scale")))
    product_fixed_s: float = field(default=0.0, metadata=number(0.0, 1.0, "s", table=("calibration", "product_fixed_s")))
    vector_scale: float = field(default=1.0, metadata=number(1e-3, 1e3, "of the model's time", table=("calibration", "vector_scale")))
    vector_fixed_s: float = field(default=0.0, metadata=number(0.0, 1.0, "s", table=("calibration", "vector_fixed_s")))
    source: str = ""

    def __post_init__(self) -> None:
        check(self)

    @staticmethod
    def from_toml(path: str | Path) -> Accelerator:
        """Read one design from a TOML file; a missing, unknown or absurd field is an error naming file, field and
        remedy.
        """
        where = str(path)
        document = {key: value for key, value in load_toml(Path(path)).items() if key != "design"}
        if "template" in document:
            raise HardwareError(f"{where}: this file describes a space of template {document['template']!r}, not one design")
        flat, levels = FORM.flatten(document, where)
        if knobs := FORM.lists(flat, levels):
            size = math.prod(len(set(values)) for values in knobs.values())
            raise HardwareError(f"{where}: this file describes a space of {size} designs (knobs {', '.join(knobs)}), not one design")
        return Accelerator.of_fields(flat, levels, where)

    @staticmethod
    def of_fields(flat: Mapping[str, Any], levels: list[dict[str, Any]], where: str) -> Accelerator:
        """One design from the fields of a file as `Form.flatten` has them; ``where`` names the file in errors."""
        try:
            return Accelerator(**FORM.values(flat, levels, where))
        except HardwareError as error:
            raise error if str(error).startswith(where) else HardwareError(f"{where}: {error}") from None

    def to_toml(self) -> str:
        """This design as TOML text that `from_toml` reads back equal."""
        return FORM.text(self)

    def batch(self) -> AcceleratorBatch:
        """This design as a batch of one."""
        return AcceleratorBatch.of([self])

    def with_profile(self, profile: str) -> Accelerator:
        """The same design under another technology profile."""
        return replace(self, profile=profile)


FORM = Form(Accelerator, MemoryLevel)
NUMBERS = FORM.numbers
"""The number fields of an accelerator with their rules."""
COLUMNS = tuple(name for name in (*NUMBERS, *choices(Accelerator)) if name not in ("mac_pj", "area_mm2", "leakage_w"))
"""Fields that a batch holds as columns as they are; the three others replace what the tables say."""
LINKS = ("link_latency_s", "link_bytes_per_s", "link_pj_per_bit", "link_fixed_s")
"""Fields of a chip's links, in the order of `hw_models.costs.collectives.Link`."""


def check(a: Accelerator, where: str = "") -> None:
    """Raise HardwareError unless every field of ``a`` is in range and the levels make sense."""
    where = where or f"accelerator {a.name!r}"
    for name, rule in rules(type(a)).items():
        value = getattr(a, name)
        if value is not None:
            rule.check(name, value, where)
    if a.profile not in profiles():
        raise unknown_name("profile", a.profile, profiles(), where=where)
    check_fields(a.levels, where)
    if a.chips > 1 and a.link_bytes_per_s <= 0:
        allowed = f"a positive number of bytes/s where chips is {a.chips}"
        raise bad_value("link_bytes_per_s", a.link_bytes_per_s, allowed, where=where)
    _check_parallel(a, where)
    if a.execution != Execution.MAPPED and a.tdp_w <= 0:
        model = Execution(a.execution).name.lower()
        raise bad_value("execution.tdp_w", a.tdp_w, f"the power limit of the board in W where execution.model is {model!r}", where=where)
    if a.execution != Execution.MAPPED and len(a.levels) < 2:
        model = Execution(a.execution).name.lower()
        raise HardwareError(
            f"{where}: execution.model {model!r} needs a cache and a DRAM as the last two levels, got {len(a.levels)} level"
        )
    check_order(a.levels, where)


def _check_parallel(a: Accelerator, where: str) -> None:
    """Raise HardwareError unless groups of chips have links and experts can be dealt to them."""
    if a.pipeline_stages > 1 and a.link_bytes_per_s <= 0:
        allowed = f"a positive number of bytes/s where pipeline_stages is {a.pipeline_stages}"
        raise bad_value("link_bytes_per_s", a.link_bytes_per_s, allowed, where=where)
    check_experts(a.expert_parallel, a.chips, a.data_parallel, where)
    together = max(a.chips * a.pipeline_stages, a.expert_parallel)
    if 0 < a.node_chips < together and a.node_bytes_per_s <= 0:
        allowed = f"a positive number of bytes/s where {together} chips stand in nodes of {a.node_chips}"
        raise bad_value("node_bytes_per_s", a.node_bytes_per_s, allowed, where=where)


def check_experts(expert_parallel: int, chips: int, data_parallel: int, where: str = "") -> None:
    """Raise HardwareError unless experts can be dealt so: to ranks that divide a group of ``chips``, or to whole groups of replicas."""
    most = chips * data_parallel
    able = [n for n in range(1, most + 1) if chips % n == 0 or (n % chips == 0 and most % n == 0)]
    if expert_parallel not in able:
        allowed = f"one of {', '.join(map(str, able))} where chips is {chips} and data_parallel is {data_parallel}"
        closest = min(able, key=lambda n: abs(n - expert_parallel))
        raise bad_value("expert_parallel", expert_parallel, allowed, closest=closest, where=where)


@dataclass(frozen=True, eq=False)
class AcceleratorBatch:
    """Many designs with the same levels of memory; arrays of shape (points,), per level (points, levels).

    ``level_*`` run from the innermost level to the DRAM. Energies are in pJ, per word of ``word_bits``;
    ``array_kind`` and ``dataflow`` hold codes of `ArrayKind` and `Dataflow`. ``leakage_w`` is the power of a design
    that does nothing (idle power): SRAM leakage. ``area_mm2``, ``leakage_w``, ``tops`` and ``dram_bytes`` are those of
    all chips together, the other columns those of one chip. ``bottom_up_area``: the area is the technology tables', not given.
    """

    profile: str
    level_names: tuple[str, ...]
    level_kinds: tuple[str, ...]
    level_per_core: tuple[bool, ...]
    level_shared: tuple[bool, ...]
    level_double_buffered: tuple[bool, ...]
    level_access_bytes: tuple[int, ...]
    level_shared_bus: tuple[bool, ...]
    cores: IntArray
    array_rows: IntArray
    array_columns: IntArray
    array_kind: IntArray
    dataflow: IntArray
    register_bytes: IntArray
    adder_tree: IntArray
    vector_lanes: IntArray
    vector_buffer_bytes: IntArray
    word_bits: IntArray
    mac_bits: IntArray
    weight_bits: IntArray
    activation_bits: IntArray
    kv_bits: IntArray
    frequency_hz: FloatArray
    node_nm: FloatArray
    voltage_v: FloatArray
    nominal_v: FloatArray
    level_bytes: IntArray
    level_area_bytes: IntArray
    level_read_words_per_cycle: FloatArray
    level_write_words_per_cycle: FloatArray
    level_read_pj_per_word: FloatArray
    level_write_pj_per_word: FloatArray
    mac_pj: FloatArray
    register_read_pj_per_word: FloatArray
    register_write_pj_per_word: FloatArray
    area_mm2: FloatArray
    bottom_up_area: BoolArray
    leakage_w: FloatArray
    gather_lanes: IntArray
    gather_outstanding: IntArray
    gather_line_bytes: IntArray
    chips: IntArray
    link_bytes_per_s: FloatArray
    link_latency_s: FloatArray
    link_fixed_s: FloatArray
    link_pj_per_bit: FloatArray
    pipeline_stages: IntArray
    data_parallel: IntArray
    microbatches: IntArray
    expert_parallel: IntArray
    node_chips: IntArray
    node_bytes_per_s: FloatArray
    node_latency_s: FloatArray
    tdp_w: FloatArray
    execution: IntArray
    tensor_core: IntArray
    engine: IntArray
    launch: IntArray
    l2_partitions: IntArray
    l2_bytes_per_s: FloatArray
    rate_fp16: FloatArray
    rate_tf32: FloatArray
    rate_fp32: FloatArray
    rate_fp8: FloatArray
    rate_int8: FloatArray
    rate_fp4: FloatArray
    rate_int4: FloatArray
    product_scale: FloatArray
    product_fixed_s: FloatArray
    vector_scale: FloatArray
    vector_fixed_s: FloatArray
    names: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.cores)

    @property
    def levels(self) -> int:
        """Levels of memory, the DRAM included."""
        return len(self.level_names)

    @cached_property
    def tops(self) -> FloatArray:
        """Peak rate (points,) [10^12 operations/s], a multiply-accumulate counted as two."""
        macs = (self.all_chips * self.cores * self.array_rows * self.array_columns).astype(np.float64)
        return np.asarray(peak_tops(macs, self.frequency_hz))

    @property
    def dram_bytes(self) -> IntArray:
        """Capacity of the DRAM of all chips (points,) [bytes]."""
        return self.all_chips * self.level_bytes[:, -1]

    @property
    def die_mm2(self) -> FloatArray:
        """Area of one chip (points,) [mm2]."""
        return self.area_mm2 / self.all_chips

    @cached_property
    def all_chips(self) -> IntArray:
        """Chips of each design (points,): of all stages of all replicas."""
        return np.asarray(self.chips * self.pipeline_stages * self.data_parallel)

    @cached_property
    def in_flight(self) -> IntArray:
        """Batches that a design works on at a time (points,): those of each pipeline, over all replicas."""
        return np.asarray(np.where(self.microbatches > 0, self.microbatches, self.pipeline_stages) * self.data_parallel)

    @property
    def one_chip(self) -> bool:
        """Whether every design is a single chip."""
        return bool((self.all_chips == 1).all())

    @property
    def dram_bytes_per_s(self) -> FloatArray:
        """Read bandwidth of one chip's DRAM (points,) [bytes/s]."""
        return np.asarray(self.level_read_words_per_cycle[:, -1] * (self.word_bits / 8) * self.frequency_hz)

    def take(self, index: npt.ArrayLike) -> AcceleratorBatch:
        """The designs at ``index`` (indices, slice result or mask over the points), in that order."""
        chosen = np.asarray(index)
        chosen = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64)
        picked: dict[str, Any] = {
            f.name: np.ascontiguousarray(getattr(self, f.name)[chosen])
            for f in fields(self)
            if isinstance(getattr(self, f.name), np.ndarray)
        }
        names = tuple(self.names[i] for i in chosen) if self.names else ()
        return replace(self, **picked, names=names)

    @staticmethod
    def build(
        *,
        profile: str,
        levels: Levels,
        columns: Mapping[str, npt.NDArray[Any]],
        overrides: Mapping[str, FloatArray] | None = None,
        names: tuple[str, ...] = (),
    ) -> AcceleratorBatch:
        """Designs from columns, with energies, area and leakage from the tables.

        Args:
            profile: technology profile.
            levels: what the levels of all designs have in common.
            columns: fields of `Accelerator` (points,), where left out their defaults; ``level_bytes``,
                ``level_read_words_per_cycle``, ``level_write_words_per_cycle`` (points, levels) and, where area and leakage are charged
                for another capacity, ``level_area_bytes``.
            overrides: mac_pj, area_mm2, leakage_w (points,), level_read_pj_per_word, level_write_pj_per_word (points, levels), all of
                one chip: they replace what the tables say where they are finite.
            names: of the designs, for errors.
        """
        count = len(columns["cores"])
        full: dict[str, npt.NDArray[Any]] = {"level_area_bytes": columns["level_bytes"], **columns}
        for f in fields(Accelerator):
            if f.name in COLUMNS and f.name not in full:
                full[f.name] = full["word_bits"] if f.default is None else np.full(count, f.default, dtype=column_type(f.name))
        resolved: dict[str, Any] = dict(resolved_columns(profile, levels, full))
        for key, value in (overrides or {}).items():
            resolved[key] = np.where(np.isfinite(value), value, resolved[key])
        given = (overrides or {}).get("area_mm2", np.full(count, np.nan))
        resolved["bottom_up_area"] = ~np.isfinite(np.broadcast_to(given, (count,)))
        for key in ("area_mm2", "leakage_w"):
            resolved[key] = resolved[key] * (full["chips"] * full["pipeline_stages"] * full["data_parallel"])
        shared: dict[str, Any] = {f"level_{f.name}": getattr(levels, f.name) for f in fields(Levels)}
        arrays: dict[str, Any] = full | resolved
        return AcceleratorBatch(profile=profile, names=names, **shared, **arrays)

    @staticmethod
    def of(accelerators: Sequence[Accelerator]) -> AcceleratorBatch:
        """Collect designs with the same level names, kinds and sharing, and the same profile, into arrays."""
        if not accelerators:
            raise HardwareError("a batch of accelerators needs at least one design, got none")
        _check_alike(accelerators)
        first = accelerators[0]

        def per_level(name: str) -> FloatArray:
            values = [[getattr(v, name) for v in a.levels] for a in accelerators]
            return np.array([[np.nan if v is None else float(v) for v in row] for row in values], dtype=np.float64)

        def maybe(name: str) -> FloatArray:
            values = [getattr(a, name) for a in accelerators]
            return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)

        columns: dict[str, npt.NDArray[Any]] = {}
        for name in COLUMNS:
            values = [getattr(a, name) for a in accelerators]
            if name == "mac_bits":
                values = [a.mac_bits or a.word_bits for a in accelerators]
            columns[name] = np.array(values, dtype=column_type(name))
        area_bytes = [[v.bytes if v.area_bytes is None else v.area_bytes for v in a.levels] for a in accelerators]
        columns |= {
            "level_bytes": per_level("bytes").astype(np.int64),
            "level_area_bytes": np.array(area_bytes, dtype=np.int64),
            "level_read_words_per_cycle": per_level("read_words_per_cycle"),
            "level_write_words_per_cycle": per_level("write_words_per_cycle"),
        }
        return AcceleratorBatch.build(
            profile=first.profile,
            levels=_levels_of(first),
            columns=columns,
            names=tuple(a.name for a in accelerators),
            overrides={name: maybe(name) for name in ("mac_pj", "area_mm2", "leakage_w")}
            | {f"level_{name}": per_level(name) for name in ("read_pj_per_word", "write_pj_per_word")},
        )

    def accelerator(self, index: int, *, name: str, source: str = "") -> Accelerator:
        """One design as a record whose `batch()` holds the same numbers."""
        return self.take([index]).accelerators([name], source=source)[0]

    def accelerators(self, names: Sequence[str], *, source: str = "") -> list[Accelerator]:
        """All designs as records, one name each; `AcceleratorBatch.of` them holds the same numbers."""
        records = [self._record(index, name, source) for index, name in enumerate(names)]
        # A family may have rules of its own (the area of datacenter) and a board figures of its own (its idle power): the record then
        # carries what the tables would not give back.
        told = AcceleratorBatch.of(records)
        return [self._as_charged(record, told, index) for index, record in enumerate(records)]

    def _as_charged(self, record: Accelerator, told: AcceleratorBatch, index: int) -> Accelerator:
        """``record`` with the values of design ``index`` that ``told``, the batch of the records, has otherwise."""
        own: dict[str, Any] = {}
        for name, chips in (("area_mm2", int(self.all_chips[index])), ("leakage_w", int(self.all_chips[index])), ("mac_pj", 1)):
            if (value := float(getattr(self, name)[index])) != float(getattr(told, name)[index]):
                own[name] = value / chips
        words = ("read_pj_per_word", "write_pj_per_word")
        levels: list[dict[str, Any]] = [
            {n: float(v) for n in words if (v := getattr(self, f"level_{n}")[index, i]) != getattr(told, f"level_{n}")[index, i]}
            for i in range(self.levels)
        ]
        if any(levels):
            own["levels"] = tuple(replace(level, **other) if other else level for level, other in zip(record.levels, levels, strict=True))
        return replace(record, **own) if own else record

    def _record(self, index: int, name: str, source: str) -> Accelerator:
        """A design with the area that the tables give it."""

        def plain(value: np.float64) -> int | float:
            return int(value) if value == int(value) else float(value)

        levels = tuple(
            MemoryLevel(
                name=self.level_names[i],
                bytes=int(self.level_bytes[index, i]),
                read_words_per_cycle=plain(self.level_read_words_per_cycle[index, i]),
                write_words_per_cycle=plain(self.level_write_words_per_cycle[index, i]),
                kind=self.level_kinds[i],
                per_core=self.level_per_core[i],
                shared=self.level_shared[i],
                double_buffered=self.level_double_buffered[i],
                shared_bus=self.level_shared_bus[i],
                access_bytes=self.level_access_bytes[i],
                area_bytes=None if self.level_area_bytes[index, i] == self.level_bytes[index, i] else int(self.level_area_bytes[index, i]),
            )
            for i in range(self.levels)
        )
        enumerated = choices(Accelerator)
        values: dict[str, Any] = {key: getattr(self, key)[index].item() for key in COLUMNS}
        values |= {key: what.kind(values[key]) for key, what in enumerated.items()}
        return Accelerator(name=name, levels=levels, profile=self.profile, source=source, **values)


def column_type(name: str) -> type:
    """The type of a field's column: whole numbers and enumerations are int64."""
    return np.float64 if name in NUMBERS and not NUMBERS[name].whole else np.int64


def given_columns(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The columns that bear the name of a field, as a batch holds them: names of enumerations as codes."""
    enumerated = choices(Accelerator)
    found: dict[str, npt.NDArray[Any]] = {}
    for name in COLUMNS:
        if name in columns:
            column = columns[name]
            found[name] = (
                enumerated[name].codes(name, column) if name in enumerated else np.ascontiguousarray(column, dtype=column_type(name))
            )
    return found


def _levels_of(a: Accelerator) -> Levels:
    """What the levels of a design are, by the rules of its profile."""
    levels = Levels(
        names=tuple(v.name for v in a.levels),
        kinds=tuple(v.kind for v in a.levels),
        per_core=tuple(v.per_core for v in a.levels),
        shared=tuple(v.shared for v in a.levels),
        double_buffered=tuple(v.double_buffered for v in a.levels),
        access_bytes=tuple(v.access_bytes for v in a.levels),
        shared_bus=tuple(v.shared_bus for v in a.levels),
    )
    if find_profile(a.profile).operand_buffers:
        levels = replace(levels, shared=(False, *levels.shared[1:]), double_buffered=(False,) * len(levels.shared))
    return levels


def _check_alike(accelerators: Sequence[Accelerator]) -> None:
    """Raise HardwareError unless the designs agree in what one batch has once."""
    first = accelerators[0]
    said = {
        "names": "level names",
        "kinds": "level kinds",
        "per_core": "per-core levels",
        "double_buffered": "double buffering",
        "access_bytes": "access widths",
        "shared": "shared levels",
        "shared_bus": "shared buses",
    }
    expected = _levels_of(first)
    for other in accelerators[1:]:
        pairs: list[tuple[str, object, object]] = [("profile", other.profile, first.profile)]
        pairs += [(words, getattr(_levels_of(other), key), getattr(expected, key)) for key, words in said.items()]
        for what, value, wanted in pairs:
            if value != wanted:
                raise HardwareError(
                    f"designs of one batch must agree in their {what}: {other.name!r} has {value}, {first.name!r} has {wanted}"
                )
