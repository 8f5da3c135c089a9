"""``dse import-hw``: an accelerator file of another tool as a ``--hw`` file."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "import-hw",
        help="read an accelerator file of another tool",
        description="Read an accelerator file of SCALE-Sim (.cfg), ZigZag or Timeloop (YAML) and write it as a TOML file for --hw. What "
        "the file does not say is assumed and noted, in the file and on stderr.",
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="the other tool's file")
    parser.add_argument("--from", required=True, dest="source", metavar="TOOL", help="scalesim, zigzag or timeloop")
    parser.add_argument("--out", metavar="FILE.toml", help="where to write it (default: on stdout)")
    parser.add_argument("--name", metavar="NAME", help="name of the accelerator (default: the file's)")
    parser.add_argument("--frequency-hz", type=float, metavar="HZ", help="clock, where the file has none (default 1e9)")
    parser.add_argument("--node-nm", type=float, metavar="NM", help="technology node (default the file's, or 22)")
    parser.add_argument("--voltage-v", type=float, metavar="V", help="supply (default 0.8)")
    parser.add_argument("--word-bits", type=int, metavar="BITS", help="width of a word (default the file's, or 8)")
    parser.add_argument("--dram-type", metavar="NAME", help="type of the DRAM (default the file's, or lpddr4)")
    parser.add_argument("--dram-gib", type=float, metavar="GIB", help="capacity of the DRAM (default the file's, or 1)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, write, and tell the notes."""
    import sys
    from pathlib import Path

    from dse.importers import read
    from dse.importers.base import Options
    from dse.storage.run_folder import write_text

    imported = read(
        args.file,
        args.source,
        Options(
            name=args.name,
            frequency_hz=args.frequency_hz,
            node_nm=args.node_nm,
            voltage_v=args.voltage_v,
            word_bits=args.word_bits,
            dram_type=args.dram_type,
            dram_gib=args.dram_gib,
        ),
    )
    for note in imported.notes:
        print(note, file=sys.stderr)
    if args.out is None:
        print(imported.to_toml(), end="")
    else:
        print(write_text(Path(args.out), imported.to_toml()))
    return 0
