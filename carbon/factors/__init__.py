"""Every number from outside with its source: factors, grids, hourly traces, and how they are looked up."""

from __future__ import annotations

from carbon.factors.tables import (
    Factor,
    MemoryFactor,
    NodeIndex,
    fab,
    fab_factors,
    fab_quantities,
    fab_values,
    item,
    items,
    memories,
    memory,
    need,
    nodes,
    parse_node,
    storage,
    storages,
    table,
)

__all__ = [
    "Factor",
    "MemoryFactor",
    "NodeIndex",
    "fab",
    "fab_factors",
    "fab_quantities",
    "fab_values",
    "item",
    "items",
    "memories",
    "memory",
    "need",
    "nodes",
    "parse_node",
    "storage",
    "storages",
    "table",
]
