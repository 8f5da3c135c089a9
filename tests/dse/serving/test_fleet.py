"""Fleets for a log of requests: exact on their grid, against a plain enumeration, and from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from dse.cli import main
from dse.serving import fleet
from dse.serving.requests import read_requests
from dse.serving.simulation import BLOCK_TOKENS, run

KNOBS = {"tp": (1, 2), "replicas": (1, 2, 4), "max_sequences": (8, 64), "weight_bits": (8,)}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    lines = ["arrival_s,prompt_tokens,output_tokens"]
    for t in np.cumsum(rng.exponential(0.05, 300)):
        lines.append(f"{t:.4f},{rng.integers(100, 2000)},{rng.integers(10, 200)}")
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_front_is_what_an_enumeration_gives(log: Path) -> None:
    requests = read_requests(log)
    place = fleet.Place(400.0)
    objectives = [("goodput_per_s", True), ("gco2e_per_request", False)]
    bounds = [("goodput_share", ">=", 0.5)]
    found = fleet.search(
        requests, "llama3-8b", ["h100", "l40s"], place, objectives=objectives, knobs=KNOBS, ttft_s=0.5, tpot_s=0.05, bounds=bounds
    )
    rows = []
    for setup in fleet.setups("llama3-8b", ["h100", "l40s"], KNOBS):
        rows.append((setup, fleet.figures(run(setup, requests.requests(BLOCK_TOKENS)), place, 0.5, 0.05)))
    kept = [(s, f) for s, f in rows if f["goodput_share"] >= 0.5]
    best = {
        (s.hw, s.parallel.tp, s.max_sequences, s.replicas)
        for s, f in kept
        if not any(
            g["goodput_per_s"] >= f["goodput_per_s"]
            and g["gco2e_per_request"] <= f["gco2e_per_request"]
            and (g["goodput_per_s"], g["gco2e_per_request"]) != (f["goodput_per_s"], f["gco2e_per_request"])
            for _, g in kept
        )
    }
    assert {(r["hw"], r["tp"], r["max_sequences"], r["replicas"]) for r in found["front"]} == best
    assert found["fleets"] == len(rows) == 24 and found["saved"] >= 0
    assert found["least_grams"]["gco2e_per_request"] <= found["rule_of_thumb"]["gco2e_per_request"]


def test_command(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "--workload", str(log), "--model", "llama3-8b", "--hw", "h100", "--json", "--vary", "tp=1", "--vary", "replicas=1,2"]
    words += ["--objective", "max:goodput_per_s", "--objective", "min:gco2e_per_request", "--constraint", "ttft_ms<=1000"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["front"] and all(row["goodput_share"] >= 0.95 for row in answer["front"])
    for wrong, message in (
        (["--objective", "min:gcoe"], "unknown"),
        (["--constraint", "ttft_ms"], "must be METRIC<=VALUE"),
        (["--vary", "tp=x"], "must be NAME=V,V"),
        (["--vary", "tq=1"], "did you mean 'tp'"),
    ):
        assert main([*words, *wrong]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert main(["search", "--workload", str(log), "--hw", "h100"]) == 2
    assert "model is missing" in capsys.readouterr().err
