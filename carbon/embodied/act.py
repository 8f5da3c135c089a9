"""Embodied carbon of dies, memory, storage and boards: ACT's equations over floats, arrays or tensors.

Every function is elementwise and broadcasts; areas are in mm2, carbon in kgCO2e. The equations are those of ACT (Gupta et al.,
ISCA 2022; release v2, facebookresearch/ACT@abc9fbb) as facts, written anew. Yield is an argument: see :mod:`carbon.embodied.yields`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from carbon.arrays import Numeric, as_number
from carbon.errors import CarbonError, unknown
from carbon.factors import tables as factors

#: GPA tables exist for these abatement levels (percent of process gases destroyed).
ABATEMENT_LEVELS = (95.0, 97.0, 99.0)


def carbon_per_area(ci_g_per_kwh: Numeric, epa_kwh_cm2: Numeric, gpa_kgco2e_cm2: Numeric, mpa_kgco2e_cm2: Numeric) -> Numeric:
    """Return CPA in kgCO2e/cm2 of processed wafer, before yield: CI * EPA + GPA + MPA (ACT eq. 4, without the yield).

    Args:
        ci_g_per_kwh: carbon intensity of the fab's electricity, gCO2e/kWh.
        epa_kwh_cm2: fab energy per area. gpa_kgco2e_cm2: process gases. mpa_kgco2e_cm2: purchased materials.
    """
    return ci_g_per_kwh / 1000.0 * epa_kwh_cm2 + gpa_kgco2e_cm2 + mpa_kgco2e_cm2


def gas_per_area(node_nm: Numeric, abatement_pct: float = 97.0, fab: Callable[[str, Any], Numeric] = factors.fab_values) -> Numeric:
    """Return GPA in kgCO2e/cm2 for nodes at an abatement of 95 to 99 %.

    95 and 99 are tables; between them the interpolation is linear, of which ACT's 97 = mean(95, 99) is the midpoint. ``fab`` reads a table
    by name and node; an estimate's own notes every value that it hands out.

    Raises:
        CarbonError: abatement outside 95-99 (no data), or a node without the table (12 nm has 99 % only).
    """
    if not 95.0 <= abatement_pct <= 99.0:
        raise CarbonError(f"abatement_pct is {abatement_pct:g}, but gas tables exist for 95 to 99 only")
    if abatement_pct in ABATEMENT_LEVELS:
        return fab(f"gpa_{abatement_pct:g}_kgco2e_cm2", node_nm)
    at_95, at_99 = fab("gpa_95_kgco2e_cm2", node_nm), fab("gpa_99_kgco2e_cm2", node_nm)
    return at_95 + (abatement_pct - 95.0) / 4.0 * (at_99 - at_95)


def node_carbon_per_area(node_nm: Numeric, ci_g_per_kwh: Numeric, abatement_pct: float = 97.0) -> Numeric:
    """Return CPA in kgCO2e/cm2 before yield for process nodes (scalar or array) and a fab grid (ACT tables)."""
    return carbon_per_area(
        as_number("ci_g_per_kwh", ci_g_per_kwh, low=0.0),
        factors.fab_values("epa_kwh_cm2", node_nm),
        gas_per_area(node_nm, abatement_pct),
        factors.fab_values("mpa_kgco2e_cm2", node_nm),
    )


def logic_die(area_mm2: Numeric, cpa_kgco2e_cm2: Numeric, fab_yield: Numeric = 0.875) -> Numeric:
    """Return kgCO2e of one good die: A * CPA / Y (ACT eq. 3 and 4).

    Args:
        area_mm2: die area, > 0. cpa_kgco2e_cm2: carbon per wafer area, before yield. fab_yield: in (0, 1].
    """
    area = as_number("area_mm2", area_mm2, low=0.0, open_low=True)
    good = as_number("fab_yield", fab_yield, low=0.0, high=1.0, open_low=True)
    return area / 100.0 * (cpa_kgco2e_cm2 / good)


def ic_packaging(n_ics: Numeric) -> Numeric:
    """Return kgCO2e for packaging ``n_ics`` integrated circuits: ACT's 150 g each, not divided by any yield."""
    return as_number("n_ics", n_ics, low=0.0) * factors.item("act_ic_package").value


def capacity(gb: Numeric, kgco2e_per_gb: Numeric, fab_yield: Numeric = 1.0, fixed_kgco2e: Numeric = 0.0) -> Numeric:
    """Return kgCO2e of memory or storage: GB * kg/GB / Y + fixed (ACT eq. 5-7; fixed part as in boaviztapi).

    ACT divides published per-GB figures by the fab yield (0.875) again; other sources do not: pass ``fab_yield=1``.
    """
    amount = as_number("capacity_gb", gb, low=0.0)
    good = as_number("fab_yield", fab_yield, low=0.0, high=1.0, open_low=True)
    return amount * (kgco2e_per_gb / good) + fixed_kgco2e


def pcb_act(area_cm2: Numeric, layers: Numeric) -> Numeric:
    """Return kgCO2e of a printed circuit board as ACT codes it: kg/m2 by layer count {2, 4, 6, 8}, else 0.13 a layer.

    ACT's figures are 360 to 790 times below boaviztapi's 325 kg/m2, an evident slip of units: for the act2 profile only.
    """
    area = as_number("area_cm2", area_cm2, low=0.0)
    count = np.asarray(as_number("layers", layers, low=1.0))
    if (count != np.round(count)).any():
        raise CarbonError(f"layers is {float(count.ravel()[0]):g}, but a board has a whole number of layers")
    per_m2 = count * factors.item("act_pcb_per_layer_else").value
    for known in (2, 4, 6, 8):
        per_m2 = np.where(count == known, factors.item(f"act_pcb_{known}layer").value, per_m2)
    return area * (per_m2 if np.ndim(layers) else float(per_m2)) / 1.0e4


def battery_act(capacity_kwh: Numeric, cathode: str = "NMC") -> Numeric:
    """Return kgCO2e of a lithium battery: 87 (NMC) or 61.5 (LFP) kg/kWh (ACT v2)."""
    if cathode.upper() not in ("NMC", "LFP"):
        raise unknown("cathode", cathode, ("NMC", "LFP"))
    return as_number("capacity_kwh", capacity_kwh, low=0.0) * factors.item(f"act_battery_{cathode.lower()}").value


def capacitor_act(kind: str, weight_kg: Numeric, count: Numeric, ci_g_per_kwh: Numeric = 485.0) -> Numeric:
    """Return kgCO2e of capacitors: MJ/kg * weight * n * CI for mlcc and tec, 300 g each for generic (ACT v2).

    The default CI is ACT's Japan 2022 (485 g/kWh).
    """
    if kind not in ("mlcc", "tec", "generic"):
        raise unknown("capacitor kind", kind, ("mlcc", "tec", "generic"))
    number = as_number("count", count, low=0.0)
    if kind == "generic":
        return number * factors.item("act_capacitor_generic").value
    kwh = factors.item(f"act_{kind}").value / 3.6 * as_number("weight_kg", weight_kg, low=0.0)
    return kwh * number * ci_g_per_kwh / 1000.0


def material_act(kind: str, weight_kg: Numeric) -> Numeric:
    """Return kgCO2e of enclosure material: steel 1.89, aluminium 15.1 kg/kg (ACT v2)."""
    if kind not in ("steel", "aluminium"):
        raise unknown("material", kind, ("steel", "aluminium"))
    return as_number("weight_kg", weight_kg, low=0.0) * factors.item(f"act_{kind}").value
