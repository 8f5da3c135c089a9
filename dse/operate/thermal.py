"""A temperature budget: what cools a site is a first-order system, and its temperature may not rise above a limit.

One lumped resistance and capacitance, as in a node of HotSpot (Skadron et al., ISCA 2003), here of a site's cooling loop or room. With the
ambient temperature T_a, R kelvins a kW of the chips' power P, and the time constant tau = R C,

    dT/dt = (T_a + R P - T) / tau,   so over an hour of mean power P:   T' = T_a + k (T - T_a) + (1 - k) R P,   k = exp(-1 h / tau).

P_s = (T_limit - T_a) / R may be drawn for good. Below the limit an hour may draw more,

    P <= (T_limit - T_a - k (T - T_a)) / ((1 - k) R),

which is P_s at the limit and rises as the site cools: that is the budget. As T at the end of an hour lies between its beginning and the
steady temperature of P, a limit that is kept at full hours is kept between them for an even power. Whatever was spent, P_s is left, so the
deadline filter counts on P_s alone in later hours and keeps both.

R and tau are the user's: of a site they follow from its design (steady rise at full power) and from how fast it warms when cooling stops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import UsageError

FloatArray = npt.NDArray[np.float64]

EXAMPLE = "25:45:1.5:3"


@dataclass(frozen=True)
class Thermal:
    """What cools each site.

    Attributes:
        ambient_c, limit_c: temperatures [C] without power, and the highest that is allowed. k_per_kw: steady rise a kW of the chips.
        time_constant_h: after which 63 % of a step is reached; 0: at once.
    """

    ambient_c: float
    limit_c: float
    k_per_kw: float
    time_constant_h: float

    def __post_init__(self) -> None:
        for name in ("ambient_c", "limit_c", "k_per_kw", "time_constant_h"):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise UsageError(f"{name} of a temperature limit is {value}, must be finite")
        if not -60 <= self.ambient_c <= 60:
            raise UsageError(f"ambient_c of a temperature limit is {self.ambient_c:g}, must be from -60 to 60")
        if not self.ambient_c < self.limit_c <= 150:
            raise UsageError(f"limit_c of a temperature limit is {self.limit_c:g}, must be above ambient_c, {self.ambient_c:g}, up to 150")
        if self.k_per_kw <= 0:
            raise UsageError(f"k_per_kw of a temperature limit is {self.k_per_kw:g}, must be above 0")
        if not 0 <= self.time_constant_h <= 168:
            raise UsageError(f"time_constant_h of a temperature limit is {self.time_constant_h:g}, must be from 0 to 168")

    @staticmethod
    def of(text: str) -> Thermal:
        """From ``AMBIENT:LIMIT:K_PER_KW:HOURS``."""
        try:
            ambient, limit, rise, hours = (float(word) for word in text.split(":"))
        except ValueError:
            raise UsageError(f"temperature is {text!r}, must be AMBIENT:LIMIT:K_PER_KW:HOURS, like {EXAMPLE}") from None
        return Thermal(ambient, limit, rise, hours)

    @property
    def keeps(self) -> float:
        """Share of the distance from the ambient that is left after an hour without power, k."""
        return math.exp(-1.0 / self.time_constant_h) if self.time_constant_h > 0 else 0.0

    @property
    def sustained_kw(self) -> float:
        """Power that may be drawn for good."""
        return (self.limit_c - self.ambient_c) / self.k_per_kw

    def after(self, temperature_c: npt.ArrayLike, kwh: npt.ArrayLike) -> FloatArray:
        """Temperature [C] at the end of an hour that drew ``kwh`` (any shape)."""
        warm = np.asarray(temperature_c, dtype=np.float64) - self.ambient_c
        return np.asarray(self.ambient_c + self.keeps * warm + (1.0 - self.keeps) * self.k_per_kw * np.asarray(kwh))

    def allowed_kwh(self, temperature_c: npt.ArrayLike) -> FloatArray:
        """The most that an hour may draw from a temperature [C] (any shape); below 0 where the limit cannot be kept."""
        warm = np.asarray(temperature_c, dtype=np.float64) - self.ambient_c
        return np.asarray((self.limit_c - self.ambient_c - self.keeps * warm) / ((1.0 - self.keeps) * self.k_per_kw))

    def path(self, kwh: FloatArray) -> FloatArray:
        """Temperature [C] at the end of each hour (..., t) of energies (..., t); weeks begin at the limit, with nothing saved."""
        found = np.empty_like(kwh)
        temperature: FloatArray = np.full(kwh.shape[:-1], self.limit_c)
        for t in range(kwh.shape[-1]):
            temperature = self.after(temperature, kwh[..., t])
            found[..., t] = temperature
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**vars(self), "sustained_kw": self.sustained_kw}
