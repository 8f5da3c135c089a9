"""Convolutions on systolic arrays: SCALE-Sim's rows, a set-based replay, and the sizes of im2col."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models.errors import HardwareError
from hw_models.systolic.conv import conv_counts, im2col, replay_flush_cache
from hw_models.systolic.gemm import gemm_counts
from hw_models.validation.arrays import EXACT, columns, convolution_reference, differing

ARRAY = {"rows": 8, "columns": 8, "dataflow": "ws", "ifmap_kib": 64, "filter_kib": 64, "ofmap_kib": 64}


def test_equals_every_row_of_the_simulator() -> None:
    rows, counts = convolution_reference()
    assert len(rows) == 75
    assert not differing(rows, counts).any()
    # A quarter of the rows have inputs that do not fit, so that the replay is put to the test and not only the closed form.
    distinct = im2col(
        *(columns(rows, c) for c in ("height", "width", "channels", "filters", "filter_height", "filter_width")),
        stride=columns(rows, "stride"),
        ceil_mode=True,
    ).distinct_input_words
    assert (distinct >= 50 * (1024 * columns(rows, "ifmap_kib") // 100)).sum() >= 20
    assert set(EXACT) >= {"cycles_scalesim", "ifmap_dram_reads", "filter_dram_reads"}


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_im2col_counts_windows_and_words(height, width, r, s, stride, padding, ceil_mode) -> None:
    padded = (height + 2 * padding, width + 2 * padding)
    if r > padded[0] or s > padded[1]:
        with pytest.raises(HardwareError, match="exceeds the padded input"):
            im2col(height, width, 3, 5, r, s, stride=stride, padding=padding, ceil_mode=ceil_mode)
        return
    shape = im2col(height, width, 3, 5, r, s, stride=stride, padding=padding, ceil_mode=ceil_mode)
    starts = []
    for extent, window in zip(padded, (r, s), strict=True):
        if ceil_mode:  # the simulator's count: ceil((extent - window + stride) / stride)
            starts.append([i * stride for i in range(-(-(extent - window + stride) // stride))])
        else:  # every window that lies inside
            starts.append([y for y in range(0, extent, stride) if y + window <= extent])
    words = {
        (y + a, x + b) for y in starts[0] for x in starts[1] for a in range(r) for b in range(s) if y + a < padded[0] and x + b < padded[1]
    }
    assert (shape.output_height, shape.output_width) == (len(starts[0]), len(starts[1]))
    assert shape.m == len(starts[0]) * len(starts[1])
    assert (shape.n, shape.k) == (5, r * s * 3)
    assert shape.distinct_input_words == 3 * len(words)


def test_output_size_is_the_usual_one() -> None:
    # ResNet-50's first layer: 224 x 224 x 3, 64 filters of 7 x 7, stride 2, padding 3 gives 112 x 112.
    shape = im2col(224, 224, 3, 64, 7, 7, stride=2, padding=3)
    assert (shape.output_height, shape.output_width, shape.m, shape.n, shape.k) == (112, 112, 12544, 64, 147)
    assert im2col(224, 224, 3, 64, 7, 7, stride=2, padding=3, ceil_mode=True).output_height == 113


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_replay_equals_a_set(stream: list[int], cap: int) -> None:
    held: set[int] = set()
    fetched = 0
    for word in stream:
        if word not in held:
            fetched += 1
            held.add(word)
            if len(held) == cap:
                held.clear()
    assert replay_flush_cache(np.array(stream, dtype=np.int64), cap) == fetched


def test_one_by_one_convolution_is_its_product() -> None:
    for dataflow in ("os", "ws", "is"):
        for kib in (1, 64):  # inputs that do not fit, and inputs that do
            array = {**ARRAY, "dataflow": dataflow, "ifmap_kib": kib}
            assert conv_counts(10, 9, 20, 33, 1, 1, **array) == gemm_counts(90, 33, 20, **array)


def test_arrays_give_the_rows_of_scalars() -> None:
    heights, kib = np.array([8, 14, 20]), np.array([1, 2, 64])
    together = conv_counts(heights, 12, 6, 10, 3, 3, stride=2, **{**ARRAY, "ifmap_kib": kib})
    for i in range(3):
        one = conv_counts(heights[i], 12, 6, 10, 3, 3, stride=2, **{**ARRAY, "ifmap_kib": kib[i]})
        assert together.ifmap_dram_reads[i] == one.ifmap_dram_reads
        assert together.cycles[i] == one.cycles


def test_overlap_is_fetched_once_where_it_fits() -> None:
    counts = conv_counts(16, 16, 4, 8, 3, 3, **ARRAY)
    assert counts.ifmap_dram_reads == 16 * 16 * 4
    assert counts.ifmap_sram_reads == 14 * 14 * 36


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"padding": -1}, "padding"), ({"stride": 0}, "stride"), ({"filter_width": 99}, "exceeds the padded input")],
)
def test_bad_arguments_are_named(change: dict, sentence: str) -> None:
    sizes = {"height": 8, "width": 8, "channels": 1, "filters": 1, "filter_height": 3, "filter_width": 3}
    with pytest.raises(HardwareError, match=sentence):
        conv_counts(**{**sizes, **ARRAY, **change})
