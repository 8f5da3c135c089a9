"""``dse evaluate``: the cost of one design, of a list of designs, or of a list of matrix products."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from dse.commands import options


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "evaluate",
        help="cost one design",
        description="Cost one design: every metric and the breakdown by component with the bound of each.",
        allow_abbrev=False,
    )
    options.add_problem_options(parser)
    parser.set_defaults(**dict.fromkeys(options.SERVES), criterion=None)  # not given: the file of a design says it, else the defaults
    lists = parser.add_argument_group("lists instead of one design (CSV in, the same rows with costs out)")
    lists.add_argument(
        "--designs", metavar="IN.csv", help="whole designs: columns are knobs of the model and of the hardware, as --set takes them"
    )
    lists.add_argument(
        "--gemms",
        metavar="IN.csv",
        help="matrix products: columns m, n, k, where given batch, weight_bits, activation_bits, and any knob of the hardware",
    )
    lists.add_argument("--out", metavar="OUT.csv", help="where the costed rows go (needed with --designs and --gemms)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate and print, or cost the rows of a file."""
    from dse.errors import UsageError

    options.take_calibration(args)
    if args.designs and args.gemms:
        raise UsageError("designs and gemms are both given; cost one file at a time")
    if args.designs or args.gemms:
        if not args.out:
            raise UsageError("out is missing; name the CSV file for the costed rows")
        return _gemms(args) if args.gemms else _designs(args)
    if args.out:
        raise UsageError("out is given without --designs or --gemms; one design is printed")
    from dse.evaluation.one_design import evaluate
    from dse.evaluation.written_design import workload_of
    from dse.reports import console as show

    answer = evaluate(
        args.workload or workload_of(args.hw) or options.workload_of(args),
        args.hw,
        fixed=options.knobs_of(args),
        criterion=args.criterion,
        residency=args.residency,
        prefetch=args.prefetch,
        hardware_profile=args.profile,
        allow_unsupported=args.allow_unsupported,
        bind=options.bind_of(args),
        strict=args.strict,
        **(serves := options.serves_of(args)),
    )
    if not args.json:
        answer["cautions"] = [*answer["cautions"], *_act_by_default(answer, serves)]
    show.show_design(answer, as_json=args.json)
    return 0


def _act_by_default(answer: Mapping[str, Any], serves: Mapping[str, Any]) -> list[str]:
    """A sentence where carbon is counted by act2 and nobody named it, so that the answer does not stand beside one of a device."""
    named = {**(answer.get("deployment_from") or {}).get("taken", {}), **serves}
    if "carbon_profile" in named or answer["deployment"]["carbon_profile"] != "act2":
        return []
    return ["embodied carbon by act2; devices of the library use default: name --carbon-profile to compare."]


def _gemms(args: argparse.Namespace) -> int:
    from dse.evaluation.hardware_columns import as_knobs
    from dse.spaces.hardware import from_text, load_with
    from hw_models.costs.products_csv import BITS_COLUMNS, GEMM_COLUMNS, evaluate_gemms, read_csv

    hardware, fixed, text = load_with(args.hw, options.knobs_of(args), profile=args.profile, keep=BITS_COLUMNS)
    table = None
    if text is not None:
        changed, table = as_knobs(text, read_csv(args.gemms), (*BITS_COLUMNS, *GEMM_COLUMNS, *hardware.settings))
        hardware = hardware if changed is text else from_text(changed, name=args.hw, profile=args.profile)
    defaults = {**hardware.defaults, **fixed}
    rows = evaluate_gemms(args.gemms, hardware.source_record, args.profile, args.out, defaults=defaults, criterion=args.criterion or "edp",
                          as_read=table)  # fmt: skip
    _told(args, rows)
    return 0


def _designs(args: argparse.Namespace) -> int:
    from dse.evaluation.design_list import evaluate_designs
    from dse.evaluation.words import make_problem

    problem = make_problem(
        options.workload_of(args),
        "hardware",
        hw=args.hw,
        hardware_profile=args.profile,
        fixed=options.knobs_of(args),
        allow_unsupported=True,
        criterion=args.criterion or "edp",
        residency=args.residency,
        prefetch=args.prefetch,
        bind=options.bind_of(args),
        strict=args.strict,
        **options.serves_of(args),
    )
    rows = evaluate_designs(problem, args.designs, args.out, allow_unsupported=args.allow_unsupported)
    _told(args, rows)
    return 0


def _told(args: argparse.Namespace, rows: int) -> None:
    import json

    print(json.dumps({"rows": rows, "out": args.out}) if args.json else f"{rows} rows written to {args.out}")
