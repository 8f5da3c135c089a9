"""The equations of making and use, written out once more at numbers that divide into nothing evenly: no rounding, floor or swapped operand
gives the same there. Defaults are left out of each call once, so that they are what they are said to be."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import binom

from carbon import CarbonError
from carbon.analysis import metrics
from carbon.analysis.metrics import Running
from carbon.device import device as devices
from carbon.embodied import act, boavizta, memory, packaging, threedcarbon, yields
from carbon.factors import tables
from carbon.factors.values import Values
from carbon.operational import llm, service


def item(name: str) -> float:
    return tables.item(name).value


def fab(quantity: str, node: float) -> float:
    return tables.fab(quantity, node).value


def near(value: float) -> object:
    return pytest.approx(value, rel=1e-12)


# ---- decision metrics ----


def test_shares_and_intensities() -> None:
    share = metrics.embodied_share(1234.5, hours=37.3, lifetime_years=3.7, resource_share=0.31)
    assert share == near(1234.5 * 37.3 / (3.7 * 8760.0) * 0.31)
    assert metrics.embodied_share(1234.5, hours=37.3, lifetime_years=3.7, hours_per_year=8766.0) == near(1234.5 * 37.3 / (3.7 * 8766.0))
    assert metrics.sci(0.37, 411.3, 0.0123, 17.3, unit="token", grid_kind="average").value == near((0.37 * 411.3 + 12.3) / 17.3)
    assert metrics.sci(0.37, 411.3, 0.0123, 0.25, unit="token", grid_kind="average").value == near((0.37 * 411.3 + 12.3) / 0.25)
    found = {one.name: one.value for one in metrics.products(1.7, 2.3, 0.37, 0.61)}
    wanted = {"CDP": 1.7 * 0.37, "CEP": 1.7 * 0.61, "C2EP": 1.7**2 * 0.61, "CE2P": 1.7 * 0.61**2, "tCDP": (1.7 + 2.3) * 0.37}
    assert found == {name: near(value) for name, value in wanted.items()}
    assert metrics.cci(12.3, 4.56, 7.89e17, basis="achieved").value == near((12.3 + 4.56) * 1000.0 / 0.789)
    assert metrics.total(0.37, 0.61, basis="x").value == near(0.98)


def test_paying_back() -> None:
    a_year = 10.7 / 1000.0 * 8766.0 * 1.17 * 411.3 / 1000.0
    assert metrics.payback_years(5.3, 10.7, 411.3, 1.17) == near(5.3 / a_year)
    assert metrics.payback_years(5.3, 10.7, 411.3) == near(5.3 / a_year * 1.17)
    assert metrics.payback_years(-5.3, -10.7, 411.3, 1.17) == near(-5.3 / a_year)  # ahead until then
    assert metrics.payback_years(0.0, 10.7, 411.3) == 0.0 == metrics.payback_years(-5.3, 0.0, 411.3)
    assert metrics.payback_years(0.5, 0.5, 0.5) == near(0.5 / (0.5e-3 * 8766.0 * 0.5e-3))
    assert metrics.payback_years(0.5, -0.5, 0.5) == metrics.payback_years(0.5, 0.0, 0.5) == math.inf


def test_where_designs_tie() -> None:
    assert metrics.break_even_intensity(10.3, 71.9, 17.7, 33.3) == near(1000.0 * (17.7 - 10.3) / (71.9 - 33.3))
    assert metrics.break_even_intensity(17.7, 33.3, 10.3, 71.9) == near(1000.0 * (17.7 - 10.3) / (71.9 - 33.3))
    assert metrics.break_even_intensity(10.3, 33.3, 17.7, 71.9) == math.inf == metrics.break_even_intensity(10.3, 5.0, 17.7, 5.0)
    assert metrics.break_even_intensity(10.3, 33.3, 10.3, 71.9) == 0.0 == metrics.break_even_intensity(10.3, 5.0, 10.3, 5.0)
    kg_per_w = 411.3 / 1000.0 * 1.17 * 3.7 * 8766.0 / 1000.0
    one, two = Running(51.3, 31.1, 3.7), Running(97.9, 23.3, 1.9)
    tie = (97.9 - 51.3 + kg_per_w * (1.9 - 3.7)) / (kg_per_w * ((31.1 - 3.7) - (23.3 - 1.9)))
    assert metrics.break_even_utilisation(one, two, lifetime_years=3.7, gco2e_per_kwh=411.3, pue=1.17) == near(tie) and 0 < tie < 1
    tie = (97.9 - 51.3 + kg_per_w / 1.17 * (1.9 - 3.7)) / (kg_per_w / 1.17 * ((31.1 - 3.7) - (23.3 - 1.9)))
    assert metrics.break_even_utilisation(one, two, lifetime_years=3.7, gco2e_per_kwh=411.3) == near(tie)


@pytest.mark.parametrize(
    ("one", "two", "tie"),
    [
        (Running(5.0, 30.0, 2.0), Running(5.0, 40.0, 2.0), 0.0),  # alike when idle
        (Running(5.0, 30.0, 2.0), Running(5.0, 30.0, 4.0), 1.0),  # alike when busy
        (Running(5.0, 30.0, 2.0), Running(5.0, 30.0, 2.0), 0.0),  # alike
        (Running(5.0, 30.0, 2.0), Running(5.5, 30.0, 2.0), math.inf),  # one is ahead by as much whatever they do
        (Running(5.0, 30.0, 2.0), Running(5.5, 30.5, 2.0), math.inf),  # one is ahead, and more so when busy
    ],
)
def test_ties_at_the_ends_of_use(one: Running, two: Running, tie: float) -> None:
    assert metrics.break_even_utilisation(one, two, lifetime_years=4.0, gco2e_per_kwh=500.0) == tie


@pytest.mark.parametrize("other", [("total", 1.0, "g", "a"), ("sum", 1.0, "kg", "a"), ("total", 1.0, "kg", "b")])
def test_metrics_on_one_axis_agree_in_name_unit_and_basis(other: tuple[str, float, str, str]) -> None:
    first = metrics.Metric("total", 2.0, "kg", "a")
    metrics.require_basis(first)
    metrics.require_basis(first, metrics.Metric("total", 3.0, "kg", "a"), first)
    with pytest.raises(CarbonError, match="one basis"):
        metrics.require_basis(first, first, metrics.Metric(*other))


# ---- use ----


def test_service_at_a_rate() -> None:
    found = service.equal_service(
        2.3, 0.037, idle_w=3.1, rate_per_s=7.7, lifetime_years=3.3, pue=1.17, gco2e_per_kwh=411.3, concurrency=1.9, days_per_year=365.0
    )
    seconds, busy = 3.3 * 365.0 * 86400.0, 7.7 * 0.037 / 1.9
    active, idle = 2.3 * 7.7 * seconds * 1.17 / 3.6e6, 3.1 * (1 - busy) * seconds * 1.17 / 3.6e6
    assert (found.requests, found.utilisation) == (near(7.7 * seconds), near(busy)) and found.feasible
    assert (found.active_kgco2e, found.idle_kgco2e) == (near(active * 0.4113), near(idle * 0.4113))
    assert (found.operational_kgco2e, found.energy_kwh) == (near((active + idle) * 0.4113), near(active + idle))
    usual = service.equal_service(2.3, 0.037, idle_w=3.1, rate_per_s=7.7, lifetime_years=3.3, gco2e_per_kwh=411.3)
    seconds, busy = 3.3 * 365.25 * 86400.0, 7.7 * 0.037
    assert usual.energy_kwh == near((2.3 * 7.7 + 3.1 * (1 - busy)) * seconds / 3.6e6)


@pytest.mark.parametrize(("rate", "keeps_up", "idle_share"), [(0.5, True, 0.5), (1.0, True, 0.0), (1.25, False, 0.0)])
def test_service_at_the_edge_of_what_is_possible(rate: float, keeps_up: bool, idle_share: float) -> None:
    given = {"idle_w": 1.0, "lifetime_years": 1.0, "gco2e_per_kwh": 1000.0}
    for found in (
        service.equal_service(0.0, 1.0, rate_per_s=rate, **given),
        service.equal_service(0.0, np.array([1.0, 1.0]), rate_per_s=rate, **given),
    ):
        assert bool(np.all(found.feasible)) is keeps_up
        assert np.ravel(found.idle_kgco2e)[0] == pytest.approx(idle_share * 8.766)


def test_hours_and_requests() -> None:
    found = service.power_hours(37.1, duty_cycle=0.37, lifetime_years=3.3, gco2e_per_kwh=411.3, pue=1.17, idle_w=2.9, days_per_year=365.0)
    assert found == near((37.1 * 0.37 + 2.9 * 0.63) * 3.3 * 365.0 * 24.0 / 1000.0 * 1.17 * 0.4113)
    assert service.power_hours(37.1, lifetime_years=3.3, gco2e_per_kwh=411.3) == near(37.1 * 3.3 * 8766.0 / 1000.0 * 0.4113)
    assert service.fixed_requests(2.3, 7.7e6, 411.3, 1.17) == near(2.3 * 7.7e6 / 3.6e6 * 1.17 * 0.4113)
    assert service.fixed_requests(2.3, 7.7e6, 411.3) == near(2.3 * 7.7e6 / 3.6e6 * 0.4113)


@pytest.mark.parametrize(
    ("total_b", "bits", "gpus"), [(7.0, 16.0, 1), (33.3, 16.0, 1), (33.4, 16.0, 2), (70.0, 16.0, 4), (70.0, 8.0, 2), (671.0, 8.0, 16)]
)
def test_a_request_of_a_language_model(total_b: float, bits: float, gpus: int) -> None:
    """The regressions of ecologits: 1.2 x parameters in memory over GPUs of 80 GB, whole powers of two of them."""
    given = {"gco2e_per_kwh": 411.3, "pue": 1.17, "batch": 37.0, "bits": bits, "water_mix_l_per_kwh": 3.3, "wue_l_per_kwh": 0.7}
    found = llm.request(6.7, total_b, 211.0, **given)
    latency = 211.0 * (llm.LATENCY_ALPHA * 6.7 + llm.LATENCY_BETA * 37.0 + llm.LATENCY_GAMMA)
    one = 211.0 * (llm.ENERGY_ALPHA * math.exp(llm.ENERGY_BETA * 37.0) * 6.7 + llm.ENERGY_GAMMA) / 1000.0
    machines = latency / 3600.0 * 1.2 * gpus / 8.0 / 37.0 + gpus * one
    made = (gpus / 8.0 * item("ecologits_server_8gpu_without_gpus") + gpus * item("ecologits_gpu")) * latency / (3 * 8760 * 3600 * 37.0)
    assert (found.gpus, found.latency_s, found.energy_kwh) == (gpus, near(latency), near(1.17 * machines))
    assert (found.use_kgco2e, found.embodied_kgco2e) == (near(1.17 * machines * 0.4113), near(made))
    assert found.total_kgco2e == near(1.17 * machines * 0.4113 + made)
    assert found.water_l == near(machines * (0.7 + 1.17 * 3.3))
    usual = llm.request(6.7, 7.0, 211.0, gco2e_per_kwh=411.3)
    assert usual.use_kgco2e == near(llm.request(6.7, 7.0, 211.0, gco2e_per_kwh=411.3, pue=1.2, batch=64.0, bits=16.0).use_kgco2e)
    assert usual.water_l == 0.0


# ---- yield and wafers ----


def test_yields_written_out() -> None:
    area, d0 = 137.3, 0.117
    x = area / 100.0 * d0
    assert yields.poisson(area, d0) == near(math.exp(-x))
    assert yields.murphy(area, d0) == near(((1 - math.exp(-x)) / x) ** 2)
    assert yields.seeds(area, d0) == near(math.exp(-math.sqrt(x)))
    assert yields.bose_einstein(area, d0) == near(1 / (1 + x))
    assert yields.negative_binomial(area, d0, 2.7) == near((1 + x / 2.7) ** -2.7)
    assert yields.negative_binomial(area, d0) == near((1 + x / 10.0) ** -10.0)
    # Without defects, with hardly any (where the quotient would be 0 / 0), and with few; one number or several.
    for d0 in (0.0, 1e-10, 5e-9, 1.1e-8, 1e-4):
        assert yields.murphy(100.0, d0) == pytest.approx(1 - d0 + 7 / 12 * d0**2, rel=1e-12, abs=0)
        assert yields.murphy(np.array([100.0, 200.0]), d0)[0] == pytest.approx(1 - d0 + 7 / 12 * d0**2, rel=1e-12, abs=0)


@pytest.mark.parametrize(("units", "needed"), [(7, 7), (7, 6), (7, 4), (7, 1), (144, 132), (1, 1)])
@pytest.mark.parametrize("d0", [0.0, 0.117, 2.3])
def test_spare_units_by_the_binomial_distribution(units: int, needed: int, d0: float) -> None:
    area, fraction, alpha = 613.7, 0.37, 3.3
    lost = 1 - math.exp(-area * fraction / 100.0 * d0 / units)
    wanted = (1 + area * (1 - fraction) / 100.0 * d0 / alpha) ** -alpha * binom.cdf(units - needed, units, lost)
    found = yields.harvested(area, d0, units=units, needed=needed, repairable_fraction=fraction, alpha=alpha)
    assert found == pytest.approx(wanted, rel=1e-9)
    usual = yields.harvested(area, d0, units=units, needed=needed, repairable_fraction=fraction)
    assert usual == pytest.approx((1 + area * (1 - fraction) / 1000.0 * d0) ** -10 * binom.cdf(units - needed, units, lost), rel=1e-9)


@pytest.mark.parametrize("mean", [0.5, 0.84, 0.9, 2.0])
@pytest.mark.parametrize("spare", [1, 2, 399, 450, 600])
def test_many_units_in_either_way_of_summing(mean: float, spare: int) -> None:
    """Above 600 defects in all the terms are summed in logarithms; either side of that the sum is the binomial distribution's."""
    found = yields._enough_units(mean, 700, spare)
    assert found == pytest.approx(binom.cdf(spare, 700, 1 - math.exp(-mean)), rel=1e-8, abs=1e-290)
    assert np.asarray(yields._enough_units(np.array([mean, mean / 2]), 700, spare))[0] == pytest.approx(found, rel=1e-8, abs=1e-290)


