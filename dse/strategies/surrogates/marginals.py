"""What is believed of one minimised quantity at many designs: normal, log-normal or exactly known.

Hypervolume improvement needs two functions of a belief: the lower partial moment E[max(e - Y, 0)] and P(Y <= e). With
independent beliefs the expected hypervolume improvement of two objectives is a sum over the strips of the observed front,
exact; with more it is a sum over the cells of a fixed sample of all axes but one, exact along that one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

FloatArray = npt.NDArray[np.float64]

_ROOT_2PI = np.sqrt(2.0 * np.pi)
_LEAST_SD = 1e-12
# Candidates scored against all cells at a time: bounds the memory of a call to some 16 MB an array.
_BLOCK = 2048


class Marginal(Protocol):
    """A belief about Y at n designs."""

    def lower(self, edge: float) -> FloatArray:
        """E[max(edge - Y, 0)], (n,)."""
        ...

    def below(self, edge: FloatArray | float) -> FloatArray:
        """P(Y <= edge); ``edge`` a number, or (cells,) for an answer of (n, cells)."""
        ...

    def take(self, rows: slice) -> Marginal:
        """The belief at some of the designs."""
        ...


def _against(edge: FloatArray | float, values: FloatArray) -> FloatArray:
    return values if np.ndim(edge) == 0 else values[:, None]


@dataclass(frozen=True)
class Normal:
    """Y ~ N(mean, sd^2)."""

    mean: FloatArray
    sd: FloatArray

    def lower(self, edge: float) -> FloatArray:
        """See :class:`Marginal`."""
        sd = np.maximum(self.sd, _LEAST_SD)
        u = (edge - self.mean) / sd
        return np.asarray(sd * (u * ndtr(u) + np.exp(-0.5 * u * u) / _ROOT_2PI))

    def below(self, edge: FloatArray | float) -> FloatArray:
        """See :class:`Marginal`."""
        sd = np.maximum(self.sd, _LEAST_SD)
        return np.asarray(ndtr((edge - _against(edge, self.mean)) / _against(edge, sd)))

    def take(self, rows: slice) -> Normal:
        """See :class:`Marginal`."""
        return Normal(self.mean[rows], self.sd[rows])


@dataclass(frozen=True)
class LogNormal:
    """ln Y ~ N(mean, sd^2): for positive costs, whose effects multiply."""

    mean: FloatArray
    sd: FloatArray

    def lower(self, edge: float) -> FloatArray:
        """See :class:`Marginal`: the put formula, edge Phi(d) - E[Y] Phi(d - sd)."""
        if edge <= 0:
            return np.zeros(len(self.mean))
        sd = np.maximum(self.sd, _LEAST_SD)
        d = (np.log(edge) - self.mean) / sd
        return np.asarray(np.maximum(edge * ndtr(d) - np.exp(self.mean + 0.5 * sd * sd) * ndtr(d - sd), 0.0))

    def below(self, edge: FloatArray | float) -> FloatArray:
        """See :class:`Marginal`."""
        sd = np.maximum(self.sd, _LEAST_SD)
        log_edge = np.log(np.maximum(edge, 1e-300))
        return np.asarray(ndtr((log_edge - _against(edge, self.mean)) / _against(edge, sd)))

    def take(self, rows: slice) -> LogNormal:
        """See :class:`Marginal`."""
        return LogNormal(self.mean[rows], self.sd[rows])


@dataclass(frozen=True)
class Exact:
    """Y is known."""

    value: FloatArray

    def lower(self, edge: float) -> FloatArray:
        """See :class:`Marginal`."""
        return np.maximum(edge - self.value, 0.0)

    def below(self, edge: FloatArray | float) -> FloatArray:
        """See :class:`Marginal`."""
        return np.asarray(_against(edge, self.value) <= edge, dtype=np.float64)

    def take(self, rows: slice) -> Exact:
        """See :class:`Marginal`."""
        return Exact(self.value[rows])


def ehvi(beliefs: Sequence[Marginal], observed: FloatArray, reference: FloatArray, *, cells: int = 512) -> FloatArray:
    """Expected hypervolume improvement (n,) over the points ``observed`` (k, m), all minimised, bounded by ``reference``."""
    reference = np.asarray(reference, dtype=np.float64)
    observed = observed[np.all(observed < reference, axis=1)] if len(observed) else observed.reshape(0, len(reference))
    if len(beliefs) == 1:
        best = observed[:, 0].min() if len(observed) else reference[0]
        return beliefs[0].lower(float(best))
    if len(beliefs) == 2:
        return _strips(beliefs, observed, reference)
    return _cells(beliefs, observed, reference, cells)


def _strips(beliefs: Sequence[Marginal], observed: FloatArray, reference: FloatArray) -> FloatArray:
    order = np.lexsort((observed[:, 0], observed[:, 1]))
    first, second = observed[order, 0], observed[order, 1]
    best = np.minimum.accumulate(np.concatenate([[reference[0]], first]))
    falls = best[1:] < best[:-1]
    edges = [*second[falls].tolist(), float(reference[1])]
    levels = [float(reference[0]), *best[1:][falls].tolist()]
    gain: FloatArray = np.zeros(1)
    below: FloatArray = np.zeros(1)
    for edge, level in zip(edges, levels, strict=True):
        above = beliefs[1].lower(edge)
        gain = gain + np.maximum(above - below, 0.0) * beliefs[0].lower(level)
        below = above
    return gain


def _cells(beliefs: Sequence[Marginal], observed: FloatArray, reference: FloatArray, cells: int) -> FloatArray:
    from scipy.stats import qmc

    rest = reference[1:]
    # Cells reach below the best seen by the range seen: improvements beyond the observed box count, up to there.
    low = observed[:, 1:].min(0) if len(observed) else rest - np.maximum(np.abs(rest), 1e-9)
    low = low - (rest - low)
    points = low + qmc.Sobol(len(rest), scramble=True, rng=np.random.default_rng(0)).random(cells) * (rest - low)
    levels = np.full(cells, reference[0])
    for point in observed:
        np.minimum(levels, np.where((point[1:] <= points).all(1), point[0], reference[0]), out=levels)
    distinct, where = np.unique(levels, return_inverse=True)
    volume = float(np.prod(rest - low)) / cells
    first = np.stack([beliefs[0].lower(float(level)) for level in distinct], axis=1)
    gain = np.empty(len(first))
    for start in range(0, len(first), _BLOCK):
        rows = slice(start, start + _BLOCK)
        reached = np.ones((len(first[rows]), cells))
        for j, belief in enumerate(beliefs[1:]):
            reached *= belief.take(rows).below(points[:, j])
        gain[rows] = volume * np.einsum("ij,ij->i", reached, first[rows][:, where])
    return gain
