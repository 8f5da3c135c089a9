"""Convolutions of operation tables on designs: bytes of the feature map, never dearer than the im2col product, groups on the array."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hw_models.costs.evaluate import unit_costs
from hw_models.costs.products import product_shapes
from hw_models.spaces.template import load
from hw_models.systolic.conv import conv_counts
from workloads.filters import filter_fields
from workloads.ops import Kind, Operation, OperationTable


def convolution(high: int, channels: int, filters: int, taps: int, *, stride: int = 1, groups: int = 1, known: bool = True) -> Operation:
    """A square convolution over high x high x channels, padded by half its filter."""
    out = (high + 2 * ((taps - 1) // 2) - taps) // stride + 1
    fields: dict[str, Any] = filter_fields([high, high], [taps, taps], [stride, stride]) if known else {}
    return Operation(
        f"conv{taps}s{stride}g{groups}",
        Kind.CONV,
        out * out,
        filters // groups,
        taps * taps * channels // groups,
        groups=groups,
        second_is_weight=True,
        input_elements=high * high * channels,
        **fields,
    )


def as_products(table: OperationTable) -> OperationTable:
    return replace(table, kind=np.full(len(table), int(Kind.GEMM)), input_elements=0 * table.input_elements)


LAYERS = OperationTable.from_rows(
    [
        convolution(56, 64, 64, 3),
        convolution(56, 64, 64, 3, known=False),
        convolution(224, 3, 64, 7, stride=2),
        convolution(28, 128, 256, 3, stride=2),
        convolution(14, 384, 384, 3, groups=384),
        convolution(14, 240, 240, 5, groups=240),
        convolution(28, 64, 64, 3, groups=4),
        convolution(56, 256, 128, 1, stride=2),
    ]
)


def sample(count: int) -> Any:
    template = load("edge22").as_published()  # what these rows have fits 2 MiB
    batch = template.batch(**template.grid())
    return batch.take(np.sort(np.random.default_rng(5).choice(len(batch), count, replace=False)))


def test_a_map_that_fits_is_read_once() -> None:
    """Counted by hand: 56 x 56 x 64 in and out, 9 x 64 x 64 weights; the filter need not be known for it."""
    costs = unit_costs(LAYERS.take([0, 1]), sample(60), threads=1)
    assert (costs.dram_bytes == 2 * 56 * 56 * 64 + 9 * 64 * 64).all()


@pytest.mark.parametrize("criterion", ["edp", "latency", "energy"])
def test_never_dearer_than_the_im2col_product(criterion: Any) -> None:
    designs = sample(40)
    conv = unit_costs(LAYERS, designs, criterion=criterion, threads=1)
    product = unit_costs(as_products(LAYERS), designs, criterion=criterion, threads=1)
    value = {"edp": lambda c: c.latency_s * c.energy_j, "latency": lambda c: c.latency_s, "energy": lambda c: c.energy_j}[criterion]
    # 1e-12: the same terms in another order where the matrix is what both hold.
    assert (value(conv) <= value(product) * (1 + 1e-12)).all()
    assert (conv.dram_bytes <= product.dram_bytes).all()


def test_an_unknown_filter_costs_no_less_than_a_known_one() -> None:
    costs = unit_costs(LAYERS.take([0, 1]), sample(60), threads=1)
    value = costs.latency_s * costs.energy_j
    assert (value[1] >= value[0] * (1 - 1e-12)).all()


def test_groups_work_side_by_side() -> None:
    """A depthwise layer on a systolic array of 16 x 128: one group at a time is 384 folds of 9 taps; sixteen lie along its diagonal."""
    template = load("edge22").with_settings(array_kind="systolic_pipelined", dataflow="ws")
    design = template.batch(cores=[1], width=[128], depth=[16], l2_kib=[1024], l2_words_per_cycle=[128], glb_mib=[8])
    layer = LAYERS.take([4])
    together = unit_costs(layer, design, criterion="latency", threads=1)
    one = unit_costs(
        replace(layer, groups=np.array([1]), input_elements=layer.input_elements // 384), design, criterion="latency", threads=1
    )
    cycles = together.array_s[0, 0] * design.frequency_hz[0]
    # Sixteen groups with one tap each a fold of 196 outputs: 24 rounds of 9 folds, and the fill of 2 x 16 + 128 - 2.
    assert cycles == pytest.approx(24 * 9 * 196 + 158, rel=1e-12)
    assert together.latency_s[0, 0] < 384 * one.latency_s[0, 0] / 1.7


@pytest.mark.parametrize(("layer", "conv"), [(3, (28, 128, 256, 3, 2)), (7, (56, 256, 128, 1, 2)), (0, (56, 64, 64, 3, 1))])
def test_array_cycles_are_those_of_scalesim(layer: int, conv: tuple[int, ...]) -> None:
    """A weight-stationary array: `conv_counts` returns SCALE-Sim's cycles (tests/hw_models/systolic holds it to the tool)."""
    template = load("edge22").with_settings(array_kind="systolic", dataflow="ws")
    design = template.batch(cores=[1], width=[128], depth=[16], l2_kib=[1024], l2_words_per_cycle=[128], glb_mib=[8])
    high, channels, filters, taps, stride = conv
    costs = unit_costs(LAYERS.take([layer]), design, criterion="latency", threads=1)
    theirs = conv_counts(
        high, high, channels, filters, taps, taps, stride=stride, padding=(taps - 1) // 2,
        rows=16, columns=128, dataflow="ws", ifmap_kib=8192, filter_kib=8192, ofmap_kib=8192,
    )  # fmt: skip
    assert costs.array_s[0, 0] * design.frequency_hz[0] == pytest.approx(int(theirs.cycles), rel=1e-12)


def test_the_comparison_profile_maps_the_product() -> None:
    """The tool that it imitates has no convolutions: the im2col product, whatever the map."""
    template = load("edge22", profile="catransformers22")
    design = template.batch(cores=[2], width=[128], depth=[16], l2_kib=[256], l2_words_per_cycle=[64], glb_mib=[4])
    conv = unit_costs(LAYERS.take([0]), design, threads=1)
    product = unit_costs(as_products(LAYERS.take([0])), design, threads=1)
    assert conv.latency_s[0, 0] == product.latency_s[0, 0]
    assert conv.energy_j[0, 0] == product.energy_j[0, 0]


def test_how_often_the_im2col_matrix_repeats_a_map() -> None:
    """Streamed over stored, by hand: 56 x 56 x 9 x 64 rows and columns over 56 x 56 x 64; strides of two read a quarter as often;
    1 where less is read than there is, and of a product that is no convolution."""
    _, _, _, expansion = product_shapes(LAYERS)
    assert expansion[:2] == pytest.approx([9.0, 9.0])
    assert expansion[3] == pytest.approx(9 / 4)
    assert expansion[4] == pytest.approx(9.0)
    assert expansion[7] == 1.0
    assert (product_shapes(as_products(LAYERS))[3] == 1.0).all()
