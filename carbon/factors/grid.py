"""Carbon intensity of electricity by place: typed, dated, sourced, and refused where kinds would be mixed.

A code names a place (``TWN``, ``Taiwan``, ``US-CA``, ``california``, ``gcp:us-west1``) and gets that place's default source, or
names the source too (``ecologits:TWN``, ``act2022:taiwan``, ``egrid:USA``). Sources differ by up to 2.2 times for one place,
average is not marginal and combustion is not life-cycle, so each factor carries its :class:`GridKind`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from carbon.arrays import as_number
from carbon.errors import CarbonError, nearest, unknown
from carbon.factors.tables import table

# A carbon intensity as a number, and where it is from: "262.67", "262.67 (mean of grid.csv)".
_NUMBER = re.compile(r"([+-]?(?:\d++\.?\d*+|\.\d++)(?:[eE][+-]?\d++)?)(?:\s*\((.+)\))?")
#: Which source answers when a code names none, by preference. ACT's own places come last: they are for its profiles.
DEFAULT_ORDER = ("owid", "egrid", "gcp", "nordic", "cnprov", "ecologits", "act2023", "ipcc", "act2022")
#: For fabs the ACT 2022 places come first, because the ACT fab tables were published and are used with them
#: (Taiwan 583 g/kWh); its "world" (301) is excepted: it contradicts every other source.
FAB_ORDER = ("act2022", *[source for source in DEFAULT_ORDER if source != "act2022"])
#: What ACT v2 itself would answer: its 2022 places, then its energy sources.
ACT_ORDER = ("act2022", "ipcc")


@dataclass(frozen=True, slots=True)
class GridKind:
    """What a carbon intensity counts.

    Attributes:
        signal: ``average`` (all generation) or ``marginal`` (the plant that answers one more kWh).
        boundary: ``lifecycle`` (fuel chain and plants included), ``combustion`` (stack only) or ``unstated``.
    """

    signal: str
    boundary: str

    def __str__(self) -> str:
        return f"{self.signal}, {self.boundary}"


@dataclass(frozen=True, slots=True)
class GridFactor:
    """Carbon intensity of one place from one source.

    Attributes:
        code: canonical ``source:place`` code.
        name: plain name.
        gco2e_per_kwh: intensity.
        kind: what it counts.
        year: vintage, None where the source states none.
        source, licence: provenance.
        level: country, us_state, cloud_region, ...
        status: ``ok`` or ``suspect`` (usable, the note says why it is doubted).
        note: flaws known.
    """

    code: str
    name: str
    gco2e_per_kwh: float
    kind: GridKind
    year: int | None
    source: str
    licence: str
    level: str = "custom"
    status: str = "ok"
    note: str = ""


@cache
def _rows() -> dict[str, dict[str, GridFactor]]:
    """Usable factors as source id -> place code -> factor."""
    found: dict[str, dict[str, GridFactor]] = {}
    for row in (*table("grid"), *table("grid_ecologits")):
        if row["status"] == "refused":
            continue
        factor = GridFactor(
            code=f"{row['source_id']}:{row['code']}",
            name=row["name"],
            gco2e_per_kwh=float(row["gco2e_per_kwh"]),
            kind=GridKind(row["signal"], row["boundary"]),
            year=int(row["year"]) if row["year"] else None,
            source=row["source"],
            licence=row["licence"],
            level=row["level"],
            status=row["status"],
            note=row["note"],
        )
        found.setdefault(row["source_id"], {})[row["code"]] = factor
    return found


@cache
def _refused() -> dict[str, str]:
    """Place codes (and names) whose figures are unusable, with the reason."""
    found: dict[str, str] = {}
    for row in (*table("grid"), *table("grid_ecologits")):
        if row["status"] == "refused":
            for spelling in (row["code"], row["name"], f"{row['source_id']}:{row['code']}"):
                found.setdefault(spelling.lower(), row["note"])
    return found


@cache
def _places() -> dict[str, tuple[str, ...]]:
    """Spelling (lower case) -> place codes it can mean."""
    found: dict[str, list[str]] = {}
    for source, places in _rows().items():
        if source.startswith("act"):  # ACT spells countries by name: they are resolved by source, not by place
            continue
        for code, factor in places.items():
            # data centres and bidding zones are called after towns and countries: their codes only
            named = factor.level not in ("cloud_region", "bidding_zone")
            for spelling in {code.lower(), factor.name.lower()} if named else {code.lower()}:
                if code not in found.setdefault(spelling, []):
                    found[spelling].append(code)
    for row in table("grid_aliases"):
        codes = found.setdefault(row["alias"].lower(), [])
        if row["code"] not in codes:
            codes.append(row["code"])
    return {spelling: tuple(codes) for spelling, codes in found.items()}


@cache
def _act_names() -> dict[str, str]:
    """Place code -> ACT's name of it, without its "world"."""
    found = {}
    for name in _rows()["act2022"]:
        for code in _places().get(name, ()):
            if name != "world":
                found[code] = name
    return found


