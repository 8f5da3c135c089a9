"""The agent as a strategy: its model against a closed form, and that it learns where there is something linear to learn."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from dse.errors import UsageError
from dse.strategies.bandit import BanditSearch, _features, _rewards
from dse.strategies.protocol import simulate
from dse.strategies.sampling import RandomSearch


def test_rewards_by_hand() -> None:
    """Trial 0 has two points, trial 2 none: its reward is that of the worst. Objectives are scaled to [0, 1] before they are weighed."""
    points = np.array([[0.0, 10.0], [1.0, 0.0], [2.0, 5.0]])
    owners = np.array([0, 0, 1])
    weights = np.array([0.5, 0.5])
    cost = np.array([0.25, 0.75, 0.75])  # min(0 + 0.5, 0.25 + 0) = 0.25; 0.5 + 0.25; worst
    expected = (cost.mean() - cost) / cost.std()
    assert np.allclose(_rewards(points, owners, 3, weights), expected)


def test_features(tasks: ModuleType) -> None:
    """Places of a parameter's values lie in [-1, 1], and the values of a short list are told apart."""
    task = tasks.tiny_nested()
    seen = _features(task, task.rows)
    assert np.all(np.abs(seen) <= 1)
    assert np.linalg.matrix_rank(seen) > len(task.space.shape)
    assert len(np.unique(seen, axis=0)) == len(task.rows)


@pytest.mark.slow  # the stand-in's exact hardware fronts take most of it
@pytest.mark.parametrize("exploration", ["thompson", "epsilon"])
def test_it_finds_more_than_random_designs_do(tasks: ModuleType, exploration: str) -> None:
    """On the stand-in, medians over five seeds after 25 trials."""
    view, reference = tasks.standin_nested(), tasks.reference_point()

    def found(make: type) -> float:
        options = {"exploration": exploration} if make is BanditSearch else {}
        shares = [view.hypervolume(simulate(view, make(**options), budget=25, seed=seed), reference) for seed in range(5)]
        return float(np.median(shares))

    assert found(BanditSearch) > found(RandomSearch)


def test_exploration_must_be_known() -> None:
    with pytest.raises(UsageError, match=r"exploration 'tompson' is unknown.*did you mean 'thompson'"):
        BanditSearch(exploration="tompson")
