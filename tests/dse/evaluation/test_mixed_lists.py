"""A device of a list costs what it costs alone, whatever stands beside it; its design file says the same."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from dse import api
from dse.cli import main
from dse.evaluation.design_list import evaluate_designs
from dse.evaluation.evaluation import Evaluation
from dse.evaluation.words import make_problem
from dse.evaluation.written_design import command_of
from dse.problem.metrics import METRICS
from dse.spaces.hardware import load_path_or_name

# Lists in either order of kinds, with counts of devices, with ways of sharing work, and with a deployment that varies too.
LISTS = (
    ("bert", "nvdla,jetson-orin", {}),
    ("bert", "jetson-orin,nvdla,server-cpu", {"vary": {"grid": ["france", "world"]}}),
    ("vit-s16", "gemmini,nvdla,a100", {}),
    ("bert", "h100,tpu-v4i,l40s", {"fixed": {"chips": 4, "pipeline_stages": 2}}),
    ("bert", "tpu-v4i,h100", {"vary": {"chips": [1, 4]}}),
)


def _rows(workload: str, hw: str, options: dict) -> dict[tuple, dict[str, float]]:
    """Every metric of the published sizes on every point of some hardware, by the values of the point's own knobs."""
    problem = make_problem(workload, "hardware", hw=hw, **options)
    evaluation = Evaluation(problem, threads=1)
    block = evaluation.block(0, evaluation.space.model_count)
    names = [name for name in evaluation.metric_names if name in METRICS]
    columns = {name: np.broadcast_to(block.metric(name), block.shape)[0] for name in names}
    found = {}
    for point in range(evaluation.space.hardware_count):
        knobs = evaluation.space.design(0, point)
        key = (knobs.get("device", hw), knobs.get("chips", 1), knobs.get("grid", ""))
        found[key] = {name: float(column[point]) for name, column in columns.items()}
        found[key] |= {f"busy {unit}": value for unit, value in evaluation.busy_s(0, point).items()}
        found[key] |= {entry["component"]: entry["latency_s"] for entry in evaluation.breakdown(0, point)}
    return found


@pytest.mark.parametrize(("workload", "hw", "options"), LISTS)
def test_a_device_of_a_list_costs_what_it_costs_alone(workload: str, hw: str, options: dict) -> None:
    listed = _rows(workload, hw, options)
    chips = sorted({key[1] for key in listed})
    for device in hw.split(","):
        own = options
        if "chips" not in {**options.get("fixed", {}), **options.get("vary", {})} and chips != [1]:
            own = {**options, "vary": {**options.get("vary", {}), "chips": chips}}
        alone = _rows(workload, device, own)
        mine = {key: value for key, value in listed.items() if key[0] == device}
        assert sorted(key[1:] for key in mine) == sorted(key[1:] for key in alone) or "fixed" in options
        for key, value in mine.items():
            told = alone.get(key) or alone[(device, 1, key[2])]
            assert {name: told[name] for name in value if name in told} == {name: value[name] for name in value if name in told}
            assert value.keys() <= told.keys()


def test_a_list_says_of_each_kind_what_stays_on_chip(capsys: pytest.CaptureFixture[str]) -> None:
    from dse.evaluation.evaluation import load_hardware
    from dse.reports.console import _residency_text

    problem = make_problem("bert", hw="nvdla,jetson-orin")
    told = _residency_text(problem, load_hardware(problem), large=False)
    assert "jetson-orin: of kernels" in told
    assert "nvdla: weights: what stays on chip" in told
    one = make_problem("bert", hw="nvdla,jetson-orin", fixed={"device": "nvdla"})
    assert _residency_text(one, load_hardware(one), large=False).startswith("weights")


def test_rows_of_designs_cost_what_the_designs_do(tmp_path: Path) -> None:
    """A table with both kinds: engines of a GPU fuse attention there too."""
    (tmp_path / "in.csv").write_text("device,layers\nnvdla,12\na100,12\n", encoding="utf-8")
    problem = make_problem("bert", "hardware", hw="nvdla,a100", allow_unsupported=True)
    evaluate_designs(problem, str(tmp_path / "in.csv"), str(tmp_path / "out.csv"), allow_unsupported=True)
    head, *lines = [line.split(",") for line in (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()]
    for line in lines:
        row = dict(zip(head, line, strict=True))
        assert float(row["latency_s"]) == api.evaluate("bert", row["device"])["latency_s"]


@pytest.mark.parametrize("hw", ["nvdla,jetson-orin", "h100,nvdla", "h100,l40s", "server-cpu,edge-tpu", "tpu-v5e"])
def test_the_command_of_a_recommendation_gives_its_numbers(hw: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the list, place and rate: the file, the model in it and the options of the command are the design, to the last digit."""
    run = api.search("bert", hw=hw, grid="france", rate_per_s=0.5, fixed={"sequence": 128, "layers": 8}, out=tmp_path / "run")
    for design in (run.designs[0], run.designs[-1]):
        path = run.path / "designs" / f"design-{design['design']:04d}.toml"
        words = shlex.split(command_of(run.problem, design["knobs"], path))
        assert main([*words[1:], "--json"]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert {name: answer[name] for name in design["metrics"]} == design["metrics"]
        assert answer["model_from"]["knobs"]["sequence"] == 128


def test_a_changed_file_of_a_device_is_no_longer_its_board(tmp_path: Path) -> None:
    run = api.search("bert", hw="h100,nvdla", objective="hardware", fixed={"device": "h100", "chips": 1}, out=tmp_path / "run")
    path = run.path / "designs" / "design-0001.toml"
    assert load_path_or_name(str(path), profile=None).board == "h100"
    changed = path.read_text(encoding="utf-8").replace("tdp_w = 700.0", "tdp_w = 600.0")
    assert changed != path.read_text(encoding="utf-8")
    path.write_text(changed, encoding="utf-8")
    assert load_path_or_name(str(path), profile=None).board == ""
