"""What `dse search` and `dse simulate` do where the workload is a reasoning loop (thought-ics, maca, srpo)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

NAMES = ("thought-ics", "maca", "srpo")


def is_loop(workload: str | None) -> bool:
    """Whether a workload's name is a loop's."""
    return workload in NAMES


def search(args: argparse.Namespace) -> int:
    """Search and print."""
    import json
    import shlex
    import sys

    from dse import api, served
    from dse.commands import options
    from dse.reports.loops import said_of_prefix_cache

    _refuse(args)
    problem = served.loop_problem(
        args.workload,
        _model(args),
        _hardware(args),
        objective=args.objective or ["carbon"],
        constraints=args.constraint,
        vary=options.vary_of(args),
        fixed=options.knobs_of(args),
        quality=args.quality or "scripted",
        deployment=options.deployment_of(args),
    )
    run = api.search_served(problem, out=args.out, seed=args.seed or 0, command=shlex.join(["dse", *sys.argv[1:]]))
    answer = {**served.answer_of(run), "run": str(run.path), "recommendation": run.context["recommendation"]}
    page = run.path / "report.html"
    if args.json:
        print(json.dumps({**answer, "report": str(page)}, indent=2, allow_nan=False, default=str))
        return 0
    kind = "rates are stated, not measured" if answer["quality"] == "scripted" else answer["quality"]
    print(
        f"{answer['configurations']} configurations, {answer['feasible']} feasible; front exact on the grid; quality: {kind}",
        file=sys.stderr,
    )
    print(run.recommend())
    for row in answer["front"]:
        print(_line(row))
    for text in said_of_prefix_cache(answer):
        print(text)
    print(f"{run.path}/: pareto.csv, report.html, study.db")
    return 0


def _refuse(args: argparse.Namespace) -> None:
    """Options that a loop does not know are errors, never passed over."""
    from dse.errors import UsageError

    given = {
        "no-constraint": args.no_constraint,
        "no-default-constraints": args.no_default_constraints,
        "space": args.space != "default",
        "strategy": args.strategy != "auto",
        "budget": args.budget,
        "proxy": args.proxy,
        "profile": args.profile,
        "bind": args.bind,
        "executor": args.executor,
        "from": args.warm_start,
        "storage": args.storage,
    }
    for name, value in given.items():
        if value:
            raise UsageError(
                f"{name} is not for a loop ({args.workload}): every configuration of its knobs is costed; narrow them with --set or --vary"
            )


def _model(args: argparse.Namespace) -> str:
    from dse.errors import UsageError

    if not args.model:
        raise UsageError("model is missing; name the model that reasons with --model (e.g. llama3-8b)")
    return str(args.model)


def _hardware(args: argparse.Namespace) -> str:
    from dse.errors import UsageError

    if not args.hw or args.hw == "edge22":
        raise UsageError(
            "hw is missing or 'edge22', must be a device, a list of devices or a file with a design for a loop; nearest is 'h100'"
        )
    return str(args.hw)


def _line(row: dict[str, Any]) -> str:
    names = ("kv", "samples", "agents", "rounds", "votes", "corrections", "suffixes", "problems")
    knobs = ", ".join(f"{name} {row[name]}" for name in names if name in row)
    return (
        f"{row['model']} on {row['chips']} x {row['device']}, {knobs}: {row['quality']:.4g} % solved, {row['latency_s']:.4g} s, "
        f"{row['energy_j_per_solved']:.4g} J and {row['gco2e_per_solved']:.4g} gCO2e a solved problem, "
        f"{row['total_kgco2e']:.5g} kgCO2e in all"
    )


def simulate(args: argparse.Namespace) -> int:
    """Run the loop on the scripted model, serve its calls with an engine, and print."""
    import json

    from dse.commands import engine_options, options
    from dse.errors import UsageError
    from dse.serving import simulation
    from dse.serving.loop_runs import chosen, run_loops, summary_of_problems
    from dse.serving.reasoning import requests_of

    if args.concurrency is not None or args.trace is not None:
        name = "trace" if args.concurrency is None else "concurrency"
        raise UsageError(
            f"{name} is not for a loop: its problems arrive at once, or --rate a second; a written trace is a load of its own "
            "(--workload MODEL --trace)"
        )
    if not args.hw:
        raise UsageError("hw is missing; name it with --hw")
    engine_options.check_limits(args)
    of, knobs, lengths, rates = chosen(args.workload, options.knobs_of(args))
    setup = engine_options.setup_of(args, _model(args), prefix_cache=args.prefix_cache or knobs["kv"] == "prefix")
    problems = 100 if args.requests is None else args.requests
    recorder = run_loops(of, knobs, lengths, rates, problems=problems, seed=args.seed)
    requests = requests_of(recorder.calls, rate_per_s=args.rate or 0.0, seed=args.seed)
    _check_context(requests, setup.model)
    served = simulation.run(setup, requests, seed=args.seed, timeline=args.out is not None)
    slo = tuple(float("inf") if limit is None else limit / 1e3 for limit in (args.slo_ttft_ms, args.slo_tpot_ms))
    answer = simulation.summary(served, grid=args.grid, pue=args.pue, lifetime_years=args.lifetime_years, slo=(slo[0], slo[1]))
    grams = answer["gco2e_per_request"]["mean"] * len(recorder.calls)
    answer["loop"] = {"workload": of.name, "knobs": knobs, **summary_of_problems(served, recorder, grams)}
    if args.out:
        from dse.reports.serving import write_report

        answer["report"] = str(write_report(served, answer, args.out))
        recorder.write(Path(args.out) / "trace.jsonl")
    if args.json:
        print(json.dumps(answer, indent=2, allow_nan=False))
        return 0
    engine_options.show(answer)
    loop = answer["loop"]
    per = f"{loop['energy_j_per_solved']:.4g} J and {loop['gco2e_per_solved']:.4g} gCO2e" if loop["solved"] else "no joules"
    print(
        f"{loop['problems']} problems of {of.name} in {loop['calls']} calls on the scripted model, {loop['solved']} solved: {per} a solved "
        f"problem; a problem takes mean {loop['problem_latency_s']['mean']:.4g} s, p95 {loop['problem_latency_s']['p95']:.4g} s"
    )
    return 0


def _check_context(requests: Any, model: str) -> None:
    from dse.errors import UsageError
    from dse.serving.model import served_model

    longest = int((requests.prompt + requests.output).max())
    positions = served_model(model).positions
    if longest > positions:
        raise UsageError(
            f"the loop's longest call has {longest} tokens, must be at most the {positions} positions of {model}; "
            "nearest are fewer rounds or thoughts"
        )
