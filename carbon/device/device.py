"""From a device's numbers to its embodied carbon, by part, under any profile.

One road for the peers' recipes and our own, for one design or a million, for floats, arrays and tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carbon.arrays import Numeric, as_number, where
from carbon.device.recipes import Profile, get
from carbon.embodied import act as embodied
from carbon.embodied import memory, packaging, yields
from carbon.errors import CarbonError, unknown
from carbon.factors import grid
from carbon.factors import tables as factors
from carbon.factors.grid import GridFactor
from carbon.factors.tables import Factor
from carbon.factors.values import Values

#: What follows for a whole product, beside its chips.
SYSTEMS = {"card": "card_other_kgco2e", "server": "server_base_kgco2e"}


@dataclass(frozen=True, slots=True)
class Harvest:
    """Spare units: ``needed`` of ``units`` equal units must work; they fill ``fraction`` of the die's area."""

    units: int
    needed: int
    fraction: float


@dataclass(frozen=True, slots=True)
class Device:
    """The inputs of :func:`device_embodied`; arrays broadcast against each other.

    Attributes:
        area_mm2, node_nm: of one die; None for a device without logic. dies: equal dies in the package.
        bottom_up_area: the area is a sum of multipliers, registers and SRAM, without control, network and interfaces: it stays the
            value, and ``area_over_tables`` says how far published dies lie above such sums.
        chiplets: further, different dies in the same package; only their die inputs and ``dies`` count.
        memory_type, memory_gb: memory of the device. memory_modules: DIMMs. memory_year: of the product.
        memory_stacks, memory_stack_area_mm2: stacks on the carrier of a 2.5D package.
        n_ics, memory_ics: packaged ICs where a profile counts them (memory: 1 where there is memory).
        fab_grid, ci_g_per_kwh: the fab's electricity, by code or as numbers (not both).
        abatement_pct, fab_yield, yield_model, d0_per_cm2, alpha, wafer_mm, scribe_mm, harvest: the die's making.
        package: kind, see :mod:`carbon.embodied.packaging`; bridges, carrier_area_mm2, test_yield: its options.
        storage_gb, storage_drives, storage_year: flash. hdds: drives.
        system: ``card`` or ``server`` (the rest of such a product), None or ``none`` for the chips alone. pcb_cm2: a bare board.
        host_share: part of a server that the device occupies (an eighth where a host holds eight cards).
        cpu_packages: server CPU packages (lid and substrate; boaviztapi).
        design_iterations, parts_made: design carbon of the die, spread over the parts.
    """

    area_mm2: Numeric | None = None
    node_nm: Any = None
    bottom_up_area: bool = False
    dies: Numeric = 1.0
    chiplets: tuple[Device, ...] = ()
    memory_type: str | None = None
    memory_gb: Numeric = 0.0
    memory_modules: Numeric = 0.0
    memory_year: int | None = None
    memory_stacks: Numeric = 0.0
    memory_stack_area_mm2: Numeric = 0.0
    n_ics: Numeric = 1.0
    memory_ics: Numeric | None = None
    fab_grid: str | GridFactor | None = None
    ci_g_per_kwh: Numeric | None = None
    abatement_pct: float | None = None
    fab_yield: Numeric | None = None
    yield_model: str | None = None
    d0_per_cm2: Numeric | None = None
    alpha: Numeric | None = None
    wafer_mm: Numeric | None = None
    scribe_mm: Numeric = 0.0
    harvest: Harvest | None = None
    package: str | None = None
    bridges: Numeric | None = None
    carrier_area_mm2: Numeric | None = None
    test_yield: Numeric = 1.0
    storage_gb: Numeric = 0.0
    storage_drives: Numeric = 0.0
    storage_year: int | None = None
    hdds: Numeric = 0.0
    system: str | None = None
    host_share: Numeric = 0.0
    pcb_cm2: Numeric = 0.0
    cpu_packages: Numeric = 0.0
    design_iterations: Numeric = 0.0
    parts_made: Numeric = 0.0


_FIELDS = {field.name: field for field in dataclasses.fields(Device)}
#: Inputs that only a profile with ``blocks`` takes: a peer's recipe would silently ignore them.
_OWN_ONLY = (
    *("dies", "chiplets", "memory_modules", "memory_year", "memory_stacks", "memory_stack_area_mm2", "yield_model"),
    *("scribe_mm", "harvest", "package", "bridges", "carrier_area_mm2", "test_yield", "storage_gb", "storage_drives"),
    *("storage_year", "hdds", "system", "host_share", "pcb_cm2", "cpu_packages", "design_iterations", "parts_made"),
)


