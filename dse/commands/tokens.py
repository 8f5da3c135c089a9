"""``dse tokens``: grams, joules and dollars of a million tokens of a model on a device in a region."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from dse.commands import lists

EPILOG = """\
examples:
  dse tokens --workload llama3-8b --hw h100 --grid france
  dse tokens --workload llama3-8b --hw h100,l40s --grid france --rate 5
  dse tokens --workload llama3-8b,llama3-70b --hw h100,b200,l40s --grid usa,france --format markdown
"""


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "tokens",
        help="grams, joules and dollars a million tokens of a model on a device",
        description="Say what a million output tokens take, prompts included: grams of CO2e (electricity and the chips' making), joules at "
        "the facility, dollars (boards over their life and electricity). The serving engine is simulated with so many requests in flight "
        "(--concurrency), of which --busy-share makes bursts with idle time between, or at a steady demand (--rate). A "
        "host's electricity is not counted, its making is by its share; `dse carbon estimate` counts a whole server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workload", required=True, metavar="NAME,...", help="decoders of `dse list workloads`, or files")
    parser.add_argument("--hw", default="h100", metavar="GPU,...", help="chips (default h100)")
    parser.add_argument("--grid", default="world", metavar="PLACE,...", help="regions, gCO2e/kWh or hourly files (default world)")
    load = parser.add_argument_group("load")
    load.add_argument("--concurrency", type=int, metavar="N", help="requests in flight (default 64)")
    load.add_argument(
        "--rate",
        type=float,
        metavar="PER_S",
        help="requests that arrive a second, all the time, in place of --concurrency; over the fewest replicas that serve them",
    )
    load.add_argument("--prompt", type=int, default=1024, metavar="TOKENS", help="of each request (default 1024)")
    load.add_argument("--output", type=int, default=256, metavar="TOKENS", help="of each request (default 256)")
    load.add_argument("--busy-share", type=float, default=1.0, metavar="S",
                      help="bursts: share of its life in which the machine has so many in flight; else it idles (default 1)")  # fmt: skip
    load.add_argument("--weight-bits", type=int, default=16, metavar="BITS", help="4, 8 or 16 (default 16)")
    load.add_argument("--tp", type=int, metavar="N", help="chips that share the model (default: of 1, 2, 4, 8 the least grams)")
    load.add_argument("--engine", default="vllm", metavar="NAME", help="vllm, trtllm or sglang (default vllm)")
    site = parser.add_argument_group("site")
    site.add_argument("--pue", type=float, default=1.2, help="facility power over chip power (default 1.2)")
    site.add_argument("--lifetime-years", type=float, default=5.0, metavar="YEARS", help="of the chips (default 5)")
    site.add_argument("--electricity-usd", type=float, default=0.12, metavar="USD", help="price of a kWh (default 0.12)")
    parser.add_argument("--format", default="text", metavar="NAME", help="text, csv, json or markdown (default text)")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Cost every pair and print."""
    from dataclasses import asdict
    from itertools import product

    from dse.errors import UsageError
    from dse.reports.tables import check_format, table
    from dse.serving.tokens import Load, Site, token_cost

    check_format(args.format)
    if args.rate is not None and args.concurrency is not None:
        raise UsageError("rate and concurrency are both given; a rate decides how many are in flight, so give one of them")
    load = Load(64 if args.concurrency is None else args.concurrency, args.prompt, args.output, args.busy_share, args.rate)
    site = Site(args.pue, args.lifetime_years, args.electricity_usd)
    names = [lists.names(name, getattr(args, name)) for name in ("workload", "hw", "grid")]
    costs = [
        token_cost(workload, hw, grid, load=load, site=site, weight_bits=args.weight_bits, tp=args.tp, engine=args.engine)
        for workload, hw, grid in product(*names)
    ]
    if args.format == "text" and len(costs) == 1:
        cost = costs[0]
        usd = "no public price" if cost.usd_per_million_tokens is None else f"{cost.usd_per_million_tokens:.3g} USD"
        print(
            f"{cost.gco2e_per_million_tokens:.3g} gCO2e, {cost.energy_j_per_million_tokens / 1e3:.3g} kJ at the facility, {usd} "
            f"a million tokens of {cost.workload} on {cost.chips} x {cost.hw}{_apart(cost)} in {cost.grid} "
            f"({_asked(load, cost.requests_in_flight)} of {load.prompt_tokens} + "
            f"{load.output_tokens} tokens, {args.weight_bits} bits; {cost.tokens_per_s:.4g} tokens/s; "
            f"{cost.gco2e_per_request:.3g} g a request; "
            f"{100 * cost.embodied_share:.2g} % embodied; chips alone, without a host's electricity)"
        )
        return 0
    rows = [asdict(cost) for cost in costs]
    if args.format in ("text", "markdown"):
        rows = [{title: row[key] for title, key in _COLUMNS.items()} for row in rows]
    print(table(rows, args.format))
    if args.format == "text":
        print(
            f"{_asked(load)} of {load.prompt_tokens} + {load.output_tokens} tokens, {args.weight_bits} bits; "
            "chips alone: a host's electricity is not counted, and of its making a share of a server without CPUs, memory and drives "
            "(`dse carbon estimate` of a server counts all)",
            file=sys.stderr,
        )
    return 0


def _asked(load: Any, in_flight: float | None = None) -> str:
    """What the chips are asked for, before ``of 1024 + 256 tokens``."""
    if load.rate_per_s is not None:
        return f"{load.rate_per_s:g} requests/s{'' if in_flight is None else f', {in_flight:.3g} in flight on average,'}"
    often = f" in bursts that fill {load.busy_share:g} of the time (a steady demand: --rate)," if load.busy_share < 1 else ""
    return f"{load.concurrency} requests at once{often}"


def _apart(cost: Any) -> str:
    """How chips stand that do not all share one model."""
    return "" if cost.replicas == 1 else f" ({cost.replicas} replicas of {cost.chips // cost.replicas})"


_COLUMNS = {
    "workload": "workload",
    "chips": "chips",
    "replicas": "replicas",
    "in flight": "requests_in_flight",
    "hw": "hw",
    "grid": "grid",
    "g/Mtok": "gco2e_per_million_tokens",
    "g/request": "gco2e_per_request",
    "J/Mtok at the facility": "energy_j_per_million_tokens",
    "USD/Mtok": "usd_per_million_tokens",
    "tokens/s": "tokens_per_s",
}
