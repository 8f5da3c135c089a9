"""Kinds of DRAM: what a part moves follows from its width and rate, and no clock of a chip changes it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from carbon.device.profiles import device_embodied
from hw_models.spaces import template
from hw_models.technology.tables import dram, dram_types

KINDS = ("nand", "lpddr4", "lpddr4x", "lpddr5", "lpddr5x", "ddr4", "ddr5", "gddr6", "hbm2", "hbm2e", "hbm3", "hbm3e")


@pytest.mark.parametrize("kind", sorted({*KINDS, *dram_types()}))
def test_a_part_moves_its_width_times_its_rate(kind: str) -> None:
    part = dram(kind)
    assert part.pj_per_bit > 0
    assert part.source
    found = re.match(r"(?:x|)([\d,]+)(?:-bit (?:stack|module)|) at ([\d.,]+) (MT/s|Gb/s)", part.part)
    if found is None:  # links, or a maker's figure for a stack
        assert kind in ("hmc", "hbm3e")
        return
    width, rate = (float(text.replace(",", "")) for text in found.groups()[:2])
    assert part.part_bytes_per_s == pytest.approx(width / 8 * rate * {"MT/s": 1e6, "Gb/s": 1e9}[found[3]], rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_carbon(kind: str) -> None:
    small, large = (
        float(device_embodied("default", area_mm2=10.0, node_nm=22, memory_type=kind, memory_gb=gb).embodied_kgco2e) for gb in (1, 2)
    )
    assert large > small


@pytest.mark.parametrize("name", ["edge22", "datacenter", "lookup"])
def test_a_faster_clock_gives_no_bandwidth_of_the_dram(name: str) -> None:
    space = template.load(name)
    clock = "frequency_hz" if "frequency_hz" in {**space.knobs, **space.settings} else "nominal_frequency_hz"
    knobs = {knob: values[-1] for knob, values in space.knobs.items() if knob != clock}
    slow, fast = (space.batch(**knobs, **{clock: value}) for value in (0.8e9, 1.3e9))
    assert (fast.frequency_hz > slow.frequency_hz).all()
    np.testing.assert_allclose(fast.dram_bytes_per_s, slow.dram_bytes_per_s, rtol=1e-12)  # one is rounded
    words = [b.level_read_words_per_cycle[:, -1] * b.frequency_hz for b in (slow, fast)]
    np.testing.assert_allclose(words[0], words[1], rtol=1e-12)  # words a cycle are the quotient of the two


def test_every_memory_has_a_time_of_a_random_read() -> None:
    from hw_models.technology.tables import dram_random_s, dram_types

    for kind in dram_types():
        assert 2e-8 < dram_random_s(kind) < 1e-4
