"""`dse calibrate` and `dse validate` as a user meets them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from dse.cli import main
from dse.commands import calibrate, validate
from dse.errors import DseError
from hw_models.accelerator.design import Accelerator
from hw_models.devices import library as devices
from hw_models.errors import HardwareError

LLMCOMPASS = Path(__file__).parents[2] / "reference" / "hardware" / "measured" / "llmcompass_a100.csv"


def run(command, *words: str) -> int:
    parser = argparse.ArgumentParser(prog="dse")
    command.register(parser.add_subparsers(dest="command"))
    args = parser.parse_args([command.__name__.rpartition(".")[2], *words])
    return int(args.run(args))


def test_calibrate_prints_the_held_out_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(calibrate, "--measured", str(LLMCOMPASS)) == 0
    out, err = capsys.readouterr()
    for word in ("gemm", "softmax", "layernorm", "gelu", "2nd half, fitted on 1st", "tensor_efficiency"):
        assert word in out
    assert "24 row(s) have no dimensions" in err


def test_calibrate_as_json_and_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.toml"
    assert run(calibrate, "--measured", str(LLMCOMPASS), "--device", "a100", "--json", "--out", str(target)) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["device"] == "a100"
    operators = {o["operator"]: o for o in document["operators"]}
    assert operators["gemm"]["rows"] == 20
    assert 0 < operators["gemm"]["mean_error"]["second_half_fitted_on_first"] < 0.109
    written = devices.read_overheads(target)
    assert written.operators["softmax"].launch_s == operators["softmax"]["overheads"]["launch_s"]
    assert written.fitted_on["gemm"] == "20 gemm rows of llmcompass_a100.csv"


def test_calibrate_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(HardwareError, match="does not exist"):
        run(calibrate, "--measured", str(tmp_path / "no.csv"))
    with pytest.raises(HardwareError, match="no kernels to calibrate"):
        run(calibrate, "--measured", str(LLMCOMPASS), "--device", "eyeriss")
    with pytest.raises(HardwareError, match="did you mean 'h100'"):
        run(calibrate, "--measured", str(LLMCOMPASS), "--device", "h10")


def test_a_calibration_is_what_evaluate_and_search_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "mine.toml"
    assert main(["calibrate", "--measured", str(LLMCOMPASS), "--device", "h200", "--out", str(target)]) == 0
    capsys.readouterr()

    def latency(*words: str) -> float:
        assert main(["evaluate", "--workload", "bert-tiny", "--json", *words]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["embodied_kgco2e"] == shipped["embodied_kgco2e"] if shipped else True  # the board stays the board
        shipped.update(answer)
        return float(answer["latency_s"])

    shipped: dict[str, float] = {}
    plain = latency("--hw", "h200")
    calibrated = latency("--calibration", str(target))
    assert calibrated > plain
    assert latency("--hw", "h200", "--calibration", str(target)) == latency("--hw", str(target)) == calibrated
    assert main(["evaluate", "--workload", "bert-tiny", "--hw", "l4", "--calibration", str(target)]) == 2
    assert "is of h200, and hw is l4" in capsys.readouterr().err
    run_folder = tmp_path / "run"
    words = ["search", "--workload", "bert-tiny", "--objective", "min:latency_s", "--calibration", str(target), "--out", str(run_folder)]
    assert main([*words, "--json"]) == 0
    (design,) = json.loads(capsys.readouterr().out)["front"]
    assert design["latency_s"] == calibrated


def test_a_devices_own_file_is_calibrated_as_a_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, target = tmp_path / "own.toml", tmp_path / "fitted.toml"
    assert main(["init", "accelerator", str(own), "--from", "l4"]) == 0
    assert main(["calibrate", "--measured", str(LLMCOMPASS), "--device", str(own), "--out", str(target), "--json"]) == 0
    kernels = {k["kernels"]: k for k in json.loads(capsys.readouterr().out)["kernels"]}
    fitted = Accelerator.from_toml(target)
    assert (fitted.product_scale, fitted.product_fixed_s) == (kernels["product"]["scale"], kernels["product"]["fixed_s"])
    assert main(["evaluate", "--workload", "bert-tiny", "--calibration", str(target)]) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('device = "h10"\n[calibration]\n', "did you mean 'h100'"),
        ('device = "h100"\n', "calibration"),
        ('device = "eyeriss"\n[calibration]\nproduct_scale = 1.0\n', "search of mappings"),
        ('device = "h100"\n[calibration]\nproduct_scal = 1.0\n', "product_scale"),
        ('device = "h100"\n[calibration]\nproduct_scale = -1.0\n', "calibration.product_scale"),
        ('device = "h100"\n[calibration]\nproduct_scale = "x"\n', "calibration.product_scale"),
        ("device = [\n", "not valid TOML"),
    ],
)
def test_calibrations_that_cannot_be_are_one_sentence(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert main(["evaluate", "--workload", "bert-tiny", "--hw", str(path)]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_validate_prints_a_table_json_and_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    only = ["--only", "systolic convolution", "--only", "A100 GELU, first half"]
    assert run(validate, "hardware", *only) == 0
    out = capsys.readouterr().out
    assert "systolic convolution" in out and "exact" in out and "5.5 % LLMCompass" in out
    assert run(validate, "hardware", "--json", *only) == 0
    rows = json.loads(capsys.readouterr().out)["comparisons"]
    assert [(r["name"], r["within_bound"], r["meets_goal"]) for r in rows] == [
        ("systolic convolution", True, True),
        ("A100 GELU, first half", True, True),
    ]
    assert run(validate, "hardware", "--markdown", *only) == 0
    assert capsys.readouterr().out.startswith("# Validation of the hardware models")


def test_validate_leaves_with_one_when_a_figure_is_worse(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from hw_models.validation import registry as validation

    worse = validation.Comparison("x", "r", 3, 5.2, "%", 5.0, None, "", "nothing")
    monkeypatch.setattr(validation, "run", lambda names: [worse])
    assert run(validate, "hardware") == 1
    assert "worse than the recorded 5" in capsys.readouterr().out


def test_validate_knows_its_subjects() -> None:
    with pytest.raises(DseError, match="did you mean 'hardware'"):
        run(validate, "hardwear")


def test_a_fit_that_misses_unseen_rows_and_wide_formats_are_told_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Times without any order in the sizes: no two numbers follow them."""
    rows = ["op,dtype,latency_s,m,n,k"]
    rows += [f"gemm,fp32,{1e-3 if i % 2 else 1e-6},{64 * (i // 2 + 1)},512,512" for i in range(8)]
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    file = tmp_path / "mine.toml"
    assert main(["calibrate", "--measured", str(tmp_path / "mine.csv"), "--device", "l4", "--out", str(file)]) == 0
    told = capsys.readouterr().err
    assert "careful: product kernels were off by" in told and "careful: measured at fp32" in told
    assert main(["evaluate", "--workload", "bert-tiny", "--hw", str(file), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert any("by your calibration, measured at fp32" in line for line in answer["expected_error"])
    assert any("by your calibration, product kernels were off by" in line for line in answer["expected_error"])
