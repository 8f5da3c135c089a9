"""Grids: what a code answers, typed kinds that refuse to be mixed, flaws of the source marked or mended."""

import math

import pytest

from carbon import CarbonError
from carbon.factors import grid, grid_files


@pytest.mark.parametrize(
    ("code", "role", "expected"),
    [
        ("TWN", "use", ("owid:TWN", 642.378)),
        ("Taiwan", "use", ("owid:TWN", 642.378)),
        ("taiwan", "fab", ("act2022:taiwan", 583.0)),
        ("TWN", "fab", ("act2022:taiwan", 583.0)),
        ("act2023:taiwan", "fab", ("act2023:taiwan", 642.0)),
        ("world", "use", ("ecologits:WOR", 458.29)),
        ("world", "fab", ("ecologits:WOR", 458.29)),
        ("act2022:world", "use", ("act2022:world", 301.0)),
        ("USA", "use", ("owid:USA", 369.473)),
        ("usa", "fab", ("act2022:usa", 380.0)),
        ("egrid:USA", "use", ("egrid:USA", 349.67)),
        ("california", "use", ("egrid:US-CA", 179.06)),
        ("US-TX", "use", ("egrid:US-TX", 349.8)),
        ("gcp:me-central1", "use", ("gcp:me-central1", 575.0)),
        ("aws:us-west-2", "use", ("egrid:US-OR", 165.54)),
        ("azure:swedencentral", "use", ("owid:SWE", None)),
        ("coal", "use", ("ipcc:coal", 820.0)),
        ("Finland", "use", ("owid:FIN", 79.158)),
        ("FI", "use", ("nordic:FI", 72.0)),
        ("FR", "use", ("owid:FRA", None)),
        ("owid:DE", "use", ("owid:DEU", None)),  # a source's own countries leave no doubt
        ("TX", "use", ("egrid:US-TX", 349.8)),
        ("south korea", "use", ("owid:KOR", 430.567)),
        ("germany", "fab", ("owid:DEU", 380.95)),
    ],
)
def test_lookup(code, role, expected):
    found = grid.lookup(code, role=role)
    assert found.code == expected[0]
    if expected[1] is not None:
        assert found.gco2e_per_kwh == expected[1]
    assert found.source
    assert found.licence


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("georgia", ("ambiguous", "GEO", "US-GA")),
        ("CA", ("ambiguous", "CAN (Canada)", "US-CA (California)")),
        ("Tawian", ("unknown", "TWN")),
        ("US-ZZ", ("unknown", "US-")),
        ("gcp:us-west9", ("unknown", "gcp:us-west")),
        ("aws:us-est-1", ("unknown", "aws:us-east-1")),
        ("CAF", ("no usable", "0.0")),
        ("Central African Republic", ("no usable",)),
        ("owid:CAF", ("no usable",)),
        ("act2022:tiwan", ("act2022:taiwan",)),
    ],
)
def test_refused(code, words):
    with pytest.raises(CarbonError) as caught:
        grid.lookup(code)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_role_is_checked():
    with pytest.raises(CarbonError, match="fab"):
        grid.lookup("TWN", role="fabb")


def test_flaws_of_the_source():
    listed = grid.everything()
    codes = [one.code for one in listed]
    assert len(codes) == len(set(codes)), "a code of a source answers once"
    assert not any(one.gco2e_per_kwh == 0.0 for one in listed)
    assert grid.lookup("TKM").status == grid.lookup("UZB").status == "suspect"
    assert all(one.status == "suspect" for one in listed if one.gco2e_per_kwh > 820.0 and one.level == "country")
    assert not any("cenrtal" in one.code for one in listed)
    assert not any(one.code == "egrid:US-usa" for one in listed)
    assert grid.lookup("gcp:us-west1").year is None
    assert {one.kind.signal for one in listed} == {"average"}
    assert {one.kind.boundary for one in listed} == {"lifecycle", "combustion", "unstated"}
    assert all(one.kind.boundary == "combustion" for one in listed if one.code.startswith("egrid:"))


def test_every_factor_has_its_provenance():
    for one in grid.everything():
        assert one.source, one.code
        assert one.licence, one.code
        assert math.isfinite(one.gco2e_per_kwh), one.code
        assert one.gco2e_per_kwh > 0.0, one.code
        if one.year is None:
            assert "year" in one.note, one.code


def test_kinds_are_not_mixed():
    texas, france = grid.lookup("US-TX"), grid.lookup("FRA")
    with pytest.raises(CarbonError, match="one kind"):
        grid.one_kind([texas, france], "operation")
    with pytest.raises(CarbonError, match="one kind"):
        grid.mix([(texas, 1.0), (france, 1.0)])
    marginal = grid.custom(500.0, signal="marginal", boundary="lifecycle", source="own")
    with pytest.raises(CarbonError, match="marginal"):
        grid.mix([(france, 1.0), (marginal, 1.0)])
    both = grid.mix([(france, 3.0), (grid.lookup("DEU"), 1.0)])
    assert both.gco2e_per_kwh == pytest.approx((3 * 56.039 + 380.95) / 4)
    assert both.kind == france.kind
    # fab and use are different quantities: each is of one kind, and they may differ
    assert grid.lookup("taiwan", role="fab").kind != france.kind


@pytest.mark.parametrize("shares", [(-1.0, 2.0), (0.0, 0.0), (math.nan, 1.0), (math.inf, 1.0)])
def test_shares_are_checked(shares):
    france, germany = grid.lookup("FRA"), grid.lookup("DEU")
    with pytest.raises(CarbonError, match="share"):
        grid.mix([(france, shares[0]), (germany, shares[1])])


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"signal": "averag"}, "average"),
        ({"boundary": "lca"}, "lifecycle"),
        ({"source": " "}, "source"),
        ({"gco2e_per_kwh": -1.0}, "at least 0"),
        ({"gco2e_per_kwh": math.nan}, "finite"),
    ],
)
def test_a_factor_of_your_own_states_what_it_is(inputs, word):
    good = {"gco2e_per_kwh": 100.0, "signal": "average", "boundary": "lifecycle", "source": "own"}
    assert grid.custom(**good).gco2e_per_kwh == 100.0
    with pytest.raises(CarbonError, match=word):
        grid.custom(**{**good, **inputs})


def test_a_number_is_a_grid_with_the_source_that_it_names() -> None:
    plain, named = grid.lookup("262.67"), grid.lookup("262.67 (my supplier, 2025)", role="fab")
    assert (plain.gco2e_per_kwh, plain.source) == (262.67, "given as a number")
    assert (named.gco2e_per_kwh, named.source) == (262.67, "my supplier, 2025")
    with pytest.raises(CarbonError, match="gco2e_per_kwh"):
        grid.lookup("-3")


def test_an_hourly_file_is_a_grid_by_its_mean(tmp_path) -> None:
    rows = "".join(f"2024-01-01 {hour:02d}:00:00,{100 + hour},DE\n" for hour in range(24))
    path = tmp_path / "de.csv"
    path.write_text("Datetime (UTC),Carbon Intensity gCO2eq/kWh (direct),Zone Id\n" + rows, encoding="utf-8")
    found = grid.lookup(grid_files.as_grid(str(path)))
    assert found.gco2e_per_kwh == 111.5
    assert found.source == "mean of de.csv, 24 h"
    assert grid_files.as_grid("france") == "france"
