"""What a speed asks of perception: latency budget, frame rate and deadline, and which frames come too late.

A scene that changes at time t is in a frame at most one interval 1/f later, and known one latency tau after that. It is in time if

    tau + 1/f <= L,    L = (d - margin)/v - v/(2 b) - actuation,

so that the vehicle stops ``margin`` before whoever is d away. The interval is that in force when the scene changes: the rate chosen a step
earlier, and v the speed then. A *miss* is a sample that comes too late although the fastest rate would have been in time; where none would,
it is *unavoidable* and counted apart; where the emergency ceiling already bound, the decision was taken and nothing is late. Frames do not
overlap on the device: f tau <= 1.

The contextual rate is the lowest in time for the worst scene of the next step: a step of acceleration, the distance less what vehicle
and person can close in a step (or closed in the last one, if that is more), or someone who steps out as near as the table of appearances
has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError
from dse.operate.driving.speed import SpeedProfile
from dse.operate.driving.vehicle import Vehicle

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_SLACK_S = 1e-12  # a budget that a rate meets exactly is met


@dataclass(frozen=True)
class Seconds:
    """What each second of a drive asks for, whatever the design; arrays (seconds,).

    Attributes:
        time_s: begin of the second. speed_mps: fastest. latency_budget_s: least L of the second (inf where the vehicle stands).
        rate_hz: highest frame rate of the second. deadline_s: latest latency of a frame: its share of the budget, and one interval at most.
        attainable: whether the budget is at least the floor that the speed leaves perception.
    """

    time_s: FloatArray
    speed_mps: FloatArray
    latency_budget_s: FloatArray
    rate_hz: FloatArray
    deadline_s: FloatArray
    attainable: BoolArray

    def rows(self) -> list[dict[str, Any]]:
        """Each second as plain values; a budget without end (the vehicle stands) is None."""
        columns = {item.name: getattr(self, item.name).tolist() for item in fields(self)}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [{**row, "latency_budget_s": row["latency_budget_s"] if math.isfinite(row["latency_budget_s"]) else None} for row in rows]


@dataclass(frozen=True)
class Lateness:
    """Frames of one way to run perception: counts of samples, and the worst way by which a stop would be too long [m]."""

    samples: int
    misses: int
    unavoidable: int
    worst_overrun_m: float


def scene_budget_s(profile: SpeedProfile, vehicle: Vehicle) -> FloatArray:
    """L of each sample's scene, at the speed before the vehicle reacted; inf where it was braking for it already (steps,)."""
    v, known = profile.speed_mps, profile.braking
    budget = vehicle.latency_budget_s(np.append(v[:1], v[:-1]), profile.context.distance_m)
    return np.asarray(np.where(np.append([False], known[:-1]), np.inf, budget))


def foreseen_budget_s(profile: SpeedProfile, vehicle: Vehicle) -> FloatArray:
    """Least L that the next step may bring, as far as the vehicle's tables foresee it (steps,)."""
    context, v = profile.context, profile.speed_mps
    step = context.step_s
    distance = context.distance_m
    lost = np.append(distance[:1], distance[:-1]) - distance
    closed = distance - np.maximum(lost, (v + vehicle.walking_mps) * step)
    limit = context.legal_limit_mps
    ahead = np.minimum(limit, np.append(limit[1:], limit[-1:]))  # a map's: a narrower street begins with the next step
    nearest = np.minimum(closed, vehicle.appearance(ahead))
    return vehicle.latency_budget_s(v + vehicle.acceleration_mps2 * step, nearest)


def usable_rates(vehicle: Vehicle, latency_s: float) -> FloatArray:
    """The vehicle's frame rates at which frames of ``latency_s`` do not overlap, rising. Raises DseError if none is."""
    if not (math.isfinite(latency_s) and latency_s > 0):
        raise DseError(f"latency_s is {latency_s}, must be above 0")
    rates = np.array(vehicle.rates_hz)
    usable = rates[rates * latency_s <= 1.0 + 1e-12]
    if not len(usable):
        raise DseError(
            f"a latency of {latency_s:.4g} s is longer than the interval of the lowest frame rate, {rates[0]:g} a second; it must be at "
            f"most {1 / rates[0]:.4g} s"
        )
    return usable


def contextual_rate_hz(profile: SpeedProfile, vehicle: Vehicle, latency_s: float) -> FloatArray:
    """The lowest usable rate that is in time for what is foreseen, the highest where none is (steps,)."""
    rates = usable_rates(vehicle, latency_s)
    needed = latency_s + 1.0 / rates  # falling
    in_time = foreseen_budget_s(profile, vehicle)[:, None] >= needed[None, :] - _SLACK_S
    first = np.where(in_time.any(axis=1), in_time.argmax(axis=1), len(rates) - 1)
    return np.asarray(rates[first])


def lateness(profile: SpeedProfile, vehicle: Vehicle, latency_s: float, rate_hz: FloatArray | float) -> Lateness:
    """Misses of a rate (a number, or (steps,)): the interval in force is that of the step before."""
    rates = usable_rates(vehicle, latency_s)
    context = profile.context
    chosen = np.broadcast_to(np.asarray(rate_hz, np.float64), context.time_s.shape)
    in_force = np.append(chosen[:1], chosen[:-1])
    budget = scene_budget_s(profile, vehicle)
    late = latency_s + 1.0 / in_force > budget + _SLACK_S
    hopeless = latency_s + 1.0 / rates[-1] > budget + _SLACK_S
    missed = late & ~hopeless
    before = np.append(profile.speed_mps[:1], profile.speed_mps[:-1])
    overrun = np.where(missed, (latency_s + 1.0 / in_force - np.where(missed, budget, 0.0)) * before, 0.0)
    return Lateness(len(late), int(missed.sum()), int(hopeless.sum()), float(overrun.max()))


def seconds(profile: SpeedProfile, vehicle: Vehicle) -> Seconds:
    """Deadline and rate of each second for any design: half of the budget for the frame, half for its latency.

    The rate is the lowest of the vehicle's that is at least 2/L, L the least of what is foreseen, of now and of the next step; the deadline
    is what the interval in force leaves of L, and at most that interval: a design that meets the deadline meets f tau <= 1 too.
    """
    context = profile.context
    rates = np.array(vehicle.rates_hz)
    budget = scene_budget_s(profile, vehicle)
    least = np.minimum(np.minimum(budget, np.append(budget[1:], budget[-1:])), foreseen_budget_s(profile, vehicle))
    enough = least[:, None] * rates[None, :] >= 2.0 - 1e-9
    rate = rates[np.where(enough.any(axis=1), enough.argmax(axis=1), len(rates) - 1)]
    in_force = np.append(rate[:1], rate[:-1])
    deadline = np.minimum(np.minimum(budget - 1.0 / in_force, 1.0 / in_force), 1.0 / rate)
    second = np.floor((context.time_s - context.time_s[0]) + 1e-9).astype(np.int64)
    starts = np.flatnonzero(np.diff(second, prepend=-1))
    tightest = np.minimum.reduceat(budget, starts)
    return Seconds(
        context.time_s[0] + second[starts].astype(np.float64),
        np.maximum.reduceat(profile.speed_mps, starts),
        tightest,
        np.maximum.reduceat(rate, starts),
        np.minimum.reduceat(deadline, starts),
        tightest >= vehicle.latency_floor_s - 1e-9,
    )
