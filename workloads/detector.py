"""The family `detector`: RetinaNet, objects in camera frames, every layer counted: ResNet, feature pyramid, two subnets.

Layers follow Lin et al., "Focal Loss for Dense Object Detection" (arXiv:1708.02002, section 4) and He et al. (arXiv:1512.03385, table 1):
a ResNet of bottleneck blocks that stride in their first 1x1 convolution, a pyramid P3-P7 (P6 from C5), and on every level four 3x3
convolutions and a predictor for classes and for boxes, whose weights all levels share. Batch normalisation is folded into the convolution
before it, as it is when a detector serves, so that each convolution of the backbone has a bias. Left out: the suppression of overlapping
boxes, whose work depends on the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workloads.family import Builder, Grid
from workloads.filters import filter_fields
from workloads.knobs import Knob
from workloads.ops import IntLike, Kind, Operation, OperationTable
from workloads.records import Phase

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""Bottleneck blocks of each stage by depth (He et al., table 1)."""
SCALES = (400, 500, 600, 700, 800)
"""Shorter sides at which RetinaNet's average precision is published."""
PAD = 32  # frames are padded to the stride of C5
LEVELS = ("p3", "p4", "p5", "p6", "p7")
CANDIDATES = 1000  # boxes of a level that are decoded (section 4.1)
_EXPANSION = 4


@dataclass
class _Rows:
    """Rows of a network as they are added; a map is (rows, columns, channels) of one frame."""

    frames: IntLike
    weight_bits: IntLike
    activation_bits: IntLike
    rows: list[Operation] = field(default_factory=list)

    def conv(
        self,
        name: str,
        size: tuple[IntLike, IntLike],
        inputs: IntLike,
        outputs: IntLike,
        *,
        taps: int = 1,
        stride: int = 1,
        component: str,
        repeat: IntLike = 1,
        weight_id: str = "",
        copies: IntLike = 0,
        held: IntLike = 0,
    ) -> tuple[IntLike, IntLike]:
        """A square convolution, padded by half its taps, over a map of ``size``; the size of its result."""
        high, wide = _halved(size[0], stride), _halved(size[1], stride)
        self.rows.append(
            Operation(
                name,
                Kind.CONV,
                high * wide,
                outputs,
                inputs * taps**2,
                batch=self.frames,
                repeat=repeat,
                component=component,
                second_is_weight=True,
                input_bits=self.activation_bits,
                weight_bits=self.weight_bits,
                output_bits=self.activation_bits,
                parameters=inputs * taps**2 * outputs + outputs,
                weight_id=weight_id or name,
                copies=copies,
                input_elements=self.frames * size[0] * size[1] * inputs,
                held_elements=held,
                **filter_fields(size, (taps, taps), (stride, stride)),
            )
        )
        return high, wide

    def vector(self, name: str, function: str, elements: IntLike, *, component: str, **fields: Any) -> None:
        """A function of every element of a map of ``elements`` elements a frame, or of ``n`` of them at a time."""
        kind = Kind.ACTIVATION if function in ("relu", "sigmoid") else Kind.ELEMENTWISE
        self.rows.append(
            Operation(
                name,
                fields.pop("kind", kind),
                self.frames * elements,
                fields.pop("n", 1),
                component=component,
                function=function,
                input_bits=self.activation_bits,
                weight_bits=self.weight_bits,
                output_bits=self.activation_bits,
                **fields,
            )
        )


