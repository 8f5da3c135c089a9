"""Extreme multi-label trees (XR-Linear): beam search over masked sparse chunks, compiled.

A tree of sparse linear models answers a sparse query: at each level the children of the best ``beam`` nodes are scored, the best ``topk``
labels come out. The arithmetic is that of PECOS's binary-search format (libpecos, ``BINARY_SEARCH_CHUNKED``): float32 products and
additions in the order of the features, the bias last, exponentials in double; so are the ties: by the parent's rank, then by the
order of C's column. ``xmc_reference`` is the same in numpy.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dse_kernels import _kernels
from dse_kernels.xmc_layout import FILE_HEADER, LEVEL_HEADER, VALUES, sources_of, to_file, to_memory
from dse_kernels.xmc_model import Level, ModelError, Ranker, check_post_processor, check_ranker
from dse_kernels.xmc_pecos import is_pecos_folder, read_pecos, write_pecos

__all__ = [
    "COUNTERS",
    "FILE_NAME",
    "Level",
    "ModelError",
    "Ranker",
    "Tree",
    "build",
    "check_post_processor",
    "check_ranker",
    "load",
    "read_pecos",
    "save",
    "write_pecos",
]

FILE_NAME = "tree.xmc"
COUNTERS = ("macs", "row_probes", "row_hits", "chunks", "labels_scored", "bytes", "unique_lines", "dependent_depth")
MAX_KEPT = 1 << 20

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]


class Tree:
    """A tree that is ready to answer. Made by ``load`` and ``build``; safe to use from several threads."""

    def __init__(self, data: npt.NDArray[np.uint8], name: str = "tree") -> None:
        self._data = data
        try:
            self._kernel = _kernels.XmcTree(data)
        except ValueError as error:
            raise ModelError(f"{name}: {error}") from None
        self._name = name
        self._file = data[: FILE_HEADER.itemsize].view(FILE_HEADER)[0]
        begin = FILE_HEADER.itemsize
        self._levels = data[begin : begin + int(self._file["levels"]) * LEVEL_HEADER.itemsize].view(LEVEL_HEADER)

    features: int = property(lambda self: int(self._file["features"]))  # type: ignore[assignment]
    labels: int = property(lambda self: int(self._file["labels"]))  # type: ignore[assignment]
    depth: int = property(lambda self: len(self._levels))  # type: ignore[assignment]
    nbytes: int = property(lambda self: int(self._data.nbytes))  # type: ignore[assignment]

    @property
    def weights(self) -> str:
        """Format of the stored weights: float32, float16 or int8 (a scale a label)."""
        return VALUES[int(self._file["values"])]

    def level_table(self) -> list[dict[str, Any]]:
        """Of each level: parents, nodes, chunks, stored weights (without the bias), bytes, bias, post-processor, only_topk."""
        return [
            {
                **{key: int(h[key]) for key in ("parents", "nodes", "chunks", "nonzeros")},
                "bytes": int(h["blob_bytes"]),
                "bias": float(h["bias"]),
                "post_processor": h["post_processor"].decode(),
                "only_topk": int(h["only_topk"]),
            }
            for h in self._levels
        ]

    def predict(
        self,
        X: sparse.csr_matrix,
        beam: int | None = 10,
        topk: int | None = 100,
        threads: int = 1,
        post_processor: str | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Labels (n, topk) int32 and scores (n, topk) float32 of the rows of ``X``, best first; unused places are -1 and 0.

        ``X`` is CSR with ascending features and finite values; ``beam`` and ``topk`` None take the ``only_topk`` of each level, and
        ``post_processor`` None each level's own. Raises ModelError naming row and feature where a query cannot be used.
        """
        start, feature, value = self._queries(X)
        width = _count(topk, "topk", int(self._levels[-1]["only_topk"]))
        labels, scores = np.empty((start.size - 1, width), np.int32), np.empty((start.size - 1, width), np.float32)
        if threads < 1:
            raise ModelError(f"threads {threads} is not positive")
        with _Named(self._name):
            arguments = (_count(beam, "beam", 0), width, min(threads, 256), post_processor)
            self._kernel.predict(start, feature, value, *arguments, labels, scores)
        return labels, scores

    def predict_one(
        self,
        indices: IntArray,
        values: FloatArray,
        beam: int = 10,
        topk: int = 100,
        post_processor: str | None = None,
        out: tuple[IntArray, FloatArray] | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Labels (topk,) and scores (topk,) of one query: ascending ``indices`` (int32) and their ``values`` (float32).

        The kernel's scratch is kept between calls of a thread. With ``out``, a pair of arrays of these shapes that is filled and
        returned, nothing is allocated.
        """
        labels, scores = out if out is not None else (np.empty(topk, np.int32), np.empty(topk, np.float32))
        try:
            self._kernel.predict_one(indices, values, beam, topk, post_processor, labels, scores)
        except (TypeError, ValueError) as error:
            # Lists, other widths of integers, or a mistake: the slow way converts what can be converted and names the rest.
            if isinstance(error, TypeError):
                return self._predict_converted(indices, values, beam, topk, post_processor, labels, scores)
            raise ModelError(f"{self._name}: {error}") from None
        return labels, scores

    def _predict_converted(
        self, indices: Any, values: Any, beam: int, topk: int, post_processor: str | None, labels: IntArray, scores: FloatArray
    ) -> tuple[IntArray, FloatArray]:
        feature, value = np.asarray(indices), np.asarray(values)
        if feature.size == 0:
            feature = feature.astype(np.int32)
        if feature.ndim != 1 or value.ndim != 1 or feature.dtype.kind not in "iu" or value.dtype.kind not in "iuf":
            raise ModelError(f"{self._name}: X: indices and values are one-dimensional arrays of integers and of real numbers")
        if feature.size and (feature.min() < 0 or feature.max() >= self.features):
            bad = feature.min() if feature.min() < 0 else feature.max()
            raise ModelError(f"{self._name}: X: feature {bad} is not in 0..{self.features - 1}")
        beam, topk = _count(beam, "beam", 0), _count(topk, "topk", 0)
        with _Named(self._name):
            arguments = (feature.astype(np.int32), value.astype(np.float32), beam, topk, post_processor, labels, scores)
            self._kernel.predict_one(*arguments)
        return labels, scores

    def count(
        self,
        X: sparse.csr_matrix,
        beam: int | None = 10,
        topk: int | None = 100,
        post_processor: str | None = None,
        by_level: bool = False,
    ) -> dict[str, npt.NDArray[np.int64]]:
        """Exact counts of every query, int64 (n,), or (n, levels) with ``by_level``.

        ``macs`` multiply-adds of a feature with a stored weight (the bias, one addition a label, is not among them); ``row_probes``
        features looked up in chunks; ``row_hits`` of them found; ``chunks`` visited; ``labels_scored`` nodes whose score was computed;
        ``bytes`` read from the tree, again and again where it is read again; ``unique_lines`` distinct lines of 64 bytes among them (of
        each level); ``dependent_depth`` reads whose address comes out of the read before them, four a level: the parent's chunks, the
        chunk's head, the bucket's offset, the record.
        """
        start, feature, value = self._queries(X)
        counts = np.zeros((start.size - 1, self.depth, len(COUNTERS)), np.int64)
        with _Named(self._name):
            width = _count(topk, "topk", int(self._levels[-1]["only_topk"]))
            self._kernel.count(start, feature, value, _count(beam, "beam", 0), width, post_processor, counts)
        chosen = counts if by_level else counts.sum(axis=1)
        return {name: np.ascontiguousarray(chosen[..., i]) for i, name in enumerate(COUNTERS)}

    def _queries(self, X: sparse.csr_matrix) -> tuple[npt.NDArray[np.int64], IntArray, FloatArray]:
        if not sparse.issparse(X) or X.format != "csr":
            raise ModelError(f"{self._name}: X: a CSR matrix is needed, got {getattr(X, 'format', type(X).__name__)}")
        if X.shape[1] != self.features:
            raise ModelError(f"{self._name}: X: {X.shape[1]} features, the tree has {self.features}")
        if X.data.dtype.kind not in "iuf" or X.indices.dtype.kind not in "iu" or X.indptr.shape != (X.shape[0] + 1,):
            raise ModelError(f"{self._name}: X: values {X.data.dtype}, indices {X.indices.dtype} and indptr {X.indptr.shape} are not CSR's")
        if X.indices.dtype.itemsize > 4 and X.indices.size and (X.indices.min() < 0 or X.indices.max() >= self.features):
            raise ModelError(f"{self._name}: X: indices {X.indices.min()}..{X.indices.max()} are not all in 0..{self.features - 1}")
        return (
            np.ascontiguousarray(X.indptr, np.int64),
            np.ascontiguousarray(X.indices, np.int32),
            np.ascontiguousarray(X.data, np.float32),
        )


class _Named:
    """Errors of the kernel with the tree's name before them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError) and not isinstance(error, ModelError):
            raise ModelError(f"{self.name}: {error}") from None


def _count(value: int | None, name: str, default: int) -> int:
    if value is None:
        return default
    if not 1 <= value <= MAX_KEPT:
        raise ModelError(f"{name} {value} is not in 1..{MAX_KEPT}")
    return int(value)


def build(ranker: Ranker, weights: str = "float32") -> Tree:
    """A tree in memory out of arrays; ``weights`` float32, float16 or int8 (with a scale a label)."""
    return Tree(to_memory(ranker, weights))


def save(ranker: Ranker, path: str | Path, weights: str = "float32") -> Path:
    """Write ``tree.xmc`` (or ``path`` itself where it ends in .xmc), to be mapped by ``load``; it appears whole or not at all."""
    path = Path(path)
    target = path if path.suffix == ".xmc" else path / FILE_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    sources, leaves = sources_of(check_ranker(ranker))
    to_file(target, sources, leaves, ranker.features, ranker.labels, weights)
    return target


def load(folder: str | Path, weights: str = "float32") -> Tree:
    """Open a tree: a ``.xmc`` file or a folder with ``tree.xmc`` is mapped (milliseconds, pages shared between processes); a folder as
    PECOS saves it is read and laid out anew, with ``weights`` float32, float16 or int8.

    Raises ModelError naming file and field; FileNotFoundError where there is nothing to open.
    """
    path = Path(folder)
    file = path if path.is_file() else path / FILE_NAME
    if file.is_file():
        if file.stat().st_size < FILE_HEADER.itemsize:
            raise ModelError(f"{file}: header: the file has {file.stat().st_size} bytes, fewer than its header")
        tree = Tree(np.memmap(file, np.uint8, "r"), str(file))
        if weights not in (tree.weights, "float32"):
            raise ModelError(f"{file}: weights: holds {tree.weights}, not {weights}; save it again from the folder it was made of")
        return tree
    if is_pecos_folder(path):
        data = to_memory(read_pecos(path, mapped=True), weights, checked=True)
        _give_back()
        return Tree(data, str(path))
    raise FileNotFoundError(f"{path}: neither {FILE_NAME} nor a PECOS ranker (ranker/0.model) is there")


def _give_back() -> None:
    """Hand freed memory back to the system: of what reading and laying out a model took, glibc keeps up to 64 MB for later otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
