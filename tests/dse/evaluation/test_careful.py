"""What a reader takes for granted and is told: the model stays, a bound of a mix, what a file's numbers are and leave out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dse import api
from dse.analysis.comparison import ground_notes
from dse.cli import main
from dse.errors import DseError
from dse.evaluation import careful
from dse.evaluation.evaluation import Evaluation, load_hardware
from dse.evaluation.one_design import nothing_kept
from dse.evaluation.words import make_problem
from dse.spaces import starters
from dse.spaces.hardware import load_path_or_name

MIX = '[[part]]\nname = "a.b"\nworkload = "bert-base"\nweight = 3\n[[part]]\nname = "a"\nworkload = "vit-b16"\n'


@pytest.fixture
def npu(tmp_path: Path) -> Path:
    """An accelerator of one's own with LPDDR5, which ACT's table lacks."""
    path = tmp_path / "npu.toml"
    text = starters.accelerator("edge22").replace('kind = "lpddr4"', 'kind = "lpddr5"')
    assert 'kind = "lpddr5"' in text
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("cores", ["cores = 2", "cores = [1, 2]"])
def test_a_file_with_a_memory_that_act_lacks_has_our_profile_and_the_list_of_what_is_left_out(npu: Path, cores: str) -> None:
    npu.write_text(npu.read_text(encoding="utf-8").replace("cores = 2", cores), encoding="utf-8")
    found = load_path_or_name(str(npu), profile=None)
    assert (found.default_carbon_profile, found.memory_act_lacks) == ("default", "lpddr5")
    edge = load_path_or_name("edge22", profile=None)
    assert (edge.default_carbon_profile, edge.memory_act_lacks) == ("act2", "")
    assert found.not_modelled == edge.not_modelled != ()
    assert load_path_or_name("h100", profile=None).not_modelled == ()  # kernels, of which that list says nothing


def test_evaluate_says_what_the_figures_are_of(npu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--workload", "bert-base", "--hw", str(npu), "--rate", "2", "--set", "sequence=64"]) == 0
    told = capsys.readouterr().out
    assert "settings: sequence=64, phase=forward, batch=1" in told and "optimizer" not in told
    assert "deployment: 2 requests/s for 3 years, grid world" in told and "carbon profile default (act2 knows no lpddr5)" in told
    assert main(["evaluate", "--workload", "bert-base", "--hw", str(npu), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["settings"]["batch"] == 1 and answer["deployment"]["rate_per_s"] == 1.0
    # Every operation has one bound.
    assert sum(answer["latency_by_bound_s"].values()) == pytest.approx(answer["latency_s"], rel=1e-12)


def test_a_profile_that_fell_back_is_told_and_one_that_is_named_is_not(
    npu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "lpddr4.toml"
    own.write_text(starters.accelerator("edge22"), encoding="utf-8")
    file = api.evaluate("bert-base", str(npu))
    told = "Costed by carbon profile default since act2 knows no lpddr5: compare with designs of --carbon-profile default alone."
    assert told in file["cautions"] and file["deployment"]["carbon_profile"] == "default"
    for hw, fixed in ((str(own), {"dram_kind": "lpddr5"}), ("edge22", {"dram_type": "lpddr5"})):  # the same memory, set
        found = api.evaluate("bert-base", hw, fixed=fixed)
        assert told in found["cautions"] and found["deployment"] == file["deployment"]
    assert api.evaluate("bert-base", str(own), fixed={"dram_kind": "lpddr5"})["total_kgco2e"] == file["total_kgco2e"]
    for answer in (api.evaluate("bert-base", str(own)), api.evaluate("bert-base", str(npu), carbon_profile="default")):
        assert told not in answer["cautions"] and answer["memory_act_lacks"] == ""
    assert api.evaluate("bert-base", str(own))["deployment"]["carbon_profile"] == "act2"
    words = ["search", "--workload", "bert-base", "--hw", str(own), "--objective", "hardware", "--json"]
    for number, (more, caution) in enumerate(((["--vary", "dram_kind=lpddr5"], True), (["--set", "dram_kind=lpddr5"], True),
                                              (["--set", "dram_kind=lpddr5", "--carbon-profile", "default"], False))):  # fmt: skip
        assert main([*words, *more, "--out", str(tmp_path / f"run{number}")]) == 0
        assert (told in api.load(tmp_path / f"run{number}").context["cautions"]) is caution
        assert ("(act2 knows no lpddr5)" in capsys.readouterr().err) is caution


def test_two_memories_are_two_searches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "lpddr4.toml"
    own.write_text(starters.accelerator("edge22"), encoding="utf-8")
    words = ["search", "--workload", "bert-base", "--hw", str(own), "--out", str(tmp_path / "run")]
    assert main([*words, "--vary", "dram_kind=lpddr4,lpddr5"]) == 2
    told = capsys.readouterr().err
    assert "--set dram_kind=lpddr4 and --set dram_kind=lpddr5" in told and "dse compare" in told and "batch" not in told
    assert main([*words, "--set", "dram_type=lpddr5"]) == 2
    assert "did you mean 'dram_kind'?" in capsys.readouterr().err


def test_sizes_of_one_model_are_sent_to_a_record() -> None:
    torch = pytest.importorskip("torch")
    one = {"workload": torch.nn.Linear(64, 64), "objective": "hardware", "example": torch.zeros(1, 64)}
    with pytest.raises(DseError, match=r"Linear is one model without size knobs.*record.*space file"):
        api.make_problem(**one, vary={"layers": [2, 4]})
    with pytest.raises(DseError, match="did you mean 'cores'"):
        load_hardware(api.make_problem(**one, vary={"corse": [2, 4]}))


def test_models_that_are_searched_unasked(npu: Path) -> None:
    bound = ["latency_s<=0.02"]
    free = api.make_problem("bert-base", ["min:total_kgco2e"], hw=str(npu), constraints=bound)
    (line,) = careful.models_unasked(Evaluation(free, threads=1, mapped=False))
    assert "--objective hardware or --set layers=12 --set hidden=768 keeps bert-base" in line
    kept = replace(free, fixed={"layers": 12, "hidden": 768})
    asked = api.make_problem("bert-base", ["min:total_kgco2e"], hw=str(npu), constraints=["quality>=80"])
    for problem in (kept, asked, api.make_problem("bert-base", "hardware", hw=str(npu), constraints=bound)):
        assert careful.models_unasked(Evaluation(problem, threads=1, mapped=False)) == []


@pytest.mark.parametrize("residency", ["none", "weights"])
def test_parts_of_a_mix_take_what_they_take_alone_and_a_bound_that_one_breaks_is_told(npu: Path, residency: str, tmp_path: Path) -> None:
    mix = tmp_path / "mix.toml"
    mix.write_text(MIX, encoding="utf-8")
    alone = {
        name: api.evaluate(model, str(npu), residency=residency)["latency_s"] for name, model in (("a.b", "bert-base"), ("a", "vit-b16"))
    }
    bound = (3 * alone["a.b"] + alone["a"]) / 4 * 1.01  # the mean of the parts meets it
    assert bound < alone["a.b"]
    problem = api.make_problem(str(mix), "hardware", hw=str(npu), residency=residency, constraints=[f"latency_s<={bound!r}"])
    found = careful.part_latency_s(Evaluation(problem, threads=1))
    assert found == pytest.approx(alone, rel=1e-9)
    (line,) = careful.parts_beyond_bound(problem, {})
    assert "mean request of the mix" in line and f"a.b takes {1e3 * alone['a.b']:.4g} ms" in line
    wide = replace(problem, constraints=tuple(replace(c, bound=1.0) for c in problem.constraints))
    assert careful.parts_beyond_bound(wide, {}) == []


def test_what_data_on_chip_would_save_is_told_where_it_is_not_asked_for(tmp_path: Path) -> None:
    fixed = {"cores": 1, "width": 64, "depth": 32, "l2_kib": 64, "l2_words_per_cycle": 128, "glb_mib": 2}
    answers = {level: api.evaluate("bert-tiny", residency=level, fixed=fixed) for level in ("none", "weights")}
    alone = {name: answers["none"][name] for name in ("energy_j", "latency_s", "total_kgco2e")}
    problem = api.make_problem("bert-tiny", "hardware", residency="none")
    (line,) = nothing_kept(problem, fixed, alone)
    assert {level: answer["cautions"] for level, answer in answers.items()} == {"none": [line], "weights": []}
    for name, words in (("energy_j", "energy per request"), ("latency_s", "latency")):
        assert f"{100 * (1 - answers['weights'][name] / alone[name]):.0f} % less {words}" in line
    assert "total carbon" not in line  # at one request a second a tiny model's is all in its making
    busy = {level: api.evaluate("bert-tiny", residency=level, fixed=fixed, rate_per_s=300.0)["total_kgco2e"] for level in answers}
    often = replace(problem, deployment=replace(problem.deployment, rate_per_s=300.0))
    (line,) = nothing_kept(often, fixed, {**alone, "total_kgco2e": busy["none"]})
    assert f"{100 * (1 - busy['weights'] / busy['none']):.0f} % less total carbon" in line
    assert nothing_kept(problem, fixed, {"energy_j": answers["weights"]["energy_j"] * 1.04}) == []
    assert nothing_kept(replace(problem, residency="epilogue"), fixed, alone) == []
    other = api.make_problem("bert-tiny", "hardware", hardware_profile="catransformers22")  # keeps nothing
    assert nothing_kept(other, fixed, alone) == []
    for level in ("none", "activations"):
        run = api.search("bert-tiny", "hardware", fixed={**fixed, "layers": 2}, residency=level, out=tmp_path / level)
        assert any("--residency weights" in line for line in run.context["recommendation"]["warnings"]) == (level == "none")


def test_a_search_of_hardware_alone_is_silent_on_quality_and_names_the_recommended_hardware(
    npu: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    npu.write_text(npu.read_text(encoding="utf-8").replace("cores = 2", "cores = [1, 2, 4]"), encoding="utf-8")
    words = ["search", "--workload", "bert-base", "--hw", str(npu), "--objective", "hardware", "--constraint", "latency_s<=1"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "(dram_fill<=1.0 by default;" in said.err
    assert "support" not in said.out and "Quality is a surrogate's" not in said.out
    run = api.load(tmp_path / "run")
    design = run.context["recommendation"]["design"]
    areas = [s for s in run.context["sources"] if str(s.get("key")).endswith("area_mm2") and str(s.get("key")).startswith("hardware.")]
    chosen = next(d for d in run.designs if d["design"] == design)
    assert [s["value"] for s in areas] == [pytest.approx(chosen["metrics"]["area_mm2"])]
    assert chosen["knobs"]["cores"] > 1  # not the first of the sweep
    assert any("reach further up than down" in line for line in run.context["uncertainty"]["notes"])


IDLE = "Idle power is the SRAM's leakage alone; set leakage_w in npu.toml for the rest."


@pytest.mark.parametrize("cores", ["cores = 2", "cores = [1, 2]"])
def test_idle_power_of_a_file_is_said_to_be_the_sram_s(npu: Path, cores: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    npu.write_text(npu.read_text(encoding="utf-8").replace("cores = 2", cores), encoding="utf-8")
    few: dict[str, Any] = {"sequence": 32, "layers": 2}
    assert api.evaluate("bert", hw=str(npu), fixed=few)["cautions"].count(IDLE) == 1
    assert main(["search", "--workload", "bert", "--hw", str(npu), "--objective", "hardware", "--set", "sequence=32", "--out",
                 str(tmp_path / "run")]) == 0  # fmt: skip
    assert " ".join(capsys.readouterr().out.split()).count(f"careful: {IDLE}") == 1
    npu.write_text("leakage_w = 0.05\n" + npu.read_text(encoding="utf-8"), encoding="utf-8")
    assert IDLE not in api.evaluate("bert", hw=str(npu), fixed=few)["cautions"]
    for name in ("edge22", "nvdla", "edge-tpu", "h100"):
        assert not any("leakage alone" in line for line in api.evaluate("bert", hw=name, fixed=few, allow_unsupported=True)["cautions"])


def test_a_device_beside_a_template_or_a_file_is_said_to_rest_on_other_grounds(npu: Path) -> None:
    def notes(*names: Any) -> list[str]:
        return ground_notes([make_problem("bert", "hardware", hw=name) for name in names])

    for own in ("edge22", str(npu)):
        (told,) = notes(own, "edge-tpu")
        name = load_path_or_name(own, profile=None).name
        assert told == (f"idle power and area rest on different grounds: of {name} the sum of the technology tables (idle power: the "
                        "SRAM's leakage alone), of edge-tpu the data sheet")  # fmt: skip
    assert notes("edge22", str(npu)) == notes("h100", "edge-tpu") == []
    (told,) = notes("edge22", "nvdla")  # its area is published, its idle power is not
    assert told.startswith("area rests on different grounds")
    npu.write_text("leakage_w = 0.05\narea_mm2 = 9.0\n" + npu.read_text(encoding="utf-8"), encoding="utf-8")
    assert notes(str(npu), "edge-tpu") == []


@pytest.mark.parametrize("name", ["edge22", "edge-tpu", "jetson-orin"])
def test_components_and_idle_power_add_to_the_energy(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--workload", "resnet-50", "--hw", name]) == 0
    lines = capsys.readouterr().out.splitlines()
    energy = float(next(line for line in lines if line.split()[:1] == ["energy_j"]).split()[1])
    start = next(i for i, line in enumerate(lines) if line.split()[:1] == ["component"])
    rows = [line for line in lines[start + 1 :] if line[:2] == "  "]
    parts = [float(row[28:41]) for row in rows if row[28:41].strip()]
    assert all(row[2:14].strip() for row in rows) and rows[-1].startswith("  idle power x latency")
    assert sum(parts) == pytest.approx(energy, rel=1e-3)  # four digits are shown


def test_ranges_that_reach_as_far_up_as_down_are_not_counted(tmp_path: Path) -> None:
    from fractions import Fraction

    api.search("bert", "hardware", hw="edge22", fixed={"cores": 1, "width": 32, "sequence": 32}, out=tmp_path / "run")
    note = next(line for line in api.load(tmp_path / "run").context["uncertainty"]["notes"] if "further up" in line)
    ranges = api.evaluate("bert", hw="edge22", fixed={"sequence": 32})["ranges"]["factors"]
    # As they are written, to nine digits: 0.25, 0.5, 0.75 reach as far up as down.
    exact = [[Fraction(f"{end:.9g}") for end in ends] for ends in ranges.values()]
    up = sum(high - mode > mode - low for low, mode, high in exact)
    assert f"and {up} of {len(exact)} reach further up than down" in note
