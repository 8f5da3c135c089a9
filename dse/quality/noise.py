"""Noisy evaluation on purpose: what a quality figure looks like when only some clients answer, privately.

The four sources of Kuo and others, *On Noisy Evaluation in Federated Hyperparameter Tuning* (MLSys 2023, arXiv 2212.08930), as a
wrapper of any evaluator. A population of clients is drawn once from ``population_seed``: client c sees the wrapped quality plus
an offset of its own and, with heterogeneity, an offset of its own for every design. An evaluation asks a sample of clients:

* subsampling: ``clients_asked`` of ``clients``, without replacement, drawn from the trial's seed;
* heterogeneity: standard deviation ``heterogeneity`` between the clients' views of one design;
* systems bias: a client answers with probability proportional to exp(bias x its standardised quality), for better-served
  clients have better devices (0: all alike);
* privacy: Laplace noise of scale span x releases / (epsilon x clients asked), the Laplace mechanism for a mean of values
  within ``span`` when ``releases`` answers share the budget epsilon.

The standard error that comes with the mean is what the sample itself shows, with the known Laplace variance: it is what a
search may use. Bias is not in it, as nobody would know it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.quality.measured import Evaluator, Measured, design_key
from dse.spaces.parameters import Value

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NoisyEvaluator:
    """Any evaluator, seen through a sample of clients; see the module's docstring.

    At fidelity f < 1 only that share of ``clients_asked`` answers (at least one).
    """

    inner: Evaluator
    clients: int = 100
    clients_asked: int = 100
    heterogeneity: float = 0.0
    spread: float = 0.0  # standard deviation of the clients' offsets that all designs share
    bias: float = 0.0
    epsilon: float | None = None
    releases: int = 1
    span: float = 100.0
    population_seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.clients_asked <= self.clients:
            raise UsageError(f"clients_asked is {self.clients_asked}; between 1 and clients = {self.clients} is needed")
        for name in ("heterogeneity", "spread", "span"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise UsageError(f"{name} is {value}; a non-negative number is needed")
        if self.epsilon is not None and not self.epsilon > 0:
            raise UsageError(f"epsilon is {self.epsilon}; a positive number is needed, or None for no privacy")
        if self.releases < 1:
            raise UsageError(f"releases is {self.releases}; at least 1 is needed")
        if len(self.inner.metrics) != 1:
            raise UsageError(f"noise takes one metric; the evaluator gives {', '.join(self.inner.metrics)}")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The wrapped evaluator's."""
        return self.inner.metrics

    def views(self, parameters: Mapping[str, Value], quality: float) -> FloatArray:
        """Quality of a design as each client sees it, (clients,); the same whenever it is asked for."""
        common = np.random.default_rng([self.population_seed, 1]).normal(size=self.clients) * self.spread
        digest = hashlib.sha256(design_key(parameters).encode()).digest()
        own = np.random.default_rng([self.population_seed, 2, int.from_bytes(digest[:8], "little")])
        return np.asarray(quality + common + self.heterogeneity * own.normal(size=self.clients))

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        metric = self.inner.metrics[0]
        true = self.inner(parameters, fidelity=1.0, seed=seed)[metric]
        views = self.views(parameters, true.mean)
        asked = max(1, round(self.clients_asked * min(1.0, fidelity)))
        rng = np.random.default_rng([seed, 3])
        deviation = float(views.std())
        weight = np.exp(self.bias * (views - views.mean()) / deviation) if deviation > 0 else np.ones(self.clients)
        chosen = rng.choice(self.clients, size=asked, replace=False, p=weight / weight.sum())
        mean = float(views[chosen].mean())
        # Sampling without replacement: the finite-population factor makes asking everybody exact.
        left = 1.0 - asked / self.clients
        sampled = float(views[chosen].var(ddof=1)) / asked * left if asked > 1 else deviation**2 * left
        private = 0.0
        if self.epsilon is not None:
            scale = self.span * self.releases / (self.epsilon * asked)
            mean += float(rng.laplace(scale=scale))
            private = 2.0 * scale**2
        return {metric: Measured(mean, math.sqrt(sampled + private + true.se**2))}


@dataclass(frozen=True)
class ScaledEvaluator:
    """An evaluator with normal noise of a stated standard error: for a measurement whose noise is known."""

    inner: Evaluator
    se: float

    @property
    def metrics(self) -> tuple[str, ...]:
        """The wrapped evaluator's."""
        return self.inner.metrics

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        rng = np.random.default_rng([seed, 5])
        se = self.se / math.sqrt(max(fidelity, 1e-9))
        return {
            name: Measured(m.mean + float(rng.normal()) * se, math.hypot(m.se, se))
            for name, m in self.inner(parameters, fidelity=1.0, seed=seed).items()
        }
