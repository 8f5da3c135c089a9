"""How large a problem is, and what of it can be listed whole: in seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass

SECONDS_LIMIT = 900.0
BYTES_LIMIT = 8 * 2**30
# Unit costs of a shape on a design: seven additive quantities and what bounds them (`hw_models.costs.unit_costs.UnitCosts`).
BYTES_A_MAPPING = 57
# Columns of a hardware point: design, deployment, carbon by part (`dse.evaluation.hardware_points.Points`).
BYTES_A_POINT = 200
# A problem below both is swept without asking how long it takes: seconds on any machine.
EASY_DESIGNS, EASY_MAPPINGS = 50_000_000, 5_000_000
# Designs in deployments that are listed; of more, the designs and the deployments are listed apart (`dse.searches.deployments`).
EASY_POINTS = 500_000


@dataclass(frozen=True)
class Rates:
    """How fast this problem goes: mapping searches and designs a second, measured on a sample of it where it is large.

    The defaults stand for a small problem, whose rates nobody measures.
    """

    mappings_per_s: float = 200_000.0
    designs_per_s: float = 5_000_000.0
    measured: bool = False


SWEEP_LIMIT = int(SECONDS_LIMIT * Rates().designs_per_s)
"""Designs that are swept at usual rates within the limit of time."""
SHARDED_SECONDS_LIMIT = 24 * SECONDS_LIMIT  # six hours on the workers that share it


@dataclass(frozen=True)
class Sizes:
    """Models, hardware points and distinct operations of all models of a problem: whether a sweep is too much, and why.

    A hardware point is a design in a deployment; ``distinct`` counts the designs alone (None: every point is one), for a design is
    mapped once however many deployments it stands in. ``apart``: designs and deployments are listed apart, their product nowhere.
    """

    models: int
    hardware: int
    shapes: int
    distinct: int | None = None
    rates: Rates = Rates()
    apart: bool = False

    @property
    def designs(self) -> int:
        """Number of designs."""
        return self.models * self.hardware

    @property
    def mappings(self) -> int:
        """Number of mapping searches: shapes on distinct hardware designs."""
        return self.shapes * (self.hardware if self.distinct is None else self.distinct)

    @property
    def easy(self) -> bool:
        """Whether a sweep takes seconds, whatever its rates are."""
        listed = self.apart or self.distinct in (None, self.hardware) or self.hardware <= EASY_POINTS
        return self.designs <= EASY_DESIGNS and self.mappings <= EASY_MAPPINGS and listed

    @property
    def seconds(self) -> float:
        """About how long a sweep takes [s]."""
        return self.mappings / self.rates.mappings_per_s + self.designs / self.rates.designs_per_s

    @property
    def bytes(self) -> int:
        """Memory of a sweep [bytes]: the unit costs and the columns of the points."""
        listed = self.distinct + self.hardware // self.distinct if self.apart and self.distinct else self.hardware
        return BYTES_A_MAPPING * self.mappings + BYTES_A_POINT * listed

    @property
    def sweepable(self) -> bool:
        """Whether every model meets every hardware point in minutes and in memory."""
        return self.easy or (self.seconds <= SECONDS_LIMIT and self.bytes <= BYTES_LIMIT)

    @property
    def effort(self) -> str:
        """What a sweep would take, in words."""
        how = "measured on a sample" if self.rates.measured else "at usual rates"
        return (
            f"{self.designs:,} designs ({self.mappings:,} mapping searches) would take about {self.seconds:,.0f} s and "
            f"{self.bytes / 2**30:,.1f} GiB ({how})"
        )

    def refusal(self, *, measured: bool = False) -> str:
        """Why listing all designs is too much, in a sentence; ``measured``: quality is no surrogate's, and all strategies list them."""
        way_out = "fix some knobs with --set" + ("" if measured else ", or search it with --strategy auto")
        if self.bytes > BYTES_LIMIT and self.seconds <= SECONDS_LIMIT:
            way_out = f"sweep it in shards with --workers N, {way_out}"
        return f"a sweep of {self.effort}, more than {SECONDS_LIMIT:,.0f} s or {BYTES_LIMIT / 2**30:,.0f} GiB; {way_out}"
