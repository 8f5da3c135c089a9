"""``dse compare``: two runs side by side."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="compare the fronts of two runs and more",
        description="Compare the fronts of two runs and more: settings that differ, hypervolume with a common reference point, how many "
        "designs dominate which, and, of two runs, which these are and the designs that both have.",
        allow_abbrev=False,
    )
    parser.add_argument("first", metavar="RUN", help="run folder or study file")
    parser.add_argument("second", metavar="RUN", help="run folder or study file")
    parser.add_argument("more", nargs="*", metavar="RUN", help="further runs")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare and print."""
    import json

    from dse.reports import comparison_text as show
    from dse.storage.run_folder import load

    runs = [load(path) for path in (args.first, args.second, *args.more)]
    if args.more:
        several = show.compared_several(runs)
        print(json.dumps(show.several_as_json(several), indent=2, allow_nan=False) if args.json else show.text_of_several(several))
        return 0
    found = show.compared(*runs)
    print(json.dumps(show.as_json(found), indent=2, allow_nan=False) if args.json else show.text(found))
    return 0
