"""Warm start: what other studies measured, as further groups of a multi-task Gaussian process.

The studies' own workloads, accelerators and costs do not matter: only model parameters and the measured metric carry over.
Parameters that the target's space lacks are ignored where they do not vary; values between or beyond the target's are taken
where they lie in its coding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError
from dse.spaces.parameters import Parameter, Space, Value
from dse.storage.trial import Trial

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prior:
    """Completed trials of other studies, one group a study, and the metric that is shared."""

    studies: tuple[tuple[Trial, ...], ...]
    metric: str

    @classmethod
    def of(cls, studies: Sequence[Sequence[Trial]], metric: str) -> Prior:
        """From the trials of other studies; one without a completed trial of the metric is an error."""
        kept = []
        for number, trials in enumerate(studies, 1):
            done = tuple(t for t in trials if t.done and metric in t.metrics)
            if not done:
                raise UsageError(f"study {number} of the warm start has no completed trial with the metric {metric}")
            kept.append(done)
        if not kept:
            raise UsageError("a warm start needs at least one study")
        return cls(tuple(kept), metric)

    def observations(self, space: Space, sign: float) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
        """Inputs (n, d) in the coding of ``space``, values times ``sign``, noise variances, groups 1, 2, ..."""
        inputs, values, noise, groups = [], [], [], []
        for group, trials in enumerate(self.studies, 1):
            for trial in trials:
                missing = [name for name in space.names if name not in trial.parameters]
                if missing:
                    raise UsageError(f"study {group} of the warm start lacks the parameter {missing[0]} of space {space.name}")
                inputs.append([_place(p, trial.parameters[p.name]) for p in space.parameters])
                values.append(sign * trial.metrics[self.metric].mean)
                noise.append(trial.metrics[self.metric].se ** 2)
                groups.append(group)
        return np.array(inputs), np.array(values), np.array(noise), np.array(groups, dtype=np.int64)


def _place(parameter: Parameter, value: Value) -> float:
    """Place of any value in the coding of a parameter, clipped to its range."""
    if value in parameter.values or not parameter.numeric or isinstance(value, str) or len(parameter.values) == 1:
        return float(parameter.code[parameter.index(value)]) if value in parameter.values else 0.5
    known = parameter.column.astype(np.float64)
    if parameter.coding in ("log", "power_of_two"):
        return float(np.interp(np.log2(max(float(value), known[0])), np.log2(known), parameter.code))
    return float(np.interp(float(value), known, parameter.code))
