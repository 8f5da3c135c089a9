"""Memory and flash per GB from die density: kg per cm2 of memory die, times cm2 per GB of the generations on the market.

The density is that of the dies that could be in a product of a given year: the mean over the makers' generations which
went into volume production in the three years up to it, with the least and the most dense as the range. It is fixed by the
product's date alone.
"""

from __future__ import annotations

import dataclasses
from functools import cache

from carbon.arrays import Numeric
from carbon.errors import CarbonError, unknown
from carbon.factors.tables import Factor, item, table
from carbon.factors.values import Values

#: A generation is taken to be sold for this many years after its start.
MARKET_YEARS = 3
#: HBM generations all take the one calibrated figure.
HBM = ("hbm", "hbm2", "hbm2e", "hbm3", "hbm3e")


@cache
def _types() -> dict[str, dict[str, str]]:
    return {row["type"]: row for row in table("memory_types")}


def types() -> list[str]:
    """Return the memory types of the default profile."""
    return [*_types(), *HBM]


def default_year(name: str) -> int:
    """Return the year that is taken where a product gives none: a type's usual one (``nand``: flash). Not for HBM."""
    return int(_types()[name]["default_year"])


def newest_year(name: str) -> int | None:
    """Return the year of the newest known density of a type (``nand``: flash); None where no density is known by year (HBM)."""
    if name not in _types():
        return None
    return max(int(row["year"]) for row in table("memory_density") if row["kind"] == _types()[name]["density_kind"])


def on_modules(name: str) -> bool:
    """Return whether a type is sold on modules (DIMMs), each with carbon of its own."""
    return name in _types() and float(_types()[name]["fixed_kgco2e_per_module"]) > 0.0


@cache
def per_gb() -> dict[str, Factor]:
    """Return kgCO2e per GB of every memory type of the default profile (``memory_type``) and of flash, in its usual year.

    Range: least and most of die density and carbon per die area together.
    """
    die = item("memory_die_kgco2e_cm2")
    found = {}
    for name, row in _types().items():
        area = cm2_per_gb(row["density_kind"], default_year(name))
        ends = [a * d for a, d in ((area.low, die.low), (area.high, die.high)) if a is not None and d is not None]
        extra = f"; each module {item('dimm_fixed_kgco2e').value:g} kg more" if on_modules(name) else ""
        what = "storage_gb" if name == "nand" else f'memory_type = "{name}"'
        found[name] = Factor(
            key=f"memory_type.{name}",
            value=area.value * die.value,
            unit="kgCO2e/GB",
            low=ends[0] if len(ends) == 2 else None,
            high=ends[1] if len(ends) == 2 else None,
            source=f"{area.key} ({area.source}) x {die.key} ({die.source})",
            vintage=area.vintage,
            licence=area.licence,
            note=f"{what} of {default_year(name)} unless a year is given{extra}",
        )
    hbm = item("hbm_kgco2e_per_gb")
    for name in HBM:
        note = f'memory_type = "{name}": every HBM takes {hbm.key}'
        found[name] = dataclasses.replace(hbm, key=f"memory_type.{name}", note=note)
    return found


@cache
def cm2_per_gb(kind: str, year: int) -> Factor:
    """Return the die area per GB of the generations on the market in ``year``, with range.

    Args:
        kind: ``dram`` or ``nand``.

    Raises:
        CarbonError: a year before the first generation of the table. After the last, the newest known generations stand,
            and the factor's note says so.
    """
    rows = [row for row in table("memory_density") if row["kind"] == kind]
    if not rows:
        raise unknown("density kind", kind, sorted({row["kind"] for row in table("memory_density")}))
    years = [int(row["year"]) for row in rows]
    if year < min(years):
        raise CarbonError(f"memory year is {year}, but the {kind} densities begin in {min(years)}")
    newest = max(years)
    last = min(year, newest)
    on_market = [row for row in rows if last - MARKET_YEARS <= int(row["year"]) <= last]
    areas = [1.0 / float(row["gb_per_cm2"]) for row in on_market]
    names = ", ".join(f"{row['maker']} {row['generation']}" for row in on_market)
    note = f"mean of {names}; range: least and most dense"
    if year > newest:
        note += f"; newest density known is of {newest}"
    return Factor(
        key=f"memory.{kind}.{year}.cm2_per_gb",
        value=sum(areas) / len(areas),
        unit="cm2/GB",
        low=min(areas),
        high=max(areas),
        source="; ".join(dict.fromkeys(row["source"] for row in on_market)),
        vintage=f"{last - MARKET_YEARS}-{last}",
        licence="facts only",
        note=note,
    )


def embodied(values: Values, name: str, gb: Numeric, *, modules: Numeric = 0.0, year: int | None = None) -> Numeric:
    """Return kgCO2e of ``gb`` of memory of the default profile.

    Args:
        values: factor access. name: one of :func:`types`. gb: capacity, GB.
        modules: DIMMs, each with a fixed board (boaviztapi 5.22 kg); soldered types have none.
        year: of the product; None takes the type's usual year.

    Raises:
        CarbonError: unknown type; modules given for a type that is soldered or stacked.
    """
    key = str(name).lower()
    if key in HBM:
        if not _zero(modules):
            raise CarbonError(f"memory_modules is given, but {name} is stacked in the package and has no modules")
        return gb * values.item("hbm_kgco2e_per_gb")
    try:
        row = _types()[key]
    except KeyError:
        raise unknown("memory_type", name, types()) from None
    area = values.use(cm2_per_gb(row["density_kind"], int(row["default_year"]) if year is None else year))
    total = gb * (values.item("memory_die_kgco2e_cm2") * area)
    if _zero(modules):
        return total
    if float(row["fixed_kgco2e_per_module"]) == 0.0:
        raise CarbonError(f"memory_modules is given, but {name} is not sold on modules")
    return total + modules * values.item("dimm_fixed_kgco2e")


def flash(values: Values, gb: Numeric, *, drives: Numeric = 0.0, year: int | None = None) -> Numeric:
    """Return kgCO2e of flash storage: dies by density of the year, and a fixed part per drive (0 for soldered flash)."""
    area = values.use(cm2_per_gb("nand", int(_types()["nand"]["default_year"]) if year is None else year))
    total = gb * (values.item("memory_die_kgco2e_cm2") * area)
    return total if _zero(drives) else total + drives * values.item("ssd_fixed_kgco2e")


def _zero(value: Numeric) -> bool:
    return not bool((value != 0.0).any()) if hasattr(value, "any") else value == 0.0