@dataclass(frozen=True, slots=True)
class Embodied:
    """Embodied carbon of one design or of an array of designs.

    Attributes:
        parts: kgCO2e by part (die, memory, packaging, ...), each broadcastable to the designs.
        embodied_kgco2e: their sum; infinite where no die fits the wafer.
        feasible: every check holds. infeasible: reason -> where it applies (``reticle``, ``wafer``, ``carrier``).
        fab_yield: yield used. sources: every factor used, once.
    """

    parts: Mapping[str, Numeric]
    embodied_kgco2e: Numeric
    feasible: Numeric
    infeasible: Mapping[str, Numeric]
    fab_yield: Numeric
    sources: tuple[Factor | GridFactor, ...]


def device_embodied(profile: str | Profile, *, overrides: Mapping[str, Numeric] | None = None, **inputs: Any) -> Embodied:
    """Return embodied carbon of a device under a profile.

    Args:
        profile: name or record. inputs: the fields of :class:`Device`.
        overrides: factor key -> value or draws, for uncertainty work; draws of shape (n, 1) broadcast against designs.

    Raises:
        CarbonError: unknown names (with the nearest), numbers out of range, or an option the profile does not have.
    """
    for name in inputs:
        if name not in _FIELDS:
            raise unknown("device input", name, _FIELDS)
    recipe = get(profile) if isinstance(profile, str) else profile
    values = Values(overrides)
    result = evaluate(recipe, Device(**inputs), values)
    values.unused(frozenset())
    return result


def evaluate(recipe: Profile, device: Device, values: Values) -> Embodied:
    """Return embodied carbon of ``device``; the factors come from, and are noted in, ``values``."""
    _refuse_foreign(recipe, device)
    parts: dict[str, Numeric] = {}
    infeasible: dict[str, Numeric] = {}
    fab_yield: Numeric = 1.0
    logic = None
    if device.area_mm2 is not None or device.node_nm is not None or device.chiplets:
        logic = _logic(recipe, device, values)
        fab_yield = logic.main.fab_yield
        parts["die"] = logic.kgco2e
        if logic.main.waste_kgco2e is not None:
            parts["waste"] = logic.main.waste_kgco2e
        infeasible.update(logic.infeasible)
    stacked = _add_memory(recipe, device, values, parts)
    if logic is not None:
        _add_packaging(recipe, device, values, parts, infeasible, logic, stacked)
    elif device.package is not None:
        raise CarbonError(f"package is {device.package!r}, but the device has no die (area_mm2 is missing)")
    if recipe.blocks:
        _add_blocks(device, values, parts, logic)
    if not parts:
        raise CarbonError("device is empty: give area_mm2 and node_nm, memory, storage or a system")
    total: Numeric = 0.0
    for part in parts.values():
        total = total + part
    feasible: Numeric = total >= 0.0
    for reason, wrong in infeasible.items():
        feasible = feasible & (~wrong if hasattr(wrong, "shape") else not wrong)
        if reason in ("wafer", "carrier"):
            part = "die" if reason == "wafer" else "carrier"
            if part in parts:
                parts[part] = where(wrong, float("inf"), parts[part])
            total = where(wrong, float("inf"), total)
    return Embodied(parts, total, feasible, infeasible, fab_yield, values.sources())


@dataclass(frozen=True, slots=True)
class Logic:
    """All dies of a device: the main die, carbon and area of all, how many, the largest, checks."""

    main: Die
    kgco2e: Numeric
    total_mm2: Numeric
    largest_mm2: Numeric
    count: Numeric
    infeasible: Mapping[str, Numeric]


def _logic(recipe: Profile, device: Device, values: Values) -> Logic:
    main = die_carbon(recipe, device, values)
    count = as_number("dies", device.dies, low=1.0)
    made, area, largest = main.kgco2e * count, main.area_mm2 * count, main.area_mm2
    checks = dict(main.infeasible)
    for chiplet in device.chiplets:
        die = die_carbon(recipe, _same_fab(device, chiplet), values)
        number = as_number("dies", chiplet.dies, low=1.0)
        made, area, count = made + die.kgco2e * number, area + die.area_mm2 * number, count + number
        largest = where(die.area_mm2 > largest, die.area_mm2 + 0.0 * largest, largest + 0.0 * die.area_mm2)
        checks = {name: checks[name] | wrong for name, wrong in die.infeasible.items()}
    return Logic(main, made, area, largest, count, checks)


