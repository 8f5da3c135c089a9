"""BERT and its relatives: closed forms for any dimensions, published totals, traced products, model spaces."""

from __future__ import annotations

import ast
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workloads
from workloads.compare import product_profile
from workloads.ops import Kind

dims = st.fixed_dictionaries(
    {
        "layers": st.integers(1, 30),
        "heads": st.integers(1, 16),
        "head_dim": st.integers(1, 128),
        "ffn": st.integers(1, 4096),
        "sequence": st.integers(1, 512),
        "batch": st.integers(1, 8),
    }
)


def bert_macs(L: int, H: int, A: int, F: int, S: int, B: int) -> int:
    """MACs of a BERT encoder with pooler: four projections, two attention products, two feed-forward products."""
    return B * (L * (4 * S * H * A + 2 * S * S * A + 2 * S * H * F) + H * H)


def bert_parameters(L: int, H: int, A: int, F: int) -> int:
    """Embeddings (30,522 words, 512 positions, 2 types) and norm, layers, pooler."""
    layer = 3 * (H * A + A) + (A * H + H) + (H * F + F) + (F * H + H) + 4 * H
    return (30522 + 512 + 2) * H + 2 * H + L * layer + H * H + H


@given(dims, st.integers(1, 768))
def test_closed_forms_for_any_dimensions(d: dict[str, int], hidden: int) -> None:
    workload = workloads.load("bert").build(**d, hidden=hidden)
    inner = d["heads"] * d["head_dim"]
    assert workload.macs() == bert_macs(d["layers"], hidden, inner, d["ffn"], d["sequence"], d["batch"])
    assert workload.parameter_count() == bert_parameters(d["layers"], hidden, inner, d["ffn"])
    assert workload.weight_bytes() == workload.parameter_count()


@given(dims, st.integers(1, 128))
def test_closed_forms_of_a_classifier_on_every_token(d: dict[str, int], hidden: int) -> None:
    """As above without pooler: 33 tokens, 32 positions, 1 type, and 32 classes of each token."""
    d = {**d, "sequence": min(d["sequence"], 32)}
    workload = workloads.load("series-encoder").build(**d, hidden=hidden)
    inner = d["heads"] * d["head_dim"]
    pooler, tables = hidden * hidden, 30522 + 512 + 2
    each_token = d["batch"] * d["sequence"] * hidden * 32
    assert workload.macs() == bert_macs(d["layers"], hidden, inner, d["ffn"], d["sequence"], d["batch"]) - d["batch"] * pooler + each_token
    expected = bert_parameters(d["layers"], hidden, inner, d["ffn"]) - (pooler + hidden) - (tables - 33 - 32 - 1) * hidden
    assert workload.parameter_count() == expected + 32 * hidden + 32


def test_the_default_space_of_an_encoder_that_was_trained_from_scratch() -> None:
    """The knobs of its table, heads of 8 or 16 that need not fill the width; that of BERT stays layers by width."""
    grid = workloads.load("series-encoder").model_grid()
    assert {name: sorted(set(column.tolist())) for name, column in grid.items() if name != "ffn"} == {
        "layers": [1, 2, 3, 4],
        "hidden": [32, 48, 64, 96],
        "heads": [1, 2, 4, 8],
        "head_dim": [8, 16],
        "weight_bits": [3, 4, 8],
    }
    assert set((grid["ffn"] / grid["hidden"]).tolist()) == {0.5, 1.0, 2.0, 4.0} and len(grid["ffn"]) == 4 * 4 * 4 * 2 * 4 * 3
    assert set(workloads.load("bert").model_grid()) == {"layers", "hidden", "ffn", "heads"}


def test_bert_base_totals() -> None:
    workload = workloads.load("bert").build(sequence=128)
    assert workload.parameter_count() == 109_482_240  # keras-hub presets
    assert 2 * workload.macs() == 22_348_431_360  # 22.348 GFLOP of the exported graph
    table = workload.phases[0].table
    products = [name for name, kind in zip(table.name, table.kind, strict=True) if kind == Kind.GEMM]
    assert products == ["q_proj", "k_proj", "v_proj", "scores", "context", "o_proj", "ffn_up", "ffn_down", "pooler"]


