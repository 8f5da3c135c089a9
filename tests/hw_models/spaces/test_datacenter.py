"""The datacenter template: its size, its area against dies, its laws, its errors."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import workloads
from hw_models import spaces as templates
from hw_models.accelerator.design import Accelerator, AcceleratorBatch
from hw_models.costs import evaluate as cost
from hw_models.devices import library as devices
from hw_models.errors import HardwareError
from hw_models.spaces import datacenter

A100: dict[str, Any] = {
    "chips": 1,
    "cores": 108,
    "array_rows": 32,
    "array_columns": 32,
    "register_bytes": 256,
    "core_sram_kib": 192,
    "shared_sram_mib": 40,
    "hbm_stacks": 5,
    "links": 12,
    "node_nm": 7,
    "nominal_frequency_hz": 1_410_000_000,
    "voltage_v": 0.75,
}
# One value a knob, written out again: the grid must have exactly this many points.
SIZES = {
    "chips": 5,
    "cores": 6,
    "array_rows": 4,
    "array_columns": 4,
    "register_bytes": 3,
    "core_sram_kib": 4,
    "shared_sram_mib": 5,
    "hbm_stacks": 5,
    "links": 4,
    "node_nm": 3,
    "nominal_frequency_hz": 4,
    "voltage_v": 3,
}


def random_points(count: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Random designs of the grid."""
    generator = np.random.default_rng(seed)
    return {name: generator.choice(np.array(values), count) for name, values in templates.load("datacenter").knobs.items()}


def batch_of(points: dict[str, Any]) -> AcceleratorBatch:
    return templates.load("datacenter").batch(**points)


def costs(points: dict[str, Any], workload: str = "bert", criterion: Literal["edp", "latency"] = "latency") -> cost.Cost:
    return cost.evaluate(batch_of(points), workloads.load(workload).build(), criterion=criterion, threads=2)


def test_cardinality_is_exact() -> None:
    template = templates.load("datacenter")
    assert {name: len(set(values)) for name, values in template.knobs.items()} == SIZES
    assert template.size == int(np.prod(list(SIZES.values()))) == 20_736_000


def test_every_corner_and_random_points_are_positive_and_finite() -> None:
    template = templates.load("datacenter")
    ends = np.meshgrid(*[[values[0], values[-1]] for values in template.knobs.values()], indexing="ij")
    corners = {name: end.ravel() for name, end in zip(template.knobs, ends, strict=True)}
    assert len(corners["cores"]) == 2**12
    for points in (corners, random_points(3000, 1)):
        batch = batch_of(points)
        for name in ("area_mm2", "leakage_w", "mac_pj", "frequency_hz", "tops", "dram_bytes_per_s", "register_read_pj_per_word"):
            values = getattr(batch, name)
            assert np.isfinite(values).all() and (values > 0).all(), name
        for name in ("level_bytes", "level_read_words_per_cycle", "level_read_pj_per_word", "level_write_pj_per_word"):
            values = getattr(batch, name)
            assert np.isfinite(values).all() and (values > 0).all(), name
        # No supply or node of the grid takes the clock out of what chips of these nodes run at.
        assert batch.frequency_hz.min() > 0.5e9 and batch.frequency_hz.max() < 2.0e9


def test_costs_of_random_points_are_positive_finite_and_deterministic() -> None:
    points = random_points(24, 2)
    found, again = costs(points, criterion="edp"), costs(points, criterion="edp")
    for name in ("latency_s", "energy_j", "dram_bytes", "peak_power_w", "utilisation"):
        values = getattr(found, name)
        assert np.isfinite(values).all() and (values > 0).all(), name
        assert np.array_equal(values, getattr(again, name)), name
    assert (found.array_utilisation <= 1.0).all()


def test_one_design_is_its_record_and_its_file() -> None:
    points = random_points(4, 3)
    batch = batch_of(points)
    for at in range(4):
        record = templates.load("datacenter").accelerator(**{name: values[at].item() for name, values in points.items()})
        text = record.to_toml()
        for design in (record.batch(), templates_read(text).batch()):
            assert design.area_mm2[0] == batch.area_mm2[at]
            # Equal to the last bit: a polynomial of the supply must not depend on how many points share its array.
            assert design.mac_pj[0] == batch.mac_pj[at]
            assert design.frequency_hz[0] == batch.frequency_hz[at]
            assert np.array_equal(design.level_read_words_per_cycle[0], batch.level_read_words_per_cycle[at])


