"""Accelerator files of other tools as accelerators of ours: SCALE-Sim, ZigZag, Timeloop."""

from __future__ import annotations

import importlib
from pathlib import Path

from dse.errors import unknown_name
from dse.importers.base import Imported, Options

SOURCES = {
    "scalesim": "SCALE-Sim configuration (.cfg)",
    "zigzag": "ZigZag accelerator (YAML)",
    "timeloop": "Timeloop architecture, format 0.4 or 0.3 (YAML)",
}


def read(path: str | Path, tool: str, options: Options | None = None) -> Imported:
    """Read a file of ``tool`` as an accelerator, with notes of what was assumed.

    ``options`` gives what the file does not say (frequency, node, DRAM). Raises UsageError for an unknown tool,
    DseError with file and field for a file that is not of that form.
    """
    if tool not in SOURCES:
        raise unknown_name("from", tool, SOURCES)
    module = importlib.import_module(f"dse.importers.{tool}")
    imported: Imported = module.read(Path(path), options or Options())
    return imported
