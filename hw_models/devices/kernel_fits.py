"""Fitting parameters of kernels to measured latencies, in logarithms, with a loss that single outliers do not move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PULL: Final = 0.03
"""Weight of the pull to the starting values, in rows that are off by 1 % for each percent of a parameter: decides what rows leave open."""
LOSS_SCALE: Final = 0.15  # residuals above it (15 %) count linearly

BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "launch_s": (3e-7, 3e-4),
    "tensor_efficiency": (0.1, 1.0),
    "port_efficiency": (0.1, 1.0),
    "dram_efficiency": (0.3, 0.95),
    "overlap": (1.0, 8.0),
    "fixed_cycles": (50.0, 9e3),
    "next_cycles": (10.0, 9e3),
    "split_cycles": (100.0, 2e4),
    "out_bytes_per_cycle": (4.0, 256.0),
    "extra_s": (1e-8, 1e-4),
    "rate_factor": (0.1, 1.0),
    "row_cycles": (1.0, 3e4),
    "item_cycles": (50.0, 2e4),
    "group_cycles": (1.0, 1e4),
    "port_bytes_per_cycle": (4.0, 64.0),
    "block_cycles": (1.0, 2e3),
    "combine_s": (1e-7, 2e-5),
    "single_factor": (0.05, 1.0),
    "copy_s": (1e-7, 2e-5),
    "exponential_cycles": (0.3, 12.0),
    "cache_cycles": (5.0, 1e5),
    "activation_factor": (0.05, 20.0),
    "top_k_s": (1e-7, 1e-4),
    "top_k_cycles": (10.0, 1e5),
    "cache_factor": (1.0, 12.0),
    "start_s": (5e-7, 3e-5),
    "step_s": (1e-8, 5e-6),
    "rate": (0.2, 1.0),
    "all_reduce_rate": (0.2, 1.0),
    "pair_loss": (0.01, 3.0),
    "low_latency_rate": (0.02, 0.6),
    "simple_s": (1e-6, 6e-5),
    "all_to_all_steps": (0.05, 3.0),
    "one_shot_rate": (0.05, 1.0),
    "two_shot_s": (1e-7, 1e-4),
    "two_shot_rate": (0.05, 1.0),
}


@dataclass(frozen=True, eq=False)
class Group:
    """Rows that one call of the model explains.

    Attributes:
        name: of the parameter record among several that are fitted together.
        predict: parameters to latencies (rows,) [s]. measured_s: (rows,).
    """

    name: str
    predict: Callable[[Any], FloatArray]
    measured_s: FloatArray


def fit(starts: Mapping[str, Any], groups: list[Group], *, shared: tuple[str, ...] = (), fixed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Parameter records that explain the groups best: {name: record}; deterministic.

    ``shared``: parameters with one value for all records. ``fixed``: parameters that keep their start. Rows of a record weigh
    the same in all, however many they are, so that the device with most rows does not decide what is shared.
    """
    from scipy.optimize import least_squares

    keys: list[tuple[tuple[str, ...], str]] = []
    for name, record in starts.items():
        for item in fields(record):
            if item.type == "bool" or item.name in fixed:
                continue
            if item.name not in shared:
                keys.append(((name,), item.name))
            elif not any(k[1] == item.name for k in keys):
                keys.append((tuple(starts), item.name))
    centre = np.log([np.mean([getattr(starts[n], p) for n in names]) for names, p in keys])
    low, high = (np.log([BOUNDS[p][i] for _, p in keys]) for i in (0, 1))
    count = {name: sum(len(g.measured_s) for g in groups if g.name == name) for name in starts}
    most = max(count.values())

    def records(logs: FloatArray) -> dict[str, Any]:
        values = np.exp(logs)
        return {
            name: replace(record, **{p: float(v) for (names, p), v in zip(keys, values, strict=True) if name in names})
            for name, record in starts.items()
        }

    def residuals(logs: FloatArray) -> FloatArray:
        found = records(logs)
        parts = [np.log(g.predict(found[g.name]) / g.measured_s) * np.sqrt(most / count[g.name]) for g in groups]
        return np.concatenate([*parts, PULL * (logs - centre)])

    # Choices of tiles and splits leave flat places, so the search starts twice: as given, and from the other side of it.
    best = None
    for tilt in (0.0, 0.4):
        start = np.clip(centre + tilt * np.resize([1.0, -1.0], len(centre)), low + 1e-6, high - 1e-6)
        found = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=LOSS_SCALE, diff_step=1e-3, max_nfev=60)
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return records(best.x)


def errors(predicted_s: npt.ArrayLike, measured_s: npt.ArrayLike) -> tuple[float, float, float]:
    """Mean of |predicted / measured - 1|, median of predicted / measured, 90th percentile of the error."""
    ratio = np.asarray(predicted_s, dtype=np.float64) / np.asarray(measured_s, dtype=np.float64)
    error = np.abs(ratio - 1)
    return float(error.mean()), float(np.median(ratio)), float(np.quantile(error, 0.9))
