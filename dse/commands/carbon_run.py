"""``dse carbon run`` and ``dse carbon water``: what a computation took, in carbon and in water."""

from __future__ import annotations

import argparse
from typing import Any

FORMATS = ("text", "json", "csv", "markdown", "ghg", "codecarbon")
EPILOG = """\
examples:
  dse carbon run --grid france -- python train.py
  dse carbon run --hw h100 --count 8 --hours 240 --grid US-CA --pue 1.2
  dse carbon run --hw h100 --count 8 --hours 240 --format ghg --out inventory.csv
"""


def register(actions: Any) -> None:
    """Add both under ``dse carbon``."""
    parser = actions.add_parser(
        "run",
        help="carbon of a computation: of a command that is run now, or of hours on devices",
        description="Run a command and say what it took: energy from RAPL and NVML where the machine has them, else from CPU time and "
        "memory by stated powers. Or, with --hours, a training on devices of the library: board power, and the share of their making.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--grid", default="world", metavar="PLACE", help="a region, gCO2e/kWh or an hourly file (default world)")
    parser.add_argument("--pue", type=float, default=1.0, help="facility power over machine power (default 1)")
    parser.add_argument("--name", default="", metavar="TEXT", help="what it is called in tables (default: the command or the device)")
    hours = parser.add_argument_group("hours on devices, in place of a command")
    hours.add_argument("--hours", type=float, metavar="H", help="how long all of them run")
    hours.add_argument("--hw", metavar="GPU", help="a device of `dse list templates`")
    hours.add_argument("--count", type=int, default=1, metavar="N", help="how many (default 1)")
    hours.add_argument("--load", type=float, default=1.0, metavar="SHARE", help="of the way from idle to board power (default 1)")
    hours.add_argument("--watts", type=float, metavar="W", help="measured power of one device, in place of --load")
    hours.add_argument("--lifetime-years", type=float, default=5.0, metavar="YEARS", help="over which their making is spread (default 5)")
    out = parser.add_argument_group("output")
    out.add_argument("--cloud", action="store_true", help="in --format ghg: machines of another company (scope 3, category 1)")
    out.add_argument("--format", default="text", metavar="NAME", help=f"{', '.join(FORMATS)} (default text)")
    out.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    out.add_argument("--out", metavar="FILE", help="write there (default: standard error after a command, else standard output)")
    parser.add_argument("ran", nargs="*", metavar="-- COMMAND", help="what to run, after two dashes")
    parser.set_defaults(run=run)
    water = actions.add_parser(
        "water",
        help="water of electricity and of its data centre, with its range",
        description="Litres of operation: the data centre's own water and that of its electricity. Water is a quantity beside carbon.",
        allow_abbrev=False,
    )
    water.add_argument("--kwh", type=float, required=True, metavar="N", help="energy of the machines, without PUE")
    water.add_argument(
        "--zone",
        default="WOR",
        metavar="PLACE",
        help="of the electricity (default WOR, the world): france, taiwan and usa have a figure; for any other place the world's stands",
    )
    water.add_argument("--site", metavar="CODE", help="a data centre with a published figure: aws:us-east-1, gcp:..., azure:...")
    water.add_argument("--wue", type=float, metavar="L_PER_KWH", help="the data centre's own water a kWh of its machines")
    water.add_argument("--pue", type=float, default=1.0, help="facility power over machine power (default 1)")
    water.add_argument("--json", action="store_true", help="print JSON")
    water.set_defaults(run=run_water)


def run(args: argparse.Namespace) -> int:
    """Measure or compute, and print."""
    import sys
    from pathlib import Path

    from carbon.factors import grid
    from carbon.factors.grid_files import as_grid
    from carbon.operational.computing import Meter, emissions
    from dse.errors import UsageError
    from dse.reports.tables import check_format

    check_format(args.format, FORMATS)
    if bool(args.ran) == (args.hours is not None):
        raise UsageError("of a command (after --) and --hours " + ("both are given" if args.ran else "none is given") + "; give one")
    if args.ran and (args.hw or args.watts is not None):
        raise UsageError(f"{'hw' if args.hw else 'watts'} is given with a command, whose energy is measured; leave it out or give --hours")
    place = grid.lookup(as_grid(args.grid))
    if args.ran:
        if args.out is not None:
            _writable(args.out)  # before an hour of training, not after
        found = emissions(Meter().command(args.ran), place, pue=args.pue)
        name = args.name or Path(args.ran[0]).name
    else:
        spent, embodied_kgco2e = _on_devices(args)
        found = emissions(spent, place, pue=args.pue, embodied_kgco2e=embodied_kgco2e)
        name = args.name or f"{args.count} x {args.hw or 'device'}"
    text = _text(name, found, args)
    if args.out is not None:
        Path(args.out).write_text(text + "\n", encoding="utf-8")
        print(f"{args.out} written", file=sys.stderr)
    else:
        # The command has standard output to itself.
        print(text, file=sys.stderr if args.ran and args.format == "text" else sys.stdout)
    return found.spent.exit_code


