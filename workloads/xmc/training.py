"""Training level by level: one-vs-all linear models with squared hinge loss (liblinear's dual coordinate descent), then pruning."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from dse_kernels import xmc
from dse_kernels.xmc_pecos import read_csc
from scipy import sparse

from workloads.xmc.clusters import cluster, label_features, most_frequent, tree_shape
from workloads.xmc.errors import XmcError
from workloads.xmc.text import REMEDY

NEGATIVES = ("tfn", "tfn+man")


@dataclass(frozen=True)
class TrainSettings:
    """Knobs of the training.

    ``branch`` children of a node (a power of two), ``leaf`` labels of a cluster at most; ``frequent``: that many labels of the most
    documents, no more than a tenth of all, share a cluster of their own (0: none); ``threshold``: smaller weights are dropped;
    ``penalty`` liblinear's C; ``tolerance`` and ``iterations`` end its descent; ``bias`` constant feature (0: none); ``negatives``:
    ``tfn`` documents of the sibling labels (teacher forcing), ``tfn+man`` those too that the trained levels above send here
    by their beam; ``post_processor`` makes a score of a margin (docs/xmc.md compares it with PECOS's own default, l3-hinge);
    ``only_topk`` what is kept at each level unless told otherwise.
    """

    branch: int = 16
    leaf: int = 100
    frequent: int = 100
    threshold: float = 0.1
    penalty: float = 1.0
    tolerance: float = 0.1
    iterations: int = 100
    bias: float = 1.0
    negatives: str = "tfn"
    beam: int = 10
    post_processor: str = "l4-hinge"
    only_topk: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.negatives not in NEGATIVES:
            raise XmcError(f"negatives {self.negatives!r} is not one of {', '.join(NEGATIVES)}")
        tree_shape(1, self.branch, self.leaf)
        for name in ("threshold", "bias"):
            if not 0 <= getattr(self, name) < np.inf:
                raise XmcError(f"{name} {getattr(self, name)} is not a finite number from 0 on")
        if self.frequent < 0:
            raise XmcError(f"frequent {self.frequent} is negative")
        for name in ("penalty", "tolerance", "iterations", "beam", "only_topk"):
            if not 0 < getattr(self, name) < np.inf:
                raise XmcError(f"{name} {getattr(self, name)} is not a finite positive number")
        try:
            xmc.check_post_processor(self.post_processor)
        except xmc.ModelError as error:
            raise XmcError(str(error)) from None


def prune(ranker: xmc.Ranker, threshold: float) -> xmc.Ranker:
    """The ranker without weights of absolute value below ``threshold`` (those of the bias too)."""
    levels = []
    for level in ranker.levels:
        w = level.weights.copy()
        w.data = np.where(np.abs(w.data) < threshold, np.float32(0.0), w.data)
        w.eliminate_zeros()
        levels.append(xmc.Level(w, level.parents, level.bias, level.post_processor, level.only_topk))
    return xmc.Ranker(tuple(levels))


def train(
    X: sparse.csr_matrix,
    Y: sparse.csr_matrix,
    settings: TrainSettings,
    checkpoint: Path | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> xmc.Ranker:
    """Train a tree on documents ``X`` (n, features) with labels ``Y`` (n, labels) of ones.

    Levels that are done are kept in the folder ``checkpoint``: training again with the same data and settings goes on behind them.
    Raises XmcError where sizes do not fit.
    """
    if X.shape[0] != Y.shape[0] or X.shape[0] == 0 or Y.nnz == 0:
        raise XmcError(f"X has {X.shape[0]} documents, Y has {Y.shape[0]} with {Y.nnz} labels")
    if not np.isfinite(X.data).all():
        raise XmcError("X: a value is not a finite number")
    kept = _Checkpoint(checkpoint, X, Y, settings)
    chain = kept.chain()
    if not chain:
        apart = most_frequent(Y, settings.frequent)
        chain = kept.keep_chain(cluster(label_features(X, Y), settings.branch, settings.leaf, settings.seed, apart))
    tell("tree of " + ", ".join(f"{c.shape[0]:,}" for c in chain) + " nodes")
    targets = [Y.tocsr()]  # documents x nodes of each level, from the labels up
    for c in chain[:0:-1]:
        above = targets[0] @ c
        above.data = np.ones_like(above.data)
        targets.insert(0, above.tocsr())
    levels: list[xmc.Level] = []
    wide = X.astype(np.float64)
    for depth, (c, target) in enumerate(zip(chain, targets, strict=True)):
        weights = kept.weights(depth)
        if weights is None:
            reach = _reach(levels, targets[depth - 1] if depth else None, X, settings)
            weights = kept.keep_weights(depth, _train_level(wide, target, c, reach, settings))
        tell(f"level {depth}: {c.shape[0]:,} nodes, {weights.nnz:,} weights")
        levels.append(xmc.Level(weights, c, settings.bias or -1.0, settings.post_processor, settings.only_topk))
    try:
        return xmc.check_ranker(xmc.Ranker(tuple(levels)))
    except xmc.ModelError as error:
        raise XmcError(str(error)) from None


def _reach(
    levels: list[xmc.Level], above: sparse.csr_matrix | None, X: sparse.csr_matrix, settings: TrainSettings
) -> sparse.csc_matrix | None:
    """Documents that each parent is trained on (documents, parents); None: all (the root)."""
    if above is None:
        return None
    reach = above
    if settings.negatives == "tfn+man":
        found, _ = xmc.build(xmc.Ranker(tuple(levels))).predict(X, settings.beam, settings.beam)
        rows, places = np.nonzero(found >= 0)
        sent = sparse.csr_matrix((np.ones(rows.size, np.float32), (rows, found[rows, places])), shape=above.shape)
        reach = above + sent
    return reach.tocsc()


def _train_level(
    X: sparse.csr_matrix,
    target: sparse.csr_matrix,
    c: sparse.csc_matrix,
    reach: sparse.csc_matrix | None,
    settings: TrainSettings,
) -> sparse.csc_matrix:
    """Weights (features + bias, nodes) of one level, parent by parent: a parent's documents, and of them the features that occur."""
    columns: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]] = [(np.zeros(0, np.int32), np.zeros(0, np.float32))] * c.shape[0]
    for parent in range(c.shape[1]):
        children = c.indices[c.indptr[parent] : c.indptr[parent + 1]]
        documents = np.arange(X.shape[0]) if reach is None else reach.indices[reach.indptr[parent] : reach.indptr[parent + 1]]
        if documents.size == 0:
            continue
        part = X[documents]
        used, compact = np.unique(part.indices, return_inverse=True)
        if used.size == 0:  # documents without a feature: the bias alone is learnt
            used = np.zeros(1, np.int32)
        part = sparse.csr_matrix((part.data, compact.astype(np.int32), part.indptr.astype(np.int32)), shape=(documents.size, used.size))
        own = target[documents][:, children].tocsc()
        for i, child in enumerate(children):
            positive = np.zeros(documents.size, bool)
            positive[own.indices[own.indptr[i] : own.indptr[i + 1]]] = True
            if positive.any():
                columns[child] = _fit(part, positive, used, X.shape[1], settings)
    indptr = np.concatenate([[0], np.cumsum([len(rows) for rows, _ in columns])])
    indices, data = np.concatenate([rows for rows, _ in columns]), np.concatenate([w for _, w in columns])
    return sparse.csc_matrix((data, indices, indptr), shape=(X.shape[1] + (settings.bias > 0), c.shape[0]))


