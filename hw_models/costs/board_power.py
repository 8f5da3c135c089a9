"""Energy of devices with a power limit: idle, active, arithmetic and traffic, in one rule for all of them.

A board takes its idle power always (``leakage_w`` of the design). While it works, clocks and leakage at temperature add a share of
the limit, a byte between DRAM and core costs the DRAM's table energy and its way over the chip, and a multiply-accumulate costs
what is left of the limit at the rate that large products sustain: so power at full rate equals the limit, whatever the format.
No operation takes more than the limit. docs/models/gpu.md holds the rule to published measurements.
"""

from __future__ import annotations

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


def mac_j(hardware: AcceleratorBatch, sustained: npt.ArrayLike = SUSTAINED) -> FloatArray:
    """Energy of a bf16 (or, on narrower devices, native) multiply-accumulate of each design (points,) [J]."""
    idle = hardware.leakage_w / hardware.chips
    byte = traffic_j(hardware)
    left = hardware.tdp_w * (1 - ACTIVE_SHARE) - idle - PRODUCT_TRAFFIC * hardware.dram_bytes_per_s * byte
    rate = hardware.tops / hardware.chips * 1e12 / 2 * np.asarray(sustained)
    # A device whose memory alone reaches its limit still pays something for arithmetic: a tenth of the limit.
    return np.asarray(np.maximum(left, 0.1 * hardware.tdp_w) / rate)


def traffic_j(hardware: AcceleratorBatch) -> FloatArray:
    """Energy of a byte between DRAM and core (points,) [J]."""
    return np.full(len(hardware), (dram(hardware.level_kinds[-1]).pj_per_byte + WAY_PJ_PER_BYTE) * 1e-12)


def dynamic_j(
    hardware: AcceleratorBatch, latency_s: FloatArray, macs: FloatArray, dram_bytes: FloatArray, sustained: npt.ArrayLike = SUSTAINED
) -> FloatArray:
    """Energy above idle of operations (shapes, points) on one chip of each design; arrays broadcast to that shape.

    ``macs`` are counted at bf16's energy: divide those of a format by its rate.
    """
    work = macs * mac_j(hardware, sustained) + dram_bytes * traffic_j(hardware)
    spent = latency_s * hardware.tdp_w * ACTIVE_SHARE + work
    limit = (hardware.tdp_w - hardware.leakage_w / hardware.chips) * latency_s
    return np.asarray(np.minimum(spent, np.maximum(limit, 0.0)))
