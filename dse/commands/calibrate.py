"""``dse calibrate``: fit a device's kernels to measurements and show the error on the half that was not fitted."""

from __future__ import annotations

import argparse
from typing import Any

MACHINE_PARTS = ("cpu", "gpu")


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "calibrate",
        help="fit a device to your measurements",
        description="Fit the kernels of a GPU or a processor to your own measurements, or measure those of this machine. Rows are "
        "sorted by size and dealt to two halves; each half is fitted and judged on the other, and what is kept comes from all rows. "
        "`dse evaluate --calibration FILE` and `dse search --calibration FILE` take the file that is written.",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="columns of FILE.csv: op, dtype (fp16 if absent), latency_s, and m, n, k (batch) for gemm, rows, columns for\n"
        "softmax, layernorm, rmsnorm, or elements for gelu, silu, relu, add, mul, silu_mul. dtype is one of fp32, tf32,\n"
        "bf16, fp16, fp8, int8, fp4, int4, one an operator; of products, and of row-wise operators, at least 4 rows.\n\n"
        "examples:\n"
        "  dse calibrate --measured my_a100.csv --device a100 --out my_a100.toml\n"
        "  dse calibrate --this-machine --out my_cpu.toml\n"
        "  dse calibrate --this-machine gpu --rows my_gpu.csv --out my_gpu.toml",
    )
    parser.add_argument("--measured", metavar="FILE.csv", help="measured operators, one a row")
    parser.add_argument("--this-machine", nargs="?", const="cpu", metavar="cpu|gpu", help="measure products and row-wise operators here "
                        "instead: on the processor (cpu, default: float32, numpy, half a minute) or the GPU (gpu: bfloat16, torch, some "
                        "seconds)")  # fmt: skip
    parser.add_argument("--device", metavar="NAME|FILE.toml", help="device they were measured on (default a100)")
    parser.add_argument("--overheads", default="eager", metavar="SET",
                        help="shipped overheads to compare with: eager (framework calls, default) or kernel")  # fmt: skip
    parser.add_argument("--rows", metavar="OUT.csv", help="with --this-machine: write the measured rows there")
    parser.add_argument("--out", metavar="FILE.toml", help="write what was fitted there")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit, report and, where asked, write."""
    import os
    import sys
    from pathlib import Path

    from dse.errors import UsageError, unknown_name
    from hw_models.devices import calibration, kernel_calibration, this_gpu, this_machine
    from hw_models.devices import library as devices

    if args.this_machine not in (None, *MACHINE_PARTS):
        raise unknown_name("this-machine", args.this_machine, MACHINE_PARTS)
    if bool(args.this_machine) == bool(args.measured):
        raise UsageError("of --measured and --this-machine " + ("both are given" if args.measured else "none is given") + "; give one")
    if args.rows and not args.this_machine:
        raise UsageError("rows is given without --this-machine; the rows of --measured are in its file")
    if args.device and args.this_machine:
        raise UsageError("device is given with --this-machine, which writes a record of what is measured; leave it out")
    name = "this-machine" if args.this_machine else args.device or "a100"
    own = args.this_machine or Path(name).suffix == ".toml"
    device = None if own else devices.load(name)
    here = this_gpu if args.this_machine == "gpu" else this_machine
    accelerator = device.accelerator if device is not None else here.record() if args.this_machine else _own_device(name)
    passed_over: list[str] = []
    if args.this_machine:
        load = os.getloadavg()[0]
        cores = len(os.sched_getaffinity(0))
        if load > cores:
            print(
                f"dse calibrate: the machine is busy (load {load:.1f} on {cores} cores); measure when it is idle",
                file=sys.stderr,
            )
        measured = here.measure()
        source = "this machine"
        if args.rows:
            Path(args.rows).write_text(this_machine.as_csv(measured), encoding="utf-8")
    else:
        measured, passed_over = calibration.read_measurements(args.measured)
        calibration.check_one_format(measured, where=args.measured)
        source = Path(args.measured).name
    fitted, unused = kernel_calibration.fit(accelerator, measured)
    doubts = kernel_calibration.doubts(fitted, [rows.dtype for rows in measured])
    for sentence in (*passed_over, *unused, *(f"careful: {doubt}" for doubt in doubts)):
        print(f"dse calibrate: {sentence}", file=sys.stderr)
    # The operator model of a framework's calls is there for devices that it was fitted on.
    reports: list[Any] = []
    if device is not None and device.gpu is not None:
        reports = calibration.calibrate(device.gpu_hardware(), measured, device.overhead_set(args.overheads).operators)
    if args.out:
        if device is not None:
            kept = kernel_calibration.calibration_toml(name, fitted, doubts)
        else:
            kept = "".join(f"# careful: {doubt}\n" for doubt in doubts) + kernel_calibration.calibrated(accelerator, fitted).to_toml()
        if reports:
            notes = {r.operator: f"{r.rows} {r.operator} rows of {source}" for r in reports}
            kept += "\n" + devices.overheads_toml(devices.OverheadSet("calibrated", {r.operator: r.overheads for r in reports}, notes))
        Path(args.out).write_text(kept, encoding="utf-8")
    if args.json:
        _print_json(name, args, passed_over, doubts, fitted, reports)
    else:
        _print_kernels(name, fitted)
        if reports:
            print()
            _print_table(name, args.overheads, reports)
    return 0


def _own_device(path: str) -> Any:
    from dse.errors import UsageError
    from hw_models.accelerator.design import Accelerator
    from hw_models.spaces import load_file

    found = load_file(path)
    if not isinstance(found, Accelerator):
        raise UsageError(f"device {path} describes a space; a calibration is of one design")
    return found


def _print_json(
    device: str, args: argparse.Namespace, passed_over: list[str], doubts: list[str], fitted: list[Any], reports: list[Any]
) -> None:
    import json
    from dataclasses import asdict

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
    document = {
        "device": device,
        "shipped_overheads": args.overheads,
        "passed_over": passed_over,
        "careful": doubts,
        "kernels": [asdict(f) for f in fitted],
    }
    print(json.dumps({**document, "operators": operators}, indent=2, allow_nan=False))


def _print_kernels(device: str, fitted: list[Any]) -> None:
    from dse.reports.tables import table

    print(f"{device}: kernels as dse evaluate and search cost them, median |model / measured - 1|")
    rows = [
        {
            "kernels": f.kernels,
            "rows": f.rows,
            "as shipped": f"{100 * f.error_before:.1f} %",
            "halves, each fitted on the other": f"{100 * f.held_out[0]:.1f}, {100 * f.held_out[1]:.1f} %",
            "time": f"{f.scale:.4g} x model + {1e6 * f.fixed_s:.3g} us",
        }
        for f in fitted
    ]
    print(table(rows))


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
