"""Factors, grids and grid files by their rules: between nodes, shares of a mix, times and steps of a file, readings of a meter."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carbon import CarbonError
from carbon.embodied import threedcarbon
from carbon.factors import grid, grid_files, tables
from carbon.factors.values import Values
from carbon.operational import computing, water


def near(value: Any) -> Any:
    return pytest.approx(value, rel=1e-12)


# ---- tables ----


@pytest.mark.parametrize("quantity", ["epa_kwh_cm2", "gpa_97_kgco2e_cm2", "mpa_kgco2e_cm2", "d0_default_per_cm2"])
def test_factors_between_nodes_follow_a_power_law(quantity: str) -> None:
    known = tables.nodes(quantity)
    for a, b in itertools.pairwise(known):
        node = 0.7 * a + 0.3 * b
        if node in tables.nodes("epa_kwh_cm2"):
            continue
        low, high, found = tables.fab(quantity, a), tables.fab(quantity, b), tables.fab(quantity, node)
        share = math.log(node / a) / math.log(b / a)
        for part in ("value", "low", "high"):
            x, y, z = (getattr(one, part) for one in (low, high, found))
            if x is None or y is None:
                assert z is None
            else:
                assert z == near(x ** (1 - share) * y**share if min(x, y) > 0 else x + share * (y - x))
        assert f"between {a:g} and {b:g} nm" in found.note
    oldest = known[-1]
    for node in (oldest + 1, 130.0):
        assert tables.fab(quantity, node).value == tables.fab(quantity, oldest).value
    for node in (known[0] - 0.5, 130.5):
        with pytest.raises(CarbonError, match="node_nm"):
            tables.fab(quantity, node)
    mixed = np.array([[known[0], 90.0], [known[-1], known[0]]])
    found = tables.fab_values(quantity, mixed)
    assert found.tolist() == [[tables.fab(quantity, node).value for node in row] for row in mixed.tolist()]
    assert [one.value for one in tables.fab_factors(quantity, mixed)] == [
        tables.fab(quantity, n).value for n in sorted(set(mixed.ravel().tolist()))
    ]
    with pytest.raises(CarbonError, match=r"element 2"):
        tables.fab_values(quantity, [known[0], 90.0, 131.0])


def test_draws_of_one_node_touch_it_alone() -> None:
    node = np.array([7.0, 14.0, 7.0])
    values = Values({"fab.14nm.epa_kwh_cm2": np.array([[5.0], [6.0]])})
    own = tables.fab("epa_kwh_cm2", 7).value
    assert values.fab("epa_kwh_cm2", node).tolist() == [[own, 5.0, own], [own, 6.0, own]]
    other = np.array([14.0, 14.0])
    assert values.fab("epa_kwh_cm2", other)[1].tolist() == [6.0, 6.0] and values.fab("epa_kwh_cm2", 14) is values.fab("epa_kwh_cm2", "14nm")
    assert set(values.keyed()) == {"fab.7nm.epa_kwh_cm2", "fab.14nm.epa_kwh_cm2"}
    assert values.named("x", 3.0) == 3.0 and values.inputs() == {"x": 3.0}
    values.unused(frozenset())
    with pytest.raises(CarbonError, match="override 'y'"):
        Values({"y": 1.0}).unused(frozenset({"z"}))
    Values({"y": 1.0}).unused(frozenset({"y"}))


def test_several_dies_of_3d_carbon_at_once() -> None:
    areas = np.array([137.3, 71.9, 8000.0])
    found = threedcarbon.die(areas, 7, ci_g_per_kwh=411.3)
    for i, area in enumerate(areas.tolist()):
        one = threedcarbon.die(area, 7, ci_g_per_kwh=411.3)
        assert (found.die_kgco2e[i], found.dies_per_wafer[i], found.package_kgco2e[i]) == (
            near(one.die_kgco2e),
            one.dies_per_wafer,
            near(one.package_kgco2e),
        )
    with pytest.raises(CarbonError, match="none fits the wafer"):
        threedcarbon.die(np.array([137.3, 10_000.0]), 7)


# ---- grids ----


def own(value: float, source: str = "s", year: int | None = 2020) -> grid.GridFactor:
    return grid.custom(value, signal="average", boundary="lifecycle", source=source, year=year, name=f"n{value:g}")


def test_a_mix_weighs_its_places() -> None:
    found = grid.mix([(own(100.0), 0.37), (own(411.3, "t"), 1.9), (own(7.0), 0.0)])
    assert found.gco2e_per_kwh == near((37.0 + 411.3 * 1.9) / 2.27)
    assert (found.year, found.source, found.licence, found.level) == (2020, "s; t", "yours", "mix")
    assert found.code == "mix:custom:n100+custom:n411.3+custom:n7"
    assert grid.mix([(own(100.0), 1), (own(200.0, year=2021), 1)]).year is None
    assert grid.mix([(own(100.0), 0.5)]).gco2e_per_kwh == 100.0
    for shares in ([0.0, 0.0], [-0.5, 1.0], [math.inf, 1.0], [math.nan, 1.0]):
        with pytest.raises(CarbonError, match="share"):
            grid.mix([(own(100.0), shares[0]), (own(7.0), shares[1])])
    with pytest.raises(CarbonError, match="at least one"):
        grid.mix([])


@pytest.mark.parametrize(
    ("text", "value", "source"),
    [
        ("262.67", 262.67, "given as a number"),
        (" 1e2 (my supplier, 2025) ", 100.0, "my supplier, 2025"),
        (".5", 0.5, "given as a number"),
        ("0", 0.0, "given as a number"),
    ],
)
def test_numbers_are_places(text: str, value: float, source: str) -> None:
    found = grid.lookup(text)
    assert (found.gco2e_per_kwh, found.source, str(found.kind)) == (value, source, "average, unstated")
    assert grid.lookup(found) is found and grid.lookup(grid.word_of(found)).gco2e_per_kwh == value


def test_words_lead_back_to_their_factor() -> None:
    for factor in grid.everything()[::17]:
        assert grid.word_of(factor) == factor.code and grid.lookup(factor.code) == factor
        for other in grid.same_place(factor):
            assert other.code.split(":", 1)[1] == factor.code.split(":", 1)[1] and other.kind == factor.kind and other.code != factor.code
    assert grid.same_place(own(5.0)) == []
    assert grid.lookup("taiwan", role="fab").code == grid.lookup("TWN", role="fab").code == "act2022:taiwan"
    assert not grid.lookup("TWN").code.startswith("act") and not grid.lookup("world", role="fab").code.startswith("act2022")
    assert grid.lookup("taiwan", order=grid.ACT_ORDER).code == "act2022:taiwan"


# ---- files of hours ----


@pytest.mark.parametrize("minutes", [5, 15, 30, 60])
def test_steps_of_a_file_make_hours(minutes: int, tmp_path: Path) -> None:
    """Two hours and a half of steps: the last, incomplete hour is refused; whole hours are the means of their steps."""
    start, per = datetime(2024, 5, 1, 3, tzinfo=UTC), 60 // minutes
    values = np.random.default_rng(minutes).uniform(0, 500, 3 * per).tolist()

    def read(count: int, begin: datetime = start) -> grid_files.Imported:
        lines = [f"{(begin + timedelta(minutes=minutes * i)).isoformat()},{values[i]!r}" for i in range(count)]
        (tmp_path / "f.csv").write_text("point_time,value\n" + "\n".join(lines), encoding="utf-8")
        return grid_files.read(tmp_path / "f.csv")

    found = read(3 * per).trace
    assert found.start == start and found.gco2e_per_kwh.tolist() == [
        near(np.mean(values[per * h : per * (h + 1)]) * 0.45359237) for h in range(3)
    ]
    if per > 1:
        with pytest.raises(CarbonError, match=f"row {2 * per + 1}: the last hour is incomplete"):
            read(2 * per + 1)
    for off in (timedelta(minutes=1), timedelta(seconds=1)):
        with pytest.raises(CarbonError, match="full hour"):
            read(per, start + off) if per > 1 else read(2, start + off)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "duplicate of row 1"), (3601, "leaves a gap"), (600, "5, 15, 30 or 60"), (3660, "leaves a gap"), (-60, "5, 15, 30 or 60")],
)
def test_steps_that_no_hour_holds(seconds: int, words: str) -> None:
    start = datetime(2024, 5, 1, tzinfo=UTC)
    with pytest.raises(CarbonError, match=words):
        grid_files._step([start, start + timedelta(seconds=seconds)])
    assert grid_files._step([start]) == grid_files._step([start, start + timedelta(hours=1)]) == timedelta(hours=1)


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-01T13:07:00Z",
        "2024-05-01 13:07",
        "05/01/2024 1:07:00 PM",
        "05/01/2024 13:07",
        "05/01/2024 13:07:00",
        "2024-05-01T15:07:00+02:00",
        " 2024-05-01T13:07 ",
    ],
)
def test_times_as_exports_write_them(text: str) -> None:
    assert grid_files._time(text, 3, "when") == datetime(2024, 5, 1, 13, 7, tzinfo=UTC)
    with pytest.raises(CarbonError, match="row 3, column 'when'"):
        grid_files._time(f"x{text}", 3, "when")
    assert grid_files._value(" 1,234.5 ", 3, "v") == 1234.5 and grid_files._value("0", 3, "v") == 0.0
    for wrong in ("-0.5", "", "nan", "x", "inf"):
        with pytest.raises(CarbonError, match="row 3, column 'v'"):
            grid_files._value(wrong, 3, "v")


def test_generation_by_fuel_hour_by_hour(tmp_path: Path) -> None:
    """Empty cells are fuels that there are none of; a name of the time's column says whether an hour begins or ends there."""
    fuels = {row["column"]: float(row["gco2e_per_kwh"]) for row in tables.table("eia_fuels")}
    (a, dirty), (b, clean) = sorted(fuels.items(), key=lambda item: -item[1])[:: len(fuels) - 1]
    for column, begin in (("UTC Time at End of Hour", 0), ("UTC time", 1)):
        (tmp_path / "f.csv").write_text(
            f"Balancing Authority,{column},{a},{b}\nX,01/01/2022 01:00,37,\nX,01/01/2022 02:00,3,11\n", encoding="utf-8"
        )
        found = grid_files.read(tmp_path / "f.csv", format="eia930").trace
        assert found.gco2e_per_kwh.tolist() == [near(dirty), near((3 * dirty + 11 * clean) / 14)]
        assert (found.start, found.name) == (datetime(2022, 1, 1, begin, tzinfo=UTC), "eia930:X")
    (tmp_path / "f.csv").write_text(f"UTC time,{a},{b}\n01/01/2022 01:00,1,0\n01/01/2022 02:00,0,0\n", encoding="utf-8")
    with pytest.raises(CarbonError, match="row 2: no generation"):
        grid_files.read(tmp_path / "f.csv")


