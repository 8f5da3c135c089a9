"""A family of one's own: names that are taken, the headline, the record of the call, the file that is evaluated again."""

from __future__ import annotations

import html
import json
import tomllib
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dse
from dse.cli import main
from dse.errors import UsageError
from dse.evaluation.words import make_problem
from dse.problem.call_text import call_text
from dse.problem.wording import design_phrase, phrase_beside
from workloads.family import Builder, Family
from workloads.knobs import Knob
from workloads.ops import Kind, Operation, OperationTable
from workloads.records import Phase


def family(name: str, wide: str, deep: str) -> Family:
    """Square products of a size, one after the other."""

    def phases(v: Any) -> tuple[Phase, ...]:
        rows = [
            Operation("p", Kind.GEMM, 16, v[wide], v[wide], repeat=v[deep], second_is_weight=True, parameters=v[wide] ** 2, weight_id="p")
        ]
        return (Phase("forward", OperationTable.from_rows(rows)),)

    knobs = {wide: Knob(wide, "columns", 1, 512), deep: Knob(deep, "products", 1, 32)}
    return Family(name, Builder(name, knobs, {}, lambda values, named, told: None, phases), {wide: 64, deep: 4}, {})


NPU = """
name = "npu"
frequency_hz = 6.25e8
voltage_v = 0.8
node_nm = 22
cores = [1, 2]
[array]
rows = [16, 32]
columns = 16
kind = "dot_product"
dataflow = "any"
[vector]
lanes = 32
[[levels]]
name = "l1"
kib = 128
words_per_cycle = 64
[[levels]]
name = "dram"
kind = "lpddr4"
gib = 1
words_per_cycle = 64
"""


@pytest.mark.parametrize(
    ("knobs", "hw", "taken"),
    [
        (("width", "depth"), "edge22", "width (a knob of hw edge22) and depth (a knob of hw edge22)"),
        (("width", "blocks"), "edge22", "width (a knob of hw edge22)"),
        (("channels", "node_nm"), "edge22", "node_nm (a setting of hw edge22)"),
        (("channels", "rows"), NPU, "rows (a field of hw npu)"),
        (("array_rows", "blocks"), NPU, "array_rows (a knob of hw npu)"),
        (("lanes", "blocks"), NPU, "lanes (a field of hw npu)"),
        (("chips", "blocks"), "h100,l40s", "chips (a knob of hw h100,l40s)"),
        (("channels", "rate_per_s"), "edge22", "rate_per_s (a knob of the deployment)"),
    ],
)
def test_a_knob_of_the_model_with_the_name_of_another_is_refused(knobs: tuple[str, str], hw: str, taken: str, tmp_path: Path) -> None:
    if hw == NPU:
        (tmp_path / "npu.toml").write_text(NPU)
        hw = str(tmp_path / "npu.toml")
    own = family("taken", *knobs)
    with pytest.raises(UsageError) as caught:
        make_problem(own, hw=hw)
    told = str(caught.value)
    assert "workload taken" in told and taken in told and "\n" not in told
    assert f"model_{next(name for name in knobs if name in taken)}" in told
    with pytest.raises(dse.DseError):
        dse.evaluate(own, hw=hw)


def test_the_phrase_names_the_sizes_of_any_model() -> None:
    knobs = {"channels": 96, "blocks": 8, "cores": 1, "width": 32, "depth": 2, "glb_mib": 1}
    varying, sizes = ("channels", "blocks", "width", "depth"), ("channels", "blocks")
    assert design_phrase(knobs, varying, ("glb_mib",), sizes) == "channels 96, blocks 8 on array 32 x 2 with glb_mib 1"
    assert design_phrase({**knobs, "cores": 2}, ("channels", "width"), (), sizes) == "channels 96 on 2 cores of array 32 x 2"
    assert design_phrase(knobs, ("width", "depth"), (), sizes) == "32 x 2"  # one model: the hardware alone tells designs apart
    bert = {"layers": 12, "hidden": 576, "ffn": 9, "width": 64, "depth": 32}
    assert design_phrase(bert, tuple(bert), (), ("layers", "hidden", "ffn")) == "12 layers x 576 on 64 x 32"
    other = {**knobs, "channels": 64}
    assert phrase_beside(other, knobs, varying, (), sizes) == "channels 64, blocks 8 on array 32 x 2"


