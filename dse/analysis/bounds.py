"""Which bounds of a search bear on its result: how many designs break each, and how much room the recommended one leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dse.problem.objectives import Constraint
from dse.problem.wording import finite

if TYPE_CHECKING:
    from dse.storage.run_folder import RunRecord


@dataclass(frozen=True)
class Bound:
    """One bound.

    Attributes:
        constraint: itself. broken_by: evaluated designs that break it, None where nobody counted.
        value: of the recommended design, None where it is not known. slack_share: the room it leaves, as a share of the bound (0: none),
        None where the bound is 0 or the value unknown.
    """

    constraint: Constraint
    broken_by: int | None
    value: float | None
    slack_share: float | None

    @property
    def slack(self) -> bool:
        """No design breaks it: without it the search would find the same."""
        return self.broken_by == 0

    @property
    def room(self) -> str:
        """``17 % slack``, or that none is left."""
        if self.slack_share is None:
            return "not known"
        return "at the bound" if self.slack_share < 0.005 else f"{100.0 * self.slack_share:.0f} % slack"


def bounds_of(run: RunRecord, design: int | None) -> list[Bound]:
    """Every bound of a run, and what the design of that number leaves of it."""
    entry = next((d for d in run.designs if d["design"] == design), None)
    # Models and designs that were never evaluated may break a bound unseen.
    whole = not run.context.get("sampled") and not run.problem.models_dominated
    found = []
    for constraint in run.problem.constraints:
        value = None if entry is None else finite(entry["metrics"].get(constraint.metric))
        sign = 1.0 if constraint.relation == "<=" else -1.0
        room = None if value is None or not constraint.bound else sign * (constraint.bound - value) / abs(constraint.bound)
        count = run.summary.reasons.get(str(constraint))
        found.append(Bound(constraint, count if count or whole else None, value, room))
    return found
