"""Small pieces of an evaluation, each against its definition: sums of reports, masks, columns of points, draws, and the edges of rules."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

import carbon.device
from carbon.analysis.uncertainty import Range
from dse import api
from dse.errors import UsageError
from dse.evaluation import (
    board_specification,
    boards,
    careful,
    design_costs,
    design_list,
    device_order,
    feasibility,
    hardware_points,
    on_chip,
    one_design,
    provenance,
    robustness,
    space_file,
    words,
)
from dse.evaluation.evaluation import Evaluation, load_hardware
from dse.problem.deployment import Deployment
from dse.problem.objectives import parse_constraint
from hw_models.costs import board_power
from hw_models.costs.evaluate import evaluate
from hw_models.costs.products_csv import Table
from hw_models.devices import library

SMALL = {"layers": 2, "hidden": 128, "ffn": 512, "heads": 2, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64}


@pytest.fixture(scope="module")
def several() -> Evaluation:
    """One small model on eighteen designs, every operation by itself: three numbers of cores, two buffers, three grids."""
    problem = api.make_problem(
        "bert", ["min:total_kgco2e", "min:latency_s"], fixed=SMALL, allow_unsupported=True, constraints=["area_mm2<=50"],
        vary={"grid": ["france", "world", "411.3"]}, rate_per_s=7.7, pue=1.17, lifetime_years=3.3, electricity_usd_per_kwh=0.37,
        residency="none",
    )  # fmt: skip
    return Evaluation(problem, threads=1)


# ---- which designs count ----


@dataclass
class Designs:
    shape: tuple[int, int]
    mapped: Any
    made: Any
    values: dict[str, Any]

    def mappable(self) -> Any:
        return self.mapped

    def makeable(self) -> Any:
        return self.made

    def metric(self, name: str) -> Any:
        return self.values[name]


def test_every_broken_rule_is_counted() -> None:
    mapped, made = np.array([[True, True, False], [True, True, True]]), np.array([[True, False, True]])
    latency = np.array([[1.0, 2.0, np.nan], [3.0, 2.0, 1.0]])
    block = Designs((2, 3), mapped, made, {"latency_s": latency, "area_mm2": np.array([[5.0, 5.0, 7.0]])})
    bounds = [parse_constraint("latency_s<=2"), parse_constraint("area_mm2>=5.5")]
    found, reasons = feasibility.feasible(block, bounds)
    assert found.tolist() == [[False, False, False], [False, False, True]]
    assert reasons == {feasibility.UNMAPPABLE: 1, feasibility.UNMAKEABLE: 2, str(bounds[0]): 1, str(bounds[1]): 4}
    found, reasons = feasibility.feasible(block, bounds[:1], lambda of, name: np.full(of.shape, 2.0))
    assert found.tolist() == [[True, False, False], [True, False, True]] and reasons[str(bounds[0])] == 0
    assert feasibility.feasible(replace(block, mapped=np.array([[True]]), made=np.array([[True]])), [])[1] == {}
    assert feasibility.meets(bounds[0], np.array([1.99, 2.0, 2.01, np.nan])).tolist() == [True, True, False, False]
    assert feasibility.meets(bounds[1], np.array([5.49, 5.5, 5.51, np.nan])).tolist() == [False, True, True, False]


# ---- what stays on chip ----

STEPS = [
    {"component": "attention", "name": "q", "epilogue": ["add", "gelu"], "row": 0, "runs": 3.0, "latency_s": 0.37, "energy_j": 2.3,
     "dram_bytes": 11.0, "bound": "dram", "held_bytes": 5.0},
    {"component": "attention", "name": "k", "epilogue": [], "row": 1, "runs": 2.0, "latency_s": 0.53, "energy_j": 0.7, "dram_bytes": 13.0,
     "bound": "compute", "held_bytes": 7.0},
    {"component": "ffn", "name": "up", "epilogue": [], "row": 2, "runs": 0.0, "latency_s": 0.0, "energy_j": 0.0, "dram_bytes": 0.0,
     "bound": "compute", "held_bytes": 6.0},
    {"component": "attention", "name": "v", "epilogue": [], "row": 1, "runs": 2.0, "latency_s": 0.11, "energy_j": 0.7, "dram_bytes": 3.0,
     "bound": "dram", "held_bytes": 1.0},
]  # fmt: skip
TENSORS = [
    {"made_by": "q", "bytes": 64.0, "places": {"chip": 3.0, "DRAM": 0.5}},
    {"made_by": "q", "bytes": 64.0, "places": {"chip and DRAM": 2.0}},
    {"made_by": "q", "bytes": 32.0, "places": {"DRAM": 1.0}},
]  # fmt: skip


def test_a_report_in_short_adds_up() -> None:
    whole = {"latency_s": 1.7, "energy_j": 5.3, "dram_bytes": 99.0}
    saved = on_chip.saved({"steps": STEPS}, whole)
    assert saved == {"latency_s": pytest.approx(1.7 - 1.01), "energy_j": pytest.approx(5.3 - 3.7), "dram_bytes": pytest.approx(72.0)}
    report = {"steps": STEPS, "tensors": TENSORS, "saved": saved, "level": "weights", "weights_on_chip": False, "capacity_bytes": 9}
    short = on_chip.in_short(report)
    assert short["alone"] == {name: pytest.approx(value) for name, value in whole.items()} and short["most_held_bytes"] == 7.0
    assert short["tensors"] == [
        {"made_by": "q", "bytes": 64.0, "chip": 3.0, "both": 2.0, "dram": 0.5},
        {"made_by": "q", "bytes": 32.0, "chip": 0.0, "both": 0.0, "dram": 1.0},
    ]  # fmt: skip
    assert on_chip.in_short({**report, "steps": []})["most_held_bytes"] == 0.0


def test_a_breakdown_of_steps_shares_out_the_work_of_their_rows() -> None:
    attention, ffn = on_chip.breakdown({"steps": STEPS}, np.array([30.0, 44.0, 70.0]), np.array([6.0, 4.0, 0.0]))
    assert (attention["component"], ffn["component"]) == ("attention", "ffn")
    assert attention["macs"] == pytest.approx(30.0 * 3 / 6 + 2 * 44.0 * 2 / 4) and ffn["macs"] == 0.0
    assert (attention["latency_s"], attention["energy_j"], attention["dram_bytes"]) == (pytest.approx(1.01), pytest.approx(3.7), 27.0)
    assert attention["latency_by_bound_s"] == {"dram": pytest.approx(0.48), "compute": 0.53} and attention["bound"] == "compute"
    names = [(one["name"], one["repeat"], one["macs"]) for one in attention["operations"]]
    assert names == [("q+add+gelu", 3.0, 15.0), ("k", 2.0, 22.0), ("v", 2.0, 22.0)]


def test_the_place_of_a_design_among_batches() -> None:
    batches: Any = [[0] * 2, [0], [0] * 3]
    assert [on_chip._place(batches, d)[1] for d in range(6)] == [0, 1, 0, 0, 1, 2]
    assert [on_chip._place(batches, d)[0] is batches[i] for d, i in enumerate((0, 0, 1, 2, 2, 2))] == [True] * 6
    with pytest.raises(IndexError):
        on_chip._place(batches, 6)


def test_bounds_of_a_whole_design_in_order() -> None:
    components = [{"latency_by_bound_s": {"dram": 1.0, "compute": 2.0}}, {"latency_by_bound_s": {"dram": 1.5, "vector": 0.5}}]
    found = one_design._by_bound(components)
    assert found == {"dram": 2.5, "compute": 2.0, "vector": 0.5} and list(found) == ["dram", "compute", "vector"]


@pytest.mark.parametrize(("fill", "busy", "count"), [(1.0, 1.0, 0), (0.5, 1.001, 1), (1.001, 1.0, 1), (2.0, 2.0, 2)])
def test_a_design_that_cannot_serve_says_why(several: Evaluation, fill: float, busy: float, count: int) -> None:
    assert len(one_design._reasons({"dram_fill": fill, "service_utilisation": busy}, several)) == count


# ---- points ----


def test_points_are_designs_in_their_deployments(several: Evaluation) -> None:
    """Grids vary fastest; each design is costed once; an own intensity is taken as it is."""
    points, count = several.points, several.space.hardware_count
    designs = sum(map(len, points.batches))
    assert count == 3 * designs and not points.one_deployment and points.one_chip and points.one_group
    assert points.design.tolist() == np.repeat(np.arange(designs), 3).tolist()
    assert points.gco2e_per_kwh[2::3].tolist() == [411.3] * designs
    for values in (points.area_mm2, points.embodied_kgco2e, points.leakage_w):
        assert (values.reshape(designs, 3) == values.reshape(designs, 3)[:, :1]).all()
    assert sum(points.parts.values()) == pytest.approx(points.embodied_kgco2e)
    for at in (0, count - 1):
        assert several.carbon_parts(at) == {name: part[at] for name, part in points.parts.items()}
        (batch,) = points.batches
        own = batch.take(np.array([points.design[at]]))
        assert points.area_mm2[at] == own.area_mm2[0] and points.tops[at] == own.tops[0] and points.dram_bytes[at] == own.dram_bytes[0]
        device = carbon.device.device_embodied(
            several.deployment.carbon_profile, area_mm2=float(own.die_mm2[0]), node_nm=float(own.node_nm[0]),
            memory_type=batch.level_kinds[-1], memory_gb=float(own.dram_bytes[0]) / 2**30, fab_grid=several.deployment.fab_grid,
        )  # fmt: skip
        assert points.embodied_kgco2e[at] == pytest.approx(device.embodied_kgco2e)


def test_metrics_of_a_service_from_latency_and_energy(several: Evaluation) -> None:
    """Each metric from the design's latency and energy alone, at 7.7 requests a second for 3.3 years, PUE 1.17, 0.37 USD a kWh."""
    block, points = several.block(0, 1), several.points
    metric = {name: np.broadcast_to(block.metric(name), block.shape)[0] for name in several.metric_names}
    unit = several.unit
    weight, index, design = several.weight[0], several.index[0], points.design
    latency = np.array([sum(weight * unit.latency_s[index, d]) for d in range(unit.latency_s.shape[1])])[design]
    dynamic = np.array([sum(weight * unit.energy_j[index, d]) for d in range(unit.latency_s.shape[1])])[design]
    assert metric["latency_s"] == pytest.approx(latency)
    assert metric["energy_j"] == pytest.approx(dynamic + points.leakage_w * latency)
    assert metric["service_utilisation"] == pytest.approx(7.7 * latency)
    hours = 3.3 * 8766.0
    watts = 7.7 * metric["energy_j"] + points.leakage_w * np.maximum(1 - 7.7 * latency, 0)
    used = watts * hours / 1000.0 * 1.17 * points.gco2e_per_kwh / 1000.0
    assert metric["operational_kgco2e"] == pytest.approx(used)
    assert metric["total_kgco2e"] == pytest.approx(used + points.embodied_kgco2e)
    assert metric["kgco2e_per_request"] == pytest.approx((used + points.embodied_kgco2e) / (7.7 * hours * 3600.0))
    assert np.broadcast_to(block.piece("idle_share"), block.shape)[0] == pytest.approx(np.maximum(1 - 7.7 * latency, 0))
    assert block._usd_per_w() == pytest.approx(hours / 1000.0 * 1.17 * 0.37)
    of = several.workload
    held = sum(float(np.ravel(part)[0]) for part in (of.weight_bytes(), of.kv_cache_bytes(), of.activation_bytes()))
    assert metric["dram_fill"] == pytest.approx(held / points.dram_bytes)
    powers = np.where(unit.latency_s > 0, unit.energy_j / np.where(unit.latency_s > 0, unit.latency_s, 1.0), 0.0)
    most = np.array([max(powers[i, d] for i, w in zip(index, weight, strict=True) if w > 0) for d in range(powers.shape[1])])[design]
    assert metric["peak_power_w"] == pytest.approx(most + points.leakage_w)


