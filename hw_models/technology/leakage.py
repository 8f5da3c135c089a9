"""Leakage of SRAM: the power of a design that does nothing, from the technology tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hw_models.technology.closed_forms import sram_leakage_w
from hw_models.technology.floorplan import sram_sum

FloatArray = npt.NDArray[np.float64]


def leakage_w(
    *,
    cores: npt.ArrayLike,
    core_sram_bytes: npt.ArrayLike,
    shared_sram_bytes: npt.ArrayLike,
    core_access_bytes: Sequence[int] = (),
    shared_access_bytes: Sequence[int] = (),
    node_nm: npt.ArrayLike = 22.0,
    supply: npt.ArrayLike = 1.0,
) -> FloatArray:
    """SRAM leakage (points,) [W]: (cores x that of a core's memories + that of the shared ones) x supply relative to nominal.

    The watts of a memory are those of CACTI 7 at its size, width and node (``data/sram_cacti.csv``), interpolated between its rows. The
    leakage of logic and the refresh of DRAM are not modelled.
    """
    count = np.asarray(cores, dtype=np.float64)
    node = np.broadcast_to(np.asarray(node_nm, dtype=np.float64), count.shape)
    core = sram_sum("leakage_w", core_sram_bytes, core_access_bytes, node)
    shared = sram_sum("leakage_w", shared_sram_bytes, shared_access_bytes, node)
    return np.asarray(sram_leakage_w(count, core, shared, np.asarray(supply, dtype=np.float64)))
