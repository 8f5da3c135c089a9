"""From designs to the mapping search and back: rules of the profiles, and mappings as records."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dse_kernels.mapping import KEEP_ALL, KEEP_WEIGHTS, MappingHardware, search
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_models import spaces as templates
from hw_models.costs.mapping import LoopNest, is_sunstone, loop_nest, mapping_hardware, usable_words
from hw_models.errors import HardwareError
from hw_models.systolic import gemm as systolic

KNOBS = {"cores": 2, "width": 64, "depth": 16, "l2_kib": 128, "l2_words_per_cycle": 64, "glb_mib": 2}


def nest(product: tuple[int, int, int, int], *, shared: bool = True, **knobs: int) -> LoopNest:
    design = templates.load("edge22").batch(**{**KNOBS, **knobs})
    found = search([product], [shared], mapping_hardware(design), return_mapping=True)
    assert found.mapping is not None
    return loop_nest(found.mapping, product, design.level_names, weights_shared=shared)


def test_double_buffering_halves_what_a_tile_may_take() -> None:
    design = templates.load("edge22").batch(**KNOBS)
    words = usable_words(design)
    assert words[0, 0] == 128 * 1024 / 2
    assert words[0, 1] == 2 * 1024**2 / 2


def test_profiles_choose_the_rules() -> None:
    physical = templates.load("edge22").batch(**KNOBS)
    imitated = templates.load("edge22", profile="catransformers22").batch(**KNOBS)
    assert not is_sunstone(physical)
    assert is_sunstone(imitated)
    ours, theirs = mapping_hardware(physical), mapping_hardware(imitated)
    assert ours.register_keeps == KEEP_ALL
    assert theirs.register_keeps == KEEP_WEIGHTS
    assert ours.count_refills
    assert not theirs.count_refills
    assert np.array_equal(theirs.level_read_pj_per_word, theirs.level_write_pj_per_word)
    # one 8-bit word: a quarter of the energy of the tool's 32-bit access
    assert np.allclose(ours.level_read_pj_per_word * 4, theirs.level_read_pj_per_word, rtol=1e-12)


def test_a_mapping_as_a_record() -> None:
    found = nest((1, 512, 768, 3072))
    assert [level.level for level in found.levels] == ["l2", "glb", "dram"]
    assert np.prod(found.cores) == 2
    assert found.unroll[0] * found.unroll[1] * found.unroll[2] == 64 * 16
    share = [-(-size // cores) for size, cores in zip((512, 768, 3072), found.cores, strict=False)]
    assert found.levels[-1].tile == tuple(share)
    for level in found.levels[:-1]:
        # the last tile is clipped, so count - 1 whole tiles leave something over
        for size, tile, count in zip(share, level.tile, level.count, strict=True):
            assert (count - 1) * tile < size <= count * tile
    # Neither buffer of a core takes three whole matrices: a tile of each fits what double buffering leaves, and is not the whole.
    words = usable_words(templates.load("edge22").batch(**KNOBS))[0]
    for level, room in zip(found.levels[:-1], words, strict=False):
        m, n, k = level.tile
        assert m * k + k * n + m * n <= room < share[0] * share[2] + share[2] * share[1] + share[0] * share[1]
    assert json.loads(json.dumps(found.as_dict()))["product"] == {"batch": 1, "m": 512, "n": 768, "k": 3072}


def test_loops_cover_the_product() -> None:
    for product in [(1, 512, 768, 768), (12, 197, 64, 197), (1, 1, 768, 3072)]:
        found = nest(product, shared=product[0] == 1)
        trips = {"m": 1, "n": 1, "k": 1, "batch": 1}
        for _, dimension, count in found.loops():
            trips[dimension] *= count
        units = [u * r for u, r in zip(found.unroll, found.registers, strict=True)]
        for d, (name, size) in enumerate(zip("mnk", product[1:], strict=True)):
            assert trips[name] * units[d] * found.cores[d] >= size
        assert trips["batch"] * found.cores[3] >= product[0]


def test_innermost_loop_leaves_its_operand_in_place() -> None:
    found = nest((1, 512, 3072, 768))
    for level in found.levels:
        assert {"weights": "m", "inputs": "n", "outputs": "k"}[level.stationary] == level.innermost_loop


def test_no_mapping_is_an_error() -> None:
    design = templates.load("edge22").batch(**KNOBS)
    hardware = mapping_hardware(design)
    hardware.level_words[:] = 1.0
    found = search([(1, 64, 64, 64)], [True], hardware, return_mapping=True)
    assert found.mapping is not None
    with pytest.raises(HardwareError, match="innermost level holds no tile"):
        loop_nest(found.mapping, (1, 64, 64, 64), design.level_names)


def test_latency_falls_with_frequency_and_energy_does_not_move() -> None:
    template = templates.load("edge22")
    slow = template.batch(**KNOBS)
    fast = template.with_settings(frequency_hz=1.25e9).batch(**KNOBS)
    shapes = [(1, 512, 768, 768), (12, 197, 197, 64)]
    a = search(shapes, [True, False], mapping_hardware(slow))
    b = search(shapes, [True, False], mapping_hardware(fast))
    assert np.array_equal(a.energy_pj, b.energy_pj)
    assert (b.cycles / fast.frequency_hz < a.cycles / slow.frequency_hz).all()


SIZE = st.integers(1, 300)


@given(
    m=SIZE,
    n=SIZE,
    k=SIZE,
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    kind=st.sampled_from([0, 1]),
    dataflow=st.sampled_from([0, 1, 2]),
)
@settings(max_examples=150, deadline=None)
def test_systolic_cycles_are_the_closed_forms_where_the_stream_is_in_one_piece(
    m: int, n: int, k: int, rows: int, columns: int, kind: int, dataflow: int
) -> None:
    level = np.array([[1.0]])
    hardware = MappingHardware(
        cores=np.array([1]),
        array_rows=np.array([rows]),
        array_columns=np.array([columns]),
        mac_pj=np.array([0.0]),
        level_words=level,
        level_read_words_per_cycle=level * 1e9,
        level_write_words_per_cycle=level * 1e9,
        level_read_pj_per_word=level,
        level_write_pj_per_word=level,
        level_shared=np.array([True]),
        level_per_core=np.array([False]),
        array_kind=kind,
        dataflow=dataflow,
    )
    found = search([(1, m, n, k)], [True], hardware)
    passes = {0: (m, n, k), 1: (k, n, m), 2: (k, m, n)}[dataflow]  # over rows, over columns, streamed
    folds = -(-passes[0] // rows) * -(-passes[1] // columns)
    name = ("systolic", "systolic_pipelined")[kind]
    assert found.compute_cycles[0, 0] == systolic.array_cycles(name, folds, rows, columns, passes[2], int(dataflow != 0))
