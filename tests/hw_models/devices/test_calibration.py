"""Calibration: it finds known overheads again, judges on rows it did not see, and says what is wrong with a file."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from hw_models.costs.collectives import Link, ring_all_reduce
from hw_models.devices import library as devices
from hw_models.devices.calibration import (
    GemmOverheads,
    Measurements,
    VectorOverheads,
    calibrate,
    check_one_format,
    fit,
    fit_link,
    mean_error,
    parse_measurements,
    predictor,
    read_measurements,
    relative_errors,
)
from hw_models.errors import HardwareError

LLMCOMPASS = Path(__file__).parents[2] / "reference" / "hardware" / "measured" / "llmcompass_a100.csv"
A100 = devices.load("a100").gpu_hardware()
GOALS = {"gemm": 0.109, "softmax": 0.094, "layernorm": 0.087, "gelu": 0.055}  # LLMCompass's own figures


def measurements(operator: str, dims: np.ndarray, latency: np.ndarray | None = None) -> Measurements:
    empty = np.ones(len(dims)) if latency is None else latency
    return Measurements(operator, "fp16", dims.astype(float), np.ones(len(dims)), empty)


def with_latency(rows: Measurements, latency: np.ndarray) -> Measurements:
    return Measurements(rows.operator, rows.dtype, rows.dims, rows.batch, latency)


def test_measured_operators_of_the_a100_held_out() -> None:
    """The bar of the project: each half fitted, the other judged, both below what LLMCompass reports."""
    found, passed_over = read_measurements(LLMCOMPASS)
    assert {m.operator: len(m) for m in found} == {"gemm": 20, "softmax": 22, "layernorm": 22, "gelu": 20}
    assert len(passed_over) == 1 and "24 row(s)" in passed_over[0]
    for report in calibrate(A100, found):
        assert max(report.held_out) < GOALS[report.operator], report
        assert report.error_all <= max(report.held_out)


def test_the_order_of_rows_of_one_size_does_not_decide() -> None:
    """Softmax and layernorm have pairs of rows of one size; whichever comes first, both halves stay below the goals."""
    found, _ = read_measurements(LLMCOMPASS)
    for rows in found:
        if rows.operator in ("softmax", "layernorm"):
            for key in (rows.dims[:, 0], -rows.dims[:, 0]):
                ordered = rows.take(np.argsort(key, kind="stable"))
                report = calibrate(A100, [ordered])[0]
                assert max(report.held_out) < GOALS[rows.operator]


def test_known_gemm_overheads_are_found_again() -> None:
    truth = GemmOverheads(7e-6, 0.8, 0.7, 0.45, 9.0)
    rng = np.random.default_rng(2)
    shapes = measurements("gemm", np.exp(rng.uniform(3, 9.5, (200, 3))).round())
    rows = with_latency(shapes, predictor(A100, shapes)(truth))
    found = fit(A100, rows)
    assert mean_error(A100, rows, found) < 1e-3
    # Every overhead bounds some of the shapes, so each can be told; the weak pull accounts for a per cent.
    np.testing.assert_allclose(astuple(found), astuple(truth), rtol=0.05)


@pytest.mark.parametrize("operator", ["softmax", "gelu"])
def test_known_vector_overheads_are_found_again(operator: str) -> None:
    truth = VectorOverheads(4e-5, 3e-5, 0.6)
    columns = 2 if operator == "softmax" else 1
    rng = np.random.default_rng(3)
    dims = np.exp(rng.uniform(4, 9 if columns == 2 else 18, (60, columns))).round()
    shapes = measurements(operator, dims)
    rows = with_latency(shapes, predictor(A100, shapes)(truth))
    np.testing.assert_allclose(astuple(fit(A100, rows)), astuple(truth), rtol=0.02)


def test_noise_does_not_bias_the_fit() -> None:
    truth = VectorOverheads(1e-6, 2e-5, 0.7)
    rng = np.random.default_rng(4)
    shapes = measurements("gelu", np.exp(rng.uniform(8, 19, (200, 1))).round())
    rows = with_latency(shapes, predictor(A100, shapes)(truth) * np.exp(rng.normal(0, 0.1, 200)))
    report = calibrate(A100, [rows])[0]
    assert report.overheads.launch_s == pytest.approx(2e-5, rel=0.05)
    assert report.overheads.dram_efficiency == pytest.approx(0.7, rel=0.05)
    assert report.held_out == pytest.approx((0.08, 0.08), abs=0.02)  # the mean of |noise| of 10 % is 8 %


def test_a_fit_is_deterministic() -> None:
    found, _ = read_measurements(LLMCOMPASS)
    assert [fit(A100, m) for m in found] == [fit(A100, m) for m in found]


def test_halves_are_dealt_by_size() -> None:
    rows = measurements("gelu", np.array([[5], [1], [4], [2], [3]]), np.arange(1.0, 6.0))
    first, second = rows.halves()
    assert first.dims[:, 0].tolist() == [1, 3, 5]
    assert second.dims[:, 0].tolist() == [2, 4]
    assert first.latency_s.tolist() == [2, 5, 1]


def test_link_is_found_again() -> None:
    truth = Link(3e-6, 2e11, fixed_s=2e-5)
    size = np.geomspace(1e3, 1e8, 60).round()
    devices_ = np.tile([2, 4, 8], 20)
    link = fit_link(size, devices_, ring_all_reduce(size, devices_, truth).latency_s)
    assert (link.latency_s, link.bandwidth_bytes_per_s, link.fixed_s) == pytest.approx((3e-6, 2e11, 2e-5), rel=1e-3)


def test_relative_errors() -> None:
    assert relative_errors([1.1, 0.5], [1.0, 1.0]).tolist() == pytest.approx([0.1, 0.5])


HEAD = "op,dtype,m,n,k,rows,columns,elements,latency_s\n"


def test_every_form_of_row_is_read() -> None:
    text = HEAD + "gemm,fp16,64,128,256,,,,1e-5\nsoftmax,,,,,8,16,,2e-5\nGELU,bf16,,,,,,4096,3e-5\nlayer_norm,,,,,8,16,,1e-5\n"
    found, passed = parse_measurements(text, where="t")
    assert passed == []
    assert [(m.operator, m.dtype, m.dims.tolist(), m.latency_s.tolist()) for m in found] == [
        ("gemm", "fp16", [[64, 128, 256]], [1e-5]),
        ("softmax", "fp16", [[8, 16]], [2e-5]),
        ("gelu", "bf16", [[4096]], [3e-5]),
        ("layernorm", "fp16", [[8, 16]], [1e-5]),
    ]
    batched, _ = parse_measurements("op,batch,m,n,k,latency_s\nmatmul,12,64,64,64,1e-5\n", where="t")
    assert batched[0].batch.tolist() == [12]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "t: column op is missing"),
        ("op,m\ngemm,1\n", "column latency_s is missing: the header has op, m"),
        (HEAD + "gemmm,,1,1,1,,,,1\n", "t, line 2: unknown op 'gemmm'.*did you mean 'gemm'"),
        (HEAD + "gemm,,1,x,1,,,,1\n", "t, line 2: n is 'x'"),
        (HEAD + "gemm,,1,1,,,,,1\n", "t, line 2: k is ''"),
        (HEAD + "gemm,,1,1,1.5,,,,1\n", "k is '1.5': it must be a whole number from 1"),
        (HEAD + "gemm,,1,1,1,,,,-1\n", "latency_s is '-1': it must be a positive number of seconds"),
        (HEAD + "gemm,,1,1,1,,,,nan\n", "latency_s is 'nan'"),
        ("m,n,k,latency_s,op\n1,1,1,1\n", "t, line 2: unknown op ''"),
        (HEAD + "gemm,,,,,,,,1\n", "no row has an operator with dimensions"),
    ],
)
def test_bad_files_are_named(text: str, sentence: str) -> None:
    with pytest.raises(HardwareError, match=sentence):
        parse_measurements(text, where="t")


def test_too_few_rows_and_mixed_formats() -> None:
    found, _ = parse_measurements(HEAD + "gemm,,1,1,1,,,,1\n" * 3, where="t")
    with pytest.raises(HardwareError, match=r"operator gemm \(fp16\) has 3 measured rows.*at least 4"):
        calibrate(A100, found)
    with pytest.raises(HardwareError, match="a fit needs at least 2"):
        fit(A100, found[0].take(slice(0, 1)))
    mixed, _ = parse_measurements(HEAD + "gemm,fp16,1,1,1,,,,1\ngemm,bf16,1,1,1,,,,1\n", where="t")
    with pytest.raises(HardwareError, match="gemm has rows in fp16, bf16"):
        check_one_format(mixed, where="t")
    with pytest.raises(HardwareError, match="does not exist"):
        read_measurements("nowhere.csv")
    other, _ = parse_measurements(HEAD + "gemm,fp99,1,1,1,,,,1\n" * 4, where="t")
    with pytest.raises(HardwareError, match="dtype of device a100 'fp99'"):
        calibrate(A100, other)
