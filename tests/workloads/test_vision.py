"""Image models: ViT's closed form, windows of any grid, tokens and towers of vision-language models."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import workloads
from workloads.vision import window_groups


def test_vit_b16_closed_form() -> None:
    """Facts: 35.127 GFLOP without the classification head, with a pooler of 768 x 768."""
    L, H, F, N = 12, 768, 3072, 197
    body = L * (4 * N * H * H + 2 * N * N * H + 2 * N * H * F) + 196 * H * 768
    assert workloads.load("vit-b16").build().macs() == body + 1000 * H
    assert round(2 * (body + H * H) / 1e9, 3) == 35.127


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 12))
def test_windows_cover_every_patch_once(height: int, width: int, window: int) -> None:
    groups = [group for group in window_groups(3, 2, height, width, window) if group[1]]
    expected: dict[int, int] = {}
    for top in range(0, height, window):
        for left in range(0, width, window):
            size = min(window, height - top) * min(window, width - left)
            expected[size] = expected.get(size, 0) + 2
    found: dict[int, int] = {}
    for _, layers, batch, length in groups:
        assert layers == 3
        found[int(length)] = found.get(int(length), 0) + int(batch)
    assert found == expected
    many = window_groups(3, 2, np.array([height, 7]), width, window)
    assert [int(np.asarray(g[1] * g[2] * g[3]).reshape(-1)[0]) for g in many] == [
        int(g[1] * g[2] * g[3]) for g in window_groups(3, 2, height, width, window)
    ]


def test_tokens_of_a_video_clip() -> None:
    """Facts, section 6: 10 s of 644 x 364 at 8 frames/s are 40 grids x 299 = 11,960 language tokens, 47,840 patches."""
    workload = workloads.load("camerabench").build()
    tower = workload.phase("clip.vision").table
    names = tower.name.tolist()
    assert tower.batch[names.index("vision.patch_embedding")] * tower.m[names.index("vision.patch_embedding")] == 47840
    prefill = workload.phase("clip.prefill").table
    assert prefill.m[prefill.name.tolist().index("q_proj")] == 11960 + 32
    # The tower is comparable with the language model.
    assert 0.2 < tower.macs() / prefill.macs() < 2


def test_window_attention_saves_most_of_the_tower() -> None:
    family = workloads.load("qwen2.5-vl-7b")
    base = {"image_height": 980, "image_width": 980, "phase": "prefill"}
    windows = family.build(**base).phase("vision").table
    cores = np.char.find(windows.name, "scores") >= 0
    patches = 70 * 70
    sizes = [min(8, 70 - top) * min(8, 70 - left) for top in range(0, 70, 8) for left in range(0, 70, 8)]
    assert int(windows.row_macs()[cores].sum()) == 1280 * (4 * patches**2 + 28 * sum(size**2 for size in sizes))


def test_pictures_of_each_tower() -> None:
    tokens = {}
    for name, knobs in (
        ("llava-1.5-7b", {}),
        ("llava-onevision-7b", {"views": 5}),
        ("gemma-3-4b", {}),
        ("qwen2-vl-7b", {"image_height": 300, "image_width": 600}),
    ):
        workload = workloads.load(name).build(phase="prefill", sequence=10, images=1, **knobs)
        table = workload.phase("prefill").table
        q_proj = next(i for i, row in enumerate(table.name) if row.endswith("q_proj"))
        tokens[name] = int(table.m[q_proj]) - 10
    # 336/14 squared; 27 squared for each of five views; gemma's pooled 256; 11 x 22 after rounding up to 28 pixels.
    assert tokens == {"llava-1.5-7b": 576, "llava-onevision-7b": 5 * 729, "gemma-3-4b": 256, "qwen2-vl-7b": 11 * 22}


def test_without_a_picture_the_tower_is_there_and_idle() -> None:
    family = workloads.load("llava-1.5-7b")
    text = family.build(images=0, sequence=20, new_tokens=4)
    assert text.phase("vision").runs == 0
    assert text.parameter_count() == family.build().parameter_count()
    assert text.macs() == sum(phase.table.macs() for phase in text.phases if phase.name != "vision")


def test_unused_layers_of_a_tower_are_loaded_not_run() -> None:
    table = workloads.load("llava-1.5-7b").build().phase("vision").table
    up = table.name.tolist().index("vision.ffn_up")
    assert table.repeat[up] == 23
    assert table.copies[up] == 24


def test_clip_compares_every_text_with_every_picture() -> None:
    one, four = (workloads.load("clip-vit-b32").build(batch=batch) for batch in (1, 4))
    assert four.macs() == 4 * one.macs() + (16 - 4) * 512


def test_pictures_that_do_not_fit() -> None:
    with pytest.raises(workloads.WorkloadError, match=r"image of vit-b16 is 230, must be a multiple of patch = 16; nearest is image = 224"):
        workloads.load("vit-b16").build(image=230)
    with pytest.raises(workloads.WorkloadError, match="must be at most 1280 tokens"):
        workloads.load("qwen2.5-vl-7b").build(image_height=4000, image_width=4000)
    with pytest.raises(workloads.WorkloadError, match="sequence of clip-vit-b32 is 78"):
        workloads.load("clip-vit-b32").build(sequence=78)
