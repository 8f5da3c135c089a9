"""``dse carbon payback``: against the two machines' emissions added up day by day, and what it refuses."""

import json
from pathlib import Path

import pytest

from carbon.analysis import estimate
from dse.cli import main

MACHINE = """
name = "{name}"
[device]
area_mm2 = {area}
node_nm = 7
[use]
gco2e_per_kwh = {grid}
kind = "average, lifecycle"
source = "test"
power_w = {power}
duty_cycle = 0.5
idle_w = 20
lifetime_years = {years}
pue = {pue}
"""


def machine(path: Path, **values: object) -> str:
    path.write_text(MACHINE.format(**{"name": path.stem, "area": 300, "grid": 200, "years": 4, "pue": 1.0, "power": 100, **values}))
    return str(path)


@pytest.mark.parametrize(("replaces", "pue"), [(1.0, 1.0), (2.5, 1.4)])
def test_it_is_the_day_on_which_the_sums_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str], replaces: float, pue: float) -> None:
    old = machine(tmp_path / "old.toml", power=100, pue=pue, years=3)
    new = machine(tmp_path / "new.toml", power=80, area=400)
    assert main(["carbon", "payback", old, new, "--replaces", str(replaces), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kept, bought = 0.0, 1e3 * estimate.estimate(estimate.load(new)).embodied_kgco2e  # the old one's making is spent
    assert told["making_kgco2e"] == pytest.approx(bought / 1e3)
    days = 0
    while kept < bought:
        kept += replaces * pue * (0.5 * 100 + 0.5 * 20) * 24 / 1e3 * 200
        bought += (0.5 * 80 + 0.5 * 20) * 24 / 1e3 * 200
        days += 1
    assert told["payback_years"] == pytest.approx(days / 365.25, abs=1 / 365.25)
    assert told["payback_years_p5"] < told["payback_years"] < told["payback_years_p95"]


def test_never_and_after_its_life_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, thirsty = machine(tmp_path / "old.toml", power=100), machine(tmp_path / "thirsty.toml", power=101)
    assert main(["carbon", "payback", old, thirsty]) == 0
    assert "never pays back" in capsys.readouterr().out
    assert main(["carbon", "payback", old, thirsty, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["payback_years"] is None
    assert main(["carbon", "payback", old, machine(tmp_path / "alike.toml", power=99)]) == 0
    assert "after the end of its 4 years: keep what is there" in capsys.readouterr().out
    assert main(["carbon", "payback", old, machine(tmp_path / "thrifty.toml", power=1)]) == 0
    assert "before the end of its 4 years: replace" in capsys.readouterr().out


def test_places_that_differ_and_no_use_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = machine(tmp_path / "old.toml"), machine(tmp_path / "new.toml", grid=300, power=50)
    assert main(["carbon", "payback", old, new]) == 1
    assert "name one place for both with --grid" in capsys.readouterr().err
    assert main(["carbon", "payback", old, new, "--grid", "poland"]) == 0
    assert "Poland" in capsys.readouterr().out
    assert main(["carbon", "payback", old, new, "--replaces", "0"]) == 2
    bare = tmp_path / "bare.toml"
    bare.write_text("[device]\narea_mm2 = 100\nnode_nm = 7\n")
    assert main(["carbon", "payback", old, str(bare)]) == 1
    assert "has no [use]" in capsys.readouterr().err
