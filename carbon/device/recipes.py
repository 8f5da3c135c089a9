"""The named recipes (profiles): which equations, which factors, which defaults."""

from __future__ import annotations

from dataclasses import dataclass

from carbon.errors import unknown
from carbon.factors import grid


@dataclass(frozen=True, slots=True)
class Profile:
    """One recipe.

    Attributes:
        name, summary: what it is and whose figures it reproduces.
        cpa: ``act`` (CI * EPA + GPA + MPA), ``3dcarbon`` (the same with its EPA) or ``ecochip`` (a table by node).
        fab_grid: default fab grid code, None where the carbon per area is fixed by the source.
        grid_order: preference of grid sources for names without a source, None for the package default.
        abatement_pct: default gas abatement; abatement_choices: the only ones allowed, None for 95 to 99.
        yield_model: ``constant`` or a model of :mod:`carbon.embodied.yields`. fab_yield: the constant.
        d0_quantity: column of the fab table for D0. alpha: clustering.
        wafer_mm: default wafer diameter. edge: ``none``; ``waste`` (unused wafer added, not divided by yield: ECO-CHIP);
            ``share`` (wafer area per real-valued gross die); ``floor`` (per whole gross die: 3D-Carbon).
        package: ``ic`` (ACT's 150 g an IC), ``own`` (:mod:`carbon.embodied.packaging`), ``fcbga`` (3D-Carbon's outer package), ``none``.
        memory: ``act`` (its table, per-GB figures divided by ``memory_yield``), ``own`` (:mod:`carbon.embodied.memory`) or ``none``.
        memory_type: default type. only_nodes: nodes the source knows. blocks: whether storage, system and design blocks,
            harvesting and other yield models may be asked for. reticle: whether dies above the limit are infeasible.
        days_per_year: length of a year.
    """

    name: str
    summary: str
    cpa: str
    fab_grid: str | None
    grid_order: tuple[str, ...] | None
    abatement_pct: float
    yield_model: str
    fab_yield: float
    d0_quantity: str
    wafer_mm: float
    edge: str
    package: str
    memory: str
    abatement_choices: tuple[float, ...] | None = None
    alpha: float = 10.0
    memory_yield: float = 1.0
    memory_type: str | None = None
    only_nodes: tuple[float, ...] | None = None
    blocks: bool = False
    reticle: bool = False
    days_per_year: float = 365.25


_PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            name="act2",
            summary="ACT v2 (facebookresearch/ACT@abc9fbb): constant yield 0.875, no edge loss, 150 g a packaged IC; "
            "22 nm from ACT v1, dropped in v2",
            cpa="act",
            fab_grid="taiwan",
            grid_order=grid.ACT_ORDER,
            abatement_pct=97.0,
            abatement_choices=(95.0, 97.0, 99.0),
            yield_model="constant",
            fab_yield=0.875,
            d0_quantity="d0_default_per_cm2",
            wafer_mm=300.0,
            edge="none",
            package="ic",
            memory="act",
            memory_yield=0.875,
        ),
        Profile(
            name="catransformers",
            summary="CATransformers carbon_wrapper (facebookresearch/CATransformers@ad8c859): ACT's die at 22 nm, 95 % "
            "abatement, Taiwan 2023, yield 0.875, LPDDR3 20 nm per GB, no packaging",
            cpa="act",
            fab_grid="act2023:taiwan",
            grid_order=grid.ACT_ORDER,
            abatement_pct=95.0,
            abatement_choices=(95.0,),
            yield_model="constant",
            fab_yield=0.875,
            d0_quantity="d0_default_per_cm2",
            wafer_mm=300.0,
            edge="none",
            package="none",
            memory="act",
            memory_yield=0.875,
            memory_type="lpddr3_20nm",
            only_nodes=(22.0,),
        ),
        Profile(
            name="ecochip",
            summary="ECO-CHIP (ASU-VDA-Lab@fe998d9): coal-fired fab fixed in its table, negative binomial yield, 450 mm wafer, "
            "unused wafer added without dividing by the yield; dies here, chiplet systems in carbon.device.ecochip",
            cpa="ecochip",
            fab_grid=None,
            grid_order=None,
            abatement_pct=95.0,
            yield_model="negative_binomial",
            fab_yield=1.0,
            d0_quantity="d0_ecochip_per_cm2",
            wafer_mm=450.0,
            edge="waste",
            package="none",
            memory="none",
        ),
        Profile(
            name="3dcarbon",
            summary="3D-Carbon (UMN-ZhaoLab@14e1a7f): 99 % abatement, negative binomial yield, whole dies of a 300 mm wafer, "
            "FCBGA package; 2.5D packages in carbon.embodied.threedcarbon",
            cpa="3dcarbon",
            fab_grid="taiwan",
            grid_order=grid.ACT_ORDER,
            abatement_pct=99.0,
            abatement_choices=(99.0,),
            yield_model="negative_binomial",
            fab_yield=1.0,
            d0_quantity="d0_3dcarbon_per_cm2",
            wafer_mm=300.0,
            edge="floor",
            package="fcbga",
            memory="none",
        ),
        Profile(
            name="default",
            summary="this package's own: ACT fab tables, negative binomial yield with harvesting, edge loss on 300 mm wafers, "
            "reticle limit, package by kind, memory by die density of its year, HBM calibrated on the H100 footprint",
            cpa="act",
            fab_grid="taiwan",
            grid_order=None,
            abatement_pct=97.0,
            yield_model="negative_binomial",
            fab_yield=1.0,
            d0_quantity="d0_default_per_cm2",
            wafer_mm=300.0,
            edge="share",
            package="own",
            memory="own",
            blocks=True,
            reticle=True,
        ),
    )
}


def names() -> list[str]:
    """Return the profile names."""
    return list(_PROFILES)


_ALIASES = {"3d-carbon": "3dcarbon", "threedcarbon": "3dcarbon", "eco-chip": "ecochip"}


def get(name: str) -> Profile:
    """Return a profile; an unknown name raises CarbonError naming the nearest."""
    try:
        return _PROFILES[_ALIASES.get(name.lower(), name.lower())]
    except KeyError:
        raise unknown("profile", name, _PROFILES) from None
