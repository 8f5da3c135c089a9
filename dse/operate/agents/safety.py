"""What keeps a learner from missing deadlines: the filter of :mod:`dse.operate.safety`, or a price on misses that rises until they stop.

The filter promises; the price (reward-constrained policy optimisation: Tessler et al., ICLR 2019) only learns, and is here for comparison
and for loads without envelopes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Lagrangian:
    """The price of a missed request, in what running it costs at the mean: rises while the share of missed work is above ``target``."""

    target: float = 0.0
    rate: float = 200.0
    price: float = 1.0
    most: float = 1e4

    def update(self, missed_share: float) -> float:
        """Gradient step on the multiplier after an episode; returns the price."""
        self.price = min(max(self.price + self.rate * (missed_share - self.target), 0.0), self.most)
        return self.price
