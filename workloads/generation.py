"""Lengths of the KV cache while tokens are generated: exact sums in closed form.

Step t = 1..n of a generation after a prompt of P tokens attends to P + t keys (its own included), or to the last
``window`` of them. Products, bytes and cache traffic are linear in that length, so that two neighbouring lengths, taken as
often as needed, add up to exactly what the n steps add up to, however many there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workloads.blocks import Parts
from workloads.errors import WorkloadError
from workloads.ops import IntLike

STEPWISE_LIMIT = 16384


def step_parts(prompt: IntLike, steps: IntLike, window: IntLike, growth: str) -> Parts:
    """Return (keys, how many steps attend to that many) for all ``steps`` after a ``prompt``.

    ``growth`` ``summed``: at most three lengths whose total is exact. ``stepwise``: every length by itself, for models of
    hardware that are not linear in it (numbers only). ``window`` 0 means none.
    """
    if growth == "stepwise":
        return _stepwise(prompt, steps, window)
    grows = np.clip(np.asarray(window) - prompt, 0, steps) if _positive(window) else np.asarray(steps)
    total = grows * np.asarray(prompt) + grows * (grows + 1) // 2
    divisor = np.maximum(grows, 1)
    low = total // divisor
    above = total - low * divisor
    # Where no step grows, the length is irrelevant (it runs 0 times) but must be a size that exists.
    parts = [(np.maximum(low, 1), grows - above), (np.maximum(low, 1) + 1, above)]
    if _positive(window):
        parts.append((np.asarray(window) + np.zeros_like(grows), steps - grows))
    kept = [(_plain(keys), _plain(count)) for keys, count in parts]
    return [(keys, count) for keys, count in kept if not (isinstance(count, int) and count == 0)]


def _stepwise(prompt: IntLike, steps: IntLike, window: IntLike) -> Parts:
    if not (isinstance(prompt, int) and isinstance(steps, int)):
        raise WorkloadError("kv_growth is 'stepwise', which takes one model at a time; nearest for arrays is 'summed'")
    if steps > STEPWISE_LIMIT:
        raise WorkloadError(
            f"new_tokens is {steps}, must be at most {STEPWISE_LIMIT} where kv_growth is 'stepwise'; nearest is {STEPWISE_LIMIT}"
        )
    keys = np.arange(prompt + 1, prompt + steps + 1, dtype=np.int64)
    if _positive(window):
        keys = np.minimum(keys, window)
    lengths, counts = np.unique(keys, return_counts=True)
    return [(int(length), int(count)) for length, count in zip(lengths, counts, strict=True)]


def _positive(window: IntLike) -> bool:
    return not isinstance(window, int) or window > 0


def _plain(value: Any) -> IntLike:
    array = np.asarray(value, dtype=np.int64)
    return int(array) if array.ndim == 0 else array
