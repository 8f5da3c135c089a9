"""``dse search``: the exact Pareto front of a joint space of models and hardware."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from dse.commands import options

if TYPE_CHECKING:
    from dse.searches.plan import MeasuredSettings, ShardSettings


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
    parser.add_argument("--space", default="default", metavar="NAME|FILE.toml", help="model space of the workload (default: the "
                        "models that published quality supports), or a file with a space of your own")  # fmt: skip
    parser.add_argument("--model", metavar="NAME|FILE", help="the model that reasons, where --workload is thought-ics, maca or srpo "
                        "(--vary and --set then take the loop's knobs, lengths and rates); the model that serves, where it is a log of "
                        "requests (.csv, .jsonl); --hw then lists chips (h100,l40s), --vary takes tp, replicas, max_sequences, "
                        "weight_bits, and --constraint limits of a good request (ttft_ms<=500) beside bounds of a fleet")  # fmt: skip
    parser.add_argument("--trace", action="append", default=[], metavar="DRIVE.csv", help="drive of a vehicle whose perception is the "
                        "workload (repeatable; see `dse drive`): its deadline becomes a bound of the latency, its frames the rate, and a "
                        "lifetime one of driving hours")  # fmt: skip
    parser.add_argument("--vehicle", metavar="FILE.toml", help="the vehicle of --trace (default the example, shuttle)")
    measured = parser.add_argument_group("measured quality (a trial at a time; hardware and carbon stay exact)")
    measured.add_argument("--quality", metavar="EVALUATOR",
                        help="surrogate, table:FILE.csv, trained:TASK, measured:minilm, measured:FOLDER, python:module:function or "
                        "command:PROGRAM ARGS; of a loop scripted (default), table:FILE.csv or trace:FILE.jsonl")  # fmt: skip
    measured.add_argument("--strategy", default="auto", metavar="NAME",
                        help="auto (default), a name of `dse list strategies`, or python:module:NAME, one of your own")  # fmt: skip
    measured.add_argument("--budget", type=int, metavar="N",
                        help="quality evaluations; with --proxy those of the proxy (default 50). Where the space is too large to "
                        "sweep and quality a surrogate's: exact evaluations of designs (default 2000)")  # fmt: skip
    measured.add_argument("--proxy", metavar="EVALUATOR",
                        help="search on this cheap stand-in for --quality, in the same words, and measure the best designs with "
                        "--quality; --budget is then the proxy's trials")  # fmt: skip
    measured.add_argument("--fidelities", metavar="F,F,...",
                          help="successive halving: the budget is shared out between these fidelities (rising, below 1: fewer items, "
                          "fewer steps) and whole evaluations; each rung takes the best half of the one before")  # fmt: skip
    measured.add_argument("--proxy-top", type=int, metavar="N", help="designs of the proxy to measure with --quality (default 10)")
    measured.add_argument("--trial-timeout", type=float, metavar="S", help="longest time of one evaluation")
    measured.add_argument("--trial-memory", type=float, metavar="GIB",
                        help="most memory of one evaluation (default 90 %% of what is free when it begins)")  # fmt: skip
    measured.add_argument("--confirm", type=int, default=0, metavar="N", help="measure the final front again N times")
    measured.add_argument("--whole-budget", action="store_true", help="do not stop when the search has stalled")
    measured.add_argument("--from", action="append", default=[], metavar="RUN", dest="warm_start", help="warm start from runs (repeatable)")
    measured.add_argument("--storage", metavar="URL", help="database for the trials, shared by all drivers of the same search: "
                        "postgresql+psycopg://USER@HOST/NAME or sqlite:///FILE (default: the run folder)")  # fmt: skip
    measured.add_argument("--study", metavar="NAME", help="name of the shared trials in it (default: follows from the search)")
    real = parser.add_argument_group("a real model (--quality measured:...): pruned, healed, quantised, measured")
    real.add_argument("--model-dir", metavar="FOLDER", help="a Hugging Face checkpoint here: short for --workload FOLDER --quality "
                      "measured:FOLDER")  # fmt: skip
    real.add_argument(
        "--eval-data",
        metavar="FILE.jsonl",
        help="items of measured:FOLDER, one JSON object a line (text, or pixels of pictures); a fifth of them calibrates",
    )
    real.add_argument("--task", metavar="NAME", help="classification, similarity, retrieval or perplexity")
    real.add_argument("--heal-steps", type=int, metavar="N", help="steps of distillation after pruning (default 200; 0: none)")
    real.add_argument("--heal-seconds", type=float, metavar="S", help="longest CPU time of one healing")
    real.add_argument("--items", type=int, metavar="N", help="score the first N items (default all)")
    real.add_argument("--no-screening", action="store_true",
                      help="heal and measure every model; by default three quarters of the budget are looks without healing and the "
                      "best quarter is measured")  # fmt: skip
    elsewhere = parser.add_argument_group("where it runs (evaluations of measured quality, or shards of a sweep)")
    elsewhere.add_argument("--workers", type=int, default=1, metavar="N", help="evaluations or shards at a time (default 1)")
    elsewhere.add_argument("--executor", metavar="NAME", help="inline, processes or dask")
    elsewhere.add_argument("--address", metavar="URL", help="scheduler of a Dask cluster")
    elsewhere.add_argument("--retries", type=int, default=1, metavar="N", help="further attempts of a failed evaluation or a "
                           "lost shard (default 1)")  # fmt: skip
    parser.add_argument("--out", metavar="FOLDER", help="run folder (default runs/WORKLOAD-OBJECTIVE, numbered if taken)")
    parser.add_argument("--seed", type=int, help="seed of strategies that draw (default 0)")
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
    from dse.commands import fleet, loops

    _check_trace(args, fleet.is_log(args.workload), loops.is_loop(args.workload))
    if fleet.is_log(args.workload):
        return fleet.run(args)
    if loops.is_loop(args.workload):
        return loops.search(args)
    _take_model_dir(args)
    options.take_calibration(args)
    from dse import api
    from dse.evaluation import space_file
    from dse.operate.driving.drives import Drives
    from dse.reports import console as show
    from dse.reports import terminal
    from dse.searches.plan import MOST_TRIALS, check_count
    from dse.searches.prepared import prepared
    from dse.searches.sweep import DEFAULT_BLOCK_POINTS

    drives = Drives.of(args.trace, args.vehicle)
    options.tell_renamed([*args.objective, *args.constraint])
    if args.quality is not None:
        args.quality = _with_measured_options(args)
    settings = _settings(args)
    if args.threads is not None:
        check_count("threads", args.threads)
    if args.block_points is not None:
        check_count("block-points", args.block_points, MOST_TRIALS)
    own = space_file.is_file(args.space)
    problem = api.make_problem(
        _workload(args),
        args.objective or ["carbon"],
        hw=args.hw,
        hardware_profile=args.profile,
        space=args.space if own else _space(args),
        constraints=[*args.constraint, *drives.constraints],
        no_constraint=args.no_constraint,
        default_constraints=not args.no_default_constraints,
        fixed=options.knobs_of(args),
        vary=options.vary_of(args),
        # An evaluator measures any model that exists; only a surrogate needs published support.
        allow_unsupported=args.allow_unsupported or (args.quality is not None and args.quality != "surrogate"),
        criterion=args.criterion,
        residency=args.residency,
        prefetch=args.prefetch,
        deployment=drives.deployment(options.deployment_of(args)),
        bind=options.bind_of(args),
        strict=args.strict,
        keep_quality=args.quality not in (None, "surrogate"),
    )
    found = prepared(
        problem,
        measured=settings,
        strategy=args.strategy,
        budget=args.budget,
        sharded=_sharded(args),
        seed=args.seed or 0,
        threads=args.threads,
        block_points=args.block_points or DEFAULT_BLOCK_POINTS,
    )
    show.say_problem(found.problem, found.measured, found.large, found.sharded)
    drives.say()
    if args.seed is not None and found.measured is None and found.large is None:
        print(f"seed        {args.seed}: for the report's uncertainty alone, a sweep draws nothing", file=sys.stderr)
    with terminal.ProgressReporter() as progress:
        result = api.search_prepared(found, out=args.out, command=shlex.join(["dse", *sys.argv[1:]]), say=progress.update)
    show.show_run(result, as_json=args.json, more=drives.found(result))
    return 0


def _check_trace(args: argparse.Namespace, log: bool, loop: bool) -> None:
    """Drives are of a vehicle's perception and bring their own rate."""
    from dse.errors import UsageError

    if not args.trace:
        if args.vehicle is not None:
            raise UsageError("vehicle belongs to --trace DRIVE.csv, and no drive is given")
        return
    if log or loop:
        what = "log of requests" if log else "reasoning loop"
        raise UsageError(f"trace is of a vehicle, and workload {args.workload} a {what}; leave one out")
    if args.rate is not None:
        raise UsageError(f"rate is {args.rate:g} and the drive of --trace has its own; leave one out")


