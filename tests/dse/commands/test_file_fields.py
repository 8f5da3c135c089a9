"""Fields of a hardware file by name: --set and --vary take them at once, and the design is the one that an edited file gives."""

import re
from pathlib import Path
from typing import Any

import pytest

import dse
from dse import api, cli
from dse.errors import UsageError
from dse.evaluation.one_design import evaluate
from dse.spaces import starters
from hw_models.accelerator.design import Accelerator
from hw_models.errors import HardwareError

COSTS = ("latency_s", "energy_j", "area_mm2", "total_kgco2e")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "npu.toml"
    path.write_text(starters.accelerator("edge22"), encoding="utf-8")
    return path


def costs(answer: dict[str, Any]) -> list[float]:
    return [answer[name] for name in COSTS]


@pytest.mark.parametrize(
    ("given", "knob", "line", "edited"),
    [
        ({"cores": 8}, "cores", r"^cores = \d+", "cores = 8"),
        ({"rows": 64}, "array_rows", r"^rows = \d+", "rows = 64"),  # by its name in the file
        ({"kind": "systolic"}, "array_kind", r'^kind = "dot_product"', 'kind = "systolic"'),
        ({"l2_kib": 512}, "l2_bytes", r"^bytes = 262144", "bytes = 524288"),
    ],
)
def test_a_field_that_is_set_is_a_file_that_was_edited(file: Path, given: dict[str, Any], knob: str, line: str, edited: str) -> None:
    set_ = evaluate("bert-tiny", str(file), fixed=given)
    text, changes = re.subn(line, edited, file.read_text(encoding="utf-8"), count=1, flags=re.M)
    assert changes == 1
    file.write_text(text, encoding="utf-8")
    assert costs(set_) == costs(evaluate("bert-tiny", str(file)))
    assert set_["design"][knob] == next(iter(given.values())) * (1024 if knob == "l2_bytes" else 1)


def test_the_rate_of_a_dram_is_its_words_a_cycle_at_any_clock(file: Path) -> None:
    # 40 GB/s = 64 words of 8 bits a cycle of 625 MHz; at half the clock twice the words.
    by_rate, by_words = (evaluate("bert-tiny", str(file), fixed=fixed) for fixed in ({"dram_gb_per_s": 40}, {"dram_words_per_cycle": 64}))
    assert costs(by_rate) == costs(by_words)
    assert by_rate["dram_gb_per_s"] == 40 and by_rate["dram_words_per_cycle"] == 64
    slower = evaluate("bert-tiny", str(file), fixed={"dram_gb_per_s": 40, "frequency_hz": 312.5e6})
    assert slower["dram_gb_per_s"] == 40 and slower["dram_words_per_cycle"] == 128
    text = file.read_text(encoding="utf-8")
    without = re.sub(r"^(read|write)_words_per_cycle = 128\.?0? .*\n", "", text, flags=re.M)
    assert text.count("\n") - without.count("\n") == 2
    for written in (re.sub("^# (dram_gb_per_s)", r"\1", without, flags=re.M), "dram_gb_per_s = 80\n" + without):  # its table, and the top
        file.write_text(written, encoding="utf-8")
        assert Accelerator.from_toml(file).levels[-1].read_words_per_cycle == 128
    file.write_text("dram_gb_per_s = 80\n" + text, encoding="utf-8")
    with pytest.raises(HardwareError, match=r"dram_gb_per_s and read_words_per_cycle of the last level are both given: give one"):
        Accelerator.from_toml(file)
    file.write_text("dram_gb_per_s = 80\n" + re.sub("^# (dram_gb_per_s)", r"\1", without, flags=re.M), encoding="utf-8")
    with pytest.raises(HardwareError, match="dram_gb_per_s is given twice"):
        Accelerator.from_toml(file)
    file.write_text("dram_gb_per_s = -1\n" + without, encoding="utf-8")
    with pytest.raises(HardwareError, match=r"dram_gb_per_s = -1 is not valid: it must be a number from 0.001 to 1e\+06 GB/s"):
        Accelerator.from_toml(file)
    file.write_text(without, encoding="utf-8")
    with pytest.raises(HardwareError, match=r"levels.dram.read_words_per_cycle is missing: .* or dram_gb_per_s"):
        Accelerator.from_toml(file)


def test_fields_are_searched_without_an_edit_and_found_again(file: Path, tmp_path: Path) -> None:
    """Fixed and varied fields, of one design and of a space of lists; the study needs no file but its own."""
    words = ["search", "--workload", "bert-tiny", "--hw", str(file), "--objective", "hardware", "--out", str(tmp_path / "run")]
    assert cli.main([*words, "--set", "cores=8", "--vary", "rows=8,16", "--vary", "dram_gb_per_s=40,51.2"]) == 0
    file.unlink()
    run = dse.load(tmp_path / "run")
    assert {design["metrics"]["area_mm2"] > 0 for design in run.designs} == {True}
    seen = [design["knobs"] for design in (*run.designs, *run.contenders)]
    assert {knobs["cores"] for knobs in seen} == {8} and {knobs["array_rows"] for knobs in seen} <= {8, 16}
    assert run.summary.points == 4
    assert run.evaluate(run.designs[0]["design"])["design"]["cores"] == 8
    assert len(api.resume(tmp_path / "run").designs) == len(run.designs)


