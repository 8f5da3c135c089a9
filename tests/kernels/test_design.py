"""Sums of a phase on one design against the plain formulas, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dse_kernels import design

from hw_models.costs.vector_unit import LevelRates, VectorWork, vector_unit
from hw_models.technology.namespace import NUMPY


def random_phase(seed: int) -> dict[str, Any]:
    """Arrays of a phase of some shapes of every kind, on a design of one to four memories."""
    rng = np.random.default_rng([31, seed])
    products, vectors, others, depth = (int(rng.integers(low, high)) for low, high in ((0, 5), (0, 7), (0, 3), (1, 5)))
    rows = int(rng.integers(1, 30)) if products + vectors + others else 0
    row_bits = rng.integers(1, 5000, vectors) * 8.0
    work = {
        "elements": rng.integers(1, 10**6, vectors),
        "rows": rng.integers(1, 600, vectors),
        "element_cycles": rng.integers(0, 9, vectors),  # a gather computes nothing
        "row_cycles": rng.integers(0, 30, vectors),
        "passes": rng.integers(1, 4, vectors),
        "width": rng.choice([4, 8, 16, 32], vectors),
        "bits_in": rng.integers(0, 10**7, vectors),
        "bits_out": rng.integers(0, 10**7, vectors),
        "row_bits": row_bits,
    }
    levels = {name: rng.random(depth) * 100.0 + 0.1 for name in design.LEVEL}
    # Some memories hold some of the rows, and one of them just so.
    levels["bits"] = np.sort(rng.choice(np.append(row_bits, 2e4), depth)) * 1.0
    point = {"lanes": 48.0, "lane_bits": 8.0, "lane_pj": 0.31, "word_bits": float(rng.choice([8, 16])), "frequency_hz": 7.1e8}
    return {
        "results": rng.random((products, 1, 3)) * 10.0 ** rng.integers(0, 9, (products, 1, 3)),
        "words": rng.random((products, 1, depth, 2)) * 1e7,
        "work": np.column_stack([np.asarray(work[name], dtype=np.float64) for name in design.WORK]),
        "others": rng.random((others, 3)),
        "point": np.array([point[name] for name in design.POINT]),
        "levels": np.column_stack([levels[name] for name in design.LEVEL]),
        "index": rng.integers(0, products + vectors + others, rows),
        "repeat": rng.integers(0, 13, rows).astype(float),
    }


@pytest.mark.parametrize("seed", range(40))
def test_kernel_equals_the_plain_formulas_bit_for_bit(seed: int) -> None:
    phase = random_phase(seed)
    point = dict(zip(design.POINT, phase["point"].tolist(), strict=True))
    levels = [LevelRates(*row) for row in phase["levels"].tolist()]
    found = vector_unit(NUMPY, VectorWork(*phase["work"].T), levels=levels, **point)
    longest = found.lanes_s
    for time in found.level_s:
        longest = np.maximum(longest, time)
    results, outermost = phase["results"][:, 0], phase["words"][:, 0, -1]
    products = zip(
        (results[:, 0] / point["frequency_hz"]).tolist(),
        (results[:, 2] * 1e-12).tolist(),
        ((outermost[:, 0] + outermost[:, 1]) * (point["word_bits"] / 8.0)).tolist(),
        strict=True,
    )
    vectors = np.column_stack([longest, found.energy_j, found.dram_bytes]).tolist()
    others = phase["others"].tolist()
    expected = design.phase_sums_reference(list(products), vectors, others, phase["index"].tolist(), phase["repeat"].tolist())
    assert design.phase_sums(**phase) == expected


def test_errors() -> None:
    phase = random_phase(3)
    assert len(phase["index"])
    with pytest.raises(ValueError, match="out of range"):
        design.phase_sums(**{**phase, "index": phase["index"] + 100})
    with pytest.raises(ValueError, match="work \\(v, 9\\)"):
        design.phase_sums(**{**phase, "work": np.empty((2, 8))})
    with pytest.raises(ValueError, match="repeat \\(rows,\\)"):
        design.phase_sums(**{**phase, "repeat": phase["repeat"][1:]})
