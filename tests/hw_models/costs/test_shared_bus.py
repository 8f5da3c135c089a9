"""Reads and writes that share the bus of a level: times worked by hand, and the same costs by every way to ask for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import workloads
from hw_models import spaces as templates
from hw_models.accelerator.design import Accelerator, AcceleratorBatch
from hw_models.costs.evaluate import evaluate
from hw_models.costs.one_design import Evaluator
from workloads.ops import Kind, Operation, OperationTable

EDGE = templates.load("edge22")
KNOBS = {"cores": 1, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 128, "glb_mib": 4}


def design(*, shared: bool) -> Accelerator:
    """A design of edge22 whose DRAM moves 128 words a cycle each way, or in turns."""
    one = EDGE.accelerator(**KNOBS)
    return replace(one, levels=(*one.levels[:-1], replace(one.levels[-1], shared_bus=shared)))


def latency_s(rows: list[Operation], *, shared: bool) -> float:
    return float(evaluate(design(shared=shared), OperationTable.from_rows(rows)).latency_s)


def test_a_sum_of_two_tensors_reads_twice_what_it_writes() -> None:
    """An array of 64 lanes takes n / 64 cycles; three words an element over 8 a cycle take longer, one after the other."""
    n = 64 * 1024
    slow = [replace(v, read_words_per_cycle=8.0, write_words_per_cycle=8.0) if v.kind != "sram" else v for v in design(shared=True).levels]
    rows = [Operation("sum", Kind.ELEMENTWISE, n, 1, function="add", operands=2)]
    for shared, words in ((True, 3 * n), (False, 2 * n)):
        levels = tuple(replace(v, shared_bus=shared and v.kind != "sram") for v in slow)
        one = replace(design(shared=shared), levels=levels)
        cost = evaluate(one, OperationTable.from_rows(rows))
        assert float(cost.latency_s) == pytest.approx(words / 8 / one.frequency_hz, rel=1e-12)
        assert float(cost.dram_s) == float(cost.latency_s)


def test_a_product_bound_by_its_memory() -> None:
    """A row of 1,024 times a matrix of 1,024 x 1,024, each word once: k + k n words in and n out at 8 words a cycle."""
    k = n = 1024
    rows = [Operation("row", Kind.GEMM, 1, n, k, second_is_weight=True, parameters=n * k, weight_id="w")]
    for shared, words in ((True, k + k * n + n), (False, k + k * n)):
        one = design(shared=shared)
        levels = tuple(replace(v, read_words_per_cycle=8.0, write_words_per_cycle=8.0) if v.kind != "sram" else v for v in one.levels)
        cost = evaluate(replace(one, levels=levels), OperationTable.from_rows(rows))
        assert float(cost.latency_s) == pytest.approx(words / 8 / one.frequency_hz, rel=1e-12)


@pytest.mark.parametrize("fused", [False, True])
def test_every_way_to_ask_gives_the_same_bits_and_turns_are_never_faster(fused: bool) -> None:
    grid = EDGE.grid()
    batch = EDGE.batch(**{name: column[7::401] for name, column in grid.items()})
    shared = replace(batch, level_shared_bus=(False, False, True))
    workload = workloads.load("bert").build(layers=2, hidden=192, heads=3, sequence=80, fused_attention=fused)
    apart, turns = evaluate(batch, workload, criterion="latency"), evaluate(shared, workload, criterion="latency")
    # By latency the mapping is the fastest of each, so that turns cannot gain; somewhere the DRAM is what counts.
    assert (turns.latency_s >= apart.latency_s).all()
    assert (turns.latency_s > apart.latency_s).any()
    together, evaluator = evaluate(shared, workload), Evaluator(workload, shared)
    for point in range(len(shared)):
        assert evaluator(point).latency_s == together.latency_s[point]
        assert evaluator(point).energy_j == together.energy_j[point]


def test_a_file_says_it_and_others_are_as_they_were(tmp_path) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(design(shared=True).to_toml(), encoding="utf-8")
    back = Accelerator.from_toml(path)
    assert [level.shared_bus for level in back.levels] == [False, False, True]
    assert back.batch().accelerator(0, name="edge").levels[-1].shared_bus
    assert "shared_bus" not in design(shared=False).to_toml()
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("shared_bus = true", "shared_bus = 1"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"levels\.dram\.shared_bus = 1 is not valid: it must be true or false"):
        Accelerator.from_toml(path)
    with pytest.raises(ValueError, match="shared buses"):
        AcceleratorBatch.of([design(shared=True), design(shared=False)])
    assert np.array_equal(evaluate(design(shared=False), workloads.load("bert-tiny").build()).latency_s,
                          evaluate(EDGE.accelerator(**KNOBS), workloads.load("bert-tiny").build()).latency_s)  # fmt: skip
