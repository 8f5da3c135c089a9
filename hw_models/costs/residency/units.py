"""Unit costs of a step under a residency: latency, energy, and every word that passes the DRAM with its cause.

    product      the mapping search with the resident operands and the room that is left (docs/models/mapping.md); what its epilogue
                 does runs beside it: the further operands pass every level, the lanes work while the arrays do
    vector work  the closed form of `hw_models.costs.vector`, in which a resident operand is not read from the DRAM, nor written to
                 the level that holds it, and a result that stays is not written to the DRAM, nor read for it
    attention    the closed form of `hw_models.costs.attention`, likewise for queries, keys, values and the result; the tiles
                 of queries have the room that is left

An operand that is loaded whole adds one read from the DRAM and one write into the level; a result that stays and is stored adds one
read there and one write to the DRAM. With nothing resident each is the cost of `unit_costs` to the last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from dse_kernels import mapping, residency

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs import attention, products, vector
from hw_models.costs.mapping import mapping_hardware
from hw_models.costs.residency.steps import Step
from hw_models.costs.unit_costs import Criterion
from hw_models.costs.vector_unit import VectorWork, transfer_cycles
from hw_models.technology.namespace import NUMPY
from hw_models.technology.tables import dram
from workloads.ops import ATTENTION, PRODUCTS, Kind, OperationTable, of_kinds

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CAUSES = ("inputs", "weights", "cache", "outputs", "partial_sums", "loads", "stores", "gathers")
"""Why a word passes the DRAM: activations that are streamed, parameters, a KV cache, results that are written, partial sums that do
not fit, tensors that are loaded whole to be kept, results that stay and are also written, and rows of a table."""


@dataclass(frozen=True)
class Condition:
    """How a step runs, all that its cost depends on; see `states.Variant`. ``pinned``: its parameters are on chip. ``own_bits``: of its
    parameters that it loads whole; ``holds``: they are held while it runs, by this tile or those before it.
    """

    resident: tuple[bool, ...]
    keeps: bool
    stores: bool
    held_bits: int
    loaded_bits: int
    pinned: bool = False
    own_bits: int = 0
    holds: bool = False


@dataclass(frozen=True, eq=False)
class StepCosts:
    """Costs of one step in several conditions: arrays (conditions, points); ``words`` (conditions, points, causes).

    ``array_s``, ``vector_s``, ``dram_s``: busy times. ``bound``: 0 the array, 1 + level, and 1 + levels the vector unit.
    """

    latency_s: FloatArray
    energy_j: FloatArray
    array_s: FloatArray
    vector_s: FloatArray
    dram_s: FloatArray
    words: FloatArray
    bound: npt.NDArray[np.int8]


@dataclass(eq=False)
class Machine:
    """Designs that keep tensors in the last level below the DRAM, and what a cost asks of them, prepared once."""

    hardware: AcceleratorBatch
    criterion: Criterion
    threads: int
    target: Any = field(init=False)
    rates: list[Any] = field(init=False)
    capacity_bits: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.target = mapping_hardware(self.hardware)
        self.rates = vector.level_rates(self.hardware)
        self.capacity_bits = np.asarray(self.hardware.level_bytes[:, -2] * 8.0, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.hardware)

    @cached_property
    def _columns(self) -> tuple[Any, FloatArray, FloatArray]:
        """The designs as the kernel takes them, but for attention."""
        hw = self.hardware
        units = {"frequency_hz": hw.frequency_hz, "lanes": hw.vector_lanes, "lane_bits": hw.mac_bits, "lane_pj": vector.lane_pj(hw.mac_pj)}
        rates = np.stack([np.stack([getattr(level, name)[0] for name in residency.RATES], axis=-1) for level in self.rates], axis=1)
        columns = np.column_stack([np.broadcast_to(units[name], len(hw)) for name in residency.UNITS]).astype(np.float64)
        return self.target.packed(), columns, np.ascontiguousarray(rates, dtype=np.float64)

    def points(self, at: IntArray, attention_rows: Sequence[OperationTable]) -> residency.Points:
        """Some designs as the kernel takes them, with what attention (a row a table) does inside."""
        packed, units, rates = self._columns
        inside = np.zeros((len(attention_rows), len(at), len(residency.ATTENTION_PARTS)))
        hardware = self.hardware.take(at) if attention_rows else self.hardware
        for i, row in enumerate(attention_rows):
            parts = attention.attention_parts(row, hardware, self.criterion, 1)
            columns = (*parts.inner_times, parts.energy_pj, parts.vector_s, parts.vector_pj)
            inside[i] = np.stack([np.broadcast_to(c, (1, len(at)))[0] for c in columns], axis=-1)
        integers, reals, levels = (column[at] for column in packed)
        return residency.Points(integers, reals, levels, units[at], rates[at], inside)

    @property
    def last(self) -> int:
        """The number of the DRAM among the levels; the level below it holds what stays."""
        return self.hardware.levels - 1


def step_costs(table: OperationTable, step: Step, conditions: Sequence[Condition], machine: Machine) -> StepCosts:
    """Costs of a step (rows of ``table``) in each condition on each design; infinite where no mapping fits."""
    kind = int(table.kind[step.row])
    if kind in PRODUCTS:
        return _product(table, step, conditions, machine)
    if kind in ATTENTION:
        return _attention(table, step, conditions, machine)
    return _vector(table, step, conditions, machine)


def _flags(conditions: Sequence[Condition]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(conditions, 1): the result stays; it goes to memory; bits that are loaded whole."""
    columns = [(c.keeps, c.stores, c.loaded_bits) for c in conditions]
    keeps, stores, loaded = (np.array(column, dtype=np.float64)[:, None] for column in zip(*columns, strict=True))
    return keeps, stores, loaded