def test_harvesting_at_its_ends() -> None:
    """Nothing of the die in units: they do not matter. All of it: nothing else does. Counts are whole, one at the least."""
    assert yields.harvested(100.0, 0.3, units=4, needed=3, repairable_fraction=0.0) == near((1 + 0.03) ** -10)
    lost = 1 - math.exp(-0.3 / 4)
    assert yields.harvested(100.0, 0.3, units=4, needed=3, repairable_fraction=1.0) == near((1 - lost) ** 4 + 4 * lost * (1 - lost) ** 3)
    for units, needed in ((4, 0), (4, 5), (4.5, 3), (4, 3.5), (0, 0)):
        with pytest.raises(CarbonError, match="1 <= needed <= units"):
            yields.harvested(100.0, 0.3, units=units, needed=needed, repairable_fraction=0.5)
    for fraction in (-0.001, 1.001):
        with pytest.raises(CarbonError, match="repairable_fraction"):
            yields.harvested(100.0, 0.3, units=4, needed=3, repairable_fraction=fraction)


def gross_dies(area: float, diameter: float = 300.0) -> float:
    return math.pi * diameter**2 / (4 * area) - math.pi * diameter / math.sqrt(2 * area)


def test_dies_of_a_wafer() -> None:
    assert yields.wafer_area_mm2(199.0) == near(math.pi / 4 * 199.0**2)
    assert yields.dies_per_wafer(137.3) == near(gross_dies(137.3))
    assert yields.dies_per_wafer(137.3, 199.0, scribe_mm=0.37) == near(gross_dies((math.sqrt(137.3) + 0.37) ** 2, 199.0))
    several = yields.dies_per_wafer(np.array([137.3, 71.1]), 199.0, scribe_mm=np.array([0.0, 0.37]))
    assert several.tolist() == [near(gross_dies(137.3, 199.0)), near(gross_dies((math.sqrt(71.1) + 0.37) ** 2, 199.0))]
    assert yields.wafer_share_mm2(137.3, 199.0) == near(math.pi / 4 * 199.0**2 / gross_dies(137.3, 199.0))
    assert yields.wafer_share_mm2(137.3) == near(math.pi / 4 * 300.0**2 / gross_dies(137.3))
    assert yields.wafer_share_mm2(40_000.0) == math.inf
    assert yields.floor_dies(7.9) == 7.0 and yields.floor_dies(np.array([7.9, -0.1])).tolist() == [7.0, -1.0]


