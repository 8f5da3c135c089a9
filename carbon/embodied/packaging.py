"""Packages of the default profile: what joining dies adds, from the plain package to 2.5D and 3D.

Dies are tested before they are joined (known good dies); a bond that fails loses everything on the carrier, so silicon and
carrier are divided by the bonding yield, and everything by the yield of the final test. Areas and counts broadcast.

    monolithic   organic substrate (FCBGA) + 150 g an IC (ACT)
    mcm          the same under several dies (no bonding loss: flip chip on organic substrate, as in 3D-Carbon)
    rdl          fan-out, chips last: redistribution layers on 1.2 x the die area
    emib         silicon bridges of 25 mm2 at 22 nm, their metal share only, one per pair of neighbours unless given
    interposer   passive silicon of 1.1 x the die area: the metal share of a 65 nm wafer with a quarter of its defects
    active_interposer   the same with transistors (the whole wafer cost)
    3d           dies stacked with TSVs: 4 % more silicon, bonding energy per layer, the largest die's footprint

Sources: 3D-Carbon (energies, area scales), ECO-CHIP (metal shares, defect divisor, bonding yield, TSV geometry), ACT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from carbon.arrays import Numeric, where
from carbon.embodied import yields
from carbon.errors import CarbonError, unknown
from carbon.factors.values import Values

KINDS = ("monolithic", "mcm", "rdl", "emib", "interposer", "active_interposer", "3d")


@dataclass(frozen=True, slots=True)
class Assembly:
    """What the package adds, kgCO2e by part, and the yields behind it.

    Attributes:
        parts: ``substrate``, ``assembly``, and where they occur ``carrier``, ``bonding``, ``bonding_loss``, ``test_loss``.
        bonding_yield: probability that all bonds hold. feasible: the carrier fits a wafer.
    """

    parts: Mapping[str, Numeric]
    bonding_yield: Numeric
    feasible: Numeric


def assemble(
    values: Values,
    kind: str,
    *,
    silicon_kgco2e: Numeric,
    total_mm2: Numeric,
    largest_mm2: Numeric,
    joined: Numeric,
    ci_g_per_kwh: Numeric,
    bridges: Numeric | None = None,
    carrier_area_mm2: Numeric | None = None,
    test_yield: Numeric = 1.0,
) -> Assembly:
    """Return what packaging a set of good dies and memory stacks adds.

    Args:
        silicon_kgco2e: all dies and stacks on the carrier (what a failed bond loses). total_mm2: their area.
        largest_mm2: area of the largest (the footprint of a 3D stack). joined: how many are joined.
        ci_g_per_kwh: grid of the packaging plant. bridges: for emib, None for joined - 1.
        carrier_area_mm2: of the RDL or interposer, None for the scale of the method. test_yield: of the finished package.

    Raises:
        CarbonError: unknown kind; a 3D stack or EMIB of one die.
    """
    if kind not in KINDS:
        raise unknown("package", kind, KINDS)
    intensity = ci_g_per_kwh / 1000.0
    parts: dict[str, Numeric] = {}
    footprint = largest_mm2 if kind == "3d" else total_mm2
    substrate_area = values.item("3dc_area_scale_package") * footprint / 100.0
    parts["substrate"] = substrate_area * values.item("3dc_epa_package_fcbga") * intensity
    parts["assembly"] = values.item("act_ic_package") * (1.0 + 0.0 * joined)
    feasible: Numeric = total_mm2 > 0.0
    good: Numeric = 1.0
    if kind not in ("monolithic", "mcm"):
        if kind in ("emib", "3d") and _any(joined < 2.0):
            raise CarbonError(f"package is {kind!r}, but it joins at least two dies or stacks")
        good = values.item("eco_bonding_yield") ** joined
        carrier, bonding, fits = _carrier(
            values, kind, silicon_kgco2e, total_mm2, largest_mm2, joined, intensity, bridges, carrier_area_mm2
        )
        parts["carrier"] = carrier / good
        parts["bonding"] = bonding / good
        parts["bonding_loss"] = silicon_kgco2e * (1.0 / good - 1.0)
        feasible = feasible & fits
    if _any(test_yield != 1.0):
        spent: Numeric = silicon_kgco2e
        for part in parts.values():
            spent = spent + part
        parts["test_loss"] = spent * (1.0 / test_yield - 1.0)
    return Assembly(parts, good, feasible)


def _carrier(
    values: Values,
    kind: str,
    silicon: Numeric,
    total_mm2: Numeric,
    largest_mm2: Numeric,
    joined: Numeric,
    intensity: Numeric,
    bridges: Numeric | None,
    carrier_area_mm2: Numeric | None,
) -> tuple[Numeric, Numeric, Numeric]:
    """Carbon of the carrier and of the bonding energy, and whether the carrier fits a wafer."""
    always = total_mm2 > 0.0
    if kind == "3d":
        density = (values.item("eco_tsv_size_mm") / values.item("eco_tsv_pitch_mm")) ** 2
        extra = joined - 1.0
        through = values.item("3dc_bond_tsv") * (largest_mm2 / 100.0) * extra * intensity
        return density * silicon * extra / joined, through, always
    bond_energy = values.item("3dc_bond_tcb") * intensity
    if kind == "rdl":
        area = values.item("3dc_area_scale_rdl") * total_mm2 if carrier_area_mm2 is None else carrier_area_mm2
        good = yields.negative_binomial(area, values.item("3dc_rdl_d0_per_cm2"), values.item("3dc_rdl_alpha"))
        made = area / 100.0 * values.item("3dc_epa_substrate_rdl") * intensity / good
        return made, area / 100.0 * bond_energy, always
    divisor = values.item("eco_defect_density_divisor_packaging")
    if kind == "emib":
        area = values.item("eco_emib_bridge_mm2")
        count = joined - 1.0 if bridges is None else bridges
        cpa = intensity * values.fab("epa_kwh_cm2", 22.0) + values.fab("gpa_97_kgco2e_cm2", 22.0) + values.fab("mpa_kgco2e_cm2", 22.0)
        good = yields.negative_binomial(area, values.fab("d0_ecochip_per_cm2", 22.0) / divisor)
        one = yields.wafer_share_mm2(area) / 100.0 * cpa * values.fab("beol_fraction_ecochip", 22.0) / good
        return count * one, count * (area / 100.0) * bond_energy, always
    node = values.item("eco_interposer_node_nm")
    area = values.item("3dc_area_scale_si") * total_mm2 if carrier_area_mm2 is None else carrier_area_mm2
    cpa = intensity * values.item("3dc_interposer_si_epa") + values.item("3dc_interposer_gpa") + values.item("3dc_interposer_mpa")
    share = 1.0 if kind == "active_interposer" else values.fab("beol_fraction_ecochip", node)
    defects = values.fab("d0_ecochip_per_cm2", node) / (1.0 if kind == "active_interposer" else divisor)
    good = yields.negative_binomial(area, defects, values.fab("alpha_ecochip", node))
    fits = yields.dies_per_wafer(area) > 0.0
    made = yields.wafer_share_mm2(where(fits, area, 1.0 + 0.0 * area)) / 100.0 * cpa * share / good
    return made, area / 100.0 * bond_energy, fits


def split_area(area_mm2: Numeric, chiplets: Numeric, link_fraction: Numeric = 0.1) -> Numeric:
    """Return the area of each of ``chiplets`` equal chiplets that replace one die.

    Every chiplet carries ``link_fraction`` more area for die-to-die links (3D-Carbon splits with 10 %); one die has none.
    """
    return area_mm2 * where(chiplets > 1.0, 1.0 + link_fraction, 1.0 + 0.0 * link_fraction) / chiplets


def _any(condition: Numeric) -> bool:
    return bool(condition.any()) if hasattr(condition, "any") else bool(condition)
