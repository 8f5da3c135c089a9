"""One set of formulas over two array libraries: numpy for speed, torch for gradients.

The formulas of this package use operators and the handful of functions below, so the same line runs on Python floats, numpy
arrays and torch tensors. torch is never imported here: a tensor can only arrive from a program that has imported it already.
"""

from __future__ import annotations

import math
import sys
from typing import Any, TypeAlias

import numpy as np

from carbon.errors import out_of_range

#: A Python float, a numpy array or a torch tensor; anything the formulas broadcast over.
Numeric: TypeAlias = Any


def is_tensor(value: object) -> bool:
    """Whether ``value`` is a torch tensor (False, without importing torch, where torch is not loaded)."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def namespace(*values: Numeric) -> Any:
    """Return torch if any of ``values`` is a tensor, else numpy."""
    return sys.modules["torch"] if any(is_tensor(value) for value in values) else np


def exp(value: Numeric) -> Numeric:
    """Elementwise exponential."""
    return math.exp(value) if isinstance(value, (int, float)) else namespace(value).exp(value)


def expm1(value: Numeric) -> Numeric:
    """Elementwise exp(x) - 1, exact for small x."""
    return math.expm1(value) if isinstance(value, (int, float)) else namespace(value).expm1(value)


def sqrt(value: Numeric) -> Numeric:
    """Elementwise square root."""
    return math.sqrt(value) if isinstance(value, (int, float)) else namespace(value).sqrt(value)


def floor(value: Numeric) -> Numeric:
    """Elementwise floor (its gradient is zero almost everywhere)."""
    return float(math.floor(value)) if isinstance(value, (int, float)) else namespace(value).floor(value)


def where(condition: Numeric, yes: Numeric, no: Numeric) -> Numeric:
    """Elementwise choice."""
    if isinstance(condition, (bool, np.bool_)):
        return yes if condition else no
    return namespace(condition, yes, no).where(condition, yes, no)


def as_number(field: str, value: Numeric, *, low: float | None = None, high: float | None = None, open_low: bool = False) -> Numeric:
    """Check a quantity where it enters and return it as a float, a float64 array or the tensor it was.

    Args:
        field: name used in the error, with its unit.
        value: scalar or array of any shape; integers and lists are converted.
        low, high: inclusive bounds; ``open_low`` excludes ``low`` itself.

    Raises:
        CarbonError: not a number, NaN, infinite or out of bounds; the message gives the first bad element's index.
    """
    if is_tensor(value):
        array: Any = value.detach().cpu().numpy()
        result: Numeric = value
    else:
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise out_of_range(field, value, "a number is needed") from None
        result = array if array.ndim else float(array)
    if array.size == 0:
        return result
    least, most = float(array.min()), float(array.max())  # NaN propagates through both
    bad_low = low is not None and (least <= low if open_low else least < low)
    bad_high = high is not None and most > high
    if math.isfinite(least) and math.isfinite(most) and not bad_low and not bad_high:
        return result
    wrong = ~np.isfinite(array)
    if low is not None:
        wrong |= array <= low if open_low else array < low
    if high is not None:
        wrong |= array > high
    bounds = []
    if low is not None:
        bounds.append(f"{'above' if open_low else 'at least'} {low:g}")
    if high is not None:
        bounds.append(f"at most {high:g}")
    allowed = "it must be finite" + (" and " + " and ".join(bounds) if bounds else "")
    where_text = ""
    if array.ndim:
        index = int(np.flatnonzero(wrong.ravel())[0])
        offender = float(array.ravel()[index])
        where_text = f"element {index}: "
    else:
        offender = float(array)
    raise out_of_range(field, offender, allowed, where_text)
