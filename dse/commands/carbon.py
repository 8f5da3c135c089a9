"""``dse carbon``: estimates, tables, factors, grids, validation, and how robust a front is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dse.commands import carbon_payback, carbon_run

KINDS = ("die", "memory", "operation", "pcb", "llm")


def register(commands: Any) -> None:
    """Add the command and its subcommands."""
    group = commands.add_parser(
        "carbon",
        help="estimate carbon, explain factors, list grids, validate",
        description="Embodied and operational carbon: estimates with ranges, tables, factors with their sources, validation.",
        allow_abbrev=False,
    )
    group.set_defaults(run=run_help, parser=group)
    actions = group.add_subparsers(dest="carbon_command", metavar="COMMAND")
    _estimate(actions)
    _batch(actions)
    _explain(actions)
    _grids(actions)
    _validate(actions)
    _robustness(actions)
    carbon_run.register(actions)
    carbon_payback.register(actions, _read)


def _add(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    sentence = text[0].upper() + text[1:] + "."
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=sentence, allow_abbrev=False)
    return parser


def _estimate(actions: Any) -> None:
    parser = _add(actions, "estimate", "estimate a device or product from a TOML specification")
    parser.add_argument("spec", metavar="SPEC.toml", help="specification, see docs/models/carbon.md")
    parser.add_argument("--profile", help="use this profile instead of the specification's")
    parser.add_argument("--grid", metavar="PLACE", help="electricity of [use] in place of the specification's")
    parser.add_argument("--lifetime-years", type=float, metavar="Y", help="years of [use] in place of the specification's")
    parser.add_argument("--format", default="text", metavar="NAME", help="text, json or ghg (default text)")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")
    parser.add_argument("--draws", type=int, help="Monte Carlo draws (default 20000)")
    parser.add_argument("--seed", type=int, help="seed of the draws (default 0)")
    parser.add_argument("--ghg", metavar="OUT.csv", help="also write the lines of --format ghg, a GHG-protocol inventory")
    parser.add_argument(
        "--cloud", action="store_true", help="with --ghg or --format ghg: machines of another company (scope 3, category 1)"
    )
    parser.set_defaults(run=run_estimate)


def _batch(actions: Any) -> None:
    parser = _add(actions, "batch", "compute a CSV table and add total_kgco2e and its parts")
    parser.add_argument("table", metavar="IN.csv", help="the columns of the peers' reference tables are taken as they stand")
    parser.add_argument("--kind", required=True, choices=KINDS, help="what a row is")
    parser.add_argument("--profile", default="default", help="act2, catransformers, ecochip, 3dcarbon or default")
    parser.add_argument("--out", metavar="OUT.csv", help="write here (default: standard output)")
    parser.set_defaults(run=run_batch)


def _explain(actions: Any) -> None:
    parser = _add(actions, "explain", "print every factor with value, range, source, vintage and licence")
    parser.add_argument("spec", metavar="SPEC.toml", nargs="?", help="the factors of this estimate (default: all)")
    parser.add_argument("--match", metavar="TEXT", help="only factors whose key contains TEXT")
    parser.add_argument(
        "--grid", metavar="PLACE", help="the place of use, in place of the file's, as `dse carbon estimate --grid` takes it"
    )
    parser.add_argument("--profile", metavar="NAME", help="the profile, in place of the file's")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_explain, lifetime_years=None)


def _grids(actions: Any) -> None:
    parser = _add(actions, "grids", "list carbon intensities of electricity, or check a grid file of your own")
    parser.add_argument("pattern", metavar="TEXT", nargs="?", help="only codes, names or levels that contain TEXT")
    parser.add_argument("--code", help="look one code up as an estimate would")
    parser.add_argument("--role", choices=("use", "fab"), default="use", help="role of --code (fab: ACT 2022 answers first)")
    parser.add_argument("--import", dest="import_file", metavar="FILE", help="Electricity Maps, WattTime or EIA-930 file")
    parser.add_argument("--zone", help="zone of a file with several")
    parser.add_argument("--trace", metavar="NAME", help="packaged 12x24 profile of a US balancing authority (CISO, ERCO, ...)")
    parser.add_argument("--best-hours", type=int, metavar="N", help="with --import or --trace: bound for N hours a day")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_grids)


def _validate(actions: Any) -> None:
    parser = _add(actions, "validate", "check the estimator against peers' outputs and published footprints")
    parser.add_argument("--reference", metavar="FOLDER", help="folder of the peers' outputs (default: tests/reference/carbon)")
    parser.add_argument("--plot", metavar="FILE.svg", help="write the chiplet crossover as a picture")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_validate)


def _robustness(actions: Any) -> None:
    parser = _add(actions, "robustness", "say how a study's Pareto order stands up to uncertain carbon factors")
    parser.add_argument("study", metavar="RUN", help="run folder of a search")
    parser.add_argument("--draws", type=int, default=1000, help="Monte Carlo draws (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draws (default 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run_robustness)


def _print_json(data: Any) -> None:
    # allow_nan=False: a number that is not finite must never leave as JSON
    json.dump(data, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def run_help(args: argparse.Namespace) -> int:
    """Without a subcommand: usage, exit code 2."""
    args.parser.print_help(sys.stderr)
    return 2


def run_estimate(args: argparse.Namespace) -> int:
    """Estimate and print."""
    from carbon.analysis import estimate, report
    from carbon.errors import CarbonError
    from dse.reports.tables import check_format

    check_format(args.format, ("text", "json", "ghg"))
    spec = estimate.load(args.spec)
    if args.profile is not None:
        spec["profile"] = args.profile
    kept = _take_use(spec, args)
    given = {name: getattr(args, name) for name in ("draws", "seed") if getattr(args, name) is not None}
    if given and isinstance(held := spec.get("uncertainty", {}), dict):  # what is no table is told by the estimate
        spec["uncertainty"] = {**held, **given}
    answer = _of_file(args.spec, spec, kept)
    if args.cloud and args.ghg is None and args.format != "ghg":
        raise CarbonError("cloud is given without --ghg or --format ghg, the only table that asks whose the machines are")
    if args.ghg is not None:
        lines = _inventory(answer, cloud=args.cloud)
        Path(args.ghg).write_text(lines + "\n", encoding="utf-8")
        print(f"{args.ghg}: {lines.count(chr(10))} lines", file=sys.stderr)
    if args.format == "json":
        _print_json(report.estimate_data(answer))
    elif args.format == "ghg":
        print(_inventory(answer, cloud=args.cloud))
    else:
        print(report.estimate_text(answer))
    return 0


def _take_use(spec: dict[str, Any], args: argparse.Namespace) -> list[str]:
    """Put what the command line says of [use] in place of the file's; return what of the file does not follow it."""
    from carbon.errors import CarbonError

    given = {"grid": args.grid, "lifetime_years": args.lifetime_years}
    given = {name: value for name, value in given.items() if value is not None}
    if not given:
        return []
    use = spec.get("use")
    if not isinstance(use, dict):
        raise CarbonError(
            f"{next(iter(given)).replace('_', '-')} is given and specification {args.spec!r} has no [use] with a power to use it with"
        )
    if args.grid is not None:
        use = {name: value for name, value in use.items() if name not in ("grid", "gco2e_per_kwh", "kind", "source", "trace")}
        if args.grid.startswith("eia2022:"):  # hours of 2022, which [use] knows as a trace
            given["trace"] = given.pop("grid")
    spec["use"] = {**use, **given}
    unit, years = spec.get("functional_unit"), use.get("lifetime_years")
    if isinstance(unit, dict) and "total" in unit and args.lifetime_years not in (None, years):
        name = str(unit.get("name", "unit"))
        return [
            f"total of functional_unit stays {unit['total']} {name}s, which the file states for {years} years, not {args.lifetime_years:g}"
        ]
    return []


