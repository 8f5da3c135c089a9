"""Columns of lists of designs, and names of --set and --vary, that are fields of a user's accelerator file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

import dse
from dse import cli
from dse.analysis.cautions import cautions

FILE = """
name = "npu"
cores = 2
frequency_hz = 6.25e8
node_nm = 22
[array]
rows = 16
columns = 32
kind = "systolic_pipelined"
dataflow = "ws"
[vector]
lanes = 64
[[levels]]
name = "sram"
mib = 2
words_per_cycle = 64
[[levels]]
name = "dram"
kind = "lpddr4"
gib = 1
words_per_cycle = 16
"""


@pytest.fixture
def npu(tmp_path: Path) -> Path:
    path = tmp_path / "npu.toml"
    path.write_text(FILE)
    return path


def evaluated(capsys: pytest.CaptureFixture[str], npu: Path, *settings: str) -> float:
    """Latency of one design by --set."""
    options = [word for setting in settings for word in ("--set", setting)]
    assert cli.main(["evaluate", "--workload", "bert-base", "--hw", str(npu), "--json", *options]) == 0
    return float(json.loads(capsys.readouterr().out)["latency_s"])


@pytest.mark.parametrize("listed", [False, True])
def test_columns_are_what_set_takes(capsys: pytest.CaptureFixture[str], npu: Path, tmp_path: Path, listed: bool) -> None:
    if listed:
        npu.write_text(FILE.replace("mib = 2", "mib = [1, 2]").replace("cores = 2", "cores = [1, 2]"))
    (tmp_path / "d.csv").write_text("cores,sram_mib,lanes,dram_shared_bus\n2,1,64,true\n8,2,128,true\n")
    out = tmp_path / "o.csv"
    words = ["evaluate", "--workload", "bert-base", "--hw", str(npu), "--designs", str(tmp_path / "d.csv"), "--out", str(out)]
    assert cli.main(words) == 0
    capsys.readouterr()
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["cores"], row["sram_mib"], row["lanes"]) for row in rows] == [("2", "1", "64"), ("8", "2", "128")]
    npu.write_text(FILE)
    for row in rows:
        one = evaluated(capsys, npu, *(f"{name}={row[name]}" for name in ("cores", "sram_mib", "lanes", "dram_shared_bus")))
        assert float(row["latency_s"]) == pytest.approx(one, rel=1e-12)


def test_columns_of_products(capsys: pytest.CaptureFixture[str], npu: Path, tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("m,n,k,cores,sram_mib\n512,512,512,1,2\n512,512,512,4,2\n")
    words = ["evaluate", "--hw", str(npu), "--gemms", str(tmp_path / "g.csv"), "--out", str(tmp_path / "o.csv")]
    assert cli.main(words) == 0
    one, four = (float(row["latency_s"]) for row in csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    (tmp_path / "g.csv").write_text("m,n,k\n512,512,512\n")
    assert cli.main([*words, "--set", "cores=4", "--set", "sram_mib=2"]) == 0
    capsys.readouterr()
    (alone,) = csv.DictReader((tmp_path / "o.csv").read_text().splitlines())
    assert four == pytest.approx(float(alone["latency_s"]), rel=1e-12)
    assert four < one


def test_two_columns_of_one_knob(capsys: pytest.CaptureFixture[str], npu: Path, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("sram_mib,sram_kib\n1,1024\n")
    words = [
        "evaluate",
        "--workload",
        "bert-base",
        "--hw",
        str(npu),
        "--designs",
        str(tmp_path / "d.csv"),
        "--out",
        str(tmp_path / "o.csv"),
    ]
    assert cli.main(words) == 2
    assert "sram_kib" in capsys.readouterr().err


def test_a_bare_name_of_two_tables_is_told(capsys: pytest.CaptureFixture[str], npu: Path) -> None:
    npu.write_text(FILE + "[gather]\nlanes = 2\n")
    assert cli.main(["evaluate", "--workload", "bert-base", "--hw", str(npu), "--set", "lanes=32"]) == 2
    assert "did you mean 'vector_lanes' or 'gather_lanes'?" in capsys.readouterr().err


def test_a_shared_bus_is_slower(capsys: pytest.CaptureFixture[str], npu: Path) -> None:
    """Times of reads and writes add where they take turns, so that no design is faster for it."""
    assert evaluated(capsys, npu, "dram_shared_bus=true") >= evaluated(capsys, npu, "dram_shared_bus=false")
    path = npu.parent / "own.toml"
    assert cli.main(["init", "accelerator", str(path)]) == 0
    assert path.read_text().count("shared_bus = false") == 3


def test_cores_alone_are_told(npu: Path, tmp_path: Path) -> None:
    """A search over cores says which lanes and words stayed; one in which they vary too has nothing to say."""
    told = []
    for number, more in enumerate(({}, {"lanes": [64, 256], "sram_words_per_cycle": [64, 256]})):
        run = dse.search("bert-base", "hardware", hw=str(npu), vary={"cores": [1, 4], **more}, out=str(tmp_path / str(number)))
        lines = cautions(run, run.designs[0])
        told.append([line for line in lines if "waits for what stays as it is" in line])
    assert "sram_words_per_cycle" in told[0][0]
    assert told[1] == []
