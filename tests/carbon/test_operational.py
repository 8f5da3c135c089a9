"""Operation at equal service: by hand, monotone, and no gain from being slow."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon import CarbonError
from carbon.operational import service as operational

COMMON = {"idle_w": 2.0, "rate_per_s": 3.0, "lifetime_years": 2.0, "gco2e_per_kwh": 400.0}


def test_by_hand():
    """0.5 J and 0.1 s a request, 3 a second for 2 years of 365.25 days, 2 W idle for 70 % of it, PUE 1.2, 400 g/kWh."""
    found = operational.equal_service(0.5, 0.1, pue=1.2, **COMMON)
    seconds = 2 * 365.25 * 86400
    assert found.requests == pytest.approx(3 * seconds)
    assert found.utilisation == pytest.approx(0.3)
    assert found.active_kgco2e == pytest.approx(0.5 * 3 * seconds / 3.6e6 * 1.2 * 0.4)
    assert found.idle_kgco2e == pytest.approx(2.0 * 0.7 * seconds / 3.6e6 * 1.2 * 0.4)
    assert found.operational_kgco2e == found.active_kgco2e + found.idle_kgco2e
    assert found.energy_kwh * 0.4 == pytest.approx(found.operational_kgco2e)
    assert found.feasible


def test_a_design_that_cannot_keep_up_is_flagged_and_gains_nothing():
    found = operational.equal_service(np.array([0.5, 0.5]), np.array([0.3, 0.5]), **COMMON)
    assert found.feasible.tolist() == [True, False]
    assert found.utilisation.tolist() == pytest.approx([0.9, 1.5])
    assert found.idle_kgco2e[1] == 0.0
    assert found.active_kgco2e[0] == found.active_kgco2e[1]
    assert np.isfinite(found.operational_kgco2e).all()


def test_requests_in_flight():
    alone = operational.equal_service(0.5, 0.1, **COMMON)
    eight = operational.equal_service(0.5, 0.8, concurrency=8.0, **COMMON)
    assert eight.utilisation == pytest.approx(alone.utilisation)
    assert eight.operational_kgco2e == pytest.approx(alone.operational_kgco2e)


positive = st.floats(0.001, 1000.0)


@given(energy=positive, latency=st.floats(0.0, 0.3), idle=st.floats(0.0, 100.0), ci=st.floats(1.0, 1000.0), pue=st.floats(1.0, 2.0))
def test_monotone_and_linear(energy, latency, idle, ci, pue):
    base = {"idle_w": idle, "rate_per_s": 3.0, "lifetime_years": 2.0, "gco2e_per_kwh": ci, "pue": pue}
    here = operational.equal_service(energy, latency, **base).operational_kgco2e
    assert operational.equal_service(energy * 1.1, latency, **base).operational_kgco2e >= here
    assert operational.equal_service(energy, latency, **{**base, "gco2e_per_kwh": 2 * ci}).operational_kgco2e == pytest.approx(
        2 * here, rel=1e-12
    )
    assert operational.equal_service(energy, latency, **{**base, "lifetime_years": 4.0}).operational_kgco2e == pytest.approx(
        2 * here, rel=1e-12
    )
    assert operational.equal_service(energy, latency, **{**base, "pue": pue + 0.1}).operational_kgco2e >= here


def test_tensors_keep_their_gradients():
    torch = pytest.importorskip("torch")
    energy = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    latency = torch.tensor([0.1, 0.2], dtype=torch.float64, requires_grad=True)
    found = operational.equal_service(energy, latency, **COMMON)
    plain = operational.equal_service(np.array([0.5, 2.0]), np.array([0.1, 0.2]), **COMMON)
    assert found.operational_kgco2e.detach().numpy() == pytest.approx(plain.operational_kgco2e, rel=1e-14)
    found.operational_kgco2e.sum().backward()
    seconds = 2 * 365.25 * 86400
    assert energy.grad.numpy() == pytest.approx(np.full(2, 3 * seconds / 3.6e6 * 0.4))
    # a longer request leaves less idle time: -idle * rate * seconds
    assert latency.grad.numpy() == pytest.approx(np.full(2, -2.0 * 3.0 * seconds / 3.6e6 * 0.4))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pue": 0.9}, "pue"),
        ({"idle_w": -1.0}, "idle_w"),
        ({"lifetime_years": 0.0}, "lifetime_years"),
        ({"gco2e_per_kwh": math.nan}, "gco2e_per_kwh"),
        ({"rate_per_s": math.inf}, "rate_per_s"),
        ({"concurrency": 0.0}, "concurrency"),
    ],
)
def test_bad_numbers_are_refused(change, word):
    with pytest.raises(CarbonError, match=word):
        operational.equal_service(0.5, 0.1, **{**COMMON, **change})


def test_power_hours_equals_equal_service():
    """A device at 100 W for 30 % of the time and 5 W otherwise, either way."""
    by_power = operational.power_hours(100.0, duty_cycle=0.3, lifetime_years=2.0, gco2e_per_kwh=400.0, idle_w=5.0, pue=1.1)
    by_request = operational.equal_service(100.0 * 0.1, 0.1, idle_w=5.0, rate_per_s=3.0, lifetime_years=2.0, gco2e_per_kwh=400.0, pue=1.1)
    assert by_power == pytest.approx(by_request.operational_kgco2e, rel=1e-13)


@pytest.mark.parametrize("duty", [-0.5, 1.5])
def test_a_share_of_time_is_between_none_and_all(duty):
    with pytest.raises(CarbonError, match="duty_cycle"):
        operational.power_hours(100.0, duty_cycle=duty, lifetime_years=2.0, gco2e_per_kwh=400.0)
