"""Decision metrics: what to compare designs by, and where one overtakes another. Every figure names its basis.

C is carbon, D delay, E energy. CDP, CEP, C2EP and CE2P take embodied carbon, as ACT defines them (Gupta et al., ISCA 2022);
tCDP takes the total (CORDOBA, HPCA 2025). SCI is ISO/IEC 21031:2024. CCI is grams per utilised EFLOP (arXiv 2502.01671):
embodied plus operational carbon over operations done, never over peak. Break-even points are closed forms; never is infinity,
not NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from carbon.arrays import Numeric, as_number
from carbon.errors import CarbonError, unknown

HOURS_PER_YEAR = 8766.0
#: SCI's worked example counts 365 days a year.
SCI_HOURS_PER_YEAR = 8760.0


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure: its value, its unit, and on what basis it stands."""

    name: str
    value: Numeric
    unit: str
    basis: str


def _nonnegative(**quantities: Numeric) -> None:
    for name, value in quantities.items():
        as_number(name, value, low=0.0)


def total(embodied_kgco2e: Numeric, operational_kgco2e: Numeric, *, basis: str) -> Metric:
    """Return embodied + operational carbon; ``basis`` says of what (chip, card, server; which lifetime and grid)."""
    _nonnegative(embodied_kgco2e=embodied_kgco2e, operational_kgco2e=operational_kgco2e)
    return Metric("total", embodied_kgco2e + operational_kgco2e, "kgCO2e", basis)


def embodied_share(total_embodied_kg: Numeric, *, hours: Numeric, lifetime_years: Numeric, resource_share: Numeric = 1.0,
                   hours_per_year: float = SCI_HOURS_PER_YEAR) -> Numeric:  # fmt: skip
    """Return M of SCI, kg: TE * (TiR / EL) * (RR / ToR).

    1000 kg over 4 years, 1 hour: 28.5 g (SCI's worked example, 365-day years).
    """
    _nonnegative(total_embodied_kg=total_embodied_kg, hours=hours, resource_share=resource_share)
    as_number("lifetime_years", lifetime_years, low=0.0, open_low=True)
    return total_embodied_kg * hours / (lifetime_years * hours_per_year) * resource_share


def sci(energy_kwh: Numeric, gco2e_per_kwh: Numeric, embodied_kg: Numeric, units: Numeric, *, unit: str, grid_kind: str) -> Metric:
    """Return SCI = (E * I + M) / R in gCO2e per functional unit.

    Args:
        energy_kwh: of reserved hardware, PUE included. gco2e_per_kwh: location-based, marginal or average (say which in
            ``grid_kind``; no market instruments). embodied_kg: M, from :func:`embodied_share`. units: R. unit: what R counts.
    """
    _nonnegative(energy_kwh=energy_kwh, gco2e_per_kwh=gco2e_per_kwh, embodied_kg=embodied_kg)
    count = as_number("units", units, low=0.0, open_low=True)
    grams = energy_kwh * gco2e_per_kwh + embodied_kg * 1000.0
    return Metric("SCI", grams / count, f"gCO2e/{unit}", f"ISO/IEC 21031:2024, location-based, {grid_kind}")


def products(embodied_kgco2e: Numeric, operational_kgco2e: Numeric, delay_s: Numeric, energy_j: Numeric) -> list[Metric]:
    """Return CDP, CEP, C2EP, CE2P (embodied carbon) and tCDP (total carbon); delay and energy of one task."""
    _nonnegative(embodied_kgco2e=embodied_kgco2e, operational_kgco2e=operational_kgco2e, delay_s=delay_s, energy_j=energy_j)
    c, d, e = embodied_kgco2e, delay_s, energy_j
    basis = "embodied carbon; delay and energy of one task"
    return [
        Metric("CDP", c * d, "kgCO2e s", basis),
        Metric("CEP", c * e, "kgCO2e J", basis),
        Metric("C2EP", c * c * e, "kgCO2e2 J", basis),
        Metric("CE2P", c * e * e, "kgCO2e J2", basis),
        Metric("tCDP", (c + operational_kgco2e) * d, "kgCO2e s", "total carbon over the lifetime; delay of one task"),
    ]


def cci(embodied_kgco2e: Numeric, operational_kgco2e: Numeric, flops: Numeric, *, basis: str) -> Metric:
    """Return compute carbon intensity in gCO2e/EFLOP.

    Args:
        flops: floating-point operations over the lifetime.
        basis: ``achieved`` (utilised operations, the definition) or ``peak`` (what the datasheet allows: up to 100 times
            more, never comparable with achieved).
    """
    if basis not in ("achieved", "peak"):
        raise unknown("basis", basis, ("achieved", "peak"))
    _nonnegative(embodied_kgco2e=embodied_kgco2e, operational_kgco2e=operational_kgco2e)
    done = as_number("flops", flops, low=0.0, open_low=True)
    value = (embodied_kgco2e + operational_kgco2e) * 1000.0 / (done / 1.0e18)
    return Metric("CCI", value, "gCO2e/EFLOP", f"embodied + operational over the lifetime, {basis} operations")


