"""Convolutional networks on edge22: what their feature maps save, and the array's cycles beside SCALE-Sim's.

    python benchmarks/convolutions.py [--json FILE]

ResNet-50 (arXiv 1512.03385), MobileNetV2 (1801.04381) and EfficientNet-B0 (1905.11946) at 224 x 224, batch 1, 8 bits, without pooling,
norms and activations. First medians over a fixed sample of edge22's grid, each convolution as its map and as its im2col product with
the same groups. Then one weight-stationary systolic array, kind by kind of layer; `hw_models.systolic` returns SCALE-Sim 3.0.0's
counts (held by tests), so that nothing needs installing.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hw_models.costs.evaluate import unit_costs
from hw_models.spaces.template import load
from hw_models.systolic.conv import conv_counts
from workloads.filters import filter_fields
from workloads.ops import Kind, Operation, OperationTable

SAMPLE, SEED = 300, 0


class Net:
    """Rows of a network, and for each convolution (height, channels, filters, taps, stride, padding, groups)."""

    def __init__(self) -> None:
        self.rows: list[Operation] = []
        self.filters: dict[str, tuple[int, ...]] = {}

    def conv(self, high: int, channels: int, filters: int, taps: int, stride: int = 1, groups: int = 1) -> int:
        """A square convolution with the padding of its half width; returns the height of its result."""
        pad = (taps - 1) // 2
        out = (high + 2 * pad - taps) // stride + 1
        name = f"conv{len(self.rows)}"
        k = taps * taps * channels // groups
        self.rows.append(
            Operation(
                name,
                Kind.CONV,
                out * out,
                filters // groups,
                k,
                groups=groups,
                second_is_weight=True,
                parameters=filters * k,
                weight_id=name,
                input_elements=high * high * channels,
                **filter_fields([high, high], [taps, taps], [stride, stride]),
            )
        )
        self.filters[name] = (high, channels, filters, taps, stride, pad, groups)
        return out

    def dense(self, inputs: int, outputs: int) -> None:
        name = f"dense{len(self.rows)}"
        self.rows.append(Operation(name, Kind.GEMM, 1, outputs, inputs, second_is_weight=True, parameters=inputs * outputs, weight_id=name))

    @property
    def table(self) -> OperationTable:
        return OperationTable.from_rows(self.rows)


def resnet50() -> Net:
    net = Net()
    net.conv(224, 3, 64, 7, 2)
    high, channels = 56, 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            net.conv(high, channels, width, 1)
            out = net.conv(high, width, width, 3, stride)
            net.conv(out, width, 4 * width, 1)
            if block == 0:
                net.conv(high, channels, 4 * width, 1, stride)
            high, channels = out, 4 * width
    net.dense(2048, 1000)
    return net


def inverted(blocks: tuple[tuple[int, int, int, int, int], ...], last: int, *, squeeze: bool) -> Net:
    """MobileNetV2's and EfficientNet's blocks: (expansion, channels, blocks, stride, taps)."""
    net = Net()
    high, channels = net.conv(224, 3, 32, 3, 2), 32
    for expansion, width, count, stride, taps in blocks:
        for block in range(count):
            inner = channels * expansion
            if expansion > 1:
                net.conv(high, channels, inner, 1)
            high = net.conv(high, inner, inner, taps, stride if block == 0 else 1, groups=inner)
            if squeeze:
                net.dense(inner, max(1, channels // 4))
                net.dense(max(1, channels // 4), inner)
            net.conv(high, inner, width, 1)
            channels = width
    net.conv(high, channels, last, 1)
    net.dense(last, 1000)
    return net


NETS = {
    "resnet-50": resnet50(),
    "mobilenet-v2": inverted(
        ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 32, 3, 2, 3), (6, 64, 4, 2, 3), (6, 96, 3, 1, 3), (6, 160, 3, 2, 3), (6, 320, 1, 1, 3)),
        1280,
        squeeze=False,
    ),
    "efficientnet-b0": inverted(
        ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3)),
        1280,
        squeeze=True,
    ),
}


def as_products(table: OperationTable) -> OperationTable:
    """The same with every convolution as the product that im2col makes of it."""
    return replace(table, kind=np.where(table.kind == Kind.CONV, Kind.GEMM, table.kind), input_elements=0 * table.input_elements)


def maps(net: Net) -> dict[str, Any]:
    """Medians over designs of edge22, as maps and as products."""
    template = load("edge22").as_published()
    batch = template.batch(**template.grid())
    batch = batch.take(np.sort(np.random.default_rng(SEED).choice(len(batch), SAMPLE, replace=False)))
    shapes, index = net.table.distinct()
    found: dict[str, Any] = {"macs": int(net.table.macs()), "weights": int(net.table.parameter_count())}
    worst = 0.0
    unit = {}
    for label, table in (("map", shapes), ("im2col", as_products(shapes))):
        start = time.process_time()
        unit[label] = unit_costs(table, batch, threads=1)
        found[f"{label}_search_s"] = time.process_time() - start
        for name, column in (("ms", "latency_s"), ("mj", "energy_j"), ("mb", "dram_bytes")):
            scale = 1e-6 if name == "mb" else 1e3
            found[f"{label}_{name}"] = float(np.median(getattr(unit[label], column)[index].sum(axis=0)) * scale)
    a, b = unit["map"], unit["im2col"]
    worst = float(((a.latency_s * a.energy_j) / (b.latency_s * b.energy_j)).max())
    return found | {"worst_edp_ratio": worst}


def scalesim(net: Net) -> list[dict[str, Any]]:
    """Cycles of a weight-stationary 16 x 128 array, and words of the input from DRAM, ours and SCALE-Sim's; one row a layer."""
    template = load("edge22").with_settings(array_kind="systolic", dataflow="ws")
    design = template.batch(cores=[1], width=[128], depth=[16], l2_kib=[1024], l2_words_per_cycle=[128], glb_mib=[8])
    shapes, index = net.table.distinct()
    costs = unit_costs(shapes, design, criterion="latency", threads=1)
    rows = []
    for at, operation in enumerate(net.rows):
        if operation.name not in net.filters:
            continue
        high, channels, filters, taps, stride, pad, groups = net.filters[operation.name]
        theirs = conv_counts(
            high, high, channels // groups, filters // groups, taps, taps, stride=stride, padding=pad,
            rows=16, columns=128, dataflow="ws", ifmap_kib=8192, filter_kib=8192, ofmap_kib=8192,
        )  # fmt: skip
        cycles = float(costs.array_s[index[at], 0] * design.frequency_hz[0])
        rows.append(
            {
                "layer": operation.name,
                "kind": "depthwise" if groups > 1 else f"{taps}x{taps}",
                "ours": cycles,
                "scalesim": int(theirs.cycles) * groups,
                "map": high * high * channels,
                "scalesim_map": int(theirs.ifmap_dram_reads) * groups,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    for name, net in NETS.items():
        row = maps(net)
        size = f"{row['macs'] / 1e6:.0f} MMAC, {row['weights'] / 1e6:.2f} M weights"
        print(f"{name}: {size}; worst EDP of a layer over its product {row['worst_edp_ratio']:.4f}")
        for label in ("map", "im2col"):
            ms, mj, mb, seconds = (row[f"{label}_{what}"] for what in ("ms", "mj", "mb", "search_s"))
            print(f"  {label:7s} {ms:.3f} ms  {mj:.3f} mJ  {mb:.1f} MB  search {seconds:.2f} s")
        layers = scalesim(net)
        for kind in sorted({layer["kind"] for layer in layers}):
            of = [layer for layer in layers if layer["kind"] == kind]
            ours, theirs, words, padded = (sum(layer[what] for layer in of) for what in ("ours", "scalesim", "map", "scalesim_map"))
            print(f"  {kind:9s} {len(of):2d} layers: {ours:.0f} cycles, SCALE-Sim {theirs} ({ours / theirs:.3f})", end="; ")
            print(f"map {words}, SCALE-Sim reads {padded} ({words / padded:.3f})")
        result[name] = row | {"layers": layers}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
