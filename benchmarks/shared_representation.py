"""One representation over workloads, a head each, as the surrogate of a nested search, against the multi-task process of warm start.

    python benchmarks/shared_representation.py [--seeds 5] [--budget 25] [--json FILE]

The stand-in of benchmarks/transfer.py: prior workloads whose accuracy saturates sooner or later, 30 random trials each. The representation
is that of docs/federated.md carried over: quality of workload i is phi(x)' B w_i with phi 40 random Fourier features of the coded model
(length 1, drawn once), a constant and the coordinates, B (d, 3) for all workloads by alternating ridge regressions on the prior trials,
w_i a head of its own. The head of the target has the mean and covariance of the others' heads as its prior (Bayesian linear regression),
which gives the standard deviation that the acquisition needs; noise is the residual of the prior trials. Everything else (initial design,
expected hypervolume improvement) is the nested search's own. Nothing was tuned on what is shown. About two CPU minutes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import search as bench
from transfer import PRIOR_TRIALS, _first

from dse.quality.evaluators import FunctionEvaluator
from dse.strategies import make
from dse.strategies.nested import NestedSearch
from dse.strategies.protocol import simulate
from dse.strategies.transfer import Prior

FloatArray = npt.NDArray[np.float64]

RANK, FOURIER, ROUNDS, RIDGE = 3, 40, 30, 1e-2


def features(inputs: FloatArray) -> FloatArray:
    """phi (n, d) of coded models (n, dims)."""
    rng = np.random.default_rng(7)
    waves = inputs @ rng.normal(size=(inputs.shape[1], FOURIER)) + rng.uniform(0, 2 * np.pi, FOURIER)
    return np.column_stack([np.ones(len(inputs)), inputs, np.sqrt(2 / FOURIER) * np.cos(waves)])


@dataclass(frozen=True)
class Head:
    """The head of the target as it is known."""

    base: FloatArray
    mean: FloatArray
    covariance: FloatArray
    scale: tuple[float, float]

    def predict(self, inputs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of quality (n,) each."""
        z = features(inputs) @ self.base
        level, unit = self.scale
        return level + unit * (z @ self.mean), unit * np.sqrt(np.einsum("nk,kl,nl->n", z, self.covariance, z) + 1e-12)


def representation(inputs: FloatArray, values: FloatArray, groups: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray, float]:
    """B (d, k), heads (workloads, k) and the residual variance, from the trials of all prior workloads."""
    phi, names = features(inputs), np.unique(groups)
    base = np.linalg.svd(phi, full_matrices=False)[2][:RANK].T
    heads = np.zeros((len(names), RANK))
    for _ in range(ROUNDS):
        for i, name in enumerate(names):
            z = phi[groups == name] @ base
            heads[i] = np.linalg.solve(z.T @ z + RIDGE * np.eye(RANK), z.T @ values[groups == name])
        own = heads[np.searchsorted(names, groups)]
        design = np.einsum("nd,nk->ndk", phi, own).reshape(len(phi), -1)
        base = np.linalg.solve(design.T @ design + RIDGE * np.eye(design.shape[1]), design.T @ values).reshape(-1, RANK)
        base, turn = np.linalg.qr(base)
        heads = heads @ turn.T
    left = values - np.einsum("nk,nk->n", phi @ base, heads[np.searchsorted(names, groups)])
    return base, heads, max(float(left.var()), 1e-6)


class SharedHead(NestedSearch):
    """Nested search whose quality model is the head of a shared representation."""

    def _fit(self, task: Any, inputs: FloatArray, value: FloatArray, noise: FloatArray, sign: float) -> Any:
        assert self.prior is not None
        x, y, _, groups = self.prior.observations(task.space, sign)
        level, unit = float(y.mean()), float(y.std()) or 1.0
        base, heads, residual = representation(x, (y - level) / unit, groups)
        mean = heads.mean(axis=0)
        spread = (heads - mean).T @ (heads - mean) / max(len(heads) - 1, 1) + 0.05 * np.eye(RANK)
        before = np.linalg.inv(spread)
        z = features(inputs.reshape(len(value), x.shape[1])) @ base
        after = np.linalg.inv(before + z.T @ z / residual)
        return Head(base, after @ (before @ mean + z.T @ ((value - level) / unit) / residual), after, (level, unit))


def main() -> None:
    """Print a line a method and number of prior workloads: evaluations to 95 % of the true hypervolume, shares after 5, 10 and all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=25)
    parser.add_argument("--json")
    args = parser.parse_args()
    t = bench.tasks()
    reference, true = t.reference_point(), t.standin_module().TRUE_HYPERVOLUME
    view = t.standin_nested()
    found = []
    for count in (0, 2, 4, 8):
        methods = {"nested, no prior": NestedSearch} if count == 0 else {"multi-task process": NestedSearch, "shared, own head": SharedHead}
        for name, kind in methods.items():
            curves = []
            for seed in range(args.seeds):
                priors = [_prior(view, seed, w) for w in range(count)]
                strategy = kind(prior=Prior.of(priors, "accuracy") if priors else None)
                curves.append(bench.curve(view, simulate(view, strategy, budget=args.budget, seed=seed), reference, true))
            needed = [_first(c, 0.95) for c in curves]
            shares = {k: [round(100 * c[k - 1], 1) for c in curves] for k in (5, 10, args.budget)}
            told = "; ".join(f"@{k} {np.median(v):.1f} {v}" for k, v in shares.items())
            print(f"{count} priors, {name}: evaluations to 95 % median {np.median(needed):g} {needed}; {told}", flush=True)
            found.append({"priors": count, "method": name, "evaluations_to_95": needed, "shares": shares})
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1))


def _prior(view: Any, seed: int, w: int) -> Any:
    """Thirty random trials of a workload whose accuracy saturates otherwise (as in benchmarks/transfer.py)."""
    rates = np.random.default_rng([seed, w]).uniform(0.6, 1.6, 3)

    def quality(p: dict[str, Any], fidelity: float, trial_seed: int) -> float:
        d, f, n = 96 * p["hidden"] / 768, 384 * p["ffn"] / 3072, p["num_layers"] / 3.2
        return float(70 * (1 - 0.42 * np.exp(-2.2 * d * rates[0]) - 0.16 * np.exp(-1.8 * f * rates[1]) - 0.55 * np.exp(-n * rates[2])))

    other = replace(view, evaluator=FunctionEvaluator(quality, ("accuracy",)))
    return simulate(other, make("random"), budget=PRIOR_TRIALS, seed=100 + 10 * seed + w)


if __name__ == "__main__":
    main()