def templates_read(text: str) -> Accelerator:
    import tomllib

    from hw_models.spaces.files import read_document

    found = read_document(tomllib.loads(text), where="text", profile=None)
    assert isinstance(found, Accelerator)
    return found


# ---- area ----


def test_constants_are_those_of_the_breakdown() -> None:
    path = Path(__file__).parents[2] / "reference" / "hardware" / "measured" / "llmcompass_a100_die_area.csv"
    blocks = {row["block"]: float(row["area_mm2"]) for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())}
    ours = {
        "cores": datacenter.GA100_CORES_MM2,
        "on_chip_interconnect": datacenter.GA100_INTERCONNECT_MM2,
        "global_buffer": datacenter.GA100_BUFFER_MM2,
        "memory_phy": datacenter.GA100_MEMORY_PHY_MM2,
        "memory_control": datacenter.GA100_MEMORY_CONTROL_MM2,
        "off_chip_interconnect_phy": datacenter.GA100_LINK_PHY_MM2,
        "off_chip_interconnect_control": 0.0,
        "other": datacenter.GA100_OTHER_MM2,
    }
    assert blocks == ours


def test_area_of_dies() -> None:
    """GA100 is what the factors are fitted to; what its product has, and GH100, are not."""
    whole = {"cores": 128, "shared_sram_mib": 48, "hbm_stacks": 6}
    template = templates.load("datacenter")
    fitted = template.batch(**(A100 | whole)).area_mm2[0]
    # The blocks of the breakdown add up to 822.72 mm2; the die is said to have 826.
    assert fitted == pytest.approx(822.72, rel=1e-9)
    product = template.batch(**A100).area_mm2[0]
    # 20 of 128 cores, 8 of 48 MiB and a stack are on the die but switched off, and not in the model: 15 % low.
    assert product / devices.load("a100").die_mm2 == pytest.approx(0.849, abs=0.005)
    hopper = template.with_knobs(cores=[144], core_sram_kib=[256], node_nm=[4], register_bytes=[128]).batch(
        cores=144, array_rows=32, array_columns=64, register_bytes=128, core_sram_kib=256, shared_sram_mib=60, hbm_stacks=6,
        chips=1, links=18, node_nm=4, nominal_frequency_hz=1_750_000_000, voltage_v=0.75, vector_lanes_per_core=128,
    )  # fmt: skip
    assert hopper.area_mm2[0] / devices.load("h100").die_mm2 == pytest.approx(1.0, abs=0.05)


def test_a_die_of_another_kind_is_far_off_and_the_docs_say_so() -> None:
    """TPU v4i (below 400 mm2): one core's worth of control for 16 Ki MACs and denser SRAM than GA100's."""
    parts = datacenter.die_parts_mm2(
        cores=np.array([4]), macs=np.array([128 * 128]), lanes=np.array([256]), register_bytes=np.array([12]),
        core_sram_bytes=np.array([4 * 2**20]), shared_sram_bytes=np.array([128 * 2**20]), hbm_stacks=np.array([2]), links=np.array([2]),
        node_nm=np.array([7.0]), mac_bits=np.array([16]),
    )  # fmt: skip
    area = sum(float(part[0]) for part in parts.values())
    assert area / devices.load("tpu-v4i").die_mm2 == pytest.approx(1.59, abs=0.03)


@pytest.mark.parametrize("knob", [name for name in SIZES if name not in ("nominal_frequency_hz", "voltage_v")])
def test_area_grows_with_every_resource(knob: str) -> None:
    points = random_points(400, 4)
    values = templates.load("datacenter").knobs[knob]
    areas = np.array([batch_of(points | {knob: np.full(400, value)}).area_mm2 for value in values])
    assert (np.diff(areas, axis=0) > 0).all()


def test_area_does_not_depend_on_clock_and_supply() -> None:
    points = random_points(50, 5)
    slow = batch_of(points | {"nominal_frequency_hz": 0.7e9, "voltage_v": 0.65})
    fast = batch_of(points | {"nominal_frequency_hz": 1.75e9, "voltage_v": 0.85})
    assert np.array_equal(slow.area_mm2, fast.area_mm2)


# ---- laws ----


@pytest.mark.parametrize("workload", ["bert", "llama3-8b"])
@pytest.mark.parametrize(
    ("knob", "ladder"), [("hbm_stacks", (1, 2, 4, 8)), ("nominal_frequency_hz", (0.7e9, 1.4e9, 1.75e9)), ("voltage_v", (0.65, 0.75, 0.85))]
)
def test_more_is_never_slower(knob: str, ladder: tuple[float, ...], workload: str) -> None:
    points = random_points(10, 6)
    times = np.array([costs(points | {knob: np.full(10, v)}, workload).latency_s for v in ladder])
    # Bytes a second become words a cycle and back: a rounding of 2^-52 each.
    assert (np.diff(times, axis=0) <= 1e-12 * times[:-1]).all()
    assert (times[-1] < times[0]).any()


