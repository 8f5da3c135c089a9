"""``dse drive``: drives, the speed among people, and what it asks of perception."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dse.operate.driving.comparison import Comparison, Perception
    from dse.operate.driving.speed import SpeedProfile
    from dse.operate.driving.trace import DriveTrace
    from dse.operate.driving.vehicle import Vehicle


def register(commands: Any) -> None:
    """Add the command and its subcommands."""
    parser = commands.add_parser(
        "drive",
        help="speed of a vehicle among people, and the deadline and frame rate it asks of perception",
        description="Drives of a vehicle: draw some, drive a trace (speed, deadline, frame rate a second), compare frame rates. "
        "`dse search --workload av-perception --trace DRIVE.csv` finds the accelerator.",
        allow_abbrev=False,
    )
    kinds = parser.add_subparsers(dest="drive_command", metavar="COMMAND", required=True, parser_class=type(parser))
    drawn = kinds.add_parser("generate", help="draw a drive: road, plaza or school (synthetic)", allow_abbrev=False)
    drawn.add_argument("kind", metavar="KIND", help="road, plaza or school")
    drawn.add_argument("--seed", type=int, default=0, help="default 0")
    drawn.add_argument("--seconds", type=float, default=600.0, metavar="S", help="length (default 600)")
    drawn.add_argument("--out", metavar="FILE.csv", help="default KIND-SEED.csv")
    drawn.set_defaults(run=run_generate)
    driven = kinds.add_parser("profile", help="speed, deadline and frame rate of each second of a drive", allow_abbrev=False)
    driven.add_argument("trace", metavar="DRIVE.csv", help="time_s, legal_limit_mps (or legal_limit_kmh), pedestrians, distance_m")
    driven.add_argument("--out", metavar="FILE.csv", help="write the seconds there; default: the terminal")
    compared = kinds.add_parser("compare", help="a contextual frame rate against fixed ones", allow_abbrev=False)
    compared.add_argument("trace", nargs="+", metavar="DRIVE.csv|KIND", help="drives: files, or kinds, of which --seeds are drawn")
    compared.add_argument("--run", dest="run_folder", metavar="RUN", help="run folder whose design looks at the frames")
    compared.add_argument("--design", type=int, default=1, metavar="K", help="number of the design on its front (default 1)")
    compared.add_argument("--latency", type=float, metavar="S", help="without --run: latency of a frame")
    compared.add_argument("--energy", type=float, metavar="J", help="without --run: energy of a frame")
    compared.add_argument("--idle", type=float, metavar="W", help="without --run: power between frames")
    compared.add_argument("--grid", default="world", metavar="REGION|G|FILE.csv", help="without --run: grid of use (default world)")
    compared.add_argument("--seeds", type=int, default=1, metavar="N", help="drives of each KIND, seeds 0 to N-1 (default 1)")
    for one in (driven, compared):
        one.add_argument("--vehicle", default="shuttle", metavar="FILE.toml", help="the vehicle (default the example, shuttle)")
        one.add_argument("--json", action="store_true", help="print JSON on stdout")
    driven.set_defaults(run=run_profile)
    compared.set_defaults(run=run_compare)


def run_generate(args: argparse.Namespace) -> int:
    """Draw and write."""
    from dse.errors import UsageError
    from dse.operate.driving.generate import generate
    from dse.operate.driving.trace import write_trace

    if args.seed < 0:
        raise UsageError(f"seed is {args.seed}; a whole number of at least 0 is needed")
    trace = generate(args.kind, seed=args.seed, duration_s=args.seconds)
    out = args.out or f"{args.kind}-{args.seed}.csv"
    write_trace(trace, out)
    print(f"{out}: {len(trace):,} rows, {trace.duration_s:g} s, synthetic")
    return 0


def run_profile(args: argparse.Namespace) -> int:
    """Drive and show the seconds."""
    import csv
    import json
    import sys

    from dse.operate.driving.perception import seconds
    from dse.operate.driving.requirement import requirement_of
    from dse.operate.driving.speed import drive
    from dse.operate.driving.trace import read_trace
    from dse.operate.driving.vehicle import load_vehicle

    vehicle, trace = load_vehicle(args.vehicle), read_trace(args.trace)
    profile = drive(trace, vehicle)
    rows = second_rows(profile, vehicle)
    if args.out:
        with open(args.out, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    asked = requirement_of([trace], vehicle) if seconds(profile, vehicle).attainable.any() else None
    if args.json:
        print(json.dumps({"requirement": asked.to_dict() if asked else None, "seconds": rows}, indent=2, allow_nan=False))
        return 0
    if not args.out:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    if asked:
        print(asked.sentence(), file=sys.stderr)
    return 0


def second_rows(profile: SpeedProfile, vehicle: Vehicle) -> list[dict[str, Any]]:
    """Each second as plain values; a budget without end (the vehicle stands) is None."""
    from math import isfinite

    from dse.operate.driving.perception import seconds

    asked = seconds(profile, vehicle)
    columns = {
        name: getattr(asked, name).tolist() for name in ("time_s", "speed_mps", "latency_budget_s", "rate_hz", "deadline_s", "attainable")
    }
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return [{**row, "latency_budget_s": row["latency_budget_s"] if isfinite(row["latency_budget_s"]) else None} for row in rows]


def run_compare(args: argparse.Namespace) -> int:
    """Compare and show."""
    import json

    from dse.operate.driving.comparison import compare
    from dse.operate.driving.vehicle import load_vehicle

    vehicle = load_vehicle(args.vehicle)
    found = compare(_drives(args), vehicle, _design(args))
    if args.json:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        print("\n".join(comparison_lines(found)))
    return 0


def _drives(args: argparse.Namespace) -> list[DriveTrace]:
    from dse.errors import UsageError
    from dse.operate.driving.generate import KINDS, generate
    from dse.operate.driving.trace import read_trace

    if args.seeds < 1:
        raise UsageError(f"seeds is {args.seeds}; a whole number of at least 1 is needed")
    drives: list[DriveTrace] = []
    for word in args.trace:
        drives += [generate(word, seed=seed) for seed in range(args.seeds)] if word in KINDS else [read_trace(word)]
    return drives


def _design(args: argparse.Namespace) -> Perception:
    from dse.errors import UsageError
    from dse.operate.driving.comparison import Perception

    own = {"latency": args.latency, "energy": args.energy, "idle": args.idle}
    if args.run_folder is None:
        missing = [name for name, value in own.items() if value is None]
        if missing:
            raise UsageError(f"{missing[0]} is missing; give --run RUN, or --latency, --energy and --idle of a frame")
        for name, value in own.items():
            if not (0 <= value < 1e6) or (name == "latency" and value == 0):
                raise UsageError(f"{name} is {value}; a number {'above' if name == 'latency' else 'from'} 0 is needed")
        from carbon.factors.grid import lookup
        from carbon.factors.grid_files import as_grid

        return Perception("the given design", args.latency, args.energy, args.idle, gco2e_per_kwh=lookup(as_grid(args.grid)).gco2e_per_kwh)
    if given := [name for name, value in own.items() if value is not None]:
        raise UsageError(f"{given[0]} is given beside --run, whose design has its own; leave one out")
    from dse import api
    from dse.operate.driving.requirement import perception_of

    run = api.load(args.run_folder)
    designs = {design["design"]: design for design in run.designs}
    if args.design not in designs:
        raise UsageError(f"design {args.design} is not on the front of {args.run_folder}; it has 1 to {len(designs)}")
    return perception_of(run.problem, designs[args.design])


def comparison_lines(found: Comparison) -> list[str]:
    """A comparison as a table for the terminal."""
    from dse.operate.driving.comparison import WAYS

    d = found.design
    lines = [
        f"{d.name}: {1e3 * d.latency_s:.4g} ms and {d.energy_j:.4g} J a frame, {d.idle_w:.3g} W between frames",
        f"{'drive':<24} {'frame rate':<14} {'mean Hz':>8} {'J/km':>9} {'gCO2e/km':>9} {'misses':>7} {'unavoidable':>12} {'overrun m':>10}",
    ]
    for way in (*found.ways, *map(found.total, WAYS)):
        lines.append(
            f"{way.drive[-24:]:<24} {way.way:<14} {way.rate_hz:>8.3g} {way.joules_per_km:>9.4g} {way.gco2e_per_km:>9.4g} {way.misses:>7} "
            f"{way.unavoidable:>12} {way.worst_overrun_m:>10.3g}"
        )
    everywhere, each = (100 * found.saved(way) for way in ("fixed for all", "best fixed"))
    lines.append(
        f"by context saves {everywhere:.3g} % of the joules a kilometre against {found.fixed_for_all_hz:g} frames/s everywhere and "
        f"{each:.3g} % against the best fixed rate of each drive, at no more misses"
    )
    lines.append(f"{'drive':<24} {'km':>6} {'m/s':>6} {'jerk max':>9} {'rms':>6} {'emergency':>10} {'unsmoothed jerk max':>20} {'rms':>6}")
    for c in found.comfort:
        lines.append(
            f"{c.drive[-24:]:<24} {c.kilometres:>6.3g} {c.mean_speed_mps:>6.3g} {c.jerk_max_mps3:>9.3g} {c.jerk_rms_mps3:>6.2g} "
            f"{100 * c.emergency_share:>9.2g}% {c.target_jerk_max_mps3:>20.4g} {c.target_jerk_rms_mps3:>6.3g}"
        )
    return lines