def test_a_breakdown_adds_up_to_the_design(several: Evaluation) -> None:
    block = several.block(0, 1)
    for at in (0, several.space.hardware_count - 1):
        entries = several.breakdown(0, at)
        assert sum(one["latency_s"] for one in entries) == pytest.approx(block.metric("latency_s")[0, at])
        assert sum(one["macs"] for one in entries) == pytest.approx(several.macs[0])
        alone = several.alone(0, int(several.points.design[at]))
        for name in ("latency_s", "energy_j", "dram_bytes"):
            assert sum(one[name] for one in entries) == pytest.approx(alone[name])
        for one in entries:
            assert (
                sum(one["latency_by_bound_s"].values())
                == pytest.approx(one["latency_s"])
                == pytest.approx(sum(o["latency_s"] for o in one["operations"]))
            )
            assert one["bound"] == max(one["latency_by_bound_s"], key=one["latency_by_bound_s"].__getitem__)
            assert one["macs"] == pytest.approx(sum(o["macs"] for o in one["operations"]))
        assert several.busy_s(0, at) == {unit: alone[f"{unit}_s"] for unit in ("array", "vector", "dram", "link")}


def test_chips_and_devices_of_several_memories() -> None:
    """Two boards with memories of their own kinds are two batches; one, two and four of a board cost as many times one."""
    problem = api.make_problem("bert-tiny", "hardware", hw="h100,l40s", vary={"chips": [1, 2, 4]}, allow_unsupported=True)
    space = load_hardware(problem)
    columns = {"device": np.array(["l40s", "h100", "h100", "l40s", "h100"]), "chips": np.array([1, 4, 1, 4, 4])}
    found = hardware_points.make_points(space, columns, problem.deployment)
    assert [len(batch) for batch in found.batches] == [2, 2] and not found.one_chip and not found.one_deployment
    assert found.chips.tolist() == [1, 4, 1, 4, 4]
    names = [name for batch in found.batches for name in batch.names]
    assert [names[d] for d in found.design] == columns["device"].tolist() and found.design[1] == found.design[4]
    one = {name: float(carbon.device.device_embodied("default", **boards.board_inputs(name)).embodied_kgco2e) for name in ("h100", "l40s")}
    wanted = [one[name] * chips for name, chips in zip(columns["device"].tolist(), columns["chips"].tolist(), strict=True)]
    assert found.embodied_kgco2e == pytest.approx(wanted) and found.makeable.all()
    price = [library.load(name).capital_usd for name in columns["device"].tolist()]
    assert np.array_equal(found.capital_usd, np.array([np.nan if p is None else p for p in price]) * found.chips, equal_nan=True)
    idle = [
        library.load(name).accelerator.batch().leakage_w[0] * chips
        for name, chips in zip(columns["device"].tolist(), columns["chips"].tolist(), strict=True)
    ]
    assert found.leakage_w == pytest.approx(idle) and found.request_leakage_w == pytest.approx(idle)
    per_design = found.of_designs(lambda batch: batch.tops)
    assert found.tops == pytest.approx(per_design[found.design])
    marks = np.arange(4.0)[None, :]
    assert found.of_designs_columns(marks, lambda batch, own: own + 10 * len(batch)).tolist() == [[20.0, 21.0, 22.0, 23.0]]
    plain = hardware_points.make_points(space, {"device": np.array(["h100", "l40s"]), "chips": np.array([1, 1])}, problem.deployment)
    assert plain.one_deployment and plain.one_chip and plain.one_group
    turned = hardware_points.make_points(
        space, {"device": np.array(["h100", "l40s", "h100"]), "chips": np.array([1, 1, 1])}, problem.deployment
    )
    assert not turned.one_deployment
    shapes = Evaluation(problem, threads=1, mapped=False).shapes
    both = found.unit_costs(shapes, criterion="edp", threads=1, progress=None)
    for design in range(4):
        alone = found.unit_costs_of(design, shapes, "edp")
        for name in ("latency_s", "energy_j", "link_s", "dram_bytes"):
            assert getattr(both, name)[:, design] == pytest.approx(getattr(alone, name)[:, 0], rel=1e-12)
        assert [both.bound_names[b] for b in both.bound[:, design]] == [alone.bound_names[b] for b in alone.bound[:, 0]]
    with pytest.raises(IndexError):
        found.unit_costs_of(4, shapes, "edp")