def _streamed_bits(operands: Sequence[Any], resident: Sequence[bool]) -> int:
    return sum(o.bits for o, there in zip(operands, resident, strict=True) if not there)


def _level_times(machine: Machine, reads: list[Any], writes: list[Any]) -> list[FloatArray]:
    rate = machine.hardware.frequency_hz[None, :]
    return [
        transfer_cycles(NUMPY, r / level.read_words_per_cycle, w / level.write_words_per_cycle, level.shared_bus) / rate
        for r, w, level in zip(reads, writes, machine.rates, strict=True)
    ]


def _product(table: OperationTable, step: Step, conditions: Sequence[Condition], machine: Machine) -> StepCosts:
    hw, last = machine.hardware, machine.last
    row = table.take([step.row])
    sizes, shared, bits, _ = products.product_shapes(row)
    windows, spread = products.map_windows(row, sizes, shared)
    own = step.own_operands
    # What the search depends on, each once.
    keys = [(product_mask(step, c), c.held_bits) for c in conditions]
    distinct = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    which = np.array([distinct[key] for key in keys])
    count = len(distinct)
    found = mapping.search(
        np.repeat(sizes, count, axis=0),
        np.repeat(shared, count),
        machine.target,
        operand_bits=np.repeat(bits, count, axis=0),
        windows=np.repeat(windows, count, axis=0),
        spread=np.repeat(spread, count),
        criterion=machine.criterion,
        threads=machine.threads,
        resident=np.array([mask for mask, _ in distinct]),
        held_bits=np.array([held for _, held in distinct]),
        return_words=True,
    )
    assert found.read_words is not None
    assert found.write_words is not None
    assert found.dram_words is not None
    fits = found.feasible[which]
    rate, word = hw.frequency_hz[None, :], hw.word_bits[None, :].astype(np.float64)
    reads = [np.where(fits, found.read_words[which, :, level], 0.0) for level in range(hw.levels)]
    writes = [np.where(fits, found.write_words[which, :, level], 0.0) for level in range(hw.levels)]
    by_operand = np.where(fits[..., None], found.dram_words[which], 0.0)
    energy = np.where(fits, found.energy_pj[which], np.inf)
    _, stores, loaded = _flags(conditions)
    kept = np.array([c.keeps for c in conditions], dtype=np.float64)[:, None]
    moved: dict[str, Any] = dict.fromkeys(CAUSES, 0.0) | {"inputs": by_operand[..., 0], "partial_sums": by_operand[..., 3]}
    second = "weights" if bool(row.second_is_weight[0]) else "cache" if bool(row.second_is_cache[0]) else "inputs"
    moved[second] = moved[second] + by_operand[..., 1]
    moved["outputs"] = by_operand[..., 2] - by_operand[..., 3]
    moved["partial_sums"] = 2.0 * by_operand[..., 3]
    # What the kernel did not see: operands of the epilogue, tensors loaded whole, a result that stays and is stored.
    extra = np.array([_streamed_bits(step.operands[own:], c.resident[own:]) for c in conditions], dtype=np.float64)[:, None]
    every = float(sum(o.bits for o in step.operands[own:]))
    parameters = sum(_work(table, r, dram(hw.level_kinds[-1]).burst_bytes)[1] for r in step.epilogue)
    pinned = np.array([c.pinned for c in conditions], dtype=np.float64)[:, None]
    streamed, passing = (extra + parameters * (1.0 - pinned)) / word, (every + parameters) / word
    own_load = np.array([c.own_bits for c in conditions], dtype=np.float64)[:, None] / word
    load, store = loaded / word + own_load, kept * stores * step.bits / word
    moved["inputs"] = moved["inputs"] + extra / word
    moved["weights"] = moved["weights"] + parameters * (1.0 - pinned) / word
    moved["weights"] = moved["weights"] + own_load
    moved["loads"], moved["stores"] = moved["loads"] + loaded / word, moved["stores"] + store
    lanes_s, lanes_j = _lanes(table, step.epilogue, machine)
    for level in range(hw.levels):
        more_read = streamed + load if level == last else passing + (store if level == last - 1 else 0.0)
        more_write = store if level == last else streamed + load if level == last - 1 else passing
        reads[level], writes[level] = reads[level] + more_read, writes[level] + more_write
        rates = machine.rates[level]
        energy = energy + more_read * rates.read_pj + more_write * rates.write_pj
    cycles = np.where(fits, found.cycles[which], np.inf) / rate
    array = np.where(fits, found.compute_cycles[which], np.inf) / rate
    levels = _level_times(machine, reads, writes)
    beside = [np.broadcast_to(v, cycles.shape) for v in (*levels, lanes_s)]
    latency = np.maximum(cycles, np.max(beside, axis=0))
    bound = np.where(array >= latency, 0, 1 + np.argmax(beside, axis=0)).astype(np.int8)
    words = np.stack([np.broadcast_to(moved[cause], cycles.shape) for cause in CAUSES], axis=-1)
    energy_j = energy * 1e-12 + lanes_j
    return StepCosts(latency, energy_j, array, np.broadcast_to(lanes_s, cycles.shape), levels[-1], words, bound)


