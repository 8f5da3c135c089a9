"""Quality of the small models that were trained from scratch: measured where their table holds a model, else the surrogate learnt from it.

The figure is 100 exp(-cross entropy), the geometric mean of the probability that a model gives the right label (digit, phoneme, character,
bin of a hidden value), in percent. A measured model's standard error is the seed deviation of training over the square root of its seeds; a
surrogate's is its leave-one-out error. What lies outside the range of the table's knobs has no support and is marked ``extrapolated``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, UsageError, unknown_name
from dse.quality.measured import Measured
from dse.quality.records import EXTRAPOLATED, INTERPOLATED, MEASURED, FloatArray, IntArray, Quality
from dse.quality.trained.surrogate import FULL_BITS, KNOBS, TASKS, TrainedTable, load
from dse.spaces.parameters import Value

WORKLOADS = {
    "mnist-vit": "mnist",
    "digits-vit": "digits",
    "series-encoder": "series",
    "cmudict-decoder": "cmudict",
    "gloss-decoder": "gloss",
}
"""The workload of each table."""
LABELS = {"mnist": "digit", "digits": "digit", "series": "value", "cmudict": "phoneme", "gloss": "character"}
UNQUANTISED = (16, 32)


@dataclass(frozen=True)
class TrainedQuality:
    """The quality of one table's models, in the form that every surrogate of a workload has."""

    table: TrainedTable

    unit = "%"
    unsupported_knobs: tuple[str, ...] = ()
    standard_error_kind = "leave-one-out error of the surrogate; of measured models the seed deviation"

    @property
    def name(self) -> str:
        """Its name."""
        return f"trained-{self.table.task}"

    @property
    def label(self) -> str:
        """What the figure is."""
        return f"likelihood of the right {LABELS[self.table.task]} [%], measured table and surrogate"

    @property
    def knobs(self) -> tuple[str, ...]:
        """Knobs that it is asked with; a vision transformer has no key/value heads of its own."""
        return (*(n for n in KNOBS if n != "kv_heads" or n in self.table.names), "weight_bits")

    @cached_property
    def standard_error(self) -> float:
        """The surrogate's error at the middle of the table, in points."""
        return float(np.median(100.0 * np.exp(-self.table.cross_entropy) * self.table.cross_entropy)) * self.table.left_out.surrogate

    def predict(self, **knobs: IntArray) -> Quality:
        """Quality of models given as integer arrays of one shape (n,)."""
        columns = dict(zip(self.knobs, np.broadcast_arrays(*(np.atleast_1d(knobs[n]) for n in self.knobs)), strict=True))
        columns.setdefault("kv_heads", columns["heads"])
        bits = columns.pop("weight_bits")
        rounded = self._by_bits(bits)
        logs = self.table.predict({n: column.astype(np.float64) for n, column in columns.items()}) + rounded[0]
        error = np.hypot(self.table.left_out.surrogate, rounded[1])
        support = np.where(self._inside(columns, bits), INTERPOLATED, EXTRAPOLATED).astype(np.int64)
        for i, key in enumerate(zip(*(columns[n].tolist() for n in KNOBS), bits.tolist(), strict=True)):
            if key in self._measured:
                measured, seeds = self._measured[key]
                logs[i], error[i], support[i] = np.log(measured), self.table.seed_deviation / np.sqrt(seeds), MEASURED
        loss = np.exp(logs)
        mean = 100.0 * np.exp(-loss)
        return Quality(mean, mean * loss * error, support)  # d exp(-CE) = exp(-CE) CE d ln CE

    @cached_property
    def _measured(self) -> dict[tuple[int, ...], tuple[float, int]]:
        rows = zip(*(self.table.knobs[n].astype(np.int64).tolist() for n in KNOBS), strict=True)
        found = {}
        for i, row in enumerate(rows):
            for width, losses in self.table.by_bits.items():
                for bits in UNQUANTISED if width == FULL_BITS else (width,):
                    found[(*row, bits)] = (float(losses[i]), int(self.table.seeds[i]))
        return found

    def _by_bits(self, bits: IntArray) -> tuple[FloatArray, FloatArray]:
        """Mean and deviation over models of the change of ln(cross entropy) by rounding to ``bits``; bits not in the table change like the
        nearest."""
        known = {width: np.log(losses) - np.log(self.table.by_bits[FULL_BITS]) for width, losses in self.table.by_bits.items()}
        nearest = [min(known, key=lambda w, b=b: (abs(w - b), w)) for b in bits.tolist()]  # type: ignore[misc]
        return np.array([known[w].mean() for w in nearest]), np.array([known[w].std(ddof=1) for w in nearest])

    def _inside(self, columns: Mapping[str, IntArray], bits: IntArray) -> npt.NDArray[np.bool_]:
        inside = np.isin(bits, [*self.table.by_bits, *UNQUANTISED])
        for name in KNOBS:
            low, high = self._range(name)
            inside &= (columns[name] >= low) & (columns[name] <= high)
        return inside

    def _range(self, name: str) -> tuple[int, int]:
        return int(self.table.knobs[name].min()), int(self.table.knobs[name].max())

    def describe_refusal(self, **knobs: int) -> str:
        """Why a model has no supported quality, in one sentence that names the nearest values."""
        values = {"kv_heads": knobs["heads"], **knobs}
        for name in KNOBS:
            low, high = self._range(name)
            if not low <= values[name] <= high:
                near = min(max(values[name], low), high)
                return f"{name} is {values[name]} and the table of {self.table.task} holds {low} to {high}; nearest is {near}"
        widths = sorted({*self.table.by_bits, *UNQUANTISED})
        return f"weight_bits is {values['weight_bits']} and the table of {self.table.task} holds {', '.join(map(str, widths))}"

    def provenance(self) -> dict[str, object]:
        """What a report says of it."""
        error = self.table.left_out
        return {
            "name": self.name,
            "label": self.label,
            "form": "100 exp(-CE); of models not in the table ln CE = a + sum of (-b ln(knob) + c / knob), b and c at least 0",
            "standard_error_percent": self.standard_error,
            "standard_error_kind": self.standard_error_kind,
            "left_out_error_of_ln_ce": error.surrogate,
            "seed_deviation_of_ln_ce": self.table.seed_deviation,
            "models": len(self.table.cross_entropy),
            "points": [
                {
                    "model": ", ".join(f"{n} {int(self.table.knobs[n][i])}" for n in self.table.names),
                    "quality_percent": float(100.0 * np.exp(-loss)),
                    "source": self.table.source,
                }
                for i, loss in enumerate(self.table.cross_entropy)
            ],
            "unsupported_knobs": [],
        }


