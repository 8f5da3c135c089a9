"""`dse workload show`: what a model computes and moves."""

from __future__ import annotations

import argparse
from typing import Any


def register(subparsers: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    """Add the command group to the command line."""
    group = subparsers.add_parser(
        "workload",
        help="look at what a model computes and moves",
        description="Look at workloads: named models, mixes, and ONNX, config.json or TOML files of your own.",
        allow_abbrev=False,
    )
    actions = group.add_subparsers(dest="action", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show",
        help="operations, MACs, bytes, intensity and a roofline picture",
        description="Show the operations of a workload: products, bytes, intensity, and a roofline picture.",
        allow_abbrev=False,
    )
    show.add_argument("name", metavar="NAME|FILE", help="a name of `dse list workloads`, or an .onnx, .json or .toml file")
    show.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        dest="knobs",
        help="set a knob (repeatable), e.g. sequence=2048, phase=decode, weight_bits=4",
    )
    show.add_argument(
        "--bind", action="append", default=[], metavar="AXIS=SIZE", help="size of a dynamic axis of an ONNX file (repeatable)"
    )
    show.add_argument("--strict", action="store_true", help="operations that are not understood are an error")
    form = show.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON: totals, phases, components, operations")
    form.add_argument("--csv", action="store_true", help="print the operations as CSV")
    show.add_argument(
        "--peak-tops",
        type=float,
        default=20.48,
        metavar="TOPS",
        help="roof of the picture (default 20.48, the edge constraint)",
    )
    show.add_argument(
        "--bandwidth-gb-s", type=float, default=80.0, metavar="GB_S", help="slope of the picture (default 80, edge22's LPDDR4)"
    )
    show.set_defaults(run=run_show)
    traced = actions.add_parser(
        "from-trace",
        help="a mix from the trace of a reasoning loop or from a log of requests",
        description="Write a mix (TOML) whose requests have the lengths of a trace's calls or of a log's requests.",
        allow_abbrev=False,
    )
    traced.add_argument("file", metavar="FILE", help="a trace of a loop (JSON lines), or a log of requests (see `dse simulate --help`)")
    traced.add_argument("--model", default="llama3-8b", metavar="NAME|FILE", help="the model that answers (default llama3-8b)")
    traced.add_argument("--out", metavar="FILE.toml", help="where it goes (default beside FILE)")
    traced.add_argument("--json", action="store_true", help="print JSON")
    traced.set_defaults(run=run_from_trace)


def run_from_trace(args: argparse.Namespace) -> int:
    """Write the mix and say what it holds."""
    import json
    from pathlib import Path

    from dse.serving.reasoning import is_trace
    from dse.serving.requests import read_requests
    from workloads import library
    from workloads.reasoning.traces import mix_of, read_trace

    library.load(args.model)
    source = Path(args.file)
    if is_trace(source):
        pairs = [(call.prompt_tokens, call.output_tokens) for call in read_trace(source)]
    else:
        log = read_requests(source)
        pairs = list(zip(log.prompt.tolist(), log.output.tolist(), strict=True))
    target = Path(args.out) if args.out else source.with_suffix(".toml")
    target.write_text(mix_of(pairs, args.model, source.stem), encoding="utf-8")
    prompt, output = sum(p for p, _ in pairs), sum(o for _, o in pairs)
    if args.json:
        print(json.dumps({"out": str(target), "requests": len(pairs), "prompt_tokens": prompt, "output_tokens": output}))
    else:
        print(
            f"{len(pairs)} requests, {prompt} prompt and {output} output tokens, written to {target}: dse evaluate --workload {target} ..."
        )
    return 0


def run_show(args: argparse.Namespace) -> int:
    """Print what a workload computes and moves."""
    import json

    from workloads import library, summary
    from workloads.errors import WorkloadError

    for option in ("peak_tops", "bandwidth_gb_s"):
        value = getattr(args, option)
        if not 0 < value < 1e9:
            raise WorkloadError(f"--{option.replace('_', '-')} is {value}, must be a number above 0")
    family = library.load(args.name, bind=_pairs(args.bind, "--bind", whole=True), strict=args.strict)
    workload = family.build(**_pairs(args.knobs, "--set"))
    if args.csv:
        print(summary.as_csv(workload), end="")
    elif args.json:
        record = summary.summary(workload)
        record |= {"published": dict(family.published), "sources": dict(family.sources), "note": family.note}
        record["operations"] = summary.operation_rows(workload)
        print(json.dumps(record, indent=2, allow_nan=False))
    else:
        print(summary.as_text(workload, peak_tops=args.peak_tops, bandwidth_gb_s=args.bandwidth_gb_s))
        if family.note:
            print(f"\nnote: {family.note}")
    return 0


def _pairs(texts: list[str], option: str, *, whole: bool = False) -> dict[str, Any]:
    """``NAME=VALUE`` texts as a mapping: whole numbers, numbers, true and false, or names."""
    from workloads.errors import WorkloadError

    result: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise WorkloadError(f"{option} is {text!r}, must be NAME=VALUE")
        result[name] = _value(value)
        if whole and not isinstance(result[name], int):
            raise WorkloadError(f"{option} {name} is {value!r}, must be a whole number")
    return result


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
