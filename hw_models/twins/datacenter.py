"""Designs of the `datacenter` family by closed forms: costs of millions of designs a second, and gradients of them (torch).

Vector operations, area, leakage, clock, peak rate and the energies of all accesses are the formulas that cost a design exactly
(`vector_unit`, `assemble_die`, the tables). Matrix products, whose mapping is searched, take the bounds of
`hw_models.twins.product_bounds`. With the namespace of numpy the cost is a screen for large numbers of designs; with torch's relaxed
one it has gradients in every knob but the node, which is an enumerated choice (`hw_models.twins.technology`). What it finds is costed
exactly afterwards. Measured against the exact cost: docs/models/hardware.md.

Several chips deal an operation and tell each other as in `hw_models.costs.chips`; a number of chips between two counts is divided by
as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.fields import ArrayKind
from hw_models.costs import precision
from hw_models.costs.chips import chips_an_entry, dealing, largest_share
from hw_models.costs.products import product_shapes
from hw_models.costs.vector import check_kinds, lane_pj, vector_work
from hw_models.costs.vector_unit import LevelRates, VectorWork, vector_unit
from hw_models.errors import HardwareError, unknown_name
from hw_models.spaces.datacenter import (
    GA100_NM,
    NOMINAL_V,
    SRAM_PORT_BYTES,
    assemble_die,
)
from hw_models.technology.closed_forms import (
    clock_hz,
    core_words_per_cycle,
    dram_word_pj,
    energy_j,
    link_j,
    logic_supply_v,
    mac_scale,
    messages_s,
    peak_tops,
    sram_leakage_w,
    sram_word_pj,
    words_per_cycle,
)
from hw_models.technology.floorplan import floorplan_mm2
from hw_models.technology.namespace import NUMPY, Namespace
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.tables import REFERENCE_V, dram, logic, logic_area, logic_scale
from hw_models.twins.product_bounds import ArrayRates, ProductWork, product_costs
from hw_models.twins.technology import sram
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable, Parallel

if TYPE_CHECKING:
    from hw_models.spaces.template import Template

Tensor = Any
FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

DRAM_KIND = "hbm2"
# Knobs and settings that the closed forms read as numbers.
NUMBERS = (
    *("cores", "array_rows", "array_columns", "register_bytes", "core_sram_kib", "shared_sram_mib", "hbm_stacks", "node_nm"),
    *("nominal_frequency_hz", "voltage_v", "word_bits", "mac_bits", "vector_lanes_per_core", "shared_words_per_cycle"),
    *("hbm_gib_per_stack", "hbm_bytes_per_s_per_stack", "weight_bits", "activation_bits", "kv_bits", "chips", "links"),
    *("link_bytes_per_s_per_link", "link_latency_s", "link_fixed_s", "link_pj_per_bit"),
)


@dataclass(frozen=True)
class DatacenterCost:
    """Arrays or tensors (points,): latency [s], energy [J] with leakage, area of all dies and of one [mm2], leakage [W], peak
    rate [10^12 operations/s], capacity of the DRAM [bytes], clock [Hz], chips. All but the clock and one die are of all chips.
    """

    latency_s: Tensor
    energy_j: Tensor
    area_mm2: Tensor
    die_mm2: Tensor
    leakage_w: Tensor
    tops: Tensor
    dram_bytes: Tensor
    frequency_hz: Tensor
    chips: Tensor


@dataclass(frozen=True)
class _Hardware:
    """Columns (points,) that follow from the knobs, of one chip."""

    chips: Tensor
    link: dict[str, Tensor]

    array: ArrayRates
    frequency_hz: Tensor
    word_bits: Tensor
    mac_bits: Tensor
    lane_pj: Tensor
    lanes: Tensor
    levels: list[LevelRates]
    area_mm2: Tensor
    leakage_w: Tensor
    dram_bytes: Tensor


class DatacenterTwin:
    """Closed-form cost of the models of a table on designs of a `datacenter` template."""

    def __init__(self, table: OperationTable, template: Template, *, runs: npt.ArrayLike = 1.0) -> None:
        """``table``: one model or several; ``runs`` (rows,): how often each row's phase runs.

        Raises HardwareError for another family of designs, fused attention, designs whose settings are names that differ from
        point to point, or rows that the vector unit does not cost.
        """
        if template.closed_forms != "datacenter":
            raise HardwareError(f"template {template.name} is not of the datacenter family, whose closed forms these are")
        if (known := find_profile(template.profile)).operand_buffers or known.logic != "accelergy":
            raise HardwareError(f"the closed forms of datacenter have no profile {template.profile!r}; use 'default'")
        if np.isin(table.kind, ATTENTION).any():
            raise HardwareError("the closed forms have no fused attention: build the workload with fused_attention=False")
        for name in ("array_kind", "dataflow"):
            if name in template.knobs:
                raise HardwareError(f"{name} is a knob here; the closed forms need it as a setting")
        if ArrayKind[str(template.settings["array_kind"]).upper()] is not ArrayKind.DOT_PRODUCT:
            raise HardwareError("the closed forms have arrays of kind dot_product only; fill and drain are not in them")
        self.template = template
        self.settings = {name: float(value) for name, value in template.settings.items() if name in NUMBERS}
        widths = tuple(int(self.settings.get(name, 0)) for name in ("weight_bits", "activation_bits", "kv_bits"))
        shapes, index = table.distinct(parallel=True)
        shapes = precision.at_widths(shapes, (widths[0], widths[1], widths[2]))
        rows = len(table)
        self.index: IntArray = index.reshape(-1, rows)
        self.models = len(self.index)
        self.weight: FloatArray = np.broadcast_to(table.repeat * np.asarray(runs, dtype=np.float64), (self.models, rows))
        products, told = np.isin(table.kind, PRODUCTS), table.kind == Kind.COLLECTIVE
        self._product_rows, self._vector_rows = np.flatnonzero(products), np.flatnonzero(~products & ~told)
        self._told_rows = np.flatnonzero(told | np.isin(table.parallel, (Parallel.ROW, Parallel.GATHERED)))
        self._products = _product_columns(shapes)
        self._vectors = _vector_columns(shapes)
        self._exchanges = _exchange_columns(shapes)

    def cost(self, knobs: Mapping[str, Tensor], models: npt.ArrayLike = 0, *, xp: Namespace = NUMPY) -> DatacenterCost:
        """Cost of model ``models`` (points,) or () of the table on designs given by their knobs (points,).

        Raises HardwareError for a missing or unknown knob, or a node above 22 nm.
        """
        hardware = self._hardware(knobs, xp)
        count = int(hardware.chips.shape[0])
        chosen = np.broadcast_to(np.asarray(models, dtype=np.int64), (count,))
        index, weight = self.index[chosen].T, self.weight[chosen].T
        latency, energy = xp.asarray(np.zeros(count)), xp.asarray(np.zeros(count))
        for rows, columns, cost_of in (
            (self._product_rows, self._products, _products),
            (self._vector_rows, self._vectors, _vectors),
            (self._told_rows, self._exchanges, _exchanges),
        ):
            if len(rows):
                at = index[rows]
                time, joule = cost_of(xp, {name: xp.asarray(column[at]) for name, column in columns.items()}, hardware)
                runs = xp.asarray(weight[rows])
                latency, energy = latency + (time * runs).sum(0), energy + (joule * runs).sum(0)
        chips = hardware.chips
        leakage = hardware.leakage_w * chips
        return DatacenterCost(
            latency_s=latency,
            energy_j=energy_j(energy, leakage, latency),
            area_mm2=hardware.area_mm2 * chips,
            die_mm2=hardware.area_mm2,
            leakage_w=leakage,
            tops=peak_tops(chips * hardware.array.cores * hardware.array.units, hardware.frequency_hz),
            dram_bytes=hardware.dram_bytes * chips,
            frequency_hz=hardware.frequency_hz,
            chips=chips,
        )

    def _hardware(self, knobs: Mapping[str, Tensor], xp: Namespace) -> _Hardware:
        known = (*self.template.knobs, *(name for name in self.settings if name not in self.template.knobs))
        for name in knobs:
            if name not in known:
                raise unknown_name("knob", name, known)
        for name in NUMBERS:
            if name not in knobs and name not in self.settings:
                raise HardwareError(f"knob {name} is missing: a datacenter design takes {', '.join(self.template.knobs)}")
        k = {name: xp.asarray(knobs[name] if name in knobs else self.settings[name]) for name in NUMBERS}
        count = max(int(value.shape[0]) if value.ndim else 1 for value in k.values())
        k = {name: value + xp.asarray(np.zeros(count)) for name, value in k.items()}
        node = _numbers(k["node_nm"])
        word_bits, mac_bits = k["word_bits"], k["mac_bits"]
        cores, units = k["cores"], k["array_rows"] * k["array_columns"]
        core_bytes, shared_bytes = k["core_sram_kib"] * 1024.0, k["shared_sram_mib"] * 1024.0**2
        register_bytes = k["register_bytes"] * units
        ratio = k["voltage_v"] / NOMINAL_V
        supply = logic_supply_v(ratio)
        nominal = logic_scale(xp, "delay", node, xp.asarray(np.full(count, REFERENCE_V)))
        frequency = clock_hz(k["nominal_frequency_hz"], logic_scale(xp, "delay", node, supply), nominal)
        port = SRAM_PORT_BYTES

        def of(quantity: Any, size: Tensor) -> Tensor:
            return sram(xp, quantity, size, node, port)

        mac, unit, lane = logic("mac"), logic("array_register"), logic("vector_register")
        logic_um2 = xp.asarray(logic_area(node)) * (mac_bits / 8.0)
        tables = floorplan_mm2(
            cores=cores,
            macs_per_core=units,
            lanes=cores * k["vector_lanes_per_core"],
            mac_um2=(mac.area_um2 + unit.area_um2) * logic_um2,
            lane_um2=(mac.area_um2 + lane.area_um2) * logic_um2,
            core_sram_um2=of("area_um2", core_bytes) + of("area_um2", register_bytes),
            shared_sram_um2=0.0,
        )
        parts = assemble_die(
            core_tables_mm2=tables,
            shared_table_mm2=of("area_um2", shared_bytes) * 1e-6,
            logic_area_relative=xp.asarray(logic_area(node) / float(logic_area(GA100_NM))),
            hbm_stacks=k["hbm_stacks"],
            links=k["links"],
        )
        area = parts["cores"]
        for name, part in parts.items():
            if name != "cores":
                area = area + part
        leakage = sram_leakage_w(cores, of("leakage_w", core_bytes), of("leakage_w", shared_bytes), ratio)
        energy = mac_scale(mac_bits, logic_scale(xp, "energy", node, supply))
        hbm_pj = dram_word_pj(dram(DRAM_KIND).pj_per_byte, word_bits / 8.0)
        hbm_words = words_per_cycle(k["hbm_stacks"] * k["hbm_bytes_per_s_per_stack"], word_bits, frequency)

        def word_pj(quantity: Any, size: Tensor) -> Tensor:
            return sram_word_pj(of(quantity, size), word_bits / 8.0, port, ratio)

        held = k["hbm_stacks"] * k["hbm_gib_per_stack"] * 1024.0**3
        core_words = core_words_per_cycle(k["array_rows"], k["array_columns"]) * cores
        levels = [
            LevelRates(core_bytes * 8.0, core_words, core_words, word_pj("read_pj", core_bytes), word_pj("write_pj", core_bytes)),
            LevelRates(
                shared_bytes * 8.0,
                k["shared_words_per_cycle"],
                k["shared_words_per_cycle"],
                word_pj("read_pj", shared_bytes),
                word_pj("write_pj", shared_bytes),
            ),
            LevelRates(held * 8.0, hbm_words, hbm_words, hbm_pj, hbm_pj),
        ]
        return _Hardware(
            chips=k["chips"],
            link={
                "bytes_per_s": k["links"] * k["link_bytes_per_s_per_link"],
                **{name: k[f"link_{name}"] for name in ("latency_s", "fixed_s", "pj_per_bit")},
            },
            array=ArrayRates(
                cores=cores,
                units=units,
                register_words=k["register_bytes"] * 8.0 / word_bits,
                mac_pj=mac.energy_pj * energy,
                register_read_pj=unit.energy_pj * energy,
                register_write_pj=unit.write_energy_pj * energy,
            ),
            frequency_hz=frequency,
            word_bits=word_bits,
            mac_bits=mac_bits,
            lane_pj=lane_pj(mac.energy_pj * energy),
            lanes=cores * k["vector_lanes_per_core"],
            levels=levels,
            area_mm2=area,
            leakage_w=leakage,
            dram_bytes=held,
        )


def _numbers(values: Tensor) -> FloatArray:
    """Plain numbers of an array or a tensor."""
    return np.asarray(values.detach().numpy() if hasattr(values, "detach") else values, dtype=np.float64)


def _product_columns(shapes: OperationTable) -> dict[str, FloatArray]:
    """Sizes, operand widths and how chips divide the shapes (shapes,); rows of other operations are not read."""
    rows = np.flatnonzero(np.isin(shapes.kind, PRODUCTS))
    table = shapes.take(rows)
    sizes, shared, bits, expansion = product_shapes(table)
    batch, m = sizes[:, 0], sizes[:, 1]
    dealt = dealing(table)
    columns = {
        "batch": np.where(shared, 1, batch),
        "m": np.where(shared, batch * m, m),
        "n": sizes[:, 2],
        "k": sizes[:, 3],
        "input_bits": bits[:, 0] / expansion,
        "second_bits": bits[:, 1],
        "output_bits": bits[:, 2],
        "deal_k": dealt.k,
        "deal_n": dealt.n,
        "deal_batch": dealt.groups | dealt.entries,
        "deal_m": dealt.entries,
    }
    return {name: _spread(column, rows, len(shapes)) for name, column in columns.items()}


def _spread(column: npt.NDArray[Any], rows: IntArray, count: int) -> FloatArray:
    """A column of some rows among zeros (count,)."""
    full = np.zeros(count)
    full[rows] = column
    return full


def _vector_columns(shapes: OperationTable) -> dict[str, FloatArray]:
    """The work of vector operations (shapes,), the size that chips deal, and whether that is a row's."""
    rows = np.flatnonzero(~np.isin(shapes.kind, PRODUCTS) & (shapes.kind != Kind.COLLECTIVE))
    columns = {name: np.zeros(len(shapes)) for name in (*VectorWork.__dataclass_fields__, "dealt", "deal_rows", "deal_columns")}
    if not len(rows):
        return columns
    table = shapes.take(rows)
    check_kinds(table)
    for name, column in vars(vector_work(table, dram(DRAM_KIND).burst_bytes)).items():
        columns[name][rows] = column[:, 0]
    dealt = dealing(table)
    columns["dealt"][rows] = np.where(dealt.vector_rows, table.m, table.n)
    columns["deal_rows"][rows], columns["deal_columns"][rows] = dealt.vector_rows, dealt.vector_columns
    return columns