@lru_cache(maxsize=len(TASKS))
def trained_quality(task: str) -> TrainedQuality:
    """The quality of a task's models: a table's name (``mnist``) or its workload's (``mnist-vit``)."""
    task = WORKLOADS.get(task, task)
    if task not in TASKS:
        raise unknown_name("trained task", task, (*TASKS, *WORKLOADS))
    return TrainedQuality(load(task))


@dataclass(frozen=True)
class TrainedEvaluator:
    """The evaluator ``trained:TASK``: a design's knobs in, the table's figure or the surrogate's out; one outside the table is refused."""

    task: str
    metrics: tuple[str, ...] = ("quality",)

    def __post_init__(self) -> None:
        trained_quality(self.task)  # an unknown task is told now

    def check(self, models: Mapping[str, Any] | None = None) -> None:
        """Tell, before a search starts, that a space holds no model of the table. ``models``: columns of knobs."""
        if models is None:
            return
        if (self.support(models) == EXTRAPOLATED).all():
            first = {name: int(column[0]) for name, column in self._columns(models).items()}
            why = trained_quality(self.task).describe_refusal(**first)
            raise UsageError(f"the space holds no model that trained:{self.task} supports: {why}")

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]:
        columns = self._columns({name: np.array([value]) for name, value in parameters.items()})
        known = trained_quality(self.task)
        found = known.predict(**columns)
        if found.support[0] == EXTRAPOLATED:
            raise DseError(known.describe_refusal(**{name: int(column[0]) for name, column in columns.items()}))
        return {self.metrics[0]: Measured(float(found.mean[0]), float(found.standard_error[0]))}

    def has(self, parameters: Mapping[str, Value]) -> bool:
        """Whether the table supports a design: a search is limited to those."""
        return bool(self.support({name: np.array([value]) for name, value in parameters.items()})[0] != EXTRAPOLATED)

    def support(self, models: Mapping[str, npt.NDArray[Any]]) -> IntArray:
        """What supports the figures of models given as columns of knobs (n,): codes into ``dse.quality.records.SUPPORT``."""
        return trained_quality(self.task).predict(**self._columns(models)).support

    def _columns(self, models: Mapping[str, npt.NDArray[Any]]) -> dict[str, IntArray]:
        """The knobs that the table knows, completed where one follows from others."""
        known = trained_quality(self.task)
        given = dict(models)
        for name in given:
            if name not in (*known.knobs, "kv_heads"):
                raise UsageError(f"knob {name!r} is none of the table of {known.table.task}; it has {', '.join(known.knobs)}")
        if {"hidden", "heads"} <= set(given):
            given.setdefault("head_dim", given["hidden"] // given["heads"])
            given.setdefault("kv_heads", given["heads"])
            given.setdefault("weight_bits", np.full_like(given["heads"], FULL_BITS))
        for name in known.knobs:
            if name not in given:
                raise UsageError(f"knob {name!r} is missing; the table of {known.table.task} needs {', '.join(known.knobs)}")
        return {name: given[name].astype(np.int64) for name in known.knobs}
