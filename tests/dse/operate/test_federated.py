"""Federated temporal differences: exact small cases, what is promised of the representation, and the joining of a site."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dse.errors import DseError
from dse.operate.federated.linear import WAYS, Chains, Learnt, constant, draw_sites, join, learn


def test_drawn_sites_are_markov_reward_processes_with_values_in_the_subspace() -> None:
    """Bellman's equation holds for V = Phi B w, by solving it."""
    sites = draw_sites(2, 3, states=12, d=6, k=2, seed=4)
    for b in range(2):
        for n in range(3):
            p, r = sites.transitions[b, n], sites.rewards[b, n]
            assert np.allclose(p.sum(axis=1), 1)
            assert np.allclose(np.linalg.solve(np.eye(12) - sites.discount * p, r), sites.values[b, n])
            assert np.allclose(sites.stationary[b, n] @ p, sites.stationary[b, n])
            assert sites.stationary[b, n].min() >= -1e-12
    again, other = draw_sites(2, 3, states=12, d=6, k=2, seed=4), draw_sites(2, 3, states=12, d=6, k=2, seed=5)
    assert np.array_equal(sites.rewards, again.rewards)
    assert not np.array_equal(sites.rewards, other.rewards)
    whitened = draw_sites(2, 5, d=8, k=2, spread=True).heads
    assert np.allclose(np.einsum("bnj,bnk->bjk", whitened, whitened), 5 * 4 * np.eye(2))


def test_chains_visit_states_as_often_as_the_stationary_distribution_says() -> None:
    """One long walk: relative frequencies within four standard errors of independent draws, doubled for the correlation of a chain."""
    sites = draw_sites(1, 1, states=6, d=6 - 1, k=2)
    chains = Chains(sites, seed=1)
    features = sites.features[0]
    counts, rewards, steps = np.zeros(6), np.zeros(6), 20_000
    for _ in range(steps):
        now, reward, _ = chains.step()
        s = int(np.argmin(((features - now[0, 0]) ** 2).sum(axis=1)))
        counts[s] += 1
        rewards[s] += reward[0, 0]
    p = sites.stationary[0, 0]
    assert np.all(np.abs(counts / steps - p) <= 8 * np.sqrt(p * (1 - p) / steps))
    assert np.all(np.abs(rewards / counts - sites.rewards[0, 0]) <= 5 * sites.noise / np.sqrt(counts))


def test_one_step_by_hand() -> None:
    """The update of the docstring, written out site by site."""
    sites = draw_sites(1, 3, states=7, d=4, k=2)
    alpha, beta = 0.05, 0.2
    start = learn(sites, 0, seed=3)
    after = learn(sites, 1, schedule=constant(alpha, beta), seed=3)
    now, reward, then = Chains(sites, 3).step()
    b, w = start.subspace[0, 0], start.heads[0]
    body = b.copy()
    heads = []
    for n in range(3):
        delta = reward[0, n] + sites.discount * then[0, n] @ b @ w[n] - now[0, n] @ b @ w[n]
        heads.append(w[n] + beta * delta * b.T @ now[0, n])
        body += alpha * delta * np.outer(now[0, n], w[n]) / 3
    # B is made orthonormal with the heads turned along, so that what they stand for together is unchanged.
    for n in range(3):
        assert np.allclose(after.subspace[0, 0] @ after.heads[0, n], body @ heads[n])
    assert np.allclose(after.subspace[0, 0].T @ after.subspace[0, 0], np.eye(2))


def test_errors_of_known_answers() -> None:
    sites = draw_sites(2, 3)
    right = Learnt(sites.subspace[:, None], sites.heads, 0)
    assert np.allclose(right.subspace_error(sites), 0)
    assert np.allclose(right.value_error(sites), 0)
    nothing = replace(right, heads=np.zeros_like(sites.heads))
    assert np.allclose(nothing.value_error(sites), 1)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 2)))[0]
    turned = Learnt((sites.subspace @ turn)[:, None], sites.heads @ turn, 0)
    assert np.allclose(turned.subspace_error(sites), 0)
    assert np.allclose(turned.value_error(sites), 0)
    basis = np.linalg.qr(np.concatenate([sites.subspace, np.random.default_rng(1).standard_normal((2, 8, 6))], axis=2))[0]
    outside = Learnt(basis[:, None, :, 2:4], sites.heads, 0)
    assert np.allclose(outside.subspace_error(sites), 1)