def payback_years(extra_embodied_kg: float, saved_w: float, gco2e_per_kwh: float, pue: float = 1.0) -> float:
    """Return the years after which lower power has paid for higher embodied carbon: (E2 - E1) / (CI * PUE * (P1 - P2)).

    Args:
        extra_embodied_kg: E2 - E1, may be negative. saved_w: mean P1 - P2, may be negative.

    Returns:
        0 where design 2 is ahead from the first day and stays so, infinity where it never is. Where it starts ahead and falls
        behind (less embodied, more power) the years until it does, as a negative number.
    """
    for name, value in (("extra_embodied_kg", extra_embodied_kg), ("saved_w", saved_w)):
        as_number(name, value)
    yearly = saved_w / 1000.0 * HOURS_PER_YEAR * float(as_number("pue", pue, low=1.0))
    yearly *= float(as_number("gco2e_per_kwh", gco2e_per_kwh, low=0.0)) / 1000.0
    if extra_embodied_kg <= 0.0:
        if yearly >= 0.0:
            return 0.0
        return extra_embodied_kg / -yearly
    return extra_embodied_kg / yearly if yearly > 0.0 else math.inf


def break_even_intensity(embodied_1_kg: float, energy_1_kwh: float, embodied_2_kg: float, energy_2_kwh: float) -> float:
    """Return the grid intensity (g/kWh) at which two designs tie: CI* = (E2 - E1) / (energy1 - energy2).

    Energies are those of the lifetime, PUE included. Infinity where no non-negative intensity ties them (one is better
    everywhere), and where they are equal everywhere 0.
    """
    for name, value in (("embodied_1_kg", embodied_1_kg), ("embodied_2_kg", embodied_2_kg),
                        ("energy_1_kwh", energy_1_kwh), ("energy_2_kwh", energy_2_kwh)):  # fmt: skip
        as_number(name, value, low=0.0)
    extra, saved = embodied_2_kg - embodied_1_kg, energy_1_kwh - energy_2_kwh
    if extra == 0.0:
        return 0.0
    if saved == 0.0 or extra / saved < 0.0:
        return math.inf
    return 1000.0 * extra / saved


@dataclass(frozen=True, slots=True)
class Running:
    """A design in use: embodied carbon (kg), power while busy and while idle (W)."""

    embodied_kg: float
    busy_w: float
    idle_w: float


def break_even_utilisation(one: Running, two: Running, *, lifetime_years: float, gco2e_per_kwh: float, pue: float = 1.0) -> float:
    """Return the utilisation at which two designs tie.

    total(u) = E + c (I + u (B - I)) with c = CI * PUE * lifetime, hence
    u* = (E2 - E1 + c (I2 - I1)) / (c ((B1 - I1) - (B2 - I2))).

    Returns:
        u* where it lies in [0, 1]; infinity where one design is better at every utilisation.
    """
    for design in (one, two):
        for name in ("embodied_kg", "busy_w", "idle_w"):
            as_number(name, getattr(design, name), low=0.0)
    hours = float(as_number("lifetime_years", lifetime_years, low=0.0, open_low=True)) * HOURS_PER_YEAR
    intensity = float(as_number("gco2e_per_kwh", gco2e_per_kwh, low=0.0)) / 1000.0
    kg_per_w = intensity * float(as_number("pue", pue, low=1.0)) * hours / 1000.0
    slope = kg_per_w * ((one.busy_w - one.idle_w) - (two.busy_w - two.idle_w))
    gap = two.embodied_kg - one.embodied_kg + kg_per_w * (two.idle_w - one.idle_w)
    if slope == 0.0:
        return 0.0 if gap == 0.0 else math.inf
    utilisation = gap / slope
    return utilisation if 0.0 <= utilisation <= 1.0 else math.inf


def require_basis(*metrics: Metric) -> None:
    """Raise CarbonError unless the metrics may stand on one axis: same name, unit and basis."""
    first = metrics[0]
    for other in metrics[1:]:
        if (other.name, other.unit, other.basis) != (first.name, first.unit, first.basis):
            raise CarbonError(
                f"{first.name} ({first.unit}; {first.basis}) and {other.name} ({other.unit}; {other.basis}) "
                "do not stand on one basis and cannot be compared"
            )
