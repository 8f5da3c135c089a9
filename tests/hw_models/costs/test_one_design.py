"""The evaluator of single designs gives the bits of the one for many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import workloads
from hw_models import spaces as templates
from hw_models.accelerator.design import AcceleratorBatch
from hw_models.costs.evaluate import evaluate
from hw_models.costs.one_design import DesignCost, Evaluator
from hw_models.devices import library
from hw_models.errors import HardwareError


@pytest.mark.parametrize("profile", ["default", "catransformers22"])
@pytest.mark.parametrize("knobs", [{}, {"fused_attention": True}, {"weight_bits": 4}])
def test_same_bits_as_many_designs(profile: str, knobs: dict[str, object]) -> None:
    template = templates.load("edge22", profile=profile)
    batch = template.batch(**template.grid()).take(np.arange(11, template.size, template.size // 6))
    workload = workloads.load("bert").build(layers=3, hidden=192, heads=3, sequence=80, **knobs)
    if profile != "default" and "fused_attention" in knobs:
        with pytest.raises(HardwareError, match="no fused attention"):
            Evaluator(workload, batch)(0)
        return
    together = evaluate(batch, workload)
    evaluator = Evaluator(workload, batch)
    assert len(evaluator) == len(batch)
    for point in range(len(batch)):
        one = evaluator(point)
        for name in DesignCost._fields:
            assert getattr(one, name) == getattr(together, name)[point], name


def test_phases_and_precision() -> None:
    template = templates.load("edge22")
    batch = template.batch(
        cores=4, width=64, depth=16, l2_kib=256, l2_words_per_cycle=64, glb_mib=4, weight_bits=[0, 4, 4], kv_bits=[0, 0, 4]
    )
    workload = workloads.load("gpt2").build(sequence=32, new_tokens=8, layers=2)
    assert len(workload.phases) > 1
    together = evaluate(batch, workload)
    evaluator = Evaluator(workload, batch)
    for point in range(3):
        assert evaluator(point).energy_j == together.energy_j[point]
        assert evaluator(point).latency_s == together.latency_s[point]


def test_several_chips() -> None:
    template = templates.load("datacenter")
    rng = np.random.default_rng(5)
    batch = template.batch(**{name: rng.choice(np.array(values), 6) for name, values in template.knobs.items()})
    workload = workloads.load("gpt2").build(sequence=32, new_tokens=4, layers=2, weight_bits=16)
    together, evaluator = evaluate(batch, workload), Evaluator(workload, batch)
    assert len(set(batch.chips.tolist())) > 1
    for point in range(len(batch)):
        one = evaluator(point)
        for name in DesignCost._fields:
            assert getattr(one, name) == getattr(together, name)[point], name


def test_designs_of_the_imitated_search_do_not_depend_on_their_company() -> None:
    """The limit of that search is a design's own: a mapping that it drops is no hint from a neighbour."""
    template = templates.load("edge22", profile="catransformers22")
    grid = template.batch(**template.grid())
    workload = workloads.load("bert").build()
    for points in (np.arange(84, 98), np.arange(140, 150)):
        batch = grid.take(points)
        together, evaluator = evaluate(batch, workload), Evaluator(workload, batch)
        assert [evaluator(point).latency_s for point in range(len(batch))] == together.latency_s.tolist()


def test_many_models_are_refused() -> None:
    template = templates.load("edge22")
    batch = template.batch(**template.grid()).take([0])
    model = workloads.load("bert").build(layers=np.array([2, 3]), hidden=128, heads=2, sequence=16)
    with pytest.raises(HardwareError, match="costs one model"):
        Evaluator(model, batch)


def test_boards_with_kernels() -> None:
    """Designs that kernels run on, whose energy is a board's: the same bits, each at its own place."""
    batch = AcceleratorBatch.of([replace(library.load("h100").accelerator, chips=chips) for chips in (1, 2)])
    workload = workloads.load("bert").build(layers=2, hidden=128, heads=2, sequence=32)
    for point in range(2):
        together, one = evaluate(batch.take([point]), workload), Evaluator(workload, batch)(point)
        for name in DesignCost._fields:
            assert getattr(one, name) == getattr(together, name)[0], name
