"""The `datacenter` builder: chips with cores, an array, vector lanes and SRAM each, one shared SRAM, stacks of HBM, and links
to the other chips.

Area is made of the technology tables and of the die of NVIDIA's GA100, measured block by block: no table of ours has what
lies between the multiply-accumulate units and memories of a block (control, schedulers, tags, wiring), so the tables'
area of a block is multiplied by what GA100's block takes over what the tables say for its contents. These factors are
fitted to one die; docs/models/hardware.md says how far other dies are from them.

The clock follows the supply: `nominal_frequency_hz` is what the design closes timing at on its nominal supply, and the
clock at another supply is that times delay(nominal) / delay(supply) (Stillmaker and Baas), so that a low supply is slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import NUMBERS, AcceleratorBatch, given_columns
from hw_models.accelerator.resolve import Levels
from hw_models.errors import HardwareError, bad_value
from hw_models.technology import closed_forms
from hw_models.technology.closed_forms import core_words_per_cycle, logic_supply_v, words_per_cycle
from hw_models.technology.floorplan import area_mm2
from hw_models.technology.namespace import Array
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.tables import REFERENCE_V, SIZE_RANGE_BYTES, SUPPLIES_V, logic_area, logic_delay, sram

Columns = Mapping[str, npt.NDArray[Any]]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
NOMINAL_V: Final = 0.75
"""Nominal supply of high-performance logic (IRDS 2017, More Moore, 7 nm); taken at every node of the space."""
SRAM_PORT_BYTES: Final = 32

# Blocks of GA100 [mm2], 7 nm: PrincetonUniversity/LLMCompass@2e015fd, ae/figure6/real_hardware/die_area.csv.
GA100_CORES_MM2: Final = 476.25
GA100_INTERCONNECT_MM2: Final = 76.44
GA100_BUFFER_MM2: Final = 119.31
GA100_MEMORY_PHY_MM2: Final = 58.0
GA100_MEMORY_CONTROL_MM2: Final = 31.77
GA100_LINK_PHY_MM2: Final = 20.95
GA100_OTHER_MM2: Final = 40.0
# What the whole die has, switched off or not (NVIDIA A100 whitepaper, 2020: "full GA100"; 48 MB are its twelve
# controllers' 4 MB): the products use 108 cores, 40 MB and 5 stacks of it.
GA100_NM: Final = 7.0
GA100_CORES: Final = 128
GA100_STACKS: Final = 6
GA100_LINKS: Final = 12
GA100_BUFFER_MIB: Final = 48
GA100_MACS, GA100_LANES, GA100_REGISTER_BYTES, GA100_L1_KIB = 1024, 64, 256, 192


def _core_tables_mm2(
    cores: IntArray, macs: IntArray, lanes: IntArray, registers: IntArray, sram_bytes: IntArray, node: FloatArray, bits: IntArray
) -> FloatArray:
    """What the tables have for all cores (points,) [mm2]; ``registers`` [bytes a MAC] charged as one SRAM a core.

    The register of logic.csv is smaller than its bits could be (0.35 um2 for 32 bytes); a register file is an SRAM.
    """
    total = area_mm2(
        cores=cores,
        macs_per_core=macs,
        lanes=cores * lanes,
        core_sram_bytes=np.column_stack([sram_bytes, registers * macs]),
        shared_sram_bytes=np.zeros((len(cores), 0)),
        core_access_bytes=(SRAM_PORT_BYTES, SRAM_PORT_BYTES),
        node_nm=node,
        mac_bits=bits,
    )
    return np.asarray(total)


@cache
def overheads() -> tuple[float, float, float]:
    """(cores, shared SRAM, interconnect): GA100's blocks over the tables' area of their contents, and its on-chip
    interconnect over both blocks.
    """
    one = [np.array([v]) for v in (GA100_CORES, GA100_MACS, GA100_LANES, GA100_REGISTER_BYTES, GA100_L1_KIB * 1024)]
    cores = _core_tables_mm2(one[0], one[1], one[2], one[3], one[4], np.array([GA100_NM]), np.array([16]))[0]
    buffer = float(sram("area_um2", GA100_BUFFER_MIB * 2**20, GA100_NM, SRAM_PORT_BYTES)) * 1e-6
    return float(GA100_CORES_MM2 / cores), GA100_BUFFER_MM2 / buffer, GA100_INTERCONNECT_MM2 / (GA100_CORES_MM2 + GA100_BUFFER_MM2)


def die_parts_mm2(
    *,
    cores: IntArray,
    macs: IntArray,
    lanes: IntArray,
    register_bytes: IntArray,
    core_sram_bytes: IntArray,
    shared_sram_bytes: IntArray,
    hbm_stacks: IntArray,
    links: IntArray,
    node_nm: FloatArray,
    mac_bits: IntArray,
) -> dict[str, FloatArray]:
    """Area of the parts of a die, each (points,) [mm2]; ``macs`` and ``lanes`` of one core, registers of one MAC.

    * cores, shared_sram: the tables times GA100's overhead of that block;
    * interconnect: 12.8 % of both, as on GA100;
    * memory: GA100's PHYs and controllers over the six stacks it has sites for. PHYs are analogue and the same at every node;
      controllers scale as logic does;
    * links: GA100's link PHYs over its twelve links, the same at every node;
    * fixed: what GA100's breakdown calls other, once, at every node.
    """
    return assemble_die(
        core_tables_mm2=_core_tables_mm2(cores, macs, lanes, register_bytes, core_sram_bytes, node_nm, mac_bits),
        shared_table_mm2=sram("area_um2", shared_sram_bytes, node_nm, SRAM_PORT_BYTES) * 1e-6,
        logic_area_relative=logic_area(node_nm) / float(logic_area(GA100_NM)),
        hbm_stacks=hbm_stacks,
        links=links,
    )


def assemble_die(
    *, core_tables_mm2: Array, shared_table_mm2: Array, logic_area_relative: Array, hbm_stacks: Array, links: Array
) -> dict[str, Array]:
    """The parts of a die from what the tables have for its cores and its shared SRAM [mm2]: any array namespace.

    ``logic_area_relative``: area of logic relative to GA100's node.
    """
    core_factor, buffer_factor, wires = overheads()
    in_cores, shared = core_factor * core_tables_mm2, buffer_factor * shared_table_mm2
    control = GA100_MEMORY_CONTROL_MM2 * logic_area_relative
    return {
        "cores": in_cores,
        "shared_sram": shared,
        "interconnect": wires * (in_cores + shared),
        "memory": hbm_stacks * (GA100_MEMORY_PHY_MM2 + control) / GA100_STACKS,
        "links": links * (GA100_LINK_PHY_MM2 / GA100_LINKS),
        "fixed": 0.0 * in_cores + GA100_OTHER_MM2,
    }


def clock_hz(nominal_hz: FloatArray, node_nm: FloatArray, voltage_v: FloatArray) -> FloatArray:
    """Clock (points,) [Hz] at a supply, of designs that close timing at ``nominal_hz`` on the nominal supply.

    As for energy, the nominal supply stands where the polynomials of logic have 0.8 V.
    """
    low, high = (limit * NOMINAL_V / REFERENCE_V for limit in SUPPLIES_V)
    bad = ~((voltage_v >= low) & (voltage_v <= high))
    if np.any(bad):
        value = float(voltage_v[bad][0])
        allowed = f"between {low:.5g} and {high:.5g} V, where the scaling of logic holds"
        raise bad_value("voltage_v", value, allowed, closest=f"{min(max(value, low), high):.5g}", where="template datacenter")
    delay, nominal = logic_delay(node_nm, logic_supply_v(voltage_v / NOMINAL_V)), logic_delay(node_nm, REFERENCE_V)
    return np.asarray(closed_forms.clock_hz(nominal_hz, delay, nominal))


def _check_size(what: str, size_bytes: IntArray) -> None:
    low, high = SIZE_RANGE_BYTES
    bad = ~((size_bytes >= low) & (size_bytes <= high))
    if np.any(bad):
        value = int(size_bytes[bad][0])
        closest = f"{min(max(value, low), high):g}"
        raise bad_value(what, value, f"between {low:g} and {high:g} bytes", closest=closest, where="template datacenter")


def datacenter(profile: str, columns: Columns, count: int) -> AcceleratorBatch:
    """Designs of the `datacenter` family from columns of knobs and settings (count,), under a technology profile."""

    def ints(name: str) -> IntArray:
        return np.ascontiguousarray(columns[name], dtype=np.int64)

    def floats(name: str) -> FloatArray:
        return np.ascontiguousarray(columns[name], dtype=np.float64)

    if find_profile(profile).operand_buffers:
        raise HardwareError(
            f"template datacenter has no profile {profile!r}: that tool knows one 22 nm edge chip with 8-bit words; use 'default'"
        )
    cores, rows, across = ints("cores"), ints("array_rows"), ints("array_columns")
    stacks, registers, links = ints("hbm_stacks"), ints("register_bytes"), ints("links")
    lanes, word_bits, mac_bits = ints("vector_lanes_per_core"), ints("word_bits"), ints("mac_bits")
    node, voltage = floats("node_nm"), floats("voltage_v")
    core_bytes, shared_bytes = ints("core_sram_kib") * 1024, ints("shared_sram_mib") * 1024**2
    NUMBERS["vector_lanes"].check("vector_lanes_per_core x cores", int((cores * lanes).max()), "template datacenter")
    _check_size("core_sram_kib x 1024", core_bytes)
    _check_size("shared_sram_mib x 2^20", shared_bytes)
    _check_size("register_bytes x array_rows x array_columns", registers * rows * across)
    frequency = clock_hz(floats("nominal_frequency_hz"), node, voltage)
    NUMBERS["frequency_hz"].check("clock (nominal_frequency_hz at voltage_v)", float(frequency.max()), "template datacenter")
    NUMBERS["frequency_hz"].check("clock (nominal_frequency_hz at voltage_v)", float(frequency.min()), "template datacenter")
    # The stack has a clock of its own: bytes a second do not depend on that of the chip.
    hbm_words = words_per_cycle(stacks * floats("hbm_bytes_per_s_per_stack"), word_bits, frequency)
    core_words = core_words_per_cycle(rows, across).astype(np.float64)
    bandwidth = np.column_stack([core_words, floats("shared_words_per_cycle"), hbm_words])
    parts = die_parts_mm2(
        cores=cores,
        macs=rows * across,
        lanes=lanes,
        register_bytes=registers,
        core_sram_bytes=core_bytes,
        shared_sram_bytes=shared_bytes,
        hbm_stacks=stacks,
        links=links,
        node_nm=node,
        mac_bits=mac_bits,
    )
    level_bytes = np.column_stack([core_bytes, shared_bytes, stacks * ints("hbm_gib_per_stack") * 1024**3])
    return AcceleratorBatch.build(
        profile=profile,
        levels=Levels(
            names=("core_sram", "shared_sram", "dram"),
            kinds=("sram", "sram", "hbm2"),
            per_core=(True, False, False),
            shared=(True, True, True),
            double_buffered=(True, True, False),
            access_bytes=(SRAM_PORT_BYTES, SRAM_PORT_BYTES, 4),
        ),
        columns={
            **given_columns(columns),
            "vector_lanes": cores * lanes,
            "frequency_hz": frequency,
            "nominal_v": np.full(count, NOMINAL_V),
            "level_bytes": level_bytes,
            "level_read_words_per_cycle": bandwidth,
            "level_write_words_per_cycle": bandwidth.copy(),
            "link_bytes_per_s": links * floats("link_bytes_per_s_per_link"),
        },
        overrides={"area_mm2": np.sum(list(parts.values()), axis=0)},
    )
