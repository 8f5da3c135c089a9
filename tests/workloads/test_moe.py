"""Mixtures of experts: exact products, expected experts against a simulation, effect of imbalance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workloads
from workloads.moe import active_experts, expert_loads


@given(st.integers(1, 3000), st.integers(1, 300), st.integers(1, 20), st.floats(1, 50))
def test_loads_add_up(tokens: int, experts: int, top_k: int, imbalance: float) -> None:
    top_k = min(top_k, experts)
    fuller, many, emptier, few = expert_loads(tokens, experts, top_k, imbalance)
    assert fuller * many + emptier * few == tokens * top_k
    assert many + few == active_experts(tokens, experts, top_k, imbalance)
    assert top_k <= many + few <= min(experts, tokens * top_k)
    assert fuller == emptier + 1
    assert fuller <= tokens or many == 0  # an expert sees a token once


def test_expected_experts_against_a_simulation() -> None:
    random = np.random.default_rng(7)
    for tokens, experts, top_k in ((1, 8, 2), (4, 8, 2), (32, 256, 8), (8, 64, 6), (500, 128, 8)):
        draws = [len({int(expert) for _ in range(tokens) for expert in random.permutation(experts)[:top_k]}) for _ in range(60)]
        # Half a unit of rounding and four standard errors of the simulated mean.
        error = 0.5 + 4 * float(np.std(draws)) / math.sqrt(len(draws))
        assert abs(active_experts(tokens, experts, top_k) - np.mean(draws)) <= error


def test_arrays_equal_numbers() -> None:
    tokens = np.array([1, 3, 64, 1000])
    for values in zip(*expert_loads(tokens, 64, 6, 1.0), tokens, strict=True):
        assert tuple(int(value) for value in values[:4]) == expert_loads(int(values[4]), 64, 6, 1.0)


def test_imbalance_reads_fewer_experts_and_computes_the_same() -> None:
    family = workloads.load("mixtral-8x7b")
    builds = [family.build(phase="decode", batch=16, imbalance=x, sequence=64) for x in (1, 2, 4)]
    assert len({build.macs() for build in builds}) == 1
    read = [int((t.row_second_elements() * t.repeat)[t.second_is_weight].sum()) for b in builds for t in (b.phases[0].table,)]
    assert read[0] > read[1] > read[2]
    assert len({build.parameter_count() for build in builds}) == 1


def test_a_mixture_costs_its_closed_form() -> None:
    d = workloads.load("mixtral-8x7b").build(phase="prefill", sequence=100, all_logits=True)
    L, H, KV, F, E, V, T = 32, 4096, 1024, 14336, 8, 32000, 100
    assert d.macs() == L * (T * (2 * H * H + 2 * H * KV + H * E + 2 * 3 * H * F) + 2 * T * T * H) + T * H * V


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"top_k": 9}, "top_k of mixtral-8x7b is 9, must be at most experts = 8"),
        ({"top_k": 0}, "top_k of mixtral-8x7b is 0"),
        ({"imbalance": 0.5}, "imbalance of mixtral-8x7b is 0.5"),
    ],
)
def test_impossible_mixtures(knobs: dict[str, float], words: str) -> None:
    with pytest.raises(workloads.WorkloadError) as caught:
        workloads.load("mixtral-8x7b").build(**knobs)
    assert words in str(caught.value)
