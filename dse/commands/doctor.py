"""``dse doctor``: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="say what is installed, what is missing, and how to get it",
        description="Look at Python, the compiled kernels, the packages of every extra and the programs that some commands use. Leaves "
        "with code 1 if a search could not run.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine and print."""
    import json
    from dataclasses import asdict

    from dse.commands import checks as doctor

    findings = doctor.examine()
    print(json.dumps([asdict(f) for f in findings], indent=2) if args.json else doctor.text(findings))
    return int(any(f.needed and f.status != "ok" for f in findings))
