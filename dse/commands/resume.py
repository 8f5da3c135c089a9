"""``dse resume``: finish an interrupted search."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "resume",
        help="finish an interrupted search",
        description="Finish an interrupted search from its run folder: what was committed is kept, the rest is computed, and "
        "the files are written.",
        allow_abbrev=False,
    )
    parser.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    parser.add_argument("--threads", type=int, metavar="N", help="threads")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Resume and show."""
    from dse import api
    from dse.reports import console as show
    from dse.reports import terminal

    with terminal.ProgressReporter() as progress:
        result = api.resume(args.run_folder, threads=args.threads, say=progress.update)
    show.show_run(result, as_json=args.json)
    return 0
