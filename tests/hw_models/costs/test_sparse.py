"""Costs of sparse beam search: by hand, monotone, and never those of a dense product."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw_models.costs.evaluate import unit_costs
from hw_models.costs.sparse import home_level, level_latency_s, score_cycles
from hw_models.errors import HardwareError
from hw_models.spaces import template
from hw_models.technology.tables import sram
from workloads.ops import Kind, Operation, OperationTable

ROW = Operation(
    name="level_2",
    kind=Kind.SPARSE_BEAM,
    m=10,
    n=80,
    k=10,
    input_bits=32,
    output_bits=32,
    weight_bits=60,
    parameters=3_000_000,
    row_probes=180,
    row_hits=90,
    sparse_macs=1200,
    unique_lines=400,
    dependent_depth=4,
    table_bytes=30_000_000,
)
SMALL = {"cores": 1, "lanes": 4, "tree_sram_kib": 256, "banks": 16, "gather_outstanding": 16, "gather_line_bytes": 64}


def _cost(row: Operation = ROW, name: str = "lookup", **knobs: object) -> tuple[float, float]:
    given = {**SMALL, **knobs} if name == "lookup" else knobs
    found = unit_costs(OperationTable.from_rows([row]), template.load(name).batch(**given))
    return float(found.latency_s[0, 0]), float(found.energy_j[0, 0])


def test_a_level_in_dram_by_hand() -> None:
    # 625 MHz, so 1.6 ns a cycle: a scratchpad and an SRAM of a cycle each on the way, then 53.5 ns of LPDDR4.
    access = [float(sram("access_s", kib * 1024, 22.0, 32)) for kib in (32, 256)]
    on_the_way = sum(np.ceil(max(a, 1.6e-9) / 1.6e-9) * 1.6e-9 for a in access)
    latency = on_the_way + 53.5e-9
    waiting, bandwidth = 400 * latency / 16, 400 * 64 / 25.6e9
    compute = (180 / 4 + max(90, 1200 / 4) + 800 * score_cycles() / 4) / 625e6
    assert _cost()[0] == pytest.approx(4 * latency + max(waiting, bandwidth, compute), rel=1e-12)


def test_a_level_in_sram_is_read_there() -> None:
    upper = replace(ROW, table_bytes=200_000)
    batch = template.load("lookup").batch(**SMALL)
    assert home_level(np.array([200_000.0, 30e6, 20_000.0]), batch)[:, 0].tolist() == [1, 2, 0]
    found = unit_costs(OperationTable.from_rows([upper]), batch)
    assert found.dram_bytes[0, 0] == 0 and found.latency_s[0, 0] < _cost()[0] and found.energy_j[0, 0] < _cost()[1]
    assert (np.diff(level_latency_s(batch)[0]) > 0).all()


@pytest.mark.parametrize("name", ["lookup", "cpu"])
def test_more_hardware_is_never_slower(name: str) -> None:
    t = template.load(name)
    grid = t.grid()
    costs = unit_costs(OperationTable.from_rows([ROW, replace(ROW, table_bytes=400_000)]), t.batch(**grid))
    for knob in grid:
        # A longer line moves more bytes, and a larger memory answers later (CACTI): slower or faster.
        if knob in ("gather_line_bytes", "tree_sram_kib", "l2_kib", "l3_kib"):
            continue
        others = [k for k in grid if k != knob]
        order = np.lexsort([grid[knob], *(grid[k] for k in others)])
        shaped = costs.latency_s[:, order].reshape(2, -1, len(t.knobs[knob]))
        assert (shaped[:, :, 1:] <= shaped[:, :, :-1] * (1 + 1e-12)).all(), knob


def test_more_work_costs_more_and_batches_add() -> None:
    time, energy = _cost()
    for name in ("row_probes", "sparse_macs", "unique_lines", "dependent_depth"):
        more = _cost(replace(ROW, **{name: 4 * getattr(ROW, name)}))
        assert more[0] >= time and more[1] >= energy
    assert _cost(replace(ROW, batch=3))[1] == pytest.approx(3 * energy)


def test_edge22_and_datacenter_cost_it_too() -> None:
    edge = {"cores": 1, "width": 64, "depth": 8, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}
    slow = _cost(name="edge22", **edge, gather_outstanding=1)[0]
    fast = _cost(name="edge22", **edge, gather_outstanding=64)[0]
    assert slow > 4 * fast > 0
    # The dense product of 800 labels with 135,213 features would be 108 million multiply-adds: some 300 us on these 512 units.
    assert fast < 50e-6


def test_a_level_in_flash_by_hand() -> None:
    # 400 counted lines are 400 pages of 16 KiB, 45 us each, 16 at once; four channels of 1.2 GB/s move them.
    flash = {"dram_type": "nand"}
    access = [float(sram("access_s", kib * 1024, 22.0, 32)) for kib in (32, 256)]
    latency = sum(np.ceil(max(a, 1.6e-9) / 1.6e-9) * 1.6e-9 for a in access) + 45e-6
    assert _cost(**flash)[0] == pytest.approx(4 * latency + max(400 * latency / 16, 400 * 16384 / 4.8e9), rel=1e-12)
    # No more pages than the level has: 8,000 weights of 60 bits fill four.
    few = 4 * latency + max(4 * latency / 16, 4 * 16384 / 4.8e9)
    assert _cost(replace(ROW, parameters=8000), **flash)[0] == pytest.approx(few, rel=1e-12)
    # What the SRAM holds costs the same beside either.
    upper = replace(ROW, table_bytes=200_000)
    assert _cost(upper, **flash)[0] == _cost(upper)[0] and _cost(**flash)[1] > _cost()[1]


def test_flash_is_only_read() -> None:
    product = Operation(name="product", kind=Kind.GEMM, m=8, n=8, k=8)
    with pytest.raises(HardwareError, match=r"dram_type 'nand' is flash.*needs a DRAM, such as 'lpddr4'"):
        unit_costs(OperationTable.from_rows([product]), template.load("lookup").batch(**SMALL, dram_type="nand"))


def test_counts_of_a_table() -> None:
    table = OperationTable.from_rows([ROW])
    assert int(table.macs()) == 1200 and int(table.parameter_count()) == 3_000_000
    assert float(table.weight_bytes()) == pytest.approx(3_000_000 * 60 / 8)


def test_what_bounds_a_level_is_named() -> None:
    """The level that is waited for, or the lanes where they take longer than the chain of look-ups."""
    batch = template.load("lookup").batch(**SMALL)
    deep = replace(ROW, dependent_depth=4000)
    upper = replace(deep, table_bytes=200_000)
    lanes = replace(ROW, sparse_macs=40_000_000)
    found = unit_costs(OperationTable.from_rows([deep, upper, lanes]), batch)
    names = [found.bound_names[int(i)] for i in found.bound[:, 0]]
    assert names == [batch.level_names[2], batch.level_names[1], "vector"]