def _foreign(code: str) -> GridFactor | None:
    """An entry point of an installed package in the group ``dse.grids``, or None."""
    from importlib.metadata import entry_points  # 20 ms, for a place that no table knows

    return next((point.load() for point in entry_points(group="dse.grids", name=code)), None)


def sources() -> list[str]:
    """Return the source ids that ``source:code`` accepts."""
    return sorted(_rows())


def everything() -> list[GridFactor]:
    """Return every usable factor of every source, by source and code."""
    return [factor for source in sources() for _, factor in sorted(_rows()[source].items())]


def lookup(code: str | GridFactor, *, role: str = "use", order: Sequence[str] | None = None) -> GridFactor:
    """Return the carbon intensity for a place.

    Args:
        code: ISO code of a country (``FRA``, ``FR``; ``DE`` is Delaware's too, so ambiguous), plain English country name, US state
            (``US-CA``, ``TX`` or ``california``), cloud region (``gcp:us-west1``, ``aws:us-east-1``), energy source (``coal``),
            ``source:place`` for a source of your choice, or a number [gCO2e/kWh], with its source in brackets where you say it:
            ``262.67 (my supplier, 2025)``. A :class:`GridFactor` is passed through.
        role: ``use`` or ``fab``. For ``fab`` the places of ACT 2022 answer first (Taiwan 583 g/kWh, which belongs to the
            ACT fab tables); fab and use are different quantities and may come from different sources.
        order: preference of source ids instead of the role's, for example :data:`ACT_ORDER`.

    Raises:
        CarbonError: unknown or ambiguous code (names the nearest or the candidates), or a place without a usable figure.
    """
    if isinstance(code, GridFactor):
        return code
    if role not in ("use", "fab"):
        raise unknown("role", role, ("use", "fab"))
    text = code.strip()
    if given := _NUMBER.fullmatch(text):
        return custom(float(given[1]), signal="average", boundary="unstated", source=given[2] or "given as a number", name=text)
    rows = _rows()
    wanted = text.lower()
    if wanted in _refused():
        raise CarbonError(f"region {code!r} has no usable carbon intensity: {_refused()[wanted]}")
    source, _, place = text.partition(":")
    if place and source.lower() in rows:
        return _from_source(source.lower(), place)
    preference = tuple(order) if order is not None else FAB_ORDER if role == "fab" else DEFAULT_ORDER
    if order is None and wanted == "world":
        preference = DEFAULT_ORDER
    if preference[0] == "act2022" and wanted in rows["act2022"]:
        return rows["act2022"][wanted]
    candidates = _places().get(wanted, ())
    if len(candidates) > 1:
        named = (f"{place} ({next(rows[s][place].name for s in preference if place in rows[s])})" for place in candidates)
        raise CarbonError(f"region {code!r} is ambiguous: give one of {', '.join(named)}")
    if preference[0] == "act2022" and candidates and candidates[0] in _act_names():
        return rows["act2022"][_act_names()[candidates[0]]]  # TWN and Taiwan are one place, so one figure
    for option in preference:
        for candidate in (*candidates, wanted):
            if candidate in rows[option]:
                return rows[option][candidate]
    if (foreign := _foreign(text)) is not None:
        return foreign
    raise _unknown_region(code, preference)


def same_place(place: GridFactor) -> list[GridFactor]:
    """Return the factors of other sources for the same place and of the same kind (empty for your own factors)."""
    _, _, code = place.code.partition(":")
    rows = _rows()
    return [
        places[code]
        for source, places in rows.items()
        if code in places and places[code].kind == place.kind and places[code].code != place.code
    ]


def _from_source(source: str, place: str) -> GridFactor:
    places = _rows()[source]
    wanted = place.strip().lower()
    for code, factor in places.items():
        if wanted in (code.lower(), factor.name.lower()):
            return factor
    for code in _places().get(wanted, ()):
        if code in places:
            return places[code]
    raise unknown("region", f"{source}:{place}", [f"{source}:{code}" for code in places])