def _settings(args: argparse.Namespace) -> MeasuredSettings | None:
    """Settings of a measured search; None where every design is swept."""
    from dse.errors import UsageError
    from dse.searches.plan import DEFAULT_BUDGET, DEFAULT_PROXY_TOP, MeasuredSettings, screened
    from dse.strategies.registry import check as check_strategy

    check_strategy(args.strategy)
    if args.proxy is not None and args.quality is None:
        raise UsageError("proxy stands in for a dear evaluation; name the dear one with --quality EVALUATOR")
    if args.proxy_top is not None and args.proxy is None:
        raise UsageError(f"proxy-top is {args.proxy_top} and there is no proxy; name one with --proxy EVALUATOR")
    if args.quality is None and args.strategy in ("auto", "exhaustive"):
        for name in ("storage", "study", "confirm", "warm_start", "trial_timeout", "trial_memory", "whole_budget", "no_screening",
                     "fidelities"):  # fmt: skip
            if getattr(args, name):
                word = "from" if name == "warm_start" else name.replace("_", "-")
                raise UsageError(f"{word} is for trials of a measured quality and this search has none; name an evaluator with --quality")
        return None
    settings = MeasuredSettings(
        quality=args.quality or "surrogate",
        strategy=args.strategy,
        budget=DEFAULT_BUDGET if args.budget is None else args.budget,
        workers=args.workers,
        executor=args.executor,
        address=args.address,
        timeout_s=args.trial_timeout,
        memory_gib=args.trial_memory,
        retries=args.retries,
        confirm=args.confirm,
        stop_early=not args.whole_budget,
        warm_start=tuple(args.warm_start),
        proxy=args.proxy,
        proxy_top=DEFAULT_PROXY_TOP if args.proxy_top is None else args.proxy_top,
        fidelities=_fidelities(args.fidelities),
        storage=_absolute(args.storage),
        study=args.study,
    )
    return screened(settings, look=not args.no_screening)


