"""Trees and queries of any size without training: Zipf features, power-law label frequencies, parents with features of their children.

They stand in for a trained catalogue where only speed, memory and traffic are asked for; they have no quality. The default shape (337,067
features, about 94 weights a label, clusters of 100 labels, 16 branches) is that of the product-search trees in the PECOS benchmarks.

Nodes are drawn from the root down, in runs, each level from one stream of random numbers in which the place of a node is known: a level of
any size is written in little memory, and the features of one label are found without drawing those before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
from dse_kernels.xmc_layout import Columns, LevelSource
from dse_kernels.xmc_model import Level, Ranker
from scipy import sparse
from scipy.special import ndtri

IntArray = npt.NDArray[np.int64]
Features = npt.NDArray[np.int32]

RUN_WEIGHTS = 1 << 18  # of nodes drawn together: their arrays stay in the caches
QUANTILES = 1 << 16
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

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Features drawn for a node of each level: as many as are asked for, and no more than its children have."""
        widths = [self.label_features]
        for above, below in zip(self.nodes[-2::-1], self.nodes[:0:-1], strict=True):
            widths.append(min(self.node_features, below // above * widths[-1]))
        return tuple(widths[::-1])

    @cached_property
    def scattered(self) -> Features:
        """The feature of each rank of frequency."""
        return (np.arange(self.features) * _stride(self.features) % self.features).astype(np.int32)


def families(shape: Shape, level: int) -> IntArray:
    """Children of each parent of a level: as equal as can be."""
    return np.diff(_edges(shape, level, 0, _above(shape, level)))


def _above(shape: Shape, level: int) -> int:
    return shape.nodes[level - 1] if level else 1


def _edges(shape: Shape, level: int, begin: int, end: int) -> IntArray:
    """First child of each of the parents ``begin`` .. ``end`` - 1 of a level, and the end of the last one's."""
    edges: IntArray = np.arange(begin, end + 1) * shape.nodes[level] // _above(shape, level)
    return edges


def _stride(features: int) -> int:
    """About 0.618 of the features, without a common factor, so that multiplication scatters the ranks one to one."""
    stride = max(1, int(features * 0.6180339887))
    while np.gcd(stride, features) != 1:
        stride += 1
    return stride


def _draw(shape: Shape, rng: np.random.Generator, size: tuple[int, int]) -> Features:
    """Features with frequency about rank^-zipf: the inverse of the continuous law, cut to integers; ranks are scattered over the ids."""
    flat = 1.0 - shape.zipf
    rank = rng.random(size)  # one number of the stream each, which _features counts on
    rank *= float(shape.features + 1) ** flat - 1.0
    rank += 1.0
    np.power(rank, 1.0 / flat, out=rank)
    return np.take(shape.scattered, rank.astype(np.int32) - np.int32(1), mode="clip")


def _features(shape: Shape, level: int, begin: int, end: int) -> Features:
    """Features of the children of the parents ``begin`` .. ``end`` - 1 (children, width), not yet sorted, some twice: drawn one by one, but
    in places spread evenly over the children of a parent those of the parent, which so has features of its children."""
    width = shape.widths[level]
    edges = _edges(shape, level, begin, end)
    stream = np.random.PCG64([shape.seed, 1, level])
    stream.advance(int(edges[0]) * width)
    drawn = _draw(shape, np.random.Generator(stream), (int(edges[-1] - edges[0]), width))
    if level:
        wide = shape.widths[level - 1]
        room = np.diff(edges)[:, None] * width
        places = (edges[:-1, None] - edges[0]) * width + (2 * np.arange(wide) + 1) * room // (2 * wide)
        drawn.reshape(-1)[places] = _nodes(shape, level - 1, begin, end)
    return drawn


def _nodes(shape: Shape, level: int, begin: int, end: int) -> Features:
    """Features of the nodes ``begin`` .. ``end`` - 1 of a level."""
    first, last = (((node + 1) * _above(shape, level) - 1) // shape.nodes[level] for node in (begin, end - 1))
    skipped = begin - int(_edges(shape, level, first, first)[0])
    return _features(shape, level, first, last + 1)[skipped : skipped + end - begin]


def _columns(shape: Shape, level: int, begin: int, end: int) -> Columns:
    """The children of the parents ``begin`` .. ``end`` - 1: sorted distinct features with normal weights, the bias last."""
    drawn = _features(shape, level, begin, end)
    drawn.sort(axis=1)
    keep = np.ones((drawn.shape[0], drawn.shape[1] + (shape.bias > 0)), bool)
    np.not_equal(drawn[:, 1:], drawn[:, :-1], out=keep[:, 1 : drawn.shape[1]])
    if shape.bias > 0:
        drawn = np.append(drawn, np.full((drawn.shape[0], 1), shape.features, np.int32), axis=1)
    indptr = np.concatenate([[0], np.cumsum(np.count_nonzero(keep, axis=1))]).astype(np.int64)
    rng = np.random.Generator(np.random.PCG64([shape.seed, 2, level, begin]))
    data = np.take(_weights(), rng.integers(0, QUANTILES, int(indptr[-1]), np.uint16))
    if shape.bias > 0:
        data[indptr[1:] - 1] -= np.float32(0.6)
    order = np.arange(drawn.shape[0], dtype=np.uint32)
    return Columns(indptr, drawn[keep], data, order, np.diff(_edges(shape, level, begin, end)))


@cache
def _weights() -> npt.NDArray[np.float32]:
    """Quantiles of the normal distribution of the weights, mean 0.4 and deviation 0.5, equally likely."""
    weights: npt.NDArray[np.float32] = (ndtri((np.arange(QUANTILES) + 0.5) / QUANTILES) * 0.5 + 0.4).astype(np.float32)
    return weights


def _runs(shape: Shape, level: int) -> Iterator[Columns]:
    parents = _above(shape, level)
    step = max(1, RUN_WEIGHTS * parents // (shape.nodes[level] * shape.widths[level]))
    for begin in range(0, parents, step):
        yield _columns(shape, level, begin, min(begin + step, parents))


def sources(shape: Shape, post_processor: str = "l3-hinge", only_topk: int = 20) -> tuple[list[LevelSource], npt.NDArray[np.uint32]]:
    """The tree as ``dse_kernels.xmc_layout.to_file`` takes it, nodes drawn as they are written: any size in little memory."""
    rows = shape.features + (shape.bias > 0)
    levels = [LevelSource(rows, shape.bias, post_processor, only_topk, _runs(shape, level)) for level in range(len(shape.nodes))]
    return levels, np.arange(shape.labels, dtype=np.uint32)


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
    rank = np.minimum((rng.random(count) ** (-1.0 / (shape.power - 1.0))).astype(np.int64) - 1, shape.labels * 1000) % shape.labels
    drawn = np.empty((count, features), np.int64)
    part = min(round(own * features), shape.label_features)
    for q, label in enumerate(rank * _stride(shape.labels) % shape.labels):
        drawn[q, :part] = rng.permutation(_nodes(shape, len(shape.nodes) - 1, int(label), int(label) + 1)[0])[:part]
    drawn[:, part:] = _draw(shape, rng, (count, features - part))
    values = rng.random((count, features), dtype=np.float32) + np.float32(0.2)
    rows = np.repeat(np.arange(count), features)
    matrix = sparse.coo_matrix((values.ravel(), (rows, drawn.ravel())), shape=(count, shape.features)).tocsr()
    matrix.sum_duplicates()
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1)).A1.astype(np.float32)
    matrix.data /= np.repeat(lengths, np.diff(matrix.indptr))
    return matrix