def _unknown_region(code: str, preference: Iterable[str]) -> CarbonError:
    rows = _rows()
    spellings: dict[str, str] = {}
    for source in preference:
        for place, factor in rows[source].items():
            shown = f"{source}:{place}" if factor.level == "cloud_region" else place
            spellings.setdefault(shown.lower(), shown)
            # A name is answered with a name: whoever typed "tawan" meant a country, not a code.
            spellings.setdefault(factor.name.lower(), f"{factor.name.lower()} ({shown})")
    for row in table("grid_aliases"):
        spellings.setdefault(row["alias"].lower(), row["alias"])
    hints = list(dict.fromkeys(spellings[hit] for hit in nearest(code, spellings)))
    return CarbonError(f"region {code!r} is unknown; nearest known: {', '.join(hints)} (`dse carbon grids` lists all)")


def word_of(factor: GridFactor) -> str:
    """A word that `lookup` answers with a factor's intensity, in this process and in any other: its code where that is known here by the
    package's own tables, else the number with its source."""
    source, _, place = factor.code.partition(":")
    if _rows().get(source, {}).get(place) == factor:
        return factor.code
    return f"{factor.gco2e_per_kwh!r} ({factor.name}: {factor.source})"


MOST_GCO2E_PER_KWH = 1e5
"""Of a factor of one's own: a hundred times what burning lignite emits, so that what lies above is another unit or a slip."""


def custom(
    gco2e_per_kwh: float,
    *,
    signal: str,
    boundary: str,
    source: str,
    name: str = "custom",
    year: int | None = None,
    licence: str = "yours",
) -> GridFactor:
    """Return a factor of your own; its kind and source must be stated, because that is what makes it comparable.

    Raises:
        CarbonError: unknown signal or boundary, a negative or non-finite intensity, an empty source.
    """
    if signal not in ("average", "marginal"):
        raise unknown("signal", signal, ("average", "marginal"))
    if boundary not in ("lifecycle", "combustion", "unstated"):
        raise unknown("boundary", boundary, ("lifecycle", "combustion", "unstated"))
    if not source.strip():
        raise CarbonError("source of a custom grid factor is empty, but every factor needs one")
    value = as_number("gco2e_per_kwh", gco2e_per_kwh, low=0.0, high=MOST_GCO2E_PER_KWH)
    return GridFactor(f"custom:{name}", name, value, GridKind(signal, boundary), year, source, licence)


def one_kind(factors: Iterable[GridFactor], quantity: str) -> GridKind:
    """Return the common kind of the factors that make up ``quantity``.

    Raises:
        CarbonError: they differ (average with marginal, life-cycle with combustion, stated with unstated): such a sum or
            comparison has no meaning. Fab and use are separate quantities, checked separately.
    """
    listed = list(factors)
    if not listed:
        raise CarbonError(f"{quantity} has no grid factor, but at least one is needed")
    first = listed[0]
    for other in listed[1:]:
        if other.kind != first.kind:
            raise CarbonError(
                f"{quantity} mixes {first.code} ({first.kind}) with {other.code} ({other.kind}), but one quantity needs one kind"
            )
    return first.kind


def mix(shares: Sequence[tuple[GridFactor, float]], quantity: str = "operational electricity") -> GridFactor:
    """Return the share-weighted intensity of several places of one kind (shares are normalised).

    Raises:
        CarbonError: kinds differ, a share is negative, or all are zero.
    """
    kind = one_kind((factor for factor, _ in shares), quantity)
    total = 0.0
    for factor, share in shares:
        if not (share >= 0.0) or share == float("inf"):
            raise CarbonError(f"share of {factor.code} is {share:g}, but shares are finite and not negative")
        total += share
    if total <= 0.0:
        raise CarbonError(f"shares of {quantity} sum to {total:g}, but they must sum to more than 0")
    value = sum(factor.gco2e_per_kwh * share for factor, share in shares) / total
    years = {factor.year for factor, _ in shares}
    return GridFactor(
        code="mix:" + "+".join(factor.code for factor, _ in shares),
        name="mix",
        gco2e_per_kwh=value,
        kind=kind,
        year=years.pop() if len(years) == 1 else None,
        source="; ".join(dict.fromkeys(factor.source for factor, _ in shares)),
        licence="; ".join(dict.fromkeys(factor.licence for factor, _ in shares)),
        level="mix",
    )
