"""The traffic formulas against a literal walk of the loop nest: every tile visited in order, every word counted.

The walk knows nothing of fetch counts. It steps through the blocks and moves tiles as the model says: the operand that the innermost
loop leaves in place moves when another loop steps, the others at every step, and nothing is carried over from one block to the
next. A second walk asks whether the tile is the one that is there; it may find some more reuse at clipped ends, never less.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from dse_kernels import mapping_reference as reference
from dse_kernels.mapping import MappingHardware

Region = tuple[tuple[int, int], ...]
OPERANDS = {"in": (0, 2), "w": (2, 1), "out": (0, 1)}


def children(region: Region, tile: tuple[int, ...], innermost: int) -> Iterator[Region]:
    """Tiles of a region, clipped at its end; the loop over dimension ``innermost`` runs fastest."""
    order = [d for d in range(3) if d != innermost] + [innermost]
    steps = [range(region[d][0], region[d][1], tile[d]) for d in order]
    for starts in itertools.product(*steps):
        start = dict(zip(order, starts, strict=True))
        yield tuple((start[d], min(start[d] + tile[d], region[d][1])) for d in range(3))


def walk(dims: tuple[int, ...], tiles: list[tuple[int, ...]], stationary: tuple[int, ...], *, look: bool = False) -> list[dict[str, int]]:
    """Words read from and written to each level for what is inside it: in, w, out (read back), written."""
    levels = len(stationary)
    words = [dict.fromkeys(("in", "w", "out", "written"), 0) for _ in range(levels)]
    seen: list[set[Region]] = [set() for _ in range(levels)]

    def size(region: Region, operand: str) -> int:
        return int(np.prod([region[d][1] - region[d][0] for d in OPERANDS[operand]]))

    def block(level: int, region: Region) -> None:
        held: dict[str, Any] = {}
        for child in children(region, tiles[level], stationary[level]):
            for operand, (a, b) in OPERANDS.items():
                part = (child[a], child[b])
                others = tuple(child[d] for d in range(3) if d != stationary[level])
                resting = stationary[level] not in (a, b)
                step = part if look else others if resting else child
                if held.get(operand) == step:
                    continue
                if operand != "out":
                    words[level][operand] += size(child, operand)
                else:
                    words[level]["written"] += size(child, "out")  # counted when it comes, it will leave once
                    if part in seen[level]:
                        words[level]["out"] += size(child, "out")
                    seen[level].add(part)
                held[operand] = step
            if level > 0:
                block(level - 1, child)

    block(levels - 1, tuple((0, d) for d in dims))
    return words


@pytest.mark.parametrize("seed", range(120))
def test_words_equal_a_walk_of_the_nest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = int(rng.integers(1, 4))
    dims = tuple(int(v) for v in rng.integers(1, 14, size=3))
    unroll = tuple(int(v) for v in rng.integers(1, 4, size=3))
    registers = tuple(int(v) for v in rng.integers(1, 3, size=3))
    tile = tuple(u * r for u, r in zip(unroll, registers, strict=True))
    tiles = [tile]
    for _ in range(levels - 1):
        tile = tuple(t * int(rng.integers(1, 4)) for t in tile)
        tiles.append(tile)
    stationary = tuple(int(v) for v in rng.integers(0, 3, size=levels))
    hardware = MappingHardware(
        cores=np.array([1]),
        array_rows=np.array([1]),
        array_columns=np.array([1]),
        mac_pj=np.array([0.0]),
        level_words=np.full((1, levels), 1e9),
        level_read_words_per_cycle=np.ones((1, levels)),
        level_write_words_per_cycle=np.ones((1, levels)),
        level_read_pj_per_word=np.zeros((1, levels)),
        level_write_pj_per_word=np.zeros((1, levels)),
        level_shared=np.ones(levels, dtype=bool),
        level_per_core=np.zeros(levels, dtype=bool),
    )
    nest = reference.Nest((1, 1, 1, 1), unroll, registers, stationary, tuple(tiles[1:]))
    model = reference.cost((1, *dims), reference.Point.of(hardware, 0), nest)
    counted = walk(dims, tiles, stationary)
    looking = walk(dims, tiles, stationary, look=True)
    for level, found in enumerate(counted):
        outside = counted[level + 1] if level + 1 < levels else dict.fromkeys(found, 0)
        assert model["read_words"][level] == found["in"] + found["w"] + found["out"] + outside["written"]
        assert model["write_words"][level] == found["written"] + outside["in"] + outside["w"] + outside["out"]
        assert all(looking[level][name] <= count for name, count in found.items())


def test_compute_cycles_equal_a_walk_over_the_units_of_the_array() -> None:
    """A dot-product array takes one cycle for each group of units it works on, clipped groups included."""
    for dims, unroll in [((7, 5, 3), (2, 2, 1)), ((197, 197, 64), (1, 128, 4)), ((1, 9, 16), (4, 1, 16))]:
        steps = sum(1 for _ in children(tuple((0, d) for d in dims), unroll, 0))
        hardware = MappingHardware(
            cores=np.array([1]),
            array_rows=np.array([1]),
            array_columns=np.array([1]),
            mac_pj=np.array([0.0]),
            level_words=np.full((1, 1), 1e9),
            level_read_words_per_cycle=np.ones((1, 1)),
            level_write_words_per_cycle=np.ones((1, 1)),
            level_read_pj_per_word=np.zeros((1, 1)),
            level_write_pj_per_word=np.zeros((1, 1)),
            level_shared=np.ones(1, dtype=bool),
            level_per_core=np.zeros(1, dtype=bool),
        )
        nest = reference.Nest((1, 1, 1, 1), unroll, (1, 1, 1), (0,), ())
        assert reference.cost((1, *dims), reference.Point.of(hardware, 0), nest)["compute_cycles"] == steps
