"""``dse validate``: every reference comparison, with the error now and the peers' own; GPU kernels by device and engine."""

from __future__ import annotations

import argparse
from typing import Any

SUBJECTS = ("hardware", "kernels", "chips", "networks", "measured")


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "validate",
        help="compare the models with their references",
        description="Run every reference comparison and print its error beside the goal and the error that peers report. "
        "Leaves with code 1 if a figure is worse than recorded. `kernels` prints the error of each kind of GPU kernel by device and "
        "engine on measured rows that no parameter was fitted to; `chips` whole chips beside their published figures; `networks` "
        "three networks beside SCALE-Sim's and ZigZag's counts; `measured` every row that the project measured on an H100.",
        allow_abbrev=False,
    )
    parser.add_argument("subject", metavar="SUBJECT", help=f"what is validated: {', '.join(SUBJECTS)}")
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="run this comparison (of `kernels` and `measured`: this kind; of `chips`: this chip) only (repeatable)",
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print JSON on stdout")
    shape.add_argument("--markdown", action="store_true", help="print the page that docs/validation.md holds (of the others: a table)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the comparisons and print them; 1 if a figure exceeds its recorded bound."""
    from dse.errors import unknown_name
    from hw_models.validation import registry as validation

    if args.subject not in SUBJECTS:
        raise unknown_name("subject", args.subject, SUBJECTS)
    if args.subject == "kernels":
        return _kernels(args)
    if args.subject in ("chips", "networks", "measured"):
        return _tables(args)
    comparisons = validation.run(args.only)
    if args.json:
        _print_json(comparisons)
    elif args.markdown:
        print(validation.page(comparisons), end="")
    else:
        _print_table(comparisons)
    return 0 if all(c.within_bound for c in comparisons) else 1


def _kernels(args: argparse.Namespace) -> int:
    """The errors on rows kept out; a test fails above their recorded bounds, so that nothing is judged here."""
    import json
    from dataclasses import asdict

    from dse.errors import unknown_name
    from hw_models.validation import gpu_accuracy
    from hw_models.validation.gpu_rows import KINDS

    for kind in args.only or ():
        if kind not in KINDS:
            raise unknown_name("kind of kernel", kind, KINDS)
    chosen = [a for a in gpu_accuracy.accuracies() if not args.only or a.kind in args.only]
    if args.json:
        print(json.dumps({"subject": "kernels", "errors": [asdict(a) for a in chosen]}, indent=2))
    elif args.markdown:
        print(gpu_accuracy.table(chosen))
    else:
        _print_kernels(chosen)
    return 0


def _tables(args: argparse.Namespace) -> int:
    """Whole chips, three networks, or our own rows; tests hold their figures, so that nothing is judged here."""
    import json
    from dataclasses import asdict
    from functools import partial

    from dse.errors import UsageError, unknown_name
    from hw_models.validation import chips, measured_gpu, networks

    if args.subject == "networks":
        if args.only:
            raise UsageError("only is given for the subject networks, must be left out: its rows belong together")
        shown = networks.cells()
        records: list[dict[str, Any]] = [dict(zip(networks.HEADER, row, strict=True)) for row in shown]
        header: tuple[str, ...] = networks.HEADER
        page = networks.markdown
    elif args.subject == "measured":
        for kind in args.only or ():
            if kind not in measured_gpu.KINDS:
                raise unknown_name("kind of row", kind, measured_gpu.KINDS)
        own = tuple(figure for figure in measured_gpu.figures() if not args.only or figure.what in args.only)
        shown = [measured_gpu.cells(figure) for figure in own]
        records = [asdict(figure) | {"ratio": figure.ratio} for figure in own]
        header = measured_gpu.HEADER
        page = partial(measured_gpu.markdown, own)
    else:
        found = chips.figures()
        known = chips.named()
        for name in args.only or ():
            if name.casefold() not in known:
                raise unknown_name("chip", name, [*dict.fromkeys(figure.chip for figure in found), *known])
        chosen = {chip for name in args.only or () for chip in known[name.casefold()]}
        found = tuple(figure for figure in found if not args.only or figure.chip in chosen)
        shown = [chips.cells(figure) for figure in found]
        records = [asdict(figure) | {"ratio": figure.ratio, "within": figure.within} for figure in found]
        header = chips.HEADER
        page = partial(chips.markdown, found)
    if args.json:
        print(json.dumps({"subject": args.subject, "rows": records}, indent=2))
    elif args.markdown:
        print(page(), end="")
    else:
        _print_rows(header, shown)
    return 0


def _print_rows(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in header:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def _print_kernels(chosen: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title="kernels on rows that no fit has seen", title_justify="left")
    for title in ("kernel", "format", "engine", "device", "rows", "mean error", "median ratio", "90 % below", "device in the fit"):
        table.add_column(title, justify="left" if title in ("kernel", "format", "engine", "device") else "right")
    for a in chosen:
        shown = (f"{100 * a.mean:.1f} %", f"{a.median:.2f}", f"{100 * a.p90:.0f} %", "other shapes" if a.seen else "no")
        table.add_row(a.kind, a.number_format, a.framework, a.device, f"{a.rows:,}", *shown)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(table)


def _print_json(comparisons: list[Any]) -> None:
    import json
    from dataclasses import asdict

    rows = [{**asdict(c), "within_bound": c.within_bound, "meets_goal": c.meets_goal} for c in comparisons]
    print(json.dumps({"subject": "hardware", "comparisons": rows}, indent=2))


def _print_table(comparisons: list[Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from hw_models.validation import registry as validation

    table = Table(box=None, pad_edge=False)
    for title in validation.HEADER:
        table.add_column(title, justify="right" if title in ("rows", "error now", "goal") else "left", overflow="fold")
    for comparison in comparisons:
        table.add_row(*validation.cells(comparison), style=None if comparison.within_bound else "bold red")
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a pipe has no width: whole lines, for a reader such as grep
    console.print(table)
    worse = [c for c in comparisons if not c.within_bound]
    for c in worse:
        console.print(f"{c.name}: {c.value:.2f} is worse than the recorded {c.bound:g}", style="bold red")
