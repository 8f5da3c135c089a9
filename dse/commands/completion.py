"""``dse completion``: a script that completes commands and options in bash, zsh or fish."""

from __future__ import annotations

import argparse
from typing import Any

SHELLS = ("bash", "zsh", "fish")


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "completion",
        help="print a completion script for bash, zsh or fish",
        description="Print a completion script. bash: dse completion bash > ~/.local/share/bash-completion/completions/dse; zsh: dse "
        "completion zsh > a folder of $fpath, as _dse; fish: dse completion fish > ~/.config/fish/completions/dse.fish.",
        allow_abbrev=False,
    )
    parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from dse.commands.completion_scripts import script
    from dse.commands.parser import build_parser
    from dse.errors import unknown_name

    if args.shell not in SHELLS:
        raise unknown_name("shell", args.shell, SHELLS)
    print(script(args.shell, build_parser()), end="")
    return 0
