"""Measured quality: a figure with its standard error, and what measures it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dse.spaces.parameters import Value


@dataclass(frozen=True)
class Measured:
    """A metric's mean and standard error; the error is 0 for an exact figure."""

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
