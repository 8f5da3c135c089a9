"""What technology and profile say about designs: energies of a word and of a MAC, area, leakage; columns in, columns out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.fields import Dataflow
from hw_models.technology import arithmetic
from hw_models.technology.closed_forms import dram_word_pj, logic_supply_v, mac_scale, sram_word_pj
from hw_models.technology.floorplan import area_mm2, floorplan_mm2, sram_sum
from hw_models.technology.leakage import leakage_w
from hw_models.technology.profiles import profile as find_profile
from hw_models.technology.tables import dram, logic, logic_energy, sram

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Levels:
    """What the levels of memory of all designs of a batch have in common, from the innermost to the DRAM; see `MemoryLevel`."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    per_core: tuple[bool, ...]
    shared: tuple[bool, ...]
    double_buffered: tuple[bool, ...]
    access_bytes: tuple[int, ...]
    shared_bus: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        if not self.shared_bus:
            object.__setattr__(self, "shared_bus", (False,) * len(self.names))

    @property
    def on_chip(self) -> tuple[list[int], list[int]]:
        """Numbers of the SRAM levels that each core has, and of those that exist once."""
        sram_levels = [i for i, kind in enumerate(self.kinds) if kind == "sram"]
        return [i for i in sram_levels if self.per_core[i]], [i for i in sram_levels if not self.per_core[i]]


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
            read[:, i] = sram_word_pj(sram("read_pj", level_bytes[:, i], node_nm, access), word_bytes, access, voltage)
            write[:, i] = sram_word_pj(sram("write_pj", level_bytes[:, i], node_nm, access), word_bytes, access, voltage)
        else:
            read[:, i] = write[:, i] = dram_word_pj(dram(kind).pj_per_byte, word_bytes)
    return read, write


def resolved_columns(profile: str, levels: Levels, columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, FloatArray]:
    """What the tables say of one chip of each design: mac_pj, register energies, area_mm2, leakage_w (points,) and energies a word
    of each level (points, levels).

    Args:
        profile: technology profile.
        levels: what the levels have in common.
        columns: the fields of `Accelerator` as columns (points,), and ``level_bytes``, ``level_area_bytes`` (points, levels).
    """
    rules = find_profile(profile)
    cores, node_nm, word_bits = columns["cores"], columns["node_nm"], columns["word_bits"]
    voltage = columns["voltage_v"] / columns["nominal_v"]
    read, write = level_energies(
        levels.kinds, levels.access_bytes, columns["level_bytes"], node_nm, voltage, word_bits, per_access=rules.word_costs == "access"
    )
    # SRAM: CACTI at the node's nominal supply, times the square of the supply. Logic: the polynomials know node and
    # supply.
    scale = mac_scale(columns["mac_bits"], logic_energy(node_nm, logic_supply_v(voltage)))
    register = logic("array_register")
    register_scale = np.ones(len(cores)) if rules.word_costs == "access" else scale
    of_core, once = levels.on_chip
    sizes: dict[str, Any] = {
        "core_sram_bytes": np.column_stack([columns["level_area_bytes"][:, of_core], columns["vector_buffer_bytes"]]),
        "shared_sram_bytes": columns["level_area_bytes"][:, once],
        "core_access_bytes": (*(levels.access_bytes[i] for i in of_core), 4),
        "shared_access_bytes": tuple(levels.access_bytes[i] for i in once),
    }
    macs = columns["array_rows"] * columns["array_columns"]
    by_format = rules.logic == "arithmetic"
    units = (
        _units_by_format(columns)
        if by_format
        else {
            "mac_pj": logic("mac").energy_pj * scale if rules.mac_pj is None else np.full(len(cores), rules.mac_pj),
            "register_read_pj_per_word": register.energy_pj * register_scale,
            "register_write_pj_per_word": register.write_energy_pj * register_scale,
        }
    )
    area = {"cores": cores, "macs_per_core": macs, "lanes": columns["vector_lanes"], "node_nm": node_nm, **sizes}
    return {
        **units,
        "area_mm2": _area_by_format(columns, area) if by_format else area_mm2(mac_bits=columns["mac_bits"], **area),
        "leakage_w": leakage_w(cores=cores, node_nm=node_nm, supply=voltage, **sizes) if rules.leakage else np.zeros(len(cores)),
        "level_read_pj_per_word": read,
        "level_write_pj_per_word": write,
    }


def _floats(columns: Mapping[str, npt.NDArray[Any]], *names: str) -> dict[str, FloatArray]:
    return {name: columns[name].astype(np.float64) for name in names}


def _units_by_format(columns: Mapping[str, npt.NDArray[Any]]) -> dict[str, FloatArray]:
    """Energies of a unit under profile `silicon`, at the design's own supply; its register files are the table's, scaled."""
    node_nm, supply_v = columns["node_nm"], columns["voltage_v"]
    register, file_scale = logic("array_register"), mac_scale(columns["mac_bits"], logic_energy(node_nm, supply_v))
    found = arithmetic.unit_energy(
        bits=columns["mac_bits"].astype(np.float64),
        outputs_rest=columns["dataflow"] == Dataflow.OS,
        node_nm=node_nm,
        supply_v=supply_v,
        file_read_pj=register.energy_pj * file_scale,
        file_write_pj=register.write_energy_pj * file_scale,
        **_floats(columns, "word_bits", "register_bytes", "adder_tree"),
    )
    return {"mac_pj": found.mac_pj, "register_read_pj_per_word": found.read_pj, "register_write_pj_per_word": found.write_pj}


def _area_by_format(columns: Mapping[str, npt.NDArray[Any]], sizes: Mapping[str, Any]) -> FloatArray:
    """Area of a core under profile `silicon` [mm2]: units, lanes and memories, each with its factor."""
    given = {"bits": columns["mac_bits"].astype(np.float64), "node_nm": columns["node_nm"], **_floats(columns, "word_bits")}
    core_sram, shared_sram = (
        arithmetic.SRAM_AREA_FACTOR * sram_sum("area_um2", sizes[f"{part}_sram_bytes"], sizes[f"{part}_access_bytes"], columns["node_nm"])
        for part in ("core", "shared")
    )
    total = floorplan_mm2(
        cores=sizes["cores"].astype(np.float64),
        macs_per_core=sizes["macs_per_core"].astype(np.float64),
        lanes=sizes["lanes"].astype(np.float64),
        mac_um2=arithmetic.unit_um2(register_bytes=columns["register_bytes"].astype(np.float64), **given),
        lane_um2=arithmetic.lane_um2(given["bits"], given["node_nm"]),
        core_sram_um2=core_sram,
        shared_sram_um2=shared_sram,
    )
    return np.asarray(total)