# ---- boards and sources ----


@pytest.mark.parametrize("name", ["h100", "b200", "l4"])
def test_a_specification_takes_a_named_device_as_the_library_has_it(name: str) -> None:
    device = library.load(name)
    spec = board_specification.with_devices(
        {"name": "x", "device": {"device": name, "count": 3}, "component": [{"hdds": 1}, {"device": name, "area_mm2": 7.0}]}
    )
    found, (plain, own) = spec["device"], spec["component"]
    memory = device.accelerator.levels[-1]
    assert (found["area_mm2"], found["node_nm"], found["count"]) == (
        device.die_mm2,
        device.embodied.get("node_nm", device.accelerator.node_nm),
        3,
    )
    assert (found["memory_type"], found["memory_gb"]) == (memory.kind, device.embodied.get("memory_gb", memory.bytes / 2**30))
    assert "device" not in found and "host_share" not in found and plain == {"hdds": 1} and own["area_mm2"] == 7.0
    with pytest.raises(Exception, match="component 2"):
        board_specification.with_devices({"component": [{"hdds": 1}, {"device": "h10"}]})
    inputs = boards.board_inputs(name)
    assert inputs["area_mm2"] == device.die_mm2 and inputs["memory_gb"] == device.embodied.get("memory_gb", memory.bytes / 2**30)


