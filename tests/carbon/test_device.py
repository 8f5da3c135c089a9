"""The default profile: figures worked out elsewhere, monotonicity, packages, and the three array worlds."""

import math
import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon import CarbonError
from carbon.analysis import validation
from carbon.device import device, recipes
from carbon.device.device import Device, Harvest
from carbon.embodied import memory, packaging, yields
from carbon.factors import tables as factors
from carbon.factors.values import Values

GPU = Harvest(144, 132, 0.6)


def kg(**inputs):
    return float(device.device_embodied("default", **inputs).embodied_kgco2e)


@pytest.mark.parametrize(("d0", "plain", "harvested"), [(0.05, 40, 32), (0.1, 59, 37), (0.2, 122, 51), (0.3, 241, 69)])
def test_h100_die_with_and_without_harvesting(d0, plain, harvested):
    """814 mm2, 5 nm, Taiwan 583, alpha 10: kg a die, worked out independently to whole kilograms."""
    alone = device.device_embodied("default", area_mm2=814, node_nm=5, d0_per_cm2=d0).parts["die"]
    spared = device.device_embodied("default", area_mm2=814, node_nm=5, d0_per_cm2=d0, harvest=GPU).parts["die"]
    assert alone == pytest.approx(plain, abs=0.51)
    assert spared == pytest.approx(harvested, abs=0.51)


def test_h100_die_to_a_tenth():
    assert device.device_embodied("default", area_mm2=814, node_nm=5, d0_per_cm2=0.1, harvest=GPU).parts["die"] == pytest.approx(
        37.3, abs=0.05
    )


@settings(max_examples=60)
@given(area=st.floats(1.0, 850.0), d0=st.floats(0.0, 0.5), ci=st.floats(10.0, 900.0))
def test_more_of_anything_bad_is_never_cleaner(area, d0, ci):
    base = {"area_mm2": area, "node_nm": 7, "d0_per_cm2": d0, "ci_g_per_kwh": ci}
    here = kg(**base)
    assert kg(**{**base, "area_mm2": area * 1.05}) >= here
    assert kg(**{**base, "d0_per_cm2": d0 + 0.05}) >= here
    assert kg(**{**base, "ci_g_per_kwh": ci * 1.1}) >= here
    assert kg(**base, memory_type="ddr4", memory_gb=1.0) >= here
    # abatement destroys process gases: more of it is cleaner
    assert kg(**base, abatement_pct=99.0) <= kg(**base, abatement_pct=98.0) <= kg(**base, abatement_pct=95.0)


@pytest.mark.parametrize("pair", list(zip([28, 20, 14, 10, 7, 5], [20, 14, 10, 7, 5, 3], strict=True)))
def test_a_smaller_node_costs_more_per_area(pair):
    older, newer = (kg(area_mm2=100.0, node_nm=node, d0_per_cm2=0.1) for node in pair)
    assert newer >= older


def test_scale_invariance_of_the_parts():
    """Twice the memory, twice its carbon; die carbon is linear in carbon per area."""
    one = device.device_embodied("default", area_mm2=50.0, node_nm=7, memory_type="lpddr5", memory_gb=4.0)
    two = device.device_embodied("default", area_mm2=50.0, node_nm=7, memory_type="lpddr5", memory_gb=8.0)
    assert two.parts["memory"] == pytest.approx(2.0 * one.parts["memory"], rel=1e-15)
    assert two.parts["die"] == one.parts["die"]


def test_abatement_between_the_tables_is_linear():
    middle = device.device_embodied("default", area_mm2=50.0, node_nm=7, abatement_pct=96.0).embodied_kgco2e
    ends = [device.device_embodied("default", area_mm2=50.0, node_nm=7, abatement_pct=at).embodied_kgco2e for at in (95.0, 97.0)]
    assert middle == pytest.approx(sum(ends) / 2.0, rel=1e-12)
    with pytest.raises(CarbonError, match="95 to 99"):
        device.device_embodied("default", area_mm2=50.0, node_nm=7, abatement_pct=90.0)


