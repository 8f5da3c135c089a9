"""Area of an accelerator from its parts, in closed form.

    area[um2] = cores * (macs * (MAC + register) + lanes * (MAC + lane register) + sum of per-core SRAM) + shared SRAM

For the `edge22` template this equals the published area of all 3,240 designs of CATransformers' `cores.json`
(relative 1e-9; facts and
residuals: docs/models/hardware.md). Not counted, because no table of ours has it: network on chip, controller,
    DRAM PHY, I/O, wiring.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hw_models.technology.namespace import Array
from hw_models.technology.tables import Quantity, logic, logic_area, sram

FloatArray = npt.NDArray[np.float64]


def sram_sum(quantity: Quantity, sizes: npt.ArrayLike, access: Sequence[int], node: FloatArray) -> FloatArray:
    """The quantity of all memories of each design (points,); ``sizes`` and ``access`` bytes (points, memories)."""
    table = np.asarray(sizes, dtype=np.float64)
    total = np.zeros(len(table))
    for i in range(table.shape[1]):
        total += sram(quantity, table[:, i], node, access[i] if access else 4)
    return total


def area_mm2(
    *,
    cores: npt.ArrayLike,
    macs_per_core: npt.ArrayLike,
    lanes: npt.ArrayLike,
    core_sram_bytes: npt.ArrayLike,
    shared_sram_bytes: npt.ArrayLike,
    core_access_bytes: Sequence[int] = (),
    shared_access_bytes: Sequence[int] = (),
    node_nm: npt.ArrayLike = 22.0,
    mac_bits: npt.ArrayLike = 8,
) -> FloatArray:
    """Area (points,) [mm2].

    Args:
        cores, macs_per_core, lanes: (points,); ``lanes`` of all cores together.
        core_sram_bytes: (points, memories) capacities of the memories that every core has.
        shared_sram_bytes: (points, memories) capacities of the memories that exist once.
        core_access_bytes, shared_access_bytes: bytes of an access of each of them (empty: 4).
        node_nm, mac_bits: (points,); a MAC's area goes linearly with its width (Accelergy's library).
    """
    count = np.asarray(cores, dtype=np.float64)
    node = np.broadcast_to(np.asarray(node_nm, dtype=np.float64), count.shape)
    width = np.asarray(mac_bits, dtype=np.float64) / 8.0
    scale = logic_area(node) * width
    mac, array_register, lane_register = logic("mac"), logic("array_register"), logic("vector_register")
    unit = (mac.area_um2 + array_register.area_um2) * scale
    lane = (mac.area_um2 + lane_register.area_um2) * scale
    core_sram = sram_sum("area_um2", core_sram_bytes, core_access_bytes, node)
    shared_sram = sram_sum("area_um2", shared_sram_bytes, shared_access_bytes, node)
    total = floorplan_mm2(
        cores=count,
        macs_per_core=np.asarray(macs_per_core, dtype=np.float64),
        lanes=np.asarray(lanes, dtype=np.float64),
        mac_um2=unit,
        lane_um2=lane,
        core_sram_um2=core_sram,
        shared_sram_um2=shared_sram,
    )
    return np.asarray(total)


def floorplan_mm2(
    *,
    cores: Array,
    macs_per_core: Array,
    lanes: Array,
    mac_um2: Array,
    lane_um2: Array,
    core_sram_um2: Array,
    shared_sram_um2: Array,
) -> Array:
    """Area of a design from that of its parts [mm2]."""
    total = mac_um2 * (cores * macs_per_core) + lane_um2 * lanes
    return (total + cores * core_sram_um2 + shared_sram_um2) * 1e-6
