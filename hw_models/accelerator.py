"""Accelerators: one design (`Accelerator`) and many designs as arrays (`AcceleratorBatch`).

Both describe cores with an array of multiply-accumulate units each, a vector unit, and levels of memory from the
innermost to the DRAM. What a level costs in energy, area and leakage comes from the technology tables and the profile
unless the description says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.errors import HardwareError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


LINKS = ("link_latency_s", "link_bytes_per_s", "link_pj_per_bit", "link_fixed_s")
"""Fields of a chip's links, in the order of `hw_models.interconnect.Link`."""


class ArrayKind(IntEnum):
    """How an array is filled and drained: fold after fold, with the next fold's weights loading, or not at all."""

    SYSTOLIC = 0
    SYSTOLIC_PIPELINED = 1
    DOT_PRODUCT = 2


class Dataflow(IntEnum):
    """The operand that stays in the array: outputs, weights or inputs; ANY lets the mapper choose."""

    OS = 0
    WS = 1
    IS = 2
    ANY = 3


@dataclass(frozen=True, slots=True)
class MemoryLevel:
    """One level of memory.

    Attributes:
        name: `l2`, `glb`, `dram`, ...
        bytes: capacity; of one core's copy where ``per_core``, of one operand's buffer where not ``shared``.
        read_words_per_cycle, write_words_per_cycle: bandwidth in words of ``Accelerator.word_bits`` a cycle, of
            one copy.
        kind: `sram`, or the type of a DRAM (`lpddr4`, ...; dram.csv).
        per_core: every core has its own copy.
        shared: one capacity for all three operands; False: ``bytes`` for each of them.
        double_buffered: half of the capacity is filled while the other half is used, so that moving and computing
            overlap.
        access_bytes: width of an SRAM access, 4 or 32: wide ports cost less a byte and more area.
        area_bytes: capacity that area and leakage are charged for, where it is not ``bytes``.
        read_pj_per_word, write_pj_per_word: energies that replace those of the technology tables.
    """

    name: str
    bytes: int
    read_words_per_cycle: float
    write_words_per_cycle: float
    kind: str = "sram"
    per_core: bool = False
    shared: bool = True
    double_buffered: bool = True
    access_bytes: int = 4
    area_bytes: int | None = None
    read_pj_per_word: float | None = None
    write_pj_per_word: float | None = None


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One accelerator design; ``levels`` from the innermost to the DRAM.

    Everything but ``chips`` describes one chip with its DRAM.

    Attributes:
        cores: cores, each with one array and its share of the vector lanes.
        array_rows, array_columns: multiply-accumulate units of one core's array.
        register_bytes: registers of one multiply-accumulate unit.
        vector_lanes: lanes of the vector units of all cores together.
        vector_buffer_bytes: SRAM that each core's vector unit has of its own (area and leakage only).
        word_bits: width of a word, in which bandwidths are counted.
        mac_bits: width of the operands that a multiply-accumulate unit and a lane take (None: a word).
        weight_bits, activation_bits, kv_bits: precision that the design imposes on weights, activations and KV cache (0: the
            workload's own).
        voltage_v: supply; dynamic energy goes with (voltage_v / nominal_v)^2, leakage with voltage_v / nominal_v.
        area_mm2, leakage_w, mac_pj: values that replace those of the technology tables (None: the tables).
        profile: technology profile (`hw_models.profiles`).
        chips: equal chips that share a request (`hw_models.parallel`).
        link_bytes_per_s: rate of a chip's links in one direction, all together; needed from two chips on.
        link_latency_s, link_fixed_s: time of a message before its first byte, and of starting a collective.
        link_pj_per_bit: energy of a bit that crosses a link.
    """

    name: str
    cores: int
    array_rows: int
    array_columns: int
    vector_lanes: int
    levels: tuple[MemoryLevel, ...]
    frequency_hz: float
    node_nm: float
    voltage_v: float
    nominal_v: float
    word_bits: int = 8
    array_kind: ArrayKind = ArrayKind.DOT_PRODUCT
    dataflow: Dataflow = Dataflow.ANY
    mac_bits: int | None = None
    weight_bits: int = 0
    activation_bits: int = 0
    kv_bits: int = 0
    register_bytes: int = 32
    vector_buffer_bytes: int = 0
    mac_pj: float | None = None
    area_mm2: float | None = None
    leakage_w: float | None = None
    profile: str = "default"
    chips: int = 1
    link_bytes_per_s: float = 0.0
    link_latency_s: float = 0.0
    link_fixed_s: float = 0.0
    link_pj_per_bit: float = 0.0
    source: str = ""

    def __post_init__(self) -> None:
        from hw_models.accelerator_files import check

        check(self)

    @staticmethod
    def from_toml(path: str | Path) -> Accelerator:
        """Read one design from a TOML file; a missing, unknown or absurd field is an error naming file, field and
        remedy.
        """
        from hw_models.accelerator_files import read_accelerator

        return read_accelerator(Path(path))

    def to_toml(self) -> str:
        """This design as TOML text that `from_toml` reads back equal."""
        from hw_models.accelerator_files import accelerator_toml

        return accelerator_toml(self)

    def batch(self) -> AcceleratorBatch:
        """This design as a batch of one."""
        return AcceleratorBatch.of([self])

    def with_profile(self, profile: str) -> Accelerator:
        """The same design under another technology profile."""
        return replace(self, profile=profile)


@dataclass(frozen=True, eq=False)
class AcceleratorBatch:
    """Many designs with the same levels of memory; arrays of shape (points,), per level (points, levels).

    ``level_*`` run from the innermost level to the DRAM. Energies are in pJ, per word of ``word_bits``;
    ``array_kind`` and ``dataflow`` hold codes of `ArrayKind` and `Dataflow`. ``leakage_w`` is the power of a design
    that does nothing (idle power): SRAM leakage. ``area_mm2``, ``leakage_w``, ``tops`` and ``dram_bytes`` are those of
    all chips together, the other columns those of one chip.
    """

    profile: str
    level_names: tuple[str, ...]
    level_kinds: tuple[str, ...]
    level_per_core: tuple[bool, ...]
    level_shared: tuple[bool, ...]
    level_double_buffered: tuple[bool, ...]
    level_access_bytes: tuple[int, ...]
    cores: IntArray
    array_rows: IntArray
    array_columns: IntArray
    array_kind: IntArray
    dataflow: IntArray
    register_bytes: IntArray
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
    leakage_w: FloatArray
    chips: IntArray
    link_bytes_per_s: FloatArray
    link_latency_s: FloatArray
    link_fixed_s: FloatArray
    link_pj_per_bit: FloatArray
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
        macs = (self.chips * self.cores * self.array_rows * self.array_columns).astype(np.float64)
        return np.asarray(macs * 2 * self.frequency_hz / 1e12)

    @property
    def dram_bytes(self) -> IntArray:
        """Capacity of the DRAM of all chips (points,) [bytes]."""
        return self.chips * self.level_bytes[:, -1]

    @property
    def die_mm2(self) -> FloatArray:
        """Area of one chip (points,) [mm2]."""
        return self.area_mm2 / self.chips

    @property
    def one_chip(self) -> bool:
        """Whether every design is a single chip."""
        return bool((self.chips == 1).all())

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
    def of(accelerators: Sequence[Accelerator]) -> AcceleratorBatch:
        """Collect designs with the same level names, kinds and sharing, and the same profile, into arrays."""
        from hw_models.batching import batch_of

        if not accelerators:
            raise HardwareError("a batch of accelerators needs at least one design, got none")
        return batch_of(accelerators)
