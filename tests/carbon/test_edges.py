"""Edges of allowed ranges: the last value inside is taken, the first outside is refused and named."""

import pytest

from carbon import CarbonError
from carbon.analysis import estimate, metrics
from carbon.analysis import specification as spec
from carbon.embodied import act, packaging, threedcarbon
from carbon.factors import grid_files
from carbon.factors.values import Values
from carbon.operational import service

SERVED = {"idle_w": 1.0, "rate_per_s": 1.0, "gco2e_per_kwh": 400.0}


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: act.capacity(-0.5, 0.1), "capacity_gb"),
        (lambda: act.ic_packaging(-0.5), "n_ics"),
        (lambda: act.pcb_act(-0.5, 2), "area_cm2"),
        (lambda: threedcarbon.package("InFO_chip_first", [(100.0, 7, 1)], ci_g_per_kwh=-0.5), "ci_g_per_kwh"),
        (lambda: metrics.embodied_share(1000.0, hours=1.0, lifetime_years=0.0), "lifetime_years"),
        (lambda: service.equal_service(1.0, 0.1, lifetime_years=0.0, **SERVED), "lifetime_years"),
        (lambda: service.equal_service(1.0, 0.1, lifetime_years=1000.5, **SERVED), "lifetime_years"),
    ],
)
def test_just_outside(call, word):
    with pytest.raises(CarbonError, match=word):
        call()


def test_just_inside():
    assert act.capacity(0.0, 0.1) == act.ic_packaging(0.0) == act.pcb_act(0.0, 2) == 0.0
    long, longer = (float(service.equal_service(1.0, 0.1, lifetime_years=y, **SERVED).operational_kgco2e) for y in (500.0, 1000.0))
    assert longer == pytest.approx(2 * long)
    assert threedcarbon.package("InFO_chip_first", [(100.0, 7, 1)], ci_g_per_kwh=0.0)


@pytest.mark.parametrize(("width", "fits"), [(100.0, True), (130.0, False)])
def test_carriers_that_a_wafer_holds_once_or_not(width, fits):
    """Gross dies of a 300 mm wafer by the usual estimate, pi r^2 / A - pi d / sqrt(2 A): 0.4 at 100 mm a side, -0.9 at 130."""
    found = packaging.assemble(
        Values(), "interposer", silicon_kgco2e=1.0, total_mm2=100.0, largest_mm2=50.0, joined=2.0, ci_g_per_kwh=500.0,
        carrier_area_mm2=width**2,
    )  # fmt: skip
    assert bool(found.feasible) is fits


def test_dies_of_3d_carbon_are_whole():
    assert threedcarbon.die(8000.0, 7).dies_per_wafer == 1
    with pytest.raises(CarbonError, match="none fits the wafer"):
        threedcarbon.die(10_000.0, 7)
    assert threedcarbon.package("Si_int", [(6500.0, 7, 1)])
    with pytest.raises(CarbonError, match="does not fit a 300 mm wafer"):
        threedcarbon.package("Si_int", [(8000.0, 7, 1)])


@pytest.mark.parametrize(("value", "ranged"), [([1.0, 2.0], True), ([1.0, 2.0, 3.0, 4.0], True), ([1.0, 2.0, 3.0], False)])
def test_ranges_are_three_numbers_where_they_are_allowed(value, ranged):
    with pytest.raises(CarbonError, match="is needed"):
        spec._value("use", "power_w", value, ranged=ranged)


@pytest.mark.parametrize("header", ["timestamp_utc,coalx,windx", "moment,Net Generation (MW) from Coal"])
def test_a_file_of_fuels_without_times_or_fuels(header):
    with pytest.raises(CarbonError, match="lacks a UTC time or fuel columns"):
        grid_files._eia930(header.split(","), [], None)


@pytest.mark.parametrize("use", [{"kind": "average, lifecycle"}, {"source": "my utility"}, {"kind": "average", "source": "my utility"}])
def test_a_grid_of_ones_own_says_what_it_is(use):
    spec_ = {
        "name": "mine",
        "device": {"area_mm2": 100.0, "node_nm": 7},
        "use": {"gco2e_per_kwh": 100.0, "power_w": 5.0, "duty_cycle": 0.5, "lifetime_years": 3.0, **use},
    }
    with pytest.raises(CarbonError, match=r"needs kind .* and source"):
        estimate.estimate(spec_)