def test_reticle_and_wafer_are_flagged_not_hidden():
    found = device.device_embodied("default", area_mm2=np.array([100.0, 900.0, 80000.0]), node_nm=7)
    assert found.feasible.tolist() == [True, False, False]
    assert found.infeasible["reticle"].tolist() == [False, True, True]
    assert found.infeasible["wafer"].tolist() == [False, False, True]
    assert np.isfinite(found.embodied_kgco2e[:2]).all()
    assert math.isinf(found.embodied_kgco2e[2])


@pytest.mark.parametrize("package", packaging.KINDS)
def test_nothing_is_ever_nan(package):
    """Dies and carriers beyond the wafer, perfect bonds, no defects: finite or infinite, without a warning."""
    found = device.device_embodied(
        "default",
        area_mm2=np.array([1e-6, 100.0, 30000.0, 80000.0]),
        node_nm=7,
        dies=3,
        package=package,
        d0_per_cm2=0.0,
        memory_type="hbm3",
        memory_gb=np.array([0.0, 0.0, 80.0, 80.0]),
        memory_stacks=2.0,
        memory_stack_area_mm2=110.0,
        test_yield=0.9,
        overrides={"packaging.eco_bonding_yield": 1.0} if package not in ("monolithic", "mcm") else {},
    )
    for part in (*found.parts.values(), found.embodied_kgco2e):
        assert not np.isnan(part).any()
    assert np.isfinite(found.embodied_kgco2e).tolist()[:2] == [True, True]
    assert np.isinf(found.embodied_kgco2e[3])


@given(areas=st.lists(st.floats(1.0, 800.0), min_size=1, max_size=5), package=st.sampled_from(packaging.KINDS[:4]))
@settings(max_examples=40)
def test_arrays_are_scalars_side_by_side(areas, package):
    inputs = {"node_nm": 7, "dies": 2, "package": package, "harvest": Harvest(16, 15, 0.5)}
    together = device.device_embodied("default", area_mm2=np.array(areas), **inputs)
    for at, area in enumerate(areas):
        alone = device.device_embodied("default", area_mm2=area, **inputs)
        # vector and scalar library functions may differ in the last digit
        assert together.embodied_kgco2e[at] == pytest.approx(alone.embodied_kgco2e, rel=1e-14)


def test_nodes_as_array():
    nodes = np.array([28.0, 7.0, 5.0, 28.0])
    together = device.device_embodied("default", area_mm2=50.0, node_nm=nodes).embodied_kgco2e
    assert together.tolist() == pytest.approx([kg(area_mm2=50.0, node_nm=node) for node in nodes], rel=1e-14)
    with pytest.raises(CarbonError, match="element 2: node_nm '2' is unknown"):
        device.device_embodied("default", area_mm2=50.0, node_nm=np.array([28.0, 7.0, 2.0]))


def test_nodes_between_those_of_the_table_are_interpolated_and_say_so():
    four = device.device_embodied("default", area_mm2=100.0, node_nm=4)
    assert kg(area_mm2=100.0, node_nm=5) < four.embodied_kgco2e < kg(area_mm2=100.0, node_nm=3)
    assert any("interpolated between 3 and 5 nm" in getattr(factor, "note", "") for factor in four.sources)
    old = device.device_embodied("default", area_mm2=100.0, node_nm=65)
    assert old.embodied_kgco2e == pytest.approx(kg(area_mm2=100.0, node_nm=28), rel=1e-12)
    assert any("the oldest node that is known" in getattr(factor, "note", "") for factor in old.sources)
    with pytest.raises(CarbonError, match="node_nm 180 has no"):
        device.device_embodied("default", area_mm2=100.0, node_nm=180)


@pytest.mark.parametrize("package", ["monolithic", "rdl", "emib", "interposer"])
def test_gradients_are_those_of_finite_differences(package):
    torch = pytest.importorskip("torch")
    inputs = {"node_nm": 5, "dies": 2.0, "package": package, "harvest": GPU, "memory_type": "hbm3", "memory_gb": 80.0}
    start = np.array([100.0, 400.0, 800.0])
    area = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    d0 = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    total = device.device_embodied("default", area_mm2=area, d0_per_cm2=d0, **inputs).embodied_kgco2e
    plain = device.device_embodied("default", area_mm2=start, d0_per_cm2=0.1, **inputs).embodied_kgco2e
    assert total.detach().numpy() == pytest.approx(plain, rel=1e-13)
    total.sum().backward()
    step = 1e-4
    up = device.device_embodied("default", area_mm2=start + step, d0_per_cm2=0.1, **inputs).embodied_kgco2e
    down = device.device_embodied("default", area_mm2=start - step, d0_per_cm2=0.1, **inputs).embodied_kgco2e
    # central differences: error step^2 and rounding 1e-16 * 100 kg / step = 1e-10
    assert area.grad.numpy() == pytest.approx((up - down) / (2 * step), rel=1e-6)
    above = device.device_embodied("default", area_mm2=start, d0_per_cm2=0.1 + 1e-6, **inputs).embodied_kgco2e
    below = device.device_embodied("default", area_mm2=start, d0_per_cm2=0.1 - 1e-6, **inputs).embodied_kgco2e
    assert float(d0.grad) == pytest.approx(float((above - below).sum()) / 2e-6, rel=1e-6)


