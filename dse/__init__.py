"""Hardware-aware design-space exploration of model and accelerator: quality, carbon, latency, energy and area.

The public functions live in :mod:`dse.api` and are offered here lazily, so that ``import dse`` stays light.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dse.moved import FORWARDING
from dse.version import __version__

if TYPE_CHECKING:
    from dse.api import evaluate, load, resume, search
    from dse.errors import DseError
    from dse.serving.loops import search_loops

if FORWARDING not in sys.meta_path:
    sys.meta_path.append(FORWARDING)

__all__ = ["DseError", "__version__", "evaluate", "load", "resume", "search", "search_loops"]


def __getattr__(name: str) -> Any:
    if name == "evaluate":  # one design needs no study: its modules load in half the time
        from dse.evaluation.one_design import evaluate

        return evaluate
    if name == "DseError":
        from dse.errors import DseError

        return DseError
    if name == "search_loops":
        from dse.serving.loops import search_loops

        return search_loops
    if name in __all__:
        from dse import api

        return getattr(api, name)
    raise AttributeError(f"module 'dse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
