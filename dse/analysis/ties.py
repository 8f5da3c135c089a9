"""Near ties: designs that no objective tells apart by more than one per cent, far below what the models themselves are off by.

Which of them a rule names is chance, and a small change of any factor names another, so that they are told as one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.problem.objectives import Objective

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

WITHIN = 0.01
"""Relative difference of an objective up to which two designs are a near tie."""
_KNOBS = 4


def no_worse(costs: FloatArray, named: FloatArray) -> BoolArray:
    """Whether ``costs`` (..., costs), minimised, are nowhere more than `WITHIN` worse than ``named`` (..., costs); (...)."""
    return np.asarray((costs <= named + WITHIN * np.abs(named)).all(axis=-1))


def near_ties(design: Mapping[str, Any], others: Iterable[Mapping[str, Any]], objectives: Sequence[Objective]) -> list[Mapping[str, Any]]:
    """Those of ``others`` whose every objective lies within `WITHIN` of the design's, either way."""
    own = np.array([design["metrics"][o.metric] for o in objectives], dtype=np.float64)
    found = []
    for other in others:
        theirs = np.array([other["metrics"].get(o.metric, np.nan) for o in objectives], dtype=np.float64)
        if other["design"] != design["design"] and (np.abs(theirs - own) <= WITHIN * np.abs(own)).all():
            found.append(other)
    return found


def differ_in(own: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Knobs in which ``others`` differ from ``own``, those that most do first; at most four."""
    apart = Counter(name for knobs in others for name, value in own.items() if name in knobs and knobs[name] != value)
    return tuple(name for name, _ in sorted(apart.items(), key=lambda item: -item[1])[:_KNOBS])
