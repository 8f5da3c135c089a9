"""Busy time of the DRAM: bytes over bandwidth, counted by hand."""

import pytest

from hw_models.costs import evaluate as cost
from hw_models.spaces import load
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
