"""Small random trees and queries, and the model that libpecos trained, for the tests of the tree kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dse_kernels.xmc_model import Level, Ranker
from scipy import sparse

PECOS_SMALL = Path(__file__).parents[1] / "reference" / "xmc" / "pecos_small"


def random_ranker(
    rng: np.random.Generator,
    nodes: tuple[int, ...],
    features: int,
    density: float,
    bias: float = 1.0,
    post: str = "l3-hinge",
    shuffled: bool = True,
) -> Ranker:
    """Levels of the given sizes, every child under a random parent (some parents childless), children in shuffled order."""
    levels = []
    above = 1
    for count in nodes:
        rows = features + (bias > 0)
        w = sparse.random(rows, count, density, "csc", np.float32, random_state=rng, data_rvs=lambda n: rng.normal(0.3, 1.0, n))
        if bias > 0 and count > 1:  # most nodes have a bias, some do not
            w = w.tolil()
            w[-1, : count - 1] = rng.normal(-0.3, 0.2, count - 1)
            w = w.tocsc()
        w.sort_indices()
        owner = rng.integers(0, above, count)
        children = [np.flatnonzero(owner == p) for p in range(above)]
        if shuffled:
            children = [rng.permutation(c) for c in children]
        indptr = np.cumsum([0] + [len(c) for c in children])
        indices = np.concatenate(children).astype(np.int32)
        c = sparse.csc_matrix((np.ones(count, np.float32), indices, indptr), shape=(count, above))
        levels.append(Level(w.astype(np.float32), c, bias, post, 7))
        above = count
    return Ranker(tuple(levels))


def random_queries(rng: np.random.Generator, rows: int, features: int, density: float) -> sparse.csr_matrix:
    """Queries with positive and negative values; the first has no feature, the second has all."""
    x = sparse.random(rows, features, density, "lil", np.float32, random_state=rng, data_rvs=lambda n: rng.normal(0.2, 0.5, n))
    x[0] = 0
    if rows > 1:
        x[1] = rng.normal(0.0, 0.3, features)
    x = x.tocsr().astype(np.float32)
    x.sort_indices()
    return x


def bits(scores: np.ndarray) -> np.ndarray:
    """Float32 scores as integers, so that equality means equal bits."""
    return np.ascontiguousarray(scores, np.float32).view(np.int32)
