"""What `dse search` does where the workload is a log of requests: fleets of chips that serve it."""

from __future__ import annotations

import argparse
import re
from math import isnan
from typing import Any

LOGS = (".csv", ".jsonl", ".ndjson")


def is_log(workload: str | None) -> bool:
    """Whether a workload's name is that of a log of requests."""
    return bool(workload) and str(workload).endswith(LOGS)


def run(args: argparse.Namespace) -> int:
    """Search and print."""
    import json
    import shlex
    import sys
    from pathlib import Path

    from dse import api, served
    from dse.commands import options
    from dse.errors import UsageError
    from dse.problem.deployment import Deployment
    from dse.reports import terminal
    from dse.reports.recommendation_text import recommendation_text
    from dse.serving import fleet
    from dse.serving.requests import read_requests
    from dse.storage.run_folder import csv_text, write_text

    if not args.model:
        raise UsageError("model is missing; name the model that serves the log with --model (e.g. llama3-8b)")
    hardware = args.hw.split(",") if args.hw != "edge22" else ["h100", "l40s"]
    limits, bounds = _limits(args.constraint)
    given: dict[str, Any] = {
        "objectives": [_objective(text) for text in args.objective or ["max:goodput_per_s", "min:gco2e_per_request"]],
        "knobs": dict(map(_knob, args.vary)),
        "bounds": bounds,
        "limits": limits,
        "settings": options.knobs_of(args),
    }
    log = read_requests(args.workload)
    grids = _grids(args.grid, log.region) if log.region else {"": args.grid}
    # A table's name as --out: the run stands beside it.
    table = Path(args.out) if args.out and args.out.endswith(".csv") else None
    out = table.with_suffix("") if table else args.out
    if out is None and log.region:
        out = api.free_folder(f"{Path(args.workload).stem}-custom")
    runs = {}
    for region, grid in grids.items():
        where = Deployment(grid=grid, pue=max(args.pue, 1.0), lifetime_years=args.lifetime_years, carbon_profile="default")
        problem = served.fleet_problem(args.workload, args.model, hardware, deployment=where, region=region, **given)
        with terminal.ProgressReporter() as progress:
            runs[region] = api.search_served(
                problem,
                out=Path(out) / region if region else out,
                seed=args.seed or 0,
                command=shlex.join(["dse", *sys.argv[1:]]),
                say=progress.update,
            )
    if log.region:
        answer = fleet.of_all_regions(log, {name: served.answer_of(one) for name, one in runs.items()})
        return _regions(args, {**answer, "run": str(out)})
    one = runs[""]
    if table:
        write_text(table, csv_text(one))
    answer = {**served.answer_of(one), "run": str(one.path), "recommendation": one.context["recommendation"]}
    if args.json:
        print(json.dumps(answer, indent=2, allow_nan=False))
        return 0
    print(f"{answer['fleets']} fleets simulated, {answer['keep_bounds']} keep the bounds; front exact on the grid:", file=sys.stderr)
    print(recommendation_text(one))
    for row in answer["front"]:
        print(_line(row))
    print(f"rule of thumb (fewest chips, largest batch): {_line(answer['rule_of_thumb'])}")
    print(f"least carbon under the same bounds saves {100 * answer['saved']:.3g} %: {_line(answer['least_grams'])}")
    _show_hours(answer["hours"])
    print(f"{one.path}/: pareto.csv, report.html, designs/, study.db")
    return 0


def _show_hours(hours: list[dict[str, Any]]) -> None:
    """That fleet hour by hour, where there is more than one."""
    for hour in hours if len(hours) > 1 else ():
        needed = "more than it has" if hour["needed"] is None else f"{hour['needed']:.0f} ({hour['with_spares']:.0f} with spares)"
        print(
            f"  hour {hour['hour']:.0f}: {hour['requests']:.0f} requests, replicas needed {needed}, {hour['energy_j'] / 3.6e6:.4g} kWh at "
            f"{hour['gco2e_per_kwh']:.4g} g/kWh, {hour['operational_gco2e']:.4g} g + {hour['embodied_gco2e']:.4g} g embodied"
        )


