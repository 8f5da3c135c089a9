"""The drives of a search: what they ask of it, and how its front is told by the kilometre."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dse.operate.driving.requirement import Requirement, compare_front, requirement_of
from dse.operate.driving.trace import DriveTrace, read_trace
from dse.operate.driving.vehicle import EXAMPLE, Vehicle, load_vehicle
from dse.problem.deployment import Deployment
from dse.storage.run_folder import RunRecord


@dataclass(frozen=True)
class Drives:
    """What the drives of ``--trace`` ask of the search and make of its front; nothing where none is given."""

    traces: tuple[DriveTrace, ...] = ()
    vehicle: Vehicle | None = None
    asked: Requirement | None = None

    @classmethod
    def of(cls, paths: Sequence[str], vehicle: str | None) -> Drives:
        """Read the files; no vehicle is the example."""
        if not paths:
            return cls()
        chosen = load_vehicle(vehicle or EXAMPLE)
        traces = tuple(read_trace(path) for path in paths)
        return cls(traces, chosen, requirement_of(traces, chosen))

    @property
    def constraints(self) -> tuple[str, ...]:
        """The deadline, as a constraint."""
        return (self.asked.constraint,) if self.asked else ()

    def deployment(self, deployment: Deployment) -> Deployment:
        """The deployment with the drives' frames a second."""
        return replace(deployment, rate_per_s=self.asked.rate_per_s) if self.asked else deployment

    def say(self) -> None:
        """Tell on stderr what the drives ask."""
        if self.asked:
            print(f"drive       {self.asked.sentence()}; years of its lifetime are years of driving", file=sys.stderr)

    def found(self, run: RunRecord) -> dict[str, Any]:
        """The front on the drives, by kilometres, as plain values."""
        if self.asked is None or self.vehicle is None:
            return {}
        compared = compare_front(run.problem, run.designs, self.traces, self.vehicle)
        rows = [
            {"design": number, **asdict(one.total("contextual")), "saved_against_fixed_for_all": one.saved("fixed for all"),
             "fixed_for_all_hz": one.fixed_for_all_hz}
            for number, one in compared
        ]  # fmt: skip
        return {"drive": {"vehicle": self.vehicle.name, **self.asked.to_dict(), "designs": rows}}
