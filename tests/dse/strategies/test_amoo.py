"""AMOO: weights against brute force, the qualitative results of the ICML 2025 experiments, descent, front."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dse.errors import UsageError
from dse.strategies.amoo.weights import camoo_weights, equal_weights, pamoo_weights

FloatArray = npt.NDArray[np.float64]


def _simplex(count: int, parts: int) -> FloatArray:
    grid = np.stack(np.meshgrid(*[np.arange(parts + 1)] * count), -1).reshape(-1, count)
    return grid[grid.sum(1) == parts] / parts


@pytest.mark.parametrize("seed", range(5))
def test_camoo_diagonal_equals_brute_force(seed: int) -> None:
    hessians = np.random.default_rng(seed).uniform(-0.2, 1.0, (3, 6))
    weights = camoo_weights(hessians)
    assert weights.sum() == pytest.approx(1.0)
    assert (weights >= 0).all()
    best = (_simplex(3, 200) @ hessians).min(1).max()
    # A grid of step 1/200 misses the optimum by at most the slope, 1.2, times the step.
    assert best - 1e-12 <= (weights @ hessians).min() <= best + 1.2 / 200


@pytest.mark.parametrize("seed", range(5))
def test_camoo_matrices_equal_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(3, 4, 4))
    hessians = np.array([f @ f.T for f in factors])
    weights = camoo_weights(hessians)
    least = np.linalg.eigvalsh(np.tensordot(weights, hessians, axes=1))[0]
    grid = _simplex(3, 60)
    best = max(np.linalg.eigvalsh(np.tensordot(w, hessians, axes=1))[0] for w in grid)
    assert least >= best - 1e-9
    assert least <= best + np.abs(hessians).sum() / 60


def test_camoo_of_diagonal_matrices_is_the_linear_programme() -> None:
    diagonals = np.array([[1.0, 0.1, 0.5], [0.2, 1.0, 0.4]])
    matrices = np.array([np.diag(d) for d in diagonals])
    assert camoo_weights(matrices) == pytest.approx(camoo_weights(diagonals), abs=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_pamoo_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gradients, gaps = rng.normal(size=(5, 2)), rng.uniform(0.1, 2.0, 2)
    gram = gradients.T @ gradients

    def value(w: FloatArray) -> Any:
        return 2 * w @ gaps - np.einsum("...i,ij,...j->...", w, gram, w)

    weights = pamoo_weights(gradients, gaps)
    assert (weights >= 0).all()
    axis = np.linspace(0, max(3.0, 2 * weights.max()), 400)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    assert value(weights) >= value(grid).max() - 1e-8
    # First-order conditions of the constrained optimum.
    slope = gaps - gram @ weights
    assert slope[weights > 1e-12] == pytest.approx(0.0, abs=1e-6)
    assert (slope[weights <= 1e-12] <= 1e-9).all()


def test_pamoo_of_one_objective_is_the_polyak_step() -> None:
    gradient, gap = np.array([[3.0], [4.0]]), np.array([5.0])
    assert pamoo_weights(gradient, gap) == pytest.approx([5.0 / 25.0])
    assert pamoo_weights(np.zeros((2, 2)), np.array([1.0, 1.0])) == pytest.approx([0.0, 0.0])
    assert equal_weights(4).sum() == 1.0
    with pytest.raises(FloatingPointError):
        pamoo_weights(np.array([[np.nan]]), np.array([1.0]))


def test_pamoo_contracts_as_its_theorem_says_on_aligned_quadratics() -> None:
    # f_1, f_2 share the minimiser 0; each alone is nearly flat in one direction, together they are not.
    hessians = np.array([np.diag([1.0, 0.01]), np.diag([0.01, 1.0])])
    x = np.array([1.0, -1.0])
    beta, mu = 1.0, 0.505  # the best weighting is (1/2, 1/2): least curvature 0.505
    for _ in range(30):
        gradients = np.stack([h @ x for h in hessians], axis=1)
        gaps = np.array([0.5 * x @ h @ x for h in hessians])
        new = x - gradients @ pamoo_weights(gradients, gaps)
        assert new @ new <= (1 - mu / (4 * beta)) * (x @ x) + 1e-15
        x = new


# The notebook problem of the AMOO experiments as facts (problem statement only; own code): a network 20-512-7 learns a random
# network of the same shape; f_i = mean over the batch of (d'H_i d)^{a_i}, d the error of the outputs.
_DIAGONALS = {
    "selection": np.array([[1.0] * 7, [1.0, 0.01] * 3 + [1.0], [1.0, 1e-4] * 3 + [1.0]]),
    "switching": np.ones((3, 7)),
}
_POWERS = {"selection": (1.0, 1.0, 1.0), "switching": (1.0, 1.5, 2.0)}


def _train(problem: str, rule: str, rate: float, seed: int, steps: int = 200) -> tuple[float, list[FloatArray]]:
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(123456 + seed)

    def network() -> Any:
        net = torch.nn.Sequential(torch.nn.Linear(20, 512), torch.nn.ReLU(), torch.nn.Linear(512, 7)).double()
        with torch.no_grad():
            for p, bound in zip(net.parameters(), (20, 20, 512, 512), strict=True):
                p.copy_((2 * torch.rand(p.shape, generator=generator, dtype=torch.double) - 1) / bound**0.5)
        return net

    x = 2 * torch.rand(100, 20, generator=generator, dtype=torch.double) - 1
    target = network()(x).detach() / 7 * 20
    net = network()
    diagonals, powers = torch.tensor(_DIAGONALS[problem]), _POWERS[problem]
    optimiser = torch.optim.SGD(net.parameters(), lr=rate)
    history = []
    for _ in range(steps):
        difference = net(x) - target
        squares = torch.stack([(difference**2 * h).sum(1) for h in diagonals], 1)
        losses = torch.stack([(squares[:, i] ** a).mean() for i, a in enumerate(powers)])
        d = difference.detach()
        if rule == "pamoo":
            rows = [torch.autograd.grad((squares[:, i] ** a).sum(), difference, retain_graph=True)[0].sum(0) for i, a in
                    enumerate(powers)]  # fmt: skip
            weights = pamoo_weights(torch.stack(rows, 1).numpy() / 100, losses.detach().numpy(), ridge=1e-8)
        elif rule == "camoo":
            # Diagonal of the Hessian of (d'Hd)^a in d, summed over the batch: 2a s^{a-1} h + 4a(a-1) s^{a-2} h^2 d^2.
            s = squares.detach().clamp_min(1e-30)
            curvature = [
                (2 * a * s[:, i : i + 1] ** (a - 1) * h + 4 * a * (a - 1) * s[:, i : i + 1] ** (a - 2) * h**2 * d**2).sum(0)
                for i, (a, h) in enumerate(zip(powers, diagonals, strict=True))
            ]
            weights = camoo_weights(torch.stack(curvature).numpy())
        else:
            weights = np.ones(3)
        history.append(weights)
        optimiser.zero_grad()
        (losses * torch.tensor(weights)).sum().backward()
        optimiser.step()
    return float(((net(x) - target).detach() ** 2).mean()), history


@pytest.mark.parametrize("seed", range(3))
def test_pamoo_sgd_ends_far_below_equal_weights(seed: int) -> None:
    equal, _ = _train("selection", "equal", 5e-4, seed)
    pamoo, history = _train("selection", "pamoo", 5e-4, seed)
    assert pamoo < equal / 5
    assert max(w.max() for w in history) > 10 * history[0].max(), "the weights grow: an adaptive Polyak step"


def test_camoo_selects_the_best_curvature_and_switches() -> None:
    _, selection = _train("selection", "camoo", 1.5e-3, 0, steps=20)
    assert all(w == pytest.approx([1.0, 0.0, 0.0], abs=1e-9) for w in selection)
    # Squared errors start above the level where the steeper powers are the more curved, and end below it.
    _, switching = _train("switching", "camoo", 1.5e-3, 0)
    assert switching[0] == pytest.approx([0.0, 0.0, 1.0], abs=1e-9)
    assert switching[-1] == pytest.approx([1.0, 0.0, 0.0], abs=1e-9)


def test_alignment_report_of_the_standin(tasks: ModuleType) -> None:
    pytest.importorskip("torch")
    from dse.strategies.amoo.alignment import alignment, group

    task = tasks.datacenter(("embodied", "operational", "latency_s"))
    found = alignment(task, seed=0, points=150)
    assert np.allclose(found.cosine, found.cosine.T)
    assert np.allclose(np.diag(found.cosine), 1.0)
    # More silicon is faster and dearer to make: latency opposes embodied carbon; energy costs time, so it joins operational.
    assert found.cosine[0, 2] < 0 < found.cosine[1, 2]
    assert found.rank_correlation[0, 2] < 0
    assert all(0 not in g or 2 not in g for g in found.groups)
    # The relaxation ranks designs as the exact model does.
    assert (found.relaxation > 0.9).all()
    assert "aligned groups" in str(found)
    assert found.figure().data[0].z.shape == (3, 3)
    assert group(np.array([[1.0, 0.5, -0.1], [0.5, 1.0, 0.9], [-0.1, 0.9, 1.0]])) == ((0,), (1, 2))


def test_gradients_of_the_relaxation_equal_finite_differences(tasks: ModuleType) -> None:
    pytest.importorskip("torch")
    from dse.strategies.amoo.relaxed import Relaxed

    relaxed = Relaxed.of(tasks.datacenter())
    x = np.random.default_rng(0).uniform(0.1, 0.9, (3, 10))
    found = relaxed.evaluate(x)
    for j in range(10):
        step = np.zeros(10)
        step[j] = 1e-6
        numeric = (relaxed.evaluate(x + step).values - relaxed.evaluate(x - step).values) / 2e-6
        assert found.gradients[:, j, :] == pytest.approx(numeric, abs=1e-5, rel=1e-5)


def test_amoo_finds_the_exact_front_of_a_small_space(tasks: ModuleType) -> None:
    pytest.importorskip("torch")
    from dse.fronts.pareto import Front
    from dse.strategies.amoo.search import AmooSearch, evaluate

    task = tasks.tiny_known()
    _, values = evaluate(task, task.rows)
    index = np.arange(len(values))
    exact = Front.of(index, index, values).values
    found = AmooSearch(starts=4, steps=5).front(task, seed=0, rounds=3).values
    assert np.array_equal(np.unique(found, axis=0), np.unique(exact, axis=0))


def test_amoo_beats_random_by_far_and_reports_exact_values(tasks: ModuleType) -> None:
    pytest.importorskip("torch")
    from dse.fronts.pareto import hypervolume
    from dse.strategies.amoo.search import AmooSearch, ExactFront, evaluate

    task = tasks.datacenter(("embodied", "operational"))
    strategy = AmooSearch(polish_evaluations=4000)
    front = strategy.front(task, seed=1, rounds=2)
    _, values = evaluate(task, front.rows)
    assert np.array_equal(values, front.values)
    rng = np.random.default_rng(1)
    draws = rng.integers(0, np.array(task.space.shape), size=(60_000, 10))
    random = ExactFront.empty(task).merged(*evaluate(task, draws))
    reference = np.log(np.maximum(front.values.max(0), random.values.max(0))) + 0.1
    assert hypervolume(np.log(front.values), reference) > 1.02 * hypervolume(np.log(random.values), reference)


def test_tasks_without_a_relaxation_or_with_measured_metrics_are_refused(tasks: ModuleType) -> None:
    from dataclasses import replace

    from dse.strategies import make

    with pytest.raises(UsageError, match="needs every metric known"):
        make("amoo").propose(tasks.tiny_flat(), [], 0, 0)
    with pytest.raises(UsageError, match="differentiable"):
        make("amoo").propose(replace(tasks.tiny_known(), relaxed=None), [], 0, 0)
    with pytest.raises(UsageError, match="did you mean 'pamoo'"):
        make("amoo", rule="pamo").propose(tasks.tiny_known(), [], 0, 0)
