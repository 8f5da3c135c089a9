"""Yield models and dies per wafer: published values, brute force, and what must hold everywhere."""

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon import CarbonError
from carbon.embodied import yields

REFERENCE = Path(__file__).parent.parent / "reference" / "carbon"
areas = st.floats(0.1, 2000.0)
densities = st.floats(0.0, 2.0)


def rows(name):
    with (REFERENCE / name).open(encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.parametrize("row", rows("ref_ecochip_yield.csv"))
def test_negative_binomial_of_ecochip(row):
    found = yields.negative_binomial(float(row["area_mm2"]), float(row["d0_per_cm2"]), float(row["alpha"]))
    assert found == pytest.approx(float(row["yield_negbin"]), rel=1e-12)


# 814 mm2: Poisson, Murphy, negative binomial 3 and 10, exp(-sqrt), 1/(1+AD0), from an independent calculation to 3 digits
@pytest.mark.parametrize(
    ("d0", "expected"),
    [
        (0.05, (0.666, 0.675, 0.683, 0.671, 0.528, 0.711)),
        (0.10, (0.443, 0.468, 0.487, 0.457, 0.406, 0.551)),
        (0.20, (0.196, 0.244, 0.272, 0.221, 0.279, 0.381)),
    ],
)
def test_models_at_a_large_die(d0, expected):
    found = (
        yields.poisson(814, d0),
        yields.murphy(814, d0),
        yields.negative_binomial(814, d0, 3.0),
        yields.negative_binomial(814, d0, 10.0),
        yields.seeds(814, d0),
        yields.bose_einstein(814, d0),
    )
    # half a unit of the third digit, and what rounding of the printed table may add
    assert found == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("name", yields.MODELS)
@given(area=areas, d0=densities)
def test_models_are_probabilities_that_fall(name, area, d0):
    model = yields.model(name)
    value = model(area, d0)
    assert 0.0 <= value <= 1.0
    assert model(area, 0.0) == 1.0
    assert model(area * 1.1, d0) <= value
    assert model(area, d0 * 1.1 + 1e-9) <= value


@given(area=areas, d0=densities)
def test_negative_binomial_tends_to_poisson(area, d0):
    # the relative difference is (A D0)^2 / (2 alpha) to first order; alpha = 1e8 and A D0 <= 40 leave 1e-5
    assert yields.negative_binomial(area, d0, 1e8) == pytest.approx(yields.poisson(area, d0), rel=1e-4)


def brute_force(probability_bad, units, needed):
    """P(enough units work) by going through all 2^units cases."""
    total = 0.0
    for case in itertools.product((False, True), repeat=units):
        bad = sum(case)
        if units - bad >= needed:
            total += probability_bad**bad * (1.0 - probability_bad) ** (units - bad)
    return total


@pytest.mark.parametrize(("units", "needed"), [(1, 1), (4, 4), (4, 3), (8, 6), (10, 5), (12, 1)])
@pytest.mark.parametrize("d0", [0.0, 0.05, 0.3, 3.0])
def test_harvesting_is_the_sum_over_all_cases(units, needed, d0):
    area, fraction = 600.0, 0.7
    fixed = (1.0 + area / 100.0 * (1.0 - fraction) * d0 / 10.0) ** -10.0
    bad = 1.0 - math.exp(-area / 100.0 * fraction * d0 / units)
    expected = fixed * brute_force(bad, units, needed)
    found = yields.harvested(area, d0, units=units, needed=needed, repairable_fraction=fraction)
    assert found == pytest.approx(expected, rel=1e-11)  # sums of 4096 terms


def test_harvesting_of_a_gpu():
    """132 of 144 units on 60 % of 814 mm2 at 0.1 defects per cm2: 0.726."""
    found = yields.harvested(814.0, 0.1, units=144, needed=132, repairable_fraction=0.6)
    assert found == pytest.approx(0.726, abs=5e-4)
    assert found > yields.negative_binomial(814.0, 0.1)


def test_harvesting_of_many_units_in_logarithms():
    """Above 600 defects a die the sum runs in logarithms; scipy's binomial distribution agrees."""
    from scipy.stats import binom

    units, spare, per_unit = 4000, 1500, 0.4
    found = yields._enough_units(np.array([per_unit]), units, spare)[0]
    # cumulative terms of 1e-10 and more: six digits are what lgamma differences leave
    assert found == pytest.approx(binom.cdf(spare, units, -math.expm1(-per_unit)), rel=1e-6)
    near = yields._enough_units(np.array([per_unit]), units, 1300)[
        0
    ]  # near the mean, where the last term of the sum is a part in fifty of it
    assert near == pytest.approx(binom.cdf(1300, units, -math.expm1(-per_unit)), rel=1e-6)
    small = yields._enough_units(np.array([0.1]), 144, 12)[0]
    assert small == pytest.approx(binom.cdf(12, 144, -math.expm1(-0.1)), rel=1e-12)


@given(area=st.floats(10.0, 850.0), d0=st.floats(0.0, 0.5), spare=st.integers(0, 10))
def test_spare_units_never_hurt(area, d0, spare):
    fewer = yields.harvested(area, d0, units=32, needed=32 - spare, repairable_fraction=0.5)
    more = yields.harvested(area, d0, units=32, needed=31 - spare, repairable_fraction=0.5)
    assert 0.0 <= fewer <= more <= 1.0


@pytest.mark.parametrize(("units", "needed"), [(4, 5), (4, 0), (3.5, 2)])
def test_harvest_counts_are_checked(units, needed):
    with pytest.raises(CarbonError, match="1 <= needed <= units"):
        yields.harvested(100.0, 0.1, units=units, needed=needed, repairable_fraction=0.5)


@pytest.mark.parametrize("row", rows("ref_ecochip_die.csv"))
def test_dies_per_wafer_of_ecochip(row):
    found = yields.dies_per_wafer(float(row["area_mm2"]), float(row["wafer_mm"]))
    assert found == pytest.approx(float(row["dies_per_wafer"]), rel=1e-12)


@pytest.mark.parametrize("row", rows("ref_3dcarbon_die.csv"))
def test_whole_dies_of_3dcarbon(row):
    assert yields.floor_dies(yields.dies_per_wafer(float(row["area_mm2"]))) == float(row["dpw"])


def test_edge_loss_of_a_large_die():
    """814 mm2 on 300 mm: 1.368 times its area is used up."""
    assert yields.wafer_share_mm2(814.0) / 814.0 == pytest.approx(1.368, abs=5e-4)
    assert yields.wafer_share_mm2(814.0, scribe_mm=0.1) > yields.wafer_share_mm2(814.0)


def test_a_die_larger_than_the_wafer_is_infinite_not_nan():
    share = yields.wafer_share_mm2(np.array([100.0, 60000.0]))
    assert np.isfinite(share[0])
    assert np.isinf(share[1])


def test_unknown_model_names_the_nearest():
    with pytest.raises(CarbonError, match="poisson"):
        yields.model("poison")