def _fidelities(text: str | None) -> tuple[float, ...]:
    from dse.commands import lists

    return () if text is None else tuple(lists.numbers("fidelities", text, float, "0.1,0.3"))


def _take_model_dir(args: argparse.Namespace) -> None:
    """A checkpoint's folder is the workload and what is measured, where neither is named."""
    from pathlib import Path

    from dse.errors import UsageError

    if args.model_dir is None:
        return
    if not Path(args.model_dir).is_dir():
        raise UsageError(f"model-dir {args.model_dir!r} is no folder; one that holds config.json and *.safetensors is needed")
    if args.quality is not None and not args.quality.startswith("measured:"):
        raise UsageError(f"model-dir is measured, and quality is {args.quality}; leave one of them out")
    folder = str(Path(args.model_dir))
    args.workload = args.workload or folder + ("" if "/" in folder else "/")
    args.quality = args.quality or f"measured:{args.model_dir}"


def _with_measured_options(args: argparse.Namespace) -> str:
    """The evaluator's word with what the options say of a real model; the options are refused for any other quality."""
    from pathlib import Path

    from dse.errors import UsageError

    word = str(args.quality)
    given = {"eval-data": args.eval_data, "task": args.task, "heal-steps": args.heal_steps, "heal-seconds": args.heal_seconds,
             "items": args.items}  # fmt: skip
    named = {name: value for name, value in given.items() if value is not None}
    kind, _, rest = word.partition(":")
    if kind != "measured" or not rest:
        if named:
            raise UsageError(f"{next(iter(named))} belongs to --quality measured:minilm or measured:FOLDER, and quality is {word}")
        return word
    from dataclasses import replace

    from dse.quality import model_evaluator

    source, question, query = rest.partition("?")
    fields = {"eval-data": "data", "task": "task", "heal-steps": "steps", "heal-seconds": "seconds", "items": "items"}
    if source in model_evaluator.NAMED:
        settings = model_evaluator.parse(rest)
        for name in ("eval-data", "task"):
            if name in named:
                raise UsageError(f"measured:{source} brings its own items; --{name} belongs to measured:FOLDER")
        return replace(settings, **{fields[name]: value for name, value in named.items()}).word()
    # A run is resumed from anywhere: its files by their whole paths.
    chosen = {fields[name]: str(Path(value).absolute()) if name == "eval-data" else value for name, value in named.items()}
    from urllib.parse import urlencode

    query = "&".join(part for part in (query if question else "", urlencode(chosen)) if part)
    return model_evaluator.parse(f"{Path(source).absolute()}" + (f"?{query}" if query else "")).word()


def _workload(args: argparse.Namespace) -> str:
    """The workload; a checkpoint's folder whose quality is measured is a model with knobs."""
    from pathlib import Path

    word = options.workload_of(args)
    if _measured(args) and Path(word).is_dir():
        return f"knobs:{Path(word).absolute()}"
    return word


def _space(args: argparse.Namespace) -> str:
    """The model space; where a real model is measured, by default what it can be cut to."""
    from workloads import library

    if not _measured(args) or args.space != "default":
        return str(args.space)
    return "pruned" if "pruned" in library.load(_workload(args)).spaces else "default"


def _measured(args: argparse.Namespace) -> bool:
    return str(args.quality or "").startswith("measured:")


def _sharded(args: argparse.Namespace) -> ShardSettings | None:
    """Where the shards of a sweep run; None for a sweep in this process and where quality is measured."""
    from dse.searches.plan import ShardSettings

    if args.quality is not None or args.strategy not in ("auto", "exhaustive"):
        return None
    if args.executor is None and args.address is None and args.workers == 1:
        return None
    executor = args.executor or ("dask" if args.address else "processes")
    return ShardSettings(executor, args.workers, args.address, args.retries)


def _absolute(storage: str | None) -> str | None:
    """A SQLite file stays the same file for whoever resumes from another folder."""
    from pathlib import Path

    prefix = "sqlite:///"
    if storage is None or not storage.startswith(prefix):
        return storage
    return prefix + str(Path(storage.removeprefix(prefix)).absolute())
