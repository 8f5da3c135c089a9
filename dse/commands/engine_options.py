"""What the options of chips, engine and place mean wherever an engine is simulated, and how its answer is shown."""

from __future__ import annotations

import argparse
from typing import Any


def check_limits(args: argparse.Namespace) -> None:
    """UsageError for rates, limits, lifetimes and PUE that no load and place have."""
    import math

    from dse.errors import UsageError

    for name in ("rate", "lifetime_years", "slo_ttft_ms", "slo_tpot_ms"):
        value = getattr(args, name)
        if value is not None and not (math.isfinite(value) and value > 0):
            raise UsageError(f"{name.replace('_', '-')} is {value}, must be above 0")
    if not (math.isfinite(args.pue) and args.pue >= 1):
        raise UsageError(f"pue is {args.pue}; facility power over chip power is at least 1")


def setup_of(args: argparse.Namespace, name: str, *, prefix_cache: bool) -> Any:
    """What serves the model ``name``, from the options of chips and engine."""
    from dse.serving.model import served_model
    from dse.serving.simulation import Setup, Speculation
    from dse.serving.steps import Parallelism

    model = served_model(name)

    def layout(tp: int, dp: int, pp: int) -> Parallelism:
        if model.mixture is None:
            return Parallelism(tp, pp, dp, args.ep or 1, args.moe_tp or 1)
        ranks = tp * dp
        ep = args.ep or (ranks // args.moe_tp if args.moe_tp else (ranks if dp > 1 else 1))
        return Parallelism(tp, pp, dp, ep, args.moe_tp or max(ranks // ep, 1))

    return Setup(
        model=name,
        hw=args.hw,
        engine=args.engine,
        parallel=layout(args.tp, args.dp, args.pp),
        replicas=args.replicas,
        weight_bits=args.weight_bits,
        kv_bits=args.kv_bits,
        decode_parallel=layout(args.decode_tp, 1, 1) if args.decode_tp else None,
        decode_replicas=args.decode_replicas,
        max_sequences=args.max_sequences,
        token_budget=args.token_budget,
        prefix_cache=prefix_cache,
        speculation=Speculation(args.draft_tokens, args.acceptance) if args.draft_tokens is not None else None,
    )


def show(answer: dict[str, Any]) -> None:
    lines = (
        ("first token", "ttft_ms", "ms"),
        ("further tokens", "tpot_ms", "ms each"),
        ("whole request", "latency_ms", "ms"),
        ("output", "tokens_per_s", "tokens/s"),
        ("energy", "energy_j_per_request", f"J a request at the chips (x {answer['pue']:g} of PUE at the facility)"),
        ("carbon", "gco2e_per_request", "gCO2e a request"),
    )
    for title, key, unit in lines:
        value = answer[key]
        print(f"{title:15} mean {value['mean']:.4g}  p50 {value['p50']:.4g}  p95 {value['p95']:.4g}  p99 {value['p99']:.4g} {unit}")
    good = f", {answer['goodput_per_s']:.4g} within the limits" if answer["limits_ms"] else ""
    print(
        f"{answer['requests']} requests in {answer['makespan_s']:.4g} s on {answer['chips']} chips: "
        f"{answer['requests_per_s']:.4g} a second{good}, "
        f"chips busy {100 * answer['utilisation']:.3g} % of the time"
    )
    if answer["preemptions"]:
        print(f"{answer['preemptions']} times a request gave way for want of cache")
    print(f"electricity at {answer['gco2e_per_kwh']:.4g} g/kWh ({answer['grid']}), {100 * answer['operational_share']:.3g} % of the carbon")
    if "report" in answer:
        print(f"report: {answer['report']}")