def mask_of(step: Step, resident: Sequence[bool], keeps: bool) -> int:
    """The kernel's mask of resident operands of a product, parameters aside."""
    first, second = reads_on_chip(step, resident)
    return (mapping.KEEP_INPUTS if first else 0) | (mapping.KEEP_WEIGHTS if any(second) else 0) | (mapping.KEEP_OUTPUTS if keeps else 0)


def product_mask(step: Step, condition: Condition) -> int:
    """The kernel's mask of resident operands of a product in a condition, parameters among them."""
    there = (condition.pinned or condition.holds) and step.pins
    return mask_of(step, condition.resident, condition.keeps) | (mapping.KEEP_WEIGHTS if there else 0)


def reads_on_chip(step: Step, resident: Sequence[bool]) -> tuple[bool, Sequence[bool]]:
    """Whether the first operand of a step's row is on chip, and which of the others are; what lies in several tensors is if all are."""
    own = resident[: step.own_operands]
    return bool(own) and all(own[: step.shares]), own[step.shares :]


_KNOWN: WeakKeyDictionary[OperationTable, dict[int, tuple[dict[int, int], VectorWork, FloatArray]]] = WeakKeyDictionary()
"""Vector work of tables that steps were costed of, by the bytes of a burst: places of the rows, their work, bits of their parameters."""


