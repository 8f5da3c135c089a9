"""Spaces of accelerators: shipped templates, and what a user's file describes."""

from __future__ import annotations

from pathlib import Path

from hw_models.accelerator import Accelerator
from hw_models.spaces.files import read_hardware
from hw_models.spaces.template import Template, foreign, load, names, register

__all__ = ["Template", "foreign", "load", "load_file", "names", "register"]


def load_file(path: str | Path, *, profile: str | None = None) -> Accelerator | Template:
    """Read a user's file: one design (fixed fields), or a space (fields with lists, or `template = ...` with knob
    lists).
    """
    return read_hardware(Path(path), profile=profile)
