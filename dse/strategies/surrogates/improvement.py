"""Expected hypervolume improvement where costs are known exactly, in closed form.

Quality A is normal with mean mu and standard deviation sd; psi(l) = E[max(A - l, 0)] = sd (u Phi(u) + phi(u)) with
u = (mu - l) / sd. The hypervolume that a model adds is an integral over quality levels: at level l it is the part of the
cost space that its designs dominate and no observed design of quality above l does. Taking the expectation inside,

    EHVI = sum over cells of the cost space of volume(cell) x psi(best observed quality at the cell).

With one cost the cells are the strips between the observed costs, and the sum is exact.
With several, the cells are a fixed quasi-random sample of the cost box: exact in quality, a quadrature in cost.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from dse.fronts.pareto import reached

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

# Below this share of the largest deviation the model is taken as certain; avoids dividing by zero.
_LEAST_SD = 1e-12
_ROOT_2PI = np.sqrt(2.0 * np.pi)


def expected_excess(mean: FloatArray, sd: FloatArray, level: FloatArray | float) -> FloatArray:
    """E[max(A - level, 0)] of a normal A; arrays broadcast."""
    sd = np.maximum(sd, _LEAST_SD)
    u = (mean - level) / sd
    return np.asarray(sd * (u * ndtr(u) + np.exp(-0.5 * u * u) / _ROOT_2PI))


def staircase(quality: FloatArray, cost: FloatArray, reference: tuple[float, float]) -> tuple[FloatArray, FloatArray]:
    """Strips of the cost axis and the best quality in each: edges (k + 2,) from -inf to the reference, levels (k + 1,)."""
    inside = (quality > reference[0]) & (cost < reference[1])
    quality, cost = quality[inside], cost[inside]
    order = np.lexsort((-quality, cost))
    quality, cost = quality[order], cost[order]
    best = np.maximum.accumulate(np.concatenate([[reference[0]], quality]))
    rises = best[1:] > best[:-1]
    return np.concatenate([[-np.inf], cost[rises], [reference[1]]]), np.concatenate([[reference[0]], best[1:][rises]])


def ehvi_one_cost(
    mean: FloatArray,
    sd: FloatArray,
    cost: FloatArray,
    observed_quality: FloatArray,
    observed_cost: FloatArray,
    reference: tuple[float, float],
) -> FloatArray:
    """EHVI (n,) of models with quality N(mean, sd^2) to be maximised and one exactly known cost to be minimised.

    ``reference`` is (quality, cost). A model whose cost is infinite gains nothing.
    """
    edges, levels = staircase(observed_quality, observed_cost, reference)
    gain = np.zeros(np.shape(mean))
    for i, level in enumerate(levels):
        width = np.maximum(edges[i + 1] - np.maximum(cost, edges[i]), 0.0)
        some = width > 0
        gain[some] += width[some] * expected_excess(mean[some], sd[some], level)
    return gain


def _lower_moment(mean: FloatArray, sd: FloatArray, edge: float) -> FloatArray:
    """E[max(edge - C, 0)] with ln C ~ N(mean, sd^2)."""
    sd = np.maximum(sd, _LEAST_SD)
    d = (np.log(edge) - mean) / sd
    return np.asarray(np.maximum(edge * ndtr(d) - np.exp(mean + 0.5 * sd * sd) * ndtr(d - sd), 0.0))


class CostCells:
    """A fixed sample of the cost box, and which models reach which cells: for two costs and more.

    ``fronts`` holds one array (k, c) of exactly known costs a model; ``low`` and ``reference`` (c,) bound the box.
    """

    def __init__(self, fronts: list[FloatArray], low: FloatArray, reference: FloatArray, *, cells: int = 1024) -> None:
        from scipy.stats import qmc

        dims = len(low)
        sample = qmc.Sobol(dims, scramble=True, rng=np.random.default_rng(0)).random(cells)
        self.points: FloatArray = low + sample * (reference - low)
        self.volume = float(np.prod(reference - low)) / cells
        self.reached: BoolArray = np.zeros((len(fronts), cells), dtype=bool)
        for i, front in enumerate(fronts):
            self.reached[i] = reached(front, self.points)

    def levels(self, quality: FloatArray, models: npt.NDArray[np.int64], lowest: float) -> FloatArray:
        """Best observed quality at each cell, at least ``lowest``."""
        best = np.full(self.reached.shape[1], lowest)
        for value, model in zip(quality, models, strict=True):
            np.maximum(best, np.where(self.reached[model], value, lowest), out=best)
        return best

    def ehvi(self, mean: FloatArray, sd: FloatArray, levels: FloatArray) -> FloatArray:
        """EHVI (n,) of all models; cells of equal level are taken together."""
        distinct, where = np.unique(levels, return_inverse=True)
        counts = np.zeros((len(mean), len(distinct)))
        for j in range(len(distinct)):
            counts[:, j] = np.count_nonzero(self.reached[:, where == j], axis=1)
        excess = expected_excess(mean[:, None], sd[:, None], distinct[None, :])
        return np.asarray(self.volume * np.einsum("ij,ij->i", counts, excess))