def test_a_million_dies_in_a_second():
    generator = np.random.default_rng(7)
    area = generator.uniform(1.0, 850.0, 1_000_000)
    node = generator.choice([28.0, 22.0, 14.0, 10.0, 7.0, 5.0, 3.0], 1_000_000)
    start = time.process_time()
    found = device.device_embodied("default", area_mm2=area, node_nm=node, harvest=GPU)
    spent = time.process_time() - start
    assert np.isfinite(found.embodied_kgco2e).all()
    assert spent < 1.0, f"{spent:.2f} s of processor time"


def test_chiplets_against_one_die():
    check = validation.crossover_check()
    assert check.passed
    low, high = 0.01, 0.4
    for _ in range(40):  # the one crossing between them, by bisection
        middle = (low + high) / 2
        whole, split = validation.crossover(middle)
        low, high = (low, middle) if split < whole else (middle, high)
    said = re.search(r"D0 = ([\d.]+)", check.measured)
    assert said and 0.0 <= float(said[1]) - high < 0.0011  # the first of a grid of 0.001
    whole, split = validation.crossover(np.array([0.01, 0.4]), package="interposer")
    assert whole[0] < split[0]
    assert split[1] < whole[1]


@pytest.mark.parametrize("kind", [kind for kind in packaging.KINDS if kind != "monolithic"])
def test_a_package_adds_and_its_parts_are_positive(kind):
    plain = device.device_embodied("default", area_mm2=100.0, node_nm=7, dies=2)
    joined = device.device_embodied("default", area_mm2=100.0, node_nm=7, dies=2, package=kind)
    # a 3D stack needs the substrate of one die only
    assert joined.embodied_kgco2e >= plain.embodied_kgco2e or kind == "3d"
    assert all(part >= 0.0 for part in joined.parts.values())
    assert sum(joined.parts.values()) == pytest.approx(joined.embodied_kgco2e, rel=1e-15)


def test_losses_by_hand():
    """Two dies of 1 kg on a fan-out with bonding yield y and test yield t: everything before is divided by both."""
    values = Values({"packaging.eco_bonding_yield": 0.9})
    built = packaging.assemble(
        values, "rdl", silicon_kgco2e=2.0, total_mm2=200.0, largest_mm2=100.0, joined=2.0, ci_g_per_kwh=500.0, test_yield=0.8
    )
    rdl_mm2 = 1.2 * 200.0
    good = (1.0 + rdl_mm2 / 100.0 * 0.05 / 3.0) ** -3.0
    carrier = rdl_mm2 / 100.0 * 1.1 * 0.5 / good
    bonding = rdl_mm2 / 100.0 * 0.09 * 0.5
    assert built.bonding_yield == pytest.approx(0.81)
    assert built.parts["carrier"] == pytest.approx(carrier / 0.81, rel=1e-14)
    assert built.parts["bonding"] == pytest.approx(bonding / 0.81, rel=1e-14)
    assert built.parts["bonding_loss"] == pytest.approx(2.0 * (1.0 / 0.81 - 1.0), rel=1e-13)
    spent = 2.0 + sum(part for name, part in built.parts.items() if name != "test_loss")
    assert built.parts["test_loss"] == pytest.approx(spent * 0.25, rel=1e-13)