def test_no_trajectory_leaves_a_site() -> None:
    """A site's own data do not change what another one keeps, beyond the shared representation; and what is sent is counted."""
    sites = draw_sites(1, 4)
    changed = replace(sites, rewards=sites.rewards + np.array([0, 0, 0, 5.0])[None, :, None])
    one, other = (learn(s, 1, schedule=constant(0.0, 0.2)) for s in (sites, changed))
    assert np.array_equal(one.heads[:, :3], other.heads[:, :3])
    assert not np.array_equal(one.heads[:, 3], other.heads[:, 3])
    steps = 40
    assert {way: learn(sites, steps, way=way).sent for way in WAYS} == {
        "personal": steps * 16,
        "one for all": steps * 18,
        "fedavg": 4 * 18,
        "alone": 0,
    }


@pytest.mark.slow
def test_the_error_of_the_subspace_falls_as_one_over_the_sites() -> None:
    """From N = 4 = 2 k to 32, 20 seeds, 20,000 steps, constant step sizes: slope -1 +- 0.2 of the mean."""
    counts = (4, 8, 16, 32)
    errors = []
    for n in counts:
        sites = draw_sites(20, n, spread=True)
        errors.append(learn(sites, 20_000, schedule=constant()).subspace_error(sites).mean())
    assert np.polyfit(np.log2(counts), np.log2(errors), 1)[0] == pytest.approx(-1.0, abs=0.2)


def test_more_sites_learn_a_better_subspace() -> None:
    """Four times the sites, at least half the error: the promise is a quarter, and a short run with few seeds scatters."""
    few, many = (draw_sites(6, n, spread=True) for n in (4, 16))
    a, b = (learn(s, 2_500, schedule=constant()).subspace_error(s).mean() for s in (few, many))
    assert b < 0.5 * a


def test_own_heads_beat_one_for_all_where_sites_differ_and_not_where_they_are_alike() -> None:
    differ, alike = draw_sites(4, 8), draw_sites(4, 8, alike=True)
    errors = {way: float(np.median(learn(differ, 4_000, way=way).value_error(differ))) for way in ("personal", "one for all", "fedavg")}
    assert errors["personal"] < 0.1
    assert min(errors["one for all"], errors["fedavg"]) > 0.5
    same = {way: float(np.median(learn(alike, 4_000, way=way).value_error(alike))) for way in ("personal", "one for all")}
    assert same["one for all"] < same["personal"]


def test_a_new_site_needs_at_most_a_quarter_of_the_samples() -> None:
    """In the true subspace of 2 of 8 dimensions, medians over 20 new sites, to 10 % error."""
    sites = draw_sites(20, 1)
    joined = join(sites, sites.subspace, 1_500)
    assert np.all(joined.frozen_samples > 0)
    frozen, alone = (np.median(np.where(n < 0, 10_000, n)) for n in (joined.frozen_samples, joined.alone_samples))
    assert frozen <= alone / 4


def test_a_wrong_subspace_is_left_in_time() -> None:
    """Frozen in a subspace that is a little wrong, a site ends worse than freed from it, and freed no worse than alone."""
    sites = draw_sites(10, 1, noise=0.1)
    rng = np.random.default_rng(0)
    wrong = np.linalg.qr(sites.subspace + 0.3 * rng.standard_normal(sites.subspace.shape))[0]
    joined = join(sites, wrong, 4_000)
    assert np.median(joined.frozen_error) > 3 * np.median(joined.freed_error)
    assert np.median(joined.freed_error) < 2 * np.median(joined.alone_error)


def test_limits_of_arguments() -> None:
    with pytest.raises(DseError, match="1 <= k < d <= states, got k = 8, d = 8"):
        draw_sites(1, 2, k=8)
    with pytest.raises(DseError, match="must be at least k = 2"):
        draw_sites(1, 1, spread=True)
    with pytest.raises(DseError, match=r"way 'personel' is unknown.*did you mean 'personal'"):
        learn(draw_sites(1, 2), 1, way="personel")