def test_a_list_of_the_file_keeps_its_values(file: Path) -> None:
    file.write_text(re.sub(r"^rows = \d+", "rows = [8, 16]", file.read_text(encoding="utf-8"), flags=re.M), encoding="utf-8")
    with pytest.raises(UsageError, match="set array_rows=12 is not in the space; allowed are 8, 16; nearest is 8"):
        evaluate("bert-tiny", str(file), fixed={"rows": 12})
    assert evaluate("bert-tiny", str(file), fixed={"rows": 8, "cores": 4})["design"]["array_rows"] == 8
    problem = api.make_problem("bert-tiny", "hardware", hw=str(file), vary={"rows": [4, 32]})
    assert problem.vary == {"array_rows": (4, 32)}
    with pytest.raises(UsageError, match="cores is given with set and with vary"):
        api.make_problem("bert-tiny", "hardware", hw=str(file), fixed={"cores": 1}, vary={"cores": [1, 2]})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hw", "npu.toml", "--set", "colums=8"], "did you mean 'columns'"),
        (["--hw", "npu.toml", "--set", "cores=0"], "a whole number from 1 to 1e+06"),
        (["--hw", "h100", "--set", "cores=100"], "`dse init accelerator my-h100.toml --from h100` writes one"),
    ],
)
def test_what_cannot_be_set_is_a_sentence_that_says_what_can(
    file: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(file.parent)
    assert cli.main(["evaluate", "--workload", "bert-tiny", *words]) in (1, 2)
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1


def test_products_take_the_fields_too(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("m,n,k\n64,64,64\n", encoding="utf-8")
    words = ["evaluate", "--gemms", str(tmp_path / "in.csv"), "--hw", str(file), "--out", str(tmp_path / "out.csv")]
    cycles = []
    for option in ([], ["--set", "dram_gb_per_s=1"]):
        assert cli.main([*words, *option]) == 0
        cycles.append(float((tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[1].split(",")[3]))
    assert cycles[1] > 10 * cycles[0]
    for hw, name in ((str(file), "colums"), ("h100", "cores")):  # what was passed over in silence
        assert cli.main([*words, "--hw", hw, "--set", f"{name}=8"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_a_board_is_the_same_board_with_a_list_in_its_file(tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(starters.accelerator("h100"), encoding="utf-8")
    one = evaluate("bert-tiny", str(path))
    assert costs(evaluate("bert-tiny", str(path), fixed={"cores": Accelerator.from_toml(path).cores})) == costs(one)


def test_a_space_around_a_file_of_ones_own_lists_the_model_alone(file: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    assert cli.main(["init", "space", str(space), "--workload", "bert-tiny", "--from", str(file)]) == 0
    problem = api.make_problem("bert-tiny", "carbon", hw=str(file), space=space, allow_unsupported=True)
    assert problem.vary == {}
    space.write_text(space.read_text(encoding="utf-8") + "\n[parameters.cores]\nvalues = [1, 2]\n", encoding="utf-8")
    assert api.make_problem("bert-tiny", "carbon", hw=str(file), space=space, allow_unsupported=True).vary == {"cores": (1, 2)}
    space.write_text(starters.space("bert-tiny"), encoding="utf-8")  # around a template
    with pytest.raises(
        UsageError, match=r"space my-space lists width, which npu\.toml has not; leave it out, or begin with `dse init space"
    ):
        api.make_problem("bert-tiny", "carbon", hw=str(file), space=space, allow_unsupported=True)


def test_what_is_set_narrows_what_a_space_file_lists_of_an_own_file(file: Path, tmp_path: Path) -> None:
    """The value and not the first of the list, in its unit; another value is told with the list."""
    space = tmp_path / "space.toml"
    space.write_text(
        '[parameters.cores]\nrole = "hardware"\nvalues = [2, 4]\n[parameters.l2_kib]\nrole = "hardware"\nvalues = [256, 512]\n'
    )
    given: dict[str, Any] = {"hw": str(file), "space": str(space), "threads": 1}
    study = api.search("bert-tiny", "hardware", fixed={"cores": 4, "l2_kib": 512}, out=tmp_path / "run", **given)
    assert {(d["knobs"]["cores"], d["knobs"]["l2_bytes"]) for d in study.designs} == {(4, 512 * 1024)}
    with pytest.raises(UsageError, match=r"set cores is 3, and space .* lists 2 and 4"):
        api.search("bert-tiny", "hardware", fixed={"cores": 3}, out=tmp_path / "other", **given)
