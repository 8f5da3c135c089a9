"""Decode attention against torch (heads repeated) and numpy, over maps, lengths, sizes, instruction sets; and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from dse_kernels import attention
from dse_kernels.attention_reference import (
    decode_paged_reference,
    decode_reference,
    decode_shared_reference,
    merge_reference,
    quantise_reference,
)
from torch.nn import functional

# Float32 sums of up to 8,192 terms in another order; bfloat16 probabilities have 8 bits: relative 2^-9 of values of order 1.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
UNEQUAL = [0] * 16 + [1] * 8 + [2] * 4 + [3] * 2 + [4, 5]
MAPS = {
    "mha": list(range(4)),
    "gqa": [h // 4 for h in range(8)],
    "mqa": [0] * 9,
    "unequal": UNEQUAL,
    "three": [0, 0, 0, 1, 2, 2],
    "interleaved": [0, 1, 2, 0, 1, 2, 0, 0],
}


def problem(owners: list[int], rows: int, tokens: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(rows, len(owners), d, generator=generator).to(dtype)
    k, v = (torch.randn(rows, tokens, max(owners) + 1, d, generator=generator).to(dtype) for _ in range(2))
    return q, k, v


def by_torch(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, owners: list[int], lengths: list[int]) -> torch.Tensor:
    """Scaled dot-product attention with every KV head repeated for its query heads, float32, row by row."""
    rows = []
    for b, n in enumerate(lengths):
        kh, vh = (x[b, :n].float().transpose(0, 1)[owners][None] for x in (k, v))
        rows.append(functional.scaled_dot_product_attention(q[b].float()[None, :, None], kh, vh)[0, :, 0])
    return torch.stack(rows)


@pytest.mark.parametrize("instructions", attention.instruction_sets())
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("owners", MAPS.values(), ids=MAPS)
def test_any_map_equals_torch_with_heads_repeated(owners: list[int], dtype: torch.dtype, instructions: str) -> None:
    for d in (32, 40, 64, 128, 256, 7):
        for tokens in (1, 15, 64, 65, 530):
            q, k, v = problem(owners, 3, tokens, d, dtype)
            lengths = [tokens, max(1, tokens // 2), 1]
            found = attention.decode(q, k, v, owners, lengths, instructions=instructions)
            assert found.dtype == dtype
            assert (found.float() - by_torch(q, k, v, owners, lengths)).abs().max() <= TOLERANCE[dtype], (d, tokens)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_the_longest_context(dtype: torch.dtype) -> None:
    owners = [0, 0, 0, 1]
    q, k, v = problem(owners, 2, 8192, 64, dtype)
    found = attention.decode(q, k, v, owners, [8192, 8191])
    assert (found.float() - by_torch(q, k, v, owners, [8192, 8191])).abs().max() <= TOLERANCE[dtype]


SWEPT = {"mha": [0, 1, 2], "gqa": [0, 0, 1, 1], "mqa": [0] * 9, "unequal": [0, 0, 0, 1, 2, 2]}


@pytest.mark.slow
@pytest.mark.parametrize("d", [32, 48, 64, 96, 128, 192, 256])
@pytest.mark.parametrize("owners", SWEPT.values(), ids=SWEPT)
def test_sweep_of_contexts_and_sizes(owners: list[int], d: int) -> None:
    """Ragged lengths up to each context, one thread and two, the three widths of the cache: the tolerances of the page on attention."""
    for tokens in (1, 2, 3, 15, 16, 17, 63, 64, 65, 127, 500, 511, 512, 513, 1000, 1024, 2047, 2048, 4095, 4096, 8191, 8192):
        lengths = [tokens, tokens // 2 + 1, 1]
        for dtype, tolerance in TOLERANCE.items():
            q, k, v = problem(owners, 3, tokens, d, dtype, seed=tokens)
            found = attention.decode(q, k, v, owners, lengths, threads=1)
            expected = by_torch(q, k, v, owners, lengths)
            # The result is rounded to bfloat16 as well: 2^-9 of it, which for values above 2 is most of the tolerance.
            assert ((found.float() - expected).abs() / expected.abs().clamp(min=1)).max() <= tolerance, (tokens, dtype)
            assert torch.equal(found, attention.decode(q, k, v, owners, lengths, threads=2))
        q, k, v = problem(owners, 3, tokens, d, seed=tokens)
        cache = attention.Int8Cache.empty(3, tokens, max(owners) + 1, d)
        attention.append(cache, k, v)
        found = attention.decode_int8(q, cache, owners, np.array(lengths), threads=1)
        plain = cache.dequantised()
        exact = by_torch(q, *(torch.from_numpy(x) for x in plain), owners, lengths)
        bound = rounding_of_probabilities(q.numpy(), *plain, owners, np.array(lengths))
        assert ((found - exact).abs().amax(dim=-1).numpy() <= bound + 1e-3).all(), tokens
        assert (found - exact).abs().max() <= 3e-2, tokens
        assert torch.equal(found, attention.decode_int8(q, cache, owners, np.array(lengths), threads=2))


def test_equal_groups_are_grouped_query_attention() -> None:
    q, k, v = problem(MAPS["gqa"], 2, 100, 64)
    grouped = functional.scaled_dot_product_attention(q[:, :, None], k.transpose(1, 2), v.transpose(1, 2), enable_gqa=True)[:, :, 0]
    assert (attention.decode(q, k, v, MAPS["gqa"], [100, 100]) - grouped).abs().max() <= 1e-5


def test_bits_do_not_depend_on_threads_and_arrays_are_used_where_they_lie() -> None:
    q, k, v = problem(UNEQUAL, 2, 1100, 32)
    one = attention.decode(q, k, v, UNEQUAL, [1100, 700], threads=1)
    for threads in (2, 3, 8):
        assert torch.equal(one, attention.decode(q, k, v, UNEQUAL, [1100, 700], threads=threads))
    assert np.array_equal(one.numpy(), attention.decode(q.numpy(), k.numpy(), v.numpy(), UNEQUAL, [1100, 700]))
    turned = k.transpose(1, 2).contiguous().transpose(1, 2)
    assert (attention.decode(q, turned, v, UNEQUAL, [1100, 700]) - one).abs().max() <= 1e-6
    wide = torch.randn(2, 1100, 6, 64)
    wide[..., :32] = k
    assert torch.equal(attention.decode(q, wide[..., :32], v, UNEQUAL, [1100, 700]), one)


def test_lengths_of_each_head() -> None:
    owners = [0, 0, 1, 2]
    q, k, v = (x.numpy() for x in problem(owners, 2, 90, 16))
    lengths = np.array([[90, 1, 17], [3, 64, 70]])
    found = attention.decode(q, k, v, owners, lengths)
    assert np.abs(found - decode_reference(q, k, v, np.array(owners), lengths)).max() <= 1e-5


def test_large_scores_and_a_scale() -> None:
    q, k, v = problem([0, 0], 1, 200, 64)
    found = attention.decode(q * 30, k * 30, v, [0, 0], [200], scale=0.5)
    reference = decode_reference((q * 30).numpy(), (k * 30).numpy(), v.numpy(), np.array([0, 0]), np.array([200]), 0.5)
    # Scores of thousands have float32 steps of 2e-4, and the softmax is all but a choice.
    assert np.abs(found.numpy() - reference).max() <= 1e-2
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("instructions", attention.instruction_sets())
@pytest.mark.parametrize("page", [1, 16, 48, 64, 300])
def test_pages_in_any_order(page: int, instructions: str) -> None:
    owners, lengths = MAPS["unequal"], [130, 1, 299]
    generator = torch.Generator().manual_seed(page)
    blocks = -(-300 // page)
    q = torch.randn(3, len(owners), 32, generator=generator)
    k, v = (torch.randn(3 * blocks + 2, page, 6, 32, generator=generator) for _ in range(2))
    table = torch.randperm(3 * blocks, generator=generator).view(3, blocks)
    for row, length in enumerate(lengths):
        table[row, -(-length // page) :] = -7  # never looked at
    reference = decode_paged_reference(q.numpy(), k.numpy(), v.numpy(), table.numpy(), np.array(lengths), np.array(owners))
    found = attention.decode_paged(q, k, v, table, lengths, owners, instructions=instructions)
    assert np.abs(found.numpy() - reference).max() <= 1e-5
    halves = [x.bfloat16() for x in (q, k, v)]
    found = attention.decode_paged(*halves, table, lengths, owners, instructions=instructions)
    assert np.abs(found.float().numpy() - reference).max() <= 2e-2  # inputs rounded to bfloat16 as well


@pytest.mark.parametrize("instructions", attention.instruction_sets())
@pytest.mark.parametrize(("rows", "prefix"), [(1, 1), (3, 65), (70, 130), (4, 1030)])
def test_a_shared_prefix_is_a_prefix_of_every_row(rows: int, prefix: int, instructions: str) -> None:
    for owners in (MAPS["gqa"], MAPS["mqa"], MAPS["interleaved"]):
        for dtype, tolerance in TOLERANCE.items():
            q, k, v = problem(owners, rows, 20, 36, dtype)
            pk, pv = (x[0] for x in problem(owners, 1, prefix, 36, dtype, seed=5)[1:])
            lengths = np.arange(rows) % 21
            plain = [x.float().numpy() for x in (q, pk, pv, k, v)]
            reference = decode_shared_reference(*plain, np.array(owners), lengths)
            found = attention.decode_shared(q, pk, pv, k, v, owners, lengths, instructions=instructions)
            assert np.abs(found.float().numpy() - reference).max() <= tolerance


def test_merging_by_log_sum_exp_is_associative() -> None:
    generator = np.random.default_rng(0)
    parts = [(generator.normal(size=(2, 3, 8)), generator.normal(size=(2, 3)) * 5) for _ in range(3)]
    log_sum = np.logaddexp(parts[0][1], parts[1][1])
    left = merge_reference([(merge_reference(parts[:2]), log_sum), parts[2]])
    assert np.allclose(left, merge_reference(parts), atol=1e-12)


@pytest.mark.parametrize("instructions", attention.instruction_sets())
@pytest.mark.parametrize("d", [4, 32, 36, 128, 256])
def test_quantised_cache(d: int, instructions: str) -> None:
    for owners in MAPS.values():
        q, k, v = problem(owners, 2, 150, d)
        cache = attention.Int8Cache.empty(2, 150, max(owners) + 1, d)
        attention.append(cache, k[:, :100], v[:, :100])
        for t in range(100, 150):
            attention.append(cache, k[:, t], v[:, t])
        plain_k, plain_v = cache.dequantised()
        for found, given in ((plain_k, k), (plain_v, v)):
            whole, scale = quantise_reference(given.numpy())
            assert np.array_equal(found[:, :150], whole * scale[..., None])
        lengths = np.array([150, 33])
        found = attention.decode_int8(q, cache, owners, lengths, instructions=instructions).numpy()
        exact = decode_reference(q.numpy(), plain_k, plain_v, np.array(owners), lengths)
        rounding = rounding_of_probabilities(q.numpy(), plain_k, plain_v, owners, lengths)
        # q in 15 bits: steps of 6e-5 of the largest, values up to 5. The bound is of the worst case; what is drawn stays far below it.
        assert (np.abs(found - exact).max(axis=-1) <= rounding + 1e-3).all()
        assert np.abs(found - exact).max() <= 3e-2
        # Quantisation: a score is off by at most e = scale |q|_1 max(k_scale) / 2, weights by a factor exp(2 e), values by half a scale.
        original = decode_reference(q.numpy(), k.numpy(), v.numpy(), np.array(owners), lengths)
        e = d**-0.5 * float(q.abs().sum(-1).max()) * float(cache.k_scale.max()) / 2
        bound = float(cache.v_scale.max()) / 2 + np.expm1(2 * e) * float(v.abs().max()) + rounding.max() + 1e-3
        assert np.abs(found - original).max() <= bound


def rounding_of_probabilities(
    q: np.ndarray[Any, Any], k: np.ndarray[Any, Any], v: np.ndarray[Any, Any], owners: list[int], lengths: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """(rows, heads): the most that rounded weights cost, each off by 1/254 of the largest weight times value of its 64 tokens."""
    bound = np.zeros(q.shape[:2])
    for b, h in np.ndindex(q.shape[:2]):
        n, kv = int(lengths[b]), owners[h]
        scores = q.shape[-1] ** -0.5 * (k[b, :n, kv].astype(np.float64) @ q[b, h])
        weights = np.exp(scores - scores.max())
        largest = weights / weights.sum() * np.abs(v[b, :n, kv]).max(axis=-1)
        bound[b, h] = sum(len(part) * part.max() for part in np.split(largest, range(64, n, 64))) / 254
    return bound


@pytest.mark.parametrize("instructions", attention.instruction_sets())
@pytest.mark.parametrize("tail", [0.1, 0.45, 1.4])
def test_a_flat_tail_of_small_probabilities_is_not_lost_in_the_quantised_cache(tail: float, instructions: str) -> None:
    # One token in 64 has 255 / tail times the probability of the others, whose parts of a step no rounding by itself would keep.
    tokens, d = 1024, 64
    k = np.zeros((1, tokens, 1, d), np.float32)
    k[0, 3::64, 0, 0] = np.log(255 / tail) * d**0.5
    v = np.random.default_rng(0).uniform(1, 3, (1, tokens, 1, d)).astype(np.float32)
    q = np.zeros((1, 1, d), np.float32)
    q[..., 0] = 1
    cache = attention.Int8Cache.empty(1, tokens, 1, d)
    attention.append(cache, k, v)
    found = attention.decode_int8(q, cache, [0], instructions=instructions)
    exact = decode_reference(q, *cache.dequantised(), np.array([0]), np.array([tokens]))
    assert abs(float((found / exact).mean()) - 1) <= 0.01
    assert np.abs(found / exact - 1).max() <= 0.03


def test_quantised_cache_in_bfloat16_and_zeros() -> None:
    cache = attention.Int8Cache.empty(1, 16, 1, 8)
    attention.append(cache, torch.zeros(1, 1, 8).bfloat16(), torch.ones(1, 1, 8).bfloat16())
    found = attention.decode_int8(torch.ones(1, 2, 8).bfloat16(), cache, [0, 0])
    assert found.dtype == torch.bfloat16 and torch.allclose(found.float(), torch.ones(1, 2, 8), atol=1e-2)
    with pytest.raises(ValueError, match=r"positions\[0\] is 1, must be 0 to 0 for 16 tokens in a cache of 16"):
        attention.append(cache, np.zeros((1, 16, 1, 8), np.float32), np.zeros((1, 16, 1, 8), np.float32))
    assert cache.lengths.tolist() == [1]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "head without owner": ({"kv_of_head": [0, 0, 0, 0]}, "no query head for KV head 1"),
    "index above": ({"kv_of_head": [0, 1, 2, 1]}, r"kv_of_head\[2\] is 2, must be 0 to 1"),
    "index below": ({"kv_of_head": [0, 1, -1, 1]}, r"kv_of_head\[2\] is -1"),
    "short map": ({"kv_of_head": [0, 1]}, "kv_of_head has 2 entries, must have 4"),
    "fractions": ({"kv_of_head": [0.0, 1.0, 1.0, 1.0]}, "must be whole numbers"),
    "zero heads": ({"q": np.zeros((2, 0, 8), np.float32), "kv_of_head": np.zeros(0, int)}, "q is empty"),
    "length past the cache": ({"lengths": [5, 6]}, r"lengths\[1\] is 6, must be 1 to 5"),
    "length zero": ({"lengths": [0, 5]}, r"lengths\[0\] is 0"),
    "lengths of other rows": ({"lengths": [5]}, "lengths has 1 rows, must have 2"),
    "NaN in q": ({"q": np.full((2, 4, 8), np.nan, np.float32)}, r"q\[0, 0, 0\] is not a finite number"),
    "NaN in k": ({"k": np.full((2, 5, 2, 8), np.nan, np.float32)}, "not a finite number: k or v holds NaN"),
    "NaN in v": ({"v": np.full((2, 5, 2, 8), np.nan, np.float32)}, "not a finite number: k or v holds NaN"),
    "NaN scale": ({"scale": float("nan")}, "scale is not a finite number"),
    "float64": ({"k": np.zeros((2, 5, 2, 8))}, "k has dtype float64, must be float32 or bfloat16"),
    "mixed": ({"v": torch.zeros(2, 5, 2, 8).bfloat16()}, "must have the dtype of q"),
    "stride": ({"k": np.zeros((2, 5, 2, 16), np.float32)[..., ::2]}, "k has stride 2 in its last axis, must be 1"),
    "axes": ({"k": np.zeros((2, 5, 8), np.float32)}, "k has 3 axes, must have 4"),
    "dims": ({"k": np.zeros((2, 5, 2, 4), np.float32), "v": np.zeros((2, 5, 2, 4), np.float32)}, "q has 8 dims a head, must have 4"),
    "values of another shape": ({"v": np.zeros((2, 4, 2, 8), np.float32)}, "v has 4 entries in axis 1, must have 5 as k"),
    "rows": ({"k": np.zeros((3, 5, 2, 8), np.float32), "v": np.zeros((3, 5, 2, 8), np.float32)}, "k has 3 rows, must have 2"),
    "threads": ({"threads": 0}, "threads is 0, must be 1 to 1024"),
    "instructions": ({"instructions": "sse9"}, "instructions is 'sse9', which this machine does not have"),
    "list": ({"q": [[[1.0]]]}, "q is a list, must be an array of numpy or a tensor of torch"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    q, k, v = (x.numpy() for x in problem([0, 0, 1, 1], 2, 5, 8))
    given = {"q": q, "k": k, "v": v, "kv_of_head": [0, 0, 1, 1], "lengths": [5, 5], **change}
    with pytest.raises(ValueError, match=message):
        attention.decode(**given)


def test_pages_out_of_range_are_refused() -> None:
    q, pages, _ = (x.numpy() for x in problem([0, 0], 2, 4, 8))
    for named in (2, -1, 2**33):
        with pytest.raises(ValueError, match=r"block_table\[1, 1\] is .*, must be 0 to 1"):
            attention.decode_paged(q, pages, pages, [[0, 1], [1, named]], [8, 5], [0, 0])
    with pytest.raises(ValueError, match=r"lengths\[0\] is 9, must be 1 to 8"):
        attention.decode_paged(q, pages, pages, [[0, 1], [1, 0]], [9, 5], [0, 0])
