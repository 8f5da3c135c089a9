"""Trees and queries of any size without training: Zipf features, power-law label frequencies, parents with features of their children.

They stand in for a trained catalogue where only speed, memory and traffic are asked for; they have no quality. The default shape (337,067
features, about 94 weights a label, clusters of 100 labels, 16 branches) is that of the product-search trees in the PECOS benchmarks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from dse_kernels.xmc_layout import Columns, LevelSource
from dse_kernels.xmc_model import Level, Ranker
from scipy import sparse

IntArray = npt.NDArray[np.int64]

BLOCK_CLUSTERS = 500  # clusters drawn from one seed
MAX_LABELS = 200_000_000


@dataclass(frozen=True)
class Shape:
    """What is generated; every number is a positive count but ``zipf`` (exponent of the features' frequencies, below 1), ``power``
    (exponent of the labels' frequencies, above 1) and ``bias``."""

    labels: int
    features: int = 337_067
    label_features: int = 100
    node_features: int = 160
    leaf: int = 100
    branch: int = 16
    zipf: float = 0.9
    power: float = 1.5
    bias: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("labels", "features", "label_features", "node_features", "leaf"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} is not positive")
        if self.labels > MAX_LABELS:
            raise ValueError(f"labels {self.labels} is above {MAX_LABELS}")
        if self.branch < 2:
            raise ValueError(f"branch {self.branch} is below 2")
        if not 0 <= self.zipf < 1:
            raise ValueError(f"zipf {self.zipf} is not in 0..1 (1 excluded)")
        if self.power <= 1:
            raise ValueError(f"power {self.power} is not above 1")

    @cached_property
    def nodes(self) -> tuple[int, ...]:
        """Nodes of each level, from the root's children to the labels: clusters of ``leaf`` labels, ``branch`` of them to a parent."""
        sizes = [self.labels, -(-self.labels // self.leaf)]
        while sizes[-1] > self.branch:
            sizes.append(-(-sizes[-1] // self.branch))
        return tuple(sizes[::-1]) if sizes[-1] > 1 else tuple(sizes[:-1][::-1]) or (self.labels,)


def families(shape: Shape, level: int) -> IntArray:
    """Children of each parent of a level: as equal as can be."""
    nodes = shape.nodes[level]
    above = shape.nodes[level - 1] if level else 1
    edges = np.arange(above + 1) * nodes // above
    return np.diff(edges)


def _draw(shape: Shape, rng: np.random.Generator, size: tuple[int, int]) -> IntArray:
    """Features with frequency about rank^-zipf: the inverse of the continuous law, cut to integers; ranks are scattered over the ids."""
    flat = 1.0 - shape.zipf
    top = float(shape.features + 1) ** flat
    rank = (1.0 + rng.random(size) * (top - 1.0)) ** (1.0 / flat)
    scattered: IntArray = np.minimum(rank.astype(np.int64) - 1, shape.features - 1) * _stride(shape.features) % shape.features
    return scattered


def _stride(features: int) -> int:
    """About 0.618 of the features, without a common factor, so that multiplication scatters the ranks one to one."""
    stride = max(1, int(features * 0.6180339887))
    while np.gcd(stride, features) != 1:
        stride += 1
    return stride


def _columns(shape: Shape, drawn: IntArray, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Sorted distinct features of each row of ``drawn`` as columns of weights, the bias last."""
    drawn = np.sort(drawn, axis=1)
    keep = np.ones(drawn.shape, bool)
    keep[:, 1:] = drawn[:, 1:] != drawn[:, :-1]
    biased = int(shape.bias > 0)
    counts = keep.sum(axis=1) + biased
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    indices = np.empty(indptr[-1], np.int32)
    is_bias = np.zeros(indptr[-1], bool)
    if biased:
        is_bias[indptr[1:] - 1] = True
    indices[~is_bias] = drawn[keep]
    indices[is_bias] = shape.features
    data = (rng.standard_normal(indptr[-1], dtype=np.float32) * np.float32(0.5) + np.float32(0.4)).astype(np.float32)
    data[is_bias] -= np.float32(0.6)
    return indptr, indices, data


def _leaf_blocks(shape: Shape) -> Iterator[tuple[Columns, list[IntArray]]]:
    """Runs of clusters with their labels' columns, and the features among which their parents choose."""
    sizes = families(shape, len(shape.nodes) - 1)
    for begin in range(0, sizes.size, BLOCK_CLUSTERS):
        held = sizes[begin : begin + BLOCK_CLUSTERS]
        rng = np.random.default_rng([shape.seed, 1, begin])
        drawn = _draw(shape, rng, (int(held.sum()), shape.label_features))
        indptr, indices, data = _columns(shape, drawn, rng)
        ends = np.cumsum(held)
        chosen = [
            rng.choice(drawn[e - n : e].ravel(), min(shape.node_features, int(n) * shape.label_features), replace=False)
            for n, e in zip(held, ends, strict=True)
        ]
        yield Columns(indptr, indices, data, np.arange(held.sum(), dtype=np.uint32), held), chosen


def _upper_levels(shape: Shape, chosen: list[IntArray]) -> list[Columns]:
    """Columns of all levels but the last, bottom up: a node has features of its children."""
    rng = np.random.default_rng([shape.seed, 2])
    levels = []
    for level in range(len(shape.nodes) - 2, -1, -1):
        width = max(len(c) for c in chosen)
        drawn = np.array([np.resize(c, width) for c in chosen])
        held = families(shape, level)
        levels.append(Columns(*_columns(shape, drawn, rng), np.arange(len(chosen), dtype=np.uint32), held))
        ends = np.cumsum(held)
        pools = [drawn[e - n : e].ravel() for n, e in zip(held, ends, strict=True)]
        chosen = [rng.choice(p, min(shape.node_features, p.size), replace=False) for p in pools]
    return levels[::-1]


def sources(shape: Shape, post_processor: str = "l3-hinge", only_topk: int = 20) -> tuple[list[LevelSource], npt.NDArray[np.uint32]]:
    """The tree as ``dse_kernels.xmc_layout.to_file`` takes it, leaf clusters drawn as they are written: any size in little memory."""
    rows = shape.features + (shape.bias > 0)
    chosen = [c for _, part in _leaf_blocks(shape) for c in part]
    runs: list[Iterator[Columns]] = [iter([level]) for level in _upper_levels(shape, chosen)]
    runs.append(block for block, _ in _leaf_blocks(shape))
    return [LevelSource(rows, shape.bias, post_processor, only_topk, run) for run in runs], np.arange(shape.labels, dtype=np.uint32)


def ranker(shape: Shape, post_processor: str = "l3-hinge", only_topk: int = 20) -> Ranker:
    """The same tree as arrays in memory."""
    parts, _ = sources(shape, post_processor, only_topk)
    levels = []
    for depth, source in enumerate(parts):
        runs = list(source.runs)
        starts = np.cumsum([0] + [r.indptr[-1] for r in runs])
        indptr = np.concatenate([[0]] + [r.indptr[1:] + s for r, s in zip(runs, starts[:-1], strict=True)])
        indptr = indptr.astype(np.int32 if indptr[-1] < 2**31 else np.int64)
        indices, data = np.concatenate([r.indices for r in runs]), np.concatenate([r.data for r in runs])
        weights = sparse.csc_matrix((data, indices, indptr), shape=(source.rows, shape.nodes[depth]))
        held = families(shape, depth)
        ones = (np.ones(shape.nodes[depth], np.float32), np.arange(shape.nodes[depth], dtype=np.int32))
        parents = sparse.csc_matrix((*ones, np.concatenate([[0], np.cumsum(held)]).astype(np.int32)), shape=(shape.nodes[depth], held.size))
        levels.append(Level(weights, parents, source.bias, source.post_processor, source.only_topk))
    return Ranker(tuple(levels))


def queries(shape: Shape, count: int, features: int = 36, own: float = 0.6, seed: int = 1) -> sparse.csr_matrix:
    """Queries (count, features) of about ``features`` features: a share ``own`` of those of a label, chosen with frequency rank^-power, the
    rest by the features' own frequencies; positive values of length 1."""
    rng = np.random.default_rng([shape.seed, seed, 3])
    # A label's features are those of its block; only the blocks that are asked for are drawn again.
    rank = np.minimum((rng.random(count) ** (-1.0 / (shape.power - 1.0))).astype(np.int64) - 1, shape.labels * 1000) % shape.labels
    wanted = rank * _stride(shape.labels) % shape.labels
    sizes = families(shape, len(shape.nodes) - 1)
    ends = np.cumsum(sizes)
    cluster = np.searchsorted(ends, wanted, side="right")
    drawn = np.empty((count, features), np.int64)
    part = min(round(own * features), shape.label_features)
    for block in np.unique(cluster // BLOCK_CLUSTERS):
        begin = int(block) * BLOCK_CLUSTERS
        held = sizes[begin : begin + BLOCK_CLUSTERS]
        labels_of = _draw(shape, np.random.default_rng([shape.seed, 1, begin]), (int(held.sum()), shape.label_features))
        first = int(ends[begin] - sizes[begin])
        for q in np.flatnonzero(cluster // BLOCK_CLUSTERS == block):
            drawn[q, :part] = rng.permutation(labels_of[wanted[q] - first])[:part]
    drawn[:, part:] = _draw(shape, rng, (count, features - part))
    values = rng.random((count, features), dtype=np.float32) + np.float32(0.2)
    rows = np.repeat(np.arange(count), features)
    matrix = sparse.coo_matrix((values.ravel(), (rows, drawn.ravel())), shape=(count, shape.features)).tocsr()
    matrix.sum_duplicates()
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1)).A1.astype(np.float32)
    matrix.data /= np.repeat(lengths, np.diff(matrix.indptr))
    return matrix
