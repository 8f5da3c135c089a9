"""How large a problem is, and what of it can be listed whole."""

from __future__ import annotations

from dataclasses import dataclass

# Largest joint space that is swept whole without asking, and largest hardware space that is solved exactly a model.
SWEEP_LIMIT = 500_000_000
# Most mapping searches (shapes x hardware points) of a sweep: each takes about 200 bytes and some microseconds.
MAPPING_LIMIT = 20_000_000


@dataclass(frozen=True)
class Sizes:
    """Models, hardware points and distinct operations of all models of a problem: whether a sweep is too much, and why."""

    models: int
    hardware: int
    shapes: int

    @property
    def designs(self) -> int:
        """Number of designs."""
        return self.models * self.hardware

    @property
    def sweepable(self) -> bool:
        """Whether every model meets every hardware point in minutes and in memory."""
        return self.designs <= SWEEP_LIMIT and self.shapes * self.hardware <= MAPPING_LIMIT

    def refusal(self, *, measured: bool = False) -> str:
        """Why listing all designs is too much, in a sentence; ``measured``: quality is no surrogate's, and all strategies list them."""
        way_out = "fix some knobs with --set" + ("" if measured else ", or search it with --strategy auto")
        if self.designs > SWEEP_LIMIT:
            return f"space of {self.designs:,} designs is more than the {SWEEP_LIMIT:,} that can be listed whole; {way_out}"
        return (
            f"space needs {self.shapes:,} shapes x {self.hardware:,} hardware points = {self.shapes * self.hardware:,} mapping searches, "
            f"more than the {MAPPING_LIMIT:,} that fit a few minutes and gigabytes; sweep it in shards with --workers N, {way_out}"
        )
