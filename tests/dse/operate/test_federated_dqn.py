"""The DQN version: what is shared and what is not, its networks against torch, and weeks that are run without a miss."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gymnasium")

from dse.errors import DseError
from dse.operate import device, scenario
from dse.operate.environment import Batch
from dse.operate.federated.dqn import Networks, SitePolicy, join, train
from dse.operate.simulation import simulate
from dse.operate.weeks import Weeks


@pytest.fixture(scope="module")
def weeks() -> list[Weeks]:
    """One week of two grids."""
    return [scenario.Scenario(device.example(), (name,)).prepared().weeks("train", most=1) for name in ("CISO", "ERCO")]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "trunks", "heads"), [("personal", 1, 2), ("one for all", 1, 1), ("fedavg", 2, 2), ("alone", 2, 2)])
def test_what_is_shared(weeks: list[Weeks], way: str, trunks: int, heads: int) -> None:
    learnt = train(weeks, way=way, passes=1)
    assert [len(w) for w in learnt.trunk] == [trunks] * 4
    assert [len(w) for w in learnt.head] == [heads] * 2
    if way == "alone":
        # A site alone learns the same whatever the other one is.
        twice = train([weeks[0], weeks[0]], way=way, passes=1)
        assert np.allclose(learnt.trunk[0][0], twice.trunk[0][0], atol=1e-5)  # single precision, and sums of another order
        assert not np.allclose(learnt.trunk[0][1], twice.trunk[0][1], atol=1e-3)
    if way == "fedavg":  # 168 steps: the last average was eight steps ago
        assert 0 < np.abs(learnt.trunk[0][0] - learnt.trunk[0][1]).max() < 0.1
    assert simulate(weeks[1], SitePolicy(learnt, 1)).missed.sum() == 0


@pytest.mark.slow
def test_the_same_seed_learns_the_same(weeks: list[Weeks]) -> None:
    one, again, other = (train(weeks, passes=1, seed=seed) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip((*one.trunk, *one.head), (*again.trunk, *again.head), strict=True))
    assert not np.allclose(one.trunk[0], other.trunk[0])


def test_networks_are_torchs(weeks: list[Weeks]) -> None:
    """Each site's values, by modules of torch with its weights."""
    import torch

    rng = np.random.default_rng(0)
    numbers, actions = Batch(weeks[0]).observe().shape[1], Batch(weeks[0]).actions
    sizes = ((1, numbers, 8), (1, 1, 8), (1, 8, 6), (1, 1, 6), (2, 6, actions), (2, 1, actions))
    made = [rng.standard_normal(size) for size in sizes]
    networks = Networks((made[0], made[1], made[2], made[3]), (made[4], made[5]))
    seen = rng.standard_normal((5, numbers))
    for site in range(2):
        layers = [torch.nn.Linear(numbers, 8), torch.nn.ReLU(), torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, actions)]
        for layer, (w, b) in zip(
            layers[::2], ((made[0][0], made[1][0]), (made[2][0], made[3][0]), (made[4][site], made[5][site])), strict=True
        ):
            layer.weight.data, layer.bias.data = torch.as_tensor(w.T.copy()), torch.as_tensor(b[0])
        expected = torch.nn.Sequential(*layers)(torch.as_tensor(seen)).detach().numpy()
        assert np.allclose(networks.values(site, seen), expected)


@pytest.mark.slow
def test_a_new_site_joins_a_trunk_that_stays(weeks: list[Weeks]) -> None:
    others = train(weeks, passes=1)
    frozen, freed = (join(others, weeks[1], passes=2, frozen_passes=passes, seed=1) for passes in (None, 1))
    assert all(np.allclose(a, b, atol=1e-7) for a, b in zip(frozen.trunk, others.trunk, strict=True))  # single precision
    assert not np.allclose(freed.trunk[0], others.trunk[0], atol=1e-4)
    assert np.abs(frozen.head[0] - others.head[0][1:]).max() > 0.01
    assert simulate(weeks[1], SitePolicy(frozen, 0)).missed.sum() == 0


def test_limits_of_arguments(weeks: list[Weeks]) -> None:
    with pytest.raises(DseError, match="way 'personel' is unknown"):
        train(weeks, way="personel")
    longer = scenario.Scenario(device.example(), ("CISO",)).prepared().weeks("train", most=2)
    with pytest.raises(DseError, match="the same number of weeks"):
        train([weeks[0], longer])
    with pytest.raises(DseError, match="at least one site"):
        train([])
    layers = np.zeros((2, 41, 64)), np.zeros((2, 1, 64)), np.zeros((2, 64, 64)), np.zeros((2, 1, 64))
    with pytest.raises(DseError, match="joins a shared trunk, got 2"):
        join(Networks(layers, layers[:2]), weeks[0])
    with pytest.raises(DseError, match="trunk has layers"):
        join(Networks((layers[0][:1, :7], layers[1][:1], layers[2][:1], layers[3][:1]), layers[:2]), weeks[0])
