"""``dse carbon`` through a small parser: exit codes, JSON on stdout, logs on stderr."""

import argparse
import csv
import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest

import carbon as package
from carbon import CarbonError
from dse.commands import carbon

REFERENCE = Path(__file__).parent.parent / "reference" / "carbon"
SPEC = """
name = "edge"
[device]
area_mm2 = [10, 12, 15]
node_nm = 22
memory_type = "lpddr4"
memory_gb = 2
[use]
grid = "DEU"
power_w = 2
duty_cycle = 0.3
lifetime_years = 3
"""


def call(*words):
    parser = argparse.ArgumentParser(prog="dse")
    carbon.register(parser.add_subparsers(dest="command"))
    args = parser.parse_args(["carbon", *words])
    return args.run(args)


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "edge.toml"
    path.write_text(SPEC, encoding="utf-8")
    return str(path)


def test_what_the_command_line_says_of_use(spec, capsys, tmp_path):
    """Hours stand in place of a place, and a total that the file states for its own years is told where others are asked for."""
    assert call("estimate", spec, "--json", "--grid", "eia2022:ERCO") == 0
    texas = json.loads(capsys.readouterr().out)
    path = tmp_path / "trace.toml"
    path.write_text(SPEC.replace('grid = "DEU"', 'trace = "eia2022:ERCO"') + '[functional_unit]\nname = "page"\ntotal = 1e6\n')
    assert call("estimate", str(path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["operational_kgco2e"] == texas["operational_kgco2e"]
    assert call("estimate", str(path), "--lifetime-years", "6") == 0
    assert "total of functional_unit stays" in " ".join(capsys.readouterr().out.split())
    assert call("estimate", str(path), "--lifetime-years", "3") == 0
    assert "stays" not in capsys.readouterr().out


def test_estimate(spec, capsys):
    assert call("estimate", spec) == 0
    assert "p95" in capsys.readouterr().out
    assert call("estimate", spec, "--json", "--draws", "500", "--seed", "3") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["profile"] == "default"
    assert data["total_kgco2e"] == pytest.approx(data["embodied_kgco2e"] + data["operational_kgco2e"])
    assert data["operation"]["feasible"] is True
    assert call("estimate", spec, "--json", "--profile", "act2") == 0
    assert json.loads(capsys.readouterr().out)["profile"] == "act2"
    with pytest.raises(CarbonError, match="act2"):
        call("estimate", spec, "--profile", "act1")


def test_batch(tmp_path, capsys):
    out = tmp_path / "out.csv"
    source = str(REFERENCE / "ref_act_op.csv")
    assert call("batch", source, "--kind", "operation", "--profile", "act2", "--out", str(out)) == 0
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "8 rows" in seen.err
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert float(rows[0]["total_kgco2e"]) == pytest.approx(333.108, rel=1e-12)
    assert call("batch", source, "--kind", "operation", "--profile", "act2") == 0
    assert capsys.readouterr().out == out.read_text(encoding="utf-8")
    with pytest.raises(CarbonError, match="cannot be written"):
        call("batch", source, "--kind", "operation", "--profile", "act2", "--out", str(tmp_path / "no" / "out.csv"))
    with pytest.raises(SystemExit) as stopped:
        call("batch", source, "--kind", "dye")
    assert stopped.value.code == 2


def test_explain(spec, capsys):
    assert call("explain", spec) == 0
    text = capsys.readouterr().out
    for word in ("fab.22nm.epa_kwh_cm2", "source:", "vintage:", "licence:", "Our World in Data"):
        assert word in text
    assert call("explain", "--json", "--match", "hbm") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["packaging.hbm_kgco2e_per_gb"]["value"] == 0.861
    with pytest.raises(CarbonError, match="nearest"):
        call("explain", "--match", "unobtainium")


def test_grids(tmp_path, capsys):
    assert call("grids", "taiwan") == 0
    assert "act2022:taiwan" in capsys.readouterr().out
    assert call("grids", "--code", "taiwan", "--role", "fab", "--json") == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert (one["value"], one["licence"]) == (583.0, "MIT")
    with pytest.raises(CarbonError, match="no grid"):
        call("grids", "atlantis")
    path = tmp_path / "moer.csv"
    path.write_text("point_time,value\n2024-05-01T00:00:00Z,1000\n2024-05-01T01:00:00Z,1100\n", encoding="utf-8")
    assert call("grids", "--import", str(path), "--json") == 0
    seen = capsys.readouterr()
    (one,) = json.loads(seen.out)
    assert one["kind"] == "marginal, combustion"
    assert "warning" in seen.err


def test_best_hours(capsys):
    assert call("grids", "--trace", "CISO", "--best-hours", "4", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    # mean days are smoother than days: less to gain than the 32 % of the hourly year
    assert 0.2 < data["saving"] < 0.3209
    assert call("grids", "--trace", "CISO", "--best-hours", "4") == 0
    assert "a bound" in capsys.readouterr().out
    assert call("grids", "--trace", "CISO") == 0
    assert "256.2" in capsys.readouterr().out
    with pytest.raises(CarbonError, match="--import"):
        call("grids", "--best-hours", "4")


def test_validate(tmp_path, capsys):
    picture = tmp_path / "crossover.svg"
    assert call("validate", "--json", "--reference", str(REFERENCE), "--plot", str(picture)) == 0
    data = json.loads(capsys.readouterr().out)
    assert all(one["passed"] is not False for one in data["checks"])
    assert xml.etree.ElementTree.parse(picture).getroot().tag.endswith("svg")  # noqa: S314
    assert call("validate", "--reference", str(REFERENCE)) == 0
    assert "holds" in capsys.readouterr().out


def test_without_a_command_it_is_used_wrongly(capsys):
    assert call() == 2
    assert "estimate" in capsys.readouterr().err


def test_robustness_of_a_finished_run(tmp_path, capsys):
    """A small search of the project itself; whatever it finds, the shares are shares and the JSON is finite."""
    dse = pytest.importorskip("dse")
    if not hasattr(dse, "search"):
        pytest.skip("no search in this installation")
    run = tmp_path / "run"
    dse.search("bert", objective="hardware", out=str(run))
    capsys.readouterr()
    assert call("robustness", str(run), "--draws", "200", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert 0.0 <= data["whole_front_holds"] <= 1.0
    assert 0.0 <= data["pair_order_holds"] <= 1.0
    assert data["designs"]
    for row in data["designs"]:
        assert row["total_kgco2e"]["p5"] <= row["total_kgco2e"]["p50"] <= row["total_kgco2e"]["p95"]
    assert call("robustness", str(run), "--draws", "50") == 0
    assert "keep their order" in capsys.readouterr().out


def test_registering_loads_nothing_heavy():
    code = (
        "import argparse, sys\n"
        "from dse.commands import carbon\n"
        "carbon.register(argparse.ArgumentParser().add_subparsers())\n"
        "assert not {'numpy', 'carbon.analysis.estimate', 'torch', 'pandas'} & set(sys.modules), sorted(sys.modules)\n"
    )
    root = Path(package.__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
