"""Every comparison with numbers from elsewhere."""

from __future__ import annotations

from hw_models.validation.registry import (
    HEADER,
    MODULES,
    PREAMBLE,
    Comparison,
    Outcome,
    Spec,
    cells,
    markdown,
    page,
    reference_rows,
    run,
    specs,
)

__all__ = ["HEADER", "MODULES", "PREAMBLE", "Comparison", "Outcome", "Spec", "cells", "markdown", "page", "reference_rows", "run", "specs"]
