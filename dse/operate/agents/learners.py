"""Learners of stable-baselines3 and sb3-contrib with exchangeable parts, and the imitation of planning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecFrameStack

from dse.errors import UsageError
from dse.operate.agents import exploration
from dse.operate.agents.network import Learnt, Network
from dse.operate.agents.safety import Lagrangian
from dse.operate.agents.vectorised import Side, shares_of
from dse.operate.features import View, size_of
from dse.operate.policies import Now, Plan
from dse.operate.simulation import Decides, simulate
from dse.operate.weeks import Queue, Weeks

FloatArray = npt.NDArray[np.float64]

HIDDEN = (64, 64)
SIDE = 32
LOOKS = 8
N_STEPS = 3  # hours whose rewards a target of DQN sums before it asks the network
REPLAYS = ("plain", "hindsight")
SHARES = np.linspace(0.0, 1.0, 9)


@dataclass(frozen=True)
class Parts:
    """What a learner is made of.

    Attributes:
        exploration: a name of :mod:`dse.operate.agents.exploration` (DQN). stack: hours of history that are seen at once.
        safety: ``filter`` or ``lagrangian``. replay: ``plain``, or ``hindsight``: every hour is also replayed with another action,
            exactly, for nobody's action moves the grid or the load (DQN).
        start: ``imitation`` (PPO's policy and DQN's values are first fitted to what levels cost by the plan's own model; without history)
            or ``none``.
        steps: hours of experience. seed: of everything.
    """

    exploration: str = "epsilon"
    stack: int = 1
    safety: str = "filter"
    replay: str = "plain"
    start: str = "imitation"
    steps: int = 40_000
    seed: int = 0

    def __post_init__(self) -> None:
        exploration.make(self.exploration)
        if self.replay not in REPLAYS:
            raise UsageError(f"replay is {self.replay!r}, must be {' or '.join(REPLAYS)}")
        if self.start not in ("imitation", "none"):
            raise UsageError(f"start is {self.start!r}, must be imitation or none")
        if self.safety not in ("filter", "lagrangian"):
            raise UsageError(f"safety is {self.safety!r}, must be filter or lagrangian")
        if not 1 <= self.stack <= 24:
            raise UsageError(f"stack is {self.stack} h, must be from 1 to 24")


def _side(weeks: Weeks, parts: Parts) -> tuple[Side, Any]:
    side = Side(weeks, SIDE, seed=parts.seed, lagrangian=Lagrangian() if parts.safety == "lagrangian" else None)
    return side, VecFrameStack(side, parts.stack) if parts.stack > 1 else side


class PartsDQN(DQN):  # type: ignore[misc, unused-ignore]
    """DQN that explores by a part, chooses valid actions only, and may replay hours with other actions."""

    def with_parts(self, parts: Parts, side: Side) -> PartsDQN:
        """Take the parts."""
        self._explores = exploration.make(parts.exploration)
        self._hindsight = parts.replay == "hindsight"
        self._draws = np.random.default_rng([parts.seed, 3])
        self._side = side
        self._shown = parts.start == "imitation" and parts.stack == 1
        return self

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> tuple[Any, Any]:
        """The first experience is what the plan does, where the learner starts from the plan, and random otherwise."""
        if self._shown and self.num_timesteps < learning_starts:
            action = self._side.planned()
            return action, action
        return super()._sample_action(learning_starts, action_noise, n_envs)  # type: ignore[no-any-return, unused-ignore]

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> tuple[Any, Any]:
        """Actions of the training weeks."""
        with torch.no_grad():
            values = self.q_net(torch.as_tensor(np.asarray(observation), dtype=torch.float32)).numpy().astype(np.float64)
        valid = np.asarray(self._side.env_method("action_masks"))
        level = 0.0 if deterministic else float(self.exploration_rate)
        return self._explores.choose(values, valid, level, self._draws), None

    def _store_transition(self, replay_buffer: Any, buffer_action: Any, new_obs: Any, reward: Any, dones: Any, infos: Any) -> None:
        last = self._last_obs
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        if self._hindsight and new_obs.shape == last.shape and self._side.observation_space.shape == last.shape[1:]:
            seen, action, value = self._side.counterfactual()
            replay_buffer.add(last, seen, action.reshape(-1, 1), value, dones, [{} for _ in infos])


def _taught(net: Any, seen: FloatArray, target: FloatArray, *, values: bool, seed: int, epochs: int = 40) -> None:
    """Fit a network's scores to costs of levels (n, actions): to their negative (values), or so that the cheapest is likely, weighted by
    what is at stake. Values also pay the large margin of deep Q-learning from demonstrations (Hester et al., AAAI 2018), with what a
    level costs more than the cheapest as its margin: squares alone leave the order of levels that cost nearly the same to chance."""
    x = torch.as_tensor(seen, dtype=torch.float32)
    y = torch.as_tensor(-target, dtype=torch.float32)
    stake = torch.as_tensor(target.max(axis=1) - target.min(axis=1), dtype=torch.float32)
    stake = stake / stake.mean()
    best = y.argmax(dim=1)
    margin = y.max(dim=1, keepdim=True).values - y
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * -(-len(x) // 256))
    for _ in range(epochs):
        for chosen in torch.randperm(len(x), generator=generator).split(256):  # type: ignore[no-untyped-call, unused-ignore]
            out = net(x[chosen])
            if values:
                own = out.gather(1, best[chosen, None])[:, 0]
                loss = ((out - y[chosen]) ** 2).mean() + ((out + margin[chosen]).max(dim=1).values - own).mean()
            else:
                loss = (stake[chosen] * torch.nn.functional.cross_entropy(out, best[chosen], reduction="none")).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def costs_of_levels(weeks: Weeks) -> tuple[FloatArray, FloatArray]:
    """(observations, cost of each action beside waiting (n, actions)) of the hours of a plan that sometimes does something else.

    Costs are those of the plan's own model: the hour and the cheapest plan after it, in units of a mean hour's flexible work.
    """
    view, queue, plan = View(weeks), Queue(weeks), Plan()
    plan.begin(weeks)
    rng = np.random.default_rng(0)
    unit = weeks.arrival_expected.sum(axis=2).mean(axis=1) * weeks.intensity[:, 0].mean(axis=1) * weeks.curves[0].slopes[0]
    rows, costs = [], []
    while not queue.done:
        room = queue.room
        works = view.works(queue, room)
        told = plan.costs(queue, room, works) / np.maximum(unit, 1e-12)[:, None]
        rows.append(view.observe(queue))
        costs.append(told - told[:, :1])
        other = works[np.arange(len(works)), rng.integers(0, view.actions, len(works))]
        work = np.where(rng.random((len(works), 1)) < 0.15, other, plan.work(queue, room))
        queue.run(view.guard.correct(queue, np.clip(work, 0.0, room), room))
    return np.concatenate(rows), np.concatenate(costs)


class _Best(BaseCallback):  # type: ignore[misc, unused-ignore]
    """Keeps the network that is best on the validation weeks, looked at every ``every`` hours of experience and before the first."""

    def __init__(self, network: Callable[[], Network], validation: Weeks | None, every: int) -> None:
        super().__init__()
        self._network, self._weeks, self._every = network, validation, every
        self._next = 0
        self.best: tuple[float, Network] | None = None

    def look(self) -> None:
        """Judge the network as it is now: the mean over weeks of its grams over those of running now."""
        network = self._network()
        if self._weeks is None:
            self.best = (0.0, network)
            return
        grams = simulate(self._weeks, Learnt(network, "candidate")).grams
        score = float((grams / self._now).mean())
        if self.best is None or score < self.best[0]:
            self.best = (score, network)

    def _on_training_start(self) -> None:
        if self._weeks is not None:
            self._now = simulate(self._weeks, Now()).grams
            self.look()

    def _on_step(self) -> bool:
        if self._weeks is not None and self.num_timesteps >= self._next:
            self._next = self.num_timesteps + self._every
            self.look()
        return True

    def _on_training_end(self) -> None:
        self.look()


def dqn(weeks: Weeks, parts: Parts | None = None, validation: Weeks | None = None) -> Network:
    """Learn by DQN; the network that is best on the ``validation`` weeks is kept (without them the last one)."""
    parts = parts or Parts()
    if parts.replay == "hindsight" and parts.stack > 1:
        raise UsageError(f"replay 'hindsight' with a stack of {parts.stack} is not known, use a stack of 1")
    side, env = _side(weeks, parts)
    model = PartsDQN(
        "MlpPolicy", env, learning_rate=2e-4, buffer_size=200_000, learning_starts=SIDE * 168 * 2, batch_size=256, gamma=0.95,
        n_steps=1 if parts.replay == "hindsight" else N_STEPS,  # a replayed hour is no step of a sequence
        train_freq=2, gradient_steps=8, target_update_interval=SIDE * 20, exploration_initial_eps=0.3, exploration_fraction=0.6,
        exploration_final_eps=0.02, seed=parts.seed, device="cpu",
        policy_kwargs={"net_arch": list(HIDDEN), "activation_fn": torch.nn.Tanh},
    ).with_parts(parts, side)  # fmt: skip
    if parts.start == "imitation" and parts.stack == 1:
        _taught(model.q_net.q_net, *costs_of_levels(weeks), values=True, seed=parts.seed)
        model.q_net_target.load_state_dict(model.q_net.state_dict())
    keeps = _Best(lambda: _network(model.q_net.q_net, "levels", parts, "dqn"), validation, parts.steps // LOOKS)
    model.learn(parts.steps, callback=keeps)
    assert keeps.best is not None
    return keeps.best[1]


class PlannedSAC(SAC):  # type: ignore[misc, unused-ignore]
    """SAC whose first experience is what the plan does."""

    side: Side
    shown: bool

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> tuple[Any, Any]:
        if self.shown and self.num_timesteps < learning_starts:
            action = self.side.planned()
            return action, action
        return super()._sample_action(learning_starts, action_noise, n_envs)  # type: ignore[no-any-return, unused-ignore]


def sac(weeks: Weeks, parts: Parts | None = None, validation: Weeks | None = None) -> Network:
    """Learn by soft actor-critic (Haarnoja et al., ICML 2018), whose action is the share itself, one a site, and no level; the network
    that is best on the ``validation`` weeks is kept (without them the last one). It explores by its own entropy.

    The policy is the actor's mean: tanh m in -1 ... 1 is the share (1 + tanh m) / 2 = sigmoid(2 m).
    """
    parts = parts or Parts()
    if parts.stack > 1 or parts.replay != "plain" or parts.safety != "filter" or parts.exploration != "epsilon":
        raise UsageError("sac takes no history, exploration, replay or safety of another kind; leave these out or use dqn or ppo")
    side = Side(weeks, SIDE, seed=parts.seed, continuous=True)
    model = PlannedSAC(
        "MlpPolicy", side, learning_rate=2e-4, buffer_size=200_000, learning_starts=SIDE * 168 * 2, batch_size=256, gamma=0.95,
        train_freq=2, gradient_steps=8, ent_coef=0.001, seed=parts.seed, device="cpu",
        policy_kwargs={"net_arch": list(HIDDEN), "activation_fn": torch.nn.Tanh},
    )  # fmt: skip
    model.side, model.shown = side, parts.start == "imitation"
    layers = torch.nn.Sequential(*model.actor.latent_pi, model.actor.mu)
    if parts.start == "imitation":
        taught = imitation(weeks, seed=parts.seed)
        linear = [m for m in layers if isinstance(m, torch.nn.Linear)]
        with torch.no_grad():
            for number, (m, weight, bias) in enumerate(zip(linear, taught.weights, taught.biases, strict=True), start=1):
                half = 0.5 if number == len(linear) else 1.0
                m.weight.copy_(torch.as_tensor(half * weight))
                m.bias.copy_(torch.as_tensor(half * bias))

    def network() -> Network:
        found = _network(layers, "share", parts, "sac")
        weights, biases = (*found.weights[:-1], 2.0 * found.weights[-1]), (*found.biases[:-1], 2.0 * found.biases[-1])
        return replace(found, weights=weights, biases=biases)

    keeps = _Best(network, validation, parts.steps // LOOKS)
    model.learn(parts.steps, callback=keeps)
    assert keeps.best is not None
    return keeps.best[1]


def ppo(weeks: Weeks, parts: Parts | None = None, validation: Weeks | None = None) -> Network:
    """Learn by PPO with masked actions; the network that is best on the ``validation`` weeks is kept (without them the last one)."""
    parts = parts or Parts()
    _, env = _side(weeks, parts)
    model = MaskablePPO(
        "MlpPolicy", env, learning_rate=3e-4, n_steps=84, batch_size=336, n_epochs=6, gamma=0.95, gae_lambda=0.9, ent_coef=0.002,
        seed=parts.seed, device="cpu", policy_kwargs={"net_arch": list(HIDDEN), "activation_fn": torch.nn.Tanh},
    )  # fmt: skip
    layers = torch.nn.Sequential(*model.policy.mlp_extractor.policy_net, model.policy.action_net)
    if parts.start == "imitation" and parts.stack == 1:
        _taught(layers, *costs_of_levels(weeks), values=False, seed=parts.seed)
    keeps = _Best(lambda: _network(layers, "levels", parts, "ppo"), validation, parts.steps // LOOKS)
    model.learn(parts.steps, callback=keeps)
    assert keeps.best is not None
    return keeps.best[1]


def _network(layers: Any, head: str, parts: Parts, by: str) -> Network:
    linear = [m for m in layers if isinstance(m, torch.nn.Linear)]
    weights = tuple(m.weight.detach().numpy().astype(np.float64) for m in linear)
    biases = tuple(m.bias.detach().numpy().astype(np.float64) for m in linear)
    return Network(weights, biases, head, parts.stack, {"learnt_by": by, **vars(parts)})


def examples(weeks: Weeks, teacher: Decides, leads: Decides | None = None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(observations, the teacher's shares (n, s), work at stake (n, s)) of all hours, in which ``leads`` (default: the teacher) decides."""
    view, queue = View(weeks), Queue(weeks)
    teacher.begin(weeks)
    if leads is not None:
        leads.begin(weeks)
    seen, shares, stakes = [], [], []
    while not queue.done:
        room = queue.room
        taught = teacher.work(queue, room)
        share, beyond = shares_of(view, queue, taught)
        seen.append(view.observe(queue))
        shares.append(share)
        stakes.append(beyond)
        work = taught if leads is None else leads.work(queue, room)
        queue.run(view.guard.correct(queue, np.clip(work, 0.0, room), room))
    return np.concatenate(seen), np.concatenate(shares), np.concatenate(stakes)


def costs_of_shares(weeks: Weeks, leads: Decides | None = None) -> tuple[FloatArray, FloatArray]:
    """(observations, cost of each of ``SHARES`` of what may run beyond the cheapest (n, shares)) of all hours, in which ``leads``
    (default: the plan) decides; one site. Costs as in :func:`costs_of_levels`."""
    view, queue, plan = View(weeks), Queue(weeks), Plan()
    plan.begin(weeks)
    leads = leads or plan
    leads.begin(weeks)
    unit = weeks.arrival_expected.sum(axis=2).mean(axis=1) * weeks.intensity[:, 0].mean(axis=1) * weeks.curves[0].slopes[0]
    rows, costs = [], []
    while not queue.done:
        room = queue.room
        least, most = view.bounds(queue, room)
        low = np.minimum(least[:, None], most)
        told = plan.costs(queue, room, low + SHARES * (most - low)) / np.maximum(unit, 1e-12)[:, None]
        rows.append(view.observe(queue))
        costs.append(told - told.min(axis=1, keepdims=True))
        queue.run(view.guard.correct(queue, np.clip(leads.work(queue, room), 0.0, room), room))
    return np.concatenate(rows), np.concatenate(costs)


def imitation(weeks: Weeks, *, seed: int = 0, rounds: int = 3, epochs: int = 15, teacher: Decides | None = None) -> Network:
    """Imitate planning, in the hours that the pupil meets itself, by what its share costs beside the cheapest under the plan's own model
    (AggreVaTe: Ross and Bagnell, arXiv 1406.5979); another teacher, and planning at several sites, by its shares (DAgger: Ross et al.,
    AISTATS 2011)."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    sizes = (size_of(weeks), *HIDDEN, weeks.sites)
    layers: list[Any] = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), torch.nn.Tanh()]
    net = torch.nn.Sequential(*layers[:-1])
    parts = Parts(seed=seed)
    by_cost = teacher is None and weeks.sites == 1
    found: list[tuple[FloatArray, ...]] = []
    network = _network(net, "share", parts, "imitation")
    for number in range(rounds):
        leads = Learnt(network, "pupil") if number else None
        found.append(costs_of_shares(weeks, leads) if by_cost else examples(weeks, teacher or Plan(), leads))
        seen, *taught = (torch.as_tensor(np.concatenate(part), dtype=torch.float32) for part in zip(*found, strict=True))
        if not by_cost:
            taught[1] = taught[1] / taught[1].mean()
        count = len(seen)
        optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
        batches = -(-count // 256)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * batches)
        for _ in range(epochs):
            for chosen in torch.randperm(count, generator=generator).split(256):  # type: ignore[no-untyped-call, unused-ignore]
                out = torch.sigmoid(net(seen[chosen]))
                loss = cost_between(out[:, 0], taught[0][chosen]) if by_cost else _squared(out, *(part[chosen] for part in taught))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
                optimiser.step()
                schedule.step()
        network = _network(net, "share", parts, "imitation")
    return network


def _squared(out: torch.Tensor, share: torch.Tensor, stake: torch.Tensor) -> torch.Tensor:
    """Squares of shares, weighted by the work at stake over its mean."""
    return (stake * (out - share) ** 2).mean()


def cost_between(out: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:
    """Mean cost of shares ``out`` (n,) in 0 ... 1, linear between those of ``SHARES`` (n, shares)."""
    place = out * (costs.shape[1] - 1)
    below = place.detach().floor().long().clamp(0, costs.shape[1] - 2)
    low, high = costs.gather(1, below[:, None])[:, 0], costs.gather(1, below[:, None] + 1)[:, 0]
    return (low + (place - below) * (high - low)).mean()