def test_a_call_is_written_whole() -> None:
    def measured(model: object) -> float:
        return 0.0

    text = call_text(
        "dse.search", family("mine", "channels", "blocks"), objective=["min:latency_s"], quality=measured, hw={"template": "edge22"},
        constraints=("latency_s<=10ms",), space=Path("a.toml"), rate_per_s=2.0, example=SimpleNamespace(shape=(1, 3)), budget=None,
    )  # fmt: skip
    assert text == (
        "dse.search(mine, objective=['min:latency_s'], quality=measured, hw={'template': 'edge22'}, constraints=['latency_s<=10ms'], "
        "space='a.toml', rate_per_s=2.0, example=SimpleNamespace(1, 3))"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("own")
    (folder / "quality.csv").write_text("channels,blocks,quality\n32,2,80\n64,4,90\n")
    (folder / "space.toml").write_text(
        'name = "s"\n[parameters.channels]\nrole = "model"\nvalues = [32, 64]\n[parameters.blocks]\nrole = "model"\nvalues = [2, 4]\n'
    )
    hw = {"template": "edge22", "knobs": {"cores": [1], "width": [32], "depth": [2, 4], "l2_kib": [64], "l2_words_per_cycle": [32]}}
    return dse.search(
        family("chain", "channels", "blocks"), "carbon", hw=hw, space=folder / "space.toml", quality=f"table:{folder / 'quality.csv'}",
        constraints=["latency_s<=10ms"], rate_per_s=2.0, out=folder / "run",
    )  # fmt: skip


def test_headline_record_and_file_of_an_own_model(run: Any) -> None:
    found = run.recommend()
    assert "channels 64, blocks 4 on array 32 x" in found.sentence and "channels 64" in found.to_dict()["sentence"]
    file = run.path / "designs" / f"design-{found.design:04d}.toml"
    assert f"its file: {file}" in str(found) and file.name in found._repr_html_()
    command = run.provenance["command"]
    for told in ("dse.search(chain", "'edge22'", "space.toml", "quality.csv", "latency_s<=10ms", "rate_per_s=2.0", "objective='carbon'"):
        assert told in command and told in file.read_text().splitlines()[0]
        assert told in html.unescape((run.path / "report.html").read_text())


def test_a_design_file_brings_its_workload(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next((run.path / "designs").glob("*.toml"))
    again = tmp_path / "design-0001.toml"
    again.write_text(file.read_text().replace('workload = "chain"', 'workload = "no-such-object"'))
    assert main(["evaluate", "--hw", str(again)]) == 2
    told = capsys.readouterr().err
    assert "was found for no-such-object" in told and "dse.evaluate(MODEL, hw=" in told and told.count("\n") == 1
    again.write_text(file.read_text().replace('workload = "chain"', 'workload = "bert-tiny"').partition("[design.model]")[0])
    assert main(["evaluate", "--hw", str(again), "--json"]) == 0
    assert '"bert-tiny"' in capsys.readouterr().out
    again.write_text(file.read_text().replace('workload = "chain"', 'workload = "bert"').partition("[design.model]")[0])
    assert main(["evaluate", "--hw", str(again)]) == 0  # a short name of the library
    assert "was found for" not in capsys.readouterr().out
    assert f"dse.evaluate(MODEL, hw={str(run.recommend().file)!r})" in str(run.recommend())


def test_a_design_file_knows_its_model_by_any_way_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its path, by another way to the same file, and where it has been moved to: the knobs of the file are taken each time."""
    place, other = tmp_path / "here", tmp_path / "there"
    place.mkdir()
    other.mkdir()
    record = place / "net.toml"
    record.write_text((resources.files("workloads") / "models" / "bert-tiny.toml").read_text().replace('"bert-tiny"', '"net"'))
    words = ["search", "--workload", str(record), "--objective", "hardware", "--set", "layers=4", "--set", "cores=1", "--set", "width=64"]
    assert main([*words, "--set", "glb_mib=2", "--out", str(tmp_path / "run")]) == 0
    design = next((tmp_path / "run" / "designs").glob("*.toml"))
    capsys.readouterr()

    def total(workload: str) -> float:
        assert main(["evaluate", "--workload", workload, "--hw", str(design), "--json"]) == 0
        return float(json.loads(capsys.readouterr().out)["energy_j"])

    searched = tomllib.loads(design.read_text())["design"]["metrics"]["energy_j"]
    assert total(str(record)) == total(str(other / ".." / "here" / "net.toml")) == searched
    record.rename(other / "net.toml")
    assert main(["evaluate", "--hw", str(design)]) == 2 and "which is not here" in capsys.readouterr().err
    assert total(str(other / "net.toml")) == searched
