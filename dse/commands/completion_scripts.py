"""Completion scripts from the parser of the command line: static text, so that completing starts no Python.

Words that come after an option are completed where the package knows them (workloads, devices, places, knobs, presets, targets), with file
names where a file does as well; else file names are offered. Names are those known when the script is printed.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

_SAFE = re.compile(r"^[A-Za-z0-9_.:/=-]+$")


@dataclass(frozen=True)
class Option:
    """An option of a command: its spellings, its help on one line, whether a value follows, the values it may have, and whether a file
    name does as well."""

    names: tuple[str, ...]
    help: str
    takes_value: bool
    values: tuple[str, ...]
    files: bool = False


@dataclass(frozen=True)
class Command:
    """A command: its name, help, options, and the words that may stand without an option."""

    name: str
    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...]


def _values(command: str, option: str) -> tuple[str, ...]:
    """Words that may follow an option (or, for ``""``, stand alone)."""
    if option == "--objective":
        from dse.problem.objectives import PRESETS

        return tuple(PRESETS)
    if option == "--to":
        from dse.exporters import targets

        return tuple(targets())
    if option == "--from":
        from dse.importers import SOURCES

        return tuple(SOURCES)
    if option == "--criterion":
        return ("edp", "latency", "energy")
    if option == "--strategy":
        from dse.strategies import registry

        return (registry.AUTO, *(record.name for record in registry.records()))
    if option == "--format":
        from dse.reports.tables import FORMATS

        return FORMATS
    if option in _OR_FILES:
        return _known_names(option)
    if (command, option) == ("init", ""):
        from dse.spaces.starters import KINDS

        return KINDS
    if (command, option) == ("completion", ""):
        return ("bash", "zsh", "fish")
    if (command, option) == ("list", ""):
        from dse.commands.list_known import TOPICS

        return TOPICS
    return ()


# Options that take a name of ours or a file.
_OR_FILES = ("--workload", "--hw", "--grid", "--fab-grid", "--set", "--vary")


def _known_names(option: str) -> tuple[str, ...]:
    """Workloads, hardware, places with a plain name, or knobs of the templates followed by an equals sign."""
    if option == "--workload":
        from workloads import library

        return (*library.ALIASES, *library.names())
    from hw_models import spaces as templates

    if option == "--hw":
        from hw_models.devices import library as devices

        return (*templates.names(), *devices.names())
    if option in ("--set", "--vary"):
        found = [templates.load(name) for name in templates.names()]
        return tuple(f"{knob}=" for knob in dict.fromkeys(k for template in found for k in (*template.knobs, *template.settings)))
    from carbon.factors import grid

    plain = {re.sub(r"^[a-z]+:", "", place.code) for place in grid.everything() if place.level in ("us_state", "cloud_region")}
    named = {place.name.lower() for place in grid.everything() if place.level in ("country", "world")}
    return tuple(sorted(name for name in plain | named if _SAFE.match(name) and ":" not in name))


def commands_of(parser: argparse.ArgumentParser) -> list[Command]:
    """The commands of a parser, in its order."""
    found: list[Command] = []
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
        for name, inner in action.choices.items():
            options = tuple(
                Option(
                    tuple(a.option_strings),
                    _one_line(a.help or ""),
                    a.nargs != 0,
                    next((values for o in a.option_strings if (values := _values(name, o))), tuple(map(str, a.choices or ()))),
                    any(o in _OR_FILES[:4] for o in a.option_strings),
                )
                for a in inner._actions
                if a.option_strings
            )
            found.append(Command(name, _one_line(helps.get(name, "")), options, _values(name, "")))
    for command in found:
        for word in (command.name, *command.words, *(n for o in command.options for n in (*o.names, *o.values))):
            if not _SAFE.match(word):
                raise ValueError(f"the word {word!r} of the command line cannot stand in a completion script")
    return found


def _one_line(text: str) -> str:
    """Help as one plain line: no character that a shell reads as anything else."""
    return re.sub(r"[^A-Za-z0-9 ,.;()/<>=+-]", "", " ".join(text.replace("%%", "percent").split()))


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for ``bash``, ``zsh`` or ``fish``."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands_of(parser))


def _bash(commands: list[Command]) -> str:
    cases, values = [], []
    for command in commands:
        words = [name for option in command.options for name in option.names]
        cases.append(f'    {command.name}) options="{" ".join(words)}"; words="{" ".join(command.words)}" ;;')
        for option in command.options:
            if option.takes_value:
                keys = "|".join(f"{command.name}:{name}" for name in option.names)
                known = f'-W "{" ".join(option.values)}" ' if option.values else ""
                files = "-f " if option.files or not option.values else ""
                joined = "compopt -o nospace 2>/dev/null; " if option.values and option.values[0].endswith("=") else ""
                values.append(f'    {keys}) {joined}COMPREPLY=($(compgen {files}{known}-- "$word")); return ;;')
    names = " ".join(command.name for command in commands)
    return "\n".join(
        [
            "# bash completion of dse",
            "_dse() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" command="" options="" words="" part',
            '  for part in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
            '    case "$part" in -*) ;; *) command="$part"; break ;; esac',
            "  done",
            '  if [ -z "$command" ]; then',
            f'    COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))',
            "    return",
            "  fi",
            '  case "$command:$before" in',
            *values,
            "  esac",
            '  case "$command" in',
            *cases,
            "  esac",
            '  case "$word" in',
            '    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;',
            '    *) if [ -n "$words" ]; then COMPREPLY=($(compgen -W "$words" -- "$word"))',
            '      else COMPREPLY=($(compgen -f -- "$word")); fi ;;',
            "  esac",
            "}",
            "complete -o filenames -F _dse dse",
            "",
        ]
    )


def _zsh(commands: list[Command]) -> str:
    lines = ["#compdef dse", "_dse() {", "  local -a commands", "  commands=("]
    lines += [f"    '{c.name}:{c.help.replace(':', ' ')}'" for c in commands]
    lines += [
        "  )",
        "  if (( CURRENT == 2 )); then",
        "    _describe 'command' commands",
        "    return",
        "  fi",
        '  case "$words[2]" in',
    ]
    for command in commands:
        lines.append(f"    {command.name})")
        specs = []
        for option in command.options:
            for name in option.names:
                told = option.help.replace("[", "(").replace("]", ")")
                offered = f"({' '.join(option.values)})" if option.values else "_files"
                if option.values and option.files:
                    offered = f"{{compadd {' '.join(option.values)}; _files}}"
                value = f":value:{offered}" if option.takes_value else ""
                # A star: the option may be given again.
                specs.append(f"'*{name}[{told}]{value}'")
        rest = f"'*:word:({' '.join(command.words)})'" if command.words else "'*:file:_files'"
        # The command itself is the first word that _arguments sees.
        lines.append("      shift words; (( CURRENT-- ))")
        lines.append("      _arguments " + " ".join([*specs, rest]))
        lines.append("      ;;")
    lines += ["  esac", "}", 'if [ "$funcstack[1]" = "_dse" ]; then _dse "$@"; else compdef _dse dse; fi', ""]
    return "\n".join(lines)


def _fish(commands: list[Command]) -> str:
    names = " ".join(command.name for command in commands)
    lines = ["# fish completion of dse"]
    alone = f"not __fish_seen_subcommand_from {names}"
    lines += [f"complete -c dse -f -n '{alone}' -a {c.name} -d '{c.help}'" for c in commands]
    for command in commands:
        seen = f"__fish_seen_subcommand_from {command.name}"
        for option in command.options:
            for name in option.names:
                spelling = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
                value = ""
                if option.takes_value:
                    value = f" {'-r' if option.files else '-x'} -a '{' '.join(option.values)}'" if option.values else " -r"
                lines.append(f"complete -c dse -n '{seen}' {spelling}{value} -d '{option.help}'")
        if command.words:
            lines.append(f"complete -c dse -f -n '{seen}' -a '{' '.join(command.words)}'")
    return "\n".join(lines) + "\n"
