"""Measured quality: a figure with its standard error, and what measures it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from dse.spaces.parameters import Value


@dataclass(frozen=True)
class Measured:
    """A metric's mean and standard error; the error is 0 where none is known."""

    mean: float
    se: float = 0.0


class Evaluator(Protocol):
    """A dear evaluation of one design: metric -> mean and standard error. Must travel to worker processes."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of what it gives."""
        ...

    def __call__(self, parameters: Mapping[str, Value], *, fidelity: float, seed: int) -> dict[str, Measured]: ...


def design_key(parameters: Mapping[str, Value]) -> str:
    """One text a design, whatever the order of its parameters."""
    return json.dumps(dict(sorted(parameters.items())), separators=(",", ":"))


def standard_errors(figures: Sequence[Measured]) -> npt.NDArray[np.float64]:
    """What a model of noisy figures takes for their standard errors (n,): where none is known the median of those that are; 0 where no
    figure has one."""
    errors = np.array([figure.se for figure in figures], dtype=np.float64)
    known = errors > 0
    return np.where(known, errors, np.median(errors[known])) if known.any() else errors
