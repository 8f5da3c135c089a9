"""What a drive asks of a search: a deadline for every frame, and how many frames a second of driving.

Energy and operational carbon are linear in the rate (a frame's energy, and idle power in the rest of the time), so that the mean over the
drive's seconds stands for its whole profile, exactly, on a grid of constant intensity. A lifetime is then one of driving hours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dse.errors import DseError
from dse.evaluation.evaluation import load_hardware
from dse.evaluation.hardware_points import make_points
from dse.operate.driving.comparison import Comparison, Perception, compare
from dse.operate.driving.perception import Seconds, seconds
from dse.operate.driving.speed import SpeedProfile, drive
from dse.operate.driving.trace import DriveTrace
from dse.operate.driving.vehicle import Vehicle
from dse.problem.problem import Problem


@dataclass(frozen=True)
class Requirement:
    """What drives ask of any design.

    Attributes:
        deadline_s: latest latency of a frame, least over the attainable seconds. rate_per_s: mean frames a second of driving.
        highest_rate_hz: of any second. seconds, unattainable: of the drives, and those whose budget is below the vehicle's floor.
        kilometres: driven.
    """

    deadline_s: float
    rate_per_s: float
    highest_rate_hz: float
    seconds: int
    unattainable: int
    kilometres: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @property
    def constraint(self) -> str:
        """The deadline as a constraint of a search."""
        return f"latency_s<={self.deadline_s!r}"

    def sentence(self) -> str:
        """What it is, for people."""
        lost = f", {self.unattainable} of them with less time than any speed-up of perception gives" if self.unattainable else ""
        return (
            f"{self.seconds} s over {self.kilometres:.3g} km{lost}; every frame within {1e3 * self.deadline_s:.4g} ms, "
            f"{self.rate_per_s:.4g} frames/s on average, at most {self.highest_rate_hz:g}"
        )


def requirement_of(traces: Sequence[DriveTrace], vehicle: Vehicle) -> Requirement:
    """What drives ask together. Raises DseError if none of their seconds is attainable."""
    profiles: list[SpeedProfile] = [drive(trace, vehicle) for trace in traces]
    asked: list[Seconds] = [seconds(profile, vehicle) for profile in profiles]
    attainable = np.concatenate([s.attainable for s in asked])
    if not attainable.any():
        raise DseError(
            f"{traces[0].source}: no second of the drive leaves perception {vehicle.latency_floor_s:g} s, so that there is no deadline to "
            "design for"
        )
    rate = np.concatenate([s.rate_hz for s in asked])
    deadline = np.concatenate([s.deadline_s for s in asked])[attainable]
    return Requirement(
        deadline_s=math.floor(1e6 * float(deadline.min())) / 1e6,  # whole microseconds, rounded to the safe side
        rate_per_s=float(rate.mean()),
        highest_rate_hz=float(rate.max()),
        seconds=len(rate),
        unattainable=int(np.count_nonzero(~attainable)),
        kilometres=sum(profile.distance_km for profile in profiles),
    )


def perception_of(problem: Problem, design: dict[str, Any]) -> Perception:
    """A design of a run's front (`dse.storage.run_folder.describe_front`) as what looks at frames."""
    hardware, knobs, metrics = load_hardware(problem), design["knobs"], design["metrics"]
    columns = {name: np.array([value]) for name, value in knobs.items() if name in (*hardware.knobs, *problem.vary)}
    points = make_points(hardware, columns, problem.deployment, count=1)
    return Perception(
        name=f"design {design['design']}",
        latency_s=metrics["latency_s"],
        energy_j=metrics["energy_j"],
        idle_w=float(points.leakage_w[0]),
        embodied_kgco2e=metrics["embodied_kgco2e"],
        lifetime_years=float(np.broadcast_to(points.lifetime_years, (1,))[0]),
        gco2e_per_kwh=float(points.gco2e_per_kwh[0]) * problem.deployment.pue,
    )


def compare_front(
    problem: Problem, designs: Sequence[dict[str, Any]], traces: Sequence[DriveTrace], vehicle: Vehicle
) -> list[tuple[int, Comparison]]:
    """Number and comparison of every design of a front that keeps up with the lowest frame rate."""
    found = []
    for design in designs:
        looks = perception_of(problem, design)
        if looks.latency_s * vehicle.rates_hz[0] <= 1.0:
            found.append((int(design["design"]), compare(traces, vehicle, looks)))
    return found
