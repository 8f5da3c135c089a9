"""Print docs/cli.md from the command line's own parsers: ``python docs/cli_reference.py > docs/cli.md``.

A test holds the page to what this prints, so that no option is left out of it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

INTRODUCTION = """\
# Commands

<!-- Made by `python docs/cli_reference.py > docs/cli.md`; edit the help texts in dse/commands/ instead. -->

`dse COMMAND --help` prints the same. Words that hold everywhere:

* **Output.** What was asked for goes to stdout, progress and remarks to stderr. `--json` makes stdout one JSON document. Colours and
  progress bars appear on a terminal only; `NO_COLOR=1` turns colours off.
* **Exit codes.** 0 done, 1 failed (one sentence on stderr says what, where and what would do), 2 used wrongly, 130 interrupted; a search
  that was interrupted is finished by `dse resume`.
* **Names.** An unknown name is never replaced by a default: the answer names the nearest known one. `dse list` shows them all.
* **Files of options.** `dse search --config FILE.toml` reads the long options without their dashes (`set` for `--set`); repeatable ones are
  lists. What the command line gives wins.
"""


def page() -> str:
    """The whole page as Markdown."""
    from dse.commands.parser import build_parser

    parser = build_parser()
    lines = [INTRODUCTION]
    for name, _, text in _commands(parser):
        lines.append(f"- [`dse {name}`](#dse-{name}): {_text(text)}")
    lines.append("")
    for name, command, _ in _commands(parser):
        lines += _section(f"dse {name}", command, level=2)
    return "\n".join(lines).rstrip("\n") + "\n"


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, command in action.choices.items():
                yield name, command, helps.get(name, "")


def _section(title: str, parser: argparse.ArgumentParser, level: int) -> list[str]:
    lines = [f"{'#' * level} {title}", "", _text(parser.description or ""), ""]
    for group in parser._action_groups:
        rows = [_row(action) for action in group._group_actions if _shown(action)]
        if not rows:
            continue
        own = group.title not in ("positional arguments", "options", "optional arguments")
        if own:
            lines += [f"{_text(group.title or '').capitalize()}:", ""]
        lines += ["| argument | meaning |", "|---|---|", *rows, ""]
    if parser.epilog:
        lines += ["```text", parser.epilog.strip(), "```", ""]
    for name, command, _ in _commands(parser):
        lines += _section(f"{title} {name}", command, level + 1)
    return lines


def _shown(action: argparse.Action) -> bool:
    hidden = isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    return not hidden and action.help != argparse.SUPPRESS


def _row(action: argparse.Action) -> str:
    value = _value(action)
    if action.option_strings:
        name = ", ".join(action.option_strings) + (f" {value}" if action.nargs != 0 else "")
    else:
        name = f"[{value}]" if action.nargs == "?" else f"{value} ..." if action.nargs in ("*", "+") else value
    name = name.replace("|", "\\|")
    needed = " (required)" if action.required and action.option_strings else ""
    return f"| `{name}` | {_text(action.help or '')}{needed} |"


def _value(action: argparse.Action) -> str:
    metavar: Any = action.metavar
    if isinstance(metavar, tuple):
        return " ".join(metavar)
    if metavar is not None:
        return str(metavar)
    if action.choices is not None:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return action.dest.upper()


def _text(text: str) -> str:
    """Help text as Markdown: argparse's doubled per cent signs, and nothing that a table or HTML would take for its own."""
    return text.replace("%%", "%").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")


if __name__ == "__main__":
    sys.stdout.write(page())
