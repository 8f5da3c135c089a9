"""The label tree: labels by the mean of their documents, then halved again and again by balanced spherical 2-means; those of the most
documents in a cluster of their own.

Sources: positive instance feature aggregation and hierarchical balanced k-means as PECOS names them (arXiv:2010.05878), after Parabel.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
from scipy import sparse

from workloads.xmc.errors import XmcError

ITERATIONS = 20


def label_features(X: sparse.csr_matrix, Y: sparse.csr_matrix) -> sparse.csr_matrix:
    """Mean of the documents of each label, scaled to length 1 (labels, features); a label without documents is empty."""
    return _unit(sparse.csr_matrix(Y.T @ X))


def _unit(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    scale = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0).astype(np.float32)
    out = matrix.copy()
    out.data = out.data * np.repeat(scale, np.diff(matrix.indptr))
    return out


def most_frequent(Y: sparse.csr_matrix, count: int) -> npt.NDArray[np.int64]:
    """The ``count`` labels of the most documents, no more than a tenth of all; of equally many the lower numbers."""
    documents = np.bincount(Y.indices, minlength=Y.shape[1])
    return np.sort(np.argsort(-documents, kind="stable")[: min(count, Y.shape[1] // 10)])


def tree_shape(labels: int, branch: int, leaf: int) -> tuple[int, ...]:
    """Clusters of each level above the labels: as many halvings as bring clusters to ``leaf`` labels at most, ``branch`` children a node
    from the lowest level up; the root has what is left. Source: PECOS's hierarchical k-means shares a tree out so."""
    if branch < 2 or branch & (branch - 1):
        raise XmcError(f"branch {branch} is not a power of two from 2 on (clusters are halved)")
    if leaf < 1:
        raise XmcError(f"leaf {leaf} is not positive")
    halvings = (-(-labels // leaf) - 1).bit_length()  # the least power of two that is not below labels / leaf
    return tuple(2**done for done in range(halvings, 0, -(branch.bit_length() - 1)))[::-1]


def cluster(
    features: sparse.csr_matrix, branch: int, leaf: int, seed: int = 0, apart: npt.NDArray[np.int64] | None = None
) -> list[sparse.csc_matrix]:
    """Parents of each level, from the root's children to the labels: CSC (nodes, parents) of ones.

    Clusters of one level differ by at most one label in size. A cluster that would be empty is left out. The labels ``apart`` are not
    halved with the others: they are one cluster, of whatever size, the last of its level, on a branch of its own from the root down.
    Where one cluster is enough for all, or the others are none, nothing stands apart.
    """
    labels = features.shape[0]
    alone = np.zeros(labels, bool)
    if apart is not None and labels > leaf:
        alone[apart] = True
    if alone.all():
        alone[:] = False
    others = np.flatnonzero(~alone)
    shape = tree_shape(others.size, branch, leaf) or ((1,) if alone.any() else ())
    rng = np.random.default_rng(seed)
    groups = [others]
    owners: list[npt.NDArray[np.int64]] = []  # of each level's clusters: the cluster above
    for above, below in itertools.pairwise((1, *shape)):
        parent = np.arange(len(groups))
        for _ in range((below // above).bit_length() - 1):
            halves = [_halve(features, group, rng) for group in groups]
            parent = np.repeat(parent, 2)
            groups = [half for pair in halves for half in pair]
        kept = np.array([group.size > 0 for group in groups])
        owners.append(parent[kept])
        groups = [group for group in groups if group.size]
    if alone.any():
        # One node more at every level: a child of the root, below it of the one before.
        last = [0, *(owner.size for owner in owners)]
        owners = [np.append(owner, parent) for owner, parent in zip(owners, last, strict=False)]
        groups.append(np.flatnonzero(alone))
    chain = [_children(owner, above) for owner, above in zip(owners, [1, *map(len, owners)], strict=False)]
    of_label = np.empty(labels, np.int64)
    for i, group in enumerate(groups):
        of_label[group] = i
    return [*chain, _children(of_label, len(groups))]


def _children(parent: npt.NDArray[np.int64], above: int) -> sparse.csc_matrix:
    nodes = np.arange(parent.size)
    matrix = sparse.csc_matrix((np.ones(parent.size, np.float32), (nodes, parent)), shape=(parent.size, above))
    matrix.sort_indices()
    return matrix


def _halve(
    features: sparse.csr_matrix, group: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Two halves by 2-means on the sphere: the rows nearer to the first mean than to the second, as many as fill half."""
    n, half = group.size, (group.size + 1) // 2
    if n < 2:
        return group, group[:0]
    rows = features[group]
    used, columns = np.unique(rows.indices, return_inverse=True)
    rows = sparse.csr_matrix((rows.data, columns.astype(np.int32), rows.indptr), shape=(n, max(used.size, 1)))
    across = rows.T.tocsr()
    first, second = rng.choice(n, 2, replace=False)
    between = np.asarray((rows[first] - rows[second]).todense()).ravel()
    total = np.asarray(rows.sum(axis=0)).ravel()
    left = np.zeros(n, bool)
    for _ in range(ITERATIONS):
        order = np.argsort(-(rows @ between), kind="stable")
        now = np.zeros(n, bool)
        now[order[:half]] = True
        if np.array_equal(now, left):
            break
        left = now
        mean = across @ left.astype(np.float32)
        other = total - mean
        between = mean / max(float(np.linalg.norm(mean)), 1e-30) - other / max(float(np.linalg.norm(other)), 1e-30)
    return group[left], group[~left]
