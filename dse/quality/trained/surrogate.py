"""What the shipped tables of trained models say: elasticities of the loss to each knob with their intervals, and a surrogate with its
error.

The fit is ln(cross entropy) = a + sum of e_k ln(knob_k), ordinary least squares over the models of a space-filling grid; e_k is the
elasticity. It is a surrogate of models trained by one short recipe and says nothing of others.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from dse.errors import UsageError, unknown_name

FloatArray = npt.NDArray[np.float64]
TASKS = ("cmudict", "gloss", "mnist")
KNOBS = ("layers", "hidden", "heads", "head_dim", "kv_heads", "ffn")
FULL_BITS = 32


@dataclass(frozen=True)
class TrainedTable:
    """A table: knobs (models, 6), mean cross entropy of each model over its seeds, seed deviation of ln(cross entropy), loss by bits."""

    task: str
    knobs: dict[str, FloatArray]
    cross_entropy: FloatArray
    seed_deviation: float
    by_bits: dict[int, FloatArray]
    source: str

    @property
    def names(self) -> list[str]:
        """Knobs that vary on their own: key/value heads only where they differ from the heads somewhere."""
        grouped = not np.array_equal(self.knobs["heads"], self.knobs["kv_heads"])
        return [name for name in KNOBS if name != "kv_heads" or grouped]

    def _design(self, knobs: Mapping[str, FloatArray]) -> FloatArray:
        return np.column_stack([np.ones(len(knobs["layers"])), *(np.log(knobs[name]) for name in self.names)])

    def elasticities(self) -> dict[str, tuple[float, float]]:
        """Knob -> (elasticity of the cross entropy, half-width of its 95 % interval)."""
        design, target = self._design(self.knobs), np.log(self.cross_entropy)
        coefficients, *_ = np.linalg.lstsq(design, target, rcond=None)
        residual = target - design @ coefficients
        freedom = len(target) - design.shape[1]
        errors = np.sqrt(np.diag(np.linalg.inv(design.T @ design)) * (residual @ residual) / freedom)
        half = float(student.ppf(0.975, freedom)) * errors
        return {name: (float(c), float(h)) for name, c, h in zip(self.names, coefficients[1:], half[1:], strict=True)}

    def left_out(self) -> tuple[float, float]:
        """Root-mean-square error of ln(cross entropy) with each model left out: of the knobs, and of the number of parameters alone."""
        size = np.column_stack([np.ones(len(self.cross_entropy)), np.log(parameters(self.knobs))])
        return left_out_error(self._design(self.knobs), self.cross_entropy), left_out_error(size, self.cross_entropy)

    def bits(self) -> dict[int, tuple[float, float]]:
        """Bits -> (mean change of ln(cross entropy) from the unquantised weights, half-width of its 95 % interval over the models)."""
        found = {}
        for bits, loss in sorted(self.by_bits.items(), reverse=True):
            if bits < FULL_BITS:
                change = np.log(loss) - np.log(self.by_bits[FULL_BITS])
                half = float(student.ppf(0.975, len(change) - 1)) * float(change.std(ddof=1)) / np.sqrt(len(change))
                found[bits] = (float(change.mean()), float(half))
        return found

    def predict(self, knobs: Mapping[str, int]) -> tuple[float, float]:
        """Cross entropy of a model and its standard error (the leave-one-out error); one outside the table's range is refused."""
        for name in KNOBS:
            if name not in knobs:
                raise UsageError(f"knob {name!r} is missing; the table of {self.task} needs {', '.join(KNOBS)}")
            low, high = int(self.knobs[name].min()), int(self.knobs[name].max())
            if not low <= knobs[name] <= high:
                near = min(max(knobs[name], low), high)
                raise UsageError(f"{name} is {knobs[name]} and the table of {self.task} holds {low} to {high}; nearest is {near}")
        design = self._design({name: np.array([float(knobs[name])]) for name in KNOBS})
        coefficients, *_ = np.linalg.lstsq(self._design(self.knobs), np.log(self.cross_entropy), rcond=None)
        mean = float(np.exp((design @ coefficients)[0]))
        return mean, mean * self.left_out()[0]

    def summary(self) -> dict[str, Any]:
        """Plain values."""
        own, size = self.left_out()
        return {
            "task": self.task,
            "models": len(self.cross_entropy),
            "seed_deviation": self.seed_deviation,
            "elasticities": self.elasticities(),
            "bits": self.bits(),
            "left_out_knobs": own,
            "left_out_parameters": size,
        }


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
    return TrainedTable(task, knobs, by_bits[FULL_BITS], deviation, by_bits, source)


def describe(table: TrainedTable) -> str:
    """The summary as lines for a terminal."""
    own, size = table.left_out()
    lines = [f"{table.task}: {len(table.cross_entropy)} models; seed deviation of ln CE {table.seed_deviation:.4f}"]
    lines += [f"  elasticity to {name:<9} {e:+.3f} ± {half:.3f}" for name, (e, half) in table.elasticities().items()]
    lines += [f"  {bits} bits: ln CE {change:+.4f} ± {half:.4f}" for bits, (change, half) in table.bits().items()]
    lines.append(
        f"  left-out error of ln CE: knobs {own:.3f}, parameters alone {size:.3f}, deviation {np.log(table.cross_entropy).std(ddof=1):.3f}"
    )
    return "\n".join(lines)
