"""`dse search --space FILE.toml`: a user's own models, hardware, deployments and constraints, end to end."""

from pathlib import Path

import numpy as np
import pytest

from dse import cli, evaluate
from dse.errors import UsageError
from dse.evaluation import space_file
from dse.storage.run_folder import load

FILE = """
name = "mine"
constraints = ["hidden % heads == 0", "hidden >= 64 * heads", "cores * width * depth <= 2048"]

[parameters.layers]
role = "model"
values = [2, 4, 6]

[parameters.hidden]
role = "model"
coding = "log"
values = [128, 192, 256]

[parameters.heads]
role = "model"
values = [2, 3, 4]

[parameters.cores]
values = [1, 2]

[parameters.width]
values = [32, 64]

[parameters.depth]
values = [16, 32]

[parameters.l2_kib]
values = [128]

[parameters.l2_words_per_cycle]
values = [64]

[parameters.glb_mib]
values = [2]
"""
# By hand: (hidden, heads) that divide and leave 64 a head.
MODELS = {(layers, hidden, heads) for layers in (2, 4, 6) for hidden, heads in ((128, 2), (192, 2), (192, 3), (256, 2), (256, 4))}
POINTS = {(c, w, d) for c in (1, 2) for w in (32, 64) for d in (16, 32) if c * w * d <= 2048}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The space above."""
    (tmp_path / "mine.toml").write_text(FILE)
    return tmp_path / "mine.toml"


def _search(file: Path, out: Path, *more: str) -> int:
    return cli.main(["search", "--workload", "bert", "--space", str(file), "--threads", "1", "--out", str(out), *more])


def test_exactly_the_designs_that_meet_the_constraints_are_searched(tmp_path: Path, file: Path) -> None:
    assert _search(file, tmp_path / "run", "--allow-unsupported") == 0
    run = load(tmp_path / "run")
    assert run.summary.points == len(MODELS) * len(POINTS) == 15 * 7
    assert run.problem.space == "mine"
    for design in run.designs:
        knobs = design["knobs"]
        assert (knobs["layers"], knobs["hidden"], knobs["heads"]) in MODELS
        assert (knobs["cores"], knobs["width"], knobs["depth"]) in POINTS
        assert knobs["ffn"] == 3072  # what the file leaves out stays the workload's own
    # The file is not needed any more: the study has its text.
    file.unlink()
    before = (tmp_path / "run" / "pareto.csv").read_bytes()
    assert cli.main(["resume", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "pareto.csv").read_bytes() == before


def test_the_front_is_that_of_every_design_alone(tmp_path: Path, file: Path) -> None:
    from dse import api
    from dse.fronts.pareto import Front

    assert _search(file, tmp_path / "run", "--objective", "min:latency_s", "--objective", "min:area_mm2", "--allow-unsupported",
                   "--no-default-constraints") == 0  # fmt: skip
    found = {(d["metrics"]["latency_s"], d["metrics"]["area_mm2"]) for d in load(tmp_path / "run").designs}
    values = []
    for layers, hidden, heads in sorted(MODELS):
        for cores, width, depth in sorted(POINTS):
            fixed = {"layers": layers, "hidden": hidden, "heads": heads, "ffn": 3072, "cores": cores, "width": width, "depth": depth,
                     "l2_kib": 128, "l2_words_per_cycle": 64, "glb_mib": 2}  # fmt: skip
            if layers > 2:
                continue  # more layers are slower on the same hardware: never on this front
            answer = api.evaluate("bert", fixed=fixed, allow_unsupported=True)
            values.append((answer["latency_s"], answer["area_mm2"]))
    index = np.arange(len(values), dtype=np.int64)
    expected = Front.of(index, index, np.array(values)).values
    assert np.array(sorted(found)) == pytest.approx(np.array(sorted({tuple(v) for v in expected.tolist()})), rel=1e-9)


def test_a_measured_quality_searches_it_too(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_space_quality.py").write_text("def score(p, fidelity, seed):\n    return 50.0 + p['layers'] + p['hidden'] / 64\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ("--quality", "python:own_space_quality:score", "--budget", "15", "--whole-budget")
    assert _search(file, tmp_path / "run", *words) == 0
    run = load(tmp_path / "run")
    assert run.context["quality_evaluator"]["evaluations"] == 15  # every model, and then the space is exhausted
    assert max(d["metrics"]["quality"] for d in run.designs) == 60.0


def test_deployments_of_the_file_are_varied(tmp_path: Path, file: Path) -> None:
    file.write_text(FILE + '\n[parameters.grid]\nrole = "deployment"\ncoding = "ordered"\nvalues = ["france", "world"]\n')
    assert _search(file, tmp_path / "run", "--allow-unsupported", "--set", "layers=4") == 0
    run = load(tmp_path / "run")
    assert run.summary.points == 5 * 7 * 2
    assert {d["knobs"]["grid"] for d in run.designs} == {"france"}  # cleaner, so every design of the front is there


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hidden >= 64 * heads", "hidden >= 64 * cores", "ties a model to its hardware"),
        ("hidden >= 64 * heads", "hidden >= 6400 * heads", "no model meets the constraints"),
        ("<= 2048", "<= 1", "no hardware point meets the constraints"),
        ("parameters.l2_kib", "parameters.l2_kb", "did you mean 'l2_kib'"),
        ("values = [2, 4, 6]", "values = [2, 4.5]", "layers is a knob of the model and has 4.5"),
        ("parameters.layers]\nrole", "parameters.layers]\nrolle", "did you mean 'role'"),
    ],
)
def test_errors_are_one_sentence(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str) -> None:
    assert old in FILE
    file.write_text(FILE.replace(old, new))
    assert _search(file, tmp_path / "run", "--allow-unsupported") in (1, 2)  # the template's own errors are 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("dse: ")
    assert words in said


def test_a_knob_is_varied_in_one_place(tmp_path: Path, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _search(file, tmp_path / "run", "--vary", "cores=1,2") == 2
    assert "vary cores is in space" in capsys.readouterr().err


def test_constraints_on_a_space_too_large_to_sweep_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "large.toml").write_text(
        'constraints = ["chips * cores <= 64"]\n[parameters.chips]\nvalues = [1, 2, 4, 8]\n[parameters.cores]\nvalues = [16, 32, 64]\n'
    )
    words = ["search", "--workload", "bert", "--hw", "datacenter", "--space", str(tmp_path / "large.toml"), "--objective", "hardware"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "too large to list its hardware points, so 'chips * cores <= 64' cannot be applied" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_constraints_between_model_knobs_hold_on_a_space_too_large_to_sweep(tmp_path: Path) -> None:
    (tmp_path / "large.toml").write_text(
        'constraints = ["hidden >= 64 * layers"]\n[parameters.layers]\nrole = "model"\nvalues = [6, 12, 24]\n'
        '[parameters.hidden]\nrole = "model"\nvalues = [768, 1536]\n'
    )
    words = ["search", "--workload", "bert", "--hw", "datacenter", "--space", str(tmp_path / "large.toml"), "--allow-unsupported"]
    assert cli.main([*words, "--strategy", "random", "--budget", "12", "--out", str(tmp_path / "run")]) == 0
    run = load(tmp_path / "run")
    assert run.context["models"] == 5, "24 layers of 768 break it"
    assert all(design["knobs"]["hidden"] >= 64 * design["knobs"]["layers"] for design in run.designs)


def test_a_space_is_a_file_by_its_name_or_because_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("", encoding="utf-8")
    assert space_file.is_file(str(tmp_path / "mine"))
    assert space_file.is_file(str(tmp_path / "not-there.toml"))
    assert not space_file.is_file("catransformers")


def test_a_word_where_a_model_knob_needs_a_number() -> None:
    with pytest.raises(UsageError, match="layers=many is not a number"):
        evaluate("bert", "edge22", fixed={"layers": "many"})
