"""The deadline filter: a thousand random episodes of lazy and random policies miss nothing; without envelopes they do."""

from dataclasses import replace

import numpy as np

from dse.operate import optimum, policies, safety, simulation, weeks
from dse.operate.device import Curve

EPISODES, HOURS = 1000, 48


class Lazy:
    """Runs nothing that may wait."""

    name = "lazy"

    def begin(self, weeks: weeks.Weeks) -> None:
        pass

    def work(self, queue: weeks.Queue, room: np.ndarray) -> np.ndarray:
        return np.zeros_like(room)


class Random(Lazy):
    """Runs a random share of what fits, often none."""

    name = "random"

    def begin(self, weeks: weeks.Weeks) -> None:
        self._rng = np.random.default_rng(5)

    def work(self, queue: weeks.Queue, room: np.ndarray) -> np.ndarray:
        draw = self._rng.random(room.shape)
        return room * np.where(draw < 0.6, 0.0, draw)


def drawn(seed: int, deadlines: tuple[int, ...], *, sites: int = 1, tight: float = 0.98) -> weeks.Weeks:
    """Episodes whose declared work just fits when it runs at once; the real work is below what is declared."""
    rng = np.random.default_rng(seed)
    capacity = 10.0
    line = np.array([0.0, capacity])
    curve = Curve(line, line, 0.0, line, line, line, 1)
    shape = (EPISODES, HOURS)
    share = rng.random((*shape, len(deadlines)))
    arrive = sites * capacity * tight * rng.random(shape) ** 0.3
    arrival_bound = 0.7 * arrive[..., None] * share / share.sum(axis=2, keepdims=True)
    firm_bound = np.repeat((arrive - arrival_bound.sum(axis=2))[:, None] / sites, sites, axis=1)
    arrivals = arrival_bound * np.where(rng.random(arrival_bound.shape) < 0.7, 1.0, rng.random(arrival_bound.shape))
    firm = firm_bound * np.where(rng.random(firm_bound.shape) < 0.7, 1.0, rng.random(firm_bound.shape))
    return weeks.Weeks(
        intensity=rng.uniform(10, 500, (EPISODES, sites, HOURS)), firm=firm, firm_bound=firm_bound, firm_expected=firm_bound,
        arrivals=arrivals, arrival_bound=arrival_bound, arrival_expected=arrival_bound,
        forecast=np.full((EPISODES, sites, HOURS, 1), 100.0), deadlines=deadlines, curves=(curve,) * sites, pue=(1.0,) * sites,
        first=np.arange(EPISODES), past=np.full((EPISODES, sites, weeks.PAST_H), 100.0),
        hour_of_day=np.zeros(shape, dtype=np.int64), weekend=np.zeros(shape),
    )  # fmt: skip


def test_declared_work_that_fits_is_never_late() -> None:
    for seed, deadlines in enumerate([(6,), (1, 4), (2, 5, 24)]):
        w = drawn(seed, deadlines)
        assert w.promised
        for policy in (Lazy(), Random()):
            assert simulation.simulate(w, policy).missed.max() == 0.0


def test_it_holds_at_two_sites() -> None:
    w = drawn(7, (3, 12), sites=2)
    assert simulation.simulate(w, Lazy()).missed.max() == 0.0


def test_without_it_or_without_the_envelope_of_arrivals_work_is_late() -> None:
    w = drawn(1, (1, 4))
    assert (simulation.simulate(w, Lazy(), safe=False).missed > 0).all()
    blind = replace(w, arrival_bound=np.zeros_like(w.arrival_bound))
    missed = simulation.simulate(blind, Lazy()).missed
    assert (missed > 1e-6).sum() > 100
    assert not blind.promised


def test_what_the_filter_adds_is_no_more_than_needed() -> None:
    """In a run of the lazy policy, a little less work than the filter demands is late when the declared work comes."""
    w = drawn(3, (4,))
    worst = replace(w, arrivals=w.arrival_bound, firm=w.firm_bound)

    class Stingy(Lazy):
        def begin(self, weeks: weeks.Weeks) -> None:
            self._guard = safety.Filter(weeks)

        def work(self, queue: weeks.Queue, room: np.ndarray) -> np.ndarray:
            least = self._guard.least(queue)
            return np.minimum((least * (0.97 if queue.hour < HOURS - 6 else 1.0))[:, None], room)

    assert simulation.simulate(worst, Stingy(), safe=False).missed.sum() > 0
    assert simulation.simulate(worst, Lazy()).missed.max() == 0.0


def test_running_at_once_never_needs_it() -> None:
    w = drawn(2, (2, 6)).take(np.arange(5))
    assert simulation.simulate(w, policies.Now(), safe=False).missed.sum() == 0.0
    assert optimum.foresight(w).total_grams <= simulation.simulate(w, Lazy()).total_grams * (1 + 1e-9)
