"""Chiplet systems as ECO-CHIP computes them: manufacture, package, design and operation, quirks included.

Written anew from the formulas and tables of ASU-VDA-Lab/ECO-CHIP@fe998d9 (HPCA 2024, BSD-3), so that its published cases come
out to the last digit. What differs from sound practice is kept here, named, and absent from the default profile:

* a 450 mm wafer, and unused wafer that is not divided by the yield;
* the interposer's defect density is divided by 4 only where all nodes are equal and the system is one die, so never for
  the interposer of a chiplet system; EMIB bridges share one yield, that of their summed area (with D0 / 4);
* the 3D area overhead is scaled from 7 nm to the node twice; nothing checks the reticle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from carbon.device.device import ecochip_waste
from carbon.embodied import yields
from carbon.errors import CarbonError, unknown
from carbon.factors import tables as factors

PACKAGES = ("RDL", "EMIB", "passive", "active", "3D")
TYPES = ("logic", "sram", "analog")
#: share of time active, share of time on, mean power over peak: ECO-CHIP's defaults.
ACTIVITY = (0.2, 0.667, 0.1)


@dataclass(frozen=True, slots=True)
class Chiplet:
    """One chiplet: its type scales the area, given at 7 nm, to its node."""

    name: str
    type: str
    area_mm2_at_7nm: float
    node_nm: float
    power_w: float = 0.0


@dataclass(frozen=True, slots=True)
class Part:
    """kgCO2e of one chiplet, or of the package."""

    manufacture_kgco2e: float
    design_kgco2e: float
    operational_kgco2e: float

    @property
    def total_kgco2e(self) -> float:
        """Sum of the three."""
        return self.manufacture_kgco2e + self.design_kgco2e + self.operational_kgco2e


def _value(item: str) -> float:
    return factors.item(item).value


def _scale(kind: str, of: str, node: float) -> float:
    return factors.fab(f"ecochip_{of}_{kind}", node).value


def _yield(area_mm2: float, node: float, divisor: float = 1.0) -> float:
    d0 = factors.fab("d0_ecochip_per_cm2", node).value / divisor
    return float(yields.negative_binomial(area_mm2, d0, factors.fab("alpha_ecochip", node).value))


def _cpa(node: float) -> float:
    return factors.fab("cpa_ecochip_kgco2e_cm2", node).value


def _silicon(areas: Sequence[float], nodes: Sequence[float], *, chiplets: bool, divisor: float = 1.0) -> list[float]:
    """kgCO2e of dies without waste; one yield for the summed area where all nodes agree and ``chiplets`` is False."""
    if not chiplets and len(set(nodes)) == 1:
        shared = _yield(sum(areas), nodes[0], divisor)
        return [area / 100.0 * _cpa(node) / shared for area, node in zip(areas, nodes, strict=True)]
    return [area / 100.0 * _cpa(node) / _yield(area, node) for area, node in zip(areas, nodes, strict=True)]


def design_carbon(area_mm2: float, node_nm: float) -> float:
    """Return kgCO2e of one design iteration of a block: gates / gates per core hour * 10 W * 700 g/kWh."""
    transistors = area_mm2 * factors.fab("ecochip_transistors_per_mm2", node_nm).value
    gates = transistors / _value("eco_transistors_per_gate")
    hours = gates / factors.fab("ecochip_gates_per_core_hour", node_nm).value
    kwh = _value("eco_design_core_w") * hours / 1000.0
    return kwh * _value("eco_design_gco2e_per_kwh") / 1000.0


def floorplan(areas: Sequence[float], *, gap_mm: float, pitch_mm: float, axis: int = 0) -> tuple[tuple[float, float], float]:
    """Return the sides (mm) of the bounding box and the number of bridges, by recursive bisection into equal halves.

    Every die is a 2:1 rectangle, the cut turns at each level, halves stand ``gap_mm`` apart, and each ``pitch_mm`` of
    common edge carries a bridge (ECO-CHIP's floorplan, its order of ties included).
    """
    if len(areas) <= 1:
        short = math.sqrt(sum(areas) / 2.0)
        return ((2.0 * short, short) if axis == 0 else (short, 2.0 * short)), 0.0
    halves: tuple[list[float], list[float]] = ([], [])
    sums = [0.0, 0.0]
    for area in sorted(areas):
        least = 0 if sums[0] <= sums[1] else 1
        halves[least].append(area)
        sums[least] += area
    (left, left_bridges), (right, right_bridges) = (floorplan(half, gap_mm=gap_mm, pitch_mm=pitch_mm, axis=1 - axis) for half in halves)
    other = 1 - axis
    sides = [0.0, 0.0]
    sides[axis] = left[axis] + right[axis] + gap_mm
    sides[other] = max(left[other], right[other])
    bridges = left_bridges + right_bridges + math.ceil(min(left[other], right[other]) / pitch_mm)
    return (sides[0], sides[1]), bridges


def system(
    chiplets: Sequence[Chiplet],
    package: str = "RDL",
    *,
    iterations: float = 90.0,
    parts_made: float = 1.0e5,
    lifetime_h: float = 17520.0,
    activity: tuple[float, float, float] = ACTIVITY,
    gco2e_per_kwh: float = 700.0,
    wafer_mm: float = 450.0,
) -> dict[str, Part]:
    """Return the carbon of every chiplet by name and of ``Packaging``, as ECO-CHIP reports them.

    Args:
        chiplets: one (monolithic) or more. package: one of :data:`PACKAGES`; without effect on a single die.
        iterations, parts_made: design carbon is multiplied and divided by them. lifetime_h: hours.

    Raises:
        CarbonError: unknown package or type, a node without ECO-CHIP data, a non-positive area, no chiplet.
    """
    if package not in PACKAGES:
        raise unknown("package", package, PACKAGES)
    if not chiplets:
        raise CarbonError("chiplets is empty, but a system has at least one")
    for chiplet in chiplets:
        if chiplet.type not in TYPES:
            raise unknown("chiplet type", chiplet.type, TYPES)
        if not 0.0 < chiplet.area_mm2_at_7nm < math.inf:
            raise CarbonError(f"area_mm2_at_7nm of {chiplet.name} is {chiplet.area_mm2_at_7nm:g}, but it must be above 0")
    many = len(chiplets) > 1
    nodes = [chiplet.node_nm for chiplet in chiplets]
    scaled = [c.area_mm2_at_7nm * _scale(c.type, "area", c.node_nm) for c in chiplets]
    dies = _silicon(scaled, nodes, chiplets=many)
    parts = {}
    per_part = iterations / parts_made
    for chiplet, area, die in zip(chiplets, scaled, dies, strict=True):
        waste = float(ecochip_waste(area, _cpa(chiplet.node_nm), wafer_mm))
        parts[chiplet.name] = Part(
            die + waste,
            design_carbon(area, chiplet.node_nm) * per_part,
            _operation(chiplet, lifetime_h, activity, gco2e_per_kwh),
        )
    made, designed = _package(chiplets, scaled, package) if many else (0.0, 0.0)
    parts["Packaging"] = Part(made, designed * per_part, 0.0)
    return parts


def _operation(chiplet: Chiplet, hours: float, activity: tuple[float, float, float], gco2e_per_kwh: float) -> float:
    active, on, mean = activity
    dynamic = factors.fab("ecochip_dynamic_power_share", chiplet.node_nm).value
    watts = chiplet.power_w * _scale(chiplet.type, "power", chiplet.node_nm)
    watts *= on * mean * (dynamic * active + (1.0 - dynamic))
    return hours * watts / 1000.0 * gco2e_per_kwh / 1000.0


def _package(chiplets: Sequence[Chiplet], scaled: Sequence[float], package: str) -> tuple[float, float]:
    """Manufacture and one iteration of design of the package and its routers, kgCO2e."""
    nodes = [chiplet.node_nm for chiplet in chiplets]
    (width, height), bridges = floorplan(scaled, gap_mm=_value("eco_chiplet_gap_mm"), pitch_mm=_value("eco_emib_pitch_mm"))
    node = _value("eco_interposer_node_nm")
    interposer = width * height / 100.0 * _cpa(node) / _yield(width * height, node)
    beol = factors.fab("beol_fraction_ecochip", node).value
    bonding = _value("eco_bonding_yield")
    if package == "active":
        routers = interposer * _value("eco_router_area_active_mm2") * len(chiplets) / (width * height)
        return ((interposer - routers) * beol + routers) / bonding, 0.0
    router_areas = [
        _value("eco_router_area_passive_mm2_at_14nm") / _scale(c.type, "area", 14.0) * _scale(c.type, "area", c.node_nm) for c in chiplets
    ]
    routers = sum(_silicon(router_areas, nodes, chiplets=False))
    designed = sum(design_carbon(area, at) for area, at in zip(router_areas, nodes, strict=True))
    if package == "passive":
        carrier = interposer * beol
    elif package == "RDL":
        carrier = interposer * beol * _value("eco_rdl_layers_over_beol")
    elif package == "EMIB":
        count = math.ceil(bridges)
        area = _value("eco_emib_bridge_mm2")
        made = _silicon([area] * count, [22.0] * count, chiplets=False, divisor=_value("eco_defect_density_divisor_packaging"))
        carrier = sum(made) * factors.fab("beol_fraction_ecochip", 22.0).value
    else:
        pitch, size = _value("eco_tsv_pitch_mm"), _value("eco_tsv_size_mm")
        stacked = [area + math.floor(math.sqrt(area) / pitch) ** 2 * size**2 for area in scaled]
        rescale = [_scale(c.type, "area", c.node_nm) for c in chiplets]  # a second time, as the original does
        with_tsv = _silicon([a * s for a, s in zip(stacked, rescale, strict=True)], nodes, chiplets=True)
        without = _silicon([a * s for a, s in zip(scaled, rescale, strict=True)], nodes, chiplets=True)
        carrier = sum(with_tsv) - sum(without)
        bonding = bonding ** len(chiplets)
    return (carrier + routers) / bonding, designed