def _of_file(path: str, spec: Any, kept: Sequence[str] = ()) -> Any:
    """The estimate of a specification, devices named in it looked up; an error names the file."""
    from carbon.analysis import estimate
    from carbon.errors import CarbonError
    from dse.evaluation.board_specification import whole_servers, with_devices

    try:
        answer = estimate.estimate(with_devices(spec))
        return dataclasses.replace(answer, assumed=[*answer.assumed, *whole_servers(spec), *kept])
    except CarbonError as error:
        raise CarbonError(f"specification {path!r}: {error}") from error


def _read(path: str, args: argparse.Namespace) -> Any:
    """The estimate of a specification with what the command line says of its use."""
    from carbon.analysis import estimate

    spec = estimate.load(path)
    return _of_file(path, spec, _take_use(spec, argparse.Namespace(**{**vars(args), "spec": path})))


def _inventory(answer: Any, *, cloud: bool) -> str:
    """The lines of a GHG-protocol inventory as CSV."""
    from carbon.analysis.inventory import ghg_rows
    from carbon.factors.grid import GridFactor
    from dse.reports.tables import table

    found = answer.sources.get("use.grid")
    place = found if isinstance(found, GridFactor) else None
    kwh = float(answer.operation.energy_kwh) if answer.operation is not None else 0.0
    rows = ghg_rows(
        answer.name,
        embodied_kgco2e=answer.embodied_kgco2e,
        kwh=kwh,
        place=place,
        basis=answer.basis,
        cloud=cloud,
        machines=", ".join(f"{count:g} x {name}" for name, count in answer.counts.items()),
        period_years=answer.lifetime_years,
        spreads=(answer.embodied, answer.operational),
        parts={part: (kg, answer.part_spreads[part]) for part, kg in answer.embodied_parts.items() if kg},
        made_source=f"dse carbon, profile {answer.profile}; `dse carbon explain` names each factor's",
    )
    return table(rows, "csv")


