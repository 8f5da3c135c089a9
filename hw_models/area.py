"""Area of an accelerator from its parts, in closed form.

    area[um2] = cores * (macs * (MAC + register) + lanes * (MAC + lane register) + sum of per-core SRAM) + shared SRAM

For the `edge22` template this equals the published area of all 3,240 designs of CATransformers' `cores.json`
(relative 1e-9; facts and
residuals: docs/models/hardware.md). Not counted, because no table of ours has it: network on chip, controller,
    DRAM PHY, I/O, wiring.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hw_models.technology import cacti7_curve, logic, sram

FloatArray = npt.NDArray[np.float64]


def logic_area_scale(node_nm: npt.ArrayLike) -> FloatArray:
    """Area of logic relative to 22 nm: the ratio of CACTI 7's SRAM areas (256 KiB), an assumption stated as such; 1
    at 22 nm.
    """
    from hw_models.technology import cacti7

    node = np.asarray(node_nm, dtype=np.float64)
    if np.all(node == 22.0):
        return np.ones_like(node)
    size = 256 * 1024.0
    return np.asarray(cacti7("area_um2", size, node) / cacti7_curve("area_um2", 22)(size))


def area_mm2(
    *,
    cores: npt.ArrayLike,
    macs_per_core: npt.ArrayLike,
    lanes: npt.ArrayLike,
    core_sram_bytes: npt.ArrayLike,
    shared_sram_bytes: npt.ArrayLike,
    node_nm: npt.ArrayLike = 22.0,
    word_bits: npt.ArrayLike = 8,
) -> FloatArray:
    """Area (points,) [mm2].

    Args:
        cores, macs_per_core, lanes: (points,); ``lanes`` of all cores together.
        core_sram_bytes: (points, memories) capacities of the memories that every core has.
        shared_sram_bytes: (points, memories) capacities of the memories that exist once.
        node_nm, word_bits: (points,); a MAC's area goes linearly with its width (Accelergy's library).
    """
    count = np.asarray(cores, dtype=np.float64)
    node = np.broadcast_to(np.asarray(node_nm, dtype=np.float64), count.shape)
    width = np.asarray(word_bits, dtype=np.float64) / 8.0
    scale = logic_area_scale(node) * width
    mac, array_register, lane_register = logic("mac"), logic("array_register"), logic("vector_register")
    unit = (mac.area_um2 + array_register.area_um2) * scale
    lane = (mac.area_um2 + lane_register.area_um2) * scale
    core_sram = sram("area_um2", core_sram_bytes, node[:, None]).sum(axis=1)
    shared_sram = sram("area_um2", shared_sram_bytes, node[:, None]).sum(axis=1)
    total = unit * (count * np.asarray(macs_per_core, dtype=np.float64)) + lane * np.asarray(lanes, dtype=np.float64)
    return np.asarray((total + count * core_sram + shared_sram) * 1e-6)


def leakage_w(
    *,
    cores: npt.ArrayLike,
    core_sram_bytes: npt.ArrayLike,
    shared_sram_bytes: npt.ArrayLike,
    node_nm: npt.ArrayLike = 22.0,
) -> FloatArray:
    """SRAM leakage (points,) [W] at nominal voltage (CACTI 7); the leakage of logic and the refresh of DRAM are not
    modelled.
    """
    count = np.asarray(cores, dtype=np.float64)
    node = np.broadcast_to(np.asarray(node_nm, dtype=np.float64), count.shape)[:, None]
    core = sram("leakage_w", core_sram_bytes, node).sum(axis=1)
    shared = sram("leakage_w", shared_sram_bytes, node).sum(axis=1)
    return np.asarray(count * core + shared)
