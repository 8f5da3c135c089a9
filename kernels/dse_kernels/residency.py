"""What is best kept on chip between operations, on many hardware points: shortest paths through the choices of chains of steps, whose
mappings are searched only where they stand on a best path (docs/models/residency.md).

`Arrays` are the models and choices as the kernel takes them; `paths_reference` are shortest paths by trying every path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dse_kernels import _kernels
from dse_kernels.mapping import CRITERIA, Criterion

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Layers = Sequence[Sequence[tuple[int, int, int]]]
"""For every step its edges: state before, state after, variant."""

PRODUCT, VECTOR, ATTENTION = 0, 1, 2
"""Kinds of steps."""
STEP_INTS = ("kind", "shape", "ideal", "pins", "lanes_begin", "lanes_end")
STEP_REALS = (
    "bits",
    "every",
    "parameters",
    "macs",
    "bits_in",
    "bits_out",
    "row_bits",
    "passes",
    "query_bits",
    "second_bits",
    "out_bits",
    "head_bits",
    "kv_heads",
    "queries",
    "keys",
    "share",
    "weight_bits",
)
LANES = ("elements", "rows", "element_cycles", "row_cycles", "width")
PRICE_INTS = ("step", "mask", "keeps", "stores", "next")
PRICE_REALS = ("loaded", "extra", "resident", "least", "times", "own")
UNITS = ("frequency_hz", "lanes", "lane_bits", "lane_pj")
RATES = ("bits", "read_words_per_cycle", "write_words_per_cycle", "read_pj", "write_pj", "shared_bus")
ATTENTION_PARTS = ("array_s", "inner_s", "energy_pj", "vector_s", "vector_pj")


class Arrays(NamedTuple):
    """Models, steps and choices. A list that another one divides has an ``_ends`` array: where each row ends.

    Attributes:
        shapes, operands: of products, as `dse_kernels.mapping.prepare` gives them.
        lanes: (works, LANES) of vector work; a step names its own as a range.
        step_ints, step_reals: (steps, .) the columns STEP_INTS and STEP_REALS. ``shape``: of a product its row, of attention its row in the
            arrays of a call; ``ideal``: mask of the operands that can be resident, ``pins``: of that which is parameters.
        price_ints, price_reals: (prices, .) ways to run a step but for the room, columns PRICE_INTS and PRICE_REALS. ``next``: an earlier
            price that the same variant runs too (-1: none); ``times``: how often it runs; ``own``: bits of its parameters that are loaded
            whole where parameters do not stay.
        edges, edge_ends: (edges, 3) state before, after, variant, by layer; ``states``: how many each layer has, and the end;
            ``exits``: of each last state its place; ``graph_steps``: layers of each graph.
        chain_graph, chain_ends: of each chain its graph, and its variants: ``variant_price`` (-1: it does nothing), ``variant_held``
            and, where parameters do not stay, ``variant_own`` [bits].
        part_ints, part_runs, part_ends: the parts of each family of models: chain, enters, loops, follows (the part before runs right
            before it); how often.
        models, model_ends, repeats: the models of each family, and for each model and part how often the part's segment runs.
        weight_bits: of each model, what stays if its weights do.
        attention_rows: rows of the attention arrays.
    """

    shapes: IntArray
    operands: FloatArray
    lanes: FloatArray
    step_ints: IntArray
    step_reals: FloatArray
    price_ints: IntArray
    price_reals: FloatArray
    edges: IntArray
    edge_ends: IntArray
    states: IntArray
    exits: IntArray
    graph_steps: IntArray
    chain_graph: IntArray
    chain_ends: IntArray
    variant_price: IntArray
    variant_held: FloatArray
    variant_own: FloatArray
    part_ints: IntArray
    part_runs: FloatArray
    part_ends: IntArray
    models: IntArray
    model_ends: IntArray
    repeats: IntArray
    weight_bits: FloatArray
    attention_rows: int


class Points(NamedTuple):
    """Hardware points: `MappingHardware.packed`, UNITS (points, 4), RATES (points, levels, 6), and what attention does inside on each,
    ATTENTION_PARTS (rows, points, 5).
    """

    integers: IntArray
    reals: FloatArray
    levels: FloatArray
    units: FloatArray
    rates: FloatArray
    attention: FloatArray


class Slack(NamedTuple):
    """What a step leaves free for the words of the next one, and what it needs of its own [s, bits].

    Attributes:
        latency_s: of the step; ``other_s``: the longest of all but the DRAM's reads.
        reads_s: of the DRAM's reads, with its writes where they take turns; ``near_s``: of writing into the level that holds what stays,
            with its reads where they take turns.
        weight_bits: parameters of a product that are streamed.
        free_bits: of that level, beside tiles and what stays.
    """

    latency_s: float
    other_s: float
    reads_s: float
    near_s: float
    weight_bits: float
    free_bits: float


class Way(NamedTuple):
    """How often a part of a model runs from an entry to an exit, the variants along the way, and with prefetch the slack of each."""

    part: int
    entry: int
    exit: int
    times: int
    variants: list[int]
    slack: list[Slack]


class Found(NamedTuple):
    """Sums (models, points, 3) of latency [s], energy [J] and the largest power of a step [W], infinite where a step has no mapping;
    whether weights stay (models, points); mappings searched; the ways of one model on one point, if asked for.
    """

    sums: FloatArray
    pinned: npt.NDArray[np.bool_]
    searches: int
    ways: list[Way]


class Problem:
    """Arrays checked and kept, to be solved for any points."""

    def __init__(self, arrays: Arrays) -> None:
        self._problem = _kernels.ResidencyProblem(*arrays)
        self._models = len(arrays.weight_bits)

    def solve(self, points: Points, criterion: Criterion, *, weights: bool, prefetch: bool = False, want_ways: bool = False) -> Found:
        """What is best on every point, to the last bit whatever other points are beside it. ``weights``: all of them may stay too;
        ``prefetch``: parameters of a step may be read during the step before (`prefetched_s`).
        """
        count = len(points.integers)
        sums, pinned = np.empty((self._models, count, 3)), np.zeros((self._models, count), dtype=np.uint8)
        searches, ways = self._problem.solve(*points, CRITERIA[criterion], weights, prefetch, sums, pinned, want_ways)
        told = [Way(*way)._replace(slack=[Slack(*values) for values in way[5]]) for way in ways]
        return Found(sums, pinned.astype(bool), searches, told)


def prefetched_s(before: Slack, after: Slack, dram_bits_per_s: float, near_bits_per_s: float) -> float:
    """By how much a step is shorter [s] for what the one before it reads ahead of its parameters: no more than shortens it, than the
    DRAM is idle, than is free beside both steps, and than the level takes in beside its own words.
    """
    late, idle = after.reads_s - after.other_s, before.latency_s - before.reads_s
    if late <= 0.0 or idle <= 0.0:
        return 0.0
    room = min(before.free_bits, after.free_bits, after.weight_bits)
    bits = min(room, (before.latency_s - before.near_s) * near_bits_per_s)
    return max(min(late, idle, bits / dram_bits_per_s), 0.0)


def paths_reference(
    layers: Layers, states: Sequence[int], exit_of: Sequence[int], exits: int, first: FloatArray, second: FloatArray
) -> FloatArray:
    """Least sums (points, entries, exits, 2) over a layered graph by trying every path, for graphs of a few steps.

    ``states`` (steps + 1,): of each layer, and the end. ``exit_of``: the exit that each last state is. ``first``, ``second``
    (points, variants): what variants add, compared as pairs.
    """
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
