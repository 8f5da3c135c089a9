"""The ladder of `dse operate` on eight measured grids with the example card: ``python benchmarks/operate.py [GRID ...]``."""

from __future__ import annotations

import json
import sys
import time

from dse.operate import device, ladder, scenario
from dse.operate.traces import UTC_OFFSETS_H


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


if __name__ == "__main__":
    main(sys.argv[1:])
