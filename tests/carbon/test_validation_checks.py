"""Comparisons that `dse validate carbon` prints can fail, and rows for other tools say what was spent."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from carbon.analysis import batch, inventory, validation
from carbon.factors import grid, grid_files, tables
from carbon.operational import computing


def test_a_comparison_sees_its_worst_pair() -> None:
    """Relative errors where something is expected, absolute ones where nothing is."""
    assert validation._worst([(1.1, 1.0), (2.0, 2.0)]) == (pytest.approx(0.1), 2)
    assert validation._worst([(0.5, 0.0), (1.1, 1.0), (-3.0, -2.0)]) == (0.5, 3)
    assert validation._worst([]) == (0.0, 0)
    assert validation._exact("x", [(1.0, 1.0)], 1e-12).passed
    assert not validation._exact("x", [(1.0 + 1e-9, 1.0)], 1e-12).passed


def test_a_factor_of_one_node_is_a_number() -> None:
    one, two = tables.fab_values("epa_kwh_cm2", 22), tables.fab_values("epa_kwh_cm2", [22, 7])
    assert type(one) is float
    assert two.tolist() == [one, tables.fab_values("epa_kwh_cm2", 7)]


def test_codecarbon_is_told_the_power_of_each_part() -> None:
    """Half an hour: twice the watt-hours."""
    spent = computing.Spent(1800.0, 0.0, 0.010, 0.002, 0.030, 0.042, "told")
    row = inventory.codecarbon_row("x", computing.emissions(spent, grid.lookup("france")), when=datetime.datetime(2026, 1, 1))
    assert [row[name] for name in ("cpu_power", "ram_power", "gpu_power")] == pytest.approx([20.0, 4.0, 60.0])


@pytest.mark.parametrize("words", ["LCA", "Life cycle", "life-cycle", "Lifecycle"])
def test_the_life_cycle_column_of_a_grid_file_is_taken_however_it_is_spelled(words: str) -> None:
    header = ["Datetime (UTC)", "Carbon Intensity gCO2eq/kWh (direct)", f"Carbon Intensity gCO2eq/kWh ({words})"]
    rows = [[f"2024-01-01 {hour:02}:00", "100", "150"] for hour in range(24)]
    found = grid_files._electricity_maps(header, rows, None)
    assert set(found.trace.gco2e_per_kwh.tolist()) == {150.0}


def test_requests_of_a_zone_are_those_at_its_intensity(tmp_path: Path) -> None:
    """Row by row, in their order: 'WOR' is the world, 'FRA' France (codes of ecologits)."""
    at = {zone: grid.lookup(f"ecologits:{zone}").gco2e_per_kwh / 1000.0 for zone in ("WOR", "FRA")}
    (tmp_path / "zones.csv").write_text("active_b,total_b,out_tokens,zone\n7,7,100,WOR\n7,7,100,FRA\n", encoding="utf-8")
    rows = "".join(f"7,7,100,{mix!r}\n" for mix in at.values())
    (tmp_path / "mixes.csv").write_text(f"active_b,total_b,out_tokens,mix_gwp_kg_kwh\n{rows}", encoding="utf-8")
    zones, mixes = (batch.run(tmp_path / name, "llm", "default") for name in ("zones.csv", "mixes.csv"))
    assert zones.added == mixes.added
    assert any(values[0] != values[1] for values in zones.added.values())
