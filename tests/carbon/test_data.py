"""The data files: provenance on every row, numbers that are numbers, ranges that hold their value."""

import csv
import math
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

import carbon
from carbon.analysis import report
from carbon.factors import tables as factors

DATA = resources.files("carbon").joinpath("data")
TABLES = sorted(item.name for item in DATA.iterdir() if item.name.endswith(".csv"))
ROOT = Path(carbon.__file__).resolve().parent.parent


@pytest.mark.parametrize("name", TABLES)
def test_every_row_has_source_vintage_and_licence(name):
    rows = list(csv.DictReader(DATA.joinpath(name).read_text(encoding="utf-8").splitlines()))
    assert rows
    dated = {"vintage", "year"} & set(rows[0])
    plain = {"grid_aliases.csv", "memory_types.csv"}  # spellings and pointers to factors, not factors
    for row in rows:
        assert None not in row, f"{name}: a row with too many cells"
        assert all(value is not None for value in row.values()), f"{name}: a row with too few cells"
        if name != "memory_types.csv":
            assert row["source"], row
            assert row["licence"], row
        if name not in plain:
            assert dated, f"{name} has no vintage"
            assert any(row[column] for column in dated) or "year" in row["note"], row


@pytest.mark.parametrize("name", ["ecochip_cases.toml", "validation.toml"])
def test_every_case_has_source_vintage_and_licence(name):
    content = tomllib.loads(DATA.joinpath(name).read_text(encoding="utf-8"))
    for item in next(iter(content.values())):
        assert item["source"], item["name"]
        assert item["vintage"], item["name"]
        assert item["licence"], item["name"]


def test_factors_are_numbers_within_their_ranges():
    listed = report.all_factors()
    assert len(listed) > 200
    for key, factor in listed.items():
        assert math.isfinite(factor.value), key
        assert factor.unit, key
        if factor.low is not None or factor.high is not None:
            assert factor.low <= factor.value <= factor.high, key


def test_fab_tables():
    """ACT's 97 % is the mean of 95 and 99; the known contradictions of the sources are marked."""
    for node in factors.nodes("gpa_97_kgco2e_cm2"):
        gases = [factors.fab(f"gpa_{level}_kgco2e_cm2", node).value for level in (95, 97, 99)]
        assert gases[1] == pytest.approx((gases[0] + gases[2]) / 2.0, rel=1e-12)
    assert 22.0 in factors.nodes("epa_kwh_cm2")
    assert "ACT v1" in factors.fab("epa_kwh_cm2", 22).source
    assert "20 nm value" in factors.fab("cpa_ecochip_kgco2e_cm2", 22).note
    assert factors.fab("cpa_ecochip_kgco2e_cm2", 22).value == pytest.approx(0.82 * 1.2 + 0.19 + 0.5)
    for node in factors.nodes("epa_feol_kwh_cm2"):
        names = ("epa_feol_kwh_cm2", "epa_mol_kwh_cm2", "epa_beol_kwh_cm2")
        parts = sum(factors.fab(quantity, node).value for quantity in names)
        if abs(parts - factors.fab("epa_kwh_cm2", node).value) > 1e-9:
            assert "use as shares only" in factors.fab("epa_feol_kwh_cm2", node).note


@pytest.mark.parametrize("text", ["7", "7nm", " 7 nm", 7, 7.0, "7NM"])
def test_nodes_are_read(text):
    assert factors.parse_node(text) == 7.0


def test_import_is_light_and_alone():
    """`import carbon` loads no numpy and under 0.2 s; its modules import no other room and nothing heavy."""
    code = (
        "import sys, time\n"
        "start = time.process_time()\n"
        "import carbon\n"
        "spent = time.process_time() - start\n"
        "assert 'numpy' not in sys.modules\n"
        "import importlib\n"
        "for name in carbon.__all__:\n"
        "    getattr(carbon, name)\n"
        "heavy = {'torch', 'pandas', 'plotly', 'scipy', 'dse', 'hw_models', 'workloads', 'dse_kernels'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "print(spent)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.2


def test_every_public_name_loads():
    for name in carbon.__all__:
        assert getattr(carbon, name) is not None
    assert dir(carbon) == sorted(carbon.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = carbon.nothing


def test_values_of_nodes_one_and_many():
    one, many = factors.fab_values("epa_kwh_cm2", 7), factors.fab_values("epa_kwh_cm2", np.array([[7, 28], [14, 7]]))
    assert isinstance(one, float)
    assert many.shape == (2, 2)
    assert many[0, 0] == many[1, 1] == one == factors.fab("epa_kwh_cm2", 7).value != many[0, 1]
    assert [f.value for f in factors.fab_factors("epa_kwh_cm2", np.array([7, 28, 7]))] == [one, many[0, 1]]
    assert [f.value for f in factors.fab_factors("epa_kwh_cm2", 7)] == [one]