@pytest.mark.parametrize("name", ["h100", "tpu-v1"])
def test_numbers_of_a_device_are_told_with_their_sources(name: str) -> None:
    device = library.load(name)
    record = device.accelerator
    told = {entry["key"].split(".")[-1]: entry for entry in provenance._device(name)}
    assert set(told) == set(device.sources)
    for key, entry in told.items():
        levels = {level.name: float(level.bytes) for level in record.levels}
        wanted = levels | {
            "link": record.link_bytes_per_s,
            "array": float(record.array_rows) * record.array_columns,
            "vector": float(record.vector_lanes),
        }
        if key in wanted:
            assert entry["value"] == wanted[key]
        elif isinstance(number := getattr(record, key, getattr(device, key, None)), (int, float)):
            assert entry["value"] == number
        else:
            assert entry["value"] is None
        assert entry["source"] == device.sources[key]


def test_numbers_of_an_array_and_of_a_board(several: Evaluation) -> None:
    (batch,) = several.points.batches
    told = {entry["key"]: entry for entry in provenance.hardware_sources(several.points, several.hardware_space, "mine")}
    assert told["hardware.mine.mac_pj"]["value"] == batch.mac_pj[0] and "first design" in told["hardware.mine.mac_pj"]["note"]
    assert told["hardware.mine.area_mm2"]["value"] == batch.area_mm2[0] and told["hardware.mine.leakage_w"]["value"] == batch.leakage_w[0]
    for i, level in enumerate(batch.level_names):
        assert told[f"hardware.mine.{level}.read_pj_per_word"]["value"] == batch.level_read_pj_per_word[0, i]
    h100 = library.load("h100").accelerator.batch()
    board = {entry["key"]: entry["value"] for entry in provenance._board(h100)}
    assert board["power.active_share"] == board_power.ACTIVE_SHARE and board["power.way_pj_per_byte"] == board_power.WAY_PJ_PER_BYTE
    kernels = [entry["key"] for entry in provenance._kernels(h100)]
    assert len(kernels) == 7 and kernels[0] == "kernels.product.asynchronous"
    assert "note" in told["hardware.mine.mac_pj"] and all(one["unit"] for one in told.values())
    alone = {entry["key"]: entry for entry in provenance._tables(batch.take(np.array([0])), "")}
    assert all("first design" not in entry["note"] for entry in alone.values())


# ---- draws ----


def test_errors_are_drawn_as_their_quantiles() -> None:
    share = np.array([0.0, 1e-12, 0.013, 0.5, 0.77, 1.0])
    normal = NormalDist(0.0, 0.25 * math.sqrt(math.pi / 2))
    wanted = [math.exp(normal.inv_cdf(min(max(s, 1e-9), 1 - 1e-9))) for s in share.tolist()]
    assert device_order._lognormal(share, 0.25) == pytest.approx(wanted)
    assert device_order._lognormal(share, 0.0).tolist() == [1.0] * 6


def test_the_order_of_devices_from_its_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without errors of their own devices differ by the common draws alone; the answer's shares are those of the drawn totals."""
    problem = api.make_problem("bert-tiny", "hardware", hw="h100,l40s,l4", allow_unsupported=True, rate_per_s=77.0)
    totals: list[Any] = []
    drawn = device_order._drawn_total
    monkeypatch.setattr(device_order, "_drawn_total", lambda *given: totals.append(drawn(*given)) or totals[-1])
    found = device_order.device_order(problem, count=101, seed=3)
    (total,) = totals
    assert found is not None and total.shape == (101, 3) and (found.draws, found.seed) == (101, 3)
    for i, name in enumerate(("p5", "p95")):
        assert getattr(found, name) == pytest.approx([sorted(total[:, d])[(5, 95)[i]] for d in range(3)])
    least = [sum(int(row.argmin()) == d for row in total) / 101 for d in range(3)]
    assert found.least == pytest.approx(least)
    assert [pair.share for pair in found.pairs] == pytest.approx([(total[:, d] < total[:, d + 1]).mean() for d in range(2)])
    assert found.whole == pytest.approx(np.mean([row[0] < row[1] < row[2] for row in total.tolist()]))
    assert found.devices[0] == min(zip(found.total_kgco2e, found.devices, strict=True))[1] and found.chips == (1, 1, 1)
    monkeypatch.setattr(device_order, "mean_error", lambda name: 0.0)
    for name in ("POWER_ERROR", "ENERGY_ERROR"):
        monkeypatch.setattr(device_order, name, 0.0)
    monkeypatch.setattr(device_order, "IDLE", Range(1.0, 1.0, 1.0))
    one = replace(problem, fixed_model=True, allow_unsupported=True, space="default")
    designs, cannot = device_order._best_of_each(Evaluation(one, threads=1))
    assert cannot == {} and [d["knobs"]["device"] for d in designs] == list(found.devices)
    common, _ = robustness.drawn(one, designs, robustness.points_of(one, designs), draws=7, seed=3)
    assert drawn(one, designs, 7, 3) == pytest.approx(common["total_kgco2e"], rel=1e-9)
    monkeypatch.setattr(device_order, "IDLE", Range(2.0, 2.0, 2.0))
    points = robustness.points_of(one, designs)
    hours = 8766.0 * points.lifetime_years
    busy = np.array([d["metrics"]["service_utilisation"] for d in designs])
    more = points.leakage_w * (1 - busy) * hours / 1000.0 * points.pue * points.gco2e_per_kwh / 1000.0
    share = common["operational_kgco2e"] / np.array([d["metrics"]["operational_kgco2e"] for d in designs])
    assert drawn(one, designs, 7, 3) - common["total_kgco2e"] == pytest.approx(more * share, rel=1e-6)


def test_words_of_an_order() -> None:
    pairs = (device_order.Pair("a", "b", 0.97, True),)
    found = device_order.DeviceOrder(
        ("a", "b"), (1, 2), (3.0, 4.0), (2.0, 3.0), (4.0, 5.0), (0.9, 0.1), pairs, 0.9, {"c": "no rate"}, 1000, 0
    )
    first, second, third = found.sentences()
    assert "1 x a (3 kg), 2 x b (4 kg)" in first and "97% of 1,000 draws: settled" in second and "c is not in the order" in third
    assert found.in_short() == found.sentences()


