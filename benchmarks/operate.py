"""The ladder of `dse operate` on eight measured grids with the example card: ``python benchmarks/operate.py [GRID ...]``.

``python benchmarks/operate.py --year [GRID]``: CPU seconds of one contiguous year of 8,760 hours by a rule each, and by foresight.
"""

from __future__ import annotations

import json
import sys
import time

from dse.operate import device, ladder, optimum, policies, scenario, simulation
from dse.operate.traces import UTC_OFFSETS_H
from dse.operate.weeks import make_weeks


def main(grids: list[str]) -> None:
    """Print a line a grid, and JSON of all."""
    told = {}
    print("| grid | foresight saves | timetable | rule | mpc | mpc-true | forecast error | rank |\n|---|---|---|---|---|---|---|---|")
    for name in grids or sorted(UTC_OFFSETS_H):
        begin = time.process_time()
        prepared = scenario.Scenario(device.example(), (name,)).prepared()
        found = ladder.build(prepared)
        skill = found.skills[name]
        shares = [found.row(step).share or 0.0 for step in ("timetable", "rule", "mpc", "mpc-true")]
        told_shares = " | ".join(f"{share:.2f}" for share in shares)
        print(f"| {name} | {100 * found.saving:.1f} % | {told_shares} | {100 * skill.mape:.0f} % | {skill.rank:.2f} |")
        told[name] = {"rows": [row.to_dict() for row in found.rows], "skill": vars(skill), "cpu_s": time.process_time() - begin}
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


if __name__ == "__main__":
    if sys.argv[1:2] == ["--year"]:
        year(sys.argv[2] if len(sys.argv) > 2 else "CISO")
    else:
        main(sys.argv[1:])
