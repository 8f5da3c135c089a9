"""The ladder of `dse operate` on eight measured grids with the example card: ``python benchmarks/operate.py [--seeds N] [GRID ...]``.

``--seeds N``: loads of N seeds (default 5), all of them in the JSON line; the table shows medians and the least and most.
``python benchmarks/operate.py --year [GRID]``: CPU seconds of one contiguous year of 8,760 hours by a rule each, and by foresight.
``python benchmarks/operate.py --temperature [GRID]``: four weeks under limits of a site's temperature, the shipped policies among them.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from dse.operate import device, ladder, optimum, policies, scenario, simulation
from dse.operate.agents import library
from dse.operate.thermal import Thermal
from dse.operate.traces import UTC_OFFSETS_H
from dse.operate.weeks import make_weeks

OF_ALWAYS_ON = ("best-clock", "sleep", "now", "optimum")
SHARES = ("threshold", "timetable", "rule", "mpc", "mpc-true")


def main(grids: list[str], seeds: int) -> None:
    """Print a line a grid, and JSON of all."""
    told = {}
    print(f"medians of {seeds} loads: grams (always-on = 1), then shares of what foresight saves over `now` (least ... most)")
    names = [*OF_ALWAYS_ON, "foresight saves", *SHARES, "forecast error", "rank"]
    print(f"| grid | {' | '.join(names)} |\n{'|---' * (1 + len(names))}|")
    for name in grids or sorted(UTC_OFFSETS_H):
        begin, found = time.process_time(), []
        for seed in range(seeds):
            prepared = scenario.Scenario(device.example(), (name,), seed=seed).prepared()
            found.append(ladder.build(prepared))
        skill = found[0].skills[name]
        cells = [f"{np.median([f.row(step).grams / f.row('always-on').grams for f in found]):.3f}" for step in OF_ALWAYS_ON]
        cells.append(f"{100 * np.median([f.saving for f in found]):.1f} %")
        for step in SHARES:
            shares = np.array([f.row(step).share or 0.0 for f in found])
            cells.append(f"{np.median(shares):.2f} ({shares.min():.2f} ... {shares.max():.2f})")
        missed = sum(row.missed for f in found for row in f.rows)
        print(f"| {name} | {' | '.join(cells)} | {100 * skill.mape:.0f} % | {skill.rank:.2f} |", flush=True)
        told[name] = {"seeds": [[row.to_dict() for row in f.rows] for f in found], "skill": vars(skill), "missed": missed}
        told[name]["cpu_s"] = time.process_time() - begin
    print(json.dumps(told))


def year(grid: str) -> None:
    """Print CPU seconds and grams of a year as one episode; forecasts are made before the clock starts."""
    prepared = scenario.Scenario(device.example(), (grid,)).prepared()
    hours = min(8760, prepared.hours)
    for name, forecast, run in (
        ("now", "yesterday", lambda w: simulation.simulate(w, policies.Now())),
        ("threshold", "yesterday", lambda w: simulation.simulate(w, policies.Threshold())),
        ("rule (plans with yesterday)", "yesterday", lambda w: simulation.simulate(w, policies.Plan())),
        ("foresight", "timetable", optimum.foresight),
    ):
        tables = [scenario.forecast_of(trace, forecast) for trace in prepared.grids]
        weeks = make_weeks(prepared.sites(), prepared.scenario.flexible, [0], hours, tables)
        begin = time.process_time()
        found = run(weeks)
        print(f"{grid}, {hours} h, {name}: {time.process_time() - begin:.2f} CPU s, {found.total_grams:.6g} g", flush=True)


def temperature(grid: str) -> None:
    """Print a line a limit: what foresight saves, and shares of it."""
    learnt = ("imitation", "dqn", "ppo")
    for limit_c in (None, 40.0, 37.6, 37.0):
        thermal = None if limit_c is None else Thermal(25.0, limit_c, 1.5, 3.0)
        prepared = scenario.Scenario(device.example(), (grid,), chips=66, thermal=thermal).prepared()
        found = ladder.build(prepared, most=4, steps=["mpc", "mpc-true"], learnt=[library.find(name) for name in learnt])
        shares = ", ".join(f"{row.name} {row.share:.3f}" for row in found.rows if row.share is not None)
        late, hottest = max(row.missed for row in found.rows), max(row.hottest_c or 0.0 for row in found.rows)
        print(f"{grid}, limit {limit_c} C: saves {100 * found.saving:.2f} %; {shares}; late {late:g}, hottest {hottest:.2f} C", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grids", nargs="*")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--year", action="store_true")
    parser.add_argument("--temperature", action="store_true")
    args = parser.parse_args()
    if args.year:
        year(*(args.grids[:1] or ["CISO"]))
    elif args.temperature:
        temperature(*(args.grids[:1] or ["CISO"]))
    else:
        main(args.grids, args.seeds)