@pytest.mark.parametrize("model", ["bert-base", "vit-b16"])
def test_products_equal_the_traced_ones(model: str, gemm_rows: list[dict[str, str]]) -> None:
    found = {}
    for row in gemm_rows:
        if row["model"] != model or row["attn"] != "sdpa":
            continue
        shapes, count = ast.literal_eval(row["shapes"]), int(row["count"])
        if row["op"] == "aten.addmm.default":
            (m, k), (_, n) = shapes[1], shapes[2]
            key = ("GEMM", 1, 1, m, k, True)
        elif row["op"] == "aten.bmm.default":
            (batch, m, k), (_, _, n) = shapes
            key = ("GEMM", 1, 1, batch * m, k, False)
        else:
            (_, _, side, _), (n, channels, patch, _) = shapes[0], shapes[1]
            key = ("CONV", 1, 1, (side // patch) ** 2, channels * patch * patch, True)
        found[key] = found.get(key, 0) + n * count
    family = workloads.load(model)
    workload = family.build(sequence=128) if model == "bert-base" else family.build()
    # The class default that was traced has two labels, the named ViT 1,000 (in the CSV: the pooler of the default class).
    expected = {key: n for key, n in product_profile(workload.phases[0].table).items() if key[3] > 1}
    assert expected == {key: n for key, n in found.items() if key[3] > 1}


def test_model_spaces() -> None:
    family = workloads.load("bert")
    assert family.spaces == ("default", "catransformers")
    grid = family.model_grid("catransformers")
    assert {name: column.dtype for name, column in grid.items()} == dict.fromkeys(("layers", "hidden", "ffn", "heads"), np.int64)
    assert len(set(zip(*grid.values(), strict=True))) == 7168
    assert (grid["hidden"] % grid["heads"] == 0).all()
    assert sorted(set(grid["hidden"].tolist())) == [48 * i for i in range(1, 17)]
    assert sorted(set(grid["ffn"].tolist())) == [192 * i for i in range(1, 17)]
    small = family.model_grid()
    assert len(small["layers"]) == 11 * 11
    assert (small["hidden"] == 64 * small["heads"]).all()
    assert (small["ffn"] == 4 * small["hidden"]).all()
    with pytest.raises(workloads.WorkloadError, match="nearest is 'catransformers'"):
        family.model_grid("catransformer")


def test_a_whole_space_is_built_at_once_and_right() -> None:
    family = workloads.load("bert")
    grid = family.model_grid("catransformers")
    workload = family.build(**grid)
    H, F, L = grid["hidden"], grid["ffn"], grid["layers"]
    assert np.array_equal(workload.macs(), bert_macs(L, H, H, F, 512, 1))
    assert np.array_equal(workload.parameter_count(), bert_parameters(L, H, H, F))
    start = time.process_time()
    shapes, index = workload.phases[0].table.distinct()
    assert time.process_time() - start < 0.3  # 0.013 s on an idle machine
    assert index.shape == (7168, len(workload.phases[0].table))
    assert (shapes.kind == Kind.GEMM).sum() < 700


def test_a_grid_of_own_choices_holds_only_models_that_exist() -> None:
    grid = workloads.load("bert").model_grid(hidden=[480, 500, 512], heads=[4, 12])
    assert list(zip(grid["hidden"].tolist(), grid["heads"].tolist(), strict=True)) == [(480, 4), (480, 12), (500, 4), (512, 4)]
    with pytest.raises(workloads.WorkloadError, match="no combination"):
        workloads.load("bert").model_grid(hidden=[769], heads=[2])
    with pytest.raises(workloads.WorkloadError, match="nearest is 'hidden'"):
        workloads.load("bert").model_grid(hiden=[768])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        (
            {"hidden": 770},
            "hidden of bert-base is 770, must be a multiple of heads = 12; nearest is hidden = 768 or heads = 11",
        ),
        ({"sequence": 513}, "sequence of bert-base is 513, must be at most positions = 512"),
        ({"layers": 0}, "layers of bert-base is 0, must be 1 to 4096; nearest is 1"),
        ({"weight_bits": 5}, "weight_bits of bert-base is 5, must be one of 1, 2, 3, 4, 6, 8, 16, 32; nearest is 4"),
        ({"phase": "forwards"}, "must be one of forward, train; nearest is 'forward'"),
        ({"layer": 2}, "nearest is 'layers'"),
        ({"hidden": "many"}, "must be a whole number"),
        ({"hidden": float("nan")}, "must be a whole number"),
        ({"fused_attention": 1}, "must be true or false"),
        ({"hidden": np.array([768, 480]), "heads": np.array([12, 12, 12])}, "one length"),
        ({"heads": np.array([12, 7])}, "multiple of heads = 7"),
    ],
)
def test_knobs_that_no_model_has(knobs: dict[str, object], message: str) -> None:
    with pytest.raises((workloads.WorkloadError, ValueError)) as caught:
        workloads.load("bert").build(**knobs)
    assert message in str(caught.value)
    assert isinstance(caught.value, workloads.WorkloadError)


def test_precision_scales_bytes_not_products() -> None:
    family = workloads.load("bert")
    eight, four = family.build(), family.build(weight_bits=4, activation_bits=16)
    assert four.macs() == eight.macs()
    assert four.weight_bytes() * 2 == eight.weight_bytes()
    assert four.activation_bytes() == 2 * eight.activation_bytes()


def test_peak_activations_of_a_layer() -> None:
    # Feed-forward: its input, the wide vector before and after GELU; attention: scores before and after softmax, x and v.
    for sequence in (64, 512):
        H, F, A, S = 768, 3072, 12, sequence
        expected = max(S * H + 2 * S * F, 2 * A * S * S + 2 * S * H, 5 * S * H)
        assert workloads.load("bert").build(sequence=S).activation_bytes() == expected


def test_fused_attention_has_the_same_products_in_an_encoder() -> None:
    family = workloads.load("bert")
    plain, fused = family.build(sequence=512), family.build(sequence=512, fused_attention=True)
    assert plain.macs() == fused.macs()
    assert fused.activation_bytes() < plain.activation_bytes()
