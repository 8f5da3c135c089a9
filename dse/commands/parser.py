"""The parser of all commands. Nothing heavy is imported here: a command's work is imported when the command runs."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from dse.version import __version__

# Modules of dse.commands, in the order in which `dse --help` shows them.
COMMANDS = (
    *("search", "evaluate", "resume", "report", "list_known", "workload", "quality", "carbon", "export", "import_hw", "simulate", "tokens"),
    *("explain", "compare", "validate", "calibrate", "refine", "operate", "drive", "xmc", "music", "init", "doctor", "completion"),
)
_WORDS = {"list": "list_known", "import-hw": "import_hw"}  # whose module is not called like the command

EPILOG = """\
examples:
  dse search --workload bert --objective carbon
  dse search --workload bert --objective max:quality --objective min:latency_s --constraint "area_mm2<=10"
  dse evaluate --workload bert --hw edge22 --set cores=4 --set width=64 --json
  dse list
"""


_MOST = 2**53  # of a number of things: beyond it not even a float counts one by one


def _whole(text: str) -> int:
    """A whole number of the command line."""
    try:
        value = int(text)
    except ValueError:  # also one of more digits than Python reads
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number") from None
    if abs(value) > _MOST:
        raise argparse.ArgumentTypeError(f"{text[:40]} is too large; a whole number of at most {_MOST} is needed")
    return value


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, with the nearest option where one is unknown.

    ``default_command`` is the command of a group that is meant where the first word names none of them.
    """

    default_command: str | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", int, _whole)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, with the default command of a group put in."""
        if self.default_command is not None and args:
            groups = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
            if args[0] not in ("-h", "--help", *(name for group in groups for name in group.choices)):
                args = [self.default_command, *args]
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Print the sentence and leave with code 2."""
        bad = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if bad:
            from dse.errors import unknown_name

            message = str(unknown_name("command", bad.group(1), [name.strip("' ") for name in bad.group(2).split(",")]))
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_all(self, args: Sequence[str] | None) -> argparse.Namespace:
        """Parse; an option that nobody knows is answered with the nearest one that somebody does."""
        parsed: argparse.Namespace
        parsed, unknown = self.parse_known_args(args)
        if unknown:
            from dse.errors import nearest

            close = nearest(unknown[0], self._all_options(parsed))
            hint = f"; did you mean {close}?" if close else ""
            self.error(f"unknown argument {unknown[0]!r}{hint}")
        if isinstance(seed := getattr(parsed, "seed", None), int) and seed < 0:
            self.error(f"seed is {seed}; a whole number from 0 is needed")
        return parsed

    def _all_options(self, parsed: argparse.Namespace) -> list[str]:
        found: list[str] = []

        def collect(parser: argparse.ArgumentParser) -> None:
            for action in parser._actions:
                found.extend(action.option_strings)
                if isinstance(action, argparse._SubParsersAction):
                    chosen = action.choices.get(getattr(parsed, action.dest or "", None) or "")
                    if chosen is not None:
                        collect(chosen)

        collect(self)
        return found


def build_parser(command: str | None = None) -> Parser:
    """The parser of all commands, or of one whose name is the first word of a command line: the others are then not imported."""
    parser = Parser(
        prog="dse",
        description="Find the model and the accelerator that together give the most quality for the least carbon, latency, energy or area.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dse {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    module = _WORDS.get(command or "", command)
    for name in (module,) if module in COMMANDS and command not in _WORDS.values() else COMMANDS:
        importlib.import_module(f"dse.commands.{name}").register(commands)
    return parser
