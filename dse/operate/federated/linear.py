"""Federated temporal differences with a shared linear representation (PFedTD-Rep), where theory says what to expect.

Site i has a Markov reward process of its own (P_i, r_i) over states with features Phi (states, d). Its values are V_i = Phi B w_i with one
subspace B (d, k) for all sites and a head w_i (k,) of its own. Each step every site takes one transition of its own chain (s, r, s') and

    delta = r + gamma phi(s')' B w_i - phi(s)' B w_i
    w_i <- w_i + beta_t delta B' phi(s)                      (fast: the head, kept)
    B   <- mean over sites of B + alpha_t delta phi(s) w_i'   (slow: the representation, all that is sent)

and B is made orthonormal every ``ORTHONORMAL_EVERY`` steps, heads turned along. What a site sends is its step of B (d k numbers); states,
rewards and heads stay. Method: Xiong et al., "On the Linear Speedup of Personalized Federated Reinforcement Learning with Shared
Representations" (arXiv:2411.15014): two time scales, error falling as 1/N. Arrays are batched over seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.errors import DseError, unknown_name

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

ORTHONORMAL_EVERY = 10
WAYS = ("personal", "one for all", "fedavg", "alone")
"""personal: B shared, heads kept. one for all: one B and one head from all sites' steps. fedavg: the same, averaged after ``LOCAL_STEPS``
steps of each site by itself. alone: temporal differences of a site over all d features, without a representation."""
LOCAL_STEPS = 10


@dataclass(frozen=True)
class Sites:
    """Markov reward processes of several seeds whose values lie in one subspace a seed.

    Attributes:
        features: Phi (seeds, states, d). subspace: the true B (seeds, d, k), orthonormal. heads: the true w (seeds, sites, k).
        transitions: P (seeds, sites, states, states). rewards: expected r (seeds, sites, states), such that V = Phi B w exactly.
        stationary: distribution of states (seeds, sites, states). discount: gamma. noise: standard deviation of a reward.
    """

    features: FloatArray
    subspace: FloatArray
    heads: FloatArray
    transitions: FloatArray
    rewards: FloatArray
    stationary: FloatArray
    discount: float
    noise: float

    @property
    def values(self) -> FloatArray:
        """V (seeds, sites, states)."""
        return np.asarray(np.einsum("bsd,bdk,bnk->bns", self.features, self.subspace, self.heads))

    def take(self, first: int, last: int) -> Sites:
        """The sites first..last-1."""
        own = {name: getattr(self, name)[:, first:last] for name in ("heads", "transitions", "rewards", "stationary")}
        return Sites(self.features, self.subspace, discount=self.discount, noise=self.noise, **own)


def draw_sites(
    seeds: int,
    sites: int,
    *,
    states: int = 20,
    d: int = 8,
    k: int = 2,
    discount: float = 0.8,
    noise: float = 0.5,
    alike: bool = False,
    spread: bool = False,
    seed: int = 0,
) -> Sites:
    """Sites that are drawn: Gaussian features of unit mean square a state, Dirichlet transitions, Gaussian heads.

    ``alike``: every site has the same head and chain. ``spread``: the heads are whitened, so that they span the subspace evenly (sum of
    w w' = N d/k I, what the theory calls diverse); a few Gaussian heads may nearly lie in a line, and then the rest of the subspace is
    learnt slowly. Raises DseError for sizes that make no problem.
    """
    if not (1 <= k < d <= states) or seeds < 1 or sites < 1:
        raise DseError(f"sites need 1 <= k < d <= states, got k = {k}, d = {d}, states = {states}, seeds = {seeds}, sites = {sites}")
    made = []
    for number in range(seeds):
        rng = np.random.default_rng((seed, number))
        features = rng.standard_normal((states, d)) / np.sqrt(d)
        subspace = np.linalg.qr(rng.standard_normal((d, k)))[0]
        count = 1 if alike else sites
        heads = rng.standard_normal((count, k)) * np.sqrt(d / k)
        transitions = rng.dirichlet(np.full(states, 0.5), (count, states))
        if spread:
            if sites < k:
                raise DseError(f"sites is {sites}, must be at least k = {k} for heads that span the subspace")
            heads = np.linalg.qr(heads)[0] * np.sqrt(sites * d / k)
        heads, transitions = (np.broadcast_to(x, (sites, *x.shape[1:])) for x in (heads, transitions))
        values = np.einsum("sd,dk,nk->ns", features, subspace, heads)
        rewards = values - discount * np.einsum("nst,nt->ns", transitions, values)
        stationary = np.array([_stationary(p) for p in transitions])
        made.append((features, subspace, heads, transitions, rewards, stationary))
    names = ("features", "subspace", "heads", "transitions", "rewards", "stationary")
    stacked = {name: np.stack(parts) for name, parts in zip(names, zip(*made, strict=True), strict=True)}
    return Sites(**stacked, discount=discount, noise=noise)


def _stationary(p: FloatArray) -> FloatArray:
    states = len(p)
    equations = np.vstack([p.T - np.eye(states), np.ones(states)])
    return np.asarray(np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0])


Schedule = Callable[[int], tuple[float, float]]


def decaying(step: int) -> tuple[float, float]:
    """(alpha, beta): the representation slower than the head, both decaying, as the two time scales ask."""
    t = 1.0 + step / 500.0
    return 0.06 * t**-0.9, 0.3 * t**-0.6


def constant(alpha: float = 0.02, beta: float = 0.1) -> Schedule:
    """Steps that stay."""
    return lambda step: (alpha, beta)


@dataclass(frozen=True)
class Learnt:
    """What was learnt: B (seeds, groups, d, k), heads (seeds, sites, k); groups is 1 where B is shared, else one a site.

    ``sent``: numbers that a site sent in all.
    """

    subspace: FloatArray
    heads: FloatArray
    sent: int

    def subspace_error(self, sites: Sites) -> FloatArray:
        """||(I - B B') B_true||^2 / k of the shared B, in [0, 1] (seeds,)."""
        b, true = self.subspace[:, 0], sites.subspace
        outside = true - b @ (b.swapaxes(1, 2) @ true)
        return np.asarray(np.sum(outside**2, axis=(1, 2)) / true.shape[2])

    def value_error(self, sites: Sites) -> FloatArray:
        """Squared error of the values over their mean square, states as often as they are visited (seeds, sites)."""
        theta = (
            np.einsum("bgdk,bnk->bnd", self.subspace, self.heads)
            if self.subspace.shape[1] == 1
            else np.einsum("bndk,bnk->bnd", self.subspace, self.heads)
        )
        found = np.einsum("bsd,bnd->bns", sites.features, theta)
        error = np.sum(sites.stationary * (found - sites.values) ** 2, axis=2)
        return np.asarray(error / np.sum(sites.stationary * sites.values**2, axis=2))


class Chains:
    """Every site's own walk; the only place where states and rewards are seen."""

    def __init__(self, sites: Sites, seed: int) -> None:
        self._sites = sites
        self._rng = np.random.default_rng(seed)
        self._cumulative = np.cumsum(sites.transitions, axis=3)
        seeds, count, states = sites.rewards.shape
        self._where = np.ix_(np.arange(seeds), np.arange(count))
        self._state: IntArray = self._rng.integers(states, size=(seeds, count))

    def step(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """(phi(s), r, phi(s')) of one transition: (seeds, sites, d), (seeds, sites), (seeds, sites, d)."""
        s, sites = self._state, self._sites
        rows = self._cumulative[*self._where, s]
        draws = self._rng.random(s.shape)
        after = np.minimum((rows < draws[..., None]).sum(axis=2), rows.shape[2] - 1)
        reward = sites.rewards[*self._where, s] + sites.noise * self._rng.standard_normal(s.shape)
        self._state = after
        seeds = np.arange(len(s))[:, None]
        return sites.features[seeds, s], reward, sites.features[seeds, after]


def learn(sites: Sites, steps: int, *, way: str = "personal", schedule: Schedule = decaying, seed: int = 0) -> Learnt:
    """Learn for ``steps`` transitions a site, in one of ``WAYS``."""
    if way not in WAYS:
        raise unknown_name("way", way, WAYS)
    seeds, count, _ = sites.rewards.shape
    d, k = sites.subspace.shape[1:]
    rng = np.random.default_rng((seed, 1))
    shared = way in ("personal", "one for all")
    start = np.linalg.qr(rng.standard_normal((seeds, 1, d, k)))[0]
    b = start if shared else np.repeat(start, count, axis=1)
    if way == "alone":
        b, k = np.broadcast_to(np.eye(d), (seeds, count, d, d)), d
    w = np.zeros((seeds, count, k)) + 0.1 * rng.standard_normal((seeds, 1, k))
    chains = Chains(sites, seed)
    for t in range(steps):
        alpha, beta = schedule(t)
        now, reward, after = chains.step()
        seen, then = (np.einsum("bnd,bndk->bnk", x, np.broadcast_to(b, (seeds, count, d, k))) for x in (now, after))
        delta = reward + np.einsum("bnk,bnk->bn", sites.discount * then - seen, w)
        head_step = beta * delta[..., None] * seen
        if way == "alone":
            w = w + head_step
            continue
        body_step = alpha * delta[..., None, None] * now[..., :, None] * w[..., None, :]
        if way == "one for all":
            head_step = np.broadcast_to(head_step.mean(axis=1, keepdims=True), w.shape)
        w = w + head_step
        b = b + (body_step.mean(axis=1, keepdims=True) if shared else body_step)
        if way == "fedavg" and (t + 1) % LOCAL_STEPS == 0:
            b = np.broadcast_to(b.mean(axis=1, keepdims=True), b.shape)
            w = np.broadcast_to(w.mean(axis=1, keepdims=True), w.shape)
        if (t + 1) % ORTHONORMAL_EVERY == 0 or t + 1 == steps:
            b, turn = np.linalg.qr(b)
            w = np.einsum("bgjk,bnk->bnj", turn, w) if b.shape[1] == 1 else np.einsum("bnjk,bnk->bnj", turn, w)
    rounds = {"personal": steps * d * k, "one for all": steps * (d * k + k), "fedavg": steps // LOCAL_STEPS * (d * k + k), "alone": 0}
    return Learnt(np.asarray(b), np.asarray(w), rounds[way])


@dataclass(frozen=True)
class Joined:
    """A new site: samples until its value error is at most ``target`` (seeds,), with the frozen representation and without one (-1: never),
    and its errors at the end: frozen, frozen and then freed, and without."""

    frozen_samples: IntArray
    alone_samples: IntArray
    frozen_error: FloatArray
    freed_error: FloatArray
    alone_error: FloatArray


def join(
    site: Sites, subspace: FloatArray, steps: int, *, target: float = 0.1, prior: float | None = None, seed: int = 0, every: int = 5
) -> Joined:
    """One new site a seed learns by least-squares temporal differences (LSTD) from one walk: in the frozen subspace (k unknowns), in all
    features (d unknowns), and *freed*: in all features, drawn to the frozen solution as if that were ``prior`` samples (default 20 d)."""
    seeds, _, _ = site.rewards.shape
    d, k = subspace.shape[1:]
    chains = Chains(site, seed)
    a, c = np.zeros((seeds, d, d)), np.zeros((seeds, d))
    frozen_at, alone_at = np.full(seeds, -1, np.int64), np.full(seeds, -1, np.int64)
    frozen_end = alone_end = freed_end = np.zeros(seeds)
    small = 1e-3  # ridge in units of samples: the first systems are singular
    for t in range(1, steps + 1):
        now, reward, after = (x[:, 0] for x in chains.step())
        a += now[:, :, None] * (now - site.discount * after)[:, None, :]
        c += now * reward[:, None]
        if t % every and t != steps:
            continue
        inner = np.einsum("bdj,bde,bek->bjk", subspace, a, subspace) + small * np.eye(k)
        head = np.linalg.solve(inner, np.einsum("bdk,bd->bk", subspace, c)[..., None])[..., 0]
        theta = np.einsum("bdk,bk->bd", subspace, head)
        alone = np.linalg.solve(a + small * np.eye(d), c[..., None])[..., 0]
        weight = (20.0 * d if prior is None else prior) / d  # a feature's share of the samples
        freed = np.linalg.solve(a + weight * np.eye(d), (c + weight * theta)[..., None])[..., 0]
        frozen_end, alone_end, freed_end = (_error(site, x) for x in (theta, alone, freed))
        frozen_at = np.where((frozen_at < 0) & (frozen_end <= target), t, frozen_at)
        alone_at = np.where((alone_at < 0) & (alone_end <= target), t, alone_at)
    return Joined(frozen_at, alone_at, frozen_end, freed_end, alone_end)


def _error(site: Sites, theta: npt.NDArray[Any]) -> FloatArray:
    """Relative squared error of the values of one site a seed (seeds,)."""
    difference = np.einsum("bsd,bd->bs", site.features, theta) - site.values[:, 0]
    weight = site.stationary[:, 0]
    return np.asarray(np.sum(weight * difference**2, axis=1) / np.sum(weight * site.values[:, 0] ** 2, axis=1))
