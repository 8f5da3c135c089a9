"""Layers of routed experts of a model on a GPU: the kernel model that validation judges, shared out over the table's rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.costs.evaluate import evaluate
from hw_models.costs.gpu_kernels import mixtures
from hw_models.costs.gpu_kernels.kernel_choice import choice
from hw_models.costs.gpu_kernels.operations import kernel_times
from hw_models.costs.gpu_kernels.parameters import family
from hw_models.devices import gpus, library
from workloads.blocks import Bits
from workloads.moe import active_experts, moe_rows
from workloads.ops import OperationTable

H100 = gpus.gpu_sheet("h100")


def layer(
    tokens: int, *, hidden: int = 2048, inner: int = 768, experts: int = 128, chosen: int = 8, imbalance: float = 1.0
) -> OperationTable:
    """One layer of experts in bf16, its router included."""
    rows = moe_rows(
        hidden=hidden, expert_ffn=inner, experts=experts, top_k=chosen, tokens=tokens, bits=Bits(16, 16, 16), repeat=1, activation="silu",
        imbalance=imbalance,
    )  # fmt: skip
    return OperationTable.from_rows(rows)


def routed_s(table: OperationTable, *, warm: bool) -> float:
    times = kernel_times(table, H100, warm=warm)
    return float((times.latency_s * table.repeat)[table.moe_experts > 0].sum())


@pytest.mark.parametrize("tokens", [4, 64, 1000, 20_000])
def test_a_layer_of_a_model_costs_what_validation_judges(tokens: int) -> None:
    """Repeats times unit costs of the rows add up to the layer whose error `dse validate kernels` prints, at the same loads."""
    imbalance = 3.0
    loads = mixtures.expert_tokens(tokens, 128, 8, 1, mixtures.exponent_of(tokens, 128, 8, imbalance))
    kernel = family(choice(H100).mixture("bf16"), kind="mixture")
    judged = mixtures.mixture_times(H100, family("asynchronous", kind="product"), kernel, [loads], tokens, 2048, 768, 128, 8).latency_s
    table = layer(tokens, imbalance=imbalance)
    # The rows deal fixed time by the table's count of experts with work, all of which run.
    assert routed_s(table, warm=True) == pytest.approx(float(judged[0]), rel=1e-9)


def test_what_runs_inside_the_grouped_kernels_costs_nothing_more() -> None:
    table = layer(64)
    times = kernel_times(table, H100)
    inside = (table.moe_experts > 0) & (table.moe_joined == 0)
    assert {"dispatch", "expert_silu", "expert_mul", "combine_scale", "combine_add"} == set(table.name[inside])
    assert (times.latency_s[inside] == 0).all() and (times.dram_bytes[inside] == 0).all()
    assert (times.latency_s[table.moe_joined > 0] > 0).all()


def test_a_model_reads_the_weights_of_every_expert_with_work() -> None:
    table = layer(64)
    times = kernel_times(table, H100)
    products = table.moe_joined > 0
    read = float((times.dram_bytes * table.repeat)[products].sum())
    weights = active_experts(64, 128, 8) * 3 * 2048 * 768 * 2.0
    assert weights <= read <= 1.2 * weights


def test_grouped_products_beat_a_launch_for_each_expert() -> None:
    """A hundred experts of a few tokens: one kernel instead of some 300 launches of 2 us."""
    table = layer(64)
    alone = OperationTable.from_rows(
        [type(row)(**{**vars(row), **{name: 0 for name in vars(row) if name.startswith("moe_")}}) for row in table.rows()]
    )
    single = kernel_times(alone, H100)
    assert routed_s(table, warm=False) < 0.5 * float((single.latency_s * alone.repeat)[np.char.startswith(alone.name, "expert_")].sum())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4000), st.sampled_from([(8, 2), (128, 8), (160, 6)]), st.floats(1.0, 8.0), st.sampled_from([1, 2, 4]))
def test_loads_of_a_layer(tokens: int, shape: tuple[int, int], imbalance: float, ranks: int) -> None:
    experts, chosen = shape
    loads = np.array(mixtures.layer_loads(tokens, experts, chosen, active_experts(tokens, experts, chosen), ranks, imbalance))
    assert loads.max() <= tokens * (1 if imbalance > 1 else chosen)
    total = tokens * chosen
    if ranks == 1:
        assert loads.sum() == pytest.approx(total)
    else:
        assert total / ranks - 1e-9 <= loads.sum() <= total  # the rank that has most has at least its share


def test_imbalance_is_the_busiest_over_the_mean() -> None:
    for imbalance in (1.5, 2.5, 6.0):
        loads = mixtures.layer_loads(8000, 128, 8, 128, 1, imbalance)
        assert max(loads) / (8000 * 8 / 128) == pytest.approx(imbalance, rel=0.05)  # whole tokens and 20 bisections
    steps = [mixtures.exponent_of(8000, 128, 8, imbalance) for imbalance in (1.1, 1.5, 2.5, 6.0)]
    assert steps == sorted(steps) and steps[1] < 0 < steps[2]


def test_more_tokens_and_wider_experts_never_cost_less() -> None:
    hardware = library.load("h100").accelerator
    by_tokens = [float(evaluate(hardware, layer(tokens)).latency_s) for tokens in (1, 8, 64, 512, 4096)]
    assert by_tokens == sorted(by_tokens)
    by_width = [float(evaluate(hardware, layer(64, inner=inner)).latency_s) for inner in (256, 768, 1536)]
    assert by_width == sorted(by_width)
