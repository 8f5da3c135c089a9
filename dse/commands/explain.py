"""``dse explain``: which design of a run for which deployment, and why a design is where it is."""

from __future__ import annotations

import argparse
from typing import Any

from dse.commands import lists


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "explain",
        help="say which design suits which deployment, and why a design won",
        description="Cost every design of a run exactly in a grid of deployments (region, lifetime, request rate, latency budget), fit a "
        "tree of a few questions that assigns each deployment a design, and hold it against the best assignment and the best single "
        "design. Then tell what one step of each knob would change of a design. Writes RUN/explanation.svg. With --alignment: say "
        "which costs of a model pull the same way over the hardware knobs, and put it into the run's report.",
        allow_abbrev=False,
    )
    parser.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    parser.add_argument("--depth", type=int, default=3, metavar="N", help="most questions of the tree (default 3)")
    parser.add_argument("--regions", metavar="A,B,...", help="grids of use (default iceland,france,usa,world,india)")
    parser.add_argument("--lifetimes", metavar="YEARS,...", help="default 1,2,3,5,8")
    parser.add_argument("--rates", metavar="PER_S,...", help="requests a second (default: the fastest design busy for 0.1 to 90 %%)")
    parser.add_argument("--budgets-ms", metavar="MS,...", help="latency budgets, `none` for no budget (default: quartiles of the designs)")
    parser.add_argument("--min-quality", type=float, metavar="VALUE", help="leave designs of lower quality out (default: those that lie "
                        "more than two standard errors below the best)")  # fmt: skip
    parser.add_argument("--weigh", default="kg", metavar="kg|share", help="what the tree minimises: the carbon of all segments together "
                        "(default), or each segment's carbon as a share of its least")  # fmt: skip
    parser.add_argument("--design", type=int, metavar="K", help="explain this design's knobs (default: the recommended one)")
    parser.add_argument("--alignment", action="store_true",
                        help="instead: cosines of the costs' gradients for the model of --design (default: the middle one of the "
                        "front), and groups of allied costs; needs torch")  # fmt: skip
    parser.add_argument("--no-why", action="store_true", help="leave the knobs out")
    parser.add_argument("--out", metavar="FILE.svg", help="where the picture goes (default RUN/explanation.svg)")
    parser.add_argument("--json", action="store_true", help="print JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain, print, and write the picture."""
    import json
    import math
    import sys
    from pathlib import Path

    from dse.analysis.explanation import explain
    from dse.analysis.neighbours import why
    from dse.reports import explanation_text
    from dse.reports.kept import of_run
    from dse.storage.run_folder import load, write_text

    result = load(args.run_folder)
    if args.alignment:
        return _alignment(result, args)
    axes: dict[str, Any] = {}
    if args.regions:
        axes["regions"] = lists.names("regions", args.regions)
    if args.lifetimes:
        axes["lifetimes"] = lists.numbers("lifetimes", args.lifetimes, float, "3,5")
    if args.rates:
        axes["rates"] = lists.numbers("rates", args.rates, float, "1,100")
    if args.budgets_ms:
        words = lists.numbers("budgets-ms", args.budgets_ms, lambda word: math.inf if word == "none" else float(word), "5,20,none")
        axes["budgets_s"] = [value / 1e3 for value in words]
    found = explain(result, depth=args.depth, min_quality=args.min_quality, weigh=args.weigh, **axes)
    design = args.design if args.design is not None else of_run(result).design
    if design is None:
        design = int(found.candidates.design[found.single])
    reason = None if args.no_why else why(result, design)
    if args.json:
        print(json.dumps(explanation_text.as_json(result, found, reason), indent=2, allow_nan=False))
    else:
        print(explanation_text.text(result, found, reason))
    place = Path(args.out) if args.out else result.path / "explanation.svg"
    print(write_text(place, explanation_text.svg(result, found)), file=sys.stderr)
    return 0


def _alignment(result: Any, args: argparse.Namespace) -> int:
    """Which costs pull the same way: printed, and kept in the run's report."""
    import json
    import sys

    from dse.analysis import alignment
    from dse.reports.alignment_text import text
    from dse.reports.run_files import keep_alignment

    found = alignment.of_run(result, design=args.design)
    kept = keep_alignment(result, found.to_dict())
    if args.json:
        print(json.dumps(found.to_dict(), indent=2, allow_nan=False))
    else:
        print(text(found))
    print(kept.path / "report.html", file=sys.stderr)
    return 0
