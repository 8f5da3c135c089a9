"""What the shipped tables of trained models say: elasticities of the loss to each knob with their intervals, and a surrogate with its
error.

Elasticities come from ln(cross entropy) = a + sum of e_k ln(knob_k), ordinary least squares over the models of a space-filling grid. The
surrogate is monotone: ln(cross entropy) = a + sum of (-b_k ln(knob_k) + c_k / knob_k) with every b_k and c_k at least 0 (least squares
under these bounds), so that no knob that is turned up makes a model worse and its effect may saturate. It is a surrogate of models
trained by one short recipe and says nothing of others.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from dse.errors import unknown_name

FloatArray = npt.NDArray[np.float64]
TASKS = ("cmudict", "digits", "gloss", "mnist", "series")
KNOBS = ("layers", "hidden", "heads", "head_dim", "kv_heads", "ffn")
FULL_BITS = 32


class LeftOut(NamedTuple):
    """Root-mean-square errors of ln(cross entropy) with each model left out of the fit in turn: of the surrogate, of the logarithms alone
    (the elasticities' fit), and of the number of parameters alone."""

    surrogate: float
    logarithms: float
    parameters: float


@dataclass(frozen=True)
class TrainedTable:
    """A table: knobs (models, 6), mean cross entropy of each model over its seeds, seed deviation of ln(cross entropy), loss by bits."""

    task: str
    knobs: dict[str, FloatArray]
    cross_entropy: FloatArray
    seed_deviation: float
    by_bits: dict[int, FloatArray]
    source: str
    seeds: FloatArray  # (models,) trainings that each mean is of

    @property
    def names(self) -> list[str]:
        """Knobs that vary on their own: key/value heads only where they differ from the heads somewhere."""
        grouped = not np.array_equal(self.knobs["heads"], self.knobs["kv_heads"])
        return [name for name in KNOBS if name != "kv_heads" or grouped]

    def _design(self, knobs: Mapping[str, FloatArray]) -> FloatArray:
        return np.column_stack([np.ones(len(knobs["layers"])), *(np.log(knobs[name]) for name in self.names)])

    def elasticities(self) -> dict[str, tuple[float, float]]:
        """Knob -> (elasticity of the cross entropy, half-width of its 95 % interval)."""
        from scipy.stats import t as student

        design, target = self._design(self.knobs), np.log(self.cross_entropy)
        coefficients, *_ = np.linalg.lstsq(design, target, rcond=None)
        residual = target - design @ coefficients
        freedom = len(target) - design.shape[1]
        errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * (residual @ residual) / freedom)
        half = float(student.ppf(0.975, freedom)) * errors
        return {name: (float(c), float(h)) for name, c, h in zip(self.names, coefficients[1:], half[1:], strict=True)}

    def _monotone(self, knobs: Mapping[str, FloatArray]) -> FloatArray:
        """Columns whose coefficients are at least 0: an intercept of either sign, -ln(knob / most) and 1 / knob - 1 / most."""
        ones = np.ones(len(knobs["layers"]))
        most = {name: float(self.knobs[name].max()) for name in self.names}
        logs = [np.log(most[name] / knobs[name]) for name in self.names]
        inverse = [1.0 / knobs[name] - 1.0 / most[name] for name in self.names]
        return np.column_stack([ones, -ones, *logs, *inverse])

    @cached_property
    def _weights(self) -> FloatArray:
        return _non_negative(self._monotone(self.knobs), np.log(self.cross_entropy))

    @cached_property
    def left_out(self) -> LeftOut:
        """Errors of the fits on models that they have not seen."""
        target, every = np.log(self.cross_entropy), self._monotone(self.knobs)
        missed = []
        for i in range(len(target)):
            rest = np.arange(len(target)) != i
            missed.append(target[i] - every[i] @ _non_negative(every[rest], target[rest]))
        size = np.column_stack([np.ones(len(target)), np.log(parameters(self.knobs))])
        own = float(np.sqrt(np.mean(np.square(missed))))
        return LeftOut(own, left_out_error(self._design(self.knobs), self.cross_entropy), left_out_error(size, self.cross_entropy))

    def bits(self) -> dict[int, tuple[float, float]]:
        """Bits -> (mean change of ln(cross entropy) from the unquantised weights, half-width of its 95 % interval over the models)."""
        from scipy.stats import t as student

        found = {}
        for bits, loss in sorted(self.by_bits.items(), reverse=True):
            if bits < FULL_BITS:
                change = np.log(loss) - np.log(self.by_bits[FULL_BITS])
                half = float(student.ppf(0.975, len(change) - 1)) * float(change.std(ddof=1)) / np.sqrt(len(change))
                found[bits] = (float(change.mean()), float(half))
        return found

    def predict(self, knobs: Mapping[str, FloatArray]) -> FloatArray:
        """ln(cross entropy) of unquantised models given as columns of all knobs (n,); its standard error is ``left_out.surrogate``."""
        return np.asarray(self._monotone(knobs) @ self._weights)

    def summary(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "task": self.task,
            "models": len(self.cross_entropy),
            "seed_deviation": self.seed_deviation,
            "elasticities": self.elasticities(),
            "bits": self.bits(),
            **{f"left_out_{name}": error for name, error in self.left_out._asdict().items()},
        }