def _work(table: OperationTable, at: int, burst_bytes: int) -> tuple[VectorWork, float]:
    """The vector work of a row (1, 1) and the bits of its parameters; a table's rows are made together, once."""
    known = _KNOWN.setdefault(table, {})
    if burst_bytes not in known:
        rows = np.flatnonzero(of_kinds(table.kind, vector.VECTOR_KINDS))
        some = table.take(rows)
        bits = (some.row_second_elements() * some.weight_bits).astype(np.float64)
        known[burst_bytes] = {int(row): i for i, row in enumerate(rows)}, vector.vector_work(some, burst_bytes), bits
    places, work, bits = known[burst_bytes]
    one = slice(places[at], places[at] + 1)
    return VectorWork(**{f.name: getattr(work, f.name)[one] for f in fields(work)}), float(bits[one][0])


def _lanes(table: OperationTable, rows: Sequence[int], machine: Machine) -> tuple[FloatArray, FloatArray]:
    """Time and energy (1, points) of the lanes for the vector work of rows, whatever it moves."""
    hw = machine.hardware
    time, energy = np.zeros((1, len(machine))), np.zeros((1, len(machine)))
    for at in rows:
        work, _ = _work(table, at, dram(hw.level_kinds[-1]).burst_bytes)
        wide = np.ceil(work.width / hw.mac_bits[None, :])
        lanes = hw.vector_lanes[None, :].astype(np.float64)
        steps = np.ceil(work.elements / lanes) * work.element_cycles + np.ceil(work.rows / lanes) * work.row_cycles
        time = time + steps * wide / hw.frequency_hz[None, :]
        cycles = (work.elements * work.element_cycles + work.rows * work.row_cycles) * wide
        energy = energy + cycles * vector.lane_pj(hw.mac_pj)[None, :] * 1e-12
    return time, energy


def _vector(table: OperationTable, step: Step, conditions: Sequence[Condition], machine: Machine) -> StepCosts:
    hw, last = machine.hardware, machine.last
    kind = int(table.kind[step.row])
    work, own = _work(table, step.row, dram(hw.level_kinds[-1]).burst_bytes)
    word = hw.word_bits[None, :].astype(np.float64)
    parameters = 0.0 if kind in vector.GATHERS else own
    resident = np.array([sum(o.bits for o, r in zip(step.operands, c.resident, strict=True) if r) for c in conditions], dtype=np.float64)
    keeps, stores, loaded = _flags(conditions)
    pinned = np.array([c.pinned for c in conditions], dtype=np.float64)[:, None]
    there = resident[:, None] + pinned * parameters
    held = np.array([c.held_bits for c in conditions], dtype=np.float64)[:, None]
    words_in, words_out = work.bits_in / word, work.bits_out / word
    streamed = np.maximum(work.bits_in - there, 0.0) / word
    load, stored = loaded / word, np.where(stores > 0, words_out, 0.0)
    refills: Any = work.passes
    reads, writes = [], []
    again: Any = 1.0
    for level in range(hw.levels):
        again = refills
        room = machine.rates[level].bits - (held if level == last - 1 else 0.0)
        read = words_in * refills if level < last else streamed * refills + load
        refills = np.where(room >= work.row_bits, 1.0, refills)
        write = words_out if level < last else stored
        if level < last - 1:
            read, write = read + words_out, write + words_in * refills
        elif level == last - 1:
            read, write = read + stored, write + streamed * refills + load
        reads.append(read)
        writes.append(write)
    energy: Any = 0.0
    for read, write, level_rates in zip(reads, writes, machine.rates, strict=True):
        energy = energy + (read * level_rates.read_pj + write * level_rates.write_pj)
    lanes_s, lanes_j = _lanes(table, (step.row,), machine)
    shape = (len(conditions), len(machine))
    levels = [np.broadcast_to(v, shape) for v in _level_times(machine, reads, writes)]
    times = [np.broadcast_to(lanes_s, shape), *levels]
    latency = np.max(times, axis=0)
    bound = np.argmax(times, axis=0)
    bound = np.where(bound == 0, 1 + hw.levels, bound).astype(np.int8)
    operands = np.maximum(work.bits_in - parameters - resident[:, None], 0.0) / word * again
    moved: dict[str, Any] = dict.fromkeys(CAUSES, 0.0)
    if kind in vector.GATHERS:
        moved["gathers"] = streamed * again
    else:
        moved["inputs"] = operands
        moved["weights"] = parameters * (1.0 - pinned) / word * again
    moved["loads"] = load
    moved["outputs"], moved["stores"] = stored * (1.0 - keeps), stored * keeps
    words = np.stack([np.broadcast_to(moved[cause], shape) for cause in CAUSES], axis=-1)
    energy_j = np.broadcast_to(energy * 1e-12 + lanes_j, shape)
    return StepCosts(latency, energy_j, np.zeros(shape), times[0], levels[-1], words, bound)