def test_files_are_told_apart_by_their_columns(tmp_path: Path) -> None:
    fuels = [row["column"] for row in tables.table("eia_fuels")]
    assert grid_files._recognise(["point_time", "value"]) == "watttime"
    assert grid_files._recognise(["Datetime (UTC)", "Carbon Intensity gCO2eq/kWh (direct)"]) == "electricitymaps"
    assert grid_files._recognise(["UTC time", *fuels[:2]]) == "eia930"
    for header in (["UTC time", fuels[0]], ["time", *fuels[:2]], ["Datetime (UTC)"], ["Carbon Intensity"]):
        with pytest.raises(CarbonError, match="no known format"):
            grid_files._recognise(header)
    assert grid_files.as_grid("france") == "france" and grid_files.as_grid("a.toml") == "a.toml"
    (tmp_path / "f.CSV").write_text("point_time,value\n2024-05-01T00:00Z,100\n2024-05-01T01:00Z,201\n", encoding="utf-8")
    assert grid_files.as_grid(str(tmp_path / "f.CSV")) == f"{150.5 * 0.45359237:.6g} (mean of f.CSV, 2 h)"
    for text, words in (("a,b\n", "no data rows"), ("a,b\n1\n", "row 1 has 1 cells"), ("a,b\n1,2\n1,2,3\n", "row 2 has 3 cells")):
        (tmp_path / "g.csv").write_text(text, encoding="utf-8")
        with pytest.raises(CarbonError, match=words):
            grid_files.read(tmp_path / "g.csv")