# ---- ACT and boaviztapi ----


def test_boards_batteries_capacitors_and_materials() -> None:
    table = {layers: item(f"act_pcb_{layers}layer") for layers in (2, 4, 6, 8)}
    for layers in range(1, 11):
        a_m2 = table.get(layers, layers * item("act_pcb_per_layer_else"))
        assert act.pcb_act(37.3, layers) == near(37.3 * a_m2 / 1e4)
        assert act.pcb_act(37.3, np.array([layers, 3]))[0] == near(37.3 * a_m2 / 1e4)
    assert act.capacity(7.3, 0.31, 0.871, 0.17) == near(7.3 * 0.31 / 0.871 + 0.17)
    assert act.capacity(7.3, 0.31) == near(7.3 * 0.31)
    assert act.logic_die(137.3, 1.7, 0.871) == near(1.373 * 1.7 / 0.871)
    assert act.logic_die(137.3, 1.7) == near(1.373 * 1.7 / 0.875)
    assert act.ic_packaging(3.5) == near(3.5 * 0.15)
    assert act.carbon_per_area(411.3, 1.37, 0.21, 0.53) == near(0.4113 * 1.37 + 0.21 + 0.53)
    assert act.battery_act(0.37) == near(0.37 * 87.0) and act.battery_act(0.37, "lfp") == near(0.37 * 61.5)
    for kind in ("mlcc", "tec"):
        assert act.capacitor_act(kind, 0.0137, 7.0, 411.3) == near(item(f"act_{kind}") / 3.6 * 0.0137 * 7.0 * 0.4113)
        assert act.capacitor_act(kind, 0.0137, 7.0) == near(item(f"act_{kind}") / 3.6 * 0.0137 * 7.0 * 0.485)
    assert act.capacitor_act("generic", 0.0137, 7.0) == near(2.1)


