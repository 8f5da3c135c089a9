"""The environment: both checkers, masks that mean something, and rewards that add up to the grams."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dse.operate import device, environment, features, policies, scenario, simulation

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def weeks():
    return scenario.Scenario(device.example(), ("CISO",)).prepared().weeks("train", most=4)


@pytest.mark.parametrize("control", environment.CONTROLS)
def test_both_checkers_pass(weeks, control: str) -> None:
    check_env(environment.OperateEnv(weeks, control=control), skip_render_check=True)
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    checker.check_env(environment.OperateEnv(weeks, control=control))


def test_two_sites_pass_too() -> None:
    both = scenario.Scenario(device.example(), ("CISO", "ERCO")).prepared().weeks("train", most=2)
    check_env(environment.OperateEnv(both), skip_render_check=True)
    with pytest.raises(ValueError, match="control 'chips' is of one site"):
        environment.OperateEnv(both, control="chips")


@pytest.mark.parametrize("control", environment.CONTROLS)
def test_random_valid_actions_miss_no_deadline(weeks, control: str) -> None:
    batch = environment.Batch(weeks, control=control)
    rng = np.random.default_rng(0)
    while not batch.queue.done:
        valid = batch.masks()
        assert valid.any(axis=1).all()
        action = np.array([rng.choice(np.flatnonzero(row)) for row in valid])
        seen = batch.observe()
        assert np.isfinite(seen).all() and np.abs(seen).max() <= 5.0 and seen.shape[1] == len(features.names())
        batch.run(batch.wanted(action))
    assert batch.queue.missed.max() == 0.0


def test_rewards_add_up_to_grams(weeks) -> None:
    """Two policies' rewards differ by their grams over one factor a week, as the page says."""
    returns, grams = [], []
    for policy in (policies.Now(), policies.Plan()):
        batch = environment.Batch(weeks)
        policy.begin(weeks)
        total = np.zeros(weeks.episodes)
        while not batch.queue.done:
            reward, _ = batch.run(policy.work(batch.queue, batch.view.room(batch.queue)))
            total += reward
        returns.append(total)
        grams.append(simulation.simulate(weeks, policy).grams)
    curve = weeks.curves[0]
    unit = weeks.intensity[:, 0, :24].mean(axis=1) * curve.slopes[0] * weeks.arrival_expected.sum(axis=2).mean(axis=1)
    assert returns[1] - returns[0] == pytest.approx((grams[0] - grams[1]) / unit, rel=1e-9)


def test_a_mask_names_the_actions_that_carry_what_must_run(weeks) -> None:
    batch = environment.Batch(weeks, control="chips")
    while not batch.queue.done:
        valid, t = batch.masks(), batch.queue.hour
        least = batch.view.guard.least(batch.queue)
        for e in range(weeks.episodes):
            for action in np.flatnonzero(valid[e]):
                share, clock = batch._steps[action]
                point = next(p for p in device.example().points if p.clock == clock)
                able = share * weeks.curves[0].chips_all * 0.8 * point.requests_per_h
                assert able * (1 + 1e-6) >= weeks.firm[e, 0, t] + min(least[e], batch.queue.total[e]) or share == 1.0
        batch.run(batch.wanted(np.array([np.flatnonzero(row)[0] for row in valid])))
    assert batch.queue.missed.max() == 0.0


def test_the_same_seed_is_the_same_week(weeks) -> None:
    one, two = environment.OperateEnv(weeks), environment.OperateEnv(weeks)
    assert np.array_equal(one.reset(seed=4)[0], two.reset(seed=4)[0])
    for action in (1, 0, 4, 2):
        a, b = one.step(np.int64(action)), two.step(np.int64(action))
        assert np.array_equal(a[0], b[0]) and a[1] == b[1]
