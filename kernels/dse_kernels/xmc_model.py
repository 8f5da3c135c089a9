"""A tree of sparse linear models as plain arrays: what the kernel is built from and what the reference computes with."""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from dse_kernels import _kernels

POST_PROCESSORS = "noop, sigmoid, log-sigmoid, l<P>-hinge or log-l<P>-hinge, e.g. l3-hinge"
_HINGE = re.compile(r"(log-)?l(\d{1,3})-hinge")


class ModelError(ValueError):
    """A model or a query that cannot be used; the message names file and field."""


def check_post_processor(name: str) -> str:
    """Return ``name`` if it is a post-processor: noop, sigmoid, log-sigmoid, l<P>-hinge, log-l<P>-hinge (P = 0..999)."""
    if name in ("noop", "sigmoid", "log-sigmoid") or _HINGE.fullmatch(name):
        return name
    known = ("noop", "sigmoid", "log-sigmoid", "l1-hinge", "l2-hinge", "l3-hinge", "l4-hinge", "log-l3-hinge")
    nearest = difflib.get_close_matches(name, known, 1, 0.0)[0]
    raise ModelError(f"post_processor {name!r} is not known (did you mean {nearest!r}?): {POST_PROCESSORS}")


@dataclass(frozen=True)
class Level:
    """One level: the children of the level above, scored.

    ``weights`` (rows, nodes) in CSC, float32, rows = features, and one more for the bias where ``bias`` > 0; ``parents``
    (nodes, nodes of the level above) in CSC: column j lists the children of node j, in the order that breaks ties.
    """

    weights: sparse.csc_matrix
    parents: sparse.csc_matrix
    bias: float = 1.0
    post_processor: str = "l3-hinge"
    only_topk: int = 20

    @property
    def nonzeros(self) -> int:
        """Stored weights, those of the bias included."""
        return int(self.weights.nnz)


@dataclass(frozen=True)
class Ranker:
    """Levels from the root's children (level 0) down to the labels (last)."""

    levels: tuple[Level, ...]

    @property
    def features(self) -> int:
        """Features of a query (the bias is none of them)."""
        first = self.levels[0]
        return int(first.weights.shape[0]) - (first.bias > 0)

    @property
    def labels(self) -> int:
        """Labels: rows of the last level's ``parents``, those that no cluster holds included."""
        return int(self.levels[-1].parents.shape[0])


def check_ranker(ranker: Ranker, names: Sequence[str] = (), *, entries: bool = True) -> Ranker:
    """Return the ranker if its levels fit one another; else ModelError. ``names`` says what each level is called in messages;
    ``entries`` False leaves out the entries of W where whoever read them has looked at each."""
    if not ranker.levels:
        raise ModelError("a tree needs at least one level")
    above = 1
    for depth, level in enumerate(ranker.levels):
        where = names[depth] if names else f"level {depth}"
        _check_csc(level.weights, f"{where}: W", ordered=True, entries=entries)
        _check_csc(level.parents, f"{where}: C", ordered=False)
        nodes = level.weights.shape[1]
        if level.parents.shape[0] != nodes:
            raise ModelError(f"{where}: C has {level.parents.shape[0]} rows, W has {nodes} columns: both count this level's nodes")
        if level.parents.shape[1] != above:
            raise ModelError(f"{where}: C has {level.parents.shape[1]} columns, the level above has {above} nodes")
        if not np.isfinite(level.bias):
            raise ModelError(f"{where}: bias {level.bias} is not a finite number")
        features = level.weights.shape[0] - (level.bias > 0)
        if features < 1 or features != ranker.features:
            raise ModelError(f"{where}: W has {features} features (bias {level.bias:g}), level 0 has {ranker.features}")
        if nodes and np.bincount(level.parents.indices, minlength=nodes).max(initial=0) > 1:
            twice = int(np.argmax(np.bincount(level.parents.indices, minlength=nodes) > 1))
            raise ModelError(f"{where}: C gives node {twice} two parents, a tree has one")
        if level.only_topk < 1:
            raise ModelError(f"{where}: only_topk {level.only_topk} is not positive")
        check_post_processor(level.post_processor)
        above = nodes
    return ranker


class Fault(enum.Enum):
    """What is wrong with the entries of a CSC matrix, as the kernel numbers it."""

    NONE = 0
    OUTSIDE = 1
    NOT_FINITE = 2
    UNSORTED = 3


def column_fault(
    indptr: npt.NDArray[Any], indices: npt.NDArray[Any], data: npt.NDArray[Any], rows: int, *, ordered: bool = True
) -> tuple[Fault, int]:
    """The first column (and what is wrong with it) whose row indices leave 0..rows-1, whose values are not all finite, or, with
    ``ordered``, whose rows do not rise. ``indptr`` rises from 0 to the number of indices.
    The same in plain loops: ``xmc_reference.column_fault_reference``."""
    entries = entries_as_bytes(indices, np.int32), entries_as_bytes(data, np.float32)
    kind, column = _kernels.xmc_check_columns(np.ascontiguousarray(indptr, np.int64), *entries, rows, ordered)
    return Fault(kind), column


def entries_as_bytes(array: npt.NDArray[Any], dtype: type[np.int32 | np.float32]) -> npt.NDArray[np.uint8]:
    """Row indices (int32) or values (float32) of a matrix as the kernel takes them: as bytes, since in a mapped archive they stand at no
    multiple of four. Nothing is copied where the type is right."""
    return np.ascontiguousarray(array, dtype).view(np.uint8)


def _check_csc(matrix: sparse.csc_matrix, what: str, *, ordered: bool, entries: bool = True) -> None:
    """Offsets and indices inside their bounds; with ``ordered`` ascending, distinct and finite."""
    rows, columns = matrix.shape
    indptr, indices, data = matrix.indptr, matrix.indices, matrix.data
    if indptr.shape != (columns + 1,) or indices.shape != data.shape:
        raise ModelError(f"{what}: indptr has {indptr.size} entries for {columns} columns, indices {indices.size}, data {data.size}")
    if indptr[0] != 0 or indptr[-1] != indices.size or (np.diff(indptr) < 0).any():
        raise ModelError(f"{what}: indptr does not rise from 0 to {indices.size}")
    if ordered and not entries:
        return
    outside = (not ordered or indices.dtype != np.int32) and indices.size > 0 and (indices.min() < 0 or indices.max() >= rows)
    fault, at = Fault.NONE, 0
    if ordered and not outside:
        with np.errstate(over="ignore"):
            fault, at = column_fault(indptr, indices, data, rows)
    if outside or fault is Fault.OUTSIDE:
        raise ModelError(f"{what}: indices {indices.min()}..{indices.max()} are not all in 0..{rows - 1}")
    if (ordered and data.dtype.kind != "f") or fault is Fault.NOT_FINITE:
        raise ModelError(f"{what}: a weight is not a finite number")
    if fault is Fault.UNSORTED:
        raise ModelError(f"{what}: row indices of column {at} are unsorted or duplicated")
