"""Designs as the files of other tools: one module a target, each with ``export(design) -> Export``."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dse.errors import unknown_name
from dse.exporters.base import write
from dse.exporters.design import load_design
from dse.extensions import installed, installed_names

if TYPE_CHECKING:
    from dse.storage.run_folder import RunRecord

# Name on the command line -> what it is. The module bears the name.
TARGETS = {
    "scalesim": "SCALE-Sim 3: configuration and topology; cycles equal ours exactly",
    "zigzag": "ZigZag 3: accelerator, workload and spatial mapping",
    "accelforge": "accelforge 1: architecture and workload",
    "genz": "GenZ: system and model dictionaries",
    "timeloop": "Timeloop v4: architecture, problems and mapper",
    "stream": "Stream 2: cores, their links and mapping",
    "llmcompass": "LLMCompass: device JSON",
    "gemmini": "Gemmini: Chisel configuration",
    "onnx": "ONNX: the design's model as a graph (needs torch, transformers and onnx)",
}


GROUP = "dse.exporters"


def targets() -> dict[str, str]:
    """Name -> what it is, of the package's targets and those of installed packages (entry points of the group ``dse.exporters``)."""
    own = {name: str(getattr(installed(GROUP, name), "SUMMARY", "of an installed package")) for name in installed_names(GROUP)}
    return {**own, **TARGETS}


def _exporter(target: str | Any) -> tuple[str, Any]:
    """Name and exporter of a target given by name or as an object."""
    if not isinstance(target, str):
        return str(getattr(target, "name", type(target).__name__)).lower(), target
    if target in TARGETS:
        return target, importlib.import_module(f"dse.exporters.{target}")
    found = installed(GROUP, target)
    if found is None:
        raise unknown_name("to", target, targets())
    return target, found


def export(run: RunRecord, number: int, target: str | Any, folder: str | Path | None = None) -> list[Path]:
    """Write design ``number`` of a run as files of ``target`` (a name, or an object with ``export(design) -> Export``) into
    ``folder``; returns what was written.

    The default folder is ``exports/TARGET-NUMBER`` in the run's. Raises UsageError for an unknown target (with the nearest) or design,
    DseError where the target has no form for the design or the folder cannot be written.
    """
    return export_told(run, number, target, folder)[0]


def export_told(run: RunRecord, number: int, target: str | Any, folder: str | Path | None = None) -> tuple[list[Path], Sequence[str]]:
    """The same, and sentences on what makes the files another machine than the design."""
    name, exporter = _exporter(target)
    design = load_design(run, number)
    place = Path(folder) if folder is not None else run.path / "exports" / f"{name}-{number:04d}"
    found = exporter.export(design)
    return write(found, design, place), found.careful
