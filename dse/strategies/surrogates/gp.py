"""Exact Gaussian-process regression for few, dear observations: numpy and scipy, no torch.

Kernel: output scale x Matern-5/2 with one length scale a parameter, plus a Bayesian linear trend. Inputs lie in [0, 1]
(the space's coding), outputs are standardised. Length scales have the log-normal prior of Hvarfner, Hellsten and Nardi,
*Vanilla Bayesian Optimization Performs Great in High Dimensions* (ICML 2024), LogNormal(sqrt 2 + ln(d)/2, sqrt 3), which
is also BoTorch's default; hyperparameters maximise the posterior density by L-BFGS with exact gradients from fixed
starts, so that a fit depends on its data alone (a resumed study proposes what the interrupted one would have).

The trend is there because quality rises with size over most of a model space: far from the data the mean follows the
slope seen so far instead of falling back to the average.

Several groups of observations (workloads) share one function by an intrinsic coregionalisation with unit variances,
B = v v' + diag(1 - v^2) and v = 1 for the target: group t carries what it has in common with the target with weight v_t in
(0, 1), learnt from the data (Bonilla, Chai and Williams, *Multi-task Gaussian Process Prediction*, NeurIPS 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SQRT5 = np.sqrt(5.0)
# Variance added to exact observations, in units of the standardised outputs: keeps the Cholesky factor well conditioned
# and stays far below any difference that decides a proposal (1e-3 standard deviations).
_JITTER = 1e-6
_TREND_VARIANCE = 1.0
_SCALE_PRIOR_SD = 1.5
_WEIGHT_PRIOR_SD = 2.0
_FEW = 5


@dataclass(frozen=True)
class GaussianProcess:
    """A fitted process; see :func:`fit`."""

    inputs: FloatArray
    groups: IntArray
    theta: FloatArray
    log_posterior: float
    _offset: float
    _scale: float
    _factor: FloatArray
    _alpha: FloatArray

    def predict(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Posterior mean and standard deviation of the noise-free target at ``inputs`` (n, d)."""
        inputs = np.asarray(inputs, dtype=np.float64)
        dims = self.inputs.shape[1]
        mixing = _mixing(self.groups, self.theta, dims)[0][:, 0]
        cross = _kernel(_squared(inputs, self.inputs, self.theta[:dims]), np.float64(self.theta[dims]))[0] + _trend(inputs, self.inputs)
        cross *= mixing[self.groups][None, :]
        mean = cross @ self._alpha
        solved = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        centred = 2.0 * inputs - 1.0
        prior = np.exp(self.theta[dims]) + _TREND_VARIANCE * (1.0 + np.einsum("ij,ij->i", centred, centred))
        variance = np.maximum(prior - np.einsum("ij,ij->j", solved, solved), 0.0)
        return self._offset + self._scale * mean, self._scale * np.sqrt(variance)


def fit(
    inputs: FloatArray, outputs: FloatArray, noise_variance: FloatArray | float = 0.0, groups: IntArray | None = None
) -> GaussianProcess:
    """Fit to ``inputs`` (n, d) in [0, 1] and ``outputs`` (n,) with known ``noise_variance`` (0 for exact observations).

    ``groups`` (n,) says which workload an observation belongs to, 0 being the target; without it all are the target's.
    """
    inputs = np.atleast_2d(np.asarray(inputs, dtype=np.float64))
    outputs = np.asarray(outputs, dtype=np.float64)
    groups = np.zeros(len(outputs), dtype=np.int64) if groups is None else np.asarray(groups, dtype=np.int64)
    offsets, scales = _standardise(outputs, groups)
    y = (outputs - offsets[groups]) / scales[groups]
    noise = np.broadcast_to(np.asarray(noise_variance, dtype=np.float64), y.shape) / scales[groups] ** 2 + _JITTER
    dims = inputs.shape[1]
    problem = _Posterior(inputs, y, noise, groups)
    count = dims + 1 + int(groups.max(initial=0))
    best: tuple[float, FloatArray] | None = None
    for length in (0.25, 1.0):
        start = np.concatenate([np.full(dims, np.log(length)), [0.0], np.full(count - dims - 1, 2.0)])
        bounds = [(-4.5, 5.0)] * dims + [(-6.0, 4.0)] + [(-6.0, 6.0)] * (count - dims - 1)
        found = minimize(problem, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 100})
        if best is None or found.fun < best[0]:
            best = (float(found.fun), np.asarray(found.x))
    assert best is not None
    theta = best[1]
    factor, alpha = problem.solve(theta)
    return GaussianProcess(inputs, groups, theta, -best[0], float(offsets[0]), float(scales[0]), factor, alpha)


