"""Contextual bandits: one-step choices (how much to run, which site, which design variant) from what is seen, learnt from the reward of
what was chosen.

A linear model an arm: A_a = ridge I + sum x x', b_a = sum r x, theta_a = A_a^-1 b_a. LinUCB (Li et al., WWW 2010) adds alpha sqrt(x'
A_a^-1 x), LinTS (Agrawal and Goyal, ICML 2013) draws theta from N(theta_a, v^2 A_a^-1). The neural-linear bandit is the same on the last
hidden layer of a network (Riquelme et al., ICLR 2018). What was learnt is a network of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, UsageError, unknown_name
from dse.operate.agents import exploration
from dse.operate.agents.network import Network
from dse.operate.features import LEVELS, View
from dse.operate.policies import Plan
from dse.operate.weeks import Queue, Weeks

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Of linear models on a trunk's last hidden layer, whose units say nearly the same; chosen on validation weeks (docs/operate.md).
TRUNK_RIDGE = 30.0
KINDS = ("linucb", "lints", "epsilon", "boltzmann", "squarecb")


class Linear:
    """A ridge regression an arm."""

    def __init__(self, numbers: int, arms: int, *, ridge: float = 1.0) -> None:
        self.gram: FloatArray = np.repeat(ridge * np.eye(numbers)[None], arms, axis=0)
        self.sums: FloatArray = np.zeros((arms, numbers))
        self._solve()

    def _solve(self) -> None:
        self.inverse: FloatArray = np.asarray(np.linalg.inv(self.gram), dtype=np.float64)
        self.theta: FloatArray = np.einsum("aij,aj->ai", self.inverse, self.sums)

    def values(self, seen: FloatArray) -> FloatArray:
        """Expected reward of each arm (n, arms)."""
        return np.asarray(seen @ self.theta.T)

    def widths(self, seen: FloatArray) -> FloatArray:
        """sqrt(x' A^-1 x) of each arm (n, arms)."""
        return np.asarray(np.sqrt(np.maximum(np.einsum("ni,aij,nj->na", seen, self.inverse, seen), 0.0)))

    def drawn(self, seen: FloatArray, deviation: float, rng: np.random.Generator) -> FloatArray:
        """Rewards (n, arms) of one draw of every arm's theta from its posterior."""
        pairs = zip(self.theta, self.inverse, strict=True)
        thetas = [rng.multivariate_normal(t, deviation**2 * (v + v.T) / 2, method="cholesky") for t, v in pairs]
        return np.asarray(seen @ np.array(thetas).T)

    def update(self, seen: FloatArray, arm: IntArray, reward: FloatArray, weight: FloatArray | None = None) -> None:
        """Take the rewards (n,) of what was chosen (n,), with weights (n,)."""
        for a in np.unique(arm):
            mine = arm == a
            x = seen[mine]
            scaled = x if weight is None else x * weight[mine, None]
            self.gram[a] += scaled.T @ x
            self.sums[a] += scaled.T @ reward[mine]
        self._solve()

    def network(self, about: dict[str, object]) -> Network:
        """The greedy policy."""
        return Network((self.theta.copy(),), (np.zeros(len(self.theta)),), "levels", 1, dict(about))


@dataclass(frozen=True)
class Chooser:
    """How an arm is chosen: ``kind`` of ``KINDS``; ``width`` is LinUCB's alpha and LinTS's v."""

    kind: str = "linucb"
    width: float = 0.3

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("bandit", self.kind, KINDS)

    def choose(
        self, model: Linear, seen: FloatArray, valid: BoolArray, level: float, rng: np.random.Generator, scale: FloatArray | float = 1.0
    ) -> IntArray:
        """An arm each (n,); what the model expects of an arm is worth ``scale`` (n, arms) times as much here."""
        if self.kind == "linucb":
            scores = scale * (model.values(seen) + self.width * model.widths(seen))
        elif self.kind == "lints":
            scores = scale * model.drawn(seen, self.width, rng)
        else:
            return exploration.make(self.kind).choose(scale * model.values(seen), valid, level, rng)
        return np.asarray(np.argmax(np.where(valid, scores, -np.inf), axis=1))


class Router:
    """Which site or design variant each request goes to.

    Grams of a request are the intensity of the place, which is known, times the kWh that the request takes there, which is not: a linear
    function of what is seen of the request, an arm each, learnt from the energy of what was chosen. Energies are taken in units of the
    mean of the first ones, intensities in units of their mean over the arms.
    """

    def __init__(self, numbers: int, arms: int, *, chooser: Chooser | None = None, seed: int = 0) -> None:
        if arms < 1 or numbers < 1:
            raise UsageError(f"a router has {arms} places and {numbers} numbers of a request, must have at least one of each")
        self._model, self._arms = Linear(numbers, arms), arms
        self._chooser = chooser or Chooser()
        self._rng = np.random.default_rng(seed)
        self._unit = 0.0
        self._taken = 0

    def choose(self, seen: FloatArray, intensity: FloatArray, valid: BoolArray | None = None) -> IntArray:
        """A place each (n,) for requests (n, numbers) at these intensities [g/kWh, PUE included] (n, arms), among ``valid`` ones."""
        if intensity.shape != (len(seen), self._arms):
            raise UsageError(f"intensity has shape {intensity.shape}, must be {(len(seen), self._arms)}: requests x places")
        able = np.ones(intensity.shape, dtype=bool) if valid is None else valid
        mean = np.maximum(intensity.mean(axis=1, keepdims=True), 1e-12)
        level = 1.0 / np.sqrt(1.0 + self._taken / 100.0)
        return self._chooser.choose(self._model, seen, able, level, self._rng, intensity / mean)

    def told(self, seen: FloatArray, arm: IntArray, kwh: FloatArray) -> None:
        """What requests (n, numbers) took [kWh] where they went (n,)."""
        self._unit = self._unit or float(np.mean(kwh))
        self._model.update(seen, arm, -kwh / self._unit)
        self._taken += len(arm)

    def kwh(self, seen: FloatArray) -> FloatArray:
        """What requests are expected to take at each place (n, arms)."""
        return -self._unit * self._model.values(seen)


def learn(
    weeks: Weeks, outcomes: Weeks, *, chooser: Chooser | None = None, seed: int = 0, passes: int = 2, trunk: Network | None = None
) -> Network:
    """A bandit over the levels of one site, on training weeks.

    ``outcomes``: the same weeks with the true forecast. The reward of an hour is what its choice saved over waiting as it turned out:
    minus the grams of the choice and of the cheapest later plan with the true intensity and load, in units of a mean hour's flexible
    work. Only the reward of what was chosen is seen. ``trunk``: a network whose last hidden layer the linear models look at in place of
    the observation (neural-linear), which stays as it is.
    """
    if weeks.sites != 1:
        raise UsageError(f"this bandit is of one site, got {weeks.sites}")
    ridge = 1.0 if trunk is None else TRUNK_RIDGE
    chooser = chooser or Chooser()
    rng = np.random.default_rng(seed)
    model: Linear | None = None
    for number in range(passes):
        view, queue, truth = View(weeks), Queue(weeks), Plan(sees_load=True)
        truth.begin(outcomes)
        unit = weeks.arrival_expected.sum(axis=2).mean(axis=1) * weeks.intensity[:, 0].mean(axis=1) * weeks.curves[0].slopes[0]
        while not queue.done:
            seen, valid, room = view.observe(queue), view.masks(queue), queue.room
            if trunk is not None:
                seen = lifted(trunk, seen[:, : trunk.inputs])
            if model is None:
                model = Linear(seen.shape[1], len(LEVELS), ridge=ridge)
            level = 1.0 - (number + queue.hour / weeks.hours) / passes
            arm = chooser.choose(model, seen, valid, level, rng)
            work = view.work(queue, arm)
            waits = view.work(queue, np.zeros(len(arm), dtype=np.int64))
            both = truth.costs(queue, room, np.concatenate([waits, work], axis=1))
            model.update(seen, arm, (both[:, 0] - both[:, 1]) / np.maximum(unit, 1e-12))
            queue.run(view.guard.correct(queue, np.clip(work, 0.0, room), room))
    assert model is not None
    about = {"learnt_by": f"bandit:{chooser.kind}", "seed": seed, "passes": passes}
    return model.network(about) if trunk is None else on_top(trunk, model, {**about, "trunk": trunk.about.get("learnt_by", "")})


def from_log(
    seen: FloatArray, action: IntArray, reward: FloatArray, chance: FloatArray, *, actions: int = len(LEVELS), most: float = 20.0
) -> Network:
    """A policy from a log of what someone else did: observations (n, numbers), actions, rewards and the chances with which these were
    taken (n,).

    Ridge regressions weighted by 1 / chance, at most ``most`` (inverse propensity, clipped), so that rare actions are not judged by the
    hours in which they were taken. Raises DseError for a log that says nothing of an action.
    """
    count = len(seen)
    if not (len(action) == len(reward) == len(chance) == count and count):
        raise DseError(
            f"a log has {count} observations, {len(action)} actions, {len(reward)} rewards and {len(chance)} chances, must have as many"
        )
    if not (np.isfinite(seen).all() and np.isfinite(reward).all()):
        raise DseError("a log holds numbers that are not finite")
    if (chance <= 0).any() or (chance > 1).any():
        raise DseError(f"chance of a logged action is {chance[(chance <= 0) | (chance > 1)][0]:g}, must be above 0 and at most 1")
    missing = sorted(set(range(actions)) - set(np.unique(action).tolist()))
    if missing:
        raise DseError(f"a log never takes action {missing[0]}, must take each of {actions}")
    model = Linear(seen.shape[1], actions)
    model.update(seen, np.asarray(action), np.asarray(reward, dtype=np.float64), np.minimum(1.0 / chance, most))
    return model.network({"learnt_by": "log", "hours": count})


def lifted(network: Network, seen: FloatArray) -> FloatArray:
    """The last hidden layer of a network for observations, and a one: what a neural-linear bandit sees."""
    if network.recurrent is not None:
        raise UsageError("a neural-linear bandit takes a network without a memory, got one with an LSTM")
    x = seen
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        x = np.tanh(x @ weight.T + bias)
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def neural_linear(network: Network, seen: FloatArray, action: IntArray, reward: FloatArray, *, actions: int = len(LEVELS)) -> Network:
    """A linear model an arm on a network's last hidden layer, from the rewards of what was chosen; a network again."""
    model = Linear(network.weights[-1].shape[1] + 1, actions)
    model.update(lifted(network, seen), action, reward)
    return on_top(network, model, {"learnt_by": "neural-linear"})


def on_top(network: Network, model: Linear, about: dict[str, object]) -> Network:
    """A network whose head is what a linear model learnt of its last hidden layer."""
    weights = (*network.weights[:-1], model.theta[:, :-1].copy())
    return Network(weights, (*network.biases[:-1], model.theta[:, -1].copy()), "levels", network.stack, dict(about))
