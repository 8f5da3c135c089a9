"""Widths that a design fixes: which bytes and columns of a workload they change, and which not."""

from __future__ import annotations

import numpy as np
import pytest

from hw_models.costs.precision import at_widths, workload_at_widths
from workloads import library


def test_saved_activations_are_as_wide_as_activations() -> None:
    step = library.load("gpt2").build(phase="train", layers=2, sequence=32)
    built = int(step.phases[0].table.output_bits.max())
    saved = {
        widths: float(workload_at_widths(step, widths).phases[0].saved_bytes) for widths in ((0, 0, 0), (0, 4, 0), (4, 0, 0), (0, 0, 4))
    }
    assert saved[0, 0, 0] > 0
    assert saved[0, 4, 0] == pytest.approx(saved[0, 0, 0] * 4 / built)
    assert saved[4, 0, 0] == saved[0, 0, 4] == saved[0, 0, 0]


def test_a_cache_is_as_wide_as_its_own_width() -> None:
    made = library.load("gpt2").build(layers=2, sequence=32, new_tokens=4)
    whole = float(made.kv_cache_bytes())
    built = max(int(p.table.weight_bits[p.table.second_is_cache].max()) for p in made.phases if p.table.second_is_cache.any())
    assert float(workload_at_widths(made, (0, 0, 4)).kv_cache_bytes()) == pytest.approx(whole * 4 / built)
    assert float(workload_at_widths(made, (4, 4, 0)).kv_cache_bytes()) == whole


def test_columns_that_a_width_changes() -> None:
    """Weights: second operands that are parameters; cache: those that are a cache, and results that are written into one."""
    table = library.load("gpt2").build(layers=2, sequence=32, new_tokens=4).phases[-1].table
    products = np.flatnonzero(table.k > 0)
    weights, cache = at_widths(table, (4, 0, 0)), at_widths(table, (0, 0, 4))
    parameter = table.second_is_weight[products]
    kept = table.second_is_cache[products]
    assert parameter.any() and kept.any()
    assert (weights.weight_bits[products][parameter] == 4).all()
    assert (weights.weight_bits[products][~parameter] == table.weight_bits[products][~parameter]).all()
    assert (cache.weight_bits[products][kept] == 4).all()
    assert (cache.weight_bits[products][~kept] == table.weight_bits[products][~kept]).all()
    assert (cache.output_bits == np.where(table.writes_cache, 4, table.output_bits)).all()
    assert (weights.output_bits == table.output_bits).all()