def _standardise(outputs: FloatArray, groups: IntArray) -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of each group; a target with few points borrows the others' spread."""
    count = int(groups.max(initial=0)) + 1
    offsets, scales = np.zeros(count), np.ones(count)
    for group in range(count):
        own = outputs[groups == group]
        if len(own):
            offsets[group], scales[group] = own.mean(), own.std()
    others = scales[1:][scales[1:] > 0]
    if np.count_nonzero(groups == 0) < _FEW and len(others):
        scales[0] = np.median(others)
        if not np.any(groups == 0):
            offsets[0] = np.median(offsets[1:])
    return offsets, np.where(scales > 1e-12 * np.maximum(np.abs(offsets), 1e-300), scales, 1.0)


def _squared(a: FloatArray, b: FloatArray, log_lengths: FloatArray) -> FloatArray:
    """Squared scaled distances (n, m), through one matrix product."""
    weight = np.exp(-log_lengths)
    a, b = a * weight, b * weight
    squared = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)[None, :] - 2.0 * (a @ b.T)
    return np.asarray(np.maximum(squared, 0.0))


def _kernel(squared: FloatArray, log_scale: np.float64) -> tuple[FloatArray, FloatArray]:
    """Matern-5/2 and its derivative with respect to the squared distance, times -2."""
    distance = _SQRT5 * np.sqrt(squared)
    decay = np.exp(log_scale - distance)
    return (1.0 + distance + distance * distance / 3.0) * decay, (5.0 / 3.0) * (1.0 + distance) * decay


def _trend(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray(_TREND_VARIANCE * (1.0 + (2.0 * a - 1.0) @ (2.0 * b - 1.0).T))


def _mixing(groups: IntArray, theta: FloatArray, dims: int) -> tuple[FloatArray, FloatArray]:
    """Correlation of the groups (g, g), and the weights v (g,)."""
    weights = np.concatenate([[1.0], 1.0 / (1.0 + np.exp(-theta[dims + 1 :]))])
    mixing = np.outer(weights, weights)
    np.fill_diagonal(mixing, 1.0)
    return mixing, weights


class _Posterior:
    """Negative log posterior density of the hyperparameters, with its gradient."""

    def __init__(self, inputs: FloatArray, y: FloatArray, noise: FloatArray, groups: IntArray) -> None:
        self.y, self.noise, self.groups = y, noise, groups
        self.dims = inputs.shape[1]
        difference = inputs[:, None, :] - inputs[None, :, :]
        self.squares = np.moveaxis(difference * difference, 2, 0).copy()
        self.trend = _trend(inputs, inputs)
        self.length_mean = np.sqrt(2.0) + 0.5 * np.log(self.dims)
        self.length_sd = np.sqrt(3.0)

    def _covariance(self, theta: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        inverse = np.exp(-2.0 * theta[: self.dims])
        squared = np.tensordot(inverse, self.squares, axes=1)
        stationary, slope = _kernel(squared, np.float64(theta[self.dims]))
        mixing, weights = _mixing(self.groups, theta, self.dims)
        mixed = mixing[np.ix_(self.groups, self.groups)]
        return stationary, slope, mixed, weights, inverse

    def solve(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        stationary, _, mixed, _, _ = self._covariance(theta)
        covariance = (stationary + self.trend) * mixed + np.diag(self.noise)
        factor = cho_factor(covariance, lower=True, check_finite=False)
        return np.tril(factor[0]), cho_solve(factor, self.y, check_finite=False)

    def __call__(self, theta: FloatArray) -> tuple[float, FloatArray]:
        stationary, slope, mixed, weights, inverse = self._covariance(theta)
        whole = stationary + self.trend
        try:
            factor = cho_factor(whole * mixed + np.diag(self.noise), lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(theta)
        alpha = cho_solve(factor, self.y, check_finite=False)
        value = 0.5 * self.y @ alpha + np.log(np.diag(factor[0])).sum()
        weight = 0.5 * (cho_solve(factor, np.eye(len(self.y)), check_finite=False) - np.outer(alpha, alpha))
        gradient = np.empty_like(theta)
        weighted = weight * mixed
        gradient[: self.dims] = np.tensordot(self.squares, weighted * slope, axes=2) * inverse
        gradient[self.dims] = np.sum(weighted * stationary)
        for group in range(1, len(weights)):
            mine = self.groups == group
            other = ~mine
            # d B / d v_t is v_u between group t and another group u, zero inside t; twice, for both triangles.
            change = 2.0 * np.sum((weight * whole)[np.ix_(mine, other)] * weights[self.groups[other]][None, :])
            gradient[self.dims + group] = change * weights[group] * (1.0 - weights[group])
        z = (theta[: self.dims] - self.length_mean) / self.length_sd
        value += 0.5 * z @ z
        gradient[: self.dims] += z / self.length_sd
        value += 0.5 * (theta[self.dims] / _SCALE_PRIOR_SD) ** 2
        gradient[self.dims] += theta[self.dims] / _SCALE_PRIOR_SD**2
        rest = theta[self.dims + 1 :]
        value += 0.5 * float(rest @ rest) / _WEIGHT_PRIOR_SD**2
        gradient[self.dims + 1 :] += rest / _WEIGHT_PRIOR_SD**2
        return float(value), gradient