# ---- meters and water ----


def test_counters_that_begin_again_and_ones_that_cannot_be_read(tmp_path: Path) -> None:
    assert computing._risen((90.5, 100.0), (26.25, 100.0)) == 35.75
    assert computing._risen((0.5, 100.0), (0.5, 100.0)) == 0.0 and computing._risen((1.5, 100.0), (7.0, 100.0)) == 5.5
    folder = tmp_path / "intel-rapl:0"
    folder.mkdir()
    for name, text in (("name", "package-0\n"), ("energy_uj", "2500000\n"), ("max_energy_range_uj", "7300000\n")):
        (folder / name).write_text(text)
    assert computing.rapl_joules(tmp_path) == {"intel-rapl:0": (2.5, 7.3)}
    (folder / "energy_uj").write_text("much\n")
    assert computing.rapl_joules(tmp_path) == {} == computing.rapl_joules(tmp_path / "none")


@pytest.mark.parametrize(
    ("before", "after", "kwh"), [(100.0, 3700.5, 3600.5 / 3.6e6), (3700.0, 100.0, 0.0), (None, 5.0, 0.0), (5.0, None, 0.0)]
)
@pytest.mark.parametrize("measured", [True, False])
def test_what_a_meter_adds_up(
    before: float | None, after: float | None, kwh: float, measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus, clock, cpu = iter([before, after]), iter([10.0, 13.7]), iter([1.5, 4.25])
    packages = iter([{"a": (1.5, 9.0), "b": (8.0, 9.0)}, {"a": (2.0, 9.0), "b": (1.0, 9.0)}] if measured else [{}, {}])
    monkeypatch.setattr(computing, "_gpu_joules", lambda: next(gpus))
    monkeypatch.setattr(computing, "rapl_joules", lambda: next(packages))
    monkeypatch.setattr(computing, "_cpu_s", lambda: next(cpu))
    monkeypatch.setattr(computing, "_largest_gb", lambda: 2.5)
    monkeypatch.setattr(computing.time, "perf_counter", lambda: next(clock))
    spent = computing.Meter().stop()
    assert (spent.wall_s, spent.cpu_s, spent.gpu_kwh) == (near(3.7), near(2.75), near(kwh))
    if measured:
        assert (spent.processor_kwh, spent.memory_kwh, spent.least_kwh) == (near(2.5 / 3.6e6), 0.0, near(2.5 / 3.6e6 + kwh))
    else:
        memory = 3.7 * 2.5 * 0.3725 / 3.6e6
        assert (spent.processor_kwh, spent.memory_kwh) == (near(2.75 * 12 / 3.6e6), near(memory))
        assert spent.least_kwh == near(2.75 * 4 / 3.6e6 + memory + kwh)
    assert spent.kwh == near(spent.processor_kwh + spent.memory_kwh + kwh) and ("NVML" in spent.basis) is (None not in (before, after))
    place = grid.lookup("411.3")
    found = computing.emissions(spent, place, pue=1.17, embodied_kgco2e=0.37)
    assert found.operational_kgco2e == near(spent.kwh * 1.17 * 0.4113) and found.total_kgco2e == near(spent.kwh * 1.17 * 0.4113 + 0.37)
    assert found.least_kgco2e == near(spent.least_kwh * 1.17 * 0.4113) and computing.emissions(spent, place).pue == 1.0


def test_cpu_time_and_the_largest_set() -> None:
    assert computing._cpu_s() > 0 and 0.01 < computing._largest_gb() < 1000
    assert computing.from_time(3.7, 2.75, 2.5, gpu_kwh=0.37).least_kwh == near((2.75 * 4 + 3.7 * 2.5 * 0.3725) / 3.6e6 + 0.37)


@pytest.mark.parametrize("given", [None, 0.0, 0.37])
@pytest.mark.parametrize("site", [None, "aws:us-east-1"])
def test_water_with_what_is_not_known_of_it(given: float | None, site: str | None) -> None:
    """The least, the median and the most of those who disclose theirs; half to twice of the electricity's."""
    found = water.with_range(37.1, pue=1.17, zone="fra", site_code=site, wue_l_per_kwh=given)
    mix = water.mix_litres_per_kwh("FRA")
    known = given if given is not None else water.site(site)["wue_l_per_kwh"] if site else None
    disclosed = sorted(float(w) for code in water.sites() if (w := water.site(code)["wue_l_per_kwh"]) is not None)
    middle = (disclosed[(len(disclosed) - 1) // 2] + disclosed[len(disclosed) // 2]) / 2
    ends = (known,) * 3 if known is not None else (disclosed[0], middle, disclosed[-1])
    assert found.wue_l_per_kwh == tuple(near(end) for end in ends) and found.mix_l_per_kwh == (near(mix / 2), mix, near(2 * mix))
    litres = [37.1 * (own_ + 1.17 * of) for own_, of in zip(ends, (mix / 2, mix, 2 * mix), strict=True)]
    assert (found.low, found.litres, found.high) == tuple(near(value) for value in litres)
    newest = {}
    for row in tables.table("pue"):
        code = f"{row['provider']}:{row['region']}"
        newest[code] = max(newest.get(code, 0), int(row["year"]))
    assert all(water.site(code)["year"] == year for code, year in newest.items())
    assert water.with_range(37.1, wue_l_per_kwh=0.5).litres == near(37.1 * (0.5 + water.mix_litres_per_kwh("WOR")))


def test_figures_of_water_are_factors() -> None:
    """A country's electricity with half and twice of it, a site's own without a range, each found by its key."""
    found = water.water_factors()
    for row in tables.table("water_mix"):
        one, value = found[f"water.electricity.{row['zone']}"], float(row["l_per_kwh"])
        assert (one.value, one.low, one.high, one.unit, one.vintage) == (value, value / 2, value * 2, "l/kWh", row["vintage"])
    for code in water.sites():
        known = water.site(code)
        assert (f"water.site.{code}" in found) is (known["wue_l_per_kwh"] is not None)
        if known["wue_l_per_kwh"] is not None:
            one = found[f"water.site.{code}"]
            assert (one.value, one.low, one.high, one.vintage) == (known["wue_l_per_kwh"], None, None, f"{known['year']:.0f}")
            assert (one.note.endswith(str(known["status"]))) is (known["status"] != "ok")
    used = water.with_range(1.0, zone="fra", site_code=" AWS:us-east-1 ").sources
    assert [one.key for one in used] == ["water.electricity.FRA", "water.site.aws:us-east-1"]
    assert [one.key for one in water.with_range(1.0, wue_l_per_kwh=0.0, site_code="aws:us-east-1").sources] == ["water.electricity.WOR"]