def test_different_chiplets_in_one_package():
    mixed = device.device_embodied(
        "default", area_mm2=80.0, node_nm=7, dies=4, chiplets=(Device(area_mm2=400.0, node_nm=14),), package="mcm"
    )
    compute = device.device_embodied("default", area_mm2=80.0, node_nm=7).parts["die"]
    io = device.device_embodied("default", area_mm2=400.0, node_nm=14).parts["die"]
    assert mixed.parts["die"] == pytest.approx(4.0 * compute + io, rel=1e-14)


def test_split_keeps_the_area_and_adds_links():
    assert packaging.split_area(814.0, 1.0) == 814.0
    assert packaging.split_area(814.0, 4.0) * 4.0 == pytest.approx(814.0 * 1.1)


def test_memory_by_the_density_of_its_year():
    """R740 of 2017: generations of 2014 to 2017, 2.20 kg/cm2 and 5.22 kg a module; the range is least to most dense."""
    factor = memory.cm2_per_gb("dram", 2017)
    dense = [1.75, 2.375, 1.313, 1.875, 1.125]
    assert factor.value == pytest.approx(sum(1.0 / each for each in dense) / 5.0, rel=1e-12)
    assert (factor.low, factor.high) == (pytest.approx(1.0 / 2.375), pytest.approx(1.0 / 1.125))
    found = device.device_embodied("default", memory_type="ddr4", memory_gb=384, memory_modules=12, memory_year=2017)
    assert found.parts["memory"] == pytest.approx(384 * 2.2 * factor.value + 12 * 5.22, rel=1e-12)
    assert "newest density known is of 2020" in memory.cm2_per_gb("dram", 2024).note
    with pytest.raises(CarbonError, match="begin in 2010"):
        memory.cm2_per_gb("dram", 2005)


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({}, "device is empty"),
        ({"area_mm2": 10.0}, "node_nm is missing"),
        ({"area_mm2": -1.0, "node_nm": 7}, "area_mm2 is -1"),
        ({"area_mm2": float("nan"), "node_nm": 7}, "area_mm2"),
        ({"area_mm2": [1.0, float("inf")], "node_nm": 7}, "element 1"),
        ({"area_mm2": 10.0, "node_nm": 7, "package": "interposr"}, "interposer"),
        ({"area_mm2": 10.0, "node_nm": 7, "package": "emib"}, "at least two"),
        ({"area_mm2": 10.0, "node_nm": 7, "memory_type": "hbm9", "memory_gb": 1}, "hbm"),
        ({"area_mm2": 10.0, "node_nm": 7, "memory_type": "hbm3", "memory_gb": 1, "memory_modules": 2}, "no modules"),
        ({"area_mm2": 10.0, "node_nm": 7, "system": "servr"}, "server"),
        ({"area_mm2": 10.0, "node_nm": 7, "yield_model": "murphi"}, "murphy"),
        ({"area_mm2": 10.0, "node_nm": 7, "yield_model": "poisson", "harvest": GPU}, "negative_binomial"),
        ({"area_mm2": 10.0, "node_nm": 7, "fab_grid": "taiwan", "ci_g_per_kwh": 500}, "both given"),
        ({"area_mm2": 10.0, "node_nm": 7, "design_iterations": 90}, "parts_made"),
        ({"area_mm2": 10.0, "node_nm": 180}, "node_nm 180 has no"),
        ({"package": "rdl", "memory_type": "ddr4", "memory_gb": 1}, "no die"),
    ],
)
def test_refusals(inputs, word):
    with pytest.raises(CarbonError, match=word) as caught:
        device.device_embodied("default", **inputs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["constant", *yields.MODELS])
def test_every_yield_model_is_selectable(name):
    found = device.device_embodied("default", area_mm2=400.0, node_nm=7, yield_model=name)
    expected = 1.0 if name == "constant" else yields.model(name)(400.0, 0.1)
    assert found.fab_yield == pytest.approx(expected, rel=1e-15)


def test_sources_and_overrides():
    found = device.device_embodied("default", area_mm2=100.0, node_nm=7, memory_type="hbm3", memory_gb=8)
    keys = [getattr(factor, "key", None) or factor.code for factor in found.sources]
    assert "fab.7nm.epa_kwh_cm2" in keys
    assert "act2022:taiwan" in keys
    assert "packaging.hbm_kgco2e_per_gb" in keys
    halved = device.device_embodied(
        "default", area_mm2=100.0, node_nm=7, memory_type="hbm3", memory_gb=8, overrides={"packaging.hbm_kgco2e_per_gb": 0.4305}
    )
    assert halved.parts["memory"] == pytest.approx(found.parts["memory"] / 2.0)
    with pytest.raises(CarbonError, match="used by nothing"):
        device.device_embodied("default", area_mm2=100.0, node_nm=7, overrides={"packaging.hbm": 1.0})


