"""What is searched, in words: problem, objectives, metrics, deployment."""

from __future__ import annotations

from dse.problem.problem import (
    CRITERIA,
    DEFAULT_SPACE,
    Problem,
    check_knob_names,
    fix_knobs,
)

__all__ = ["CRITERIA", "DEFAULT_SPACE", "Problem", "check_knob_names", "fix_knobs"]
