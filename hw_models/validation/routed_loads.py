"""Tokens of each expert in the measured layers of experts: how the collectors of aiconfigurator dealt them.

A row gives tokens, experts, experts a token, ranks and the exponent of a power law; what ran follows from rules that the
collectors' source states (read, not copied), and a layer's time depends on them most where tokens are few:

* exponent 0: choice j of token i is expert ``i + j ceil(experts / chosen)``, spread out where tokens are fewer than the step; the
  rank that was timed is the first one.
* else: each expert draws a share of a power law, on [1, 0.8 tokens] where there are more choices than experts, on [0.01, 2] where
  there are not; shares are scaled to the number of choices and rounded. What rounding leaves over goes one by one to the heaviest
  experts (`Dealer.HEAVIEST_FIRST`, older collectors), or rank after rank to its lightest (`Dealer.RANK_BY_RANK`, newer ones). The
  rank with most choices is timed; a row is the mean of five draws.

The draws themselves were not recorded: ours have fixed seeds, and are more where experts are few.
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
DRAWS: Final = 5  # of a measured row
MOST_DRAWS, DRAWN_EXPERTS = 40, 1280  # we draw until we have seen this many experts, so that our own draws do not add to the error
SHARE_OF_TOKENS: Final = 0.8  # upper end of the power law where choices outnumber experts
FEW: Final = (0.01, 2.0)  # its ends where they do not


class Dealer(Enum):
    """Which experts get what rounding leaves over."""

    HEAVIEST_FIRST = 0
    RANK_BY_RANK = 1


@lru_cache(maxsize=16384)
def routed_loads(tokens: int, experts: int, chosen: int, ranks: int, exponent: float, dealer: Dealer) -> tuple[tuple[float, ...], ...]:
    """Tokens of each expert of the rank that was timed, for each draw (one where loads are even)."""
    if exponent == 0:
        return (tuple(_even(tokens, experts, chosen)[: experts // ranks].astype(float).tolist()),)
    found = []
    for seed in range(min(MOST_DRAWS, max(DRAWS, DRAWN_EXPERTS // experts))):
        load = _drawn(tokens, experts, chosen, ranks, exponent, dealer, np.random.default_rng(seed))
        by_rank = load[: experts // ranks * ranks].reshape(ranks, -1)
        found.append(tuple(by_rank[by_rank.sum(axis=1).argmax()].astype(float).tolist()))
    return tuple(found)


@lru_cache(maxsize=16384)
def experts_in_turn(draws: tuple[tuple[float, ...], ...]) -> float:
    """Experts of the timed rank that the draws of a row reach, in the mean: their weights pass before the first draw comes again."""
    if len(draws) == 1:
        return float(np.count_nonzero(draws[0]))
    idle = float((np.asarray(draws) == 0).mean())
    return len(draws[0]) * (1.0 - idle**DRAWS)


def _even(tokens: int, experts: int, chosen: int) -> IntArray:
    step = -(-experts // chosen)
    first = np.arange(tokens) if tokens >= step else np.arange(tokens) * step / tokens
    at = (first[:, None] + step * np.arange(chosen)).astype(np.int64) % experts
    return np.bincount(at.ravel(), minlength=experts)


def _drawn(tokens: int, experts: int, chosen: int, ranks: int, exponent: float, dealer: Dealer, generator: np.random.Generator) -> IntArray:
    low, high = (1.0, SHARE_OF_TOKENS * tokens) if tokens * chosen > experts else FEW
    a = 1.0 - exponent
    share = ((high**a - low**a) * generator.random(experts) + low**a) ** (1 / a)
    load = np.round(share / share.sum() * tokens * chosen).astype(np.int64)
    if dealer is Dealer.HEAVIEST_FIRST:
        return _heaviest_first(load, tokens, chosen)
    return _rank_by_rank(load, tokens, chosen, ranks)


def _heaviest_first(load: IntArray, tokens: int, chosen: int) -> IntArray:
    order = np.argsort(-load, kind="stable")
    left = tokens * chosen - int(load.sum())
    if left > 0:
        load = load + np.bincount(order[np.arange(left) % len(load)], minlength=len(load))
    for i in range(-left):
        at = order[-(i % len(load)) - 1]
        load[at if load[at] > 0 else load.argmax()] -= 1
    # A token cannot take an expert twice: what an expert has beyond all tokens is chosen among the others, of equal score, by index.
    excess = np.maximum(load - tokens, 0)
    load = load - excess
    left = int(excess.sum())
    for at in range(len(load)):
        more = min(left, tokens - int(load[at]))
        load[at] += more
        left -= more
    return load


def _rank_by_rank(load: IntArray, tokens: int, chosen: int, ranks: int) -> IntArray:
    excess = int(np.maximum(load - tokens, 0).sum())
    by_rank = np.minimum(load, tokens)[: len(load) // ranks * ranks].reshape(ranks, -1)
    _adjust(by_rank, excess, tokens)
    _adjust(by_rank, tokens * chosen - int(by_rank.sum()), tokens)
    return by_rank.ravel()


def _adjust(by_rank: IntArray, left: int, most: int) -> None:
    """Adds (``left`` < 0: takes) one token of a rank's lightest (heaviest) expert, rank after rank."""
    sign = 1 if left > 0 else -1
    left = abs(left)
    while left:
        before = left
        for load in by_rank:
            at = int(load.argmin() if sign > 0 else load.argmax())
            if left and (load[at] < most if sign > 0 else load[at] > 0):
                load[at] += sign
                left -= 1
        if left == before:
            return
