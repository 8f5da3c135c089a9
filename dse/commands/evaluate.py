"""``dse evaluate``: the cost of one design, of a list of designs, or of a list of matrix products."""

from __future__ import annotations

import argparse
from typing import Any

from dse.commands import options


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="cost one design",
        description="Cost one design: every metric and the breakdown by component with the bound of each.",
        allow_abbrev=False,
    )
    options.add_problem_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print."""
    from dse import api, show

    answer = api.evaluate(
        options.workload_of(args),
        args.hw,
        fixed=options.knobs_of(args),
        deployment=options.deployment_of(args),
        criterion=args.criterion,
        hardware_profile=args.profile,
        allow_unsupported=args.allow_unsupported,
    )
    show.show_design(answer, as_json=args.json)
    return 0
