"""Knobs: what may be changed about a model, the values that are allowed, and the errors for all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.errors import WorkloadError, shorten, unknown_name


@dataclass(frozen=True)
class Knob:
    """A named quantity of a workload.

    Attributes:
        name: the physical name; description: one line.
        minimum, maximum: the allowed range (numbers).
        choices: the allowed values, where they are names or few numbers (empty: the range).
        setting: False for a dimension of the model, True for how it is run (sequence, batch, bits, phase).
        real: whether fractions are allowed.
    """

    name: str
    description: str
    minimum: float = 1
    maximum: float = 2**31 - 1
    choices: tuple[Any, ...] = ()
    setting: bool = False
    real: bool = False

    def check(self, value: Any, model: str) -> Any:
        """Return ``value`` as a number, a name, or an int64 array (models,); raise WorkloadError if it is not allowed."""
        if self.choices and isinstance(self.choices[0], str):
            if value not in self.choices:
                raise unknown_name(f"{self.name} of {model}", value, self.choices)
            return value
        if self.choices and isinstance(self.choices[0], bool):
            if not isinstance(value, (bool, np.bool_)):
                raise WorkloadError(f"{self.name} of {model} is {shorten(value)!r}, must be true or false")
            return bool(value)
        array = np.asarray(value)
        kinds = "iuf" if self.real else "iu"
        if array.dtype.kind not in kinds or array.ndim > 1 or array.size == 0:
            what = "a number" if self.real else "a whole number"
            raise WorkloadError(f"{self.name} of {model} is {shorten(value)!r}, must be {what} from {self._range()} or an array of them")
        low, high = float(array.min()), float(array.max())
        if not (low >= self.minimum and high <= self.maximum):
            bad, near = (low, self.minimum) if not low >= self.minimum else (high, self.maximum)
            raise WorkloadError(f"{self.name} of {model} is {bad:g}, must be {self._range()}; nearest is {near:g}")
        if self.choices:
            bad_values = [item for item in np.unique(array).tolist() if item not in self.choices]
            if bad_values:
                near = min(self.choices, key=lambda choice: abs(choice - bad_values[0]))
                allowed = ", ".join(str(choice) for choice in self.choices)
                raise WorkloadError(f"{self.name} of {model} is {bad_values[0]}, must be one of {allowed}; nearest is {near}")
        if array.ndim == 0:
            return float(array) if self.real else int(array)
        return array.astype(np.float64 if self.real else np.int64)

    def _range(self) -> str:
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        return f"{self.minimum:g} to {self.maximum:g}"


@dataclass(frozen=True)
class TextKnob(Knob):
    """A quantity that is a short text of its own grammar; empty for none. ``parse`` raises WorkloadError for a text that is not of it."""

    parse: Callable[[str], Any] = str

    def check(self, value: Any, model: str) -> Any:
        """Return the text; raise WorkloadError if it is none, or does not parse."""
        if not isinstance(value, str):
            raise WorkloadError(f"{self.name} of {model} is {shorten(value)!r}, must be a text: {self.description}")
        if value:
            self.parse(value)
        return value


def require_divisible(values: Mapping[str, Any], whole: str, part: str, model: str) -> None:
    """Raise WorkloadError unless ``values[whole]`` is a multiple of ``values[part]``, naming the nearest that is."""
    numerator, denominator = np.broadcast_arrays(np.asarray(values[whole]), np.asarray(values[part]))
    wrong = np.flatnonzero(numerator.reshape(-1) % denominator.reshape(-1))
    if len(wrong):
        a, b = int(numerator.reshape(-1)[wrong[0]]), int(denominator.reshape(-1)[wrong[0]])
        near = max(b, round(a / b) * b)
        divisors = [x for x in range(1, min(a, 4096) + 1) if a % x == 0]
        other = min(divisors, key=lambda x: (abs(x - b), x))
        raise WorkloadError(
            f"{whole} of {model} is {a}, must be a multiple of {part} = {b}; nearest is {whole} = {near} or {part} = {other}"
        )


def require_at_most(values: Mapping[str, Any], name: str, limit: str, model: str, why: str) -> None:
    """Raise WorkloadError unless ``values[name] <= values[limit]``."""
    value, bound = np.broadcast_arrays(np.asarray(values[name]), np.asarray(values[limit]))
    wrong = np.flatnonzero(value.reshape(-1) > bound.reshape(-1))
    if len(wrong):
        a, b = int(value.reshape(-1)[wrong[0]]), int(bound.reshape(-1)[wrong[0]])
        raise WorkloadError(f"{name} of {model} is {a}, must be at most {limit} = {b} ({why}); nearest is {b}")
