"""Head maps: their texts and what they refuse; operations and KV bytes of decoders follow the map exactly."""

from __future__ import annotations

import numpy as np
import pytest

import workloads
from workloads.errors import WorkloadError
from workloads.head_map import equal_map, map_from_owners, parse_head_map

UNEQUAL = "pitch:16/1,time:8/1,duration:4/1,velocity:2/1,voice:2/2"


def test_maps_by_text_by_size_and_by_owners() -> None:
    chosen = parse_head_map(UNEQUAL)
    assert (chosen.heads, chosen.kv_heads) == (32, 6)
    assert chosen.kv_of_head == tuple([0] * 16 + [1] * 8 + [2] * 4 + [3] * 2 + [4, 5])
    assert str(chosen) == UNEQUAL
    assert map_from_owners(chosen.kv_of_head).kv_of_head == chosen.kv_of_head
    assert equal_map(8, 2).kv_of_head == (0, 0, 0, 0, 1, 1, 1, 1)
    assert equal_map(4, 4).kv_of_head == (0, 1, 2, 3)
    assert equal_map(4, 1).kv_of_head == (0, 0, 0, 0)
    assert parse_head_map("a:3/2").kv_of_head == (0, 0, 1)


def test_bytes_follow_the_map() -> None:
    assert parse_head_map(UNEQUAL).kv_bytes_per_token(layers=3, head_dim=64, kv_bits=16) == 2 * 3 * 6 * 64 * 2
    halves = parse_head_map("all:2/1,pitch:6/2@0.25")
    assert halves.kv_bytes_per_token(layers=1, head_dim=8, kv_bits=8) == 2 * (1 + 2 * 0.25) * 8


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be NAME:HEADS/KV_HEADS"),
        ("a:0/1", "heads of group a is 0, must be 1 to 4096"),
        ("a:2/0", "kv_heads of group a is 0, must be 1 to its heads = 2; nearest is 1"),
        ("a:2/3", "nearest is 2"),
        ("a:2/1,a:2/1", "group a of the head map is named twice"),
        ("a:4096/1,b:1/1", "4097 query heads"),
        ("a:2/1@0", "share of group a is 0"),
        ("a:2/1@1.5", "share of group a is 1.5"),
    ],
)
def test_bad_texts(text: str, message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        parse_head_map(text)


@pytest.mark.parametrize("owners", [[], [1, 0], [0, 2], [0, 1, 0], [-1, 0]])
def test_bad_owners(owners: list[int]) -> None:
    with pytest.raises(WorkloadError, match="kv_of_head"):
        map_from_owners(owners)


@pytest.mark.parametrize("fused", [False, True])
def test_equal_groups_are_the_model_itself(fused: bool) -> None:
    family = workloads.load("llama3-8b")
    for phase in ("prefill", "decode", "generate"):
        plain = family.build(phase=phase, fused_attention=fused)
        mapped = family.build(phase=phase, head_map="all:32/8", fused_attention=fused)
        assert mapped.macs() == plain.macs() and mapped.kv_cache_bytes() == plain.kv_cache_bytes()
        for a, b in zip(plain.phases, mapped.phases, strict=True):
            for name, column in vars(a.table).items():
                assert np.array_equal(column, getattr(b.table, name)), name


@pytest.mark.parametrize("fused", [False, True])
def test_unequal_groups_count_what_they_read(fused: bool) -> None:
    family, context = workloads.load("llama3-8b"), 1000
    made = family.build(phase="decode", context=context, head_map=UNEQUAL, fused_attention=fused)
    own = family.build(phase="decode", context=context, fused_attention=fused)
    assert made.kv_cache_bytes() == own.kv_cache_bytes() * 6 / 8
    # Scores and contexts are of query heads, which stay; keys and values lose two of eight heads.
    assert own.macs() - made.macs() == 32 * 2 * 2 * 128 * 4096
    assert own.parameter_count() - made.parameter_count() == 32 * 2 * 2 * 128 * 4096
    table = made.phases[0].table
    cached = np.flatnonzero(table.second_is_cache)
    share = table.kv_share[cached] if fused else 1
    elements = table.batch[cached] // share * table.repeat[cached] * context * 128 * (2 if fused else 1)
    assert elements.sum() * made.dimensions["kv_bits"] // 8 == made.kv_cache_bytes()


def test_groups_that_store_a_share_of_the_tokens() -> None:
    family = workloads.load("llama3-8b")
    made = family.build(phase="decode", context=1000, head_map="all:16/2,pitch:16/4@0.25")
    assert made.kv_cache_bytes() == 2 * 32 * (2 + 4 * 0.25) * 128 * 1000
    keys = made.phases[0].table.n[made.phases[0].table.second_is_cache]
    assert sorted(set(keys.tolist()) - {128}) == [250, 1000]


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"head_map": "a:16/1"}, "head_map of llama3-8b has 16 query heads, must have heads = 32"),
        ({"head_map": "a:32/4", "kv_heads": 8}, "kv_heads of llama3-8b is 8, must be 4 as its head_map has; nearest is 4"),
        ({"head_map": 7}, "must be a text"),
        ({"head_map": "a32/4"}, "must be NAME:HEADS/KV_HEADS"),
    ],
)
def test_maps_that_the_model_cannot_have(knobs: dict[str, object], message: str) -> None:
    with pytest.raises(WorkloadError, match=message):
        workloads.load("llama3-8b").build(**knobs)