def _same_fab(device: Device, chiplet: Device) -> Device:
    """A chiplet without a fab of its own is made where the main die is."""
    if chiplet.fab_grid is not None or chiplet.ci_g_per_kwh is not None:
        return chiplet
    return dataclasses.replace(chiplet, fab_grid=device.fab_grid, ci_g_per_kwh=device.ci_g_per_kwh)


def _add_packaging(
    recipe: Profile,
    device: Device,
    values: Values,
    parts: dict[str, Numeric],
    infeasible: dict[str, Numeric],
    logic: Logic,
    stacked: Numeric,
) -> None:
    """Add what holds the dies; under the default profile carrier, bonding and losses stay visible as parts of their own."""
    if recipe.package == "ic":
        parts["packaging"] = _ic_packaging(device, values)
    elif recipe.package == "fcbga":
        outer_cm2 = values.item("3dc_area_scale_package") * logic.total_mm2 / 100.0
        parts["packaging"] = outer_cm2 * values.item("3dc_epa_package_fcbga") * logic.main.ci_g_per_kwh / 1000.0
    elif recipe.package == "own":
        built = _own_package(device, values, logic, stacked)
        parts["packaging"] = built.parts["assembly"] + built.parts["substrate"]
        parts.update({name: part for name, part in built.parts.items() if name not in ("assembly", "substrate")})
        infeasible["carrier"] = ~built.feasible if hasattr(built.feasible, "shape") else not built.feasible


@dataclass(frozen=True, slots=True)
class Die:
    """One good die: carbon, its share of unused wafer where a profile adds it apart, area, yield, fab grid, checks."""

    kgco2e: Numeric
    waste_kgco2e: Numeric | None
    area_mm2: Numeric
    fab_yield: Numeric
    ci_g_per_kwh: Numeric
    infeasible: Mapping[str, Numeric]


def die_carbon(recipe: Profile, device: Device, values: Values) -> Die:
    """Return the carbon of one good die of ``device``."""
    for name in ("area_mm2", "node_nm"):
        if getattr(device, name) is None:
            raise CarbonError(f"{name} is missing, but a die has an area and a node")
    area = as_number("area_mm2", device.area_mm2, low=0.0, open_low=True)
    if device.bottom_up_area:
        area = area * values.item("area_over_tables")
    intensity, cpa = _carbon_per_area(recipe, device, values)
    good = _die_yield(recipe, device, values, area)
    diameter = as_number("wafer_mm", recipe.wafer_mm if device.wafer_mm is None else device.wafer_mm, low=0.0, open_low=True)
    if recipe.edge == "none":
        return Die(embodied.logic_die(area, cpa, good), None, area, good, intensity, {})
    dies = yields.dies_per_wafer(area, diameter, scribe_mm=device.scribe_mm)
    checks: dict[str, Numeric] = {"wafer": dies <= 0.0}
    if recipe.reticle:
        checks["reticle"] = area > yields.RETICLE_LIMIT_MM2
    if recipe.edge == "waste":
        waste = ecochip_waste(area, cpa, diameter)
        return Die(embodied.logic_die(area, cpa, good), waste, area, good, intensity, checks)
    if recipe.edge == "floor":
        dies = yields.floor_dies(dies)
        checks["wafer"] = dies < 1.0
    fits = dies > 0.0
    # where no die fits the carbon is made infinite at the end: arithmetic with infinities on the way would breed NaN
    share = where(fits, yields.wafer_area_mm2(diameter) / where(fits, dies, 1.0 + 0.0 * dies), area + 0.0 * dies)
    return Die(share / 100.0 * cpa / good, None, area, good, intensity, checks)


def ecochip_waste(area_mm2: Numeric, cpa_kgco2e_cm2: Numeric, wafer_mm: Numeric = 450.0) -> Numeric:
    """Return ECO-CHIP's carbon of unused wafer per die: CPA * (Aw - floor(DPW) * A) / DPW, not divided by the yield.

    Infinite where no die fits.
    """
    dies = yields.dies_per_wafer(area_mm2, wafer_mm)
    fits = dies > 0.0
    safe = where(fits, dies, 1.0 + 0.0 * dies)
    waste = (yields.wafer_area_mm2(wafer_mm) - yields.floor_dies(safe) * area_mm2) / 100.0 * cpa_kgco2e_cm2 / safe
    return where(fits, waste, float("inf"))