def _attention(table: OperationTable, step: Step, conditions: Sequence[Condition], machine: Machine) -> StepCosts:
    hw, last = machine.hardware, machine.last
    row = table.take([step.row])
    shape = (len(conditions), len(machine))
    word, per_cycle = hw.word_bits[None, :].astype(np.float64), 1.0 / hw.frequency_hz[None, :]
    parts = attention.attention_parts(row, hw, machine.criterion, machine.threads)
    keeps, stores, loaded = _flags(conditions)
    held = np.array([c.held_bits for c in conditions], dtype=np.float64)[:, None]
    there = [reads_on_chip(step, c.resident) for c in conditions]
    query = float((row.row_input_elements() * row.input_bits)[0]) / word
    second_bits = float((row.row_second_elements() * row.weight_bits)[0])
    second = second_bits / word
    others = [o.bits for o in step.operands[step.shares : step.own_operands]]
    near = np.array([sum(b for b, r in zip(others, beside, strict=True) if r) for _, beside in there]) / second_bits
    far = 1.0 - near[:, None]  # share of keys and values that comes from the DRAM
    query_far = 1.0 - np.array([[float(first)] for first, _ in there])
    out = float((row.row_output_elements() * row.output_bits)[0]) / word
    stored, load = np.where(stores > 0, out, 0.0), loaded / word
    energy = parts.energy_pj
    times = [np.broadcast_to(t, shape) for t in parts.inner_times]
    levels = [times[1]]
    refetched: Any = 1.0
    for level in range(1, hw.levels):
        refetched = parts.second_fetches(level, held if level == last else 0.0)
        if level == last:
            read, write = query * query_far + second * far * refetched + load, stored
        else:
            holds = level == last - 1
            read = query + second * refetched + (stored if holds else out)
            write = out + query * (query_far if holds else 1.0) + second * (far if holds else 1.0) + (load if holds else 0.0)
        rates = machine.rates[level]
        energy = energy + read * rates.read_pj + write * rates.write_pj
        cycles = transfer_cycles(NUMPY, read / rates.read_words_per_cycle, write / rates.write_words_per_cycle, rates.shared_bus)
        levels.append(np.broadcast_to(cycles * per_cycle, shape))
    stack = [times[0], *levels, np.broadcast_to(parts.vector_s, shape)]
    latency = np.max(stack, axis=0)
    moved: dict[str, Any] = dict.fromkeys(CAUSES, 0.0)
    moved["inputs"], moved["loads"] = query * query_far, load
    moved["cache" if bool(row.second_is_cache[0]) else "inputs"] += second * far * refetched
    moved["outputs"], moved["stores"] = stored * (1.0 - keeps), stored * keeps
    words = np.stack([np.broadcast_to(moved[cause], shape) for cause in CAUSES], axis=-1)
    energy_j = np.broadcast_to((energy + parts.vector_pj) * 1e-12, shape)
    return StepCosts(latency, energy_j, times[0], stack[-1], levels[-1], words, np.argmax(stack, axis=0).astype(np.int8))


def pinned_bits(table: OperationTable) -> IntArray:
    """Bits of the parameters of each row that stay on chip where weights do (rows,): all but tables behind gathers."""
    parameters = np.where(of_kinds(table.kind, (*vector.GATHERS, Kind.OPTIMIZER_STEP)), 0, table.parameters * table.weight_bits)
    return np.asarray(parameters, dtype=np.int64)