def _halved(length: IntLike, stride: int) -> IntLike:
    """Outputs of a filter that is padded by half its taps (rounded down) along an axis."""
    return -(-length // stride)


def channels(width_percent: IntLike, full: int) -> IntLike:
    """Channels of a layer that has ``full`` at full width: the nearest multiple of eight, at least eight."""
    rounded = (np.asarray(width_percent, np.int64) * full + 400) // 800 * 8
    many = np.maximum(8, rounded)
    return int(many) if many.ndim == 0 else many


def input_size(d: Mapping[str, Any]) -> tuple[IntLike, IntLike]:
    """Rows and columns of the network's input: the shorter side of the frame at ``scale``, the longer in proportion, both padded."""
    short, long = np.minimum(d["frame_height"], d["frame_width"]), np.maximum(d["frame_height"], d["frame_width"])
    other = (2 * np.asarray(d["scale"], np.int64) * long + short) // (2 * short)  # rounded to the nearest pixel
    upright = np.asarray(d["frame_height"]) > np.asarray(d["frame_width"])
    sides = (np.where(upright, other, d["scale"]), np.where(upright, d["scale"], other))
    high, wide = (-(-np.asarray(side, np.int64) // PAD) * PAD for side in sides)
    return (int(high), int(wide)) if high.ndim == 0 and wide.ndim == 0 else (high, wide)


def detector_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """One look at ``batch`` frames."""
    net = _Rows(d["batch"], d["weight_bits"], d["activation_bits"])
    maps = _backbone(net, d)
    levels = _pyramid(net, maps, d)
    _subnets(net, levels, d)
    return (Phase("forward", OperationTable.from_rows(net.rows)),)


def _blocks(depth: IntLike, stage: int) -> IntLike:
    if np.ndim(depth) == 0:
        return BLOCKS[int(depth)][stage]
    return np.array([BLOCKS[value][stage] for value in np.asarray(depth).tolist()], np.int64)


Maps = list[tuple[tuple[IntLike, IntLike], IntLike]]
"""Size and channels of feature maps."""


def _backbone(net: _Rows, d: Mapping[str, Any]) -> Maps:
    """The rows of the ResNet; its maps C3, C4 and C5."""
    width, part = d["width_percent"], "backbone"
    stem = channels(width, 64)
    size = net.conv("stem", input_size(d), 3, stem, taps=7, stride=2, component=part)
    net.vector("stem.relu", "relu", size[0] * size[1] * stem, component=part)
    before, size = size, (_halved(size[0], 2), _halved(size[1], 2))
    net.vector(
        *("stem.pool", "max", size[0] * size[1] * stem),
        n=9,
        input_elements=d["batch"] * before[0] * before[1] * stem,
        component=part,
    )
    inputs: IntLike = stem
    maps: Maps = []
    for stage in range(4):
        mid = channels(width, 64 * 2**stage)
        out, count, name = _EXPANSION * mid, _blocks(d["resnet_layers"], stage), f"c{stage + 2}"
        stride = 1 if stage == 0 else 2
        waiting = sum(d["batch"] * s[0] * s[1] * c for s, c in maps)  # C3, C4: the pyramid reads them later
        entry = d["batch"] * size[0] * size[1] * inputs
        reduced = net.conv(f"{name}.first.reduce", size, inputs, mid, stride=stride, component=part, held=waiting)
        net.conv(f"{name}.first.shortcut", size, inputs, out, stride=stride, component=part, held=waiting)
        size = reduced
        stream = d["batch"] * size[0] * size[1] * out
        net.conv(f"{name}.first.conv", size, mid, mid, taps=3, component=part, held=waiting + entry)
        net.conv(f"{name}.first.expand", size, mid, out, component=part, held=waiting + stream)
        net.conv(f"{name}.reduce", size, out, mid, component=part, repeat=count - 1, held=waiting)
        net.conv(f"{name}.conv", size, mid, mid, taps=3, component=part, repeat=count - 1, held=waiting + stream)
        net.conv(f"{name}.expand", size, mid, out, component=part, repeat=count - 1, held=waiting + stream)
        area = size[0] * size[1]
        # The first block strides in its first convolution, so that both of its narrow maps have the stage's size.
        net.vector(f"{name}.relu", "relu", area * mid, component=part, repeat=2 * count, held_elements=waiting + stream)
        net.vector(f"{name}.add", "add", area * out, operands=2, component=part, repeat=count, held_elements=waiting)
        net.vector(f"{name}.out_relu", "relu", area * out, component=part, repeat=count, held_elements=waiting)
        inputs = out
        if stage:
            maps.append((size, out))
    return maps


def _pyramid(net: _Rows, maps: Maps, d: Mapping[str, Any]) -> list[tuple[IntLike, IntLike]]:
    """The rows of the feature pyramid; the sizes of P3 to P7."""
    wide, part = channels(d["width_percent"], 256), "pyramid"
    sizes = [size for size, _ in maps]
    area = [d["batch"] * size[0] * size[1] * wide for size in sizes]
    for level in (2, 1, 0):
        name = LEVELS[level]
        net.conv(f"{name}.lateral", sizes[level], maps[level][1], wide, component=part)
        if level < 2:  # the map above, each element read for four, is added
            net.vector(
                *(f"{name}.add", "add", sizes[level][0] * sizes[level][1] * wide),
                operands=2,
                input_elements=area[level] + area[level + 1],
                component=part,
            )
        net.conv(f"{name}.smooth", sizes[level], wide, wide, taps=3, component=part, held=sum(area[level + 1 :]))
    sixth = net.conv("p6", sizes[2], maps[2][1], wide, taps=3, stride=2, component=part, held=sum(area))
    net.vector("p6.relu", "relu", sixth[0] * sixth[1] * wide, component=part)
    seventh = net.conv("p7", sixth, wide, wide, taps=3, stride=2, component=part, held=sum(area))
    return [*sizes, sixth, seventh]


def _subnets(net: _Rows, levels: list[tuple[IntLike, IntLike]], d: Mapping[str, Any]) -> None:
    """The rows of both subnets on every level: weights are shared by the levels."""
    wide, part = channels(d["width_percent"], 256), "heads"
    outputs = {"classes": d["anchors"] * d["classes"], "boxes": d["anchors"] * 4}
    for name, size in zip(LEVELS, levels, strict=True):
        area = size[0] * size[1]
        for subnet, many in outputs.items():
            net.conv(f"{name}.{subnet}", size, wide, wide, taps=3, component=part, repeat=4, weight_id=f"{subnet}.tower", copies=4)
            net.vector(f"{name}.{subnet}.relu", "relu", area * wide, component=part, repeat=4)
            net.conv(f"{name}.{subnet}.predict", size, wide, many, taps=3, component=part, weight_id=f"{subnet}.predict", copies=1)
        scores = area * outputs["classes"]
        net.vector(f"{name}.sigmoid", "sigmoid", scores, component=part)
        net.rows.append(
            Operation(
                f"{name}.candidates",
                Kind.TOPK,
                d["batch"],
                scores,
                np.minimum(CANDIDATES, scores) if np.ndim(scores) else min(CANDIDATES, scores),
                component=part,
                function="topk",
                input_bits=d["activation_bits"],
                output_bits=d["activation_bits"],
            )
        )


def _default_grid(values: Mapping[str, Any]) -> Grid:
    depth, scale = (axis.reshape(-1) for axis in np.meshgrid((50, 101), SCALES, indexing="ij"))
    # The width stands in the grid with its one value, as no figure supports another.
    return {"resnet_layers": depth.astype(np.int64), "scale": scale.astype(np.int64), "width_percent": np.full(len(depth), 100, np.int64)}


def _check(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    """Every combination of values in range is a model."""


_KNOBS: tuple[Knob, ...] = (
    Knob("resnet_layers", "weighted layers of the ResNet", choices=tuple(BLOCKS)),
    Knob("scale", "pixels of the shorter side of the network's input", 64, 4096),
    Knob("width_percent", "channels of every layer, of RetinaNet's", 1, 400),
    Knob("classes", "kinds of object", 1, 2**16),
    Knob("anchors", "boxes at a place of a map", 1, 64),
    Knob("frame_height", "pixel rows of the camera", 64, 2**15, setting=True),
    Knob("frame_width", "pixel columns of the camera", 64, 2**15, setting=True),
    Knob("batch", "frames (cameras) that are looked at together", 1, 2**16, setting=True),
    Knob("weight_bits", "bits of a parameter", choices=(1, 2, 3, 4, 6, 8, 16, 32), setting=True),
    Knob("activation_bits", "bits of an activation", choices=(4, 8, 16, 32), setting=True),
)

DETECTOR = Builder(
    name="detector",
    knobs={knob.name: knob for knob in _KNOBS},
    defaults={
        "width_percent": 100,
        "classes": 80,
        "anchors": 9,
        "frame_height": 900,
        "frame_width": 1600,
        "batch": 1,
        "weight_bits": 8,
        "activation_bits": 8,
    },
    check=_check,
    phases=detector_phases,
    grids={"default": _default_grid},
)