@pytest.mark.parametrize("node", [7, 14, 28])
def test_gas_between_the_tables(node: int) -> None:
    low, middle, high = (fab(f"gpa_{pct}_kgco2e_cm2", node) for pct in (95, 97, 99))
    for pct in (95.0, 95.7, 97.0, 98.3, 99.0):
        wanted = {95.0: low, 97.0: middle, 99.0: high}.get(pct, low + (pct - 95.0) / 4.0 * (high - low))
        assert act.gas_per_area(node, pct) == near(wanted)
    assert act.gas_per_area(node) == near(middle)
    assert act.node_carbon_per_area(node, 411.3) == near(0.4113 * fab("epa_kwh_cm2", node) + middle + fab("mpa_kgco2e_cm2", node))
    for pct in (94.9, 99.1):
        with pytest.raises(CarbonError, match="95 to 99"):
            act.gas_per_area(node, pct)


def test_components_of_boaviztapi() -> None:
    assert boavizta.cpu(137.3) == near(137.3 * item("boavizta_cpu_die") + item("boavizta_cpu_package_fixed"))
    assert boavizta.ram(7.3, 0.89) == near(7.3 / 0.89 * item("memory_die_kgco2e_cm2") + item("dimm_fixed_kgco2e"))
    assert boavizta.ssd(73.0, 48.5) == near(73.0 / 48.5 * item("memory_die_kgco2e_cm2") + item("ssd_fixed_kgco2e"))

    def asked(kind: str, **body: float) -> float | None:
        return boavizta.component(f"/v1/component/{kind}?verbose=false", json.dumps(body))

    for units in (1, 3):
        more = {} if units == 1 else {"units": units}
        assert asked("cpu", die_size=137.3, **more) == near(units * boavizta.cpu(137.3))
        assert asked("ram", capacity=7.3, density=0.89, **more) == near(units * boavizta.ram(7.3, 0.89))
        assert asked("ssd", capacity=73.0, density=48.5, **more) == near(units * boavizta.ssd(73.0, 48.5))
        assert asked("hdd", **more) == near(units * item("hdd_kgco2e"))
        assert asked("power_supply", unit_weight=1.37, **more) == near(units * 1.37 * item("boavizta_psu"))
    assert asked("gpu", die_size=137.3) is None


