"""``dse init``: a commented file to start from."""

from __future__ import annotations

import argparse
from typing import Any

EPILOG = """\
examples:
  dse init accelerator my-npu.toml
  dse init accelerator my-gpu.toml --from h100
  dse init space my-space.toml --workload bert --from edge22
  dse init carbon my-server.toml
"""


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "init",
        help="write a commented accelerator, space or carbon file to start from",
        description="Write a file that works as it stands, with a comment on every field: an accelerator (of a device or a template), a "
        "search space (a template's knobs around a workload's model), or a carbon specification of a server.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("kind", metavar="KIND", help="accelerator, space or carbon")
    parser.add_argument("file", nargs="?", metavar="FILE.toml", help="where to write (default: standard output)")
    parser.add_argument("--from", dest="source", metavar="NAME", help="device or template of an accelerator or a space (default edge22)")
    parser.add_argument("--workload", metavar="NAME", help="whose model a space is built around (default bert)")
    parser.add_argument("--force", action="store_true", help="write over a file that exists")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    import sys
    from pathlib import Path

    from dse.errors import UsageError, unknown_name
    from dse.spaces import starters

    if args.kind not in starters.KINDS:
        raise unknown_name("kind", args.kind, starters.KINDS)
    if args.source is not None and args.kind == "carbon":
        raise UsageError(f"from {args.source} is of an accelerator or a space; a carbon file names a device of `dse list templates` itself "
                         '(device = "h100"), and `dse evaluate --hw FILE` tells the carbon of an accelerator file')  # fmt: skip
    if args.workload is not None and args.kind != "space":
        raise UsageError(f"workload {args.workload} is of a space, and a file of kind {args.kind} has none; leave it out")
    source = args.source or "edge22"
    if args.kind == "accelerator":
        text = starters.accelerator(source)
    elif args.kind == "space":
        text = starters.space(args.workload or "bert", source)
    else:
        text = starters.carbon()
    if args.file is None:
        sys.stdout.write(text)
        return 0
    try:
        with Path(args.file).open("w" if args.force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise UsageError(f"file {args.file} exists; name another or add --force") from None
    print(f"{args.file} written; its first lines say what to do with it", file=sys.stderr)
    return 0
