"""Our own rows: what the page says of them is what users get, and the command prints them all."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import pytest

from dse import cli
from hw_models.costs.gpu_kernels.products import sustained_clock
from hw_models.devices.gpus import gpu_sheet
from hw_models.validation import measured_gpu
from hw_models.validation.registry import reference_rows

DOCS = Path(__file__).resolve().parents[3] / "docs" / "models"


def test_the_page_holds_the_models_in_a_graph() -> None:
    chosen = [f for f in measured_gpu.figures() if f.what in ("encode", "prefill", "decode") and f.method == "graph"]
    assert len(chosen) == 2 * 15
    assert measured_gpu.markdown(chosen) in (DOCS / "gpu.md").read_text(encoding="utf-8")


def test_rows_are_whole_and_name_where_they_come_from() -> None:
    rows = reference_rows(measured_gpu.FILE)
    assert {row["what"] for row in rows} == set(measured_gpu.KINDS)
    assert all(row["card"] == "NVIDIA H100 80GB HBM3" and row["driver"] and row["torch"] and row["date"] for row in rows)
    # Power times the time of a call is its energy: the counter, the clock and the count of calls agree.
    held = [row for row in rows if row["energy_j"]]
    for row in held:
        assert float(row["power_w"]) * float(row["sustained_us"]) * 1e-6 == pytest.approx(float(row["energy_j"]), rel=1e-3)
        assert 70 < float(row["power_w"]) < 1.02 * gpu_sheet("h100").tdp_w
    # No product is faster than the tensor cores at the boost clock that was read, or than its weights leave the DRAM.
    for row in rows:
        if row["what"] == "product":
            m, n, k = (int(row[name]) for name in "mnk")
            assert float(row["latency_us"]) > 1e6 * m * n * k / (132 * 4096 / 2 * 1.98e9) * 0.999
            if n * k * 2 * 6 > 2 * 50e6:
                assert float(row["latency_us"]) > 1e6 * 2 * n * k / 3.36e12
    twice = [abs(float(r["latency_us"]) / float(r["first_us"]) - 1) for r in rows if r["first_us"] and r["method"].startswith("graph")]
    assert len(twice) > 90
    assert statistics.median(twice) < 0.015


def test_figures_are_what_the_commands_give(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "--workload", "bert-large", "--hw", "h100", "--json"]
    for name, value in {"sequence": 128, "batch": 8, "weight_bits": 16, "activation_bits": 16}.items():
        words += ["--set", f"{name}={value}"]
    assert cli.main(words) == 0
    metrics = json.loads(capsys.readouterr().out)
    time, energy = (f for f in measured_gpu.figures() if f.shape == "bert-large, 8 x 128" and f.method == "graph")
    assert metrics["latency_s"] == pytest.approx(1e-6 * time.ours, rel=1e-12)
    assert metrics["energy_j"] == pytest.approx(energy.ours, rel=1e-12)
    (tmp_path / "in.csv").write_text("m,n,k,weight_bits,activation_bits\n200,6144,4096,16,16\n")
    assert cli.main(["evaluate", "--hw", "h100", "--gemms", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out.csv")]) == 0
    row = next(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    product = next(f for f in measured_gpu.figures() if f.shape == "200 x 6144 x 4096")
    assert float(row["latency_s"]) == pytest.approx(1e-6 * product.ours, rel=1e-9)


def test_the_command_prints_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "measured", "--only", "idle", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows[0]["method"] == "no context" and all(row["unit"] == "W" for row in rows)
    assert cli.main(["validate", "measured", "--only", "decode attention", "--markdown"]) == 0
    assert capsys.readouterr().out.count("decode attention") == 12
    assert cli.main(["validate", "measured", "--only", "encoder"]) == 2
    assert "did you mean 'encode'" in capsys.readouterr().err
    assert 1600e6 < sustained_clock(gpu_sheet("h100")) * 1830e6 < 1650e6  # what docs/models/gpu.md says of it
