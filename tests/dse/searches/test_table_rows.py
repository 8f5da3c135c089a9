"""A newcomer's table of figures: rows that are not searched, models without a row, knobs that it does not see, and a space with gaps."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dse import api
from dse.cli import main
from dse.evaluation import space_file
from dse.quality.evaluators import TableEvaluator
from dse.reports import recommendation_text, terminal
from dse.searches.plan import MeasuredSettings
from dse.searches.table_rows import cautions
from workloads import library

RECORD = """name = "my-encoder"
family = "encoder"
[dimensions]
layers = 4
hidden = 256
heads = 4
ffn = 1024
vocabulary = 8000
positions = 256
"""
SPACE = """name = "enc"
[parameters.layers]
role = "model"
values = [2, 4]
[parameters.hidden]
role = "model"
values = [128, 256]
[parameters.heads]
role = "model"
values = [3, 4]
[parameters.ffn]
role = "model"
values = [512, 1024]
"""
TABLE = "layers,hidden,quality\n2,128,70\n2,256,74\n4,128,75\n6,256,80\n"


def _table(tmp_path: Path, text: str) -> TableEvaluator:
    (tmp_path / "acc.csv").write_text(text)
    return TableEvaluator.read(tmp_path / "acc.csv")


def test_rows_and_models_that_miss_each_other(tmp_path: Path) -> None:
    table = _table(tmp_path, TABLE)
    one = {"layers": np.array([4]), "hidden": np.array([128]), "heads": np.array([4])}
    (told,) = cautions(table, one, own_space=False)
    assert told.startswith("3 of 4 rows of acc.csv are outside the space (layers, hidden not searched); ")
    assert "`dse init space`" in told
    axes = np.meshgrid([2, 4], [128, 256], [2, 4], indexing="ij")
    grid = {name: axis.reshape(-1) for name, axis in zip(("layers", "hidden", "heads"), axes, strict=True)}
    outside, bare, unseen = cautions(table, grid, own_space=True)
    assert outside.startswith("1 of 4 rows of acc.csv is outside the space; ")
    assert "space file" in outside
    assert bare.startswith("2 of 8 models of the space have no row in acc.csv")
    assert unseen.startswith("The table acc.csv does not see heads: models that differ in it alone have one quality")


def test_a_table_that_is_the_space_needs_no_word(tmp_path: Path) -> None:
    table = _table(tmp_path, "layers,cores,quality\n2,1,70\n2,2,70\n4,1,75\n4,2,75\n")  # a knob of the hardware is none of the models'
    assert cautions(table, {"layers": np.array([2, 4]), "heads": np.array([4, 4])}, own_space=False) == []


def test_a_search_of_own_models_and_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The length that is set holds for the models of the space too; what was left out is told in terminal, report and JSON."""
    monkeypatch.chdir(tmp_path)
    Path("enc.toml").write_text(RECORD + "[defaults]\nsequence = 200\n")
    Path("space.toml").write_text(SPACE)
    Path("acc.csv").write_text(TABLE)
    command = ["search", "--workload", "enc.toml", "--space", "space.toml", "--quality", "table:acc.csv", "--set", "sequence=256",
               "--set", "cores=2", "--set", "width=64", "--set", "depth=16", "--set", "glb_mib=2", "--no-default-constraints"]  # fmt: skip
    assert main([*command, "--out", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["recommendation"]["warnings"]
    page = Path("run/report.html").read_text(encoding="utf-8")
    for words in (
        "1 of 4 rows of acc.csv is outside the space",
        "2 of 8 models of the space have no row in acc.csv",
        "does not see ffn: models that differ in it alone have one quality",
        "8 of 16 models of the space left out: hidden of my-encoder is 128, must be a multiple of heads = 3.",
        "The best quality has no standard error",
    ):
        assert any(words in line for line in told), words
        assert words in page
    run = api.load("run")
    assert "careful: 8 of 16 models of the space left out" in " ".join(recommendation_text.recommendation_text(run).split())
    assert "Quality measured by table:acc.csv, without a standard error" in terminal.front_table(run)


TIED = """name = "enc"
constraints = ["ffn == 4 * hidden", "hidden == 64 * heads"]
[parameters.layers]
role = "model"
values = [2, 4]
[parameters.hidden]
role = "model"
values = [128, 192]
"""
LISTED = """[parameters.heads]
role = "model"
values = [2, 3]
[parameters.ffn]
role = "model"
values = [512, 768]
"""
FIXED = ["--set", "cores=2", "--set", "width=64", "--set", "depth=16", "--set", "glb_mib=2", "--no-default-constraints"]


@pytest.mark.parametrize("space", [TIED + LISTED, TIED], ids=["listed", "from the equations"])
def test_one_model_a_row_by_constraints_is_no_caution_and_the_measured_model_is_costed(
    space: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("enc.toml").write_text(RECORD)
    Path("space.toml").write_text(space)
    Path("acc.csv").write_text("layers,hidden,quality,quality_se\n2,128,70,0.5\n2,192,74.6,\n4,128,75,0.5\n4,192,77,0.4\n")
    command = ["search", "--workload", "enc.toml", "--space", "space.toml", "--quality", "table:acc.csv", "--out", "run", *FIXED]
    command += ["--residency", "none"]  # the model without an error is on this front
    assert main(command) == 0
    shown = capsys.readouterr()
    assert "does not see" not in shown.out
    assert "(+N equal): N further designs" in shown.out
    assert "the same in every model: vocabulary=8000" in " ".join(shown.err.split())
    run = api.load("run")
    assert {(d["knobs"]["hidden"], d["knobs"]["heads"], d["knobs"]["ffn"]) for d in run.designs} == {(128, 2, 512), (192, 3, 768)}
    assert "± its standard error where one is known" in " ".join(shown.out.split())
    assert "74.60 ±" not in shown.out
    assert "77.00 ± 0.4" in shown.out


def test_progress_counts_the_models_that_there_are(tmp_path: Path) -> None:
    """No more trials than models with a row, whatever the budget: five rows, four models, three of them in both."""
    (tmp_path / "enc.toml").write_text(RECORD)
    (tmp_path / "acc.csv").write_text("layers,hidden,quality\n2,128,70\n2,192,74\n4,128,75\n6,192,78\n8,192,79\n")
    (tmp_path / "space.toml").write_text(TIED)
    told: list[tuple[str, int, int]] = []
    fixed = {"cores": 2, "width": 64, "depth": 16, "glb_mib": 2}
    problem = api.make_problem(str(tmp_path / "enc.toml"), "carbon", fixed=fixed, default_constraints=False, keep_quality=True)
    problem = replace(problem, space="enc", space_toml=TIED)
    measured = MeasuredSettings(f"table:{tmp_path / 'acc.csv'}")
    api.search(problem, measured=measured, out=tmp_path / "run", say=lambda stage, done, of, note: told.append((stage, done, of)))
    assert [entry for entry in told if entry[0] == "trials"] == [("trials", done, 3) for done in (1, 2, 3)]


def test_what_the_space_does_not_list_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("enc.toml").write_text(RECORD)
    Path("space.toml").write_text(TIED.replace('"ffn == 4 * hidden", ', ""))
    Path("acc.csv").write_text("layers,hidden,quality\n2,128,70\n4,192,77\n")
    command = ["search", "--workload", "enc.toml", "--space", "space.toml", "--quality", "table:acc.csv", *FIXED]
    assert main([*command, "--out", "run"]) == 0
    shown = capsys.readouterr()
    assert "models      layers, hidden, heads; the same in every model: ffn=1024," in shown.err
    assert "ffn=1024, vocabulary=8000, positions=256" in " ".join(shown.out.split("the same for all:")[1].split())
    assert main([*command, "--set", "ffn=512", "--out", "other"]) == 0
    assert "the same in every model: ffn=512," in capsys.readouterr().err


def test_a_constraint_on_what_is_not_listed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("enc.toml").write_text(RECORD)
    Path("space.toml").write_text(TIED.replace("ffn ==", "ffn <="))
    assert main(["search", "--workload", "enc.toml", "--space", "space.toml", *FIXED]) == 2
    told = capsys.readouterr().err
    assert "constraint 'ffn <= 4 * hidden': parameter 'ffn' is unknown, space enc lists layers, hidden, heads" in told
    assert "[parameters.ffn]" in told


def test_a_wrong_table_is_told_before_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("acc.csv").write_text("layers,quality,quality_se\n2,70,x\n")
    assert main(["search", "--workload", "bert", "--quality", "table:acc.csv"]) == 1
    assert capsys.readouterr().err == "dse: table acc.csv line 2: quality_se is 'x'; a number is needed\n"


def test_models_left_out_are_counted_among_those_that_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "enc.toml").write_text(RECORD)
    family = library.load(str(tmp_path / "enc.toml"))
    grid, told = space_file.model_grid(SPACE, "enc", family, {"hidden": 128})
    assert len(grid["hidden"]) == 8  # heads 4 of two widths: 256 is no multiple of 3 either
    assert told == "4 of 8 models of the space left out: hidden of my-encoder is 128, must be a multiple of heads = 3."
    stated = SPACE.replace('"enc"\n', '"enc"\nconstraints = ["hidden % heads == 0"]\n', 1)
    assert space_file.model_grid(stated, "enc", family)[1] == ""  # the file says itself what it leaves out


def test_errors_are_told_of_where_they_are_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("enc.toml").write_text(RECORD)
    Path("space.toml").write_text(SPACE.replace("[3, 4]", "[4]").replace("[512, 1024]", "[1024]"))
    Path("acc.csv").write_text("layers,hidden,quality,quality_se\n2,128,70,1\n2,256,74,1\n4,128,75,1\n4,256,75.5,1\n")
    command = ["search", "--workload", "enc.toml", "--space", "space.toml", "--quality", "table:acc.csv", "--out", "run",
               "--set", "cores=2", "--set", "width=64", "--set", "depth=16", "--set", "glb_mib=2", "--no-default-constraints"]  # fmt: skip
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "± its standard error" in shown
    assert not any(words in shown for words in ("no standard error", "outside the space", "no row in", "does not see", "left out"))


@pytest.mark.parametrize(
    ("hardware", "vary", "says"),
    [
        ("edge22", "layers=2,4", "a knob of the model bert-base; list its values in a space file (`dse init space my-space.toml"),
        ("edge22", "sequence=64,128", "sequence is a knob of the model bert-base"),
        ("h100", "cores=1,2", "`dse init accelerator my-h100.toml --from h100` writes one, and --hw my-h100.toml takes --vary cores=1,2"),
    ],
)
def test_what_cannot_be_varied_is_sent_where_it_belongs(
    hardware: str, vary: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["search", "--workload", "bert", "--hw", hardware, "--vary", vary, "--out", "run"]) == 2
    assert says in capsys.readouterr().err
