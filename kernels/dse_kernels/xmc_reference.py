"""Beam search over a tree of sparse linear models, in numpy: the definition that the C++ kernel is tested against.

Every sum in the order that the kernel keeps: float32, features ascending, product then addition, the bias last.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dse_kernels.xmc_model import Ranker, check_post_processor

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


def column_fault_reference(indptr: npt.NDArray[np.int64], indices: IntArray, data: FloatArray, rows: int, ordered: bool) -> tuple[str, int]:
    """The first column with a fault, by plain loops: a row index outside 0..rows-1, else a value that is not finite, else with
    ``ordered`` rows that do not rise."""
    for column, (begin, end) in enumerate(itertools.pairwise(indptr.tolist())):
        held = indices[begin:end].tolist()
        if any(not 0 <= row < rows for row in held):
            return "OUTSIDE", column
        if not np.isfinite(data[begin:end]).all():
            return "NOT_FINITE", column
        if ordered and any(after <= before for before, after in itertools.pairwise(held)):
            return "UNSORTED", column
    return "NONE", 0


def transform(name: str, margins: FloatArray) -> FloatArray:
    """A post-processor's value of margins (n,) in float32: the hinges by double precision, rounded once."""
    check_post_processor(name)
    if name == "noop":
        return margins
    if name.endswith("sigmoid"):
        # exp in float32, as PECOS takes it: the double's rounding is what a good expf gives in all but rare cases.
        raised = 1.0 + np.exp(-margins.astype(np.float64)).astype(np.float32).astype(np.float64)
        return (-np.log(raised) if name.startswith("log-") else 1.0 / raised).astype(np.float32)
    power = int(name.rsplit("-", 1)[0].removeprefix("log-")[1:])
    short = np.maximum(0.0, 1.0 - margins.astype(np.float64)).astype(np.float32).astype(np.float64)
    values = -(short**power)
    return (values if name.startswith("log-") else np.exp(values)).astype(np.float32)


def combine(name: str, child: FloatArray, parent: FloatArray) -> FloatArray:
    """A child's score with its parent's: a sum of logarithms, a product otherwise, the child alone for noop."""
    if name == "noop":
        return child
    return child + parent if name.startswith("log-") else child * parent


def margins_of(weights: sparse.csc_matrix, columns: IntArray, bias: float, indices: IntArray, values: FloatArray) -> FloatArray:
    """``x . W[:, columns]`` (n,), one addition after the other in float32, the bias (last row of W) last."""
    rows = weights.shape[0]
    out = np.zeros(len(columns), np.float32)
    dense = np.zeros(rows, np.float32)
    dense[indices] = values
    present = np.zeros(rows, bool)
    present[indices] = True
    for at, column in enumerate(columns):
        begin, end = weights.indptr[column], weights.indptr[column + 1]
        held, w = weights.indices[begin:end], weights.data[begin:end]
        total = np.float32(0.0)
        for row, weight in zip(held[present[held]], w[present[held]], strict=True):
            total += dense[row] * weight
        if bias > 0 and end > begin and held[-1] == rows - 1:
            total += np.float32(bias) * w[-1]
        out[at] = total
    return out


def predict_reference(
    ranker: Ranker, queries: sparse.csr_matrix, beam: int | None = 10, topk: int | None = 100, post_processor: str | None = None
) -> tuple[IntArray, FloatArray]:
    """Labels (n, topk) and scores (n, topk) of each query, best first, ties by place: the parent's rank, then the order of its column.

    ``beam`` and ``topk`` None take each level's own ``only_topk``; unused places are -1 and 0.
    """
    width = topk or ranker.levels[-1].only_topk
    labels = np.full((queries.shape[0], width), -1, np.int32)
    scores = np.zeros((queries.shape[0], width), np.float32)
    for q in range(queries.shape[0]):
        indices = queries.indices[queries.indptr[q] : queries.indptr[q + 1]]
        values = queries.data[queries.indptr[q] : queries.indptr[q + 1]].astype(np.float32)
        nodes, of_nodes = np.zeros(1, np.int32), np.ones(1, np.float32)
        for depth, level in enumerate(ranker.levels):
            name = post_processor or level.post_processor
            families = [level.parents.indices[level.parents.indptr[n] : level.parents.indptr[n + 1]] for n in nodes]
            children = np.concatenate([*families, np.zeros(0, np.int32)]).astype(np.int32)
            inherited = np.repeat(of_nodes, [len(f) for f in families])
            own = transform(name, margins_of(level.weights, children, level.bias, indices, values))
            total = own if depth == 0 else combine(name, own, inherited)
            last = depth == len(ranker.levels) - 1
            keep = (topk if last else beam) or level.only_topk
            order = np.argsort(-total, kind="stable")[:keep]
            nodes, of_nodes = children[order], total[order]
        labels[q, : len(nodes)], scores[q, : len(nodes)] = nodes, of_nodes
    return labels, scores
