"""``dse calibrate``: fit a device's overheads to measurements and show the error on the half that was not fitted."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "calibrate",
        help="fit a device to your measurements",
        description="Fit the overheads of a GPU's operators to your own measurements. Rows are sorted by size and dealt to two "
        "halves; each half is fitted and judged on the other, and the overheads that are kept come from all rows.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="columns of FILE.csv: op, dtype (fp16 if absent), latency_s, and m, n, k (batch) for gemm, rows, columns for\n"
        "softmax, layernorm, rmsnorm, or elements for gelu, silu, relu, add, mul, silu_mul.\n\n"
        "example: dse calibrate --measured my_a100.csv --device a100 --out my_a100.toml",
    )
    parser.add_argument("--measured", required=True, metavar="FILE.csv", help="measured operators, one a row")
    parser.add_argument("--device", default="a100", metavar="NAME", help="device they were measured on (default a100)")
    parser.add_argument("--overheads", default="eager", metavar="SET",
                        help="shipped overheads to compare with: eager (framework calls, default) or kernel")  # fmt: skip
    parser.add_argument("--out", metavar="FILE.toml", help="write the fitted overheads there")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, report and, where asked, write."""
    import sys
    from dataclasses import asdict
    from pathlib import Path

    from hw_models.devices import calibration
    from hw_models.devices import library as devices

    device = devices.load(args.device)
    hardware = device.gpu_hardware()
    shipped = device.overhead_set(args.overheads)
    measured, passed_over = calibration.read_measurements(args.measured)
    calibration.check_one_format(measured, where=args.measured)
    reports = calibration.calibrate(hardware, measured, shipped.operators)
    for sentence in passed_over:
        print(f"dse calibrate: {sentence}", file=sys.stderr)

    if args.out:
        fitted = devices.OverheadSet(
            "calibrated",
            {r.operator: r.overheads for r in reports},
            {r.operator: f"{r.rows} {r.operator} rows of {Path(args.measured).name}" for r in reports},
        )
        Path(args.out).write_text(devices.overheads_toml(fitted), encoding="utf-8")
    if args.json:
        import json

        operators = [
            {
                "operator": r.operator,
                "dtype": r.dtype,
                "rows": r.rows,
                "overheads": asdict(r.overheads),
                "mean_error": {
                    "shipped": r.error_before,
                    "fitted_on_all_in_sample": r.error_all,
                    "second_half_fitted_on_first": r.held_out[0],
                    "first_half_fitted_on_second": r.held_out[1],
                },
            }
            for r in reports
        ]
        document = {"device": device.name, "shipped_overheads": args.overheads, "passed_over": passed_over}
        print(json.dumps({**document, "operators": operators}, indent=2))
    else:
        _print_table(device.name, args.overheads, reports)
    return 0


def _print_table(device: str, shipped: str, reports: list[Any]) -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a pipe has no width: whole lines, for a reader such as grep
    table = Table(box=None, pad_edge=False, title=f"{device}: mean |model / measured - 1|", title_justify="left")
    table.add_column("operator")
    table.add_column("dtype")
    for title in ("rows", f"shipped ({shipped})", "2nd half, fitted on 1st", "1st half, fitted on 2nd", "all, in sample"):
        table.add_column(title, justify="right")
    for r in reports:
        before = "-" if r.error_before is None else f"{100 * r.error_before:.1f} %"
        errors = [f"{100 * e:.1f} %" for e in (*r.held_out, r.error_all)]
        table.add_row(r.operator, r.dtype, str(r.rows), before, *errors)
    console.print(table)
    console.print()
    for r in reports:
        values = ", ".join(f"{name} = {value:.4g}" for name, value in asdict(r.overheads).items())
        console.print(f"{r.operator}: {values}", highlight=False)
