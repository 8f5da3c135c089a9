"""Shortest paths through a layered graph whose edges cost different amounts on different designs.

The graph is that of what stays on chip between operations (docs/models/residency.md): a layer a step, a state what is resident before
it, an edge a way to run the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Layers = Sequence[Sequence[tuple[int, int, int]]]
"""For every step its edges: state before, state after, variant."""


def paths(
    layers: Layers,
    states: Sequence[int],
    exit_of: Sequence[int],
    exits: int,
    first: FloatArray,
    second: FloatArray,
    *,
    threads: int = 1,
) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Least sums from every entry to every exit of each point.

    Args:
        layers: edges of each step; ``states`` (steps + 1,) says how many states each layer has, those of the first are the entries.
        exit_of: the exit that each last state is, 0 to ``exits`` - 1.
        first, second: costs of the variants (points, variants), infinite where one cannot be; sums are compared as pairs.
        threads: the result does not depend on it.

    Returns:
        sums (points, entries, exits, 2), infinite where there is no path, and the variants along each (points, entries, exits, steps),
        -1 there.
    """
    edges = np.array([edge for layer in layers for edge in layer], dtype=np.int32).reshape(-1, 3)
    ends = np.cumsum([len(layer) for layer in layers], dtype=np.int64)
    points, steps = len(first), len(layers)
    best = np.empty((points, states[0], exits, 2))
    path = np.empty((points, states[0], exits, steps), dtype=np.int32)
    _kernels.residency_paths(
        edges,
        ends,
        np.asarray(states, dtype=np.int32),
        np.asarray(exit_of, dtype=np.int32),
        exits,
        np.ascontiguousarray(first),
        np.ascontiguousarray(second),
        threads,
        best,
        path,
    )
    return best, path


def paths_reference(
    layers: Layers, states: Sequence[int], exit_of: Sequence[int], exits: int, first: FloatArray, second: FloatArray
) -> FloatArray:
    """The sums of `paths` by trying every path, for graphs of a few steps."""
    points = len(first)
    best = np.full((points, states[0], exits, 2), np.inf)
    for p in range(points):
        for entry in range(states[0]):
            ways = [(entry, 0.0, 0.0)]
            for layer in layers:
                ways = [(b, x + first[p, v], y + second[p, v]) for at, x, y in ways for a, b, v in layer if a == at]
            for at, x, y in ways:
                out = exit_of[at]
                if (x, y) < tuple(best[p, entry, out]):
                    best[p, entry, out] = x, y
    return best
