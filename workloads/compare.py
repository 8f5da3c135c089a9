"""Compare two operation tables product by product, whatever their rows are called or how projections are fused."""

from __future__ import annotations

from collections import defaultdict

from workloads.ops import Kind, Operation, OperationTable

Key = tuple[str, int, int, int, int, bool]
_COMPARED = (Kind.GEMM, Kind.CONV, Kind.ATTENTION_PREFILL, Kind.ATTENTION_DECODE)


def product_profile(table: OperationTable) -> dict[Key, int]:
    """Return {(kind, batch, groups, m, k, second is a weight): columns n, summed over rows and repeats} of one model's table.

    Products with the same input that differ in their columns only (query, key and value; gate and up) add up, so that a
    fused projection and its parts have one profile.
    """
    profile: dict[Key, int] = defaultdict(int)
    for row in table.rows():
        if row.kind in _COMPARED and int(row.repeat) > 0:
            profile[_key(row)] += int(row.n) * int(row.repeat)
    return dict(profile)


def _key(row: Operation) -> Key:
    # Query heads that share a KV head may be stacked (rows) or apart (batch): the products are the same.
    batch, m = int(row.batch), int(row.m)
    if not row.second_is_weight:
        batch, m = 1, batch * m
    return row.kind.name, batch, int(row.groups), m, int(row.k), row.second_is_weight


def differences(expected: OperationTable, found: OperationTable) -> list[str]:
    """Return one line per product that only one of the tables has, or has more often, with the names of its rows."""
    left, right = product_profile(expected), product_profile(found)
    lines = []
    for key in sorted({*left, *right}):
        a, b = left.get(key, 0), right.get(key, 0)
        if a != b:
            kind, batch, groups, m, k, weight = key
            names = sorted({*_names(expected, key), *_names(found, key)})
            operand = "weight" if weight else "activation"
            lines.append(
                f"{kind} batch {batch} groups {groups} m {m} k {k} ({operand}): columns {a} expected, {b} found; rows {', '.join(names)}"
            )
    return lines


def _names(table: OperationTable, key: Key) -> list[str]:
    return [row.name for row in table.rows() if row.kind in _COMPARED and _key(row) == key]
