"""The detector (RetinaNet): published counts, every convolution against torch modules built from the papers, frames and widths."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import workloads
from workloads.detector import BLOCKS, channels, input_size
from workloads.ops import Kind


def test_published_counts() -> None:
    """facebookresearch/detectron2, tests/test_model_analysis.py: 37,915,572 parameters (normalisation frozen, not counted) and 146 G
    multiply-accumulates of convolutions for 800 x 800 pixels. Folding normalises with one bias for each channel of the backbone."""
    family = workloads.load("av-perception")
    one = family.build(scale=800, frame_height=800, frame_width=800)
    folded = 64 + sum(blocks * (2 * c + 4 * c) + 4 * c for blocks, c in zip(BLOCKS[50], (64, 128, 256, 512), strict=True))
    assert folded == 26_560
    assert one.parameter_count() - folded == 37_915_572 == family.published["parameters"]
    assert int(one.macs() / 1e9) == 146


def _reference(depth: int, height: int, width: int) -> Counter[tuple[int, int, int, int]]:
    """(outputs, channels out, inputs of a filter, input elements) of each convolution, from torch's own shapes on the meta device."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    seen: Counter[tuple[int, int, int, int]] = Counter()

    def conv(x, out, size=1, stride=1):  # type: ignore[no-untyped-def]
        layer = nn.Conv2d(x.shape[1], out, size, stride, size // 2, device="meta")
        y = layer(x)
        seen[(y.shape[2] * y.shape[3], out, x.shape[1] * size * size, x[0].numel())] += 1
        return y

    x = nn.functional.max_pool2d(conv(torch.empty(1, 3, height, width, device="meta"), 64, 7, 2), 3, 2, 1)
    maps = []
    for stage, count in enumerate({50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]):
        mid = 64 * 2**stage
        for block in range(count):
            stride = 2 if stage and not block else 1
            if not block:
                conv(x, 4 * mid, 1, stride)
            x = conv(conv(conv(x, mid, 1, stride), mid, 3), 4 * mid)
        maps.append(x)
    levels = [conv(conv(c, 256), 256, 3) for c in maps[1:]]
    levels.append(conv(maps[3], 256, 3, 2))
    levels.append(conv(levels[-1], 256, 3, 2))
    for level in levels:
        for out in (9 * 80, 9 * 4):
            y = level
            for _ in range(4):
                y = conv(y, 256, 3)
            conv(y, out, 3)
    return seen


@pytest.mark.parametrize(("depth", "height", "width"), [(50, 416, 704), (101, 800, 1344), (50, 96, 64)])
def test_every_convolution_is_torchs(depth: int, height: int, width: int) -> None:
    """Sides that are multiples of 32 are taken as they are; the smallest one's P7 is a single row."""
    workload = workloads.load("av-perception").build(resnet_layers=depth, scale=min(height, width), frame_height=height, frame_width=width)
    table = workload.phases[0].table
    ours: Counter[tuple[int, int, int, int]] = Counter()
    for row in table.rows():
        if row.kind == Kind.CONV:
            ours[(int(row.m), int(row.n), int(row.k), int(row.input_elements))] += int(row.repeat)
    assert ours == _reference(depth, height, width)


def test_frames() -> None:
    """The shorter side is the scale, the longer in proportion and rounded, both padded to 32; an upright frame is a turned one."""
    at = {"scale": 500, "frame_height": 900, "frame_width": 1600}
    assert input_size(at) == (512, 896)  # 500 x 889
    assert input_size({**at, "frame_height": 1600, "frame_width": 900}) == (896, 512)
    family = workloads.load("av-perception")
    assert family.build(frame_height=1600, frame_width=900).macs() == family.build().macs()
    assert family.build(batch=6).macs() == 6 * family.build().macs()
    assert family.build(batch=6).parameter_count() == family.build().parameter_count()


def test_many_models_at_once_are_the_models_one_by_one() -> None:
    family = workloads.load("av-perception")
    grid = {"resnet_layers": np.array([50, 101, 152, 50])}
    grid |= {"scale": np.array([400, 800, 600, 333]), "width_percent": np.array([100, 50, 25, 130])}
    together = family.build(**grid)
    for i in range(4):
        alone = family.build(**{name: int(values[i]) for name, values in grid.items()})
        assert together.phases[0].table.model(i).same_as(alone.phases[0].table)


def test_width() -> None:
    """Channels are multiples of eight, the full width its own, and a quarter of the width needs about a sixteenth of the work."""
    assert [channels(percent, 256) for percent in (100, 50, 25, 1)] == [256, 128, 64, 8]
    assert np.all(channels(np.arange(1, 401), 64) % 8 == 0)
    family = workloads.load("av-perception")
    assert 1 / 16 < family.build(width_percent=25).macs() / family.build().macs() < 1 / 8  # predictors keep their outputs


@pytest.mark.parametrize(("knob", "value", "told"), [("resnet_layers", 51, "nearest is 50"), ("scale", 5000, "nearest is 4096")])
def test_bad_knobs(knob: str, value: int, told: str) -> None:
    with pytest.raises(workloads.WorkloadError, match=told):
        workloads.load("av-perception").build(**{knob: value})