@pytest.mark.parametrize("knob", ["core_sram_kib", "shared_sram_mib"])
def test_more_sram_is_never_slower_nor_more_dram_traffic(knob: str) -> None:
    points = random_points(10, 7)
    values = templates.load("datacenter").knobs[knob]
    found = [costs(points | {knob: np.full(10, value)}) for value in values]
    times, traffic = np.array([c.latency_s for c in found]), np.array([c.dram_bytes for c in found])
    assert (np.diff(times, axis=0) <= 1e-12 * times[:-1]).all()
    assert (np.diff(traffic, axis=0) <= 0).all()


def test_a_low_supply_saves_energy_and_costs_time() -> None:
    points = random_points(10, 8)
    low, high = (costs(points | {"voltage_v": np.full(10, v)}) for v in (0.65, 0.85))
    assert (low.dynamic_j < high.dynamic_j).all()
    assert (batch_of(points | {"voltage_v": 0.65}).frequency_hz < batch_of(points | {"voltage_v": 0.85}).frequency_hz).all()


def test_the_nominal_supply_leaves_the_clock_and_hbm_follows_no_clock() -> None:
    points = random_points(100, 9)
    batch = batch_of(points | {"voltage_v": 0.75})
    np.testing.assert_allclose(batch.frequency_hz, points["nominal_frequency_hz"], rtol=1e-14)
    np.testing.assert_allclose(batch_of(points).dram_bytes_per_s, 407.8e9 * points["hbm_stacks"], rtol=1e-14)


# ---- errors ----


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"cores": 0}, "cores"),
        ({"hbm_stacks": 9}, "hbm_stacks"),
        ({"hbm_stacks": -1}, "hbm_stacks"),
        ({"array_rows": 16.5}, "array_rows"),
        ({"node_nm": 3}, "node_nm"),
        ({"voltage_v": float("nan")}, "voltage_v"),
        ({"voltage_v": 1.5}, "voltage_v"),
        ({"vector_lanes_per_core": 0}, "vector_lanes_per_core"),
        ({"vector_lanes_per_core": 2**30}, "vector_lanes_per_core"),
        ({"hbm_bytes_per_s_per_stack": -1.0}, "hbm_bytes_per_s_per_stack"),
        ({"word_bits": 0}, "word_bits"),
        ({"array_kind": "systolik"}, "did you mean"),
        ({"hbm_stack": 4}, "did you mean"),
    ],
)
def test_absurd_values_are_named(change: dict[str, Any], says: str) -> None:
    with pytest.raises(HardwareError, match=says):
        templates.load("datacenter").batch(**(A100 | change))


@pytest.mark.parametrize(
    ("knob", "value"),
    [("voltage_v", 1.4), ("shared_sram_mib", 4096), ("core_sram_kib", 2**21), ("nominal_frequency_hz", 4e10), ("register_bytes", 2**20)],
)
def test_values_beyond_the_tables_are_named(knob: str, value: float) -> None:
    kilo_square: dict[str, list[Any]] = {"array_rows": [1024], "array_columns": [1024]} if knob == "register_bytes" else {}
    template = templates.load("datacenter").with_knobs(**(kilo_square | {knob: [value]}))
    with pytest.raises(HardwareError, match=knob):
        template.batch(**(A100 | {knob: value} | {name: values[0] for name, values in kilo_square.items()}))


def test_the_profile_of_another_tool_is_refused() -> None:
    with pytest.raises(HardwareError, match="default"):
        templates.load("datacenter", profile="catransformers22").batch(**A100)


def test_chips_multiply_what_they_have() -> None:
    points = random_points(50, 10)
    one, eight = batch_of(points | {"chips": np.full(50, 1)}), batch_of(points | {"chips": np.full(50, 8)})
    for name in ("area_mm2", "leakage_w", "tops", "dram_bytes"):
        # Eight is a power of two: no rounding.
        assert np.array_equal(getattr(eight, name), 8 * getattr(one, name)), name
    assert np.array_equal(eight.die_mm2, one.area_mm2)
    assert np.array_equal(eight.link_bytes_per_s, 14e9 * points["links"])


def test_what_is_not_modelled_names_overlap() -> None:
    assert any("collectives that overlap products" in line for line in templates.load("datacenter").not_modelled)
