"""``dse report``: write the report of a finished run again, or to another place."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="write the report of a run",
        description="Write the self-contained HTML report of a finished run, by default into its folder.",
        allow_abbrev=False,
    )
    parser.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    parser.add_argument("--out", metavar="FILE.html", help="where to write it (default RUN/report.html)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Load and write."""
    from pathlib import Path

    from dse.reports.pages import page_of_run
    from dse.storage.run_folder import load, write_text

    result = load(args.run_folder)
    print(write_text(Path(args.out) if args.out else result.path / "report.html", page_of_run(result)))
    return 0
