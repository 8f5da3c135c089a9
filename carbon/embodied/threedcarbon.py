"""Dies and 2.5D packages as 3D-Carbon computes them (UMN-ZhaoLab/3D-Carbon@14e1a7f; no licence: figures and formulas only).

Die: (EPA CI + GPA99 + MPA) * Aw / int(DPW) / Y with Aw a 300 mm wafer, Y negative binomial; an explicit number of metal
layers moves EPA by the energy of a layer and GPA in proportion. Packages: MCM, InFO chip first and chip last, EMIB, silicon
interposer.

Known errors of the original, reproduced here on request (``as_printed=True``, the default) and mended otherwise: the bonding
energy of InFO chip last is not multiplied by the grid's intensity, the bonding of EMIB and of the silicon interposer is
computed and then left out, and the interposer has no process gases although its table lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from carbon.arrays import Numeric, as_number
from carbon.embodied import yields
from carbon.errors import CarbonError, unknown
from carbon.factors import tables as factors

METHODS = ("MCM", "InFO_chip_first", "InFO_chip_last", "EMIB", "Si_int")


@dataclass(frozen=True, slots=True)
class Die:
    """Carbon of dies: ``die_kgco2e`` of one good die, ``package_kgco2e`` of its own FCBGA, yield and whole dies a wafer."""

    die_kgco2e: Numeric
    package_kgco2e: Numeric
    fab_yield: Numeric
    dies_per_wafer: Numeric


@dataclass(frozen=True, slots=True)
class Package:
    """kgCO2e of a package: dies (bonding losses included), bonding, substrate (RDL, bridges or interposer), outer package."""

    dies_kgco2e: float
    bonding_kgco2e: float
    substrate_kgco2e: float
    package_kgco2e: float

    @property
    def total_kgco2e(self) -> float:
        """Sum of the four."""
        return self.dies_kgco2e + self.bonding_kgco2e + self.substrate_kgco2e + self.package_kgco2e


def _value(name: str) -> float:
    return factors.item(f"3dc_{name}").value


def die(
    area_mm2: Numeric,
    node_nm: Any,
    *,
    ci_g_per_kwh: Numeric = 583.0,
    d0_per_cm2: Numeric | None = None,
    alpha: Numeric | None = None,
    wafer_mm: Numeric = 300.0,
    metal_layers: Numeric | None = None,
) -> Die:
    """Return the carbon of dies (arrays broadcast), with the package each would have on its own.

    Args:
        metal_layers: explicit count; None leaves the node's EPA as it is.

    Raises:
        CarbonError: node without 3D-Carbon data, a die that does not fit the wafer, numbers out of range.
    """
    area = as_number("area_mm2", area_mm2, low=0.0, open_low=True)
    intensity = as_number("ci_g_per_kwh", ci_g_per_kwh, low=0.0)
    epa = factors.fab_values("epa_3dcarbon_kwh_cm2", node_nm)
    gas = factors.fab_values("gpa_99_kgco2e_cm2", node_nm)
    if metal_layers is not None:
        extra = as_number("metal_layers", metal_layers, low=1.0) - factors.fab_values("metal_layers_default", node_nm)
        moved = epa + extra * factors.fab_values("epa_beol_per_layer_kwh_cm2", node_nm)
        gas = gas * (moved / epa)
        epa = moved
    cpa = intensity / 1000.0 * epa + gas + factors.fab_values("mpa_kgco2e_cm2", node_nm)
    defects = factors.fab_values("d0_3dcarbon_per_cm2", node_nm) if d0_per_cm2 is None else d0_per_cm2
    cluster = factors.fab_values("alpha_3dcarbon", node_nm) if alpha is None else alpha
    good = yields.negative_binomial(area, defects, cluster)
    dies = yields.floor_dies(yields.dies_per_wafer(area, wafer_mm))
    if bool(dies.min() < 1.0) if hasattr(dies, "min") else dies < 1.0:
        raise CarbonError("area_mm2 has a die of which none fits the wafer, but 3D-Carbon divides by whole dies a wafer")
    made = cpa * (yields.wafer_area_mm2(wafer_mm) / 100.0) / dies / good
    own = _value("area_scale_package") * area / 100.0 * _value("epa_package_fcbga") * intensity / 1000.0
    return Die(made, own, good, dies)


def package(
    method: str,
    dies: Sequence[tuple[float, float, int]],
    *,
    ci_g_per_kwh: float = 583.0,
    package_area_mm2: float | None = None,
    metal_layers: Sequence[float | None] | None = None,
    as_printed: bool = True,
) -> Package:
    """Return the carbon of a package of ``dies`` (area in mm2, node in nm, how many).

    ``as_printed`` keeps the original's errors (see the module); False mends them.

    Raises:
        CarbonError: unknown method, or what :func:`die` refuses.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    ci = float(as_number("ci_g_per_kwh", ci_g_per_kwh, low=0.0)) / 1000.0
    layers = metal_layers if metal_layers is not None else [None] * len(dies)
    silicon = sum(
        float(die(area, node, ci_g_per_kwh=ci_g_per_kwh, metal_layers=count).die_kgco2e) * number
        for (area, node, number), count in zip(dies, layers, strict=True)
    )
    footprint = sum(area * number for area, _, number in dies) / 100.0  # cm2
    number = sum(count for _, _, count in dies)
    outer_area = _value("area_scale_package") * footprint if package_area_mm2 is None else package_area_mm2 / 100.0
    outer = outer_area * _value("epa_package_fcbga") * ci
    if method == "MCM":
        return Package(silicon, 0.0, 0.0, outer)
    if method.startswith("InFO"):
        area = _value("area_scale_rdl") * footprint
        good = float(yields.negative_binomial(area * 100.0, _value("rdl_d0_per_cm2"), _value("rdl_alpha")))
        rdl = area * ci * _value("epa_substrate_rdl") / good
        if method == "InFO_chip_first":
            return Package(silicon / good, 0.0, rdl, outer)
        bonded = _value("bond_yield_microbump_d2w") ** number
        # printed: kWh as if they were grams; a thousandth of a kilogram each
        bonding = area * _value("bond_tcb") / bonded * (1.0e-3 if as_printed else ci)
        return Package(silicon / bonded, bonding, rdl / bonded, outer)
    bonded = _value("bond_yield_microbump_d2w") ** number
    area = _value("area_scale_si") * footprint if method == "Si_int" else _value("emib_bridge_mm2") / 100.0
    gas = 0.0 if as_printed else _value("interposer_gpa")
    cpa = _value("interposer_si_epa") * ci + gas + _value("interposer_mpa")
    good = float(yields.negative_binomial(area * 100.0, _value("interposer_d0_per_cm2"), _value("interposer_alpha")))
    whole = float(yields.floor_dies(yields.dies_per_wafer(area * 100.0)))
    if whole < 1.0:
        raise CarbonError(f"interposer of {area * 100.0:g} mm2 does not fit a 300 mm wafer")
    carrier = cpa * (yields.wafer_area_mm2(300.0) / 100.0) / whole / good
    if method == "EMIB":
        carrier *= 4.0 * number
    bonding = 0.0 if as_printed else area * (number if method == "EMIB" else 1.0) * _value("bond_tcb") / bonded * ci
    return Package(silicon / bonded, bonding, carrier, outer)
