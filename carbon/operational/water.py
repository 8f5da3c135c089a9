"""Water of operation, a quantity beside carbon: the data centre's own, and that of its electricity."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from statistics import median

from carbon.arrays import Numeric, as_number
from carbon.errors import CarbonError, unknown
from carbon.factors import grid
from carbon.factors.tables import Factor, table


def operational_litres(it_kwh: Numeric, *, pue: Numeric = 1.0, wue_l_per_kwh: Numeric, mix_l_per_kwh: Numeric) -> Numeric:
    """Return litres: E_IT * (WUE + PUE * water of the electricity) (ecologits).

    Args:
        it_kwh: energy of the IT equipment. wue_l_per_kwh: of the data centre, per IT energy. mix_l_per_kwh: of the grid.
    """
    energy = as_number("it_kwh", it_kwh, low=0.0)
    own = as_number("wue_l_per_kwh", wue_l_per_kwh, low=0.0)
    return energy * (own + as_number("pue", pue, low=1.0) * as_number("mix_l_per_kwh", mix_l_per_kwh, low=0.0))


@cache
def _sites() -> dict[str, dict[str, str]]:
    """Newest row of every provider:region."""
    found: dict[str, dict[str, str]] = {}
    for row in table("pue"):
        key = f"{row['provider']}:{row['region']}"
        if key not in found or int(row["year"]) > int(found[key]["year"]):
            found[key] = row
    return found


def site(code: str) -> dict[str, str | float | None]:
    """Return PUE and WUE of a cloud region (``aws:us-east-1``, ``gcp:...``, ``azure:...``) or fleet (``google-fleet:all``).

    Returns:
        pue, wue_l_per_kwh (None where not disclosed), year, source, licence, status (``ok``, ``second-hand``, ``unverified``).

    Raises:
        CarbonError: unknown code, names the nearest.
    """
    row = _sites().get(code.strip().lower())
    if row is None:
        raise unknown("site", code, _sites())
    wue = float(row["wue_l_per_kwh"]) if row["wue_l_per_kwh"] else None
    return {
        "pue": float(row["pue"]),
        "wue_l_per_kwh": wue,
        "year": float(row["year"]),
        "source": row["source"],
        "licence": row["licence"],
        "status": row["status"],
    }


def sites() -> list[str]:
    """Return the known site codes."""
    return sorted(_sites())


def mix_litres_per_kwh(zone: str) -> float:
    """Return the water of a country's electricity, l/kWh (ecologits 0.11.3; WOR and a country as a grid names it: FRA, FR, france).

    Raises:
        CarbonError: an unknown place, or one without a figure.
    """
    return _mix()[_zone(zone)]


@cache
def _mix() -> dict[str, float]:
    return {row["zone"]: float(row["l_per_kwh"]) for row in table("water_mix")}


def _zone(zone: str) -> str:
    """The code of the country that a word means, of those with a figure."""
    place = zone.strip().upper()
    if place not in _mix():
        with suppress(CarbonError):
            place = grid.lookup(zone).code.partition(":")[2]
    if place not in _mix():
        raise CarbonError(f"zone {zone!r} has no water figure (WOR is the world's); known: {', '.join(_mix())}")
    return place


def _zone_or_world(zone: str) -> tuple[str, tuple[str, ...]]:
    """The same; of a place that a grid knows and no water figure does, the world's, and what is assumed by it."""
    try:
        return _zone(zone), ()
    except CarbonError:
        code = grid.lookup(zone).code
        if code.startswith("custom:"):  # a number is no place
            raise
        place = code.partition(":")[2]
    return "WOR", (f"no water figure for {place}; the world's stands for it",)


#: Studies of one country differ about so much, by what they count of reservoirs: the range of a country's figure is assumed.
MIX_LOW, MIX_HIGH = 0.5, 2.0


