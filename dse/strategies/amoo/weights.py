"""Weights of aligned objectives for one step of gradient descent.

Setting (Efroni, Kretzu and others, *Aligned Multi-Objective Optimization*, ICML 2025): f_1..f_m share a minimiser x*. With

    mu_G = inf_x  max_{w in simplex}  lambda_min( sum_i w_i Hess f_i(x) )  >  0

("global adaptive strong convexity") descent with weights chosen anew at every point converges at a rate given by mu_G, which
can exceed by a factor m and more the strong convexity of any fixed weighting. Neither theorem speaks of objectives that do
not share a minimiser (embodied against operational carbon): there the weights are heuristics, and are used inside a group of
aligned objectives only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# Relative ridge of the Gram matrix: makes the weights unique where gradients are parallel; 1e-10 of the largest squared
# gradient moves no weight that is determined.
_RIDGE = 1e-10
_CUTS = 60
_CUT_TOLERANCE = 1e-9


def equal_weights(objectives: int) -> FloatArray:
    """1/m each: the baseline."""
    return np.full(objectives, 1.0 / objectives)


def camoo_weights(hessians: FloatArray) -> FloatArray:
    """CAMOO: the weights on the simplex that maximise the least curvature, argmax lambda_min(sum_i w_i H_i).

    ``hessians`` (m, q): diagonals, solved exactly as the linear programme max t, H'w >= t, w in the simplex; or (m, q, q):
    symmetric matrices, solved by cutting planes (lambda_min is the least of v'Hv over unit v, so each violated eigenvector
    is one more linear constraint) to a relative gap of 1e-9.

    Conditions of the theorem: the f_i are convex, beta-smooth and self-concordant, share a minimiser, and mu_G > 0; the step
    x - eta sum_i w_i grad f_i with eta of the order 1/(2 beta) then contracts at a rate set by mu_G. On quadratics with
    eta = 1/beta the contraction is 1 - mu_G / beta a step.
    """
    hessians = np.asarray(hessians, dtype=np.float64)
    if not np.isfinite(hessians).all():
        raise FloatingPointError("a Hessian is not finite")
    if hessians.ndim == 2:
        return _maximin(hessians.T)[0]
    count = len(hessians)
    # Start from the coordinate directions: the diagonal programme, an upper bound on t.
    cuts = [np.array([np.diag(h)[j] for h in hessians]) for j in range(hessians.shape[1])]
    scale = max(float(np.abs(hessians).max()), 1e-300)
    best_value, best = -np.inf, equal_weights(count)
    for _ in range(_CUTS):
        weights, bound = _maximin(np.array(cuts))
        values, vectors = np.linalg.eigh(np.tensordot(weights, hessians, axes=1))
        if values[0] > best_value:
            best_value, best = float(values[0]), weights
        if bound - best_value <= _CUT_TOLERANCE * scale:
            break
        cuts.append(np.einsum("i,kij,j->k", vectors[:, 0], hessians, vectors[:, 0]))
    return best


def _maximin(rows: FloatArray) -> tuple[FloatArray, float]:
    """max over the simplex of the least component of ``rows`` (q, m) w; the weights and the value."""
    count = rows.shape[1]
    scale = max(float(np.abs(rows).max()), 1e-300)
    from scipy.optimize import linprog  # 0.3 s, for searches by descent alone

    result = linprog(
        np.append(np.zeros(count), -1.0),
        A_ub=np.column_stack([-rows / scale, np.ones(len(rows))]),
        b_ub=np.zeros(len(rows)),
        A_eq=np.append(np.ones(count), 0.0)[None, :],
        b_eq=[1.0],
        bounds=[(0, None)] * count + [(None, None)],
        method="highs",
    )
    weights = np.maximum(result.x[:count], 0.0)
    return weights / weights.sum(), float(-result.fun * scale)


def pamoo_weights(gradients: FloatArray, gaps: FloatArray, *, ridge: float = _RIDGE) -> FloatArray:
    """PAMOO: argmax over w >= 0 of 2 w'D - w'J'J w, the Polyak step of many objectives.

    ``gradients`` (q, m): J, one column an objective; ``gaps`` (m,): D_i = f_i(x) - f_i*, at least 0. The weights are not
    normalised: the step is x - J w, with no step size. Exact: with A = J'J + ridge = L L', maximising 2 w'D - w'A w is
    minimising |L'w - L^{-1} D|^2, a non-negative least-squares problem.

    Conditions of the theorem: the f_i are convex and beta-smooth and share a minimiser, f_i* is known, and mu_G > 0. One
    step then gives |x+ - x*|^2 <= |x - x*|^2 - (2 w'D - w'A w) (convexity), which the choice of w makes as good as possible;
    with the best scale of the curvature weights the contraction is at least 1 - mu_G / (4 beta). Lower bounds in place of
    f_i* keep the direction sensible and make the step longer than the theorem's.
    """
    gradients = np.asarray(gradients, dtype=np.float64)
    gaps = np.maximum(np.asarray(gaps, dtype=np.float64), 0.0)
    if not (np.isfinite(gradients).all() and np.isfinite(gaps).all()):
        raise FloatingPointError("a gradient or a gap is not finite")
    gram = gradients.T @ gradients
    largest = float(np.diag(gram).max(initial=0.0))
    if largest <= 0.0:
        return np.zeros(len(gaps))
    factor = np.linalg.cholesky(gram + ridge * largest * np.eye(len(gaps)))
    from scipy.optimize import nnls  # as above

    weights, _ = nnls(factor.T, np.linalg.solve(factor, gaps))
    return np.asarray(weights)