def _non_negative(design: FloatArray, target: FloatArray) -> FloatArray:
    """Least squares with coefficients of at least 0."""
    from scipy.optimize import nnls

    return np.asarray(nnls(design, target)[0])


def left_out_error(design: FloatArray, cross_entropy: FloatArray) -> float:
    """Root-mean-square error of ln(cross entropy), each model left out of the fit in turn (closed form: residual / (1 - leverage))."""
    target = np.log(cross_entropy)
    leverage = np.einsum("ij,ji->i", design, np.linalg.pinv(design))
    residual = target - design @ np.linalg.lstsq(design, target, rcond=None)[0]
    return float(np.sqrt(np.mean((residual / (1.0 - leverage)) ** 2)))


def parameters(knobs: Mapping[str, FloatArray]) -> FloatArray:
    """Weights of the transformer layers: query, key, value, output, and three (gated) feed-forward matrices."""
    width = knobs["hidden"] * knobs["head_dim"]
    return np.asarray(knobs["layers"] * (2 * width * (knobs["heads"] + knobs["kv_heads"]) + 3 * knobs["hidden"] * knobs["ffn"]))


@lru_cache(maxsize=len(TASKS))
def load(task: str) -> TrainedTable:
    """The shipped table of a task; models of several seeds are averaged."""
    if task not in TASKS:
        raise unknown_name("trained task", task, TASKS)
    text = resources.files("dse").joinpath(f"data/trained_{task}.csv").read_text(encoding="utf-8").splitlines()
    source = text[0].removeprefix("# ")
    groups: dict[tuple[int, ...], dict[int, list[float]]] = {}
    for row in csv.DictReader(line for line in text if not line.startswith("#")):
        key = tuple(int(row[name]) for name in KNOBS)
        groups.setdefault(key, {}).setdefault(int(row["weight_bits"]), []).append(float(row["cross_entropy"]))
    knobs = {name: np.array([float(key[i]) for key in groups]) for i, name in enumerate(KNOBS)}
    widths = sorted(next(iter(groups.values())))
    by_bits = {bits: np.array([float(np.mean(found[bits])) for found in groups.values()]) for bits in widths}
    repeated = [np.log(found[FULL_BITS]) for found in groups.values() if len(found[FULL_BITS]) > 1]
    deviation = float(np.sqrt(np.mean([logs.var(ddof=1) for logs in repeated])))
    seeds = np.array([float(len(found[FULL_BITS])) for found in groups.values()])
    return TrainedTable(task, knobs, by_bits[FULL_BITS], deviation, by_bits, source, seeds)


def describe(table: TrainedTable) -> str:
    """The summary as lines for a terminal."""
    own, logs, size = table.left_out
    lines = [f"{table.task}: {len(table.cross_entropy)} models; seed deviation of ln CE {table.seed_deviation:.4f}"]
    lines += [f"  elasticity to {name:<9} {e:+.3f} ± {half:.3f}" for name, (e, half) in table.elasticities().items()]
    lines += [f"  {bits} bits: ln CE {change:+.4f} ± {half:.4f}" for bits, (change, half) in table.bits().items()]
    lines.append(
        f"  left-out error of ln CE: surrogate {own:.3f}, logarithms alone {logs:.3f}, parameters alone {size:.3f}, deviation "
        f"{np.log(table.cross_entropy).std(ddof=1):.3f}"
    )
    return "\n".join(lines)
