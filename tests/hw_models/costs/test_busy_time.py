"""Busy times of the DRAM and of the vector unit, counted by hand; what bounds an operation is busy all its time."""

import numpy as np
import pytest

from hw_models.costs import evaluate as cost
from hw_models.spaces import load
from workloads import library
from workloads.ops import Kind, Operation, OperationTable


def test_the_dram_is_busy_for_its_own_words() -> None:
    """A product that fits every buffer moves each operand over the DRAM once, at the words a cycle of the DRAM, not of an inner level."""
    design = load("edge22").accelerator(cores=1, width=64, depth=16, l2_kib=256, l2_words_per_cycle=64, glb_mib=8)
    table = OperationTable.from_rows([Operation("p", Kind.GEMM, m=64, n=64, k=64, second_is_weight=True)])
    found = cost.evaluate(design, table)
    batch = design.batch()
    reads, writes = 2 * 64 * 64, 64 * 64  # 8-bit operands and results, each moved once; ports of their own, so the busier one counts
    read_rate, write_rate = float(batch.level_read_words_per_cycle[0, -1]), float(batch.level_write_words_per_cycle[0, -1])
    seconds = max(reads / read_rate, writes / write_rate) / float(batch.frequency_hz[0])
    assert float(found.dram_bytes) == reads + writes
    assert float(batch.level_read_words_per_cycle[0, 0]) != float(batch.level_read_words_per_cycle[0, -1])
    assert float(found.dram_s) == pytest.approx(seconds, rel=1e-12)


def test_the_lanes_are_busy_for_their_elements() -> None:
    """An addition of two tensors is one step of a lane an element: elements over lanes, a cycle each; arrays and links rest."""
    design = load("edge22").accelerator(cores=2, width=64, depth=16, l2_kib=256, l2_words_per_cycle=64, glb_mib=8)
    table = OperationTable.from_rows([Operation("add", Kind.ELEMENTWISE, m=128, n=768, function="add")])
    found = cost.evaluate(design, table)
    batch = design.batch()
    lanes = int(batch.vector_lanes[0])  # of all cores
    assert float(found.vector_s) == pytest.approx(-(-128 * 768 // lanes) / float(batch.frequency_hz[0]), rel=1e-12)
    assert float(found.array_s) == float(found.link_s) == 0.0


@pytest.mark.parametrize(
    ("knobs", "bounds"),
    [({}, {"compute", "l2"}), ({"cores": 4, "width": 128, "depth": 32, "l2_words_per_cycle": 128}, {"compute", "vector"})],
)
def test_what_bounds_an_operation_is_busy_all_its_time(knobs: dict[str, int], bounds: set[str]) -> None:
    edge22 = load("edge22")
    design = edge22.accelerator(**{name: int(values[len(values) // 2]) for name, values in edge22.knobs.items()} | knobs)
    shapes = library.load("bert").build().phases[0].table.distinct(parallel=True).table
    found = cost.unit_costs(shapes, design.batch())
    bound = np.array(found.bound_names)[found.bound[:, 0]]
    latency = found.latency_s[:, 0]
    assert bounds <= set(bound)
    for name, busy in (("compute", found.array_s), ("vector", found.vector_s), ("dram", found.dram_s)):
        np.testing.assert_array_equal(busy[bound == name, 0], latency[bound == name])
        assert (busy[:, 0] <= latency).all()
    assert not found.link_s.any()
