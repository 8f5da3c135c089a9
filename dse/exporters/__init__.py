"""Designs as the files of other tools: one module a target, each with ``export(design) -> Export``."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from dse.errors import unknown_name

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


def export(run: RunRecord, number: int, target: str, folder: str | Path | None = None) -> list[Path]:
    """Write design ``number`` of a run as files of ``target`` into ``folder``; returns what was written.

    The default folder is ``exports/TARGET-NUMBER`` in the run's. Raises UsageError for an unknown target (with the nearest) or design,
    DseError where the target has no form for the design or the folder cannot be written.
    """
    if target not in TARGETS:
        raise unknown_name("to", target, TARGETS)
    from dse.exporters.base import write
    from dse.exporters.design import load_design

    design = load_design(run, number)
    module = importlib.import_module(f"dse.exporters.{target}")
    place = Path(folder) if folder is not None else run.path / "exports" / f"{target}-{number:04d}"
    return write(module.export(design), design, place)
