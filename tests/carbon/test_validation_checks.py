"""Comparisons that `dse validate carbon` prints can fail, and rows for other tools say what was spent."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest

from carbon.analysis import batch, inventory, uncertainty, validation
from carbon.device import device as devices
from carbon.factors import grid, grid_files, tables
from carbon.operational import computing


def test_a_comparison_sees_its_worst_pair() -> None:
    """Relative errors where something is expected, absolute ones where nothing is."""
    assert validation._worst([(1.1, 1.0), (2.0, 2.0)]) == (pytest.approx(0.1), 2)
    assert validation._worst([(0.5, 0.0), (1.1, 1.0), (-3.0, -2.0)]) == (0.5, 3)
    assert validation._worst([]) == (0.0, 0)
    assert validation._exact("x", [(1.0, 1.0)], 1e-12).passed
    assert not validation._exact("x", [(1.0 + 1e-9, 1.0)], 1e-12).passed


def test_a_factor_of_one_node_is_a_number() -> None:
    one, two = tables.fab_values("epa_kwh_cm2", 22), tables.fab_values("epa_kwh_cm2", [22, 7])
    assert type(one) is float
    assert two.tolist() == [one, tables.fab_values("epa_kwh_cm2", 7)]


def test_codecarbon_is_told_the_power_of_each_part() -> None:
    """Half an hour: twice the watt-hours."""
    spent = computing.Spent(1800.0, 0.0, 0.010, 0.002, 0.030, 0.042, "told")
    row = inventory.codecarbon_row("x", computing.emissions(spent, grid.lookup("france")), when=datetime.datetime(2026, 1, 1))
    assert [row[name] for name in ("cpu_power", "ram_power", "gpu_power")] == pytest.approx([20.0, 4.0, 60.0])


@pytest.mark.parametrize("words", ["LCA", "Life cycle", "life-cycle", "Lifecycle"])
def test_the_life_cycle_column_of_a_grid_file_is_taken_however_it_is_spelled(words: str) -> None:
    header = ["Datetime (UTC)", "Carbon Intensity gCO2eq/kWh (direct)", f"Carbon Intensity gCO2eq/kWh ({words})"]
    rows = [[f"2024-01-01 {hour:02}:00", "100", "150"] for hour in range(24)]
    found = grid_files._electricity_maps(header, rows, None)
    assert set(found.trace.gco2e_per_kwh.tolist()) == {150.0}


def test_requests_of_a_zone_are_those_at_its_intensity(tmp_path: Path) -> None:
    """Row by row, in their order: 'WOR' is the world, 'FRA' France (codes of ecologits)."""
    at = {zone: grid.lookup(f"ecologits:{zone}").gco2e_per_kwh / 1000.0 for zone in ("WOR", "FRA")}
    (tmp_path / "zones.csv").write_text("active_b,total_b,out_tokens,zone\n7,7,100,WOR\n7,7,100,FRA\n", encoding="utf-8")
    rows = "".join(f"7,7,100,{mix!r}\n" for mix in at.values())
    (tmp_path / "mixes.csv").write_text(f"active_b,total_b,out_tokens,mix_gwp_kg_kwh\n{rows}", encoding="utf-8")
    zones, mixes = (batch.run(tmp_path / name, "llm", "default") for name in ("zones.csv", "mixes.csv"))
    assert zones.added == mixes.added
    assert any(values[0] != values[1] for values in zones.added.values())


def product(name: str, published: float, estimate: float, low: float, high: float, **more: object) -> validation.Product:
    given = {"group": "breakdown", "calibration": False, "status": "", "boundary": "", "source": ""} | more
    return validation.Product(name, given.pop("group"), published, estimate, low, estimate, high, **given)  # type: ignore[arg-type]


NAMED = ("NVIDIA H100 SXM: integrated circuits", "NVIDIA H100 SXM: memory", "Dell R740: 12 x 32 GB DDR4")


@pytest.mark.parametrize(
    ("share", "silicon", "dram"), [(0.0, 1, 1), (0.19, 1, 1), (0.21, 1, 0), (0.34, 1, 0), (0.36, 0, 0), (-0.21, 1, 0), (-0.36, 0, 0)]
)
def test_the_goals_of_single_products(share: float, silicon: int, dram: int) -> None:
    """Silicon and memory of an H100 together within 35 %, the memory of a server within 20 %, either way."""
    listed = [product(name, kg, kg * (1 + share), 1.0, 1e3, calibration=True) for name, kg in zip(NAMED, (73.0, 51.0, 599.0), strict=True)]
    found = validation.product_checks(listed)
    assert [one.passed for one in found] == [bool(silicon), bool(dram)]
    assert [f"{100 * share:+.1f} %" == one.measured for one in found] == [True, True]
    assert [one.rows for one in found] == [1, 1]


@pytest.mark.parametrize(
    ("inside", "of", "ratio", "holds"), [(4, 5, 3.9, True), (4, 5, 4.0, True), (3, 5, 3.9, False), (4, 5, 4.1, False), (5, 5, 2.5, True)]
)
def test_the_goal_of_coverage(inside: int, of: int, ratio: float, holds: bool) -> None:
    """Eight of ten products in a range that spans a factor of four at most; other groups inform only."""
    members = [product(f"p{i}", 1.0 if i < inside else 9.0, 1.0, 0.5, 0.5 * ratio) for i in range(of)]
    check = validation._coverage("breakdown", members)
    assert check.passed is holds and check.rows == of and f"{inside} of {of}" in check.measured and f"{ratio:.2f}" in check.measured
    assert validation._coverage("total", members).passed is None
    for published, held in ((0.49, False), (0.5, True), (2.0, True), (2.01, False)):
        assert product("p", published, 1.0, 0.5, 2.0).inside is held


def test_only_products_that_no_factor_was_fitted_to_are_counted() -> None:
    listed = [product(name, 1.0, 1.0, 0.5, 2.0, calibration=True) for name in NAMED]
    listed += [product("a", 1.0, 1.0, 0.5, 2.0, group="total"), product("b", 9.0, 1.0, 0.5, 2.0, group="total", calibration=True)]
    found = validation.product_checks(listed)
    assert [(one.rows, one.passed) for one in found[2:]] == [(1, None)] and "1 of 1" in found[2].measured


def test_one_die_against_chiplets() -> None:
    """At the ends of the range of defects the two designs are those of the estimator; the order turns once."""
    whole, split = validation.crossover([0.01, 0.4])
    for at, d0 in enumerate((0.01, 0.4)):
        one = devices.device_embodied("default", area_mm2=814.0, node_nm=5, d0_per_cm2=d0)
        four = devices.device_embodied("default", area_mm2=814.0 * 1.1 / 4, node_nm=5, d0_per_cm2=d0, dies=4, package="rdl")
        assert (whole[at], split[at]) == (pytest.approx(one.embodied_kgco2e), pytest.approx(four.embodied_kgco2e))
    check = validation.crossover_check()
    fine = np.linspace(0.01, 0.4, 391)
    whole, split = validation.crossover(fine)
    turn = next(d0 for d0, one, other in zip(fine.tolist(), whole, split, strict=True) if other < one)
    assert check.passed and check.rows == 391 and f"D0 = {turn:.3f}" in check.measured


def test_published_servers_are_estimated_from_what_is_said_of_them() -> None:
    row, found = tables.table("validation_servers")[0], validation.servers(draws=2)[0]
    cpus, gb = float(row["cpus"]), float(row["memory_gb"])
    parts = {
        "cpu": cpus * devices.device_embodied("default", area_mm2=485.0, node_nm=14).embodied_kgco2e,
        "server": devices.device_embodied(
            "default", system="server", cpu_packages=cpus, memory_type="ddr4", memory_gb=gb, memory_modules=max(1, gb // 16),
            memory_year=2017, hdds=float(row["hdds"]),
            storage_gb=float(row["ssd_gb"]), storage_drives=float(row["ssds"]), storage_year=2017,
        ).embodied_kgco2e,
    }  # fmt: skip
    assert found.estimate_kgco2e == pytest.approx(sum(parts.values()))
    assert (found.published_kgco2e, found.calibration, found.group) == (float(row["published_kgco2e"]), False, "server total")


def test_lines_of_an_inventory_one_by_one() -> None:
    place = grid.lookup("411.3 (a contract)")
    span = uncertainty.spread([1.0, 2.0, 3.0])
    rows = inventory.ghg_rows(
        "x", embodied_kgco2e=7.3, kwh=37.1, place=place, basis="b", machines="8 x h100", period_years=3.3, spreads=(span, span)
    )
    made, used = rows
    assert (made["category"], made["kgco2e"], made["activity_data"]) == (inventory.CAPITAL_GOODS, 7.3, 1.0)
    assert (used["category"], used["activity_data"]) == (inventory.ELECTRICITY, 37.1)
    assert used["emission_factor_kgco2e_per_unit"] == pytest.approx(0.4113) and used["kgco2e"] == pytest.approx(37.1 * 0.4113)
    assert all(row["period_years"] == 3.3 and row["machines"] == "8 x h100" for row in rows)
    assert all((row["p5_kgco2e"], row["p95_kgco2e"]) == (float(span.p5), float(span.p95)) for row in rows)
    cloud = inventory.ghg_rows("x", embodied_kgco2e=7.3, kwh=37.1, place=place, basis="b", cloud=True)
    assert [row["category"] for row in cloud] == [inventory.SERVICES] * 2 and cloud[0]["p5_kgco2e"] is None
    parts = {"die": (5.0, span), "memory": (2.3, None)}
    listed = inventory.ghg_rows("x", embodied_kgco2e=7.3, kwh=0.0, place=place, basis="b", parts=parts)
    assert [(row["kgco2e"], row["p95_kgco2e"]) for row in listed] == [(5.0, float(span.p95)), (2.3, None)]
    assert inventory.ghg_rows("x", embodied_kgco2e=0.0, kwh=1.0, place=None, basis="b") == []


def test_codecarbons_row_of_a_computation() -> None:
    place = grid.lookup("france")
    spent = computing.Spent(1740.0, 3.0, 0.011, 0.0023, 0.037, 0.042, "measured by RAPL: the whole machine")
    row = inventory.codecarbon_row("x", computing.emissions(spent, place, pue=1.17), when=datetime.datetime(2026, 1, 1))
    kwh = (0.011 + 0.0023 + 0.037) * 1.17
    wanted = {"duration": 1740.0, "emissions": kwh * place.gco2e_per_kwh / 1e3, "emissions_rate": kwh * place.gco2e_per_kwh / 1e3 / 1740.0,
              "cpu_power": 11.0 / 1740 * 3600, "ram_power": 2.3 / 1740 * 3600, "gpu_power": 37.0 / 1740 * 3600, "energy_consumed": kwh,
              "cpu_energy": 0.011, "gpu_energy": 0.037, "ram_energy": 0.0023, "pue": 1.17}  # fmt: skip
    assert {name: row[name] for name in wanted} == {name: pytest.approx(value, rel=1e-12) for name, value in wanted.items()}
    assert (row["tracking_mode"], row["country_iso_code"]) == ("machine", place.code.split(":")[1])
    nothing = computing.Spent(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, "estimated")
    row = inventory.codecarbon_row("x", computing.emissions(nothing, place), when=datetime.datetime(2026, 1, 1))
    assert row["emissions_rate"] == row["cpu_power"] == 0.0 and row["tracking_mode"] == "process"
