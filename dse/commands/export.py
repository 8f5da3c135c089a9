"""``dse export``: a design of a run as the files of another tool."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "export",
        help="write a design as the files of another tool",
        description="Write a design of a run as the files of another tool: accelerator, workload and mapping where its format has them, "
        "and EXPORT-NOTES.md with what it cannot express. Targets: scalesim, zigzag, accelforge, genz, timeloop, stream, llmcompass, "
        "gemmini, onnx.",
        allow_abbrev=False,
    )
    parser.add_argument("run_folder", metavar="RUN", help="run folder or study file")
    parser.add_argument("--design", type=int, default=1, metavar="K", help="design of the front, from 1 (default 1)")
    parser.add_argument("--to", required=True, metavar="TOOL", help="what the files are for")
    parser.add_argument("--out", metavar="FOLDER", help="where to write (default RUN/exports/TOOL-K)")
    parser.add_argument("--json", action="store_true", help="print the list of files as JSON on stdout")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export and list the files."""
    import json
    import sys

    from dse.exporters import export_told
    from dse.storage.run_folder import load

    written, careful = export_told(load(args.run_folder), args.design, args.to, args.out)
    if args.json:
        print(json.dumps([str(path) for path in written], indent=2))
    else:
        print("\n".join(str(path) for path in written))
    for line in careful:
        print(f"careful: {line}", file=sys.stderr if args.json else sys.stdout)
    return 0
