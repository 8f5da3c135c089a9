"""The environment of `gymnasium`: one week at one or several sites, an hour a step.

Observations and actions are those of :mod:`dse.operate.features`; ``info["action_mask"]`` and `OperateEnv.action_masks` say which actions
are valid. With ``control="chips"`` an action is a number of chips awake and a clock step in place of a share of the queue: flexible work
fills what these can run beside the firm load, and what cannot carry the firm load and the work that must run is masked.

The reward of an hour compares with waiting: with P_t the mean price of the cheapest segment over now and the next day as forecast, B the
queue and y what runs,

    r_t = [P_t y - (grams of firm load and y - grams of firm load) - (P_{t+1} - P_t) (B - y)] / (P w),

w the mean hour's flexible work and P the mean price of the first day. The sum over a week of all but the grams is sum_t P_t (what arrives
in t), which no action changes: returns differ as minus the grams do. A miss costs ``MISS`` times P a request.
With ``safe=False`` the deadline filter is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import gymnasium
import numpy as np
import numpy.typing as npt

from dse.errors import UsageError, unknown_name
from dse.operate.features import View, size_of
from dse.operate.simulation import limited
from dse.operate.weeks import Queue, Weeks

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

MISS = 5.0
CONTROLS = ("share", "chips")
CHIP_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Batch:
    """Episodes side by side: what both the single environment and the vectorised one of the learners step."""

    def __init__(self, weeks: Weeks, *, safe: bool = True, control: str = "share") -> None:
        if control not in CONTROLS:
            raise unknown_name("control", control, CONTROLS)
        if control == "chips" and weeks.sites > 1:
            raise UsageError(f"control 'chips' is of one site, got {weeks.sites}; use control 'share'")
        self.weeks, self.safe, self.control = weeks, safe, control
        self.view = View(weeks)
        self.queue = Queue(weeks)
        slopes = np.array([curve.slopes[0] for curve in weeks.curves]) * np.array(weeks.pue)
        self._prices = (self.view.mean_ahead * slopes[:, None]).min(axis=1)  # (e, t)
        self._price = (weeks.intensity[:, :, :24].mean(axis=2) * slopes).min(axis=1)
        usual = weeks.arrival_expected.sum(axis=2).mean(axis=1)
        self._scale = np.maximum(self._price, 1e-12) * np.where(usual > 0, usual, float(weeks.capacity.sum()))
        curve = weeks.curves[0]
        clocks = sorted({float(c) for c in curve.clock if c > 0})
        self._steps = [(share, clock) for clock in clocks for share in CHIP_LEVELS]

    @property
    def actions(self) -> int:
        """How many there are."""
        return self.view.actions if self.control == "share" else len(self._steps)

    def _capacities(self) -> FloatArray:
        """Requests an hour of every (chips, clock) pair at the first site."""
        curve = self.weeks.curves[0]
        at = {float(clock): float(work) for clock, work in zip(curve.clock, curve.work, strict=True) if clock > 0}
        return np.array([share * at[clock] for share, clock in self._steps])

    def masks(self) -> BoolArray:
        """Valid actions (e, actions); all where the episode is over."""
        if self.queue.done:
            return np.ones((self.weeks.episodes, self.actions), dtype=bool)
        if self.control == "share":
            return self.view.masks(self.queue)
        room = self.view.room(self.queue)
        least, _ = self.view.bounds(self.queue, room)
        firm = self.queue.firm[:, 0]
        need = firm + np.minimum(least, room[:, 0])
        capacities = self._capacities()[None, :]
        able = capacities >= need[:, None] * (1 - 1e-9)
        able[~able.any(axis=1), int(np.argmax(capacities))] = True
        if self.weeks.thermal is not None:  # the smallest that carries what must run is always allowed: the temperature lets it run
            smallest = np.where(able, capacities, np.inf).min(axis=1, keepdims=True)
            able &= (capacities <= (firm + room[:, 0])[:, None] * (1 + 1e-9)) | (capacities == smallest)
        return np.asarray(able)

    def observe(self) -> FloatArray:
        """The observation (e, numbers); zeros where the episode is over."""
        if self.queue.done:
            return np.zeros((self.weeks.episodes, size_of(self.weeks)))
        return self.view.observe(self.queue)

    def wanted(self, action: npt.ArrayLike) -> FloatArray:
        """Flexible work that an action (e,) runs (e, s), before the filter."""
        if self.control == "share":
            return self.view.work(self.queue, action)
        room = self.view.room(self.queue)
        firm = self.queue.firm[:, 0]
        work = np.zeros_like(room)
        work[:, 0] = np.clip(self._capacities()[np.asarray(action, dtype=np.int64)] - firm, 0.0, room[:, 0])
        return work

    def shared(self, share: npt.ArrayLike) -> FloatArray:
        """Flexible work (e, s) that shares (e, s) of what may run beyond what must at each site are, before the filter."""
        low, beyond = self.view.between(self.queue, self.queue.room)
        return np.asarray(low + np.clip(np.asarray(share, dtype=np.float64), 0.0, 1.0).reshape(low.shape) * beyond)

    def run(self, wanted: FloatArray) -> tuple[FloatArray, dict[str, FloatArray]]:
        """Run an hour with this flexible work: (reward (e,), what happened)."""
        weeks, t = self.weeks, self.queue.hour
        room = self.view.room(self.queue)
        wanted = np.clip(wanted, 0.0, room)
        work = self.view.guard.correct(self.queue, wanted, room) if self.safe else limited(wanted, self.queue.total)
        extra, grams = np.zeros(weeks.episodes), np.zeros(weeks.episodes)
        firm_now = self.queue.firm
        for s, curve in enumerate(weeks.curves):
            firm = firm_now[:, s]
            factor = weeks.intensity[:, s, t] * weeks.pue[s]
            alone, both = curve.energy(firm), curve.energy(firm + work[:, s])
            extra += factor * (both - alone)
            grams += factor * both
        total = work.sum(axis=1)
        left = self.queue.total - total
        late = self.queue.run(work)
        now, later = self._prices[:, t], self._prices[:, min(t + 1, weeks.hours - 1)]
        reward = (now * total - extra - (later - now) * left - MISS * self._price * late) / self._scale
        return reward, {"grams": grams, "work": total, "late": late}


class OperateEnv(gymnasium.Env):  # type: ignore[misc, type-arg, unused-ignore]
    """One week of some weeks, drawn at every reset (or `options={"week": i}`)."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, weeks: Weeks, *, safe: bool = True, control: str = "share") -> None:
        self._weeks, self._safe, self._control = weeks, safe, control
        self.batch = Batch(weeks.take(0), safe=safe, control=control)
        numbers = size_of(weeks)
        self.observation_space = gymnasium.spaces.Box(-5.0, 5.0, (numbers,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(self.batch.actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Begin a week."""
        super().reset(seed=seed)
        chosen = (options or {}).get("week")
        week = int(self.np_random.integers(self._weeks.episodes)) if chosen is None else int(chosen)
        self.batch = Batch(self._weeks.take(week), safe=self._safe, control=self._control)
        return self._seen(), {"week": week, "action_mask": self.action_masks()}

    def step(self, action: np.int64) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Run an hour. A week ends with all its work run."""
        reward, told = self.batch.run(self.batch.wanted([int(action)]))
        done = self.batch.queue.done
        info = {name: float(values[0]) for name, values in told.items()}
        return self._seen(), float(reward[0]), done, False, {**info, "action_mask": self.action_masks()}

    def action_masks(self) -> BoolArray:
        """Valid actions (actions,), as sb3-contrib asks for them."""
        return np.asarray(self.batch.masks()[0])

    def _seen(self) -> npt.NDArray[np.float32]:
        return np.asarray(self.batch.observe()[0], dtype=np.float32)


def make_env(weeks: Weeks, **options: Any) -> Callable[[], OperateEnv]:
    """What a vectorised environment of gymnasium or stable-baselines3 takes."""
    return lambda: OperateEnv(weeks, **options)
