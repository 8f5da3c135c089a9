"""``dse simulate``: a model served by an engine on chips under a load, or a table of measured runs."""

from __future__ import annotations

import argparse
from typing import Any

from dse.commands import engine_options

MOST_REQUESTS = 10_000_000  # minutes of simulation, and a gigabyte

EPILOG = """\
examples:
  dse simulate --workload llama3-70b --hw h100 --tp 8 --concurrency 64 --prompt 1024 --output 1024 --weight-bits 8 --json
  dse simulate --workload llama3-8b --hw h100 --trace requests.csv --slo-ttft-ms 500 --slo-tpot-ms 50 --out run
  dse simulate --workload thought-ics --model llama3-8b --hw h100 --requests 50 --set corrections=2 --out run
  dse simulate --runs IN.csv --out OUT.csv

request logs (--trace), known by their columns:
  own       arrival_s, prompt_tokens, output_tokens; optional session, prefix, prefix_tokens
  azure     TIMESTAMP, ContextTokens, GeneratedTokens
  burstgpt  Timestamp, Request tokens, Response tokens; optional Session ID
  mooncake  JSON lines: timestamp [ms], input_length, output_length, hash_ids
  loop      JSON lines that workloads.reasoning.traces writes: calls wait for their parents and share prefixes
"""


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "simulate",
        help="serve a load with an inference engine",
        description="Simulate an inference engine: latency, goodput, energy and carbon of requests, or predict a table of measured runs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workload", metavar="NAME|FILE", help="a decoder: a name of `dse list workloads`, or a file; or a "
                        "loop (thought-ics, maca, srpo), which runs on the scripted model with the rates of --set")  # fmt: skip
    parser.add_argument("--model", metavar="NAME|FILE", help="the decoder that reasons, where --workload is a loop")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="knobs",
                        help="a knob, length or rate of a loop, e.g. corrections=2, kv=none, error=0.1 (repeatable)")  # fmt: skip
    parser.add_argument("--hw", metavar="GPU", help="the chip, e.g. h100")
    parser.add_argument("--engine", default="vllm", metavar="NAME", help="vllm, trtllm or sglang (default vllm)")
    load = parser.add_argument_group("load")
    load.add_argument("--concurrency", type=int, metavar="N", help="requests in flight, one after the other (a closed loop)")
    load.add_argument("--rate", type=float, metavar="PER_S", help="requests that arrive a second (Poisson), in place of --concurrency")
    load.add_argument("--trace", metavar="FILE", help="a log of requests, in place of --concurrency")
    load.add_argument("--prompt", type=int, default=1024, metavar="TOKENS", help="longest prompt (default 1024)")
    load.add_argument("--output", type=int, default=1024, metavar="TOKENS", help="longest output (default 1024)")
    load.add_argument("--length-ratio", type=float, default=1.0, metavar="R", help="lengths are drawn evenly from [R x longest, longest]")
    load.add_argument("--requests", type=int, metavar="N", help="how many (default 10 x concurrency, 1000 with --rate, all of a "
                      "trace, 100 problems of a loop)")  # fmt: skip
    load.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default 0)")
    chips = parser.add_argument_group("chips of a replica")
    for name, text in (
        ("tp", "tensor parallelism"),
        ("pp", "pipeline stages"),
        ("dp", "attention data parallelism"),
        ("ep", "expert parallelism (default tp x dp over moe-tp)"),
        ("moe-tp", "cuts of each expert (default tp x dp over ep)"),
        ("replicas", "replicas side by side"),
    ):
        chips.add_argument(f"--{name}", type=int, default=None if name in ("ep", "moe-tp") else 1, metavar="N", help=text)
    chips.add_argument("--decode-tp", type=int, metavar="N", help="chips of a replica that only decodes; the others compute prompts")
    chips.add_argument("--decode-replicas", type=int, default=1, metavar="N", help="replicas that only decode")
    engine = parser.add_argument_group("engine")
    engine.add_argument("--weight-bits", type=int, default=16, metavar="BITS", help="4, 8 or 16 (default 16)")
    engine.add_argument("--kv-bits", type=int, default=0, metavar="BITS", help="of the cache (default 8 under narrower weights, else 16)")
    engine.add_argument("--max-sequences", type=int, default=1024, metavar="N", help="sequences of a worker that run at once")
    engine.add_argument("--token-budget", type=int, default=0, metavar="N", help="tokens of a step (default the engine's own)")
    engine.add_argument("--prefix-cache", action="store_true", help="prompts share the cache of their common beginnings")
    engine.add_argument("--draft-tokens", type=int, metavar="N", help="speculative decoding: tokens drafted a step")
    engine.add_argument("--acceptance", type=float, default=0.7, metavar="P", help="probability that a drafted token is kept (default 0.7)")
    carbon = parser.add_argument_group("carbon and limits")
    carbon.add_argument("--grid", default="world", metavar="PLACE", help="where the electricity comes from (default world)")
    carbon.add_argument("--pue", type=float, default=1.2, help="facility power over chip power (default 1.2)")
    carbon.add_argument("--lifetime-years", type=float, default=5.0, metavar="YEARS", help="of the chips (default 5)")
    carbon.add_argument("--slo-ttft-ms", type=float, metavar="MS", help="goodput counts requests whose first token comes by then")
    carbon.add_argument("--slo-tpot-ms", type=float, metavar="MS", help="and whose further tokens take no longer on average")
    out = parser.add_argument_group("output")
    out.add_argument("--runs", metavar="IN.csv", help="a table of measured runs to predict (columns of aiconfigurator's silicon sample)")
    out.add_argument(
        "--out", metavar="PATH", help="the table with ttft_ms and tpot_ms (--runs), or a folder for report.html and requests.csv"
    )
    out.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Simulate and print."""
    import json

    from dse.errors import UsageError

    if args.runs:
        if not args.out:
            raise UsageError("out is missing; name the CSV file for the predicted rows")
        from dse.serving.runs import predict_file

        rows = predict_file(args.runs, args.out)
        print(json.dumps({"rows": rows, "out": args.out}) if args.json else f"{rows} rows written to {args.out}")
        return 0
    from dse.commands import loops
    from dse.serving import simulation

    if loops.is_loop(args.workload):
        return loops.simulate(args)
    if args.model or args.knobs:
        raise UsageError(f"{'model' if args.model else 'set'} is for a loop (thought-ics, maca, srpo), and workload is {args.workload!r}")
    setup, requests, concurrency = _problem(args)
    served = simulation.run(setup, requests, concurrency=concurrency, seed=args.seed, timeline=args.out is not None)
    slo = tuple(float("inf") if limit is None else limit / 1e3 for limit in (args.slo_ttft_ms, args.slo_tpot_ms))
    answer = simulation.summary(served, grid=args.grid, pue=args.pue, lifetime_years=args.lifetime_years, slo=(slo[0], slo[1]))
    if args.out:
        from dse.reports.serving import write_report

        answer["report"] = str(write_report(served, answer, args.out))
    if args.json:
        print(json.dumps(answer, indent=2, allow_nan=False))
    else:
        engine_options.show(answer)
    return 0


def _problem(args: argparse.Namespace) -> tuple[Any, Any, int]:
    import numpy as np
    from dse_kernels.serving import Requests

    from dse.errors import UsageError
    from dse.serving.model import served_model
    from dse.serving.simulation import BLOCK_TOKENS, uniform_lengths

    for name in ("workload", "hw"):
        if not getattr(args, name):
            raise UsageError(f"{name} is missing; name it with --{name} (or a table with --runs)")
    given = [name for name in ("concurrency", "rate", "trace") if getattr(args, name) is not None]
    if len(given) != 1:
        raise UsageError(f"of concurrency, rate and trace {len(given)} are given, must be exactly one")
    for name in ("concurrency", "requests", "prompt", "output"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise UsageError(f"{name} is {getattr(args, name)}, must be at least 1")
    engine_options.check_limits(args)
    setup = engine_options.setup_of(args, args.workload, prefix_cache=args.prefix_cache)
    model = served_model(args.workload)
    if args.trace:
        from dse.serving.reasoning import is_trace, requests_of
        from dse.serving.requests import read_requests

        if is_trace(args.trace):
            from workloads.reasoning.traces import read_trace

            return setup, requests_of(read_trace(args.trace)[: args.requests]), 0
        log = read_requests(args.trace)
        if args.requests:
            log = log.take(args.requests)
        log.check_context(model.positions, model.name)
        return setup, log.requests(BLOCK_TOKENS), 0
    if args.prompt + args.output > model.positions:
        raise UsageError(
            f"prompt + output is {args.prompt + args.output} tokens, must be at most the {model.positions} positions of {model.name}"
        )
    count = args.requests or (10 * args.concurrency if args.concurrency else 1000)
    if count > MOST_REQUESTS:
        asked = f"requests is {args.requests}" if args.requests else f"concurrency is {args.concurrency}, and requests ten times that"
        raise UsageError(f"{asked}; at most {MOST_REQUESTS:,} requests are simulated")
    prompt = uniform_lengths(args.prompt, args.length_ratio, count, args.seed + 1)
    output = uniform_lengths(args.output, args.length_ratio, count, args.seed + 2)
    arrival = np.zeros(count)
    if args.rate:
        arrival = np.cumsum(np.random.default_rng(args.seed).exponential(1 / args.rate, count))
    return setup, Requests(arrival, prompt, output), args.concurrency or 0
