"""The speed controller: three layers, the lowest of which rules, followed with bounded acceleration and jerk.

Target: v = min(legal, social(pedestrians near), proximity(distance of the nearest)).

Follower, on a grid of ``step_s``; every operation keeps the order of its inputs, so that more pedestrians or less distance at any time
never give a higher speed at any time:

1. The legal limit is a map's, so that it is seen ahead: eroded over the smoothing window that follows and then lowered before each drop by
   what comfortable braking needs (L(t) = min over s >= t of l(s) + b (s - t)).
2. The minimum of that and the two perceived layers, which are not seen ahead, through a rate limiter: up at most a, down at most b.
3. A moving average over the last (a + b)/j seconds: its acceleration is within [-b, a], its jerk at most j, and it is never above the
   legal limit, because all that it averages is not.
4. Emergency braking: a ceiling at the fastest speed that still stops with ``latency_floor_s`` for perception, which falls as fast as full
   braking and rises at a. Where it binds, jerk is not bounded, and the samples are marked.

The drive is replayed: the context of a time is the trace's, whatever the speed was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.operate.driving.trace import DriveTrace
from dse.operate.driving.vehicle import Vehicle

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

STEP_S = 0.1
MAX_STEPS = 5_000_000


@dataclass(frozen=True)
class Context:
    """A trace on a grid of steps; arrays (steps,). The perceived layers are the worst of the past step, the legal limit of both."""

    time_s: FloatArray
    legal_limit_mps: FloatArray
    pedestrians: IntArray
    distance_m: FloatArray
    step_s: float


@dataclass(frozen=True)
class SpeedProfile:
    """A drive as it is driven; arrays (steps,).

    Attributes:
        context: what it was driven through. target_mps: the lowest of the three layers. speed_mps: the speed.
        braking: where the emergency ceiling binds: full braking, or the way back from it.
    """

    context: Context
    target_mps: FloatArray
    speed_mps: FloatArray
    braking: BoolArray

    @property
    def emergency(self) -> BoolArray:
        """Samples whose jerk is not bounded: the emergency ceiling binds, or did one or two steps before."""
        b = self.braking
        return np.asarray(b | np.append([False], b[:-1]) | np.append([False, False], b[:-2])[: len(b)])

    @property
    def distance_km(self) -> float:
        """Way driven; the speed is linear between samples."""
        v = self.speed_mps
        return float(np.sum(v[1:] + v[:-1]) / 2.0 * self.context.step_s / 1000.0)

    @property
    def acceleration_mps2(self) -> FloatArray:
        """Acceleration over the step before each sample, 0 at the first."""
        return np.diff(self.speed_mps, prepend=self.speed_mps[0]) / self.context.step_s

    @property
    def jerk_mps3(self) -> FloatArray:
        """Change of that acceleration over a step."""
        a = self.acceleration_mps2
        return np.diff(a, prepend=a[0]) / self.context.step_s


def on_grid(trace: DriveTrace, vehicle: Vehicle, step_s: float = STEP_S) -> Context:
    """A trace on a grid from its first row to its end."""
    if not (math.isfinite(step_s) and 0 < step_s <= 1.0):
        raise DseError(f"step_s is {step_s}, must be above 0 and at most 1")
    steps = math.floor(trace.duration_s / step_s + 1e-9) + 1
    if steps > MAX_STEPS:
        raise DseError(f"the drive {trace.source} has {steps:,} steps of {step_s:g} s, must have at most {MAX_STEPS:,}")
    start = float(trace.time_s[0])
    time = start + step_s * np.arange(steps, dtype=np.float64)
    # Rows in force during [t - step, t] and [t, t + step]; a hair of slack puts a row that begins on a sample there.
    slack = 1e-9 * max(1.0, abs(start) + trace.duration_s)
    row = np.maximum(np.searchsorted(trace.time_s, time + slack, side="right") - 1, 0)
    before = np.concatenate([row[:1], row[:-1]])
    after = np.concatenate([row[1:], row[-1:]])
    sight = np.minimum(trace.distance_m, vehicle.sight_m)
    return Context(
        time,
        _extreme(np.minimum, trace.legal_limit_mps, before, after),
        _extreme(np.maximum, trace.pedestrians, before, row).astype(np.int64),
        _extreme(np.minimum, sight, before, row),
        step_s,
    )


def _extreme(function: np.ufunc, values: npt.NDArray[np.generic], first: IntArray, last: IntArray) -> FloatArray:
    """``function`` over values[first..last], inclusive, for each pair."""
    # reduceat reduces [i, j) for consecutive indices; every second result is wanted.
    padded = np.append(values, values[-1])
    pairs = np.stack([first, last + 1], axis=1).reshape(-1)
    return np.asarray(function.reduceat(padded, pairs)[::2], dtype=np.float64)


def target_speed_mps(vehicle: Vehicle, legal_limit_mps: FloatArray, pedestrians: IntArray, distance_m: FloatArray) -> FloatArray:
    """min(legal, social, proximity), elementwise."""
    perceived = np.minimum(vehicle.social(pedestrians), vehicle.proximity(np.minimum(distance_m, vehicle.sight_m)))
    return np.minimum(legal_limit_mps, perceived)


def previewed_limit_mps(legal_limit_mps: FloatArray, window: int, fall_mps: float) -> FloatArray:
    """The limit that a speed which falls by at most ``fall_mps`` a step, averaged over ``window`` steps, may follow: (steps,)."""
    eroded = _forward_minimum(legal_limit_mps, window)
    # min over s >= t of l(s) + b (s - t), as a running minimum from the end of l(s) + b s.
    ramp = fall_mps * np.arange(len(eroded))
    return np.asarray(np.minimum.accumulate((eroded + ramp)[::-1])[::-1] - ramp)


def _forward_minimum(values: FloatArray, window: int) -> FloatArray:
    """min of values[k .. k + window - 1]."""
    padded = np.append(values, np.full(window - 1, np.inf))
    # Running minima over blocks of the window from both ends: any window is the tail of one block and the head of the next.
    rest = -len(padded) % window
    blocks = np.append(padded, np.full(rest, np.inf)).reshape(-1, window)
    heads = np.minimum.accumulate(blocks, axis=1).reshape(-1)
    tails = np.minimum.accumulate(blocks[:, ::-1], axis=1)[:, ::-1].reshape(-1)
    return np.asarray(np.minimum(tails[: len(values)], heads[window - 1 : window - 1 + len(values)]))


def drive(trace: DriveTrace, vehicle: Vehicle, *, step_s: float = STEP_S) -> SpeedProfile:
    """Drive a trace; the first speed is its target."""
    context = on_grid(trace, vehicle, step_s)
    target = target_speed_mps(vehicle, context.legal_limit_mps, context.pedestrians, context.distance_m)
    up, down = vehicle.acceleration_mps2 * step_s, vehicle.deceleration_mps2 * step_s
    window = max(1, math.ceil((vehicle.acceleration_mps2 + vehicle.deceleration_mps2) / (vehicle.jerk_mps3 * step_s) - 1e-9))
    asked = np.minimum(target, previewed_limit_mps(context.legal_limit_mps, window, down))
    smooth = _averaged(_rate_limited(asked, up, down), window)
    # A mean of equal numbers may differ from them in the last digit, and the law knows no rounding.
    smooth = np.minimum(smooth, context.legal_limit_mps)
    speed = _braked(smooth, vehicle.safe_speed_mps(context.distance_m), up, vehicle.emergency_mps2 * step_s)
    return SpeedProfile(context, target, speed, speed < smooth)


def _rate_limited(asked: FloatArray, up: float, down: float) -> FloatArray:
    now, out = float(asked[0]), []
    for value in asked.tolist():
        now = max(min(value, now + up), now - down)
        out.append(now)
    return np.array(out)


def _averaged(values: FloatArray, window: int) -> FloatArray:
    """Mean of the last ``window`` values; before the first they were as the first."""
    from numpy.lib.stride_tricks import sliding_window_view

    padded = np.append(np.full(window - 1, values[0]), values)
    return np.asarray(sliding_window_view(padded, window).mean(axis=1))


def _braked(smooth: FloatArray, safe: FloatArray, up: float, brake: float) -> FloatArray:
    """The smooth profile under the emergency ceiling."""
    ceiling = float(safe[0])
    now, out = min(float(smooth[0]), ceiling), []
    for comfortable, allowed in zip(smooth.tolist(), safe.tolist(), strict=True):
        ceiling = max(min(allowed, ceiling + up), now - brake)
        now = max(min(comfortable, ceiling), 0.0)
        out.append(now)
    return np.array(out)
