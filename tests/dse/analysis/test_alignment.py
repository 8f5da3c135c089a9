"""Alignment of a run's costs: the twin's gradients against the exact model, the command, the report."""

import json
from pathlib import Path

import numpy as np
import pytest

from dse import api, cli
from dse.analysis import alignment
from dse.errors import UsageError
from dse.storage.run_folder import load

BASE = {"layers": 12, "hidden": 768, "heads": 12, "ffn": 3072}
ONE_DESIGN = {"cores": 2, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}


@pytest.fixture(scope="module")
def task():
    """BERT-base on edge22, of two cores."""
    return alignment.edge_task(api.make_problem("bert", "carbon", fixed={"cores": 2}), BASE)


def test_exact_costs_are_the_evaluations(task) -> None:
    answer = api.evaluate("bert", fixed=ONE_DESIGN, residency="none")
    row = task.space.index({name: answer["design"][name] for name in task.space.names})
    found = task.known(task.space.columns(row))
    for name in task.known_metrics:
        assert float(found[name][0]) == pytest.approx(answer[name], rel=1e-12), name


def test_the_twin_follows_the_exact_costs(task) -> None:
    pytest.importorskip("torch")
    from dse.strategies.amoo.relaxed import Relaxed

    relaxed = Relaxed.of(task)
    rows = task.space.unrank(np.random.default_rng(0).integers(0, task.space.size, 200))
    exact = task.known(task.space.columns(rows))
    found = np.exp(relaxed.evaluate(task.space.coded(rows)).values)
    for j, objective in enumerate(task.objectives):
        ratio = found[:, j] / exact[objective.metric]
        # Embodied carbon is linear in area between the grid's designs; latency and energy are bounds (docs/models/hardware.md).
        allowed = 0.02 if objective.metric in ("embodied_kgco2e", "area_mm2") else 0.4
        assert abs(np.median(ratio) - 1) < allowed, objective.metric


def test_gradients_are_those_of_differences(task) -> None:
    pytest.importorskip("torch")
    from dse.strategies.amoo.relaxed import Relaxed

    relaxed = Relaxed.of(task)
    x = np.full((1, len(task.space.parameters)), 0.37)
    gradient = relaxed.evaluate(x).gradients[0]
    for k in range(x.shape[1]):
        step = np.zeros_like(x)
        step[0, k] = 1e-5
        numeric = (relaxed.evaluate(x + step).values - relaxed.evaluate(x - step).values)[0] / 2e-5
        # Central differences of a piecewise smooth function: a kink within the step costs more than rounding.
        assert numeric == pytest.approx(gradient[k], abs=2e-3), task.space.names[k]


def test_latency_opposes_embodied_carbon_and_energy_goes_with_its_carbon(task) -> None:
    pytest.importorskip("torch")
    from dse.strategies.amoo.alignment import alignment as measure

    found = measure(task)
    at = {name: i for i, name in enumerate(found.names)}
    assert found.cosine[at["latency_s"], at["embodied_kgco2e"]] < -0.2
    assert found.cosine[at["energy_j"], at["operational_kgco2e"]] > 0.9
    assert found.cosine[at["area_mm2"], at["embodied_kgco2e"]] > 0.99
    groups = [{found.names[i] for i in group} for group in found.groups]
    assert not any({"latency_s", "embodied_kgco2e"} <= group for group in groups)
    # The exact model says the same wherever it says anything.
    clear = np.abs(found.rank_correlation) > 0.3
    assert (np.sign(found.cosine[clear]) == np.sign(found.rank_correlation[clear])).all()


def test_the_command_prints_and_keeps_it_in_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    api.search("bert", "hardware", out=tmp_path / "run", fixed={"cores": 2, "depth": 16, "l2_words_per_cycle": 64}, threads=1)
    assert "alignment-title" not in (tmp_path / "run" / "report.html").read_text()
    before = load(tmp_path / "run")
    assert cli.main(["explain", str(tmp_path / "run"), "--alignment", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == BASE
    assert {"latency_s", "energy_j", "area_mm2", "embodied_kgco2e", "operational_kgco2e", "total_kgco2e"} == set(answer["objectives"])
    run = load(tmp_path / "run")
    assert run.context["alignment"] == answer
    assert run.designs == before.designs
    html = (tmp_path / "run" / "report.html").read_text()
    assert "Which costs pull the same way" in html
    assert f"{answer['cosine'][1][0]:.2f}" in html
    assert cli.main(["report", str(tmp_path / "run")]) == 0  # the study keeps it
    assert (tmp_path / "run" / "report.html").read_text() == html
    capsys.readouterr()
    assert cli.main(["explain", str(tmp_path / "run"), "--alignment", "--design", "1"]) == 0
    assert "aligned groups:" in capsys.readouterr().out
    assert cli.main(["explain", str(tmp_path / "run"), "--alignment", "--design", "999"]) == 2
    assert "design 999 is not on the front" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hw": "edge22", "vary": {"grid": ["france", "world"]}}, "the run varies grid"),
        ({"hw": "edge22", "fixed": {"frequency_hz": 500e6}}, "the run has frequency_hz"),
        ({"hw": "edge22", "hardware_profile": "catransformers22"}, "profile catransformers22"),
        (
            {"hw": "edge22", "fixed": {"cores": 2, "width": 64, "depth": 16, "l2_kib": 256, "l2_words_per_cycle": 64, "glb_mib": 4}},
            "varies",
        ),
    ],
)
def test_what_the_twin_does_not_know_is_told(options: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        alignment.edge_task(api.make_problem("bert", "carbon", **options), BASE)


def test_hardware_without_a_twin_is_told() -> None:
    with pytest.raises(UsageError, match="has no differentiable twin; alignment is for spaces of datacenter and edge"):
        alignment.twin_of(api.make_problem("bert", "hardware", hw="eyeriss"))


def test_the_datacenter_family_is_told_by_its_closed_forms() -> None:
    pytest.importorskip("torch")
    from dse.reports.text import alignment_trust
    from dse.strategies.amoo.alignment import alignment as measure

    problem = api.make_problem("bert", "hardware", hw="datacenter")
    make = alignment.twin_of(problem)
    task = make(problem, {**BASE})
    assert len(task.space.parameter("model").values) == 1
    found = alignment.RunAlignment(1, BASE, False, measure(task, points=60))
    at = {name: i for i, name in enumerate(found.alignment.names)}
    assert found.alignment.cosine[at["energy_j"], at["operational_kgco2e"]] > 0.8
    assert found.alignment.cosine[at["latency_s"], at["area_mm2"]] < 0
    assert "closed forms" in alignment_trust(found.to_dict())
