"""Loads of the measured layers of experts: rules of the collectors, against plain loops and their consequences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hw_models.validation.routed_loads import DRAWS, MOST_DRAWS, Dealer, experts_in_turn, routed_loads

SHAPES = [(1, 8, 2), (2, 160, 8), (4, 512, 22), (64, 128, 8), (3000, 8, 2), (777, 60, 6)]


@pytest.mark.parametrize("dealer", Dealer)
@pytest.mark.parametrize("exponent", [0.0, 1.01, 1.2])
@pytest.mark.parametrize(("tokens", "experts", "chosen"), SHAPES)
def test_every_choice_is_dealt(tokens: int, experts: int, chosen: int, exponent: float, dealer: Dealer) -> None:
    """One rank has all choices, no expert more than all tokens; the heaviest of several ranks has its share at least."""
    draws = routed_loads(tokens, experts, chosen, 1, exponent, dealer)
    assert len(draws) == 1 if exponent == 0 else DRAWS <= len(draws) <= MOST_DRAWS
    # Even dealing counts an expert twice where chosen steps go once around: 22 steps of 24 through 512 experts.
    wraps = chosen * math.ceil(experts / chosen) > experts
    for load in draws:
        assert len(load) == experts and sum(load) == tokens * chosen
        assert max(load) <= tokens * (2 if exponent == 0 and wraps else 1) and all(x == int(x) >= 0 for x in load)
    if exponent > 0 and experts % 4 == 0:
        for load in routed_loads(tokens, experts, chosen, 4, exponent, dealer):
            assert len(load) == experts // 4 and sum(load) >= tokens * chosen / 4


def test_even_loads_follow_the_steps() -> None:
    for tokens, experts, chosen in SHAPES:
        step = math.ceil(experts / chosen)
        counts = [0] * experts
        for token in range(tokens):
            for choice in range(chosen):
                start = token if tokens >= step else token * step / tokens
                counts[int(start + choice * step) % experts] += 1
        assert routed_loads(tokens, experts, chosen, 1, 0.0, Dealer.RANK_BY_RANK)[0] == tuple(map(float, counts))


def test_what_rounding_leaves_over() -> None:
    """Two tokens of 160 experts: rounding leaves nearly all 16 choices over, to one rank of older collectors and to all of newer ones."""
    older = routed_loads(2, 160, 8, 8, 1.01, Dealer.HEAVIEST_FIRST)
    newer = routed_loads(2, 160, 8, 8, 1.01, Dealer.RANK_BY_RANK)
    assert min(sum(load) for load in older) >= 10 and max(sum(load) for load in newer) <= 4


@pytest.mark.parametrize("dealer", Dealer)
def test_loads_follow_the_power_law(dealer: Dealer) -> None:
    """Where neither rounding nor the cap of all tokens matters: the upper quartile over the median of x^-1.2 on [1, 0.8 tokens]."""
    tokens = 2_000_000
    loads = np.array(routed_loads(tokens, 512, 1, 1, 1.2, dealer))
    half, quarter = ((1 + q * ((0.8 * tokens) ** -0.2 - 1)) ** (1 / -0.2) for q in (0.5, 0.75))
    ratio = np.quantile(loads, 0.75, axis=1) / np.median(loads, axis=1)
    # Five draws of 512 experts: a quartile of such a law has a standard error of some 15 %, the mean of five 7 %.
    assert ratio.mean() == pytest.approx(quarter / half, rel=0.2)


def test_experts_in_turn() -> None:
    assert experts_in_turn(((3.0, 0.0, 1.0),)) == 2
    # An expert idle in a share of the draws is reached by one of five with the rest of that share to the fifth.
    assert experts_in_turn(((1.0, 0.0), (0.0, 0.0))) == pytest.approx(2 * (1 - 0.75**5))
