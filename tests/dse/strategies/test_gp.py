"""The process and the acquisition against brute force: direct formulas, finite differences, Monte Carlo."""

import numpy as np
import numpy.typing as npt
import pytest

from dse.fronts.pareto import hypervolume
from dse.strategies.surrogates import gp
from dse.strategies.surrogates.improvement import CostCells, ehvi_one_cost
from dse.strategies.surrogates.marginals import Exact, LogNormal, Normal, ehvi

FloatArray = npt.NDArray[np.float64]


def _data(n: int = 12, d: int = 3, seed: int = 0) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    x = rng.random((n, d))
    return x, np.sin(3 * x[:, 0]) + 2 * x[:, 1] ** 2 + 50.0


def test_gradient_of_the_posterior_density() -> None:
    x, y = _data()
    groups = np.array([0] * 5 + [1] * 4 + [2] * 3)
    problem = gp._Posterior(x, (y - y.mean()) / y.std(), np.full(12, 1e-3), groups)
    rng = np.random.default_rng(1)
    for _ in range(5):
        theta = rng.normal(size=6) * 0.7
        gradient = problem(theta)[1]
        for j in range(6):
            step = np.zeros(6)
            step[j] = 1e-5
            numeric = (problem(theta + step)[0] - problem(theta - step)[0]) / 2e-5
            # Central differences of a smooth function of order one: error about 1e-10 / 1e-5.
            assert gradient[j] == pytest.approx(numeric, abs=2e-5)


def test_posterior_equals_the_textbook_formula() -> None:
    x, y = _data()
    noise = np.linspace(0.0, 0.2, 12)
    process = gp.fit(x, y, noise**2)
    new = np.random.default_rng(2).random((7, 3))
    lengths, scale = np.exp(process.theta[:3]), np.exp(process.theta[3])

    def kernel(a: FloatArray, b: FloatArray) -> FloatArray:
        r = np.sqrt((((a[:, None, :] - b[None, :, :]) / lengths) ** 2).sum(2))
        matern = scale * (1 + np.sqrt(5) * r + 5 * r**2 / 3) * np.exp(-np.sqrt(5) * r)
        return np.asarray(matern + 1 + (2 * a - 1) @ (2 * b - 1).T)

    z, s = (y - y.mean()) / y.std(), y.std()
    inverse = np.linalg.inv(kernel(x, x) + np.diag(noise**2 / s**2 + 1e-6))
    cross = kernel(new, x)
    mean, sd = process.predict(new)
    assert mean == pytest.approx(y.mean() + s * cross @ inverse @ z, rel=1e-8)
    variance = np.diag(kernel(new, new) - cross @ inverse @ cross.T)
    assert sd == pytest.approx(s * np.sqrt(variance), rel=1e-4)  # a difference of nearly equal numbers


def test_interpolates_exact_and_smooths_noisy_observations() -> None:
    x, y = _data(20)
    exact = gp.fit(x, y)
    assert np.abs(exact.predict(x)[0] - y).max() < 1e-2 * y.std()
    rng = np.random.default_rng(3)
    noisy = y + rng.normal(size=20)
    told = gp.fit(x, noisy, 1.0)
    assert np.abs(told.predict(x)[0] - y).mean() < np.abs(noisy - y).mean()


def test_constant_and_single_observations() -> None:
    mean, sd = gp.fit(np.array([[0.5, 0.5]]), np.array([3.0])).predict(np.array([[0.5, 0.5], [0.1, 0.9]]))
    assert mean == pytest.approx([3.0, 3.0])
    assert sd[0] < 0.01 < sd[1]
    mean, _ = gp.fit(np.random.default_rng(0).random((5, 2)), np.full(5, 7.0)).predict(np.array([[0.2, 0.3]]))
    assert mean == pytest.approx([7.0])


def test_related_group_helps_and_unrelated_does_little_harm() -> None:
    rng = np.random.default_rng(5)
    x, new = rng.random((40, 2)), rng.random((200, 2))

    def f(p: FloatArray) -> FloatArray:
        return np.asarray(np.sin(5 * p[:, 0]) + p[:, 1] * np.cos(4 * p[:, 0]))

    few = rng.random((4, 2))
    groups = np.array([0] * 4 + [1] * 40)
    alone = np.sqrt(np.mean((gp.fit(few, f(few)).predict(new)[0] - f(new)) ** 2))
    both = np.concatenate([few, x])
    related = gp.fit(both, np.concatenate([f(few), 3 + 1.1 * f(x)]), 0.0, groups)
    assert np.sqrt(np.mean((related.predict(new)[0] - f(new)) ** 2)) < 0.5 * alone
    unrelated = gp.fit(both, np.concatenate([f(few), rng.normal(size=40)]), 0.0, groups)
    assert np.sqrt(np.mean((unrelated.predict(new)[0] - f(new)) ** 2)) < 2.0 * alone


