"""Options that several commands share, and how their words become values."""

from __future__ import annotations

import argparse
import math
import re
from typing import Any

from dse.text_values import number_or_name, value_of


def add_problem_options(parser: argparse.ArgumentParser) -> None:
    """What decides the cost of a design: workload, hardware, knobs, deployment, mapping criterion."""
    parser.add_argument(
        "--workload",
        metavar="NAME",
        help="what runs: a name of `dse list`, or a file: model.onnx, config.json, workload.toml; a search "
        "varies its size where `dse list` says so, and --objective hardware or --set keep it",
    )
    parser.add_argument("--hw", default="edge22", metavar="NAME|FILE.toml", help="hardware template, device, several devices with "
                        "commas between (h100,l40s), or a TOML file of your own accelerator or space (default edge22)")  # fmt: skip
    parser.add_argument(
        "--calibration", metavar="FILE.toml", help="what `dse calibrate` wrote of your own device, in place of --hw's figures"
    )
    parser.add_argument("--profile", metavar="NAME", help="technology profile of the hardware: default (physical), silicon (arithmetic by "
                        "format; that of the small chips of the library) or catransformers22 (that tool's constants)")  # fmt: skip
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="knobs",
                        help="fix a knob of the model or the hardware (repeatable)")  # fmt: skip
    parser.add_argument("--criterion", default="edp", metavar="NAME",
                        help="what each operation's mapping minimises: edp (default), latency or energy")  # fmt: skip
    parser.add_argument("--residency", metavar="NAME",
                        help="what may stay on chip between operations, chosen best: none, activations, epilogue (and vector "
                        "work in the epilogue of products), weights (and weights over requests; default), tiles (and groups of "
                        "operations that pass tiles to each other)")  # fmt: skip
    parser.add_argument("--prefetch", action="store_true", default=None,
                        help="read an operation's weights during the one before it, as far as the DRAM is idle, room is free and that "
                        "shortens it (needs data on chip: --residency activations or more)")  # fmt: skip
    parser.add_argument("--allow-unsupported", action="store_true",
                        help="also take models whose quality no published figure supports, marked extrapolated")  # fmt: skip
    parser.add_argument("--bind", action="append", default=[], metavar="NAME=VALUE",
                        help="size of a dynamic axis of an ONNX workload (repeatable)")  # fmt: skip
    parser.add_argument("--strict", action="store_true", help="operations of an imported graph that are not understood are an error")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    deployment = parser.add_argument_group("deployment (designs are compared at equal service)")
    deployment.add_argument("--rate", type=float, metavar="PER_S", help="requests a second (default: those of the mix, else 1)")
    deployment.add_argument("--lifetime-years", type=float, default=3.0, metavar="YEARS", help="default 3")
    deployment.add_argument("--grid", default="world", metavar="REGION|G|FILE.csv",
                            help="grid of use: a region, gCO2e/kWh, or an hourly file (default world)")  # fmt: skip
    deployment.add_argument("--fab-grid", default="", metavar="REGION|G|FILE.csv",
                            help="grid of the fab (default: the carbon profile's, mostly taiwan)")  # fmt: skip
    deployment.add_argument("--pue", type=float, default=1.0, help="facility power over device power (default 1, the edge)")
    deployment.add_argument("--electricity-usd", type=float, default=0.12, metavar="USD", help="price of a kWh (default 0.12)")
    deployment.add_argument("--package", default="", metavar="NAME", help="package, where the carbon profile has several")
    deployment.add_argument("--carbon-profile", metavar="NAME", help="embodied carbon model (default act2; for hw datacenter "
                            "and where act2 does not know the memory, as of boards: default)")  # fmt: skip


def take_calibration(args: argparse.Namespace) -> None:
    """Put the calibrated device in the place of ``hw``: the file names the device that it was measured on."""
    from dse.errors import UsageError

    if args.calibration is None:
        return
    from pathlib import Path

    from hw_models.accelerator.toml import load_toml

    document = load_toml(Path(args.calibration))
    if "calibration" not in document:
        raise UsageError(f"calibration {args.calibration} has no table [calibration]; `dse calibrate --out FILE.toml` writes one")
    device = document.get("device", document.get("name"))
    if args.hw not in ("edge22", device, args.calibration):
        raise UsageError(f"calibration {args.calibration} is of {device}, and hw is {args.hw}; leave --hw out or name {device}")
    args.hw = args.calibration


