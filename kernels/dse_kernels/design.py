"""One phase of a model on one design: unit costs of its shapes added over the rows of its table.

For calls of one design at a time, where some twenty small numpy operations would take as long as a mapping search. Two
formulas of `hw_models` are repeated in the kernel for that reason alone; tests/kernels/test_design.py holds them together to the last
bit, on this module's reference and on `hw_models.costs.vector_unit.vector_unit`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
WORK = ("elements", "rows", "element_cycles", "row_cycles", "passes", "width", "bits_in", "bits_out", "row_bits")
"""Columns of a vector operation: the fields of `hw_models.costs.vector_unit.VectorWork`."""
POINT = ("lanes", "lane_bits", "lane_pj", "word_bits", "frequency_hz")
"""Columns of a design: the arguments of `hw_models.costs.vector_unit.vector_unit`."""
LEVEL = ("bits", "read_words_per_cycle", "write_words_per_cycle", "read_pj", "write_pj", "shared_bus")
"""Columns of a level of memory: the fields of `hw_models.costs.vector_unit.LevelRates`."""


def phase_sums(
    results: FloatArray,
    words: FloatArray,
    work: FloatArray,
    others: FloatArray,
    point: FloatArray,
    levels: FloatArray,
    index: IntArray,
    repeat: FloatArray,
) -> tuple[float, float, float, float]:
    """Time [s], dynamic energy [J], DRAM traffic [bytes] of a phase, and its largest power [W].

    Args:
        results, words: products as `dse_kernels.mapping.search_prepared` gives them for one design, (products, 1, 3) and
            (products, 1, levels, 2).
        work: vector operations (operations, 9), columns `WORK`.
        others: time, energy and traffic of shapes costed elsewhere (others, 3).
        point: the design (5,), columns `POINT`; ``levels`` its memories (levels, 6), innermost first, columns `LEVEL`.
        index: for each row of the table its shape: products first, then vector operations, then the others.
        repeat: how often each row runs.

    Raises:
        ValueError: arrays of other shapes, or an index out of range.
    """
    found: tuple[float, float, float, float] = _kernels.phase_sums(results, words, work, others, point, levels, index, repeat)
    return found


def phase_sums_reference(
    products: Sequence[tuple[float, float, float]],
    vectors: Sequence[tuple[float, float, float]],
    others: Sequence[tuple[float, float, float]],
    index: Sequence[int],
    repeat: Sequence[float],
) -> tuple[float, float, float, float]:
    """The same sums in the same order, from unit costs (time, energy, traffic) in plain Python."""
    unit = [*products, *vectors, *others]
    seconds = joules = moved = watts = 0.0
    for at, times in zip(index, repeat, strict=True):
        time, energy, traffic = unit[at]
        seconds += times * time
        joules += times * energy
        moved += times * traffic
        if times > 0.0 and time > 0.0:
            watts = max(watts, energy / time)
    return seconds, joules, moved, watts
