"""How good a ranking is: precision and recall at k, measured on documents whose labels are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse


def hits(labels: npt.NDArray[np.int32], truth: sparse.csr_matrix) -> npt.NDArray[np.bool_]:
    """Which predicted labels (n, k) are true; places without a label (-1) are not."""
    rows = np.repeat(np.arange(labels.shape[0]), labels.shape[1])
    flat = labels.ravel()
    known = flat >= 0
    found = np.zeros(flat.size, bool)
    found[known] = np.asarray(truth[rows[known], flat[known]]).ravel() > 0
    return found.reshape(labels.shape)


def measures(labels: npt.NDArray[np.int32], truth: sparse.csr_matrix, at: tuple[int, ...] = (1, 5, 10, 20, 100)) -> dict[str, float]:
    """``precision@k`` (true among the first k, over k) and ``recall@k`` (found in the first k, over the document's labels), means over
    documents that have labels; only k that were predicted."""
    counts = np.diff(truth.indptr)
    kept = counts > 0
    found = hits(labels, truth)[kept]
    out = {}
    for k in at:
        if k <= labels.shape[1]:
            right = found[:, :k].sum(axis=1)
            out[f"precision@{k}"] = float(np.mean(right / k))
            out[f"recall@{k}"] = float(np.mean(right / counts[kept]))
    return out
