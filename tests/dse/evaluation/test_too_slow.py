"""A design that is too slow for the request rate is said to be, with how much."""

from __future__ import annotations

import dse


def test_a_design_too_slow_for_the_rate_says_so() -> None:
    answer = dse.evaluate("llama3-8b", hw="edge22", fixed={"sequence": 64})
    assert answer["service_utilisation"] > 1.0
    assert any(f"asks for {answer['service_utilisation']:.3g} times" in reason for reason in answer["infeasible_reasons"])