def _refuse_foreign(recipe: Profile, device: Device) -> None:
    if recipe.blocks:
        return
    for name in _OWN_ONLY:
        given = getattr(device, name)
        default = _FIELDS[name].default
        if given is default or (default is not None and not hasattr(given, "shape") and given == default):
            continue
        raise CarbonError(f"{name} is given, but profile {recipe.name!r} has no such input; profile 'default' has")


def _carbon_per_area(recipe: Profile, device: Device, values: Values) -> tuple[Numeric, Numeric]:
    """Fab grid in g/kWh and carbon per area in kgCO2e/cm2, before yield."""
    node = device.node_nm
    if recipe.only_nodes is not None:
        for factor in factors.fab_factors("epa_kwh_cm2", node):
            at = float(factor.key.split(".")[1].removesuffix("nm"))
            if at not in recipe.only_nodes:
                known = ", ".join(f"{each:g}" for each in recipe.only_nodes)
                raise CarbonError(f"node_nm is {at:g}, but profile {recipe.name!r} knows {known} nm only")
    if recipe.cpa == "ecochip":
        for name in ("fab_grid", "ci_g_per_kwh", "abatement_pct"):
            if getattr(device, name) is not None:
                raise CarbonError(f"{name} is given, but profile {recipe.name!r} has its carbon per area fixed by node")
        return 820.0, values.fab("cpa_ecochip_kgco2e_cm2", node)
    if device.ci_g_per_kwh is not None and device.fab_grid is not None:
        raise CarbonError("fab_grid and ci_g_per_kwh are both given, but only one of them can set the fab's electricity")
    if device.ci_g_per_kwh is None:
        place = grid.lookup(device.fab_grid or recipe.fab_grid or "taiwan", role="fab", order=recipe.grid_order)
        intensity = values.grid(f"fab.grid.{place.code}", place)
    else:
        intensity = values.named("fab.grid", as_number("ci_g_per_kwh", device.ci_g_per_kwh, low=0.0))
    abatement = recipe.abatement_pct if device.abatement_pct is None else device.abatement_pct
    if recipe.abatement_choices is not None and abatement not in recipe.abatement_choices:
        allowed = ", ".join(f"{each:g}" for each in recipe.abatement_choices)
        raise CarbonError(f"abatement_pct is {abatement:g}, but profile {recipe.name!r} has {allowed} only")
    energy = values.fab("epa_3dcarbon_kwh_cm2" if recipe.cpa == "3dcarbon" else "epa_kwh_cm2", node)
    return intensity, embodied.carbon_per_area(
        intensity, energy, embodied.gas_per_area(node, abatement, values.fab), values.fab("mpa_kgco2e_cm2", node)
    )


def _die_yield(recipe: Profile, device: Device, values: Values, area: Numeric) -> Numeric:
    if device.fab_yield is not None:
        return values.named("fab.yield", as_number("fab_yield", device.fab_yield, low=0.0, high=1.0, open_low=True))
    model = recipe.yield_model if device.yield_model is None else device.yield_model
    if model == "constant":
        for name in ("d0_per_cm2", "alpha"):
            if getattr(device, name) is not None:
                raise CarbonError(f"{name} is given, but the yield is constant")
        return values.named("fab.yield", recipe.fab_yield)
    chosen = yields.model(model)
    if device.d0_per_cm2 is None:
        d0 = values.fab(recipe.d0_quantity, device.node_nm)
    else:
        d0 = values.named("fab.d0_per_cm2", device.d0_per_cm2)
    alpha = recipe.alpha if device.alpha is None else device.alpha
    if device.harvest is not None:
        if model != "negative_binomial":
            raise CarbonError(f"harvest is given with yield_model {model!r}, but harvesting needs 'negative_binomial'")
        spare = device.harvest
        return yields.harvested(area, d0, units=spare.units, needed=spare.needed, repairable_fraction=spare.fraction, alpha=alpha)
    return chosen(area, d0, alpha) if model == "negative_binomial" else chosen(area, d0)


def _add_memory(recipe: Profile, device: Device, values: Values, parts: dict[str, Numeric]) -> Numeric:
    """Add the memory part; returns the carbon of memory that sits on the die's carrier."""
    gb = as_number("memory_gb", device.memory_gb, low=0.0)
    name = device.memory_type or recipe.memory_type
    if name is None:
        if not _all_zero(gb):
            raise CarbonError("memory_type is missing, but memory_gb is above 0")
        return 0.0
    if recipe.memory == "none":
        raise CarbonError(f"memory_type is {name!r}, but profile {recipe.name!r} models silicon dies only")
    if recipe.memory == "act":
        kind = factors.memory(name, source_id="act")
        good = recipe.memory_yield if kind.divided_by_yield else 1.0
        parts["memory"] = embodied.capacity(gb, values.use(kind.per_gb), good)
        return 0.0
    parts["memory"] = memory.embodied(
        values, name, gb, modules=as_number("memory_modules", device.memory_modules, low=0.0), year=device.memory_year
    )
    return parts["memory"] if name.lower() in memory.HBM else 0.0


