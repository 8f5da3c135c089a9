"""Deep Q-learning at many sites with a shared trunk and a head each (PFedDQN-Rep), on the environment of `dse operate`.

Every site steps its own weeks, fills its own replay and draws its own batches. What leaves a site are gradients of the trunk (way
``personal``), of everything (``one for all``), or weights after ``LOCAL_STEPS`` steps of its own (``fedavg``); ``alone`` sends nothing.
Observations, actions and rewards stay. Two time scales: the trunk learns at ``TRUNK_RATE``, heads at ``HEAD_RATE``. Invalid actions are
masked when acting and in the target; double Q-learning (van Hasselt et al., AAAI 2016), targets that sum ``N_STEPS`` hours. All sites
are stepped by one program, those with the same chips as one array, their networks as one batched product.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, unknown_name
from dse.operate.environment import Batch
from dse.operate.weeks import Queue, Weeks, alike, concatenate

FloatArray = npt.NDArray[np.float64]

WAYS = ("personal", "one for all", "fedavg", "alone")
LOCAL_STEPS = 10
HIDDEN = 64
TRUNK_RATE, HEAD_RATE = 5e-4, 2e-3
DISCOUNT = 0.95
N_STEPS = 3  # hours whose rewards a target sums before it asks the network
BATCH = 64
TARGET_EVERY = 100
_MASKED = -1e9


@dataclass(frozen=True)
class Networks:
    """Weights as learnt: trunk layers (groups, in, out) with biases, heads (groups, in, actions) with biases; groups is 1 where shared."""

    trunk: tuple[FloatArray, FloatArray, FloatArray, FloatArray]
    head: tuple[FloatArray, FloatArray]

    def values(self, site: int, observation: FloatArray) -> FloatArray:
        """Q (e, actions) of a site."""

        def own(weights: FloatArray) -> FloatArray:
            return np.asarray(weights[0 if len(weights) == 1 else site])

        a, b, c, d = map(own, self.trunk)
        inner = np.maximum(np.maximum(observation @ a + b, 0.0) @ c + d, 0.0)
        return np.asarray(inner @ own(self.head[0]) + own(self.head[1]))


class SitePolicy:
    """The greedy policy of one site, as `dse.operate.simulation.simulate` runs it."""

    def __init__(self, networks: Networks, site: int) -> None:
        self.name = "federated dqn"
        self._networks, self._site = networks, site

    def begin(self, weeks: Weeks) -> None:
        """Told before the first hour."""
        self._batch = Batch(weeks)

    def work(self, queue: Queue, room: FloatArray) -> FloatArray:
        """Requests to run this hour (e, s)."""
        view = self._batch.view
        q = np.where(view.masks(queue), self._networks.values(self._site, view.observe(queue)), _MASKED)
        return np.asarray(view.work(queue, q.argmax(axis=1)))


def join(networks: Networks, weeks: Weeks, *, passes: int = 20, frozen_passes: int | None = None, seed: int = 0) -> Networks:
    """A new site with the trunk of others and a head that it begins anew: the trunk stays as it is for ``frozen_passes`` of its passes
    (None: all of them) and learns with the head in the rest. Nothing of the others' weeks is needed.

    Raises DseError where the trunk is not shared.
    """
    if len(networks.trunk[0]) != 1:
        raise DseError(f"a new site joins a shared trunk, got {len(networks.trunk[0])} of them; learn with way 'personal' or 'one for all'")
    frozen = passes if frozen_passes is None else frozen_passes
    return train([weeks], passes=passes, seed=seed, trunk=networks.trunk, frozen_passes=frozen)


def train(
    sites: Sequence[Weeks],
    *,
    way: str = "personal",
    passes: int = 20,
    seed: int = 0,
    trunk: tuple[FloatArray, FloatArray, FloatArray, FloatArray] | None = None,
    frozen_passes: int = 0,
) -> Networks:
    """Learn from the weeks of each site (equal numbers of weeks and hours), run ``passes`` times with less and less exploration.

    ``trunk``: what it begins with, in place of a draw; ``frozen_passes``: the first passes, in which it does not change.
    """
    import torch  # a second to import

    if way not in WAYS:
        raise unknown_name("way", way, WAYS)
    if len({(w.episodes, w.hours, w.sites) for w in sites}) != 1:
        raise DseError("sites must have the same number of weeks, hours and places each, at least one site")
    count, episodes, hours = len(sites), sites[0].episodes, sites[0].hours
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    begin = [Batch(weeks) for weeks in _arrays(sites)]
    numbers, actions = begin[0].observe().shape[1], begin[0].actions
    own_trunk, own_head = way in ("fedavg", "alone"), way != "one for all"

    def made(groups: int, inputs: int, outputs: int) -> list[torch.Tensor]:
        weights = torch.randn(1, inputs, outputs) * (2.0 / inputs) ** 0.5
        return [weights.repeat(groups, 1, 1).requires_grad_(), torch.zeros(groups, 1, outputs, requires_grad=True)]

    groups = count if own_trunk else 1
    body = [*made(groups, numbers, HIDDEN), *made(groups, HIDDEN, HIDDEN)]
    if trunk is not None:
        if (given := [w.shape[1:] for w in trunk]) != (own := [tuple(w.shape[1:]) for w in body]):
            raise DseError(f"trunk has layers {given}, must have {own} for what these sites see")
        with torch.no_grad():
            for w, begins in zip(body, trunk, strict=True):
                w.copy_(torch.as_tensor(begins, dtype=torch.float32).expand_as(w))
    head = made(count if own_head else 1, HIDDEN, actions)
    optimiser = torch.optim.Adam([{"params": body, "lr": TRUNK_RATE}, {"params": head, "lr": HEAD_RATE}])

    def q_of(weights: list[torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        for i in (0, 2):
            x = torch.relu(x @ weights[i] + weights[i + 1])
        return x @ weights[4] + weights[5]

    def gathered(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.concatenate(parts).reshape(count, episodes, *parts[0].shape[1:])

    target = [w.detach().clone() for w in (*body, *head)]
    size = passes * hours * episodes
    seen, mask = torch.zeros(count, size + episodes, numbers), torch.zeros(count, size + episodes, actions, dtype=torch.bool)
    over, reward, action = torch.zeros(size), torch.zeros(count, size), torch.zeros(count, size, dtype=torch.long)
    filled, step = 0, 0
    at_site = torch.arange(count)[:, None]
    for turn in range(passes):
        optimiser.param_groups[0]["lr"] = TRUNK_RATE if turn >= frozen_passes else 0.0
        epsilon = max(0.02, 0.3 * (1.0 - 1.5 * turn / passes))  # as the learner of one site
        batches = [copy.copy(b) for b in begin]
        for b in batches:
            b.queue = Queue(b.weeks)
        for hour in range(hours):
            now, allowed = gathered([b.observe() for b in batches]), gathered([b.masks() for b in batches])
            place = slice(filled, filled + episodes)
            seen[:, place], mask[:, place] = torch.as_tensor(now, dtype=torch.float32), torch.as_tensor(allowed)
            with torch.no_grad():
                q = q_of([*body, *head], seen[:, place]).numpy()
            best = np.where(allowed, q, _MASKED).argmax(axis=2)
            drawn = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(axis=2)
            chosen = np.where(rng.random(best.shape) < epsilon, drawn, best)
            parts = np.split(chosen.ravel(), np.cumsum([b.weeks.episodes for b in batches])[:-1])
            rewards = gathered([b.run(b.wanted(own))[0] for b, own in zip(batches, parts, strict=True)])
            reward[:, place], action[:, place] = torch.as_tensor(rewards, dtype=torch.float32), torch.as_tensor(chosen)
            over[place] = float(hour == hours - 1)
            filled += episodes
            known = filled - N_STEPS * episodes  # hours whose targets are known by now; an episode's next hour is `episodes` rows on
            if known <= 0:
                continue
            draw = torch.as_tensor(rng.integers(known, size=(count, BATCH)))
            wanted, goes_on = torch.zeros(count, BATCH), torch.ones(count, BATCH)
            for k in range(N_STEPS):
                row = draw + k * episodes
                wanted = wanted + DISCOUNT**k * goes_on * reward[at_site, row]
                goes_on = goes_on * (1.0 - over[row])
            later = draw + N_STEPS * episodes
            with torch.no_grad():
                y = seen[at_site, later]
                online = q_of([*body, *head], y).masked_fill(~mask[at_site, later], _MASKED).argmax(dim=2, keepdim=True)
                wanted = wanted + DISCOUNT**N_STEPS * goes_on * q_of(target, y).gather(2, online)[..., 0]
            found = q_of([*body, *head], seen[at_site, draw]).gather(2, action[at_site, draw][..., None])[..., 0]
            # The sum over sites: a head's gradient is its own, a shared trunk's the sum of what sites send (Adam scales it).
            loss = torch.nn.functional.smooth_l1_loss(found, wanted, reduction="sum") / BATCH
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            if way == "fedavg" and step % LOCAL_STEPS == 0:
                with torch.no_grad():
                    for w in (*body, *head):
                        w.copy_(w.mean(dim=0, keepdim=True).expand_as(w))
            if step % TARGET_EVERY == 0:
                target = [w.detach().clone() for w in (*body, *head)]
    t, h = ([w.detach().double().numpy() for w in part] for part in (body, head))
    return Networks((t[0], t[1], t[2], t[3]), (h[0], h[1]))


def _arrays(sites: Sequence[Weeks]) -> list[Weeks]:
    """The weeks of all sites in their order, neighbours with the same chips and deadlines as one."""
    found: list[list[Weeks]] = []
    for weeks in sites:
        if found and alike(found[-1][0], weeks):
            found[-1].append(weeks)
        else:
            found.append([weeks])
    return [concatenate(part) for part in found]
