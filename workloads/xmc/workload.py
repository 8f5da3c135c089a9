"""The family `xmc`: a tree that answers one query, as operations; its counts and its quality are measured, never derived from a product.

A table (CSV) has a line for each level of each measured tree: its knobs, Recall@100 and P@1 on held-out documents, stored weights and
bytes, and what a query touches, means over queries (benchmarks/xmc_table.py makes it). Only measured combinations of knobs exist.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from workloads.errors import WorkloadError
from workloads.ops import Kind, Operation, OperationTable
from workloads.records import Phase

IntArray = npt.NDArray[np.int64]
KNOBS = ("ngrams", "branch", "leaf", "threshold_milli", "weight_bits", "beam")
TABLES = {"xmc-wordnet": "wordnet_hypernyms.csv"}
SCORE_BITS = 32


@dataclass(frozen=True)
class MeasuredTrees:
    """The table of a workload: ``knobs`` (trees, 6), quality (trees,), and columns (trees, levels), zero where a tree has no such level."""

    knobs: IntArray
    recall: npt.NDArray[np.float64]
    recall_sem: npt.NDArray[np.float64]
    precision: npt.NDArray[np.float64]
    levels: Mapping[str, IntArray]

    def index(self, values: Mapping[str, Any]) -> IntArray:
        """Tree of each combination of knobs (models,). Raises WorkloadError with the nearest measured tree."""
        asked = np.column_stack(np.broadcast_arrays(*[np.atleast_1d(np.asarray(values[name], np.int64)) for name in KNOBS]))
        same = (asked[:, None, :] == self.knobs[None, :, :]).all(axis=2)
        if not same.any(axis=1).all():
            bad = asked[int(np.argmin(same.any(axis=1)))]
            distance = (np.abs(np.log2((self.knobs + 1) / (bad + 1))) + (self.knobs != bad)).sum(axis=1)
            near = self.knobs[int(np.argmin(distance))]
            told = ", ".join(f"{name}={v}" for name, v in zip(KNOBS, bad, strict=True))
            best = ", ".join(f"{name}={v}" for name, v in zip(KNOBS, near, strict=True))
            raise WorkloadError(f"no tree was measured with {told}; nearest is {best}")
        found: IntArray = np.argmax(same, axis=1)
        return found


@cache
def measured(name: str) -> MeasuredTrees:
    """The measured trees of the workload ``name``."""
    text = (resources.files("workloads") / "xmc" / TABLES[name]).read_text(encoding="utf-8")
    lines = list(csv.DictReader(text.splitlines()))
    keys = list(dict.fromkeys(tuple(int(line[k]) for k in KNOBS) for line in lines))
    number = {key: i for i, key in enumerate(keys)}
    depth = 1 + max(int(line["level"]) for line in lines)
    counted = ("stored", "bytes", "chunks", "labels_scored", "row_probes", "row_hits", "macs", "unique_lines", "dependent_depth")
    levels = {column: np.zeros((len(keys), depth), np.int64) for column in counted}
    quality = np.zeros((3, len(keys)))
    for line in lines:
        at = number[tuple(int(line[k]) for k in KNOBS)]
        for column in counted:
            levels[column][at, int(line["level"])] = round(float(line[column]))
        quality[:, at] = [float(line[k]) for k in ("recall_100", "recall_100_sem", "precision_1")]
    return MeasuredTrees(np.array(keys, np.int64), quality[0], quality[1], quality[2], levels)


def check_trees(values: dict[str, Any], given: frozenset[str], model: str) -> None:
    """Raise WorkloadError for knobs of which no tree was measured."""
    measured(values["table"]).index(values)


def default_grid(values: Mapping[str, Any]) -> dict[str, IntArray]:
    """All measured trees, in the order of their knobs."""
    knobs = measured(str(values["table"])).knobs
    ordered = knobs[np.lexsort(knobs.T[::-1])]
    return {name: np.ascontiguousarray(ordered[:, i]) for i, name in enumerate(KNOBS)}


def xmc_phases(d: Mapping[str, Any]) -> tuple[Phase, ...]:
    """One query: its levels, one after the other."""
    table = measured(d["table"])
    chosen = table.index(d)
    one = all(np.ndim(d[name]) == 0 for name in KNOBS)
    depth = next(iter(table.levels.values())).shape[1]
    above = np.cumsum(table.levels["bytes"], axis=1)
    rows = []
    for level in range(depth):
        column = {name: values[chosen, level] for name, values in table.levels.items()}
        present = column["chunks"] > 0
        if not present.any():
            continue
        chunks = np.maximum(column["chunks"], 1)
        # The index that a stored weight needs travels with it: bits of a weight as the tree's bytes have them.
        bits = np.maximum(1, np.rint(8 * column["bytes"] / np.maximum(column["stored"], 1)).astype(np.int64))

        def shaped(values: IntArray) -> Any:
            return int(values[0]) if one else np.ascontiguousarray(values, dtype=np.int64)

        rows.append(
            Operation(
                name=f"level_{level}",
                kind=Kind.SPARSE_BEAM,
                component=f"level_{level}",
                function="l3_hinge",
                m=shaped(chunks),
                n=shaped(np.maximum(1, np.rint(column["labels_scored"] / chunks).astype(np.int64))),
                k=d["beam"],
                batch=d["batch"],
                repeat=shaped(present.astype(np.int64)),
                input_bits=SCORE_BITS,
                output_bits=SCORE_BITS,
                weight_bits=shaped(bits),
                parameters=shaped(column["stored"]),
                copies=1,
                weight_id=f"level_{level}",
                row_probes=shaped(column["row_probes"]),
                row_hits=shaped(column["row_hits"]),
                sparse_macs=shaped(column["macs"]),
                unique_lines=shaped(column["unique_lines"]),
                dependent_depth=shaped(column["dependent_depth"]),
                table_bytes=shaped(above[chosen, level]),
            )
        )
    return (Phase("query", OperationTable.from_rows(rows)),)