def _ic_packaging(device: Device, values: Values) -> Numeric:
    """150 g for each logic and each memory IC; one memory IC where there is memory unless told otherwise."""
    logic = as_number("n_ics", device.n_ics, low=0.0)
    gb = as_number("memory_gb", device.memory_gb, low=0.0)
    if device.memory_ics is None:
        extra: Numeric = where(gb > 0.0, 1.0 + 0.0 * gb, 0.0 * gb)
    else:
        extra = as_number("memory_ics", device.memory_ics, low=0.0)
    return (logic + extra) * values.item("act_ic_package")


def _own_package(device: Device, values: Values, logic: Logic, stacked: Numeric) -> packaging.Assembly:
    stacks = as_number("memory_stacks", device.memory_stacks, low=0.0)
    stack_area = as_number("memory_stack_area_mm2", device.memory_stack_area_mm2, low=0.0)
    carrier = device.carrier_area_mm2
    return packaging.assemble(
        values,
        device.package or "monolithic",
        silicon_kgco2e=logic.kgco2e + stacked,
        total_mm2=logic.total_mm2 + stacks * stack_area,
        largest_mm2=logic.largest_mm2,
        joined=logic.count + stacks,
        ci_g_per_kwh=logic.main.ci_g_per_kwh,
        bridges=None if device.bridges is None else as_number("bridges", device.bridges, low=0.0),
        carrier_area_mm2=None if carrier is None else as_number("carrier_area_mm2", carrier, low=0.0, open_low=True),
        test_yield=as_number("test_yield", device.test_yield, low=0.0, high=1.0, open_low=True),
    )


def _add_blocks(device: Device, values: Values, parts: dict[str, Numeric], logic: Logic | None) -> None:
    gb = as_number("storage_gb", device.storage_gb, low=0.0)
    if not _all_zero(gb):
        drives = as_number("storage_drives", device.storage_drives, low=0.0)
        parts["storage"] = memory.flash(values, gb, drives=drives, year=device.storage_year)
    if not _all_zero(device.hdds):
        parts["hdd"] = as_number("hdds", device.hdds, low=0.0) * values.item("hdd_kgco2e")
    if device.system not in (None, "none"):
        if device.system not in SYSTEMS:
            raise CarbonError(f"system {device.system!r} is unknown; known: {', '.join(SYSTEMS)}, none (the chips alone)")
        parts["system"] = values.item(SYSTEMS[device.system])
    if hasattr(device.host_share, "shape") or device.host_share > 0:
        parts["host"] = device.host_share * values.item(SYSTEMS["server"])
    if not _all_zero(device.pcb_cm2):
        parts["board"] = as_number("pcb_cm2", device.pcb_cm2, low=0.0) * values.item("pcb_kgco2e_cm2")
    if not _all_zero(device.cpu_packages):
        parts["cpu_packages"] = as_number("cpu_packages", device.cpu_packages, low=0.0) * values.item("cpu_package_kgco2e")
    if not _all_zero(device.design_iterations):
        if logic is None:
            raise CarbonError("design_iterations is given, but the device has no die (area_mm2 is missing)")
        runs = as_number("design_iterations", device.design_iterations, low=0.0)
        made = as_number("parts_made", device.parts_made, low=0.0, open_low=True)
        parts["design"] = design_carbon(values, logic.main.area_mm2, device.node_nm) * runs / made


def design_carbon(values: Values, area_mm2: Numeric, node_nm: Any) -> Numeric:
    """Return kgCO2e of one design iteration of a die (ECO-CHIP): gates / gates per core hour * 10 W * 700 g/kWh."""
    transistors = area_mm2 * values.fab("ecochip_transistors_per_mm2", node_nm)
    hours = transistors / values.item("eco_transistors_per_gate") / values.fab("ecochip_gates_per_core_hour", node_nm)
    return values.item("eco_design_core_w") * hours / 1000.0 * values.item("eco_design_gco2e_per_kwh") / 1000.0


def _all_zero(value: Numeric) -> bool:
    return not bool((value != 0.0).any()) if hasattr(value, "any") else value == 0.0