def test_gpus_of_boaviztapi() -> None:
    area = (math.sqrt(137.3) + 0.2) ** 2
    effective = math.pi * 150.0**2 / gross_dies(area) / math.exp(-math.sqrt(area / 1000.0))
    assert boavizta.effective_mm2(137.3) == near(effective)
    with pytest.raises(CarbonError, match="fits a 300 mm wafer"):
        boavizta.effective_mm2(40_000.0)
    given = {"die_effective_mm2": 913.7, "memory_gb": 79.3, "memory_dies": 7.0, "board_cm2": 311.3, "heatsink_kg": 0.37, "case_kg": 0.53,
             "card_kg": 1.7}  # fmt: skip
    carried = item("boavizta_gpu_upstream_transport") + item("boavizta_gpu_eol")
    carried += 19000.0 * item("boavizta_boat") + 1000.0 * item("boavizta_truck")
    wanted = item("boavizta_gpu_die") * 913.7 + item("boavizta_gpu_vram") * 7.0 * boavizta.effective_mm2(79.3 * 15.5 / 7.0)
    wanted += item("boavizta_gpu_pwb") * 311.3 + item("boavizta_gpu_heatsink") * 0.37 + item("boavizta_gpu_casing") * 0.53 + carried * 1.7
    assert boavizta.gpu(**given) == near(wanted)


# ---- memory ----


@pytest.mark.parametrize("kind", ["dram", "nand"])
def test_the_density_of_a_year_is_that_of_three_years_on_the_market(kind: str) -> None:
    rows = [(int(r["year"]), 1.0 / float(r["gb_per_cm2"])) for r in tables.table("memory_density") if r["kind"] == kind]
    first, newest = min(y for y, _ in rows), max(y for y, _ in rows)
    for year in range(first, newest + 4):
        sold = [area for y, area in rows if min(year, newest) - 3 <= y <= min(year, newest)]
        found = memory.cm2_per_gb(kind, year)
        assert (found.value, found.low, found.high) == (near(sum(sold) / len(sold)), min(sold), max(sold))
        assert ("newest density known" in found.note) is (year > newest)
    with pytest.raises(CarbonError, match=f"begin in {first}"):
        memory.cm2_per_gb(kind, first - 1)


def test_memory_and_flash_by_dies_and_fixed_parts() -> None:
    die = item("memory_die_kgco2e_cm2")
    for name in memory.types():
        if name in memory.HBM:
            assert memory.embodied(Values(), name, 7.3) == near(7.3 * item("hbm_kgco2e_per_gb"))
            assert memory.embodied(Values(), name, 7.3, modules=np.zeros(2)) == near(7.3 * item("hbm_kgco2e_per_gb"))
            for modules in (1.0, np.array([0.0, 1.0])):
                with pytest.raises(CarbonError, match="no modules"):
                    memory.embodied(Values(), name, 7.3, modules=modules)
            continue
        row = next(r for r in tables.table("memory_types") if r["type"] == name)
        a_gb = die * memory.cm2_per_gb(row["density_kind"], int(row["default_year"])).value
        assert memory.embodied(Values(), name.upper(), 7.3) == near(7.3 * a_gb)
        listed = memory.per_gb()[name]
        area, factor = memory.cm2_per_gb(row["density_kind"], int(row["default_year"])), tables.item("memory_die_kgco2e_cm2")
        assert (listed.value, listed.low, listed.high) == (near(a_gb), near(area.low * factor.low), near(area.high * factor.high))
        assert memory.embodied(Values(), name, 7.3, year=2020) == near(7.3 * die * memory.cm2_per_gb(row["density_kind"], 2020).value)
        assert memory.default_year(name) == int(row["default_year"])
        assert memory.on_modules(name) is (float(row["fixed_kgco2e_per_module"]) > 0)
        if memory.on_modules(name):
            assert memory.embodied(Values(), name, 7.3, modules=0.5) == near(7.3 * a_gb + 0.5 * item("dimm_fixed_kgco2e"))
            several = memory.embodied(Values(), name, 7.3, modules=np.array([0.0, 3.0]))
            assert several.tolist() == [near(7.3 * a_gb), near(7.3 * a_gb + 3 * item("dimm_fixed_kgco2e"))]
        else:
            with pytest.raises(CarbonError, match="not sold on modules"):
                memory.embodied(Values(), name, 7.3, modules=np.array([0.0, 1.0]))
    assert not memory.on_modules("hbm3")
    year = memory.default_year("nand")
    a_gb = die * memory.cm2_per_gb("nand", year).value
    assert memory.flash(Values(), 73.0) == near(73.0 * a_gb)
    assert memory.flash(Values(), 73.0, drives=0.5) == near(73.0 * a_gb + 0.5 * item("ssd_fixed_kgco2e"))
    assert memory.flash(Values(), 73.0, year=2019) == near(73.0 * die * memory.cm2_per_gb("nand", 2019).value)


# ---- packages ----


