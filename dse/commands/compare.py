"""``dse compare``: two runs side by side."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="compare the fronts of two runs",
        description="Compare the fronts of two runs: settings that differ, hypervolume with a common reference point, which designs "
        "dominate which, and designs that both have.",
        allow_abbrev=False,
    )
    parser.add_argument("first", metavar="RUN", help="run folder or study file")
    parser.add_argument("second", metavar="RUN", help="run folder or study file")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    import json

    from dse.analysis.comparison import compare
    from dse.reports.comparison_text import as_json, text
    from dse.storage.run_folder import load

    found = compare(load(args.first), load(args.second))
    print(json.dumps(as_json(found), indent=2, allow_nan=False) if args.json else text(found))
    return 0
