"""The command line. Nothing heavy is imported here: a command's work is imported when the command runs.

Exit codes: 0 done, 1 failed (one sentence on stderr), 2 used wrongly, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from dse import __version__

# Modules of dse.commands, in the order in which `dse --help` shows them.
COMMANDS = (
    *("search", "evaluate", "resume", "report", "list_known", "workload", "quality", "carbon", "export", "import_hw"),
    *("explain", "compare", "validate", "calibrate", "refine", "doctor", "completion"),
)

EPILOG = """\
examples:
  dse search --workload bert --objective carbon
  dse search --workload bert --objective max:quality --objective min:latency_s --constraint "area_mm2<=10"
  dse evaluate --workload bert --hw edge22 --set cores=4 --set width=64 --json
  dse list
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one sentence, with the nearest option where one is unknown."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence and leave with code 2."""
        bad = re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message)
        if bad:
            from dse.errors import unknown_name

            message = str(unknown_name("command", bad.group(1), [name.strip("' ") for name in bad.group(2).split(",")]))
        self.exit(2, f"{self.prog}: {message}\n")

    def parse_all(self, args: Sequence[str] | None) -> argparse.Namespace:
        """Parse; an option that nobody knows is answered with the nearest one that somebody does."""
        parsed, unknown = self.parse_known_args(args)
        if unknown:
            from dse.errors import nearest

            close = nearest(unknown[0], self._all_options(parsed))
            hint = f"; did you mean {close}?" if close else ""
            self.error(f"unknown argument {unknown[0]!r}{hint}")
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


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="dse",
        description="Find the model and the accelerator that together give the most quality for the least carbon, latency, energy or area.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dse {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name in COMMANDS:
        importlib.import_module(f"dse.commands.{name}").register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = build_parser()
    words = list(sys.argv[1:] if argv is None else argv)
    args = parser.parse_all(words)
    if args.command is None:
        parser.print_help()
        return 2
    args.words = words[words.index(args.command) + 1 :]  # the command's own
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("dse: interrupted; what was computed is kept, `dse resume` continues a search", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of a pipe has seen enough; that is no failure of ours.
        sys.stderr.close()
        return 0
    except ValueError as error:
        # Every package raises its own subclass of ValueError with one sentence; anything else is a defect and must show.
        if not _is_ours(error):
            raise
        print(f"dse: {error}", file=sys.stderr)
        return int(getattr(error, "exit_code", 1))
    except OSError as error:
        if error.filename is None:
            raise
        print(f"dse: {error.filename} cannot be used: {error.strerror}", file=sys.stderr)
        return 1


def _is_ours(error: ValueError) -> bool:
    return type(error).__module__.partition(".")[0] in ("dse", "hw_models", "carbon", "workloads")


if __name__ == "__main__":
    sys.exit(main())
