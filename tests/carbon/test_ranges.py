"""What carbon's functions and devices take and what they refuse: every bound from both sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carbon import CarbonError
from carbon.analysis import estimate
from carbon.embodied import act, threedcarbon, yields
from carbon.operational import llm, service, water

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
]  # fmt: skip


@pytest.mark.parametrize(("call", "name", "outside", "inside"), ROWS)
def test_bounds_are_where_they_are_said_to_be(call: Callable[[float], Any], name: str, outside: float, inside: float) -> None:
    with pytest.raises(CarbonError, match=name):
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