def run_batch(args: argparse.Namespace) -> int:
    """Compute a table and write it."""
    from carbon.analysis import batch
    from carbon.errors import CarbonError

    table = batch.run(args.table, args.kind, args.profile)
    if table.passed_through:
        print(f"columns passed through, not used: {', '.join(table.passed_through)}", file=sys.stderr)
    if args.out is None:
        sys.stdout.write(table.text())
        return 0
    try:
        Path(args.out).write_text(table.text(), encoding="utf-8")
    except OSError as problem:
        raise CarbonError(f"output {args.out!r} cannot be written: {problem.strerror}") from None
    print(f"{len(table.rows)} rows written to {args.out}", file=sys.stderr)
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Print factors with their provenance."""
    from carbon.analysis import estimate, report
    from carbon.errors import CarbonError, unknown
    from dse.errors import UsageError

    sources: dict[str, Any] = dict(report.all_factors())
    ranges: dict[str, Any] | None = None
    if args.spec is None and (given := [name for name in ("grid", "profile") if getattr(args, name) is not None]):
        example = f"; `dse carbon grids --code {args.grid}` tells a place's own figure" if given == ["grid"] else ""
        raise UsageError(f"{given[0]} is given without a specification, whose factors it would change; name SPEC.toml{example}")
    if args.spec is not None:
        spec = estimate.load(args.spec)
        if args.profile is not None:
            spec["profile"] = args.profile
        answer = _of_file(args.spec, spec, _take_use(spec, args))
        sources, ranges = dict(answer.sources), dict(answer.ranges)
    if args.match:
        found = {key: factor for key, factor in sources.items() if args.match.lower() in key.lower()}
        if not found:
            if (place := report.place_called(args.match)) is not None:
                raise CarbonError(
                    f"factor {args.match!r} is unknown; electricity by place stands in a table of its own: `dse carbon grids --code "
                    f"'{place}'`"
                )
            raise unknown("factor", args.match, sources)
        sources = found
    if args.json:
        _print_json({key: report.factor_data(factor) | report.drawn(key, factor, ranges) for key, factor in sources.items()})
    else:
        print(report.sources_text(sources, ranges))
    return 0


def run_grids(args: argparse.Namespace) -> int:
    """List grids, look one up, or check a file."""
    from carbon.analysis import report
    from carbon.errors import CarbonError
    from carbon.factors import grid, traces
    from carbon.factors import grid_files as importers

    trace = None
    if args.import_file is not None:
        read = importers.read(args.import_file, zone=args.zone)
        for warning in read.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        trace = read.trace
    elif args.trace is not None:
        trace = traces.eia2022(args.trace)
    if args.best_hours is not None:
        if trace is None:
            raise CarbonError("--best-hours needs hours to choose from: give --import FILE or --trace NAME")
        best = traces.best_hours(trace, args.best_hours)
        data = {"trace": trace.name, "kind": str(trace.kind), "source": trace.source, "hours_a_day": args.best_hours}
        data |= {"flat_gco2e_per_kwh": best.flat_gco2e_per_kwh, "best_gco2e_per_kwh": best.best_gco2e_per_kwh}
        if args.json:
            _print_json({**data, "saving": best.saving})
        else:
            print(f"{trace.name}: {best.flat_gco2e_per_kwh:.1f} g/kWh all day, {best.best_gco2e_per_kwh:.1f} in the best ", end="")
            print(f"{args.best_hours} hours in a row of each day ({100 * best.saving:.1f} % less; perfect foresight, a bound)")
        return 0
    if trace is not None:
        listed = [trace.factor()]
    elif args.code is not None:
        listed = [grid.lookup(args.code, role=args.role)]
    else:
        listed = report.grids(args.pattern)
        if not listed:
            raise CarbonError(f"no grid matches {args.pattern!r}; `dse carbon grids` lists all")
    if args.json:
        _print_json([{"name": one.name, **report.factor_data(one)} for one in listed])
    else:
        print(report.grids_text(listed))
    return 0


def run_validate(args: argparse.Namespace) -> int:
    """Print the validation table; exit code 1 where a goal is missed."""
    from dataclasses import asdict

    import numpy as np

    from carbon.analysis import plots, report, validation
    from carbon.errors import CarbonError

    checks, products = validation.everything(args.reference)
    if args.plot is not None:
        x = np.linspace(0.01, 0.25, 121)
        whole, split = validation.crossover(x)
        marks = x[np.argmax(split < whole)]
        svg = plots.lines_svg(
            "814 mm2 at 5 nm: one die or four chiplets (fan-out)",
            "defect density per cm2",
            "embodied kgCO2e",
            x.tolist(),
            {"one die": whole.tolist(), "four chiplets": split.tolist()},
            float(marks),
        )
        try:
            Path(args.plot).write_text(svg, encoding="utf-8")
        except OSError as problem:
            raise CarbonError(f"plot {args.plot!r} cannot be written: {problem.strerror}") from None
    if args.json:
        inside = [{**asdict(one), "inside": one.inside} for one in products]
        _print_json({"checks": [asdict(one) for one in checks], "products": inside})
    else:
        print(report.checks_text(checks, products))
    return 1 if any(one.passed is False for one in checks) else 0


def run_robustness(args: argparse.Namespace) -> int:
    """Draw the carbon factors of a finished run and say how often its order holds."""
    from carbon.analysis import report
    from dse.analysis.contenders import compared
    from dse.evaluation import robustness
    from dse.storage import run_folder as runs

    found = runs.load(args.study)
    designs = compared(found)  # of equal designs one: they have no order to keep
    answer = robustness.analyse(found.problem, designs, draws=args.draws, seed=args.seed)
    stays, total = answer.stability.stays, answer.total
    rows = [
        {
            "design": design["design"],
            "stays_on_front": float(stays[at]),
            "least_of_objective": float(answer.stability.best[at]),
            "total_kgco2e": {
                "p5": float(total.p5[at]),
                "p50": float(total.p50[at]),
                "p95": float(total.p95[at]),
            },
        }
        for at, design in enumerate(designs)
    ]
    data = {
        "run": str(args.study),
        "objective": answer.objective,
        "draws": args.draws,
        "seed": args.seed,
        "whole_front_holds": answer.stability.whole_front,
        "pair_order_holds": answer.stability.pairs,
        "designs": rows,
        "ranges": {key: [one.low, one.mode, one.high] for key, one in answer.ranges.items()},
    }
    if args.json:
        _print_json(data)
        return 0
    print(f"{len(designs)} designs, {args.draws} draws of {len(answer.ranges)} factors, order by {answer.objective}")
    print(f"the whole front holds in {100 * answer.stability.whole_front:.1f} % of the draws")
    print(f"two designs keep their order in {100 * answer.stability.pairs:.1f} % of the draws, mean over pairs")
    shown = []
    for at, row in enumerate(rows):
        spread = [report.number(float(each[at])) for each in (total.p5, total.p50, total.p95)]
        shown.append([str(row["design"]), f"{100 * stays[at]:.1f} %", *spread])
    print(report.table(["design", "stays on front", "total kgCO2e: p5", "p50", "p95"], shown))
    return 0