def _exchange_columns(shapes: OperationTable) -> dict[str, FloatArray]:
    """Bytes of the collective behind the shapes (shapes,), and whether every chip's sum goes back to all."""
    own = shapes.kind == Kind.COLLECTIVE
    behind = np.where(shapes.parallel == Parallel.ROW, "all_reduce", "all_gather")
    return {
        "size": -(-(shapes.row_output_elements() * shapes.output_bits) // 8) * 1.0,
        "reduce": (np.where(own, shapes.function, behind) == "all_reduce").astype(np.float64),
    }


def _shared_by(xp: Namespace, size: Tensor, deal: Tensor, chips: Tensor) -> tuple[Tensor, Tensor]:
    """The largest share of ``size`` where it is dealt, and how many chips have one (1 where it is not)."""
    share, sharers = largest_share(xp, size, 1.0 + deal * (chips - 1.0))
    return share, deal * sharers + (1.0 - deal)


def _at_work(dealt: Tensor, sharers: Tensor, chips: Tensor) -> Tensor:
    """Chips that work on a row: those that have a share, or every one on all of it."""
    return dealt * sharers + (1.0 - dealt) * chips


def _exchanges(xp: Namespace, c: Mapping[str, Tensor], hw: _Hardware) -> tuple[Tensor, Tensor]:
    """Seconds and energy [J] of collectives (rows, points), as `hw_models.costs.collectives` has all-gather and all-reduce."""
    others = hw.chips - 1.0
    rate, latency = hw.link["bytes_per_s"], hw.link["latency_s"]
    around = messages_s(others, others * xp.ceil(c["size"] / hw.chips), latency, rate)
    depth = 2.0 * xp.log(hw.chips) / np.log(2.0)
    tree = messages_s(depth, depth * c["size"], latency, rate)
    steps = c["reduce"] * xp.minimum(2.0 * around, tree) + (1.0 - c["reduce"]) * around
    # Between one chip and two the launch grows with the second.
    time = steps + hw.link["fixed_s"] * xp.minimum(others, 0.0 * others + 1.0)
    return time, link_j((1.0 + c["reduce"]) * others * c["size"], hw.link["pj_per_bit"])


def _vectors(xp: Namespace, c: Mapping[str, Tensor], hw: _Hardware) -> tuple[Tensor, Tensor]:
    """Seconds and energy [J] of vector operations (rows, points)."""
    dealt = c["deal_rows"] + c["deal_columns"]
    size = c["dealt"] + (1.0 - dealt)
    largest, sharers = _shared_by(xp, size, dealt, hw.chips)
    share = largest / size
    of_rows, of_columns = 1.0 + c["deal_rows"] * (share - 1.0), 1.0 + c["deal_columns"] * (share - 1.0)
    part = of_rows * of_columns
    work = {name: c[name] for name in VectorWork.__dataclass_fields__}
    work |= {name: c[name] * part for name in ("elements", "bits_in", "bits_out")}
    work |= {"rows": c["rows"] * of_rows, "row_bits": c["row_bits"] * of_columns}
    found = vector_unit(
        xp,
        VectorWork(**work),
        lanes=hw.lanes,
        lane_bits=hw.mac_bits,
        lane_pj=hw.lane_pj,
        word_bits=hw.word_bits,
        frequency_hz=hw.frequency_hz,
        levels=hw.levels,
    )
    longest = found.lanes_s
    for time in found.level_s:
        longest = xp.maximum(longest, time)
    return longest, found.energy_j * _at_work(dealt, sharers, hw.chips)


def _products(xp: Namespace, c: Mapping[str, Tensor], hw: _Hardware) -> tuple[Tensor, Tensor]:
    """Seconds and energy [J] of products (rows, points) on each design (points,); see the module."""
    chips = hw.chips
    k, on_k = _shared_by(xp, c["k"], c["deal_k"], chips)
    n, on_n = _shared_by(xp, c["n"], c["deal_n"], chips)
    batch, on_batch = _shared_by(xp, c["batch"], c["deal_batch"], chips)
    m, on_m = _shared_by(xp, c["m"], c["deal_m"], chips_an_entry(xp, chips, c["batch"]))
    at_work = _at_work(c["deal_k"] + c["deal_n"] + c["deal_batch"], on_k * on_n * on_batch * on_m, chips)
    inputs = batch * m * k * c["input_bits"] / hw.word_bits
    second = batch * k * n * c["second_bits"] / hw.word_bits
    outputs = batch * m * n * c["output_bits"] / hw.word_bits
    core, shared, main = hw.levels
    cycles, energy = product_costs(
        xp,
        ProductWork(batch, m, n, k, inputs, second, outputs),
        hw.array,
        core=core,
        shared=shared,
        main=main,
        word_bits=hw.word_bits,
    )
    return cycles / hw.frequency_hz, energy * at_work * 1e-12
