"""ACT v2: rows, bills of material and documented constants, to 1e-12 (its own arithmetic, double precision)."""

import csv
import tomllib
from pathlib import Path

import numpy as np
import pytest

from carbon import CarbonError
from carbon.device import device
from carbon.embodied import act as embodied
from carbon.factors import grid
from carbon.factors import tables as factors
from carbon.operational import service as operational

REFERENCE = Path(__file__).parent.parent / "reference" / "carbon"
#: double precision, a handful of operations: 1e-12 leaves three digits of room
TIGHT = 1e-12


def rows(name):
    with (REFERENCE / name).open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("row", rows("ref_act_logic.csv"))
def test_logic(row):
    found = device.device_embodied(
        "act2",
        area_mm2=float(row["area_mm2"]),
        node_nm=row["node"],
        fab_grid=row["fab_ci"],
        abatement_pct=float(row["gpa_abatement_pct"]),
        fab_yield=float(row["fab_yield"]),
        n_ics=float(row["n_ics"]),
    )
    assert found.parts["die"] == pytest.approx(float(row["fab_kgco2"]), rel=TIGHT)
    assert found.parts["packaging"] == pytest.approx(float(row["packaging_kgco2"]), rel=TIGHT)
    assert found.embodied_kgco2e == pytest.approx(float(row["total_kgco2"]), rel=TIGHT)


@pytest.mark.parametrize("row", rows("ref_act_logic.csv"))
def test_carbon_per_area(row):
    cpa = embodied.node_carbon_per_area(row["node"], float(row["fab_ci_g_per_kwh"]), float(row["gpa_abatement_pct"]))
    assert cpa / float(row["fab_yield"]) == pytest.approx(float(row["cpa_kg_per_cm2"]), rel=TIGHT)


def memory_of(kind, process):
    return factors.memory(process, source_id="act") if kind == "dram" else factors.storage(kind, process)


@pytest.mark.parametrize("row", rows("ref_act_memory_storage.csv"))
def test_memory_and_storage(row):
    factor = memory_of(row["kind"], row["process"])
    held = embodied.capacity(float(row["capacity_gb"]), factor.per_gb.value, float(row["fab_yield"]))
    total = held + embodied.ic_packaging(float(row["n_ics"]))
    assert total == pytest.approx(float(row["total_kgco2"]), rel=TIGHT)


@pytest.mark.parametrize("row", rows("ref_act_op.csv"))
def test_operation(row):
    intensity = grid.lookup(row["op_ci"], order=grid.ACT_ORDER).gco2e_per_kwh
    assert intensity == float(row["ci_g_per_kwh"])
    found = operational.power_hours(
        float(row["op_power_w"]),
        duty_cycle=float(row["duty_cycle"]),
        lifetime_years=float(row["lifetime_year"]),
        gco2e_per_kwh=intensity,
    )
    assert found == pytest.approx(float(row["total_kgco2"]), rel=TIGHT)


@pytest.mark.parametrize("row", rows("ref_act_pcb.csv"))
def test_board(row):
    found = embodied.pcb_act(float(row["area_cm2"]), int(row["layers"]))
    assert found == pytest.approx(float(row["total_kgco2"]), rel=TIGHT)


def bom_item(item):
    """Carbon of one line of an ACT bill of material."""
    model = item.get("model", "logic")
    if item["section"] == "passives":
        return embodied.capacitor_act(item["type"], item["weight_kg"], item["quantity"])
    if item["section"] == "materials":
        if item["category"] == "enclosure":
            return embodied.material_act(item["type"], item["weight_kg"])
        if item["category"] == "battery":
            return embodied.battery_act(item["capacity_kwh"])
        return embodied.pcb_act(item["area_cm2"], item["layers"])
    packed = embodied.ic_packaging(item.get("n_ics", 0))
    good = item.get("fab_yield", 0.875)
    if model == "logic":
        intensity = grid.lookup(item.get("fab_ci", "taiwan"), role="fab", order=grid.ACT_ORDER).gco2e_per_kwh
        cpa = embodied.node_carbon_per_area(item["process"], intensity, float(item.get("gpa", 97)))
        return embodied.logic_die(item["area_mm2"], cpa, good) + packed
    kind = {"dram": "dram", "flash": "ssd", "hdd": "hdd"}[model]
    return embodied.capacity(item["capacity_gb"], memory_of(kind, item["process"]).per_gb.value, good) + packed


BOMS = {bom["name"]: bom["item"] for bom in tomllib.loads((REFERENCE / "act_boms.toml").read_text(encoding="utf-8"))["bom"]}


@pytest.mark.parametrize("row", rows("ref_act_bom.csv"))
def test_bill_of_material(row):
    items = BOMS[row["bom"]]
    if row["section"] == "TOTAL":
        found = sum(bom_item(item) for item in items)
    else:
        (item,) = [each for each in items if each["device"] == row["device"] and each["section"] == row["section"]]
        found = bom_item(item)
    assert found == pytest.approx(float(row["total_kgco2"]), rel=TIGHT)


def test_constants_of_the_readme():
    """R740 DRAM 330.4285714 kg and Fairphone CPU 0.8992937 kg, as ACT's own tests have them."""
    dram = sum(bom_item(item) for item in BOMS["dellr740"] if item["device"].startswith("dram.main"))
    assert dram == pytest.approx(330.42857142857144, rel=TIGHT)
    (cpu,) = [item for item in BOMS["fairphone3"] if item["device"] == "cpu"]
    assert bom_item(cpu) == pytest.approx(0.8992937142857143, rel=TIGHT)


