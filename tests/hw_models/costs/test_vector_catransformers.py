"""Traffic of the vector unit as CATransformers counts it, by hand: words by the tiles that the buffers of all cores hold."""

from __future__ import annotations

import math

import pytest

from hw_models.costs.vector_catransformers import catransformers
from hw_models.spaces import template
from workloads.operation import Operation
from workloads.ops import Kind, OperationTable


@pytest.mark.parametrize("rows", [8, 4096])
def test_softmax_moves_four_words_a_tile_and_its_dropout_two(rows: int) -> None:
    hardware = template.load("edge22", profile="catransformers22").batch(
        cores=2, width=64, depth=16, l2_kib=128, l2_words_per_cycle=64, glb_mib=2
    )
    table = OperationTable.from_rows([Operation("s", Kind.SOFTMAX, rows, 96, function="softmax", output_bits=8)])
    elements = rows * 96
    buffers = int(hardware.vector_buffer_bytes[0] * 2)
    tiles = math.ceil(elements / math.ceil(elements / buffers))
    assert catransformers(table, hardware).dram_bytes[0, 0] == (4 + 2) * tiles * hardware.word_bits[0] / 8
