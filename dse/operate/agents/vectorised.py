"""All weeks side by side as the vectorised environment of stable-baselines3, many times faster than one process each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from stable_baselines3.common.vec_env import VecEnv

from dse.operate.agents.safety import Lagrangian
from dse.operate.environment import Batch
from dse.operate.features import View, size, size_of
from dse.operate.weeks import TINY, Queue, Weeks


class Side(VecEnv):  # type: ignore[misc, unused-ignore]
    """``count`` weeks at a time, drawn anew when they end (they end together).

    ``lagrangian``: a price on misses in place of the filter. `counterfactual` is the hour run again with other actions.
    ``continuous``: an action is a number a site from -1 (what must run) to 1 (all that may run) in place of a level.
    """

    def __init__(self, weeks: Weeks, count: int, *, seed: int = 0, lagrangian: Lagrangian | None = None, continuous: bool = False) -> None:
        self._continuous = continuous
        self._weeks, self._rng, self._lagrangian = weeks, np.random.default_rng(seed), lagrangian
        numbers = size_of(weeks)
        self._batch = self._drawn(count)
        actions: Any = gymnasium.spaces.Discrete(self._batch.actions)
        if continuous:
            actions = gymnasium.spaces.Box(-1.0, 1.0, (weeks.sites,), np.float32)
        super().__init__(count, gymnasium.spaces.Box(-5.0, 5.0, (numbers,), np.float32), actions)
        self._before: Batch | None = None
        self._action: npt.NDArray[Any] = np.zeros(count, dtype=np.int64)

    def _drawn(self, count: int) -> Batch:
        every = self._weeks.episodes
        chosen = self._rng.permutation(every)[:count] if count <= every else self._rng.integers(0, every, count)
        return Batch(self._weeks.take(chosen), safe=self._lagrangian is None)

    def _seen(self, batch: Batch) -> npt.NDArray[np.float32]:
        return np.asarray(batch.observe(), dtype=np.float32)

    def reset(self) -> npt.NDArray[np.float32]:
        """Draw weeks."""
        self._batch = self._drawn(self.num_envs)
        return self._seen(self._batch)

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """Keep the actions."""
        self._action = np.asarray(actions)

    def _run(self, batch: Batch, action: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        reward, told = batch.run(batch.shared((action + 1.0) / 2.0) if self._continuous else batch.wanted(action))
        if self._lagrangian is not None:
            late = told["late"] * batch._price / batch._scale
            reward = reward - self._lagrangian.price * late
        return reward

    def step_wait(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_], list[dict[str, Any]]]:
        """An hour."""
        self._before = copy.copy(self._batch)
        self._before.queue = _copied(self._batch)
        reward = self._run(self._batch, self._action)
        done = self._batch.queue.done
        seen = self._seen(self._batch)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if done:
            for row, info in zip(seen, infos, strict=True):
                info["terminal_observation"] = row
            if self._lagrangian is not None:
                arrived = self._batch.weeks.arrivals.sum()
                self._lagrangian.update(float(self._batch.queue.missed.sum() / max(arrived, 1e-12)))
            seen = self.reset()
        return seen, reward.astype(np.float32), np.full(self.num_envs, done), infos

    def planned(self) -> npt.NDArray[Any]:
        """The actions nearest to what the plan would run now."""
        view, queue = self._batch.view, self._batch.queue
        if self._continuous and self._weeks.sites == 1:  # `urgent` is the plan's share
            return (2.0 * self._seen(self._batch)[:, size(1) - 1 : size(1)] - 1.0).astype(np.float32)
        if self._continuous:
            return (2.0 * shares_of(view, queue, view.plan.work(queue, queue.room))[0] - 1.0).astype(np.float32)
        return view.levels_of(queue, view.plan.work(queue, queue.room))

    def counterfactual(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The last hour again with other valid actions: (observations after it, actions, rewards)."""
        assert self._before is not None
        again = copy.copy(self._before)
        again.queue = _copied(self._before)
        valid = again.masks()
        scores = np.where(valid, self._rng.random(valid.shape), -1.0)
        rows = np.arange(self.num_envs)
        scores[rows, self._action] = -0.5  # another one, where there is another
        action = np.argmax(scores, axis=1)
        reward = self._run(again, action)
        return self._seen(again), action, reward.astype(np.float32)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """``action_masks``, as sb3-contrib asks for them."""
        assert method_name == "action_masks", method_name
        return list(self._batch.masks())

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of each."""
        return [getattr(self, attr_name, None)] * self.num_envs

    def has_attr(self, attr_name: str) -> bool:
        """Whether there is such an attribute or method."""
        return attr_name == "action_masks" or hasattr(self, attr_name)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Nothing can be set from outside."""
        raise AttributeError(attr_name)

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """No episode is."""
        return [False] * self.num_envs

    def close(self) -> None:
        """Nothing to close."""


def shares_of(view: View, queue: Queue, work: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(shares (e, s) of what may run beyond what must that run `work` (e, s), what may run beyond it (e, s))."""
    low, beyond = view.between(queue, queue.room)
    some = beyond > TINY * view.weeks.capacity
    return np.clip(np.divide(work - low, beyond, out=np.zeros_like(beyond), where=some), 0.0, 1.0), beyond


def _copied(batch: Batch) -> Any:
    queue = copy.copy(batch.queue)
    queue.due, queue.missed = batch.queue.due.copy(), batch.queue.missed.copy()
    return queue


def seeds_of(count: int) -> Sequence[int]:
    """Seeds of repeated trainings."""
    return range(count)
