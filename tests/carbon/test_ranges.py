"""What carbon's functions and devices take and what they refuse: every bound from both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carbon import CarbonError
from carbon.analysis import estimate, metrics
from carbon.device.device import device_embodied
from carbon.embodied import act, threedcarbon, yields
from carbon.factors import grid
from carbon.operational import computing, llm, service, water

LITTLE = 1e-3
# From zero on; above zero; from one on: (the last value outside, the first one inside).
FROM_0, ABOVE_0, FROM_1 = (-LITTLE, 0.0), (0.0, LITTLE), (1.0 - LITTLE, 1.0)


def served(**given: Any) -> Any:
    usual = {"energy_j_per_request": 1.0, "latency_s": 0.1, "idle_w": 1.0, "rate_per_s": 1.0, "lifetime_years": 3.0, "gco2e_per_kwh": 400.0}
    return service.equal_service(**(usual | given))


def powered(**given: Any) -> Any:
    usual = {"power_w": 1.0, "duty_cycle": 0.5, "lifetime_years": 1.0, "gco2e_per_kwh": 400.0}
    return service.power_hours(**(usual | given))


def requested(**given: Any) -> Any:
    usual = {"active_parameters_b": 7.0, "total_parameters_b": 7.0, "output_tokens": 100.0, "gco2e_per_kwh": 400.0}
    return llm.request(**(usual | given))


def cooled(**given: Any) -> Any:
    return water.operational_litres(**({"it_kwh": 1.0, "wue_l_per_kwh": 1.0, "mix_l_per_kwh": 1.0} | given))


def made(**given: Any) -> Any:
    return estimate.estimate({"name": "x", "device": {"area_mm2": 100.0, "node_nm": 7, **given}})


def by_default(**given: Any) -> Any:
    """A device with every kind of part, so that every input is read."""
    usual: dict[str, Any] = {"area_mm2": 100.0, "node_nm": 7, "memory_type": "ddr4", "memory_gb": 1.0, "storage_gb": 1.0, "package": "emib",
                             "memory_stacks": 1.0, "design_iterations": 1.0, "parts_made": 1e4}  # fmt: skip
    return device_embodied("default", **(usual | given))


def by_act(**given: Any) -> Any:
    return device_embodied("act2", **({"area_mm2": 100.0, "node_nm": 7, "memory_type": "lpddr4", "memory_gb": 1.0} | given))


def fixed(**given: Any) -> Any:
    return service.fixed_requests(**({"energy_j_per_request": 1.0, "requests": 1.0, "gco2e_per_kwh": 1.0} | given))


def share(**given: Any) -> Any:
    return metrics.embodied_share(**({"total_embodied_kg": 1.0, "hours": 1.0, "lifetime_years": 1.0} | given))


def sci(**given: Any) -> Any:
    usual = {"energy_kwh": 1.0, "gco2e_per_kwh": 1.0, "embodied_kg": 1.0, "units": 1.0, "unit": "token", "grid_kind": "average"}
    return metrics.sci(**(usual | given))


def multiplied(**given: Any) -> Any:
    return metrics.products(**({"embodied_kgco2e": 1.0, "operational_kgco2e": 1.0, "delay_s": 1.0, "energy_j": 1.0} | given))


def cci(**given: Any) -> Any:
    return metrics.cci(**({"embodied_kgco2e": 1.0, "operational_kgco2e": 1.0, "flops": 1.0, "basis": "peak"} | given))


def paid_back(**given: Any) -> Any:
    return metrics.payback_years(**({"extra_embodied_kg": 1.0, "saved_w": 1.0, "gco2e_per_kwh": 1.0} | given))


def tied(**given: Any) -> Any:
    usual = {"embodied_1_kg": 1.0, "energy_1_kwh": 2.0, "embodied_2_kg": 2.0, "energy_2_kwh": 1.0}
    return metrics.break_even_intensity(**(usual | given))


def running(**given: Any) -> Any:
    design = {name: given.pop(name, 1.0) for name in ("embodied_kg", "busy_w", "idle_w")}
    usual = {"lifetime_years": 1.0, "gco2e_per_kwh": 1.0}
    return metrics.break_even_utilisation(metrics.Running(**design), metrics.Running(2.0, 3.0, 1.0), **(usual | given))


def of_ones_own(**given: Any) -> Any:
    return grid.custom(**given, signal="average", boundary="lifecycle", source="mine")


def harvested(**given: Any) -> Any:
    return yields.harvested(**({"area_mm2": 1.0, "d0_per_cm2": 0.1, "units": 2, "needed": 1, "repairable_fraction": 0.5} | given))


def emitted(**given: Any) -> Any:
    return computing.emissions(computing.from_power(1.0, 1.0, basis="given"), grid.lookup("250"), **given)


def used(**given: Any) -> Any:
    """An estimate whose [use] has one value as given."""
    usual = {"grid": "250", "power_w": 1.0, "lifetime_years": 1.0}
    return estimate.estimate({"device": {"hdds": 1}, "use": usual | given, "uncertainty": {"draws": 2}})


def row(call: Callable[..., Any], name: str, edges: tuple[float, float], **others: Any) -> Any:
    return pytest.param(lambda value: call(**{name: value}, **others), name, *edges, id=f"{call.__name__}-{name}")


ROWS = [
    *(row(act.logic_die, n, e, **o) for n, e, o in (
        ("area_mm2", ABOVE_0, {"cpa_kgco2e_cm2": 1.0}), ("fab_yield", ABOVE_0, {"area_mm2": 1.0, "cpa_kgco2e_cm2": 1.0}))),
    row(act.ic_packaging, "n_ics", FROM_0),
    row(act.capacity, "fab_yield", ABOVE_0, gb=1.0, kgco2e_per_gb=1.0),
    row(act.pcb_act, "area_cm2", FROM_0, layers=2),
    row(act.pcb_act, "layers", FROM_1, area_cm2=1.0),
    row(act.battery_act, "capacity_kwh", FROM_0),
    row(threedcarbon.die, "area_mm2", ABOVE_0, node_nm=7),
    row(yields.poisson, "area_mm2", FROM_0, d0_per_cm2=0.1),
    row(yields.poisson, "d0_per_cm2", FROM_0, area_mm2=1.0),
    row(yields.negative_binomial, "alpha", ABOVE_0, area_mm2=1.0, d0_per_cm2=0.1),
    row(yields.dies_per_wafer, "scribe_mm", FROM_0, area_mm2=1.0),
    row(yields.dies_per_wafer, "wafer_mm", ABOVE_0, area_mm2=1.0),
    row(yields.dies_per_wafer, "area_mm2", ABOVE_0),
    *(row(served, n, FROM_0) for n in ("energy_j_per_request", "latency_s", "idle_w", "rate_per_s", "gco2e_per_kwh")),
    *(row(served, n, e) for n, e in (("lifetime_years", ABOVE_0), ("concurrency", ABOVE_0), ("pue", FROM_1))),
    *(row(powered, n, FROM_0) for n in ("power_w", "duty_cycle", "lifetime_years", "gco2e_per_kwh", "idle_w")),
    row(powered, "duty_cycle", (1.0 + LITTLE, 1.0)),
    row(powered, "pue", FROM_1),
    *(row(requested, n, ABOVE_0) for n in ("active_parameters_b", "total_parameters_b")),
    *(row(requested, n, FROM_0) for n in ("output_tokens", "gco2e_per_kwh")),
    *(row(requested, n, FROM_1) for n in ("batch", "bits", "pue")),
    *(row(cooled, n, FROM_0) for n in ("it_kwh", "wue_l_per_kwh", "mix_l_per_kwh")),
    row(cooled, "pue", FROM_1),
    *(row(made, n, ABOVE_0) for n in ("area_mm2", "fab_yield", "test_yield")),
    *(row(made, n, FROM_0) for n in ("pcb_cm2", "cpu_packages", "hdds")),
    row(made, "dies", FROM_1),
    *(row(by_default, n, FROM_0) for n in (
        "memory_gb", "memory_modules", "memory_stack_area_mm2", "storage_gb", "storage_drives", "bridges", "pcb_cm2", "hdds",
        "cpu_packages", "design_iterations", "ci_g_per_kwh", "scribe_mm", "d0_per_cm2")),
    *(row(by_default, n, ABOVE_0) for n in ("area_mm2", "fab_yield", "test_yield", "parts_made", "alpha")),
    row(by_default, "carrier_area_mm2", ABOVE_0, package="rdl"),
    row(by_default, "memory_stacks", FROM_0, package="rdl"),
    *(row(by_default, n, (1.0 + LITTLE, 1.0)) for n in ("fab_yield", "test_yield")),
    *(row(by_act, n, FROM_0) for n in ("n_ics", "memory_ics", "memory_gb", "ci_g_per_kwh")),
    row(by_act, "wafer_mm", ABOVE_0),
    row(by_act, "fab_yield", (1.0 + LITTLE, 1.0)),
    *(row(fixed, n, FROM_0) for n in ("energy_j_per_request", "requests", "gco2e_per_kwh")),
    row(fixed, "pue", FROM_1),
    *(row(share, n, FROM_0) for n in ("total_embodied_kg", "hours", "resource_share")),
    row(share, "lifetime_years", ABOVE_0),
    *(row(sci, n, FROM_0) for n in ("energy_kwh", "gco2e_per_kwh", "embodied_kg")),
    row(sci, "units", ABOVE_0),
    *(row(multiplied, n, FROM_0) for n in ("embodied_kgco2e", "operational_kgco2e", "delay_s", "energy_j")),
    *(row(cci, n, FROM_0) for n in ("embodied_kgco2e", "operational_kgco2e")),
    row(cci, "flops", ABOVE_0),
    row(paid_back, "gco2e_per_kwh", FROM_0),
    row(paid_back, "pue", FROM_1),
    *(row(tied, n, FROM_0) for n in ("embodied_1_kg", "energy_1_kwh", "embodied_2_kg", "energy_2_kwh")),
    *(row(running, n, FROM_0) for n in ("embodied_kg", "busy_w", "idle_w", "gco2e_per_kwh")),
    row(running, "lifetime_years", ABOVE_0),
    row(running, "pue", FROM_1),
    row(of_ones_own, "gco2e_per_kwh", FROM_0),
    row(of_ones_own, "gco2e_per_kwh", (1e5 + LITTLE, 1e5)),
    row(harvested, "area_mm2", FROM_0),
    row(harvested, "d0_per_cm2", FROM_0),
    *(row(harvested, "repairable_fraction", e) for e in (FROM_0, (1.0 + LITTLE, 1.0))),
    *(row(emitted, "pue", e) for e in (FROM_1, (100.0, 100.0 - LITTLE))),
    row(act.capacity, "gb", FROM_0, kgco2e_per_gb=1.0),
    *(row(act.capacity, "fab_yield", e, gb=1.0, kgco2e_per_gb=1.0) for e in (ABOVE_0, (1.0 + LITTLE, 1.0))),
    row(act.logic_die, "fab_yield", (1.0 + LITTLE, 1.0), area_mm2=1.0, cpa_kgco2e_cm2=1.0),
    row(act.capacitor_act, "weight_kg", FROM_0, kind="mlcc", count=1.0),
    row(act.capacitor_act, "count", FROM_0, kind="tec", weight_kg=1.0),
    row(act.material_act, "weight_kg", FROM_0, kind="steel"),
    row(act.node_carbon_per_area, "ci_g_per_kwh", FROM_0, node_nm=7),
    row(threedcarbon.die, "ci_g_per_kwh", FROM_0, area_mm2=1.0, node_nm=7),
    row(threedcarbon.die, "metal_layers", FROM_1, area_mm2=1.0, node_nm=7),
    *(row(threedcarbon.package, "ci_g_per_kwh", FROM_0, method=m, dies=[(1.0, 7, 1)]) for m in ("MCM", "EMIB")),
    row(powered, "lifetime_years", (1000.0 + LITTLE, 1000.0)),
    row(served, "lifetime_years", (1000.0 + LITTLE, 1000.0)),
    *(row(used, n, FROM_0) for n in ("duty_cycle", "idle_w")),
    row(used, "duty_cycle", (1.0 + LITTLE, 1.0)),
    row(used, "pue", FROM_1),
    row(used, "lifetime_years", ABOVE_0),
]  # fmt: skip


@pytest.mark.parametrize(("call", "name", "outside", "inside"), ROWS)
def test_bounds_are_where_they_are_said_to_be(call: Callable[[float], Any], name: str, outside: float, inside: float) -> None:
    with pytest.raises(CarbonError, match="capacity_gb" if name == "gb" else name):
        call(outside)
    call(inside)


def test_energy_of_bonding_is_that_of_the_bonded_area() -> None:
    """kWh a cm2 of thermal compression: an interposer of twice the area takes twice of it, one at twice the intensity too; four
    bridges take four times what one does, a yield of each bond apart."""
    one, larger = (threedcarbon.package("Si_int", [(a, 7, 1)], as_printed=False).bonding_kgco2e for a in (100.0, 200.0))
    assert larger == pytest.approx(2 * one) and one > 0
    dirty = threedcarbon.package("Si_int", [(100.0, 7, 1)], as_printed=False, ci_g_per_kwh=2 * 583.0)
    assert dirty.bonding_kgco2e == pytest.approx(2 * one)
    assert threedcarbon.package("Si_int", [(100.0, 7, 1)]).bonding_kgco2e == 0.0
    bridges = [threedcarbon.package("EMIB", [(100.0, 7, n)], as_printed=False).bonding_kgco2e for n in (1, 2)]
    assert bridges[1] >= 2 * bridges[0]