def _writable(path: str) -> None:
    with open(path, "a", encoding="utf-8"):
        pass


def _on_devices(args: argparse.Namespace) -> tuple[Any, float]:
    """Energy of devices over hours, and the share of their making."""
    from carbon.operational.computing import from_power
    from carbon.operational.service import DAYS_PER_YEAR
    from dse.errors import UsageError
    from dse.serving.sheet import sheet

    if args.count < 1:
        raise UsageError(f"count is {args.count}, must be at least 1")
    if not 0 <= args.load <= 1:
        raise UsageError(f"load is {args.load:g}, must be from 0 (idle) to 1 (board power)")
    if not 0 < args.lifetime_years < 1000:
        raise UsageError(f"lifetime-years is {args.lifetime_years:g}, must be above 0")
    if args.hw is None:
        if args.watts is None:
            raise UsageError("hw is missing; name the device with --hw, or its power with --watts")
        return from_power(args.hours, args.watts * args.count, basis=f"{args.count} x {args.watts:g} W (given)"), 0.0
    chip = sheet(args.hw)
    watts = args.watts if args.watts is not None else chip.idle_w + args.load * (chip.tdp_w - chip.idle_w)
    how = (
        "measured, given" if args.watts is not None else f"{100 * args.load:g} % of the way from idle {chip.idle_w:g} W to {chip.tdp_w:g} W"
    )
    share = args.hours / (args.lifetime_years * DAYS_PER_YEAR * 24)
    basis = f"{args.count} x {watts:.4g} W ({how}); making over {args.lifetime_years:g} years of use"
    return from_power(args.hours, watts * args.count, basis=basis), args.count * chip.embodied_kgco2e * share


def _text(name: str, found: Any, args: argparse.Namespace) -> str:
    import datetime

    from carbon.analysis.inventory import codecarbon_row, ghg_rows
    from carbon.operational.service import DAYS_PER_YEAR
    from dse.reports.tables import table

    spent = found.spent
    if args.format == "ghg":
        rows = ghg_rows(name, embodied_kgco2e=found.embodied_kgco2e, kwh=found.facility_kwh, place=found.place, basis=spent.basis,
                        cloud=args.cloud,
                        machines=f"{args.count} x {args.hw or 'device'}" if args.hours is not None else "",
                        period_years=spent.wall_s / (DAYS_PER_YEAR * 24 * 3600))  # fmt: skip
        return table(rows, "csv")
    if args.format == "codecarbon":
        return table([codecarbon_row(name, found, when=datetime.datetime.now())], "csv")
    row = {
        "name": name,
        "seconds": spent.wall_s,
        "cpu_seconds": spent.cpu_s,
        "energy_kwh": spent.kwh,
        "facility_kwh": found.facility_kwh,
        "operational_kgco2e": found.operational_kgco2e,
        "operational_low_kgco2e": found.least_kgco2e,
        "embodied_kgco2e": found.embodied_kgco2e,
        "total_kgco2e": found.total_kgco2e,
        "grid": found.place.name,
        "gco2e_per_kwh": found.place.gco2e_per_kwh,
        "grid_source": found.place.source,
        "basis": spent.basis,
    }
    if args.format != "text":
        return table([row], args.format)
    low = f" (low end {_grams(found.least_kgco2e)})" if spent.least_kwh < spent.kwh else ""
    made = f" + {_grams(found.embodied_kgco2e)} of the devices' making" if found.embodied_kgco2e else ""
    return (
        f"{name}: {_grams(found.operational_kgco2e)} CO2e{low}{made}, {found.facility_kwh:.4g} kWh in {spent.wall_s:.4g} s "
        f"at {found.place.gco2e_per_kwh:.4g} g/kWh ({found.place.name})\n{spent.basis}"
    )


def _grams(kg: float) -> str:
    return f"{kg:.4g} kg" if kg >= 1 else f"{1e3 * kg:.4g} g"


def run_water(args: argparse.Namespace) -> int:
    """Print litres with their range."""
    import json
    from dataclasses import asdict

    from carbon.operational.water import with_range

    found = with_range(args.kwh, pue=args.pue, zone=args.zone, site_code=args.site, wue_l_per_kwh=args.wue)
    if args.json:
        print(json.dumps(asdict(found), indent=2, allow_nan=False))
    else:
        print(f"{found.litres:.4g} l ({found.low:.4g} to {found.high:.4g}) for {args.kwh:g} kWh\n{found.basis}")
        for line in found.assumed:
            print(f"assumed: {line}")
    return 0