def _fit(
    X: sparse.csr_matrix, positive: npt.NDArray[np.bool_], used: npt.NDArray[np.int32], features: int, settings: TrainSettings
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Rows and weights of one node, small weights dropped: L2-regularised squared hinge, dual coordinate descent."""
    # scikit-learn's wrapper of liblinear itself: the estimator around it (LinearSVC, whose problem this is) takes longer than most problems
    # do, and there are as many problems as labels.
    try:
        from sklearn.svm import _liblinear
    except ImportError:
        raise XmcError(f"scikit-learn is needed for training: {REMEDY}") from None
    _liblinear.set_verbosity_wrap(0)
    one_class = bool(positive.all())  # then liblinear knows a single label, the first
    raw, _ = _liblinear.train_wrap(
        X,
        np.zeros(positive.size) if one_class else positive.astype(np.float64),
        True,  # sparse
        1,  # L2R_L2LOSS_SVC_DUAL
        settings.tolerance,
        settings.bias or -1.0,
        settings.penalty,
        np.ones(1 if one_class else 2),
        settings.iterations,
        settings.seed,
        0.1,  # of support vector regression alone
        np.ones(positive.size),
    )
    weights = np.asarray(raw).reshape(-1).astype(np.float32)
    kept = np.flatnonzero(np.abs(weights) >= max(settings.threshold, 1e-38))
    rows = np.append(used, features).astype(np.int32)[kept] if settings.bias > 0 else used[kept].astype(np.int32)
    return rows, weights[kept]


class _Checkpoint:
    """Finished levels in a folder, with a fingerprint of data and settings; does nothing without a folder."""

    def __init__(self, folder: Path | None, X: sparse.csr_matrix, Y: sparse.csr_matrix, settings: TrainSettings) -> None:
        self.folder = folder
        self.labels = Y.shape[1]
        if folder is None:
            return
        digest = hashlib.sha256(json.dumps(asdict(settings), sort_keys=True).encode())
        for matrix in (X, Y):
            for array in (matrix.indptr, matrix.indices, matrix.data):
                digest.update(np.ascontiguousarray(array).tobytes())
        folder.mkdir(parents=True, exist_ok=True)
        mark = folder / "fingerprint"
        if not mark.exists() or mark.read_text(errors="replace") != digest.hexdigest():
            for old in folder.glob("*.npz"):
                old.unlink()
            mark.write_text(digest.hexdigest())

    def _read(self, name: str, *, sort: bool) -> sparse.csc_matrix | None:
        if self.folder is None or not (self.folder / name).exists():
            return None
        try:
            return read_csc(self.folder / name, sort=sort)
        except xmc.ModelError as error:
            raise XmcError(f"{error}; remove {self.folder.parent} to train anew") from None

    def _write(self, name: str, matrix: sparse.csc_matrix) -> sparse.csc_matrix:
        if self.folder is not None:
            part = self.folder / f"part-{name}"
            sparse.save_npz(part, matrix, compressed=False)
            part.replace(self.folder / name)  # whole or not at all
        return matrix

    def chain(self) -> list[sparse.csc_matrix]:
        found: list[sparse.csc_matrix] = []
        while (c := self._read(f"C{len(found)}.npz", sort=False)) is not None:
            found.append(c)
        if self._read("done.npz", sort=False) is None:
            return []
        sizes = [c.shape for c in found]
        if [1, *(rows for rows, _ in sizes)] != [*(above for _, above in sizes), self.labels]:
            raise XmcError(f"{self.folder}: the label tree C*.npz has levels of {sizes}, not down to {self.labels} labels")
        return found

    def keep_chain(self, chain: list[sparse.csc_matrix]) -> list[sparse.csc_matrix]:
        for depth, c in enumerate(chain):
            self._write(f"C{depth}.npz", c)
        self._write("done.npz", chain[0])
        return chain

    def weights(self, depth: int) -> sparse.csc_matrix | None:
        return self._read(f"W{depth}.npz", sort=True)  # sizes are compared with the others' at the end

    def keep_weights(self, depth: int, weights: sparse.csc_matrix) -> sparse.csc_matrix:
        return self._write(f"W{depth}.npz", weights)
