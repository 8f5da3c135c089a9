"""Fewer chips for the same deadlines: the closed form against a linear program, and what an answer says to a search."""

import numpy as np
import pytest
from scipy.optimize import linprog

from dse.operate import device, resize, scenario


def by_program(firm: np.ndarray, arrivals: np.ndarray, deadlines: tuple[int, ...]) -> float:
    """Least capacity by a linear program: runs r[t, c, d] of what arrived in t, d hours later; what is due after the end is left out."""
    hours = len(firm)
    cells = [(t, c, t + d) for c, last in enumerate(deadlines) for t in range(hours - last) for d in range(last + 1)]
    cost = np.zeros(len(cells) + 1)
    cost[-1] = 1.0
    upper = np.zeros((hours, len(cells) + 1))
    upper[:, -1] = -1.0
    jobs = sorted({(t, c) for t, c, _ in cells})
    equal = np.zeros((len(jobs), len(cells) + 1))
    for i, (t, c, at) in enumerate(cells):
        upper[at, i] = 1.0
        equal[jobs.index((t, c)), i] = 1.0
    found = linprog(cost, A_ub=upper, b_ub=-firm, A_eq=equal, b_eq=[arrivals[t, c] for t, c in jobs], method="highs")
    return float(found.fun)


@pytest.mark.parametrize("seed", range(8))
def test_least_capacity_equals_a_linear_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    deadlines = ((3,), (1, 4))[seed % 2]
    firm, arrivals = rng.uniform(0, 5, 14), rng.uniform(0, 4, (14, len(deadlines)))
    assert resize.least_capacity(firm, arrivals, deadlines) == pytest.approx(by_program(firm, arrivals, deadlines), rel=1e-7)


def test_waiting_needs_fewer_chips_and_less_carbon() -> None:
    found = resize.resize(scenario.Scenario(device.example(), ("BPAT",)), most=4)
    assert found["chips_run_now"] == 26 and found["chips_saved_share"] >= 0.1
    assert found["chips_foresight"] <= found["chips"] <= found["chips_least_carbon"] <= found["chips_least_carbon_run_now"]
    assert found["grams_saved_share"] > 0.0
    for row in found["rows"]:
        assert row["missed_requests"] == 0.0
        assert row["total_grams"] == pytest.approx(row["operation_grams"] + row["embodied_grams"])
    # what a device then serves: more requests a second, for a search to spread its making over
    assert found["requests_per_s_per_device"] > found["requests_per_s_per_device_run_now"]
    assert f"--rate {found['requests_per_s_per_device']:.6g}" in found["search"]
    with pytest.raises(ValueError, match="re-sizing is of one site"):
        resize.resize(scenario.Scenario(device.example(), ("CISO", "ERCO")))
