"""Sizes of the rungs of successive halving."""

from __future__ import annotations


def rung_sizes(first: int, last: int, between: int) -> list[int]:
    """How many designs each rung measures: from ``first`` to ``last`` by equal factors, ``between`` rungs between the two."""
    return [round(first * (last / first) ** (i / (between + 1))) for i in range(between + 2)]
