"""``dse search``: the exact Pareto front of a joint space of models and hardware."""

from __future__ import annotations

import argparse
from typing import Any

from dse.commands import options


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "search",
        help="find the Pareto front of models and hardware",
        description="Find the Pareto front of models and hardware for a workload, and write a run folder with study.db, "
        "pareto.csv, report.html and designs/*.toml.",
        allow_abbrev=False,
    )
    options.add_problem_options(parser)
    parser.add_argument("--objective", action="append", default=[], metavar="PRESET|min:METRIC|max:METRIC",
                        help="carbon (default), latency, energy, all, hardware; or free objectives, repeatable")  # fmt: skip
    parser.add_argument("--constraint", action="append", default=[], metavar="METRIC<=VALUE",
                        help="a bound on a metric (repeatable); replaces the default of its metric and side")  # fmt: skip
    parser.add_argument("--no-constraint", action="append", default=[], metavar="METRIC", help="drop a default constraint")
    parser.add_argument("--no-default-constraints", action="store_true", help="drop all default constraints")
    parser.add_argument("--space", default="default", metavar="NAME", help="model space of the workload (default: the models "
                        "that published quality supports)")  # fmt: skip
    parser.add_argument("--strategy", default="auto", metavar="NAME", help="auto (default) or exhaustive")
    parser.add_argument("--out", metavar="FOLDER", help="run folder (default runs/WORKLOAD-OBJECTIVE, numbered if taken)")
    parser.add_argument("--seed", type=int, default=0, help="seed of strategies that draw (default 0)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: the processors there are, at most 8)")
    parser.add_argument("--block-points", type=int, metavar="N", help="designs evaluated at a time; changes memory, not results")
    parser.add_argument("--config", metavar="FILE.toml", help="options from a TOML file; the command line wins")
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> int:
    """Search and show."""
    import shlex
    import sys

    if args.config:
        _apply_config(args)
    from dse import api, show, terminal
    from dse.errors import UsageError, unknown_name
    from dse.sweep import DEFAULT_BLOCK_POINTS

    if args.strategy not in ("auto", "exhaustive"):
        raise unknown_name("strategy", args.strategy, ("auto", "exhaustive"))
    for name in ("threads", "block_points"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"{name.replace('_', '-')} is {value}; a whole number of at least 1 is needed")
    problem = api.make_problem(
        args.workload,
        args.objective or ["carbon"],
        hw=args.hw,
        hardware_profile=args.profile,
        space=args.space,
        constraints=args.constraint,
        no_constraint=args.no_constraint,
        default_constraints=not args.no_default_constraints,
        fixed=options.knobs_of(args),
        allow_unsupported=args.allow_unsupported,
        criterion=args.criterion,
        deployment=options.deployment_of(args),
    )
    show.say_problem(problem)
    with terminal.ProgressReporter() as progress:
        result = api.search(
            problem,
            out=args.out,
            seed=args.seed,
            threads=args.threads,
            block_points=args.block_points or DEFAULT_BLOCK_POINTS,
            command=shlex.join(["dse", *sys.argv[1:]]),
            say=progress.update,
        )
    show.show_run(result, as_json=args.json)
    return 0


def _apply_config(args: argparse.Namespace) -> None:
    """Fill options that the command line left at their defaults from a TOML file of the same names."""
    import tomllib
    from pathlib import Path

    from dse.errors import DseError, UsageError, unknown_name

    path = Path(args.config)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DseError(f"config {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"config {path} is not valid TOML: {error}") from error
    parser = args.parser
    known = {action.dest: action for action in parser._actions if action.option_strings and action.dest not in ("help", "config")}
    names = {"set": "knobs"} | {name: name for name in known}
    for key, value in values.items():
        name = names.get(key.replace("-", "_"))
        if name is None:
            raise unknown_name(f"config {path}: option", key, [n.replace("_", "-") for n in (*known, "set")])
        if name == "knobs" and isinstance(value, dict):
            value = [f"{knob}={number}" for knob, number in value.items()]
        action = known[name]
        if isinstance(action.default, list) or name in ("objective", "constraint", "no_constraint", "knobs"):
            if isinstance(value, str):
                value = [value]
            if not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
                raise UsageError(f"config {path}: {key} is {value!r}; a list of texts is needed")
        elif isinstance(action.default, bool) or action.nargs == 0:
            if not isinstance(value, bool):
                raise UsageError(f"config {path}: {key} is {value!r}; true or false is needed")
        elif action.type in (int, float):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or (action.type is int and value != int(value)):
                raise UsageError(f"config {path}: {key} is {value!r}; a number is needed")
            value = action.type(value)
        elif not isinstance(value, str):
            raise UsageError(f"config {path}: {key} is {value!r}; a text is needed")
        if getattr(args, name) == action.default:
            setattr(args, name, value)