def test_many_devices_are_told_in_short_by_the_least_of_them() -> None:
    names = tuple("abcdef")
    pairs = tuple(
        device_order.Pair(a, b, share, share >= 0.95) for a, b, share in zip(names[:5], names[1:], (1.0, 0.9, 0.97, 0.5, 0.99), strict=True)
    )
    numbers = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)
    found = device_order.DeviceOrder(names, (1,) * 6, numbers, numbers, numbers, numbers, pairs, 0.4, {"g": "no rate"}, 1000, 0)
    assert found.in_short() == [
        "Least total carbon at equal service: 1 x a (1 kg), 1 x b (2 kg), 1 x c (3 kg), 1 x d (4 kg); 2 more, up to 1 x f (6 kg).",
        "Settled, by 1,000 draws: a before b (100%), c before d (97%).",
        "Not settled, by 1,000 draws: b before c (90%).",
        "Not in the order: g.",
    ]
    assert len(found.sentences()) == 1 + 5 + 1  # all of them stand elsewhere


def test_a_front_of_few_designs_has_an_order_where_carbon_is_asked_for(several: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that reach further up are counted; the order is told from two designs on."""
    monkeypatch.setattr(robustness, "DRAWS", 20)
    block = several.block(0, 1)
    columns = {name: np.broadcast_to(block.metric(name), block.shape)[0] for name in several.metric_names}
    designs = [{"knobs": several.space.design(0, at), "metrics": {name: float(c[at]) for name, c in columns.items()}} for at in (0, 5, 7)]
    problem = several.problem
    told = robustness.report_context(problem, designs, seed=3)
    # To nine digits, as the factors are given: 0.25, 0.5, 0.75 reach as far up as down.
    exact = [[Fraction(f"{end:.9g}") for end in ends] for ends in told["ranges"].values()]
    upward = sum(high - mode > mode - low for low, mode, high in exact)
    assert f"and {upward} of {len(told['ranges'])} reach further up" in told["notes"][1]
    assert (told["draws"], told["seed"]) == (20, 3)
    answer = robustness.analyse(problem, designs, draws=20, seed=3)
    assert f"{answer.stability.pairs:.1%}" in told["notes"][-1] and "its 3 designs" in told["notes"][-1]
    assert told["metrics"]["total_kgco2e"]["p50"] == pytest.approx(answer.total.p50)
    same = [designs[0], {**designs[1], "equal_to": 0}]
    for few in (designs[:1], same):
        assert "keep their order" not in " ".join(robustness.report_context(problem, few)["notes"])
    with pytest.raises(ValueError, match="without designs"):
        robustness.analyse(problem, [])
    one = robustness.ranges(problem, robustness.points_of(problem, designs[:1]), designs[0]["metrics"], draws=20, seed=3)
    assert one["metrics"]["total_kgco2e"]["p5"] == pytest.approx(told["metrics"]["total_kgco2e"]["p5"][0])
    moved, factors = robustness.drawn(problem, designs, robustness.points_of(problem, designs), draws=20, seed=3)
    assert factors == len(told["ranges"]) and moved["total_kgco2e"].shape == (20, 3)


# ---- large spaces ----


def test_designs_one_by_one_are_those_of_the_whole(several: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = replace(several.problem, fixed={k: v for k, v in SMALL.items() if k != "layers"}, vary={"grid": ("france", "world")})
    whole = Evaluation(problem, threads=1)
    for dense in (10**6, 0):
        monkeypatch.setattr(design_costs, "_DENSE", dense)
        costs = design_costs.DesignCosts(problem, threads=1)
        sizes = [len(p.values) for p in costs.space.parameters]
        rows = np.array([[at % n for n in sizes] for at in (0, 1, 5, 1, 3)])
        found = costs.cost(rows)
        assert costs.evaluations == len({tuple(row) for row in rows.tolist()})
        columns = costs.space.columns(rows)
        known = costs.known(columns)
        for row in range(len(rows)):
            model = int(costs.order[rows[row, 0]])
            knobs = {name: column[row] for name, column in columns.items() if name != "model"}
            at = next(i for i in range(whole.space.hardware_count) if all(whole.space.hardware[n][i] == v for n, v in knobs.items()))
            block = whole.block(model, model + 1)
            for j, name in enumerate(costs.metrics):
                assert found[row, j] == pytest.approx(np.broadcast_to(block.metric(name), block.shape)[0, at], rel=1e-12)
            assert known["area_mm2"][row] == pytest.approx(whole.points.area_mm2[at]) and known["makeable"][row] == 1.0
        assert (np.diff(whole.macs[costs.order]) >= 0).all()


def test_the_lines_through_a_design_of_a_large_space(several: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = several.problem
    monkeypatch.setattr(design_costs, "_LISTED", 18)
    values = design_costs.hardware_values(problem)
    count = math.prod(len(v) for v in values.values())
    monkeypatch.setattr(design_costs, "_LISTED", count)
    assert design_costs.around(problem, {}).hardware_count == count
    monkeypatch.setattr(design_costs, "_LISTED", count - 1)
    own = {name: v[0] for name, v in values.items()}
    lines = design_costs.around(problem, own)
    assert lines.hardware_count == 1 + sum(len(v) - 1 for v in values.values())
    points = [{name: column[i] for name, column in lines.hardware.items()} for i in range(lines.hardware_count)]
    assert all(points[0][name] == value for name, value in own.items())
    assert all(sum(point[name] != own[name] for name in own) == 1 for point in points[1:])
    space, _ = design_costs.one_point(problem)
    assert space.hardware_count == 1 and space.hardware["cores"][0] == max(values["cores"])
    told = design_costs.sizes(problem)
    assert (told.models, told.hardware, told.distinct, told.shapes) == (1, count, count // 3, len(several.shapes))


# ---- words ----


@pytest.mark.parametrize(
    ("chosen", "fine"), [([1.0, 2.0], True), ([0.5], True), ([0.0], False), ([-1.0], False), (["a"], False), ([1.0, 1.0], False)]
)
def test_values_of_a_deployment_are_positive_and_distinct(chosen: list[Any], fine: bool) -> None:
    if fine:
        words._check_varied({"rate_per_s": chosen})
    else:
        with pytest.raises(UsageError, match="vary rate_per_s"):
            words._check_varied({"rate_per_s": chosen})


def test_a_deployment_from_its_fields() -> None:
    found = words._deployment(None, {"grid": 411.3, "rate_per_s": 7.7})
    assert (found.grid, found.rate_per_s, found.carbon_profile) == ("411.3", 7.7, "")
    assert words._deployment(None, {"carbon_profile": "default"}).carbon_profile == "default"
    given = Deployment(rate_per_s=3.0)
    assert words._deployment(given, {}) is given
    with pytest.raises(UsageError, match="both given"):
        words._deployment(given, {"rate_per_s": 1.0})
    assert [words._is_number(value) for value in (1, 1.5, True, "1")] == [True, True, False, False]
    assert (
        words._hardware_word({"name": "a", "template": "edge22"})[0] == "a" and words._hardware_word({"template": "edge22"})[0] == "edge22"
    )
    assert words._hardware_word({"cores": 2})[0] == "hw" and words._hardware_word("h100") == ("h100", None)


@pytest.mark.parametrize(("workload", "space", "kept"), [("bert", "default", True), ("bert-tiny", "default", False)])
def test_quality_is_an_objective_where_models_differ_in_it(workload: str, space: str, kept: bool) -> None:
    problem = api.make_problem(workload, "carbon", space=space)
    assert ("quality" in [o.metric for o in problem.objectives]) is kept


# ---- what stays on chip, several models, several groups of chips ----


@pytest.fixture(scope="module")
def resident() -> Evaluation:
    """Two models on six designs whose shared buffer keeps tensors, in two grids."""
    problem = api.make_problem(
        "bert", ["min:total_kgco2e"], fixed={**{k: v for k, v in SMALL.items() if k != "layers"}, "cores": 2}, allow_unsupported=True,
        residency="weights", vary={"grid": ["france", "world"]},
    )  # fmt: skip
    return Evaluation(replace(problem, models={"layers": (2, 3), "hidden": (128, 128), "ffn": (512, 512), "heads": (2, 2)}), threads=1)


def test_metrics_of_designs_that_keep_tensors(resident: Evaluation) -> None:
    """Latency, energy and peak power are the sums of what stays on chip; steps of a design add up to them, model by model."""
    kept, points = resident.on_chip, resident.points
    assert kept is not None and kept.able.all() and resident.space.model_count == 2
    for first in (0, 1):
        block = resident.block(first, first + 1)
        assert block.shape == (1, len(points)) and block.mappable().all()
        latency = np.broadcast_to(block.metric("latency_s"), block.shape)[0]
        assert latency.tolist() == kept.latency_s[first][points.design].tolist()
        assert block.piece("dynamic_j")[0].tolist() == kept.energy_j[first][points.design].tolist()
        assert block.piece("peak_dynamic_w")[0].tolist() == kept.peak_w[first][points.design].tolist()
        for at in (0, len(points) - 1):
            told, short = resident.residency(first, at), resident.kept_on_chip(first, at)
            assert sum(step["latency_s"] for step in told["steps"]) == pytest.approx(latency[at])
            assert resident.busy_s(first, at) == {
                **{unit: pytest.approx(sum(s[f"{unit}_s"] for s in told["steps"])) for unit in ("array", "vector", "dram")}, "link": 0.0,
            }  # fmt: skip
            entries = resident.breakdown(first, at)
            assert sum(e["latency_s"] for e in entries) == pytest.approx(latency[at])
            assert sum(e["macs"] for e in entries) == pytest.approx(resident.macs[first])
            alone = resident.alone(first, int(points.design[at]))
            assert short is not None and short["saved"]["energy_j"] == pytest.approx(
                alone["energy_j"] - kept.energy_j[first, points.design[at]]
            )
            assert short["alone"]["latency_s"] == pytest.approx(alone["latency_s"]) and short["level"] == "weights"
            unit = resident.points.unit_costs_of(int(points.design[at]), resident.shapes, "edp")
            by_row = resident.weight[first] @ unit.latency_s[resident.index[first], 0]
            assert alone["latency_s"] == pytest.approx(by_row)
    assert resident.block(0, 2).metric("latency_s").shape == (2, len(points))
    whole = resident.workload_of(1)
    assert float(whole.macs()) == resident.macs[1] > resident.macs[0]
    nothing = on_chip.nothing_told(replace(resident.problem, residency="none"), whole, points.batches, 0)
    assert nothing == {"level": "none", "reason": "it is not asked for"}


def test_some_designs_keep_tensors_and_others_do_not(resident: Evaluation) -> None:
    """Where a design keeps nothing its sums are those of operations alone."""
    view = resident.block(0, 2)
    kept = resident.on_chip
    assert kept is not None
    able = kept.able.copy()
    able[0] = False
    resident.__dict__["unit"] = resident.points.unit_costs(resident.shapes, criterion="edp", threads=1, progress=None)
    resident.on_chip = replace(kept, able=able)
    try:
        mixed = resident.block(0, 2)
        alone = [resident.alone(model, 0) for model in (0, 1)]
        at = np.flatnonzero(resident.points.design == 0)
        others = np.flatnonzero(resident.points.design != 0)
        for model in (0, 1):
            assert mixed.metric("latency_s")[model, at].tolist() == pytest.approx([alone[model]["latency_s"]] * len(at))
            assert mixed.piece("dynamic_j")[model, at].tolist() == pytest.approx([alone[model]["energy_j"]] * len(at))
            assert mixed.metric("latency_s")[model, others].tolist() == view.metric("latency_s")[model, others].tolist()
            assert mixed.piece("peak_dynamic_w")[model, others].tolist() == view.piece("peak_dynamic_w")[model, others].tolist()
        assert resident.kept_on_chip(0, int(at[0])) is None and resident.busy_s(0, int(at[0]))["array"] == alone[0]["array_s"]
    finally:
        resident.on_chip = kept
        del resident.__dict__["unit"]


def test_stages_and_replicas_of_boards() -> None:
    """Memory, idle power and time of a design of several groups are those of the cost model of whole workloads."""
    fixed = {"weight_bits": 16, "activation_bits": 16, "kv_bits": 16, "new_tokens": 8, "sequence": 64}
    problem = api.make_problem("llama3.2-1b", "hardware", hw="h100", allow_unsupported=True, rate_per_s=0.5, fixed=fixed)
    base = library.load("h100").accelerator
    for change in ({"chips": 2}, {"chips": 2, "pipeline_stages": 2, "data_parallel": 3}):
        own = replace(base, **change)
        evaluation = Evaluation(replace(problem, hardware_toml=own.to_toml(), hardware="own"), threads=1)
        block, whole = evaluation.block(0, 1), evaluate(own, evaluation.workload)

        def found(name: str, block: Any = block) -> float:
            return float(np.ravel(block.metric(name))[0])

        def wanted(name: str, whole: Any = whole) -> float:
            return float(np.ravel(getattr(whole, name))[0])

        for name in ("latency_s", "energy_j", "peak_power_w", "area_mm2"):
            assert found(name) == pytest.approx(wanted(name)), (change, name)
        assert found("dram_fill") == pytest.approx(wanted("required_bytes") / wanted("dram_capacity_bytes"))
        flight = float(own.batch().in_flight[0])
        assert float(np.ravel(block.piece("slot_s"))[0]) == pytest.approx(wanted("latency_s") / flight)
        assert found("service_utilisation") == pytest.approx(0.5 * wanted("latency_s") / flight)


# ---- models of a space, designs of a list ----


def test_knobs_that_leave_a_model_itself(several: Evaluation) -> None:
    """The fewest options, in the order of the knobs; nothing where the model itself is not there."""
    family = several.family
    own = family.values()
    a, b = [name for name in family.model_grid() if isinstance(own[name], int)][:2]
    models = {a: np.array([own[a], own[a], 1]), b: np.array([own[b], 1, own[b]])}
    assert careful._own_model(family, models) == f"--set {a}={own[a]} --set {b}={own[b]}"
    assert careful._own_model(family, {a: np.array([own[a], own[a]]), b: np.array([own[b], 1])}) == f"--set {b}={own[b]}"
    assert careful._own_model(family, {a: np.array([own[a]]), b: np.array([own[b]])}) == ""
    assert careful._own_model(family, {a: np.array([1, 2]), b: np.array([own[b], own[b]])}) == ""


def test_distinct_rows_of_a_list() -> None:
    table = Table("t.csv", ("x", "y"), [["1", "2"], ["3", "2"], ["1", "2"], ["1", "4"]])
    columns, of_row = design_list._distinct(table, ["x", "z", "y"], {"z": 7})
    got = [tuple(int(columns[name][i]) for name in ("x", "z", "y")) for i in of_row.tolist()]
    assert got == [(1, 7, 2), (3, 7, 2), (1, 7, 2), (1, 7, 4)] and len(columns["x"]) == 3
    assert design_list._distinct(table, [], {})[1].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("fixed", "count"), [({}, 6), ({"layers": 2}, 3), ({"heads": 2}, 2)])
def test_models_of_a_space_file_and_those_left_out(several: Evaluation, fixed: dict[str, int], count: int) -> None:
    """Two depths of three widths for heads of 2, 3 and 4 that must divide: what is left out is counted among what is asked for."""
    text = 'name = "m"\n[parameters.layers]\nrole = "model"\nvalues = [2, 4]\n[parameters.hidden]\nrole = "model"\nvalues = [128]\n'
    text += '[parameters.heads]\nrole = "model"\nvalues = [2, 3, 4]\n'
    grid, told = space_file.model_grid(text, "m", several.family, fixed)
    rows = list(zip(grid["layers"].tolist(), grid["heads"].tolist(), strict=True))
    assert rows == [(layers, heads) for layers in (2, 4) for heads in (2, 4)]  # three heads do not divide 128
    gone = sum(1 for layers in (2, 4) if fixed.get("layers", layers) == layers and fixed.get("heads", 3) == 3)
    assert told.startswith(f"{gone} of {count} model") if gone else told == ""
    assert set(grid["hidden"].tolist()) == {128} and set(grid) >= {"layers", "hidden", "heads", "ffn"}
    knobs = space_file.model_knobs(text, "m")
    assert knobs == ["layers", "hidden", "heads"] and space_file.model_knobs(None, "m") == []


def test_no_more_models_than_are_taken(several: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'name = "m"\n[parameters.layers]\nrole = "model"\nvalues = [2, 4]\n[parameters.heads]\nrole = "model"\nvalues = [2, 3, 4]\n'
    monkeypatch.setattr(space_file, "MODEL_LIMIT", 6)
    assert len(space_file.model_grid(text, "m", several.family)[0]["layers"]) == 6
    monkeypatch.setattr(space_file, "MODEL_LIMIT", 5)
    with pytest.raises(UsageError, match="6 combinations"):
        space_file.model_grid(text, "m", several.family)


def test_points_that_meet_the_constraints_of_a_file() -> None:
    text = 'name = "m"\nconstraints = ["a + b <= 5"]\n[parameters.a]\nvalues = [1, 2, 3]\n[parameters.b]\nvalues = [2, 3]\n'
    points = {"a": np.array([1, 2, 3, 3]), "b": np.array([3, 3, 3, 2]), "c": np.array([5, 6, 7, 8])}
    assert {name: column.tolist() for name, column in space_file.allowed_points(text, "m", points).items()} == {
        "a": [1, 2, 3], "b": [3, 3, 2], "c": [5, 6, 8],
    }  # fmt: skip
    one = {"a": np.array([3]), "b": np.array([3])}
    assert space_file.allowed_points(text, "m", one)["a"].tolist() == [3]  # asked for by name
    two = {"a": np.array([3, 3]), "b": np.array([3, 3])}
    with pytest.raises(UsageError, match="no hardware point"):
        space_file.allowed_points(text, "m", two)
    assert space_file.allowed_points(None, "m", two) == two and space_file.point_constraints(text, "m") == ["a + b <= 5"]
    assert space_file.point_constraints(None, "m") == []


@pytest.mark.parametrize(("chips", "fill", "words"), [(1, 1.5, "chips or"), (1, 200.0, "chips or fewer weight_bits"), (2, 1.5, "2 x h100")])
def test_what_would_hold_a_model_that_does_not_fit(chips: int, fill: float, words: str) -> None:
    problem = api.make_problem("bert-tiny", "hardware", hw="h100", fixed={"chips": chips}, allow_unsupported=True)
    evaluation = Evaluation(problem, threads=1, mapped=False)
    said = one_design._too_large(fill, evaluation)
    held, own = float(evaluation.points.dram_bytes[0]), float(evaluation.activation_bytes[0])
    needed = fill * held
    assert words in said and f"{needed / 2**30:.3g} GiB" in said and f"{fill:.3g} times" in said
    assert f"{math.ceil((needed - own * chips) / (held / chips - own))} chips" in said
    larger = sorted(
        (library.load(n).accelerator.levels[-1].bytes, n) for n in library.names() if library.load(n).accelerator.levels[-1].bytes >= needed
    )
    named = f"{larger[0][1]} ({larger[0][0] / 2**30:.0f} GiB)" if larger and chips == 1 else ""
    assert (named in said) and (bool(named) or "GiB)" not in said)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"layers": 2}, {"heads": 2, "ffn": 9}),
        ({"layers": 3}, {"ffn": 9}),
        ({}, {"ffn": 9}),
        ({"heads": 4}, {"layers": 3, "ffn": 9}),
        ({"layers": 5}, {}),
    ],
)
def test_knobs_that_all_models_with_the_given_ones_have(several: Evaluation, given: dict[str, int], found: dict[str, int]) -> None:
    models = {"layers": (2, 2, 3, 3), "heads": (2, 2, 2, 4), "ffn": (9, 9, 9, 9)}
    assert one_design._alike(replace(several.problem, models=models), given) == found
    for value, fine in ((3.0, True), (3.5, False), ("x", False)):
        problem = replace(
            several.problem, models={**models, "hidden": (128,) * 4}, fixed_model=True, fixed={**several.problem.fixed, "layers": value}
        )
        if fine:
            assert Evaluation(problem, threads=1, mapped=False).space.models["layers"].tolist() == [3]
        else:
            with pytest.raises(ValueError, match="layers"):
                Evaluation(problem, threads=1, mapped=False)


def test_quality_without_support_is_told_of_a_design_that_is_asked_for(several: Evaluation) -> None:
    """One design of a search has the surrogate's figure whatever supports it; an evaluation has none, unless it is allowed."""
    knobs = {"layers": 10, "hidden": 480, "ffn": 1920, "heads": 6}
    told = one_design.evaluate_in(replace(several.problem, fixed={}, vary={}), {**knobs, "cores": 2, "rate_per_s": 3.0})
    assert told["quality_support"] == "extrapolated" and told["quality"] > 0 and told["quality_reason"]
    assert told["deployment"]["rate_per_s"] == 3.0 and told["design"]["cores"] == 2 and told["design"]["layers"] == 10
    assert one_design.evaluate("bert", fixed=knobs)["quality"] is None
    allowed = one_design.evaluate("bert", fixed=knobs, allow_unsupported=True)
    assert allowed["quality"] == told["quality"] and allowed["quality_se"] == told["quality_se"]
    assert list(allowed["latency_by_bound_s"].values()) == sorted(allowed["latency_by_bound_s"].values(), reverse=True)


def test_plain_numbers_of_a_column() -> None:
    assert [type(design_list._plain(value)) for value in (np.int64(3), np.float64(3.5), 2**80)] == [int, float, int]


@pytest.mark.parametrize(("bits", "told"), [({}, True), ({"weight_bits": 5}, True), ({"weight_bits": 4}, False)])
def test_narrower_weights_are_proposed_down_to_four_bits(bits: dict[str, int], told: bool) -> None:
    problem = api.make_problem("bert-tiny", "hardware", hw="h100", fixed={"weight_bits": 16}, allow_unsupported=True)
    evaluation = Evaluation(problem, threads=1, mapped=False)
    evaluation.problem = replace(problem, fixed=bits)
    assert ("fewer weight_bits" in one_design._too_large(1.5, evaluation)) is told


@pytest.mark.parametrize("profile", ["act2", "default"])
def test_a_fabs_grid_counts_where_a_profile_lets_it(profile: str) -> None:
    space = load_hardware(api.make_problem("bert-tiny", "hardware", hw="edge22"))
    knobs = {name: np.array(values[:1]) for name, values in space.knobs.items()}
    for place in ("taiwan", "act2022:iceland"):
        found = hardware_points.make_points(space, knobs, Deployment(carbon_profile=profile, fab_grid=place))
        (batch,) = found.batches
        one = carbon.device.device_embodied(
            profile, area_mm2=float(batch.die_mm2[0]), node_nm=float(batch.node_nm[0]), memory_type=batch.level_kinds[-1],
            memory_gb=float(batch.dram_bytes[0]) / 2**30, fab_grid=place,
        )  # fmt: skip
        assert found.embodied_kgco2e[0] == pytest.approx(one.embodied_kgco2e)
