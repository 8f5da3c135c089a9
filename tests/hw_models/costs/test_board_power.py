"""The rule of boards' energy: parts add up to the limit in large products, nothing draws more, published joules a token."""

from __future__ import annotations

import numpy as np
import pytest

from hw_models.costs import board_power
from hw_models.costs.gpu_kernels.products import sustained_clock
from hw_models.costs.kernels import board_of
from hw_models.devices import gpus, library

NAMES = gpus.gpu_names()


@pytest.mark.parametrize("name", NAMES)
def test_large_products_draw_the_limit(name: str) -> None:
    """At the sustained clock, energies scaled to its voltage: idle + active + traffic of large products + arithmetic = limit."""
    batch = library.load(name).accelerator.batch()
    board, x = board_of(batch, 0), sustained_clock(gpus.gpu_sheet(name))
    dram_j = float(board.byte_j[0]) - board_power.WAY_PJ_PER_BYTE * 1e-12 / x**2
    traffic = board_power.PRODUCT_TRAFFIC * float(batch.dram_bytes_per_s[0]) * (dram_j + board_power.WAY_PJ_PER_BYTE * 1e-12)
    rate = float(batch.tops[0]) * 1e12 / 2 * board_power.SUSTAINED * x
    power = float(board.idle_w[0] + board.active_w[0] * x**3) + traffic + rate * float(board.mac_j[0]) * x**2
    limit = library.load(name).tdp_w
    # A board whose memory alone fills the limit pays a tenth more for arithmetic.
    assert power == pytest.approx(limit, rel=1e-9) or limit < power < 1.2 * limit


@pytest.mark.parametrize("name", NAMES)
def test_nothing_draws_more_than_the_limit_and_more_work_never_less(name: str) -> None:
    batch = library.load(name).accelerator.batch()
    x = sustained_clock(gpus.gpu_sheet(name))
    seconds, work = np.ones((5, 1)), np.array([0.0, 1e10, 1e12, 1e14, 1e16])[:, None]
    spent = board_power.dynamic_j(batch, seconds, work, np.zeros((5, 1)), x)[:, 0]
    assert (np.diff(spent) >= 0).all() and spent[0] > 0
    assert spent[-1] == pytest.approx(library.load(name).tdp_w - float(batch.leakage_w[0]))
    assert (board_power.dynamic_j(batch, seconds, work, seconds * 1e11, x)[:, 0] >= spent).all()
