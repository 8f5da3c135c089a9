"""``dse search``: the exact Pareto front of a joint space of models and hardware."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dse.commands import options

if TYPE_CHECKING:
    from dse.learnt import LearntSettings


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
    parser.add_argument("--vary", action="append", default=[], metavar="NAME=V,V,...",
                        help="search further knobs: settings of the hardware (node_nm, frequency_hz, dram_type, ...) or the "
                        "deployment (grid, fab_grid, package, lifetime_years, rate_per_s)")  # fmt: skip
    parser.add_argument("--space", default="default", metavar="NAME", help="model space of the workload (default: the models "
                        "that published quality supports)")  # fmt: skip
    learnt = parser.add_argument_group("learnt quality (a trial at a time; hardware and carbon stay exact)")
    learnt.add_argument("--quality", metavar="EVALUATOR",
                        help="surrogate, table:FILE.csv, python:module:function or command:PROGRAM ARGS")  # fmt: skip
    learnt.add_argument("--strategy", default="auto", metavar="NAME", help="auto (default) or a name of `dse list strategies`")
    learnt.add_argument("--budget", type=int, default=50, metavar="N", help="quality evaluations (default 50)")
    learnt.add_argument("--workers", type=int, default=1, metavar="N", help="evaluations at a time (default 1)")
    learnt.add_argument("--executor", metavar="NAME", help="inline, processes or dask")
    learnt.add_argument("--address", metavar="URL", help="scheduler of a Dask cluster")
    learnt.add_argument("--trial-timeout", type=float, metavar="S", help="longest time of one evaluation")
    learnt.add_argument("--retries", type=int, default=1, metavar="N", help="further attempts of a failed evaluation (default 1)")
    learnt.add_argument("--confirm", type=int, default=0, metavar="N", help="measure the final front again N times")
    learnt.add_argument("--whole-budget", action="store_true", help="do not stop when the search has stalled")
    learnt.add_argument("--from", action="append", default=[], metavar="RUN", dest="warm_start", help="warm start from runs (repeatable)")
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
        from dse.commands.config_file import apply_config

        apply_config(args)
    from dse import api, show, terminal
    from dse.errors import UsageError
    from dse.sweep import DEFAULT_BLOCK_POINTS

    settings = _learnt(args)
    for name in ("threads", "block_points"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UsageError(f"{name.replace('_', '-')} is {value}; a whole number of at least 1 is needed")
    problem = api.make_problem(
        options.workload_of(args),
        args.objective or ["carbon"],
        hw=args.hw,
        hardware_profile=args.profile,
        space=args.space,
        constraints=args.constraint,
        no_constraint=args.no_constraint,
        default_constraints=not args.no_default_constraints,
        fixed=options.knobs_of(args),
        vary=options.vary_of(args),
        # An evaluator measures any model that exists; only a surrogate needs published support.
        allow_unsupported=args.allow_unsupported or (args.quality is not None and args.quality != "surrogate"),
        criterion=args.criterion,
        deployment=options.deployment_of(args),
        bind=options.bind_of(args),
        strict=args.strict,
    )
    show.say_problem(problem, settings)
    with terminal.ProgressReporter() as progress:
        result = api.search(
            problem,
            out=args.out,
            seed=args.seed,
            learnt=settings,
            threads=args.threads,
            block_points=args.block_points or DEFAULT_BLOCK_POINTS,
            command=shlex.join(["dse", *sys.argv[1:]]),
            say=progress.update,
        )
    show.show_run(result, as_json=args.json)
    return 0


def _learnt(args: argparse.Namespace) -> LearntSettings | None:
    """Settings of a learnt search; None where every design is swept."""
    from dse.learnt import LearntSettings
    from dse.strategies.choose import check as check_strategy

    check_strategy(args.strategy)
    if args.quality is None and args.strategy in ("auto", "exhaustive"):
        return None
    return LearntSettings(
        quality=args.quality or "surrogate",
        strategy=args.strategy,
        budget=args.budget,
        workers=args.workers,
        executor=args.executor,
        address=args.address,
        timeout_s=args.trial_timeout,
        retries=args.retries,
        confirm=args.confirm,
        stop_early=not args.whole_budget,
        warm_start=tuple(args.warm_start),
    )