def _grids(words: str, regions: tuple[str, ...]) -> dict[str, str]:
    """The grid of every region: ``REGION=GRID,...`` where grids are given so, else a region is the name of its own grid."""
    from dse.errors import UsageError, unknown_name

    names = list(dict.fromkeys(regions))
    if "=" not in words:
        if words != "world":
            raise UsageError(
                f"grid is {words!r}, must be REGION=GRID,REGION=GRID,... for a log with regions (or left out: regions are grids)"
            )
        return {name: name for name in names}
    found = {}
    for part in words.split(","):
        name, equals, grid = part.partition("=")
        if not equals or not name.strip() or not grid.strip():
            raise UsageError(f"grid is {words!r}, must be REGION=GRID,REGION=GRID,... for a log with regions")
        found[name.strip()] = grid.strip()
    for name in names:
        if name not in found:
            raise unknown_name("region of the log", name, found)
    return {name: found[name] for name in names}


def _regions(args: argparse.Namespace, answer: dict[str, Any]) -> int:
    """Print the fleets of all regions."""
    import json

    if args.json:
        print(json.dumps(answer, indent=2, allow_nan=False))
        return 0
    for name, found in answer["regions"].items():
        print(f"{name}, {answer['requests'][name]} requests: least carbon {_line(found['least_grams'])}")
        print(f"  rule of thumb {_line(found['rule_of_thumb'])}")
        _show_hours(found["hours"])
    print(f"all regions: {answer['gco2e_per_request']:.4g} g a request, {100 * answer['saved']:.3g} % less than by the rule of thumb")
    print(f"{answer['run']}/: a run for each region (pareto.csv, report.html, designs/, study.db)")
    return 0


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['replicas']} x {row['tp']} {row['hw']}, {row['weight_bits']} bits, batch {row['max_sequences']}: "
        f"{row['goodput_per_s']:.4g} good requests/s ({100 * row['goodput_share']:.3g} %), {row['gco2e_per_request']:.4g} g a request"
    )


def _objective(text: str) -> tuple[str, bool]:
    from dse.errors import UsageError

    side, colon, name = text.partition(":")
    if not colon or side not in ("min", "max"):
        raise UsageError(
            f"objective is {text!r}, must be min:METRIC or max:METRIC for a log of requests; nearest is 'min:gco2e_per_request'"
        )
    return name, side == "max"


def _limits(texts: list[str]) -> tuple[dict[str, float], list[tuple[str, str, float]]]:
    """Limits of a good request (ttft_ms, tpot_ms) and bounds of a fleet; 95 % of requests are good unless said."""
    from dse.errors import UsageError

    limits: dict[str, float] = {}
    bounds: list[tuple[str, str, float]] = []
    for text in texts:
        found = re.fullmatch(r"\s*(\w+)\s*(<=|>=)\s*([0-9.eE+-]+)\s*", text)
        try:
            value = float(found[3]) if found else float("nan")
        except ValueError:
            value = float("nan")
        if not found or isnan(value):
            raise UsageError(f"constraint is {text!r}, must be METRIC<=VALUE or METRIC>=VALUE; nearest is 'ttft_ms<=500'")
        if found[1] in ("ttft_ms", "tpot_ms") and found[2] == "<=":
            limits[found[1].replace("_ms", "_s")] = value / 1e3
        else:
            bounds.append((found[1], found[2], value))
    if limits and not any(name == "goodput_share" for name, _, _ in bounds):
        bounds.append(("goodput_share", ">=", 0.95))
    return limits, bounds


def _knob(text: str) -> tuple[str, tuple[int, ...]]:
    from dse.errors import UsageError

    name, equals, values = text.partition("=")
    if not equals or not all(value.strip().isdigit() and int(value) > 0 for value in values.split(",")):
        raise UsageError(f"vary is {text!r}, must be NAME=V,V,... with whole numbers from 1; nearest is 'tp=1,2'")
    return name.strip(), tuple(int(value) for value in values.split(","))
