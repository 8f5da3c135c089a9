"""Rules and planning: who decides without having learnt.

`Plan` is model-predictive control: every hour it finds the cheapest plan for what waits and what is expected to come, under a forecast of
the intensity and the expected load, and runs its first hour. Every hour and segment of a site's curve is a slot with a price (intensity x
slope) and room. Let V_h(x) be the least cost of hours h, h + 1, ... when x requests are left over from before; it is convex and piecewise
linear, so it is a list of (price, amount) in the order of prices. Backwards in time,

    V_h = the slots of hour h merged into V_{h+1}, of which at most U_h may be left (what has come and is due later than h),
          without its first a_h, which are what arrives in hour h,

which is the linear program's optimum without a program. What runs now asks of that list only how much of it is cheaper than each slot of
this hour, and of all but the queue that can be prepared for many hours at once (`Plan.cheaper_later`). Behind the horizon work costs the
mean price of the sites' first segments; beyond all room an hour has a slot at a price that only a missed deadline pays. With several
classes U_h is their sum, which is looser than their deadlines; the filter holds these.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dse.operate.weeks import Queue, Weeks

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_TOO_DEAR = 1e300
_MEMORY = 0.9
_BLOCK = 2**20
MARGIN = 0.05


@dataclass
class Now:
    """Everything runs in the hour in which it arrives, wherever it is cheapest."""

    name: str = "now"

    def begin(self, weeks: Weeks) -> None:
        """Nothing to prepare."""
        self._weeks = weeks

    def work(self, queue: Queue, room: FloatArray) -> FloatArray:
        """All that waits."""
        return spread(self._weeks, queue.hour, queue.total, room)


@dataclass
class Threshold:
    """Runs what waits while the intensity is in the lowest ``share`` of the last ``window_h`` hours, up to the cheapest segment's end."""

    share: float = 0.6
    window_h: int = 48
    name: str = "threshold"

    def begin(self, weeks: Weeks) -> None:
        """The least intensity over the sites, of the hours before and all hours."""
        self._weeks = weeks
        self._hours = np.concatenate([weeks.past, weeks.intensity], axis=2).min(axis=1)

    def work(self, queue: Queue, room: FloatArray) -> FloatArray:
        """What waits or nothing, a week."""
        weeks, t = self._weeks, queue.hour
        end = weeks.past.shape[2] + t + 1
        prices = self._hours[:, max(end - self.window_h, 0) : end]
        low = prices[:, -1] <= np.quantile(prices, self.share, axis=1)
        cheap = np.maximum(np.array([curve.work[1] for curve in weeks.curves]) - weeks.firm[:, :, t], 0.0)
        return spread(weeks, t, np.where(low, queue.total, 0.0), np.minimum(room, cheap))


def spread(weeks: Weeks, hour: int, total: FloatArray, room: FloatArray) -> FloatArray:
    """``total`` (e,) over the sites (e, s), the least marginal grams first, within ``room``."""
    if weeks.sites == 1:
        return np.minimum(total[:, None], room)
    chosen, left = np.zeros_like(room), total.copy()
    price, space = slots_now(weeks, hour, room)
    for slot, site in _in_order(price, weeks):
        rows = np.arange(len(left))
        more = np.minimum(left, space[rows, slot])
        chosen[rows, site] += more
        left = left - more
    return chosen


def _in_order(price: FloatArray, weeks: Weeks) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Slots of this hour from the cheapest on, for all episodes: (slot (e,), site (e,))."""
    of_site = np.repeat(np.arange(weeks.sites), [len(curve.slopes) for curve in weeks.curves])
    order = np.argsort(price, axis=1, kind="stable")
    return [(order[:, i], of_site[order[:, i]]) for i in range(order.shape[1])]


def slots_now(weeks: Weeks, hour: int, room: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Price [g a request] and room [requests] of the slots of this hour (e, slots), above the firm load."""
    prices, spaces = [], []
    for s, curve in enumerate(weeks.curves):
        if weeks.thermal is None:
            firm, ends = (curve.capacity - room[:, s])[:, None], curve.work[1:]
        else:  # room ends where the temperature says, and not at the capacity
            firm = np.minimum(weeks.firm[:, s, hour], curve.capacity)[:, None]
            ends = np.minimum(curve.work[1:], firm + room[:, s, None])
        prices.append(weeks.intensity[:, s, hour, None] * weeks.pue[s] * curve.slopes)
        spaces.append(np.clip(ends - np.maximum(firm, curve.work[:-1]), 0.0, curve.widths))
    return np.concatenate(prices, axis=1), np.concatenate(spaces, axis=1)


