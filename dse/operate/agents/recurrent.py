"""History as a summary that is learnt: an LSTM (Hochreiter and Schmidhuber, Neural Computation 1997) beside the observation.

The network sees the observation and the LSTM's state; it is taught, over whole weeks, what each share costs under the plan's own model, in
the hours that it meets itself (as `dse.operate.agents.learners.imitation`, which sees the observation alone). As a policy it runs on numpy.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from dse.errors import UsageError
from dse.operate.agents.learners import HIDDEN, cost_between, costs_of_shares
from dse.operate.agents.network import Learnt, Network
from dse.operate.features import size_of
from dse.operate.weeks import Weeks

STATE = 16
SIDE = 16  # weeks that are seen together


class _Net(torch.nn.Module):
    """A score an hour for observations (hours, weeks, numbers)."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(numbers, STATE)
        sizes = (numbers + STATE, *HIDDEN)
        layers = [torch.nn.Linear(before, after) for before, after in pairwise(sizes)]
        self.layers = torch.nn.ModuleList([*layers, torch.nn.Linear(sizes[-1], 1)])

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        """Scores (hours, weeks)."""
        x = torch.cat([seen, self.lstm(seen)[0]], dim=2)
        for layer in list(self.layers)[:-1]:
            x = torch.tanh(layer(x))
        scores: torch.Tensor = self.layers[-1](x)[..., 0]
        return scores

    def network(self, about: dict[str, Any]) -> Network:
        """As plain numbers."""

        def plain(t: torch.Tensor) -> Any:
            return t.detach().numpy().astype(np.float64)

        part = {name: plain(value) for name, value in self.lstm.named_parameters()}
        recurrent = (part["weight_ih_l0"], part["weight_hh_l0"], part["bias_ih_l0"] + part["bias_hh_l0"])
        weights, biases = (tuple(plain(getattr(layer, name)) for layer in self.layers) for name in ("weight", "bias"))
        return Network(weights, biases, "share", 1, about, recurrent)


def imitation(weeks: Weeks, *, seed: int = 0, rounds: int = 3, epochs: int = 15) -> Network:
    """Imitate planning with a memory, at one site; ten CPU seconds for 130 weeks."""
    if weeks.sites != 1:
        raise UsageError(f"imitation with an LSTM is of one site, got {weeks.sites}")
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = _Net(size_of(weeks))
    about = {"learnt_by": "imitation", "history": "lstm", "seed": seed}
    seen: list[torch.Tensor] = []
    costs: list[torch.Tensor] = []
    for number in range(rounds):
        parts = costs_of_shares(weeks, Learnt(net.network(about), "pupil") if number else None)
        for into, part in zip((seen, costs), parts, strict=True):  # hours follow one another, weeks are side by side
            into.append(torch.as_tensor(part.reshape(weeks.hours, weeks.episodes, -1), dtype=torch.float32))
        x, y = torch.cat(seen, dim=1), torch.cat(costs, dim=1)
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
        batches = -(-x.shape[1] // SIDE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * batches)
        for _ in range(epochs):
            for chosen in torch.randperm(x.shape[1], generator=generator).split(SIDE):  # type: ignore[no-untyped-call, unused-ignore]
                out = torch.sigmoid(net(x[:, chosen]))
                loss = cost_between(out.ravel(), y[:, chosen].reshape(out.numel(), -1))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
                optimiser.step()
                schedule.step()
    return net.network(about)
