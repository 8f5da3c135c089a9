"""Bounds with units mean what the units mean."""

from __future__ import annotations

import pytest

from dse.errors import UsageError
from dse.problem.metrics import METRICS
from dse.problem.objectives import parse_constraint


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("latency_s<=20ms", 0.02),
        ("latency_s <= 20 ms", 0.02),
        ("latency_s<=250us", 2.5e-4),
        ("latency_s<=2min", 120.0),
        ("area_mm2<=1cm2", 100.0),
        ("total_kgco2e<=5g", 0.005),
        ("embodied_kgco2e<=2kgCO2e", 2.0),
        ("energy_j>=1kWh", 3.6e6),
        ("power_w<=100mW", 0.1),
        ("peak_power_w<=0.4kW", 400.0),
        ("tops>=500GOPS", 0.5),
        ("parameters<=110M", 1.1e8),
        ("parameters<=7B", 7e9),
        ("service_utilisation<=50%", 0.5),
        ("quality>=70%", 70.0),  # quality is counted in per cent
        ("latency_s<=1e-3", 1e-3),
    ],
)
def test_a_bound_is_scaled_to_the_unit_of_its_metric(text: str, bound: float) -> None:
    assert parse_constraint(text).bound == pytest.approx(bound, rel=1e-15)


@pytest.mark.parametrize("name", METRICS)
def test_what_a_problem_writes_is_read_back(name: str) -> None:
    written = str(parse_constraint(f"{name}<=0.3"))
    assert str(parse_constraint(written)) == written


@pytest.mark.parametrize("text", ["latency_s<=20kg", "area_mm2<=1ms", "power_w<=3 parsec", "latency_s<=3e"])
def test_a_unit_of_another_metric_is_refused_with_those_that_fit(text: str) -> None:
    with pytest.raises(UsageError, match="units understood are"):
        parse_constraint(text)