def test_overrides_by_node_touch_that_node_only():
    nodes = np.array([7.0, 5.0])
    base = device.device_embodied("default", area_mm2=100.0, node_nm=nodes).parts["die"]
    draws = np.array([[1.0], [3.0]])
    moved = device.device_embodied("default", area_mm2=100.0, node_nm=nodes, overrides={"fab.7nm.epa_kwh_cm2": draws}).parts["die"]
    assert moved.shape == (2, 2)
    assert moved[0, 1] == moved[1, 1] == base[1]
    assert moved[0, 0] < base[0] < moved[1, 0]


def test_profiles():
    assert recipes.names() == ["act2", "catransformers", "ecochip", "3dcarbon", "default"]
    assert recipes.get("ECOCHIP").name == "ecochip"
    with pytest.raises(CarbonError, match="default"):
        recipes.get("defualt")


def test_design_carbon_of_ecochip():
    """TigerLake's CPU: 16.04 mm2 at 7 nm, 90 iterations over 1e5 parts: 0.28708 kg."""
    found = device.device_embodied("default", area_mm2=16.04, node_nm=7, design_iterations=90, parts_made=1e5)
    assert found.parts["design"] == pytest.approx(0.28708007302473215, rel=1e-12)


def test_blocks():
    found = device.device_embodied("default", system="server", hdds=2, storage_gb=960, storage_drives=2, cpu_packages=2, pcb_cm2=100)
    assert found.parts["system"] == factors.item("server_base_kgco2e").value
    assert found.parts["hdd"] == pytest.approx(2 * 31.11)
    assert found.parts["cpu_packages"] == pytest.approx(2 * 9.14)
    assert found.parts["board"] == pytest.approx(100 * 0.032549)


def test_half_a_design_iteration_costs_half_of_one():
    one, half = (
        device.device_embodied("default", area_mm2=16.04, node_nm=7, design_iterations=n, parts_made=1e5).parts["design"] for n in (1, 0.5)
    )
    assert half == pytest.approx(one / 2, rel=1e-14)


@pytest.mark.parametrize(("own", "others"), [(40.0, (100.0, 70.0)), (40.0, (70.0, 100.0)), (70.0, (40.0, 100.0))])
def test_a_stack_is_the_same_whichever_of_its_dies_is_named_first(own, others):
    """Its footprint is that of the largest die, in whichever place that stands."""

    def parts(first, *further):
        chiplets = tuple(Device(area_mm2=area, node_nm=7) for area in further)
        return device.device_embodied("default", area_mm2=first, node_nm=7, chiplets=chiplets, package="3d").parts

    assert parts(own, *others) == pytest.approx(parts(100.0, 70.0, 40.0), rel=1e-13)
    assert {name: found[0] for name, found in parts(np.array([own]), *others).items()} == pytest.approx(parts(own, *others), rel=1e-13)


def test_flash_has_a_fixed_part_a_drive():
    """Dies by capacity, 6.34 kg for each drive's board and case; soldered flash has none."""
    soldered = device.device_embodied("default", storage_gb=960).parts
    one, four = (device.device_embodied("default", storage_gb=960, storage_drives=n).parts for n in (1, 4))
    (name,) = [key for key in soldered if "storage" in key or "flash" in key]
    assert one[name] - soldered[name] == pytest.approx(6.34)
    assert four[name] - soldered[name] == pytest.approx(4 * 6.34)
    assert device.device_embodied("default", storage_gb=1920).parts[name] == pytest.approx(2 * soldered[name])


@pytest.mark.parametrize("kind", ["monolithic", "mcm"])
def test_a_package_without_bonds_loses_no_die_to_them(kind):
    made = packaging.assemble(Values(), kind, silicon_kgco2e=1.0, total_mm2=100.0, largest_mm2=50.0, joined=2.0, ci_g_per_kwh=500.0)
    assert made.bonding_yield == 1.0 and "bonding_loss" not in made.parts