def assembled(kind: str, silicon: float, total: float, largest: float, joined: int, ci: float, bridges: float | None,
              carrier: float | None, tested: float) -> dict[str, float]:  # fmt: skip
    """The parts of a package as the documentation has them, one number at a time."""
    kwh = ci / 1000.0
    parts = {
        "substrate": item("3dc_area_scale_package") * (largest if kind == "3d" else total) / 100.0 * item("3dc_epa_package_fcbga") * kwh
    }
    parts["assembly"] = item("act_ic_package")
    if kind not in ("monolithic", "mcm"):
        good = item("eco_bonding_yield") ** joined
        pressed = item("3dc_bond_tcb") * kwh
        if kind == "3d":
            held = (item("eco_tsv_size_mm") / item("eco_tsv_pitch_mm")) ** 2 * silicon * (joined - 1) / joined
            bonding = item("3dc_bond_tsv") * largest / 100.0 * (joined - 1) * kwh
        elif kind == "rdl":
            area = item("3dc_area_scale_rdl") * total if carrier is None else carrier
            held = area / 100.0 * item("3dc_epa_substrate_rdl") * kwh
            held /= (1 + area / 100.0 * item("3dc_rdl_d0_per_cm2") / item("3dc_rdl_alpha")) ** -item("3dc_rdl_alpha")
            bonding = area / 100.0 * pressed
        elif kind == "emib":
            area, count = item("eco_emib_bridge_mm2"), joined - 1 if bridges is None else bridges
            cpa = kwh * fab("epa_kwh_cm2", 22) + fab("gpa_97_kgco2e_cm2", 22) + fab("mpa_kgco2e_cm2", 22)
            d0 = fab("d0_ecochip_per_cm2", 22) / item("eco_defect_density_divisor_packaging")
            made = math.pi / 4 * 300.0**2 / gross_dies(area) / 100.0 * cpa * fab("beol_fraction_ecochip", 22)
            held = count * made / (1 + area / 100.0 * d0 / 10.0) ** -10.0
            bonding = count * area / 100.0 * pressed
        else:
            node, active = item("eco_interposer_node_nm"), kind == "active_interposer"
            area = item("3dc_area_scale_si") * total if carrier is None else carrier
            cpa = kwh * item("3dc_interposer_si_epa") + item("3dc_interposer_gpa") + item("3dc_interposer_mpa")
            d0 = fab("d0_ecochip_per_cm2", node) / (1.0 if active else item("eco_defect_density_divisor_packaging"))
            alpha = fab("alpha_ecochip", node)
            held = math.pi / 4 * 300.0**2 / gross_dies(area) / 100.0 * cpa * (1.0 if active else fab("beol_fraction_ecochip", node))
            held /= (1 + area / 100.0 * d0 / alpha) ** -alpha
            bonding = area / 100.0 * pressed
        parts |= {"carrier": held / good, "bonding": bonding / good, "bonding_loss": silicon * (1 / good - 1)}
    if tested != 1.0:
        parts["test_loss"] = (silicon + sum(parts.values())) * (1 / tested - 1)
    return parts


@pytest.mark.parametrize("kind", packaging.KINDS)
@pytest.mark.parametrize(("joined", "bridges", "carrier", "tested"), [(2, None, None, 1.0), (3, 2.5, 391.3, 0.973), (5, None, 711.1, 0.5)])
def test_packages_written_out(kind: str, joined: int, bridges: float | None, carrier: float | None, tested: float) -> None:
    given = (7.31, 431.7, 217.3, joined, 517.3, bridges, carrier, tested)
    found = packaging.assemble(
        Values(), kind, silicon_kgco2e=7.31, total_mm2=431.7, largest_mm2=217.3, joined=float(joined), ci_g_per_kwh=517.3, bridges=bridges,
        carrier_area_mm2=carrier, test_yield=tested,
    )  # fmt: skip
    assert dict(found.parts) == {name: near(kg) for name, kg in assembled(kind, *given).items()}
    assert found.feasible and found.bonding_yield == near(1.0 if kind in ("monolithic", "mcm") else item("eco_bonding_yield") ** joined)
    several = packaging.assemble(
        Values(), kind, silicon_kgco2e=np.array([7.31, 1.0]), total_mm2=np.array([431.7, 100.0]), largest_mm2=np.array([217.3, 50.0]),
        joined=np.array([float(joined), 2.0]), ci_g_per_kwh=517.3, bridges=bridges, carrier_area_mm2=carrier,
        test_yield=np.array([tested, 1.0]),
    )  # fmt: skip
    assert {name: near(np.broadcast_to(part, 2)[0]) for name, part in several.parts.items()} == dict(found.parts)


def test_what_is_joined_and_split() -> None:
    for kind in ("emib", "3d"):
        for joined in (1.0, np.array([2.0, 1.0]), 1.5):
            with pytest.raises(CarbonError, match="at least two"):
                packaging.assemble(Values(), kind, silicon_kgco2e=1.0, total_mm2=9.0, largest_mm2=9.0, joined=joined, ci_g_per_kwh=1.0)
    assert packaging.split_area(137.3, 1.0) == 137.3
    assert packaging.split_area(137.3, 1.5) == near(137.3 * 1.1 / 1.5)
    assert packaging.split_area(137.3, 3.0, 0.07) == near(137.3 * 1.07 / 3.0)
    assert packaging.split_area(137.3, np.array([1.0, 2.0])).tolist() == [137.3, near(137.3 * 1.1 / 2.0)]


def three(name: str) -> float:
    return item(f"3dc_{name}")