def test_catransformers_by_hand():
    """SoC at 22 nm: (1.077 * 642 + 188.28 + 500) / 0.875 g/cm2; DRAM 0.184 / 0.875 kg/GB; no packaging."""
    found = device.device_embodied("catransformers", area_mm2=33.0, node_nm=22, memory_gb=1)
    cpa = (1.077 * 642.0 + 188.28 + 500.0) / 0.875 / 1000.0
    assert cpa == pytest.approx(1.57682, rel=1e-5)
    assert found.parts["die"] == pytest.approx(0.33 * cpa, rel=TIGHT)
    assert found.parts["memory"] == pytest.approx(0.184 / 0.875, rel=TIGHT)
    assert set(found.parts) == {"die", "memory"}
    # one gigabyte of DRAM is three quarters or more of every small design there
    assert found.parts["memory"] / device.device_embodied("catransformers", area_mm2=4.0, node_nm=22, memory_gb=1).embodied_kgco2e > 0.75


def test_catransformers_ignores_time():
    """Thirty million inferences whatever they take: energy alone counts."""
    found = operational.fixed_requests(0.01, 30_000_000, 224.0)
    assert found == pytest.approx(0.01 / 3.6e6 * 224.0 / 1000.0 * 3.0e7, rel=TIGHT)


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"node_nm": 2}, "node_nm 2 .* nearest: "),
        ({"node_nm": 7, "abatement_pct": 96.0}, "95, 97, 99"),
        ({"node_nm": 7, "memory_type": "lpddr5", "memory_gb": 1}, "lpddr"),
        ({"node_nm": 7, "memory_gb": 1}, "memory_type is missing"),
        ({"node_nm": 7, "fab_grid": "tawian"}, "taiwan"),
        ({"node_nm": 7, "dies": 2}, "'default'"),
        ({"node_nm": 7, "d0_per_cm2": 0.1}, "constant"),
        ({"node_nm": 7, "fab_yield": 0.0}, "fab_yield"),
        ({"node_nm": 7, "area_mm2": 0.0}, "area_mm2"),
        ({"node_nm": 7, "area_mm": 3}, "area_mm2"),
    ],
)
def test_refusals(inputs, word):
    with pytest.raises(CarbonError, match=word) as caught:
        device.device_embodied("act2", **{"area_mm2": 10.0, **inputs})
    assert "\n" not in str(caught.value)


def test_gases_that_a_node_lacks_are_those_between_its_neighbours():
    """12 nm has a figure at 99 % abatement alone: there the rule, a power law of the node, is 1.2 % off it."""
    share = np.log(12 / 10) / np.log(14 / 10)

    def between(low, high):
        return low ** (1 - share) * high**share

    assert between(0.15, 0.125) == pytest.approx(factors.fab("gpa_99_kgco2e_cm2", 12).value, rel=0.013)
    found = factors.fab("gpa_97_kgco2e_cm2", 12)
    assert found.value == pytest.approx(between(0.195, 0.1625), rel=1e-12)
    assert found.note == "interpolated between 10 and 14 nm"
    kg = [device.device_embodied("act2", area_mm2=10.0, node_nm=node).parts["die"] for node in (10, 12, 14)]
    assert kg[0] > kg[1] > kg[2]


def test_arrays_equal_scalars():
    areas, nodes = np.array([1.0, 45.0, 814.0]), np.array([28.0, 22.0, 5.0])
    together = device.device_embodied("act2", area_mm2=areas, node_nm=nodes, memory_type="lpddr4", memory_gb=np.array([0.0, 1.0, 2.0]))
    for at in range(3):
        alone = device.device_embodied("act2", area_mm2=areas[at], node_nm=nodes[at], memory_type="lpddr4", memory_gb=[0.0, 1.0, 2.0][at])
        for name, part in together.parts.items():
            assert part[at] == alone.parts[name]
    assert together.parts["packaging"].tolist() == [0.15, 0.3, 0.3]


def test_the_slope_of_abatement_is_that_of_the_line_between_the_tables() -> None:
    """96 % lies a quarter of the way from the table at 95 % to that at 99 %, in the function and in an estimate."""
    at_95, at_99 = (embodied.gas_per_area(28, level) for level in (95.0, 99.0))
    assert embodied.gas_per_area(28, 96.0) == pytest.approx(0.75 * at_95 + 0.25 * at_99, rel=1e-12)
    assert embodied.gas_per_area(28, 98.0) == pytest.approx(0.25 * at_95 + 0.75 * at_99, rel=1e-12)


def test_generic_capacitors_by_number_and_batteries_by_cathode():
    """300 g each, whatever they weigh; 87 kg a kWh of NMC, 61.5 of LFP."""
    assert embodied.capacitor_act("generic", 5.0, 7) == pytest.approx(7 * 0.3)
    assert embodied.battery_act(2.0) == pytest.approx(2 * 87.0)
    assert embodied.battery_act(2.0, "lfp") == pytest.approx(2 * 61.5)
    # mlcc and tec: MJ a kg over 3.6 is kWh a kg, at 485 g a kWh.
    for kind in ("mlcc", "tec"):
        mj_per_kg = factors.item(f"act_{kind}").value
        assert embodied.capacitor_act(kind, 0.002, 10) == pytest.approx(0.002 * 10 * mj_per_kg / 3.6 * 0.485)


@pytest.mark.parametrize(("kind", "kg_per_kg"), [("steel", 1.89), ("aluminium", 15.1)])
def test_enclosures_by_weight(kind, kg_per_kg):
    assert embodied.material_act(kind, 0.5) == pytest.approx(0.5 * kg_per_kg)
    assert embodied.material_act(kind, 0.0) == 0.0
    with pytest.raises(CarbonError, match="weight_kg"):
        embodied.material_act(kind, -0.5)
    with pytest.raises(CarbonError, match="capacity_kwh"):
        embodied.battery_act(-0.5)
