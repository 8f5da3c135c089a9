"""``dse carbon payback``: after how many years a machine that replaces another has paid back its making."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any


def register(actions: Any, read: Callable[[str, argparse.Namespace], Any]) -> None:
    """Add the action; ``read`` makes the estimate of a specification with what the command line says of its use."""
    parser = actions.add_parser(
        "payback",
        help="years until a new machine has paid back its making",
        description="Say after how many years the making of a new machine is paid back by less electricity than that of the old one which "
        "it replaces. The making of the old one is spent and does not count. Both are specifications of `dse carbon estimate` whose [use] "
        "says what they draw for the same work.",
        allow_abbrev=False,
    )
    parser.add_argument("old", metavar="OLD.toml", help="the machine that is there")
    parser.add_argument("new", metavar="NEW.toml", help="the machine that would replace it")
    parser.add_argument("--replaces", type=float, default=1.0, metavar="N", help="old machines whose work a new one does (default 1)")
    parser.add_argument("--grid", metavar="PLACE", help="electricity of both (default: that of the files, where it is the same)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run, read=read, profile=None, lifetime_years=None)


def run(args: argparse.Namespace) -> int:
    """Estimate both and print."""
    import json

    from carbon.analysis.metrics import HOURS_PER_YEAR, payback_years
    from carbon.errors import CarbonError
    from dse.errors import UsageError

    if not (math.isfinite(args.replaces) and args.replaces > 0):
        raise UsageError(f"replaces is {args.replaces:g}, must be above 0")
    old, new = (args.read(path, args) for path in (args.old, args.new))
    for path, one in ((args.old, old), (args.new, new)):
        if one.operation is None:
            raise CarbonError(f"specification {path!r} has no [use], but what a machine draws decides when another has paid back")
    places = [one.sources["use.grid"] for one in (old, new)]
    if len({place.gco2e_per_kwh for place in places}) > 1:
        raise CarbonError(f"{args.old} is used in {places[0].name} and {args.new} in {places[1].name}; name one place for both with --grid")
    # Mean power at the meter, PUE included: each file's own.
    watts = [1e3 * float(one.operation.energy_kwh) / (one.lifetime_years * HOURS_PER_YEAR) for one in (old, new)]
    saved_w, intensity = args.replaces * watts[0] - watts[1], float(places[1].gco2e_per_kwh)
    made = (float(new.embodied.p5), float(new.embodied_kgco2e), float(new.embodied.p95))
    years = [payback_years(kg, saved_w, intensity) for kg in made]
    saved_kg = saved_w * HOURS_PER_YEAR / 1e6 * intensity
    if args.json:
        told = {
            "payback_years": years[1], "payback_years_p5": years[0], "payback_years_p95": years[2], "making_kgco2e": made[1],
            "saved_w": saved_w, "saved_kgco2e_per_year": saved_kg, "gco2e_per_kwh": intensity, "grid": places[1].name,
            "replaces": args.replaces, "lifetime_years": new.lifetime_years,
        }  # fmt: skip
        # JSON has no infinity: never is null
        print(json.dumps({k: None if isinstance(v, float) and math.isinf(v) else v for k, v in told.items()}, indent=2, allow_nan=False))
        return 0
    many = "" if args.replaces == 1 else f"{args.replaces:g} x "
    at = f"on {places[1].name} ({intensity:.4g} g/kWh)"
    if not math.isfinite(years[1]):
        print(f"{new.name} never pays back its making ({made[1]:,.0f} kg) {at}: it draws {watts[1]:,.0f} W at the meter, and the "
              f"{many}{old.name} {args.replaces * watts[0]:,.0f} W: keep what is there")  # fmt: skip
        return 0
    verdict = "before" if years[1] < new.lifetime_years else "after"
    print(
        f"{new.name} in place of {many}{old.name} pays back its making after {years[1]:.3g} years ({years[0]:.3g} to {years[2]:.3g}) {at}: "
        f"{made[1]:,.0f} kg ({made[0]:,.0f} to {made[2]:,.0f}) over {saved_kg:,.0f} kg a year less, {saved_w:,.0f} W at the meter\n"
        f"that is {verdict} the end of its {new.lifetime_years:g} years{': replace' if verdict == 'before' else ': keep what is there'}; "
        f"the making of {old.name} is spent and does not count"
    )
    return 0