@cache
def water_factors() -> dict[str, Factor]:
    """Every figure of water with its range, source, vintage and licence: ``water.electricity.ZONE``, ``water.site.PROVIDER:REGION``."""
    found = {
        f"water.electricity.{row['zone']}": Factor(
            f"water.electricity.{row['zone']}", float(row["l_per_kwh"]), "l/kWh", MIX_LOW * float(row["l_per_kwh"]),
            MIX_HIGH * float(row["l_per_kwh"]), row["source"], row["vintage"], row["licence"], "range: assumed x0.5 to x2",
        )
        for row in table("water_mix")
    }  # fmt: skip
    for code, row in _sites().items():
        if row["wue_l_per_kwh"]:
            key, note = f"water.site.{code}", "a data centre's own water a kWh of its machines"
            note += "" if row["status"] == "ok" else f"; {row['status']}"
            found[key] = Factor(key, float(row["wue_l_per_kwh"]), "l/kWh", None, None, row["source"], row["year"], row["licence"], note)
    return found


@dataclass(frozen=True, slots=True)
class Water:
    """Litres of operation with their range, and what they were computed from.

    ``sources``: the factors that were looked up; ``assumed``: what stands for a figure that is not known, in sentences.
    """

    litres: float
    low: float
    high: float
    wue_l_per_kwh: tuple[float, float, float]
    mix_l_per_kwh: tuple[float, float, float]
    basis: str
    sources: tuple[Factor, ...]
    assumed: tuple[str, ...] = ()


def with_range(
    it_kwh: float, *, pue: float = 1.0, zone: str = "WOR", site_code: str | None = None, wue_l_per_kwh: float | None = None
) -> Water:
    """Water of ``it_kwh`` at a place, with the range of what is not known of it.

    The data centre's own water is ``wue_l_per_kwh`` or that of ``site_code``; where neither says it, the median of the sites that disclose
    theirs, from the least to the most of them. The electricity's is the zone's figure, halved to doubled (assumed: studies of one country
    differ about so much, by what they count of reservoirs). Of a place without a figure of its own the world's is taken, and said.

    Raises CarbonError for an unknown zone or site and for numbers out of range.
    """
    zone, assumed = _zone_or_world(zone)
    middle = _mix()[zone]
    sources = [water_factors()[f"water.electricity.{zone}"]]
    told = f"water of {'the world' if zone == 'WOR' else zone}'s electricity (ecologits 0.11.3, {sources[0].vintage})"
    told += ", x0.5 to x2 assumed"
    known = wue_l_per_kwh
    if site_code is not None:
        found = site(site_code)["wue_l_per_kwh"]
        if known is None and found is not None:
            known = float(found)
            sources.append(water_factors()[f"water.site.{site_code.strip().lower()}"])
    if known is not None:
        wue = (known, known, known)
        told += f"; the data centre's own {known:g} l/kWh" + (f" ({site_code}, {sources[1].vintage})" if len(sources) > 1 else " (given)")
    else:
        rows = [row for row in _sites().values() if row["wue_l_per_kwh"]]
        disclosed = sorted(float(row["wue_l_per_kwh"]) for row in rows)
        years = sorted({row["year"] for row in rows})
        wue = (disclosed[0], median(disclosed), disclosed[-1])
        told += "" if site_code is None else f"; {site_code} does not disclose its own water"
        told += f"; the data centre's own {wue[1]:g} l/kWh, the median of {len(disclosed)} sites ({wue[0]:g} to {wue[2]:g}, "
        told += f"{years[0]} to {years[-1]})" if len(years) > 1 else f"{years[0]})"
    mix = (MIX_LOW * middle, middle, MIX_HIGH * middle)
    low, value, high = (
        float(operational_litres(it_kwh, pue=pue, wue_l_per_kwh=own, mix_l_per_kwh=grid)) for own, grid in zip(wue, mix, strict=True)
    )
    return Water(value, low, high, wue, mix, told + "; water of making the hardware is not counted", tuple(sources), assumed)
