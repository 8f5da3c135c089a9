"""From descriptions to arrays: collecting designs, and resolving what technology and profile say about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.accelerator import LINKS, Accelerator, AcceleratorBatch, ArrayKind, Dataflow, FloatArray, IntArray
from hw_models.area import area_mm2, leakage_w
from hw_models.errors import HardwareError, unknown_name
from hw_models.profiles import profile as find_profile
from hw_models.technology import REFERENCE_V, dram, logic, logic_energy, sram


def codes(field: str, values: npt.NDArray[Any], kind: type[ArrayKind] | type[Dataflow]) -> IntArray:
    """Codes of an enumeration for an array of its names (any case)."""
    known = {member.name.lower(): int(member) for member in kind}
    unique, inverse = np.unique(values, return_inverse=True)
    for name in unique:
        if str(name).lower() not in known:
            raise unknown_name(field, str(name), known)
    return np.asarray(np.array([known[str(name).lower()] for name in unique], dtype=np.int64)[inverse])


def level_energies(
    kinds: Sequence[str],
    access_bytes: Sequence[int],
    level_bytes: IntArray,
    node_nm: FloatArray,
    voltage: FloatArray,
    word_bits: IntArray,
    *,
    per_access: bool,
) -> tuple[FloatArray, FloatArray]:
    """Read and write energy of a word at each level (points, levels) [pJ].

    ``per_access``: a word of any width is charged a whole 4-byte access (CATransformers); otherwise its own bytes. SRAM
    energy goes with the square of ``voltage`` (relative to nominal); that of a DRAM does not depend on the chip's
    supply.
    """
    points, levels = level_bytes.shape
    read, write = np.empty((points, levels)), np.empty((points, levels))
    word_bytes = np.full(points, 4.0) if per_access else word_bits / 8.0
    for i, (kind, access) in enumerate(zip(kinds, access_bytes, strict=True)):
        if kind == "sram":
            factor = word_bytes / access * voltage**2
            read[:, i] = sram("read_pj", level_bytes[:, i], node_nm, access) * factor
            write[:, i] = sram("write_pj", level_bytes[:, i], node_nm, access) * factor
        else:
            read[:, i] = write[:, i] = dram(kind).pj_per_byte * word_bytes
    return read, write


def resolve(
    *,
    profile: str,
    level_names: tuple[str, ...],
    level_kinds: tuple[str, ...],
    level_per_core: tuple[bool, ...],
    level_shared: tuple[bool, ...],
    level_double_buffered: tuple[bool, ...],
    level_access_bytes: tuple[int, ...],
    cores: IntArray,
    array_rows: IntArray,
    array_columns: IntArray,
    array_kind: IntArray,
    dataflow: IntArray,
    register_bytes: IntArray,
    vector_lanes: IntArray,
    vector_buffer_bytes: IntArray,
    word_bits: IntArray,
    mac_bits: IntArray,
    weight_bits: IntArray,
    activation_bits: IntArray,
    kv_bits: IntArray,
    frequency_hz: FloatArray,
    node_nm: FloatArray,
    voltage_v: FloatArray,
    nominal_v: FloatArray,
    level_bytes: IntArray,
    level_area_bytes: IntArray,
    level_read_words_per_cycle: FloatArray,
    level_write_words_per_cycle: FloatArray,
    chips: IntArray | None = None,
    links: dict[str, FloatArray] | None = None,
    names: tuple[str, ...] = (),
    overrides: dict[str, npt.NDArray[np.float64]] | None = None,
) -> AcceleratorBatch:
    """The batch with energies, area and leakage from the tables; ``overrides`` replace them where they are finite.

    ``overrides`` may hold mac_pj, area_mm2, leakage_w (points,), level_read_pj_per_word and level_write_pj_per_word
    (points, levels), all of one chip. ``chips`` (points,): None for one; ``links``: the columns of that name, 0 where left
    out.
    """
    rules = find_profile(profile)
    voltage = voltage_v / nominal_v
    read, write = level_energies(
        level_kinds,
        level_access_bytes,
        level_bytes,
        node_nm,
        voltage,
        word_bits,
        per_access=rules.word_costs == "access",
    )
    # SRAM: CACTI at the node's nominal supply, times the square of the supply. Logic: the polynomials know node and
    # supply.
    scale = (mac_bits / 8.0) * logic_energy(node_nm, _logic_supply(node_nm, voltage_v, nominal_v))
    mac = logic("mac").energy_pj * scale if rules.mac_pj is None else np.full(len(cores), rules.mac_pj)
    register = logic("array_register")
    register_scale = np.ones(len(cores)) if rules.word_costs == "access" else scale
    on_chip = [i for i, kind in enumerate(level_kinds) if kind == "sram"]
    of_core = [i for i in on_chip if level_per_core[i]]
    once = [i for i in on_chip if not level_per_core[i]]
    sizes: dict[str, Any] = {
        "core_sram_bytes": np.column_stack([level_area_bytes[:, of_core], vector_buffer_bytes]),
        "shared_sram_bytes": level_area_bytes[:, once],
        "core_access_bytes": (*(level_access_bytes[i] for i in of_core), 4),
        "shared_access_bytes": tuple(level_access_bytes[i] for i in once),
    }
    macs = array_rows * array_columns
    area = area_mm2(cores=cores, macs_per_core=macs, lanes=vector_lanes, node_nm=node_nm, mac_bits=mac_bits, **sizes)
    leak = leakage_w(cores=cores, node_nm=node_nm, **sizes) * voltage if rules.leakage else np.zeros(len(cores))
    resolved = {
        "mac_pj": mac,
        "register_read_pj_per_word": register.energy_pj * register_scale,
        "register_write_pj_per_word": register.write_energy_pj * register_scale,
        "area_mm2": area,
        "leakage_w": leak,
        "level_read_pj_per_word": read,
        "level_write_pj_per_word": write,
    }
    for key, value in (overrides or {}).items():
        resolved[key] = np.where(np.isfinite(value), value, resolved[key])
    count = np.ones(len(cores), dtype=np.int64) if chips is None else chips
    for key in ("area_mm2", "leakage_w"):
        resolved[key] = resolved[key] * count
    link = {name: (links or {}).get(name, np.zeros(len(cores))) for name in LINKS}
    return AcceleratorBatch(
        profile=profile,
        level_names=level_names,
        level_kinds=level_kinds,
        level_per_core=level_per_core,
        level_shared=level_shared,
        level_double_buffered=level_double_buffered,
        level_access_bytes=level_access_bytes,
        cores=cores,
        array_rows=array_rows,
        array_columns=array_columns,
        array_kind=array_kind,
        dataflow=dataflow,
        register_bytes=register_bytes,
        vector_lanes=vector_lanes,
        vector_buffer_bytes=vector_buffer_bytes,
        word_bits=word_bits,
        mac_bits=mac_bits,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        kv_bits=kv_bits,
        frequency_hz=frequency_hz,
        node_nm=node_nm,
        voltage_v=voltage_v,
        nominal_v=nominal_v,
        level_bytes=level_bytes,
        level_area_bytes=level_area_bytes,
        level_read_words_per_cycle=level_read_words_per_cycle,
        level_write_words_per_cycle=level_write_words_per_cycle,
        chips=count,
        names=names,
        **link,
        **resolved,
    )


def _logic_supply(node_nm: FloatArray, voltage_v: FloatArray, nominal_v: FloatArray) -> FloatArray:
    """The supply at which the polynomials of logic are read (points,) [V].

    A design at its nominal supply has the energies of the tables: those hold at 0.8 V, whatever CACTI calls
        nominal at the node.
    """
    return np.asarray(REFERENCE_V * (voltage_v / nominal_v))


def batch_of(accelerators: Sequence[Accelerator]) -> AcceleratorBatch:
    """Designs with the same levels and profile as arrays (see `AcceleratorBatch.of`)."""
    first = accelerators[0]
    for other in accelerators[1:]:
        for what, value, expected in (
            ("profile", other.profile, first.profile),
            ("level names", tuple(v.name for v in other.levels), tuple(v.name for v in first.levels)),
            ("level kinds", tuple(v.kind for v in other.levels), tuple(v.kind for v in first.levels)),
            ("per-core levels", tuple(v.per_core for v in other.levels), tuple(v.per_core for v in first.levels)),
            (
                "double buffering",
                tuple(v.double_buffered for v in other.levels),
                tuple(v.double_buffered for v in first.levels),
            ),
            ("access widths", tuple(v.access_bytes for v in other.levels), tuple(v.access_bytes for v in first.levels)),
            ("shared levels", tuple(v.shared for v in other.levels), tuple(v.shared for v in first.levels)),
        ):
            if value != expected:
                raise HardwareError(
                    f"designs of one batch must agree in their {what}: {other.name!r} has {value}, {first.name!r} has {expected}"
                )

    def ints(name: str) -> IntArray:
        return np.array([int(getattr(a, name)) for a in accelerators], dtype=np.int64)

    def floats(name: str) -> FloatArray:
        return np.array([float(getattr(a, name)) for a in accelerators], dtype=np.float64)

    def maybe(name: str) -> FloatArray:
        values = [getattr(a, name) for a in accelerators]
        return np.array([np.nan if v is None else float(v) for v in values], dtype=np.float64)

    def per_level(name: str) -> FloatArray:
        values = [[getattr(v, name) for v in a.levels] for a in accelerators]
        return np.array([[np.nan if v is None else float(v) for v in row] for row in values], dtype=np.float64)

    rules = find_profile(first.profile)
    shared = tuple(v.shared for v in first.levels)
    doubled = tuple(v.double_buffered for v in first.levels)
    if rules.operand_buffers:
        shared = (False, *shared[1:])
        doubled = (False,) * len(shared)
    access = tuple(v.access_bytes for v in first.levels)
    area_bytes = [[v.bytes if v.area_bytes is None else v.area_bytes for v in a.levels] for a in accelerators]
    return resolve(
        profile=first.profile,
        level_names=tuple(v.name for v in first.levels),
        level_kinds=tuple(v.kind for v in first.levels),
        level_per_core=tuple(v.per_core for v in first.levels),
        level_shared=shared,
        level_double_buffered=doubled,
        level_access_bytes=access,
        cores=ints("cores"),
        array_rows=ints("array_rows"),
        array_columns=ints("array_columns"),
        array_kind=ints("array_kind"),
        dataflow=ints("dataflow"),
        register_bytes=ints("register_bytes"),
        vector_lanes=ints("vector_lanes"),
        vector_buffer_bytes=ints("vector_buffer_bytes"),
        word_bits=ints("word_bits"),
        mac_bits=np.array([a.mac_bits or a.word_bits for a in accelerators], dtype=np.int64),
        weight_bits=ints("weight_bits"),
        activation_bits=ints("activation_bits"),
        kv_bits=ints("kv_bits"),
        frequency_hz=floats("frequency_hz"),
        node_nm=floats("node_nm"),
        voltage_v=floats("voltage_v"),
        nominal_v=floats("nominal_v"),
        level_bytes=per_level("bytes").astype(np.int64),
        level_area_bytes=np.array(area_bytes, dtype=np.int64),
        level_read_words_per_cycle=per_level("read_words_per_cycle"),
        level_write_words_per_cycle=per_level("write_words_per_cycle"),
        chips=ints("chips"),
        links={name: floats(name) for name in LINKS},
        names=tuple(a.name for a in accelerators),
        overrides={
            "mac_pj": maybe("mac_pj"),
            "area_mm2": maybe("area_mm2"),
            "leakage_w": maybe("leakage_w"),
            "level_read_pj_per_word": per_level("read_pj_per_word"),
            "level_write_pj_per_word": per_level("write_pj_per_word"),
        },
    )


def accelerator_of(batch: AcceleratorBatch, index: int, *, name: str, source: str = "") -> Accelerator:
    """One design of a batch as a record whose `batch()` holds the same numbers."""
    from hw_models.accelerator import MemoryLevel

    def number(value: np.float64) -> int | float:
        return int(value) if value == int(value) else float(value)

    levels = tuple(
        MemoryLevel(
            name=batch.level_names[i],
            bytes=int(batch.level_bytes[index, i]),
            read_words_per_cycle=number(batch.level_read_words_per_cycle[index, i]),
            write_words_per_cycle=number(batch.level_write_words_per_cycle[index, i]),
            kind=batch.level_kinds[i],
            per_core=batch.level_per_core[i],
            shared=batch.level_shared[i],
            double_buffered=batch.level_double_buffered[i],
            access_bytes=batch.level_access_bytes[i],
            area_bytes=None if batch.level_area_bytes[index, i] == batch.level_bytes[index, i] else int(batch.level_area_bytes[index, i]),
        )
        for i in range(batch.levels)
    )
    record = Accelerator(
        name=name,
        cores=int(batch.cores[index]),
        array_rows=int(batch.array_rows[index]),
        array_columns=int(batch.array_columns[index]),
        vector_lanes=int(batch.vector_lanes[index]),
        levels=levels,
        frequency_hz=float(batch.frequency_hz[index]),
        node_nm=float(batch.node_nm[index]),
        voltage_v=float(batch.voltage_v[index]),
        nominal_v=float(batch.nominal_v[index]),
        word_bits=int(batch.word_bits[index]),
        mac_bits=int(batch.mac_bits[index]),
        weight_bits=int(batch.weight_bits[index]),
        activation_bits=int(batch.activation_bits[index]),
        kv_bits=int(batch.kv_bits[index]),
        array_kind=ArrayKind(int(batch.array_kind[index])),
        dataflow=Dataflow(int(batch.dataflow[index])),
        register_bytes=int(batch.register_bytes[index]),
        vector_buffer_bytes=int(batch.vector_buffer_bytes[index]),
        profile=batch.profile,
        chips=int(batch.chips[index]),
        **{name: float(getattr(batch, name)[index]) for name in LINKS},
        source=source,
    )
    # A family may have an area rule of its own (datacenter): the record then carries what the tables would not give back.
    area = float(batch.area_mm2[index])
    return record if float(record.batch().area_mm2[0]) == area else replace(record, area_mm2=area / int(batch.chips[index]))