@dataclass(frozen=True)
class _Block:
    """Of some hours n from ``first`` on: what will have come and be due later (n, e, leads + 1), and for each slot's price now the sums of
    room less arrivals and the running maxima before them (n, e, slots, leads + 1), as `Plan.cheaper_later` needs them."""

    number: int
    first: int
    come: FloatArray
    sums: FloatArray
    floor: FloatArray


class Plan:
    """Model-predictive control with the weeks' forecast (see the module).

    ``sees_load``: the load and arrivals of the horizon are known too (a bound on what planning can do); otherwise they are expected, and
    in the next hours corrected by what they deviate now. ``margin``: share by which expected firm load is raised: room that turns out to
    be missing costs a dear segment, room that turns out to be left costs a little of the saving. Where a temperature is limited, this
    hour may spend the budget, and later ones are planned with what can be run for good.
    """

    def __init__(self, name: str = "mpc", *, sees_load: bool = False, margin: float = MARGIN) -> None:
        self.name, self._sees_load, self._margin = name, sees_load, 0.0 if sees_load else margin

    def begin(self, weeks: Weeks) -> None:
        """Prepare the sums of expected arrivals; what the plans of an hour need beside the queue is made a block of hours at a time."""
        self._weeks = weeks
        self._slopes = np.concatenate([curve.slopes for curve in weeks.curves])
        self._of_site = np.repeat(np.arange(weeks.sites), [len(curve.slopes) for curve in weeks.curves])
        self._cheapest = np.cumsum([0, *(len(curve.slopes) for curve in weeks.curves[:-1])])
        self._ends = [np.minimum(curve.work[1:], most) for curve, most in zip(weeks.curves, weeks.sustained, strict=True)]
        self._firm = weeks.firm if self._sees_load else weeks.firm_expected
        self._arrivals = weeks.arrivals if self._sees_load else weeks.arrival_expected
        nothing = np.zeros((weeks.episodes, 1, len(weeks.deadlines)))
        self._come = np.concatenate([nothing, np.cumsum(self._arrivals, axis=1)], axis=1)
        leads = weeks.forecast.shape[3]
        numbers = weeks.episodes * len(self._slopes) * (leads + 1)
        self._block_h = int(min(max(_BLOCK // numbers, 1), weeks.hours))
        self._block: _Block | None = None
        self._due_at = np.minimum(np.arange(leads + 1), weeks.horizon)

    def _left_over(self, queue: Queue, reach: int, factor: FloatArray) -> FloatArray:
        """Most that may be left after hours t ... t + reach (e, reach + 1): what waits or is expected, and is due later."""
        weeks, t = self._weeks, queue.hour
        due = np.cumsum(queue.due, axis=1)
        h = np.arange(reach + 1)
        known = queue.total[:, None] - due[:, np.minimum(h, weeks.horizon)]
        for c, deadline in enumerate(weeks.deadlines):
            come = self._come[:, t + 1 + h, c] - self._come[:, t + 1 + np.maximum(h - deadline, 0), c]
            known = known + come * factor[:, : reach + 1]
        if t + reach == weeks.hours - 1:
            known[:, -1] = 0.0
        return np.maximum(known, 0.0)

    def _nowcast(self, t: IntArray, reach: int) -> tuple[FloatArray, FloatArray]:
        """Load over expectation in hours t ... t + reach (t: n of them), of a site (e, s, n, reach + 1) and of all (e, n, reach + 1): as
        now, forgotten at a tenth an hour."""
        weeks = self._weeks
        if self._sees_load:
            return np.ones((weeks.episodes, weeks.sites, len(t), reach + 1)), np.ones((weeks.episodes, len(t), reach + 1))
        seen, usual = weeks.firm[:, :, t], self._firm[:, :, t]
        fades = _MEMORY ** np.arange(reach + 1)
        own = np.divide(seen, usual, out=np.ones_like(seen), where=usual > 0)
        all_seen, all_usual = seen.sum(axis=1), usual.sum(axis=1)
        together = np.divide(all_seen, all_usual, out=np.ones_like(all_seen), where=all_usual > 0)
        return 1.0 + (own - 1.0)[..., None] * fades, 1.0 + (together - 1.0)[..., None] * fades

    def later(self, queue: Queue) -> tuple[FloatArray, FloatArray]:
        """(price, amount) (e, n) of leaving work to later hours, amounts together at most what may be left."""
        weeks, t = self._weeks, queue.hour
        reach = min(weeks.forecast.shape[3], weeks.hours - 1 - t)
        (own,), (factor,) = (np.moveaxis(x, -2, 0) for x in self._nowcast(np.array([t]), reach))
        left = self._left_over(queue, reach, factor)
        rooms = []
        for s, curve in enumerate(weeks.curves):
            firm = (self._firm[:, s, t : t + 1 + reach] * own[:, s] * (1.0 + self._margin))[:, :, None]
            rooms.append(np.clip(self._ends[s] - np.maximum(firm, curve.work[:-1]), 0.0, curve.widths))
        space = np.concatenate(rooms, axis=2)  # (e, reach + 1, slots)
        ahead = self._prices(weeks.forecast[:, :, t, :reach])  # (e, slots, reach)
        end = ahead[:, self._cheapest].mean(axis=(1, 2)) if reach else np.zeros(weeks.episodes)
        price, amount = end[:, None], left[:, -1:]
        for h in range(reach, 0, -1):
            price = np.concatenate([price, ahead[:, :, h - 1], np.full((weeks.episodes, 1), _TOO_DEAR)], axis=1)
            amount = np.concatenate([amount, space[:, h], np.full((weeks.episodes, 1), np.inf)], axis=1)
            order = np.argsort(price, axis=1)
            price = np.take_along_axis(price, order, axis=1)
            upto = np.cumsum(np.take_along_axis(amount, order, axis=1), axis=1)
            coming = (self._arrivals[:, t + h].sum(axis=1) * factor[:, h])[:, None]
            kept = np.clip(upto - coming, 0.0, left[:, h - 1, None])
            amount = np.diff(kept, axis=1, prepend=0.0)
            some = np.flatnonzero((amount > 0).any(axis=0))
            part = slice(some[0], some[-1] + 1) if len(some) else slice(0, 1)
            price, amount = price[:, part], amount[:, part]
        return price, amount

    def _of_hours(self, t: int) -> _Block:
        """What plans need beside the queue, of the block of hours in which ``t`` lies."""
        number = t // self._block_h
        if self._block is None or self._block.number != number:
            self._block = self._made(number)
        return self._block

    def _made(self, number: int) -> _Block:
        weeks, leads = self._weeks, self._weeks.forecast.shape[3]
        t = np.arange(number * self._block_h, min((number + 1) * self._block_h, weeks.hours))
        h = np.arange(leads + 1)
        own, factor = self._nowcast(t, leads)
        last = weeks.hours - 1
        at = np.minimum(t[:, None] + h, last)
        come = np.zeros_like(factor)
        for c, deadline in enumerate(weeks.deadlines):
            before = np.minimum(t[:, None] + np.maximum(h - deadline, 0), last)
            come += (self._come[:, at + 1, c] - self._come[:, before + 1, c]) * factor
        price = self._prices(weeks.intensity[:, :, t])[..., None]  # (e, slots, hours, 1)
        ahead = weeks.forecast[:, :, t]
        gain = -(self._arrivals.sum(axis=2)[:, at[:, 1:]] * factor[..., 1:])[:, None]  # (e, 1, hours, leads)
        gain = np.repeat(gain, len(self._slopes), axis=1)
        later = at[:, 1:]
        for j, s in enumerate(self._of_site):
            curve, segment = weeks.curves[s], j - self._cheapest[s]
            firm = self._firm[:, s, later] * own[:, s, :, 1:] * (1.0 + self._margin)
            space = np.clip(self._ends[s][segment] - np.maximum(firm, curve.work[segment]), 0.0, curve.widths[segment])
            cheaper = (ahead[:, s] * weeks.pue[s] * self._slopes[j])[:, None] < price
            gain += cheaper * space[:, None]
        sums = np.zeros((*gain.shape[:3], leads + 1))
        np.cumsum(gain, axis=3, out=sums[..., 1:])
        floor = np.full_like(sums, -np.inf)
        np.maximum.accumulate(sums[..., :-1], axis=3, out=floor[..., 1:])
        # Behind the horizon work costs the mean price of the first segments; at the end of an episode none may be left.
        reach = np.minimum(leads, last - t)
        kept = ahead * (h[1:] <= reach[:, None])
        pue = np.array(weeks.pue) * self._slopes[self._cheapest]
        end = (kept.sum(axis=3) * pue[:, None]).sum(axis=1) / np.maximum(reach * weeks.sites, 1)  # (e, hours)
        open_end = (end[:, None] < price[..., 0]) & (t + leads < last)
        hours = np.arange(len(t))
        ends = sums[:, :, hours, reach]
        floor[:, :, hours, reach] = np.where(open_end, floor[:, :, hours, reach], np.maximum(ends, floor[:, :, hours, reach]))
        sums[:, :, hours, reach] = np.where(open_end, ends, -np.inf)
        sums[:, :, h > reach[:, None]] = np.inf
        # hours first, so that an hour's part is one piece
        come, sums, floor = (np.ascontiguousarray(np.moveaxis(x, -2, 0)) for x in (come, sums, floor))
        return _Block(number, int(t[0]), come, sums, floor)

    def _prices(self, intensity: FloatArray) -> FloatArray:
        """Price of each slot (e, slots, ...) under an intensity of each site (e, s, ...)."""
        shape = (-1,) + (1,) * (intensity.ndim - 2)
        pue = np.array(self._weeks.pue)[self._of_site].reshape(shape)
        return np.asarray(intensity[:, self._of_site] * pue * self._slopes.reshape(shape))

    def cheaper_later(self, queue: Queue) -> FloatArray:
        """Work (e, slots) that the cheapest plan would leave to later hours at a lower price than each slot's price now.

        With u_k the most that may be left after the k-th hour from now, c_k the room below the price in it less what arrives in it, and
        P_k = c_1 + ... + c_k, the amount in the list of `later` below a price is w_0 of w_{k-1} = min(u_{k-1}, max(0, w_k + c_k)), which
        is min over k of max(u_k + P_k, P_0, ..., P_{k-1}): the queue is in u alone, so all else is prepared.
        """
        block = self._of_hours(queue.hour)
        i = queue.hour - block.first
        due = np.cumsum(queue.due, axis=1)
        left = np.maximum(due[:, -1:] - due[:, self._due_at] + block.come[i], 0.0)
        return np.asarray(np.maximum(left[:, None] + block.sums[i], block.floor[i]).min(axis=2))

    def work(self, queue: Queue, room: FloatArray) -> FloatArray:
        """The first hour of the cheapest plan."""
        weeks, waits, cheaper = self._weeks, queue.total, self.cheaper_later(queue)
        if weeks.sites == 1:  # slots are in the order of their prices: run up to a slot's end what no later hour runs for less
            ends = np.maximum(weeks.curves[0].work[1:] - queue.begun(room), 0.0)
            return np.asarray(np.maximum(np.minimum(waits[:, None] - cheaper, ends).max(axis=1, keepdims=True), 0.0))
        now, space = slots_now(weeks, queue.hour, room)
        chosen, taken = np.zeros_like(room), np.zeros(weeks.episodes)
        rows = np.arange(weeks.episodes)
        for slot, site in _in_order(now, weeks):
            more = np.clip(waits - cheaper[rows, slot] - taken, 0.0, space[rows, slot])
            chosen[rows, site] += more
            taken = taken + more
        return chosen

    def costs(self, queue: Queue, room: FloatArray, works: FloatArray) -> FloatArray:
        """Grams (e, k) of running ``works`` now, (e, k) at the one site or (e, k, s), and the rest by the cheapest plan, under the
        forecast."""
        weeks = self._weeks
        price, amount = self.later(queue)
        before = np.cumsum(amount, axis=1) - amount
        now, space = slots_now(weeks, queue.hour, room)
        at_sites = works if works.ndim == 3 else works[:, :, None]
        left = np.maximum(queue.total[:, None] - at_sites.sum(axis=2), 0.0)
        # what no later hour has room for is priced at twice this hour's dearest segment, so that costs stay finite
        dear = 2.0 * now.max(axis=1)[:, None]
        waits = np.minimum(price, dear)[:, None] * np.clip(left[:, :, None] - before[:, None], 0.0, amount[:, None])
        runs = []
        for s in range(weeks.sites):
            own = self._of_site == s
            begins = np.cumsum(space[:, own], axis=1) - space[:, own]
            runs.append((now[:, None, own] * np.clip(at_sites[:, :, s, None] - begins[:, None], 0.0, space[:, None, own])).sum(axis=2))
        return np.asarray(sum(runs) + waits.sum(axis=2))
