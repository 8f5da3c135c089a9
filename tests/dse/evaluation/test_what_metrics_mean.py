"""Metrics, feasibility and the order of a front from first principles: arithmetic on unit costs, not the code that is tested."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dse.api import evaluate, make_problem
from dse.errors import UsageError
from dse.evaluation.evaluation import Block, Evaluation, Space, load_family
from dse.evaluation.feasibility import UNMAKEABLE, UNMAPPABLE, feasible
from dse.fronts.pareto import Front
from dse.problem import metrics
from dse.problem.objectives import Constraint, Objective, parse_constraint
from dse.searches.sweep import sweep_block
from dse.storage.study import Study
from hw_models.costs import evaluate as cost
from hw_models.costs.unit_costs import peak_dynamic_w
from hw_models.devices import library as devices
from hw_models.devices.gpus import gpu_sheet
from hw_models.spaces import load as load_template
from workloads import library
from workloads.ops import Kind, Operation, OperationTable

DESIGN = {"cores": 4, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    return Evaluation(make_problem("bert", "hardware", fixed=DESIGN, residency="none"), threads=1)


def _one(evaluation: Evaluation, name: str) -> float:
    return float(np.broadcast_to(evaluation.block(0, 1).metric(name), (1, 1))[0, 0])


def test_average_power_is_work_and_idle_power(evaluation: Evaluation) -> None:
    """At r requests a second each takes E joules, and in the time left over the device leaks: P = r E + (1 - r t) P_leak."""
    rate, latency = evaluation.deployment.rate_per_s, _one(evaluation, "latency_s")
    leakage = float(evaluation.points.leakage_w[0])
    assert leakage * (1 - rate * latency) > 0.001 * _one(evaluation, "power_w"), "the idle part must be large enough to be missed"
    expected = rate * _one(evaluation, "energy_j") + (1 - rate * latency) * leakage
    assert _one(evaluation, "power_w") == pytest.approx(expected, rel=1e-12)
    # A second of average power is the energy that operational carbon is charged for (PUE 1).
    joules = _one(evaluation, "power_w") * evaluation.deployment.lifetime_years * 365.25 * 86400
    kilograms = joules / 3.6e6 * float(np.ravel(evaluation.points.gco2e_per_kwh)[0]) / 1000
    assert _one(evaluation, "operational_kgco2e") == pytest.approx(kilograms, rel=2e-3)  # years of 365 or 365.25 days


def test_the_two_utilisations_of_one_design(evaluation: Evaluation) -> None:
    """0.72 of the arrays while a request runs, 0.026 of the time at a request a second: two quantities, two names."""
    design = load_template("edge22").accelerator(**DESIGN)
    found = cost.evaluate(design, library.load("bert").build())
    assert _one(evaluation, "array_utilisation") == pytest.approx(float(found.array_utilisation), rel=1e-9)
    assert _one(evaluation, "service_utilisation") == pytest.approx(float(found.latency_s) * evaluation.deployment.rate_per_s, rel=1e-12)
    assert _one(evaluation, "array_utilisation") > 10 * _one(evaluation, "service_utilisation")


def test_the_earlier_name_of_service_utilisation_is_understood() -> None:
    assert parse_constraint("utilisation<=0.5") == Constraint("service_utilisation", "<=", 0.5)
    assert Objective("min", "utilisation").metric == "service_utilisation"
    assert metrics.metric("objective", "utilisation").name == "service_utilisation"


def test_what_is_known_before_a_mapping() -> None:
    assert set(metrics.of_hardware()) == {"area_mm2", "tops", "embodied_kgco2e", "capital_usd"}
    assert set(metrics.known_before_mapping()) == {
        *("area_mm2", "tops", "embodied_kgco2e", "capital_usd", "dram_fill", "quality", "quality_se", "parameters", "macs"),
    }


def test_a_row_that_never_runs_has_no_peak_power() -> None:
    """Two shapes of 2 W and 5 W; the second is in the table and runs no time."""
    unit: Any = SimpleNamespace(latency_s=np.array([[1.0], [2.0]]), energy_j=np.array([[2.0], [10.0]]))
    index = np.array([[0, 1], [0, 1]])
    runs = np.array([[True, False], [True, True]])
    assert peak_dynamic_w(index, runs, unit).tolist() == [[2.0], [5.0]]
    table = OperationTable.from_rows(
        [
            Operation("small", Kind.GEMM, m=8, n=8, k=8, second_is_weight=True),
            Operation("large", Kind.GEMM, m=512, n=512, k=512, second_is_weight=True, repeat=0),
        ]
    )
    design = load_template("edge22").accelerator(**DESIGN)
    both, alone = cost.evaluate(design, table), cost.evaluate(design, table.take(np.array([0])))
    assert float(both.peak_power_w) == pytest.approx(float(alone.peak_power_w), rel=1e-12)


class _Points:
    """A block of 1 model on 4 points: fine, unmappable, unmakeable, too slow."""

    shape = (1, 4)

    def mappable(self) -> Any:
        return np.array([[True, False, True, True]])

    def makeable(self) -> Any:
        return np.array([[True, True, False, True]])

    def metric(self, name: str) -> Any:
        assert name == "latency_s"
        return np.array([[1.0, np.inf, 0.5, 3.0]])


def test_feasible_is_mappable_and_makeable_and_within_bounds() -> None:
    bound = Constraint("latency_s", "<=", 2.0)
    found, reasons = feasible(_Points(), [bound])
    assert found.tolist() == [[True, False, False, False]]
    assert reasons == {UNMAPPABLE: 1, UNMAKEABLE: 1, str(bound): 1}


def test_a_sweep_ranks_no_device_that_cannot_be_made(evaluation: Evaluation) -> None:
    """The best design of all, but of a die that no wafer holds, is not on the front."""
    unmade = Evaluation.__new__(Evaluation)
    unmade.__dict__.update(evaluation.__dict__)
    unmade.points = replace(evaluation.points, makeable=np.zeros_like(evaluation.points.makeable))
    result = sweep_block(unmade, evaluation.problem.objectives, (), 0, 0, 1)
    assert result.feasible == 0
    assert len(result.front_models) == 0
    assert result.reasons[UNMAKEABLE] == 1


def test_the_order_of_a_front_is_values_then_model_then_hardware() -> None:
    """Four designs of equal value: models before hardware."""
    models, hardware = np.array([2, 1, 1, 0]), np.array([0, 7, 3, 9])
    front = Front.of(models, hardware, np.tile([1.0, 2.0], (4, 1)))
    assert list(zip(front.models.tolist(), front.hardware.tolist(), strict=True)) == [(0, 9), (1, 3), (1, 7), (2, 0)]


def test_macs_of_a_breakdown_count_the_runs_of_a_phase(tmp_path: Path) -> None:
    """Three requests of four are of 16 tokens and one of 48; the parts add up to the mean request."""
    lengths = ((0.75, 16), (0.25, 48))
    parts = "".join(f'[[part]]\nname = "of-{s}"\nworkload = "bert-base"\nweight = {w}\n[part.set]\nsequence = {s}\n' for w, s in lengths)
    (tmp_path / "mix.toml").write_text(f'name = "two-lengths"\n{parts}')
    mixed = Evaluation(make_problem(str(tmp_path / "mix.toml"), "hardware", fixed=DESIGN), threads=1)
    assert sorted({float(phase.runs) for phase in mixed.workload.phases}) == [0.25, 0.75]
    family = library.load("bert-base")
    expected = 0.75 * float(family.build(sequence=16).macs()) + 0.25 * float(family.build(sequence=48).macs())
    assert sum(entry["macs"] for entry in mixed.breakdown(0, 0)) == pytest.approx(expected, rel=1e-12)


def test_a_study_waits_until_the_disk_has_what_it_was_told(tmp_path: Path) -> None:
    """synchronous = FULL (2): a commit survives a power cut."""
    with Study.create(tmp_path / "study.db", {"problem": {}}) as study, study.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_every_metric_is_computed(evaluation: Evaluation) -> None:
    block: Block = evaluation.block(0, 1)
    for name, metric in metrics.METRICS.items():
        if not name.startswith("quality"):
            value = np.asarray(block.metric(name))
            # Nobody sells the designs of a template: prices belong to boards, and only those offer them.
            assert np.isfinite(value).all() == (name in evaluation.metric_names)
            assert np.broadcast_shapes(value.shape, block.shape) == block.shape
        assert metric.label
        assert set(metric.depends) <= {metrics.MODEL, metrics.HARDWARE, metrics.DEPLOYMENT, metrics.MAPPING}


def test_the_electricity_of_a_watt_is_its_kilowatt_hours(evaluation: Evaluation) -> None:
    """A watt for three years of 365.25 days behind a PUE of 1.5, at 0.2 USD a kilowatt hour."""
    deployment = replace(evaluation.deployment, pue=1.5, electricity_usd_per_kwh=0.2, lifetime_years=3.0)
    priced = Evaluation(make_problem("bert", "hardware", fixed=DESIGN, deployment=deployment), threads=1)
    assert float(np.ravel(priced.block(0, 1).piece("usd_per_w"))[0]) == pytest.approx(3 * 365.25 * 24 / 1000 * 1.5 * 0.2, rel=1e-12)


def test_a_design_says_why_it_has_no_quality() -> None:
    """A model inside the published hull has a quality and no reason against it; one outside has the reason, and a value where asked for."""
    inside = evaluate("bert", fixed=DESIGN)
    assert inside["quality"] is not None and inside["quality_reason"] is None
    outside = {**DESIGN, "layers": 2, "hidden": 704, "heads": 11, "ffn": 2816}
    refused, allowed = (evaluate("bert", fixed=outside, allow_unsupported=allow) for allow in (False, True))
    assert refused["quality"] is None and refused["quality_reason"]
    assert allowed["quality"] is not None and allowed["quality_reason"] == refused["quality_reason"]


@pytest.mark.parametrize(
    ("vary", "says"),
    [({"lifetime_years": (3.0, 0.0)}, "positive number"), ({"grid": ("france", "poland", "france")}, "lists a value twice")],
)
def test_values_of_a_deployment_are_looked_at_one_by_one(vary: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        make_problem("bert", "carbon", vary=vary)


def test_a_workload_file_that_changed_is_another_problem(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512, "vocab_size": 1000}
    file.write_text(json.dumps({"model_type": "bert", **sizes}), encoding="utf-8")
    problem = make_problem(str(file), "hardware", fixed=DESIGN)
    assert load_family(problem).name
    file.write_text(json.dumps({"model_type": "bert", **sizes, "num_hidden_layers": 3}), encoding="utf-8")
    with pytest.raises(UsageError, match="has changed since the study was begun"):
        load_family(problem)


def test_the_size_of_a_space_is_models_times_designs() -> None:
    models = {"layers": np.array([2, 4, 6]), "hidden": np.array([128, 256, 512])}
    space = Space(models, {"cores": np.array([1, 2, 4, 4]), "glb_mib": np.array([1, 1, 1, 2])}, 0, {})
    assert (space.model_count, space.hardware_count, space.size) == (3, 4, 12)
    assert space.design(1, 3) == {"layers": 4, "hidden": 256, "cores": 4, "glb_mib": 2}
    assert (Space({}, {}, 0, {}).model_count, Space({}, {}, 0, {}).size) == (1, 1)


def test_a_breakdown_adds_up_and_names_the_bound_that_takes_most(evaluation: Evaluation) -> None:
    """Components hold the whole latency and energy; their latency by bound is that of their operations, and the largest is named."""
    entries = evaluation.breakdown(0, 0)
    assert sum(e["latency_s"] for e in entries) == pytest.approx(_one(evaluation, "latency_s"), rel=1e-12)
    for entry in entries:
        by_bound: dict[str, float] = {}
        for operation in entry["operations"]:
            by_bound[operation["bound"]] = by_bound.get(operation["bound"], 0.0) + operation["latency_s"]
        assert entry["latency_by_bound_s"] == pytest.approx(by_bound, rel=1e-12)
        assert entry["latency_by_bound_s"][entry["bound"]] == max(by_bound.values())


@pytest.mark.parametrize(
    ("device", "bits", "rate"), [("jetson-orin", 8, "int8"), ("h100", 8, "fp8"), ("a100", 8, "int8"), ("h100", 16, "bf16")]
)
def test_utilisation_is_of_the_peak_of_the_format_that_runs(device: str, bits: int, rate: str) -> None:
    """MACs over what the data sheet gives the format in that time: below 1, and the same from the library and for a problem."""
    sheet = gpu_sheet(device)
    settings = {"batch": 64, "weight_bits": bits, "activation_bits": bits}
    workload = library.load("vgg16").build(**settings)
    found = cost.evaluate(devices.load(device).accelerator, workload)
    expected = float(workload.macs()) / (sheet.peak_macs_per_s * sheet.rates[rate] * float(np.ravel(found.latency_s)[0]))
    assert 0.4 < expected < 0.95
    assert float(np.ravel(found.array_utilisation)[0]) == pytest.approx(expected, rel=1e-6)
    answer = evaluate("vgg16", hw=device, fixed=settings)
    assert answer["array_utilisation"] == pytest.approx(expected, rel=1e-6)