def workload_of(args: argparse.Namespace) -> str:
    """The workload, which must be named."""
    from dse.errors import UsageError

    if args.workload is None:
        raise UsageError("workload is missing; name one with --workload (`dse list workloads` shows them)")
    return str(args.workload)


def deployment_of(args: argparse.Namespace) -> Any:
    """The deployment that the options describe; where they name no carbon profile, without one (`make_problem` finds it)."""
    from carbon.factors.grid_files import as_grid
    from dse.problem.deployment import Deployment

    return Deployment(
        rate_per_s=_rate(args),
        lifetime_years=args.lifetime_years,
        grid=as_grid(args.grid),
        fab_grid=as_grid(args.fab_grid),
        pue=args.pue,
        electricity_usd_per_kwh=args.electricity_usd,
        carbon_profile=args.carbon_profile or "",
        package=args.package,
    )


SERVES = {"rate": "rate_per_s", "lifetime_years": "lifetime_years", "grid": "grid", "fab_grid": "fab_grid", "pue": "pue",
          "electricity_usd": "electricity_usd_per_kwh", "carbon_profile": "carbon_profile", "package": "package"}  # fmt: skip
"""Options of a deployment and the fields that they set."""


def serves_of(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of a deployment that the options name, of a command that tells what is not given (None) from a default."""
    from carbon.factors.grid_files import as_grid

    given = {field: getattr(args, name) for name, field in SERVES.items() if getattr(args, name) is not None}
    return {field: as_grid(value) if field in ("grid", "fab_grid") else value for field, value in given.items()}


def _rate(args: argparse.Namespace) -> float:
    """Requests a second: --rate, else what the mix says, else 1."""
    if args.rate is not None:
        return float(args.rate)
    from workloads.library import is_path, load, mixes

    word = args.workload or ""
    own = load(word).rate_per_s if word in mixes() or (word.endswith(".toml") and is_path(word)) else None
    return 1.0 if own is None else own


def tell_renamed(texts: list[str]) -> None:
    """Say on stderr which names of metrics have changed, once each; they are understood all the same."""
    import re
    import sys

    from dse.problem.metrics import METRICS, RENAMED

    for old, new in RENAMED.items():
        if any(re.search(rf"(?<![A-Za-z0-9_]){old}(?![A-Za-z0-9_])", text) for text in texts):
            print(f"dse: note: {old} is now called {new} ({METRICS[new].meaning})", file=sys.stderr)


def knobs_of(args: argparse.Namespace) -> dict[str, Any]:
    """The knobs fixed with --set."""
    return _assignments("set", args.knobs)


def vary_of(args: argparse.Namespace) -> dict[str, list[int | float | str]]:
    """The further knobs of --vary, with their values."""
    from dse.errors import UsageError

    chosen: dict[str, list[int | float | str]] = {}
    for text in args.vary:
        name, separator, values = text.partition("=")
        if not separator or not name.strip() or not values.strip():
            raise UsageError(f"vary {text!r} is not of the form NAME=VALUE,VALUE,...")
        if name.strip() in chosen:
            raise UsageError(f"vary {name.strip()} is given twice; list all values at once")
        chosen[name.strip()] = [value_of(value.strip()) for value in values.split(",")]
    return chosen


def bind_of(args: argparse.Namespace) -> dict[str, int]:
    """The axes bound with --bind."""
    return _assignments("bind", args.bind)


def _assignments(option: str, texts: list[str]) -> dict[str, Any]:
    from dse.errors import UsageError

    fixed: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name.strip():
            raise UsageError(f"{option} {text!r} is not of the form NAME=VALUE")
        number = number_or_name(value.strip())
        if option == "set" and isinstance(number, str) and re.fullmatch(r"[A-Za-z_][\w.+-]{0,63}", number):
            fixed[name.strip()] = value_of(number)  # a knob of names: phase=decode
            continue
        if isinstance(number, str) or not math.isfinite(number) or (option == "bind" and not isinstance(number, int)):
            shown = value if len(value) <= 80 else value[:77] + "..."
            kind = "whole number" if option == "bind" else "number"
            raise UsageError(f"{option} {name.strip()} has the value {shown!r}; a {kind} is needed")
        name = name.strip()
        if fixed.get(name, number) != number:
            raise UsageError(f"{option} {name} is given twice, as {fixed[name]} and as {number}")
        fixed[name] = number
    return fixed
