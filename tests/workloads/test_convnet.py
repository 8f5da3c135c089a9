"""Networks for pictures: published counts of six of them, the text that describes one, who reads whose map."""

from __future__ import annotations

import numpy as np
import pytest

import workloads
from workloads.convnet import parse
from workloads.ops import Kind
from workloads.tensors import MEMORY, segments

# Multiply-accumulates of one picture at 224 x 224: ResNet-50 and MobileNetV2 as torchvision's model table has them (4.09 G, 0.30 G),
# VGG16 15.47 G and EfficientNet-B0 0.386 G likewise, MobileNetV1 569 M (arXiv:1704.04861, table 4), AlexNet's convolutions 666 M
# (Chen et al., Eyeriss, JSSC 2017, section II) with 58.6 M of dense layers.
MACS = {
    "alexnet": 724_406_816,
    "vgg16": 15_470_264_320,
    "resnet-50": 4_089_184_256,
    "mobilenet-v1": 568_740_352,
    "mobilenet-v2": 300_774_272,
    "efficientnet-b0": 385_814_752,
}


@pytest.mark.parametrize("name", MACS)
def test_published_counts(name: str) -> None:
    """Parameters to the last one: normalisation has two numbers a channel, the bias that it is folded into one (AlexNet, VGG: none)."""
    family = workloads.load(name)
    one = family.build()
    table = one.phases[0].table
    channels = int((table.n * table.groups)[table.kind == Kind.CONV].sum())
    folded = 0 if name in ("alexnet", "vgg16") else channels
    assert one.parameter_count() + folded == family.published["parameters"]
    assert one.macs() == MACS[name]
    assert family.build(batch=4).macs() == 4 * MACS[name]
    assert family.build(batch=4).parameter_count() == one.parameter_count()


def test_maps_against_torch() -> None:
    """Sizes of every map of a network with all steps, by torch's own modules."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    text = "conv 8 7 2; max 3 2 pad 1; bottleneck 8 2 2; inverted 6 16 2 2 5 squeeze; separable 24 2; "
    text += "conv 32 3 1 groups 4; average; dense 10"
    record = {"name": "own", "family": "convnet", "dimensions": {"network": text}}
    table = workloads.library.family_from_record(record, "own").build(resolution=97).phases[0].table
    x, seen = torch.empty(1, 3, 97, 97, device="meta"), []

    def conv(x, out, size=1, stride=1, groups=1):  # type: ignore[no-untyped-def]
        y = nn.Conv2d(x.shape[1], out, size, stride, (size - 1) // 2, groups=groups, device="meta")(x)
        seen.append((y.shape[2] * y.shape[3], out // groups, x.shape[1] // groups * size**2, groups, x.numel()))
        return y

    x = nn.functional.max_pool2d(conv(x, 8, 7, 2), 3, 2, 1)
    for block in range(2):
        y = conv(conv(conv(x, 8), 8, 3, 2 if block == 0 else 1), 32)
        x = y + (conv(x, 32, 1, 2) if block == 0 else x)
    for block in range(2):
        wide = 6 * x.shape[1]
        x = conv(conv(conv(x, wide), wide, 5, 2 if block == 0 else 1, wide), 16)
    x = conv(conv(x, x.shape[1], 3, 2, x.shape[1]), 24)
    conv(x, 32, 3, 1, 4)
    ours = [(int(r.m), int(r.n), int(r.k), int(r.groups), int(r.input_elements)) for r in table.rows() if r.kind == Kind.CONV]
    assert ours == seen


def test_who_reads_whose_map() -> None:
    """Every operand but the picture is made by a row; a sum reads the block's last convolution and its entry or shortcut."""
    table = workloads.load("resnet-50").build().phases[0].table
    (segment,) = segments(table)
    names = {row.at: str(table.name[row.at]) for row in segment.rows}
    used = {names[row.at]: [names.get(use.source, "memory") for use in row.uses] for row in segment.rows}
    assert [name for name, sources in used.items() if "memory" in sources] == ["conv1"]
    assert all(use.source != MEMORY for row in segment.rows[1:] for use in row.uses)
    assert used["bottleneck3.1.add"] == ["bottleneck3.1.expand", "bottleneck3.1.shortcut"]
    assert used["bottleneck3.2.add"] == ["bottleneck3.2.expand", "bottleneck3.1.relu"]


def test_widths_at_once_are_widths_one_by_one() -> None:
    family = workloads.load("mobilenet-v2")
    together = family.build(width_percent=np.array([100, 50, 130]))
    for i, percent in enumerate((100, 50, 130)):
        alone = family.build(width_percent=percent)
        assert together.phases[0].table.model(i).same_as(alone.phases[0].table)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1 to 1000"),
        ("convv 3 3", "nearest is 'conv'"),
        ("conv 64", "has 1 numbers, must have 2 to 3"),
        ("conv 64 3 relo", "nearest is 'relu'"),
        ("conv 64 3 pad", "needs a number"),
        ("conv 0 3", "must be 1 to 65536"),
        ("conv 99999999999999999999 3", "must be 1 to 65536"),
    ],
)
def test_what_is_no_network(text: str, told: str) -> None:
    with pytest.raises(workloads.WorkloadError, match=told):
        parse(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [("conv 64 300 1 pad 0", "resolution is too small"), ("conv 10 3 groups 4", "must divide its 3 inputs and 10 outputs")],
)
def test_what_no_map_can_be(text: str, told: str) -> None:
    record = {"name": "own", "family": "convnet", "dimensions": {"network": text}}
    with pytest.raises(workloads.WorkloadError, match=told):
        workloads.library.family_from_record(record, "own").build()
