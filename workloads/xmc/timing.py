"""Times and counts of a tree on queries: batch, one at a time, and what a query touches."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
from dse_kernels.xmc import Tree
from scipy import sparse


def bench(tree: Tree, queries: sparse.csr_matrix, beam: int, topk: int, threads: int = 1, rounds: int = 5) -> dict[str, Any]:
    """CPU and wall time a query in a batch [ms], percentiles of single calls through Python [us], mean counts of a query.

    Minima over ``rounds`` for the batch; all single calls of all rounds for the percentiles, after one round that is not counted.
    """
    count = queries.shape[0]
    cpu, wall = [], []
    for _ in range(rounds):
        begin_cpu, begin = time.process_time(), time.perf_counter()
        tree.predict(queries, beam, topk, threads=threads)
        cpu.append(time.process_time() - begin_cpu)
        wall.append(time.perf_counter() - begin)
    edges = queries.indptr
    rows = [(queries.indices[a:b].astype(np.int32), queries.data[a:b].astype(np.float32)) for a, b in pairwise(edges)]
    rows = rows[:2000]
    single = []
    for turn in range(3):
        for indices, values in rows:
            begin_ns = time.perf_counter_ns()
            tree.predict_one(indices, values, beam, topk)
            if turn:
                single.append((time.perf_counter_ns() - begin_ns) / 1e3)
    counted = tree.count(queries[: min(count, 500)], beam, topk)
    return {
        "queries": count,
        "beam": beam,
        "topk": topk,
        "threads": threads,
        "batch_cpu_ms": min(cpu) / count * 1e3,
        "batch_wall_ms": min(wall) / count * 1e3,
        "online_p50_us": float(np.percentile(single, 50)),
        "online_p99_us": float(np.percentile(single, 99)),
        "bytes": tree.nbytes,
        "weights": tree.weights,
        "counts": {name: float(values.mean()) for name, values in counted.items()},
    }
