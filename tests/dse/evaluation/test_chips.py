"""Designs of several chips on the way through a problem: carbon, memory, metrics, robustness, exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import carbon.analysis.robustness
import workloads
from dse import api
from dse.evaluation.evaluation import Evaluation, Space
from dse.exporters.design import describe
from dse.problem.deployment import Deployment
from dse.spaces.hardware import load_path_or_name
from hw_models import spaces as templates
from hw_models.costs import chips as parallel
from hw_models.costs import evaluate as cost

CHIPS = np.array([1, 2, 4, 8])
KNOBS = {
    **{"cores": 32, "array_rows": 32, "array_columns": 32, "register_bytes": 64, "core_sram_kib": 256, "shared_sram_mib": 16},
    **{"hbm_stacks": 2, "links": 12, "node_nm": 7, "nominal_frequency_hz": 1_050_000_000, "voltage_v": 0.75},
}


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    """One model of BERT on designs of 1, 2, 4 and 8 equal chips, every operation by itself (as it is on several)."""
    problem = api.make_problem("bert", "carbon", hw="datacenter", deployment=Deployment(carbon_profile="default"), residency="none")
    hardware = {"chips": CHIPS, **{name: np.full(len(CHIPS), value) for name, value in KNOBS.items()}}
    model = {"layers": 12, "hidden": 768, "heads": 12, "ffn": 3072}
    return Evaluation(problem, space=Space({name: np.array([value]) for name, value in model.items()}, hardware, 0, {}))


def test_every_chip_is_made(evaluation: Evaluation) -> None:
    """Eight separate dies with their memories, not one die of eight times the area (whose yield would be far lower)."""
    points = evaluation.points
    np.testing.assert_allclose(points.embodied_kgco2e, CHIPS * points.embodied_kgco2e[0], rtol=1e-12)
    for part in points.parts.values():
        np.testing.assert_allclose(part, CHIPS * part[0], rtol=1e-12)
    assert points.makeable.all()  # 8 x 300 mm2 would not fit a reticle
    np.testing.assert_array_equal(points.area_mm2, CHIPS * points.area_mm2[0])


def test_metrics_are_those_of_the_cost_model(evaluation: Evaluation) -> None:
    block = evaluation.block(0, 1)
    found = cost.evaluate(evaluation.points.batches[0], evaluation.workload)
    for name in ("latency_s", "energy_j", "peak_power_w"):
        np.testing.assert_allclose(block.metric(name).ravel(), getattr(found, name).ravel(), rtol=1e-12, err_msg=name)
    filled = found.required_bytes / found.dram_capacity_bytes
    np.testing.assert_allclose(block.metric("dram_fill").ravel(), filled.ravel(), rtol=1e-12)


def test_the_draws_of_robustness_know_the_chips(evaluation: Evaluation) -> None:
    """`front_of_groups` compares its own embodied carbon with the study's and would refuse any other number of devices."""
    points = evaluation.points
    metrics = {
        "embodied_kgco2e": points.embodied_kgco2e,
        "operational_kgco2e": np.full(4, 1.0),
        "total_kgco2e": points.embodied_kgco2e + 1.0,
    }
    found = carbon.analysis.robustness.front_of_groups("default", points.groups, metrics, [("total_kgco2e", 1.0)], draws=50)
    p50 = np.asarray(found.total.p50) - 1.0
    # Operation (1 kg) is drawn too, but it is small beside the dies.
    assert p50[3] / p50[0] == pytest.approx(8.0, rel=0.05)


def test_an_export_is_one_chip_with_its_share() -> None:
    design = templates.load("datacenter").accelerator(chips=4, **KNOBS)
    workload = workloads.load("bert").build()
    found = describe(design, workload)
    assert found.accelerator.chips == 1
    assert "one of 4 chips" in found.notes[0]
    shares = parallel.shares(workload.phases[0].table, 4).table
    macs = sum(p.runs * p.batch * p.m * p.n * p.k for p in found.products)
    assert macs == int(shares.macs())


def test_a_file_that_narrows_the_template_has_its_carbon_profile(tmp_path: Path) -> None:
    """ACT does not know HBM, so that its profile would be an error where nobody named one."""
    file = tmp_path / "mine.toml"
    knobs = "\n".join(f"{name} = [{value}]" for name, value in {**KNOBS, "chips": 2}.items())
    file.write_text(f'template = "datacenter"\n[knobs]\n{knobs}\n', encoding="utf-8")
    copy = tmp_path / "mine.hw"  # the same text under a name that says nothing
    copy.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    found = {hw: load_path_or_name(str(hw), profile=None).default_carbon_profile for hw in (file, copy, "datacenter", "edge22")}
    assert found == {file: "default", copy: "default", "datacenter": "default", "edge22": "act2"}
    assert api.make_problem("bert", hw=str(file)).deployment == api.make_problem("bert", hw=str(copy)).deployment
    assert api.evaluate("bert", str(file))["embodied_kgco2e"] > 0