def test_dies_of_3d_carbon_written_out() -> None:
    """EPA moves by the energy of a layer, gas in proportion; whole dies of a wafer; an own FCBGA."""
    area, node, ci = 137.3, 14, 411.3
    d0, alpha = fab("d0_3dcarbon_per_cm2", node), fab("alpha_3dcarbon", node)
    good = (1 + area / 100.0 * d0 / alpha) ** -alpha
    for layers in (None, 7.5):
        epa, gas = fab("epa_3dcarbon_kwh_cm2", node), fab("gpa_99_kgco2e_cm2", node)
        if layers is not None:
            moved = epa + (layers - fab("metal_layers_default", node)) * fab("epa_beol_per_layer_kwh_cm2", node)
            epa, gas = moved, gas * moved / epa
        cpa = ci / 1000.0 * epa + gas + fab("mpa_kgco2e_cm2", node)
        one = threedcarbon.die(area, node, ci_g_per_kwh=ci, metal_layers=layers, wafer_mm=199.0)
        dies = math.floor(gross_dies(area, 199.0))
        assert (one.dies_per_wafer, one.fab_yield) == (dies, near(good))
        assert one.die_kgco2e == near(cpa * math.pi / 4 * 199.0**2 / 100.0 / dies / good)
        assert one.package_kgco2e == near(three("area_scale_package") * 1.373 * three("epa_package_fcbga") * 0.4113)
    assert threedcarbon.die(area, node).die_kgco2e == threedcarbon.die(area, node, ci_g_per_kwh=583.0, wafer_mm=300.0).die_kgco2e
    assert threedcarbon.die(area, node, d0_per_cm2=0.37, alpha=1.9).fab_yield == near((1 + 1.373 * 0.37 / 1.9) ** -1.9)


@pytest.mark.parametrize("method", threedcarbon.METHODS)
@pytest.mark.parametrize("as_printed", [True, False])
def test_packages_of_3d_carbon_written_out(method: str, as_printed: bool) -> None:
    dies, ci = [(137.3, 7, 2), (71.9, 14, 3)], 0.4113
    silicon = 2 * threedcarbon.die(137.3, 7, ci_g_per_kwh=411.3).die_kgco2e + 3 * threedcarbon.die(71.9, 14, ci_g_per_kwh=411.3).die_kgco2e
    foot = (2 * 137.3 + 3 * 71.9) / 100.0
    for outer_mm2 in (None, 913.7):
        found = threedcarbon.package(method, dies, ci_g_per_kwh=411.3, package_area_mm2=outer_mm2, as_printed=as_printed)
        outer = (three("area_scale_package") * foot if outer_mm2 is None else 9.137) * three("epa_package_fcbga") * ci
        bonds = three("bond_yield_microbump_d2w") ** 5
        bonding = substrate = 0.0
        if method.startswith("InFO"):
            area = three("area_scale_rdl") * foot
            good = (1 + area * three("rdl_d0_per_cm2") / three("rdl_alpha")) ** -three("rdl_alpha")
            substrate = area * ci * three("epa_substrate_rdl") / good
            if method == "InFO_chip_first":
                bonds = good
            else:
                bonding = area * three("bond_tcb") / bonds * (1e-3 if as_printed else ci)
                substrate /= bonds
        elif method != "MCM":
            area = three("area_scale_si") * foot if method == "Si_int" else three("emib_bridge_mm2") / 100.0
            cpa = three("interposer_si_epa") * ci + (0.0 if as_printed else three("interposer_gpa")) + three("interposer_mpa")
            alpha = three("interposer_alpha")
            good = (1 + area * three("interposer_d0_per_cm2") / alpha) ** -alpha
            substrate = cpa * math.pi / 4 * 300.0**2 / 100.0 / math.floor(gross_dies(area * 100.0)) / good
            substrate *= 20.0 if method == "EMIB" else 1.0  # four bridges a die
            bonding = 0.0 if as_printed else area * (5 if method == "EMIB" else 1) * three("bond_tcb") / bonds * ci
        dies_kg = silicon if method == "MCM" else silicon / bonds
        assert (found.dies_kgco2e, found.bonding_kgco2e) == (near(dies_kg), near(bonding))
        assert (found.substrate_kgco2e, found.package_kgco2e) == (near(substrate), near(outer))
        assert found.total_kgco2e == near(dies_kg + bonding + substrate + outer)
    layered = threedcarbon.package("MCM", [(137.3, 7, 2)], metal_layers=[7.5])
    assert layered.dies_kgco2e == near(2 * threedcarbon.die(137.3, 7, metal_layers=7.5).die_kgco2e)


# ---- devices ----


