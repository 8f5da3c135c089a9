"""What is told of the quality of models: a number, its error, and what supports it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

SUPPORT = ("published", "interpolated", "extrapolated", "measured")
PUBLISHED, INTERPOLATED, EXTRAPOLATED, MEASURED = range(4)


@dataclass(frozen=True)
class Quality:
    """Quality of n models: mean and standard error in percent (n,), support as codes into ``SUPPORT`` (n,)."""

    mean: FloatArray
    standard_error: FloatArray
    support: IntArray
