"""Decision metrics: SCI's example, definitions by hand, and closed forms against a brute force."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from carbon import CarbonError
from carbon.analysis import metrics
from carbon.analysis.metrics import Running
from carbon.operational import water


def test_sci_worked_example():
    """1000 kg over 4 years of 365 days, one hour: 28.5 g."""
    share = metrics.embodied_share(1000.0, hours=1.0, lifetime_years=4.0)
    assert round(share * 1000.0, 1) == 28.5
    assert share * 1000.0 == pytest.approx(1000.0 * 1000.0 / (4 * 365 * 24), rel=1e-15)
    assert metrics.embodied_share(1000.0, hours=1.0, lifetime_years=4.0, resource_share=0.5) == pytest.approx(share / 2)


def test_sci():
    found = metrics.sci(2.0, 300.0, 0.1, 50.0, unit="token", grid_kind="average, lifecycle")
    assert found.value == pytest.approx((2.0 * 300.0 + 100.0) / 50.0)
    assert found.unit == "gCO2e/token"
    assert "average" in found.basis


def test_products():
    by_name = {one.name: one for one in metrics.products(3.0, 5.0, 0.2, 0.7)}
    assert by_name["CDP"].value == pytest.approx(3.0 * 0.2)
    assert by_name["CEP"].value == pytest.approx(3.0 * 0.7)
    assert by_name["C2EP"].value == pytest.approx(9.0 * 0.7)
    assert by_name["CE2P"].value == pytest.approx(3.0 * 0.49)
    assert by_name["tCDP"].value == pytest.approx(8.0 * 0.2)
    assert all(one.basis for one in by_name.values())


def test_cci_names_its_basis():
    """1312 kg over 4 years at 8 x 1979e12 (sparse peak): 0.66 g/EFLOP, as NVIDIA states; achieved is another axis."""
    flops = 8 * 1979e12 * 4 * 8766 * 3600
    peak = metrics.cci(1312.0, 0.0, flops, basis="peak")
    assert peak.value == pytest.approx(0.66, abs=0.005)
    with pytest.raises(CarbonError, match="achieved"):
        metrics.cci(1.0, 1.0, 1e18, basis="achievd")
    with pytest.raises(CarbonError, match="one basis"):
        metrics.require_basis(peak, metrics.cci(1312.0, 0.0, flops, basis="achieved"))
    metrics.require_basis(peak, peak)


def years_until_ahead(extra, saved, ci, pue):
    """Brute force: yearly steps of a thousandth until design 2's total is no larger."""
    years = np.arange(0.0, 50.0, 0.001)
    behind = extra - saved / 1000.0 * 8766.0 * years * pue * ci / 1000.0
    return years, behind


@pytest.mark.parametrize(("extra", "saved", "ci"), [(30.0, 20.0, 400.0), (5.0, 100.0, 50.0), (200.0, 10.0, 700.0)])
def test_payback_by_brute_force(extra, saved, ci):
    found = metrics.payback_years(extra, saved, ci, 1.2)
    years, behind = years_until_ahead(extra, saved, ci, 1.2)
    assert found == pytest.approx(years[np.argmax(behind <= 0)], abs=0.0011)


def test_payback_at_the_edges():
    assert metrics.payback_years(-5.0, 10.0, 400.0) == 0.0
    assert metrics.payback_years(0.0, 0.0, 400.0) == 0.0
    assert metrics.payback_years(5.0, 0.0, 400.0) == math.inf
    assert metrics.payback_years(5.0, -3.0, 400.0) == math.inf
    assert metrics.payback_years(5.0, 10.0, 0.0) == math.inf
    assert metrics.payback_years(-5.0, -10.0, 400.0) < 0.0
    with pytest.raises(CarbonError, match="extra_embodied_kg"):
        metrics.payback_years(math.nan, 1.0, 1.0)


sizes = st.floats(0.0, 1e4)


@given(one=sizes, used=sizes, two=sizes, more=sizes)
def test_break_even_intensity_ties_the_totals(one, used, two, more):
    found = metrics.break_even_intensity(one, used, two, more)
    assert found >= 0.0
    assert not math.isnan(found)
    if math.isfinite(found):
        assume(found < 1e9)
        left, right = one + used * found / 1000.0, two + more * found / 1000.0
        assert left == pytest.approx(right, rel=1e-9, abs=1e-9)
    else:
        for ci in (0.0, 1.0, 500.0, 1e6):  # one of them is ahead at every intensity
            assert (one + used * ci / 1000.0 - two - more * ci / 1000.0) * (one - two) >= 0.0


@given(
    one=st.builds(Running, st.integers(0, 10_000), st.integers(0, 1000), st.integers(0, 200)),
    two=st.builds(Running, st.integers(0, 10_000), st.integers(0, 1000), st.integers(0, 200)),
    ci=st.integers(1, 900),
)
def test_break_even_utilisation_by_brute_force(one, two, ci):
    found = metrics.break_even_utilisation(one, two, lifetime_years=4.0, gco2e_per_kwh=ci, pue=1.1)

    def total(design, utilisation):
        watts = design.idle_w + utilisation * (design.busy_w - design.idle_w)
        return design.embodied_kg + watts / 1000.0 * 4.0 * 8766.0 * 1.1 * ci / 1000.0

    grid = np.linspace(0.0, 1.0, 101)
    gap = np.array([total(one, u) - total(two, u) for u in grid])
    if math.isfinite(found):
        scale = max(total(one, found), total(two, found), 1.0)
        assert abs(total(one, found) - total(two, found)) <= 1e-9 * scale
    else:
        # no tie inside [0, 1]: the sign of the difference never turns (up to rounding at its ends)
        slack = 1e-9 * np.abs(gap).max()
        assert (gap >= -slack).all() or (gap <= slack).all()


def test_totals_and_refusals():
    assert metrics.total(3.0, 4.0, basis="chip, 4 years").value == 7.0
    with pytest.raises(CarbonError, match="embodied_kgco2e"):
        metrics.total(-1.0, 4.0, basis="x")
    with pytest.raises(CarbonError, match="units"):
        metrics.sci(1.0, 1.0, 1.0, 0.0, unit="x", grid_kind="average")


def test_water():
    assert water.operational_litres(10.0, pue=1.2, wue_l_per_kwh=0.5, mix_l_per_kwh=3.0) == pytest.approx(10 * (0.5 + 3.6))
    site = water.site("aws:us-east-1")
    assert (site["pue"], site["wue_l_per_kwh"], site["year"]) == (1.15, 0.12, 2024.0)
    assert water.site("industry:all")["status"] == "unverified"
    assert "gcp:us-east1" in water.sites()
    assert water.mix_litres_per_kwh("fra") == 3.6737
    with pytest.raises(CarbonError, match="aws:us-east-1"):
        water.site("aws:us-est-1")
    with pytest.raises(CarbonError, match="FRA"):
        water.mix_litres_per_kwh("DEU")