def _monte_carlo(draw: list[FloatArray], observed: FloatArray, reference: FloatArray) -> tuple[float, float]:
    base = hypervolume(observed, reference)
    points = np.stack(draw, axis=1)
    gains = np.array([hypervolume(np.concatenate([observed, p[None, :]]), reference) - base for p in points])
    return float(gains.mean()), float(gains.std() / np.sqrt(len(gains)))


OBSERVED = np.array([[-0.3, 0.2], [-0.5, 0.6], [-0.55, 0.9], [-0.2, 0.8]])
REFERENCE = np.array([-0.1, 1.2])


@pytest.mark.parametrize(("mean", "sd", "cost"), [(0.4, 0.1, 0.15), (0.6, 0.05, 0.7), (0.2, 0.3, 0.5), (0.9, 0.2, 1.3)])
def test_one_cost_equals_monte_carlo(mean: float, sd: float, cost: float) -> None:
    rng = np.random.default_rng(0)
    expected, error = _monte_carlo([-rng.normal(mean, sd, 4000), np.full(4000, cost)], OBSERVED, REFERENCE)
    one = [np.array([v]) for v in (mean, sd, cost)]
    found = ehvi_one_cost(*one, -OBSERVED[:, 0], OBSERVED[:, 1], (0.1, 1.2))[0]
    assert found == pytest.approx(expected, abs=4 * error + 1e-12)
    same = ehvi([Normal(-one[0], one[1]), Exact(one[2])], OBSERVED, REFERENCE)[0]
    assert found == pytest.approx(same, rel=1e-12)


@pytest.mark.parametrize(("mean", "log_cost"), [(0.5, -0.5), (0.35, -1.6), (0.6, 0.1)])
def test_uncertain_cost_equals_monte_carlo(mean: float, log_cost: float) -> None:
    rng = np.random.default_rng(1)
    draws = [-rng.normal(mean, 0.1, 4000), np.exp(rng.normal(log_cost, 0.3, 4000))]
    expected, error = _monte_carlo(draws, OBSERVED, REFERENCE)
    beliefs = [Normal(np.array([-mean]), np.array([0.1])), LogNormal(np.array([log_cost]), np.array([0.3]))]
    assert ehvi(beliefs, OBSERVED, REFERENCE)[0] == pytest.approx(expected, abs=4 * error + 1e-12)


def test_three_objectives_equal_monte_carlo() -> None:
    rng = np.random.default_rng(2)
    observed = np.array([[-0.3, 0.2, 0.7], [-0.5, 0.6, 0.5], [-0.2, 0.3, 0.3]])
    reference = np.array([-0.1, 1.0, 1.0])
    draws = [-rng.normal(0.5, 0.1, 4000), np.exp(rng.normal(-1.0, 0.2, 4000)), np.full(4000, 0.45)]
    expected, error = _monte_carlo(draws, observed, reference)
    beliefs = [Normal(np.array([-0.5]), np.array([0.1])), LogNormal(np.array([-1.0]), np.array([0.2])), Exact(np.array([0.45]))]
    found = ehvi(beliefs, observed, reference, cells=1 << 14)[0]
    # 16,384 quasi-random cells: quadrature error below 1 % of the value here.
    assert found == pytest.approx(expected, abs=4 * error + 0.01 * expected)


def test_cost_cells_equal_monte_carlo_for_a_front_of_hardware() -> None:
    rng = np.random.default_rng(3)
    fronts = [np.array([[0.2, 0.7], [0.4, 0.3]]), np.array([[0.3, 0.5], [0.6, 0.1]])]
    low, reference = np.array([0.0, 0.0]), np.array([1.0, 1.0])
    cells = CostCells(fronts, low, reference, cells=1 << 14)
    levels = cells.levels(np.array([0.5]), np.array([1]), 0.1)
    found = cells.ehvi(np.array([0.6, 0.5]), np.array([0.2, 1e-9]), levels)
    observed = np.column_stack([np.full(2, -0.5), fronts[1]])
    full = np.array([-0.1, 1.0, 1.0])
    base = hypervolume(observed, full)
    draws = rng.normal(0.6, 0.2, 2000)
    gains = [hypervolume(np.concatenate([observed, np.column_stack([np.full(2, -q), fronts[0]])]), full) - base for q in draws]
    assert found[0] == pytest.approx(np.mean(gains), abs=4 * np.std(gains) / np.sqrt(2000) + 0.01 * np.mean(gains))
    assert found[1] == pytest.approx(0.0, abs=1e-6)  # what is observed again gains nothing


def test_infinite_cost_gains_nothing() -> None:
    found = ehvi_one_cost(np.array([0.9]), np.array([0.1]), np.array([np.inf]), np.zeros(0), np.zeros(0), (0.1, 1.2))
    assert found[0] == 0.0
