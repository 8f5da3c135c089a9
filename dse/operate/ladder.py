"""The ladder: every way to run the same weeks, and how much of what foresight saves each of them reaches.

Shares are of foresight's saving over *sleep + clock, run now*: what sleeping and clocks save needs no forecast and no learning, and stands
above that line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dse.errors import unknown_name
from dse.operate import optimum
from dse.operate.forecasts import Skill, skill
from dse.operate.policies import Now, Plan, Threshold
from dse.operate.scenario import Prepared, forecast_of
from dse.operate.simulation import Decides, Outcome, simulate


@dataclass(frozen=True)
class Step:
    """A way to run: who decides, how chips may be run (`dse.operate.scenario.MODES`), and which forecast is looked at."""

    name: str
    meaning: str
    mode: str = "sleep+clock"
    forecast: str = "timetable"
    make: Callable[..., Decides] | None = None


#: From the dearest to the bound; what learns stands between `mpc` and `mpc-true` (`dse.operate.agents`).
STEPS: tuple[Step, ...] = (
    Step("always-on", "all chips awake at full clock, run now", "always-on", make=Now),
    Step("best-clock", "all chips awake at the best clock that carries the peak, run now", "best-clock", make=Now),
    Step("sleep", "full clock, then sleep (race to idle), run now", "sleep", make=Now),
    Step("now", "sleep + clock, run now: what shares are counted from", make=Now),
    Step("threshold", "waits for an intensity in the lower 60 % of two days", make=Threshold),
    Step("timetable", "plans with the 12x24 means of the training weeks", forecast="timetable", make=Plan),
    Step("rule", "plans as if tomorrow were like today", forecast="yesterday", make=Plan),
    Step("mpc", "plans with a ridge forecast fitted on training weeks", forecast="ridge", make=Plan),
    Step("mpc-true", "plans with the true intensity and load of the next 36 hours", forecast="truth", make=partial(Plan, sees_load=True)),
    Step("optimum", "perfect foresight of grid and load (linear program)"),
)
RULES = {step.name: step for step in STEPS}
BASE, BOUND = "now", "optimum"


@dataclass(frozen=True)
class Row:
    """A way to run and what it cost over all judged weeks; ``share`` is None where foresight saves nothing, ``hottest_c`` (the highest
    temperature of any hour) where none is limited."""

    name: str
    meaning: str
    grams: float
    kwh: float
    share: float | None
    missed: float
    kind: str = "rule"
    hottest_c: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values; the temperature only where one is limited."""
        return {name: value for name, value in vars(self).items() if name != "hottest_c" or value is not None}


@dataclass(frozen=True)
class Ladder:
    """All rows of one scenario and period, the outcomes behind them, and the forecast's skill.

    ``promised``: load and arrivals kept their declared envelopes, so that no deadline may be missed.
    """

    rows: tuple[Row, ...]
    outcomes: Mapping[str, Outcome]
    weeks: int
    promised: bool
    skills: Mapping[str, Skill]

    def row(self, name: str) -> Row:
        """The row called so."""
        return next(row for row in self.rows if row.name == name)

    @property
    def saving(self) -> float:
        """What foresight saves of the grams of *sleep + clock, run now*."""
        now = self.row(BASE).grams
        return 1.0 - self.row(BOUND).grams / now if now > 0 else 0.0


def run_step(prepared: Prepared, step: Step, period: str = "test", most: int | None = None) -> Outcome:
    """The outcome of a rule, or of foresight."""
    weeks = prepared.weeks(period, step.forecast, step.mode, most)
    if step.make is None:
        return optimum.foresight(weeks)
    return simulate(weeks, step.make(name=step.name))


def build(
    prepared: Prepared,
    *,
    period: str = "test",
    most: int | None = None,
    steps: Iterable[str] | None = None,
    learnt: Sequence[tuple[Decides, str, str]] = (),
) -> Ladder:
    """Run the steps (default: all) and what was ``learnt`` (policy, meaning, forecast) over the weeks of a period.

    *run now* and foresight are always among them. Raises UsageError for an unknown step.
    """
    wanted = set(RULES if steps is None else steps) | {BASE, BOUND}
    for name in wanted:
        if name not in RULES:
            raise unknown_name("policy", name, RULES)
    outcomes: dict[str, Outcome] = {}
    told: dict[str, tuple[str, str]] = {}
    for step in STEPS:
        if step.name == "mpc-true":
            for policy, meaning, forecast in learnt:
                outcomes[policy.name] = simulate(prepared.weeks(period, forecast, most=most), policy)
                told[policy.name] = (meaning, "learnt")
        if step.name in wanted:
            outcomes[step.name] = run_step(prepared, step, period, most)
            told[step.name] = (step.meaning, "bound" if step.name == BOUND else "rule")
    now, best = outcomes[BASE].total_grams, outcomes[BOUND].total_grams
    saved, thermal = now - best, prepared.scenario.thermal
    rows = tuple(
        Row(
            name=name,
            meaning=told[name][0],
            grams=o.total_grams,
            kwh=float(o.kwh.sum()),
            share=(now - o.total_grams) / saved if saved > 1e-9 * now else None,
            missed=float(o.missed.sum()),
            kind=told[name][1],
            hottest_c=None if thermal is None else float(thermal.path(o.kwh).max()),
        )
        for name, o in outcomes.items()
    )
    weeks = prepared.weeks(period, "timetable", most=most)
    skills = {}
    if len(prepared.grids[0]) >= 8 * weeks.hours:
        first = prepared.first_hours(period, most)
        for word, trace in zip(prepared.scenario.places, prepared.grids, strict=True):
            skills[word] = skill(trace, forecast_of(trace, "ridge"), first)
    return Ladder(rows, outcomes, weeks.episodes, weeks.promised, skills)


def week_of(prepared: Prepared, outcome: Outcome, period: str = "test", most: int | None = None, number: int = 0) -> dict[str, Any]:
    """One week of an outcome as plain columns: what the report draws (hour, grid, load, action, grams), a list an hour."""
    weeks = prepared.weeks(period, "timetable", most=most)
    hours = np.arange(weeks.hours)
    first = int(weeks.first[number])
    sites = []
    for s, word in enumerate(prepared.scenario.places):
        work = outcome.work[number, s]
        chips, clock = prepared.curve().running(work)
        kwh, thermal = outcome.kwh[number, s], prepared.scenario.thermal
        sites.append(
            {
                "site": word,
                "gco2e_per_kwh": weeks.intensity[number, s].tolist(),
                "firm_requests_per_h": weeks.firm[number, s].tolist(),
                "run_requests_per_h": work.tolist(),
                "chips_awake": chips.tolist(),
                "clock": clock.tolist(),
                "kwh": kwh.tolist(),
                "grams": (kwh * weeks.intensity[number, s] * weeks.pue[s]).tolist(),
                **({"temperature_c": thermal.path(kwh).tolist()} if thermal is not None else {}),
            }
        )
    arrived = weeks.firm[number].sum(axis=0) + weeks.arrivals[number].sum(axis=1)
    return {
        "policy": outcome.name,
        "first_hour": first,
        "start": str(np.datetime64(prepared.grids[0].start.replace(tzinfo=None), "h") + first),
        "hour": hours.tolist(),
        "arrived_requests_per_h": arrived.tolist(),
        "waiting_requests": outcome.waiting[number].tolist(),
        "sites": sites,
    }
