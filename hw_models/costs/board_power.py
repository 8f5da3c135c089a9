"""Energy of devices with a power limit: idle, active, arithmetic and traffic, in one rule for all of them.

A board takes its idle power always (``leakage_w`` of the design). While it works, clocks and leakage at temperature add a share of
the limit, a byte between DRAM and core costs the DRAM's table energy and its way over the chip, and a multiply-accumulate costs
what is left of the limit at the rate that large products sustain: so power at full rate equals the limit, whatever the format.
No operation takes more than the limit. Evaluations and simulated engines share the rule; docs/models/gpu.md holds it to published
measurements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_models.accelerator.design import AcceleratorBatch
from hw_models.technology.tables import dram

FloatArray = npt.NDArray[np.float64]

ACTIVE_SHARE: Final = 0.15
"""Of the limit, above idle, while anything runs. An estimate: A100s are said to draw 60-70 % of their limit while they generate tokens
(recalled of Patel et al., POLCA, ASPLOS 2024, arXiv:2308.12908, not checked), which idle power and traffic leave unexplained by this
much."""
WAY_PJ_PER_BYTE: Final = 60.0
"""From the DRAM's interface through caches, network and registers to a core and back: the rest of the power of A100s that stream
(some 265 W at 1.6 TB/s) after idle, active and HBM2's own energy."""
PRODUCT_TRAFFIC: Final = 0.3  # share of the DRAM's rate that large products take
SUSTAINED: Final = 0.9  # share of the peak rate of large products on devices whose sustained clock is not modelled


@dataclass(frozen=True, eq=False)
class BoardEnergy:
    """What one chip of each design spends (points,), at the clock of its sheet.

    Attributes:
        idle_w, limit_w: power of the idle board and its limit.
        active_w: clocks and leakage at temperature while anything runs, above idle.
        byte_j: a byte between DRAM and core.
        mac_j: a bf16 (on narrower devices: native) multiply-accumulate.
    """

    idle_w: FloatArray
    limit_w: FloatArray
    active_w: FloatArray
    byte_j: FloatArray
    mac_j: FloatArray


def board_energy(hardware: AcceleratorBatch, clock: npt.ArrayLike = 1.0) -> BoardEnergy:
    """The rule for designs with a power limit.

    ``clock``: share of the sheet's clock that large products sustain under the limit. What is left of the limit then decides the energy
    of a multiply-accumulate; whatever does not reach the limit runs at the full clock, at more voltage (taken as proportional): energies
    on the die go with its square, the power of clocks with the cube.
    """
    share = np.asarray(clock, dtype=np.float64)
    idle = hardware.leakage_w / hardware.all_chips
    dram_j = dram(hardware.level_kinds[-1]).pj_per_byte * 1e-12
    way_j = WAY_PJ_PER_BYTE * 1e-12
    left = hardware.tdp_w * (1 - ACTIVE_SHARE) - idle - PRODUCT_TRAFFIC * hardware.dram_bytes_per_s * (dram_j + way_j)
    rate = hardware.tops / hardware.all_chips * 1e12 / 2 * SUSTAINED * share
    # A device whose memory alone reaches its limit still pays something for arithmetic: a tenth of the limit.
    mac = np.maximum(left, 0.1 * hardware.tdp_w) / rate
    active = hardware.tdp_w * ACTIVE_SHARE / share**3
    byte = np.broadcast_to(dram_j + way_j / share**2, hardware.tdp_w.shape)
    return BoardEnergy(np.asarray(idle), hardware.tdp_w, np.asarray(active), np.asarray(byte), np.asarray(mac / share**2))


def dynamic_j(
    hardware: AcceleratorBatch, latency_s: FloatArray, macs: FloatArray, dram_bytes: FloatArray, clock: npt.ArrayLike = 1.0
) -> FloatArray:
    """Energy above idle of operations (shapes, points) on one chip of each design; arrays broadcast to that shape.

    ``macs`` are counted at bf16's energy: divide those of a format by its rate. ``clock`` as in `board_energy`.
    """
    board = board_energy(hardware, clock)
    spent = latency_s * board.active_w + macs * board.mac_j + dram_bytes * board.byte_j
    limit = (board.limit_w - board.idle_w) * latency_s
    return np.asarray(np.minimum(spent, np.maximum(limit, 0.0)))
