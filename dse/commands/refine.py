"""``dse refine``: continue from the front of a run, between the values of its hardware grid."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "refine",
        help="improve a run's front between the grid's values",
        description="Improve the front of a finished run: its models on hardware between the listed values of the knobs, every "
        "candidate costed exactly. Writes a new run folder.",
        allow_abbrev=False,
    )
    parser.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    parser.add_argument("--resolution", type=int, default=2, metavar="N", help="knobs move in steps of 1/2**N of the grid's (default 2)")
    parser.add_argument("--rounds", type=int, default=12, metavar="N", help="most rounds of local search a resolution (default 12)")
    parser.add_argument("--out", metavar="FOLDER", help="run folder to write (default RUN-refined)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Refine, write, show."""
    import shlex
    import sys

    from dse.api import refine
    from dse.errors import UsageError
    from dse.reports import console as show

    if args.rounds < 1:
        raise UsageError(f"rounds is {args.rounds}; a whole number of at least 1 is needed")
    result = refine(
        args.run_folder,
        out=args.out,
        resolution=args.resolution,
        rounds=args.rounds,
        threads=args.threads,
        command=shlex.join(["dse", *sys.argv[1:]]),
        say=lambda text: print(text, file=sys.stderr),
    )
    show.show_run(result, as_json=args.json)
    return 0
