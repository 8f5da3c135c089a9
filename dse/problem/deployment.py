"""Where and how a device serves: the request rate, the lifetime, the grids, and the carbon profile that counts them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from carbon.device import recipes
from carbon.factors import grid as grids
from dse.errors import UsageError

# What a search may vary besides the hardware; the type of a value.
VARIABLE: dict[str, type] = {"grid": str, "fab_grid": str, "package": str, "lifetime_years": float, "rate_per_s": float}


@dataclass(frozen=True)
class Deployment:
    """One device that serves ``rate_per_s`` requests a second for ``lifetime_years``."""

    rate_per_s: float = 1.0
    lifetime_years: float = 3.0
    grid: str | grids.GridFactor = "world"
    fab_grid: str | grids.GridFactor = ""  # "": the carbon profile's own, which then stands here
    pue: float = 1.0
    carbon_profile: str = "act2"  # "": the one that suits the hardware, which `make_problem` puts here
    electricity_usd_per_kwh: float = 0.12  # industrial and commercial users pay 0.08-0.20 (IEA, Electricity 2024)
    package: str = ""  # "": what the carbon profile assumes of a single die

    def __post_init__(self) -> None:
        recipe = recipes.get(self.carbon_profile) if self.carbon_profile else None
        for name in ("grid", "fab_grid"):
            if isinstance(factor := getattr(self, name), grids.GridFactor):
                object.__setattr__(self, name, grids.word_of(factor))  # a study keeps plain values
        _positive("rate", self.rate_per_s, 1e15)
        _positive("lifetime-years", self.lifetime_years, 1000.0)
        object.__setattr__(self, "fab_grid", self.fab_grid or (recipe.fab_grid if recipe else None) or "")
        _positive("electricity-usd", self.electricity_usd_per_kwh, 1000.0)
        if not 1.0 <= self.pue <= 100.0:
            raise UsageError(f"pue is {self.pue}; facility power over device power is at least 1 and at most 100")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Deployment:
        """The inverse of :meth:`to_dict`."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def _positive(name: str, value: float, most: float) -> None:
    if not 0 < value <= most:
        raise UsageError(f"{name} is {value}; a positive number of at most {most:g} is needed")
