"""``dse drive``: drives, the speed among people, and what it asks of perception."""

from __future__ import annotations

import argparse
from typing import Any


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
    compared.add_argument("--all", action="store_true", help="a row for every drive, in place of a mean with its spread for each KIND")
    compared.add_argument("--format", default="text", metavar="NAME", help="text (default), or csv, json, markdown, which have every drive")
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
    each = seconds(profile, vehicle)
    rows = each.rows()
    if args.out:
        with open(args.out, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    asked = requirement_of([trace], vehicle) if each.attainable.any() else None
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


def run_compare(args: argparse.Namespace) -> int:
    """Compare and show."""
    import json

    from dse.operate.driving.comparison import compare
    from dse.operate.driving.vehicle import load_vehicle
    from dse.reports.tables import check_format, table

    check_format(args.format)
    vehicle = load_vehicle(args.vehicle)
    drives = _drives(args)
    found = compare([drive for _, drive in drives], vehicle, _design(args))
    if args.format != "text":
        print(table(found.rows(), args.format))
    elif args.json:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        print("\n".join(found.lines(() if args.all else [kind for kind, _ in drives])))
    return 0


def _drives(args: argparse.Namespace) -> list[tuple[str, Any]]:
    """The drives of the words, each with what it is told under: files with their names, and those that are drawn with their kind."""
    from dse.errors import UsageError
    from dse.operate.driving.generate import KINDS, generate
    from dse.operate.driving.trace import read_trace

    if args.seeds < 1:
        raise UsageError(f"seeds is {args.seeds}; a whole number of at least 1 is needed")
    drives: list[tuple[str, Any]] = []
    for word in args.trace:
        drives += [(word, generate(word, seed=seed)) for seed in range(args.seeds)] if word in KINDS else [(word, read_trace(word))]
    return drives


def _design(args: argparse.Namespace) -> Any:
    """What looks at the frames: a design of a run, or figures of one's own."""
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
