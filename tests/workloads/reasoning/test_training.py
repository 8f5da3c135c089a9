"""Losses from first principles, the task's oracle, resets that keep their prefix, and how rollouts are counted."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from workloads.errors import WorkloadError
from workloads.reasoning import closed_forms
from workloads.reasoning.training import consensus, losses, resets
from workloads.reasoning.training.model import Policy, Size, log_probabilities, write
from workloads.reasoning.training.task import ChainTask

TASK = ChainTask(modulus=5, steps=4)


def _policy(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    return Policy(TASK.vocabulary, TASK.prompt_tokens + TASK.steps, Size(layers=1, width=16, heads=2, ffn=32))


# ---- losses ----


def test_gradient_on_a_bandit_is_reinforce() -> None:
    logits = torch.tensor([0.3, -0.5, 1.1], requires_grad=True)
    arms, advantages = torch.tensor([0, 2, 2, 1]), torch.tensor([1.5, -0.5, 0.25, 2.0])
    log_p = torch.log_softmax(logits, 0)[arms][:, None]
    losses.policy_loss(log_p, advantages, torch.ones(4, 1)).backward()
    chances = torch.softmax(logits.detach(), 0)
    wanted = -sum(a * (torch.eye(3)[arm] - chances) for a, arm in zip(advantages, arms, strict=True)) / 4
    assert torch.allclose(logits.grad, wanted, atol=1e-6)


def test_expected_gradient_on_a_bandit_raises_the_expected_reward() -> None:
    # Arms weighted by their chances and advantages against the mean: minus the gradient of the expected reward.
    logits, rewards = (
        torch.tensor([0.2, 0.9, -0.4], dtype=torch.float64, requires_grad=True),
        torch.tensor([1.0, 0.0, 0.5], dtype=torch.float64),
    )
    chances = torch.softmax(logits, 0).detach()
    advantages = (rewards - (chances * rewards).sum()) * chances * 3
    losses.policy_loss(torch.log_softmax(logits, 0)[:, None], advantages, torch.ones(3, 1, dtype=torch.float64)).backward()
    exact = torch.autograd.functional.jacobian(lambda x: (torch.softmax(x, 0) * rewards).sum(), logits.detach())
    assert torch.allclose(logits.grad, -exact)


def test_clipping_stops_the_gradient_beyond_the_ratio() -> None:
    old = torch.zeros(4, 1)
    log_p = torch.log(torch.tensor([[1.5], [0.5], [1.5], [0.5]])).requires_grad_()
    losses.policy_loss(log_p, torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.ones(4, 1), old=old, clip=0.2).backward()
    # Up with a good reward and down with a bad one are cut; the way back is not.
    assert log_p.grad[:, 0].tolist() == pytest.approx([0.0, -0.5 / 4, 1.5 / 4, 0.0])


def test_a_shared_prefix_gets_no_gradient() -> None:
    base, suffixes = torch.randn(2, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    at = torch.tensor([1, 3, 4])
    losses.reset_loss(base, torch.tensor([1.0, -1.0]), suffixes, torch.tensor([1.0, 2.0, -3.0]), at).backward()
    tokens = 2 * 4 + 4 + 2 + 1
    wanted = torch.tensor([[1.0, 1, 1, 1], [0, 0, 2, 2], [0, 0, 0, -3]])
    assert torch.allclose(suffixes.grad, -wanted / tokens)
    assert torch.allclose(base.grad, -torch.tensor([[1.0] * 4, [-1.0] * 4]) / tokens)
    assert losses.suffix_mask(torch.tensor([2]), 6, per_thought=2).tolist() == [[0, 0, 1, 1, 1, 1]]


def test_no_gradient_reaches_the_policy_through_the_prefix() -> None:
    # A suffix whose every token is prefix leaves the policy as it was.
    policy = _policy()
    prompts = torch.from_numpy(TASK.prompts(np.random.default_rng(0), 3))
    values, _ = write(policy, prompts, TASK.steps, generator=torch.Generator().manual_seed(0))
    log_p = log_probabilities(policy, prompts, values)
    losses.policy_loss(log_p, torch.ones(3), losses.suffix_mask(torch.full((3,), TASK.steps + 1), TASK.steps)).backward()
    assert all(not p.grad.any() for p in policy.parameters())


def test_group_advantages_are_those_of_the_loops() -> None:
    rewards = np.array([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])
    found = losses.group_advantages(torch.from_numpy(rewards)).numpy()
    for row, wanted in zip(found, rewards, strict=True):
        assert np.allclose(row, closed_forms.group_advantages(wanted))
    assert np.allclose(
        losses.group_advantages(torch.from_numpy(rewards), scale=False).numpy(), rewards - rewards.mean(axis=1, keepdims=True)
    )
    assert not losses.group_advantages(torch.ones(2, 1)).any()


def test_dpo_and_kto_at_the_reference() -> None:
    chosen, rejected = (torch.tensor([-3.0, -1.0], requires_grad=True) for _ in range(2))
    loss = losses.dpo_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.4)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert chosen.grad.tolist() == pytest.approx([-0.1, -0.1]) and rejected.grad.tolist() == pytest.approx([0.1, 0.1])
    log_p = torch.tensor([-2.0, -1.0, -4.0, -3.0], requires_grad=True)
    loss = losses.kto_loss(log_p, log_p.detach(), torch.tensor([True, False, True, False]), beta=0.4)
    loss.backward()
    assert loss.item() == pytest.approx(0.5)
    assert log_p.grad.tolist() == pytest.approx([-0.025, 0.025, -0.025, 0.025])  # beta / 4 / chains
    # Away from it: a pair whose log-ratios differ by d has loss log(1 + exp(-beta d)).
    apart = losses.dpo_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([2.0]), beta=0.5)
    assert apart.item() == pytest.approx(math.log1p(math.exp(-1.5)))


def test_imitation_is_cross_entropy_of_what_agrees() -> None:
    log_p = torch.tensor([[-1.0, -2.0], [-4.0, -8.0]])
    assert losses.sft_loss(log_p, torch.tensor([[1.0, 1], [0, 0]])).item() == pytest.approx(1.5)
    assert losses.sft_loss(log_p, torch.zeros(2, 2)).item() == 0


# ---- the task ----


def test_first_wrong_step_is_found_and_wrong_values_stay_wrong() -> None:
    rng = np.random.default_rng(1)
    prompts = TASK.prompts(rng, 400)
    right = TASK.solutions(prompts)
    assert not TASK.first_wrong(prompts, right).any() and TASK.rewards(prompts, right).all()
    places = rng.integers(1, TASK.steps + 1, 400)
    broken = right.copy()
    for row, place in enumerate(places):  # one slip, and all after it follows from it
        value = broken[row, place - 1] = (right[row, place - 1] + 1) % TASK.modulus
        for step in range(place, TASK.steps):
            value = broken[row, step] = TASK.apply(prompts[row : row + 1], step, np.array([value]))[0]
    assert (TASK.first_wrong(prompts, broken) == places).all()
    assert not TASK.rewards(prompts, broken).any()


def test_noise_errs_as_often_as_it_says() -> None:
    prompts = TASK.prompts(np.random.default_rng(2), 20_000)
    values = TASK.noisy(np.random.default_rng(3), prompts, 0.5, 0.1)
    before = np.concatenate([prompts[:, :1], values[:, :-1]], axis=1)
    wrong = np.stack([values[:, k] != TASK.apply(prompts, k, before[:, k]) for k in range(TASK.steps)], axis=1)
    hard = TASK.hard(prompts)
    # Four standard errors of 26,000 and 53,000 steps.
    assert abs(wrong[hard].mean() - 0.5) < 0.013 and abs(wrong[~hard].mean() - 0.1) < 0.006
    assert 0.25 < hard.mean() < 0.42


@pytest.mark.parametrize(("modulus", "steps", "told"), [(9, 4, "prime"), (101, 4, "prime"), (5, 0, "steps is 0")])
def test_task_is_checked(modulus: int, steps: int, told: str) -> None:
    with pytest.raises(WorkloadError, match=told):
        ChainTask(modulus, steps)


# ---- writing and training ----


def test_writing_with_a_cache_is_the_whole_pass_and_keeps_the_prefix() -> None:
    policy = _policy()
    prompts = torch.from_numpy(TASK.prompts(np.random.default_rng(4), 6))
    values, told = write(policy, prompts, TASK.steps, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(told, log_probabilities(policy, prompts, values), atol=1e-5)
    until = torch.tensor([0, 1, 2, 3, 4, 2])
    again, _ = write(policy, prompts, TASK.steps, generator=torch.Generator().manual_seed(2), kept=values, until=until)
    for row, count in enumerate(until.tolist()):
        assert (again[row, :count] == values[row, :count]).all()
    greedy, chances = write(policy, prompts, TASK.steps, generator=torch.Generator(), greedy=True)
    assert (chances <= 0).all() and (greedy < TASK.vocabulary).all()


def test_localisers() -> None:
    truth, told = np.array([2, 4, 1, 3] * 500), np.tile([[-0.1, -0.2, -3.0, -0.1]], (2000, 1))
    rng = np.random.default_rng(0)

    def hit(method: resets.Method) -> float:
        return float((resets.localise(method, rng, truth, told) == truth).mean())

    assert hit(resets.Method(4, 4, "oracle")) == 1
    assert hit(resets.Method(4, 4, "self")) == pytest.approx(0.25)  # always thought 3
    assert hit(resets.Method(4, 4, "random")) == pytest.approx(0.25, abs=0.04)
    assert hit(resets.Method(4, 4, "oracle", 0.6)) == pytest.approx(0.6 + 0.4 / 4, abs=0.045)


@pytest.mark.parametrize(
    "method", [resets.Method(8), resets.Method(2, 6, "random"), resets.Method(1, 8, "oracle"), resets.Method(4, 4, "self")]
)
def test_tokens_a_step_are_matched_and_runs_repeat(method: resets.Method) -> None:
    settings = resets.Settings(rate=1e-3, tokens_a_step=400, tokens=4000)
    found = [resets.train(_policy(), TASK, method, settings, seed=3, at_rollouts=500) for _ in range(2)]
    assert found[0] == found[1]
    assert 4000 <= found[0].tokens < 4800 and 8 <= found[0].steps <= 13
    assert found[0].rollouts >= found[0].tokens / TASK.steps  # a suffix is shorter than a chain
    assert found[0].hit == (1.0 if method.localiser == "oracle" else found[0].hit)
    other = resets.train(_policy(), TASK, method, settings, seed=4)
    assert other != found[0]


def test_a_policy_learns_from_rewards() -> None:
    task = ChainTask(modulus=3, steps=1)
    torch.manual_seed(0)
    policy = Policy(task.vocabulary, task.prompt_tokens + 1, Size(layers=1, width=16, heads=2, ffn=32))
    before = resets.accuracy(policy, task, count=500)
    resets.train(policy, task, resets.Method(8), resets.Settings(rate=3e-3, tokens_a_step=256, tokens=256 * 80), seed=0)
    assert resets.accuracy(policy, task, count=500) > before + 0.15


def test_methods_and_intervals_are_checked() -> None:
    for wrong in (
        {"base": 0},
        {"base": 4, "suffixes": 4},
        {"base": 4, "localiser": "oracle"},
        {"base": 1, "suffixes": 2, "localiser": "judge"},
    ):
        with pytest.raises(WorkloadError):
            resets.Method(**wrong)
    first, second = [0.5, 0.6, 0.8, 0.4], [0.4, 0.55, 0.6, 0.5]
    interval = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert resets.paired_interval(first, second) == pytest.approx((0.0625, interval.low, interval.high))
    with pytest.raises(WorkloadError, match="equally many"):
        resets.paired_interval([1.0], [1.0])


# ---- consensus ----


def test_majorities_against_counting() -> None:
    rows = np.array(list(itertools.product(range(3), repeat=4)))
    found = consensus.majorities(rows)
    for row, label in zip(rows.tolist(), found.tolist(), strict=True):
        most = max(row.count(x) for x in row)
        assert label == next(x for x in row if row.count(x) == most)


def test_pairs_are_of_one_prompt_and_of_both_sides() -> None:
    agree = np.array([[True, False, True], [True, True, True], [False, False, True]])
    chosen, rejected = consensus.pairs(agree, np.random.default_rng(0))
    assert len(chosen) == 2 * consensus.PAIRS
    assert agree.reshape(-1)[chosen].all() and not agree.reshape(-1)[rejected].any()
    assert (chosen // 3 == rejected // 3).all()


@pytest.mark.parametrize("signal", consensus.SIGNALS)
def test_every_signal_moves_the_policy_and_repeats(signal: str) -> None:
    found = []
    for _ in range(2):
        policy = _policy()
        before = [p.detach().clone() for p in policy.parameters()]
        consensus.train_consensus(policy, TASK, signal, resets.Settings(rate=1e-3, tokens_a_step=128, tokens=512), seed=1, agents=4)
        assert any(not torch.equal(a, b) for a, b in zip(before, policy.parameters(), strict=True))
        found.append(consensus.agreement(policy, TASK, agents=4, count=50))
    assert found[0] == found[1]
    assert 0.25 <= found[0].consistency <= 1


def test_imitating_the_majority_makes_agents_agree() -> None:
    task = ChainTask(modulus=3, steps=1)
    torch.manual_seed(1)
    policy = Policy(task.vocabulary, task.prompt_tokens + 1, Size(layers=1, width=16, heads=2, ffn=32))
    before = consensus.agreement(policy, task, count=200)
    consensus.train_consensus(policy, task, "sft", resets.Settings(rate=3e-3, tokens_a_step=256, tokens=256 * 60), seed=0)
    assert consensus.agreement(policy, task, count=200).consistency > before.consistency + 0.1
    with pytest.raises(WorkloadError, match="signal"):
        consensus.train_consensus(policy, task, "ppo", resets.Settings(), seed=0)
