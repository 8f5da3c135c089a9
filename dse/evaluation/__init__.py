"""A problem made ready: hardware points, blocks of metrics, single designs, robustness."""

from __future__ import annotations

from dse.evaluation.evaluation import (
    Block,
    Evaluation,
    Space,
    build_space,
    file_sha256,
    load_family,
    load_hardware,
)

__all__ = ["Block", "Evaluation", "Space", "build_space", "file_sha256", "load_family", "load_hardware"]
