"""Named recipes: which equations, which factors, which defaults. ``act2`` and the other peers exactly, ``default`` our own.

A profile is data; :func:`device_embodied` is the one road from a design's numbers to its embodied carbon for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from carbon import embodied, factors, grid, yields
from carbon.arrays import Numeric, as_number, where
from carbon.errors import CarbonError, unknown
from carbon.factors import Factor, MemoryFactor
from carbon.grid import GridFactor


@dataclass(frozen=True, slots=True)
class Profile:
    """One recipe.

    Attributes:
        name, summary: what it is and whose figures it reproduces.
        nodes_from: the fab quantity a node must have.
        fab_grid: default fab grid code, None where the carbon per area is fixed by the source.
        grid_order: preference of grid sources for names without a source, None for the package default.
        abatement_pct: default gas abatement, None where not selectable.
        yield_model: ``constant`` or a model of :mod:`carbon.yields`; fab_yield: the constant.
        d0_quantity: column of the fab table for D0 (None for constant yield); alpha: clustering.
        wafer_mm: default wafer diameter. edge: ``none``; ``waste`` (unused wafer added, not divided by yield: ECO-CHIP);
            ``share`` (wafer area per real-valued gross die); ``floor`` (per whole gross die: 3D-Carbon).
        ic_package_kgco2e: whether ACT's 150 g an IC is added. memory: whether there is a memory model.
        memory_yield: the yield a published per-GB figure is divided by where its table says so.
        days_per_year: length of a year.
    """

    name: str
    summary: str
    nodes_from: str
    fab_grid: str | None
    grid_order: tuple[str, ...] | None
    abatement_pct: float | None
    yield_model: str
    fab_yield: float | None
    d0_quantity: str | None
    alpha: float
    wafer_mm: float
    edge: str
    ic_package: bool
    memory: bool
    memory_yield: float
    memory_type: str | None = None
    only_nodes: tuple[float, ...] | None = None
    days_per_year: float = 365.25


_PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="act2",
            summary="ACT v2 (facebookresearch/ACT@abc9fbb): constant yield 0.875, no edge loss, 150 g a packaged IC; "
            "22 nm from ACT v1, dropped in v2",
            nodes_from="epa_kwh_cm2",
            fab_grid="taiwan",
            grid_order=grid.ACT_ORDER,
            abatement_pct=97.0,
            yield_model="constant",
            fab_yield=0.875,
            d0_quantity=None,
            alpha=10.0,
            wafer_mm=300.0,
            edge="none",
            ic_package=True,
            memory=True,
            memory_yield=0.875,
        ),
        Profile(
            name="catransformers",
            summary="CATransformers carbon_wrapper (facebookresearch/CATransformers@ad8c859): ACT's die at 22 nm, 95 % "
            "abatement, Taiwan 2023, yield 0.875, LPDDR3 20 nm per GB, no packaging",
            nodes_from="epa_kwh_cm2",
            fab_grid="act2023:taiwan",
            grid_order=grid.ACT_ORDER,
            abatement_pct=95.0,
            yield_model="constant",
            fab_yield=0.875,
            d0_quantity=None,
            alpha=10.0,
            wafer_mm=300.0,
            edge="none",
            ic_package=False,
            memory=True,
            memory_yield=0.875,
            memory_type="lpddr3_20nm",
            only_nodes=(22.0,),
        ),
        Profile(
            name="ecochip",
            summary="ECO-CHIP (ASU-VDA-Lab): coal-fired fab fixed in its table, negative binomial yield, 450 mm wafer, "
            "unused wafer added without dividing by the yield; silicon only",
            nodes_from="cpa_ecochip_kgco2e_cm2",
            fab_grid=None,
            grid_order=None,
            abatement_pct=None,
            yield_model="negative_binomial",
            fab_yield=None,
            d0_quantity="d0_ecochip_per_cm2",
            alpha=10.0,
            wafer_mm=450.0,
            edge="waste",
            ic_package=False,
            memory=False,
            memory_yield=1.0,
        ),
    )
}


def names() -> list[str]:
    """Return the profile names."""
    return list(_PROFILES)


def get(name: str) -> Profile:
    """Return a profile; an unknown name raises CarbonError naming the nearest."""
    try:
        return _PROFILES[name]
    except KeyError:
        raise unknown("profile", name, _PROFILES) from None


@dataclass(frozen=True, slots=True)
class Embodied:
    """Embodied carbon of one design or of an array of designs.

    Attributes:
        parts: kgCO2e by part (die, memory, packaging, ...), each broadcastable to the designs.
        embodied_kgco2e: their sum.
        feasible: False where the die does not fit the reticle or the wafer (embodied is then infinite or unreliable).
        fab_yield: yield used. sources: every factor used, once.
    """

    parts: Mapping[str, Numeric]
    embodied_kgco2e: Numeric
    feasible: Numeric
    fab_yield: Numeric
    sources: tuple[Factor | GridFactor, ...] = field(default=())


def device_embodied(
    profile: str | Profile,
    *,
    area_mm2: Numeric,
    node_nm: Any,
    memory_type: str | None = None,
    memory_gb: Numeric = 0.0,
    n_ics: Numeric = 1.0,
    memory_ics: Numeric | None = None,
    fab_grid: str | GridFactor | None = None,
    ci_g_per_kwh: Numeric | None = None,
    abatement_pct: float | None = None,
    fab_yield: Numeric | None = None,
    d0_per_cm2: Numeric | None = None,
    alpha: Numeric | None = None,
    wafer_mm: Numeric | None = None,
) -> Embodied:
    """Return embodied carbon of a chip with its memory under a profile.

    Args:
        profile: name or record. area_mm2: die area, scalar or array. node_nm: node or array of nodes.
        memory_type, memory_gb: a name of ``factors.memories()`` and its capacity (0 GB needs no type).
        n_ics: packaged logic ICs a device; memory_ics: packaged memory ICs (1 where there is memory).
        fab_grid: code for :func:`carbon.grid.lookup` with role ``fab``, or ``ci_g_per_kwh`` numbers directly.
        abatement_pct, fab_yield, d0_per_cm2, alpha, wafer_mm: override the profile's defaults.

    Raises:
        CarbonError: unknown names (with the nearest), numbers out of range, or an option the profile does not have.
    """
    recipe = get(profile) if isinstance(profile, str) else profile
    area = as_number("area_mm2", area_mm2, low=0.0, open_low=True)
    _check_nodes(recipe, node_nm)
    used: list[Factor | GridFactor] = []
    cpa = _carbon_per_area(recipe, node_nm, fab_grid, ci_g_per_kwh, abatement_pct, used)
    good = _fab_yield(recipe, area, node_nm, fab_yield, d0_per_cm2, alpha, used)
    diameter = as_number("wafer_mm", recipe.wafer_mm if wafer_mm is None else wafer_mm, low=0.0, open_low=True)
    parts: dict[str, Numeric] = {}
    if recipe.edge == "none":
        parts["die"] = embodied.logic_die(area, cpa, good)
        feasible: Numeric = area > 0.0
    elif recipe.edge == "waste":
        parts["die"] = embodied.logic_die(area, cpa, good)
        parts["waste"] = ecochip_waste(area, cpa, diameter)
        feasible = yields.dies_per_wafer(area, diameter) > 0.0
    else:
        share = yields.wafer_share_mm2(area, diameter)
        parts["die"] = share / 100.0 * cpa / good
        feasible = (yields.dies_per_wafer(area, diameter) > 0.0) & (area <= yields.RETICLE_LIMIT_MM2)
    gb = as_number("memory_gb", memory_gb, low=0.0)
    has_memory = memory_type is not None or recipe.memory_type is not None
    if has_memory:
        if not recipe.memory:
            raise CarbonError(f"memory_type is {memory_type!r}, but profile {recipe.name!r} models silicon dies only")
        kind = factors.memory(memory_type or recipe.memory_type or "")
        parts["memory"] = memory_embodied(recipe, kind, gb)
        used.append(kind.per_gb)
    elif not _all_zero(gb):
        raise CarbonError("memory_type is missing, but memory_gb is above 0")
    if recipe.ic_package:
        logic = as_number("n_ics", n_ics, low=0.0)
        extra: Numeric = (1.0 if has_memory else 0.0) if memory_ics is None else as_number("memory_ics", memory_ics, low=0.0)
        if memory_ics is None and has_memory:
            extra = where(gb > 0.0, 1.0 + 0.0 * gb, 0.0 * gb)
        parts["packaging"] = embodied.ic_packaging(logic + extra)
        used.append(factors.item("act_ic_package"))
    total: Numeric = 0.0
    for part in parts.values():
        total = total + part
    return Embodied(parts, total, feasible, good, tuple(dict.fromkeys(used)))


def memory_embodied(recipe: Profile, kind: MemoryFactor, gb: Numeric, modules: Numeric = 1.0) -> Numeric:
    """Return kgCO2e of ``gb`` of a memory type under a profile; the fixed part counts once a module."""
    good = recipe.memory_yield if kind.divided_by_yield else 1.0
    fixed = kind.fixed_kgco2e * modules if kind.fixed_kgco2e else 0.0
    return embodied.capacity(gb, kind.per_gb.value, good, fixed)


def ecochip_waste(area_mm2: Numeric, cpa_kgco2e_cm2: Numeric, wafer_mm: Numeric = 450.0) -> Numeric:
    """Return ECO-CHIP's carbon of unused wafer per die: CPA * (Aw - floor(DPW) * A) / DPW, not divided by the yield.

    Infinite where no die fits.
    """
    dies = yields.dies_per_wafer(area_mm2, wafer_mm)
    fits = dies > 0.0
    safe = where(fits, dies, 1.0 + 0.0 * dies)
    waste = (yields.wafer_area_mm2(wafer_mm) - yields.floor_dies(safe) * area_mm2) / 100.0 * cpa_kgco2e_cm2 / safe
    return where(fits, waste, float("inf") + 0.0 * waste)


def _all_zero(value: Numeric) -> bool:
    return not bool((value != 0.0).any()) if hasattr(value, "any") else value == 0.0


def _check_nodes(recipe: Profile, node_nm: Any) -> None:
    if recipe.only_nodes is None:
        return
    for factor in factors.fab_factors(recipe.nodes_from, node_nm):
        node = float(factor.key.split(".")[1].removesuffix("nm"))
        if node not in recipe.only_nodes:
            known = ", ".join(f"{each:g}" for each in recipe.only_nodes)
            raise CarbonError(f"node_nm is {node:g}, but profile {recipe.name!r} knows {known} nm only")


def _carbon_per_area(
    recipe: Profile,
    node_nm: Any,
    fab_grid: str | GridFactor | None,
    ci_g_per_kwh: Numeric | None,
    abatement_pct: float | None,
    used: list[Factor | GridFactor],
) -> Numeric:
    if recipe.fab_grid is None:
        for name, value in (("fab_grid", fab_grid), ("ci_g_per_kwh", ci_g_per_kwh), ("abatement_pct", abatement_pct)):
            if value is not None:
                raise CarbonError(f"{name} is given, but profile {recipe.name!r} has its carbon per area fixed by node")
        used.extend(factors.fab_factors(recipe.nodes_from, node_nm))
        return factors.fab_values(recipe.nodes_from, node_nm)
    if ci_g_per_kwh is not None and fab_grid is not None:
        raise CarbonError("fab_grid and ci_g_per_kwh are both given, but only one of them can set the fab's electricity")
    if ci_g_per_kwh is None:
        place = grid.lookup(fab_grid if fab_grid is not None else recipe.fab_grid, role="fab", order=recipe.grid_order)
        used.append(place)
        intensity: Numeric = place.gco2e_per_kwh
    else:
        intensity = ci_g_per_kwh
    abatement = abatement_pct if abatement_pct is not None else recipe.abatement_pct
    assert abatement is not None
    if recipe.name == "act2" and abatement not in embodied.ABATEMENT_LEVELS:
        raise CarbonError(f"abatement_pct is {abatement:g}, but ACT has 95, 97 and 99 only")
    gases = ("95", "99") if abatement not in embodied.ABATEMENT_LEVELS else (f"{abatement:g}",)
    for quantity in ("epa_kwh_cm2", *(f"gpa_{level}_kgco2e_cm2" for level in gases), "mpa_kgco2e_cm2"):
        used.extend(factors.fab_factors(quantity, node_nm))
    return embodied.node_carbon_per_area(node_nm, intensity, abatement)


def _fab_yield(
    recipe: Profile,
    area: Numeric,
    node_nm: Any,
    fab_yield: Numeric | None,
    d0_per_cm2: Numeric | None,
    alpha: Numeric | None,
    used: list[Factor | GridFactor],
) -> Numeric:
    if fab_yield is not None:
        return as_number("fab_yield", fab_yield, low=0.0, high=1.0, open_low=True)
    if recipe.d0_quantity is None:
        for name, value in (("d0_per_cm2", d0_per_cm2), ("alpha", alpha)):
            if value is not None:
                raise CarbonError(f"{name} is given, but profile {recipe.name!r} has a constant yield")
        return recipe.fab_yield
    if d0_per_cm2 is None:
        d0_per_cm2 = factors.fab_values(recipe.d0_quantity, node_nm)
        used.extend(factors.fab_factors(recipe.d0_quantity, node_nm))
    return yields.negative_binomial(area, d0_per_cm2, recipe.alpha if alpha is None else alpha)