def test_dies_under_each_recipe_for_the_edge_of_the_wafer() -> None:
    cpa = act.node_carbon_per_area(7, 411.3)
    found = devices.device_embodied(
        "default", area_mm2=137.3, node_nm=7, ci_g_per_kwh=411.3, d0_per_cm2=0.117, scribe_mm=0.37, wafer_mm=199.0
    )
    share = math.pi / 4 * 199.0**2 / gross_dies((math.sqrt(137.3) + 0.37) ** 2, 199.0)
    assert found.parts["die"] == near(share / 100.0 * cpa / (1 + 1.373 * 0.0117) ** -10)
    waste = devices.ecochip_waste(137.3, 1.7, 199.0)
    assert waste == near((math.pi / 4 * 199.0**2 - math.floor(gross_dies(137.3, 199.0)) * 137.3) / 100.0 * 1.7 / gross_dies(137.3, 199.0))
    assert devices.ecochip_waste(137.3, 1.7) == devices.ecochip_waste(137.3, 1.7, 450.0)
    assert devices.ecochip_waste(90_000.0, 1.7) == math.inf
    assert devices.ecochip_waste(np.array([137.3, 90_000.0]), 1.7, 199.0).tolist() == [near(waste), math.inf]
    transistors = 137.3 * fab("ecochip_transistors_per_mm2", 7)
    hours = transistors / item("eco_transistors_per_gate") / fab("ecochip_gates_per_core_hour", 7)
    kg = item("eco_design_core_w") * hours / 1000.0 * item("eco_design_gco2e_per_kwh") / 1000.0
    assert devices.design_carbon(Values(), 137.3, 7) == near(kg)


@pytest.mark.parametrize(
    ("inputs", "part", "kg"),
    [
        ({"storage_gb": 73.0, "storage_drives": 0.5, "storage_year": 2019}, "storage",
         lambda: memory.flash(Values(), 73.0, drives=0.5, year=2019)),
        ({"hdds": 0.5}, "hdd", lambda: 0.5 * item("hdd_kgco2e")),
        ({"system": "card"}, "system", lambda: item("card_other_kgco2e")),
        ({"system": "server"}, "system", lambda: item("server_base_kgco2e")),
        ({"host_share": 0.125}, "host", lambda: 0.125 * item("server_base_kgco2e")),
        ({"pcb_cm2": 0.5}, "board", lambda: 0.5 * item("pcb_kgco2e_cm2")),
        ({"cpu_packages": 0.5}, "cpu_packages", lambda: 0.5 * item("cpu_package_kgco2e")),
        ({"memory_type": "ddr4", "memory_gb": 7.3, "memory_modules": 0.5}, "memory",
         lambda: memory.embodied(Values(), "ddr4", 7.3, modules=0.5)),
    ],
)  # fmt: skip
def test_blocks_of_products_one_by_one(inputs: dict[str, object], part: str, kg: object) -> None:
    found = devices.device_embodied("default", **inputs)
    assert dict(found.parts) == {part: near(kg())}  # type: ignore[operator]
    assert found.embodied_kgco2e == near(kg()) and found.feasible  # type: ignore[operator]
    name = next(iter(inputs))
    if name in ("storage_gb", "hdds", "pcb_cm2", "cpu_packages", "host_share"):  # one of none and one of some, side by side
        several = devices.device_embodied("default", **{**inputs, name: np.array([0.0, inputs[name]])})
        assert several.parts[part][1] == near(kg())  # type: ignore[operator]
        none = devices.device_embodied("default", **{name: 0.0, "system": "card"})
        assert set(none.parts) == {"system"}


def test_stacks_beside_the_die_are_on_its_carrier_and_chiplets_count() -> None:
    given = {"area_mm2": 137.3, "node_nm": 7, "ci_g_per_kwh": 411.3, "fab_yield": 0.871}
    one = devices.device_embodied("default", **given).parts["die"]
    other = devices.device_embodied("default", **{**given, "area_mm2": 211.1, "node_nm": 14}).parts["die"]
    held = item("hbm_kgco2e_per_gb") * 23.0
    chiplets = (devices.Device(area_mm2=211.1, node_nm=14, dies=3.0, fab_yield=0.871),)
    found = devices.device_embodied(
        "default", **given, dies=2.0, chiplets=chiplets, memory_type="hbm2", memory_gb=23.0, memory_stacks=2.0,
        memory_stack_area_mm2=93.7, package="rdl", test_yield=0.973,
    )  # fmt: skip
    silicon, total = 2 * one + 3 * other, 2 * 137.3 + 3 * 211.1 + 2 * 93.7
    parts = assembled("rdl", silicon + held, total, 211.1, 7, 411.3, None, None, 0.973)
    assert (found.parts["die"], found.parts["memory"]) == (near(silicon), near(held))
    assert found.parts["packaging"] == near(parts["substrate"] + parts["assembly"])
    for name in ("carrier", "bonding", "bonding_loss", "test_loss"):
        assert found.parts[name] == near(parts[name])
    soldered = devices.device_embodied("default", **given, memory_type="ddr4", memory_gb=23.0, package="rdl")
    wanted = assembled("rdl", one, 137.3, 137.3, 1, 411.3, None, None, 1.0)["bonding_loss"]
    assert soldered.parts["bonding_loss"] == near(wanted)


@pytest.mark.parametrize(("gb", "ics"), [(0.0, 0.0), (0.5, 1.0), (7.3, 1.0)])
def test_packaged_circuits_of_act(gb: float, ics: float) -> None:
    given = {"area_mm2": 137.3, "node_nm": 7, "memory_type": "lpddr4", "memory_gb": gb}
    assert devices.device_embodied("act2", **given).parts["packaging"] == near((1.0 + ics) * 0.15)
    assert devices.device_embodied("act2", **given, n_ics=2.5, memory_ics=3.0).parts["packaging"] == near(5.5 * 0.15)
    kg = tables.memory("lpddr4", source_id="act").per_gb.value
    assert devices.device_embodied("act2", **given).parts["memory"] == near(gb * kg / 0.875)
