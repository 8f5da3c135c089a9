"""Specifications and tables against the functions that they stand for, called one by one, at uneven numbers and at the edges of their
rules."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carbon import CarbonError
from carbon.analysis import batch, estimate, robustness, specification, uncertainty
from carbon.analysis.assumed import assumptions
from carbon.analysis.uncertainty import Range
from carbon.device import device as devices
from carbon.embodied import act, memory
from carbon.factors import grid, tables
from carbon.factors.values import Values
from carbon.operational import llm, service, water

FEW = {"uncertainty": {"draws": 3}}
MADE = {"area_mm2": 137.3, "node_nm": 7, "fab_yield": 0.871, "ci_g_per_kwh": 411.3}


def near(value: Any) -> Any:
    return pytest.approx(value, rel=1e-12)


# ---- specifications ----


@pytest.mark.parametrize("profile", ["default", "act2"])
def test_use_by_power_and_by_request(profile: str) -> None:
    """Uneven numbers, then every default of [use]; a year is that of the profile."""
    intensity = grid.lookup("FRA").gco2e_per_kwh
    base = {"profile": profile, "device": MADE, **FEW}
    kg = devices.device_embodied(profile, **MADE).embodied_kgco2e
    use = {"grid": "FRA", "power_w": 37.1, "duty_cycle": 0.37, "idle_w": 2.9, "lifetime_years": 3.3, "pue": 1.17}
    found = estimate.estimate({**base, "use": use})
    kwh = (37.1 * 0.37 + 2.9 * 0.63) * 3.3 * 8766.0 / 1000.0
    assert (found.operational_kgco2e, found.embodied_kgco2e) == (near(kwh * 1.17 * intensity / 1000.0), near(kg))
    assert (found.total_kgco2e, found.machines_kwh, found.pue, found.lifetime_years) == (
        near(kg + kwh * 1.17 * intensity / 1000.0),
        near(kwh),
        1.17,
        3.3,
    )
    found = estimate.estimate({**base, "use": {"grid": "FRA", "power_w": 37.1, "lifetime_years": 3.3}})
    assert found.operational_kgco2e == near(37.1 * 3.3 * 8.766 * intensity / 1000.0) and found.pue == 1.0
    asked = {"grid": "FRA", "energy_j_per_request": 2.3, "latency_s": 0.37, "rate_per_s": 2.7, "lifetime_years": 3.3}
    given = {"rate_per_s": 2.7, "lifetime_years": 3.3, "gco2e_per_kwh": intensity}
    found = estimate.estimate({**base, "use": asked})
    assert found.operational_kgco2e == near(service.equal_service(2.3, 0.37, idle_w=0.0, **given).operational_kgco2e)
    found = estimate.estimate({**base, "use": {**asked, "idle_w": 3.1, "concurrency": 1.9, "pue": 1.17}})
    wanted = service.equal_service(2.3, 0.37, idle_w=3.1, concurrency=1.9, pue=1.17, **given)
    assert found.operational_kgco2e == near(wanted.operational_kgco2e)
    alone = estimate.estimate(base)
    assert (alone.operational_kgco2e, alone.machines_kwh, alone.pue, alone.lifetime_years) == (0.0, 0.0, 1.0, None)


def test_components_by_their_counts() -> None:
    other = {"memory_type": "ddr4", "memory_gb": 7.3, "memory_modules": 2}
    spec = {"device": {"name": "a", "count": 2.5, **MADE}, "component": [{"count": 3, **other}], **FEW}
    found = estimate.estimate(spec)
    one, two = (devices.device_embodied("default", **inputs) for inputs in (MADE, other))
    assert found.counts == {"a": 2.5, "component2": 3.0}
    wanted = {f"a.{name}": 2.5 * kg for name, kg in one.parts.items()} | {f"component2.{name}": 3 * kg for name, kg in two.parts.items()}
    assert found.embodied_parts == {name: near(kg) for name, kg in wanted.items()}
    assert found.component_spreads["a"].values == pytest.approx(
        found.part_spreads["a.die"].values + found.part_spreads["a.packaging"].values
    )
    single = estimate.estimate({"device": {"count": 0.5, **other}, **FEW})
    assert single.embodied_kgco2e == near(0.5 * two.embodied_kgco2e) and set(single.embodied_parts) == {"memory"}
    assert single.component_spreads["device"].p50 == near(single.embodied.p50)
    none = estimate.estimate({"component": [{"name": "a", "count": 0, **other}, {"name": "b", "system": "card"}], **FEW})
    assert none.embodied_parts["a.memory"] == 0.0


def test_metrics_of_an_estimate() -> None:
    use = {"grid": "FRA", "power_w": 37.1, "lifetime_years": 3.3}
    wanted = {"delay_s": 0.37, "energy_j": 2.3, "flops": 7.9e20, "basis": "achieved"}
    found = estimate.estimate({"device": MADE, "use": use, "metrics": wanted, "functional_unit": {"name": "token", "total": 7.7e9}, **FEW})
    made, used = found.embodied_kgco2e, found.operational_kgco2e
    values = {one.name: one.value for one in found.metrics}
    assert values == {
        "total": near(made + used), "per functional unit": near((made + used) * 1000.0 / 7.7e9), "CDP": near(made * 0.37),
        "CEP": near(made * 2.3), "C2EP": near(made**2 * 2.3), "CE2P": near(made * 2.3**2), "tCDP": near((made + used) * 0.37),
        "CCI": near((made + used) * 1000.0 / 790.0),
    }  # fmt: skip
    by_request = {"grid": "FRA", "energy_j_per_request": 2.3, "latency_s": 0.37, "rate_per_s": 2.7, "lifetime_years": 3.3}
    found = estimate.estimate({"device": MADE, "use": by_request, "functional_unit": {"per_request": 0.37}, **FEW})
    assert found.metrics[-1].value == near(found.total_kgco2e * 1000.0 / (0.37 * 2.7 * 3.3 * 365.25 * 86400.0))
    assert found.metrics[-1].unit == "gCO2e/unit"
    for total in (0, -1):
        with pytest.raises(CarbonError, match="functional units"):
            estimate.estimate({"device": MADE, "functional_unit": {"total": total}, **FEW})
    for missing in ("delay_s", "energy_j"):
        with pytest.raises(CarbonError, match=f"{missing} is missing"):
            estimate.estimate({"device": MADE, "metrics": {k: v for k, v in wanted.items() if k != missing}, **FEW})


@pytest.mark.parametrize(
    ("total", "told"), [(3.3 * 8766.0, False), (3.3 * 8766.0 * 1.009, False), (3.3 * 8766.0 * 1.011, True), (1.0, True)]
)
def test_a_stated_number_of_hours_is_that_of_the_lifetime_within_a_hundredth(total: float, told: bool) -> None:
    use = {"grid": "FRA", "power_w": 37.1, "lifetime_years": 3.3}
    found = estimate.estimate({"device": {"hdds": 1}, "use": use, "functional_unit": {"name": "Hour", "total": total}, **FEW})
    assert any("functional_unit" in line for line in found.warnings) is told


@pytest.mark.parametrize(
    ("inputs", "warned"),
    [
        ({"area_mm2": 100, "node_nm": 7, "cpu_packages": 2, "dies": 2}, False),
        ({"area_mm2": 100, "node_nm": 7, "cpu_packages": 2}, True),
        ({"area_mm2": 100, "node_nm": 7, "cpu_packages": 1}, False),
        ({"area_mm2": 100, "node_nm": 7}, False),
        ({"cpu_packages": 2, "system": "server"}, False),
        ({"area_mm2": 100, "node_nm": 7, "cpu_packages": 2, "chiplets": [{"area_mm2": 50, "node_nm": 14}]}, False),
    ],
)
def test_more_processors_than_dies(inputs: dict[str, Any], warned: bool) -> None:
    found = estimate.estimate({"device": inputs, **FEW})
    assert any("of one die a processor" in line for line in found.warnings) is warned


@pytest.mark.parametrize(("rate", "warned"), [(1.0, False), (1.01, True)])
def test_a_service_that_cannot_keep_up_warns(rate: float, warned: bool) -> None:
    use = {"grid": "FRA", "energy_j_per_request": 2.3, "latency_s": 1.0, "rate_per_s": rate, "lifetime_years": 3.3}
    found = estimate.estimate({"device": {"hdds": 1}, "use": use, **FEW})
    assert any("utilisation is" in line for line in found.warnings) is warned


@pytest.mark.parametrize("good", [0.5, 0.871, 0.95])
def test_ranges_that_follow_from_what_was_used(good: float) -> None:
    """A constant yield of 75 to 112 % of itself and at most one; a grid of use 15 % to either side, and where other sources lie."""
    found = estimate.estimate({"device": {**MADE, "fab_yield": good}, **FEW})
    ends = {bar.key: (bar.low, bar.high) for bar in found.tornado}
    assert ends["fab.yield"] == (near(0.75 * good), near(min(1.0, 1.12 * good)))
    several = estimate.default_ranges({}, {"fab.yield": np.array([0.5, 0.6])})
    assert several == {}
    own = estimate.grid_range(grid.lookup("411.3"), fab=False)
    assert (own.low, own.mode, own.high) == (near(0.85 * 411.3), 411.3, near(1.15 * 411.3))
    fab = estimate.grid_range(grid.lookup("411.3"), fab=True)
    assert (fab.low, fab.high) == (
        near(411.3 * tables.item("fab_ci_range_low").value), near(411.3 * tables.item("fab_ci_range_high").value),
    )  # fmt: skip
    place = grid.lookup("DEU")
    others = [one.gco2e_per_kwh for one in grid.same_place(place)]
    assert others and place.gco2e_per_kwh not in others
    found_range = estimate.grid_range(place, fab=False)
    assert found_range.low == min(0.85 * place.gco2e_per_kwh, *others) and found_range.high == max(1.15 * place.gco2e_per_kwh, *others)


@pytest.mark.parametrize("width", [0, 2, 4])
def test_ranges_are_three_numbers(width: int) -> None:
    with pytest.raises(CarbonError, match="three numbers"):
        estimate.estimate({"device": {"hdds": 1}, "ranges": {"packaging.hdd_kgco2e": [1.0] * width}, **FEW})


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("uncertainty", "draws", 1), ("uncertainty", "draws", 1_000_000), ("uncertainty", "seed", 0), ("uncertainty", "seed", 2**32 - 1),
        ("device", "memory_year", 1950), ("device", "storage_year", 2200), ("device", "area_mm2", 1e6), ("device", "node_nm", 1e4),
        ("device", "count", 1e9), ("use", "power_w", 1e12), ("use", "power_w", -1e12), ("metrics", "flops", 1e30),
        ("functional_unit", "total", 1e30), ("harvest", "units", 1), ("harvest", "needed", 1_000_000), ("use", "grid", {"FRA": 1e12}),
    ],
)  # fmt: skip
def test_sizes_that_exist_to_their_last(where: str, key: str, value: Any) -> None:
    """The value itself is taken, one step further out is not."""
    step = {"uncertainty": 1, "harvest": 1, "memory_year": 1, "storage_year": 1}.get(where) or {"memory_year": 1, "storage_year": 1}.get(
        key
    )
    lowest = value in (0, 1, 1950)
    number = next(iter(value.values())) if isinstance(value, dict) else value
    beyond = number + (-step if lowest else step) if step else number * (1 + 1e-12)
    specification._value(where, key, value, ranged=False)
    with pytest.raises(CarbonError, match="is needed"):
        specification._value(where, key, {"FRA": beyond} if isinstance(value, dict) else beyond, ranged=False)


@pytest.mark.parametrize(
    ("key", "value", "fits"),
    [("draws", 2.0, True), ("draws", 2.5, False), ("draws", True, False), ("factors", True, True), ("factors", 1, False),
     ("name", "a", True),
     ("name", True, False), ("name", 3, True), ("name", [1], False), ("node_nm", "7nm", True), ("area_mm2", "7", False),
     ("area_mm2", True, False), ("area_mm2", math.nan, False), ("area_mm2", [1, 2, 3], True), ("area_mm2", [1, 2, "3"], False)],
)  # fmt: skip
def test_values_are_of_their_kind(key: str, value: Any, fits: bool) -> None:
    if fits:
        specification._value("device", key, value, ranged=True)
    else:
        with pytest.raises(CarbonError, match="is needed"):
            specification._value("device", key, value, ranged=True)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"storage_gb": 1}, ["storage_year", "storage_drives"]),
        ({"storage_gb": 0}, []),
        ({"storage_gb": 1, "storage_year": 2020, "storage_drives": 1}, []),
        ({"storage_gb": 1, "storage_year": 2020, "storage_drives": 0}, ["storage_drives"]),
        ({"memory_gb": 1, "memory_type": "ddr4"}, ["memory_year", "memory_modules"]),
        ({"memory_gb": 1, "memory_type": "LPDDR4"}, ["memory_year"]),
        ({"memory_gb": 1, "memory_type": "hbm3"}, []),
        ({"memory_gb": 1, "memory_type": "hbm3", "memory_year": 2030}, []),  # no density by year
        ({"storage_gb": 1, "storage_year": 2021, "storage_drives": 1}, ["storage_year"]),  # the table of flash ends in 2020
        ({"memory_gb": 1, "memory_type": "lpddr5", "memory_year": 2020}, []),
        ({"memory_gb": 1, "memory_type": "lpddr5", "memory_year": 2021}, ["memory_year"]),
        ({"memory_gb": 0, "memory_type": "ddr4"}, []),
        ({"system": "server", "area_mm2": 100}, ["cpu_packages"]),
        ({"system": "server", "area_mm2": 100, "cpu_packages": 1}, []),
        ({"system": "card", "area_mm2": 100}, []),
        ({"area_mm2": 299.9}, []),
        ({"area_mm2": 300}, ["harvest"]),
        ({"area_mm2": 300, "d0_per_cm2": 0.1}, []),
    ],
)
def test_what_is_taken_for_granted(inputs: dict[str, Any], words: list[str]) -> None:
    told = assumptions("x", inputs)
    assert [line.split()[1] for line in told] == words


def test_a_year_after_the_newest_known_density_says_what_stands_for_it() -> None:
    told = assumptions("ssd", {"storage_gb": 1, "storage_year": 2023, "storage_drives": 1})
    assert told == ["ssd: storage_year is 2023, the newest known density of flash is of 2020; it stands for 2023"]


# ---- tables ----


def run(folder: Path, kind: str, text: str, profile: str = "default") -> dict[str, list[Any]]:
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return {
        name: [v == "true" if v in ("true", "false") else float(v) for v in column]
        for name, column in batch.run(folder / "t.csv", kind, profile).added.items()
    }


def test_rows_of_dies_are_devices(tmp_path: Path) -> None:
    """Rows of different nodes, abatements and packages, and in that order; a defect density per mm2 is a hundredth of one per cm2."""
    header = "node,area_mm2,fab_ci_g_per_kwh,abatement_pct,d0_per_mm2,dies,package\n"
    rows = [
        ("7", 137.3, 411.3, 97.0, 0.00117, 2, "rdl"),
        ("14nm", 71.9, 311.7, 95.5, 0.0021, 1, "monolithic"),
        ("7", 900.0, 411.3, 97.0, 0.00117, 2, "rdl"),
    ]
    found = run(tmp_path, "die", header + "".join(",".join(map(str, row)) + "\n" for row in rows))
    for i, (node, area, ci, gone, d0, dies, package) in enumerate(rows):
        one = devices.device_embodied(
            "default", node_nm=tables.parse_node(node), area_mm2=area, ci_g_per_kwh=ci, abatement_pct=gone, d0_per_cm2=100 * d0,
            dies=float(dies), package=package,
        )  # fmt: skip
        assert found["total_kgco2e"][i] == near(one.embodied_kgco2e) and found["yield"][i] == near(one.fab_yield)
        assert found["feasible"][i] is bool(one.feasible)
        assert {name: found[f"{name}_kgco2e"][i] for name in one.parts} == {name: near(kg) for name, kg in one.parts.items()}
    assert found["feasible"] == [True, True, False] and found["carrier_kgco2e"][1] == 0.0
    assert run(tmp_path, "die", "node,area_mm2\n7,137.3\n", "act2")["packaging_kgco2e"] == [0.0]
    assert run(tmp_path, "die", "node,area_mm2,n_ics\n7,137.3,2\n", "act2")["packaging_kgco2e"] == [near(0.3)]


def test_rows_of_memory_are_devices(tmp_path: Path) -> None:
    found = run(tmp_path, "memory", "kind,type,gb,modules,year\ndram,ddr4,7.3,2,2019\nssd,x,73.0,3,2020\ndram,ddr4,0.5,0,2017\n")
    wanted = [
        memory.embodied(Values(), "ddr4", 7.3, modules=2.0, year=2019), memory.flash(Values(), 73.0, drives=3.0, year=2020),
        memory.embodied(Values(), "ddr4", 0.5, year=2017),
    ]  # fmt: skip
    assert found["total_kgco2e"] == found["memory_kgco2e"] == [near(kg) for kg in wanted]
    assert run(tmp_path, "memory", "type,gb\nddr4,7.3\n")["total_kgco2e"] == [near(memory.embodied(Values(), "ddr4", 7.3))]
    name = next(one for one, factor in tables.memories().items() if factor.source_id == "act")
    a_gb = tables.memory(name, source_id="act").per_gb.value
    found = run(tmp_path, "memory", f"type,gb,n_ics\n{name},7.3,2.5\n{name},0.5,0\n", "act2")
    assert found["memory_kgco2e"] == [near(7.3 * a_gb / 0.875), near(0.5 * a_gb / 0.875)]
    assert found["packaging_kgco2e"] == [near(0.375), 0.0] and found["total_kgco2e"][0] == near(7.3 * a_gb / 0.875 + 0.375)
    assert run(tmp_path, "memory", f"type,gb,fab_yield\n{name},7.3,0.5\n", "act2")["memory_kgco2e"] == [near(14.6 * a_gb)]


def test_rows_of_operation_boards_and_requests(tmp_path: Path) -> None:
    found = run(tmp_path, "operation", "power_w,duty_cycle,lifetime_years,grid,pue,idle_w\n37.1,0.37,3.3,FRA,1.17,2.9\n5,1,1,DEU,1,2\n")
    at = [grid.lookup(place).gco2e_per_kwh / 1e6 for place in ("FRA", "DEU")]
    hours = [3.3 * 8766.0 * 1.17, 8766.0]
    assert found["active_kgco2e"] == [near(37.1 * 0.37 * hours[0] * at[0]), near(5 * hours[1] * at[1])]
    assert found["idle_kgco2e"] == [near(2.9 * 0.63 * hours[0] * at[0]), 0.0]
    assert found["total_kgco2e"][0] == near((37.1 * 0.37 + 2.9 * 0.63) * hours[0] * at[0])
    usual = run(tmp_path, "operation", "power_w,lifetime_years,ci_g_per_kwh\n37.1,3.3,411.3\n")
    assert usual["total_kgco2e"] == usual["active_kgco2e"] == [near(37.1 * 3.3 * 8.766 * 0.4113)] and usual["idle_kgco2e"] == [0.0]
    assert run(tmp_path, "pcb", "area_cm2,layers\n37.3,7\n")["total_kgco2e"] == [near(37.3 * tables.item("pcb_kgco2e_cm2").value)]
    assert run(tmp_path, "pcb", "area_cm2,layers\n37.3,6\n", "act2")["total_kgco2e"] == [near(act.pcb_act(37.3, 6))]
    found = run(tmp_path, "llm", "active_b,total_b,out_tokens,zone,dc_wue\n6.7,33.4,211,FRA,0.7\n6.7,33.4,211,WOR,0\n")
    for i, (zone, own) in enumerate((("FRA", 0.7), ("WOR", 0.0))):
        mix = water.mix_litres_per_kwh(zone)
        one = llm.request(
            6.7, 33.4, 211.0, gco2e_per_kwh=grid.lookup(f"ecologits:{zone}").gco2e_per_kwh, water_mix_l_per_kwh=mix, wue_l_per_kwh=own
        )
        assert (found["total_kgco2e"][i], found["water_litres"][i], found["energy_kwh_used"][i]) == (
            near(one.total_kgco2e),
            near(one.water_l),
            near(one.energy_kwh),
        )
        assert (found["use_kgco2e"][i], found["embodied_kgco2e"][i]) == (near(one.use_kgco2e), near(one.embodied_kgco2e))
    columns = "active_b,total_b,out_tokens,mix_gwp_kg_kwh,mix_wue,pue,batch,bits\n6.7,33.4,211,0.4113,3.3,1.17,37,8\n"
    one = llm.request(6.7, 33.4, 211.0, gco2e_per_kwh=411.3, water_mix_l_per_kwh=3.3, pue=1.17, batch=37.0, bits=8.0)
    assert run(tmp_path, "llm", columns)["water_litres"] == [near(one.water_l)]
    assert run(tmp_path, "llm", columns)["total_kgco2e"] == [near(one.total_kgco2e)]
    bare = run(tmp_path, "llm", "active_b,total_b,out_tokens,mix_gwp_kg_kwh\n6.7,7.0,211,0.4113\n")
    assert bare["total_kgco2e"] == [near(llm.request(6.7, 7.0, 211.0, gco2e_per_kwh=411.3).total_kgco2e)] and bare["water_litres"] == [0.0]


@pytest.mark.parametrize(("text", "where"), [
    ("node,area_mm2\n7,1\n7,0\n", "row 2, column 'area_mm2'"), ("node,area_mm2\n7,1\n,1\n", "row 2, column 'node'"),
    ("node,area_mm2,fab_yield\n7,1,1.001\n", "row 1, column 'fab_yield'"), ("node,area_mm2,dies\n7,1,0.9\n", "row 1, column 'dies'"),
    ("node,area_mm2\n7,1\n7,1\n7,90000\n", "row 3, column 'area_mm2'"), ("node,area_mm2\n7,1\nx,1\n", "row 2, column 'node'"),
    ("node,area_mm2,fab_grid,fab_ci_g_per_kwh\n7,1,FRA,1\n", "row 1, column 'fab_ci_g_per_kwh'"),
    ("node,area_mm2,fab_grid\n7,1,FRA\n7,1,Frnce\n", "row 2, column 'fab_grid'"),
    ("node,area_mm2,abatement_pct\n7,1,97\n7,1,90\n", "row 2, column 'abatement_pct'"),
    ("node,area_mm2\n7,1\n7\n", "row 2 of table"),
])  # fmt: skip
def test_a_bad_cell_is_named_by_its_row(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(CarbonError, match=where):
        run(tmp_path, "die", text)


@pytest.mark.parametrize(("off", "refused"), [(0.9e-6, False), (1.1e-6, True), (-1.1e-6, True)])
def test_a_place_and_a_number_agree_to_a_millionth(tmp_path: Path, off: float, refused: bool) -> None:
    at = grid.lookup("FRA").gco2e_per_kwh
    text = f"power_w,lifetime_years,grid,ci_g_per_kwh\n1,1,FRA,{at!r}\n1,1,FRA,{at * (1 + off)!r}\n"
    if refused:
        with pytest.raises(CarbonError, match="row 2, column 'ci_g_per_kwh'"):
            run(tmp_path, "operation", text)
    else:
        assert len(run(tmp_path, "operation", text)["total_kgco2e"]) == 2


# ---- draws ----


@pytest.mark.parametrize("kind", ["triangular", "uniform"])
@pytest.mark.parametrize("ends", [(1.0, 1.0, 4.0), (1.0, 4.0, 4.0), (1.0, 1.7, 4.0), (-3.0, 0.5, 0.7), (2.0, 2.0, 2.0)])
def test_a_quantile_is_where_the_share_of_the_area_is_to_the_left(kind: str, ends: tuple[float, float, float]) -> None:
    low, mode, high = ends
    shares = np.array([0.0, 0.013, 0.3, 0.5, 0.77, 1.0])
    points = Range(*ends, kind).quantile(shares)
    if low == high:
        assert points.tolist() == [2.0] * 6
        return
    for share, x in zip(shares.tolist(), points.tolist(), strict=True):
        left = (
            (x - low) ** 2 / ((high - low) * (mode - low))
            if x < mode
            else 1 - (high - x) ** 2 / ((high - low) * (high - mode))
            if x > mode
            else (mode - low) / (high - low)
        )
        assert share == pytest.approx((x - low) / (high - low) if kind == "uniform" else left, abs=1e-12)


def test_a_spread_holds_percentiles_by_design() -> None:
    drawn = np.random.default_rng(3).normal(size=(101, 3))
    found = uncertainty.spread(drawn)
    for name, share in (("p5", 5), ("p50", 50), ("p95", 95)):
        assert getattr(found, name).tolist() == [pytest.approx(sorted(drawn[:, i])[share]) for i in range(3)]
    assert found.mean == pytest.approx(drawn.mean(axis=0)) and found.ratio() == pytest.approx(found.p95 / found.p5)


def test_stability_whatever_is_compared_at_once() -> None:
    """Ties share the least; blocks of any size give the same; one design keeps its order."""
    rng = np.random.default_rng(5)
    point, drawn = rng.integers(0, 4, (6, 2)).astype(float), rng.integers(0, 4, (37, 6, 2)).astype(float)
    whole = uncertainty.stability(point, drawn)
    for cells in (1, 36, 37 * 5, 10**9):
        part = uncertainty.stability(point, drawn, cells=cells)
        assert (part.stays == whole.stays).all() and (part.order == whole.order).all() and part.best == pytest.approx(whole.best)
        assert (part.whole_front, part.pairs) == (whole.whole_front, whole.pairs)
    best = np.zeros(6)
    for draw in drawn[:, :, 0]:
        best[draw == draw.min()] += 1 / (draw == draw.min()).sum() / 37
    assert whole.best == pytest.approx(best)
    one = uncertainty.stability(point[:1], drawn[:, :1])
    assert (one.pairs, one.whole_front, one.stays.tolist(), one.best.tolist()) == (1.0, 1.0, [1.0], [1.0])
    for shape in ((0, 2), (2,)):
        with pytest.raises(CarbonError, match="objectives have shapes"):
            uncertainty.stability(np.zeros(shape), np.zeros((3, *shape)))


def test_designs_of_two_groups_under_the_same_draws() -> None:
    """A group's devices, count and grid are its own; factors that both use are drawn once; a clean grid draws nothing of use."""
    near_, clean = grid.lookup("FRA"), grid.custom(0.0, signal="average", boundary="lifecycle", source="mine")
    inputs = {"area_mm2": np.array([137.3, 71.9]), "node_nm": 7, "fab_grid": "taiwan"}
    groups = [
        robustness.Group(np.array([2, 0]), inputs, near_, np.array([3, 1])),
        robustness.Group(np.array([1]), {**inputs, "area_mm2": np.array([137.3])}, clean),
    ]
    kg = np.asarray(devices.device_embodied("default", **inputs).embodied_kgco2e)
    made, used = np.array([kg[1], kg[0], 3 * kg[0]]), np.array([7.3, 0.0, 2.9])
    metrics = {"embodied_kgco2e": made, "operational_kgco2e": used, "kgco2e_per_request": (made + used) / np.array([3.0, 5.0, 7.0])}
    moved, ranges = robustness.drawn_metrics("default", groups, metrics, draws=9, seed=4)
    drawn = uncertainty.draws(ranges, 9, 4)
    assert moved["embodied_kgco2e"][:, 2] == pytest.approx(3 * moved["embodied_kgco2e"][:, 1])
    assert moved["embodied_kgco2e"][:, 1] == pytest.approx(
        [
            float(
                devices.device_embodied(
                    "default",
                    overrides={k: v[i] for k, v in drawn.items() if k != "use.grid"},
                    area_mm2=137.3,
                    node_nm=7,
                    fab_grid="taiwan",
                ).embodied_kgco2e
            )
            for i in range(9)
        ]
    )
    own = uncertainty.draws({"use.grid": estimate.grid_range(near_, fab=False)}, 9, 4)["use.grid"] / near_.gco2e_per_kwh
    assert moved["operational_kgco2e"] == pytest.approx(np.column_stack([7.3 * own, 0 * own, 2.9 * own]))
    assert moved["total_kgco2e"] == pytest.approx(moved["embodied_kgco2e"] + moved["operational_kgco2e"])
    assert moved["kgco2e_per_request"] == pytest.approx(moved["total_kgco2e"] / np.array([3.0, 5.0, 7.0]))
    again, _ = robustness.drawn_metrics("default", groups, {k: v for k, v in metrics.items() if k != "kgco2e_per_request"}, draws=9, seed=4)
    assert again["kgco2e_per_request"] == pytest.approx(again["total_kgco2e"])
    with pytest.raises(CarbonError, match="1 of 3 designs are in no group"):
        robustness.drawn_metrics("default", groups[:1], metrics, draws=2)
